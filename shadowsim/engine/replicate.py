"""Repeats a simulation with independent draws, and summarises the runs.

Requests of one run wait for each other, so that the scatter within a run says little about the error of its figures;
the scatter between independent runs does. Replications also use all cores where a single run cannot be cut in time.
With `run.precision` there are as many as make a figure that precise (statistics/enough_replications.py).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from shadowsim.arrays import Floats
from shadowsim.engine import _kernel as k
from shadowsim.engine.executors import IN_FLIGHT, work_off
from shadowsim.engine.progress import print_notice, progress_bar
from shadowsim.engine.simulate import compile_for, cores, run
from shadowsim.errors import InputError
from shadowsim.quantities import integer
from shadowsim.result import Result
from shadowsim.scenario.paths import edited
from shadowsim.scenario.precision import LEAST_REPLICATIONS, MOST_REPLICATIONS, Precision
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.tokens import MOST_GOODPUT
from shadowsim.statistics.terms import CONFIDENCE
from shadowsim.verdict import STATUSES, Verdict

FIGURES = ("requests", "rate_per_s", "share", "mean_s", "p50_s", "p90_s", "p95_s", "p99_s", "p99_9_s", "maximum_s",
           "wait_mean_s", "utilisation", "error_rate", "captured_bytes")  # fmt: skip
# Only runs with scaling, batching, outages or retries have these.
EVENT_FIGURES = ("serving_mean", "serving_maximum", "instance_h", "batch_size_mean", "retries_per_request",
                 "success_rate")  # fmt: skip
# Only runs with services in tokens have these.
TOKEN_FIGURES = ("ttft_mean_s", "ttft_p50_s", "ttft_p99_s", "tpot_mean_s", "tpot_p95_s", "tpot_p99_s",
                 "output_tokens_per_s", "running_sequences_mean", "cache_use_mean", "preemptions",
                 "prefix_hit_share",
                 *(f"goodput_share_{i}" for i in range(1, MOST_GOODPUT + 1)))  # fmt: skip


def replication(scenario: Scenario, r: int) -> Scenario:
    """Return replication `r` of a scenario, which differs in its seed alone.

    Its seed is mix(mix(s) + G (r + 1)) modulo 2^64, with s the scenario's seed, mix splitmix64's finaliser and G its
    odd constant (Steele, Lea and Flood, 2014): like the windows of a run, replications have different keys, and share
    a draw only by chance. Traces and schedules stay as they are.

    Parameters
    ----------
    scenario : Scenario
    r : int
        Its number, from 0.

    Returns
    -------
    Scenario
        With `run.replications` 1.

    Raises
    ------
    InputError
        When `r` is not the number of a replication.

    Examples
    --------
    >>> import shadowsim as ss
    >>> scenario = ss.default_scenario()
    >>> scenario.seed, ss.replication(scenario, 0).seed != ss.replication(scenario, 1).seed
    (7, True)
    """
    integer(r, "r", least=0, most=MOST_REPLICATIONS - 1)
    with np.errstate(over="ignore"):  # hash arithmetic wraps
        seed = int(k.mix(np.uint64(k.mix(np.uint64(scenario.seed))) + k.GOLDEN * np.uint64(r + 1)))
    document = edited(edited(scenario.document, "run.seed", seed), "run.replications", 1)
    # Everything else was validated with the scenario, and data read from files are shared.
    return replace(scenario, seed=seed, replications=1, document=document)


def replicate(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    n: int | None = None,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> list[Result]:
    """Simulate a scenario several times with independent draws.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        A scenario.
    n : int, optional
        Number of runs; by default its `run.replications`. If it has a `run.precision`, by default as many as reach it,
        at least ten and at least `run.replications`, at most its `max_replications`; `precision_reached` tells.
    workers : int, optional
        Number of threads; by default one per core.
    executor : concurrent.futures.Executor, optional
        Runs them instead of threads, one task per run: a ProcessPoolExecutor, or a Dask client's `get_executor()`.
    progress : bool
        Show a progress bar over the windows of all runs.

    Returns
    -------
    list of Result
        Item r is `simulate(replication(scenario, r))`, to the bit, on any worker.

    Raises
    ------
    InputError, ValidationError
        When the scenario or a parameter cannot be used.
    ExecutorError
        When the executor is broken, or has lost a run's worker for the third time.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 50}
    >>> results = ss.replicate(ss.default_scenario().replace({"traffic": traffic, "horizon_s": 600}), 3)
    >>> [result.verdict.status for result in results]
    ['STABLE', 'STABLE', 'STABLE']
    """
    if workers is not None:
        integer(workers, "workers", least=1)
    if workers is not None and executor is not None:
        raise InputError("workers", "must not be given together with an executor, which has its own number", workers)
    base = Scenario.of(scenario)
    if n is None and base.precision is not None:
        return _precise(base, base.precision, workers, executor, progress)
    n = integer(base.replications if n is None else n, "n", least=1, most=MOST_REPLICATIONS)
    return _runs(base, range(n), workers, executor, progress)


def _runs(
    base: Scenario, numbers: range, workers: int | None, executor: Executor | None, progress: bool
) -> list[Result]:
    results: dict[int, Result] = {}
    if progress and executor is None:
        compile_for(base, print_notice)
    with progress_bar(len(numbers) * base.n_windows, progress) as advance:

        def done(r: int, result: Result) -> None:
            results[r] = result
            advance(base.n_windows)

        at_once = IN_FLIGHT if executor is not None else min(workers or cores(), len(numbers))
        work_off(partial(_run_replication, base), numbers, done, workers=at_once, executor=executor)
    return [results[r] for r in numbers]


def _precise(
    base: Scenario, wanted: Precision, workers: int | None, executor: Executor | None, progress: bool
) -> list[Result]:
    """Make replications, in stages, until the wanted precision is reached."""
    from shadowsim.statistics.enough_replications import look  # scipy takes a quarter of a second

    results: list[Result] = []
    needed = max(LEAST_REPLICATIONS, base.replications)
    while len(results) < needed:
        results += _runs(base, range(len(results), needed), workers, executor, progress)
        needed = min(look(_figures(results, wanted), wanted.relative).needed, wanted.max_replications)
    return results


class PrecisionReached(NamedTuple):
    """What replications have made of the scenario's `run.precision`.

    Attributes
    ----------
    wanted : Precision
    n : int
        Number of replications.
    relative : mapping of str to float
        By role, the half-width of the interval over the figure; NaN if there is none.
    reached : bool
    why_not : str
        Why it was not reached; "" if it was.
    """

    wanted: Precision
    n: int
    relative: Mapping[str, float]
    reached: bool
    why_not: str

    def __str__(self) -> str:
        widths = ", ".join(f"{role} {100.0 * x:.2g} %" for role, x in self.relative.items() if not math.isnan(x))
        state = "reached after" if self.reached else "not reached with"
        why = f": {self.why_not}" if self.why_not else ""
        return f"{self.wanted} {state} {self.n:,} replications{f' ({widths})' if widths else ''}{why}"


def precision_reached(results: Sequence[Result]) -> PrecisionReached | None:
    """Return the precision that replications reach; None if their scenario asks for none, or there is one run."""
    wanted = results[0].scenario.precision
    if wanted is None or len(results) < 2:
        return None
    from shadowsim.statistics.enough_replications import look  # scipy takes a quarter of a second

    last = look(_figures(results, wanted), wanted.relative)
    why = last.why or ("" if last.reached else f"{len(results):,} are the most that were asked for")
    return PrecisionReached(wanted, last.n, dict(zip(wanted.roles, last.relative, strict=True)), last.reached, why)


def _figures(results: Sequence[Result], wanted: Precision) -> Floats:
    """Return the wanted figure of each run and side, shape (runs, sides)."""
    rows = [result.summary(standard_errors=False).set_index("role")[wanted.figure] for result in results]
    return np.array([[float(row[role]) for role in wanted.roles] for row in rows])


def _run_replication(scenario: Scenario, r: int, advance: Callable[[float], object] = lambda _: None) -> Result:
    return run(replication(scenario, r), advance=advance)


def summarise(results: Sequence[Result], confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Return means over independent runs, with confidence intervals.

    The half-width is Student's: t(n - 1; (1 + confidence) / 2) s / sqrt(n), s the standard deviation between runs
    (Law, Simulation Modeling and Analysis, 2015, eq. 4.12). It holds for means, and for quantiles if the runs are so
    long that their quantiles are about normal. Where a `run.precision` decided their number, 1 - confidence is reduced
    by a fifth, since intervals that are looked at cover less (statistics/enough_replications.py).

    Parameters
    ----------
    results : sequence of Result
        Of one scenario under different seeds.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    DataFrame
        One row per (variant, figure), source first: variant, role, figure (a column of `Result.summary`), mean,
        half_width (NaN for fewer than two runs), n (runs that have the figure), standard_error (likewise).

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 50}
    >>> results = ss.replicate(ss.default_scenario().replace({"traffic": traffic, "horizon_s": 600}), 3)
    >>> means = ss.summarise(results).set_index(["role", "figure"])
    >>> float(means.loc[("source", "mean_s"), "mean"].round(3)), int(means.loc[("source", "mean_s"), "n"])
    (0.02, 3)
    """
    from shadowsim.statistics.enough_replications import ALLOWANCE  # scipy takes a quarter of a second
    from shadowsim.statistics.estimates import critical

    if not 0.0 < confidence < 1.0:
        raise InputError("confidence", "must be > 0 and < 1", confidence)
    if not isinstance(results, list | tuple) or not all(isinstance(result, Result) for result in results):
        raise InputError("results", "must be a list of results, as replicate gives it", results)
    if not results:
        raise InputError("results", "must hold at least one result")
    alpha = (1.0 - confidence) * (1.0 if results[0].scenario.precision is None else ALLOWANCE)
    rows = []
    summaries = pd.concat([x.summary(standard_errors=False) for x in results])
    for (variant, role), part in summaries.groupby(["variant", "role"], sort=False):
        for figure in (*FIGURES, *(name for name in (*EVENT_FIGURES, *TOKEN_FIGURES) if name in part)):
            values = pd.to_numeric(part[figure]).dropna().to_numpy(np.float64)
            n = len(values)
            mean = values.mean() if n else np.nan
            error = values.std(ddof=1) / math.sqrt(n) if n > 1 else np.nan
            half = critical(alpha, n - 1) * error if n > 1 else np.nan
            rows.append((variant, role, figure, float(mean), float(half), n, float(error)))
    return pd.DataFrame(rows, columns=["variant", "role", "figure", "mean", "half_width", "n", "standard_error"])


def worst(results: Sequence[Result]) -> Verdict:
    """Return the gravest verdict of several runs; the first one of several that are equally grave."""
    return max((result.verdict for result in results), key=lambda verdict: STATUSES.index(verdict.status))


def worst_by_variant(results: Sequence[Result]) -> dict[str, str]:
    """Return the gravest status of each variant's pool over several runs."""
    gravest: dict[str, str] = {}
    for result in results:
        for pool in result.verdict.pools:
            gravest[pool.variant] = max(gravest.get(pool.variant, STATUSES[0]), pool.status, key=STATUSES.index)
    return gravest
