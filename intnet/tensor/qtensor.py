"""Integers with powers of two, and what was counted when they were made."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet import kernels
from intnet.errors import InputError, InputTypeError
from intnet.formats import BlockFloat, Fixed

Integers = NDArray[np.signedinteger]
EXPONENT_MAX = 2**20
"""Far beyond any format: an exponent of an accumulator is a sum of two."""

_SIGNED = {"u1": np.int16, "u2": np.int32, "u4": np.int64}


@dataclass
class Counters:
    """What conversions did to the numbers: pass one to several calls and it adds up.

    Attributes
    ----------
    count : int
        Numbers converted.
    saturated, wrapped : int
        Results that did not fit into the word.
    lost : int
        Numbers that were not zero and were rounded to zero. (What wraps or saturates to zero is counted there.)
    minimum, maximum : int or None
        The least and the greatest mantissa written; None before any.
    """

    count: int = 0
    saturated: int = 0
    wrapped: int = 0
    lost: int = 0
    minimum: int | None = None
    maximum: int | None = None

    def take(self, counted: NDArray[np.int64], count: int) -> None:
        """Add what the kernels counted in `count` numbers."""
        saturated, wrapped, lost, minimum, maximum = (int(value) for value in counted)
        self.count += count
        self.saturated += saturated
        self.wrapped += wrapped
        self.lost += lost
        if count:
            self.minimum = minimum if self.minimum is None else min(self.minimum, minimum)
            self.maximum = maximum if self.maximum is None else max(self.maximum, maximum)


@dataclass(frozen=True, eq=False)
class QTensor:
    """Integers and the powers of two they count: ``value = mantissa * 2**exponent``.

    Attributes
    ----------
    mantissa : array of int8, int16, int32 or int64, any shape
    exponent : int64 array that has as many axes as the mantissa, within +-2**20
        Of length 1 along every axis that shares an exponent. Along the axis of a tile, one entry a tile.
    format : Fixed, BlockFloat or None
        None for an accumulator: an exact result that has not been brought into a format yet.

    Raises
    ------
    InputError
        If mantissa or exponent hold no signed integers (InputTypeError), or the shapes do not fit.
    """

    mantissa: Integers
    exponent: NDArray[np.int64]
    format: Fixed | BlockFloat | None

    def __post_init__(self) -> None:
        mantissa = as_integers("the mantissa", self.mantissa)
        exponent = as_integers("the exponent", self.exponent).astype(np.int64, copy=False)
        shape, lengths = mantissa.shape, exponent.shape
        wanted = self.format.exponent_shape(shape) if isinstance(self.format, BlockFloat) else None
        fits = len(lengths) == len(shape) and all(
            few in (1, many) or (few and many % few == 0) for few, many in zip(lengths, shape, strict=True)
        )
        if not fits or (wanted is not None and lengths != wanted) or (isinstance(self.format, Fixed) and exponent.size != 1):
            need = wanted if wanted is not None else f"{len(shape)} axes of length 1, or that divide those of the mantissa"
            raise InputError(f"the exponent of a mantissa of shape {shape} needs shape {need}, got {lengths}")
        if exponent.size and np.abs(exponent).max() > EXPONENT_MAX:
            raise InputError(f"exponents must be within +-{EXPONENT_MAX}, got {exponent.min()} to {exponent.max()}")
        object.__setattr__(self, "mantissa", mantissa)
        object.__setattr__(self, "exponent", exponent)

    @classmethod
    def trusted(cls, mantissa: Integers, exponent: "NDArray[np.int64] | int", format: Fixed | BlockFloat | None = None) -> Self:
        """Return a tensor without looking at its parts, as the layers make one for every step.

        Parameters
        ----------
        mantissa, format : as above
        exponent : int64 array as above, or one int for all
        """
        tensor = object.__new__(cls)
        if isinstance(exponent, int):
            exponent = _one_exponent(exponent, mantissa.ndim)
        parts = tensor.__dict__  # frozen, but for those who make one
        parts["mantissa"], parts["exponent"], parts["format"] = mantissa, exponent, format
        return tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the mantissa."""
        return self.mantissa.shape

    def to(self, device: str) -> Self:
        """Return it with its mantissa on "cpu", "gpu" or "auto" (a GPU where there is one); exponents live on the host.

        Raises
        ------
        InputError
            If there is no such device, or none that can be used (DeviceError).
        """
        return self.moved(kernels.resolve_device(device))

    def moved(self, device: str) -> Self:
        """Return it on a device that was looked at before, "cpu" or "gpu"."""
        mantissa = self.mantissa
        if kernels.on_device(mantissa) == (device == "gpu"):
            return self
        return self.trusted(kernels.move(mantissa, device), self.exponent, self.format)

    def exponents(self) -> NDArray[np.int64]:
        """Return the exponent of every element, with the shape of the mantissa (a read-only view where it can be)."""
        exponent = self.exponent
        for axis, (few, many) in enumerate(zip(exponent.shape, self.shape, strict=True)):
            if few not in (1, many):
                exponent = np.repeat(exponent, many // few, axis)
        return np.broadcast_to(exponent, self.shape)

    def to_float(self) -> NDArray[np.float64]:
        """Return the values as float64: see :func:`intnet.dequantize`."""
        from intnet.tensor.conversion import dequantize

        return dequantize(self)

    def __repr__(self) -> str:
        return f"QTensor(shape={self.shape}, format={self.format or 'accumulator'})"


@lru_cache(1024)
def _one_exponent(exponent: int, axes: int) -> NDArray[np.int64]:
    """Return an exponent for all of a tensor with so many axes; tensors share it, and nothing writes into exponents."""
    return np.full((1,) * axes, exponent, np.int64)


def as_integers(name: str, values: ArrayLike) -> Integers:
    """Return signed integers in the machine's byte order; shorter unsigned ones widened."""
    if isinstance(values, QTensor):
        raise InputTypeError(f"{name} must hold integers, got a QTensor; use its mantissa, or requantize")
    if hasattr(values, "copy_to_host"):  # it lives on a GPU
        values = kernels.to_host(values)
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{name} must be an array of integers, got rows of different lengths") from None
    if array.size == 0 and isinstance(values, list):
        array = array.astype(np.int64)
    if array.dtype.kind == "O":
        raise InputTypeError(f"{name} must fit in signed 64-bit integers, got Python objects or larger integers")
    kind = array.dtype.str[1:]
    if kind in _SIGNED:
        return array.astype(_SIGNED[kind])
    if array.dtype.kind == "u":
        raise InputTypeError(f"{name} must fit in signed 64-bit integers, got dtype {array.dtype}; convert it where it fits")
    if array.dtype.kind != "i":
        raise InputTypeError(f"{name} must hold integers, got dtype {array.dtype}; use quantize for real numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
