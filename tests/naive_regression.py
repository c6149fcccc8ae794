"""Slow stochastic gradient descent on convex problems, in Fractions and Python integers. It imports nothing of intnet."""

from fractions import Fraction

import naive

ROUNDING, ORDER = 0, 1  # streams


def two_to(power):
    return Fraction(2) ** power


def quantize(x, word_bits, fraction_bits, fraction):
    """Round a Fraction stochastically to the grid and saturate; return the raw integer and whether it left the word."""
    rounded = naive.round_fraction(x * two_to(fraction_bits), "stochastic", fraction, 32)
    return naive.into_word(rounded, word_bits, True, "saturate")


def descend(samples, gradient, shape, word_bits, fraction_bits, seed, rate, shrink, iterations, averaging_start):
    """Train from 0 and return the raw weights, the mean of their values from `averaging_start` on, and the saturations.

    `gradient(i, values)` is the gradient at sample i, rows of Fractions, as are the values; `shrink` is what every weight
    loses beside. The mean is that of Fractions, added up one iteration after the other.
    """
    rows, features = shape
    unit = two_to(-fraction_bits)
    weights = [[0] * features for _ in range(rows)]
    total = [[Fraction(0)] * features for _ in range(rows)]
    saturations = 0
    for t in range(iterations):
        i = naive.random_word(seed, ORDER, t, 0) * samples >> 32
        values = [[w * unit for w in row] for row in weights]
        slopes = gradient(i, values)
        for c in range(rows):
            for j in range(features):
                fraction = naive.random_fraction(seed, ROUNDING, t, c * features + j, 32)
                moved = values[c][j] - (rate * slopes[c][j] + shrink * values[c][j])
                weights[c][j], left = quantize(moved, word_bits, fraction_bits, fraction)
                saturations += left
                if t >= averaging_start:
                    total[c][j] += weights[c][j] * unit
    count = iterations - averaging_start
    return weights, [[v / count for v in row] for row in total], saturations


def values_of(integers, exponent):
    return [[int(v) * two_to(exponent) for v in row] for row in integers]


def least_squares(inputs, input_exponent, targets, target_exponent, **run):
    """Train on half the squared error; see `descend`."""
    x, y = values_of(inputs, input_exponent), [int(v) * two_to(target_exponent) for v in targets]

    def gradient(i, values):
        residual = sum(a * b for a, b in zip(x[i], values[0], strict=True)) - y[i]
        return [[residual * v for v in x[i]]]

    return descend(len(x), gradient, (1, len(x[0])), shrink=0, **run)


def softmax(inputs, input_exponent, labels, classes, error_of, **run):
    """Train on the cross-entropy; `error_of(logits, label)` gives softmax less one at the label, as integers of 2**-30.

    The logits are handed over as Fractions.
    """
    x = values_of(inputs, input_exponent)

    def gradient(i, values):
        logits = [sum(a * b for a, b in zip(x[i], row, strict=True)) for row in values]
        errors = error_of(logits, int(labels[i]))
        return [[e * two_to(-30) * v for v in x[i]] for e in errors]

    return descend(len(x), gradient, (classes, len(x[0])), **run)
