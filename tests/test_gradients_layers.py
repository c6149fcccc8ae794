"""One convolution of a network as a landscape: losses are the network's, differences their definition's; nothing changes."""

import copy
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import BlockFloat, Fixed
from intnet.gradients import CDG, NES, STE, Around, MaxPoint, step
from intnet.gradients.one_layer import Labelled, OneLayer
from intnet.layers import BatchNorm, BinaryConv2D, Conv2D, Dense, GlobalAvgPool, Residual, Sequential, Sign, Step
from intnet.network import Network
from intnet.recipe import RECIPES, Recipe
from intnet.studies.thin_resnet import recipe
from intnet.tensor import QTensor, quantize

STEP = Step(training=True, statistics=False)
KINDS = {"full": Conv2D, "binary": BinaryConv2D}
FIXED = Recipe("fixed", weight="fxp-s8/6", activation="fxp-s8/4", error="bfp-s8/tensor", gradient="bfp-s16/tensor")
SLOW = {
    "blocks": replace(recipe(), name="blocks", activation="bfp-s16/tensor ties_even"),
    "blocks a sample": replace(recipe(), name="rows", activation="bfp-s16/sample ties_even"),
    "stochastic": replace(recipe(), name="stochastic", activation="fxp-s32/20 stochastic"),
    "accumulator": replace(FIXED, name="accumulator", accumulator_bits=15, accumulator_overflow="saturate"),
    "accumulator that wraps": replace(FIXED, name="wraps", accumulator_bits=15, accumulator_overflow="wrap"),
}


def network_of(kind="full", form=None, **options):
    """Return a network with convolutions before and in a block, in a block of a block, in a shortcut, in a stage of its own."""
    conv = KINDS[kind]
    inner = Residual([Sign(), conv(4, 3, padding=1, bias=False, name="inner"), BatchNorm()])
    body = [Sign(), conv(4, 3, stride=2, padding=1, bias=False, name="strided"), BatchNorm(), inner]
    block = Residual(body, [Conv2D(4, 1, stride=2, bias=False, name="shortcut"), BatchNorm()])
    stage = Sequential(Sign(), conv(3, (2, 3), stride=(1, 2), padding=(0, 1, 2, 0), bias=False, name="last"))
    first = [Conv2D(2, 3, padding=1, bias=False, name="first"), BatchNorm()]
    return Network([*first, block, stage, GlobalAvgPool(), Dense(3, bias=True)], (6, 6, 3), form or recipe(), 3, **options)


NAMES = {
    "first": "first",
    "strided": "residual1/body/strided",
    "inner": "residual1/body/residual1/body/inner",
    "shortcut": "residual1/shortcut/shortcut",
    "last": "stage1/last",
}


def batch_of(samples=5, form=Fixed(32, 20), seed=0, scale=1):  # noqa: B008
    rng = np.random.default_rng(seed)
    x = quantize(scale * rng.standard_normal((samples, 6, 6, 3)), form, "ties_even", "saturate")
    return Labelled(x, rng.integers(0, 3, samples))


def by_hand(network, name, batch, sets):
    """Return the losses of a copy of the network into which weights are put, by its forward pass alone."""
    twin, found = copy.deepcopy(network), []
    (layer,) = (layer for layer in twin.layers.walk() if layer.name == name)
    for one in sets:
        value = layer.weight.value
        layer.weight.value = QTensor(one.reshape(value.shape).astype(value.mantissa.dtype), value.exponent, value.format)
        y = twin.forward(batch.inputs, STEP)
        found.append(kernels.softmax_loss(y.mantissa, y.exponent.reshape(-1), batch.labels))
    return found


def moves_of(one, count, seed=0):
    """Return moves up to a quarter of the weights' range, which change many signs."""
    quarter = one.format.maximum // 4
    return np.random.default_rng(seed).integers(-quarter // 8, quarter // 8, (count, one.weights.size))


# 1. Losses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_losses_are_the_networks_and_leave_it_as_it_was(kind, name):
    network, batch = network_of(kind), batch_of()
    network.forward(batch.inputs, Step(training=True))  # running statistics that are not those at the start
    before, outputs = network.digest(), network.forward(batch.inputs).mantissa
    one = OneLayer(network, NAMES[name])
    assert one.slices == [slice(0, one.weights.size)]
    moves = moves_of(one, 3)
    sets = one.weights + moves
    assert one.losses(batch).exact() == by_hand(network, NAMES[name], batch, [one.weights])
    expected = by_hand(network, NAMES[name], batch, [*sets, *(one.weights - moves)])
    assert one.losses(batch, sets).exact() == expected[:3]
    assert len(set(expected)) > 3
    pairs = one.pair_losses(batch, moves)
    assert pairs.high.shape == (2, 3)
    assert pairs.exact() == expected
    y = network.forward(batch.inputs, STEP)
    real = float(Fraction(one.losses(batch).exact()[0]) * one.loss_unit)
    assert real == pytest.approx(network.loss.value(y.to_float(), batch.labels), abs=1e-6)
    assert network.digest() == before
    assert_array_equal(network.forward(batch.inputs).mantissa, outputs)


def test_another_batch_is_another_landscape():
    """What comes before the layer is kept for one batch; batches of one sample and of more alternate."""
    network = network_of()
    one, batches = OneLayer(network, NAMES["inner"]), [batch_of(), batch_of(seed=1), batch_of(samples=1)]
    expected = [by_hand(network, NAMES["inner"], batch, [one.weights]) for batch in batches]
    for _ in range(2):
        assert [one.losses(batch).exact() for batch in batches] == expected
    assert len({str(one) for one in expected}) == 3


def test_with_other_weights():
    network, batch = network_of(), batch_of()
    one = OneLayer(network, NAMES["strided"])
    sets = one.weights + moves_of(one, 1)
    expected, before = one.losses(batch, sets).exact(), one.losses(batch).exact()
    other = one.with_weights(sets[0])
    assert other.weights.tolist() == sets[0].tolist()
    assert other.losses(batch).exact() == expected != before
    with pytest.raises(InputError, match=r"are others by now; make another OneLayer"):
        one.losses(batch)
    with pytest.raises(InputError, match=r"weights may reach .* take a smaller step"):
        other.with_weights(other.weights + 2**33)
    fast, plain = CDG("0.2", 9)(other, batch), CDG("0.2", 9, plain=True)(other, batch)
    assert fast.integers.tolist() == plain.integers.tolist()


def test_when_another_layer_moves_what_comes_before_is_computed_anew():
    network, batch = network_of(), batch_of()
    first, inner = OneLayer(network, NAMES["first"]), OneLayer(network, NAMES["inner"])
    before = inner.losses(batch).exact()
    first.with_weights(first.weights + moves_of(first, 1)[0])
    assert inner.losses(batch).exact() == OneLayer(network, NAMES["inner"]).losses(batch).exact() != before


# 2. Differences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_fast_differences_have_the_bits_of_the_definition(kind, name):
    network, batch = network_of(kind), batch_of()
    before, one = network.digest(), OneLayer(network, NAMES[name])
    furthest = (int(np.abs(one.weights).max()) + 1) * one.weight_unit  # changes every sign
    for epsilon in ("0.15", furthest):
        fast, plain = (CDG(epsilon, 20, plain=plain)(one, batch) for plain in (False, True))
        assert one._by_channel()
        assert fast.integers.tolist() == plain.integers.tolist()
        assert fast.units == plain.units
        assert fast.integers.any()
        assert network.digest() == before
    every, wanted = CDG("0.15")(one, batch), CDG("0.15", 20).wanted(one)
    assert every.integers[wanted].tolist() == CDG("0.15", 20)(one, batch).integers[wanted].tolist()
    unit = every.units[0] / one.loss_unit * 2 * round(Fraction("0.15") / one.weight_unit) * one.weight_unit
    for i in np.flatnonzero(wanted)[:3]:
        pair = np.stack([one.weights, one.weights])
        pair[:, i] += [k * round(Fraction("0.15") / one.weight_unit) for k in (1, -1)]
        losses = by_hand(network, NAMES[name], batch, pair)
        assert int(every.integers[i]) * unit == losses[0] - losses[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", SLOW)
def test_where_changes_are_not_of_one_channel_the_layer_is_computed_whole(kind, form):
    network = network_of(kind, SLOW[form])
    batch = batch_of(form=Fixed(8, 4), scale=3) if "accumulator" in form else batch_of()
    name = NAMES["first" if "accumulator" in form else "inner"]
    one = OneLayer(network, name)
    if "accumulator" in form:  # sums leave it
        one = one.with_weights(np.random.default_rng(1).integers(-100, 101, one.weights.size))
    before = network.digest()
    fast, plain = (CDG("0.3", 9, plain=plain)(one, batch) for plain in (False, True))
    assert not one._by_channel()
    assert fast.integers.any()
    assert fast.integers.tolist() == plain.integers.tolist()
    moves = moves_of(one, 2)
    assert one.pair_losses(batch, moves).exact()[:2] == by_hand(network, name, batch, one.weights + moves)
    assert network.digest() == before
    counted = [seen for seen in network.seen() if (seen.tensor, seen.role) == (name, "accumulator")]
    assert bool(counted[0].saturated + counted[0].wrapped) == ("accumulator" in form)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_with_exponents_of_their_own(kind):
    """Inputs of the first layer that are blocks a sample."""
    network, batch = network_of(kind), batch_of(form=BlockFloat(16, "row"))
    assert batch.inputs.exponent.size == 5
    one = OneLayer(network, "first")
    fast, plain = (CDG("0.3", 9, plain=plain)(one, batch) for plain in (False, True))
    assert fast.integers.tolist() == plain.integers.tolist()
    assert one.losses(batch).exact() == by_hand(network, "first", batch, [one.weights])


def test_narrow_words_are_fast_too():
    """8 bits with room in the accumulator; the format's least word, which saturation leaves behind, is a weight like others."""
    network, batch = network_of("full", FIXED), batch_of(form=Fixed(8, 4))
    one = OneLayer(network, NAMES["inner"])
    weights = one.weights.copy()
    weights[:3] = [-128, 127, 0]
    one = one.with_weights(weights)
    assert one.losses(batch).exact() == by_hand(network, NAMES["inner"], batch, [weights])
    wanted = np.arange(weights.size) > 1
    changes = one.changes(batch, 9, wanted)
    assert one._by_channel()
    assert not changes.high[:, :2].any()
    for i in (2, 5, 20):
        pair = np.stack([weights, weights])
        pair[:, i] += [9, -9]
        expected = np.array(one.losses(batch, pair).exact()) - one.losses(batch).exact()[0]
        assert [changes.exact()[i], changes.exact()[weights.size + i]] == expected.tolist()
    with pytest.raises(InputError, match=r"weights may reach 2\.14, and fxp-s8/6 ends at 1\.98438; take a smaller step"):
        one.changes(batch, 9)


def test_signs_change_where_a_weight_crosses_zero():
    """Zero counts as +1: one unit less makes it -1; -1 unit and one more makes it +1; nothing else is reached."""
    network, batch = network_of("binary"), batch_of()
    one = OneLayer(network, NAMES["inner"])
    weights = np.where(np.abs(one.weights) > 5, one.weights, 6)
    weights[[3, 40, 77]] = [0, -1, 1]
    one = one.with_weights(weights)
    changes = np.array(one.changes(batch, 1).exact(), object).reshape(2, -1)
    more, less = ((row != 0).nonzero()[0].tolist() for row in changes)
    assert (more, less) == ([40], [3])
    changes = np.array(one.changes(batch, 2).exact(), object).reshape(2, -1)
    more, less = ((row != 0).nonzero()[0].tolist() for row in changes)
    assert (more, less) == ([40], [3, 77])
    flipped = weights.copy()
    flipped[77] = -(2**20)
    assert one.losses(batch, flipped[None]).exact()[0] - one.losses(batch).exact()[0] == changes[1, 77]


# 3. Backwards, and other estimators -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_backpropagation_is_the_networks_own(kind, name):
    network, batch = network_of(kind), batch_of()
    before, one, twin = network.digest(), OneLayer(network, NAMES[name]), copy.deepcopy(network)
    losses = one.losses(batch).exact()
    found = STE()(one, batch)
    assert network.digest() == before
    assert one.losses(batch).exact() == losses
    y = twin.forward(batch.inputs, Step(training=True))
    twin.backward(twin.loss.gradient(y, batch.labels, STEP), STEP)
    (layer,) = (layer for layer in twin.layers.walk() if layer.name == NAMES[name])
    gradient = layer.weight.gradient
    assert found.integers.tolist() == gradient.mantissa.reshape(-1).tolist()
    assert found.units == [Fraction(2) ** int(gradient.exponent.item())]
    assert found.integers.any()


def test_after_the_last_sign_the_gradient_is_that_of_differences():
    """There the loss is smooth: so units are right, and that the loss is the sum over the batch."""
    network, batch = network_of(), batch_of()
    one = OneLayer(network, NAMES["last"])
    (true,), (differences,) = STE()(one, batch).layers(one), CDG("0.02")(one, batch).layers(one)
    np.testing.assert_allclose(differences, true, atol=3e-4 * np.abs(true).max())


@pytest.mark.parametrize("kind", KINDS)
def test_other_estimators_take_a_layer_too(kind):
    network, batch = network_of(kind), batch_of()
    before, one = network.digest(), OneLayer(network, NAMES["strided"])
    least = min(one.losses(batch, step(one, STE()(one, batch), [Fraction(k, 50)])).exact()[0] for k in range(1, 12))
    assert least < one.losses(batch).exact()[0]
    for estimator in (NES("0.2", 8), MaxPoint("0.5", 8), Around(STE(), "0.5", "0.3", 4)):
        found = estimator(one, batch)
        assert found.integers.shape == one.weights.shape
        assert found.integers.any()
        assert network.digest() == before


# 4. Mistakes ------------------------------------------------------------------------------------------------------------


def small(*layers, form=None, **options):
    return lambda: Network([*layers, GlobalAvgPool(), Dense(3)], (6, 6, 3), form or recipe(), **options)


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (network_of, "conv9", r"^no convolution of this network is called 'conv9'; there are first, residual1/body/strided, "),
        (network_of, "dense1", r"^no convolution of this network is called 'dense1'; there are first"),
        (
            small(Conv2D(2, bias=True)),
            "conv1",
            r"^layer 'conv1' must be a convolution of one group, without bias, of weights in",
        ),
        (small(Conv2D(3, groups=3, bias=False)), "conv1", r"^layer 'conv1' must be a convolution of one group"),
        (small(Conv2D(2, bias=False), form="wide"), "conv1", r"^layer 'conv1' must be .* in fixed point without a copy$"),
        (small(Conv2D(2, bias=False), form="int8"), "conv1", r"^layer 'conv1' must be .* in fixed point without a copy$"),
        (small(Conv2D(2, bias=False), loss="squared_error"), "conv1", "losses are cross-entropies here, .* squared_error$"),
        (small(Conv2D(2, bias=False), loss="niti_cross_entropy"), "conv1", "losses are cross-entropies here, .* niti_cross_"),
    ],
)
def test_what_is_no_layer_of_this_kind(make, name, message):
    with pytest.raises(InputError, match=message):
        OneLayer(make(), name)


def test_wide_without_its_copy_is_one():
    """The ready-made recipe with a master copy of its weights, and activations in blocks: with weights of fixed point alone."""
    wide = replace(RECIPES["wide"], name="without", weight="fxp-s32/24", master=None)
    network, batch = network_of("binary", wide), batch_of(form=BlockFloat(16))
    before, one = network.digest(), OneLayer(network, NAMES["inner"])
    fast, plain = (CDG("0.3", 9, plain=plain)(one, batch) for plain in (False, True))
    assert fast.integers.tolist() == plain.integers.tolist()
    assert network.digest() == before


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda one, b: one.losses(Labelled(b.inputs, b.labels[:0])), "^a batch needs samples, got none$"),
        (lambda one, b: one.losses(Labelled(b.inputs, b.labels[:4])), r"label in 0\.\.2 for each sample, got 5 samples and 4"),
        (lambda one, b: CDG("0.1")(one, Labelled(b.inputs, b.labels + 3)), r"label in 0\.\.2 .* 5 labels in 3\.\.4"),
        (lambda one, b: one.losses(Labelled(b.inputs, b.labels - 3)), r"label in 0\.\.2 .* 5 labels in -3\.\.-2"),
        (lambda one, b: CDG("8")(one, b), r"weights may reach 8\.\d+, and fxp-s32/28 ends at 8; take a smaller step"),
        (lambda one, b: CDG("8", plain=True)(one, b), r"weights may reach 8\.\d+, and fxp-s32/28 ends at 8; take a smaller st"),
        (lambda one, b: NES("100", 3)(one, b), r"weights may reach \d+, and fxp-s32/28 ends at 8"),
        (lambda one, b: CDG("1e-9")(one, b), r"epsilon 1e-09 vanishes"),
        (lambda one, b: STE("steep")(one, b), r"the backward pass of a network has the windows of its own Sign layers"),
        (lambda one, b: STE(signs=1)(one, b), r"take STE\(\) without options"),
        (lambda one, b: STE(window=True)(one, b), r"take STE\(\) without options"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_mistakes_leave_the_network_as_it_was(ask, message, kind):
    network, batch = network_of(kind), batch_of()
    before, one = network.digest(), OneLayer(network, NAMES["inner"])
    losses = one.losses(batch).exact()
    with pytest.raises(InputError, match=message):
        ask(one, batch)
    assert network.digest() == before
    assert one.losses(batch).exact() == losses
