"""HALP and SVRG of networks: every offset, centre and weight that of a slow reference; then resuming, devices and mistakes."""

from fractions import Fraction
from itertools import pairwise

import naive
import naive_halp
import numpy as np
import pytest
from naive_halp import nearest, two_to
from numpy.testing import assert_array_equal

from intnet import checkpoint, datasets, kernels, layers
from intnet.errors import InputError
from intnet.inputs import Encoder, Inputs
from intnet.network import Network
from intnet.optimizers import HALP, SGD, SVRG, BitCentering, Factor
from intnet.optimizers.svrg import in_one_exponent
from intnet.recipe import Recipe
from intnet.tensor import QTensor
from intnet.training import Trainer, evaluate
from intnet.trainings import first_samples

DECAY = Fraction(Factor.of("0.01").exact)


def batch_normed():
    return [layers.Flatten(), layers.Dense(3), layers.BatchNorm(), layers.ReLU(), layers.Dense(10)]


def trainer_of(optimizer, recipe="wide", *, samples=50, batch=16, epochs=3, seed=5, device=None, layers_of=batch_normed):
    data = datasets.load("digits", subset="train")
    recipe = Recipe.load(recipe)
    encoder = Encoder.of(data, recipe)
    network = Network(layers_of(), encoder.shape, recipe, seed)
    inputs = Inputs.of(first_samples(data, samples, "train"), encoder)
    return Trainer(network, optimizer, inputs, epochs=epochs, batch=batch, device=device)


def exact(tensor):
    """Return a tensor's numbers as Fractions, in C order."""
    exponents = np.broadcast_to(tensor.exponent, tensor.shape).reshape(-1)
    return [int(m) * two_to(int(e)) for m, e in zip(tensor.mantissa.reshape(-1), exponents, strict=True)]


class Watched(Trainer):
    """A trainer that keeps the gradients of every pass: rounded, and exact; and the running statistics before each."""

    def gradients(self, x, rows, step):
        outputs = super().gradients(x, rows, step)
        seen = {}
        for one in self.parameters:
            seen[one.name] = exact(one.quantizers["gradient"](one.gradient, step)), exact(one.gradient)
        self.passes.append((len(rows), step.statistics, seen))
        return outputs

    def step(self, rows, rate, step):
        self.passes = []
        return super().step(rows, rate, step)


def watched(optimizer, recipe, **options):
    trainer = trainer_of(optimizer, recipe, **options)
    trainer.__class__ = Watched
    return trainer


class Reference:
    """HALP in Fractions: of the gradients of each pass it makes the centres, scales and offsets."""

    def __init__(self, trainer):
        self.trainer, self.how = trainer, trainer.optimizer.centering
        self.centre = {one.name: [naive.round_fraction(v * two_to(40), "ties_even") for v in exact(one.stored)]
                       for one in trainer.parameters}  # fmt: skip
        self.offsets = {one.name: [0] * one.size for one in trainer.parameters}
        self.scale = dict.fromkeys(self.offsets)
        self.saturated, self.pull = 0, {}

    def weights(self, name, scale):
        return [c + nearest(z * scale * two_to(40)) if scale else c
                for c, z in zip(self.centre[name], self.offsets[name], strict=True)]  # fmt: skip

    def recentre(self, passes, decay_of):
        samples, optimizer = self.trainer.samples, self.trainer.optimizer
        assert sum(rows for rows, _, _ in passes) == samples
        for one in self.trainer.parameters:
            name = one.name
            self.centre[name] = self.weights(name, self.scale[name])
            self.offsets[name] = [0] * one.size
            sums = [sum(parts) for parts in zip(*(seen[name][1] for _, _, seen in passes), strict=True)]
            kept = optimizer.centres[name].gradient
            assert exact(kept) == sums
            self.pull[name] = [Fraction(0)] * one.size
            if decay_of == "weights" and one.decays:
                self.pull[name] = [c / two_to(40) for c in self.centre[name]]
                sums = [v + Factor.of(DECAY * samples).exact * c for v, c in zip(sums, self.pull[name], strict=True)]
            exponent = min(int(kept.exponent.flat[0]), -100)
            integers = [int(v / two_to(exponent)) for v in sums]
            self.scale[name] = naive_halp.scale_of(
                integers, exponent, samples, self.how.mu.exact, self.how.bits, self.how.scale
            )

    def step(self, centre_pass, pass_, rate, number, seed, by_offset):
        first = 0
        (rows, statistics, there), (same, also, here) = centre_pass, pass_
        assert (rows, statistics, also) == (same, False, True)
        for one in self.trainer.parameters:
            name, scale = one.name, self.scale[one.name]
            kept = self.trainer.optimizer.centres[name].gradient
            share, up = naive_halp.share(kept.mantissa.reshape(-1).tolist(), rows, self.trainer.samples)
            unit = two_to(int(kept.exponent.flat[0]) - up)
            for j, (a, b, s) in enumerate(zip(here[name][0], there[name][0], share, strict=True)):
                if scale is None:
                    break
                fraction = naive.random_fraction(seed, 2, number, first + j, 32)
                direction = a - b + s * unit + Factor.of(DECAY * self.trainer.batch).exact * self.pull[name][j]
                self.offsets[name][j], left = naive_halp.move_offset(
                    self.offsets[name][j], direction, self.trainer.batch, rate, scale, by_offset if one.decays else 0,
                    self.how.bits, fraction,
                )  # fmt: skip
                self.saturated += left
            first += one.size


@pytest.mark.parametrize(
    ("recipe", "bits", "mu", "kind", "decay_of"),
    [
        ("wide", 8, 20, "exact", "offsets"),
        ("wide", 2, 20, "power_of_two", "weights"),
        ("bfp8-mixed", 16, 3, "power_of_two", "offsets"),
        ("bfp8-mixed", 5, 1, "exact", "weights"),
        ("fixed16", 3, "0.5", "exact", "weights"),
    ],
)
def test_every_bit_is_that_of_the_definition(recipe, bits, mu, kind, decay_of):
    optimizer = HALP("0.1", BitCentering(bits, mu, 3, kind), DECAY, decay_of=decay_of)
    trainer = watched(optimizer, recipe)
    ref = Reference(trainer)
    rate = optimizer.schedule.at(0, 1).exact
    by_offset = round(rate * DECAY * 2**32)
    steps = trainer.steps_per_epoch
    assert steps == 4  # the last of 2 samples
    for number in range(8):
        rows = trainer.order(number // steps)[number % steps * 16 :][:16]
        trainer.step(rows, optimizer.schedule.at(0, 1), layers.Step(number, trainer.seed, True))
        passes = trainer.passes
        if number % 3 == 0:
            ref.recentre(passes[:steps], decay_of)
            passes = passes[steps:]
        ref.step(*passes, rate, number, trainer.seed, by_offset)
        for one in trainer.parameters:
            mine, theirs = ref.offsets[one.name], optimizer.offsets[one.name]
            assert (theirs.scale and theirs.scale.exact) == ref.scale[one.name]
            assert theirs.offsets.reshape(-1).tolist() == mine
            assert theirs.centre.reshape(-1).tolist() == ref.centre[one.name]
            weights = QTensor.trusted(np.array(ref.weights(one.name, ref.scale[one.name])).reshape(one.shape), -40)
            stored = one.quantizers[one.stored_role](weights, layers.Step(number, trainer.seed, True))
            if ref.scale[one.name]:
                assert_array_equal(one.stored.mantissa, stored.mantissa)
    assert optimizer.saturated == ref.saturated
    assert any(any(z) for z in ref.offsets.values())


def test_to_nearest_too():
    optimizer = HALP("1", BitCentering(6, "0.25", 5, rounding="ties_pos"))
    trainer = trainer_of(optimizer)
    trainer.run()
    assert any(one.offsets.any() for one in optimizer.offsets.values())


def test_svrg_steps_by_the_corrected_gradient():
    """In wide words a step is that of Fractions, to within a unit of the master copy."""
    optimizer = SVRG("0.1", DECAY, period=3)
    trainer = watched(optimizer, "wide")
    rate = optimizer.schedule.at(0, 1)
    for number in range(5):
        before = {one.name: exact(one.stored) for one in trainer.parameters}
        rows = trainer.order(0)[number % 4 * 16 :][:16]
        trainer.step(rows, rate, layers.Step(number, trainer.seed, True))
        *full, (count, _, there), (_, _, here) = trainer.passes
        if full:
            sums = {name: [sum(v) for v in zip(*(seen[name][1] for _, _, seen in full), strict=True)] for name in before}
        assert len(full) == (4 if number % 3 == 0 else 0)
        for one in trainer.parameters:
            decay = Factor.of(DECAY * 16).exact if one.decays else 0
            factor = rate.times(Fraction(1, 16)).exact
            parts = zip(before[one.name], here[one.name][0], there[one.name][0], sums[one.name], strict=True)
            expected = [w - factor * (a - b + Fraction(count, 50) * g + decay * w) for w, a, b, g in parts]
            got = [int(v) for v in one.stored.mantissa.reshape(-1)]
            assert max(abs(v - w * 2**32) for v, w in zip(got, expected, strict=True)) <= Fraction(5, 8)  # decay cuts


def test_with_a_full_gradient_every_step_and_all_samples_svrg_is_gradient_descent():
    """Without batch normalization, whose gradients depend on the batch, the correction is zero then: d = G."""

    def plain():
        return [layers.Flatten(), layers.Dense(5), layers.ReLU(), layers.Dense(10)]

    svrg, sgd = (trainer_of(o, samples=32, batch=32, layers_of=plain) for o in (SVRG("0.25", period=1), SGD("0.25")))
    svrg.run()
    sgd.run()
    for a, b in zip(svrg.parameters, sgd.parameters, strict=True):
        off = abs(a.master.mantissa - b.master.mantissa).max()  # the gradient's own rounding, of 32 bits
        assert off <= 3 * 2


# What is around it --------------------------------------------------------------------------------------------------------


OPTIMIZERS = {
    "halp": lambda: HALP("0.1", BitCentering(4, 5, 6), DECAY, decay_of="weights"),
    "svrg": lambda: SVRG("0.1", DECAY, period=6),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("recipe", ["wide", "bfp8-mixed"])
def test_stopped_between_two_centres_and_resumed_it_gives_the_same(kind, recipe, tmp_path):
    straight, first, second = (trainer_of(OPTIMIZERS[kind](), recipe) for _ in range(3))
    straight.run()
    first.run_epoch()  # 4 steps, of 6
    checkpoint.save(tmp_path / "c.npz", first)
    checkpoint.restore(second, checkpoint.load(tmp_path / "c.npz"))
    assert first.optimizer.state().keys() == second.optimizer.state().keys()
    second.run()
    assert second.network.digest() == straight.network.digest()
    assert [(a.train_loss, a.train_accuracy) for a in second.history] == [
        (a.train_loss, a.train_accuracy) for a in straight.history
    ]
    for (name, a), (other, b) in zip(straight.optimizer.state().items(), second.optimizer.state().items(), strict=True):
        assert name == other
        assert_array_equal(a, b)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_state_of_another_is_refused(kind):
    trainer = trainer_of(OPTIMIZERS[kind]())
    trainer.run_epoch()
    state, fresh = trainer.optimizer.state(), OPTIMIZERS[kind]()
    for change in (lambda s: s.popitem(), lambda s: s.update({"centre/x/value": np.zeros(3)})):
        broken = dict(state)
        change(broken)
        with pytest.raises(InputError):
            fresh.load_state(broken, trainer.parameters)
    name = f"centre/{trainer.parameters[0].name}/"
    wrong = {"gradient": np.int64(2**62 + 1)} | ({"offsets": np.int64(8), "words": np.int64(2**48)} if kind == "halp" else {})
    for part, value in wrong.items():
        broken = {**state, name + part: np.full_like(state[name + part], value)}
        with pytest.raises(InputError, match=part):
            fresh.load_state(broken, trainer.parameters)
    if kind == "halp":
        for changed, match in (({name + "scale": np.array([-1, 0])}, "scale"), ({"counts": np.array([1, -1, 0])}, "negative")):
            with pytest.raises(InputError, match=match):
                fresh.load_state({**state, **changed}, trainer.parameters)
    assert not fresh.centres
    fresh.load_state({}, trainer.parameters)
    with pytest.raises(InputError, match="another training"):
        trainer.optimizer.check(trainer.network.recipe)


def test_threads_and_pieces_change_no_bit():
    digests, before = set(), kernels.threads()
    try:
        for threads in (1, 2, 5):
            kernels.set_threads(threads)
            trainer = trainer_of(OPTIMIZERS["halp"](), samples=30)
            trainer.run()
            digests.add((trainer.network.digest(), trainer.optimizer.saturated))
    finally:
        kernels.set_threads(before)
    assert len(digests) == 1


def test_running_statistics_follow_the_weights_that_train_alone():
    """In the first step of a period centre and weights are one, so one batch moves them once, whatever passes there were."""
    mine, plain = trainer_of(OPTIMIZERS["svrg"](), samples=16), trainer_of(SGD("0.1"), samples=16)
    for trainer in (mine, plain):
        trainer.step(np.arange(16), trainer.optimizer.schedule.at(0, 1), layers.Step(0, 5, True))
    states = [trainer.network.state() for trainer in (mine, plain)]
    for name in states[0]:
        if "running" in name:
            assert_array_equal(states[0][name], states[1][name])


def test_a_zero_gradient_ends_the_training():
    halp = HALP("0.1", BitCentering(4, 5, 6), DECAY, decay_of="offsets")
    trainer = trainer_of(halp, layers_of=lambda: [layers.Flatten(), layers.Dense(10)])
    trainer.gradients = lambda x, rows, step: _without_gradient(trainer, x, rows, step)
    before = trainer.network.digest()
    trainer.run()
    assert trainer.epoch == 1
    assert "full gradient is zero" in trainer.died
    assert trainer.network.digest() == before
    assert trainer.optimizer.saturated == 0


def _without_gradient(trainer, x, rows, step):
    outputs = Trainer.gradients(trainer, x, rows, step)
    for one in trainer.parameters:
        one.gradient = QTensor.trusted(np.zeros(one.shape, np.int64), -20)
    return outputs


def test_a_parameter_without_a_gradient_stays():
    """A bias before batch normalization has none but for rounding; here it has none at all."""
    trainer = trainer_of(HALP("0.1", BitCentering(8, 2, 4)))
    gamma = next(one for one in trainer.parameters if one.name.endswith("gamma"))
    original = trainer.gradients

    def gradients(x, rows, step):
        outputs = original(x, rows, step)
        gamma.gradient = QTensor.trusted(np.zeros(gamma.shape, np.int64), -20)
        return outputs

    trainer.gradients = gradients
    kept = exact(gamma.stored)
    trainer.run()
    assert exact(gamma.stored) == kept
    assert trainer.optimizer.offsets[gamma.name].scale is None


def test_decay_is_the_same_in_a_short_batch():
    """Where gradients are zero nothing but decay moves a weight: by as much in a batch of 1 as in one of 16."""
    decay, rate = "2^-3", "2^-1"
    found = {}
    for name, optimizer in {
        "sgd": SGD(rate, 0, decay),
        "svrg": SVRG(rate, decay, period=2),
        "halp": HALP(rate, BitCentering(16, 2, 2), decay, decay_of="weights"),
    }.items():
        trainer = trainer_of(optimizer, samples=17, epochs=1, layers_of=lambda: [layers.Flatten(), layers.Dense(10)])
        trainer.gradients = lambda x, rows, step, trainer=trainer: _without_gradient(trainer, x, rows, step)
        weights = [np.array([float(v) for v in exact(trainer.parameters[0].stored)])]
        for number, rows in enumerate((np.arange(16), np.arange(16, 17))):
            trainer.step(rows, optimizer.schedule.at(0, 1), layers.Step(number, 5, True))
            weights.append(np.array([float(v) for v in exact(trainer.parameters[0].stored)]))
        found[name] = [float(a @ b / (a @ a)) for a, b in pairwise(weights)]
        assert optimizer.finished is None
    for name in found:
        np.testing.assert_allclose(found[name], [1 - 2**-4] * 2, atol=2e-4, err_msg=name)


def test_two_trainings_do_not_share_an_optimizer():
    optimizer = OPTIMIZERS["halp"]()
    first, second = trainer_of(optimizer), trainer_of(optimizer)
    first.run_epoch()
    before = second.network.digest()
    with pytest.raises(InputError, match="centres of another network"):
        second.run_epoch()
    assert second.network.digest() == before


def test_a_parameter_needs_a_gradient():
    trainer = trainer_of(OPTIMIZERS["svrg"]())
    original = trainer.gradients

    def gradients(x, rows, step):
        outputs = original(x, rows, step)
        trainer.parameters[0].gradient = None
        return outputs

    trainer.gradients = gradients
    with pytest.raises(InputError, match="has no gradient"):
        trainer.run_epoch()


@pytest.mark.parametrize("rows", [[3, -5], [0, 0], [-40, 0]])
def test_an_accumulator_is_brought_to_one_exponent(rows):
    mantissa = np.array([[2**40 + 1, -3], [7, 0]])
    tensor = QTensor.trusted(mantissa, np.array(rows).reshape(2, 1))
    made = in_one_exponent(tensor)
    assert made.exponent.shape == (1, 1)
    unit = two_to(int(made.exponent.flat[0]))
    for got, want in zip(exact(made), exact(tensor), strict=True):
        assert abs(got - want) < unit
        assert got == want or int(got / unit) % 2 == 1  # cut, with a sticky bit
    assert exact(in_one_exponent(QTensor.trusted(np.zeros((2, 2), np.int64), np.array([[3], [4]])))) == [0] * 4


def test_it_learns():
    body = [layers.Flatten(), layers.Dense(32), layers.ReLU(), layers.Dense(10)]
    trainer = trainer_of(HALP("0.2", BitCentering(8, 2, 20)), samples=1000, batch=50, epochs=8, layers_of=lambda: body)
    told = []
    trainer.run(progress=told.append)
    assert trainer.history[-1].train_accuracy > 0.9
    assert sum(told) == 1000 * 8 + 1000 * trainer.optimizer.full_gradients(8 * 20)
    assert len(trainer.losses) == 20
    assert np.mean(trainer.losses) == pytest.approx(trainer.history[-1].train_loss)
    assert evaluate(trainer.network, trainer.train).accuracy > 0.9


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: HALP("0.1", 8), ["BitCentering", "8"]),
        (lambda: HALP("0.1", BitCentering(), decay_of="all"), ["weights", "offsets", "'all'"]),
        (lambda: HALP("0.1", BitCentering(), centre="fxp-u48/40"), ["signed", "62 bits"]),
        (lambda: HALP("0", BitCentering()), ["rate", "above 0"]),
        (lambda: SVRG("0.1", period=0), ["1..4294967295", "0"]),
        (lambda: SVRG("0.1", period=2.5), ["2.5"]),
        (lambda: trainer_of(SVRG("2^3", period=5), "niti8"), ["niti8", "SVRG", "normalized"]),
        (lambda: trainer_of(HALP("2^30", BitCentering(16), "2^10")), ["rate", "decay", "too large"]),
    ],
)
def test_mistakes(make, parts):
    with pytest.raises(InputError) as caught:
        make()
    for part in parts:
        assert part in str(caught.value)


def test_a_scale_beyond_the_exponents_is_refused():
    trainer = trainer_of(HALP("0.1", BitCentering(8, "2^-40", 4)))
    trainer.gradients = lambda x, rows, step: _huge(trainer, x, rows, step)
    with pytest.raises(InputError, match=r"scale .* must be in 2\^-126..2\^127"):
        trainer.run_epoch()


def _huge(trainer, x, rows, step):
    outputs = Trainer.gradients(trainer, x, rows, step)
    for one in trainer.parameters:
        one.gradient = QTensor.trusted(np.ones(one.shape, np.int64), 100)
    return outputs
