"""Pooling on the device: the largest of a window, or its sum. Images are ``(n, height, width, channels)``.

A block of threads takes a line of pixels after the other, its threads the values side by side. Backward, a line is one of the
gradient of the input, to which every value adds what the windows that contain it have; so no two threads add to one place.
"""

import numpy as np

from intnet.arithmetic import wrap
from intnet.kernels.cuda._driver import THREADS, cuda, kernel

_TYPES = ("int8", "int16", "int32", "int64")
_SUMS = ("int32", "int64")
_WINDOW = "int64, int64, int64, int64, int64, int64"


@kernel(*(f"{kind}[:, :, :, ::1], {_WINDOW}, {kind}[:, :, :, ::1], int32[:, :, :, ::1]" for kind in _TYPES))
def _max_pool(x, window_y, window_x, stride_y, stride_x, top, left, out, places):
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    step, step_c = cuda.blockDim.x // channels, cuda.blockDim.x % channels
    for line in range(cuda.blockIdx.x, out.shape[0] * out.shape[1], cuda.gridDim.x):
        b = line // out.shape[1]
        i = line - b * out.shape[1]
        first_row = i * stride_y - top
        begin_row, end_row = max(first_row, 0), min(first_row + window_y, height)
        j, c = np.int64(cuda.threadIdx.x // channels), np.int64(cuda.threadIdx.x % channels)
        while j < out.shape[2]:
            first_column = j * stride_x - left
            begin_column, end_column = max(first_column, 0), min(first_column + window_x, width)
            largest, place = x[b, begin_row, begin_column, c], begin_row * width + begin_column
            for row in range(begin_row, end_row):
                for column in range(begin_column, end_column):
                    value = x[b, row, column, c]
                    if value > largest:
                        largest, place = value, row * width + column
            out[b, i, j, c] = largest
            places[b, i, j, c] = place
            j, c = j + step, c + step_c
            if c >= channels:
                j, c = j + np.int64(1), c - channels


def _signatures(sums):
    return (f"{kind}[:, :, :, ::1], int32[:, :, :, ::1], {out}[:, :, ::1]" for kind in _TYPES for out in sums)


@kernel(*_signatures(_TYPES))
def _max_pool_backward(dy, places, out):
    """Add where no two windows overlap."""
    channels = dy.shape[3]
    step, step_c = cuda.blockDim.x // channels, cuda.blockDim.x % channels
    for line in range(cuda.blockIdx.x, dy.shape[0] * dy.shape[1], cuda.gridDim.x):
        b = line // dy.shape[1]
        i = line - b * dy.shape[1]
        j, c = np.int64(cuda.threadIdx.x // channels), np.int64(cuda.threadIdx.x % channels)
        while j < dy.shape[2]:
            place = places[b, i, j, c]
            out[b, place, c] = np.int64(out[b, place, c]) + np.int64(dy[b, i, j, c])
            j, c = j + step, c + step_c
            if c >= channels:
                j, c = j + np.int64(1), c - channels


@kernel(*_signatures(_SUMS))
def _max_pool_backward_atomic(dy, places, out):
    """Add where windows may overlap."""
    channels = dy.shape[3]
    step, step_c = cuda.blockDim.x // channels, cuda.blockDim.x % channels
    for line in range(cuda.blockIdx.x, dy.shape[0] * dy.shape[1], cuda.gridDim.x):
        b = line // dy.shape[1]
        i = line - b * dy.shape[1]
        j, c = np.int64(cuda.threadIdx.x // channels), np.int64(cuda.threadIdx.x % channels)
        while j < dy.shape[2]:
            cuda.atomic.add(out, (b, places[b, i, j, c], c), out.dtype.type(dy[b, i, j, c]))
            j, c = j + step, c + step_c
            if c >= channels:
                j, c = j + np.int64(1), c - channels


@kernel(*_signatures(("int8", "int16")))
def _max_pool_backward_in_turn(dy, places, out):
    """Add where windows may overlap and words are too narrow for atomic additions: a thread an image and a channel."""
    channels = dy.shape[3]
    for unit in range(cuda.grid(1), dy.shape[0] * channels, cuda.gridsize(1)):
        b, c = unit // channels, unit % channels
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                place = places[b, i, j, c]
                total = np.int64(out[b, place, c]) + np.int64(dy[b, i, j, c])
                out[b, place, c] = wrap(total, np.int64(8) * np.int64(out.itemsize))


@kernel(*(f"{a}[:, :, :, ::1], {_WINDOW}, {b}[:, :, :, ::1]" for a in _TYPES for b in _SUMS))
def _sum_pool(x, window_y, window_x, stride_y, stride_x, top, left, out):
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    step, step_c = cuda.blockDim.x // channels, cuda.blockDim.x % channels
    for line in range(cuda.blockIdx.x, out.shape[0] * out.shape[1], cuda.gridDim.x):
        b = line // out.shape[1]
        i = line - b * out.shape[1]
        first_row = i * stride_y - top
        begin_row, end_row = max(first_row, 0), min(first_row + window_y, height)
        j, c = np.int64(cuda.threadIdx.x // channels), np.int64(cuda.threadIdx.x % channels)
        while j < out.shape[2]:
            first_column = j * stride_x - left
            begin_column, end_column = max(first_column, 0), min(first_column + window_x, width)
            total = np.int64(out[b, i, j, c])
            for row in range(begin_row, end_row):
                for column in range(begin_column, end_column):
                    total += np.int64(x[b, row, column, c])
            out[b, i, j, c] = total
            j, c = j + step, c + step_c
            if c >= channels:
                j, c = j + np.int64(1), c - channels


@cuda.jit(device=True)
def _first_window(place, window, stride):
    """Return the first window along an axis that may contain a place, counted from the padding on."""
    return np.int64(0) if place < window else (place - window) // stride + np.int64(1)


@cuda.jit(device=True)
def _last_window(place, stride, windows):
    """Return the last window along an axis that begins at a place or before."""
    return min(place // stride, np.int64(windows) - np.int64(1))


@kernel(*(f"{a}[:, :, :, ::1], {_WINDOW}, {b}[:, :, :, ::1]" for a in _TYPES for b in _SUMS))
def _sum_pool_backward(dy, window_y, window_x, stride_y, stride_x, top, left, out):
    height, width, channels = out.shape[1], out.shape[2], out.shape[3]
    step, step_c = cuda.blockDim.x // channels, cuda.blockDim.x % channels
    for line in range(cuda.blockIdx.x, out.shape[0] * height, cuda.gridDim.x):
        b = line // height
        row = line - b * height
        begin_i, end_i = _first_window(row + top, window_y, stride_y), _last_window(row + top, stride_y, dy.shape[1]) + 1
        column, c = np.int64(cuda.threadIdx.x // channels), np.int64(cuda.threadIdx.x % channels)
        while column < width:
            begin_j = _first_window(column + left, window_x, stride_x)
            end_j = _last_window(column + left, stride_x, dy.shape[2]) + 1
            total = np.int64(out[b, row, column, c])
            for i in range(begin_i, end_i):
                for j in range(begin_j, end_j):
                    total += np.int64(dy[b, i, j, c])
            out[b, row, column, c] = total
            column, c = column + step, c + step_c
            if c >= channels:
                column, c = column + np.int64(1), c - channels


# The names and arguments of ``plain.pooling``.


def max_pool(x, window, stride, padding, out, places):
    """Take the largest value of every window, and remember where it stands."""
    how = _geometry(window, stride, padding)
    _max_pool(out.shape[0] * out.shape[1] * THREADS if out.size else 0, x, *how, out, places)


def max_pool_backward(dy, places, out, overlapping=True):
    """Add every gradient to the pixel that its window's largest value came from.

    Without overlapping windows no two gradients go to one pixel; this is faster, and for int8 and int16 much so.
    """
    lines = dy.shape[0] * dy.shape[1] * THREADS if dy.size else 0
    if not overlapping:
        _max_pool_backward(lines, dy, places, out)
    elif out.dtype.itemsize >= 4:
        _max_pool_backward_atomic(lines, dy, places, out)
    else:
        _max_pool_backward_in_turn(dy.shape[0] * dy.shape[3] if dy.size else 0, dy, places, out)


def sum_pool(x, window, stride, padding, out):
    """Add up every window."""
    how = _geometry(window, stride, padding)
    _sum_pool(out.shape[0] * out.shape[1] * THREADS if out.size else 0, x, *how, out)


def sum_pool_backward(dy, window, stride, padding, out):
    """Add every gradient to all pixels of its window: the transpose of `sum_pool`."""
    how = _geometry(window, stride, padding)
    _sum_pool_backward(out.shape[0] * out.shape[1] * THREADS if out.size and dy.size else 0, dy, *how, out)


def _geometry(window, stride, padding):
    return tuple(np.int64(number) for number in (*window, *stride, padding[0], padding[2]))
