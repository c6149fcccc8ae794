"""Where the results of a grid are kept: one folder, one SQLite file, one row a cell.

Only the driver writes. Rows are committed as cells finish, so a killed run loses at most the cells it was working on. A
lock keeps a second run out of the folder and is freed by the operating system however the first one ends.
"""

import csv
import io
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from intnet.errors import StudyError
from intnet.online import Cell

if TYPE_CHECKING:
    import xarray

DATABASE = "grid.sqlite"
_EXPORTS = ("grid.csv", "grid.nc", "cliffs.json", "surface.png", "cliffs.png")

_SCHEMA = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE cells (
    seed INTEGER NOT NULL, lr_shift INTEGER NOT NULL, fraction_bits INTEGER NOT NULL,
    accuracy REAL NOT NULL, mean_abs_update REAL NOT NULL, mean_abs_error_scaled REAL NOT NULL,
    lost_updates INTEGER NOT NULL, floored_to_minus_one INTEGER NOT NULL, wraps INTEGER NOT NULL,
    PRIMARY KEY (seed, lr_shift, fraction_bits)
) WITHOUT ROWID;
"""


class Row(NamedTuple):
    """The stored result of one cell."""

    seed: int
    lr_shift: int
    fraction_bits: int
    accuracy: float
    mean_abs_update: float
    mean_abs_error_scaled: float
    lost_updates: int
    floored_to_minus_one: int
    wraps: int


AXES = Row._fields[:3]
MEASURED = Row._fields[3:]
_COUNTS = ("lost_updates", "floored_to_minus_one", "wraps")
_DESCRIPTIONS = {
    "seed": ("seed, 0 is the published draw", "1"),
    "lr_shift": ("learning-rate shift: the rate is 2**-lr_shift", "bit"),
    "fraction_bits": ("fraction bits of every number", "bit"),
    "accuracy": ("smoothed share of samples classified rightly, at the last iteration", "1"),
    "mean_abs_update": ("mean magnitude of delta * x >> fraction_bits", "raw unit"),
    "mean_abs_error_scaled": (
        "mean magnitude of what the learning-rate shift cuts off, * 2**fraction_bits",
        "raw unit",
    ),
    "lost_updates": ("products delta * x that moved no weight", "count"),
    "floored_to_minus_one": ("negative products below one unit that moved a weight by -1", "count"),
    "wraps": ("products, sums and weights that left int64", "count"),
}


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path` and put it in its place: a reader sees the old file or the new, whole."""
    draft = path.with_name(f".{path.stem}.draft{path.suffix}")
    try:
        write(draft)
        os.replace(draft, path)
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror or error}; free some space or choose another --out") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def set_aside(folder: Path) -> Path | None:
    """Rename a study's folder to a dated name and return that, or None if there was nothing in it.

    Raises
    ------
    StudyError
        If the folder holds files but no study, or another run is using it.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / DATABASE).exists():
        raise StudyError(f"{folder} holds no study ({DATABASE} is missing), so it is not set aside; choose another --out")
    with _locked(folder):
        aside = folder.with_name(f"{folder.name}.{datetime.now():%Y-%m-%dT%H-%M-%S}")
        with _explained(folder):
            folder.rename(aside)
    return aside


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the operating system say into an error the user can mend."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            advice = "free some space; what was stored before is safe"
        elif "locked" in str(error) or "busy" in str(error):
            advice = "another program holds it open; close that one"
        else:
            advice = "check that the folder is writable, or choose another --out"
        raise StudyError(f"cannot use {folder / DATABASE}: {error}; {advice}") from error
    except sqlite3.DatabaseError as error:
        raise StudyError(
            f"{folder / DATABASE} is damaged ({error}); put a copy of it back, or set the folder aside with --fresh"
        ) from error
    except OSError as error:
        raise StudyError(f"cannot write into {folder}: {error.strerror}; choose another --out") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder. The lock is SQLite's own, on an empty file, and dies with the process."""
    with _explained(folder):
        connection = sqlite3.connect(folder / ".lock", timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            connection.close()
            if "locked" not in str(error):
                raise
            raise StudyError(f"{folder} is in use by another run; wait for it to end, or choose another --out") from error
    try:
        yield
    finally:
        connection.close()


class GridStore:
    """The stored cells of one study. Use it as a context manager; while it is open no other run can use the folder.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    study : dict
        What the folder is about (:meth:`intnet.sweeps.GridSpec.study`); cells of another study are refused.

    Raises
    ------
    StudyError
        If the folder is a file, is not writable, is in use, holds another study, or its database is damaged.
    """

    def __init__(self, folder: Path | str, study: dict[str, Any]) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise StudyError(f"{self.folder} is a file; --out must name a folder")
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise StudyError(f"{self.folder} is not writable; choose another --out")
        self._lock = _locked(self.folder)
        self._lock.__enter__()
        try:
            with _explained(self.folder):
                self._connection = self._open(study)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def _open(self, study: dict[str, Any]) -> sqlite3.Connection:
        path = self.folder / DATABASE
        new = not path.exists() or path.stat().st_size == 0
        remains = [name for name in (*_EXPORTS, "config.json") if (self.folder / name).exists()]
        if new and remains:
            state = "empty" if path.exists() else "missing"
            raise StudyError(
                f"{path} is {state} but {self.folder} holds {remains[0]} of an earlier study; "
                f"put {DATABASE} back, move the folder away, or choose another --out"
            )
        connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        try:
            if new:
                connection.executescript(f"BEGIN; {_SCHEMA}")
                connection.execute("INSERT INTO study VALUES ('study', ?)", (json.dumps(study, sort_keys=True),))
                connection.execute("COMMIT")
            else:
                _check(connection, self.folder, study)
        except BaseException:
            connection.close()
            raise
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let other runs in."""
        self._connection.close()
        self._lock.__exit__(None, None, None)

    def note(self, key: str) -> Any:
        """Return what :meth:`set_note` kept under `key`, or None."""
        found = self._connection.execute("SELECT value FROM study WHERE key = ?", (key,)).fetchone()
        return json.loads(found[0]) if found else None

    def set_note(self, key: str, value: Any) -> None:
        """Keep a small fact about the study: something that `json` can write."""
        with _explained(self.folder):
            self._connection.execute("INSERT OR REPLACE INTO study VALUES (?, ?)", (key, json.dumps(value)))

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return those of `cells` that are not stored yet."""
        stored = set(self._connection.execute(f"SELECT {', '.join(AXES)} FROM cells"))
        return [cell for cell in cells if (cell.seed, cell.lr_shift, cell.fraction_bits) not in stored]

    def add(self, rows: Iterable[Row]) -> None:
        """Store finished cells, all of them or, if that fails, none."""
        places = ", ".join("?" * len(Row._fields))
        with _explained(self.folder):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(f"INSERT INTO cells VALUES ({places})", rows)
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self) -> list[Row]:
        """Return all stored cells, ordered by seed, learning-rate shift, fraction bits."""
        with _explained(self.folder):
            return _read_rows(self._connection)

    def count(self) -> int:
        """Return the number of stored cells."""
        return self._connection.execute("SELECT count(*) FROM cells").fetchone()[0]

    def to_xarray(self) -> "xarray.Dataset":
        """Return all stored cells as a labelled grid: see :func:`open_grid`."""
        return to_xarray(self.rows(), self.note("study"))

    def write_csv(self) -> None:
        """Write ``grid.csv``: one line a cell, floats written so that they read back as the same floats."""
        dataset = self.note("study")["dataset"]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("dataset", *AXES, *MEASURED))
        for row in self.rows():
            writer.writerow((dataset, *(repr(value) for value in row)))
        write_atomically(self.folder / "grid.csv", lambda path: path.write_text(text.getvalue(), encoding="utf-8"))


def _check(connection: sqlite3.Connection, folder: Path, study: dict[str, Any]) -> None:
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise sqlite3.DatabaseError(damage)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    found = None
    if {"study", "cells"} <= tables:
        found = connection.execute("SELECT value FROM study WHERE key = 'study'").fetchone()
        columns = tuple(row[1] for row in connection.execute("PRAGMA table_info(cells)"))
    if found is None or columns != Row._fields:
        raise sqlite3.DatabaseError("it is not a grid of intnet")
    stored = json.loads(found[0])
    if stored != study:
        different = [key for key in sorted({*stored, *study}) if stored.get(key) != study.get(key)]
        raise StudyError(
            f"{folder} holds another study: "
            + ", ".join(f"{key} {stored.get(key)} there, {study.get(key)} here" for key in different)
            + "; choose another --out, or set the old one aside with --fresh"
        )


def _read_rows(connection: sqlite3.Connection) -> list[Row]:
    query = f"SELECT {', '.join(Row._fields)} FROM cells ORDER BY {', '.join(AXES)}"
    return [Row(*row) for row in connection.execute(query)]


def open_grid(folder: Path | str) -> "xarray.Dataset":
    """Read a study's folder as a labelled grid; also while a run is filling it.

    Returns
    -------
    xarray.Dataset
        Dimensions ``seed``, ``lr_shift``, ``fraction_bits``; variables ``accuracy`` (a fraction of 1),
        ``mean_abs_update``, ``mean_abs_error_scaled`` (raw units), ``lost_updates``, ``floored_to_minus_one`` and ``wraps``
        (counts). Cells not stored are NaN, and the counts then floats.

    Raises
    ------
    StudyError
        If there is no study in the folder or its database is damaged.
    """
    folder = Path(folder)
    if not (folder / DATABASE).exists():
        raise StudyError(f"{folder} holds no study ({DATABASE} is missing); run experiments/grid.py --out {folder} first")
    with _explained(folder):
        connection = sqlite3.connect(f"file:{(folder / DATABASE).resolve().as_posix()}?mode=ro", uri=True, timeout=30)
        try:
            study = json.loads(connection.execute("SELECT value FROM study WHERE key = 'study'").fetchone()[0])
            return to_xarray(_read_rows(connection), study)
        finally:
            connection.close()


def to_xarray(rows: list[Row], study: dict[str, Any]) -> "xarray.Dataset":
    """Return rows as a labelled grid, attributes of the study included: see :func:`open_grid`."""
    import xarray

    columns = {name: np.array([getattr(row, name) for row in rows]) for name in Row._fields}
    axes, places = {}, []
    for name in AXES:
        values, place = np.unique(columns[name].astype(np.int64), return_inverse=True)
        axes[name] = (name, values, _attributes(name))
        places.append(place)
    shape = tuple(len(axis[1]) for axis in axes.values())
    complete = len(rows) == np.prod(shape)
    variables = {}
    for name in MEASURED:
        counts = name in _COUNTS and complete
        grid = np.zeros(shape, np.int64) if counts else np.full(shape, np.nan)
        grid[tuple(places)] = columns[name]
        variables[name] = (AXES, grid, _attributes(name))
    return xarray.Dataset(variables, axes, attrs={**study, "title": f"intnet grid: {study['dataset']}"})


def _attributes(name: str) -> dict[str, str]:
    description, units = _DESCRIPTIONS[name]
    return {"long_name": description, "units": units}
