"""Fast kernels on vectors, bit for bit equal to those of ``plain``, for arguments within stated bounds.

The bounds are checked, not assumed: a kernel proves them before it starts or while it runs, and hands back what it cannot
hold.
"""

from intnet.kernels.simd.online import train_online

__all__ = ["train_online"]
