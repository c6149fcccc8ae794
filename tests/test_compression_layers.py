"""Which layers get coded weights and inputs, and what is refused."""

import naive
import numpy as np
import pytest

from intnet import compression as c
from intnet import kernels
from intnet.errors import InputError
from intnet.formats import parse_format
from intnet.layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Step,
)
from intnet.network import Network
from intnet.tensor import QTensor

# 1. Which layers ----------------------------------------------------------------------------------------------------------


def body():
    """Return convolutions, batch normalization, ReLUs, blocks with and without a projection, and a dense layer."""
    return [
        Conv2D(3, 3, padding=1, bias=False), BatchNorm(), ReLU(),
        Residual([Conv2D(3, 3, padding=1, bias=False), BatchNorm(), ReLU(), Conv2D(3, 1, bias=False), BatchNorm()]), ReLU(),
        Residual([Conv2D(4, 3, stride=2, padding=1, bias=False), BatchNorm()], [Conv2D(4, 1, stride=2, bias=False)]), ReLU(),
        GlobalAvgPool(), Dense(3),
    ]  # fmt: skip


def test_the_first_and_the_last_layer_are_left_alone_by_default():
    network = Network(body(), (6, 6, 2), "fixed16")
    every = [layer for layer in network.layers.walk() if hasattr(layer, "coding")]
    names = [layer.name for layer in every]
    assert c.quantizable(network) == names[1:-1]
    assert c.quantize_weights(network, 4) == names[1:-1]
    assert [layer.coding for layer in every] == [None, *[c.WeightCoding(4)] * 4, None]
    assert c.quantize_weights(network, c.WeightCoding(2), ["dense1", "*/shortcut/*"]) == [names[4], "dense1"]
    assert [layer.coding.bits if layer.coding else 0 for layer in every] == [0, 4, 4, 4, 2, 2]
    assert c.quantize_inputs(network, 3) == names[1:-1]
    c.take_away(network, "*conv1")
    assert [layer.coding is not None for layer in every] == [False, False, True, False, False, True]
    assert ["inputs" in layer.quantizers for layer in every] == [False, False, True, False, False, False]
    c.take_away(network)
    assert not any(layer.coding or "inputs" in layer.quantizers for layer in every)
    assert network.describe() == Network(body(), (6, 6, 2), "fixed16").describe()


def test_inputs_after_clamps_need_no_sign():
    """Through pools, dropout, and sums of two sides that are not negative; not through others."""
    block = [Conv2D(2, 1), ReLU()]
    network = Network(
        [
            Conv2D(2, 1), ReLU(), MaxPool2D(1), Dropout(0.5), AvgPool2D(1), Conv2D(2, 1), Sigmoid(), Residual(block),
            Conv2D(2, 1), BatchNorm(), ReLU(), Residual([Conv2D(2, 1), BatchNorm()], [Conv2D(2, 1), ReLU()]), Conv2D(2, 1),
            LeakyReLU(), Conv2D(2, 1), ReLU(), Residual([Sequential(ReLU())], [Conv2D(2, 1)]), Conv2D(2, 1), ReLU(), Flatten(),
            Dense(3), Dense(3),
        ], (2, 2, 2), "fixed16",
    )  # fmt: skip
    c.quantize_inputs(network, 4, "*")
    bits = {
        layer.name: layer.quantizers["inputs"].format.word_bits for layer in network.layers.walk() if hasattr(layer, "coding")
    }
    signed = {"conv1", "conv4", "conv5", "conv6", "dense2"}
    assert {name for name, word in bits.items() if word == 4} == signed
    assert {word for name, word in bits.items() if name not in signed} == {5}


def test_one_bit_of_what_is_not_negative_is_zero_or_a_power_of_two():
    network = Network([Dense(3, bias=False), ReLU(), Dense(2, bias=False)], (3,), "fixed16")
    c.quantize_inputs(network, 1, "dense2")
    x = QTensor(np.int16([[700, 500, 256], [255, 129, 128]]), np.array([[-9]]), parse_format("fxp-s16/9"))
    layer = network.layers.layers[2]
    layer.forward(x, Step(0, 0, True))
    assert naive.value_of(layer._x).tolist() == [[1, 1, 0], [0, 0, 0]]  # halves of it are ties, to even


# 2. Mistakes --------------------------------------------------------------------------------------------------------------


def dense(*names):
    return Network([Dense(3, name=name) for name in names or ("a", "b", "c")], (3,), "fixed16")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *[
            (lambda bits=bits: c.WeightCoding(bits), rf"^weights are coded in 1\.\.8 bits, got {bits!r}$")
            for bits in (0, 9, -1, True)
        ],
        (lambda: c.WeightCoding(4.0), r"^weights are coded in 1\.\.8 bits, got 4\.0$"),
        (lambda: c.WeightCoding("4"), r"^weights are coded in 1\.\.8 bits, got '4'$"),
        (lambda: c.WeightCoding(None), r"^weights are coded in 1\.\.8 bits, got None$"),
        (lambda: c.WeightCoding(4, "signed"), r"^scheme is affine or symmetric, got 'signed'$"),
        (lambda: c.WeightCoding(4, ["affine"]), r"^scheme is affine or symmetric, got \['affine'\]$"),
        (lambda: c.WeightCoding(4, scale="log"), r"^scale is ratio or power, got 'log'$"),
        (lambda: c.quantize_weights(dense(), 9), r"^weights are coded in 1\.\.8 bits, got 9$"),
        (lambda: c.quantize_weights(dense(), False), r"^weights are coded in 1\.\.8 bits, got False$"),
        (lambda: c.quantize_weights(dense(), 4, "conv*"), r"^no layer with weights is called 'conv\*'; there are a, b, c$"),
        (lambda: c.quantize_weights(dense(), 4, ["a", "d"]), r"^no layer with weights is called 'd'; there are a, b, c$"),
        (lambda: c.quantize_weights(dense(), 4, [7]), r"^no layer with weights is called 7; there are a, b, c$"),
        (lambda: c.take_away(dense(), "d"), r"^no layer with weights is called 'd'"),
        (lambda: c.quantize_weights(dense("a", "b"), 4), r"^this network has no layers between its first and its last; name"),
        (lambda: c.quantize_inputs(dense("a"), 4), r"^this network has no layers between its first and its last; name"),
        *[
            (lambda bits=bits: c.quantize_inputs(dense(), bits), rf"^inputs are rounded to 1\.\.8 bits, got {bits!r}$")
            for bits in (0, 9, True, None)
        ],
        (lambda: c.quantize_inputs(dense(), 2.0), r"^inputs are rounded to 1\.\.8 bits, got 2\.0$"),
        (lambda: c.quantize_inputs(dense(), 1), r"^the inputs of layer 'b' may be negative; give them at least 2 bits$"),
        (lambda: c.quantize_inputs(dense(), 4, "d"), r"^no layer with weights is called 'd'"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_in_one_line(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_signs_are_no_weights_to_be_coded():
    network = Network([Conv2D(2), BinaryConv2D(2), Conv2D(2), Flatten(), Dense(3)], (7, 7, 1), "fixed16")
    for call in (c.quantize_weights, c.quantize_inputs):
        with pytest.raises(InputError, match=r"^the weights of layer 'binary_conv1' are signs already; name other layers$"):
            call(network, 4)
        assert call(network, 4, "conv*") == ["conv1", "conv2"]


def test_what_refuses_changes_nothing():
    network = dense()
    before = network.describe()
    for call in (lambda: c.quantize_weights(network, 4, ["a", "d"]), lambda: c.quantize_inputs(network, 1, ["a", "b"])):
        with pytest.raises(InputError):
            call()
    assert network.describe() == before


def test_codes_stay_on_the_cpu(monkeypatch):
    """There are no kernels for them on a GPU: refused before anything moves, also for those who have none."""
    monkeypatch.setattr(kernels, "resolve_device", lambda _: "gpu")
    for change in (lambda n: c.quantize_weights(n, 4), lambda n: c.quantize_inputs(n, 4)):
        network = dense()
        change(network)
        with pytest.raises(
            InputError, match=r"^layer 'b' with coded weights or inputs computes on the CPU; use device cpu, or "
        ):
            network.to("gpu")
        assert network.device == "cpu"
        c.take_away(network)
        assert network.compressed() == ""
    network._device = "gpu"
    for call in (lambda: c.quantize_weights(network, 4), lambda: c.quantize_inputs(network, 4)):
        with pytest.raises(InputError, match=r"^this network lives on a GPU; move it back with network\.to\('cpu'\)$"):
            call()
