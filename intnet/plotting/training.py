"""Pictures of one training: how it learned, and what became of its numbers.

Notation:  f  fraction bits of a word, so that its lowest bit weighs 2**-f
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from intnet.errors import InputError

_ROLES = ("weight", "master", "momentum", "gradient", "activation", "error", "accumulator")
_MOST_ROWS = 140  # in one picture; more are merged
_NARROWEST = 0.115  # inches a row, with letters of 6 points
_WIDEST = 0.19

_WORD, _EVER, _LAST = "0.93", "#9ecae1", "#2171b5"


# 1. How it learned


def plot_training(history: Sequence[Any], *, title: str = "", unit: str = "", died: str | None = None) -> Figure:
    """Draw the loss and the accuracies against the epoch.

    Parameters
    ----------
    history : sequence of intnet.training.Epoch
    title : str
    unit : str
        Of the loss.
    died : str, optional
        Why the training ended early.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no epoch.
    """
    if not history:
        raise InputError("there is no epoch to draw; train one first")
    epochs = [row.epoch for row in history]
    marker = "o" if len(epochs) <= 40 else None
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    losses = np.array([row.train_loss for row in history])
    left.plot(epochs, losses, marker=marker, markersize=4, color="C0")
    if (losses > 0).all() and losses.max() > 10 * losses.min():
        left.set_yscale("log")
    left.set(xlabel="epoch", ylabel=f"training loss ({unit})" if unit else "training loss", title="Loss")
    series = [("training, as they came", "C0", [row.train_accuracy for row in history])]
    if any(row.test_accuracy is not None for row in history):
        tested = [math.nan if row.test_accuracy is None else row.test_accuracy for row in history]
        series.append(("test", "C1", tested))
    for name, color, values in series:
        right.plot(epochs, values, marker=marker, markersize=4, color=color, label=f"{name}: {values[-1]:.2%}")
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    right.set(xlabel="epoch", title="Accuracy")
    right.legend(title="last epoch", loc="best")
    for ax in (left, right):
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(epochs) == 1:
            ax.set_xlim(0, 2)
    if died:
        figure.supxlabel(textwrap.fill(f"Training ended early: {died}", 130), color="#a50f15", fontsize=9)
    return figure


# 2. What became of its numbers


@dataclass
class _Row:
    """A tensor in a role: the bits it used, and its shares an epoch; NaN where it was not written."""

    tensor: str
    role: str
    word_bits: int
    low: int | None  # weight of the word's lowest bit in the last epoch, as a power of two
    ever: int | None  # bits used, at most
    last: int | None
    left: NDArray[np.float64]
    lost: NDArray[np.float64]


def _rows(readings: Sequence[Any]) -> list[_Row]:
    """Gather the readings tensor by tensor, in the order of roles, and within one as they come."""
    epochs = sorted({one.epoch for one in readings})
    column = {epoch: i for i, epoch in enumerate(epochs)}
    rows: dict[tuple[str, str], _Row] = {}
    for one in readings:
        row = rows.get((one.tensor, one.role))
        if row is None:
            blank = np.full(len(epochs), np.nan)
            row = rows[one.tensor, one.role] = _Row(
                one.tensor, one.role, one.word_bits, None, None, None, blank.copy(), blank.copy()
            )
        if not one.count:
            continue
        row.left[column[one.epoch]] = (one.saturated + one.wrapped) / one.count
        row.lost[column[one.epoch]] = one.lost / one.count
        if one.fraction_bits is not None:
            row.low = -one.fraction_bits
        if one.bits_used is not None:
            row.ever = max(row.ever or 0, one.bits_used)
            row.last = one.bits_used
    order = {role: i for i, role in enumerate(_ROLES)}
    found = sorted(rows.values(), key=lambda row: order.get(row.role, len(order)))
    # what only sums up is wide, and of accumulators no range is known: drawn only if something left it
    return [row for row in found if row.role in _ROLES[:-1] or np.nansum(row.left) > 0] or found


def _merged(rows: list[_Row]) -> tuple[list[_Row], bool]:
    """Merge rows until they fit into a picture: first a layer's tensors, then the layers of a block, each the worst of them."""
    by_name = (
        lambda row: row.tensor.partition(".")[0],
        lambda row: "/".join(row.tensor.partition(".")[0].split("/")[:2]),
        lambda row: row.tensor.partition(".")[0].partition("/")[0],
        lambda row: row.tensor.partition(".")[0].partition("/")[0].rstrip("0123456789"),
    )
    found, merged = rows, False
    for name in by_name:
        if len(found) <= _MOST_ROWS:
            break
        groups: dict[tuple[str, str], list[_Row]] = {}
        for row in rows:
            groups.setdefault((name(row), row.role), []).append(row)
        found, merged = [_worst(key[0], group) for key, group in groups.items()], True
    return found, merged


def _worst(name: str, group: list[_Row]) -> _Row:
    if len(group) == 1:
        one = group[0]
        return _Row(name, one.role, one.word_bits, one.low, one.ever, one.last, one.left, one.lost)
    fullest = max(group, key=lambda row: (row.ever or 0) - row.word_bits)
    left, lost = (np.stack([getattr(row, share) for row in group]) for share in ("left", "lost"))
    return _Row(
        f"{name} ({len(group)})", fullest.role, fullest.word_bits, fullest.low, fullest.ever, fullest.last,
        np.fmax.reduce(left), np.fmax.reduce(lost),
    )  # fmt: skip


def plot_telemetry(readings: Sequence[Any], *, title: str = "") -> Figure:
    """Draw what became of every tensor: the bits of its word that it used, what did not fit, and what was lost to rounding.

    On the left a word is a bar from its lowest bit to its sign, at the places its bits have; what is grey at its right end was
    never needed. The maps go on in the same rows, with an epoch a column and the last epoch's share as a number beside it.

    Parameters
    ----------
    readings : sequence of intnet.telemetry.Reading
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no reading.

    Notes
    -----
    Of weights (of master copies, where there are), lost are updates that were not zero and changed nothing; of other roles,
    numbers that were not zero and became zero. A block format's word is drawn where its largest exponent puts it. Deep networks
    have their rows merged, layer by layer or block by block, and each shows the worst.
    """
    if not readings:
        raise InputError("there is no telemetry to draw; train an epoch first")
    rows, merged = _merged(_rows(readings))
    epochs = sorted({one.epoch for one in readings})
    each = min(_WIDEST, max(_NARROWEST, 7.5 / len(rows)))
    size = 6 if each < 0.14 else 7
    figure = Figure(figsize=(13.0, each * len(rows) + 2.2), layout="constrained")
    note = "; layers merged, each row shows the worst of its (n) tensors" if merged else ""
    figure.suptitle(f"{title}{note}", fontsize=11)
    words, left, lost = figure.subplots(1, 3, sharey=True, width_ratios=(1.25, 1, 1))

    _draw_words(words, rows, size)
    shares = np.stack([row.left for row in rows])
    top = np.nanmax(np.append(shares, 0.0))
    norm: Normalize = LogNorm(1e-6, 1) if top else Normalize(0, 1)
    _draw_shares(figure, left, shares, epochs, norm, colormaps["Reds"], size)
    left.set_title("Did not fit: saturated or wrapped", fontsize=9)
    shares = np.stack([row.lost for row in rows])
    _draw_shares(figure, lost, shares, epochs, Normalize(0, 1), colormaps["Blues"], size)
    lost.set_title("Lost to rounding (of weights: updates lost)", fontsize=9)

    starts = [i for i, row in enumerate(rows) if not i or row.role != rows[i - 1].role]
    for ax in (words, left, lost):
        for start in starts[1:]:
            ax.axhline(start - 0.5, color="0.35", linewidth=0.8)
        ax.tick_params(labelsize=size)
    words.set_yticks(range(len(rows)), [f"{row.tensor}  {row.role}" for row in rows], fontsize=size)
    words.set_ylim(len(rows) - 0.5, -0.5)
    words.tick_params(axis="y", length=0)
    return figure


def _draw_words(ax: Axes, rows: list[_Row], size: int) -> None:
    """Draw every word as a bar over the powers of two, with the bits that were used filled."""
    low = np.array([0 if row.low is None else row.low for row in rows])
    bits = np.array([row.word_bits for row in rows])
    known = np.array([row.low is not None and row.ever is not None for row in rows])
    place = np.arange(len(rows))
    style: dict[str, Any] = {"height": 0.78, "align": "center"}
    ax.barh(place[known], bits[known], left=low[known], color=_WORD, edgecolor="0.55", linewidth=0.5, **style)
    for color, name in ((_EVER, "ever"), (_LAST, "last")):
        used = np.array([getattr(row, name) or 0 for row in rows])
        ax.barh(place[known], used[known], left=low[known], color=color, **style)
    high = int((low + bits)[known].max(initial=1))
    for i, row in enumerate(rows):
        if known[i]:
            ax.text(high + 0.4, i, f"{row.last}/{row.word_bits}", fontsize=size, va="center", ha="left", clip_on=False)
    if known.any():
        ax.set_xlim(int(low[known].min()) - 0.5, high + 0.3)
    ax.axvline(0, color="black", linewidth=0.7, linestyle=":")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$2^{{{value:.0f}}}$"))
    ax.set_xlabel("place of a bit; dotted: the binary point", fontsize=8)
    marks = (
        Patch(color=_LAST, label="last epoch"), Patch(color=_EVER, label="any epoch"),
        Patch(facecolor=_WORD, edgecolor="0.55", label="never used"),
    )  # fmt: skip
    ax.legend(handles=marks, fontsize=size, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    ax.set_title("Bits used of the word, sign included", fontsize=9, pad=18)


def _draw_shares(
    figure: Figure, ax: Axes, shares: NDArray[np.float64], epochs: list[int], norm: Normalize, colors: Colormap, size: int
) -> None:  # fmt: skip
    """Draw shares, (rows, epochs), as a map; exact zeros stay white."""
    shown = np.ma.masked_where(~(shares > 0), shares)
    edges = np.append(np.array(epochs) - 0.5, epochs[-1] + 0.5)
    mesh = ax.pcolormesh(edges, np.arange(len(shares) + 1) - 0.5, shown, cmap=colors, norm=norm)
    ax.set_xlabel("epoch", fontsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(axis="y", length=0)
    for i, share in enumerate(shares[:, -1]):
        if share > 0:
            ax.text(epochs[-1] + 0.5, i, f" {_percent(share)}", fontsize=size, va="center", ha="left", clip_on=False)
    bar = figure.colorbar(mesh, ax=ax, location="bottom", shrink=0.8, aspect=40, pad=0.01)
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    bar.set_label("share of the numbers written; white: none at all", fontsize=8)
    if not shown.count():
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", va="center", color="0.4")
    bar.ax.tick_params(labelsize=size, which="both")
    if isinstance(norm, LogNorm):
        bar.set_ticks([1e-6, 1e-4, 1e-2, 1])
        bar.ax.minorticks_off()


def _percent(share: float) -> str:
    if share >= 0.0995:
        return f"{share:.0%}"
    return f"{share:.1%}" if share >= 0.00095 else f"{share:.0e}".replace("e-0", "e-")
