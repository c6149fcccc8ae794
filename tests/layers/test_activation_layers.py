"""Activations whatever the exponents: what 1 is, tables, slopes, and words of more than 32 bits."""

import float_reference
import naive
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.formats import BlockFloat, Fixed
from intnet.layers import Build, Dropout, HardTanh, LeakyReLU, ReLU, Sigmoid, Sign, Step, Tanh
from intnet.recipe import Recipe
from intnet.tensor import QTensor

TRAINING = Step(4, 6, True)


def built(layer, form="bfp-s8/row", features=3):
    recipe = Recipe(
        "test", weight="fxp-s8/6", activation=form, error=form, gradient=form, accumulator_bits=64, alignment_bits=8
    )
    layer.build((features,), Build(recipe, 0, ("one",)))
    return layer


def tensor(mantissa, exponent, kind=np.int8):
    mantissa = np.array(mantissa, kind)
    form = BlockFloat(mantissa.itemsize * 8, "row") if np.size(exponent) > 1 else BlockFloat(mantissa.itemsize * 8)
    return QTensor(mantissa, np.reshape(exponent, (-1, 1)), form)


# Samples whose largest values are far below 1, about 1, far above, and zeros
X = tensor([[127, -128, 1], [64, 63, -64], [-1, 1, 0], [0, 0, 0], [5, -100, 127]], [-30, -6, 3, -128, -6])
DY = tensor([[1, -2, 3], [100, 0, -1], [7, 8, 9], [-1, 1, -1], [127, -128, 50]], [-4, 0, -4, 5, -9])


@pytest.mark.parametrize("layer", [HardTanh, Sign, lambda: Sign("identity"), lambda: Sign("polynomial")])
def test_comparisons_with_1_are_exact_for_any_exponents(layer):
    """In units above 1 all but 0 is clamped, and where no mantissa reaches 1 nothing is."""
    layer = built(layer())
    ref = float_reference.Reference(layer, TRAINING)
    y, dx = layer.forward(X, TRAINING), layer.backward(DY, TRAINING)
    assert_array_equal(y.to_float(), ref.forward(X.to_float()))
    expected = ref.backward(DY.to_float())
    if getattr(layer, "window", "") != "polynomial":
        assert_array_equal(dx.to_float(), expected)
    else:  # rounded to 8 bits a sample
        assert (np.abs(dx.to_float() - expected) <= np.abs(expected).max(1, keepdims=True) * 2.0**-7).all()
    for i in range(len(X.mantissa)):  # one by one: a tensor of one exponent
        x, dy = (QTensor(t.mantissa[i : i + 1], t.exponent[i : i + 1], BlockFloat(8)) for t in (X, DY))
        assert_array_equal(layer.forward(x, TRAINING).to_float(), y.to_float()[i : i + 1])
        assert_array_equal(layer.backward(dy, TRAINING).to_float(), dx.to_float()[i : i + 1])


def test_hard_tanh_keeps_words_short():
    """Samples 2**33 apart: clamped, each is back in its own exponent and in eight bits, for the next layer's sums."""
    y = built(HardTanh()).forward(X, TRAINING)
    assert y.mantissa.dtype == np.int8
    assert y.format == X.format
    assert y.exponent.ravel().tolist() == [-30, -6, 0, -128, -6]
    x = QTensor(np.array([[100, -3, 0]], np.int16), np.array([[1]]), Fixed(16, -1))  # no word of this format is 1
    y = built(HardTanh()).forward(x, TRAINING)
    assert (y.to_float().tolist(), y.format) == ([[1, -1, 0]], None)


def far_apart():
    """Return samples whose exponents no word of 64 bits holds side by side."""
    exponents = [-60, -40, -6, -3, 0, 2, 40, 60]
    return tensor([[127, -128, -1 if e % 4 else 64] for e in exponents], exponents)


@pytest.mark.parametrize("layer", [HardTanh, Sign])
def test_evaluation_sees_every_sample_alone_however_far_exponents_are_apart(layer):
    layer, x = built(layer()), far_apart()
    y = layer.forward(x, Step())
    values = np.ldexp(x.mantissa.astype(float), x.exponent)
    assert_array_equal(y.to_float(), np.clip(values, -1, 1) if isinstance(layer, HardTanh) else np.where(values < 0, -1, 1))
    for i in range(len(x.mantissa)):
        one = layer.forward(QTensor(x.mantissa[i : i + 1], x.exponent[i : i + 1], BlockFloat(8)), Step())
        assert_array_equal(one.to_float(), y.to_float()[i : i + 1])
    training = layer.forward(x, TRAINING)
    assert_array_equal(training.to_float(), y.to_float())
    if isinstance(layer, HardTanh):
        dy = tensor(np.full((8, 3), 3), np.zeros(8, int))
        assert_array_equal(layer.backward(dy, TRAINING).mantissa, np.where(np.abs(values) < 1, 3, 0))


@pytest.mark.parametrize("kind", [np.int8, np.int16])
def test_relu_and_leaky_relu(kind):
    limits = np.iinfo(kind)
    values = np.unique([limits.min, limits.min + 1, -9, -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 5, limits.max])[None]
    x, dy = tensor(values, -3, kind), tensor(values[:, ::-1].copy(), 2, kind)
    relu, leaky = built(ReLU(), features=values.size), built(LeakyReLU(2), features=values.size)
    assert_array_equal(relu.forward(x, TRAINING).mantissa, np.maximum(values, 0).astype(kind), strict=True)
    assert_array_equal(relu.backward(dy, TRAINING).mantissa, np.where(values > 0, dy.mantissa, 0).astype(kind), strict=True)
    y, dx = leaky.forward(x, TRAINING), leaky.backward(dy, TRAINING)
    expected = [v if v >= 0 else naive.requantize([v], [2], "ties_even", "wrap", 64)[0][0] for v in values[0].tolist()]
    assert y.mantissa[0].tolist() == expected
    pairs = zip(dy.mantissa[0].tolist(), values[0].tolist(), strict=True)
    assert dx.mantissa[0].tolist() == [
        d if v >= 0 else naive.requantize([d], [2], "ties_even", "wrap", 64)[0][0] for d, v in pairs
    ]


@pytest.mark.parametrize("form", ["fxp-s8/4", "fxp-s12/0", "fxp-s16/12", "bfp-s8/tensor", "bfp-s24/row"])
@pytest.mark.parametrize("layer", [Sigmoid, Tanh])
def test_every_value_of_a_table_is_the_nearest(layer, form):
    layer = built(layer(), form)
    codes = np.arange(layer.argument.minimum, layer.argument.maximum + 1)
    real = layer.function(codes * 2.0**-layer.argument.fraction_bits)
    unit = 2.0**-layer.result.fraction_bits
    top = layer.result.maximum * unit
    assert len(layer.table) == len(codes) <= 65536
    assert form.startswith("bfp") or layer.argument == (
        Fixed(16, 12) if form == "fxp-s24/12" else layer.recipe.activation.format
    )
    assert (np.abs(layer.table * unit - np.minimum(real, top)) <= unit / 2).all()
    x = QTensor(codes[None].astype(np.int16), np.array([[-layer.argument.fraction_bits]]), None)
    assert_array_equal(layer.forward(x, Step()).mantissa[0], layer.table)
    beyond = QTensor(np.array([[127, -128]], np.int8), np.array([[100]]), BlockFloat(8))
    assert layer.forward(beyond, Step()).mantissa[0].tolist() == [layer.table[-1], layer.table[0]]


@pytest.mark.parametrize("layer", [Sigmoid, Tanh, lambda: Sign("polynomial")])
def test_errors_of_more_than_32_bits(layer):
    """Errors of 40 bits, a sample's exponents each: they are brought to 32 bits, and no product leaves 64."""
    layer = built(layer(), "bfp-s24/row")
    short = np.random.default_rng(0).integers(-(2**23), 2**23, (5, 3))
    exponent = np.array([[-39], [-45], [-20], [-39], [-39]])
    layer.forward(X, TRAINING)
    wide = layer.backward(QTensor(short << 16, exponent, BlockFloat(40, "row")), TRAINING)
    narrow = layer.backward(QTensor(short.astype(np.int32), exponent + 16, BlockFloat(24, "row")), TRAINING)
    assert_array_equal(wide.to_float(), narrow.to_float())
    assert wide.mantissa.any()


# Telemetry --------------------------------------------------------------------------------------------------------------


def test_what_a_table_saturates_and_loses_is_counted():
    values = [[0, 1, -1], [127, -128, 40], [5, -5, 100]]
    for layer, lost in ((Tanh, 2), (Sigmoid, 2)):  # tanh of +-2**-9; the logistic function of -16 and -12.5
        made = built(layer(), "bfp-s8/tensor")
        x = tensor(values, [-9, -3, -3])
        y = made.forward(x, TRAINING)
        seen = made.quantizers["activation"].seen()
        assert (seen.tensor, seen.role, seen.word_bits, seen.fraction_bits) == ("one", "activation", 8, 7)
        assert (seen.minimum, seen.maximum, seen.count) == (y.mantissa.min(), y.mantissa.max(), 9)
        assert (seen.saturated, seen.wrapped) == (3, 0)  # 127/8, -16 and 12.5 lie beyond +-8
        real = layer.function(np.ldexp(np.array(values, float), x.exponent))
        assert seen.lost == int(((real != 0) & (y.mantissa == 0)).sum()) == (lost if layer is Tanh else 1)
        made.forward(x, Step())
        assert made.quantizers["activation"].count == 9  # evaluation counts nothing


def test_what_a_leaky_relu_loses_is_counted():
    made, x = built(LeakyReLU(2)), tensor([[-1, -2, -3], [0, 5, -100]], [-3, -3])
    made.forward(x, TRAINING)
    made.backward(tensor([[1, 2, 3], [0, 1, 2]], [-4, -2]), TRAINING)
    activation, error = (made.quantizers[role].seen() for role in ("activation", "error"))
    assert (activation.lost, activation.count, activation.minimum, activation.maximum) == (2, 6, -25, 5)
    assert (error.lost, error.count, error.fraction_bits) == (3, 6, 2)


# Dropout ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, 0.3, 0.5, 0.75, 0.999])
def test_dropout_keeps_what_its_random_bits_say(rate):
    layer = built(Dropout(rate), "bfp-s16/tensor", features=50)
    x = QTensor(np.full((4, 50), 1000, np.int16), np.array([[-10]]), BlockFloat(16))
    words = [naive.random_word(TRAINING.seed, layer.stream, TRAINING.number, i) >> 16 for i in range(200)]
    kept = np.reshape([word < round((1 - rate) * 2**16) for word in words], (4, 50))
    for out in (layer.forward(x, TRAINING), layer.backward(x, TRAINING)):
        assert_array_equal(out.mantissa != 0, kept)
        assert np.abs(out.to_float() - kept * x.to_float() / (1 - rate)).max() <= 2.0**-14 / (1 - rate)
    assert layer.forward(x, Step()) is x
    other = layer.forward(x, Step(5, 6, True))
    assert rate in (0, 0.999) or (other.mantissa != layer.forward(x, TRAINING).mantissa).any()
