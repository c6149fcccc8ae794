"""Pictures of a training: what is drawn is what was measured, from one epoch to deep networks."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from numpy.testing import assert_allclose, assert_array_equal

from intnet.errors import InputError
from intnet.plotting import plot_telemetry, plot_training
from intnet.telemetry import Reading
from intnet.training import Epoch

HISTORY = [Epoch(1, 2.0, 0.3, 0.35, 1.0), Epoch(2, 0.5, 0.8, 0.75, 1.0), Epoch(3, 0.1, 0.95, 0.9, 1.0)]
WEIGHT = Reading(1, "dense1.weight", "weight", 16, 14, -300, 250, 10, 0, 0, 40, 100)


def draw(figure):
    """Draw a figure in earnest: warnings of the layout are errors."""
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


def maps(figure):
    """Return the meshes of the two maps: what did not fit, what was lost."""
    meshes = [[one for one in ax.collections if isinstance(one, QuadMesh)] for ax in figure.axes[1:3]]
    return [mesh for (mesh,) in meshes]


def words(figure):
    """Return the bars over powers of two: (left, width) by row, for whole words, any epoch, last epoch."""
    return [[(bar.get_x(), bar.get_width()) for bar in container] for container in figure.axes[0].containers]


def labels(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


# 1. How it learned


def test_the_curves_are_the_history():
    figure = draw(plot_training(HISTORY, title="digits, mlp", unit="nats"))
    left, right = figure.axes
    assert_array_equal(left.lines[0].get_xydata(), [(1, 2.0), (2, 0.5), (3, 0.1)])
    assert left.get_yscale() == "log"
    assert left.get_ylabel() == "training loss (nats)"
    assert_array_equal(right.lines[0].get_ydata(), [0.3, 0.8, 0.95])
    assert_array_equal(right.lines[1].get_ydata(), [0.35, 0.75, 0.9])
    legend = [text.get_text() for text in right.get_legend().get_texts()]
    assert legend == ["training, as they came: 95.00%", "test: 90.00%"]
    assert figure.get_suptitle() == "digits, mlp"


def test_without_a_test_set_and_with_one_epoch():
    figure = draw(plot_training([replace(HISTORY[0], test_accuracy=None)]))
    assert len(figure.axes[1].lines) == 1


def test_death_is_told():
    assert "ended early: the network" in draw(plot_training(HISTORY, died="the network has died")).get_supxlabel()
    assert draw(plot_training(HISTORY)).get_supxlabel() == ""


def test_a_loss_of_zero_needs_a_linear_axis():
    assert draw(plot_training([*HISTORY, Epoch(4, 0.0, 1.0, 1.0, 1.0)])).axes[0].get_yscale() == "linear"


# 2. What became of its numbers


def test_words_lie_where_their_bits_are():
    readings = [WEIGHT, replace(WEIGHT, epoch=2, bits_used=9), replace(WEIGHT, role="error", word_bits=12, fraction_bits=5)]
    figure = draw(plot_telemetry(readings))
    assert labels(figure) == ["dense1.weight  weight", "dense1.weight  error"]
    word, ever, last = words(figure)
    assert word == [(-14, 16), (-5, 12)]
    assert ever == [(-14, 10), (-5, 10)]
    assert last == [(-14, 9), (-5, 10)]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["9/16", "10/12"]


def test_the_maps_are_the_shares():
    readings = [
        replace(WEIGHT, epoch=epoch, saturated=saturated, wrapped=wrapped, lost=lost)
        for epoch, saturated, wrapped, lost in ((1, 0, 0, 40), (2, 3, 2, 0), (3, 0, 0, 90))
    ]
    left, lost = maps(draw(plot_telemetry(readings)))
    assert isinstance(left.norm, LogNorm)
    assert_allclose(left.get_array().filled(-1), [[-1, 0.05, -1]])
    assert_allclose(lost.get_array().filled(-1), [[0.4, -1, 0.9]])
    assert (lost.norm.vmin, lost.norm.vmax) == (0, 1)


def test_nothing_lost_is_said():
    figure = draw(plot_telemetry([replace(WEIGHT, lost=0)]))
    assert [[text.get_text() for text in ax.texts] for ax in figure.axes[1:3]] == [["none"], ["none"]]


def test_roles_come_in_their_order_and_accumulators_only_when_something_left_them():
    sums = replace(WEIGHT, tensor="dense1", role="accumulator", fraction_bits=None, minimum=None, maximum=None, bits_used=None)
    others = [replace(WEIGHT, role=role) for role in ("error", "activation", "gradient", "weight")]
    assert labels(plot_telemetry([sums, *others])) == [
        f"dense1.weight  {role}" for role in ("weight", "gradient", "activation", "error")
    ]
    assert labels(draw(plot_telemetry([*others, replace(sums, wrapped=1)])))[-1] == "dense1  accumulator"


def test_a_tensor_that_was_not_always_written():
    readings = [replace(WEIGHT, epoch=epoch) for epoch in (1, 2)] + [replace(WEIGHT, epoch=2, role="momentum")]
    _, lost = maps(draw(plot_telemetry(readings)))
    assert_allclose(lost.get_array().filled(-1), [[0.4, 0.4], [-1, 0.4]])


@pytest.mark.parametrize("layers", [3, 20, 60, 200])
def test_any_depth_fits_into_a_picture(layers):
    readings = [
        replace(WEIGHT, epoch=epoch, tensor=f"residual{layer // 4}/body/conv{layer % 4}.{name}", role=role, lost=layer % 100)
        for epoch in (1, 2)
        for layer in range(layers)
        for name in ("weight", "bias")
        for role in ("weight", "gradient", "momentum")
    ]
    figure = draw(plot_telemetry(readings, title="deep"))
    assert len(labels(figure)) <= 140
    assert figure.get_size_inches()[1] < 22
    assert ("merged" in figure.get_suptitle()) == (layers * 6 > 140)
    _, lost = maps(figure)
    assert_allclose(lost.get_array().max(), min(layers - 1, 99) / 100)  # the worst is shown however rows are merged
    size = figure.axes[0].get_yticklabels()[0].get_fontsize()
    rows = len(labels(figure))
    height = figure.axes[0].get_position().height * figure.get_size_inches()[1] * 72 / rows
    assert size <= height + 1.5  # labels do not run into each other


@pytest.mark.parametrize("draw_nothing", [plot_training, plot_telemetry])
def test_nothing_to_draw_is_refused(draw_nothing):
    with pytest.raises(InputError, match="train"):
        draw_nothing([])


def test_shares_are_written_shortly():
    counts = {999: "100%", 500: "50%", 20: "2.0%", 1: "0.1%"}
    for lost, text in counts.items():
        figure = plot_telemetry([replace(WEIGHT, lost=lost, count=1000)])
        assert figure.axes[2].texts[0].get_text().strip() == text
    assert np.isfinite(figure.get_size_inches()).all()
