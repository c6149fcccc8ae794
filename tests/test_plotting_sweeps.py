"""Pictures of sweeps of trainings: what is drawn is what was measured, over however many axes."""

import io
import math
from itertools import product

import pytest
from matplotlib.collections import QuadMesh
from numpy.testing import assert_allclose

from intnet.errors import InputError
from intnet.plotting import plot_sweep, plot_sweep_telemetry
from intnet.recipe import ROLES
from intnet.studies.sweeps import Group

WORDS = {"weight.word_bits": range(6, 11)}
TWO = {**WORDS, "activation.word_bits": range(5, 9)}
RATES = {"rate": ["2^-3", "2^-2"]}
FORMATS = {"weight.format": [f"fxp-s{bits}/4 stochastic saturate" for bits in (8, 12, 16)]}
MODES = {"rounding": ["floor", "stochastic", "ties_even"]}


def group(cell, number, seeds, refused):
    return Group(
        cell=cell,
        seeds=0 if refused else seeds,
        died=0,
        refused="too few bits" if refused else "",
        accuracy=math.nan if refused else 0.1 + number / 1000,
        half=None if refused or seeds < 2 else 0.01,
        lost_updates=number / 2000,
        left=dict.fromkeys(ROLES, number / 10_000),
        lost=dict.fromkeys(ROLES, number / 5000),
        bits_used={role: 0 if role in ("momentum", "master") else 4 + number % 5 for role in ROLES},
    )


def groups(axes, seeds=3, refused=lambda _: False):
    cells = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return [group(cell, number, seeds, refused(cell)) for number, cell in enumerate(cells)]


def draw(figure):
    """Draw a figure in earnest: warnings of the layout are errors."""
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


def maps(figure):
    """Return the panels of a figure that are maps."""
    return [
        ax for ax in figure.axes if any(isinstance(one, QuadMesh) for one in ax.collections) and ax.get_label() != "<colorbar>"
    ]


CASES = {
    "none": {"epochs": [1]},
    "one": WORDS,
    "one of texts": RATES,
    "one of long texts": FORMATS,
    "two": TWO,
    "two, one of texts": {**WORDS, **FORMATS},
    "three": {**TWO, **RATES},
    "four": {**TWO, **RATES, **MODES},
    "wide": {"batch": range(1, 101), **WORDS},
}


def none_of(_):
    return False


def some_of(cell):
    return next(iter(cell.values())) in (6, 1, "2^-3")


def all_of(_):
    return True


@pytest.mark.parametrize(
    ("axes", "seeds", "refused"),
    [
        *((axes, 3, some_of) for axes in CASES.values()),
        *((CASES[name], 1, none_of) for name in ("none", "one of long texts", "two", "three")),
        *((CASES[name], 3, all_of) for name in ("none", "one", "two")),
    ],
)
def test_every_sweep_can_be_drawn(axes, seeds, refused):
    some = groups(axes, seeds, refused)
    for plot in (plot_sweep, plot_sweep_telemetry):
        assert draw(plot(some, title="digits, fixed16")).axes


@pytest.mark.parametrize("plot", [plot_sweep, plot_sweep_telemetry])
def test_nothing_is_not_drawn(plot):
    with pytest.raises(InputError, match="there is no cell to draw; run the sweep first"):
        plot([])


@pytest.mark.parametrize(("seeds", "label"), [(1, "test accuracy"), (3, "test accuracy\nmean of 3 seeds, 95 % interval")])
def test_one_axis_is_a_line_with_intervals(seeds, label):
    some = groups(WORDS, seeds, lambda cell: cell["weight.word_bits"] == 6)
    (ax,) = draw(plot_sweep(some, title="digits")).axes
    line = ax.lines[0]
    assert list(line.get_xdata()) == list(range(6, 11))
    assert_allclose(line.get_ydata().astype(float), [math.nan, 0.101, 0.102, 0.103, 0.104])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("weight: word bits", label, "digits")
    (refused,) = [line for line in ax.lines if line.get_label() == "refused"]
    assert refused.get_xdata().tolist() == [6]
    assert ax.get_xlim()[0] < 6


def test_texts_are_marks_and_no_line():
    (ax,) = draw(plot_sweep(groups(MODES))).axes
    assert [label.get_text() for label in ax.get_xticklabels()] == MODES["rounding"]
    assert ax.lines[0].get_linestyle() == "None"
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert len(set(labels)) == len(labels)


def test_two_axes_are_a_map_the_longer_across():
    some = groups({"activation.word_bits": range(5, 9), **WORDS}, 3, lambda cell: cell["weight.word_bits"] == 6)
    figure = draw(plot_sweep(some))
    (ax,) = maps(figure)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("weight: word bits", "activation: word bits")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["6", "7", "8", "9", "10"]
    values = ax.collections[0].get_array()
    wanted = [[100 * group.accuracy for group in some if group.cell["activation.word_bits"] == bits] for bits in range(5, 9)]
    assert_allclose(100 * values.filled(math.nan), wanted)
    numbers = [one for line in wanted for one in line if one == one]
    places = 1 if max(numbers) - min(numbers) < 10 else 0  # where all are close, one place more tells them apart
    assert sorted(text.get_text() for text in ax.texts) == sorted(f"{one:.{places}f}" for one in numbers)


def test_more_axes_are_panels():
    figure = draw(plot_sweep(groups({**TWO, **RATES}), title="digits"))
    assert [ax.get_title() for ax in maps(figure)] == ["rate 2^-3", "rate 2^-2"]
    assert figure.get_suptitle() == "digits"
    figure = draw(plot_sweep(groups({**TWO, **RATES, **MODES})))
    wanted = {f"rounding {mode}, rate {rate}" for rate in RATES["rate"] for mode in MODES["rounding"]}
    assert {ax.get_title() for ax in maps(figure)} == wanted
    figure = draw(plot_sweep(groups({**TWO, "epochs": range(1, 5), "batch": range(1, 5)}), title="digits"))
    assert len(maps(figure)) == 12
    assert figure.get_suptitle() == "digits (the first 12 of 16 panels)"


def test_telemetry_is_along_each_axis_through_the_best():
    some = groups({**TWO, **RATES})
    best = some[-1]
    figure = draw(plot_sweep_telemetry(some, title="digits"))
    assert len(figure.axes) == 9
    assert [ax.get_xlabel() for ax in figure.axes[6:]] == ["weight: word bits", "activation: word bits", "rate"]
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {"activation", "error", "gradient", "updates"}
    along = [one for one in some if {**one.cell, "weight.word_bits": 0} == {**best.cell, "weight.word_bits": 0}]
    assert_allclose(lines["updates"].get_ydata(), [one.lost_updates for one in along])
    assert_allclose(lines["error"].get_ydata(), [one.lost["error"] for one in along])
    assert {line.get_label() for line in figure.axes[3].lines} == {"weight", "activation", "error", "gradient"}
    (legend,) = figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == ["activation", "error", "gradient", "updates", "weight"]
