"""The trainer of a grid on a GPU: what it gives on the CPU, copied there and back a few times, and clear refusals."""

import dataclasses
from itertools import chain

import cuda_simulator
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.datasets import Dataset
from intnet.errors import DeviceError, InputError
from intnet.kernels import plain
from intnet.kernels.cuda import _driver, online
from intnet.online import Cell, CellResult, OnlineProblem, train_cells
from intnet.studies import cliffs
from intnet.sweeps import GridSpec, GridStore

needs_gpu = pytest.mark.skipif(_driver.problem() is not None, reason=str(_driver.problem()))
if _driver.SIMULATED:
    cuda_simulator.mend()

GRID = [Cell(seed, lr, f) for seed in (0, 3) for lr in (0, 7) for f in (0, 4, 31)]
SAMPLES, ITERATIONS = 5, 8


def make_problem(seed):
    """Make a problem whose cells of 31 fraction bits need wide words, and of seed 3 all cells; most of those overflow int64."""
    random = np.random.default_rng(seed)
    values = np.array([-1.0, -0.25, 0.0, 0.4, 1.0])
    size = 2**62 if seed else 300
    return OnlineProblem(
        codes=random.integers(0, len(values), (SAMPLES, 4)).astype(np.uint8),
        values=values,
        labels=random.integers(0, 2, SAMPLES),
        weights=random.integers(-size, size, (2, 4)),
    )


def train_on_cpu(cells=GRID):
    return list(chain.from_iterable(train_cells(make_problem, cells, ITERATIONS)))


def train_on_gpu(cells=GRID, problem_of_seed=make_problem):
    """Return the results, a list a launch."""
    return list(on_gpu(train_cells, problem_of_seed, cells, ITERATIONS))


def on_gpu(function, *arguments, **options):
    if not _driver.SIMULATED:
        return function(*arguments, device="gpu", **options)
    with pytest.warns(RuntimeWarning, match="the GPU is simulated"):
        return function(*arguments, device="gpu", **options)


def assert_same(ours, theirs):
    """Check every output, types included."""
    ours, theirs = ({result.cell: result for result in results} for results in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for cell, result in ours.items():
        for field in dataclasses.fields(CellResult):
            one, other = (getattr(each, field.name) for each in (result, theirs[cell]))
            assert type(one) is type(other)
            assert_array_equal(one, other, strict=True)


@pytest.fixture
def launched(monkeypatch):
    """Return how many cells every launch has, and how many of them wide words are left to."""
    seen, wide = [], online._train_wide

    class Watched:
        def at(self, blocks, threads, *arguments):
            seen.append((blocks, int((_driver.to_host(arguments[-1]) == 0).sum())))
            wide.at(blocks, threads, *arguments)

    monkeypatch.setattr(online, "_train_wide", Watched())
    return seen


# 1. The same bits ---------------------------------------------------------------------------------------------------------


@needs_gpu
def test_every_output_equals_the_cpus(launched):
    expected = train_on_cpu()
    ours = train_on_gpu()
    assert_same(chain.from_iterable(ours), expected)
    assert [[result.cell.seed for result in results] for results in ours] == [[0] * 6, [3] * 6]
    assert launched == [(6, 2), (6, 6)]
    assert not any(result.wraps for result in expected if result.cell.seed == 0 and result.cell.fraction_bits < 31)
    assert {result.cell.fraction_bits for result in expected if result.cell.seed == 3 and result.wraps} >= {4, 31}


@needs_gpu
def test_pieces_do_not_change_a_bit(launched, monkeypatch):
    cells = GRID[:6]
    monkeypatch.setattr("intnet.online._LAUNCH_BYTES", 4 * (ITERATIONS + 8 * (8 + plain.TOTALS + 3)) + 7)
    monkeypatch.setattr("intnet.online._CHUNK", 5)
    ours = train_on_gpu(cells[::-1])
    assert_same(chain.from_iterable(ours), train_on_cpu(cells))
    assert [len(results) for results in ours] == [4, 2]
    assert [blocks for blocks, _ in launched] == [4, 4, 2, 2]


@needs_gpu
def test_a_cell_larger_than_a_launch_may_be_is_trained_alone(launched, monkeypatch):
    monkeypatch.setattr("intnet.online._LAUNCH_BYTES", 1)
    assert_same(chain.from_iterable(train_on_gpu(GRID[:2])), train_on_cpu(GRID[:2]))
    assert [blocks for blocks, _ in launched] == [1, 1]


@needs_gpu
def test_what_crosses_does_not_grow_with_the_cells():
    def count(cells):
        before = dataclasses.replace(_driver.transfers)
        train_on_gpu(cells)
        now = _driver.transfers
        return now.to_device - before.to_device, now.to_host - before.to_host

    few, many = GRID[2:3], [Cell(0, lr, 4) for lr in range(4)] + GRID[:2]
    assert count(few) == count(many)
    assert count(few) <= (10, 3)
    # The samples of a seed cross once, whatever the number of launches.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("intnet.online._LAUNCH_BYTES", 1)
        assert count(few * 2) <= (4 + 2 * 6, 2 * 3)


@needs_gpu
def test_errors_reach_the_caller():
    def broken(seed):
        raise InputError(f"no data for seed {seed}")

    def too_large(seed):
        return dataclasses.replace(make_problem(seed), values=np.array([0.0, 1.0, 2.0, 3.0, 2.0**33]))

    with pytest.raises(InputError, match="no data for seed 0"):
        train_on_gpu(problem_of_seed=broken)
    with pytest.raises(InputError, match="for 31 fraction bits"):
        train_on_gpu(problem_of_seed=too_large)
    assert train_on_gpu([]) == []


@needs_gpu
def test_a_grid_begun_on_the_cpu_is_continued_on_the_gpu(tmp_path, monkeypatch):
    for module in ("sweeps.specification", "sweeps.protocol"):  # so that a few iterations are enough
        monkeypatch.setattr(f"intnet.{module}.ACCURACY_WINDOW", 11)
    random = np.random.default_rng(0)
    codes = random.integers(0, 3, (9, 2)).astype(np.uint8)
    data = Dataset("digits", codes, np.array([0.0, 0.5, 1.0]), random.integers(0, 2, 9).astype(np.uint8), 2, (1, 2))
    begin, whole = (GridSpec("digits", lr_shifts, (4,), (0, 1), 12) for lr_shifts in ((3,), (3, 5)))
    with GridStore(tmp_path / "cpu", whole.study()) as store:
        assert cliffs.run_grid(whole, store, lambda: data) == 4
        expected = store.rows()
    with GridStore(tmp_path / "both", whole.study()) as store:
        assert cliffs.run_grid(begin, store, lambda: data) == 2
        told = []
        assert on_gpu(cliffs.run_grid, whole, store, lambda: data, progress=told.append) == 2
        assert told == [1, 1]
        assert store.rows() == expected


# 2. Without a GPU ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(_driver, "problem", lambda: "no GPU can be used: none is there")


@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_that_is_not_there_is_refused_at_once():
    with pytest.raises(DeviceError, match="no GPU can be used: none is there"):
        train_cells(lambda _: pytest.fail("made for nothing"), GRID, ITERATIONS, device="gpu")


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_then_the_cpu():
    ours = train_cells(make_problem, GRID, ITERATIONS, device="auto")
    assert_same(chain.from_iterable(ours), train_on_cpu())


@pytest.mark.parametrize("device", ["cuda", "GPU", 0, None])
def test_other_devices_are_refused(device):
    with pytest.raises(InputError, match=f"device must be one of cpu, gpu, auto, got {device!r}"):
        train_cells(make_problem, GRID, ITERATIONS, device=device)


@pytest.mark.usefixtures("no_gpu")
def test_a_refused_grid_stores_nothing(tmp_path):
    spec = GridSpec("digits", (9,), (12,), (0,), 1001)
    data = Dataset("digits", np.ones((3, 2), np.uint8), np.array([0.0, 1.0]), np.zeros(3, np.uint8), 2, (1, 2))
    with GridStore(tmp_path, spec.study()) as store:
        with pytest.raises(DeviceError, match="none is there"):
            cliffs.run_grid(spec, store, lambda: data, device="gpu")
        assert store.note("data") is None
        assert store.count() == 0
