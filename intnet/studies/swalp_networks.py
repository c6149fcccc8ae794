"""SWALP on networks: what is trained, and one trajectory of it.

1. What to train      NetworkSpec
2. Rows               Row, epochs_csv, read_rows
3. One trajectory     Trajectory, trajectories, train

One trajectory gives both methods: ``sgd_lp`` is the network as it trains, ``swalp`` the average of its weights, evaluated in
the recipe `wide`, as the released code evaluates it in full precision. Before a network is evaluated, the statistics of its
batch normalization are taken anew from training images.

References
----------
Yang et al. 2019, SWALP: Stochastic Weight Averaging in Low-Precision Training, arXiv:1904.11943, sec. 5.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from intnet import datasets, models
from intnet.datasets import Dataset
from intnet.errors import InputError
from intnet.inputs import Encoder, Inputs
from intnet.network import Network
from intnet.optimizers import SWALP, Factor, SWALPSchedule
from intnet.recipe import Recipe
from intnet.studies import trajectories as of_study
from intnet.studies.tables import to_csv
from intnet.training import Trainer, evaluate, pool_statistics
from intnet.trainings import first_samples, usual_augmentation

AVERAGE_RECIPE = "wide"
_FOLDER_NAME = re.compile(r"\w[\w.-]*")


# 1. What to train -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Published:
    """What the released scripts train, by model."""

    name: str
    rate: str
    averaging_rate: str
    decay: str
    epochs: int
    start: int
    width: float  # ours: what two cores train in an hour
    depth: int | None


PUBLISHED = {
    "vgg": _Published("vgg16", "0.05", "0.01", "5e-4", 300, 200, 0.25, None),
    "preresnet": _Published("preresnet164", "0.1", "0.01", "3e-4", 225, 150, 0.5, 20),
}


@dataclass(frozen=True)
class NetworkSpec:
    """A study of one model: every recipe with every seed; what is None is what suits the model.

    Parameters
    ----------
    model : {"vgg", "preresnet"}
    dataset : str
        One of `intnet.datasets.NAMES`.
    recipes : sequence of Recipe or str
        Names, or JSON files.
    seeds : int
        How many, from 0 on: of the weights, the order, the augmentation and the rounding.
    epochs, start : int, optional
        Averaging begins at the end of epoch `start`: by default two thirds of all, as published.
    rate, averaging_rate, momentum, decay : what `Factor.of` takes, optional
    batch : int
    width : float, optional
    depth : int, optional
        Of a preresnet alone.
    dropout : float
        Of a vgg alone; 1/2 as published.
    every, unit : int, {"epoch", "step"}
        The averaging cycle.
    average_bits : int, 8..16, optional
        By default averages are exact.
    samples : int, optional
        Only the first training images.
    evaluation_samples : int
        So many of the first training images, without augmentation, give the training loss of what is evaluated; and, augmented,
        the statistics of batch normalization.
    augment : bool
        Random crops, and flips where a mirror image is of the same class.

    Raises
    ------
    InputError
        If something is unknown, or does not belong to the model.

    Examples
    --------
    >>> spec = NetworkSpec("preresnet", epochs=15)
    >>> spec.start, str(spec.rate), spec.width, spec.depth
    (10, '0.0999985', 0.5, 20)
    """

    model: str
    dataset: str = "cifar10"
    recipes: Sequence[Recipe | str] = ("bfp8-mixed", "wide")
    seeds: int = 1
    epochs: int = 15
    start: int | None = None
    rate: Any = None
    averaging_rate: Any = None
    momentum: Any = "0.9"
    decay: Any = None
    batch: int = 128
    width: float | None = None
    depth: int | None = None
    dropout: float = 0.0
    every: int = 1
    unit: str = "epoch"
    average_bits: int | None = None
    samples: int | None = None
    evaluation_samples: int = 5000
    augment: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or self.model not in PUBLISHED:
            raise InputError(f"the study's models are {', '.join(PUBLISHED)}, got {self.model!r}")
        usual = PUBLISHED[self.model]
        if self.depth is not None and usual.depth is None:
            raise InputError(f"depth is that of a preresnet, and the model is {self.model}; its size is set by its width")
        if self.dropout and self.model != "vgg":
            raise InputError(f"dropout is that of a vgg, and the model is {self.model}")
        for name, least in (("seeds", 1), ("epochs", 1), ("batch", 1), ("evaluation_samples", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise InputError(f"{name} must be an integer of at least {least}, got {value!r}")
            object.__setattr__(self, name, int(value))
        usual_augmentation(self.dataset)  # which refuses what is no data set
        if not isinstance(self.recipes, Iterable):
            raise InputError(f"recipes are a sequence, got {self.recipes!r}")
        recipes = tuple(Recipe.load(one) for one in ((self.recipes,) if isinstance(self.recipes, str) else self.recipes))
        names = [one.name for one in recipes]
        for name in names:
            if not _FOLDER_NAME.fullmatch(name):
                raise InputError(f"a recipe's name is that of a folder here: letters, digits, '-', '_' and '.', got {name!r}")
        if not recipes or len(set(names)) < len(names):
            raise InputError(f"a study needs recipes, each of a name of its own, got {', '.join(names) or 'none'}")
        object.__setattr__(self, "recipes", recipes)
        for name in ("width", "depth"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(usual, name))
        if self.start is None:
            object.__setattr__(self, "start", max(1, round(self.epochs * usual.start / usual.epochs)))
        for name in ("rate", "averaging_rate", "decay"):
            value = getattr(self, name)
            object.__setattr__(self, name, Factor.of(getattr(usual, name) if value is None else value))
        object.__setattr__(self, "momentum", Factor.of(self.momentum))
        self.layers(2)
        for recipe in recipes:
            self.optimizer(0).check(recipe, self.epochs, self.batch)

    def layers(self, classes: int) -> Any:
        """Return the model's layers, new ones."""
        options: dict[str, Any] = {"dropout": self.dropout} if self.model == "vgg" else {"depth": self.depth}
        return models.make_model(PUBLISHED[self.model].name, classes, self.width, **options)  # type: ignore[arg-type]

    def optimizer(self, seed: int) -> SWALP:
        """Return the optimizer of a trajectory."""
        schedule = SWALPSchedule(self.rate, start=self.start, averaging_rate=self.averaging_rate)  # type: ignore[arg-type]
        cycle: dict[str, Any] = {"every": self.every, "unit": self.unit, "average_bits": self.average_bits}
        return SWALP(schedule, self.momentum, self.decay, **cycle, seed=seed)


# 2. Rows ----------------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A row of ``epochs.csv``: what one method had at the end of an epoch; errors are fractions of 1."""

    model: str
    recipe: str
    method: str
    seed: int
    epoch: int
    train_loss: float
    test_error: float


def read_rows(path: Path | str) -> list[Row]:
    """Return the rows of an ``epochs.csv``.

    Raises
    ------
    StudyError
        If it is none.
    """
    return of_study.read_rows(path, Row)


def epochs_csv(rows: Iterable[Row]) -> str:
    """Return a row an epoch, method, recipe and seed: the loss in nats a sample, the error as a fraction of 1."""
    return to_csv(Row, list(rows))


# 3. One trajectory ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Trajectory(of_study.Trajectory[Row]):
    """A recipe and a seed: the network that trains, and two more to evaluate it and its average."""

    kind: ClassVar[type] = Row
    spec: NetworkSpec
    recipe: Recipe
    seed: int
    train: Dataset = field(repr=False)
    test: Dataset = field(repr=False)

    def evaluate(self) -> list[Row]:
        """Return the rows of the epoch that has just ended."""
        rows = [self._row("sgd_lp", self.recipe, lambda network: network.load_state(self.trainer.network.state()))]
        average = self.trainer.optimizer.average  # type: ignore[attr-defined]
        if average.count:
            rows.append(self._row("swalp", Recipe.load(AVERAGE_RECIPE), lambda network: average.write(network.parameters)))
        return rows

    def _row(self, method: str, recipe: Recipe, fill: Callable[[Network], object]) -> Row:
        encoder = Encoder.of(self.train, recipe, True)
        network = Network(self.spec.layers(self.train.classes), encoder.shape, recipe, self.seed).to(
            self.trainer.network.device
        )
        fill(network)
        some = Inputs.of(first_samples(self.train, min(self.spec.evaluation_samples, len(self.train.labels)), "train"), encoder)
        pool_statistics(network, some, batch=self.trainer.batch, augmentation=self.trainer.augmentation)
        wrong = int(np.count_nonzero(evaluate(network, Inputs.of(self.test, encoder)).predictions != self.test.labels))
        loss, error = evaluate(network, some).loss, wrong / len(self.test.labels)
        return Row(self.spec.model, self.recipe.name, method, self.seed, self.trainer.epoch, loss, error)


def trajectories(spec: NetworkSpec, data_dir: Path | str | None = None, device: str = "cpu") -> Iterator[Trajectory]:
    """Yield every recipe with every seed, ready to train; seed after seed.

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
    for seed in range(spec.seeds):
        for recipe in spec.recipes:
            assert isinstance(recipe, Recipe)
            encoder = Encoder.of(train, recipe, True)
            network = Network(spec.layers(train.classes), encoder.shape, recipe, seed)
            inputs, optimizer = Inputs.of(train, encoder), spec.optimizer(seed)
            trainer = Trainer(
                network, optimizer, inputs, epochs=spec.epochs, batch=spec.batch, augmentation=augmentation, device=device
            )
            config = _config(spec, train, test)
            yield Trajectory(f"{recipe.name}-seed{seed}", trainer, config, spec, recipe, seed, train, test)


def _config(spec: NetworkSpec, train: Dataset, test: Dataset) -> dict[str, Any]:
    """Return what decides a trajectory's results and its trainer does not know."""
    return {
        "study": "swalp",
        "model": PUBLISHED[spec.model].name,
        "dataset": {"name": spec.dataset, "train_checksum": train.checksum, "test_checksum": test.checksum},
        "width": spec.width,
        "depth": spec.depth,
        "dropout": spec.dropout,
        "epochs": spec.epochs,
        "optimizer": spec.optimizer(0).describe(),
        "batch": spec.batch,
        "samples": len(train.labels),
        "evaluation_samples": spec.evaluation_samples,
        "evaluated_average": f"in recipe {AVERAGE_RECIPE}",
        "loss_unit": "nats a sample, of the first training images, without augmentation",
        "error_unit": "fraction of 1, of all test images",
    }
