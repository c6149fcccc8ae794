"""Gradients of the losses: NITI's exactly, the softmax within its bound, squared error exactly; for any number of threads."""

from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from intnet.kernels import _parallel, loss

TYPES = [np.int8, np.int16, np.int32, np.int64]


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(_parallel, "_threads", request.param)
    pieces_of = _parallel.pieces_of
    monkeypatch.setattr(_parallel, "pieces_of", lambda count, multiple=1, minimum=1: pieces_of(count, multiple, 1))  # noqa: ARG005


# NITI -------------------------------------------------------------------------------------------------------------------


def test_niti_worked_values():
    logits = np.array([[100, 60, 20, -30]], np.int8)
    assert loss.niti_gradient(logits, -4, np.array([1])).tolist() == [[1923, -1928, 5, 0]]
    assert loss.niti_gradient(logits, -8, np.array([1])).tolist() == [[639, -1497, 471, 387]]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.usefixtures("threads")
def test_niti_equals_naive(kind):
    rng = np.random.default_rng(0)
    logits = rng.integers(-128, 128, (40, 5)).astype(kind)
    exponents, labels = rng.integers(-20, 9, 40), rng.integers(0, 5, 40)
    expected = [naive.niti_gradient(*row) for row in zip(logits.tolist(), exponents.tolist(), labels.tolist(), strict=True)]
    gradient = loss.niti_gradient(logits, exponents, labels)
    assert_array_equal(gradient, np.array(expected, np.int32), strict=True)
    assert_array_equal(gradient.sum(axis=1), np.zeros(40, np.int64))
    expected = [naive.niti_gradient(row, -3, label) for row, label in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert_array_equal(loss.niti_gradient(logits, [[-3]], labels), np.array(expected, np.int32), strict=True)


@given(st.lists(st.integers(-(2**46), 2**46), min_size=1, max_size=5), st.integers(-6, 70))
def test_niti_of_wide_logits_and_large_exponents(logits, exponent):
    gradient = loss.niti_gradient(np.array([logits]), exponent, np.array([0]))
    assert gradient[0].tolist() == naive.niti_gradient(logits, exponent, 0)


@given(st.lists(st.integers(1 - 2**20, 2**20 - 1), min_size=1, max_size=5), st.integers(-20, -7))
def test_niti_of_wide_logits_and_small_exponents(logits, exponent):
    gradient = loss.niti_gradient(np.array([logits]), exponent, np.array([0]))
    assert gradient[0].tolist() == naive.niti_gradient(logits, exponent, 0)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5), st.integers(-(2**40), 2**40))
def test_niti_of_anything_adds_up_to_zero(logits, exponent):
    gradient = loss.niti_gradient(np.array([logits]), exponent, np.array([len(logits) - 1]))[0].tolist()
    assert sum(gradient) == 0
    assert all(0 <= g <= 2048 for g in gradient[:-1])


@pytest.mark.parametrize("exponent", [-21, -30, -60, -1000])
def test_niti_beyond_its_bits_is_within_two_units(exponent):
    logits = [127, 3, -128, 0]
    gradient = loss.niti_gradient(np.array([logits]), exponent, np.array([1]))[0].tolist()
    assert all(abs(a - b) <= 2 for a, b in zip(gradient, naive.niti_gradient(logits, exponent, 1), strict=True))


# Softmax ----------------------------------------------------------------------------------------------------------------


def check_softmax(logits, exponent, label, gradient):
    ref = naive.softmax_gradient(logits, exponent, label)
    assert sum(gradient) == 0
    bound = Fraction(7 * len(logits), 2**30)
    assert all(abs(Fraction(a, 2**30) - b) <= bound for a, b in zip(gradient, ref, strict=True))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.usefixtures("threads")
def test_softmax_is_within_its_bound(kind):
    rng = np.random.default_rng(1)
    logits = rng.integers(-128, 128, (30, 10)).astype(kind)
    exponents, labels = rng.integers(-12, 3, 30), rng.integers(0, 10, 30)
    gradient = loss.softmax_gradient(logits, exponents, labels)
    assert gradient.dtype == np.int32
    for i in range(30):
        check_softmax(logits[i].tolist(), int(exponents[i]), int(labels[i]), gradient[i].tolist())


@settings(max_examples=200)
@given(
    st.lists(st.integers(-(2**47), 2**47) | st.integers(-9, 9), min_size=1, max_size=4),
    st.integers(-70, 10) | st.sampled_from([-(2**20), 2**20]),
)
def test_softmax_of_wide_logits_and_any_exponent(logits, exponent):
    gradient = loss.softmax_gradient(np.array([logits], np.int64), exponent, np.array([0]))
    if abs(exponent) < 100:
        check_softmax(logits, exponent, 0, gradient[0].tolist())
        return
    top = [m == max(logits) or exponent < 0 for m in logits]  # all are equal, or the largest take all
    expected = [Fraction(int(p), sum(top)) - (c == 0) for c, p in enumerate(top)]
    assert all(abs(int(a) - b * 2**30) <= len(logits) for a, b in zip(gradient[0], expected, strict=True))


def test_softmax_of_the_widest_logits():
    logits = np.array([[2**62 - 1, -(2**62) + 1, 0]])
    for exponent in (-65, -62, -61, -31, -30, 0):
        check_softmax(logits[0].tolist(), exponent, 1, loss.softmax_gradient(logits, exponent, np.array([1]))[0].tolist())


def test_softmax_of_many_classes_and_of_one():
    gradient = loss.softmax_gradient(np.zeros((2, 1000), np.int8), 0, np.array([0, 999]))
    assert gradient.sum(axis=1).tolist() == [0, 0]
    assert set(gradient[0, 1:].tolist()) == {round(2**30 / 1000)}
    assert loss.softmax_gradient(np.array([[5]]), 0, np.array([0])).tolist() == [[0]]
    assert loss.softmax_gradient(np.zeros((0, 3), np.int8), 0, np.zeros(0, np.int64)).shape == (0, 3)


# Squared error, accuracy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "wider"), [(np.int8, np.int16), (np.int16, np.int32), (np.int32, np.int64)])
def test_squared_error(kind, wider):
    limits = np.iinfo(kind)
    y = np.array([[limits.min, 0, 5], [limits.max, -3, limits.min], [1, 2, 3]], kind)
    labels = np.array([0, 2, 1])
    for amplitude in (0, 100, limits.max, limits.min):
        expected = y.astype(object)
        expected[np.arange(3), labels] -= int(amplitude)
        result = loss.subtract_target(y, labels, int(amplitude))
        assert result.tolist() == expected.tolist()
        assert result.dtype == wider
    assert loss.subtract_target(y.astype(np.int8), labels, 2**40).dtype == np.int64


@pytest.mark.parametrize("kind", TYPES)
def test_count_correct(kind):
    logits = np.random.default_rng(2).integers(-3, 3, (50, 4)).astype(kind)
    labels = np.random.default_rng(3).integers(0, 4, 50)
    assert loss.count_correct(logits, labels) == int((logits.argmax(axis=1) == labels).sum())
    assert loss.count_correct(logits[:0], labels[:0]) == 0
