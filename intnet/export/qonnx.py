"""QONNX, for words of any length up to 24 bits: real numbers in float32, brought into words by `Quant` nodes.

Float32 holds integers up to ``2**24``. Every sum is proven to stay within it, from the weights as they are and the words of the
inputs: also its parts, in any order, and with the bias; then every product, sum, division by a power of two and rounding is
exact, and the result is intnet's, times a power of two. A sum that is not proven so is refused, with its bound.
"""

import os
from typing import Any

import numpy as np

from intnet.export import operations as ops
from intnet.export._graph import FLOAT_EXACT, GraphWriter, largest, leaves, save, word_of
from intnet.export.operations import Pair, Requantize, rounded_bounds, rounded_range, sums_within
from intnet.export.program import program_of
from intnet.formats import Overflow, Rounding
from intnet.network import Network

DOMAIN = "qonnx.custom_op.general"
ROUNDINGS = {
    Rounding.TIES_EVEN: "ROUND",
    Rounding.FLOOR: "FLOOR",
    Rounding.CEIL: "CEIL",
    Rounding.TO_ZERO: "DOWN",
    Rounding.TO_AWAY: "UP",
    Rounding.TIES_AWAY: "HALF_UP",
    Rounding.TIES_ZERO: "HALF_DOWN",
}
"""What QONNX calls the modes; it has no others."""

_EXPONENTS = 100  # of scales and units, so that nothing leaves float32's normal numbers


def qonnx_of(network: Network, inputs: Pair | None = None, *, batch: int = 1) -> Any:
    """Return a network's inference as a QONNX model (`onnx.ModelProto`).

    It takes ``input``, float32 (batch, *shape), real numbers, channels last, which it rounds into the input's format; it gives
    the real numbers of the last layer. Every value is an integer times ``2**exponent``, with the exponents in the metadata.

    Parameters
    ----------
    network : Network
        In fixed point.
    inputs : (int, int), optional
        A promise of the least and the greatest input integer, see :func:`intnet.export.program_of`; it makes bounds smaller.
    batch : int
        QONNX wants it fixed.

    Raises
    ------
    InputError
        If the package onnx is not installed, or a layer cannot be written exactly; it is named, with the bound and what to do.
    """
    return _Writer(program_of(network, inputs), batch).model(network, {})


def write_qonnx(network: Network, path: str | os.PathLike[str], inputs: Pair | None = None, *, batch: int = 1) -> None:
    """Write the model of :func:`qonnx_of` to a file, whole."""
    save(qonnx_of(network, inputs, batch=batch), path)


class _Writer(GraphWriter):
    """Float32 operators and `Quant`; every method returns the name of a float32 value in real units."""

    numbers = staticmethod(lambda onnx: onnx.TensorProto.FLOAT)
    opsets = {"": 18, DOMAIN: 1}  # noqa: RUF012

    def model(self, network: Network, notes: dict[str, str]) -> Any:
        for tensor in self.program.tensors:
            self.layer = tensor.name
            if tensor.word_bits > 24:
                raise self.refuse(f"has words of {tensor.word_bits} bits and float32 holds 24; use write_c, or shorter words")
            if abs(tensor.exponent) > _EXPONENTS:
                raise self.refuse(f"counts in units of 2**{tensor.exponent}, beyond float32; use write_c")
        self.layer, first = "input", self.program.tensors[0]
        to = Requantize(0, Rounding.TIES_EVEN, Overflow.SATURATE, first.word_bits)
        self.names[0] = self._quant("input", to, first.exponent)
        return super().model(network, notes)

    # Numbers

    def _real(self, values: Any, exponent: int = 0, name: str | None = None) -> str:
        """Return integers times a power of two; they were proven to fit."""
        return self.constant(np.ldexp(np.asarray(values, np.float64), exponent), np.float32, name)

    def _exact(self, sums: Pair, what: str) -> None:
        if largest(sums) > FLOAT_EXACT:
            raise self.refuse(
                f"makes {what} of up to {largest(sums)}, and float32, in which QONNX computes, is exact up to 2**24; use "
                "write_c, shorter words, fewer terms, or tell of smaller inputs"
            )

    def _quant(self, x: str, to: Requantize, exponent: int, narrow: bool = False) -> str:
        """Round real numbers to units of ``2**exponent``, into a word."""
        constants = self._real(1, exponent), self._real(0), self._real(to.word_bits)
        return self.add(
            "Quant", x, *constants, domain=DOMAIN, signed=1, narrow=int(narrow), rounding_mode=ROUNDINGS[to.rounding]
        )

    def _requantized(self, x: str, sums: Pair, to: Requantize, exponent: int) -> str:
        """Bring sums within a range of integers, as real numbers, into a word in units of ``2**exponent``."""
        if to.rounding not in ROUNDINGS:
            raise self.refuse(
                f"rounds {to.rounding.value}, which QONNX has not; use one of {', '.join(mode.value for mode in ROUNDINGS)}"
            )
        self._exact(sums, "sums")
        if to.rounding in (Rounding.TIES_AWAY, Rounding.TIES_ZERO) and to.shift > 0:  # half a unit is added first
            half = 1 << (to.shift - 1)
            self._exact((sums[0] - half, sums[1] + half), "sums with half a unit")
        if abs(to.shift) > _EXPONENTS:
            raise self.refuse(f"is shifted by {to.shift} bits, beyond float32; use fraction bits nearer to each other")
        within = rounded_range(sums, to)
        if leaves(within, to.limits) and to.overflow in (Overflow.WRAP, Overflow.ERROR):
            raise self.refuse(
                f"has results of up to {largest(within)} in {to.word_bits} bits with overflow {to.overflow.value}, and QONNX "
                "saturates; let it saturate, or use write_c"
            )
        return self._quant(x, to, exponent, to.overflow is Overflow.SATURATE_SYMMETRIC)

    # Operations

    def _product(self, op: ops.Dense | ops.Conv2D) -> str:
        tensor = self.program.tensors[op.inputs[0]]
        unit = op.weight_exponent + tensor.exponent
        self._exact(op.sums, "sums")
        if largest((int(op.weights.min()), int(op.weights.max()))) > FLOAT_EXACT or abs(unit) > _EXPONENTS:
            raise self.refuse(f"has weights of {op.weight_bits} bits, beyond float32; use write_c, or shorter words")
        turned = op.weights.T if op.weights.ndim == 2 else op.weights.transpose(0, 3, 1, 2)
        bits = min(op.weight_bits, 24)
        stored = self._real(turned, op.weight_exponent, f"{self.layer}.weight")
        word = Requantize(0, Rounding.TIES_EVEN, Overflow.SATURATE, max(bits, 2))
        weights, x = self._quant(stored, word, op.weight_exponent), self.names[op.inputs[0]]
        if isinstance(op, ops.Conv2D):
            sums = self.channels_last(self.add(
                "Conv", self.channels_first(x), weights, strides=list(op.stride), pads=self.pads(op.padding), group=op.groups,
                kernel_shape=list(op.weights.shape[1:3]),
            ))  # fmt: skip
        else:
            sums = self.add("MatMul", x, weights)
        to_word, within = word_of(op.accumulator), op.sums
        narrow = leaves(within, to_word.limits)
        if narrow:
            within = sums_within(op.weights, None, (tensor.low, tensor.high))
            sums = self._accumulated(sums, within, to_word, unit)
            within = rounded_bounds(within, to_word)
        if op.bias is not None:
            sums = self.add("Add", sums, self._real(op.bias, unit, f"{self.layer}.bias"))
            if narrow:
                within = (within[0] + min(0, int(op.bias.min())), within[1] + max(0, int(op.bias.max())))
                self._exact(within, "sums with biases")
                sums = self._accumulated(sums, within, to_word, unit)
                within = rounded_bounds(within, to_word)
        return self._requantized(sums, within, op.to, self.program.tensors[op.output].exponent)

    def _accumulated(self, sums: str, within: Pair, word: Requantize, unit: int) -> str:
        if not leaves(within, word.limits):
            return sums
        return self._requantized(sums, within, word, unit)

    def _scale(self, op: ops.Scale) -> str:
        tensor, to = self.program.tensors[op.inputs[0]], self.program.tensors[op.output].exponent
        self._exact(op.sums, "sums (batch normalization multiplies by up to 31 bits: fold it, see import_floats)")
        self._exact((int(op.factors.min()), int(op.factors.max())), "factors")
        unit = to - op.to.shift  # of the sums: factors carry what is between
        assert op.before is None  # words of up to 24 bits need no rounding first
        x = self.names[op.inputs[0]]
        factors = self._real(op.factors, unit - tensor.exponent, f"{self.layer}.factors")
        scaled = self.add("Mul", x, factors)
        moved = self.add("Add", scaled, self._real(op.offsets, unit, f"{self.layer}.offsets"))
        return self._requantized(moved, op.sums, op.to, to)

    def _add(self, op: ops.Add) -> str:
        sums = self.add("Add", *(self.names[tensor] for tensor in op.inputs))
        return self._requantized(sums, op.sums, op.to, self.program.tensors[op.output].exponent)

    def _average(self, op: ops.AveragePool) -> str:
        x, tensor, output = self.names[op.inputs[0]], self.program.tensors[op.inputs[0]], self.program.tensors[op.output]
        if len(output.shape) == 1:
            sums = self.add("ReduceSum", x, self.constant([1, 2], np.int64), keepdims=0)
        else:
            channels = tensor.shape[2]
            sums = self.channels_last(self.add(
                "Conv", self.channels_first(x), self._real(np.ones((channels, 1, *op.window))), strides=list(op.stride),
                pads=self.pads(op.padding), group=channels, kernel_shape=list(op.window),
            ))  # fmt: skip
        many = "" if op.factor == 1 else " (windows of a power of two of pixels need no factor of 17 bits)"
        self._exact(op.sums, f"sums{many}")
        unit = output.exponent - op.to.shift
        scaled = self.add("Mul", sums, self._real(op.factor, unit - tensor.exponent))
        return self._requantized(scaled, op.sums, op.to, output.exponent)

    def _max(self, op: ops.MaxPool) -> str:
        x = self.channels_first(self.names[op.inputs[0]])
        return self.channels_last(
            self.add("MaxPool", x, kernel_shape=list(op.window), strides=list(op.stride), pads=self.pads(op.padding))
        )

    def _relu(self, op: ops.ReLU) -> str:
        return self.add("Relu", self.names[op.inputs[0]])

    def _leaky(self, op: ops.LeakyReLU) -> str:
        x, tensor = self.names[op.inputs[0]], self.program.tensors[op.inputs[0]]
        to = Requantize(op.shift, Rounding.TIES_EVEN, Overflow.SATURATE, tensor.word_bits)
        divided = self._requantized(
            self.add("Mul", x, self._real(1, -op.shift)), (tensor.low, tensor.high), to, tensor.exponent
        )
        return self.add("Where", self.add("Less", x, self._real(0)), divided, x)

    def _clamp(self, op: ops.Clamp) -> str:
        exponent = self.program.tensors[op.output].exponent
        return self.add("Clip", self.names[op.inputs[0]], self._real(op.low, exponent), self._real(op.high, exponent))

    def _sign(self, op: ops.Sign) -> str:
        return self.add("Where", self.add("Less", self.names[op.inputs[0]], self._real(0)), self._real(-1), self._real(1))

    def _table(self, op: ops.Table) -> str:
        tensor, output = self.program.tensors[op.inputs[0]], self.program.tensors[op.output]
        x, exponent = self.names[op.inputs[0]], tensor.exponent
        if op.before is not None:
            exponent += op.before.shift
            x = self._requantized(x, (tensor.low, tensor.high), op.before, exponent)
        place = self.add("Cast", self.add("Mul", x, self._real(1, -exponent)), to=self.onnx.TensorProto.INT64)
        place = self.add("Sub", place, self.constant(op.first, np.int64))
        place = self.add("Clip", place, self.constant(0, np.int64), self.constant(len(op.table) - 1, np.int64))
        return self.add("Gather", self._real(op.table, output.exponent, f"{self.layer}.table"), place)

    def _flatten(self, op: ops.Flatten) -> str:
        return self.flatten(self.names[op.inputs[0]], self.program.tensors[op.output])

    writers = {  # noqa: RUF012
        ops.Dense: _product,
        ops.Conv2D: _product,
        ops.Scale: _scale,
        ops.Add: _add,
        ops.AveragePool: _average,
        ops.MaxPool: _max,
        ops.ReLU: _relu,
        ops.LeakyReLU: _leaky,
        ops.Clamp: _clamp,
        ops.Sign: _sign,
        ops.Table: _table,
        ops.Flatten: _flatten,
    }
