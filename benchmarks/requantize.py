"""How fast integers are requantized and floats quantized, against copying the array and against other libraries.

    python benchmarks/requantize.py [--json FILE]

In one run, medians, with as many threads as there are cores: 10 million int32 (normally distributed, a few of them
saturate) to 8 bits, into a given array, beside `np.copyto` of the int32 array, which NumPy does in one thread; then 10
million real numbers to fxp-s16/12, ties to even, saturating, into a new array, beside NumPy and whichever of apytypes,
fxpmath and QPyTorch is installed. The calls take turns, in another order each time, so that all see the same load.
"""

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path

import numpy as np

from intnet import kernels
from intnet.formats import Overflow, Rounding

SIZE = 10_000_000
WORD_BITS, FRACTION_BITS = 16, 12


def seconds(*calls, repeats):
    """Return the median time of each call; after one round to warm up they take turns, each time in another order."""
    times = [[] for _ in calls]
    random = np.random.default_rng(2)
    for turn in range(repeats + 1):
        for i in random.permutation(len(calls)):
            start = time.perf_counter()
            calls[i]()
            if turn:
                times[i].append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in times]


def requantizing(repeats):
    """Return the numbers about integers."""
    values = (np.random.default_rng(0).standard_normal(SIZE) * 2**20).astype(np.int32)
    out, copy, counters = np.empty(SIZE, np.int8), np.empty_like(values), kernels.new_counters()
    rows = np.full((1, SIZE // 1000, 1), 15)

    def call(rounding, counters=None, shift=15, layout=None):
        code, overflow = Rounding(rounding).code, Overflow.SATURATE.code
        return lambda: kernels.requantize(values, shift, code, overflow, 8, out=out, counters=counters, layout=layout)

    copying, even, counted, stochastic, pseudo, blocks = seconds(
        lambda: np.copyto(copy, values),
        call("ties_even"),
        call("ties_even", counters),
        call("stochastic", counters),
        call("pseudo_stochastic", counters),
        call("ties_even", counters, rows, (1, SIZE // 1000, 1000, 1)),
        repeats=repeats,
    )
    return {
        "copy_seconds": copying,
        "ties_even_seconds": even,
        "ties_even_counted_seconds": counted,
        "stochastic_seconds": stochastic,
        "pseudo_stochastic_seconds": pseudo,
        "blocks_of_1000_seconds": blocks,
        "ties_even_vs_copy": copying / even,
        "ties_even_counted_vs_copy": copying / counted,
        "stochastic_vs_copy": copying / stochastic,
        "counters_cost": counted / even - 1,
    }


def by_numpy(values):
    """Return the integers as a NumPy user gets them."""
    limit = 2 ** (WORD_BITS - 1)
    return np.clip(np.rint(values * 2.0**FRACTION_BITS), -limit, limit - 1).astype(np.int16)


def by_apytypes(values):
    """Return an APyFixedArray: exact first, as `from_float` knows one rounding mode, then rounded and saturated."""
    import apytypes

    exact = apytypes.APyFixedArray.from_float(values, bits=60, frac_bits=40)
    return exact.cast(
        bits=WORD_BITS,
        frac_bits=FRACTION_BITS,
        quantization=apytypes.QuantizationMode.TIES_EVEN,
        overflow=apytypes.OverflowMode.SAT,
    )


def by_apytypes_from_float(values):
    """Return an APyFixedArray by its own mode, ties away from zero, and wrapping: the least that it can do."""
    import apytypes

    return apytypes.APyFixedArray.from_float(values, bits=WORD_BITS, frac_bits=FRACTION_BITS)


def by_fxpmath(values):
    """Return an Fxp."""
    import fxpmath

    return fxpmath.Fxp(values, True, WORD_BITS, FRACTION_BITS, rounding="around", overflow="saturate")


def by_qpytorch(values):
    """Return a float tensor of rounded values."""
    import qtorch.quant
    import torch

    return qtorch.quant.fixed_point_quantize(torch.from_numpy(values), wl=WORD_BITS, fl=FRACTION_BITS, rounding="nearest")


OTHERS = {  # name: (function, package)
    "numpy": (by_numpy, "numpy"),
    "apytypes": (by_apytypes, "apytypes"),
    "apytypes_from_float": (by_apytypes_from_float, "apytypes"),
    "fxpmath": (by_fxpmath, "fxpmath"),
    "qpytorch": (by_qpytorch, "qtorch"),
}


def quantizing(repeats):
    """Return the numbers about floats."""
    numbers = {}
    values = np.random.default_rng(1).standard_normal(SIZE)
    singles = values.astype(np.float32)

    def call(values, rounding):
        return lambda: kernels.quantize(
            values, -FRACTION_BITS, Rounding(rounding).code, Overflow.SATURATE.code, WORD_BITS, counters=kernels.new_counters()
        )

    assert (call(values, "ties_even")() == by_numpy(values)).all()
    names = ("quantize_seconds", "quantize_stochastic_seconds", "quantize_float32_seconds")
    ours = call(values, "ties_even"), call(values, "stochastic"), call(singles, "ties_even")
    numbers.update(zip(names, seconds(*ours, repeats=repeats), strict=True))
    for name, (function, package) in OTHERS.items():
        if importlib.util.find_spec(package):
            given = singles if name == "qpytorch" else values
            (theirs,) = seconds(lambda function=function, given=given: function(given), repeats=2)
            reference = numbers["quantize_float32_seconds" if given is singles else "quantize_seconds"]
            numbers[f"{name}_seconds"] = theirs
            numbers[f"quantize_vs_{name}"] = theirs / reference
    return numbers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--repeats", type=int, default=51, help="calls of each; the median counts")
    arguments = parser.parse_args()

    numbers = {"threads": kernels.threads(), **requantizing(arguments.repeats), **quantizing(arguments.repeats)}
    print(f"{SIZE} numbers, {numbers['threads']} threads")
    for name, value in numbers.items():
        if name.endswith("_seconds"):
            print(f"  {name.removesuffix('_seconds'):24}{value * 1e3:10.2f} ms {SIZE / value / 1e9:8.3f} G/s")
    for name, value in numbers.items():
        if "_vs_" in name:
            print(f"  {name:32}{value:8.2f}")
    print(f"  {'counters_cost':32}{numbers['counters_cost']:8.1%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
