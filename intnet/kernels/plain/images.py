"""Batches of images out of a data set of bytes: looked up in a table, cropped and flipped."""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import choose
from intnet.random import random_fraction

DRAWN_BITS = 62  # of an image: 31 for the top, 30 for the left, 1 for the flip


@jit
def gather(codes, rows, table, channels, out):
    """Write ``table[f % channels, codes[rows[i], f]]`` into ``out[i, f]``.

    Parameters
    ----------
    codes : (samples, features) uint8
    rows : (batch,) int64
    table : (channels * 256,) integers
    channels : int64
        Features are a multiple of it.
    out : (batch, features) of the type of `table`, written
    """
    pixels = codes.shape[1] // channels
    taken = np.empty((out.shape[0], codes.shape[1]), np.uint8)  # first, so that many rows are on their way from memory at once
    for i in range(out.shape[0]):
        source, row = codes[rows[i]], taken[i]
        for f in range(np.uint64(row.shape[0])):
            row[f] = source[f]
    for i in range(out.shape[0]):
        source, target = taken[i], out[i]
        if channels == 1:
            for f in range(np.uint64(target.shape[0])):
                target[f] = table[np.uint64(source[f])]
            continue
        for pixel in range(np.uint64(pixels)):
            place = pixel * np.uint64(channels)
            for c in range(np.uint64(channels)):
                target[place + c] = table[(c << np.uint64(8)) + np.uint64(source[place + c])]


@jit
def gather_augmented(codes, rows, shape, table, table_channels, tops, lefts, flips, padding, fill_code, out):
    """Write crops of padded images, some of them flipped left to right, looked up in a table, into `out`.

    Parameters
    ----------
    codes : (samples, height * width * channels) uint8
    rows : (batch,) int64
    shape : (int64, int64, int64)
        Height, width and channels.
    table : (table_channels * 256,) integers
        For one channel, or for each.
    tops, lefts : (batch,) int64, 0..2 * padding
        Where the crop begins in the image padded on all sides by `padding` pixels of the code `fill_code`.
    flips : (batch,) uint8
    padding, fill_code : int64
    out : (batch, height * width * channels) of the type of `table`, written
    """
    height, width, channels = shape
    stride = np.int64(256 if table_channels > 1 else 0)
    for i in range(out.shape[0]):
        source, target = codes[rows[i]], out[i]
        for y in range(height):
            row = y + tops[i] - padding
            inside = 0 <= row < height
            for x in range(width):
                column = (width - 1 - x if flips[i] != 0 else x) + lefts[i] - padding
                place = (y * width + x) * channels
                if inside and 0 <= column < width:
                    pixel = (row * width + column) * channels
                    for c in range(channels):
                        target[place + c] = table[c * stride + np.int64(source[pixel + c])]
                else:
                    for c in range(channels):
                        target[place + c] = table[c * stride + fill_code]


@jit
def draw_augmentation(key_0, key_1, stream, step, padding, tops, lefts, flips):
    """Write random offsets and flips; element i takes the 62 bits of element i of the sequence.

    Parameters
    ----------
    key_0, key_1, stream, step : uint64
    padding : int64, below 2**29
    tops, lefts : (count,) int64, written
        0..2 * padding.
    flips : (count,) uint8, written
        0 or 1.
    """
    offsets = padding + padding + np.int64(1)
    for i in range(tops.shape[0]):
        bits = random_fraction(key_0, key_1, stream, step, np.int64(i), DRAWN_BITS)
        tops[i] = choose(bits >> np.int64(31), 31, offsets)
        lefts[i] = choose((bits >> np.int64(1)) & np.int64(2**30 - 1), 30, offsets)
        flips[i] = bits & np.int64(1)
