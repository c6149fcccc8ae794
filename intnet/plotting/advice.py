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
    figure = Figure(figsize=(1.4 + 3.0 * max(2, len(roles)), 4.4), layout="constrained")
    axes = figure.subplots(1, len(roles), squeeze=False, sharey=True)[0]
    threshold = advice.target - advice.tolerance
    for ax, role in zip(axes, roles, strict=True):
        ax.axhline(threshold, color="0.4", linestyle="--", linewidth=1, label="target")
        line = {one.bits[role]: one for one in [advice.base, *advice.alone.get(role, ())]}
        some = [line[bits] for bits in sorted(line)]
        _points(ax, role, some, "C0", "o", "others as in the base", "-")
        for end, marker, words in (("low", "x", "one fraction bit less"), ("high", "+", "one bit less of range")):
            less = [one.trial for one in advice.neighbours if (one.role, one.end) == (role, end) and one.trial is not None]
            block = advice.base.formats[role].startswith("bfp")
            _points(ax, role, less, "C3", marker, "one bit less" if block else words, "none", 7)
        if advice.final is not None:
            _points(ax, role, [advice.final], "C2", "*", "advised, all roles", "none", 12)
        ax.set_xlabel(f"{role} word, bits")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
    axes[0].set_ylabel("test accuracy, mean and 95 % interval")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    low = min(axes[0].get_ylim()[0], threshold)
    axes[0].set_ylim(max(-0.02, low), min(1.02, axes[0].get_ylim()[1]))
    handles: dict[str, Any] = {}
    for ax in axes:
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


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
