"""A study that is one table: a folder with a CSV file, rewritten whole when a run has ended, and the configuration beside it.

What is in the table need not be run again, so a study that was stopped goes on when it is given the same folder.
"""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Generic, TypeVar

from intnet import files
from intnet.errors import InputError, StudyError

Progress = Callable[[int], object]
"""Told how much has been done since it was last told."""

CONFIG = "config.json"
_AGAIN = "choose another --out, or set the old one aside with --fresh"

Row = TypeVar("Row", bound=tuple)


def ignore(_: int) -> None:
    """Tell nobody of progress."""


@dataclass
class Table(Generic[Row]):
    """The rows in a folder: see :func:`opened`."""

    path: Path
    kind: type[Row]
    rows: list[Row] = field(default_factory=list)

    def add(self, rows: Iterable[Row]) -> None:
        """Store more rows: the file is replaced by one with all of them.

        Raises
        ------
        StudyError
            If it cannot be written; the old one is then kept.
        """
        self.rows = sorted([*self.rows, *rows])  # so the file does not tell which run ended first
        text = to_csv(self.kind, self.rows)
        files.write_atomically(self.path, lambda draft: draft.write_text(text, encoding="utf-8", newline=""))


def to_csv(kind: type, rows: Sequence[tuple]) -> str:
    """Return the rows of a NamedTuple class as text, under the names of its fields; floats as the shortest exact decimal."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_fields(kind))
    writer.writerows([repr(value) if isinstance(value, float) else value for value in row] for row in rows)
    return text.getvalue()


def from_csv(kind: type[Row], text: str) -> list[Row]:
    """Return the rows that :func:`to_csv` wrote.

    Raises
    ------
    ValueError
        If the text is no such table.
    """
    lines = list(csv.reader(io.StringIO(text)))
    names: Any = _fields(kind)
    if not lines or tuple(lines[0]) != tuple(names):
        raise ValueError(f"line 1: the columns are not {','.join(names)}")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(names):
            raise ValueError(f"line {number}: it has {len(line)} values of {len(names)}")
        try:
            rows.append(kind(*[names[name](value) for name, value in zip(names, line, strict=True)]))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    if not text.endswith("\n"):
        raise ValueError(f"line {len(lines)}: it is cut off")
    return rows


def _fields(kind: type) -> Mapping[str, type]:
    return kind.__annotations__


@contextmanager
def opened(
    folder: Path | str, name: str, kind: type[Row], config: Mapping[str, Any], made: Mapping[str, Any],
    beside: Collection[str] = (), wait: float = 0,
) -> Iterator[Table]:  # fmt: skip
    """Take a folder for a study: read the table in it, if there is one. While it is open no other run can use the folder.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    name : str
        Of the table.
    kind : class
        A NamedTuple of int, float and str, whose fields are the columns.
    config : mapping
        What must be equal for rows to belong together; a key that the stored configuration lacks is different.
    made : mapping
        What else is written beside it, such as versions.
    beside : collection of str
        What may be in the folder before the configuration is.
    wait : float
        For so many seconds, if another run is in it.

    Raises
    ------
    StudyError
        If the folder is a file, is not writable, is in use, holds another study, or its files are damaged; then nothing in it
        is changed.

    Notes
    -----
    If a new study ends in an InputError before it has stored anything, its configuration is taken away again.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{folder} is not a folder; --out must name a folder")
    config = json.loads(json.dumps(config))  # as it comes back from the file
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder, wait):
        table = Table(folder / name, kind)
        with files.explained(folder):
            stored = read_config(folder)
            present = {path.name for path in folder.iterdir() if path.name[0] != "."} - {*beside}
            if stored is None and (others := sorted(present)):
                raise StudyError(f"{folder} holds {others[0]}, but no {CONFIG} of a study; {_AGAIN}")
            if stored is not None:
                _compare(folder, stored, config)
                table.rows = _read_rows(table)
        if stored is None:
            text = json.dumps({**config, **made}, indent=2) + "\n"
            files.write_atomically(folder / CONFIG, lambda draft: draft.write_text(text, encoding="utf-8"))
        try:
            yield table
        except InputError:  # what was asked for cannot be done: it does not claim the folder
            left = {path.name for path in folder.iterdir() if path.name[0] != "."}
            if stored is None and left <= {CONFIG, *beside}:
                (folder / CONFIG).unlink(missing_ok=True)
            raise


def read_config(folder: Path) -> dict[str, Any] | None:
    """Return the configuration of the study in a folder; None if there is none.

    Raises
    ------
    StudyError
        If it is damaged.
    """
    try:
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StudyError(f"{folder / CONFIG} is damaged: {error}; {_AGAIN}") from error
    if not isinstance(stored, dict):
        raise StudyError(f"{folder / CONFIG} is damaged: it holds no object; {_AGAIN}")
    return stored


def _compare(folder: Path, stored: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if stored.get(key) != value:
            raise StudyError(f"{folder} holds a study with {key} {stored.get(key)}, and {value} is asked for; {_AGAIN}")


def _read_rows(table: Table[Row]) -> list[Row]:
    try:
        return from_csv(table.kind, table.path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise StudyError(f"{table.path} is damaged: {error}; {_AGAIN}") from error


def set_aside(folder: Path | str, made: Sequence[str]) -> Path | None:
    """Rename a study's folder to a dated name: see :func:`intnet.files.set_aside`; `made` are the files made in it."""
    drafts = [f".{Path(name).stem}.draft{Path(name).suffix}" for name in (CONFIG, *made)]
    with files.explained(Path(folder)):
        return files.set_aside(folder, CONFIG, (*made, *drafts))


def numbers(name: str, values: Any, kind: type, least: Any, *, above: bool = False, most: float = inf) -> tuple[Any, ...]:
    """Return one number, or a sequence of them, as a tuple of `kind`, each once, checked.

    Raises
    ------
    InputError
        If one is of another kind, not finite, less than `least` or more than `most`, or with `above` not more than `least`; or
        there is none.
    """
    many = tuple(values) if isinstance(values, (tuple, list, range)) else (values,)
    for value in many:
        wrong = isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int)
        if not wrong and value > most:
            raise InputError(f"{name} must be at most {most:g}, got {value!r}")
        if wrong or not least <= value < inf or (above and value == least):
            raise InputError(f"{name} must be {'above' if above else 'at least'} {least}, got {value!r}")
    if not many:
        raise InputError(f"{name} must not be empty")
    return tuple(dict.fromkeys(map(kind, many)))
