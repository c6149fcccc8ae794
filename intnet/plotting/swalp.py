"""Pictures of low-precision training with averaged weights (SWALP): how near the optimum the average comes, with how many bits.

SGD-LP is the last iterate, SWALP the average of the iterates; both are trained with the same rounded weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from intnet.errors import InputError

_LAST, _AVERAGE = "sgd_lp", "swalp"
_WIDE_COLOR = "0.35"


# 1. Least squares


def plot_linear(
    rows: Sequence[Any], references: Mapping[tuple[int, int], float], *, rate: str = "", averaging_start: int | None = None
) -> Figure:
    """Draw the squared distance to the optimum against the iteration, one colour a format.

    Lines are means over the seeds, and the shade goes from the least seed to the greatest.

    Parameters
    ----------
    rows : sequence of intnet.studies.swalp_convex.LinearRow
    references : mapping of (word_bits, fraction_bits) to float
        The squared distance of the quantized optimum: a dashed line in the format's colour.
    rate : str
        For the title.
    averaging_start : int, optional
        Where averaging begins: a thin vertical line.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no row.
    """
    if not rows:
        raise InputError("there is no row to draw; run the study first")
    names = sorted({(row.word_bits, row.fraction_bits) for row in rows}, key=lambda name: (name[0] == 0, name[1]))
    seeds = len({row.seed for row in rows})
    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    ax = figure.subplots()
    for i, name in enumerate(names):
        color = f"C{i}" if name[0] else _WIDE_COLOR
        _draw_distances(ax, rows, name, _LAST, color=color, linewidth=0.9, alpha=0.45)
        _draw_distances(ax, rows, name, _AVERAGE, color=color, linewidth=2.0)
        if name in references and references[name] > 0:
            ax.axhline(references[name], color=color, linestyle="--", linewidth=1.1)
    if averaging_start:
        ax.axvline(averaging_start, color="0.6", linewidth=0.8, linestyle=":")
        ax.annotate(
            "averaging begins", (averaging_start, 0.0), (3, 4), ax.get_xaxis_transform(), "offset points",
            fontsize=8, color="0.4",
        )  # fmt: skip
    ax.set_yscale("log")
    ax.set_xlim(0, max(row.iteration for row in rows))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    spread = f", mean of {seeds} seeds, shaded: their range" if seeds > 1 else ""
    ax.set(xlabel="iteration (one sample each)", ylabel=r"squared distance to the optimum, $\|w - w^*\|^2$")
    ax.set_title(f"Least squares{f', rate {_power(rate)}' if rate else ''}{spread}", fontsize=11)
    colors = [
        Line2D([], [], color=f"C{i}" if name[0] else _WIDE_COLOR, linewidth=2, label=_format(name))
        for i, name in enumerate(names)
    ]
    kinds = [
        Line2D([], [], color="0.2", linewidth=0.9, alpha=0.5, label="SGD-LP: last iterate"),
        Line2D([], [], color="0.2", linewidth=2, label="SWALP: average"),
        Line2D([], [], color="0.2", linewidth=1.1, linestyle="--", label=r"quantized optimum, $\|Q(w^*) - w^*\|^2$"),
    ]
    first = figure.legend(handles=colors, title="weights: bits/fraction bits", loc="outside right upper", frameon=False)
    first.get_title().set_fontsize(9)
    figure.legend(handles=kinds, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_distances(ax: Axes, rows: Sequence[Any], name: tuple[int, int], method: str, **style: Any) -> None:
    by_iteration: dict[int, list[float]] = {}
    for row in rows:
        if (row.word_bits, row.fraction_bits) == name and row.method == method:
            by_iteration.setdefault(row.iteration, []).append(row.squared_distance)
    iterations = sorted(by_iteration)
    groups = [by_iteration[at] for at in iterations]
    ax.plot(iterations, [float(np.mean(group)) for group in groups], **style)
    if any(len(group) > 1 for group in groups):
        low, high = [min(group) for group in groups], [max(group) for group in groups]
        ax.fill_between(iterations, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _format(name: tuple[int, int]) -> str:
    return f"{name[0]}/{name[1]}" if name[0] else "wide"


def _power(rate: str) -> str:
    return f"$2^{{{rate[2:]}}}$" if rate.startswith("2^") else rate


# 2. Softmax regression

_MEASURES = (
    ("gradient_norm_squared", r"squared gradient norm, $\|\nabla f\|^2$", True),
    ("loss", "training loss with decay (nats)", False),
    ("train_error", "training error", False),
    ("test_error", "test error", False),
)


def plot_logistic(rows: Sequence[Any]) -> Figure:
    """Draw the squared gradient norm, the loss and both errors against the fraction bits: the last iterate and the average.

    Points are means over the seeds, and the shade goes from the least seed to the greatest. The wide format is a horizontal
    line.

    Parameters
    ----------
    rows : sequence of intnet.studies.swalp_convex.LogisticRow
        Of one data set.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no row, or they are of several data sets.
    """
    sets = sorted({row.dataset for row in rows})
    if len(sets) != 1:
        raise InputError(f"rows must be of one data set, got {', '.join(sets) or 'none'}; run the study first, and draw one")
    figure = Figure(figsize=(10.0, 7.2), layout="constrained")
    seeds = len({row.seed for row in rows})
    spread = f"; mean of {seeds} seeds, shaded: their range" if seeds > 1 else ""
    figure.suptitle(f"Softmax regression, {sets[0]}{spread}")
    bits = sorted({row.fraction_bits for row in rows} - {0})
    styles = ((_LAST, "SGD-LP: last iterate", "C1", "o"), (_AVERAGE, "SWALP: average", "C0", "s"))
    for ax, (measure, label, logarithmic) in zip(figure.subplots(2, 2, sharex=True).flat, _MEASURES, strict=True):
        for method, name, color, marker in styles:
            groups = [_values(rows, few, method, measure) for few in bits]
            means = [float(group.mean()) for group in groups]
            ax.plot(bits, means, color=color, marker=marker, markersize=4, label=name)
            if seeds > 1 and bits:
                ax.fill_between(
                    bits, [g.min() for g in groups], [g.max() for g in groups], color=color, alpha=0.15, linewidth=0
                )  # fmt: skip
            wide = _values(rows, 0, method, measure)
            if wide.size:
                ax.axhline(float(wide.mean()), color=color, linestyle="--", linewidth=1.0, label=f"{name}, wide weights")
        if logarithmic:
            ax.set_yscale("log")
        elif "error" in measure:
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
            ax.set_ylim(bottom=0)
        ax.set_title(label, fontsize=10)
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in figure.axes[2:]:
        ax.set_xlabel("fraction bits of the weights")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _values(rows: Sequence[Any], fraction_bits: int, method: str, measure: str) -> NDArray[np.float64]:
    return np.array([getattr(r, measure) for r in rows if (r.fraction_bits, r.method) == (fraction_bits, method)])
