"""Matrix products on the GPU: the same bits as the plain kernels, for any types, any shapes and any launch."""

import itertools

import numpy as np
import pytest
from cuda_twins import run
from numpy.testing import assert_array_equal

from intnet.kernels import plain
from intnet.kernels.cuda import _driver, product, tiles, words

pytestmark = pytest.mark.skipif(_driver.problem() is not None, reason=str(_driver.problem()))
FLAGS = list(itertools.product([False, True], repeat=2))
TYPES = [np.int8, np.int16, np.int32, np.int64]
KINDS = [(np.int8, np.int32), (np.int16, np.int32), (np.int32, np.int32), (np.int32, np.int64), (np.int64, np.int64)]
LAUNCHES = [(1, 1), (2, 3), (3, 2)]


def integers(random, shape, kind):
    limits = np.iinfo(kind)
    return random.integers(limits.min, limits.max, shape, kind, endpoint=True)


def stored(matrix, transposed):
    return np.ascontiguousarray(matrix.T) if transposed else matrix


def wrapped(a, b, result):
    """Return the product modulo the width of the result, by the plain kernel."""
    out = np.empty((a.shape[0], b.shape[1]), result)
    plain.multiply(a.astype(np.int64), b.astype(np.int64), False, False, 8 * out.itemsize, False, out)
    return out


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("kind", TYPES)
def test_multiply(kind, launch):
    random = np.random.default_rng(1)
    cases = itertools.product([(3, 5, 2), (1, 1, 1), (2, 0, 3), (0, 2, 2)], FLAGS, [(8, 0), (17, 1), (32, 0), (33, 1), (64, 0)])
    for number, ((m, k, n), (ta, tb), (bits, saturates)) in enumerate(cases):
        if number % 5 and m != 3:
            continue
        a, b = stored(integers(random, (m, k), kind), ta), stored(integers(random, (k, n), kind), tb)
        want, have = (np.full((m, n), 7, np.int32 if bits <= 32 else np.int64) for _ in range(2))
        left = plain.multiply(a, b, ta, tb, bits, bool(saturates), want)
        with _driver.launches(*launch):
            assert run(product.multiply, a, b, ta, tb, bits, bool(saturates), have) == left
        assert_array_equal(have, want)


def test_sums_beyond_int64():
    least, most = np.int64(-(2**63)), np.int64(2**63 - 1)
    a, b = np.array([[least] * 3, [most] * 3, [least, least, most]]), np.array([[least, most], [least, most], [most, least]])
    for saturates in (False, True):
        want, have = np.empty((3, 2), np.int64), np.empty((3, 2), np.int64)
        left = plain.multiply(a, b, False, False, 64, saturates, want)
        assert run(product.multiply, a, b, False, False, 64, saturates, have) == left > 0
        assert_array_equal(have, want)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_limit_sums(launch):
    sums = np.array([0, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, -(2**63), 127, 128, -129], np.int64)
    for bits, saturates, size in itertools.product([2, 8, 32, 33, 64], [False, True], [0, len(sums)]):
        want, have = (np.full(size, 7, np.int32 if bits <= 32 else np.int64) for _ in range(2))
        left = plain.limit_sums(sums[:size], bits, saturates, want)
        with _driver.launches(*launch):
            assert run(product.limit_sums, sums[:size].copy(), bits, saturates, have) == left
        assert_array_equal(have, want)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_quantized_multiply(launch):
    random = np.random.default_rng(2)
    values = np.concatenate([np.array([0, 1, -1, 2**31 - 1, -(2**31)], np.int32), integers(random, 20, np.int32)])
    for multiplier, shift in itertools.product([2**30, 2**31 - 1, -(2**31), 1518500250], [-31, -8, -1, 0, 1, 30]):
        want, have = np.empty_like(values), np.empty_like(values)
        plain.quantized_multiply(values, multiplier, shift, want)
        with _driver.launches(*launch):
            run(product.quantized_multiply, values, multiplier, shift, have)
        assert_array_equal(have, want)


SHAPES = [(1, 1, 1), (5, 3, 7), (16, 4, 16), (17, 19, 18), (3, 37, 20), (2, 150, 3)]


@pytest.mark.parametrize(("kind", "result"), KINDS)
@pytest.mark.parametrize(("ta", "tb"), FLAGS)
def test_fast(kind, result, ta, tb):
    random = np.random.default_rng(3)
    for m, k, n in SHAPES if ta == tb else SHAPES[3:5]:
        a, b = integers(random, (m, k), kind), integers(random, (k, n), kind)
        have = np.full((m, n), 7, result)
        run(product.multiply_fast, stored(a, ta), stored(b, tb), ta, tb, kind, have)
        assert_array_equal(have, wrapped(a, b, result))


@pytest.mark.parametrize(("kind", "result"), KINDS[:3])
def test_broad_tiles(kind, result, monkeypatch):
    monkeypatch.setattr(product, "shape_for", lambda *_: tiles.BROAD)
    random = np.random.default_rng(4)
    side = tiles.BROAD.side
    for m, k, n in [(side, 9, side), (side + 5, 17, 3)]:
        a, b = integers(random, (m, k), kind), integers(random, (k, n), kind)
        have = np.full((m, n), 7, result)
        run(product.multiply_fast, a, b, False, False, kind, have)
        assert_array_equal(have, wrapped(a, b, result))


def test_extremes_wrap():
    for kind, result in KINDS:
        a, b = np.full((2, 9), np.iinfo(kind).min, kind), np.full((9, 5), np.iinfo(kind).min, kind)
        have = np.empty((2, 5), result)
        run(product.multiply_fast, a, b, False, False, kind, have)
        assert_array_equal(have, wrapped(a, b, result))


def test_operands_of_other_types_and_none():
    random = np.random.default_rng(5)
    a, b = integers(random, (5, 6), np.int8), integers(random, (6, 3), np.int8)
    for a_type, b_type, kind, result in [
        (np.int8, np.int16, np.int16, np.int32),
        (np.int64, np.int32, np.int8, np.int32),
        (np.int8, np.int8, np.int32, np.int64),
        (np.int64, np.int8, np.int64, np.int64),
    ]:
        have = np.full((5, 3), 7, result)
        run(product.multiply_fast, a.astype(a_type), b.astype(b_type), False, False, kind, have)
        assert_array_equal(have, a.astype(np.int64) @ b.astype(np.int64))
    have = np.full((5, 3), 7, np.int32)
    run(product.multiply_fast, a[:, :0].copy(), b[:0], False, False, np.int8, have)
    assert not have.any()
    run(product.multiply_fast, a[:0], b, False, False, np.int8, have[:0])


@pytest.mark.skipif(not _driver.SIMULATED, reason="the device has no twins in Python")
def test_twins_of_instructions():
    random = np.random.default_rng(6)
    for _ in range(50):
        a, b, total = integers(random, 4, np.int8), integers(random, 4, np.int8), integers(random, 1, np.int32)
        want = (int(total[0]) + int(a.astype(np.int64) @ b.astype(np.int64)) + 2**31) % 2**32 - 2**31
        assert words.dot4_twin(a.view(np.int32)[0], b.view(np.int32)[0], total[0]) == want
    rows = integers(random, (4, 4), np.int8)
    columns = words.transpose_bytes_twin(tuple(rows.view(np.int32)[:, 0]))
    assert_array_equal(np.array(columns).view(np.int8).reshape(4, 4), rows.T)


@pytest.mark.skipif(not _driver.SIMULATED, reason="the device has no twins in Python")
@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 64, 641, 2**20 + 1, 2**31 - 1])
def test_quotient(divisor):
    factor, shift = tiles.divider(divisor)
    for near in (0, divisor, 5 * divisor, 2**31 - 1, (2**31 - 1) // divisor * divisor):
        for value in range(max(near - 2, 0), min(near + 3, 2**31)):
            assert words.quotient_twin(value, factor, shift) == value // divisor
