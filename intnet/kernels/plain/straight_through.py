"""Perceptrons whose activations have few levels, with a derivative that these do not have; and activations that are drawn.

See :mod:`intnet.kernels.plain.levels` for what a network is.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import drawn_sign, high_word, low_word, shift_nearest
from intnet.kernels.plain.levels import SAMPLES_A_BLOCK, add_products, error_of, forward_block
from intnet.random import fill_fractions, room_for

RANDOM_BITS = 32


@jit
def perceptron_forward(inputs, first, last, weights, sizes, count, thresholds, shifts, one, z, a):
    """Write z and the activations of the samples `first` to `last` into the columns 0, 1, .. of `z` and `a`.

    Parameters
    ----------
    z, a : (units of all layers, last - first) int64, written
    others
        As of `forward_block`.
    """
    for begin in range(first, last, SAMPLES_A_BLOCK):
        width, at = min(np.int64(SAMPLES_A_BLOCK), last - begin), begin - first
        forward_block(
            inputs, begin, width, weights, sizes, count, thresholds, shifts, one, z[:, at : at + width], a[:, at : at + width]
        )


@jit
def layer_sums(values, weights, out):
    """Write ``weights @ values``; (inputs, samples) integers, (outputs, inputs) int64, (outputs, samples) int64."""
    n_in, samples = np.int64(values.shape[0]), np.int64(values.shape[1])
    for begin in range(np.int64(0), samples, np.int64(SAMPLES_A_BLOCK)):
        width = min(np.int64(SAMPLES_A_BLOCK), samples - begin)
        for i in range(weights.shape[0]):
            add_products(weights[i], np.int64(0), n_in, values, begin, width, out[i, begin : begin + width])


@jit
def sign_stochastically(z, greatest, least, key_0, key_1, stream, step, first, out):
    """Write 1 with the probability ``(1 + z / greatest) / 2``, of negative z ``(1 + z / least) / 2``, else -1.

    Parameters
    ----------
    z : (size,) int64
    greatest, least : int64, up to ``2**30``
        Of all z, as magnitudes; 0 where there is none.
    key_0, key_1, stream, step : uint64
    first : int64
        The number of the first element among those that share a sequence of random bits.
    out : (size,) int64, written
    """
    size = z.shape[0]
    room = np.empty(room_for(size, RANDOM_BITS), np.int64)
    skip = fill_fractions(key_0, key_1, stream, step, first, size, RANDOM_BITS, room)
    fractions = room[skip:]
    for s in range(size):
        scale = greatest if z[s] > 0 else least
        if scale == 0:
            scale = np.int64(1)  # then z is 0
        out[s] = drawn_sign(z[s], scale, fractions[s])


@jit
def dot_of_rows(a, b):
    """Return the exact sum of products of int64 and integers."""
    total = np.int64(0)
    for s in range(a.shape[0]):
        total += a[s] * np.int64(b[s])
    return total


@jit
def perceptron_gradient(
    inputs, targets, first, last, weights, sizes, z, a, drop, error_left, weight_bits, table, table_shift, table_bits, limits,
    high, low,
):  # fmt: skip
    """Add the gradient of the loss of the samples `first` to `last` by a straight-through derivative.

    The error of a sample is ``e = (output - target) * 2**error_left``, to nearest, of the last layer's only unit. Backwards::

        d_l = round(g(z_l) * round(sum of W_{l+1} d_{l+1} / 2**weight_bits) / 2**table_bits)

    with both roundings to nearest, ties to plus infinity. The gradient of W_l is the exact sum over samples of d_l times the
    activation before.

    Parameters
    ----------
    inputs, targets, first, last, weights, sizes
        As of `perceptron_losses`; one set of weights.
    z, a : (units of all layers, last - first) int64
        Of these samples.
    drop, error_left, weight_bits : int64
    table : (layers, entries) int64
        The derivative g, in units of ``2**-table_bits``, at z from ``-(entries >> 1) << table_shift`` on, in steps of
        ``2**table_shift``; beyond, it is 0.
    table_shift : (layers,) int64
    table_bits : int64
    limits : (layers,) int64
        Magnitudes of z beyond which it is 0, too.
    high, low : (weights,) int64
        Added to.
    """
    layers, units, most = sizes.shape[0] - 1, np.int64(0), np.int64(1)
    starts, places = np.empty(layers, np.int64), np.empty(layers, np.int64)
    start = np.int64(0)
    for layer in range(layers):
        starts[layer], places[layer] = start, units
        start += sizes[layer] * sizes[layer + 1]
        units += sizes[layer + 1]
        most = max(most, sizes[layer + 1])
    d, before = np.empty((most, SAMPLES_A_BLOCK), np.int64), np.empty((most, SAMPLES_A_BLOCK), np.int64)
    entries = np.int64(table.shape[1])
    for begin in range(first, last, SAMPLES_A_BLOCK):
        width, at = min(np.int64(SAMPLES_A_BLOCK), last - begin), begin - first
        for s in range(width):
            error = error_of(z[units - 1, at + s], targets[begin + s], drop)
            d[0, s] = error << error_left if error_left >= 0 else shift_nearest(error, -error_left)
        for back in range(layers):
            layer = layers - 1 - back
            n_in, n_out = sizes[layer], sizes[layer + 1]
            for i in range(n_out):
                errors = d[i, :width]
                for j in range(n_in):
                    if layer == 0:
                        total = dot_of_rows(errors, inputs[j, begin : begin + width])
                    else:
                        total = dot_of_rows(errors, a[places[layer - 1] + j, at : at + width])
                    high[starts[layer] + i * n_in + j] += high_word(total)
                    low[starts[layer] + i * n_in + j] += low_word(total)
            if layer == 0:
                continue
            for j in range(n_in):
                row = before[j]
                for s in range(width):
                    row[s] = np.int64(0)
                for i in range(n_out):
                    weight, errors = weights[starts[layer] + i * n_in + j], d[i]
                    for s in range(width):
                        row[s] += weight * errors[s]
            for j in range(n_in):
                sums = z[places[layer - 1] + j, at : at + width]
                for s in range(width):
                    entry = (sums[s] >> table_shift[layer - 1]) + (entries >> np.int64(1))
                    g = table[layer - 1, entry] if 0 <= entry < entries and abs(sums[s]) <= limits[layer - 1] else np.int64(0)
                    d[j, s] = shift_nearest(g * shift_nearest(before[j, s], weight_bits), table_bits)
