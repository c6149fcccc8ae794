"""Integers to fewer bits on the GPU: see :mod:`intnet.kernels.plain.requantize`.

A thread takes four neighbouring elements whose random words come of one block of Philox. Four values are loaded before any is
stored, so that many loads are under way.
"""

from typing import Any

import numpy as np

from intnet.arithmetic import STOCHASTIC
from intnet.kernels import plain
from intnet.kernels.cuda._device import (
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    NO_WORDS,
    block_extremes,
    count_block,
    device,
    flat,
    four_words,
    is_narrow,
    narrow_constants,
    one_of_four,
    requantize_narrow,
    requantize_wide,
    typed,
    uncounted,
)
from intnet.kernels.cuda._driver import THREADS, cuda, is_on_device, kernel, to_device
from intnet.random import sequence_words

__all__ = ["extents", "requantize", "round_all", "shifts_to_fit"]

_NO_SEQUENCE = sequence_words(0, 0, 0)
_LONG = 64  # elements of a block in a row that are worth a block of threads


# 1. Kernels --------------------------------------------------------------------------------------------------------------

_OF_ROUNDING = "int64, int64, int64, int64, int64, int64, boolean, int64, int64, int64, int64"
_OF_NARROW = f"int64, int64, int64, {_OF_ROUNDING}, uint64, uint64, uint64, uint64, int64[::1]"


@kernel(
    f"int32[::1], int8[::1], {_OF_NARROW}",
    f"int32[::1], int16[::1], {_OF_NARROW}",
    f"int32[::1], int32[::1], {_OF_NARROW}",
    f"int16[::1], int8[::1], {_OF_NARROW}",
    f"int8[::1], int8[::1], {_OF_NARROW}",
)
def _requantize_narrow(
    values, out, start, stop, first_index, mode, shift, first, second, third, fourth,
    wraps, minimum, maximum, mask, sign, key_0, key_1, stream, step, counters,
):  # fmt: skip
    outside = lost = np.int32(0)
    least, greatest = INT32_MAX, INT32_MIN
    words = NO_WORDS
    last_group = (first_index + stop + 3) >> 2
    for group in range(((first_index + start) >> 2) + cuda.grid(1), last_group, cuda.gridsize(1)):
        if mode == STOCHASTIC:
            words = four_words(group, key_0, key_1, stream, step)
        begin = (group << 2) - first_index
        if begin >= start and begin + 4 <= stop:
            place = np.uint64(begin)
            v0, v1 = values[place], values[place + np.uint64(1)]
            v2, v3 = values[place + np.uint64(2)], values[place + np.uint64(3)]
            a, outside_0, lost_0 = requantize_narrow(
                v0, mode, shift, words[0], first, second, third, fourth, wraps, minimum, maximum, mask, sign
            )
            b, outside_1, lost_1 = requantize_narrow(
                v1, mode, shift, words[1], first, second, third, fourth, wraps, minimum, maximum, mask, sign
            )
            c, outside_2, lost_2 = requantize_narrow(
                v2, mode, shift, words[2], first, second, third, fourth, wraps, minimum, maximum, mask, sign
            )
            d, outside_3, lost_3 = requantize_narrow(
                v3, mode, shift, words[3], first, second, third, fourth, wraps, minimum, maximum, mask, sign
            )
            out[place], out[place + np.uint64(1)] = a, b
            out[place + np.uint64(2)], out[place + np.uint64(3)] = c, d
            outside = np.int32(outside + outside_0 + outside_1 + outside_2 + outside_3)
            lost = np.int32(lost + lost_0 + lost_1 + lost_2 + lost_3)
            least = min(least, min(min(a, b), min(c, d)))
            greatest = max(greatest, max(max(a, b), max(c, d)))
        else:
            for j in range(4):
                if start <= begin + j < stop:
                    fitted, some_outside, some_lost = requantize_narrow(
                        values[begin + j], mode, shift, one_of_four(words, j), first, second, third, fourth,
                        wraps, minimum, maximum, mask, sign,
                    )  # fmt: skip
                    out[begin + j] = fitted
                    outside = np.int32(outside + some_outside)
                    lost = np.int32(lost + some_lost)
                    least, greatest = min(least, fitted), max(greatest, fitted)
    count_block(counters, 0, wraps, outside, lost, least, greatest)


_OF_WIDE = (
    "int64, int64, int64, int64, int64, boolean, int64, int64, int64, int64, uint64, uint64, uint64, uint64, int64, int64[::1]"
)


@kernel(
    f"int64[::1], int8[::1], {_OF_WIDE}",
    f"int64[::1], int16[::1], {_OF_WIDE}",
    f"int64[::1], int32[::1], {_OF_WIDE}",
    f"int64[::1], int64[::1], {_OF_WIDE}",
    f"int32[::1], int8[::1], {_OF_WIDE}",
)
def _requantize_wide(
    values, out, start, stop, first_index, mode, shift, wraps, minimum, maximum, mask, sign,
    key_0, key_1, stream, step, random_bits, counters,
):  # fmt: skip
    outside = lost = np.int64(0)
    least, greatest = INT64_MAX, INT64_MIN
    words = NO_WORDS
    last_group = (first_index + stop + 3) >> 2
    for group in range(((first_index + start) >> 2) + cuda.grid(1), last_group, cuda.gridsize(1)):
        if mode == STOCHASTIC and random_bits <= 32:
            words = four_words(group, key_0, key_1, stream, step)
        begin = (group << 2) - first_index
        for j in range(4):
            if start <= begin + j < stop:
                fitted, left, vanished = requantize_wide(
                    values[begin + j], mode, shift, one_of_four(words, j), key_0, key_1, stream, step,
                    first_index + begin + j, random_bits, wraps, minimum, maximum, mask, sign,
                )  # fmt: skip
                out[begin + j] = fitted
                outside += np.int64(left)
                lost += np.int64(vanished)
                least, greatest = min(least, fitted), max(greatest, fitted)
    count_block(counters, 0, wraps, outside, lost, least, greatest)


_OF_BLOCKS = (
    "int64, int64, int64, int64, int64[::1], int64, int64, int64, int64, boolean, int64, int64, int64, int64, "
    "uint64, uint64, uint64, uint64, int64, int64[::1]"
)


@device
def _locate(element, blocks, length, inner):
    """Return an element's place on the axes (outer, blocks, length, inner); 32-bit divisions for 32-bit places."""
    if element <= INT32_MAX and blocks <= INT32_MAX and length <= INT32_MAX and inner <= INT32_MAX:
        place, many, long, wide = np.uint32(element), np.uint32(blocks), np.uint32(length), np.uint32(inner)
        row = np.uint32(place // wide)
        block = np.uint32(row // long)
        o = np.uint32(block // many)
        return np.int64(o), np.int64(block - o * many), np.int64(row - block * long), np.int64(place - row * wide)
    line = element // inner
    above = line // length
    first = above // blocks
    return first, above - first * blocks, line - above * length, element - line * inner


@kernel(
    f"int32[::1], int8[::1], {_OF_BLOCKS}",
    f"int32[::1], int16[::1], {_OF_BLOCKS}",
    f"int64[::1], int8[::1], {_OF_BLOCKS}",
    f"int64[::1], int64[::1], {_OF_BLOCKS}",
)
def _requantize_blocks(
    values, out, start, stop, first_index, mode, shifts, first_axis, blocks, length, inner, wraps, minimum, maximum, mask, sign,
    key_0, key_1, stream, step, random_bits, counters,
):  # fmt: skip
    outside = lost = np.int64(0)
    least, greatest = INT64_MAX, INT64_MIN
    words = NO_WORDS
    last_group = (first_index + stop + 3) >> 2
    for group in range(((first_index + start) >> 2) + cuda.grid(1), last_group, cuda.gridsize(1)):
        if mode == STOCHASTIC and random_bits <= 32:
            words = four_words(group, key_0, key_1, stream, step)
        begin = (group << 2) - first_index
        o, b, line, column = _locate(max(begin, start), blocks, length, inner)
        for j in range(4):
            if start <= begin + j < stop:
                shift = shifts[((o if first_axis > 1 else np.int64(0)) * blocks + b) * inner + column]
                fitted, left, vanished = requantize_wide(
                    values[begin + j], mode, shift, one_of_four(words, j), key_0, key_1, stream, step,
                    first_index + begin + j, random_bits, wraps, minimum, maximum, mask, sign,
                )  # fmt: skip
                out[begin + j] = fitted
                outside += np.int64(left)
                lost += np.int64(vanished)
                least, greatest = min(least, fitted), max(greatest, fitted)
                column += 1
                if column == inner:
                    column, line = np.int64(0), line + 1
                if line == length:
                    line, b = np.int64(0), b + 1
                if b == blocks:
                    b, o = np.int64(0), o + 1
    count_block(counters, 0, wraps, outside, lost, least, greatest)


_OF_EXTENTS = "int64, int64, int64, int64, int64[::1], int64[::1]"


@kernel(*(f"int{bits}[::1], {_OF_EXTENTS}" for bits in (8, 16, 32, 64)))
def _extents(values, first, last, length, inner, least, greatest):
    for i in range(first * inner + cuda.grid(1), last * inner, cuda.gridsize(1)):
        row = i // inner
        place = np.uint64(row * length * inner + (i - row * inner))
        low = high = values[place]
        for _ in range(1, length):
            place = np.uint64(place + np.uint64(inner))
            value = values[place]
            low, high = min(low, value), max(high, value)
        least[i], greatest[i] = low, high


@kernel(*(f"int{bits}[::1], int64, int64, int64, int64[::1], int64[::1]" for bits in (8, 16, 32, 64)))
def _extents_by_blocks(values, first, last, length, least, greatest):
    """Do the same for an inner axis of one: neighbouring threads take neighbouring elements of a row."""
    for row in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        low, high = INT64_MAX, INT64_MIN
        for k in range(row * length + cuda.threadIdx.x, (row + 1) * length, cuda.blockDim.x):
            value = np.int64(values[np.uint64(k)])
            low, high = min(low, value), max(high, value)
        low, high = block_extremes(low, high)
        if cuda.threadIdx.x == 0:
            least[row], greatest[row] = low, high


# 2. On the host ----------------------------------------------------------------------------------------------------------


def _one_shift(
    values: Any, out: Any, start: int, stop: int, shift: int, mode: int, word: tuple[Any, ...], sequence: Any,
    first_index: int, random_bits: int, counters: Any,
) -> None:  # fmt: skip
    wraps, minimum, maximum, mask, sign = word
    counted = uncounted() if counters is None else counters
    groups = (stop - start + 6) >> 2  # at the most
    if stop <= start:
        return
    if is_narrow(shift, mode, mask, maximum, random_bits, values.dtype.itemsize) and out.dtype.itemsize <= 4:
        constants = narrow_constants(np.int64(mode), np.int64(shift), np.int64(random_bits))
        _requantize_narrow(
            groups, values, out, start, stop, first_index, mode, shift, *constants, wraps, minimum, maximum, mask, sign,
            *sequence, counted,
        )  # fmt: skip
        return
    _requantize_wide(
        groups, values, out, start, stop, first_index, mode, shift, wraps, minimum, maximum, mask, sign,
        *sequence, random_bits, counted,
    )  # fmt: skip


def round_all(
    values: Any, out: Any, start: int, stop: int, shift: int, mode: int, wraps: bool, minimum: int, maximum: int, mask: int,
    sign: int, counters: Any,
) -> None:  # fmt: skip
    """Do what :func:`intnet.kernels.plain.requantize.round_all` does."""
    word = bool(wraps), int(minimum), int(maximum), int(mask), int(sign)
    arguments = int(start), int(stop), int(shift), int(mode), word, _NO_SEQUENCE, 0, 0
    _one_shift(flat(values), flat(out), *arguments, counters)


def requantize(
    values: Any, width: int, out: Any, out_width: int, start: int, stop: int, shifts: Any, length: int, mode: int,
    wraps: bool, minimum: int, maximum: int, mask: int, sign: int, sequence: Any, first_index: int, random_bits: int,
    counters: Any,
) -> None:  # fmt: skip
    """Do what :func:`intnet.kernels.plain.requantize.requantize` does.

    `values` and `out` may have their types instead of coming as bytes. `shifts` may also be an int or an array on the host:
    of one shift that the host knows, the kernel may be the one in 32 bits.
    """
    values, out = typed(values, width), typed(out, out_width)
    word = bool(wraps), int(minimum), int(maximum), int(mask), int(sign)
    start, stop, mode, first_index, random_bits = int(start), int(stop), int(mode), int(first_index), int(random_bits)
    # a sequence is (key_0, key_1, stream, step), here as there
    if not is_on_device(shifts) and np.size(shifts) == 1:
        shift = int(np.asarray(shifts).reshape(-1)[0])
        _one_shift(values, out, start, stop, shift, mode, word, sequence, first_index, random_bits, counters)
        return
    if not is_on_device(shifts):
        shifts = to_device(np.asarray(shifts, np.int64))
    first, blocks, inner = shifts.shape if shifts.size > 1 else (1, 1, 1)
    length = int(length) if shifts.size > 1 else stop
    _requantize_blocks(
        (stop - start + 6) >> 2 if stop > start else 0, values, out, start, stop, first_index, mode, flat(shifts),
        first, blocks, length, inner, *word, *sequence, random_bits, uncounted() if counters is None else counters,
    )  # fmt: skip


def extents(values: Any, first: int, last: int, least: Any, greatest: Any) -> None:
    """Do what :func:`intnet.kernels.plain.requantize.extents` does."""
    _, length, inner = values.shape
    tensors, first, last = (flat(values), flat(least), flat(greatest)), int(first), int(last)
    if inner == 1 and length >= _LONG:
        _extents_by_blocks((last - first) * THREADS, tensors[0], first, last, length, *tensors[1:])
    else:
        _extents((last - first) * inner, tensors[0], first, last, length, inner, *tensors[1:])


shifts_to_fit = plain.shifts_to_fit
"""The plain one: what it takes and writes is small and lives on the host."""
