"""Activations. Those that only select or clamp keep a tensor's format; those with a product or a table round once."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from intnet import kernels
from intnet.arithmetic import TIES_EVEN
from intnet.errors import InputError
from intnet.formats import BlockFloat, Fixed, Overflow, Rounding
from intnet.layers._base import Build, Layer, Quantizer, Shape, Step, aligned
from intnet.recipe import Role
from intnet.tensor import QTensor, quantize
from intnet.tensor.qtensor import Integers


class ReLU(Layer):
    """``max(x, 0)``; the derivative at 0 is 0."""

    kind: ClassVar[str] = "relu"
    clamps: ClassVar[bool] = True

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

    def keep_outputs(self, y: QTensor) -> None:
        """Keep the outputs for the backward pass."""
        self._y = y.mantissa

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Pass errors where the output was positive."""
        return QTensor.trusted(kernels.relu_backward(dy.mantissa, self._y), dy.exponent, dy.format)


class LeakyReLU(Layer):
    """``x`` where it is not negative, else ``x / 2**shift``, to nearest, ties to even; nothing leaves its word.

    Parameters
    ----------
    shift : int, 1..62
        The slope is ``2**-shift``: 1/4 by default, as in NITRO-D.
    name : str, optional
    """

    kind: ClassVar[str] = "leaky_relu"
    settings: ClassVar[tuple[str, ...]] = ("shift",)

    def __init__(self, shift: int = 2, name: str | None = None) -> None:
        super().__init__(name)
        if isinstance(shift, bool) or not isinstance(shift, (int, np.integer)) or not 1 <= shift <= 62:
            raise InputError(f"the shift of a leaky ReLU must be in 1..62, got {shift!r}")
        self.shift = int(shift)

    def build(self, shape: Shape, build: Build) -> Shape:
        """Take any shape."""
        self.begin(build)
        for role in ("activation", "error"):  # they only count
            self.quantizers[role] = Quantizer(self.name, role, getattr(self.recipe, role), 0)
        return shape

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Shift what is negative."""
        y = kernels.leaky_relu(x.mantissa, self.shift, TIES_EVEN)
        if step.training:
            self._x = x.mantissa
            self._count("activation", x, y)
        return QTensor.trusted(y, x.exponent, x.format)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Shift the errors of what was negative."""
        moved = kernels.leaky_relu_backward(dy.mantissa, self._x, self.shift, TIES_EVEN)
        if step.training:
            self._count("error", dy, moved)
        return QTensor.trusted(moved, dy.exponent, dy.format)

    def _count(self, role: str, before: QTensor, after: Integers) -> None:
        lost = kernels.count_filled(before.mantissa) - kernels.count_filled(after)
        self.quantizers[role].saw(after, int(before.exponent.max()), lost=lost)


def _one(exponent: int) -> int:
    """Return 1 in units of an exponent, also where no mantissa reaches it; 0 where the unit is above 1."""
    return 0 if exponent > 0 else 1 << min(-exponent, 61)


def _narrow(x: QTensor) -> QTensor:
    """Bring words of more than 32 bits to 32, to nearest, ties to even."""
    if x.mantissa.dtype.itemsize <= 4:
        return x
    drop = (64 if x.format is None else x.format.word_bits) - 32
    mantissa = kernels.requantize(x.mantissa, drop, Rounding.TIES_EVEN.code, Overflow.SATURATE.code, 32)
    return QTensor.trusted(mantissa, x.exponent + drop)


def _limits(exponents: np.ndarray) -> Iterator[tuple[Any, int]]:
    """Yield which samples have an exponent, and 1 in its units; in units above 1, where all but 0 is beyond, 1 unit."""
    exponents = exponents.reshape(-1)
    for exponent in np.unique(exponents).tolist():
        yield np.flatnonzero(exponents == exponent), max(1, _one(exponent))


class HardTanh(Layer):
    """``min(max(x, -1), 1)``; the derivative is 1 strictly between, else 0. Exact, every sample in its own exponent."""

    kind: ClassVar[str] = "hard_tanh"

    def build(self, shape: Shape, build: Build) -> Shape:
        """Take any shape."""
        self.begin(build, "error")
        return shape

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Clamp."""
        if step.training:
            self._x = x
        if x.exponent.size == 1:
            y = kernels.hard_tanh(x.mantissa, max(1, _one(x.exponent.item())))
        else:
            values = kernels.to_host(x.mantissa)
            y = np.empty_like(values)
            for chosen, limit in _limits(x.exponent):
                y[chosen] = kernels.hard_tanh(values[chosen], limit)
            y = kernels.move_beside(y, x.mantissa)
        keeps = isinstance(x.format, BlockFloat) or not x.exponent.max() > 0
        return QTensor.trusted(y, np.minimum(x.exponent, 0), x.format if keeps else None)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Pass errors where nothing was clamped."""
        x = self._x
        if x.exponent.size == 1:
            dx = kernels.hard_tanh_backward(dy.mantissa, x.mantissa, max(1, _one(x.exponent.item())))
        else:
            errors, values = kernels.to_host(dy.mantissa), kernels.to_host(x.mantissa)
            dx = np.empty_like(errors)
            for chosen, limit in _limits(x.exponent):
                dx[chosen] = kernels.hard_tanh_backward(errors[chosen], values[chosen], limit)
            dx = kernels.move_beside(dx, dy.mantissa)
        return QTensor.trusted(dx, dy.exponent, dy.format)


class Sign(Layer):
    """-1 where x is negative, else +1; its derivative, zero nearly everywhere, is replaced by a straight-through window.

    Parameters
    ----------
    window : {"clip", "identity", "polynomial"}
        What stands for the derivative: 1 where ``abs(x) <= 1`` (Hubara et al. 2016), 1 everywhere, or ``2 - 2 abs(x)`` where
        that is positive (Bi-Real Net: Liu et al. 2018; `x` rounded to 30 fraction bits where it has more). Samples with
        exponents of their own are brought to one for the window, in 62 bits: exactly, unless they are further apart.
    name : str, optional
    """

    kind: ClassVar[str] = "sign"
    settings: ClassVar[tuple[str, ...]] = ("window",)
    WINDOWS: ClassVar[tuple[str, ...]] = ("identity", "clip", "polynomial")  # by the codes of kernels.sign_backward

    def __init__(self, window: str = "clip", name: str | None = None) -> None:
        super().__init__(name)
        if window not in self.WINDOWS:
            raise InputError(f"a straight-through window is one of {', '.join(self.WINDOWS)}, got {window!r}")
        self.window = window

    def build(self, shape: Shape, build: Build) -> Shape:
        """Take any shape."""
        self.begin(build, "error")
        return shape

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Take signs, whatever the exponents."""
        if step.training:
            self._x = aligned(x, 62)
        return QTensor.trusted(kernels.sign(x.mantissa, 1), 0, Fixed(2, 0))

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Pass errors through the window."""
        x, code = self._x, self.WINDOWS.index(self.window)
        if self.window != "polynomial":
            return QTensor.trusted(
                kernels.sign_backward(dy.mantissa, x.mantissa, code, _one(x.exponent.item())), dy.exponent, dy.format
            )
        dy, fraction = _narrow(dy), max(-int(x.exponent.flat[0]), 0)
        if fraction > 30:  # so that 2**31 * 2 * 2**30 holds the products
            mantissa = kernels.requantize(x.mantissa, fraction - 30, TIES_EVEN, Overflow.SATURATE.code, 32)
            x, fraction = QTensor.trusted(mantissa, -30), 30
        back = kernels.sign_backward(dy.mantissa, x.mantissa, code, 1 << fraction)
        return self.bring(QTensor.trusted(back, dy.exponent - fraction), "error", step)


class _LookUp(Layer):
    """A smooth function by a table of up to 65,536 values.

    The argument is the activation's own fixed-point word where that has at most 16 bits; the result is then the nearest number
    of the format. Else the argument is rounded to nearest to `fine`, or, for blocks of words of up to 8 bits, to `coarse`, and
    saturates there. The result has the word's length, at most 16 bits, and for block formats a range of +-1.
    """

    fine: ClassVar[Fixed]
    coarse: ClassVar[Fixed] = Fixed(12, 8)

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.table = np.zeros(0, np.int16)

    def build(self, shape: Shape, build: Build) -> Shape:
        """Make the table."""
        self.begin(build, "error")
        form = self.recipe.activation.format
        bits = min(form.word_bits, 16)
        if isinstance(form, Fixed) and form.word_bits <= 16:
            self.argument = form
        else:
            self.argument = self.coarse if form.word_bits <= 8 else self.fine
        self.result = Fixed(bits, min(form.fraction_bits, 15) if isinstance(form, Fixed) else bits - 1)
        codes = np.arange(self.argument.minimum, self.argument.maximum + 1)
        real = self.function(codes * self.argument.resolution)
        self.table = quantize(real, self.result).mantissa
        self.table.flags.writeable = False  # a GPU keeps a copy
        self._odd = bool(real[-self.argument.minimum] == 0)
        self.quantizers["activation"] = Quantizer(self.name, "activation", Role(self.result), 0)  # only counts
        return shape

    @staticmethod
    def function(x: np.ndarray) -> np.ndarray:
        """Return the real function."""
        raise NotImplementedError

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Look up."""
        counters = kernels.move_beside(kernels.new_counters(), x.mantissa) if step.training else None
        if not isinstance(x.format, Fixed) or x.format != self.argument:
            rows = x.mantissa.shape[0] if x.exponent.size > 1 else 1
            shifts = (-self.argument.fraction_bits - x.exponent).reshape(-1, 1, 1)
            mantissa = kernels.requantize(
                x.mantissa, shifts, Rounding.TIES_EVEN.code, Overflow.SATURATE.code, self.argument.word_bits,
                layout=(rows, 1, x.mantissa.size // max(1, rows), 1), counters=counters,
            )  # fmt: skip
        else:
            mantissa = x.mantissa
        y = kernels.look_up(mantissa, self.table, self.argument.minimum)
        if counters is not None:
            self._y = y
            saturated = int(kernels.to_host(counters)[kernels.COUNT_SATURATED])
            lost = (kernels.count_filled(x.mantissa) if self._odd else y.size) - kernels.count_filled(y)
            self.quantizers["activation"].saw(y, -self.result.fraction_bits, lost=lost, saturated=saturated)
        return QTensor.trusted(y, -self.result.fraction_bits, self.result)

    def _slope(self, dy: QTensor, step: Step, kernel: object) -> QTensor:
        fraction = self.result.fraction_bits
        dy = _narrow(dy)
        product = kernel(dy.mantissa, self._y, 1 << max(fraction, 0))  # type: ignore[operator]
        return self.bring(QTensor.trusted(product, dy.exponent - 2 * max(fraction, 0)), "error", step)


class Sigmoid(_LookUp):
    """The logistic function ``1 / (1 + exp(-x))``, by a table; backward ``dy * y (1 - y)``.

    Results are within half a unit of their word (one unit next to 1, where the word does not hold 1) of the real function, for
    words of at most 16 bits in fixed point. For longer words and for blocks, add ``2**-14`` for the rounding of the argument to
    11 fraction bits in +-16; for blocks of words of up to 8 bits ``2**-11``, and ``2**-11`` beyond +-8.
    """

    kind: ClassVar[str] = "sigmoid"
    fine: ClassVar[Fixed] = Fixed(16, 11)  # the slope is at most 1/4, and 1 / (1 + exp(8)) is not yet small

    @staticmethod
    def function(x: np.ndarray) -> np.ndarray:
        """Return the logistic function."""
        with np.errstate(over="ignore"):  # then it is 0
            return 1 / (1 + np.exp(-x))

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Multiply by the slope, from the output."""
        return self._slope(dy, step, kernels.logistic_backward)


class Tanh(_LookUp):
    """The hyperbolic tangent, by a table; backward ``dy (1 - y**2)``.

    Results are within half a unit of their word (one unit next to +-1, where the word does not hold it) of the real function,
    for words of at most 16 bits in fixed point. For longer words and for blocks, add ``2**-13`` for the rounding of the
    argument to 12 fraction bits in +-8; for blocks of words of up to 8 bits ``2**-9``.
    """

    kind: ClassVar[str] = "tanh"
    fine: ClassVar[Fixed] = Fixed(16, 12)

    @staticmethod
    def function(x: np.ndarray) -> np.ndarray:
        """Return tanh."""
        return np.tanh(x)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Multiply by the slope, from the output."""
        return self._slope(dy, step, kernels.tanh_backward)
