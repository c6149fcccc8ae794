"""The toy network of the study: a perceptron whose activations have few levels, in integers, and its exact losses.

Hidden activations are levels in -1..1: two (the sign), three, or four; or all between ("full", clamped to -1..1). There are no
biases; the last layer has one output and no activation; the loss is the mean squared error against the outputs of another such
network.

Weights are integers of a fixed-point format, inputs int16. Then all pre-activations of networks with levels are exact, and so
is the loss, a sum over samples in two words. With activations of all values, these are rounded to 16 fraction bits, and outputs
to those of the weights.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.kernels import _parallel
from intnet.random import random_words

LEVELS = {"binary": 1, "ternary": 2, "2bit": 3, "full": 0}
"""The activations, and how many steps lie between -1 and 1; 0 of one that has no threshold."""

INPUT_BITS = 12
"""Fraction bits of inputs."""

_CLAMPED_BITS = 16  # of activations without levels
_ERROR_MAX = 2**30
_SUM_MAX = 2**61
_SAMPLES_A_PIECE = 1 << 12


class Batch(NamedTuple):
    """Samples and what the outputs should be.

    Attributes
    ----------
    inputs : (features, samples) int16
        With 12 fraction bits.
    targets : (samples,) int64
        In units of a network's outputs.
    """

    inputs: NDArray[np.int16]
    targets: NDArray[np.int64]

    @property
    def samples(self) -> int:
        """How many."""
        return int(self.inputs.shape[1])


class Words(NamedTuple):
    """Exact integers ``high * 2**32 + low`` in two int64 arrays."""

    high: NDArray[np.int64]
    low: NDArray[np.int64]

    @classmethod
    def zeros(cls, *shape: int) -> "Words":
        """Return zeros."""
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    def __add__(self, other: Any) -> "Words":
        return Words(self.high + other.high, self.low + other.low)

    def __sub__(self, other: "Words") -> "Words":
        return Words(self.high - other.high, self.low - other.low)

    def exact(self) -> list[int]:
        """Return the integers, in C order."""
        return [int(h) * 2**32 + int(v) for h, v in zip(self.high.reshape(-1), self.low.reshape(-1), strict=True)]

    def joined(self) -> tuple[NDArray[np.int64], int]:
        """Return int64 of up to 61 bits and the exponent that all of them share: often 0, else what is below is rounded off."""
        out = np.empty((1, self.high.size), np.int64)
        shift = int(kernels.join_gradient(self.high.reshape(1, -1), self.low.reshape(1, -1), out))
        return out.reshape(self.high.shape), shift


@dataclass(frozen=True, eq=False)
class Perceptron:
    """A network of dense layers without biases and with one output.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden units of each layer, and 1.
    weights : (weights,) int64
        Layer after layer, each (outputs, inputs) in C order; in units of ``2**-weight_bits``.
    activation : {"binary", "ternary", "2bit", "full"}
    weight_bits : int, 8..24
        Fraction bits of weights.

    Raises
    ------
    InputError
        If an argument is none of these, or a pre-activation or an error could leave its word.
    """

    sizes: Sequence[int]
    weights: NDArray[np.int64]
    activation: str = "binary"
    weight_bits: int = 20

    def __post_init__(self) -> None:
        sizes = _as_sizes(self.sizes)
        if self.activation not in LEVELS:
            raise InputError(f"the activations are {', '.join(LEVELS)}, got {self.activation!r}")
        bits = self.weight_bits
        if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 8 <= bits <= 24:
            raise InputError(f"weights must have 8..24 fraction bits, got {bits!r}")
        count = sum(a * b for a, b in pairwise(sizes))
        weights = as_integers(f"the {count} weights of a network of sizes {sizes}", self.weights, (count,))
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "weights", weights)

    @classmethod
    def drawn(
        cls, sizes: Sequence[int], activation: str = "binary", seed: int = 0, *, weight_bits: int = 20, wide: bool = False
    ) -> "Perceptron":
        """Return a network with weights that are uniform in ``+-1/sqrt(inputs)`` of each layer.

        Parameters
        ----------
        sizes, activation, weight_bits : as above
        seed : int
        wide : bool
            Whether the weights are sqrt(3) times as large, so that pre-activations have a variance of about 1.
        """
        parts = []
        for layer, (n_in, n_out) in enumerate(pairwise(_as_sizes(sizes))):
            bound = round(2**weight_bits * (sqrt(3 / n_in) if wide else sqrt(1 / n_in)))
            words = random_words(seed, _WEIGHT_STREAM, layer, count=n_in * n_out).astype(np.int64)
            parts.append((words * (2 * bound + 1) >> 32) - bound)
        return cls(sizes, np.concatenate(parts), activation, weight_bits)

    # Layers and units

    @property
    def levels(self) -> int:
        """Steps between -1 and 1 of an activation; 0 if there are no levels."""
        return LEVELS[self.activation]

    @functools.cached_property
    def slices(self) -> list[slice]:
        """Where the weights of each layer stand."""
        ends = np.cumsum([0, *(a * b for a, b in pairwise(self.sizes))]).tolist()
        return [slice(a, b) for a, b in pairwise(ends)]

    @property
    def output_unit(self) -> Fraction:
        """What 1 stands for in outputs and targets."""
        return Fraction(1, 2**self.weight_bits * (max(1, self.levels) if len(self.sizes) > 2 else 1))

    @property
    def weight_unit(self) -> Fraction:
        """What 1 stands for in weights."""
        return Fraction(1, 2**self.weight_bits)

    @property
    def loss_unit(self) -> Fraction:
        """What 1 stands for in losses, sums of squared errors."""
        return self.output_unit**2

    @property
    def halves(self) -> int:
        """By what a direction is less than the gradient of the loss: it is that of half of it."""
        return 2

    def activation_unit(self, layer: int) -> Fraction:
        """Return what 1 stands for in the inputs of a layer."""
        if layer == 0:
            return Fraction(1, 2**INPUT_BITS)
        return Fraction(1, self.levels or 2**_CLAMPED_BITS)

    def pre_activation_unit(self, layer: int) -> Fraction:
        """Return what 1 stands for in the sums of a layer."""
        return self.weight_unit * self.activation_unit(layer)

    @functools.cached_property
    def rule(self) -> tuple[Any, ...]:
        """What kernels take of the activations: count, thresholds, shifts, one."""
        layers, count = len(self.sizes) - 1, self.levels
        thresholds = np.zeros((layers, kernels.MOST_LEVELS), np.int64)
        shifts = np.zeros(layers, np.int64)
        for layer in range(layers - 1):
            for k in range(count):
                thresholds[layer, k] = ceil(Fraction(2 * k + 1 - count, count) / self.pre_activation_unit(layer))
            if not count:
                shifts[layer] = self.weight_bits + (INPUT_BITS if layer == 0 else _CLAMPED_BITS) - _CLAMPED_BITS
        return np.int64(count), thresholds, shifts, np.int64(1 << _CLAMPED_BITS)

    @property
    def drop(self) -> np.int64:
        """Bits of the last sums below an output's unit."""
        if len(self.sizes) == 2:
            return np.int64(INPUT_BITS)
        return np.int64(0 if self.levels else _CLAMPED_BITS)

    @functools.cached_property
    def sizes_array(self) -> NDArray[np.int64]:
        """The sizes as kernels take them."""
        return np.array(self.sizes, np.int64)

    def with_weights(self, weights: NDArray[np.int64]) -> "Perceptron":
        """Return the same network with other weights."""
        return replace(self, weights=weights)

    def _prove(self, weights: NDArray[np.int64], batch_max: int, target_max: int) -> type[np.signedinteger[Any]]:
        """Refuse weights with which a sum could pass ``2**61``, or an error ``2**30``; return words for layers but the first.

        32 bits, if no weight and no sum of these layers can leave them.
        """
        narrow = True
        largest = [_largest(weights[..., one]) for one in self.slices]
        for layer, size in enumerate(self.sizes[:-1]):
            values = batch_max if layer == 0 else (self.levels or 2**_CLAMPED_BITS)
            total = largest[layer] * size * values
            narrow = narrow and (layer == 0 or total < 2**31)
            if total >= _SUM_MAX:
                raise InputError(f"sums of layer {layer + 1} may reach {total.bit_length()} bits; use fewer fraction bits")
        error = (total >> int(self.drop)) + 1 + target_max
        if error >= _ERROR_MAX:
            raise InputError(
                f"errors may reach {float(error * self.output_unit):.3g} and must stay below "
                f"{float(_ERROR_MAX * self.output_unit):.3g} with weights of {self.weight_bits} fraction bits; use fewer, or "
                "smaller weights"
            )
        return np.int32 if narrow else np.int64

    def largest_error(self, batch: Batch) -> int:
        """Return a bound of the errors' magnitudes, in units of the outputs."""
        self._prove(self.weights, _largest(batch.inputs), _largest(batch.targets))
        sums = int(np.abs(self.weights[self.slices[-1]]).sum()) * (
            _largest(batch.inputs) if len(self.sizes) == 2 else self.levels or 2**_CLAMPED_BITS
        )
        return (sums >> int(self.drop)) + 1 + _largest(batch.targets)

    # What it does to a batch

    def outputs(self, inputs: NDArray[np.int16]) -> NDArray[np.int64]:
        """Return the outputs for (features, samples) inputs."""
        self._check_inputs(inputs)
        self._prove(self.weights, _largest(inputs), 0)
        out = np.empty(inputs.shape[1], np.int64)
        pieces = _parallel.pieces_of(inputs.shape[1], minimum=_SAMPLES_A_PIECE)
        arguments = (self.weights, self.sizes_array, *self.rule, self.drop, out)
        _parallel.run(lambda first, last: kernels.perceptron_outputs(inputs, first, last, *arguments), pieces)
        return out

    def losses(self, batch: Batch, weights: NDArray[np.int64] | None = None) -> Words:
        """Return the loss, the exact sum of squared errors, under many sets of weights: (sets, weights), by default its own.

        Raises
        ------
        InputError
            If there are no samples, or a number could leave its word.
        """
        size = self.weights.size
        sets = self.weights.reshape(1, -1) if weights is None else as_integers("sets of weights", weights, (None, size))
        self.check(batch)
        later = sets.astype(self._prove(sets, _largest(batch.inputs), _largest(batch.targets)))
        arguments = (self.sizes_array, *self.rule, self.drop)

        def of_piece(first: int, last: int, low: int, high: int) -> tuple[int, Words]:
            words = Words.zeros(high - low)
            every: list[Any] = [batch.inputs, batch.targets, first, last, sets[low:high], later[low:high], *arguments, *words]
            kernels.perceptron_losses(*every)
            return low, words

        total = Words.zeros(len(sets))
        for low, words in _parallel.run(of_piece, _cut(batch.samples, len(sets))):
            total.high[low : low + words.high.size] += words.high
            total.low[low : low + words.low.size] += words.low
        return total

    def pair_losses(self, batch: Batch, moves: NDArray[np.int64]) -> Words:
        """Return the losses with weights that are moved, there and back: (pairs, weights) moves, (2, pairs) losses.

        The bits of :meth:`losses` of ``weights + moves`` and ``weights - moves``, sooner.
        """
        self.check(batch)
        moves = as_integers("moves of weights", moves, (None, self.weights.size))
        both = np.stack([self.weights + moves, self.weights - moves])
        later = both.astype(self._prove(both, _largest(batch.inputs), _largest(batch.targets)))
        arguments = (self.sizes_array, *self.rule, self.drop)

        def of_piece(first: int, last: int, low: int, high: int) -> tuple[int, Words]:
            words = Words.zeros(2, high - low)
            some = np.ascontiguousarray(later[:, low:high])
            sets = (self.weights, moves[low:high], some)
            every: list[Any] = [batch.inputs, batch.targets, first, last, *sets, *arguments, *words]
            kernels.perceptron_pair_losses(*every)
            return low, words

        total = Words.zeros(2, len(moves))
        for low, words in _parallel.run(of_piece, _cut(batch.samples, len(moves))):
            total.high[:, low : low + words.high.shape[1]] += words.high
            total.low[:, low : low + words.low.shape[1]] += words.low
        return total

    def changes(self, batch: Batch, epsilon: int, wanted: NDArray[np.bool_] | None = None) -> Words:
        """Return by how much the loss rises if one weight is `epsilon` units more, and less: (2, weights), of those wanted."""
        self.check(batch)
        furthest = np.abs(self.weights).max(initial=0) + epsilon
        self._prove(np.full_like(self.weights, furthest), _largest(batch.inputs), _largest(batch.targets))
        chosen = np.ones(self.weights.size, np.bool_) if wanted is None else np.ascontiguousarray(wanted, np.bool_)
        by_input = np.concatenate([self.weights[one].reshape(n_out, n_in).T.reshape(-1) for one, n_in, n_out in self.shapes()])
        arguments = (self.weights, by_input, self.sizes_array, *self.rule, self.drop, np.int64(epsilon), chosen)

        def of_piece(first: int, last: int) -> Words:
            words = Words.zeros(2, self.weights.size)
            every: list[Any] = [batch.inputs, batch.targets, first, last, *arguments, *words]
            kernels.perceptron_changes(*every)
            return words

        pieces = _parallel.pieces_of(batch.samples, minimum=_SAMPLES_A_PIECE)
        return sum(_parallel.run(of_piece, pieces), Words.zeros(2, self.weights.size))

    def shapes(self) -> Iterable[tuple[slice, int, int]]:
        """Return of each layer where its weights stand, its inputs and its outputs."""
        return zip(self.slices, self.sizes[:-1], self.sizes[1:], strict=True)

    def check(self, batch: Batch) -> None:
        """Refuse a batch that is not this network's."""
        self._check_inputs(batch.inputs)
        if not batch.samples:
            raise InputError("a batch needs samples, got none")
        targets = batch.targets
        if not isinstance(targets, np.ndarray) or targets.dtype != np.int64 or targets.shape != (batch.samples,):
            raise InputError(f"targets are int64 of shape ({batch.samples},), one a sample, got {_described(targets)}")

    def _check_inputs(self, inputs: Any) -> None:
        wrong = not isinstance(inputs, np.ndarray) or inputs.dtype != np.int16 or inputs.ndim != 2
        if wrong or inputs.shape[0] != self.sizes[0]:
            raise InputError(
                f"the network has {self.sizes[0]} inputs and takes int16 of shape ({self.sizes[0]}, samples), got "
                f"{_described(inputs)}"
            )


def as_integers(name: str, values: Any, shape: tuple[int | None, ...]) -> NDArray[np.int64]:
    """Return integers as a contiguous int64 array of that shape; None is any length.

    Raises
    ------
    InputError
        If they are none, or have another shape, or leave int64.
    """
    array = np.asarray(values)
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if array.dtype.kind not in "iu" or not fits or (array.dtype == np.uint64 and array.size and int(array.max()) >= 2**63):
        wanted = ", ".join("n" if length is None else str(length) for length in shape)
        raise InputError(f"{name} must be integers of shape ({wanted}{',' * (len(shape) == 1)}), got {_described(values)}")
    return np.ascontiguousarray(array, np.int64)


def _described(values: Any) -> str:
    array = np.asarray(values)
    return f"{array.dtype} of shape {array.shape}"


def _as_sizes(sizes: Any) -> tuple[int, ...]:
    every = tuple(sizes) if isinstance(sizes, (tuple, list, np.ndarray)) else ()
    wrong = any(isinstance(one, (bool, np.bool_)) or not isinstance(one, (int, np.integer)) or one < 1 for one in every)
    if len(every) < 2 or wrong or every[-1] != 1:
        raise InputError(f"sizes are those of the inputs, of hidden layers, and 1 output, got {sizes!r}")
    return tuple(int(one) for one in every)


# Data -------------------------------------------------------------------------------------------------------------------

_WEIGHT_STREAM, _INPUT_STREAM = 32, 33
_QUANTILE_BITS = 16


@functools.cache
def normal_table() -> NDArray[np.int32]:
    """Return 65,536 equally likely values of a normal distribution, with 16 fraction bits, of mean 0 and variance 1."""
    count = 1 << _QUANTILE_BITS
    half = np.array([NormalDist().inv_cdf((2 * k + 1) / (2 * count)) for k in range(count // 2, count)])
    half /= np.sqrt(np.mean(half**2))
    upper = np.rint(half * 2**16).astype(np.int32)
    return np.concatenate([-upper[::-1], upper])


def draw_normal(seed: int, stream: int, step: int, count: int) -> NDArray[np.int32]:
    """Return normal numbers with 16 fraction bits: of each word of a random sequence two."""
    words = random_words(seed, stream, step, count=-(-count // 2))
    return normal_table()[words.view(np.uint16)[:count]]


def draw_uniform(seed: int, stream: int, step: int, count: int) -> list[int]:
    """Return numbers in 0..2**16 - 1."""
    return [int(word) >> 16 for word in random_words(seed, stream, step, count=count)]


def gaussian_inputs(features: int, samples: int, seed: int, number: int = 0) -> NDArray[np.int16]:
    """Return inputs of N(0, 1): (features, samples) int16 with 12 fraction bits, up to 4.3 in magnitude."""
    values = draw_normal(seed, _INPUT_STREAM, number, features * samples)
    return ((values + 8) >> 4).astype(np.int16).reshape(features, samples)


def _cut(samples: int, sets: int) -> list[tuple[int, int, int, int]]:
    """Return who does what: samples from and to, sets from and to; apart by sets where there are many."""
    if sets >= 4 * _parallel.threads():
        return [(0, samples, *piece) for piece in _parallel.pieces_of(sets, minimum=1)]
    return [(*piece, 0, sets) for piece in _parallel.pieces_of(samples, minimum=_SAMPLES_A_PIECE)]


def _largest(values: NDArray[Any]) -> int:
    return max(-int(values.min(initial=0)), int(values.max(initial=0)))
