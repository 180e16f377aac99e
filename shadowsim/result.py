"""Holds the result of a run: its scenario and three frames, which are saved and loaded together."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from shadowsim import frames
from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.json_files import path_of, read_json
from shadowsim.option_defaults import PAGE_IN_RUN
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.terms import CONFIDENCE, DEFAULT_SPENDING, MARGIN_PCT, MARGIN_POINTS
from shadowsim.statistics.warm_up import NO_WARM_UP, WarmUp, cut, warm_up
from shadowsim.verdict import Verdict, uncertain_quantiles, verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go  # type: ignore[import-untyped]

TOKEN_QUANTILES = {frames.FIRST_TOKEN: ("p50", "p99"), frames.PER_TOKEN: ("p95", "p99")}  # of summaries
_ASSUMED, _ACTIONS = "assumed.json", "actions.parquet"


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The result of a run.

    Attributes
    ----------
    scenario : Scenario
    windows, latency, requests : DataFrame
        Frames of the schemas `frames.WINDOWS`, `frames.LATENCY` and `frames.REQUESTS`.
    how : str
        The way a simulation was run, in words: in one piece or in slices. The frames do not depend on it.
    actions : DataFrame
        The scaling actions and outages of a simulation, of schema `frames.ACTIONS`; without rows where there are none.
    left_out : WarmUp
        Of `settled`: the beginning of the run that its frames lack.
    """

    scenario: Scenario
    windows: pd.DataFrame = field(repr=False)
    latency: pd.DataFrame = field(repr=False)
    requests: pd.DataFrame = field(repr=False)
    how: str = ""
    actions: pd.DataFrame = field(default_factory=lambda: frames.empty(frames.ACTIONS), repr=False)
    left_out: WarmUp = NO_WARM_UP

    @property
    def verdict(self) -> Verdict:
        """STABLE, OVERLOADED or TOO SHORT; if overloaded, with pool, times, excess and the instances needed."""
        warm = self.warm_up
        return verdict(self._without(warm).windows, self.scenario, warm.unsettled)

    @property
    def uncertain(self) -> dict[str, frozenset[str]]:
        """The quantiles of each variant that the run is too short for: `verdict.uncertain_quantiles`."""
        warm = self.warm_up
        return uncertain_quantiles(self._without(warm).windows, self.scenario, warm.unsettled)

    @property
    def warm_up(self) -> WarmUp:
        """The beginning of the run that its figures leave out, by the scenario's `run.warmup_s`; the frames have it."""
        if not self.scenario.warmup_s:
            return NO_WARM_UP
        return warm_up(self.windows, self.scenario.warmup_s, min(frames.MOST_SECTIONS, self.scenario.n_windows))

    @property
    def settled(self) -> Result:
        """The run without its warm-up, as all figures see it; itself if nothing is left out."""
        return self._without(self.warm_up)

    def _without(self, warm: WarmUp) -> Result:
        if not warm.first_section:
            return self
        kept = cut({name: getattr(self, name) for name in ("windows", "latency", "requests")}, warm)
        rest = Result(replace(self.scenario, warmup_s=0.0), kept["windows"], kept["latency"], kept["requests"])
        return replace(rest, how=self.how, actions=self.actions, left_out=warm)

    @property
    def length_s(self) -> float:
        """Length of what the frames show: the horizon, less the warm-up that a settled run lacks."""
        return self.scenario.horizon_s - self.left_out.from_s

    @property
    def n_sections(self) -> int:
        """Number of sections of the `latency` frame, with those in which nothing was answered."""
        return min(frames.MOST_SECTIONS, self.scenario.n_windows) - self.left_out.first_section

    def quantile(self, q: float, measure: str = frames.LATENCY_MEASURE) -> pd.Series[float]:
        """Return a quantile of ModelLatency by variant, in seconds; or of another of `frames.MEASURES`.

        It is within 0.8 % of the empirical quantile, and within the least and the greatest latency.
        """
        return self._quantiles([q], measure).iloc[:, 0]

    def compare(
        self,
        *,
        margin_pct: float = MARGIN_PCT,
        margin_points: float = MARGIN_POINTS,
        confidence: float = CONFIDENCE,
        slo_s: float | str | None = None,
        ttft_slo_s: float | str | None = None,
        tpot_slo_s: float | str | None = None,
        look: int | None = None,
        looks: int | None = None,
        spending: str = DEFAULT_SPENDING,
        method: str | None = None,
    ) -> pd.DataFrame:
        """Compare the shadow with the source: one row per metric, with intervals and an outcome.

        The parameters and columns are those of `shadowsim.compare`, which also takes several runs, a directory, or
        frames from elsewhere. `compare_runs` compares two runs.

        Examples
        --------
        >>> import shadowsim as ss
        >>> traffic = {"process": "poisson", "rate_per_s": 500}
        >>> scenario = ss.default_scenario().replace({"traffic": traffic, "horizon_s": "1h"})
        >>> table = ss.simulate(scenario).compare(margin_pct=5)
        >>> table.set_index("metric")["outcome"]["p99"]
        'same'
        """
        from shadowsim.statistics.comparison import compare  # imported late, since scipy loads slowly

        return compare(
            self,
            margin_pct=margin_pct,
            margin_points=margin_points,
            confidence=confidence,
            slo_s=slo_s,
            ttft_slo_s=ttft_slo_s,
            tpot_slo_s=tpot_slo_s,
            look=look,
            looks=looks,
            spending=spending,
            method=method,
        )

    def _quantiles(self, qs: Sequence[float], measure: str = frames.LATENCY_MEASURE) -> pd.DataFrame:
        """Return quantiles within the extremes: one row per variant, one column per quantile."""
        settled = self.settled
        least, greatest = (f"{frames.TIME_COLUMNS[measure]}_{extreme}" for extreme in ("Minimum", "Maximum"))
        extremes = settled.windows.groupby("variant").agg({least: "min", greatest: "max"})
        quantiles = frames.quantiles(settled.latency, qs, measure)
        seconds = extremes.loc[quantiles.index] / frames.US_PER_S
        return quantiles.clip(seconds[least], seconds[greatest], axis=0)

    def report(self, path: str | os.PathLike[str] = PAGE_IN_RUN) -> Path:
        """Write the run as one self-contained HTML page, and return its path."""
        from shadowsim import write_report  # imported late: report/ imports this module

        return write_report(self, path)

    def plot(self) -> go.Figure:
        """Return the Plotly figure of latencies over time; `shadowsim.plots` has the others."""
        plots = import_module("shadowsim.plots.run")
        return plots.latency_over_time(self.windows, self.verdict, self.scenario.horizon_s)

    def __repr__(self) -> str:
        n = int(self.windows.loc[self.windows["role"] == "source", "Invocations"].sum())
        about = f"{self.verdict.status}, {n:,} requests, seed {self.scenario.seed}"
        return f"<Result of {self.scenario.experiment.name}: {about}>"

    def _repr_html_(self) -> str:
        from shadowsim import card  # imported late: report/ imports this module

        return card(self)

    def summary(self, standard_errors: bool = True) -> pd.DataFrame:
        """Return the main figures of the run and their standard errors: one row per variant, source first.

        Figures are given whatever the length of the run, without its warm-up. One without a standard error, and all of
        a run that is TOO SHORT, may be far from those of a long run. Texts, pages and cards leave out what
        `verdict.uncertain_quantiles` names: quantiles beyond p95 of a run of fewer than a hundred relaxation times.

        Parameters
        ----------
        standard_errors : bool
            Add a column `<figure>_error` for each figure that `statistics.standard_errors` knows of.

        Returns
        -------
        DataFrame
            Indexed by variant: role, verdict, instance_type, instance_count, billed_instances (their mean over
            the run, which scaling changes; those that start, drain or have failed count), requests, rate_per_s, share
            (of the source's requests, achieved), mean_s, p50_s, p90_s, p95_s, p99_s, p99_9_s, maximum_s (ModelLatency),
            wait_mean_s, utilisation, error_rate (share of requests without an answer 2XX), captured_bytes. A run with
            scaling, batching, outages or retries also has serving_mean and serving_maximum (instances that serve, in
            the mean and in the window with most), instance_h (of billed instances), batch_size_mean,
            retries_per_request and success_rate (share of the callers' requests that ended with an answer 2XX). A run
            with services in tokens has ttft_mean_s, ttft_p50_s, ttft_p99_s (times to the first token), tpot_mean_s,
            tpot_p95_s, tpot_p99_s (per token after it), output_tokens_per_s (of the whole pool),
            running_sequences_mean and cache_use_mean (of an instance), preemptions, with prefix caches prefix_hit_share
            (of the tokens of prompts those that were there), and for each pair of limits in
            run.goodput goodput_share_1 and so on (share of the requests that are answered within both). Then come the
            standard errors, NaN where the run is too short for one.
        """
        run = self.settled
        statuses = {p.variant: p.status for p in self.verdict.pools}
        quantiles = self._quantiles(list(frames.PERCENTILES.values()))
        quantiles.columns = pd.Index([f"{name}_s" for name in frames.PERCENTILES])
        times = self._token_times()
        source_n = int(run.windows.loc[run.windows["role"] == "source", "Invocations"].sum())
        rows = []
        for role, part in sorted(run.windows.groupby("role"), reverse=True):
            variant = str(part["variant"].iloc[0])
            pool = self.scenario.side(str(role)).variant.pool
            n = part["Invocations"].to_numpy(np.float64)
            answered = part["ModelLatency_SampleCount"].to_numpy(np.float64)
            rows.append(
                {
                    "variant": variant,
                    "role": role,
                    "verdict": statuses[variant],
                    "instance_type": pool.instance_type,
                    "instance_count": pool.instance_count,
                    "billed_instances": frames.billed_instances(part, self.scenario.horizon_s),
                    "requests": int(n.sum()),
                    "rate_per_s": n.sum() / run.length_s,
                    "share": n.sum() / source_n if source_n else np.nan,
                    "mean_s": _weighted_mean(part["ModelLatency_Average"], answered) / frames.US_PER_S,
                    **{name: float(values.get(variant, np.nan)) for name, values in quantiles.items()},
                    "maximum_s": part["ModelLatency_Maximum"].max() / frames.US_PER_S,
                    "wait_mean_s": _weighted_mean(part["wait_mean_s"], answered),
                    "utilisation": _mean(*frames.weighted_utilisation(part, self.scenario.horizon_s)),
                    "error_rate": frames.failures(part).sum() / n.sum() if n.sum() else np.nan,
                    "captured_bytes": part["captured_bytes"].sum(min_count=1),
                }
                | _event_figures(part, self.scenario.horizon_s)
                | {name: float(values.get(variant, np.nan)) for name, values in times.items()}
                | _token_figures(part, self.scenario.horizon_s, run.length_s)
            )
        table = pd.DataFrame(rows).set_index("variant")
        if standard_errors:
            # imported late, since scipy loads slowly
            from shadowsim.statistics.standard_errors import standard_errors_of

            errors = standard_errors_of(self)
            for figure in errors.columns.intersection(table.columns, sort=False):
                table[f"{figure}_error"] = table["role"].map(errors[figure])
        return table

    def _token_times(self) -> dict[str, pd.Series[float]]:
        """Return means and quantiles of times of tokens, in seconds by variant; nothing for a run without tokens."""
        run = self.settled
        if frames.TOKEN_WINDOWS[0].name not in run.windows.columns:
            return {}
        times = {}
        for measure, levels in TOKEN_QUANTILES.items():
            name, short = frames.TIME_COLUMNS[measure], frames.SHORT_NAMES[measure]
            times[f"{short}_mean_s"] = pd.Series(
                {
                    str(variant): _weighted_mean(
                        part[f"{name}_Average"],
                        part[f"{name}_SampleCount"].fillna(0).to_numpy(np.float64),
                    )
                    / frames.US_PER_S
                    for variant, part in run.windows.groupby("variant")
                }
            )
            quantiles = self._quantiles([frames.PERCENTILES[level] for level in levels], measure)
            times |= {f"{short}_{level}_s": quantiles.iloc[:, i] for i, level in enumerate(levels)}
        return times

    def theory(self) -> pd.DataFrame:
        """Return what queueing theory says beside the simulated: one row per variant and figure that has a formula.

        Mean wait and latency, and the share that waits, by Erlang's C (M/M/c) or Pollaczek and Khinchine (M/G/1); by
        Allen and Cunneen's approximation for other laws. Columns and limits: `shadowsim.planning.queueing_theory`.
        """
        # Imported by name: planning/ imports this module.
        return cast(pd.DataFrame, import_module("shadowsim.planning.queueing_theory").theory(self))

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write scenario.json and one Parquet file per frame into a directory, which is created if missing.

        A run without scaling actions and outages has no actions.parquet.
        What was assumed for the scenario goes to assumed.json. The page of an earlier run in this directory,
        report.html, is removed, since it shows other frames.
        """
        folder = Path(directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise InputError(str(folder), f"cannot be a directory for a result ({error.strerror})") from None
        if (folder / frames.SCENARIO_FILE).exists():
            (folder / PAGE_IN_RUN).unlink(missing_ok=True)
        self.scenario.save(folder / frames.SCENARIO_FILE)
        assumed = json.dumps(dict(self.scenario.assumed), indent=2, ensure_ascii=False)
        (folder / _ASSUMED).write_text(assumed + "\n", encoding="utf-8")
        for name in frames.SCHEMAS:
            getattr(self, name).to_parquet(folder / f"{name}.parquet", index=False)
        for name in (_ACTIONS, frames.LOAD_FILE, frames.TOKENS_FILE):  # of an earlier run in this directory
            (folder / name).unlink(missing_ok=True)
        if len(self.actions):
            self.actions.to_parquet(folder / _ACTIONS, index=False)
        return folder

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Result:
        """Read a result that `save` wrote.

        Raises
        ------
        InputError
            When the directory or one of its files is missing, or a file does not have the schema.
        """
        folder = path_of(directory, "directory")
        if not os.path.isdir(folder):  # Path.is_dir raises for names that are too long
            raise InputError(str(folder), frames.NOT_SAVED)
        windows, latency, requests = (
            frames.read(folder / f"{name}.parquet", schema, frames.OPTIONAL[name])
            for name, schema in frames.SCHEMAS.items()
        )
        saved = read_json(folder / _ASSUMED) if (folder / _ASSUMED).exists() else {}
        scenario = Scenario.from_dict(
            read_json(folder / frames.SCENARIO_FILE), folder, {k: str(v) for k, v in saved.items()}
        )
        # Saved runs outlive their Schedules; whether one has ended since is not what was assumed in the run.
        since = {"experiment.Schedule"} - saved.keys()
        assumed = {path: text for path, text in scenario.assumed.items() if path not in since}
        actions = frames.empty(frames.ACTIONS)
        if (folder / _ACTIONS).exists():
            actions = frames.read(folder / _ACTIONS, frames.ACTIONS)
        return cls(replace(scenario, assumed=assumed), windows, latency, requests, actions=actions)


def _weighted_mean(values: pd.Series[float], n: Floats) -> float:
    known = (n > 0) & values.notna().to_numpy()
    return float(np.average(values[known], weights=n[known])) if known.any() else float("nan")


def _mean(values: Floats, weights: Floats) -> float:
    return float(np.average(values, weights=weights)) if weights.any() else float("nan")


def _event_figures(part: pd.DataFrame, horizon_s: float) -> dict[str, float]:
    """Return a pool's instances, batches and retries; nothing for a run that has no such columns."""
    if frames.EVENT_WINDOWS[0].name not in part.columns:
        return {}
    serving, existing, size = (
        part[name].to_numpy(np.float64)
        for name in ("serving_instance_count", "existing_instance_count", "batch_size_mean")
    )
    lengths = frames.lengths_s(part, horizon_s)
    batches = part["batches"].fillna(0).to_numpy(np.float64)
    calls = float(part["calls"].sum())
    return {
        "serving_mean": float(np.average(serving, weights=lengths)),
        "serving_maximum": float(serving.max()),
        "instance_h": float(existing @ lengths) / 3600.0,
        "batch_size_mean": float(np.nansum(size * batches) / batches.sum()) if batches.any() else np.nan,
        "retries_per_request": float(part["retries"].sum()) / calls if calls else np.nan,
        "success_rate": float(part["calls_answered"].sum()) / calls if calls else np.nan,
    }


def _token_figures(part: pd.DataFrame, horizon_s: float, length_s: float) -> dict[str, float]:
    """Return what a pool did with tokens; nothing for a run without them, NaN for a variant that serves none."""
    if frames.TOKEN_WINDOWS[0].name not in part.columns:
        return {}
    n = float(part["Invocations"].sum())
    serving = part["serving_instance_count"].to_numpy(np.float64) * frames.lengths_s(part, horizon_s)
    prefix = {}
    if frames.PREFIX_HIT in part.columns:
        queried = _total(part[frames.PREFIX_QUERIED])
        prefix["prefix_hit_share"] = _total(part[frames.PREFIX_HIT]) / queried if queried else np.nan
    met = [name for name in part.columns if name.startswith("goodput_")]
    return {
        "output_tokens_per_s": _total(part["output_tokens"]) / length_s,
        "running_sequences_mean": _weighted_mean(part["running_sequences_mean"], serving),
        "cache_use_mean": _weighted_mean(part["cache_use_mean"], serving),
        "preemptions": _total(part["preemptions"]),
        **prefix,
        **{f"goodput_share_{i}": _total(part[name]) / n if n else np.nan for i, name in enumerate(met, start=1)},
    }


def _total(counts: pd.Series[int]) -> float:
    """Return the sum of counts; NaN if all are missing."""
    return float(counts.fillna(0).sum()) if counts.notna().any() else np.nan
