"""The scalar rules: exact against Python integers, compiled, as plain Python, and in the CUDA simulator."""

import itertools
import os

import naive
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intnet import arithmetic

INT8 = range(-128, 128)
EDGES = sorted({s * 2**k + d for k in range(63) for d in (-2, -1, 0, 1, 2) for s in (-1, 1)} | {-(2**63), 2**63 - 1})
FEW_EDGES = sorted({s * 2**k + d for k in (0, 1, 15, 16, 31, 32, 33, 47, 62) for d in (-1, 0, 1) for s in (-1, 1)})
FEW_EDGES = [-(2**63), 1 - 2**63, *FEW_EDGES, 2**63 - 2, 2**63 - 1]
INT64 = st.integers(-(2**63), 2**63 - 1)
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
if SIMULATED:
    from numba import cuda


def int64(*values):
    return [np.int64(value) for value in values]


@pytest.mark.parametrize("values", [INT8, EDGES], ids=["every int8", "around powers of two"])
def test_shift_floor_is_floor_division(values):
    for value, shift in itertools.product(values, (0, 1, 2, 7, 31, 32, 62, 63)):
        assert arithmetic.shift_floor(*int64(value, shift)) == value // 2**shift


@pytest.mark.parametrize("values", [INT8, EDGES], ids=["every int8", "around powers of two"])
def test_wrap_is_twos_complement(values):
    for value, bits in itertools.product(values, (1, 2, 3, 7, 8, 16, 31, 32, 33, 63, 64)):
        assert arithmetic.wrap(*int64(value, bits)) == naive.wrap(value, bits)


@pytest.mark.parametrize("word_bits", range(1, 9))
def test_wrap_every_value_of_small_words(word_bits):
    for value in range(-1024, 1024):
        assert arithmetic.wrap(*int64(value, word_bits)) == naive.wrap(value, word_bits)


def test_words_join_to_the_value():
    for value in EDGES:
        high, low = arithmetic.high_word(np.int64(value)), arithmetic.low_word(np.int64(value))
        assert 0 <= low < 2**32
        assert int(high) * 2**32 + int(low) == value
        assert arithmetic.join_words(high, low) == value
        assert not arithmetic.words_leave_int64(high, low)


@given(st.lists(INT64, min_size=1, max_size=50))
def test_sums_by_words_are_exact(values):
    high = sum(int(arithmetic.high_word(np.int64(v))) for v in values)
    low = sum(int(arithmetic.low_word(np.int64(v))) for v in values)
    assert arithmetic.join_words(*int64(high, low)) == naive.wrap(sum(values), 64)
    assert arithmetic.words_leave_int64(*int64(high, low)) == naive.leaves_int64(sum(values))


def test_sums_and_products_of_edges():
    for a, b in itertools.product(FEW_EDGES, repeat=2):
        check_sum_and_product(a, b)


@given(INT64, INT64)
def test_sums_and_products(a, b):
    check_sum_and_product(a, b)


@given(st.integers(-(2**40), 2**40), st.integers(-(2**26), 2**26))
def test_sums_and_products_near_the_limit(a, b):
    check_sum_and_product(a, b)


def check_sum_and_product(a, b):
    x, y = int64(a, b)
    assert arithmetic.add_wrap(x, y) == naive.wrap(a + b, 64)
    assert arithmetic.add_leaves_int64(x, y) == naive.leaves_int64(a + b)
    high, low = arithmetic.multiply_wide(x, y)
    assert int(high) * 2**64 + int(low) % 2**64 == a * b
    assert low == naive.wrap(a * b, 64)
    assert arithmetic.product_leaves_int64(high, low) == naive.leaves_int64(a * b)


def test_relu():
    assert [int(arithmetic.relu(np.int64(v))) for v in (-(2**63), -1, 0, 1, 2**63 - 1)] == [0, 0, 0, 1, 2**63 - 1]


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("name", ["shift_floor", "wrap", "add_wrap", "join_words", "relu", "high_word", "low_word"])
def test_results_are_int64(name):
    function = getattr(arithmetic, name)
    arguments = int64(5, 3)[: function.py_func.__code__.co_argcount]
    function(*arguments)
    assert {str(signature.return_type) for signature in (o.signature for o in function.overloads.values())} == {"int64"}


@pytest.mark.skipif(not SIMULATED, reason="runs with NUMBA_ENABLE_CUDASIM=1")
def test_the_same_bits_in_the_cuda_simulator():
    @cuda.jit
    def kernel(a, b, out):
        for i in range(cuda.grid(1), a.size, cuda.gridsize(1)):
            out[i, 0] = arithmetic.add_wrap(a[i], b[i])
            high, low = arithmetic.multiply_wide(a[i], b[i])
            out[i, 1] = high
            out[i, 2] = low
            out[i, 3] = arithmetic.shift_floor(a[i], b[i] & 63)
            out[i, 4] = arithmetic.wrap(a[i], (b[i] & 63) + 1)

    a, b = np.array(list(itertools.product(FEW_EDGES[::5], repeat=2)), np.int64).T.copy()
    out = np.zeros((a.size, 5), np.int64)
    kernel[2, 3](a, b, out)
    for x, y, row in zip(a.tolist(), b.tolist(), out.tolist(), strict=True):
        low, shift = x * y % 2**64, y & 63
        assert row[0] == naive.wrap(x + y, 64)
        assert row[1] * 2**64 + row[2] % 2**64 == x * y
        assert row[2] == naive.wrap(low, 64)
        assert row[3:] == [x // 2**shift, naive.wrap(x, shift + 1)]
