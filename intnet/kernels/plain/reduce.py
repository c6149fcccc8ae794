"""Reductions: sums, extremes, and the moments of channels.

`sum_axis` and `moments` add modulo ``2**64``: whoever calls them has proven that nothing leaves it. What leaves it is
summed by words: the upper and the lower 32 bits of every value apart, joined at the end.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import high_word, join_products, join_words, low_word, product_words, words_leave_int64


@jit
def extremes(values):
    """Return the least and the largest of one or more integers, both of their type.

    Parameters
    ----------
    values : (size,) integers
    """
    least, largest = values[0], values[0]
    for i in range(values.shape[0]):
        least = values[i] if values[i] < least else least
        largest = values[i] if values[i] > largest else largest
    return least, largest


@jit
def sum_axis(x, size, out):
    """Add up the middle one of three axes.

    Parameters
    ----------
    x : (outer * size * inner,) integers
    size : int64
    out : (outer, inner) int64, written
    """
    outer, inner = out.shape
    for o in range(outer):
        block = x[o * size * inner : (o + 1) * size * inner]
        if inner == 1:
            total = np.int64(0)
            for k in range(size):
                total += np.int64(block[k])
            out[o, 0] = total
            continue
        for c in range(inner):
            out[o, c] = 0
        for k in range(size):
            row = block[k * inner : (k + 1) * inner]
            for c in range(inner):
                out[o, c] += np.int64(row[c])


@jit
def split_words(values, high, low):
    """Write the upper and the lower 32 bits of every value, ``value = high * 2**32 + low``.

    Parameters
    ----------
    values : (size,) int64
    high, low : (size,) int64, written
    """
    for i in range(values.shape[0]):
        high[i] = high_word(values[i])
        low[i] = low_word(values[i])


@jit
def join_sums(high, low, out):
    """Join sums of up to ``2**31`` words, modulo ``2**64``; return how many of the exact sums lie outside int64.

    Parameters
    ----------
    high, low : (size,) int64
        Sums of what `split_words` gives.
    out : (size,) int64, written
    """
    left = np.int64(0)
    for i in range(high.shape[0]):
        out[i] = join_words(high[i], low[i])
        if words_leave_int64(high[i], low[i]):
            left += 1
    return left


@jit
def moments(x, sums, squares):
    """Add up the values of every column, and their squares.

    Parameters
    ----------
    x : (rows, columns) integers
    sums, squares : (columns,) int64, written
    """
    rows, columns = x.shape
    sums[:] = 0
    squares[:] = 0
    for i in range(rows):
        for c in range(columns):
            value = np.int64(x[i, c])
            sums[c] += value
            squares[c] += value * value


@jit
def moments_by_words(x, sums, squares):
    """Do what `moments` does for values of any size; return how many of the exact sums lie outside int64.

    Parameters
    ----------
    x, sums, squares : as in `moments`; up to ``2**31`` rows
    """
    rows, columns = x.shape
    left = np.int64(0)
    for c in range(columns):
        sum_high, sum_low = np.int64(0), np.int64(0)
        top_high, top_low, high, low = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for i in range(rows):
            value = np.int64(x[i, c])
            sum_high += high_word(value)
            sum_low += low_word(value)
            words = product_words(value, value)
            top_high += words[0]
            top_low += words[1]
            high += words[2]
            low += words[3]
        sums[c] = join_words(sum_high, sum_low)
        beyond, square = join_products(top_high, top_low, high, low)
        squares[c] = square
        if words_leave_int64(sum_high, sum_low):
            left += 1
        if beyond != 0:
            left += 1
    return left


@jit
def argmax_rows(x, out):
    """Write where the first of the largest values of every row stands.

    Parameters
    ----------
    x : (rows, columns) integers, one column at least
    out : (rows,) int64, written
    """
    rows, columns = x.shape
    for i in range(rows):
        best = np.int64(0)
        for k in range(1, columns):
            if x[i, k] > x[i, best]:
                best = np.int64(k)
        out[i] = best
