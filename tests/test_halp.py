"""HALP and SVRG of networks: every offset, centre and weight that of a slow reference; then resuming, devices and mistakes."""

from fractions import Fraction

import naive
import naive_halp
import numpy as np
import pytest
from naive_halp import nearest, two_to
from numpy.testing import assert_array_equal

from intnet import datasets, layers
from intnet.inputs import Encoder, Inputs
from intnet.network import Network
from intnet.optimizers import HALP, BitCentering, Factor
from intnet.recipe import Recipe
from intnet.studies.training import first_samples
from intnet.tensor import QTensor
from intnet.training import Trainer

RECIPES = ("wide", "bfp8-mixed", "fixed16")
DECAY = Fraction(Factor.of("0.01").exact)


def batch_normed():
    return [layers.Flatten(), layers.Dense(7), layers.BatchNorm(), layers.ReLU(), layers.Dense(10)]


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
        self.saturated = 0

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
            if decay_of == "weights" and one.decays:
                whole = Factor.of(DECAY * samples).exact
                sums = [v + whole * c / two_to(40) for v, c in zip(sums, self.centre[name], strict=True)]
            assert exact(kept) == sums
            integers, exponent = kept.mantissa.reshape(-1).tolist(), int(kept.exponent.flat[0])
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
                self.offsets[name][j], left = naive_halp.move_offset(
                    self.offsets[name][j], a - b + s * unit, self.trainer.batch, rate, scale, by_offset if one.decays else 0,
                    self.how.bits, fraction,
                )  # fmt: skip
                self.saturated += left
            first += one.size


CASES = [
    (8, 20, "exact", "offsets"),
    (2, "0.5", "power_of_two", "weights"),
    (16, 3, "power_of_two", "offsets"),
    (5, 1, "exact", "weights"),
]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("bits", "mu", "kind", "decay_of"), CASES)
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
