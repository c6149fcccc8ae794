"""Convolutions on the GPU: by their definition for any integers, and in tiles where the sums are sure or wanted modulo words.

`conv2d`, `conv2d_backward_input` and `conv2d_backward_weights` are the twins of those in
:mod:`intnet.kernels.plain.convolution`, the same names with ``_fast`` of those in :mod:`intnet.kernels.simd.convolution`. These are
matrix products whose one operand, the windows of an image, is not stored: a thread finds its words in the image, four
neighbouring channels in an int32, and zeros outside. Groups of few channels are summed one output a thread.
"""

from typing import Any

import numpy as np

from intnet.arithmetic import join_products, product_words
from intnet.kernels.cuda import _driver
from intnet.kernels.cuda._driver import cuda, kernel
from intnet.kernels.cuda.product import pack, packed, padded_side, padded_words
from intnet.kernels.cuda.tiles import (
    ADD, BYTES, KINDS, LONG, WIDE, WORDS, Kind, Shape, aligned, clear, device, divider, kind_of, load4, multiply_add, quotient,
    shape_for, shapes_of, start, store_sums, tiled, transpose_bytes,
)  # fmt: skip
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

_OUTSIDE = -(2**30)  # a row or column of no image
_FEW = 16  # channels in times channels out of a group, below which tiles would be nearly empty


def _numbers(*values):
    """Return a tuple of int64 for a kernel."""
    return tuple(np.int64(value) for value in values)


# 1. One output a thread --------------------------------------------------------------------------------------------------------
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


# 2. Groups of few channels ---------------------------------------------------------------------------------------------------


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


# 3. Windows of an image as the rows of a product -------------------------------------------------------------------------------


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


def _windows(kind: Kind, shape: Shape) -> Any:
    """Return the functions of an image's windows as rows, see `tiled`.

    ``numbers[4:]`` are: rows; width and area of the grid of windows; height, width and words of a pixel of the image; words of a
    tap; stride down and right; padding at the top and the left; the dividers by a tap's words and by taps in a row, and
    these; whether four words are loaded at once.
    """
    across, depth, word, none = shape.depth // 4, shape.depth, kind.word, kind.word(0)

    def start_windows(numbers, first, group, thread):
        row = first + thread // across
        image = row // numbers[6]
        pixel = row - image * numbers[6]
        line = pixel // numbers[5]
        top = line * numbers[11] - numbers[13] if row < numbers[4] else np.int64(_OUTSIDE)
        base = image * numbers[7] * numbers[8] * numbers[9] + group * numbers[10]
        return base, top, (pixel - line * numbers[5]) * numbers[12] - numbers[14], thread % across * 4

    def at_word(kept, k, numbers):
        tap = quotient(k, numbers[15], numbers[16])
        ky = quotient(tap, numbers[17], numbers[18])
        row, column = kept[1] + ky, kept[2] + tap - ky * numbers[19]
        if 0 <= row < numbers[7] and 0 <= column < numbers[8]:
            return kept[0] + (row * numbers[8] + column) * numbers[9] + k - tap * numbers[10]
        return np.int64(-1)

    at_word = device(at_word)

    def one(operand, kept, k, numbers):
        at = at_word(kept, k, numbers)
        return word(operand[at]) if at >= 0 else none

    one = device(one)

    def fetch_windows(operand, kept, step, numbers):
        k = kept[3] + step * depth
        if numbers[20]:
            at = at_word(kept, k, numbers)
            if at >= 0:
                words = load4(operand, at)
                return word(words[0]), word(words[1]), word(words[2]), word(words[3])
            return none, none, none, none
        return (
            one(operand, kept, k, numbers), one(operand, kept, k + 1, numbers), one(operand, kept, k + 2, numbers),
            one(operand, kept, k + 3, numbers),
        )  # fmt: skip

    return device(start_windows), device(fetch_windows), True


# numbers[23:] are: height, width and channels of the results; first row and column, steps down and right; channels of a group.
@device
def _row_of_window(numbers, row, group):
    if row >= numbers[4]:
        return np.int64(-1)
    image = row // numbers[6]
    pixel = row - image * numbers[6]
    line = pixel // numbers[5]
    y, x = numbers[26] + line * numbers[28], numbers[27] + (pixel - line * numbers[5]) * numbers[29]
    return ((image * numbers[23] + y) * numbers[24] + x) * numbers[25] + group * numbers[30]


@device
def _columns_of_window(numbers, column):
    return column, numbers[30] - column


def _sources(kind, count):
    """Return the signatures of a tiled kernel over an image."""
    word, sums = (f"int{8 * np.dtype(which).itemsize}[::1]" for which in (kind.word, kind.sums))
    image = ("int32[::1]",) if kind is BYTES else ("int16[::1]", word) if kind is WORDS else (word,)
    return [(one, word, sums, f"UniTuple(int64, {count})") for one in image]


def _tiled_windows(kind: Kind, shape: Shape) -> Any:
    operands, signatures = (_windows(kind, shape), packed(kind, shape, 21)), tuple(map(", ".join, _sources(kind, 31)))
    return tiled(kind, shape, *operands, _row_of_window, _columns_of_window, signatures)


_TILED = {(kind, shape): _tiled_windows(kind, shape) for kind in KINDS for shape in shapes_of(kind)}


def _convolve(kind, shape, image, image_shape, groups, padded, taps, weights, grid, stride, padding, out, columns, place):
    """Convolve with packed weights, see `_windows` and `_row_of_window`."""
    n, height, width = image_shape[:3]
    inner = kind.words_of(padded)
    rows, words = n * grid[0] * grid[1], taps[0] * taps[1] * inner
    whole = inner % 4 == 0 and aligned(image, 4)
    start(
        _TILED[kind, shape], shape, (rows, columns, words, groups), image, weights, out.reshape(-1),
        columns % 4 == 0, rows, grid[1], grid[0] * grid[1], height, width, groups * inner, inner, *stride, *padding,
        *divider(inner), *divider(taps[1]), taps[1], int(whole), padded_side(shape, columns),
        padded_words(kind, shape, taps[0] * taps[1] * padded) * padded_side(shape, columns), *out.shape[1:], *place, columns,
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
        (0, 0, 1, 1),
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
    if not (dy.size and weights.size) or kh < stride[0] or kw < stride[1]:
        clear(out)  # some pixels are not touched
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


# 4. Windows of an image as the columns of a product ------------------------------------------------------------------------------


def _window_columns(kind: Kind, shape: Shape) -> Any:
    """Return the functions of an image's windows as columns, summed over pixels of `dy`, see `tiled`.

    ``numbers[7:]`` are: pixels of `dy`; divider by an image's and this; divider by a line's and this; height, width and words of
    a pixel of the image; words of a tap; stride down and right; padding at the top and the left; taps in a row, and all.
    """
    across, depth, word, none, together = shape.side // 4, shape.depth, kind.word, kind.word(0), kind.together

    def start_columns(numbers, first, group, thread):
        own = (first + thread % across * 4) // together
        tap = own // numbers[17]
        ky = tap // numbers[22]
        top = ky - numbers[20] if tap < numbers[23] else np.int64(_OUTSIDE)
        at = group * numbers[17] + own - tap * numbers[17]
        return top, tap - ky * numbers[22] - numbers[21], at, thread // across

    def at_pixel(kept, pixel, numbers):
        image = quotient(pixel, numbers[8], numbers[9])
        rest = pixel - image * numbers[10]
        line = quotient(rest, numbers[11], numbers[12])
        row, column = kept[0] + line * numbers[18], kept[1] + (rest - line * numbers[13]) * numbers[19]
        if pixel < numbers[7] and 0 <= row < numbers[14] and 0 <= column < numbers[15]:
            return ((image * numbers[14] + row) * numbers[15] + column) * numbers[16] + kept[2]
        return np.int64(-1)

    at_pixel = device(at_pixel)

    def one(operand, kept, pixel, numbers):
        at = at_pixel(kept, pixel, numbers)
        return word(operand[at]) if at >= 0 else none

    one = device(one)

    def fetch_bytes(operand, kept, step, numbers):
        pixel = (kept[3] + step * depth) * 4
        return transpose_bytes((
            one(operand, kept, pixel, numbers), one(operand, kept, pixel + 1, numbers),
            one(operand, kept, pixel + 2, numbers), one(operand, kept, pixel + 3, numbers),
        ))  # fmt: skip

    def fetch_words(operand, kept, step, numbers):
        at = at_pixel(kept, kept[3] + step * depth, numbers)
        if at >= 0:
            words = load4(operand, at)
            return word(words[0]), word(words[1]), word(words[2]), word(words[3])
        return none, none, none, none

    return device(start_columns), device(fetch_bytes if together == 4 else fetch_words), False


# numbers[4:7] are rows, and width and words of the packed `dy`; numbers[24:] channels of a tap, these padded, taps' channels.
@device
def _row_of_weights(numbers, row, group):
    return (group * numbers[4] + row) * numbers[26] if row < numbers[4] else np.int64(-1)


@device
def _columns_of_weights(numbers, column):
    tap = column // numbers[25]
    channel = column - tap * numbers[25]
    return tap * numbers[24] + channel, numbers[24] - channel if tap < numbers[23] else np.int64(0)


def _tiled_columns(kind: Kind, shape: Shape) -> Any:
    operands = packed(kind, shape, 5), _window_columns(kind, shape)
    signatures = tuple(f"{words}, {image}, {sums}, {numbers}" for image, words, sums, numbers in _sources(kind, 27))
    return tiled(kind, shape, *operands, _row_of_weights, _columns_of_weights, signatures)


_TILED_WEIGHTS = {(kind, shape): _tiled_columns(kind, shape) for kind in KINDS for shape in shapes_of(kind)}


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
        _TILED_WEIGHTS[kind, shape], shape, (group_out, kh * kw * padded, words, groups), rows, image, out.reshape(-1),
        c % 4 == 0, group_out, width, padded_words(kind, shape, pixels) * width, pixels, *divider(area), area,
        *divider(dy.shape[2]), dy.shape[2], *x.shape[1:3], groups * inner, inner, *stride, *padding[::2], kw, kh * kw, c, padded,
        kh * kw * c,
    )  # fmt: skip
