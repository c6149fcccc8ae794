"""Linear combinations of tensors whose exponents differ, exact where 62 bits allow it; and biases added to sums."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet.kernels import _parallel
from intnet.kernels.place import gpu, on_device
from intnet.kernels.plain import combine as plain
from intnet.kernels.product import Integers
from intnet.kernels.requantization import SATURATE, WRAP, Word, word_of

Int64s = NDArray[np.int64]
Term = tuple[Integers, int, ArrayLike]

SUM_BITS = 62  # what `alignment` keeps the magnitude of a sum to: at most 2**62
_TERMS = 3
_WORTH_A_THREAD = 1 << 16  # elements
_NO_TERM = (np.zeros(0, np.uint8), 1, 0, np.zeros(1, np.int64))


def linear_combination(terms: Sequence[Term], rows: int, kind: Any = np.int64) -> Integers:
    """Return the sum of ``factor * values * 2**shifts`` over one to three terms.

    Parameters
    ----------
    terms : sequence of (values, factor, shifts)
        Values are C-contiguous integers, of any types, all of the size of the first, whose shape the result has. Shifts are
        int64, one for all or one for each row: to the left, or where negative to the right, where the lowest bit of the
        result is set if anything but zeros was cut off (so rounding it further, by two bits or more, rounds the term
        itself).
    rows : int
        Length of the first axis, by which shifts go: all sizes are multiples of it.
    kind : type
        int64, or int32 where that is proven to hold the sum.

    Returns
    -------
    `kind`, the shape of the first values
        The caller has proven that no product, no shifted term and no sum leaves int64: :func:`alignment` finds such shifts.

    Examples
    --------
    >>> linear_combination([(np.array([3, -3], np.int8), 1, 2), (np.array([5, 6]), -1, [-1, 0])], 2)
    array([  9, -18])
    """
    if on_device(terms[0][0]):
        return gpu().linear_combination(terms, rows, kind)
    shape = terms[0][0].shape
    out: Integers = np.empty(shape, kind)
    if not out.size:
        return out
    flat: Integers = out.reshape(-1)
    arguments: list[Any] = []
    for values, factor, shifts in terms:
        each = _one_shift(shifts) if isinstance(shifts, int) else np.asarray(shifts, np.int64).reshape(-1)
        arguments += (values.reshape(-1).view(np.uint8), values.itemsize, factor, each)
    for _ in range(_TERMS - len(terms)):
        arguments += _NO_TERM
    arguments += (out.size // rows, flat)
    count, pieces = len(terms), _parallel.pieces_of(out.size, minimum=_WORTH_A_THREAD)
    _parallel.run(lambda first, last: plain.linear_combination(count, first, last, *arguments), pieces)
    return out


def divide_rows(values: Int64s, divisor: int) -> tuple[Int64s, Int64s]:
    """Divide integers by another, keeping all bits that a word has room for.

    Parameters
    ----------
    values : (rows, length) int64
        Magnitudes up to ``2**62``.
    divisor : int, 1..2**62

    Returns
    -------
    quotients : (rows, length) int64
        ``values * 2**ups / divisor``, rounded down, the lowest bit set unless that is exact: rounding further, by two bits or
        more, rounds the exact quotient.
    ups : (rows,) int64

    Examples
    --------
    >>> quotients, ups = divide_rows(np.array([[3, -6]]), 4)
    >>> (quotients / 2.0 ** ups[:, None]).tolist()
    [[0.75, -1.5]]
    """
    out, ups = np.empty(values.shape, np.int64), np.zeros(len(values), np.int64)
    if values.size:
        plain.divide_rows(values, np.int64(divisor), out, ups)
    return out, ups


def alignment(exponents: Sequence[ArrayLike], bits: Sequence[int]) -> tuple[list[Int64s], Int64s]:
    """Return the shifts that bring terms to a common exponent, and that exponent, for :func:`linear_combination`.

    It is the smallest of the terms' exponents, so that nothing is cut off, if then the sum is sure to stay within
    ``2**62``. Else it is the smallest e for which ``terms * 2**(bits + exponent - e)`` does, with the largest such term and
    the number of terms rounded up to a power of two. A term shifted right grows by its sticky bit to at most
    ``max(1, 2**(bits + exponent - e))`` in magnitude, so the bound holds for it too.

    Parameters
    ----------
    exponents : one to three arrays, of one element, or of one for each row; of any shape, magnitudes below ``2**61``
        A term stands for ``factor * values * 2**exponent``.
    bits : as many ints, up to 62
        Of each term: ``abs(factor * values) <= 2**bits``. A negative number says that all its values are zero: then its
        exponent does not matter.

    Returns
    -------
    shifts : list of (1,) or (rows,) int64
        For each term.
    exponent : (1,) or (rows,) int64
        Of the sum; one if all terms have one.

    Examples
    --------
    >>> shifts, exponent = alignment([-7, [-5, -90]], [7, 7])
    >>> [shift.tolist() for shift in shifts], exponent.tolist()
    ([[0, 54], [2, -29]], [-7, -61])
    """
    flat = [np.asarray(exponent, np.int64).reshape(-1) for exponent in exponents]
    if all(exponent.size == 1 for exponent in flat):
        shifts, common = alignment_of_one([int(exponent[0]) for exponent in flat], bits)
        return [np.array([shift]) for shift in shifts], np.array([common])
    return _align(flat, bits, np.minimum, np.maximum)


def alignment_of_one(exponents: Sequence[int], bits: Sequence[int]) -> tuple[list[int], int]:
    """Do what :func:`alignment` does for terms of one exponent each: Python integers are faster than arrays of one.

    >>> alignment_of_one([-7, -5], [7, 7])
    ([0, 2], -7)
    """
    return _align(exponents, bits, min, max)


def _align(exponents: Sequence[Any], bits: Sequence[int], least: Callable, most: Callable) -> tuple[list[Any], Any]:
    """Do what :func:`alignment` does, with exponents that are ints or arrays."""
    counted = [(exponent, bound) for exponent, bound in zip(exponents, bits, strict=True) if bound >= 0]
    if not counted:
        return [exponent * 0 for exponent in exponents], exponents[0]
    room = SUM_BITS - (len(counted) - 1).bit_length()
    common = counted[0][0]
    for exponent, _ in counted[1:]:
        common = least(common, exponent)
    for exponent, bound in counted:
        common = most(common, exponent + (bound - room))
    shifts = [exponent - common if bound >= 0 else exponent * 0 for exponent, bound in zip(exponents, bits, strict=True)]
    return shifts, common


def add_bias(sums: Integers, bias: Int64s, rows_per_group: int = 0, accumulator_bits: int = 32, saturates: bool = False) -> int:
    """Add a bias to every row of sums, in place, and bring the exact results into the accumulator.

    Parameters
    ----------
    sums : (rows, channels) C-contiguous int32 or int64, written
        Within the accumulator.
    bias : (groups, channels) C-contiguous int64
    rows_per_group : int
        Row i has the bias ``i // rows_per_group``; of no meaning where there is one group.
    accumulator_bits : int, 2..64
        Up to 32 for int32.
    saturates : bool
        Whether sums outside the accumulator saturate; else they wrap.

    Returns
    -------
    int
        How many exact sums lay outside the accumulator.
    """
    rows, channels = sums.shape
    if not sums.size:
        return 0
    word = _accumulator(accumulator_bits, saturates)
    if on_device(sums):
        left = gpu().add_bias(sums, bias, word) if len(bias) == 1 and accumulator_bits < 64 else -1
        if left >= 0:
            return int(left)
        group = rows if len(bias) == 1 else rows_per_group
        return int(gpu().add_bias_any(sums, bias, group, word[1], word[2], accumulator_bits, saturates))
    if len(bias) == 1 and accumulator_bits < 64:
        flat, flat_bias = sums.reshape(-1), bias.reshape(-1)
        pieces = _parallel.pieces_of(sums.size, multiple=channels, minimum=_WORTH_A_THREAD)
        left = sum(_parallel.run(lambda first, last: plain.add_bias(flat[first:last], flat_bias, *word, 1), pieces))
        if left >= 0:  # of pieces, either all did something or none
            return int(left)
    group = rows if len(bias) == 1 else rows_per_group
    return int(plain.add_bias_any(sums, bias, group, word[1], word[2], accumulator_bits, saturates))


@lru_cache(1024)
def _one_shift(shift: int) -> Int64s:
    return np.array([shift])  # only ever read


@cache
def _accumulator(bits: int, saturates: bool) -> Word:
    return word_of(bits, True, SATURATE if saturates else WRAP)
