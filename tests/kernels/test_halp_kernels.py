"""SVRG and bit centering: every bit that of the definition, in whatever pieces; small enough for plain Python."""

import itertools
from fractions import Fraction
from math import isqrt, sqrt

import naive_halp
import numpy as np
import pytest
from naive_halp import nearest, two_to
from numpy.testing import assert_array_equal

from intnet import kernels
from intnet.random import seed_words

SEED = 2**40 + 3
INPUTS = np.array([[3, -7, 0], [-128, 5, 127], [1, 1, -60], [-9, 30, 2]], np.int16)
TARGETS = np.array([500, -1200, 77, 0])
LABELS = np.array([1, 0, 3, 2])


def int64(*values):
    return [np.int64(value) for value in values]


def zeros(*shape):
    return np.zeros(shape, np.int64)


# 1. Full gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 2**20, 2**50])
def test_the_full_gradient_of_least_squares_is_exact_in_two_words(size):
    weights = np.array([[size, 1 - size, 3]])
    high, low = zeros(1, 3), zeros(1, 3)
    kernels.least_squares_full_gradient(INPUTS, TARGETS, *int64(2, 1), weights, high, low)
    residuals = [sum(int(a) * int(w) for a, w in zip(x, weights[0], strict=True)) * 4 - 2 * int(y)
                 for x, y in zip(INPUTS, TARGETS, strict=True)]  # fmt: skip
    exact = [sum(r * int(x[j]) for r, x in zip(residuals, INPUTS, strict=True)) for j in range(3)]
    assert [int(h) * 2**32 + int(v) for h, v in zip(high[0], low[0], strict=True)] == exact
    out = zeros(1, 3)
    shift = int(kernels.join_gradient(high, low, out))
    largest = max(abs(v) for v in exact)
    assert 2 ** (61 + shift) >= largest
    assert shift == 0 or largest >= 2 ** (60 + shift)
    assert out[0].tolist() == [naive_halp.naive.round_fraction(Fraction(v, 2**shift), "ties_pos") for v in exact]
    assert (shift > 0) == (size == 2**50)


def test_the_full_gradient_of_softmax():
    weights = np.random.default_rng(0).integers(-(2**18), 2**18, (4, 3))
    logits, errors, sums = zeros(4, 4), np.zeros((4, 4), np.int32), zeros(4, 3)
    left, decay = 9, Fraction(3 * 4, 2**5)
    numbers = int64(-20, left, 12, 5)
    kernels.softmax_full_gradient(INPUTS, LABELS, *numbers, weights, logits, errors, sums)
    assert_array_equal(logits, INPUTS.astype(np.int64) @ weights.T)
    assert_array_equal(errors, kernels.softmax_gradient(logits, -20, LABELS))
    exact = errors.astype(np.int64).T @ INPUTS.astype(np.int64)
    for c, j in itertools.product(range(4), range(3)):
        assert sums[c, j] == int(exact[c, j]) * 2**left + nearest(int(weights[c, j]) * decay)


# 2. Bit centering -------------------------------------------------------------------------------------------------------


def test_every_small_root():
    """Exhaustive: the root of the sum of squares of three small numbers, cut at its 31st bit."""
    for values in itertools.product(range(-5, 6), repeat=3):
        root, exponent = map(int, kernels.root_of_squares(np.array(values)))
        total = sum(v * v for v in values)
        assert exponent <= 0 or not root
        assert root == (isqrt(total << -2 * exponent) if total else 0)
        assert not total or 2**30 <= root < 2**31


@pytest.mark.parametrize("top", [2**30, 2**31 - 1, 2**31, 2**33 + 12345, 2**61, 2**62])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_large_roots_are_within_their_bound(top, size):
    values = np.random.default_rng(size).integers(-top, top, size)
    values[-1] = -top
    root, exponent = map(int, kernels.root_of_squares(values))
    assert root * two_to(exponent) == naive_halp.norm([int(v) for v in values])
    exact = sum(int(v) ** 2 for v in values)
    bound = Fraction(int(sqrt(size) * 1000) + 3000, 1000 * 2**31)
    assert (1 - bound) ** 2 * exact <= (root * two_to(exponent)) ** 2 <= (1 + bound) ** 2 * exact


def test_rows_are_scaled_to_nearest():
    values = np.array([[0, 1, -1, 3], [-3, 2**61, -(2**61), 2**63 - 1]])
    for mantissa in (1, 3, -5, 2**61 - 1):
        for rights in ((1, 2), (-2, 70), (10, -90), (200, 63)):
            out = np.empty_like(values)
            kernels.scale_rows(values, np.int64(mantissa), np.array(rights), out)
            expected = [[nearest(int(v) * mantissa / two_to(r)) for v in row] for r, row in zip(rights, values, strict=True)]
            assert out.tolist() == expected


@pytest.mark.parametrize("stochastic", [0, 1])
@pytest.mark.parametrize(("bits", "by_offset"), [(2, 0), (8, -(2**20)), (16, 12345)])
def test_offsets_move_as_defined(stochastic, bits, by_offset):
    random = np.random.default_rng(bits)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    offsets = random.integers(low, high + 1, 60)
    moves = random.integers(-(2**38), 2**38, 60)
    moves[:6] = 2**63 - 1, -(2**63), 2**62, -(2**62), 2**31, -(2**31)
    expected, saturated = [], 0
    for j, (z, move) in enumerate(zip(offsets.tolist(), moves.tolist(), strict=True)):
        exact = z + Fraction(max(-(2**62), min(2**62, move)) + by_offset * z, 2**32)
        fraction = naive_halp.naive.random_fraction(SEED, 2, 7, 11 + j, 32) if stochastic else None
        whole = naive_halp.naive.round_fraction(exact, "stochastic" if stochastic else "ties_pos", fraction, 32)
        kept, left = naive_halp.naive.into_word(whole, bits, True, "saturate")
        expected.append(kept)
        saturated += left
    sequence = np.uint64(2), np.uint64(7)
    numbers = int64(by_offset, 32, low, high, stochastic)
    assert kernels.move_offsets(offsets, moves, *numbers, *seed_words(SEED), *sequence, np.int64(11)) == saturated
    assert offsets.tolist() == expected
    assert saturated >= 4


def test_a_centre_moves_by_whole_units_and_saturates():
    offsets = np.array([-128, -3, 0, 1, 2, 127, 127])
    for mantissa, right in ((1, 0), (1, -3), (1, 2), (2**31 - 1, 31), (2**31 - 1, 29), (2**31 - 1, -90), (5, 90)):
        centre = np.array([-500, 7, 3, -9, 0, 511, 500])
        exact = [int(c) + max(-(2**62), min(2**62, nearest(int(z) * mantissa / two_to(right))))
                 for c, z in zip(centre, offsets, strict=True)]  # fmt: skip
        left = kernels.recentre(centre, offsets, *int64(mantissa, right, -512, 511))
        assert centre.tolist() == [max(-512, min(511, v)) for v in exact]
        assert left == sum(not -512 <= v <= 511 for v in exact)


# 3. Steps ---------------------------------------------------------------------------------------------------------------

CENTRE = np.array([[5, -9, 0], [1, 2, -3], [0, 0, 7], [-2, 4, 4]])
DIRECTION = np.array([[300, -4000, 9], [-1, 0, 77], [900, 901, -902], [3000, -5, 60]])


def least_squares(word_bits, stochastic, pieces):
    weights, saturated, first = CENTRE[:1].copy(), 0, 0
    for count in pieces:
        numbers = int64(5, 3, 9, -(2 ** (word_bits - 1)), 2 ** (word_bits - 1) - 1, stochastic)
        span = int64(first, count)
        data = (INPUTS, CENTRE[:1], DIRECTION[:1])
        saturated += kernels.least_squares_svrg(*data, *numbers, *seed_words(SEED), *span, weights)
        first += count
    return weights, saturated


def softmax(word_bits, stochastic, pieces, limit=2**40):
    """Train with logits of 2**-9, weights of 3 * 2**-7 in units of 2**-8 of those."""
    logits = INPUTS.astype(np.int64) @ CENTRE.T * 40
    errors = kernels.softmax_gradient(logits, -9, LABELS)
    weights, saturated, first = CENTRE.copy(), 0, 0
    for count in pieces:
        limits = (-(2 ** (word_bits - 1)), 2 ** (word_bits - 1) - 1)
        numbers = int64(11, 25, limit, -37, 9, *limits, stochastic)
        data = (INPUTS, LABELS, logits, errors, *int64(-9, 3, -1), CENTRE, DIRECTION)
        saturated += kernels.softmax_svrg(*data, *numbers, *seed_words(SEED), *int64(first, count), weights)
        first += count
    return weights, saturated


def naive_least_squares(word_bits, stochastic, iterations):
    (centre,), weights, saturated = CENTRE[:1].tolist(), CENTRE[0].tolist(), 0
    for t in range(iterations):
        i = naive_halp.sample_of(SEED, t, 4)
        by_input = -nearest(Fraction(naive_halp.difference(INPUTS[i], weights, centre) * 5, 2**3))
        fractions = naive_halp.fractions_of(SEED, t, 0, 3, stochastic)
        saturated += naive_halp.step(weights, centre, DIRECTION[0].tolist(), by_input, 0, INPUTS[i], 9, word_bits, fractions)
    return [weights], saturated


def naive_softmax(word_bits, stochastic, iterations, limit):
    weights, saturated, clipped = CENTRE.tolist(), 0, 0
    logits = (INPUTS.astype(np.int64) @ CENTRE.T * 40).tolist()
    errors = kernels.softmax_gradient(np.array(logits), -9, LABELS).tolist()
    for t in range(iterations):
        i = naive_halp.sample_of(SEED, t, 4)
        row = [v + naive_halp.difference(INPUTS[i], w, c) * 3 * 2
               for v, w, c in zip(logits[i], weights, CENTRE.tolist(), strict=True)]  # fmt: skip
        now = kernels.softmax_gradient(np.array([row]), -9, LABELS[i : i + 1])[0].tolist()
        for c in range(4):
            by_input = -nearest(Fraction((now[c] - errors[i][c]) * 11, 2**25))
            clipped += abs(by_input) > limit
            by_input = max(-limit, min(limit, by_input))
            fractions = naive_halp.fractions_of(SEED, t, 3 * c, 3, stochastic)
            rest = (INPUTS[i], 9, word_bits, fractions)
            saturated += naive_halp.step(weights[c], CENTRE[c].tolist(), DIRECTION[c].tolist(), by_input, -37, *rest)
    return weights, saturated, clipped


@pytest.mark.parametrize("stochastic", [0, 1])
@pytest.mark.parametrize("word_bits", [5, 16])
def test_least_squares_equals_naive(word_bits, stochastic):
    weights, saturated = least_squares(word_bits, stochastic, [12])
    assert (weights.tolist(), saturated) == naive_least_squares(word_bits, stochastic, 12)
    assert (saturated > 0) == (word_bits == 5)


@pytest.mark.parametrize("stochastic", [0, 1])
@pytest.mark.parametrize(("word_bits", "limit"), [(5, 2**40), (20, 2**40), (20, 3)])
def test_softmax_equals_naive(word_bits, limit, stochastic):
    weights, saturated = softmax(word_bits, stochastic, [12], limit)
    *expected, clipped = naive_softmax(word_bits, stochastic, 12, limit)
    assert [weights.tolist(), saturated] == expected
    assert (saturated > 0) == (word_bits == 5)
    assert (clipped > 0) == (limit == 3)


@pytest.mark.parametrize("train", [least_squares, softmax])
def test_pieces_do_not_change_a_bit(train):
    whole = train(9, 1, [12])
    for pieces in ([1] * 12, [3, 9], [5, 0, 7]):
        other = train(9, 1, pieces)
        assert_array_equal(other[0], whole[0], strict=True)
        assert other[1] == whole[1]
