"""How the results of :mod:`intnet.studies.swalp_convex` are read, told and written.

1. Least squares         read_linear, describe_linear
2. Softmax regression    read_logistic, describe_logistic
3. Writing               export
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet import files
from intnet.errors import StudyError
from intnet.studies import tables
from intnet.studies.swalp_convex import (
    SGD_LP,
    SWALP,
    LinearRow,
    LinearSpec,
    LogisticRow,
    LogisticSpec,
    linear_problem,
    optimum,
    quantized_distance,
)

# 1. Least squares -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearFindings:
    """What one format came to. Distances are squared, to the optimum, and means over the seeds.

    Attributes
    ----------
    format : str
        ``10/8`` for word and fraction bits, or ``wide``.
    fraction_bits : int
        0 of the wide one.
    seeds : int
    floor : float
        Of the last iterate: its mean over the last quarter of the iterations.
    average : float
        Of the average, at the end.
    quantized_optimum : float or None
        Of the optimum rounded to the format's grid, to nearest; None of the wide one.
    slope : float or None
        Of log distance of the average against log iteration, by least squares over the last half of the iterations: -1 is 1/T.
        None where fewer than three points are there.
    crossing : int or None
        The first iteration from which on the average stays below the quantized optimum.
    crossing_extrapolated : int or None
        Where it would cross if it goes on falling as 1/T; None if it has crossed.
    averages : dict of int to float
        Of the average after an eighth, a quarter, half and all of the iterations, as far as it was there.
    """

    format: str
    fraction_bits: int
    seeds: int
    floor: float
    average: float
    quantized_optimum: float | None
    slope: float | None
    crossing: int | None
    crossing_extrapolated: int | None
    averages: dict[int, float]


@lru_cache(4)
def references(spec: LinearSpec) -> dict[tuple[int, int], float]:
    """Return the squared distance of the quantized optimum by word and fraction bits, of all formats but the wide one."""
    best = optimum(linear_problem(spec))
    return {(form.word_bits, form.fraction_bits): quantized_distance(best, form) for form in spec.formats}


def read_linear(rows: Sequence[LinearRow], spec: LinearSpec) -> list[LinearFindings]:
    """Return what each format came to, coarse formats last and the wide one at the end; those without rows are left out."""
    lines = references(spec)
    names = [(form.word_bits, form.fraction_bits) for form in spec.formats] + [(0, 0)]
    found = []
    for name in names:
        iterations, last = mean_over_seeds(rows, name, SGD_LP)
        if iterations.size:
            averaged, average = mean_over_seeds(rows, name, SWALP)
            seeds = len({row.seed for row in rows if (row.word_bits, row.fraction_bits) == name})
            found.append(_read_format(name, seeds, lines.get(name), spec.iterations, iterations, last, averaged, average))
    return found


def mean_over_seeds(
    rows: Iterable[LinearRow], name: tuple[int, int], method: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the iterations of a format and a method, and the mean of the squared distance over the seeds at each."""
    by_iteration: dict[int, list[float]] = {}
    for row in rows:
        if (row.word_bits, row.fraction_bits) == name and row.method == method:
            by_iteration.setdefault(row.iteration, []).append(row.squared_distance)
    iterations = sorted(by_iteration)
    return np.array(iterations, np.int64), np.array([np.mean(by_iteration[at]) for at in iterations])


def _read_format(
    name: tuple[int, int], seeds: int, line: float | None, end: int, iterations: NDArray[np.int64],
    last: NDArray[np.float64], averaged: NDArray[np.int64], average: NDArray[np.float64],
) -> LinearFindings:  # fmt: skip
    late = averaged > end / 2
    slope = None
    if np.count_nonzero(late) >= 3 and (average > 0).all():
        slope = float(np.polynomial.Polynomial.fit(np.log(averaged[late]), np.log(average[late]), 1).convert().coef[1])
    crossing = extrapolated = None
    if line is not None:
        above = np.flatnonzero(average >= line)
        after = 0 if not above.size else int(above[-1]) + 1
        if after < len(average):
            crossing = int(averaged[after])
        elif line > 0:
            extrapolated = round(end * float(average[-1]) / line)
    at = {int(i): float(v) for i, v in zip(averaged, average, strict=True)}
    marks = [end // 8, end // 4, end // 2, end]
    return LinearFindings(
        format=_name(*name),
        fraction_bits=name[1],
        seeds=seeds,
        floor=float(last[iterations > 0.75 * end].mean()),
        average=float(average[-1]),
        quantized_optimum=line,
        slope=slope,
        crossing=crossing,
        crossing_extrapolated=extrapolated,
        averages={mark: at[mark] for mark in marks if mark in at},
    )


def _name(word_bits: int, fraction_bits: int) -> str:
    return f"{word_bits}/{fraction_bits}" if word_bits else "wide"


def describe_linear(findings: Sequence[LinearFindings]) -> list[str]:
    """Say in sentences what :func:`read_linear` found."""
    sentences = []
    for one in findings:
        told = f"{one.format}: SGD-LP stays at a squared distance of {one.floor:.3g} (mean over the last quarter)"
        told += f", the average ends at {one.average:.3g}, {one.floor / one.average:.0f} times below"
        told += "." if one.slope is None else f", falling as T^{one.slope:.2f}."
        if one.crossing is not None:
            told += f" From iteration {one.crossing:,} on it is nearer than the quantized optimum, {one.quantized_optimum:.3g}."
        elif one.crossing_extrapolated is not None:
            told += (
                f" The quantized optimum, at {one.quantized_optimum:.3g}, is not crossed; "
                f"as 1/T it would be at about {float(f'{one.crossing_extrapolated:.2g}'):,.0f} iterations."
            )
        sentences.append(told)
    fixed = [one for one in findings if one.quantized_optimum is not None]
    by_bits = sorted(fixed, key=lambda one: -one.fraction_bits)
    for fine, coarse in itertools.pairwise(by_bits):
        if bits := fine.fraction_bits - coarse.fraction_bits:
            sentences.append(
                f"{bits} more fraction bit{'s' * (bits != 1)}, {coarse.format} to {fine.format}: the floor of SGD-LP is "
                f"{coarse.floor / fine.floor:.1f} times lower (the square of the grid is {4**bits})."
            )
    return sentences


# 2. Softmax regression --------------------------------------------------------------------------------------------------

MEASURES = ("gradient_norm_squared", "loss", "train_error", "test_error")


@dataclass(frozen=True)
class LogisticFindings:
    """What one number of fraction bits came to by one method: means over the seeds. `fraction_bits` is 0 of the wide one."""

    fraction_bits: int
    method: str
    seeds: int
    gradient_norm_squared: float
    loss: float
    train_error: float
    test_error: float


def read_logistic(rows: Sequence[LogisticRow]) -> list[LogisticFindings]:
    """Return the means over the seeds, by fraction bits, the last iterate before the average; the wide one comes last."""
    names = sorted({(row.fraction_bits == 0, row.fraction_bits, row.method) for row in rows})
    found = []
    for _, bits, method in names:
        some = [row for row in rows if (row.fraction_bits, row.method) == (bits, method)]
        found.append(
            LogisticFindings(bits, method, len(some), *(float(np.mean([getattr(r, m) for r in some])) for m in MEASURES))
        )
    return found


def describe_logistic(findings: Sequence[LogisticFindings]) -> list[str]:
    """Say in sentences what :func:`read_logistic` found."""
    by_name = {(one.fraction_bits, one.method): one for one in findings}
    bits = sorted({one.fraction_bits for one in findings} - {0})
    sentences = []
    for few in bits:
        last, average = by_name[few, SGD_LP], by_name[few, SWALP]
        sentences.append(
            f"{few} fraction bits: the last iterate has a loss of {last.loss:.4f} and {last.train_error:.2%} training, "
            f"{last.test_error:.2%} test error; the average {average.loss:.4f}, {average.train_error:.2%} and "
            f"{average.test_error:.2%}."
        )
    if (0, SWALP) in by_name:
        last, average = by_name[0, SGD_LP], by_name[0, SWALP]
        sentences.append(
            f"Wide: the last iterate {last.loss:.4f}, {last.train_error:.2%} and {last.test_error:.2%}; the average "
            f"{average.loss:.4f}, {average.train_error:.2%} and {average.test_error:.2%}."
        )
    for measure, what in (("loss", "loss"), ("train_error", "training error")):
        needed = {few: _needed_by_last(by_name, bits, getattr(by_name[few, SWALP], measure), measure) for few in bits}
        equal = ", ".join(f"{few}: {need}" for few, need in needed.items() if need is not None)
        never = ", ".join(str(few) for few, need in needed.items() if need is None)
        sentences.append(
            f"Fraction bits with which the last iterate does as well as the average, by {what}: "
            + "; ".join(
                [f"for an average with {equal}"] * bool(equal)
                + [f"with none of those tried as well as with {never}"] * bool(never)
            )
            + "."
        )
    return sentences


def _needed_by_last(by_name: Any, bits: Sequence[int], most: float, measure: str) -> int | None:
    """Return the fewest fraction bits with which the last iterate reaches a value of a measure, or None."""
    return next((few for few in bits if getattr(by_name[few, SGD_LP], measure) <= most), None)


# 3. Writing -------------------------------------------------------------------------------------------------------------


def export(spec: LinearSpec | LogisticSpec, folder: Path | str, *, plots: bool = True) -> list[str]:
    """Write what was found into the folder of a study, ``linear.json`` or ``logistic.json``, and its picture.

    Parameters
    ----------
    spec : LinearSpec or LogisticSpec
    folder : path
        In which the study was run, if only in part.
    plots : bool

    Returns
    -------
    list of str
        The findings in sentences; the last says if runs are missing.

    Raises
    ------
    StudyError
        If the folder cannot be used, holds another study or no rows, or a file cannot be written.
    """
    name, kind = ("linear", LinearRow) if isinstance(spec, LinearSpec) else ("logistic", LogisticRow)
    path = Path(folder)
    if not (path / tables.CONFIG).is_file():
        raise StudyError(f"{folder} holds no study ({tables.CONFIG} is missing); run it first")
    with tables.opened(path, f"{name}.csv", kind, spec.config(), {}) as table:
        rows: list[Any] = table.rows
        if not rows:
            raise StudyError(f"{table.path} holds no run yet; give the same command again to go on")
        if isinstance(spec, LinearSpec):
            of_format: Sequence[Any] = read_linear(rows, spec)
            sentences, runs = describe_linear(of_format), len({(row.word_bits, row.fraction_bits, row.seed) for row in rows})
        else:
            of_format = read_logistic(rows)
            sentences, runs = describe_logistic(of_format), len({(row.fraction_bits, row.seed) for row in rows})
        if missing := len(spec.runs()) - runs:
            sentences.append(f"{missing} of {len(spec.runs())} runs are missing; the same command trains them.")
        content = {"findings": [asdict(one) for one in of_format], "sentences": sentences}
        text = json.dumps(content, indent=2) + "\n"
        files.write_atomically(path / f"{name}.json", lambda draft: draft.write_text(text, encoding="utf-8"))
        if plots:
            from intnet import plotting

            figure = (
                plotting.plot_linear(rows, references(spec), rate=str(spec.rate), averaging_start=spec.averaging_start)
                if isinstance(spec, LinearSpec)
                else plotting.plot_logistic(rows)
            )
            files.write_atomically(path / f"{name}.png", lambda draft: figure.savefig(draft, dpi=150))
    return sentences
