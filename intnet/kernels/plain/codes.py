"""Weights as codes of few bits, and the steps of sparse optimization."""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import (
    bit_length,
    divide_sticky,
    divide_sticky_by_ones,
    divide_ties_even,
    multiply_shift,
    saturate,
    soft_threshold,
)


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


@jit
def _combine_row(sums, under, repeat, scale, offset, up, divisor, bits, out):
    if repeat == 1 and bits > 1:
        for j in range(under.shape[0]):
            out[j] = divide_sticky_by_ones((np.int64(sums[j]) * scale + offset * np.int64(under[j])) << up, bits)
        return
    for g in range(under.shape[0]):
        base, first = offset * np.int64(under[g]), g * repeat
        row, quotients = sums[first : first + repeat], out[first : first + repeat]
        if bits > 1:
            for j in range(repeat):
                quotients[j] = divide_sticky_by_ones((np.int64(row[j]) * scale + base) << up, bits)
        else:
            for j in range(repeat):
                quotients[j] = divide_sticky((np.int64(row[j]) * scale + base) << up, divisor)


@jit
def combine_coded(sums, under, repeat, scale, offset, divisor, room, limits, out, ups):
    """Write ``(scale * sums + offset * under) * 2**up / divisor``, rounded down, the lowest bit set unless that is exact.

    Parameters
    ----------
    sums : (rows, length) int32 or int64
    under : (rows, length / repeat) int32 or int64
        Each for `repeat` sums that follow each other.
    repeat, scale, offset, divisor : int64
        No combination reaches ``2**62``.
    room : int64
        By how many bits all may be shifted up within 62; negative: each row by as many as its own largest has room for.
    limits : (rows,) int64
        No row is shifted up by more.
    out : (rows, length) int64, written
    ups : (rows,) int64, written
    """
    bits = bit_length(divisor)
    if divisor != (np.int64(1) << bits) - np.int64(1):
        bits = np.int64(0)  # that is no word of ones
    for r in range(sums.shape[0]):
        up = room
        if room < 0:
            largest = np.int64(0)
            for g in range(under.shape[1]):
                base, row = offset * np.int64(under[r, g]), sums[r, g * repeat : (g + 1) * repeat]
                for j in range(repeat):
                    largest = max(largest, abs(np.int64(row[j]) * scale + base))
            up = np.int64(62) - bit_length(largest)
        up = min(up, limits[r])
        ups[r] = up
        _combine_row(sums[r], under[r], repeat, scale, offset, up, divisor, bits, out[r])
