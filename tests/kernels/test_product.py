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
