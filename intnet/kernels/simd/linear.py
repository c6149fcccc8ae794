"""Linear maps of tensors, rounded at once in lanes of int32: see :mod:`intnet.kernels.plain.linear`, which defines them."""

import numpy as np

from intnet._compile import jit
from intnet.kernels.plain.linear import multiply_add_row
from intnet.kernels.simd.requantize import count_seen, new_seen, round_window


@jit
def multiply_add_round(a, b, factors, start, stop, shift, role, key_0, key_1, step, products, out, counters):
    """Do what :func:`intnet.kernels.plain.linear.multiply_add_requantize` does, where all results are int32.

    Parameters
    ----------
    a, b, factors, out, counters : as there; `factors` int32
    start, stop : int64
        The elements to do; `start` begins a row of channels, whose number is a multiple of four.
    shift, role, key_0, key_1, step : as in :func:`intnet.kernels.simd.requantize.round_window`
    products : (lanes,) int32, written
    """
    lanes, seen = factors.shape[1], new_seen()
    made, room = np.empty(lanes, np.int32), np.empty((lanes + 3) & -4, np.uint32)
    for begin in range(start, stop, lanes):
        size = min(lanes, stop - begin)
        row, exact, fitted, target = a[begin : begin + size], products[:size], made[:size], out[begin : begin + size]
        if b is None:
            multiply_add_row(row, row, factors, False, True, exact)
        else:
            multiply_add_row(row, b[begin : begin + size], factors, True, True, exact)
        round_window(exact, fitted, shift, role, key_0, key_1, step, begin, room, seen)
        for i in range(size):
            target[i] = fitted[i]
    count_seen(counters, role, seen)
