"""Pictures of gradient estimators: what is drawn is what was measured, however much of a study there is."""

import io

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection
from numpy.testing import assert_allclose, assert_array_equal

from intnet.errors import InputError
from intnet.plotting import plot_best, plot_cosines, plot_decrease, plot_rosenbrock, plot_signs, plot_thin_resnet
from intnet.studies.rosenbrock import RosenbrockRow
from intnet.studies.thin_resnet import ThinResNetRow
from intnet.studies.toy_gradients import CosineRow, DecreaseRow, SignsRow

ROSENBROCK = [
    RosenbrockRow(schedule, step, 0.1, 0.01, 10.0 ** (3 - power * step / 1000))
    for schedule, power in (("constant", 1), ("decaying", 5))
    for step in (0, 1000, 2000)
]
LAYERS = ("fc1", "fc2", "fc3", "total")
COSINES = [
    CosineRow(activation, epsilon, estimator, layer, seed, samples, 0.1 * k + 0.2 * seed + (activation == "full") * 0.3)
    for activation, estimator in (("binary", "vanilla"), ("binary", "swish"), ("full", "vanilla"))
    for epsilon in (0.1, 0.01)
    for samples in (300_000, 4_000)
    for k, layer in enumerate(LAYERS)
    for seed in (0, 1)
]
NAMES = [
    ("ste_vanilla", 0, 0.0),
    ("ste_random_backward", 0, 0.0),
    ("cdg", 0, 0.1),
    ("cdg", 0, 0.01),
    ("nes", 500, 0.1),
    ("nes", 5000, 0.1),
    ("nes_single", 500, 0.1),
    ("nes_max_point", 500, 0.1),
    ("ste_around", 500, 0.3),
    ("ste_around", 500, 1.0),
]
DECREASES = [
    DecreaseRow(
        dim, *name, rate, trained, seed, 1.0, (0.1 + number / 50) * dim * rate * (1 - rate) + 0.02 * seed - trained / 20
    )
    for dim in (8, 32)
    for number, name in enumerate(NAMES)
    if dim == 8 or name[1] < 5000
    for rate in (0.1, 0.5, 0.9)
    for trained in (0, 1)
    for seed in (0, 1)
]
SIGNS = [
    SignsRow(trained, seed, batch, averaged, 2.0, 1.0 + averaged + seed / 4 + batch / 8, 0.25)
    for trained in (0, 1)
    for seed in (0, 1)
    for batch in (0, 1)
    for averaged in (0, 1, 3)
]
THIN = [
    ThinResNetRow(weights, layer, batch, estimator, epsilon, rate, 0.5, 2.0, rate * (1 + batch) * layer + epsilon)
    for weights, names in (
        ("full", (("ste", 0.0), ("cdg", 0.1))),
        ("binary", (("ste", 0.0), ("cdg", 0.1), ("cdg", 0.0))),
    )
    for estimator, epsilon in names
    for layer in (1, 8, 16)
    for batch in (0, 1)
    for rate in (0.1, 0.3)
]
PLOTS = {
    "rosenbrock": (plot_rosenbrock, ROSENBROCK),
    "cosines": (plot_cosines, COSINES),
    "decrease": (lambda rows: plot_decrease(rows, pretrained=False), DECREASES),
    "best": (plot_best, DECREASES),
    "signs": (plot_signs, SIGNS),
    "thin": (plot_thin_resnet, THIN),
}


def draw(figure):
    """Draw a figure in earnest: warnings of the layout are errors."""
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def curves(ax, points):
    """Return the lines with so many points."""
    return [line for line in ax.lines if len(line.get_xdata()) == points]


def test_rosenbrock_has_a_curve_a_schedule():
    (ax,) = draw(plot_rosenbrock(ROSENBROCK)).axes
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("step", "f(x)", "log")
    assert [line.get_label() for line in ax.lines] == ["constant rate and epsilon", "decaying rate and epsilon"]
    assert_allclose(ax.lines[1].get_xydata(), [(0, 1e3), (1000, 1e-2), (2000, 1e-7)])
    assert "2,000" in [label.get_text() for label in ax.get_xticklabels()]


def test_cosines_have_means_and_deviations_by_layer():
    """A panel an epsilon and number of samples, the most samples first."""
    figure = draw(plot_cosines(COSINES))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [rf"$\epsilon$ = {e}, {n} samples" for n in ("300,000", "4,000") for e in ("0.1", "0.01")]
    for ax in figure.axes:
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("layer", "cosine to CDG")
        assert [label.get_text() for label in ax.get_xticklabels()] == list(LAYERS)
        assert len(ax.containers) == 3
        for (points, _, (bars,)), shift in zip(ax.containers, (0, 0, 0.3), strict=True):
            assert_allclose(points.get_ydata(orig=False), 0.1 * np.arange(4) + 0.1 + shift)
            assert_allclose([np.ptp(segment[:, 1]) for segment in bars.get_segments()], 0.2)
            assert_array_equal(np.rint(points.get_xdata(orig=False)), range(4))
    (legend,) = figure.legends
    assert texts(legend) == ["binary, vanilla", "binary, swish", "full"]


def test_decreases_have_a_column_a_dimension_and_a_row_a_kind():
    figure = draw(plot_decrease(DECREASES, pretrained=True))
    assert len(figure.axes) == 4 * 2
    axes = np.array(figure.axes).reshape(4, 2)
    assert [ax.get_title() for ax in axes[0]] == ["dimension 8", "dimension 32"]
    assert {ax.get_xlabel() for ax in axes[-1]} == {"rate (length of the step, each layer)"}
    assert {row[0].get_ylabel() for row in axes} == {"decrease of the loss (MSE)"}
    assert [[len(curves(ax, 3)) for ax in row] for row in axes] == [[4, 4], [2, 1], [1, 1], [3, 3]]
    labels = [label for row in axes for label in texts(row[-1].get_legend())]
    assert labels == [
        "STE random backward", "STE vanilla", r"CDG, $\epsilon$ = 0.01", r"CDG, $\epsilon$ = 0.1",
        r"NES, n = 500, $\sigma$ = 0.1", r"NES, n = 5,000, $\sigma$ = 0.1", r"NES single, n = 500, $\sigma$ = 0.1",
        "best point, n = 500", "around STE, n = 500, spread = 0.3", "around STE, n = 500, spread = 1",
    ]  # fmt: skip
    (line,) = curves(axes[2, 1], 3)
    expected = [(0.1 + 6 / 50) * 32 * rate * (1 - rate) + 0.01 - 0.05 for rate in (0.1, 0.5, 0.9)]
    assert_allclose(line.get_xydata(), list(zip((0.1, 0.5, 0.9), expected, strict=True)))
    fresh = draw(plot_decrease(DECREASES, pretrained=False))
    assert fresh.get_suptitle() == "fresh networks"
    assert "after training" in figure.get_suptitle()
    assert_allclose(curves(fresh.axes[5], 3)[0].get_ydata(), np.array(expected) + 0.05)


def test_the_best_decrease_is_over_rates_and_parameters():
    figure = draw(plot_best(DECREASES))
    assert [ax.get_title() for ax in figure.axes] == ["fresh networks", "after training"]
    (legend,) = figure.legends
    assert len(texts(legend)) == len(set(texts(legend))) == 8
    assert "around STE, n = 500" in texts(legend)
    for ax, less in zip(figure.axes, (0, 0.05), strict=True):
        assert ax.get_xlabel() == "dimension"
        assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "32"]
        found = {line.get_label(): line for line in ax.lines}
        assert_allclose(found["CDG"].get_xydata(), [(dim, (0.1 + 3 / 50) * dim / 4 + 0.01 - less) for dim in (8, 32)])
        assert_allclose(found["NES, n = 5,000"].get_xydata(), [(8, 0.2 * 2 + 0.01 - less)])
    assert "parameters" in figure.axes[0].get_ylabel()


def test_stochastic_signs_have_boxes_over_batches():
    figure = draw(plot_signs(SIGNS))
    assert [ax.get_title() for ax in figure.axes] == ["fresh networks", "after training"]
    for ax in figure.axes:
        assert ax.get_xlabel() == "stochastic activations averaged"
        assert [label.get_text() for label in ax.get_xticklabels()] == ["STE", "1", "3"]
        medians = [line.get_ydata()[0] for line in ax.lines if line.get_color() == "C1"]
        assert_allclose(medians, [1 + n + 0.1875 for n in (0, 1, 3)])
    assert figure.axes[0].get_ylabel() == "best loss over rates (mean squared error)"


def test_a_thin_resnet_has_a_panel_a_convolution_and_kind():
    figure = draw(plot_thin_resnet(THIN))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [f"{kind} weights, convolution {layer}" for kind in ("full", "binary") for layer in (1, 8, 16)]
    assert {ax.get_xlabel() for ax in figure.axes} == {"rate (length of the step)"}
    assert [ax.get_ylabel() for ax in figure.axes] == ["decrease of the loss (nats)", "", ""] * 2
    for ax, count in zip(figure.axes, (2, 2, 2, 3, 3, 3), strict=True):
        lines = [line for line in ax.lines if line.get_label()[0] != "_"]
        assert len(lines) == count
        assert len([one for one in ax.collections if isinstance(one, FillBetweenPolyCollection)]) == count
    (line,) = (line for line in figure.axes[4].lines if line.get_label() == "CDG, all signs")
    assert_allclose(line.get_xydata(), [(rate, rate * 1.5 * 8) for rate in (0.1, 0.3)])
    colors = [{line.get_label(): line.get_color() for line in ax.lines if line.get_label()[0] != "_"} for ax in figure.axes]
    assert colors[0].items() <= colors[3].items()
    assert len(set(colors[3].values())) == 3
    (legend,) = figure.legends
    assert set(texts(legend)) == {"STE", r"CDG, $\epsilon$ = 0.1", "CDG, all signs"}


@pytest.mark.parametrize("name", PLOTS)
def test_what_a_stopped_study_leaves_is_drawn(name):
    """One row, and some of the first half."""
    plot, rows = PLOTS[name]
    for some in (rows[:1], rows[: len(rows) // 2 : 3]):
        figure = draw(plot([row for row in some if name != "decrease" or not row.pretrained]))
        assert figure.axes


def test_a_series_that_the_first_panel_lacks_has_a_name_too():
    rows = [row for row in COSINES if row.activation == "binary" or row.samples == 4_000]
    (legend,) = draw(plot_cosines(rows)).legends
    assert "full" in texts(legend)
    rows = [row for row in DECREASES if row.estimator != "cdg" or row.pretrained]
    (legend,) = draw(plot_best(rows)).legends
    assert "CDG" in texts(legend)


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_to_draw_is_refused(name):
    plot, rows = PLOTS[name]
    with pytest.raises(InputError, match=r"^there is no row to draw; run the study first$"):
        plot([row for row in rows if name == "decrease" and row.pretrained])
