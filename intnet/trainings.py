"""What is trained on what, by which recipe: a frozen specification, and the trainer made ready from it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from intnet import datasets, models
from intnet.datasets import Dataset
from intnet.errors import InputError
from intnet.inputs import Augmentation, Encoder, Inputs
from intnet.network import Network
from intnet.optimizers import SGD, Factor, Schedule
from intnet.recipe import Recipe
from intnet.training import Trainer


@dataclass(frozen=True)
class _Defaults:
    """What is trained on a data set unless something else is said."""

    model: str
    epochs: int
    batch: int
    augmentation: Augmentation
    standardize: bool = False


_SMALL_CROP = Augmentation(padding=2, flip=False)  # a digit's mirror image is no digit
_DEFAULTS = {
    "digits": _Defaults("mlp", 20, 32, Augmentation(padding=1, flip=False)),
    "mnist": _Defaults("mlp", 20, 64, _SMALL_CROP),
    "fashion-mnist": _Defaults("mlp", 20, 64, Augmentation(padding=2)),
    **{name: _Defaults("vgg_small", 10, 128, Augmentation(), True) for name in ("cifar10", "cifar10-jpeg", "cifar100")},
}
_PLAIN_MODELS = ("mlp", "lenet5")  # shallow: fixed point carries them, and no momentum is needed
_WIDTHS = {"vgg_small": 0.25}  # what two cores can train in minutes


@dataclass(frozen=True)
class TrainingSpec:
    """A training, as a frozen specification; what is None is what suits the data set, the model and the recipe.

    Parameters
    ----------
    dataset : str
        One of `intnet.datasets.NAMES`.
    model : str, optional
        One of `intnet.models.MODELS`.
    recipe : Recipe or str, optional
        Or a ready-made one's name, or a JSON file.
    epochs, batch : int, optional
    rate, momentum, decay : what `Factor.of` takes, optional
    schedule : str, optional
        See :meth:`intnet.optimizers.Schedule.parse`; by default linear, and constant for recipes with normalized updates.
    loss : str, optional
        By default the recipe's.
    width : float, optional
        The model's width factor.
    hidden : tuple of int, optional
        Units of the hidden layers, of an ``mlp`` alone.
    augmentation : Augmentation, True or None
        True: the data set's usual one. None: none.
    standardize : bool, optional
    samples : int, optional
        Only so many of the first training and test samples, for a quick look.
    seed : int
        Of the weights, the order, the augmentation and the rounding.

    Examples
    --------
    >>> spec = TrainingSpec()
    >>> spec.model, spec.recipe.name, spec.epochs, str(spec.rate)
    ('mlp', 'fixed16', 20, '2^-3')
    """

    dataset: str = "digits"
    model: str | None = None
    recipe: Recipe | str | None = None
    epochs: int | None = None
    batch: int | None = None
    rate: Any = None
    momentum: Any = None
    decay: Any = 0
    schedule: str | None = None
    loss: str | None = None
    width: float | None = None
    hidden: tuple[int, ...] | None = None
    augmentation: Augmentation | bool | None = None
    standardize: bool | None = None
    samples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        usual_augmentation(self.dataset)  # which refuses what is no data set
        usual = _DEFAULTS[self.dataset]
        model = usual.model if self.model is None else self.model
        if model not in models.MODELS:
            raise InputError(f"model {model!r} is unknown; choose one of {', '.join(models.MODELS)}")
        if self.hidden is not None and model != "mlp":
            raise InputError(f"hidden layers are those of an mlp, and the model is {model}; its size is set by its width")
        plain = model in _PLAIN_MODELS
        recipe = Recipe.load(("fixed16" if plain else "int8") if self.recipe is None else self.recipe)
        normalized = recipe.update == "normalized"
        filled: dict[str, Any] = {
            "model": model,
            "recipe": recipe,
            "epochs": usual.epochs,
            "batch": usual.batch,
            "rate": "2^4" if normalized else "2^-3" if plain else "2^-7",
            "schedule": "constant" if normalized else "linear",
            "momentum": "0" if plain or normalized or recipe.momentum is None else "0.9",
            "width": _WIDTHS.get(model, 1),
            "standardize": usual.standardize,
            "hidden": (100, 50) if model == "mlp" else None,
        }
        for name, value in filled.items():
            if name in ("model", "recipe") or getattr(self, name) is None:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "rate", Factor.of(self.rate))
        if isinstance(self.augmentation, bool):
            object.__setattr__(self, "augmentation", usual.augmentation if self.augmentation else None)


@dataclass(frozen=True, eq=False)
class Training:
    """A training, ready to run: see :func:`prepare`."""

    spec: TrainingSpec
    trainer: Trainer
    test: Inputs
    config: dict[str, Any]


def prepare(
    spec: TrainingSpec,
    data_dir: Path | str | None = None,
    device: str = "cpu",
    load: Callable[..., Dataset] | None = None,
) -> Training:
    """Load the data, build the network and check everything that can be checked before training.

    Parameters
    ----------
    spec : TrainingSpec
    data_dir : path, optional
        Where the data set's files are, see :func:`intnet.datasets.load`.
    device : {"cpu", "gpu", "auto"}
        Where to train; no part of the training, as the bits are the same.
    load : function, optional
        Gives ``load(name, subset=part)`` instead of :func:`intnet.datasets.load`; one that remembers serves many trainings.

    Raises
    ------
    DataError
        If the data set is missing or damaged.
    InputError
        If something is unknown, does not fit together, or cannot work.
    """
    chosen: Any = spec  # nothing in it is None that must not be
    schedule = Schedule.parse(chosen.schedule, chosen.rate)
    optimizer = SGD(schedule, chosen.momentum, chosen.decay)
    load = partial(datasets.load, data_dir=data_dir) if load is None else load
    train, test = (first_samples(load(spec.dataset, subset=part), spec.samples, part) for part in ("train", "test"))
    options = {} if chosen.hidden is None else {"hidden": chosen.hidden}
    layers = models.make_model(chosen.model, train.classes, chosen.width, **options)
    encoder = Encoder.of(train, chosen.recipe, chosen.standardize)
    network = Network(layers, encoder.shape, chosen.recipe, spec.seed, spec.loss)
    trainer = Trainer(
        network,
        optimizer,
        Inputs.of(train, encoder),
        epochs=chosen.epochs,
        batch=chosen.batch,
        augmentation=chosen.augmentation,
        device=device,
    )
    config = {
        "dataset": {"name": spec.dataset, "train_checksum": train.checksum, "test_checksum": test.checksum},
        "model": {"name": spec.model, "width": spec.width, **options},
        "standardize": spec.standardize,
        "test_samples": len(test.labels),
    }
    return Training(spec, trainer, Inputs.of(test, encoder), json.loads(json.dumps(config)))


def usual_augmentation(dataset: str) -> Augmentation:
    """Return how a data set's images are usually augmented.

    Raises
    ------
    InputError
        If there is no such data set.
    """
    if dataset not in _DEFAULTS:
        raise InputError(f"there is no data set {dataset!r}; there are {', '.join(datasets.NAMES)}")
    return _DEFAULTS[dataset].augmentation


def first_parts(dataset: str, data_dir: Path | str | None, samples: int | None) -> tuple[Dataset, Dataset]:
    """Load the training and the test part of a data set, of each the first samples if a number is given."""
    loaded = {part: datasets.load(dataset, data_dir, subset=part) for part in ("train", "test")}
    train, test = (first_samples(data, samples, part) for part, data in loaded.items())
    return train, test


def first_samples(data: Dataset, samples: int | None, part: str) -> Any:
    """Return the first samples of a data set; of a test part at most so many."""
    if samples is None:
        return data
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise InputError(f"samples must be an integer of at least 1, got {samples!r}")
    if part == "train" and samples > len(data.labels):
        raise InputError(f"{data.name} has {len(data.labels)} training samples, and {samples} are asked for")
    return replace(data, codes=data.codes[:samples], labels=data.labels[:samples])
