"""SWALP on networks: the study of one model, in every recipe, with every seed.

1. Reading    summarize, table, describe
2. Writing    set_aside, run, stored_rows, export

What is trained, and how one trajectory is: :mod:`intnet.studies.swalp_networks`.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from intnet import files
from intnet._version import __version__
from intnet.recipe import Recipe
from intnet.studies import trajectories as of_study
from intnet.studies.swalp_networks import AVERAGE_RECIPE, NetworkSpec, Row, Trajectory, epochs_csv, trajectories
from intnet.studies.tables import CONFIG
from intnet.studies.trajectories import EPOCHS, Progress

__all__ = [
    "NetworkSpec",
    "Row",
    "Trajectory",
    "describe",
    "export",
    "not_asked_for",
    "run",
    "set_aside",
    "stored_rows",
    "summarize",
    "table",
]

TABLE, PICTURE = "table.md", "curves.png"
METHODS = ("sgd_lp", "swalp")
_EXPORTS = (EPOCHS, TABLE, CONFIG, PICTURE)

PUBLISHED_ERRORS: dict[tuple[str, str], dict[str, tuple[float, float] | None]] = {
    ("cifar10", "vgg"): {"sgd_fp": (6.81, 0.09), "swa_fp": (6.51, 0.14), "sgd_lp": (7.61, 0.15), "swalp": (6.70, 0.12)},
    ("cifar10", "preresnet"): {"sgd_fp": (4.63, 0.18), "swa_fp": (4.03, 0.10), "sgd_lp": None, "swalp": None},
    ("cifar100", "vgg"): {"sgd_fp": (27.23, 0.17), "swa_fp": (25.93, 0.21), "sgd_lp": (29.59, 0.32), "swalp": (26.65, 0.29)},
    ("cifar100", "preresnet"): {"sgd_fp": (22.20, 0.57), "swa_fp": (19.95, 0.19), "sgd_lp": None, "swalp": None},
}
"""Test errors in percent, mean and deviation, at full size (VGG16, PreResNet-164); None where the release leaves a blank."""


# 1. Reading -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What one method came to, over seeds: test errors in percent. The deviation is None for one seed."""

    recipe: str
    method: str
    epoch: int
    mean: float
    deviation: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.deviation is None else f"{self.mean:.2f} ± {self.deviation:.2f}"


def summarize(spec: NetworkSpec, rows: Iterable[Row]) -> list[Result]:
    """Return for each recipe what SGD had when averaging began, as published, and at the end; and SWALP at the end.

    Seeds that are not trained to the end are left out.
    """
    results = []
    for recipe in _names(spec):
        for (method, epoch), errors in _errors(spec, rows, recipe).items():
            deviation = stdev(errors) if len(errors) > 1 else None
            results.append(Result(recipe, method, epoch, fmean(errors), deviation, len(errors)))
    return results


def _errors(spec: NetworkSpec, rows: Iterable[Row], recipe: str) -> dict[tuple[str, int], list[float]]:
    """Return a recipe's test errors in percent: when averaging began, at the end, and of the average; seed by seed."""
    of = {(row.seed, row.method, row.epoch): 100 * row.test_error for row in rows if row.recipe == recipe}
    start, end = spec.start or 0, spec.epochs
    seeds = [seed for seed in range(spec.seeds) if (seed, "swalp", end) in of]
    moments = dict.fromkeys((("sgd_lp", start), ("sgd_lp", end), ("swalp", end)))
    return {moment: [of[seed, *moment] for seed in seeds] for moment in moments} if seeds else {}


def _recipes(spec: NetworkSpec) -> list[Recipe]:
    return [one for one in spec.recipes if isinstance(one, Recipe)]


def _names(spec: NetworkSpec) -> list[str]:
    return [one.name for one in _recipes(spec)]


def table(spec: NetworkSpec, rows: Sequence[Row]) -> str:
    """Return the study's table in Markdown: our test errors, and those published at full size beside them."""
    published = PUBLISHED_ERRORS.get((spec.dataset.removesuffix("-jpeg"), spec.model), {})
    lines = [
        "| recipe | method | epoch | test error, %: ours | seeds | published at full size, % |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for one in summarize(spec, rows):
        kind = {"sgd_lp": "SGD", "swalp": "average"}[one.method]
        theirs = "" if one.method == "sgd_lp" and one.epoch == spec.epochs != spec.start else _published(published, one)
        lines.append(f"| `{one.recipe}` | {kind} | {one.epoch} | {one} | {one.seeds} | {theirs} |")
    return "\n".join(lines) + "\n"


def _published(published: dict[str, tuple[float, float] | None], one: Result) -> str:
    name = {"sgd_lp": "sgd_fp", "swalp": "swa_fp"}[one.method] if one.recipe == AVERAGE_RECIPE else one.method
    pair = published.get(name) if one.recipe in (AVERAGE_RECIPE, *_RELEASED) else None
    return "" if pair is None else f"{pair[0]:.2f} ± {pair[1]:.2f}"


_RELEASED = ("bfp8", "bfp8-big", "bfp8-mixed")


def describe(spec: NetworkSpec, rows: Sequence[Row]) -> list[str]:
    """Say in sentences what came out: a difference below two standard deviations, seed by seed, is not called one."""
    sentences = []
    for recipe in _names(spec):
        errors = _errors(spec, rows, recipe)
        if not errors:
            continue
        averages = errors.pop(("swalp", spec.epochs))
        parts = []
        for (_, epoch), others in errors.items():
            gains = [one - other for one, other in zip(others, averages, strict=True)]
            parts.append(_gap(gains, f"the weights of epoch {epoch}"))
        over = f"mean of {len(averages)} seeds; seed by seed that is" if len(averages) > 1 else "one seed; that is"
        sentences.append(f"{recipe}: the average has a test error of {fmean(averages):.2f} %, {over} {', and '.join(parts)}.")
    return sentences or [f"Nothing is trained to epoch {spec.epochs} yet."]


def _gap(gains: Sequence[float], what: str) -> str:
    """Return a mean difference in points, its deviation, and whether it counts as one."""
    mean = fmean(gains)
    way = f"points {'less' if mean >= 0 else 'more'} than {what}"
    if len(gains) == 1:
        return f"{abs(mean):.2f} {way}"
    deviation = stdev(gains)
    return f"{abs(mean):.2f} ± {deviation:.2f} {way}{'' if abs(mean) > 2 * deviation else ' (no clear difference)'}"


# 2. Writing -------------------------------------------------------------------------------------------------------------


def set_aside(folder: Path | str) -> Path | None:
    """Rename a study's folder to a dated name: see :func:`intnet.files.set_aside`."""
    return of_study.set_aside(folder, _EXPORTS)


def run(
    spec: NetworkSpec, folder: Path | str, data_dir: Path | str | None = None, *, device: str = "cpu",
    begun: Callable[[Trajectory], object] | None = None, progress: Progress | None = None,
    after: Callable[[Row], object] | None = None,
) -> list[str]:  # fmt: skip
    """Train every trajectory of a study, from wherever each is.

    The same study may run in several processes at once in one folder: each trains what no other is training.

    Parameters
    ----------
    spec : NetworkSpec
    folder : path
    data_dir, device : as in `trajectories`
    begun, progress, after : as in :func:`intnet.studies.trajectories.train`

    Returns
    -------
    list of str
        The trajectories that another process is training.
    """
    ready, write = trajectories(spec, data_dir, device), partial(export, spec, folder, plots=False)
    hooks: Any = {"begun": begun, "progress": progress, "after": after}
    return of_study.run(ready, folder, _EXPORTS, write, **hooks)


def stored_rows(spec: NetworkSpec, folder: Path | str) -> list[Row]:
    """Return the rows of all trajectories of a study that are kept in a folder, in the order of recipe, method, seed, epoch.

    Raises
    ------
    StudyError
        If a table is damaged.
    """
    rows: list[Row] = []
    names = _names(spec)
    for name, seed in itertools.product(names, range(spec.seeds)):
        mine = partial(_is_of, name, seed)
        rows += of_study.stored_rows(folder, f"{name}-seed{seed}", Row, mine, f"{name} with seed {seed}")
    return sorted(rows, key=lambda row: (names.index(row.recipe), METHODS.index(row.method), row.seed, row.epoch))


def stored_ends(spec: NetworkSpec, folder: Path | str) -> dict[str, str]:
    """Return which trajectories of a study ended early, and why."""
    return of_study.stored_ends(folder, (f"{name}-seed{seed}" for name in _names(spec) for seed in range(spec.seeds)))


def _is_of(name: str, seed: int, row: Row) -> bool:
    return (row.recipe, row.seed) == (name, seed) and row.method in METHODS


def not_asked_for(spec: NetworkSpec, folder: Path | str) -> list[str]:
    """Return the trajectories that are kept in a folder and are none of the study: other recipes', or other seeds'."""
    asked = {f"{name}-seed{seed}" for name in _names(spec) for seed in range(spec.seeds)}
    return of_study.not_asked_for(folder, asked)


def export(
    spec: NetworkSpec, folder: Path | str, config: dict[str, Any] | None = None, *, plots: bool = True
) -> list[Row]:  # fmt: skip
    """Write the tables, the configuration and the picture of what is there, and return its rows.

    Parameters
    ----------
    spec, folder : as in `run`
    config : dict, optional
        A trajectory's; else the configuration is left as it is.
    plots : bool

    Raises
    ------
    StudyError
        If a file cannot be written.
    """
    folder, rows = Path(folder), stored_rows(spec, folder)
    contents = {EPOCHS: epochs_csv(rows), TABLE: table(spec, rows)}
    if config is not None:
        shared = {**config, "recipes": [one.to_dict() for one in _recipes(spec)], "seeds": spec.seeds, "intnet": __version__}
        contents[CONFIG] = json.dumps(shared, indent=2) + "\n"
    with files.locked(folder, wait=60):
        for name, text in contents.items():
            files.write_changed(folder / name, text.encode())
        if plots and rows:
            from intnet import plotting

            name = spec.model if spec.depth is None else f"{spec.model} of depth {spec.depth}"
            title = f"{spec.dataset}, {name} at width {spec.width:g}"
            figure = plotting.plot_averages(rows, start=spec.start, title=title)
            files.write_atomically(folder / PICTURE, lambda path: figure.savefig(path, dpi=150))
    return rows
