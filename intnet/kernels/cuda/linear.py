"""Linear maps of channels on the GPU: see :mod:`intnet.kernels.plain.linear`.

Where factors are int32, so are all steps: the sum is taken modulo ``2**32`` in any case.
"""

from typing import Any

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import STOCHASTIC
from intnet.kernels.cuda._device import (
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    NO_WORDS,
    count_block,
    device,
    flat,
    four_words,
    has_bits,
    is_narrow,
    narrow_constants,
    new_extremes,
    one_of_four,
    requantize_narrow,
    requantize_wide,
    take_extremes,
    uncounted,
)
from intnet.kernels.cuda._driver import cuda, kernel, to_host

__all__ = ["extremes_of_map", "multiply_add", "multiply_add_requantize"]

_EACH = 8  # elements that a thread takes at least where it ends with an atomic


# 1. Kernels --------------------------------------------------------------------------------------------------------------


@jit
def map_narrow(a, by_a, b, by_b, offset):
    """Return ``a * by_a + b * by_b + offset`` modulo ``2**32``."""
    first = np.int32(np.int32(a) * np.int32(by_a))
    return np.int32(np.int32(first + np.int32(np.int32(b) * np.int32(by_b))) + np.int32(offset))


@jit
def map_wide(a, by_a, b, by_b, offset):
    """Return ``a * by_a + b * by_b + offset``, which must fit int64."""
    return np.int64(by_a) * np.int64(a) + np.int64(by_b) * np.int64(b) + np.int64(offset)


@device
def _result_narrow(a, b, factors, lanes, both, place, lane):
    column, wide = np.uint64(lane), np.uint64(lanes)
    if both:
        by_b, offset = factors[column + wide], factors[column + wide + wide]
        return map_narrow(a[place], factors[column], b[place], by_b, offset)
    return map_narrow(a[place], factors[column], 0, 0, factors[column + wide])


@device
def _result_wide(a, b, factors, lanes, both, place, lane):
    column, wide = np.uint64(lane), np.uint64(lanes)
    if both:
        by_b, offset = factors[column + wide], factors[column + wide + wide]
        return map_wide(a[place], factors[column], b[place], by_b, offset)
    return map_wide(a[place], factors[column], 0, 0, factors[column + wide])


_NARROW = [f"int{bits}[::1], int{bits}[::1], int32[::1]" for bits in (8, 16)]
_WIDE = [f"int{bits}[::1], int{bits}[::1], int64[::1]" for bits in (8, 16, 32, 64)]


@kernel(*(f"{types}, int64, boolean, int64, boolean, {types.split(', ')[2]}, int64[::1]" for types in _NARROW + _WIDE))
def _multiply_add(a, b, factors, lanes, both, size, keeps, out, extremes):
    """Take the extremes of a map, and write its results if it `keeps` them."""
    narrow = has_bits(factors, 32)  # known when it is compiled
    least_32, greatest_32, least, greatest = INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN
    stride = cuda.gridsize(1)
    lane, step = cuda.grid(1) % lanes, stride % lanes
    for i in range(cuda.grid(1), size, stride):
        place = np.uint64(i)
        if narrow:
            result_32 = _result_narrow(a, b, factors, lanes, both, place, lane)
            least_32, greatest_32 = min(least_32, result_32), max(greatest_32, result_32)
            if keeps:
                out[place] = result_32
        else:
            result = _result_wide(a, b, factors, lanes, both, place, lane)
            least, greatest = min(least, result), max(greatest, result)
            if keeps:
                out[place] = result
        lane += step
        if lane >= lanes:
            lane -= lanes
    if narrow:
        least, greatest = np.int64(least_32), np.int64(greatest_32)
    take_extremes(extremes, least, greatest)


_OF_PLACES = "int64, boolean, int64, int64"
_OF_WORD = "boolean, int64, int64, int64, int64"
_OF_SEQUENCE = "uint64, uint64, uint64, uint64"
_OF_CONSTANTS = "int64, int64, int64, int64, int64, int64"


@kernel(
    *(
        f"{types}, {_OF_PLACES}, {_OF_CONSTANTS}, {_OF_WORD}, {_OF_SEQUENCE}, {out}[::1], int64[::1]"
        for types in _NARROW
        for out in ("int8", "int16")
    )
)
def _requantize_narrow(
    a, b, factors, lanes, both, start, stop, mode, shift, first, second, third, fourth,
    wraps, minimum, maximum, mask, sign, key_0, key_1, stream, step, out, counters,
):  # fmt: skip
    outside = lost = np.int32(0)
    least, greatest = INT32_MAX, INT32_MIN
    words = NO_WORDS
    first_group, stride = (start >> 2) + cuda.grid(1), cuda.gridsize(1)
    lane, further = ((first_group << 2) - start) % lanes, (stride << 2) % lanes  # of a group's first element
    for group in range(first_group, (stop + 3) >> 2, stride):
        if mode == STOCHASTIC:
            words = four_words(group, key_0, key_1, stream, step)
        begin, column = group << 2, lane
        for j in range(4):
            if start <= begin + j < stop:
                place = np.uint64(begin + j)
                result = _result_narrow(a, b, factors, lanes, both, place, column)
                fitted, left, vanished = requantize_narrow(
                    result, mode, shift, one_of_four(words, j), first, second, third, fourth,
                    wraps, minimum, maximum, mask, sign,
                )  # fmt: skip
                out[place] = fitted
                outside, lost = np.int32(outside + left), np.int32(lost + vanished)
                least, greatest = min(least, fitted), max(greatest, fitted)
            column += 1
            if column == lanes:
                column = np.int64(0)
        lane += further
        if lane >= lanes:
            lane -= lanes
    count_block(counters, 0, wraps, outside, lost, least, greatest)


@kernel(
    *(
        f"{types}, {_OF_PLACES}, int64, int64, int64, {_OF_WORD}, {_OF_SEQUENCE}, {out}[::1], int64[::1]"
        for types, out in zip(_NARROW + _WIDE, ("int8", "int16", "int8", "int16", "int32", "int64"), strict=True)
    )
)
def _requantize_wide(
    a, b, factors, lanes, both, start, stop, mode, shift, random_bits,
    wraps, minimum, maximum, mask, sign, key_0, key_1, stream, step, out, counters,
):  # fmt: skip
    outside = lost = np.int64(0)
    least, greatest = INT64_MAX, INT64_MIN
    words = NO_WORDS
    narrow = has_bits(factors, 32)  # known when it is compiled
    first_group, stride = (start >> 2) + cuda.grid(1), cuda.gridsize(1)
    lane, further = ((first_group << 2) - start) % lanes, (stride << 2) % lanes  # of a group's first element
    for group in range(first_group, (stop + 3) >> 2, stride):
        if mode == STOCHASTIC and random_bits <= 32:
            words = four_words(group, key_0, key_1, stream, step)
        begin, column = group << 2, lane
        for j in range(4):
            if start <= begin + j < stop:
                place = np.uint64(begin + j)
                if narrow:
                    result = np.int64(_result_narrow(a, b, factors, lanes, both, place, column))
                else:
                    result = _result_wide(a, b, factors, lanes, both, place, column)
                fitted, left, vanished = requantize_wide(
                    result, mode, shift, one_of_four(words, j), key_0, key_1, stream, step, begin + j, random_bits,
                    wraps, minimum, maximum, mask, sign,
                )  # fmt: skip
                out[place] = fitted
                outside += np.int64(left)
                lost += np.int64(vanished)
                least, greatest = min(least, fitted), max(greatest, fitted)
            column += 1
            if column == lanes:
                column = np.int64(0)
        lane += further
        if lane >= lanes:
            lane -= lanes
    count_block(counters, 0, wraps, outside, lost, least, greatest)


# 2. On the host ----------------------------------------------------------------------------------------------------------


def multiply_add(a: Any, b: Any, factors: Any, out: Any) -> tuple[int, int]:
    """Do what :func:`intnet.kernels.plain.linear.multiply_add` does; with None for `out`, results are not kept."""
    lanes, factors, found, a = factors.shape[1], flat(factors), new_extremes(), flat(a)
    b, both = (a, False) if b is None else (flat(b), True)
    target = factors if out is None else flat(out)
    _multiply_add(-(-a.size // _EACH), a, b, factors, lanes, both, a.size, out is not None, target, found)
    least, greatest = to_host(found)
    return int(least), int(greatest)


def extremes_of_map(a: Any, b: Any, factors: Any, products: Any = None) -> tuple[int, int]:  # noqa: ARG001 - no scratch is used
    """Do what :func:`intnet.kernels.plain.linear.extremes_of_map` does."""
    return multiply_add(a, b, factors, None)


def multiply_add_requantize(
    a: Any, b: Any, factors: Any, start: int, stop: int, shift: int, mode: int,
    wraps: bool, minimum: int, maximum: int, mask: int, sign: int, sequence: Any, random_bits: int,
    products: Any, products_bytes: Any, out: Any, out_bytes: Any, counters: Any,  # noqa: ARG001 - no scratch is used
) -> None:  # fmt: skip
    """Do what :func:`intnet.kernels.plain.linear.multiply_add_requantize` does; `products` and the bytes are not looked at."""
    start, stop, shift, mode, random_bits = int(start), int(stop), int(shift), int(mode), int(random_bits)
    word = bool(wraps), int(minimum), int(maximum), int(mask), int(sign)
    if stop <= start:
        return
    a, out = flat(a), flat(out)
    tensors = a, a if b is None else flat(b), flat(factors), factors.shape[1], b is not None, start, stop
    groups, counted = ((stop + 3) >> 2) - (start >> 2), uncounted() if counters is None else counters
    if is_narrow(shift, mode, word[3], word[2], random_bits, factors.dtype.itemsize):
        constants = narrow_constants(np.int64(mode), np.int64(shift), np.int64(random_bits))
        _requantize_narrow(groups, *tensors, mode, shift, *constants, *word, *sequence, out, counted)
    else:
        _requantize_wide(groups, *tensors, mode, shift, random_bits, *word, *sequence, out, counted)
