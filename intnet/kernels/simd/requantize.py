"""Fewer bits in 32-bit lanes: twice as many at a time as with int64, where it is sure that they suffice.

Values have up to 32 bits and words up to 31, shifts go to the right by up to 30, and the rules of rounding are written so that
their steps fit in int32 too. With a quotient q and a rest r of a shift by s, every mode but the last rounds up when r plus an
addend below ``2**s + 2`` reaches ``2**s`` (:func:`intnet.arithmetic.rounding_constants`). For stochastic rounding the addend is
the random fraction, brought to s bits: it is cut, or zeros are appended; and where zeros are appended, the bits of r beside
them, which :func:`intnet.arithmetic.round_shift_stochastic` cuts off, can cause no carry.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import PSEUDO_STOCHASTIC, STOCHASTIC, rounding_constants
from intnet.kernels.plain.requantize import (
    MASK,
    MAXIMUM,
    MINIMUM,
    MODE,
    RANDOM_BITS,
    SIGN,
    STREAM,
    WRAPS,
    count,
    load,
    store,
)  # fmt: skip
from intnet.kernels.vectors import shift_left_32, shift_right_32
from intnet.random import fill_words

_0, _1, _31 = np.int32(0), np.int32(1), np.int32(31)
_INT32_MIN, _INT32_MAX = np.int32(-(2**31)), np.int32(2**31 - 1)
WINDOW = 2048  # elements at a time: five runs of 32 bits stay in the first-level cache
SHIFT_MAX = 30
WORD_BITS_MAX = 31
RANDOM_BITS_MAX = 32


@jit
def _fit(value, wraps, minimum, maximum, mask, sign):
    """Return `value` wrapped or saturated into a word of up to 31 bits."""
    if wraps:
        return np.int32(np.int32(np.int32(value & mask) ^ sign) - sign)
    return min(max(value, minimum), maximum)


# In the runs, `one` is 1, but not known to be: so LLVM counts by one masked addition.


@jit
def _round_run(values, out, shift, base, if_negative, if_odd, set_bit, wraps, minimum, maximum, mask, sign, one, seen):
    """Round by a mode of FLOOR .. JAM; `seen` collects ``(outside, lost, least, greatest)``.

    With None for `if_negative` and `set_bit`, which for most modes are 0, they are compiled away.
    """
    rest_mask, outside, lost, least, greatest = np.int32((np.int64(1) << shift) - np.int64(1)), _0, _0, seen[2], seen[3]
    for i in range(values.size):
        value = values[i]
        quotient, rest = shift_right_32(value, shift), np.int32(value & rest_mask)
        carried = np.int32(np.int32(rest + base) + np.int32(quotient & if_odd))
        if if_negative is not None:
            carried = np.int32(carried + np.int32(np.int32(value >> _31) & if_negative))
        rounded = np.int32(quotient + shift_right_32(carried, shift))
        if set_bit is not None:
            rounded = np.int32(rounded | set_bit)
        fitted = _fit(rounded, wraps, minimum, maximum, mask, sign)
        outside = np.int32(outside + (one if fitted != rounded else _0))
        lost = np.int32(lost + (one if (value != _0) & (rounded == _0) else _0))
        least, greatest = min(least, fitted), max(greatest, fitted)
        out[i] = fitted
    seen[0], seen[1], seen[2], seen[3] = np.int32(seen[0] + outside), np.int32(seen[1] + lost), least, greatest


@jit
def _stochastic_run(values, out, shift, fractions, left, wraps, minimum, maximum, mask, sign, one, seen):
    """Round by random fractions of `shift` bits, `left` of which are zeros to be appended."""
    rest_mask, outside, lost, least, greatest = np.int32((np.int64(1) << shift) - np.int64(1)), _0, _0, seen[2], seen[3]
    for i in range(values.size):
        value = values[i]
        quotient, rest = shift_right_32(value, shift), np.int32(value & rest_mask)
        carried = np.int32(rest + shift_left_32(np.int32(fractions[i]), left))
        rounded = np.int32(quotient + shift_right_32(carried, shift))
        fitted = _fit(rounded, wraps, minimum, maximum, mask, sign)
        outside = np.int32(outside + (one if fitted != rounded else _0))
        lost = np.int32(lost + (one if (value != _0) & (rounded == _0) else _0))
        least, greatest = min(least, fitted), max(greatest, fitted)
        out[i] = fitted
    seen[0], seen[1], seen[2], seen[3] = np.int32(seen[0] + outside), np.int32(seen[1] + lost), least, greatest


@jit
def _pseudo_stochastic_run(values, out, shift, wraps, minimum, maximum, mask, sign, one, seen):
    """Round by the values' own bits, as :func:`intnet.arithmetic.round_shift_pseudo_stochastic_near` does."""
    rest_mask, outside, lost, least, greatest = np.int32((np.int64(1) << shift) - np.int64(1)), _0, _0, seen[2], seen[3]
    low_bits, doubled = shift >> np.int64(1), np.int32(np.int64(1) << (shift & np.int64(1)))
    low_mask = np.int32((np.int64(1) << low_bits) - np.int64(1))
    for i in range(values.size):
        value = values[i]
        safe = max(value, np.int32(-_INT32_MAX))
        magnitude = np.int32(-safe) if safe < _0 else safe
        rest = np.int32(magnitude & rest_mask)
        greater = shift_right_32(rest, low_bits) > np.int32(np.int32(rest & low_mask) * doubled)
        quotient = np.int32(shift_right_32(magnitude, shift) + (_1 if greater else _0))
        rounded = np.int32(-quotient) if value < _0 else quotient
        rounded = shift_right_32(value, shift) if value == _INT32_MIN else rounded
        fitted = _fit(rounded, wraps, minimum, maximum, mask, sign)
        outside = np.int32(outside + (one if fitted != rounded else _0))
        lost = np.int32(lost + (one if (value != _0) & (rounded == _0) else _0))
        least, greatest = min(least, fitted), max(greatest, fitted)
        out[i] = fitted
    seen[0], seen[1], seen[2], seen[3] = np.int32(seen[0] + outside), np.int32(seen[1] + lost), least, greatest


@jit
def round_window(values, made, shift, role, key_0, key_1, step, first, room, seen):
    """Round and fit a window, which begins at a multiple of four, into the word of a role.

    Parameters
    ----------
    values, made : int32
    shift : int64
        0..30.
    role : (CONSTANTS,) int64
        Its own shift is not looked at.
    first : int64
        The first element's place among the random bits.
    room : (a multiple of four,) uint32
        Scratch.
    seen : (4,) int32
        Collects ``(outside, lost, least, greatest)``.
    """
    wraps, one = role[WRAPS] != 0, np.int32(min(values.size, 1))
    minimum, maximum, mask, sign = np.int32(role[MINIMUM]), np.int32(role[MAXIMUM]), np.int32(role[MASK]), np.int32(role[SIGN])
    if role[MODE] == STOCHASTIC:
        whole, kept = (values.size + np.int64(3)) & np.int64(-4), min(role[RANDOM_BITS], shift)
        drop, left = np.uint64(np.int64(32) - kept), shift - kept
        fill_words(key_0, key_1, np.uint64(role[STREAM]), step, np.uint64(first >> np.int64(2)), drop, room[:whole])
        _stochastic_run(values, made, shift, room, left, wraps, minimum, maximum, mask, sign, one, seen)
        return
    if role[MODE] == PSEUDO_STOCHASTIC:
        _pseudo_stochastic_run(values, made, shift, wraps, minimum, maximum, mask, sign, one, seen)
        return
    base, if_negative, if_odd, set_bit = rounding_constants(role[MODE], shift)
    base, if_odd, word = np.int32(base), np.int32(if_odd), (wraps, minimum, maximum, mask, sign)
    if if_negative == 0 and set_bit == 0:
        _round_run(values, made, shift, base, None, if_odd, None, *word, one, seen)
    else:
        _round_run(values, made, shift, base, np.int32(if_negative), if_odd, np.int32(set_bit), *word, one, seen)


@jit
def new_seen():
    """Return what `round_window` has seen of nothing."""
    seen = np.zeros(4, np.int32)
    seen[2], seen[3] = _INT32_MAX, _INT32_MIN
    return seen


@jit
def count_seen(counters, role, seen):
    """Add what was seen of a role to its counters."""
    count(counters, role[WRAPS] != 0, np.int64(seen[0]), np.int64(seen[1]), np.int64(seen[2]), np.int64(seen[3]))


@jit
def requantize(values, width, out, out_width, start, stop, shift, role, key_0, key_1, step, first_index, counters):
    """Do what :func:`intnet.kernels.plain.requantize.requantize` does, for one shift.

    Parameters
    ----------
    values, out : (bytes,) uint8
        A whole tensor in C order, of signed integers of `width` (up to 4) and `out_width` bytes; `out` holds the word.
    width, out_width, start, stop : int64
        Fewer than ``2**31`` elements, at least one.
    shift, role : as in `round_window`
    key_0, key_1, step : uint64
        Of the random bits.
    first_index : int64
        Where the random bits of element 0 stand. Its sum with `start` is a multiple of four, if there are any.
    counters : (COUNTERS,) int64
        Added to; the least and the greatest result taken into it.
    """
    size, seen = min(np.int64(WINDOW), stop - start), new_seen()
    room, taken, made = np.empty(WINDOW, np.uint32), np.empty(size, np.int32), np.empty(size, np.int32)
    whole, bytes_out = values[: values.size & np.int64(-4)].view(np.int32), out.view(np.int8)
    for begin in range(start, stop, WINDOW):
        end = min(begin + WINDOW, stop)
        if end - begin < taken.size:
            taken, made = taken[: end - begin], made[: end - begin]
        source = taken
        if width == 4:
            source = whole[begin:end]
        else:
            load(values, width, begin, taken)
        if out_width == 1:
            round_window(source, bytes_out[begin:end], shift, role, key_0, key_1, step, first_index + begin, room, seen)
        else:
            round_window(source, made, shift, role, key_0, key_1, step, first_index + begin, room, seen)
            store(made, out, out_width, begin)
    count_seen(counters, role, seen)
