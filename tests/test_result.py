"""Results: the summary, saving and loading."""

import json
import pickle

import numpy as np
import pytest
from cases import scenario, service
from pandas.testing import assert_frame_equal

from shadowsim import InputError, Result, Scenario, default_scenario, simulate


@pytest.fixture(scope="module")
def result():
    return simulate(
        scenario(
            {"process": "poisson", "rate_per_s": 50.0, "request_bytes": 100, "response_bytes": 50},
            service("lognormal", 0.05, 3, queue_limit=2, error_4xx=0.01),
            service("lognormal", 0.05, 4),
            capture=True,
            horizon_s=400.0,
        )
    )


def test_its_text_holds_no_frame_and_no_clock(result):
    text = repr(result)
    assert text.startswith("<Result of ")
    assert "\n" not in text
    assert str(result.scenario.experiment.read_at.year) not in text


def test_the_summary_is_what_the_requests_say(result):
    s = result.summary()
    assert s.index.tolist() == ["Source", "Shadow"]
    for variant, rows in result.requests.groupby("variant"):
        row = s.loc[variant]
        latency = rows["latency_s"].dropna()
        assert row["requests"] == len(rows)
        assert row["rate_per_s"] == len(rows) / 400.0
        assert row["mean_s"] == pytest.approx(latency.mean(), rel=1e-12)
        assert row["maximum_s"] == pytest.approx(latency.max(), rel=1e-12)
        assert row["wait_mean_s"] == pytest.approx(rows["wait_s"].mean(), rel=1e-12)
        assert row["error_rate"] == pytest.approx((rows["status"] != "answered").mean(), rel=1e-12)
        for column, q in (("p50_s", 0.5), ("p90_s", 0.9), ("p99_s", 0.99), ("p99_9_s", 0.999)):
            assert row[column] == pytest.approx(latency.quantile(q), rel=0.01)
        answered = rows["status"].isin(["answered", "error_4xx", "error_5xx"]).sum()
        assert row["captured_bytes"] == 100 * len(rows) + 50 * answered
    assert s.loc["Source", "error_rate"] > 0.02
    assert s.loc["Source", "share"] == 1.0
    assert s.loc["Shadow", "share"] == s.loc["Shadow", "requests"] / s.loc["Source", "requests"]


def test_utilisation_is_weighted_by_the_windows_lengths():
    s = simulate(scenario({"process": "poisson", "rate_per_s": 2.0}, service(mean_s=0.25), horizon_s=90.0)).summary()
    q = simulate(scenario({"process": "poisson", "rate_per_s": 2.0}, service(mean_s=0.25), horizon_s=90.0)).requests
    source = q[q["role"] == "source"]
    begin = source["arrival_s"] + source["wait_s"]
    worked = (np.minimum(begin + source["service_s"], 90.0) - np.minimum(begin, 90.0)).sum()
    assert s.loc["Source", "utilisation"] == pytest.approx(worked / 90.0, rel=1e-9)


def test_saving_and_loading_loses_nothing(result, tmp_path):
    folder = result.save(tmp_path / "a" / "run")
    again = Result.load(folder)
    for name in ("windows", "latency", "requests"):
        assert_frame_equal(getattr(again, name), getattr(result, name), check_exact=True)
    assert again.scenario == result.scenario
    assert again.verdict == result.verdict
    assert sorted(p.name for p in folder.iterdir()) == [
        "assumed.json",
        "latency.parquet",
        "requests.parquet",
        "scenario.json",
        "windows.parquet",
    ]
    json.loads((folder / "scenario.json").read_text())
    result.save(folder)


def test_actions_are_saved_and_those_of_an_earlier_run_are_removed(result, tmp_path):
    outage = [{"instance": 0, "at_s": 10.0, "for_s": 5.0}]
    changed = simulate(result.scenario.replace({"shadow.outages": outage}))
    assert changed.actions[["time_s", "variant", "action", "done_s"]].to_numpy().tolist() == [
        [10.0, "Shadow", "outage", 15.0]
    ]
    again = Result.load(changed.save(tmp_path))
    assert_frame_equal(again.actions, changed.actions, check_exact=True)
    assert_frame_equal(again.windows, changed.windows, check_exact=True)
    result.save(tmp_path)
    assert not (tmp_path / "actions.parquet").exists()
    assert_frame_equal(Result.load(tmp_path).actions, result.actions)


def test_the_summary_of_a_run_with_events():
    policy = {"metric": "InvocationsPerInstance", "target": 60, "min": 1, "max": 3, "out_points": 1}
    s = scenario(
        {"process": "poisson", "rate_per_s": 2.0, "retries": {"mode": "standard", "on": ["model_error"]}},
        service(mean_s=0.1, error_5xx=0.2, scaling=policy),
        service(mean_s=0.1, workers=1, batching={"max_size": 4, "max_delay_s": 1.0, "marginal": 0.0}),
        horizon_s=90.0,
        period_s=60.0,
    )
    r = simulate(s)
    source, shadow = (row for _, row in r.summary().iterrows())
    # one instance for a minute, and then two or three for half a minute
    n = int(r.actions["desired_after"].iloc[0])
    assert source["serving_mean"] == pytest.approx((60.0 + 30.0 * n) / 90.0)
    assert source["serving_maximum"] == n
    assert source["instance_h"] == pytest.approx((60.0 + 30.0 * n) / 3600.0)
    windows = r.windows.query("role == 'source'")
    assert source["retries_per_request"] == windows["retries"].sum() / windows["calls"].sum() > 0.1
    assert source["success_rate"] == windows["calls_answered"].sum() / windows["calls"].sum() > 0.9
    copies = r.requests.query("role == 'shadow'")
    started = copies["arrival_s"] + copies["wait_s"]
    before_end = started[started < 90.0]
    assert shadow["batch_size_mean"] == pytest.approx(len(before_end) / before_end.nunique())
    assert np.isnan(shadow["success_rate"])
    assert "serving_mean" not in simulate(default_scenario().replace({"horizon_s": 60})).summary()


def test_a_saved_trace_scenario_still_finds_its_trace(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "t.csv").write_text("time,n\n0,1\n1,2\n2.5,3\n")
    document = scenario({"process": "poisson", "rate_per_s": 1.0}).to_dict()
    document["traffic"] = {"process": "trace", "path": "t.csv"}
    s = Scenario.from_dict(document, tmp_path / "in")
    folder = simulate(s).save(tmp_path / "out")
    again = simulate(folder / "scenario.json")
    assert again.windows["Invocations"].sum() == Result.load(folder).windows["Invocations"].sum() >= 3


def test_bad_places(result, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match=r"file: cannot be a directory"):
        result.save(file)
    with pytest.raises(InputError, match=r"cannot be a directory"):
        result.save(file / "below")
    with pytest.raises(InputError, match="is not a directory with a saved result"):
        Result.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"windows\.parquet: is missing"):
        Result.load(tmp_path / "empty")


def test_no_quantile_passes_the_extremes():
    """A bucket reaches past a time-out of 1 s, at which nearly all requests end."""
    s = scenario(
        {"process": "poisson", "rate_per_s": 10.0}, service("deterministic", 2.0, 64), endpoint={"timeout_s": 1.0}
    )
    r = simulate(s)
    assert (r.requests["latency_s"] == 1.0).all()
    assert (r.quantile(0.5) == 1.0).all()
    assert (r.quantile(1.0) == 1.0).all()


def test_a_name_that_is_too_long_for_a_file(tmp_path):
    with pytest.raises(InputError, match="is not a directory with a saved result"):
        Result.load(tmp_path / ("x" * 300))


def test_a_result_and_a_verdict_have_short_texts():
    result = simulate(default_scenario().replace({"horizon_s": 600}))
    assert repr(result).startswith("<Result of built-in: STABLE, ")
    assert repr(result.verdict) == f"<Verdict {result.verdict}>"
    assert max(len(repr(result)), len(repr(result.verdict))) < 200


def test_a_result_writes_its_page_and_draws_itself(tmp_path):
    result = simulate(default_scenario().replace({"horizon_s": 600}))
    assert result.report(tmp_path / "page.html") == tmp_path / "page.html"
    assert (tmp_path / "page.html").stat().st_size > 1_000_000
    assert len(result.plot().data) >= 2


def test_a_result_can_be_sent_to_another_process():
    result = simulate(scenario({"process": "poisson", "rate_per_s": 2.0}, service(mean_s=0.25), horizon_s=90.0))
    again = pickle.loads(pickle.dumps(result))
    assert again.summary().equals(result.summary())
