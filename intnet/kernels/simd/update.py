"""The step of stochastic gradient descent in 32-bit lanes: twice as many at a time.

Every number that the plain kernel holds in int64 is proven to fit in int32 here.
"""

import numpy as np

from intnet._compile import jit
from intnet.kernels.plain.requantize import SHIFT, load, store
from intnet.kernels.plain.update import GRADIENT, MOMENTUM, WEIGHT
from intnet.kernels.simd.requantize import WINDOW, count_seen, new_seen, round_window

_0, _1 = np.int32(0), np.int32(1)


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
def update(
    sums, sums_width, weights, weights_width, velocity, velocity_width, start, stop, roles, factors, key_0, key_1, step,
    counters,
):  # fmt: skip
    """Do what :func:`intnet.kernels.plain.update.update` does; `start` is a multiple of four.

    The sums have up to 32 bits, as have what the factors make of words, and every product and sum on the way; the words have up
    to 31; there are fewer than ``2**31`` weights. Shifts are in 0..30, random bits up to 32.
    """
    by_momentum, by_gradient, by_decay = np.int32(factors[0]), np.int32(factors[1]), np.int32(factors[2])
    with_momentum = velocity_width > 0
    by_weight, by_move = np.int32(factors[3] if with_momentum else factors[3] - factors[2]), np.int32(-factors[4])
    of_gradient, of_momentum, of_weights = roles[GRADIENT], roles[MOMENTUM], roles[WEIGHT]  # taken once: views cost
    seen_gradient, seen_momentum, seen_weights = new_seen(), new_seen(), new_seen()
    still, any_weight = np.int64(0), _0 if with_momentum or by_decay == _0 else np.int32(-1)
    size = min(np.int64(WINDOW), stop - start)
    room, exact, move = np.empty(WINDOW, np.uint32), np.empty(size, np.int32), np.empty(size, np.int32)
    stored, new = np.empty(size, np.int32), np.empty(size, np.int32)
    for begin in range(start, stop, WINDOW):
        size = min(np.int64(WINDOW), stop - begin)
        if size < exact.size:
            exact, move, stored, new = exact[:size], move[:size], stored[:size], new[:size]
        load(sums, sums_width, begin, exact)
        round_window(exact, move, of_gradient[SHIFT], of_gradient, key_0, key_1, step, begin, room, seen_gradient)
        load(weights, weights_width, begin, stored)
        if with_momentum:
            load(velocity, velocity_width, begin, new)
            _add_products(new, by_momentum, move, by_gradient, stored, by_decay, exact)
            round_window(exact, move, of_momentum[SHIFT], of_momentum, key_0, key_1, step, begin, room, seen_momentum)
            store(move, velocity, velocity_width, begin)
        _add_products(stored, by_weight, move, by_move, move, _0, exact)
        round_window(exact, new, of_weights[SHIFT], of_weights, key_0, key_1, step, begin, room, seen_weights)
        store(new, weights, weights_width, begin)
        still += _count_still(move, stored, new, any_weight)
    seen_weights[1] = still
    count_seen(counters[GRADIENT], of_gradient, seen_gradient)
    count_seen(counters[WEIGHT], of_weights, seen_weights)
    if with_momentum:
        count_seen(counters[MOMENTUM], of_momentum, seen_momentum)
