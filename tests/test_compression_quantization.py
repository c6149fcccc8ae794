"""Weights and inputs as codes: the formulas, whole networks bit for bit, fine-tuning, checkpoints; mistakes."""

import copy
from dataclasses import replace
from fractions import Fraction
from itertools import product
from types import SimpleNamespace

import naive
import naive_compression
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet import checkpoint, datasets
from intnet import compression as c
from intnet.errors import InputError
from intnet.formats import BlockFloat, parse_format
from intnet.inputs import Encoder, Inputs
from intnet.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool,
    MaxPool2D,
    ReLU,
    Residual,
    Step,
)
from intnet.network import Network
from intnet.optimizers import SGD, Factor
from intnet.recipe import RECIPES, Recipe
from intnet.tensor import QTensor
from intnet.training import Trainer, evaluate

KINDS = list(product(("affine", "symmetric"), ("ratio", "power")))
TRAINING, EVALUATION = Step(3, 5, True), Step(3, 5)


# 1. The formulas ----------------------------------------------------------------------------------------------------------


def parameter(values, form="fxp-s16/14", exponent=None, mask=None):
    """Return what a coding looks at."""
    form = parse_format(form)
    exponent = np.full((1,) * np.ndim(values), -form.fraction_bits if exponent is None else exponent)
    tensor = QTensor(np.asarray(values).astype(form.storage), exponent, form)
    return SimpleNamespace(name="w", stored=tensor, mask=None if mask is None else np.array(mask, bool), shape=tensor.shape)


def check_codes(values, kind, form="fxp-s16/14", mask=None):
    """Compare with the reference; weights are within half a step of what their codes stand for."""
    bits = kind[0]
    held = [True] * len(values) if mask is None else list(mask)
    coded = c.WeightCoding(*kind)(parameter(values, form, mask=mask))
    some = [v for v, one in zip(values, held, strict=True) if one]
    expected, step = naive_compression.coded(some, *kind)
    unit = Fraction(1, 2 ** parse_format(form).fraction_bits)
    found = c.dequantized(coded)
    assert [v / unit for v, one in zip(found, held, strict=True) if one] == expected
    assert not any(v for v, one in zip(found, held, strict=True) if not one)
    assert all(abs(v - w) <= step / 2 for v, w in zip(expected, some, strict=True))
    assert coded.codes.dtype == np.int8
    if some:
        codes = set(coded.codes[held].tolist())
        assert max(codes) - min(codes) <= 2**bits - 1 or codes <= {-1, 1}
        assert len(codes) <= 2**bits
    return found


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_all_small_tensors(kind):
    """All pairs, and all triples of few bits: with ties, equal weights, one sign alone."""
    for values in product(range(-7, 8), repeat=2):
        for bits in range(1, 9):
            check_codes(values, (bits, *kind))
    for values in product(range(-3, 4), repeat=3):
        for bits in (1, 2, 3):
            check_codes(values, (bits, *kind))


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_ends_of_the_word_one_weight_and_masks(kind):
    rng = np.random.default_rng(1)
    many = rng.integers(-32768, 32768, 60).tolist()
    for bits in range(1, 9):
        for values in ([-32768, 32767], [-32768] * 3, [32767, 32766], [7], [-1], [0], [0, 0], many, [abs(v) for v in many]):
            check_codes(values, (bits, *kind))
        check_codes(many, (bits, *kind), mask=rng.random(60) < 0.5)
        check_codes(many, (bits, *kind), mask=[v > 0 for v in many])  # what is masked is not in the range
        check_codes([3, -900, 5], (bits, *kind), mask=[True, False, True])
        check_codes([3, -900], (bits, *kind), mask=[False, False])


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_ends_of_long_words_are_cut_to_16_bits(kind):
    """Of master copies of 40 bits the least is rounded down and the greatest up; the weights between them are not cut."""
    rng = np.random.default_rng(2)
    for bits in range(1, 9):
        for least, greatest in ((-(2**39), 2**39 - 1), (-12345678901, 34567890123), (-99, 2**30 + 1), (2**38 + 1, 2**38 + 3)):
            values = [least, greatest, *rng.integers(least, greatest, 20, endpoint=True).tolist()]
            check_codes(values, (bits, *kind), "fxp-s40/32")
            check_codes([-v for v in values], (bits, *kind), "fxp-s40/32")


@pytest.mark.parametrize("scheme", c.quantization.SCHEMES)
def test_words_of_60_bits_are_cut_before_they_are_coded(scheme):
    values = [2**59 - 1, 2**58, 2**57, 0]
    found = c.dequantized(c.WeightCoding(8, scheme)(parameter(values, "fxp-s60/0")))
    assert max(abs(v - w) for v, w in zip(found, values, strict=True)) <= Fraction(2**59, 127) / 2 + 2**44


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_rows_with_exponents_of_their_own_share_a_scale(kind):
    """They are brought to one exponent first, exactly; a row of zeros has none."""
    rng = np.random.default_rng(3)
    for bits, mask in product((1, 3, 8), (None, rng.random((4, 6)) < 0.7)):
        words, exponents = rng.integers(-128, 128, (4, 6)), np.array([[-9], [-6], [-128], [-12]])
        words[2] = 0
        words = words if mask is None else words * mask
        held = np.ones((4, 6), bool) if mask is None else mask
        tensor = QTensor(words.astype(np.int8), exponents, parse_format("bfp-s8/row"))
        found = c.dequantized(c.WeightCoding(bits, *kind)(SimpleNamespace(name="w", stored=tensor, mask=mask, shape=(4, 6))))
        exact = naive.value_of(tensor)
        assert list(found[held] * 2**12) == naive_compression.coded([int(v * 2**12) for v in exact[held]], bits, *kind)[0]
        assert not found[~held].any()


def test_codings_in_words():
    assert [str(c.WeightCoding(np.int64(3))), str(c.WeightCoding(8, "symmetric", "power"))] == [
        "3 bits affine ratio",
        "8 bits symmetric power",
    ]
    assert c.WeightCoding(np.int16(4)) == c.WeightCoding(4, "affine", "ratio") != c.WeightCoding(4, "symmetric")
    assert type(c.WeightCoding(np.int16(4)).bits) is int


# 2. Whole networks --------------------------------------------------------------------------------------------------------


def body():
    """Return convolutions, batch normalization, ReLUs, blocks with and without a projection, and a dense layer."""
    return [
        Conv2D(3, 3, padding=1, bias=False), BatchNorm(), ReLU(),
        Residual([Conv2D(3, 3, padding=1, bias=False), BatchNorm(), ReLU(), Conv2D(3, 1, bias=False), BatchNorm()]), ReLU(),
        Residual([Conv2D(4, 3, stride=2, padding=1, bias=False), BatchNorm()], [Conv2D(4, 1, stride=2, bias=False)]), ReLU(),
        GlobalAvgPool(), Dense(3),
    ]  # fmt: skip


def samples(recipe, shape, count=3, seed=0):
    form = Recipe.load(recipe).activation.format
    rng = np.random.default_rng(seed)
    block = isinstance(form, BlockFloat)
    bits = min(form.word_bits, 12)
    mantissa = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (count, *shape)).astype(form.storage)
    exponent = (
        np.full(form.exponent_shape(mantissa.shape), 1 - bits) if block else np.full((1,) * mantissa.ndim, -form.fraction_bits)
    )
    return QTensor(mantissa, exponent, form)


def trained_a_little(recipe, make=body, shape=(6, 6, 2), seed=3):
    """Return a network whose statistics and weights have been moved."""
    network = Network(make(), shape, recipe, seed)
    for number in range(2):
        step = Step(number, 1, True)
        y = network.forward(samples(recipe, shape, 6, number), step)
        network.backward(network.loss.gradient(y, np.array([0, 1, 2, 0, 1, 2]), step), step)
        rate = Factor.of("2^2") if network.recipe.update == "normalized" else Factor.of("2^-4")
        SGD("2^-4").update_all([one for one in network.parameters if "dense" not in one.name], rate, 6, step)
    return network


def check_every_product(network, x, kind, inputs):
    """Compare each product layer of an evaluation with exact sums of what codes stand for, rounded once."""
    seen = []
    layers = [layer for layer in network.layers.walk() if hasattr(layer, "coding")]
    for layer in layers:
        layer.forward = lambda x, step, layer=layer, run=layer.forward: seen.append((layer, x, run(x, step))) or seen[-1][2]
    network.forward(x)
    for layer in layers:
        del layer.forward
    assert {layer.name for layer, *_ in seen} == {layer.name for layer in layers}
    for layer, x, y in seen:
        values, stored = naive.value_of(x), layer.weight.stored
        if layer.name in inputs:
            words, exponents, *_ = naive.into_format(values, f"bfp-s{inputs[layer.name]}/row")
            values = words * np.array([Fraction(2) ** e for e in exponents], object).reshape((-1,) + (1,) * (values.ndim - 1))
        weights, mask = naive.value_of(stored), layer.weight.mask
        if layer.coding is None:
            weights = naive.value_of(layer.weight.value)
        else:
            unit, held = Fraction(2) ** int(stored.exponent.min()), np.ones(weights.shape, bool) if mask is None else mask
            made = naive_compression.coded([int(v / unit) for v in weights[held]], *kind)[0]
            weights = np.full(weights.shape, Fraction(0), object)
            weights[held] = np.array(made, object) * unit
        exact = (
            values @ weights.T if isinstance(layer, Dense) else naive.convolve(values, weights, layer.stride, layer.padding, 1)
        )
        exact = exact if layer.bias is None else exact + naive.value_of(layer.bias.value)
        role = layer.recipe.activation
        mode = "ties_even" if role.rounding.value == "stochastic" else role.rounding.value
        text = str(role.format).replace("/tensor", "/row")
        words, exponents, *_ = naive.into_format(exact, text, mode, role.overflow.value)
        assert y.exponent.reshape(-1).tolist() == exponents
        assert_array_equal(y.mantissa.astype(object), words)


@pytest.mark.parametrize("recipe", ["fixed16", "int8", "bfp8", "niti8"])
def test_every_product_of_a_networks_evaluation_is_exact(recipe):
    """Every scheme, with a mask and coded inputs or without: the layers between products know nothing of codes."""
    network = trained_a_little(recipe)
    x = samples(recipe, (6, 6, 2), 2, 9)
    for number, kind in enumerate(KINDS):
        kind = (3, *kind)
        if number == 2:
            c.prune_layers(network, 60)
        c.quantize_weights(network, c.WeightCoding(*kind), "*")
        inputs = {}
        if number % 2:
            c.quantize_inputs(network, 4, "*")
            inputs = {name: 5 - (name == "conv1") for name in (layer.name for layer in network.layers.walk()) if "conv" in name}
            inputs["dense1"] = 5
        check_every_product(network, x, kind, inputs)
        c.take_away(network)
    check_every_product(network, x, kind, {})


@pytest.mark.parametrize("recipe", ["fixed16", "int8", "bfp8", "bfp8-big", "niti8", "wide"])
@pytest.mark.parametrize("scheme", c.quantization.SCHEMES)
def test_codes_with_a_power_for_scale_are_plain_weights(recipe, scheme):
    """The whole network, evaluated, trained and run backwards: as one that has the weights of the codes for its own."""
    coded, plain = trained_a_little(recipe), trained_a_little(recipe)
    c.prune_layers(coded, 30)
    names = c.quantize_weights(coded, c.WeightCoding(4, scheme, "power"), "*")
    assert len(names) == 6
    for one, other in zip(coded.parameters, plain.parameters, strict=True):
        other.mask, other.value, other.master = one.mask, one.value, one.master
    for one, other in zip(coded.layers.walk(), plain.layers.walk(), strict=True):
        if one.name in names:
            codes = one.coding(one.weight)
            assert codes.divisor == codes.scale == 1
            exponent = np.full((1,) * codes.codes.ndim, codes.exponent)
            other.weight.value = QTensor(codes.numerators().astype(np.int16), exponent, parse_format("bfp-s16/tensor"))
    x = samples(recipe, (6, 6, 2), 4, 8)
    outcomes = []
    for network in (coded, plain):
        found = []
        for step in (EVALUATION, TRAINING):
            y = network.forward(x, step)
            found += [y.mantissa, y.exponent]
        network.backward(network.loss.gradient(y, np.array([0, 2, 1, 1]), TRAINING), TRAINING)
        found += [naive.value_of(one.gradient) for one in network.parameters]
        outcomes.append(found)
    for mine, theirs in zip(*outcomes, strict=True):
        assert_array_equal(mine, theirs)
    assert all(mine.any() for mine in outcomes[0][4:])


# 3. Fine-tuning -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    whole = datasets.load_digits()
    return replace(whole, codes=whole.codes[:120], labels=whole.labels[:120])


def small():
    return [Conv2D(4, 3, bias=False), ReLU(), MaxPool2D(2), Flatten(), Dense(12), ReLU(), Dense(10)]


def trainer_of(data, recipe="fixed16", *, coding=None, inputs=None, epochs=3, make=small):
    recipe = Recipe.load(recipe)
    normalized = recipe.update == "normalized"
    optimizer = SGD("2^4") if normalized else SGD("2^-4", "0.9", "2^-10")
    encoder = Encoder.of(data, recipe)
    network = Network(make(), encoder.shape, recipe, 3)
    if coding is not None:
        c.quantize_weights(network, coding, "*")
    if inputs is not None:
        c.quantize_inputs(network, inputs, "*")
    return Trainer(network, optimizer, Inputs.of(data, encoder), epochs=epochs, batch=32, seed=3)


def outcome(trainer):
    history = [replace(row, seconds=0) for row in trainer.history]
    return trainer.network.digest(), history, trainer.readings, trainer.epoch, trainer.died


FIXED8 = Recipe(
    "fixed8", weight="fxp-s8/6 stochastic", activation="fxp-s16/9", error="fxp-s16/13 stochastic",
    gradient="fxp-s16/9 stochastic", momentum="fxp-s16/7 stochastic", biases=False,
)  # fmt: skip


@pytest.mark.parametrize("recipe", [FIXED8, RECIPES["niti8"], replace(RECIPES["bfp8-big"], biases=False)], ids=lambda r: r.name)
def test_codes_that_lose_nothing_change_no_bit_of_a_training(recipe, digits):
    """Of 8-bit words in 8 bits: the codes are the weights, whatever way the products go."""
    coded, plain = trainer_of(digits, recipe, coding=c.WeightCoding(8, "affine", "power")), trainer_of(digits, recipe)
    for one in (coded, plain):
        one.run(one.train)
    assert outcome(coded)[:2] == outcome(plain)[:2]
    assert coded.network.digest() != trainer_of(digits, recipe).network.digest()


@pytest.mark.parametrize("kind", [(3, "affine", "ratio"), (2, "symmetric", "power")])
def test_a_step_moves_the_stored_weights_by_the_gradient_of_the_coded_ones(kind):
    """Two layers, all in Fractions: forwards and backwards with the codes, the update on what is stored."""
    recipe = Recipe("t", weight="fxp-s16/12", activation="fxp-s16/8", error="fxp-s16/10", gradient="fxp-s16/9", biases=False)
    network = Network([Dense(5), ReLU(), Dense(3)], (4,), recipe, seed=2)
    first, second = (network.layers.layers[i].weight for i in (0, 2))
    c.quantize_weights(network, c.WeightCoding(*kind), "*")
    c.set_mask(network, "dense2", np.arange(15).reshape(3, 5) % 4 > 0)
    x, dy = (
        samples(recipe, (4,), 6),
        QTensor(samples(recipe, (3,), 6, 1).mantissa, np.array([[-10]]), parse_format("fxp-s16/10")),
    )
    w, unit = [naive.value_of(one.value) for one in (first, second)], Fraction(1, 2**12)

    def of_codes(values, mask):
        made = np.full(values.shape, Fraction(0), object)
        made[mask] = naive_compression.coded([int(v / unit) for v in values[mask]], *kind)[0]
        return made * unit

    def brought(values, text):
        return naive.into_format(values, text)[0] * Fraction(1, 2 ** int(text.partition("/")[2]))

    for number in range(2):  # the second step has the codes of the moved weights
        step, batch = Step(number, 0, True), naive.value_of(x)
        w1, w2 = of_codes(w[0], np.ones((5, 4), bool)), of_codes(w[1], second.mask)
        h = np.maximum(brought(batch @ w1.T, "fxp-s16/8"), Fraction(0))
        y, errors = brought(h @ w2.T, "fxp-s16/8"), naive.value_of(dy)
        dh = brought(errors @ w2, "fxp-s16/10") * (h > 0)
        gradients = dh.T @ batch, errors.T @ h
        assert (naive.value_of(network.forward(x, step)) == y).all()
        network.backward(dy, step)
        for one, exact in zip((first, second), gradients, strict=True):
            assert (naive.value_of(one.gradient) == exact).all()
        SGD("2^-1").update_all(network.parameters, Factor.of("2^-1"), 6, step)
        rate = Factor.of("2^-1").times(Fraction(1, 6)).exact
        w = [brought(v - rate * brought(g, "fxp-s16/9"), "fxp-s16/12") for v, g in zip(w, gradients, strict=True)]
        assert (naive.value_of(first.value) == w[0]).all()
        assert (naive.value_of(second.value) == w[1]).all()
        assert w[1][~second.mask].any()
        second.enforce()
        w[1] = w[1] * second.mask


@pytest.mark.parametrize("recipe", ["fixed16", "int8", "bfp8", "niti8"])
def test_a_resumed_fine_tuning_is_one_never_stopped(recipe, digits, tmp_path):
    """Pruned more before every epoch, masked, weights and inputs coded; stopped after the first."""
    path = tmp_path / "checkpoint.npz"

    def before(trainer):
        c.prune_layers(trainer.network, 20 * (trainer.epoch + 1), masked=trainer.epoch > 0 or recipe == "bfp8")

    def made():
        return trainer_of(digits, recipe, coding=3, inputs=5)

    class StopError(Exception):
        pass

    def after(trainer):
        checkpoint.save(path, trainer)
        if trainer.epoch == stops:
            raise StopError

    straight = made()
    straight.run(straight.train, before=before)
    for stops in (1, 2):
        stopped, resumed = made(), made()
        with pytest.raises(StopError):
            stopped.run(stopped.train, before=before, after=after)
        checkpoint.restore(resumed, checkpoint.load(path))
        assert outcome(resumed) == outcome(stopped)
        masks = [one.mask is not None for one in resumed.network.parameters]
        assert any(masks) == (stops == 2 or recipe == "bfp8")
        resumed.run(resumed.train, before=before)
        assert outcome(resumed) == outcome(straight)
    zeros = c.sparsity(straight.network)[-1]
    assert zeros.sparsity >= 0.55


def test_telemetry_tells_of_rounded_inputs(digits):
    trainer = trainer_of(digits, coding=4, inputs=4, epochs=1)
    trainer.run()
    roles = {reading.tensor for reading in trainer.readings if reading.role == "inputs"}
    assert roles == {"conv1", "dense1", "dense2"}


# 4. Evaluation and state --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["fixed16", "bfp8-big", "niti8"])
def test_evaluations_do_not_depend_on_the_batch(recipe, digits):
    trainer = trainer_of(digits, replace(RECIPES[recipe], biases=False), coding=3, inputs=3, epochs=1)
    trainer.run()
    found = [evaluate(trainer.network, trainer.train, batch=batch) for batch in (1, 7, 120)]
    assert {one.predictions.tobytes() for one in found} == {found[0].predictions.tobytes()}
    assert len({one.accuracy for one in found}) == 1
    alike = evaluate(copy.deepcopy(trainer.network), trainer.train)
    assert alike.predictions.tolist() == found[0].predictions.tolist()


@pytest.mark.parametrize(
    ("here", "text"),
    [
        ({}, r"layers\[1\] conv1 Conv2D\(.*\.\.\. there, conv1 .* here"),
        ({"coding": c.WeightCoding(4, "symmetric")}, r"layers\[1\] conv1"),
        ({"coding": 5}, r"layers\[1\] conv1"),
        ({"coding": 4, "inputs": 4}, r"layers\[1\] conv1"),
    ],
    ids=["none", "another", "more bits", "inputs"],
)
def test_checkpoints_of_another_coding_are_refused(here, text, digits, tmp_path):
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, trainer_of(digits, coding=4))
    for trainer, other in ((trainer_of(digits, **here), path), (trainer_of(digits, coding=4), tmp_path / "other.npz")):
        if not other.exists():
            checkpoint.save(other, trainer_of(digits, **here))
        before = outcome(trainer)
        with pytest.raises(InputError, match=f"^the checkpoint is of another training: {text}"):
            checkpoint.restore(trainer, checkpoint.load(other))
        assert outcome(trainer) == before
