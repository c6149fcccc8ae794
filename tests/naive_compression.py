"""Slow references of sparse and few-bit networks, in Python integers and Fractions. They import nothing of intnet."""

from fractions import Fraction


def coded(values, bits, scheme, scale):
    """Return what the codes of integers stand for, and the distance of two codes: the formulas, word for word."""
    low, high = min(values, default=0), max(values, default=0)
    top = max(1, 2 ** (bits - 1) - 1)
    if scale == "ratio":
        unit = 1  # of ends that are longer than 16 bits
        while max(abs(low), abs(high)) // unit >= 2**16:
            unit *= 2
        low, high = low // unit * unit, -(-high // unit) * unit
        if scheme == "affine":
            steps = 2**bits - 1
            if low == high:
                return [Fraction(low) for _ in values], Fraction(0)
            step = Fraction(high - low, steps)
            return [low + round((w - low) / step) * step for w in values], step
        step = Fraction(max(high, -low), top)
        if bits == 1:
            return [-step if w < 0 else step for w in values], 2 * step
        return [round(w / step) * step if step else step for w in values], step
    step = 1
    if scheme == "affine":
        low, high = min(low, 0), max(high, 0)
        while round(Fraction(high, step)) - round(Fraction(low, step)) > 2**bits - 1:
            step *= 2
    else:
        while round(Fraction(max(high, -low), step)) > top:
            step *= 2
    if scheme == "symmetric" and bits == 1:
        return [Fraction(-step if w < 0 else step) for w in values], Fraction(2 * step)
    return [Fraction(round(Fraction(w, step)) * step) for w in values], Fraction(step)


def percentile(values, q):
    """Return the q-th percentile, 0..100, of integers, interpolated between two neighbours."""
    every = sorted(values)
    place = Fraction(q) / 100 * (len(every) - 1)
    at = place.numerator // place.denominator
    after = every[min(at + 1, len(every) - 1)]
    return every[at] + (place - at) * (after - every[at])


def nearest_away(x):
    """Return a Fraction to nearest, ties away from zero."""
    magnitude = (2 * abs(x) + 1) // 2
    return magnitude if x >= 0 else -magnitude


def largest(values, keep):
    """Return the places of the `keep` largest magnitudes; of equal ones the earlier."""
    return set(sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:keep])


def soft(value, threshold):
    return (1 if value > 0 else -1) * max(abs(value) - threshold, 0)


def sparse_descent(x, y, method, parameter, rate, keep, fraction_bits, word_bits, steps):
    """Return all weights, in units of 2**-fraction_bits, their losses as Fractions, and how many weights saturated."""
    unit, limit = Fraction(1, 2**fraction_bits), 2 ** (word_bits - 1) - 1
    rate = round(Fraction(rate) / unit) * unit
    parameter = 0 if parameter is None else round(Fraction(parameter) / unit) * unit
    w, path, losses, saturated = [0] * len(x[0]), [], [], 0

    def residuals():
        return [sum(a * v for a, v in zip(row, w, strict=True)) * unit - t for row, t in zip(x, y, strict=True)]

    for step in range(steps + 1):
        path.append(list(w))
        losses.append(sum(r * r for r in residuals()))
        if step == steps:
            break
        left, moved = residuals(), []
        for j, v in enumerate(w):
            gradient = 2 * sum(row[j] * r for row, r in zip(x, left, strict=True))
            if method == "l1":
                gradient += parameter * ((v > 0) - (v < 0))
            moved.append(v - nearest_away(rate * gradient / unit))
        w = [max(-limit, min(limit, v)) for v in moved]
        saturated += sum(a != b for a, b in zip(w, moved, strict=True))
        kept = largest(w, keep)
        if method == "projected":
            w = [v if i in kept else 0 for i, v in enumerate(w)]
        elif method == "proximal":
            w = [soft(v, int(parameter / unit)) for v in w]
        elif method == "trimmed":
            w = [v if i in kept else soft(v, int(parameter / unit)) for i, v in enumerate(w)]
    return path, losses, saturated
