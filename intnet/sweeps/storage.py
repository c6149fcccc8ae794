"""Where the results of a grid are kept: one folder, one SQLite file, one row a cell.

Only the driver writes. Rows are committed as cells finish, so a killed run loses at most the cells it was working on. A
lock keeps a second run out of the folder and is freed by the operating system however the first one ends.
"""

import csv
import io
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from intnet import files
from intnet.errors import StudyError
from intnet.files import UNWRITABLE, write_atomically
from intnet.online import Cell

if TYPE_CHECKING:
    import xarray

DATABASE = "grid.sqlite"
PATIENCE = 30  # seconds to wait for another program that reads or writes the database
_EXPORTS = ("config.json", "grid.csv", "grid.nc", "cliffs.json", "surface.png", "cliffs.png", files.REPORT)


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
_SQL_TYPES = {int: "integer", float: "real"}
_COLUMNS = ", ".join(
    # SQLite would take any type in any column, a NumPy integer as bytes.
    f"{name} {_SQL_TYPES[kind]} NOT NULL CHECK (typeof({name}) = '{_SQL_TYPES[kind]}')"
    for name, kind in Row.__annotations__.items()
)
_SCHEMA = f"""
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE cells ({_COLUMNS}, PRIMARY KEY ({", ".join(AXES)})) WITHOUT ROWID;
"""
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
    "wraps": ("products, sums and weights that left int64, a sum once by its exact value", "count"),
}

# What to do about SQLite's errors, by how their names begin; any other error means damage.
_ADVICE = {
    "SQLITE_FULL": "free some space; what was stored before is safe",
    "SQLITE_BUSY": "another program holds it open; close that one",
    "SQLITE_LOCKED": "another program holds it open; close that one",
    "SQLITE_CANTOPEN": UNWRITABLE,
    "SQLITE_IOERR": UNWRITABLE,
    "SQLITE_PERM": UNWRITABLE,
    "SQLITE_READONLY": UNWRITABLE,
}


def set_aside(folder: Path | str) -> Path | None:
    """Rename a study's folder to a dated name: see :func:`intnet.files.set_aside`."""
    with _explained(Path(folder)):
        return files.set_aside(folder, DATABASE, _EXPORTS)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the operating system say into an error the user can mend."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a mistake in the calling code
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")  # errors that are not SQLite's own have none
        damaged = "it is damaged; put a good copy back, or set the folder aside with --fresh"
        advice = next((advice for start, advice in _ADVICE.items() if name.startswith(start)), damaged)
        raise StudyError(f"cannot use {folder / DATABASE}: {error}; {advice}") from error
    except OSError as error:
        raise StudyError(f"cannot use {folder}: {error.strerror or error}; choose another --out") from error


class GridStore:
    """The stored cells of one study. Use it as a context manager; while it is open no other run can use the folder.

    Every method raises StudyError if the database cannot be read or written; what was stored before is then kept.

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
        self._study = study
        if os.path.lexists(self.folder) and not os.path.isdir(self.folder):
            raise StudyError(f"{self.folder} is not a folder; --out must name a folder")
        with _explained(self.folder), ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.locked(self.folder))
            self._connection = stack.enter_context(closing(self._open(study)))
            self._opened = stack.pop_all()

    def _open(self, study: dict[str, Any]) -> sqlite3.Connection:
        path = self.folder / DATABASE
        if not path.exists() or path.stat().st_size == 0:
            state = "empty" if path.exists() else "missing"
            remains = [name for name in _EXPORTS if (self.folder / name).exists()]
            if remains:
                raise StudyError(
                    f"{path} is {state} but {self.folder} holds {remains[0]} of an earlier study; "
                    f"put {DATABASE} back, set the folder aside with --fresh, or choose another --out"
                )
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        try:
            # Not by the file's size: a run killed at its very start leaves pages, which opening takes back.
            if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
                _claim(connection, study)
                connection.execute("COMMIT")
            elif (stored := _read_study(connection)) != study:
                if connection.execute("SELECT count(*) FROM cells").fetchone()[0]:
                    raise _another_study(self.folder, stored, study)
                connection.execute("BEGIN IMMEDIATE")
                _claim(connection, study)  # a run that never finished a cell keeps nobody out
                connection.execute("COMMIT")
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
        self._opened.close()

    def _query(self, query: str) -> list[tuple]:
        with _explained(self.folder):
            return self._connection.execute(query).fetchall()

    def note(self, key: str) -> Any:
        """Return the dict that :meth:`set_note` kept under `key`, or None."""
        with _explained(self.folder):
            return _read_note(self._connection, key)

    def set_note(self, key: str, value: dict[str, Any]) -> None:
        """Keep small facts about the study: a dict that `json` can write."""
        with _explained(self.folder):
            self._connection.execute("INSERT OR REPLACE INTO study VALUES (?, ?)", (key, json.dumps(value)))

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return those of `cells` that are not stored yet."""
        stored = set(self._query(f"SELECT {', '.join(AXES)} FROM cells"))
        return [cell for cell in cells if cell not in stored]

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
        return self._query("SELECT count(*) FROM cells")[0][0]

    def to_xarray(self) -> "xarray.Dataset":
        """Return all stored cells as a labelled grid: see :func:`open_grid`."""
        return to_xarray(self.rows(), self._study, self.note("data"))

    def write_csv(self) -> None:
        """Write ``grid.csv``: one line a cell, floats written so that they read back as the same floats."""
        dataset = self._study["dataset"]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("dataset", *AXES, *MEASURED))
        for row in self.rows():
            writer.writerow((dataset, *(repr(value) for value in row)))
        write_atomically(self.folder / "grid.csv", lambda path: path.write_bytes(text.getvalue().encode()))


def _claim(connection: sqlite3.Connection, study: dict[str, Any]) -> None:
    connection.execute("DELETE FROM study")
    connection.execute("INSERT INTO study VALUES ('study', ?)", (json.dumps(study),))


def _another_study(folder: Path, stored: dict[str, Any], study: dict[str, Any]) -> StudyError:
    different = [key for key in sorted({*stored, *study}) if stored.get(key) != study.get(key)]
    return StudyError(
        f"{folder} holds another study: "
        + ", ".join(f"{key} {stored.get(key)} there, {study.get(key)} here" for key in different)
        + "; choose another --out, or set the old one aside with --fresh"
    )


def _read_study(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what the database is about, once it is known to be whole."""
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise sqlite3.DatabaseError(" ".join(damage.split()))  # SQLite says it in two lines
    columns = tuple(row[1] for row in connection.execute("PRAGMA table_info(cells)"))  # none without the table
    study = _read_note(connection, "study") if columns == Row._fields else None
    if study is None or "dataset" not in study:
        raise sqlite3.DatabaseError("it holds no grid of intnet")
    return study


def _read_note(connection: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    found = connection.execute("SELECT value FROM study WHERE key = ?", (key,)).fetchone()
    if found is None:
        return None
    try:
        note = json.loads(found[0])
    except (TypeError, ValueError):
        note = None
    if not isinstance(note, dict):
        raise sqlite3.DatabaseError(f"its note {key!r} is malformed")
    return note


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
        (counts). Cells not stored are NaN, and the counts then floats. Attributes: the study, and ``chance_accuracy``.

    Raises
    ------
    StudyError
        If there is no study in the folder or its database is damaged.
    """
    folder = Path(folder)
    path = folder / DATABASE
    if not os.path.exists(path):
        raise StudyError(f"{folder} holds no study ({DATABASE} is missing); run experiments/grid.py --out {folder} first")
    # Not mode=ro: where a run was killed while it stored something, the reader has to take that back first.
    address = f"{path.absolute().as_uri()}?mode=rw"
    with _explained(folder), closing(sqlite3.connect(address, uri=True, timeout=PATIENCE)) as connection:
        study, data = _read_study(connection), _read_note(connection, "data")
        rows = _read_rows(connection)
    return to_xarray(rows, study, data)


def to_xarray(rows: list[Row], study: dict[str, Any], data: dict[str, Any] | None) -> "xarray.Dataset":
    """Return rows as a labelled grid, attributes of the study and its data included: see :func:`open_grid`."""
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
    attributes = {**study, "title": f"intnet grid: {study['dataset']}"}
    if data and data.get("classes"):
        attributes["chance_accuracy"] = 1 / data["classes"]
    return xarray.Dataset(variables, axes, attrs=attributes)


def _attributes(name: str) -> dict[str, str]:
    description, units = _DESCRIPTIONS[name]
    return {"long_name": description, "units": units}
