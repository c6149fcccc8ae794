"""Pictures of bit centering: what is drawn is what was measured, for one seed and several, one panel and more."""

import io

import pytest
from matplotlib.collections import FillBetweenPolyCollection
from numpy.testing import assert_allclose

from intnet.errors import InputError
from intnet.plotting import plot_centred
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
