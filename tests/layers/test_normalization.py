"""The layer of batch normalization: near float64 as words widen, in evaluation row by row, and its state."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from intnet import kernels
from intnet.errors import InputError
from intnet.layers import Build, Step
from intnet.layers.normalization import BatchNorm
from intnet.recipe import RECIPES
from intnet.tensor import QTensor, dequantize, quantize

TRAINING, EVALUATION = Step(training=True), Step()
WIDE = replace(
    RECIPES["wide"],
    **dict.fromkeys(("activation", "error", "weight"), "fxp-s32/20 ties_even saturate"),
    master=None,
    accumulator_bits=64,
)


def layer_for(shape, recipe=WIDE, **options):
    layer = BatchNorm(**options)
    assert layer.build(shape, Build(recipe, 0, ("batch_norm1",))) == shape
    random = np.random.default_rng(1)
    for parameter in (layer.gamma, layer.beta):
        parameter.value = quantize(random.normal(size=shape[-1:]), parameter.value.format)
    return layer


def numbers(shape, form="fxp-s16/8", seed=0):
    random = np.random.default_rng(seed)
    return quantize(random.normal(size=shape) * random.uniform(0.2, 5, shape[-1]) + random.normal(size=shape[-1]), form)


def normalized(layer, x):
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + 2.0**-layer.epsilon_shift)


@pytest.mark.parametrize("shape", [(40, 5), (6, 3, 4, 5)])
@pytest.mark.parametrize("form", ["fxp-s16/8", "bfp-s8/sample", "bfp-s8/tensor"])
def test_both_passes_are_near_float64(shape, form):
    layer = layer_for(shape[1:])
    x, dy = numbers(shape, form), numbers(shape, form, seed=2)
    y = layer.forward(x, TRAINING)
    gamma, beta = dequantize(layer.gamma.value), dequantize(layer.beta.value)
    values, errors = dequantize(x), dequantize(dy)
    expected = normalized(layer, values)
    assert y.format == layer.recipe.activation.format
    assert_allclose(dequantize(y), gamma * expected + beta, atol=2e-5)
    dx = layer.backward(dy, TRAINING)
    axes = tuple(range(values.ndim - 1))
    sigma = np.sqrt(values.var(axes) + 2.0**-17)
    along = expected * (errors * expected).mean(axes)
    assert_allclose(dequantize(dx), gamma / sigma * (errors - errors.mean(axes) - along), atol=5e-5)
    assert_allclose(dequantize(layer.gamma.gradient), (errors * expected).sum(axes), atol=1e-4)
    assert_allclose(dequantize(layer.beta.gradient), errors.sum(axes), rtol=1e-12, atol=1e-12)


def test_running_statistics_and_evaluation():
    layer = layer_for((5,))
    mean, variance = np.zeros(5), np.ones(5)
    for seed in range(30):
        x = numbers((40, 5), seed=seed)
        layer.forward(x, TRAINING)
        values = dequantize(x)
        mean += (values.mean(0) - mean) / 8
        variance += (values.var(0, ddof=1) - variance) / 8
    assert_allclose(layer.running_mean / 2.0**32, mean, atol=1e-8)
    assert_allclose(layer.running_variance / 2.0**32, variance, rtol=1e-8)
    before = layer.running_mean.copy()
    x = numbers((9, 5), seed=99)
    y = layer.forward(x, EVALUATION)
    expected = (dequantize(x) - mean) / np.sqrt(variance + 2.0**-17)
    assert_allclose(dequantize(y), dequantize(layer.gamma.value) * expected + dequantize(layer.beta.value), atol=2e-5)
    assert_array_equal(layer.running_mean, before)


@pytest.mark.parametrize("form", ["fxp-s16/8", "fxp-s48/40", "bfp-s8/sample", "bfp-s8/tensor"])
@pytest.mark.parametrize("name", ["bfp8", "int8", "wide"])
def test_evaluation_treats_samples_alone(form, name):
    layer = layer_for((2, 2, 5), RECIPES[name])
    layer.forward(numbers((6, 2, 2, 5), form), TRAINING)
    x = numbers((6, 2, 2, 5), form, seed=5)
    if x.exponent.size > 1:
        x = QTensor.trusted(x.mantissa, x.exponent - 20 * (np.arange(6) % 2).reshape(-1, 1, 1, 1), x.format)
    together = layer.forward(x, EVALUATION)
    for i in range(6):
        exponent = x.exponent[i : i + 1] if x.exponent.size > 1 else x.exponent
        alone = layer.forward(QTensor.trusted(x.mantissa[i : i + 1].copy(), exponent, x.format), EVALUATION)
        assert_array_equal(alone.mantissa[0], together.mantissa[i], strict=True)
        assert alone.exponent.flat[0] == together.exponent.reshape(-1)[i % together.exponent.size]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe(name):
    layer = layer_for((4, 4, 6), RECIPES[name])
    x = quantize(np.random.default_rng(0).normal(size=(8, 4, 4, 6)), layer.recipe.activation.format)
    y = layer.forward(x, TRAINING)
    dx = layer.backward(QTensor.trusted(y.mantissa, y.exponent, y.format), TRAINING)
    assert y.mantissa.shape == dx.mantissa.shape == x.mantissa.shape
    assert layer.forward(x, EVALUATION).format.word_bits == y.format.word_bits
    assert [seen.count for seen in (layer.quantizers[role].seen() for role in ("activation", "error", "running"))] == [
        x.mantissa.size, x.mantissa.size, 12,
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_results_rounded_at_once_are_those_of_bring(name, monkeypatch):
    step = Step(number=3, seed=4, training=True)
    x = quantize(np.random.default_rng(0).normal(size=(8, 4, 4, 6)), RECIPES[name].activation.format)
    results, seen = [], []
    for apart in (False, True):
        layer = layer_for((4, 4, 6), RECIPES[name])
        if apart:
            monkeypatch.setattr(layer, "bring_map", lambda linear, shape, role, step, layer=layer: layer.bring(
                QTensor.trusted(kernels.evaluate(linear)[0].reshape(shape), linear.exponent), role, step
            ))  # fmt: skip
        y = layer.forward(x, step)
        results.append((y, layer.backward(y, step)))
        seen.append([layer.quantizers[role].seen() for role in ("activation", "error")])
    for one, other in zip(*results, strict=True):
        assert_array_equal(one.mantissa, other.mantissa, strict=True)
        assert_array_equal(one.exponent, other.exponent, strict=True)
        assert one.format == other.format
    assert seen[0] == seen[1]


def test_running_statistics_saturate_and_are_counted():
    layer = layer_for((2,))
    layer.forward(QTensor.trusted(np.array([[100, 1], [-100, 1]], np.int8), 12), TRAINING)
    seen = layer.quantizers["running"].seen()
    assert (seen.saturated, seen.count, seen.fraction_bits) == (1, 4, kernels.RUNNING_BITS)
    assert layer.running_variance[0] == 2**32 + (2**61 - 1 - 2**32 + 4) // 8


def test_state_goes_round_and_foreign_state_is_refused():
    layer, other = layer_for((5,)), layer_for((5,))
    layer.forward(numbers((40, 5)), TRAINING)
    state = layer.state()
    other.load_state({**state, "another": np.zeros(1)})
    assert_array_equal(other.running_mean, layer.running_mean)
    assert_array_equal(other.running_variance, layer.running_variance)
    variance = "batch_norm1/running_variance"
    for bad, message in (
        ({}, "there is no batch_norm1/running_mean"),
        ({**state, variance: state[variance][:3]}, "shape"),
        ({**state, variance: state[variance].astype(np.float64)}, "int64"),
        ({**state, variance: -state[variance]}, "must lie in 0"),
    ):
        with pytest.raises(InputError, match=message):
            other.load_state(bad)
        assert_array_equal(other.running_variance, layer.running_variance)


def test_the_first_layer_gives_no_gradient_of_its_inputs():
    layer = layer_for((5,))
    assert layer.stop_here()
    dy = numbers((40, 5))
    layer.forward(dy, TRAINING)
    assert layer.backward(dy, TRAINING) is dy
    assert layer.gamma.gradient is not None


def test_what_cannot_work_is_refused():
    with pytest.raises(InputError, match="momentum_shift"):
        BatchNorm(momentum_shift=-1)
    with pytest.raises(InputError, match="epsilon_shift"):
        BatchNorm(epsilon_shift=1.5)
    with pytest.raises(InputError, match="channels"):
        BatchNorm().build((), Build(WIDE, 0, ("batch_norm1",)))
    layer = layer_for((5,))
    with pytest.raises(InputError, match="backward needs a forward pass"):
        layer.backward(numbers((4, 5)), TRAINING)
    with pytest.raises(InputError, match="nothing"):
        layer.forward(QTensor.trusted(np.zeros((0, 5), np.int8), 0), TRAINING)
