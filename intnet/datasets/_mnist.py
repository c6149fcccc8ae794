"""MNIST, from its idx files."""

import os

import numpy as np

from intnet.datasets._dataset import Dataset
from intnet.datasets._files import Collection, File, locate
from intnet.datasets._idx import read_idx
from intnet.errors import InputError

MNIST = Collection(
    title="MNIST",
    folder="mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    parts={
        "train": (
            File(
                name="train-images-idx3-ubyte",
                holds="the training images",
                shape=(60000, 28, 28),
                md5="6bbc9ace898e44ae57da46a324031adb",
                gz_sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            File(
                name="train-labels-idx1-ubyte",
                holds="the training labels",
                shape=(60000,),
                md5="a25bea736e30d166cdddb491f175f624",
                gz_sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
        ),
        "test": (
            File(
                name="t10k-images-idx3-ubyte",
                holds="the test images",
                shape=(10000, 28, 28),
                md5="2646ac647ad5339dbf082846283269ea",
                gz_sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            File(
                name="t10k-labels-idx1-ubyte",
                holds="the test labels",
                shape=(10000,),
                md5="27ae3e4e09519cfbb04c329615203637",
                gz_sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    },
)


def load_mnist(data_dir: str | os.PathLike[str] | None = None, *, subset: str = "all", order: str = "official") -> Dataset:
    """Load MNIST, 70,000 handwritten digits, from its four idx files, plain or .gz; each is checked by its MD5.

    Parameters
    ----------
    data_dir : path, optional
        Where the files are: in this folder, else in its subfolder ``mnist``, and nowhere else. Without it, the folder
        that the environment variable ``INTNET_DATA`` names is searched the same way, then a cache that is filled by
        download (11 MB, once; needs pooch).
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
    _check_choice("subset", subset, ("all", "train", "test"))
    _check_choice("order", order, ("official", "mldata"))
    parts = ("train", "test") if subset == "all" else (subset,)
    files = [file for part in parts for file in MNIST.parts[part]]
    arrays = [read_idx(MNIST, file, path) for file, path in zip(files, locate(MNIST, files, data_dir), strict=True)]
    images, labels = arrays[::2], arrays[1::2]
    if order == "mldata":
        by_label = [np.argsort(part, kind="stable") for part in labels]
        images = [part[rows] for part, rows in zip(images, by_label, strict=True)]
        labels = [part[rows] for part, rows in zip(labels, by_label, strict=True)]
    codes = np.concatenate(images)
    return Dataset(
        name="mnist",
        codes=codes.reshape(len(codes), -1),
        values=np.arange(256) / 255,
        labels=np.concatenate(labels),
        classes=10,
        shape=codes.shape[1:],
    )


def _check_choice(name: str, choice: str, choices: tuple[str, ...]) -> None:
    if choice not in choices:
        raise InputError(f"{name} must be one of {', '.join(map(repr, choices))}, got {choice!r}")
