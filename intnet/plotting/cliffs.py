"""Pictures of a grid of training runs: the published surface, and heat maps with the two cliffs.

Notation:  lr  learning-rate shift, the rate is 2**-lr  |  f  fraction bits
           U   weight update before the rate, raw integers with f fraction bits  |  S  U >> lr, the update applied
Array shapes are (rates, bits), one row a rate and one column a bitwidth, unless said otherwise.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection, QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, MultipleLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray

from intnet.errors import InputError

__all__ = ["plot_cliffs", "plot_surface"]

_MAX_TICKS = 10  # an axis; more labels than this touch each other
_ACCURACY_STEP = 0.1  # ticks of an accuracy, whose limits are whole tenths
_DIMS = ("seed", "lr_shift", "fraction_bits")

# Marks over whole cells: the same properties draw the cells and their legend entry.
_ZERO: dict[str, Any] = {"facecolor": "0.7", "edgecolor": "none"}
_MISSING: dict[str, Any] = {"facecolor": "white", "edgecolor": "0.85", "hatch": "xx", "linewidth": 0.5}
_WRAPPED: dict[str, Any] = {"facecolor": "none", "edgecolor": "#ff6f61", "hatch": "////", "linewidth": 0.0}


def _line(color: str, width: float) -> dict[str, Any]:
    """Outline a line in black: it then shows on both ends of viridis and on the white of the legend."""
    outline = patheffects.withStroke(linewidth=width + 1.6, foreground="black")
    return {"color": color, "linewidth": width, "solid_capstyle": "butt", "path_effects": [outline]}


def _marker(shape: str, color: str, size: float) -> dict[str, Any]:
    """Outline markers in black, for the same reason, and do not join them."""
    style = {"linestyle": "none", "marker": shape, "markersize": size, "color": color, "markeredgecolor": "black"}
    return style | {"clip_on": False}  # a cell at the edge can be smaller than its marker


# 1. The numbers of a picture


def _mean_over_seeds(grid: xr.Dataset, name: str) -> NDArray[np.float64]:
    """Mean of one variable over the seeds that are stored; NaN where none is."""
    values = grid[name].transpose(*_DIMS).astype(np.float64)
    return np.asarray(values.mean("seed", skipna=True).values, dtype=np.float64)


def _log2_or_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """log2, and NaN where a value is zero or NaN (any shape)."""
    return np.log2(values, out=np.full_like(values, np.nan), where=values > 0)


def _edges(centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cell edges around ascending centers, shape (n,) to (n + 1,): half way between neighbours, 1/2 beside a lone one.

    Where shifts or bitwidths were left out, the cells grow into the gap and the axes stay linear, so a straight
    cliff is drawn straight.
    """
    if centers.size == 1:
        return centers[0] + np.array([-0.5, 0.5])
    middles = (centers[:-1] + centers[1:]) / 2
    return np.concatenate(([2 * centers[0] - middles[0]], middles, [2 * centers[-1] - middles[-1]]))


def _whole_limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Whole numbers that enclose the finite values (any shape), never equal; (0, 1) if nothing is finite."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low = float(np.floor(finite.min()))
    return low, max(float(np.ceil(finite.max())), low + 1)


def _accuracy_limits(accuracy: NDArray[np.float64], chance: float) -> tuple[float, float]:
    """From 0 to the tenth above every accuracy and above twice chance, so that chance is never at an end of the bar.

    Below 0 only where the smoothing of the hits undershot.
    """
    values = np.append(accuracy[np.isfinite(accuracy)], 2 * chance)
    return min(0.0, float(values.min())), float(np.ceil(values.max() * 10) / 10)


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `_MAX_TICKS` of the values of a 1-D array, evenly picked."""
    return values[:: -(-values.size // _MAX_TICKS)]


def _rate(lr_shift: float) -> str:
    """Learning rate 2**-lr_shift as mathtext."""
    return f"$2^{{{0 - lr_shift:g}}}$"  # not -lr_shift, which writes 2^-0


def _title(grid: xr.Dataset) -> str:
    """Name the data set, the iterations and, where there are several, the seeds."""
    title = f"{grid.attrs['dataset'].upper()}, {grid.attrs['iterations']:,} iterations a cell"
    seeds = grid.sizes["seed"]
    if seeds > 1:
        stored = grid["accuracy"].notnull().sum("seed")
        partly = bool(((stored > 0) & (stored < seeds)).any())
        title += f", mean over {seeds} seeds" + (" (fewer in some cells)" if partly else "")
    return title


def _check(grid: xr.Dataset) -> None:
    """Refuse what has no cell to draw."""
    sizes = {name: grid.sizes.get(name, 0) for name in _DIMS}
    if not all(sizes.values()):
        raise InputError(f"need a grid with at least one cell along {', '.join(_DIMS)}, got sizes {sizes}")


# 2. The surface


def _facets(height: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which facets, shape (rates - 1, bits - 1), have their four corners computed."""
    known = np.isfinite(height)
    return known[:-1, :-1] & known[1:, :-1] & known[:-1, 1:] & known[1:, 1:]


def _without_facet(height: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Cells that are computed but lie on no facet, as in a grid of one row."""
    facets = np.pad(_facets(height), 1)
    return np.isfinite(height) & ~(facets[:-1, :-1] | facets[1:, :-1] | facets[:-1, 1:] | facets[1:, 1:])


def _draw_facets(
    ax: Any,
    lr: NDArray[np.float64],
    bits: NDArray[np.float64],
    height: NDArray[np.float64],
    limits: tuple[float, float],
) -> Poly3DCollection:
    """Draw the facets and the lone cells on 3-D axes, coloured by their height.

    `Axes3D.plot_surface` would draw the same facets, but it warns of every NaN and shows nothing of a single row.
    """
    points = np.stack(np.broadcast_arrays(lr[:, None], bits[None, :], height), axis=-1)  # (rates, bits, 3)
    corners = np.stack((points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]), axis=2)
    facets = corners[_facets(height)]  # (facets, 4, 3)
    surface = Poly3DCollection(facets, cmap="coolwarm", edgecolor="0.25", linewidth=0.3)
    surface.set_array(facets[:, :, 2].mean(axis=1))
    surface.set_clim(*limits)
    ax.add_collection3d(surface, autolim=False)
    dots = points[_without_facet(height)]
    low, high = limits
    ax.scatter(*dots.T, c=dots[:, 2], cmap="coolwarm", vmin=low, vmax=high, edgecolor="0.25", depthshade=False)
    return surface


def plot_surface(grid: xr.Dataset, *, elevation: float = 28.0, azimuth: float = -112.0) -> Figure:
    """Draw the published surface: accuracy over learning rate and fraction bits.

    Parameters
    ----------
    grid : xarray.Dataset, dimensions (seed, lr_shift, fraction_bits)
        With `accuracy` (fraction of 1, NaN where not computed) and the attributes `dataset`, `iterations` and
        `chance_accuracy`. Several seeds are averaged.
    elevation, azimuth : float, degrees
        Point of view. The default looks from few bits towards many, so that both cliffs face the reader.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; the caller saves or shows it.

    Raises
    ------
    InputError
        If the grid has no cell.

    Notes
    -----
    A facet joins four neighbouring cells and has the colour of their mean. A computed cell that no facet touches
    (a grid of one row, or the neighbours are missing) is a dot.
    """
    _check(grid)
    lr = grid["lr_shift"].values.astype(np.float64)
    bits = grid["fraction_bits"].values.astype(np.float64)
    accuracy = _mean_over_seeds(grid, "accuracy")
    limits = _accuracy_limits(accuracy, grid.attrs["chance_accuracy"])

    figure = Figure(figsize=(8.0, 6.0))
    figure.suptitle(_title(grid))
    # Placed by hand: the automatic layouts do not see the labels of 3-D axes, and cut them off.
    ax: Any = figure.add_axes((0.02, 0.0, 0.84, 1.0), projection="3d")
    surface = _draw_facets(ax, lr, bits, accuracy, limits)
    cax = figure.add_axes((0.88, 0.24, 0.025, 0.5))
    figure.colorbar(surface, cax=cax, ticks=MultipleLocator(_ACCURACY_STEP), label="Accuracy (fraction of 1)")
    ax.set(xlim=_edges(lr)[[0, -1]], ylim=_edges(bits)[[0, -1]], zlim=limits)
    ax.set(xticks=_thinned(lr), yticks=_thinned(bits))
    ax.zaxis.set_major_locator(MultipleLocator(_ACCURACY_STEP))
    ax.set_xlabel("Learning rate (1/2^value)", labelpad=8)
    ax.set_ylabel("Fraction bitwidth", labelpad=8)
    ax.set_zlabel("Accuracy", labelpad=6)
    ax.view_init(elev=elevation, azim=azimuth)
    return figure


# 3. The heat maps


class _Map(NamedTuple):
    """One heat map: title, values and colour limits, cells where the quantity is zero, label of the colour bar."""

    title: str
    values: NDArray[np.float64]
    limits: tuple[float, float]
    zero: NDArray[np.bool_]
    label: str


class _Cells:
    """Where the cells lie: x is the fraction bits, y the log2 of the learning rate."""

    def __init__(self, grid: xr.Dataset) -> None:
        self.lr = grid["lr_shift"].values.astype(np.float64)
        self.bits = grid["fraction_bits"].values.astype(np.float64)
        self.x_edges = _edges(self.bits)
        self.y_edges = -_edges(self.lr)  # descending: the first row, the highest rate, is on top

    def color(self, ax: Axes, values: NDArray[np.float64], limits: tuple[float, float]) -> QuadMesh:
        """Colour the finite cells, leave the others blank, and set the axes."""
        low, high = limits
        shown = np.ma.masked_invalid(values)
        mesh = ax.pcolormesh(self.x_edges, self.y_edges, shown, cmap="viridis", vmin=low, vmax=high)
        ax.set_xlim(self.x_edges[0], self.x_edges[-1])
        ax.set_ylim(self.y_edges[-1], self.y_edges[0])
        ax.set_xticks(_thinned(self.bits))
        ax.set_yticks(-_thinned(self.lr), [_rate(lr) for lr in _thinned(self.lr)])
        return mesh

    def mark(self, ax: Axes, where: NDArray[np.bool_], style: Mapping[str, Any]) -> None:
        """Lay a rectangle over every cell that is True."""
        x, y = self.x_edges, self.y_edges
        boxes = [Rectangle((x[j], y[i]), x[j + 1] - x[j], y[i + 1] - y[i]) for i, j in np.argwhere(where)]
        if boxes:
            ax.add_collection(PatchCollection(boxes, **style), autolim=False)

    def above(self, lr_shift: float) -> float:
        """Upper edge of a rate's row, as y."""
        return float(self.y_edges[np.searchsorted(self.lr, lr_shift)])


def _spread(low: str, high: str) -> str:
    """Write the interval of a measurement in brackets; nothing where it is a single value."""
    return f" ({low} to {high})" if low != high else ""


def _draw_left_cliff(ax: Axes, cells: _Cells, cliff: Mapping[str, Any] | None, scale: float) -> None:
    """Line between the rates that work and those that do not."""
    if cliff is None:
        return
    rate, interval = _rate(cliff["lr_shift"]), cliff["interval"]
    spread = "" if interval is None else _spread(_rate(round(interval[1], 1)), _rate(round(interval[0], 1)))
    label = f"left cliff: rates above {rate}{spread} learn less at any bitwidth"
    if cliff["lr_shift"] == cells.lr[0]:
        label = f"left cliff: outside the grid, its highest rate {rate} still works"
    ax.axhline(cells.above(cliff["lr_shift"]), label=label, clip_on=False, **_line("white", 1.8 * scale))


def _draw_diagonal_cliff(ax: Axes, cliff: Mapping[str, Any] | None, scale: float) -> None:
    """Measured points, and the line fitted through them from the highest of their rates to the lowest."""
    if cliff is None or not cliff["points"]:
        return
    lr = np.array([point["lr_shift"] for point in cliff["points"]], dtype=np.float64)
    bits = [point["fraction_bits"] for point in cliff["points"]]
    slope, interval = cliff["bits_per_halving"], cliff["interval"]
    if slope is not None and cliff.get("at_fewest_tried", 0) < len(bits):
        spread = "" if interval is None else _spread(f"{interval[0]:.2f}", f"{interval[1]:.2f}")
        label = f"fitted line: {slope:.2f}{spread} bits for each halving of the rate"
        ends = np.array([lr.min(), lr.max()])
        ax.plot(cliff["intercept"] + slope * ends, -ends, label=label, **_line("#ff6f61", 1.8 * scale))
    ax.plot(bits, -lr, label="diagonal cliff: fewest bits that still learn well", **_marker("o", "white", 5 * scale))


def _draw_best(ax: Axes, best: Mapping[str, Any] | None) -> None:
    """Star on the best cell."""
    if best is None:
        return
    bits, rate = best["fraction_bits"], _rate(best["lr_shift"])
    label = f"best cell: accuracy {best['accuracy']:.3f} at rate {rate}, {bits} bits"
    ax.plot(bits, -best["lr_shift"], label=label, **_marker("*", "#ff6f61", 13))


def _mark_chance(bar: Colorbar, chance: float) -> None:
    """Line and word on the accuracy colour bar; the word stands clear of the tick labels."""
    bar.ax.axhline(chance, **_line("white", 1.5))
    bar.ax.annotate("chance", (1.0, chance), (32, 0), bar.ax.get_yaxis_transform(), "offset points", va="center")


def _maps(grid: xr.Dataset, cells: _Cells) -> list[_Map]:
    """Compute the four maps; NaN is a cell without colour."""
    lr, bits = cells.lr[:, None], cells.bits[None, :]
    accuracy = _mean_over_seeds(grid, "accuracy")
    update = _mean_over_seeds(grid, "mean_abs_update") / 2.0**bits
    error = _mean_over_seeds(grid, "mean_abs_error_scaled") * 2.0 ** (lr - bits)
    log2_update, log2_error = _log2_or_nan(update), _log2_or_nan(error)
    shown_bits = np.where(np.isnan(accuracy), np.nan, bits)

    accuracy_limits = _accuracy_limits(accuracy, grid.attrs["chance_accuracy"])
    never = np.zeros(accuracy.shape, dtype=np.bool_)
    update_label = r"$\log_2(\mathrm{mean}\,|U|\,/\,2^f)$"
    error_label = r"$\log_2(\mathrm{mean}\,|U - 2^{lr} S| \cdot 2^{lr})$"
    return [
        _Map("Accuracy (fraction of 1)", accuracy, accuracy_limits, never, ""),
        _Map("Update abs. magnitude", log2_update, _whole_limits(log2_update), update == 0, update_label),
        _Map("Quantization error", log2_error, _whole_limits(log2_error), error == 0, error_label),
        _Map("Fraction bits", shown_bits, _whole_limits(shown_bits), never, "bits"),
    ]


def _add_legend(figure: Figure, lines: list[Any], marks: list[tuple[bool, dict[str, Any], str]]) -> None:
    """Legend below the maps: what was drawn, those marks that occur, and the symbols of the colour bars."""
    patches = [Patch(label=label, **style) for occurs, style, label in marks if occurs]
    symbols = "U: update before the rate.  S = U >> lr: update applied.  f: fraction bits.  Learning rate: $2^{-lr}$."
    figure.legend(handles=lines + patches, loc="outside lower center", ncols=2, fontsize=9, title=symbols)


def plot_cliffs(grid: xr.Dataset, cliffs: Mapping[str, Any]) -> Figure:
    """Draw four heat maps over fraction bits and learning rate, with the left and the diagonal cliff.

    The maps are the accuracy; the size of an update, log2(mean abs(U) / 2**f); the quantization error of the rate's
    shift, log2(mean abs(U - S * 2**lr) * 2**lr); and the fraction bits themselves.

    Parameters
    ----------
    grid : xarray.Dataset, dimensions (seed, lr_shift, fraction_bits), ascending coordinates
        With `accuracy` (fraction of 1), `mean_abs_update` (raw integers), `mean_abs_error_scaled` (raw integers times
        2**f) and `wraps` (count), NaN where not computed, and the attributes `dataset`, `iterations` and
        `chance_accuracy`. Several seeds are averaged, before the log2.
    cliffs : mapping with keys "best", "left_cliff", "diagonal_cliff"
        What was measured on the grid; what is None or missing is not drawn. ``best``: `lr_shift`, `fraction_bits`,
        `accuracy`. ``left_cliff``: `lr_shift`, the highest rate that works, and `interval` (two shifts) or None.
        ``diagonal_cliff``: `points`, each with `lr_shift` and `fraction_bits`; `bits_per_halving` and `intercept`
        (bits) or None; `interval` (two values of bits per halving) or None.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; the caller saves or shows it.

    Raises
    ------
    InputError
        If the grid has no cell.
    """
    _check(grid)
    cells = _Cells(grid)
    maps = _maps(grid, cells)
    missing = np.isnan(maps[0].values)
    wrapped = (grid["wraps"].transpose(*_DIMS) > 0).any("seed").values

    figure = Figure(figsize=(10.0, 9.0), layout="constrained")
    figure.suptitle(_title(grid))
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for ax, one in zip(axes.flat, maps, strict=True):
        bar = figure.colorbar(cells.color(ax, one.values, one.limits), ax=ax, label=one.label)
        ax.set(title=one.title, xlabel="Fraction bits", ylabel="Learning rate")
        ax.label_outer()
        cells.mark(ax, one.zero, _ZERO)
        cells.mark(ax, missing, _MISSING)
        cells.mark(ax, wrapped, _WRAPPED)
        scale = 1.0 if one is maps[0] else 0.6  # lighter where the cliffs are only a reminder
        _draw_left_cliff(ax, cells, cliffs.get("left_cliff"), scale)
        _draw_diagonal_cliff(ax, cliffs.get("diagonal_cliff"), scale)
        if one is maps[0]:
            bar.locator = MultipleLocator(_ACCURACY_STEP)
            _mark_chance(bar, grid.attrs["chance_accuracy"])
            _draw_best(ax, cliffs.get("best"))  # last, above the points of the cliff
        else:
            bar.locator = MaxNLocator(integer=True)

    lines, _ = axes[0, 0].get_legend_handles_labels()
    zero = any(bool(one.zero.any()) for one in maps)
    marks = [
        (zero, _ZERO, "grey: no update, or no error (exactly zero, so no log2)"),
        (bool(missing.any()), _MISSING, "not computed"),
        (bool(wrapped.any()), _WRAPPED, "overflowed (int64 wrapped)"),
    ]
    _add_legend(figure, lines, marks)
    return figure
