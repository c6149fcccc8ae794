"""Floats to integers: exact against Fractions, refusing what has no integer."""

import itertools
import math
from fractions import Fraction

import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import BlockFloat, Overflow, Rounding, Tile
from intnet.kernels import quantize_nearest

SLOW = numba.config.DISABLE_JIT
SEQUENCE = {"seed": 3, "stream": 2**31, "step": 1}
TINY, HUGE = 5e-324, 1.7976931348623157e308
NEAR_TIES = [s * (k + 0.5 + d) for k in (0, 1, 2, 5) for d in (0, -(2**-54), -(2**-53), 2**-51, 2**-40) for s in (-1, 1)]
NUMBERS = sorted(
    {0.0, -0.0, TINY, -TINY, 3 * TINY, 2.0**-1022, HUGE, -HUGE, 1e-300, -1e-300, *NEAR_TIES}
    | {s * math.nextafter(2.0**k, to) for k in (-60, -1, 0, 3, 7, 52, 62, 63) for to in (0, 1e9, 1e300) for s in (-1, 1)}
    | {s * 2.0**k for k in (-1074, -1000, -70, -2, -1, 0, 1, 7, 15, 31, 52, 53, 62, 63, 64, 1000) for s in (-1, 1)}
    | {1.25, -1.75, 127.5, -128.5, 100.49999, 0.1, -0.1, 1 / 3}
)  # fmt: skip


def check(
    values, exponents, rounding, overflow, word_bits, *, signed=True, layout=None, each=None, random_bits=32, first_index=0
):
    """Compare results, types and counters with exact Fractions."""
    counters = kernels.new_counters()
    comp = kernels.quantize(
        values, exponents, rounding.code, overflow.code, word_bits, signed=signed, layout=layout, random_bits=random_bits,
        first_index=first_index, counters=counters, **SEQUENCE,
    )  # fmt: skip
    each = [int(exponents)] * values.size if each is None else each.ravel().tolist()
    ref, outside, lost = [], 0, 0
    for i, (value, exponent) in enumerate(zip(values.ravel().tolist(), each, strict=True)):
        if rounding is Rounding.PSEUDO_STOCHASTIC:
            shift = exponent - max(math.frexp(value)[1] - 53, -1074)
            mantissa = int(Fraction(value) / Fraction(2) ** (exponent - shift))
            rounded = naive.pseudo_stochastic(mantissa, shift) if shift >= 0 else mantissa * 2**-shift
        else:
            fraction = naive.random_fraction(*SEQUENCE.values(), first_index + i, random_bits)
            rounded = naive.round_fraction(Fraction(value) / Fraction(2) ** exponent, rounding.value, fraction, random_bits)
        result, left = naive.into_word(rounded, word_bits, signed, overflow.value)
        ref.append(result)
        outside += left
        lost += value != 0 and rounded == 0
    assert comp.shape == values.shape
    assert comp.ravel().tolist() == ref
    saturates = overflow.value.startswith("saturate")
    seen = (min(ref), max(ref)) if ref else (2**63 - 1, -(2**63))
    assert counters.tolist() == [outside * saturates, outside * (not saturates), lost, *seen]


@pytest.mark.parametrize("overflow", [Overflow.SATURATE, Overflow.WRAP], ids=lambda mode: mode.value)
@pytest.mark.parametrize("rounding", Rounding, ids=lambda mode: mode.value)
def test_every_mode_is_exact(rounding, overflow):
    for exponent, word_bits in [(0, 8), (-12, 16), (3, 8), (-1074, 63), (900, 16), (-60, 64), (970, 8), (0, 64)]:
        check(np.array(NUMBERS), exponent, rounding, overflow, word_bits)
        ordinary = np.array([v for v in NUMBERS if v == 0 or 2.0**-800 < abs(v) * 2.0 ** -max(exponent, -60) < 2.0**61])
        check(ordinary, exponent, rounding, overflow, word_bits)  # takes the shortcut


@pytest.mark.parametrize("rounding", Rounding, ids=lambda mode: mode.value)
def test_float32(rounding):
    with np.errstate(over="ignore", under="ignore"):
        values = np.array(NUMBERS).astype(np.float32)
    check(values[np.isfinite(values)], -5, rounding, Overflow.SATURATE_SYMMETRIC, 16)
    values = np.random.default_rng(6).standard_normal(50 if SLOW else 3000).astype(np.float32)
    check(values, -7, rounding, Overflow.SATURATE, 8, signed=False)


@given(st.data())
@settings(max_examples=60 if SLOW else 200)
def test_anything(data):
    draw = data.draw
    size = draw(st.sampled_from([1e-300, 1.0, 300.0, 1e300]))
    values = np.array(draw(st.lists(st.floats(-size, size), max_size=6)))
    rounding, overflow = draw(st.sampled_from(Rounding)), draw(st.sampled_from(Overflow))
    exponent, word_bits = draw(st.integers(-40, 40)) + int(math.log2(size)), draw(st.integers(1, 63))
    random_bits, first_index = draw(st.integers(1, 62)), draw(st.integers(0, 2**40))
    check(values, exponent, rounding, overflow, word_bits, random_bits=random_bits, first_index=first_index)


@pytest.mark.parametrize("form", [BlockFloat(8, "row"), BlockFloat(8, "channel"), BlockFloat(8, Tile(2, 0))], ids=str)
@pytest.mark.parametrize("rounding", [Rounding.TIES_NEG, Rounding.STOCHASTIC], ids=lambda mode: mode.value)
def test_blocks(form, rounding):
    random = np.random.default_rng(7)
    values = random.standard_normal((4, 6, 3)) * 2.0 ** random.integers(-20, 20, (4, 6, 3))
    layout, of_exponents = form.layout(values.shape), form.exponent_layout(values.shape)
    outer, share = layout[0], of_exponents[0] == 1 and layout[0] > 1
    exponents = kernels.exponents_of(values, layout, 8, -128, 127, share_outer=share)
    assert exponents.shape == of_exponents
    blocks = values.reshape(layout)
    for o, b, i in np.ndindex(exponents.shape):
        block = blocks[:, b, :, i] if share else blocks[o, b, :, i]
        assert exponents[o, b, i] == form.exponent(float(np.abs(block).max()))
    each = np.broadcast_to(exponents[:, :, np.newaxis, :], layout)
    assert outer * layout[1] * layout[2] * layout[3] == values.size
    check(values, exponents, rounding, Overflow.SATURATE, 8, layout=layout, each=each)


@pytest.mark.parametrize("value", [v for v in NUMBERS if v != 0])
def test_the_exponent_is_the_smallest_that_holds_the_number(value):
    for word_bits in (2, 8, 53, 63):
        exponent = kernels.exponents_of(np.array([value]), (1, 1, 1, 1), word_bits, -5000, 5000).item()
        size = abs(Fraction(value))
        assert size < Fraction(2) ** (word_bits - 1 + exponent)
        assert size >= Fraction(2) ** (word_bits - 2 + exponent)
        assert kernels.exponents_of(np.array([value]), (1, 1, 1, 1), word_bits, -128, 127).item() == min(
            max(exponent, -128), 127
        )


def test_exponents_of_zeros_and_of_nothing():
    assert kernels.exponents_of(np.zeros(4), (2, 1, 2, 1), 8, -128, 127).ravel().tolist() == [-128, -128]
    assert kernels.exponents_of(np.zeros(0), (2, 1, 0, 1), 8, -128, 127).ravel().tolist() == [-128, -128]
    assert kernels.exponents_of(np.zeros(0), (0, 3, 2, 1), 8, -128, 127, share_outer=True).shape == (1, 3, 1)


@pytest.mark.skipif(SLOW, reason="too many elements for plain Python")
@pytest.mark.parametrize("rounding", Rounding, ids=lambda mode: mode.value)
def test_the_same_bits_for_any_threads(rounding):
    values = np.random.default_rng(8).standard_normal(300_001)
    results, before = [], kernels.threads()
    for threads in (1, 3):
        kernels.set_threads(threads)
        counters = kernels.new_counters()
        result = kernels.quantize(values, -9, rounding.code, Overflow.WRAP.code, 10, counters=counters, **SEQUENCE)
        results.append((result, counters))
    kernels.set_threads(before)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.skipif(SLOW, reason="too many elements for plain Python")
def test_the_shortcut_equals_the_rules():
    """One huge number in the window sends its neighbours the long way: the same bits."""
    values = np.random.default_rng(9).standard_normal(1000) * 3000
    spoiled = values.copy()
    spoiled[0] = HUGE
    for rounding, exponent in itertools.product(Rounding, (-9, 0, 3)):
        arguments = (exponent, rounding.code, Overflow.WRAP.code, 10)
        short = kernels.quantize(values, *arguments, **SEQUENCE)
        np.testing.assert_array_equal(kernels.quantize(spoiled, *arguments, **SEQUENCE)[1:], short[1:])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, np.nan, np.inf], r"must be finite; 2 of 3 are not, the first at index 1: nan"),
        ([[1.0, 2.0], [-np.inf, 0.0]], r"1 of 4 are not, the first at index \(1, 0\): -inf"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_is_refused(values, message, dtype):
    values = np.array(values, dtype)
    with pytest.raises(InputError, match=message):
        kernels.quantize(values, 0, Rounding.TIES_EVEN.code, Overflow.SATURATE.code, 8)
    with pytest.raises(InputError, match=message):
        kernels.exponents_of(values, (1, 1, values.size, 1), 8, -128, 127)


def test_views_are_taken_in_c_order():
    values = np.arange(24.0).reshape(4, 6)
    for view in (values.T, values[::-1, ::2], values[1, 2:3], np.asarray(values[2, 2])):
        comp = kernels.quantize(view, 1, Rounding.FLOOR.code, Overflow.SATURATE.code, 8)
        np.testing.assert_array_equal(comp, (view // 2).astype(np.int8), strict=True)


# Back to floats --------------------------------------------------------------------------------------------------------

MANTISSAS = [0, 1, -1, 2**53, -(2**53), 2**53 + 1, 2**62 + 1, -(2**63), 2**63 - 1, 12345]


@pytest.mark.parametrize("exponent", [-1100, -1074, -1022, -1000, -12, 0, 5, 900, 960])
def test_dequantize(exponent):
    comp = kernels.dequantize(np.array(MANTISSAS), exponent)
    for mantissa, value in zip(MANTISSAS, comp.tolist(), strict=True):
        exact = Fraction(mantissa) * Fraction(2) ** exponent
        if abs(mantissa) <= 2**53 or exponent >= -1000:
            assert value == float(exact)
        if abs(mantissa) <= 2**53 and exponent >= -1022:
            assert Fraction(value) == exact


def test_dequantize_blocks():
    mantissas = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    exponents = np.arange(-3, 3).reshape(2, 3, 1)
    comp = kernels.dequantize(mantissas, exponents, layout=(2, 3, 4, 1))
    np.testing.assert_array_equal(comp, mantissas * 2.0**exponents, strict=True)
    assert kernels.dequantize(mantissas[:0], np.zeros((1, 3, 1)), layout=(0, 3, 4, 1)).shape == (0, 3, 4)


def test_numbers_too_large_for_a_float_are_refused():
    assert kernels.dequantize(np.array([1]), 1023)[0] == 2.0**1023
    with pytest.raises(InputError, match="exponents up to 1023 give numbers too large for float64"):
        kernels.dequantize(np.array([2]), 1023)


# The levels of a data set -------------------------------------------------------------------------------------------------


@given(st.floats(-1e6, 1e6), st.integers(-4, 31))
def test_to_nearest_ties_to_even(value, fraction_bits):
    assert quantize_nearest(np.array([value]), fraction_bits)[0] == round(Fraction(value) * Fraction(2) ** fraction_bits)


def test_ties_shape_and_dtype():
    values = np.array([[0.5, 1.5], [-0.5, -2.5]])
    result = quantize_nearest(values, 0)
    np.testing.assert_array_equal(result, np.array([[0, 2], [0, -2]]), strict=True)


def test_nothing_is_nothing():
    assert quantize_nearest(np.zeros(0), 8).shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**40, -(2.0**40)])
def test_what_does_not_fit_is_refused(value):
    with pytest.raises(InputError, match=r"finite and below 2\*\*40 in magnitude for 23 fraction bits"):
        quantize_nearest(np.array([0.5, value]), 23)
