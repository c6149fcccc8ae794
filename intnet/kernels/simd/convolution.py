"""Convolutions at the rate of the matrix product: windows are rows of its left operand, where they lie.

Images lie with their channels last, ``(n, height, width, channels)``, weights as ``(out channels, kernel height, kernel
width, channels of a group)``. So a window, all that one output sees, is a few contiguous runs of memory, one a kernel row,
and the elements that a word of the tiles holds lie side by side in it. A cache full of lines of the images is written out
with its zero padding (:mod:`intnet.kernels.simd.lines`); the tiles find the windows in it by their places, and write every
result to its own. The weights of an output channel are a column of the right operand, packed.

    forward            y = windows(x) . weights'       a row an output pixel, a column an output channel
    backward, input    dx = windows(dy) . weights      stride s leaves s * s phases of input pixels, each seen by the kernel
                                                       taps of its own phase: a convolution of stride 1 each

The backward pass of the weights is in :mod:`intnet.kernels.simd.convolution_weights`. Everything is exact modulo the word of
the result.
"""

import numpy as np

from intnet._compile import jit
from intnet.kernels import _parallel
from intnet.kernels.simd.lines import lines_of, pad_lines, places_of
from intnet.kernels.simd.product import _padded, pack_b, packed_type
from intnet.kernels.tiles import (
    LANES,
    MAX_VECTORS,
    ROW_BLOCK,
    ROWS,
    scattered_tile_1,
    scattered_tile_2,
    scattered_tile_3,
    scattered_tile_4,
)

_GAP = 64  # bytes between packed rows: rows a power of two apart would compete for the same places of the cache
_OFFSET = 128  # of unsigned bytes on the left, as in the product
_HEIGHTS = (0, ROWS[1], ROWS[2], ROWS.get(3, 1), ROWS.get(4, 1))  # of a tile, by its vectors
_DEPTH = 2**14  # bytes of a window that are packed together, more if one kernel row has more
_LINES = 2**16  # bytes of padded lines that are worked on together
_WINDOWS = 4096  # and at most so many windows, if a line has no more


# 1. Kernels --------------------------------------------------------------------------------------------------------------


@jit
def convolve_lines(
    source, image, taps, grid, first, last, lines_at_once, flip, offset, padded, left, steps, words, sums, n, width, place,
    channel, add, c,
):  # fmt: skip
    """Multiply the windows of lines `first` to `last` by packed weights.

    Parameters
    ----------
    source, image, taps, grid, flip : as in `pad_lines`
    lines_at_once : int
        Lines of windows padded together.
    offset : int
        What the elements of `left` are too large by.
    padded, left : uint8, the tile's left type
        The same scratch memory twice.
    steps : int
        Words of a kernel row. Its last one may reach beyond the row, where the weights are zeros.
    words, sums : from `pack_b`
    n, width : int
        Columns of C, and of a panel.
    place : as in `places_of`, of the images in C
    channel : int
        Where the results begin in a pixel of C.
    add : bool
        Whether to add to what C holds.
    c : int32 or int64, written
    """
    vector = width // MAX_VECTORS
    panels, size = sums.shape[0], padded.size // left.size
    row = ((grid[1] - 1) * taps[5] + taps[1]) * taps[3] // size  # elements of a padded line
    scratch = np.zeros(ROW_BLOCK * width, c.dtype)
    initial = np.zeros(width, c.dtype)
    places = np.empty(lines_at_once * grid[1] + ROW_BLOCK, np.int64)
    targets, in_scratch = np.empty(places.size, np.int64), np.empty(ROW_BLOCK, np.int64)
    for line in range(first, last, lines_at_once):
        to_line = min(line + lines_at_once, last)
        pad_lines(source, image, taps, grid, line, to_line, flip, padded)
        windows = places_of(taps, grid, line, to_line, size, place, np.int64(ROW_BLOCK), places, targets)
        for panel in range(panels):
            columns = min(width, n - panel * width)
            filled = _padded(columns, width)
            vectors = filled // vector
            for j in range(filled):
                initial[j] = -offset * np.int64(sums[panel, j])
            for r in range(ROW_BLOCK):
                in_scratch[r] = r * filled
            at, c_at, height = panel * width * steps * taps[0], channel + panel * width, _HEIGHTS[vectors]
            for i in range(0, windows, height):
                if not add and i + height <= windows and columns == filled:
                    _scattered_tile(vectors, left, places, i, row, taps[0], words, at, steps, initial, c, c_at, targets, i)
                    continue
                zero = np.int64(0)
                _scattered_tile(
                    vectors, left, places, i, row, taps[0], words, at, steps, initial, scratch, zero, in_scratch, zero
                )
                for r in range(min(height, windows - i)):
                    _put(c, c_at + targets[i + r], scratch, r * filled, columns, add)


@jit
def _scattered_tile(vectors, a, places, first, row, rows, words, at, steps, initial, c, c_at, targets, first_target):
    """Multiply by the scattered tile of so many vectors."""
    if vectors == 1:
        scattered_tile_1(a, places, first, row, rows, words, at, steps, initial, c, c_at, targets, first_target)
    elif vectors == 2:
        scattered_tile_2(a, places, first, row, rows, words, at, steps, initial, c, c_at, targets, first_target)
    elif vectors == 3:
        scattered_tile_3(a, places, first, row, rows, words, at, steps, initial, c, c_at, targets, first_target)
    else:
        scattered_tile_4(a, places, first, row, rows, words, at, steps, initial, c, c_at, targets, first_target)


@jit
def _put(c, to, block, start, count, add):
    """Copy a row of results, or add it modulo the word."""
    to, start = np.uint64(to), np.uint64(start)
    if add:
        for k in range(np.uint64(count)):
            c[to + k] += block[start + k]
    else:
        for k in range(np.uint64(count)):
            c[to + k] = block[start + k]


# 2. Drivers --------------------------------------------------------------------------------------------------------------


def _numbers(*values):
    """Return a tuple of int64 for a compiled function."""
    return tuple(np.int64(value) for value in values)


def _possible(kind, result):
    """Return `kind`, or the narrowest wider type that this processor multiplies into such results."""
    if result != np.int32:
        return kind
    return max(kind, packed_type(np.iinfo(kind).max), key=lambda type_: np.dtype(type_).itemsize)


def _layout(kind, result):
    """Return ``(elements a word, type of a word, type of the left operand, its offset, columns of a panel)``."""
    lanes = LANES if result == np.int32 else LANES // 2
    left_type, offset = (np.uint8, _OFFSET) if kind is np.int8 else (kind, 0)
    word_type = np.int64 if kind is np.int64 else np.int32
    return max(1, 4 // np.dtype(kind).itemsize), word_type, left_type, offset, lanes * MAX_VECTORS


def _as_bytes(array, kind):
    """Return a C-contiguous array as flat bytes of elements of `kind`, which hold its values."""
    return array.astype(kind, copy=False).reshape(-1).view(np.uint8)


def _together(groups, channels, out_channels):
    """Return how many narrow groups fill a vector between them, to be treated as one group with zeros among its weights."""
    most = max(1, LANES // max(channels, out_channels, 1))
    return max(number for number in range(1, most + 1) if groups % number == 0)


def _joined(weights, groups, number):
    """Return the weights of `number` groups each as those of one group, zero where input and output are of different ones."""
    out_channels, kh, kw, channels = weights.shape
    joined = np.zeros((out_channels, kh, kw, number * channels), weights.dtype)
    for to, own in _of_groups(joined, weights, groups, number):
        to[...] = own
    return joined


def _of_groups(joined, weights, groups, number):
    """Yield the parts of `joined` and of `weights`, both as in `_joined`, that belong together."""
    out_channels, kh, kw, channels = weights.shape
    shape = (groups // number, number, out_channels // groups, kh, kw)
    joined, weights = joined.reshape(*shape, number, channels), weights.reshape(*shape, channels)
    for group in range(number):
        yield joined[:, group, :, :, :, group], weights[:, group]


def _convolve(source, image, taps, grid, weights, kind, place, channel, add, images, out):
    """Convolve with weights (kernel rows, elements of a row, columns), see `convolve_lines`."""
    together, word_type, left_type, offset, width = _layout(kind, out.dtype)
    rows, elements, n = weights.shape
    steps, panels = -(-elements // together), -(-n // width)
    if steps * together > elements:
        weights = np.pad(weights, ((0, 0), (0, steps * together - elements), (0, 0)))
    flat = np.ascontiguousarray(weights).reshape(-1)
    words = np.empty(panels * width * steps * rows, word_type)
    sums = np.zeros((panels, width), np.int32)
    row = ((int(grid[1]) - 1) * int(taps[5]) + int(taps[1])) * int(taps[3])  # bytes of a padded line
    at_once = max(1, min(_LINES // row, _WINDOWS // int(grid[1])))
    flip, all_steps = np.uint8(offset), steps * rows

    def pack(first, last):
        pack_b(flat, n, False, 0, all_steps * together, together, n, width, first, last, words, sums)

    def work(first, last):
        lines = min(at_once, last - first)
        padded = np.zeros(-(-(lines_of(lines, grid[0], taps[0], taps[4]) * row + _GAP) // 8) * 8, np.uint8)
        convolve_lines(
            source, image, taps, grid, first, last, lines, flip, offset, padded, padded.view(left_type), steps, words, sums, n,
            width, place, channel, add, out,
        )  # fmt: skip

    minimum = max(1, 2**22 // (n * all_steps * together * int(grid[1])))
    _parallel.run(pack, _parallel.pieces_of(panels, minimum=max(1, 2**18 // (all_steps * together * width))))
    _parallel.run(work, _parallel.pieces_of(images * int(grid[0]), minimum=minimum))


def conv2d(x, weights, stride, padding, groups, kind, out):
    """Convolve into `out`, modulo the width of its elements.

    Parameters
    ----------
    x : (n, h, w, c) C-contiguous integers
    weights : (out_c, kh, kw, c // groups) C-contiguous integers
    stride : (int, int)
        Down and to the right.
    padding : (int, int, int, int)
        Rows and columns of zeros: top, bottom, left, right. At the bottom and at the right they only count in the size of
        `out`; negative ones cut off rows or columns.
    groups : int
    kind : type
        np.int8, np.int16 or np.int32 (operands that fit in it) for an int32 `out`; np.int32 or np.int64 for an int64 one.
    out : (n, oh, ow, out_c) C-contiguous int32 or int64, written
    """
    n, height, width, channels = x.shape
    out_c, kh, kw, c = weights.shape
    oh, ow = out.shape[1:3]
    if not out.size or not weights[0].size:
        out[...] = 0
        return
    number = _together(groups, c, out_c // groups)
    if number > 1:
        conv2d(x, _joined(weights, groups, number), stride, padding, groups // number, kind, out)
        return
    kind = _possible(kind, out.dtype)
    size = np.dtype(kind).itemsize
    source, image, grid = _as_bytes(x, kind), _numbers(height, width, channels * size), _numbers(oh, ow)
    weights, place = weights.astype(kind, copy=False), _numbers(oh, ow, out_c, 0, 0, 1, 1)
    at_once = max(1, _DEPTH // (kw * c * size))  # kernel rows
    group_out = out_c // groups
    for group in range(groups):
        of_group = weights[group * group_out : (group + 1) * group_out]
        for ky in range(0, kh, at_once):
            some = of_group[:, ky : ky + at_once]
            taps = _numbers(some.shape[1], kw, group * c * size, c * size, *stride, padding[0] - ky, padding[2])
            rows = some.transpose(1, 2, 3, 0).reshape(some.shape[1], kw * c, group_out)
            _convolve(source, image, taps, grid, rows, kind, place, group * group_out, ky > 0, n, out.reshape(-1))


def _phases(stride, padding, kernel, size):
    """List the phases of the input pixels of one axis: ``(first pixel, pixels, first tap, taps, padding)``.

    Output pixel o has the tap k on input pixel ``o * stride - padding + k``. So pixel i is touched by the taps k of the
    phase ``(i + padding) % stride``, a stride apart; in descending order they meet ascending outputs.
    """
    for tap in range(stride):
        first = (tap - padding) % stride
        if first < size:
            taps = len(range(tap, kernel, stride))
            yield first, len(range(first, size, stride)), tap, taps, taps - 1 - (first + padding - tap) // stride


def conv2d_backward_input(dy, weights, stride, padding, groups, kind, out):
    """Multiply by the transpose of the convolution, as a function of its input, into `out`.

    Parameters
    ----------
    dy : (n, oh, ow, out_c) C-contiguous integers
    weights, stride, padding, groups : as in `conv2d`
    kind : type
        As in `conv2d`, of the operands `dy` and `weights`.
    out : (n, h, w, c) C-contiguous int32 or int64, written
        The gradient of `x`.
    """
    n, height, width, channels = out.shape
    out_c, kh, kw, c = weights.shape
    oh, ow = dy.shape[1:3]
    if not dy.size or not weights.size or kh < stride[0] or kw < stride[1]:
        out[...] = 0  # some pixels are not touched
    if not out.size or not dy.size or not weights.size:
        return
    number = _together(groups, c, out_c // groups)
    if number > 1:
        conv2d_backward_input(dy, _joined(weights, groups, number), stride, padding, groups // number, kind, out)
        return
    kind = _possible(kind, out.dtype)
    size = np.dtype(kind).itemsize
    source, image = _as_bytes(dy, kind), _numbers(oh, ow, out_c * size)
    group_out = out_c // groups
    tapwise = weights.astype(kind, copy=False).reshape(groups, group_out, kh, kw, c).transpose(0, 2, 3, 1, 4)
    for y, rows, tap_y, taps_y, top in _phases(stride[0], padding[0], kh, height):
        for x, columns, tap_x, taps_x, left in _phases(stride[1], padding[2], kw, width):
            if not taps_y or not taps_x:
                continue
            phase = tapwise[:, tap_y :: stride[0], tap_x :: stride[1]][:, ::-1, ::-1]
            at_once = max(1, _DEPTH // (taps_x * group_out * size))
            for group in range(groups):
                place, grid = _numbers(height, width, channels, y, x, *stride), _numbers(rows, columns)
                for ky in range(0, taps_y, at_once):
                    some = phase[group, ky : ky + at_once].reshape(-1, taps_x * group_out, c)
                    channels_at, of_tap = group * group_out * size, group_out * size
                    taps = _numbers(len(some), taps_x, channels_at, of_tap, 1, 1, top - ky, left)
                    _convolve(source, image, taps, grid, some, kind, place, group * c, ky > 0, n, out.reshape(-1))
