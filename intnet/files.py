"""Files that are whole or not there."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from intnet.errors import StudyError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path` and put it in its place: a reader sees the old file or the new, whole.

    Raises
    ------
    StudyError
        If the file cannot be written.
    """
    draft = path.with_name(f".{path.stem}.draft{path.suffix}")
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
