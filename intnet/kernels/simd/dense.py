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
def _clamp(values):
    """Set what is negative to 0."""
    for i in range(np.uint64(values.size)):
        value = values[i]
        values[i] = value if value > 0 else values.dtype.type(0)


@jit
def _clamp_bytes(out, width):
    """Set what is negative to 0, in a tensor of integers of up to 4 bytes, seen as bytes."""
    if width == 1:
        _clamp(out.view(np.int8))
    elif width == 2:
        _clamp(out.view(np.int16))
    else:
        _clamp(out.view(np.int32))


@jit
def _select(values, y):
    """Set to 0 what stands where `y` is not positive."""
    for i in range(np.uint64(values.size)):
        values[i] = values[i] if y[i] > 0 else values.dtype.type(0)


@jit
def _select_bytes(out, width, y):
    """Set to 0 what stands where `y` is not positive, in a tensor of integers of up to 4 bytes, seen as bytes."""
    if width == 1:
        _select(out.view(np.int8), y)
    elif width == 2:
        _select(out.view(np.int16), y)
    else:
        _select(out.view(np.int32), y)


@jit
def multiply_requantize(
    a, step, words, packed, out, b, b_transposed, m, n, k, limit, bias, bias_shift, accumulator, sums, sums_bytes, block_bits,
    least, greatest, role, key_0, key_1, out_width, counters, clamps,
):  # fmt: skip
    """Write ``(a b + bias * 2**bias_shift) / 2**shift``, rounded, in the word of a role, into `out`.

    First stands what differs from step to step.

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
    clamps : bool
        Whether what is negative is set to 0 when all is counted.

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
    if clamps:
        _clamp_bytes(out, out_width)
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


@jit
def backward(
    dy, x, step, words, packed, gradient, totals, dx, weights, m, n, k, limit, limit_inputs, no_bias, accumulator, sums,
    sums_bytes, block_bits, least, greatest, role, key_0, key_1, dx_width, counters, selects,
):  # fmt: skip
    """Do `multiply_transposed` of errors and inputs, and `multiply_requantize` of errors and weights.

    Parameters
    ----------
    dy, x, weights : (m * n,), (m * k,) and (n * k,), as the operands of `multiply_proven`
    limit, limit_inputs : int64
        Of the first product and of the second.
    words, packed : as in `multiply_proven`, large enough for both
    no_bias : (0,) of the type of `dy`
    gradient, totals : as the results of `multiply_transposed`
    accumulator .. counters : as in `multiply_requantize`, whose result is `dx`
    selects : bool
        Whether `dx` is set to 0 where `x` is not positive, when all is counted.

    Returns
    -------
    done : bool
        Whether the first product is done; if not, nothing is.
    left, shift : as from `multiply_requantize`
    """
    zero = np.int64(0)
    if not multiply_transposed(dy, x, n, k, m, limit, words, packed, gradient, totals):
        return False, np.int64(-1), np.int64(least)
    left, shift = multiply_requantize(
        dy, step, words, packed, dx, weights, False, m, k, n, limit_inputs, no_bias, zero, accumulator, sums, sums_bytes,
        block_bits, least, greatest, role, key_0, key_1, dx_width, counters, False,
    )  # fmt: skip
    if selects and left >= 0:
        _select_bytes(dx, dx_width, x)
    return True, left, shift
