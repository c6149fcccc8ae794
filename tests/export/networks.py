"""Networks for exporters: every kind of layer, parameters of all sizes, and inputs from zero to the ends of their word."""

import numpy as np

from intnet import layers
from intnet.recipe import RECIPES
from intnet.tensor import QTensor

FIXED = RECIPES["fixed16"]


def inputs_of(network, count=3, seed=0):
    """Return samples: zeros, the least, the greatest, and random words of all sizes."""
    form = network.recipe.activation.format
    draws = np.random.default_rng(seed)
    x = draws.integers(form.minimum, form.maximum, (count + 3, *network.shape), endpoint=True)
    x[:3] = np.array([0, form.minimum, form.maximum]).reshape(3, *[1] * len(network.shape))
    x[-1] >>= form.word_bits // 2
    return QTensor(x.astype(form.storage), np.full((1,) * x.ndim, -form.fraction_bits), form)


def scatter(network, seed=1, extreme=False):
    """Give a network random parameters, the least and greatest words among them, and running statistics."""
    draws, state = np.random.default_rng(seed), network.state()
    for one in network.parameters:
        form = one.value.format
        for part in ("value", "master"):
            key = f"{one.name}/{part}"
            if key not in state:
                continue
            form = getattr(one, part).format
            old = state[key].astype(np.int64)
            new = old + draws.integers(-(2 ** (form.word_bits - 3)), 2 ** (form.word_bits - 3) + 1, old.shape)
            if extreme:
                new = draws.choice([form.minimum, form.maximum, 0], old.shape)
            state[key] = np.clip(new, form.minimum, form.maximum).astype(state[key].dtype)
    for key in state:
        if key.endswith("running_mean"):
            state[key] = draws.integers(-(2**33), 2**33, state[key].shape)
        if key.endswith("running_variance"):
            state[key] = draws.integers(0, 2**34, state[key].shape)
    network.load_state(state)
    return network


KINDS = {
    "dense": (lambda: [layers.Dense(5), layers.ReLU(), layers.Dense(3, bias=False)], (7,)),
    "convolution": (lambda: [layers.Conv2D(4, 3), layers.ReLU(), layers.MaxPool2D(2), layers.Flatten(), layers.Dense(3)],
                    (6, 7, 2)),
    "stride and padding": (lambda: [layers.Conv2D(3, (2, 3), stride=(2, 1), padding=(1, 0, 2, 1))], (5, 4, 2)),
    "same": (lambda: [layers.Conv2D(3, 3, padding="same", bias=True)], (4, 5, 1)),
    "groups": (lambda: [layers.Conv2D(6, 2, groups=3)], (3, 4, 6)),
    "binary convolution": (lambda: [layers.Sign(), layers.BinaryConv2D(3, 2), layers.BatchNorm()], (4, 4, 2)),
    "pools": (lambda: [layers.MaxPool2D(3, stride=2, padding=1), layers.AvgPool2D(2, stride=1, padding=(1, 0, 0, 1)),
                       layers.AvgPool2D(3, stride=1)], (7, 6, 2)),
    "global pool": (lambda: [layers.Conv2D(4, 2), layers.GlobalAvgPool(), layers.Dense(2)], (4, 5, 1)),
    "batch normalization": (lambda: [layers.Conv2D(3, 2), layers.BatchNorm(), layers.ReLU()], (4, 4, 2)),
    "residual": (lambda: [layers.Residual([layers.Conv2D(2, 3, padding=1), layers.BatchNorm()]), layers.ReLU(),
                          layers.Residual([layers.Conv2D(3, 1)], [layers.Conv2D(3, 1, bias=False), layers.BatchNorm()])],
                 (3, 4, 2)),
    "activations": (lambda: [layers.LeakyReLU(2), layers.Dense(6), layers.HardTanh(), layers.Dense(6), layers.Sigmoid(),
                             layers.Dense(6), layers.Tanh(), layers.Dropout(0.5), layers.Dense(6), layers.Sign()], (6,)),
}  # fmt: skip
