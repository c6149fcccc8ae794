"""Integer operations: what a network's inference is made of, for every exporter, and what defines its bits.

A tensor is an array of integers, channels last, that count in units of ``2**exponent``; all exponents are known beforehand, so
nothing but integers moves. Every operation takes tensors to one tensor, a sample at a time:

`Dense`          ``sums[o] = sum over i of weights[o, i] * x[i]``
`Conv2D`         ``sums[y, x, o] = sum of weights[o, i, j, c] * input[y * down + i - top, x * right + j - left, first + c]``,
                 zeros outside the image; strides are (down, right); with g groups, output o reads channels from
                 ``first = (o // (outputs / g)) * (inputs / g)`` on
`Scale`          ``factors[c] * x[..., c] + offsets[c]``: batch normalization; x first goes through `before`, if there is one
`Add`            ``a * 2**shifts[0] + b * 2**shifts[1]``
`AveragePool`    ``factor * sum over the window``, zeros outside the image
`MaxPool`        the largest of the window, what lies outside the image left out
`ReLU`           ``max(x, 0)``
`LeakyReLU`      x, or where it is negative ``x / 2**shift`` to nearest, ties to even
`Clamp`          ``min(max(x, low), high)``
`Sign`           -1 where x is negative, else +1
`Table`          ``table[min(max(x - first, 0), len(table) - 1)]``; x first goes through `before`, if there is one
`Flatten`        the same integers as a vector: row, column, channel

`Dense`, `Conv2D`, `Scale`, `Add` and `AveragePool` end in `to`, a `Requantize`, which rounds what they sum up exactly. The
first two come to it by way of an `Accumulator`: the exact sum of all products (no part of it) is brought into its word; the
bias, which counts in the sums' units already, is added; the exact result is brought into the word again. In every other
operation nothing leaves int64: that is checked when a program is made. Dropout is nothing, and stochastic rounding is
rounding to nearest, ties to even: this is evaluation.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from intnet.formats import Fixed, Overflow, Rounding

Int64s = NDArray[np.int64]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Requantize:
    """Division by ``2**shift`` with rounding, then the word.

    For a shift that is not negative: ``round(value / 2**shift)`` by the mode, whose result then wraps (modulo ``2**word_bits``,
    two's complement) or saturates (``saturate_symmetric``: at minus the upper limit) or is an error, if it leaves the word.
    For a negative one: ``value * 2**-shift``, into the word likewise. `jam` sets the lowest bit after the shift, also of
    shift 0, and of a left shift. The modes are those of :class:`intnet.formats.Rounding`, without ``stochastic``.
    """

    shift: int
    rounding: Rounding
    overflow: Overflow
    word_bits: int

    @property
    def limits(self) -> Pair:
        """The least and the greatest result."""
        return Fixed(self.word_bits, 0).limits(self.overflow)

    def __str__(self) -> str:
        by = f"/ 2**{self.shift}" if self.shift >= 0 else f"* 2**{-self.shift}"
        return f"{by} {self.rounding.value} into {self.word_bits} bits, {self.overflow.value}"


@dataclass(frozen=True)
class Accumulator:
    """The word of sums of products: two's complement of `bits`; beyond it a sum wraps, saturates or is an error."""

    bits: int
    overflow: Overflow


@dataclass(frozen=True)
class Tensor:
    """Integers between two operations.

    Attributes
    ----------
    name : str
        ``"input"``, or the layer's that writes it.
    shape : tuple of int
        Of one sample.
    exponent : int
        They count in units of ``2**exponent``.
    word_bits : int
        Of the two's complement word that holds them.
    low, high : int
        They are within, whatever the inputs are; proven from the weights and the words.
    """

    name: str
    shape: tuple[int, ...]
    exponent: int
    word_bits: int
    low: int
    high: int

    @property
    def size(self) -> int:
        """How many integers."""
        return prod(self.shape)

    @property
    def storage(self) -> np.dtype[np.signedinteger]:
        """The narrowest signed type that holds the word."""
        return Fixed(self.word_bits, 0).storage


@dataclass(frozen=True, eq=False)
class Operation:
    """One step.

    Attributes
    ----------
    name : str
        The layer's.
    inputs : tuple of int
        The tensors it takes, by their place in `Program.tensors`.
    output : int
        The tensor it writes.
    """

    name: str
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True, eq=False)
class Product(Operation):
    """What `Dense` and `Conv2D` share.

    Attributes
    ----------
    weights : int64
    weight_bits : int
        Of the word that holds a weight.
    weight_exponent : int
        Sums count in units of ``2**(weight_exponent + exponent of the input)``.
    bias : (outputs,) int64 or None
        In the sums' units.
    accumulator : Accumulator
    sums : (int, int)
        What the exact sums, any part of them, and these with the bias lie within, for inputs within the tensor's `low..high`.
    to : Requantize
    """

    weights: Int64s
    weight_bits: int
    weight_exponent: int
    bias: Int64s | None
    accumulator: Accumulator
    sums: Pair
    to: Requantize


@dataclass(frozen=True, eq=False)
class Dense(Product):
    """Sums of products with weights (outputs, inputs); bias (outputs,) or None."""


@dataclass(frozen=True, eq=False)
class Conv2D(Product):
    """Sums of products with weights (outputs, kernel height, kernel width, channels / groups); bias (outputs,) or None.

    `stride` is (down, right), `padding` (top, bottom, left, right).
    """

    stride: Pair
    padding: tuple[int, int, int, int]
    groups: int


@dataclass(frozen=True, eq=False)
class Scale(Operation):
    """A factor and an offset for each channel, (channels,) int64."""

    before: Requantize | None
    factors: Int64s
    offsets: Int64s
    sums: Pair
    to: Requantize


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """The sum of two tensors, each shifted to the left."""

    shifts: Pair
    sums: Pair
    to: Requantize


@dataclass(frozen=True, eq=False)
class AveragePool(Operation):
    """The sum of every window, times `factor`. Of a global pool the window is the image, and the output (channels,)."""

    window: Pair
    stride: Pair
    padding: tuple[int, int, int, int]
    factor: int
    sums: Pair
    to: Requantize


@dataclass(frozen=True, eq=False)
class MaxPool(Operation):
    """The largest of every window."""

    window: Pair
    stride: Pair
    padding: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class ReLU(Operation):
    """No negative number."""


@dataclass(frozen=True, eq=False)
class LeakyReLU(Operation):
    """Negative numbers divided by ``2**shift``."""

    shift: int


@dataclass(frozen=True, eq=False)
class Clamp(Operation):
    """Hard tanh."""

    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Sign(Operation):
    """-1 and +1."""


@dataclass(frozen=True, eq=False)
class Table(Operation):
    """Sigmoid or tanh."""

    before: Requantize | None
    first: int
    table: NDArray[np.signedinteger]


@dataclass(frozen=True, eq=False)
class Flatten(Operation):
    """An image as a vector."""


@dataclass(frozen=True, eq=False)
class Program:
    """A network's inference.

    Attributes
    ----------
    tensors : tuple of Tensor
        The first is the input.
    operations : tuple of Operation
        In an order in which they can run; each writes a tensor that none before has written.
    output : int
        The tensor that is the result.
    digest : str
        `Network.digest` of what was exported.
    """

    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    output: int
    digest: str

    @property
    def multiply_adds(self) -> int:
        """Products of weights of one sample."""
        total = 0
        for one in self.operations:
            if isinstance(one, Product):
                total += self.tensors[one.output].size // one.weights.shape[0] * one.weights.size
        return total


def rounded_range(sums: Pair, to: Requantize) -> Pair:
    """Return what values within `sums` lie within once they are shifted and rounded, before they come into the word."""
    if to.shift >= 0:  # every rounding is within a unit of the exact quotient
        least, greatest = sums[0] >> to.shift, -(-sums[1] >> to.shift)
    else:
        least, greatest = sums[0] << -to.shift, sums[1] << -to.shift
    return least, greatest | 1 if to.rounding is Rounding.JAM else greatest


def rounded_bounds(sums: Pair, to: Requantize) -> Pair:
    """Return what results lie within, for values within `sums`."""
    (low, high), (least, greatest) = to.limits, rounded_range(sums, to)
    if to.overflow in (Overflow.WRAP, Overflow.ERROR) and not low <= least <= greatest <= high:
        return low, high
    return min(max(least, low), high), min(max(greatest, low), high)


def sums_within(weights: Int64s, bias: Int64s | None, inputs: Pair) -> Pair:
    """Return what sums of weights times integers of a range lie within, and any part of them, without and with the bias."""
    rows = weights.reshape(len(weights), -1).astype(object)
    positive, negative = np.where(rows > 0, rows, 0).sum(axis=1), np.where(rows < 0, rows, 0).sum(axis=1)
    low, high = min(0, inputs[0]), max(0, inputs[1])
    least, greatest = positive * low + negative * high, positive * high + negative * low
    added = np.zeros(len(rows), object) if bias is None else bias.astype(object)
    ends = [int((least + np.minimum(added, 0)).min()), int((greatest + np.maximum(added, 0)).max())]
    return ends[0], ends[1]
