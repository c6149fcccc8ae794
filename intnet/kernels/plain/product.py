"""Matrix products by their definition: exact sums of exact products, brought into the accumulator at the end."""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import join_products, multiply_by_quantized_multiplier, product_words, saturate, wrap


@jit
def _limits(word_bits):
    """Return the least and the largest word of 2 to 64 bits."""
    half = np.int64(1) << (np.int64(word_bits) - np.int64(2))  # 2**(word_bits - 1) itself may not be an int64
    return -half - half, half - np.int64(1) + half


@jit
def bring_into_word(beyond, value, minimum, maximum, word_bits, saturates):
    """Return ``(word, left)``: an exact sum in a word, wrapped or saturated, and whether it lay outside.

    The sum is `value` where `beyond` is 0; else it lies above (1) or below (-1) int64 and `value` is it modulo ``2**64``.
    """
    if beyond == 0 and minimum <= value <= maximum:
        return np.int64(value), np.int64(0)
    if not saturates:
        return wrap(value, word_bits), np.int64(1)
    if beyond > 0:
        return np.int64(maximum), np.int64(1)
    if beyond < 0:
        return np.int64(minimum), np.int64(1)
    return saturate(value, minimum, maximum), np.int64(1)


@jit
def multiply(a, b, a_transposed, b_transposed, word_bits, saturates, out):
    """Multiply matrices of integers; every sum is exact and then wrapped to `word_bits`, or saturated.

    Parameters
    ----------
    a : (m, k) integers, or (k, m) if `a_transposed`
    b : (k, n) integers, or (n, k) if `b_transposed`
    word_bits : int64
        Width of the accumulator, 2..64.
    saturates : bool
    out : (m, n) int32 or int64 that holds the word, written

    Returns
    -------
    int64
        How many sums lay outside the accumulator.
    """
    m, n = out.shape
    terms = a.shape[0] if a_transposed else a.shape[1]
    minimum, maximum = _limits(word_bits)
    left = np.int64(0)
    for i in range(m):
        for j in range(n):
            top_high, top_low, high, low = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
            for k in range(terms):
                x = np.int64(a[k, i] if a_transposed else a[i, k])
                y = np.int64(b[j, k] if b_transposed else b[k, j])
                words = product_words(x, y)
                top_high += words[0]
                top_low += words[1]
                high += words[2]
                low += words[3]
            beyond, total = join_products(top_high, top_low, high, low)
            word, outside = bring_into_word(beyond, total, minimum, maximum, word_bits, saturates)
            out[i, j] = word
            left += outside
    return left


@jit
def limit_sums(sums, word_bits, saturates, out):
    """Bring exact int64 sums into the accumulator, as `multiply` does with each; return how many lay outside.

    Parameters
    ----------
    sums : (size,) int64
    word_bits, saturates : as in `multiply`
    out : (size,) int32 or int64, written; may be `sums`
    """
    minimum, maximum = _limits(word_bits)
    left = np.int64(0)
    for i in range(sums.shape[0]):
        word, outside = bring_into_word(np.int64(0), sums[i], minimum, maximum, word_bits, saturates)
        out[i] = word
        left += outside
    return left


@jit
def quantized_multiply(values, multiplier, shift, out):
    """Write ``values * multiplier / 2**31 * 2**shift``, rounded twice as TFLite does, into `out`.

    Parameters
    ----------
    values : (size,) int32
    multiplier : int64
        An int32.
    shift : int64
        -31..30.
    out : (size,) int32, written
    """
    for i in range(values.shape[0]):
        out[i] = multiply_by_quantized_multiplier(values[i], multiplier, shift)
