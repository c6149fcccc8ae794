"""Training steps in C: weights, master copies and momenta are those of intnet's trainer after every step."""

import dataclasses

import numpy as np
import pytest
from c_programs import MEMORY, SANITIZED, compiles_for_32_bits, train
from networks import FIXED, scatter

import intnet
from intnet import SGD, compression, datasets, layers, models
from intnet.errors import InputError
from intnet.export import write_c
from intnet.inputs import Encoder, Inputs
from intnet.layers import Step
from intnet.network import Network
from intnet.optimizers import SWALP, Schedule, SWALPSchedule
from intnet.training import Trainer

M32 = pytest.mark.skipif(not compiles_for_32_bits(), reason="gcc makes no programs of 32 bits here (gcc-multilib)")
BATCH, SEED = 16, 5 * 2**32 + 9


def network_of(recipe, loss=None, hidden=(12, 9)):
    return Network(models.mlp(hidden=hidden), (8, 8, 1), recipe, seed=2, loss=loss)


def check(network, optimizer, folder, steps=8, flags=SANITIZED, before=0):
    """Train here and in C, from the network as it is after some steps; the fourth batch is a small one."""
    data = datasets.load_digits()
    inputs = Inputs.of(data, Encoder.of(data, network.recipe))
    trainer = Trainer(network, optimizer, inputs, epochs=3, batch=BATCH, seed=SEED)
    order, rate = trainer.order(0), optimizer.schedule.at(0, 3)
    rows = [order[BATCH * number : BATCH * number + BATCH] for number in range(before + steps)]
    for number in range(before):
        trainer.step(rows[number], rate, Step(number, SEED, True))
    write_c(network, folder, optimizer=optimizer, batch=BATCH, seed=SEED)
    batches = {number: rows[number] if number != before + 3 else rows[number][:5] for number in range(before, before + steps)}
    fields = []
    for number, layer in enumerate(layer for layer in network.layers.layers if isinstance(layer, layers.Dense)):
        for parameter, part in ((layer.weight, "weight"), (layer.bias, "bias")):
            if parameter is not None:
                label = f"dense_{number + 1}_{part}"
                fields.append((label, parameter, "value", "weight"))
                if parameter.master is not None:
                    fields.append((f"{label}_master", parameter, "master", "master"))
                if optimizer.momentum.mantissa:
                    fields.append((f"{label}_momentum", parameter, "momentum", "momentum"))
    kinds = [(label, parameter.quantizers[role].format.storage, parameter.size) for label, parameter, _, role in fields]
    given = [(number, inputs.batch(one).mantissa, inputs.labels[one]) for number, one in batches.items()]
    moved = 0
    for (number, one), state in zip(batches.items(), train(folder, given, kinds, 10, flags=flags), strict=True):
        start = network.digest()
        trainer.step(one, rate, Step(number, SEED, True))
        for label, parameter, part, _ in fields:
            found = getattr(parameter, part).mantissa.reshape(-1)
            assert np.array_equal(state[label], found), (number, label)
        outputs = network.forward(inputs.batch(one[:1])).mantissa[0]  # in evaluation
        assert np.array_equal(state["outputs"], outputs), number
        moved += network.digest() != start
    assert moved >= steps - 2


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize(("rate", "momentum", "decay"), [("2^-3", 0, 0), ("0.1", "0.9", "1e-3"), ("0.3", 0, "1e-2")])
def test_steps(loss, rate, momentum, decay, tmp_path):
    check(network_of(FIXED, loss), SGD(rate, momentum, decay), tmp_path)


def test_from_the_middle_of_a_training(tmp_path):
    check(network_of(FIXED), SGD("2^-3", "0.9"), tmp_path, before=5, flags=MEMORY)


def test_a_master_copy(tmp_path):
    recipe = dataclasses.replace(FIXED, weight="fxp-s12/10 stochastic", master="fxp-s24/20 stochastic random:40")
    check(network_of(recipe), SGD("0.1", "0.5"), tmp_path)


@pytest.mark.parametrize("number", range(12))
def test_every_rounding(number, tmp_path):
    rounding, overflow = list(intnet.Rounding)[number].value, ("saturate", "wrap", "saturate_symmetric")[number % 3]
    recipe = dataclasses.replace(
        FIXED, weight=f"fxp-s14/11 {rounding}", activation=f"fxp-s14/7 {rounding} {overflow}", error=f"fxp-s15/11 {rounding}",
        gradient=f"fxp-s18/10 {rounding} {overflow}", momentum=f"fxp-s18/9 {rounding}",
    )  # fmt: skip
    check(scatter(network_of(recipe)), SGD("0.5", "0.5" if number % 2 else 0), tmp_path, steps=5)


@pytest.mark.parametrize(("bits", "overflow"), [(12, "saturate"), (12, "wrap"), (20, "saturate"), (26, "wrap")])
def test_words_and_accumulators(bits, overflow, tmp_path):
    role = f"fxp-s{bits}/{bits // 2 + 2} stochastic random:{bits * 2}"
    recipe = dataclasses.replace(
        FIXED, weight=role, activation=role, error=role, gradient=role, accumulator_bits=2 * bits, accumulator_overflow=overflow
    )
    check(scatter(network_of(recipe), extreme=True), SGD("0.5"), tmp_path, steps=5)


def test_without_biases_and_with_one_layer(tmp_path):
    check(network_of(dataclasses.replace(FIXED, biases=False)), SGD("1"), tmp_path)
    check(network_of(FIXED, hidden=()), SGD("1"), tmp_path)


def test_sums_coarser_than_biases(tmp_path):
    recipe = dataclasses.replace(FIXED, activation="fxp-s16/-2 ties_even", weight="fxp-s16/8 stochastic")
    check(scatter(network_of(recipe, "squared_error")), SGD("2^-9"), tmp_path)


@M32
def test_32_bits(tmp_path):
    check(network_of(FIXED), SGD("0.1", "0.9", "1e-3"), tmp_path, flags=("-m32", "-fsanitize=undefined"))


def test_what_is_refused_is_named_with_what_to_use_instead(tmp_path):
    def refused(message, network, optimizer=None, **options):
        with pytest.raises(InputError, match=message):
            write_c(network, tmp_path, optimizer=optimizer or SGD("2^-3"), **options)

    shape = (8, 8, 1)
    refused(r"layer 'conv1' \(Conv2D\) has no training step in C, which takes Flatten, then Dense and ReLU",
            Network([layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)], shape, FIXED))  # fmt: skip
    refused(r"'dropout1' \(Dropout\) .*; train without dropout",
            Network([layers.Flatten(), layers.Dense(4), layers.Dropout(), layers.Dense(3)], shape, FIXED))  # fmt: skip
    refused(r"there is no dense layer to train", Network([layers.Flatten()], shape, FIXED))
    refused(r"loss 'niti_cross_entropy' has no training step in C; use squared_error or cross_entropy",
            network_of(FIXED, "niti_cross_entropy"))  # fmt: skip
    refused(r"'dense1' has its error in bfp-s8/tensor, .* use a format such as fxp-s16/13 for its error",
            network_of(dataclasses.replace(FIXED, error="bfp-s8/tensor")))  # fmt: skip
    refused(r"recipe 'fixed16' has normalized updates, .* use update='sgd'",
            network_of(dataclasses.replace(FIXED, update="normalized")))  # fmt: skip
    refused(
        r"SGD's, got SWALP; use intnet.SGD", network_of(FIXED), SWALP(SWALPSchedule("2^-3", start=1, averaging_rate="2^-4"))
    )
    refused(r"has one rate, got linear; write one file for each rate", network_of(FIXED), SGD(Schedule("2^-3", "linear")))
    refused(r"batch must be an integer in 1\.\.16777216, got 0", network_of(FIXED), batch=0)
    refused(r"seed must be an integer in 0\.\.18446744073709551615, got -1", network_of(FIXED), seed=-1)
    refused(r"dense1.weight: its update takes more than 62 bits; use a rate",
            network_of(dataclasses.replace(FIXED, weight="fxp-s40/38", gradient="fxp-s40/10", accumulator_bits=60)),
            SGD("30"))  # fmt: skip
    masked = network_of(FIXED)
    compression.prune_globally(masked, 50)
    refused(r"dense1.weight has a mask, which a training step in C does not hold", masked)
    wide = dataclasses.replace(
        FIXED, activation="fxp-s32/9", weight="fxp-s31/14 stochastic", error="fxp-s31/13", accumulator_bits=62
    )
    refused(r"its sums may take \d+ bits before they saturate, and C99 has 64", network_of(wide))
    assert list(tmp_path.iterdir()) == []
