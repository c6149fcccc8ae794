"""Padded lines of images: what a block of output pixels sees, and where each pixel's window begins in it.

With the padding written out, the part of a window that lies in one kernel row is one run of memory, and neighbouring windows
overlap in place: nothing is copied more than once, whatever the kernel's size.
"""

import numpy as np

from intnet._compile import jit
from intnet.kernels.simd.weaving import copy_runs, fill_runs


@jit
def lines_of(lines, height, rows, stride):
    """Return how many padded lines so many lines of windows see at most, wherever images of `height` lines begin."""
    images = (lines + height - 1) // height + 1
    return (lines - 1) * stride + 1 + images * max(rows, stride)


@jit
def pad_lines(source, image, taps, grid, first, last, flip, padded):
    """Write what lines `first` to `last` of the windows see, zeros where they reach beyond their image.

    Parameters
    ----------
    source : (bytes,) uint8
        The images.
    image : (height, width, bytes a pixel)
    taps : (rows, columns, offset, bytes, stride y, stride x, top, left)
        The kernel's taps; a tap takes so many bytes of its pixel from an offset on. Window (i, j) begins at pixel
        ``(i * stride y - top, j * stride x - left)``.
    grid : (height, width)
        Windows of an image. Lines are counted through all images.
    flip : uint8
        Bits flipped in every byte; zero padding, too, becomes `flip`.
    padded : (bytes,) uint8, written
        Line by line, those of one image after those of another; see `places_of`.
    """
    height, width, pixel = image
    tap_rows, tap_columns, offset, tap, stride_y, stride_x, top, left = taps
    grid_height, grid_width = grid
    columns = (grid_width - 1) * stride_x + tap_columns  # pixels of a padded line
    row, at, line = columns * tap, np.int64(0), first
    before = min(max(left, np.int64(0)), columns)
    inside = max(min(width - max(-left, np.int64(0)), columns - before), np.int64(0))
    after = columns - before - inside
    while line < last:  # the lines of one image
        b = line // grid_height
        i = line - b * grid_height
        lines = min(grid_height - i, last - line)
        count = (lines - 1) * stride_y + tap_rows
        y = i * stride_y - top
        above = min(max(-y, np.int64(0)), count)
        within = max(min(height - max(y, np.int64(0)), count - above), np.int64(0))
        fill_runs(padded, at, row, above, row, flip)
        at += above * row
        start = ((b * height + y + above) * width + max(-left, np.int64(0))) * pixel + offset
        fill_runs(padded, at, row, within, before * tap, flip)
        if tap == pixel:
            copy_runs(padded, at + before * tap, row, source, start, width * pixel, within, inside * tap, flip)
        else:
            for r in range(within):
                to, from_ = at + r * row + before * tap, start + r * width * pixel
                copy_runs(padded, to, tap, source, from_, pixel, inside, tap, flip)
        fill_runs(padded, at + (before + inside) * tap, row, within, after * tap, flip)
        at += within * row
        below = count - above - within
        fill_runs(padded, at, row, below, row, flip)
        at += below * row
        line += lines


@jit
def places_of(taps, grid, first, last, size, place, more, places, targets):
    """Write where the windows of lines `first` to `last` begin in `padded`, and where their results belong.

    Parameters
    ----------
    taps, grid, first, last : as in `pad_lines`
    size : int
        Bytes of an element.
    place : (height, width, channels, y, x, step y, step x)
        Of the images of results; window (i, j) belongs to pixel ``(y + i * step y, x + j * step x)``.
    more : int
        How often the last place is written again, for what looks further.
    places, targets : int64, written
        In elements.

    Returns
    -------
    int
        The number of windows.
    """
    tap_rows, tap_columns, _, tap, stride_y, stride_x, _, _ = taps
    grid_height, grid_width = grid
    target_height, target_width, channels, first_y, first_x, step_y, step_x = place
    step = stride_x * (tap // size)
    row = (grid_width - 1) * step + tap_columns * (tap // size)
    at, to, line = np.int64(0), np.int64(0), first
    while line < last:
        b = line // grid_height
        i = line - b * grid_height
        lines = min(grid_height - i, last - line)
        for k in range(lines):
            begin = at + k * stride_y * row
            target = ((b * target_height + first_y + (i + k) * step_y) * target_width + first_x) * channels
            for j in range(grid_width):
                places[to + j] = begin + j * step
                targets[to + j] = target + j * step_x * channels
            to += grid_width
        at += ((lines - 1) * stride_y + tap_rows) * row
        line += lines
    for j in range(more):
        places[to + j] = places[to - 1]
        targets[to + j] = targets[to - 1]
    return to
