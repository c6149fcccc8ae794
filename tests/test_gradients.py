"""Estimators of gradients: every loss and difference exact, every estimator what its definition says; mistakes."""

import itertools
from fractions import Fraction

import naive_levels
import numpy as np
import pytest
from naive_levels import rosenbrock
from toy_networks import as_matrices, as_samples, cosine, problem

from intnet import kernels
from intnet.errors import InputError
from intnet.gradients import (
    CDG,
    DERIVATIVES,
    LEVELS,
    NES,
    STE,
    Around,
    Batch,
    FirstLayers,
    MaxPoint,
    Perceptron,
    gaussian_inputs,
    step,
)
from intnet.gradients.perceptron import Words, draw_normal, normal_table

ACTIVATIONS = tuple(LEVELS)


# 1. The network -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(4, 5, 3, 1), (3, 1), (2, 6, 1)])
def test_outputs_and_losses_are_exact(activation, sizes):
    network, batch = problem(activation, sizes)
    samples, targets = as_samples(network, batch)
    bits, count = network.weight_bits, network.levels
    outputs = network.outputs(batch.inputs)
    expected = [naive_levels.output(as_matrices(network), x, count, bits) for x in samples]
    assert [int(v) * network.output_unit for v in outputs] == expected
    moved = np.stack([network.weights, network.weights + 12345])
    losses = [v * network.output_unit**2 for v in network.losses(batch, moved).exact()]
    assert losses == [naive_levels.loss(as_matrices(network, w), samples, targets, count, bits) for w in moved]
    assert network.losses(batch).exact()[0] * network.output_unit**2 == losses[0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_levels_are_reached_at_their_thresholds(activation):
    """All sums near the thresholds, of a network whose first layer is the identity."""
    count = LEVELS[activation]
    network = Perceptron((1, 1, 1), np.array([1 << 20, 1 << 20]), activation)
    edges = [round(Fraction(2 * k + 1 - count, count) * 2**12) for k in range(count)] if count else [0, 2**12, -(2**12)]
    values = np.array([[edge + off for edge in edges for off in range(-3, 4)]], np.int16)
    got = [int(v) * network.output_unit for v in network.outputs(values)]
    assert got == [naive_levels.activate(Fraction(int(v), 2**12), count) for v in values[0]]
    assert len(set(got)) >= count + 1


def test_pieces_and_threads_change_nothing():
    network, batch = problem(samples=9000, sizes=(3, 4, 1))
    before, found = kernels.threads(), set()
    sets = np.stack([network.weights + k for k in range(40)])
    try:
        for threads in (1, 2, 3):
            kernels.set_threads(threads)
            every = (network.losses(batch), network.losses(batch, sets), network.changes(batch, 3000))
            found.add(str([words.exact() for words in every]))
    finally:
        kernels.set_threads(before)
    assert len(found) == 1


# 2. Coordinate differences ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("epsilon", ["0.001", "0.1", "1.5"])
@pytest.mark.parametrize("sizes", [(4, 5, 3, 1), (3, 4, 4, 3, 1), (3, 1), (2, 7, 1)])
def test_the_fast_one_equals_two_evaluations_a_weight(activation, epsilon, sizes):
    network, batch = problem(activation, sizes, samples=300)
    fast, plain = CDG(epsilon)(network, batch), CDG(epsilon, plain=True)(network, batch)
    assert fast.integers.tolist() == plain.integers.tolist()
    assert fast.units == plain.units


def test_it_is_the_difference_of_losses():
    network, batch = problem(samples=30)
    samples, targets = as_samples(network, batch)
    found, units = CDG("0.1")(network, batch), round(Fraction("0.1") * 2**20)
    for i in range(network.weights.size):
        losses = []
        for sign in (1, -1):
            weights = network.weights.copy()
            weights[i] += sign * units
            losses.append(naive_levels.loss(as_matrices(network, weights), samples, targets, 1, 20))
        expected = (losses[0] - losses[1]) / (2 * units * network.weight_unit)
        assert int(found.integers[i]) * found.units[0] * 2 == expected  # of half the squared error


def test_some_weights_of_each_layer():
    network, batch = problem(sizes=(6, 8, 8, 1), samples=100)
    some, every = CDG("0.1", weights=10)(network, batch), CDG("0.1")(network, batch)
    wanted = CDG("0.1", weights=10).wanted(network)
    assert [int(wanted[one].sum()) for one in network.slices] == [10, 10, 8]
    assert some.integers[wanted].tolist() == every.integers[wanted].tolist()
    assert not some.integers[~wanted].any()
    assert (CDG("0.1", weights=10, seed=1).wanted(network) != wanted).any()


def test_of_a_smooth_network_it_is_the_gradient():
    """Activations without levels: the straight-through derivative is the true one, but where they are clamped."""
    network, batch = problem("full", sizes=(8, 8, 8, 1), samples=2000)
    true, differences = STE()(network, batch), CDG("0.01")(network, batch)
    for a, b in zip(true.layers(network), differences.layers(network), strict=True):
        assert cosine(a, b) > 0.9999
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=1e-3)


# 3. Straight-through ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_backpropagation_within_its_tables(activation, derivative):
    network, batch = problem(activation, samples=60)
    found = STE(derivative)(network, batch).layers(network)
    function = DERIVATIVES[derivative if activation == "binary" else "vanilla"]
    expected = naive_levels.gradient(*_as_reference(network, batch), function)
    for mine, theirs in zip(found, expected, strict=True):
        theirs = np.array(theirs, np.float64).reshape(-1)
        np.testing.assert_allclose(mine, theirs, atol=2e-3 * np.abs(theirs).max() if derivative != "steep" else 3e-3)


def _as_reference(network, batch):
    return as_matrices(network), *as_samples(network, batch), network.levels, network.weight_bits


@pytest.mark.parametrize(("derivative", "edge"), [("vanilla", 1), ("steep", Fraction(1, 2))])
def test_ties_at_the_edges_of_a_window_are_within(derivative, edge):
    """A sum of exactly the edge has the derivative, one that is a unit beyond has not."""
    network = Perceptron((2, 1, 1), np.array([int(edge * 2**20), 1, 1 << 20]))
    for sign in (1, -1):
        for beyond in (0, 1):
            inputs = np.array([[sign * 2**12], [sign * beyond]], np.int16)
            found = STE(derivative)(network, Batch(inputs, np.array([-5 << 20])))
            assert bool(found.integers[0]) is not bool(beyond), (sign, beyond)


def test_derivatives_integrate_to_the_step():
    x = np.linspace(-4, 4, 80001)
    for function in DERIVATIVES.values():
        values = np.array([function(float(v)) for v in x])
        assert np.trapezoid(values, x) == pytest.approx(2, abs=1e-3)  # from -1 to 1
        np.testing.assert_allclose(values, values[::-1], atol=1e-12)


def test_stochastic_signs_have_their_probabilities():
    """The share of +1 lies within five standard deviations of p, 41 values: a false alarm in 40,000 tries."""
    z = np.repeat(np.arange(-20, 21) * 1000, 4000)
    out = np.empty(z.size, np.int64)
    sequence = np.zeros(4, np.uint64)
    kernels.sign_stochastically(z, np.int64(20_000), np.int64(20_000), *sequence, np.int64(0), out)
    shares = (out.reshape(41, -1) == 1).mean(axis=1)
    p = (np.arange(-20, 21) / 20 + 1) / 2
    assert set(np.unique(out)) == {-1, 1}
    assert (np.abs(shares - p) <= 5 * np.sqrt(p * (1 - p) / 4000)).all()
    assert shares[0] == 0
    assert shares[-1] == 1
    halves = np.empty(z.size, np.int64)
    kernels.sign_stochastically(z, np.int64(40_000), np.int64(20_000), *sequence, np.int64(0), halves)
    assert (halves == 1).mean() < (out == 1).mean()
    assert kernels.sign_stochastically(np.zeros(9, np.int64), np.int64(0), np.int64(0), *sequence, np.int64(0), out[:9]) is None


def test_stochastic_activations_are_averaged_and_seeded():
    network, batch = problem(samples=500)
    one, again, other = (STE(signs=1, seed=seed)(network, batch).integers for seed in (3, 3, 4))
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()
    many = STE(signs=3, seed=3)(network, batch)
    assert np.abs(many.integers).max() > np.abs(one).max()  # of a sum, whose unit is a third
    assert many.units == [unit / 3 for unit in STE(signs=1, seed=3)(network, batch).units]
    random = STE(window=True, seed=5)(network, batch).integers
    assert (
        random.tolist() == STE(window=True, seed=5)(network, batch).integers.tolist() != STE()(network, batch).integers.tolist()
    )


# 4. Random directions -----------------------------------------------------------------------------------------------------


def test_nes_is_the_mean_over_pairs():
    network, batch = problem(sizes=(3, 4, 1), samples=50)
    samples, targets = as_samples(network, batch)
    pairs, size, sigma = 70, network.weights.size, Fraction(1, 4)
    noise = np.concatenate([draw_normal(7, 34, k, min(64, pairs - 64 * k) * size) for k in range(2)]).reshape(pairs, size)
    total = np.zeros(size)
    for e in noise:
        moves = np.array([round(sigma * int(v) * 2**20 / 2**16) for v in e])
        losses = [
            naive_levels.loss(as_matrices(network, network.weights + sign * moves), samples, targets, 1, 20) for sign in (1, -1)
        ]
        total += float(losses[0] - losses[1]) * e / 2**16 / (2 * float(sigma) * pairs)
    found = NES(sigma, pairs, seed=7)(network, batch)
    np.testing.assert_allclose(np.concatenate(found.layers(network)) * 2, total, rtol=1e-6, atol=1e-6 * np.abs(total).max())
    first, second = NES(sigma, pairs, seed=7).directions(network, batch, [pairs, 30])
    assert first.integers.tolist() == found.integers.tolist()
    assert cosine(np.concatenate(second.layers(network)), np.concatenate(found.layers(network))) > 0.3


def test_normal_numbers():
    table = normal_table()
    assert table.size == 2**16
    assert (np.diff(table) >= 0).all()
    assert (table == -table[::-1]).all()
    values = table / 2**16
    assert np.mean(values**2) == pytest.approx(1, abs=1e-4)
    assert np.mean(values**4) == pytest.approx(3, abs=5e-3)
    drawn = draw_normal(1, 2, 3, 100_001)
    assert drawn.size == 100_001
    assert abs(drawn.mean()) < 5 * 2**16 / np.sqrt(1e5)  # five standard deviations
    assert gaussian_inputs(3, 7, 1).shape == (3, 7)


# 5. Steps -----------------------------------------------------------------------------------------------------------------


def test_a_step_has_its_length_in_every_layer():
    network, batch = problem(samples=200)
    direction = CDG("0.1")(network, batch)
    rates = [Fraction(0), Fraction(1, 10), Fraction("0.37")]
    weights = step(network, direction, rates)
    assert weights[0].tolist() == network.weights.tolist()
    for one, g in zip(network.slices, direction.layers(network), strict=True):
        for rate, moved in zip(rates[1:], weights[1:], strict=True):
            move = (moved[one] - network.weights[one]) * float(network.weight_unit)
            np.testing.assert_allclose(move, -float(rate) * g / np.linalg.norm(g), atol=2**-20)
    assert network.losses(batch, weights[1:2]).exact() < network.losses(batch).exact()


def test_words_are_exact():
    words = Words(np.array([3, -1, 2**40]), np.array([5, 2**32 - 1, 2**33]))
    assert words.exact() == [3 * 2**32 + 5, -1, 2**72 + 2**33]
    integers, shift = words.joined()
    assert shift == 12
    assert integers.tolist() == [round(v / 2**12) for v in words.exact()]


# 6. Rosenbrock ------------------------------------------------------------------------------------------------------------


def test_a_pairs_loss_is_near_the_exact_one():
    values = [-(2**46), -3, 0, 1, 2**39, 2**40, 2**40 + 1, 2**40 - 12345, 2**43 + 77, 2**46]
    for p, q in itertools.product(values, values):
        mantissa, exponent = map(int, kernels.pair_loss(np.int64(p), np.int64(q)))
        exact = rosenbrock([Fraction(p, 2**40), Fraction(q, 2**40)])
        assert 0 <= mantissa < 2**62
        assert abs(mantissa * Fraction(2) ** exponent - exact) <= exact / 2**25


def test_coordinate_differences_reach_the_minimum_if_they_shrink():
    x = np.array([-3, 7, 2, -9]) << 40
    rate = epsilon = 2**40 // 10
    for _ in range(9):
        assert kernels.rosenbrock_descent(x, np.int64(epsilon), np.int64(rate), np.int64(4000)) == 0
        rate, epsilon = rate // 8, epsilon // 8
    assert rosenbrock([Fraction(int(v), 2**40) for v in x]) < Fraction(1, 10**10)
    stays = np.array([-3, 7, 2, -9]) << 40
    kernels.rosenbrock_descent(stays, np.int64(2**40 // 10), np.int64(2**40 // 10), np.int64(36000))
    assert rosenbrock([Fraction(int(v), 2**40) for v in stays]) > Fraction(1, 10**6)
    best = np.full(4, 1 << 40)
    assert kernels.rosenbrock_descent(best, np.int64(1000), np.int64(1), np.int64(3)) == 0 or (best == 1 << 40).all()


# 7. Mistakes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda n, b: CDG("0.0000001")(n, b), ["epsilon", "vanishes", "9.54e-07", "4.77e-07"]),
        (lambda n, b: CDG(Fraction(1, 2**21))(n, b), ["epsilon 4.76837e-07 vanishes", "just above 4.77e-07"]),
        (lambda n, b: CDG("no")(n, b), ["epsilon", "'no'"]),
        (lambda n, b: CDG("-0.1")(n, b), ["epsilon must be a number above 0", "'-0.1'"]),
        (lambda n, b: CDG(0)(n, b), ["epsilon must be a number above 0", "got 0"]),
        (lambda n, b: CDG(float("nan"))(n, b), ["epsilon must be a number above 0", "got nan"]),
        (lambda n, b: CDG(float("inf"), plain=True)(n, b), ["epsilon must be a number above 0", "got inf"]),
        (lambda n, b: CDG("1e13")(n, b), ["epsilon is too far", "9.54e-07", "2.1e+06", "'1e13'"]),
        (lambda n, b: CDG("1e5")(n, b), ["errors may reach"]),
        (lambda n, b: CDG("1e5", plain=True)(n, b), ["errors may reach"]),
        (lambda *_: CDG("0.1", weights=0), ["at least 1 weight of a layer", "got 0"]),
        (lambda *_: CDG("0.1", weights=1.5), ["at least 1 weight of a layer", "got 1.5"]),
        (lambda *_: CDG("0.1", weights=True), ["at least 1 weight of a layer", "got True"]),
        (lambda n, b: NES("-1", 5)(n, b), ["sigma must be a number above 0", "'-1'"]),
        (lambda n, b: NES("1e30", 5)(n, b), ["sigma is too far", "'1e30'"]),
        (lambda *_: MaxPoint("0.1", 0), ["at least 1 of its pairs of points", "got 0"]),
        (lambda n, b: MaxPoint("0.0000001", 5)(n, b), ["length", "vanishes"]),
        (lambda n, b: MaxPoint(0, 5)(n, b), ["length must be a number above 0", "got 0"]),
        (lambda *_: Around(STE(), "0.1", "0.1", 0), ["at least 1 of its points", "got 0"]),
        (lambda *_: Around(STE(), "0", "0.1", 3), ["spread must be a number above 0", "'0'"]),
        (lambda *_: Around(STE(), "1e-10", "0.1", 3), ["spread 1e-10 vanishes"]),
        (lambda *_: Around(STE(), "3000", "0.1", 3), ["spread is too far", "'3000'"]),
        (lambda n, b: Around(STE(), "0.1", "-2", 3)(n, b), ["length must be a number above 0", "'-2'"]),
        (lambda n, _: FirstLayers(n, 0), ["1..3 first layers", "got 0"]),
        (lambda n, _: FirstLayers(n, 4), ["1..3 first layers", "got 4"]),
        (lambda n, _: FirstLayers(n, True), ["1..3 first layers", "got True"]),
        (lambda n, b: STE()(FirstLayers(n, 1), Batch(b.inputs[:2], b.targets)), ["4 inputs", "(2, 40)"]),
        (lambda n, b: n.pair_losses(Batch(b.inputs[:2], b.targets), np.zeros((1, 38), np.int64)), ["4 inputs", "(2, 40)"]),
        (lambda n, b: n.pair_losses(b, np.full((1, 38), 1 << 40)), ["errors may reach"]),
        (lambda n, b: NES("0.0000001", 5)(n, b), ["sigma", "vanishes"]),
        (lambda *_: NES("0.1", 0), ["pairs", "0"]),
        (lambda *_: STE("cubic"), ["vanilla", "'cubic'"]),
        (lambda *_: STE(signs=-1), ["-1"]),
        (lambda *_: STE(signs=1)(*problem("ternary")), ["binary", "ternary"]),
        (lambda n, b: CDG("0.1")(n, Batch(b.inputs[:, :0], b.targets[:0])), ["samples", "none"]),
        (lambda n, b: CDG("0.1")(n, Batch(b.inputs[:2], b.targets)), ["4 inputs", "(2, 40)"]),
        (lambda *_: Perceptron((4, 2), np.zeros(8, int)), ["1 output"]),
        (lambda *_: Perceptron((4, 1), np.zeros(3, int)), ["4 weights", "(3,)"]),
        (lambda *_: Perceptron((1, 1), np.zeros(1, int), "quaternary"), ["binary, ternary", "'quaternary'"]),
        (lambda *_: Perceptron((1, 1), np.zeros(1, int), weight_bits=40), ["8..24", "40"]),
        (lambda n, b: n.with_weights(n.weights + (1 << 50)).losses(b), ["fraction bits"]),
        (lambda *_: Perceptron((4.7, 1), np.zeros(4, int)), ["sizes", "4.7"]),
        (lambda *_: Perceptron.drawn((0, 1)), ["sizes", "(0, 1)"]),
        (lambda *_: Perceptron((4, 1), np.full(4, 0.1)), ["integers of shape (4,)", "float64"]),
        (lambda *_: Perceptron((1, 1), np.zeros(1, int), weight_bits=20.0), ["8..24", "20.0"]),
        (lambda n, b: n.losses(b, np.zeros((1, 7), int)), ["integers of shape (n, 38)", "(1, 7)"]),
        (lambda n, b: n.losses(b, np.zeros((1, 38))), ["integers of shape (n, 38)", "float64"]),
        (lambda n, b: FirstLayers(n, 1).losses(b, np.zeros((2, 5), int)), ["integers of shape (n, 20)", "(2, 5)"]),
        (lambda n, b: n.outputs(b.inputs[:3]), ["4 inputs", "(3, 40)"]),
        (lambda n, b: n.losses(Batch(b.inputs / 2**12, b.targets)), ["int16", "float64"]),
        (lambda n, b: n.losses(Batch(b.inputs, b.targets / 2)), ["int64", "float64"]),
        (lambda n, b: n.with_weights(np.full(38, -(2**63))).losses(b), ["fraction bits"]),
        (lambda n, b: CDG(True)(n, b), ["epsilon must be a number above 0", "True"]),
        (lambda n, b: step(n, STE()(n, b), ["x"]), ["number", "'x'"]),
        (lambda n, b: step(FirstLayers(n, 1), STE()(n, b), ["0.1"]), ["38 weights", "20"]),
        (lambda n, b: NES("0.1", 3).directions(n, b, []), ["at least one count"]),
        (lambda n, b: MaxPoint("0.1", 3).directions(n, b, [0]), ["at least 1", "got 0"]),
        (lambda *_: STE(signs=1.5), ["stochastic signs", "1.5"]),
        (lambda n, b: n.losses(Batch(b.inputs, b.targets + (1 << 30))), ["errors may reach", "1.02e+03"]),
    ],
)
def test_mistakes(make, parts):
    with pytest.raises(InputError) as caught:
        make(*problem())
    for part in parts:
        assert part in str(caught.value)


def test_the_least_that_does_not_vanish_moves_weights_by_one_unit():
    network, batch = problem(samples=9)
    for plain in (False, True):
        found = [CDG(epsilon, plain=plain)(network, batch) for epsilon in (Fraction(1, 2**21) + Fraction(1, 2**99), "1.4e-6")]
        assert found[0].integers.tolist() == found[1].integers.tolist()
        assert found[0].units == found[1].units
