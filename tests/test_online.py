"""The trainer of a grid: the same bits for any number of threads and any grouping, and clear refusals."""

import naive
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.errors import InputError
from intnet.jobs import available_cores
from intnet.online import Cell, OnlineProblem, train_cells

GRID = [Cell(seed, lr, f) for seed in (0, 3) for lr in (0, 3, 7, 12) for f in (0, 4, 9, 31)]


def make_problem(seed, *, code_type=np.uint8, inputs=6, classes=3):
    random = np.random.default_rng(seed)
    values = np.array([-1.0, -0.25, 0.0, 0.4, 1.0])
    return OnlineProblem(
        codes=random.integers(0, len(values), (11, inputs)).astype(code_type),
        values=values,
        labels=random.integers(0, classes, 11),
        weights=random.integers(-300, 300, (classes, inputs)),
    )


def train(cells, iterations=40, problem_of_seed=make_problem, **options):
    return {r.cell: r for results in train_cells(problem_of_seed, cells, iterations, **options) for r in results}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for cell in a:
        assert_array_equal(a[cell].hits, b[cell].hits, strict=True)
        assert_array_equal(a[cell].weights, b[cell].weights, strict=True)
        for name in ("sum_abs_update", "sum_abs_error", "lost_updates", "floored_to_minus_one", "wraps"):
            assert getattr(a[cell], name) == getattr(b[cell], name)


def test_every_cell_equals_naive():
    results = train(GRID)
    assert set(results) == set(GRID)
    for cell, result in results.items():
        problem = make_problem(cell.seed)
        levels = np.rint(problem.values * 2.0**cell.fraction_bits).astype(np.int64)
        ref = naive.train_cell(levels[problem.codes], problem.labels, problem.weights, cell.fraction_bits, cell.lr_shift, 40)
        assert result.hits.tolist() == ref["hits"]
        assert result.weights.tolist() == ref["weights"]
        assert result.sum_abs_update == ref["update"]
        assert result.sum_abs_error == ref["error"]
        assert (result.lost_updates, result.floored_to_minus_one, result.wraps) == (ref["lost"], ref["floored"], ref["wraps"])
        assert result.mean_abs_update == ref["update"] / (40 * 18)
        assert result.mean_abs_error_scaled == ref["error"] * 2**cell.fraction_bits / (40 * 18)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_pieces_do_not_change_a_bit(threads):
    whole = train(GRID)
    assert_same(train(GRID, threads=threads), whole)
    pieces = {}
    for cell in reversed(GRID):
        pieces |= train([cell], threads=threads)
    assert_same(dict(sorted(pieces.items())), dict(sorted(whole.items())))


def test_long_trainings_come_in_chunks(monkeypatch):
    whole = train(GRID[:8])
    monkeypatch.setattr("intnet.online._CHUNK", 7)
    assert_same(train(GRID[:8]), whole)


@pytest.mark.parametrize("code_type", [np.uint16, np.uint32, ">u2"])
def test_wider_codes_are_the_same(code_type):
    wide = train(GRID[:6], problem_of_seed=lambda seed: make_problem(seed, code_type=code_type))
    assert_same(wide, train(GRID[:6]))


def test_no_cells_no_results():
    assert train([]) == {}


def test_the_initial_weights_are_left_alone():
    problem = make_problem(0)
    before = problem.weights.copy()
    train(GRID[:4], problem_of_seed=lambda _: problem)
    assert_array_equal(problem.weights, before)


def test_closing_the_iterator_stops_the_threads():
    running = train_cells(make_problem, GRID, 100_000, threads=2)
    next(running)
    running.close()
    assert next(running, None) is None


def test_an_error_in_a_problem_reaches_the_caller():
    def broken(seed):
        raise InputError(f"no data for seed {seed}")

    with pytest.raises(InputError, match="no data for seed 0"):
        train(GRID, problem_of_seed=broken)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Cell(0, 5, -1), "fraction bits must be in 0..31, got -1"),
        (Cell(0, 5, 32), "fraction bits must be in 0..31, got 32"),
        (Cell(0, -1, 8), "must not be negative, got -1"),
        (Cell(0, 40, 23), "at most 62, got 23 [+] 40 = 63"),
    ],
)
def test_cells_out_of_range_are_refused(cell, message):
    with pytest.raises(InputError, match=message):
        train_cells(make_problem, [Cell(0, 5, 8), cell], 10)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_numpy_integers_are_as_good_as_pythons(kind):
    """Else the means would be computed in words that wrap."""
    cells = [Cell(0, 12, 31), Cell(0, 7, 9)]
    numpys = train([Cell(*(kind(value) for value in cell)) for cell in cells], iterations=np.int32(40), threads=kind(2))
    for cell, result in train(cells).items():
        assert numpys[cell].mean_abs_error_scaled == result.mean_abs_error_scaled > 0
        assert all(type(value) is int for value in numpys[cell].cell)


@pytest.mark.parametrize("cell", [Cell(0, 9.9, 16), Cell(0, "9", 16), (1, 2), None, Cell(0, np.uint8(225), np.uint8(31))])
def test_what_is_no_cell_is_refused(cell):
    with pytest.raises(InputError, match="must be"):
        train_cells(make_problem, [cell], 10)


@pytest.mark.parametrize(
    "options",
    [{"iterations": 10.0}, {"iterations": "10"}, {"threads": 1.5}, {"iterations": 0}, {"iterations": 2**31}, {"threads": 0}],
)
def test_counts_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="must be"):
        train(GRID[:1], **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.zeros((11, 6), np.int64)}, "unsigned integers"),
        ({"codes": np.zeros(6, np.uint8)}, "samples, inputs"),
        ({"codes": np.zeros((0, 6), np.uint8)}, "non-empty"),
        ({"codes": np.full((11, 6), 5, np.uint8)}, "below the number of values, 5, got 5"),
        ({"weights": np.zeros((3, 5), np.int64)}, r"shape \(classes, 6\)"),
        ({"weights": np.zeros((3, 6))}, "must be int64"),
        ({"labels": np.full(11, 3)}, r"integers in 0\.\.2"),
        ({"labels": np.zeros(10, int)}, "must be 11 integers"),
        ({"labels": np.zeros(11)}, "integers"),
        ({"weights": np.zeros((0, 6), np.int64)}, "must be int64 of shape"),
        ({"values": np.zeros((2, 2))}, "one dimension"),
        ({"values": np.zeros(5, complex)}, "real numbers"),
        ({"values": ["a"] * 5}, "real numbers"),
    ],
)
def test_problems_that_do_not_fit_are_refused(change, message):
    problem = make_problem(0)
    parts = {name: getattr(problem, name) for name in ("codes", "values", "labels", "weights")}
    with pytest.raises(InputError, match=message):
        OnlineProblem(**{**parts, **change})


def test_at_least_one_core():
    assert available_cores() >= 1
