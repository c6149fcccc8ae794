"""MNIST and Fashion-MNIST, from their idx files."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from intnet.datasets._collection import Collection
from intnet.datasets._content import verified
from intnet.datasets._dataset import SUBSETS, Dataset, check_choice
from intnet.datasets._idx import parse_idx
from intnet.datasets._search import locate
from intnet.datasets._tables import FASHION_MNIST, MNIST

Arrays = list[NDArray[np.uint8]]


def load_mnist(data_dir: str | os.PathLike[str] | None = None, *, subset: str = "all", order: str = "official") -> Dataset:
    """Load MNIST, 70,000 handwritten digits, from its four idx files, plain or .gz; each is checked by its MD5.

    Parameters
    ----------
    data_dir : path, optional
        Where the files are: in this folder, else in its subfolder ``mnist``, and nowhere else. Without it, the folder
        that the environment variable ``INTNET_DATA`` names is searched the same way, then a cache that is filled by
        download (11 MB, once; needs pooch). Fashion-MNIST's files, which have the same names, are passed over.
    subset : {"all", "train", "test"}
        The 60,000 training images followed by the 10,000 test images, or one of these parts.
    order : {"official", "mldata"}
        The order of the files, or that of the retired mldata set "MNIST original": each part stably sorted by label.

    Returns
    -------
    Dataset
        28x28 images with codes 0..255, each standing for code / 255.

    Raises
    ------
    InputError
        If `subset` or `order` is not one of the names above.
    DataError
        If a file is missing, unreadable, damaged or not MNIST's, or cannot be downloaded.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86(11), 1998, doi:10.1109/5.726791.
    """
    check_choice("subset", subset, SUBSETS)
    check_choice("order", order, ("official", "mldata"))
    images, labels = _read(MNIST, FASHION_MNIST, subset, data_dir)
    if order == "mldata":
        by_label = [np.argsort(part, kind="stable") for part in labels]
        images = [part[rows] for part, rows in zip(images, by_label, strict=True)]
        labels = [part[rows] for part, rows in zip(labels, by_label, strict=True)]
    return _dataset("mnist", images, labels)


def load_fashion_mnist(data_dir: str | os.PathLike[str] | None = None, *, subset: str = "all") -> Dataset:
    """Load Fashion-MNIST, 70,000 pictures of clothing, from its four idx files, plain or .gz; each is checked by its MD5.

    Parameters
    ----------
    data_dir : path, optional
        Where the files are: in the subfolder ``fashion-mnist`` of this folder, else in the folder itself, and nowhere
        else. Without it, the folder that the environment variable ``INTNET_DATA`` names is searched the same way, then
        a cache that is filled by download (31 MB, once; needs pooch). MNIST's files, which have the same names, are
        passed over.
    subset : {"all", "train", "test"}
        The 60,000 training images followed by the 10,000 test images, or one of these parts.

    Returns
    -------
    Dataset
        28x28 images with codes 0..255, each standing for code / 255, in the order of the files.

    Raises
    ------
    InputError
        If `subset` is not one of the names above.
    DataError
        If a file is missing, unreadable, damaged or not Fashion-MNIST's, or cannot be downloaded.

    References
    ----------
    H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms", 2017, arXiv:1708.07747.
    """
    check_choice("subset", subset, SUBSETS)
    return _dataset("fashion-mnist", *_read(FASHION_MNIST, MNIST, subset, data_dir))


def _read(
    collection: Collection, namesake: Collection, subset: str, data_dir: str | os.PathLike[str] | None
) -> tuple[Arrays, Arrays]:
    """Return the images and the labels of each part."""
    _, found = locate((collection,), subset, data_dir, (namesake,))
    arrays = [verified(collection, file, parse_idx) for file in found]
    return arrays[::2], arrays[1::2]


def _dataset(name: str, images: Sequence[NDArray[np.uint8]], labels: Sequence[NDArray[np.uint8]]) -> Dataset:
    codes = np.concatenate(images)
    return Dataset(
        name=name,
        codes=codes.reshape(len(codes), -1),
        values=np.arange(256) / 255,
        labels=np.concatenate(labels),
        classes=10,
        shape=codes.shape[1:],
    )
