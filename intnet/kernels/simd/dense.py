"""Small matrix products and what a dense layer does with them, in one call each.

Nothing is decided here: these are :func:`intnet.kernels.simd.product.multiply_proven` and the kernels that follow it, one after
the other, where all numbers of an operand have one exponent.
"""

import numpy as np

from intnet._compile import jit
from intnet.kernels.plain.combine import add_bias
from intnet.kernels.plain.requantize import extent, shifts_to_fit
from intnet.kernels.simd.product import multiply_proven
from intnet.kernels.simd.requantize import SHIFT_MAX, requantize


@jit
def multiply_requantize(
    a, b, b_transposed, m, n, k, limit, words, packed, bias, bias_shift, accumulator, sums, sums_bytes, block_bits, least,
    greatest, role, key_0, key_1, step, out, out_width, counters,
):  # fmt: skip
    """Write ``(a b + bias * 2**bias_shift) / 2**shift``, rounded, in the word of a role, into `out`.

    Parameters
    ----------
    a, b, b_transposed, m, n, k, limit, words, packed : as in `multiply_proven`
    bias : (n,) integers, or none of them
        Added to every row.
    bias_shift : int64
        Not negative, and so small that a shifted bias is an int64.
    accumulator : (5,) int64
        The word of the sums, as in :func:`intnet.kernels.plain.combine.add_bias`.
    sums, sums_bytes : (m * n,) int32, and the same memory as uint8, written
    block_bits, least, greatest : int64
        The word length of a block that is the whole product, and the bounds of its shift, which is that of
        :func:`intnet.kernels.plain.requantize.shifts_to_fit`. With a word length of 0, the shift is `least`.
    role, key_0, key_1, step, out, out_width, counters : as in :func:`intnet.kernels.simd.requantize.requantize`

    Returns
    -------
    left : int64
        How many sums left the accumulator; or -1, and nothing is counted: a product is not proven to be below `limit`, the bias
        is too large, or the shift is none of `requantize`.
    shift : int64
    """
    zero, size, one = np.int64(0), m * n, min(m, np.int64(1))
    left, failed, shift = zero, np.int64(-1), np.int64(least)
    if not multiply_proven(a, False, b, b_transposed, m, n, k, limit, words, packed, sums):
        return failed, shift
    if bias.size > 0:
        moved = np.empty(n, np.int64)
        for j in range(n):
            moved[j] = np.int64(bias[j]) << bias_shift
        left = add_bias(
            sums, moved, accumulator[0] != 0, accumulator[1], accumulator[2], accumulator[3], accumulator[4], one
        )  # fmt: skip
    if block_bits > 0:
        bounds, found = np.empty((2, 1), np.int64), np.empty(1, np.int64)
        bounds[0, 0], bounds[1, 0] = extent(sums, sums[0], sums[0])
        shifts_to_fit(bounds[0], bounds[1], block_bits, least, greatest, found)
        shift = found[0]
    if left < 0 or not 0 <= shift <= SHIFT_MAX:
        return failed, shift
    requantize(sums_bytes, np.int64(4), out, out_width, zero, size, shift, role, key_0, key_1, step, zero, counters)
    return left, shift


@jit
def multiply_transposed(a, b, m, n, k, limit, words, packed, sums, totals):
    """Write the product of the transpose of `a` with `b`, and the sums of the columns of `a`.

    Parameters
    ----------
    a, b, m, n, k, limit, words, packed : as in `multiply_proven`; `a` is (k, m) and `b` is (k, n)
    sums : (m * n,) int32, written
    totals : (m,) int64, or none of them, written

    Returns
    -------
    bool
        Whether it was done: a product is proven to be below `limit`.
    """
    if not multiply_proven(a, True, b, False, m, n, k, limit, words, packed, sums):
        return False
    for j in range(totals.size):
        totals[j] = 0
    if totals.size > 0:
        for i in range(k):
            row = a[i * m : (i + 1) * m]
            for j in range(m):
                totals[j] += np.int64(row[j])
    return True
