"""Reductions, exact: in words of 64 bits where a bound proves that nothing leaves them, by words of 32 bits elsewhere."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from intnet.kernels import _parallel
from intnet.kernels.place import gpu, on_device
from intnet.kernels.plain import reduce as plain
from intnet.kernels.product import Integers, largest_magnitude, largest_of_type

Int64s = NDArray[np.int64]

_PIECE = 2**19  # elements worth a thread


def extremes(x: Integers) -> tuple[int, int]:
    """Return the least and the largest of one or more integers.

    Parameters
    ----------
    x : C-contiguous integers, any shape, not empty

    Returns
    -------
    (int, int)
    """
    if on_device(x):
        return gpu().extremes(x)
    flat = x.reshape(-1)
    if flat.size < 2 * _PIECE:
        least, largest = plain.extremes(flat)
        return int(least), int(largest)
    bounds = _parallel.run(lambda first, last: plain.extremes(flat[first:last]), _parallel.pieces_of(flat.size, minimum=_PIECE))
    return min(int(least) for least, _ in bounds), max(int(largest) for _, largest in bounds)


def max_magnitude(x: Integers) -> int:
    """Return the largest magnitude of an integer array, 0 if it is empty.

    Parameters
    ----------
    x : C-contiguous integers, any shape

    Returns
    -------
    int
        Up to ``2**63``, so no int64.
    """
    if not x.size:
        return 0
    least, largest = extremes(x)
    return max(-least, largest)


def count_filled(x: Integers) -> int:
    """Return how many integers are not zero."""
    return int(gpu().count_filled(x) if on_device(x) else np.count_nonzero(x))


def count_unmoved(moves: Sequence[Integers], before: Integers, after: Integers) -> int:
    """Return in how many places one of up to two moves is not zero, and `after` equals `before`; all of one shape."""
    if on_device(before):
        return int(gpu().count_unmoved(moves, before, after)) if before.size else 0
    moving = np.zeros(before.shape, bool)
    for move in moves:
        moving |= move != 0
    return int(np.count_nonzero(moving & (before == after)))


def sum_axes(x: Integers, first: int, last: int) -> tuple[Int64s, int]:
    """Add up neighbouring axes.

    Parameters
    ----------
    x : C-contiguous integers
    first, last : int
        Axes `first` to ``last - 1`` are added up: 0 to 3 of images for one sum a channel, 1 to 3 for global average
        pooling.

    Returns
    -------
    sums : int64, the shape of `x` without these axes
        Modulo ``2**64``.
    left : int
        How many exact sums lay outside int64.
    """
    shape = x.shape[:first] + x.shape[last:]
    outer, size, inner = (int(np.prod(part, dtype=np.int64)) for part in (x.shape[:first], x.shape[first:last], x.shape[last:]))
    sums, left = sum_by_words(lambda values: _sum_axis(values.reshape(-1), outer, size, inner), x, size)
    return sums.reshape(shape), left


def sum_by_words(add: Callable[[Integers], Int64s], x: Integers, terms: int) -> tuple[Int64s, int]:
    """Apply a kernel that adds up to `terms` values, by words where its int64 sums might overflow.

    Parameters
    ----------
    add : function of an integer array of the shape of `x` that returns C-contiguous int64
        Linear, modulo ``2**64``; no sum has more than `terms` terms, at most ``2**31``.
    x : C-contiguous integers

    Returns
    -------
    sums : int64
        Modulo ``2**64``.
    left : int
        How many exact sums lay outside int64.
    """
    if largest_of_type(x) * terms < 2**63 or largest_magnitude(x) * terms < 2**63:
        return add(x), 0
    if on_device(x):
        high, low = gpu().split_words(x)
        return gpu().join_sums(add(high), add(low))
    high, low = np.empty(x.shape, np.int64), np.empty(x.shape, np.int64)
    plain.split_words(x.reshape(-1), high.reshape(-1), low.reshape(-1))
    high, low = add(high), add(low)
    sums: Int64s = np.empty(high.shape, np.int64)
    return sums, int(plain.join_sums(high.reshape(-1), low.reshape(-1), sums.reshape(-1)))


def _sum_axis(x: Integers, outer: int, size: int, inner: int) -> Int64s:
    """Add up the middle axis of three, modulo ``2**64``."""
    if on_device(x):
        return gpu().sum_axis(x, outer, size, inner)
    if outer != 1:
        out: Int64s = np.empty((outer, inner), np.int64)
        row = size * inner
        _parallel.run(
            lambda first, last: plain.sum_axis(x[first * row : last * row], size, out[first:last]),
            _parallel.pieces_of(outer, minimum=max(1, 2**17 // max(1, row))),
        )
        return out

    def add(first: int, last: int) -> Int64s:
        part: Int64s = np.empty((1, inner), np.int64)
        plain.sum_axis(x[first * inner : last * inner], last - first, part)
        return part

    parts = _parallel.run(add, _parallel.pieces_of(size, minimum=max(1, 2**17 // max(1, inner))))
    return sum(parts, np.zeros((1, inner), np.int64))


def moments(x: Integers) -> tuple[Int64s, Int64s, int]:
    """Add up the values of every channel, and their squares, for batch normalization.

    Parameters
    ----------
    x : (..., channels) C-contiguous integers

    Returns
    -------
    sums, squares : (channels,) int64
        Modulo ``2**64``.
    left : int
        How many exact sums lay outside int64.
    """
    channels = x.shape[-1]
    rows = x.size // channels if channels else 0
    x = x.reshape(rows, channels)
    if largest_of_type(x) ** 2 * rows >= 2**63 and largest_magnitude(x) ** 2 * rows >= 2**63:
        sums, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
        return sums, squares, int(plain.moments_by_words(x, sums, squares))

    def add(first: int, last: int) -> Int64s:
        out = np.zeros((2, channels), np.int64)
        plain.moments(x[first:last], out[0], out[1])
        return out

    parts = _parallel.run(add, _parallel.pieces_of(rows, minimum=max(1, 2**17 // max(1, channels))))
    total = sum(parts, np.zeros((2, channels), np.int64))
    return total[0], total[1], 0


def argmax_rows(x: Integers) -> Int64s:
    """Return where the first of the largest values of every row stands.

    Parameters
    ----------
    x : (rows, columns) C-contiguous integers, one column at least

    Returns
    -------
    (rows,) int64
    """
    if on_device(x):
        return gpu().argmax_rows(x)
    out: Int64s = np.empty(x.shape[0], np.int64)
    plain.argmax_rows(x, out)
    return out
