"""Integers to fewer bits: shift right with rounding, or left, then fit into the word; and how many bits blocks need.

A tensor in C order is seen as four axes (outer, blocks, length, inner), as by :meth:`intnet.formats.BlockFloat.layout`:
element [o, b, l, i] is shifted by ``shifts[o, b, i]``, where a first axis of one stands for every o.

A word is five numbers: ``wraps`` (else it saturates), ``minimum``, ``maximum``, and ``mask`` and ``sign`` of
:func:`intnet.arithmetic.word_constants`.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import (
    JAM,
    PSEUDO_STOCHASTIC,
    STOCHASTIC,
    bit_length,
    round_shift,
    round_shift_any,
    round_shift_pseudo_stochastic,
    round_shift_pseudo_stochastic_near,
    round_shift_stochastic,
    rounding_constants,
    saturate,
    shift_left,
    shift_left_bounds,
    wrap_word,
)
from intnet.random import fill_fractions, room_for

# What `requantize` counts, by position in `counters`: values that left the word and were saturated or wrapped; values that
# were not zero and that rounding made zero; and the least and the greatest result. A value counts once at most.
COUNT_SATURATED, COUNT_WRAPPED, COUNT_LOST, SEEN_MINIMUM, SEEN_MAXIMUM = range(5)
COUNTERS = 5

# What is known of a role, by its place in an array of so many int64: how far to shift, the rounding mode, the word, and the
# random bits an element takes and from which stream.
SHIFT, MODE, WRAPS, MINIMUM, MAXIMUM, MASK, SIGN, RANDOM_BITS, STREAM = range(9)
CONSTANTS = 9

_INT64_MIN, _INT64_MAX = np.int64(-(2**63)), np.int64(2**63 - 1)
WINDOW = 1024  # elements at a time: what is made for them stays in the first-level cache
_LONG = 256  # elements of a block in a row that are worth a window of their own


# 1. One element ----------------------------------------------------------------------------------------------------------


@jit
def fit(value, wraps, minimum, maximum, mask, sign):
    """Return `value` wrapped or saturated into the word."""
    return wrap_word(value, mask, sign) if wraps else saturate(value, minimum, maximum)


@jit
def requantize_one(value, shift, mode, fraction, random_bits, wraps, minimum, maximum, mask, sign):
    """Return ``value / 2**shift`` rounded and fitted into the word, whether it left the word, and whether it was lost.

    This defines :func:`requantize`. It is exact for every `shift` down to ``1 - 2**63``.
    """
    value, shift = np.int64(value), np.int64(shift)
    if shift < 0:
        set_bit = np.int64(1) if mode == JAM else np.int64(0)
        # The product is even, so that with its lowest bit set it is in the word if without it it is in these bounds.
        least, most = shift_left_bounds(-shift, minimum - (minimum & set_bit), maximum - set_bit)
        product = shift_left(value, -shift) | set_bit
        if least <= value <= most:
            return product, False, False
        if wraps:
            return wrap_word(product, mask, sign), True, False
        return maximum if value > most else minimum, True, False
    if mode == STOCHASTIC:
        rounded = round_shift_stochastic(value, shift, fraction, random_bits)
    elif mode == PSEUDO_STOCHASTIC:
        rounded = round_shift_pseudo_stochastic(value, shift)
    else:
        rounded = round_shift_any(value, shift, mode)
    fitted = fit(rounded, wraps, minimum, maximum, mask, sign)
    return fitted, fitted != rounded, value != 0 and rounded == 0


# 2. Runs of elements -----------------------------------------------------------------------------------------------------
#
# They return how many values left the word and how many were lost. `one` is 1, but not known to be: so LLVM counts by one
# masked addition. The first four loops become vectors, as their shifts are ordinary ones.


@jit
def _round_run(values, out, shift, mode, wraps, minimum, maximum, mask, sign, one, counters):
    """Round by a mode of FLOOR .. JAM; one shift in 0..62. With None for `counters` the counting is compiled away."""
    base, if_negative, if_odd, set_bit = rounding_constants(mode, shift)
    zero = outside = lost = np.int64(0)
    for i in range(values.size):
        value = np.int64(values[i])
        rounded = round_shift(value, shift, base, if_negative, if_odd, set_bit)
        fitted = fit(rounded, wraps, minimum, maximum, mask, sign)
        if counters is not None:
            outside += one if fitted != rounded else zero
            lost += one if (value != zero) & (rounded == zero) else zero
        out[i] = fitted
    return outside, lost


@jit
def _round_each_run(values, out, shifts, mode, wraps, minimum, maximum, mask, sign, one):
    """Round by a mode of FLOOR .. JAM; a shift in 0..62 for each element."""
    zero = outside = lost = np.int64(0)
    for i in range(values.size):
        value, shift = values[i], shifts[i]
        base, if_negative, if_odd, set_bit = rounding_constants(mode, shift)
        rounded = round_shift(value, shift, base, if_negative, if_odd, set_bit)
        fitted = fit(rounded, wraps, minimum, maximum, mask, sign)
        outside += one if fitted != rounded else zero
        lost += one if (value != zero) & (rounded == zero) else zero
        out[i] = fitted
    return outside, lost


@jit
def _stochastic_run(values, out, shifts, fractions, random_bits, wraps, minimum, maximum, mask, sign, one):
    """Round by random bits; shifts in 0..62, one for all or one for each element."""
    zero = outside = lost = np.int64(0)
    same = shifts.size == 1
    for i in range(values.size):
        value, shift = values[i], shifts[0] if same else shifts[i]
        rounded = round_shift_stochastic(value, shift, fractions[i], random_bits)
        fitted = fit(rounded, wraps, minimum, maximum, mask, sign)
        outside += one if fitted != rounded else zero
        lost += one if (value != zero) & (rounded == zero) else zero
        out[i] = fitted
    return outside, lost


@jit
def _pseudo_stochastic_run(values, out, shifts, wraps, minimum, maximum, mask, sign, one):
    """Round by the values' own bits; shifts in 0..62, one for all or one for each element."""
    zero = outside = lost = np.int64(0)
    same = shifts.size == 1
    for i in range(values.size):
        value, shift = values[i], shifts[0] if same else shifts[i]
        rounded = round_shift_pseudo_stochastic_near(value, shift)
        fitted = fit(rounded, wraps, minimum, maximum, mask, sign)
        outside += one if fitted != rounded else zero
        lost += one if (value != zero) & (rounded == zero) else zero
        out[i] = fitted
    return outside, lost


@jit
def _any_run(values, out, shifts, mode, fractions, random_bits, wraps, minimum, maximum, mask, sign):
    """Round by any mode; any shifts, one for all or one for each element."""
    outside, lost = np.int64(0), np.int64(0)
    for i in range(values.size):
        shift = shifts[i] if shifts.size > 1 else shifts[0]
        fraction = fractions[i] if mode == STOCHASTIC else np.int64(0)
        fitted, left, vanished = requantize_one(
            values[i], shift, mode, fraction, random_bits, wraps, minimum, maximum, mask, sign
        )
        outside += np.int64(left)
        lost += np.int64(vanished)
        out[i] = fitted
    return outside, lost


@jit
def requantize_run(values, out, shifts, mode, fractions, random_bits, wraps, minimum, maximum, mask, sign, one):
    """Requantize a run of int64 by the fastest of the above; `shifts` holds one for all, or one for each element."""
    smallest, largest = shifts[0], shifts[0]
    for i in range(shifts.size):
        smallest, largest = min(smallest, shifts[i]), max(largest, shifts[i])
    if smallest >= 0 and largest <= 62:
        if mode <= JAM and shifts.size == 1:
            return _round_run(values, out, smallest, mode, wraps, minimum, maximum, mask, sign, one, shifts)
        if mode <= JAM:
            return _round_each_run(values, out, shifts, mode, wraps, minimum, maximum, mask, sign, one)
        if mode == STOCHASTIC:
            return _stochastic_run(values, out, shifts, fractions, random_bits, wraps, minimum, maximum, mask, sign, one)
        return _pseudo_stochastic_run(values, out, shifts, wraps, minimum, maximum, mask, sign, one)
    return _any_run(values, out, shifts, mode, fractions, random_bits, wraps, minimum, maximum, mask, sign)


@jit
def load(data, width, start, values):
    """Copy integers of `width` bytes from element `start` on out of a tensor, seen as bytes, into `values`, int64."""
    stop = start + values.size
    if width == 1:
        copy(data.view(np.int8)[start:stop], values)
    elif width == 2:
        copy(data.view(np.int16)[start:stop], values)
    elif width == 4:
        copy(data.view(np.int32)[start:stop], values)
    else:
        copy(data.view(np.int64)[start:stop], values)


@jit
def store(values, data, width, start):
    """Copy int64 into a tensor of integers of `width` bytes, seen as bytes, from its element `start` on."""
    stop = start + values.size
    if width == 1:
        copy(values, data.view(np.int8)[start:stop])
    elif width == 2:
        copy(values, data.view(np.int16)[start:stop])
    elif width == 4:
        copy(values, data.view(np.int32)[start:stop])
    else:
        copy(values, data.view(np.int64)[start:stop])


@jit
def copy(source, target):
    """Copy an array to the front of another; into a narrower type, the low bits."""
    for i in range(source.size):
        target[i] = source[i]


@jit
def extent(out, least, greatest):
    """Return the least and the greatest of the results and of what was seen before; in the narrow type of `out`."""
    for i in range(out.size):
        least, greatest = min(least, out[i]), max(greatest, out[i])
    return least, greatest


@jit
def window_end(start, stop, length, shifts):
    """Return where the window that begins at `start` ends: at the end of its block, if that has many elements in a row."""
    end = min(start + WINDOW, stop)
    if shifts.size > 1 and shifts.shape[2] == 1 and length >= _LONG:
        end = min(end, (start // length + 1) * length)
    return end


@jit
def shifts_of(shifts, length, start, stop, room):
    """Return the shifts of the elements `start` to `stop` of a tensor, or the one they all have; `room` is written."""
    first, blocks, inner = shifts.shape
    if shifts.size == 1:
        return shifts[0, 0]
    row = start // inner  # (o * blocks + b) * length + l
    block = row // length  # o * blocks + b
    o, b = (block // blocks if first > 1 else np.int64(0)), block % blocks
    if inner == 1 and stop <= (block + 1) * length:
        return shifts[o, b]
    each = room[: stop - start]
    left, column = (block + 1) * length - row, start - row * inner  # rows left in the block, this one included
    position = np.int64(0)
    while position < each.size:
        if inner == 1:
            end = min(position + left, each.size)
            shift = shifts[o, b, 0]
            for i in range(np.uint64(position), np.uint64(end)):
                each[i] = shift
            left = np.int64(0)
        else:
            end = min(position + inner - column, each.size)
            copy(shifts[o, b, column : column + end - position], each[position:end])
            left -= 1
        position, column = end, np.int64(0)
        if left == 0:
            left, b = length, b + 1
            if b == blocks:
                b, o = np.int64(0), o + (1 if first > 1 else 0)
    return each


# 3. Tensors --------------------------------------------------------------------------------------------------------------


@jit
def count(counters, wraps, outside, lost, least, greatest):
    """Add what was counted to `counters`."""
    counters[COUNT_WRAPPED if wraps else COUNT_SATURATED] += outside
    counters[COUNT_LOST] += lost
    counters[SEEN_MINIMUM] = min(counters[SEEN_MINIMUM], np.int64(least))
    counters[SEEN_MAXIMUM] = max(counters[SEEN_MAXIMUM], np.int64(greatest))


@jit
def round_all(values, out, start, stop, shift, mode, wraps, minimum, maximum, mask, sign, counters):
    """Do what :func:`requantize` does, for one shift in 0..62 and a mode of FLOOR .. JAM, without its detours.

    `values` and `out` are integer arrays of any types; with None for `counters` nothing is counted.
    """
    one = min(stop - start, np.int64(1))
    outside, lost = np.int64(0), np.int64(0)
    least, greatest = out[start], out[start]
    for begin in range(start, stop, WINDOW):
        end = min(begin + WINDOW, stop)
        target = out[begin:end]
        some_outside, some_lost = _round_run(
            values[begin:end], target, shift, mode, wraps, minimum, maximum, mask, sign, one, counters
        )
        if counters is not None:
            outside += some_outside
            lost += some_lost
            if begin == start:
                least, greatest = out[start], out[start]
            least, greatest = extent(target, least, greatest)
    if counters is not None:
        count(counters, wraps, outside, lost, least, greatest)


@jit
def requantize(
    values, width, out, out_width, start, stop, shifts, length, mode, wraps, minimum, maximum, mask, sign,
    sequence, first_index, random_bits, counters,
):  # fmt: skip
    """Write the elements `start` to `stop` of ``values / 2**shifts``, rounded and fitted into the word, into `out`.

    Compiled once for all types of tensors: they come as bytes.

    Parameters
    ----------
    values, out : (bytes,) uint8
        A whole tensor in C order, of signed integers of `width` and `out_width` bytes; `out` holds the word.
    width, out_width : int64
        1, 2, 4 or 8.
    start, stop : int64
        The part to do; not empty.
    shifts : (1 or outer, blocks, inner) int64
        To the right, or where negative to the left; any but -2**63.
    length : int64
        The third of the four axes.
    mode : int64
        One of FLOOR .. JAM, STOCHASTIC, PSEUDO_STOCHASTIC.
    wraps, minimum, maximum, mask, sign : bool and int64
        The word.
    sequence : tuple of four uint64
        ``(key_0, key_1, stream, step)`` of the random bits.
    first_index, random_bits : int64
        Element i of `values` takes the `random_bits` bits of element ``first_index + i`` of the sequence.
    counters : (COUNTERS,) int64
        Added to; the least and the greatest result taken into it.
    """
    key_0, key_1, stream, step = sequence
    fractions = np.empty(room_for(WINDOW, random_bits) if mode == STOCHASTIC else 1, np.int64)
    drawn = fractions
    room = np.empty(WINDOW if shifts.size > 1 else 1, np.int64)
    taken, made = np.empty(WINDOW, np.int64), np.empty(WINDOW, np.int64)
    one = min(stop - start, np.int64(1))
    outside, lost = np.int64(0), np.int64(0)
    least, greatest = _INT64_MAX, _INT64_MIN
    end = start
    while end < stop:
        begin, end = end, window_end(end, stop, length, shifts)
        size = end - begin
        load(values, width, begin, taken[:size])
        if mode == STOCHASTIC:
            skip = fill_fractions(key_0, key_1, stream, step, first_index + begin, size, random_bits, fractions)
            drawn = fractions[skip:]
        some_outside, some_lost = requantize_run(
            taken[:size], made, shifts_of(shifts, length, begin, end, room), mode, drawn, random_bits,
            wraps, minimum, maximum, mask, sign, one,
        )  # fmt: skip
        store(made[:size], out, out_width, begin)
        outside += some_outside
        lost += some_lost
        least, greatest = extent(made[:size], least, greatest)
    count(counters, wraps, outside, lost, least, greatest)


# 4. How many bits --------------------------------------------------------------------------------------------------------


@jit
def extents(values, first, last, least, greatest):
    """Write the least and the greatest element of every block.

    Parameters
    ----------
    values : (outer * blocks, length, inner) integers
        With a length of at least one.
    first, last : int64
        The rows of `values` to do.
    least, greatest : (outer * blocks, inner) int64, written
    """
    length, inner = values.shape[1], values.shape[2]
    for row in range(first, last):
        if inner == 1:
            low, high = extent(values[row, :, 0], values[row, 0, 0], values[row, 0, 0])
            least[row, 0], greatest[row, 0] = low, high
            continue
        lows, highs = least[row], greatest[row]
        for i in range(inner):
            lows[i] = highs[i] = values[row, 0, i]
        for line in range(1, length):
            current = values[row, line]
            for i in range(inner):
                value = np.int64(current[i])
                lows[i], highs[i] = min(lows[i], value), max(highs[i], value)


@jit
def magnitude_bits(least, greatest):
    """Return the bit length of the greatest magnitude in ``least..greatest``: 0 for 0, and 64 for -2**63.

    >>> [int(magnitude_bits(low, high)) for low, high in ((0, 0), (-128, 127), (-127, 5))]
    [0, 8, 7]
    """
    least, greatest = np.int64(least), np.int64(greatest)
    if least == _INT64_MIN:
        return np.int64(64)
    return bit_length(max(-least, greatest))


@jit
def shift_to_fit(least, greatest, word_bits, minimum, maximum):
    """Return the smallest shift in ``minimum..maximum`` after which magnitudes of ``least..greatest`` fit, all int64.

    They are then below ``2**(word_bits - 1)``; for zeros it is `minimum`.
    """
    bits, minimum = magnitude_bits(least, greatest), np.int64(minimum)
    return min(max(bits - np.int64(word_bits) + np.int64(1), minimum), np.int64(maximum)) if bits > 0 else minimum


@jit
def shifts_to_fit(least, greatest, word_bits, minimum, maximum, shifts):
    """Write what `shift_to_fit` returns for every block.

    Parameters
    ----------
    least, greatest : (blocks,) int64
        Of each block.
    word_bits, minimum, maximum : int64
    shifts : (blocks,) int64, written
        `minimum` for a block of zeros.
    """
    for i in range(shifts.size):
        shifts[i] = shift_to_fit(least[i], greatest[i], word_bits, minimum, maximum)
