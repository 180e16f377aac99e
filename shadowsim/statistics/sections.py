"""Cuts one or several runs into sections, with the sums of both variants that a comparison needs.

The sums come from whichever frames there are: the `latency` frame, a complete `requests` frame, the `windows` frame
alone, or independent runs, each of which is one section.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shadowsim import frames as schema
from shadowsim.arrays import Floats, Ints
from shadowsim.errors import InputError, did_you_mean
from shadowsim.frames import (
    FIRST_TOKEN,
    GOODPUT_COLUMNS,
    LATENCY_MEASURE,
    MEASURES,
    MOST_SECTIONS,
    PER_TOKEN,
    ROLES,
    SCENARIO_FILE,
    TIME_COLUMNS,
    US_PER_S,
    failures,
)
from shadowsim.json_files import read_json
from shadowsim.option_defaults import AUTO
from shadowsim.quantities import parse_duration
from shadowsim.statistics.batch_means import MIN_BATCHES, STEADY, UNKNOWN, Course, changes_gradually, traffic_moments
from shadowsim.statistics.samples import Buckets, Sample, Values
from shadowsim.statistics.warm_up import cut, warm_up

METHODS = ("sections", "replications", "requests", "windows")
ERRORS = {
    "error_rate_4xx": "Invocation4XXErrors",
    "error_rate_5xx": "Invocation5XXErrors",
    "error_rate": "InvocationModelErrors",
}
_STATUSES = {
    "error_rate_4xx": ("error_4xx",),
    "error_rate_5xx": ("error_5xx", "refused", "unavailable"),
    "error_rate": ("error_4xx", "error_5xx", "timed_out", "refused", "unavailable", "failed", "broken"),
}

_AXIS = {"windows": "time_s", "latency": "section", "requests": "request"}

Frames = Mapping[str, pd.DataFrame]


class RunFrames(dict[str, pd.DataFrame]):
    """Frames of a run by name, and what its scenario tells of its traffic.

    Attributes
    ----------
    has_profile : bool or None
        Whether the traffic has a profile or is a trace, so that its rate is the same in each run; None if unknown.
    cycle_s : float
        Mean length of a cycle of the slowest modulated rate; 0 without any.
    sessions : int, str or None
        Number of the sessions that are copied whole or not at all, or the trace's column with them; None for others.
    share_cv : float
        Coefficient of variation of the copied requests between choices of sessions: `share_cv`; 0 if unknown.
    n_sections : int
        Number of sections of all windows; 0 if only the frames tell.
    horizon_s : float
        End of the last window; NaN if only the frames tell.
    goodput : tuple of str
        Texts of the pairs of limits in run.goodput, whose requests `windows` counts.

    The warm-up that the scenario asks for is left out.
    """

    def __init__(self, frames: Frames, document: Mapping[str, Any] | None = None):
        super().__init__(frames)
        self.has_profile: bool | None = None
        self.cycle_s = 0.0
        self.sessions: int | str | None = None
        self.share_cv = 0.0
        self.n_sections = 0
        self.horizon_s = math.nan
        self.goodput: tuple[str, ...] = ()
        if document is not None:
            self._leave_out_warm_up(document)
            self.goodput = tuple(map(_pair_text, (document.get("run") or {}).get("goodput") or ()))
            traffic = document["traffic"]
            blocks = traffic if isinstance(traffic, (list, tuple)) else [traffic]
            self.has_profile = any(
                block.get("profile") or (block["process"] == "trace" and not block.get("resample")) for block in blocks
            )
            self.cycle_s = max(math.fsum(block.get("mean_sojourn_s") or ()) for block in blocks)
            if (document.get("mirror") or {}).get("rule") == "hash":
                self.sessions, self.share_cv = blocks[0].get("sessions"), share_cv(document)

    def _leave_out_warm_up(self, document: Mapping[str, Any]) -> None:
        warmup_s = (document.get("run") or {}).get("warmup_s")
        if warmup_s and "windows" in self:
            n = min(MOST_SECTIONS, self["windows"]["time_s"].nunique())
            seconds = warmup_s if warmup_s == AUTO else parse_duration(warmup_s, "run.warmup_s")
            warm = warm_up(self["windows"], seconds, n)
            self.update(cut(self, warm))
            self.n_sections = n - warm.first_section
            if "requests" in self and warm.first_section:
                # sections of requests are cut from 0
                self["requests"] = self["requests"].assign(arrival_s=self["requests"]["arrival_s"] - warm.from_s)


@dataclass(frozen=True, slots=True)
class SideSections:
    """Sums of one variant per section.

    Attributes
    ----------
    sample : Buckets, Values or None
        Latencies in seconds, where known.
    total_s, n : ndarray of float64, shape (sections,), or None
        Sum of latency, and the number of requests that have one.
    requests : ndarray of float64, shape (sections,)
        Number of requests.
    errors : mapping of str to ndarray
        Number of failed requests, by metric, and of those that missed a pair of limits of run.goodput.
    course : Course
        What is known of its traffic.
    times : mapping of str to SideSections
        The same sums of times to the first token and per token, by measure, where the variant has them.
    """

    sample: Sample | None
    total_s: Floats | None
    n: Floats
    requests: Floats
    errors: Mapping[str, Floats]
    course: Course = UNKNOWN
    times: Mapping[str, SideSections] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sections:
    """Both variants in sections.

    Attributes
    ----------
    source, shadow : SideSections
    method : str
        One of `METHODS`.
    independent : bool
        Whether sections are runs, which are not joined.
    cycles : float
        Number of cycles of the slowest modulated rate; infinite without any, or if unknown.
    """

    source: SideSections
    shadow: SideSections
    method: str
    independent: bool = False
    cycles: float = math.inf

    def side(self, role: str) -> SideSections:
        """Return the sections of "source" or "shadow"."""
        return self.source if role == "source" else self.shadow

    def of(self, measure: str) -> Sections | None:
        """Return the sections of one of `frames.MEASURES`; None where a side has no such times."""
        if measure == LATENCY_MEASURE:
            return self
        if not all(measure in side.times for side in (self.source, self.shadow)):
            return None
        return replace(self, source=self.source.times[measure], shadow=self.shadow.times[measure])


def share_cv(document: Mapping[str, Any]) -> float:
    """Return the coefficient of variation of the copied requests between choices of sessions that are copied whole.

    Each of S equal sessions is copied with probability p: the share is S p in the mean, with variance S p (1 - p).
    """
    traffic = document["traffic"]
    sessions = (traffic[0] if isinstance(traffic, (list, tuple)) else traffic).get("sessions")
    if (document.get("mirror") or {}).get("rule") != "hash" or not isinstance(sessions, int):
        return 0.0
    config = document["experiment"]["ShadowModeConfig"]
    p = float(config["ShadowModelVariants"][0]["SamplingPercentage"]) / 100.0
    return math.sqrt((1.0 - p) / (p * sessions)) if p else 0.0


def frames_of(runs: object) -> list[Frames]:
    """Return the frames of one or several runs.

    Parameters
    ----------
    runs : Result, mapping, object, path, or a list of these
        Anything with a frame `windows`, `latency` or `requests` as an item or attribute, or the directory of a saved
        result.

    Raises
    ------
    InputError
        When there is no such frame, or one lacks a column.
    """
    if isinstance(runs, (list, tuple)):
        if not runs:
            raise InputError("frames", "must hold at least one run")
        return [one for run in runs for one in frames_of(run)]
    if isinstance(runs, RunFrames):
        return [runs]  # with what its scenario tells
    if isinstance(runs, (str, os.PathLike)):
        return [_saved(Path(runs))]
    held = {name: runs.get(name) if isinstance(runs, Mapping) else getattr(runs, name, None) for name in schema.SCHEMAS}
    frames = {name: frame for name, frame in held.items() if isinstance(frame, pd.DataFrame) and len(frame)}
    if not frames:
        raise InputError(
            "frames", "must be a result, its directory, or hold a windows, latency or requests frame", runs
        )
    for name, frame in frames.items():
        missing = [c for c in ("role", _AXIS[name]) if c not in frame.columns]
        if missing:
            raise InputError(f"frames.{name}", f"lacks the columns {', '.join(missing)}")
        if not frame["role"].isin(ROLES).all():
            wrong = frame["role"][~frame["role"].isin(ROLES)].iloc[0]
            raise InputError(f"frames.{name}.role", "must be source or shadow", wrong)
    scenario = getattr(runs, "scenario", None)
    run = RunFrames(frames, getattr(scenario, "document", None))
    run.horizon_s = getattr(scenario, "horizon_s", math.nan)
    return [run]


def given_traffic(runs: Sequence[Frames]) -> list[Frames]:
    """Return the frames of runs whose rates are taken as given, even if their paths were drawn."""
    given = [RunFrames(run) for run in runs]
    for run, original in zip(given, runs, strict=True):
        run.has_profile = True
        if isinstance(original, RunFrames):
            run.n_sections, run.goodput = original.n_sections, original.goodput
    return [*given]


def _saved(folder: Path) -> Frames:
    if not os.path.isdir(folder):
        raise InputError(str(folder), schema.NOT_SAVED)
    files = {name: folder / f"{name}.parquet" for name in schema.SCHEMAS}
    frames = {
        name: schema.read(file, schema.SCHEMAS[name], schema.OPTIONAL[name])
        for name, file in files.items()
        if file.exists()
    }
    if not frames:
        raise InputError(str(folder), f"holds none of {', '.join(f.name for f in files.values())}")
    scenario = folder / SCENARIO_FILE
    return RunFrames(frames, read_json(scenario) if scenario.exists() else None)


def sections_of(runs: Sequence[Frames], method: str | None) -> Sections:
    """Cut runs into sections, by one of `METHODS`; by default by the best that their frames allow.

    Raises
    ------
    InputError
        When the method is unknown, or the frames that it needs are missing.
    """
    method = _best(runs) if method is None else method
    if method not in METHODS:
        raise InputError("method", f"must be one of {', '.join(METHODS)}", method, hint=did_you_mean(method, METHODS))
    needs = method if method in ("requests", "windows") else "latency"
    if any(needs not in run for run in runs):
        raise InputError(f"frames.{needs}", f"is needed by method {method}")
    if needs != "latency" and len(runs) > 1:
        raise InputError("frames", f"must be a single run for method {method}", len(runs))
    if method == "replications" and len(runs) < MIN_BATCHES:
        raise InputError("frames", f"must hold at least {MIN_BATCHES} runs for method replications", len(runs))
    if method == "requests":
        sections = _of_requests(runs[0])
    elif method == "windows":
        n = _n_sections(runs[0])
        measures = [m for m in MEASURES[1:] if TIME_COLUMNS[m] + "_Average" in runs[0]["windows"]]
        source, shadow = (
            _with_times(_window_sums(runs[0], role, n), {m: _window_sums(runs[0], role, n, m) for m in measures})
            for role in ROLES
        )
        sections = Sections(source, shadow, method)
    else:
        sections = _of_latency(runs, method)
    if not sections.independent:
        cv = math.sqrt(math.fsum(run.share_cv**2 for run in runs if isinstance(run, RunFrames))) / len(runs)
        sections = replace(sections, shadow=with_share_cv(sections.shadow, cv))
    return replace(sections, cycles=math.fsum(map(_cycles, runs)))


def _n_sections(run: Frames) -> int:
    """Return the number of sections of a run's windows."""
    known = run.n_sections if isinstance(run, RunFrames) else 0
    return known or min(MOST_SECTIONS, run["windows"]["time_s"].nunique())


def _cycles(run: Frames) -> float:
    """Return how many cycles of the slowest modulated rate a run lasted; infinite without any, or if unknown."""
    if not isinstance(run, RunFrames) or not run.cycle_s:
        return math.inf
    if "windows" in run:
        start = np.unique(_column(run["windows"], "time_s"))
        length_s = start[-1] - start[0] + (start[1] - start[0] if start.size > 1 else 0.0)
    elif "requests" in run:
        length_s = _column(run["requests"], "arrival_s").max()
    else:
        return math.inf
    return float(length_s / run.cycle_s)


def follows_profile(run: Frames, requests: Floats, n_sections: int) -> bool:
    """Return whether the traffic has a profile: as the scenario tells, else as the source's requests show.

    Parameters
    ----------
    run : mapping
    requests : ndarray of float64
        The source's requests, by window or by section.
    n_sections : int
    """
    known = run.has_profile if isinstance(run, RunFrames) else None
    return changes_gradually(requests, n_sections) if known is None else known


def is_complete(run: Frames) -> bool:
    """Return whether the `requests` frame has every request of the source, without gaps, and so all copies."""
    number = np.sort(run["requests"].loc[run["requests"]["role"] == "source", "request"].to_numpy(np.int64))
    if not number.size or number[-1] - number[0] + 1 != number.size:
        return False
    if "windows" not in run:
        return True
    windows = run["windows"]
    return bool(windows.loc[windows["role"] == "source", "Invocations"].sum() == number.size)


def arrivals_cut(arrival_s: Floats, end_s: float) -> Ints:
    """Return the section of each arrival: a hundred sections of equal length from 0 to the end."""
    return np.minimum(arrival_s / end_s * MOST_SECTIONS, MOST_SECTIONS - 1).astype(np.int64)


def _best(runs: Sequence[Frames]) -> str:
    if len(runs) > 1:
        return "replications" if len(runs) >= MIN_BATCHES else "sections"
    run = runs[0]
    if "latency" in run and run["latency"]["section"].max() >= MIN_BATCHES - 1:
        return "sections"
    if "requests" in run and is_complete(run):
        return "requests"
    return next(m for m, frame in (("sections", "latency"), ("windows", "windows"), ("requests", "requests"))
                if frame in run)  # fmt: skip


def _of_latency(runs: Sequence[Frames], method: str) -> Sections:
    """Return the sections of one run, or of several runs one after another; each replication is one section."""
    times = {m: _of_measure(runs, m, method) for m in MEASURES[1:] if all(_has(run, m) for run in runs)}
    sections = _of_measure(runs, LATENCY_MEASURE, method)
    source, shadow = (
        _with_times(sections.side(role), {m: of_time.side(role) for m, of_time in times.items()}) for role in ROLES
    )
    return replace(sections, source=source, shadow=shadow)


def _has(run: Frames, measure: str) -> bool:
    return bool(len(schema.of_measure(run["latency"], measure)))


def _with_times(side: SideSections, times: Mapping[str, SideSections]) -> SideSections:
    """Return the sections with those of other times that the variant has."""
    return replace(side, times={measure: of_time for measure, of_time in times.items() if of_time.n.sum() > 0})


def with_share_cv(side: SideSections, cv: float) -> SideSections:
    """Return the sections of a shadow whose requests vary so between choices of sessions (`Course.share_cv`)."""
    times = {measure: with_share_cv(of_time, cv) for measure, of_time in side.times.items()}
    return replace(side, course=replace(side.course, share_cv=cv), times=times)


def _of_measure(runs: Sequence[Frames], measure: str, method: str) -> Sections:
    """Return the sections of one of `frames.MEASURES`."""
    replications = method == "replications"
    latencies = [schema.of_measure(run["latency"], measure) for run in runs]
    low_s, first = np.unique(np.concatenate([_column(latency, "low_s") for latency in latencies]), return_index=True)
    high_s = np.concatenate([_column(latency, "high_s") for latency in latencies])[first]
    counts: dict[str, list[NDArray[np.int64]]] = {role: [] for role in ROLES}
    sides: dict[str, list[SideSections]] = {role: [] for role in ROLES}
    for run, latency in zip(runs, latencies, strict=True):
        n = int(run["latency"]["section"].max()) + 1
        if "windows" in run:
            n = max(n, _n_sections(run))
        at = latency["section"].to_numpy() * low_s.size + np.searchsorted(low_s, _column(latency, "low_s"))
        is_shadow, count = (latency["role"] == "shadow").to_numpy(), latency["count"].to_numpy()
        by_section = np.bincount(latency["section"].to_numpy()[~is_shadow], count[~is_shadow], n).astype(np.float64)
        steady = "windows" not in run and not follows_profile(run, by_section, n)
        for role in ROLES:
            mark = is_shadow if role == "shadow" else ~is_shadow
            table = np.bincount(at[mark], count[mark], n * low_s.size).astype(np.int64).reshape(n, low_s.size)
            side = _window_sums(run, role, n, measure) if "windows" in run else _bucket_sums(low_s, high_s, table)
            side = replace(side, course=STEADY) if steady else side
            counts[role].append(table.sum(axis=0, keepdims=True) if replications else table)
            sides[role].append(_total(side) if replications else side)
    samples = {
        role: Buckets(low_s, high_s, np.concatenate(counts[role]), _extremes_s(runs, role, measure)) for role in ROLES
    }
    source, shadow = (
        replace(_concatenated(sides[role]), sample=samples[role] if samples[role].n else None) for role in ROLES
    )
    return Sections(source, shadow, method, independent=replications)


def _extremes_s(runs: Sequence[Frames], role: str, measure: str) -> tuple[float, float]:
    """Return the least and the greatest time of all runs; infinite if a run does not have them."""
    names = [f"{TIME_COLUMNS[measure]}_{end}" for end in ("Minimum", "Maximum")]
    if not all("windows" in run and set(names) <= set(run["windows"].columns) for run in runs):
        return -math.inf, math.inf
    extremes = pd.concat([run["windows"].loc[run["windows"]["role"] == role, names] for run in runs]) / US_PER_S
    least, greatest = float(extremes[names[0]].min()), float(extremes[names[1]].max())
    return (-math.inf, math.inf) if math.isnan(least + greatest) else (least, greatest)


def _window_sums(run: Frames, role: str, n_sections: int, measure: str = LATENCY_MEASURE) -> SideSections:
    """Return sums of the windows of each section; window w of W is in section w n // W.

    Failures belong to the sums of ModelLatency.
    """
    windows, name, whole = run["windows"], TIME_COLUMNS[measure], measure == LATENCY_MEASURE
    mark = (windows["role"] == role).to_numpy()
    times, window = np.unique(_column(windows, "time_s"), return_inverse=True)
    section = window[mark] * n_sections // times.size

    def section_sums(values: Floats) -> Floats:
        sums: Floats = np.bincount(section, np.nan_to_num(values[mark]), n_sections).astype(np.float64)
        return sums

    requests = section_sums(_column(windows, "Invocations")) if "Invocations" in windows else np.zeros(n_sections)
    count_columns = (f"{name}_SampleCount", *(["Invocations"] if whole else []))
    count_column = next((c for c in count_columns if c in windows), None)
    answered = _column(windows, count_column) if count_column else None
    total = None
    if answered is not None and f"{name}_Average" in windows:
        total = section_sums(_column(windows, f"{name}_Average") * answered) / US_PER_S

    def by_window(mark: NDArray[np.bool_]) -> Floats:
        counts = np.zeros(times.size)
        if answered is not None:
            counts += np.bincount(window[mark], np.nan_to_num(answered[mark]), times.size)
        return counts

    steady = not follows_profile(run, by_window((windows["role"] == "source").to_numpy()), n_sections)
    errors = {m: section_sums(_failures(windows, column)) for m, column in ERRORS.items() if column in windows}
    for column, metric in _goodput_columns(run).items():
        missed = _column(windows, "Invocations") - _column(windows, column)
        if not np.isnan(missed[mark]).all():  # of a variant in tokens
            errors[metric] = section_sums(missed)
    return SideSections(
        sample=None,
        total_s=total,
        n=np.zeros(n_sections) if answered is None else section_sums(answered),
        requests=requests,
        errors=errors if whole else {},
        course=STEADY if steady else Course(traffic_moments(by_window(mark), n_sections)),
    )


def _goodput_columns(run: Frames) -> dict[str, str]:
    """Return the metric of each of the columns of windows that count a pair of limits of run.goodput."""
    pairs = run.goodput if isinstance(run, RunFrames) else ()
    named = zip(GOODPUT_COLUMNS, pairs, strict=False)
    return {column: f"goodput_miss({text})" for column, text in named if column in run["windows"]}


def _pair_text(pair: Mapping[str, Any]) -> str:
    ttft_s, tpot_s = (parse_duration(pair[key], key) for key in ("ttft_s", "tpot_s"))
    return f"ttft <= {ttft_s:g} s, tpot <= {tpot_s:g} s"


def _failures(windows: pd.DataFrame, name: str) -> Floats:
    return failures(windows) if name == ERRORS["error_rate"] else _column(windows, name)


def window_sums(run: Frames, role: str) -> dict[str, Floats]:
    """Return sums per section of a run's windows.

    wait_s of answered requests, busy_s and length_s of the pool; of services in tokens, also their columns of counts.
    """
    windows = run["windows"]
    part = windows[windows["role"] == role]
    start, n = _column(part, "time_s"), _n_sections(run)
    section = np.arange(start.size) * n // start.size
    end_s = run.horizon_s if isinstance(run, RunFrames) else math.nan
    if math.isnan(end_s):  # the last window is as long as the one before
        end_s = 2.0 * start[-1] - start[-2] if start.size > 1 else start[-1] + 1.0
    length_s = np.diff(start, append=end_s)
    answered = np.nan_to_num(_column(part, "ModelLatency_SampleCount"))
    terms = {
        "wait_s": np.nan_to_num(_column(part, "wait_mean_s")) * answered,
        "busy_s": np.nan_to_num(_column(part, "utilisation")) * length_s,
        "length_s": length_s,
    }
    for name in ("output_tokens", *GOODPUT_COLUMNS):
        if name in part and part[name].notna().any():
            terms[name] = np.nan_to_num(_column(part, name))
    return {name: np.bincount(section, values, n).astype(np.float64) for name, values in terms.items()}


def _column(frame: pd.DataFrame, name: str) -> Floats:
    return frame[name].to_numpy(np.float64, na_value=np.nan)


def _bucket_sums(low_s: Floats, high_s: Floats, count: Ints) -> SideSections:
    """Return sums of the buckets of each section: a latency counts as the middle of its bucket."""
    n = count.sum(axis=1)
    return SideSections(None, count @ (0.5 * (low_s + high_s)), n, n, {})


def _total(side: SideSections) -> SideSections:
    """Return the sums of all sections as those of one; the traffic within it has no moments."""
    total_s = None if side.total_s is None else side.total_s.sum(keepdims=True)
    errors = {name: count.sum(keepdims=True) for name, count in side.errors.items()}
    return SideSections(None, total_s, side.n.sum(keepdims=True), side.requests.sum(keepdims=True), errors)


def _concatenated(runs: Sequence[SideSections]) -> SideSections:
    """Return the sections of all runs, one after another, with the sums that every run has."""
    if len(runs) == 1:
        return runs[0]
    totals = [run.total_s for run in runs if run.total_s is not None]
    return SideSections(
        sample=None,
        total_s=np.concatenate(totals) if len(totals) == len(runs) else None,
        n=np.concatenate([run.n for run in runs]),
        requests=np.concatenate([run.requests for run in runs]),
        errors={
            name: np.concatenate([run.errors[name] for run in runs])
            for name in runs[0].errors
            if all(name in run.errors for run in runs)
        },
        course=STEADY if all(run.course.is_steady for run in runs) else UNKNOWN,
    )


def _of_requests(run: Frames) -> Sections:
    """Return the sections of single requests in the order of arrival, cut into equal times."""
    requests = run["requests"]
    end_s = float(requests["arrival_s"].max()) or 1.0
    sides = {}
    for role in ROLES:
        part = requests[requests["role"] == role].sort_values("arrival_s", kind="stable")
        section = arrivals_cut(part["arrival_s"].to_numpy(np.float64), end_s)
        n = _n_by_section(section)
        errors = {name: _n_by_section(section[part["status"].isin(s).to_numpy()]) for name, s in _STATUSES.items()}
        side = replace(_of_values(part["latency_s"].to_numpy(np.float64), section), requests=n, errors=errors)
        sides[role] = _with_times(side, {m: _of_values(x, section) for m, x in _token_times(part).items()})
    if not follows_profile(run, sides["source"].requests, MOST_SECTIONS):
        sides = {role: _steady(side) for role, side in sides.items()}
    return Sections(sides["source"], sides["shadow"], "requests")


def _of_values(seconds: Floats, section: Ints) -> SideSections:
    """Return the sums of requests' times, NaN where a request has none."""
    known = ~np.isnan(seconds)
    sample = Values(seconds[known], section[known], MOST_SECTIONS) if known.any() else None
    total = np.bincount(section[known], seconds[known], MOST_SECTIONS).astype(np.float64)
    n = _n_by_section(section[known])
    return SideSections(sample, total, n, n, {})


def _n_by_section(section: Ints) -> Floats:
    counts: Floats = np.bincount(section, minlength=MOST_SECTIONS).astype(np.float64)
    return counts


def _token_times(requests: pd.DataFrame) -> dict[str, Floats]:
    """Return times to the first token and per token of requests, NaN where a request has none, by measure."""
    if "first_token_s" not in requests:
        return {}
    first = _column(requests, "first_token_s")
    more = _column(requests, "output_tokens") - 1.0 if "output_tokens" in requests else np.full(first.size, np.nan)
    answered = (requests["status"] == "answered").to_numpy() & (more > 0.0)
    rest = _column(requests, "latency_s") - first
    per_token = np.divide(rest, more, out=np.full(first.size, np.nan), where=answered)
    return {FIRST_TOKEN: first, PER_TOKEN: per_token}


def _steady(side: SideSections) -> SideSections:
    return replace(side, course=STEADY, times={m: replace(of_time, course=STEADY) for m, of_time in side.times.items()})
