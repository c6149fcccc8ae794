"""Convolutions: which kernel is sure to be right, and the accumulator at the end.

The rules are those of the matrix product, for the number of products in a sum: ``kh * kw * channels / groups`` forward,
``kh * kw * out channels / groups`` backward to the input, the number of output pixels backward to the weights.

Images have their channels last, ``(n, height, width, channels)``, and weights are ``(out channels, kh, kw, channels /
groups)``: a patch is then a few contiguous runs of memory, and the integers that a processor multiplies together lie side
by side. Arguments have been checked and made C-contiguous by the caller.
"""

from collections.abc import Callable

import numpy as np

from intnet.kernels.place import empty_beside, gpu, move_beside, on_device, to_host
from intnet.kernels.plain import convolution as plain_convolution
from intnet.kernels.product import Integers, Side, choose, choose_for, into_accumulator, largest_of_type
from intnet.kernels.simd import convolution as simd_convolution
from intnet.kernels.simd import convolution_weights as simd_weights

_PLAIN = (plain_convolution.conv2d, plain_convolution.conv2d_backward_input, plain_convolution.conv2d_backward_weights)

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def output_size(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Return how many windows of `kernel` pixels, `stride` apart, fit along an axis of `size` pixels with zeros around.

    >>> output_size(32, 3, 2, 1, 1)
    16
    """
    return max(0, (size + before + after - kernel) // stride + 1)


def conv2d(
    x: Integers,
    weights: Integers,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    groups: int = 1,
    accumulator_bits: int | None = None,
    saturates: bool = False,
    largest: Pair | None = None,
) -> tuple[Integers, int]:
    """Convolve exactly, then bring every sum into the accumulator.

    Parameters
    ----------
    x : (n, height, width, channels) C-contiguous int8, int16, int32 or int64
    weights : (out channels, kh, kw, channels // groups) likewise
    stride : (int, int)
        Down and to the right.
    padding : (int, int, int, int)
        Zeros around the image: top, bottom, left, right.
    groups : int
        A divisor of both numbers of channels.
    accumulator_bits : int, 2..64, optional
        Width of the accumulator. By default 32 if the operands' types prove that every sum fits in it, else 64.
    saturates : bool
        Whether sums outside the accumulator saturate; else they wrap. Only the whole sum is looked at, never a part of it.
    largest : (int, int), optional
        Bounds of the operands' magnitudes, where they are known to be less than their types and measuring can be saved.

    Returns
    -------
    sums : (n, out height, out width, out channels) int32 if the accumulator has up to 32 bits, else int64
    left : int
        How many sums lay outside the accumulator.
    """
    out_channels, kh, kw, channels = weights.shape
    shape = (
        x.shape[0],
        output_size(x.shape[1], kh, stride[0], padding[0], padding[1]),
        output_size(x.shape[2], kw, stride[1], padding[2], padding[3]),
        out_channels,
    )
    kernels = (plain_convolution.conv2d, simd_convolution.conv2d)
    geometry, terms = (stride, padding, groups), kh * kw * channels
    sides = None, (lambda: (weights, out_channels, True))
    return _run(kernels, x, weights, geometry, terms, sides, shape, accumulator_bits, saturates, largest)


def conv2d_backward_input(
    dy: Integers,
    weights: Integers,
    size: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    groups: int = 1,
    accumulator_bits: int | None = None,
    saturates: bool = False,
    largest: Pair | None = None,
) -> tuple[Integers, int]:
    """Return the gradient of the input of `conv2d`, exact, then brought into the accumulator.

    Parameters
    ----------
    dy : (n, out height, out width, out channels) C-contiguous int8, int16, int32 or int64
        Gradient of the output.
    weights, stride, padding, groups, accumulator_bits, saturates : as in `conv2d`
    size : (int, int)
        Height and width of the input.
    largest : (int, int), optional
        As in `conv2d`, of `dy` and `weights`.

    Returns
    -------
    sums : (n, height, width, channels) int32 or int64, as in `conv2d`
    left : int
        How many sums lay outside the accumulator.
    """
    out_channels, kh, kw, channels = weights.shape
    kernels = (plain_convolution.conv2d_backward_input, simd_convolution.conv2d_backward_input)
    terms = kh * kw * (out_channels // groups)
    shape = (dy.shape[0], *size, channels * groups)

    def columns() -> tuple[Integers, int, bool]:
        if groups == 1:
            return weights, channels, False
        side = to_host(weights).reshape(groups, -1, channels).swapaxes(1, 2)
        return move_beside(np.ascontiguousarray(side), weights), groups * channels, True

    geometry = (stride, padding, groups)
    return _run(kernels, dy, weights, geometry, terms, (None, columns), shape, accumulator_bits, saturates, largest)


def conv2d_backward_weights(
    x: Integers,
    dy: Integers,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    groups: int = 1,
    accumulator_bits: int | None = None,
    saturates: bool = False,
    largest: Pair | None = None,
) -> tuple[Integers, int]:
    """Return the gradient of the weights of `conv2d`, exact, then brought into the accumulator.

    Parameters
    ----------
    x, stride, padding, groups, accumulator_bits, saturates : as in `conv2d`
    dy : (n, out height, out width, out channels) C-contiguous int8, int16, int32 or int64
        Gradient of the output.
    kernel : (int, int)
        Height and width of the kernel.
    largest : (int, int), optional
        As in `conv2d`, of `x` and `dy`.

    Returns
    -------
    sums : (out channels, kh, kw, channels // groups) int32 or int64, as in `conv2d`
    left : int
        How many sums lay outside the accumulator.
    """
    kernels = (plain_convolution.conv2d_backward_weights, simd_weights.conv2d_backward_weights)
    terms = dy.shape[0] * dy.shape[1] * dy.shape[2]
    shape = (dy.shape[3], *kernel, x.shape[3] // groups)
    # A kernel tap meets a pixel of x once at most.
    sides = (lambda: (x, x.shape[3], False)), (lambda: (dy, dy.shape[3], False))
    return _run(kernels, x, dy, (stride, padding, groups), terms, sides, shape, accumulator_bits, saturates, largest)


def _run(
    kernels: tuple[Callable, Callable],
    a: Integers,
    b: Integers,
    geometry: tuple[Pair, Padding, int],
    terms: int,
    sides: tuple[Side | None, Side | None],
    shape: tuple[int, ...],
    accumulator_bits: int | None,
    saturates: bool,
    largest: Pair | None,
) -> tuple[Integers, int]:
    """Run the plain or the fast kernel on two operands, and bring the sums into the accumulator."""
    of_types = (largest_of_type(a), largest_of_type(b))
    if accumulator_bits is None:
        sure = choose(*of_types, terms)
        accumulator_bits = 32 if sure is not None and sure.sums is np.int32 else 64
    word_type = np.int32 if accumulator_bits <= 32 else np.int64
    choice, proven = choose_for(a, b, of_types if largest is None else largest, terms, accumulator_bits, sides)
    plain_kernel, fast_kernel = kernels
    if on_device(a):
        which = _PLAIN.index(plain_kernel)
        plain_kernel, fast_kernel = gpu().exact_convolutions[which], gpu().fast_convolutions[which]
        if choice is None:
            exact: Integers = empty_beside(a, shape, word_type)
            return exact, int(plain_kernel(a, b, *geometry, accumulator_bits, saturates, exact))
    if choice is None:  # int64 throughout: compiled once
        words: Integers = np.empty(shape, np.int64)
        wide_a, wide_b = a.astype(np.int64, copy=False), b.astype(np.int64, copy=False)
        left = int(plain_kernel(wide_a, wide_b, *geometry, accumulator_bits, saturates, words))
        return words.astype(word_type, copy=False), left
    sums: Integers = empty_beside(a, shape, choice.sums)
    fast_kernel(a, b, *geometry, choice.operands, sums)
    if proven and choice.sums is word_type:
        return sums, 0
    out: Integers = empty_beside(a, shape, word_type)
    return out, into_accumulator(sums, 64 if proven else accumulator_bits, saturates, out)
