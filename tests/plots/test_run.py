"""Figures of a run show the values of its frames."""

import numpy as np
import pandas as pd
import pytest
from cases import scenario

from shadowsim import frames, simulate
from shadowsim.plots.run import (
    copies,
    latency_distribution,
    latency_over_time,
    requests_over_time,
    utilisation,
    waits_over_time,
)
from shadowsim.plots.time_axis import MAX_POINTS, group_windows
from shadowsim.verdict import PoolVerdict, Verdict

POISSON = {"process": "poisson", "rate_per_s": 20.0}


@pytest.fixture(scope="module")
def run():
    return simulate(scenario(POISSON, service(0.05), horizon_s=610.0, period_s=60.0))


@pytest.fixture(scope="module")
def overloaded():
    steps = [{"from_s": 0.0, "rate_per_s": 10.0}, {"from_s": 600.0, "rate_per_s": 60.0}]
    traffic = {"process": "poisson", "profile": {"kind": "steps", "steps": steps}}
    return simulate(scenario(traffic, service(0.1), source_instances=2, horizon_s=1200.0, share=100))


def service(mean_s):
    return {"time": {"law": "exponential", "mean_s": mean_s}, "workers": 4}


def windows_of(n, period_s=60.0, **columns):
    """Return empty windows with some columns replaced: by one value, or by n values for both variants."""
    parts = []
    for role in ("source", "shadow"):
        values = {c.name: {"str": "", "Int64": 0}.get(c.dtype, 0) for c in frames.WINDOWS}
        values |= {"time_s": np.arange(n) * period_s, "variant": role.title(), "role": role, "instance_count": 1}
        parts.append(pd.DataFrame(values | columns))
    both = pd.concat(parts).sort_values(["time_s", "role"], ascending=[True, False], ignore_index=True)
    return frames.build(frames.WINDOWS, {name: both[name] for name in both})


def column_of(windows, role, column):
    return windows.loc[windows["role"] == role, column].to_numpy(float)


def lines(figure, role):
    return [t for t in figure.data if t.legendgroup == role and t.mode == "lines" and t.fill is None]


def test_each_window_is_a_step_while_there_are_few(run):
    figure = latency_over_time(run.windows, run.verdict, run.scenario.horizon_s)
    for role in ("source", "shadow"):
        p99, p50 = lines(figure, role)
        assert list(p99.y[::2]) == list(p99.y[1::2]) == list(column_of(run.windows, role, "ModelLatency_p99") / 1e3)
        assert list(p50.y[::2]) == list(column_of(run.windows, role, "ModelLatency_p50") / 1e3)
        assert list(p99.x[::2] * 60.0) == pytest.approx(list(column_of(run.windows, role, "time_s")))  # minutes
        assert p99.x[-1] * 60.0 == pytest.approx(610.0)  # the last window is shorter
    assert not [t for t in figure.data if t.fill]
    assert "windows of 60 s" in figure.layout.title.subtitle.text


def test_a_week_is_shown_in_groups_and_percentiles_are_not_averaged():
    n = 10_080
    p99 = np.random.default_rng(1).lognormal(11.0, 0.3, n)
    windows = windows_of(n, ModelLatency_p99=p99, ModelLatency_p50=2e4, Invocations=1)
    figure = latency_over_time(windows)
    line = lines(figure, "shadow")[0]
    by_group = (p99 / 1e3).reshape(-1, 30)
    assert by_group.shape[0] <= MAX_POINTS
    assert line.y[::2] == pytest.approx(np.median(by_group, axis=1))
    assert np.array_equal(line.customdata[::2], np.column_stack([by_group.min(axis=1), by_group.max(axis=1)]))
    band = next(t for t in figure.data if t.fill and t.legendgroup == "shadow")
    assert band.y.max() == by_group.max()
    assert band.y.min() == by_group.min()
    assert "groups of 30 windows (30 min)" in figure.layout.title.subtitle.text
    assert "median" in figure.layout.title.subtitle.text


def test_groups_hold_whole_windows_also_when_they_do_not_divide_the_run():
    windows = windows_of(1201, utilisation=np.arange(1201) / 1201, offered_load=0.5, Invocations=6)
    used = lines(utilisation(windows), "source")[1]
    expected = [np.mean(np.arange(a, min(a + 3, 1201))) / 1201 for a in range(0, 1201, 3)]
    assert used.y[::2] == pytest.approx(expected)
    rate = lines(requests_over_time(windows), "source")[0]
    assert rate.y == pytest.approx(np.full(802, 0.1))


def test_utilisation_is_a_mean_over_time_also_with_a_shorter_last_window():
    windows = windows_of(1001, utilisation=np.arange(1001) / 2000.0, offered_load=0.1)
    used = lines(utilisation(windows, horizon_s=1000 * 60.0 + 6.0), "source")[1]
    # 1001 = 333 x 3 + 2: the last group is a whole window and a tenth of one.
    assert used.y[-1] == pytest.approx((999 + 0.1 * 1000) / 1.1 / 2000.0)


@pytest.mark.parametrize(
    ("most_s", "unit", "drawn"), [(9e-3, "ms", 9.0), (9.0, "s", 9.0), (540.0, "min", 9.0), (7200.0, "h", 2.0)]
)
def test_waits_have_the_unit_that_suits_them(most_s, unit, drawn):
    figure = waits_over_time(windows_of(10, wait_mean_s=np.linspace(0.0, most_s, 10)))
    assert figure.layout.yaxis.title.text == f"mean wait ({unit})"
    assert lines(figure, "source")[0].y[-1] == pytest.approx(drawn)


def test_windows_without_requests_are_gaps():
    p99 = np.array([1e4, np.nan, 2e4, 3e4, np.nan, 4e4])
    windows = windows_of(6, ModelLatency_p99=p99, ModelLatency_p50=p99, Invocations=np.where(np.isnan(p99), 0, 9))
    line = lines(latency_over_time(windows), "source")[0]
    assert np.array_equal(line.y[::2], p99 / 1e3, equal_nan=True)
    assert not line.connectgaps
    dots = copies(windows, 0.5).data[1]
    assert np.array_equal(np.isnan(dots.y), np.isnan(p99))


def test_a_band_is_cut_at_gaps_and_shows_a_lone_group():
    # Groups of three windows: two with requests, one without, one with, one without ...
    pattern = np.repeat([1e4, 2e4, np.nan, 3e4, np.nan], 3)
    p99 = np.tile(pattern, 100)
    windows = windows_of(1500, ModelLatency_p99=p99, ModelLatency_p50=p99)
    band = next(t for t in latency_over_time(windows).data if t.fill)
    polygons = np.split(band.y, np.flatnonzero(np.isnan(band.y)))
    assert len(polygons) == 200
    assert np.isnan(band.x).sum() == 199
    assert list(polygons[0]) == [10.0, 10.0, 20.0, 20.0, 20.0, 20.0, 10.0, 10.0]
    assert list(polygons[1][1:]) == [30.0] * 4


def test_the_tail_at_a_buckets_edge_is_the_share_of_slower_requests(run):
    figure = latency_distribution(run.latency, run.verdict)
    requests = run.requests  # all of them: the sample is larger than the run
    for trace, role in zip(figure.data, ("source", "shadow"), strict=True):
        latency = requests.loc[requests["role"] == role, "latency_s"].to_numpy(float)
        for i in range(0, trace.x.size, 7):
            by_hand = np.mean(latency >= trace.x[i] / 1e3 * (1 - 1e-15))
            assert trace.y[i] == pytest.approx(by_hand, rel=1e-12)
        assert trace.y[0] == 1.0
        assert (np.diff(trace.y) <= 0.0).all()
        assert (trace.y > 0.0).all()  # 0 has no logarithm
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"


def test_the_tail_is_flat_where_buckets_are_empty():
    columns = {"section": [0, 1, 1], "variant": "Source", "role": "source", "low_s": [0.1, 0.1, 0.4]}
    latency = frames.build(frames.LATENCY, columns | {"high_s": [0.2, 0.2, 0.5], "count": [1, 2, 1]})
    (trace,) = latency_distribution(latency).data
    assert list(trace.x) == pytest.approx([100.0, 200.0, 400.0])
    assert list(trace.y) == [1.0, 0.25, 0.25]


def test_copies_against_the_configured_share(run):
    figure = copies(run.windows, 0.5, run.verdict, run.scenario.horizon_s)
    band, dots = figure.data
    n, n_copies = column_of(run.windows, "source", "Invocations"), column_of(run.windows, "shadow", "copies_made")
    assert list(dots.y) == list(n_copies / n)
    error = np.sqrt(0.25 / n)
    assert band.y.max() == pytest.approx(0.5 + 2.0 * error.max())
    assert band.y.min() == pytest.approx(0.5 - 2.0 * error.max())
    assert figure.layout.shapes[0].y0 == 0.5


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_copies_of_none_and_of_all(share):
    windows = windows_of(3, Invocations=10)
    windows["copies_made"] = (windows["Invocations"] * share).astype("Int64")
    low, high = copies(windows, share).layout.yaxis.range
    assert low < share < high


def test_overload_is_shaded_and_named_in_every_figure(overloaded):
    assert [p.status for p in overloaded.verdict.pools] == ["STABLE", "OVERLOADED"]
    windows, verdict = overloaded.windows, overloaded.verdict
    timed = [latency_over_time, utilisation, requests_over_time]
    figures = [plot(windows, verdict) for plot in timed] + [copies(windows, 1.0, verdict)]
    for figure in figures:
        (shade,) = (s for s in figure.layout.shapes if s.type == "rect")
        assert [shade.x0, shade.x1] == [10.0, 20.0]  # minutes
        assert shade.yref == "paper"
        assert "Shadow OVERLOADED" in [a.text for a in figure.layout.annotations]
    for figure in [*figures[:3], latency_distribution(overloaded.latency, verdict)]:
        assert {t.name for t in figure.data if t.legendgroup == "shadow" and not t.fill} <= {
            "Shadow (shadow, OVERLOADED)"
        }
        assert "Source (source)" in {t.name for t in figure.data}


def test_without_a_verdict_the_windows_are_judged(overloaded):
    figure = latency_over_time(overloaded.windows)
    assert any("OVERLOADED" in a.text for a in figure.layout.annotations)


def test_stable_pools_are_not_shaded(run):
    assert not [s for s in latency_over_time(run.windows, run.verdict).layout.shapes if s.type == "rect"]


def test_values_far_apart_stand_on_a_logarithmic_axis_with_whole_labels(overloaded, run):
    wide = latency_over_time(overloaded.windows, overloaded.verdict).layout.yaxis
    assert wide.type == "log"
    assert "100" in wide.ticktext
    assert latency_over_time(run.windows, run.verdict).layout.yaxis.type is None


def test_a_single_window_and_no_copies_at_all():
    result = simulate(scenario(POISSON, service(0.05), share=0))
    args = (result.windows, result.verdict, result.scenario.horizon_s)
    p99 = lines(latency_over_time(*args), "source")[0]
    assert list(p99.x) == [0.0, 60.0]  # seconds
    assert len(latency_distribution(result.latency, result.verdict).data) == 1
    assert list(copies(result.windows, 0.0, result.verdict).data[1].y) == [0.0]
    assert list(lines(utilisation(*args), "shadow")[1].y) == [0.0, 0.0]
    requests_over_time(*args)


def test_names_are_text_and_not_markup():
    windows = windows_of(3, variant="<b>&", Invocations=1)
    pool = PoolVerdict("shadow", "<i>", "OVERLOADED", 2.0, ((60.0, 120.0), (150.0, 300.0)), 2, "")
    figure = requests_over_time(windows, Verdict("OVERLOADED", (pool,)))
    assert figure.data[0].name == "&lt;b&gt;&amp; (source)"
    assert figure.layout.annotations[0].text == "&lt;i&gt; OVERLOADED (2 stretches)"
    assert [(s.x0, s.x1) for s in figure.layout.shapes] == [(60.0, 120.0), (150.0, 180.0)]


@pytest.mark.parametrize(("period_s", "unit"), [(1.0, "s"), (60.0, "min"), (600.0, "h"), (7200.0, "days")])
def test_the_time_axis_has_a_unit_that_suits_the_run(period_s, unit):
    figure = requests_over_time(windows_of(100, period_s, Invocations=1))
    assert figure.layout.xaxis.title.text == f"time since the start of the run ({unit})"


def groups_of(n, period_s=60.0, horizon_s=None):
    start = np.repeat(np.arange(n) * period_s, 2)
    role = np.tile(["source", "shadow"], n)
    windows = pd.DataFrame({"time_s": start, "role": role, "Invocations": np.arange(2 * n) // 2})
    return group_windows(windows, Verdict("STABLE", ()), {"source": "a", "shadow": "b"}, horizon_s)


@pytest.mark.parametrize(
    ("n", "size", "description"),
    [
        (1, 1, "windows of 60 s"),
        (500, 1, "windows of 60 s"),
        (501, 2, "groups of 2 windows (2 min)"),
        (1440, 3, "groups of 3 windows (3 min)"),
        (10_080, 30, "groups of 30 windows (30 min)"),
        (43_200, 120, "groups of 120 windows (2 h)"),
        (1_000_000, 2000, "groups of 2000 windows (33.3333 h)"),
    ],
)
def test_groups_last_a_time_that_people_can_name(n, size, description):
    g = groups_of(n)
    assert (g.size, g.description) == (size, description)
    assert len(g.edge_s) - 1 == -(-n // size) <= MAX_POINTS


def test_groups_tile_the_run_and_add_up():
    g = groups_of(1201, horizon_s=1200 * 60.0 + 7.0)
    assert g.edge_s[0] == 0.0
    assert g.edge_s[-1] == 72_007.0
    assert (np.diff(g.edge_s)[:-1] == 180.0).all()
    for role in ("source", "shadow"):
        assert g.aggregate(role, "Invocations", "sum").sum() == 1200 * 1201 / 2
    assert g.spans[0] == "00:00:00 to 00:03:00"


def test_a_mean_over_time_weighs_the_shorter_last_window_less():
    g = groups_of(3, horizon_s=130.0)
    assert g.mean("source", "Invocations").tolist() == [0.0, 1.0, 2.0]
    long = groups_of(1001, horizon_s=60_006.0)
    assert long.mean("source", "Invocations")[-1] == pytest.approx((999 * 60 + 1000 * 6) / 66)
