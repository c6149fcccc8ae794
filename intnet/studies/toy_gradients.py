"""Which direction lowers the loss of a network whose activations are signs? Three studies of toy networks, in integers.

Two networks of one architecture, drawn apart: one gives the targets, the other is moved. Protocols as of the public lab notes
that posed the question; where these leave something open, what is chosen here is said.

1. What to run      CosineSpec, DecreaseSpec, SignsSpec
2. Cosines          straight-through estimators against coordinate differences
3. Loss decrease    one step along each direction, for many rates
4. Stochastic signs one step along the mean of several, best rate

References
----------
Kim et al. 2020, BinaryDuo: Reducing Gradient Mismatch in Binary Activation Network by Coupling Binary Activations,
arXiv:2002.06517.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intnet._version import __version__
from intnet.errors import InputError
from intnet.gradients import (
    CDG,
    DERIVATIVES,
    LEVELS,
    NES,
    STE,
    Around,
    Batch,
    Direction,
    FirstLayers,
    MaxPoint,
    Perceptron,
    gaussian_inputs,
    step,
)
from intnet.gradients.direction import in_units
from intnet.studies import tables

_WIDEST, _FURTHEST = 4096, 16  # beyond, losses leave their words
_VERSIONS = {"intnet": __version__, "numpy": np.__version__}
LAYERS = ("fc1", "fc2", "fc3")
STES = tuple(DERIVATIVES)
FILES = (
    "cosine.csv",
    "cosine.json",
    "cosine.png",
    "decrease.csv",
    "loss_decrease.json",
    "decrease.png",
    "decrease-trained.png",
    "best.png",
    "stochastic_rounding.csv",
    "stochastic_rounding.json",
    "stochastic_rounding.png",
)

# 1. What to run ---------------------------------------------------------------------------------------------------------


def _check_layers(layers: str) -> None:
    if layers not in ("hidden", "all"):
        raise InputError(f"layers are hidden or all, got {layers!r}")


def _check_distances(weight_bits: Any, **distances: Any) -> None:
    """Refuse distances that no weight can be moved by, before anything is made."""
    if isinstance(weight_bits, bool) or weight_bits not in range(8, 25):
        raise InputError(f"weights must have 8..24 fraction bits, got {weight_bits!r}")
    for name, values in distances.items():
        for value in values:
            in_units(name, repr(value), Fraction(1, 2**weight_bits))


def _flags(values: Any) -> tuple[bool, ...]:
    """Return one truth value, or a sequence of them, as a tuple, each once."""
    return tuple(dict.fromkeys(bool(one) for one in (values if isinstance(values, (tuple, list)) else (values,))))


@dataclass(frozen=True)
class CosineSpec:
    """Cosines between straight-through estimators and coordinate differences.

    Parameters
    ----------
    activations : sequence of {"binary", "ternary", "2bit", "full"}
        All but "binary" and "full" have weights sqrt(3) times as large, so that pre-activations have a variance of 1.
    epsilon : sequence of float, above 0
    samples : sequence of int
    coordinates : int
        Of each layer so many, drawn, get a difference; 0 for all.
    dim : int
    seeds : int
        How many, from 0 on.
    weight_bits : int
        Fraction bits of weights.
    """

    activations: Sequence[str] = ("binary", "ternary", "2bit", "full")
    epsilon: Any = (0.1, 0.01)
    samples: Any = (300_000, 4_000)
    coordinates: int = 40
    dim: int = 32
    seeds: int = 10
    weight_bits: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.activations, str):
            object.__setattr__(self, "activations", (self.activations,))
        if unknown := [one for one in self.activations if one not in LEVELS]:
            raise InputError(f"the activations are {', '.join(LEVELS)}, got {unknown[0]!r}")
        set_ = object.__setattr__
        set_(self, "activations", tuple(dict.fromkeys(self.activations)))
        set_(self, "epsilon", tables.numbers("epsilon", self.epsilon, float, 0, above=True, most=_FURTHEST))
        set_(self, "samples", tables.numbers("samples", self.samples, int, 1))
        _check_distances(self.weight_bits, epsilon=self.epsilon)
        tables.numbers("dim", self.dim, int, 1, most=_WIDEST)
        tables.numbers("seeds", self.seeds, int, 1)
        tables.numbers("coordinates", self.coordinates, int, 0)


@dataclass(frozen=True)
class DecreaseSpec:
    """How far one normalized step lowers the loss.

    Parameters
    ----------
    dim : sequence of int
    samples : sequence of int
        Pairs of NES, of single evaluations, and of best points (these up to a tenth of the most); up to dimension 16. Beyond,
        only those up to a tenth of the most.
    epsilon, sigma : sequence of float
        Of CDG, and of NES.
    spread : sequence of float
        Of steps around that of the straight-through estimator.
    length : float
        At which best points are chosen.
    rates : sequence of float
    layers : {"hidden", "all"}
        What is perturbed and moved: fc1 to fc3, as in the notes; or the output's weights, in which the loss is smooth, too.
    batch : int
        Samples of a batch.
    batches, seeds : int
        Each seed is a pair of networks with batches of its own.
    pretrain : sequence of bool
        Whether the network has been trained before, by plain descent with the vanilla straight-through estimator.
    pretrain_steps, pretrain_batch : int
    weight_bits : int
    """

    dim: Any = (8, 16, 32, 64)
    samples: Any = (500, 5_000, 50_000)
    epsilon: Any = (0.1, 0.01)
    sigma: Any = (0.1, 0.01)
    spread: Any = (0.1, 0.3, 1.0)
    length: float = 0.1
    rates: Any = (*(round(0.02 * k + 0.01, 2) for k in range(50)), 0.1)
    layers: str = "hidden"
    batch: int = 8_000
    batches: int = 1
    seeds: int = 3
    pretrain: Any = (False, True)
    pretrain_steps: int = 2_000
    pretrain_batch: int = 16_000
    weight_bits: int = 20

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        for name, kind, least in (
            ("dim", int, 1),
            ("samples", int, 1),
            ("batch", int, 1),
            ("batches", int, 1),
            ("seeds", int, 1),
            ("pretrain_steps", int, 1),
            ("pretrain_batch", int, 1),
        ):
            most = _WIDEST if name == "dim" else inf
            values = tables.numbers(name, getattr(self, name), kind, least, most=most)
            set_(self, name, values if name in ("dim", "samples") else values[0])
        for name in ("epsilon", "sigma", "spread", "rates"):
            set_(self, name, tables.numbers(name, getattr(self, name), float, 0, above=True, most=_FURTHEST))
        set_(self, "length", tables.numbers("length", self.length, float, 0, above=True, most=_FURTHEST)[0])
        _check_layers(self.layers)
        _check_distances(self.weight_bits, epsilon=self.epsilon, sigma=self.sigma, length=(self.length,))
        for spread in self.spread:
            Around(STE(), repr(spread), self.length, 1)
        set_(self, "rates", tuple(sorted(self.rates)))
        set_(self, "pretrain", _flags(self.pretrain))

    @property
    def limit(self) -> int:
        """How many pairs are the most beyond dimension 16."""
        return int(max(max(self.samples) // 10, min(self.samples)))

    def counts(self, dim: int) -> list[int]:
        """Return how many pairs are taken in a dimension."""
        return [count for count in sorted(set(self.samples)) if dim <= 16 or count <= self.limit]


@dataclass(frozen=True)
class SignsSpec:
    """Stochastic activations in the gradient pass alone (the notes' June protocol): the best loss over rates, for n samples.

    Parameters
    ----------
    averaged : sequence of int
        n: how many draws are averaged.
    layers : {"hidden", "all"}
        As of :class:`DecreaseSpec`.
    dim, batch, batches, seeds : int
        As of :class:`DecreaseSpec`.
    rates : int
        So many, evenly spaced up to 1/2.
    pretrain : sequence of bool
        Whether the network has been trained before, 500 steps of batches of 16,000.
    """

    averaged: Any = tuple(range(1, 11))
    layers: str = "all"
    dim: int = 32
    batch: int = 1024
    batches: int = 1
    seeds: int = 10
    rates: int = 500
    pretrain: Any = (False, True)
    pretrain_steps: int = 500
    pretrain_batch: int = 16_000
    weight_bits: int = 20

    def __post_init__(self) -> None:
        object.__setattr__(self, "averaged", tables.numbers("averaged", self.averaged, int, 1))
        object.__setattr__(self, "pretrain", _flags(self.pretrain))
        _check_layers(self.layers)
        _check_distances(self.weight_bits)
        for name in ("dim", "batch", "batches", "seeds", "rates", "pretrain_steps", "pretrain_batch"):
            tables.numbers(name, getattr(self, name), int, 1, most=_WIDEST if name == "dim" else inf)


# 2. Cosines -------------------------------------------------------------------------------------------------------------


class CosineRow(NamedTuple):
    """A row of ``cosine.csv``: between an estimator and coordinate differences, over the weights that have one."""

    activation: str
    epsilon: float
    estimator: str
    layer: str
    seed: int
    samples: int
    cosine: float


def toy(activation: str, dim: int, seed: int, weight_bits: int) -> tuple[Perceptron, Perceptron]:
    """Return the network that gives the targets, and the one that is moved: three hidden layers as wide as the inputs."""
    sizes, wide = (dim, dim, dim, dim, 1), activation in ("ternary", "2bit")
    target, moved = (Perceptron.drawn(sizes, activation, 2 * seed + one, weight_bits=weight_bits, wide=wide) for one in (0, 1))
    return target, moved


def draw_batch(target: Perceptron, samples: int, seed: int, number: int) -> Batch:
    """Return a batch of N(0, 1), labelled by a network."""
    inputs = gaussian_inputs(target.sizes[0], samples, seed, number)
    return Batch(inputs, target.outputs(inputs))


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the cosine of the angle between two vectors, 0 if one is zero."""
    norms = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norms if norms else 0.0


def run_cosine(spec: CosineSpec, folder: Path | str, *, progress: tables.Progress = tables.ignore) -> list[CosineRow]:
    """Measure every cosine; what is stored is kept."""
    config = {
        "study": "cosine",
        "dim": spec.dim,
        "coordinates": spec.coordinates,
        "weight_bits": spec.weight_bits,
    }
    with tables.opened(folder, "cosine.csv", CosineRow, config, _VERSIONS) as table:
        stored = {(row.activation, row.epsilon, row.seed, row.samples) for row in table.rows}
        for seed in range(spec.seeds):
            for activation in spec.activations:
                target, network = toy(activation, spec.dim, seed, spec.weight_bits)
                for samples in spec.samples:
                    missing = [e for e in spec.epsilon if (activation, e, seed, samples) not in stored]
                    if missing:
                        batch = draw_batch(target, samples, seed, 0)
                        table.add(_cosines(spec, activation, network, batch, missing, seed))
                    progress(1)
    return table.rows


def _cosines(
    spec: CosineSpec, activation: str, network: Perceptron, batch: Batch, epsilons: list[float], seed: int
) -> Iterator[CosineRow]:
    names = STES if activation == "binary" else ("vanilla",)
    found = {name: STE(name)(network, batch).layers(network) for name in names}
    for epsilon in epsilons:
        differences = CDG(repr(epsilon), spec.coordinates or None, seed)
        wanted = differences.wanted(network)
        reference = differences(network, batch).layers(network)
        masks = [wanted[one] for one in network.slices[:3]]
        b = [part[mask] for part, mask in zip(reference[:3], masks, strict=True)]
        for name in names:
            a = [part[mask] for part, mask in zip(found[name][:3], masks, strict=True)]
            parts = dict(zip(LAYERS, zip(a, b, strict=True), strict=True)) | {"total": (np.concatenate(a), np.concatenate(b))}
            for layer, pair in parts.items():
                yield CosineRow(activation, epsilon, name, layer, seed, batch.samples, cosine(*pair))


# 3. Loss decrease -------------------------------------------------------------------------------------------------------


class DecreaseRow(NamedTuple):
    """A row of ``decrease.csv``: mean squared errors before a step, and how much less after it; `pretrained` is 0 or 1."""

    dim: int
    estimator: str
    samples: int
    hyper: float
    rate: float
    pretrained: int
    seed: int
    loss_before: float
    decrease: float


def pretrained(target: Perceptron, network: Perceptron, steps: int, batch: int, seed: int) -> Perceptron:
    """Return the network after descent with the vanilla straight-through estimator, normalized layer by layer.

    The rate falls from 1/16 to 1/2048 in eight equal parts, halving: the notes say only "until the loss no longer visibly
    falls".
    """
    ste = STE()
    for number in range(steps):
        some = draw_batch(target, batch, seed, 1_000_000 + number)
        rate = Fraction(1, 2 ** (4 + 8 * number // steps))
        network = network.with_weights(step(network, ste(network, some), [rate])[0])
    return network


def moving(network: Perceptron, layers: str) -> Perceptron | FirstLayers:
    """Return what is perturbed and moved."""
    return network if layers == "all" else FirstLayers(network, len(network.slices) - 1)


def directions(
    spec: DecreaseSpec, network: Perceptron | FirstLayers, batch: Batch, seed: int
) -> Iterator[tuple[str, int, float, Direction]]:
    """Yield estimator, samples, its parameter, and the direction."""
    for name in STES:
        yield f"ste_{name}", 0, 0.0, STE(name)(network, batch)
    yield "ste_random_backward", 0, 0.0, STE(window=True, seed=seed)(network, batch)
    yield "ste_stochastic_sign", 1, 0.0, STE(signs=1, seed=seed)(network, batch)
    for epsilon in spec.epsilon:
        yield "cdg", 0, epsilon, CDG(repr(epsilon))(network, batch)
    counts = spec.counts(batch.inputs.shape[0])
    for sigma in spec.sigma:
        for name, antithetic in (("nes", True), ("nes_single", False)):
            found = NES(repr(sigma), max(counts), seed, antithetic).directions(network, batch, counts)
            for count, direction in zip(counts, found, strict=True):
                yield name, count, sigma, direction
    few = [count for count in counts if count <= spec.limit]
    for count, direction in zip(few, MaxPoint(spec.length, max(few), seed).directions(network, batch, few), strict=True):
        yield "nes_max_point", count, spec.length, direction
    for spread in spec.spread:
        yield "ste_around", few[0], spread, Around(STE(), repr(spread), spec.length, few[0], seed)(network, batch)


def run_decrease(spec: DecreaseSpec, folder: Path | str, *, progress: tables.Progress = tables.ignore) -> list[DecreaseRow]:
    """Measure every decrease; what is stored is kept."""
    names = ("batch", "batches", "rates", "epsilon", "sigma", "spread", "length", "samples", "layers")
    names = (*names, "pretrain_steps", "pretrain_batch", "weight_bits")  # type: ignore[assignment]
    config = {"study": "loss-decrease"} | {name: getattr(spec, name) for name in names}
    with tables.opened(folder, "decrease.csv", DecreaseRow, config, _VERSIONS) as table:
        stored = {(row.dim, row.pretrained, row.seed) for row in table.rows}
        for dim in spec.dim:
            for seed in range(spec.seeds):
                for trained in spec.pretrain:
                    # a seed of the table is a pair of networks and a batch
                    keys = {number: seed * spec.batches + number for number in range(spec.batches)}
                    missing = [number for number, key in keys.items() if (dim, trained, key) not in stored]
                    progress(spec.batches - len(missing))
                    target, network = toy("binary", dim, seed, spec.weight_bits)
                    if trained and missing:
                        network = pretrained(target, network, spec.pretrain_steps, spec.pretrain_batch, seed)
                    for number in missing:
                        batch = draw_batch(target, spec.batch, seed, number)
                        table.add(_decreases(spec, moving(network, spec.layers), batch, keys[number], trained))
                        progress(1)
    return table.rows


def _decreases(
    spec: DecreaseSpec, network: Perceptron | FirstLayers, batch: Batch, key: int, trained: bool
) -> list[DecreaseRow]:
    unit = float(network.loss_unit) / batch.samples
    before = network.losses(batch).exact()[0]
    rates = [Fraction(repr(rate)) for rate in spec.rates]
    rows = []
    for name, samples, hyper, direction in directions(spec, network, batch, key):
        after = network.losses(batch, step(network, direction, rates)).exact()
        rows += [
            DecreaseRow(
                batch.inputs.shape[0], name, samples, hyper, rate, int(trained), key, before * unit, (before - one) * unit
            )
            for rate, one in zip(spec.rates, after, strict=True)
        ]
    return rows


# 4. Stochastic signs ----------------------------------------------------------------------------------------------------


class SignsRow(NamedTuple):
    """A row of ``stochastic_rounding.csv``: the least loss over rates, of the mean of `averaged` directions; 0: plain STE."""

    pretrained: int
    seed: int
    batch: int
    averaged: int
    loss_before: float
    best_loss: float
    best_rate: float


def run_signs(spec: SignsSpec, folder: Path | str, *, progress: tables.Progress = tables.ignore) -> list[SignsRow]:
    """Measure every best loss; what is stored is kept."""
    names = ("dim", "layers", "batch", "rates", "averaged", "pretrain_steps", "pretrain_batch", "weight_bits")
    config = {"study": "stochastic-rounding"} | {name: getattr(spec, name) for name in names}
    with tables.opened(folder, "stochastic_rounding.csv", SignsRow, config, _VERSIONS) as table:
        stored = {(row.pretrained, row.seed, row.batch) for row in table.rows}
        for trained in spec.pretrain:
            for seed in range(spec.seeds):
                missing = [number for number in range(spec.batches) if (trained, seed, number) not in stored]
                progress(spec.batches - len(missing))
                target, network = toy("binary", spec.dim, seed, spec.weight_bits)
                if trained and missing:
                    network = pretrained(target, network, spec.pretrain_steps, spec.pretrain_batch, seed)
                for number in missing:
                    batch = draw_batch(target, spec.batch, seed, number)
                    table.add(_best_losses(spec, moving(network, spec.layers), batch, seed, number, trained))
                    progress(1)
    return table.rows


def _best_losses(
    spec: SignsSpec, network: Perceptron | FirstLayers, batch: Batch, seed: int, number: int, trained: bool
) -> list[SignsRow]:
    rates = [Fraction(k + 1, 2 * spec.rates) for k in range(spec.rates)]
    unit = float(network.loss_unit) / batch.samples
    before = network.losses(batch).exact()[0] * unit
    rows = []
    for averaged in (0, *spec.averaged):
        direction = STE(signs=averaged, seed=seed * 2**16 + number)(network, batch)
        losses = network.losses(batch, step(network, direction, rates)).exact()
        best = min(range(len(losses)), key=losses.__getitem__)
        rows.append(SignsRow(int(trained), seed, number, averaged, before, losses[best] * unit, float(rates[best])))
    return rows
