"""Tasks on executors that lose tasks, break, or refuse them: cases that are rare on real executors."""

import signal
import threading
import time
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor

import pytest

from shadowsim import ExecutorError
from shadowsim.engine.executors import TRIES, work_off


def square(n, advance=None):
    return n * n


class Scripted(Executor):
    """Ends each try of each task at once, with the error that a script gives or with its result."""

    def __init__(self, script):
        self.script, self.tries, self.cancelled = script, {}, []

    def submit(self, work, task):
        self.tries[task] = self.tries.get(task, 0) + 1
        future = Future()
        error = self.script(task, self.tries[task])
        if error == "never":
            future.cancel = lambda: self.cancelled.append(task)
        elif error is None:
            future.set_result(work(task))
        else:
            future.set_exception(error)
        return future


def run(executor, tasks=range(6), workers=3):
    results = {}
    work_off(square, tasks, results.__setitem__, workers=workers, executor=executor)
    return results


SQUARES = {n: n * n for n in range(6)}


def killed():
    from distributed import KilledWorker

    return KilledWorker("a task", None, 3)


@pytest.mark.parametrize("loss", [CancelledError, killed])
def test_a_lost_task_is_handed_out_again(loss):
    executor = Scripted(lambda task, n: loss() if task == 2 and n < TRIES else None)
    assert run(executor) == SQUARES
    assert executor.tries == {0: 1, 1: 1, 2: TRIES, 3: 1, 4: 1, 5: 1}


def test_a_task_that_keeps_losing_its_worker():
    executor = Scripted(lambda task, n: CancelledError() if task == 2 else None)
    with pytest.raises(ExecutorError, match=f"lost a task's worker {TRIES} times"):
        run(executor)
    assert executor.tries[2] == TRIES


def test_a_broken_executor_and_what_was_ready_all_the_same():
    """Task 0 breaks the pool; 1 and 2 were ready by then, and 3 was never begun."""
    results = {}
    executor = Scripted(lambda task, n: {0: BrokenExecutor("a process died"), 3: "never"}.get(task))
    with pytest.raises(ExecutorError, match=r"executor: it is broken \(a process died\)"):
        work_off(square, range(6), results.__setitem__, workers=4, executor=executor)
    assert results == {1: 1, 2: 4}
    assert executor.cancelled == [3]
    assert 4 not in executor.tries


def test_an_executor_that_is_closed():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ExecutorError, match=r"executor: takes no tasks .*after shutdown"):
        run(executor)


def test_a_task_that_fails_ends_the_work():
    executor = Scripted(lambda task, n: ValueError("seven") if task == 1 else None)
    with pytest.raises(ValueError, match="seven"):
        run(executor)
    assert executor.tries[1] == 1


@pytest.mark.parametrize("workers", [1, 4])
def test_no_more_tasks_are_out_than_wanted(workers):
    out, most = set(), 0

    def tasks():
        nonlocal most
        for n in range(50):
            out.add(n)
            most = max(most, len(out))
            yield n

    with ThreadPoolExecutor(8) as threads:
        work_off(square, tasks(), lambda task, _: out.remove(task), workers=workers, executor=threads)
    assert most == workers
    assert not out


def test_an_interrupt_cancels_threads_and_keeps_finished_results():
    results, cancelled = {}, []

    def work(n, advance):
        if n < 3:
            return n
        if n == 3:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        for _ in range(60_000):  # a minute, unless the work is cancelled
            time.sleep(0.001)
            try:
                advance(1)
            except CancelledError:
                cancelled.append(n)
                raise
        return n

    with pytest.raises(KeyboardInterrupt):
        work_off(work, range(100), results.__setitem__, workers=2)
    assert results == {0: 0, 1: 1, 2: 2}
    assert 3 in cancelled
