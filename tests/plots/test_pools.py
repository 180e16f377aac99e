"""Figures of pools that change show the numbers of the frames, and actions at their exact times."""

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service

from shadowsim import InputError, frames, plots, simulate
from shadowsim.plots.pools import action_text
from shadowsim.plots.time_axis import MAX_POINTS


@pytest.fixture(scope="module")
def run():
    """A source that scales and fails and is retried, and a shadow that batches."""
    rates = {0.0: 8.0, 200.0: 20.0, 360.0: 4.0}
    steps = [{"from_s": t, "rate_per_s": rate} for t, rate in rates.items()]
    policy = {"metric": "InvocationsPerInstance", "target": 300, "min": 1, "max": 6, "out_points": 1, "in_points": 2}
    return simulate(
        scenario(
            {"process": "poisson", "profile": {"kind": "steps", "steps": steps}, "retries": "standard"},
            service(
                mean_s=0.3,
                workers=2,
                scaling=policy,
                cold_start_s=45.0,
                outages=[{"instance": i, "at_s": 100.0, "for_s": 30.0} for i in range(3)],
            ),
            service(mean_s=0.1, batching={"max_size": 4, "max_delay_s": 0.1, "marginal": 0.1}),
            source_instances=3,
            horizon_s=600.0,
            period_s=30.0,
        )
    )


def of(run, role, column):
    return run.windows.loc[run.windows["role"] == role, column].to_numpy(float)


def named(figure, name, panel=1):
    axis = "x" if panel == 1 else f"x{panel}"
    return [t for t in figure.data if t.name == name and (t.xaxis or "x") == axis][-1]


def test_instances_and_actions(run):
    figure = plots.instances_over_time(run.windows, run.actions, run.verdict, 600.0)
    for panel, role in enumerate(("source", "shadow"), start=1):
        for name, column in (
            ("serving", "serving_instance_count"),
            ("desired", "desired_instance_count"),
            ("existing (billed)", "existing_instance_count"),
        ):
            assert named(figure, name, panel).y[::2] == pytest.approx(of(run, role, column))
    actions = run.actions[run.actions["action"] != "outage"]
    assert set(actions["action"]) == {"scale_out", "scale_in"}
    marks = named(figure, "scaling")
    assert list(marks.x * 60.0) == pytest.approx(actions["time_s"].tolist())  # minutes
    assert list(marks.y) == actions["desired_after"].tolist()
    assert [s == "triangle-up" for s in marks.marker.symbol] == (actions["action"] == "scale_out").tolist()
    outages = run.actions[run.actions["action"] == "outage"]
    assert outages["time_s"].tolist() == [100.0] * 3
    assert outages["done_s"].tolist() == [130.0] * 3
    marks = named(figure, "outage")
    assert list(marks.y) == outages["serving_after"].tolist() == [2, 1, 0]
    assert "00:01:40: instance 0 fails, until 00:02:10" in marks.text


def test_actions_are_described(run):
    texts = [action_text(row) for row in run.actions.itertuples()]
    first = run.actions[run.actions["action"] == "scale_out"].iloc[0]
    sentence = f"scale out from {first['desired_before']} to {first['desired_after']} at {first['metric_value']:,.4g}"
    assert any(text.startswith(f"{sentence} per instance, decided at ") for text in texts)
    gone = run.actions[run.actions["action"] == "outage"].head(1).assign(done_s=np.nan)
    assert action_text(next(gone.itertuples())) == "instance 0 fails, never to return"


def test_too_many_outages_are_not_marked_and_the_subtitle_says_so(run):
    outage = run.actions[run.actions["action"] == "outage"].head(1)
    many = pd.concat([outage] * 501, ignore_index=True)
    figure = plots.instances_over_time(run.windows, many, run.verdict, 600.0)
    assert not [t for t in figure.data if t.name == "outage"]
    assert "More than 500 outages of the source are not marked." in figure.layout.title.subtitle.text


def test_failures_by_cause(run):
    figure = plots.failures_over_time(run.windows, run.verdict, 600.0)
    n = of(run, "source", "Invocations")
    unavailable, failed = of(run, "source", "requests_unavailable"), of(run, "source", "requests_failed")
    assert unavailable.sum() > 0
    assert failed.sum() > 0
    assert named(figure, "unavailable").y[::2] == pytest.approx(unavailable / n)
    assert named(figure, "lost in an outage").y[::2] == pytest.approx(failed / n)
    others = of(run, "source", "InvocationModelErrors") - failed
    assert named(figure, "other errors").y[::2] == pytest.approx(others / n)


def test_callers(run):
    figure = plots.callers_over_time(run.windows, run.verdict, 600.0)
    calls, attempts = of(run, "source", "calls"), of(run, "source", "Invocations")
    assert attempts.sum() > calls.sum()
    assert named(figure, "attempts").y[::2] == pytest.approx(attempts / 30.0)
    assert named(figure, "requests").y[::2] == pytest.approx(calls / 30.0)
    (success,) = [t for t in figure.data if t.xaxis == "x2"]
    assert success.y[::2] == pytest.approx(of(run, "source", "calls_answered") / calls)
    low, high = figure.layout.yaxis2.range
    assert low < min(success.y) < 1.0 < high


def test_batches_and_their_groups(run):
    figure = plots.batch_size_over_time(run.windows, run.verdict, 600.0)
    size = of(run, "shadow", "batch_size_mean")
    assert size.max() > 1.2
    (shadow,) = [t for t in figure.data if t.legendgroup == "shadow"]
    assert shadow.y[::2] == pytest.approx(size)
    n = 2 * MAX_POINTS
    windows = pd.concat([run.windows.head(2)] * n, ignore_index=True)
    windows["time_s"] = np.repeat(30.0 * np.arange(n), 2)
    windows["batch_size_mean"] = np.repeat(np.arange(n) % 2 + 1.0, 2)
    band, line = (
        t for t in plots.batch_size_over_time(windows, run.verdict, 30.0 * n).data if t.legendgroup == "shadow"
    )
    assert set(line.y) == {1.5}
    assert {float(y) for y in band.y} == {1.0, 2.0}


def test_runs_without_events_have_no_such_figures():
    plain = simulate(scenario({"process": "poisson", "rate_per_s": 5.0}, service(mean_s=0.1)))
    assert plain.actions.empty
    assert list(plain.actions) == [c.name for c in frames.ACTIONS]
    for name in ("instances_over_time", "failures_over_time", "callers_over_time", "batch_size_over_time"):
        with pytest.raises(InputError, match="windows: must be of a run with scaling, batching, outages or retries"):
            getattr(plots, name)(plain.windows)
