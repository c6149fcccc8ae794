"""Studies of networks: trainings side by side, each with a folder, a checkpoint and a table of its own.

A study's folder holds ``runs/NAME/`` for every training. Each is locked while it is trained, so several processes may work on
one study at once; each goes on from its last finished epoch.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from intnet import checkpoint, files
from intnet.errors import InputError, InUseError, StudyError
from intnet.studies.tables import CONFIG, from_csv, to_csv
from intnet.training import Trainer

EPOCHS = "epochs.csv"
RUNS = "runs"
ENDED = "ended.txt"
"""Beside the table of a training that ended early: why."""

_REBUILT = "remove it: it is made again from the checkpoint beside it"
_CHECKPOINT = "checkpoint.npz"

Progress = Callable[[int], object]
Row = TypeVar("Row", bound=tuple)


@dataclass(eq=False)
class Trajectory(Generic[Row]):
    """One training of a study, and the rows that its epochs have given.

    Attributes
    ----------
    name : str
        Of its folder.
    trainer : Trainer
    config : dict
        What decides its results and its trainer does not know.
    rows : list of Row
    kind : type
        Of the rows: a NamedTuple of int, float and str, whose fields are the columns.
    """

    kind: ClassVar[type]
    name: str
    trainer: Trainer = field(repr=False)
    config: dict[str, Any] = field(repr=False)
    rows: list[Row] = field(default_factory=list, kw_only=True)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.trainer.epoch == self.trainer.epochs or self.trainer.died is not None

    def before(self, trainer: Trainer) -> None:
        """Do what is to be done before an epoch; again, when a training that was stopped within it goes on."""

    def evaluate(self) -> list[Row]:
        """Return the rows of the epoch that has just ended."""
        raise NotImplementedError

    def tables(self) -> dict[str, str]:
        """Return the content of every file that is kept beside the checkpoint, by name."""
        return {EPOCHS: to_csv(self.kind, self.rows)}

    def notes(self) -> dict[str, Any]:
        """Return what else is to be kept, for JSON."""
        return {}

    def take_notes(self, notes: dict[str, Any]) -> None:
        """Take back what :meth:`notes` gave; a KeyError or TypeError says that it is something else."""


def train(
    trajectory: Trajectory[Row], folder: Path, *, begun: Callable[[Any], object] | None = None,
    progress: Progress | None = None, after: Callable[[Row], object] | None = None,
) -> None:  # fmt: skip
    """Train to the end, from wherever the folder says it is; after every epoch keep a checkpoint and the rows.

    Parameters
    ----------
    trajectory : Trajectory
    folder : path
        Its own; locked while it is used.
    begun : function of the trajectory, optional
        Called before training, when the trajectory is where its folder says.
    progress : function of an int, optional
        Told how many samples more have been trained on.
    after : function of a Row, optional
        Called with every row that is kept.

    Raises
    ------
    StudyError
        If the folder is in use (InUseError), cannot be written, or holds another training or a damaged checkpoint.
    """
    path, trainer = folder / _CHECKPOINT, trajectory.trainer
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def write_tables() -> None:
        for name, text in trajectory.tables().items():
            files.write_changed(folder / name, text.encode())
        if trainer.died is not None:
            files.write_changed(folder / ENDED, f"{trainer.died}\n".encode())
        else:
            (folder / ENDED).unlink(missing_ok=True)

    def keep(_: Trainer) -> None:
        made = trajectory.evaluate()
        rows = [*trajectory.rows, *made]
        notes = {"rows": [list(row) for row in rows], **trajectory.notes()}
        checkpoint.save(path, trainer, trajectory.config, notes)
        trajectory.rows = rows
        write_tables()
        for row in made if after is not None else ():
            after(row)  # type: ignore[misc]

    with files.locked(folder):
        if path.exists():
            _resume(trajectory, path)
            write_tables()
        if begun is not None:
            begun(trajectory)
        trainer.run(before=trajectory.before, after=keep, progress=progress)


def _resume(trajectory: Trajectory, path: Path) -> None:
    """Go to where a checkpoint is."""
    stored = checkpoint.load(path)
    try:
        checkpoint.restore(trajectory.trainer, stored, trajectory.config)
        trajectory.rows = [trajectory.kind(*values) for values in stored.notes["rows"]]
        trajectory.take_notes(stored.notes)
    except (InputError, KeyError, TypeError) as error:
        raise StudyError(f"{path.parent}: {error}; choose another --out, or set the old one aside with --fresh") from error


def run(
    trajectories: Iterable[Trajectory[Row]], folder: Path | str, exports: Collection[str],
    export: Callable[[dict[str, Any] | None], object], *, begun: Callable[[Any], object] | None = None,
    progress: Progress | None = None, after: Callable[[Row], object] | None = None,
) -> list[str]:  # fmt: skip
    """Train every trajectory of a study, from wherever each is.

    Parameters
    ----------
    trajectories : iterable of Trajectory
    folder : path
        The study's.
    exports : collection of str
        The names of the files that the study makes in it.
    export : function of a dict or None
        Called when a trajectory has ended, or another process is training it: with its configuration, if that is to be
        written. That is so when there is none yet, and when all have ended, as then no folder has refused what is asked for.
    begun, progress, after : as of `train`

    Returns
    -------
    list of str
        The trajectories that another process is training.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{folder} is not a folder; --out must name a folder")
    with files.explained(folder):
        known = {RUNS, *exports, files.LOCK, files.REPORT}
        if folder.exists() and (others := {one.name for one in folder.iterdir() if one.name[0] != "."} - known):
            raise StudyError(f"{folder} holds {min(others)}, which is none of this study's; choose another --out")
    elsewhere: list[str] = []
    config: dict[str, Any] | None = None
    for trajectory in trajectories:
        try:
            train(trajectory, folder / RUNS / trajectory.name, begun=begun, progress=progress, after=after)
        except InUseError:
            elsewhere.append(trajectory.name)
        config = trajectory.config
        export(None if (folder / CONFIG).exists() else config)
    export(config)
    return elsewhere


def stored_ends(folder: Path | str, names: Iterable[str]) -> dict[str, str]:
    """Return which of these trainings ended early, and why."""
    paths = {name: Path(folder) / RUNS / name / ENDED for name in names}
    return {name: path.read_text(encoding="utf-8").strip() for name, path in paths.items() if path.is_file()}


def stored_rows(folder: Path | str, name: str, kind: type[Row], belongs: Callable[[Row], bool], what: str) -> list[Row]:
    """Return the rows of one trajectory that are kept in a study's folder: none if there are none.

    Raises
    ------
    StudyError
        If the table is damaged, or has a row that does not belong to the trajectory, which `what` describes.
    """
    path = Path(folder) / RUNS / name / EPOCHS
    if not path.is_file():
        return []
    rows = read_rows(path, kind)
    if not all(map(belongs, rows)):
        raise StudyError(f"{path} is no table of {what}; {_REBUILT}")
    return rows


def read_rows(path: Path | str, kind: type[Row]) -> list[Row]:
    """Return the rows of a table.

    Raises
    ------
    StudyError
        If it is none of that kind.
    """
    try:
        return from_csv(kind, Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise StudyError(f"{path} is no table of this study: it is no text; {_REBUILT}") from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} is no table of this study: {error}; {_REBUILT}") from error


def not_asked_for(folder: Path | str, asked: Collection[str]) -> list[str]:
    """Return the trajectories that are kept in a study's folder and are none of these."""
    runs = Path(folder) / RUNS
    return sorted(path.name for path in runs.iterdir() if path.is_dir() and path.name not in asked) if runs.is_dir() else []


def set_aside(folder: Path | str, exports: Collection[str]) -> Path | None:
    """Rename a study's folder to a dated name: see :func:`intnet.files.set_aside`."""
    with files.explained(Path(folder)):
        return files.set_aside(folder, RUNS, exports)
