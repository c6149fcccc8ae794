"""Pictures of bit centering: what is drawn is what was measured, for one seed and several, one panel and more."""

import io

import pytest
from matplotlib.collections import FillBetweenPolyCollection
from numpy.testing import assert_allclose

from intnet.errors import InputError
from intnet.plotting import plot_centred, plot_test_accuracy, plot_training_loss
from intnet.studies.halp_convex_reading import Name

NAMES = [
    Name("b", "sgd", 0, 0.0, 0, "none"),
    *(Name("b", "svrg", 0, 0.0, T, "none") for T in (200, 2000)),
    *(Name("b", "lp_svrg", bits, 0.0, 200, "none") for bits in (4, 8)),
    *(Name("b", "halp", 8, mu, 200, kind) for mu in (3.0, 1.0) for kind in ("exact", "power_of_two")),
]
CURVES = {name: {at: [10.0 * (i + 1) / at, 40.0 * (i + 1) / at] for at in (10, 20, 30)} for i, name in enumerate(NAMES)}


def draw(figure):
    """Draw a figure in earnest: warnings of the layout are errors."""
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


def shades(ax):
    return [one for one in ax.collections if isinstance(one, FillBetweenPolyCollection)]


def test_the_curves_are_geometric_means():
    figure = draw(plot_centred(CURVES, rate="0.001"))
    first, second = figure.axes
    assert first.get_yscale() == "log"
    assert [len(ax.lines) for ax in figure.axes] == [8, 2]  # sgd is in both
    assert [len(shades(ax)) for ax in figure.axes] == [8, 2]
    assert_allclose(first.lines[0].get_xydata(), [(at, 20 / at) for at in (10, 20, 30)])
    assert_allclose(second.lines[1].get_xydata(), [(at, 60 / at) for at in (10, 20, 30)])
    assert "every 2,000 iterations" in second.get_title()
    assert first.get_xlim() == (0, 30)
    assert "rate 0.001; geometric mean of 2 seeds" in figure.get_suptitle()


def test_the_legend_names_every_setting_once_and_tells_them_apart():
    (legend,) = plot_centred(CURVES).legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == len(set(labels)) == 8
    assert labels[:2] == ["SGD, wide", "SVRG, wide"]
    assert r"HALP, 8 bits, $\mu$ = 3, power-of-two scale" in labels
    looks = {(line.get_color(), line.get_linestyle()) for line in legend.get_lines()}
    assert len(looks) == 8


def test_one_panel_one_seed_and_zeros():
    name = Name("digits", "halp", 8, 0.1, 2000, "exact")
    figure = draw(plot_centred({name: {10: [1.0], 20: [0.0]}}))
    (ax,) = figure.axes
    assert ax.lines[0].get_xydata().tolist() == [[10, 1]]
    assert not shades(ax)
    assert "norm of the gradient" in ax.get_ylabel()
    draw(plot_centred({Name("a", "lp_sgd", 8, 0.0, 0, "none"): {10: [1.0]}}))
    empty = draw(plot_centred({name: {10: [0.0]}}))
    assert not empty.axes[0].lines


def test_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match="no curve to draw"):
        plot_centred({})


# Networks -----------------------------------------------------------------------------------------------------------------

LABELS = ("HALP, 8 bits, T = 0.5 epochs", "HALP, 2 bits, T = 1 epoch", "SVRG, T = 1 epoch", "SGD")
BY_EPOCH = {label: {epoch: [50.0 + i + epoch, 52.0 + i + epoch] for epoch in (1, 2, 10)} for i, label in enumerate(LABELS)}


def test_accuracies_are_means_with_published_values_beside_them():
    figure = draw(plot_test_accuracy(BY_EPOCH, title="cifar10", marks=(10, {LABELS[0]: 84.2, "another": 1.0})))
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines[:4]] == list(LABELS)
    assert_allclose(ax.lines[1].get_xydata(), [(1, 53), (2, 54), (10, 62)])
    assert len(shades(ax)) == 4
    mark = ax.lines[4]
    assert (mark.get_xydata().tolist(), mark.get_color()) == ([[10, 84.2]], ax.lines[0].get_color())
    assert len(ax.lines) == 5
    assert ax.get_ylim() == (0, 100)
    assert len({line.get_color() for line in ax.lines[:4]}) == 4
    assert len(draw(plot_test_accuracy(BY_EPOCH)).axes[0].lines) == 4


def test_losses_are_on_a_log_scale():
    figure = draw(plot_training_loss({"HALP": {10: [2.0], 1000: [0.5]}, "SGD": {10: [2.5]}}, title="t", window=1000))
    (ax,) = figure.axes
    assert (ax.get_yscale(), ax.get_xlim(), ax.get_title()) == ("log", (0, 1000), "t")
    assert "1,000 iterations" in ax.get_ylabel()
    assert not shades(ax)
    for plot in (plot_training_loss, plot_test_accuracy):
        with pytest.raises(InputError, match="no curve"):
            plot({})
