"""Activations. Those that only select or clamp keep a tensor's format; those with a product or a table round once."""

from typing import ClassVar

import numpy as np

from intnet import kernels
from intnet.arithmetic import TIES_EVEN
from intnet.errors import InputError
from intnet.formats import BlockFloat, Fixed, Overflow, Rounding
from intnet.layers._base import Build, Layer, Shape, Step, aligned, magnitude_bits
from intnet.tensor import QTensor, quantize


class ReLU(Layer):
    """``max(x, 0)``; the derivative at 0 is 0."""

    kind: ClassVar[str] = "relu"

    def build(self, shape: Shape, build: Build) -> Shape:
        """Take any shape."""
        self.begin(build)
        return shape

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Set what is negative to 0."""
        y = kernels.relu(x.mantissa)
        if step.training:
            self._y = y
        return QTensor.trusted(y, x.exponent, x.format)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Pass errors where the output was positive."""
        return QTensor.trusted(kernels.relu_backward(dy.mantissa, self._y), dy.exponent, dy.format)


class LeakyReLU(Layer):
    """``x`` where it is not negative, else ``x / 2**shift``, to nearest, ties to even.

    Parameters
    ----------
    shift : int, 1..62
        The slope is ``2**-shift``: 1/4 by default, as in NITRO-D.
    name : str, optional
    """

    kind: ClassVar[str] = "leaky_relu"

    def __init__(self, shift: int = 2, name: str | None = None) -> None:
        super().__init__(name)
        if isinstance(shift, bool) or not isinstance(shift, (int, np.integer)) or not 1 <= shift <= 62:
            raise InputError(f"the shift of a leaky ReLU must be in 1..62, got {shift!r}")
        self.shift = int(shift)

    def build(self, shape: Shape, build: Build) -> Shape:
        """Take any shape."""
        self.begin(build)
        return shape

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Shift what is negative."""
        if step.training:
            self._x = x.mantissa
        return QTensor.trusted(kernels.leaky_relu(x.mantissa, self.shift, TIES_EVEN), x.exponent, x.format)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Shift the errors of what was negative."""
        moved = kernels.leaky_relu_backward(dy.mantissa, self._x, self.shift, TIES_EVEN)
        return QTensor.trusted(moved, dy.exponent, dy.format)


class _Clamped(Layer):
    """What compares its argument with 1."""

    def build(self, shape: Shape, build: Build) -> Shape:
        """Take any shape."""
        self.begin(build, "error")
        return shape

    def _aligned(self, x: QTensor) -> QTensor:
        return aligned(x, 62)  # exactly, wherever that is possible: in evaluation samples must not touch one another


def _one(x: QTensor) -> int:
    """Return 1 in units of a tensor with one exponent, also where no mantissa reaches it; 0 where its unit is above 1."""
    exponent = int(x.exponent.flat[0])
    return 0 if exponent > 0 else 1 << min(-exponent, 61)


def _narrow(x: QTensor) -> QTensor:
    """Bring words of more than 32 bits to 32, to nearest, ties to even."""
    if x.mantissa.dtype.itemsize <= 4:
        return x
    drop = (64 if x.format is None else x.format.word_bits) - 32
    mantissa = kernels.requantize(x.mantissa, drop, Rounding.TIES_EVEN.code, Overflow.SATURATE.code, 32)
    return QTensor.trusted(mantissa, x.exponent + drop)


class HardTanh(_Clamped):
    """``min(max(x, -1), 1)``; the derivative is 1 strictly between, else 0."""

    kind: ClassVar[str] = "hard_tanh"

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Clamp."""
        one_exponent = self._aligned(x)
        limit = max(1, _one(one_exponent))  # in units above 1, all but 0 is beyond
        if step.training:
            self._x, self._limit = one_exponent.mantissa, limit
        y, exponent = kernels.hard_tanh(one_exponent.mantissa, limit), np.minimum(x.exponent, 0)
        if x.exponent.size > 1:  # back to the samples' own exponents, in which what is clamped fits
            shifts = exponent - np.minimum(one_exponent.exponent, 0)
            y = kernels.requantize(
                y, shifts.reshape(-1, 1, 1), TIES_EVEN, Overflow.SATURATE.code, magnitude_bits(x) + 1,
                layout=(len(y), 1, y.size // len(y), 1),
            )  # fmt: skip
        return QTensor.trusted(y, exponent, x.format if isinstance(x.format, BlockFloat) or not x.exponent.max() > 0 else None)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Pass errors where nothing was clamped."""
        return QTensor.trusted(kernels.hard_tanh_backward(dy.mantissa, self._x, self._limit), dy.exponent, dy.format)


class Sign(_Clamped):
    """-1 where x is negative, else +1; its derivative, zero nearly everywhere, is replaced by a straight-through window.

    Parameters
    ----------
    window : {"clip", "identity", "polynomial"}
        What stands for the derivative: 1 where ``abs(x) <= 1`` (Hubara et al. 2016), 1 everywhere, or ``2 - 2 abs(x)`` where
        that is positive (Bi-Real Net: Liu et al. 2018; `x` rounded to 30 fraction bits where it has more).
    name : str, optional
    """

    kind: ClassVar[str] = "sign"
    WINDOWS: ClassVar[tuple[str, ...]] = ("identity", "clip", "polynomial")  # by the codes of kernels.sign_backward

    def __init__(self, window: str = "clip", name: str | None = None) -> None:
        super().__init__(name)
        if window not in self.WINDOWS:
            raise InputError(f"a straight-through window is one of {', '.join(self.WINDOWS)}, got {window!r}")
        self.window = window

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Take signs."""
        x = self._aligned(x)
        if step.training:
            self._x = x
        return QTensor.trusted(kernels.sign(x.mantissa, 1), 0, Fixed(2, 0))

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Pass errors through the window."""
        x, code = self._x, self.WINDOWS.index(self.window)
        if self.window != "polynomial":
            return QTensor.trusted(kernels.sign_backward(dy.mantissa, x.mantissa, code, _one(x)), dy.exponent, dy.format)
        dy, fraction = _narrow(dy), max(-int(x.exponent.flat[0]), 0)
        if fraction > 30:  # so that 2**31 * 2 * 2**30 holds the products
            mantissa = kernels.requantize(x.mantissa, fraction - 30, TIES_EVEN, Overflow.SATURATE.code, 32)
            x, fraction = QTensor.trusted(mantissa, -30), 30
        back = kernels.sign_backward(dy.mantissa, x.mantissa, code, 1 << fraction)
        return self.bring(QTensor.trusted(back, dy.exponent - fraction), "error", step)


class _LookUp(Layer):
    """A smooth function by a table of up to 4,096 values.

    The argument is rounded to nearest to 12 bits, 8 of them fraction (a range of +-8), or to the activation's own fixed-point
    word where that has no more; the result is the nearest number of the output's format. For block formats that is a word of
    the same length whose range is +-1.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.table = np.zeros(0, np.int16)

    def build(self, shape: Shape, build: Build) -> Shape:
        """Make the table."""
        self.begin(build, "error")
        form = self.recipe.activation.format
        bits = min(form.word_bits, 16)
        self.argument = form if isinstance(form, Fixed) and form.word_bits <= 12 else Fixed(12, 8)
        self.result = Fixed(bits, min(form.fraction_bits, 15) if isinstance(form, Fixed) else bits - 1)
        codes = np.arange(self.argument.minimum, self.argument.maximum + 1)
        self.table = quantize(self.function(codes * self.argument.resolution), self.result).mantissa
        return shape

    @staticmethod
    def function(x: np.ndarray) -> np.ndarray:
        """Return the real function."""
        raise NotImplementedError

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Look up."""
        if not isinstance(x.format, Fixed) or x.format != self.argument:
            rows = x.mantissa.shape[0] if x.exponent.size > 1 else 1
            shifts = (-self.argument.fraction_bits - x.exponent).reshape(-1, 1, 1)
            mantissa = kernels.requantize(
                x.mantissa, shifts, Rounding.TIES_EVEN.code, Overflow.SATURATE.code, self.argument.word_bits,
                layout=(rows, 1, x.mantissa.size // rows, 1),
            )  # fmt: skip
        else:
            mantissa = x.mantissa
        y = kernels.look_up(mantissa, self.table, self.argument.minimum)
        if step.training:
            self._y = y
        return QTensor.trusted(y, -self.result.fraction_bits, self.result)

    def _slope(self, dy: QTensor, step: Step, kernel: object) -> QTensor:
        fraction = self.result.fraction_bits
        dy = _narrow(dy)
        product = kernel(dy.mantissa, self._y, 1 << max(fraction, 0))  # type: ignore[operator]
        return self.bring(QTensor.trusted(product, dy.exponent - 2 * max(fraction, 0)), "error", step)


class Sigmoid(_LookUp):
    """The logistic function ``1 / (1 + exp(-x))``, by a table; backward ``dy * y (1 - y)``."""

    kind: ClassVar[str] = "sigmoid"

    @staticmethod
    def function(x: np.ndarray) -> np.ndarray:
        """Return the logistic function."""
        return 1 / (1 + np.exp(-x))

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Multiply by the slope, from the output."""
        return self._slope(dy, step, kernels.logistic_backward)


class Tanh(_LookUp):
    """The hyperbolic tangent, by a table; backward ``dy (1 - y**2)``."""

    kind: ClassVar[str] = "tanh"

    @staticmethod
    def function(x: np.ndarray) -> np.ndarray:
        """Return tanh."""
        return np.tanh(x)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Multiply by the slope, from the output."""
        return self._slope(dy, step, kernels.tanh_backward)
