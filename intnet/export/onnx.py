"""ONNX with integer operators, for words of up to 8 bits: the same bits in any runtime that keeps to the standard.

Tensors are int8. Products are `MatMulInteger` and `ConvInteger`, whose sums are int32: exact where the proven bound of the sums
fits, else refused. They get operands as uint8 with zero point 128: ONNX Runtime's kernels for signed weights saturate sums of
two products in 16 bits on processors without VNNI (microsoft/onnxruntime#12088), its unsigned ones do not.

Rounding is `QuantizeLinear` where that is exact: to nearest, ties to even, saturating, of sums proven to be within ``2**24``,
which float32 holds, by a power of two. Everything else is int64: a division by ``2**s`` is ``(v - v mod 2**s) / 2**s``,
whatever a runtime makes of the signs of quotients; every mode is an addend before it (``docs/arithmetic.md``).
"""

import os
from typing import Any

import numpy as np

from intnet.export import operations as ops
from intnet.export._graph import FLOAT_EXACT, GraphWriter, largest, leaves, may_overflow, save, word_of
from intnet.export.operations import Pair, Requantize, rounded_bounds, rounded_range, sums_within
from intnet.export.program import program_of
from intnet.formats import Overflow, Rounding
from intnet.network import Network

BITS = 8
_INT32 = (-(2**31), 2**31 - 1)
_MOST = 2**63 - 1
_ZERO_POINT = 128


def onnx_of(network: Network, inputs: Pair | None = None, *, every_layer: bool = False) -> Any:
    """Return a network's inference as an ONNX model (`onnx.ModelProto`).

    It takes ``input``, int8 (n, *shape), the integers of the input's format, channels last; it gives the integers of the
    last layer, int8 (n, *output_shape), by that layer's name. The metadata holds the network's digest, its recipe, and the
    exponent and word of every tensor.

    Parameters
    ----------
    network : Network
        In fixed point, words of up to 8 bits.
    inputs : (int, int), optional
        See :func:`intnet.export.program_of`.
    every_layer : bool
        Whether the outputs of all layers are outputs of the model, in the order they run.

    Raises
    ------
    InputError
        If the package onnx is not installed, or a layer cannot be written exactly; it is named, with what to use instead.
    """
    program = program_of(network, inputs)
    model = _Writer(program, None).model(network, {})
    if every_layer:
        from onnx import TensorProto, helper

        del model.graph.output[:]
        for index in (operation.output for operation in program.operations):
            tensor = program.tensors[index]
            model.graph.output.append(helper.make_tensor_value_info(tensor.name, TensorProto.INT8, ("n", *tensor.shape)))
    return model


def write_onnx(
    network: Network, path: str | os.PathLike[str], inputs: Pair | None = None, *, every_layer: bool = False
) -> None:
    """Write the model of :func:`onnx_of` to a file, whole."""
    save(onnx_of(network, inputs, every_layer=every_layer), path)


class _Writer(GraphWriter):
    """Integer operators; every method returns the name of an int8 value."""

    numbers = staticmethod(lambda onnx: onnx.TensorProto.INT8)

    def model(self, network: Network, notes: dict[str, str]) -> Any:
        for tensor in self.program.tensors:
            self.layer = tensor.name
            if tensor.word_bits > BITS:
                raise self.refuse(
                    f"has words of {tensor.word_bits} bits and ONNX's integer products take {BITS}; use write_qonnx or "
                    "write_c, or train with a format such as fxp-s8/4"
                )
        return super().model(network, notes)

    # Integers

    def _wide(self, x: str) -> str:
        return self.add("Cast", x, to=self.onnx.TensorProto.INT64)

    def _int8(self, x: str) -> str:
        return self.add("Cast", x, to=self.onnx.TensorProto.INT8)

    def _long(self, value: int) -> str:
        return self.constant(value, np.int64)

    def _unsigned(self, x: str) -> str:
        """Return int8 as uint8 with the zero point."""
        raised = self.add("Add", self.add("Cast", x, to=self.onnx.TensorProto.INT32), self.constant(_ZERO_POINT, np.int32))
        return self.add("Cast", raised, to=self.onnx.TensorProto.UINT8)

    def _floored(self, v: str, shift: int) -> str:
        power = self._long(1 << shift)
        return self.add("Div", self.add("Sub", v, self.add("Mod", v, power)), power)

    def _rounded(self, v: str, sums: Pair, to: Requantize) -> str:
        """Return int64 divided by the power of two and rounded, not yet in the word."""
        shift, mode = to.shift, to.rounding
        if mode is Rounding.PSEUDO_STOCHASTIC:
            raise self.refuse("rounds pseudo_stochastic, which has no operator; use ties_even for its activations")
        if shift > 62 or largest(sums) + (1 << max(shift, 0)) > _MOST or largest(sums) << max(-shift, 0) > _MOST:
            raise self.refuse(f"is shifted by {shift} bits, beyond what 64 bits hold; use fraction bits nearer to each other")
        if shift < 0:
            v = self.add("Mul", v, self._long(1 << -shift))
        elif shift:
            v = self._divided(v, shift, mode)
        if mode is Rounding.JAM:  # the lowest bit is set
            v = self.add("Sub", self.add("Add", v, self._long(1)), self.add("Mod", v, self._long(2)))
        return v

    def _divided(self, v: str, shift: int, mode: Rounding) -> str:
        half, rest = 1 << (shift - 1), (1 << shift) - 1
        if mode is Rounding.TIES_EVEN:
            odd = self.add("Mod", self._floored(v, shift), self._long(2))
            return self._floored(self.add("Add", self.add("Add", v, self._long(half - 1)), odd), shift)
        negative, positive = {
            Rounding.FLOOR: (0, 0),
            Rounding.JAM: (0, 0),
            Rounding.CEIL: (rest, rest),
            Rounding.TO_ZERO: (rest, 0),
            Rounding.TO_AWAY: (0, rest),
            Rounding.TIES_POS: (half, half),
            Rounding.TIES_NEG: (half - 1, half - 1),
            Rounding.TIES_AWAY: (half - 1, half),
            Rounding.TIES_ZERO: (half, half - 1),
        }[mode]
        if negative == positive == 0:
            return self._floored(v, shift)
        addend = self._long(positive)
        if negative != positive:
            addend = self.add("Where", self.add("Less", v, self._long(0)), self._long(negative), addend)
        return self._floored(self.add("Add", v, addend), shift)

    def _in_word(self, v: str, within: Pair, to: Requantize, what: str) -> str:
        """Bring int64 that lies within a range into a word."""
        low, high = to.limits
        if not leaves(within, (low, high)):
            return v
        if to.overflow is Overflow.ERROR:
            raise self.refuse(
                f"has {what} of up to {max(within[1], -within[0] - 1).bit_length() + 1} bits in {to.word_bits}, an error that "
                "no operator reports; give them more bits, or let them saturate or wrap"
            )
        if to.overflow is Overflow.WRAP:
            half = self._long(1 << (to.word_bits - 1))
            turned = self.add("Mod", self.add("Add", v, half), self._long(1 << to.word_bits))
            return self.add("Sub", turned, half)
        return self.add("Clip", v, self._long(low), self._long(high))

    def _requantized(self, v: str, sums: Pair, to: Requantize) -> str:
        """Bring sums, int32 or int64, into int8."""
        saturates = to.overflow in (Overflow.SATURATE, Overflow.SATURATE_SYMMETRIC) or not may_overflow(sums, to)
        fits = largest(sums) <= FLOAT_EXACT and abs(to.shift) <= 100
        if to.rounding is Rounding.TIES_EVEN and saturates and fits:
            floats = self.add("Cast", v, to=self.onnx.TensorProto.FLOAT)
            scale, zero = self.constant(2.0**to.shift, np.float32), self.constant(0, np.int8)
            y = self.add("QuantizeLinear", floats, scale, zero)
            low, high = to.limits
            if leaves(rounded_range(sums, to), to.limits) and (low, high) != (-128, 127):
                y = self.add("Clip", y, self.constant(low, np.int8), self.constant(high, np.int8))
            return y
        v = self._rounded(self._wide(v), sums, to)
        return self._int8(self._in_word(v, rounded_range(sums, to), to, "activations"))

    # Operations

    def _dense(self, op: ops.Dense) -> str:
        x = self._unsigned(self.names[op.inputs[0]])
        zero = self.constant(_ZERO_POINT, np.uint8)
        return self._summed(op, self.add("MatMulInteger", x, self._weights(op), zero, zero))

    def _conv(self, op: ops.Conv2D) -> str:
        x, zero = self.channels_first(self._unsigned(self.names[op.inputs[0]])), self.constant(_ZERO_POINT, np.uint8)
        sums = self.add(
            "ConvInteger", x, self._weights(op), zero, zero, strides=list(op.stride), pads=self.pads(op.padding),
            group=op.groups, kernel_shape=list(op.weights.shape[1:3]),
        )  # fmt: skip
        return self._summed(op, self.channels_last(sums))

    def _weights(self, op: ops.Product) -> str:
        weights = op.weights
        if weights.min() < -128 or weights.max() > 127:
            raise self.refuse(
                f"has weights of {op.weight_bits} bits and ONNX's integer products take {BITS}; use write_qonnx or write_c, or "
                "train with 8-bit weights"
            )
        turned = weights.T if weights.ndim == 2 else weights.transpose(0, 3, 1, 2)
        return self.constant(turned + _ZERO_POINT, np.uint8, f"{self.layer}.weight")

    def _summed(self, op: ops.Product, sums: str) -> str:
        """Bring int32 sums through the accumulator, with the bias, and round."""
        tensor = self.program.tensors[op.inputs[0]]
        products = sums_within(op.weights, None, (tensor.low, tensor.high))
        if leaves(products, _INT32):
            raise self.refuse(
                f"has sums of up to {largest(products).bit_length() + 1} bits and ONNX's integer products have 32; use "
                "write_c, or fewer inputs a sum"
            )
        word, within = word_of(op.accumulator), op.sums
        if leaves(within, word.limits) or leaves(within, _INT32):
            sums = self._in_word(self._wide(sums), products, word, "sums")
            low, high = (0, 0) if op.bias is None else (int(op.bias.min()), int(op.bias.max()))
            within = rounded_bounds(products, word)
            if op.bias is not None:
                within = (within[0] + min(low, 0), within[1] + max(high, 0))
                if leaves(within, (-_MOST, _MOST)):
                    raise self.refuse("has biases beyond 64 bits in the units of its sums; use fewer fraction bits")
                sums = self.add("Add", sums, self.constant(op.bias, np.int64, f"{self.layer}.bias"))
                sums = self._in_word(sums, within, word, "sums with biases")
                within = rounded_bounds(within, word)
        elif op.bias is not None:
            sums = self.add("Add", sums, self.constant(op.bias, np.int32, f"{self.layer}.bias"))
        return self._requantized(sums, within, op.to)

    def _scale(self, op: ops.Scale) -> str:
        v = self._before(op.inputs[0], op.before)
        scaled = self.add("Mul", v, self.constant(op.factors, np.int64, f"{self.layer}.factors"))
        moved = self.add("Add", scaled, self.constant(op.offsets, np.int64, f"{self.layer}.offsets"))
        return self._requantized(moved, op.sums, op.to)

    def _before(self, tensor: int, before: Requantize | None) -> str:
        """Return a tensor as int64, rounded first where the operation says so."""
        v, one = self._wide(self.names[tensor]), self.program.tensors[tensor]
        if before is None:
            return v
        sums = (one.low, one.high)
        return self._in_word(self._rounded(v, sums, before), rounded_range(sums, before), before, "arguments")

    def _add(self, op: ops.Add) -> str:
        a, b = (
            self.add("Mul", self._wide(self.names[tensor]), self._long(1 << shift)) if shift else self._wide(self.names[tensor])
            for tensor, shift in zip(op.inputs, op.shifts, strict=True)
        )
        return self._requantized(self.add("Add", a, b), op.sums, op.to)

    def _average(self, op: ops.AveragePool) -> str:
        x, tensor = self.names[op.inputs[0]], self.program.tensors[op.inputs[0]]
        if len(self.program.tensors[op.output].shape) == 1:
            sums = self.add("ReduceSum", self._wide(x), self.constant([1, 2], np.int64), keepdims=0)
        else:
            channels = tensor.shape[2]
            ones = self.constant(np.ones((channels, 1, *op.window)), np.uint8)
            zeros = self.constant(_ZERO_POINT, np.uint8), self.constant(0, np.uint8)
            sums = self.channels_last(self.add(
                "ConvInteger", self.channels_first(self._unsigned(x)), ones, *zeros, strides=list(op.stride),
                pads=self.pads(op.padding), group=channels, kernel_shape=list(op.window),
            ))  # fmt: skip
        if op.factor != 1:
            sums = self.add("Mul", self._wide(sums), self._long(op.factor))
        return self._requantized(sums, op.sums, op.to)

    def _max(self, op: ops.MaxPool) -> str:
        x = self.channels_first(self.names[op.inputs[0]])
        return self.channels_last(
            self.add("MaxPool", x, kernel_shape=list(op.window), strides=list(op.stride), pads=self.pads(op.padding))
        )

    def _relu(self, op: ops.ReLU) -> str:
        return self.add("Relu", self.names[op.inputs[0]])

    def _leaky(self, op: ops.LeakyReLU) -> str:
        v, tensor = self._wide(self.names[op.inputs[0]]), self.program.tensors[op.inputs[0]]
        divided = self._rounded(v, (tensor.low, tensor.high), Requantize(op.shift, Rounding.TIES_EVEN, Overflow.SATURATE, BITS))
        return self._int8(self.add("Where", self.add("Less", v, self._long(0)), divided, v))

    def _clamp(self, op: ops.Clamp) -> str:
        ends = (self.constant(max(op.low, -128), np.int8), self.constant(min(op.high, 127), np.int8))
        return self.add("Clip", self.names[op.inputs[0]], *ends)

    def _sign(self, op: ops.Sign) -> str:
        negative = self.add("Less", self._wide(self.names[op.inputs[0]]), self._long(0))
        return self._int8(self.add("Where", negative, self._long(-1), self._long(1)))

    def _table(self, op: ops.Table) -> str:
        place = self.add("Sub", self._before(op.inputs[0], op.before), self._long(op.first))
        place = self.add("Clip", place, self._long(0), self._long(len(op.table) - 1))
        return self.add("Gather", self.constant(op.table, np.int8, f"{self.layer}.table"), place)

    def _flatten(self, op: ops.Flatten) -> str:
        return self.flatten(self.names[op.inputs[0]], self.program.tensors[op.output])

    writers = {  # noqa: RUF012
        ops.Dense: _dense,
        ops.Conv2D: _conv,
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
