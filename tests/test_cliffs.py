"""The cliff study: the published accuracies, and how the cliffs are read."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import xarray
from scipy.signal import savgol_filter

from intnet.datasets import load_digits, load_mnist
from intnet.errors import StudyError
from intnet.online import Cell, train_cells
from intnet.studies import cliffs
from intnet.sweeps import GridSpec, GridStore

PUBLISHED = Path(__file__).parent / "data" / "published_digits_grid.csv"
SEEDED = (5, 8)  # the first cell published: it drew its samples' order before anything was seeded


def test_the_published_digits_grid():
    with PUBLISHED.open() as file:
        published = {(int(r["lr_shift"]), int(r["fraction_bits"])): float(r["accuracy"]) for r in csv.DictReader(file)}
    spec, data = GridSpec("digits"), load_digits()
    results = train_cells(lambda seed: cliffs.cliff_problem(data, seed, spec.iterations), spec.cells(), spec.iterations)
    ours = {r.cell[1:]: (cliffs.smoothed_accuracy(r.hits), r.wraps) for group in results for r in group}
    assert len(published) == len(ours) == 240
    different = [cell for cell in published if abs(published[cell] - ours[cell][0]) > 1e-12]
    assert different == [SEEDED]
    assert ours[SEEDED][0] == pytest.approx(0.0817, abs=5e-5)
    assert all(wraps == 0 for _, wraps in ours.values())


@pytest.mark.parametrize(
    ("lr_shift", "fraction_bits", "accuracy"),
    [(5, 8, 0.12), (8, 14, 0.77), (9, 18, 0.92), (10, 22, 0.93), (14, 18, 0.81), (19, 22, 0.56)],
)
def test_published_mnist_accuracies_to_two_digits(data_dir, lr_shift, fraction_bits, accuracy):
    data = load_mnist(data_dir, order="mldata")
    cells = [Cell(0, lr_shift, fraction_bits)]
    ((result,),) = train_cells(lambda seed: cliffs.cliff_problem(data, seed, 10_000), cells, 10_000)
    assert round(cliffs.smoothed_accuracy(result.hits), 2) == accuracy


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("length", [1001, 1500, 10_000])
def test_smoothed_accuracy_is_the_end_of_scipys_filter(share, length):
    hits = (np.random.default_rng(length).random(length) < share).astype(np.uint8)
    ref = savgol_filter(hits.astype(np.float64), 1001, 2, mode="mirror")[-1]
    assert cliffs.smoothed_accuracy(hits) == pytest.approx(ref, abs=3e-11)  # SciPy's own error depends on the processor


def test_smoothed_accuracy_is_near_the_exact_filter():
    hits = (np.random.default_rng(0).random(1001) < 0.7).astype(np.uint8)
    m, window = 500, hits[-501:].tolist()[::-1]
    weights = [3 * (3 * m * m + 3 * m - 1 - 5 * k * k) for k in range(m + 1)]
    exact = (weights[0] * window[0] + 2 * sum(w * h for w, h in zip(weights[1:], window[1:], strict=True))) / (
        (2 * m - 1) * (2 * m + 1) * (2 * m + 3)
    )
    assert cliffs.smoothed_accuracy(hits) == pytest.approx(exact, rel=1.3e-11)


def test_draws_of_a_seed():
    data = load_digits()
    random = np.random.RandomState(0xDEADBEEC + 2)
    weights = np.rint(random.normal(0, 500, (10, 64)))
    order = random.permutation(1797)[:1200]
    problem = cliffs.cliff_problem(data, 2, 1200)
    np.testing.assert_array_equal(problem.weights, weights)
    np.testing.assert_array_equal(problem.codes, data.codes[order])
    np.testing.assert_array_equal(problem.labels, data.labels[order])


# Reading ----------------------------------------------------------------------------------------------------------------


def make_grid(accuracy, lr_shifts, fraction_bits):
    accuracy = np.asarray(accuracy, np.float64)
    accuracy = accuracy.reshape(-1, len(lr_shifts), len(fraction_bits))
    coordinates = {"seed": np.arange(len(accuracy)), "lr_shift": lr_shifts, "fraction_bits": fraction_bits}
    return xarray.Dataset({"accuracy": (("seed", "lr_shift", "fraction_bits"), accuracy)}, coordinates)


def staircase(lr_shifts, fraction_bits, left, offset):
    """Rates above 2**-left reach 0.5; the others 1.0, from `lr_shift + offset` fraction bits on, else 0.1."""
    return [[0.5 if lr < left else (1.0 if f >= lr + offset else 0.1) for f in fraction_bits] for lr in lr_shifts]


def test_a_staircase_is_read_exactly():
    lr, bits = list(range(5, 16)), list(range(8, 21))
    read = cliffs.read_cliffs(make_grid(staircase(lr, bits, 8, 7), lr, bits))
    assert read["best"] == {"lr_shift": 8, "fraction_bits": 15, "accuracy": 1.0}
    assert read["left_cliff"] == {
        "lr_shift": 8,
        "plateau": 1.0,
        "plateau_above": 0.5,
        "mean_over_seeds": None,
        "interval": None,
    }
    assert [(p["lr_shift"], p["fraction_bits"]) for p in read["diagonal_cliff"]["points"]] == [(s, s + 7) for s in range(8, 14)]
    assert read["diagonal_cliff"]["bits_per_halving"] == 1.0
    assert read["diagonal_cliff"]["intercept"] == 7.0
    assert read["censored_lr_shifts"] == [14, 15]
    text = " ".join(cliffs.describe(read))
    for words in ("100.0% at a learning rate of 2^-8", "about 1.00 more fraction bits", "2^-14, 2^-15"):
        assert words in text


def test_seeds_give_intervals():
    lr, bits = list(range(5, 12)), list(range(8, 21))
    grids = [staircase(lr, bits, left, 7) for left in (7, 8, 9)]
    read = cliffs.read_cliffs(make_grid(grids, lr, bits))
    half = 4.302652729911275 / np.sqrt(3)  # Student's t, 2 degrees of freedom
    assert read["seeds"] == 3
    assert read["left_cliff"]["mean_over_seeds"] == 8
    assert read["left_cliff"]["interval"] == pytest.approx([8 - half, 8 + half])
    assert read["diagonal_cliff"]["interval"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("accuracy", "sentence"),
    [
        ([[0.9]], "already learns"),
        ([[0.0]], "not enough rates"),
        ([[-0.001]], "not enough rates"),
        ([[np.nan, 0.4], [np.nan, np.nan]], "already learns"),
    ],
)
def test_small_and_odd_grids_are_read(accuracy, sentence):
    rows, columns = np.shape(accuracy)
    read = cliffs.read_cliffs(make_grid(accuracy, list(range(rows)), list(range(columns))))
    assert sentence in " ".join(cliffs.describe(read))


def test_seeds_that_lack_cells_are_left_out():
    lr, bits = list(range(5, 12)), list(range(8, 21))
    whole, lucky = staircase(lr, bits, 8, 7), np.full((7, 13), np.nan)
    lucky[6, 12] = 0.9
    grid = make_grid([whole, lucky, lucky], lr, bits)
    kept = cliffs.whole_seeds(grid)
    assert kept.seed.values.tolist() == [0]
    assert cliffs.read_cliffs(kept) == cliffs.read_cliffs(make_grid(whole, lr, bits))
    pieces = make_grid([lucky, np.where(np.isnan(lucky), whole, np.nan)], lr, bits)
    assert cliffs.whole_seeds(pieces).seed.values.tolist() == [0, 1]  # no seed is whole


def test_a_grid_beyond_the_diagonal_says_so():
    lr, bits = list(range(5, 12)), list(range(20, 24))
    read = cliffs.read_cliffs(make_grid(staircase(lr, bits, 8, 7), lr, bits))
    assert read["diagonal_cliff"]["at_fewest_tried"] == 4
    assert "not in this grid; 20 fraction bits, the fewest tried, are enough" in " ".join(cliffs.describe(read))
    partly = list(range(16, 21))
    read = cliffs.read_cliffs(make_grid(staircase(lr, partly, 8, 7), lr, partly))
    assert read["diagonal_cliff"]["at_fewest_tried"] == 2
    assert "fewer may do" in " ".join(cliffs.describe(read))


# Running ----------------------------------------------------------------------------------------------------------------

SMALL = GridSpec("digits", (9, 10), (12, 13), (0,), 1001)


def test_a_grid_is_trained_once(tmp_path):
    stored = []
    with GridStore(tmp_path, SMALL.study()) as store:
        assert cliffs.run_grid(SMALL, store, load_digits, progress=stored.append) == sum(stored) == 4
        assert cliffs.run_grid(SMALL, store, lambda: pytest.fail("loaded for nothing")) == 0


def test_other_data_are_refused(tmp_path):
    import dataclasses

    digits = load_digits()
    labels = digits.labels[::-1].copy()
    with GridStore(tmp_path, SMALL.study()) as store:
        cliffs.run_grid(SMALL, store, lambda: digits)
        more = dataclasses.replace(SMALL, lr_shifts=(11,))
        with pytest.raises(StudyError, match="was made from other digits data"):
            cliffs.run_grid(more, store, lambda: dataclasses.replace(digits, labels=labels))
        assert store.count() == 4


def test_exports_follow_what_is_stored(tmp_path):
    with GridStore(tmp_path, SMALL.study()) as store:
        cliffs.run_grid(SMALL, store, load_digits)
        first = cliffs.export(store, plots=False)
        assert not (tmp_path / "cliffs.png").exists()
        written = (tmp_path / "grid.csv").stat().st_mtime_ns
        assert cliffs.export(store, plots=False) == first
        assert (tmp_path / "grid.csv").stat().st_mtime_ns == written
        (tmp_path / "cliffs.json").unlink()
        (tmp_path / "config.json").write_text("")
        assert cliffs.export(store) == first
        for name in (*cliffs.FILES, *cliffs.PICTURES):
            assert (tmp_path / name).stat().st_size > 0
        json.loads((tmp_path / "config.json").read_text())
