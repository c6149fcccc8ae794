"""The first layers of a perceptron, as a network of their own: the others stay as they are."""

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet.errors import InputError
from intnet.gradients.direction import Direction
from intnet.gradients.perceptron import Batch, Perceptron, Words, as_integers


class FirstLayers:
    """The weights of the first layers alone, for estimators and steps; a :class:`intnet.gradients.Landscape`.

    Parameters
    ----------
    network : Perceptron
    count : int
        Of its layers.

    Examples
    --------
    >>> from intnet.gradients import CDG, gaussian_inputs
    >>> network = Perceptron.drawn((4, 3, 1)), Perceptron.drawn((4, 3, 1), seed=1)
    >>> inputs = gaussian_inputs(4, 100, seed=0)
    >>> hidden = FirstLayers(network[0], 1)
    >>> CDG("0.1")(hidden, Batch(inputs, network[1].outputs(inputs))).integers.shape
    (12,)
    """

    def __init__(self, network: Perceptron, count: int) -> None:
        layers = len(network.slices)
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 1 <= count <= layers:
            raise InputError(f"the network has 1..{layers} first layers, got {count!r}")
        self.network, self.slices = network, network.slices[:count]
        self.size = self.slices[-1].stop

    @property
    def weights(self) -> NDArray[np.int64]:
        """Those of its layers."""
        return self.network.weights[: self.size]

    @property
    def weight_unit(self) -> Fraction:
        """What 1 stands for in weights."""
        return self.network.weight_unit

    @property
    def loss_unit(self) -> Fraction:
        """What 1 stands for in losses."""
        return self.network.loss_unit

    @property
    def halves(self) -> int:
        """By what a direction is less than the gradient of the loss."""
        return self.network.halves

    def with_weights(self, weights: NDArray[np.int64]) -> "FirstLayers":
        """Return the same with other weights."""
        return FirstLayers(self.network.with_weights(self._filled(weights[None])[0]), len(self.slices))

    def losses(self, batch: Batch, weights: NDArray[np.int64] | None = None) -> Words:
        """Return the losses under many sets of weights."""
        return self.network.losses(batch, None if weights is None else self._filled(weights))

    def pair_losses(self, batch: Batch, moves: NDArray[np.int64]) -> Words:
        """Return the losses with weights that are moved, there and back."""
        moves = as_integers("moves of weights", moves, (None, self.size))
        stay = np.zeros((len(moves), self.network.weights.size - self.size), np.int64)
        return self.network.pair_losses(batch, np.concatenate([moves, stay], axis=1))

    def changes(self, batch: Batch, epsilon: int, wanted: NDArray[np.bool_] | None = None) -> Words:
        """Return what changes of single weights do."""
        chosen = np.zeros(self.network.weights.size, np.bool_)
        chosen[: self.size] = True if wanted is None else wanted
        words = self.network.changes(batch, epsilon, chosen)
        return Words(words.high[:, : self.size], words.low[:, : self.size])

    def backpropagated(self, batch: Batch, rule: Any) -> Direction:
        """Return the part of the network's straight-through estimate."""
        every = rule(self.network, batch)
        return Direction(every.integers[: self.size], every.units[: len(self.slices)])

    def _filled(self, sets: NDArray[np.int64]) -> NDArray[np.int64]:
        sets = as_integers("sets of weights", sets, (None, self.size))
        rest = np.broadcast_to(self.network.weights[self.size :], (len(sets), self.network.weights.size - self.size))
        return np.concatenate([sets, rest], axis=1)
