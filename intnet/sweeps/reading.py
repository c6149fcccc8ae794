"""Cells that differ in their seed alone, read together: means, intervals, and what telemetry says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet.recipe import ROLES
from intnet.sweeps.axes import axis_of, order_of
from intnet.sweeps.intervals import mean_and_half
from intnet.sweeps.trainings import SweepSpec


@dataclass(frozen=True)
class Group:
    """The cells that differ in their seed alone.

    Attributes
    ----------
    cell : dict
        The labels of the other axes, by name.
    seeds : int
        How many cells ended in a trained or a dead network.
    died : int
    refused : str
        Why cells were refused, if some were.
    accuracy : float
        Test accuracy after the last epoch, mean over the seeds; NaN if there is none.
    half : float or None
        Half the 95 % interval of that by Student's t; None of fewer than two seeds.
    lost_updates : float
        Share of the updates that moved nothing.
    left, lost : dict
        By role, the share of the numbers that did not fit into their word, and that rounding made zero.
    bits_used : dict
        By role.
    """

    cell: dict[str, Any]
    seeds: int
    died: int
    refused: str
    accuracy: float
    half: float | None
    lost_updates: float
    left: dict[str, float]
    lost: dict[str, float]
    bits_used: dict[str, int]


def read(rows: Sequence[tuple], spec: SweepSpec) -> list[Group]:
    """Return the cells in groups of all seeds, in the order of the axes."""
    if not rows:
        return []
    names = [column.name for column in spec.schema.columns]
    table = dict(zip(names, zip(*rows, strict=True), strict=True))
    others = [axis_of(name) for name, _ in spec.axes if name != "seed"]
    keys = list(zip(*(table[axis.name] for axis in others), strict=True)) if others else [()] * len(rows)
    groups = _groups(table, keys, tuple(axis.name for axis in others))
    places = [{label: order_of(axis, label) for label in set(table[axis.name])} for axis in others]
    return sorted(groups, key=lambda one: [place[label] for place, label in zip(places, one.cell.values(), strict=True)])


def group_of(cell: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Group:
    """Return rows, each a dict of columns, as a group."""
    table = {name: [row[name] for row in rows] for name in rows[0]}
    return _groups(table, [tuple(cell.values())] * len(rows), tuple(cell))[0]


def _groups(table: Mapping[str, Sequence[Any]], keys: Sequence[tuple], names: tuple[str, ...]) -> list[Group]:
    """Return the rows of a table that share a key as a group each; all columns at once, as there may be many groups."""
    index: dict[tuple, int] = {}
    group = np.array([index.setdefault(key, len(index)) for key in keys], np.int64)
    count = len(index)
    outcomes = table["outcome"]
    ran = np.array([not outcome.startswith("refused") for outcome in outcomes])
    died = np.array([outcome.startswith("died") for outcome in outcomes])

    def totals(name: str, where: NDArray[np.bool_] = ran) -> NDArray[np.int64]:
        out = np.zeros(count, np.int64)
        np.add.at(out, group[where], np.array(table[name], np.int64)[where] if name else 1)
        return out

    def shares(part: str, whole: str) -> list[float]:
        return (totals(part) / np.maximum(1, totals(whole))).tolist()

    def used(name: str) -> list[int]:
        out = np.zeros(count, np.int64)
        np.maximum.at(out, group[ran], np.array(table[name], np.int64)[ran])
        return out.tolist()

    accuracies: list[list[float]] = [[] for _ in range(count)]
    refused = [""] * count
    for place, one, outcome, accuracy in zip(group.tolist(), ran.tolist(), outcomes, table["test_accuracy"], strict=True):
        if one:
            accuracies[place].append(accuracy)
        elif not refused[place]:
            refused[place] = outcome.partition(": ")[2]
    by_role = [
        [dict(zip(ROLES, some, strict=True)) for some in zip(*of_roles, strict=True)]
        for of_roles in (
            [shares(f"{role}_left", f"{role}_count") for role in ROLES],
            [shares(f"{role}_lost", f"{role}_count") for role in ROLES],
            [used(f"{role}_bits_used") for role in ROLES],
        )
    ]
    columns: Any = zip(
        index, totals("").tolist(), totals("", died).tolist(), refused, map(mean_and_half, accuracies),
        shares("lost_updates", "updates"), *by_role, strict=True,
    )  # fmt: skip
    return [
        Group(dict(zip(names, key, strict=True)), seeds, dead, why, mean[0], mean[1], lost, *roles)
        for key, seeds, dead, why, mean, lost, *roles in columns
    ]


def reason(group: Group) -> str:
    """Say what of the telemetry of a bad setting stands out; nothing if nothing does."""
    found = []
    if group.died:
        found.append(f"the network died with {group.died} of {group.seeds} seeds" if group.seeds > 1 else "the network died")
    if group.lost_updates >= 0.5:
        found.append(f"{group.lost_updates:.0%} of the updates moved no weight")
    role = max(group.left, key=lambda one: group.left[one])
    if group.left[role] >= 0.01:
        found.append(f"{group.left[role]:.1%} of the numbers of role {role} did not fit into their word")
    role = max(group.lost, key=lambda one: 0.0 if one in ("weight", "master") else group.lost[one])
    if role not in ("weight", "master") and group.lost[role] >= 0.2:
        found.append(f"rounding made {group.lost[role]:.0%} of the numbers of role {role} zero")
    return "; ".join(found)
