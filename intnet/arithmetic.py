"""The scalar rules of integer arithmetic: the only place where a bit is decided.

A raw integer r with f fraction bits stands for the real number r / 2**f. Every function takes and returns 64-bit signed
integers (int64) or booleans, is written in the subset of Python that the interpreter, Numba on the CPU and Numba on a GPU
all run, and states what happens at the edge of the word. Nothing here overflows silently: what may leave 64 bits is
computed in two words or by a shift, which is defined everywhere.

1. Shifts and words     shift_floor, wrap
2. Wide sums            high_word, low_word, join_words, words_leave_int64
3. Sums and products    add_wrap, add_leaves_int64, multiply_wide, product_leaves_int64
4. Activations          relu

Other rounding modes stand beside ``shift_floor``, other overflow modes beside ``wrap``, under the names of
:class:`intnet.formats.Rounding` and :class:`intnet.formats.Overflow`.
"""

import numpy as np

from intnet._compile import jit

_LOW_32 = np.int64(0xFFFFFFFF)
_LOW_16 = np.int64(0xFFFF)
_INT32_MIN = np.int64(-(2**31))
_INT32_MAX = np.int64(2**31 - 1)


# 1. Shifts and words ---------------------------------------------------------------------------------------------------


@jit
def shift_floor(value, shift):
    """Return ``floor(value / 2**shift)``, the arithmetic right shift; `shift` in 0..63.

    >>> int(shift_floor(7, 2)), int(shift_floor(-1, 5))
    (1, -1)
    """
    return np.int64(value) >> np.int64(shift)


@jit
def wrap(value, word_bits):
    """Return `value` modulo ``2**word_bits`` as a two's complement word; `word_bits` in 1..64.

    >>> int(wrap(130, 8)), int(wrap(-129, 8))
    (-126, 127)
    """
    unused = np.int64(64) - np.int64(word_bits)
    return (np.int64(value) << unused) >> unused


# 2. Wide sums: value = high * 2**32 + low. Up to 2**31 values may be added word by word before they are joined ----------


@jit
def high_word(value):
    """Return the upper 32 bits of an int64, signed."""
    return np.int64(value) >> np.int64(32)


@jit
def low_word(value):
    """Return the lower 32 bits of an int64, 0..2**32 - 1."""
    return np.int64(value) & _LOW_32


@jit
def join_words(high, low):
    """Return ``high * 2**32 + low`` modulo ``2**64`` as an int64; the words may be sums of up to 2**31 words."""
    low = np.int64(low)
    return ((np.int64(high) + (low >> np.int64(32))) << np.int64(32)) | (low & _LOW_32)


@jit
def words_leave_int64(high, low):
    """Tell whether ``high * 2**32 + low`` lies outside int64, that is, whether `join_words` wraps."""
    carried = np.int64(high) + (np.int64(low) >> np.int64(32))
    return carried < _INT32_MIN or carried > _INT32_MAX


# 3. Sums and products ---------------------------------------------------------------------------------------------------


@jit
def add_wrap(a, b):
    """Return ``a + b`` modulo ``2**64`` as an int64."""
    return join_words(high_word(a) + high_word(b), low_word(a) + low_word(b))


@jit
def add_leaves_int64(a, b):
    """Tell whether the exact ``a + b`` lies outside int64."""
    return words_leave_int64(high_word(a) + high_word(b), low_word(a) + low_word(b))


@jit
def multiply_wide(a, b):
    """Return the exact product of two int64 as ``(high, low)``: ``a * b == high * 2**64 + (low modulo 2**64)``.

    `low` is the product wrapped to int64. Products of halves stay below 2**63, so no step overflows.
    """
    a = np.int64(a)
    b = np.int64(b)
    if _INT32_MIN <= a <= _INT32_MAX and _INT32_MIN <= b <= _INT32_MAX:
        product = a * b  # the common case: 31 + 31 bits
        return product >> np.int64(63), product
    a_high = high_word(a)
    a_low = low_word(a)
    b_high = high_word(b)
    b_low = low_word(b)
    # low times low may need 64 bits: cut a_low into 16-bit halves, each partial product has 48
    bottom = (a_low & _LOW_16) * b_low
    upper = (a_low >> np.int64(16)) * b_low
    bits_0_to_31 = ((bottom & _LOW_32) + ((upper & _LOW_16) << np.int64(16))) & _LOW_32
    carry = (upper + (bottom >> np.int64(16))) >> np.int64(16)
    cross = a_high * b_low + carry
    other = a_low * b_high + (cross & _LOW_32)
    high = a_high * b_high + (cross >> np.int64(32)) + (other >> np.int64(32))
    return high, (other << np.int64(32)) | bits_0_to_31


@jit
def product_leaves_int64(high, low):
    """Tell whether a product of `multiply_wide` lies outside int64."""
    return np.int64(high) != (np.int64(low) >> np.int64(63))


# 4. Activations ---------------------------------------------------------------------------------------------------------


@jit
def relu(value):
    """Return ``max(value, 0)``.

    >>> int(relu(-3)), int(relu(3))
    (0, 3)
    """
    return max(np.int64(value), np.int64(0))
