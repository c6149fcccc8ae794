"""The fraction-bitwidth and learning-rate study: where training in integers falls off a cliff.

"Training with fixed point values" (2017): one dense ReLU layer, 10,000 samples one at a time, learning rates ``2**-lr_shift``
against fraction bits f, in int64 with shifts that round to minus infinity. Followed exactly, the protocol here gives the
published accuracies to the last bit.

1. Running        run_grid
2. Reading        read_cliffs, describe
3. Writing        export
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intnet import files
from intnet._version import __version__
from intnet.datasets import Dataset
from intnet.errors import StudyError
from intnet.sweeps import ACCURACY_WINDOW, FIRST_SEED, GridSpec, Here, Row, Store, run_sweep, write_atomically
from intnet.sweeps.intervals import mean_and_half
from intnet.sweeps.protocol import WEIGHT_DEVIATION, cliff_problem, smoothed_accuracy

if TYPE_CHECKING:
    import xarray

__all__ = ["cliff_problem", "describe", "export", "read_cliffs", "run_grid", "smoothed_accuracy", "whole_seeds"]

PLATEAU_SHARE = 0.90
"""A rate works if its plateau reaches this share of the best rate's."""

ENOUGH_SHARE = 0.95
"""Fraction bits are enough for a rate if they reach this share of its plateau."""


# 1. Running -------------------------------------------------------------------------------------------------------------


def run_grid(
    spec: GridSpec,
    store: Store[Row],
    load: Callable[[], Dataset],
    *,
    threads: int | None = None,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda cells: None,  # noqa: ARG005
) -> int:
    """Train the cells of `spec` that `store` lacks and store each as it is finished.

    Parameters
    ----------
    spec : GridSpec
    store : Store
        Opened for ``spec.study()``.
    load : function
        Gives the data set; not called when nothing is missing.
    threads : int, optional
    device : {"cpu", "gpu", "auto"}
        See :func:`intnet.online.train_cells`. What is stored is the same, so a folder may be filled on both.
    progress : function of an int, optional
        Told how many more cells have been stored: on a GPU launch by launch, which may be all cells of a seed.

    Returns
    -------
    int
        How many cells were trained.

    Raises
    ------
    StudyError
        If the data differ from those the stored cells were trained on, or storing fails.
    InputError
        If `threads` or `device` is refused; DeviceError if a GPU is asked for and none can be used. Nothing is stored then.
    """
    if not store.missing(spec.cells()):
        return 0
    if (data := load()).name != spec.dataset:
        raise StudyError(f"the grid is of {spec.dataset}, but the data are {data.name}; give the data set that the grid names")
    here = Here(threads=threads, device=device)
    return run_sweep(spec, store, here, load=lambda *_, **__: data, progress=progress)


# 2. Reading -------------------------------------------------------------------------------------------------------------


def read_cliffs(grid: "xarray.Dataset") -> dict[str, Any]:
    """Find the two cliffs in a grid of accuracies.

    The plateau of a rate is its best accuracy over fraction bits. The left cliff is the highest rate whose plateau reaches
    90 % of the best rate's. The diagonal cliff holds, for every rate at or below the left cliff, the fewest fraction bits
    that reach 95 % of its plateau; rates whose plateau is under 90 % of the best are censored: the grid ends before they
    have learned. The slope, in bits a halving of the rate, is Theil and Sen's: the median over all pairs of rates.

    Parameters
    ----------
    grid : xarray.Dataset
        As :func:`intnet.sweeps.open_grid` gives it. With several seeds their mean is read, and each seed alone for the
        intervals.

    Returns
    -------
    dict
        ``best``, ``left_cliff``, ``diagonal_cliff``, ``censored_lr_shifts``, ``seeds``. The cliffs are those of the mean
        accuracy. Beside them, ``mean_over_seeds`` and ``interval``: the cliff read from each seed alone, its mean and the
        95 % interval of that (Student's t); None with fewer than two seeds that have all cells.
    """
    lr_shifts, fraction_bits = grid.lr_shift.values, grid.fraction_bits.values
    by_seed = grid.accuracy.transpose("seed", "lr_shift", "fraction_bits").values
    counts = np.sum(~np.isnan(by_seed), axis=0)
    mean = np.divide(np.nansum(by_seed, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    cliffs = _read_one(mean, lr_shifts, fraction_bits)
    each = [_read_one(accuracy, lr_shifts, fraction_bits) for accuracy in by_seed[_whole(grid)]]
    cliffs["left_cliff"] |= _over_seeds([float(one["left_cliff"]["lr_shift"]) for one in each])
    slopes = [one["diagonal_cliff"]["bits_per_halving"] for one in each]
    cliffs["diagonal_cliff"] |= _over_seeds([slope for slope in slopes if slope is not None])
    return {"seeds": int(counts.max()), **cliffs}


def whole_seeds(grid: "xarray.Dataset") -> "xarray.Dataset":
    """Return the grid with only those seeds that have every cell that any seed has; all seeds if none has.

    A mean over different seeds in different cells would show the seeds, not the cells.
    """
    whole = _whole(grid)
    return grid.isel(seed=np.flatnonzero(whole)) if whole.any() else grid


def _whole(grid: "xarray.Dataset") -> NDArray[np.bool_]:
    stored = ~np.isnan(grid.accuracy.transpose("seed", "lr_shift", "fraction_bits").values)
    return (stored == stored.any(axis=0)).all(axis=(1, 2))


def _read_one(accuracy: NDArray[np.float64], lr_shifts: NDArray[np.int64], bits: NDArray[np.int64]) -> dict[str, Any]:
    known = np.where(np.isnan(accuracy), -np.inf, accuracy)
    plateaus = known.max(axis=1)
    best = int(plateaus.argmax())
    # A plateau of zero or (the filter's outer weights are negative) below is its own threshold.
    works = plateaus >= np.minimum(PLATEAU_SHARE * plateaus[best], plateaus[best])
    left = int(np.flatnonzero(works)[0])
    points: list[dict[str, Any]] = []
    for i in range(left, len(lr_shifts)):
        if works[i]:
            enough = int(np.flatnonzero(known[i] >= min(ENOUGH_SHARE * plateaus[i], plateaus[i]))[0])
            points.append({"lr_shift": int(lr_shifts[i]), "fraction_bits": int(bits[enough]), "plateau": float(plateaus[i])})
    slope, intercept = _theil_sen([point["lr_shift"] for point in points], [point["fraction_bits"] for point in points])
    return {
        "best": {
            "lr_shift": int(lr_shifts[best]),
            "fraction_bits": int(bits[known[best].argmax()]),
            "accuracy": float(plateaus[best]),
        },
        "left_cliff": {
            "lr_shift": int(lr_shifts[left]),
            "plateau": float(plateaus[left]),
            "plateau_above": float(plateaus[left - 1]) if left and np.isfinite(plateaus[left - 1]) else None,
        },
        "diagonal_cliff": {
            "points": points,
            "bits_per_halving": slope,
            "intercept": intercept,
            # At the fewest bits tried a point is only an upper limit: the cliff itself may lie outside the grid.
            "at_fewest_tried": sum(point["fraction_bits"] == int(bits[0]) for point in points),
        },
        "censored_lr_shifts": [
            int(lr_shifts[i]) for i in range(left, len(lr_shifts)) if not works[i] and np.isfinite(plateaus[i])
        ],
    }


def _theil_sen(x: Sequence[int], y: Sequence[int]) -> tuple[float | None, float | None]:
    """Return slope and intercept of the line through paired values: medians of all pairs' slopes and of the rests."""
    slopes = [(y[j] - y[i]) / (x[j] - x[i]) for i in range(len(x)) for j in range(i + 1, len(x))]
    if not slopes:
        return None, None
    slope = float(np.median(slopes))
    return slope, float(np.median(np.subtract(y, np.multiply(slope, x))))


def _over_seeds(values: list[float]) -> dict[str, Any]:
    """Return the mean of one value a seed and its 95 % interval by Student's t; None for fewer than two values."""
    mean, half = mean_and_half(values)
    if half is None:
        return {"mean_over_seeds": None, "interval": None}
    return {"mean_over_seeds": mean, "interval": [mean - half, mean + half]}


def describe(cliffs: dict[str, Any]) -> list[str]:
    """Say in sentences what :func:`read_cliffs` found."""
    best, left, diagonal = cliffs["best"], cliffs["left_cliff"], cliffs["diagonal_cliff"]
    seeds = f" (mean over {cliffs['seeds']} seeds)" if cliffs["seeds"] > 1 else ""
    sentences = [
        f"Best: {best['accuracy']:.1%} at a learning rate of 2^-{best['lr_shift']} "
        f"with {best['fraction_bits']} fraction bits{seeds}."
    ]
    if left["plateau_above"] is None:
        sentences.append(
            f"Left cliff: not in this grid; its highest rate, 2^-{left['lr_shift']}, already learns ({left['plateau']:.1%})."
        )
    else:
        sentences.append(
            f"Left cliff: 2^-{left['lr_shift']} is the highest rate that works; it reaches {left['plateau']:.1%}, but the next "
            f"higher rate tried no more than {left['plateau_above']:.1%}, however many fraction bits it gets"
            f"{_seed_by_seed(left, '2^-{:.2f}')}."
        )
    if diagonal["bits_per_halving"] is None:
        sentences.append("Diagonal cliff: not enough rates in this grid to measure it.")
    elif diagonal["at_fewest_tried"] == len(diagonal["points"]):
        fewest = diagonal["points"][0]["fraction_bits"]
        sentences.append(
            f"Diagonal cliff: not in this grid; {fewest} fraction bits, the fewest tried, are enough for every rate that works."
        )
    else:
        needed = ", ".join(f"2^-{point['lr_shift']}: {point['fraction_bits']}" for point in diagonal["points"])
        if diagonal["at_fewest_tried"]:
            needed += " (where that is the fewest tried, fewer may do)"
        sentences.append(
            f"Diagonal cliff: each halving of the learning rate costs about {diagonal['bits_per_halving']:.2f} more fraction "
            f"bits (the median over all pairs of rates{_seed_by_seed(diagonal, '{:.2f}')}). Fraction bits that reach 95 % of a "
            f"rate's best accuracy: {needed}."
        )
    if censored := cliffs["censored_lr_shifts"]:
        rates = ", ".join(f"2^-{lr_shift}" for lr_shift in censored)
        sentences.append(f"Left out: {rates}; within this grid they stay under 90 % of the best rate's accuracy.")
    return sentences


def _seed_by_seed(cliff: dict[str, Any], form: str) -> str:
    if cliff["interval"] is None:
        return ""
    mean, (low, high) = cliff["mean_over_seeds"], cliff["interval"]
    return f"; seed by seed {form.format(mean)} on average, 95 % interval {low:.2f} to {high:.2f}"


# 3. Writing -------------------------------------------------------------------------------------------------------------

FILES = ("config.json", "grid.csv", "grid.nc", "cliffs.json")
PICTURES = ("surface.png", "cliffs.png")


def export(store: Store[Row], *, plots: bool = True) -> dict[str, Any]:
    """Write what is stored into its folder, as files to read and pictures to look at.

    Files that already show all that is stored are left as they are.

    Returns
    -------
    dict
        The cliffs, see :func:`read_cliffs`, with ``sentences``.

    Raises
    ------
    StudyError
        If a file cannot be written.
    """
    state = {"intnet": __version__, "cells": store.count()}
    written, drawn = store.note("written") or {}, store.note("drawn") or {}
    write = written.get("state") != state or written.get("files") != files.stamps(store.folder, FILES)
    draw = plots and (drawn.get("state") != state or drawn.get("files") != files.stamps(store.folder, PICTURES))
    if not write and not draw and "cliffs" in written:
        return written["cliffs"]
    grid = store.to_xarray()
    whole = whole_seeds(grid)
    cliffs = read_cliffs(whole)
    cliffs["sentences"] = describe(cliffs)
    if left_out := grid.sizes["seed"] - whole.sizes["seed"]:
        cliffs["sentences"].append(f"Seeds that lack some cells are left out here and in the pictures: {left_out}.")
    if write:
        store.write_csv()
        files.write_json(store.folder / "config.json", _config(store, grid))
        files.write_json(store.folder / "cliffs.json", cliffs)
        netcdf = grid.to_netcdf(engine="h5netcdf")  # in memory: on a full disk HDF5 itself ends with a segmentation fault
        write_atomically(store.folder / "grid.nc", lambda path: path.write_bytes(netcdf))
        store.set_note("written", {"state": state, "files": files.stamps(store.folder, FILES), "cliffs": cliffs})
    if draw:
        from intnet import plotting

        surface, maps = plotting.plot_surface(whole), plotting.plot_cliffs(whole, cliffs)
        write_atomically(store.folder / "surface.png", lambda path: surface.savefig(path, dpi=150))
        write_atomically(store.folder / "cliffs.png", lambda path: maps.savefig(path, dpi=150))
        store.set_note("drawn", {"state": state, "files": files.stamps(store.folder, PICTURES)})
    return cliffs


def _config(store: Store[Row], grid: "xarray.Dataset") -> dict[str, Any]:
    """Return what a reader needs to make the results again."""
    return {
        **store.note("study"),
        "lr_shifts": grid.lr_shift.values.tolist(),
        "fraction_bits": grid.fraction_bits.values.tolist(),
        "seeds": grid.seed.values.tolist(),
        "cells": store.count(),
        "data": store.note("data"),
        "word_bits": 64,
        "rounding": "floor",
        "overflow": "wrap",
        "initial_weights": f"rint(normal(0, {WEIGHT_DEVIATION})) raw units, RandomState({FIRST_SEED:#x} + seed)",
        "accuracy": f"Savitzky-Golay filter of the hits, window {ACCURACY_WINDOW}, order 2, mirrored ends, last value",
        "intnet": __version__,
        "numpy": np.__version__,
    }
