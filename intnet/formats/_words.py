"""What every format has: a word of raw integers, with its range and its place in memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet.errors import InputError
from intnet.formats.modes import Overflow

_STORAGE = (np.int8, np.int16, np.int32, np.int64)


def integer(name: str, value: Any, minimum: int, maximum: int) -> int:
    """Return `value` as an int of ``minimum..maximum``, or refuse it by `name`; booleans are no integers here.

    >>> integer("word_bits", np.int64(16), 1, 63)
    16
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{name} must be an integer in {minimum}..{maximum}, got {value!r}")
    if not minimum <= value <= maximum:
        raise InputError(f"{name} must be in {minimum}..{maximum}, got {value}")
    return int(value)


class Words:
    """The raw integers of a format with `word_bits` and `signed`: two's complement, or unsigned from zero."""

    word_bits: int
    signed: bool

    @property
    def minimum(self) -> int:
        """The smallest raw integer: ``-2**(word_bits - 1)``, or 0 where the word has no sign."""
        return -(1 << (self.word_bits - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """The largest raw integer: ``2**(word_bits - 1) - 1``, or ``2**word_bits - 1`` where the word has no sign."""
        return (1 << (self.word_bits - self.signed)) - 1

    @property
    def storage(self) -> np.dtype[np.signedinteger]:
        """The narrowest signed NumPy integer type that holds the word.

        An unsigned word takes one bit more (8 unsigned bits are stored as int16): the kernels know signed types only,
        and mixing uint64 with int64 ends in float64.
        """
        bits = self.word_bits + (not self.signed)
        return np.dtype(next(kind for kind in _STORAGE if np.iinfo(kind).bits >= bits))

    def limits(self, overflow: Overflow | str = Overflow.SATURATE) -> tuple[int, int]:
        """Return the least and the greatest raw integer that a result may have.

        Parameters
        ----------
        overflow : Overflow or str
            Under ``saturate_symmetric`` a signed word gives up its minimum: -127..127 instead of -128..127. An unsigned
            word keeps its range, as AP_SAT_SYM does. Every other mode uses the whole word.

        Returns
        -------
        tuple of int
            ``(least, greatest)``.
        """
        symmetric = self.signed and Overflow.parse(overflow) is Overflow.SATURATE_SYMMETRIC
        return -self.maximum if symmetric else self.minimum, self.maximum

    def allowed(self, raw: Any) -> NDArray[np.bool_]:
        """Tell for each raw integer whether the word holds it.

        Parameters
        ----------
        raw : array_like of integers, any shape

        Returns
        -------
        ndarray of bool, shape of `raw`

        Raises
        ------
        InputError
            If `raw` holds anything but integers.
        """
        # NumPy makes float64 of a list with -1 and 2**63: what is no array yet is compared as Python integers.
        is_array = isinstance(raw, (np.ndarray, np.generic))
        array: NDArray[Any] = np.asarray(raw) if is_array else np.asarray(raw, dtype=object)
        if array.dtype == object:
            for value in array.flat:
                if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                    raise InputError(f"raw values must be integers, got {value!r}")
        elif array.dtype.kind not in "iu":
            raise InputError(f"raw values must be integers, got dtype {array.dtype}")
        return np.asarray((array >= self.minimum) & (array <= self.maximum), dtype=bool)
