"""One step of stochastic gradient descent, over all weights of a tensor in one pass.

Notation: G sums of the gradient (an accumulator), g the gradient in its format, v the momentum, w the weight; all are integers,
each tensor with one exponent, and alignments are powers of two within the factors. Q_role divides by ``2**shift``, rounds and
fits into the role's word, as :func:`intnet.kernels.plain.requantize.requantize_one` does::

    g = Q_gradient(G)
    v = Q_momentum(M v + A g + D w)          with momentum
    w = Q_weight(B w - R v)                  with momentum
    w = Q_weight((B - D) w - R g)            without

What is within a Q is exact: whoever calls has proven that no product, no difference and no sum of it, in this order, leaves
int64.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import STOCHASTIC
from intnet.kernels.plain.requantize import (
    MASK,
    MAXIMUM,
    MINIMUM,
    MODE,
    RANDOM_BITS,
    SIGN,
    STREAM,
    WINDOW,
    WRAPS,
    count,
    extent,
    load,
    requantize_run,
    store,
)  # fmt: skip
from intnet.random import fill_fractions, room_for

GRADIENT, MOMENTUM, WEIGHT = range(3)
"""The roles, by their line in `roles`."""

FACTOR_MOMENTUM, FACTOR_GRADIENT, FACTOR_DECAY, FACTOR_WEIGHT, FACTOR_RATE = range(5)
"""The factors M, A, D, B and R, by their place in `factors`."""

_INT64_MIN, _INT64_MAX = np.int64(-(2**63)), np.int64(2**63 - 1)


@jit
def _round(values, made, role, key_0, key_1, step, first, room, one, seen):
    """Round and fit a window into the word of a role; `seen` collects ``(outside, lost, least, greatest)``."""
    mode, random_bits, wraps = role[MODE], role[RANDOM_BITS], role[WRAPS] != 0
    fractions = room
    if mode == STOCHASTIC:
        skip = fill_fractions(key_0, key_1, np.uint64(role[STREAM]), step, first, values.size, random_bits, room)
        fractions = room[skip:]
    outside, lost = requantize_run(
        values, made, role[:1], mode, fractions, random_bits, wraps, role[MINIMUM], role[MAXIMUM], role[MASK], role[SIGN], one
    )
    seen[0] += outside
    seen[1] += lost
    seen[2], seen[3] = extent(made, seen[2], seen[3])


@jit
def update(
    sums, sums_width, weights, weights_width, velocity, velocity_width, start, stop, roles, factors, key_0, key_1, step,
    counters,
):  # fmt: skip
    """Move the weights `start` to `stop`, and their momentum, in place.

    Compiled once for all types of tensors: they come as bytes.

    Parameters
    ----------
    sums, weights, velocity : (bytes,) uint8
        G, w and v: whole tensors in C order, of signed integers of the next argument's number of bytes; the last two hold the
        words of their roles.
    velocity_width : int64
        0 without momentum: then `velocity` is not looked at.
    start, stop : int64
        The part to do; not empty.
    roles : (3, CONSTANTS) int64
        A line each for the roles GRADIENT, MOMENTUM, WEIGHT: SHIFT .. STREAM.
    factors : (5,) int64
        FACTOR_MOMENTUM .. FACTOR_RATE.
    key_0, key_1, step : uint64
        Of the random bits; each role has its stream, and element i takes the bits of element i.
    counters : (3, COUNTERS) int64
        Of the roles; added to, and the least and the greatest result taken in. Lost by the gradient and the momentum is what
        was not zero and is rounded to zero, by the weight an update that was not zero and changed nothing: v, without momentum
        g or, if it decays, w.
    """
    by_momentum, by_gradient, by_decay, by_weight, by_rate = factors[0], factors[1], factors[2], factors[3], factors[4]
    size, with_momentum = min(stop - start, np.int64(WINDOW)), velocity_width > 0
    room = np.empty(room_for(size, max(roles[0, RANDOM_BITS], roles[1, RANDOM_BITS], roles[2, RANDOM_BITS])), np.int64)
    buffers = np.empty((4, size), np.int64)
    seen = np.zeros((3, 4), np.int64)
    for role in range(3):
        seen[role, 2], seen[role, 3] = _INT64_MAX, _INT64_MIN
    one, zero, still = min(size, np.int64(1)), np.int64(0), np.int64(0)
    for begin in range(start, stop, WINDOW):
        size = min(np.int64(WINDOW), stop - begin)
        exact, move, stored, new = buffers[0, :size], buffers[1, :size], buffers[2, :size], buffers[3, :size]
        load(sums, sums_width, begin, exact)
        _round(exact, move, roles[GRADIENT], key_0, key_1, step, begin, room, one, seen[GRADIENT])
        load(weights, weights_width, begin, stored)
        if with_momentum:
            load(velocity, velocity_width, begin, new)
            for i in range(size):
                exact[i] = by_momentum * new[i] + by_gradient * move[i] + by_decay * stored[i]
            _round(exact, move, roles[MOMENTUM], key_0, key_1, step, begin, room, one, seen[MOMENTUM])
            store(move, velocity, velocity_width, begin)
            for i in range(size):
                exact[i] = by_weight * stored[i] - by_rate * move[i]
        else:
            for i in range(size):
                exact[i] = (by_weight - by_decay) * stored[i] - by_rate * move[i]
        _round(exact, new, roles[WEIGHT], key_0, key_1, step, begin, room, one, seen[WEIGHT])
        store(new, weights, weights_width, begin)
        if with_momentum or by_decay == 0:
            for i in range(size):
                still += one if (move[i] != zero) & (new[i] == stored[i]) else zero
        else:
            for i in range(size):
                still += one if ((move[i] | stored[i]) != zero) & (new[i] == stored[i]) else zero
    seen[WEIGHT, 1] = still
    for role in range(3):
        if role != MOMENTUM or with_momentum:
            count(counters[role], roles[role, WRAPS] != 0, seen[role, 0], seen[role, 1], seen[role, 2], seen[role, 3])
