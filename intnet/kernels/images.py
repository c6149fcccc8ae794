"""Batches of images out of a data set of bytes, shared among threads, and random crops and flips of them."""

import numpy as np
from numpy.typing import NDArray

from intnet.kernels import _parallel
from intnet.kernels.place import gpu, on_device
from intnet.kernels.plain import images as plain
from intnet.kernels.product import Integers
from intnet.random import sequence_words

Codes = NDArray[np.uint8]
Int64s = NDArray[np.int64]

_WORTH_A_THREAD = 1 << 16  # values


def gather(codes: Codes, rows: Int64s, table: Integers) -> Integers:
    """Return ``table[f % channels, codes[rows[i], f]]`` for every sample i of a batch and every feature f.

    Parameters
    ----------
    codes : (samples, features) C-contiguous uint8
    rows : (batch,) int64, 0..samples - 1
    table : (channels, 256) C-contiguous integers
        What the codes mean: one row for all features, or one for each channel, features being a multiple of the channels.

    Returns
    -------
    (batch, features) of the type of `table`
    """
    if on_device(codes):
        return gpu().gather(codes, rows, table)
    out: Integers = np.empty((len(rows), codes.shape[1]), table.dtype)
    flat, channels = table.reshape(-1), len(table)
    _parallel.run(
        lambda first, last: plain.gather(codes, rows[first:last], flat, channels, out[first:last]),
        _parallel.pieces_of(len(rows), minimum=max(1, _WORTH_A_THREAD // max(1, out.shape[1]))),
    )
    return out


def gather_augmented(
    codes: Codes,
    rows: Int64s,
    shape: tuple[int, int, int],
    table: Integers,
    tops: Int64s,
    lefts: Int64s,
    flips: NDArray[np.uint8] | NDArray[np.bool_],
    padding: int,
    fill_code: int,
) -> Integers:
    """Return crops of padded images, some of them flipped left to right, looked up in a table.

    Parameters
    ----------
    codes : (samples, height * width * channels) C-contiguous uint8
    rows : (batch,) int64, 0..samples - 1
    shape : (int, int, int)
        Height, width and channels of an image.
    table : (1 or channels, 256) C-contiguous integers
        What the codes mean, for all channels or for each.
    tops, lefts : (batch,) int64, 0..2 * padding
        Where the crop, of the size of the image, begins in the image padded on all sides; `padding` is the middle.
    flips : (batch,) bool or uint8
        Whether the crop is flipped.
    padding : int
        Pixels.
    fill_code : int, 0..255
        The code of every channel of the padding.

    Returns
    -------
    (batch, height * width * channels) of the type of `table`
        Images of (height, width, channels) in C order.
    """
    flips = flips.view(np.uint8)
    if on_device(codes):
        return gpu().gather_augmented(codes, rows, shape, table, (tops, lefts, flips), padding, fill_code)
    out: Integers = np.empty((len(rows), codes.shape[1]), table.dtype)
    flat = table.reshape(-1)

    def piece(first: int, last: int) -> None:
        part = slice(first, last)
        moved = tops[part], lefts[part], flips[part]
        plain.gather_augmented(codes, rows[part], shape, flat, len(table), *moved, padding, fill_code, out[part])

    _parallel.run(piece, _parallel.pieces_of(len(rows), minimum=max(1, _WORTH_A_THREAD // max(1, out.shape[1]))))
    return out


def draw_augmentation(count: int, padding: int, seed: int, stream: int, step: int) -> tuple[Int64s, Int64s, NDArray[np.uint8]]:
    """Draw crops and flips for a batch, for :func:`gather_augmented`.

    Image i of the batch takes the 62 bits of element i of the sequence, see :mod:`intnet.random`: the upper 31 choose the
    top, the next 30 the left, the last the flip. An offset of n = 2 padding + 1 is ``bits * n / 2**31`` (or 2**30), cut: each
    has a probability within ``2**-30`` of 1 / n.

    Parameters
    ----------
    count : int
    padding : int, 0..2**29 - 1
    seed, stream, step : int

    Returns
    -------
    tops, lefts : (count,) int64, 0..2 * padding
    flips : (count,) uint8, 0 or 1
    """
    tops, lefts, flips = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.uint8)
    plain.draw_augmentation(*sequence_words(seed, stream, step), np.int64(padding), tops, lefts, flips)
    return tops, lefts, flips
