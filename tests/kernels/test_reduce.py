"""Reductions: exact against Python integers, for any number of threads."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from intnet.kernels import _parallel, reduce

TYPES = [np.int8, np.int16, np.int32, np.int64]


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(_parallel, "_threads", request.param)
    pieces_of = _parallel.pieces_of
    monkeypatch.setattr(_parallel, "pieces_of", lambda count, multiple=1, minimum=1: pieces_of(count, multiple, 1))  # noqa: ARG005


def integers(kind, *shape, seed=0):
    limits = np.iinfo(kind)
    return np.random.default_rng(seed).integers(limits.min, limits.max, shape, kind, endpoint=True)


def in_int64(exact):
    words = np.array([naive.wrap(int(s), 64) for s in np.ravel(exact)], np.int64).reshape(np.shape(exact))
    return words, sum(naive.leaves_int64(int(s)) for s in np.ravel(exact))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.usefixtures("threads")
def test_extremes(kind):
    x = integers(kind, 7, 9)
    assert reduce.extremes(x) == (int(x.min()), int(x.max()))
    assert reduce.max_magnitude(x) == max(-int(x.min()), int(x.max()))
    x[3, 4] = np.iinfo(kind).min
    assert reduce.max_magnitude(x) == 2 ** (np.iinfo(kind).bits - 1)
    assert reduce.extremes(x[:1, :1]) == (x[0, 0], x[0, 0])


def test_the_largest_magnitude_of_nothing_is_zero():
    assert reduce.max_magnitude(np.zeros((0, 3), np.int8)) == 0


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("axes", [(0, 3), (1, 3), (0, 4), (3, 4), (2, 2), (0, 1)])
@pytest.mark.usefixtures("threads")
def test_sums_over_axes(kind, axes):
    x = integers(kind, 3, 2, 4, 5)
    exact = x.astype(object).sum(axis=tuple(range(*axes)))
    words, outside = in_int64(exact)
    sums, left = reduce.sum_axes(x, *axes)
    assert_array_equal(sums, words, strict=True)
    assert left == outside


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 4, 0)])
@pytest.mark.parametrize("axes", [(0, 2), (1, 2), (1, 3)])
@pytest.mark.usefixtures("threads")
def test_sums_over_nothing(shape, axes):
    x = np.ones(shape, np.int16)
    sums, left = reduce.sum_axes(x, *axes)
    assert_array_equal(sums, x.sum(axis=tuple(range(*axes)), dtype=np.int64), strict=True)
    assert left == 0


@settings(max_examples=40)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_sums_of_any_integers(values):
    words, outside = in_int64([sum(values)])
    sums, left = reduce.sum_axes(np.array(values, np.int64).reshape(-1, 1), 0, 1)
    assert_array_equal(sums, words, strict=True)
    assert left == outside


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.usefixtures("threads")
def test_moments_of_channels(kind):
    for x in (integers(kind, 3, 4, 5), integers(kind, 6, 2) // 3 * (np.arange(6, dtype=kind) % 2).reshape(6, 1)):
        exact = x.astype(object).reshape(-1, x.shape[-1])
        sums, squares, left = reduce.moments(x)
        expected_sums, outside_sums = in_int64(exact.sum(axis=0))
        expected_squares, outside_squares = in_int64((exact * exact).sum(axis=0))
        assert_array_equal(sums, expected_sums, strict=True)
        assert_array_equal(squares, expected_squares, strict=True)
        assert left == outside_sums + outside_squares


def test_moments_of_nothing():
    for shape in ((0, 3), (4, 0)):
        sums, squares, left = reduce.moments(np.zeros(shape, np.int32))
        assert sums.tolist() == squares.tolist() == [0] * shape[1]
        assert left == 0


@pytest.mark.parametrize("kind", TYPES)
def test_argmax_is_the_first(kind):
    x = integers(kind, 9, 4)
    x[::2] %= 2
    assert_array_equal(reduce.argmax_rows(x), x.argmax(axis=1).astype(np.int64), strict=True)
    assert reduce.argmax_rows(x[:0]).shape == (0,)
