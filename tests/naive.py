"""Slow references in Python integers, which have no width. They import nothing of intnet."""

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
