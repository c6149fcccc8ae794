"""A network's inference as a program of integer operations: see :mod:`intnet.export.operations` for what each of them means.

Examples
--------
>>> from intnet import layers
>>> from intnet.network import Network
>>> program = program_of(Network([layers.Dense(3), layers.ReLU()], (2,), "fixed16"))
>>> [type(one).__name__ for one in program.operations], program.tensors[1].shape, program.tensors[1].exponent
(['Dense', 'ReLU'], (3,), -9)
>>> print(program.operations[0].to)
/ 2**14 ties_even into 16 bits, saturate
"""

from typing import Any

import numpy as np

from intnet import kernels
from intnet.errors import InputError
from intnet.export.operations import (
    Accumulator,
    Add,
    AveragePool,
    Clamp,
    Conv2D,
    Dense,
    Flatten,
    LeakyReLU,
    MaxPool,
    Operation,
    Pair,
    Program,
    ReLU,
    Requantize,
    Scale,
    Sign,
    Table,
    Tensor,
    rounded_bounds,
    sums_within,
)
from intnet.formats import BlockFloat, Fixed, Overflow, Rounding
from intnet.layers import Layer, Quantizer, Residual, Sequential, Step, normalization, product, shape
from intnet.layers import activation as activations
from intnet.layers._base import magnitude_bits
from intnet.network import Network
from intnet.tensor import QTensor

LARGEST_SHIFT = 60
_EXACT = 2**62
"""What operations but products keep their results below."""


def program_of(network: Network, inputs: tuple[int, int] | None = None) -> Program:
    """Return a network's inference as integer operations, the same bits as ``Network.forward`` in evaluation.

    Parameters
    ----------
    network : Network
        In fixed point, on the CPU, as it is now: weights are copied. Masked weights are zeros.
    inputs : (int, int), optional
        A promise of the least and the greatest input integer, which makes accumulators narrower; by default any word.

    Returns
    -------
    Program

    Raises
    ------
    InputError
        If the network has block floating point activations, coded weights, or a layer that no operation stands for; the error
        names the layer and says what to use instead. Or if `inputs` is no range of input words.
    """
    if network.device != "cpu":
        raise InputError(f"this network lives on the {network.device}; move it with network.to('cpu') to export it")
    form = network.recipe.activation.format
    if isinstance(form, BlockFloat):
        first = next((layer.name for layer in network.layers.walk() if "activation" in layer.quantizers), "the input")
        raise _moving(first, str(form))
    low, high = inputs or (form.minimum, form.maximum)
    if not form.minimum <= low <= high <= form.maximum:
        raise InputError(f"inputs are words of {form}, {form.minimum}..{form.maximum}, got the range {low}..{high}")
    writer = _Writer(network)
    zeros = np.zeros((1, *network.shape), form.storage)
    start = QTensor.trusted(zeros, -form.fraction_bits, form)
    writer.tensors.append(Tensor("input", network.shape, -form.fraction_bits, form.word_bits, low, high))
    writer.formats.append(start)
    output = writer.layer(network.layers, 0)
    return Program(tuple(writer.tensors), tuple(writer.operations), output, network.digest())


def _moving(layer: str, form: str) -> InputError:
    return InputError(
        f"layer {layer!r} has activations in {form}, whose exponents are found while it runs; a program has fixed ones: train "
        "with a fixed-point recipe such as fixed16, or override its activation with a format like fxp-s16/9"
    )


class _Writer:
    """Walks through the layers; keeps for each tensor what its layer made of zeros, for exponent, format and type."""

    def __init__(self, network: Network) -> None:
        self.step = Step(seed=network.seed)
        self.tensors: list[Tensor] = []
        self.formats: list[QTensor] = []
        self.operations: list[Operation] = []

    def layer(self, layer: Layer, x: int) -> int:
        """Write a layer that takes tensor `x`; return what it gives."""
        if isinstance(layer, Sequential):
            for one in layer.layers:
                x = self.layer(one, x)
            return x
        if isinstance(layer, shape.Dropout):
            return x
        quantizer = layer.quantizers.get("activation")
        if quantizer is not None and isinstance(quantizer.format, BlockFloat):
            raise _moving(layer.name, str(quantizer.format))
        if isinstance(layer, Residual):
            other = x if layer.shortcut is None else self.layer(layer.shortcut, x)
            return self._add(layer, self.layer(layer.body, x), other)
        for kind, write in _WRITERS.items():
            if type(layer) is kind:
                return write(self, layer, x)
        raise InputError(
            f"layer {layer.name!r} ({type(layer).__name__}) has no integer operation; use one of "
            f"{', '.join(sorted(kind.__name__ for kind in (*_WRITERS, Residual, shape.Dropout)))}"
        )

    def write(self, kind: Any, layer: Layer, inputs: tuple[int, ...], made: QTensor, bounds: Pair, *arguments: Any) -> int:
        """Add an operation that gives what the layer made of zeros, within the bounds; return its tensor."""
        if made.exponent.size != 1:
            raise InputError(
                f"layer {layer.name!r} gives outputs with exponents of their own; use a fixed-point format for its activations"
            )
        # hard tanh of units above 1 gives -1, 0 and 1 of no format
        bits = made.format.word_bits if made.format is not None else max(-bounds[0] - 1, bounds[1]).bit_length() + 1
        output = len(self.tensors)
        tensor = Tensor(layer.name, made.shape[1:], int(made.exponent.flat[0]), bits, *bounds)
        self.tensors.append(tensor)
        self.formats.append(made)
        self.operations.append(kind(layer.name, inputs, output, *arguments))
        return output

    def rounded(self, layer: Layer, exponent: int, made: QTensor, sums: Pair) -> tuple[Requantize, Pair]:
        """Return how numbers of an exponent come into the layer's activations, and what these lie within."""
        to = requantization(layer.quantizers["activation"], exponent, training=False)
        assert int(made.exponent.flat[0]) == exponent + to.shift
        return to, rounded_bounds(sums, to)

    # The layers

    def _product(self, layer: product.Product, x: int) -> int:
        if layer.coding is not None or "inputs" in layer.quantizers:
            raise InputError(
                f"layer {layer.name!r} multiplies by coded weights or inputs, whose scales are no powers of two; take the "
                "coding away (intnet.compression), or train with few-bit fixed-point words, such as weight='fxp-s4/3'"
            )
        weights = layer.used()
        if weights.exponent.size > 1:
            raise InputError(
                f"layer {layer.name!r} has weights with an exponent for each output; use one for the tensor (bfp-s8/tensor) or "
                "a fixed-point format for its weights"
            )
        tensor, of_weights = self.tensors[x], int(weights.exponent.flat[0])
        integers, exponent = weights.mantissa.astype(np.int64), tensor.exponent + of_weights
        bias = None
        if layer.bias is not None:
            value = layer.bias.value
            shift = exponent - int(value.exponent.flat[0])
            # as Product._add_bias does; exact where the sums' unit is the finer one
            bias = kernels.requantize(
                value.mantissa.astype(np.int64), shift, Rounding.TIES_EVEN.code, Overflow.SATURATE.code, 63
            )
        sums = sums_within(integers, bias, (tensor.low, tensor.high))
        word = Accumulator(layer.recipe.accumulator_bits, layer.recipe.accumulator_overflow)
        made = layer.forward(self.formats[x], self.step)
        half = 1 << (word.bits - 1)
        within = sums if -half <= sums[0] and sums[1] < half else (-half, half - 1)
        to, bounds = self.rounded(layer, exponent, made, within)
        form = weights.format
        assert form is not None
        arguments = [integers, form.word_bits, of_weights, bias, word, sums, to]
        if isinstance(layer, product.Conv2D):
            return self.write(Conv2D, layer, (x,), made, bounds, *arguments, layer.stride, layer.padding, layer.groups)
        return self.write(Dense, layer, (x,), made, bounds, *arguments)

    def _batch_norm(self, layer: normalization.BatchNorm, x: int) -> int:
        tensor, zeros = self.tensors[x], self.formats[x]
        before, exponent, kind = None, tensor.exponent, zeros.mantissa.dtype
        if drop := max(0, magnitude_bits(zeros) - 31):
            before = Requantize(drop, Rounding.TIES_EVEN, Overflow.SATURATE, 32)
            exponent, kind = exponent + drop, np.dtype(np.int32)
        gamma, beta = layer.gamma.value, layer.beta.value
        linear = kernels.normalize_running(
            np.zeros((1, tensor.shape[-1]), kind), exponent, layer.running_mean, layer.running_variance, gamma.mantissa,
            gamma.exponent, beta.mantissa, beta.exponent, layer.epsilon_shift,
        )  # fmt: skip
        factors, offsets = linear.factors
        within = rounded_bounds((tensor.low, tensor.high), before) if before else (tensor.low, tensor.high)
        ends = np.multiply.outer(np.array(within, object), factors.astype(object)) + offsets.astype(object)
        sums = self.exact(layer, (int(ends.min()), int(ends.max())))
        made = layer.forward(zeros, self.step)
        to, bounds = self.rounded(layer, linear.exponent, made, sums)
        return self.write(Scale, layer, (x,), made, bounds, before, factors.copy(), offsets.copy(), sums, to)

    def _add(self, layer: Residual, a: int, b: int) -> int:
        pair = self.tensors[a], self.tensors[b]
        shifts, exponent = kernels.alignment_of_one(
            [one.exponent for one in pair], [magnitude_bits(self.formats[one]) + 1 for one in (a, b)]
        )
        if min(shifts) < 0 or max(shifts) > LARGEST_SHIFT or min(one.exponent for one in pair) < -LARGEST_SHIFT:
            raise InputError(
                f"layer {layer.name!r} adds units of 2**{pair[0].exponent} and 2**{pair[1].exponent}, too far apart for an "
                "exact sum in 62 bits; use fraction bits that are nearer to each other"
            )
        sums = tuple(sum(end << shift for end, shift in zip(ends, shifts, strict=True)) for ends in zip(
            *((one.low, one.high) for one in pair), strict=True
        ))  # fmt: skip
        made = layer.join(self.formats[a], self.formats[b], self.step)
        to, bounds = self.rounded(layer, exponent, made, (sums[0], sums[1]))
        return self.write(Add, layer, (a, b), made, bounds, (shifts[0], shifts[1]), (sums[0], sums[1]), to)

    def _average(self, layer: Any, x: int) -> int:
        tensor = self.tensors[x]
        whole = isinstance(layer, shape.GlobalAvgPool)
        window = tensor.shape[:2] if whole else layer.window
        stride, padding = (window, (0, 0, 0, 0)) if whole else (layer.stride, layer.padding)
        count = window[0] * window[1]
        power = count.bit_length() - 1
        # as intnet.layers.shape divides
        factor, drop = (1, power) if count == 1 << power else (((1 << (16 + power)) + count // 2) // count, 16 + power)
        sums = self.exact(layer, (min(0, tensor.low) * count * factor, max(0, tensor.high) * count * factor))
        made = layer.forward(self.formats[x], self.step)
        to, bounds = self.rounded(layer, tensor.exponent - drop, made, sums)
        return self.write(AveragePool, layer, (x,), made, bounds, window, stride, padding, factor, sums, to)

    def _max(self, layer: shape.MaxPool2D, x: int) -> int:
        made = layer.forward(self.formats[x], self.step)
        bounds = self.tensors[x].low, self.tensors[x].high
        return self.write(MaxPool, layer, (x,), made, bounds, layer.window, layer.stride, layer.padding)

    def _selected(self, layer: Any, x: int) -> int:
        """Write ReLU, leaky ReLU, hard tanh, sign or flattening."""
        made, (low, high) = layer.forward(self.formats[x], self.step), (self.tensors[x].low, self.tensors[x].high)
        if isinstance(layer, activations.ReLU):
            return self.write(ReLU, layer, (x,), made, (max(low, 0), max(high, 0)))
        if isinstance(layer, activations.LeakyReLU):
            bounds = (low >> layer.shift if low < 0 else low), max(high, 0)
            return self.write(LeakyReLU, layer, (x,), made, bounds, layer.shift)
        if isinstance(layer, activations.HardTanh):
            one = max(1, activations._one(self.tensors[x].exponent))
            bounds = min(max(low, -one), one), min(max(high, -one), one)
            return self.write(Clamp, layer, (x,), made, bounds, -one, one)
        if isinstance(layer, activations.Sign):
            return self.write(Sign, layer, (x,), made, (-1, 1))
        return self.write(Flatten, layer, (x,), made, (low, high))

    def _table(self, layer: activations._LookUp, x: int) -> int:
        zeros, before = self.formats[x], None
        if zeros.format != layer.argument:
            shift = -layer.argument.fraction_bits - self.tensors[x].exponent
            before = Requantize(shift, Rounding.TIES_EVEN, Overflow.SATURATE, layer.argument.word_bits)
        made, bounds = layer.forward(zeros, self.step), (int(layer.table.min()), int(layer.table.max()))
        return self.write(Table, layer, (x,), made, bounds, before, layer.argument.minimum, layer.table)

    def exact(self, layer: Layer, sums: Pair) -> Pair:
        """Refuse sums that may take more than 62 bits."""
        if max(-sums[0], sums[1]) >= _EXACT:
            raise InputError(
                f"layer {layer.name!r} makes sums of up to {max(-sums[0], sums[1]).bit_length()} bits and 62 are sure to be "
                "exact; use shorter words for its activations"
            )
        return sums


_WRITERS: dict[type[Layer], Any] = {
    product.Dense: _Writer._product,
    product.Conv2D: _Writer._product,
    product.BinaryConv2D: _Writer._product,
    normalization.BatchNorm: _Writer._batch_norm,
    shape.AvgPool2D: _Writer._average,
    shape.GlobalAvgPool: _Writer._average,
    shape.MaxPool2D: _Writer._max,
    shape.Flatten: _Writer._selected,
    activations.ReLU: _Writer._selected,
    activations.LeakyReLU: _Writer._selected,
    activations.HardTanh: _Writer._selected,
    activations.Sign: _Writer._selected,
    activations.Sigmoid: _Writer._table,
    activations.Tanh: _Writer._table,
}


def requantization(quantizer: Quantizer, exponent: int, training: bool) -> Requantize:
    """Return how numbers of an exponent come into a fixed-point role; in evaluation, without random bits."""
    role, form = quantizer.role, quantizer.format
    assert isinstance(form, Fixed)
    nearest = role.rounding is Rounding.STOCHASTIC and not training
    return Requantize(
        -form.fraction_bits - exponent, Rounding.TIES_EVEN if nearest else role.rounding, role.overflow, form.word_bits
    )
