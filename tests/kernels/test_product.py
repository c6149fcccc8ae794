"""Matrix products: the plain kernel equals Python integers, the fast ones equal the plain one, and nothing overflows unseen."""

import itertools

import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from intnet import arithmetic
from intnet.kernels import _parallel, plain, product, simd

compiled = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="tiles exist only in compiled code")
TYPES = [np.int8, np.int16, np.int32, np.int64]
FLAGS = list(itertools.product([False, True], repeat=2))
EXTREMES = [-(2**63), 2**63 - 1, -(2**62), 2**32, -(2**32) - 1, 2**31, -1, 0, 1, 3]


def exact(a, b):
    """Return the product of two matrices in Python integers."""
    return [[sum(int(x) * int(y) for x, y in zip(row, column, strict=True)) for column in b.T] for row in a]


def in_word(sums, bits, saturates):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    left = sum(not low <= s <= high for row in sums for s in row)
    return [[min(max(s, low), high) if saturates else naive.wrap(s, bits) for s in row] for row in sums], left


def stored(matrix, transposed):
    return np.ascontiguousarray(matrix.T) if transposed else matrix


def random_matrices(seed, m, k, n, kind, size=None):
    random = np.random.default_rng(seed)
    limits = np.iinfo(kind)
    low, high = (limits.min, limits.max) if size is None else (-size, size)
    return [random.integers(low, high, shape, kind, endpoint=True) for shape in ((m, k), (k, n))]


def test_sums_of_products_by_words_are_exact():
    for xs in itertools.product(EXTREMES, repeat=3):
        pairs = [(xs[0], xs[1]), (xs[1], xs[2]), (xs[2], xs[2])]
        words = [sum(int(w) for w in column) for column in zip(*(arithmetic.product_words(*p) for p in pairs), strict=True)]
        beyond, total = arithmetic.join_products(*(np.int64(word) for word in words))
        value = sum(x * y for x, y in pairs)
        assert total == naive.wrap(value, 64)
        assert beyond == (value >= 2**63) - (value < -(2**63))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("bits", [2, 8, 17, 31, 32, 33, 63, 64])
def test_plain_equals_python_integers(kind, saturates, bits):
    for (m, k, n), (ta, tb) in itertools.product([(3, 5, 2), (1, 1, 1), (2, 0, 3), (0, 2, 2)], FLAGS):
        a, b = random_matrices(bits, m, k, n, kind)
        out = np.full((m, n), 7, np.int32 if bits <= 32 else np.int64)
        left = plain.multiply(stored(a, ta), stored(b, tb), ta, tb, bits, saturates, out)
        assert (out.tolist(), left) == in_word(exact(a, b), bits, saturates)


@given(st.data())
@settings(max_examples=80)
def test_any_product_equals_python_integers(data):
    draw = data.draw
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    ta, tb, saturates = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    kind = draw(st.sampled_from(TYPES))
    values = st.integers(int(np.iinfo(kind).min), int(np.iinfo(kind).max)) | st.integers(-3, 3)
    a = np.array(draw(st.lists(values, min_size=m * k, max_size=m * k)), kind).reshape(m, k)
    b = np.array(draw(st.lists(values, min_size=k * n, max_size=k * n)), kind).reshape(k, n)
    bits = draw(st.none() | st.integers(2, 64))
    out, left = product.multiply(
        stored(a, ta), stored(b, tb), a_transposed=ta, b_transposed=tb, accumulator_bits=bits, saturates=saturates
    )
    width = bits or 8 * out.dtype.itemsize
    assert out.dtype == (np.int32 if width <= 32 else np.int64)
    assert (out.tolist(), left) == in_word(exact(a, b), width, saturates)


SHAPES = [
    (1, 1, 1),
    (5, 3, 7),
    (12, 4, 16),
    (24, 64, 64),
    (25, 65, 65),
    (49, 130, 33),
    (7, 4100, 70),
    (3, 8195, 5),
    (50, 9, 129),
]
KINDS = [(np.int8, np.int32), (np.int16, np.int32), (np.int32, np.int32), (np.int32, np.int64), (np.int64, np.int64)]


@compiled
@pytest.mark.parametrize(("kind", "result"), KINDS)
@pytest.mark.parametrize(("ta", "tb"), FLAGS)
def test_fast_equals_plain(kind, result, ta, tb):
    """Over the whole range of the operands: what leaves the word wraps in both."""
    for seed, (m, k, n) in enumerate(SHAPES):
        a, b = random_matrices(seed, m, k, n, kind)
        fast, slow = np.full((m, n), 5, result), np.empty((m, n), result)
        simd.product.multiply(stored(a, ta), stored(b, tb), ta, tb, kind, fast)
        plain.multiply(stored(a, ta), stored(b, tb), ta, tb, 8 * slow.dtype.itemsize, False, slow)
        assert_array_equal(fast, slow, strict=True)


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(threads):
    a, b = random_matrices(0, 301, 517, 203, np.int8)
    ref = a.astype(np.int64) @ b.astype(np.int64)
    before = _parallel.threads()
    try:
        _parallel.set_threads(threads)
        out, left = product.multiply(a, b)
    finally:
        _parallel.set_threads(before)
    assert_array_equal(out, ref.astype(np.int32), strict=True)
    assert left == 0


@pytest.mark.parametrize(
    ("a", "b", "terms", "choice"),
    [
        (2**7, 2**7, 2**17 - 1, (product.simd_product.packed_type(2**7), np.int32)),
        (2**7, 2**7, 2**17, (np.int32, np.int64)),  # the sum may be 2**31
        (127, 127, 100, (product.simd_product.packed_type(127), np.int32)),
        (2**15 - 1, 3, 10, (product.simd_product.packed_type(2**15 - 1), np.int32)),
        (2**31, 1, 1, (np.int64, np.int64)),
        (2**31 - 1, 2**31 - 1, 2, (np.int32, np.int64)),
        (2**31 - 1, 2**31 - 1, 3, None),
        (2**62, 1, 2, None),
        (0, 2**63, 10**9, (np.int64, np.int64)),
    ],
)
def test_the_choice_is_the_narrowest_sure_one(a, b, terms, choice):
    assert product.choose(a, b, terms) == choice


@compiled
def test_the_largest_sums_that_fit_are_right():
    """Every bound at its very edge: all products of the largest size, as many as the choice admits."""
    for size, terms in ((127, 2**31 // 127**2), (128, 2**17 - 1), (2**15 - 1, 2), (2**31 - 1, 2)):
        for sign in (1, -1):
            kind = next(kind for kind in TYPES if np.iinfo(kind).max >= size or np.iinfo(kind).min == -size)
            a = np.full((2, terms), -size, kind)
            b = np.full((terms, 3), -size if sign > 0 or size in (128,) else size, kind)
            value = size * size * terms if (b < 0).all() else -size * size * terms
            for bits in (None, 64):
                out, left = product.multiply(a, b, accumulator_bits=bits)
                assert out.tolist() == [[value] * 3] * 2
                assert left == 0


def test_measuring():
    for kind in TYPES:
        assert product.largest_magnitude(np.array([[1, -5], [np.iinfo(kind).min, 3]], kind)) == -int(np.iinfo(kind).min)
    assert product.largest_magnitude(np.zeros((0, 3), np.int8)) == 0
    assert product.largest_magnitude(np.array([7, 2], np.int16)) == 7


# Sharper bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 7), (40, 2), (2, 300), (7, 33)])
def test_sums_of_magnitudes(kind, rows, columns):
    limits = np.iinfo(kind) if kind is not np.int64 else np.iinfo(np.int32)
    values = np.random.default_rng(rows).integers(limits.min, limits.max, (rows, columns), kind, endpoint=True)
    values[0] = limits.min
    magnitudes = [[abs(int(v)) for v in row] for row in values]
    assert product.largest_sum(values, rows, True) == max(sum(row) for row in magnitudes)
    assert product.largest_sum(values, columns, False) == max(sum(column) for column in zip(*magnitudes, strict=True))


@compiled
def test_long_sums_of_magnitudes():
    """More than 2**15 terms, which 32 bits would not hold, and enough work for several threads."""
    values = np.full((2**17 + 5, 3), -(2**15), np.int16)
    values[:, 1] += 1
    assert product.largest_sum(values, 3, False) == values.shape[0] * 2**15
    assert product.largest_sum(np.ascontiguousarray(values.T), 3, True) == values.shape[0] * 2**15


@compiled
@pytest.mark.parametrize("kind", [np.int8, np.int16])
@pytest.mark.parametrize(("ta", "tb"), FLAGS)
def test_small_products_in_one_call_equal_plain(kind, ta, tb):
    size = np.dtype(kind).itemsize
    left = np.zeros(simd.product.left_size(simd.product.DEPTH // size, size), np.uint8 if size == 1 else np.int16)
    for seed, (m, k, n) in enumerate([*SHAPES[:6], (48, 1, 16), (50, 33, 100), (3, 2048 // size, 17)]):
        a, b = random_matrices(seed, m, k, n, kind)
        fast, slow = np.full((m, n), 5, np.int32), np.empty((m, n), np.int32)
        words = np.empty(simd.product.words_size(n, k, size), np.int32)
        flat_a, flat_b = stored(a, ta).reshape(-1), stored(b, tb).reshape(-1)
        if simd.product.sums_of(kind):
            assert simd.product.multiply_proven(flat_a, ta, flat_b, tb, m, n, k, 0, words, left, fast.reshape(-1))
            plain.multiply(stored(a, ta), stored(b, tb), ta, tb, 32, False, slow)
            assert_array_equal(fast, slow, strict=True)


@pytest.mark.parametrize("kind", [np.int16, np.int32])
@pytest.mark.parametrize(("ta", "tb"), FLAGS)
@pytest.mark.parametrize("alone", [True, False])
def test_at_the_edge_of_the_sharper_bound(kind, ta, tb, alone, monkeypatch):
    """The largest magnitude times the sum of magnitudes is at, just below and just above the accumulator's limit."""
    if not alone:
        monkeypatch.setattr(product, "_ALONE", 0)
    low = -(2**15)
    for column in (
        [low, low],
        [low, low, -1],
        [low, -(2**15 - 1)],
        [2**15 - 1, 2**15 - 1, 2],
        [low, 1 - low - 2, 1],
        [9, 1, -3],
    ):
        a = np.full((3, len(column)), low, kind)
        a[1], a[2, 1:] = 2**15 - 1, 5
        b = np.stack(
            [np.array(column, kind), np.zeros(len(column), kind), -np.maximum(np.array(column, kind), -(2**15 - 1))], 1
        )
        for bits, saturates in itertools.product([None, 19, 20, 31, 32, 33, 64], [False, True]):
            for x, y, tx, ty in ((a, b, ta, tb), (b.T, a.T, tb, ta)):
                out, left = product.multiply(
                    stored(x, tx), stored(y, ty), a_transposed=tx, b_transposed=ty, accumulator_bits=bits, saturates=saturates
                )
                assert (out.tolist(), left) == in_word(exact(x, y), bits or 64, saturates)
                assert out.dtype == (np.int64 if bits is None or bits > 32 else np.int32)


@compiled
def test_sums_of_magnitudes_prove_32_bits():
    """A layer of 784 inputs with 12-bit inputs and 16-bit weights, most of them small."""
    random = np.random.default_rng(1)
    x = random.integers(-2048, 2049, (64, 784), np.int16)
    w = random.normal(0, 300, (100, 784)).astype(np.int16)
    w[0, 0] = 1500
    sides = (lambda: (x, 64, True)), (lambda: (w, 100, True))
    assert 2048 * 1500 * 784 >= 2**31
    choice, proven = product.choose_for(x, w, (2**15, 2**15), 784, 32, sides)
    assert choice == (product.simd_product.packed_type(2**15 - 1), np.int32)
    assert proven
    assert product.choose_for(x, w, (2**15, 2**15), 784, 32, (None, None))[1] is False
    ref = x.astype(np.int64) @ w.astype(np.int64).T
    for bits, kind in ((32, np.int32), (None, np.int64)):
        out, left = product.multiply(x, w, b_transposed=True, accumulator_bits=bits)
        assert_array_equal(out, ref.astype(kind), strict=True)
        assert left == 0


def test_the_place_to_write_may_be_given():
    for kind, bits in itertools.product(TYPES, (20, 32, 64)):
        a, b = random_matrices(bits, 3, 5, 4, kind, size=100)
        out = np.empty((3, 4), np.int32 if bits <= 32 else np.int64)
        result, left = product.multiply(a, b, accumulator_bits=bits, out=out)
        assert result is out
        assert (out.tolist(), left) == (exact(a, b), 0)
