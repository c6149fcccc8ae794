"""The data sets of the studies: every input as a small integer code, and the real number each code stands for.

An input has few levels (17 in DIGITS, 256 in the others), so a quantizer need only be applied to `Dataset.values`, once
per level, and never to the samples.
"""

from intnet.datasets._cifar import load_cifar10, load_cifar100
from intnet.datasets._dataset import Dataset
from intnet.datasets._digits import load_digits
from intnet.datasets._load import NAMES, load
from intnet.datasets._mnist import load_fashion_mnist, load_mnist

__all__ = [
    "NAMES",
    "Dataset",
    "load",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
]
