"""The step of stochastic gradient descent in 32-bit lanes: twice as many at a time.

Every number that the plain kernel holds in int64 is proven to fit in int32 here, and the rules of rounding are written so that
their steps do too. With a quotient q and a rest r of a shift by s <= 30 bits, every mode rounds up when r plus an addend below
``2**s + 2`` reaches ``2**s`` (:func:`intnet.arithmetic.rounding_constants`). For stochastic rounding the addend is the random
fraction, brought to s bits: it is cut, or zeros are appended, and where zeros are appended the bits of r below them, which
:func:`intnet.arithmetic.round_shift_stochastic` cuts off, can cause no carry.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import STOCHASTIC, rounding_constants
from intnet.kernels.plain.requantize import count, load, store
from intnet.kernels.plain.update import (
    GRADIENT,
    MASK,
    MAXIMUM,
    MINIMUM,
    MODE,
    MOMENTUM,
    RANDOM_BITS,
    SHIFT,
    SIGN,
    STREAM,
    WEIGHT,
    WRAPS,
)  # fmt: skip
from intnet.kernels.vectors import shift_right_32
from intnet.random import fill_words

_0, _1, _31 = np.int32(0), np.int32(1), np.int32(31)
_INT32_MIN, _INT32_MAX = np.int32(-(2**31)), np.int32(2**31 - 1)
_WINDOW = 2048  # elements at a time: five runs of 32 bits stay in the first-level cache
SHIFT_MAX = 30
WORD_BITS_MAX = 31


@jit
def _fit(value, wraps, minimum, maximum, mask, sign):
    """Return `value` wrapped or saturated into a word of up to 31 bits."""
    if wraps:
        return np.int32(np.int32(np.int32(value & mask) ^ sign) - sign)
    return min(max(value, minimum), maximum)


@jit
def _round_run(values, out, shift, constants, wraps, minimum, maximum, mask, sign, seen):
    """Round by a mode of FLOOR .. JAM; `seen` collects ``(outside, lost, least, greatest)``."""
    base, if_negative, if_odd, set_bit = constants
    rest_mask, outside, lost, least, greatest = np.int32((np.int64(1) << shift) - np.int64(1)), _0, _0, seen[2], seen[3]
    for i in range(values.size):
        value = values[i]
        quotient, rest = shift_right_32(value, shift), np.int32(value & rest_mask)
        addend = np.int32(np.int32(base + np.int32(np.int32(value >> _31) & if_negative)) + np.int32(quotient & if_odd))
        rounded = np.int32(np.int32(quotient + shift_right_32(np.int32(rest + addend), shift)) | set_bit)
        fitted = _fit(rounded, wraps, minimum, maximum, mask, sign)
        outside = np.int32(outside + (_1 if fitted != rounded else _0))
        lost = np.int32(lost + (_1 if (value != _0) & (rounded == _0) else _0))
        least, greatest = min(least, fitted), max(greatest, fitted)
        out[i] = fitted
    seen[0], seen[1], seen[2], seen[3] = np.int32(seen[0] + outside), np.int32(seen[1] + lost), least, greatest


@jit
def _stochastic_run(values, out, shift, fractions, left, wraps, minimum, maximum, mask, sign, seen):
    """Round by random fractions of `shift` bits, `left` of which are zeros to be appended."""
    factor = np.int32(np.int64(1) << left)
    rest_mask, outside, lost, least, greatest = np.int32((np.int64(1) << shift) - np.int64(1)), _0, _0, seen[2], seen[3]
    for i in range(values.size):
        value = values[i]
        quotient, rest = shift_right_32(value, shift), np.int32(value & rest_mask)
        addend = np.int32(np.int32(fractions[i]) * factor)
        rounded = np.int32(quotient + shift_right_32(np.int32(rest + addend), shift))
        fitted = _fit(rounded, wraps, minimum, maximum, mask, sign)
        outside = np.int32(outside + (_1 if fitted != rounded else _0))
        lost = np.int32(lost + (_1 if (value != _0) & (rounded == _0) else _0))
        least, greatest = min(least, fitted), max(greatest, fitted)
        out[i] = fitted
    seen[0], seen[1], seen[2], seen[3] = np.int32(seen[0] + outside), np.int32(seen[1] + lost), least, greatest


@jit
def _round(values, made, role, key_0, key_1, step, first, room, seen):
    """Round and fit a window, which begins at a multiple of four, into the word of a role."""
    shift, wraps = role[SHIFT], role[WRAPS] != 0
    minimum, maximum, mask, sign = np.int32(role[MINIMUM]), np.int32(role[MAXIMUM]), np.int32(role[MASK]), np.int32(role[SIGN])
    if role[MODE] == STOCHASTIC:
        whole, kept = (values.size + np.int64(3)) & np.int64(-4), min(role[RANDOM_BITS], role[SHIFT])
        drop, left = np.uint64(np.int64(32) - kept), role[SHIFT] - kept
        fill_words(key_0, key_1, np.uint64(role[STREAM]), step, np.uint64(first >> np.int64(2)), drop, room[:whole])
        _stochastic_run(values, made, shift, room, left, wraps, minimum, maximum, mask, sign, seen)
        return
    base, if_negative, if_odd, set_bit = rounding_constants(role[MODE], role[SHIFT])
    constants = (np.int32(base), np.int32(if_negative), np.int32(if_odd), np.int32(set_bit))
    _round_run(values, made, shift, constants, wraps, minimum, maximum, mask, sign, seen)


@jit
def _add_products(a, by_a, b, by_b, c, by_c, sums):
    """Write ``a * by_a + b * by_b + c * by_c``."""
    for i in range(sums.size):
        sums[i] = np.int32(np.int32(np.int32(a[i] * by_a) + np.int32(b[i] * by_b)) + np.int32(c[i] * by_c))


@jit
def _count_still(move, before, after, decays):
    """Return for how many weights a move that is not zero changes nothing; with -1 for `decays`, a weight moves too."""
    still = _0
    for i in range(move.size):
        moving = np.int32(move[i] | np.int32(before[i] & decays)) != _0
        still = np.int32(still + (_1 if moving & (before[i] == after[i]) else _0))
    return still


@jit
def _count(counters, role, seen):
    """Add what was seen of a role to its counters."""
    count(counters, role[WRAPS] != 0, np.int64(seen[0]), np.int64(seen[1]), np.int64(seen[2]), np.int64(seen[3]))


@jit
def update(
    sums, sums_width, weights, weights_width, velocity, velocity_width, start, stop, roles, factors, key_0, key_1, step,
    counters,
):  # fmt: skip
    """Do what :func:`intnet.kernels.plain.update.update` does; `start` is a multiple of four.

    The sums have up to 32 bits, as have what the factors make of words, and every product and sum on the way; the words have up
    to 31; there are fewer than ``2**31`` weights. Shifts are in 0..30, modes FLOOR .. STOCHASTIC, with up to 32 random bits.
    """
    by_momentum, by_gradient, by_decay = np.int32(factors[0]), np.int32(factors[1]), np.int32(factors[2])
    with_momentum = velocity_width > 0
    by_weight, by_move = np.int32(factors[3] if with_momentum else factors[3] - factors[2]), np.int32(-factors[4])
    of_gradient, of_momentum, of_weights = roles[GRADIENT], roles[MOMENTUM], roles[WEIGHT]  # taken once: views cost
    seen_gradient, seen_momentum, seen_weights = np.zeros(4, np.int32), np.zeros(4, np.int32), np.zeros(4, np.int32)
    for seen in (seen_gradient, seen_momentum, seen_weights):
        seen[2], seen[3] = _INT32_MAX, _INT32_MIN
    still, any_weight = np.int64(0), _0 if with_momentum or by_decay == _0 else np.int32(-1)
    size = min(np.int64(_WINDOW), stop - start)
    room, exact, move = np.empty(_WINDOW, np.uint32), np.empty(size, np.int32), np.empty(size, np.int32)
    stored, new = np.empty(size, np.int32), np.empty(size, np.int32)
    for begin in range(start, stop, _WINDOW):
        size = min(np.int64(_WINDOW), stop - begin)
        if size < exact.size:
            exact, move, stored, new = exact[:size], move[:size], stored[:size], new[:size]
        load(sums, sums_width, begin, exact)
        _round(exact, move, of_gradient, key_0, key_1, step, begin, room, seen_gradient)
        load(weights, weights_width, begin, stored)
        if with_momentum:
            load(velocity, velocity_width, begin, new)
            _add_products(new, by_momentum, move, by_gradient, stored, by_decay, exact)
            _round(exact, move, of_momentum, key_0, key_1, step, begin, room, seen_momentum)
            store(move, velocity, velocity_width, begin)
        _add_products(stored, by_weight, move, by_move, move, _0, exact)
        _round(exact, new, of_weights, key_0, key_1, step, begin, room, seen_weights)
        store(new, weights, weights_width, begin)
        still += _count_still(move, stored, new, any_weight)
    seen_weights[1] = still
    _count(counters[GRADIENT], of_gradient, seen_gradient)
    _count(counters[WEIGHT], of_weights, seen_weights)
    if with_momentum:
        _count(counters[MOMENTUM], of_momentum, seen_momentum)
