"""Float weights into networks: axes, folding, formats and refusals, against float references of their own."""

import builtins
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from intnet import Fixed, checkpoint, layers, quantize
from intnet.errors import InputError, InputTypeError
from intnet.export.floats import fraction_bits_for, import_floats
from intnet.models import resnet20
from intnet.recipe import RECIPES, Recipe, Role

WIDE = Recipe(
    "wide fixed", weight="fxp-s30/20", activation="fxp-s30/16", error="fxp-s30/16", gradient="fxp-s30/16", accumulator_bits=64
)
BYTES = Recipe(
    "bytes", weight="fxp-s8/6 ties_even", activation="fxp-s8/4", error="fxp-s8/4", gradient="fxp-s8/4", momentum="fxp-s8/4"
)
WORDS = Recipe("words", weight="fxp-s16/8", activation="fxp-s16/8", error="fxp-s16/8", gradient="fxp-s16/8")

NAMES = {
    "conv1": "features.0", "batch_norm1": "features.1", "conv2": "features.3", "batch_norm2": "head.1", "dense1": "head.2",
}  # fmt: skip


def outputs(network, samples):
    """Return the real numbers a network gives for real samples."""
    return network.forward(quantize(samples, network.recipe.activation.format)).to_float()


def convolve(x, weight, bias, stride, padding, groups=1):
    """Convolve as PyTorch does, (n, c, h, w) with (out, in, kh, kw), one sum at a time."""
    n, _, height, width = x.shape
    out, of_group, kh, kw = weight.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows, columns = (height + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1
    y = np.zeros((n, out, rows, columns))
    for o in range(out):
        first = o // (out // groups) * of_group
        for r in range(rows):
            for c in range(columns):
                window = padded[:, first : first + of_group, r * stride : r * stride + kh, c * stride : c * stride + kw]
                y[:, o, r, c] = (window * weight[o]).sum(axis=(1, 2, 3)) + bias[o]
    return y


def normalize(x, state, prefix, epsilon=1e-5):
    """Normalize channels, the second axis, by running statistics."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    weight, bias, mean, variance = (
        state[f"{prefix}.{name}"].reshape(shape) for name in ("weight", "bias", "running_mean", "running_var")
    )
    return weight * (x - mean) / np.sqrt(variance + epsilon) + bias


def module(random, prefix, shape, bias=True):
    state = {f"{prefix}.weight": random.normal(0, 0.3, shape).astype(np.float32)}
    return {**state, **({f"{prefix}.bias": random.normal(0, 0.3, shape[:1]).astype(np.float32)} if bias else {})}


def norm(random, prefix, channels):
    return {
        f"{prefix}.weight": random.uniform(0.5, 1.5, channels),
        f"{prefix}.bias": random.normal(0, 0.3, channels),
        f"{prefix}.running_mean": random.normal(0, 0.5, channels),
        f"{prefix}.running_var": random.uniform(0.3, 2, channels),
        f"{prefix}.num_batches_tracked": np.int64(7),
    }


def torch_like(seed=0):
    """Return a state dict of Conv2d, BatchNorm2d, ReLU, Conv2d (groups), Flatten, BatchNorm1d, Linear, and its function."""
    random = np.random.default_rng(seed)
    state = {
        **module(random, "features.0", (4, 2, 3, 3)),
        **norm(random, "features.1", 4),
        **module(random, "features.3", (6, 2, 3, 3)),
        **norm(random, "head.1", 6 * 3 * 2),
        **module(random, "head.2", (5, 6 * 3 * 2)),
    }

    def function(x):
        y = convolve(x, state["features.0.weight"], state["features.0.bias"], 1, 1)
        y = np.maximum(normalize(y, state, "features.1"), 0)
        y = convolve(y, state["features.3.weight"], state["features.3.bias"], 2, 1, 2).reshape(len(x), -1)
        return normalize(y, state, "head.1") @ state["head.2.weight"].T + state["head.2.bias"]

    return state, function


def torch_layers():
    return [
        layers.Conv2D(4, 3, padding=1), layers.BatchNorm(), layers.ReLU(),
        layers.Conv2D(6, 3, stride=2, padding=1, groups=2), layers.Flatten(), layers.BatchNorm(), layers.Dense(5),
    ]  # fmt: skip


# Axes and names


def test_weights_come_to_where_they_belong():
    random = np.random.default_rng(1)
    weights = {"dense1.weight": random.integers(-8, 8, (3, 4)) / 8, "dense1.bias": random.integers(-8, 8, 3) / 8}
    made = import_floats(weights, [layers.Dense(3)], (4,), WIDE)
    samples = random.integers(-8, 8, (5, 4)) / 8
    np.testing.assert_array_equal(outputs(made.network, samples), samples @ weights["dense1.weight"].T + weights["dense1.bias"])
    assert [(one.layer, one.tensor, one.error, one.saturated) for one in made.chosen] == [
        ("dense1", "weight", 0, 0),
        ("dense1", "bias", 0, 0),
    ]


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("names", [None, NAMES])
def test_a_state_dict_of_pytorch(fold, names):
    state, function = torch_like()
    samples = np.random.default_rng(2).normal(0, 1, (7, 2, 5, 4))
    images = samples.transpose(0, 2, 3, 1)
    made = import_floats(
        state, torch_layers(), (5, 4, 2), WIDE, layout="pytorch", names=names, calibration=images, fold_batch_norm=fold
    )
    np.testing.assert_allclose(outputs(made.network, images), function(samples), atol=2e-4)
    kinds = [layer.kind for layer in made.network.layers.walk()]
    assert kinds.count("batch_norm") == (1 if fold else 2)  # the one after Flatten has no product before it
    assert made.folded == (("batch_norm1",) if fold else ())
    assert made.network.layer_names[1:-1] == [
        "conv1", *([] if fold else ["batch_norm1"]), "relu1", "conv2", "flatten1", "batch_norm2", "dense1",
    ]  # fmt: skip


def test_folding_rounds_the_exact_product_once():
    state, _ = torch_like(3)
    made = import_floats(state, torch_layers(), (5, 4, 2), WORDS, layout="pytorch", fold_batch_norm=True, weight_points=False)
    scale = state["features.1.weight"] / np.sqrt(state["features.1.running_var"] + 1e-5)
    weight = state["features.0.weight"].astype(float) * scale.reshape(-1, 1, 1, 1)
    bias = (state["features.0.bias"] - state["features.1.running_mean"]) * scale + state["features.1.bias"]
    conv = made.network.layers.layers[0]
    np.testing.assert_array_equal(conv.weight.value.mantissa, np.rint(weight * 2**8).transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(conv.bias.value.mantissa, np.rint(bias * 2**8))
    assert conv.initial == "he_normal"


def test_epsilon_is_that_of_the_training_also_where_normalization_stays():
    weights = {"n.gamma": [1.0], "n.beta": [0.0], "n.running_mean": [0.0], "n.running_variance": [0.01]}
    for epsilon, variance in ((None, 0.01 + 2.0**-17), (0.25, 0.26)):
        made = import_floats(weights, [layers.BatchNorm(name="n")], (1,), WIDE, epsilon=epsilon)
        assert outputs(made.network, np.array([[0.5]])).item() == pytest.approx(0.5 / variance**0.5, rel=1e-4)


@pytest.mark.parametrize("fold", [False, True])
def test_residual_networks(fold):
    """The state of a network in floats comes back as a network of the same function; folding leaves the names."""
    random = np.random.default_rng(4)
    weights, model, shape = {}, resnet20(3, 0.2), (8, 8, 3)
    for name, mine in _expected(resnet20(3, 0.2), shape).items():
        for part, lengths in mine.items():
            low, high = (0.5, 1.5) if part in ("gamma", "running_variance") else (-0.3, 0.3)
            weights[f"{name}.{part}"] = random.uniform(low, high, lengths)
    samples = random.normal(0, 1, (4, *shape))
    plain = import_floats(weights, model, shape, WIDE, calibration=samples)
    made = import_floats(weights, model, shape, WIDE, calibration=samples, fold_batch_norm=fold)
    assert len(made.folded) == (21 if fold else 0)
    np.testing.assert_allclose(outputs(made.network, samples), outputs(plain.network, samples), atol=2e-3)
    assert np.abs(outputs(plain.network, samples)).max() > 0.1
    if fold:
        assert "residual4/shortcut/conv1" in made.network.layer_names
        assert not any("batch_norm" in name for name in made.network.layer_names)


def _expected(model, shape):
    from intnet.export._arrays import expected
    from intnet.network import Network

    network = Network(model, shape, WIDE)
    return {layer.name: expected(layer) for layer in network.layers.walk() if layer.parameters_here}


# The float pass that finds ranges


@pytest.mark.parametrize(
    ("made", "shape", "tolerance"),
    [
        ([layers.Dense(4), layers.LeakyReLU(3), layers.Dense(3), layers.HardTanh()], (5,), 1e-3),
        ([layers.Dense(4), layers.Tanh(), layers.Dense(3), layers.Sigmoid()], (5,), 4e-3),
        ([layers.Conv2D(4, (3, 2), stride=(2, 1), padding=(1, 0, 2, 1)), layers.MaxPool2D(2, padding=1)], (6, 5, 2), 1e-3),
        ([layers.AvgPool2D((2, 3), stride=1, padding=(1, 0, 1, 1)), layers.Dropout(), layers.GlobalAvgPool()], (6, 5, 2), 1e-3),
        ([layers.Sign(), layers.BinaryConv2D(3, 3, padding=1, bias=False), layers.Flatten()], (4, 4, 2), 0),
    ],
)
def test_the_float_pass_is_that_of_the_layers(made, shape, tolerance):
    random = np.random.default_rng(5)
    weights = {
        f"{name}.{part}": random.normal(0, 0.5, lengths)
        for name, mine in _expected([_again(layer) for layer in made], shape).items()
        for part, lengths in mine.items()
    }
    samples = random.normal(0, 1, (6, *shape))
    imported = import_floats(weights, made, shape, WIDE, calibration=samples)
    from intnet.export._forward import forward

    probe = _built([_again(layer) for layer in made], shape)
    arrays = {
        layer.name: {part.rpartition(".")[2]: weights[part] for part in weights if part.startswith(f"{layer.name}.")}
        for layer in probe.walk()
    }
    expected = forward(probe, samples, arrays, lambda *_: None)
    np.testing.assert_allclose(outputs(imported.network, samples), expected, atol=tolerance)


def _again(layer):
    from copy import deepcopy

    return deepcopy(layer)


def _built(made, shape):
    from intnet.network import Network

    return Network(made, shape, WIDE).layers


# Formats


@settings(max_examples=300, deadline=None)
@given(
    st.floats(-1e30, 1e30, allow_subnormal=False), st.floats(-1e30, 1e30, allow_subnormal=False), st.integers(2, 40),
    st.sampled_from(["saturate", "saturate_symmetric"]),
)  # fmt: skip
@example(-1.0, 0.0, 8, "saturate")
@example(-1.0, 0.0, 8, "saturate_symmetric")
@example(0.0, 127.5, 8, "saturate")
@example(0.0, 2.0**-200, 8, "saturate")
def test_fraction_bits_are_the_most_that_hold_a_range(one, other, bits, overflow):
    low, high = min(one, other), max(one, other)
    role = Role(Fixed(bits, 0), overflow=overflow)
    least, greatest = role.format.limits(overflow)
    found = fraction_bits_for(low, high, role, 500)

    def holds(fraction):
        scaled = [Fraction(end) * Fraction(2) ** fraction for end in (low, high)]
        return least <= round(scaled[0]) <= round(scaled[1]) <= greatest

    assert holds(found)
    assert found == 500 or not holds(found + 1)


def test_ranges_choose_the_points_of_activations_weights_and_inputs():
    weights = {"dense1.weight": [[3.9, 0.01]], "dense1.bias": [0.1], "dense2.weight": [[0.02]], "dense2.bias": [-0.001]}
    samples = np.array([[0.5, 100.0], [-0.25, 10.0]])
    made = import_floats(weights, [layers.Dense(1), layers.ReLU(), layers.Dense(1)], (2,), BYTES, calibration=samples)
    recipe = made.network.recipe
    assert str(recipe.activation.format) == "fxp-s8/0"  # 100
    assert str(recipe.at("dense1").activation.format) == "fxp-s8/5"  # 0.5 * 3.9 + 1 + 0.1 = 3.05
    assert str(recipe.at("dense1").weight.format) == "fxp-s8/5"  # 3.9
    assert str(recipe.at("dense2").weight.format) == "fxp-s8/12"  # 0.02 * 2**12 = 82
    assert str(recipe.at("dense2").activation.format) == "fxp-s8/11"  # 3.05 * 0.02 = 0.06: 125 units
    assert recipe.at("dense1").activation.rounding == BYTES.activation.rounding
    assert [one.saturated for one in made.chosen] == [0] * 7
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_weights_leave_the_accumulator_room():
    """Of 16-bit words, 32 bits hold no sum in full: weights get coarser until sums hold what the output's word does."""
    weights = {"dense1.weight": np.full((1, 8), 0.9), "dense1.bias": [0.0]}
    made = import_floats(weights, [layers.Dense(1)], (8,), WORDS, calibration=np.full((1, 8), 0.99))
    recipe = made.network.recipe.at("dense1")
    points = [role.format.fraction_bits for role in (made.network.recipe.activation, recipe.weight, recipe.activation)]
    assert points == [15, 13, 12]  # weights alone could have 15: 31 - 15 - 13 bits are before the point, as 15 - 12 are
    assert outputs(made.network, np.full((1, 8), 0.99)).item() == pytest.approx(8 * 0.99 * 0.9, rel=2**-12)


def test_a_percentile_leaves_outliers_out():
    samples = np.concatenate([np.full((999, 1), 0.5), [[40.0]]])
    weights = {"dense1.weight": [[1.0]], "dense1.bias": [0.0]}
    formats, saturated = [], []
    for percentile in (100, 99):
        made = import_floats(weights, [layers.Dense(1)], (1,), BYTES, calibration=samples, percentile=percentile)
        formats.append(str(made.network.recipe.at("dense1").activation.format))
        saturated.append(made.chosen[-1].saturated)
    assert (formats, saturated) == (["fxp-s8/1", "fxp-s8/7"], [0, 1])


def test_blocks_choose_their_own_exponents():
    recipe = RECIPES["int8"]
    weights = {"dense1.weight": [[0.5, -0.25]], "dense1.bias": [0.0]}
    made = import_floats(weights, [layers.Dense(1)], (2,), recipe, calibration=np.array([[1.0, 0.5]]))
    assert made.network.recipe.at("dense1").weight == recipe.weight
    assert outputs(made.network, np.array([[1.0, 0.5]])).item() == 0.375
    assert made.network.layers.layers[0].weight.master.format == Fixed(16, 14)


def test_a_master_copy_moves_with_its_weights():
    recipe = Recipe(
        "mastered", weight="fxp-s8/6 ties_even", master="fxp-s16/14", activation="fxp-s8/4", error="fxp-s8/4",
        gradient="fxp-s8/4",
    )  # fmt: skip
    made = import_floats({"dense1.weight": [[5.0, 0.3]], "dense1.bias": [0.0]}, [layers.Dense(1)], (2,), recipe)
    weight = made.network.layers.layers[0].weight
    assert (str(weight.value.format), str(weight.master.format)) == ("fxp-s8/4", "fxp-s16/12")
    assert weight.value.mantissa.tolist() == [[80, 5]]
    assert weight.master.mantissa.tolist() == [[20480, 1229]]


def test_what_was_imported_trains_and_is_saved(tmp_path):
    from intnet.inputs import ArrayInputs
    from intnet.optimizers import SGD
    from intnet.training import Trainer

    random = np.random.default_rng(6)
    weights = {"dense1.weight": random.normal(0, 0.3, (3, 4)), "dense1.bias": np.zeros(3)}
    made = import_floats(weights, [layers.Dense(3)], (4,), WORDS, calibration=random.normal(0, 1, (9, 4)))
    values = quantize(random.normal(0, 1, (12, 4)), made.network.recipe.activation.format)
    trainer = Trainer(made.network, SGD("2^-4"), ArrayInputs(values, random.integers(0, 3, 12), 3), epochs=1, batch=4)
    before = made.network.digest()
    trainer.run()
    assert made.network.digest() != before
    checkpoint.save(tmp_path / "one.npz", trainer)
    assert checkpoint.load(tmp_path / "one.npz").epoch == 1


# Files


def test_files_hold_the_same_weights(tmp_path):
    state, _ = torch_like()
    np.savez(tmp_path / "weights.npz", **state)
    digests = {
        import_floats(source, torch_layers(), (5, 4, 2), WORDS, layout="pytorch").network.digest()
        for source in (state, tmp_path / "weights.npz", str(tmp_path / "weights.npz"))
    }
    assert len(digests) == 1


def test_safetensors(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed: intnet[safetensors]")
    state, _ = torch_like()
    numpy.save_file({key: np.asarray(value) for key, value in state.items()}, tmp_path / "weights.safetensors")
    options = {"layout": "pytorch", "names": NAMES}
    made = import_floats(tmp_path / "weights.safetensors", torch_layers(), (5, 4, 2), WORDS, **options)
    assert made.network.digest() == import_floats(state, torch_layers(), (5, 4, 2), WORDS, **options).network.digest()
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"cannot be read as \.safetensors"):
        import_floats(tmp_path / "broken.safetensors", torch_layers(), (5, 4, 2), WORDS)


def test_safetensors_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "weights.safetensors").write_bytes(b"")
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'intnet\[safetensors\]'"):
        import_floats(tmp_path / "weights.safetensors", [layers.Dense(1)], (1,))


# Refusals

GOOD = {"dense1.weight": np.ones((1, 2)), "dense1.bias": np.zeros(1)}


@pytest.mark.parametrize(
    ("change", "options", "parts"),
    [
        ({"dense1.bias": None}, {}, ["no array 'dense1.bias'", "bias=False", "dense1.weight"]),
        ({"dense2.weight": np.ones(1)}, {}, ["'dense2.weight' is not used", "no layer"]),
        ({"dense1.scale": np.ones(1)}, {}, ["'dense1.scale' is not used", "'dense1'"]),
        ({"dense1.weight": np.ones((2, 1))}, {}, ["'dense1.weight'", "(2, 1)", "(1, 2)"]),
        ({"dense1.weight": np.array([[1, np.nan]])}, {}, ["'dense1.weight'", "not finite"]),
        ({"dense1.weight": np.array([["a", "b"]])}, {}, ["'dense1.weight'", "real numbers"]),
        ({}, {"layout": "keras"}, ["intnet, pytorch", "'keras'"]),
        ({}, {"names": {"dense9": "fc"}}, ["'dense9'", "dense1"]),
        ({}, {"names": {"dense1": "fc"}}, ["'fc.weight'"]),
        ({"fc.weight": np.ones(1)}, {"layout": "pytorch"}, ["2 modules", "1 layers", "names"]),
        ({}, {"calibration": np.ones((3, 3))}, ["(n, 2)", "(3, 3)"]),
        ({}, {"calibration": np.ones((0, 2))}, ["at least 1"]),
        ({}, {"calibration": np.full((1, 2), np.inf)}, ["not finite"]),
        ({}, {"calibration": np.ones((3, 2)), "percentile": 50}, ["percentile", "50"]),
        ({}, {"epsilon": -1}, ["epsilon", "-1"]),
    ],
)
def test_refusals_name_the_array(change, options, parts):
    arrays = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(InputError) as refused:
        import_floats(arrays, [layers.Dense(1)], (2,), WORDS, **options)
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)


def test_refusals_of_statistics_and_of_built_layers():
    norm_of = {"batch_norm1.gamma": [1.0], "batch_norm1.beta": [0.0], "batch_norm1.running_mean": [0.0]}
    with pytest.raises(InputError, match="running variance is negative"):
        import_floats({**norm_of, "batch_norm1.running_variance": [-1.0]}, [layers.BatchNorm()], (1,), WORDS)
    with pytest.raises(InputError, match="variance is 0 and so is epsilon"):
        import_floats({**norm_of, "batch_norm1.running_variance": [0.0]}, [layers.BatchNorm()], (1,), WORDS, epsilon=0)
    with pytest.raises(InputError, match=r"running_variance of layer 'batch_norm1' reaches 1e\+09"):
        import_floats({**norm_of, "batch_norm1.running_variance": [1e9]}, [layers.BatchNorm()], (1,), WORDS)
    made = [layers.Dense(1)]
    import_floats(GOOD, made, (2,), WORDS)
    import_floats(GOOD, made, (2,), WORDS)  # they were copied
    _built(made, (2,))
    with pytest.raises(InputError, match="built for another network"):
        import_floats(GOOD, made, (2,), WORDS)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("weights.h5", b"", ".npz or a .safetensors"),
        ("absent.npz", None, "no file"),
        ("broken.npz", b"PK\x03\x04nonsense", "cannot be read as .npz"),
        ("text.npz", b"text", "cannot be read as .npz"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        import_floats(tmp_path / name, [layers.Dense(1)], (2,), WORDS)
    with pytest.raises(InputTypeError, match="mapping of arrays"):
        import_floats(3, [layers.Dense(1)], (2,), WORDS)


# End to end


def test_a_float_perceptron_of_scikit_learn_keeps_its_accuracy():
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.neural_network import MLPClassifier

    images, labels = datasets.load_digits(return_X_y=True)
    images = images / 16
    trained = MLPClassifier((32,), max_iter=40, random_state=0, tol=0, n_iter_no_change=100, learning_rate_init=0.01)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained.fit(images[:1200], labels[:1200])
    weights = {}
    for number, (matrix, bias) in enumerate(zip(trained.coefs_, trained.intercepts_, strict=True), 1):
        weights |= {f"dense{number}.weight": matrix.T, f"dense{number}.bias": bias}
    test, wanted = images[1200:], labels[1200:]
    accuracy = {"float": trained.score(test, wanted)}
    for name, recipe in (("16", WORDS), ("8", BYTES)):
        made = import_floats(
            weights, [layers.Dense(32), layers.ReLU(), layers.Dense(10)], (64,), recipe, calibration=images[:300]
        )
        accuracy[name] = float((outputs(made.network, test).argmax(axis=1) == wanted).mean())
    print(accuracy)
    assert accuracy["float"] > 0.9
    assert abs(accuracy["16"] - accuracy["float"]) <= 0.002
    assert abs(accuracy["8"] - accuracy["float"]) <= 0.03
