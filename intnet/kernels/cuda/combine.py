"""Linear combinations of tensors on the GPU, and biases added to sums: see :mod:`intnet.kernels.plain.combine`."""

from typing import Any

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import add_leaves_int64, add_wrap, scale
from intnet.kernels.cuda._device import block_sum, device, flat, has_bits, typed
from intnet.kernels.cuda._driver import cuda, is_on_device, kernel, to_device, to_host, zeros
from intnet.kernels.plain.product import bring_into_word
from intnet.kernels.plain.requantize import fit, magnitude_bits
from intnet.kernels.vectors import shift_right_32

__all__ = ["add_bias", "add_bias_any", "linear_combination"]

_0, _1 = np.int32(0), np.int32(1)


# 1. Linear combinations --------------------------------------------------------------------------------------------------


@jit
def scale_narrow(value, factor, shift):
    """Return what :func:`intnet.arithmetic.scale` does, shifting to the left, or where negative to the right, in 32 bits.

    The product and what it is shifted to fit int32. So nothing but zero is shifted by more than 31 to the left, and to the
    right 31 bits are as good as more: the sign is left, and its lowest bit set but for zero.
    """
    left, right = min(max(np.int64(shift), np.int64(0)), np.int64(31)), min(max(-np.int64(shift), np.int64(0)), np.int64(31))
    shifted = np.int32(np.int32(np.int32(value) * np.int32(factor)) * np.int32(np.int64(1) << left))
    cut = np.int32(shifted & np.int32((np.int64(1) << right) - np.int64(1)))
    return np.int32(shift_right_32(shifted, right) | (_1 if cut != _0 else _0))


@jit
def scale_wide(value, factor, shift):
    """Return what :func:`intnet.arithmetic.scale` does, shifting to the left, or where negative to the right."""
    shift, most, none = np.int64(shift), np.int64(63), np.int64(0)
    return scale(value, factor, min(max(shift, none), most), min(max(-shift, none), most))


@device
def _term(narrow, values, place, factor, shift):
    if narrow:
        return np.int64(scale_narrow(values[place], factor, shift))
    if shift == 0 and factor == 1:
        return np.int64(values[place])
    return scale_wide(values[place], factor, shift)


_TERM = "int64, int64[::1], boolean"
_OF_COMBINATION = f"int64, int64, int64, {_TERM}, {_TERM}, {_TERM}, int64"


@kernel(
    f"int8[::1], int8[::1], int8[::1], {_OF_COMBINATION}, int32[::1]",
    f"int16[::1], int16[::1], int16[::1], {_OF_COMBINATION}, int32[::1]",
    f"int32[::1], int32[::1], int32[::1], {_OF_COMBINATION}, int32[::1]",
    f"int8[::1], int8[::1], int8[::1], {_OF_COMBINATION}, int64[::1]",
    f"int16[::1], int8[::1], int16[::1], {_OF_COMBINATION}, int64[::1]",
    f"int32[::1], int32[::1], int32[::1], {_OF_COMBINATION}, int64[::1]",
    f"int64[::1], int64[::1], int64[::1], {_OF_COMBINATION}, int64[::1]",
)
def _linear_combination(
    data_0, data_1, data_2, terms, start, stop, factor_0, shifts_0, by_row_0, factor_1, shifts_1, by_row_1,
    factor_2, shifts_2, by_row_2, length, out,
):  # fmt: skip
    narrow = has_bits(out, 32)  # known when it is compiled
    first, stride = start + cuda.grid(1), cuda.gridsize(1)
    row, rows = first // length, stride // length
    column, columns = first - row * length, stride - rows * length
    shift_0, shift_1, shift_2 = shifts_0[0], shifts_1[0], shifts_2[0]
    for i in range(first, stop, stride):
        place = np.uint64(i)
        if by_row_0:
            shift_0 = shifts_0[row]
        total = _term(narrow, data_0, place, factor_0, shift_0)
        if terms > 1:
            if by_row_1:
                shift_1 = shifts_1[row]
            total += _term(narrow, data_1, place, factor_1, shift_1)
        if terms > 2:
            if by_row_2:
                shift_2 = shifts_2[row]
            total += _term(narrow, data_2, place, factor_2, shift_2)
        out[place] = total
        row, column = row + rows, column + columns
        if column >= length:
            row, column = row + 1, column - length


def _shifts(shifts: Any) -> Any:
    return flat(shifts) if is_on_device(shifts) else to_device(np.asarray(shifts, np.int64).reshape(-1))


def linear_combination(
    terms: int, start: int, stop: int, data_0: Any, width_0: int, factor_0: int, shifts_0: Any, data_1: Any, width_1: int,
    factor_1: int, shifts_1: Any, data_2: Any, width_2: int, factor_2: int, shifts_2: Any, length: int, out: Any,
) -> None:  # fmt: skip
    """Do what :func:`intnet.kernels.plain.combine.linear_combination` does.

    The data may have their types instead of coming as bytes; those beyond `terms` may be None. Shifts may be on the host.
    """
    if stop <= start:
        return
    tensors, rules, shifts = [], [], None
    given = (data_0, width_0, factor_0, shifts_0), (data_1, width_1, factor_1, shifts_1), (data_2, width_2, factor_2, shifts_2)
    for data, width, factor, some in given[: int(terms)]:
        shifts = _shifts(some)
        tensors.append(typed(data, width))
        rules += [int(factor), shifts, shifts.size > 1]
    for _ in range(3 - int(terms)):  # not looked at, and of a type that is compiled in any case
        tensors.append(tensors[0])
        rules += [0, shifts, False]
    _linear_combination(stop - start, *tensors, int(terms), int(start), int(stop), *rules, int(length), flat(out))


# 2. Biases ---------------------------------------------------------------------------------------------------------------


@kernel("int64[::1], int64[::1]")
def _find_large(bias, found):
    """Set ``found[0]`` if a bias is so large that a sum might leave int64."""
    for i in range(cuda.grid(1), bias.size, cuda.gridsize(1)):
        if magnitude_bits(bias[i], bias[i]) > 62:
            found[0] = 1


_OF_BIAS = "int64[::1], int64, int64, boolean, int64, int64, int64, int64, int64[::1]"


@kernel(f"int32[::1], {_OF_BIAS}", f"int64[::1], {_OF_BIAS}")
def _add_bias(sums, bias, size, channels, wraps, minimum, maximum, mask, sign, found):
    """Add a bias and count in ``found[1]``; do nothing if ``found[0]`` is set."""
    first, stride = cuda.grid(1), cuda.gridsize(1)
    channel, further = first % channels, stride % channels
    left = np.int64(0)
    end = size if found[0] == 0 else np.int64(0)
    for i in range(first, end, stride):
        place = np.uint64(i)
        total = np.int64(sums[place]) + bias[np.uint64(channel)]
        fitted = fit(total, wraps, minimum, maximum, mask, sign)
        sums[place] = fitted
        left += np.int64(fitted != total)
        channel += further
        if channel >= channels:
            channel -= channels
    left = block_sum(left)
    if cuda.threadIdx.x == 0 and left > 0:
        cuda.atomic.add(found, 1, left)


def add_bias(
    sums: Any, bias: Any, wraps: bool, minimum: int, maximum: int, mask: int, sign: int, one: int = 1  # noqa: ARG001
) -> int:  # fmt: skip
    """Do what :func:`intnet.kernels.plain.combine.add_bias` does; `one` is not looked at."""
    if not sums.size:
        return 0
    found, bias, sums = zeros(2, np.int64), flat(bias), flat(sums)
    word = bool(wraps), int(minimum), int(maximum), int(mask), int(sign)
    _find_large(bias.size, bias, found)
    _add_bias(sums.size, sums, bias, sums.size, bias.size, *word, found)
    large, left = to_host(found)
    return -1 if large else int(left)


@jit
def add_into_word(value, added, minimum, maximum, word_bits, saturates):
    """Return the sum in the accumulator, wrapped or saturated, and whether it lay outside, for numbers of any size."""
    beyond = np.int64(0)
    if add_leaves_int64(value, added):
        beyond = np.int64(1) if added > 0 else np.int64(-1)
    return bring_into_word(beyond, add_wrap(value, added), minimum, maximum, word_bits, saturates)


_OF_BIASES = "int64[::1], int64, int64, int64, int64, int64, int64, boolean, int64[::1]"


@kernel(f"int32[::1], {_OF_BIASES}", f"int64[::1], {_OF_BIASES}")
def _add_bias_any(sums, bias, size, channels, rows_per_group, minimum, maximum, word_bits, saturates, found):
    first, stride, part = cuda.grid(1), cuda.gridsize(1), rows_per_group * channels
    group, groups = first // part, stride // part
    rest, rests = first - group * part, stride - groups * part  # of the group
    channel, further = first % channels, stride % channels
    left = np.int64(0)
    for i in range(first, size, stride):
        place = np.uint64(i)
        word, outside = add_into_word(sums[place], bias[group * channels + channel], minimum, maximum, word_bits, saturates)
        sums[place] = word
        left += np.int64(outside)
        group, rest, channel = group + groups, rest + rests, channel + further
        if rest >= part:
            group, rest = group + 1, rest - part
        if channel >= channels:
            channel -= channels
    left = block_sum(left)
    if cuda.threadIdx.x == 0 and left > 0:
        cuda.atomic.add(found, 0, left)


def add_bias_any(
    sums: Any, bias: Any, rows_per_group: int, minimum: int, maximum: int, word_bits: int, saturates: bool
) -> int:  # fmt: skip
    """Do what :func:`intnet.kernels.plain.combine.add_bias_any` does."""
    size, channels = sums.size, bias.shape[1]
    if not size:
        return 0
    found, word = zeros(1, np.int64), (int(minimum), int(maximum), int(word_bits), bool(saturates))
    _add_bias_any(size, flat(sums), flat(bias), size, channels, int(rows_per_group), *word, found)
    return int(to_host(found)[0])
