"""Layers that multiply by weights: dense and convolutional.

Forward, ``y = x W^T + b``: every sum of products is exact in the accumulator, whose exponent is the sum of the operands', and
is rounded once into the activation's format. Backward, ``dx = dy W`` into the error's format, and ``dW = dy^T x`` left exact
for the optimizer, which knows the gradient's format. Where exponents differ along a sum (the rows of W in dx, the samples in
dW), the parts are first brought to one: see :func:`intnet.layers._base.aligned`.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import BlockFloat, Fixed, Overflow, Rounding
from intnet.kernels.convolution import Padding, Pair
from intnet.layers._base import Build, Layer, Parameter, Quantizer, Seen, Shape, Step, aligned, magnitude_bits
from intnet.layers.coded import Coded, Coding, as_accumulator, check_place, coded_sums, room_for
from intnet.tensor import QTensor
from intnet.tensor.qtensor import Integers


class Product(Layer):
    """What `Dense` and `Conv2D` share: exponents, biases, accumulators."""

    def __init__(self, outputs: int, bias: bool | None, initial: str, name: str | None) -> None:
        super().__init__(name)
        if isinstance(outputs, bool) or not isinstance(outputs, (int, np.integer)) or outputs < 1:
            raise InputError(f"a layer needs at least 1 output, got {outputs!r}")
        if bias is not None and not isinstance(bias, bool):
            raise InputError(f"bias must be True, False or None, got {bias!r}")
        if not isinstance(initial, str):
            raise InputError(f"initial must be the name of a scheme, got {initial!r}")
        self.outputs = int(outputs)
        self.wants_bias, self.initial = bias, initial
        self.weight: Parameter
        self.bias: Parameter | None = None
        self.gives_input_gradient = True
        self.coding: Coding | None = None
        """How weights become the codes that products are made with; None: products are made with the weights."""
        self._x: QTensor | None = None
        self._came: QTensor | None = None  # the inputs before they were rounded, where they are

    def _make(self, build: Build, shape: Shape, fan_in: int, fan_out: int) -> None:
        self.begin(build, "activation", "error")
        self.weight = self.parameter(build, "weight", shape, self.initial, fan_in, fan_out)
        has_bias = self.recipe.biases if self.wants_bias is None else self.wants_bias
        self.bias = self.parameter(build, "bias", shape[:1], "zeros", decays=False) if has_bias else None
        self._fails = self.recipe.accumulator_overflow is Overflow.ERROR
        self._saturates = self.recipe.accumulator_overflow is Overflow.SATURATE
        self._width: dict[str, Any] = {"accumulator_bits": self.recipe.accumulator_bits, "saturates": self._saturates}
        self._accumulator: dict[str, int] = {"left": 0, "count": 0}

    @property
    def has_bias(self) -> bool:
        """Whether it has biases, once it is built."""
        return self.bias is not None

    def stop_here(self) -> bool:
        """Give no gradient of the inputs."""
        self.gives_input_gradient = False
        return True

    def describe(self) -> str:
        """Return its kind and settings, and how its weights and inputs are coded."""
        inputs = self.quantizers.get("inputs")
        return "".join((
            super().describe(),
            "" if self.coding is None else f", weights coded: {self.coding}",
            "" if inputs is None else f", inputs coded: {inputs.role}",
        ))  # fmt: skip

    # Geometry, in the subclasses: sums, and how many left the accumulator

    def _forward(self, x: Integers, weights: Integers, **options: Any) -> tuple[Integers, int]:
        raise NotImplementedError

    def _backward_input(self, dy: Integers, weights: Integers, **options: Any) -> tuple[Integers, int]:
        raise NotImplementedError

    def _backward_weights(self, x: Integers, dy: Integers, **options: Any) -> tuple[Integers, int]:
        raise NotImplementedError

    # The two passes

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Multiply by the weights, add the biases, round."""
        x = self._rounded(x, step)
        y = self._outputs(x, step)
        if step.training:
            self._x = x
        return y

    def _rounded(self, x: QTensor, step: Step) -> QTensor:
        """Round the inputs, if they are coded."""
        if "inputs" not in self.quantizers:
            return x
        if step.training:
            self._came = x
        return self.bring(x, "inputs", step)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Leave the gradients with the parameters, and return that of the inputs (or `dy`, if it is not wanted)."""
        if self._x is None:
            raise InputError(f"layer {self.name!r}: backward needs a forward pass in training before it")
        self._leave_gradients(self._x, dy, step)
        return self._input_gradient(dy, step) if self.gives_input_gradient else dy

    def used(self) -> QTensor:
        """Return the weights that products are made with, where they are not coded."""
        return self.weight.value

    def accumulated(self, x: QTensor, apart: bool = False) -> tuple[QTensor, int, int]:
        """Return the sums of products, before bias and rounding, and how many of how many sums left the accumulator.

        Of coded weights they are rounded down with a sticky bit, all samples at one place unless `apart`.
        """
        if self.coding is not None:
            coded = self.coding(self.weight)
            values, left, count, exponent = coded_sums(
                coded, lambda weights: self._forward(x.mantissa, weights, **self._width), self._alone(coded, 0),
                apart or x.exponent.size > 1, self.name, room_for(self.bias, x.exponent, coded, self.name),
            )  # fmt: skip
            return as_accumulator(values, x.exponent, exponent), left, count
        weights = self.used()
        sums, left = self._forward(x.mantissa, weights.mantissa, **self._width)
        exponent = x.exponent
        if weights.exponent.size > 1:  # one for each output
            exponent = exponent.reshape((-1,) + (1,) * (sums.ndim - 1)) + weights.exponent.reshape(
                (1,) * (sums.ndim - 1) + (-1,)
            )
        elif exponent.ndim == sums.ndim:
            exponent = exponent + weights.exponent.flat[0]
        else:
            exponent = exponent.reshape((-1,) + (1,) * (sums.ndim - 1)) + weights.exponent.flat[0]
        return QTensor.trusted(sums, exponent), left, sums.size

    def _alone(self, coded: Coded, axis: int) -> Shape | None:
        """Return the shape of weights of ones that are alone along the axis of the outputs, 0, or of the inputs, -1."""
        shape = list(coded.codes.shape)
        shape[axis] = 1
        return tuple(shape)

    def _outputs(self, x: QTensor, step: Step) -> QTensor:
        made, left, count = self.accumulated(x, not step.training or self.quantizers["activation"].by_row)
        if self.bias is not None:
            left += self._add_bias(made.mantissa, made.exponent)
        self._left(left, count, "forward", step)
        if self.coding is not None:
            check_place(made, self.quantizers["activation"])
        return self.bring(made, "activation", step)

    def _leave_gradients(self, x: QTensor, dy: QTensor, step: Step) -> None:
        bits = self.recipe.alignment
        by_sample = dy.exponent.size > 1 or x.exponent.size > 1
        meeting = aligned(dy, bits, x.exponent.reshape(-1)) if by_sample else dy
        sums, left = self._backward_weights(x.mantissa, meeting.mantissa, **self._width)
        self._left(left, sums.size, "gradient", step)
        exponent = int(meeting.exponent.flat[0]) + (0 if by_sample else int(x.exponent.flat[0]))
        self.weight.gradient = QTensor.trusted(sums, exponent)
        if self.bias is not None:
            errors = aligned(dy, bits)
            totals, left = kernels.sum_axes(errors.mantissa, 0, errors.mantissa.ndim - 1)
            self._left(left, totals.size, "gradient", step)
            self.bias.gradient = QTensor.trusted(totals, int(errors.exponent.flat[0]))

    def _input_gradient(self, dy: QTensor, step: Step) -> QTensor:
        if self.coding is not None:
            coded = self.coding(self.weight)
            values, left, count, exponent = coded_sums(
                coded, lambda weights: self._backward_input(dy.mantissa, weights, **self._width), self._alone(coded, -1),
                dy.exponent.size > 1 or self.quantizers["error"].by_row, self.name,
            )  # fmt: skip
            self._left(left, count, "backward", step)
            made = as_accumulator(values, dy.exponent, exponent)
            check_place(made, self.quantizers["error"])
            return self.bring(made, "error", step)
        weights = aligned(self.used(), self.recipe.alignment)
        sums, left = self._backward_input(dy.mantissa, weights.mantissa, **self._width)
        self._left(left, sums.size, "backward", step)
        exponents = dy.exponent.reshape((-1,) + (1,) * (sums.ndim - 1)) + weights.exponent.flat[0]
        return self.bring(QTensor.trusted(sums, exponents), "error", step)

    def _add_bias(self, sums: Integers, exponent: NDArray[np.int64]) -> int:
        """Add the biases at the exponent of the sums; where that is greater than theirs, rounded to nearest, ties to even."""
        assert self.bias is not None
        bias, groups = self.bias.value, exponent.shape[0]
        outputs = sums.shape[sums.ndim - 1]
        rows = sums.size // outputs
        # sums with coded weights have left the accumulator: they are combined in 64 bits
        width = (self.recipe.accumulator_bits if self.coding is None else 64, self._saturates)
        if exponent.size == 1 and bias.exponent.size == 1:
            left_shift = int(bias.exponent.flat[0]) - int(exponent.flat[0])
            if 0 <= left_shift <= 62 - magnitude_bits(bias) and kernels.on_device(sums):
                moved = kernels.linear_combination([(bias.mantissa, 1, left_shift)], 1).reshape(1, outputs)
                return int(kernels.add_bias(sums.reshape(rows, outputs), moved, rows, *width))
            if 0 <= left_shift <= 62 - magnitude_bits(bias):  # exact
                moved = np.left_shift(bias.mantissa.astype(np.int64), left_shift).reshape(1, outputs)
                return int(kernels.add_bias(sums.reshape(rows, outputs), moved, rows, *width))
        have = np.broadcast_to(exponent.reshape(groups, -1), (groups, outputs))
        shifts = (have - bias.exponent.reshape(-1)).reshape(groups, outputs)
        values = np.ascontiguousarray(np.broadcast_to(kernels.to_host(bias.mantissa), (groups, outputs)))
        moved = kernels.requantize(
            values, shifts.reshape(groups, 1, outputs), Rounding.TIES_EVEN.code, Overflow.SATURATE.code, 63,
            layout=(groups, 1, 1, outputs),
        )  # fmt: skip
        of_group = rows // groups if groups > 1 else rows
        return int(kernels.add_bias(sums.reshape(rows, outputs), moved, of_group, *width))

    def seen(self) -> Seen:
        """Return how many sums left the accumulator since the last call, and count anew."""
        left, count = self._accumulator["left"], self._accumulator["count"]
        self._accumulator.update(left=0, count=0)
        saturated, wrapped = (left, 0) if self._saturates else (0, left)
        return Seen(self.name, "accumulator", self.recipe.accumulator_bits, None, None, None, saturated, wrapped, 0, count)

    def _left(self, left: int, count: int, where: str, step: Step) -> None:
        """Note, or refuse, sums that left the accumulator."""
        if left and self._fails:
            raise InputError(
                f"{self.name}: {left} of {count} sums ({where}) leave the accumulator of {self.recipe.accumulator_bits} bits; "
                "give it more bits, use shorter words, or let it saturate or wrap"
            )
        if step.training:
            self._accumulator["left"] += left
            self._accumulator["count"] += count


class Dense(Product):
    """A fully connected layer: ``y = x W^T + b``.

    Parameters
    ----------
    outputs : int
    bias : bool, optional
        By default as the recipe says.
    initial : str
        How weights are drawn: a name of :data:`intnet.layers.SCHEMES`.
    name : str, optional
        By default its kind and number.
    """

    kind: ClassVar[str] = "dense"
    joins_clamps: ClassVar[bool] = True
    settings: ClassVar[tuple[str, ...]] = ("outputs", "has_bias", "initial")

    def __init__(self, outputs: int, *, bias: bool | None = None, initial: str = "he_uniform", name: str | None = None) -> None:
        super().__init__(outputs, bias, initial, name)

    def build(self, shape: Shape, build: Build) -> Shape:
        """Make weights of shape (outputs, inputs)."""
        self.name = build.name
        if len(shape) != 1:
            raise self.refuse(shape, "vectors; put Flatten before it")
        self._make(build, (self.outputs, shape[0]), shape[0], self.outputs)
        self._products: dict[str, kernels.RoundedProduct] = {}
        return (self.outputs,)

    def forward_clamped(self, x: QTensor, step: Step) -> QTensor:
        """Return ``max(y, 0)`` of what `forward` returns."""
        x = self._rounded(x, step)
        y = self._at_once("activation", x, "forward", step, self._added, b_transposed=True, clamps=True)
        if y is None:
            y = self._outputs(x, step)
            self._x = x
            return QTensor.trusted(kernels.relu(y.mantissa), y.exponent, y.format)
        self._x = x
        return y

    def backward_clamped(self, dy: QTensor, step: Step) -> QTensor:
        """Return what `backward` returns where the inputs were positive, else 0."""
        return self._back(dy, step, True)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Leave the gradients with the parameters, and return that of the inputs (or `dy`, if it is not wanted)."""
        return self._back(dy, step, False)

    def _back(self, dy: QTensor, step: Step, clamped: bool) -> QTensor:
        dx = self._back_at_once(dy, step, clamped)
        if dx is not None:
            return dx
        dx = super().backward(dy, step)
        if clamped and self.gives_input_gradient:
            of_clamp = self._came if "inputs" in self.quantizers else self._x
            assert of_clamp is not None
            return QTensor.trusted(kernels.relu_backward(dx.mantissa, of_clamp.mantissa), dx.exponent, dx.format)
        return dx

    @property
    def _added(self) -> QTensor | None:
        return None if self.bias is None else self.bias.value

    def _outputs(self, x: QTensor, step: Step) -> QTensor:
        y = self._at_once("activation", x, "forward", step, self._added, b_transposed=True)
        return super()._outputs(x, step) if y is None else y

    def _input_gradient(self, dy: QTensor, step: Step) -> QTensor:
        dx = self._at_once("error", dy, "backward", step, None)
        return super()._input_gradient(dy, step) if dx is None else dx

    def _leave_gradients(self, x: QTensor, dy: QTensor, step: Step) -> None:
        made = None
        if dy.exponent.size == x.exponent.size == 1:
            bits, has_bias = self.recipe.accumulator_bits, self.bias is not None
            made = kernels.multiply_transposed(dy.mantissa, x.mantissa, bits, has_bias)
        if made is None:
            super()._leave_gradients(x, dy, step)
            return
        self._leave(*made, dy.exponent.item(), x.exponent.item(), step)

    def _leave(self, sums: Integers, totals: Integers, exponent: int, of_inputs: int, step: Step) -> None:
        """Leave exact gradients with the parameters."""
        self._left(0, sums.size + totals.size, "gradient", step)
        self.weight.gradient = QTensor.trusted(sums, exponent + of_inputs)
        if self.bias is not None:
            self.bias.gradient = QTensor.trusted(totals, exponent)

    def _back_at_once(self, dy: QTensor, step: Step, clamped: bool) -> QTensor | None:
        """Do the whole backward pass in one call; None if that is impossible, and then nothing is done."""
        x, weights, quantizer = self._x, self.weight.value, self.quantizers["error"]
        if clamped and "inputs" in self.quantizers:
            return None
        if x is None or not self.gives_input_gradient or not dy.exponent.size == x.exponent.size == weights.exponent.size == 1:
            return None
        product = self._product(quantizer, step)
        if product is None:
            return None
        have = dy.exponent.item()
        exponent = have + weights.exponent.item()
        made = product.backward(
            dy.mantissa, x.mantissa, weights.mantissa, quantizer.shifts(exponent), sum_columns=self.bias is not None,
            step=step.number, counters=quantizer.counters, selects=clamped,
        )  # fmt: skip
        if made is None or made.inputs is None:
            return None
        self._leave(made.weights, made.totals, have, x.exponent.item(), step)
        return self._noted(made.inputs, exponent, quantizer, "backward", step)

    def _at_once(self, role: str, a: QTensor, where: str, step: Step, added: QTensor | None, **options: Any) -> QTensor | None:
        """Multiply by the weights and round in one call; None if exponents differ, or something else is in the way."""
        b, quantizer = self.weight.value, self.quantizers[role]
        if not (a.exponent.size == b.exponent.size == 1 and (added is None or added.exponent.size == 1)):
            return None
        product = self._product(quantizer, step)
        if product is None:
            return None
        exponent = a.exponent.item() + b.exponent.item()
        bias_shift = 0 if added is None else added.exponent.item() - exponent
        if added is not None and bias_shift > 62 - magnitude_bits(added):
            return None
        made = product(
            a.mantissa, b.mantissa, quantizer.shifts(exponent), bias=None if added is None else added.mantissa,
            bias_shift=bias_shift, step=step.number, counters=quantizer.counters, **options,
        )  # fmt: skip
        return None if made is None else self._noted(made, exponent, quantizer, where, step)

    def _product(self, quantizer: Quantizer, step: Step) -> kernels.RoundedProduct | None:
        """Return how products are rounded by a quantizer in training, made once; None if not in one call."""
        if not step.training or quantizer.by_row or quantizer.fails or self._fails or self.coding is not None:
            return None
        to, product = quantizer.prepared(step.seed), self._products.get(quantizer.role_name)
        if product is None or product.to is not to:
            block_bits = quantizer.format.word_bits if isinstance(quantizer.format, BlockFloat) else 0
            product = kernels.RoundedProduct(to, **self._width, block_bits=block_bits)
            self._products[quantizer.role_name] = product
        return product

    def _noted(self, made: kernels.Rounded, exponent: int, quantizer: Quantizer, where: str, step: Step) -> QTensor:
        """Count a rounded product, and return it."""
        self._left(made.left, made.values.size, where, step)
        quantizer.note(made.values.size, exponent + made.shift)
        return QTensor.trusted(made.values, exponent + made.shift, quantizer.format)

    def _forward(self, x: Integers, weights: Integers, **options: Any) -> tuple[Integers, int]:
        return kernels.multiply(x, weights, b_transposed=True, **options)

    def _backward_input(self, dy: Integers, weights: Integers, **options: Any) -> tuple[Integers, int]:
        return kernels.multiply(dy, weights, **options)

    def _backward_weights(self, x: Integers, dy: Integers, **options: Any) -> tuple[Integers, int]:
        return kernels.multiply(dy, x, a_transposed=True, **options)


class Conv2D(Product):
    """A convolution of images with their channels last.

    Parameters
    ----------
    outputs : int
        Channels of the output.
    kernel, stride : int or (int, int)
        Down and to the right.
    padding : int, (int, int, int, int) or "same"
        Zeros around the image; four numbers are top, bottom, left, right. "same" keeps the size at stride 1.
    groups : int
    bias, initial, name : as in `Dense`
    """

    kind: ClassVar[str] = "conv"
    settings: ClassVar[tuple[str, ...]] = ("outputs", "kernel", "stride", "padding", "groups", "has_bias", "initial")

    def __init__(
        self,
        outputs: int,
        kernel: int | Pair = 3,
        *,
        stride: int | Pair = 1,
        padding: int | Padding | str = 0,
        groups: int = 1,
        bias: bool | None = None,
        initial: str = "he_normal",
        name: str | None = None,
    ) -> None:
        super().__init__(outputs, bias, initial, name)
        self.kernel, self.stride = as_pair("kernel", kernel), as_pair("stride", stride)
        self.padding = as_padding(padding, self.kernel)
        if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1 or outputs % groups:
            raise InputError(f"groups must be an integer that divides the {outputs} output channels, got {groups!r}")
        self.groups = int(groups)

    def build(self, shape: Shape, build: Build) -> Shape:
        """Make weights of shape (outputs, kernel height, kernel width, channels / groups)."""
        self.name = build.name
        if len(shape) != 3 or shape[2] % self.groups:
            raise self.refuse(shape, f"images (height, width, channels divisible by {self.groups} groups)")
        self.size = shape[:2]
        (kh, kw), (top, bottom, left, right) = self.kernel, self.padding
        height = kernels.output_size(shape[0], kh, self.stride[0], top, bottom)
        width = kernels.output_size(shape[1], kw, self.stride[1], left, right)
        if height < 1 or width < 1:
            raise self.refuse(shape, f"images of at least the kernel's {kh}x{kw} pixels, padding included")
        channels = shape[2] // self.groups
        fan_out = kh * kw * self.outputs // self.groups
        self._make(build, (self.outputs, kh, kw, channels), kh * kw * channels, fan_out)
        self._geometry: dict[str, Any] = {"stride": self.stride, "padding": self.padding, "groups": self.groups}
        return (height, width, self.outputs)

    def _alone(self, coded: Coded, axis: int) -> Shape | None:
        return super()._alone(coded, axis) if self.groups == 1 else None

    def _forward(self, x: Integers, weights: Integers, **options: Any) -> tuple[Integers, int]:
        return kernels.conv2d(x, weights, **self._geometry, **options)

    def _backward_input(self, dy: Integers, weights: Integers, **options: Any) -> tuple[Integers, int]:
        return kernels.conv2d_backward_input(dy, weights, self.size, **self._geometry, **options)

    def _backward_weights(self, x: Integers, dy: Integers, **options: Any) -> tuple[Integers, int]:
        return kernels.conv2d_backward_weights(x, dy, self.kernel, **self._geometry, **options)


class BinaryConv2D(Conv2D):
    """A convolution with the signs of its weights, -1 and +1 (of 0 +1), which are trained as they are: straight through.

    The gradient of the signs is taken for that of the weights (Courbariaux et al. 2016; XNOR-Net: Rastegari et al. 2016, but
    without its factors, which a batch normalization after it takes away again).

    Parameters
    ----------
    As of `Conv2D`.
    """

    kind: ClassVar[str] = "binary_conv"

    def used(self) -> QTensor:
        """Return the signs."""
        return QTensor.trusted(kernels.sign(self.weight.value.mantissa, 1), 0, Fixed(2, 0))


def as_pair(name: str, value: Any) -> Pair:
    """Return (int, int), both at least 1, from one or two numbers."""
    pair = _numbers(value, 2)
    if len(pair) != 2 or min(pair) < 1:
        raise InputError(f"{name} must be one or two integers of at least 1, got {value!r}")
    return pair[0], pair[1]


def as_padding(value: Any, kernel: Pair) -> Padding:
    """Return top, bottom, left and right from one number, four, or "same"."""
    if isinstance(value, str) and value == "same":
        (kh, kw) = kernel
        return (kh - 1) // 2, kh // 2, (kw - 1) // 2, kw // 2
    four = _numbers(value, 4)
    if len(four) != 4 or min(four) < 0:
        raise InputError(f"padding must be 'same', one or four integers of at least 0, got {value!r}")
    return four[0], four[1], four[2], four[3]


def _numbers(value: Any, count: int) -> tuple[int, ...]:
    """Return an integer so many times, or the integers of a sequence; nothing if there are others in it."""
    every = tuple(value) if isinstance(value, Iterable) else (value,) * count
    if any(isinstance(one, (bool, np.bool_)) or not isinstance(one, (int, np.integer)) for one in every):
        return ()
    return tuple(int(one) for one in every)
