"""Pruning: the percentile's rule exact, masks that hold in every recipe and optimizer, what is counted; mistakes."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import combinations_with_replacement

import naive
import naive_compression
import numpy as np
import pytest

from intnet import checkpoint, datasets, kernels, models
from intnet import compression as c
from intnet.compression.pruning import below_percentile, magnitudes
from intnet.errors import InputError
from intnet.inputs import Encoder, Inputs
from intnet.layers import BinaryConv2D, Conv2D, Dense, Flatten, ReLU, Residual
from intnet.network import Network
from intnet.optimizers import HALP, SGD, SVRG, SWALP, BitCentering, SWALPSchedule
from intnet.recipe import RECIPES, Recipe
from intnet.tensor import QTensor
from intnet.training import Trainer

PERCENTS = (0, "0.1", 10, 25, "100/3", 50, 62.5, 80, 99, "99.9", 100)
REST = ("fixed16", "int8", "bfp8", "niti8")


# 1. The rule --------------------------------------------------------------------------------------------------------------


def test_percentiles_of_all_small_tensors():
    """Up to five magnitudes of 0..4, with all their ties, against Fractions, and against NumPy where floats are sure."""
    for count in range(1, 6):
        for values in combinations_with_replacement(range(5), count):
            array = np.array(values[::-1])
            for q in PERCENTS:
                threshold = naive_compression.percentile(values, Fraction(q))
                found = below_percentile(array, Fraction(q) / 100)
                assert found.tolist() == [v < threshold for v in array.tolist()]
                theirs = np.percentile(array, float(Fraction(q)))
                if abs(theirs - round(theirs)) > 1e-9:
                    assert found.tolist() == (array < theirs).tolist()
                else:
                    assert theirs == pytest.approx(float(threshold))


def test_percentiles_of_many_are_numpys():
    rng = np.random.default_rng(0)
    for high in (9, 1000, 2**40):
        values = rng.integers(0, high, 997)
        for q in PERCENTS:
            threshold = naive_compression.percentile(values.tolist(), Fraction(q))
            found = below_percentile(values, Fraction(q) / 100)
            assert found.sum() == sum(v < threshold for v in values.tolist())
            if high > 1000:
                assert found.tolist() == (values < np.percentile(values, float(Fraction(q)))).tolist()


def test_a_percentile_among_others():
    values, others = np.array([[0, 5], [9, 7]]), np.array([7, 8, 9, 100])
    assert below_percentile(values, Fraction(1, 3), others).tolist() == [[True, True], [False, True]]  # below 8
    assert below_percentile(values, Fraction(0), others).tolist() == [[True, True], [False, False]]
    assert not below_percentile(np.array([3]), Fraction(1)).any()  # one number is its own percentile


def test_words_of_61_bits_are_compared_exactly():
    values = [0, 2**61 - 1, 2**61 - 2, 2**60 + 1, 2**60]
    for q in PERCENTS:
        threshold = naive_compression.percentile(values, Fraction(q))
        assert below_percentile(np.array(values), Fraction(q) / 100).tolist() == [v < threshold for v in values]


# 2. Networks --------------------------------------------------------------------------------------------------------------


def dense(*words, recipe="fixed16", exponents=None):
    """Return a network of dense layers with these weights, all square."""
    network = Network([Dense(len(one), name=f"d{i}") for i, one in enumerate(words)], (len(words[0][0]),), recipe)
    for i, (layer, one) in enumerate(zip(network.layers.layers, words, strict=True)):
        form = layer.weight.stored.format
        exponent = layer.weight.stored.exponent if exponents is None else np.array(exponents[i]).reshape(-1, 1)
        tensor = QTensor(np.array(one).astype(form.storage), exponent, form)
        layer.weight.assign(tensor)
        if exponents is not None:
            layer.weight.value = tensor
    return network


def counted(rows):
    return [(one.layer, one.zeros, one.weights) for one in rows]


def words_of(network, number=0):
    return network.layers.layers[number].weight.value.mantissa.tolist()


def test_what_is_below_a_layers_percentile_becomes_zero():
    network = dense([[1, -2], [3, -4]], [[9, 9], [-9, 10]])
    assert counted(c.prune_layers(network, 50)) == [("d0", 2, 4), ("d1", 0, 4), ("total", 2, 8)]  # 9 is not below 9
    assert words_of(network) == [[0, 0], [3, -4]]
    assert [one.sparsity for one in c.sparsity(network)] == [0.5, 0, 0.25]
    assert counted(c.prune_layers(network, 100)) == [("d0", 3, 4), ("d1", 3, 4), ("total", 6, 8)]
    assert words_of(network, 1) == [[0, 0], [0, 10]]  # the greatest stays


@pytest.mark.parametrize("recipe", [*REST, "wide", "bfp8-big"])
@pytest.mark.parametrize("q", [0, 100, 80, 0.1, "12.5", Fraction(200, 3), Decimal("0.1"), np.int64(80), np.float64(62.5)])
def test_layers_of_every_recipe(recipe, q):
    """Of weights with a master copy the copy is looked at; with exponents of rows, what they stand for."""
    network = Network([Dense(7), ReLU(), Dense(5)], (6,), recipe, seed=2)
    expected, share = {}, Fraction(str(q))
    for layer in (network.layers.layers[0], network.layers.layers[2]):
        before = naive.value_of(layer.weight.stored)
        threshold = naive_compression.percentile([abs(v) for v in before.ravel()], share)
        expected[layer.name] = np.where(np.abs(before) < threshold, Fraction(0), before)
    rows = c.prune_layers(network, q)
    for layer, row in zip((network.layers.layers[0], network.layers.layers[2]), rows, strict=False):
        kept = expected[layer.name]
        assert (naive.value_of(layer.weight.stored) == kept).all()
        assert row == c.Sparsity(layer.name, kept.size, int((kept == 0).sum()))
        assert (layer.weight.mask == (kept != 0)).all()
        assert not layer.weight.value.mantissa[kept == 0].any()


@pytest.mark.parametrize("recipe", [*REST, "wide", "bfp8-big"])
@pytest.mark.parametrize("q", [0, 100, 80, 0.1, "100/3"])
def test_all_layers_together(recipe, q):
    """One threshold for what numbers stand for, whatever their exponents."""
    network = Network([Conv2D(3, 2), ReLU(), Conv2D(4, 2, initial="xavier_normal"), Flatten(), Dense(5)], (4, 4, 2), recipe)
    layers = [layer for layer in network.layers.walk() if isinstance(layer, (Conv2D, Dense))]
    before = [naive.value_of(layer.weight.stored) for layer in layers]
    everything = [abs(v) for one in before for v in one.ravel()]
    threshold = naive_compression.percentile(everything, Fraction(str(q)))
    rows = c.prune_globally(network, q)
    zeros = 0
    for layer, old, row in zip(layers, before, rows, strict=False):
        kept = np.where(np.abs(old) < threshold, Fraction(0), old)
        assert (naive.value_of(layer.weight.stored) == kept).all()
        assert (row.layer, row.zeros) == (layer.name, int((kept == 0).sum()))
        zeros += row.zeros
    assert rows[-1] == c.Sparsity("total", len(everything), zeros)


def test_exponents_of_rows_and_layers_are_taken_into_account():
    network = dense([[3, -3], [40, 1]], [[100, 2], [-2, 9]], recipe="bfp8", exponents=[[-6, -10], [-12, -8]])
    values, least = magnitudes(network.layers.layers[0].weight)
    assert (values.tolist(), least) == ([[48, 48], [40, 1]], -10)
    assert counted(c.prune_globally(network, "400/7"))[-1] == ("total", 4, 8)
    # in units of 2**-12: 192 192 160 4, 100 2 32 144; the 4th of 0..7 is 144, and is not below
    assert words_of(network) == [[3, -3], [40, 0]]
    assert words_of(network, 1) == [[0, 0], [0, 9]]


def test_shortcuts_of_1x1_are_left_alone_by_default():
    network = Network(models.resnet20(width=1 / 16), (8, 8, 3), "fixed16")
    every = [one.name.rpartition(".")[0] for one in network.parameters if one.name.endswith(".weight")]
    every = [name for name in every if "batch_norm" not in name]
    assert len(every) == 22
    shortcuts = [name for name in every if "/shortcut/" in name]
    assert len(shortcuts) == 2
    assert c.prunable(network) == [name for name in every if name not in shortcuts]
    rows = c.prune_layers(network, 80)
    assert [one.layer for one in rows] == [*c.prunable(network), "total"]
    assert not any(one.mask is not None for one in network.parameters if "/shortcut/" in one.name)
    assert [one.layer for one in c.prune_layers(network, 50, "*/shortcut/*")][:-1] == shortcuts
    assert rows[-1].weights == sum(one.weights for one in rows[:-1])
    assert rows[-1].zeros == sum(one.zeros for one in rows[:-1])
    assert c.prunable(Network([Residual([Conv2D(2, 1)], [Conv2D(2, 3, padding=1)])], (3, 3, 2))) == [
        "residual1/body/conv1",
        "residual1/shortcut/conv1",
    ]


# 3. Masks -----------------------------------------------------------------------------------------------------------------


def test_masks_come_and_go():
    network = dense([[1, -2], [3, -4]], [[5, 6], [7, 8]])
    first, second = (layer.weight for layer in network.layers.layers)
    c.prune_layers(network, 50, "d0", masked=False)
    assert first.mask is second.mask is None
    assert words_of(network) == [[0, 0], [3, -4]]
    c.enforce(network, ["d0"])
    assert first.mask.tolist() == [[False, False], [True, True]]
    assert second.mask is None
    c.set_mask(network, "d1", [[0, 1], [1, 1]])
    assert words_of(network, 1) == [[0, 6], [7, 8]]
    c.prune_layers(network, 60, "d1", masked=False)  # among 0 6 7 8, below 6.8; the mask stays as it was
    assert words_of(network, 1) == [[0, 0], [7, 8]]
    assert second.mask.tolist() == [[False, True], [True, True]]
    c.enforce(network)
    assert second.mask.tolist() == [[False, False], [True, True]]
    c.release(network, "d0")
    assert first.mask is None
    assert second.mask is not None
    assert words_of(network) == [[0, 0], [3, -4]]
    c.release(network)
    assert second.mask is None


def test_a_mask_is_the_networks_own():
    network, mask = dense([[1, 2], [3, 4]]), np.array([[True, False], [True, True]])
    c.set_mask(network, "d0", mask)
    mask[:] = False
    assert network.parameters[0].mask.sum() == 3
    state = network.state()
    state["d0.weight/mask"][:] = False
    assert network.parameters[0].mask.sum() == 3
    state["d0.weight/mask"][:] = True
    network.load_state(state)
    state["d0.weight/mask"][:] = False
    assert network.parameters[0].mask.all()


def test_what_is_not_masked_keeps_its_integers_and_exponents():
    for recipe in REST:
        network = Network([Dense(6)], (5,), recipe, seed=1)
        one = network.parameters[0]
        before = [(part.mantissa.copy(), part.exponent.copy()) for part in (one.value, one.master) if part is not None]
        mask = np.arange(30).reshape(6, 5) % 3 > 0
        c.set_mask(network, "dense1", mask)
        after = [part for part in (one.value, one.master) if part is not None]
        for (mantissa, exponent), part in zip(before, after, strict=True):
            assert (part.mantissa == mantissa * mask).all()
            assert (part.exponent == exponent).all()


def test_masks_are_state():
    network, other = dense([[1, 2], [3, 4]]), dense([[1, 2], [3, 4]])
    before = network.digest()
    c.prune_layers(network, 0)
    assert network.digest() != before  # a mask that masks nothing is one
    other.load_state(network.state())
    assert other.digest() == network.digest()
    assert other.parameters[0].mask.all()
    for wrong, message in (
        (np.ones((2, 3), bool), r"^d0\.weight/mask holds bool of shape \(2, 3\), and the shape is \(2, 2\)$"),
        (np.ones((2, 2), np.int8), r"^d0\.weight/mask holds int8 of shape \(2, 2\), and the shape is \(2, 2\)$"),
    ):
        with pytest.raises(InputError, match=message):
            other.load_state({**network.state(), "d0.weight/mask": wrong})
        assert other.digest() == network.digest()
    with pytest.raises(InputError, match=r"^d9\.weight/mask belongs to no tensor of this network$"):
        other.load_state({**network.state(), "d9.weight/mask": np.ones((2, 2), bool)})
    c.release(network)
    other.load_state(network.state())
    assert other.parameters[0].mask is None


# 4. Training --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    whole = datasets.load_digits()
    return replace(whole, codes=whole.codes[:120], labels=whole.labels[:120])


def trainer_of(data, recipe="fixed16", optimizer=None, epochs=2):
    recipe = Recipe.load(recipe)
    if optimizer is None:
        optimizer = SGD("2^4") if recipe.update == "normalized" else SGD("2^-3", "0.9", "2^-8")
    encoder = Encoder.of(data, recipe)
    network = Network([Conv2D(3, 3), ReLU(), Flatten(), Dense(9), ReLU(), Dense(10)], encoder.shape, recipe, 3)
    return Trainer(network, optimizer, Inputs.of(data, encoder), epochs=epochs, batch=32, seed=3)


OPTIMIZERS = {
    "swalp": lambda: SWALP(SWALPSchedule("2^-3", start=1, averaging_rate="2^-4"), "0.9", "2^-8"),
}


@pytest.mark.parametrize("optimizer", [SVRG("0.1", period=3), HALP("0.1", BitCentering(8, 1, 3))], ids=["svrg", "halp"])
@pytest.mark.parametrize("change", [lambda n: c.prune_layers(n, 50), lambda n: c.quantize_weights(n, 4, "*")])
def test_optimizers_with_weights_of_their_own_refuse_masks_and_codes(optimizer, change, digits):
    """They pass with weights that are not the stored ones, from which codes would be made."""
    trainer = trainer_of(digits, "fixed16", optimizer)
    change(trainer.network)
    before = trainer.network.digest()
    with pytest.raises(InputError, match=r"is trained by SGD or SWALP; (SVRG|HALP) keeps weights of its own$"):
        trainer.run()
    assert trainer.network.digest() == before


@pytest.mark.parametrize(("recipe", "optimizer"), [*((one, None) for one in REST), *(("fixed16", one) for one in OPTIMIZERS)])
def test_masked_weights_stay_zero_and_others_may_grow_again(recipe, optimizer, digits):
    """With momentum and decay; the weight and its master copy, after every step."""
    for masked in (True, False):
        trainer = trainer_of(digits, recipe, None if optimizer is None else OPTIMIZERS[optimizer]())
        network = trainer.network
        c.prune_layers(network, 70, masked=masked)
        zeros = {one.name: one.stored.mantissa == 0 for one in network.parameters if one.name.endswith("weight")}
        after_step, seen = trainer.optimizer.after_step, []

        def look(parameters, steps, per_epoch, after_step=after_step, zeros=zeros, seen=seen):
            here = {one.name: (one.value.mantissa, one.stored.mantissa) for one in parameters}
            seen.append([any(part[zeros[name]].any() for part in here[name]) for name in zeros])
            after_step(parameters, steps, per_epoch)

        trainer.optimizer.after_step = look
        before = network.digest()
        trainer.run()
        assert len(seen) == 8
        assert network.digest() != before
        assert np.any(seen) != masked
        if masked:
            rows = c.sparsity(network)
            assert all(one.zeros >= zeros[f"{one.layer}.weight"].sum() for one in rows[:-1])
            assert rows[-1].zeros == sum(one.zeros for one in rows[:-1])
        else:
            assert np.all(seen[-1])


@pytest.mark.parametrize("recipe", REST)
def test_iterative_pruning_resumes_with_the_same_bits(recipe, digits, tmp_path):
    """Before each epoch more, globally, with regrowth until a mask holds; stopped after every epoch."""
    path, epochs = tmp_path / "checkpoint.npz", 3

    def before(trainer):
        called.append(trainer.epoch)
        rows.append(c.prune_globally(trainer.network, 30 * (trainer.epoch + 1), masked=trainer.epoch == epochs - 1)[-1])

    called, rows = [], []
    straight = trainer_of(digits, recipe, epochs=epochs)
    straight.run(before=before)
    assert called == [0, 1, 2]
    assert [round(one.sparsity, 1) for one in rows] == [0.3, 0.6, 0.9]
    assert c.sparsity(straight.network)[-1].zeros >= rows[-1].zeros
    for stops in (1, 2):
        stopped = trainer_of(digits, recipe, epochs=epochs)
        while stopped.epoch < stops:
            before(stopped)
            stopped.run_epoch()
        checkpoint.save(path, stopped)
        resumed = trainer_of(digits, recipe, epochs=epochs)
        checkpoint.restore(resumed, checkpoint.load(path))
        resumed.run(before=before)
        assert resumed.network.digest() == straight.network.digest()
        assert resumed.readings == straight.readings
    masked = trainer_of(digits, recipe, epochs=epochs)
    checkpoint.save(path, straight)
    checkpoint.restore(masked, checkpoint.load(path))
    assert (masked.network.parameters[0].mask == straight.network.parameters[0].mask).all()


# 5. Mistakes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [c.prune_layers, c.prune_globally])
@pytest.mark.parametrize(
    "q",
    [-1, "-0.001", 100.1, "101", float("nan"), float("inf"), "nan", "many", True, False, None, [50], "1/0", 1j, np.array(5)],
)
def test_percentiles_outside_0_to_100_are_refused(prune, q):
    network = dense([[1, -2], [3, -4]])
    before = network.digest()
    with pytest.raises(InputError, match=r"^a percentile is a number in 0\.\.100, got "):
        prune(network, q)
    assert network.digest() == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: c.prune_layers(n, 50, "e*"), r"^no layer with weights is called 'e\*'; there are d0$"),
        (lambda n: c.prune_globally(n, 50, ["d0", "d1"]), r"^no layer with weights is called 'd1'; there are d0$"),
        (lambda n: c.enforce(n, "d1"), r"^no layer with weights is called 'd1'"),
        (lambda n: c.release(n, [None]), r"^no layer with weights is called None"),
        (lambda n: c.sparsity(n, "d1"), r"^no layer with weights is called 'd1'"),
        (lambda n: c.set_mask(n, "d1", np.ones((2, 2), bool)), r"^no layer with weights is called 'd1'"),
        (
            lambda n: c.set_mask(n, "d0", np.ones((2, 3), bool)),
            r"^the weights of layer 'd0' have shape \(2, 2\), got a mask of shape \(2, 3\)$",
        ),
        (lambda n: c.set_mask(n, "d0", True), r"^the weights of layer 'd0' have shape \(2, 2\), got a mask of shape \(\)$"),
        (lambda n: c.set_mask(n, "d0", np.ones((2, 2))), r"^a mask holds True and False, or 1 and 0, got float64$"),
        (lambda n: c.set_mask(n, "d0", [[0, 2], [1, 1]]), r"^a mask holds True and False, or 1 and 0, got int64$"),
        (lambda n: c.set_mask(n, "d0", [["", ""], ["", "a"]]), r"^a mask holds True and False, or 1 and 0, got <U1$"),
    ],
)
def test_mistakes_are_refused_in_one_line(call, message):
    network = dense([[1, -2], [3, -4]])
    before = network.digest()
    with pytest.raises(InputError, match=message) as caught:
        call(network)
    assert "\n" not in str(caught.value)
    assert network.digest() == before


def test_weights_that_span_too_many_bits_are_refused():
    network = dense([[1, 1], [3, 4]], [[1, 1], [1, 1]], recipe="bfp8", exponents=[[0, -60], [0, 0]])
    with pytest.raises(InputError, match=r"^the blocks of d0\.weight span 63 bits and may span 61; give it one exponent$"):
        c.prune_layers(network, 50)
    network = dense([[1, 1], [3, 4]], [[1, 1], [1, 1]], recipe="bfp8", exponents=[[0, 0], [-61, -61]])
    with pytest.raises(InputError, match=r"^weights of these layers span 64 bits and may span 61; prune them by layers$"):
        c.prune_globally(network, 50)
    assert counted(c.prune_layers(network, 50))[-1] == ("total", 2, 8)


def test_masks_stay_on_the_cpu(monkeypatch):
    monkeypatch.setattr(kernels, "resolve_device", lambda _: "gpu")
    network = dense([[1, -2], [3, -4]])
    c.prune_layers(network, 50)
    with pytest.raises(
        InputError, match=r"^the mask of d0\.weight computes on the CPU; use device cpu, or take it away \(intn"
    ):
        network.to("gpu")
    assert network.device == "cpu"
    c.release(network)
    assert network.compressed() == ""
    network._device = "gpu"
    for call in (
        c.enforce,
        c.release,
        c.sparsity,
        lambda n: c.prune_layers(n, 5),
        lambda n: c.set_mask(n, "d0", [[1, 1], [1, 1]]),
    ):
        with pytest.raises(InputError, match=r"^this network lives on a GPU; move it back with network\.to\('cpu'\)$"):
            call(network)


# 6. Defects ---------------------------------------------------------------------------------------------------------------


def test_a_layer_of_zeros_is_pruned_with_the_others():
    network = dense([[1, 2], [3, 4]], [[0, 0], [0, 0]], recipe="bfp8")
    assert network.parameters[2].value.exponent.max() == -128  # as after any step whose weights are zero
    assert counted(c.prune_globally(network, 50)) == [("d0", 0, 4), ("d1", 4, 4), ("total", 4, 8)]


def test_zeros_are_those_of_what_is_stored():
    """The copy, where there is one: the weight, of fewer bits, may have more."""
    network = Network([Dense(30)], (40,), "int8")
    weight = network.parameters[0]
    assert c.sparsity(network)[0].zeros == np.count_nonzero(weight.master.mantissa == 0)
    assert np.count_nonzero(weight.value.mantissa == 0) > c.sparsity(network)[0].zeros


def test_signs_are_not_pruned():
    network = Network([Conv2D(2), BinaryConv2D(2, 1), Flatten(), Dense(2)], (4, 4, 1), "fixed16")
    assert "binary_conv1" not in c.prunable(network)


def test_layers_may_be_called_anything():
    network = Network([Dense(4, name="a[1]"), Dense(2)], (3,), "fixed16")
    assert c.prune_layers(network, 50)[0].layer == "a[1]"


def test_a_layers_name_stands_for_itself_alone():
    network = Network([Dense(4, name="d*"), Dense(4), Dense(2)], (4,), "fixed16")
    assert [one.layer for one in c.prune_layers(network, 50, [c.prunable(network)[0]])] == ["d*", "total"]


@pytest.mark.parametrize(
    "make", [lambda: (Network([ReLU()], (3,)), None), lambda: (dense([[1]]), [])], ids=["no weights", "none"]
)
def test_no_layers_at_all_are_refused(make):
    network, layers = make()
    with pytest.raises(InputError):
        c.prune_globally(network, 50, layers)


def test_an_infinite_decimal_is_refused():
    with pytest.raises(InputError):
        c.prune_layers(dense([[1]]), Decimal("Infinity"))


def test_percentiles_that_are_numpy_integers_are_exact():
    recipe = replace(RECIPES["wide"], master="fxp-s62/40")
    for q in (37, np.int64(37)):
        network = dense([[0, 2**60], [2**61 - 1, 5]], recipe=recipe)
        assert counted(c.prune_layers(network, q))[-1] == ("total", 2, 4)


@pytest.mark.parametrize(("layer", "mask"), [("d*", [[1, 1], [1, 1]]), ("d0", [[1, 1], [1]])], ids=["two layers", "ragged"])
def test_masks_for_one_layer_of_one_shape(layer, mask):
    with pytest.raises(InputError):
        c.set_mask(dense([[1, 2], [3, 4]], [[1, 2], [3, 4]]), layer, mask)
