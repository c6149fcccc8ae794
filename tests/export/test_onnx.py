"""ONNX with integer operators: ONNX Runtime and the reference evaluator give intnet's bits, layer by layer."""

import builtins
import itertools
import json

import numpy as np
import pytest
from every_layer import dense, fill, images, inputs_of, outputs_of_layers, recipe

from intnet import layers
from intnet.errors import InputError
from intnet.export.onnx import onnx_of, write_onnx
from intnet.network import Network

onnx = pytest.importorskip("onnx", reason="onnx is not installed: intnet[onnx]")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: intnet[dev]")

BYTES = recipe(8, 6, 4)
MODES = (
    "floor", "ceil", "to_zero", "to_away", "ties_even", "ties_pos", "ties_neg", "ties_away", "ties_zero", "jam", "stochastic",
)  # fmt: skip


def run(model, x, optimized=True):
    """Return what ONNX Runtime gives, by name."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    level = runtime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, {"input": x}), strict=True))


def check(network, x, inputs=None):
    """Compare every layer with both settings of ONNX Runtime's optimizer; return the names of the operators."""
    expected = outputs_of_layers(network, x)
    model = onnx_of(network, inputs, every_layer=True)
    onnx.checker.check_model(model, full_check=True)
    for optimized in (True, False):
        found = run(model, x, optimized)
        assert found, "no outputs"
        for name, values in found.items():
            assert values.dtype == np.int8
            np.testing.assert_array_equal(values, expected[name][0], err_msg=name)
    last = onnx_of(network, inputs)
    assert len(last.graph.output) == 1
    np.testing.assert_array_equal(next(iter(run(last, x).values())), expected[network.layers.layers[-1].name][0])
    return [node.op_type for node in model.graph.node]


# Every layer


@pytest.mark.parametrize("make", [dense, images])
@pytest.mark.parametrize("largest", [128, 20])
@pytest.mark.parametrize("overflow", ["saturate", "saturate_symmetric", "wrap"])
def test_every_layer(make, largest, overflow):
    made = recipe(8, 6, 4, activation=f"fxp-s8/4 ties_even {overflow}")
    network = fill(make(made), -largest, largest - 1)
    kinds = check(network, inputs_of(network, 48))
    assert {"MatMulInteger", "Cast"} <= set(kinds)


def test_shorter_words_and_blocks_of_weights():
    network = fill(images(recipe(5, 3, 2)), -16, 15)
    check(network, inputs_of(network, 40))
    network = images(recipe(8, 0, 4, weight="bfp-s8/tensor ties_even"))
    check(network, inputs_of(network, 40))


def test_images_without_batch_normalization_and_a_promise_of_the_inputs():
    network = fill(images(BYTES, batch_norm=False), -128, 127)
    check(network, np.abs(inputs_of(network, 20).clip(-127)), (0, 127))


def test_the_reference_evaluator_agrees():
    from onnx.reference import ReferenceEvaluator

    network = fill(dense(BYTES), -100, 100)
    x = inputs_of(network, 30)
    model = onnx_of(network, every_layer=True)
    found = ReferenceEvaluator(model).run(None, {"input": x})
    expected = outputs_of_layers(network, x)
    for name, values in zip([one.name for one in model.graph.output], found, strict=True):
        np.testing.assert_array_equal(values, expected[name][0], err_msg=name)


def test_imported_digits_are_classified_alike():
    datasets = pytest.importorskip("sklearn.datasets")
    from intnet.export.floats import import_floats
    from intnet.tensor import quantize

    samples = datasets.load_digits().data.reshape(-1, 8, 8, 1) / 16
    random = np.random.default_rng(0)
    weights = {
        "0.weight": random.normal(0, 0.4, (8, 1, 3, 3)), "0.bias": np.zeros(8), "3.weight": random.normal(0, 0.2, (10, 128)),
        "3.bias": random.normal(0, 0.2, 10), "1.weight": random.uniform(0.5, 2, 8), "1.bias": random.normal(0, 1, 8),
        "1.running_mean": random.normal(0, 0.3, 8), "1.running_var": random.uniform(0.1, 1, 8),
    }  # fmt: skip
    made = [
        layers.Conv2D(8, 3, padding=1),
        layers.BatchNorm(),
        layers.ReLU(),
        layers.MaxPool2D(2),
        layers.Flatten(),
        layers.Dense(10),
    ]
    names = {"conv1": "0", "batch_norm1": "1", "dense1": "3"}
    for fold in (False, True):
        imported = import_floats(
            weights, made, (8, 8, 1), BYTES, layout="pytorch", names=names, calibration=samples[:200], fold_batch_norm=fold
        )
        x = quantize(samples, imported.network.recipe.activation.format).mantissa
        check(imported.network, x)


# Rounding, overflow, accumulators


@pytest.mark.parametrize("mode", MODES)
def test_every_rounding_and_every_shift(mode):
    """All inputs of a word, weights of both signs, shifts to the right and to the left; bounds that float32 holds, and not."""
    for (weight, out), overflow in itertools.product(
        [(0, 0), (0, 4), (0, 7), (5, 4), (12, 4), (20, 3)], ["saturate", "saturate_symmetric", "wrap"]
    ):
        made = recipe(8, weight, 4, accumulator_bits=40).override("dense1", activation=f"fxp-s8/{out} {mode} {overflow}")
        network = Network([layers.Dense(7, initial="zeros")], (1,), made)
        network.parameters[0].value.mantissa[:, 0] = [-128, 127, 1, -1, 37, -64, 0]
        network.parameters[1].value.mantissa[:] = [0, 1, -1, 5, -128, 127, -77]
        kinds = check(network, np.arange(-128, 128, dtype=np.int8).reshape(-1, 1))
        assert ("QuantizeLinear" in kinds) <= (mode in ("ties_even", "stochastic"))


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("bits", [15, 17, 20])
def test_narrow_accumulators(overflow, bits):
    made = recipe(8, 6, 4, accumulator_bits=bits, accumulator_overflow=overflow)
    for network in (fill(dense(made, 40), -128, 127), fill(images(made), -128, 127)):
        check(network, inputs_of(network, 40))


def test_sums_beyond_what_float32_holds_are_rounded_in_integers():
    network = Network([layers.Dense(3, initial="zeros")], (2100,), recipe(8, 0, 0))
    network.parameters[0].value.mantissa[...] = np.array([[127], [-128], [1]])
    made = network.recipe.override("dense1", activation="fxp-s8/0 ties_even wrap")
    wrapping = Network([layers.Dense(3, initial="zeros")], (2100,), made)
    wrapping.parameters[0].value.mantissa[...] = network.parameters[0].value.mantissa
    random = np.random.default_rng(1)
    x = inputs_of(network, 30)
    x[4:] = random.integers(100, 128, x[4:].shape)
    assert "QuantizeLinear" not in check(network, x)
    check(wrapping, x)
    small = Network([layers.Dense(3, initial="zeros")], (1024,), recipe(8, 0, 0))
    small.parameters[0].value.mantissa[...] = np.array([[-128], [127], [3]])  # sums of up to 2**24
    assert "QuantizeLinear" in check(small, inputs_of(small, 10))


def test_products_are_of_unsigned_words():
    """Kernels for signed weights saturate in between on some processors."""
    model = onnx_of(fill(images(BYTES), -128, 127))
    types = {one.name: one.data_type for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("MatMulInteger", "ConvInteger"):
            assert types[node.input[1]] == types[node.input[3]] == onnx.TensorProto.UINT8


# Files and what they say


def test_files(tmp_path):
    network = fill(dense(BYTES), -100, 100)
    for name in ("a.onnx", "b.onnx"):
        write_onnx(network, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    model = onnx.load(tmp_path / "a.onnx")
    notes = {one.key: one.value for one in model.metadata_props}
    assert notes["intnet.digest"] == network.digest()
    assert json.loads(notes["intnet.recipe"]) == json.loads(json.dumps(network.recipe.to_dict()))
    tensors = json.loads(notes["intnet.tensors"])
    assert tensors["dense1"]["exponent"] == -4
    assert tensors["input"] == {"word_bits": 8, "exponent": -4, "range": [-128, 127]}
    x = inputs_of(network, 9)
    session = runtime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(["dense7"], {"input": x})[0], outputs_of_layers(network, x)["dense7"][0])


# Refusals


def test_a_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "onnx":
            raise ImportError(name)
        return real(name, *arguments, **options)

    network = dense(BYTES)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'intnet\[onnx\]'"):
        onnx_of(network)


def _coded():
    network = dense(BYTES)
    network.layers.layers[2].coding = object()  # refused before it is asked
    return network


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        (lambda: dense(recipe(16, 12, 8)), ["the input", "16 bits", "write_qonnx"]),
        (lambda: dense(BYTES.override("dense3", activation="fxp-s12/8")), ["'dense3'", "12 bits", "fxp-s8/4"]),
        (lambda: fill(dense(BYTES.override("dense2", weight="fxp-s12/9")), -2000, 2000), ["'dense2'", "weights of 12 bits"]),
        (lambda: dense(BYTES.override("dense1", activation="fxp-s8/4 pseudo_stochastic")), ["'dense1'", "ties_even"]),
        (lambda: dense(BYTES.override("dense1", activation="fxp-s8/4 error")), ["'dense1'", "error", "saturate or wrap"]),
        (lambda: dense(recipe(8, 6, 4, activation="bfp-s8/tensor")), ["'dense1'", "bfp-s8/tensor", "fixed"]),
        (lambda: Network([layers.Dense(2, name="input")], (2,), BYTES), ["'input'", "another name"]),
        (_coded, ["'dense2'", "coded"]),
    ],
)
def test_refusals_name_the_layer(network, parts):
    with pytest.raises(InputError) as refused:
        onnx_of(network())
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)


def test_sums_beyond_32_bits_are_refused():
    network = Network([layers.Dense(1, initial="zeros")], (140_000,), recipe(8, 0, 0, accumulator_bits=40))
    network.parameters[0].value.mantissa[...] = 127
    with pytest.raises(InputError, match=r"layer 'dense1' has sums of up to 33 bits .* have 32; use write_c"):
        onnx_of(network)
    network.parameters[0].value.mantissa[0, 70_000:] = 0
    x = np.full((2, 140_000), -128, np.int8)
    x[1] = 127
    check(network, x)
