"""Sweeps written as TOML: settings, axes, and what to do with what is impossible.

study = "training"               # or "cliffs", the grid of experiments/grid.py
impossible = "skip"              # or "refuse", which is the default

[settings]                       # one value for all
dataset = "mnist"
recipe = "fixed16"

[axes]                           # every combination
weight.word_bits = "8:17"        # a half-open range, or [8, 12, 16]
rate = ["2^-3", "2^-5"]
seed = [0, 1, 2]
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from intnet.errors import InputError
from intnet.sweeps.axes import NAMES, axis_of, nearest
from intnet.sweeps.specification import GridSpec
from intnet.sweeps.trainings import IMPOSSIBLE, SweepSpec

STUDIES = ("training", "cliffs")
RANGE_MAX = 2**16
"""The most values of a range."""

_TOP = ("study", "impossible", "settings", "axes")
_GRID_AXES = {"lr_shift": "lr_shifts", "fraction_bits": "fraction_bits", "seed": "seeds"}
_GRID_SETTINGS = ("dataset", "iterations")


def load_spec(path: Path | str) -> SweepSpec | GridSpec:
    """Read a sweep from a TOML file.

    Raises
    ------
    InputError
        If it cannot be read, is no TOML, or holds what a sweep does not have; the message begins with the file and the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors of Windows begin with a mark
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a TOML file, see --help") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: this is no text in UTF-8 ({error.reason}); save it as UTF-8") from None
    try:
        return parse_spec(text)
    except InputError as error:
        raise InputError(f"{path}{error}") from None


def parse_spec(text: str) -> SweepSpec | GridSpec:
    """Return the sweep of a TOML text; errors begin with ``", line N: "`` or ``": "``."""
    try:
        entries = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError, and so is what int says of 5000 digits
        found = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
        line = int(found[1]) if found else len(text.splitlines())  # at the end of the document
        told = str(error).partition(" (at ")[0]
        raise InputError(f", line {line}: this is not TOML: {told}") from None
    try:
        return _spec(entries)
    except _KeyedError as error:
        at = _line_of(text, error.key)
        raise InputError(f"{f', line {at}' if at else ''}: {error}") from None
    except InputError as error:
        raise InputError(f": {error}") from None


class _KeyedError(InputError):
    """An error at a key, named with the tables that it is in."""

    def __init__(self, message: str, *key: str) -> None:
        super().__init__(message)
        self.key = key


def _spec(entries: Mapping[str, Any]) -> SweepSpec | GridSpec:
    for name in entries:
        if name not in _TOP:
            raise _KeyedError(f"a sweep has no entry {name!r}; {nearest(name, _TOP)}", name)
    study = entries.get("study", "training")
    if study not in STUDIES:
        raise _KeyedError(f"study is {' or '.join(map(repr, STUDIES))}, got {study!r}", "study")
    impossible = entries.get("impossible", "refuse")
    if impossible not in IMPOSSIBLE:
        raise _KeyedError(f"impossible is {' or '.join(map(repr, IMPOSSIBLE))}, got {impossible!r}", "impossible")
    for table in ("settings", "axes"):
        if not isinstance(entries.get(table, {}), dict):
            raise _KeyedError(f"{table} is a table: write [{table}] above its entries", table)
    known = NAMES if study == "training" else (*_GRID_AXES, *_GRID_SETTINGS)
    settings, axes = (dict(_flat(entries.get(table, {}), table, known)) for table in ("settings", "axes"))
    if not axes:
        raise InputError("the sweep has no axes; write [axes] and, for example, seed = [0, 1, 2]")
    for name, values in axes.items():
        axes[name] = _values(name, values, study == "cliffs" or axis_of(name).kind is int)
    if study == "training":
        suspects: list[tuple[str, ...]] = []
        for name, value in settings.items():
            if name in axes:
                raise _KeyedError(f"{name} is both an axis and a setting; leave it out of one", "settings", name)
            other = "seed" if name != "seed" else "samples"
            suspects += _try(partial(SweepSpec, {other: [1]}, {name: value}), "settings", name)
        for name, values in axes.items():
            suspects += _try(partial(SweepSpec, {name: values}), "axes", name)
        try:
            return SweepSpec(axes, settings, impossible)
        except InputError as error:
            if suspects:
                raise _KeyedError(str(error), *suspects[0]) from None
            raise
    for where, named in (("settings", settings), ("axes", axes)):
        for name in named:
            if name not in known:
                raise _KeyedError(f"the cliff study has no {name!r}; {nearest(name, known)}", where, name)
    misplaced = [name for name in axes if name in _GRID_SETTINGS] + [name for name in settings if name in _GRID_AXES]
    if misplaced:
        name = misplaced[0]
        raise _KeyedError(
            f"of the cliff study, {name} belongs under [{'settings' if name in _GRID_SETTINGS else 'axes'}]",
            "axes" if name in axes else "settings",
            name,
        )
    settings.setdefault("dataset", "digits")
    if settings["dataset"] not in ("digits", "mnist"):
        raise _KeyedError(f"the cliff study is of digits or mnist, got {settings['dataset']!r}", "settings", "dataset")
    for name, values in axes.items():
        if any(isinstance(value, bool) for value in values):
            raise _KeyedError(f"{name} takes integers, got true or false", "axes", name)
        _try(partial(GridSpec, "digits", **{_GRID_AXES[name]: values}), "axes", name)
    _try(partial(GridSpec, **settings), "settings", "iterations")
    return GridSpec(**settings, **{_GRID_AXES[name]: values for name, values in axes.items()})


def _try(check: Callable[[], object], *key: str) -> list[tuple[str, ...]]:
    """Refuse at its line what cannot be; what cannot be alone is returned, as it may do together with the others."""
    try:
        check()
    except InputError as error:
        if "is impossible" in str(error):
            return [key]
        raise _KeyedError(str(error), *key) from None
    return []


def _flat(table: Mapping[str, Any], where: str, known: tuple[str, ...], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and values: of ``weight.word_bits = 8`` TOML makes a table in a table."""
    for key, value in table.items():
        name = prefix + key
        if isinstance(value, dict):
            yield from _flat(value, where, known, f"{name}.")
            continue
        if name not in known:
            try:
                axis_of(name)
            except InputError as error:
                if "@" in name:
                    raise _KeyedError(str(error), where, name) from None
                raise _KeyedError(f"there is no axis {name!r}; {nearest(name, known)}", where, name) from None
        yield name, value


def _values(name: str, values: Any, integers: bool) -> Any:
    """Return the values of an axis; ``"5:20"`` is a half-open range of integers."""
    if values == []:
        raise _KeyedError(f"axis {name} is empty; give it at least one value, or leave it out", "axes", name)
    if not integers or not isinstance(values, str):
        return values if isinstance(values, list) else [values]
    found = re.fullmatch(r"\s*(-?\d{1,99})\s*:\s*(-?\d{1,99})\s*", values)
    if found is None:
        raise _KeyedError(f'{name} takes integers, [5, 7], or a half-open range, "5:20", got {values[:40]!r}', "axes", name)
    start, stop = int(found[1]), int(found[2])
    if not 0 < stop - start <= RANGE_MAX:
        count = max(0, stop - start)
        raise _KeyedError(f'{name}: {values!r} has {count} values; allowed are 1..{RANGE_MAX}, as in "5:20"', "axes", name)
    return range(start, stop)


def _line_of(text: str, key: tuple[str, ...]) -> int | None:
    """Return the line that sets a key, or else the last of the lines that open the tables it is in."""
    wanted, table, best, found = ".".join(key), "", 0, None
    for number, line in enumerate(text.splitlines(), 1):
        here = line.strip()
        if here.startswith("["):
            table = name = _path(f"{here.partition('#')[0].strip(' []')} = 0")
        else:
            name = ".".join(filter(None, (table, _path(here))))
        if name and (name == wanted or wanted.startswith(f"{name}.")) and len(name) > best:
            best, found = len(name), number
    return found


def _path(line: str) -> str:
    """Return the key of ``a.b = ...`` with its parts joined by dots; nothing of another line."""
    match = re.match(r"""((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""", line)
    parts = re.findall(r"""[\w-]+|"[^"]*"|'[^']*'""", match[1]) if match else ()
    return ".".join(part.strip("\"'") for part in parts)
