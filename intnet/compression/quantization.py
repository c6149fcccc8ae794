"""Weights and inputs of few bits, trained straight through.

Weights become codes of 1 to 8 bits anew before every product, from what is stored: from the wider copy, if the recipe has one.
The gradient of the coded weights is taken for that of the stored ones, so fine-tuning is training, and nothing else. Biases,
batch normalization and accumulators stay as the recipe has them.

With n bits, ``low`` and ``high`` the least and the greatest weight of a tensor that no mask holds at zero, all rounded to
nearest, ties to even:

    affine, ratio        k = round((2^n - 1) (w - low) / (high - low)),   w' = low + k (high - low) / (2^n - 1)
    affine, power        k = round(w / 2^s) + zero, in 0..2^n - 1,        w' = 2^s (k - zero)
    symmetric, ratio     k = round(top w / most),  top = 2^(n-1) - 1,     w' = k most / top,   most = max(high, -low)
    symmetric, power     k = round(w / 2^s), in -top..top,                w' = 2^s k

with the least s, 2^s a unit of the stored weights or more, that holds all of them; 0 is then within low..high. One symmetric
bit has no 0: it is -1 and +1 (of 0 +1). One affine bit with a power for scale is 0 and one other level: too few for both signs.
With an affine ratio zero is in general no level: masked weights are left out of the products and of their correction alike.

References
----------
Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR, sec. 2
(affine codes, their zero points). Bengio et al. 2013, arXiv:1308.3432 (the straight-through estimator).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.arithmetic import divide_ties_even
from intnet.compression._layers import choose
from intnet.errors import InputError
from intnet.formats import BlockFloat, Overflow, Rounding
from intnet.layers import (
    AvgPool2D,
    BinaryConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    MaxPool2D,
    Parameter,
    Quantizer,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
)
from intnet.layers._base import aligned
from intnet.layers.coded import Coded
from intnet.layers.product import Product
from intnet.network import Network
from intnet.recipe import Role

SCHEMES = ("affine", "symmetric")
SCALES = ("ratio", "power")

_PASSES = (AvgPool2D, Dropout, Flatten, GlobalAvgPool, MaxPool2D)  # what makes nothing negative of what is not
_END_BITS = 16
_STORED_BITS = 48  # times 8 bits of a code stays below 2**62


@dataclass(frozen=True)
class WeightCoding:
    """How weights become codes: one scheme, and one scale and zero point for a tensor.

    Parameters
    ----------
    bits : int, 1..8
    scheme : {"affine", "symmetric"}
    scale : {"ratio", "power"}
        A ratio of integers, or a power of two.

    Raises
    ------
    InputError
        If one of them is none of these.

    Notes
    -----
    The ends of the range are integers of magnitudes up to ``2**16``: of longer words the least weight is rounded down to one,
    and the greatest up. Words of more than 48 bits are first rounded to 48, and weights of different exponents brought to one.

    Examples
    --------
    >>> from intnet import Network, layers
    >>> network = Network([layers.Dense(4)], (8,), "fixed16")
    >>> coded = WeightCoding(2)(network.parameters[0])
    >>> sorted(set(coded.codes.reshape(-1).tolist())), coded.divisor
    ([-2, -1, 0, 1], 3)
    """

    bits: int
    scheme: str = "affine"
    scale: str = "ratio"

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, (int, np.integer)) or not 1 <= self.bits <= 8:
            raise InputError(f"weights are coded in 1..8 bits, got {self.bits!r}")
        object.__setattr__(self, "bits", int(self.bits))
        for name, choices in (("scheme", SCHEMES), ("scale", SCALES)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {' or '.join(choices)}, got {getattr(self, name)!r}")

    def __str__(self) -> str:
        return f"{self.bits} bits {self.scheme} {self.scale}"

    def __call__(self, weight: Parameter) -> Coded:
        """Return the codes of a parameter as it is stored now."""
        stored = aligned(weight.stored, _STORED_BITS)
        values, exponent = stored.mantissa.reshape(-1).astype(np.int64), int(stored.exponent.flat[0])
        if (drop := kernels.max_magnitude(values).bit_length() - _STORED_BITS + 1) > 0:
            nearest = Rounding.TIES_EVEN.code, Overflow.SATURATE.code
            values, exponent = kernels.requantize(values, drop, *nearest, _STORED_BITS).astype(np.int64), exponent + drop
        some = values if weight.mask is None else values[weight.mask.reshape(-1)]
        least, greatest = kernels.extremes(some) if some.size else (0, 0)
        code = self._ratio if self.scale == "ratio" else self._power
        (numerator, offset, divisor, zero, low, high), made = code(least, greatest)
        codes = np.empty(values.shape, np.int64)
        how = np.int64(numerator), np.int64(offset), np.int64(divisor), np.int64(zero), np.int64(low), np.int64(high)
        kernels.encode(values, *how, codes)
        if self.bits == 1 and self.scheme == "symmetric":
            codes = kernels.sign(values, 1)
        elif self.scheme == "affine":
            codes -= 1 << (self.bits - 1)
        short = codes.astype(np.int8).reshape(weight.shape)
        if weight.mask is not None:
            short *= weight.mask
        scale, shift, over, up = made
        return Coded(short, scale, shift, over, exponent + up, weight.mask)

    def _ratio(self, least: int, greatest: int) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
        """Return the arguments of `kernels.encode`, and scale, offset, divisor and exponent of what codes stand for."""
        drop = max(0, max(abs(least), abs(greatest)).bit_length() - _END_BITS)
        low, high = least >> drop, -(-greatest >> drop)
        middle = 1 << (self.bits - 1)
        if self.scheme == "affine":
            steps, span = (1 << self.bits) - 1, high - low
            encode = (steps, -(low << drop) * steps, max(1, span << drop), 0, 0, steps)
            return encode, (span, low * steps + span * middle, steps, drop)
        most, top = max(high, -low), max(1, middle - 1)
        return (top, 0, max(1, most << drop), 0, -top, top), (most, 0, top, drop)

    def _power(self, least: int, greatest: int) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
        """As `_ratio`; the shift is not below 0, where every weight is a code's already."""
        middle, shift = 1 << (self.bits - 1), 0
        if self.scheme == "symmetric":
            top, most = max(1, middle - 1), max(greatest, -least)
            while _nearest(most, shift) > top:
                shift += 1
            return (1, 0, 1 << shift, 0, -top, top), (1, 0, 1, shift)
        steps, least, greatest = (1 << self.bits) - 1, min(least, 0), max(greatest, 0)
        while _nearest(greatest, shift) - _nearest(least, shift) > steps:
            shift += 1
        zero = -_nearest(least, shift)
        return (1, 0, 1 << shift, zero, 0, steps), (1, middle - zero, 1, shift)


def _nearest(value: int, shift: int) -> int:
    return int(divide_ties_even(np.int64(value), np.int64(1 << shift)))


def quantizable(network: Network) -> list[str]:
    """Return the layers whose weights are coded unless others are named: all that have some but the first and the last."""
    return [layer.name for layer in network.layers.walk() if isinstance(layer, Product)][1:-1]


def quantize_weights(network: Network, coding: WeightCoding | int, layers: str | Iterable[str] | None = None) -> list[str]:
    """Multiply by coded weights from now on, in training and evaluation.

    Parameters
    ----------
    network : Network
        On the CPU.
    coding : WeightCoding or int
        A number of bits stands for ``WeightCoding(bits)``.
    layers : str or sequence of str, optional
        Names, or patterns of them (``fnmatch``); by default `quantizable`.

    Returns
    -------
    list of str
        The layers.

    Raises
    ------
    InputError
        If the bits are outside 1..8, or a layer is unknown, or of binary weights already.
    """
    if not isinstance(coding, WeightCoding):
        coding = WeightCoding(coding)
    chosen = _chosen(network, layers)
    for layer in chosen:
        layer.coding = coding
    return [layer.name for layer in chosen]


def quantize_inputs(network: Network, bits: int, layers: str | Iterable[str] | None = None) -> list[str]:
    """Round what these layers multiply their weights by to few bits, with a power of two for scale, from now on.

    The scale is the least that holds all inputs of a batch, or in evaluation of a sample. Inputs that come out of a ReLU are
    not negative: they get all bits for the magnitude, others one for the sign. The gradient passes straight through.

    Parameters
    ----------
    network : Network
        On the CPU.
    bits : int, 1..8
        At least 2 where inputs may be negative.
    layers : as of `quantize_weights`

    Returns
    -------
    list of str
        The layers.
    """
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 1 <= bits <= 8:
        raise InputError(f"inputs are rounded to 1..8 bits, got {bits!r}")
    chosen = _chosen(network, layers)
    after = _after_clamps(network)
    signed = [layer.name for layer in chosen if layer.name not in after]
    if bits == 1 and signed:
        raise InputError(f"the inputs of layer {signed[0]!r} may be negative; give them at least 2 bits")
    for layer in chosen:
        word = int(bits) + (layer.name in after)
        layer.quantizers["inputs"] = Quantizer(layer.name, "inputs", Role(BlockFloat(word, "tensor")), 0, True)
    return [layer.name for layer in chosen]


def take_away(network: Network, layers: str | Iterable[str] | None = None) -> None:
    """Multiply by the weights and inputs as they are again; by default in all layers."""
    for layer in choose(network, "*" if layers is None else layers):
        layer.coding = None
        layer.quantizers.pop("inputs", None)


def dequantized(coded: Coded) -> NDArray[np.object_]:
    """Return the weights that codes stand for, as exact fractions."""
    unit = Fraction(2) ** coded.exponent / coded.divisor
    numerators = coded.numerators()
    made = np.array([int(one) * unit for one in numerators.reshape(-1)], dtype=object)
    return made.reshape(numerators.shape)


def _chosen(network: Network, layers: str | Iterable[str] | None) -> list[Product]:
    if network.device != "cpu":
        raise InputError("this network lives on a GPU; move it back with network.to('cpu')")
    names: Any = quantizable(network) if layers is None else layers
    if layers is None and not names:
        raise InputError("this network has no layers between its first and its last; name the layers to be quantized")
    chosen = choose(network, names)
    if binary := [layer.name for layer in chosen if isinstance(layer, BinaryConv2D)]:
        raise InputError(f"the weights of layer {binary[0]!r} are signs already; name other layers")
    return chosen


def _after_clamps(network: Network) -> set[str]:
    """Return the layers whose inputs are certainly not negative."""
    found: set[str] = set()
    _walk(network.layers, False, found)
    return found


def _walk(layer: Layer, positive: bool, found: set[str]) -> bool:
    """Note the layers within this one whose inputs are not negative, if its own are so; tell whether its outputs are."""
    if isinstance(layer, Sequential):
        for one in layer.layers:
            positive = _walk(one, positive, found)
        return positive
    if isinstance(layer, Residual):
        other = positive if layer.shortcut is None else _walk(layer.shortcut, positive, found)
        return _walk(layer.body, positive, found) and other
    if isinstance(layer, Product) and positive:
        found.add(layer.name)
    return isinstance(layer, (ReLU, Sigmoid)) or (positive and isinstance(layer, _PASSES))
