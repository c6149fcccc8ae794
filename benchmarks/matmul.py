"""How fast integer matrix products are, against the floating-point ones of NumPy's OpenBLAS.

    python benchmarks/matmul.py [--json FILE]

Products from plain row-major operands, packing and the search for their largest magnitude included, then NumPy's, on the
same number of threads: medians of repeated calls. OpenBLAS is taken as it comes, and once more with its
AVX-512 kernels (OPENBLAS_CORETYPE=SkylakeX) in a process of its own. Rates are GMAC/s, 10^9 multiply-accumulates a second.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from intnet.kernels import _parallel, product

KINDS = {  # type of the operands, bits of the accumulator, largest magnitudes: too large for the next narrower tile
    "int8": (np.int8, 32, (127, 127)),
    "int16": (np.int16, 32, (1000, 1000)),
    "int32": (np.int32, 32, (40_000, 50)),
    "int64": (np.int32, 64, (2**26, 2**26)),  # int32 x int32 -> int64
}
SHAPES = [(1024, 1024, 1024), (64, 784, 100), (64, 100, 50), (256, 576, 64)]


def operands(kind, m, k, n):
    type_, _, sizes = KINDS[kind]
    random = np.random.default_rng(0)
    shapes = ((m, k), (k, n))
    return [random.integers(-size, size, shape, type_, endpoint=True) for size, shape in zip(sizes, shapes, strict=True)]


def rates(shape, repeats):
    """Return GMAC/s by kind, ours first: OpenBLAS's threads stay busy for a while after each product, waiting for the next."""
    m, k, n = shape
    calls = {}
    for kind, (_, bits, _) in KINDS.items():
        a, b = operands(kind, m, k, n)
        out, left = product.multiply(a, b, accumulator_bits=bits)
        rows = slice(0, min(m, 32))
        assert left == 0
        assert (out[rows] == a[rows].astype(np.int64) @ b.astype(np.int64)).all()
        calls[kind] = lambda a=a, b=b, bits=bits: product.multiply(a, b, accumulator_bits=bits)
    for type_ in (np.float32, np.float64):
        a, b = (np.random.default_rng(1).random(s).astype(type_) for s in ((m, k), (k, n)))
        calls[type_.__name__] = lambda a=a, b=b: a @ b
    seconds = {kind: [] for kind in calls}
    inner = max(1, int(2e7 / (m * k * n)))
    for kind, call in calls.items():
        for _ in range(repeats):
            start = time.perf_counter()
            for _ in range(inner):
                call()
            seconds[kind].append((time.perf_counter() - start) / inner)
    return {kind: m * k * n / statistics.median(times) / 1e9 for kind, times in seconds.items()}


def skylakex_rates():
    """Return OpenBLAS's rates at 1024^3 with its AVX-512 kernels, or None where they do not run."""
    code = (
        "import numpy as np, time, statistics\n"
        "for t in (np.float32, np.float64):\n"
        "    a = np.random.default_rng(1).random((1024, 1024)).astype(t); s = []\n"
        "    for _ in range(15):\n"
        "        b = time.perf_counter(); a @ a; s.append(time.perf_counter() - b)\n"
        "    print(1024**3 / statistics.median(s) / 1e9)\n"
    )
    environment = {**os.environ, "OPENBLAS_CORETYPE": "SkylakeX"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return [float(line) for line in result.stdout.split()] if result.returncode == 0 else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--repeats", type=int, default=25, help="calls of each kind; the median counts")
    arguments = parser.parse_args()

    names = [*KINDS, "float32", "float64"]
    print(f"GMAC/s on {_parallel.threads()} threads    " + "".join(f"{name:>10}" for name in names))
    table = {}
    for shape in SHAPES:
        table["x".join(map(str, shape))] = found = rates(shape, arguments.repeats)
        print(f"{' x '.join(map(str, shape)):25}" + "".join(f"{found[name]:10.1f}" for name in names))
    square = table["1024x1024x1024"]
    numbers = {
        "int8_vs_float32": square["int8"] / square["float32"],
        "int16_vs_float32": square["int16"] / square["float32"],
        "int32_vs_float32": square["int32"] / square["float32"],
        "int64_vs_float64": square["int64"] / square["float64"],
        "gmac_per_second": table,
        "openblas_skylakex": skylakex_rates(),
        "threads": _parallel.threads(),
    }
    for name in list(numbers)[:4]:
        print(f"{name:18} {numbers[name]:5.2f}")
    if numbers["openblas_skylakex"]:
        print("OpenBLAS with OPENBLAS_CORETYPE=SkylakeX: float32 {:.1f}, float64 {:.1f}".format(*numbers["openblas_skylakex"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
