"""Pooling, exact: sums in the type of their proven bound. Images have their channels last, arrays are C-contiguous."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from intnet.kernels import _parallel
from intnet.kernels.convolution import Padding, Pair, output_size
from intnet.kernels.place import gpu, on_device
from intnet.kernels.plain import pooling as plain
from intnet.kernels.product import Integers, largest_of_type
from intnet.kernels.reduce import sum_by_words

_WORTH_A_THREAD = 2**16  # values read


def max_pool(x: Integers, window: Pair, *, stride: Pair, padding: Padding = (0, 0, 0, 0)) -> tuple[Integers, NDArray[np.int32]]:
    """Take the largest value of every window.

    Parameters
    ----------
    x : (n, height, width, channels) integers
        Fewer than ``2**31`` pixels an image.
    window, stride : (int, int)
        Down and to the right.
    padding : (int, int, int, int)
        Top, bottom, left, right; no window may lie wholly outside. A value in the padding is never the largest.

    Returns
    -------
    largest : (n, out height, out width, channels) of the type of `x`
    places : the same shape, int32
        The pixel ``row * width + column`` of the first of the largest values.
    """
    shape = _pooled_shape(x, window, stride, padding)
    if on_device(x):
        return gpu().max_pool(x, window, stride, padding, shape)
    out, places = np.empty(shape, x.dtype), np.empty(shape, np.int32)
    _for_images(
        lambda first, last: plain.max_pool(x[first:last], window, stride, padding, out[first:last], places[first:last]),
        len(x),
        out.size * window[0] * window[1],
    )
    return out, places


def max_pool_backward(
    dy: Integers, places: NDArray[np.int32], size: Pair, window: Pair, *, stride: Pair
) -> tuple[Integers, int]:
    """Return the gradient of the input of `max_pool`: every gradient goes to the pixel that was the largest.

    Parameters
    ----------
    dy : (n, out height, out width, channels) integers
    places : the same shape, int32, from `max_pool`
    size : (int, int)
        Height and width of the input.
    window, stride : as in `max_pool`

    Returns
    -------
    sums : (n, height, width, channels)
        Of the type of `dy` where windows do not overlap, else int32 if the type of `dy` proves that sums fit, else int64.
    left : int
        How many sums lay outside int64.
    """
    n, channels = dy.shape[0], dy.shape[3]

    def add(values: Integers, type_: type) -> Integers:
        if on_device(values):
            shape, overlapping = (n, size[0] * size[1], channels), _overlap(window, stride) > 1
            return gpu().max_pool_backward(values, places, shape, type_, overlapping).reshape(n, *size, channels)
        out: Integers = np.zeros((n, size[0] * size[1], channels), type_)
        _for_images(
            lambda first, last: plain.max_pool_backward(values[first:last], places[first:last], out[first:last]), n, dy.size
        )
        return out.reshape(n, *size, channels)

    return _summed(add, dy, _overlap(window, stride))


def sum_pool(x: Integers, window: Pair, *, stride: Pair, padding: Padding = (0, 0, 0, 0)) -> tuple[Integers, int]:
    """Add up every window: average pooling, before the division.

    Parameters
    ----------
    x, window, stride, padding : as in `max_pool`; windows may lie outside, zeros add nothing

    Returns
    -------
    sums : (n, out height, out width, channels) int32 if the type of `x` proves that sums fit, else int64
    left : int
        How many sums lay outside int64.
    """
    shape = _pooled_shape(x, window, stride, padding)

    def add(values: Integers, type_: type) -> Integers:
        if on_device(values):
            return gpu().sum_pool("sum_pool", values, window, stride, padding, shape, type_)
        out: Integers = np.zeros(shape, type_)
        _for_images(
            lambda first, last: plain.sum_pool(values[first:last], window, stride, padding, out[first:last]),
            len(x),
            out.size * window[0] * window[1],
        )
        return out

    return _summed(add, x, window[0] * window[1], of_operand=False)


def sum_pool_backward(
    dy: Integers, size: Pair, window: Pair, *, stride: Pair, padding: Padding = (0, 0, 0, 0)
) -> tuple[Integers, int]:
    """Return the gradient of the input of `sum_pool`: every gradient goes to all pixels of its window.

    Parameters
    ----------
    dy : (n, out height, out width, channels) integers
    size : (int, int)
        Height and width of the input.
    window, stride, padding : as in `sum_pool`

    Returns
    -------
    sums : (n, height, width, channels)
        As in `max_pool_backward`.
    left : int
        How many sums lay outside int64.
    """
    n, channels = dy.shape[0], dy.shape[3]

    def add(values: Integers, type_: type) -> Integers:
        if on_device(values):
            return gpu().sum_pool("sum_pool_backward", values, window, stride, padding, (n, *size, channels), type_)
        out: Integers = np.zeros((n, *size, channels), type_)
        _for_images(
            lambda first, last: plain.sum_pool_backward(values[first:last], window, stride, padding, out[first:last]),
            n,
            dy.size * window[0] * window[1],
        )
        return out

    return _summed(add, dy, _overlap(window, stride))


def spread(x: Integers, size: Pair) -> Integers:
    """Return images whose pixels all are the row of `x`: (n, channels) to (n, height, width, channels), of the same type."""
    n, channels = x.shape
    if on_device(x):
        sums, _ = sum_pool_backward(x.reshape(n, 1, 1, channels), size, size, stride=(1, 1))
        return gpu().converted(sums, x.dtype.type)
    return np.ascontiguousarray(np.broadcast_to(x[:, None, None, :], (n, *size, channels)))


def _pooled_shape(x: Integers, window: Pair, stride: Pair, padding: Padding) -> tuple[int, int, int, int]:
    n, height, width, channels = x.shape
    rows = output_size(height, window[0], stride[0], padding[0], padding[1])
    return n, rows, output_size(width, window[1], stride[1], padding[2], padding[3]), channels


def _overlap(window: Pair, stride: Pair) -> int:
    """Return how many windows a pixel lies in, at most."""
    return -(-window[0] // stride[0]) * -(-window[1] // stride[1])


def _for_images(work: Callable[[int, int], None], images: int, values: int) -> None:
    """Share images among threads."""
    _parallel.run(work, _parallel.pieces_of(images, minimum=max(1, _WORTH_A_THREAD * images // max(1, values))))


def _summed(
    add: Callable[[Integers, type], Integers], x: Integers, terms: int, of_operand: bool = True
) -> tuple[Integers, int]:
    """Add in the narrowest type that the type of `x` proves wide enough; that of `x` if nothing is added and it may be."""
    if terms <= 1 and of_operand:
        return add(x, x.dtype.type), 0
    if largest_of_type(x) * terms < 2**31:
        return add(x, np.int32), 0
    return sum_by_words(lambda values: add(values, np.int64), x, terms)
