"""Kernels of perceptrons with few levels, and of the Rosenbrock function: against slow references; as plain Python too."""

from fractions import Fraction
from math import isqrt

import naive
import naive_levels
import numpy as np
import pytest
from toy_networks import as_matrices, as_samples, problem

from intnet import kernels
from intnet.gradients import CDG, DERIVATIVES, LEVELS, STE
from intnet.random import sequence_words

NETWORKS = [((2, 3, 2, 1), 20), ((2, 3, 2, 1), 8), ((2, 1), 20)]  # of 8 fraction bits, later layers of "full" have 32 too


def losses(network, batch, sets):
    """Return slow losses in units of the network's."""
    samples = as_samples(network, batch)
    matrices = [as_matrices(network, one) for one in sets]
    return [naive_levels.loss(one, *samples, network.levels, network.weight_bits) / network.loss_unit for one in matrices]


@pytest.mark.parametrize("activation", LEVELS)
@pytest.mark.parametrize(("sizes", "bits"), NETWORKS)
def test_losses_and_changes_are_exact(activation, sizes, bits):
    """Of all weights, one more and one less at a time; of pairs; of the outputs."""
    network, batch = problem(activation, sizes, samples=5, weight_bits=bits)
    units, weights = 1 << (bits - 1), network.weights
    more, less = weights + units * np.eye(weights.size, dtype=np.int64), weights - units * np.eye(weights.size, dtype=np.int64)
    (before,), above, below = losses(network, batch, [weights]), losses(network, batch, more), losses(network, batch, less)
    assert network.losses(batch, np.concatenate([more, less])).exact() == above + below
    assert network.pair_losses(batch, more - weights).exact() == above + below
    assert network.changes(batch, units).exact() == [loss - before for loss in above + below]
    some = np.arange(weights.size) % 2 == 0
    assert network.changes(batch, units, some).exact() == [
        (loss - before) * int(wanted) for loss, wanted in zip(above + below, [*some, *some], strict=True)
    ]
    outputs = [naive_levels.output(as_matrices(network), x, network.levels, bits) for x in as_samples(network, batch)[0]]
    assert [int(v) * network.output_unit for v in network.outputs(batch.inputs)] == outputs
    assert CDG(0.5)(network, batch).integers.tolist() == [a - b for a, b in zip(above, below, strict=True)]


@pytest.mark.parametrize("activation", ["binary", "ternary", "full"])
def test_straight_through_gradients_are_those_of_the_chain_rule(activation):
    network, batch = problem(activation, (2, 3, 2, 1), samples=9)
    found = STE("polynomial")(network, batch).layers(network)
    function = DERIVATIVES["polynomial" if activation == "binary" else "vanilla"]
    expected = naive_levels.gradient(
        as_matrices(network), *as_samples(network, batch), network.levels, network.weight_bits, function
    )
    for mine, theirs in zip(found, expected, strict=True):
        theirs = np.array(theirs, np.float64).reshape(-1)
        np.testing.assert_allclose(mine, theirs, atol=2e-3 * np.abs(theirs).max())


def test_stochastic_signs_compare_with_their_random_numbers():
    """+1 where a number of 32 random bits is below (1 + z / greatest) / 2, of negative z with the least: exactly."""
    z = np.array([*range(-1000, 1001, 40), 1000, -1000, 0, 2**20, -(2**29)])
    for greatest, least in ((2**20, 2**29), (2**30, 2**30), (2**20, 2**30)):
        out = np.zeros(z.size, np.int64)
        kernels.sign_stochastically(z, np.int64(greatest), np.int64(least), *sequence_words(5, 64, 3), np.int64(7), out)
        for i, value in enumerate(z.tolist()):
            u = Fraction(naive.random_fraction(5, 64, 3, 7 + i, 32), 2**32)
            p = (1 + Fraction(value, greatest if value > 0 else least)) / 2
            assert out[i] == (1 if u < p else -1)
    certain, out = np.array([300, -200, 300, -200] * 9), np.zeros(36, np.int64)
    kernels.sign_stochastically(certain, np.int64(300), np.int64(200), *sequence_words(1, 64, 0), np.int64(0), out)
    assert out.tolist() == np.sign(certain).tolist()


def test_sums_of_a_layer():
    rng = np.random.default_rng(0)
    for samples in (1, 300):
        values, weights = rng.integers(-(2**14), 2**14, (3, samples)).astype(np.int16), rng.integers(-(2**20), 2**20, (2, 3))
        out = np.zeros((2, samples), np.int64)
        kernels.layer_sums(values, weights, out)
        assert out.tolist() == (weights.astype(object) @ values.astype(object)).tolist()


@pytest.mark.parametrize("epsilon", [2**40 // 100, 2**30])
def test_a_step_on_the_rosenbrock_function(epsilon):
    """Every pair's loss is within 2**-25 of itself: so is each difference of two of them, and so the step."""
    x, rate = np.array([-3, 7, 2, -9, 1, 1]) * 2**40 + np.array([12345, -1, 2**39, 0, 77, 0]), 2**40 // 10
    here = [Fraction(int(v), 2**40) for v in x]
    g, errors = [], []
    for i in range(6):
        ways = []
        for sign in (1, -1):
            moved = list(here)
            moved[i] += Fraction(sign * epsilon, 2**40)
            pair = i - i % 2
            ways.append(naive_levels.rosenbrock(moved[pair : pair + 2]))
        g.append(ways[0] - ways[1])
        errors.append(float(sum(ways)) / 2**24)
    norm = Fraction(isqrt(int(sum(v * v for v in g) * 4**100)), 2**100)
    moved = x.copy()
    assert kernels.rosenbrock_descent(moved, np.int64(epsilon), np.int64(rate), np.int64(1)) == 0
    for i in range(6):
        bound = 2 * rate * (errors[i] + sum(errors) * abs(float(g[i] / norm))) / float(norm) + 1e-8 * rate + 1
        assert abs(float(x[i] - rate * g[i] / norm - int(moved[i]))) <= bound
        assert bound < rate / 100
