"""Simulates many scenarios that differ in a few settings, and returns their results side by side.

All cells have the scenario's seed, and the kernel draws what belongs to a request from its number. So cells see the
same arrivals, and the same service times up to their scale, and their differences come from the settings more than from
chance (common random numbers). That makes designs comparable; it does not show how precise one real test would be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from shadowsim.engine.executors import IN_FLIGHT, work_off
from shadowsim.engine.progress import print_notice, progress_bar
from shadowsim.engine.replicate import replication
from shadowsim.engine.simulate import announce_runs, compile_for, cores, run
from shadowsim.errors import ExecutorError, InputError
from shadowsim.planning.sweep_cache import Cache, Row, key_of
from shadowsim.planning.sweep_grid import Cell, Grid, cells_of, columns_of
from shadowsim.quantities import integer
from shadowsim.result import Result
from shadowsim.scenario.paths import plain
from shadowsim.scenario.precision import MOST_REPLICATIONS
from shadowsim.scenario.scenario import Scenario
from shadowsim.verdict import STATUSES, UNCERTAIN

# These settings change no figure of a sweep. With fixed values equal cells have equal keys, and no run keeps requests.
_CELLS_TO_ANNOUNCE = 50
_WITHOUT_EFFECT = {"run.sample_requests": 0, "run.replications": 1, "run.precision": None}


@dataclass(frozen=True, slots=True)
class Task:
    """A run of a cell, small enough to be sent to another process or machine.

    Attributes
    ----------
    number : int
        Position among all runs of the sweep.
    name : str
        The run's name in errors.
    document : str
        The cell's scenario as JSON text.
    base_dir : Path
        Directory that the scenario's file paths are relative to.
    replication : int or None
        Number of the replication of the cell; None for the scenario under its own seed.
    key : str
        The run's name in a cache.
    """

    number: int
    name: str
    document: str
    base_dir: Path
    replication: int | None
    key: str


def sweep(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    grid: Grid,
    executor: Executor | None = None,
    replications: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    *,
    rate_per_s: float | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Simulate every cell of a grid.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        The scenario that the cells change; a plain CreateInferenceExperiment request needs `rate_per_s`.
    grid : mapping of str to list, or list of mappings
        Lists of values by path, as `Scenario.replace` takes them: every combination is a cell, and the last path varies
        fastest. Or the cells themselves, each a mapping of paths to values.
    executor : concurrent.futures.Executor, optional
        Runs the cells instead of threads: a ProcessPoolExecutor, or a Dask client's `get_executor()`. Its workers need
        the same version of this package, and the same data files under the same names.
    replications : int, optional
        Runs per cell; by default the scenario's `run.replications`. A single run has the scenario's own
        seed, as `simulate` has; of several, run r is `replication(cell, r)`, with the same seed in all cells.
    cache : path, optional
        A directory that keeps the rows of finished runs; it is created if it is missing. A run whose rows are there is
        not repeated, whichever sweep left them. Several processes may share the directory.
    rate_per_s : float, optional
        Mean rate of the scenario's traffic, in requests per second.
    workers : int, optional
        Number of threads, by default one per core; for an executor, the number of runs that it is given at a time, by
        default 256.
    progress : bool
        Show a progress bar over runs.

    Returns
    -------
    DataFrame
        One row per (cell, replication, variant), in the order of the grid, source first, with the same bits on any
        number of threads and any executor. The columns are the grid's paths, where objects and lists are shown as text
        (`law=exponential mean_s=0.02`); replication; variant and the columns of `Result.summary`, where one with the
        name of a grid's path is prefixed with `achieved_`; run_verdict (the worse of both pools' verdicts);
        uncertain (the quantiles that say little of a longer run, as `p99_s, p99_9_s`: texts, pages and figures leave
        them out).

    Raises
    ------
    InputError
        Before anything is run, when the scenario, an argument, or a cell of the grid (which is named) cannot be used;
        later, when the cache cannot be written, or a worker sees other data files or another version of this package.
    ExecutorError
        When the executor is broken, as a ProcessPoolExecutor is once one of its processes has died, or runs keep losing
        their workers. The message says how many runs are kept in the cache; another sweep continues from there.
    KeyboardInterrupt
        Unfinished runs on threads are abandoned; finished runs are in the cache.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 50}
    >>> scenario = ss.default_scenario().replace({"traffic": traffic, "horizon_s": 600})
    >>> rows = ss.sweep(scenario, {"sampling_percentage": [10, 100], "shadow.instance_count": [1, 2]})
    >>> rows[rows["role"] == "shadow"][["sampling_percentage", "shadow.instance_count"]].to_numpy().tolist()
    [[10, 1], [10, 2], [100, 1], [100, 2]]
    """
    if workers is not None:
        integer(workers, "workers", least=1)
    base = Scenario.of(scenario, rate_per_s=rate_per_s)
    n = base.replications if replications is None else replications
    integer(n, "replications", least=1, most=MOST_REPLICATIONS)
    cells = cells_of(base.replace(_WITHOUT_EFFECT), grid)
    row_cache = None if cache is None else Cache.open(cache)
    tasks = _tasks(cells, n, base.base_dir.resolve())
    rows_of_runs: list[list[Row]] = [[]] * (len(cells) * n)
    if progress and executor is None:
        for cell in (cells[0], cells[-1]):  # the ends of each axis; another kind between them compiles on the way
            compile_for(Scenario.from_dict(json.loads(cell.document), base.base_dir), print_notice)
        # of a large grid some cells stand for all
        some = cells[:: max(1, len(cells) // _CELLS_TO_ANNOUNCE)]
        scenarios = [Scenario.from_dict(json.loads(cell.document), base.base_dir) for cell in some]
        announce_runs(scenarios, round(n * len(cells) / len(some)))
    with progress_bar(len(rows_of_runs), progress, "runs") as advance:

        def done(task: Task, rows: list[Row]) -> None:
            if row_cache is not None:
                row_cache.put(task.key, rows)
            rows_of_runs[task.number] = rows
            advance(1)

        def missing() -> Iterator[Task]:
            for task in tasks:  # looked up only now, since another process may have finished it in the meantime
                rows = None if row_cache is None else row_cache.get(task.key)
                if rows is None:
                    yield task
                else:
                    rows_of_runs[task.number] = rows
                    advance(1)

        at_once = workers or (cores() if executor is None else IN_FLIGHT)
        try:
            work_off(run_task, missing(), done, workers=at_once, executor=executor)
        except ExecutorError as error:
            raise ExecutorError(f"{error}; {_kept_text(rows_of_runs, row_cache)}") from error
        except BaseException as error:
            error.add_note(_kept_text(rows_of_runs, row_cache))
            raise
    return _frame(columns_of(base, cells), n, rows_of_runs)


def run_task(task: Task, advance: Callable[[float], object] = lambda _: None) -> list[Row]:
    """Run a task in the process that it was sent to, and return its rows: one per variant, source first."""
    try:
        scenario = Scenario.from_dict(json.loads(task.document), task.base_dir)
        if key_of(task.document, task.base_dir, task.replication) != task.key:
            what = (
                "its worker has another version of shadowsim than the sweep, or other data files under the same names"
            )
            raise InputError("executor", what)
        if task.replication is not None:
            scenario = replication(scenario, task.replication)
        return _rows(run(scenario, advance=advance))
    except InputError as error:
        raise InputError("grid", f"{task.name}: {error}") from error
    except Exception as error:
        error.add_note(f"in {task.name}")
        raise


def _tasks(cells: Sequence[Cell], n: int, base_dir: Path) -> Iterator[Task]:
    for i, cell in enumerate(cells):
        for r in range(n):
            number = None if n == 1 else r
            name = cell.name if number is None else f"{cell.name}, replication {r}"
            key = key_of(cell.document, base_dir, number)
            yield Task(i * n + r, name, cell.document, base_dir, number, key)


def _rows(result: Result) -> list[Row]:
    """Return the summary as plain values, with None for missing ones, so that JSON keeps every bit."""
    summary = result.summary(standard_errors=False).reset_index()
    summary["run_verdict"] = max(summary["verdict"], key=STATUSES.index)
    uncertain = result.uncertain
    summary[UNCERTAIN] = [", ".join(c for c in summary if c in uncertain[str(v)]) for v in summary["variant"]]
    return [
        {str(name): None if pd.isna(value) else cast(str | int | float, plain(value)) for name, value in row.items()}
        for row in summary.to_dict("records")
    ]


def _frame(settings: Mapping[str, Sequence[object]], n: int, rows_of_runs: Sequence[Sequence[Row]]) -> pd.DataFrame:
    """Stack the rows of all runs, each after its cell's settings."""
    runs = [(i, row) for i, rows in enumerate(rows_of_runs) for row in rows]
    columns: dict[str, Any] = {path: [values[i // n] for i, _ in runs] for path, values in settings.items()}
    columns["replication"] = [i % n for i, _ in runs]
    for name in runs[0][1]:
        values: list[Any] = [row[name] for _, row in runs]
        if name == "captured_bytes":  # a count that may be missing
            columns[name] = pd.array(values, dtype="Int64")
        else:
            columns[f"achieved_{name}" if name in settings else name] = [
                float("nan") if v is None else v for v in values
            ]
    return pd.DataFrame(columns)


def _kept_text(rows_of_runs: Sequence[Sequence[Row]], row_cache: Cache | None) -> str:
    finished = f"{sum(map(bool, rows_of_runs)):,} of {len(rows_of_runs):,} runs were finished"
    if row_cache is None:
        return f"{finished} and are lost, since sweep was given no cache"
    return f"{finished} and are kept in {row_cache.directory}: the same sweep with that cache continues from there"
