"""Layers and small networks against float64: the error is bounded by a constant times 2**-word_bits, and falls with it."""

import float_reference
import numpy as np
import pytest

from intnet.formats import BlockFloat, Fixed
from intnet.layers import (
    AvgPool2D,
    BatchNorm,
    Build,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    HardTanh,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Sign,
    Step,
    Tanh,
)  # fmt: skip
from intnet.network import Network
from intnet.recipe import Recipe
from intnet.tensor import QTensor, quantize

WORDS = (8, 12, 16, 24)
STEP = Step(2, 7, True)


def recipe_of(word_bits, block="tensor", **changes):
    form = f"bfp-s{word_bits}/{block}"
    roles = dict.fromkeys(("weight", "activation", "error", "gradient"), form)
    return Recipe("test", **{**roles, "accumulator_bits": 64, "alignment_bits": 64, **changes})


def blocks(values, word_bits):
    return quantize(values, BlockFloat(word_bits), "ties_even", "saturate")


def relative(a, b):
    """Return the greatest error, as a part of the greatest magnitude."""
    return np.abs(a - b).max() / np.abs(b).max()


def gradient_of(parameter):
    return parameter.gradient.mantissa * np.ldexp(1.0, parameter.gradient.exponent)


# One layer --------------------------------------------------------------------------------------------------------------

# How many units in the last place of the largest result may be wrong, of 2**-(word_bits - 1): 1/2 is one rounding to nearest,
# 1 one that saturates where rounding carries. What rounds twice, or multiplies by a rounded factor, has more.
ONE = {
    "dense": (lambda: Dense(7), (5,), 1),
    "conv": (lambda: Conv2D(4, 3, stride=2, padding=1), (6, 5, 3), 1),
    "groups": (lambda: Conv2D(4, 3, groups=2), (4, 5, 6), 1),
    "relu": (ReLU, (9,), 0),
    "leaky relu": (lambda: LeakyReLU(3), (9,), 2),
    "hard tanh": (HardTanh, (9,), 0),
    "max-pool": (lambda: MaxPool2D(2), (6, 5, 3), 0),
    "max-pool overlapping": (lambda: MaxPool2D(3, stride=2, padding=1), (6, 5, 2), 1),
    "avg-pool": (lambda: AvgPool2D(2), (6, 5, 3), 1),
    "global avg-pool": (GlobalAvgPool, (4, 4, 3), 1),
    "flatten": (Flatten, (2, 3, 4), 0),
    "residual": (lambda: Residual([LeakyReLU(1)]), (9,), 2),
    "dropout half": (Dropout, (9,), 0),
    "sign clip": (Sign, (9,), 0),
    "sign identity": (lambda: Sign("identity"), (9,), 0),
    "sign polynomial": (lambda: Sign("polynomial"), (9,), 1),
    "batch norm": (BatchNorm, (9,), 2),
    "batch norm of images": (BatchNorm, (3, 2, 4), 2),
}
# These multiply by a fraction of 16 bits besides: AvgPool2D's and Dropout's docstrings.
FRACTIONS = {
    "avg-pool of nine": (lambda: AvgPool2D(3, stride=1, padding=1), (5, 4, 2)),
    "global avg-pool of six": (GlobalAvgPool, (2, 3, 4)),
    "dropout": (lambda: Dropout(0.3), (9,)),
}
TABLE = {"sigmoid": (Sigmoid, (9,)), "tanh": (Tanh, (9,))}


def run(make, shape, word_bits, seed=0, samples=6):
    """Return the results of one layer, forward, backward and gradients, and those of the reference."""
    layer, rng = make(), np.random.default_rng(seed)
    out = layer.build(shape, Build(recipe_of(word_bits), 1, ("one",)))
    x, dy = (blocks(rng.standard_normal((samples, *lengths)), word_bits) for lengths in (shape, out))
    ref = float_reference.Reference(layer, STEP)
    comp = [layer.forward(x, STEP).to_float(), layer.backward(dy, STEP).to_float()]
    expected = [ref.forward(x.to_float()), ref.backward(dy.to_float())]
    for parameter in layer.parameters:
        comp.append(gradient_of(parameter))
        expected.append(ref.gradients[parameter.name])
    return comp, expected


@pytest.mark.parametrize("name", ONE)
def test_one_layer_is_rounded_once(name):
    make, shape, units = ONE[name]
    for word_bits in WORDS:
        for comp, ref in zip(*run(make, shape, word_bits), strict=True):
            assert relative(comp, ref) <= units * 2.0 ** (1 - word_bits) + 1e-14, word_bits


@pytest.mark.parametrize("name", FRACTIONS)
def test_one_layer_that_multiplies_by_a_fraction_of_16_bits(name):
    make, shape = FRACTIONS[name]
    for word_bits in WORDS:
        for comp, ref in zip(*run(make, shape, word_bits), strict=True):
            assert relative(comp, ref) <= 2.0 ** (1 - word_bits) + 2.0**-16, word_bits


@pytest.mark.parametrize("name", TABLE)
def test_tables_are_as_fine_as_their_argument(name):
    """The bounds of the docstrings: the rounding of the argument times the slope, and that of the result."""
    make, shape = TABLE[name]
    for word_bits in WORDS:
        (y, dx), (ref, dref) = run(make, shape, word_bits)
        argument = {"tanh": (2.0**-9, 2.0**-13), "sigmoid": (2.0**-11, 2.0**-14)}[name][word_bits > 8]
        bound = argument + 2.0 ** -min(word_bits, 16)
        assert np.abs(y - ref).max() <= bound
        # the slope is y (1 - y) or 1 - y**2: it errs by 2 y at most, beside the rounding of the error
        assert np.abs(dx - dref).max() <= (2 * bound + 2.0 ** (1 - word_bits)) * 4


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("word_bits", [8, 12, 16])
def test_tables_of_fixed_words_round_once(name, word_bits):
    """Every argument of the format: the result is the nearest number, or the last one where the word does not hold 1."""
    form = Fixed(word_bits, word_bits - 1 - 3)
    changes = dict.fromkeys(("weight", "activation", "error", "gradient"), str(form))
    layer = TABLE[name][0]()
    codes = np.arange(form.minimum, form.maximum + 1, dtype=form.storage)[None]
    layer.build(codes.shape[1:], Build(recipe_of(8, **changes), 1, ("one",)))
    y = layer.forward(QTensor(codes, np.array([[-form.fraction_bits]]), form), STEP).to_float()
    x = codes * 2.0**-form.fraction_bits
    assert np.abs(y - (np.tanh(x) if name == "tanh" else 1 / (1 + np.exp(-x)))).max() <= 2.0 ** (-1 - form.fraction_bits)


# Whole networks ---------------------------------------------------------------------------------------------------------


def images(*middle):
    return lambda: Sequential(
        Conv2D(4, 3, padding=1), *[layer() for layer in middle], MaxPool2D(2), Flatten(), Dense(6), ReLU(), Dense(3)
    )


NETWORKS = {
    "mlp": lambda: Sequential(Flatten(), Dense(8), ReLU(), Dense(6), ReLU(), Dense(3)),
    "leaky": images(LeakyReLU),
    "hard tanh, average": lambda: Sequential(Conv2D(4), HardTanh(), AvgPool2D(2, stride=1), Flatten(), Dense(3)),
    "residual": images(ReLU, lambda: Residual([Conv2D(4, padding=1), ReLU(), Conv2D(4, padding=1)])),
    "projection": images(lambda: Residual([Conv2D(5, 3, stride=2, padding=1)], [Conv2D(5, 1, stride=2)])),
    "global": lambda: Sequential(Conv2D(6, 3), ReLU(), GlobalAvgPool(), Dense(3)),
    "dropout": lambda: Sequential(Flatten(), Dense(8), LeakyReLU(), Dropout(), Dense(3)),
    "batch norm": lambda: Sequential(Conv2D(4, bias=False), BatchNorm(), LeakyReLU(), GlobalAvgPool(), Dense(3)),
}


def train_step(network, word_bits, seed):
    """Return outputs, gradient of the loss and all gradients of one step, and the same in float64."""
    rng = np.random.default_rng(seed)
    x, labels = blocks(rng.standard_normal((8, *network.shape)), word_bits), rng.integers(0, 3, 8)
    for parameter in network.parameters:  # biases that matter
        if parameter.name.endswith("bias"):
            parameter.value = blocks(rng.uniform(-0.5, 0.5, parameter.shape), word_bits)
    y = network.forward(x, STEP)
    network.backward(network.loss.gradient(y, labels, STEP), STEP)
    reference = float_reference.Reference(network.layers, STEP)
    real = reference.forward(x.to_float())
    gradient, loss = getattr(float_reference, network.loss.name)(real, labels)
    assert network.loss.value(real, labels) == pytest.approx(loss)
    reference.backward(gradient)
    assert set(reference.gradients) == {parameter.name for parameter in network.parameters}
    errors = [relative(gradient_of(one), reference.gradients[one.name]) for one in network.parameters]
    return max(relative(y.to_float(), real), *errors)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_errs_by_a_constant_times_a_unit(name, loss):
    """At most 2**6 units of the last place, in any output or gradient, however wide the words: so it falls with them.

    Measured are 3 to 46. With other seeds, 12 bits may decide otherwise than float64 on which side of 0 a value lies, or which
    pixel of a window is largest: then a gradient jumps. Of 8 bits that is the rule, so they have a test of their own.
    """
    errors = {}
    for word_bits in WORDS[1:]:
        network = Network(NETWORKS[name](), (6, 6, 2), recipe_of(word_bits), seed=4 if name == "residual" else 3, loss=loss)
        errors[word_bits] = train_step(network, word_bits, seed=1)
        assert errors[word_bits] <= 2.0 ** (6 - word_bits), errors
    assert errors[24] < errors[16] / 16 < errors[12] / 64


def test_blocks_a_sample_are_no_coarser():
    network = Network(NETWORKS["residual"](), (6, 6, 2), recipe_of(16, "row"), seed=3)
    assert train_step(network, 16, seed=1) <= 2.0 ** (6 - 16)


def test_words_of_8_bits_in_the_mean():
    """Eight bits: half the gradient of a layer may move when a pixel of a max-pool does, the direction stays."""
    network = Network(NETWORKS["mlp"](), (6, 6, 2), recipe_of(8), seed=3)
    assert train_step(network, 8, seed=1) <= 0.5


def test_evaluation_of_batch_norm_uses_running_statistics():
    layer = BatchNorm()
    layer.build((5,), Build(recipe_of(16), 1, ("one",)))
    rng = np.random.default_rng(0)
    for _ in range(3):
        layer.forward(blocks(rng.normal(2, 3, (32, 5)), 16), STEP)
    x, step = blocks(rng.normal(2, 3, (4, 5)), 16), Step()
    ref = float_reference.Reference(layer, step).forward(x.to_float())
    assert relative(layer.forward(x, step).to_float(), ref) <= 2.0**-14
    one = layer.forward(QTensor(x.mantissa[1:2], x.exponent, x.format), step)
    assert np.array_equal(one.to_float(), layer.forward(x, step).to_float()[1:2])
