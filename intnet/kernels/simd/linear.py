"""Linear maps of tensors in lanes of int32: see :mod:`intnet.kernels.plain.linear`, which defines them.

All results are int32, sums are modulo ``2**32``. An element is read, multiplied, rounded, fitted, counted and written in one
pass, without a place for what is in between.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import FLOOR, JAM, PSEUDO_STOCHASTIC, STOCHASTIC, rounding_constants
from intnet.kernels.plain.linear import multiply_add_row
from intnet.kernels.plain.requantize import MAXIMUM, MINIMUM, MODE, RANDOM_BITS, STREAM, WRAPS
from intnet.kernels.simd.requantize import count_seen, new_seen, round_window
from intnet.kernels.vectors import shift_left_32, shift_right_32
from intnet.random import fill_words

_0, _31 = np.int32(0), np.int32(31)
_INT32_MIN, _INT32_MAX = np.int32(-(2**31)), np.int32(2**31 - 1)
SHIFT_MAX = 29  # the largest with which a result, below 2**31 - 2**29 in magnitude, and what rounding adds are an int32


@jit
def _one(a, factor, offset):
    return np.int32(np.int64(factor) * np.int64(a) + np.int64(offset))


@jit
def _two(a, b, factor_a, factor_b, offset):
    return np.int32(np.int64(factor_a) * np.int64(a) + np.int64(factor_b) * np.int64(b) + np.int64(offset))


@jit
def extremes_of_map(a, b, factors):
    """Do what :func:`intnet.kernels.plain.linear.extremes_of_map` does, where all results are int32."""
    lanes, low, high = factors.shape[1], _INT32_MAX, _INT32_MIN
    first, second, last = factors[0], factors[1], factors[factors.shape[0] - 1]
    for begin in range(0, a.size, lanes):
        row = a[begin : begin + lanes]
        other = row if b is None else b[begin : begin + lanes]
        for i in range(row.size):
            value = _one(row[i], first[i], last[i]) if b is None else _two(row[i], other[i], first[i], second[i], last[i])
            low, high = min(low, value), max(high, value)
    return low, high


@jit
def _row(a, b, factors, out, shift, fractions, left, base, if_negative, if_odd, set_bit, low, high, one, seen):
    """Do a row of lanes, which may be cut short, and saturate; a value rounds up if its rest and what is added carry.

    So both are added before one shift, which :mod:`intnet.kernels.simd.requantize` may not do: here they are an int32.

    Parameters
    ----------
    a, b, factors, out, seen : as in `multiply_add_round`
    shift : int64
        0..SHIFT_MAX.
    fractions, left : uint32 and int64
        Random fractions of `shift` bits, `left` of which are zeros to be appended; or None for a mode of FLOOR .. JAM.
    base, if_negative, if_odd, set_bit : int32
        Of such a mode. None for the second and the last, which are 0 for most modes, compiles them away.
    low, high : int32
        The word.
    one : int32
        1, but not known to be: so LLVM counts by one masked addition.
    """
    first, second, last = factors[0], factors[1], factors[factors.shape[0] - 1]
    other = a if b is None else b
    unit = np.int32(np.int64(1) << shift)
    outside, lost, least, greatest = _0, _0, seen[2], seen[3]
    for i in range(out.size):
        value = _one(a[i], first[i], last[i]) if b is None else _two(a[i], other[i], first[i], second[i], last[i])
        if fractions is None:
            carried = np.int32(value + np.int32(base + (if_odd if np.int32(value & unit) != _0 else _0)))
            if if_negative is not None:
                carried = np.int32(carried + np.int32(np.int32(value >> _31) & if_negative))
            rounded = shift_right_32(carried, shift)
            if set_bit is not None:
                rounded = np.int32(rounded | set_bit)
        else:
            rounded = shift_right_32(np.int32(value + shift_left_32(np.int32(fractions[i]), left)), shift)
        fitted = min(max(rounded, low), high)
        outside = np.int32(outside + (one if fitted != rounded else _0))
        lost = np.int32(lost + (one if (value != _0) & (rounded == _0) else _0))
        least, greatest = min(least, fitted), max(greatest, fitted)
        out[i] = fitted
    seen[0], seen[1], seen[2], seen[3] = np.int32(seen[0] + outside), np.int32(seen[1] + lost), least, greatest


@jit
def multiply_add_round(a, b, factors, start, stop, shift, role, key_0, key_1, step, out, counters):
    """Do what :func:`intnet.kernels.plain.linear.multiply_add_requantize` does, where all results are int32.

    Parameters
    ----------
    a, b, factors, out, counters : as there; `factors` int32
    start, stop : int64
        The elements to do, at least one; `start` begins a row of channels, whose number is a multiple of four where random
        bits are drawn.
    shift, role, key_0, key_1, step : as in :func:`intnet.kernels.simd.requantize.round_window`
    """
    lanes, seen, mode = factors.shape[1], new_seen(), role[MODE]
    fused = mode != PSEUDO_STOCHASTIC and role[WRAPS] == 0 and shift <= SHIFT_MAX
    exact, fitted = np.empty(1 if fused else lanes, np.int32), np.empty(1 if fused else lanes, np.int32)
    low, high, one = np.int32(role[MINIMUM]), np.int32(role[MAXIMUM]), np.int32(min(stop - start, np.int64(1)))
    base, if_negative, if_odd, set_bit = rounding_constants(mode if mode <= JAM else np.int64(FLOOR), shift)
    base, if_negative, if_odd, set_bit = np.int32(base), np.int32(if_negative), np.int32(if_odd), np.int32(set_bit)
    kept, room = min(role[RANDOM_BITS], shift), np.empty((lanes + 3) & -4, np.uint32)
    drop, left, none = np.uint64(np.int64(32) - kept), shift - kept, np.int64(0)
    for begin in range(start, stop, lanes):
        end = min(begin + lanes, stop)
        row, target = a[begin:end], out[begin:end]
        other = None if b is None else b[begin:end]
        if fused and mode == STOCHASTIC:
            words = room[: (end - begin + np.int64(3)) & np.int64(-4)]
            fill_words(key_0, key_1, np.uint64(role[STREAM]), step, np.uint64(begin >> np.int64(2)), drop, words)
            _row(row, other, factors, target, shift, words, left, _0, None, _0, None, low, high, one, seen)
        elif fused and if_negative == 0 and set_bit == 0:
            _row(row, other, factors, target, shift, None, none, base, None, if_odd, None, low, high, one, seen)
        elif fused:
            _row(row, other, factors, target, shift, None, none, base, if_negative, if_odd, set_bit, low, high, one, seen)
        else:
            values, made = exact[: end - begin], fitted[: end - begin]
            multiply_add_row(row, row if b is None else other, factors, b is not None, True, values)
            round_window(values, made, shift, role, key_0, key_1, step, begin, room, seen)
            for i in range(values.size):
                target[i] = made[i]
    count_seen(counters, role, seen)
