"""Estimators that evaluate: differences of the loss, one weight at a time (CDG) or in random directions (NES), and best points.

1. One weight at a time      CDG
2. Random directions         NES, their mean; MaxPoint, the best of them; Around, the best near another estimator's
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.arithmetic import quotient
from intnet.errors import InputError
from intnet.gradients.direction import Direction, Estimator, Landscape, exact, in_units, lengthened
from intnet.gradients.perceptron import Words, draw_normal, draw_uniform, normal_table

_NOISE_STREAM, _MAX_STREAM, _AROUND_STREAM, _CHOICE_STREAM = 34, 35, 36, 38
_DIFFERENCE_BITS = 28
_CANDIDATES = 64  # sets of weights that are made at a time
_NOISE_BITS = 16
_UNIT = Fraction(2**30)  # the length of a vector that another of its length is added to


# 1. One weight at a time ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CDG:
    """The coordinate discrete gradient: ``(L(w + epsilon e_i) - L(w - epsilon e_i)) / (2 epsilon)`` for every weight i.

    Only what depends on the one changed sum is evaluated again, with the bits of the definition, which is `plain`.

    Parameters
    ----------
    epsilon : what Fraction takes
        Rounded to the weights' grid.
    weights : int, at least 1, optional
        Of each layer only so many, drawn by `seed`: the others are 0.
    seed : int
    plain : bool
        Evaluate the network twice a weight.

    Raises
    ------
    InputError
        When called: if epsilon rounds to zero.
    """

    epsilon: Any
    weights: int | None = None
    seed: int = 0
    plain: bool = False

    def __post_init__(self) -> None:
        count = self.weights
        if count is not None and (isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1):
            raise InputError(f"differences are taken of at least 1 weight of a layer, got {count!r}")

    def wanted(self, network: Landscape) -> NDArray[np.bool_]:
        """Return of which weights."""
        chosen = np.zeros(network.weights.size, np.bool_)
        for layer, one in enumerate(network.slices):
            count = one.stop - one.start
            if self.weights is None or self.weights >= count:
                chosen[one] = True
            else:
                words = np.array(draw_uniform(self.seed, _CHOICE_STREAM, layer, count)) * count + np.arange(count)
                chosen[one.start + np.argsort(words, kind="stable")[: self.weights]] = True
        return chosen

    def __call__(self, network: Landscape, batch: Any) -> Direction:
        """Return the differences, exact but for what 61 bits do not hold."""
        units = in_units("epsilon", self.epsilon, network.weight_unit)
        chosen = self.wanted(network)
        if self.plain:
            words = self._evaluated(network, batch, units, chosen)
        else:
            changes = network.changes(batch, units, chosen)
            words = Words(changes.high[0] - changes.high[1], changes.low[0] - changes.low[1])
        integers, shift = words.joined()
        unit = network.loss_unit * Fraction(2) ** shift / (network.halves * 2 * units * network.weight_unit)
        return Direction(integers, [unit] * len(network.slices))

    def _evaluated(self, network: Landscape, batch: Any, units: int, chosen: NDArray[np.bool_]) -> Words:
        found = Words.zeros(network.weights.size)
        for i in np.flatnonzero(chosen):
            pair = np.repeat(network.weights.reshape(1, -1), 2, axis=0)
            pair[0, i] += units
            pair[1, i] -= units
            words = network.losses(batch, pair)
            found.high[i], found.low[i] = words.high[0] - words.high[1], words.low[0] - words.low[1]
        return found


# 2. Random directions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NES:
    """The gradient of the loss smoothed by a Gaussian: ``sum of (L(w + sigma e_k) - L(w - sigma e_k)) e_k / (2 n sigma)``.

    Parameters
    ----------
    sigma : what Fraction takes
    pairs : int
        n, antithetic: each is evaluated twice.
    seed : int
    antithetic : bool
        If not, each is evaluated once, and nothing is subtracted: ``sum of L(w + sigma e_k) e_k / (n sigma)``. Its deviation is
        greater by about ``L(w) / sigma`` over that of a difference, and it points nowhere until n is far above the number of
        weights: to compare with.

    References
    ----------
    Salimans et al. 2017, Evolution Strategies, arXiv:1703.03864.
    """

    sigma: Any
    pairs: int
    seed: int = 0
    antithetic: bool = True

    def __post_init__(self) -> None:
        _check_count("pairs of samples", self.pairs)

    def __call__(self, network: Landscape, batch: Any) -> Direction:
        """Return the mean over all pairs; see `directions` for the means over fewer."""
        return self.directions(network, batch, [self.pairs])[0]

    def directions(self, network: Landscape, batch: Any, counts: Sequence[int]) -> list[Direction]:
        """Return the means over the first pairs, so many for each: evaluated once.

        Differences are rounded to 28 bits of the greatest of all, so the last bits of a mean depend on the greatest count.
        """
        _check_counts(counts)
        in_units("sigma", self.sigma, network.weight_unit)
        differences = Words.zeros(max(counts))
        for first, noise in _noise(self.seed, _NOISE_STREAM, network, max(counts)):
            moves, here = _scaled_noise(noise, self.sigma, network), slice(first, first + len(noise))
            if self.antithetic:
                words = network.pair_losses(batch, moves)
                words = Words(words.high[0] - words.high[1], words.low[0] - words.low[1])
            else:
                words = network.losses(batch, network.weights + moves)
            differences.high[here], differences.low[here] = words
        integers, shift = differences.joined()
        # so that the sum of so many times the longest noise stays below 2**62
        bits = min(_DIFFERENCE_BITS, 62 - (max(counts) * int(normal_table()[-1])).bit_length())
        drop = max(0, int(np.abs(integers).max()).bit_length() - bits)
        kept = ((integers >> max(0, drop - 1)) + (1 if drop else 0)) >> (1 if drop else 0)
        found = []
        total = np.zeros(network.weights.size, np.int64)
        for first, noise in _noise(self.seed, _NOISE_STREAM, network, max(counts)):
            for count in sorted(counts):
                if first < count <= first + len(noise):
                    some = count - first
                    found.append(total + kept[first:count] @ noise[:some].astype(np.int64))
            total += kept[first : first + len(noise)] @ noise.astype(np.int64)
        unit = (
            network.loss_unit
            * Fraction(2) ** (shift + drop - _NOISE_BITS)
            / (network.halves * (2 if self.antithetic else 1) * exact(self.sigma))
        )
        by_count = dict(zip(sorted(counts), found, strict=True))
        return [Direction(by_count[count], [unit / count] * len(network.slices)) for count in counts]


@dataclass(frozen=True)
class MaxPoint:
    """The best of random points: directions of one length in every layer, there and back; that of the least loss is taken.

    Parameters
    ----------
    length : what Fraction takes
        How far from the weights the points are, in each layer.
    pairs : int
        How many, each evaluated twice: as many evaluations as `NES` with as many pairs.
    seed : int
    """

    length: Any
    pairs: int
    seed: int = 0

    def __post_init__(self) -> None:
        _check_count("pairs of points", self.pairs)

    def __call__(self, network: Landscape, batch: Any) -> Direction:
        """Return the way back from the best point."""
        return self.directions(network, batch, [self.pairs])[0]

    def directions(self, network: Landscape, batch: Any, counts: Sequence[int]) -> list[Direction]:
        """Return the best of the first pairs, so many for each: evaluated once."""
        _check_counts(counts)
        length = Fraction(in_units("length", self.length, network.weight_unit))
        best: dict[int, tuple[int, NDArray[np.int64]]] = {}
        for first, noise in _noise(self.seed, _MAX_STREAM, network, max(counts)):
            moves = lengthened(noise.astype(np.int64), network.slices, [length] * len(noise))
            losses = np.array(network.pair_losses(batch, moves).exact(), object).reshape(2, -1)
            for count in counts:
                here = losses[:, : max(0, count - first)]
                if here.size:
                    way, k = (int(place) for place in np.unravel_index(int(here.argmin()), here.shape))
                    if count not in best or here[way, k] < best[count][0]:
                        best[count] = here[way, k], moves[k] if way else -moves[k]
        return [Direction(best[count][1], [network.weight_unit] * len(network.slices)) for count in counts]


@dataclass(frozen=True)
class Around:
    """The best of steps near another direction: ``g / norm(g) + spread * u_k``, with u_k random and of length 1, in each layer.

    Parameters
    ----------
    estimator : Estimator
        Gives g.
    spread : what Fraction takes, above 0
    length : what Fraction takes
        Of the steps whose losses are compared, in each layer.
    count : int
        How many.
    seed : int
    """

    estimator: Estimator
    spread: Any
    length: Any
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        _check_count("points", self.count)
        in_units("spread", self.spread, 1 / _UNIT, "directions")

    def __call__(self, network: Landscape, batch: Any) -> Direction:
        """Return the direction of the step after which the loss is least."""
        length = Fraction(in_units("length", self.length, network.weight_unit))
        g = self.estimator(network, batch).integers
        middle = lengthened(g[None], network.slices, [_UNIT])
        best: tuple[int, NDArray[np.int64]] | None = None
        for _, noise in _noise(self.seed, _AROUND_STREAM, network, self.count):
            ways = middle + lengthened(noise.astype(np.int64), network.slices, [_UNIT * exact(self.spread)] * len(noise))
            moves = lengthened(ways, network.slices, [length] * len(ways))
            losses = network.losses(batch, network.weights - moves).exact()
            least = min(range(len(losses)), key=losses.__getitem__)
            if best is None or losses[least] < best[0]:
                best = losses[least], moves[least]
        assert best is not None
        return Direction(best[1], [network.weight_unit] * len(network.slices))


def _check_count(what: str, count: Any) -> None:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise InputError(f"an estimate needs at least 1 of its {what}, got {count!r}")


def _check_counts(counts: Sequence[int]) -> None:
    if not len(counts):
        raise InputError("estimates need at least one count, got none")
    for count in counts:
        _check_count("samples", count)


def _noise(seed: int, stream: int, network: Landscape, count: int) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Yield Gaussian directions, with 16 fraction bits, some at a time, with the number of the first."""
    size = network.weights.size
    for first in range(0, count, _CANDIDATES):
        some = min(_CANDIDATES, count - first)
        yield first, draw_normal(seed, stream, first // _CANDIDATES, some * size).reshape(some, size)


def _scaled_noise(noise: NDArray[np.int32], sigma: Any, network: Landscape) -> NDArray[np.int64]:
    """Return sigma times the noise in units of weights, to nearest."""
    factor, left = exact(sigma) / network.weight_unit / 2**_NOISE_BITS, 0
    if max(factor.numerator.bit_length(), factor.denominator.bit_length()) > 62:  # 61 bits of it are enough
        left = 61 + factor.denominator.bit_length() - factor.numerator.bit_length()
        factor = Fraction(int(factor * Fraction(2) ** left))
    mantissa, power = map(int, quotient(np.int64(factor.numerator), np.int64(factor.denominator), np.int64(31)))
    power -= left
    out = np.empty(noise.shape, np.int64)
    rights = np.full(len(noise), -power, np.int64)
    kernels.scale_rows(noise.astype(np.int64), np.int64(mantissa), rights, out)
    return out
