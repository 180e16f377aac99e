"""sweep(scenario, grid) -> DataFrame: many scenarios that differ in a few settings, side by side.

All cells have the scenario's seed, and the kernel draws what belongs to a request from its number: so cells see the
same arrivals, and the same service times up to their scale. Differences between cells are then those of the settings
more than those of chance (common random numbers). That makes designs comparable; it says nothing of how precise one
real test would be.
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
from shadowsim.engine.replicate import replication
from shadowsim.engine.simulate import cores, progress_bar, run
from shadowsim.errors import ExecutorError, InputError
from shadowsim.planning.sweep_cache import Cache, Row, key_of
from shadowsim.planning.sweep_grid import Cell, Grid, cells_of, columns_of
from shadowsim.result import Result
from shadowsim.scenario.fields import check_whole
from shadowsim.scenario.paths import plain
from shadowsim.scenario.scenario import MOST_REPLICATIONS, Scenario
from shadowsim.verdict import STATUSES

# What changes no figure of a sweep: equal cells have equal keys, and no run gathers requests that nobody looks at.
_NO_FIGURE = {"run.sample_requests": 0, "run.replications": 1}


@dataclass(frozen=True, slots=True)
class Task:
    """A run of a cell, small enough to be sent anywhere.

    Attributes
    ----------
    number : int
        Its place among all runs of the sweep.
    name : str
        What errors call it.
    document : str
        The cell's scenario as JSON text.
    base_dir : Path
        What the scenario's file paths are relative to.
    replication : int or None
        Which replication of the cell; None for the scenario under its own seed.
    key : str
        What the run is called in a cache.
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
        What all cells share; a plain CreateInferenceExperiment request needs `rate_per_s`.
    grid : mapping of str to list, or list of mappings
        Values by path, as `Scenario.replace` takes them: every combination is a cell, the last path varying fastest. Or
        the cells themselves, each a mapping of paths to values.
    executor : concurrent.futures.Executor, optional
        Runs the cells instead of threads: a ProcessPoolExecutor, or a Dask client's `get_executor()`. Its workers need
        the same version of this package, and the same data files under the same names.
    replications : int, optional
        How often each cell is run; by default the scenario's `run.replications`. A single run has the scenario's own
        seed, as `simulate` has; of several, run r is `replication(cell, r)`, with the same seed in all cells.
    cache : path, optional
        A directory that keeps the rows of finished runs, and is made if it is missing: a run that is found there is not
        run again, whichever sweep left it. Several processes may share it.
    rate_per_s : float, optional
        Mean rate of the scenario's traffic, in requests a second.
    workers : int, optional
        On how many threads, by default one a core; for an executor, how many runs it is given at a time, by default
        256.
    progress : bool
        Show a progress bar over runs.

    Returns
    -------
    DataFrame
        A row a (cell, replication, variant), in the order of the grid, source first, the same bits whoever ran it. The
        grid's paths, where objects and lists are shown as text (`law=exponential mean_s=0.02`); replication; variant
        and the columns of `Result.summary`, of which one named as a path of the grid gets `achieved_` before its name;
        run_verdict (the graver of both pools').

    Raises
    ------
    InputError
        Before anything is run, when the scenario or an argument cannot be used, or a cell of the grid, which it names;
        later, when the cache cannot be written, or a worker sees other data files or another version of this package.
    ExecutorError
        When the executor is broken, as a ProcessPoolExecutor is once one of its processes has died, or runs keep losing
        their workers. It says how many runs are kept in the cache; another sweep goes on from there.
    KeyboardInterrupt
        What is running on threads is given up; finished runs are in the cache.
    """
    if workers is not None:
        check_whole(workers, "workers", 1)
    base = Scenario.of(scenario, rate_per_s=rate_per_s)
    n = base.replications if replications is None else replications
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST_REPLICATIONS:
        raise InputError("replications", f"must be an integer from 1 to {MOST_REPLICATIONS}", n)
    cells = cells_of(base.replace(_NO_FIGURE), grid)
    kept = None if cache is None else Cache.open(cache)
    tasks = _tasks(cells, n, base.base_dir.resolve())
    found: list[list[Row]] = [[]] * (len(cells) * n)
    with progress_bar(len(found), progress, "runs") as advance:

        def done(task: Task, rows: list[Row]) -> None:
            if kept is not None:
                kept.put(task.key, rows)
            found[task.number] = rows
            advance(1)

        def missing() -> Iterator[Task]:
            for task in tasks:  # looked up late: another process may have finished it in the meantime
                rows = None if kept is None else kept.get(task.key)
                if rows is None:
                    yield task
                else:
                    found[task.number] = rows
                    advance(1)

        at_once = workers or (cores() if executor is None else IN_FLIGHT)
        try:
            work_off(run_task, missing(), done, workers=at_once, executor=executor)
        except ExecutorError as error:
            raise ExecutorError(f"{error}; {_kept_text(found, kept)}") from error
        except BaseException as error:
            error.add_note(_kept_text(found, kept))
            raise
    return _frame(columns_of(base, cells), n, found)


def run_task(task: Task, advance: Callable[[int], object] = lambda _: None) -> list[Row]:
    """Run a task, wherever it was sent, and return its rows: one a variant, source first."""
    try:
        scenario = Scenario.from_dict(json.loads(task.document), task.base_dir)
        if key_of(task.document, task.base_dir, task.replication) != task.key:
            what = (
                "its worker has another version of shadowsim than the sweep, or other data files under the same names"
            )
            raise InputError("executor", what)
        whole = scenario if task.replication is None else replication(scenario, task.replication)
        return _rows(run(whole, advance=advance))
    except InputError as error:
        raise InputError("grid", f"{task.name}: {error}") from error
    except Exception as error:
        error.add_note(f"in {task.name}")
        raise


def _tasks(cells: Sequence[Cell], n: int, base_dir: Path) -> Iterator[Task]:
    for i, cell in enumerate(cells):
        for r in range(n):
            which = None if n == 1 else r
            name = cell.name if which is None else f"{cell.name}, replication {r}"
            key = key_of(cell.document, base_dir, which)
            yield Task(i * n + r, name, cell.document, base_dir, which, key)


def _rows(result: Result) -> list[Row]:
    """Return the summary as plain values, None for what is missing, so that they survive JSON to the bit."""
    summary = result.summary().reset_index()
    summary["run_verdict"] = max(summary["verdict"], key=STATUSES.index)
    return [
        {str(name): None if pd.isna(value) else cast(str | int | float, plain(value)) for name, value in row.items()}
        for row in summary.to_dict("records")
    ]


def _frame(settings: Mapping[str, Sequence[object]], n: int, found: Sequence[Sequence[Row]]) -> pd.DataFrame:
    """Put the rows of all runs under each other, each behind its cell's settings."""
    runs = [(i, row) for i, rows in enumerate(found) for row in rows]
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


def _kept_text(found: Sequence[Sequence[Row]], kept: Cache | None) -> str:
    n = f"{sum(map(bool, found)):,} of {len(found):,} runs were finished"
    if kept is None:
        return f"{n} and are lost, as sweep was given no cache"
    return f"{n} and are kept in {kept.directory}: the same sweep with that cache goes on from there"
