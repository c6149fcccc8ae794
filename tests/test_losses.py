"""Losses as layers use them: exact, or within the kernel's bound, then rounded once into the error's format."""

from fractions import Fraction

import float_reference
import naive
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.errors import InputError
from intnet.formats import BlockFloat
from intnet.layers import Build, Step
from intnet.losses import make_loss
from intnet.recipe import RECIPES, Recipe
from intnet.tensor import QTensor

TRAINING = Step(3, 8, True)
LABELS = np.array([1, 0, 3])


def built(name, error="bfp-s24/tensor"):
    loss = make_loss(name)
    loss.build(
        Build(Recipe("test", weight="fxp-s8/6", activation="fxp-s8/6", error=error, gradient=error, accumulator_bits=64), 0)
    )
    return loss


def logits(exponent=-4):
    mantissa = np.array([[100, 60, 20, -30], [-5, -5, -5, -5], [-128, 127, 0, 1]], np.int8)
    return QTensor(mantissa, np.reshape(exponent, (-1, 1)), BlockFloat(8, "row") if np.size(exponent) > 1 else BlockFloat(8))


@pytest.mark.parametrize("exponent", [-4, [-9, 3, -6]])
@pytest.mark.parametrize("error", ["fxp-s16/13", "fxp-s24/22", "bfp-s16/tensor", "bfp-s16/row"])
def test_cross_entropy(error, exponent):
    y, loss = logits(exponent), built("cross_entropy", error)
    gradient = loss.gradient(y, LABELS, TRAINING)
    unit = 2.0 ** gradient.exponents()
    ref, value = float_reference.cross_entropy(y.to_float(), LABELS)
    assert (np.abs(gradient.to_float() - ref) <= 0.51 * unit + 2.0**-25).all()
    assert loss.value(y.to_float(), LABELS) == pytest.approx(value)
    assert str(gradient.format) == error
    assert loss.unit == "nats"


@pytest.mark.parametrize("exponent", [-4, 0, 7, -100, -128, [-9, 3, -128], [30, -60, 0]])
@pytest.mark.parametrize("error", ["bfp-s24/tensor", "fxp-s24/12"])
def test_squared_error_whatever_the_exponents(error, exponent):
    y, loss = logits(exponent), built("squared_error", error)
    gradient = loss.gradient(y, LABELS, TRAINING)
    exact = naive.value_of(y)
    exact[np.arange(3), LABELS] -= 1
    words, exponents, *_ = naive.into_format(exact, error)
    assert_array_equal(gradient.mantissa.astype(object), words)
    assert gradient.exponent.ravel().tolist() == exponents
    difference, value = float_reference.squared_error(y.to_float(), LABELS)
    assert loss.value(y.to_float(), LABELS) == pytest.approx(value)
    assert gradient.to_float() == pytest.approx(difference, rel=0.01) or error.startswith("fxp") or np.size(exponent) > 1


@pytest.mark.parametrize("exponent", [-128, [-128, -128, -128]])
def test_squared_error_of_outputs_that_are_zero(exponent):
    """A network that says nothing is told what to say: the target is not lost below the exponent of zeros."""
    y = logits(exponent)
    y = QTensor(y.mantissa * 0, y.exponent, y.format)
    assert_array_equal(built("squared_error").gradient(y, LABELS, TRAINING).to_float(), -float_reference.onehot(LABELS, 4))


def test_squared_error_refuses_what_has_diverged():
    with pytest.raises(InputError, match=r"^outputs count in units of 2\*\*40: training has diverged; use a smaller rate$"):
        built("squared_error").gradient(logits([0, 40, 0]), LABELS, TRAINING)


@pytest.mark.parametrize(("exponent", "worked"), [(-4, [1923, -1928, 5, 0]), (-8, [639, -1497, 471, 387])])
def test_niti_worked_values(exponent, worked):
    """The fact sheet's, shifted stochastically by 4 into words of 8 bits, +-127."""
    loss = built("niti_cross_entropy", "bfp-s8/tensor")
    gradient = loss.gradient(QTensor(logits().mantissa[:1], np.array([[exponent]]), BlockFloat(8)), LABELS[:1], TRAINING)
    fractions = [naive.random_fraction(8, loss.quantizer.stream, 3, i, 32) for i in range(4)]
    rounded = [naive.round_fraction(Fraction(g, 16), "stochastic", r, 32) for g, r in zip(worked, fractions, strict=True)]
    assert gradient.mantissa.tolist() == [[max(-127, min(127, g)) for g in rounded]]
    assert str(gradient.format) == "fxp-s8/7"
    assert naive.niti_gradient([100, 60, 20, -30], exponent, 1) == worked


def test_niti_recipe_uses_it():
    assert RECIPES["niti8"].loss == "niti_cross_entropy"
    wide = [built("niti_cross_entropy").gradient(logits(e), LABELS, TRAINING).to_float() for e in (-5, [-5, -5, -5])]
    assert_array_equal(*wide)


@pytest.mark.parametrize("name", ["cross_entropy", "niti_cross_entropy", "squared_error"])
def test_labels_that_are_no_classes_are_refused(name):
    loss, y = built(name), logits()
    for labels, message in (
        (np.array([0, 4, 1]), r"labels must be in 0\.\.3, got 0 to 4"),
        (np.array([0, -1, 1]), r"labels must be in 0\.\.3, got -1 to 1"),
        (np.array([0, 1]), r"a loss takes outputs \(n, classes\) and int64 labels \(n,\), got \(3, 4\) and int64 \(2,\)"),
        (np.array([0.0, 1, 2]), r"got \(3, 4\) and float64 \(3,\)"),
    ):
        with pytest.raises(InputError, match=message):
            loss.gradient(y, labels, TRAINING)


def test_unknown_losses_are_refused():
    with pytest.raises(InputError, match=r"^loss 'hinge' is unknown; choose one of cross_entropy, niti_cross_entropy, sq"):
        make_loss("hinge")


def test_errors_are_counted():
    loss = built("squared_error", "fxp-s8/7")
    loss.gradient(logits(), LABELS, TRAINING)
    seen = loss.quantizer.seen()
    assert (seen.tensor, seen.role, seen.count, seen.fraction_bits) == ("loss", "error", 12, 7)
    assert seen.saturated == np.sum(np.abs(float_reference.squared_error(logits().to_float(), LABELS)[0]) >= 1)
