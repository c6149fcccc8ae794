"""Pictures of variance-reduced training with bit centering (HALP): how far it goes where weights on a fixed grid stay.

Colours are methods and their bits, shades the mu of HALP, and dashed is a scale that is a power of two.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from intnet.errors import InputError

_LABELS = {"sgd": "SGD", "svrg": "SVRG", "halp": "HALP", "lp_sgd": "LP-SGD", "lp_svrg": "LP-SVRG"}
_WIDE = {"sgd": "0.6", "svrg": "0.1"}
_COLORS = {"lp_sgd": ("C1", "C4", "C5", "tan"), "lp_svrg": ("C3", "C6", "firebrick", "plum")}
_SHADES = (  # of HALP, by bits: the greatest mu first
    ("C0", "deepskyblue", "navy", "lightsteelblue"),
    ("C2", "yellowgreen", "darkgreen", "palegreen"),
    ("C9", "turquoise", "darkslategray", "paleturquoise"),
    ("C8", "khaki", "darkolivegreen", "gold"),
)
_KINDS = {"exact": "exact scale", "power_of_two": "power-of-two scale"}


def plot_centred(curves: Mapping[Any, Mapping[int, list[float]]], *, rate: str = "") -> Figure:
    """Draw the distance to the optimum, or the norm of the gradient, against the iteration, a panel a problem and T.

    Lines are geometric means over the seeds, and the shade goes from the least seed to the greatest. Methods that have no T
    are in every panel of their problem.

    Parameters
    ----------
    curves : mapping of intnet.studies.halp_convex_reading.Name to mapping of iteration to values
        See :func:`intnet.studies.halp_convex_reading.by_setting`.
    rate : str
        For the title.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no curve.
    """
    if not curves:
        raise InputError("there is no curve to draw; run the study first")
    problems = sorted({name.problem for name in curves})
    periods = sorted({name.T for name in curves} - {0}) or [0]
    styles = _styles(curves)
    shape = (len(problems), len(periods))
    figure = Figure(figsize=(1.2 + 4.9 * shape[1], 1.9 + 3.6 * shape[0]), layout="constrained")
    for i, row in enumerate(figure.subplots(*shape, squeeze=False, sharey="row")):
        for j, ax in enumerate(row):
            here = {name: curve for name, curve in curves.items() if name.problem == problems[i] and name.T in (0, periods[j])}
            for name, curve in here.items():
                _draw(ax, curve, *styles[name[1:4], name.scale], wide=name.method in _WIDE)
            _dress(ax, problems[i], periods[j], max(max(curve) for curve in here.values()), labelled=j == 0)
    seeds = max(len(values) for curve in curves.values() for values in curve.values())
    spread = f"; geometric mean of {seeds} seeds, shaded: their range" if seeds > 1 else ""
    subject = "Softmax regression on digits" if problems == ["digits"] else "Least squares"
    figure.suptitle(f"{subject}{f', rate {rate}' if rate else ''}{spread}", fontsize=11 if len(periods) > 1 else 9)
    handles = [
        Line2D([], [], color=color, linestyle=style, linewidth=1.8, label=_label(*name))
        for name, (color, style) in styles.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2 + (shape[1] > 1), frameon=False, fontsize=9)
    return figure


def _styles(curves: Mapping[Any, Any]) -> dict[tuple, tuple[Any, Any]]:
    """Return colour and line style by method, bits, mu and scale, in the order of the legend."""
    order = list(_LABELS)
    names = sorted({(name[1:4], name.scale) for name in curves}, key=lambda n: (order.index(n[0][0]), n[0][1], -n[0][2], n[1]))
    chosen: dict[tuple, tuple[Any, Any]] = {}
    for (method, bits, mu), scale in names:
        rank = sorted({b for (m, b, _), _ in names if m == method}).index(bits) % 4
        mus = sorted({u for (m, b, u), _ in names if (m, b) == (method, bits)}, reverse=True)
        color = (
            _WIDE[method]
            if method in _WIDE
            else _COLORS[method][rank]
            if method in _COLORS
            else _SHADES[rank][mus.index(mu) % 4]
        )
        chosen[(method, bits, mu), scale] = (color, "--" if scale == "power_of_two" else "-")
    return chosen


def _label(setting: tuple[str, int, float], scale: str) -> str:
    method, bits, mu = setting
    parts = [f"{bits} bits"] * (bits > 0) + [rf"$\mu$ = {mu:g}"] * (mu > 0)
    parts += [_KINDS.get(scale, scale)] * (mu > 0)
    return f"{_LABELS[method]}, {', '.join(parts)}" if parts else f"{_LABELS[method]}, wide"


def _draw(ax: Axes, curve: Mapping[int, list[float]], color: Any, style: Any, *, wide: bool) -> None:
    iterations = [at for at in sorted(curve) if min(curve[at]) > 0]  # a logarithm shows nothing of 0
    if not iterations:
        return
    groups = [np.array(curve[at]) for at in iterations]
    means = [float(np.exp(np.log(group).mean())) for group in groups]
    # what is wide lies below, and is seen on both sides of what coincides with it
    ax.plot(iterations, means, color=color, linestyle=style, linewidth=3.0 if wide else 1.3, zorder=1.9 if wide else 2.0)
    if any(len(group) > 1 for group in groups):
        low, high = [float(g.min()) for g in groups], [float(g.max()) for g in groups]
        ax.fill_between(iterations, low, high, color=color, alpha=0.12, linewidth=0)


def _dress(ax: Axes, problem: str, period: int, end: int, *, labelled: bool) -> None:
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(numticks=8))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlim(0, end)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    ax.set_xlabel("iteration (one sample each)")
    if labelled:
        ax.set_ylabel(r"norm of the gradient, $\|\nabla f(w)\|$" if problem == "digits" else r"distance, $\|w - w^*\|$")
    named = [] if problem == "digits" else [f"problem {problem}"]
    ax.set_title(", ".join(named + [f"a full gradient every {period:,} iterations"] * (period > 0)), fontsize=10)


# Networks


def plot_training_loss(curves: Mapping[str, Mapping[int, list[float]]], *, title: str = "", window: int = 1) -> Figure:
    """Draw training losses, smoothed already, against the iteration on a log scale: means over seeds, shaded: their range.

    Parameters
    ----------
    curves : mapping of label to mapping of iteration to values, one a seed
        Labels that begin with "HALP" are in colour, others grey.
    title : str
    window : int
        Iterations that a loss is the mean of.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no curve.
    """
    figure, ax = _panel(curves, title)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 7)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlim(0, max(max(curve) for curve in curves.values()))
    ax.set_xlabel("iteration (one batch each)")
    ax.set_ylabel(f"training loss (nats), mean of up to {window:,} iterations")
    return figure


def plot_test_accuracy(
    curves: Mapping[str, Mapping[int, list[float]]], *, title: str = "", marks: tuple[int, Mapping[str, float]] | None = None
) -> Figure:
    """Draw test accuracies in percent against the epoch: means over seeds, shaded: their range.

    Parameters
    ----------
    curves : mapping of label to mapping of epoch to values, one a seed
        Labels that begin with "HALP" are in colour, others grey.
    title : str
    marks : (epoch, mapping of label to accuracy), optional
        What was published for that epoch, at full size: a diamond in the curve's colour.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no curve.
    """
    figure, ax = _panel(curves, title)
    colors = {line.get_label(): line.get_color() for line in ax.lines}
    ends = [max(curve) for curve in curves.values()]
    if marks is not None:
        at, values = marks
        for label, value in values.items():
            if label in colors:
                ax.plot([at], [value], "D", color=colors[label], markerfacecolor="none", clip_on=False)
        handle = Line2D([], [], color="0.2", marker="D", linestyle="", markerfacecolor="none")
        ax.legend([handle], [f"published, full size, epoch {at}"], loc="lower right", frameon=False, fontsize=9)
        ends.append(at)
    ax.set_xlim(min(min(curve) for curve in curves.values()) - 0.2, max(ends) + 0.2)
    ax.set_ylim(0, 100)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel("test accuracy (%)")
    return figure


def _panel(curves: Mapping[str, Mapping[int, list[float]]], title: str) -> tuple[Figure, Axes]:
    """Return a figure with all curves drawn and named below."""
    if not curves:
        raise InputError("there is no curve to draw; run the study first")
    figure = Figure(figsize=(7.4, 5.2), layout="constrained")
    ax = figure.subplots()
    colored = iter(f"C{number}" for number in range(10))
    grey = iter(("0.1", "0.55", "0.75") * len(curves))
    for label, curve in curves.items():
        at = sorted(curve)
        style: dict[str, Any] = (
            {"color": next(colored)} if label.startswith("HALP") else {"color": next(grey), "linestyle": "--"}
        )
        style |= {"marker": "o", "markersize": 4} if len(at) == 1 else {}
        ax.plot(at, [float(np.mean(curve[one])) for one in at], label=label, linewidth=1.6, **style)
        if any(len(curve[one]) > 1 for one in at):
            low, high = [min(curve[one]) for one in at], [max(curve[one]) for one in at]
            ax.fill_between(at, low, high, color=style["color"], alpha=0.12, linewidth=0)
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    ax.set_title(title, fontsize=11)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure, ax
