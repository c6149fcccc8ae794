"""The calls of ``kernels/*.py`` for arrays on the device: the same names, arguments and results.

What a call decides by (extremes, sums of magnitudes, counts) comes back as a few numbers; tensors stay where they are. What
stands beside them (shifts of blocks, factors of channels, labels, rows) lives on the host and is sent along.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet.arithmetic import FLOOR
from intnet.kernels.cuda import (
    activation,
    bounds,
    combine,
    convolution,
    images,
    linear,
    loss,
    normalize,
    pooling,
    product,
    reduce,
)
from intnet.kernels.cuda import requantize as requantization
from intnet.kernels.cuda import update as updates
from intnet.kernels.cuda._driver import empty, is_on_device, to_device, to_host, zeros
from intnet.kernels.place import constant
from intnet.kernels.plain.normalize import TABLE_ROWS
from intnet.kernels.requantization import NO_SEQUENCE, SATURATE, word_of
from intnet.random import sequence_words

multiply = product.multiply
multiply_fast = product.multiply_fast
limit_sums = product.limit_sums
exact_convolutions = (convolution.conv2d, convolution.conv2d_backward_input, convolution.conv2d_backward_weights)
fast_convolutions = (convolution.conv2d_fast, convolution.conv2d_backward_input_fast, convolution.conv2d_backward_weights_fast)


# 1. Element by element ---------------------------------------------------------------------------------------------------


def each(name: str, arrays: Sequence[Any], arguments: Sequence[Any], kind: Any) -> Any:
    """Apply an activation's kernel; tables among the arguments never change."""
    out = empty(arrays[0].shape, kind)
    ready = [constant(one) if isinstance(one, np.ndarray) else one for one in arguments]
    getattr(activation, name)(*(to_device_flat(one) for one in arrays), *ready, out.reshape(-1))
    return out


def to_device_flat(array: Any) -> Any:
    """Return an array on the device as one axis."""
    return (array if is_on_device(array) else to_device(array)).reshape(-1)


def converted(values: Any, kind: Any) -> Any:
    """Return integers as another type that holds them."""
    if values.dtype == np.dtype(kind):
        return values
    if np.dtype(kind).itemsize < 4:
        word = word_of(8 * np.dtype(kind).itemsize, True, SATURATE)
        return requantize(values, 0, FLOOR, word, empty(values.shape, kind), values.size)
    return linear_combination([(values, 1, 0)], 1, kind)


def dropout(x: Any, keep: int, seed: int, stream: int, step: int) -> Any:
    """See :func:`intnet.kernels.dropout`."""
    out = empty(x.shape, x.dtype)
    activation.dropout(x.reshape(-1), 0, x.size, keep, *sequence_words(seed, stream, step), out.reshape(-1))
    return out


def linear_combination(terms: Sequence[tuple[Any, int, Any]], rows: int, kind: Any) -> Any:
    """See :func:`intnet.kernels.linear_combination`."""
    first = terms[0][0]
    out = empty(first.shape, kind)
    if not out.size:
        return out
    arguments: list[Any] = []
    for values, factor, shifts in terms:
        data = to_device_flat(values)
        arguments += (data, data.dtype.itemsize, factor, _shift(shifts) if isinstance(shifts, int) else _row_shifts(shifts))
    for _ in range(3 - len(terms)):
        arguments += (None, 1, 0, None)
    arguments += (out.size // rows, out.reshape(-1))
    combine.linear_combination(len(terms), 0, out.size, *arguments)
    return out


@lru_cache(1024)
def _shift(shift: int) -> Any:
    return to_device(np.array([shift]))  # only ever read


def _row_shifts(shifts: ArrayLike) -> Any:
    array = np.asarray(shifts, np.int64).reshape(-1)
    return _shift(int(array[0])) if array.size == 1 else to_device(array)


def add_bias(sums: Any, bias: Any, word: Sequence[Any]) -> int:
    """Add one bias to all rows; -1 if it is too large."""
    return combine.add_bias(sums.reshape(-1), to_device_flat(bias), *word)


def add_bias_any(sums: Any, bias: Any, rows_per_group: int, *word: Any) -> int:
    """See :func:`intnet.kernels.plain.combine.add_bias_any`."""
    bias = bias if is_on_device(bias) else to_device(bias)
    return combine.add_bias_any(sums, bias, rows_per_group, *word)


# 2. Rounding -------------------------------------------------------------------------------------------------------------


def requantize(
    values: Any, shifts: Any, mode: int, word: Sequence[Any], out: Any, length: int, sequence: Any = NO_SEQUENCE,
    first_index: int = 0, random_bits: int = 32, counters: Any = None,
) -> Any:  # fmt: skip
    """Round into a word, and return `out`.

    `shifts` live on the host, as :func:`intnet.kernels.requantization.shifts_of_layout` gives them.
    """
    if values.size:
        data, made = values.reshape(-1), out.reshape(-1)
        tensors = data, data.dtype.itemsize, made, made.dtype.itemsize, 0, values.size
        how: tuple[Any, ...] = (length, mode, *word, sequence, first_index, random_bits, counters)
        requantization.requantize(*tensors, shifts, *how)
    return out


def extents(values: Any, rows: int, length: int, inner: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the least and the greatest of every block, (rows, inner), on the host."""
    found = empty((2, rows, inner), np.int64)
    requantization.extents(values.reshape(rows, length, inner), 0, rows, found[0], found[1])
    least, greatest = to_host(found)
    return least, greatest


# 3. Sums -----------------------------------------------------------------------------------------------------------------


def extremes(values: Any) -> tuple[int, int]:
    """See :func:`intnet.kernels.extremes`."""
    least, greatest = reduce.extremes(values.reshape(-1))
    return int(least), int(greatest)


def largest_sum(values: Any, count: int, in_rows: bool) -> int:
    """See :func:`intnet.kernels.product.largest_sum`."""
    flat = values.reshape(-1)
    return int(bounds.largest_row_sum(flat, count)) if in_rows else int(bounds.sums_of_columns(flat, count).max())


count_filled = reduce.count_filled
count_unmoved = reduce.count_unmoved


def sum_axis(x: Any, outer: int, size: int, inner: int) -> Any:
    """Add up the middle axis of three, modulo ``2**64``."""
    out = empty((outer, inner), np.int64)
    if size:
        reduce.sum_axis(x.reshape(-1), size, out)
        return out
    return zeros((outer, inner), np.int64)


def split_words(x: Any) -> tuple[Any, Any]:
    """Return the upper and the lower 32 bits of int64, apart."""
    high, low = empty(x.shape, np.int64), empty(x.shape, np.int64)
    reduce.split_words(converted(x, np.int64).reshape(-1), high.reshape(-1), low.reshape(-1))
    return high, low


def join_sums(high: Any, low: Any) -> tuple[Any, int]:
    """Return sums of words joined, and how many lie outside int64."""
    sums = empty(high.shape, np.int64)
    return sums, int(reduce.join_sums(high.reshape(-1), low.reshape(-1), sums.reshape(-1)))


def argmax_rows(x: Any) -> NDArray[np.int64]:
    """See :func:`intnet.kernels.argmax_rows`; on the host."""
    out = empty(x.shape[0], np.int64)
    reduce.argmax_rows(x, out)
    return to_host(out)


# 4. Pooling, images, losses ----------------------------------------------------------------------------------------------


def max_pool(x: Any, window: Any, stride: Any, padding: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """See :func:`intnet.kernels.max_pool`."""
    out, places = empty(shape, x.dtype), empty(shape, np.int32)
    pooling.max_pool(x, window, stride, padding, out, places)
    return out, places


def max_pool_backward(dy: Any, places: Any, shape: tuple[int, int, int], kind: Any, overlapping: bool) -> Any:
    """Add every gradient to its pixel, in (n, pixels, channels)."""
    out = zeros(shape, kind)
    pooling.max_pool_backward(dy, places, out, overlapping)
    return out


def sum_pool(name: str, x: Any, window: Any, stride: Any, padding: Any, shape: tuple[int, ...], kind: Any) -> Any:
    """Add up windows, forward ("sum_pool") or backward ("sum_pool_backward")."""
    out = zeros(shape, kind)
    getattr(pooling, name)(x, window, stride, padding, out)
    return out


def gather(codes: Any, rows: NDArray[np.int64], table: NDArray[Any]) -> Any:
    """See :func:`intnet.kernels.gather`."""
    out = empty((len(rows), codes.shape[1]), table.dtype)
    images.gather(codes, to_device(rows), constant(table).reshape(-1), len(table), out)
    return out


def gather_augmented(
    codes: Any, rows: NDArray[np.int64], shape: tuple[int, int, int], table: NDArray[Any], moved: Sequence[NDArray[Any]],
    padding: int, fill_code: int,
) -> Any:  # fmt: skip
    """See :func:`intnet.kernels.gather_augmented`; `moved` are tops, lefts and flips."""
    out = empty((len(rows), codes.shape[1]), table.dtype)
    there = [to_device(one) for one in (rows, *moved)]
    taken: tuple[Any, ...] = (constant(table).reshape(-1), len(table), *there[1:], padding, fill_code, out)
    images.gather_augmented(codes, there[0], shape, *taken)
    return out


def gradient_of_rows(name: str, logits: Any, exponents: ArrayLike, labels: NDArray[np.int64]) -> Any:
    """Apply "softmax_gradient" or "niti_gradient"."""
    out = empty(logits.shape, np.int32)
    each_row = to_device(np.asarray(exponents, np.int64).reshape(-1))
    getattr(loss, name)(converted(logits, np.int64), each_row, to_device(labels), out)
    return out


def subtract_target(y: Any, labels: NDArray[np.int64], amplitude: int, kind: Any) -> Any:
    """See :func:`intnet.kernels.subtract_target`."""
    out = empty(y.shape, kind)
    loss.subtract_target(y, to_device(labels), amplitude, out)
    return out


def count_correct(logits: Any, labels: NDArray[np.int64]) -> int:
    """See :func:`intnet.kernels.count_correct`."""
    return int(loss.count_correct(logits, to_device(labels)))


# 5. Linear maps, and updates ---------------------------------------------------------------------------------------------


def channel_sums(a: Any, b: Any, run: int, lanes: int, narrow: bool) -> NDArray[np.int64]:
    """Return the table of :func:`intnet.kernels.plain.normalize.channel_sums`, on the host."""
    table = empty((TABLE_ROWS, a.shape[1]), np.int64)
    sums = empty(lanes, np.int32 if narrow else np.int64)  # only its type and length matter
    normalize.channel_sums(a.reshape(-1), b.reshape(-1), run, sums, None, None, None, table)
    return to_host(table)


def evaluate(a: Any, b: Any, factors: NDArray[Any], shape: tuple[int, int]) -> tuple[Any, tuple[int, int]]:
    """Compute a linear map of channels, and find its least and greatest result."""
    out = empty(shape, factors.dtype)
    return out, linear.multiply_add(a, b, to_device(factors), out.reshape(-1))


def bounds_of(a: Any, b: Any, factors: NDArray[Any]) -> tuple[int, int]:
    """Return the least and the greatest result of a linear map."""
    return linear.extremes_of_map(a, b, to_device(factors))


def evaluate_requantized(
    a: Any, b: Any, factors: NDArray[Any], shift: int, mode: int, word: Sequence[Any], sequence: Any, random_bits: int,
    shape: tuple[int, int], kind: Any, counters: Any,
) -> Any:  # fmt: skip
    """Compute a linear map, rounded at once."""
    out = empty(shape, kind)
    how: tuple[Any, ...] = (shift, mode, *word, sequence, random_bits, None, None, out.reshape(-1), None, counters)
    linear.multiply_add_requantize(a, b, to_device(factors), 0, out.size, *how)
    return out


def update(
    sums: Any, weights: Any, velocity: Any, roles: Any, factors: Any, keys: Sequence[Any],
    step: int, counters: Any, narrow: bool,
) -> None:  # fmt: skip
    """Move weights, and their momentum unless `velocity` is None."""
    sums = sums.reshape(-1)
    width = 0 if velocity is None else velocity.dtype.itemsize
    tensors = sums, sums.dtype.itemsize, weights, weights.dtype.itemsize, weights if velocity is None else velocity, width
    how: tuple[Any, ...] = (roles, factors, *keys, np.uint64(step), counters, narrow)
    updates.update(*tensors, 0, weights.size, *how)
