"""Pictures of averaged weights: what is drawn is what was measured, for one seed and several, with and without `wide`."""

import io

import pytest
from matplotlib.collections import FillBetweenPolyCollection
from numpy.testing import assert_allclose, assert_array_equal

from intnet.errors import InputError
from intnet.plotting import plot_linear, plot_logistic
from intnet.studies.swalp_convex import SGD_LP, SWALP, LinearRow, LogisticRow

LINEAR = [
    LinearRow(*name, method, seed, iteration, scale * (seed + 1) / (iteration if method == SWALP else 1))
    for name, scale in (((8, 6), 4.0), ((6, 4), 64.0), ((0, 0), 0.1))
    for method in (SGD_LP, SWALP)
    for seed in (0, 1)
    for iteration in (100, 200, 300)
]
LOGISTIC = [
    LogisticRow("digits", bits, method, seed, 10.0 ** -(bits + seed), 1 / (1 + bits), 0.1 + 0.1 * seed, 0.3)
    for bits in (0, 2, 3)
    for method in (SGD_LP, SWALP)
    for seed in (0, 1)
]


def draw(figure):
    """Draw a figure in earnest: warnings of the layout are errors."""
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


def shades(ax):
    return [one for one in ax.collections if isinstance(one, FillBetweenPolyCollection)]


def test_the_curves_of_least_squares_are_the_means():
    figure = draw(plot_linear(LINEAR, {(8, 6): 0.5, (6, 4): 8.0}, rate="2^-10", averaging_start=50))
    (ax,) = figure.axes
    assert ax.get_yscale() == "log"
    curves = [line for line in ax.lines if len(line.get_xdata()) == 3]
    assert len(curves) == 6  # by fraction bits, the wide one last
    assert_allclose(curves[0].get_xydata(), [(i, 64 * 1.5) for i in (100, 200, 300)])
    assert_allclose(curves[3].get_xydata(), [(i, 4 * 1.5 / i) for i in (100, 200, 300)])
    assert curves[0].get_color() == curves[1].get_color() != curves[2].get_color()
    dashed = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed == [8.0, 0.5]
    assert len(shades(ax)) == 6
    assert "mean of 2 seeds" in ax.get_title()
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels[:3] == ["6/4", "8/6", "wide"]


def test_one_seed_has_no_range():
    figure = draw(plot_linear([row for row in LINEAR if row.seed == 0 and row.word_bits], {}))
    assert not shades(figure.axes[0])
    assert "seed" not in figure.axes[0].get_title()
    figure = draw(plot_logistic([row for row in LOGISTIC if row.seed == 0]))
    assert not any(shades(ax) for ax in figure.axes)


def test_the_curves_of_softmax_are_the_means():
    figure = draw(plot_logistic(LOGISTIC))
    gradient, loss, train, test = figure.axes
    assert gradient.get_yscale() == "log"
    for ax, values in (
        (gradient, [0.0055, 0.00055]), (loss, [1 / 3, 1 / 4]), (train, [0.15, 0.15]), (test, [0.3, 0.3])
    ):  # fmt: skip
        for line in (ax.lines[0], ax.lines[2]):
            assert_array_equal(line.get_xdata(), [2, 3])
            assert_allclose(line.get_ydata(), values)
        assert len(shades(ax)) == 2
    assert_allclose(loss.lines[1].get_ydata(), [1, 1])
    assert loss.lines[1].get_linestyle() == "--"
    assert "10%" in [label.get_text() for label in train.get_yticklabels()]


@pytest.mark.parametrize("bits", [(0,), (2,)])
def test_softmax_with_one_column_or_the_wide_one_alone(bits):
    draw(plot_logistic([row for row in LOGISTIC if row.fraction_bits in bits]))


def test_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match="no row"):
        plot_linear([], {})
    with pytest.raises(InputError, match="got none"):
        plot_logistic([])
    with pytest.raises(InputError, match="of one data set, got digits, mnist"):
        plot_logistic([*LOGISTIC, LOGISTIC[0]._replace(dataset="mnist")])
