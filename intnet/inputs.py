"""Inputs of a network: a data set's codes, and the integers each stands for. The one float step of training is here."""

from dataclasses import dataclass, field
from typing import Any, Protocol

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
        If samples and labels differ in number, or a label is no class.
    """

    codes: NDArray[np.uint8]
    labels: NDArray[np.int64]
    encoder: Encoder
    classes: int = field(default=0)

    def __post_init__(self) -> None:
        if self.labels.shape != self.codes.shape[:1]:
            raise InputError(f"{len(self.codes)} samples need as many labels, got labels of shape {self.labels.shape}")
        if self.labels.size and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.classes:
            raise InputError(f"labels must be in 0..{self.classes - 1}, got {self.labels.min()} to {self.labels.max()}")

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
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise InputError(f"labels must be in 0..{self.classes - 1}, got {labels.min()} to {labels.max()}")
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, rows: NDArray[np.int64], augmentation: Augmentation | None = None, seed: int = 0, step: int = 0
    ) -> QTensor:  # fmt: skip
        """Return the samples of these rows; they cannot be augmented."""
        del seed, step
        if augmentation is not None:
            raise InputError("augmentation needs images in codes (Inputs), got an array of numbers")
        return QTensor.trusted(self.values.mantissa[rows], self.values.exponent, self.values.format)
