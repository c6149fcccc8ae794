"""Cells that differ in their seed alone, read together: means, intervals, and what telemetry says of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from intnet.recipe import ROLES
from intnet.sweeps.axes import axis_of, order_of
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


def mean_and_half(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and half its 95 % interval by Student's t; NaN of none, None for the half of fewer than two."""
    if not values:
        return math.nan, None
    if len(values) < 2:
        return float(values[0]), None
    mean = float(np.mean(values))
    from scipy.special import stdtrit

    return mean, float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(len(values)))


def read(rows: Sequence[tuple], spec: SweepSpec) -> list[Group]:
    """Return the cells in groups of all seeds, in the order of the axes."""
    names = [column.name for column in spec.schema.columns]
    axes = [name for name, _ in spec.axes]
    together: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        values = dict(zip(names, row, strict=True))
        together.setdefault(tuple(values[name] for name in axes if name != "seed"), []).append(values)
    others = [axis_of(name) for name in axes if name != "seed"]
    places = [{label: order_of(axis, label) for label in {key[i] for key in together}} for i, axis in enumerate(others)]
    ordered = sorted(together.items(), key=lambda one: tuple(place[label] for place, label in zip(places, one[0], strict=True)))
    return [group_of(dict(zip((axis.name for axis in others), key, strict=True)), some) for key, some in ordered]


def group_of(cell: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Group:
    """Return rows, each a dict of columns, as a group."""
    ran = [row for row in rows if not row["outcome"].startswith("refused")]
    mean, half = mean_and_half([row["test_accuracy"] for row in ran])

    def share(part: str, whole: str) -> float:
        if len(ran) == 1:  # of a hundred thousand settings, that counts
            return ran[0][part] / max(1, ran[0][whole])
        return sum(row[part] for row in ran) / max(1, sum(row[whole] for row in ran))

    return Group(
        cell=cell,
        seeds=len(ran),
        died=sum(row["outcome"].startswith("died") for row in ran),
        refused=next((row["outcome"].partition(": ")[2] for row in rows if row["outcome"].startswith("refused")), ""),
        accuracy=mean,
        half=half,
        lost_updates=share("lost_updates", "updates"),
        left={role: share(f"{role}_left", f"{role}_count") for role in ROLES},
        lost={role: share(f"{role}_lost", f"{role}_count") for role in ROLES},
        bits_used={role: max((row[f"{role}_bits_used"] for row in ran), default=0) for role in ROLES},
    )


def reason(group: Group) -> str:
    """Say what of the telemetry of a bad setting stands out."""
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
    return f" ({'; '.join(found)})" if found else ""
