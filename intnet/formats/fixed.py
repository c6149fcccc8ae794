"""Fixed point: a word of bits with a binary point at a fixed place."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np

from intnet.errors import InputError
from intnet.formats import notations
from intnet.formats._words import Words, integer

MAX_WORD_BITS = 63
"""The longest word: raw values are int64, which also holds unsigned words of 63 bits, and the sum of two signed ones."""

MAX_FRACTION_BITS = 960
"""The binary point may be this far from the word's end, on either side: every number then lies within float64's range."""


@dataclass(frozen=True)
class Fixed(Words):
    """A fixed-point format: a raw integer r stands for ``r / 2**fraction_bits``.

    Parameters
    ----------
    word_bits : int, 1..63
        Length of the word, its sign bit included.
    fraction_bits : int, -960..960
        Bits after the binary point; may be negative or larger than the word.
    signed : bool
        Two's complement if true, else from zero.

    Raises
    ------
    InputError
        If a number is outside its range or not an integer, or `signed` is not a boolean.

    Examples
    --------
    >>> form = Fixed(16, 12)
    >>> print(form, form.minimum, form.maximum, form.storage)
    fxp-s16/12 -32768 32767 int16
    >>> form.resolution, form.maximum_value
    (0.000244140625, Fraction(32767, 4096))
    >>> Fixed(8, 0, signed=False).allowed([255, 256, -1])
    array([ True, False, False])
    >>> Fixed.parse("ap_fixed<16,4>") == Fixed.parse("Q3.12", convention="ti") == form
    True
    """

    word_bits: int
    fraction_bits: int
    signed: bool = True

    def __post_init__(self) -> None:
        word_bits = integer("word_bits", self.word_bits, 1, MAX_WORD_BITS)
        fraction_bits = integer("fraction_bits", self.fraction_bits, -MAX_FRACTION_BITS, MAX_FRACTION_BITS)
        if not isinstance(self.signed, (bool, np.bool_)):
            raise InputError(f"signed must be True or False, got {self.signed!r}")
        object.__setattr__(self, "word_bits", word_bits)
        object.__setattr__(self, "fraction_bits", fraction_bits)
        object.__setattr__(self, "signed", bool(self.signed))

    @property
    def resolution(self) -> float:
        """The real number that one unit stands for, ``2**-fraction_bits``; exact."""
        return 2.0**-self.fraction_bits

    @property
    def minimum_value(self) -> Fraction:
        """The smallest real number of the format; a fraction, since words over 53 bits do not fit a float."""
        return self.minimum * Fraction(2) ** -self.fraction_bits

    @property
    def maximum_value(self) -> Fraction:
        """The largest real number of the format; a fraction, since words over 53 bits do not fit a float."""
        return self.maximum * Fraction(2) ** -self.fraction_bits

    def __str__(self) -> str:
        return f"fxp-{'s' if self.signed else 'u'}{self.word_bits}/{self.fraction_bits}"

    @classmethod
    def parse(cls, text: Any, convention: str | None = None) -> Self:
        """Return the format that `text` names.

        Parameters
        ----------
        text : str or Fixed
            ``fxp-s16/12`` (canonical), ``ap_fixed<16,4>``, ``ap_ufixed<8,8>``, ``fixdt(1,16,12)``,
            ``numerictype(1,16,12)``, ``quantized_bits(16,3)``, or ``Q3.12`` with a convention. ``UQ4.12`` needs none.
        convention : {None, "ti", "arm"}
            Whether the m of a signed Qm.n leaves the sign bit out ("ti": the word has 1 + m + n bits) or counts it ("arm":
            m + n). Other notations do not need it.

        Raises
        ------
        InputError
            If the text is not a format, or is a signed Qm.n without a convention.

        Examples
        --------
        >>> print(Fixed.parse("Q3.12", convention="ti"), Fixed.parse("Q3.12", convention="arm"))
        fxp-s16/12 fxp-s15/12
        >>> Fixed.parse("Q3.12")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        InputError: 'Q3.12' has two readings: fxp-s16/12 with convention='ti', fxp-s15/12 with convention='arm'
        """
        if isinstance(text, cls):
            return text
        return cls(*notations.read(text, convention))

    def to_q(self, convention: str) -> str:
        """Return the name as ``Qm.n`` or ``UQm.n`` in the convention "ti" or "arm".

        >>> Fixed(16, 12).to_q("ti"), Fixed(16, 12).to_q("arm"), Fixed(8, 0, signed=False).to_q("ti")
        ('Q3.12', 'Q4.12', 'UQ8.0')
        """
        uncounted = notations.check_convention(convention) == "ti" and self.signed
        before = self.word_bits - self.fraction_bits - uncounted
        if before < 0 or self.fraction_bits < 0:
            raise InputError(
                f"{self} has no Q name: Q{before}.{self.fraction_bits} would need a negative number; use its own name"
            )
        return f"{'' if self.signed else 'U'}Q{before}.{self.fraction_bits}"

    def to_ap_fixed(self) -> str:
        """Return the Vitis HLS type, which counts the integer bits with the sign.

        >>> Fixed(16, 12).to_ap_fixed(), Fixed(8, 10, signed=False).to_ap_fixed()
        ('ap_fixed<16,4>', 'ap_ufixed<8,-2>')
        """
        return f"ap_{'' if self.signed else 'u'}fixed<{self.word_bits},{self.word_bits - self.fraction_bits}>"

    def to_apytypes(self) -> dict[str, int]:
        """Return the arguments of apytypes' APyFixed and APyFixedArray, which are signed.

        >>> Fixed(16, 12).to_apytypes()
        {'int_bits': 4, 'frac_bits': 12}
        """
        self._needs_sign("apytypes' APyFixed")
        return {"int_bits": self.word_bits - self.fraction_bits, "frac_bits": self.fraction_bits}

    def to_matlab(self) -> str:
        """Return MATLAB's ``numerictype(signed, word length, fraction length)``; ``fixdt`` takes the same three.

        >>> Fixed(16, 12).to_matlab()
        'numerictype(1,16,12)'
        """
        return f"numerictype({int(self.signed)},{self.word_bits},{self.fraction_bits})"

    def to_qkeras(self) -> str:
        """Return QKeras' ``quantized_bits(bits, integer)``, whose integer part leaves the sign out.

        ``alpha=1`` keeps QKeras from choosing a scale of its own when it quantizes a layer's weights.

        >>> Fixed(16, 12).to_qkeras()
        'quantized_bits(16,3,alpha=1)'
        """
        if self.signed and self.word_bits == 1:
            raise InputError(f"{self} has no QKeras name: quantized_bits makes -1 and +1 of a signed bit; use 2 bits or more")
        sign = "" if self.signed else "keep_negative=0,"
        return f"quantized_bits({self.word_bits},{self.word_bits - self.fraction_bits - self.signed},{sign}alpha=1)"

    def to_qpytorch(self) -> dict[str, int]:
        """Return the arguments of QPyTorch's fixed-point functions, which are signed.

        >>> Fixed(16, 12).to_qpytorch()
        {'wl': 16, 'fl': 12}
        """
        self._needs_sign("QPyTorch's fixed point")
        return {"wl": self.word_bits, "fl": self.fraction_bits}

    def _needs_sign(self, tool: str) -> None:
        if not self.signed:
            wider = f"fxp-s{self.word_bits + 1}/{self.fraction_bits}"
            raise InputError(f"{tool} is signed, got {self}; {wider} holds the same numbers")
