"""Files that are whole or not there, and folders of results that one run has for itself."""

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from intnet.errors import InUseError, StudyError

LOCK = ".lock"
REPORT = "report.html"
"""What every study's folder may have: see :func:`intnet.report.write_report`."""

UNWRITABLE = "check that the folder is writable, or choose another --out"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path` and put it in its place: a reader sees the old file or the new, whole.

    Raises
    ------
    StudyError
        If the file cannot be written.
    """
    draft = path.with_name(_draft(path.name))
    try:
        write(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        os.replace(draft, path)
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror or error}; make room for it or choose another --out") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _draft(name: str) -> str:
    return f".{Path(name).stem}.draft{Path(name).suffix}"


def write_changed(path: Path, content: bytes) -> None:
    """Write a file, whole, unless it has this content already.

    Raises
    ------
    StudyError
        If the file cannot be written.
    """
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, lambda draft: draft.write_bytes(content))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of JSON, whole, unless it has this content already.

    Raises
    ------
    StudyError
        If the file cannot be written.
    """
    text = json.dumps(content, indent=2) + "\n"
    write_changed(path, text.encode())


def stamps(folder: Path, names: Sequence[str]) -> dict[str, list[int]]:
    """Return size and time of those files of a folder that are there: what was changed since is written again."""
    paths = [(name, folder / name) for name in names]
    return {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in paths if path.is_file()}


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the operating system says against using a folder into a line."""
    try:
        yield
    except OSError as error:
        raise StudyError(f"cannot use {folder}: {error.strerror or error}; choose another --out") from error


@contextmanager
def locked(folder: Path, wait: float = 0) -> Iterator[None]:
    """Keep other runs out of the folder. The lock is SQLite's own, on an empty file, and dies with the process.

    Parameters
    ----------
    folder : path
    wait : float
        For so many seconds, if another run is in it.

    Raises
    ------
    StudyError
        If another run is in it (InUseError), or the lock cannot be made.
    """
    with closing(_connect(folder, wait)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = MEMORY")  # nothing is written, so leave no journal file either
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise InUseError(f"{folder} is in use by another run; wait for it to end, or choose another --out") from error
            raise StudyError(f"cannot lock {folder / LOCK}: {error}; {UNWRITABLE}") from error
        yield


def _connect(folder: Path, wait: float) -> sqlite3.Connection:
    try:
        return sqlite3.connect(folder / LOCK, timeout=wait, isolation_level=None)
    except sqlite3.DatabaseError as error:
        raise StudyError(f"cannot lock {folder / LOCK}: {error}; {UNWRITABLE}") from error


def set_aside(folder: Path | str, mark: str, exports: Collection[str]) -> Path | None:
    """Rename a folder of results to a dated name and return that, or None if there was nothing in it.

    The results may be damaged: they are not looked into.

    Parameters
    ----------
    folder : path
    mark : str
        The file by which results are known.
    exports : collection of str
        Files made from it: a folder with nothing else, but for a report, is one of results, too.

    Raises
    ------
    StudyError
        If the folder holds files but no results, is the current folder, or another run is using it.
    OSError
        If it cannot be read or renamed.
    """
    folder = Path(os.path.abspath(folder))  # has a name, as "." has not
    if not os.path.lexists(folder):
        return None
    names = set(os.listdir(folder)) if folder.is_dir() else {folder.name}
    if names <= {LOCK}:
        return None
    if mark not in names and not names <= {LOCK, REPORT, *exports, _draft(REPORT)}:
        raise StudyError(f"{folder} holds no study ({mark} is missing), so it is not set aside; choose another --out")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise StudyError(f"{folder} cannot be set aside from within; go to another folder and name it with --out")
    with locked(folder):
        now = f"{datetime.now():%Y-%m-%dT%H-%M-%S}"
        aside = folder.with_name(f"{folder.name}.{now}")
        while os.path.lexists(aside):  # a second time within the second
            aside = aside.with_name(f"{aside.name}+")
        folder.rename(aside)
    return aside
