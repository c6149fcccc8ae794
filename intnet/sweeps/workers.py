"""Workers of a sweep: a pool of processes on this machine, and a Dask cluster. See :mod:`intnet.sweeps.execution`."""

import importlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from intnet.errors import InputError, StudyError
from intnet.sweeps.execution import Here, check_versions, place, versions

PATIENCE = 300.0
"""Seconds to wait for a scheduler or for workers that are gone, before the sweep ends; what was stored is kept."""

_SINGLE = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


# A pool of processes ----------------------------------------------------------------------------------------------------


def _begin() -> None:
    """Prepare a process of a pool: Ctrl-C is the driver's, and when the driver is gone, so are we."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Let processes that start meanwhile use one thread each; they read it when they import what they compute with."""
    before = {name: os.environ.get(name) for name in _SINGLE}
    os.environ.update(dict.fromkeys(_SINGLE, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


class Pool:
    """Processes of this machine, one thread each. They are spawned, not forked: nothing compiled or locked comes along.

    A process that is spawned imports the script it was started from: one that uses a pool does so under
    ``if __name__ == "__main__":``.

    Parameters
    ----------
    processes : int
    """

    def __init__(self, processes: int) -> None:
        if isinstance(processes, bool) or not isinstance(processes, int) or not 1 <= processes <= 1024:
            raise InputError(f"workers must be an integer in 1..1024, got {processes!r}")
        self.processes = processes
        self._executor: ProcessPoolExecutor | None = None
        self._depth = 0  # entered within itself, it stays as it is

    def __enter__(self) -> Self:
        self._depth += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._depth -= 1
        if not self._depth:
            self._close(now=error is not None)

    @property
    def executor(self) -> Executor:
        """The executor in use; its processes are started when it is first asked for."""
        if self._executor is None:
            self.renew()
        assert self._executor is not None
        return self._executor

    def count(self) -> int:
        """Return how many workers there are."""
        return self.processes

    def lost(self, error: BaseException) -> bool:
        """Tell whether an error of a task says that its worker was lost."""
        return isinstance(error, (BrokenExecutor, CancelledError))

    def watch(self) -> str | None:
        """Wait for nothing: the processes are ours."""
        return None

    def renew(self) -> None:
        """Start the processes, after the old ones have ended."""
        self._close(now=True)
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(self.processes, mp_context=context, initializer=_begin)
        with _single_threaded():  # processes start as tasks are submitted: here, all of them
            started = [self._executor.submit(time.sleep, 0.01) for _ in range(self.processes)]
        for future in started:
            with suppress(BrokenExecutor):
                future.result()

    def _close(self, now: bool) -> None:
        if self._executor is None:
            return
        if now:
            for process in list((self._executor._processes or {}).values()):
                with suppress(Exception):
                    process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None


# Dask -------------------------------------------------------------------------------------------------------------------


@contextmanager
def _without_log(name: str) -> Iterator[None]:
    """Keep a package's log still, but for what is critical."""
    known = [one for one in logging.Logger.manager.loggerDict if one == name or one.startswith(f"{name}.")]
    loggers = [logging.getLogger(one) for one in {name, *known}]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _worker_versions() -> tuple[str, dict[str, str]]:
    return place(), versions()


class Dask:
    """The workers of a Dask scheduler, found by its address; they need intnet, of the driver's versions, and the data.

    Start each with ``--nthreads 1``. A worker that dies, or a scheduler that is started again at the same address, is waited
    for `patience` seconds.

    Parameters
    ----------
    scheduler : str
        ``tcp://HOST:PORT``.
    patience : float

    Raises
    ------
    InputError
        If that is no address; StudyError when it is entered and nobody answers, there is no worker, or its versions differ.
    """

    def __init__(self, scheduler: str, patience: float = PATIENCE) -> None:
        host, colon, port = scheduler.rpartition("://")[2].rpartition(":")
        known = scheduler.partition("://")[0] in ("tcp", "tls", "ucx", "ws", "wss")
        if not (known and host and colon and port.isdecimal() and len(port) <= 5 and 1 <= int(port) < 2**16):
            raise InputError(f"a scheduler is named as tcp://HOST:PORT, with a port in 1..65535, got {scheduler!r}")
        self.scheduler, self.patience = scheduler, patience
        self._client: Any = None
        self._executor: Executor | None = None
        self._alone_since: float | None = None
        self._known: list[str] = []
        self._asked = 0.0
        self._quiet = ExitStack()
        self._depth = 0

    @property
    def executor(self) -> Executor:
        """The executor in use."""
        assert self._executor is not None
        return self._executor

    def __enter__(self) -> Self:
        if self._depth:
            self._depth += 1
            return self
        with suppress(ModuleNotFoundError):  # what is not there is said below
            importlib.import_module("distributed")
        self._quiet.enter_context(_without_log("distributed"))  # what it says of lost connections, we say in a line
        try:
            self._connect(10.0, first=True)
            if not self.count():
                self._wait_for_workers()
            self._check_workers()
        except BaseException:
            self._close()
            self._quiet.close()
            raise
        self._depth = 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._depth -= 1
        if not self._depth:
            self._close()
            self._quiet.close()

    def count(self) -> int:
        """Return how many workers there are now."""
        return len(self._addresses())

    def lost(self, error: BaseException) -> bool:
        """Tell whether an error of a task says that its worker, or the scheduler, was lost."""
        module = type(error).__module__.partition(".")[0]
        return (
            isinstance(error, (CancelledError, OSError, TimeoutError))
            or (module in ("distributed", "dask", "asyncio") and not isinstance(error, InputError))
            or (isinstance(error, RuntimeError) and "shutdown" in str(error))
        )

    def watch(self) -> str | None:
        """Say so if there is no worker; raise StudyError if there has been none for long."""
        if self.count():
            self._alone_since = None
            return None
        now = time.monotonic()
        self._alone_since = now if self._alone_since is None else self._alone_since
        if now - self._alone_since > self.patience:
            raise StudyError(
                f"the scheduler at {self.scheduler} has had no worker for {self.patience:.0f} s; start some with "
                f"'dask worker {self.scheduler} --nthreads 1'; what was stored before is safe, and the same command goes on"
            )
        return f"Waiting for workers at {self.scheduler}."

    def renew(self) -> None:
        """Connect anew, waiting for the scheduler if it is gone."""
        self._close()
        self._connect(self.patience)

    # Inside

    def _addresses(self) -> list[str]:
        """Return the workers' addresses, asked for at most once a second."""
        now = time.monotonic()
        if now - self._asked > 1:
            self._asked, self._known = now, []
            if self._client is not None and self._client.status == "running":
                with suppress(Exception):  # a scheduler that is gone has none
                    self._known = list(self._client.nthreads())
        return self._known

    def _connect(self, seconds: float, first: bool = False) -> None:
        try:
            distributed = importlib.import_module("distributed")
        except ModuleNotFoundError as error:
            raise InputError(
                f"a scheduler needs the package {error.name}, which is not installed; run: pip install 'intnet[dist]'"
            ) from None
        end = time.monotonic() + seconds
        while True:
            try:
                self._client = distributed.Client(self.scheduler, timeout=min(5.0, seconds), set_as_default=False)
                break
            except TypeError as error:  # what a protocol needs beside the address
                raise InputError(
                    f"the scheduler at {self.scheduler} cannot be asked: {error}; use tcp://HOST:PORT, or configure Dask for it"
                ) from None
            except Exception as error:  # another program may answer, with anything
                if time.monotonic() > end:
                    kept = "" if first else "; what was stored before is safe, and the same command goes on"
                    raise StudyError(
                        f"the scheduler at {self.scheduler} does not answer within {seconds:.0f} s "
                        f"({type(error).__name__}); start one with 'dask scheduler' or mend the address{kept}"
                    ) from None
                time.sleep(0.5)
        self._executor = self._client.get_executor(pure=False)
        self._asked = 0.0

    def _wait_for_workers(self) -> None:
        with suppress(Exception):
            self._client.wait_for_workers(1, timeout=min(30.0, self.patience))
        self._asked = 0.0  # what was known a moment ago is out of date
        if not self.count():
            raise StudyError(
                f"the scheduler at {self.scheduler} has no worker; start some with 'dask worker {self.scheduler} --nthreads 1'"
            )

    def _check_workers(self) -> None:
        try:
            found = self._client.run(_worker_versions)
        except (ModuleNotFoundError, AttributeError, ImportError) as error:
            raise StudyError(
                f"a worker at {self.scheduler} cannot use intnet ({error}); give it the driver's environment"
            ) from None
        for where, theirs in found.values():
            check_versions(versions(), theirs, where)

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close(timeout=2)


def workers_of(processes: int | None, scheduler: str | None, threads: int | None) -> Here | Pool | Dask:
    """Return who runs the cells, by what a command line says: this process unless it names others.

    Raises
    ------
    InputError
        If threads are given to others, or the scheduler's address is none.
    """
    if threads is not None and (processes is not None or scheduler is not None):
        raise InputError("--threads is of a run in this process, got it with --workers or --scheduler; leave one out")
    if scheduler is not None:
        return Dask(scheduler)
    return Here(threads) if processes is None else Pool(processes)
