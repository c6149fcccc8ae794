"""HALP on networks: what one training of ResNet-18 is.

The protocol of the released code where it is known: a constant rate, one scale a tensor, weight decay that acts on offsets
alone. Two things are different. The full gradient weighs every sample alike, where the released code weighs its batches; and
running statistics of batch normalization follow the weights that train, where the released code's follow the centre as well.

References
----------
De Sa et al. 2018, High-Accuracy Low-Precision Training, arXiv:1803.03383, and the code released with it (torchhalp).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from intnet import datasets, models
from intnet.datasets import Dataset
from intnet.errors import InputError
from intnet.inputs import Encoder, Inputs
from intnet.network import Network
from intnet.optimizers import HALP, SGD, SVRG, BitCentering, Factor
from intnet.optimizers.halp import EXACT, OFFSETS, check_rounding
from intnet.recipe import Recipe
from intnet.studies import trajectories as of_study
from intnet.studies.tables import to_csv
from intnet.training import Trainer, evaluate
from intnet.trainings import first_samples, usual_augmentation

METHODS = ("halp", "svrg", "sgd")
LOSSES = "losses.csv"
PERIODS_MAX = 1_000_000
MODEL = "resnet18"
_REPEATED = ("bits", "recentre", "methods", "recipes")


# 1. What to train -------------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """One training but for its seed.

    Attributes
    ----------
    recipe, method : str
    bits : int
        Of an offset; 0 of a method that has none.
    recentre : float
        Epochs between two full gradients; 0 of SGD.
    """

    recipe: str
    method: str
    bits: int
    recentre: float

    def name(self, seed: int) -> str:
        """Return the name of its folder."""
        parts = [self.method, self.recipe] + [f"b{self.bits}"] * (self.bits > 0) + [f"T{self.recentre:g}"] * (self.recentre > 0)
        return "-".join([*parts, f"seed{seed}"])


@dataclass(frozen=True)
class NetworkSpec:
    """A study of ResNet-18: the most bits with every period, the period of an epoch with every number of bits, and baselines.

    Parameters
    ----------
    dataset : str
        One of `intnet.datasets.NAMES`.
    bits : sequence of int, 2..16
        Of offsets.
    recentre : sequence of float
        Epochs between two full gradients, each a step or more. Where the bits vary it is 1, or if that is not among them, the
        first.
    methods : sequence of {"halp", "svrg", "sgd"}
        SVRG has the period of the sweep over bits; SGD has momentum.
    recipes : sequence of Recipe or str
        The first is that of all trainings; with each of the others HALP trains once, with the most bits.
    seeds : int
        How many, from 0 on: of the weights, the orders, the augmentation and the rounding.
    mu, rate, momentum, decay : what `Factor.of` takes
        Momentum is SGD's.
    decay_of : {"offsets", "weights"}
        Of HALP: "offsets" as released. SVRG and SGD decay weights.
    scale, rounding : as of `BitCentering`
    epochs, batch : int
    width : float
    samples : int, optional
        Only the first training images.
    augment : bool
        Random crops, and flips where a mirror image is of the same class.

    Raises
    ------
    InputError
        If something is unknown or out of range.

    Examples
    --------
    >>> [setting.name(0) for setting in NetworkSpec(bits=(4, 8), methods=("halp",)).settings()]
    ['halp-wide-b8-T0.5-seed0', 'halp-wide-b8-T1-seed0', 'halp-wide-b8-T3-seed0', 'halp-wide-b4-T1-seed0']
    """

    dataset: str = "cifar10"
    bits: Sequence[int] = (8, 4, 2)
    recentre: Sequence[float] = (0.5, 1, 3)
    methods: Sequence[str] = METHODS
    recipes: Sequence[Recipe | str] = ("wide",)
    seeds: int = 1
    mu: Any = 20
    rate: Any = "0.1"
    momentum: Any = "0.9"
    decay: Any = "5e-4"
    decay_of: str = OFFSETS
    scale: str = EXACT
    rounding: Any = "stochastic"
    epochs: int = 10
    batch: int = 128
    width: float = 0.125
    samples: int | None = None
    augment: bool = True

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        for name in _REPEATED:
            value = getattr(self, name)
            values = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
            if not values:
                raise InputError(f"{name} must not be empty")
            set_(self, name, values)
        for name, least in (("seeds", 1), ("epochs", 1), ("batch", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise InputError(f"{name} must be an integer of at least {least}, got {value!r}")
            set_(self, name, int(value))
        if unknown := [one for one in self.methods if one not in METHODS]:
            raise InputError(f"the methods are {', '.join(METHODS)}, got {unknown[0]!r}")
        recipes = tuple(Recipe.load(one) for one in self.recipes)
        if len({one.name for one in recipes}) < len(recipes):
            raise InputError(f"recipes need names of their own, got {', '.join(one.name for one in recipes)}")
        set_(self, "recipes", recipes)
        for periods in self.recentre:
            if isinstance(periods, bool) or not isinstance(periods, (int, float)) or not 0 < periods <= PERIODS_MAX:
                shown = f"{periods:g}" if isinstance(periods, (int, float)) else repr(periods)
                raise InputError(f"recentre is in epochs, above 0 and up to {PERIODS_MAX:,} (0.5, 1, 3), got {shown}")
        set_(self, "recentre", tuple(dict.fromkeys(float(f"{one:g}") for one in self.recentre)))  # as their folders are called
        usual_augmentation(self.dataset)  # which refuses what is no data set
        for name in ("mu", "rate", "momentum", "decay"):
            try:
                set_(self, name, Factor.of(getattr(self, name)))
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
        set_(self, "rounding", check_rounding(self.rounding).value)
        for setting in self.settings():
            recipe = next(one for one in recipes if one.name == setting.recipe)
            self.optimizer(setting).check(recipe, self.epochs, self.batch)

    @property
    def usual_period(self) -> float:
        """Epochs between two full gradients where the bits vary."""
        return 1.0 if 1 in self.recentre else self.recentre[0]

    def settings(self) -> list[Setting]:
        """Return what is trained, the most important first."""
        first, *others = [one.name for one in self.recipes if isinstance(one, Recipe)]
        most, usual = max(self.bits), self.usual_period
        halp = [Setting(first, "halp", most, periods) for periods in self.recentre]
        halp += [Setting(first, "halp", few, usual) for few in sorted(set(self.bits) - {most}, reverse=True)]
        halp += [Setting(other, "halp", most, usual) for other in others]
        baselines = {"svrg": Setting(first, "svrg", 0, usual), "sgd": Setting(first, "sgd", 0, 0.0)}
        chosen = halp if "halp" in self.methods else []
        return list(dict.fromkeys(chosen)) + [baselines[name] for name in METHODS if name in self.methods and name in baselines]

    def optimizer(self, setting: Setting, steps_per_epoch: int | None = None) -> SGD:
        """Return the optimizer of a training; one with some period if the length of an epoch is not known yet.

        Raises
        ------
        InputError
            If the period is less than a step.
        """
        if setting.method == "sgd":
            return SGD(self.rate, self.momentum, self.decay)
        period = 1
        if steps_per_epoch is not None:
            period = math.floor(setting.recentre * steps_per_epoch + 0.5)  # half of 391 steps are 196, as published
            if period < 1:
                raise InputError(
                    f"recentre {setting.recentre:g} is {setting.recentre * steps_per_epoch:.2g} of the {steps_per_epoch} steps "
                    "of an epoch, and a period has at least one"
                )
        if setting.method == "svrg":
            return SVRG(self.rate, self.decay, period=period)
        how = BitCentering(setting.bits, self.mu, period, self.scale, self.rounding)
        return HALP(self.rate, how, self.decay, decay_of=self.decay_of)

    def layers(self, classes: int) -> Any:
        """Return the model's layers, new ones."""
        return models.make_model(MODEL, classes, self.width)


# 2. One training --------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A row of ``epochs.csv``.

    `recentre` is in epochs, `T` the same in steps, both 0 for SGD; the loss is the mean over the epoch's batches as they were
    trained, in nats a sample; accuracies and what saturated of all moves of offsets are fractions of 1.
    """

    recipe: str
    method: str
    bits: int
    recentre: float
    T: int
    seed: int
    epoch: int
    train_loss: float
    test_accuracy: float
    saturated: float


class Loss(NamedTuple):
    """A row of ``losses.csv``: the mean over a batch before the step, in nats a sample."""

    iteration: int
    loss: float


@dataclass(eq=False)
class Trajectory(of_study.Trajectory[Row]):
    """A setting and a seed; `losses` are those of every step, the mean over its batch, before the step."""

    kind: ClassVar[type] = Row
    setting: Setting
    seed: int
    test: Dataset = field(repr=False)
    losses: list[float] = field(default_factory=list, kw_only=True, repr=False)

    @property
    def samples_left(self) -> int:
        """How many samples are left to be looked at, those of full gradients included."""
        trainer = self.trainer
        samples, steps = len(trainer.train), trainer.steps_per_epoch
        left = (trainer.epochs - trainer.epoch) * samples
        if isinstance(trainer.optimizer, SVRG):
            full = trainer.optimizer.full_gradients
            left += (full(trainer.epochs * steps) - full(trainer.epoch * steps)) * samples
        return left

    def evaluate(self) -> list[Row]:
        """Return the row of the epoch that has just ended."""
        trainer = self.trainer
        optimizer, last = trainer.optimizer, trainer.history[-1]
        encoder = Encoder.of(self.test, trainer.network.recipe, True)
        wrong = np.count_nonzero(evaluate(trainer.network, Inputs.of(self.test, encoder)).predictions != self.test.labels)
        moves = optimizer.steps * trainer.network.parameter_count if isinstance(optimizer, HALP) else 0
        saturated = optimizer.saturated / moves if isinstance(optimizer, HALP) and moves else 0.0
        period = optimizer.period if isinstance(optimizer, SVRG) else 0
        self.losses += trainer.losses
        accuracy = 1 - int(wrong) / len(self.test.labels)
        return [Row(*self._first, period, self.seed, trainer.epoch, last.train_loss, accuracy, saturated)]

    @property
    def _first(self) -> tuple[str, str, int, float]:
        return self.setting.recipe, self.setting.method, self.setting.bits, self.setting.recentre

    def tables(self) -> dict[str, str]:
        """Return the rows, and the loss of every step."""
        losses = [Loss(iteration, loss) for iteration, loss in enumerate(self.losses, 1)]
        return super().tables() | {LOSSES: to_csv(Loss, losses)}

    def notes(self) -> dict[str, Any]:
        """Return the losses."""
        return {"losses": self.losses}

    def take_notes(self, notes: dict[str, Any]) -> None:
        """Take back the losses."""
        self.losses = [float(loss) for loss in notes["losses"]]


def trajectories(spec: NetworkSpec, data_dir: Path | str | None = None, device: str = "cpu") -> Iterator[Trajectory]:
    """Yield every setting with every seed, ready to train; seed after seed.

    Raises
    ------
    DataError
        If the data set is missing or damaged.
    InputError
        If something does not fit together.
    """
    train = first_samples(datasets.load(spec.dataset, data_dir, subset="train"), spec.samples, "train")
    test = datasets.load(spec.dataset, data_dir, subset="test")
    augmentation = usual_augmentation(spec.dataset) if spec.augment else None
    recipes = {one.name: one for one in spec.recipes if isinstance(one, Recipe)}
    steps = -(-len(train.labels) // min(spec.batch, len(train.labels)))
    for setting in spec.settings():
        spec.optimizer(setting, steps)  # before the first hour is spent
    for seed in range(spec.seeds):
        for setting in spec.settings():
            recipe = recipes[setting.recipe]
            encoder = Encoder.of(train, recipe, True)
            network = Network(spec.layers(train.classes), encoder.shape, recipe, seed)
            trainer = Trainer(
                network, spec.optimizer(setting, steps), Inputs.of(train, encoder), epochs=spec.epochs, batch=spec.batch,
                augmentation=augmentation, device=device,
            )  # fmt: skip
            yield Trajectory(setting.name(seed), trainer, configuration(spec, train, test), setting, seed, test)


def configuration(spec: NetworkSpec, train: Dataset, test: Dataset) -> dict[str, Any]:
    """Return what decides a training's results and its trainer does not know."""
    return {
        "study": "halp",
        "model": MODEL,
        "dataset": {"name": spec.dataset, "train_checksum": train.checksum, "test_checksum": test.checksum},
        "width": spec.width,
        "samples": len(train.labels),
        "loss_unit": "nats a sample, of the batches as they were trained",
        "accuracy_unit": "fraction of 1, of all test images",
    }
