"""How the cells of a sweep are run: in this process, in a pool of processes, or on a Dask cluster. Only the driver stores.

Whoever runs them, a task is a specification, some cells and the name of the data set; what comes back are rows. A lost worker
costs the tasks it had: they are given out again. Bits depend on none of this.

1. What a sweep is      Sweep
2. A task               Task, run_task
3. Who runs tasks       Here, Executors (see workers.py)
4. The driver           run_sweep
"""

import hashlib
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numba
import numpy as np

from intnet import datasets, files, kernels
from intnet._compile import PACKAGE, cache_folder
from intnet._version import __version__
from intnet.errors import DataError, StudyError
from intnet.sweeps.storage import Schema, Store

Loader = Callable[..., Any]
"""Gives a data set by its name: :func:`intnet.datasets.load` without the folder."""

TASK_SECONDS = 2.0
"""How long a task should take, about: a killed worker loses no more, and sending it costs little beside."""

TASK_CELLS = 4096
"""The most cells of a task."""

LOSSES_MAX = 3
"""How often in a row workers may be lost before the sweep gives up."""


# 1. What a sweep is -----------------------------------------------------------------------------------------------------


class Sweep(Protocol):
    """A frozen specification whose cells are independent trainings. It is sent to workers, so it can be pickled."""

    @property
    def schema(self) -> Schema:
        """What a row is."""

    @property
    def left_out(self) -> str:
        """What combinations are impossible and left out, in a sentence; nothing if none is."""

    def study(self) -> dict[str, Any]:
        """Return what makes results comparable: cells of equal studies may share a folder."""

    def cells(self) -> list[Any]:
        """Return every cell, a tuple of the axes' values."""

    def shard(self, number: int, of: int) -> list[Any]:
        """Return the cells of one of so many shards; `number` is 1 for the first."""

    def facts(self, load: Loader) -> dict[str, Any]:
        """Return what is to be known of the data, checksums among it."""

    def train(
        self, cells: Sequence[Any], load: Loader, *, threads: int | None = None, device: str = "cpu"
    ) -> Iterator[list[Any]]:
        """Refuse at once what cannot be done; train cells, and yield their rows as they come."""

    def estimate(self, some: Sequence[Any], cells: Sequence[Any], load: Loader) -> tuple[float, int, str]:
        """Return about how many seconds `cells` take in one thread, from how many of `some`, and why others are refused."""

    def kinds(self, cells: Sequence[Any]) -> list[tuple[str, Any]]:
        """Return the kinds of compiled code that cells need, by name, and a cell of each."""

    def warm(self, cell: Any, load: Loader) -> None:
        """Compile what a cell needs, by training it for a moment."""


class VersionError(StudyError):
    """A worker runs other versions than the driver, and so might give other bits."""


# 2. A task --------------------------------------------------------------------------------------------------------------


@cache
def versions() -> dict[str, str]:
    """Return what decides the bits of this process: versions, and a hash of intnet's sources."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode() + path.read_bytes())
    return {
        "intnet": f"{__version__} ({digest.hexdigest()[:12]})",
        "numpy": np.__version__,
        "numba": numba.__version__,
        "python": "{}.{}".format(*sys.version_info),
    }


def place() -> str:
    """Return where this process is, for messages."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def check_versions(driver: dict[str, str], worker: dict[str, str], where: str) -> None:
    """Refuse a worker whose versions are not the driver's.

    Raises
    ------
    VersionError
    """
    different = [
        f"{name} {driver[name]} here and {worker.get(name)} there" for name in driver if driver[name] != worker.get(name)
    ]
    if different:
        raise VersionError(
            f"the worker at {where} has other versions than the driver: {', '.join(different)}; "
            "give it the driver's environment"
        )


@lru_cache(maxsize=4)
def _loaded(name: str, data_dir: str | None, options: tuple[tuple[str, Any], ...]) -> Any:
    return datasets.load(name, data_dir, **dict(options))


def load_once(data_dir: str | None, name: str, **options: Any) -> Any:
    """Return a data set that this process keeps: a worker trains many cells on it."""
    return _loaded(name, data_dir, tuple(sorted(options.items())))


def loader(data_dir: Path | str | None) -> Loader:
    """Return what gives data sets by name from a folder, each read once."""
    return partial(load_once, None if data_dir is None else str(Path(data_dir).absolute()))


@dataclass(frozen=True)
class Task:
    """What a worker is sent: no data, no compiled code, no closure."""

    spec: Any
    cells: tuple[Any, ...]
    data_dir: str | None
    facts: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Done:
    """What comes back: rows, and the seconds they took."""

    rows: list[Any] = field(repr=False)
    seconds: float


_one_at_a_time = threading.Lock()


def run_task(task: Task) -> Done:
    """Train the cells of a task in this process, in one thread.

    Raises
    ------
    InputError
        VersionError if this process is of other versions than the driver, DataError if its data are others.
    """
    check_versions(task.versions, versions(), place())
    with _one_at_a_time:  # where a worker has several threads
        kernels.set_threads(1)
        data_dir = task.data_dir if task.data_dir and Path(task.data_dir).is_dir() else None  # the driver's may not be here
        load = loader(data_dir)
        facts = _facts(task.spec, data_dir)
        if different := [name for name in task.facts if facts.get(name) != task.facts[name]]:
            raise DataError(
                f"the worker at {place()} has other data than the driver ({different[0]} differs); give it the same files, "
                "in the same folder or by $INTNET_DATA"
            )
        warm_up(task.spec, task.cells, load)
        start = time.perf_counter()
        rows = [row for some in task.spec.train(task.cells, load, threads=1) for row in some]
        return Done(rows, time.perf_counter() - start)


@lru_cache(maxsize=8)
def _facts(spec: Any, data_dir: str | None) -> dict[str, Any]:
    return spec.facts(loader(data_dir))


_warm: set[str] = set()


def warm_up(spec: Sweep, cells: Sequence[Any], load: Loader, say: Callable[[str], object] | None = None) -> None:
    """Compile what cells need, one process at a time: many that write one cold cache at once may spoil it.

    Every kind of code that is in the cache of this node has a mark beside it, so a second process only reads.
    """
    folder = cache_folder()
    for kind, cell in spec.kinds(cells):
        if kind in _warm:
            continue
        mark = None if folder is None else folder / f"warm-{hashlib.sha256(kind.encode()).hexdigest()[:16]}"
        if mark is not None and not mark.exists():
            with files.locked(mark.parent, wait=1200):
                if not mark.exists():
                    if say is not None:
                        say("Compiling what the cells need, once; this may take a minute.")
                        say = None
                    spec.warm(cell, load)
                    mark.touch()
        _warm.add(kind)


# 3. Who runs tasks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Here:
    """The cells are run by this process itself, in threads or on a GPU.

    Parameters
    ----------
    threads : int, optional
        By default one a core.
    device : {"cpu", "gpu", "auto"}
    """

    threads: int | None = None
    device: str = "cpu"


class Executors(Protocol):
    """Workers that a driver reaches by an executor of `concurrent.futures`, and can be reached anew. A context manager."""

    def __enter__(self) -> Self:
        """Reach them."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Let go of them."""

    @property
    def executor(self) -> Executor:
        """The executor in use."""

    def count(self) -> int:
        """Return how many workers there are now."""

    def lost(self, error: BaseException) -> bool:
        """Tell whether an error of a task says that its worker was lost, and not what the task itself made of it."""

    def watch(self) -> str | None:
        """Say what is waited for, if nothing can be done now; raise StudyError when that has taken too long."""

    def renew(self) -> None:
        """Reach workers anew after some were lost."""


# 4. The driver ----------------------------------------------------------------------------------------------------------


def _nothing(_: Any) -> None:
    """Take what nobody wants to be told."""


def run_sweep(
    spec: Any,
    store: Store,
    workers: Here | Executors | None = None,
    *,
    cells: Sequence[Any] | None = None,
    data_dir: Path | str | None = None,
    load: Loader | None = None,
    progress: Callable[[int], object] = _nothing,
    say: Callable[[str], object] = _nothing,
) -> int:
    """Train the cells that a store lacks, and store each as it is finished.

    Parameters
    ----------
    spec : GridSpec or SweepSpec
    store : Store
        Opened for ``spec.study()``.
    workers : Here, Pool, Dask, optional
        By default this process.
    cells : sequence, optional
        Only these; a shard, for example. By default all.
    data_dir : path, optional
        Where the data set's files are, here and, if it is there, where the workers are.
    load : function, optional
        Gives the data here; by default :func:`intnet.datasets.load`.
    progress : function of an int, optional
        Told how many more cells have been stored.
    say : function of a str, optional
        Told what is waited for, or what was lost.

    Returns
    -------
    int
        How many cells were trained.

    Raises
    ------
    StudyError
        If the data differ from those the stored cells were trained on, storing fails, workers are of other versions
        (VersionError), cannot be reached, or are lost again and again. What was stored is kept.
    InputError
        If something is refused; DeviceError if a GPU is asked for and none can be used. Nothing is stored then.
    """
    workers = Here() if workers is None else workers
    missing = store.missing(spec.cells() if cells is None else cells)
    if not missing:
        return 0
    place_of_data = None if data_dir is None else str(Path(data_dir).absolute())
    load = loader(data_dir) if load is None else load
    facts = spec.facts(load)
    if isinstance(workers, Here):
        # Before anything is noted, as it refuses a device that cannot be used; it trains only when its rows are asked for.
        trained = spec.train(missing, load, threads=workers.threads, device=workers.device)
        _agree(store, facts)
        begun = time.perf_counter()
        for rows in trained:
            store.add(rows)
            progress(len(rows))
        _note_seconds(store, len(missing), time.perf_counter() - begun)
        return len(missing)
    warm_up(spec, missing, load, say)
    with workers:
        _agree(store, facts)
        make = partial(Task, spec, data_dir=place_of_data, facts=facts, versions=versions())
        for done in _run(workers, missing, lambda some: make(cells=some), say):
            store.add(done.rows)
            _note_seconds(store, len(done.rows), done.seconds)
            progress(len(done.rows))
    return len(missing)


def _agree(store: Store, facts: dict[str, Any]) -> None:
    if (different := store.agree("data", facts)) is not None:
        known = store.note("data")[different]
        named = store.study.get("dataset") if different == "checksum" else different
        if different.startswith("recipe "):
            raise StudyError(
                f"{store.folder} was made with another {different}: its file has changed since; put the old one back, "
                "choose another --out, or set the old results aside with --fresh"
            )
        shown = [str(one.get("checksum", one) if isinstance(one, dict) else one)[:12] for one in (known, facts[different])]
        raise StudyError(
            f"{store.folder} was made from other {named} data (checksum {shown[0]}, now {shown[1]}); choose another --out, "
            "or set the old one aside with --fresh"
        )


def _note_seconds(store: Store, cells: int, seconds: float) -> None:
    """Keep how long cells took, all in all: no part of the table, which is the same whoever made it."""
    known = store.note("seconds") or {"cells": 0, "seconds": 0.0}
    store.set_note("seconds", {"cells": known["cells"] + cells, "seconds": known["seconds"] + seconds})


class _Size:
    """How many cells a task should have: few at first, then as many as take about `TASK_SECONDS`."""

    def __init__(self) -> None:
        self.cells, self.seconds = 0, 0.0

    def note(self, done: Done) -> None:
        self.cells, self.seconds = self.cells + len(done.rows), self.seconds + done.seconds

    def next(self, left: int, workers: int) -> int:
        """Return it, such that at the end all workers have something to do."""
        wanted = 1 if not self.cells else int(TASK_SECONDS * self.cells / max(self.seconds, 1e-6))
        return max(1, min(wanted, TASK_CELLS, left // (4 * max(1, workers))))


def _named(cells: Sequence[Any]) -> str:
    return f"cell {tuple(cells[0])}" if len(cells) == 1 else f"{len(cells)} cells from {tuple(cells[0])} on"


def _run(
    workers: Executors, cells: Sequence[Any], make: Callable[[tuple[Any, ...]], Task], say: Callable[[str], object]
) -> Iterator[Done]:
    """Give tasks out, a few more than there are workers, and yield what comes back; lost ones again."""
    left, again, size, losses = deque(cells), deque[tuple[Any, ...]](), _Size(), 0
    pending: dict[Future[Done], tuple[Any, ...]] = {}
    told: str | None = None
    careful = False  # one cell at a time, so that it is known which one kills workers
    try:
        while left or again or pending:
            count, careful = max(1, workers.count()), careful and bool(again or pending)
            while (left or again) and len(pending) < (1 if careful else 2 * count):
                some = again.popleft() if again else tuple(left.popleft() for _ in range(size.next(len(left), count)))
                try:
                    pending[workers.executor.submit(run_task, make(some))] = some
                except BaseException as error:
                    again.appendleft(some)
                    if not workers.lost(error):
                        raise
                    break
            finished, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            lost: BaseException | None = None if pending else CancelledError("nothing could be given out")
            for future in finished:
                some = pending.pop(future)
                try:
                    done = future.result()
                except BaseException as error:
                    if not workers.lost(error):
                        raise
                    again.insert(0 if careful else len(again), some)
                    lost = error
                else:
                    losses = 0
                    size.note(done)
                    yield done
            waiting = workers.watch()
            if waiting is not None and waiting != told:
                say(waiting)
            told = waiting
            if lost is not None:
                losses += 1
                if losses > LOSSES_MAX:
                    unguarded = "" if size.cells else ', or a script without `if __name__ == "__main__":`'
                    raise StudyError(
                        f"workers were lost {losses} times in a row ({type(lost).__name__}), the last with "
                        f"{_named(again[0])}; look for the reason where they run (out of memory{unguarded}?); what was stored "
                        "before is safe, and the same command goes on"
                    ) from lost
                say(f"A worker was lost ({type(lost).__name__}); its cells are given out again.")
                again.extend(pending.values())
                pending.clear()
                workers.renew()
                if losses > 1:  # one of them may be what kills workers
                    again, careful = deque((cell,) for some in again for cell in some), True
    finally:
        for future in pending:
            future.cancel()
