"""Convolutions on the GPU: by their definition, and in tiles where the sums are sure or wanted modulo words.

`conv2d`, `conv2d_backward_input` and `conv2d_backward_weights` are the twins of those in
:mod:`intnet.kernels.plain.convolution`, the same names with ``_fast`` of those in :mod:`intnet.kernels.simd.convolution`.
These are matrix products whose one operand, the windows of an image, is not stored: a thread finds its words in the image, four
neighbouring channels in an int32, and zeros outside. Groups of few channels are summed one output a thread.
"""

import numpy as np

from intnet.arithmetic import join_products, product_words
from intnet.kernels.cuda import _driver
from intnet.kernels.cuda._driver import cuda, kernel
from intnet.kernels.cuda.product import pack, padded_side, padded_words
from intnet.kernels.cuda.tiles import BYTES, LONG, WIDE, WORDS, aligned, clear, device, divider, kind_of, shape_for, start
from intnet.kernels.cuda.windows import WINDOW_COLUMNS, WINDOWS
from intnet.kernels.cuda.words import ADD, multiply_add, store_sums
from intnet.kernels.plain.convolution import _limits
from intnet.kernels.plain.product import bring_into_word
from intnet.kernels.simd.convolution import _phases

__all__ = [
    "conv2d",
    "conv2d_backward_input",
    "conv2d_backward_input_fast",
    "conv2d_backward_weights",
    "conv2d_backward_weights_fast",
    "conv2d_fast",
]

_ALL = (0, 0, 1, 1)
"""All pixels of a result: the first row and column, and the steps to the next."""

_FEW = 16  # channels in times channels out of a group, below which tiles would be nearly empty


def _numbers(*values):
    """Return a tuple of int64 for a kernel."""
    return tuple(np.int64(value) for value in values)


# 1. One output a thread ------------------------------------------------------------------------------------------------------
#
# numbers: n, height, width, channels of a group, out height, out width, output channels of a group, groups, kernel height and
# width, stride down and right, padding at the top and the left.


@device
def _place_of(i, height, width, channels):
    """Return ``(image, row, column, channel)`` of a flat index."""
    pixel = i // channels
    line = pixel // width
    image = line // height
    return image, line - image * height, pixel - line * width, i - pixel * channels


def _sums_of(add, zero):
    """Make the functions that sum the products of one output, given how to add one and what to begin with."""

    def forward(x, w, i, numbers):
        _, height, width, channels, out_height, out_width, group_out, groups, kh, kw, down, right, top, left = numbers
        image, row, column, o = _place_of(i, out_height, out_width, group_out * groups)
        first_row, first_column, first_channel = row * down - top, column * right - left, o // group_out * channels
        total = zero
        for ky in range(max(np.int64(0), -first_row), min(kh, height - first_row)):
            for kx in range(max(np.int64(0), -first_column), min(kw, width - first_column)):
                pixel = (image * height + first_row + ky) * width + first_column + kx
                at, at_w = pixel * channels * groups + first_channel, ((o * kh + ky) * kw + kx) * channels
                for c in range(channels):
                    total = add(x[at + c], w[at_w + c], total)
        return total

    def backward_input(dy, w, i, numbers):
        _, height, width, channels, out_height, out_width, group_out, groups, kh, kw, down, right, top, left = numbers
        image, row, column, c = _place_of(i, height, width, channels * groups)
        first_out, channel = c // channels * group_out, c % channels
        total = zero
        for ky in range((row + top) % down, kh, down):
            y = (row + top - ky) // down
            if 0 <= y < out_height:
                for kx in range((column + left) % right, kw, right):
                    x = (column + left - kx) // right
                    if 0 <= x < out_width:
                        at = ((image * out_height + y) * out_width + x) * group_out * groups
                        for o in range(first_out, first_out + group_out):
                            total = add(dy[at + o], w[((o * kh + ky) * kw + kx) * channels + channel], total)
        return total

    def backward_weights(x, dy, place, first, step, numbers):  # over every `step`-th line of outputs, from the `first`
        n, height, width, channels, out_height, out_width, group_out, groups, _, _, down, right, top, left = numbers
        o, ky, kx, c = place
        channel = o // group_out * channels + c
        total = zero
        for line in range(first, n * out_height, step):
            image = line // out_height
            row = (line - image * out_height) * down + ky - top
            if 0 <= row < height:
                for j in range(out_width):
                    column = j * right + kx - left
                    if 0 <= column < width:
                        at = ((image * height + row) * width + column) * channels * groups + channel
                        total = add(x[at], dy[(line * out_width + j) * group_out * groups + o], total)
        return total

    return device(forward), device(backward_input), device(backward_weights)


@device
def _add_words(a, b, total):
    words = product_words(np.int64(a), np.int64(b))
    return total[0] + words[0], total[1] + words[1], total[2] + words[2], total[3] + words[3]


_EXACT = _sums_of(_add_words, (np.int64(0),) * 4)
_all_of_weight = _EXACT[2]


@device
def _exact_weights(x, dy, i, numbers):
    return _all_of_weight(x, dy, _place_of(i, numbers[8], numbers[9], numbers[3]), np.int64(0), np.int64(1), numbers)


def _exact(sum_of):
    """Make the kernel of a convolution by its definition."""

    def body(a, b, numbers, minimum, maximum, word_bits, saturates, out, left):
        outside_all = np.int64(0)
        for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
            words = sum_of(a, b, np.int64(i), numbers)
            beyond, total = join_products(words[0], words[1], words[2], words[3])
            word, outside = bring_into_word(beyond, total, minimum, maximum, word_bits, saturates)
            out[i] = word
            outside_all += outside
        if outside_all > 0:
            cuda.atomic.add(left, 0, outside_all)

    ends = "UniTuple(int64, 14), int64, int64, int64, boolean"
    types = (("int8", "int32"), ("int16", "int32"), ("int64", "int64"))
    return kernel(*(f"{own}[::1], {own}[::1], {ends}, {sums}[::1], int64[::1]" for own, sums in types))(body)


_forward, _backward_input, _backward_weights = _exact(_EXACT[0]), _exact(_EXACT[1]), _exact(_exact_weights)


def _geometry(x_shape, channels, dy_shape, kernel_size, stride, padding, groups):
    """Return the numbers of a convolution, see above."""
    sizes = (*x_shape[:3], channels, *dy_shape[1:3], dy_shape[3] // groups, groups)
    return _numbers(*sizes, *kernel_size, *stride, padding[0], padding[2])


def _run_exact(body, a, b, numbers, word_bits, saturates, out):
    minimum, maximum = _limits(word_bits)
    left = _driver.zeros(1, np.int64)
    limits = _numbers(minimum, maximum, word_bits)
    body(out.size, a.reshape(-1), b.reshape(-1), numbers, *limits, bool(saturates), out.reshape(-1), left)
    return int(_driver.to_host(left)[0])


def conv2d(x, weights, stride, padding, groups, word_bits, saturates, out):
    """Convolve; every sum is exact and then wrapped to `word_bits`, or saturated; return how many were."""
    numbers = _geometry(x.shape, weights.shape[3], out.shape, weights.shape[1:3], stride, padding, groups)
    return _run_exact(_forward, x, weights, numbers, word_bits, saturates, out)


def conv2d_backward_input(dy, weights, stride, padding, groups, word_bits, saturates, out):
    """Multiply by the transpose of the convolution as a linear function of `x`, as `conv2d` does."""
    numbers = _geometry(out.shape, weights.shape[3], dy.shape, weights.shape[1:3], stride, padding, groups)
    return _run_exact(_backward_input, dy, weights, numbers, word_bits, saturates, out)


def conv2d_backward_weights(x, dy, stride, padding, groups, word_bits, saturates, out):
    """Multiply by the transpose of the convolution as a linear function of the weights, as `conv2d` does."""
    numbers = _geometry(x.shape, out.shape[3], dy.shape, out.shape[1:3], stride, padding, groups)
    return _run_exact(_backward_weights, x, dy, numbers, word_bits, saturates, out)


# 2. Groups of few channels -------------------------------------------------------------------------------------------------


def _narrow(kind):
    """Make the kernels of convolutions modulo words, one output a thread; those of weights split the lines of `dy`."""
    word = kind.word

    def add(a, b, total):
        return multiply_add(word(a), word(b), total)

    forward, backward_input, backward_weights = _sums_of(device(add), kind.sums(0))

    def write(sum_of):
        def body(a, b, numbers, out):
            for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
                out[i] = sum_of(a, b, np.int64(i), numbers)

        return body

    def weights(x, dy, numbers, splits, out):
        outs = numbers[6] * numbers[7]
        for i in range(cuda.grid(1), out.size * splits, cuda.gridsize(1)):
            split = np.int64(i) // out.size
            rest = np.int64(i) - split * out.size
            own = rest // outs
            at = (rest - own * outs) * (out.size // outs) + own  # neighbouring threads have neighbouring output channels
            total = backward_weights(x, dy, _place_of(at, numbers[8], numbers[9], numbers[3]), split, splits, numbers)
            zero = np.int64(0)
            store_sums(out, (at,), (zero,), (zero + 1,), (total, total, total, total), zero + ADD)

    size, sums = (8 * np.dtype(which).itemsize for which in (word, kind.sums))
    arrays, out = (f"int{own}[::1], int{own}[::1], UniTuple(int64, 14)" for own in (8, size)), f"int{sums}[::1]"
    arrays = tuple(arrays)
    plain = kernel(*(f"{own}, {out}" for own in arrays))
    return plain(write(forward)), plain(write(backward_input)), kernel(*(f"{own}, int64, {out}" for own in arrays))(weights)


_NARROW = {kind: _narrow(kind) for kind in (WORDS, WIDE, LONG)}


def _is_narrow(groups, channels, group_out):
    return groups > 1 and channels * group_out < _FEW


# 3. In tiles ----------------------------------------------------------------------------------------------------------------


@kernel("int8[::1], int64, int8[::1], int64", "int16[::1], int64, int32[::1], int64", "int64[::1], int64, int8[::1], int64")
def _pad(source, inner, out, padded):
    for i in range(cuda.grid(1), out.size // padded, cuda.gridsize(1)):
        for c in range(padded):
            out[i * padded + c] = source[i * inner + c] if c < inner else 0


def _image(kind, x, groups):
    """Return an image in words of a kernel: as it is, or with the channels of every group padded to four.

    Returns
    -------
    words : flat device array
        Of int32 that hold four channels each, if `kind` multiplies bytes.
    padded : int
        Channels of a group.
    """
    inner = x.shape[3] // groups
    padded = -(-inner // 4) * 4
    flat, own = x.reshape(-1), np.dtype(np.int8) if kind is BYTES else np.dtype(x.dtype)
    if padded != inner or own != x.dtype or not aligned(x, 4):
        flat = _driver.empty(x.size // inner * padded, own)
        _pad(flat.size // padded, x.reshape(-1), np.int64(inner), flat, np.int64(padded))
    return flat.view(np.int32) if kind is BYTES else flat, padded


def _convolve(kind, shape, image, image_shape, groups, padded, taps, weights, grid, stride, padding, out, columns, place):
    """Convolve with packed weights, see `intnet.kernels.cuda.windows`."""
    n, height, width = image_shape[:3]
    inner = kind.words_of(padded)
    rows, words = n * grid[0] * grid[1], taps[0] * taps[1] * inner
    whole = inner % 4 == 0 and aligned(image, 4)
    start(
        WINDOWS[kind, shape], shape, (rows, columns, words, groups), image, weights, out.reshape(-1),
        columns % 4 == 0, rows, grid[1], grid[0] * grid[1], height, width, groups * inner, inner, *stride, *padding,
        *divider(inner), *divider(taps[1]), taps[1], int(whole), padded_side(shape, columns),
        padded_words(kind, shape, taps[0] * taps[1] * padded) * padded_side(shape, columns), *out.shape[1:], *place, columns,
        cleared=place != _ALL,
    )  # fmt: skip


def conv2d_fast(x, weights, stride, padding, groups, kind, out):
    """Convolve into `out`, modulo the width of its elements.

    Parameters
    ----------
    x : (n, h, w, c) integers
    weights : (out_c, kh, kw, c // groups) integers
    stride : (int, int)
        Down and to the right.
    padding : (int, int, int, int)
        Rows and columns of zeros: top, bottom, left, right.
    groups : int
    kind : type
        np.int8, np.int16 or np.int32 (operands that fit in it) for an int32 `out`; np.int32 or np.int64 for an int64 one.
    out : (n, oh, ow, out_c) int32 or int64, written
    """
    out_c, kh, kw, c = weights.shape
    if not (x.size and weights.size and out.size):
        clear(out)
        return
    kind, group_out = kind_of(kind, out.dtype), out_c // groups
    if _is_narrow(groups, c, group_out):
        numbers = _geometry(x.shape, c, out.shape, (kh, kw), stride, padding, groups)
        _NARROW[WORDS if kind is BYTES else kind][0](out.size, x.reshape(-1), weights.reshape(-1), numbers, out.reshape(-1))
        return
    shape = shape_for(kind, out.size // out_c, group_out, kh * kw * kind.words_of(c))
    image, padded = _image(kind, x, groups)
    strides = (0, group_out * kh * kw * c, kh * kw * c, kw * c, c, 1)
    words = pack(kind, shape, weights.reshape(-1), groups, group_out, (kh, kw), c, padded, strides)
    _convolve(
        kind, shape, image, x.shape, groups, padded, (kh, kw), words, out.shape[1:3], stride, padding[::2], out, group_out,
        _ALL,
    )  # fmt: skip


def conv2d_backward_input_fast(dy, weights, stride, padding, groups, kind, out):
    """Multiply by the transpose of the convolution, as a function of its input, into `out`, as `conv2d_fast` does.

    Parameters
    ----------
    dy : (n, oh, ow, out_c) integers
    weights, stride, padding, groups, kind : as in `conv2d_fast`
    out : (n, h, w, c) int32 or int64, written
    """
    out_c, kh, kw, c = weights.shape
    if not (dy.size and weights.size) or stride != (1, 1):
        clear(out)  # some pixels are not touched, or only added to
    if not (dy.size and weights.size and out.size):
        return
    kind, group_out = kind_of(kind, out.dtype), out_c // groups
    if _is_narrow(groups, c, group_out):
        numbers = _geometry(out.shape, c, dy.shape, (kh, kw), stride, padding, groups)
        _NARROW[WORDS if kind is BYTES else kind][1](out.size, dy.reshape(-1), weights.reshape(-1), numbers, out.reshape(-1))
        return
    image, padded = _image(kind, dy, groups)
    height, width = out.shape[1:3]
    for y, rows, tap_y, taps_y, top in _phases(stride[0], padding[0], kh, height):
        for x, columns, tap_x, taps_x, left in _phases(stride[1], padding[2], kw, width):
            if not taps_y or not taps_x:
                continue
            shape = shape_for(kind, out.shape[0] * rows * columns, c, taps_y * taps_x * kind.words_of(group_out))
            last = (tap_y + (taps_y - 1) * stride[0]) * kw + tap_x + (taps_x - 1) * stride[1]  # taps descend
            strides = (last * c, group_out * kh * kw * c, 1, -stride[0] * kw * c, -stride[1] * c, kh * kw * c)
            words = pack(kind, shape, weights.reshape(-1), groups, c, (taps_y, taps_x), group_out, padded, strides)
            _convolve(
                kind, shape, image, dy.shape, groups, padded, (taps_y, taps_x), words, (rows, columns), (1, 1), (top, left),
                out, c, (y, x, *stride),
            )  # fmt: skip


def conv2d_backward_weights_fast(x, dy, stride, padding, groups, kind, out):
    """Multiply by the transpose of the convolution, as a function of its weights, into `out`, as `conv2d_fast` does.

    Parameters
    ----------
    x : (n, h, w, c) integers
    dy : (n, oh, ow, out_c) integers
        Of fewer than ``2**31`` pixels.
    stride, padding, groups, kind : as in `conv2d_fast`
    out : (out_c, kh, kw, c // groups) int32 or int64, written
    """
    out_c, kh, kw, c = out.shape
    if not (x.size and dy.size and out.size):
        clear(out)
        return
    kind, group_out = kind_of(kind, out.dtype), out_c // groups
    if _is_narrow(groups, c, group_out):
        numbers = _geometry(x.shape, c, dy.shape, (kh, kw), stride, padding, groups)
        splits = min(dy.shape[0] * dy.shape[1], max(1, 2**19 // out.size))
        clear(out)
        body = _NARROW[WORDS if kind is BYTES else kind][2]
        body(out.size * splits, x.reshape(-1), dy.reshape(-1), numbers, np.int64(splits), out.reshape(-1))
        return
    image, padded = _image(kind, x, groups)
    inner, pixels, area = kind.words_of(padded), dy.size // out_c, dy.shape[1] * dy.shape[2]
    words = kind.words_of(pixels)
    shape = shape_for(kind, group_out, kh * kw * padded, words)
    rows = pack(kind, shape, dy.reshape(-1), groups, group_out, (1, 1), pixels, pixels, (0, group_out, 1, 0, 0, out_c))
    width = padded_side(shape, group_out)
    start(
        WINDOW_COLUMNS[kind, shape], shape, (group_out, kh * kw * padded, words, groups), rows, image, out.reshape(-1),
        c % 4 == 0, group_out, width, padded_words(kind, shape, pixels) * width, pixels, *divider(area), area,
        *divider(dy.shape[2]), dy.shape[2], *x.shape[1:3], groups * inner, inner, *stride, *padding[::2], kw, kh * kw, c,
        padded, kh * kw * c,
    )  # fmt: skip
