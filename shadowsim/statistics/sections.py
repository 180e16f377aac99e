"""A run, or several, cut into sections: what each of them holds of the source and of the shadow.

Whatever wrote the frames, a comparison needs few sums of each section; here they are had of the `latency` frame, of a
`requests` frame that is whole, of `windows` alone, or of independent runs, each of which is then one section.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shadowsim import frames as schema
from shadowsim.arrays import Floats, Ints
from shadowsim.errors import InputError, nearest
from shadowsim.frames import MOST_SECTIONS, ROLES
from shadowsim.statistics.batch_means import LEAST, traffic_moments
from shadowsim.statistics.samples import Buckets, Sample, Values

METHODS = ("sections", "replications", "requests", "windows")
ERRORS = {
    "error_rate_4xx": "Invocation4XXErrors",
    "error_rate_5xx": "Invocation5XXErrors",
    "error_rate": "InvocationModelErrors",
}
_STATUSES = {
    "error_rate_4xx": ("error_4xx",),
    "error_rate_5xx": ("error_5xx", "refused"),
    "error_rate": ("error_4xx", "error_5xx", "timed_out", "refused", "broken"),
}

_AXIS = {"windows": "time_s", "latency": "section", "requests": "request"}
_US = 1e6

Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True, slots=True)
class SideSections:
    """One variant, section by section.

    Attributes
    ----------
    sample : Buckets, Values or None
        Its latencies in seconds, where they are known.
    total_s, n : ndarray of float64, shape (sections,), or None
        Sum of latency, and how many requests have one.
    requests : ndarray of float64, shape (sections,)
    errors : mapping of str to ndarray
        Requests that failed, by metric.
    moments : ndarray of float64, or None
        Of the traffic, where it follows a profile: see `batches.traffic_moments`.
    """

    sample: Sample | None
    total_s: Floats | None
    n: Floats
    requests: Floats
    errors: Mapping[str, Floats]
    moments: Floats | None = None


@dataclass(frozen=True, slots=True)
class Sections:
    """Both variants; `independent` when the sections are runs of their own, so that none need be joined."""

    source: SideSections
    shadow: SideSections
    how: str
    independent: bool = False

    def side(self, role: str) -> SideSections:
        """Return the source's or the shadow's sections."""
        return self.source if role == "source" else self.shadow


def frames_of(runs: object) -> list[Frames]:
    """Return the frames of one run or of several, from whatever holds them.

    Raises
    ------
    InputError
        When it is none of these, or holds no frame.
    """
    if isinstance(runs, (list, tuple)):
        if not runs:
            raise InputError("frames", "must hold at least one run")
        return [one for run in runs for one in frames_of(run)]
    if isinstance(runs, (str, os.PathLike)):
        return [_saved(Path(runs))]
    held = {name: runs.get(name) if isinstance(runs, Mapping) else getattr(runs, name, None) for name in schema.SCHEMAS}
    found = {name: frame for name, frame in held.items() if isinstance(frame, pd.DataFrame) and len(frame)}
    if not found:
        raise InputError(
            "frames", "must be a result, its directory, or hold a windows, latency or requests frame", runs
        )
    for name, frame in found.items():
        missing = [c for c in ("role", _AXIS[name]) if c not in frame.columns]
        if missing:
            raise InputError(f"frames.{name}", f"lacks the columns {', '.join(missing)}")
        if not frame["role"].isin(ROLES).all():
            odd = frame["role"][~frame["role"].isin(ROLES)].iloc[0]
            raise InputError(f"frames.{name}.role", "must be source or shadow", odd)
    return [found]


def _saved(folder: Path) -> Frames:
    if not os.path.isdir(folder):
        raise InputError(str(folder), "is not a directory with a saved result")
    files = {name: folder / f"{name}.parquet" for name in schema.SCHEMAS}
    found = {name: schema.read(file, schema.SCHEMAS[name]) for name, file in files.items() if file.exists()}
    if not found:
        raise InputError(str(folder), f"holds none of {', '.join(f.name for f in files.values())}")
    return found


def sections_of(runs: Sequence[Frames], method: str | None) -> Sections:
    """Cut runs into sections, by the method that their frames allow, or by one of `METHODS`.

    Raises
    ------
    InputError
        When the method is unknown or needs frames that are not there.
    """
    method = _best(runs) if method is None else method
    if method not in METHODS:
        raise InputError("method", f"must be one of {', '.join(METHODS)}", method, hint=nearest(method, METHODS))
    needs = method if method in ("requests", "windows") else "latency"
    if any(needs not in run for run in runs):
        raise InputError(f"frames.{needs}", f"is needed by method {method}")
    if needs != "latency" and len(runs) > 1:
        raise InputError("frames", f"must be a single run for method {method}", len(runs))
    if method == "replications" and len(runs) < LEAST:
        raise InputError("frames", f"must hold at least {LEAST} runs for method replications", len(runs))
    if method == "requests":
        return _of_requests(runs[0]["requests"])
    if method == "windows":
        n = min(MOST_SECTIONS, runs[0]["windows"]["time_s"].nunique())
        sums = {role: _window_sums(runs[0]["windows"], role, n) for role in ROLES}
        return Sections(SideSections(None, **sums["source"]), SideSections(None, **sums["shadow"]), method)
    return _of_latency(runs, method)


def is_whole(run: Frames) -> bool:
    """Whether the `requests` frame holds every request of the source, and so all copies: none is missing in between."""
    number = np.sort(run["requests"].loc[run["requests"]["role"] == "source", "request"].to_numpy(np.int64))
    if not number.size or number[-1] - number[0] + 1 != number.size:
        return False
    if "windows" not in run:
        return True
    windows = run["windows"]
    return bool(windows.loc[windows["role"] == "source", "Invocations"].sum() == number.size)


def arrivals_cut(arrival_s: Floats, end_s: float) -> Ints:
    """The section of each arrival: a hundred of equal length between 0 and the end."""
    return np.minimum(arrival_s / end_s * MOST_SECTIONS, MOST_SECTIONS - 1).astype(np.int64)


def _best(runs: Sequence[Frames]) -> str:
    if len(runs) > 1:
        return "replications" if len(runs) >= LEAST else "sections"
    run = runs[0]
    if "latency" in run and run["latency"]["section"].max() >= LEAST - 1:
        return "sections"
    if "requests" in run and is_whole(run):
        return "requests"
    return next(m for m, frame in (("sections", "latency"), ("windows", "windows"), ("requests", "requests"))
                if frame in run)  # fmt: skip


def _of_latency(runs: Sequence[Frames], method: str) -> Sections:
    """From the buckets of one run, or of several one after another; replications are a section each."""
    whole = method == "replications"
    low_s, first = np.unique(np.concatenate([_column(run["latency"], "low_s") for run in runs]), return_index=True)
    high_s = np.concatenate([_column(run["latency"], "high_s") for run in runs])[first]
    counts: dict[str, list[NDArray[np.int64]]] = {role: [] for role in ROLES}
    sums: dict[str, list[dict[str, Any]]] = {role: [] for role in ROLES}
    for run in runs:
        latency = run["latency"]
        n = int(latency["section"].max()) + 1
        if "windows" in run:
            n = max(n, min(MOST_SECTIONS, run["windows"]["time_s"].nunique()))
        at = latency["section"].to_numpy() * low_s.size + np.searchsorted(low_s, _column(latency, "low_s"))
        of_shadow, count = (latency["role"] == "shadow").to_numpy(), latency["count"].to_numpy()
        for role in ROLES:
            mine = of_shadow if role == "shadow" else ~of_shadow
            table = np.bincount(at[mine], count[mine], n * low_s.size).astype(np.int64).reshape(n, low_s.size)
            summed = _window_sums(run["windows"], role, n) if "windows" in run else _bucket_sums(low_s, high_s, table)
            counts[role].append(table.sum(axis=0, keepdims=True) if whole else table)
            sums[role].append(_added(summed) if whole else summed)
    samples = {role: Buckets(low_s, high_s, np.concatenate(counts[role]), _extremes_s(runs, role)) for role in ROLES}
    sides = {role: SideSections(samples[role] if samples[role].n else None, **_chained(sums[role])) for role in ROLES}
    return Sections(sides["source"], sides["shadow"], method, independent=whole)


def _extremes_s(runs: Sequence[Frames], role: str) -> tuple[float, float]:
    """The least and the greatest latency of all runs; without bounds where a run does not tell."""
    names = ["ModelLatency_Minimum", "ModelLatency_Maximum"]
    if not all("windows" in run and set(names) <= set(run["windows"].columns) for run in runs):
        return -math.inf, math.inf
    found = pd.concat([run["windows"].loc[run["windows"]["role"] == role, names] for run in runs]) / _US
    least, greatest = float(found[names[0]].min()), float(found[names[1]].max())
    return (-math.inf, math.inf) if math.isnan(least + greatest) else (least, greatest)


def _window_sums(windows: pd.DataFrame, role: str, n_sections: int) -> dict[str, Any]:
    """Sums of the windows of each section, which holds whole windows: window w of W is in section w n // W."""
    mine = (windows["role"] == role).to_numpy()
    times, window = np.unique(_column(windows, "time_s"), return_inverse=True)
    section = window[mine] * n_sections // times.size

    def summed(values: Floats) -> Floats:
        sums: Floats = np.bincount(section, np.nan_to_num(values[mine]), n_sections).astype(np.float64)
        return sums

    requests = summed(_column(windows, "Invocations")) if "Invocations" in windows else np.zeros(n_sections)
    counted = next((c for c in ("ModelLatency_SampleCount", "Invocations") if c in windows), None)
    answered = _column(windows, counted) if counted else None
    total = None
    if answered is not None and "ModelLatency_Average" in windows:
        total = summed(_column(windows, "ModelLatency_Average") * answered) / _US
    by_window: Floats = np.zeros(times.size)
    if answered is not None:
        by_window += np.bincount(window[mine], np.nan_to_num(answered[mine]), times.size)
    return {
        "total_s": total,
        "n": np.zeros(n_sections) if answered is None else summed(answered),
        "requests": requests,
        "errors": {m: summed(_column(windows, column)) for m, column in ERRORS.items() if column in windows},
        "moments": traffic_moments(by_window, n_sections),
    }


def _column(frame: pd.DataFrame, name: str) -> Floats:
    return frame[name].to_numpy(np.float64, na_value=np.nan)


def _bucket_sums(low_s: Floats, high_s: Floats, count: NDArray[np.int64]) -> dict[str, Any]:
    n = count.sum(axis=1)
    return {"total_s": count @ (0.5 * (low_s + high_s)), "n": n, "requests": n, "errors": {}, "moments": None}


def _added(sums: Mapping[str, Any]) -> dict[str, Any]:
    """All sections as one."""
    return {
        key: {name: _added({"": x})[""] for name, x in value.items()}
        if isinstance(value, Mapping)
        else value if value is None else value.sum(keepdims=True)
        for key, value in sums.items()
    }  # fmt: skip


def _chained(sums: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sections of all runs, one after another; what one run lacks, none has."""
    if len(sums) == 1:
        return dict(sums[0])
    errors = set.intersection(*(set(s["errors"]) for s in sums))
    total = None if any(s["total_s"] is None for s in sums) else np.concatenate([s["total_s"] for s in sums])
    return {
        "total_s": total,
        "n": np.concatenate([s["n"] for s in sums]),
        "requests": np.concatenate([s["requests"] for s in sums]),
        "errors": {name: np.concatenate([s["errors"][name] for s in sums]) for name in ERRORS if name in errors},
    }


def _of_requests(requests: pd.DataFrame) -> Sections:
    """From single requests in the order of their arrival, cut into equal times."""
    end_s = float(requests["arrival_s"].max()) or 1.0
    sides = {}
    for role in ROLES:
        part = requests[requests["role"] == role].sort_values("arrival_s", kind="stable")
        section = arrivals_cut(part["arrival_s"].to_numpy(np.float64), end_s)
        latency = part["latency_s"].to_numpy(np.float64)
        some = ~np.isnan(latency)
        sample = Values(latency[some], section[some], MOST_SECTIONS) if some.any() else None

        def counted(mark: NDArray[np.bool_], section: Ints = section) -> Floats:
            counts: Floats = np.bincount(section[mark], minlength=MOST_SECTIONS).astype(np.float64)
            return counts

        errors = {n: counted(part["status"].isin(s).to_numpy()) for n, s in _STATUSES.items()}
        total = np.bincount(section[some], latency[some], MOST_SECTIONS).astype(np.float64)
        sides[role] = SideSections(sample, total, counted(some), counted(np.ones(section.size, np.bool_)), errors)
    return Sections(sides["source"], sides["shadow"], "requests")
