"""A direction against which the loss of a network falls: integers, and a unit for each layer; and steps along it."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.arithmetic import quotient
from intnet.errors import InputError
from intnet.gradients.perceptron import Words

_FURTHEST = 2**41  # units that weights are moved by at most: longer vectors need numbers of more than 62 bits


class Landscape(Protocol):
    """What estimators that evaluate ask of a network: weights in one vector, and exact losses of a batch under others."""

    @property
    def weights(self) -> NDArray[np.int64]:
        """Layer after layer."""

    @property
    def slices(self) -> Sequence[slice]:
        """Where the weights of each layer stand."""

    @property
    def weight_unit(self) -> Fraction:
        """What 1 stands for in weights."""

    @property
    def loss_unit(self) -> Fraction:
        """What 1 stands for in losses."""

    @property
    def halves(self) -> int:
        """By what a direction is less than the gradient of the loss: 2 of squared errors, as is usual, else 1."""

    def losses(self, batch: Any, weights: NDArray[np.int64] | None = None) -> Words:
        """Return the summed losses under (sets, weights)."""

    def pair_losses(self, batch: Any, moves: NDArray[np.int64]) -> Words:
        """Return the summed losses under its weights plus and less (pairs, weights): (2, pairs)."""

    def changes(self, batch: Any, epsilon: int, wanted: NDArray[np.bool_] | None = None) -> Words:
        """Return by how much the summed loss rises if one weight is `epsilon` units more, and less: (2, weights)."""


@dataclass(frozen=True, eq=False)
class Direction:
    """What an estimator gives: an estimate of the gradient of half the summed squared error, or of the summed cross-entropy.

    Attributes
    ----------
    integers : (weights,) int64
        As the network's weights stand, up to ``2**62``.
    units : list of Fraction
        Of each layer.
    """

    integers: NDArray[np.int64]
    units: list[Fraction]

    def layers(self, network: Landscape) -> list[NDArray[np.float64]]:
        """Return the real numbers, layer by layer, each the nearest float64 of an exact product."""
        parts = zip(network.slices, self.units, strict=True)
        return [np.multiply(self.integers[one], float(unit), dtype=np.float64) for one, unit in parts]


class Estimator(Protocol):
    """From a network and a batch to a direction."""

    def __call__(self, network: Any, batch: Any) -> Direction:
        """Return the direction in which the loss rises."""


def step(network: Landscape, direction: Direction, rates: Sequence[Any]) -> NDArray[np.int64]:
    """Return the weights after a step of each rate along the direction, normalized layer by layer: (rates, weights).

    ``w - round(rate * g / norm(g))`` to nearest; the norm is within ``(sqrt(weights) + 3) * 2**-31`` of itself. A layer whose
    direction is zero stays.
    """
    every = [rates] if isinstance(rates, (str, int, float, Fraction)) else list(rates)
    if direction.integers.shape != network.weights.shape:
        raise InputError(
            f"this direction is that of {direction.integers.size} weights, and the network has {network.weights.size}"
        )
    sets = np.broadcast_to(direction.integers, (len(every), direction.integers.size))
    return network.weights - lengthened(sets, network.slices, [exact(rate) / network.weight_unit for rate in every])


def lengthened(sets: NDArray[np.int64], slices: Sequence[slice], lengths: Sequence[Fraction]) -> NDArray[np.int64]:
    """Return vectors of which each layer has the length that is wanted for its set, rounded to nearest; zeros stay.

    Parameters
    ----------
    sets : (sets, weights) int64, up to ``2**62``
    slices : of the layers
    lengths : of each set, not negative

    Raises
    ------
    InputError
        If a length is negative, or above ``2**41``.
    """
    out = np.zeros(sets.shape, np.int64)
    for row, moved, length in zip(sets, out, lengths, strict=True):
        if not 0 <= length <= _FURTHEST:
            raise InputError(f"lengths of steps must be 0 to 2**41 units of the weights, got {float(length):.4g}")
        whole = length
        if max(whole.numerator.bit_length(), whole.denominator.bit_length()) > 30:
            whole = Fraction(round(whole * 2**20), 2**20)  # of units: far below what is rounded off in the end
        for one in slices:
            g = np.ascontiguousarray(row[one])
            root, exponent = map(int, kernels.root_of_squares(g))
            if not root or not whole:
                continue
            # length / norm as a mantissa of 61 bits
            mantissa, power = map(int, quotient(np.int64(whole.numerator), np.int64(whole.denominator * root), np.int64(61)))
            part = np.empty((1, g.size), np.int64)
            kernels.scale_rows(g.reshape(1, -1), np.int64(mantissa), np.array([exponent - power]), part)
            moved[one] = part[0]
    return out


def exact(value: Any) -> Fraction:
    """Return a number as it stands: what Fraction takes, or one of NumPy.

    Raises
    ------
    InputError
        If it is no number, or not finite.
    """
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return Fraction(value.item() if isinstance(value, np.generic) else value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise InputError(f"this must be a number, got {value!r}") from None


def in_units(name: str, value: Any, unit: Fraction, of: str = "weights") -> int:
    """Return a distance in units of the weights, to nearest; refuse one that vanishes, or is beyond all weights."""
    try:
        real = exact(value)
    except InputError:
        raise InputError(f"{name} must be a number above 0, got {value!r}") from None
    if real <= 0:
        raise InputError(f"{name} must be a number above 0, got {value!r}")
    units = round(real / unit)
    if units < 1:
        raise InputError(
            f"{name} {float(real):g} vanishes: it rounds to 0 in {of} whose unit is {float(unit):.3g}; the "
            f"smallest that does not is just above {float(unit / 2):.3g}"
        )
    if units > _FURTHEST:
        raise InputError(
            f"{name} is too far: weights whose unit is {float(unit):.3g} are moved by up to {float(_FURTHEST * unit):.3g}, got "
            f"{value!r}"
        )
    return units
