"""The step of stochastic gradient descent in 32-bit lanes: twice as many at a time.

Every number that the plain kernel holds in int64 is proven to fit in int32 here.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import STOCHASTIC
from intnet.kernels.plain.requantize import MAXIMUM, MINIMUM, MODE, RANDOM_BITS, SHIFT, STREAM, WRAPS, load, store
from intnet.kernels.plain.update import GRADIENT, MOMENTUM, WEIGHT
from intnet.kernels.plain.update import update as plain_update
from intnet.kernels.simd.requantize import WINDOW, count_seen, new_seen, round_window
from intnet.kernels.vectors import shift_right_32
from intnet.random import fill_words

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
def _fill(role, key_0, key_1, step, begin, words):
    """Write the random words of a role, cut to as many bits as it shifts by."""
    drop = np.uint64(np.int64(32) - role[SHIFT])
    fill_words(key_0, key_1, np.uint64(role[STREAM]), step, np.uint64(begin >> np.int64(2)), drop, words)


@jit
def _taken(role):
    """Return which of these bits a role takes."""
    shift = role[SHIFT]
    return np.int32((np.int64(1) << shift) - (np.int64(1) << (shift - min(role[RANDOM_BITS], shift))))


@jit
def draw(roles, keys, step, drawn):
    """Write the random words that `update` takes for the gradients and the weights of several tensors.

    Parameters
    ----------
    roles, keys : (tensors, 3, CONSTANTS) int64, (tensors, 2) uint64
    step : uint64
    drawn : tuple of (2, a multiple of four) uint16, written
        One a tensor, whose shifts are up to 16; empty for a tensor whose words `update` is to draw itself.
    """
    for tensor in range(len(drawn)):
        words = drawn[tensor]
        if words.size > 0:
            _fill(roles[tensor, GRADIENT], keys[tensor, 0], keys[tensor, 1], step, np.int64(0), words[0])
            _fill(roles[tensor, WEIGHT], keys[tensor, 0], keys[tensor, 1], step, np.int64(0), words[1])


@jit
def _move_run(sums, weights, words, more, taken, factors, shifts, bounds, decays, seen, seen_weights):
    """Round gradients and then weights less moves, stochastically and saturating; `seen` is that of the gradient.

    Parameters
    ----------
    sums, weights : integers of up to 32 bits
        The latter are moved.
    words, more : uint32 or uint16
        The random bits of gradient and weight.
    taken, factors, shifts : (2,) tuples
        Which of these bits are taken; the factors of weight and move; how far gradient and weight are shifted.
    bounds : (4,) tuple of int32
        Least and greatest gradient and weight.
    decays : int32
        -1 if weights move by themselves, else 0.
    seen, seen_weights : (4,) int32
        As in `round_window`; but of weights, lost are those that do not move though they should.
    """
    (take, take_more), (by_weight, by_move), (shift, shift_weight) = taken, factors, shifts
    minimum, maximum, minimum_weight, maximum_weight = bounds
    rest_mask = np.int32((np.int64(1) << shift) - np.int64(1))
    rest_mask_weight = np.int32((np.int64(1) << shift_weight) - np.int64(1))
    outside, lost, least, greatest = _0, _0, seen[2], seen[3]
    outside_weight, still, least_weight, greatest_weight = _0, _0, seen_weights[2], seen_weights[3]
    for i in range(np.uint64(sums.size)):
        value, before = np.int32(sums[i]), np.int32(weights[i])
        rest = np.int32(np.int32(value & rest_mask) + np.int32(np.int32(words[i]) & take))
        rounded = np.int32(shift_right_32(value, shift) + shift_right_32(rest, shift))
        move = min(max(rounded, minimum), maximum)
        outside = np.int32(outside + (_1 if move != rounded else _0))
        lost = np.int32(lost + (_1 if (value != _0) & (rounded == _0) else _0))
        least, greatest = min(least, move), max(greatest, move)
        exact = np.int32(np.int32(before * by_weight) + np.int32(move * by_move))
        rest = np.int32(np.int32(exact & rest_mask_weight) + np.int32(np.int32(more[i]) & take_more))
        rounded = np.int32(shift_right_32(exact, shift_weight) + shift_right_32(rest, shift_weight))
        after = min(max(rounded, minimum_weight), maximum_weight)
        outside_weight = np.int32(outside_weight + (_1 if after != rounded else _0))
        moving = np.int32(move | np.int32(before & decays)) != _0
        still = np.int32(still + (_1 if moving & (before == after) else _0))
        least_weight, greatest_weight = min(least_weight, after), max(greatest_weight, after)
        weights[i] = after
    seen[0], seen[1], seen[2], seen[3] = np.int32(seen[0] + outside), np.int32(seen[1] + lost), least, greatest
    seen_weights[0], seen_weights[1] = np.int32(seen_weights[0] + outside_weight), np.int32(seen_weights[1] + still)
    seen_weights[2], seen_weights[3] = least_weight, greatest_weight


@jit
def _update_at_once(
    sums, sums_width, weights, weights_width, start, stop, of_gradient, of_weights, by_weight, by_move, decays, key_0, key_1,
    step, drawn, counters,
):  # fmt: skip
    """Do what `update` does without momentum, where both roles round stochastically and saturate, in one loop a window."""
    seen, seen_weights = new_seen(), new_seen()
    size = min(np.int64(WINDOW), stop - start)
    words, more = np.empty(WINDOW, np.uint32), np.empty(WINDOW, np.uint32)
    taken = _taken(of_gradient), _taken(of_weights)
    factors, shifts = (by_weight, by_move), (of_gradient[SHIFT], of_weights[SHIFT])
    bounds = (
        np.int32(of_gradient[MINIMUM]), np.int32(of_gradient[MAXIMUM]),
        np.int32(of_weights[MINIMUM]), np.int32(of_weights[MAXIMUM]),
    )  # fmt: skip
    where_they_lie = sums_width == 4 and weights_width == 2
    draws = drawn.size == 0 or not where_they_lie
    room = np.int64(0) if where_they_lie else size
    exact, stored = np.empty(room, np.int32), np.empty(room, np.int32)
    for begin in range(start, stop, WINDOW):
        end = min(begin + np.int64(WINDOW), stop)
        size = end - begin
        whole = (size + np.int64(3)) & np.int64(-4)
        if not draws:
            _move_run(
                sums.view(np.int32)[begin:end], weights.view(np.int16)[begin:end], drawn[0, begin:end], drawn[1, begin:end],
                taken, factors, shifts, bounds, decays, seen, seen_weights,
            )  # fmt: skip
            continue
        if whole < words.size:
            words, more = words[:whole], more[:whole]
        _fill(of_gradient, key_0, key_1, step, begin, words)
        _fill(of_weights, key_0, key_1, step, begin, more)
        if where_they_lie:  # the usual types need no copies
            _move_run(
                sums.view(np.int32)[begin:end], weights.view(np.int16)[begin:end], words, more, taken, factors, shifts, bounds,
                decays, seen, seen_weights,
            )  # fmt: skip
            continue
        load(sums, sums_width, begin, exact[:size])
        load(weights, weights_width, begin, stored[:size])
        _move_run(exact[:size], stored[:size], words, more, taken, factors, shifts, bounds, decays, seen, seen_weights)
        store(stored[:size], weights, weights_width, begin)
    count_seen(counters[GRADIENT], of_gradient, seen)
    count_seen(counters[WEIGHT], of_weights, seen_weights)


@jit
def update(
    sums, sums_width, weights, weights_width, velocity, velocity_width, start, stop, roles, factors, key_0, key_1, step,
    drawn, counters,
):  # fmt: skip
    """Do what :func:`intnet.kernels.plain.update.update` does; `start` is a multiple of four.

    The sums have up to 32 bits, as have what the factors make of words, and every product and sum on the way; the words have up
    to 31; there are fewer than ``2**31`` weights. Shifts are in 0..30, random bits up to 32. `drawn` is what `draw` has written
    for this tensor and step, or empty; only a step without momentum looks at it.
    """
    by_momentum, by_gradient, by_decay = np.int32(factors[0]), np.int32(factors[1]), np.int32(factors[2])
    with_momentum = velocity_width > 0
    by_weight, by_move = np.int32(factors[3] if with_momentum else factors[3] - factors[2]), np.int32(-factors[4])
    of_gradient, of_momentum, of_weights = roles[GRADIENT], roles[MOMENTUM], roles[WEIGHT]  # taken once: views cost
    still, any_weight = np.int64(0), _0 if with_momentum or by_decay == _0 else np.int32(-1)
    stochastic = of_gradient[MODE] == STOCHASTIC and of_weights[MODE] == STOCHASTIC
    if stochastic and not with_momentum and of_gradient[WRAPS] == 0 and of_weights[WRAPS] == 0:
        _update_at_once(
            sums, sums_width, weights, weights_width, start, stop, of_gradient, of_weights, by_weight, by_move, any_weight,
            key_0, key_1, step, drawn, counters,
        )  # fmt: skip
        return
    seen_gradient, seen_momentum, seen_weights = new_seen(), new_seen(), new_seen()
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


@jit
def update_together(sums, weights, velocities, widths, lines, first, last, roles, factors, keys, step, drawn, counters):
    """Do the steps of several tensors, each by the kernel that can.

    Parameters
    ----------
    sums, weights, velocities : tuples of (bytes,) uint8
        As in `update`, one of each a tensor.
    widths : (tensors, 4) int64
        Bytes of a sum, of a weight and of a velocity; and whether `update` can do it, should the sums have up to 32 bits.
    lines : (pieces, 3) int64
        What to do: a tensor's number, the first of its elements, and the one after the last.
    first, last : int64
        Which lines.
    roles, factors, keys : (tensors, 3, CONSTANTS) and (tensors, 5) int64, (tensors, 2) uint64
    step : uint64
    drawn : tuple of (2, words) uint16
        As `draw` has written it, or empty.
    counters : tuple of (3, COUNTERS) int64
    """
    for line in range(first, last):
        tensor, start, stop = lines[line, 0], lines[line, 1], lines[line, 2]
        by_sum, by_weight, by_velocity = widths[tensor, 0], widths[tensor, 1], widths[tensor, 2]
        if by_sum <= 4 and widths[tensor, 3] != 0:
            update(
                sums[tensor], by_sum, weights[tensor], by_weight, velocities[tensor], by_velocity, start, stop, roles[tensor],
                factors[tensor], keys[tensor, 0], keys[tensor, 1], step, drawn[tensor], counters[tensor],
            )  # fmt: skip
        else:
            plain_update(
                sums[tensor], by_sum, weights[tensor], by_weight, velocities[tensor], by_velocity, start, stop, roles[tensor],
                factors[tensor], keys[tensor, 0], keys[tensor, 1], step, counters[tensor],
            )  # fmt: skip
