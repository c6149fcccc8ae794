"""Models: parameter counts of the sheets, names, shapes, every recipe, and a replay of their training bit for bit.

The replay pins what fifty steps make of every family of layers. A changed hash is a changed bit: it must be meant. To make
the hashes again, after a change of the arithmetic that is meant, run ``python tests/test_models.py``.
"""

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from intnet import models
from intnet.errors import InputError
from intnet.formats import BlockFloat
from intnet.layers import BinaryConv2D, Conv2D, Dense, Sign, Step
from intnet.models import MODELS, make_model
from intnet.network import Network
from intnet.optimizers import SGD
from intnet.recipe import RECIPES, Recipe
from intnet.tensor import QTensor, quantize

WIDE = RECIPES["wide"]


# Counts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].parameters])
def test_parameter_counts_of_the_sheets(name):
    count, shape = MODELS[name].parameters, MODELS[name].shape
    assert count == {
        "lenet5": 431_080, "vgg16": 15_245_130, "resnet18": 11_173_962, "binary_resnet18": 11_173_962, "resnet20": 272_474,
        "preresnet164": 1_703_258,
    }[name]  # fmt: skip
    assert Network(make_model(name), shape, WIDE).parameter_count == count


def test_parameter_counts_by_hand():
    assert Network(models.mlp(), (28, 28, 1), WIDE).parameter_count == 784 * 100 + 100 + 100 * 50 + 50 + 50 * 10 + 10
    assert Network(models.mlp(bias=False, hidden=()), (64,), WIDE).parameter_count == 640
    channels = [3, 128, 128, 256, 256, 512, 512]
    convolutions = sum(9 * a * b for a, b in pairwise(channels))
    dense = 512 * 16 * 10
    assert Network(models.vgg_small(batch_norm=False, bias=False), (32, 32, 3), WIDE).parameter_count == convolutions + dense
    normalized = convolutions + 2 * sum(channels[1:]) + dense + 10
    assert Network(models.vgg_small(), (32, 32, 3), WIDE).parameter_count == normalized


@pytest.mark.parametrize("weights", ["binary", "full"])
def test_sixteen_convolutions_of_the_binary_resnet_see_signs(weights):
    """At width 1/8: 8, 16, 32 and 64 channels; what is added up in the blocks is not binary, nor are the shortcuts' inputs."""
    network = Network(models.binary_resnet18(10, 1 / 8, weights=weights, window="identity"), (32, 32, 3), WIDE)
    layers, kind = list(network.layers.walk()), BinaryConv2D if weights == "binary" else Conv2D
    after_signs = [after for one, after in pairwise(layers) if isinstance(one, Sign)]
    assert [type(one) for one in after_signs] == [kind] * 16
    assert {one.window for one in layers if isinstance(one, Sign)} == {"identity"}
    others = [one for one in layers if isinstance(one, Conv2D) and one not in after_signs]
    assert [type(one) for one in others] == [Conv2D] * 4
    assert [one.outputs for one in after_signs[::4]] == [8, 16, 32, 64]
    shortcuts = 8 * 16 + 16 * 32 + 32 * 64
    convolutions = 9 * (3 * 8 + 4 * 8 * 8 + 8 * 16 + 3 * 16 * 16 + 16 * 32 + 3 * 32 * 32 + 32 * 64 + 3 * 64 * 64) + shortcuts
    assert network.parameter_count == convolutions + 2 * (5 * 8 + 5 * 16 + 5 * 32 + 5 * 64) + 64 * 10 + 10


@pytest.mark.parametrize("name", MODELS)
def test_classes_and_width(name):
    shape = MODELS[name].shape or (28, 28, 1)
    options = {"depth": 20} if name == "preresnet164" else {}
    width = 1 / 5 if name in ("mlp", "lenet5") else 1 / 4
    network = Network(make_model(name, 100, width, **options), shape, WIDE)
    assert network.output_shape == (100,)
    full, last = Network(make_model(name, 100, 2 * width, **options), shape, WIDE), "dense"
    shapes = {one.name: one.shape for one in full.parameters}
    for parameter in network.parameters:
        if parameter.name.startswith(last) and parameter.shape[0] == 100:
            continue  # the classes are not a matter of width
        assert shapes[parameter.name][0] == 2 * parameter.shape[0]
    assert len({parameter.name for parameter in network.parameters}) == len(network.parameters)
    assert len({name for name in network.layer_names if name}) == len([name for name in network.layer_names if name])


def test_what_is_no_model():
    for make, message in (
        (lambda: make_model("alexnet"), r"^model 'alexnet' is unknown; choose one of mlp, lenet5"),
        (lambda: make_model("lenet5", depth=3), r"^model 'lenet5': .*unexpected keyword argument 'depth'"),
        (lambda: make_model("mlp", 1), r"^a model needs at least 2 classes, got 1$"),
        (lambda: make_model("mlp", True), r"^a model needs at least 2 classes, got True$"),
        (lambda: make_model("mlp", width=0), r"^width is a factor above 0 and up to 64, got 0$"),
        (lambda: make_model("binary_resnet18", weights="ternary"), r"^weights are binary or full, got 'ternary'$"),
        (lambda: make_model("binary_resnet18", window="cubic"), r"window .*'cubic'"),
        (lambda: make_model("preresnet164", depth=57), r"^depth must be 9 n \+ 2 from 56 on or 6 n \+ 2 below, got 57$"),
        (lambda: Network(models.lenet5(), (8, 8, 1), WIDE), r"^layer 'conv2' \(Conv2D\) needs images of at"),
        (lambda: Network(models.resnet20(), (32,), WIDE), r"^layer 'conv1' \(Conv2D\) needs images"),
    ):
        with pytest.raises(InputError, match=message):
            make()


# Every model in every recipe --------------------------------------------------------------------------------------------

SMALL = {
    "mlp": 1 / 4,
    "lenet5": 1 / 4,
    "vgg_small": 1 / 16,
    "vgg16": 1 / 16,
    "resnet18": 1 / 8,
    "binary_resnet18": 1 / 8,
    "resnet20": 1,
    "preresnet164": 1,
}


def batch_of(recipe, shape, count, seed=0):
    role = recipe.activation.format
    form = BlockFloat(role.word_bits) if isinstance(role, BlockFloat) else role
    x = quantize(np.random.default_rng(seed).random((count, *shape)), form, "ties_even", "saturate")
    return QTensor(x.mantissa, x.exponent.reshape((1,) * (len(shape) + 1)), form)


def train(network, optimizer, steps, count=2, batches=None):
    classes = network.output_shape[0]
    for number in range(steps):
        x = batch_of(network.recipe, network.shape, count, number % (batches or steps))
        labels = np.random.default_rng(number).integers(0, classes, count)
        step = Step(number, 5, True)
        network.backward(network.loss.gradient(network.forward(x, step), labels, step), step)
        for parameter in network.parameters:
            optimizer.update(parameter, optimizer.schedule.at(0, 1), count, step)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_a_step_in_every_recipe(name, recipe):
    """On small images where the model takes them; a step moves weights, and evaluation sees every sample alone."""
    shape = MODELS[name].shape or (8, 8, 1)
    shape = (8, 8, 3) if "resnet" in name or name == "vgg_small" else shape
    options = {"depth": 20} if name == "preresnet164" else {}
    network = Network(make_model(name, width=SMALL.get(name, 1), **options), shape, recipe)
    optimizer = SGD("2^3" if recipe == "niti8" else "2^-3")
    before = network.digest()
    train(network, optimizer, 1)
    assert network.digest() != before
    x = batch_of(network.recipe, shape, 3)
    y = network.forward(x)
    assert y.shape == (3, 10)
    for i in range(3):
        one = network.forward(QTensor(x.mantissa[i : i + 1], x.exponent, x.format))
        assert np.array_equal(one.to_float(), y.to_float()[i : i + 1])


# Replay -----------------------------------------------------------------------------------------------------------------

# Written out, so that tuning the ready-made recipes moves no hash.
FIXED = Recipe(
    "fixed", weight="fxp-s16/12 stochastic", activation="fxp-s16/10 ties_even", error="fxp-s16/12 stochastic",
    gradient="fxp-s16/9 stochastic", momentum="fxp-s16/8 stochastic",
)  # fmt: skip
BLOCKS = Recipe(
    "blocks", weight="bfp-s8/row stochastic", activation="bfp-s8/sample stochastic", error="bfp-s8/sample stochastic",
    gradient="bfp-s8/row stochastic", momentum="bfp-s8/row stochastic", master="fxp-s16/12 stochastic", alignment_bits=16,
)  # fmt: skip
PLACES = Recipe(
    "places", weight="bfp-s8/tensor ties_away saturate_symmetric", activation="bfp-s8/tensor ties_away saturate_symmetric",
    error="bfp-s8/tensor ties_away saturate_symmetric", gradient="bfp-s8/tensor pseudo_stochastic saturate_symmetric",
    update="normalized", biases=False, loss="niti_cross_entropy",
)  # fmt: skip

TINY = {
    "mlp": (lambda: models.mlp(4, 1 / 8), (5, 5, 1)),
    "lenet5": (lambda: models.lenet5(4, 1 / 10), (16, 16, 1)),
    "vgg_small": (lambda: models.vgg_small(4, 1 / 32, batch_norm=False, dropout=0.25), (8, 8, 3)),
    "vgg_small with batch norm": (lambda: models.vgg_small(4, 1 / 32), (8, 8, 3)),
    "resnet20": (lambda: models.resnet20(4, 1 / 4), (8, 8, 3)),
    "binary_resnet18": (lambda: models.binary_resnet18(4, 1 / 32), (8, 8, 3)),
    "preresnet20": (lambda: models.preresnet164(4, 1 / 4, depth=20), (8, 8, 3)),
}
OPTIMIZERS = {
    "fixed": (FIXED, lambda: SGD("2^-4", momentum="0.9", decay="2^-10")),
    "blocks": (BLOCKS, lambda: SGD("0.05", momentum="2^-1")),
    "places": (PLACES, lambda: SGD("2^2")),
}
PINNED = {
    ("mlp", "fixed"): "41284ea9a21f1c7b",
    ("mlp", "blocks"): "d95f549f92b34a91",
    ("mlp", "places"): "c68e7158fcc0b70d",
    ("lenet5", "fixed"): "6279b1cfa3d5c74d",
    ("lenet5", "blocks"): "f6ff7dd9b4d79c65",
    ("lenet5", "places"): "f73b6f8ff24aa155",
    ("vgg_small", "fixed"): "5b6b6355551750ab",
    ("vgg_small", "blocks"): "319a6ad8dc9d32cb",
    ("vgg_small", "places"): "aba4709f16d457eb",
    ("vgg_small with batch norm", "fixed"): "296cb2d98da7fe86",
    ("vgg_small with batch norm", "blocks"): "3c361ba68aad6a62",
    ("vgg_small with batch norm", "places"): "46da2dc03f636259",
    ("resnet20", "fixed"): "3038e7fa588b8d80",
    ("resnet20", "blocks"): "8381c0481116f867",
    ("resnet20", "places"): "3497298521c11c92",
    ("binary_resnet18", "fixed"): "6760c3e53219410c",
    ("binary_resnet18", "blocks"): "00e5c2d490a97844",
    ("binary_resnet18", "places"): "a08a00a6cf20259a",
    ("preresnet20", "fixed"): "fd0853875422b7ea",
    ("preresnet20", "blocks"): "5fd14414c551c5e5",
    ("preresnet20", "places"): "9557d7414cc55463",
}


def replay(model, recipe, steps=50):
    """Return a hash of the weights, and of what telemetry counted, after so many steps."""
    make, shape = TINY[model]
    form, optimizer = OPTIMIZERS[recipe]
    network = Network(make(), shape, form, seed=9)
    train(network, optimizer(), steps, count=4, batches=8)
    counted = repr([seen for seen in network.seen() if seen.role != "running"])
    return hashlib.sha256((network.digest() + counted).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("model", "recipe"), list(PINNED))
def test_replay_of_fifty_steps(model, recipe):
    assert replay(model, recipe) == PINNED[model, recipe]


def test_dense_layers_of_a_model_are_called_in_order():
    network = Network(models.mlp(), (784,), "fixed16")
    assert [layer.name for layer in network.layers.walk() if isinstance(layer, Dense)] == ["dense1", "dense2", "dense3"]


if __name__ == "__main__":
    for one in [(model, recipe) for model in TINY for recipe in OPTIMIZERS]:
        print(f'    {one}: "{replay(*one)}",'.replace("'", '"'))
