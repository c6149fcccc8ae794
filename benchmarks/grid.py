"""How fast the cliff grid is, against the per-sample NumPy loop that it replaces.

    python benchmarks/grid.py --data-dir DIR [--json FILE]

In one run, on the same processor cores: the loop on six cells spread over the grid (without its statistics, which would
only make it slower); the whole MNIST grid of 240 cells by `intnet`, all statistics counted; and the whole command from
process start to the last file, first with an empty cache of compiled code, then with a full one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from intnet import commandline, datasets, jobs, online
from intnet.studies.cliffs import cliff_problem
from intnet.sweeps import GridSpec

CELLS = [(5, 8), (8, 15), (9, 20), (12, 12), (14, 18), (19, 23)]  # learning-rate shift, fraction bits
PROGRAM = Path(__file__).resolve().parent.parent / "experiments" / "grid.py"


def numpy_loop(inputs, targets, labels, weights, fraction_bits, lr_shift):
    """Train one cell as a NumPy user writes it: one sample an iteration, int64 arrays."""
    f = fraction_bits
    hits = np.zeros(len(labels), np.uint8)
    for i in range(len(labels)):
        x, y = inputs[i], targets[i]
        accumulator = weights @ x
        z = accumulator >> f
        a = np.maximum(accumulator, 0) >> f
        delta = (y - a) * (z > 0)
        weights += (np.outer(delta, x)) >> (f + lr_shift)
        hits[i] = np.argmax(a) == labels[i]
    return hits


def time_loop(problem, cells):
    """Return the seconds of each cell and check its hits against `intnet`."""
    ours = {
        result.cell[1:]: result
        for results in online.train_cells(lambda _: problem, [online.Cell(0, *c) for c in cells], len(problem.labels))
        for result in results
    }
    seconds = []
    for lr_shift, f in cells:
        inputs = np.rint(problem.values * 2.0**f).astype(np.int64)[problem.codes]
        targets = np.where(problem.labels[:, np.newaxis] == np.arange(10), 1 << f, 0)
        start = time.perf_counter()
        hits = numpy_loop(inputs, targets, problem.labels, problem.weights.copy(), f, lr_shift)
        seconds.append(time.perf_counter() - start)
        assert (hits == ours[lr_shift, f].hits).all(), (lr_shift, f)
    return seconds


def time_grid(data, spec, repeats):
    """Return the seconds of every repeat: drawing the samples and training all cells."""
    seconds = []
    for _ in range(repeats + 1):  # the first may compile
        start = time.perf_counter()
        for _ in online.train_cells(lambda seed: cliff_problem(data, seed, spec.iterations), spec.cells(), spec.iterations):
            pass
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def time_command(data_dir, cache):
    """Return the seconds and the peak memory, in MB, of the whole command in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(PROGRAM), "--dataset", "mnist", "--no-plots", "--quiet", "--out", f"{folder}/mnist"]
        if data_dir:
            command += ["--data-dir", str(data_dir)]
        start = time.perf_counter()
        process = subprocess.Popen(command, env={**os.environ, "NUMBA_CACHE_DIR": cache})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            raise SystemExit(f"the command failed: {' '.join(command)}")
        return seconds, usage.ru_maxrss / 1024


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the MNIST files, or of a folder mnist with them")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--repeats", type=int, default=5, help="trainings of the whole grid; the median counts")
    return parser.parse_args()


def main(arguments):
    data = datasets.load_mnist(arguments.data_dir, order="mldata")
    spec = GridSpec("mnist")
    grid = time_grid(data, spec, arguments.repeats)
    loop = time_loop(cliff_problem(data, 0, spec.iterations), CELLS)
    with tempfile.TemporaryDirectory() as cache:
        first, _ = time_command(arguments.data_dir, cache)
        later = [time_command(arguments.data_dir, cache) for _ in range(3)]

    cells = len(spec.cells())
    command = statistics.median(seconds for seconds, _ in later)
    loop_cell, our_cell = statistics.mean(loop), statistics.median(grid) / cells
    numbers = {
        "loop_seconds_per_cell": loop_cell,
        "ours_seconds_per_cell": our_cell,
        "ratio": loop_cell / our_cell,
        "grid_seconds": statistics.median(grid),
        "command_seconds": command,
        "command_ratio": loop_cell * cells / command,
        "first_command_seconds": first,
        "first_command_ratio": loop_cell * cells / first,
        "command_peak_megabytes": max(memory for _, memory in later),
        "threads": jobs.available_cores(),
    }
    print(f"NumPy loop          {loop_cell:8.4f} s a cell   ({', '.join(f'{s:.3f}' for s in loop)})")
    print(f"intnet              {our_cell:8.5f} s a cell   {numbers['grid_seconds']:.3f} s for {cells} cells")
    print(f"ratio               {numbers['ratio']:8.1f}")
    print(f"the whole command   {command:8.2f} s          {numbers['command_ratio']:.1f} times as fast as the loop alone")
    print(f"its very first run  {first:8.2f} s          compiles; {numbers['first_command_ratio']:.1f} times as fast")
    print(f"peak memory         {numbers['command_peak_megabytes']:8.0f} MB")
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    commandline.run(parse, main, lambda _: "Interrupted.")
