"""Train neural networks in integers, bit for bit."""

from intnet._version import __version__

__all__ = ["__version__"]
