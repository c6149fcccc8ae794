"""Layers that move numbers: flatten, pooling, dropout."""

from math import prod
from typing import ClassVar

import numpy as np

from intnet import kernels
from intnet.errors import InputError
from intnet.kernels.convolution import Padding, Pair
from intnet.layers._base import Build, Layer, Shape, Step
from intnet.layers.product import as_padding, as_pair
from intnet.tensor import QTensor


class Flatten(Layer):
    """Images to vectors, in C order: row, column, channel."""

    kind: ClassVar[str] = "flatten"

    def build(self, shape: Shape, build: Build) -> Shape:
        """Note the shape."""
        self.begin(build)
        self.shape = shape
        return (prod(shape),)

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Make a vector of every sample."""
        n = x.mantissa.shape[0]
        return QTensor.trusted(x.mantissa.reshape(n, -1), x.exponent.reshape(-1, 1), x.format)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Make images again."""
        return QTensor.trusted(
            dy.mantissa.reshape(-1, *self.shape), dy.exponent.reshape((-1,) + (1,) * len(self.shape)), dy.format
        )


class _Pool(Layer):
    """Windows over images."""

    settings: ClassVar[tuple[str, ...]] = ("window", "stride", "padding")

    def __init__(
        self, window: int | Pair = 2, *, stride: int | Pair | None = None, padding: int | Padding = 0, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.window = as_pair("window", window)
        self.stride = self.window if stride is None else as_pair("stride", stride)
        self.padding = as_padding(padding, self.window)
        top, bottom, left, right = self.padding
        if max(top, bottom) >= self.window[0] or max(left, right) >= self.window[1]:
            raise InputError(f"padding of a pool must be smaller than its window {self.window}, got {self.padding}")

    def _pooled(self, shape: Shape) -> Shape:
        if len(shape) != 3:
            raise self.refuse(shape, "images (height, width, channels)")
        self.size = (shape[0], shape[1])
        top, bottom, left, right = self.padding
        height = kernels.output_size(shape[0], self.window[0], self.stride[0], top, bottom)
        width = kernels.output_size(shape[1], self.window[1], self.stride[1], left, right)
        if height < 1 or width < 1:
            raise self.refuse(shape, f"images of at least {self.window} pixels")
        return (height, width, shape[2])


class MaxPool2D(_Pool):
    """The largest value of every window; the error goes to the first of the largest.

    Parameters
    ----------
    window, stride : int or (int, int)
        By default the stride is the window.
    padding : int or (int, int, int, int)
        Top, bottom, left, right; values there are never the largest.
    name : str, optional
    """

    kind: ClassVar[str] = "max_pool"

    def build(self, shape: Shape, build: Build) -> Shape:
        """Note the geometry."""
        self.name = build.name
        pooled = self._pooled(shape)
        overlaps = self.stride[0] < self.window[0] or self.stride[1] < self.window[1]
        self.begin(build, *(["error"] if overlaps else []))  # errors of windows that overlap are added, and rounded
        return pooled

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Take the largest values; exponents stay."""
        largest, places = kernels.max_pool(x.mantissa, self.window, stride=self.stride, padding=self.padding)
        if step.training:
            self._places = places
        return QTensor.trusted(largest, x.exponent, x.format)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Send errors to where the largest values were."""
        sums, _ = kernels.max_pool_backward(dy.mantissa, self._places, self.size, self.window, stride=self.stride)
        if "error" not in self.quantizers:
            return QTensor.trusted(sums, dy.exponent, dy.format)
        return self.bring(QTensor.trusted(sums, dy.exponent), "error", step)


class AvgPool2D(_Pool):
    """The mean of every window, zeros of the padding included.

    Parameters are those of `MaxPool2D`. Where a window has no power of two of pixels, the sum is multiplied by the nearest
    fraction with 16 bits to its inverse: relative error below ``2**-16``.
    """

    kind: ClassVar[str] = "avg_pool"

    def build(self, shape: Shape, build: Build) -> Shape:
        """Note the geometry."""
        self.begin(build, "activation", "error")
        return self._pooled(shape)

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Average; round once."""
        sums, left = kernels.sum_pool(x.mantissa, self.window, stride=self.stride, padding=self.padding)
        self._check(left)
        return self.bring(_divided(QTensor.trusted(sums, x.exponent), prod(self.window)), "activation", step)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Give every pixel of a window its share."""
        sums, left = kernels.sum_pool_backward(dy.mantissa, self.size, self.window, stride=self.stride, padding=self.padding)
        self._check(left)
        return self.bring(_divided(QTensor.trusted(sums, dy.exponent), prod(self.window)), "error", step)

    def _check(self, left: int) -> None:
        if left:
            raise InputError(f"{self.name}: {left} sums leave 64 bits; use shorter words or smaller windows")


class GlobalAvgPool(Layer):
    """The mean of every channel of an image; division as in `AvgPool2D`."""

    kind: ClassVar[str] = "global_avg_pool"

    def build(self, shape: Shape, build: Build) -> Shape:
        """Note the geometry."""
        self.begin(build, "activation", "error")
        if len(shape) != 3:
            raise self.refuse(shape, "images (height, width, channels)")
        self.shape = shape
        return (shape[2],)

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Average; round once."""
        n, height, width, channels = x.mantissa.shape
        sums, left = kernels.sum_axes(x.mantissa.reshape(n, height * width, channels), 1, 2)
        if left:
            raise InputError(f"{self.name}: {left} sums leave 64 bits; use shorter words or smaller images")
        total = QTensor.trusted(sums, x.exponent.reshape(-1, 1))
        return self.bring(_divided(total, height * width), "activation", step)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Give every pixel its share, rounded before it is spread."""
        height, width, _ = self.shape
        share = self.bring(_divided(dy, height * width), "error", step)
        spread = kernels.spread(share.mantissa, (height, width))
        return QTensor.trusted(spread, share.exponent.reshape(-1, 1, 1, 1), share.format)


def _divided(sums: QTensor, count: int) -> QTensor:
    """Divide by a count: through the exponent if it is a power of two, else by a 16-bit fraction."""
    power = count.bit_length() - 1
    if count == 1 << power:
        return QTensor.trusted(sums.mantissa, sums.exponent - power)
    shift = 16 + power
    inverse = ((1 << shift) + count // 2) // count  # 2**15 < inverse <= 2**16
    zero = np.zeros(1, np.int64)
    product = kernels.linear_combination([(sums.mantissa, inverse, zero)], 1)
    return QTensor.trusted(product.reshape(sums.mantissa.shape), sums.exponent - shift)


class Dropout(Layer):
    """In training, zeros in place of a share of the values, the others scaled up; in evaluation nothing.

    Which values stay depends on (seed, stream, step, element) alone.

    Parameters
    ----------
    rate : float
        The share that is dropped, 0 <= rate < 1, in steps of 2**-16; 1/2 needs no multiplication.
    name : str, optional
    """

    kind: ClassVar[str] = "dropout"
    settings: ClassVar[tuple[str, ...]] = ("keep",)

    def __init__(self, rate: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise InputError(f"the rate of dropout must be at least 0 and less than 1, got {rate!r}")
        self.keep = max(1, round((1 - rate) * 2**16))

    def build(self, shape: Shape, build: Build) -> Shape:
        """Take a stream of random bits."""
        self.begin(build, "activation", "error")
        self.stream = next(build.streams)
        return shape

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Drop values."""
        return self._drop(x, "activation", step) if step.training else x

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Drop the same."""
        return self._drop(dy, "error", step)

    def _drop(self, x: QTensor, role: str, step: Step) -> QTensor:
        if self.keep == 2**16:
            return x
        kept = kernels.dropout(x.mantissa, self.keep, step.seed, self.stream, step.number)
        power = self.keep.bit_length() - 1
        if self.keep == 1 << power:
            return self.bring(QTensor.trusted(kept, x.exponent + (16 - power)), role, step)
        scale = (2**31 + self.keep // 2) // self.keep  # 2**16 / keep with 15 fraction bits
        zero = np.zeros(1, np.int64)
        product = kernels.linear_combination([(kept, scale, zero)], 1).reshape(kept.shape)
        return self.bring(QTensor.trusted(product, x.exponent - 15), role, step)
