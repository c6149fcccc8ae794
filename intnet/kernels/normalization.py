"""Batch normalization of channels, in integers: what stands between a checked call and the kernels of ``plain.normalize``.

A result is first known as a :class:`LinearMap`: the integers by which every channel is multiplied, and the scale they share.
It is computed by :func:`evaluate`, exactly, as int32 where the operands are int8, else as int64; or by
:func:`evaluate_requantized` at once in a narrow word, which gives the same bits as requantizing what `evaluate` gives.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet.arithmetic import JAM, STOCHASTIC, TIES_EVEN
from intnet.kernels import _parallel
from intnet.kernels.place import empty_beside, gpu, on_device, to_host
from intnet.kernels.plain import linear as plain_linear
from intnet.kernels.plain import normalize as plain
from intnet.kernels.plain import shift_to_fit as shift_of_extremes
from intnet.kernels.product import Integers, largest_of_type
from intnet.kernels.reduce import max_magnitude
from intnet.kernels.requantization import (
    COMPILED,
    NO_SEQUENCE,
    SATURATE,
    _prepared,
    add_counters,
    new_counters,
    requantize,
    storage_of,
    word_of,
)
from intnet.kernels.simd import linear as simd_linear
from intnet.kernels.simd import requantize as simd_requantize
from intnet.random import sequence_words

Int64s = NDArray[np.int64]

RUNNING_BITS = plain.RUNNING_BITS
"""Fraction bits of the running mean and variance."""

_LANES = {1: 2048, 2: 1024, 4: 1024, 8: 1024}  # elements in a row, by the bytes of one: the results of a row stay in L1
_RUN_ROWS = 2**13  # an int8 and 8 rows a block: sums of 2**16 values, products below 2**14 each
_PIECE = 2**17  # elements worth a thread
_ROWS_OF_A_WINDOW = 8  # rows of lanes that are requantized at once, where that takes more than a loop


class BatchStatistics(NamedTuple):
    """What the backward pass and the running statistics need of a batch.

    Attributes
    ----------
    x : (rows, channels) integers
        What was normalized; rounded, where its squares might leave int64.
    exponent : int
        Of `x`.
    table : (TABLE_ROWS, channels) int64
        See :mod:`intnet.kernels.plain.normalize`.
    """

    x: Integers
    exponent: int
    table: Int64s


class LinearMap(NamedTuple):
    """``sum of factors[k, c] * operands[k][..., c]  +  factors[-1, c]``, times ``2**exponent``.

    Attributes
    ----------
    operands : tuple of one or two (rows, channels) C-contiguous integers
    factors : (2 or 3, channels) int64
    narrow : bool
        Whether every result is below ``2**31 - 2**29`` in magnitude, and computed in int32, modulo ``2**32``. Else no result,
        nor what it is summed from, leaves int64.
    exponent : int
    bounds : (int, int) or None
        The least and the greatest result, where that is known.
    """

    operands: tuple[Integers, ...]
    factors: Int64s
    narrow: bool
    exponent: int
    bounds: tuple[int, int] | None = None


# 1. The three maps -------------------------------------------------------------------------------------------------------


def normalize_batch(
    x: Integers,
    exponent: int,
    gamma: Integers,
    gamma_exponents: ArrayLike,
    beta: Integers,
    beta_exponents: ArrayLike,
    epsilon_shift: int,
) -> tuple[LinearMap, BatchStatistics]:
    """Normalize by the mean and variance of the batch itself: ``gamma * (x - mean) / sqrt(variance + epsilon) + beta``.

    The variance is divided by the number of rows. For how near the result is to that formula, see
    :func:`intnet.kernels.plain.normalize.forward_factors`.

    Parameters
    ----------
    x : (..., channels) C-contiguous integers
        One row at least, fewer than ``2**31``. Where ``rows * max(abs(x))**2`` may reach ``2**60`` it is first rounded, ties
        to even, to the widest power of two as its largest magnitude that surely stays below.
    exponent : int
        The one exponent of `x`, up to ``2**30`` in magnitude, as all here.
    gamma, beta : (channels,) integers
        What is wider than 31 and 61 bits is rounded to them, ties to even.
    gamma_exponents, beta_exponents : int, or (1,) or (channels,) int64
    epsilon_shift : int
        Epsilon is ``2**-epsilon_shift``, in the units of the real numbers.

    Returns
    -------
    result : LinearMap
        With its bounds.
    statistics : BatchStatistics

    References
    ----------
    Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1.
    """
    x, exponent = _narrowed(x.reshape(-1, x.shape[x.ndim - 1]), exponent)
    rows, channels = x.shape
    table = _sums(x, x)
    plain.inverse_roots(np.int64(rows), table, np.int64(epsilon_shift + 2 * exponent))
    factors, narrow = np.empty((2, channels), np.int64), x.dtype.itemsize == 1
    parameters = (*_each(gamma, gamma_exponents, 31), *_each(beta, beta_exponents, 61))
    scale, least, greatest = plain.forward_factors(np.int64(rows), table, *parameters, narrow, factors)
    return (
        LinearMap((x,), factors, narrow, int(scale), (int(least), int(greatest))),
        BatchStatistics(x, exponent, table),
    )


def normalize_running(
    x: Integers,
    exponent: int,
    mean: Int64s,
    variance: Int64s,
    gamma: Integers,
    gamma_exponents: ArrayLike,
    beta: Integers,
    beta_exponents: ArrayLike,
    epsilon_shift: int,
) -> LinearMap:
    """Normalize by the running mean and variance.

    The scale depends on nothing but `exponent`, the type of `x` and the parameters, so that a row's result is the same in
    any batch. For how near it is, see :func:`intnet.kernels.plain.normalize.running_factors`.

    Parameters
    ----------
    x : (..., channels) C-contiguous int8, int16 or int32
    mean, variance : (channels,) int64
        With RUNNING_BITS fraction bits, from :func:`update_running`.
    exponent, gamma, gamma_exponents, beta, beta_exponents, epsilon_shift : as in :func:`normalize_batch`

    Returns
    -------
    LinearMap
        Without bounds.
    """
    x = x.reshape(-1, x.shape[x.ndim - 1])
    factors, narrow = np.empty((2, x.shape[1]), np.int64), x.dtype.itemsize == 1
    parameters = (*_each(gamma, gamma_exponents, 31), *_each(beta, beta_exponents, 61))
    limits = np.int64(epsilon_shift), np.int64(exponent), np.int64(largest_of_type(x))
    scale = plain.running_factors(mean, variance, *parameters, *limits, narrow, factors)
    return LinearMap((x,), factors, narrow, int(scale))


def normalize_backward(
    dy: Integers, exponent: int, statistics: BatchStatistics, gamma: Integers, gamma_exponents: ArrayLike
) -> tuple[LinearMap, Int64s, int, Int64s, int]:
    """Return the gradients of the input, of gamma and of beta, of a loss whose gradient by the result is `dy`.

    The mean and the variance depend on the input too. For how near the results are to the formula see
    :func:`intnet.kernels.plain.normalize.backward_factors`.

    Parameters
    ----------
    dy : (..., channels) C-contiguous integers
        Rounded like `x`, if its products with `x` might leave int64.
    exponent : int
        The one exponent of `dy`.
    statistics : BatchStatistics
        From :func:`normalize_batch`.
    gamma, gamma_exponents : as there

    Returns
    -------
    dx : LinearMap
        Without bounds.
    dgamma : (channels,) int64
        Below ``2**40`` in magnitude.
    dgamma_exponent : int
    dbeta : (channels,) int64
        Exact sums of `dy`.
    dbeta_exponent : int
    """
    x, table = statistics.x, statistics.table
    rows, channels = x.shape
    dy = dy.reshape(rows, channels)
    largest_x = max(1, -int(table[plain.LEAST].min(initial=0)), int(table[plain.GREATEST].max(initial=0)))
    if largest_of_type(dy) * largest_x * rows >= 2**60:
        dy, exponent = _rounded(dy, exponent, ((2**60 - 1) // (largest_x * rows)).bit_length() - 1)
    errors = _sums(dy, x)
    factors, dgamma = np.empty((3, channels), np.int64), np.empty(channels, np.int64)
    narrow = x.dtype.itemsize == dy.dtype.itemsize == 1
    gammas = _each(gamma, gamma_exponents, 31)
    scale, dgamma_scale = plain.backward_factors(np.int64(rows), table, errors, *gammas, narrow, factors, dgamma)
    dx = LinearMap((dy, x), factors, narrow, int(scale) + exponent - statistics.exponent)
    return dx, dgamma, int(dgamma_scale) + exponent, errors[plain.SUM].copy(), exponent


def update_running(statistics: BatchStatistics, mean: Int64s, variance: Int64s, momentum_shift: int) -> int:
    """Move the running mean and variance, in place, by ``2**-momentum_shift`` of the way to those of a batch.

    Parameters
    ----------
    statistics : BatchStatistics
    mean, variance : (channels,) int64
        With RUNNING_BITS fraction bits.
    momentum_shift : int, 0..62

    Returns
    -------
    int
        How many means and variances of the batch were saturated, at ``2**29``.
    """
    rows, scale = np.int64(len(statistics.x)), np.int64(statistics.exponent)
    return int(plain.update_running(rows, statistics.table, scale, np.int64(momentum_shift), mean, variance))


def pool_running(statistics: BatchStatistics, mean: Int64s, variance: Int64s, pooled: int) -> int:
    """Take a batch into the mean of batches' means and variances, in place, each weighed by its rows.

    Parameters
    ----------
    statistics, mean, variance : as in `update_running`
    pooled : int
        Rows of the batches before.

    Returns
    -------
    int
        How many means and variances of the batch were saturated, at ``2**29``.
    """
    rows, scale = np.int64(len(statistics.x)), np.int64(statistics.exponent)
    return int(plain.pool_running(rows, statistics.table, scale, np.int64(pooled), mean, variance))


# 2. Their results --------------------------------------------------------------------------------------------------------


def evaluate(linear: LinearMap) -> tuple[Integers, tuple[int, int]]:
    """Compute a map.

    Returns
    -------
    values : (rows, channels) int32 or int64
        To be multiplied by ``2**linear.exponent``.
    bounds : (int, int)
        The least and the greatest of them.
    """
    rows, channels = linear.operands[0].shape
    out: Integers = empty_beside(linear.operands[0], (rows, channels), np.int32 if linear.narrow else np.int64)
    if not out.size:
        return out, (0, 0)
    factors, flat = _lanes_of(linear), out.reshape(-1)
    a, b = _flat_operands(linear)
    if on_device(a):
        return gpu().evaluate(a, b, factors, (rows, channels))

    def piece(first: int, last: int) -> tuple[int, int]:
        return plain_linear.multiply_add(a[first:last], None if b is None else b[first:last], factors, flat[first:last])

    found = _parallel.run(piece, _parallel.pieces_of(out.size, multiple=channels, minimum=_PIECE))
    return out, (min(int(low) for low, _ in found), max(int(high) for _, high in found))


def bounds_of(linear: LinearMap) -> tuple[int, int]:
    """Return the least and the greatest result of a map, computed where they are not yet known."""
    rows, channels = linear.operands[0].shape
    if linear.bounds is not None or rows == 0:
        return linear.bounds or (0, 0)
    factors = _lanes_of(linear)
    a, b = _flat_operands(linear)
    if on_device(a):
        return gpu().bounds_of(a, b, factors)

    def piece(first: int, last: int) -> tuple[int, int]:
        of_a, of_b = a[first:last], None if b is None else b[first:last]
        if linear.narrow and COMPILED:
            return simd_linear.extremes_of_map(of_a, of_b, factors)
        return plain_linear.extremes_of_map(of_a, of_b, factors, np.empty(factors.shape[1], factors.dtype))

    found = _parallel.run(piece, _parallel.pieces_of(a.size, multiple=channels, minimum=_PIECE))
    return min(int(low) for low, _ in found), max(int(high) for _, high in found)


def shift_to_fit(linear: LinearMap, word_bits: int, minimum: int, maximum: int) -> int:
    """Return the shift after which all results of a map fit into a word, as :func:`exponents_of_integers` does for a block."""
    return int(shift_of_extremes(*bounds_of(linear), word_bits, minimum, maximum))


def evaluate_requantized(
    linear: LinearMap,
    shift: int,
    rounding: int,
    overflow: int,
    word_bits: int,
    *,
    random_bits: int = 32,
    seed: int = 0,
    stream: int = 0,
    step: int = 0,
    counters: Int64s | None = None,
) -> Integers:
    """Return ``requantize(evaluate(linear)[0], shift, ..)``, bit for bit, without keeping what is in between.

    Parameters
    ----------
    linear : LinearMap
    shift, rounding, overflow, word_bits, random_bits, seed, stream, step, counters : as in `requantize`
        One shift, any but -2**63.

    Returns
    -------
    (rows, channels) signed integers, of the narrowest type that holds the word
    """
    rows, channels = linear.operands[0].shape
    kind = storage_of(word_bits, True)
    if on_device(linear.operands[0]) and rows:
        sequence = sequence_words(seed, stream, step) if rounding == STOCHASTIC else NO_SEQUENCE
        options = shift, rounding, word_of(word_bits, True, overflow), sequence, random_bits, (rows, channels), kind, counters
        return gpu().evaluate_requantized(*_flat_operands(linear), _lanes_of(linear), *options)
    out: Integers = empty_beside(linear.operands[0], (rows, channels), kind)
    if not out.size:
        return out
    factors, flat = _lanes_of(linear), out.reshape(-1)
    a, b = _flat_operands(linear)
    counted = new_counters() if counters is None else counters
    to = _prepared(rounding, overflow, word_bits, True, random_bits, seed, stream)
    whole_blocks = channels % 4 == 0 or rounding != STOCHASTIC
    if linear.narrow and to.narrow and 0 <= shift <= simd_requantize.SHIFT_MAX and whole_blocks and not step >> 32:
        fast = shift, to._role, *to._keys, np.uint64(step), flat

        def piece(first: int, last: int) -> Int64s:
            of_piece = counted if first == 0 else new_counters()
            simd_linear.multiply_add_round(a, b, factors, first, last, *fast, of_piece)
            return of_piece

    else:
        sequence = sequence_words(seed, stream, step) if rounding == STOCHASTIC else NO_SEQUENCE
        how = np.int64(shift), np.int64(rounding), *word_of(word_bits, True, overflow), sequence, np.int64(random_bits)
        window = factors.shape[1] * (1 if rounding <= JAM else _ROWS_OF_A_WINDOW)

        def piece(first: int, last: int) -> Int64s:
            of_piece = counted if first == 0 else new_counters()
            products: Integers = np.empty(window, factors.dtype)
            views = products, products.view(np.uint8), flat, flat.view(np.uint8)
            plain_linear.multiply_add_requantize(a, b, factors, np.int64(first), np.int64(last), *how, *views, of_piece)
            return of_piece

    add_counters(counted, _parallel.run(piece, _parallel.pieces_of(out.size, multiple=channels, minimum=_PIECE))[1:])
    return out


def _lanes_of(linear: LinearMap) -> Integers:
    """Return the factors, side by side for several rows of the tensor."""
    channels = linear.factors.shape[1]
    few = on_device(linear.operands[0])  # threads have no lanes
    lanes = channels if few else max(1, _LANES[linear.operands[0].dtype.itemsize] // channels) * channels
    factors: Integers = np.empty((len(linear.factors), lanes), np.int32 if linear.narrow else np.int64)
    plain_linear.spread(linear.factors, factors)
    return factors


def _flat_operands(linear: LinearMap) -> tuple[Integers, Integers | None]:
    a = linear.operands[0].reshape(-1)
    return a, linear.operands[1].reshape(-1) if len(linear.operands) > 1 else None


def _each(mantissas: Integers, exponents: ArrayLike, bits: int) -> tuple[Int64s, Int64s]:
    """Return mantissas as int64 below ``2**bits`` in magnitude, and an exponent for each; rounded where they are wider."""
    values = np.ascontiguousarray(to_host(mantissas), np.int64)
    excess = max(0, max_magnitude(values).bit_length() - bits) if mantissas.dtype.itemsize * 8 > bits else 0
    if excess:
        most = 2**bits - 1
        values = np.clip(requantize(values, excess, TIES_EVEN, SATURATE, 64), -most, most)
    each: Int64s = np.empty(values.shape, np.int64)
    each[...] = exponents
    if excess:
        each += excess
    return values, each


def _narrowed(x: Integers, exponent: int) -> tuple[Integers, int]:
    """Return `x` and its exponent, rounded so far that ``rows * max(abs(x))**2`` is below ``2**60``."""
    rows = len(x)
    if largest_of_type(x) ** 2 * rows < 2**60:
        return x, exponent
    bits = 31
    while rows << (2 * bits) >= 2**60:
        bits -= 1
    return _rounded(x, exponent, bits)


def _rounded(x: Integers, exponent: int, bits: int) -> tuple[Integers, int]:
    """Return `x` rounded to magnitudes up to ``2**bits``, at most 31, as int32 at the widest, and its exponent."""
    excess = max(0, max_magnitude(x).bit_length() - bits)
    if excess == 0 and x.dtype.itemsize <= 4:
        return x, exponent
    return requantize(x, excess, TIES_EVEN, SATURATE, 32, out=empty_beside(x, x.shape, np.int32)), exponent + excess


def _sums(a: Integers, b: Integers) -> Int64s:
    """Return the table of the channels of `a`, with the sums of products with `b`."""
    channels = a.shape[1]
    narrow = a.dtype.itemsize == b.dtype.itemsize == 1
    lanes = max(1, _LANES[a.dtype.itemsize] // channels) * channels
    run = np.int64(plain.UNROLLED * _RUN_ROWS * lanes if narrow else 2**62)
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    if on_device(a):
        return gpu().channel_sums(a, b, run, lanes, narrow)

    def piece(first: int, last: int) -> Int64s:
        sums, products = np.empty((2, lanes), np.int32 if narrow else np.int64)
        least, greatest = np.empty((2, lanes), a.dtype)
        table = np.empty((plain.TABLE_ROWS, channels), np.int64)
        plain.channel_sums(flat_a[first:last], flat_b[first:last], run, sums, products, least, greatest, table)
        return table

    tables = _parallel.run(piece, _parallel.pieces_of(a.size, multiple=channels, minimum=_PIECE))
    table = tables[0]
    for other in tables[1:]:
        table[plain.SUM] += other[plain.SUM]
        table[plain.PRODUCTS] += other[plain.PRODUCTS]
        np.minimum(table[plain.LEAST], other[plain.LEAST], out=table[plain.LEAST])
        np.maximum(table[plain.GREATEST], other[plain.GREATEST], out=table[plain.GREATEST])
    return table
