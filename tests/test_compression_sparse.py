"""Sparse optimization in fixed point: every step against Fractions, the published values of the linear lab; mistakes."""

from fractions import Fraction
from itertools import product

import naive_compression
import numpy as np
import pytest

from intnet.compression import SparseDescent, project, smallest, soft_threshold, trimmed_threshold
from intnet.errors import InputError

X = ((1, -2, -1, -1, 1), (2, -1, 2, 0, -2), (-1, 0, 2, 2, 1))
Y = (7, 1, 1)
METHODS = {"gd": None, "projected": None, "l1": "0.5", "proximal": "0.02", "trimmed": "0.04"}


# 1. Thresholds ------------------------------------------------------------------------------------------------------------


def test_the_largest_are_kept_and_of_equal_ones_the_earlier():
    """All vectors of four numbers in -2..2, which are full of ties, and all counts."""
    for values, keep in product(product(range(-2, 3), repeat=4), range(5)):
        kept = naive_compression.largest(values, keep)
        assert project(values, keep).tolist() == [v if i in kept else 0 for i, v in enumerate(values)]
        assert smallest(values, 4 - keep).tolist() == [i not in kept for i in range(4)]
        trimmed = [v if i in kept else naive_compression.soft(v, 1) for i, v in enumerate(values)]
        assert trimmed_threshold(values, 1, keep).tolist() == trimmed


def test_soft_thresholds():
    values = [*range(-9, 10), 2**61, -(2**61)]
    for threshold in (0, 1, 4, 9, np.int32(10), 2**62):
        assert soft_threshold(values, threshold).tolist() == [naive_compression.soft(v, int(threshold)) for v in values]


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64])
def test_arrays_keep_their_shape_and_are_not_written(kind):
    values = np.array([[3, -1], [-128 if kind is np.int8 else -130, 1]], kind)
    before = values.copy()
    for made in (project(values, 2), soft_threshold(values, 2), trimmed_threshold(values, 2, 1), smallest(values, 3)):
        assert made.shape == (2, 2)
    assert project(values, 2).tolist() == [[3, 0], [int(values[1, 0]), 0]]  # the magnitude of -128 is no int8
    assert project(values.T, 1).tolist() == [[0, int(values[1, 0])], [0, 0]]
    assert (values == before).all()


# 2. Descents --------------------------------------------------------------------------------------------------------------


def check_path(x, y, method, parameter, rate, keep, fraction_bits, word_bits, steps):
    path = SparseDescent(x, y, method, parameter, rate, keep, fraction_bits, word_bits).run(steps)
    weights, losses, saturated = naive_compression.sparse_descent(
        x, y, method, parameter, rate, keep, fraction_bits, word_bits, steps
    )
    assert path.weights.tolist() == weights
    assert list(path.losses) == losses
    assert (path.saturated, path.fraction_bits) == (saturated, fraction_bits)
    assert path.real().tolist() == [[float(Fraction(v, 2**fraction_bits)) for v in row] for row in weights]
    return path


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fraction_bits", [1, 3, 5, 8, 20, 40, 48])
def test_every_step_is_exact_but_for_the_move(method, fraction_bits):
    """Which is rounded to nearest, ties away: of one fraction bit, with rates of 1/2, there are many."""
    rates = ("0.5", "0.03125") if fraction_bits > 4 else ("0.5",)
    parameter = None if METHODS[method] is None else Fraction(1, 2)
    for rate, keep in product(rates, (0, 2, 5)):
        check_path(X, Y, method, parameter, rate, keep, fraction_bits, fraction_bits + 6, 25)


@pytest.mark.parametrize("method", METHODS)
def test_random_problems(method):
    rng = np.random.default_rng(5)
    for _ in range(12):
        samples, features = rng.integers(1, 5, 2)
        x, y = rng.integers(-9, 10, (samples, features)).tolist(), rng.integers(-20, 21, samples).tolist()
        bits, keep = int(rng.integers(4, 30)), int(rng.integers(0, features + 1))
        check_path(x, y, method, None if METHODS[method] is None else "0.25", "0.0625", keep, bits, bits + 8, 15)


@pytest.mark.parametrize("method", METHODS)
def test_weights_saturate_and_are_counted(method):
    """A rate that is far too large, in a short word: the loss cannot leave it either."""
    path = check_path(X, Y, method, None if METHODS[method] is None else 1, 3, 2, 4, 7, 20)
    assert path.saturated > 20
    assert np.abs(path.weights).max() == (47 if method == "proximal" else 63)


def test_rates_and_parameters_are_rounded_to_their_bits():
    """To nearest, ties to even: 0.3125 is 2 units of 1/8, 0.4375 is 4; text, floats and fractions are taken exactly."""
    paths = [check_path(X, Y, "l1", p, r, 2, 3, 11, 12).weights.tolist() for r, p in (("0.3125", "0.4375"), ("1/4", "1/2"))]
    assert paths[0] == paths[1]
    exact = [SparseDescent(X, Y, "l1", p, r, fraction_bits=30).run(9).weights.tolist() for r, p in ((0.1, 0.2), ("0.1", "1/5"))]
    assert exact[0] == exact[1]


def test_words_are_eight_bits_longer_by_default():
    made = SparseDescent(X, Y, fraction_bits=np.int64(10))
    assert (made.word_bits, made.fraction_bits) == (18, 10)
    assert SparseDescent(np.array(X, np.int8), np.array(Y, np.int16)).run(np.int64(3)).weights.shape == (4, 5)
    assert len(made.run(0).losses) == 1
    assert made.run(0).losses[0] == 51


# 3. The linear lab --------------------------------------------------------------------------------------------------------

# Losses at steps 1, 20, 100 and 200, weights and the greatest change of the last ten steps, as printed; "" where nothing is.
# Of (e) with 0.01 the sheet has 4e-6, the greatest change between the last ten weights: of the last ten steps it is 5.5e-6,
# in 40 fraction bits as in float64.
SHEET = [
    ("gd", None, "27.4 6.4e-3 5e-18 ", ".7476 -2.3894 .1226 -.0312 1.5649", "0"),
    ("projected", None, "31.8 1.4e-2 4e-18 ", "0 -3 0 0 1", "0"),
    ("l1", "0.2", "27.4 .022 .0066 6.85e-3", ".373 -2.674 .031 .0004 1.254", "6.5e-3"),
    ("l1", "0.5", " .070 .038 2.43e-2", ".010 -2.947 -.001 .001 .958", "1.7e-2"),
    ("l1", "1", " .192 .095 .106", "-.008 -2.893 .010 .003 .918", "3.4e-2"),
    ("l1", "2", " .565 .398 .367", "-.006 -2.780 -.042 -.005 .844", "6.7e-2"),
    ("proximal", "0.004", "27.6 .022 .0067 6.65e-3", ".371 -2.676 .033 0 1.253", "1.9e-3"),
    ("proximal", "0.01", "27.8 .075 .039 2.29e-2", "0 -2.950 0 0 .958", "5.5e-6"),
    ("proximal", "0.02", "28.3 .193 .092 9.17e-2", "0 -2.900 0 0 .9167", ""),
    ("proximal", "0.04", "29.3 .529 .367 .3667", "0 -2.800 0 0 .8333", "0"),
    *(("trimmed", theta, "   ", "0 -3 0 0 1", "0") for theta in ("0.02", "0.04", "0.1", "0.2")),
]  # fmt: skip


def digits_of(text):
    """Return the number that a text stands for, and half a unit of its last digit."""
    head, _, power = text.partition("e")
    unit = Fraction(1, 10 ** len(head.partition(".")[2])) * Fraction(10) ** int(power or 0)
    return Fraction(text), unit / 2


def descent_in_floats(method, parameter):
    """Return all weights of 200 steps in float64."""
    x, y, w = np.array(X, float), np.array(Y, float), np.zeros(5)
    path = [w]
    for _ in range(200):
        gradient = 2 * x.T @ (x @ w - y)
        w = w - 0.02 * (gradient + (float(parameter) * np.sign(w) if method == "l1" else 0))
        shrunk, keeps = w, np.zeros(5, bool)
        keeps[np.argsort(-np.abs(w), kind="stable")[:2]] = True
        if method in ("proximal", "trimmed"):
            shrunk = np.sign(w) * np.maximum(np.abs(w) - float(parameter), 0)
        w = np.where(keeps, w, shrunk if method == "trimmed" else 0) if method in ("projected", "trimmed") else shrunk
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize(("method", "parameter", "losses", "weights", "change"), SHEET)
def test_the_published_values(method, parameter, losses, weights, change):
    path = SparseDescent(X, Y, method, parameter).run(200)
    assert path.saturated == 0
    for step, text in zip((1, 20, 100, 200), losses.split(" "), strict=True):
        if text:
            value, half = digits_of(text)
            assert abs(path.losses[step] - value) <= half, (step, text)
    if not losses.rpartition(" ")[2]:  # the sheet has residues of float64
        assert path.losses[200] < Fraction(1, 10**20)
    for value, text in zip(path.weights[-1].tolist(), weights.split(), strict=True):
        printed, half = digits_of(text)
        assert abs(Fraction(value, 2**40) - printed) <= (half if "." in text else Fraction(1, 10**9)), text
    floats = descent_in_floats(method, parameter)
    found, theirs = (np.abs(np.diff(one[-11:], axis=0)).max() for one in (path.real(), floats))
    assert np.abs(path.real() - floats).max() < 1e-9
    assert abs(found - theirs) < 1e-11
    if change:
        printed, half = digits_of(change)
        assert abs(found - float(printed)) <= float(half)


def test_exact_minima_of_the_lab():
    """A soft threshold of 0.02 ends at 11/120 on two weights; of 0.04 at 11/30; subgradients never reach zero."""
    for theta, loss in (("0.02", Fraction(11, 120)), ("0.04", Fraction(11, 30))):
        path = SparseDescent(X, Y, "proximal", theta).run(200)
        assert abs(path.losses[-1] - loss) < Fraction(1, 10**9)
        assert np.flatnonzero(path.weights[-1]).tolist() == [1, 4]
    for factor in ("0.2", "0.5", "1", "2"):
        assert (SparseDescent(X, Y, "l1", factor).run(200).weights[-1] != 0).all()
    assert SparseDescent(X, Y, "projected").run(200).weights[-1].tolist()[1] == pytest.approx(-3 * 2**40, abs=64)


# 4. Mistakes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SparseDescent(((1.0, 2),), (1,)), r"^least squares take integers, \(samples, features\) and \(samples,\)"),
        (lambda: SparseDescent(((1, 2),), (0.5,)), r"^least squares take integers"),
        (lambda: SparseDescent(((1, 2),), (1, 2)), r"^least squares take integers, .* got \(1, 2\) and \(2,\)$"),
        (lambda: SparseDescent((1, 2), (1, 2)), r"^least squares take integers, .* got \(2,\) and \(2,\)$"),
        (lambda: SparseDescent(np.zeros((0, 2), int), np.zeros(0, int)), r"^least squares take integers"),
        (lambda: SparseDescent(np.ones((1, 2), np.uint8), (1,)), r"^least squares take integers"),
        (lambda: SparseDescent(X, Y, "lasso"), r"^method is one of gd, projected, l1, proximal, trimmed, got 'lasso'$"),
        *[
            (lambda bits=bits: SparseDescent(X, Y, fraction_bits=bits), rf"^fraction bits are 1\.\.52, got {bits}$")
            for bits in (0, 53, True, None)
        ],
        (lambda: SparseDescent(X, Y, fraction_bits=8.0), r"^fraction bits are 1\.\.52, got 8\.0$"),
        *[
            (lambda bits=bits: SparseDescent(X, Y, word_bits=bits), rf"^a word has 2\.\.62 bits here, got {bits}$")
            for bits in (1, 63, True)
        ],
        *[
            (lambda keep=keep: SparseDescent(X, Y, "projected", keep=keep), rf"^of 5 weights 0\.\.5 can be kept, got {keep}$")
            for keep in (-1, 6, True, None)
        ],
        (lambda: SparseDescent(X, Y, "gd", "0.1"), r"^l1, proximal and trimmed have a parameter, the others none, got '0\.1'$"),
        (lambda: SparseDescent(X, Y, "l1"), r"^l1, proximal and trimmed have a parameter, the others none, got None$"),
        (lambda: SparseDescent(X, Y, rate="fast"), r"^rate is a number, got 'fast'$"),
        (lambda: SparseDescent(X, Y, rate=True), r"^rate is a number, got True$"),
        (lambda: SparseDescent(X, Y, rate=float("nan")), r"^rate is a number, got nan$"),
        (lambda: SparseDescent(X, Y, rate=float("inf")), r"^rate is a number, got inf$"),
        (lambda: SparseDescent(X, Y, rate="1/0"), r"^rate is a number, got '1/0'$"),
        (lambda: SparseDescent(X, Y, rate=[1]), r"^rate is a number, got \[1\]$"),
        (lambda: SparseDescent(X, Y, rate=0), r"^rate 0 is 0 units with 40 fraction bits; use another, or more bits$"),
        (lambda: SparseDescent(X, Y, rate="-1"), r"^rate -1 is -\d+ units with 40 fraction bits"),
        (lambda: SparseDescent(X, Y, rate=2**21), r"^rate 2097152 is \d+ units with 40 fraction bits"),
        (lambda: SparseDescent(X, Y, rate="0.02", fraction_bits=4), r"^rate 0\.02 is 0 units with 4 fraction bits"),
        (lambda: SparseDescent(X, Y, "l1", 0), r"^parameter 0 is 0 units with 40 fraction bits"),
        (lambda: SparseDescent(X, Y, "trimmed", "x"), r"^parameter is a number, got 'x'$"),
        (lambda: SparseDescent(X, Y, word_bits=59), r"^gradients of weights of 59 bits may take 6\d bits and may take 61"),
        (lambda: SparseDescent(X, Y, "l1", 2**21 - 1), r"^gradients of weights of 48 bits may take 6\d bits"),
        (lambda: SparseDescent(X, (2**20, 0, 0)), r"^gradients of weights of 48 bits may take 6\d bits and may take 61"),
        *[
            (lambda steps=steps: SparseDescent(X, Y).run(steps), rf"^steps are an integer of at least 0, got {steps}$")
            for steps in (-1, True, None)
        ],
        (lambda: SparseDescent(X, Y).run(2.0), r"^steps are an integer of at least 0, got 2\.0$"),
        (lambda: smallest([1, 2], 3), r"^of 2 values 0\.\.2 are chosen, got 3$"),
        (lambda: smallest([1, 2], True), r"^of 2 values 0\.\.2 are chosen, got True$"),
        (lambda: project([1, 2], -1), r"^of 2 values 0\.\.2 can be kept, got -1$"),
        (lambda: project([1.0, 2], 1), r"^values are signed integers \(mantissas\), got float64$"),
        (lambda: project(np.array([1], np.uint8), 1), r"^values are signed integers \(mantissas\), got uint8$"),
        (lambda: project([-(2**61) - 1], 1), r"^values are of magnitudes up to 2\*\*61, got -2305843009213693953 to"),
        (lambda: trimmed_threshold([1, 2], 1, 3), r"^of 2 values 0\.\.2 can be kept, got 3$"),
        (lambda: trimmed_threshold([1, 2], -1, 1), r"^a threshold is an integer in 0\.\.2\*\*62, in units of the values, got"),
        (lambda: soft_threshold([1, 2], 0.5), r"^a threshold is an integer in 0\.\.2\*\*62, in units of the values, got 0\.5$"),
        (lambda: soft_threshold([1, 2], 2**62 + 1), r"^a threshold is an integer in 0\.\.2\*\*62"),
        (lambda: soft_threshold([1, 2], False), r"^a threshold is an integer in 0\.\.2\*\*62"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_in_one_line(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_samples_of_zeros_count_in_the_loss_and_in_the_bound():
    """No weight moves this loss."""
    assert SparseDescent(((0, 0), (1, 1)), (2**24, 0), fraction_bits=30).run(1).losses == (2**48, 2**48)
    with pytest.raises(InputError, match="may take 65 bits"):
        SparseDescent(((0, 0), (1, 1)), (2**24, 0), fraction_bits=40)


def test_large_values_of_both_signs_are_refused():
    with pytest.raises(InputError, match=r"magnitudes up to 2\*\*61"):
        project([2**61 + 1], 1)


def test_what_keeps_nothing_apart_takes_one_feature():
    assert SparseDescent(((1,), (2,)), (2, 1)).run(1).losses[0] == 5


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(InputError):
        SparseDescent(((1, 2), (3,)), (1, 2))
