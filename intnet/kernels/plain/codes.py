"""Weights as codes of few bits, and the steps of sparse optimization."""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import divide_ties_even, multiply_shift, saturate, soft_threshold


@jit
def encode(values, numerator, offset, divisor, zero, least, most, out):
    """Write ``(values * numerator + offset) / divisor``, to nearest, ties to even, plus `zero`, saturated to `least` .. `most`.

    Parameters
    ----------
    values : (size,) int64
        The products and sums stay below ``2**62``.
    numerator, offset, divisor, zero, least, most : int64
        ``divisor > 0``.
    out : (size,) int64, written
    """
    for i in range(values.shape[0]):
        out[i] = saturate(divide_ties_even(values[i] * numerator + offset, divisor) + zero, least, most)


@jit
def descend(values, gradient, factor, shift, limit):
    """Subtract ``gradient * factor / 2**shift``, to nearest, ties away from zero, and saturate; return how many saturated.

    Parameters
    ----------
    values : (size,) int64, within +-limit
        Moved in place.
    gradient : (size,) int64
    factor, shift : int64
        ``0 <= shift``; a move saturates at ``2**62``.
    limit : int64, up to ``2**61``
    """
    saturated, most = np.int64(0), np.int64(2**62)
    for i in range(values.shape[0]):
        moved = values[i] - saturate(multiply_shift(gradient[i], factor, shift), -most, most)
        values[i] = saturate(moved, -limit, limit)
        saturated += np.int64(values[i] != moved)
    return saturated


@jit
def shrink(values, threshold, chosen, out):
    """Write the soft-thresholded values where `chosen`, else the values: (size,) int64, int64, (size,) bool, (size,) int64."""
    for i in range(values.shape[0]):
        out[i] = soft_threshold(values[i], threshold) if chosen[i] else values[i]
