"""Batch normalization: within stated bounds of the formula in Fractions; the integers in between exactly."""

import itertools
from fractions import Fraction

import naive
import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.formats import Overflow, Rounding
from intnet.kernels import _parallel, normalization, requantization
from intnet.kernels.plain import normalize as plain

INT8, INT16, INT24 = (np.int8, 2**7), (np.int16, 2**15), (np.int32, 2**23)
EPSILON = 17


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(_parallel, "_threads", request.param)
    monkeypatch.setattr(normalization, "_PIECE", 1)


def channels_of(kind, limit, rows, seed=0):
    """Return columns of many sorts: wide, narrow, off centre, constant, with one outlier, at the edge of the word."""
    random = np.random.default_rng(seed)
    wide = random.integers(-limit, limit, (rows, 2))
    small = random.integers(-2, 3, (rows, 1))
    shifted = random.integers(-2, 3, (rows, 1)) + limit - 5
    constant = np.full((rows, 2), [7 - limit, 0])
    outlier = np.full((rows, 1), 3)
    outlier[-1] = 4
    edges = random.choice([-limit, limit - 1], (rows, 1))
    return np.concatenate([wide, small, shifted, constant, outlier, edges], axis=1).astype(kind)


def parameters(channels, seed=0):
    """Return gamma and beta as mantissas and exponents: both signs, zeros, and one or several exponents."""
    random = np.random.default_rng(seed)
    gamma, beta = random.integers(-(2**15), 2**15, (2, channels)).astype(np.int16)
    gamma[:1], beta[1:2] = 2**14, 0
    return gamma, -14, beta, random.integers(-16, -12, channels)


def fractions(mantissas, exponents):
    exponents = np.broadcast_to(exponents, np.shape(mantissas))
    return [int(m) * Fraction(2) ** int(e) for m, e in zip(np.ravel(mantissas), np.ravel(exponents), strict=True)]


def forward_reference(x, exponent, gamma, gamma_exponents, beta, beta_exponents, epsilon_shift=EPSILON):
    """Return for each channel: the results, gamma times the normalized values, and x - mean in units of x."""
    channels = []
    for column, g, b in zip(x.T, fractions(gamma, gamma_exponents), fractions(beta, beta_exponents), strict=True):
        values = fractions(column, exponent)
        y = naive.normalize_channel(values, g, b, Fraction(1, 2**epsilon_shift))
        mean = Fraction(int(column.astype(object).sum()), len(column))
        channels.append((y, [v - b for v in y], [int(v) - mean for v in column]))
    return channels


@pytest.mark.parametrize(("kind", "limit"), [INT8, INT16, INT24])
@pytest.mark.parametrize("exponent", [-40, -7, 0, 10])
@pytest.mark.parametrize("rows", [1, 2, 37])
@pytest.mark.usefixtures("threads")
def test_forward_is_near_the_formula(kind, limit, exponent, rows):
    x = channels_of(kind, limit, rows)
    numbers = parameters(x.shape[1])
    linear, statistics = normalization.normalize_batch(x, exponent, *numbers, EPSILON)
    y, bounds = normalization.evaluate(linear)
    assert statistics.x is x or np.shares_memory(statistics.x, x)  # not rounded
    assert y.dtype == (np.int32 if kind == np.int8 else np.int64)
    assert y.shape == x.shape
    assert linear.bounds == bounds == (y.min(), y.max())
    unit, largest = Fraction(2) ** linear.exponent, 0
    gammas, betas = fractions(*numbers[:2]), fractions(*numbers[2:])
    for c, (exact, normalized, deviations) in enumerate(forward_reference(x, exponent, *numbers)):
        variance = Fraction(sum(d * d for d in deviations), rows) * Fraction(4) ** exponent
        sigma = naive.square_root(variance + Fraction(1, 2**EPSILON))
        span = max(abs(d) for d in deviations) + 1 if any(deviations) else 0
        if kind != np.int8 and span:
            span = int(abs(x[:, c].astype(np.int64)).max())
        largest = max(largest, abs(gammas[c]) * span * Fraction(2) ** exponent / sigma, abs(betas[c]))
        for result, value, scaled, deviation in zip(y[:, c], exact, normalized, deviations, strict=True):
            error = abs(int(result) * unit - value)
            assert error <= unit * (abs(deviation) / 2 + 1) + abs(scaled) / 2**29
    assert unit <= largest * Fraction(1, 2**27 if kind == np.int8 else 2**57)


@pytest.mark.parametrize(("kind", "limit"), [INT8, INT16, INT24])
@pytest.mark.parametrize("exponents", [(0, 0), (-40, 3), (10, -30)])
@pytest.mark.parametrize("rows", [1, 2, 37])
@pytest.mark.usefixtures("threads")
def test_backward_is_near_the_formula(kind, limit, exponents, rows):
    x, dy = channels_of(kind, limit, rows), channels_of(kind, limit, rows, seed=1)[:, ::-1].copy()
    dy[:, 1] = x[:, 1]  # all of it goes along x - mean
    numbers = parameters(x.shape[1])
    _, statistics = normalization.normalize_batch(x, exponents[0], *numbers, EPSILON)
    linear, dgamma, dgamma_exponent, dbeta, dbeta_exponent = normalization.normalize_backward(
        dy, exponents[1], statistics, *numbers[:2]
    )
    dx, bounds = normalization.evaluate(linear)
    assert bounds == (dx.min(), dx.max())
    assert dx.dtype == (np.int32 if kind == np.int8 else np.int64)
    assert_array_equal(dbeta, dy.sum(axis=0, dtype=np.int64), strict=True)
    assert dbeta_exponent == exponents[1]
    unit, dgamma_unit = Fraction(2) ** linear.exponent, Fraction(2) ** dgamma_exponent
    gammas = fractions(*numbers[:2])
    for c in range(x.shape[1]):
        values, errors = fractions(x[:, c], exponents[0]), fractions(dy[:, c], exponents[1])
        exact, exact_dgamma = naive.normalize_channel_backward(errors, values, gammas[c], Fraction(1, 2**EPSILON))
        assert abs(int(dgamma[c]) * dgamma_unit - exact_dgamma) <= dgamma_unit * Fraction(51, 100) + abs(exact_dgamma) / 2**28
        mean, dy_mean = (Fraction(sum(v), rows) for v in (values, errors))
        sigma = naive.square_root(sum((v - mean) ** 2 for v in values) / rows + Fraction(1, 2**EPSILON))
        for i in range(rows):
            direct = gammas[c] / sigma * (errors[i] - dy_mean)
            along = direct - exact[i]
            steps = abs(errors[i] - dy_mean) / Fraction(2) ** exponents[1] + abs(values[i] - mean) / Fraction(2) ** exponents[0]
            error = abs(int(dx[i, c]) * unit - exact[i])
            assert error <= unit * (steps / 2 + Fraction(3, 2)) + abs(direct) / 2**29 + abs(along) / 2**26
    largest = max(
        abs(int(linear.factors[0, c])) * bound_of(dy[:, c], kind) + abs(int(linear.factors[1, c])) * bound_of(x[:, c], kind)
        for c in range(x.shape[1])
    )
    assert rows == 1 or largest >= 2 ** (27 if kind == np.int8 else 56)


def bound_of(column, kind):
    """Return the distance from the mean, or for what is not int8 the magnitude, by which factors are scaled."""
    values = [int(v) for v in column]
    if kind != np.int8:
        return max(map(abs, values))
    floor = sum(values) // len(values)
    return max(max(values) - floor, floor + 1 - min(values)) if min(values) < max(values) else 0


@pytest.mark.parametrize(("kind", "limit"), [INT8, INT16, INT24, (np.int32, 2**31)])
@pytest.mark.parametrize("exponent", [-40, -7, 10])
def test_the_running_statistics_are_near_the_formula(kind, limit, exponent):
    x = channels_of(kind, limit, 9)
    random = np.random.default_rng(3)
    numbers = parameters(x.shape[1])
    mean = random.integers(-(2**36), 2**36, x.shape[1])
    variance = random.integers(0, 2**36, x.shape[1])
    variance[3:6] = 0, 1, 2**61 - 1
    linear = normalization.normalize_running(x, exponent, mean, variance, *numbers, EPSILON)
    y, _ = normalization.evaluate(linear)
    unit = Fraction(2) ** linear.exponent
    for c, (g, b) in enumerate(zip(fractions(*numbers[:2]), fractions(*numbers[2:]), strict=True)):
        m, v = (Fraction(int(value), 2**32) for value in (mean[c], variance[c]))
        values = fractions(x[:, c], exponent)
        exact = naive.normalize_channel(values, g, b, Fraction(1, 2**EPSILON), m, v)
        slope = abs(g) / naive.square_root(v + Fraction(1, 2**EPSILON))
        for i, value in enumerate(exact):
            error = abs(int(y[i, c]) * unit - value)
            assert error <= unit * (abs(int(x[i, c])) / 2 + 1) + slope * (abs(values[i]) + abs(m)) / 2**29


def test_a_row_is_normalized_alone_as_in_a_batch():
    x = channels_of(np.int8, 100, 12)
    numbers = (np.full(8, 5), np.full(8, 2**31), *parameters(8), EPSILON)
    together = normalization.normalize_running(x, -5, *numbers)
    for i in range(12):
        alone = normalization.normalize_running(x[i : i + 1], -5, *numbers)
        assert alone.exponent == together.exponent
        assert_array_equal(normalization.evaluate(alone)[0][0], normalization.evaluate(together)[0][i], strict=True)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("channels", [1, 3, 16, 300])
@pytest.mark.usefixtures("threads")
def test_results_are_sums_of_products(kind, channels, monkeypatch):
    """Modulo the word of the result, which no exact result leaves."""
    monkeypatch.setattr(normalization, "_LANES", dict.fromkeys((1, 2, 4, 8), 64))
    monkeypatch.setattr(normalization, "_RUN_ROWS", 1)
    rows, limits = 1500 // channels, np.iinfo(kind)
    random = np.random.default_rng(0)
    x, dy = random.integers(limits.min, limits.max, (2, rows, channels), kind, endpoint=True)
    numbers = parameters(channels)
    forward, statistics = normalization.normalize_batch(x, -3, *numbers, EPSILON)
    backward = normalization.normalize_backward(dy, 0, statistics, *numbers[:2])[0]
    mixed = normalization.normalize_backward(dy.astype(np.int16), 0, statistics, *numbers[:2])[0]
    for linear in (forward, backward, mixed):
        *factors, offsets = linear.factors.astype(object)
        exact = sum(f * operand.astype(object) for f, operand in zip(factors, linear.operands, strict=True)) + offsets
        values, bounds = normalization.evaluate(linear)
        assert_array_equal(values, exact.astype(values.dtype), strict=True)
        assert bounds == (exact.min(), exact.max())
        assert linear.bounds in (None, bounds)
    rounded = statistics.x.astype(object)
    assert_array_equal(statistics.table[plain.SUM], rounded.sum(axis=0).astype(np.int64))
    assert_array_equal(statistics.table[plain.PRODUCTS], (rounded * rounded).sum(axis=0).astype(np.int64))
    assert_array_equal(statistics.table[plain.LEAST], rounded.min(axis=0).astype(np.int64))
    assert_array_equal(statistics.table[plain.GREATEST], rounded.max(axis=0).astype(np.int64))


MODES = [(mode, overflow) for mode in range(12) for overflow in (0, 1, 2)]


@pytest.mark.parametrize("kind", [np.int8, np.int16])
@pytest.mark.parametrize("rows", [1, 13])
@pytest.mark.usefixtures("threads")
def test_requantized_at_once_or_afterwards(kind, rows, monkeypatch):
    """The same bits and counts, for every mode of rounding and overflow, words, and shifts also to the left."""
    monkeypatch.setattr(normalization, "_LANES", dict.fromkeys((1, 2, 4, 8), 64))
    x = channels_of(kind, 100, rows)
    numbers = parameters(x.shape[1])
    forward, statistics = normalization.normalize_batch(x, -3, *numbers, EPSILON)
    backward = normalization.normalize_backward(x[::-1].copy(), 0, statistics, *numbers[:2])[0]
    for linear in (forward, backward):
        values, bounds = normalization.evaluate(linear)
        assert normalization.bounds_of(linear) == normalization.bounds_of(linear._replace(bounds=None)) == bounds
        fit = normalization.shift_to_fit(linear, 8, -100, 100)
        assert fit == requantization.exponents_of_integers(values, (1, 1, values.size, 1), 8, -100, 100)[0, 0, 0]
        for (mode, overflow), shift, word_bits in itertools.product(MODES, (fit - 3, 29, 30, 0, 63, -2), (8, 13)):
            if shift != fit - 3 and (word_bits, overflow) != (8, 1):
                continue
            expected_counts, counts = requantization.new_counters(), requantization.new_counters()
            random = {"random_bits": 20, "seed": 5, "stream": 6, "step": 7}
            expected = requantization.requantize(values, shift, mode, overflow, word_bits, counters=expected_counts, **random)
            result = normalization.evaluate_requantized(linear, shift, mode, overflow, word_bits, counters=counts, **random)
            assert_array_equal(result, expected, strict=True)
            assert counts.tolist() == expected_counts.tolist()


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the fast kernel is compiled")
@pytest.mark.parametrize("overflow", Overflow, ids=lambda mode: mode.value)
@pytest.mark.parametrize("rounding", Rounding, ids=lambda mode: mode.value)
def test_lanes_round_by_the_rule(rounding, overflow):
    """Around every power of two, at the edges, and at random; requantizing int64 is the plain way, which other tests check."""
    edges = [s * 2**k + d for k in range(31) for d in (-2, -1, 0, 1, 2) for s in (-1, 1)]
    most = 2**31 - 2**29 - 1
    values = np.array([*range(-300, 300), *(v for v in edges if abs(v) <= most), most, -most], np.int64)
    values = np.concatenate([values, np.random.default_rng(0).integers(-most, most, 5000 - values.size)])
    zeros = np.zeros((1, values.size), np.int8)
    one = normalization.LinearMap((zeros,), np.array([values * 0, values]), True, 0)
    two = normalization.LinearMap((zeros, zeros + np.int8(1)), np.array([values * 0, values - 7, values * 0 + 7]), True, 0)
    for shift, word_bits in itertools.product((0, 1, 2, 7, 20, 28, 29, 30), (3, 8, 16, 31)):
        for random_bits in (1, 9, 31, 32) if rounding is Rounding.STOCHASTIC else (32,):
            random = {"random_bits": random_bits, "seed": 2**40 + 5, "stream": 6, "step": 7}
            arguments = shift, rounding.code, overflow.code, word_bits
            expected_counts = requantization.new_counters()
            expected = requantization.requantize(values, *arguments, counters=expected_counts, **random)
            for linear in (one, two):
                counts = requantization.new_counters()
                result = normalization.evaluate_requantized(linear, *arguments, counters=counts, **random)
                assert_array_equal(result[0], expected, strict=True)
                assert counts.tolist() == expected_counts.tolist()


@pytest.mark.parametrize("channels", [4, 12, 17])
def test_extremes_are_those_of_the_results(channels, monkeypatch):
    """Over several rows of lanes, the last cut short."""
    monkeypatch.setattr(normalization, "_LANES", dict.fromkeys((1, 2, 4, 8), 64))
    random = np.random.default_rng(channels)
    for rows in (1, 5, 40):
        a, b = random.integers(-128, 128, (2, rows, channels)).astype(np.int8)
        factors = random.integers(-(2**21), 2**21, (3, channels))
        for operands, some in (((a,), factors[::2]), ((a, b), factors)):
            linear = normalization.LinearMap(operands, np.ascontiguousarray(some), True, 0)
            assert normalization.bounds_of(linear) == normalization.evaluate(linear)[1]


def test_what_is_too_wide_is_rounded_first():
    x = np.array([[2**31 - 1, -(2**31)], [3, 5], [2**30, 2**30]], np.int32)
    _, statistics = normalization.normalize_batch(x, -4, *parameters(2), EPSILON)
    shift = statistics.exponent + 4
    assert 3 * int(abs(statistics.x.astype(np.int64)).max()) ** 2 < 2**60 <= 3 * 2 ** (2 * (33 - shift))
    exact = [[naive.round_fraction(Fraction(int(v), 2**shift), "ties_even") for v in row] for row in x]
    assert statistics.x.tolist() == exact


def test_zeros_stay_zeros():
    zeros, parameter = np.zeros((4, 3), np.int8), np.zeros(3, np.int64)
    linear, statistics = normalization.normalize_batch(zeros, 0, parameter, 0, parameter, 0, EPSILON)
    dx, dgamma, _, dbeta, _ = normalization.normalize_backward(zeros, 0, statistics, parameter, 0)
    running = normalization.normalize_running(zeros, 0, parameter, parameter, parameter, 0, parameter, 0, EPSILON)
    for result in (linear, dx, running):
        values, bounds = normalization.evaluate(result)
        assert not values.any()
        assert bounds == (0, 0)
    assert not dgamma.any()
    assert not dbeta.any()


@pytest.mark.parametrize("rows", [1, 2, 20])
@pytest.mark.parametrize("exponent", [-40, -5, 0, 10])
def test_running_statistics_move_towards_those_of_the_batch(rows, exponent):
    x = channels_of(np.int8, 128, rows)
    numbers = parameters(x.shape[1])
    _, statistics = normalization.normalize_batch(x, exponent, *numbers, EPSILON)
    mean, variance = ((np.arange(x.shape[1]) + k) << 30 for k in (0, 3))
    before = mean.copy(), variance.copy()
    saturated = normalization.update_running(statistics, mean, variance, 3)
    expected_saturated, most = 0, 2**61 - 1
    for c, column in enumerate(x.T):
        values = fractions(column, exponent)
        m = sum(values) / rows
        v = sum((value - m) ** 2 for value in values) / max(rows - 1, 1)
        for new, after, old in ((m, mean[c], before[0][c]), (v, variance[c], before[1][c])):
            expected_saturated += abs(new * 2**32) > most
            target = max(-most, min(most, new * 2**32))
            error = abs(int(after) - (int(old) + (target - int(old)) / 8))
            assert error <= Fraction(1, 2) + max(Fraction(1, 8), abs(target) / 2**33)
    assert saturated == expected_saturated


def test_pooled_statistics_are_the_mean_of_the_batches_by_rows():
    """Within half a unit a batch of the mean in Fractions, of what single batches give; batches of any size."""
    rng = np.random.default_rng(8)
    numbers = (np.full(3, 64), -6, np.zeros(3, np.int64), -6)
    pooled, total, exact = [np.zeros(3, np.int64), np.zeros(3, np.int64)], 0, [[Fraction(0)] * 3, [Fraction(0)] * 3]
    for batch, rows in enumerate((4, 1, 7, 2)):
        x = rng.integers(-128, 128, (rows, 3)).astype(np.int8)
        _, statistics = normalization.normalize_batch(x, -batch, *numbers, EPSILON)
        alone = np.zeros(3, np.int64), np.zeros(3, np.int64)
        normalization.update_running(statistics, *alone, 0)  # all the way: the batch's own
        assert normalization.pool_running(statistics, *pooled, total) == 0
        total += rows
        for part in range(2):
            exact[part] = [sum_ + rows * int(one) for sum_, one in zip(exact[part], alone[part], strict=True)]
            for made, sum_ in zip(pooled[part], exact[part], strict=True):
                assert abs(int(made) - sum_ / total) <= Fraction(batch + 1, 2)
