"""The data sets of the studies: every input as a small integer code, and the real number each code stands for.

An input has few levels (17 in DIGITS, 256 in MNIST), so a quantizer need only be applied to `Dataset.values`, once per
level, and never to the samples.
"""

from intnet.datasets._dataset import Dataset
from intnet.datasets._digits import load_digits
from intnet.datasets._mnist import load_mnist

__all__ = ["Dataset", "load_digits", "load_mnist"]
