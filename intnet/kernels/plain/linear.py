"""Linear maps of channels: every element times a factor of its channel, plus an offset; two such terms where there are two.

A tensor is read as rows of ``lanes`` elements, a multiple of the channels, so that loops are long enough to become vectors
where there are few channels. Factors and results have one type. In int32, which is for operands of int8, a factor may be up to
``2**31``, so that nothing leaves int64; the sum is taken modulo ``2**32``, and is right where the exact result is an int32.
In int64 whoever calls has proven that nothing leaves it.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import wrap
from intnet.kernels.plain.requantize import extent, requantize


@jit
def spread(factors, lanes_of_factors):
    """Write the factors of the channels again and again, wrapped to the type they are written in.

    Parameters
    ----------
    factors : (n, channels) int64
    lanes_of_factors : (n, lanes) int32 or int64, written
    """
    bits = np.int64(8) * np.int64(lanes_of_factors.itemsize)
    for k in range(factors.shape[0]):
        of_channels, lanes = factors[k], lanes_of_factors[k]
        for i in range(of_channels.size):
            lanes[i] = wrap(of_channels[i], bits)
        for i in range(of_channels.size, lanes.size):
            lanes[i] = lanes[i - of_channels.size]


@jit
def multiply_add(a, b, factors, out):
    """Write ``factor_a * a + factor_b * b + offset`` of every element; return the least and the greatest result.

    With None for `b`, there is no second term.

    Parameters
    ----------
    a, b : (size,) integers
        Some rows of a tensor in C order, one at least.
    factors : (2 or 3, lanes) int32 or int64
        Of `a`, of `b`, and the offsets.
    out : (size,) of the type of `factors`, written
    """
    lanes = factors.shape[1]
    low = high = out[0]
    for place in range(0, a.size, lanes):
        stop = min(place + lanes, a.size)
        row, target = a[place:stop], out[place:stop]
        if b is None:
            multiply_add_row(row, row, factors, False, factors.itemsize == 4, target)
        else:
            multiply_add_row(row, b[place:stop], factors, True, factors.itemsize == 4, target)
        if place == 0:
            low = high = target[0]
        low, high = extent(target, low, high)
    return low, high


@jit
def multiply_add_row(a, b, factors, both, narrow, out):
    """Do one row of lanes, which may be cut short, of `multiply_add`; `narrow` if results are int32."""
    word = np.int64(32)
    first, last = factors[0], factors[factors.shape[0] - 1]
    if both and narrow:
        second = factors[1]
        for i in range(out.size):
            product = np.int64(first[i]) * np.int64(a[i]) + np.int64(second[i]) * np.int64(b[i])
            out[i] = wrap(product + np.int64(last[i]), word)
    elif both:
        second = factors[1]
        for i in range(out.size):
            out[i] = np.int64(first[i]) * np.int64(a[i]) + np.int64(second[i]) * np.int64(b[i]) + np.int64(last[i])
    elif narrow:
        for i in range(out.size):
            out[i] = wrap(np.int64(first[i]) * np.int64(a[i]) + np.int64(last[i]), word)
    else:
        for i in range(out.size):
            out[i] = np.int64(first[i]) * np.int64(a[i]) + np.int64(last[i])


@jit
def extremes_of_map(a, b, factors, products):
    """Return what `multiply_add` returns, without keeping the results.

    Parameters
    ----------
    a, b, factors : as in `multiply_add`
    products : (lanes,) of the type of `factors`, written
    """
    lanes = factors.shape[1]
    low, high = multiply_add(a[:lanes], None if b is None else b[:lanes], factors, products)
    for place in range(lanes, a.size, lanes):
        stop = min(place + lanes, a.size)
        some = multiply_add(a[place:stop], None if b is None else b[place:stop], factors, products)
        low, high = min(low, some[0]), max(high, some[1])
    return low, high


@jit
def multiply_add_requantize(
    a, b, factors, start, stop, shift, mode, wraps, minimum, maximum, mask, sign, sequence, random_bits,
    products, products_bytes, out, out_bytes, counters,
):  # fmt: skip
    """Do what `multiply_add` and :func:`intnet.kernels.plain.requantize.requantize` do, window by window.

    Parameters
    ----------
    a, b, factors : as in `multiply_add`; whole tensors
    start, stop : int64
        The elements to do; `start` begins a row of channels.
    shift, mode, wraps, minimum, maximum, mask, sign, sequence, random_bits, counters : as in `requantize`
    products, products_bytes : (window,) of the type of `factors`, and the same memory as uint8, written
        Whole rows of lanes.
    out, out_bytes : (size,) integers, and the same memory as uint8, written
    """
    lanes, width = factors.shape[1], np.int64(out.itemsize)
    shifts = np.empty((1, 1, 1), np.int64)
    shifts[0, 0, 0] = shift
    for begin in range(start, stop, products.size):
        end = min(begin + products.size, stop)
        for place in range(begin, end, lanes):
            last = min(place + lanes, end)
            row, target = a[place:last], products[place - begin : last - begin]
            if b is None:
                multiply_add_row(row, row, factors, False, factors.itemsize == 4, target)
            else:
                multiply_add_row(row, b[place:last], factors, True, factors.itemsize == 4, target)
        requantize(
            products_bytes, np.int64(factors.itemsize), out_bytes[begin * width : end * width], width, np.int64(0),
            end - begin, shifts, end - begin, mode, wraps, minimum, maximum, mask, sign, sequence, begin, random_bits, counters,
        )  # fmt: skip
