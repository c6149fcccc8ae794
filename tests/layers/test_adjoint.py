"""Backward of every linear layer is the transpose of forward: (A x) . u == x . (A^T u), in integers, exactly.

Words are wide and values few, so that nothing is rounded: what is tested is which numbers meet.
"""

import naive
import numpy as np
import pytest

from intnet.formats import Fixed
from intnet.layers import AvgPool2D, Build, Conv2D, Dense, Flatten, GlobalAvgPool, MaxPool2D, Residual, Sequential, Step
from intnet.recipe import Recipe
from intnet.tensor import QTensor

RECIPE = Recipe(
    "exact",
    weight="fxp-s8/0",
    activation="fxp-s32/8",
    error="fxp-s32/8",
    gradient="fxp-s32/8",
    accumulator_bits=64,
    biases=False,
)
TRAINING = Step(0, 0, True)

LAYERS = {
    "dense": (lambda: Dense(7), (5,)),
    "conv": (lambda: Conv2D(3, 3), (5, 6, 2)),
    "conv stride": (lambda: Conv2D(4, (3, 2), stride=(2, 3), padding=(1, 0, 2, 1)), (6, 7, 3)),
    "conv groups": (lambda: Conv2D(6, 3, padding="same", groups=3), (4, 4, 6)),
    "conv 1x1 stride": (lambda: Conv2D(4, 1, stride=2), (5, 5, 3)),
    "sum-pool": (lambda: AvgPool2D(2), (6, 4, 3)),
    "sum-pool overlapping": (lambda: AvgPool2D(4, stride=2, padding=(1, 2, 0, 3)), (7, 6, 2)),
    "max-pool": (lambda: MaxPool2D(2), (6, 5, 3)),
    "max-pool overlapping": (lambda: MaxPool2D(3, stride=2, padding=1), (7, 6, 2)),
    "global sum": (GlobalAvgPool, (4, 8, 3)),
    "flatten": (Flatten, (2, 3, 4)),
    "residual": (lambda: Residual([Dense(5)]), (5,)),
    "residual of two": (lambda: Residual([Conv2D(3), Conv2D(2, padding=1)], Conv2D(2, 3)), (5, 6, 2)),
    "deep": (lambda: Sequential(Conv2D(3, 3), MaxPool2D(2), Residual([Conv2D(3, padding=1)]), Flatten(), Dense(4)), (6, 6, 1)),
}


def dot(a, b):
    return (naive.value_of(a) * naive.value_of(b)).sum()


@pytest.mark.parametrize("name", LAYERS)
def test_backward_is_the_transpose(name):
    make, shape = LAYERS[name]
    layer, rng = make(), np.random.default_rng(0)
    out = layer.build(shape, Build(RECIPE, 0, ("one",)))
    for parameter in layer.parameters:
        mantissa = rng.integers(-9, 10, parameter.shape, np.int8)
        parameter.value = QTensor(mantissa, np.zeros((1,) * mantissa.ndim, np.int64), parameter.value.format)
    x, u = (
        QTensor(
            rng.integers(-128, 128, (3, *lengths)).astype(np.int32) * 32, np.full((1,) * (len(lengths) + 1), -8), Fixed(32, 8)
        )
        for lengths in (shape, out)
    )
    y = layer.forward(x, TRAINING)
    back = layer.backward(u, TRAINING)
    assert dot(y, u) == dot(x, back) != 0
    if len(layer.parameters) == 1 and not isinstance(layer, Residual):  # linear in the weights too
        assert dot(y, u) == dot(layer.parameters[0].value, layer.parameters[0].gradient)
    for one in layer.walk():
        assert all(not quantizer.counters[:2].any() for quantizer in one.quantizers.values())  # nothing saturated
