"""Holds what a load run measured: frames and scenario, how it was sent, the verdict on the generator.

A saved run is a directory with the files of `Result.save`, `load.json`, and `tokens.parquet` where answers came as
streams. Its figures count every request from its planned time, and take them one by one, without buckets.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shadowsim import frames
from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.json_files import path_of, read_json
from shadowsim.measuring.generator.load_frames import time_per_token_s
from shadowsim.measuring.generator.saturation import GeneratorVerdict
from shadowsim.measuring.measurement import Measurement
from shadowsim.option_defaults import PAGE_IN_RUN
from shadowsim.planning.slo import Goal, Slo, parse_slo
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario

FORM = "shadowsim load run"
_NO_ERROR = ("answered", "cut")
_MEASURED = ("quantile", "mean", "share_latency", "error_rate", "goodput")
_KEPT = (  # columns of `Measurement.requests` that the frame has under the same names
    "arrival_s", "latency_s", "status", "sent_s", "first_byte_s", "done_s", "first_token_s", "prompt_tokens",
    "output_tokens", "request_bytes", "response_bytes", "inference_id", "stage", "in_flight_limit",
)  # fmt: skip
_LACKS: tuple[str, ...] = (
    "Waits and service times are not apart: the service is seen from outside, and its latency is their sum.",
    "Which instance answered is not known.",
)


@dataclass(frozen=True, slots=True, eq=False)
class LoadRun:
    """What a load run measured.

    Attributes
    ----------
    scenario : Scenario
        Gives the traffic; its services are no more than place holders where nothing else is known.
    windows, latency, requests : DataFrame
        Frames of the schemas `frames.WINDOWS`, `frames.LATENCY` and `frames.REQUESTS` with the columns of load runs.
        All rows are the source's.
    about : mapping
        `load.json`: target, limits, what was asked and achieved, stages, causes of failures, and the verdict.
    tokens : DataFrame or None
        Of the schema `frames.LOAD_TOKENS`: when each token of the streamed answers came, of the first four million;
        None without streams.

    Examples
    --------
    >>> import shadowsim as ss
    >>> ss.LoadRun.load("missing")
    Traceback (most recent call last):
    shadowsim.errors.InputError: missing: ...
    """

    scenario: Scenario
    windows: pd.DataFrame = field(repr=False)
    latency: pd.DataFrame = field(repr=False)
    requests: pd.DataFrame = field(repr=False)
    about: Mapping[str, Any] = field(repr=False)
    tokens: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def verdict(self) -> GeneratorVerdict:
        """Whether the generator kept up, so that the figures are those of the service."""
        return GeneratorVerdict(str(self.about["verdict"]), tuple(self.about["why"]))

    @property
    def open_loop(self) -> bool:
        """Whether all requests came at their own times, whatever the answers."""
        return bool(self.about["open_loop"])

    @property
    def variant(self) -> str:
        """Name of the variant that the rows bear."""
        return self.scenario.side("source").variant.name

    @property
    def counted(self) -> pd.DataFrame:
        """The requests that figures are of: those that were sent, without the warm-up of the scenario."""
        warmup_s = self.scenario.warmup_s
        begin_s = float(warmup_s) if isinstance(warmup_s, int | float) else 0.0
        requests = self.requests
        return requests[requests["sent_s"].notna() & (requests["arrival_s"] >= begin_s)]

    def quantile(self, q: float, measure: str = frames.LATENCY_MEASURE) -> float:
        """Return the smallest time that at least a share q of the requests do not exceed, in seconds.

        Requests that timed out count with the time until then; NaN where nothing was measured.
        """
        known = np.sort(self.times(measure))
        return float(known[min(max(math.ceil(q * known.size) - 1, 0), known.size - 1)]) if known.size else math.nan

    def times(self, measure: str = frames.LATENCY_MEASURE) -> Floats:
        """Return the times of one of `frames.MEASURES`, in seconds, in order of arrival."""
        counted = self.counted
        if measure != frames.LATENCY_MEASURE and "first_token_s" not in counted.columns:
            return np.empty(0)
        if measure == frames.PER_TOKEN:
            times = time_per_token_s(counted)
        else:
            name = "first_token_s" if measure == frames.FIRST_TOKEN else "latency_s"
            times = counted[name].to_numpy(np.float64)
        return times[~np.isnan(times)]

    @property
    def error_rate(self) -> float:
        """Share of the requests sent that had no answer 2XX; those cut off by the end of the run are not judged."""
        judged = self.counted["status"][self.counted["status"] != "cut"]
        return float((~judged.isin(_NO_ERROR)).mean()) if len(judged) else math.nan

    def summary(self) -> pd.DataFrame:
        """Return the main figures, in one row.

        Returns
        -------
        DataFrame
            Indexed by variant: verdict, open_loop, requests (sent), asked_per_s, achieved_per_s, gap_scv (of the
            moments of sending), mean_s, p50_s, p90_s, p95_s, p99_s, p99_9_s, maximum_s, p50_low_s and p50_high_s,
            p99_low_s and p99_high_s (95 % intervals that allow for correlated requests; NaN for too short a run),
            error_rate, lag_p50_s, lag_p99_s, cpu_share; with streams ttft_p50_s, ttft_p99_s, tpot_p50_s, tpot_p99_s.
            Latencies of an invalid run are NaN: they are the generator's.
        """
        achieved, is_valid = self.about["achieved"], self.verdict.is_valid
        latency = self.times() if is_valid else np.empty(0)
        row: dict[str, object] = {
            "verdict": self.verdict.status,
            "open_loop": self.open_loop,
            "requests": len(self.counted),
            "asked_per_s": self.about["asked"]["rate_per_s"],
            "achieved_per_s": achieved["rate_per_s"],
            "gap_scv": achieved["gap_scv"],
            "mean_s": float(latency.mean()) if latency.size else math.nan,
            **{f"{name}_s": self.quantile(q) if is_valid else math.nan for name, q in frames.PERCENTILES.items()},
            "maximum_s": float(latency.max()) if latency.size else math.nan,
        }
        for name, q in (("p50", 0.5), ("p99", 0.99)):
            row[f"{name}_low_s"], row[f"{name}_high_s"] = self.interval(q) if is_valid else (math.nan, math.nan)
        row |= {"error_rate": self.error_rate, "lag_p50_s": achieved["lag_p50_s"], "lag_p99_s": achieved["lag_p99_s"]}
        row["cpu_share"] = max(achieved["cpu_share"], default=math.nan)
        for measure, short in frames.SHORT_NAMES.items():
            if is_valid and self.times(measure).size:
                row |= {f"{short}_p{100 * q:g}_s": self.quantile(q, measure) for q in (0.5, 0.99)}
        return pd.DataFrame([row], index=pd.Index([self.variant], name="variant"))

    def interval(self, q: float, confidence: float = 0.95) -> tuple[float, float]:
        """Return an interval of a quantile of latency, which allows for correlated requests; NaN if unknown."""
        # imported late, since scipy loads slowly
        from shadowsim.statistics.batch_means import uncorrelated_batches
        from shadowsim.statistics.estimates import beyond, quantile
        from shadowsim.statistics.samples import Values
        from shadowsim.statistics.sections import arrivals_cut

        part = self.counted[self.counted["latency_s"].notna()].sort_values("arrival_s", kind="stable")
        if len(part) < frames.MOST_SECTIONS or len(self.about["stages"]) > 1:
            return math.nan, math.nan
        arrival = part["arrival_s"].to_numpy(np.float64)
        section = arrivals_cut(arrival, float(arrival[-1]) or 1.0)
        sample = Values(part["latency_s"].to_numpy(np.float64), section, frames.MOST_SECTIONS)
        batches = uncorrelated_batches(beyond(sample, q))
        if batches is None:
            return math.nan, math.nan
        estimate = quantile(sample, q, batches, 1.0 - confidence)
        return estimate.low, estimate.high

    def evaluate(self, slo: str | Slo) -> pd.DataFrame:
        """Measure goals in the run, whose grammar is that of `planning.slo`; a goal without a role is the service's.

        Returns
        -------
        DataFrame
            One row per goal: goal, value, limit (seconds or shares), met. A value that is not known is not met.

        Raises
        ------
        InputError
            A goal cannot be measured from outside: waits, utilisation, the shadow.
        """
        rows = []
        for goal in load_goals(slo).goals:
            value = self._figure(goal)
            rows.append({"goal": str(goal), "value": value, "limit": goal.limit, "met": goal.met(value)})
        return pd.DataFrame(rows)

    def _figure(self, goal: Goal) -> float:
        times = self.times(goal.measure)
        if goal.metric == "error_rate":
            return self.error_rate
        if goal.metric == "goodput":
            assert goal.pair is not None
            counted = self.counted[self.counted["status"] != "cut"]
            if "first_token_s" not in counted.columns or not len(counted):
                return math.nan
            first, each = counted["first_token_s"].to_numpy(np.float64), time_per_token_s(counted)
            inside = (first <= goal.pair.ttft_s) & ~(each > goal.pair.tpot_s)
            return float((inside & (counted["status"] == "answered").to_numpy()).mean())
        if not times.size:
            return math.nan
        if goal.metric == "quantile":
            return self.quantile(goal.parameter, goal.measure)
        return float(times.mean()) if goal.metric == "mean" else float((times > goal.parameter).mean())

    def measurement(self) -> Measurement:
        """Return the run as a measurement of a service, for calibration."""
        requests = self.requests[self.requests["sent_s"].notna()]
        part = requests[[name for name in _KEPT if name in requests.columns]].copy()
        # a time-out is no answer: its time is only a bound
        part["latency_s"] = part["latency_s"].where(part["status"] != "timed_out")
        part = part.drop(columns=[n for n in ("stage", "in_flight_limit") if part[n].isna().all()])
        part = part.sort_values("arrival_s", kind="stable")
        token_times = None if self.tokens is None else self._token_times(self.requests.loc[part.index, "request"])
        part = part.reset_index(drop=True)
        lacks = _LACKS
        if not self.verdict.is_valid:
            lacks += (f"The run is {self.verdict.status}: {' '.join(self.verdict.why)}",)
        started = datetime.fromisoformat(str(self.about["started"]))
        return Measurement(
            FORM, requests=part, token_times=token_times, started=started, open_loop=self.open_loop, lacks=lacks
        )

    def _token_times(self, numbers: pd.Series[int]) -> pd.DataFrame:
        """Return the times of tokens by row of some requests; those of other requests are left out."""
        assert self.tokens is not None
        row = pd.Series(np.arange(len(numbers)), index=numbers.to_numpy()).reindex(self.tokens["request"]).to_numpy()
        known = ~np.isnan(row)
        table = pd.DataFrame({"row": row[known].astype(np.int64), "token_s": self.tokens["token_s"].to_numpy()[known]})
        return table.sort_values(["row", "token_s"], kind="stable", ignore_index=True)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write load.json, scenario.json and one Parquet file per frame into a directory, which is made if missing."""
        folder = Result(self.scenario, self.windows, self.latency, self.requests).save(directory)
        text = json.dumps(self.about, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / frames.LOAD_FILE).write_text(text + "\n", encoding="utf-8")
        if self.tokens is not None:
            self.tokens.to_parquet(folder / frames.TOKENS_FILE, index=False)
        return folder

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> LoadRun:
        """Read a run that `save` wrote.

        Raises
        ------
        InputError
            The directory is no load run, or one of its files is missing or broken.
        """
        folder = path_of(directory, "directory")
        if not is_load_run(folder):
            raise InputError(str(folder), f"must be a directory of a load run, with {frames.LOAD_FILE}")
        about = read_json(folder / frames.LOAD_FILE)
        missing = [key for key in ("verdict", "why", "open_loop", "asked", "achieved", "started") if key not in about]
        if missing:
            raise InputError(str(folder / frames.LOAD_FILE), f"lacks {', '.join(missing)}")
        result = Result.load(folder)
        file = folder / frames.TOKENS_FILE
        tokens = frames.read(file, frames.LOAD_TOKENS) if file.exists() else None
        return cls(result.scenario, result.windows, result.latency, result.requests, about, tokens)

    def report(self, path: str | os.PathLike[str] = PAGE_IN_RUN) -> Path:
        """Write the run as one self-contained HTML page, and return its path."""
        from shadowsim import write_report  # imported late: report/ imports this module

        return write_report(self, path)

    def __repr__(self) -> str:
        target, verdict = self.about["target"]["url"], self.verdict.status
        return f"<LoadRun of {target}: {verdict}, {len(self.counted):,} requests>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        return str(import_module("shadowsim.report.load_text").load_text(self))


def is_load_run(directory: str | os.PathLike[str]) -> bool:
    """Return whether a directory holds a saved load run."""
    return os.path.isfile(os.path.join(directory, frames.LOAD_FILE))


def read_load_run(directory: str | os.PathLike[str]) -> Measurement:
    """Read a saved load run as a measurement of a service."""
    return LoadRun.load(directory).measurement()


def load_goals(slo: str | Slo) -> Slo:
    """Return goals that can be measured from outside, or raise `InputError`."""
    parsed = parse_slo(slo)
    for goal in parsed.goals:
        if str(goal).lower().startswith("shadow."):
            raise InputError("slo", "must not be the shadow's: a load run has one service", str(goal))
        if goal.metric not in _MEASURED:
            raise InputError(
                "slo", "cannot be measured from outside: waits and utilisation are the service's own", str(goal)
            )
    return parsed
