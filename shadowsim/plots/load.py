"""Draws a load run: latency over time and by percentile, and requests planned, sent and failed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.frames import LATENCY_MEASURE, lengths_s, quantiles
from shadowsim.plots.style import COLOURS, GREY, INK, canvas, log_axis, value_axis

_QUANTILES = {"p50": COLOURS["source"], "p95": COLOURS["shadow"], "p99": INK}


def load_latency_over_time(windows: pd.DataFrame) -> go.Figure:
    """Plot p50, p95 and p99 of the latency of a load run in each window.

    Parameters
    ----------
    windows : DataFrame
        The `windows` frame of a load run.
    """
    figure = canvas("Latency over time", "From the planned time of each request to the end of its answer, by window.")
    at, values = windows["time_s"].to_numpy(np.float64), [np.empty(0)]
    for name, colour in _QUANTILES.items():
        latency_ms = windows[f"ModelLatency_{name}"].to_numpy(np.float64) / 1e3
        values.append(latency_ms)
        figure.add_trace(_line(at, latency_ms, name, colour, f"{name} %{{y:,.3~r}} ms"))
    figure.update_yaxes(**value_axis(np.concatenate(values), "latency", "ms"))
    return figure.update_xaxes(title_text="time (s)")


def load_over_time(windows: pd.DataFrame, horizon_s: float) -> go.Figure:
    """Plot the rates at which requests were planned, sent and failed.

    Parameters
    ----------
    windows : DataFrame
        The `windows` frame of a load run.
    horizon_s : float
        End of the last window.
    """
    figure = canvas("Requests over time", "Planned and sent requests per second, and failures, by window.")
    at, length = windows["time_s"].to_numpy(np.float64), lengths_s(windows, horizon_s)
    series = {
        "planned": (windows["requests_planned"], GREY),
        "sent": (windows["Invocations"], COLOURS["source"]),
        "failed": (windows["InvocationModelErrors"], COLOURS["shadow"]),
    }
    for name, (counts, colour) in series.items():
        per_s = counts.to_numpy(np.float64, na_value=np.nan) / length
        line = _line(at, per_s, name, colour, f"{name} %{{y:,.4~r}}/s")
        figure.add_trace(line.update(line_dash="dot" if name == "planned" else "solid"))
    figure.update_yaxes(title_text="requests per second", rangemode="tozero")
    return figure.update_xaxes(title_text="time (s)")


def load_quantiles(latency: pd.DataFrame) -> go.Figure:
    """Plot latency against the share of slower requests, as HdrHistogram's percentile plots do.

    Parameters
    ----------
    latency : DataFrame
        The `latency` frame of a load run.
    """
    figure = canvas("Latency by percentile", "The share of slower requests grows smaller to the right.")
    n = int(latency["count"].sum())
    if n:
        tails = np.geomspace(1.0, 1.0 / n, 200)
        values_ms = quantiles(latency, (1.0 - tails).tolist(), LATENCY_MEASURE).to_numpy(np.float64)[0] * 1e3
        hover = "%{x:.3~p} slower than %{y:,.4~r} ms<extra></extra>"
        style = {"color": COLOURS["source"], "width": 2}
        figure.add_trace(go.Scatter(x=tails, y=values_ms, mode="lines", line=style, hovertemplate=hover))
        marks = [10.0**-k for k in range(int(np.log10(n)) + 1)]
        ticks = {"tickvals": marks, "ticktext": [f"{100 * mark:.6g} %" for mark in marks]}
        figure.update_xaxes(type="log", autorange="reversed", title_text="share of slower requests", **ticks)
        figure.update_yaxes(title_text="latency (ms, logarithmic)", **log_axis(values_ms[values_ms > 0.0]))
    return figure.update_layout(hovermode="closest", showlegend=False)


def _line(at: Floats, values: Floats, name: str, colour: str, hover: str) -> go.Scatter:
    style = {"color": colour, "width": 2, "shape": "hv"}
    return go.Scatter(x=at, y=values, name=name, mode="lines", line=style, hovertemplate=f"{hover}<extra></extra>")
