"""Stochastic gradient descent on convex problems, one sample a step, with the weights rounded after every step.

The two problems of the convex part of SWALP (Yang et al. 2019, arXiv:1904.11943, sec. 3.1 and 5.1): least squares, and
softmax regression with weight decay. Everything is exact but one stochastic rounding a weight and step::

    w = Q(w - move)

where Q rounds to the grid of the weights and saturates to their word. As w lies on the grid, that is w plus the rounded
-move, saturated. From one iteration on, the integers of w are also added up: their mean is the average of SWALP, and loses
no bit.

Random bits are a function of the seed and the iteration (:mod:`intnet.random`): the sample of iteration t is chosen by word 0
of the sequence (seed, ORDER_STREAM, t), and weight i, in C order, is rounded by 32 bits of (seed, ROUNDING_STREAM, t). So a
training may come in any pieces.

Whoever calls has proven that no product, sum or shift below leaves int64.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import choose, round_shift_stochastic, saturate
from intnet.kernels.plain.loss import softmax_gradient_row
from intnet.random import fill_fractions, random_word, room_for

ROUNDING_STREAM, ORDER_STREAM = 0, 1
RANDOM_BITS = 32


@jit
def draw_sample(key_0, key_1, iteration, samples):
    """Return the sample of an iteration, drawn with replacement: one of ``0..samples - 1``, samples below ``2**31``."""
    word = random_word(key_0, key_1, np.uint64(ORDER_STREAM), np.uint64(iteration), np.int64(0))
    return choose(np.int64(word), np.int64(RANDOM_BITS), np.int64(samples))


@jit
def dot(inputs, weights):
    """Return the exact inner product of a sample (integers) and weights (int64)."""
    total = np.int64(0)
    for j in range(weights.shape[0]):
        total += np.int64(inputs[j]) * weights[j]
    return total


@jit
def move_weights(weights, inputs, by_input, by_weight, shift, fractions, minimum, maximum):
    """Add ``(by_input * inputs + by_weight * weights) / 2**shift``, rounded, to the weights; return how many saturate.

    Parameters
    ----------
    weights : (features,) int64
        Moved in place.
    inputs : (features,) integers
    by_input, by_weight, shift : int64
        `shift` >= 0.
    fractions : (features,) int64, 0..2**32 - 1
        The random bits.
    minimum, maximum : int64
        Of the word.
    """
    saturated = np.int64(0)
    for j in range(weights.shape[0]):
        weight = weights[j]
        move = by_input * np.int64(inputs[j]) + by_weight * weight
        moved = weight + round_shift_stochastic(move, shift, fractions[j], np.int64(RANDOM_BITS))
        kept = saturate(moved, minimum, maximum)
        saturated += np.int64(kept != moved)
        weights[j] = kept
    return saturated


@jit
def add_to_sums(weights, sums):
    """Add weights to their sums, both (features,) int64."""
    for j in range(weights.shape[0]):
        sums[j] += weights[j]


@jit
def least_squares_sgd(
    inputs, targets, product_left, target_left, by_input, shift, minimum, maximum, key_0, key_1, first_iteration,
    iterations, averaging_start, weights, sums,
):  # fmt: skip
    """Do iterations of stochastic gradient descent on half the squared error; return how often a weight saturated.

    With x, y the sample of the iteration::

        r = x w * 2**product_left - y * 2**target_left
        w = saturate(w + stochastic(by_input * r * x / 2**shift))

    Parameters
    ----------
    inputs : (samples, features) int16
    targets : (samples,) int64
    product_left, target_left : int64
        What brings both to a common exponent.
    by_input, shift : int64
        The rate as a fraction of units of the weights, with its sign: negative to descend.
    minimum, maximum : int64
        Of the weights' word.
    key_0, key_1 : uint64
        Of the random bits.
    first_iteration, iterations : int64
        Iterations ``first_iteration .. first_iteration + iterations - 1`` are done; below ``2**32``.
    averaging_start : int64
        The weights after this iteration are the first that are added to `sums`.
    weights : (1, features) int64
        Moved in place.
    sums : (1, features) int64
        Added to.
    """
    samples, features = inputs.shape
    room = np.empty(room_for(features, RANDOM_BITS), np.int64)
    saturated = np.int64(0)
    of_all, of_sums = weights[0], sums[0]
    for iteration in range(first_iteration, first_iteration + iterations):
        i = draw_sample(key_0, key_1, iteration, samples)
        residual = (dot(inputs[i], of_all) << product_left) - (targets[i] << target_left)
        step = np.uint64(iteration)
        skip = fill_fractions(key_0, key_1, np.uint64(ROUNDING_STREAM), step, np.int64(0), features, RANDOM_BITS, room)
        saturated += move_weights(
            of_all, inputs[i], by_input * residual, np.int64(0), shift, room[skip:], minimum, maximum
        )  # fmt: skip
        if iteration >= averaging_start:
            add_to_sums(of_all, of_sums)
    return saturated


@jit
def softmax_sgd(
    inputs, labels, logit_exponent, by_input, by_weight, shift, minimum, maximum, key_0, key_1, first_iteration,
    iterations, averaging_start, weights, sums,
):  # fmt: skip
    """Do iterations of stochastic gradient descent on the softmax cross-entropy with decay; return how often one saturated.

    With x the sample of the iteration, and g the softmax of ``w x * 2**logit_exponent``, less one for the label, with 30
    fraction bits (:func:`intnet.kernels.softmax_gradient`)::

        w_c = saturate(w_c + stochastic((by_input * g_c * x + by_weight * w_c) / 2**shift))

    Parameters
    ----------
    inputs : (samples, features) int16
    labels : (samples,) int64
    logit_exponent : int64
    by_input, by_weight, shift : int64
        The rate, and the rate times the decay, as fractions of units of the weights, with their sign.
    weights, sums : (classes, features) int64
        Moved in place, and added to.
    minimum, maximum, key_0, key_1, first_iteration, iterations, averaging_start
        As in :func:`least_squares_sgd`.
    """
    samples, features = inputs.shape
    classes = weights.shape[0]
    room = np.empty(room_for(features, RANDOM_BITS), np.int64)
    logits, powers = np.empty(classes, np.int64), np.empty(classes, np.int64)
    errors = np.empty(classes, np.int32)
    saturated = np.int64(0)
    for iteration in range(first_iteration, first_iteration + iterations):
        i = draw_sample(key_0, key_1, iteration, samples)
        sample, step = inputs[i], np.uint64(iteration)
        for c in range(classes):
            logits[c] = dot(sample, weights[c])
        softmax_gradient_row(logits, logit_exponent, labels[i], powers, errors)
        for c in range(classes):
            first = np.int64(c) * np.int64(features)
            skip = fill_fractions(key_0, key_1, np.uint64(ROUNDING_STREAM), step, first, features, RANDOM_BITS, room)
            saturated += move_weights(
                weights[c], sample, by_input * np.int64(errors[c]), by_weight, shift, room[skip:], minimum, maximum
            )  # fmt: skip
            if iteration >= averaging_start:
                add_to_sums(weights[c], sums[c])
    return saturated
