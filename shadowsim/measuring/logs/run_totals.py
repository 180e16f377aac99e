"""Makes a measurement of a report that has only totals and quantiles of a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pandas as pd

from shadowsim.frames import PERCENTILES, US_PER_S
from shadowsim.measuring.logs.log_lines import LogLines
from shadowsim.measuring.measurement import Measurement


def probability(percentile: str) -> float:
    """Return a percentile as a probability: 0.999 for "99.9", where a plain quotient is 0.9990000000000001."""
    return round(float(percentile) / 100.0, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTotals:
    """What a report says of a whole run; None where it does not.

    Attributes
    ----------
    n_requests : int
        With those that were not answered.
    length_s : float or None
        How long requests were sent.
    started_ns : int or None
        When, in nanoseconds since 1970.
    mean_s, least_s, most_s : float or None
        Of the latencies.
    n_4xx, n_5xx, n_other_errors : int or None
        Errors by their status, and others: requests without an answer, or with a status that the report does not tell.
    """

    n_requests: int
    length_s: float | None = None
    started_ns: int | None = None
    mean_s: float | None = None
    least_s: float | None = None
    most_s: float | None = None
    n_4xx: int | None = None
    n_5xx: int | None = None
    n_other_errors: int | None = None


def totals_measurement(
    form: str,
    totals: RunTotals,
    quantiles: Mapping[float, float],
    lacks: list[str],
    open_loop: bool | None,
    lines: LogLines | None = None,
) -> Measurement:
    """Return a measurement with one window, that of the whole run, and its quantiles; `lines` has its damaged ones."""
    row: dict[str, object] = {"time_s": 0.0, "period_s": totals.length_s, "Invocations": totals.n_requests}
    latencies = {
        "ModelLatency_Average": totals.mean_s,
        "ModelLatency_Minimum": totals.least_s,
        "ModelLatency_Maximum": totals.most_s,
        **{f"ModelLatency_{name}": quantiles.get(q) for name, q in PERCENTILES.items()},
    }
    row |= {name: value * US_PER_S for name, value in latencies.items() if value is not None}
    row |= {} if totals.n_4xx is None else {"Invocation4XXErrors": totals.n_4xx}
    row |= {} if totals.n_5xx is None else {"Invocation5XXErrors": totals.n_5xx}
    errors = [n for n in (totals.n_4xx, totals.n_5xx, totals.n_other_errors) if n is not None]
    row |= {"InvocationModelErrors": sum(errors)} if errors else {}
    started = None
    if totals.started_ns is not None:
        started = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=totals.started_ns // 1000)
    return Measurement(
        form,
        windows=pd.DataFrame([row]),
        quantiles=dict(sorted(quantiles.items())),
        started=started,
        open_loop=open_loop,
        lacks=tuple(lacks),
        n_lines=lines.n_lines if lines else 0,
        n_damaged=lines.n_damaged if lines else 0,
        first_damaged=lines.first_damaged if lines else "",
    )
