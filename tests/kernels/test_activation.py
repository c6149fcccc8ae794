"""Activations and their gradients: exact against Python integers, for any number of threads."""

from fractions import Fraction

import naive
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet import arithmetic
from intnet.kernels import _parallel, activation

TYPES = [np.int8, np.int16, np.int32, np.int64]
INT8 = np.arange(-128, 128, dtype=np.int8)
MODES = ["floor", "to_zero", "ceil", "to_away", "ties_even", "ties_pos", "ties_neg", "ties_away", "ties_zero", "jam"]


@pytest.fixture(autouse=True, params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(_parallel, "_threads", request.param)
    pieces_of = _parallel.pieces_of
    monkeypatch.setattr(_parallel, "pieces_of", lambda count, multiple=1, minimum=1: pieces_of(count, multiple, 1))  # noqa: ARG005


def integers(kind, *shape, seed=0):
    limits = np.iinfo(kind)
    values = np.random.default_rng(seed).integers(limits.min, limits.max, shape, kind, endpoint=True)
    values.reshape(-1)[:5] = limits.min, limits.max, 0, 1, -1
    return values


def each(function, kind, *arrays):
    """Apply a function of Python integers to every element."""
    results = [function(*(int(value) for value in values)) for values in zip(*(a.reshape(-1) for a in arrays), strict=True)]
    return np.array(results, kind).reshape(arrays[0].shape)


@pytest.mark.parametrize("kind", TYPES)
def test_relu(kind):
    x, dy = integers(kind, 5, 7), integers(np.int16, 5, 7, seed=1)
    y = activation.relu(x)
    assert_array_equal(y, each(lambda v: max(v, 0), kind, x), strict=True)
    expected = each(lambda d, v: d if v > 0 else 0, np.int16, dy, x)
    assert_array_equal(activation.relu_backward(dy, y), expected, strict=True)
    assert_array_equal(activation.relu_backward(dy, x), expected, strict=True)


@pytest.mark.parametrize(
    "function", [activation.relu, lambda x: activation.leaky_relu(x, 1, 0), lambda x: activation.sign(x, 1)]
)
def test_nothing_comes_of_nothing(function):
    assert_array_equal(function(np.zeros((0, 3), np.int16)), np.zeros((0, 3), np.int16), strict=True)


@pytest.mark.parametrize("mode", range(10), ids=MODES)
def test_leaky_relu_of_every_int8(mode):
    for shift in (0, 1, 3, 7, 9, 62):
        slope = Fraction(1, 2**shift)
        y = activation.leaky_relu(INT8, shift, mode)
        expected = each(lambda v: v if v >= 0 else naive.round_fraction(v * slope, MODES[mode]), np.int8, INT8)  # noqa: B023
        assert_array_equal(y, expected, strict=True)
        gradient = activation.leaky_relu_backward(INT8, INT8[::-1].copy(), shift, mode)
        expected = each(
            lambda d, v: d if v >= 0 else naive.round_fraction(d * slope, MODES[mode]),  # noqa: B023
            np.int8,
            INT8,
            INT8[::-1],
        )
        assert_array_equal(gradient, expected, strict=True)


@pytest.mark.parametrize("kind", TYPES)
def test_leaky_relu_of_other_types(kind):
    x = integers(kind, 20)
    expected = each(lambda v: v if v >= 0 else naive.round_fraction(Fraction(v, 8), "ties_even"), kind, x)
    assert_array_equal(activation.leaky_relu(x, 3, arithmetic.TIES_EVEN), expected, strict=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("limit", [0, 1, 100, 128, 2**31 - 1, 2**63 - 1])
def test_hard_tanh(kind, limit):
    x, dy = integers(kind, 40), integers(np.int8, 40, seed=1)
    x[5:9] = [min(limit, np.iinfo(kind).max) // m * s for m, s in ((1, 1), (1, -1), (2, 1), (2, -1))]
    assert_array_equal(activation.hard_tanh(x, limit), each(lambda v: min(max(v, -limit), limit), kind, x), strict=True)
    expected = each(lambda d, v: d if -limit < v < limit else 0, np.int8, dy, x)
    assert_array_equal(activation.hard_tanh_backward(dy, x, limit), expected, strict=True)


@pytest.mark.parametrize("kind", TYPES)
def test_sign(kind):
    x = integers(kind, 30)
    assert_array_equal(activation.sign(x, 64), each(lambda v: 64 if v >= 0 else -64, kind, x), strict=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("limit", [0, 1, 64, 2**31, 2**40])
def test_straight_through_windows(kind, limit):
    x, dy = integers(kind, 40), integers(np.int16, 40, seed=1)
    x[5:9] = [min(limit, np.iinfo(kind).max) // m * s for m, s in ((1, 1), (1, -1), (2, 1), (2, -1))]
    assert activation.sign_backward(dy, x, activation.IDENTITY, limit) is dy
    clipped = each(lambda d, v: d if abs(v) <= limit else 0, np.int16, dy, x)
    assert_array_equal(activation.sign_backward(dy, x, activation.CLIP, limit), clipped, strict=True)
    polynomial = each(lambda d, v: d * 2 * (limit - abs(v)) if abs(v) <= limit else 0, np.int64, dy, x)
    assert_array_equal(activation.sign_backward(dy, x, activation.POLYNOMIAL, limit), polynomial, strict=True)


def test_the_polynomial_window_is_that_of_bi_real_net():
    """Times 2 + 2 x below 0 and 2 - 2 x above, with an exponent less by log2 of the limit."""
    x, limit = np.arange(-20, 21, dtype=np.int8), 16
    gradient = activation.sign_backward(np.full(41, 3, np.int8), x, activation.POLYNOMIAL, limit)
    for value, result in zip(x.tolist(), gradient.tolist(), strict=True):
        real = Fraction(value, limit)
        slope = 2 + 2 * real if -1 <= real < 0 else 2 - 2 * real if 0 <= real < 1 else 0
        assert Fraction(result, limit) == 3 * slope


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("first", [-3, 0, 100, -(2**63), 2**63 - 10])
def test_look_up(kind, first):
    x, table = integers(kind, 30), np.arange(10, dtype=np.int16) * 7 - 3
    x[5:] = np.clip(first + np.arange(25) % 14 - 2, np.iinfo(kind).min, np.iinfo(kind).max) if abs(first) < 2**20 else x[5:]
    expected = each(lambda v: int(table[min(max(v - first, 0), 9)]), np.int16, x)
    assert_array_equal(activation.look_up(x, table, first), expected, strict=True)


def test_slopes_of_tables():
    dy, y = integers(np.int16, 50), integers(np.int16, 50, seed=1)
    one = 2**15
    expected = each(lambda d, v: d * v * (one - v), np.int64, dy, y)
    assert_array_equal(activation.logistic_backward(dy, y, one), expected, strict=True)
    expected = each(lambda d, v: d * (one * one - v * v), np.int64, dy, y)
    assert_array_equal(activation.tanh_backward(dy, y, one), expected, strict=True)


@pytest.mark.parametrize("keep", [0, 1, 2**14, 40000, 2**16])
def test_dropout_takes_the_bits_of_its_elements(keep):
    x = integers(np.int8, 13, 5)
    x[x == 0] = 1
    kept = [naive.random_fraction(2**40 + 5, 3, 7, i, 16) < keep for i in range(x.size)]
    expected = np.where(np.reshape(kept, x.shape), x, np.int8(0))
    assert_array_equal(activation.dropout(x, keep, 2**40 + 5, 3, 7), expected, strict=True)
    dy = integers(np.int32, 13, 5, seed=2)
    assert_array_equal(activation.dropout(dy, keep, 2**40 + 5, 3, 7) != 0, (expected != 0) & (dy != 0), strict=True)
