"""A sweep of small networks in one process, in a pool and on a Dask cluster; and how long many stored cells take to draw.

    python benchmarks/sweeps.py
    python benchmarks/sweeps.py --cells 40 --turns 1      a quick look

Each cell trains the 64-100-50-10 perceptron on DIGITS, a seed and a word length each. The pool starts its processes within its
time; the cluster, two workers of one thread on this machine, stands already, as a user's would, and the code that its workers
have loaded stays with them. All tables are compared. Turns alternate; ratios are of medians.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np


def sweep_of(cells: int, epochs: int):
    """Return a sweep of so many cells."""
    from intnet.sweeps import SweepSpec

    words = {"weight.word_bits": range(7, 17), "seed": range(cells // 10)}
    return SweepSpec(words, {"dataset": "digits", "recipe": "fixed16", "epochs": epochs})


def run(spec, workers):
    """Return the seconds that a sweep takes from nothing, and its rows."""
    from intnet.sweeps import Store, run_sweep

    with tempfile.TemporaryDirectory() as folder, Store(folder, spec.study(), spec.schema) as store:
        start = time.perf_counter()
        run_sweep(spec, store, workers)
        return time.perf_counter() - start, store.rows()


def compare(cells: int, epochs: int, turns: int) -> None:
    from distributed import LocalCluster

    from intnet.sweeps import Dask, Here, Pool

    spec = sweep_of(cells, epochs)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        ways = {
            "one process": lambda: Here(threads=1),
            "pool of 2": lambda: Pool(2),
            "Dask, 2 workers": lambda: Dask(cluster.scheduler_address),
        }
        run(sweep_of(20, 1), ways["Dask, 2 workers"]())  # loads what is compiled, here and there
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        tables = []
        for _ in range(turns):
            for name, workers in ways.items():
                took, rows = run(spec, workers())
                seconds[name].append(took)
                tables.append(rows)
    assert all(rows == tables[0] for rows in tables), "tables differ"
    median = {name: statistics.median(some) for name, some in seconds.items()}
    print(f"{len(spec.cells())} cells, {epochs} epochs each; {turns} turns; all tables equal\n")
    print("| who | s | cells a second | speed against one process | against the pool |")
    print("|---|---:|---:|---:|---:|")
    for name, took in median.items():
        one, pool = median["one process"] / took, median["pool of 2"] / took
        print(f"| {name} | {took:.1f} | {len(tables[0]) / took:.1f} | {one:.2f} | {pool:.2f} |")


def draw(cells: int) -> None:
    """Time opening and drawing a stored grid of so many made-up cells."""
    from intnet.studies import cliffs
    from intnet.sweeps import GridSpec, GridStore, Row, open_grid

    spec = GridSpec("digits", seeds=range(-(-cells // 240)))
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        with GridStore(folder, spec.study()) as store:
            store.set_note("data", {"checksum": "0" * 64, "classes": 10, "samples": 1797})
            store.add(Row(*cell, *map(float, random.random(3)), 1, 2, 0) for cell in spec.cells())
        start = time.perf_counter()
        grid = open_grid(folder)
        opened = time.perf_counter() - start
        with GridStore(folder, spec.study()) as store:
            cliffs.export(store)
        took = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
    many = f"{grid.accuracy.size:,} stored cells"
    print(f"\n{many}: opened in {opened:.2f} s; opened, written and drawn in {took:.2f} s ({size:.0f} MiB)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=200, help="of the sweep, a multiple of 10 (default: 200)")
    parser.add_argument("--epochs", type=int, default=10, help="of each (default: 10)")
    parser.add_argument("--turns", type=int, default=3, help="(default: 3)")
    parser.add_argument("--stored", type=int, default=100_000, help="cells to open and draw (default: 100000)")
    arguments = parser.parse_args()
    compare(arguments.cells, arguments.epochs, arguments.turns)
    draw(arguments.stored)


if __name__ == "__main__":
    main()
