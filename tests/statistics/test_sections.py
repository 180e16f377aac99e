"""Sections: the same sums from every frame that has them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service

from shadowsim import InputError, simulate
from shadowsim.statistics.sections import ERRORS, arrivals_cut, frames_of, is_complete, sections_of


@pytest.fixture(scope="module")
def run():
    """13 windows of 10 s in 13 sections, and every request; refusals, time-outs and errors."""
    poor = service("lognormal", 0.1, 2, queue_limit=3, error_4xx=0.02, error_5xx=0.01)
    return simulate(
        scenario({"process": "poisson", "rate_per_s": 20.0}, poor, horizon_s=130.0, period_s=10.0,
                 endpoint={"timeout_s": 0.3})
    )  # fmt: skip


def sides(sections):
    return {"source": sections.source, "shadow": sections.shadow}


def test_sections_hold_what_the_windows_and_the_buckets_say(run):
    sections = sections_of(frames_of(run), None)
    assert sections.method == "sections"
    for role, side in sides(sections).items():
        windows = run.windows[run.windows["role"] == role]
        assert side.n.size == 13
        assert side.requests.tolist() == windows["Invocations"].tolist()
        # which is what the kernel put into the section's buckets
        assert side.n.tolist() == side.sample.n_by_section.tolist()
        assert side.total_s.sum() == pytest.approx(run.summary().set_index("role")["mean_s"][role] * side.n.sum())
        for name, column in ERRORS.items():
            assert side.errors[name].tolist() == windows[column].tolist()
            assert side.errors[name].sum() > 0


def test_windows_belong_to_their_sections():
    many = simulate(scenario({"process": "poisson", "rate_per_s": 20.0}, service(mean_s=0.01), horizon_s=237.0,
                             period_s=1.0, sample_requests=0))  # fmt: skip
    for side in sides(sections_of(frames_of(many), None)).values():
        assert side.n.size == 100
        assert side.n.tolist() == side.sample.n_by_section.tolist()


def test_single_requests_say_the_same(run):
    complete, single = sections_of(frames_of(run), None), sections_of([{"requests": run.requests}], None)
    assert single.method == "requests"
    for role in ("source", "shadow"):
        a, b = sides(complete)[role], sides(single)[role]
        assert a.n.sum() == b.n.sum() == b.sample.n
        assert a.requests.sum() == b.requests.sum()
        assert a.total_s.sum() == pytest.approx(b.total_s.sum())
        assert {k: v.sum() for k, v in a.errors.items()} == {k: v.sum() for k, v in b.errors.items()}
        for q in (0.5, 0.99):
            assert a.sample.quantile(q) == pytest.approx(b.sample.quantile(q), rel=0.01)


def test_a_whole_frame_is_told_from_a_sample(run):
    assert is_complete({"requests": run.requests, "windows": run.windows})
    assert is_complete({"requests": run.requests})
    assert not is_complete({"requests": run.requests[run.requests["request"] != 7]})
    assert not is_complete({"requests": run.requests[run.requests["request"] < 100], "windows": run.windows})


def test_windows_alone_give_sums_without_quantiles(run):
    sections = sections_of([{"windows": run.windows}], None)
    assert sections.method == "windows"
    complete = sections_of(frames_of(run), None)
    for role, side in sides(sections).items():
        assert side.sample is None
        assert side.total_s.tolist() == sides(complete)[role].total_s.tolist()


def test_ten_runs_are_ten_sections_and_two_runs_twenty_six(run):
    ten = sections_of(frames_of([run] * 10), None)
    assert (ten.method, ten.independent, ten.source.n.size) == ("replications", True, 10)
    one = sections_of(frames_of(run), None)
    assert ten.source.n.tolist() == [one.source.n.sum()] * 10
    assert ten.shadow.errors["error_rate"].tolist() == [one.shadow.errors["error_rate"].sum()] * 10
    assert ten.source.sample.quantile(0.9) == pytest.approx(one.source.sample.quantile(0.9))
    two = sections_of(frames_of([run, run]), None)
    assert (two.method, two.independent, two.source.n.size) == ("sections", False, 26)
    assert two.source.n.tolist() == one.source.n.tolist() * 2


def test_latency_alone_gives_means_to_within_a_bucket(run):
    alone, complete = sections_of([{"latency": run.latency}], None), sections_of(frames_of(run), None)
    assert alone.source.total_s == pytest.approx(complete.source.total_s, rel=0.008)
    assert alone.source.errors == {}


def test_frames_come_from_whatever_holds_them(run, tmp_path):
    folder = run.save(tmp_path / "run")
    (folder / "requests.parquet").unlink()
    assert set(frames_of(folder)[0]) == {"windows", "latency"}
    assert set(frames_of(str(folder))[0]) == {"windows", "latency"}
    assert set(frames_of(SimpleNamespace(windows=run.windows, latency=None))[0]) == {"windows"}
    assert set(frames_of({"requests": run.requests, "windows": run.windows.iloc[:0]})[0]) == {"requests"}


def test_arrivals_are_cut_into_equal_times():
    assert arrivals_cut(np.array([0.0, 0.099, 5.0, 9.99, 10.0]), 10.0).tolist() == [0, 0, 50, 99, 99]


@pytest.mark.parametrize(
    ("runs", "method", "message"),
    [
        ({}, None, "frames: must be a result"),
        ([], None, "frames: must hold at least one run"),
        (7, None, "frames: must be a result"),
        ("nowhere/at/all", None, "nowhere/at/all: is not a directory"),
        ({"windows": pd.DataFrame({"role": ["source"]})}, None, "frames.windows: lacks the columns time_s"),
        ({"windows": pd.DataFrame({"role": ["a"], "time_s": [0.0]})}, None, "frames.windows.role: must be source or"),
        ({"windows": pd.DataFrame({"role": ["source"], "time_s": [0.0]})}, "requests", "frames.requests: is needed by"),
        ({"windows": pd.DataFrame({"role": ["source"], "time_s": [0.0]})}, "window", "did you mean windows?"),
    ],
)
def test_frames_that_cannot_be_compared_are_refused(runs, method, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        sections_of(frames_of(runs), method)


def test_too_few_runs_for_replications_are_refused(run):
    with pytest.raises(InputError, match="frames: must hold at least 10 runs for method replications, got 9"):
        sections_of(frames_of([run] * 9), "replications")
    with pytest.raises(InputError, match="frames: must be a single run for method requests, got 2"):
        sections_of(frames_of([run, run]), "requests")


def test_no_quantile_passes_what_was_seen(run):
    """Many time out after 0.3 s, in a bucket that reaches further."""
    for role, side in sides(sections_of(frames_of(run), None)).items():
        row = run.summary().set_index("role").loc[role]
        assert [side.sample.quantile(q) for q in (0.5, 0.999, 1.0)] == pytest.approx(
            [row["p50_s"], row["p99_9_s"], row["maximum_s"]]
        )
        assert side.sample.quantile(1.0) <= 0.3 * (1 + 1e-12)


@pytest.mark.parametrize(
    ("traffic", "has_profile", "cycle_s"),
    [
        ({"process": "poisson", "rate_per_s": 5.0}, False, 0.0),
        ({"process": "poisson", "profile": {"kind": "steps", "steps": [{"from_s": 0, "rate_per_s": 5}]}}, True, 0.0),
        ({"process": "mmpp", "rates_per_s": [2.0, 8.0], "mean_sojourn_s": [3.0, 4.0]}, False, 7.0),
        ([{"process": "poisson", "rate_per_s": 5.0},
          {"process": "mmpp", "rates_per_s": [2.0, 8.0], "mean_sojourn_s": [1.0, 1.0]}], False, 2.0),
    ],
)  # fmt: skip
def test_a_run_knows_its_traffic(tmp_path, traffic, has_profile, cycle_s):
    run = simulate(scenario(traffic, service(mean_s=0.01), share=100, horizon_s=70.0, period_s=0.7))
    for frames in (*frames_of(run), *frames_of(run.save(tmp_path / "run"))):
        assert (frames.has_profile, frames.cycle_s) == (has_profile, cycle_s)
    (alone,) = frames_of({"windows": run.windows, "latency": run.latency})
    assert (alone.has_profile, alone.cycle_s) == (None, 0.0)
    sections = sections_of(frames_of([run, run]), None)
    assert sections.cycles == pytest.approx(2 * 70.0 / cycle_s if cycle_s else np.inf)
    if not has_profile:
        assert all(side.course.is_steady for side in sides(sections).values())


def test_frames_keep_what_their_scenario_tells():
    traffic = {"process": "poisson", "rate_per_s": 50.0, "sessions": 100}
    run = simulate(scenario(traffic, service(mean_s=0.01), mirror={"rule": "hash"}, horizon_s=60.0, period_s=1.0))
    (frames,) = frames_of(frames_of(run))
    assert (frames.has_profile, frames.sessions) == (False, 100)
    assert frames.share_cv == pytest.approx(0.1)  # half of 100 sessions: 50 in the mean, with variance 25
