"""Reductions on the GPU: see :mod:`intnet.kernels.plain.reduce`.

Sums down columns: neighbouring threads take neighbouring columns, and each adds up some rows before it meets the others, by an
atomic. Sums along rows: a block of threads takes a row, or a part of it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import high_word, join_products, join_words, low_word, product_words, words_leave_int64
from intnet.kernels.cuda._device import block_sum, clear, flat, has_bits, new_extremes, take_extremes
from intnet.kernels.cuda._driver import THREADS, cuda, kernel, to_host, zeros

__all__ = ["argmax_rows", "extremes", "join_sums", "moments", "moments_by_words", "split_words", "sum_axis"]

_TYPES = [f"int{bits}[::1]" for bits in (8, 16, 32, 64)]
_EACH = 16  # elements that a thread takes at least where it ends with an atomic
_TASKS = 1 << 16  # threads worth starting
_PART = 1 << 14  # elements of a row that are worth a block of threads
_WORDS = 6  # that `moments_by_words` adds up for a column


def rows_of_a_task(rows: int, columns: int) -> int:
    """Return how many rows of a column a thread adds up, so that there are enough threads."""
    return max(_EACH, -(-rows * columns // _TASKS))


# 1. Extremes -------------------------------------------------------------------------------------------------------------


@kernel(*(f"{values}, int64, int64[::1]" for values in _TYPES))
def _extremes(values, size, found):
    least, greatest = values[0], values[0]
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        value = values[np.uint64(i)]
        least, greatest = min(least, value), max(greatest, value)
    take_extremes(found, least, greatest)


def extremes(values: Any) -> tuple[int, int]:
    """Do what :func:`intnet.kernels.plain.reduce.extremes` does."""
    found, values = new_extremes(), flat(values)
    _extremes(-(-values.size // _EACH), values, values.size, found)
    least, greatest = to_host(found)
    return int(least), int(greatest)


# 2. Sums -----------------------------------------------------------------------------------------------------------------


@kernel(*(f"{values}, int64, int64, int64, int64, int64, boolean, boolean, int64[::1]" for values in _TYPES))
def _sum_columns(x, outer, size, inner, each, parts, magnitudes, adds, out):
    """Add up the middle axis of (outer, size, inner), or magnitudes, in `parts` of `each`; `out` is written, or added to."""
    for task in range(cuda.grid(1), outer * parts * inner, cuda.gridsize(1)):
        above = task // inner
        column, o = task - above * inner, above // parts
        first = (above - o * parts) * each
        place, step = np.uint64((o * size + first) * inner + column), np.uint64(inner)
        total = np.int64(0)
        for _ in range(first, min(first + each, size)):
            value = np.int64(x[place])
            total += -value if magnitudes and value < 0 else value
            place = np.uint64(place + step)
        if adds:
            cuda.atomic.add(out, o * inner + column, total)
        else:
            out[o * inner + column] = total


@kernel(*(f"{values}, int64, int64, int64, int64, boolean, boolean, int64[::1]" for values in _TYPES))
def _sum_rows(x, rows, size, each, parts, magnitudes, adds, out):
    """Add up rows, or magnitudes; as `_sum_columns`."""
    for task in range(cuda.blockIdx.x, rows * parts, cuda.gridDim.x):
        row = task // parts
        first = (task - row * parts) * each
        total = np.int64(0)
        for k in range(row * size + first + cuda.threadIdx.x, row * size + min(first + each, size), cuda.blockDim.x):
            value = np.int64(x[np.uint64(k)])
            total += -value if magnitudes and value < 0 else value
        total = block_sum(total)
        if cuda.threadIdx.x == 0:
            if adds:
                cuda.atomic.add(out, row, total)
            else:
                out[row] = total


def add_up(x: Any, outer: int, size: int, inner: int, magnitudes: bool, out: Any) -> None:
    """Write sums over the middle axis, or of magnitudes, into `out`, (outer * inner,) int64; modulo ``2**64``."""
    along = inner == 1 and size >= THREADS
    each = _PART if along else rows_of_a_task(size, outer * inner)
    parts = max(1, -(-size // each))
    if parts > 1:
        clear(out)
    if along:
        _sum_rows(outer * parts * THREADS, x, outer, size, each, parts, magnitudes, parts > 1, out)
    else:
        _sum_columns(outer * parts * inner, x, outer, size, inner, each, parts, magnitudes, parts > 1, out)


def sum_axis(x: Any, size: int, out: Any) -> None:
    """Do what :func:`intnet.kernels.plain.reduce.sum_axis` does."""
    outer, inner = out.shape
    add_up(flat(x), outer, int(size), inner, False, flat(out))


@kernel(*(f"{kind}[::1], int64[::1]" for kind in ("int8", "int16", "int32", "int64")))
def _count_filled(x, found):
    count = np.int64(0)
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        count += np.int64(x[np.uint64(i)] != 0)
    count = block_sum(count)
    if cuda.threadIdx.x == 0 and count > 0:
        cuda.atomic.add(found, 0, count)


def count_filled(x: Any) -> int:
    """Return how many integers are not zero."""
    found = zeros(1, np.int64)
    _count_filled(x.size, flat(x), found)
    return int(to_host(found)[0])


@kernel("int8[::1], int8[::1], int16[::1], int16[::1], int64[::1]", "int8[::1], int8[::1], int8[::1], int8[::1], int64[::1]")
def _count_unmoved(first, second, before, after, found):
    count = np.int64(0)
    for i in range(cuda.grid(1), before.size, cuda.gridsize(1)):
        place = np.uint64(i)
        moves = first[place] != 0 or second[place] != 0
        count += np.int64(moves and before[place] == after[place])
    count = block_sum(count)
    if cuda.threadIdx.x == 0 and count > 0:
        cuda.atomic.add(found, 0, count)


def count_unmoved(moves: Sequence[Any], before: Any, after: Any) -> int:
    """Return in how many places one of up to two moves is not zero, and nothing has changed."""
    found = zeros(1, np.int64)
    first, second = flat(moves[0]), flat(moves[-1])
    _count_unmoved(before.size, first, second, flat(before), flat(after), found)
    return int(to_host(found)[0])


@kernel("int64[::1], int64, int64[::1], int64[::1]")
def _split_words(values, size, high, low):
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        high[i], low[i] = high_word(values[i]), low_word(values[i])


def split_words(values: Any, high: Any, low: Any) -> None:
    """Do what :func:`intnet.kernels.plain.reduce.split_words` does."""
    _split_words(values.size, values, values.size, high, low)


@kernel("int64[::1], int64[::1], int64, int64[::1], int64[::1]")
def _join_sums(high, low, size, out, found):
    left = np.int64(0)
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        out[i] = join_words(high[i], low[i])
        left += np.int64(words_leave_int64(high[i], low[i]))
    left = block_sum(left)
    if cuda.threadIdx.x == 0 and left > 0:
        cuda.atomic.add(found, 0, left)


def join_sums(high: Any, low: Any, out: Any) -> int:
    """Do what :func:`intnet.kernels.plain.reduce.join_sums` does."""
    found = zeros(1, np.int64)
    _join_sums(high.size, high, low, high.size, out, found)
    return int(to_host(found)[0])


# 3. Moments --------------------------------------------------------------------------------------------------------------


@jit
def square_32(value):
    """Return the square of an integer of up to 16 bits, by a product of 32."""
    return np.int64(np.int32(np.int32(value) * np.int32(value)))


@kernel(*(f"{values}, int64, int64, int64, int64, int64[::1], int64[::1]" for values in _TYPES))
def _moments(x, rows, columns, each, parts, sums, squares):
    short = has_bits(x, 16)  # known when it is compiled
    for task in range(cuda.grid(1), parts * columns, cuda.gridsize(1)):
        part = task // columns
        column, first = task - part * columns, part * each
        place, step = np.uint64(first * columns + column), np.uint64(columns)
        total = of_squares = np.int64(0)
        for _ in range(first, min(first + each, rows)):
            total += np.int64(x[place])
            of_squares += square_32(x[place]) if short else np.int64(x[place]) * np.int64(x[place])
            place = np.uint64(place + step)
        if parts > 1:
            cuda.atomic.add(sums, column, total)
            cuda.atomic.add(squares, column, of_squares)
        else:
            sums[column], squares[column] = total, of_squares


def moments(x: Any, sums: Any, squares: Any) -> None:
    """Do what :func:`intnet.kernels.plain.reduce.moments` does."""
    rows, columns = x.shape
    each = rows_of_a_task(rows, columns)
    parts = max(1, -(-rows // each))
    if parts > 1:
        clear(sums)
        clear(squares)
    _moments(parts * columns, flat(x), rows, columns, each, parts, sums, squares)


@kernel(*(f"{values}, int64, int64, int64, int64, int64[::1]" for values in _TYPES[2:]))
def _words_of_moments(x, rows, columns, each, parts, words):
    for task in range(cuda.grid(1), parts * columns, cuda.gridsize(1)):
        part = task // columns
        column, first = task - part * columns, part * each
        sum_high = sum_low = top_high = top_low = high = low = np.int64(0)
        for i in range(first, min(first + each, rows)):
            value = np.int64(x[np.uint64(i * columns + column)])
            sum_high += high_word(value)
            sum_low += low_word(value)
            of_square = product_words(value, value)
            top_high += of_square[0]
            top_low += of_square[1]
            high += of_square[2]
            low += of_square[3]
        cuda.atomic.add(words, column, sum_high)
        cuda.atomic.add(words, columns + column, sum_low)
        cuda.atomic.add(words, 2 * columns + column, top_high)
        cuda.atomic.add(words, 3 * columns + column, top_low)
        cuda.atomic.add(words, 4 * columns + column, high)
        cuda.atomic.add(words, 5 * columns + column, low)


@kernel("int64[::1], int64, int64[::1], int64[::1], int64[::1]")
def _join_moments(words, columns, sums, squares, found):
    left = np.int64(0)
    for c in range(cuda.grid(1), columns, cuda.gridsize(1)):
        sum_high, sum_low = words[c], words[columns + c]
        beyond, square_of = join_products(
            words[2 * columns + c], words[3 * columns + c], words[4 * columns + c], words[5 * columns + c]
        )
        sums[c], squares[c] = join_words(sum_high, sum_low), square_of
        left += np.int64(words_leave_int64(sum_high, sum_low)) + np.int64(beyond != 0)
    left = block_sum(left)
    if cuda.threadIdx.x == 0 and left > 0:
        cuda.atomic.add(found, 0, left)


def moments_by_words(x: Any, sums: Any, squares: Any) -> int:
    """Do what :func:`intnet.kernels.plain.reduce.moments_by_words` does."""
    rows, columns = x.shape
    each = rows_of_a_task(rows, columns)
    parts = max(1, -(-rows // each))
    words, found = zeros(_WORDS * columns, np.int64), zeros(1, np.int64)
    _words_of_moments(parts * columns, flat(x), rows, columns, each, parts, words)
    _join_moments(columns, words, columns, sums, squares, found)
    return int(to_host(found)[0])


# 4. Where the largest stand ----------------------------------------------------------------------------------------------


@kernel(*(f"{values}, int64, int64, int64[::1]" for values in _TYPES))
def _argmax_rows(x, rows, columns, out):
    for i in range(cuda.grid(1), rows, cuda.gridsize(1)):
        start, best = i * columns, np.int64(0)
        largest = x[np.uint64(start)]
        for k in range(1, columns):
            value = x[np.uint64(start + k)]
            if value > largest:
                largest, best = value, np.int64(k)
        out[i] = best


def argmax_rows(x: Any, out: Any) -> None:
    """Do what :func:`intnet.kernels.plain.reduce.argmax_rows` does."""
    rows, columns = x.shape
    _argmax_rows(rows, flat(x), rows, columns, out)
