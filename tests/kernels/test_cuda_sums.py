"""The GPU's sums, extremes, combinations and bounds: the numbers of the plain kernels, for any launch shape."""

import itertools

import numpy as np
import pytest
from cuda_twins import run

from intnet.arithmetic import scale
from intnet.kernels import plain
from intnet.kernels.cuda import _driver, bounds, combine, reduce
from intnet.kernels.requantization import SATURATE, WRAP, word_of

pytestmark = pytest.mark.skipif(
    not _driver.SIMULATED and _driver.problem() is not None, reason="needs a GPU, or NUMBA_ENABLE_CUDASIM=1"
)

LAUNCHES = [(1, 1), (2, 3), (3, 2)]
KINDS = (np.int8, np.int16, np.int32, np.int64)


@pytest.fixture(params=LAUNCHES, ids=str)
def launch(request):
    with _driver.launches(*request.param):
        yield request.param


def some(shape, kind, seed=3):
    """Return random integers of every magnitude, with both ends of their type."""
    info, draw = np.iinfo(kind), np.random.default_rng(seed)
    size = int(np.prod(shape))
    drawn = draw.integers(info.min, info.max, size, kind, endpoint=True) >> draw.integers(0, info.bits, size)
    drawn = drawn.astype(kind)
    if size > 2:
        drawn[draw.permutation(size)[:2]] = info.min, info.max
    return drawn.reshape(shape)


def small(shape, kind, seed=3):
    """Return integers of up to 30 bits, so that sums of them and of their squares fit."""
    values = some(shape, kind, seed)
    return values >> 34 if kind is np.int64 else values >> 2 if kind is np.int32 else values


# 1. Reductions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_extremes(kind, launch):  # noqa: ARG001
    for size in (1, 2, 7, 31):
        values = some(size, kind, size)
        assert run(reduce.extremes, values) == tuple(plain.extremes(values))
    assert run(reduce.extremes, np.full(3, 5, kind)) == (5, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_sum_axis(kind, launch):  # noqa: ARG001
    for outer, size, inner in ((1, 5, 1), (2, 3, 4), (1, 37, 2), (3, 1, 3), (1, 300, 1), (2, 0, 2), (0, 4, 1), (2, 3, 0)):
        x = small(outer * size * inner, kind)
        refs, comps = np.full((2, outer, inner), 9, np.int64)
        plain.sum_axis(x, np.int64(size), refs)
        run(reduce.sum_axis, x, size, comps)
        np.testing.assert_array_equal(refs, comps)


def test_parts_of_a_row_meet(monkeypatch):
    monkeypatch.setattr(reduce, "_PART", 130)
    x, out = small(600, np.int16), np.full((2, 1), 9, np.int64)
    run(reduce.sum_axis, x, 300, out)
    np.testing.assert_array_equal(out[:, 0], x.reshape(2, 300).sum(1, dtype=np.int64))


def test_words(launch):  # noqa: ARG001
    values = some(13, np.int64)
    refs, comps = np.empty((2, 2, 13), np.int64)
    plain.split_words(values, *refs)
    run(reduce.split_words, values, *comps)
    np.testing.assert_array_equal(refs, comps)
    high, low = refs * np.array([[5], [2**20]]), np.empty((2, 13), np.int64)
    left = run(reduce.join_sums, high[0], high[1], low[1])
    assert left == plain.join_sums(high[0], high[1], low[0]) > 0
    np.testing.assert_array_equal(*low)
    assert run(reduce.join_sums, *np.zeros((3, 0), np.int64)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_moments(kind, launch):  # noqa: ARG001
    for rows, columns in ((1, 1), (5, 3), (33, 2), (0, 2), (2, 0)):
        x = small((rows, columns), kind)
        refs, comps = np.full((2, 2, columns), 9, np.int64)
        plain.moments(x, *refs)
        run(reduce.moments, x, *comps)
        np.testing.assert_array_equal(refs, comps)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_moments_by_words(kind, launch):  # noqa: ARG001
    for rows, columns in ((5, 3), (33, 2), (0, 2)):
        x = some((rows, columns), kind)
        refs, comps = np.full((2, 2, columns), 9, np.int64)
        left = run(reduce.moments_by_words, x, *comps)
        assert left == plain.moments_by_words(x, *refs)
        np.testing.assert_array_equal(refs, comps)
    assert left == 0
    assert run(reduce.moments_by_words, np.full((3, 1), 2**62), *np.empty((2, 1), np.int64)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_argmax_rows(kind, launch):  # noqa: ARG001
    for x in (some((7, 5), kind), np.zeros((3, 4), kind), some((4, 1), kind), np.zeros((0, 3), kind)):
        refs, comps = np.full((2, len(x)), 9, np.int64)
        plain.argmax_rows(x, refs)
        run(reduce.argmax_rows, x, comps)
        np.testing.assert_array_equal(refs, comps)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds(kind, launch, monkeypatch):  # noqa: ARG001
    for rows, columns in ((1, 1), (5, 3), (3, 40), (1, 300)):
        x = some(rows * columns, kind) if kind is not np.int64 else some(rows * columns, kind) >> 10
        assert run(bounds.largest_row_sum, x, rows) == plain.largest_row_sum(x, np.int64(rows))
        np.testing.assert_array_equal(run(bounds.sums_of_columns, x, columns), plain.sums_of_columns(x, np.int64(columns)))
    monkeypatch.setattr(bounds, "_FEW", 2)
    assert run(bounds.largest_row_sum, x[:12], 4) == plain.largest_row_sum(x[:12], np.int64(4))


# 2. Combinations ---------------------------------------------------------------------------------------------------------


def check_combination(terms, kind, length, start=0, stop=None, host=False):
    size = terms[0][0].size
    none = (np.zeros(0, np.uint8), 1, 0, np.zeros(1, np.int64))
    arguments, twins = [], []
    for values, factor, shifts in terms:
        shifts = np.array(shifts, np.int64).reshape(-1)
        arguments += [values.view(np.uint8), np.int64(values.itemsize), np.int64(factor), shifts]
        twins += [values.view(np.uint8), values.itemsize, factor, shifts]
    for _ in range(3 - len(terms)):
        arguments, twins = [*arguments, *none], [*twins, None, 1, 0, None]
    outs, span = np.full((2, size), 77, kind), (np.int64(start), np.int64(size if stop is None else stop))
    plain.linear_combination(np.int64(len(terms)), *span, *arguments, np.int64(length), outs[0])
    if host:
        given = [_driver.to_device(one) if isinstance(one, np.ndarray) and one.dtype == np.uint8 else one for one in twins]
        there = _driver.to_device(outs[1])
        combine.linear_combination(len(terms), *span, *given, length, there)
        outs[1] = _driver.to_host(there)
    else:
        run(combine.linear_combination, len(terms), *span, *twins, length, outs[1])
    np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_linear_combination(kind, launch):  # noqa: ARG001
    a, b, c = some(18, np.int8, 1), some(18, np.int16, 2), some(18, np.int8, 4)
    check_combination([(a, 1, 0)], kind, 18)
    check_combination([(a, 3, 2), (b, -5, -1)], kind, 18, 3, 17)
    check_combination([(a, 1, 0), (b, 7, [-3, 0, 4]), (c, -2, [-40, 1, 63 if kind is None else 20])], kind, 6, 1, 18)
    check_combination([(a, 1, [-1] * 18), (c, 0, 63)], kind, 1)
    check_combination([(a, 1, 0), (b, 1, [2, -2])], kind, 9, host=True)


@pytest.mark.parametrize("shift", [-200, -64, -63, -33, -32, -31, -30, -1, 0, 1, 24, 31, 40, 63, 90])
def test_scaling_in_32_bits(shift):
    for value, factor in itertools.product((-(2**31), 1 - 2**31, -128, -3, -1, 0, 1, 2, 127, 2**31 - 1), (-3, -1, 0, 1, 128)):
        left, right = min(max(shift, 0), 63), min(max(-shift, 0), 63)
        if -(2**31) <= value * factor * 2**left < 2**31:
            ref = scale(np.int64(value), np.int64(factor), np.int64(left), np.int64(right))
            assert combine.scale_narrow(np.int64(value), np.int64(factor), np.int64(shift)) == ref
            assert combine.scale_wide(np.int64(value), np.int64(factor), np.int64(shift)) == ref


def test_combination_of_wide_numbers():
    a, b = some(8, np.int64) >> 3, some(8, np.int32)
    check_combination([(a, 1, -1), (b, 2**20, [-1, 3])], np.int64, 4)


# 3. Biases ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_add_bias(kind, launch):  # noqa: ARG001
    bits = 8 * np.dtype(kind).itemsize - (kind is np.int64)
    for (rows, channels), overflow in itertools.product(((5, 3), (2, 7), (1, 1)), (WRAP, SATURATE)):
        word = word_of(bits, True, overflow)
        sums = np.clip(some(rows * channels, kind), word[1], word[2])
        for bias in (some(channels, np.int32).astype(np.int64), some(channels, np.int64) >> 2):
            bias[0] = min(bias[0], 2**62 - 1)
            refs, comps = sums.copy(), sums.copy()
            left = run(combine.add_bias, comps, bias, *word, 1)
            assert left == plain.add_bias(refs, bias, *word, np.int64(1)) >= 0
            np.testing.assert_array_equal(refs, comps)


@pytest.mark.parametrize("large", [2**62, -(2**63), -(2**62)])
def test_add_bias_refuses_what_might_leave_int64(large):
    sums, bias, word = np.array([1, 2, 3, 4], np.int32), np.array([5, large]), word_of(32, True, WRAP)
    assert run(combine.add_bias, sums, bias, *word, 1) == plain.add_bias(sums.copy(), bias, *word, np.int64(1)) == -1
    assert sums.tolist() == [1, 2, 3, 4]
    assert run(combine.add_bias, sums[:0], bias, *word, 1) == 0


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_add_bias_any(kind, launch):  # noqa: ARG001
    bits = 8 * np.dtype(kind).itemsize
    for (groups, rows, channels), saturates in itertools.product(((1, 5, 3), (3, 2, 2), (2, 1, 4)), (False, True)):
        word = word_of(bits, True, SATURATE)
        bias, refs = some((groups, channels), np.int64), some((groups * rows, channels), kind)
        comps = refs.copy()
        rest = np.int64(rows), word[1], word[2], np.int64(bits), saturates
        left = run(combine.add_bias_any, comps, bias, *rest)
        assert left == plain.add_bias_any(refs, bias, *rest)
        np.testing.assert_array_equal(refs, comps)
    assert run(combine.add_bias_any, refs[:0], bias, *rest) == 0
