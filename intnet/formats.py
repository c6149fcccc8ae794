"""Fixed-point formats: what a raw integer stands for, and what happens when a number does not fit.

A format is named by two numbers, everywhere in intnet: ``word_bits``, the length of the word with its sign bit, and
``fraction_bits``, the number of bits after the binary point. A raw integer r stands for ``r / 2**fraction_bits``.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from intnet.errors import InputError


class Rounding(Enum):
    """How discarded fraction bits decide the result. The value is the name used on command lines and in files."""

    FLOOR = "floor"
    """To minus infinity: the plain arithmetic shift. Bias: minus half a unit on average."""


class Overflow(Enum):
    """What becomes of a number outside the word. Events are counted in every mode."""

    WRAP = "wrap"
    """Modulo ``2**word_bits``, two's complement."""


_STORAGE = (np.int8, np.int16, np.int32, np.int64)


@dataclass(frozen=True)
class Fixed:
    """A signed fixed-point format.

    Parameters
    ----------
    word_bits : int, 1..64
        Length of the two's complement word, sign bit included.
    fraction_bits : int
        Bits after the binary point; may be negative or larger than the word.

    Raises
    ------
    InputError
        If `word_bits` is outside 1..64 or one of the two is not an integer.

    Examples
    --------
    >>> print(Fixed(16, 12), Fixed(16, 12).minimum, Fixed(16, 12).maximum)
    fxp-s16/12 -32768 32767
    >>> Fixed(16, 12).resolution
    0.000244140625
    """

    word_bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        for name in ("word_bits", "fraction_bits"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise InputError(f"{name} must be an integer, got {value!r}")
            object.__setattr__(self, name, int(value))
        if not 1 <= self.word_bits <= 64:
            raise InputError(f"word_bits must be in 1..64, got {self.word_bits}")

    @property
    def minimum(self) -> int:
        """The smallest raw integer, ``-2**(word_bits - 1)``."""
        return -(2 ** (self.word_bits - 1))

    @property
    def maximum(self) -> int:
        """The largest raw integer, ``2**(word_bits - 1) - 1``."""
        return 2 ** (self.word_bits - 1) - 1

    @property
    def resolution(self) -> float:
        """The real number that one unit stands for, ``2**-fraction_bits``."""
        return 2.0**-self.fraction_bits

    @property
    def storage(self) -> np.dtype:
        """The narrowest signed NumPy integer type that holds the word."""
        return np.dtype(next(kind for kind in _STORAGE if np.iinfo(kind).bits >= self.word_bits))

    def __str__(self) -> str:
        return f"fxp-s{self.word_bits}/{self.fraction_bits}"
