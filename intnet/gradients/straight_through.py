"""Straight-through estimators: backpropagation with a derivative that the activation does not have."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from math import ceil, cosh, tanh
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.gradients.direction import Direction
from intnet.gradients.perceptron import Batch, Perceptron, Words, draw_uniform
from intnet.kernels import _parallel
from intnet.random import sequence_words

_TABLE_BITS, _TABLE_ENTRIES, _TABLE_RANGE = 16, 1 << 14, 4  # of derivatives; range: -4..4
_ERROR_LEFT, _ERROR_RIGHT = 3, -8  # errors are shifted up by 3 bits, or less, down to 8 below
_CHUNK = 1 << 14  # samples whose pre-activations are held at a time
_WINDOW_STREAM, _SIGN_STREAM = 37, 64  # and of each layer's signs one


def _vanilla(x: float) -> float:
    return 1.0 if abs(x) <= 1 else 0.0


def _steep(x: float) -> float:
    return 2.0 if abs(x) <= 0.5 else 0.0


def _swish(x: float, beta: float = 5.0) -> float:
    return beta * (2 - beta * x * tanh(beta * x / 2)) / (1 + cosh(beta * x))


def _polynomial(x: float) -> float:
    return max(0.0, 2 - 2 * abs(x))


DERIVATIVES = {"vanilla": _vanilla, "steep": _steep, "swish": _swish, "polynomial": _polynomial}
"""What stands for the derivative of the sign: see :class:`STE`."""


class Backpropagates(Protocol):
    """A network with a backward pass of its own."""

    def backpropagated(self, batch: Any, rule: "STE") -> Direction:
        """Return the gradient of the summed loss; refuse what its own pass cannot do."""


_EDGES = {"vanilla": Fraction(1), "steep": Fraction(1, 2)}
"""Where a derivative falls to 0 at once; that is still within."""


@dataclass(frozen=True)
class STE:
    """The straight-through estimator: backpropagation with a derivative that the activation does not have.

    Parameters
    ----------
    derivative : {"vanilla", "steep", "swish", "polynomial"}
        Of the pre-activation x: 1 where ``abs(x) <= 1``; 2 where ``abs(x) <= 1/2``; with b = 5, ``b (2 - b x tanh(b x / 2)) /
        (1 + cosh(b x))``; ``2 - 2 abs(x)`` where that is positive. Each a table of 16,384 values in -4..4. Activations of more
        than two levels have the derivative 1 where they are not clamped, whatever this is.
    signs : int
        Stochastic activations: so many samples of them are averaged; 0 takes the network's own activations. Binary ones only.
    seed : int
        Of stochastic activations.
    window : bool
        Whether each layer's argument x is first divided by a random number of 1/2..3/2, drawn by the seed: a random backward
        pass.

    References
    ----------
    Kim et al. 2020, BinaryDuo, arXiv:2002.06517, for the derivatives.
    """

    derivative: str = "vanilla"
    signs: int = 0
    seed: int = 0
    window: bool = False

    def __post_init__(self) -> None:
        if self.derivative not in DERIVATIVES:
            raise InputError(f"the derivatives are {', '.join(DERIVATIVES)}, got {self.derivative!r}")
        if isinstance(self.signs, bool) or not isinstance(self.signs, (int, np.integer)) or self.signs < 0:
            raise InputError(f"the number of stochastic signs must be 0 or more, got {self.signs!r}")

    def __call__(self, network: "Perceptron | Backpropagates", batch: Any) -> Direction:
        """Return the gradient of half the summed squared error; of a network that has a pass of its own, what that gives."""
        if not isinstance(network, Perceptron):
            return network.backpropagated(batch, self)
        network.check(batch)
        if self.signs and network.levels != 1:
            raise InputError(f"stochastic signs are those of binary activations, and these are {network.activation}")
        left = self._left(network, batch)
        total = Words.zeros(network.weights.size)
        for number in range(max(1, self.signs)):
            total = total + self._words(network, batch, number, left)
        return _direction_of(network, total, left, max(1, int(self.signs)))

    def _left(self, network: Perceptron, batch: Batch) -> int:
        """Return by how many bits errors are shifted up, so that they and all that they become on their way back fit."""
        error, table = network.largest_error(batch), _steepest(self.derivative)
        inputs = max(-int(batch.inputs.min()), int(batch.inputs.max()), network.levels or 2**16)
        for left in range(_ERROR_LEFT, _ERROR_RIGHT - 1, -1):
            needed = _bits(network, error << left if left >= 0 else (error >> -left) + 1, inputs, table)
            if needed <= 62:
                return left
        raise InputError(
            f"errors on their way back may need {needed} bits and have 62, with weights of {network.weight_bits} fraction "
            "bits; use fewer, or smaller weights"
        )

    def _words(self, network: Perceptron, batch: Batch, number: int, left: int) -> Words:
        table, shifts, limits = self._tables(network, number)
        tail = (network.drop, np.int64(left), np.int64(network.weight_bits), table, shifts, np.int64(_TABLE_BITS), limits)
        sizes, rule = network.sizes_array, network.rule
        units = sum(network.sizes[1:])
        if self.signs:
            z, a = self._stochastic(network, batch, number)

        def of_piece(first: int, last: int) -> Words:
            words = Words.zeros(network.weights.size)
            for begin in range(first, last, _CHUNK):
                end = min(begin + _CHUNK, last)
                if self.signs:
                    here = np.ascontiguousarray(z[:, begin:end]), np.ascontiguousarray(a[:, begin:end])
                else:
                    here = np.empty((units, end - begin), np.int64), np.empty((units, end - begin), np.int64)
                    arguments: list[Any] = [batch.inputs, begin, end, network.weights, sizes, *rule, *here]
                    kernels.perceptron_forward(*arguments)
                arguments = [batch.inputs, batch.targets, begin, end, network.weights, sizes, *here, *tail, *words]
                kernels.perceptron_gradient(*arguments)
            return words

        pieces = _parallel.pieces_of(batch.samples, minimum=1 << 12)
        return sum(_parallel.run(of_piece, pieces), Words.zeros(network.weights.size))

    def _tables(self, network: Perceptron, number: int) -> tuple[NDArray[np.int64], ...]:
        """Return the derivative of every hidden layer in units of its sums: tables, shifts, and where it ends."""
        hidden = len(network.sizes) - 2
        table, shifts = np.zeros((max(1, hidden), _TABLE_ENTRIES), np.int64), np.zeros(max(1, hidden), np.int64)
        limits = np.zeros(max(1, hidden), np.int64)
        scales = [1.0] * hidden
        if self.window:
            scales = [0.5 + word / 2**16 for word in draw_uniform(self.seed, _WINDOW_STREAM, number, hidden)]
        derivative = self.derivative if network.levels == 1 else "vanilla"
        for layer in range(hidden):
            made = _table_of(derivative, network.pre_activation_unit(layer), scales[layer])
            table[layer], shifts[layer], limits[layer] = made
        return table, shifts, limits

    def _stochastic(self, network: Perceptron, batch: Batch, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return sums and activations of all units, each activation drawn: +1 with a probability that rises with its sum."""
        units, samples = sum(network.sizes[1:]), batch.samples
        z, a = np.empty((units, samples), np.int64), np.empty((units, samples), np.int64)
        values: NDArray[Any] = batch.inputs
        place = 0
        for layer, (one, n_in, n_out) in enumerate(network.shapes()):
            rows = z[place : place + n_out]
            kernels.layer_sums(values, network.weights[one].reshape(n_out, n_in), rows)
            if layer + 2 < len(network.sizes):
                lowest, highest = int(rows.min()), int(rows.max())
                drop = max(0, max(-lowest, highest).bit_length() - 30)
                scaled = rows >> drop
                greatest, least = max(0, int(scaled.max())), max(0, -int(scaled.min()))
                sequence = sequence_words(self.seed, _SIGN_STREAM + layer, number)
                out = np.empty(rows.size, np.int64)
                kernels.sign_stochastically(
                    np.ascontiguousarray(scaled).reshape(-1), np.int64(greatest), np.int64(least), *sequence, np.int64(0), out
                )
                a[place : place + n_out] = out.reshape(n_out, samples)
                values = np.ascontiguousarray(a[place : place + n_out])
            place += n_out
        return z, a


def _bits(network: Perceptron, error: int, inputs: int, table: int) -> int:
    """Return how many bits the longest number of a backward pass may need, from the greatest error, input and derivative."""
    d, longest = error, 0
    for layer in range(len(network.sizes) - 2, -1, -1):
        longest = max(longest, d * inputs * kernels.SAMPLES_A_BLOCK)
        if layer:
            largest = int(np.abs(network.weights[network.slices[layer]]).max())
            back = network.sizes[layer + 1] * largest * d + (1 << network.weight_bits)
            moved = table * ((back >> network.weight_bits) + 1)
            longest, d = max(longest, back, moved), (moved >> _TABLE_BITS) + 1
    return longest.bit_length()


@cache
def _steepest(derivative: str) -> int:
    """Return a bound of a derivative's magnitude, in units of its table."""
    return ceil(max(abs(DERIVATIVES[derivative](k / 64)) for k in range(-256, 257)) * 2**_TABLE_BITS) + 1


@lru_cache(maxsize=64)
def _table_of(derivative: str, unit: Fraction, scale: float) -> tuple[NDArray[np.int64], int, int]:
    """Return a derivative of ``x / scale`` for sums in units of `unit`: entries, by how many bits sums are shifted, the end.

    Entries are values in the middle of their interval. Of a derivative that falls to 0 at an edge, the interval of the edge has
    the value within, and the end is the last sum that does not pass it: so ties are as its formula has them.
    """
    span = 2 * _TABLE_RANGE / (unit * _TABLE_ENTRIES)  # units an entry
    shift = max(0, (span.numerator // span.denominator).bit_length() - 1)
    places = (np.arange(_TABLE_ENTRIES) - (_TABLE_ENTRIES >> 1) + 0.5) * (float(unit) * 2.0**shift)
    edge = _EDGES.get(derivative, Fraction(_TABLE_RANGE)) * Fraction(scale)
    if derivative in _EDGES:
        places = np.clip(places, -float(edge), float(edge))
    values = [DERIVATIVES[derivative](float(x) / scale) for x in places]
    inside = edge / unit
    return np.rint(np.array(values) * 2**_TABLE_BITS).astype(np.int64), shift, inside.numerator // inside.denominator


def _direction_of(network: Perceptron, words: Words, left: int, passes: int) -> Direction:
    integers, shift = words.joined()
    unit = network.output_unit * Fraction(2) ** (shift - left) / passes
    return Direction(integers, [unit * network.activation_unit(layer) for layer in range(len(network.sizes) - 1)])
