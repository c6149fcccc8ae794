"""How fast convolutions are, beside the square matrix product of the same kind in the same run.

    python benchmarks/convolution.py [--json FILE] [--repeats N]

Convolutions of 3 x 3 with zero padding of one pixel, stride 1 (and one of stride 2), forward and both backward passes, of
operands that take their whole range or, in int32, a range whose sums fit. A call takes one GMAC or more, but for the few
channels. Rates are medians, in billions of multiply-accumulates a second; behind each, in parentheses, is what part it is
of the rate of the 1024 x 1024 x 1024 product, measured again before every shape.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from intnet.kernels import _parallel
from intnet.kernels.simd import convolution, convolution_weights, product

SHAPES = [  # images, height and width, channels, output channels, stride
    (128, 32, 3, 16, 1),
    (128, 32, 16, 16, 1),
    (128, 16, 32, 32, 1),
    (64, 32, 64, 64, 1),
    (128, 16, 128, 128, 1),
    (128, 8, 256, 256, 1),
    (128, 4, 512, 512, 1),
    (128, 16, 128, 256, 2),
]
KINDS = {  # operands, sums, magnitude
    "int8": (np.int8, np.int32, 127),
    "int16": (np.int16, np.int32, 1000),
    "int32": (np.int32, np.int32, 1000),
    "int64": (np.int32, np.int64, 2**24),
}
PASSES = ("forward", "backward_input", "backward_weights")
SQUARE = 1024


def rate(call, macs, repeats):
    """Return the median rate of a call, in GMAC/s."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return macs / statistics.median(seconds) / 1e9


def square_call(random, kind):
    """Return a call of the square product."""
    operands, sums, size = KINDS[kind]
    a, b = (random.integers(-size, size, (SQUARE, SQUARE), operands, endpoint=True) for _ in range(2))
    out = np.empty((SQUARE, SQUARE), sums)
    return lambda: product.multiply(a, b, False, False, operands, out)


def convolution_calls(random, kind, shape):
    """Return the calls of the three passes, and the multiply-accumulates of each."""
    operands, sums, size = KINDS[kind]
    n, height, channels, out_channels, step = shape
    out_height = (height - 1) // step + 1

    def integers(*sizes):
        return random.integers(-size, size, sizes, operands, endpoint=True)

    x, weights = integers(n, height, height, channels), integers(out_channels, 3, 3, channels)
    dy = integers(n, out_height, out_height, out_channels)
    y, dx, dw = (np.empty(array.shape, sums) for array in (dy, x, weights))
    geometry = ((step, step), (1, 1, 1, 1), 1, operands)
    calls = (
        lambda: convolution.conv2d(x, weights, *geometry, y),
        lambda: convolution.conv2d_backward_input(dy, weights, *geometry, dx),
        lambda: convolution_weights.conv2d_backward_weights(x, dy, *geometry, dw),
    )
    return calls, dy.size * 9 * channels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--repeats", type=int, default=7, help="calls timed; the median counts")
    arguments = parser.parse_args()

    random = np.random.default_rng(0)
    numbers = {"threads": _parallel.threads()}
    for kind in KINDS:
        square = square_call(random, kind)
        squares, least = [], dict.fromkeys(PASSES, float("inf"))
        print(f"\n{kind:28}   square" + "".join(f"{name.replace('_', ' '):>20}" for name in PASSES))
        for shape in SHAPES:
            n, height, channels, out_channels, step = shape
            squares.append(rate(square, SQUARE**3, arguments.repeats))
            calls, macs = convolution_calls(random, kind, shape)
            text = f"{n} x {height} x {height} x {channels} -> {out_channels}" + (f" / {step}" if step > 1 else "")
            line = f"{text:28} {squares[-1]:8.0f}"
            for name, call in zip(PASSES, calls, strict=True):
                speed = rate(call, macs, arguments.repeats)
                ratio = speed / squares[-1]
                line += f"{speed:12.0f}  ({ratio:.2f})"
                numbers[f"{kind}_{name}_{n}x{height}x{height}x{channels}x{out_channels}s{step}"] = speed
                if channels >= 64:
                    least[name] = min(least[name], ratio)
            print(line, flush=True)
        numbers[f"{kind}_square"] = statistics.median(squares)
        numbers |= {f"{kind}_{name}_vs_square": ratio for name, ratio in least.items()}
        print("least ratio, 64 channels and more:  " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in least.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
