"""Products with coded weights and inputs: exact sums of the weights that codes stand for, rounded once, both ways."""

from fractions import Fraction
from itertools import product
from math import lcm

import naive
import naive_compression
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet import kernels
from intnet.compression import WeightCoding, quantize_inputs, quantize_weights
from intnet.errors import InputError
from intnet.formats import BlockFloat, parse_format
from intnet.layers import Build, Conv2D, Dense, Flatten, ReLU, Step
from intnet.network import Network
from intnet.recipe import RECIPES, Recipe
from intnet.tensor import QTensor

ACTIVATIONS = ("fxp-s8/5", "bfp-s8/tensor", "bfp-s8/row")
WEIGHTS = ("fxp-s8/6", "bfp-s8/tensor", "bfp-s8/row")
KINDS = list(product(("affine", "symmetric"), ("ratio", "power")))
TRAINING, EVALUATION = Step(3, 5, True), Step(3, 5)
LAYERS = {
    "dense": (lambda: Dense(4), (5,)),
    "conv": (lambda: Conv2D(4, 3, stride=(2, 1), padding=(1, 0, 1, 1)), (4, 3, 2)),
    "groups": (lambda: Conv2D(4, (2, 3), padding="same", groups=2), (3, 3, 4)),
}


def recipe_of(activation, weight, **changes):
    wide = {"gradient": "bfp-s16/tensor", "accumulator_bits": 64, "alignment_bits": 64}
    return Recipe("test", **{"weight": weight, "activation": activation, "error": activation, **wide, **changes})


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


def built(layer, shape, recipe, coding, masked=False, seed=0):
    """Build a layer alone, with random weights and a mask of three in four."""
    out = layer.build(shape, Build(recipe, 1, ("one",)))
    layer.weight.value = random_tensor(layer.weight.value.format, layer.weight.shape, seed)
    if masked:
        layer.weight.mask = np.random.default_rng(seed + 2).random(layer.weight.shape) < 0.75
        layer.weight.enforce()
    layer.coding = coding
    return layer, out


def draw_biases(layer, sums, seed):
    """Set biases that are smaller than the largest sum of every sample, where the format has such ones."""
    least = min(max(abs(v) for v in sample.ravel()) for sample in sums) / 4
    form, rng = layer.bias.value.format, np.random.default_rng(seed)
    if isinstance(form, BlockFloat):
        exponent = min(-7, naive.block_exponent([least], 8)) if least else -7
    else:
        exponent = -form.fraction_bits
    most = min(form.maximum, int(least / Fraction(2) ** exponent))
    mantissa = rng.integers(-most, most, layer.bias.shape, form.storage, endpoint=True)
    layer.bias.value = QTensor(mantissa, np.array([exponent]), form)


def weights_of(layer, bits, scheme, scale):
    """Return the weights that the codes stand for, as Fractions, by the reference."""
    exact, tensor = naive.value_of(layer.weight.value), layer.weight.value
    filled = tensor.mantissa != 0
    unit = Fraction(2) ** int(tensor.exponents()[filled].min() if filled.any() else tensor.exponent.min())
    mask = np.ones(exact.shape, bool) if layer.weight.mask is None else layer.weight.mask
    made = np.full(exact.shape, Fraction(0), object)
    made[mask] = naive_compression.coded([int(v / unit) for v in exact[mask]], bits, scheme, scale)[0]
    return made * unit


def whole(values):
    """Return Fractions as integers, and their unit."""
    unit = Fraction(1, lcm(*(Fraction(v).denominator for v in values.ravel())))
    return np.array([int(v / unit) for v in values.ravel()], object).reshape(values.shape), unit


def products(layer, x, weights, dy):
    """Return y without biases, dx and dw as Fractions."""
    (x, of_x), (w, of_w), (dy, of_dy) = whole(x), whole(weights), whole(dy)
    if isinstance(layer, Dense):
        y, dx, dw = x @ w.T, dy @ w, dy.T @ x
    else:
        geometry = layer.stride, layer.padding, layer.groups
        y, (dx, dw) = naive.convolve(x, w, *geometry), naive.convolve_backward(x, w, dy, *geometry)
    return y * (of_x * of_w), dx * (of_w * of_dy), dw * (of_x * of_dy)


def check_rounded(tensor, exact, role, **modes):
    words, exponents, *_ = naive.into_format(exact, role, **modes)
    assert tensor.exponent.reshape(-1).tolist() == exponents
    assert_array_equal(tensor.mantissa.astype(object), words)


def by_sample(role):
    return role.replace("/tensor", "/row") if role.startswith("bfp") else role


def check_both_passes(name, activation, weight, kind, masked, seed=0):
    make, shape = LAYERS[name]
    layer, out = built(make(), shape, recipe_of(activation, weight), WeightCoding(*kind), masked, seed)
    x = random_tensor(parse_format(activation), (3, *shape), 10 + seed)
    dy = random_tensor(parse_format(activation), (3, *out), 11 + seed)
    y, dx, dw = products(layer, naive.value_of(x), weights_of(layer, *kind), naive.value_of(dy))
    draw_biases(layer, y, seed)
    y = y + naive.value_of(layer.bias.value)
    check_rounded(layer.forward(x, EVALUATION), y, by_sample(activation))
    check_rounded(layer.forward(x, TRAINING), y, activation)
    check_rounded(layer.backward(dy, TRAINING), dx, activation)
    assert_array_equal(naive.value_of(layer.weight.gradient), dw)  # straight through: masked and coded weights have theirs
    errors = naive.value_of(dy)
    assert_array_equal(naive.value_of(layer.bias.gradient), errors.sum(axis=tuple(range(errors.ndim - 1))))


# 1. The same bits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "weight"), list(product(ACTIVATIONS, WEIGHTS)))
def test_dense_layers_of_every_coding(activation, weight):
    """All bits, schemes and scales, masked or not: each of them in four or five of these nine pairs of formats."""
    for bits, (number, kind) in product(range(1, 9), enumerate(KINDS)):
        masked = (bits + number + ACTIVATIONS.index(activation) + WEIGHTS.index(weight)) % 2 == 1
        check_both_passes("dense", activation, weight, (bits, *kind), masked, bits)


@pytest.mark.parametrize("name", ["conv", "groups"])
@pytest.mark.parametrize(
    ("activation", "weight"),
    [("fxp-s8/5", "bfp-s8/row"), ("bfp-s8/tensor", "bfp-s8/tensor"), ("bfp-s8/row", "fxp-s8/6"), ("bfp-s8/row", "bfp-s8/row")],
)
def test_convolutions_of_every_coding(name, activation, weight):
    """With strides, padding and groups: where the kernel hangs over the edge, the zero point has fewer inputs."""
    for bits, (number, kind) in product((1, 2, 4, 8), enumerate(KINDS)):
        masked = (bits.bit_length() + number + len(activation) + len(weight)) % 2 == 1
        check_both_passes(name, activation, weight, (bits, *kind), masked, bits)


@pytest.mark.parametrize("masked", [None, "all", "but one"])
def test_weights_that_are_all_equal_or_all_masked(masked):
    for bits, kind, word in product((1, 2, 8), KINDS, (-77, 0, 127)):
        layer, _ = built(Dense(4, bias=False), (5,), recipe_of("fxp-s8/5", "fxp-s8/6"), WeightCoding(bits, *kind))
        layer.weight.value.mantissa[:] = word
        if masked:
            layer.weight.mask = np.zeros((4, 5), bool)
            layer.weight.mask[1, 2] = masked == "but one"
            layer.weight.enforce()
        x, dy = (random_tensor(parse_format("fxp-s8/5"), (3, length), length) for length in (5, 4))
        y, dx, _ = products(layer, naive.value_of(x), weights_of(layer, bits, *kind), naive.value_of(dy))
        for step in (EVALUATION, TRAINING):
            check_rounded(layer.forward(x, step), y, "fxp-s8/5")
        check_rounded(layer.backward(dy, TRAINING), dx, "fxp-s8/5")


@pytest.mark.parametrize("role", ["fxp-s8/5 stochastic", "bfp-s8/row stochastic random:5", "bfp-s8/tensor stochastic"])
def test_random_bits_are_those_of_stream_step_and_element(role):
    """So a layer that rounds stochastically gives the same bits again, in training; evaluation rounds to nearest."""
    kind, text = (3, "affine", "ratio"), role.split()[0]
    layer, out = built(Dense(4), (5,), recipe_of(role, "bfp-s8/row"), WeightCoding(*kind), True)
    x, dy = (random_tensor(parse_format(text), (3, length), 20 + length) for length in (5, *out))
    y, dx, _ = products(layer, naive.value_of(x), weights_of(layer, *kind), naive.value_of(dy))
    draw_biases(layer, y, 1)
    y = y + naive.value_of(layer.bias.value)
    bits = layer.recipe.activation.random_bits
    for _ in range(2):
        for made, exact, name in ((layer.forward(x, TRAINING), y, "activation"), (layer.backward(dy, TRAINING), dx, "error")):
            stream = layer.quantizers[name].stream
            modes = {"mode": "stochastic", "random_bits": bits}
            check_rounded(made, exact, text, fraction=lambda i: naive.random_fraction(5, stream, 3, i, bits), **modes)  # noqa: B023
    check_rounded(layer.forward(x, EVALUATION), y, by_sample(text))


def test_accumulated_sums_are_cut_with_a_sticky_bit():
    """All samples at one place, or each at its own."""
    for bits, kind in product((1, 3, 8), KINDS):
        layer, _ = built(Dense(4), (5,), recipe_of("bfp-s8/tensor", "fxp-s8/6"), WeightCoding(bits, *kind))
        x = random_tensor(parse_format("bfp-s8/tensor"), (3, 5), bits)
        x.mantissa[1] >>= 5
        y, *_ = products(layer, naive.value_of(x), weights_of(layer, bits, *kind), np.zeros((3, 4), object))
        for apart in (False, True):
            made, left, count = layer.accumulated(x, apart)
            assert (left, count) == (0, 12 + 3 * bool(layer.coding(layer.weight).offset))
            assert made.exponent.shape == (3 if apart else 1, 1)
            for n, c in np.ndindex(3, 4):
                exact = y[n, c] / Fraction(2) ** int(made.exponent[n if apart else 0, 0])
                floor = exact.numerator // exact.denominator
                assert made.mantissa[n, c] == (floor if floor == exact else floor | 1)


# 2. Biases ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [TRAINING, EVALUATION], ids=["training", "evaluation"])
@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_biases_may_be_larger_than_the_sums(kind, step):
    kind = (4, *kind)
    layer, _ = built(Dense(4), (5,), recipe_of("fxp-s16/10", "fxp-s8/6"), WeightCoding(*kind))
    layer.bias.value = QTensor(np.array([64, -64, 127, 3], np.int8), np.array([-6]), layer.bias.value.format)
    x = random_tensor(parse_format("fxp-s16/10"), (3, 5), 1)
    x.mantissa[:] >>= 13
    y, *_ = products(layer, naive.value_of(x), weights_of(layer, *kind), np.zeros((3, 4), object))
    check_rounded(layer.forward(x, step), y + naive.value_of(layer.bias.value), "fxp-s16/10")


@pytest.mark.parametrize("step", [TRAINING, EVALUATION], ids=["training", "evaluation"])
def test_a_sample_of_zeros_gives_the_biases(step):
    layer, _ = built(Dense(4), (5,), recipe_of("fxp-s16/10", "fxp-s8/6"), WeightCoding(4))
    layer.bias.value.mantissa[:] = 64, -64, 127, 3
    x = QTensor(np.zeros((2, 5), np.int16), np.array([[-10]]), parse_format("fxp-s16/10"))
    assert (naive.value_of(layer.forward(x, step)) == naive.value_of(layer.bias.value)).all()


# 3. Coded inputs ----------------------------------------------------------------------------------------------------------


def network_of(make, shape, recipe="fixed16", coding=None, inputs=None):
    made = Network(make, shape, recipe, seed=4)
    if coding is not None:
        quantize_weights(made, coding, "*")
    if inputs is not None:
        quantize_inputs(made, inputs, "*")
    return made


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_inputs_are_rounded_before_the_product_and_errors_pass(activation, bits):
    """One sign bit; one scale for a batch, or in evaluation for a sample; the gradient of weights is that of rounded inputs."""
    for kind in ((3, "affine", "ratio"), None):
        made = network_of([Dense(4, bias=False), Dense(3, bias=False)], (5,), recipe_of(activation, "fxp-s8/6"), None, bits)
        layer = made.layers.layers[1]
        layer.weight.value = random_tensor(parse_format("fxp-s8/6"), (3, 4), bits)
        layer.coding = None if kind is None else WeightCoding(*kind)
        weights = naive.value_of(layer.weight.value) if kind is None else weights_of(layer, *kind)
        x, dy = (random_tensor(parse_format(activation), (3, length), length) for length in (4, 3))
        for step, block in ((EVALUATION, "row"), (TRAINING, "tensor")):
            words, exponents, *_ = naive.into_format(naive.value_of(x), f"bfp-s{bits}/{block}")
            rounded = words * np.array([Fraction(2) ** e for e in exponents], object).reshape(-1, 1)
            y, dx, dw = products(layer, rounded, weights, naive.value_of(dy))
            check_rounded(layer.forward(x, step), y, activation if step.training else by_sample(activation))
        check_rounded(layer.backward(dy, TRAINING), dx, activation)
        assert_array_equal(naive.value_of(layer.weight.gradient), dw)


@pytest.mark.parametrize(
    "kind",
    [
        "conv",
        "dense",
    ],
)
def test_errors_pass_straight_through_inputs_that_are_rounded_to_zero(kind):
    """The second sample, 1/16 of the first, becomes 0 in 2 bits; its error still reaches the first layer."""
    shape, layer = ((1,), Dense) if kind == "dense" else ((1, 1, 1), lambda outputs, bias: Conv2D(outputs, 1, bias=bias))
    made = Network([layer(1, bias=False), ReLU(), layer(2, bias=False)], shape, recipe_of("fxp-s16/9", "fxp-s8/6"))
    first, _, second = made.layers.layers
    for one, words in ((first, [64]), (second, [64, -64])):
        one.weight.value = QTensor(
            np.reshape(np.int8(words), one.weight.shape), one.weight.value.exponent, one.weight.value.format
        )
    quantize_inputs(made, 2, second.name)
    x = QTensor(np.int16([512, 32]).reshape(2, *shape), np.full((1,) * (1 + len(shape)), -9), parse_format("fxp-s16/9"))
    made.forward(x, TRAINING)
    dy = (
        np.int16([[0, 0], [512, 0]]).reshape(2, *made.output_shape)
        if kind == "dense"
        else np.int16([0, 0, 512, 0]).reshape(2, 1, 1, 2)
    )
    made.layers.backward(QTensor(dy, x.exponent, x.format), TRAINING)
    assert naive.value_of(first.weight.gradient).ravel().tolist() == [Fraction(1, 16)]


# 4. The ways through a network --------------------------------------------------------------------------------------------


def test_no_product_with_codes_is_made_in_one_call(monkeypatch):
    """What multiplies and rounds in one call knows nothing of codes."""

    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(kernels, "RoundedProduct", refuse)
    x = random_tensor(parse_format("fxp-s16/9"), (3, 5), 1)
    for coding in (4, None):
        made = network_of([Dense(4), ReLU(), Dense(3), ReLU(), Dense(2)], (5,), "fixed16", coding)
        if coding is None:
            with pytest.raises(AssertionError):
                made.forward(x, TRAINING)
        else:
            dy = random_tensor(parse_format("fxp-s16/13"), made.forward(x, TRAINING).mantissa.shape, 2)
            made.backward(dy, TRAINING)


@pytest.mark.parametrize("recipe", ["fixed16", "int8", "bfp8", "niti8"])
def test_clamps_that_are_joined_give_the_bits_of_layer_after_layer(recipe):
    roles, outcomes = RECIPES[recipe], []
    for joined in (True, False):
        made = network_of([Dense(7), ReLU(), Dense(4), ReLU(), Dense(2)], (5,), recipe, 3)
        if not joined:
            for one in made.layers.layers:
                one.__class__ = type("Apart", (type(one),), {"joins_clamps": False})
        y = made.forward(random_tensor(roles.activation.format, (6, 5), 3), TRAINING)
        made.backward(random_tensor(roles.error.format, y.shape, 5), TRAINING)
        outcomes.append([y.mantissa, *(one.gradient.mantissa for one in made.parameters)])
    for mine, theirs in zip(*outcomes, strict=True):
        assert_array_equal(mine, theirs)
        assert mine.any()


@pytest.mark.parametrize("recipe", ["fixed16", "int8", "bfp8", "bfp8-big", "niti8", "wide"])
@pytest.mark.parametrize("inputs", [None, 3])
def test_what_a_sample_gives_does_not_depend_on_its_batch(recipe, inputs):
    """Whose samples differ by 2**12: with block formats of tensors each has its own block, and its own room."""
    form = RECIPES[recipe].activation.format
    body = [Conv2D(4, 3, padding=1, bias=False), ReLU(), Conv2D(3, 2, bias=False), ReLU(), Flatten(), Dense(3, bias=False)]
    made = network_of(body, (4, 4, 2), recipe, 4, inputs)
    x = random_tensor(form, (5, 4, 4, 2), 6)
    x.mantissa[1:3] >>= 4
    exponents = x.exponent + np.arange(5).reshape(5, 1, 1, 1) * 3 if isinstance(form, BlockFloat) else x.exponent
    of_samples = BlockFloat(form.word_bits, "row") if isinstance(form, BlockFloat) else form
    together = naive.value_of(made.forward(QTensor(x.mantissa, exponents, of_samples)))
    for n in range(5):
        exponent = exponents[n : n + 1] if exponents.size > 1 else exponents
        alone = made.forward(QTensor(x.mantissa[n : n + 1], exponent, of_samples))
        assert (naive.value_of(alone)[0] == together[n]).all()
    assert all(together[n].any() for n in range(5))


def test_a_batch_of_nothing_gives_nothing():
    x = QTensor(np.zeros((0, 5), np.int16), np.array([[-9]]), parse_format("fxp-s16/9"))
    assert network_of([Dense(3)], (5,)).forward(x).shape == (0, 3)
    assert network_of([Dense(3)], (5,), coding=4).forward(x).shape == (0, 3)


def test_descriptions_tell_of_codes():
    made = network_of([Dense(4), ReLU(), Dense(3)], (5,))
    before = made.describe()
    quantize_weights(made, WeightCoding(3, "symmetric", "power"), "dense1")
    quantize_inputs(made, 5, "dense*")
    changed = made.describe()
    assert changed[1] == before[1]
    assert changed[0].removeprefix(before[0]) == (
        ", weights coded: 3 bits symmetric power, inputs coded: bfp-s5/tensor ties_even saturate"
    )
    assert changed[2].removeprefix(before[2]) == ", inputs coded: bfp-s6/tensor ties_even saturate"  # no sign is needed


# 5. Words that are too short ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_sums_that_leave_the_accumulator(overflow):
    """Sums with codes are fitted and counted, and those that correct the zero point; what is made of them is not."""
    recipe = recipe_of("fxp-s8/5", "fxp-s8/6", accumulator_bits=15, accumulator_overflow=overflow, biases=False)
    layer, _ = built(Dense(4), (9,), recipe, WeightCoding(8))
    x, dy = random_tensor(parse_format("fxp-s8/5"), (9, 9)), random_tensor(parse_format("fxp-s8/5"), (9, 4))
    coded, left = layer.coding(layer.weight), 0

    def fitted(values):
        nonlocal left
        found = [naive.into_word(int(v), 15, True, overflow) for v in values.ravel()]
        left += sum(outside for _, outside in found)
        return np.array([word for word, _ in found], object).reshape(values.shape)

    m, e, codes = (one.astype(object) for one in (x.mantissa, dy.mantissa, coded.codes))
    unit = Fraction(1, 2**11 * coded.divisor)
    y = (fitted(m @ codes.T) * coded.scale + fitted(m.sum(1, keepdims=True)) * coded.offset) * unit
    check_rounded(layer.forward(x, TRAINING), y, "fxp-s8/5")
    dx = (fitted(e @ codes) * coded.scale + fitted(e.sum(1, keepdims=True)) * coded.offset) * unit
    check_rounded(layer.backward(dy, TRAINING), dx, "fxp-s8/5")
    fitted(e.T @ m)
    seen = layer.seen()
    assert left > 10
    assert (seen.saturated, seen.wrapped) == ((left, 0) if overflow == "saturate" else (0, left))
    assert seen.count == (36 + 9) + (81 + 9) + 36


def test_an_accumulator_may_refuse():
    recipe = recipe_of("fxp-s8/5", "fxp-s8/6", accumulator_bits=15, accumulator_overflow="error")
    layer, _ = built(Dense(4), (9,), recipe, WeightCoding(8))
    with pytest.raises(InputError, match=r"^one: \d+ of 45 sums \(forward\) leave the accumulator of 15 bits; give it more"):
        layer.forward(random_tensor(parse_format("fxp-s8/5"), (9, 9)), Step())


def test_sums_beyond_62_bits_are_refused():
    """Of many activations, and of many errors, of 32 bits; half of them pass."""
    form = parse_format("bfp-s32/tensor")
    recipe = recipe_of("bfp-s32/tensor", "fxp-s16/14", biases=False)
    message = r"^layer 'one': sums with coded weights take 6\d bits and may take 62; use shorter words"
    for count, refused in ((300, True), (64, False)):
        for inputs, outputs in ((count, 2), (2, count)):
            layer, _ = built(Dense(outputs), (inputs,), recipe, WeightCoding(8))
            layer.weight.value.mantissa[:] = 32767
            layer.weight.value.mantissa[0, 0] = -32768
            full = QTensor(np.full((1, count), 2**31 - 1, np.int32), np.array([[-9]]), form)
            few = QTensor(np.ones((1, 2), np.int32), np.array([[-9]]), form)
            x, dy = (full, few) if outputs == 2 else (few, full)
            y, dx, _ = products(layer, naive.value_of(x), weights_of(layer, 8, "affine", "ratio"), naive.value_of(dy))
            if refused and outputs == 2:
                with pytest.raises(InputError, match=message):
                    layer.forward(x, EVALUATION)
                continue
            check_rounded(layer.forward(x, TRAINING), y, "bfp-s32/tensor")
            if refused:
                with pytest.raises(InputError, match=message):
                    layer.backward(dy, TRAINING)
            else:
                check_rounded(layer.backward(dy, TRAINING), dx, "bfp-s32/tensor")


def test_formats_that_are_finer_than_sums_are_known_are_refused():
    """Two bits below the last place must be known, of coarse inputs and weights in a format that is fine."""
    for bits, refused in ((40, False), (41, True)):  # of sums with 42 fraction bits
        recipe = recipe_of("fxp-s8/0", "fxp-s8/0", biases=False).override("one", activation=f"fxp-s48/{bits}", error="fxp-s8/0")
        layer, _ = built(Dense(2), (5,), recipe, WeightCoding(8))
        x = random_tensor(parse_format("fxp-s8/0"), (1, 5), 2)
        y, *_ = products(layer, naive.value_of(x), weights_of(layer, 8, "affine", "ratio"), np.zeros((1, 2), object))
        for step in (TRAINING, EVALUATION):
            if refused:
                with pytest.raises(
                    InputError, match=rf"^layer 'one': fxp-s48/{bits} is finer than sums with coded weights are"
                ):
                    layer.forward(x, step)
            else:
                check_rounded(layer.forward(x, step), y, f"fxp-s48/{bits}")


def test_sums_that_cancel_are_rounded_exactly_in_training():
    """In words of 24 bits, 540469 * 5102805 - 2121032 * 1300267 = 1: the only sum, of some 2**43 that were added."""
    layer, _ = built(Dense(1, bias=False), (3,), recipe_of("bfp-s24/tensor", "fxp-s17/15"), WeightCoding(8))
    layer.weight.value = QTensor(np.int32([[-20011, 30013, 5003]]), layer.weight.value.exponent, layer.weight.value.format)
    x = QTensor(np.int32([[-540469, 0, -2121032]]), np.array([[-10]]), parse_format("bfp-s24/tensor"))
    y, *_ = products(layer, naive.value_of(x), weights_of(layer, 8, "affine", "ratio"), np.zeros((1, 1), object))
    assert y[0, 0] == Fraction(1, 255 * 2**25)
    check_rounded(layer.forward(x, EVALUATION), y, "bfp-s24/row")
    check_rounded(layer.forward(x, TRAINING), y, "bfp-s24/tensor")
