"""Descent on the Rosenbrock function by coordinate differences: a smooth loss that falls by seventy octaves.

The function is a sum over pairs, ``100 (p**2 - q)**2 + (p - 1)**2``, of integers in units of ``2**-40``. ``p**2 - q`` is exact,
in two words; squares are taken of 27 bits of it and 28 of ``p - 1``, rounded to nearest, each with an exponent of its own. So a
pair's loss is a mantissa times a power of two, within ``2**-25`` of itself, however small it is.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import (
    bit_length,
    high_word,
    join_words,
    low_word,
    multiply_shift,
    multiply_wide,
    quotient,
    shift_nearest,
    shift_words,
    words_bit_length,
)
from intnet.kernels.plain.halp import root_of_squares

ROSENBROCK_BITS = 40
_WEIGHT, _CURVE_BITS, _SLOPE_BITS = 100, 27, 28
_NO_EXPONENT = -(2**20)


@jit
def pair_loss(p, q):
    """Return ``100 (p**2 - q)**2 + (p - 1)**2`` as ``(mantissa, exponent)``, below ``2**62``; p and q below ``2**47``."""
    one = np.int64(1)
    top, product = multiply_wide(p, p)
    high = (top << np.int64(32)) + (high_word(product) & np.int64(2**32 - 1)) - (q << np.int64(ROSENBROCK_BITS - 32))
    low = low_word(product)
    drop = max(words_bit_length(high, low) - np.int64(_CURVE_BITS), np.int64(0))
    curve = shift_words(high, low, drop) if drop > 0 else join_words(high, low)
    curved, at = np.int64(_WEIGHT) * curve * curve, np.int64(2) * drop - np.int64(4 * ROSENBROCK_BITS)
    slope = p - (one << np.int64(ROSENBROCK_BITS))
    drop = max(bit_length(abs(slope)) - np.int64(_SLOPE_BITS), np.int64(0))
    slope = shift_nearest(slope, drop)
    sloped, other = slope * slope, np.int64(2) * drop - np.int64(2 * ROSENBROCK_BITS)
    if curved == 0:
        return sloped, other
    if sloped == 0:
        return curved, at
    if at < other:  # bring the smaller unit's term to the greater's, or the other way where there is room
        up = min(other - at, np.int64(62) - bit_length(sloped) - one)
        return (sloped << up) + (curved >> min(other - up - at, np.int64(63))), other - up
    up = min(at - other, np.int64(62) - bit_length(curved) - one)
    return (curved << up) + (sloped >> min(at - up - other, np.int64(63))), at - up


@jit
def difference(a, at, b, other):
    """Return ``a * 2**at - b * 2**other`` as ``(mantissa, exponent)``, cut to the greater unit; a and b below ``2**62``."""
    common = max(at, other)
    left = a >> min(common - at, np.int64(63))
    right = b >> min(common - other, np.int64(63))
    return left - right, common


@jit
def rosenbrock_descent(x, epsilon, rate, steps):
    """Do steps of descent along the normalized coordinate differences; return how many had none, where it stands still.

    ``x - round(rate * g / norm(g))`` with ``g_i = f(x + epsilon e_i) - f(x - epsilon e_i)``, of all coordinates at once.

    Parameters
    ----------
    x : (2 pairs,) int64
        Moved in place: p of the first pair, q of it, p of the second ... In units of ``2**-40``; they and what they become stay
        below ``2**47``.
    epsilon, rate : int64
        In the same units.
    steps : int64
    """
    size = x.shape[0]
    mantissas, exponents, g = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    still, one = np.int64(0), np.int64(1)
    for _ in range(steps):
        greatest = np.int64(_NO_EXPONENT)
        for i in range(size):
            p, q = x[i - (i & 1)], x[i - (i & 1) + 1]
            if (i & 1) == 0:
                above, at = pair_loss(p + epsilon, q)
                below, other = pair_loss(p - epsilon, q)
            else:
                above, at = pair_loss(p, q + epsilon)
                below, other = pair_loss(p, q - epsilon)
            mantissas[i], exponents[i] = difference(above, at, below, other)
            if mantissas[i] != 0:
                greatest = max(greatest, exponents[i] + bit_length(abs(mantissas[i])))
        if greatest == np.int64(_NO_EXPONENT):
            still += one
            continue
        for i in range(size):
            left = exponents[i] - (greatest - np.int64(60))
            if mantissas[i] == 0:
                g[i] = np.int64(0)
            elif left >= 0:
                g[i] = mantissas[i] << left
            else:
                g[i] = mantissas[i] >> min(-left, np.int64(63))
        root, exponent = root_of_squares(g)
        factor, power = quotient(rate, root, np.int64(61))
        for i in range(size):
            x[i] -= multiply_shift(g[i], factor, exponent - power)
    return still
