"""simulate(scenario) -> Result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from shadowsim.engine import parallel
from shadowsim.engine import run_frames as tal
from shadowsim.engine.arrivals import ArrivalStream, arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.parallel import Job
from shadowsim.errors import InputError
from shadowsim.result import Result
from shadowsim.scenario.fields import check_whole
from shadowsim.scenario.scenario import Scenario

CHUNK = 4096
_WORTH_SHARING = 2e6  # requests of a run that one core does in a twentieth of a second


def simulate(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    *,
    rate_per_s: float | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool = False,
    chunk: int = CHUNK,
) -> Result:
    """Simulate a shadow test.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        A scenario, or a plain CreateInferenceExperiment request, which needs `rate_per_s`.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests a second.
    workers : int, optional
        Into how many slices the run is cut, and on how many threads they run. By default a thread a core.
    executor : concurrent.futures.Executor, optional
        Runs the slices instead of threads: a ProcessPoolExecutor, or a Dask client's `get_executor()`.
    progress : bool
        Show a progress bar over windows.
    chunk : int
        Requests handled at a time. The result does not depend on it.

    Returns
    -------
    Result
        Three frames, the same bits for the same scenario on every machine.

    Raises
    ------
    InputError, ValidationError
        When the scenario or its request cannot be used.
    """
    check_whole(chunk, "chunk", 1)
    if workers is not None:
        check_whole(workers, "workers", 1)
    if executor is not None and not hasattr(executor, "submit"):
        raise InputError("executor", "must be a concurrent.futures.Executor, such as a ProcessPoolExecutor", executor)
    made = Scenario.of(scenario, rate_per_s=rate_per_s)
    with progress_bar(made.n_windows, progress) as advance:
        return run(made, workers, executor, advance, chunk)


def run(
    scenario: Scenario,
    workers: int | None = 1,
    executor: Executor | None = None,
    advance: Callable[[int], object] = lambda _: None,
    chunk: int = CHUNK,
) -> Result:
    """Simulate a scenario as `simulate` does, and call `advance` with the number of windows that have become ready.

    What `advance` raises ends the run.
    """
    feed = arrivals_of(scenario)
    c = columns(scenario, feed)
    wanted, n = scenario.sample_requests, workers or _default_workers(feed, executor)
    for widen in range(3):
        done = parallel.run(Job(c, feed, chunk, wanted, widen), n, executor, advance)
        if parallel.sample_fits(done.samples, wanted, done.arrived):
            break
    tal.conserved(done.tallies, done.arrived)
    return Result(
        scenario=scenario,
        windows=tal.windows_frame(scenario, c, done.tallies),
        latency=tal.latency_frame(scenario, done.tallies),
        requests=tal.requests_frame(scenario, c, wanted, done.samples, done.tallies[0]),
        how=done.how,
    )


def _default_workers(feed: ArrivalStream, executor: Executor | None) -> int:
    """A core each; one where the run is over before another could help; for an executor, which does not tell, eight."""
    if executor is not None:
        return 8
    if feed.expected_requests < _WORTH_SHARING:
        return 1
    return cores()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def progress_bar(total: int, wanted: bool, unit: str = "windows") -> Iterator[Callable[[int], object]]:
    """Yield what advances a progress bar, or does nothing."""
    if not wanted:
        yield lambda _: None
        return
    from tqdm.auto import tqdm  # only now: in a notebook without widgets the import alone prints a warning

    with tqdm(total=total, unit=f" {unit}", leave=False) as bar:
        yield bar.update
