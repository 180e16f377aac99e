"""Many small tasks worked off on threads or on an executor, a bounded number at a time.

Results come as they are ready. A task whose worker was lost is handed out again; a task that fails ends the work, as
does an interrupt, and then what was ready is still passed on.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import Event
from typing import TypeVar

from shadowsim.errors import ExecutorError

T = TypeVar("T")
R = TypeVar("R")

IN_FLIGHT = 256  # tasks that an executor holds at once: enough for a large cluster, little to cancel
TRIES = 3  # how often a task may lose its worker; Dask for its part calls one lost after several workers
_HEARING_S = 0.2  # an interrupt that comes just before a wait is heard after it, and on Windows none is heard within


def work_off(
    work: Callable[..., R],
    tasks: Iterable[T],
    done: Callable[[T, R], object],
    *,
    workers: int,
    executor: Executor | None = None,
) -> None:
    """Call `done(task, work(task))` for every task, in the order in which they are ready.

    Parameters
    ----------
    work : callable
        Run by threads as `work(task, advance=...)`, where it should call `advance(n)` now and then, which raises once
        the work is given up; by an executor as `work(task)`, so that it must be importable there.
    tasks : iterable
        Taken from as there is room. Each hashable, and other than all others.
    done : callable
        Called in the caller's thread.
    workers : int
        How many threads, or how many tasks the executor is given at a time.
    executor : concurrent.futures.Executor, optional
        Used instead of threads, and left open.

    Raises
    ------
    ExecutorError
        When the executor is broken, or a task has lost its worker for the third time.
    """
    if executor is not None:
        _through(executor, work, tasks, done, workers)
        return
    given_up = Event()

    def advance(_: int) -> None:
        if given_up.is_set():
            raise CancelledError

    with ThreadPoolExecutor(workers) as threads:
        try:
            _through(threads, partial(work, advance=advance), tasks, done, workers)
        finally:
            given_up.set()


def _through(
    executor: Executor, work: Callable[[T], R], tasks: Iterable[T], done: Callable[[T, R], object], n: int
) -> None:
    queue, out, lost = iter(tasks), dict[Future[R], T](), Counter[T]()
    try:
        while True:
            for task in islice(queue, n - len(out)):
                out[_submitted(executor, work, task)] = task
            if not out:
                return
            for future in wait(out, _HEARING_S, FIRST_COMPLETED).done:
                task = out[future]
                try:
                    result = future.result()
                except BrokenExecutor as error:
                    raise ExecutorError(f"executor: it is broken ({error})") from error
                except BaseException as error:
                    if not _is_loss(error):
                        raise
                    lost[task] += 1
                    if lost[task] >= TRIES:
                        raise ExecutorError(f"executor: lost a task's worker {TRIES} times ({error})") from error
                    out[_submitted(executor, work, task)] = task
                    del out[future]
                    continue
                del out[future]
                done(task, result)
    except BaseException:
        for future in out:
            future.cancel()
        # What has come in between is not thrown away; the error that ends the work is the one to see.
        with suppress(Exception):
            for future, task in out.items():
                if future.done() and not future.cancelled() and future.exception() is None:
                    done(task, future.result())
        raise


def _submitted(executor: Executor, work: Callable[[T], R], task: T) -> Future[R]:
    try:
        return executor.submit(work, task)
    except Exception as error:  # each kind has its own for having been closed or broken
        raise ExecutorError(f"executor: takes no tasks ({error})") from error


def _is_loss(error: BaseException) -> bool:
    """Whether a task ended without having been at fault: Dask has given it up, or has lost its result."""
    killed = getattr(sys.modules.get("distributed"), "KilledWorker", ())
    return isinstance(error, (CancelledError, killed))
