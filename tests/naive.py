"""Slow references in Python integers, which have no width. They import nothing of intnet."""

from decimal import Decimal, localcontext
from fractions import Fraction
from math import isqrt

import numpy as np

M64 = 2**64


def wrap(value: int, bits: int) -> int:
    """Return the two's complement word of `bits` bits."""
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def leaves_int64(value: int) -> bool:
    return not -(2**63) <= value < 2**63


def train_cell(inputs, labels, weights, fraction_bits, lr_shift, iterations):
    """Train as the study does, every step in exact integers and then wrapped to 64 bits.

    inputs: list of samples, each a list of raw integers; weights: list of classes, each a list. Returns a dict.
    """
    f, lr = fraction_bits, lr_shift
    weights = [[int(w) for w in row] for row in weights]
    seen = {"hits": [], "update": 0, "error": 0, "lost": 0, "floored": 0, "wraps": 0}

    def word(value):
        seen["wraps"] += leaves_int64(value)
        return wrap(value, 64)

    for i in range(iterations):
        x, label = [int(v) for v in inputs[i % len(inputs)]], int(labels[i % len(inputs)])
        acc = [word(sum(word(w * v) for w, v in zip(row, x, strict=True))) for row in weights]
        a = [max(v, 0) >> f for v in acc]
        seen["hits"].append(int(a.index(max(a)) == label))
        for c, row in enumerate(weights):
            delta = (((1 << f) if c == label else 0) - a[c]) * ((acc[c] >> f) > 0)
            if delta == 0:
                continue
            for j, v in enumerate(x):
                p = word(delta * v)
                u, s = p >> f, p >> (f + lr)
                seen["update"] += abs(u)
                seen["error"] += abs(u - s * 2**lr)
                seen["lost"] += p != 0 and s == 0
                seen["floored"] += -(2 ** (f + lr)) < p < 0
                row[j] = word(row[j] + s)
    return {**seen, "weights": weights}


# Rounding and overflow --------------------------------------------------------------------------------------------------


def round_fraction(x, mode, fraction=None, random_bits=None):
    """Return an exact Fraction rounded by the mode of that name; `fraction` is the random integer below 2**random_bits."""
    low = x.numerator // x.denominator  # floor
    rest = x - low
    if mode == "floor":
        return low
    if mode == "jam":
        return low | 1
    if mode == "stochastic":
        cut = (rest * 2**random_bits).__floor__()
        return low + (cut + fraction >= 2**random_bits)
    if rest == 0:
        return low
    half = Fraction(1, 2)
    positive, odd = x > 0, low % 2 == 1
    up = {
        "ceil": True,
        "to_zero": not positive,
        "to_away": positive,
        "ties_even": rest > half or (rest == half and odd),
        "ties_pos": rest >= half,
        "ties_neg": rest > half,
        "ties_away": rest > half or (rest == half and positive),
        "ties_zero": rest > half or (rest == half and not positive),
    }[mode]
    return low + up


def pseudo_stochastic(value, shift):
    """NITI, sec. III-C, on Python integers: the halves of the discarded bits of the magnitude are compared."""
    magnitude = abs(value)
    rest = magnitude % 2**shift
    upper, lower = rest >> (shift // 2), rest % 2 ** (shift // 2)
    if shift % 2:
        lower *= 2
    rounded = (magnitude >> shift) + (upper > lower)
    return -rounded if value < 0 else rounded


def limits(word_bits, signed, overflow):
    """Return the least and the greatest result."""
    least, greatest = (-(2 ** (word_bits - 1)), 2 ** (word_bits - 1) - 1) if signed else (0, 2**word_bits - 1)
    return (-greatest if signed and overflow == "saturate_symmetric" else least), greatest


def into_word(rounded, word_bits, signed, overflow):
    """Return the word and whether the value had left it; "error" gives the bits of "wrap"."""
    least, greatest = limits(word_bits, signed, overflow)
    if least <= rounded <= greatest:
        return rounded, False
    if overflow.startswith("saturate"):
        return max(least, min(greatest, rounded)), True
    return (wrap(rounded, word_bits) if signed else rounded % 2**word_bits), True


def requantize(values, shifts, mode, overflow, word_bits, signed=True, fractions=None, random_bits=None):
    """Return the results and the counters of flat Python integers, each with its shift."""
    results, outside, lost = [], 0, 0
    for i, (value, shift) in enumerate(zip(values, shifts, strict=True)):
        exact = Fraction(value) / Fraction(2) ** shift
        if mode == "pseudo_stochastic":
            rounded = pseudo_stochastic(value, shift) if shift >= 0 else int(exact)
        elif shift < 0 and mode == "stochastic":
            rounded = int(exact)
        else:
            rounded = round_fraction(exact, mode, fractions[i] if fractions else None, random_bits)
        result, left = into_word(rounded, word_bits, signed, overflow)
        results.append(result)
        outside += left
        lost += value != 0 and rounded == 0
    saturates = overflow.startswith("saturate")
    seen = (min(results), max(results)) if results else (2**63 - 1, -(2**63))
    return results, [outside if saturates else 0, 0 if saturates else outside, lost, *seen]


# Random bits ------------------------------------------------------------------------------------------------------------


def philox(counter, key):
    """Philox-4x32-10 as in the paper: Salmon et al. 2011, figures 2 and 4."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b % 2**32, (a >> 32) ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def random_word(seed, stream, step, position):
    block = position // 4
    return philox((block % 2**32, block // 2**32, step, stream), (seed % 2**32, seed // 2**32))[position % 4]


def random_fraction(seed, stream, step, index, random_bits):
    if random_bits <= 32:
        return random_word(seed, stream, step, index) >> (32 - random_bits)
    high, low = (random_word(seed, stream, step, 2 * index + half) for half in (0, 1))
    return (high * 2**32 + low) >> (64 - random_bits)


# The TFLite pipeline, transcribed from gemmlowp's fixedpoint.h and TFLite's common.h with C's truncating division ---------


def doubling_high_multiply(a, b):
    if a == b == -(2**31):
        return 2**31 - 1
    product = a * b
    nudge = 2**30 if product >= 0 else 1 - 2**30
    total = product + nudge
    return total // 2**31 if total >= 0 else -(-total // 2**31)


def divide_by_power_of_two(x, exponent):
    mask = (1 << exponent) - 1
    remainder, threshold = x & mask, (mask >> 1) + (x < 0)
    return (x >> exponent) + (remainder > threshold)


def quantized_multiplier(x, multiplier, shift):
    left, right = max(shift, 0), max(-shift, 0)
    shifted = max(-(2**31), min(2**31 - 1, x * 2**left))
    return divide_by_power_of_two(doubling_high_multiply(shifted, multiplier), right)


def pad(x, padding, fill=0):
    n, height, width, channels = x.shape
    top, bottom, left, right = padding
    wide = np.full((n, height + top + bottom, width + left + right, channels), fill, x.dtype)
    wide[:, top : top + height, left : left + width] = x
    return wide


def windows(x, window, stride, padding, fill=0):
    """Return ``(n, out height, out width, window height, window width, channels)``: what every window sees."""
    x = pad(x, padding, fill)
    rows = range(0, x.shape[1] - window[0] + 1, stride[0])
    columns = range(0, x.shape[2] - window[1] + 1, stride[1])
    seen = np.zeros((len(x), len(rows), len(columns), *window, x.shape[3]), x.dtype)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            seen[:, i, j] = x[:, row : row + window[0], column : column + window[1]]
    return seen


def convolve(x, weights, stride, padding, groups):
    """Convolve; with arrays of objects in exact integers, with arrays of int64 modulo 2**64."""
    seen = windows(x, weights.shape[1:3], stride, padding)
    outputs = []
    for o, kernel in enumerate(weights):
        first = o * groups // len(weights) * weights.shape[3]
        outputs.append((seen[..., first : first + weights.shape[3]] * kernel).sum(axis=(3, 4, 5)))
    return np.stack(outputs, axis=-1)


def convolve_backward(x, weights, dy, stride, padding, groups):
    """Return the gradients of `x` and of `weights`, one product after the other: for y += x w, dx += dy w and dw += dy x."""
    wide, top, left = pad(x, padding), padding[0], padding[2]
    dx, dw = np.zeros_like(wide), np.zeros_like(weights)
    channels = weights.shape[3]
    for o, ky, kx, i, j in np.ndindex(*weights.shape[:3], *dy.shape[1:3]):
        first = o * groups // len(weights) * channels
        pixel = (slice(None), i * stride[0] + ky, j * stride[1] + kx, slice(first, first + channels))
        errors = dy[:, i, j, o, np.newaxis]
        dx[pixel] += weights[o, ky, kx] * errors
        dw[o, ky, kx] += (wide[pixel] * errors).sum(axis=0)
    return dx[:, top : top + x.shape[1], left : left + x.shape[2]], dw


# Losses -----------------------------------------------------------------------------------------------------------------


def truncate(x):
    """Return a Fraction or an int cut towards zero."""
    return int(x)


def niti_gradient(logits, exponent, label):
    """NITI's gradient of one sample, as in its fact sheet; before the shift by 4. Integers have no width here."""
    if exponent > -7:
        octaves = [truncate(truncate(Fraction(m * 47274, 2**15)) * Fraction(2) ** exponent) for m in logits]
        octaves = [max(s - (max(octaves) - 10), 0) for s in octaves]
        p = [2**s - 1 for s in octaves]
    else:
        p = [2 ** (1 - 2 * exponent) + m * 2 ** (1 - exponent) + m * m for m in logits]
    g = [v * 2**11 // sum(p) for v in p]
    g[label] -= sum(g)
    return g


def exp_negative(x):
    """Return exp(-x) of a Fraction x >= 0 as a Fraction, to more than 60 bits."""
    with localcontext() as context:
        context.prec = 60
        if x > 200:
            return Fraction(0)
        return Fraction((-Decimal(x.numerator) / Decimal(x.denominator)).exp())


def natural_logarithm_of_two():
    with localcontext() as context:
        context.prec = 60
        return Fraction(Decimal(2).ln())


def logarithm(x):
    """Return log(x) of a Fraction x > 0 as a Fraction, to more than 60 bits."""
    with localcontext() as context:
        context.prec = 60
        return Fraction((Decimal(x.numerator) / Decimal(x.denominator)).ln())


def softmax_loss(logits, exponent, label, furthest):
    """Return the cross-entropy of one sample as a Fraction, to more than 60 bits; no logit counts as further from the top."""
    distances = [(max(logits) - m) * Fraction(2) ** exponent for m in logits]
    return logarithm(sum(map(exp_negative, distances))) + min(distances[label], furthest)


def softmax_gradient(logits, exponent, label):
    """Return the gradient of one sample as Fractions, to more than 60 bits."""
    p = [exp_negative((max(logits) - m) * Fraction(2) ** exponent) for m in logits]
    return [v / sum(p) - (c == label) for c, v in enumerate(p)]


# Batch normalization of one channel, in Fractions: lists of rows --------------------------------------------------------


def square_root(x, bits=200):
    """Return the root of a Fraction, cut to `bits` fraction bits."""
    return Fraction(isqrt(x.numerator * 4**bits // x.denominator), 2**bits)


def normalize_channel(x, gamma, beta, epsilon, mean=None, variance=None):
    """Return the results; by default with the mean and the variance of `x` itself."""
    if mean is None:
        mean = Fraction(sum(x), len(x))
        variance = sum((v - mean) ** 2 for v in x) / len(x)
    sigma = square_root(variance + epsilon)
    return [gamma * (v - mean) / sigma + beta for v in x]


def normalize_channel_backward(dy, x, gamma, epsilon):
    """Return the gradients of the inputs and of gamma, by the chain rule over mean and variance."""
    n = len(x)
    mean = Fraction(sum(x), n)
    centred = [v - mean for v in x]
    variance = sum(v * v for v in centred) / n
    sigma = square_root(variance + epsilon)
    d_variance = sum(d * gamma * v for d, v in zip(dy, centred, strict=True)) / (-2 * sigma**3)
    d_mean = -sum(dy) * gamma / sigma
    dx = [d * gamma / sigma + d_variance * 2 * v / n + d_mean / n for d, v in zip(dy, centred, strict=True)]
    return dx, sum(d * v for d, v in zip(dy, centred, strict=True)) / sigma


# Formats ----------------------------------------------------------------------------------------------------------------


def value_of(tensor):
    """Return what a QTensor stands for, as an array of Fractions."""
    mantissa, exponent = np.broadcast_arrays(tensor.mantissa, tensor.exponents())
    values = [Fraction(int(m)) * Fraction(2) ** int(e) for m, e in zip(mantissa.flat, exponent.flat, strict=True)]
    return np.array(values, object).reshape(mantissa.shape)


def block_exponent(values, word_bits):
    """Return the exponent of a block of Fractions: the smallest after which they fit once they are cut."""
    largest = max((abs(v) for v in values), default=0)
    if largest == 0:
        return -128
    exponent = -128
    while exponent < 127 and largest >= Fraction(2) ** (word_bits - 1 + exponent):
        exponent += 1
    return exponent


def into_format(values, text, mode="ties_even", overflow="saturate", fraction=None, random_bits=32):
    """Round an array of Fractions into "fxp-sW/F", "bfp-sW/tensor" or "bfp-sW/row"; `fraction(i)` gives random bits.

    Returns the mantissas, the exponents of the rows or of all, and how many left the word and how many were lost.
    """
    kind, _, where = text.partition("/")
    word_bits, rows = int(kind.split("s")[1]), values.reshape(len(values), -1)
    if kind.startswith("fxp"):
        exponents = [-int(where)]
    else:
        blocks = rows if where in ("row", "sample") else [rows.ravel()]
        exponents = [block_exponent(block, word_bits) for block in blocks]
    words, left, lost = [], 0, 0
    for i, v in enumerate(rows.ravel()):
        exact = v / Fraction(2) ** exponents[i // rows.shape[1] if len(exponents) > 1 else 0]
        rounded = round_fraction(exact, mode, fraction(i) if fraction else None, random_bits)
        word, outside = into_word(rounded, word_bits, True, overflow)
        words.append(word)
        left += outside
        lost += v != 0 and rounded == 0
    return np.array(words, object).reshape(values.shape), exponents, left, lost
