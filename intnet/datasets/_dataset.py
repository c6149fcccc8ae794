"""What every loader takes and returns."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from intnet.errors import InputError

SUBSETS = ("all", "train", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples whose inputs are integer codes.

    The real value of input j of sample i is ``values[codes[i, j]]``. The arrays are made read-only.

    Attributes
    ----------
    name : str
        ``"digits"``, ``"mnist"``, ``"fashion-mnist"``, ``"cifar10"``, ``"cifar10-jpeg"`` or ``"cifar100"``.
    codes : ndarray of uint8, shape (samples, features)
        Each input as the source stores it: 0..16 for DIGITS, the pixel 0..255 for the others.
    values : ndarray of float64, shape (levels,)
        The real number in [0, 1] that each code stands for, ascending: code / 16 for DIGITS, code / 255 for the others.
    labels : ndarray of uint8, shape (samples,)
        The class of each sample, 0..classes - 1.
    classes : int
        Number of classes.
    shape : tuple of int
        Shape of one sample before it was flattened in C order: (8, 8), (28, 28), or (32, 32, 3) with channels last.
    """

    name: str
    codes: NDArray[np.uint8] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)
    labels: NDArray[np.uint8] = field(repr=False)
    classes: int
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        for array in (self.codes, self.values, self.labels):
            array.setflags(write=False)  # the cached checksum must stay true

    @cached_property
    def checksum(self) -> str:
        """SHA-256, in hexadecimal, of the content in its order; computed once.

        It covers, little-endian and in C order: the sizes (samples, features, levels, and `shape`) as int64, then
        `codes`, `labels` and `values`.
        """
        sizes = np.array([*self.codes.shape, *self.values.shape, *self.shape])
        digest = hashlib.sha256()
        for array, dtype in ((sizes, "<i8"), (self.codes, "u1"), (self.labels, "u1"), (self.values, "<f8")):
            digest.update(array.astype(dtype, copy=False).ravel().data)
        return digest.hexdigest()


def check_choice(name: str, choice: object, choices: Sequence[object]) -> None:
    """Raise InputError unless `choice`, given for the argument `name`, is one of `choices`."""
    if choice not in choices:
        raise InputError(f"{name} must be one of {', '.join(map(repr, choices))}, got {choice!r}")
