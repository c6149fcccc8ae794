"""Every data set by its name."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from intnet.datasets._cifar import load_cifar10, load_cifar100
from intnet.datasets._dataset import Dataset
from intnet.datasets._digits import digits_part
from intnet.datasets._mnist import load_fashion_mnist, load_mnist
from intnet.errors import InputError


def _load_digits(_data_dir: object, *, subset: str) -> Dataset:
    return digits_part(subset)


# name: the loader, and the options it takes besides data_dir and subset
_LOADERS: dict[str, tuple[Callable[..., Dataset], tuple[str, ...]]] = {
    "digits": (_load_digits, ()),
    "mnist": (load_mnist, ("order",)),
    "fashion-mnist": (load_fashion_mnist, ()),
    "cifar10": (load_cifar10, ("jpeg_decoded",)),
    "cifar10-jpeg": (partial(load_cifar10, jpeg_decoded=True), ()),
    "cifar100": (load_cifar100, ("labels",)),
}
NAMES = tuple(_LOADERS)


def load(name: str, data_dir: str | os.PathLike[str] | None = None, *, subset: str = "all", **options: Any) -> Dataset:
    """Load the data set called `name`.

    Parameters
    ----------
    name : str
        One of `NAMES`. ``"cifar10-jpeg"`` is `load_cifar10` with ``jpeg_decoded=True``.
    data_dir : path, optional
        Where the files are; see each loader. DIGITS has none and needs no folder.
    subset : {"all", "train", "test"}
        The whole data set, or the official part of that name. DIGITS has no official parts: its training part is the
        first 1500 digits and its test part the last 297, a split of intnet's own. Nothing is shuffled; the digits come
        from several writers, in runs, and the last ones are by other hands than the first.
    **options
        The loader's other options: ``order`` for MNIST, ``jpeg_decoded`` for CIFAR-10, ``labels`` for CIFAR-100.

    Returns
    -------
    Dataset
        What the data set's own loader returns.

    Raises
    ------
    InputError
        If there is no data set or option of that name.
    DataError
        If the data set is missing, damaged or not the one it should be.
    """
    if name not in _LOADERS:
        raise InputError(f"there is no data set {name!r}; there are {', '.join(NAMES)}")
    loader, known = _LOADERS[name]
    unknown = [option for option in options if option not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InputError(f"the data set {name!r} has no option {unknown[0]!r}; besides subset {has}")
    return loader(data_dir, subset=subset, **options)
