"""SVRG and HALP: every bit that of the definition, the scale that of the formula, for any threads; and clear refusals."""

import itertools
from fractions import Fraction
from math import sqrt

import naive_halp
import numpy as np
import pytest
from naive_halp import two_to
from numpy.testing import assert_array_equal

from intnet import bit_centering, kernels
from intnet.bit_centering import HALP, SVRG, train_svrg
from intnet.errors import InputError
from intnet.formats import Fixed
from intnet.optimizers import BitCentering, Factor, Scale
from intnet.optimizers.halp import descent, recentre
from intnet.regression import LeastSquares, SoftmaxRegression

KINDS = ("exact", "power_of_two")
HALPS = [
    HALP(BitCentering(bits, "0.7", 7, kind, rounding), "fxp-s40/30", 2**63 + 5)
    for bits in (2, 5, 12)
    for kind in KINDS
    for rounding in ("stochastic", "ties_pos")
]
SVRGS = [
    SVRG(form, 7, rounding, 11) for form in ("fxp-s40/30", "fxp-s6/2", "fxp-s5/-1") for rounding in ("stochastic", "ties_pos")
]


def least_squares(exponent=-4, target_exponent=-7):
    random = np.random.default_rng(1)
    return LeastSquares(
        random.integers(-60, 60, (9, 5)).astype(np.int8), exponent, random.integers(-900, 900, 9), target_exponent
    )


def softmax(exponent=-4, decay="1/100"):
    random = np.random.default_rng(2)
    inputs = random.integers(-60, 60, (9, 5)).astype(np.int16)
    return SoftmaxRegression(inputs, exponent, random.integers(0, 3, 9), 3, decay)


def train(problem, runs, rate="0.03", iterations=30, snapshots=None, **options):
    return {one[0].run: one for one in train_svrg(problem, runs, rate, iterations, snapshots, **options)}


def assert_same(a, b):
    assert set(a) == set(b)
    for run, snapshots in a.items():
        for one, other in zip(snapshots, b[run], strict=True):
            assert_array_equal(one.weights, other.weights, strict=True)
            assert (one.iteration, one.saturations, one.ended) == (other.iteration, other.saturations, other.ended)


# 1. The definition ------------------------------------------------------------------------------------------------------


def settings(run, rate, bits, iterations=30):
    halp = isinstance(run, HALP)
    form = run.centre if halp else run.format
    return {
        "word_bits": run.centering.bits if halp else form.word_bits, "unit": two_to(-form.fraction_bits),
        "mu": run.centering.mu.exact if halp else None, "kind": run.centering.scale if halp else None,
        "period": run.period, "rate": rate.exact, "bits": bits, "mode": run.rounding.value, "seed": run.seed,
        "iterations": iterations, "centre_bits": form.word_bits,
    }  # fmt: skip


@pytest.mark.parametrize(("exponent", "target_exponent", "rate"), [(-4, -7, "0.03"), (-1, 3, "2^-11"), (2, -20, "2^-16")])
def test_least_squares_equals_naive(exponent, target_exponent, rate):
    problem, rate = least_squares(exponent, target_exponent), Factor.of(rate)
    naive = naive_halp.LeastSquares(problem.inputs, exponent, problem.targets, target_exponent)
    seen = 0
    for run, (last,) in train(problem, HALPS + SVRGS, rate).items():
        bits = bit_centering._steps(problem, run, rate).fraction_bits
        assert (last.weights.tolist(), last.saturations) == naive_halp.train(naive, **settings(run, rate, bits))
        seen += last.saturations > 0
    assert (seen > 0) == (target_exponent == 3)


@pytest.mark.parametrize(("rate", "decay"), [("0.03", "1/100"), ("2^-4", "2^-9"), ("0.5", 0)])
@pytest.mark.parametrize("exponent", [-4, -1])
def test_softmax_equals_naive(rate, decay, exponent):
    problem, rate = softmax(exponent, decay), Factor.of(rate)
    for run, (last,) in train(problem, HALPS[1::2] + HALPS[4:6] + SVRGS, rate).items():
        steps = bit_centering._steps(problem, run, rate)
        fraction = (run.centre if isinstance(run, HALP) else run.format).fraction_bits
        power = exponent - fraction

        def error_of(logits, label, power=power):
            return kernels.softmax_gradient(np.array([logits]), power, np.array([label]))[0].tolist()

        units = (two_to(-fraction), two_to(steps.sum_exponent))
        naive = naive_halp.Softmax(problem.inputs, exponent, problem.labels, 3, problem.decay.exact, error_of, *units)
        assert (last.weights.tolist(), last.saturations) == naive_halp.train(naive, **settings(run, rate, steps.fraction_bits))


def test_svrg_and_halp_find_the_optimum():
    """With a grid that follows, eight bits find what 40 find; on a grid that does not, they stay where it ends."""
    problem = least_squares()
    runs = [SVRG("fxp-s48/40", 20), HALP(BitCentering(8, "1/2", 20)), SVRG("fxp-s8/6", 20)]
    inputs, targets = problem.inputs * 2.0**-4, problem.targets * 2.0**-7
    best = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    found = train(problem, runs, "1/128", 40_000)
    wide, halp, fixed = (float(np.linalg.norm(found[run][0].values()[0] - best)) for run in runs)
    assert max(wide, halp) < 1e-9
    assert fixed > 1e-3


# 2. The scale -----------------------------------------------------------------------------------------------------------


def formula(values, exponent, count, how):
    """Return the square of the real scale."""
    total = sum(int(v) ** 2 for v in values)
    return total * (two_to(exponent) / (count * how.mu.exact * (2 ** (how.bits - 1) - 1))) ** 2


def check_scale(values, exponent, count, how):
    scale = how.scale_of(np.array(values), exponent, count)
    square = formula(values, exponent, count, how)
    if not square:
        assert scale is None
        return
    bound = Fraction(int(1000 * (sqrt(len(values)) + 4)), 1000 * 2**31)
    assert scale.exact == naive_halp.scale_of([int(v) for v in values], exponent, count, how.mu.exact, how.bits, how.scale)
    assert scale.exact**2 >= (1 - bound) ** 2 * square
    assert scale.exact**2 <= (1 + bound) ** 2 * square * (4 if how.scale == "power_of_two" else 1)
    if how.scale == "power_of_two":
        assert scale.mantissa == 1
        assert scale.exact >= BitCentering(how.bits, how.mu, how.period).scale_of(np.array(values), exponent, count).exact


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_is_that_of_the_formula(kind):
    """Every small gradient, and edges of words."""
    for bits, mu, count in ((2, 1, 1), (8, 3, 1000), (16, "2^-9", 7)):
        how = BitCentering(bits, mu, 1, kind)
        for values in itertools.product(range(-4, 5), repeat=2):
            check_scale(values, -9, count, how)
        for edge in (2**31 - 1, 2**31, 2**45 + 9, 2**61 - 1, 2**61, 2**62):
            check_scale([edge, -edge, 5, edge // 3], -50, count, how)
            check_scale([edge], -50, count, how)
        check_scale(np.random.default_rng(0).integers(-(2**40), 2**40, 1000), -30, 2**31 - 1, how)


def test_the_box_holds_the_optimum():
    """S times the greatest offset is norm(g) / mu: for the gradient (3, 4) and mu = 5, it is 1."""
    gradient = np.array([3, 4])
    for bits in (2, 3, 8, 16):
        scale = BitCentering(bits, 5).scale_of(gradient, 0)
        assert abs(scale.exact * (2 ** (bits - 1) - 1) - 1) < Fraction(1, 2**29)
    assert BitCentering(8, 5, 1, "power_of_two").scale_of(gradient, 0) == Scale(1, -6)  # 1/127 is above 1/128
    assert BitCentering(2, 5, 1, "power_of_two").scale_of(gradient, 0) == Scale(1, 0)


def test_centring_anew_is_exact_where_the_grid_is_finer():
    centre, offsets = np.array([[5, -5]]), np.array([[-8, 7]])
    assert recentre(centre, offsets, Scale(1, -3), Fixed(12, 5)) == 0
    assert centre.tolist() == [[5 - 32, -5 + 28]]
    assert recentre(centre, offsets, Scale(3, 100), Fixed(12, 5)) == 2
    assert centre.tolist() == [[-2048, 2047]]


def test_the_descent_is_the_nearest():
    gradient = np.array([[7, -7, 2**55]])
    found = descent(gradient, -5, 3, Factor.of("3/8"), Scale(5, -9), 4)
    exact = [-int(v) * two_to(-5) / 3 * Fraction(3, 8) / (5 * two_to(-9)) * 16 for v in gradient[0]]
    assert np.abs(found[0, :2] - np.array(exact[:2], float)).max() <= 0.5
    assert abs(Fraction(int(found[0, 2])) / exact[2] - 1) < Fraction(1, 2**59)


# 3. The same bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [least_squares(), softmax()], ids=["least_squares", "softmax"])
def test_threads_chunks_and_order_do_not_change_a_bit(problem, monkeypatch):
    looks, runs = [1, 7, 8, 14, 29, 30], HALPS[::3] + SVRGS[:2]
    whole = train(problem, runs, snapshots=looks)
    assert_same(train(problem, runs[::-1], snapshots=looks, threads=1), whole)
    monkeypatch.setattr(bit_centering, "_CHUNK", 3 * problem.shape[0] * problem.shape[1])
    assert_same(train(problem, runs, snapshots=[*looks, 30]), whole)
    for run in runs[:2]:
        for one in whole[run]:
            ((shorter,),) = train(problem, [run], iterations=one.iteration).values()
            assert_same({0: [one]}, {0: [shorter]})


def test_a_zero_gradient_ends_a_run():
    """At an optimum that is reached exactly, here the start, there is no scale: HALP stops, and SVRG stays."""
    problem = LeastSquares(np.array([[1, 2], [3, -1]], np.int8), 0, np.zeros(2, int), 0)
    runs = [HALP(BitCentering(8, 1, 5)), SVRG("fxp-s40/30", 5)]
    for run, seen in train(problem, runs, snapshots=[1, 12, 30]).items():
        assert [(one.iteration, one.ended, one.weights.any()) for one in seen] == [
            (at, isinstance(run, HALP), False) for at in (1, 12, 30)
        ]
    later = LeastSquares(np.array([[4]], np.int8), 0, np.array([8]), 0)  # a step of 1/16 reaches 2 exactly
    ((*_, last),) = train(later, [HALP(BitCentering(8, 2, 1), "fxp-s20/10")], "2^-4", 200).values()
    assert last.ended
    assert last.values().tolist() == [[2.0]]


def test_closing_stops():
    running = train_svrg(least_squares(), HALPS, "2^-6", 3_000_000, threads=2)
    running.close()
    assert next(running, None) is None


# 4. Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 1}, r"2\.\.16 bits, a sign and a magnitude, got 1"),
        ({"bits": 17}, "got 17"),
        ({"bits": True}, "got True"),
        ({"mu": 0}, "mu must be greater than 0, got 0"),
        ({"mu": -3}, "mu: a factor must be 0, or .* got -3"),
        ({"period": 0}, r"last for 1\.\.4294967295 steps, a whole number, got 0"),
        ({"period": 0.5}, "got 0.5"),
        ({"scale": "nearest"}, "a scale is exact or power_of_two, got 'nearest'"),
        ({"rounding": "floor"}, "rounding must be stochastic or ties_pos, got 'floor'"),
    ],
)
def test_what_cannot_be_centred_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        BitCentering(**change)


def test_scales_beyond_their_range_are_refused():
    how = BitCentering(8, 1)
    with pytest.raises(InputError, match=r"is about 2\^-127, and must be in 2\^-126\.\.2\^127; take a smaller mu than 2\^0"):
        how.scale_of(np.array([1]), -121)
    with pytest.raises(InputError, match=r"is about 2\^194.* take a greater mu"):
        how.scale_of(np.array([1]), 200)
    steep = LeastSquares(np.full((1, 1), 127, np.int8), 0, np.ones(1, int), 60)
    with pytest.raises(InputError, match=r"is about 2\^129"):
        train(steep, [HALP(BitCentering(2, Factor(1, 62)), "fxp-s4/2")], "2^-40")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": ["fxp-s8/6"]}, "a run must be SVRG"),
        ({"rate": -1}, "factor"),
        ({"rate": 0}, "rate must be greater than 0"),
        ({"iterations": 0}, "iterations"),
        ({"snapshots": []}, "must be a snapshot, got none"),
        ({"snapshots": [31]}, "a snapshot"),
        ({"threads": 0}, "threads"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        train(**{"problem": least_squares(), "runs": SVRGS, **change})


def test_runs_that_are_none_are_refused():
    for arguments in (
        ("fxp-u8/6", 5),
        ("fxp-s63/5", 5),
        ("fxp-s8/6", 0),
        ("fxp-s8/6", 5, "ceil"),
        ("fxp-s8/6", 5, "ties_pos", -1),
    ):
        with pytest.raises(InputError):
            SVRG(*arguments)
    for arguments in ((8,), (BitCentering(), "fxp-u8/6"), (BitCentering(), "fxp-s48/40", -1)):
        with pytest.raises(InputError):
            HALP(*arguments)


@pytest.mark.parametrize(
    ("problem", "run", "rate", "message"),
    [
        (least_squares(), SVRG("fxp-s60/40", 5), "2^-10", "a residual may reach .* bits with fxp-s60/40"),
        (least_squares(), SVRG("fxp-s52/40", 5), "2", "a move may leave 62 bits with fxp-s52/40"),
        (least_squares(), HALP(BitCentering(16, "2^50")), "2^-6", "a move may leave 62 bits .* offsets of 16 bits"),
        (least_squares(0, 30), HALP(BitCentering(8, 1)), "2^-6", "a residual"),
        (softmax(), HALP(BitCentering(8, 1), "fxp-s56/40"), "2^-6", "a logit"),
        (softmax(), SVRG("fxp-s50/48", 5), "2^6", "a move"),
        (softmax(), HALP(BitCentering(16, "2^50"), "fxp-s30/20"), "2^-6", "a move"),
    ],
)
def test_what_could_leave_int64_is_refused_before_training(problem, run, rate, message):
    with pytest.raises(InputError, match=message) as refusal:
        train_svrg(problem, [SVRGS[2], run], rate, 30)
    assert "\n" not in str(refusal.value)
