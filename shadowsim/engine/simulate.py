"""Simulates a scenario on one or several cores, and returns its frames as a `Result`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from shadowsim.engine import parallel
from shadowsim.engine.arrivals import ArrivalStream, arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.parallel import Job
from shadowsim.engine.progress import announce, compile_kernel, print_notice, progress_bar
from shadowsim.engine.run_frames import actions_frame, check_conserved, latency_frame, requests_frame, windows_frame
from shadowsim.errors import InputError
from shadowsim.quantities import integer
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario

CHUNK = 4096
_PLAIN_PER_S, _EVENTS_PER_S, _TOKENS_PER_S = 1e7, 1e6, 4e5  # requests that a few cores simulate, for announcements
_SHORT_RUN = 2e6  # requests, which one core simulates in a twentieth of a second


def simulate(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    *,
    rate_per_s: float | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool = False,
    chunk: int = CHUNK,
) -> Result:
    """Simulate a shadow test, in one run; `replicate` makes those of `run.replications` and `run.precision`.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        A scenario, or a plain CreateInferenceExperiment request, which needs `rate_per_s`.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests per second.
    workers : int, optional
        Number of slices of the run, and of threads that run them. By default one per core.
    executor : concurrent.futures.Executor, optional
        Runs the slices instead of threads: a ProcessPoolExecutor, or a Dask client's `get_executor()`.
    progress : bool
        Show a progress bar over windows.
    chunk : int
        Requests that the kernel handles at a time. The result does not depend on it.

    Returns
    -------
    Result
        Three frames, identical to the bit for the same scenario on every machine.

    Raises
    ------
    InputError, ValidationError
        When the scenario or its request cannot be used.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 500}
    >>> scenario = ss.default_scenario().replace({"traffic": traffic, "horizon_s": "1h"})
    >>> result = ss.simulate(scenario)
    >>> result
    <Result of built-in: STABLE, 1,799,090 requests, seed 7>
    >>> result.quantile(0.99).round(3).to_dict()
    {'AllTraffic': 0.062, 'Shadow-01': 0.062}

    A request alone needs a rate: `ss.simulate("request.json", rate_per_s=500)`.
    """
    integer(chunk, "chunk", least=1)
    if workers is not None:
        integer(workers, "workers", least=1)
    if executor is not None and not hasattr(executor, "submit"):
        raise InputError("executor", "must be a concurrent.futures.Executor, such as a ProcessPoolExecutor", executor)
    checked = Scenario.of(scenario, rate_per_s=rate_per_s)
    if progress:
        compile_for(checked, print_notice)
    with progress_bar(checked.n_windows, progress, in_parts=has_long_windows(checked)) as advance:
        return run(checked, workers, executor, advance, chunk)


def run(
    scenario: Scenario,
    workers: int | None = 1,
    executor: Executor | None = None,
    advance: Callable[[float], object] = lambda _: None,
    chunk: int = CHUNK,
) -> Result:
    """Simulate a scenario as `simulate` does, and call `advance` with numbers of windows as they become ready.

    An exception in `advance` ends the run.
    """
    arrivals = arrivals_of(scenario)
    inputs = columns(scenario, arrivals)
    n_sampled, n = scenario.sample_requests, workers or _default_workers(arrivals, executor)
    for widen in range(3):
        counts = parallel.run(Job(inputs, arrivals, chunk, n_sampled, widen), n, executor, advance)
        if parallel.sample_fits(counts.samples, n_sampled, counts.arrived):
            break
    check_conserved(counts.tallies, counts.arrived)
    return Result(
        scenario=scenario,
        windows=windows_frame(scenario, inputs, counts),
        latency=latency_frame(scenario, counts),
        requests=requests_frame(scenario, inputs, n_sampled, counts.samples, counts.tallies[0]),
        how=counts.how,
        actions=actions_frame(scenario, counts.evented),
    )


def has_long_windows(scenario: Scenario) -> bool:
    """Return whether progress is reported within windows, since each has very many requests."""
    return expected_requests(scenario) / scenario.n_windows >= parallel.LONG_WINDOW


def expected_requests(scenario: Scenario) -> float:
    """Return how many requests a run brings to the source, as its traffic tells."""
    return scenario.traffic.mean_rate(scenario.horizon_s, scenario.start) * scenario.horizon_s


def announce_runs(scenarios: Sequence[Scenario], runs_of_each: int, guessed: bool = False) -> None:
    """Print how many requests all runs bring and how long they take, roughly, if that is long.

    `guessed` is for a search, whose number of runs is not known before.
    """
    requests = [runs_of_each * expected_requests(scenario) for scenario in scenarios]
    took_s = sum(n / _usual_speed(scenario) for n, scenario in zip(requests, scenarios, strict=True))
    announce(sum(requests), took_s, runs_of_each * len(scenarios), guessed)


def _usual_speed(scenario: Scenario) -> float:
    """Return about how many requests per second a few cores simulate."""
    if any(service.tokens is not None for service in scenario.services.values()):
        return _TOKENS_PER_S
    return _EVENTS_PER_S if scenario.evented else _PLAIN_PER_S


def compile_for(scenario: Scenario, announce: Callable[[str], object]) -> None:
    """Compile what a scenario's run needs, unless it is compiled, and announce that before."""
    arrivals = arrivals_of(scenario)
    compile_kernel(Job(columns(scenario, arrivals), arrivals, CHUNK, 0, 0), announce)


def _default_workers(arrivals: ArrivalStream, executor: Executor | None) -> int:
    """Return one worker per core, one in all for a short run, and eight for an executor, whose size is not known."""
    if executor is not None:
        return 8
    if arrivals.expected_requests < _SHORT_RUN:
        return 1
    return cores()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
