"""SGD against Fractions, for every kind of format; NITI's update against a transcription; factors and schedules."""

from dataclasses import replace
from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from intnet.errors import InputError
from intnet.layers import Build, Parameter, Step
from intnet.optimizers import SGD, Factor, Schedule
from intnet.recipe import RECIPES, Recipe
from intnet.tensor import QTensor

SEED = 11


def parameter_of(recipe, shape=(4, 3), *, decays=True, scale=0.5):
    initial = np.random.default_rng(1).uniform(-scale, scale, shape)
    return Parameter(Build(recipe, 3, ("one",)), "weight", initial, decays=decays)


def gradient_of(seed, shape, exponent=-12, magnitude=2**14):
    sums = np.random.default_rng(seed).integers(-magnitude, magnitude, shape)
    sums.flat[0] = 0
    return QTensor(sums, np.full((1,) * len(shape), exponent), None)


# Against Fractions ------------------------------------------------------------------------------------------------------


class Reference:
    """The formulas of the module's docstring, in Fractions, rounded by tests/naive.py."""

    def __init__(self, parameter, momentum, decay, rounds_last=False):
        self.rounds_last = rounds_last  # SWALP: weights move by the momentum before it is rounded
        self.stored = naive.value_of(parameter.value if parameter.master is None else parameter.master)
        self.momentum, self.decay, self.velocity = momentum, decay if parameter.decays else 0, None
        self.parameter, self.lost = parameter, 0

    def round(self, role_name, values, step):
        """Round into a role's format with its own random bits; return what the result stands for."""
        quantizer = self.parameter.quantizers[role_name]
        role = quantizer.role
        words, exponents, *_ = naive.into_format(
            values, str(role.format), role.rounding.value, role.overflow.value,
            lambda i: naive.random_fraction(SEED, quantizer.stream, step, i, role.random_bits), role.random_bits,
        )  # fmt: skip
        units = np.array([Fraction(2) ** e for e in exponents], object)
        return words * units.reshape((-1,) + (1,) * (values.ndim - 1))

    def step(self, gradient, rate, batch, number):
        v = self.round("gradient", naive.value_of(gradient), number) + self.decay * batch * self.stored
        if self.momentum:
            exact = v + (0 if self.velocity is None else self.momentum * self.velocity)
            self.velocity = self.round("momentum", exact, number)
            v = exact if self.rounds_last else self.velocity
        before = self.stored
        role = "weight" if self.parameter.master is None else "master"
        self.stored = self.round(role, before - rate / batch * v, number)
        self.lost += int(((v != 0) & (self.stored == before)).sum())
        return self.stored if role == "weight" else self.round("weight", self.stored, number)


FORMATS = {
    "fixed": {"weight": "fxp-s16/12 stochastic", "gradient": "fxp-s16/6 stochastic random:16", "momentum": "fxp-s16/5"},
    "fixed, wrapping": {"weight": "fxp-s8/7 stochastic wrap", "gradient": "fxp-s8/3 to_zero", "momentum": "fxp-s8/2 ceil"},
    "fixed, master": {
        "weight": "fxp-s8/6 ties_even", "master": "fxp-s24/20 stochastic", "gradient": "fxp-s16/6", "momentum": "fxp-s16/5",
    },
    "tensor": {"weight": "bfp-s8/tensor stochastic", "gradient": "bfp-s8/tensor", "momentum": "bfp-s8/tensor stochastic"},
    "row": {"weight": "bfp-s8/row stochastic", "gradient": "bfp-s8/row stochastic", "momentum": "bfp-s12/row ties_away"},
    "block, fixed master": {
        "weight": "bfp-s8/row", "master": "fxp-s16/14 stochastic", "gradient": "bfp-s8/tensor", "momentum": "fxp-s16/6 floor",
    },
    "fixed, block master": {
        "weight": "fxp-s8/6", "master": "bfp-s16/row", "gradient": "fxp-s12/4", "momentum": "bfp-s16/tensor stochastic",
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", [(4, 3), (5,), (2, 2, 1, 3)])
@pytest.mark.parametrize(
    ("rate", "momentum", "decay", "batch"),
    [("2^-3", 0, 0, 4), (0.3, 0, 0, 5), ("2^-2", "0.9", 0, 64), (0.1, 0.5, "2^-7", 6), ("2^-4", 0, "0.003", 8)],
)
def test_three_steps_equal_fractions(form, shape, rate, momentum, decay, batch):
    recipe = Recipe("test", activation="fxp-s8/4", error="fxp-s8/4", **FORMATS[form])
    parameter, sgd, rate = parameter_of(recipe, shape), SGD(rate, momentum, decay), Factor.of(rate)
    ref = Reference(parameter, sgd.momentum.exact, sgd.decay.times(batch).exact / batch)
    exact_rate = rate.times(Fraction(1, batch)).exact * batch  # r / B is a factor of 15 bits
    for number in range(3):
        parameter.gradient = gradient_of(number, shape)
        sgd.update(parameter, rate, batch, Step(number, SEED, True))
        expected = ref.step(parameter.gradient, exact_rate, batch, number)
        assert_array_equal(naive.value_of(parameter.value), expected)
        if parameter.master is not None:
            assert_array_equal(naive.value_of(parameter.master), ref.stored)
        if momentum:
            assert_array_equal(naive.value_of(parameter.momentum), ref.velocity)
    stored = parameter.quantizers["weight" if parameter.master is None else "master"]
    assert stored.seen().lost == ref.lost
    assert stored.seen().count == 3 * parameter.size
    assert str(parameter.value.format) == str(recipe.weight.for_axes(len(shape)).format)


def test_lost_updates_are_counted():
    """Updates of a third of a unit: to nearest all are lost, stochastically two of three."""
    for rounding, least, most in (("ties_even", 3000, 3000), ("stochastic", 1900, 2100)):  # 2000 +- 26; 4 deviations
        recipe = Recipe("t", weight=f"fxp-s16/10 {rounding}", activation="fxp-s8/4", error="fxp-s8/4", gradient="fxp-s16/0")
        parameter = parameter_of(recipe, (3000,))
        parameter.gradient = QTensor(np.ones(3000, np.int32), np.array([0]), None)
        SGD(1).update(parameter, Factor.of(Fraction(1, 3 * 1024)), 1, Step(0, SEED, True))
        assert least <= parameter.quantizers["weight"].seen().lost <= most
        parameter.gradient = QTensor(np.zeros(3000, np.int32), np.array([0]), None)
        SGD(1).update(parameter, Factor.of(1), 1, Step(1, SEED, True))
        assert parameter.quantizers["weight"].seen().lost <= most  # what does not move is not lost


def test_decay_acts_on_weights_alone():
    recipe = RECIPES["wide"]
    for decays in (True, False):
        parameter = parameter_of(recipe, (5,), decays=decays)
        before = parameter.master.to_float()
        parameter.gradient = QTensor(np.zeros(5, np.int64), np.array([0]), None)
        SGD(0.5, decay=0.25).update(parameter, Factor.of(0.5), 32, Step(0, 0, True))
        assert parameter.master.to_float() == pytest.approx(before * (0.875 if decays else 1), abs=1e-9)


def test_a_wide_master_copy_with_factors_of_15_bits():
    """40 + 15 + 15 bits do not fit into 64: nothing may wrap."""
    parameter = parameter_of(RECIPES["wide"], (6,), scale=120)
    before = parameter.master.to_float()
    parameter.gradient = QTensor(np.zeros(6, np.int64), np.array([-30]), None)
    SGD(0.1, decay=0.03).update(parameter, Factor.of(0.1), 48, Step(0, 0, True))
    assert parameter.master.to_float() == pytest.approx(before * (1 - 0.1 * 0.03), rel=1e-6)


def test_an_update_needs_a_gradient():
    with pytest.raises(InputError, match=r"^one\.weight has no gradient; run the backward pass first$"):
        SGD(1).update(parameter_of(RECIPES["fixed16"]), Factor.of(1), 1, Step(0, 0, True))


# NITI -------------------------------------------------------------------------------------------------------------------


def niti_update(weights, gradient, bits):
    """Transcribe the fact sheet's update: range, pseudo-stochastic shift and clip, difference and clip."""
    largest = max(abs(g) for g in gradient)
    have = (largest - 1).bit_length() if largest else 0  # ceil(log2(largest))
    shift = have - bits
    moves = [naive.pseudo_stochastic(g, shift) if shift > 0 else g for g in gradient]
    moves = [max(-127, min(127, move)) for move in moves]
    return [max(-127, min(127, w - move)) for w, move in zip(weights, moves, strict=True)], moves


@pytest.mark.parametrize("bits", [-3, 0, 1, 3, 5, 8])
@pytest.mark.parametrize("magnitude", [0, 1, 2, 3, 16, 128, 129, 5000, 2**30])
def test_niti_update_equals_its_transcription(bits, magnitude):
    parameter = parameter_of(RECIPES["niti8"], (6, 5))
    rng = np.random.default_rng(magnitude + bits + 8)
    weights = rng.integers(-127, 128, (6, 5)).astype(np.int8)
    weights[0] = [127, -127, 126, -126, 0]
    sums = rng.integers(-magnitude, magnitude + 1, (6, 5)).astype(np.int32)
    sums[0] = [-magnitude, magnitude, -magnitude, magnitude, 0]
    parameter.value = QTensor(weights, parameter.value.exponent, parameter.value.format)
    parameter.gradient = QTensor(sums, np.array([[-123]]), None)
    sgd = SGD(f"2^{bits}")
    sgd.check(RECIPES["niti8"])
    sgd.update(parameter, sgd.schedule.at(0, 1), 64, Step(0, SEED, True))
    expected, moves = niti_update(weights.ravel().tolist(), sums.ravel().tolist(), bits)
    assert parameter.value.mantissa.ravel().tolist() == expected
    assert parameter.value.mantissa.dtype == np.int8
    seen = parameter.quantizers["weight"].seen()
    same = [move != 0 and old == new for move, old, new in zip(moves, weights.ravel().tolist(), expected, strict=True)]
    assert (seen.lost, seen.count) == (sum(same), 30)
    assert parameter.quantizers["gradient"].seen().maximum == max(moves)


def test_a_normalized_update_of_a_master_copy():
    """WAGE's: the copy of 8 bits moves by whole units, the weight is its two leading bits."""
    recipe = Recipe(
        "wage", weight="fxp-s2/1 ties_even saturate_symmetric", master="fxp-s8/8 ties_even saturate_symmetric",
        activation="fxp-s8/7", error="bfp-s8/tensor", gradient="fxp-s8/0 stochastic saturate_symmetric", update="normalized",
    )  # fmt: skip
    parameter, sgd = parameter_of(recipe, (6, 5), scale=0.4), SGD("2^3")
    before, sums = parameter.master.mantissa.astype(int), gradient_of(1, (6, 5), magnitude=2**14).mantissa
    sums[0, 1] = 2**14
    parameter.gradient = QTensor(sums, np.array([[-3]]), None)
    sgd.update(parameter, sgd.schedule.at(0, 1), 64, Step(0, SEED, True))
    stream = parameter.quantizers["gradient"].stream
    for i, (old, new, g) in enumerate(zip(before.flat, parameter.master.mantissa.flat, sums.flat, strict=True)):
        move = naive.round_fraction(Fraction(int(g), 2**11), "stochastic", naive.random_fraction(SEED, stream, 0, i, 32), 32)
        assert new == max(-127, min(127, int(old) - move))
    words, *_ = naive.into_format(naive.value_of(parameter.master), "fxp-s2/1", overflow="saturate_symmetric")
    assert_array_equal(parameter.value.mantissa.astype(object), words)
    assert parameter.quantizers["master"].seen().count == 30


def test_niti_exponents_never_move():
    parameter = parameter_of(RECIPES["niti8"], (6, 5))
    before = parameter.value.exponent.copy()
    for number in range(3):
        parameter.gradient = gradient_of(number, (6, 5))
        SGD("2^5").update(parameter, Factor.of("2^5"), 64, Step(number, SEED, True))
    assert_array_equal(parameter.value.exponent, before)


# What a recipe has no room for ------------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused():
    no_momentum = Recipe("plain", weight="fxp-s8/6", activation="fxp-s8/4", error="fxp-s8/4", gradient="fxp-s8/4")
    with pytest.raises(InputError, match=r"^recipe 'plain' has no momentum role; train without momentum, or give it one$"):
        SGD(1, momentum=0.9).check(no_momentum)
    SGD(1).check(no_momentum)
    for sgd in (SGD("0.3"), SGD(Schedule("2^5", "linear")), SGD(Schedule("2^5", "step", {3: 3}))):
        with pytest.raises(InputError, match=r"^recipe 'niti8' has normalized updates: its rate is a power of two, constant"):
            sgd.check(RECIPES["niti8"])
    both = replace(RECIPES["niti8"], momentum="bfp-s8/tensor")
    for sgd in (SGD("2^3", decay="2^-9"), SGD("2^3", momentum=0.5)):
        with pytest.raises(InputError, match=r"^recipe 'niti8' has normalized updates, which have no momentum and no weight d"):
            sgd.check(both)
    SGD(Schedule("2^5", "step", {3: "2^4", 6: 0.5})).check(RECIPES["niti8"])
    nearest = replace(RECIPES["niti8"], gradient="bfp-s8/tensor ties_even")
    with pytest.raises(InputError, match=r"^recipe 'niti8' has normalized updates of less than a unit, which rounding to t"):
        SGD(Schedule("2^5", "step", {3: 0.5})).check(nearest)
    for momentum in (1, "1.5"):
        with pytest.raises(InputError, match=r"^momentum must be less than 1, got"):
            SGD(1, momentum=momentum)


# Factors and schedules --------------------------------------------------------------------------------------------------


@given(st.fractions(min_value=Fraction(1, 2**40), max_value=2**40, max_denominator=2**60))
def test_a_factor_is_the_nearest_of_15_bits(value):
    if value < Fraction(1, 2**48):
        return
    factor = Factor.of(value)
    assert abs(factor.exact - value) <= value / 2**15
    assert factor.mantissa % 2 == 1
    assert Factor.of(factor.exact) == Factor.of(str(factor.exact)) == Factor.of(factor) == factor


@pytest.mark.parametrize(
    ("value", "mantissa", "shift"),
    [("2^-9", 1, 9), ("2**3", 1, -3), (0, 0, 0), (0.75, 3, 2), ("3/128", 3, 7), (1, 1, 0), (6, 3, -1)],
)
def test_factors_by_name(value, mantissa, shift):
    factor = Factor.of(value)
    assert (factor.mantissa, factor.shift) == (mantissa, shift)
    assert factor.is_power_of_two == (mantissa == 1)


@pytest.mark.parametrize("value", ["two", None, -1, "-2^3", float("nan"), float("inf"), "1/0", 2**62, "2^-49", [], "2^-9999"])
def test_what_is_no_factor(value):
    with pytest.raises(InputError, match=r"^a factor "):
        Factor.of(value)


def test_schedules():
    assert [Schedule("2^-1", "constant").at(epoch, 3).exact for epoch in range(3)] == [Fraction(1, 2)] * 3
    linear = [Schedule(1, "linear").at(epoch, 5).exact for epoch in range(5)]
    assert [float(rate) for rate in linear] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2], rel=2**-15)
    step = Schedule.parse("step: 2=2^-2, 4=0.125", "2^-1")
    assert [float(step.at(epoch, 6)) for epoch in range(6)] == [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert Schedule.parse(str(step), step.rate) == step
    for text in ("cosine", "step:x=1", "step:3", "step:1=", "step:-1=2"):
        with pytest.raises(InputError, match=r"schedule|factor"):
            Schedule.parse(text, 1)
    with pytest.raises(InputError, match=r"^steps belong to a step schedule, got 'linear'$"):
        Schedule(1, "linear", {2: 1})
    assert SGD(step, "0.9", "2^-10").describe() == {
        "optimizer": "sgd", "rate": "2^-1", "schedule": "step:2=2^-2,4=2^-3", "momentum": "0.899994", "decay": "2^-10",
    }  # fmt: skip


# What cannot be a factor or a schedule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["1e99999999", "-1", "2^9999999999999", "1e-99999999", "nan", "inf", "x", True, None, "1/0", b"1"]
)
def test_factors_are_refused_in_one_line(value):
    with pytest.raises(InputError) as caught:
        Factor.of(value)
    assert "\n" not in str(caught.value)


def test_factors_of_numpy_numbers():
    assert Factor.of(np.int64(1)) == Factor.of(np.float32(1)) == Factor.of(np.float64(1)) == Factor.of("1") == Factor(1, 0)


@pytest.mark.parametrize("steps", [((1, "2^-4"), (1, "2^-5")), {"a": "1"}, {-1: "1"}, {1.7: "1"}, 5, {True: "1"}])
def test_schedules_are_refused_in_one_line(steps):
    with pytest.raises(InputError) as caught:
        Schedule("2^-3", "step", steps)
    assert "\n" not in str(caught.value)


def test_rates_that_cannot_be_written_are_refused_before_training():
    SGD(Schedule("2^-42", "linear")).check(RECIPES["fixed16"], 20, 1)
    with pytest.raises(InputError, match=r"^rate 2\^-42 \(linear\) divided by a batch of 64 leaves .* in epoch 2 of 20"):
        SGD(Schedule("2^-42", "linear")).check(RECIPES["fixed16"], 20, 2**6)
    with pytest.raises(InputError, match="above 0"):
        SGD(0)
