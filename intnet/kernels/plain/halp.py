"""Variance-reduced gradient descent (SVRG) with rounded weights on convex problems, and what bit centering needs.

SVRG (Johnson and Zhang 2013) keeps a centre c and the full gradient g there; a step takes one sample i::

    w = Q(w - rate * (gradient_i(w) - gradient_i(c) + g))

Q rounds to the grid of w, once, and saturates to its word. HALP (De Sa et al. 2018, arXiv:1803.03383, sec. 3) is this with w
an offset of few bits from the centre, whose grid is chosen anew with every centre: here a step whose own centre is 0.

What the two gradients of one sample share is computed once. Of least squares, ``gradient_i(w) - gradient_i(c)`` is
``x (x (w - c))``: one inner product, without the target. Of softmax regression, the logits and errors of all samples at the
centre are those of its full gradient.

A move is exact to ``2**-shift`` of the unit of w: what stands in the same place every step, ``-rate * g``, and what a
sample's inputs are multiplied by, are rounded there to nearest, and their sum is rounded to the grid. Random bits are those of
:mod:`intnet.kernels.plain.regression`: the same seed takes the same samples.

Whoever calls has proven that no product, sum or shift below leaves int64.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import (
    TIES_POS,
    bit_length,
    high_word,
    low_word,
    multiply_shift,
    root_words,
    round_shift,
    round_shift_stochastic,
    rounding_constants,
    saturate,
    shift_words,
    words_bit_length,
)
from intnet.kernels.plain.loss import softmax_gradient_row
from intnet.kernels.plain.regression import RANDOM_BITS, ROUNDING_STREAM, dot, draw_sample
from intnet.random import fill_fractions, room_for

GRADIENT_BITS = 61  # of the integers of a full gradient
LOGIT_LIMIT = 2**61  # of the logits of the centre, and of what an offset adds to them
_SQUARED_BITS = 31  # squares are taken of
_HALF = 2**31  # of the random bits


# 1. The full gradient ---------------------------------------------------------------------------------------------------


@jit
def least_squares_full_gradient(inputs, targets, product_left, target_left, weights, high, low):
    """Write the exact sum of all samples' gradients of half the squared error, in two words: ``high * 2**32 + low``.

    Parameters
    ----------
    inputs : (samples, features) int16
        Samples times the largest input stay below ``2**31``.
    targets : (samples,) int64
    product_left, target_left : int64
        As of :func:`intnet.kernels.least_squares_sgd`.
    weights : (1, features) int64
    high, low : (1, features) int64, written
    """
    of_all, upper, lower = weights[0], high[0], low[0]
    for j in range(of_all.shape[0]):
        upper[j] = np.int64(0)
        lower[j] = np.int64(0)
    for i in range(inputs.shape[0]):
        residual = (dot(inputs[i], of_all) << product_left) - (targets[i] << target_left)
        above, below = high_word(residual), low_word(residual)
        for j in range(of_all.shape[0]):
            x = np.int64(inputs[i, j])
            upper[j] += above * x
            lower[j] += below * x


@jit
def join_gradient(high, low, out):
    """Write ``(high * 2**32 + low) / 2**shift`` to nearest, and return the shift: the least that leaves 61 bits; often 0.

    Parameters
    ----------
    high, low, out : (rows, features) int64
        `out` is written, up to ``2**61`` in magnitude.
    """
    bits = np.int64(0)
    for c in range(high.shape[0]):
        for j in range(high.shape[1]):
            bits = max(bits, words_bit_length(high[c, j], low[c, j]))
    shift = max(bits - np.int64(GRADIENT_BITS), np.int64(0))
    for c in range(high.shape[0]):
        for j in range(high.shape[1]):
            out[c, j] = shift_words(high[c, j], low[c, j], shift)
    return shift


@jit
def softmax_full_gradient(
    inputs, labels, logit_exponent, left, decay_mantissa, decay_right, weights, logits, errors, sums
):  # fmt: skip
    """Write the sum of all samples' gradients of the softmax cross-entropy with decay; and logits and errors of each.

    In units of ``2**-(30 + left)`` times that of the inputs. The errors are those of :func:`softmax_gradient`; the decay's
    part, ``weights * decay_mantissa / 2**decay_right``, is rounded to nearest.

    Parameters
    ----------
    inputs : (samples, features) int16
    labels : (samples,) int64
    logit_exponent, left, decay_mantissa, decay_right : int64
    weights : (classes, features) int64
    logits : (samples, classes) int64, written
    errors : (samples, classes) int32, written
    sums : (classes, features) int64, written
    """
    classes, features = weights.shape
    powers = np.empty(classes, np.int64)
    for c in range(classes):
        for j in range(features):
            sums[c, j] = np.int64(0)
    for i in range(inputs.shape[0]):
        sample = inputs[i]
        for c in range(classes):
            logits[i, c] = dot(sample, weights[c])
        softmax_gradient_row(logits[i], logit_exponent, labels[i], powers, errors[i])
        for c in range(classes):
            error = np.int64(errors[i, c])
            for j in range(features):
                sums[c, j] += error * np.int64(sample[j])
    for c in range(classes):
        for j in range(features):
            sums[c, j] = (sums[c, j] << left) + multiply_shift(weights[c, j], decay_mantissa, decay_right)


# 2. Bit centering -------------------------------------------------------------------------------------------------------


@jit
def root_of_squares(values):
    """Return the square root of the sum of squares as ``root * 2**exponent``: ``(root, exponent)``.

    Values are rounded to 31 bits by a shift that all of them share; their squares are added up in two words. So the root is
    off by less than ``(sqrt(size) + 3) * 2**-31`` of it.

    Parameters
    ----------
    values : (size,) int64
        Up to ``2**62`` in magnitude, fewer than ``2**31``.
    """
    largest = np.int64(0)
    for i in range(values.shape[0]):
        largest = max(largest, abs(values[i]))
    shift = max(bit_length(largest) - np.int64(_SQUARED_BITS), np.int64(0))
    base, if_negative, if_odd, set_bit = rounding_constants(TIES_POS, shift)
    high, low = np.int64(0), np.int64(0)
    for i in range(values.shape[0]):
        value = round_shift(values[i], shift, base, if_negative, if_odd, set_bit)
        square = value * value  # up to 2**62
        high += high_word(square)
        low += low_word(square)
    root, exponent = root_words(high, low)
    return root, exponent + shift


@jit
def scale_rows(values, mantissa, rights, out):
    """Write ``values * mantissa / 2**right`` to nearest, ties away from zero, saturated to int64.

    Parameters
    ----------
    values, out : (rows, size) int64
    mantissa : int64
    rights : (rows,) int64
        One a row.
    """
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            out[i, j] = multiply_shift(values[i, j], mantissa, rights[i])


@jit
def recentre(centre, offsets, mantissa, right, minimum, maximum):
    """Add ``offsets * mantissa / 2**right``, to nearest, ties away from zero, to the centre; return how many saturate.

    Parameters
    ----------
    centre : (size,) int64
        Moved in place; of a word of up to 62 bits.
    offsets : (size,) int64
    mantissa, right : int64
    minimum, maximum : int64
        Of the centre's word.
    """
    saturated, most = np.int64(0), np.int64(1 << 62)
    for i in range(centre.shape[0]):
        moved = centre[i] + saturate(multiply_shift(offsets[i], mantissa, right), -most, most)
        kept = saturate(moved, minimum, maximum)
        saturated += np.int64(kept != moved)
        centre[i] = kept
    return saturated


@jit
def move_offsets(offsets, moves, by_offset, shift, minimum, maximum, stochastic, key_0, key_1, stream, step, first):
    """Add ``(moves + by_offset * offsets) / 2**shift``, rounded once, to offsets; return how many saturate.

    Parameters
    ----------
    offsets : (size,) int64
        Moved in place; of a word of up to 16 bits.
    moves : (size,) int64
        What is beyond ``+-2**62`` saturates the word in any case.
    by_offset : int64
        Times the word's largest magnitude up to ``2**61``.
    shift : int64, 0..44
    minimum, maximum : int64
        Of the word.
    stochastic : int64
        1 to round stochastically, 0 to nearest, ties to plus infinity.
    key_0, key_1, stream, step : uint64
    first : int64
        The number of the first offset among those that share a sequence of random bits.
    """
    size, saturated, most = offsets.shape[0], np.int64(0), np.int64(1 << 62)
    room, skip = np.full(room_for(size, RANDOM_BITS), _HALF, np.int64), np.int64(0)
    if stochastic > 0:
        skip = fill_fractions(key_0, key_1, stream, step, first, size, RANDOM_BITS, room)
    fractions = room[skip:]
    for j in range(size):
        move = saturate(moves[j], -most, most) + by_offset * offsets[j]
        moved = offsets[j] + round_shift_stochastic(move, shift, fractions[j], np.int64(RANDOM_BITS))
        kept = saturate(moved, minimum, maximum)
        saturated += np.int64(kept != moved)
        offsets[j] = kept
    return saturated


# 3. Steps ---------------------------------------------------------------------------------------------------------------


@jit
def dot_from(inputs, weights, centre):
    """Return the exact inner product of a sample (integers) and the weights' distance from the centre (both int64)."""
    total = np.int64(0)
    for j in range(weights.shape[0]):
        total += np.int64(inputs[j]) * (weights[j] - centre[j])
    return total


@jit
def move_from(weights, centre, inputs, by_input, by_offset, direction, shift, fractions, minimum, maximum):
    """Add ``(by_input * inputs + by_offset * (weights - centre) + direction) / 2**shift``, rounded; return how many saturate.

    Parameters
    ----------
    weights : (features,) int64
        Moved in place.
    centre, direction : (features,) int64
    inputs : (features,) integers
    by_input, by_offset, shift : int64
        `shift` >= 0.
    fractions : (features,) int64, 0..2**32 - 1
        The random bits; ``2**31`` rounds to nearest, ties to plus infinity.
    minimum, maximum : int64
        Of the word.
    """
    saturated = np.int64(0)
    for j in range(weights.shape[0]):
        weight = weights[j]
        move = by_input * np.int64(inputs[j]) + by_offset * (weight - centre[j]) + direction[j]
        moved = weight + round_shift_stochastic(move, shift, fractions[j], np.int64(RANDOM_BITS))
        kept = saturate(moved, minimum, maximum)
        saturated += np.int64(kept != moved)
        weights[j] = kept
    return saturated


@jit
def least_squares_svrg(
    inputs, centre, direction, mantissa, right, shift, minimum, maximum, stochastic, key_0, key_1, first_iteration,
    iterations, weights,
):  # fmt: skip
    """Do iterations of SVRG on half the squared error; return how often a weight saturated.

    With x the sample of the iteration::

        p = x (w - centre) * mantissa / 2**right                     to nearest
        w = saturate(w + round((direction - p * x) / 2**shift))

    Parameters
    ----------
    inputs : (samples, features) int16
    centre : (1, features) int64
        In units of the weights.
    direction : (1, features) int64
        The rate times the full gradient at the centre, in units of ``2**-shift`` of the weights', with its sign: to descend.
    mantissa, right : int64
        The rate in these units.
    shift : int64, 0..62
    minimum, maximum : int64
        Of the weights' word.
    stochastic : int64
        1 to round stochastically, 0 to nearest, ties to plus infinity.
    key_0, key_1 : uint64
    first_iteration, iterations : int64
        Iterations ``first_iteration .. first_iteration + iterations - 1`` are done; below ``2**32``.
    weights : (1, features) int64
        Moved in place.
    """
    samples, features = inputs.shape
    room, skip = np.full(room_for(features, RANDOM_BITS), _HALF, np.int64), np.int64(0)
    saturated, zero = np.int64(0), np.int64(0)
    of_all, origin, ahead = weights[0], centre[0], direction[0]
    for iteration in range(first_iteration, first_iteration + iterations):
        i = draw_sample(key_0, key_1, iteration, samples)
        by_input = -multiply_shift(dot_from(inputs[i], of_all, origin), mantissa, right)
        if stochastic > 0:
            step = np.uint64(iteration)
            skip = fill_fractions(key_0, key_1, np.uint64(ROUNDING_STREAM), step, zero, features, RANDOM_BITS, room)
        saturated += move_from(of_all, origin, inputs[i], by_input, zero, ahead, shift, room[skip:], minimum, maximum)
    return saturated


@jit
def softmax_svrg(
    inputs, labels, logits, errors, logit_exponent, unit_mantissa, unit_right, centre, direction, mantissa, right, limit,
    by_offset, shift, minimum, maximum, stochastic, key_0, key_1, first_iteration, iterations, weights,
):  # fmt: skip
    """Do iterations of SVRG on the softmax cross-entropy with decay; return how often a weight saturated.

    With x the sample of the iteration, and g the errors of :func:`softmax_gradient`::

        l_c = logits_c + x (w_c - centre_c) * unit_mantissa / 2**unit_right       to nearest
        p_c = (g_c(l) - errors_c) * mantissa / 2**right                           to nearest, within +-limit
        w_c = saturate(w_c + round((direction_c - p_c * x + by_offset * (w_c - centre_c)) / 2**shift))

    Parameters
    ----------
    inputs : (samples, features) int16
    labels : (samples,) int64
    logits : (samples, classes) int64
        At the centre, below ``2**61`` in magnitude.
    errors : (samples, classes) int32
        At the centre.
    logit_exponent : int64
    unit_mantissa, unit_right : int64
        The unit of the weights in units of the logits.
    centre, direction : (classes, features) int64
    mantissa, right, limit : int64
    by_offset : int64
        The rate times the decay in units of ``2**-shift``, with its sign: negative to descend.
    weights : (classes, features) int64
        Moved in place.
    shift, minimum, maximum, stochastic, key_0, key_1, first_iteration, iterations
        As of :func:`least_squares_svrg`.
    """
    samples, features = inputs.shape
    classes = weights.shape[0]
    room, skip = np.full(room_for(features, RANDOM_BITS), _HALF, np.int64), np.int64(0)
    row, powers, now = np.empty(classes, np.int64), np.empty(classes, np.int64), np.empty(classes, np.int32)
    saturated, most = np.int64(0), np.int64(LOGIT_LIMIT)
    for iteration in range(first_iteration, first_iteration + iterations):
        i = draw_sample(key_0, key_1, iteration, samples)
        sample, step = inputs[i], np.uint64(iteration)
        for c in range(classes):
            change = multiply_shift(dot_from(sample, weights[c], centre[c]), unit_mantissa, unit_right)
            row[c] = logits[i, c] + saturate(change, -most, most)
        softmax_gradient_row(row, logit_exponent, labels[i], powers, now)
        for c in range(classes):
            change = multiply_shift(np.int64(now[c]) - np.int64(errors[i, c]), mantissa, right)
            by_input = -saturate(change, -limit, limit)
            if stochastic > 0:
                first = np.int64(c) * np.int64(features)
                skip = fill_fractions(key_0, key_1, np.uint64(ROUNDING_STREAM), step, first, features, RANDOM_BITS, room)
            saturated += move_from(
                weights[c], centre[c], sample, by_input, by_offset, direction[c], shift, room[skip:], minimum, maximum
            )  # fmt: skip
    return saturated
