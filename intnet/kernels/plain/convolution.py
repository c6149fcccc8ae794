"""Convolutions by their definition: exact sums of exact products, brought into the accumulator at the end.

Notation, here and in every convolution kernel; images have their channels last, as do the weights:

    x   (n, height, width, channels)                                    w   (out channels, kh, kw, channels // groups)
    y   (n, out height, out width, out channels)                        dx, dw, dy   gradients, in the shapes of x, w, y

    y[b, i, j, o] = sum over ky, kx, c of  x[b, i * stride_y + ky - top, j * stride_x + kx - left, c0 + c] * w[o, ky, kx, c]

where pixels outside the image are zero and c0 is the first channel of the group of output channel o.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import join_products, product_words
from intnet.kernels.plain.product import bring_into_word


@jit
def _limits(word_bits):
    """Return the least and the largest value of a word of 2..64 bits."""
    half = np.int64(1) << (np.int64(word_bits) - np.int64(2))
    maximum = (half - np.int64(1)) * np.int64(2) + np.int64(1)
    return -maximum - np.int64(1), maximum


@jit
def conv2d(x, weights, stride, padding, groups, word_bits, saturates, out):
    """Convolve; every sum is exact and then wrapped to `word_bits`, or saturated.

    Parameters
    ----------
    x : (n, height, width, channels) integers
    weights : (out channels, kh, kw, channels // groups) integers
        At most ``2**31`` of them for one output, here and below.
    stride : (int, int)
        Down and to the right.
    padding : (int, int, int, int)
        Zeros around the image: top, bottom, left, right. Bottom and right only decide the size of `out`.
    groups : int
    word_bits : int64
        Width of the accumulator, 2..64.
    saturates : bool
    out : (n, out height, out width, out channels) int32 or int64 that holds the word, written

    Returns
    -------
    int64
        How many sums lay outside the accumulator.
    """
    _, height, width, _ = x.shape
    n, out_height, out_width, out_channels = out.shape
    _, kh, kw, channels = weights.shape
    minimum, maximum = _limits(word_bits)
    left = np.int64(0)
    for b in range(n):
        for i in range(out_height):
            for j in range(out_width):
                for o in range(out_channels):
                    first_channel = o // (out_channels // groups) * channels
                    top_high, top_low, high, low = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
                    for ky in range(kh):
                        for kx in range(kw):
                            row, column = i * stride[0] + ky - padding[0], j * stride[1] + kx - padding[2]
                            if not (0 <= row < height and 0 <= column < width):
                                continue
                            for c in range(channels):
                                value, weight = x[b, row, column, first_channel + c], weights[o, ky, kx, c]
                                words = product_words(np.int64(value), np.int64(weight))
                                top_high += words[0]
                                top_low += words[1]
                                high += words[2]
                                low += words[3]
                    beyond, total = join_products(top_high, top_low, high, low)
                    word, outside = bring_into_word(beyond, total, minimum, maximum, word_bits, saturates)
                    out[b, i, j, o] = word
                    left += outside
    return left


@jit
def conv2d_backward_input(dy, weights, stride, padding, groups, word_bits, saturates, out):
    """Multiply by the transpose of the convolution as a linear function of `x`: the gradient of `x`.

    Parameters
    ----------
    dy : (n, out height, out width, out channels) integers
    weights, stride, padding, groups, word_bits, saturates : as in `conv2d`
    out : (n, height, width, channels) int32 or int64, written

    Returns
    -------
    int64
        As in `conv2d`.
    """
    _, out_height, out_width, _ = dy.shape
    n, height, width, all_channels = out.shape
    out_channels, kh, kw, channels = weights.shape
    group_out = out_channels // groups
    minimum, maximum = _limits(word_bits)
    left = np.int64(0)
    for b in range(n):
        for row in range(height):
            for column in range(width):
                for c in range(all_channels):
                    first_out, channel = c // channels * group_out, c % channels
                    top_high, top_low, high, low = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
                    for ky in range(kh):
                        for kx in range(kw):
                            down, right = row + padding[0] - ky, column + padding[2] - kx
                            i, j = down // stride[0], right // stride[1]
                            if i * stride[0] != down or j * stride[1] != right:
                                continue
                            if not (0 <= i < out_height and 0 <= j < out_width):
                                continue
                            for o in range(first_out, first_out + group_out):
                                words = product_words(np.int64(dy[b, i, j, o]), np.int64(weights[o, ky, kx, channel]))
                                top_high += words[0]
                                top_low += words[1]
                                high += words[2]
                                low += words[3]
                    beyond, total = join_products(top_high, top_low, high, low)
                    word, outside = bring_into_word(beyond, total, minimum, maximum, word_bits, saturates)
                    out[b, row, column, c] = word
                    left += outside
    return left


@jit
def conv2d_backward_weights(x, dy, stride, padding, groups, word_bits, saturates, out):
    """Multiply by the transpose of the convolution as a linear function of the weights: the gradient of the weights.

    Parameters
    ----------
    x : (n, height, width, channels) integers
    dy : (n, out height, out width, out channels) integers
    stride, padding, groups, word_bits, saturates : as in `conv2d`
    out : (out channels, kh, kw, channels // groups) int32 or int64, written

    Returns
    -------
    int64
        As in `conv2d`.
    """
    _, height, width, _ = x.shape
    n, out_height, out_width, _ = dy.shape
    out_channels, kh, kw, channels = out.shape
    minimum, maximum = _limits(word_bits)
    left = np.int64(0)
    for o in range(out_channels):
        first_channel = o // (out_channels // groups) * channels
        for ky in range(kh):
            for kx in range(kw):
                for c in range(channels):
                    top_high, top_low, high, low = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
                    for b in range(n):
                        for i in range(out_height):
                            row = i * stride[0] + ky - padding[0]
                            if not 0 <= row < height:
                                continue
                            for j in range(out_width):
                                column = j * stride[1] + kx - padding[2]
                                if not 0 <= column < width:
                                    continue
                                value = x[b, row, column, first_channel + c]
                                words = product_words(np.int64(value), np.int64(dy[b, i, j, o]))
                                top_high += words[0]
                                top_low += words[1]
                                high += words[2]
                                low += words[3]
                    beyond, total = join_products(top_high, top_low, high, low)
                    word, outside = bring_into_word(beyond, total, minimum, maximum, word_bits, saturates)
                    out[o, ky, kx, c] = word
                    left += outside
    return left
