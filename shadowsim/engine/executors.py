"""Runs many tasks on threads or on an executor, a bounded number at a time.

Results are passed on in the order in which they become ready. A task whose worker was lost is submitted again; a task
that fails ends the work, as does an interrupt, but results that were ready are still passed on.
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
TRIES = 3  # a task may be submitted this often; Dask itself reports a loss only after several workers
_WAIT_S = 0.2  # an interrupt just before a wait is noticed only after it, and on Windows any interrupt during it


def work_off(
    work: Callable[..., R],
    tasks: Iterable[T],
    done: Callable[[T, R], object],
    *,
    workers: int,
    executor: Executor | None = None,
) -> None:
    """Call `done(task, work(task))` for every task, in the order in which results become ready.

    Parameters
    ----------
    work : callable
        Threads run `work(task, advance=...)`, which should call `advance(n)` now and then: it raises once the work is
        cancelled. An executor runs `work(task)`, which must be importable there.
    tasks : iterable
        Hashable and all different; taken one by one as there is room.
    done : callable
        Called in the caller's thread.
    workers : int
        Number of threads, or of tasks that the executor holds at a time.
    executor : concurrent.futures.Executor, optional
        Used instead of threads; it is not shut down.

    Raises
    ------
    ExecutorError
        When the executor is broken, or a task has lost its worker for the third time.
    """
    if executor is not None:
        _run_all(executor, work, tasks, done, workers)
        return
    cancelled = Event()

    def advance(_: int) -> None:
        if cancelled.is_set():
            raise CancelledError

    with ThreadPoolExecutor(workers) as threads:
        try:
            _run_all(threads, partial(work, advance=advance), tasks, done, workers)
        finally:
            cancelled.set()


def _run_all(
    executor: Executor, work: Callable[[T], R], tasks: Iterable[T], done: Callable[[T, R], object], n: int
) -> None:
    queue, out, lost = iter(tasks), dict[Future[R], T](), Counter[T]()
    try:
        while True:
            for task in islice(queue, n - len(out)):
                out[_submitted(executor, work, task)] = task
            if not out:
                return
            for future in wait(out, _WAIT_S, FIRST_COMPLETED).done:
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
        # Results that have become ready meanwhile are kept; errors here must not hide the one that ends the work.
        with suppress(Exception):
            for future, task in out.items():
                if future.done() and not future.cancelled() and future.exception() is None:
                    done(task, future.result())
        raise


def _submitted(executor: Executor, work: Callable[[T], R], task: T) -> Future[R]:
    try:
        return executor.submit(work, task)
    except Exception as error:  # executors raise different errors when they are closed or broken
        raise ExecutorError(f"executor: takes no tasks ({error})") from error


def _is_loss(error: BaseException) -> bool:
    """Return whether a task was lost without having failed: Dask gave up on it, or lost its result."""
    killed = getattr(sys.modules.get("distributed"), "KilledWorker", ())
    return isinstance(error, (CancelledError, killed))
