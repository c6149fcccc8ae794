"""How a cell of the cliff study is trained: what it trains on, and what of it is stored.

"Training with fixed point values" (2017): one dense ReLU layer, samples one at a time. Followed exactly, the protocol
here gives the published accuracies to the last bit.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from intnet.datasets import Dataset
from intnet.online import Cell, CellResult, OnlineProblem, train_cells
from intnet.sweeps.grid import Row

ACCURACY_WINDOW = 1001
"""Iterations that the smoothed accuracy looks at, and so the fewest a cell may have."""

FIRST_SEED = 0xDEADBEEC
"""The seed of the published study; seed s of a grid is ``RandomState(FIRST_SEED + s)``."""

WEIGHT_DEVIATION = 500
"""Standard deviation of the initial weights in raw units, whatever the number of fraction bits."""


def cliff_problem(data: Dataset, seed: int, iterations: int) -> OnlineProblem:
    """Draw what the cells of one seed train on.

    The generator is NumPy's legacy ``RandomState(0xdeadbeec + seed)``; seed 0 is the published draw. MNIST draws the order
    of the samples before the weights, DIGITS the weights before the order, as the published programs did.

    Parameters
    ----------
    data : Dataset
        DIGITS, or all of MNIST in the order of "MNIST original".
    seed : int
    iterations : int
        How many samples will be presented; no more are copied.
    """
    random = np.random.RandomState(FIRST_SEED + seed)
    samples, inputs = data.codes.shape

    def draw_weights() -> NDArray[np.int64]:
        return np.rint(random.normal(0, WEIGHT_DEVIATION, (data.classes, inputs))).astype(np.int64)

    if data.name == "mnist":
        order = random.permutation(samples)
        weights = draw_weights()
    else:
        weights = draw_weights()
        order = random.permutation(samples)
    order = order[:iterations]
    return OnlineProblem(data.codes[order], data.values, data.labels[order], weights)


# The weights of the study's Savitzky-Golay filter are _FILTER_CONSTANT + _FILTER_SQUARE * k**2, k iterations from the end.
# Exact would be 3 (3 m**2 + 3 m - 1) / D and -15 / D, D = (2 m - 1) (2 m + 1) (2 m + 3), m = 500 (Madden 1978). SciPy finds
# them by least squares, 1.3e-11 too large with most of OpenBLAS's kernels and 1.8e-11 with others, so its accuracies
# depend on the processor. The published ones hold the former; kept here, they come out on every machine.
_FILTER_CONSTANT = 0.002247755986568335
_FILTER_SQUARE = -1.4955149551551848e-08


def smoothed_accuracy(hits: NDArray[np.integer]) -> float:
    """Return the accuracy at the last iteration: the last value of a Savitzky-Golay filter over the hits.

    Window `ACCURACY_WINDOW`, order 2, ends mirrored: ``scipy.signal.savgol_filter(hits, 1001, 2, mode="mirror")[-1]``, with
    the filter weights rounded as they were when the study was published.

    Parameters
    ----------
    hits : (iterations,) integers 0 or 1, at least `ACCURACY_WINDOW`

    Returns
    -------
    float
        May lie a little outside 0..1, as the filter's outer weights are negative.
    """
    k = np.arange(ACCURACY_WINDOW // 2 + 1, dtype=np.int64)
    times = np.asarray(hits[: -len(k) - 1 : -1], np.int64)
    times = times * np.where(k == 0, 1, 2)  # the mirror shows every hit but the last a second time
    return _FILTER_CONSTANT * int(times.sum()) + _FILTER_SQUARE * int(times @ (k * k))


def as_row(result: CellResult) -> Row:
    """Return what is stored of a training."""
    return Row(
        *result.cell,
        accuracy=smoothed_accuracy(result.hits),
        mean_abs_update=result.mean_abs_update,
        mean_abs_error_scaled=result.mean_abs_error_scaled,
        lost_updates=result.lost_updates,
        floored_to_minus_one=result.floored_to_minus_one,
        wraps=result.wraps,
    )


def trained_rows(
    data: Dataset, cells: Iterable[Cell], iterations: int, *, threads: int | None = None, device: str = "cpu"
) -> Iterator[list[Row]]:
    """Train cells and yield their rows as they come: see :func:`intnet.online.train_cells`, whose errors are raised here."""
    trained = train_cells(lambda seed: cliff_problem(data, seed, iterations), cells, iterations, threads=threads, device=device)
    return ([as_row(result) for result in results] for results in trained)
