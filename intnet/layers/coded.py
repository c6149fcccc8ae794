"""Weights of few bits: what a product layer multiplies by in place of the weights it trains.

The weights are ``(scale * code + offset * mask) / divisor * 2**exponent``: codes are 8-bit integers, the rest a few integers
for the whole tensor, the mask 1 where a weight is not held at zero. A product with codes is a product of 8-bit words; that with
the mask, the sums of the inputs under the kernel, corrects the zero point. Both are exact, and so is their combination; its
quotient keeps what a word has room for, with a sticky bit, so that rounding it into a format rounds the exact result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import Fixed
from intnet.layers._base import Parameter, Quantizer
from intnet.tensor import QTensor
from intnet.tensor.qtensor import Integers

_BIAS_BITS = 61


@dataclass(frozen=True, eq=False)
class Coded:
    """Weights as codes.

    Attributes
    ----------
    codes : int8, the weights' shape
        0 where a weight is held at zero.
    scale, offset : int
    divisor : int, at least 1
    exponent : int
    mask : bool, the weights' shape, or None
        False where a weight is held at zero; None: nowhere.
    """

    codes: NDArray[np.int8]
    scale: int
    offset: int
    divisor: int
    exponent: int
    mask: NDArray[np.bool_] | None = None

    def numerators(self) -> NDArray[np.int64]:
        """Return the weights times ``divisor / 2**exponent``, which are integers."""
        ones = np.int64(1) if self.mask is None else self.mask.astype(np.int64)
        return self.codes.astype(np.int64) * self.scale + ones * self.offset


class Coding(Protocol):
    """How weights become codes."""

    def __call__(self, weight: Parameter) -> Coded:
        """Return the codes of a parameter as it is now."""


def coded_sums(
    coded: Coded,
    multiply: Callable[[Integers], tuple[Integers, int]],
    alone: tuple[int, ...] | None,
    apart: bool,
    name: str,
    limits: NDArray[np.int64] | None = None,
) -> tuple[Integers, int, int, NDArray[np.int64]]:
    """Return the products with coded weights as an accumulator.

    Parameters
    ----------
    coded : Coded
    multiply : callable
        Given integers of the weights' shape, or of the shape `alone`, returns the sums of products, (samples, ..., outputs),
        and how many of them left the accumulator.
    alone : tuple of int or None
        The shape of weights of ones whose sums, of one output, are those of ones for every output; None: there is none.
    apart : bool
        Whether every sample keeps as many bits as it has room for; else all keep as many as the largest sum leaves.
    name : str
        The layer's.
    limits : (samples or 1,) int64, optional
        By how many bits the sums may be shifted up at most.

    Returns
    -------
    values : int64
        Less than their last place below the exact sums; the lowest bit is set unless they are exact.
    left, count : int
        How many sums left the accumulator, of how many.
    exponent : (samples or 1,) int64
        To be added to that of the other operand.

    Raises
    ------
    InputError
        If the combination may take more than 62 bits.
    """
    sums, left = multiply(coded.codes)
    count, bound, under = sums.size, kernels.max_magnitude(sums) * abs(coded.scale), None
    if coded.offset:
        if coded.mask is None and alone is not None:
            ones = np.ones(alone, np.int8)
        else:
            ones = np.ones(coded.codes.shape, np.int8) if coded.mask is None else coded.mask.astype(np.int8)
        under, more = multiply(ones)
        left, count = left + more, count + under.size
        bound += kernels.max_magnitude(under) * abs(coded.offset)
    if bound >= 2**kernels.CODED_BITS:
        raise InputError(
            f"layer {name!r}: sums with coded weights take {bound.bit_length()} bits and may take {kernels.CODED_BITS}; use "
            "shorter words for its activations or errors"
        )
    values, ups = kernels.combine_coded(sums, under, coded.scale, coded.offset, coded.divisor, bound, apart, limits)
    return values, left, count, coded.exponent - ups


def room_for(bias: Parameter | None, exponent: NDArray[np.int64], coded: Coded, name: str) -> NDArray[np.int64] | None:
    """Return by how many bits sums may be shifted up so that biases, at their exponent, still have room; None: by any.

    Raises
    ------
    InputError
        If they have none as it is.
    """
    if bias is None or not (largest := kernels.max_magnitude(bias.value.mantissa)):
        return None
    reaches = largest.bit_length() + int(bias.value.exponent.max())
    limits = exponent.reshape(-1) + (coded.exponent + _BIAS_BITS - reaches)
    if (limits < 0).any():
        raise InputError(
            f"layer {name!r}: its biases reach {_BIAS_BITS - int(limits.min())} bits above the unit of sums with coded weights "
            f"and may reach {_BIAS_BITS}; use fewer fraction bits for its activations and weights"
        )
    return limits


def check_place(made: QTensor, quantizer: Quantizer) -> None:
    """Refuse a format whose unit is less than four times that of sums: these are quotients, which are not known further."""
    form = quantizer.format
    if isinstance(form, Fixed) and -form.fraction_bits - int(made.exponent.max()) < 2:
        raise InputError(
            f"layer {quantizer.tensor!r}: {form} is finer than sums with coded weights are known; use fewer fraction bits "
            f"({quantizer.role_name})"
        )


def as_accumulator(values: Integers, exponent: NDArray[np.int64], more: NDArray[np.int64]) -> QTensor:
    """Return values whose exponent is the sum of two, each of all samples or of each."""
    return QTensor.trusted(values, (exponent.reshape(-1) + more.reshape(-1)).reshape((-1,) + (1,) * (values.ndim - 1)))
