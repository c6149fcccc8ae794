"""Pooling: the largest of a window, or its sum. Images have their channels last, ``(n, height, width, channels)``.

Window (i, j) begins at pixel ``(i * stride_y - top, j * stride_x - left)``. What lies beside the image is not in it: the
largest never comes from there, and a sum has nothing to add. Sums are taken modulo the word of the result; whoever calls
has proven that they fit, or hands over words of 32 bits and joins the sums.
"""

import numpy as np

from intnet._compile import jit


@jit
def max_pool(x, window, stride, padding, out, places):
    """Take the largest value of every window, and remember where it stands.

    Parameters
    ----------
    x : (n, height, width, channels) integers
    window, stride : (int, int)
        Down and to the right.
    padding : (int, int, int, int)
        Top, bottom, left, right, each less than the window, so that no window misses the image. Bottom and right only
        decide the size of `out`.
    out : (n, out height, out width, channels) of the type of `x`, written
    places : the shape of `out`, int32, written
        The pixel ``row * width + column`` of the first of the largest values, in the order of the rows.
    """
    _, height, width, channels = x.shape
    n, out_height, out_width, _ = out.shape
    for b in range(n):
        for i in range(out_height):
            first_row = i * stride[0] - padding[0]
            for j in range(out_width):
                first_column = j * stride[1] - padding[2]
                begun = False
                for row in range(max(first_row, 0), min(first_row + window[0], height)):
                    for column in range(max(first_column, 0), min(first_column + window[1], width)):
                        place = row * width + column
                        if begun:
                            for c in range(channels):
                                if x[b, row, column, c] > out[b, i, j, c]:
                                    out[b, i, j, c] = x[b, row, column, c]
                                    places[b, i, j, c] = place
                        else:
                            for c in range(channels):
                                out[b, i, j, c] = x[b, row, column, c]
                                places[b, i, j, c] = place
                            begun = True


@jit
def max_pool_backward(dy, places, out):
    """Add every gradient to the pixel that its window's largest value came from.

    Parameters
    ----------
    dy, places : (n, out height, out width, channels) integers, int32 from `max_pool`
    out : (n, height * width, channels) integers, zeros; added to
    """
    n, out_height, out_width, channels = dy.shape
    for b in range(n):
        for i in range(out_height):
            for j in range(out_width):
                for c in range(channels):
                    place = places[b, i, j, c]
                    out[b, place, c] = np.int64(out[b, place, c]) + np.int64(dy[b, i, j, c])


@jit
def sum_pool(x, window, stride, padding, out):
    """Add up every window.

    Parameters
    ----------
    x, window, stride, padding : as in `max_pool`; a window may miss the image
    out : (n, out height, out width, channels) int32 or int64, zeros; added to
    """
    _, height, width, channels = x.shape
    n, out_height, out_width, _ = out.shape
    for b in range(n):
        for i in range(out_height):
            first_row = i * stride[0] - padding[0]
            for j in range(out_width):
                first_column = j * stride[1] - padding[2]
                for row in range(max(first_row, 0), min(first_row + window[0], height)):
                    for column in range(max(first_column, 0), min(first_column + window[1], width)):
                        for c in range(channels):
                            out[b, i, j, c] = np.int64(out[b, i, j, c]) + np.int64(x[b, row, column, c])


@jit
def sum_pool_backward(dy, window, stride, padding, out):
    """Add every gradient to all pixels of its window: the transpose of `sum_pool`.

    Parameters
    ----------
    dy : (n, out height, out width, channels) integers
    window, stride, padding : as in `sum_pool`
    out : (n, height, width, channels) int32 or int64, zeros; added to
    """
    _, height, width, channels = out.shape
    n, out_height, out_width, _ = dy.shape
    for b in range(n):
        for i in range(out_height):
            first_row = i * stride[0] - padding[0]
            for j in range(out_width):
                first_column = j * stride[1] - padding[2]
                for row in range(max(first_row, 0), min(first_row + window[0], height)):
                    for column in range(max(first_column, 0), min(first_column + window[1], width)):
                        for c in range(channels):
                            out[b, row, column, c] = np.int64(out[b, row, column, c]) + np.int64(dy[b, i, j, c])
