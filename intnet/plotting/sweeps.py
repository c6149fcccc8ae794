"""Pictures of sweeps of trainings: accuracy over their axes, and where bits were lost."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from intnet.errors import InputError

PANELS_MAX = 12
_NUMBERS_MAX = 12  # a side of a map in whose fields accuracies are written
_TICKS_MAX = 24
_EDGES_MAX = 48  # a side of a map whose fields have edges, and points of a line that have marks
_ROLES = ("weight", "activation", "error", "gradient", "momentum", "master")


def _axes(groups: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the axes that have several values, with these in the order in which they come; the longest first."""
    if not groups:
        raise InputError("there is no cell to draw; run the sweep first")
    values = {name: list(dict.fromkeys(group.cell[name] for group in groups)) for name in groups[0].cell}
    several = {name: some for name, some in values.items() if len(some) > 1}
    return dict(sorted(several.items(), key=lambda one: -len(one[1])))


def _words(name: str) -> str:
    return name.replace("_", " ").replace(".", ": ")


def _places(values: Sequence[Any]) -> tuple[list[float], bool]:
    """Return where values stand on an axis, and whether that is by their size."""
    numeric = all(isinstance(value, (int, float)) for value in values)
    return ([float(value) for value in values] if numeric else list(map(float, range(len(values))))), numeric


def _label(ax: Any, name: str, values: Sequence[Any], numeric: bool) -> None:
    ax.set_xlabel(_words(name))
    if numeric:
        if all(isinstance(value, int) for value in values):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        long = max(len(str(value)) for value in values) > 8
        ax.set_xticks(
            range(len(values)), [str(value) for value in values], rotation=30 if long else 0, ha="right" if long else "center"
        )


def _dress(ax: Any) -> None:
    ax.grid(color="0.92")
    ax.set_axisbelow(True)


def plot_sweep(groups: Sequence[Any], *, title: str = "") -> Figure:
    """Draw test accuracy: along one axis as a line with 95 % intervals over the seeds, over two or more as maps.

    Parameters
    ----------
    groups : sequence of intnet.studies.sweeps.Group
    title : str, optional

    Raises
    ------
    InputError
        If there is none.
    """
    axes = _axes(groups)
    if len(axes) <= 1:
        return _line(groups, axes, title)
    return _maps(groups, axes, title)


def _line(groups: Sequence[Any], axes: dict[str, list[Any]], title: str) -> Figure:
    name, values = next(iter(axes.items()), ("", [""]))
    x, numeric = _places(values)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax = figure.subplots()
    found = {group.cell.get(name, ""): group for group in groups}
    y = [found[value].accuracy for value in values]
    halves = [found[value].half or 0 for value in values]
    style: dict[str, Any] = {
        "color": "C0",
        "marker": "o",
        "markersize": 4,
        "capsize": 3,
        "linestyle": "-" if numeric else "none",
    }
    ax.errorbar(x, y, yerr=halves, **style)
    if refused := [place for place, value in zip(x, values, strict=True) if not found[value].seeds]:
        at_the_foot = ax.get_xaxis_transform()
        ax.plot(refused, [0.03] * len(refused), "x", color="0.5", transform=at_the_foot, label="refused")
        ax.legend(frameon=False)
    if name:
        _label(ax, name, values, numeric)
    else:
        ax.set_xticks([])
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    seeds = max(group.seeds for group in groups)
    ax.set_ylabel("test accuracy" + (f"\nmean of {seeds} seeds, 95 % interval" if seeds > 1 else ""))
    ax.set_title(title, fontsize=11)
    _dress(ax)
    return figure


def _maps(groups: Sequence[Any], axes: dict[str, list[Any]], title: str) -> Figure:
    (x_name, xs), (y_name, ys), *rest = axes.items()
    panels: dict[tuple[Any, ...], list[Any]] = {}
    for group in groups:
        panels.setdefault(tuple(group.cell[name] for name, _ in rest), []).append(group)
    shown = list(panels.items())[:PANELS_MAX]
    columns = len(shown) if len(shown) <= 3 else math.ceil(math.sqrt(len(shown)))
    rows = -(-len(shown) // columns)
    size = (min(16.0, 1.6 + columns * max(3.2, 0.42 * len(xs))), min(16.0, 1.0 + rows * max(2.6, 0.36 * len(ys))))
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    ran = [group.accuracy for group in groups if group.seeds]
    low, high = (min(ran), max(ran)) if ran else (0.0, 1.0)
    image = None
    edges: dict[str, Any] = {"edgecolors": "white", "linewidth": 0.3} if max(len(xs), len(ys)) <= _EDGES_MAX else {}
    for number, (key, some) in enumerate(shown):
        ax = places[number // columns, number % columns]
        values = np.full((len(ys), len(xs)), np.nan)
        for group in some:
            values[ys.index(group.cell[y_name]), xs.index(group.cell[x_name])] = group.accuracy
        image = ax.pcolormesh(values, vmin=low, vmax=high, cmap="viridis", **edges)
        ax.set_facecolor("0.85")
        if len(xs) <= _NUMBERS_MAX and len(ys) <= _NUMBERS_MAX and columns * len(xs) <= 2 * _NUMBERS_MAX:
            for (i, j), value in np.ndenumerate(values):
                if not math.isnan(value):
                    dark = value < (low + high) / 2
                    ax.text(
                        j + 0.5,
                        i + 0.5,
                        f"{100 * value:.{1 if high - low < 0.1 else 0}f}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="w" if dark else "k",
                    )
        if rest:
            ax.set_title(", ".join(f"{_words(name)} {value}" for (name, _), value in zip(rest, key, strict=True)), fontsize=9)
        for axis, names in ((ax.xaxis, xs), (ax.yaxis, ys)):
            step = -(-len(names) // _TICKS_MAX)
            axis.set_ticks([i + 0.5 for i in range(0, len(names), step)], [str(name) for name in names[::step]])
        if max(len(str(value)) for value in xs) > 4:
            ax.tick_params(axis="x", rotation=45)
    for ax in places.flat[len(shown) :]:
        ax.remove()
    for ax in places[:, 0]:
        ax.set_ylabel(_words(y_name))
    for number in range(len(shown)):
        if number + columns >= len(shown):
            ax = places[number // columns, number % columns]
            ax.set_xlabel(_words(x_name))
            ax.tick_params(labelbottom=True)
    if image is not None:
        seeds = max(group.seeds for group in groups)
        bar = figure.colorbar(
            image, ax=[places[i // columns, i % columns] for i in range(len(shown))], format=PercentFormatter(1, None)
        )
        bar.set_label("test accuracy" + (f"\nmean of {seeds} seeds" if seeds > 1 else ""))
    more = f" (the first {len(shown)} of {len(panels)} panels)" if len(panels) > len(shown) else ""
    figure.suptitle(f"{title}{more}", fontsize=11)
    return figure


def plot_sweep_telemetry(groups: Sequence[Any], *, title: str = "") -> Figure:
    """Draw, along every axis with all else as in the best setting, the shares of numbers that were lost or did not fit.

    Parameters
    ----------
    groups : sequence of intnet.studies.sweeps.Group
    title : str, optional

    Raises
    ------
    InputError
        If there is none.
    """
    axes = dict(list(_axes(groups).items())[:4]) or {"": [""]}
    ran = [group for group in groups if group.seeds]
    best = max(ran, key=lambda group: group.accuracy, default=groups[0])
    figure = Figure(figsize=(1.6 + 3.6 * max(1.4, len(axes)), 7.6), layout="constrained")
    places = figure.subplots(3, len(axes), squeeze=False, sharex="col", sharey="row")
    for column, (name, values) in enumerate(axes.items()):
        rest = {key: value for key, value in best.cell.items() if key != name}
        line = {group.cell.get(name, ""): group for group in ran if {k: v for k, v in group.cell.items() if k != name} == rest}
        kept = [value for value in values if value in line]
        x, numeric = _places(kept)
        marker = "" if numeric and len(kept) > _EDGES_MAX else "o"
        style: dict[str, Any] = {"marker": marker, "markersize": 3, "linestyle": "-" if numeric else "none"}
        for color, role in enumerate(_ROLES):
            if not any(line[value].bits_used[role] for value in kept):
                continue
            top, middle, bottom = places[:, column]
            if role not in ("weight", "master"):  # of these, updates are counted
                top.plot(x, [line[value].lost[role] for value in kept], color=f"C{color}", label=role, **style)
            middle.plot(x, [line[value].left[role] for value in kept], color=f"C{color}", label=role, **style)
            bottom.plot(x, [line[value].bits_used[role] for value in kept], color=f"C{color}", label=role, **style)
        places[0, column].plot(x, [line[value].lost_updates for value in kept], color="black", label="updates", **style)
        if name:
            _label(places[2, column], name, kept, numeric)
        else:
            places[2, column].set_xticks([])
    for ax, words in zip(places[:, 0], ("lost to rounding", "did not fit", "bits used"), strict=True):
        ax.set_ylabel(words)
    for ax in places.flat:
        _dress(ax)
    for ax in places[0]:
        ax.set_ylim(-0.03, 1.03)
    top = max(0.01, *(group.left[role] for group in ran for role in _ROLES), 0.0) if ran else 1.0
    for ax in places[1]:
        ax.set_ylim(-0.03 * top, 1.03 * top)
    for ax in places[:2].flat:
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    places[2, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
    handles: dict[str, Any] = {}
    for ax in (places[0, 0], places[1, 0]):
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=7, frameon=False)
    figure.suptitle(
        f"{title}: shares of all numbers, all epochs" if title else "shares of all numbers, all epochs", fontsize=11
    )
    return figure
