"""Gradient descent on convex problems: every bit that of the definition, in whatever pieces; small enough for plain Python."""

from fractions import Fraction

import naive
import naive_regression
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet import kernels
from intnet.kernels.plain.regression import draw_sample, move_weights
from intnet.random import seed_words

SEED = 2**40 + 3
INPUTS = np.array([[3, -7, 0], [-128, 5, 127], [1, 1, -60], [-9, 30, 2]], np.int16)
TARGETS = np.array([500, -1200, 77, 0])
LABELS = np.array([1, 0, 3, 2])
RATE, SHRINK = Fraction(5, 2**7), Fraction(3, 2**9)


def least_squares(word_bits, pieces, averaging_start=4):
    """Train with inputs of 2**-5, targets of 2**-9 and weights of 2**-6: products of 2**-11, moves of 2**-16 / 2**7."""
    weights, sums, saturations, first = np.zeros((1, 3), np.int64), np.zeros((1, 3), np.int64), 0, 0
    limits = (-(2 ** (word_bits - 1)), 2 ** (word_bits - 1) - 1)
    for count in pieces:
        numbers = map(np.int64, (0, 2, -5, 17, *limits))
        span = map(np.int64, (first, count, averaging_start))
        saturations += kernels.least_squares_sgd(INPUTS, TARGETS, *numbers, *seed_words(SEED), *span, weights, sums)
        first += count
    return weights, sums, saturations


def softmax(word_bits, pieces, averaging_start=4):
    """Train with inputs of 2**-5 and weights of 2**-6: moves of 2**-35 / 2**7 beside 2**-6 / 2**9."""
    weights, sums, saturations, first = np.zeros((4, 3), np.int64), np.zeros((4, 3), np.int64), 0, 0
    limits = (-(2 ** (word_bits - 1)), 2 ** (word_bits - 1) - 1)
    for count in pieces:
        numbers = map(np.int64, (-11, -5, -(3 << 27), 36, *limits))
        span = map(np.int64, (first, count, averaging_start))
        saturations += kernels.softmax_sgd(INPUTS, LABELS, *numbers, *seed_words(SEED), *span, weights, sums)
        first += count
    return weights, sums, saturations


def error_of(logits, label):
    raw = [int(v * 2**11) for v in logits]
    return kernels.softmax_gradient(np.array([raw]), -11, np.array([label]))[0].tolist()


def check(made, expected, count):
    weights, sums, saturations = made
    raw, mean, left = expected
    assert weights.tolist() == raw
    assert [[Fraction(v, count * 2**6) for v in row] for row in sums.tolist()] == mean
    assert saturations == left
    return left


RUN = {"fraction_bits": 6, "seed": SEED, "rate": RATE, "iterations": 12, "averaging_start": 4}


@pytest.mark.parametrize("word_bits", [5, 12])
def test_least_squares_equals_naive(word_bits):
    expected = naive_regression.least_squares(INPUTS, -5, TARGETS, -9, word_bits=word_bits, **RUN)
    left = check(least_squares(word_bits, [12]), expected, 8)
    assert (left > 0) == (word_bits == 5)  # both sides of the word were seen


@pytest.mark.parametrize("word_bits", [3, 12])
def test_softmax_equals_naive(word_bits):
    expected = naive_regression.softmax(INPUTS, -5, LABELS, 4, error_of, word_bits=word_bits, shrink=SHRINK, **RUN)
    left = check(softmax(word_bits, [12]), expected, 8)
    assert (left > 0) == (word_bits == 3)


@pytest.mark.parametrize("train", [least_squares, softmax])
def test_pieces_do_not_change_a_bit(train):
    whole = train(6, [12])
    for pieces in ([1] * 12, [3, 9], [5, 0, 7]):
        other = train(6, pieces)
        assert_array_equal(other[0], whole[0], strict=True)
        assert_array_equal(other[1], whole[1], strict=True)
        assert other[2] == whole[2]


def test_samples_are_drawn_as_they_should():
    drawn = [int(draw_sample(*seed_words(SEED), np.int64(t), 7)) for t in range(40)]
    assert drawn == [naive.random_word(SEED, 1, t, 0) * 7 >> 32 for t in range(40)]
    assert set(drawn) == set(range(7))


def test_a_weight_moves_by_its_exact_rest_and_one_rounding():
    """Word by word: a move of 11/8 is 1, or 2 for the upper three eighths of the random numbers."""
    for eighth in range(8):
        weights = np.array([5], np.int64)
        fraction = np.array([eighth * 2**29], np.int64)
        arguments = map(np.int64, (11, 0, 3))
        assert move_weights(weights, np.ones(1, np.int16), *arguments, fraction, np.int64(-8), np.int64(7)) == 0
        assert weights.tolist() == [7 if eighth >= 5 else 6]


@pytest.mark.parametrize(("move", "kept"), [(100, 7), (-100, -8), (2, 7), (3, 7)])
def test_what_leaves_the_word_is_counted(move, kept):
    weights, fraction = np.array([5, 0], np.int64), np.zeros(2, np.int64)
    arguments = map(np.int64, (move, 0, 0))
    inputs = np.array([1, 0], np.int16)
    left = move_weights(weights, inputs, *arguments, fraction, np.int64(-8), np.int64(7))
    assert weights.tolist() == [kept, 0]
    assert left == (move != 2)
