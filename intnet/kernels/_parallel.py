"""Threads for kernels that hold no lock: one call over several pieces of its work, one piece a core.

A kernel compiled by ``intnet._compile.jit`` releases the interpreter's lock, so ordinary threads run it in parallel. The
pieces write to places of their own; what they count is summed afterwards, in order. So no result depends on the number of
threads.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numba

from intnet.errors import InputError

R = TypeVar("R")

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_workers = 0  # of the pool
_forks = 0  # between the process that was started and this one
_threads = int(numba.config.NUMBA_NUM_THREADS)  # the cores this process may use, or fewer by that environment variable


def threads() -> int:
    """Return the number of threads a kernel may use, the calling one included."""
    return _threads


def set_threads(count: int) -> None:
    """Let kernels use `count` threads. No result depends on it.

    At the start it is the number of cores that this process may use, or what ``NUMBA_NUM_THREADS`` says.

    Raises
    ------
    InputError
        If `count` is not an integer of at least 1.
    """
    global _threads
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"the number of threads must be an integer of at least 1, got {count!r}")
    _threads = count


def pieces_of(count: int, multiple: int = 1, minimum: int = 1 << 16) -> list[tuple[int, int]]:
    """Cut ``range(count)`` into pieces of nearly equal length, at most one for each thread.

    Parameters
    ----------
    count : int
        Number of items; for none, there is no piece.
    multiple : int
        Every piece starts at a multiple of this.
    minimum : int
        Items that are worth a thread: about 50 microseconds of work. Fewer than twice as many stay in one piece.

    Returns
    -------
    list of (start, stop)

    Examples
    --------
    >>> pieces_of(5), pieces_of(0)
    ([(0, 5)], [])
    """
    if count <= 0:
        return []
    if count < 2 * minimum or _threads == 1:
        return [(0, count)]
    units = -(-count // multiple)
    number = max(1, min(_threads, count // max(1, minimum), units))
    bounds = [units * i // number * multiple for i in range(number)]
    return list(zip(bounds, [*bounds[1:], count], strict=True))


def run(function: Callable[..., R], pieces: Sequence[tuple]) -> list[R]:
    """Call ``function(*piece)`` for every piece, in threads, and return the results in the order of the pieces.

    The calling thread takes the first piece, and afterwards every piece that no other thread has begun: so it may itself
    be such a thread, and any number of threads may call at once. Returns when all pieces have ended; if some raised, the
    exception of the first of these is raised.
    """
    if len(pieces) <= 1:
        return [function(*piece) for piece in pieces]
    futures = [_submit(function, piece, len(pieces) - 1) for piece in pieces[1:]]
    outcomes = [_outcome(function, pieces[0])]
    for piece, future in zip(pieces[1:], futures, strict=True):
        if future is None or future.cancel():
            outcomes.append(_outcome(function, piece))
        else:
            outcomes.append(future.result())
    results = []
    for result, error in outcomes:
        if error is not None:
            raise error
        results.append(result)
    return results


class Ahead:
    """Work that is begun before it is needed, by a thread that has nothing else to do; without one, it is not begun.

    Parameters
    ----------
    function : callable
        Of no arguments and no result; it writes where nobody else does before :meth:`done` is asked.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._forks = _forks
        self._future = _submit(function, (), 1) if _threads > 1 else None

    def done(self) -> bool:
        """Wait for it, and tell whether it was done: not if no thread has begun it yet, and then none will."""
        future = self._future
        if future is None or self._forks != _forks or future.cancel():
            return False
        return future.result()[1] is None


def _outcome(function: Callable, piece: tuple) -> tuple:
    try:
        return function(*piece), None
    except BaseException as error:  # raised by the caller when all pieces have ended: they share its arrays
        return None, error


def _submit(function: Callable, piece: tuple, workers: int) -> Future | None:
    """Hand a piece to the pool, made or enlarged if need be; None when it takes no more, as while Python shuts down."""
    global _pool, _workers
    with _lock:
        try:
            if _pool is None or _workers < workers:
                if _pool is not None:
                    _pool.shutdown(wait=False)  # what it was given is done all the same
                _pool, _workers = ThreadPoolExecutor(workers, thread_name_prefix="intnet-kernel"), workers
            return _pool.submit(_outcome, function, piece)
        except RuntimeError:
            return None


def _forget_pool() -> None:
    """Start anew in a forked process: threads are not copied, and the lock may have been held."""
    global _lock, _pool, _workers, _forks
    _lock, _pool, _workers, _forks = threading.Lock(), None, 0, _forks + 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
