"""Describes a measurement: its form, span, rate, latencies and errors, and what it lacks."""

from __future__ import annotations

import math

from shadowsim.measuring.measurement import Measurement
from shadowsim.text import count, duration, percent, rate, significant, time_text, wrapped

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_INDENT = 11
_LEAST_BEYOND = 5  # requests beyond a quantile that is shown
_LOOPS = {
    True: "open: requests came at their own times",
    False: "closed: requests waited for answers",
    None: "not known",
}


def overview_object(measurement: Measurement) -> dict[str, object]:
    """Return what a measurement says, for machines; None for what is not known."""
    started = measurement.started
    return {
        "form": measurement.form,
        "requests": measurement.n_requests,
        "started": None if started is None else started.isoformat(),
        "span_s": measurement.span_s,
        "rate_per_s": measurement.rate_per_s,
        "gap_scv": measurement.gap_scv,
        "mean_latency_s": measurement.mean_latency_s(),
        **{f"{_name(q)}_s": measurement.quantile(q) for q in QUANTILES},
        "errors": measurement.error_shares(),
        "periods": None if measurement.windows is None else len(measurement.windows),
        "resolution_s": measurement.resolution_s,
        "latency_resolution_s": measurement.latency_resolution_s,
        "open_loop": measurement.open_loop,
        "lines": measurement.n_lines,
        "damaged": measurement.n_damaged,
        "first_damaged": measurement.first_damaged or None,
        "lacks": list(measurement.lacks),
    }


def overview_text(measurement: Measurement) -> str:
    """Return what a measurement says, for people."""
    lines = [wrapped(text, f"  {label}".ljust(_INDENT), " " * _INDENT) for label, text in overview_rows(measurement)]
    return "\n".join([measurement.form, *lines])


def overview_rows(measurement: Measurement) -> list[tuple[str, str]]:
    """Return what a measurement says as labels and texts; a label "" continues the one above."""
    rows = [*_arrivals(measurement), ("latency", _latencies(measurement)), ("errors", _errors(measurement))]
    rows.append(("loop", _LOOPS[measurement.open_loop]))
    if measurement.n_damaged:
        what = f"{measurement.n_damaged:,} of {measurement.n_lines:,} lines; the first is {measurement.first_damaged}"
        rows.append(("damaged", what))
    return rows + [("lacks" if i == 0 else "", sentence) for i, sentence in enumerate(measurement.lacks)]


def _arrivals(measurement: Measurement) -> list[tuple[str, str]]:
    n, span_s, per_s = measurement.n_requests, measurement.span_s, measurement.rate_per_s
    words = [] if n is None else [f"{count(n)} request{'s' if n != 1 else ''}"]
    if span_s:
        words.append(f"in {duration(span_s) if span_s >= 90.0 else time_text(span_s)}")
    if measurement.started is not None:
        words.append(f"from {measurement.started:%Y-%m-%d %H:%M:%S} UTC")
    text = " ".join(words) + (f": {rate(float(significant(per_s).replace(',', '')))}" if per_s else "")
    rows = [("arrivals", text or "not known")]
    if measurement.windows is not None and len(measurement.windows) > 1:
        period_s = float(measurement.windows["period_s"].iloc[0])
        rows.append(("", f"{len(measurement.windows):,} periods of {time_text(period_s)}"))
    scv = measurement.gap_scv
    if scv is not None:
        rows.append(("gaps", f"SCV {significant(scv)} (1 for Poisson arrivals, 0 for even ones)"))
    return rows


def _latencies(measurement: Measurement) -> str:
    mean_s = measurement.mean_latency_s()
    n = measurement.n_requests
    shown = [] if mean_s is None else [f"mean {time_text(mean_s)}"]
    for q in QUANTILES:
        value = measurement.quantile(q)
        enough = n is None or not measurement.has_latencies or n * (1.0 - q) >= _LEAST_BEYOND
        if value is not None and math.isfinite(value) and enough:
            shown.append(f"{_name(q)} {time_text(value)}")
    return ", ".join(shown) or "not known"


def _errors(measurement: Measurement) -> str:
    shares = measurement.error_shares()
    if shares:
        return ", ".join(f"{kind} {percent(share, 2)}" for kind, share in sorted(shares.items()))
    known = measurement.requests is not None and bool(measurement.requests["status"].notna().any())
    windows = measurement.windows
    known |= windows is not None and any(str(name).endswith("Errors") for name in windows.columns)
    return "none" if known else "not known"


def _name(q: float) -> str:
    return f"p{100.0 * q:g}"
