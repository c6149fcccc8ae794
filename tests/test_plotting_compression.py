"""Pictures of sparse and few-bit networks: what is drawn is what was measured, however much of a study there is."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from numpy.testing import assert_allclose

from intnet.errors import InputError
from intnet.plotting import plot_pruning, plot_quantization, plot_sparse_bits, plot_sparse_descent, plot_sparsity
from intnet.studies import pruning, quantization
from intnet.studies.pruning import LayerRow
from intnet.studies.sparse_linear import LinearRow

RUNS = [("trimmed", 0.2), ("trimmed", 0.02), ("l1", 0.5), ("gd", 0.0), ("projected", 2.0), ("proximal", 0.004)]
LINEAR = [
    LinearRow(method, parameter, bits, step, 51.0 / 10**step, *(step * (k - 2 + parameter / 10) / bits for k in range(5)))
    for method, parameter in RUNS
    for bits in (8, 40)
    for step in (2, 0, 1)
]
PRUNING = [
    pruning.Row("dense", 0.0, 0, 0.0, 1.0, 0.9),
    *(
        pruning.Row(method, share, 0, share / 100, 1.0, 0.9 - share / 200 - (method == "one-shot") / 100)
        for method in ("one-shot", "one-shot-global")
        for share in (40.0, 20.0, 80.0)
    ),
    *(pruning.Row("iterative", min(80.0, 40.0 * n), n, 0.8, 1.0, 0.6 + n / 20) for n in (2, 1, 3)),
    *(pruning.Row("one-shot", 80.0, n, 0.8, 1.0, 0.5 + n / 20) for n in (1, 2, 3)),
]
LAYERS = [
    LayerRow(method, layer, 100, zeros + 10 * number, (zeros + 10 * number) / 100)
    for number, method in enumerate(("one-shot", "iterative"))
    for layer, zeros in (("conv1", 10), ("residual1/body/conv1", 70), ("dense1", 80), ("total", 50))
]
QUANTIZATION = [
    quantization.Row("none", 16, 0, 1.0, 0.9),
    *(
        quantization.Row(scheme, bits, 0, 1.0, 0.5 + bits / 20)
        for scheme in ("affine", "symmetric-power")
        for bits in (6, 4, 2)
    ),
    *(quantization.Row("affine", bits, n, 1.0, 0.7 + bits / 50 - n / 100) for bits in (4, 2) for n in (1, 2)),
]
PLOTS = {
    "descent": (lambda rows: plot_sparse_descent(rows, 40), LINEAR),
    "bits": (plot_sparse_bits, LINEAR),
    "pruning": (plot_pruning, PRUNING),
    "sparsity": (plot_sparsity, LAYERS),
    "quantization": (plot_quantization, QUANTIZATION),
}


def draw(figure):
    """Draw a figure in earnest: warnings of the layout are errors."""
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def points(line):
    return line.get_xydata().tolist()


# Sparse descents --------------------------------------------------------------------------------------------------------


def test_a_descent_has_a_panel_of_losses_over_one_of_weights():
    """In the order of the methods and of their parameters, of one width."""
    figure = draw(plot_sparse_descent(LINEAR, 40))
    axes = figure.axes
    assert len(axes) == 2 * len(RUNS)  # panels that stay empty are gone
    titles = [ax.get_title() for ax in axes if ax.get_title()]
    assert titles == [
        "plain", "projected, 2 kept", r"L1, $\lambda$ = 0.5", "soft threshold 0.004", "trimmed, threshold 0.02",
        "trimmed, threshold 0.2",
    ]  # fmt: skip
    losses = [ax for ax in axes if ax.get_yscale() == "log"]
    weights = [ax for ax in axes if ax.get_yscale() == "linear"]
    assert (len(losses), len(weights)) == (6, 6)
    for ax in losses:
        (line,) = ax.lines
        assert_allclose(points(line), [(0, 51), (1, 5.1), (2, 0.51)])
    order = [("gd", 0.0), ("projected", 2.0), ("l1", 0.5), ("proximal", 0.004), ("trimmed", 0.02), ("trimmed", 0.2)]
    assert [ax.get_title() for ax in losses] == titles
    for ax, (_, parameter) in zip(weights, order, strict=True):
        assert [line.get_label() for line in ax.lines] == [f"$w_{j}$" for j in range(5)]
        for k, line in enumerate(ax.lines):
            assert_allclose(points(line), [(step, step * (k - 2 + parameter / 10) / 40) for step in range(3)])
        assert ax.get_xlabel() == "step"
    (legend,) = figure.legends
    assert texts(legend) == [f"$w_{j}$" for j in range(5)]
    assert legend.get_title().get_text() == "three equations, five weights, 40 fraction bits"


def test_a_loss_of_zero_is_drawn_at_the_floor():
    rows = [LinearRow("gd", 0.0, 40, step, loss, *[0.0] * 5) for step, loss in enumerate((51.0, 0.02, 0.0))]
    figure = draw(plot_sparse_descent(rows, 40))
    ax = next(ax for ax in figure.axes if ax.get_yscale() == "log")
    assert_allclose(ax.lines[0].get_ydata(), (51, 0.02, 0.01))
    assert ax.get_ylim()[0] < 0.01
    assert len(draw(plot_sparse_descent(rows[:1], 40)).axes) == 2
    (ax,) = draw(plot_sparse_bits(rows)).axes
    assert_allclose(ax.lines[0].get_ydata(), (51, 0.02, np.nan))  # there it ends


def test_widths_are_line_styles_and_parameters_are_colors():
    figure = draw(plot_sparse_bits(LINEAR))
    assert len(figure.axes) == 5  # a panel a method, in their order
    named = [texts(ax.get_legend()) for ax in figure.axes]
    assert named[0] == ["plain"]
    assert named[1] == ["projected, 2 kept"]
    assert sorted(named[4]) == ["trimmed, threshold 0.02", "trimmed, threshold 0.2"]  # once each, not for every width
    trimmed = [line for line in figure.axes[4].lines if len(line.get_xdata())]
    assert sorted((to_hex(line.get_color()), line.get_linestyle()) for line in trimmed) == sorted(
        (to_hex(color), style) for color in ("C0", "C1") for style in ("-", "--")
    )
    for line in trimmed:
        assert_allclose(points(line), [(0, 51), (1, 5.1), (2, 0.51)])
    (legend,) = figure.legends
    assert texts(legend) == ["40 fraction bits", "8 fraction bits"]
    assert [line.get_linestyle() for line in legend.get_lines()] == ["-", "--"]


def test_many_widths_are_drawn():
    rows = [LinearRow("gd", 0.0, bits, step, 51.0 - step, *[0.0] * 5) for bits in range(8, 17) for step in (0, 1)]
    figure = draw(plot_sparse_bits(rows))
    assert len([line for line in figure.axes[0].lines if len(line.get_xdata())]) == 9
    assert len(texts(figure.legends[0])) == 9


# Pruning ----------------------------------------------------------------------------------------------------------------


def test_pruning_without_and_with_tuning_is_side_by_side():
    figure = draw(plot_pruning(PRUNING, title="digits"))
    left, right = figure.axes
    assert figure.get_suptitle() == "digits"
    assert (left.get_title(), right.get_title()) == ("not fine-tuned", "fine-tuned, to 80 % pruned")
    assert (left.get_xlabel(), right.get_xlabel()) == ("pruned, percent of the weights", "epoch of fine-tuning")
    assert left.get_ylabel() == "test accuracy"
    by_label = {line.get_label(): line for line in left.lines}
    assert list(by_label) == ["by layers", "one threshold", "dense"] == texts(left.get_legend())
    assert_allclose(points(by_label["by layers"]), [(0, 0.9), (20, 0.79), (40, 0.69), (80, 0.49)])
    assert_allclose(points(by_label["one threshold"]), [(0, 0.9), (20, 0.8), (40, 0.7), (80, 0.5)])
    assert set(by_label["dense"].get_ydata()) == {0.9}
    tuned = {line.get_label(): line for line in right.lines}
    assert list(tuned) == ["iterative", "one-shot", "dense"]
    assert_allclose(points(tuned["iterative"]), [(1, 0.65), (2, 0.7), (3, 0.75)])
    assert_allclose(points(tuned["one-shot"]), [(1, 0.55), (2, 0.6), (3, 0.65)])
    colors = [to_hex(line.get_color()) for line in (by_label["by layers"], tuned["one-shot"])]
    assert colors[0] == colors[1]  # a method has one color
    assert len({to_hex(line.get_color()) for line in (*by_label.values(), *tuned.values())}) == 4
    assert "90%" in [label.get_text() for label in left.get_yticklabels()]


def test_pruning_that_is_not_tuned_is_one_panel():
    (ax,) = draw(plot_pruning([row for row in PRUNING if not row.epoch])).axes
    assert [line.get_label() for line in ax.lines] == ["by layers", "one threshold", "dense"]
    (ax,) = draw(plot_pruning(PRUNING[:1])).axes
    assert [line.get_label() for line in ax.lines] == ["dense"]


def test_the_zeros_of_every_layer_are_points():
    (ax,) = draw(plot_sparsity(LAYERS, title="digits")).axes
    assert ax.get_title() == "digits"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["conv1", "residual1/body/conv1", "dense1"]  # not "total"
    drawn = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(drawn) == ["one-shot", "iterative"] == texts(ax.get_legend())
    assert_allclose(drawn["one-shot"].get_ydata(), (0.1, 0.7, 0.8))
    assert_allclose(drawn["iterative"].get_ydata(), (0.2, 0.8, 0.9))
    for line in drawn.values():
        assert np.rint(line.get_xdata()).tolist() == [0, 1, 2]
    assert drawn["one-shot"].get_marker() != drawn["iterative"].get_marker()
    some = [row for row in LAYERS if (row.method, row.layer) != ("iterative", "residual1/body/conv1")]
    (ax,) = draw(plot_sparsity(some)).axes
    drawn = {line.get_label(): line for line in ax.lines}
    assert np.rint(drawn["iterative"].get_xdata()).tolist() == [0, 2]  # what it lacks is left out


# Quantization -----------------------------------------------------------------------------------------------------------


def test_bits_are_drawn_as_they_come_and_after_the_last_epoch():
    (ax,) = draw(plot_quantization(QUANTIZATION, title="digits")).axes
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("digits", "bits of a weight", "test accuracy")
    drawn = {line.get_label(): line for line in ax.lines}
    assert list(drawn) == [
        "affine, as they come", "affine, fine-tuned 2 epochs", "symmetric-power, as they come", "as stored, 16 bits"
    ]  # fmt: skip
    assert texts(ax.get_legend()) == list(drawn)
    assert_allclose(points(drawn["affine, as they come"]), [(2, 0.6), (4, 0.7), (6, 0.8)])
    assert_allclose(points(drawn["affine, fine-tuned 2 epochs"]), [(2, 0.72), (4, 0.76)])
    assert set(drawn["as stored, 16 bits"].get_ydata()) == {0.9}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "4", "6"]
    colors = [to_hex(line.get_color()) for line in drawn.values()]
    assert colors[0] == colors[1] != colors[2]


@pytest.mark.parametrize(
    ("epochs", "label"), [((1, 1), "fine-tuned 1 epoch"), ((1, 2), "fine-tuned 1/2 epochs"), ((3, 3), "fine-tuned 3 epochs")]
)
def test_trainings_that_are_not_over_say_how_far_they_are(epochs, label):
    tuned = [(bits, n) for bits, most in zip((4, 2), epochs, strict=True) for n in range(1, most + 1)]
    rows = [*QUANTIZATION[:4], *(quantization.Row("affine", *one, 1.0, 0.5) for one in tuned)]
    (ax,) = draw(plot_quantization(rows)).axes
    assert f"affine, {label}" in texts(ax.get_legend())


def test_a_network_that_is_not_coded_is_a_line():
    (ax,) = draw(plot_quantization(QUANTIZATION[:1])).axes
    assert [line.get_label() for line in ax.lines] == ["as stored, 16 bits"]


# All of them ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLOTS)
def test_no_rows_are_refused_in_one_line(name):
    plot, _ = PLOTS[name]
    with pytest.raises(InputError, match="there is no row to draw; run the study first"):
        plot([])


def test_only_a_total_is_no_layer():
    with pytest.raises(InputError, match="there is no row to draw"):
        plot_sparsity([row for row in LAYERS if row.layer == "total"])


def test_a_width_that_no_row_has_is_refused():
    with pytest.raises(InputError):
        plot_sparse_descent(LINEAR, 16)


@pytest.mark.parametrize("name", PLOTS)
def test_pictures_are_files_of_their_kind(name, tmp_path):
    plot, rows = PLOTS[name]
    figure = plot(rows)
    assert figure.canvas.manager is None  # no window, no pyplot
    figure.savefig(tmp_path / "picture.png", dpi=40)
    width, height = (round(40 * inches) for inches in figure.get_size_inches())
    opened = imread(tmp_path / "picture.png")
    assert opened.shape[:2] == pytest.approx((height, width), abs=1)
    assert len(np.unique(opened.reshape(-1, opened.shape[2]), axis=0)) > 10
    given = list(rows)
    plot(rows)
    assert rows == given
