"""The kernels, chosen: ``plain`` defines every result, faster ones give the same bits where they apply.

Nothing outside this folder knows which one ran.
"""

import itertools

import numba
import numpy as np

from intnet.kernels import plain, simd
from intnet.kernels._parallel import set_threads, threads
from intnet.kernels.activation import (
    CLIP,
    IDENTITY,
    POLYNOMIAL,
    dropout,
    hard_tanh,
    hard_tanh_backward,
    leaky_relu,
    leaky_relu_backward,
    logistic_backward,
    look_up,
    relu,
    relu_backward,
    sign,
    sign_backward,
    tanh_backward,
)
from intnet.kernels.codes import SUM_BITS as CODED_BITS
from intnet.kernels.codes import combine_coded
from intnet.kernels.combine import add_bias, alignment, alignment_of_one, divide_rows, linear_combination
from intnet.kernels.convolution import conv2d, conv2d_backward_input, conv2d_backward_weights, output_size
from intnet.kernels.dense import Rounded, RoundedProduct, multiply_transposed
from intnet.kernels.edge import dequantize, exponents_of, quantize, quantize_nearest
from intnet.kernels.images import draw_augmentation, gather, gather_augmented
from intnet.kernels.loss import (
    NITI_FRACTION_BITS,
    SOFTMAX_FRACTION_BITS,
    count_correct,
    niti_gradient,
    softmax_gradient,
    softmax_loss,
    subtract_target,
)
from intnet.kernels.normalization import (
    RUNNING_BITS,
    BatchStatistics,
    LinearMap,
    bounds_of,
    evaluate,
    evaluate_requantized,
    normalize_backward,
    normalize_batch,
    normalize_running,
    pool_running,
    shift_to_fit,
    update_running,
)
from intnet.kernels.place import (
    DEVICES,
    empty_beside,
    move,
    move_beside,
    on_device,
    resolve_device,
    to_device,
    to_host,
    zeros_beside,
)
from intnet.kernels.plain import (
    COUNT_LOST,
    COUNT_SATURATED,
    COUNT_WRAPPED,
    COUNTERS,
    ERROR_HIGH,
    FLOORED,
    LOGIT_LIMIT,
    LOST,
    MOST_LEVELS,
    ORDER_STREAM,
    ROSENBROCK_BITS,
    ROUNDING_STREAM,
    SAMPLES_A_BLOCK,
    SEEN_MAXIMUM,
    SEEN_MINIMUM,
    TOTALS,
    UPDATE_HIGH,
    WRAPS,
    count_nonzero,
    descend,
    encode,
    join_gradient,
    layer_sums,
    least_squares_full_gradient,
    least_squares_sgd,
    least_squares_svrg,
    move_offsets,
    pack_nonzero,
    pair_loss,
    perceptron_changes,
    perceptron_forward,
    perceptron_gradient,
    perceptron_losses,
    perceptron_outputs,
    perceptron_pair_losses,
    quantized_multiply,
    recentre,
    root_of_squares,
    rosenbrock_descent,
    scale_rows,
    shrink,
    sign_stochastically,
    softmax_full_gradient,
    softmax_sgd,
    softmax_svrg,
)
from intnet.kernels.pooling import max_pool, max_pool_backward, spread, sum_pool, sum_pool_backward
from intnet.kernels.product import multiply
from intnet.kernels.reduce import argmax_rows, count_filled, count_unmoved, extremes, max_magnitude, moments, sum_axes
from intnet.kernels.requantization import Requantizer, add_counters, exponents_of_integers, new_counters, requantize
from intnet.kernels.update import Factors, Target, Update, Updates, new_counters_of_roles

__all__ = [
    "CLIP",
    "CODED_BITS",
    "COUNTERS",
    "COUNT_LOST",
    "COUNT_SATURATED",
    "COUNT_WRAPPED",
    "DEVICES",
    "ERROR_HIGH",
    "FLOORED",
    "IDENTITY",
    "LOGIT_LIMIT",
    "LOST",
    "MOST_LEVELS",
    "NITI_FRACTION_BITS",
    "ORDER_STREAM",
    "POLYNOMIAL",
    "ROSENBROCK_BITS",
    "ROUNDING_STREAM",
    "RUNNING_BITS",
    "SAMPLES_A_BLOCK",
    "SEEN_MAXIMUM",
    "SEEN_MINIMUM",
    "SOFTMAX_FRACTION_BITS",
    "TOTALS",
    "UPDATE_HIGH",
    "WRAPS",
    "BatchStatistics",
    "Factors",
    "LinearMap",
    "Requantizer",
    "Rounded",
    "RoundedProduct",
    "Target",
    "Update",
    "Updates",
    "add_bias",
    "add_counters",
    "alignment",
    "alignment_of_one",
    "argmax_rows",
    "bounds_of",
    "combine_coded",
    "conv2d",
    "conv2d_backward_input",
    "conv2d_backward_weights",
    "count_correct",
    "count_filled",
    "count_nonzero",
    "count_unmoved",
    "dequantize",
    "descend",
    "divide_rows",
    "draw_augmentation",
    "dropout",
    "empty_beside",
    "encode",
    "evaluate",
    "evaluate_requantized",
    "exponents_of",
    "exponents_of_integers",
    "extremes",
    "gather",
    "gather_augmented",
    "hard_tanh",
    "hard_tanh_backward",
    "join_gradient",
    "layer_sums",
    "leaky_relu",
    "leaky_relu_backward",
    "least_squares_full_gradient",
    "least_squares_sgd",
    "least_squares_svrg",
    "linear_combination",
    "logistic_backward",
    "look_up",
    "max_magnitude",
    "max_pool",
    "max_pool_backward",
    "moments",
    "move",
    "move_beside",
    "move_offsets",
    "multiply",
    "multiply_transposed",
    "new_counters",
    "new_counters_of_roles",
    "niti_gradient",
    "normalize_backward",
    "normalize_batch",
    "normalize_running",
    "on_device",
    "output_size",
    "pack_nonzero",
    "pair_loss",
    "perceptron_changes",
    "perceptron_forward",
    "perceptron_gradient",
    "perceptron_losses",
    "perceptron_outputs",
    "perceptron_pair_losses",
    "pool_running",
    "quantize",
    "quantize_nearest",
    "quantized_multiply",
    "recentre",
    "relu",
    "relu_backward",
    "requantize",
    "resolve_device",
    "root_of_squares",
    "rosenbrock_descent",
    "scale_rows",
    "set_threads",
    "shift_to_fit",
    "shrink",
    "sign",
    "sign_backward",
    "sign_stochastically",
    "softmax_full_gradient",
    "softmax_gradient",
    "softmax_loss",
    "softmax_sgd",
    "softmax_svrg",
    "spread",
    "subtract_target",
    "sum_axes",
    "sum_pool",
    "sum_pool_backward",
    "tanh_backward",
    "threads",
    "to_device",
    "to_host",
    "train_online",
    "train_online_kinds",
    "update_running",
    "zeros_beside",
]

# Vectors exist only in compiled code.
_VECTORS = not numba.config.DISABLE_JIT


def train_online(starts, columns, codes, labels, levels, fraction_bits, lr_shifts, first_iteration, weights, hits, totals):
    """Train every cell of a group: see :func:`intnet.kernels.plain.train_online`, which defines it."""
    data = (starts, columns, codes, labels, levels, np.int64(fraction_bits))
    finished = np.zeros(len(lr_shifts), np.uint8)
    first_iteration = np.int64(first_iteration)
    if _VECTORS:
        simd.train_online(*data, lr_shifts, first_iteration, weights, hits, totals, finished)
    for cell in np.flatnonzero(finished == 0):
        one = slice(cell, cell + 1)
        plain.train_online(*data, lr_shifts[one], first_iteration, weights[one], hits[one], totals[one])


def train_online_kinds(
    starts, columns, codes, labels, levels, fraction_bits, kinds, lr_shifts, first_iteration, weights, hits, totals
):
    """Train cells of different fraction bits: on a GPU all of them in one launch or two.

    Parameters
    ----------
    levels : (number of kinds, number of codes) int64
        The integers that the codes stand for, for each kind of cell.
    fraction_bits : (number of kinds,) int64
    kinds : (cells,) int64
        Which kind each cell is of.
    starts, columns, codes, labels, lr_shifts, first_iteration, weights, hits, totals : as in `train_online`
        A column stands once in a sample at most.
    """
    if on_device(weights):
        from intnet.kernels.cuda import online

        data = (starts, columns, codes, labels, levels, fraction_bits, kinds, lr_shifts, first_iteration)
        online.train_online_kinds(*data, weights, hits, totals)
        return
    changes = np.flatnonzero(np.diff(kinds)) + 1  # neighbours of one kind are trained together
    for begin, end in itertools.pairwise([0, *changes, len(kinds)] if len(kinds) else []):
        kind, some = kinds[begin], slice(begin, end)
        data = (starts, columns, codes, labels, levels[kind], fraction_bits[kind], lr_shifts[some], first_iteration)
        train_online(*data, weights[some], hits[some], totals[some])
