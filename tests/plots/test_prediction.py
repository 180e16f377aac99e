"""The figure of a prediction: a panel per measure, with the band around the prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd

from shadowsim import plots


def test_a_panel_per_measure():
    depths = np.array([0.1, 0.5, 0.9, 0.99])
    parts = []
    for measure in ("latency", "first token"):
        predicted = 0.01 / (1.0 - depths) ** 0.5
        columns = {"measured_s": 1.1 * predicted, "predicted_s": predicted}
        columns |= {"low_s": 0.9 * predicted, "high_s": 1.2 * predicted}
        parts.append(pd.DataFrame({"measure": measure, "depth": depths, **columns}))
    figure = plots.measured_and_predicted(pd.concat(parts))
    assert [trace.name for trace in figure.data if trace.showlegend] == ["band", "predicted", "measured"]
    assert len(figure.data) == 8
    # tenfold rarer quantiles are one step apart
    np.testing.assert_allclose(figure.data[2].x, -np.log10(1.0 - depths))
    np.testing.assert_allclose(figure.data[2].y, parts[0]["predicted_s"] * 1e3)
    assert "p99" in figure.layout.xaxis2.ticktext


def test_live_is_solid_and_simulated_dashed():
    of = ("callers", "live_source", "simulated_source", "live_shadow", "simulated_shadow")
    curve = pd.DataFrame({"depth": [0.1, 0.5, 0.99], "latency_s": [0.01, 0.02, 0.03]})
    figure = plots.live_and_simulated(pd.concat([curve.assign(of=name) for name in of]))
    assert [trace.name for trace in figure.data][:3] == ["callers", "source, live", "source, simulated"]
    assert [trace.line.dash for trace in figure.data] == ["dot", "solid", "dash", "solid", "dash"]
    assert figure.data[1].line.color == figure.data[2].line.color != figure.data[3].line.color
    np.testing.assert_allclose(figure.data[0].y, [10.0, 20.0, 30.0])
    assert figure.layout.xaxis.ticktext[-1] == "p99"
