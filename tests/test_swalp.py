"""SWALP: its steps against Fractions, its schedule against the sheet of the released code, its averages against exact means."""

from dataclasses import replace
from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_optimizers import FORMATS, SEED, Reference, gradient_of, parameter_of

from intnet import checkpoint, datasets, models
from intnet.errors import InputError
from intnet.inputs import Encoder, Inputs
from intnet.layers import Step
from intnet.network import Network
from intnet.optimizers import SGD, SWALP, Average, ExactSum, Factor, Schedule, SWALPSchedule
from intnet.recipe import RECIPES, Recipe
from intnet.tensor import QTensor
from intnet.training import Trainer, evaluate, pool_statistics

SCHEDULE = SWALPSchedule("2^-3", start=2, averaging_rate="2^-4")


def tensor_of(values, exponents, word_bits=8):
    kind = np.int8 if word_bits == 8 else np.int32
    values = np.array(values, kind)
    return QTensor(values, np.array(exponents).reshape((-1,) + (1,) * (values.ndim - 1)), None)


# Steps ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", [(4, 3), (5,)])
@pytest.mark.parametrize(
    ("rate", "momentum", "decay", "batch"), [("2^-2", "0.9", 0, 64), (0.1, 0.5, "2^-7", 6), (0.3, 0, 0.01, 5)]
)
def test_steps_equal_fractions(form, shape, rate, momentum, decay, batch):
    """The momentum that moves the weights is exact, the stored one rounded: as in the released code."""
    recipe, rate = Recipe("test", activation="fxp-s8/4", error="fxp-s8/4", **FORMATS[form]), Factor.of(rate)
    parameter = parameter_of(recipe, shape)
    swalp = SWALP(SCHEDULE, momentum, decay)
    ref = Reference(parameter, swalp.momentum.exact, swalp.decay.times(batch).exact / batch, rounds_last=True)
    exact_rate = rate.times(Fraction(1, batch)).exact * batch
    for number in range(3):
        parameter.gradient = gradient_of(number, shape)
        swalp.update_all([parameter], rate, batch, Step(number, SEED, True))
        assert_array_equal(naive.value_of(parameter.value), ref.step(parameter.gradient, exact_rate, batch, number))
        if momentum:
            assert_array_equal(naive.value_of(parameter.momentum), ref.velocity)


@pytest.mark.parametrize("form", ["row", "tensor", "block, fixed master"])
@pytest.mark.parametrize("decay", [0, "2^-7"])
def test_rows_of_zeros_move_no_other(form, decay):
    """A row of a gradient or a momentum that is zero comes with the least exponent there is; every row stays exact."""
    recipe = Recipe("test", activation="fxp-s8/4", error="fxp-s8/4", **FORMATS[form])
    parameter, rate = parameter_of(recipe, (4, 3)), Factor.of("0.05")
    swalp = SWALP(SCHEDULE, "0.9", decay)
    ref = Reference(parameter, swalp.momentum.exact, swalp.decay.times(32).exact / 32, rounds_last=True)
    exact_rate = rate.times(Fraction(1, 32)).exact * 32
    for number in range(12):
        sums = gradient_of(number, (4, 3)).mantissa
        sums[number % 4] = 0  # of one row now, of another later
        sums[(number % 3,)] *= number % 5 > 0
        sums[:] *= number != 5
        parameter.gradient = QTensor(sums, np.array([[-12]]), None)
        swalp.update_all([parameter], rate, 32, Step(number, SEED, True))
        assert_array_equal(naive.value_of(parameter.value), ref.step(parameter.gradient, exact_rate, 32, number))
        assert_array_equal(naive.value_of(parameter.momentum), ref.velocity)


def test_an_update_prepared_by_sgd_is_not_that_of_swalp():
    factors = Factor.of("0.9"), Factor.of("2^-7")
    recipe, rate = Recipe("test", activation="fxp-s8/4", error="fxp-s8/4", **FORMATS["fixed"]), Factor.of(0.1)
    one, other = parameter_of(recipe), parameter_of(recipe)
    for number in range(4):
        optimizer = (SGD(Schedule(rate), *factors), SWALP(SCHEDULE, *factors))[number > 1]
        for parameter in (one, other):
            parameter.gradient = gradient_of(number, (4, 3))
        optimizer.update_all([one], rate, 6, Step(number, SEED, True))
        other.prepared = None
        optimizer.update_all([other], rate, 6, Step(number, SEED, True))
    assert_array_equal(one.value.mantissa, other.value.mantissa)


# The schedule -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "start", "rate", "averaging"), [(300, 200, 0.05, 0.01), (225, 150, 0.1, 0.01), (10, 7, 1, 0.5)]
)
def test_the_schedule_is_that_of_the_released_code(epochs, start, rate, averaging):
    schedule = SWALPSchedule(rate, start=start, averaging_rate=averaging)
    for epoch in range(epochs):
        r = epoch / start
        factor = 1 if r <= 0.5 else 1 - 0.99 * (r - 0.5) / 0.4 if r <= 0.9 else 0.01
        expected = averaging if r >= 1 else rate * factor
        assert float(schedule.at(epoch, epochs)) == pytest.approx(expected, rel=2**-14)


def test_a_schedule_is_named_in_results():
    schedule = SWALPSchedule(0.05, start=200, averaging_rate=0.01)
    described = SWALP(schedule, every=16, unit="step", average_bits=9, seed=4).describe()
    assert described["schedule"] == "swalp:200=0.0100002"
    assert described["average"] == "in 9 bits, rounding seed 4, every 16 steps from the end of epoch 200"


# Averages ---------------------------------------------------------------------------------------------------------------


WORDS, EXPONENTS = st.integers(-128, 127), st.integers(-12, 12)
MOMENT = st.tuples(st.lists(WORDS, min_size=6, max_size=6), st.lists(EXPONENTS, min_size=3, max_size=3))


@given(st.lists(MOMENT, min_size=1, max_size=9))
def test_an_exact_sum_is_the_exact_rational_mean(moments):
    """Whatever the exponents of the rows are, and however they change."""
    total, exact = None, [Fraction(0)] * 6
    for values, exponents in moments:
        tensor = tensor_of(np.reshape(values, (3, 2)), exponents)
        total = (ExactSum.nothing("w", tensor) if total is None else total).plus(tensor)
        exact = [before + Fraction(2) ** exponents[i // 2] * values[i] for i, before in enumerate(exact)]
    assert total.fractions(len(moments)) == [sum_ / len(moments) for sum_ in exact]


@pytest.mark.parametrize("recipe", ["fixed16", "bfp8", "bfp8-big", "bfp8-mixed", "int8", "wide"])
def test_averages_of_a_training_are_exact_and_are_rounded_once(recipe):
    """Every moment is kept aside and averaged in Fractions; the average in any format is that mean, rounded to nearest even."""
    network = Network(models.mlp(hidden=(7,)), (8, 8, 1), recipe)
    data = datasets.load("digits", subset="train")
    optimizer, seen = SWALP(SCHEDULE, unit="step", every=3), []
    take = optimizer.average.add
    optimizer.average.add = lambda parameters: (
        seen.append([naive.value_of(one.value) for one in parameters]),
        take(parameters),
    )
    trainer = Trainer(network, optimizer, Inputs.of(data, Encoder.of(data, network.recipe)), epochs=3, batch=64)
    trainer.run()
    steps = trainer.steps_per_epoch
    assert optimizer.average.count == len(seen) == steps // 3 + 1  # from the end of epoch 2 on
    wide, small = (Network(models.mlp(hidden=(7,)), (8, 8, 1), name) for name in ("wide", "bfp8"))
    for target in (wide, small):
        optimizer.average.write(target.parameters)
        for index, parameter in enumerate(target.parameters):
            mean = sum(moment[index] for moment in seen) / len(seen)
            kept = optimizer.average.sums[parameter.name].fractions(len(seen))
            assert kept == mean.reshape(-1).tolist()
            stored = parameter.stored
            words, exponents, *_ = naive.into_format(mean, str(stored.format), "ties_even", "saturate")
            units = np.array([Fraction(2) ** e for e in exponents], object)
            assert_array_equal(naive.value_of(stored), words * units.reshape((-1,) + (1,) * (mean.ndim - 1)))


def test_averaging_changes_nothing_of_the_training():
    data = datasets.load("digits", subset="train")
    digests = set()
    for options in ({}, {"unit": "step"}, {"average_bits": 8}, {"unit": "step", "average_bits": 12}):
        network = Network(models.mlp(hidden=(7,)), (8, 8, 1), "bfp8-mixed")
        Trainer(network, SWALP(SCHEDULE, **options), Inputs.of(data, Encoder.of(data, network.recipe)), epochs=3).run()
        digests.add(network.digest())
    assert len(digests) == 1


@pytest.mark.parametrize("bits", [8, 9, 16])
def test_a_running_average_of_few_bits(bits):
    """Each moment it moves to within a unit of ``average + (w - average) / n``, exactly rounded with bits of its own."""
    recipe = RECIPES["bfp8"]
    parameter, average, rng = parameter_of(recipe, (4, 3)), Average(bits, 5), np.random.default_rng(bits)
    expected = None
    for n in range(1, 9):
        parameter.value = QTensor(
            rng.integers(-128, 128, (4, 3)).astype(np.int8), rng.integers(-9, -5, (4, 1)), recipe.weight.format
        )
        value = naive.value_of(parameter.value)
        exact = value if expected is None else expected + (value - expected) / n
        average.add([parameter])
        made = average.running[parameter.name]
        assert (str(made.format), made.mantissa.dtype) == (f"bfp-s{bits}/row", np.int8 if bits == 8 else np.int16)
        expected = naive.value_of(made)
        unit = np.array([Fraction(2) ** int(e) for e in made.exponent.reshape(-1)], object).reshape(-1, 1)
        assert (abs(expected - exact) < unit).all() or (abs(made.mantissa) >= made.format.maximum).any()
    assert average.mean(parameter) is made


def test_a_running_average_is_right_in_the_mean():
    """Of 4,000 roundings of one third of a unit: 1333 +- 30 go up; 6 deviations, a false alarm in 5e8."""
    recipe = RECIPES["bfp8"]
    parameter, average = parameter_of(recipe, (1, 4001)), Average(8)
    start = np.zeros((1, 4001), np.int8)
    start[0, 0] = 126
    for add in (0, 0, 1):
        moment = start + np.int8(add)
        moment[0, 0] = 126
        parameter.value = QTensor(moment, np.array([[-7]]), recipe.weight.format)
        average.add([parameter])
    assert abs(int(average.running[parameter.name].mantissa[0, 1:].sum()) - 4000 / 3) <= 180


# Training ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"unit": "step", "every": 5}, {"average_bits": 9}], ids=["epoch", "step", "9 bits"])
def test_a_resumed_training_has_the_same_average(options, tmp_path):
    data = datasets.load("digits", subset="train")

    def make():
        network = Network(models.mlp(hidden=(7,)), (8, 8, 1), "bfp8-mixed")
        return Trainer(network, SWALP(SCHEDULE, **options), Inputs.of(data, Encoder.of(data, network.recipe)), epochs=4)

    straight = make()
    straight.run()
    for stop in (1, 2, 3):  # before, at and after the beginning of the average
        first, second = make(), make()
        for _ in range(stop):
            first.run_epoch()
        checkpoint.save(tmp_path / "c.npz", first, notes={"rows": [1, 2]})
        stored = checkpoint.load(tmp_path / "c.npz")
        assert stored.notes == {"rows": [1, 2]}
        checkpoint.restore(second, stored)
        second.run()
        assert second.network.digest() == straight.network.digest()
        for name, array in straight.optimizer.state().items():
            assert_array_equal(second.optimizer.state()[name], array, strict=True)


def test_states_of_others_are_refused(tmp_path):
    data = datasets.load("digits", subset="train")

    def make(optimizer, hidden=7):
        network = Network(models.mlp(hidden=(hidden,)), (8, 8, 1), "bfp8-mixed")
        return Trainer(network, optimizer, Inputs.of(data, Encoder.of(data, network.recipe)), epochs=2)

    trainer = make(SWALP(SCHEDULE))
    trainer.run()
    state, parameters = trainer.optimizer.state(), trainer.network.parameters
    with pytest.raises(InputError, match="belongs to no optimizer of this kind"):
        SGD("2^-3").load_state(state, parameters)
    with pytest.raises(InputError, match="there is no average/count"):
        SWALP(SCHEDULE).load_state({}, parameters)
    with pytest.raises(InputError, match="average of another network"):
        SWALP(SCHEDULE).load_state(state, make(SWALP(SCHEDULE), 8).network.parameters)
    with pytest.raises(InputError, match="leaves its format"):
        SWALP(SCHEDULE, average_bits=9).load_state(state, parameters)
    with pytest.raises(InputError, match="belongs to no parameter"):
        SWALP(SCHEDULE).load_state(state | {"average/other/mantissa": state["average/count"]}, parameters)
    checkpoint.save(tmp_path / "c.npz", trainer)
    stored = checkpoint.load(tmp_path / "c.npz")
    other = make(SWALP(SCHEDULE))
    digest = other.network.digest()
    with pytest.raises(InputError, match="there is no average/count"):
        checkpoint.restore(other, replace(stored, optimizer={}))
    assert other.network.digest() == digest


def test_an_averaged_network_with_batch_normalization():
    """Written into wide words, its statistics are those of the batches it is shown, by rows, whatever it had before."""
    data = datasets.load("digits", subset="train")

    def make(recipe):
        network = Network(models.preresnet164(width=0.25, depth=8), (8, 8, 1), recipe)
        return network, Inputs.of(data, Encoder.of(data, network.recipe))

    network, inputs = make("bfp8-mixed")
    optimizer = SWALP(SCHEDULE, unit="step", every=4)
    Trainer(network, optimizer, inputs, epochs=3, batch=128).run()
    accuracies = []
    for again in range(2):
        wide, wide_inputs = make("wide")
        optimizer.average.write(wide.parameters)
        if again:
            wide.forward(wide_inputs.batch(np.arange(9)), Step(0, 1, True))
        before = evaluate(wide, wide_inputs).accuracy
        pool_statistics(wide, wide_inputs, batch=300)
        accuracies.append(evaluate(wide, wide_inputs).accuracy)
        assert accuracies[-1] > before
    assert accuracies[0] == accuracies[1]
    for bad in (0, True, 2.0):
        with pytest.raises(InputError, match="batch must be an integer of at least 1"):
            pool_statistics(wide, wide_inputs, batch=bad)


# What cannot work -------------------------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused():
    recipe = RECIPES["bfp8"]
    with pytest.raises(InputError, match="averaging starts at the end of epoch 5 and the training ends after 4"):
        SWALP(SWALPSchedule(1, start=5, averaging_rate=1)).check(recipe, 4)
    SWALP(SWALPSchedule(1, start=4, averaging_rate=1)).check(recipe, 4)  # one moment: the last weights themselves
    with pytest.raises(InputError, match="normalized updates; SWALP takes plain ones"):
        SWALP(SWALPSchedule(1, start=1, averaging_rate=1), 0).check(replace(RECIPES["niti8"], biases=False), 4)
    for options, message in (
        ({"every": 0}, "every 1 or more epochs"),
        ({"unit": "batch"}, "unit of averaging is one of epoch, step"),
        ({"average_bits": 7}, "8 to 16 bits"),
        ({"average_bits": 17}, "8 to 16 bits"),
    ):
        with pytest.raises(InputError, match=message):
            SWALP(SCHEDULE, **options)
    with pytest.raises(InputError, match="takes a SWALPSchedule"):
        SWALP(Schedule("2^-3"))
    for seed in ("x", 1.5, None, True, -1, 2**64):
        with pytest.raises(InputError, match=r"seed of an average must be an integer in 0\.\.2\*\*64 - 1"):
            SWALP(SCHEDULE, seed=seed)
    used = SWALP(SCHEDULE)
    used.average.add([parameter_of(recipe)])
    with pytest.raises(InputError, match="has averaged 1 moments of another training"):
        used.check(recipe, 4)
    assert SWALPSchedule.parse("swalp:2=2^-4", "2^-3") == SCHEDULE
    for text in ("swalp", "swalp:2", "swalp:=1", "linear", "swalp:x=1"):
        with pytest.raises(InputError, match=r"written as 'swalp:200=0\.01'"):
            SWALPSchedule.parse(text, 1)
    for arguments, message in (
        ({"start": 0, "averaging_rate": 1}, "after an epoch of 1 or more, got 0"),
        ({"start": 1, "averaging_rate": 0}, "averaging_rate must be above 0"),
    ):
        with pytest.raises(InputError, match=message):
            SWALPSchedule(1, **arguments)


def test_an_average_that_would_overflow_is_refused_before_training():
    long = Recipe(
        "long", weight="fxp-s50/40", activation="fxp-s8/4", error="fxp-s8/4", gradient="fxp-s16/8", accumulator_bits=64
    )
    swalp = SWALP(SWALPSchedule(1, start=1, averaging_rate=1), 0, unit="step")
    swalp.check(long, 2, 1, 2**12)
    with pytest.raises(InputError, match="16385 weights of 50 bits add up to 64 magnitude bits, and sums have 62"):
        swalp.check(long, 2, 1, 2**14)
    SWALP(SWALPSchedule(1, start=1, averaging_rate=1), 0, unit="step", average_bits=16).check(long, 2, 1, 2**14)


def test_an_average_whose_exponents_drift_apart_is_refused_and_kept():
    recipe = RECIPES["bfp8"]
    parameter, average = parameter_of(recipe, (2, 2)), Average()

    def moment(values, exponents):
        parameter.value = QTensor(np.array(values, np.int8), np.array(exponents).reshape(2, 1), recipe.weight.format)
        return average.add([parameter])

    moment([[100, -100], [0, 0]], [0, -128])
    moment([[1, 1], [1, 1]], [-40, 100])  # a row of zeros had no exponent of its own
    kept = average.sums[parameter.name].fractions(2)
    with pytest.raises(
        InputError, match=r"the average of one.weight would take \d+ bits of 62: the exponents .* differ by up to 60"
    ):
        moment([[1, 1], [1, 1]], [-100, 100])
    assert average.count == 2
    assert average.sums[parameter.name].fractions(2) == kept
    moment([[0, 0], [1, 1]], [-128, 100])
    assert average.count == 3


def test_an_average_that_is_not_there():
    recipe = RECIPES["bfp8"]
    parameter, average = parameter_of(recipe, (2, 2)), Average()
    with pytest.raises(InputError, match="averaging has not begun"):
        average.mean(parameter)
    average.add([parameter])
    with pytest.raises(InputError, match="has shape"):
        average.write([parameter_of(recipe, (2, 3))])
    parameter.name = "another"
    with pytest.raises(InputError, match=r"another has no average; there are those of one\.weight"):
        average.write([parameter])
    with pytest.raises(InputError, match="has shape"):
        parameter.assign(tensor_of([[1, 2, 3]], [0]))
