"""Pictures of pruning, quantization and sparse optimization."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, PercentFormatter

from intnet.errors import InputError

_METHODS = ("gd", "projected", "l1", "proximal", "trimmed")
_WORDS = {
    "gd": "plain", "projected": "projected, {:g} kept", "l1": r"L1, $\lambda$ = {:g}",
    "proximal": r"soft threshold {:g}", "trimmed": r"trimmed, threshold {:g}",
}  # fmt: skip
_TITLES = {"gd": "plain", "projected": "projected", "l1": "L1", "proximal": "proximal", "trimmed": "trimmed L1"}


def _runs(rows: Sequence[Any]) -> dict[tuple[str, float, int], list[Any]]:
    if not rows:
        raise InputError("there is no row to draw; run the study first")
    groups: dict[tuple[str, float, int], list[Any]] = {}
    for row in rows:
        groups.setdefault((row.method, row.parameter, row.fraction_bits), []).append(row)
    return {key: sorted(some, key=lambda row: row.step) for key, some in groups.items()}


def _dress(ax: Any) -> None:
    ax.grid(color="0.92")
    ax.set_axisbelow(True)


def plot_sparse_descent(rows: Sequence[Any], fraction_bits: int) -> Figure:
    """Draw the loss and the weights of every descent against the step: two panels each, a method after the other.

    Parameters
    ----------
    rows : sequence of intnet.studies.sparse_linear.LinearRow
    fraction_bits : int
        Those with so many are drawn.
    """
    runs = {key[:2]: some for key, some in _runs(rows).items() if key[2] == fraction_bits}
    if not runs:
        raise InputError(f"there is no row of {fraction_bits} fraction bits to draw")
    runs = dict(sorted(runs.items(), key=lambda one: (_METHODS.index(one[0][0]), one[0][1])))
    columns = min(4, max(1, len(runs)))
    blocks = -(-max(1, len(runs)) // columns)
    figure = Figure(figsize=(1.0 + 3.1 * columns, 0.7 + 4.1 * blocks), layout="constrained")
    axes = figure.subplots(2 * blocks, columns, squeeze=False, sharex=True)
    least = min((row.loss for some in runs.values() for row in some if row.loss > 0), default=1.0)
    floor = 10.0 ** np.floor(np.log10(least))
    for number, ((method, parameter), some) in enumerate(runs.items()):
        top, bottom = (axes[2 * (number // columns) + half, number % columns] for half in (0, 1))
        steps = [row.step for row in some]
        top.semilogy(steps, [max(row.loss, floor) for row in some], color="black")
        top.set_title(_WORDS[method].format(parameter), fontsize=10)
        top.set_ylim(max(floor, min(row.loss for row in some)) / 3, 200)
        values = np.array([row.weights for row in some])
        for j in range(values.shape[1]):
            bottom.plot(steps, values[:, j], color=f"C{j}", label=f"$w_{j}$")
        bottom.set_ylim(-3.3, 2.2)
        for ax, name in ((top, "loss"), (bottom, "weights")):
            _dress(ax)
            if number % columns == 0:
                ax.set_ylabel(name)
        bottom.tick_params(labelbottom=True)
        bottom.set_xlabel("step")
    for ax in axes.flat:
        if not ax.lines:
            ax.remove()
    handles, labels = axes[1, 0].get_legend_handles_labels()
    title = f"three equations, five weights, {fraction_bits} fraction bits"
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, title=title)
    return figure


def plot_sparse_bits(rows: Sequence[Any]) -> Figure:
    """Draw the loss against the step, a panel a method, a color a parameter, a line style a number of fraction bits."""
    runs = _runs(rows)
    methods = [name for name in _METHODS if any(key[0] == name for key in runs)]
    widths = sorted({key[2] for key in runs}, reverse=True)
    styles = dict(zip(widths, ("-", "--", "-.", ":", (0, (1, 3)), (0, (5, 1, 1, 1))), strict=False))
    figure = Figure(figsize=(1.2 + 3.3 * len(methods), 4.4), layout="constrained")
    axes = figure.subplots(1, len(methods), squeeze=False, sharey=True)[0]
    for ax, method in zip(axes, methods, strict=True):
        parameters = sorted({key[1] for key in runs if key[0] == method})
        for (name, parameter, bits), some in runs.items():
            if name == method:
                label = _WORDS[method].format(parameter) if bits == widths[0] else None
                losses = [row.loss if row.loss > 0 else np.nan for row in some]
                style = styles.get(bits, "-")
                ax.semilogy(
                    [row.step for row in some], losses, color=f"C{parameters.index(parameter)}", linestyle=style,
                    linewidth=1.2, label=label,
                )  # fmt: skip
        ax.set(xlabel="step", title=_TITLES[method])
        ax.legend(fontsize=8, loc="upper right", frameon=False)
        _dress(ax)
    axes[0].set_ylabel("loss")
    axes[0].set_ylim(top=1e8)  # room for the legends
    lines = [axes[0].plot([], [], color="0.3", linestyle=styles.get(bits, "-"))[0] for bits in widths]
    figure.legend(lines, [f"{bits} fraction bits" for bits in widths], loc="outside upper center", ncols=6, frameon=False)
    return figure


def plot_pruning(rows: Sequence[Any], *, title: str = "") -> Figure:
    """Draw test accuracy against what is pruned without fine-tuning, and against the epoch with it.

    Parameters
    ----------
    rows : sequence of intnet.studies.pruning.Row
    title : str, optional
    """
    if not rows:
        raise InputError("there is no row to draw; run the study first")
    dense = [row.test_accuracy for row in rows if row.method == "dense"]
    tuned = list(dict.fromkeys(row.method for row in rows if row.epoch))
    untuned = list(dict.fromkeys(row.method for row in rows if not row.epoch and row.method != "dense"))
    figure = Figure(figsize=(10.4 if tuned else 5.8, 4.4), layout="constrained")
    axes = figure.subplots(1, 2 if tuned else 1, squeeze=False, sharey=True)[0]
    names = [*dict.fromkeys((*untuned, *tuned))]
    words = {"one-shot": "by layers", "one-shot-global": "one threshold"}
    for method in untuned:
        some = sorted((row.percentile, row.test_accuracy) for row in rows if row.method == method and not row.epoch)
        points = [(0.0, dense[0]), *some] if dense else some
        axes[0].plot(*zip(*points, strict=True), "o-", color=f"C{names.index(method)}", label=words.get(method, method))
    axes[0].set(xlabel="pruned, percent of the weights", ylabel="test accuracy", title="not fine-tuned")
    for method in tuned:
        some = sorted((row.epoch, row.test_accuracy) for row in rows if row.method == method and row.epoch)
        axes[1].plot(*zip(*some, strict=True), "o-", markersize=4, color=f"C{names.index(method)}", label=method)
    if tuned:
        most = max(row.percentile for row in rows if row.epoch)
        axes[1].set(xlabel="epoch of fine-tuning", title=f"fine-tuned, to {most:g} % pruned")
        axes[1].xaxis.get_major_locator().set_params(integer=True)
    for ax in axes:
        if dense:
            ax.axhline(dense[0], color="0.4", linestyle="--", linewidth=1, label="dense")
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.legend(frameon=False)
        _dress(ax)
    figure.suptitle(title, fontsize=11)
    return figure


def plot_sparsity(rows: Sequence[Any], *, title: str = "") -> Figure:
    """Draw the share of zeros of every layer, a marker a method.

    Parameters
    ----------
    rows : sequence of intnet.studies.pruning.LayerRow
    title : str, optional
    """
    layers = list(dict.fromkeys(row.layer for row in rows if row.layer != "total"))
    if not layers:
        raise InputError("there is no row to draw; run the study first")
    methods = list(dict.fromkeys(row.method for row in rows))
    figure = Figure(figsize=(max(6.0, 1.8 + 0.46 * len(layers)), 4.8), layout="constrained")
    ax = figure.subplots()
    for edge in np.arange(len(layers) - 1) + 0.5:
        ax.axvline(edge, color="0.9", linewidth=0.8)
    for number, method in enumerate(methods):
        values = {row.layer: row.sparsity for row in rows if row.method == method}
        at = [k for k, layer in enumerate(layers) if layer in values]
        beside = 0.17 * (number - (len(methods) - 1) / 2)
        points = [k + beside for k in at], [values[layers[k]] for k in at]
        ax.plot(*points, "osD^v"[number % 5], markersize=5, color=f"C{number}", label=method)
    ax.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=8)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set(ylabel="zeros", xlim=(-0.6, len(layers) - 0.4), ylim=(0, 1.02), title=title)
    ax.legend(frameon=False, loc="lower center", ncols=2)
    ax.grid(axis="y", color="0.92")
    ax.set_axisbelow(True)
    return figure


def plot_quantization(rows: Sequence[Any], *, title: str = "") -> Figure:
    """Draw test accuracy against the bits of the weights: as they come, and after fine-tuning, its last epoch.

    Parameters
    ----------
    rows : sequence of intnet.studies.quantization.Row
    title : str, optional
    """
    if not rows:
        raise InputError("there is no row to draw; run the study first")
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    ax = figure.subplots()
    schemes = list(dict.fromkeys(row.scheme for row in rows if row.scheme != "none"))
    bits = sorted({row.bits for row in rows if row.scheme != "none"})
    for number, scheme in enumerate(schemes):
        some = [row for row in rows if row.scheme == scheme]
        untuned = sorted((row.bits, row.test_accuracy) for row in some if not row.finetuned)
        ax.plot(*zip(*untuned, strict=True), "o--", color=f"C{number}", label=f"{scheme}, as they come")
        last = {
            row.bits: (row.finetuned, row.test_accuracy) for row in sorted(some, key=lambda row: row.finetuned) if row.finetuned
        }
        if last:
            epochs = sorted({epoch for epoch, _ in last.values()})
            values = [(few, last[few][1]) for few in sorted(last)]
            label = f"{scheme}, fine-tuned {'/'.join(map(str, epochs))} epoch{'s' * (epochs != [1])}"
            ax.plot(*zip(*values, strict=True), "s-", color=f"C{number}", label=label)
    for row in rows:
        if row.scheme == "none":
            ax.axhline(row.test_accuracy, color="0.4", linestyle=":", label=f"as stored, {row.bits} bits")
    ax.xaxis.set_major_locator(FixedLocator(bits))
    ax.xaxis.set_major_formatter(FixedFormatter([str(few) for few in bits]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set(xlabel="bits of a weight", ylabel="test accuracy", title=title)
    ax.legend(frameon=False)
    _dress(ax)
    return figure
