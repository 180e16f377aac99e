"""Puts a live shadow test beside its simulation and beside what its callers measured: `rehearsal`.

Three questions have their answers side by side. How does the live shadow differ from the live source? Do both do what
the simulation says? And what of it did the callers see? Latencies of live and simulated variants are ModelLatency, the
callers' count from the planned time of a request to its last byte.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from shadowsim import frames
from shadowsim.errors import InputError
from shadowsim.frames import ROLES
from shadowsim.measuring.generator.load_run import LoadRun
from shadowsim.option_defaults import PAGE_IN_RUN
from shadowsim.planning.run_comparison import compare_runs
from shadowsim.result import Result
from shadowsim.statistics.comparison import compare
from shadowsim.statistics.sections import frames_of, is_complete
from shadowsim.statistics.terms import CONFIDENCE, MARGIN_PCT, MARGIN_POINTS

AS_SIMULATED, DIFFERS, CANNOT_TELL = "as simulated", "not as simulated", "cannot tell"
HIGHER, LOWER, UNDECIDED = "higher than simulated", "lower than simulated", "undecided"
NEEDED = ("mean", "p50", "p90", "p95")
JUDGED = (*NEEDED, "p99")
CALLERS = "callers"
FIGURES = ("requests", *(name for name in JUDGED), "error_rate")
_LEAST_BEYOND = 5  # requests beyond the last point of a curve
_DEPTHS = (*(i / 50.0 for i in range(1, 48)), 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)


@dataclass(frozen=True, slots=True, eq=False)
class LiveRehearsal:
    """A live shadow test, its simulation, and what its callers measured; `str()` gives a report.

    Attributes
    ----------
    live, simulated : Result
        The live one has the simulation's scenario.
    load : LoadRun or None
        What the callers measured.
    figures : DataFrame
        A row per figure (requests; mean, p50, p90, p95, p99 of latency in seconds; error_rate as a share), and the
        columns callers (where known), live_source, simulated_source, live_shadow, simulated_shadow.
    comparison : DataFrame
        The live shadow compared with the live source: the frame of `compare`.
    against_simulation : DataFrame
        Each live variant compared with the simulated one: the frame of `compare_runs` with the simulation as its
        baseline, and the column `agreement`: "as simulated" where the interval of the difference lies within the
        margin, "higher" or "lower than simulated" where it lies beyond it, else "undecided".
    """

    live: Result = field(repr=False)
    simulated: Result = field(repr=False)
    load: LoadRun | None = field(repr=False)
    figures: pd.DataFrame = field(repr=False)
    comparison: pd.DataFrame = field(repr=False)
    against_simulation: pd.DataFrame = field(repr=False)

    @property
    def verdicts(self) -> dict[str, str]:
        """Whether the live "source" and "shadow" are as simulated: "as simulated", "not as simulated", "cannot tell".

        One of the mean, p50, p90, p95 and p99 that differs by more than the margin makes a variant not as simulated; to
        be as simulated, all of these but p99 must have been shown not to.
        """
        return {role: _verdict(dict(zip(p["metric"], p["agreement"], strict=True))) for role, p in self._roles()}

    def _roles(self) -> list[tuple[str, pd.DataFrame]]:
        table = self.against_simulation[self.against_simulation["metric"].isin(JUDGED)]
        return [(role, table[table["role"] == role]) for role in ROLES]

    @property
    def lost(self) -> dict[str, int]:
        """Numbers of copies that the live server lost, by cause; those that lost any."""
        shadow = self.live.windows[self.live.windows["role"] == "shadow"]
        names = [name for name in shadow.columns if name.startswith("copies_lost_")]
        counts = {name.removeprefix("copies_lost_"): int(shadow[name].fillna(0).sum()) for name in names}
        return {cause: n for cause, n in counts.items() if n}

    @property
    def curves(self) -> pd.DataFrame:
        """Quantiles of latency at many depths: `of` (callers, live_source, ...), `depth`, `latency_s`."""
        parts = []
        for of, latency in self._latencies().items():
            n = int(latency["count"].sum())
            depths = [p for p in _DEPTHS if (1.0 - p) * n >= _LEAST_BEYOND]
            if depths:
                values = frames.quantiles(latency, depths).to_numpy(np.float64)[0]
                parts.append(pd.DataFrame({"of": of, "depth": depths, "latency_s": values}))
        return pd.concat(parts, ignore_index=True)

    def _latencies(self) -> dict[str, pd.DataFrame]:
        latencies = {} if self.load is None else {CALLERS: self.load.latency}
        for role in ROLES:
            for kind, run in (("live", self.live), ("simulated", self.simulated)):
                latencies[f"{kind}_{role}"] = run.latency[run.latency["role"] == role]
        return latencies

    def report(self, path: str | os.PathLike[str] = PAGE_IN_RUN) -> Path:
        """Write everything as one self-contained HTML page, and return its path."""
        # Imported by name: report/ imports this module.
        return cast(Path, import_module("shadowsim.report.rehearsal_page").write(self, path))

    def __repr__(self) -> str:
        source, shadow = self.verdicts.values()
        return f"<LiveRehearsal of {self.simulated.scenario.experiment.name}: source {source}, shadow {shadow}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        return str(import_module("shadowsim.report.rehearsal_text").rehearsal_text(self))


def rehearsal(
    live: object,
    simulated: Result | str | os.PathLike[str],
    load: LoadRun | str | os.PathLike[str] | None = None,
    *,
    margin_pct: float = MARGIN_PCT,
    margin_points: float = MARGIN_POINTS,
    confidence: float = CONFIDENCE,
) -> LiveRehearsal:
    """Put a live shadow test beside its simulation and beside what its callers measured.

    Parameters
    ----------
    live : mapping or path
        The frames `windows`, `latency` and `requests` of a live experiment, as the server gives them under
        /shadowsim/experiments/NAME/, or a directory with their Parquet files.
    simulated : Result or path
        The run that `simulate` made of the scenario, also a directory. It should keep all requests
        (`run.sample_requests`), since short runs are compared by them.
    load : LoadRun or path, optional
        The load run that sent the live requests. Where it has the simulation's traffic, seed and horizon, both have
        the same arrivals, and differ by less.
    margin_pct, margin_points, confidence
        As for `compare`.

    Raises
    ------
    InputError
        When something cannot be used: a frame is missing, or the variants are not those of the simulation.

    Examples
    --------
    >>> import shadowsim as ss
    >>> scenario = ss.default_scenario().replace({"horizon_s": 600, "run.sample_requests": 100_000})
    >>> run = ss.simulate(scenario, rate_per_s=20)
    >>> live = {"windows": run.windows, "latency": run.latency, "requests": run.requests}
    >>> ss.rehearsal(live, run)
    <LiveRehearsal of built-in: source as simulated, shadow as simulated>
    """
    simulation = simulated if isinstance(simulated, Result) else Result.load(simulated)
    callers = load if load is None or isinstance(load, LoadRun) else LoadRun.load(load)
    terms: dict[str, Any] = {"margin_pct": margin_pct, "margin_points": margin_points, "confidence": confidence}
    [held] = frames_of(live)
    missing = [name for name in frames.SCHEMAS if name not in held]
    if missing:
        raise InputError("live", f"must have requests in all three frames; without any: {', '.join(missing)}")
    names = {role: simulation.scenario.side(role).variant.name for role in ROLES}
    for role, name in names.items():
        others = set(held["requests"].loc[held["requests"]["role"] == role, "variant"]) - {name}
        if others:
            raise InputError("live", f"must have the simulation's {role}, {name}", sorted(others)[0])
    scenario = simulation.scenario
    if callers is None or not _same_traffic(callers, simulation):
        scenario = replace(scenario, seed=scenario.seed + 1)  # other arrivals
    run = Result(scenario, held["windows"], held["latency"], held["requests"])
    comparison = compare(held, **terms)
    # a server's windows are minutes: few for a short test, whose single requests tell more
    by_requests = all("requests" in one and is_complete(one) for one in (held, *frames_of(simulation)))
    against = compare_runs(run, simulation, method="requests" if by_requests else None, **terms)
    against["agreement"] = against.apply(_agreement, axis=1)
    return LiveRehearsal(run, simulation, callers, _figures(comparison, against, callers), comparison, against)


def _same_traffic(load: LoadRun, simulation: Result) -> bool:
    sent, played = load.scenario, simulation.scenario
    return (sent.seed, sent.horizon_s, sent.document["traffic"]) == (
        played.seed,
        played.horizon_s,
        played.document["traffic"],
    )


def _figures(comparison: pd.DataFrame, against: pd.DataFrame, load: LoadRun | None) -> pd.DataFrame:
    """Return the frame `LiveRehearsal.figures`."""
    columns: dict[str, list[float]] = {} if load is None else {CALLERS: _of_callers(load)}
    live = comparison.set_index("metric")
    for role in ROLES:
        simulated = against[against["role"] == role].set_index("metric")
        columns[f"live_{role}"] = _column(live, role, f"n_{role}")
        columns[f"simulated_{role}"] = _column(simulated, "baseline", "n_baseline")
    return pd.DataFrame(columns, index=pd.Index(FIGURES, name="figure"))


def _of_callers(load: LoadRun) -> list[float]:
    times = load.times()
    quantiles = [load.quantile(frames.PERCENTILES[name]) for name in JUDGED[1:]]
    return [float(len(load.counted)), float(times.mean()) if times.size else np.nan, *quantiles, load.error_rate]


def _column(table: pd.DataFrame, value: str, n: str) -> list[float]:
    n_requests = float(table[n].max()) if len(table) else 0.0
    return [n_requests, *(float(cast(Any, table[value].get(name, np.nan))) for name in FIGURES[1:])]


def _agreement(row: pd.Series[Any]) -> str:
    if row["low"] > row["margin"]:
        return HIGHER
    if row["high"] < -row["margin"]:
        return LOWER
    return AS_SIMULATED if row["low"] >= -row["margin"] and row["high"] <= row["margin"] else UNDECIDED


def _verdict(agreements: dict[str, str]) -> str:
    if {HIGHER, LOWER} & set(agreements.values()):
        return DIFFERS
    return AS_SIMULATED if all(agreements.get(name) == AS_SIMULATED for name in NEEDED) else CANNOT_TELL
