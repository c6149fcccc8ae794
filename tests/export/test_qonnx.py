"""QONNX, executed by its own package: intnet's real numbers, layer by layer, for words that no integer operator takes."""

import json
import warnings

import numpy as np
import pytest
from every_layer import dense, fill, images, inputs_of, outputs_of_layers, recipe

from intnet import layers
from intnet.errors import InputError
from intnet.export.qonnx import ROUNDINGS, qonnx_of, write_qonnx
from intnet.network import Network

onnx = pytest.importorskip("onnx", reason="onnx is not installed: intnet[onnx]")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: intnet[dev]")

TWELVE = recipe(12, 10, 6)


def execute(model, values):
    """Return what every value of a model is, by name, for real inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own libraries
        wrapper = pytest.importorskip("qonnx.core.modelwrapper", reason="qonnx is not installed: intnet[dev]")
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes

        made = wrapper.ModelWrapper(model).transform(InferShapes())
        return execute_onnx(made, {"input": values.astype(np.float32)}, return_full_exec_context=True)


def check(network, x, inputs=None):
    """Compare every layer; return the model."""
    expected = outputs_of_layers(network, x)
    model = qonnx_of(network, inputs, batch=len(x))
    found = execute(model, np.ldexp(x.astype(float), -network.recipe.activation.format.fraction_bits))
    compared = [name for name in expected if name in found]
    assert compared[-1] == network.layers.layers[-1].name
    assert all("dropout" in name for name in set(expected) - set(found))  # it is nothing here
    for name in compared:
        np.testing.assert_array_equal(found[name], expected[name][1], err_msg=name)
    return model


@pytest.mark.parametrize("largest", [4, 60])
def test_a_perceptron_of_12_bits(largest):
    network = fill(dense(TWELVE), -largest, largest)
    check(network, inputs_of(network, 40))


def test_images_of_12_bits():
    network = fill(images(TWELVE, batch_norm=False, window=2), -40, 40)
    check(network, inputs_of(network, 24))


@pytest.mark.parametrize("bits", [3, 8, 10])
def test_shorter_words(bits):
    network = fill(dense(recipe(bits, bits - 2, bits // 2)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    check(network, inputs_of(network, 40))


def test_words_of_16_bits_where_the_weights_are_small():
    network = fill(dense(recipe(16, 8, 8)), -8, 8)
    check(network, inputs_of(network, 40))


@pytest.mark.parametrize("mode", [mode.value for mode in ROUNDINGS])
@pytest.mark.parametrize("overflow", ["saturate", "saturate_symmetric"])
def test_every_rounding(mode, overflow):
    for weight, out in ((0, 0), (0, 4), (4, 7), (6, 4), (7, 2)):
        made = recipe(8, weight, 4, accumulator_bits=40).override("dense1", activation=f"fxp-s8/{out} {mode} {overflow}")
        network = Network([layers.Dense(7, initial="zeros")], (1,), made)
        network.parameters[0].value.mantissa[:, 0] = [-128, 127, 1, -1, 37, -64, 0]
        network.parameters[1].value.mantissa[:] = [0, 1, -1, 5, -128, 127, -77]
        check(network, np.arange(-128, 128, dtype=np.int8).reshape(-1, 1))


def test_a_saturating_accumulator():
    """Its end comes before that of the activations."""
    made = recipe(8, 6, 4, accumulator_bits=15).override("dense*", activation="fxp-s8/0")
    network = fill(dense(made), -128, 127)
    x = inputs_of(network, 40)
    check(network, x)
    wide = fill(dense(recipe(8, 6, 4).override("dense*", activation="fxp-s8/0")), -128, 127)
    assert (outputs_of_layers(network, x)["dense1"][0] != outputs_of_layers(wide, x)["dense1"][0]).any()


def test_sums_are_exact_up_to_the_limit_and_refused_beyond():
    made = recipe(12, 0, 0).override("dense1", activation="fxp-s12/0 floor")
    network = Network([layers.Dense(2, initial="zeros", bias=False)], (4,), made)
    network.parameters[0].value.mantissa[...] = [[-2048] * 4, [2047, -2048, 1, 1]]  # up to 2**24
    x = inputs_of(network, 60)
    x[:, :] = np.where(np.arange(60)[:, None] % 2, x, -2048 + x % 3)
    check(network, x)
    network = Network([layers.Dense(2, initial="zeros")], (4,), made)
    network.parameters[0].value.mantissa[...] = -2048
    network.parameters[1].value.mantissa[:] = [0, 1]
    with pytest.raises(InputError, match=r"'dense1' makes sums of up to 16777217, and .* 2\*\*24; use write_c, shorter words"):
        qonnx_of(network)
    check(network, np.abs(x.clip(-2047)), (0, 2047))  # with a promise of smaller inputs


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        (lambda: dense(recipe(26, 12, 8, accumulator_bits=60)), ["the input", "26 bits", "24", "write_c"]),
        (lambda: fill(dense(recipe(16, 12, 8)), -(2**15), 2**15 - 1), ["'dense1'", "2**24", "write_c"]),
        (lambda: fill(images(recipe(12, 10, 6)), -20, 20), ["'batch_norm1'", "fold"]),
        (lambda: fill(images(recipe(12, 10, 6), batch_norm=False), -20, 20), ["'avg_pool1'", "power of two"]),
        (lambda: dense(TWELVE.override("dense2", activation="fxp-s12/6 ties_pos")), ["'dense2'", "ties_pos", "ties_even"]),
        (
            lambda: fill(dense(TWELVE.override("dense2", activation="fxp-s12/11 wrap")), -60, 60),
            ["'dense2'", "wrap", "saturate"],
        ),
        (lambda: dense(recipe(12, 10, 6, activation="bfp-s12/tensor")), ["'dense1'", "bfp-s12/tensor"]),
    ],
)
def test_refusals_name_the_layer(network, parts):
    with pytest.raises(InputError) as refused:
        qonnx_of(network())
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)


def test_files(tmp_path):
    network = fill(dense(TWELVE), -60, 60)
    write_qonnx(network, tmp_path / "made.onnx", batch=3)
    model = onnx.load(tmp_path / "made.onnx")
    notes = {one.key: one.value for one in model.metadata_props}
    assert notes["intnet.digest"] == network.digest()
    assert json.loads(notes["intnet.tensors"])["dense1"]["word_bits"] == 12
    assert [one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim] == [3, 6]
    quants = [node for node in model.graph.node if node.op_type == "Quant"]
    assert {node.domain for node in quants} == {"qonnx.custom_op.general"}
