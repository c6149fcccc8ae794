"""A sweep of trainings: what came of it, in words, tables and pictures.

1. Reading    read, Group, describe
2. Writing    export
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from intnet import files
from intnet._version import __version__
from intnet.jobs import available_cores
from intnet.studies import cliffs
from intnet.sweeps import Dask, GridSpec, Here, Pool, Store, SweepSpec, storage
from intnet.sweeps.axes import axis_of, order_of
from intnet.sweeps.planning import Plan
from intnet.sweeps.planning import plan as plan_of
from intnet.sweeps.reading import Group, read, reason
from intnet.sweeps.trainings import TRAINED

if TYPE_CHECKING:
    import xarray

ENOUGH_SHARE = 0.95
"""A value of an axis is enough if it reaches this share of the best accuracy."""

FILES = ("config.json", "sweep.csv", "sweep.json")
PICTURES = ("sweep.png", "sweep-telemetry.png")


# 1. Reading -------------------------------------------------------------------------------------------------------------


def best_of(groups: Sequence[Group]) -> Group | None:
    """Return the group of the highest mean accuracy, the first of equals; None if nothing ran."""
    ran = [group for group in groups if group.seeds]
    return max(ran, key=lambda group: group.accuracy, default=None)


def along(groups: Sequence[Group], name: str, at: Group) -> list[Group]:
    """Return the groups that differ from `at` in one axis at most, in its order."""
    rest = {key: value for key, value in at.cell.items() if key != name}
    some = [group for group in groups if {k: v for k, v in group.cell.items() if k != name} == rest]
    return sorted(some, key=lambda group: order_of(axis_of(name), group.cell[name]))


def describe(groups: Sequence[Group]) -> list[str]:
    """Say in sentences what came out."""
    best = best_of(groups)
    if best is None:
        reason = next((group.refused for group in groups if group.refused), "")
        return [f"No cell could be trained: {reason}." if reason else "No cell is stored yet."]
    seeds = max(group.seeds for group in groups)
    sentences = [
        f"Best: {_accuracy(best)} of the test samples with {_name(best)}{f' (mean over {seeds} seeds)' * (seeds > 1)}."
    ]
    for name in best.cell:
        if len({group.cell[name] for group in groups}) > 1:
            sentences.append(_along(groups, name, best))
    died = [group for group in groups if group.died]
    if died:
        sentences.append(f"Networks died in {len(died)} of {len(groups)} settings, the first with {_name(died[0])}.")
    refused = [group for group in groups if group.refused]
    if refused:
        sentences.append(f"Refused in {len(refused)} of {len(groups)} settings: {_name(refused[0])}: {refused[0].refused}.")
    return sentences


def _along(groups: Sequence[Group], name: str, best: Group) -> str:
    """Say how accuracy goes along an axis, all else as in the best setting."""
    line = [group for group in along(groups, name, best) if group.seeds]
    others = ", all else as in the best" if len(best.cell) > 1 else ""
    if axis_of(name).kind is not int:
        shown = ", ".join(f"{group.cell[name]} {_accuracy(group)}" for group in line[:12])
        return f"Along {name}{others}: {shown}{', ...' if len(line) > 12 else ''}."
    enough = [group for group in line if group.accuracy >= ENOUGH_SHARE * best.accuracy]
    least, below = enough[0], [group for group in line if group.cell[name] < enough[0].cell[name]]
    if not below:
        return f"Along {name}{others}: {least.cell[name]}, the least tried, is enough ({_accuracy(least)})."
    fails = below[-1]
    why = f" ({found})" if (found := reason(fails)) else ""
    return (
        f"Along {name}{others}: {least.cell[name]} is the least that reaches {ENOUGH_SHARE:.0%} of the best "
        f"({_accuracy(least)}); {fails.cell[name]} reaches {_accuracy(fails)}{why}{_unsure(least, fails)}."
    )


def _unsure(one: Group, other: Group) -> str:
    """Say so if the intervals of two settings overlap."""
    if one.half is None or other.half is None or abs(one.accuracy - other.accuracy) > one.half + other.half:
        return ""
    return "; their intervals overlap, and more seeds would tell"


def _accuracy(group: Group) -> str:
    return f"{group.accuracy:.2%}" + ("" if group.half is None else f" ± {100 * group.half:.2f}")


def _name(group: Group) -> str:
    return ", ".join(f"{name} {label}" for name, label in group.cell.items()) or "these settings"


def to_xarray(store: Store) -> "xarray.Dataset":
    """Return the stored cells as a labelled grid whose dimensions are the axes, sorted; numbers of cells not stored are NaN."""
    grid = store.to_xarray()
    for column in store.schema.axes:
        order = sorted(
            range(grid.sizes[column.name]), key=lambda i: order_of(axis_of(column.name), grid[column.name].values[i])
        )
        grid = grid.isel({column.name: order})
    return grid


def missing(spec: SweepSpec | GridSpec, cells: Sequence[Any], out: Path | str) -> list[Any]:
    """Return the cells that a folder lacks; it is not made, nor taken.

    Raises
    ------
    StudyError
        If it holds another sweep.
    """
    stored = storage.cells_in(out, spec.study(), spec.schema)
    return [cell for cell in cells if tuple(cell) not in stored]


def plan(
    spec: SweepSpec | GridSpec,
    cells: Sequence[Any],
    out: Path | str,
    workers: Here | Pool | Dask,
    data_dir: Path | str | None,
    fresh: bool = False,
    say: Callable[[str], object] | None = None,
) -> Plan:
    """Reckon what is left to be done of some cells, given what a folder holds, and by whom; nothing is written.

    With `fresh`, what the folder holds does not count.

    Raises
    ------
    StudyError
        If the folder holds another sweep; InputError if the data are missing.
    """
    left = list(cells) if fresh else missing(spec, cells, out)
    if isinstance(workers, Here):
        count = (workers.threads or available_cores()) if isinstance(spec, GridSpec) else 1  # cells in threads, or one by one
    else:
        with workers:
            count = workers.count()
    return plan_of(spec, left, len(cells), count, data_dir, say)


def title(spec: SweepSpec | GridSpec) -> str:
    """Return what a report calls a sweep."""
    if isinstance(spec, GridSpec):
        return f"Cliffs: {spec.dataset}"
    named = [str(value) for name, value in spec.settings if name in ("dataset", "model", "recipe")]
    return f"Sweep of {', '.join(name for name, labels in spec.axes if len(labels) > 1 or len(spec.axes) == 1)}" + (
        f": {', '.join(named)}" if named else ""
    )


# 2. Writing -------------------------------------------------------------------------------------------------------------


def export(store: Store, spec: SweepSpec | GridSpec, *, plots: bool = True) -> list[str]:
    """Write what is stored into its folder, as files to read and pictures to look at, and return what it says in sentences.

    Files that already show all that is stored are left as they are.

    Raises
    ------
    StudyError
        If a file cannot be written.
    """
    if isinstance(spec, GridSpec):
        return cliffs.export(store, plots=plots)["sentences"]
    state = {"intnet": __version__, "cells": store.count(), "left_out": spec.left_out}
    written, drawn = store.note("written") or {}, store.note("drawn") or {}
    write = written.get("state") != state or written.get("files") != files.stamps(store.folder, FILES)
    draw = plots and (drawn.get("state") != state or drawn.get("files") != files.stamps(store.folder, PICTURES))
    if not write and not draw and "sentences" in written:
        return written["sentences"]
    rows = store.rows()
    groups = read(rows, spec)
    sentences = describe(groups)
    if spec.left_out:
        sentences.append(spec.left_out)
    if write:
        store.write_csv(rows)
        best = best_of(groups)
        files.write_json(store.folder / "config.json", config(store, spec, rows))
        files.write_changed(store.folder / "sweep.json", _as_json(sentences, best, groups).encode())
        store.set_note("written", {"state": state, "files": files.stamps(store.folder, FILES), "sentences": sentences})
    if draw and groups:
        from intnet import plotting

        title = ", ".join(str(value) for name, value in spec.settings if name in ("dataset", "model", "recipe"))
        pictures = (plotting.plot_sweep(groups, title=title), plotting.plot_sweep_telemetry(groups, title=title))
        for name, picture in zip(PICTURES, pictures, strict=True):
            files.write_atomically(store.folder / name, partial(picture.savefig, dpi=150))
        store.set_note("drawn", {"state": state, "files": files.stamps(store.folder, PICTURES)})
    return sentences


def _as_json(sentences: list[str], best: Group | None, groups: Sequence[Group]) -> str:
    """Return sweep.json, a line a group: there may be many."""

    def line(group: Group) -> str:
        known = {name: None if value != value else value for name, value in vars(group).items()}  # JSON has no NaN
        return json.dumps(known, allow_nan=False)

    entries = {
        "sentences": json.dumps(sentences),
        "best": "null" if best is None else line(best),
        "settings": "[\n" + ",\n".join(map(line, groups)) + "\n]",
    }
    return "{\n" + ",\n".join(f'"{name}": {text}' for name, text in entries.items()) + "\n}\n"


def _resolved(spec: SweepSpec) -> dict[str, Any]:
    """Return every setting of the first cell, also those that nobody named: what the others have where no axis says else."""
    training = spec.training(spec.cells()[0])
    settings = {one.name: getattr(training, one.name) for one in fields(training) if one.name != "recipe"}
    plain = {
        name: value if isinstance(value, (int, float, str, type(None))) else str(value) for name, value in settings.items()
    }
    recipe: Any = training.recipe
    return {**plain, "recipe": recipe.to_dict()}


def config(store: Store, spec: SweepSpec, rows: Sequence[tuple]) -> dict[str, Any]:
    """Return what a reader needs to make the results again: also those cells that an earlier run stored."""
    axes = {}
    for place, column in enumerate(store.schema.axes):
        axis = axis_of(column.name)
        axes[column.name] = sorted({row[place] for row in rows}, key=partial(order_of, axis))
    return {
        **store.study,
        "axes": axes,
        "first_cell": _resolved(spec),
        "cells": len(rows),
        "data": store.note("data"),
        "trained": TRAINED,
        "accuracy_unit": "fraction of 1",
        "intnet": __version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
    }
