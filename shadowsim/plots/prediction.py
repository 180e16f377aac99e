"""Draws measured latencies beside predicted or simulated ones, with the band of a prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.plots.style import BANDS, COLOURS, GREY, canvas, value_axis

_TICKS = (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999)


def measured_and_predicted(curve: pd.DataFrame) -> go.Figure:
    """Plot measured quantiles and the predicted ones with their band.

    Parameters
    ----------
    curve : DataFrame
        `ServicePrediction.curve`.

    Returns
    -------
    Figure
        One panel per measure, in ms; along the axis, the share of requests that take longer shrinks tenfold per step.
    """
    measures = list(dict.fromkeys(curve["measure"]))
    subtitle = "Band: where 95 % of simulated runs of a right model lie, quantile by quantile."
    figure = canvas("Measured and predicted latency", subtitle, rows=len(measures))
    for row, measure in enumerate(measures, start=1):
        part = curve[curve["measure"] == measure]
        x = _scale(part["depth"].to_numpy(np.float64))
        low, mid, high, measured = (
            part[column].to_numpy(np.float64) * 1e3 for column in ("low_s", "predicted_s", "high_s", "measured_s")
        )
        first = row == 1
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
        figure.add_trace(go.Scatter(x=x, y=low, showlegend=False, **edge), row, 1)
        figure.add_trace(
            go.Scatter(x=x, y=high, name="band", fill="tonexty", fillcolor=BANDS["source"], showlegend=first, **edge),
            row,
            1,
        )
        for name, y, role, dash in (("predicted", mid, "source", "dash"), ("measured", measured, "shadow", "solid")):
            line = {"color": COLOURS[role], "dash": dash}
            hover = f"{name} %{{y:,.3~r}} ms<extra></extra>"
            figure.add_trace(
                go.Scatter(x=x, y=y, name=name, mode="lines", line=line, hovertemplate=hover, showlegend=first), row, 1
            )
        figure.update_yaxes(row=row, col=1, **value_axis(np.concatenate([low, high, measured]), measure, "ms"))
    return _quantile_axis(figure, float(curve["depth"].max())).update_xaxes(
        title_text="quantile", row=len(measures), col=1
    )


def live_and_simulated(curves: pd.DataFrame) -> go.Figure:
    """Plot the quantiles of a live shadow test, of its simulation, and of what its callers measured.

    Parameters
    ----------
    curves : DataFrame
        `LiveRehearsal.curves`.

    Returns
    -------
    Figure
        Latencies in ms; along the axis, the share of requests that take longer shrinks tenfold per step.
    """
    figure = canvas("Live and simulated latency", "Source and shadow: solid live, dashed simulated. Callers: dotted.")
    for of, part in curves.groupby("of", sort=False):
        kind, _, role = str(of).partition("_")
        dash = {"live": "solid", "simulated": "dash"}.get(kind, "dot")
        name = f"{role}, {kind}" if role else kind
        latency_ms = part["latency_s"].to_numpy(np.float64) * 1e3
        figure.add_trace(
            go.Scatter(
                x=_scale(part["depth"].to_numpy(np.float64)),
                y=latency_ms,
                name=name,
                mode="lines",
                line={"color": COLOURS.get(role, GREY), "dash": dash, "width": 2},
                hovertemplate=f"{name} %{{y:,.3~r}} ms<extra></extra>",
            )
        )
    figure.update_yaxes(**value_axis(curves["latency_s"].to_numpy(np.float64) * 1e3, "latency", "ms"))
    return _quantile_axis(figure, float(curves["depth"].max())).update_xaxes(title_text="quantile")


def _quantile_axis(figure: go.Figure, deepest: float) -> go.Figure:
    """Name the quantiles along the axis, down to the deepest."""
    ticks = [p for p in _TICKS if p <= deepest + 1e-9]
    return figure.update_xaxes(
        tickvals=_scale(np.array(ticks)), ticktext=["p0", *(f"p{100.0 * p:g}" for p in ticks[1:])]
    )


def _scale(depths: Floats) -> Floats:
    return np.asarray(-np.log10(1.0 - depths), np.float64)
