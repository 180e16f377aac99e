"""What pytest-benchmark saved: timings of code by the name of the benchmark, from one file or from several of them.

`--benchmark-json` writes every round, `--benchmark-save` and `--benchmark-autosave` only with `--benchmark-save-data`;
otherwise there are quartiles. Of several files each is a run, and a benchmark's median in each is one observation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shadowsim.errors import InputError, kind, shown
from shadowsim.json_files import read_json
from shadowsim.scenario.fields import number
from shadowsim.statistics.samples import Floats

Source = Mapping[str, Any] | str | os.PathLike[str]

# What `shadow_benchmark` writes into extra_info and no clock has a part in.
SIMULATED = (
    *("scenario", "verdict", "requests", "source_p50_s", "source_p99_s", "shadow_p50_s", "shadow_p99_s"),
    *("instances_usd", "total_usd"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """What is known of one benchmark.

    Attributes
    ----------
    n : int
        Rounds of one file, or files.
    median_s, range_s : float
        Their median, and the range between their quartiles.
    observed_s : ndarray of float64, shape (n,), or None
        Seconds of an iteration: in each round, where the file has them, or the median of each file.
    simulated : mapping
        Figures of `SIMULATED` in its extra_info, of the last file.
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
        A single one's observations are rounds.
    machines : tuple of str
        On which it ran, in words; those that differ.
    """

    by_name: Mapping[str, Timing]
    n_files: int
    machines: tuple[str, ...]


def read_timings(source: Source | Sequence[Source], name: str = "benchmarks") -> Timings:
    """Read what pytest-benchmark wrote.

    Parameters
    ----------
    source : path, JSON text, mapping, or a list of these
        A file; a directory, of which all files *.json are read, each a run; or runs one by one.
    name : str
        What messages call a source that is not a file.

    Raises
    ------
    InputError, SerializationError
        When it cannot be read, or is none of pytest-benchmark's.
    """
    sources = _files(source, name)
    found: dict[str, list[Timing]] = {}
    machines: dict[str, None] = {}
    for one in sources:
        where = shown(one) if isinstance(one, os.PathLike) else name
        document = read_json(one, name, non_finite=True)
        if not isinstance(document.get("benchmarks"), list):
            raise InputError(where, "must be a file of pytest-benchmark (--benchmark-json), which lists `benchmarks`")
        machines |= dict.fromkeys(_machine(document.get("machine_info")))
        for title, timing in _benchmarks(document["benchmarks"], where).items():
            found.setdefault(title, []).append(timing)
    several = len(sources) > 1
    by_name = {title: _joined(runs) if several else runs[0] for title, runs in found.items()}
    return Timings(by_name, len(sources), tuple(machines))


def _files(source: Source | Sequence[Source], name: str) -> Sequence[Source]:
    if isinstance(source, (list, tuple)):
        if not source:
            raise InputError(name, "must hold at least one file")
        return source
    if not isinstance(source, Mapping | str | os.PathLike):
        raise InputError(
            name, f"must be a file of pytest-benchmark, a directory of several or a list, not {kind(source)}"
        )
    if isinstance(source, Mapping) or not os.path.isdir(source):
        return [source]
    files = sorted(Path(source).glob("*.json"))
    if not files:
        raise InputError(shown(source), "holds no file *.json")
    return files


def _benchmarks(listed: Sequence[Any], where: str) -> dict[str, Timing]:
    found: dict[str, Timing] = {}
    for i, benchmark in enumerate(listed):
        at = f"{where}: benchmarks.{i}"
        if not isinstance(benchmark, Mapping) or not isinstance(benchmark.get("fullname"), str):
            raise InputError(f"{at}.fullname", "must be a string")
        if benchmark["fullname"] in found:
            raise InputError(f"{at}.fullname", "stands twice in the file", benchmark["fullname"])
        found[benchmark["fullname"]] = _timing(benchmark, at)
    return found


def _timing(benchmark: Mapping[str, Any], at: str) -> Timing:
    known, extra = benchmark.get("stats"), benchmark.get("extra_info")
    if not isinstance(known, Mapping):
        raise InputError(f"{at}.stats", "must be an object")
    simulated = {key: extra[key] for key in SIMULATED if key in extra} if isinstance(extra, Mapping) else {}
    rounds = known.get("data")
    if isinstance(rounds, list) and rounds:
        return _observed(np.array([number(x, f"{at}.stats.data", least=0.0) for x in rounds]), simulated)
    n = number(known.get("rounds"), f"{at}.stats.rounds", least=1.0)
    median, spread = (number(known.get(key), f"{at}.stats.{key}", least=0.0) for key in ("median", "iqr"))
    return Timing(int(n), median, spread, None, simulated)


def _joined(runs: Sequence[Timing]) -> Timing:
    """Several runs of a benchmark: one observation each."""
    return _observed(np.array([run.median_s for run in runs]), runs[-1].simulated)


def _observed(seconds: Floats, simulated: Mapping[str, object]) -> Timing:
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return Timing(seconds.size, float(middle), float(high - low), seconds, simulated)


def _machine(info: object) -> list[str]:
    if not isinstance(info, Mapping):
        return []
    cpu = info.get("cpu")
    brand = cpu.get("brand_raw") if isinstance(cpu, Mapping) else None
    python = info.get("python_version")
    parts = (info.get("node"), brand or info.get("machine"), f"Python {python}" if python else None)
    return [", ".join(str(part) for part in parts if part)]
