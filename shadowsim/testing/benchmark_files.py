"""Reads the timings that pytest-benchmark saved, from one file or several, by benchmark.

`--benchmark-json` writes every round; `--benchmark-save` and `--benchmark-autosave` do so only with
`--benchmark-save-data`, and otherwise write quartiles. Each of several files is a run, and a benchmark's median in it
is one observation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.errors import InputError, json_kind, shown
from shadowsim.json_files import read_json
from shadowsim.quantities import number

Source = Mapping[str, Any] | str | os.PathLike[str]

# The figures in extra_info that `shadow_benchmark` takes from the simulation, independent of any clock.
SIMULATED = (
    *("scenario", "verdict", "requests", "source_p50_s", "source_p99_s", "shadow_p50_s", "shadow_p99_s"),
    *("instances_usd", "total_usd"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """The timings of one benchmark.

    Attributes
    ----------
    n : int
        The number of rounds of one file, or of files.
    median_s, range_s : float
        Their median, and the range between their quartiles.
    observed_s : ndarray of float64, shape (n,), or None
        Seconds per iteration: of each round, if the file has them, or the median of each file.
    simulated : mapping
        The figures of `SIMULATED` in its extra_info, from the last file.
    """

    n: int
    median_s: float
    range_s: float
    observed_s: Floats | None
    simulated: Mapping[str, object]


@dataclass(frozen=True, slots=True, eq=False)
class Timings:
    """Timings by the full name of the benchmark.

    Attributes
    ----------
    by_name : mapping of str to Timing
    n_files : int
        The observations of a single file are rounds, those of several files are medians.
    machines : tuple of str
        The distinct machines that it ran on, in words.
    """

    by_name: Mapping[str, Timing]
    n_files: int
    machines: tuple[str, ...]


def read_timings(source: Source | Sequence[Source], name: str = "benchmarks") -> Timings:
    """Read files of pytest-benchmark.

    Parameters
    ----------
    source : path, JSON text, mapping, or a list of these
        A file, a directory whose files *.json are one run each, or a list of runs.
    name : str
        The name in messages of a source that is not a file.

    Raises
    ------
    InputError, SerializationError
        A file cannot be read, or is not a file of pytest-benchmark.
    """
    sources = _files(source, name)
    runs_by_name: dict[str, list[Timing]] = {}
    machines: dict[str, None] = {}
    for run in sources:
        path = shown(run) if isinstance(run, os.PathLike) else name
        document = read_json(run, name, non_finite=True)
        if not isinstance(document.get("benchmarks"), list):
            raise InputError(path, "must be a file of pytest-benchmark (--benchmark-json), which lists `benchmarks`")
        machines |= dict.fromkeys(_machine_names(document.get("machine_info")))
        for title, timing in _benchmarks(document["benchmarks"], path).items():
            runs_by_name.setdefault(title, []).append(timing)
    several = len(sources) > 1
    by_name = {title: _timing_of_runs(runs) if several else runs[0] for title, runs in runs_by_name.items()}
    return Timings(by_name, len(sources), tuple(machines))


def _files(source: Source | Sequence[Source], name: str) -> Sequence[Source]:
    if isinstance(source, (list, tuple)):
        if not source:
            raise InputError(name, "must hold at least one file")
        return source
    if not isinstance(source, Mapping | str | os.PathLike):
        raise InputError(
            name, f"must be a file of pytest-benchmark, a directory of several or a list, not {json_kind(source)}"
        )
    if isinstance(source, Mapping) or not os.path.isdir(source):
        return [source]
    files = sorted(Path(source).glob("*.json"))
    if not files:
        raise InputError(shown(source), "holds no file *.json")
    return files


def _benchmarks(benchmarks: Sequence[Any], path: str) -> dict[str, Timing]:
    by_name: dict[str, Timing] = {}
    for i, benchmark in enumerate(benchmarks):
        item = f"{path}: benchmarks.{i}"
        if not isinstance(benchmark, Mapping) or not isinstance(benchmark.get("fullname"), str):
            raise InputError(f"{item}.fullname", "must be a string")
        if benchmark["fullname"] in by_name:
            raise InputError(f"{item}.fullname", "occurs twice in the file", benchmark["fullname"])
        by_name[benchmark["fullname"]] = _timing(benchmark, item)
    return by_name


def _timing(benchmark: Mapping[str, Any], path: str) -> Timing:
    stats, extra = benchmark.get("stats"), benchmark.get("extra_info")
    if not isinstance(stats, Mapping):
        raise InputError(f"{path}.stats", "must be an object")
    simulated = {key: extra[key] for key in SIMULATED if key in extra} if isinstance(extra, Mapping) else {}
    rounds = stats.get("data")
    if isinstance(rounds, list) and rounds:
        return _timing_of(np.array([number(x, f"{path}.stats.data", least=0.0) for x in rounds]), simulated)
    n = number(stats.get("rounds"), f"{path}.stats.rounds", least=1.0)
    median, spread = (number(stats.get(key), f"{path}.stats.{key}", least=0.0) for key in ("median", "iqr"))
    return Timing(int(n), median, spread, None, simulated)


def _timing_of_runs(runs: Sequence[Timing]) -> Timing:
    """Return a benchmark's timing over several runs, one observation per run."""
    return _timing_of(np.array([run.median_s for run in runs]), runs[-1].simulated)


def _timing_of(seconds: Floats, simulated: Mapping[str, object]) -> Timing:
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return Timing(seconds.size, float(middle), float(high - low), seconds, simulated)


def _machine_names(info: object) -> list[str]:
    if not isinstance(info, Mapping):
        return []
    cpu = info.get("cpu")
    brand = cpu.get("brand_raw") if isinstance(cpu, Mapping) else None
    python = info.get("python_version")
    parts = (info.get("node"), brand or info.get("machine"), f"Python {python}" if python else None)
    return [", ".join(str(part) for part in parts if part)]
