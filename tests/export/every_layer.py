"""What tests of ONNX graphs share: networks of every kind of layer, and what each of their layers gives."""

import numpy as np

from intnet import layers
from intnet.layers import Step
from intnet.network import Network
from intnet.recipe import Recipe
from intnet.tensor import QTensor


def recipe(bits, of_weights, of_others, **changes):
    """Return a fixed-point recipe of words of one length, with so many fraction bits."""
    roles = dict.fromkeys(("activation", "error", "gradient"), f"fxp-s{bits}/{of_others}")
    return Recipe("made", **{"weight": f"fxp-s{bits}/{of_weights} ties_even", **roles, **changes})


def fill(network, least, greatest, seed=0):
    """Give every parameter random integers."""
    random = np.random.default_rng(seed)
    for one in network.parameters:
        one.value.mantissa[...] = random.integers(least, greatest + 1, one.shape)
    for layer in network.layers.walk():
        if isinstance(layer, layers.BatchNorm):
            layer.running_mean[:] = random.integers(-(2**34), 2**34, layer.running_mean.shape)
            layer.running_variance[:] = random.integers(2**26, 2**36, layer.running_variance.shape)
    return network


def inputs_of(network, count, seed=0):
    """Return input integers: the extremes, zeros, and random ones."""
    form = network.recipe.activation.format
    random = np.random.default_rng(seed)
    x = random.integers(form.minimum, form.maximum + 1, (count, *network.shape)).astype(form.storage)
    x[0], x[1], x[2] = form.minimum, form.maximum, 0
    x[3] = np.where(random.random(network.shape) < 0.5, form.minimum, form.maximum)
    return x


def outputs_of_layers(network, x):
    """Return the integers and the real numbers that every layer gives for input integers, by its name."""
    form, seen = network.recipe.activation.format, {}

    def watched(layer, forward):
        def run(x, step):
            y = forward(x, step)
            seen[layer.name] = (y.mantissa, y.to_float())
            return y

        return run

    every = [layer for layer in network.layers.walk() if not isinstance(layer, layers.Sequential)]
    for layer in every:
        layer.forward = watched(layer, layer.forward)
    try:
        network.forward(QTensor(x, np.full((1,) * x.ndim, -form.fraction_bits), form), Step())
    finally:
        for layer in every:
            del layer.forward
    return seen


def dense(recipe, inputs=6, seed=0):
    """Return a perceptron with every activation function."""
    made = [
        layers.Dense(9), layers.ReLU(), layers.Dense(8), layers.LeakyReLU(3), layers.Dense(8), layers.HardTanh(),
        layers.Dense(7), layers.Sigmoid(), layers.Dense(6), layers.Tanh(), layers.Dense(5), layers.Dropout(), layers.Sign(),
        layers.Dense(4, bias=False),
    ]  # fmt: skip
    return Network(made, (inputs,), recipe, seed)


def images(recipe, batch_norm=True, window=(2, 3), seed=0):
    """Return a network of images with every layer for them, strides, paddings and groups."""
    norm = [layers.BatchNorm()] if batch_norm else []
    body = [layers.Conv2D(6, 3, padding=1), *norm, layers.ReLU(), layers.Conv2D(6, (1, 2), padding=(0, 0, 0, 1))]
    made = [
        layers.Conv2D(6, (3, 2), padding=(1, 1, 1, 0), groups=2), *[type(one)() for one in norm], layers.ReLU(),
        layers.Residual(body), layers.MaxPool2D(2, stride=1, padding=(1, 0, 0, 1)),
        layers.Residual([layers.Conv2D(4, 3, stride=2, padding=1)], [layers.Conv2D(4, 1, stride=2)]),
        layers.AvgPool2D(window, stride=1, padding=(1, 0, 1, 0)), layers.Sign(), layers.BinaryConv2D(5, 2),
        layers.GlobalAvgPool() if batch_norm else layers.Flatten(), layers.Dense(3),
    ]  # fmt: skip
    return Network(made, (6, 5, 4), recipe, seed)
