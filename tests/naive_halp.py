"""Slow SVRG and HALP on convex problems, in Fractions and Python integers. It imports nothing of intnet."""

from fractions import Fraction
from math import isqrt

import naive

ROUNDING, ORDER = 0, 1  # streams


def two_to(power):
    return Fraction(2) ** power


def nearest(x):
    """Round a Fraction to the nearest integer, ties away from zero, in +-(2**63 - 1)."""
    return max(1 - 2**63, min(2**63 - 1, naive.round_fraction(Fraction(x), "ties_away")))


def floating(x, bits):
    """Return the Fraction of a mantissa of `bits` bits that is nearest to x > 0, ties to the greater."""
    power = 0
    while x >= two_to(power + bits):
        power += 1
    while x < two_to(power + bits - 1):
        power -= 1
    return nearest(x / two_to(power)) * two_to(power)


def root_of(total):
    """Return the integer root of 2**30..2**31 and its exponent, of a sum of squares > 0."""
    half = (total.bit_length() + 1) // 2 - 31
    brought = naive.round_fraction(Fraction(total) / two_to(2 * half), "ties_pos")
    return isqrt(brought), half


def norm(values):
    """Return the norm of integers as bit centering reckons it: of 31 bits each, the root cut; 0 of zeros."""
    shift = max(max(abs(v) for v in values).bit_length() - 31, 0)
    total = sum(naive.round_fraction(Fraction(v, 2**shift), "ties_pos") ** 2 for v in values)
    if not total:
        return Fraction(0)
    root, half = root_of(total)
    return root * two_to(half + shift)


def scale_of(values, exponent, count, mu, bits, kind):
    """Return the scale of a gradient ``values * 2**exponent / count``, or None of zeros."""
    length = norm(values)
    if not length:
        return None
    scale = floating(length * two_to(exponent) / (count * mu * (2 ** (bits - 1) - 1)), 31)
    if kind == "exact":
        return scale
    power = -200
    while two_to(power) < scale:
        power += 1
    return two_to(power)


def step(weights, centre, direction, by_input, by_offset, x, shift, word_bits, fractions):
    """Move one row in place and return the saturations; `fractions` of 32 random bits, or None for ties to plus infinity."""
    saturated = 0
    for j, w in enumerate(weights):
        move = by_input * int(x[j]) + by_offset * (w - centre[j]) + direction[j]
        mode, fraction = ("ties_pos", None) if fractions is None else ("stochastic", fractions[j])
        rounded = naive.round_fraction(w + Fraction(move, 2**shift), mode, fraction, 32)
        weights[j], left = naive.into_word(rounded, word_bits, True, "saturate")
        saturated += left
    return saturated


def sample_of(seed, iteration, samples):
    return naive.random_word(seed, ORDER, iteration, 0) * samples >> 32


def fractions_of(seed, iteration, first, count, stochastic):
    return [naive.random_fraction(seed, ROUNDING, iteration, first + j, 32) for j in range(count)] if stochastic else None


def difference(x, weights, centre):
    return sum(int(a) * (w - c) for a, w, c in zip(x, weights, centre, strict=True))


class LeastSquares:
    """Half the squared error: inputs and targets with their exponents."""

    def __init__(self, inputs, input_exponent, targets, target_exponent):
        self.inputs = [[int(v) for v in row] for row in inputs]
        self.exponent, self.targets = input_exponent, [int(v) * two_to(target_exponent) for v in targets]
        self.rows, self.decay = 1, 0

    def full_gradient(self, centre, unit):
        """Return the exact sum of the gradients, rows of Fractions."""
        e, (row,) = two_to(self.exponent), centre
        residuals = [
            sum(a * e * w * unit for a, w in zip(x, row, strict=True)) - y
            for x, y in zip(self.inputs, self.targets, strict=True)
        ]
        columns = zip(*self.inputs, strict=True)
        return [[sum(r * a * e for r, a in zip(residuals, column, strict=True)) for column in columns]]

    def by_inputs(self, i, weights, centre, _unit, rate, bits):
        """Return what a sample's inputs are multiplied by, of every row, in units of ``unit * 2**-bits``."""
        change = difference(self.inputs[i], weights[0], centre[0])
        return [-nearest(change * rate * two_to(2 * self.exponent + bits))]


class Softmax:
    """The cross-entropy; `error_of(logits, label)` takes integers in units of `logit_unit`, gives integers of 2**-30."""

    def __init__(self, inputs, input_exponent, labels, classes, decay, error_of, centre_unit, sum_unit):
        self.inputs = [[int(v) for v in row] for row in inputs]
        self.exponent, self.labels, self.rows = input_exponent, [int(v) for v in labels], classes
        self.decay, self.error_of, self.centre_unit, self.sum_unit = decay, error_of, centre_unit, sum_unit

    def full_gradient(self, centre, unit):
        """Return the sum of the gradients, the decay's part rounded to `sum_unit`; keep logits and errors."""
        self.logits = [[sum(a * w for a, w in zip(x, row, strict=True)) for row in centre] for x in self.inputs]
        self.errors = [self.error_of(row, label) for row, label in zip(self.logits, self.labels, strict=True)]
        of_error = two_to(self.exponent - 30)
        decay = len(self.inputs) * self.decay * unit / self.sum_unit
        return [
            [
                sum(e[c] * x[j] for e, x in zip(self.errors, self.inputs, strict=True)) * of_error
                + nearest(w * decay) * self.sum_unit
                for j, w in enumerate(row)
            ]
            for c, row in enumerate(centre)
        ]

    def by_inputs(self, i, weights, centre, unit, rate, bits):
        changes = [difference(self.inputs[i], w, c) for w, c in zip(weights, centre, strict=True)]
        moved = [v + nearest(d * unit / self.centre_unit) for v, d in zip(self.logits[i], changes, strict=True)]
        factor = floating(rate / unit, 31) * two_to(self.exponent - 30 + bits)
        now = self.error_of(moved, self.labels[i])
        return [-nearest((a - b) * factor) for a, b in zip(now, self.errors[i], strict=True)]


def train(problem, *, word_bits, unit, mu, kind, period, rate, bits, mode, seed, iterations, centre_bits=48):
    """Train from 0; return the raw weights in units of the centre's, and the saturations.

    `unit` is that of the centre; of SVRG, whose `mu` is None, also of the weights. `bits` are those of a move below the unit of
    the weights.
    """
    features, samples = len(problem.inputs[0]), len(problem.inputs)
    centre = [[0] * features for _ in range(problem.rows)]
    weights, zeros = [row[:] for row in centre], [row[:] for row in centre]
    scale, saturated = None, 0

    def moved():
        found, left = [], 0
        for c, row in zip(centre, weights, strict=True):
            pairs = [
                naive.into_word(a + nearest(z * scale / unit), centre_bits, True, "saturate")
                for a, z in zip(c, row, strict=True)
            ]
            found.append([v for v, _ in pairs])
            left += sum(out for _, out in pairs)
        return found, left

    for t in range(iterations):
        if t % period == 0:
            if mu is None:
                centre, scale = [row[:] for row in weights], unit
            elif scale is not None:
                centre, left = moved()
                weights, saturated = [row[:] for row in zeros], saturated + left
            gradient = problem.full_gradient(centre, unit)
            if mu is not None:
                power = min(-200, *(v.denominator.bit_length() * -1 for row in gradient for v in row))
                whole = [int(v / two_to(power)) for row in gradient for v in row]
                scale = scale_of(whole, power, samples, mu, word_bits, kind)
                if scale is None:
                    return centre, saturated
            factor = floating(rate / (samples * (scale / two_to(exponent_of(scale)))), 61) / two_to(exponent_of(scale) - bits)
            direction = [[nearest(-v * factor) for v in row] for row in gradient]
        i, origin = sample_of(seed, t, samples), centre if mu is None else zeros
        by_inputs = problem.by_inputs(i, weights, origin, scale, rate, bits)
        by_offset = -round(rate * problem.decay * two_to(bits))
        for c in range(problem.rows):
            fractions = fractions_of(seed, t, c * features, features, mode == "stochastic")
            saturated += step(
                weights[c], origin[c], direction[c], by_inputs[c], by_offset, problem.inputs[i], bits, word_bits, fractions
            )
    if mu is None:
        return weights, saturated
    found, left = moved()
    return found, saturated + left


def exponent_of(scale):
    """Return the power of two that a scale is an odd number of; it changes nothing of a quotient's mantissa."""
    return (scale.numerator & -scale.numerator).bit_length() - scale.denominator.bit_length()


# Networks


def share(sums, some, samples):
    """Return `some` of so many samples' share of a full gradient, as integers and what their unit is divided by."""
    largest = max((abs(v) for v in sums), default=0)
    up = 62 - largest.bit_length()
    factor = floating(Fraction(some, samples), 61)
    return [nearest(v * factor * two_to(up)) for v in sums], up


def move_offset(offset, direction, batch, rate, scale, by_offset, bits, fraction):
    """Return an offset after a step against a direction (a Fraction, of the sum over a batch), and whether it saturated."""
    factor = floating(Fraction(rate, 1) / (batch * scale), 61)
    move = max(-(2**62), min(2**62, nearest(-direction * factor * two_to(32)))) - by_offset * offset
    rounded = naive.round_fraction(offset + Fraction(move, 2**32), "stochastic", fraction, 32)
    return naive.into_word(rounded, bits, True, "saturate")
