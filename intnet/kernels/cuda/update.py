"""One step of stochastic gradient descent on the GPU: see :mod:`intnet.kernels.plain.update`, which defines it.

A thread takes four neighbouring weights, whose random words come of one block of Philox for each role that needs some.
"""

from typing import Any

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import STOCHASTIC
from intnet.kernels.cuda._device import (
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    NO_WORDS,
    count_block,
    device,
    flat,
    four_words,
    narrow_constants,
    one_of_four,
    requantize_narrow,
    requantize_wide,
    typed,
)
from intnet.kernels.cuda._driver import cuda, kernel
from intnet.kernels.plain.requantize import (
    CONSTANTS,
    COUNTERS,
    MASK,
    MAXIMUM,
    MINIMUM,
    MODE,
    RANDOM_BITS,
    SHIFT,
    SIGN,
    STREAM,
    WRAPS,
)
from intnet.kernels.plain.update import (
    FACTOR_DECAY,
    FACTOR_GRADIENT,
    FACTOR_MOMENTUM,
    FACTOR_RATE,
    FACTOR_WEIGHT,
    GRADIENT,
    MOMENTUM,
    WEIGHT,
)

__all__ = ["update"]

_GRADIENT, _MOMENTUM, _WEIGHT = GRADIENT * CONSTANTS, MOMENTUM * CONSTANTS, WEIGHT * CONSTANTS
_0, _1 = np.int32(0), np.int32(1)


# 1. One weight -----------------------------------------------------------------------------------------------------------


@jit
def combine_narrow(a, by_a, b, by_b, c, by_c):
    """Return ``a * by_a + b * by_b + c * by_c``, of which no step leaves int32."""
    first = np.int32(np.int32(a) * np.int32(by_a))
    return np.int32(np.int32(first + np.int32(np.int32(b) * np.int32(by_b))) + np.int32(np.int32(c) * np.int32(by_c)))


@jit
def combine_wide(a, by_a, b, by_b, c, by_c):
    """Return ``a * by_a + b * by_b + c * by_c``, of which no step leaves int64."""
    return np.int64(by_a) * np.int64(a) + np.int64(by_b) * np.int64(b) + np.int64(by_c) * np.int64(c)


@jit
def stands_still(move, before, after, decays):
    """Return 1 if a move that is not zero changed nothing, else 0; if it `decays`, a weight that is not zero moves too."""
    moves = (move != 0) | (decays & (before != 0))
    return _1 if moves & (before == after) else _0


@device
def _role_narrow(roles, at):
    """Return what is known of a role, read once; numbers in 32 bits."""
    mode, shift = roles[at + MODE], roles[at + SHIFT]
    first, second, third, fourth = narrow_constants(mode, shift, roles[at + RANDOM_BITS])
    return (
        np.int32(mode), np.int32(shift), np.int32(first), np.int32(second), np.int32(third), np.int32(fourth),
        roles[at + WRAPS] != 0, np.int32(roles[at + MINIMUM]), np.int32(roles[at + MAXIMUM]), np.int32(roles[at + MASK]),
        np.int32(roles[at + SIGN]), roles[at + STREAM],
    )  # fmt: skip


@device
def _round_narrow(value, role, word):
    return requantize_narrow(
        value, role[0], role[1], word, role[2], role[3], role[4], role[5], role[6], role[7], role[8], role[9], role[10]
    )


@device
def _round_wide(value, roles, at, word, key_0, key_1, step, index):
    """Round into the word of a role, of which so much is known that it is not kept in registers."""
    return requantize_wide(
        value, roles[at + MODE], roles[at + SHIFT], word, key_0, key_1, roles[at + STREAM], step, index,
        roles[at + RANDOM_BITS],
        roles[at + WRAPS] != 0, roles[at + MINIMUM], roles[at + MAXIMUM], roles[at + MASK], roles[at + SIGN],
    )  # fmt: skip


@device
def _words_of(mode, group, key_0, key_1, stream, step):
    return four_words(group, key_0, key_1, stream, step) if mode == STOCHASTIC else NO_WORDS


# 2. Kernels --------------------------------------------------------------------------------------------------------------

_OF_UPDATE = "boolean, int64, int64, int64[::1], int64[::1], uint64, uint64, uint64, int64[::1]"


@kernel(
    f"int32[::1], int8[::1], int8[::1], {_OF_UPDATE}",
    f"int32[::1], int8[::1], int16[::1], {_OF_UPDATE}",
    f"int32[::1], int16[::1], int16[::1], {_OF_UPDATE}",
)
def _update_narrow(sums, weights, velocity, with_momentum, start, stop, roles, factors, key_0, key_1, step, counters):
    by_momentum, by_gradient, by_decay = factors[FACTOR_MOMENTUM], factors[FACTOR_GRADIENT], factors[FACTOR_DECAY]
    by_weight, by_move = factors[FACTOR_WEIGHT], -factors[FACTOR_RATE]
    if not with_momentum:
        by_weight -= by_decay
    decays = not with_momentum and by_decay != 0
    of_gradient, of_momentum, of_weight = (
        _role_narrow(roles, _GRADIENT),
        _role_narrow(roles, _MOMENTUM),
        _role_narrow(roles, _WEIGHT),
    )
    outside_g = lost_g = outside_m = lost_m = outside_w = still = _0
    least_g, greatest_g = least_m, greatest_m = least_w, greatest_w = INT32_MAX, INT32_MIN
    momentum_words = NO_WORDS
    for group in range((start >> 2) + cuda.grid(1), (stop + 3) >> 2, cuda.gridsize(1)):
        gradient_words = _words_of(of_gradient[0], group, key_0, key_1, of_gradient[11], step)
        if with_momentum:
            momentum_words = _words_of(of_momentum[0], group, key_0, key_1, of_momentum[11], step)
        weight_words = _words_of(of_weight[0], group, key_0, key_1, of_weight[11], step)
        for j in range(4):
            i = (group << 2) + j
            if start <= i < stop:
                place = np.uint64(i)
                before = weights[place]
                move, left, vanished = _round_narrow(sums[place], of_gradient, one_of_four(gradient_words, j))
                outside_g, lost_g = np.int32(outside_g + left), np.int32(lost_g + vanished)
                least_g, greatest_g = min(least_g, move), max(greatest_g, move)
                if with_momentum:
                    exact = combine_narrow(velocity[place], by_momentum, move, by_gradient, before, by_decay)
                    move, left, vanished = _round_narrow(exact, of_momentum, one_of_four(momentum_words, j))
                    velocity[place] = move
                    outside_m, lost_m = np.int32(outside_m + left), np.int32(lost_m + vanished)
                    least_m, greatest_m = min(least_m, move), max(greatest_m, move)
                exact = combine_narrow(before, by_weight, move, by_move, 0, 0)
                after, left, _ = _round_narrow(exact, of_weight, one_of_four(weight_words, j))
                weights[place] = after
                outside_w, still = np.int32(outside_w + left), np.int32(still + stands_still(move, before, after, decays))
                least_w, greatest_w = min(least_w, after), max(greatest_w, after)
    count_block(counters, GRADIENT * COUNTERS, of_gradient[6], outside_g, lost_g, least_g, greatest_g)
    if with_momentum:
        count_block(counters, MOMENTUM * COUNTERS, of_momentum[6], outside_m, lost_m, least_m, greatest_m)
    count_block(counters, WEIGHT * COUNTERS, of_weight[6], outside_w, still, least_w, greatest_w)


@kernel(
    f"int32[::1], int8[::1], int8[::1], {_OF_UPDATE}",
    f"int32[::1], int16[::1], int16[::1], {_OF_UPDATE}",
    f"int32[::1], int32[::1], int32[::1], {_OF_UPDATE}",
    f"int64[::1], int8[::1], int16[::1], {_OF_UPDATE}",
    f"int64[::1], int32[::1], int32[::1], {_OF_UPDATE}",
)
def _update_wide(sums, weights, velocity, with_momentum, start, stop, roles, factors, key_0, key_1, step, counters):
    by_momentum, by_gradient, by_decay = factors[FACTOR_MOMENTUM], factors[FACTOR_GRADIENT], factors[FACTOR_DECAY]
    by_weight, by_move = factors[FACTOR_WEIGHT], -factors[FACTOR_RATE]
    if not with_momentum:
        by_weight -= by_decay
    decays = not with_momentum and by_decay != 0
    outside_g = lost_g = outside_m = lost_m = outside_w = still = np.int64(0)
    least_g, greatest_g = least_m, greatest_m = least_w, greatest_w = INT64_MAX, INT64_MIN
    momentum_words = NO_WORDS
    for group in range((start >> 2) + cuda.grid(1), (stop + 3) >> 2, cuda.gridsize(1)):
        gradient_words = _words_of(roles[_GRADIENT + MODE], group, key_0, key_1, roles[_GRADIENT + STREAM], step)
        if with_momentum:
            momentum_words = _words_of(roles[_MOMENTUM + MODE], group, key_0, key_1, roles[_MOMENTUM + STREAM], step)
        weight_words = _words_of(roles[_WEIGHT + MODE], group, key_0, key_1, roles[_WEIGHT + STREAM], step)
        for j in range(4):
            i = (group << 2) + j
            if start <= i < stop:
                before = np.int64(weights[i])
                move, left, vanished = _round_wide(
                    sums[i], roles, _GRADIENT, one_of_four(gradient_words, j), key_0, key_1, step, i
                )
                outside_g += np.int64(left)
                lost_g += np.int64(vanished)
                least_g, greatest_g = min(least_g, move), max(greatest_g, move)
                if with_momentum:
                    exact = combine_wide(velocity[i], by_momentum, move, by_gradient, before, by_decay)
                    move, left, vanished = _round_wide(
                        exact, roles, _MOMENTUM, one_of_four(momentum_words, j), key_0, key_1, step, i
                    )
                    velocity[i] = move
                    outside_m += np.int64(left)
                    lost_m += np.int64(vanished)
                    least_m, greatest_m = min(least_m, move), max(greatest_m, move)
                exact = combine_wide(before, by_weight, move, by_move, 0, 0)
                after, left, _ = _round_wide(exact, roles, _WEIGHT, one_of_four(weight_words, j), key_0, key_1, step, i)
                weights[i] = after
                outside_w += np.int64(left)
                still += np.int64(stands_still(move, before, after, decays))
                least_w, greatest_w = min(least_w, after), max(greatest_w, after)
    count_block(counters, GRADIENT * COUNTERS, roles[_GRADIENT + WRAPS] != 0, outside_g, lost_g, least_g, greatest_g)
    if with_momentum:
        count_block(counters, MOMENTUM * COUNTERS, roles[_MOMENTUM + WRAPS] != 0, outside_m, lost_m, least_m, greatest_m)
    count_block(counters, WEIGHT * COUNTERS, roles[_WEIGHT + WRAPS] != 0, outside_w, still, least_w, greatest_w)


# 3. On the host ----------------------------------------------------------------------------------------------------------


def update(
    sums: Any, sums_width: int, weights: Any, weights_width: int, velocity: Any, velocity_width: int, start: int, stop: int,
    roles: Any, factors: Any, key_0: Any, key_1: Any, step: Any, counters: Any, narrow: bool = False,
) -> None:  # fmt: skip
    """Do what :func:`intnet.kernels.plain.update.update` does.

    `sums`, `weights` and `velocity` may have their types instead of coming as bytes. With `narrow`, the kernel is the one in
    32 bits: the caller has proven what :func:`intnet.kernels.simd.update.update` asks for.
    """
    sums, weights = typed(sums, sums_width), typed(weights, weights_width)
    with_momentum = int(velocity_width) > 0
    velocity = typed(velocity, velocity_width) if with_momentum else weights
    start, stop = int(start), int(stop)
    groups = ((stop + 3) >> 2) - (start >> 2) if stop > start else 0
    kernel_of = _update_narrow if narrow and sums.dtype.itemsize <= 4 else _update_wide
    kernel_of(
        groups, sums, weights, velocity, with_momentum, start, stop, flat(roles), flat(factors), np.uint64(key_0),
        np.uint64(key_1), np.uint64(step), flat(counters),
    )  # fmt: skip
