"""Where numbers are rounded: every kind of block against Fractions, what is counted, and alignment."""

from dataclasses import replace
from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from intnet.errors import InputError
from intnet.formats import BlockFloat, Fixed
from intnet.layers import Build, Dense, Quantizer, Residual, Step
from intnet.layers._base import aligned
from intnet.layers.container import add, combine
from intnet.recipe import RECIPES, Role
from intnet.tensor import QTensor

TRAINING = Step(1, 9, True)
STREAM = 77

# An accumulator's exponents: one, one a sample, one an output, one for each of both.
EXPONENTS = {
    "one": np.array([[-9]]),
    "samples": np.array([[-9], [3], [-20], [-9]]),
    "outputs": np.array([[-9, -2, 0]]),
    "both": np.array([[-9], [3], [-20], [-9]]) + np.array([[0, 1, -5]]),
}


def sums(exponent, seed=0):
    mantissa = np.random.default_rng(seed).integers(-(2**20), 2**20, (4, 3)).astype(np.int32)
    mantissa[3] = 0  # a sample of zeros
    mantissa[0, 1] = 0
    return QTensor(mantissa, exponent, None)


@pytest.mark.parametrize("exponents", EXPONENTS)
@pytest.mark.parametrize("form", ["fxp-s8/2", "fxp-s16/-3", "bfp-s8/tensor", "bfp-s8/row", "bfp-s12/row"])
@pytest.mark.parametrize("mode", ["ties_even", "to_zero", "stochastic"])
def test_rounding_equals_naive(exponents, form, mode):
    x = sums(EXPONENTS[exponents])
    quantizer = Quantizer("t", "activation", Role.parse(f"{form} {mode} wrap random:20"), STREAM)
    out = quantizer(x, TRAINING)
    words, exponent, left, lost = naive.into_format(
        naive.value_of(x), form, mode, "wrap", lambda i: naive.random_fraction(9, STREAM, 1, i, 20), 20
    )
    assert_array_equal(out.mantissa.astype(object), words)
    assert out.exponent.reshape(-1).tolist() == exponent
    assert str(out.format) == form
    assert out.mantissa.dtype == out.format.storage
    seen = quantizer.seen()
    assert (seen.saturated, seen.wrapped, seen.lost, seen.count) == (0, left, lost, 12)
    assert (seen.minimum, seen.maximum) == (words.min(), words.max())
    assert seen.fraction_bits == -max(exponent)


def test_counts_add_up_until_they_are_reset():
    quantizer = Quantizer("t", "weight", Role.parse("fxp-s8/0 ties_even"), STREAM)
    assert (quantizer.seen().minimum, quantizer.seen().fraction_bits, quantizer.seen().count) == (None, None, 0)
    for _ in range(2):
        quantizer(QTensor(np.array([[300, 1, 5]]), np.array([[-2]]), None), TRAINING)
        quantizer(QTensor(np.array([[-300, 300]]), np.array([[0]]), None), TRAINING, lost_apart=True)
    quantizer(QTensor(np.array([[1000]]), np.array([[0]]), None), Step())  # outside training nothing is counted
    seen = quantizer.seen()
    assert (seen.saturated, seen.lost, seen.minimum, seen.maximum, seen.count) == (4, 2, -128, 127, 10)
    quantizer.reset()
    assert quantizer.seen().count == 0


@pytest.mark.parametrize("step", [TRAINING, Step()])
def test_an_overflow_that_is_an_error_names_the_tensor(step):
    quantizer = Quantizer("dense3", "activation", Role.parse("fxp-s8/4 ties_even error"), STREAM)
    x = QTensor(np.array([[127, 128, -129]]), np.array([[-4]]), None)
    with pytest.raises(InputError, match=r"^dense3: 2 of 3 numbers do not fit into fxp-s8/4 \(role activation\); give it more"):
        quantizer(x, step)
    assert quantizer(QTensor(x.mantissa[:, :1], x.exponent, None), step).mantissa.tolist() == [[127]]


@pytest.mark.parametrize("form", ["bfp-s8/tensor", "bfp-s8/row", "fxp-s8/3"])
def test_in_evaluation_a_sample_is_alone(form):
    """Whatever the block and the rounding: a row of a batch is what it is as a batch of its own."""
    quantizer = Quantizer("t", "activation", Role.parse(f"{form} stochastic"), STREAM, of_samples=True)
    x = sums(EXPONENTS["samples"])
    whole = quantizer(x, Step(seed=9))
    for i in range(4):
        one = quantizer(QTensor(x.mantissa[i : i + 1], x.exponent[i : i + 1], None), Step(seed=9))
        assert one.to_float().tolist() == whole.to_float()[i : i + 1].tolist()
    words, *_ = naive.into_format(naive.value_of(x), form.replace("tensor", "row"))
    assert_array_equal(whole.mantissa.astype(object), words)


def test_blocks_of_zeros_and_beyond_the_exponents():
    quantizer = Quantizer("t", "weight", Role.parse("bfp-s8/row ties_even"), STREAM)
    x = QTensor(np.array([[0, 0], [3, 1], [3, -3]]), np.array([[0], [-200], [300]]), None)
    out = quantizer(x, TRAINING)
    assert out.exponent.ravel().tolist() == [-128, -128, 127]
    assert out.mantissa.tolist() == [[0, 0], [0, 0], [127, -128]]
    out = Quantizer("t", "weight", Role.parse("bfp-s8/tensor"), STREAM)(QTensor(np.zeros((2, 2), int), [[5]], None), TRAINING)
    assert (out.exponent.tolist(), out.mantissa.tolist()) == ([[-128]], [[0, 0], [0, 0]])


def test_exponents_may_not_differ_in_the_middle():
    x = QTensor(np.ones((2, 3, 2), int), np.array([[[0], [1], [2]]]), None)
    with pytest.raises(InputError, match=r"^t: exponents may differ along the first and last axis, got their shape \(1, 3"):
        Quantizer("t", "weight", Role.parse("fxp-s8/0"), STREAM)(x, TRAINING)


# Alignment --------------------------------------------------------------------------------------------------------------

ROWS = st.lists(st.tuples(st.integers(-128, 127), st.integers(-128, 127), st.integers(-40, 40)), min_size=2, max_size=4)


@given(ROWS, st.integers(8, 62))
def test_aligned_is_exact_or_to_nearest(rows, bits):
    mantissa = np.array([row[:2] for row in rows], np.int8)
    x = QTensor(mantissa, np.array([[row[2]] for row in rows]), BlockFloat(8, "row"))
    out = aligned(x, bits)
    assert out.exponent.size == 1
    exponent = int(out.exponent.flat[0])
    present = [row[2] for row in rows if any(row[:2])] or [0]
    if 8 + max(present) - min(present) <= bits:
        assert_array_equal(naive.value_of(out), naive.value_of(x))
        return
    assert exponent == max(present) + 8 - bits
    for word, value in zip(out.mantissa.ravel().tolist(), naive.value_of(x).ravel(), strict=True):
        assert (
            word
            == naive.into_word(naive.round_fraction(value / Fraction(2) ** exponent, "ties_even"), bits, True, "saturate")[0]
        )


def test_aligned_leaves_what_has_one_exponent():
    x = QTensor(np.ones((2, 3), np.int8), np.array([[-5]]), Fixed(8, 5))
    assert aligned(x, 8) is x
    assert aligned(x, 8, np.array([3])).exponent.tolist() == [[-2]]


# Sums of tensors --------------------------------------------------------------------------------------------------------


@given(ROWS, ROWS)
def test_sums_are_exact(first, second):
    length = min(len(first), len(second))
    tensors = [
        QTensor(np.array([row[:2] for row in rows[:length]], np.int8), np.array([[row[2]] for row in rows[:length]]), None)
        for rows in (first, second)
    ]
    # 8 bits 80 binary places apart do not fit into 62: then the smaller is cut, by less than a unit of the sum
    out, exact = add(*tensors), sum(naive.value_of(tensor) for tensor in tensors)
    apart = np.abs(tensors[0].exponent - tensors[1].exponent).max()
    error = naive.value_of(out) - exact
    if apart <= 50:
        assert not error.any()
    assert all(abs(e) < Fraction(2) ** int(x) for row, x in zip(error, out.exponents()[:, 0], strict=True) for e in row)


@pytest.mark.parametrize("factor", [1, -3, 2**30 - 1])
def test_factors_and_words_of_more_than_62_bits_together(factor):
    """The words are cut, and nothing leaves 64 bits."""
    values = np.array([[2**39 - 1, -(2**39), 12345]])
    stored = QTensor(values, np.array([[-32]]), Fixed(40, 32))
    small = QTensor(np.array([[1, 0, -1]], np.int8), np.array([[-40]]), Fixed(8, 40))
    out = combine([(1, small), (factor, stored)])
    exact = naive.value_of(small) + factor * naive.value_of(stored)
    bits = 39 + abs(factor).bit_length()
    bound = 0 if bits < 50 else Fraction(abs(factor) + 2) * Fraction(2) ** (bits - 62 - 32)
    assert all(abs(e) <= bound for e in (naive.value_of(out) - exact).ravel())


@pytest.mark.parametrize("rounding", ["ties_even", "stochastic", "pseudo_stochastic"])
@pytest.mark.parametrize("exponents", [(-3, -3), (-9, 2), (0, 20), (-20, 5)])
def test_a_residual_sum_at_once_is_that_of_bring(rounding, exponents):
    recipe = replace(RECIPES["int8"], activation=f"bfp-s8/tensor {rounding}", error=f"fxp-s8/2 {rounding}")
    made = []
    for small in (True, False):
        layer = Residual([Dense(4)])
        layer.build((4,), Build(recipe, 3, ("sum",)))
        random = np.random.default_rng(1)
        kind = np.int8 if small else np.int16  # the piece-by-piece path, by a longer type
        a, b = (
            QTensor(random.integers(-128, 128, (50, 4)).astype(kind), np.full((1, 1), one, np.int64), None) for one in exponents
        )
        step = Step(5, 7, True)
        made.append([layer._sum(a, b, role, step) for role in ("activation", "error")])
        made[-1].append([one.seen() for one in layer.quantizers.values()])
    for fast, plain in zip(made[0][:2], made[1][:2], strict=True):
        assert_array_equal(fast.mantissa, plain.mantissa, strict=True)
        assert_array_equal(fast.exponent, plain.exponent, strict=True)
    assert made[0][2] == made[1][2]
