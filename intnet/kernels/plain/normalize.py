"""Batch normalization in integers: the sums of channels, and the integers that a channel is multiplied by.

Notation, after Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1, for one channel of n rows:

    x, dy             the inputs and the gradient of the result: integers, each tensor with one exponent
    mean, variance    of x, in units of x; W = n * (variance + epsilon)
    root, root_shift  root / 2**root_shift = 1 / sqrt(variance + epsilon), the root with 30 or 31 bits
    gamma, beta       the factor and the offset of the channel, each with an exponent of its own

    y = gamma * (x - mean) * root / 2**root_shift + beta                             = A x + B
    dx = gamma * root / 2**root_shift * (dy - D1 / n - (x - mean) * D2 / W)          = P dy + Q x + C
    D1 = sum of dy = dbeta,   D2 = sum of dy * (x - mean),   dgamma = D2 * root / 2**root_shift

What a tensor is multiplied by are integers of one scale for all its channels, as large as its results' type admits: where x
(and dy) are int8, results are int32, else int64.

A tensor is read as rows of ``lanes`` elements, a multiple of the channels, so that loops are long enough to become vectors
where there are few channels. Whoever calls has proven that no sum leaves int64; the bounds are at each place.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import (
    TIES_EVEN,
    bit_length,
    isqrt,
    multiply_divide,
    multiply_shift,
    round_shift_any,
    saturate,
    shift_left,
)

# What is known of every channel of a batch, by row of a table of int64. SQUARES / 2**SQUARES_BITS is the sum of the squared
# deviations from the mean.
SUM, PRODUCTS, LEAST, GREATEST, SQUARES, SQUARES_BITS, ROOT, ROOT_SHIFT = range(8)
TABLE_ROWS = 8

UNROLLED = 8  # rows of lanes at a time
RUNNING_BITS = 32  # fraction bits of the running mean and variance
RUNNING_MAX = np.int64(2**61 - 1)
_SMALL = np.int64(-(2**40))  # bits of nothing: less than those of any number here


# 1. One channel ----------------------------------------------------------------------------------------------------------


@jit
def magnitude_bits(value):
    """Return the number of bits of ``abs(value)``; `value` is not -2**63."""
    return bit_length(-value if value < 0 else value)


@jit
def scaled(value, shift):
    """Return ``value * 2**shift`` to nearest, ties to even; whoever calls has proven that it is an int64."""
    return shift_left(value, shift) if shift >= 0 else round_shift_any(value, -shift, TIES_EVEN)


@jit
def span(rows, total, least, greatest):
    """Return an integer that no distance of a value from the mean exceeds, 0 if all values are the same."""
    floor = total // rows
    return max(greatest - floor, floor + np.int64(1) - least) if least < greatest else np.int64(0)


@jit
def squared_deviations(rows, total, squares):
    """Return the sum of squared deviations from the mean as ``(value, bits)``, for value / 2**bits, from exact sums.

    With X the largest magnitude, ``rows * X**2 < 2**60`` and ``rows < 2**31``. With q = floor(mean) and rest = total - q rows,

        sum of (x - mean)**2 = squares - q * (total + rest) - rest**2 / rows,

    where only the last term is no integer. It is 0 if and only if all values are the same, and else at least 1/2; the result
    is below 2**61 and within half a unit, which is at most a 2**-31 of it.
    """
    floor = total // rows
    rest = total - floor * rows
    whole = squares - floor * (total + rest)  # at most rows * X**2 + rows
    bits = min(np.int64(61) - bit_length(whole), np.int64(31))
    return (whole << bits) - multiply_divide(rest << bits, rest, rows), bits


@jit
def add_epsilon(rows, value, bits, epsilon_bits):
    """Return ``value / 2**bits + rows / 2**epsilon_bits`` as (value, bits), not zero and below 2**62.

    `value` is 0..2**61 - 1 and `rows` 1..2**31 - 1. Exact where `value` is 0, else within a 2**-30 of the result.
    """
    if value == 0:
        return rows, epsilon_bits
    shift, room = bits - epsilon_bits, np.int64(61) - bit_length(rows)
    if shift > room:
        return (rows << room) + round_shift_any(value, shift - room, TIES_EVEN), epsilon_bits + room
    return value + scaled(rows, shift), bits


@jit
def inverse_root(rows, value, bits):
    """Return ``(root, shift)`` with ``root / 2**shift`` the nearest to ``sqrt(rows * 2**bits / value)``.

    `rows` and `value` are 1..2**62 - 1; the root lies in 2**29.5 .. 2**31 and is within a 2**-30 of the exact one.
    """
    up_rows, up_value = np.int64(62) - bit_length(rows), np.int64(62) - bit_length(value)
    quotient = multiply_divide(rows << up_rows, np.int64(1 << 60), value << up_value)  # 2**59 .. 2**61
    shift = np.int64(60) + up_rows - up_value - bits
    if shift & np.int64(1):
        quotient, shift = quotient << np.int64(1), shift + np.int64(1)
    root = isqrt(quotient)
    return root + np.int64(quotient - root * root > root), shift >> np.int64(1)


# 2. Channels -------------------------------------------------------------------------------------------------------------


@jit
def inverse_roots(rows, table, epsilon_bits):
    """Fill in the rows SQUARES to ROOT_SHIFT of the table.

    Parameters
    ----------
    rows : int64
        Fewer than ``2**31``.
    table : (TABLE_ROWS, channels) int64
        SUM to GREATEST are known: the sums are exact, and as `squared_deviations` needs them.
    epsilon_bits : int64
        What is added to the variance is ``2**-epsilon_bits``, in squared units of x.
    """
    for c in range(table.shape[1]):
        value, bits = squared_deviations(rows, table[SUM, c], table[PRODUCTS, c])
        table[SQUARES, c], table[SQUARES_BITS, c] = value, bits
        value, bits = add_epsilon(rows, value, bits, epsilon_bits)
        table[ROOT, c], table[ROOT_SHIFT, c] = inverse_root(rows, value, bits)


@jit
def forward_factors(rows, table, gamma, gamma_exponents, beta, beta_exponents, narrow, factors):
    """Write A and B of every channel; return the exponent of the results, the least and the greatest of them.

    In units of y, and with M the largest of all ``abs(gamma) * span * root / 2**root_shift`` and ``abs(beta)``: the unit is at
    most ``2**-27 * M`` (narrow, else ``2**-57`` of M with max abs x for the span), and ``A x + B`` is within
    ``abs(x - mean) / 2 + 1`` units and a 2**-29 of ``gamma * (x - mean) * root / 2**root_shift`` of the exact y.

    Parameters
    ----------
    rows : int64
    table : (TABLE_ROWS, channels) int64
    gamma, beta : (channels,) int64
        Below ``2**31`` and ``2**61`` in magnitude.
    gamma_exponents, beta_exponents : (channels,) int64
        Up to ``2**32`` in magnitude.
    narrow : bool
        Whether x is int8 and results are int32: a result is below ``2**31 - 2**29``, while B, and what is summed, may
        leave int32 and wraps. Else everything stays below ``2**62``.
    factors : (2, channels) int64, written
        A and B.
    """
    most = _SMALL
    for c in range(table.shape[1]):
        least, greatest = table[LEAST, c], table[GREATEST, c]
        factor, distance = gamma[c] * table[ROOT, c], span(rows, table[SUM, c], least, greatest)
        if not narrow and distance > 0:
            distance = max(-least, greatest)  # A x and A mean have bounds of their own
        if factor != 0 and distance > 0:
            bits = magnitude_bits(factor) + bit_length(distance)
            most = max(most, bits + gamma_exponents[c] - table[ROOT_SHIFT, c])
        if beta[c] != 0:
            most = max(most, magnitude_bits(beta[c]) + beta_exponents[c])
    # A times the distance, and beta, are below 2**29 or 2**59 each; rounding adds less than 2**8 or 2**31
    exponent = most - np.int64(29 if narrow else 59) if most > _SMALL else np.int64(0)
    smallest, largest = np.int64(2**63 - 1), np.int64(-(2**63))
    for c in range(table.shape[1]):
        least, greatest = table[LEAST, c], table[GREATEST, c]
        a = np.int64(0)
        if least < greatest:
            a = scaled(gamma[c] * table[ROOT, c], gamma_exponents[c] - table[ROOT_SHIFT, c] - exponent)
        b = scaled(beta[c], beta_exponents[c] - exponent) - multiply_divide(table[SUM, c], a, rows)
        factors[0, c], factors[1, c] = a, b
        smallest = min(smallest, a * least + b, a * greatest + b)
        largest = max(largest, a * least + b, a * greatest + b)
    return exponent, smallest, largest


@jit
def running_factors(
    mean, variance, gamma, gamma_exponents, beta, beta_exponents, epsilon_shift, x_exponent, largest_x, narrow, factors
):
    """Write A and B of every channel from the running mean and variance; return the exponent of the results.

    It depends on nothing but the parameters and `largest_x`, so that the result of a row does not depend on other rows.
    In units of y, with M the largest of all ``abs(gamma * x) / sigma``, for the largest x, ``abs(gamma * mean) / sigma`` and
    ``abs(beta)``, sigma being ``sqrt(variance + epsilon)``: the unit is at most ``2**-26 * M`` (narrow) or ``2**-56 * M``,
    and ``A x + B`` is within ``abs(x) / 2 + 1`` units and a 2**-29 of ``gamma * x / sigma`` and ``gamma * mean / sigma``.

    Parameters
    ----------
    mean, variance : (channels,) int64
        With RUNNING_BITS fraction bits; the variance not negative, both at most RUNNING_MAX.
    gamma, gamma_exponents, beta, beta_exponents, narrow, factors : as in `forward_factors`
    epsilon_shift, x_exponent : int64
        Epsilon is ``2**-epsilon_shift``.
    largest_x : int64
        No x is larger in magnitude.
    """
    most, one = _SMALL, np.int64(1)
    for again in range(2):
        exponent = most - np.int64(28 if narrow else 58) if most > _SMALL else np.int64(0)
        for c in range(gamma.shape[0]):
            value, bits = add_epsilon(one, variance[c], np.int64(RUNNING_BITS), epsilon_shift)
            root, root_shift = inverse_root(one, value, bits)
            factor, scale = gamma[c] * root, gamma_exponents[c] - root_shift
            if again == 1:
                a = scaled(factor, scale + x_exponent - exponent)
                product = multiply_shift(factor, mean[c], exponent + np.int64(RUNNING_BITS) - scale)
                factors[0, c], factors[1, c] = a, scaled(beta[c], beta_exponents[c] - exponent) - product
            else:
                if factor != 0:
                    bits = magnitude_bits(factor) + scale
                    most = max(most, bits + bit_length(largest_x) + x_exponent)
                    if mean[c] != 0:
                        most = max(most, bits + magnitude_bits(mean[c]) - np.int64(RUNNING_BITS))
                if beta[c] != 0:
                    most = max(most, magnitude_bits(beta[c]) + beta_exponents[c])
    return exponent


@jit
def backward_factors(rows, table, errors, gamma, gamma_exponents, narrow, factors, dgamma):
    """Write P, Q, C and the gradient of gamma of every channel; return the exponents of both.

    The exponents are without those of x and dy: that of dy is to be added to both, that of x to be subtracted from that of dx.
    In units of dx, ``P dy + Q x + C`` is within ``abs(dy - D1 / n) / 2 + abs(x - mean) / 2 + 1.5`` units, a 2**-29 of
    ``P (dy - D1 / n)`` and a 2**-26 of ``Q (x - mean)`` of the exact dx. The unit is at most ``2**-27`` (narrow) or ``2**-56``
    of the largest of all these products, with the spans (or largest magnitudes) of dy and x. The gradient of gamma is within
    half a unit and a 2**-29 of itself; its unit is a 2**-39 of the largest.

    Parameters
    ----------
    rows : int64
    table, errors : (TABLE_ROWS, channels) int64
        Of x, wholly known; and SUM to GREATEST of dy, where PRODUCTS are the sums of ``x * dy``. With X and Y the largest
        magnitudes of both, ``rows * X * Y < 2**60``.
    gamma, gamma_exponents, narrow : as in `forward_factors`; narrow if x and dy are int8
    factors : (3, channels) int64, written
        P, Q and C.
    dgamma : (channels,) int64, written
        Below ``2**40`` in magnitude.
    """
    channels = table.shape[1]
    # for Q: value and shift before they are brought to one scale; for dgamma: value, bits
    slopes, slope_shifts = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    covariances, covariance_bits = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    most, most_dgamma = _SMALL, _SMALL
    for c in range(channels):
        root, root_shift = table[ROOT, c], table[ROOT_SHIFT, c]
        factor, scale = gamma[c] * root, gamma_exponents[c] - root_shift
        # D2 = value / 2**bits, from sum of dy * (x - floor(mean)); below 2**62
        total, errors_total = table[SUM, c], errors[SUM, c]
        floor = total // rows
        rest, centred = total - floor * rows, errors[PRODUCTS, c] - floor * errors_total
        bits = min(np.int64(61) - max(magnitude_bits(centred), magnitude_bits(errors_total)), np.int64(31))
        value = (centred << bits) - multiply_divide(errors_total << bits, rest, rows)
        if table[SQUARES, c] == 0:
            value = np.int64(0)
        covariances[c], covariance_bits[c] = value, bits
        x_span = span(rows, total, table[LEAST, c], table[GREATEST, c])
        dy_span = span(rows, errors_total, errors[LEAST, c], errors[GREATEST, c])
        if not narrow:
            x_span = max(-table[LEAST, c], table[GREATEST, c]) if x_span > 0 else np.int64(0)
            dy_span = max(-errors[LEAST, c], errors[GREATEST, c]) if dy_span > 0 else np.int64(0)
        if value != 0:
            most_dgamma = max(most_dgamma, magnitude_bits(value) + bit_length(root) - bits - root_shift)
        if factor != 0 and dy_span > 0:
            most = max(most, magnitude_bits(factor) + scale + bit_length(dy_span))
        if factor != 0 and value != 0:
            # D2 / W = D2 / n * root**2 / 2**(2 root_shift); each step keeps 28 bits or more
            up, up_rows = np.int64(62) - magnitude_bits(value), np.int64(62) - bit_length(rows)
            ratio = multiply_divide(value << up, np.int64(1 << 30), rows << up_rows)
            ratio = multiply_shift(multiply_shift(ratio, root, np.int64(30)), root, np.int64(30))
            up_factor = np.int64(62) - magnitude_bits(factor)
            slopes[c] = -multiply_shift(factor << up_factor, ratio, np.int64(33))
            slope_shifts[c] = np.int64(63) + up_rows - up - bits - np.int64(2) * root_shift - up_factor + scale
            most = max(most, magnitude_bits(slopes[c]) + slope_shifts[c] + bit_length(x_span))
    # narrow: P (dy - D1 / n) and Q (x - mean) are below 2**29 each; else P dy, P D1 / n, Q x and Q mean are below 2**58
    exponent = most - np.int64(29 if narrow else 58) if most > _SMALL else np.int64(0)
    dgamma_exponent = most_dgamma - np.int64(40) if most_dgamma > _SMALL else np.int64(0)
    for c in range(channels):
        root, root_shift = table[ROOT, c], table[ROOT_SHIFT, c]
        p = np.int64(0)
        if errors[LEAST, c] < errors[GREATEST, c]:
            p = scaled(gamma[c] * root, gamma_exponents[c] - root_shift - exponent)
        q = scaled(slopes[c], slope_shifts[c] - exponent)
        factors[0, c], factors[1, c] = p, q
        factors[2, c] = -multiply_divide(errors[SUM, c], p, rows) - multiply_divide(table[SUM, c], q, rows)
        dgamma[c] = multiply_shift(covariances[c], root, dgamma_exponent + covariance_bits[c] + root_shift)
    return exponent, dgamma_exponent


@jit
def update_running(rows, table, x_exponent, momentum_shift, mean, variance):
    """Move the running mean and variance by ``2**-momentum_shift`` of the way to those of the batch; count what saturated.

    The variance is the unbiased one, divided by ``rows - 1``, as is usual; for one row by 1. A batch's mean or variance is
    taken within one unit, or within a 2**-30 of it where x has an exponent of more than 15, and at most RUNNING_MAX.

    Parameters
    ----------
    rows, table : as in `inverse_roots`, which has filled in the table
    x_exponent, momentum_shift : int64
    mean, variance : (channels,) int64, updated
        With RUNNING_BITS fraction bits, at most RUNNING_MAX in magnitude.
    """
    saturated = np.int64(0)
    for c in range(mean.shape[0]):
        mean_here, variance_here, outside = batch_moments(
            rows, table[SUM, c], table[SQUARES, c], table[SQUARES_BITS, c], x_exponent
        )
        saturated += outside
        mean[c] += round_shift_any(mean_here - mean[c], momentum_shift, TIES_EVEN)
        variance[c] += round_shift_any(variance_here - variance[c], momentum_shift, TIES_EVEN)
    return saturated


@jit
def pool_running(rows, table, x_exponent, pooled, mean, variance):
    """Move mean and variance by ``rows / (pooled + rows)`` of the way to those of the batch; count what saturated.

    Over batches this is their mean, each weighed by its rows, within half a unit a batch; what a batch's own are is said at
    `update_running`.

    Parameters
    ----------
    rows, table, x_exponent, mean, variance : as in `update_running`
    pooled : int64
        Rows of the batches before.
    """
    saturated, total = np.int64(0), pooled + rows
    for c in range(mean.shape[0]):
        mean_here, variance_here, outside = batch_moments(
            rows, table[SUM, c], table[SQUARES, c], table[SQUARES_BITS, c], x_exponent
        )
        saturated += outside
        mean[c] += multiply_divide(mean_here - mean[c], rows, total)
        variance[c] += multiply_divide(variance_here - variance[c], rows, total)
    return saturated


@jit
def batch_moments(rows, total, squares, squares_bits, x_exponent):
    """Return a batch's mean and unbiased variance of a channel with RUNNING_BITS fraction bits, and how many were limited.

    Parameters
    ----------
    rows, total, squares, squares_bits, x_exponent : int64
        As the table has them.
    """
    new = quotient_times_power(total, rows, np.int64(RUNNING_BITS) + x_exponent)
    mean = saturate(new, -RUNNING_MAX, RUNNING_MAX)
    outside = np.int64(mean != new)
    shift = np.int64(RUNNING_BITS) + np.int64(2) * x_exponent - squares_bits
    new = quotient_times_power(squares, max(rows - np.int64(1), np.int64(1)), shift)
    variance = saturate(new, -RUNNING_MAX, RUNNING_MAX)
    return mean, variance, outside + np.int64(variance != new)


@jit
def quotient_times_power(value, divisor, shift):
    """Return ``value / divisor * 2**shift`` within one unit or a 2**-31 of it, saturated to +-(2**63 - 1).

    `value` is below 2**62 in magnitude, `divisor` 1..2**31, and `shift` anything.
    """
    up = np.int64(62) - magnitude_bits(value)
    return multiply_shift(multiply_divide(value << up, np.int64(1), divisor), np.int64(1), up - shift)


# 3. Sums -----------------------------------------------------------------------------------------------------------------


@jit
def channel_sums(a, b, run, sums, products, least, greatest, table):
    """Add up a channel's values of `a`, and their products with `b`; find its least and greatest value of `a`.

    Parameters
    ----------
    a, b : (size,) integers
        Some rows of a tensor in C order, one at least; of two tensors, or twice the same.
    run : int64
        Elements that are added up before the sums go into the table; a multiple of ``UNROLLED * lanes``.
    sums, products : (lanes,) int32 or int64, written
        Of a type that no sum of a run leaves.
    least, greatest : (lanes,) of the type of `a`, written
    table : (TABLE_ROWS, channels) int64
        SUM to GREATEST are written.
    """
    lanes, channels, size = sums.size, table.shape[1], a.size
    block = UNROLLED * lanes
    for first in range(0, lanes, channels):
        for c in range(channels):
            least[first + c] = greatest[first + c] = a[c]
    for c in range(channels):
        table[SUM, c] = table[PRODUCTS, c] = 0
    for begin in range(0, size, run):
        end = min(begin + run, size)
        for i in range(lanes):
            sums[i] = products[i] = 0
        whole = begin + (end - begin) // block * block
        for place in range(begin, whole, block):
            _add_block(a[place : place + block], b[place : place + block], sums, products, least, greatest)
        for place in range(whole, end, lanes):
            stop = min(place + lanes, end)
            _add_row(a[place:stop], b[place:stop], sums, products, least, greatest)
        for first in range(0, lanes, channels):
            for c in range(channels):
                table[SUM, c] += np.int64(sums[first + c])
                table[PRODUCTS, c] += np.int64(products[first + c])
    for c in range(channels):
        table[LEAST, c], table[GREATEST, c] = least[c], greatest[c]
    for first in range(channels, lanes, channels):
        for c in range(channels):
            table[LEAST, c] = min(table[LEAST, c], np.int64(least[first + c]))
            table[GREATEST, c] = max(table[GREATEST, c], np.int64(greatest[first + c]))


@jit
def _add_block(a, b, sums, products, least, greatest):
    """Add UNROLLED rows of lanes."""
    lanes, kind = sums.size, sums.dtype.type
    for i in range(lanes):
        total, product, low, high = sums[i], products[i], least[i], greatest[i]
        for k in range(UNROLLED):
            value = a[k * lanes + i]
            # narrowed at once, which it is proven to survive: so LLVM calculates in the narrow type
            total = kind(np.int64(total) + np.int64(value))
            product = kind(np.int64(product) + np.int64(value) * np.int64(b[k * lanes + i]))
            low, high = min(low, value), max(high, value)
        sums[i], products[i], least[i], greatest[i] = total, product, low, high


@jit
def _add_row(a, b, sums, products, least, greatest):
    """Add one row of lanes, which may be cut short."""
    for i in range(a.size):
        value = a[i]
        sums[i] += np.int64(value)
        products[i] += np.int64(value) * np.int64(b[i])
        least[i], greatest[i] = min(least[i], value), max(greatest[i], value)
