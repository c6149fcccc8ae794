"""Shards: each a folder with a part of a sweep, and one folder made of all of them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from intnet.errors import InputError, StudyError
from intnet.sweeps import storage
from intnet.sweeps.storage import Store

_SHARD = re.compile(r"shard-(\d+)-of-(\d+)")


def shard_folder(out: Path | str, number: int, of: int) -> Path:
    """Return the folder of a shard below that of the sweep; `number` is 1 for the first.

    Raises
    ------
    InputError
        If there is no such shard.
    """
    if not 1 <= number <= of:
        raise InputError(f"a shard is 1/N to N/N, got {number}/{of}")
    return Path(out) / f"shard-{number}-of-{of}"


def shards_in(out: Path | str) -> dict[int, list[int]]:
    """Return the numbers of the shards that are below a folder, by how many there should be."""
    found: dict[int, list[int]] = {}
    folder = Path(out)
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := _SHARD.fullmatch(path.name)) and path.is_dir():
            found.setdefault(int(match[2]), []).append(int(match[1]))
    return {of: sorted(numbers) for of, numbers in sorted(found.items())}


def check_shards(out: Path | str) -> int:
    """Return of how many shards some are below a folder.

    Raises
    ------
    StudyError
        If there is none, or there are those of several sweeps.
    """
    found = shards_in(out)
    if len(found) != 1:
        what = f"of {' and of '.join(map(str, found))}" if found else "none"
        raise StudyError(f"{out} should hold the shards of one sweep, shard-1-of-N to shard-N-of-N; it holds {what}")
    return next(iter(found))


def merge(spec: Any, store: Store, of: int | None = None, progress: Callable[[int], object] | None = None) -> int:
    """Copy the rows of all shards into the sweep's own folder, above theirs.

    Parameters
    ----------
    spec : GridSpec or SweepSpec
    store : Store
        The sweep's own folder, opened.
    of : int, optional
        How many shards there are; by default as their folders say.
    progress : function of an int, optional
        Told how many more cells have been stored.

    Returns
    -------
    int
        How many cells were copied.

    Raises
    ------
    StudyError
        If a shard is missing, unfinished, damaged, or of another sweep; nothing is copied then.
    """
    found = shards_in(store.folder)
    of = check_shards(store.folder) if of is None else of
    numbers = found.get(of, [])
    if missing := [number for number in range(1, of + 1) if number not in numbers]:
        raise StudyError(
            f"{_name(missing, of)} missing from {store.folder}; run {'it' if len(missing) == 1 else 'them'} with "
            f"--shard {missing[0]}/{of}, then merge again"
        )
    parts = []
    for number in range(1, of + 1):
        folder, again = shard_folder(store.folder, number, of), f"run it again with --shard {number}/{of}"
        about = storage.read_study(folder, spec.schema.database)
        if about is None:
            raise StudyError(f"shard {number} of {of} in {store.folder} has stored nothing yet; {again}, then merge again")
        if about != store.study:
            raise StudyError(f"shard {number} of {of} in {store.folder} is of another sweep; {again} --fresh, then merge again")
        stored = storage.read(folder, spec.schema)
        by_cell = {row[: len(spec.schema.axes)]: row for row in stored.rows}
        cells = [tuple(cell) for cell in spec.shard(number, of)]
        if left := sum(cell not in by_cell for cell in cells):
            raise StudyError(
                f"shard {number} of {of} in {store.folder} is unfinished: {left} of {len(cells)} cells are missing; "
                f"{again}, then merge again"
            )
        parts.append((number, stored, [by_cell[cell] for cell in cells]))
    _check_data(store, parts, of)
    copied = 0
    lacking = {tuple(cell) for cell in store.missing(tuple(cell) for cell in spec.cells())}
    for _, stored, rows in parts:
        if stored.data is not None:
            store.agree("data", stored.data)
        new = [row for row in rows if row[: len(spec.schema.axes)] in lacking]
        store.add(new)
        copied += len(new)
        if progress is not None:
            progress(len(new))
    return copied


def _check_data(store: Store, parts: Sequence[tuple[int, Any, Any]], of: int) -> None:
    known = dict(store.note("data") or {})
    for number, stored, _ in parts:
        for name, fact in (stored.data or {}).items():
            if known.setdefault(name, fact) != fact:
                raise StudyError(
                    f"shard {number} of {of} in {store.folder} was made from other data than the rest ({name} differs); "
                    "run it again with --fresh and the same files"
                )


def _name(missing: Sequence[int], of: int) -> str:
    if len(missing) == 1:
        return f"shard {missing[0]} of {of} is"
    shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    return f"shards {shown} of {of} are"
