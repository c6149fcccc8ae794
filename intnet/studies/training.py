"""One training, and a folder with all that is to be known of it.

What is trained is a :class:`intnet.trainings.TrainingSpec`, made ready by :func:`intnet.trainings.prepare`.

1. Running          opened, run
2. Reading          describe
3. Writing          export
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np

from intnet import checkpoint, files, telemetry
from intnet._version import __version__
from intnet.errors import InputError, StudyError
from intnet.training import Trainer
from intnet.trainings import Training

CHECKPOINT = "checkpoint.npz"
TEXTS = ("train.csv", "telemetry.csv", "config.json")
PICTURES = ("training.png", "telemetry.png")

Progress = Callable[[int], object]


# 1. Running -------------------------------------------------------------------------------------------------------------


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


# 2. Reading -------------------------------------------------------------------------------------------------------------


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


# 3. Writing -------------------------------------------------------------------------------------------------------------


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
