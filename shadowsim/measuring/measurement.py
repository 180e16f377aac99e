"""Holds what was measured on a real service: requests one by one, or counts and quantiles alone.

A load run, an access log and an export of CloudWatch know different things. A `Measurement` says which of them it has,
and in `lacks`, in sentences, what it has not, so that no analysis takes a gap for a zero.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from shadowsim.arrays import Flags, Floats

REQUEST_COLUMNS = (
    *("arrival_s", "latency_s", "status", "sent_s", "first_byte_s", "done_s", "first_token_s"),
    *("prompt_tokens", "output_tokens", "request_bytes", "response_bytes", "instance", "inference_id", "stage"),
)
ANSWERED = ("answered", "error_4xx", "error_5xx")  # statuses of requests that the service worked on to their end
_CLOSE = 0.1
_COARSE_S = 0.5  # times of arrival in such steps tell nothing of the gaps between them


def answered(requests: pd.DataFrame) -> Flags:
    """Return by row of `Measurement.requests` whether it was answered: without a status, whether it has a latency."""
    status = requests["status"]
    flags: Flags = (status.isin(ANSWERED) | (status.isna() & requests["latency_s"].notna())).to_numpy(np.bool_)
    return flags


def sending_s(requests: pd.DataFrame) -> Floats:
    """Return by row of `Measurement.requests` when it was sent, in s; when it arrived, where not all of that is known.

    A load generator sends a request a little after its planned time, which is no part of the service.
    """
    known = "sent_s" in requests.columns and bool(requests["sent_s"].notna().all())
    return requests["sent_s" if known else "arrival_s"].to_numpy(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """What was measured on one service, in one run.

    Attributes
    ----------
    form : str
        The format that it was read from, as people call it: "k6 CSV", "nginx access log", "shadowsim load run".
    requests : DataFrame or None
        A row per request in order of `arrival_s` (s from the first one; the planned time where there is one), with
        `latency_s` (s from `arrival_s`; missing without an answer) and `status` (the words of `frames.REQUESTS`;
        missing where the format does not tell), and of these what is known: `sent_s`, `first_byte_s`, `done_s` (s on
        the clock of `arrival_s`), `first_token_s` (s from `arrival_s`), `prompt_tokens`, `output_tokens`,
        `request_bytes`, `response_bytes`, `instance`, `inference_id`, `stage` (the number of a stage of constant load).
    token_times : DataFrame or None
        When tokens of streamed answers came: `row` (of `requests`) and `token_s` (s from its `arrival_s`), in order of
        both.
    windows : DataFrame or None
        A row per period, with `time_s`, `period_s` and those columns of `frames.WINDOWS` that are known, and further
        percentiles of ModelLatency named as those. A report of totals is one period.
    quantiles : mapping of float to float
        Probability to latency in seconds over the whole run, where single requests are not known.
    started : datetime or None
        When `arrival_s` is 0, in UTC.
    resolution_s : float
        Seconds to which times of arrival are rounded; 0 where they are not.
    latency_resolution_s : float
        Seconds to which latencies are rounded; 0 where they are not.
    open_loop : bool or None
        Whether arrivals came at their own times, whatever the answers; None where the format does not tell.
    lacks : tuple of str
        Sentences on what the format does not say, and what therefore cannot be had from it.
    n_lines, n_damaged : int
        Lines that were read from text, and those of them that could not be understood.
    first_damaged : str
        The place and cause of the first of these, or "".

    Examples
    --------
    >>> import pandas as pd, shadowsim as ss
    >>> pd.DataFrame({"arrival_s": [0.0, 0.5], "latency_s": [0.02, 0.03]}).to_csv("log.csv", index=False)
    >>> ss.read_measurement("log.csv").requests["latency_s"].tolist()
    [0.02, 0.03]
    """

    form: str
    requests: pd.DataFrame | None = field(default=None, repr=False)
    token_times: pd.DataFrame | None = field(default=None, repr=False)
    windows: pd.DataFrame | None = field(default=None, repr=False)
    quantiles: Mapping[float, float] = field(default_factory=dict)
    started: datetime | None = None
    resolution_s: float = 0.0
    latency_resolution_s: float = 0.0
    open_loop: bool | None = None
    lacks: tuple[str, ...] = ()
    n_lines: int = 0
    n_damaged: int = 0
    first_damaged: str = ""

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write what the measurement says as an HTML page, and return its path."""
        from shadowsim import write_report  # imported late: report/ imports this module

        return write_report(self, path)

    def __repr__(self) -> str:
        n = "unknown" if self.n_requests is None else f"{self.n_requests:,}"
        return f"<Measurement: {self.form}, {n} requests>"

    @property
    def n_requests(self) -> int | None:
        """How many requests came; None where counts are not known."""
        if self.requests is not None:
            return len(self.requests)
        if self.windows is None or "Invocations" not in self.windows.columns:
            return None
        return int(self.windows["Invocations"].sum())

    @property
    def span_s(self) -> float | None:
        """How long requests came: from the first to the last, or from the first period to the end of the last."""
        if self.requests is not None:
            arrival_s = self.requests["arrival_s"]
            return float(arrival_s.iloc[-1] - arrival_s.iloc[0])
        if self.windows is None:
            return None
        last = self.windows.iloc[-1]
        span_s = float(last["time_s"] + last["period_s"]) if pd.notna(last["period_s"]) else np.nan
        return span_s if np.isfinite(span_s) else None

    @property
    def rate_per_s(self) -> float | None:
        """The mean rate over the span, in requests per second; None where it is not known.

        Of single requests it is the reciprocal of the mean gap.
        """
        n, span_s = self.n_requests, self.span_s
        if n is None or not span_s:
            return None
        return (n - 1 if self.requests is not None else n) / span_s

    @property
    def gap_scv(self) -> float | None:
        """The squared coefficient of variation of the gaps between arrivals; None where times are too coarse for it."""
        if self.requests is None or len(self.requests) < 3 or self.resolution_s >= _COARSE_S:
            return None
        gaps = np.diff(self.requests["arrival_s"].to_numpy(np.float64))
        return float(gaps.var() / gaps.mean() ** 2) if gaps.mean() > 0.0 else None

    @property
    def has_latencies(self) -> bool:
        """Whether latencies of single requests are known."""
        return self.requests is not None and bool(self.requests["latency_s"].notna().any())

    def quantile(self, q: float) -> float | None:
        """Return a quantile of the latencies in seconds: of the requests, or as the format says it; None if unknown.

        Between two quantiles that the format says it is interpolated only where they are within 10 % of each other.
        """
        if self.requests is not None and self.has_latencies:
            return float(self.requests["latency_s"].quantile(q))
        if q in self.quantiles or not self.quantiles:
            return self.quantiles.get(q)
        known = np.array(sorted(self.quantiles.items()))
        after = int(np.searchsorted(known[:, 0], q))
        if after in (0, len(known)) or known[after, 1] > (1.0 + _CLOSE) * known[after - 1, 1]:
            return None
        return float(np.interp(q, known[:, 0], known[:, 1]))

    def mean_latency_s(self) -> float | None:
        """Return the mean latency in seconds; None where it is not known."""
        if self.requests is not None and self.has_latencies:
            return float(self.requests["latency_s"].mean())
        if self.windows is None or "ModelLatency_Average" not in self.windows.columns:
            return None
        weight = next((name for name in ("ModelLatency_SampleCount", "Invocations") if name in self.windows), None)
        known = self.windows[self.windows["ModelLatency_Average"].notna()]
        if known.empty or (weight is None and len(known) > 1):
            return None
        weights = known[weight].fillna(0.0).to_numpy(np.float64) if weight else np.ones(len(known))
        if weights.sum() <= 0.0:
            return None
        return float(np.average(known["ModelLatency_Average"].to_numpy(np.float64), weights=weights)) / 1e6

    def error_shares(self) -> dict[str, float]:
        """Return the share of requests by the kind of error, those that occur; empty where it is not known."""
        if self.requests is not None:
            status = self.requests["status"].dropna()
            shares = status.value_counts(normalize=True)
            return {str(name): float(share) for name, share in shares.items() if name != "answered"}
        n = self.n_requests
        if not n or self.windows is None:
            return {}
        columns = {"error_4xx": "Invocation4XXErrors", "error_5xx": "Invocation5XXErrors"}
        counts = {kind: self.windows[name].sum() for kind, name in columns.items() if name in self.windows.columns}
        if "InvocationModelErrors" in self.windows.columns:
            counts["other"] = self.windows["InvocationModelErrors"].sum() - sum(counts.values())
        return {kind: float(count) / n for kind, count in counts.items() if count > 0}
