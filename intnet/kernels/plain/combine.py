"""Linear combinations of integer tensors with exponents of their own, their quotients, and biases added to sums."""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import add_leaves_int64, add_wrap, divide_sticky, scale
from intnet.kernels.plain.product import bring_into_word
from intnet.kernels.plain.requantize import extent, fit, load, magnitude_bits

_WINDOW = 1024  # elements at a time: what is made for them stays in the first-level cache
_BIAS_RUN = 512  # elements that `add_bias` takes at a time, if there are fewer channels


@jit
def add_scaled(values, factor, shift, out):
    """Add ``values * factor * 2**shift`` to `out`; what a right shift cuts off leaves its lowest bit set.

    Parameters
    ----------
    values : (size,) int64
    factor, shift : int64
    out : (size,) int64, added to
    """
    factor = np.int64(factor)
    if shift == 0 and factor == 1:
        for i in range(out.shape[0]):
            out[i] += values[i]
        return
    left, right = min(max(shift, np.int64(0)), np.int64(63)), min(max(-shift, np.int64(0)), np.int64(63))
    for i in range(out.shape[0]):
        out[i] += scale(values[i], factor, left, right)


@jit
def linear_combination(
    terms, start, stop, data_0, width_0, factor_0, shifts_0, data_1, width_1, factor_1, shifts_1,
    data_2, width_2, factor_2, shifts_2, length, out,
):  # fmt: skip
    """Write the elements `start` to `stop` of a sum of up to three terms ``values * factor * 2**shifts`` into `out`.

    Compiled once for all types of tensors: they come as bytes.

    Parameters
    ----------
    terms : int64
        1..3; the others are not looked at.
    start, stop : int64
    data_k : (bytes,) uint8
        Signed integers of `width_k` bytes, in C order.
    factor_k : int64
    shifts_k : (1,) or (rows,) int64
        To the left, or where negative to the right. One for all, or one for each row.
    length : int64
        Elements a row, at least one.
    out : (size,) int32 or int64, written
        No product, no shifted product and no sum leaves it.
    """
    taken, made = np.empty(_WINDOW, np.int64), np.empty(_WINDOW, np.int64)
    for begin in range(start, stop, _WINDOW):
        size = min(_WINDOW, stop - begin)
        values, sums = taken[:size], made[:size]
        for i in range(sums.shape[0]):
            sums[i] = 0
        for k in range(terms):
            data = data_0 if k == 0 else data_1 if k == 1 else data_2
            width = width_0 if k == 0 else width_1 if k == 1 else width_2
            factor = factor_0 if k == 0 else factor_1 if k == 1 else factor_2
            shifts = shifts_0 if k == 0 else shifts_1 if k == 1 else shifts_2
            load(data, width, begin, values)
            if shifts.shape[0] == 1:
                add_scaled(values, factor, shifts[0], sums)
                continue
            first = np.int64(0)
            while first < size:
                row = (begin + first) // length
                last = min(size, (row + 1) * length - begin)
                add_scaled(values[first:last], factor, shifts[row], sums[first:last])
                first = last
        target = out[begin : begin + size]
        for i in range(target.shape[0]):
            target[i] = sums[i]


@jit
def divide_rows(values, divisor, out, ups):
    """Divide by an integer with all the bits that a word has room for.

    Parameters
    ----------
    values : (rows, length) int64
        Magnitudes up to ``2**62``; one element a row at least.
    divisor : int64
        At least 1.
    out : (rows, length) int64, written
        ``floor(values * 2**ups / divisor)``, the lowest bit set unless that is exact.
    ups : (rows,) int64, written
        By how many bits the largest magnitude of a row may be shifted up within 62 bits; 0 for a row of zeros.
    """
    for r in range(values.shape[0]):
        row, quotients = values[r], out[r]
        least, greatest = extent(row, row[0], row[0])
        bits = magnitude_bits(least, greatest)
        up = max(np.int64(62) - bits, np.int64(0)) if bits > 0 else np.int64(0)
        ups[r] = up
        for i in range(row.shape[0]):
            quotients[i] = divide_sticky(row[i] << up, divisor)


@jit
def add_bias(sums, bias, wraps, minimum, maximum, mask, sign, one):
    """Add a bias to every row, and bring the sums into the accumulator; return how many lay outside.

    Does nothing and returns -1 if the bias is so large that a sum might leave int64.

    Parameters
    ----------
    sums : (rows * channels,) int32 or int64, written
        Within the accumulator.
    bias : (channels,) int64
        One channel at least.
    wraps, minimum, maximum, mask, sign : bool and int64
        The accumulator, of up to 63 bits, as in :mod:`intnet.kernels.plain.requantize`.
    one : int64
        1, but not known to be: so LLVM counts by one masked addition.
    """
    channels = bias.shape[0]
    least, greatest = extent(bias, bias[0], bias[0])
    if magnitude_bits(least, greatest) > 62:  # else a sum is at most 2**62 + 2**62 - 1 in magnitude
        return np.int64(-1)
    # Rows are taken several at a time, so that the loop is long enough for vectors where there are few channels.
    tiled = np.empty(max(_BIAS_RUN // channels, 1) * channels, np.int64)
    for i in range(tiled.shape[0]):
        tiled[i] = bias[i % channels]
    left, zero = np.int64(0), np.int64(0)
    for begin in range(0, sums.shape[0], tiled.shape[0]):
        run = sums[begin : begin + tiled.shape[0]]
        for i in range(run.shape[0]):
            total = np.int64(run[i]) + tiled[i]
            fitted = fit(total, wraps, minimum, maximum, mask, sign)
            left += one if fitted != total else zero
            run[i] = fitted
    return left


@jit
def add_bias_any(sums, bias, rows_per_group, minimum, maximum, word_bits, saturates):
    """Add the bias of its group to every row, and bring the sums into the accumulator; return how many lay outside.

    This defines `add_bias`, and holds for sums and biases of any size.

    Parameters
    ----------
    sums : (rows, channels) int32 or int64, written
    bias : (groups, channels) int64
    rows_per_group : int64
        Row i has the bias ``i // rows_per_group``.
    minimum, maximum, word_bits : int64
        Of the accumulator.
    saturates : bool
        Else it wraps.
    """
    left = np.int64(0)
    for i in range(sums.shape[0]):
        row, added = sums[i], bias[i // rows_per_group]
        for c in range(row.shape[0]):
            beyond = np.int64(0)
            if add_leaves_int64(row[c], added[c]):
                beyond = np.int64(1) if added[c] > 0 else np.int64(-1)
            word, outside = bring_into_word(beyond, add_wrap(row[c], added[c]), minimum, maximum, word_bits, saturates)
            row[c] = word
            left += outside
    return left
