"""The rounding rules, one value at a time: exact against Fractions and Python integers, compiled and as plain Python."""

import itertools
from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intnet import arithmetic
from intnet.formats import Rounding

DETERMINISTIC = list(Rounding)[:10]
INT8 = range(-128, 128)
EDGES = sorted({s * 2**k + d for k in range(63) for d in (-2, -1, 0, 1, 2) for s in (-1, 1)})
EDGES = [-(2**63), 1 - 2**63, *EDGES, 2**63 - 2, 2**63 - 1]
FEW = [*EDGES[::3], -(2**63), 2**63 - 1]
FAR = [0, 1, 2, 3, 31, 32, 61, 62, 63, 64, 65, 90, 124, 125, 126, 127, 128, 129, 1000]
INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)


def int64(*values):
    return [np.int64(value) for value in values]


def by_constants(value, shift, mode):
    constants = arithmetic.rounding_constants(*int64(mode.code, shift))
    return arithmetic.round_shift(*int64(value, shift), *constants)


def test_codes_are_those_of_the_names():
    for mode in Rounding:
        assert getattr(arithmetic, mode.name) == mode.code


@pytest.mark.parametrize("mode", DETERMINISTIC, ids=lambda mode: mode.value)
def test_every_int8_and_every_shift(mode):
    for value, shift in itertools.product(INT8, range(63)):
        ref = naive.round_fraction(Fraction(value, 2**shift), mode.value)
        assert by_constants(value, shift, mode) == ref
        assert arithmetic.round_shift_any(*int64(value, shift, mode.code)) == ref


@pytest.mark.parametrize("mode", DETERMINISTIC, ids=lambda mode: mode.value)
def test_wide_values_and_shifts_beyond_the_word(mode):
    for value, shift in itertools.product(FEW, FAR):
        ref = naive.round_fraction(Fraction(value, 2**shift), mode.value)
        assert arithmetic.round_shift_any(*int64(value, shift, mode.code)) == ref
        if shift <= 62:
            assert by_constants(value, shift, mode) == ref


@given(INT64, st.integers(0, 140), st.sampled_from(DETERMINISTIC))
def test_any_value_any_shift(value, shift, mode):
    ref = naive.round_fraction(Fraction(value, 2**shift), mode.value)
    assert arithmetic.round_shift_any(*int64(value, shift, mode.code)) == ref


@given(INT64, st.integers(0, 62), st.integers(0, 62))
def test_sticky_shift_then_round_is_rounding_at_once(value, first, then):
    if then < 2:
        return
    kept = arithmetic.shift_sticky(*int64(value, first))
    for mode in DETERMINISTIC:
        ref = naive.round_fraction(Fraction(value, 2 ** (first + then)), mode.value)
        assert by_constants(kept, then, mode) == ref


@pytest.mark.parametrize("random_bits", [1, 2, 3, 5])
def test_stochastic_every_int8_every_random_fraction(random_bits):
    for value, shift in itertools.product(INT8, (0, 1, 2, 3, 4, 7, 8, 9)):
        for fraction in range(2**random_bits):
            ref = naive.round_fraction(Fraction(value, 2**shift), "stochastic", fraction, random_bits)
            assert arithmetic.round_shift_stochastic(*int64(value, shift, fraction, random_bits)) == ref


@given(INT64, st.integers(0, 140), st.integers(1, 62), st.data())
def test_stochastic_any_value_any_shift(value, shift, random_bits, data):
    fraction = data.draw(st.integers(0, 2**random_bits - 1))
    ref = naive.round_fraction(Fraction(value, 2**shift), "stochastic", fraction, random_bits)
    assert arithmetic.round_shift_stochastic(*int64(value, shift, fraction, random_bits)) == ref


def test_stochastic_rounds_up_as_often_as_the_rest_says():
    """Over all random fractions, exactly: the share of those that round up is the rest itself."""
    for value, shift in itertools.product(range(-40, 40), (0, 1, 3, 5)):
        total = sum(int(arithmetic.round_shift_stochastic(*int64(value, shift, f, 5))) for f in range(32))
        assert Fraction(total, 32) == Fraction(value, 2**shift)


def test_pseudo_stochastic():
    for value, shift in itertools.product(INT8, range(63)):
        assert arithmetic.round_shift_pseudo_stochastic(*int64(value, shift)) == naive.pseudo_stochastic(value, shift)
    for value, shift in itertools.product(FEW, FAR):
        assert arithmetic.round_shift_pseudo_stochastic(*int64(value, shift)) == naive.pseudo_stochastic(value, shift)


@given(INT64, st.integers(0, 140))
def test_pseudo_stochastic_any_value(value, shift):
    assert arithmetic.round_shift_pseudo_stochastic(*int64(value, shift)) == naive.pseudo_stochastic(value, shift)


def test_left_shift_and_its_bounds():
    for value, shift in itertools.product(FEW, (0, 1, 7, 62, 63, 64, 65, 1000)):
        assert arithmetic.shift_left(*int64(value, shift)) == naive.wrap(value * 2**shift, 64)
    limits = [(-128, 127), (-127, 127), (0, 255), (-1, 0), (-(2**63), 2**63 - 1), (1 - 2**63, 2**63 - 2), (0, -1), (-2, -1)]
    for (minimum, maximum), shift in itertools.product(limits, (0, 1, 6, 7, 8, 62, 63, 64, 100)):
        least, most = arithmetic.shift_left_bounds(*int64(shift, minimum, maximum))
        assert (least, most) == (-(-minimum // 2**shift), maximum // 2**shift)


@pytest.mark.parametrize("signed", [True, False])
def test_words_of_both_signs(signed):
    for bits in (1, 2, 7, 8, 31, 32, 33, 62, 63, *([64] if signed else [])):
        constants = arithmetic.word_constants(np.int64(bits), signed)
        for value in (*range(-300, 300, 7), *FEW):
            ref = naive.wrap(value, bits) if signed else value % 2**bits
            assert arithmetic.wrap_word(np.int64(value), *constants) == ref


def test_bit_length():
    for value in (v for v in EDGES if v >= 0):
        assert arithmetic.bit_length(np.int64(value)) == value.bit_length()


MULTIPLIERS = sorted({s * 2**k + d for k in (0, 1, 15, 29, 30) for d in (-1, 0, 1) for s in (-1, 1)} | {-(2**31), 2**31 - 1})


def test_tflite_pipeline_equals_the_transcription_at_the_edges():
    for a, b in itertools.product(MULTIPLIERS, repeat=2):
        ref = naive.doubling_high_multiply(a, b)
        assert arithmetic.saturating_rounding_doubling_high_multiply(*int64(a, b)) == ref
        for shift in (-31, -30, -2, -1, 0, 1, 5, 30):
            ref = naive.quantized_multiplier(a, b, shift)
            assert arithmetic.multiply_by_quantized_multiplier(*int64(a, b, shift)) == ref
    for value, shift in itertools.product((*INT8, *MULTIPLIERS), range(32)):
        ref = naive.divide_by_power_of_two(value, shift)
        assert arithmetic.rounding_divide_by_power_of_two(*int64(value, shift)) == ref


def test_the_one_product_that_saturates():
    assert arithmetic.saturating_rounding_doubling_high_multiply(*int64(-(2**31), -(2**31))) == 2**31 - 1


@given(INT32, INT32, st.integers(-31, 30))
def test_tflite_pipeline(value, multiplier, shift):
    ref = naive.quantized_multiplier(value, multiplier, shift)
    assert arithmetic.multiply_by_quantized_multiplier(*int64(value, multiplier, shift)) == ref


@given(INT32, INT32)
def test_tflite_multiplies_to_nearest_ties_up(a, b):
    ref = naive.round_fraction(Fraction(a * b, 2**31), "ties_pos")
    assert arithmetic.saturating_rounding_doubling_high_multiply(*int64(a, b)) == min(ref, 2**31 - 1)
