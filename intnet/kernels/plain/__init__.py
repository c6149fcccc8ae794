"""The kernels that define intnet's results: plain loops over the scalar rules.

Fast kernels elsewhere carry the same names, take the same arguments and give the same bits. Kernels only loop: whoever
calls them has checked the arguments and made the arrays.
"""

from intnet.kernels.plain.convolution import conv2d, conv2d_backward_input, conv2d_backward_weights
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
from intnet.kernels.plain.pooling import max_pool, max_pool_backward, sum_pool, sum_pool_backward
from intnet.kernels.plain.product import bring_into_word, limit_sums, multiply, quantized_multiply
from intnet.kernels.plain.reduce import argmax_rows, extremes, join_sums, moments, moments_by_words, split_words, sum_axis
from intnet.kernels.plain.requantize import (
    COUNT_LOST,
    COUNT_SATURATED,
    COUNT_WRAPPED,
    COUNTERS,
    SEEN_MAXIMUM,
    SEEN_MINIMUM,
    extents,
    magnitude_bits,
    requantize,
    requantize_one,
    round_all,
    shifts_to_fit,
)

__all__ = [
    "COUNTERS",
    "COUNT_LOST",
    "COUNT_SATURATED",
    "COUNT_WRAPPED",
    "ERROR_HIGH",
    "FLOORED",
    "LOST",
    "SEEN_MAXIMUM",
    "SEEN_MINIMUM",
    "TOTALS",
    "UPDATE_HIGH",
    "WRAPS",
    "argmax_rows",
    "bring_into_word",
    "conv2d",
    "conv2d_backward_input",
    "conv2d_backward_weights",
    "count_nonzero",
    "extents",
    "extremes",
    "join_sums",
    "limit_sums",
    "magnitude_bits",
    "max_pool",
    "max_pool_backward",
    "moments",
    "moments_by_words",
    "multiply",
    "pack_nonzero",
    "quantized_multiply",
    "requantize",
    "requantize_one",
    "round_all",
    "shifts_to_fit",
    "split_words",
    "sum_axis",
    "sum_pool",
    "sum_pool_backward",
    "train_online",
]
