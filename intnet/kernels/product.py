"""Matrix products: which kernel is sure to be right, and the accumulator at the end.

A product of operands up to A and B in magnitude, summed over K terms, stays below A * B * K. That bound, from the word
lengths or from the operands themselves, decides in how narrow a type the sums are exact. Where it is too coarse, a sharper
one is: A times the largest sum of magnitudes of the other operand, over what meets in one sum. Where no bound holds, the
plain kernel computes them exactly in wide words.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from intnet.kernels import _parallel, plain
from intnet.kernels.place import empty_beside, gpu, on_device
from intnet.kernels.simd import product as simd_product

_COMPILED = not numba.config.DISABLE_JIT
_ALONE = 2**23  # products that one thread multiplies in one call
_LEFT_TYPES = {kind: left for kind, left in ((np.int8, np.uint8), (np.int16, np.int16)) if simd_product.sums_of(kind)}

Integers = NDArray[np.signedinteger]
Side = Callable[[], tuple[Integers, int, bool]]
"""Returns an operand's values; into how many sums they go, and whether each takes one row of it, or one column.

They are rows or columns of a matrix in C order, and what is multiplied into one sum of the product is a part of one of them.
"""


class Choice(NamedTuple):
    """How to multiply: the type of the operands, and of the sums."""

    operands: Any
    sums: Any


def choose(largest_a: int, largest_b: int, terms: int, bound: int | None = None) -> Choice | None:
    """Return the narrowest exact way to sum `terms` products of integers up to these magnitudes, or None if none is sure.

    `bound` is one of the sums' magnitude, if something better than the product of all three is known.
    """
    bound = largest_a * largest_b * terms if bound is None else bound
    largest = max(largest_a, largest_b)
    if bound < 2**31 and largest < 2**31:
        return Choice(simd_product.packed_type(largest), np.int32)
    if bound < 2**63:
        return Choice(np.int32 if largest < 2**31 else np.int64, np.int64)
    return None


def largest_magnitude(values: Integers) -> int:
    """Return the largest magnitude of an integer array, 0 if it is empty."""
    if on_device(values):
        low, high = gpu().extremes(values) if values.size else (0, 0)
        return max(-low, high)
    flat = np.ascontiguousarray(values).reshape(-1)
    if not _COMPILED:
        return max(0, -int(flat.min()), int(flat.max())) if flat.size else 0
    bounds = _parallel.run(lambda first, last: plain.extremes(flat[first:last]), _parallel.pieces_of(flat.size, minimum=2**18))
    return max((max(-int(low), int(high)) for low, high in bounds), default=0)


def largest_of_type(values: Integers) -> int:
    """Return the largest magnitude that the type of an array can hold."""
    return 2 ** (8 * values.dtype.itemsize - 1)


def _wider_type(a: Integers, b: Integers) -> Any:
    return max(a.dtype.type, b.dtype.type, key=lambda kind: np.dtype(kind).itemsize)


def largest_sum(values: Integers, count: int, in_rows: bool) -> int:
    """Return the largest sum of magnitudes in a row, or in a column, of `count` of them; not empty.

    The number of terms times their largest magnitude is below ``2**63``.
    """
    if on_device(values):
        return int(gpu().largest_sum(values, count, in_rows))
    flat = values.reshape(-1)
    length = flat.size // count
    pieces = _parallel.pieces_of(count if in_rows else length, minimum=max(1, 2**18 // (length if in_rows else count)))
    if in_rows:
        parts = ((first * length, last * length, np.int64(last - first)) for first, last in pieces)
        return max(_parallel.run(lambda first, last, rows: int(plain.largest_row_sum(flat[first:last], rows)), list(parts)))
    sums = _parallel.run(lambda first, last: plain.sums_of_columns(flat[first * count : last * count], count), pieces)
    return int(sum(sums[1:], sums[0]).max())


class _Scratch(threading.local):
    """Memory for packed operands, kept by every thread for its next product."""

    def __init__(self) -> None:
        self.words = np.empty(0, np.int32)
        self.left = {
            kind: np.empty(simd_product.left_size(simd_product.DEPTH // np.dtype(kind).itemsize, np.dtype(kind).itemsize), left)
            for kind, left in _LEFT_TYPES.items()
        }

    def words_of(self, size: int) -> NDArray[np.int32]:
        """Return at least `size` words."""
        if self.words.size < size:
            self.words = np.empty(size, np.int32)
        return self.words


_scratch = _Scratch()


def multiply(
    a: Integers,
    b: Integers,
    *,
    a_transposed: bool = False,
    b_transposed: bool = False,
    accumulator_bits: int | None = None,
    saturates: bool = False,
    largest: tuple[int, int] | None = None,
    out: Integers | None = None,
) -> tuple[Integers, int]:
    """Multiply matrices of signed integers exactly, then bring every sum into the accumulator.

    Parameters
    ----------
    a : (m, k) C-contiguous int8, int16, int32 or int64; (k, m) if `a_transposed`
    b : (k, n) likewise; (n, k) if `b_transposed`
    accumulator_bits : int, 2..64, optional
        Width of the accumulator. By default 32 if the operands' types prove that every sum fits in it, else 64.
    saturates : bool
        Whether sums outside the accumulator saturate; else they wrap. Only the whole sum is looked at, never a part of it.
    largest : (int, int), optional
        Bounds of the operands' magnitudes, where they are known to be less than their types and measuring can be saved.
    out : (m, n) C-contiguous, of the type below, optional
        Where to write.

    Returns
    -------
    sums : (m, n) int32 if the accumulator has up to 32 bits, else int64
        `out`, if it was given.
    left : int
        How many sums lay outside the accumulator.
    """
    m, terms = a.shape[::-1] if a_transposed else a.shape
    n = b.shape[0] if b_transposed else b.shape[1]
    of_types = (largest_of_type(a), largest_of_type(b)) if largest is None else largest
    if accumulator_bits is None:
        sure = choose(largest_of_type(a), largest_of_type(b), terms)
        accumulator_bits = 32 if sure is not None and sure.sums is np.int32 else 64
    word_type = np.int32 if accumulator_bits <= 32 else np.int64
    if out is None:
        out = empty_beside(a, (m, n), word_type)
    if not on_device(a) and _multiply_alone(
        a, b, a_transposed, b_transposed, (m, n, terms), of_types, min(accumulator_bits, 32), out
    ):
        return out, 0
    sides = (lambda: (a, m, not a_transposed)), (lambda: (b, n, b_transposed))
    choice, proven = choose_for(a, b, of_types, terms, accumulator_bits, sides)
    exact, fast = (gpu().multiply, gpu().multiply_fast) if on_device(a) else (plain.multiply, simd_product.multiply)
    if choice is None:
        return out, int(exact(a, b, a_transposed, b_transposed, accumulator_bits, saturates, out))
    if proven and choice.sums is word_type:
        fast(a, b, a_transposed, b_transposed, choice.operands, out)
        return out, 0
    sums: Integers = empty_beside(a, (m, n), choice.sums)
    fast(a, b, a_transposed, b_transposed, choice.operands, sums)
    return out, into_accumulator(sums, 64 if proven else accumulator_bits, saturates, out)


def into_accumulator(sums: Integers, accumulator_bits: int, saturates: bool, out: Integers) -> int:
    """Write exact sums into an accumulator of the type of `out`, and return how many lay outside; none do in 64 bits."""
    if on_device(sums):
        wide = gpu().converted(sums, np.int64).reshape(-1)
        return int(gpu().limit_sums(wide, accumulator_bits, saturates, out.reshape(-1)))
    if accumulator_bits == 64:
        out[...] = sums
        return 0
    wide = sums.reshape(-1).astype(np.int64, copy=False)
    return int(plain.limit_sums(wide, accumulator_bits, saturates, out.reshape(-1)))


def _multiply_alone(
    a: Integers,
    b: Integers,
    a_transposed: bool,
    b_transposed: bool,
    size: tuple[int, int, int],
    largest: tuple[int, int],
    bits: int,
    out: Integers,
) -> bool:
    """Multiply small matrices of 8 or 16 bits in one compiled call, if it proves that every sum fits in so many bits."""
    kind, (m, n, terms) = a.dtype.type, size
    products = m * n * terms
    if b.dtype.type is not kind or kind not in _LEFT_TYPES or not 0 < products <= _ALONE or not _COMPILED:
        return False
    if terms * a.itemsize > simd_product.DEPTH:
        return False
    limit = 2 ** (bits - 1)
    if largest[0] * largest[1] * terms < limit:
        limit = 0
    words = _scratch.words_of(simd_product.words_size(n, terms, a.itemsize))
    sums = out if out.dtype.type is np.int32 else np.empty((m, n), np.int32)
    done = simd_product.multiply_proven(
        a.reshape(-1), a_transposed, b.reshape(-1), b_transposed, m, n, terms, limit, words, _scratch.left[kind],
        sums.reshape(-1),
    )  # fmt: skip
    if done and sums is not out:
        out[...] = sums
    return bool(done)


def choose_for(
    a: Integers,
    b: Integers,
    largest: tuple[int, int],
    terms: int,
    accumulator_bits: int,
    sides: tuple[Side | None, Side | None],
) -> tuple[Choice | None, bool]:
    """Return how to multiply, if not by the plain kernel, and whether it is proven that every sum fits the accumulator.

    Parameters
    ----------
    a, b : arrays of integers
    largest : (int, int)
        Bounds of their magnitudes.
    terms : int
        Products in a sum.
    accumulator_bits : int
    sides : (Side or None, Side or None)
        How what is multiplied into one sum lies in `a` and in `b`, if simply; see `Side`.
    """
    if not _COMPILED:
        return None, False
    limit = 2 ** (accumulator_bits - 1)
    bound = largest[0] * largest[1] * terms
    choice = choose(*largest, terms)
    if choice is None or choice.sums is np.int64 or bound >= limit:  # worth a look
        largest = (min(largest[0], largest_magnitude(a)), min(largest[1], largest_magnitude(b)))
        bound = largest[0] * largest[1] * terms
        choice = choose(*largest, terms)
    if bound and (choice is None or choice.sums is np.int64 or bound >= limit):  # and another
        bound = min(bound, _sharper_bound(min(limit, 2**31), largest, sides))
        choice = choose(*largest, terms, bound)
    if choice is None:
        return None, False
    # The types themselves may say more than the magnitudes: -128 fits in int8, 128 does not.
    operands = min(choice.operands, _wider_type(a, b), key=lambda kind: np.dtype(kind).itemsize)
    if choice.sums is np.int64 and operands in (np.int8, np.int16):
        operands = np.int32
    return Choice(operands, choice.sums), bound < limit


def _sharper_bound(limit: int, largest: tuple[int, int], sides: tuple[Side | None, Side | None]) -> int:
    """Return a bound of the sums' magnitude by sums of magnitudes of one operand and, if not below `limit`, of the other."""
    bound = 2**127
    known = [(side(), own, other) for side, own, other in zip(sides, largest, largest[::-1], strict=True) if side is not None]
    for (values, count, in_rows), own, other in sorted(known, key=lambda part: part[0][0].size):
        if bound >= limit and own * (values.size // count) < 2**63:
            bound = min(bound, other * largest_sum(values, count, in_rows))
    return bound
