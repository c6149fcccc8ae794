"""Floats to integers: exact against Fractions, refusing what has no integer."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intnet.errors import InputError
from intnet.kernels import quantize_nearest


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
