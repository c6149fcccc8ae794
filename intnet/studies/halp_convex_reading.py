"""How the results of :mod:`intnet.studies.halp_convex` are read, told and written.

1. Reading    by_setting, checkpoints, read
2. Telling    describe
3. Writing    export
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from intnet import files
from intnet.errors import StudyError
from intnet.studies import tables
from intnet.studies.halp_convex import (
    HALP,
    LP_SGD,
    LP_SVRG,
    NO_SCALE,
    SGD,
    SVRG,
    ConvexRow,
    ConvexSpec,
    DigitsRow,
    DigitsSpec,
)

Row = ConvexRow | DigitsRow

# 1. Reading -------------------------------------------------------------------------------------------------------------


class Name(NamedTuple):
    """A setting without its seed; the problem of softmax regression is "digits"."""

    problem: str
    method: str
    bits: int
    mu: float
    T: int
    scale: str

    def __str__(self) -> str:
        label = {SGD: "SGD", SVRG: "SVRG", HALP: "HALP", LP_SGD: "LP-SGD", LP_SVRG: "LP-SVRG"}[self.method]
        parts = [f"{self.bits} bits"] * (self.bits > 0) + [f"mu {self.mu:g}"] * (self.mu > 0) + [f"T {self.T}"] * (self.T > 0)
        parts += [f"{self.scale.replace('_', ' ')} scale"] * (self.scale != NO_SCALE)
        return f"{label}, {', '.join(parts)}" if parts else label


Curves = dict[Name, dict[int, list[float]]]


def name_of(row: Row) -> Name:
    """Return the setting of a row, without its seed."""
    problem = row.problem if isinstance(row, ConvexRow) else "digits"
    return Name(problem, row.method, row.bits, row.mu, row.T, row.scale)


def by_setting(rows: Iterable[Row]) -> Curves:
    """Return the values, the last field of rows, by setting and iteration, of all seeds in their order."""
    found: Curves = {}
    for row in rows:
        found.setdefault(name_of(row), {}).setdefault(row.iteration, []).append(row[-1])
    return found


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean; 0 if one of the values is."""
    given = np.array(list(values))
    return float(np.exp(np.log(given).mean())) if (given > 0).all() else 0.0


def checkpoints(iterations: Iterable[int]) -> list[int]:
    """Return those of the iterations that are a fifth, two fifths, .. of the last.

    >>> checkpoints(range(2, 22, 2))
    [4, 8, 12, 16, 20]
    """
    there = set(iterations)
    wanted = [max(there) * part // 5 for part in range(1, 6)]
    return [at for at in wanted if at in there]


@dataclass(frozen=True)
class Findings:
    """What one setting came to, over its seeds.

    Attributes
    ----------
    problem, method, bits, mu, T, scale
        As in the table.
    seeds : int
    values : dict of int to float
        The geometric mean at every checkpoint.
    worst : float
        The greatest value at the end.
    floor : float
        The geometric mean over the last quarter of the iterations, and over the seeds.
    to_svrg : float or None
        The greatest ratio, over the checkpoints, of the geometric mean to that of SVRG in wide words with the same T; of HALP.
    seeds_within_3 : int or None
        How many seeds stay within a factor of 3 of SVRG of the same seed at every checkpoint; of HALP.
    """

    problem: str
    method: str
    bits: int
    mu: float
    T: int
    scale: str
    seeds: int
    values: dict[int, float]
    worst: float
    floor: float
    to_svrg: float | None
    seeds_within_3: int | None

    @property
    def name(self) -> Name:
        """The setting."""
        return Name(self.problem, self.method, self.bits, self.mu, self.T, self.scale)


def read(rows: Sequence[Row]) -> list[Findings]:
    """Return what every setting came to, problem after problem: wide methods, fixed grids, HALP."""
    curves = by_setting(rows)
    seeds = {name: {row.seed for row in rows if name_of(row) == name} for name in curves}
    order = (SGD, SVRG, LP_SGD, LP_SVRG, HALP)
    found = []
    for name in sorted(curves, key=lambda one: (one.problem, order.index(one.method), one.bits, -one.mu, one.T, one.scale)):
        curve = curves[name]
        end = max(curve)
        late = [value for at, values in curve.items() if at > 0.75 * end for value in values]
        reference = Name(name.problem, SVRG, 0, 0.0, name.T, NO_SCALE)
        comparable = name.method == HALP and seeds.get(reference) == seeds[name]
        ratio, within = _to_svrg(curve, curves[reference]) if comparable else (None, None)
        found.append(
            Findings(
                **name._asdict(),
                seeds=len(seeds[name]),
                values={at: geometric_mean(curve[at]) for at in checkpoints(curve)},
                worst=max(curve[end]),
                floor=geometric_mean(late),
                to_svrg=ratio,
                seeds_within_3=within,
            )
        )
    return found


def _to_svrg(curve: dict[int, list[float]], svrg: dict[int, list[float]]) -> tuple[float | None, int]:
    """Return the greatest ratio of the geometric means at a checkpoint, and the number of seeds within 3 at all of them."""
    marks = [at for at in checkpoints(curve) if geometric_mean(svrg[at]) > 0]
    ratio = max((geometric_mean(curve[at]) / geometric_mean(svrg[at]) for at in marks), default=None)
    close = [[a <= 3 * b for a, b in zip(curve[at], svrg[at], strict=True)] for at in marks]
    return ratio, sum(map(all, zip(*close, strict=True)))


# 2. Telling -------------------------------------------------------------------------------------------------------------


def describe(findings: Sequence[Findings]) -> list[str]:
    """Say in sentences what :func:`read` found."""
    sentences = []
    for problem in dict.fromkeys(one.problem for one in findings):
        some = {one.name: one for one in findings if one.problem == problem}
        what = "gradient norm" if problem == "digits" else "distance to the optimum"
        seeds = max(one.seeds for one in some.values())
        sentences.append(
            f"{'Softmax regression' if problem == 'digits' else f'Problem {problem}'}, {what}, "
            f"geometric mean of {seeds} seed{'s' * (seeds > 1)} at the end:"
        )
        for one in some.values():
            told = f"  {one.name}: {one.values[max(one.values)]:.3g}"
            if one.method in (SGD, LP_SGD, LP_SVRG):
                told += f", {one.floor:.3g} over the last quarter"
            elif one.to_svrg is not None:
                told += f"; at most {one.to_svrg:.2f} times SVRG at a checkpoint"
                if one.seeds_within_3 is not None:
                    told += f", {one.seeds_within_3} of {one.seeds} seeds within 3 times at all"
                told += f"; at worst {one.worst:.3g}"
            sentences.append(f"{told}.")
        sentences += [*_floors(some), *_mus(some)]
    return sentences


def _floors(some: dict[Name, Findings]) -> list[str]:
    """Compare the floors of fixed grids with HALP of as many bits."""
    told = []
    for bits in sorted({name.bits for name in some if name.method == HALP}):
        best = min((one for name, one in some.items() if (name.method, name.bits) == (HALP, bits)), key=_last)
        fixed = [one for name, one in some.items() if name.method in (LP_SGD, LP_SVRG) and name.bits == bits]
        if fixed and _last(best) > 0:
            lowest = min(fixed, key=lambda one: one.floor)
            told.append(
                f"With {bits} bits the lowest floor of a fixed grid ({lowest.name}) is {lowest.floor / _last(best):.2g} times "
                f"the end of the best HALP ({best.name})."
            )
    return told


def _mus(some: dict[Name, Findings]) -> list[str]:
    """Compare the least mu with the greatest, all else equal."""
    told = []
    alike: dict[tuple, list[Findings]] = {}
    for name, one in some.items():
        alike.setdefault((name.method, name.bits, name.T, name.scale), []).append(one)
    for group in alike.values():
        most, least = max(group, key=lambda one: one.mu), min(group, key=lambda one: one.mu)
        if most.mu > least.mu and _last(most) > 0:
            told.append(f"{least.name}: {_last(least) / _last(most):.2g} times what it is with mu {most.mu:g}.")
    return told


def _last(one: Findings) -> float:
    return one.values[max(one.values)]


# 3. Writing -------------------------------------------------------------------------------------------------------------


def export(spec: ConvexSpec | DigitsSpec, folder: Path | str, *, plots: bool = True) -> list[str]:
    """Write what was found into the folder of a study, ``convex.json`` or ``digits.json``, and its picture.

    Parameters
    ----------
    spec : ConvexSpec or DigitsSpec
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
    convex = isinstance(spec, ConvexSpec)
    name, kind = ("convex", ConvexRow) if convex else ("digits", DigitsRow)
    path = Path(folder)
    if not (path / tables.CONFIG).is_file():
        raise StudyError(f"{folder} holds no study ({tables.CONFIG} is missing); run it first")
    with tables.opened(path, f"{name}.csv", kind, spec.config(), {}) as table:
        rows: list[Any] = table.rows
        if not rows:
            raise StudyError(f"{table.path} holds no run yet; give the same command again to go on")
        found = read(rows)
        sentences = describe(found)
        total = sum(len(spec.runs(one)) for one in spec.problems) if isinstance(spec, ConvexSpec) else len(spec.runs())
        if missing := total - len({row[:-2] for row in rows}):
            sentences.append(f"{missing} of {total} runs are missing; the same command trains them.")
        content = {"findings": [asdict(one) for one in found], "sentences": sentences}
        text = json.dumps(content, indent=2) + "\n"
        files.write_atomically(path / f"{name}.json", lambda draft: draft.write_text(text, encoding="utf-8"))
        if plots:
            from intnet import plotting

            figure = plotting.plot_centred(by_setting(rows), rate="" if spec.rate is None else f"{float(spec.rate):.3g}")
            files.write_atomically(path / f"{name}.png", lambda draft: figure.savefig(draft, dpi=150))
    return sentences
