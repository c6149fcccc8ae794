"""Which direction lowers the loss of a thin ResNet-18 whose convolutions see signs? One convolution at a time.

Straight-through estimation against coordinate differences, of one layer of a trained network on batches of CIFAR-10, with
weights as they are and with their signs: how far one step along each lowers the loss of the batch, for many rates.

The notes of the study leave open how the batch is normalized and what steps along flips of binary weights move. Here a batch
passes as in training, normalized by its own statistics; steps move the weights behind the signs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from intnet import checkpoint, datasets, models
from intnet._version import __version__
from intnet.errors import InputError
from intnet.formats import Fixed
from intnet.gradients import CDG, STE, Direction, step
from intnet.gradients.direction import in_units
from intnet.gradients.one_layer import Labelled, OneLayer
from intnet.inputs import Encoder, Inputs
from intnet.layers import Conv2D
from intnet.network import Network
from intnet.optimizers import SGD
from intnet.optimizers.factor import Factor, Schedule
from intnet.recipe import Recipe
from intnet.studies import tables
from intnet.studies.toy_gradients import cosine
from intnet.training import Trainer
from intnet.trainings import first_samples, usual_augmentation

WEIGHTS = ("full", "binary")
FLIP = 0.0
"""Stands for an epsilon that changes every sign."""

FILES = ("thin_resnet.csv", "thin_resnet.json", "thin_resnet.png", *(f"trained-{kind}.npz" for kind in WEIGHTS))
_MOST = {"epsilon": 2, "rates": 4}  # the weights' format ends at 8
_VERSIONS = {"intnet": __version__, "numpy": np.__version__}


def recipe(weight_bits: int = 28) -> Recipe:
    """Return the recipe: weights and activations in fixed point, wide enough that wider ones change no digit that is reported.

    Parameters
    ----------
    weight_bits : int
        Fraction bits of the weights, of words of 32 bits; activations have 20.
    """
    return Recipe(
        "binary_gradients",
        weight=f"fxp-s32/{weight_bits} ties_even",  # type: ignore[arg-type]
        activation="fxp-s32/20 ties_even",  # type: ignore[arg-type]
        error="bfp-s24/tensor ties_even",  # type: ignore[arg-type]
        gradient="bfp-s32/tensor ties_even",  # type: ignore[arg-type]
        momentum="bfp-s32/tensor ties_even",  # type: ignore[arg-type]
        accumulator_bits=64,
    )


@dataclass(frozen=True)
class ThinResNetSpec:
    """Steps along estimates of one layer's gradient.

    Parameters
    ----------
    dataset : str
        With images of 32x32.
    weights : sequence of {"full", "binary"}
        Of the convolutions that see signs; each kind is a network of its own.
    convolutions : sequence of int, 1..16
        Which of these convolutions, from the input on.
    epsilon : sequence of float, above 0
        Of coordinate differences; of binary weights, on the weights behind the signs, where it changes those signs alone
        that it reaches. Then all are changed, too: epsilon 0 in the table.
    rates : sequence of float
    batch, batches : int
        From the first samples on.
    width : float
        1/8 has 8, 16, 32, 64 channels.
    epochs : int
        The networks are trained before, with momentum 0.9 and a rate that falls linearly.
    train_batch : int
    rate : float
    samples : int, optional
        Of the training part, so many.
    seed : int
    """

    dataset: str = "cifar10"
    weights: Sequence[str] = WEIGHTS
    convolutions: Any = (1, 8, 16)
    epsilon: Any = (0.1, 0.01)
    rates: Any = tuple(round(0.02 * k + 0.01, 2) for k in range(50))
    batch: int = 64
    batches: int = 3
    width: float = 0.125
    epochs: int = 5
    train_batch: int = 128
    rate: float = 0.05
    samples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.weights, str):
            object.__setattr__(self, "weights", (self.weights,))
        if unknown := [one for one in self.weights if one not in WEIGHTS]:
            raise InputError(f"weights are {' or '.join(WEIGHTS)}, got {unknown[0]!r}")
        set_ = object.__setattr__
        set_(self, "weights", tuple(dict.fromkeys(self.weights)))
        set_(self, "convolutions", tables.numbers("convolutions", self.convolutions, int, 1))
        if max(self.convolutions) > 16:
            raise InputError(f"the convolutions that see signs are 1..16, got {max(self.convolutions)}")
        for name in ("epsilon", "rates"):
            most = _MOST[name]
            set_(self, name, tables.numbers(name, getattr(self, name), float, 0, above=True, most=most))
        form = recipe().weight.format
        assert isinstance(form, Fixed)
        for epsilon in self.epsilon:
            in_units("epsilon", repr(epsilon), Fraction(1, 2**form.fraction_bits))
        for name in ("batch", "batches", "epochs", "train_batch"):
            tables.numbers(name, getattr(self, name), int, 1)
        tables.numbers("rate", self.rate, float, 0, above=True)


class ThinResNetRow(NamedTuple):
    """A row of ``thin_resnet.csv``: cross-entropies of a batch, in nats a sample; the cosine is that to the STE's direction."""

    weights: str
    layer: int
    batch: int
    estimator: str
    epsilon: float
    rate: float
    cosine: float
    loss_before: float
    decrease: float


def total(spec: ThinResNetSpec) -> int:
    """Return how much progress a whole run makes: a training counts as much as a batch of a layer for every epoch."""
    return len(spec.weights) * (spec.epochs + len(spec.convolutions) * spec.batches)


def run(
    spec: ThinResNetSpec, folder: Path | str, *, data_dir: Path | str | None = None, progress: tables.Progress = tables.ignore
) -> list[ThinResNetRow]:
    """Train the networks, measure every decrease; what is stored is kept, trained networks from their last epoch on.

    Raises
    ------
    DataError
        If the data set is missing or damaged.
    StudyError
        If the folder holds another study.
    """
    names = ("dataset", "epsilon", "rates", "batch", "width", "epochs", "train_batch", "rate", "samples", "seed")
    config = {"study": "thin-resnet"} | {name: getattr(spec, name) for name in names}
    data = first_samples(datasets.load(spec.dataset, data_dir, subset="train"), spec.samples, "train")
    folder = Path(folder)
    with tables.opened(folder, "thin_resnet.csv", ThinResNetRow, config, _VERSIONS) as table:
        stored = {(row.weights, row.layer, row.batch) for row in table.rows}
        for kind in spec.weights:
            parts = [(layer, number) for layer in spec.convolutions for number in range(spec.batches)]
            missing = [part for part in parts if (kind, *part) not in stored]
            progress(len(parts) - len(missing))
            if not missing:
                progress(spec.epochs)
                continue
            network, inputs = _trained(spec, kind, data, folder, progress)
            convolutions = [layer.name for layer in network.layers.walk() if _sees_signs(layer)]
            for layer, number in missing:
                one = OneLayer(network, convolutions[layer - 1])
                rows = np.arange(number * spec.batch, (number + 1) * spec.batch, dtype=np.int64) % len(inputs)
                batch = Labelled(inputs.batch(rows), inputs.labels[rows])
                table.add(_decreases(spec, one, batch, kind, layer, number))
                progress(1)
    return table.rows


def _sees_signs(layer: Any) -> bool:
    return isinstance(layer, Conv2D) and "body" in layer.name


def _trained(spec: ThinResNetSpec, kind: str, data: Any, folder: Path, progress: tables.Progress) -> tuple[Network, Inputs]:
    encoder = Encoder.of(data, recipe(), True)
    network = Network(models.binary_resnet18(data.classes, spec.width, weights=kind), encoder.shape, recipe(), spec.seed)
    inputs = Inputs.of(data, encoder)
    trainer = Trainer(
        network, SGD(Schedule(Factor.of(repr(spec.rate)), "linear"), momentum="0.9"), inputs, epochs=spec.epochs,
        batch=spec.train_batch, augmentation=usual_augmentation(spec.dataset), watch=False,
    )  # fmt: skip
    path = folder / f"trained-{kind}.npz"
    if path.exists():
        checkpoint.restore(trainer, checkpoint.load(path))
        progress(trainer.epoch)
    while trainer.epoch < trainer.epochs:
        trainer.run_epoch()
        checkpoint.save(path, trainer)
        progress(1)
    return network, inputs


def directions(spec: ThinResNetSpec, one: OneLayer, batch: Labelled, kind: str) -> Iterator[tuple[str, float, Direction]]:
    """Yield estimator, epsilon and direction, that of STE first."""
    yield "ste", 0.0, STE()(one, batch)
    for epsilon in spec.epsilon:
        yield "cdg", epsilon, CDG(repr(epsilon))(one, batch)
    if kind == "binary":
        furthest = (int(np.abs(one.weights).max()) + 1) * one.weight_unit
        yield "cdg", FLIP, CDG(furthest)(one, batch)


def _decreases(spec: ThinResNetSpec, one: OneLayer, batch: Labelled, kind: str, layer: int, number: int) -> list[ThinResNetRow]:
    unit = float(one.loss_unit) / batch.samples
    before = one.losses(batch).exact()[0]
    rates = [Fraction(repr(rate)) for rate in spec.rates]
    found, rows = None, []
    for name, epsilon, direction in directions(spec, one, batch, kind):
        real = direction.layers(one)[0]
        found = real if found is None else found
        after = one.losses(batch, step(one, direction, rates)).exact()
        rows += [
            ThinResNetRow(kind, layer, number, name, epsilon, rate, cosine(real, found), before * unit, (before - loss) * unit)
            for rate, loss in zip(spec.rates, after, strict=True)
        ]
    return rows
