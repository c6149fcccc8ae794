"""The scalar rules: exact against Python integers, compiled, as plain Python, and in the CUDA simulator."""

import itertools
import math
import os
from fractions import Fraction
from math import isqrt

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


def test_the_polynomial_window_of_sign_at_the_edges_of_the_word():
    for x, limit in itertools.product(FEW_EDGES, (0, 1, 2**40, 2**62 - 1)):
        expected = 2 * (limit - abs(x)) if abs(x) <= limit else 0
        assert arithmetic.sign_gradient_polynomial(*int64(1, x, limit)) == expected


def test_table_index():
    for value, (first, length) in itertools.product(EDGES[::7], ((0, 1), (-5, 10), (2**63 - 10, 10), (-(2**63), 3))):
        assert arithmetic.table_index(*int64(value, first, length)) == min(max(value - first, 0), length - 1)


@given(st.integers(-(2**40), 2**40), st.integers(-(2**10), 2**10), st.integers(0, 12), st.integers(0, 63))
def test_scale_keeps_what_it_cuts_off_in_its_lowest_bit(value, factor, left, right):
    exact = value * factor * 2**left
    floor = exact // 2**right
    assert arithmetic.scale(*int64(value, factor, left, right)) == (floor if floor * 2**right == exact else floor | 1)


@given(INT64, st.integers(1, 2**63 - 1))
def test_divide_ties_even_is_the_nearest(value, divisor):
    assert arithmetic.divide_ties_even(*int64(value, divisor)) == round(Fraction(value, divisor))


def test_divide_ties_even_of_every_int8():
    for value, divisor in itertools.product(INT8, range(1, 128)):
        assert arithmetic.divide_ties_even(*int64(value, divisor)) == round(Fraction(value, divisor))


@pytest.mark.parametrize("values", [INT8, EDGES], ids=["every int8", "around powers of two"])
def test_dividing_by_a_word_of_ones(values):
    """The floor, odd unless the quotient is exact: as of `divide_sticky`; not next to -2**63, where a step leaves the word."""
    values = [value for value in values if value > 2**35 - 2**63]
    for value, bits in itertools.product(values, range(2, 32)):
        quotient, rest = divmod(value, 2**bits - 1)
        assert arithmetic.divide_sticky_by_ones(*int64(value, bits)) == quotient | (rest != 0)


@given(INT64, st.integers(2, 31), st.integers(0, 62), st.sampled_from((-1, 0, 1)))
def test_dividing_by_a_word_of_ones_next_to_its_multiples(value, bits, down, off):
    ones = 2**bits - 1
    for near in (value >> down, (value >> down) // ones * ones + off):
        if 2**35 - 2**63 < near < 2**63:
            quotient, rest = divmod(near, ones)
            assert arithmetic.divide_sticky_by_ones(*int64(near, bits)) == quotient | (rest != 0)


@pytest.mark.parametrize("values", [INT8, FEW_EDGES], ids=["every int8", "around powers of two"])
def test_soft_threshold(values):
    for value, threshold in itertools.product(values, (0, 1, 2, 7, 127, 128, 2**40, 2**62)):
        expected = (value > 0) * max(value - threshold, 0) + (value < 0) * min(value + threshold, 0)
        assert arithmetic.soft_threshold(*int64(value, threshold)) == expected


def test_shift_nearest_rounds_half_up():
    for value, shift in itertools.product([*INT8, -(2**62), 2**61], (0, 1, 2, 7, 31, 60)):
        assert arithmetic.shift_nearest(*int64(value, shift)) == math.floor(Fraction(value, 2**shift) + Fraction(1, 2))


def test_level_of_a_sum_counts_thresholds():
    for value, thresholds in itertools.product(INT8, ((), (0,), (-3, 5), (-128, 0, 1, 127))):
        expected = sum(value >= one for one in thresholds) * 2 - len(thresholds)
        given_ones = np.array(thresholds or (0,), np.int64)
        assert arithmetic.level_of_sum(np.int64(value), given_ones, np.int64(len(thresholds))) == expected


def test_a_drawn_sign_compares_exactly():
    for scale in (1, 2, 100, 2**31 - 1):
        for value, fraction in itertools.product((-scale, -(scale // 2), 0, 1, scale), (0, 1, 2**31 - 1, 2**31, 2**32 - 1)):
            expected = 1 if Fraction(fraction, 2**32) < (1 + Fraction(value, scale)) / 2 else -1
            assert arithmetic.drawn_sign(*int64(value, scale, fraction)) == expected


def test_choose_is_nearly_even():
    for bits, count in itertools.product((4, 8), (1, 3, 9, 16)):
        chosen = [int(arithmetic.choose(*int64(value, bits, count))) for value in range(2**bits)]
        assert chosen == [value * count // 2**bits for value in range(2**bits)]
        assert {abs(chosen.count(k) - 2**bits / count) < 1 for k in range(count)} == {True}


def test_exp2_of_fractions():
    """Every 2**18-th of the fractions, the ends, and where the polynomial errs most, against 60 bits."""
    fractions = {*range(0, 2**30, 2**18 + 1), *range(64), *range(2**30 - 64, 2**30)}
    unit = Fraction(1, 2**30)
    half = naive.natural_logarithm_of_two()
    for fraction in fractions:
        result = int(arithmetic.exp2_fraction(np.int64(fraction)))
        assert 2**29 <= result <= 2**30
        assert abs(result * unit - naive.exp_negative(fraction * unit * half)) < Fraction(3, 2) * unit


def test_exp_of_any_distance():
    distances = [0, 1, 2, 3, 1000, 2**20 + 1, 2**31 - 1, 2**36 - 1, 2**36, 2**47, 2**62, 2**63 - 2]
    for distance, exponent in itertools.product(distances, [*range(-70, 8), -(2**40), -1000, 1000, 2**40]):
        result = int(arithmetic.exp_negative(*int64(distance, exponent)))
        if abs(exponent) <= 70:
            expected = naive.exp_negative(distance * Fraction(2) ** exponent)
        else:
            expected = Fraction(distance == 0 or exponent < 0)
        assert abs(Fraction(result, 2**30) - expected) < Fraction(3, 2**30)


@given(st.integers(0, 2**62))
def test_exp_falls(distance):
    results = [int(arithmetic.exp_negative(*int64(distance + k, -30))) for k in range(3)]
    assert all(0 <= b <= a + 2 for a, b in itertools.pairwise(results))


def test_logarithms_are_within_their_bound():
    """Powers of two and their neighbours, what is cut most on its way (31 bits and all below set), and 3000 of all sizes."""
    rng = np.random.default_rng(30)
    totals = {2**k + d for k in range(30, 62) for d in (-(2**20), -3, -2, -1, 0, 1, 2, 3, 2**20)} | {
        3 * 2**k for k in range(29, 60)
    }
    totals |= {
        (m + 1) * 2 ** (k - 31) - 1 for k in range(31, 62) for m in (2**30, 2**30 + 1, 2**31 - 1, 1518500249, 1518500250)
    }
    totals |= {round(2 ** float(octaves)) for octaves in rng.uniform(30, 61, 3000)}
    unit, previous = Fraction(1, 2**30), 0
    for total in sorted(one for one in totals if 2**30 <= one <= 2**61):
        log = int(arithmetic.log_of_sum(np.int64(total)))
        assert abs(log * unit - naive.logarithm(total * unit)) < 6 * unit, total
        assert log >= previous - 12
        previous = log
    assert arithmetic.log_of_sum(np.int64(2**30)) == 0


def test_octaves_of_niti():
    for logit, exponent in itertools.product(EDGES[::3], (-6, -3, -1, 0, 1, 4, 5, 70)):
        held = max(-(2**46), min(2**46, logit))
        expected = naive.truncate(naive.truncate(Fraction(held * 47274, 2**15)) * Fraction(2) ** min(exponent, 4))
        assert arithmetic.niti_octaves(*int64(logit, exponent)) == expected


def nearest_saturated(x):
    """Return a Fraction rounded to nearest, ties away from zero, in +-(2**63 - 1)."""
    return max(1 - 2**63, min(2**63 - 1, naive.round_fraction(x, "ties_away")))


def test_isqrt():
    squares = [root * root + d for root in (2, 3, 2**16, 2**31 - 1, 2**31, 3037000499) for d in (-1, 0, 1)]
    for value in {*range(2000), *(edge for edge in EDGES if edge >= 0), *squares}:
        assert arithmetic.isqrt(np.int64(value)) == isqrt(value)


@given(st.integers(0, 2**63 - 1))
def test_isqrt_of_any(value):
    assert arithmetic.isqrt(np.int64(value)) == isqrt(value)


def test_multiply_divide_and_shift_of_small_numbers():
    small = range(-9, 10)
    for a, b, divisor in itertools.product(small, small, range(1, 10)):
        assert arithmetic.multiply_divide(*int64(a, b, divisor)) == nearest_saturated(Fraction(a * b, divisor))
    for a, b, shift in itertools.product(small, small, range(-3, 9)):
        assert arithmetic.multiply_shift(*int64(a, b, shift)) == nearest_saturated(a * b / Fraction(2) ** shift)


@pytest.mark.parametrize("divisor", [1, 2, 3, 2**31 - 1, 2**32 + 1, 2**62 - 1, 2**62, 2**62 + 1, 2**63 - 2, 2**63 - 1])
def test_multiply_divide_of_edges(divisor):
    for a, b in itertools.product(FEW_EDGES, repeat=2):
        assert arithmetic.multiply_divide(*int64(a, b, divisor)) == nearest_saturated(Fraction(a * b, divisor))


@pytest.mark.parametrize("shift", [1 - 2**63, -64, -63, -1, 0, 1, 31, 61, 62, 63, 64, 65, 125, 126, 127, 2**63 - 1])
def test_multiply_shift_of_edges(shift):
    power = Fraction(2) ** max(-200, min(200, shift))
    for a, b in itertools.product([edge for edge in FEW_EDGES if edge > -(2**63)], repeat=2):
        assert arithmetic.multiply_shift(*int64(a, b, shift)) == nearest_saturated(a * b / power)


@given(INT64, INT64, st.integers(1, 2**63 - 1), st.integers(0, 62))
def test_multiply_divide(a, b, divisor, down):
    divisor = max(1, divisor >> down)
    assert arithmetic.multiply_divide(*int64(a, b, divisor)) == nearest_saturated(Fraction(a * b, divisor))


def test_divide_sticky():
    """Every small pair, and edges: the floor of the exact quotient, odd unless that is whole; so rounding it rounds that."""
    small = itertools.product(range(-70, 71), range(1, 18))
    edges = ((value, divisor) for value in FEW_EDGES for divisor in (1, 2, 3, 7, 2**31 - 1, 2**62, 2**63 - 1))
    for value, divisor in itertools.chain(small, edges):
        exact, quotient = Fraction(value, divisor), int(arithmetic.divide_sticky(*int64(value, divisor)))
        assert quotient == (exact if exact.denominator == 1 else math.floor(exact) | 1)
        for shift in (2, 3, 9):
            assert round(Fraction(quotient, 2**shift)) == round(exact / 2**shift)


# Wide sums to roots and quotients ---------------------------------------------------------------------------------------

WORDS = [*range(-9, 10), *(s * 2**k + d for k in (16, 31, 32, 33, 61) for d in (-1, 0, 1) for s in (-1, 1))]


def test_words_are_shifted_to_nearest():
    for high, low in itertools.product(WORDS, repeat=2):
        total = high * 2**32 + low
        bits = int(arithmetic.words_bit_length(*int64(high, low)))
        assert -(2**bits) <= total < 2**bits
        assert bits == 0 or not -(2 ** (bits - 1)) <= total < 2 ** (bits - 1)
        for shift in {*range(max(bits - 62, 0), 95, 13), max(bits - 62, 0), 31, 32, 33}:
            if bits - shift <= 62:
                found = arithmetic.shift_words(*int64(high, low, shift))
                assert found == naive.round_fraction(Fraction(total, 2**shift), "ties_pos")


def test_roots_of_words():
    """Every small number, squares and their neighbours, and edges: less than one below the exact root."""
    squares = [root * root + d for root in (2**k + e for k in range(3, 46) for e in (-1, 0, 1)) for d in (-1, 0, 1)]
    for total in (*range(3000), *squares, 2**93 - 1, 2**93):
        root, exponent = map(int, arithmetic.root_words(*int64(total >> 32, total % 2**32)))
        if not total:
            assert root == 0
            continue
        assert 2**30 <= root <= 2**31
        unit = Fraction(4) ** exponent
        assert root**2 * unit <= total + (unit if exponent > 0 else 0)  # a shift to the right rounds to nearest
        assert total < (root + 1) ** 2 * unit


def test_quotients_of_small_numbers():
    for a, b, bits in itertools.product(range(1, 20), range(1, 20), (1, 2, 5, 31, 61)):
        check_quotient(a, b, bits)


@given(st.integers(1, 2**62 - 1), st.integers(1, 2**62 - 1), st.integers(1, 61), st.integers(0, 61))
def test_quotients(a, b, bits, down):
    check_quotient(a, max(1, b >> down), bits)
    check_quotient(max(1, a >> down), b, bits)


def check_quotient(a, b, bits):
    mantissa, exponent = map(int, arithmetic.quotient(*int64(a, b, bits)))
    assert 2 ** (bits - 1) <= mantissa < 2**bits
    exact = Fraction(a, b) / Fraction(2) ** exponent
    if mantissa > 2 ** (bits - 1) or exact >= mantissa:
        assert mantissa == naive.round_fraction(exact, "ties_away")
    else:  # rounded up to a power of two, from below which the units are half as wide
        assert 2 * mantissa == naive.round_fraction(2 * exact, "ties_away")


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize(
    "name", ["shift_floor", "wrap", "add_wrap", "join_words", "relu", "high_word", "low_word", "exp2_fraction"]
)
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
            out[i, 5] = arithmetic.exp_negative(a[i] & 0xFFFFFFFF, -(b[i] & 63))
            out[i, 6] = arithmetic.niti_octaves(a[i], (b[i] & 7) - 3)

    a, b = np.array(list(itertools.product(FEW_EDGES[::5], repeat=2)), np.int64).T.copy()
    out = np.zeros((a.size, 7), np.int64)
    kernel[2, 3](a, b, out)
    for x, y, row in zip(a.tolist(), b.tolist(), out.tolist(), strict=True):
        low, shift = x * y % 2**64, y & 63
        assert row[0] == naive.wrap(x + y, 64)
        assert row[1] * 2**64 + row[2] % 2**64 == x * y
        assert row[2] == naive.wrap(low, 64)
        assert row[3:5] == [x // 2**shift, naive.wrap(x, shift + 1)]
        assert row[5] == arithmetic.exp_negative(*int64(x % 2**32, -shift))
        assert row[6] == arithmetic.niti_octaves(*int64(x, (y & 7) - 3))
