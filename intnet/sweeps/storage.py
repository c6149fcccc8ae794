"""Where the results of a sweep are kept: one folder, one SQLite file, one row a cell.

Only the driver writes. Rows are committed as cells finish, so a killed run loses at most the cells it was working on. A
lock keeps a second run out of the folder and is freed by the operating system however the first one ends.
"""

import csv
import io
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np

from intnet import files
from intnet.errors import StudyError
from intnet.files import UNWRITABLE

if TYPE_CHECKING:
    import xarray

PATIENCE = 30  # seconds to wait for another program that reads or writes the database

DATABASES = ("grid.sqlite", "sweep.sqlite", "advice.sqlite")
"""Every kind of study that is kept so: a folder holds one."""

_SQL_TYPES: dict[type, str] = {int: "integer", float: "real", str: "text"}

R = TypeVar("R", bound=tuple)

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


@dataclass(frozen=True)
class Column:
    """A column of a table of cells.

    Parameters
    ----------
    name : str
    kind : type
        int, float or str.
    description, units : str
        As labelled grids have them.
    """

    name: str
    kind: type
    description: str
    units: str = "1"


@dataclass(frozen=True)
class Schema(Generic[R]):
    """What a row of a sweep is, and how its files are called.

    Parameters
    ----------
    axes, measured : tuple of Column
        What a cell is, and what was found for it. A row has the values of all, in this order.
    row : class
        What a row is given as: a tuple, or a NamedTuple with these columns.
    database : str
        The name of the SQLite file.
    table : str
        The name of the CSV file.
    exports : tuple of str
        Every file that is made from the database.
    program : str
        The program in experiments/ that fills such a folder.
    constants : tuple of str
        Entries of the study that come first in every line of the CSV file.
    hollow : str, optional
        A measured column of text: where it begins with "refused", the others hold nothing, and are left empty in files.
    """

    axes: tuple[Column, ...]
    measured: tuple[Column, ...]
    row: type[R]
    database: str
    table: str
    exports: tuple[str, ...]
    program: str
    constants: tuple[str, ...] = ()
    hollow: str | None = None

    def is_hollow(self, row: tuple) -> bool:
        """Tell whether nothing was measured for a row."""
        return self._hollow_place is not None and row[self._hollow_place].startswith("refused")

    @cached_property
    def _hollow_place(self) -> int | None:
        return None if self.hollow is None else _names(self).index(self.hollow)

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns."""
        return (*self.axes, *self.measured)

    def names(self, columns: Iterable[Column] | None = None) -> str:
        """Return the names of columns as SQL has them; of all by default. A name may hold a dot."""
        return ", ".join(f'"{column.name}"' for column in (self.columns if columns is None else columns))

    def as_row(self, values: Iterable[Any]) -> R:
        """Return a row of these values."""
        make = getattr(self.row, "_make", self.row)
        return make(values)

    def sql(self) -> str:
        """Return what makes the tables."""
        columns = ", ".join(
            # SQLite would take any type in any column, a NumPy integer as bytes.
            f'"{one.name}" {_SQL_TYPES[one.kind]} NOT NULL CHECK (typeof("{one.name}") = \'{_SQL_TYPES[one.kind]}\')'
            for one in self.columns
        )
        key = self.names(self.axes)
        return (
            "CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL);"
            f"CREATE TABLE cells ({columns}, PRIMARY KEY ({key})) WITHOUT ROWID;"
        )


def set_aside(folder: Path | str, schema: Schema) -> Path | None:
    """Rename a study's folder to a dated name: see :func:`intnet.files.set_aside`."""
    with _explained(Path(folder), schema.database):
        return files.set_aside(folder, schema.database, schema.exports)


@contextmanager
def _explained(folder: Path, database: str) -> Iterator[None]:
    """Turn what SQLite and the operating system say into an error the user can mend."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a mistake in the calling code
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")  # errors that are not SQLite's own have none
        damaged = "it is damaged; put a good copy back, or set the folder aside with --fresh"
        advice = next((advice for start, advice in _ADVICE.items() if name.startswith(start)), damaged)
        raise StudyError(f"cannot use {folder / database}: {error}; {advice}") from error
    except OSError as error:
        raise StudyError(f"cannot use {folder}: {error.strerror or error}; choose another --out") from error


class Store(Generic[R]):
    """The stored cells of one study. Use it as a context manager; while it is open no other run can use the folder.

    Every method raises StudyError if the database cannot be read or written; what was stored before is then kept.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    study : dict
        What the folder is about; cells of another study are refused.
    schema : Schema

    Raises
    ------
    StudyError
        If the folder is a file, is not writable, is in use, holds another study, or its database is damaged.
    """

    def __init__(self, folder: Path | str, study: dict[str, Any], schema: Schema[R]) -> None:
        self.folder, self.schema = Path(folder), schema
        self._study: dict[str, Any] = json.loads(json.dumps(study))  # as it comes back from the file
        if os.path.lexists(self.folder) and not os.path.isdir(self.folder):
            raise StudyError(f"{self.folder} is not a folder; --out must name a folder")
        with self._explained(), ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.locked(self.folder))
            self._connection = stack.enter_context(closing(self._open(self._study)))
            self._opened = stack.pop_all()

    def _explained(self) -> Any:
        return _explained(self.folder, self.schema.database)

    def _open(self, study: dict[str, Any]) -> sqlite3.Connection:
        database = self.schema.database
        path = self.folder / database
        if others := [name for name in DATABASES if name != database and (self.folder / name).exists()]:
            raise StudyError(
                f"{self.folder} holds another kind of study ({others[0]}), and a folder is for one; choose another --out"
            )
        if not path.exists() or path.stat().st_size == 0:
            state = "empty" if path.exists() else "missing"
            remains = [name for name in self.schema.exports if (self.folder / name).exists()]
            if remains:
                raise StudyError(
                    f"{path} is {state} but {self.folder} holds {remains[0]} of an earlier study; "
                    f"put {database} back, set the folder aside with --fresh, or choose another --out"
                )
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        try:
            # Not by the file's size: a run killed at its very start leaves pages, which opening takes back.
            if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {self.schema.sql()}")
                _claim(connection, study)
                connection.execute("COMMIT")
            elif (stored := _read_study(connection)) != study or _read_columns(connection) != _names(self.schema):
                if stored == study:
                    raise sqlite3.DatabaseError("it holds no sweep of this kind")
                if connection.execute("SELECT count(*) FROM cells").fetchone()[0]:
                    raise _another_study(self.folder, stored, study)
                connection.execute("BEGIN IMMEDIATE")  # a run that never finished a cell keeps nobody out
                for table in ("study", "cells"):
                    connection.execute(f"DROP TABLE {table}")
                for statement in filter(None, self.schema.sql().split(";")):
                    connection.execute(statement)
                _claim(connection, study)
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
        with self._explained():
            return self._connection.execute(query).fetchall()

    @property
    def study(self) -> dict[str, Any]:
        """What the folder is about."""
        return self._study

    def note(self, key: str) -> Any:
        """Return the dict that :meth:`set_note` kept under `key`, or None."""
        with self._explained():
            return _read_note(self._connection, key)

    def set_note(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep small facts about the study: a dict that `json` can write."""
        with self._explained():
            self._connection.execute("INSERT OR REPLACE INTO study VALUES (?, ?)", (key, json.dumps(value)))

    def agree(self, key: str, facts: Mapping[str, Any]) -> str | None:
        """Keep facts that every cell rests on, or return the name of the first that differs from what is kept."""
        facts, known = json.loads(json.dumps(facts)), self.note(key) or {}
        different = [name for name in facts if name in known and known[name] != facts[name]]
        if not different and {**known, **facts} != known:
            self.set_note(key, {**known, **facts})
        return different[0] if different else None

    def missing(self, cells: Iterable[tuple]) -> list[Any]:
        """Return those of `cells`, tuples of the axes' values, that are not stored yet."""
        stored = set(self._query(f"SELECT {self.schema.names(self.schema.axes)} FROM cells"))
        return [cell for cell in cells if cell not in stored]

    def add(self, rows: Iterable[tuple]) -> None:
        """Store finished cells, all of them or, if that fails, none."""
        places = ", ".join("?" * len(self.schema.columns))
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(f"INSERT INTO cells VALUES ({places})", rows)
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self) -> list[R]:
        """Return all stored cells, ordered by their axes."""
        with self._explained():
            return _read_rows(self._connection, self.schema)

    def count(self) -> int:
        """Return the number of stored cells."""
        return self._query("SELECT count(*) FROM cells")[0][0]

    def to_xarray(self) -> "xarray.Dataset":
        """Return all stored cells as a labelled grid: see :func:`to_xarray`."""
        return to_xarray(self.rows(), self._study, self.note("data"), self.schema)

    def write_csv(self, rows: Iterable[tuple] | None = None) -> None:
        """Write the table: one line a cell, floats written so that they read back as the same floats.

        Parameters
        ----------
        rows : iterable of tuple, optional
            All of them, where they have been read already.
        """
        schema = self.schema
        constants = [self._study[name] for name in schema.constants]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*schema.constants, *_names(schema)))
        for row in self.rows() if rows is None else rows:
            if schema.is_hollow(row):
                axes = len(schema.axes)
                kept = schema.hollow
                row = (
                    *row[:axes],
                    *(value if one.name == kept else "" for one, value in zip(schema.measured, row[axes:], strict=True)),
                )
            writer.writerow((*constants, *row))  # csv writes floats by repr
        files.write_changed(self.folder / schema.table, text.getvalue().encode())


def _names(schema: Schema) -> tuple[str, ...]:
    return tuple(column.name for column in schema.columns)


def _claim(connection: sqlite3.Connection, study: dict[str, Any]) -> None:
    connection.execute("DELETE FROM study")
    connection.execute("INSERT INTO study VALUES ('study', ?)", (json.dumps(study),))


def _another_study(folder: Path, stored: dict[str, Any], study: dict[str, Any]) -> StudyError:
    different = [key for key in sorted({*stored, *study}) if stored.get(key) != study.get(key)]
    return StudyError(
        f"{folder} holds another study: "
        + ", ".join(f"{key} {_shown(stored.get(key))} there, {_shown(study.get(key))} here" for key in different)
        + "; choose another --out, or set the old one aside with --fresh"
    )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _read_columns(connection: sqlite3.Connection) -> tuple[str, ...]:
    return tuple(row[1] for row in connection.execute("PRAGMA table_info(cells)"))  # none without the table


def _read_study(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what the database is about, once it is known to be whole."""
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise sqlite3.DatabaseError(" ".join(damage.split()))  # SQLite says it in two lines
    study = _read_note(connection, "study") if _read_columns(connection) else None
    if study is None or "study" not in study:
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


def _read_rows(connection: sqlite3.Connection, schema: Schema[R]) -> list[R]:
    query = f"SELECT {schema.names()} FROM cells ORDER BY {schema.names(schema.axes)}"
    return [schema.as_row(row) for row in connection.execute(query)]


@dataclass(frozen=True)
class Stored(Generic[R]):
    """What is in a folder: see :func:`read`."""

    rows: list[R] = field(repr=False)
    study: dict[str, Any]
    data: dict[str, Any] | None


def read(folder: Path | str, schema: Schema[R]) -> Stored[R]:
    """Read a study's folder; also while a run is filling it.

    Raises
    ------
    StudyError
        If there is no study in the folder, it has other columns, or its database is damaged.
    """
    folder = Path(folder)
    path = folder / schema.database
    if not os.path.exists(path):
        raise StudyError(f"{folder} holds no study ({schema.database} is missing); run {schema.program} --out {folder} first")
    # Not mode=ro: where a run was killed while it stored something, the reader has to take that back first.
    address = f"{path.absolute().as_uri()}?mode=rw"
    with _explained(folder, schema.database), closing(sqlite3.connect(address, uri=True, timeout=PATIENCE)) as connection:
        study = _read_study(connection)
        if _read_columns(connection) != _names(schema):
            raise sqlite3.DatabaseError("it holds no grid of intnet")
        return Stored(_read_rows(connection, schema), study, _read_note(connection, "data"))


def read_study(folder: Path | str, database: str) -> dict[str, Any] | None:
    """Return what the study in a folder is about; None if there is none."""
    path = Path(folder) / database
    if not path.exists() or not path.stat().st_size:
        return None
    address = f"{path.absolute().as_uri()}?mode=rw"
    with _explained(Path(folder), database), closing(sqlite3.connect(address, uri=True, timeout=PATIENCE)) as connection:
        return _read_study(connection)


def cells_in(folder: Path | str, study: dict[str, Any], schema: Schema) -> set[tuple]:
    """Return the cells that a folder holds; none if there is no database.

    Raises
    ------
    StudyError
        If it holds cells of another study, or its database is damaged.
    """
    folder, study = Path(folder), json.loads(json.dumps(study))
    path = folder / schema.database
    if not path.is_file() or not path.stat().st_size:
        return set()
    address = f"{path.absolute().as_uri()}?mode=rw"
    with _explained(folder, schema.database), closing(sqlite3.connect(address, uri=True, timeout=PATIENCE)) as connection:
        stored = _read_study(connection)
        if stored == study:
            return set(connection.execute(f"SELECT {schema.names(schema.axes)} FROM cells"))
        if connection.execute("SELECT count(*) FROM cells").fetchone()[0]:
            raise _another_study(folder, stored, study)
        return set()


def to_xarray(
    rows: list[R], study: dict[str, Any], data: dict[str, Any] | None, schema: Schema[R], title: str | None = None
) -> "xarray.Dataset":
    """Return rows as a labelled grid, with attributes of the study and its data.

    Dimensions are the axes, their values sorted; cells not stored are NaN, or empty, and counts are then floats.
    """
    import xarray

    columns = dict(zip(_names(schema), zip(*rows, strict=True), strict=True)) if rows else {}
    axes, places = {}, []
    for one in schema.axes:
        array = np.array(columns.get(one.name, ()), dtype={int: np.int64, float: np.float64, str: object}[one.kind])
        values, place = np.unique(array, return_inverse=True)
        axes[one.name] = (one.name, values.astype(str) if one.kind is str else values, _attributes(one))
        places.append(place)
    shape = tuple(len(axis[1]) for axis in axes.values())
    empty = np.array([schema.is_hollow(row) for row in rows], bool) if schema.hollow else None
    complete = len(rows) == np.prod(shape) and (empty is None or not empty.any())
    variables = {}
    for one in schema.measured:
        grid: Any
        if one.kind is str:
            grid = np.full(shape, "", object)
        else:
            counts = one.kind is int and complete
            grid = np.zeros(shape, np.int64) if counts else np.full(shape, np.nan)
        grid[tuple(places)] = columns.get(one.name, ())
        if empty is not None and empty.any() and one.kind is not str:
            grid[tuple(place[empty] for place in places)] = np.nan
        variables[one.name] = (tuple(axes), grid.astype(str) if one.kind is str else grid, _attributes(one))
    attributes = {key: value if isinstance(value, (int, float, str)) else json.dumps(value) for key, value in study.items()}
    attributes["title"] = title or f"intnet grid: {study.get('dataset', study['study'])}"
    if data and data.get("classes"):
        attributes["chance_accuracy"] = 1 / data["classes"]
    return xarray.Dataset(variables, axes, attrs=attributes)


def _attributes(column: Column) -> dict[str, str]:
    return {"long_name": column.description, "units": column.units}
