"""Patches of images: what the windows of a convolution see, one a row, zeros where they reach beyond the image."""

import numpy as np

from intnet._compile import jit
from intnet.kernels.simd.weaving import copy_runs, fill_runs


@jit
def position(p, height, width):
    """Return the image, the row and the column of a position."""
    i = p // width
    b = i // height
    return b, i - b * height, p - i * width


@jit
def gather_patches(source, image, taps, grid, first, last, flip, row, patches):
    """Write the patches of grid positions `first` to `last`, one a row, as bytes.

    Parameters
    ----------
    source : (bytes,) uint8
        The images.
    image : (height, width, bytes a pixel)
    taps : (rows, columns, offset, bytes, stride y, stride x, top, left)
        The kernel's taps; a tap takes so many bytes of its pixel from an offset on. Position (i, j) begins at pixel
        ``(i * stride y - top, j * stride x - left)``.
    grid : (height, width)
        Positions of an image.
    flip : uint8
        Bits flipped in every byte; zero padding, too, becomes `flip`.
    row : int
        Bytes from one row of `patches` to the next.
    """
    height, width, pixel = image
    tap_rows, tap_columns, offset, tap, stride_y, stride_x, top, left = taps
    grid_height, grid_width = grid
    run = tap_columns * tap
    whole = tap == pixel  # then neighbouring taps are one run
    inner_first = min(max((left + stride_x - 1) // stride_x, np.int64(0)), grid_width)  # columns with all taps in the image
    inner_last = max(min((width - tap_columns + left) // stride_x + 1, grid_width), inner_first)
    p = first
    while p < last:  # a row of the grid, or what is wanted of it
        b, i, j_first = position(p, grid_height, grid_width)
        j_last = min(grid_width, j_first + last - p)
        for ky in range(tap_rows):
            at = (p - first) * row + ky * run
            y = i * stride_y - top + ky
            if y < 0 or y >= height:
                fill_runs(patches, at, row, j_last - j_first, run, flip)
                continue
            j = j_first
            while j < j_last:
                x = j * stride_x - left
                if inner_first <= j < inner_last:
                    number, before, inside = min(inner_last, j_last) - j, np.int64(0), tap_columns
                else:
                    number, before = np.int64(1), min(max(-x, np.int64(0)), tap_columns)
                    inside = max(min(width - x, tap_columns) - before, np.int64(0))
                    fill_runs(patches, at, row, number, before * tap, flip)
                    after = before + inside
                    fill_runs(patches, at + after * tap, row, number, (tap_columns - after) * tap, flip)
                start = ((b * height + y) * width + x + before) * pixel + offset
                length = inside * tap if whole else tap
                to = at + before * tap
                for _ in range(min(inside, np.int64(1)) if whole else inside):
                    copy_runs(patches, to, row, source, start, stride_x * pixel, number, length, flip)
                    to += tap
                    start += pixel
                at += number * row
                j += number
        p += j_last - j_first
