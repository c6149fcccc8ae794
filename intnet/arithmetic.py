"""The scalar rules of integer arithmetic: the only place where a bit is decided.

A raw integer r with f fraction bits stands for the real number r / 2**f. Every function takes and returns 64-bit signed
integers (int64) or booleans, is written in the subset of Python that the interpreter, Numba on the CPU and Numba on a GPU
all run, and states what happens at the edge of the word. Nothing here overflows silently: what may leave 64 bits is
computed in two words or by a shift, which is defined everywhere.

1. Shifts and words     shift_floor, shift_left, shift_left_bounds, wrap, word_constants, wrap_word, saturate, bit_length
2. Rounding             rounding_constants, round_shift, round_shift_stochastic, round_shift_pseudo_stochastic, shift_sticky,
                        shift_nearest, round_shift_any
3. Wide sums            high_word, low_word, join_words, words_leave_int64, words_bit_length, shift_words
4. Sums and products    add_wrap, add_leaves_int64, multiply_wide, product_leaves_int64, product_words, join_products,
                        scale, choose
5. Activations          relu, leaky_relu, sign, their gradients (relu_gradient, ..), those of hard tanh, tanh and the
                        logistic function, table_index, drop, level_of_sum, drawn_sign, soft_threshold
6. The TFLite pipeline  saturating_rounding_doubling_high_multiply, rounding_divide_by_power_of_two, ..
7. Exponential and loss exp2_fraction, exp_negative, log_of_sum, niti_octaves, niti_power, niti_polynomial
8. Roots and quotients  isqrt, divide_sticky, divide_sticky_by_ones, divide_ties_even, multiply_divide, multiply_shift,
                        quotient, root_words

The modes have the names of :class:`intnet.formats.Rounding` and :class:`intnet.formats.Overflow`.
"""

import numpy as np

from intnet._compile import jit

_LOW_32 = np.int64(0xFFFFFFFF)
_LOW_16 = np.int64(0xFFFF)
_INT32_MIN = np.int64(-(2**31))
_INT32_MAX = np.int64(2**31 - 1)
_INT64_MIN = np.int64(-(2**63))
_INT64_MAX = np.int64(2**63 - 1)
_LN_2 = np.int64(49946518145322874)  # with 56 fraction bits


# 1. Shifts and words ---------------------------------------------------------------------------------------------------


@jit
def shift_floor(value, shift):
    """Return ``floor(value / 2**shift)``, the arithmetic right shift; `shift` in 0..63.

    >>> int(shift_floor(7, 2)), int(shift_floor(-1, 5))
    (1, -1)
    """
    return np.int64(value) >> np.int64(shift)


@jit
def shift_left(value, shift):
    """Return ``value * 2**shift`` modulo ``2**64``, two's complement, for any `shift` >= 0.

    >>> int(shift_left(-3, 2)), int(shift_left(5, 63)), int(shift_left(1, 64))
    (-12, -9223372036854775808, 0)
    """
    shift = np.int64(shift)
    return np.int64(value) << shift if shift < 64 else np.int64(0)


@jit
def shift_left_bounds(shift, minimum, maximum):
    """Return the smallest and the largest value with ``minimum <= value * 2**shift <= maximum``, for any `shift` >= 0.

    `minimum` <= 0 and `maximum` >= -1. Where no value is allowed, the first is greater than the second.

    >>> [int(bound) for bound in shift_left_bounds(2, -128, 127)]
    [-32, 31]
    """
    shift, minimum, maximum = np.int64(shift), np.int64(minimum), np.int64(maximum)
    if shift > 63:
        return np.int64(0), maximum >> np.int64(63)
    below_unit = ~(np.int64(-1) << shift)  # 2**shift - 1
    return (minimum + below_unit) >> shift, maximum >> shift


@jit
def wrap(value, word_bits):
    """Return `value` modulo ``2**word_bits`` as a two's complement word; `word_bits` in 1..64.

    >>> int(wrap(130, 8)), int(wrap(-129, 8))
    (-126, 127)
    """
    unused = np.int64(64) - np.int64(word_bits)
    return (np.int64(value) << unused) >> unused


@jit
def word_constants(word_bits, signed):
    """Return ``(mask, sign)`` for :func:`wrap_word`; `word_bits` in 1..63, or 64 for a signed word."""
    word_bits = np.int64(word_bits)
    if word_bits == 64:
        return np.int64(-1), np.int64(0)
    one = np.int64(1)
    return ~(np.int64(-1) << word_bits), one << (word_bits - one) if signed else np.int64(0)


@jit
def wrap_word(value, mask, sign):
    """Return `value` modulo the word that :func:`word_constants` describes: :func:`wrap`, and for unsigned words too.

    >>> int(wrap_word(130, 255, 128)), int(wrap_word(-1, 255, 0))
    (-126, 255)
    """
    return ((np.int64(value) & np.int64(mask)) ^ np.int64(sign)) - np.int64(sign)


@jit
def bit_length(value):
    """Return the number of bits of `value` >= 0 without leading zeros; 0 for 0.

    >>> [int(bit_length(value)) for value in (0, 1, 127, 128)]
    [0, 1, 7, 8]
    """
    value, bits = np.int64(value), np.int64(0)
    while value > 0:
        value >>= np.int64(1)
        bits += np.int64(1)
    return bits


@jit
def saturate(value, minimum, maximum):
    """Return the nearest integer in ``minimum..maximum``.

    >>> int(saturate(130, -128, 127)), int(saturate(-129, -128, 127))
    (127, -128)
    """
    return min(max(np.int64(value), np.int64(minimum)), np.int64(maximum))


# 2. Rounding -------------------------------------------------------------------------------------------------------------
#
# A right shift by s splits a value into its floor q and the rest r that is discarded, 0 <= r < 2**s: value = q * 2**s + r.
# Every deterministic mode rounds up to q + 1 exactly when r plus an addend carries, r + addend >= 2**s, and so is given by
# its addend: a base, what a negative value adds to it, and what an odd q adds to it.

FLOOR, TO_ZERO, CEIL, TO_AWAY, TIES_EVEN, TIES_POS, TIES_NEG, TIES_AWAY, TIES_ZERO, JAM = range(10)
STOCHASTIC, PSEUDO_STOCHASTIC = 10, 11


@jit
def rounding_constants(mode, shift):
    """Return what :func:`round_shift` needs for a deterministic mode: ``(base, if_negative, if_odd, set_bit)``.

    `mode` is one of FLOOR .. JAM; `shift` is in 0..62.
    """
    mode = np.int64(mode)
    rest = (np.int64(1) << np.int64(shift)) - np.int64(1)  # the largest rest
    half = (rest + np.int64(1)) >> np.int64(1)
    base, if_negative, if_odd = np.int64(0), np.int64(0), np.int64(0)
    if shift > 0:  # else there is no rest
        if mode == TO_ZERO:
            if_negative = rest
        elif mode == CEIL:
            base = rest
        elif mode == TO_AWAY:
            base, if_negative = rest, -rest
        elif mode == TIES_EVEN:
            base, if_odd = half - np.int64(1), np.int64(1)
        elif mode == TIES_POS:
            base = half
        elif mode == TIES_NEG:
            base = half - np.int64(1)
        elif mode == TIES_AWAY:
            base, if_negative = half, np.int64(-1)
        elif mode == TIES_ZERO:
            base, if_negative = half - np.int64(1), np.int64(1)
    return base, if_negative, if_odd, np.int64(1) if mode == JAM else np.int64(0)


@jit
def round_shift(value, shift, base, if_negative, if_odd, set_bit):
    """Return ``value / 2**shift`` rounded by the constants of :func:`rounding_constants`; `shift` in 0..62.

    Never overflows: the result is within one of ``value >> shift``, and equal to `value` for shift 0 (but for JAM).
    """
    value, shift = np.int64(value), np.int64(shift)
    quotient = value >> shift
    rest = value - (quotient << shift)
    negative = value >> np.int64(63)  # -1 or 0
    addend = base + (negative & if_negative) + (quotient & if_odd)
    return (quotient + ((rest + addend) >> shift)) | set_bit


@jit
def round_shift_stochastic(value, shift, fraction, random_bits):
    """Return ``value / 2**shift`` rounded up with the probability of its rest; for any `shift` >= 0.

    Parameters
    ----------
    value : int64
    shift : int64
    fraction : int64, 0..2**random_bits - 1
        The random bits, read as a fraction: ``fraction / 2**random_bits``.
    random_bits : int, 1..62
        The rest of the value, as a fraction ``rest / 2**shift``, is cut to this many bits, and rounds up when it and the
        random fraction together reach one.

    Examples
    --------
    A quarter rounds up for one random fraction of four:

    >>> [int(round_shift_stochastic(5, 2, fraction, 2)) for fraction in range(4)]
    [1, 1, 1, 2]
    """
    value, shift, random_bits = np.int64(value), np.int64(shift), np.int64(random_bits)
    if shift > 62:  # what lies below 62 bits of the rest is cut in any case
        value, shift = value >> min(shift - np.int64(62), np.int64(63)), np.int64(62)
    quotient = value >> shift
    rest = value - (quotient << shift)
    aligned = rest >> (shift - random_bits) if shift > random_bits else rest << (random_bits - shift)
    return quotient + ((aligned + np.int64(fraction)) >> random_bits)


@jit
def round_shift_pseudo_stochastic_near(value, shift):
    """Return what :func:`round_shift_pseudo_stochastic` does, for a `shift` in 0..62, without a branch."""
    value, shift = np.int64(value), np.int64(shift)
    safe = max(value, _INT64_MIN + np.int64(1))
    magnitude = -safe if safe < 0 else safe
    quotient = magnitude >> shift
    rest = magnitude - (quotient << shift)
    low_bits = shift >> np.int64(1)
    upper = rest >> low_bits
    lower = (rest - (upper << low_bits)) << (shift & np.int64(1))
    quotient += np.int64(upper > lower)
    rounded = -quotient if value < 0 else quotient
    return value >> shift if value == _INT64_MIN else rounded  # its magnitude is no int64: 2**63, with a rest of zero


@jit
def round_shift_pseudo_stochastic(value, shift):
    """Return ``value / 2**shift`` rounded by its own low bits (NITI: Wang et al. 2020, sec. III-C); for any `shift` >= 0.

    On the magnitude: the upper half of the discarded bits is the fraction, the lower half, doubled if their number is odd,
    plays the random number; a greater fraction rounds away from zero.

    >>> int(round_shift_pseudo_stochastic(0b1001, 4)), int(round_shift_pseudo_stochastic(0b0110, 4))
    (1, 0)
    """
    value, shift = np.int64(value), np.int64(shift)
    if shift <= 62:
        return round_shift_pseudo_stochastic_near(value, shift)
    if value == _INT64_MIN:  # its magnitude is no int64: 2**63, with a lower half of zeros
        return np.int64(-1) if shift < 128 else np.int64(0)
    if shift > 125:
        return np.int64(0)  # the upper half is zero
    magnitude = -value if value < 0 else value
    low_bits = shift >> np.int64(1)
    upper = magnitude >> low_bits
    lower = (magnitude - (upper << low_bits)) << (shift & np.int64(1))
    if upper > lower:
        return np.int64(-1) if value < 0 else np.int64(1)
    return np.int64(0)


@jit
def shift_sticky(value, shift):
    """Return ``value >> shift`` with the lowest bit set if anything but zeros was cut off; `shift` in 0..63.

    Rounding the result further, by two bits or more, gives what rounding `value` at once would give.
    """
    value, shift = np.int64(value), np.int64(shift)
    quotient = value >> shift
    return quotient | np.int64(value != (quotient << shift))


@jit
def shift_nearest(value, shift):
    """Return ``value / 2**shift`` to nearest, ties to plus infinity; `shift` in 0..62, half a unit more must fit int64.

    >>> [int(shift_nearest(value, 1)) for value in (-3, -1, 1, 3)], int(shift_nearest(-5, 0))
    ([-1, 0, 1, 2], -5)
    """
    value, shift = np.int64(value), np.int64(shift)
    return (value + ((np.int64(1) << shift) >> np.int64(1))) >> shift


@jit
def round_shift_any(value, shift, mode):
    """Return ``value / 2**shift`` rounded by one of the modes FLOOR .. JAM; for any `shift` >= 0.

    >>> int(round_shift_any(-5, 1, TIES_EVEN)), int(round_shift_any(-5, 1, TIES_NEG)), int(round_shift_any(5, 1000, CEIL))
    (-2, -3, 1)
    """
    value, shift = np.int64(value), np.int64(shift)
    if shift > 62:
        value, shift = shift_sticky(value, min(shift - np.int64(62), np.int64(63))), np.int64(62)
    base, if_negative, if_odd, set_bit = rounding_constants(mode, shift)
    return round_shift(value, shift, base, if_negative, if_odd, set_bit)


# 3. Wide sums: value = high * 2**32 + low. Up to 2**31 values may be added word by word before they are joined ----------


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


@jit
def words_bit_length(high, low):
    """Return the least n with ``-2**n <= high * 2**32 + low < 2**n``; words are sums up to ``2**62`` in magnitude.

    >>> [int(words_bit_length(high, low)) for high, low in ((0, 0), (0, 5), (-1, 2**32 - 1), (-1, 0), (1, -1), (3, 0))]
    [0, 3, 0, 32, 32, 34]
    """
    carried, low = np.int64(high) + (np.int64(low) >> np.int64(32)), np.int64(low) & _LOW_32
    if carried < 0:
        carried, low = ~carried, low ^ _LOW_32
    return bit_length(carried) + np.int64(32) if carried > 0 else bit_length(low)


@jit
def shift_words(high, low, shift):
    """Return ``(high * 2**32 + low) / 2**shift`` to nearest, ties to plus infinity, which must fit int64; `shift` in 0..94.

    >>> int(shift_words(1, 0, 30)), int(shift_words(0, 6, 2)), int(shift_words(0, -6, 2)), int(shift_words(3, 0, 33))
    (4, 2, -1, 2)
    """
    one, shift = np.int64(1), np.int64(shift)
    carried, low = np.int64(high) + (np.int64(low) >> np.int64(32)), np.int64(low) & _LOW_32
    if shift <= 32:
        return (carried << (np.int64(32) - shift)) + ((low + ((one << shift) >> one)) >> shift)
    shift -= np.int64(32)
    return (carried + ((one << shift) >> one)) >> shift


# 4. Sums and products ---------------------------------------------------------------------------------------------------


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


@jit
def product_words(a, b):
    """Return the exact product of two int64 as four words; up to 2**31 products may be added word by word.

    ``a * b == top_high * 2**96 + top_low * 2**64 + high * 2**32 + low``.
    """
    top, product = multiply_wide(a, b)
    top -= product >> np.int64(63)  # from the product modulo 2**64 to the signed one
    return high_word(top), low_word(top), high_word(product), low_word(product)


@jit
def join_products(top_high, top_low, high, low):
    """Return a sum of products as ``(beyond, sum)``: the sum modulo ``2**64`` as an int64, and where the exact sum lies.

    `beyond` is 0 if the exact sum is an int64, 1 if it lies above, -1 if it lies below.
    """
    carried = np.int64(high) + high_word(low)
    total = (carried << np.int64(32)) | low_word(low)
    carry = high_word(carried)
    top_low = np.int64(top_low) + low_word(carry)
    top_high = np.int64(top_high) + high_word(carry) + high_word(top_low)
    top_low = low_word(top_low)
    if total < 0 and top_high == -1 and top_low == _LOW_32:
        return np.int64(0), total
    if total >= 0 and top_high == 0 and top_low == 0:
        return np.int64(0), total
    return np.int64(-1) if top_high < 0 else np.int64(1), total


@jit
def scale(value, factor, left, right):
    """Return ``value * factor * 2**left / 2**right``, with its lowest bit set if anything was cut off; shifts in 0..63.

    Nothing before the right shift may leave int64.

    >>> int(scale(3, -5, 1, 0)), int(scale(3, 3, 0, 2)), int(scale(3, 4, 0, 2))
    (-30, 3, 3)
    """
    return shift_sticky((np.int64(value) * np.int64(factor)) << np.int64(left), right)


@jit
def choose(bits, random_bits, count):
    """Return ``bits * count / 2**random_bits``, cut: random bits as one of ``0..count - 1``; the product must fit int64.

    >>> [int(choose(bits, 3, 3)) for bits in range(8)]
    [0, 0, 0, 1, 1, 1, 2, 2]
    """
    return (np.int64(bits) * np.int64(count)) >> np.int64(random_bits)


# 5. Activations ---------------------------------------------------------------------------------------------------------


@jit
def relu(value):
    """Return ``max(value, 0)``.

    >>> int(relu(-3)), int(relu(3))
    (0, 3)
    """
    return max(np.int64(value), np.int64(0))


@jit
def relu_gradient(dy, y):
    """Return `dy` where the result `y` of :func:`relu` is positive, else 0."""
    return np.int64(dy) if y > 0 else np.int64(0)


@jit
def leaky_relu(value, shift, base, if_negative, if_odd, set_bit):
    """Return `value` if it is not negative, else ``value / 2**shift`` rounded by :func:`rounding_constants`; shift 0..62.

    >>> constants = rounding_constants(TIES_EVEN, 2)
    >>> int(leaky_relu(5, 2, *constants)), int(leaky_relu(-5, 2, *constants))
    (5, -1)
    """
    return np.int64(value) if value >= 0 else round_shift(value, shift, base, if_negative, if_odd, set_bit)


@jit
def leaky_relu_gradient(dy, x, shift, base, if_negative, if_odd, set_bit):
    """Return `dy` where `x` is not negative, else ``dy / 2**shift`` rounded by :func:`rounding_constants`; shift 0..62."""
    return np.int64(dy) if x >= 0 else round_shift(dy, shift, base, if_negative, if_odd, set_bit)


@jit
def hard_tanh_gradient(dy, x, limit):
    """Return `dy` where ``-limit < x < limit``, else 0."""
    return np.int64(dy) if (x > -limit) & (x < limit) else np.int64(0)


@jit
def sign(value, one):
    """Return `one` for a value that is not negative, else ``-one``."""
    return np.int64(one) if value >= 0 else -np.int64(one)


@jit
def sign_gradient_clip(dy, x, limit):
    """Return `dy` where ``abs(x) <= limit``, else 0: the straight-through estimator of Hubara et al. 2016, sec. 1.3."""
    return np.int64(dy) if (x >= -limit) & (x <= limit) else np.int64(0)


@jit
def sign_gradient_polynomial(dy, x, limit):
    """Return ``dy * 2 * (limit - abs(x))`` where ``abs(x) <= limit``, else 0; it must fit int64.

    That is `limit` times the derivative ``2 - 2 abs(x) / limit`` of the polynomial of Bi-Real Net (Liu et al. 2018, sec. 3.3).
    """
    x, limit = np.int64(x), np.int64(limit)
    distance = limit - saturate(x, -limit, limit) if x > 0 else limit + saturate(x, -limit, limit)
    return np.int64(dy) * (distance + distance)


@jit
def logistic_gradient(dy, y, one):
    """Return ``dy * y * (one - y)``, which must fit int64: `dy` times the logistic function's slope, times ``one**2``."""
    y = np.int64(y)
    return np.int64(dy) * (y * (np.int64(one) - y))


@jit
def tanh_gradient(dy, y, one):
    """Return ``dy * (one**2 - y**2)``, which must fit int64: `dy` times the slope of tanh, times ``one**2``."""
    y, one = np.int64(y), np.int64(one)
    return np.int64(dy) * (one * one - y * y)


@jit
def table_index(value, first, length):
    """Return ``value - first`` cut to ``0..length - 1``; the whole table lies in int64."""
    first = np.int64(first)
    return saturate(value, first, first + (np.int64(length) - np.int64(1))) - first


@jit
def drop(value, fraction, keep):
    """Return `value` if its random fraction is below `keep`, else 0."""
    return np.int64(value) if fraction < keep else np.int64(0)


@jit
def level_of_sum(value, thresholds, count):
    """Return the level, ``-count``, ``-count + 2``, .. ``count``, that a sum reaches: two more for each of rising thresholds.

    >>> [int(level_of_sum(value, (-4, 4), 2)) for value in (-5, -4, 3, 4)]
    [-2, 0, 0, 2]
    """
    level = -np.int64(count)
    for k in range(count):
        level += np.int64(2) if value >= thresholds[k] else np.int64(0)
    return level


@jit
def drawn_sign(value, scale, fraction):
    """Return 1 if ``fraction / 2**32 < (1 + value / scale) / 2``, else -1; 32 random bits, ``abs(value) <= scale < 2**31``.

    >>> [int(drawn_sign(1, 2, fraction << 30)) for fraction in range(4)], int(drawn_sign(-2, 2, 0))
    ([1, 1, 1, -1], -1)
    """
    value, scale = np.int64(value), np.int64(scale)
    return np.int64(1) if np.int64(fraction) * scale < ((value + scale) << np.int64(31)) else np.int64(-1)


@jit
def soft_threshold(value, threshold):
    """Return ``sign(value) * max(abs(value) - threshold, 0)``; `threshold` in 0..2**62: the proximal step of the L1 norm.

    >>> [int(soft_threshold(value, 2)) for value in (-5, -2, 1, 3)]
    [-3, 0, 0, 1]
    """
    value, threshold = np.int64(value), np.int64(threshold)
    return value - saturate(value, -threshold, threshold)


# 6. The TFLite pipeline -------------------------------------------------------------------------------------------------
#
# Rounding twice, which no single mode does. Arguments and results are 32-bit words. gemmlowp: fixedpoint/fixedpoint.h;
# Jacob et al. 2018, arXiv:1712.05877, sec. 2.2.


@jit
def saturating_rounding_doubling_high_multiply(a, b):
    """Return ``a * b / 2**31`` to nearest, ties to plus infinity, of int32; the one overflow, both -2**31, saturates.

    gemmlowp's nudge of 1 - 2**30 before a truncating division of a negative product gives the same: ties up.

    >>> half = 2**30
    >>> int(saturating_rounding_doubling_high_multiply(3, half)), int(saturating_rounding_doubling_high_multiply(-3, half))
    (2, -1)
    """
    product = np.int64(a) * np.int64(b)  # at most 2**62
    return min((product + np.int64(1 << 30)) >> np.int64(31), _INT32_MAX)


@jit
def rounding_divide_by_power_of_two(value, shift):
    """Return ``value / 2**shift`` to nearest, ties away from zero, of int32; `shift` in 0..31.

    >>> int(rounding_divide_by_power_of_two(3, 1)), int(rounding_divide_by_power_of_two(-3, 1))
    (2, -2)
    """
    return round_shift_any(value, shift, TIES_AWAY)


@jit
def multiply_by_quantized_multiplier(value, multiplier, shift):
    """Return ``value * multiplier / 2**31 * 2**shift`` as TFLite's reference kernels do, rounding twice; `shift` in -31..30.

    A left shift, `shift` > 0, comes first and saturates int32 (TFLite leaves it undefined; gemmlowp's left shift saturates
    too); then the doubling high multiply; a right shift, `shift` < 0, comes last.

    >>> int(multiply_by_quantized_multiplier(5, 2**30, -1)), int(multiply_by_quantized_multiplier(-5, 2**30, -1))
    (2, -1)
    """
    value, shift, zero = np.int64(value), np.int64(shift), np.int64(0)
    shifted = saturate(value << max(shift, zero), _INT32_MIN, _INT32_MAX)
    product = saturating_rounding_doubling_high_multiply(shifted, multiplier)
    return rounding_divide_by_power_of_two(product, max(-shift, zero))


# 7. Exponential and loss ------------------------------------------------------------------------------------------------

_LOG2_E = np.int64(3098164009)  # times 2**31
_EXP_LIMIT = np.int64(2**36 - 1)  # times 2**-31: exp(-32) is 0 in 30 fraction bits
_NITI_LOG2_E = np.int64(47274)  # times 2**15, cut


@jit
def exp2_fraction(fraction):
    """Return ``2**-(fraction / 2**30)`` with 30 fraction bits; `fraction` in 0..2**30 - 1, the result in 2**29..2**30.

    The polynomial of degree 7 that is 1 at 0 and whose largest error on 0..1 is least, 2**-34.9, with 33 fraction bits. Seven
    roundings to 33 bits, the coefficients and the rounding at the end bring the error below ``1.5 * 2**-30``.

    >>> [int(exp2_fraction(fraction)) for fraction in (0, 2**29, 2**30 - 1)]
    [1073741824, 759250125, 536870912]
    """
    x, half = np.int64(fraction), np.int64(1 << 29)
    # Horner's rule: a sum below 2**32.5 in magnitude times a fraction below 2**30
    total = np.int64(1266429) + ((np.int64(-93350) * x + half) >> np.int64(30))
    total = np.int64(-11407801) + ((total * x + half) >> np.int64(30))
    total = np.int64(82598673) + ((total * x + half) >> np.int64(30))
    total = np.int64(-476771745) + ((total * x + half) >> np.int64(30))
    total = np.int64(2063529419) + ((total * x + half) >> np.int64(30))
    total = np.int64(-5954088922) + ((total * x + half) >> np.int64(30))
    total = np.int64(8589934592) + ((total * x + half) >> np.int64(30))
    return (total + np.int64(4)) >> np.int64(3)


@jit
def exp_negative(distance, exponent):
    """Return ``exp(-distance * 2**exponent)`` with 30 fraction bits; `distance` in 0..2**63 - 2, any `exponent`.

    Below ``3 * 2**-30`` from the real value: the argument is rounded to 31 fraction bits (0.25), multiplied by log2 e of 31
    fraction bits (0.1), rounded to 30 (0.35); then `exp2_fraction` (1.5) and a last rounding (0.5), all in 2**-30.

    >>> int(exp_negative(0, 5)), int(exp_negative(3, -2)), int(exp_negative(1, 2**20))
    (1073741824, 507199724, 0)
    """
    distance, shift = np.int64(distance), np.int64(exponent) + np.int64(31)
    if shift >= 0:
        x = _EXP_LIMIT if distance > _EXP_LIMIT >> min(shift, np.int64(63)) else shift_left(distance, shift)
    else:
        x = min(((distance >> min(-shift - np.int64(1), np.int64(63))) + np.int64(1)) >> np.int64(1), _EXP_LIMIT)
    # x * log2 e with 46 fraction bits: 20 + 32 bits, and 16 + 32
    octaves = (x >> np.int64(16)) * _LOG2_E + (((x & _LOW_16) * _LOG2_E) >> np.int64(16)) + np.int64(1 << 15)
    whole = octaves >> np.int64(46)  # up to 46
    power = exp2_fraction((octaves >> np.int64(16)) & np.int64(2**30 - 1))
    return (power + ((np.int64(1) << whole) >> np.int64(1))) >> whole


@jit
def log_of_sum(total):
    """Return the natural logarithm of ``total / 2**30`` with 30 fraction bits; `total` in 2**30..2**61.

    Below ``6 * 2**-30`` from the real value. Of log2, bit by bit: the number, cut to 31 bits, is squared, and where that is 2
    or more, a bit is set and it is halved; each cut is off by less than ``1.45 * 2**-30`` octaves, weighed by its place.

    >>> int(log_of_sum(2**30)), round(int(log_of_sum(10 * 2**30)) / 2**30, 8)
    (0, 2.30258509)
    """
    total, one = np.int64(total), np.int64(1)
    whole = bit_length(total) - np.int64(31)
    x, fraction = total >> whole, np.int64(0)
    for _ in range(30):
        x = (x * x) >> np.int64(30)
        bit = x >> np.int64(31)
        x >>= bit
        fraction = (fraction << one) | bit
    log = whole * _LN_2 + ((fraction * (_LN_2 >> np.int64(24))) >> np.int64(6))
    return (log + (one << np.int64(25))) >> np.int64(26)


@jit
def niti_octaves(logit, exponent):
    """Return ``logit * 47274 / 2**15 * 2**exponent``, each division cut towards zero: NITI's logit, to the base of 2.

    `exponent` is greater than -7, where NITI goes this way. Two changes keep it in int64: a logit beyond 2**46 in magnitude
    saturates, and an exponent above 4 counts as 4, where other logits than the largest are already 16 octaves below, of
    which NITI sees ten. So the result stays below 2**51.

    >>> int(niti_octaves(100, -4)), int(niti_octaves(-30, -4)), int(niti_octaves(3, 1))
    (9, -2, 8)
    """
    limit = np.int64(1 << 46)
    product = saturate(logit, -limit, limit) * _NITI_LOG2_E  # below 2**61.6
    cut = round_shift_any(product, np.int64(15), TO_ZERO)
    exponent = min(np.int64(exponent), np.int64(4))
    return cut << exponent if exponent >= 0 else round_shift_any(cut, -exponent, TO_ZERO)


@jit
def niti_power(octaves, largest):
    """Return ``2**max(octaves - (largest - 10), 0) - 1``: 1023 for the largest, 0 for what is ten octaves below or more."""
    return (np.int64(1) << max(np.int64(octaves) - np.int64(largest) + np.int64(10), np.int64(0))) - np.int64(1)


@jit
def niti_polynomial(logit, unit):
    """Return ``2 unit**2 + 2 unit logit + logit**2``, which is ``2 unit**2 (1 + x + x**2 / 2)`` for ``x = logit / unit``.

    `unit` is ``2**-exponent``; both up to 2**20 in magnitude, so that the result is below 2**43.

    >>> int(niti_polynomial(3, 4))
    65
    """
    total = np.int64(logit) + np.int64(unit)
    return total * total + np.int64(unit) * np.int64(unit)


# 8. Roots and quotients -------------------------------------------------------------------------------------------------


@jit
def isqrt(value):
    """Return ``floor(sqrt(value))``, exactly, of 0..2**63 - 1: one bit of the root after the other.

    >>> [int(isqrt(value)) for value in (0, 3, 4, 2**63 - 1)]
    [0, 1, 2, 3037000499]
    """
    rest, root, bit = np.int64(value), np.int64(0), np.int64(1 << 62)
    while bit > rest:
        bit >>= np.int64(2)
    while bit > 0:
        trial = root + bit
        root >>= np.int64(1)
        if rest >= trial:
            rest -= trial
            root += bit
        bit >>= np.int64(2)
    return root


@jit
def divide_sticky(value, divisor):
    """Return ``floor(value / divisor)``, its lowest bit set unless the quotient is exact; `divisor` > 0.

    What is rounded to nearest from it, by a shift of two bits or more, is rounded as the exact quotient is.

    >>> [int(divide_sticky(value, 4)) for value in (8, 9, 12, -1, -4, -7)]
    [2, 3, 3, -1, -1, -1]
    """
    value, divisor = np.int64(value), np.int64(divisor)
    return (value // divisor) | np.int64(value % divisor != 0)


@jit
def divide_sticky_by_ones(value, bits):
    """Return ``divide_sticky(value, 2**bits - 1)`` without a division; `bits` in 2..31, ``abs(value) <= 2**62``.

    1 / (2**b - 1) is 2**-b (1 + 2**-b) (1 + 2**-2b) ..: cut after each factor, that is up to 10 too small, and twice mended.

    >>> [int(divide_sticky_by_ones(value, 2)) for value in (8, 9, 2**62, -4)], 2**62 // 3
    ([3, 3, 1537228672809129301, -1], 1537228672809129301)
    """
    value, bits, one = np.int64(value), np.int64(bits), np.int64(1)
    divisor, result, place = (one << bits) - one, value >> bits, bits
    for _ in range(5):
        result += result >> place
        place = min(place + place, np.int64(63))
    for _ in range(2):
        rest = value - result * divisor
        result += (rest + (rest >> bits) + one) >> bits
    return result | np.int64(value != result * divisor)


@jit
def divide_ties_even(value, divisor):
    """Return ``value / divisor`` to nearest, ties to even; `divisor` > 0.

    >>> [int(divide_ties_even(value, 4)) for value in (-6, -2, 1, 2, 3, 6)]
    [-2, 0, 0, 0, 1, 2]
    """
    value, divisor = np.int64(value), np.int64(divisor)
    quotient = value // divisor
    rest = value - quotient * divisor
    left = divisor - rest
    return quotient + np.int64((rest > left) | ((rest == left) & ((quotient & np.int64(1)) == 1)))


@jit
def multiply_divide(a, b, divisor):
    """Return ``a * b / divisor`` to nearest, ties away from zero, saturated to +-(2**63 - 1); `divisor` > 0.

    Where the product is an int64, one division does; else the quotient comes bit by bit. Rests stay below the divisor and
    are compared before they are doubled, so no step overflows.

    >>> int(multiply_divide(7, -3, 2)), int(multiply_divide(2**62, 2**62, 2**62 - 1)), int(multiply_divide(2**62, -4, 1))
    (-11, 4611686018427387905, -9223372036854775807)
    """
    divisor = np.int64(divisor)
    high, low = multiply_wide(a, b)
    negative = high < 0
    if not product_leaves_int64(high, low) and low != _INT64_MIN:
        magnitude = -low if negative else low
        quotient = magnitude // divisor
        rest = magnitude - quotient * divisor
    else:
        if negative:  # the magnitude in two words
            high = -high if low == 0 else ~high
            low = add_wrap(~low, np.int64(1))
        if high >= divisor - high - ((low >> np.int64(63)) & np.int64(1)):  # the quotient has a 64th bit
            return -_INT64_MAX if negative else _INT64_MAX
        quotient, rest = np.int64(0), high
        for place in range(64):
            bit = (low >> np.int64(63 - place)) & np.int64(1)
            left = divisor - rest - bit
            if rest >= left:
                rest -= left
                quotient = (quotient << np.int64(1)) | np.int64(1)
            else:
                rest += rest + bit
                quotient <<= np.int64(1)
    if rest >= divisor - rest and quotient < _INT64_MAX:
        quotient += np.int64(1)
    return -quotient if negative else quotient


@jit
def multiply_shift(a, b, shift):
    """Return ``a * b / 2**shift`` to nearest, ties away from zero, saturated to +-(2**63 - 1); any `shift` but -2**63.

    `a` and `b` are any int64 but -2**63.

    >>> int(multiply_shift(3, -1, 1)), int(multiply_shift(2**62, 2**62, 100)), int(multiply_shift(-3, 1, -70))
    (-2, 16777216, -9223372036854775807)
    """
    shift = np.int64(shift)
    one, most = np.int64(1), np.int64(62)
    if shift < 0:
        product = multiply_divide(multiply_divide(a, b, one), one << min(-shift, most), one)
        return multiply_divide(product, one << min(max(-shift - most, np.int64(0)), most), one)
    if shift <= 62:
        return multiply_divide(a, b, one << shift)
    high, low = multiply_wide(a, b)
    negative = high < 0
    if negative:
        high = -high if low == 0 else ~high
        low = add_wrap(~low, np.int64(1))
    upper = (high << one) | ((low >> np.int64(63)) & one)  # the magnitude / 2**63, below 2**63 - 1
    if shift == 63:
        rounded = upper + ((low >> most) & one)
    else:
        twice = upper >> min(shift - np.int64(64), np.int64(63))
        rounded = (twice >> one) + (twice & one)
    return -rounded if negative else rounded


@jit
def quotient(a, b, bits):
    """Return ``a / b`` as ``(mantissa, exponent)``, the mantissa to nearest of `bits` bits, 1..61; 0 < a, b < 2**62.

    >>> [int(part) for part in quotient(1, 3, 4)], [int(part) for part in quotient(31, 1, 4)]
    ([11, -5], [8, 2])
    """
    one, most = np.int64(1), np.int64(62)
    up_a, up_b = most - bit_length(a), most - bit_length(b)
    a, b = np.int64(a) << up_a, np.int64(b) << up_b
    more = np.int64(bits) - np.int64(a >= b)
    mantissa, exponent = multiply_divide(a, one << more, b), up_b - up_a - more
    carry = mantissa >> np.int64(bits)  # 1 where rounding reached the next power of two
    return mantissa >> carry, exponent + carry


@jit
def root_words(high, low):
    """Return the square root of ``high * 2**32 + low`` >= 0 as ``root * 2**exponent``: ``(root, exponent)``.

    The root is in ``2**30..2**31``, and less than 1 below the exact one; 0 for 0. Words are sums up to ``2**62``.

    >>> [int(part) for part in root_words(0, 9)], [int(part) for part in root_words(2**32, 0)]
    ([1610612736, -29], [1073741824, 2])
    """
    bits, one = words_bit_length(high, low), np.int64(1)
    half = ((bits + one) >> one) - np.int64(31)  # what brings the number into 2**60..2**62
    if half > 0:
        return isqrt(shift_words(high, low, half << one)), half
    return isqrt(join_words(high, low) << (-half << one)) if bits > 0 else np.int64(0), half
