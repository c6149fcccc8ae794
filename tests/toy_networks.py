"""Small perceptrons with a batch each, and the same in Fractions, as tests/naive_levels.py takes them."""

from fractions import Fraction

import numpy as np

from intnet.gradients import Batch, Perceptron, gaussian_inputs


def problem(activation="binary", sizes=(4, 5, 3, 1), samples=40, seed=0, weight_bits=20):
    """Return a network and a batch that another one has labelled."""
    wide = activation in ("ternary", "2bit")
    target, network = (
        Perceptron.drawn(sizes, activation, first + seed, weight_bits=weight_bits, wide=wide) for first in (100, 200)
    )
    inputs = gaussian_inputs(sizes[0], samples, seed)
    return network, Batch(inputs, target.outputs(inputs))


def as_matrices(network, weights=None):
    """Return a matrix of Fractions for each layer."""
    weights = network.weights if weights is None else weights
    return [
        [[Fraction(int(w)) * network.weight_unit for w in weights[one].reshape(n_out, n_in)[i]] for i in range(n_out)]
        for one, n_in, n_out in zip(network.slices, network.sizes[:-1], network.sizes[1:], strict=True)
    ]


def as_samples(network, batch):
    """Return inputs and targets."""
    samples = [[Fraction(int(v), 2**12) for v in column] for column in batch.inputs.T]
    return samples, [int(t) * network.output_unit for t in batch.targets]


def cosine(a, b):
    """Return the cosine of the angle between two vectors."""
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
