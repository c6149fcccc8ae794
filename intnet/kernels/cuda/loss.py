"""Gradients of the losses on the device, one row a sample, and how many rows are right.

A block of threads takes a row after the other, its threads the classes; what they find is put together in shared memory.
Powers are computed again where they are needed, or wait in the result.
"""

import numpy as np

from intnet.arithmetic import TO_ZERO, exp_negative, niti_octaves, niti_polynomial, niti_power, round_shift_any
from intnet.kernels.cuda._driver import THREADS, cuda, kernel, to_host, zeros
from intnet.kernels.plain.loss import _NITI_BITS, _NITI_SCALE, FRACTION_BITS
from intnet.kernels.plain.requantize import magnitude_bits

_TYPES = ("int8", "int16", "int32", "int64")
_BITS, _SCALE, _FRACTION_BITS = np.int64(_NITI_BITS), np.int64(_NITI_SCALE), np.int64(FRACTION_BITS)
_INT64_MIN, _INT64_MAX = np.int64(-(2**63)), np.int64(2**63 - 1)
_ADD, _MINIMUM, _MAXIMUM = range(3)


# 1. What a block finds out together --------------------------------------------------------------------------------------


@cuda.jit(device=True)
def _of_block(value, how, room):
    """Return the sum, least or greatest of the values of all threads to each of them."""
    thread, left = cuda.threadIdx.x, cuda.blockDim.x
    room[thread] = value
    cuda.syncthreads()
    while left > 1:
        half = (left + 1) >> 1
        if thread + half < left:
            one, other = room[thread], room[thread + half]
            if how == _ADD:
                room[thread] = one + other
            elif how == _MINIMUM:
                room[thread] = min(one, other)
            else:
                room[thread] = max(one, other)
        cuda.syncthreads()
        left = half
    found = room[0]
    cuda.syncthreads()  # before the room is written again
    return found


@cuda.jit(device=True)
def _largest(logits, begin, classes, room):
    """Return the largest of a row of logits."""
    largest = _INT64_MIN
    for c in range(cuda.threadIdx.x, classes, cuda.blockDim.x):
        largest = max(largest, logits[begin + c])
    return _of_block(largest, _MAXIMUM, room)


# 2. Rows -----------------------------------------------------------------------------------------------------------------


@cuda.jit(device=True)
def _niti_power(logit, exponent, largest, cut, unit):
    """Return the power of a logit: of the largest octaves, or where the exponent is -7 or less by the polynomial."""
    if exponent > -7:
        return niti_power(niti_octaves(logit, exponent), largest)
    return niti_polynomial(round_shift_any(logit, cut, TO_ZERO), unit)


@kernel("int64[::1], int64[::1], int64[::1], int64, int64, int32[::1]")
def _niti_gradient(logits, exponents, labels, samples, classes, out):
    room = cuda.shared.array(THREADS, np.int64)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    for i in range(cuda.blockIdx.x, samples, cuda.gridDim.x):
        begin = np.int64(i) * classes
        exponent = exponents[i] if exponents.size > 1 else exponents[0]
        greatest = _largest(logits, begin, classes, room)
        largest, cut, unit = np.int64(0), np.int64(0), np.int64(0)
        if exponent > -7:
            largest = np.int64(niti_octaves(greatest, exponent))  # as the rule is monotonic
        else:
            least = _INT64_MAX
            for c in range(thread, classes, threads):
                least = min(least, logits[begin + c])
            least = _of_block(least, _MINIMUM, room)
            bits = max(np.int64(magnitude_bits(least, greatest)), -exponent)
            cut = max(bits - _BITS, np.int64(0))
            unit = np.int64(1) << (-exponent - cut) if -exponent >= cut else np.int64(0)
        total = np.int64(0)
        for c in range(thread, classes, threads):
            total += _niti_power(logits[begin + c], exponent, largest, cut, unit)
        total = _of_block(total, _ADD, room)
        given = np.int64(0)
        for c in range(thread, classes, threads):
            share = (np.int64(_niti_power(logits[begin + c], exponent, largest, cut, unit)) << _SCALE) // total
            out[begin + c] = share
            given += share
        given = _of_block(given, _ADD, room)
        if thread == 0:
            out[begin + labels[i]] = np.int64(out[begin + labels[i]]) - given


@kernel("int64[::1], int64[::1], int64[::1], int64, int64, int32[::1]")
def _softmax_gradient(logits, exponents, labels, samples, classes, out):
    room = cuda.shared.array(THREADS, np.int64)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    for i in range(cuda.blockIdx.x, samples, cuda.gridDim.x):
        begin = np.int64(i) * classes
        exponent = exponents[i] if exponents.size > 1 else exponents[0]
        largest = _largest(logits, begin, classes, room)
        total, given = np.int64(0), np.int64(0)
        for c in range(thread, classes, threads):
            power = np.int64(exp_negative(largest - logits[begin + c], exponent))  # up to 2**30
            out[begin + c] = power
            total += power
        total = _of_block(total, _ADD, room)
        half = total >> np.int64(1)
        for c in range(thread, classes, threads):
            share = ((np.int64(out[begin + c]) << _FRACTION_BITS) + half) // total  # below 2**60 + 2**61
            out[begin + c] = share
            given += share
        given = _of_block(given, _ADD, room)
        if thread == 0:
            out[begin + labels[i]] = np.int64(out[begin + labels[i]]) - given


@kernel(*(f"{a}[::1], int64[::1], int64, int64, {b}[::1]" for a in _TYPES for b in _TYPES[1:]))
def _subtract_target(y, labels, amplitude, classes, out):
    size, thread = cuda.gridsize(1), cuda.grid(1)
    rows, columns = size // classes, size % classes  # that a thread goes on by
    row, c = np.int64(thread // classes), np.int64(thread % classes)
    for i in range(thread, out.size, size):
        out[i] = np.int64(y[i]) - (amplitude if c == labels[row] else np.int64(0))
        row, c = row + rows, c + columns
        if c >= classes:
            row, c = row + np.int64(1), c - classes


@kernel(*(f"{kind}[:, ::1], int64[::1], int64[::1]" for kind in _TYPES))
def _count_correct(logits, labels, correct):
    count = np.int64(0)
    for i in range(cuda.grid(1), logits.shape[0], cuda.gridsize(1)):
        best, largest = np.int64(0), logits[i, 0]
        for c in range(1, logits.shape[1]):
            if logits[i, c] > largest:
                best, largest = np.int64(c), logits[i, c]
        if best == labels[i]:
            count += np.int64(1)
    if count > 0:
        cuda.atomic.add(correct, 0, count)


# 3. The names and arguments of ``plain.loss`` ----------------------------------------------------------------------------


def niti_gradient(logits, exponents, labels, out):
    """Write NITI's gradient of the softmax cross-entropy into `out`."""
    samples, classes = logits.shape
    flat = logits.reshape(-1), exponents, labels
    _niti_gradient(samples * THREADS, *flat, np.int64(samples), np.int64(classes), out.reshape(-1))


def softmax_gradient(logits, exponents, labels, out):
    """Write the softmax of every row with 30 fraction bits, less one for its label, into `out`."""
    samples, classes = logits.shape
    flat = logits.reshape(-1), exponents, labels
    _softmax_gradient(samples * THREADS, *flat, np.int64(samples), np.int64(classes), out.reshape(-1))


def subtract_target(y, labels, amplitude, out):
    """Write `y`, less `amplitude` in the column of every row's label, into `out`, of a type that holds it."""
    _subtract_target(y.size, y.reshape(-1), labels, np.int64(amplitude), np.int64(y.shape[1]), out.reshape(-1))


def count_correct(logits, labels):
    """Return in how many rows the first of the largest values stands at the label."""
    correct = zeros(1, np.int64)
    _count_correct(logits.shape[0], logits, labels, correct)
    return to_host(correct)[0]
