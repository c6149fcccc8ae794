"""Independent jobs in threads: for work whose kernels hold no lock, a job at a time in each."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

R = TypeVar("R")


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[..., R], jobs: Iterator[tuple], threads: int) -> Iterator[R]:
    """Yield ``function(*job, stop)`` for every job, as they end.

    Parameters
    ----------
    function : callable
        Its last argument is an event: once it is set, nobody waits for the result any more.
    jobs : iterator of tuples
        Taken as threads get free, at most twice as many at a time as there are threads; made in the calling thread.
    threads : int, at least 1
    """
    stop = threading.Event()
    running: set[Future[R]] = set()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="intnet")
    try:
        while True:
            for job in itertools.islice(jobs, 2 * threads - len(running)):
                running.add(executor.submit(function, *job, stop))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:  # also when the caller is interrupted or stops listening
        stop.set()
        executor.shutdown(cancel_futures=True)
