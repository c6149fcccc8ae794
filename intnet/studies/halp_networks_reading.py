"""The study of HALP on ResNet-18, read and written: tables beside the published curves' values, sentences, pictures.

1. Reading    curves, table, describe
2. Writing    set_aside, run, stored_rows, export
"""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from intnet import files
from intnet._version import __version__
from intnet.recipe import Recipe
from intnet.studies import trajectories as of_study
from intnet.studies.halp_networks import LOSSES, Loss, NetworkSpec, Row, Setting, Trajectory, trajectories
from intnet.studies.tables import CONFIG, to_csv
from intnet.studies.trajectories import EPOCHS, RUNS, Progress

SMOOTHED, TABLE = "training_loss.csv", "table.md"
PICTURES = {
    "loss-by-period.png": ("loss", "period"),
    "accuracy-by-period.png": ("accuracy", "period"),
    "loss-by-bits.png": ("loss", "bits"),
    "accuracy-by-bits.png": ("accuracy", "bits"),
}
_EXPORTS = (EPOCHS, SMOOTHED, TABLE, CONFIG, *PICTURES)

WINDOW = 1000
"""Iterations that a smoothed loss is the mean of: that one and those before it, or all there were."""

_EVERY = 10  # iterations between two rows of smoothed losses
_LAST = 3  # epochs whose accuracies are averaged where runs are compared


class Published(NamedTuple):
    """What the curves released with the paper's code end with, ResNet-18 at full size: percent, and nats.

    `at_10` is the test accuracy after 10 epochs, `at_150` at the end; `loss` is the mean training loss of the 1,000 iterations
    from iteration 10,000 on, in epoch 26.
    """

    at_10: float
    at_150: float
    loss: float


PUBLISHED = {
    ("halp", 8, 0.5): Published(84.24, 92.09, 0.139),
    ("halp", 8, 1): Published(82.53, 90.94, 0.200),
    ("halp", 8, 3): Published(78.89, 88.43, 0.277),
    ("halp", 4, 1): Published(76.30, 89.10, 0.264),
    ("halp", 2, 1): Published(42.67, 32.00, 1.440),
    ("svrg", 0, 0.5): Published(80.64, 91.03, 0.167),
    ("svrg", 0, 1): Published(77.05, 85.36, 0.196),
    ("sgd", 0, 0): Published(76.49, 84.17, 0.360),
}
"""By method, bits, and epochs between two full gradients."""


# 1. Reading -------------------------------------------------------------------------------------------------------------


def setting_of(row: Row) -> Setting:
    """Return what a row's training is but for its seed."""
    return Setting(row.recipe, row.method, row.bits, row.recentre)


def curves(rows: Iterable[Row]) -> dict[Setting, dict[int, list[Row]]]:
    """Return by setting and epoch the rows of all seeds."""
    found: dict[Setting, dict[int, list[Row]]] = {}
    for row in rows:
        found.setdefault(setting_of(row), {}).setdefault(row.epoch, []).append(row)
    return found


def smoothed(losses: Sequence[float], window: int = WINDOW) -> list[tuple[int, float]]:
    """Return every tenth iteration, and the last, with the mean of the losses of the last `window` up to it, or of all."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    ends = sorted({*range(_EVERY, len(losses) + 1, _EVERY), len(losses)}) if len(losses) else []
    return [(end, float(sums[end] - sums[max(0, end - window)]) / min(end, window)) for end in ends]


class Result(NamedTuple):
    """What a setting came to, means over its seeds: accuracies in percent, at the end and over the last three epochs.

    `epoch` is the last, or that after which the first seed ended early.
    """

    setting: Setting
    T: int
    epoch: int
    accuracy: float
    late: float
    best: float
    train_loss: float
    saturated: float
    seeds: int


def results(spec: NetworkSpec, rows: Iterable[Row], ended: Mapping[str, str] | None = None) -> list[Result]:
    """Return what every setting came to that has been trained to the end, in the order of the study.

    Parameters
    ----------
    spec : NetworkSpec
    rows : iterable of Row
    ended : mapping of a training's name to text, optional
        Those that ended early: see `stored_ends`.
    """
    found = curves(rows)
    made = []
    for setting in spec.settings():
        by_epoch = found.get(setting, {})
        early = [setting.name(seed) for seed in range(spec.seeds) if setting.name(seed) in (ended or {})]
        epoch = min(max(by_epoch, default=0), spec.epochs) if early else spec.epochs
        last = by_epoch.get(epoch, [])
        if not last:
            continue
        seeds = {row.seed for row in last}
        each = {epoch: [row for row in some if row.seed in seeds] for epoch, some in by_epoch.items()}
        accuracies = {epoch: 100 * fmean(row.test_accuracy for row in some) for epoch, some in each.items()}
        late = fmean(accuracies[epoch] for epoch in sorted(accuracies)[-_LAST:])
        loss, saturated = fmean(row.train_loss for row in last), fmean(row.saturated for row in last)
        best = max(accuracies.values())
        made.append(Result(setting, last[0].T, epoch, accuracies[epoch], late, best, loss, saturated, len(seeds)))
    return made


def label(setting: Setting, usual: str) -> str:
    """Return what a setting is called; `usual` is the recipe that need not be said."""
    name = {"halp": "HALP", "svrg": "SVRG", "sgd": "SGD"}[setting.method]
    parts = [f"{setting.bits} bits"] * (setting.bits > 0)
    parts += [f"T = {setting.recentre:g} epoch{'s' * (setting.recentre != 1)}"] * (setting.recentre > 0)
    parts += [f"all in {setting.recipe}"] * (setting.recipe != usual)
    return ", ".join([name, *parts])


def table(spec: NetworkSpec, rows: Sequence[Row], ended: Mapping[str, str] | None = None) -> str:
    """Return the study's table in Markdown, the published curves' values beside it."""
    ours = f"epoch | accuracy | mean of the last {_LAST} | best | training loss, last epoch | saturated"
    lines = [
        f"| training | T, steps | {ours} | published, epoch 10 | published, epoch 150 | published loss, iteration 10,000 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in results(spec, rows, ended):
        theirs = _published(spec, one.setting)
        published = ("", "", "") if theirs is None else (f"{theirs.at_10:.1f}", f"{theirs.at_150:.1f}", f"{theirs.loss:.3f}")
        saturated = f"{one.saturated:.1%}" if one.setting.bits else ""
        numbers = f"{one.T or ''} | {one.epoch} | {one.accuracy:.1f} | {one.late:.1f} | {one.best:.1f}"
        ours = f"{numbers} | {one.train_loss:.3f} | {saturated}"
        lines.append(f"| {label(one.setting, _usual(spec))} | {ours} | {' | '.join(published)} |")
    return "\n".join(lines) + "\n"


def _published(spec: NetworkSpec, setting: Setting) -> Published | None:
    """Return what was published of a setting: on CIFAR-10, with everything but the offsets wide."""
    comparable = spec.dataset.removesuffix("-jpeg") == "cifar10" and setting.recipe == _usual(spec)
    return PUBLISHED.get(setting[1:]) if comparable else None


def describe(spec: NetworkSpec, rows: Sequence[Row], ended: Mapping[str, str] | None = None) -> list[str]:
    """Say in sentences how the published orderings came out, by the mean accuracy of the last epochs, and what ended early."""
    found = results(spec, rows, ended)
    late = {one.setting: one.late for one in found if one.epoch == spec.epochs}
    usual, sentences = _usual(spec), []
    over = "one seed" if spec.seeds == 1 else f"mean of {spec.seeds} seeds"
    halp = {setting: value for setting, value in late.items() if setting.method == "halp" and setting.recipe == usual}
    by_period = sorted((one.recentre, value) for one, value in halp.items() if one.bits == max(spec.bits))
    if len(by_period) > 1:
        values = [value for _, value in by_period]
        falls = all(a > b for a, b in itertools.pairwise(values))
        listed = ", ".join(f"{value:.1f} % with {period:g}" for period, value in by_period)
        sentences.append(
            f"Accuracy {'falls' if falls else 'does not fall steadily'} as the epochs between two full gradients grow: "
            f"{listed} (last {_LAST} epochs, {over})."
        )
    by_bits = sorted((one.bits, value) for one, value in halp.items() if one.recentre == spec.usual_period)
    if len(by_bits) > 1:
        most, best = by_bits[-1]
        listed = ", ".join(
            f"{few} bits {abs(best - value):.1f} points {'below' if value <= best else 'above'}"
            for few, value in by_bits[-2::-1]
        )
        sentences.append(f"Beside {most} bits, {best:.1f} %: {listed}.")
    if not sentences:
        sentences = [f"{label(one, usual)}: {value:.1f} % (last {_LAST} epochs, {over})." for one, value in late.items()]
    sentences += [f"{name} ended early: {why}." for name, why in (ended or {}).items()]
    return sentences or [f"Nothing is trained to epoch {spec.epochs} yet."]


def _usual(spec: NetworkSpec) -> str:
    return next(one.name for one in spec.recipes if isinstance(one, Recipe))


# 2. Writing -------------------------------------------------------------------------------------------------------------


def set_aside(folder: Path | str) -> Path | None:
    """Rename a study's folder to a dated name: see :func:`intnet.files.set_aside`."""
    return of_study.set_aside(folder, _EXPORTS)


def run(
    spec: NetworkSpec, folder: Path | str, data_dir: Path | str | None = None, *, device: str = "cpu",
    begun: Callable[[Trajectory], object] | None = None, progress: Progress | None = None,
    after: Callable[[Row], object] | None = None,
) -> list[str]:  # fmt: skip
    """Train every setting with every seed, from wherever each is; several processes may share a folder.

    Parameters
    ----------
    spec : NetworkSpec
    folder : path
    data_dir, device : as in `trajectories`
    begun, progress, after : as in :func:`intnet.studies.trajectories.train`

    Returns
    -------
    list of str
        The trainings that another process is at.
    """
    ready, write = trajectories(spec, data_dir, device), partial(export, spec, folder, plots=False)
    hooks: Any = {"begun": begun, "progress": progress, "after": after}
    return of_study.run(ready, folder, _EXPORTS, write, **hooks)


def stored_rows(spec: NetworkSpec, folder: Path | str) -> list[Row]:
    """Return the rows of all trainings of a study that are kept in a folder.

    Raises
    ------
    StudyError
        If a table is damaged.
    """
    rows: list[Row] = []
    for setting in spec.settings():
        for seed in range(spec.seeds):
            name, mine = setting.name(seed), partial(_is_of, setting, seed)
            rows += of_study.stored_rows(folder, name, Row, mine, name)
    return rows


def _is_of(setting: Setting, seed: int, row: Row) -> bool:
    return setting_of(row) == setting and row.seed == seed


def stored_ends(spec: NetworkSpec, folder: Path | str) -> dict[str, str]:
    """Return which trainings of a study ended early, and why."""
    return of_study.stored_ends(folder, (setting.name(seed) for setting in spec.settings() for seed in range(spec.seeds)))


def stored_losses(spec: NetworkSpec, folder: Path | str) -> dict[Setting, dict[int, list[float]]]:
    """Return the loss of every step, by setting and seed, as far as they are kept in a folder."""
    found: dict[Setting, dict[int, list[float]]] = {}
    for setting in spec.settings():
        for seed in range(spec.seeds):
            path = Path(folder) / RUNS / setting.name(seed) / LOSSES
            if path.is_file():
                found.setdefault(setting, {})[seed] = [row.loss for row in of_study.read_rows(path, Loss)]
    return found


class SmoothedLoss(NamedTuple):
    """A row of ``training_loss.csv``: the mean loss of the last 1,000 iterations, or of all before, in nats a sample."""

    recipe: str
    method: str
    bits: int
    recentre: float
    seed: int
    iteration: int
    loss: float


def not_asked_for(spec: NetworkSpec, folder: Path | str) -> list[str]:
    """Return the trainings that are kept in a folder and are none of the study."""
    return of_study.not_asked_for(folder, {setting.name(seed) for setting in spec.settings() for seed in range(spec.seeds)})


def export(
    spec: NetworkSpec, folder: Path | str, config: Mapping[str, Any] | None = None, *, plots: bool = True
) -> list[Row]:  # fmt: skip
    """Write the tables, the configuration and the pictures of what is there, and return its rows.

    Parameters
    ----------
    spec, folder : as in `run`
    config : mapping, optional
        A training's; else the configuration is left as it is.
    plots : bool

    Raises
    ------
    StudyError
        If a file cannot be written, or a table is damaged.
    """
    folder, rows = Path(folder), stored_rows(spec, folder)
    losses = stored_losses(spec, folder)
    smooth = [
        SmoothedLoss(*setting, seed, iteration, loss)
        for setting, of_seeds in losses.items()
        for seed, values in of_seeds.items()
        for iteration, loss in smoothed(values)
    ]
    contents = {
        EPOCHS: to_csv(Row, rows),
        SMOOTHED: to_csv(SmoothedLoss, smooth),
        TABLE: table(spec, rows, stored_ends(spec, folder)),
    }
    if config is not None:
        contents[CONFIG] = json.dumps({**config, **_asked(spec), "intnet": __version__}, indent=2) + "\n"
    with files.locked(folder, wait=60):
        for name, text in contents.items():
            files.write_changed(folder / name, text.encode())
        for name, (what, by) in PICTURES.items() if plots and rows else ():
            figure = _picture(spec, rows, smooth, what, by)
            if figure is not None:
                files.write_atomically(folder / name, partial(figure.savefig, dpi=150))
    return rows


def _asked(spec: NetworkSpec) -> dict[str, Any]:
    """Return what the study was asked for, and no training's configuration tells."""
    return {
        "epochs": spec.epochs,
        "bits": list(spec.bits),
        "recentre": list(spec.recentre),
        "methods": list(spec.methods),
        "recipes": [one.to_dict() for one in spec.recipes if isinstance(one, Recipe)],
        "seeds": spec.seeds,
        "rate": str(spec.rate),
        "mu": str(spec.mu),
        "decay": str(spec.decay),
        "decay_of": spec.decay_of,
        "scale": spec.scale,
        "rounding": spec.rounding,
        "momentum": f"{spec.momentum} (SGD)",
        "batch": spec.batch,
    }


def _picture(spec: NetworkSpec, rows: Sequence[Row], losses: Sequence[SmoothedLoss], what: str, by: str) -> Any:
    """Return a picture of the loss or the accuracy, of the sweep over periods or over bits; None if nothing is there."""
    from intnet import plotting

    usual = _usual(spec)
    shown = [
        setting
        for setting in spec.settings()
        if setting.method != "halp"
        or (by == "period" and setting.bits == max(spec.bits) and setting.recipe == usual)
        or (by == "bits" and setting.recentre == spec.usual_period)
    ]
    points: dict[str, dict[int, list[float]]] = {}
    for setting in shown:
        name = label(setting, usual)
        if what == "loss":
            for one in losses:
                if Setting(*one[:4]) == setting:
                    points.setdefault(name, {}).setdefault(one.iteration, []).append(one.loss)
        else:
            for epoch, some in curves(rows).get(setting, {}).items():
                points.setdefault(name, {})[epoch] = [100 * row.test_accuracy for row in some]
    if not points:
        return None
    title = f"{spec.dataset}, ResNet-18 at width {spec.width:g}, rate {float(spec.rate):.3g}"
    if what == "loss":
        return plotting.plot_training_loss(points, title=title, window=WINDOW)
    marks = {label(one, usual): theirs.at_10 for one in shown if (theirs := _published(spec, one)) is not None}
    return plotting.plot_test_accuracy(points, title=title, marks=(10, marks) if marks and spec.epochs >= 10 else None)
