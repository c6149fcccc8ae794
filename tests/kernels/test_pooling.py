"""Pooling: exact against windows in Python integers; backward is the transpose."""

import naive
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.kernels import _parallel, pooling

TYPES = [np.int8, np.int16, np.int32, np.int64]
GEOMETRIES = [  # window, stride, padding
    ((2, 2), (2, 2), (0, 0, 0, 0)),
    ((3, 3), (2, 2), (1, 1, 1, 1)),
    ((3, 2), (1, 3), (2, 0, 1, 0)),
    ((2, 3), (3, 1), (0, 1, 2, 2)),
]


@pytest.fixture(params=[1, 2])
def threads(request, monkeypatch):
    monkeypatch.setattr(_parallel, "_threads", request.param)
    monkeypatch.setattr(pooling, "_WORTH_A_THREAD", 1)


def images(kind, seed=0, size=(5, 6), limit=None):
    random = np.random.default_rng(seed)
    limits = np.iinfo(kind)
    low, high = (limits.min, limits.max) if limit is None else (-limit, limit)
    return random.integers(low, high, (3, *size, 2), kind, endpoint=True)


def dot(a, b):
    return (a.astype(object) * b.astype(object)).sum()


def expected_sums(exact, left_type):
    """Return exact sums in their type, wrapped, and how many lay outside int64."""
    words = np.array([naive.wrap(int(s), 64) for s in exact.ravel()], np.int64).reshape(exact.shape)
    return words.astype(left_type), sum(naive.leaves_int64(int(s)) for s in exact.ravel())


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("window", "stride", "padding"), GEOMETRIES)
@pytest.mark.usefixtures("threads")
def test_max_pool_takes_the_first_of_the_largest(kind, window, stride, padding):
    for limit in (None, 2):  # many equal ones
        x = images(kind, limit=limit)
        # pixels by their value and then by their place; what is beside the image comes last
        place = np.arange(x.shape[1] * x.shape[2]).reshape(1, *x.shape[1:3], 1)
        ranks = x.astype(object) * 1000 - place
        seen = naive.windows(ranks, window, stride, padding, fill=-(2**80))
        best = seen.max(axis=(3, 4))
        largest, places = pooling.max_pool(x, window, stride=stride, padding=padding)
        assert_array_equal(places, (-best % 1000).astype(np.int32), strict=True)
        assert_array_equal(largest, ((best + places) // 1000).astype(kind), strict=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("window", "stride", "padding"), GEOMETRIES)
@pytest.mark.usefixtures("threads")
def test_max_pool_backward_scatters(kind, window, stride, padding):
    x = images(kind)
    largest, places = pooling.max_pool(x, window, stride=stride, padding=padding)
    dy = np.random.default_rng(1).permuted(largest)
    exact = np.zeros((3, x.shape[1] * x.shape[2], 2), object)
    for b, i, j, c in np.ndindex(*dy.shape):
        exact[b, places[b, i, j, c], c] += int(dy[b, i, j, c])
    overlap = window[0] > stride[0] or window[1] > stride[1]
    type_ = kind if not overlap else np.int64 if kind in (np.int32, np.int64) else np.int32
    sums, left = pooling.max_pool_backward(dy, places, x.shape[1:3], window, stride=stride)
    expected, expected_left = expected_sums(exact.reshape(x.shape), type_)
    assert_array_equal(sums, expected, strict=True)
    assert left == expected_left


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("window", "stride", "padding"), GEOMETRIES)
@pytest.mark.usefixtures("threads")
def test_sum_pool_and_its_transpose(kind, window, stride, padding):
    x = images(kind)
    exact = naive.windows(x.astype(object), window, stride, padding).sum(axis=(3, 4))
    sums, left = pooling.sum_pool(x, window, stride=stride, padding=padding)
    expected, expected_left = expected_sums(exact, np.int64 if kind in (np.int32, np.int64) else np.int32)
    assert_array_equal(sums, expected, strict=True)
    assert left == expected_left

    limit = min(10**6, np.iinfo(kind).max)
    x, dy = images(kind, limit=limit), np.resize(images(kind, 1, limit=limit), exact.shape)
    sums, _ = pooling.sum_pool(x, window, stride=stride, padding=padding)
    dx, left = pooling.sum_pool_backward(dy, x.shape[1:3], window, stride=stride, padding=padding)
    assert dx.shape == x.shape
    assert left == 0
    assert dot(sums, dy) == dot(x, dx)


def test_sums_beyond_int64_wrap_and_are_counted():
    x = np.full((1, 2, 2, 3), 2**62)
    x[..., 1] = -(2**62)
    x[..., 2] = 1
    sums, left = pooling.sum_pool(x, (2, 2), stride=(2, 2))
    assert sums.tolist() == [[[[0, 0, 4]]]]
    assert left == 2
    dx, left = pooling.sum_pool_backward(np.full((1, 2, 2, 1), 2**62), (3, 3), (2, 2), stride=(1, 1))
    assert dx[0, :, :, 0].tolist() == [[2**62, -(2**63), 2**62], [-(2**63), 0, -(2**63)], [2**62, -(2**63), 2**62]]
    assert left == 5


def test_no_images():
    largest, places = pooling.max_pool(np.zeros((0, 4, 4, 3), np.int8), (2, 2), stride=(2, 2))
    assert largest.shape == places.shape == (0, 2, 2, 3)
    dx, _ = pooling.max_pool_backward(largest, places, (4, 4), (2, 2), stride=(2, 2))
    assert dx.shape == (0, 4, 4, 3)
    assert pooling.sum_pool(np.zeros((0, 4, 4, 3), np.int8), (2, 2), stride=(2, 2))[0].shape == (0, 2, 2, 3)
