"""Batches of images out of a data set of bytes on the device: looked up in a table, cropped and flipped.

A block of threads takes a line of values after the other, its threads the values side by side: so the place in a line and
its channel follow from those before, without a division.
"""

import numpy as np

from intnet.arithmetic import choose
from intnet.kernels.cuda._driver import THREADS, cuda, kernel
from intnet.kernels.plain.images import DRAWN_BITS
from intnet.random import random_fraction

_TYPES = ("int8", "int16", "int32", "int64")


@kernel(*(f"uint8[:, ::1], int64[::1], {kind}[::1], int64, {kind}[:, ::1]" for kind in _TYPES))
def _gather(codes, rows, table, channels, out):
    step = cuda.blockDim.x % channels
    for i in range(cuda.blockIdx.x, out.shape[0], cuda.gridDim.x):
        row, c = rows[i], np.int64(cuda.threadIdx.x % channels)
        for f in range(cuda.threadIdx.x, out.shape[1], cuda.blockDim.x):
            out[i, f] = table[np.uint64((c << np.int64(8)) + np.int64(codes[row, f]))]
            c += step
            if c >= channels:
                c -= channels


@kernel(
    *(
        f"uint8[:, ::1], int64[::1], int64, int64, int64, {kind}[::1], int64, "
        f"int64[::1], int64[::1], uint8[::1], int64, int64, {kind}[:, ::1]"
        for kind in _TYPES
    )
)
def _gather_augmented(
    codes, rows, height, width, channels, table, stride, tops, lefts, flips, padding, fill_code, out
):  # fmt: skip
    """Look a line of pixels up after the other; a table of one channel has a `stride` of 0, else of 256."""
    step, step_c = cuda.blockDim.x // channels, cuda.blockDim.x % channels
    begin, begin_c = cuda.threadIdx.x // channels, cuda.threadIdx.x % channels
    for line in range(cuda.blockIdx.x, out.shape[0] * height, cuda.gridDim.x):
        i = line // height
        y = line - i * height
        source, row = rows[i], y + tops[i] - padding
        inside, flip, left = 0 <= row < height, flips[i] != 0, lefts[i] - padding
        x, c = np.int64(begin), np.int64(begin_c)
        while x < width:
            column = (width - np.int64(1) - x if flip else x) + left
            code = fill_code
            if inside and 0 <= column < width:
                code = np.int64(codes[source, (row * width + column) * channels + c])
            out[i, (y * width + x) * channels + c] = table[np.uint64(c * stride + code)]
            x += step
            c += step_c
            if c >= channels:
                x, c = x + np.int64(1), c - channels


@kernel("uint64, uint64, uint64, uint64, int64, int64[::1], int64[::1], uint8[::1]")
def _draw_augmentation(key_0, key_1, stream, step, padding, tops, lefts, flips):
    offsets = padding + padding + np.int64(1)
    for i in range(cuda.grid(1), tops.size, cuda.gridsize(1)):
        bits = np.int64(random_fraction(key_0, key_1, stream, step, np.int64(i), DRAWN_BITS))
        tops[i] = choose(bits >> np.int64(31), 31, offsets)
        lefts[i] = choose((bits >> np.int64(1)) & np.int64(2**30 - 1), 30, offsets)
        flips[i] = np.uint8(bits & np.int64(1))


def gather(codes, rows, table, channels, out):
    """Write ``table[f % channels, codes[rows[i], f]]`` into ``out[i, f]``."""
    _gather(out.shape[0] * THREADS, codes, rows, table, np.int64(channels), out)


def gather_augmented(codes, rows, shape, table, table_channels, tops, lefts, flips, padding, fill_code, out):
    """Write crops of padded images, some of them flipped left to right, looked up in a table, into `out`."""
    height, width, channels = (np.int64(size) for size in shape)
    moved = tops, lefts, flips, np.int64(padding), np.int64(fill_code)
    stride = np.int64(256 if table_channels > 1 else 0)
    lines = out.shape[0] * int(height)
    _gather_augmented(lines * THREADS, codes, rows, height, width, channels, table, stride, *moved, out)


def draw_augmentation(key_0, key_1, stream, step, padding, tops, lefts, flips):
    """Write random offsets and flips; element i takes the 62 bits of element i of the sequence."""
    _draw_augmentation(tops.size, key_0, key_1, stream, step, np.int64(padding), tops, lefts, flips)
