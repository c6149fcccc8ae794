"""CIFAR-10 and CIFAR-100, from their binary files or their pickled ones."""

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from intnet.datasets._collection import Collection, File
from intnet.datasets._content import verified
from intnet.datasets._dataset import SUBSETS, Dataset, check_choice
from intnet.datasets._pickles import read_pickle
from intnet.datasets._search import locate
from intnet.datasets._tables import CIFAR10_BINARY, CIFAR10_JPEG, CIFAR10_PICKLED, CIFAR100_BINARY, CIFAR100_PICKLED
from intnet.errors import DataError

# The labels of an image, by their name in the pickles and in the order of the binary files, and how many classes each has.
CIFAR10_LABELS = {"labels": 10}
CIFAR100_LABELS = {"coarse_labels": 20, "fine_labels": 100}

Batch = tuple[NDArray[np.uint8], dict[str, NDArray[np.uint8]]]  # pixels (samples, 3, 32, 32), and labels by their name


def load_cifar10(data_dir: str | os.PathLike[str] | None = None, *, subset: str = "all", jpeg_decoded: bool = False) -> Dataset:
    """Load CIFAR-10, 60,000 colour pictures of ten subjects; each official file is checked by its MD5.

    Both official layouts are read, unpacked or in their archive, and give the same data set: ``cifar-10-batches-bin`` or
    ``cifar-10-binary.tar.gz``, and ``cifar-10-batches-py`` or ``cifar-10-python.tar.gz``. Nothing in a pickle is run, and
    nothing is unpacked to the disk.

    Parameters
    ----------
    data_dir : path, optional
        Where the files are: in the subfolder ``cifar10`` of this folder, else in the folder itself, and nowhere else;
        there, in the layout's own folder, loose, or in the archive. Without it, the folder that the environment variable
        ``INTNET_DATA`` names is searched the same way, then a cache that is filled by download (170 MB, once; needs
        pooch).
    subset : {"all", "train", "test"}
        The 50,000 training images followed by the 10,000 test images, or one of these parts.
    jpeg_decoded : bool
        Admit files in the binary layout whose pixels are not the official ones, because they were decoded from JPEG
        copies. No official checksum applies to them: what is checked is their size, that the labels are 0..9, and that
        each class is as frequent as the others. They are searched in the subfolder ``cifar10-jpeg`` first, and never
        downloaded. The data set is called ``"cifar10-jpeg"``; official files are passed over.

    Returns
    -------
    Dataset
        32x32 images of 3 channels (red, green, blue), channels last, with codes 0..255, each standing for code / 255.

    Raises
    ------
    InputError
        If `subset` is not one of the names above.
    DataError
        If a file is missing, unreadable, damaged or not the one it should be, or cannot be downloaded.

    References
    ----------
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of Toronto,
    2009, https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    check_choice("subset", subset, SUBSETS)
    check_choice("jpeg_decoded", jpeg_decoded, (False, True))
    if not jpeg_decoded:
        return _load("cifar10", (CIFAR10_BINARY, CIFAR10_PICKLED), CIFAR10_LABELS, "labels", subset, data_dir)
    dataset = _load("cifar10-jpeg", (CIFAR10_JPEG,), CIFAR10_LABELS, "labels", subset, data_dir, (CIFAR10_BINARY,))
    frequencies = np.bincount(dataset.labels, minlength=dataset.classes).tolist()
    if len(set(frequencies)) > 1:
        raise DataError(
            f"the files taken for {CIFAR10_JPEG.title} are not: their classes have {frequencies} images, and CIFAR-10's have "
            "as many each; make them again from CIFAR-10's labels"
        )
    return dataset


def load_cifar100(data_dir: str | os.PathLike[str] | None = None, *, subset: str = "all", labels: str = "fine") -> Dataset:
    """Load CIFAR-100, 60,000 colour pictures of a hundred subjects; each file is checked by its MD5.

    Both official layouts are read, unpacked or in their archive: ``cifar-100-binary`` or ``cifar-100-binary.tar.gz``, and
    ``cifar-100-python`` or ``cifar-100-python.tar.gz``. Nothing in a pickle is run, and nothing is unpacked to the disk.

    Parameters
    ----------
    data_dir : path, optional
        Where the files are: in the subfolder ``cifar100`` of this folder, else in the folder itself, and nowhere else;
        there, in the layout's own folder, loose, or in the archive. Without it, the folder that the environment variable
        ``INTNET_DATA`` names is searched the same way, then a cache that is filled by download (169 MB, once; needs
        pooch).
    subset : {"all", "train", "test"}
        The 50,000 training images followed by the 10,000 test images, or one of these parts.
    labels : {"fine", "coarse"}
        The 100 classes, or the 20 groups they are sorted into.

    Returns
    -------
    Dataset
        32x32 images of 3 channels (red, green, blue), channels last, with codes 0..255, each standing for code / 255.

    Raises
    ------
    InputError
        If `subset` or `labels` is not one of the names above.
    DataError
        If a file is missing, unreadable, damaged or not CIFAR-100's, or cannot be downloaded.

    References
    ----------
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of Toronto,
    2009, https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    check_choice("subset", subset, SUBSETS)
    check_choice("labels", labels, ("fine", "coarse"))
    return _load("cifar100", (CIFAR100_BINARY, CIFAR100_PICKLED), CIFAR100_LABELS, f"{labels}_labels", subset, data_dir)


def _load(
    name: str,
    layouts: Sequence[Collection],
    kinds: Mapping[str, int],
    kind: str,
    subset: str,
    data_dir: str | os.PathLike[str] | None,
    namesakes: Sequence[Collection] = (),
) -> Dataset:
    layout, found = locate(layouts, subset, data_dir, namesakes)
    parse = partial(_parse_pickle if layout.pickled else _parse_records, kinds=kinds)
    samples = sum(item.file.shape[0] for item in found)
    channels, rows, columns = found[0].file.shape[1:]
    images = np.empty((samples, rows, columns, channels), np.uint8)
    labels = np.empty(samples, np.uint8)
    start = 0
    while found:
        pixels, batch_labels = verified(layout, found.pop(0), parse)  # the bytes of one batch go as the next are read
        end = start + len(pixels)
        images[start:end] = pixels.transpose(0, 2, 3, 1)
        labels[start:end] = batch_labels[kind]
        start = end
    return Dataset(
        name=name,
        codes=images.reshape(samples, -1),
        values=np.arange(256) / 255,
        labels=labels,
        classes=kinds[kind],
        shape=images.shape[1:],
    )


def _parse_records(file: File, content: bytes, kinds: Mapping[str, int]) -> Batch:
    """Read a binary file: for each image its labels, one byte each, then its red, green and blue planes, row by row."""
    samples, *planes = file.shape
    length = len(kinds) + math.prod(planes)
    if len(content) != samples * length:
        problem = "is cut short" if len(content) < samples * length else "is too long"
        raise ValueError(
            f"{problem}: it has {len(content)} bytes, and {samples} images with their labels have {samples * length}"
        )
    records = np.frombuffer(content, np.uint8).reshape(samples, length)
    labels = {kind: records[:, column] for column, kind in enumerate(kinds)}
    _check_range(labels, kinds)
    return records[:, len(kinds) :].reshape(file.shape), labels


def _parse_pickle(file: File, content: bytes, kinds: Mapping[str, int]) -> Batch:
    """Read a pickled dictionary: under "data" the planes of each image in a row, and a list of labels for each kind."""
    batch = read_pickle(content)
    samples, *planes = file.shape
    pixels = batch.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.shape != (samples, math.prod(planes)):
        raise ValueError(f"is a pickle without the pixels of {samples} images under 'data'")
    labels = {}
    for kind in kinds:
        stored = batch.get(kind)
        if not isinstance(stored, list) or len(stored) != samples or not all(type(label) is int for label in stored):
            raise ValueError(f"is a pickle without {samples} labels under {kind!r}")
        if not all(0 <= label <= 255 for label in stored):
            raise ValueError(f"has labels outside 0..{kinds[kind] - 1}")
        labels[kind] = np.array(stored, np.uint8)
    _check_range(labels, kinds)
    return pixels.reshape(file.shape), labels


def _check_range(labels: Mapping[str, NDArray[np.uint8]], kinds: Mapping[str, int]) -> None:
    for kind, classes in kinds.items():
        highest = int(labels[kind].max(initial=0))
        if highest >= classes:
            raise ValueError(f"has the label {highest}, and the highest of {classes} classes is {classes - 1}")
