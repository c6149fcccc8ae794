"""Matrix products: which kernel is sure to be right, and the accumulator at the end.

A product of operands up to A and B in magnitude, summed over K terms, stays below A * B * K. That bound, from the word
lengths or from the operands themselves, decides in how narrow a type the sums are exact. Where no bound holds, the plain
kernel computes them exactly in wide words.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from intnet.kernels import _parallel, plain
from intnet.kernels.simd import product as simd_product

_COMPILED = not numba.config.DISABLE_JIT

Integers = NDArray[np.signedinteger]


class Choice(NamedTuple):
    """How to multiply: the type of the operands, and of the sums."""

    operands: Any
    sums: Any


def choose(largest_a: int, largest_b: int, terms: int) -> Choice | None:
    """Return the narrowest exact way to sum `terms` products of integers up to these magnitudes, or None if none is sure."""
    bound = largest_a * largest_b * terms
    largest = max(largest_a, largest_b)
    if bound < 2**31 and largest < 2**31:
        return Choice(simd_product.packed_type(largest), np.int32)
    if bound < 2**63:
        return Choice(np.int32 if largest < 2**31 else np.int64, np.int64)
    return None


def largest_magnitude(values: Integers) -> int:
    """Return the largest magnitude of an integer array, 0 if it is empty."""
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


def multiply(
    a: Integers,
    b: Integers,
    *,
    a_transposed: bool = False,
    b_transposed: bool = False,
    accumulator_bits: int | None = None,
    saturates: bool = False,
    largest: tuple[int, int] | None = None,
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

    Returns
    -------
    sums : (m, n) int32 if the accumulator has up to 32 bits, else int64
    left : int
        How many sums lay outside the accumulator.
    """
    m, terms = a.shape[::-1] if a_transposed else a.shape
    n = b.shape[0] if b_transposed else b.shape[1]
    of_types = (largest_of_type(a), largest_of_type(b))
    if accumulator_bits is None:
        sure = choose(*of_types, terms)
        accumulator_bits = 32 if sure is not None and sure.sums is np.int32 else 64
    word_type = np.int32 if accumulator_bits <= 32 else np.int64
    choice, proven = _choose_for(a, b, of_types if largest is None else largest, terms, accumulator_bits)
    if choice is None:
        out: Integers = np.empty((m, n), word_type)
        return out, int(plain.multiply(a, b, a_transposed, b_transposed, accumulator_bits, saturates, out))
    sums: Integers = np.empty((m, n), choice.sums)
    # The types themselves may say more than the magnitudes: -128 fits in int8, 128 does not.
    operands = min(choice.operands, _wider_type(a, b), key=lambda kind: np.dtype(kind).itemsize)
    if choice.sums is np.int64 and operands in (np.int8, np.int16):
        operands = np.int32
    simd_product.multiply(a, b, a_transposed, b_transposed, operands, sums)
    if proven:
        return sums.astype(word_type, copy=False), 0
    out = np.empty((m, n), word_type)
    return out, int(
        plain.limit_sums(sums.reshape(-1).astype(np.int64, copy=False), accumulator_bits, saturates, out.reshape(-1))
    )


def _choose_for(
    a: Integers, b: Integers, largest: tuple[int, int], terms: int, accumulator_bits: int
) -> tuple[Choice | None, bool]:
    """Return how to multiply, if not by the plain kernel, and whether it is proven that every sum fits the accumulator."""
    if not _COMPILED:
        return None, False
    choice = choose(*largest, terms)
    limit = 2 ** (accumulator_bits - 1)
    if choice is None or choice.sums is np.int64 or largest[0] * largest[1] * terms >= limit:
        largest = (min(largest[0], largest_magnitude(a)), min(largest[1], largest_magnitude(b)))  # worth a look
        choice = choose(*largest, terms)
    return choice, largest[0] * largest[1] * terms < limit
