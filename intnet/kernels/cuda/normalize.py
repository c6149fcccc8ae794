"""Batch normalization on the device: the sums of channels, and the integers that a channel is multiplied by."""

import numpy as np

from intnet.kernels.cuda._driver import SIMULATED, THREADS, cuda, kernel, to_device, to_host, zeros
from intnet.kernels.plain import normalize as plain
from intnet.kernels.plain.normalize import GREATEST, LEAST, PRODUCTS, SUM

_TYPES = ("int8", "int16", "int32")  # wider ones are rounded first; they are compiled when they come
_INT64_MIN, _INT64_MAX = np.int64(-(2**63)), np.int64(2**63 - 1)
_ELEMENTS = 16  # that are worth a thread, as blocks add what they found into one table

# What is computed of one channel is the plain kernel's own work on a table of one column. In the simulator, where arrays are
# no NumPy arrays, the interpreter runs it.
_inverse_roots_one = getattr(plain.inverse_roots, "py_func", plain.inverse_roots) if SIMULATED else plain.inverse_roots
_update_running_one = getattr(plain.update_running, "py_func", plain.update_running) if SIMULATED else plain.update_running


# 1. Sums -----------------------------------------------------------------------------------------------------------------


@kernel("int64[:, ::1]")
def _begin_table(table):
    for c in range(cuda.grid(1), table.shape[1], cuda.gridsize(1)):
        table[SUM, c] = table[PRODUCTS, c] = 0
        table[LEAST, c], table[GREATEST, c] = _INT64_MAX, _INT64_MIN


@kernel(
    "int8[::1], int8[::1], int64, int32[::1], int64[:, ::1]",
    *(f"{a}[::1], {b}[::1], int64, int64[::1], int64[:, ::1]" for a in _TYPES for b in _TYPES),
)
def _channel_sums(a, b, run, sums, table):
    """Add up, a thread a channel and some rows: `run` rows of them in the type of `sums`, which no sum of them leaves.

    A block takes as many channels side by side as it has threads, or several rows of all channels; the threads of a channel
    put together what they found, and one of them adds it to the table.
    """
    totals = cuda.shared.array(THREADS, np.int64)
    products = cuda.shared.array(THREADS, np.int64)
    lows = cuda.shared.array(THREADS, np.int64)
    highs = cuda.shared.array(THREADS, np.int64)
    kind, channels, thread = sums.dtype.type, table.shape[1], np.int64(cuda.threadIdx.x)
    width = min(channels, np.int64(cuda.blockDim.x))
    groups = np.int64(cuda.blockDim.x) // width
    group = thread // width
    lane, size, step = thread - group * width, np.int64(a.size), np.int64(cuda.gridDim.x) * groups * channels
    for base in range(0, channels, width):
        c = base + lane
        total, product, low, high = np.int64(0), np.int64(0), _INT64_MAX, _INT64_MIN
        place = (np.int64(cuda.blockIdx.x) * groups + group) * channels + c
        if group >= groups or c >= channels:
            place = size
        while place < size:
            part, part_product, least, greatest = kind(0), kind(0), a[place], a[place]
            for _ in range(min(run, (size - place + step - np.int64(1)) // step)):
                value, other = a[np.uint64(place)], b[np.uint64(place)]
                part = kind(np.int64(part) + np.int64(value))
                part_product = kind(np.int64(part_product) + np.int64(value) * np.int64(other))
                least, greatest = min(least, value), max(greatest, value)
                place += step
            total += np.int64(part)
            product += np.int64(part_product)
            low, high = min(low, np.int64(least)), max(high, np.int64(greatest))
        totals[thread], products[thread], lows[thread], highs[thread] = total, product, low, high
        cuda.syncthreads()
        left = groups
        while left > 1:
            half = (left + np.int64(1)) >> np.int64(1)
            if group + half < left:
                other_thread = thread + half * width
                totals[thread] += totals[other_thread]
                products[thread] += products[other_thread]
                lows[thread] = min(lows[thread], lows[other_thread])
                highs[thread] = max(highs[thread], highs[other_thread])
            cuda.syncthreads()
            left = half
        if group == 0 and c < channels and low <= high:  # else the block had no row
            cuda.atomic.add(table, (SUM, c), totals[thread])
            cuda.atomic.add(table, (PRODUCTS, c), products[thread])
            cuda.atomic.min(table, (LEAST, c), lows[thread])
            cuda.atomic.max(table, (GREATEST, c), highs[thread])
        cuda.syncthreads()  # before the next channels are written


def channel_sums(a, b, run, sums, products, least, greatest, table):  # noqa: ARG001
    """Add up a channel's values of `a`, and their products with `b`; find its least and greatest value of `a`.

    Of `sums` only the length and the type matter; it, `products`, `least` and `greatest` are not written: threads keep these.
    """
    channels = table.shape[1]
    _begin_table(channels, table)
    rows = np.int64(max(1, int(run) // sums.size))
    _channel_sums(-(-a.size // _ELEMENTS), a, b, rows, sums, table)


# 2. Channels -------------------------------------------------------------------------------------------------------------


@kernel("int64, int64[:, ::1], int64")
def _inverse_roots(rows, table, epsilon_bits):
    for c in range(cuda.grid(1), table.shape[1], cuda.gridsize(1)):
        _inverse_roots_one(rows, table[:, c : c + 1], epsilon_bits)


@kernel("int64, int64[:, ::1], int64, int64, int64[::1], int64[::1], int64[::1]")
def _update_running(rows, table, x_exponent, momentum_shift, mean, variance, saturated):
    count = np.int64(0)
    for c in range(cuda.grid(1), mean.size, cuda.gridsize(1)):
        one = slice(c, c + 1)
        count += _update_running_one(rows, table[:, one], x_exponent, momentum_shift, mean[one], variance[one])
    if count > 0:
        cuda.atomic.add(saturated, 0, count)


def inverse_roots(rows, table, epsilon_bits):
    """Fill in the rows SQUARES to ROOT_SHIFT of the table."""
    _inverse_roots(table.shape[1], np.int64(rows), table, np.int64(epsilon_bits))


def update_running(rows, table, x_exponent, momentum_shift, mean, variance):
    """Move the running mean and variance towards those of the batch; return what saturated."""
    saturated = zeros(1, np.int64)
    shifts = np.int64(x_exponent), np.int64(momentum_shift)
    _update_running(mean.size, np.int64(rows), table, *shifts, mean, variance, saturated)
    return to_host(saturated)[0]


# The factors of a channel depend on the largest of all channels, and their exponent is needed on the host to go on: so these
# small tables are copied there, and only the factors come back. What is on the host already may be given, and asked for, there.


def forward_factors(rows, table, gamma, gamma_exponents, beta, beta_exponents, narrow, factors):
    """Write A and B of every channel, computed on the host; return the exponent of the results, the least and the greatest."""
    here = [_host(array) for array in (table, gamma, gamma_exponents, beta, beta_exponents)]
    return _on_host(plain.forward_factors, factors, np.int64(rows), *here, narrow)


def running_factors(
    mean, variance, gamma, gamma_exponents, beta, beta_exponents, epsilon_shift, x_exponent, largest_x, narrow, factors
):
    """Write A and B of every channel from the running mean and variance, computed on the host; return the exponent."""
    here = [_host(array) for array in (mean, variance, gamma, gamma_exponents, beta, beta_exponents)]
    limits = np.int64(epsilon_shift), np.int64(x_exponent), np.int64(largest_x)
    return _on_host(plain.running_factors, factors, *here, *limits, narrow)


def backward_factors(rows, table, errors, gamma, gamma_exponents, narrow, factors, dgamma):
    """Write P, Q, C and the gradient of gamma of every channel, computed on the host; return the exponents of both."""
    here = [_host(array) for array in (table, errors, gamma, gamma_exponents)]
    gradient = np.empty(dgamma.shape, np.int64)

    def compute(*arguments):
        return plain.backward_factors(*arguments, gradient)

    found = _on_host(compute, factors, np.int64(rows), *here, narrow)
    _write(gradient, dgamma)
    return found


def _on_host(function, factors, *arguments):
    """Call a function that writes factors, and copy these to the device."""
    written = np.empty(factors.shape, np.int64)
    found = function(*arguments, written)
    _write(written, factors)
    return found


def _host(array):
    return array if isinstance(array, np.ndarray) else to_host(array)


def _write(array, target):
    if isinstance(target, np.ndarray):
        target[...] = array
    else:
        target.copy_to_device(to_device(array))
