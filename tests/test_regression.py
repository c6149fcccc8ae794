"""Many runs on a convex problem: every bit that of the definition, the average exact, for any threads; and clear refusals."""

from fractions import Fraction

import naive_regression
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet import kernels, regression
from intnet.errors import InputError
from intnet.formats import Fixed
from intnet.optimizers import Factor
from intnet.regression import LeastSquares, Run, SoftmaxRegression, mean_values, plan, shrinking, train_sgd

FORMATS = ("fxp-s6/4", "fxp-s9/9", "fxp-s24/17", "fxp-s5/-2")
RUNS = [Run(form, seed) for form in FORMATS for seed in (0, 2**63 + 5)]


def least_squares(exponent=-4, target_exponent=-7):
    random = np.random.default_rng(1)
    return LeastSquares(
        random.integers(-60, 60, (9, 5)).astype(np.int8), exponent, random.integers(-900, 900, 9), target_exponent
    )


def softmax(exponent=-4, decay="1/100"):
    random = np.random.default_rng(2)
    inputs = random.integers(-60, 60, (9, 5)).astype(np.int16)
    return SoftmaxRegression(inputs, exponent, random.integers(0, 3, 9), 3, decay)


def train(problem, runs, rate="0.03", iterations=30, averaging_start=10, snapshots=None, **options):
    found = train_sgd(problem, runs, rate, iterations, averaging_start, snapshots, **options)
    return {one[0].run: one for one in found}


def assert_same(a, b):
    assert set(a) == set(b)
    for run, snapshots in a.items():
        for one, other in zip(snapshots, b[run], strict=True):
            assert_array_equal(one.weights, other.weights, strict=True)
            assert_array_equal(one.sums, other.sums, strict=True)
            assert (one.iteration, one.count, one.saturations) == (other.iteration, other.count, other.saturations)


# 1. The definition ------------------------------------------------------------------------------------------------------


def check(snapshot, expected):
    weights, mean, saturations = expected
    assert snapshot.weights.tolist() == weights
    assert snapshot.mean().tolist() == mean  # the exact rational mean of every iterate, Fractions on both sides
    assert snapshot.mean_values().tolist() == [[float(value) for value in row] for row in mean]
    assert snapshot.saturations == saturations


def settings(run, rate):
    form = run.format
    return {
        "word_bits": form.word_bits, "fraction_bits": form.fraction_bits, "seed": run.seed, "rate": rate.exact,
        "iterations": 30, "averaging_start": 10,
    }  # fmt: skip


@pytest.mark.parametrize("rate", ["0.03", "2^-6", "3"])
@pytest.mark.parametrize(("exponent", "target_exponent"), [(-4, -7), (-1, 3), (2, -20)])
def test_least_squares_equals_naive(rate, exponent, target_exponent):
    problem, rate = least_squares(exponent, target_exponent), Factor.of(rate)
    for run, (last,) in train(problem, RUNS, rate).items():
        data = (problem.inputs, exponent, problem.targets, target_exponent)
        check(last, naive_regression.least_squares(*data, **settings(run, rate)))


@pytest.mark.parametrize(("rate", "decay"), [("0.03", "1/100"), ("2^-4", "2^-9"), ("3", 0)])
@pytest.mark.parametrize("exponent", [-4, 1])
def test_softmax_equals_naive(rate, decay, exponent):
    problem, rate = softmax(exponent, decay), Factor.of(rate)
    for run, (last,) in train(problem, RUNS, rate).items():
        power = exponent - run.format.fraction_bits

        def error_of(logits, label, power=power):
            raw = [int(v / Fraction(2) ** power) for v in logits]
            return kernels.softmax_gradient(np.array([raw]), power, np.array([label]))[0].tolist()

        shrink = shrinking(problem, rate).exact
        assert abs(shrink - rate.exact * problem.decay.exact) <= Fraction(rate.exact * problem.decay.exact, 2**15)
        data = (problem.inputs, exponent, problem.labels, 3, error_of)
        check(last, naive_regression.softmax(*data, shrink=shrink, **settings(run, rate)))


# 2. The same bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [least_squares(), softmax()], ids=["least_squares", "softmax"])
def test_threads_chunks_and_order_do_not_change_a_bit(problem, monkeypatch):
    looks = [1, 10, 11, 29, 30]
    whole = train(problem, RUNS, snapshots=looks)
    assert_same(train(problem, RUNS[::-1], snapshots=looks, threads=1), whole)
    alone = {}
    for run in RUNS:
        alone |= train(problem, [run], snapshots=[*looks, 10], threads=5)
    assert_same(alone, whole)
    monkeypatch.setattr(regression, "_CHUNK", 7 * problem.shape[0] * problem.shape[1])
    assert_same(train(problem, RUNS, snapshots=looks), whole)


def test_snapshots_are_those_of_shorter_runs():
    problem = least_squares()
    for one in train(problem, RUNS[:1], snapshots=[5, 10, 11, 25])[RUNS[0]]:
        ((shorter,),) = train(problem, RUNS[:1], iterations=max(11, one.iteration), snapshots=[one.iteration]).values()
        assert_same({0: [one]}, {0: [shorter]})
        assert one.count == max(0, one.iteration - 10)


def test_the_order_of_samples_is_the_seeds_alone():
    """With one sample in reach, formats differ in their rounding, but a run without rest is the same in all."""
    problem = LeastSquares(np.array([[1], [1]], np.int8), 0, np.array([0, 4]), 0)
    found = train(problem, [Run(f"fxp-s40/{bits}", 7) for bits in (30, 35)], "1/2", snapshots=range(1, 31))
    for a, b in zip(*found.values(), strict=True):
        assert_array_equal(a.values(), b.values())
    assert len({float(one.values()[0, 0]) for one in next(iter(found.values()))}) > 20


def test_no_runs_no_results_and_closing_stops():
    assert train(least_squares(), []) == {}
    running = train_sgd(least_squares(), RUNS, "2^-6", 3_000_000, 0, threads=2)
    running.close()
    assert next(running, None) is None


# 3. Rounding and means --------------------------------------------------------------------------------------------------


def test_rounding_is_unbiased():
    """One step from 0 by -rate r x: a fall of 5/16 of a unit on average, over 2**16 weights.

    The number that move is binomial with p = 5/16. Its share lies within five standard deviations, but for a chance of
    6e-7 (normal approximation) in a draw that is fixed by its seed.
    """
    count = 2**16
    problem = LeastSquares(np.full((1, count), 5, np.int8), 0, np.array([-1]), 0)
    ((last,),) = train(problem, [Run("fxp-s4/0", 11)], "2^-4", 1, 0).values()
    assert set(last.weights.ravel().tolist()) == {-1, 0}
    share = -last.weights.sum() / count
    assert abs(share - 5 / 16) < 5 * np.sqrt(5 / 16 * 11 / 16 / count)


@pytest.mark.parametrize("fraction_bits", [-40, 0, 8, 200])
def test_means_are_the_nearest_floats(fraction_bits):
    sums = np.array([[0, 1, -1], [2**62 + 1, -(2**63), 12345678901234567]])
    exact = [[Fraction(int(v), 180_001) / Fraction(2) ** fraction_bits for v in row] for row in sums]
    assert mean_values(sums, 180_001, fraction_bits).tolist() == [[float(v) for v in row] for row in exact]


def test_there_is_no_mean_before_averaging():
    ((first, _),) = train(least_squares(), RUNS[:1], snapshots=[10, 11]).values()
    for mean in (first.mean, first.mean_values):
        with pytest.raises(InputError, match="no average after 10 iterations"):
            mean()


# 4. Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": np.zeros((2, 2))}, "int8 or int16 .* got shape .2, 2. of float64"),
        ({"inputs": np.zeros((2, 2), np.uint8)}, "int8 or int16"),
        ({"inputs": np.zeros(2, np.int8)}, "samples, features"),
        ({"inputs": np.zeros((0, 2), np.int8)}, "non-empty"),
        ({"targets": np.zeros(8, int)}, "targets must be 9 integers"),
        ({"targets": np.zeros(9)}, "got float64"),
        ({"targets": np.zeros(9, np.uint64)}, "signed"),
        ({"input_exponent": 63}, "in -62..62, got 63"),
        ({"target_exponent": 0.5}, "target_exponent must be an integer"),
    ],
)
def test_least_squares_that_do_not_fit_are_refused(change, message):
    problem = least_squares()
    parts = {name: getattr(problem, name) for name in ("inputs", "input_exponent", "targets", "target_exponent")}
    with pytest.raises(InputError, match=message):
        LeastSquares(**{**parts, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full(9, 3)}, r"in 0\.\.2, got 3\.\.3"),
        ({"labels": np.full(9, -1)}, r"got -1\.\.-1"),
        ({"classes": 1}, "classes must be an integer in 2"),
        ({"classes": True}, "classes"),
        ({"decay": -1}, "factor"),
    ],
)
def test_softmax_that_does_not_fit_is_refused(change, message):
    problem = softmax()
    parts = {name: getattr(problem, name) for name in ("inputs", "input_exponent", "labels", "classes", "decay")}
    with pytest.raises(InputError, match=message):
        SoftmaxRegression(**{**parts, **change})


def test_problems_keep_their_own_data():
    inputs = np.ones((1, 2), np.int16)
    problem = LeastSquares(inputs, 0, np.ones(1, int), 0)
    inputs[0, 0] = 9
    assert problem.inputs.tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="read-only"):
        problem.inputs[0, 0] = 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": ["fxp-s8/6"]}, "a run must be Run"),
        ({"rate": -1}, "factor"),
        ({"iterations": 0}, "iterations must be an integer in 1..4294967295, got 0"),
        ({"iterations": 2**32}, "iterations"),
        ({"averaging_start": 30}, r"averaging_start must be an integer in 0\.\.29, got 30"),
        ({"snapshots": []}, "must be a snapshot, got none"),
        ({"snapshots": [31]}, r"a snapshot must be an integer in 1\.\.30, got 31"),
        ({"threads": 0}, "threads"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        train(**{"problem": least_squares(), "runs": RUNS, **change})


@pytest.mark.parametrize("form", ["fxp-u8/6", "bfp-s8/row", 8])
def test_formats_that_are_none_for_weights_are_refused(form):
    with pytest.raises(InputError):
        Run(form, 0)


@pytest.mark.parametrize(
    ("problem", "form", "rate", "message"),
    [
        (least_squares(), "fxp-s63/40", "2^-10", "a residual may reach .* bits with fxp-s63/40 .* within 63; take a narrower"),
        (least_squares(), "fxp-s40/32", "0.03", "a move may reach"),
        (least_squares(), "fxp-s8/60", "2^-10", "a residual"),
        (LeastSquares(np.ones((1, 1), np.int8), 62, np.ones(1, int), -62), "fxp-s8/6", "1", "a residual"),
        (LeastSquares(np.ones((1, 1), np.int8), 0, np.ones(1, int), 0), "fxp-s63/0", "1", "a weight before it saturates"),
        (softmax(), "fxp-s60/40", "2^-10", "a logit .* within 62"),
        (softmax(), "fxp-s44/44", "0.03", "a move"),
    ],
)
def test_what_could_leave_int64_is_refused_before_training(problem, form, rate, message):
    with pytest.raises(InputError, match=message) as refusal:
        train_sgd(problem, [Run("fxp-s4/2"), Run(form)], rate, 30, 10)
    assert "\n" not in str(refusal.value)


def test_sums_that_could_leave_int64_are_refused():
    problem = LeastSquares(np.ones((1, 1), np.int8), 0, np.ones(1, int), 0)
    with pytest.raises(InputError, match="sum of 4000000000 weights of fxp-s40/20 may reach 71 bits"):
        train_sgd(problem, [Run("fxp-s40/20")], "2^-10", 4_000_000_000, 0)
    train_sgd(problem, [Run("fxp-s40/20")], "2^-10", 4_000_000_000, 0, [1000])  # no more is looked at


def test_the_bounds_are_not_far_from_what_happens():
    """The widest word that is let through saturates in training, without an overflow: its bits are those of the definition."""
    problem, rate = least_squares(), Factor.of("3")  # diverges
    for word_bits in range(62, 1, -1):
        run = Run(Fixed(word_bits, 20), 3)
        try:
            plan(problem, run.format, rate)
        except InputError:
            continue
        break
    assert word_bits > 40
    ((last,),) = train(problem, [run], rate).values()
    assert np.abs(last.weights).max() > 2 ** (word_bits - 4)
    data = (problem.inputs, -4, problem.targets, -7)
    check(last, naive_regression.least_squares(*data, **settings(run, rate)))
