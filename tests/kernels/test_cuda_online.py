"""The online trainer on a GPU equals the plain one, whether a cell fits in narrow words or not."""

import cuda_simulator
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.kernels import plain
from intnet.kernels.cuda import _driver, online

pytestmark = pytest.mark.skipif(_driver.problem() is not None, reason=str(_driver.problem()))
if _driver.SIMULATED:
    cuda_simulator.mend()

MAX = 2**63 - 1


def make_group(seed, *, classes=3, inputs=5, samples=7, levels=(0, 1, 5, 16), f=4, lr_shifts=(0, 3), size=40):
    """Return the arguments of `train_online` up to the first iteration, and the weights."""
    random = np.random.default_rng(seed)
    levels = np.array(levels, np.int64)
    codes = random.integers(0, len(levels), (samples, inputs)).astype(np.uint8)
    starts = np.concatenate([[0], np.cumsum((codes != 0).sum(axis=1))]).astype(np.int64)
    columns, packed = np.nonzero(codes)[1].astype(np.uint32), codes[codes != 0].astype(np.uint32)
    labels = random.integers(0, classes, samples).astype(np.int64)
    weights = random.integers(-size, size, (len(lr_shifts), classes, inputs), endpoint=True)
    return [starts, columns, packed, labels, levels, np.int64(f), np.array(lr_shifts, np.int64)], weights


def run_plain(data, weights, iterations, first=0):
    weights, totals = weights.copy(), np.zeros((len(weights), plain.TOTALS), np.int64)
    hits = np.zeros((len(weights), iterations), np.uint8)
    plain.train_online(*data, np.int64(first), weights, hits, totals)
    return hits, totals, weights


def run_cuda(data, weights, iterations, pieces=1, first=0, train=None):
    """Run in pieces: weights and totals stay on the device."""
    there = [_driver.to_device(one) if isinstance(one, np.ndarray) else one for one in data]
    weights = _driver.to_device(weights)
    totals = _driver.zeros((len(weights), plain.TOTALS), np.int64)
    hits = []
    for begin in range(0, iterations, -(-iterations // pieces)):
        piece = _driver.zeros((len(weights), min(-(-iterations // pieces), iterations - begin)), np.int8).view(np.uint8)
        (train or online.train_online)(*there, first + begin, weights, piece, totals)
        hits.append(_driver.to_host(piece))
    return np.concatenate(hits, axis=1), _driver.to_host(totals), _driver.to_host(weights)


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert_array_equal(a, b, strict=True)


@pytest.fixture
def finished(monkeypatch):
    """Return what `_train_narrow` says about every cell, call by call."""
    seen, wide = [], online._train_wide

    class Watched:
        def at(self, blocks, threads, *arguments):
            seen.append(_driver.to_host(arguments[-1]).tolist())
            wide.at(blocks, threads, *arguments)

    monkeypatch.setattr(online, "_train_wide", Watched())
    return seen


@pytest.mark.parametrize("levels", [(0, 1, 5, 16), (0, -16, -3, 7, 16)], ids=["inputs >= 0", "inputs of both signs"])
@pytest.mark.parametrize("seed", range(2))
def test_narrow_equals_plain(seed, levels, finished):
    data, weights = make_group(seed, levels=levels, f=4 + seed)
    expected = run_plain(data, weights, 12)
    assert_same(run_cuda(data, weights, 12), expected)
    assert finished == [[1, 1]]
    assert (expected[1][:, [plain.LOST, plain.FLOORED]] > 0).any(axis=0)[seed]


@pytest.mark.parametrize("levels", [(0, 1, 5, 16), (0, -16, -3, 7, 16)], ids=["inputs >= 0", "inputs of both signs"])
def test_wide_equals_plain(levels, finished, monkeypatch):
    monkeypatch.setattr(online, "WEIGHTS_MAX", 0)
    data, weights = make_group(3, levels=levels)
    assert_same(run_cuda(data, weights, 12), run_plain(data, weights, 12))
    assert finished == [[0, 0]]


@pytest.mark.parametrize(
    ("levels", "size", "f", "lr_shifts"),
    [
        ((0, 2**40, 3), 2**30, 3, (0, 5)),  # products leave int64
        ((0, 2**31, 1), 2**31, 0, (0, 31)),  # sums leave int64
        ((0, 2**20), MAX, 31, (0, 31)),  # weights at the end of the word
        ((0, -(2**62), 2**62, 1), MAX, 0, (0, 62)),  # everything at once
    ],
)
def test_wrapping_and_its_counts_equal_plain(levels, size, f, lr_shifts, finished):
    data, weights = make_group(0, levels=levels, size=size, f=f, lr_shifts=lr_shifts)
    expected = run_plain(data, weights, 10)
    assert_same(run_cuda(data, weights, 10), expected)
    assert (expected[1][:, plain.WRAPS] > 0).all()
    assert finished == [[0, 0]]


def test_cells_that_grow_too_large_are_given_up_and_the_others_not_disturbed(finished):
    # Inputs of both signs revive outputs that a rate of one has thrown far below zero, so that cell explodes.
    data, weights = make_group(1, levels=(0, -256, 256), f=8, inputs=16, lr_shifts=(9, 0), size=500)
    assert_same(run_cuda(data, weights, 60), run_plain(data, weights, 60))
    assert finished == [[1, 0]]


@pytest.mark.parametrize("level", [2**31 - 1, 2**31, -(2**31) + 1, -(2**31)])
def test_the_largest_inputs(level, finished):
    """Whatever the narrow kernel says it finished must be right, to the last input that fits in 32 bits."""
    data, weights = make_group(2, inputs=2, classes=2, samples=4, levels=(0, level, 1), f=30, lr_shifts=(0, 32), size=2)
    assert_same(run_cuda(data, weights, 10), run_plain(data, weights, 10))
    assert (finished == [[0, 0]]) == (abs(level) == 2**31)


@pytest.mark.parametrize(("classes", "warps"), [(1, 16), (3, 2), (5, 3)])
def test_outputs_in_turns(classes, warps, monkeypatch):
    monkeypatch.setattr(online, "WARPS_MAX", warps)
    data, weights = make_group(
        4, classes=classes, inputs=3, samples=4, levels=(0, 9, 16), size=0
    )  # all outputs are equal at first
    weights[1] = 5
    for most in (online.WEIGHTS_MAX, 0):
        monkeypatch.setattr(online, "WEIGHTS_MAX", most)
        assert_same(run_cuda(data, weights, 5), run_plain(data, weights, 5))


@pytest.mark.parametrize("window", [1, 3])
def test_windows_and_pieces(window, monkeypatch):
    monkeypatch.setattr(online, "WINDOW", window)
    data, weights = make_group(5, f=6, levels=(0, 9, 40, 64), size=60, lr_shifts=(2,), samples=4)
    assert_same(run_cuda(data, weights, 11, pieces=2, first=3), run_plain(data, weights, 11, first=3))


def test_samples_without_inputs():
    data, weights = make_group(6, levels=(0, 0, 0))
    assert_same(run_cuda(data, weights, 8), run_plain(data, weights, 8))
    data, weights = make_group(6, levels=(0,))
    assert_same(run_cuda(data, weights, 8), run_plain(data, weights, 8))


def test_many_levels(finished):
    data, weights = make_group(7, levels=(0, *range(1, 280)), f=8, lr_shifts=(8,))
    assert data[4].size > online.LEVELS_MAX
    assert_same(run_cuda(data, weights, 5), run_plain(data, weights, 5))
    assert finished == [[0]]


def test_nothing_to_do():
    data, weights = make_group(8)
    there = [_driver.to_device(one) if isinstance(one, np.ndarray) else one for one in data]
    for cells, iterations in ((0, 3), (2, 0)):
        group = *there[:6], _driver.empty(cells, np.int64), 0, _driver.to_device(weights[:cells])
        online.train_online(*group, _driver.empty((cells, iterations), np.uint8), _driver.empty((cells, 7), np.int64))


def test_kinds_of_cells_in_one_launch(finished):
    data, weights = make_group(9, lr_shifts=(0, 3, 2, 5))
    levels, bits, kinds = (
        np.array([(0, 1, 5, 16), (0, 4, 2**40, 64), (0, 0, 1, 2)]),
        np.array([4, 6, 1]),
        np.array([2, 0, 1, 0]),
    )
    many = [*data[:4], levels, bits, kinds, data[6]]
    ours = run_cuda(many, weights, 9, train=online.train_online_kinds)
    assert finished == [[1, 1, 0, 1]]
    for cell, kind in enumerate(kinds):
        one = [*data[:4], levels[kind], bits[kind], data[6][cell : cell + 1]]
        assert_same([part[cell : cell + 1] for part in ours], run_plain(one, weights[cell : cell + 1], 9))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint64])
@pytest.mark.parametrize("zero_code", [0, 2, -1])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2)])
def test_packing(kind, zero_code, shape):
    codes = np.random.default_rng(0).integers(0, 4, (5, 6)).astype(kind)
    counts = plain.count_nonzero(codes, zero_code)
    with _driver.launches(*shape):
        assert_array_equal(_driver.to_host(online.count_nonzero(_driver.to_device(codes), zero_code)), counts, strict=True)
        starts = np.cumsum(counts) - counts
        expected, ours = np.zeros((2, 2, counts.sum()), np.uint32)
        plain.pack_nonzero(codes, zero_code, starts, *expected)
        columns, packed = (_driver.to_device(one) for one in ours)
        online.pack_nonzero(_driver.to_device(codes), zero_code, _driver.to_device(starts), columns, packed)
        assert_array_equal([_driver.to_host(columns), _driver.to_host(packed)], expected)
