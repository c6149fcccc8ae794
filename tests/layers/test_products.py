"""Products and sums of two sides: every number equals exact sums, rounded once by the recipe, for all kinds of blocks."""

from fractions import Fraction
from itertools import product

import naive
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.errors import InputError
from intnet.formats import BlockFloat, parse_format
from intnet.layers import BinaryConv2D, Build, Conv2D, Dense, Residual, Step
from intnet.recipe import Recipe
from intnet.tensor import QTensor

ACTIVATIONS = ("fxp-s8/5", "bfp-s8/tensor", "bfp-s8/row")
WEIGHTS = ("fxp-s8/6", "bfp-s8/tensor", "bfp-s8/row")
TRAINING = Step(3, 5, True)


def recipe_of(activation, weight, **changes):
    wide = {"gradient": "bfp-s16/tensor", "accumulator_bits": 64, "alignment_bits": 64}
    return Recipe("test", **{"weight": weight, "activation": activation, "error": activation, **wide, **changes})


def built(layer, shape, recipe):
    """Build a layer alone, with random weights and biases in all their bits."""
    out = layer.build(shape, Build(recipe, 1, ("one",)))
    for seed, parameter in enumerate(layer.parameters):
        parameter.value = random_tensor(parameter.value.format, parameter.shape, seed)
    return layer, out


def random_tensor(form, shape, seed=0, spread=4):
    """Return words of all sizes; blocks have exponents of their own."""
    rng = np.random.default_rng(seed)
    mantissa = rng.integers(form.minimum, form.maximum, shape, form.storage, endpoint=True)
    mantissa[rng.random(shape) < 0.1] = 0
    if isinstance(form, BlockFloat):
        exponent = rng.integers(-6 - spread, -5, form.exponent_shape(shape))
    else:
        exponent = np.full((1,) * len(shape), -form.fraction_bits)
    return QTensor(mantissa, exponent, form)


def moved_bias(bias, exponent):
    """Return biases (Fractions) rounded to multiples of 2**exponent, to nearest, ties to even."""
    unit = Fraction(2) ** exponent
    return naive.round_fraction(bias / unit, "ties_even") * unit


def used(layer):
    """Return the weights that products are made with, as Fractions, and their exponents."""
    weight = layer.weight.value
    if isinstance(layer, BinaryConv2D):
        return np.where(weight.mantissa < 0, Fraction(-1), Fraction(1)), [0]
    return naive.value_of(weight), weight.exponent.reshape(-1)


def sums_with_bias(sums, layer, x):
    """Add the biases, which come to the exponents of the sums (samples, outputs)."""
    if layer.bias is None:
        return sums
    bias, weight = naive.value_of(layer.bias.value), used(layer)[1]
    each = x.exponent.reshape(-1)
    for n, c in np.ndindex(len(sums), len(bias)):
        exponent = int(each[n % len(each)]) + int(weight[c % len(weight)])
        sums[n, ..., c] += moved_bias(bias[c], exponent)
    return sums


def check_rounded(tensor, exact, role, **modes):
    words, exponents, *_ = naive.into_format(exact, role, **modes)
    assert tensor.exponent.reshape(-1).tolist() == exponents
    assert_array_equal(tensor.mantissa.astype(object), words)
    assert str(tensor.format) == role


LAYERS = {
    "dense": (lambda: Dense(4), (5,)),
    "conv": (lambda: Conv2D(4, 3, stride=(2, 1), padding=(1, 0, 1, 1)), (4, 3, 2)),
    "groups": (lambda: Conv2D(4, (2, 3), padding="same", groups=2), (3, 3, 4)),
    "binary": (lambda: BinaryConv2D(4, 3, stride=(2, 1), padding=(1, 0, 1, 1)), (4, 3, 2)),
    "binary groups": (lambda: BinaryConv2D(4, (2, 3), padding="same", groups=2), (3, 3, 4)),
}


def exact_products(layer, x, dy):
    """Return y, dx and dw in exact Fractions."""
    weight, _ = used(layer)
    if isinstance(layer, Dense):
        return x @ weight.T, None if dy is None else dy @ weight, None if dy is None else dy.T @ x
    geometry = layer.stride, layer.padding, layer.groups
    y = naive.convolve(x, weight, *geometry)
    return (y, None, None) if dy is None else (y, *naive.convolve_backward(x, weight, dy, *geometry))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("activation", "weight"), list(product(ACTIVATIONS, WEIGHTS)))
def test_both_passes_are_exact_sums_rounded_once(name, activation, weight):
    make, shape = LAYERS[name]
    layer, out = built(make(), shape, recipe_of(activation, weight))
    x = random_tensor(parse_format(activation), (3, *shape), 10)
    dy = random_tensor(parse_format(activation), (3, *out), 11)
    sums, dx, dw = exact_products(layer, naive.value_of(x), naive.value_of(dy))
    check_rounded(layer.forward(x, TRAINING), sums_with_bias(sums, layer, x), activation)
    check_rounded(layer.backward(dy, TRAINING), dx, activation)
    assert_array_equal(naive.value_of(layer.weight.gradient), dw)
    errors = naive.value_of(dy)
    assert_array_equal(naive.value_of(layer.bias.gradient), errors.sum(axis=tuple(range(errors.ndim - 1))))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_signs_stand_for_weights_of_any_size(weight):
    """Zeros, -1 and the ends of the word: both passes are those of a Conv2D whose weights are +1 and -1."""
    recipe, shape = recipe_of("fxp-s16/4", weight, biases=False), (4, 4, 2)
    binary, out = built(BinaryConv2D(3, 3, padding=1), shape, recipe)
    words = np.resize(np.array([0, -1, 1, 127, -128, 0, -7], np.int8), (3, 3, 3, 2))
    binary.weight.value = QTensor(words, binary.weight.value.exponent, binary.weight.value.format)
    signs, _ = built(Conv2D(3, 3, padding=1), shape, recipe_of("fxp-s16/4", "fxp-s8/0", biases=False))
    signs.weight.value = QTensor(
        np.where(words < 0, -1, 1).astype(np.int8), signs.weight.value.exponent, parse_format("fxp-s8/0")
    )
    x, dy = (random_tensor(parse_format("fxp-s16/4"), (2, *lengths), 30) for lengths in (shape, out))
    for passed in ("forward", "backward"):
        mine, theirs = (getattr(layer, passed)(x if passed == "forward" else dy, TRAINING) for layer in (binary, signs))
        assert_array_equal(mine.mantissa, theirs.mantissa)
        assert_array_equal(naive.value_of(mine), naive.value_of(theirs))
    assert_array_equal(naive.value_of(binary.weight.gradient), naive.value_of(signs.weight.gradient))
    assert binary.weight.gradient.mantissa.all()
    assert_array_equal(binary.weight.value.mantissa, words)  # they are as before
    assert binary.describe().startswith("BinaryConv2D(outputs=3, kernel=(3, 3)")


@pytest.mark.parametrize("activation", ["fxp-s8/5 stochastic", "bfp-s8/row stochastic random:5"])
def test_random_bits_are_those_of_stream_step_and_element(activation):
    layer, out = built(Dense(4), (5,), recipe_of(activation, "bfp-s8/row"))
    text, role = activation.split()[0], layer.recipe.activation
    x, dy = (random_tensor(parse_format(text), (3, length), 20 + length) for length in (5, *out))
    sums, dx, _ = exact_products(layer, naive.value_of(x), naive.value_of(dy))
    for tensor, exact, name in (
        (layer.forward(x, TRAINING), sums_with_bias(sums, layer, x), "activation"),
        (layer.backward(dy, TRAINING), dx, "error"),
    ):
        stream, bits = layer.quantizers[name].stream, role.random_bits
        modes = {"mode": "stochastic", "random_bits": bits}
        check_rounded(tensor, exact, text, fraction=lambda i: naive.random_fraction(5, stream, 3, i, bits), **modes)  # noqa: B023


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_sums_that_leave_the_accumulator(overflow):
    """With 15 bits for sums of products of 15: what leaves is fitted into them before it is rounded, and counted."""
    recipe = recipe_of("fxp-s8/5", "fxp-s8/6", accumulator_bits=15, accumulator_overflow=overflow)
    layer, _ = built(Dense(4), (5,), recipe)
    x, dy = random_tensor(parse_format("fxp-s8/5"), (9, 5)), random_tensor(parse_format("fxp-s8/5"), (9, 4))
    left = 0

    def fitted(values):
        nonlocal left
        found = [naive.into_word(int(v), 15, True, overflow) for v in values.ravel()]
        left += sum(outside for _, outside in found)
        return np.array([word for word, _ in found], object).reshape(values.shape)

    m, e, w = (tensor.mantissa.astype(object) for tensor in (x, dy, layer.weight.value))
    bias = [moved_bias(b, -11) * 2**11 for b in naive.value_of(layer.bias.value)]
    y = fitted(fitted(m @ w.T) + np.array(bias, object))
    check_rounded(layer.forward(x, TRAINING), y * Fraction(1, 2**11), "fxp-s8/5")
    dw, _ = fitted(e.T @ m), fitted(e.sum(0))
    dx = layer.backward(dy, TRAINING)
    check_rounded(dx, fitted(e @ w) * Fraction(1, 2**11), "fxp-s8/5")
    assert_array_equal(layer.weight.gradient.mantissa.astype(object), dw)
    seen = layer.seen()
    assert left > 10
    assert (seen.saturated, seen.wrapped) == ((left, 0) if overflow == "saturate" else (0, left))
    assert (seen.role, seen.word_bits, seen.count) == ("accumulator", 15, 36 + 20 + 4 + 45)
    assert layer.seen().count == 0


def test_an_accumulator_may_refuse():
    recipe = recipe_of("fxp-s8/5", "fxp-s8/6", accumulator_bits=15, accumulator_overflow="error")
    layer, _ = built(Dense(4), (5,), recipe)
    with pytest.raises(InputError, match=r"^one: \d+ of 36 sums \(forward\) leave the accumulator of 15 bits; give it more"):
        layer.forward(random_tensor(parse_format("fxp-s8/5"), (9, 5)), Step())


def test_nothing_is_kept_or_counted_outside_training():
    layer, _ = built(Dense(4), (5,), recipe_of("fxp-s8/5", "fxp-s8/6"))
    layer.forward(random_tensor(parse_format("fxp-s8/5"), (3, 5)), Step())
    assert layer.seen().count == layer.quantizers["activation"].count == 0
    with pytest.raises(InputError, match="layer 'one': backward needs a forward pass in training before it"):
        layer.backward(random_tensor(parse_format("fxp-s8/5"), (3, 4)), TRAINING)


def test_where_alignment_needs_more_bits_than_it_has():
    """Errors of samples 2**40 apart: the small ones are rounded to the word of 16 bits that holds the large one."""
    layer, _ = built(Dense(1, bias=False), (1,), recipe_of("bfp-s8/row", "bfp-s8/row", alignment_bits=16))
    one = np.array([[0], [-40], [-4]])
    x = QTensor(np.array([[1], [1], [1]], np.int8), one * 0, BlockFloat(8, "row"))
    layer.forward(x, TRAINING)
    layer.backward(QTensor(np.array([[100], [100], [3]], np.int8), one, BlockFloat(8, "row")), TRAINING)
    gradient = layer.weight.gradient
    assert gradient.mantissa * 2.0**gradient.exponent == 100 + 3 / 16
    x = QTensor(np.array([[0], [1], [0]], np.int8), one * 0, BlockFloat(8, "row"))  # samples of zeros move nothing
    layer.forward(x, TRAINING)
    errors = QTensor(np.array([[0], [77], [0]], np.int8), np.array([[127], [-40], [-128]]), BlockFloat(8, "row"))
    layer.backward(errors, TRAINING)
    assert layer.weight.gradient.mantissa * 2.0**layer.weight.gradient.exponent == 77 * 2.0**-40


@pytest.mark.parametrize("shortcut", [None, "dense"])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, "fxp-s16/4", "fxp-s8/5 stochastic"])
def test_a_block_joins_what_its_two_sides_give(activation, shortcut):
    """The exact sum, rounded once; and if both sides are run by hand, `join` makes of them what `forward` makes."""
    text = activation.split()[0]
    block, _ = built(Residual(Dense(5), Dense(5) if shortcut else None), (5,), recipe_of(activation, "bfp-s8/tensor"))
    x = random_tensor(parse_format(text), (4, 5), 40)
    y, body = block.forward(x, TRAINING), block.body.forward(x, TRAINING)
    other = block.shortcut.forward(x, TRAINING) if shortcut else x
    joined = block.join(body, other, TRAINING)
    assert_array_equal(joined.mantissa, y.mantissa)
    assert_array_equal(joined.exponent, y.exponent)
    stream, modes = block.quantizers["activation"].stream, {}
    if "stochastic" in activation:
        modes = {"mode": "stochastic", "fraction": lambda i: naive.random_fraction(5, stream, 3, i, 32)}
    check_rounded(joined, naive.value_of(body) + naive.value_of(other), text, **modes)
