"""Pictures of a grid: the arrays drawn equal the formulas, and each mark appears exactly when its cause does."""

import io
from itertools import chain

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PatchCollection, PathCollection, QuadMesh
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.testing import assert_allclose, assert_array_equal

from intnet.errors import InputError
from intnet.plotting import plot_cliffs, plot_surface

CLIFFS = {
    "best": {"lr_shift": 6, "fraction_bits": 12, "accuracy": 0.75},
    "left_cliff": {"lr_shift": 6, "plateau": 0.75, "interval": [6.0, 7.0]},
    "diagonal_cliff": {
        "points": [
            {"lr_shift": 6, "fraction_bits": 10, "plateau": 0.75},
            {"lr_shift": 7, "fraction_bits": 11, "plateau": 0.7},
        ],
        "bits_per_halving": 1.0,
        "intercept": 4.0,
        "interval": [0.9, 1.1],
    },
}
NO_CLIFFS = {
    "best": None,
    "left_cliff": None,
    "diagonal_cliff": {"points": [], "bits_per_halving": None, "intercept": None, "interval": None},
}


def make_grid(lr=(5, 6, 7), bits=(9, 10, 11, 12), seeds=1):
    """Build a complete grid without zeros and without overflow, every value different."""
    shape = (seeds, len(lr), len(bits))
    rng = np.random.default_rng(1)
    values = {
        "accuracy": rng.uniform(0.1, 0.75, shape),
        "mean_abs_update": rng.uniform(1, 1000, shape),
        "mean_abs_error_scaled": rng.uniform(1, 1e6, shape),
        "lost_updates": np.zeros(shape, np.int64),
        "floored_to_minus_one": np.zeros(shape, np.int64),
        "wraps": np.zeros(shape, np.int64),
    }
    return xr.Dataset(
        {name: (("seed", "lr_shift", "fraction_bits"), array) for name, array in values.items()},
        coords={"seed": np.arange(seeds), "lr_shift": list(lr), "fraction_bits": list(bits)},
        attrs={"dataset": "digits", "iterations": 10000, "chance_accuracy": 0.1},
    )


def without(grid, **cells):
    """Take out the given cells, as in a grid that is not finished."""
    known = xr.full_like(grid["accuracy"], True, dtype=bool)
    known[cells] = False
    return grid.where(known)  # keeps the attributes, and the counts become floats, as in a stored grid


def save(figure):
    """Draw the figure for real; warnings are errors."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    assert buffer.getvalue().startswith(b"\x89PNG")
    return figure


def maps_of(figure):
    """Return the four maps, which come first; the others are colour bars."""
    return figure.axes[:4]


def drawn(ax):
    """Return the values of the one mesh of a map, NaN where blank."""
    (mesh,) = [one for one in ax.collections if isinstance(one, QuadMesh)]
    return mesh.get_array().filled(np.nan)


def marks_of(ax):
    """Return a pair (hatch, number of cells) for each kind of mark on a map."""
    return [(one.get_hatch(), len(one.get_paths())) for one in ax.collections if isinstance(one, PatchCollection)]


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def line_of(ax, label):
    (line,) = [one for one in ax.lines if one.get_label().startswith(label)]
    return line


# 1. Heat maps


def test_maps_equal_the_formulas():
    grid = make_grid()
    figure = save(plot_cliffs(grid, CLIFFS))
    accuracy, update, error, bits = (drawn(ax) for ax in maps_of(figure))
    cell = grid.isel(seed=0)
    lr, f = cell["lr_shift"].values[:, None], cell["fraction_bits"].values[None, :]
    assert_array_equal(accuracy, cell["accuracy"])
    assert_allclose(update, np.log2(cell["mean_abs_update"] / 2.0**f))
    assert_allclose(error, np.log2(cell["mean_abs_error_scaled"] * 2.0 ** (lr - f)))
    assert_array_equal(bits, np.broadcast_to(f, bits.shape))


def test_maps_have_titles_and_log2_axes_with_high_rates_on_top():
    figure = save(plot_cliffs(make_grid(), CLIFFS))
    assert figure.get_suptitle() == "DIGITS, 10,000 iterations a cell"
    titles = [ax.get_title() for ax in maps_of(figure)]
    assert titles == ["Accuracy (fraction of 1)", "Update abs. magnitude", "Quantization error", "Fraction bits"]
    lower_left = maps_of(figure)[2]
    assert (lower_left.get_xlabel(), lower_left.get_ylabel()) == ("Fraction bits", "Learning rate")
    assert_array_equal(lower_left.get_xticks(), [9, 10, 11, 12])
    assert_array_equal(lower_left.get_yticks(), [-5, -6, -7])
    assert [tick.get_text() for tick in lower_left.get_yticklabels()] == ["$2^{-5}$", "$2^{-6}$", "$2^{-7}$"]
    assert lower_left.get_ylim() == (-7.5, -4.5)
    assert {mesh.get_cmap().name for ax in maps_of(figure) for mesh in ax.collections} == {"viridis"}


def test_cells_that_are_not_contiguous_meet_half_way():
    figure = save(plot_cliffs(make_grid(lr=(0, 4), bits=(8, 10, 16)), NO_CLIFFS))
    ax = maps_of(figure)[2]
    corners = ax.collections[0].get_coordinates()
    assert_array_equal(corners[0, :, 0], [7, 9, 13, 19])
    assert_array_equal(corners[:, 0, 1], [2, -2, -6])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["$2^{0}$", "$2^{-4}$"]


def test_ticks_of_a_large_grid_are_thinned():
    figure = save(plot_cliffs(make_grid(lr=range(40), bits=range(1, 33)), NO_CLIFFS))
    ax = maps_of(figure)[2]
    assert 5 <= len(ax.get_xticks()) <= 10
    assert 5 <= len(ax.get_yticks()) <= 10


def test_chance_is_marked_on_the_accuracy_bar_alone():
    figure = save(plot_cliffs(make_grid(), NO_CLIFFS))
    bars = figure.axes[4:]
    assert len(bars) == 4
    assert [[text.get_text() for text in bar.texts] for bar in bars] == [["chance"], [], [], []]
    (line,) = bars[0].lines
    assert_array_equal(line.get_ydata(), [0.1, 0.1])
    assert bars[0].get_ylim() == pytest.approx((0.0, 0.8))


@pytest.mark.parametrize("chance", [0.01, 0.1, 0.5])
def test_chance_is_inside_the_bar_when_nothing_learned(chance):
    grid = make_grid()
    grid["accuracy"][:] = chance
    grid.attrs["chance_accuracy"] = chance
    low, high = save(plot_cliffs(grid, NO_CLIFFS)).axes[4].get_ylim()
    assert low < chance < high


def test_cliffs_are_drawn_on_every_map():
    figure = save(plot_cliffs(make_grid(), CLIFFS))
    for ax in maps_of(figure):
        assert_array_equal(line_of(ax, "left cliff").get_ydata(), [-5.5, -5.5])  # between rates 2^-5 and 2^-6
        assert_array_equal(line_of(ax, "diagonal cliff").get_xydata(), [[10, -6], [11, -7]])
        assert_array_equal(line_of(ax, "fitted line").get_xydata(), [[10, -6], [11, -7]])
    assert_array_equal(line_of(maps_of(figure)[0], "best cell").get_xydata(), [[12, -6]])
    assert legend_of(figure) == [
        "left cliff: rates above $2^{-6}$ ($2^{-7}$ to $2^{-6}$) learn less at any bitwidth",
        "fitted line: 1.00 (0.90 to 1.10) bits for each halving of the rate",
        "diagonal cliff: fewest bits that still learn well",
        "best cell: accuracy 0.750 at rate $2^{-6}$, 12 bits",
    ]


def test_left_cliff_above_the_grid_says_so():
    left = {"lr_shift": 5, "plateau": 0.7, "interval": None}
    figure = save(plot_cliffs(make_grid(), {**NO_CLIFFS, "left_cliff": left}))
    assert legend_of(figure) == ["left cliff: outside the grid, its highest rate $2^{-5}$ still works"]
    assert_array_equal(line_of(maps_of(figure)[0], "left cliff").get_ydata(), [-4.5, -4.5])


def test_one_point_has_no_line():
    one = {"points": CLIFFS["diagonal_cliff"]["points"][:1], "bits_per_halving": None, "intercept": None}
    figure = save(plot_cliffs(make_grid(), {**NO_CLIFFS, "diagonal_cliff": {**one, "interval": None}}))
    assert legend_of(figure) == ["diagonal cliff: fewest bits that still learn well"]


@pytest.mark.parametrize("cliffs", [NO_CLIFFS, {}], ids=["nothing measured", "keys missing"])
def test_without_cliffs_only_the_maps_are_drawn(cliffs):
    figure = save(plot_cliffs(make_grid(), cliffs))
    assert legend_of(figure) == []
    assert not any(ax.lines for ax in maps_of(figure))


def test_marks_appear_only_with_their_cause():
    figure = save(plot_cliffs(make_grid(), CLIFFS))
    assert list(chain.from_iterable(marks_of(ax) for ax in maps_of(figure))) == []


def test_overflowed_cells_are_hatched():
    grid = make_grid(seeds=2)
    grid["wraps"][1, 0, 2:] = 7  # one seed is enough
    figure = save(plot_cliffs(grid, NO_CLIFFS))
    assert [marks_of(ax) for ax in maps_of(figure)] == [[("////", 2)]] * 4
    assert legend_of(figure) == ["overflowed (int64 wrapped)"]


def test_zero_has_no_log2_and_is_grey():
    grid = make_grid()
    grid["mean_abs_update"][0, 2, :3] = 0
    grid["mean_abs_error_scaled"][0, 0, 0] = 0
    figure = save(plot_cliffs(grid, NO_CLIFFS))
    assert [marks_of(ax) for ax in maps_of(figure)] == [[], [(None, 3)], [(None, 1)], []]
    _, update, error, _ = (drawn(ax) for ax in maps_of(figure))
    assert_array_equal(np.argwhere(np.isnan(update)), [[2, 0], [2, 1], [2, 2]])
    assert_array_equal(np.argwhere(np.isnan(error)), [[0, 0]])
    assert legend_of(figure) == ["grey: no update, or no error (exactly zero, so no log2)"]


def test_cells_not_computed_are_blank():
    figure = save(plot_cliffs(without(make_grid(), lr_shift=1, fraction_bits=3), CLIFFS))
    for ax in maps_of(figure):
        assert_array_equal(np.argwhere(np.isnan(drawn(ax))), [[1, 3]])
        assert marks_of(ax) == [("xx", 1)]
    assert legend_of(figure)[-1] == "not computed"


def test_nothing_computed_yet():
    grid = make_grid().where(False)
    assert legend_of(save(plot_cliffs(grid, NO_CLIFFS))) == ["not computed"]
    save(plot_surface(grid))


def test_seeds_are_averaged_before_the_log2():
    grid = make_grid(seeds=3).transpose("fraction_bits", "seed", "lr_shift")  # the order of the axes does not matter
    figure = save(plot_cliffs(grid, CLIFFS))
    assert figure.get_suptitle() == "DIGITS, 10,000 iterations a cell, mean over 3 seeds"
    mean = grid.mean("seed").transpose("lr_shift", "fraction_bits")
    assert_allclose(drawn(maps_of(figure)[0]), mean["accuracy"])
    assert_allclose(drawn(maps_of(figure)[1]), np.log2(mean["mean_abs_update"] / 2.0 ** grid["fraction_bits"]))


def test_a_cell_without_all_its_seeds_is_told():
    figure = save(plot_cliffs(without(make_grid(seeds=3), seed=0, lr_shift=0, fraction_bits=0), NO_CLIFFS))
    assert figure.get_suptitle().endswith("mean over 3 seeds (fewer in some cells)")
    assert marks_of(maps_of(figure)[0]) == []


def test_the_longest_legend_fits_the_figure():
    grid = without(make_grid(), lr_shift=0, fraction_bits=0)
    grid["wraps"][0, 0, 1] = 1
    grid["mean_abs_update"][0, 0, 1] = 0
    left = {"lr_shift": 7, "plateau": 0.7, "interval": [6.25, 7.75]}
    diagonal = {**CLIFFS["diagonal_cliff"], "interval": [-10.25, 10.25]}
    figure = save(plot_cliffs(grid, {**CLIFFS, "left_cliff": left, "diagonal_cliff": diagonal}))
    assert len(legend_of(figure)) == 7
    box = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 < box.x0
    assert box.x1 < figure.bbox.x1


# 2. Surface


def facets_of(figure):
    (surface,) = [one for one in figure.axes[0].collections if isinstance(one, Poly3DCollection)]
    return surface.get_array()


def dots_of(figure):
    (dots,) = [one for one in figure.axes[0].collections if isinstance(one, PathCollection)]
    return dots.get_array()


def test_surface_is_the_published_one():
    grid = make_grid()
    figure = save(plot_surface(grid))
    ax, bar = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Learning rate (1/2^value)", "Fraction bitwidth")
    assert ax.get_zlabel() == "Accuracy"
    assert bar.get_ylabel() == "Accuracy (fraction of 1)"
    assert figure.get_suptitle() == "DIGITS, 10,000 iterations a cell"
    assert ax.collections[0].get_cmap().name == "coolwarm"
    a = grid["accuracy"].values[0]
    assert_allclose(facets_of(figure), ((a[:-1, :-1] + a[1:, :-1] + a[:-1, 1:] + a[1:, 1:]) / 4).ravel())
    assert dots_of(figure).size == 0


def test_surface_can_be_turned():
    ax = plot_surface(make_grid(), elevation=10, azimuth=20).axes[0]
    assert (ax.elev, ax.azim) == (10, 20)


def test_surface_leaves_a_hole_where_nothing_was_computed():
    grid = without(make_grid(), lr_shift=1, fraction_bits=1)  # a corner of four of the six facets
    figure = save(plot_surface(grid))
    assert facets_of(figure).shape == (2,)
    assert_array_equal(dots_of(figure), grid["accuracy"].values[0][[0, 0, 1, 2, 2], [0, 1, 0, 0, 1]])


# 3. Both


@pytest.mark.parametrize(("lr", "bits"), [((9,), (16,)), ((9,), (8, 16)), ((8, 9), (16,)), ((8, 9), (8, 12, 16))])
def test_tiny_grids(lr, bits):
    grid = make_grid(lr, bits)
    cliffs = {**NO_CLIFFS, "best": {"lr_shift": 9, "fraction_bits": 16, "accuracy": 0.5}}
    assert drawn(maps_of(save(plot_cliffs(grid, cliffs)))[0]).shape == (len(lr), len(bits))
    figure = save(plot_surface(grid))
    lone = len(lr) == 1 or len(bits) == 1
    assert dots_of(figure).size == (len(lr) * len(bits) if lone else 0)


@pytest.mark.parametrize("plot", [plot_surface, lambda grid: plot_cliffs(grid, NO_CLIFFS)], ids=["surface", "cliffs"])
def test_a_grid_without_cells_is_refused(plot):
    with pytest.raises(InputError, match="at least one cell along seed, lr_shift, fraction_bits, got sizes"):
        plot(make_grid().isel(lr_shift=[]))
