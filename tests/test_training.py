"""The training loop: order, batches, telemetry by hand, resuming, dead networks; the same bits for any number of threads."""

import csv
import io
import json
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet import kernels, training
from intnet.errors import InputError
from intnet.inputs import ArrayInputs, Augmentation, Encoder, Inputs
from intnet.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Quantizer, ReLU, Step
from intnet.network import Network
from intnet.optimizers import SGD, Schedule
from intnet.recipe import RECIPES, Recipe
from intnet.telemetry import COLUMNS, to_csv
from intnet.tensor import QTensor
from intnet.training import Trainer, evaluate


@dataclass
class Data:
    """Images of four classes that differ in where they are bright."""

    codes: np.ndarray
    values: np.ndarray
    labels: np.ndarray
    classes: int
    shape: tuple

    @classmethod
    def made(cls, count, shape=(6, 6), seed=0, classes=4):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, classes, count).astype(np.uint8)
        codes = rng.integers(0, 60, (count, int(np.prod(shape))))
        codes[np.arange(count), labels * 7] += 190
        return cls(codes.astype(np.uint8), np.arange(256) / 255, labels, classes, shape)


def inputs_of(recipe, count=37, shape=(6, 6), **options):
    data = Data.made(count, shape, **options)
    return Inputs.of(data, Encoder.of(data, RECIPES[recipe] if isinstance(recipe, str) else recipe))


def trainer_of(recipe="fixed16", layers=None, *, rate="2^-4", epochs=4, count=37, batch=8, momentum=0, **options):
    inputs = inputs_of(recipe, count)
    network = Network(layers or [Flatten(), Dense(9), ReLU(), Dense(4)], (6, 6, 1), recipe, seed=2)
    return Trainer(network, SGD(rate, momentum), inputs, epochs=epochs, batch=batch, **options)


def images():
    return [Conv2D(4, bias=False), BatchNorm(), ReLU(), MaxPool2D(2), Dropout(0.25), Flatten(), Dense(4)]


# Order ------------------------------------------------------------------------------------------------------------------


def test_the_order_is_a_permutation_of_seed_and_epoch():
    first, again, other = trainer_of(), trainer_of(), trainer_of(seed=99)
    orders = [first.order(epoch) for epoch in range(5)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(37))
    assert len({tuple(order) for order in orders}) == 5
    assert_array_equal(again.order(3), orders[3])
    assert (other.order(3) != orders[3]).any()


def test_every_sample_once_an_epoch_and_a_smaller_last_batch(monkeypatch):
    trainer, seen = trainer_of(), []
    step = trainer.step

    def noting(rows, rate, at):
        seen.append((rows.tolist(), at.number, at.seed))
        return step(rows, rate, at)

    monkeypatch.setattr(trainer, "step", noting)
    counted = []
    trainer.run_epoch(progress=counted.append)
    trainer.run_epoch(progress=counted.append)
    assert trainer.steps_per_epoch == 5
    assert counted == [8, 8, 8, 8, 5] * 2
    assert [number for _, number, _ in seen] == list(range(10))
    assert sorted(row for rows, *_ in seen[:5] for row in rows) == list(range(37))
    assert {seed for *_, seed in seen} == {2}


def test_it_learns_and_says_so():
    trainer = trainer_of(epochs=6, count=200, rate="2^-2")
    history = trainer.run(inputs_of("fixed16", 100, seed=7))
    assert [row.epoch for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1].train_loss < history[0].train_loss / 3
    assert history[-1].test_accuracy > 0.9
    assert trainer.died is None
    assert trainer_of().run()[0].test_accuracy is None


def test_the_history_is_of_outputs_before_each_step():
    """One batch an epoch: what the first epoch reports is what the new network makes of its data."""
    trainer = trainer_of(batch=64, epochs=1)
    rows = np.arange(37)
    outputs = trainer.network.forward(trainer.train.batch(rows)).to_float()
    labels = trainer.train.labels
    (row,) = trainer.run()
    shifted = outputs - outputs.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[rows, labels]
    assert row.train_loss == pytest.approx(losses.mean())
    assert row.train_accuracy == np.mean(outputs.argmax(1) == labels)
    assert trainer.batch == 37


# Evaluation -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["fixed16", "bfp8", "int8"])
def test_evaluation_does_not_depend_on_the_batch(recipe):
    trainer = trainer_of(recipe, images(), epochs=1)
    trainer.run()
    results = [evaluate(trainer.network, trainer.train, batch=batch) for batch in (1, 5, None)]
    for other in results[1:]:
        assert_array_equal(other.predictions, results[0].predictions)
        assert other.accuracy == results[0].accuracy == np.mean(results[0].predictions == trainer.train.labels)
        assert other.loss == pytest.approx(results[0].loss)
    assert trainer.network.quantizers().__next__().count == 0  # evaluation counts nothing


# The same bits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["fixed16", "bfp8"])
def test_bits_do_not_depend_on_threads(recipe, monkeypatch):
    """Also where every kernel shares its work, which for small arrays it would not."""
    digests = []
    pieces_of = kernels._parallel.pieces_of
    for threads in (1, 2, 3):
        monkeypatch.setattr(kernels._parallel, "_threads", threads)
        monkeypatch.setattr(kernels._parallel, "pieces_of", lambda count, multiple=1, minimum=1: pieces_of(count, multiple, 1))  # noqa: ARG005
        trainer = trainer_of(recipe, images(), epochs=1, momentum=0.5, augmentation=Augmentation(1))
        trainer.run()
        digests.append((trainer.network.digest(), to_csv(trainer.readings)))
    assert digests[0] == digests[1] == digests[2]


@pytest.mark.parametrize(("recipe", "rate"), [("fixed16", "2^-4"), ("int8", "2^-4"), ("bfp8", "0.05"), ("niti8", "2^3")])
def test_a_resumed_run_has_the_bits_of_one_never_stopped(recipe, rate):
    options = {
        "rate": Schedule(rate, "constant"),
        "momentum": 0 if recipe == "niti8" else 0.75,
        "augmentation": Augmentation(1),
    }
    whole = trainer_of(recipe, images(), **options)
    test = inputs_of(recipe, 20, seed=3)
    whole.run(test)
    first = trainer_of(recipe, images(), **options)
    first.run_epoch(test)
    state, progress = first.network.state(), json.loads(json.dumps(first.progress_state()))
    first.run_epoch(test)  # what was saved does not change with the run
    second = trainer_of(recipe, images(), **options)
    second.network.load_state(state)
    second.load_progress(progress)
    assert second.epoch == 1
    second.run(test)
    assert second.network.digest() == whole.network.digest()
    assert to_csv(second.readings) == to_csv(whole.readings)
    strip = [[{**vars(row), "seconds": 0} for row in one.history] for one in (second, whole)]
    assert strip[0] == strip[1]
    assert len(strip[0]) == 4


def test_seeds_make_the_difference():
    digests = {seed: trainer_of(epochs=1, seed=seed) for seed in (1, 2)}
    for trainer in digests.values():
        trainer.run()
    assert digests[1].network.digest() != digests[2].network.digest()


# Telemetry --------------------------------------------------------------------------------------------------------------


def bits_used(low, high):
    """Count bits of the shortest two's complement word that holds both."""
    return next(bits for bits in range(1, 65) if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1))


def test_readings_equal_a_recount_by_hand(monkeypatch):
    """One dense layer in words so short that everything happens, every tensor recounted from what passes by."""
    recipe = Recipe(
        "short", weight="fxp-s5/3", activation="fxp-s5/2", error="fxp-s5/4", gradient="fxp-s5/1 ties_even wrap",
        accumulator_bits=10, momentum="fxp-s6/0",
    )  # fmt: skip
    trainer = trainer_of(recipe, [Flatten(), Dense(4)], epochs=2, rate="2^-3", momentum=0.5)
    passed = {}
    call = Quantizer.__call__

    def spy(quantizer, x, step, lost_apart=False):
        out = call(quantizer, x, step, lost_apart)
        passed.setdefault((quantizer.tensor, quantizer.role_name), []).append((x.to_float(), out))
        return out

    monkeypatch.setattr(Quantizer, "__call__", spy)
    monkeypatch.setattr(SGD, "_move_at_once", lambda *_: False)
    monkeypatch.setattr(SGD, "update_all", one_after_the_other)
    monkeypatch.setattr(Dense, "_at_once", lambda *_, **__: None)
    monkeypatch.setattr(Dense, "_back_at_once", lambda *_: None)
    trainer.run_epoch()
    readings = {(one.tensor, one.role): one for one in trainer.readings}
    assert set(readings) == {*passed, ("dense1", "accumulator")}
    for (tensor, role), calls in passed.items():
        one, form = readings[tensor, role], calls[0][1].format
        written = np.concatenate([out.mantissa.ravel() for _, out in calls])
        exact = np.concatenate([x.ravel() for x, _ in calls]) * 2.0**form.fraction_bits
        rounded = np.rint(exact)  # ties to even
        outside = int(((rounded < form.minimum) | (rounded > form.maximum)).sum())
        assert (one.saturated, one.wrapped) == ((0, outside) if role == "gradient" else (outside, 0))
        assert (one.minimum, one.maximum) == (written.min(), written.max())
        assert one.bits_used == bits_used(written.min(), written.max())
        assert (one.word_bits, one.fraction_bits, one.count) == (form.word_bits, form.fraction_bits, written.size)
        if role != "weight":
            assert one.lost == int(((exact != 0) & (rounded == 0)).sum())
    accumulator = readings["dense1", "accumulator"]
    assert accumulator.word_bits == 10
    assert accumulator.count == 37 * 4 + 5 * (4 * 36 + 4)
    assert (accumulator.minimum, accumulator.bits_used, accumulator.fraction_bits) == (None, None, None)


def one_after_the_other(optimizer, parameters, *arguments):
    for parameter in parameters:
        optimizer.update(parameter, *arguments)


def test_telemetry_in_one_pass_equals_that_piece_by_piece(monkeypatch):
    texts = []
    for patch in (False, True):
        trainer = trainer_of(epochs=2, momentum=0.5)
        if patch:
            monkeypatch.setattr(SGD, "update_all", one_after_the_other)
            monkeypatch.setattr(SGD, "_move_at_once", lambda *_: False)
        trainer.run()
        texts.append((to_csv(trainer.readings), trainer.network.digest()))
    assert texts[0] == texts[1]


def test_telemetry_as_csv():
    trainer = trainer_of("int8", epochs=2)
    trainer.run()
    text = to_csv(trainer.readings)
    assert (
        text.splitlines()[0]
        == "epoch,tensor,role,word_bits,fraction_bits,minimum,maximum,bits_used,saturated,wrapped,lost,count"
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS
    assert {row["epoch"] for row in rows} == {"1", "2"}
    keys = [(row["epoch"], row["tensor"], row["role"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {"activation", "error", "weight", "master", "gradient", "accumulator"} <= {row["role"] for row in rows}
    for row in rows:
        if row["bits_used"]:
            assert int(row["bits_used"]) <= int(row["word_bits"])


# Dead networks ----------------------------------------------------------------------------------------------------------


def test_a_network_that_says_nothing_is_stopped(monkeypatch):
    monkeypatch.setattr(training, "WATCH_STEPS", 9)
    layers = [Flatten(), Dense(9), ReLU(), Dense(4, initial="zeros", bias=False)]
    trainer = trainer_of(layers=layers, rate="2^-40")
    trainer.run()
    assert trainer.epoch == 2  # of 5 steps each
    assert trainer.died.startswith("the network has died: all outputs were zero in the last 10 steps; try a smaller rate")


def test_a_network_whose_updates_are_all_lost_is_stopped():
    recipe = Recipe("coarse", weight="fxp-s8/5", activation="fxp-s8/4", error="fxp-s8/6", gradient="fxp-s8/4")
    trainer = trainer_of(recipe, rate="2^-9")
    trainer.run()
    assert trainer.epoch == 4  # shorter than a watch: judged at its end
    assert trainer.died.startswith("the network has died: no weight has moved in the last 20 steps; its updates are lost to")
    assert sum(one.lost for one in trainer.readings if one.role == "weight") > 0
    unwatched = trainer_of(recipe, rate="2^-9", watch=False)
    assert len(unwatched.run()) == 4
    assert unwatched.died is None


def test_the_watch_goes_on_where_a_stopped_run_was(monkeypatch):
    monkeypatch.setattr(training, "WATCH_STEPS", 14)
    recipe = Recipe("coarse", weight="fxp-s8/5", activation="fxp-s8/4", error="fxp-s8/6", gradient="fxp-s8/4")
    first, second = (trainer_of(recipe, rate="2^-9") for _ in range(2))
    for _ in range(2):
        first.run_epoch()
    assert first.died is None
    second.load_progress(first.progress_state())
    second.run()
    assert (second.epoch, "last 15 steps" in second.died) == (3, True)


# What is refused --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_trained_is_refused():
    for make, message in (
        (lambda: trainer_of(epochs=0), r"^epochs must be an integer of at least 1, got 0$"),
        (lambda: trainer_of(batch=2.5), r"^batch must be an integer of at least 1, got 2\.5$"),
        (lambda: trainer_of(seed="a"), r"^seed must be an integer in 0\.\.2\*\*64 - 1, got 'a'$"),
        (lambda: trainer_of(seed=1.7), r"^seed must be an integer in 0\.\.2\*\*64 - 1, got 1\.7$"),
        (lambda: trainer_of(augmentation=True), r"^augmentation must be an Augmentation or None, got True$"),
        (lambda: trainer_of(count=0), r"^there are no samples to train on$"),
        (lambda: trainer_of(layers=[Flatten(), Dense(5)]), r"^the network has outputs of shape \(5,\) and the data 4 classes$"),
        (lambda: trainer_of("niti8", rate="0.3"), r"^recipe 'niti8' has normalized updates"),
        (lambda: trainer_of("niti8", rate="2^3", momentum=0.5), r"^recipe 'niti8' has no momentum role"),
    ):
        with pytest.raises(InputError, match=message):
            make()


def test_samples_that_the_network_was_not_built_for():
    """Another shape would be read beyond its end; words of another recipe would leave the accumulators it was sized for."""
    trainer = trainer_of(epochs=1)
    network, before = trainer.network, trainer.network.digest()
    x = trainer.train.batch(np.arange(37))
    noformat = ArrayInputs(QTensor(x.mantissa, x.exponent, None), trainer.train.labels, 4)
    for inputs, message in (
        (
            inputs_of("fixed16", shape=(8, 4)),
            r"^the network takes samples of shape \(6, 6, 1\), got samples of shape \(8, 4, 1\)$",
        ),
        (inputs_of("fixed16", classes=5), r"^the network has outputs of shape \(4,\) and the data 5 classes$"),
        (
            inputs_of("wide"),
            r"^the activations of recipe 'fixed16' are fxp-s16/\d+, got samples in bfp-s24/tensor; encode them",
        ),
        (inputs_of("int8"), r"^the activations of recipe 'fixed16' are fxp-s16/\d+, got samples in bfp-s8/tensor; encode them"),
        (noformat, r"^the activations of recipe 'fixed16' are fxp-s16/\d+, got samples in no format; encode them"),
    ):
        for use in (
            lambda inputs: Trainer(network, SGD("2^-4"), inputs, epochs=1),
            lambda inputs: evaluate(network, inputs),
            trainer.run,
        ):
            with pytest.raises(InputError, match=message) as caught:
                use(inputs)
            assert "\n" not in str(caught.value)
    assert network.digest() == before
    with pytest.raises(
        InputError, match=r"^the activations of recipe 'int8' are bfp-s8/tensor, got samples in bfp-s24/tensor; "
    ):
        evaluate(trainer_of("int8").network, inputs_of("wide"))
    for batch in (0, -1, 2.5, True, "4"):
        with pytest.raises(InputError, match=rf"^batch must be an integer of at least 1 or None, got {batch!r}$"):
            evaluate(network, trainer.train, batch=batch)


def test_progress_that_is_none_changes_nothing():
    trainer = trainer_of(epochs=1)
    good = trainer.progress_state()
    for change in ({"epoch": None}, {"quiet": [1]}, {"history": [{"a": 1}]}, {"readings": [[1]]}, {"died": 3}):
        with pytest.raises(InputError, match=r"^this does not say where a training is \("):
            trainer.load_progress({**good, **change})
        assert trainer.progress_state() == good


def test_arrays_as_inputs():
    """Real numbers quantized once are trained like codes: here the same integers, so the same bits."""
    codes = trainer_of(epochs=2)
    x = codes.train.batch(np.arange(37))
    inputs = ArrayInputs(QTensor(x.mantissa, x.exponent, x.format), codes.train.labels, 4)
    network = Network([Flatten(), Dense(9), ReLU(), Dense(4)], (6, 6, 1), "fixed16", seed=2)
    arrays = Trainer(network, SGD("2^-4"), inputs, epochs=2, batch=8)
    codes.run()
    arrays.run()
    assert network.digest() == codes.network.digest()


def test_a_step_by_hand_is_the_loop():
    """What an epoch does, written out."""
    trainer, other = trainer_of(epochs=1, augmentation=Augmentation(2)), trainer_of(epochs=1)
    trainer.run_epoch()
    order = other.order(0)
    for number in range(5):
        rows, step = order[8 * number : 8 * number + 8], Step(number, 2, True)
        x = other.train.batch(rows, Augmentation(2), 2, number)
        y = other.network.forward(x, step)
        other.network.backward(other.network.loss.gradient(y, other.train.labels[rows], step), step)
        for parameter in other.network.parameters:
            other.optimizer.update(parameter, other.optimizer.schedule.rate, 8, step)
    assert other.network.digest() == trainer.network.digest()
