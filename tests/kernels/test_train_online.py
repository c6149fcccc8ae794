"""The online trainer's kernels: plain equals exact Python integers, vectors equal plain."""

import itertools

import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intnet import kernels
from intnet.kernels import plain, simd

compiled = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="vectors exist only in compiled code")
MAX = 2**63 - 1


def make_group(random, *, cells=1, classes=3, inputs=7, samples=9, levels=(0, 1, 5, 16), f=4, lr_shifts=None, size=40):
    """Return the arguments of `train_online` up to the weights, and the weights."""
    levels = np.array(levels, np.int64)
    codes = random.integers(0, len(levels), (samples, inputs)).astype(np.uint8)
    starts = np.concatenate([[0], np.cumsum((codes != 0).sum(axis=1))]).astype(np.int64)
    columns = np.nonzero(codes)[1].astype(np.uint32)
    labels = random.integers(0, classes, samples).astype(np.int64)
    lr_shifts = np.array(lr_shifts if lr_shifts is not None else random.integers(0, 6, cells), np.int64)
    weights = random.integers(-size, size, (len(lr_shifts), classes, inputs), endpoint=True)
    data = (starts, columns, codes[codes != 0].astype(np.uint32), labels, levels, np.int64(f), lr_shifts)
    return data, weights, levels[codes]


def run(train, data, weights, iterations, pieces=1, **extra):
    """Run a kernel on copies; return hits, totals and weights."""
    weights, totals = weights.copy(), np.zeros((len(weights), plain.TOTALS), np.int64)
    hits = []
    for first in range(0, iterations, -(-iterations // pieces)):
        piece = np.zeros((len(weights), min(-(-iterations // pieces), iterations - first)), np.uint8)
        train(*data, np.int64(first), weights, piece, totals, **extra)
        hits.append(piece)
    return np.concatenate(hits, axis=1), totals, weights


def assert_equals_naive(results, data, weights, inputs, iterations):
    hits, totals, trained = results
    labels, f, lr_shifts = data[3], int(data[5]), data[6]
    for cell, lr_shift in enumerate(lr_shifts.tolist()):
        ref = naive.train_cell(inputs, labels, weights[cell], f, lr_shift, iterations)
        assert hits[cell].tolist() == ref["hits"]
        assert trained[cell].tolist() == ref["weights"]
        total = totals[cell].tolist()
        assert total[0] * 2**32 + total[1] == ref["update"]
        assert total[2] * 2**32 + total[3] == ref["error"]
        assert total[4:] == [ref["lost"], ref["floored"], ref["wraps"]]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("levels", [(0, 1, 5, 16), (0, -16, -3, 7, 16)], ids=["inputs >= 0", "inputs of both signs"])
def test_plain_equals_naive(seed, levels):
    random = np.random.default_rng(seed)
    f, iterations = int(random.integers(0, 8)), 25
    data, weights, inputs = make_group(random, cells=2, levels=levels, f=f)
    assert_equals_naive(run(plain.train_online, data, weights, iterations), data, weights, inputs, iterations)


@pytest.mark.parametrize(
    ("levels", "size", "f", "lr_shifts"),
    [
        ((0, 2**40, 3), 2**30, 3, [0, 5]),  # products leave int64
        ((0, 2**31, 1), 2**31, 0, [0, 2, 31]),  # sums leave int64
        ((0, 2**20), MAX, 31, [0, 31]),  # weights at the end of the word
        ((0, -(2**62), 2**62, 1), MAX, 0, [0, 62]),  # everything at once
    ],
)
def test_wrapping_and_its_counts_equal_naive(levels, size, f, lr_shifts):
    data, weights, inputs = make_group(np.random.default_rng(0), levels=levels, size=size, f=f, lr_shifts=lr_shifts)
    for train in (plain.train_online, kernels.train_online):
        results = run(train, data, weights, 20)
        assert_equals_naive(results, data, weights, inputs, 20)
    assert (results[1][:, plain.WRAPS] > 0).all()


@given(st.data())
@settings(max_examples=60)
def test_any_small_group_equals_naive(data):
    draw = data.draw
    f = draw(st.integers(0, 31))
    levels = (0, *draw(st.lists(st.integers(-(2**34), 2**34), min_size=1, max_size=4)))
    lr_shifts = draw(st.lists(st.integers(0, 62 - f), min_size=1, max_size=3))
    size = 2 ** draw(st.integers(0, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    group, weights, inputs = make_group(random, inputs=3, samples=4, levels=levels, f=f, lr_shifts=lr_shifts, size=size)
    assert_equals_naive(run(kernels.train_online, group, weights, 6), group, weights, inputs, 6)


@compiled
@pytest.mark.parametrize(("classes", "cells"), list(itertools.product([1, 3, 10, 16, 17], [1, 2, 8, 15])))
def test_vectors_equal_plain(classes, cells):
    random = np.random.default_rng(classes * 100 + cells)
    levels = (0, *(np.sort(random.integers(-(2**12), 2**12, 9))))
    data, weights, _ = make_group(random, cells=cells, classes=classes, inputs=37, samples=53, levels=levels, f=12, size=500)
    data = (*data[:6], random.integers(4, 12, cells))
    finished = np.zeros(cells, np.uint8)
    fast = run(simd.train_online, data, weights, 200, finished=finished)
    assert finished.all()
    if classes * cells > 20:  # enough to have seen both
        assert fast[1][:, plain.LOST].sum() > 0
        assert fast[1][:, plain.FLOORED].sum() > 0
    assert_same(fast, run(plain.train_online, data, weights, 200))


@compiled
def test_cells_that_grow_too_large_are_given_up_and_the_others_not_disturbed():
    random = np.random.default_rng(1)
    # Inputs of both signs revive outputs that a rate of one has thrown far below zero, so those two cells explode.
    data, weights, _ = make_group(random, levels=(0, -256, 256), f=8, inputs=64, lr_shifts=[9, 0, 12, 0], size=500)
    finished = np.zeros(4, np.uint8)
    fast = run(simd.train_online, data, weights, 300, finished=finished)
    assert finished.tolist() == [1, 0, 1, 0]
    slow = run(plain.train_online, data, weights, 300)
    done = finished == 1
    assert_same([part[done] for part in fast], [part[done] for part in slow])
    assert (fast[2][~done] == weights[~done]).all()
    assert (fast[1][~done] == 0).all()
    assert_same(run(kernels.train_online, data, weights, 300), slow)


@compiled
@pytest.mark.parametrize("level", [2**31 - 1, 2**31, -(2**31) + 1, -(2**31), 2**62])
def test_vectors_decline_what_they_cannot_hold(level):
    """Whatever the fast kernel says it finished must be right, to the last input that fits in 32 bits."""
    random = np.random.default_rng(2)
    data, weights, _ = make_group(random, inputs=2, classes=2, levels=(0, level, 1), f=30, lr_shifts=[0, 5, 32], size=2)
    finished = np.zeros(3, np.uint8)
    fast, slow = run(simd.train_online, data, weights, 50, finished=finished), run(plain.train_online, data, weights, 50)
    assert_same([part[finished == 1] for part in fast], [part[finished == 1] for part in slow])
    assert_same(run(kernels.train_online, data, weights, 50), slow)


@pytest.mark.parametrize("pieces", [2, 7])
def test_in_pieces_as_in_one(pieces):
    data, weights, _ = make_group(np.random.default_rng(3), cells=3, f=6, levels=(0, 9, 40, 64), size=60)
    whole = run(kernels.train_online, data, weights, 40)
    assert_same(run(kernels.train_online, data, weights, 40, pieces=pieces), whole)


def test_a_sample_of_zeros_changes_nothing():
    data, weights, inputs = make_group(np.random.default_rng(4), levels=(0, 0, 0), lr_shifts=[1, 2])
    results = run(kernels.train_online, data, weights, 12)
    assert_equals_naive(results, data, weights, inputs, 12)
    assert (results[2] == weights).all()


def test_nonzero_inputs_are_listed_in_order():
    codes = np.array([[0, 3, 0, 1], [0, 0, 0, 0], [2, 2, 2, 2]], np.uint8)
    assert kernels.count_nonzero(codes, 0).tolist() == [2, 0, 4]
    assert kernels.count_nonzero(codes, -1).tolist() == [4, 4, 4]
    columns, packed = np.zeros(6, np.uint32), np.zeros(6, np.uint32)
    kernels.pack_nonzero(codes, 0, np.array([0, 2, 2, 6]), columns, packed)
    assert columns.tolist() == [1, 3, 0, 1, 2, 3]
    assert packed.tolist() == [3, 1, 2, 2, 2, 2]
