"""Figures of load runs: they show the frames' own values, and survive a run without answers."""

import numpy as np
import pytest
from loading import service

import shadowsim as ss
from shadowsim import plots
from shadowsim.measuring.generator.saturation import GeneratorLimits


@pytest.fixture(scope="module", params=[True, False], ids=["answered", "dead"])
def run(request):
    limits = GeneratorLimits(lag_s=20.0, cpu=100.0)
    with service() as target:
        url = target.url if request.param else "http://127.0.0.1:1/"
        return ss.load(url, rate_per_s=100, duration_s=0.5, limits=limits, keep_going=True)


def test_latency_over_time(run):
    figure = plots.load_latency_over_time(run.windows)
    assert [trace.name for trace in figure.data] == ["p50", "p95", "p99"]
    assert np.array_equal(figure.data[2].y, run.windows["ModelLatency_p99"] / 1e3, equal_nan=True)


def test_requests_over_time(run):
    figure = plots.load_over_time(run.windows, run.scenario.horizon_s)
    planned, sent, failed = (np.asarray(trace.y) for trace in figure.data)
    length_s = run.scenario.period_s
    assert planned.sum() * length_s == pytest.approx(len(run.requests))
    assert np.array_equal(planned, sent)
    assert failed.sum() * length_s == pytest.approx((run.requests["status"] != "answered").sum())


def test_quantiles(run):
    figure = plots.load_quantiles(run.latency)
    if len(run.latency) == 0:
        assert not figure.data
        return
    y = np.asarray(figure.data[0].y)
    assert (np.diff(y) >= 0).all()
    *_, second, greatest = np.sort(run.requests["latency_s"].dropna()) * 1e3
    assert 0.99 * second <= y[-1] <= 1.01 * greatest


def test_the_page_of_any_run(run, tmp_path):
    page = run.report(tmp_path / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert run.verdict.status in page
    assert "What was sent" in page
