"""Gradients of the losses: NITI's exactly, the softmax within its bound, squared error exactly; for any number of threads."""

from fractions import Fraction
from itertools import pairwise

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


FURTHEST = 2**22


def check_loss(logits, exponents, labels, found, furthest=FURTHEST):
    """Hold the bound of every sample, added up."""
    each = zip(logits.tolist(), np.broadcast_to(exponents, len(logits)).tolist(), labels.tolist(), strict=True)
    expected = sum(naive.softmax_loss(*one, furthest) for one in each)
    assert isinstance(found, int)
    assert abs(Fraction(found, 2**30) - expected) < Fraction(len(logits) * (3 * logits.shape[1] + 7), 2**30)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("classes", [1, 2, 10])
def test_losses_are_within_their_bound(kind, classes):
    """One exponent for all, as a number and in the shapes that tensors have them; then one for each sample."""
    rng = np.random.default_rng(classes)
    logits, labels = rng.integers(-128, 128, (40, classes)).astype(kind), rng.integers(0, classes, 40)
    for exponent in (-70, -31, -30, -12, -4, 0, 3):
        found = loss.softmax_loss(logits, exponent, labels)
        check_loss(logits, exponent, labels, found)
        assert found == loss.softmax_loss(logits, np.array([[exponent]]), labels)
        assert found == loss.softmax_loss(logits, np.full(40, exponent), labels)
    exponents = rng.integers(-34, 9, 40)
    found = loss.softmax_loss(logits, exponents, labels)
    check_loss(logits, exponents, labels, found)
    assert found == loss.softmax_loss(logits, exponents.reshape(40, 1), labels)
    each = [loss.softmax_loss(logits[i : i + 1], exponents[i], labels[i : i + 1]) for i in range(40)]
    assert found == sum(each)
    assert min(each) >= -(3 * classes + 7)
    assert loss.softmax_loss(logits[:0], -4, labels[:0]) == 0


@settings(max_examples=200)
@given(
    st.lists(st.integers(-(2**47), 2**47) | st.integers(-9, 9), min_size=1, max_size=4),
    st.integers(-70, 70) | st.sampled_from([-(2**20), 2**20]),
)
def test_losses_of_wide_logits_and_any_exponent(logits, exponent):
    """What is beyond 2**22 nats, or what exponents beyond 100 make of it, is 2**22, or nothing."""
    for label in {0, len(logits) - 1}:
        found = loss.softmax_loss(np.array([logits], np.int64), exponent, np.array([label]))
        check_loss(np.array([logits], object), max(-200, min(200, exponent)), np.array([label]), found)


def test_losses_saturate():
    """From 2**52 units of 2**-30 on, exactly; with one unit less they are what they are."""
    label, away = np.array([0]), np.array([[-(2**52), 0]])
    assert loss.softmax_loss(away, -30, label) == 2**52
    assert loss.softmax_loss(np.add(away, [[1, 0]]), -30, label) == 2**52 - 1
    assert loss.softmax_loss(np.subtract(away, [[1, 0]]), -30, label) == 2**52
    nothing = loss.softmax_loss(np.array([[0, 0]]), 0, label)  # the logarithm of two
    for exponent in (5, 10, 21, 22, 23, 32, 33, 62, 63, 64, 100, 2**40):
        assert loss.softmax_loss(away, exponent, label) == 2**52
        assert loss.softmax_loss(np.array([[-1, 0]]), exponent, label) == 2 ** (30 + min(exponent, 22))
        assert loss.softmax_loss(np.array([[5, 5]]), exponent, label) == nothing
    widest = np.array([[-(2**62) + 1, 2**62 - 1]])
    for exponent in (-62, -30, 0):
        check_loss(widest, exponent, label, loss.softmax_loss(widest, exponent, label))
    many = np.repeat(widest, 5000, axis=0)
    assert loss.softmax_loss(many, 0, np.zeros(5000, np.int64)) == 5000 * 2**52


def test_losses_of_many_samples_are_those_of_their_parts():
    """More than are added up at once: 512."""
    rng = np.random.default_rng(9)
    logits, labels = rng.integers(-1000, 1000, (1300, 3)), rng.integers(0, 3, 1300)
    for exponents in (np.array([-8]), rng.integers(-14, 30, 1300)):
        whole = loss.softmax_loss(logits, exponents, labels)
        for ends in ([0, 511, 1300], [0, 512, 1024, 1300], [0, 513, 514, 1300]):
            parts = [
                loss.softmax_loss(logits[a:b], exponents[a:b] if exponents.size > 1 else exponents, labels[a:b])
                for a, b in pairwise(ends)
            ]
            assert sum(parts) == whole
    assert loss.softmax_loss(np.repeat(logits[:1], 1300, axis=0), -8, np.full(1300, labels[0])) == 1300 * loss.softmax_loss(
        logits[:1], -8, labels[:1]
    )


def test_losses_of_many_classes():
    """log(1000), whichever the label is."""
    labels = np.array([0, 999])
    check_loss(np.zeros((2, 1000), np.int8), 0, labels, loss.softmax_loss(np.zeros((2, 1000), np.int8), 0, labels))


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
