"""Gradients of the losses with respect to the outputs of a network, one row a sample, and how many rows are right."""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import (
    TIES_EVEN,
    TO_ZERO,
    exp_negative,
    log_of_sum,
    niti_octaves,
    niti_polynomial,
    niti_power,
    round_shift_any,
    shift_left,
)
from intnet.kernels.plain.requantize import extent, magnitude_bits

_NITI_BITS = 20  # what the polynomial's arguments are kept to
_NITI_SCALE = 11  # NITI's probabilities are in units of 2**-11
FRACTION_BITS = 30  # of the gradient of `softmax_gradient`
_LOSS_MAX = np.int64(2**52)  # of a sample, where it saturates: 2**22 nats


@jit
def niti_polynomial_row(logits, exponent, powers):
    """Write NITI's powers of a row with an exponent of -7 or less, up to a common factor; see `niti_gradient`."""
    least, greatest = extent(logits, logits[0], logits[0])
    bits = max(magnitude_bits(least, greatest), -exponent)
    cut = max(bits - np.int64(_NITI_BITS), np.int64(0))
    unit = np.int64(1) << (-exponent - cut) if -exponent >= cut else np.int64(0)
    for c in range(logits.shape[0]):
        powers[c] = niti_polynomial(round_shift_any(logits[c], cut, TO_ZERO), unit)


@jit
def niti_gradient(logits, exponents, labels, out):
    """Write NITI's gradient of the softmax cross-entropy into `out`.

    Parameters
    ----------
    logits : (samples, classes) int64
        One class at least, fewer than ``2**20``.
    exponents : (1,) or (samples,) int64
    labels : (samples,) int64
    out : (samples, classes) int32, written
    """
    samples, classes = logits.shape
    powers = np.empty(classes, np.int64)
    for i in range(samples):
        row, target = logits[i], out[i]
        exponent = exponents[i] if exponents.shape[0] > 1 else exponents[0]
        if exponent > -7:
            largest = niti_octaves(extent(row, row[0], row[0])[1], exponent)  # as the rule is monotonic
            for c in range(classes):
                powers[c] = niti_power(niti_octaves(row[c], exponent), largest)
        else:
            niti_polynomial_row(row, exponent, powers)
        total, given = np.int64(0), np.int64(0)
        for c in range(classes):
            total += powers[c]
        for c in range(classes):
            share = (powers[c] << np.int64(_NITI_SCALE)) // total
            target[c] = share
            given += share
        target[labels[i]] = np.int64(target[labels[i]]) - given


@jit
def softmax_gradient_row(row, exponent, label, powers, out):
    """Write the softmax of one row with 30 fraction bits, less one for its label, into `out`; see `softmax_gradient`.

    `powers` is room for as many int64 as there are classes.
    """
    classes = row.shape[0]
    largest = extent(row, row[0], row[0])[1]
    total, given = np.int64(0), np.int64(0)
    for c in range(classes):
        powers[c] = exp_negative(largest - row[c], exponent)
        total += powers[c]
    half = total >> np.int64(1)
    for c in range(classes):
        share = ((powers[c] << np.int64(FRACTION_BITS)) + half) // total  # below 2**60 + 2**61
        out[c] = share
        given += share
    out[label] = np.int64(out[label]) - given


@jit
def softmax_gradient(logits, exponents, labels, out):
    """Write the softmax of every row with 30 fraction bits, less one for its label, into `out`; rows add up to 0.

    Parameters
    ----------
    logits : (samples, classes) int64
        Magnitudes below ``2**62``; one class at least, fewer than ``2**31``.
    exponents : (1,) or (samples,) int64
    labels : (samples,) int64
    out : (samples, classes) int32, written
    """
    samples, classes = logits.shape
    powers = np.empty(classes, np.int64)
    for i in range(samples):
        exponent = exponents[i] if exponents.shape[0] > 1 else exponents[0]
        softmax_gradient_row(logits[i], exponent, labels[i], powers, out[i])


@jit
def softmax_loss(logits, exponents, labels):
    """Return the cross-entropy of the softmax, ``log(sum of exp(z - top)) + top - z_label``, summed, with 30 fraction bits.

    Parameters
    ----------
    logits, exponents, labels
        As of `softmax_gradient`; fewer than ``2**10`` samples.
    """
    samples, classes = logits.shape
    loss = np.int64(0)
    for i in range(samples):
        row, exponent = logits[i], exponents[i] if exponents.shape[0] > 1 else exponents[0]
        top, total = extent(row, row[0], row[0])[1], np.int64(0)
        for c in range(classes):
            total += exp_negative(top - row[c], exponent)
        distance, shift = top - row[labels[i]], exponent + np.int64(FRACTION_BITS)
        if shift >= 0:
            most = _LOSS_MAX >> min(shift, np.int64(62))
            distance = _LOSS_MAX if distance > most else shift_left(distance, shift)
        else:
            distance = min(round_shift_any(distance, -shift, TIES_EVEN), _LOSS_MAX)
        loss += distance + log_of_sum(total)
    return loss


@jit
def subtract_target(y, labels, amplitude, out):
    """Write `y`, less `amplitude` in the column of every row's label, into `out`, of a type that holds it.

    Parameters
    ----------
    y : (samples, classes) integers
    labels : (samples,) int64
    amplitude : int64
    out : (samples, classes) integers, written
    """
    for i in range(y.shape[0]):
        row, target = y[i], out[i]
        for c in range(row.shape[0]):
            target[c] = row[c]
        target[labels[i]] = np.int64(row[labels[i]]) - amplitude


@jit
def count_correct(logits, labels):
    """Return in how many rows the first of the largest values stands at the label.

    Parameters
    ----------
    logits : (samples, classes) integers, one class at least
    labels : (samples,) int64
    """
    correct = np.int64(0)
    for i in range(logits.shape[0]):
        row, best = logits[i], np.int64(0)
        for c in range(1, row.shape[0]):
            if row[c] > row[best]:
                best = np.int64(c)
        if best == labels[i]:
            correct += 1
    return correct
