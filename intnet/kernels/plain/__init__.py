"""The kernels that define intnet's results: plain loops over the scalar rules.

Fast kernels elsewhere carry the same names, take the same arguments and give the same bits. Kernels only loop: whoever
calls them has checked the arguments and made the arrays.
"""

from intnet.kernels.plain.online import (
    ERROR_HIGH,
    FLOORED,
    LOST,
    TOTALS,
    UPDATE_HIGH,
    WRAPS,
    count_nonzero,
    pack_nonzero,
    train_online,
)
from intnet.kernels.plain.product import bring_into_word, largest_magnitude, limit_sums, multiply

__all__ = [
    "ERROR_HIGH",
    "FLOORED",
    "LOST",
    "TOTALS",
    "UPDATE_HIGH",
    "WRAPS",
    "bring_into_word",
    "count_nonzero",
    "largest_magnitude",
    "limit_sums",
    "multiply",
    "pack_nonzero",
    "train_online",
]
