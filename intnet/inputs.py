"""Inputs of a network: a data set's codes, and the integers each stands for. The one float step of training is here."""

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from math import prod
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import BlockFloat, Fixed
from intnet.recipe import Recipe
from intnet.tensor import QTensor, quantize

AUGMENTATION_STREAM = 1


class Samples(Protocol):
    """What a data set offers: see :class:`intnet.datasets.Dataset`."""

    @property
    def codes(self) -> NDArray[np.uint8]:
        """Codes, (n, features)."""

    @property
    def values(self) -> NDArray[np.float64]:
        """The real number of every code."""

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Labels, (n,)."""

    @property
    def classes(self) -> int:
        """How many classes there are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """How codes become integers: a table of the mantissa of every code, for each channel or for all, and one exponent.

    Made once from training data, so that a sample has the same integers in whatever batch it comes.

    Attributes
    ----------
    table : (channels or 1, 256) integers
    exponent : int
    format : Fixed or BlockFloat
    shape : tuple of int
        Of a sample: (features,) or (height, width, channels).
    """

    table: NDArray[Any]
    exponent: int
    format: Fixed | BlockFloat
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        channels = self.shape[-1] if len(self.shape) == 3 else 1
        if self.table.ndim != 2 or self.table.shape[0] not in (1, channels) or self.table.shape[1] != 256:
            raise InputError(
                f"samples of shape {self.shape} need a table of shape (1, 256) or (channels, 256), got {self.table.shape}"
            )
        table = np.array(self.table, order="C")  # its own, and never written again: a GPU keeps a copy
        table.flags.writeable = False
        object.__setattr__(self, "table", table)

    @classmethod
    def of(cls, data: Samples, recipe: Recipe, standardize: bool = False) -> "Encoder":
        """Return the encoder for a data set.

        Parameters
        ----------
        data : Dataset
        recipe : Recipe
            Its activation format is that of the inputs; values are quantized to nearest, ties to even, saturating.
        standardize : bool
            Whether every channel's mean is subtracted and the result divided by its standard deviation, in real numbers
            before quantizing. Else values are taken as they are, in [0, 1].
        """
        shape = data.shape if len(data.shape) != 2 else (*data.shape, 1)
        channels = shape[-1] if len(shape) == 3 else 1
        values = np.zeros((channels, 256))
        values[:, : len(data.values)] = data.values
        if standardize:
            codes = data.codes.reshape(-1, channels)
            for channel in range(channels):
                counts = np.bincount(codes[:, channel], minlength=len(data.values))
                mean = (counts @ data.values) / counts.sum()
                spread = np.sqrt(counts @ (data.values - mean) ** 2 / counts.sum())
                values[channel, : len(data.values)] = (data.values - mean) / (spread or 1)
        elif channels > 1:
            values = values[:1]
        role = recipe.activation
        form = BlockFloat(role.format.word_bits) if isinstance(role.format, BlockFloat) else role.format
        encoded = quantize(values, form, "ties_even", "saturate")
        return cls(encoded.mantissa, int(encoded.exponent.flat[0]), form, tuple(int(length) for length in shape))


@dataclass(frozen=True)
class Augmentation:
    """Random crops of a padded image, and random left-right flips; drawn from (seed, step, position in the batch).

    Parameters
    ----------
    padding : int
        Pixels of code 0 (black) around the image before it is cropped to its size.
    flip : bool
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or not 0 <= self.padding <= 1024:
            raise InputError(f"padding must be an integer in 0..1024, got {self.padding!r}")
        if not isinstance(self.flip, bool):
            raise InputError(f"flip must be True or False, got {self.flip!r}")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Samples as a network takes them.

    Attributes
    ----------
    codes : (n, features) uint8
    labels : (n,) int64, 0..classes - 1
    encoder : Encoder
    classes : int

    Raises
    ------
    InputError
        If codes are no bytes or not as many as the encoder's shape has, samples and labels differ in number, or a label is
        no class.
    """

    codes: NDArray[np.uint8]
    labels: NDArray[np.int64]
    encoder: Encoder
    classes: int = field(default=0)

    def __post_init__(self) -> None:
        codes, labels, features = np.asarray(self.codes), np.asarray(self.labels), prod(self.encoder.shape)
        if codes.dtype != np.uint8 or codes.shape[1:] != (features,):
            raise InputError(
                f"codes must be uint8 of shape (n, {features}) for samples of shape {self.encoder.shape}, got {codes.dtype} "
                f"of shape {codes.shape}; real numbers are quantized into ArrayInputs"
            )
        if labels.shape != codes.shape[:1]:
            raise InputError(f"{len(codes)} samples need as many labels, got labels of shape {labels.shape}")
        _check_labels(labels, self.classes)
        object.__setattr__(self, "codes", np.ascontiguousarray(codes))
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))

    @classmethod
    def of(cls, data: Samples, encoder: Encoder) -> "Inputs":
        """Return a data set's samples for an encoder made from it or from its sibling."""
        shape = data.shape if len(data.shape) != 2 else (*data.shape, 1)
        if tuple(shape) != encoder.shape:
            raise InputError(f"the encoder was made for samples of shape {encoder.shape}, got {tuple(shape)}")
        labels = data.labels.astype(np.int64)
        return cls(np.ascontiguousarray(data.codes), labels, encoder, data.classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.encoder.shape

    @property
    def format(self) -> Fixed | BlockFloat:
        """The encoder's format."""
        return self.encoder.format

    @cached_property
    def checksum(self) -> str:
        """A SHA-256 of the samples' integers and labels: of codes, table, exponent, and what they mean."""
        kind = f"{self.encoder.format} {self.encoder.exponent} {self.shape} {self.classes}"
        return _checksum(kind, self.codes, self.encoder.table, self.labels)

    def to(self, device: str) -> Self:
        """Return samples that live on "cpu", "gpu" or "auto" (a GPU where there is one): batches are made there.

        Raises
        ------
        InputError
            If there is no such device, or none that can be used (DeviceError).
        """
        return self.moved(kernels.resolve_device(device))

    def moved(self, device: str) -> Self:
        """Return samples on a device that was looked at before, "cpu" or "gpu"."""
        if kernels.on_device(self.codes) == (device == "gpu"):
            return self
        moved = copy(self)
        object.__setattr__(moved, "codes", kernels.move(self.codes, device))  # they were checked
        return moved

    def batch(self, rows: NDArray[np.int64], augmentation: Augmentation | None = None, seed: int = 0, step: int = 0) -> QTensor:
        """Return the samples of these rows, augmented if wanted, as integers."""
        encoder = self.encoder
        if augmentation is None:
            mantissa = kernels.gather(self.codes, rows, encoder.table)
        else:
            if len(encoder.shape) != 3:
                raise InputError(f"augmentation needs images, got samples of shape {encoder.shape}")
            tops, lefts, flips = kernels.draw_augmentation(len(rows), augmentation.padding, seed, AUGMENTATION_STREAM, step)
            if not augmentation.flip:
                flips = np.zeros_like(flips)
            mantissa = kernels.gather_augmented(
                self.codes, rows, encoder.shape, encoder.table, tops, lefts, flips, augmentation.padding, 0
            )
        return QTensor.trusted(mantissa.reshape(len(rows), *encoder.shape), encoder.exponent, encoder.format)


class Batches(Protocol):
    """What a trainer trains on: see :class:`Inputs` and :class:`ArrayInputs`."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels, (n,)."""

    @property
    def classes(self) -> int:
        """How many classes there are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample."""

    @property
    def format(self) -> Fixed | BlockFloat | None:
        """The format of the samples' integers."""

    @property
    def checksum(self) -> str:
        """A SHA-256 of all that decides the integers and the labels."""

    def __len__(self) -> int: ...

    def batch(
        self, rows: NDArray[np.int64], augmentation: Augmentation | None = None, seed: int = 0, step: int = 0
    ) -> QTensor:  # fmt: skip
        """Return the samples of these rows."""


@dataclass(frozen=True, eq=False)
class ArrayInputs:
    """Samples that are not codes of a table, but arbitrary numbers: quantized once, before they come here.

    Attributes
    ----------
    values : (n, *shape) QTensor
        With one exponent for all, so that a sample has the same integers in whatever batch it comes.
    labels : (n,) int64, 0..classes - 1
    classes : int

    Raises
    ------
    InputError
        If samples and labels differ in number, a label is no class, or the exponents differ.
    """

    values: QTensor
    labels: NDArray[np.int64]
    classes: int

    def __post_init__(self) -> None:
        shape, labels = self.values.shape, np.asarray(self.labels)
        if len(shape) < 2 or labels.shape != shape[:1] or labels.dtype.kind not in "iu":
            raise InputError(
                f"inputs are samples (n, features) and integer labels (n,), got {shape} and {labels.dtype} {labels.shape}"
            )
        if self.values.exponent.size != 1:
            raise InputError(f"inputs have one exponent for all, got exponents of shape {self.values.exponent.shape}")
        _check_labels(labels, self.classes)
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.values.shape[1:]

    @property
    def format(self) -> Fixed | BlockFloat | None:
        """The values' format."""
        return self.values.format

    @cached_property
    def checksum(self) -> str:
        """A SHA-256 of the samples' integers, their exponent and format, and the labels."""
        kind = f"{self.format} {self.values.exponent.item()} {self.shape} {self.classes}"
        return _checksum(kind, self.values.mantissa, self.labels)

    def batch(
        self, rows: NDArray[np.int64], augmentation: Augmentation | None = None, seed: int = 0, step: int = 0
    ) -> QTensor:  # fmt: skip
        """Return the samples of these rows; they cannot be augmented."""
        del seed, step
        if augmentation is not None:
            raise InputError("augmentation needs images in codes (Inputs), got an array of numbers")
        return QTensor.trusted(self.values.mantissa[rows], self.values.exponent, self.values.format)


def _check_labels(labels: NDArray[Any], classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise InputError(f"labels must be integers, got {labels.dtype}")
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(f"labels must be in 0..{classes - 1}, got {labels.min()} to {labels.max()}")


def _checksum(kind: str, *arrays: NDArray[Any]) -> str:
    digest = sha256(kind.encode())
    for array in arrays:
        digest.update(f"\0{array.dtype.str[1:]} {array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()
