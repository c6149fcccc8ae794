"""The picture of an advice: accuracy against the word length of each role."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter


def plot_advice(advice: Any, *, title: str = "") -> Figure:
    """Draw, a panel a role, the trials with the other roles as in the base, the advised recipe, and its neighbours.

    Parameters
    ----------
    advice : intnet.advisor.Advice
    title : str, optional
    """
    roles = list(advice.base.bits)
    figure = Figure(figsize=(1.4 + 3.0 * max(2, len(roles)), 6.4), layout="constrained")
    axes = figure.subplots(2, len(roles), squeeze=False, sharex="col", sharey="row")
    threshold = advice.target - advice.tolerance
    for column, role in zip(axes.T, roles, strict=True):
        for ax in column:
            _role(ax, advice, role, threshold)
        column[1].set_xlabel(f"{role} word, bits")
        column[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes[:, 0]:
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes[0, 0].set_ylabel("test accuracy")
    axes[1, 0].set_ylabel("near the target")
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(max(-0.02, min(low, threshold)), min(1.02, high))
    apart = max(0.002, abs(advice.base.mean - threshold))
    axes[1, 0].set_ylim(threshold - 2 * apart, max(threshold, advice.base.mean) + 0.8 * apart)
    handles: dict[str, Any] = {}
    for ax in axes[0]:
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5 if len(roles) > 2 else 2, frameon=False)
    figure.suptitle(f"{title}: mean over seeds, 95 % interval" if title else "mean over seeds, 95 % interval", fontsize=11)
    return figure


def _role(ax: Any, advice: Any, role: str, threshold: float) -> None:
    """Draw the trials of a role."""
    ax.axhline(threshold, color="0.4", linestyle="--", linewidth=1, label="target")
    line = {one.bits[role]: one for one in [advice.base, *advice.alone.get(role, ())]}
    _points(ax, role, [line[bits] for bits in sorted(line)], "C0", "o", "others as in the base", "-")
    block = advice.base.formats[role].startswith("bfp")
    for end, marker, words in (("low", "x", "one fraction bit less"), ("high", "+", "one bit less of range")):
        less = [one.trial for one in advice.neighbours if (one.role, one.end) == (role, end) and one.trial is not None]
        _points(ax, role, less, "C3", marker, "one bit less" if block else words, "none", 7)
    if advice.final is not None:
        _points(ax, role, [advice.final], "C2", "*", "advised, all roles", "none", 12)
    ax.grid(color="0.92")
    ax.set_axisbelow(True)


def _points(
    ax: Any, role: str, trials: list[Any], color: str, marker: str, label: str, linestyle: str, size: float = 5
) -> None:
    if not trials:
        return
    x = [one.bits[role] for one in trials]
    y = [one.mean for one in trials]
    halves = [0 if one.interval is None else one.interval[1] - one.mean for one in trials]
    ax.errorbar(
        x, y, yerr=halves, color=color, marker=marker, markersize=size, linestyle=linestyle, linewidth=1.2, capsize=2,
        label=label, zorder=3 if marker == "*" else 2,
    )  # fmt: skip
