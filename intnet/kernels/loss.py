"""Gradients of the losses with respect to the outputs of a network, shared among threads.

They are those of the sum over the samples: the division by the size of the batch is the learning rate's. Logits are
``logits * 2**exponents``, with one exponent for all or one for each sample.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet.kernels import _parallel
from intnet.kernels.place import gpu, on_device, to_host
from intnet.kernels.plain import loss as plain
from intnet.kernels.product import Integers

Int64s = NDArray[np.int64]

NITI_FRACTION_BITS = 11  # of the result of `niti_gradient`
SOFTMAX_FRACTION_BITS = plain.FRACTION_BITS  # of the result of `softmax_gradient`
_WORTH_A_THREAD = 1 << 12  # logits
_SUMMED = 512  # losses that are added up in int64


def niti_gradient(logits: Integers, exponents: ArrayLike, labels: Int64s) -> NDArray[np.int32]:
    """Return NITI's integer gradient of the softmax cross-entropy, before the last shift by 4.

    With m the logits of a sample and e their exponent: if e > -7, the octaves ``s = m * 47274 / 2**15 * 2**e`` (times
    log2 e; divisions cut towards zero), ``s = max(s - (max(s) - 10), 0)`` and ``p = 2**s - 1``; else
    ``p = 2**(1 - 2 e) + m * 2**(1 - e) + m**2``. Then ``g = p * 2**11 / sum(p)``, cut, and the label's entry is reduced by
    the sum of all g, so that a row adds up to 0 exactly.

    Parameters
    ----------
    logits : (samples, classes) integers
        From one to ``2**20 - 1`` classes. NITI's are int8: with logits as large as ``2**-e`` and e below -6, the polynomial
        is no exponential any more, so wider ones are to be brought to 8 bits first.
    exponents : one int, or (samples,) of them
    labels : (samples,) int64, 0..classes - 1

    Returns
    -------
    (samples, classes) int32
        In units of ``2**-11``, -2048..2048.

    Notes
    -----
    No argument overflows. The rule above is exact for magnitudes up to ``2**46`` and exponents from -6 up, and below for
    ``e >= -20`` and magnitudes below ``2**20``. Beyond: logits saturate at ``2**46``; an exponent above 4 has the result of 4,
    in which all but the largest are already 0; and m and ``2**-e`` of the polynomial are divided by the power of two that
    brings both to 20 bits.

    Wang et al. 2020, arXiv:2009.13108, and the code of wangmaolin/niti. There the truncation to whole octaves makes the
    distribution too peaked; :func:`softmax_gradient` does not.

    Examples
    --------
    >>> niti_gradient(np.array([[100, 60, 20, -30]]), -4, np.array([1])).tolist()
    [[1923, -1928, 5, 0]]
    """
    return _by_rows(plain.niti_gradient, logits, exponents, labels)


def softmax_gradient(logits: Integers, exponents: ArrayLike, labels: Int64s) -> NDArray[np.int32]:
    """Return the gradient of the softmax cross-entropy: the softmax of every row, less one for the label.

    Parameters
    ----------
    logits : (samples, classes) integers
        Magnitudes below ``2**62``; one class at least.
    exponents : one int, or (samples,) of them
        Any: logits so close that 30 bits see no difference are equal, those so far that they see nothing else get 0.
    labels : (samples,) int64, 0..classes - 1

    Returns
    -------
    (samples, classes) int32
        With 30 fraction bits. A row adds up to 0 exactly, as the label's entry is the rest. Every entry is within
        ``7 * classes * 2**-30`` of the real gradient.

    Notes
    -----
    p_c = exp(m_c - max m) is within ``3 * 2**-30`` (:func:`intnet.arithmetic.exp_negative`), their sum S is at least 1, and
    the quotient ``p_c / S`` is rounded to nearest: that makes an error of at most ``(3 * classes + 0.5) * 2**-30``. The rest
    gathers the errors of classes - 1 others: ``(6 + 0.5) * classes * 2**-30``.

    Examples
    --------
    >>> (softmax_gradient(np.array([[0, 0], [0, 1 << 40]]), [0, -40], np.array([0, 1])) / 2**30).round(4).tolist()
    [[-0.5, 0.5], [0.2689, -0.2689]]
    """
    return _by_rows(plain.softmax_gradient, logits, exponents, labels)


def softmax_loss(logits: Integers, exponents: ArrayLike, labels: Int64s) -> int:
    """Return the cross-entropy of the softmax, summed over the samples, as an integer with 30 fraction bits.

    Parameters
    ----------
    logits, exponents, labels
        As of :func:`softmax_gradient`.

    Returns
    -------
    int
        Within ``(3 * classes + 7) * 2**-30`` a sample of the real loss; the distance from the greatest logit to the label's
        saturates at ``2**22``.

    Examples
    --------
    >>> softmax_loss(np.array([[0, 0]]), 0, np.array([0])) / 2**30
    0.6931471806019545
    """
    logits = np.ascontiguousarray(to_host(logits), np.int64)
    exponents = np.ascontiguousarray(exponents, np.int64).reshape(-1)
    total = 0
    for first in range(0, len(logits), _SUMMED):
        here = slice(first, first + _SUMMED)
        total += int(plain.softmax_loss(logits[here], exponents[here] if exponents.size > 1 else exponents, labels[here]))
    return total


def subtract_target(y: Integers, labels: Int64s, amplitude: int) -> Integers:
    """Return ``y - amplitude * onehot(labels)``, the gradient of half the squared error, exactly.

    Parameters
    ----------
    y : (samples, classes) C-contiguous integers
    labels : (samples,) int64, 0..classes - 1
    amplitude : int
        What the label's output should be, in units of `y`; the others should be 0. For int64, the caller has proven that
        the difference fits.

    Returns
    -------
    (samples, classes)
        Of the next wider type than `y`, or a wider one if the amplitude needs it; int64 at most.
    """
    largest = 2 ** (8 * y.dtype.itemsize - 1) + abs(amplitude)
    kind: Any = np.int16 if largest < 2**15 else np.int32 if largest < 2**31 else np.int64
    if on_device(y):
        return gpu().subtract_target(y, labels, amplitude, kind)
    out: Integers = np.empty(y.shape, kind)
    plain.subtract_target(y, labels, np.int64(amplitude), out)
    return out


def count_correct(logits: Integers, labels: Int64s) -> int:
    """Return the number of rows whose largest value, the first of several, stands at the label.

    Parameters
    ----------
    logits : (samples, classes) C-contiguous integers, one class at least
        All of a row with one exponent.
    labels : (samples,) int64
    """
    return int(gpu().count_correct(logits, labels) if on_device(logits) else plain.count_correct(logits, labels))


def _by_rows(kernel: Callable, logits: Integers, exponents: ArrayLike, labels: Int64s) -> NDArray[np.int32]:
    """Apply a kernel of one gradient to the rows of int64, so that it is compiled once."""
    if on_device(logits):
        return gpu().gradient_of_rows(kernel.__name__, logits, exponents, labels)
    wide = np.ascontiguousarray(logits, np.int64)
    shared = np.asarray(exponents, np.int64).reshape(-1)
    out = np.empty(wide.shape, np.int32)

    def piece(first: int, last: int) -> None:
        kernel(wide[first:last], shared if shared.size == 1 else shared[first:last], labels[first:last], out[first:last])

    _parallel.run(piece, _parallel.pieces_of(len(wide), minimum=max(1, _WORTH_A_THREAD // max(1, wide.shape[1]))))
    return out
