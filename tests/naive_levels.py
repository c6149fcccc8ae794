"""Slow perceptrons with few levels, in Python integers and Fractions. It imports nothing of intnet."""

from fractions import Fraction
from math import floor


def activate(x, count, bits=16):
    """Return the activation of a Fraction: one of count + 1 levels, ties up; without levels clamped, of 16 fraction bits."""
    if count:
        level = max(0, min(count, floor(Fraction(count) * (x + 1) / 2 + Fraction(1, 2))))
        return Fraction(2 * level - count, count)
    return max(Fraction(-1), min(Fraction(1), Fraction(floor(x * 2**bits + Fraction(1, 2)), 2**bits)))


def forward(layers, x, count):
    """Return the pre-activations of every layer for one sample; `layers` are matrices of Fractions, `x` Fractions."""
    sums, values = [], x
    for number, rows in enumerate(layers):
        sums.append([sum(w * v for w, v in zip(row, values, strict=True)) for row in rows])
        if number + 1 < len(layers):
            values = [activate(z, count) for z in sums[-1]]
    return sums


def output(layers, x, count, bits):
    """Return the output: rounded to `bits` fraction bits where activations have no levels."""
    z = forward(layers, x, count)[-1][0]
    return z if count and len(layers) > 1 else Fraction(floor(z * 2**bits + Fraction(1, 2)), 2**bits)


def loss(layers, samples, targets, count, bits):
    """Return the sum of squared errors."""
    return sum((output(layers, x, count, bits) - t) ** 2 for x, t in zip(samples, targets, strict=True))


def gradient(layers, samples, targets, count, bits, derivative):
    """Return the real gradient of half the summed squared error by a straight-through derivative, a matrix a layer."""
    totals = [[[Fraction(0)] * len(rows[0]) for _ in rows] for rows in layers]
    for x, t in zip(samples, targets, strict=True):
        sums = forward(layers, x, count)
        values = [x, *([activate(z, count) for z in row] for row in sums[:-1])]
        d = [output(layers, x, count, bits) - t]
        for number in range(len(layers) - 1, -1, -1):
            for i, of_unit in enumerate(d):
                for j, value in enumerate(values[number]):
                    totals[number][i][j] += of_unit * value
            if number:
                back = [sum(layers[number][i][j] * d[i] for i in range(len(d))) for j in range(len(values[number]))]
                d = [Fraction(derivative(float(z))) * b for z, b in zip(sums[number - 1], back, strict=True)]
    return totals


def rosenbrock(x):
    """Return the function at a list of Fractions."""
    return sum(100 * (p * p - q) ** 2 + (p - 1) ** 2 for p, q in zip(x[::2], x[1::2], strict=True))
