"""Learning curves of networks and of the averages of their weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from intnet.errors import InputError

_STYLES = {"sgd_lp": ("as it trains", 0.55, "--"), "swalp": ("average", 1.0, "-")}


def plot_averages(rows: Sequence[Any], *, start: int | None = None, title: str = "") -> Figure:
    """Draw test error and training loss against the epoch, of each recipe as it trains and of its average.

    Parameters
    ----------
    rows : sequence of intnet.studies.swalp.Row
    start : int, optional
        The epoch at whose end averaging begins.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Lines are means over seeds, bands reach from the least to the greatest.

    Raises
    ------
    InputError
        If there is no row.
    """
    if not rows:
        raise InputError("there is no epoch to draw; train one first")
    figure = Figure(figsize=(10.0, 4.4), layout="constrained")
    figure.suptitle(title)
    recipes = list(dict.fromkeys(row.recipe for row in rows))
    panels = (("test_error", "test error"), ("train_loss", "training loss (nats a sample)"))
    for ax, (name, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for number, recipe in enumerate(recipes):
            for method, (kind, alpha, line) in _STYLES.items():
                epochs, values = _by_epoch([row for row in rows if (row.recipe, row.method) == (recipe, method)], name)
                if not epochs.size:
                    continue
                look: dict[str, Any] = {"color": f"C{number}", "alpha": alpha}
                means = [one.mean() for one in values]
                marker = "o" if len(epochs) <= 40 else None
                ax.plot(epochs, means, line, marker=marker, markersize=3.5, label=f"{recipe}, {kind}", **look)
                if max(len(one) for one in values) > 1:
                    low, high = [one.min() for one in values], [one.max() for one in values]
                    ax.fill_between(epochs, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
        if start is not None:
            ax.axvline(start, color="0.6", linewidth=1, zorder=0)
            ax.annotate(
                "averaging begins ",
                (start, 1),
                xycoords=("data", "axes fraction"),
                ha="right",
                va="top",
                fontsize=8,
                color="0.4",
            )
        ax.set(xlabel="epoch", ylabel=label)
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "test_error":
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
            ax.legend(fontsize=8)
    return figure


def _by_epoch(rows: Sequence[Any], name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the epochs, and for each the values of all seeds."""
    epochs = sorted({row.epoch for row in rows})
    return np.array(epochs), [np.array([getattr(row, name) for row in rows if row.epoch == epoch]) for epoch in epochs]
