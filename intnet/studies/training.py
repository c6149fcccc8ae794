"""One training: what to train on what, by which recipe, and a folder with all that is to be known of it.

1. What to train    TrainingSpec, prepare
2. Running          opened, run
3. Reading          describe
4. Writing          export
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np

from intnet import checkpoint, datasets, files, models, telemetry
from intnet._version import __version__
from intnet.datasets import Dataset
from intnet.errors import InputError, StudyError
from intnet.inputs import Augmentation, Encoder, Inputs
from intnet.network import Network
from intnet.optimizers import SGD, Factor, Schedule
from intnet.recipe import Recipe
from intnet.training import Trainer

CHECKPOINT = "checkpoint.npz"
TEXTS = ("train.csv", "telemetry.csv", "config.json")
PICTURES = ("training.png", "telemetry.png")

Progress = Callable[[int], object]


# 1. What to train -------------------------------------------------------------------------------------------------------


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


def prepare(spec: TrainingSpec, data_dir: Path | str | None = None, device: str = "cpu") -> Training:
    """Load the data, build the network and check everything that can be checked before training.

    Parameters
    ----------
    spec : TrainingSpec
    data_dir : path, optional
        Where the data set's files are, see :func:`intnet.datasets.load`.
    device : {"cpu", "gpu", "auto"}
        Where to train; no part of the training, as the bits are the same.

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
    train, test = (
        first_samples(datasets.load(spec.dataset, data_dir, subset=part), spec.samples, part) for part in ("train", "test")
    )
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


# 2. Running -------------------------------------------------------------------------------------------------------------


def set_aside(folder: Path | str) -> Path | None:
    """Rename a training's folder to a dated name: see :func:`intnet.files.set_aside`."""
    drafts = [f".{Path(name).stem}.draft{Path(name).suffix}" for name in (CHECKPOINT, *TEXTS, *PICTURES)]
    with files.explained(Path(folder)):
        return files.set_aside(folder, CHECKPOINT, (*TEXTS, *PICTURES, *drafts))


@contextmanager
def opened(training: Training, folder: Path | str) -> Iterator[Path]:
    """Take a folder for a training, and go to where the checkpoint in it is, if there is one.

    While it is open no other run can use the folder.

    Raises
    ------
    StudyError
        If the folder is a file, is not writable, is in use, holds another training, or its checkpoint is damaged; then nothing
        in it is changed.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{folder} is not a folder; --out must name a folder")
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
    with files.locked(folder):
        again = "choose another --out, or set the old one aside with --fresh"
        if CHECKPOINT in names:
            stored = checkpoint.load(folder / CHECKPOINT)
            try:
                checkpoint.restore(training.trainer, stored, training.config)
            except InputError as error:
                raise StudyError(f"{folder}: {error}; {again}") from error
        elif remains := sorted(names & {*TEXTS, *PICTURES, files.REPORT}):
            raise StudyError(f"{folder} holds {remains[0]} of an earlier training or study but no {CHECKPOINT}; {again}")
        yield folder


def run(
    training: Training, folder: Path, *, progress: Progress | None = None, after: Callable[[Trainer], object] | None = None
) -> None:
    """Train to the last epoch, from wherever the training is; after every epoch keep a checkpoint and write the tables.

    Parameters
    ----------
    training : Training
    folder : path
        :func:`opened`.
    progress : function of an int, optional
        Told how many samples more have been trained on.
    after : function of the trainer, optional
        Called when an epoch is kept.

    Raises
    ------
    StudyError
        If a file cannot be written; the last checkpoint is then kept.
    """

    def keep(trainer: Trainer) -> None:
        checkpoint.save(folder / CHECKPOINT, trainer, training.config)
        _write_texts(training, folder)
        if after is not None:
            after(trainer)

    training.trainer.run(training.test, after=keep, progress=progress)


# 3. Reading -------------------------------------------------------------------------------------------------------------


def describe(training: Training) -> list[str]:
    """Say in sentences what came out."""
    trainer, history = training.trainer, training.trainer.history
    if not history:
        return []
    last, epochs = history[-1], trainer.epoch
    right = f", {last.test_accuracy:.2%} of the {len(training.test):,} test samples" if last.test_accuracy is not None else ""
    sentences = [
        f"After {epochs} epoch{'s' * (epochs != 1)}: {last.train_accuracy:.2%} of the training samples right as they came"
        f"{right}; loss {last.train_loss:.4g} {trainer.network.loss.unit} a sample."
    ]
    if trainer.died:
        sentences.insert(0, f"{trainer.died[0].upper()}{trainer.died[1:]}.")
    readings = [one for one in trainer.readings if one.epoch == epochs and one.count]
    updates = [one for one in readings if one.role == ("weight" if trainer.network.recipe.master is None else "master")]
    if updates:
        worst = max(updates, key=lambda one: one.lost / one.count)
        share = sum(one.lost for one in updates) / sum(one.count for one in updates)
        sentences.append(
            f"Updates lost to rounding in the last epoch: {share:.1%} of all, "
            f"most in {worst.tensor} ({worst.lost / worst.count:.1%})."
        )
    left = [one for one in readings if one.saturated + one.wrapped]
    if left:
        worst = max(left, key=lambda one: (one.saturated + one.wrapped) / one.count)
        share = (worst.saturated + worst.wrapped) / worst.count
        sentences.append(
            f"Numbers that did not fit into their words in the last epoch: in {len(left)} of {len(readings)} tensors and "
            f"roles, most in {worst.tensor}, {worst.role} ({share:.2g} of them)."
        )
    elif readings:
        sentences.append("Every number of the last epoch fitted into its word.")
    return sentences


# 4. Writing -------------------------------------------------------------------------------------------------------------


def export(training: Training, folder: Path, *, plots: bool = True) -> None:
    """Write the tables, the configuration and the pictures; files that show all there is are left as they are.

    Raises
    ------
    StudyError
        If a file cannot be written.
    """
    _write_texts(training, folder)
    if not plots or not training.trainer.history:
        return
    made = (folder / CHECKPOINT).stat().st_mtime_ns
    if all((folder / name).is_file() and (folder / name).stat().st_mtime_ns >= made for name in PICTURES):
        return
    from intnet import plotting

    spec, trainer = training.spec, training.trainer
    title = f"{spec.dataset}, {spec.model}, {trainer.network.recipe.name}"
    curves = plotting.plot_training(trainer.history, title=title, unit=trainer.network.loss.unit, died=trainer.died)
    maps = plotting.plot_telemetry(trainer.readings, title=title)
    files.write_atomically(folder / "training.png", lambda path: curves.savefig(path, dpi=150))
    files.write_atomically(folder / "telemetry.png", lambda path: maps.savefig(path, dpi=150))


def train_csv(trainer: Trainer) -> str:
    """Return a row an epoch: accuracies are fractions of 1, the loss is in the unit that `config.json` names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("epoch", "train_loss", "train_accuracy", "test_accuracy", "seconds"))
    for row in trainer.history:
        tested = "" if row.test_accuracy is None else row.test_accuracy
        writer.writerow((row.epoch, row.train_loss, row.train_accuracy, tested, f"{row.seconds:.3f}"))
    return text.getvalue()


def full_config(training: Training) -> dict[str, Any]:
    """Return what a reader needs to make the results again, and what to compare them with."""
    trainer = training.trainer
    return {
        **training.config,
        **checkpoint.configuration(trainer),
        "epochs": trainer.epochs,
        "epochs_done": trainer.epoch,
        "died": trainer.died,
        "accuracy_unit": "fraction of 1",
        "loss_unit": f"{trainer.network.loss.unit}, mean over the samples, of the dequantized outputs as they were trained",
        "weights_sha256": trainer.network.digest(),
        "intnet": __version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


def _write_texts(training: Training, folder: Path) -> None:
    contents = (
        train_csv(training.trainer),
        telemetry.to_csv(training.trainer.readings),
        json.dumps(full_config(training), indent=2) + "\n",
    )
    for name, text in zip(TEXTS, contents, strict=True):
        files.write_changed(folder / name, text.encode())
