import copy
import json
import math
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowsim.errors import InputError, SerializationError, ValidationError
from shadowsim.scenario.paths import parse_set
from shadowsim.scenario.scenario import Scenario, default_scenario, init_scenario

LINEAR = {"law": "linear", "base_s": 0.01, "ContextTokens": 1e-5, "GeneratedTokens": 1e-3}


def request(**keys):
    """A request without Schedule; keys replace or, if None, remove members."""
    members = default_scenario().to_dict()["experiment"] | keys
    return {name: value for name, value in members.items() if value is not None}


def document(**blocks):
    """A valid scenario of the three required blocks; keys replace or add blocks."""
    services = {"AllTraffic": {"time": 0.02}, "Shadow-01": {"time": 0.03, "workers": 2}}
    return {"experiment": request(), "traffic": {"process": "poisson", "rate_per_s": 50}, "services": services} | blocks


def traced(time=LINEAR, **traffic):
    services = {"AllTraffic": {"time": time}, "Shadow-01": {"time": 0.1}}
    return document(traffic={"process": "trace", "path": "builtin:trace_small", **traffic}, services=services)


LEAST = "LEAST_OUTSTANDING_REQUESTS"


TRACED = {"process": "trace", "path": "builtin:trace_small"}
NOTHING = {"kind": "steps", "steps": [{"from_s": 0, "rate_per_s": 0}]}


def modulated(**keys):
    return {"process": "mmpp", "rates_per_s": [1, 2], "mean_sojourn_s": 10, **keys}


def slowed(factors):
    return {"AllTraffic": {"time": 1}, "Shadow-01": {"time": 1, "workers": 2, "slowdown": factors}}


def test_builtin_scenario_is_the_one_of_the_readme():
    scenario = default_scenario()
    source, shadow = scenario.experiment.source.pool, scenario.experiment.shadow.pool
    assert (source.instance_type, source.instance_count) == ("ml.m5.xlarge", 4)
    assert (shadow.instance_type, shadow.instance_count) == ("ml.m5.xlarge", 2)
    assert (scenario.source_workers, scenario.shadow_workers, scenario.share) == (4, 4, 0.5)
    assert set(scenario.routing.values()) == {"RANDOM"}
    assert scenario.source_service.time.mean == 0.02
    assert scenario.traffic.mean_rate(scenario.horizon_s) == pytest.approx(400.0, rel=1e-15)
    assert scenario.traffic.knots(scenario.horizon_s)[1].max() == 1.6 * 400.0
    assert (scenario.horizon_s, scenario.period_s, scenario.n_windows) == (86_400.0, 60.0, 1440)
    assert not scenario.assumptions
    assert not scenario.capture


def test_defaults_of_what_is_left_out():
    scenario = Scenario.from_dict(document())
    assert (scenario.horizon_s, scenario.period_s, scenario.seed) == (604_800.0, 60.0, 7)
    assert (scenario.sample_requests, scenario.overhead_s, scenario.timeout_s) == (10_000, 0.002, 60.0)
    assert (scenario.mirror_rule, scenario.mirror_instant, scenario.start) == ("coin", "arrival", None)
    assert (scenario.source_workers, scenario.shadow_workers) == (4, 2)  # vCPUs of ml.m5.xlarge; as given
    assert scenario.routing == {"AllTraffic": "RANDOM", "Shadow-01": "RANDOM"}


def test_round_trips():
    for scenario in (default_scenario(), Scenario.from_dict(document()), Scenario.from_dict(traced())):
        again = Scenario.from_dict(json.loads(json.dumps(scenario.to_dict())))
        assert again == scenario
        assert again.to_dict() == scenario.to_dict()
        assert pickle.loads(pickle.dumps(scenario)) == scenario


def test_the_document_is_copied_in_and_out():
    original = document()
    before = copy.deepcopy(original)
    scenario = Scenario.from_dict(original)
    original["traffic"]["rate_per_s"] = -1
    out = scenario.to_dict()
    out["services"]["AllTraffic"]["time"] = -1
    assert scenario.to_dict() == before


def test_horizon_of_a_schedule():
    start = datetime(2026, 5, 9, 12, tzinfo=UTC)
    schedule = {"StartTime": start.timestamp(), "EndTime": "2026-05-10T00:00:00Z"}
    scenario = Scenario.from_dict(document(experiment=request(Schedule=schedule)))
    assert (scenario.horizon_s, scenario.start) == (43_200.0, start)
    only_start = Scenario.from_dict(document(experiment=request(Schedule={"StartTime": start})))
    assert only_start.horizon_s == 604_800.0
    assert only_start.to_dict()["experiment"]["Schedule"]["StartTime"] == "2026-05-09T12:00:00+00:00"
    shorter = Scenario.from_dict(document(experiment=request(Schedule=schedule), run={"horizon_s": 60}))
    assert shorter.horizon_s == 60.0


def test_an_end_alone_is_read_the_same_when_it_has_passed():
    end = datetime.now(UTC) + timedelta(hours=30)
    scenario = Scenario.from_dict(document(experiment=request(Schedule={"EndTime": end.isoformat()})))
    assert scenario.horizon_s == pytest.approx(30 * 3600, abs=60)
    saved = scenario.to_dict()
    assert saved["run"]["horizon_s"] == scenario.horizon_s
    passed = end - timedelta(days=400)
    saved["experiment"]["Schedule"]["EndTime"] = passed.isoformat()
    again = Scenario.from_dict(saved)
    assert again.horizon_s == scenario.horizon_s
    assert "before now" in again.assumed["experiment.Schedule"]
    with pytest.raises(ValidationError):
        Scenario.from_dict(document(experiment=request(Schedule={"EndTime": passed.isoformat()})))
    assert scenario.assumptions == (
        f"run.horizon_s: {scenario.horizon_s:.0f} s, from now until the Schedule's EndTime.",
    )
    later = scenario.replace({"experiment.Schedule.EndTime": (end + timedelta(hours=2)).isoformat(), "seed": 3})
    assert later.horizon_s == pytest.approx(32 * 3600, abs=60)
    assert scenario.replace({"horizon_s": 60}).assumptions == ()


@settings(deadline=None)
@given(st.floats(0.5, 1e6), st.floats(0.5, 1e5))
def test_windows_begin_before_the_horizon(horizon, period):
    scenario = Scenario.from_dict(document(run={"horizon_s": horizon, "period_s": period}))
    n = scenario.n_windows
    assert (n - 1) * period < horizon <= n * period


# Quotients that float64 rounds across an integer: 10.5 / 0.7, 2.1 / 0.3 up, 11.9 / 0.7 down.
@pytest.mark.parametrize(
    ("horizon", "period", "n"),
    [(10.5, 0.7, 15), (2.1, 0.3, 7), (11.9, 0.7, 18), (1.1, 0.1, 11), (61, 60, 2), (60, 60, 1)],
)
def test_windows_of_decimal_periods(horizon, period, n):
    scenario = Scenario.from_dict(document(run={"horizon_s": horizon, "period_s": period}))
    assert scenario.n_windows == n


def test_a_run_of_a_trace_ends_with_it():
    scenario = Scenario.from_dict(traced())
    trace = scenario.traffic.trace()
    assert scenario.horizon_s == trace.pass_s == trace.length_s
    assert scenario.horizon_s == pytest.approx(trace.span_s * 500 / 499)  # its span and one mean gap
    assert trace.n_before(scenario.horizon_s) == 500
    assert scenario.assumptions == (trace.reading,)
    cut = scenario.replace({"horizon_s": 60})
    assert cut.assumptions[1:] == (f"The run ends before its trace: {trace.n_before(60.0)} of 500 requests come.",)
    longer = scenario.replace({"horizon_s": 7200})
    assert longer.horizon_s == scenario.horizon_s
    words = "11 min 18 s of 2 h; figures are of these 11 min 18 s (repeat plays it again)."
    assert longer.assumptions[1:] == (f"The trace covers {words}",)
    assert scenario.replace({"traffic.repeat": 3}).horizon_s == 3 * scenario.horizon_s
    assert scenario.replace({"traffic.span_s": 900}).horizon_s == 900.0
    schedule = {"StartTime": "2026-01-01T00:00:00Z", "EndTime": "2026-01-02T00:00:00Z"}
    day = Scenario.from_dict(traced() | {"experiment": request(Schedule=schedule)})
    assert day.horizon_s == scenario.horizon_s
    assert "of 1 day" in day.assumptions[-1]


def test_a_trace_of_one_moment_fills_a_window(tmp_path):
    (tmp_path / "t.csv").write_text("arrival_s\n5\n")
    blocks = document(traffic={"process": "trace", "path": "t.csv"})
    assert Scenario.from_dict(blocks, tmp_path).horizon_s == 60.0


def test_azure_scenario(azure_trace):
    scenario = Scenario.from_dict(traced(path=str(azure_trace), request_bytes="ContextTokens"))
    assert (scenario.horizon_s, scenario.n_windows) == (pytest.approx(3435.948056 * 8819 / 8818), 58)
    assert scenario.traffic.trace().n_before(scenario.horizon_s) == 8819
    assert scenario.replace({"traffic.speed": 2.0}).horizon_s == scenario.horizon_s / 2


@pytest.mark.parametrize(
    ("mean_s", "instances", "says"),
    [
        (30.0, 1, '30 s per request is 750 times what the pool can do; are 30 ms meant ("30ms")?'),
        (30.0, 36, "30 s per request is 21 times"),
        (30.0, 38, ""),  # 19.7 times
        (0.9, 1, ""),  # 22 times, but no time of a service in ms
        (30.0, 750, ""),
    ],
)
def test_a_service_in_seconds_that_is_absurd_is_asked_about(mean_s, instances, says):
    """100 requests per second, half of them copied to instances of two workers."""
    blocks = document(traffic={"process": "poisson", "rate_per_s": 100.0})
    quick = {"source.time": 0.01, "shadow.time": mean_s, "shadow.workers": 2, "shadow.instance_count": instances}
    scenario = Scenario.from_dict(blocks).replace(quick)
    assert len(scenario.assumptions) == bool(says)
    for sentence in scenario.assumptions:
        assert sentence.startswith("services.Shadow-01.time: a service of ")
        assert says in sentence
    if says:
        short = scenario.replace({"shadow.time": f"{mean_s:g}ms"})
        assert short.shadow_service.time.mean == mean_s / 1000
        assert short.assumptions == ()


# ---- Plain requests ----


def test_plain_request_needs_a_rate_and_says_what_it_assumes():
    with pytest.raises(InputError, match="--rate R"):
        Scenario.of(request())
    scenario = Scenario.of(request(), rate_per_s=80)
    assert scenario.traffic.mean_rate(scenario.horizon_s) == 80.0
    assert scenario.source_service.time.mean == scenario.shadow_service.time.mean == 0.02
    assert len(scenario.assumptions) == 5
    assert scenario.assumptions[1].startswith("AllTraffic: service times are lognormal with mean 20 ms")
    # Values that are set later are no longer assumed.
    changed = scenario.replace({"shadow.time.mean_s": 0.03, "rate_per_s": 90})
    subjects = [sentence.split(":")[0] for sentence in changed.assumptions]
    assert subjects == ["traffic", "AllTraffic", "AllTraffic", "Shadow-01"]
    assert changed.assumptions[-1] == "Shadow-01: one worker per accelerator, or else per vCPU."
    assert scenario.replace({"traffic.process": "constant"}).assumptions == scenario.assumptions[1:]
    assert Scenario.of(request(), 80, {"shadow.workers": 3}).assumptions == scenario.assumptions[:-1]
    assert len(scenario.replace({"services": document()["services"]}).assumptions) == 1


def test_of_takes_whatever_describes_a_scenario(tmp_path):
    file = tmp_path / "s.json"
    file.write_text(json.dumps(document()))
    expected = Scenario.from_dict(document())
    for source in (expected, document(), json.dumps(document()), str(file), file):
        assert Scenario.of(source) == expected
        assert Scenario.of(source, rate_per_s=70).traffic.rate_per_s == 70.0
    file.write_text(json.dumps(request()))
    assert Scenario.of(file, rate_per_s=70) == Scenario.of(request(), rate_per_s=70)
    with pytest.raises(InputError, match="scenario: is a plain CreateInferenceExperiment request"):
        Scenario.load(file)
    timed = request(Schedule={"StartTime": datetime(2026, 1, 1, tzinfo=UTC)})
    assert Scenario.of(timed, rate_per_s=1).start == datetime(2026, 1, 1, tzinfo=UTC)


def test_rate_scales_the_builtin_profile_and_is_refused_by_a_trace():
    scenario = Scenario.of(default_scenario(), rate_per_s=800)
    assert scenario.traffic.mean_rate(scenario.horizon_s) == pytest.approx(800.0, rel=1e-12)
    assert scenario.traffic.knots(scenario.horizon_s)[1].max() == pytest.approx(1280.0, rel=1e-12)
    with pytest.raises(
        InputError, match=r"traffic\.rate_per_s: belongs to poisson, gamma, mmpp and constant .*; speed"
    ):
        Scenario.of(traced(), rate_per_s=5)
    assert Scenario.of(document(traffic={"process": "constant"}), rate_per_s=5).traffic.rate_per_s == 5.0


def test_init_is_valid_as_printed():
    assert Scenario.of(json.dumps(init_scenario())) == default_scenario()
    drafted = json.loads(json.dumps(init_scenario(json.dumps(request()))))
    scenario = Scenario.from_dict(drafted)
    assert scenario.horizon_s == 604_800.0
    assert scenario.source_workers == 4
    assert drafted.keys() == {"experiment", "traffic", "services", "endpoint", "mirror", "run"}
    assert drafted["experiment"] == request()
    with pytest.raises(ValidationError):
        init_scenario({"Name": "x"})


# ---- Files ----


def test_saved_paths_still_resolve(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there" / "deep"
    here.mkdir()
    there.mkdir(parents=True)
    (here / "t.csv").write_text("time,size\n0,1\n5,2\n")
    (here / "law.csv").write_text("seconds\n0.1\n0.3\n")
    blocks = document(traffic={"process": "trace", "path": "t.csv", "request_bytes": "size"})
    blocks["services"]["AllTraffic"]["time"] = {"law": "empirical", "path": "law.csv"}
    blocks["services"]["Shadow-01"]["time"] = {"law": "empirical", "path": str(here / "law.csv")}
    (here / "s.json").write_text(json.dumps(blocks))
    monkeypatch.chdir(tmp_path)
    scenario = Scenario.load("here/s.json")
    scenario.save("there/deep/copy.json")
    monkeypatch.chdir(there)
    copied = Scenario.load("copy.json")
    assert copied.traffic.trace().n_requests == 2
    assert copied.source_service.time.mean == pytest.approx(0.2)
    assert copied.document["traffic"]["path"] == "../../here/t.csv"
    assert copied.document["services"]["Shadow-01"]["time"]["path"] == str(here / "law.csv")
    assert copied.replace({"seed": 3}).traffic.trace().n_requests == 2
    Scenario.from_dict(traced()).save("builtin.json")
    assert Scenario.load("builtin.json").document["traffic"]["path"] == "builtin:trace_small"


def test_bad_files(tmp_path):
    bad = tmp_path / "bad.json"
    with pytest.raises(InputError, match=r"bad\.json"):
        Scenario.of(bad)
    for text in ('{"experiment": ', '{"run": {}, "run": {}}', "[1]"):
        bad.write_text(text)
        with pytest.raises(SerializationError):
            Scenario.load(bad)
    bad.write_text("{}")
    with pytest.raises(InputError, match="experiment: is required"):
        Scenario.load(bad)


# ---- Edits ----


def changed(path, value, **blocks):
    return Scenario.from_dict(document(**blocks)).replace({path: value})


def test_replace_by_short_names():
    pool = changed("shadow.instance_count", 7).experiment.shadow.pool
    assert (pool.instance_type, pool.instance_count) == ("ml.m5.xlarge", 7)
    assert changed("source.instance_type", "ml.c5.2xlarge").source_workers == 8
    assert changed("shadow.model_name", "other").experiment.shadow.model_name == "other"
    assert changed("sampling_percentage", 25).share == 0.25
    assert changed("rate_per_s", 9).traffic.rate_per_s == 9.0
    assert changed("seed", 2**64 - 1).seed == 2**64 - 1
    assert changed("horizon_s", 90).horizon_s == 90.0
    assert changed("shadow.workers", 3).shadow_workers == 3
    assert changed("shadow.workers", None).shadow_workers == 4
    assert changed("source.time", {"law": "exponential", "mean_s": 2}).source_service.time.mean == 2.0
    builtin = default_scenario().replace({"shadow.time.mean_s": 0.05})
    assert (builtin.shadow_service.time.mean, builtin.source_service.time.mean) == (0.05, 0.02)


def test_replace_finds_the_variants_whatever_their_order():
    members = request()
    members["ModelVariants"] = members["ModelVariants"][::-1]
    scenario = changed("shadow.instance_count", 9, experiment=members)
    assert scenario.experiment.shadow.pool.instance_count == 9
    assert scenario.experiment.source.pool.instance_count == 4


def test_replace_by_path_in_the_file():
    assert changed("run.period_s", 30).period_s == 30.0  # the block was left out
    assert changed("endpoint.routing", {"Shadow-01": "RANDOM"}).routing["AllTraffic"] == "RANDOM"
    assert changed("experiment.ModelVariants.1.InfrastructureConfig.RealTimeInferenceConfig.InstanceCount", 5)
    assert changed("services.Shadow-01.queue_limit", 5).shadow_service.queue_limit == 5
    steps = {"kind": "steps", "steps": [{"from_s": 0, "rate_per_s": 1}, {"from_s": 5, "rate_per_s": 2}]}
    scenario = changed("traffic.profile.steps.1.rate_per_s", 4, traffic={"process": "poisson", "profile": steps})
    assert scenario.traffic.profile.rate_per_s == (1.0, 4.0)
    empirical = {
        "AllTraffic": {"time": 1},
        "Shadow-01": {"time": {"law": "empirical", "quantiles_s": {"0.5": 1, "0.9": 2}}},
    }
    scenario = changed("shadow.time.quantiles_s.0.9", 3, services=empirical)
    assert scenario.shadow_service.time.tails(np.array([0.1]))[1][0] == 3.0


def test_replace_makes_all_changes_before_it_checks():
    base = Scenario.from_dict(document())
    wanted = {"shadow.time": {"law": "lognormal", "p50_s": 1, "p99_s": 2}, "shadow.time.p99_s": 3}
    assert base.replace(wanted).document["services"]["Shadow-01"]["time"]["p99_s"] == 3
    assert base.replace({}) == base
    assert base.replace({"seed": np.uint64(5), "rate_per_s": np.float64(2)}).seed == 5
    assert base.seed == 7


@pytest.mark.parametrize(
    ("path", "value", "where", "why"),
    [
        ("sampling_percentge", 5, "sampling_percentge", "did you mean sampling_percentage"),
        ("shadow.instance_cnt", 5, "shadow.instance_cnt", "did you mean shadow.instance_count"),
        ("shadow.tim.mean_s", 5, "shadow.tim.mean_s", "did you mean shadow.time"),
        ("shadow", {}, "shadow", "is not a path"),
        ("endpiont.routing", "RANDOM", "endpiont.routing", "did you mean endpoint"),
        ("run.perod_s", 5, "run.perod_s", "did you mean period_s"),
        ("run.seed.x", 5, "run.seed", "holds no object"),
        ("run", 5, "run", "object"),
        ("", 5, "", "is not a path"),
        ("source.time.mean_s", 5, "services.AllTraffic.time", "holds no object, so that mean_s cannot be set"),
        ("experiment.ModelVariants.2.ModelName", "x", "experiment.ModelVariants", "has 2 items"),
        ("experiment.ModelVariants.x", "x", "experiment.ModelVariants", "has 2 items"),
        ("shadow.time.mean_s", 5, "services.Shadow-01.time", "over-determined"),
        ("shadow.batching.max_size", 5, "services.Shadow-01.batching", "needs `factors` or `marginal`"),
        ("seed", -1, "run.seed", "integer from 0"),
        ("seed", "7", "run.seed", "integer"),
        ("horizon_s", math.nan, "run.horizon_s", "finite"),
    ],
)
def test_bad_edits(path, value, where, why):
    quantiles = {"AllTraffic": {"time": 1}, "Shadow-01": {"time": {"law": "lognormal", "p50_s": 1, "p99_s": 2}}}
    base = Scenario.from_dict(document(services=quantiles, run={"seed": 7}))
    with pytest.raises(InputError) as caught:
        base.replace({path: value})
    assert caught.value.path.startswith(where)
    assert why in str(caught.value)


def test_bad_edits_of_the_experiment_are_in_the_words_of_aws():
    base = Scenario.from_dict(document())
    for path, value in [
        ("sampling_percentage", 101),
        ("sampling_percentage", 12.5),
        ("shadow.instance_type", "ml.m5.xlrge"),
        ("experiment.Schedul.EndTime", 5),
    ]:
        with pytest.raises(ValidationError):
            base.replace({path: value})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sampling_percentage=25", ("sampling_percentage", 25)),
        ("shadow.instance_type=ml.m5.large", ("shadow.instance_type", "ml.m5.large")),
        ('shadow.time={"law": "exponential", "mean_s": 1}', ("shadow.time", {"law": "exponential", "mean_s": 1})),
        ("a.b=x=y", ("a.b", "x=y")),
        ("run.horizon_s=null", ("run.horizon_s", None)),
        ("model_name=", ("model_name", "")),
    ],
)
def test_parse_set(text, expected):
    assert parse_set(text) == expected


@pytest.mark.parametrize("text", ["seed", "", "=5"])
def test_parse_set_needs_path_and_value(text):
    with pytest.raises(InputError, match=r"--set: must be PATH=VALUE"):
        parse_set(text)


# ---- Bad input ----


@pytest.mark.parametrize(
    ("blocks", "path", "why"),
    [
        ({"trafic": {}}, "trafic", "did you mean traffic"),
        ({"experiment": None}, "experiment", "is required"),
        ({"experiment": "request.json"}, "experiment", "object"),
        ({"traffic": None}, "traffic", "is required"),
        ({"services": None}, "services", "is required"),
        ({"services": {"AllTraffic": {"time": 1}}}, "services.Shadow-01", "every variant needs a service"),
        ({"services": {"AllTrafic": {"time": 1}}}, "services.AllTrafic", "did you mean AllTraffic"),
        ({"endpoint": {"routing": {"Shadow": "RANDOM"}}}, "endpoint.routing.Shadow", "did you mean Shadow-01"),
        ({"endpoint": {"routing": "random"}}, "endpoint.routing", "must be one of RANDOM, LEAST_OUT"),
        ({"endpoint": {"overhead_ms": 2}}, "endpoint.overhead_ms", "did you mean overhead_s"),
        ({"endpoint": {"overhead_s": -1}}, "endpoint.overhead_s", ">= 0"),
        ({"endpoint": {"timeout_s": 0}}, "endpoint.timeout_s", "> 0"),
        ({"endpoint": {"concurrency": 1}}, "endpoint.concurrency", "is not a known key"),
        ({"endpoint": []}, "endpoint", "object"),
        ({"mirror": {"rule": "count"}}, "mirror.rule", "must be one of coin, counter, hash, got 'count'; did you mean"),
        ({"mirror": {"rule": "hash"}}, "mirror.rule", "needs traffic.sessions"),
        ({"mirror": {"instant": "answer"}}, "mirror.instant", "must be one of arrival, response"),
        ({"mirror": {"max_in_flight": -1}}, "mirror.max_in_flight", "integer from 0"),
        ({"mirror": {"max_in_flight": 0.5}}, "mirror.max_in_flight", "integer from 0"),
        ({"mirror": {"max_body_bytes": 5}}, "mirror.max_body_bytes", "needs traffic.request_bytes"),
        ({"mirror": {"max_body_bytes": -5}}, "mirror.max_body_bytes", ">= 0"),
        ({"mirror": {"max_per_s": 10**9}}, "mirror.max_per_s", "integer from 0 to 10000000"),
        ({"mirror": {"max_bytes": 5}}, "mirror.max_bytes", "did you mean max_body_bytes"),
        ({"services": slowed([1.0, 1.1, 1.2])}, "services.Shadow-01.slowdown", "each of the 2 workers, got 3"),
        ({"run": {"horizon_s": 0}}, "run.horizon_s", "> 0"),
        ({"run": {"horizon_h": 1}}, "run.horizon_h", "did you mean horizon_s"),
        ({"run": {"period_s": -60}}, "run.period_s", "> 0"),
        ({"run": {"period_s": 0.001}}, "run.period_s", "at most 5,000,000 windows"),
        ({"run": {"seed": 2**64}}, "run.seed", "integer from 0"),
        ({"run": {"seed": 7.0}}, "run.seed", "integer"),
        ({"run": {"sample_requests": -1}}, "run.sample_requests", "integer from 0"),
        ({"run": {"replications": 0}}, "run.replications", "integer from 1 to 100000, got 0"),
        ({"run": {"replications": 2.0}}, "run.replications", "integer from 1"),
        ({"traffic": {"process": "poisson", "rate_per_s": 1e300}}, "traffic", "at most 1,000,000,000 requests"),
        (
            {
                "traffic": {
                    "process": "poisson",
                    "profile": NOTHING,
                }
            },
            "traffic.profile",
            "must have a rate > 0",
        ),
        (
            {"services": {"AllTraffic": {"time": LINEAR}, "Shadow-01": {"time": 1}}},
            "services.AllTraffic.time",
            "needs trace traffic for",
        ),
        (
            {"services": {"AllTraffic": {"time": LINEAR}, "Shadow-01": {"time": 1}}, "traffic": [TRACED]},
            "services.AllTraffic.time",
            "needs trace traffic, and no list, for",
        ),
        ({"traffic": [{**TRACED, "path": "none.csv"}]}, "traffic.0.path", "there is no file none.csv"),
        (
            {"traffic": [TRACED, {"process": "poisson", "profile": NOTHING}]},
            "traffic.1.profile",
            "must have a rate > 0",
        ),
        ({"traffic": [{"process": "poisson", "rate_per_s": 1e7}] * 2}, "traffic", "at most 1,000,000,000 requests"),
        ({"traffic": modulated(rates_per_s=[0, 1e8])}, "traffic", "at most 1,000,000,000 requests"),
        ({"traffic": modulated(mean_sojourn_s=[0.2, 0.1])}, "traffic.mean_sojourn_s", "at most 2,000,000 jumps"),
    ],
)
def test_bad_input_names_path_and_constraint(blocks, path, why):
    with pytest.raises(InputError) as caught:
        Scenario.from_dict(document(**blocks))
    assert caught.value.path == path
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG = {  # by path: each is independent of the others
    "services.Shadow-01.workers": -1,
    "services.Shadow-01.error_5xx": 2,
    "services.AllTraffic.time.mean_s": 0,
    "traffic.request_bytes": {"law": "exponential", "mean_bytes": -1},
    "traffic.rate_per_s": -50,
    "endpoint.timeout_s": "60 parsecs",
    "endpoint.overhead_s": -1,
    "mirror.rule": "dice",
    "mirror.max_per_s": -1,
    "run.seed": -1,
    "run.period_s": 0,
    "run.horizon": 60,
    "services.Shadow-01.batching": {"max_size": 0},
    "services.Shadow-01.scaling": {"metric": "InvocationsPerInstance", "target": 1, "min": 1, "max": 0},
    "services.Shadow-01.cold_start_s": -1,
    "services.Shadow-01.outages": [{"instance": -1, "at_s": 1, "for_s": 1}],
    "traffic.retries": {"mode": "legacy", "clients": 0},
}


@given(st.sets(st.sampled_from(sorted(WRONG)), min_size=1))
def test_all_errors_are_reported_at_once(paths):
    with pytest.raises(InputError) as caught:
        default_scenario().replace({path: WRONG[path] for path in paths})
    found = [error.path for error in caught.value.each]
    assert len(found) == len(paths)
    assert all(any(at.startswith(path) for at in found) for path in paths)
    assert str(caught.value).count("\n") == (len(paths) if len(paths) > 1 else 0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


SCALING = {"metric": "InvocationsPerInstance", "target": 900, "min": 1, "max": 3}
CHANGES = {  # by path: each makes the shadow's or both pools evented
    "shadow.batching": {"max_size": 4, "marginal": 0.1, "max_delay_s": "5ms"},
    "shadow.scaling": SCALING,
    "shadow.outages": {"mtbf_s": "1d", "mttr_s": 60},
    "traffic.retries": "standard",
}


@pytest.mark.parametrize("path", CHANGES)
def test_what_makes_a_pool_need_events(path):
    plain = default_scenario()
    changed = plain.replace({path: CHANGES[path]})
    both = path == "traffic.retries"
    assert (plain.evented, plain.side("shadow").evented) == (False, False)
    assert (changed.evented, changed.side("shadow").evented, changed.side("source").evented) == (True, True, both)
    assert not changed.replace({path: None}).evented


def test_keys_of_scaling_have_aliases_and_synonyms():
    scenario = default_scenario().replace({"shadow.scaling": SCALING, "shadow.cold_start_s": "4m"})
    assert scenario.replace({"shadow.scaling.target": 500}).shadow_service.scaling.target == 500.0
    assert scenario.replace({"shadow.cold_start_s": 7}).shadow_service.cold_start_s == 7.0
    retried = scenario.replace({"traffic.retries": "legacy"})
    assert retried.traffic.retries.max_attempts == 5
    for path, near in (("target", "scaling"), ("batch_size", "batching"), ("mtbf_s", "outages")):
        with pytest.raises(InputError, match=rf"did you mean shadow\.{near}\?"):
            scenario.replace({f"shadow.{path}": 5})


@pytest.mark.parametrize(
    ("changes", "path", "why"),
    [
        ({"scaling": SCALING | {"min": 3}}, "scaling.min", "must be at most the variant's InstanceCount of 2, got 3"),
        ({"scaling": SCALING | {"max": 1}}, "scaling.max", "must be at least the variant's InstanceCount of 2, got 1"),
        ({"scaling": SCALING | {"max": 9_999_999}}, "scaling.max", "must give at most 10,000,000 workers, 4 each, got"),
        ({"outages": [{"instance": 2, "at_s": 0, "for_s": 1}]}, "outages", "must name instances 0 to 1 of a variant"),
        (
            {"outages": {"mtbf_s": 1e-3, "mttr_s": "1ms"}},
            "outages.mtbf_s",
            "must bring at most 10,000,000 outages of 2 instances in the run, got 0.001",
        ),
    ],
)
def test_what_does_not_fit_the_instances(changes, path, why):
    kind = default_scenario().experiment.shadow.pool.instance_type
    for where in ("", f"by_instance_type.{kind}."):
        blocks = default_scenario().to_dict()
        service = blocks["services"]["Shadow-01"]
        service.update({"by_instance_type": {kind: changes}} if where else changes)
        with pytest.raises(InputError) as caught:
            Scenario.from_dict(blocks)
        assert caught.value.path == f"services.Shadow-01.{where}{path}"
        assert why in str(caught.value)


def test_a_scaling_variant_may_lose_instances_that_it_does_not_have_yet():
    late = {"instance": 7, "at_s": "1h", "for_s": 1}
    assert default_scenario().replace({"shadow.scaling": SCALING, "shadow.outages": [late]}).evented


def test_assumptions_about_instances_are_said():
    scenario = default_scenario().replace({"shadow.scaling": SCALING})
    assert scenario.assumptions == ("Shadow-01: new instances serve at once (cold_start_s is left out).",)
    assert scenario.replace({"shadow.cold_start_s": 0}).assumptions == ()
    alone = scenario.replace({"shadow.cold_start_s": "4m", "shadow.scaling": None})
    assert alone.assumptions == ("Shadow-01: cold_start_s is not used, since the variant does not scale.",)
    outages = [{"instance": i, "at_s": 50 + i, "for_s": 1} for i in range(2)]
    failing = default_scenario().replace({"shadow.outages": outages, "horizon_s": 51})
    assert failing.assumptions == ("Shadow-01: the run ends before 1 of 2 outages.",)
    retried = default_scenario().replace({"traffic.retries": "standard"})
    assert retried.assumptions[0].startswith("traffic.retries: all requests come from one client")


def test_retries_are_those_of_all_superposed_blocks():
    flat = {"process": "poisson", "rate_per_s": 5}
    both = Scenario.from_dict(document(traffic=[flat | {"retries": "legacy"}, flat | {"retries": "legacy"}]))
    assert both.traffic.retries.max_attempts == 5
    assert all(stream.retries is None for stream in both.traffic.streams)
    with pytest.raises(InputError, match=r"traffic\.1\.retries: must be the same in every block of a list"):
        Scenario.from_dict(document(traffic=[flat | {"retries": "legacy"}, flat]))


def durations(least, most):
    return st.floats(least, most) | st.integers(math.ceil(least), 100).map(lambda n: f"{n}m" if n else "0s")


BATCHING = st.integers(1, 6).flatmap(
    lambda n: (
        st.fixed_dictionaries(
            {"max_size": st.just(n), "factors": st.lists(st.floats(0.1, 9.0), min_size=1, max_size=n)},
            optional={"max_delay_s": durations(0.0, 1.0)},
        )
        | st.fixed_dictionaries({"max_size": st.just(n), "marginal": st.floats(0.0, 2.0)})
    )
)
POLICIES = st.fixed_dictionaries(
    {
        "metric": st.sampled_from(["InvocationsPerInstance", "ConcurrentRequestsPerModel"]),
        "target": st.floats(0.01, 1e6),
        "min": st.integers(1, 2),
        "max": st.integers(2, 50),
    },
    optional={
        "scale_out_cooldown_s": durations(0.0, 900.0),
        "scale_in_cooldown_s": durations(0.0, 900.0),
        "out_points": st.integers(1, 20),
        "in_points": st.integers(1, 20),
        "delay_s": durations(0.0, 900.0),
    },
)
LISTED = st.lists(st.integers(0, 1), max_size=4).map(
    lambda numbers: [{"instance": j, "at_s": 100.0 * i, "for_s": "50s"} for i, j in enumerate(numbers)]
)
RANDOM_OUTAGES = st.fixed_dictionaries({"mtbf_s": durations(60.0, 1e6), "mttr_s": durations(1.0, 1e4)})
RETRIES = st.sampled_from(["none", "legacy", "standard", "standard-2026"]) | st.fixed_dictionaries(
    {"mode": st.sampled_from(["legacy", "standard", "standard-2026"])},
    optional={
        "max_attempts": st.integers(1, 9),
        "backoff_base_s": durations(0.0, 5.0),
        "backoff_cap_s": durations(0.0, 50.0),
        "quota": st.integers(0, 1000),
        "cost": st.integers(0, 20),
        "timeout_cost": st.integers(0, 20),
        "timeout_s": durations(0.1, 60.0),
        "clients": st.integers(1, 1000),
        "on": st.lists(st.sampled_from(["timeout", "refused", "model_error"]), min_size=1),
    },
)


@settings(deadline=None)
@given(st.none() | BATCHING, st.none() | POLICIES, st.none() | LISTED | RANDOM_OUTAGES, st.none() | RETRIES)
def test_round_trips_of_pools_that_change(batching, scaling, outages, retries):
    """Through JSON, and by one key at a time: what a scenario holds is what its document says."""
    changes = {"shadow.batching": batching, "shadow.scaling": scaling, "shadow.outages": outages}
    changes["traffic.retries"] = retries
    scenario = default_scenario().replace(changes)
    assert Scenario.from_dict(json.loads(json.dumps(scenario.to_dict()))) == scenario
    assert pickle.loads(pickle.dumps(scenario)) == scenario
    one_by_one = default_scenario()
    for path, value in changes.items():
        one_by_one = one_by_one.replace({path: value})
    assert one_by_one == scenario
    service = scenario.shadow_service
    assert service.has_events == any((batching, scaling, outages))
    assert scenario.evented == (service.has_events or scenario.traffic.retries is not None)
    if batching:
        assert len(service.batching.factors) == service.batching.max_size == batching["max_size"]
    if isinstance(outages, list) and outages:
        assert [o.instance for o in service.outages.listed] == [o["instance"] for o in outages]


def test_errors_of_the_request_stand_with_those_of_the_scenario():
    with pytest.raises(ValidationError) as caught:
        default_scenario().replace({"sampling_percentage": 101, "shadow.instance_type": 5, "run.seed": -1})
    request_type, percentage, seed = sorted(caught.value.violations, key=lambda text: text[0] != "V")
    assert "instanceType" in request_type + percentage
    assert "samplingPercentage" in request_type + percentage
    assert seed.startswith("run.seed: must be")


def test_all_unknown_paths_are_named():
    with pytest.raises(InputError) as caught:
        default_scenario().replace({"sede": 1, "shadow.instances": 3, "seed": 2})
    assert [error.path for error in caught.value.each] == ["sede", "shadow.instances"]


def test_a_consequence_is_no_error_of_its_own():
    with pytest.raises(InputError, match="did you mean AllTraffic") as caught:
        Scenario.from_dict(document(services={"AllTrafic": {"time": 1}, "Shadow-01": {"time": 1}}))
    assert len(caught.value.each) == 1


@pytest.mark.parametrize("count", [0, "three"])
def test_a_variant_has_one_number_in_all_messages(count):
    with pytest.raises((InputError, ValidationError), match=r"modelVariants\.2\.member\."):
        default_scenario().replace({"shadow.instance_count": count})


def test_the_value_shown_is_the_one_that_breaks_the_bound():
    with pytest.raises(InputError) as caught:
        default_scenario().replace({"traffic": {"process": "poisson", "rate_per_s": 1e8}, "horizon_s": 60})
    expected = "must bring at most 1,000,000,000 requests in a window of 60 s, got 6000000000"
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("time", "traffic", "path", "why"),
    [
        ({**LINEAR, "Tokens": 1}, {}, "services.AllTraffic.time.Tokens", "it has ContextTokens, GeneratedTokens"),
        ({**LINEAR, "ContextToken": 1}, {}, "services.AllTraffic.time.ContextToken", "did you mean ContextTokens"),
        (
            {"law": "linear", "base_ms": 5, "ContextTokens": 1},
            {},
            "services.AllTraffic.time.base_ms",
            "did you mean base_s",
        ),
        ({"law": "linear", "ContextTokens": 1e308}, {}, "services.AllTraffic.time", "finite"),
        (LINEAR, {"request_bytes": "Bytes"}, "traffic.request_bytes", "no column 'Bytes'"),
        (LINEAR, {"path": "none.csv"}, "traffic.path", "there is no file none.csv"),
        (LINEAR, {"repeat": 10**6, "speed": 1e-9}, "run.period_s", "windows"),
        (LINEAR, {"time_column": "when"}, "traffic.time_column", "no column 'when'"),
    ],
)
def test_bad_columns(time, traffic, path, why):
    with pytest.raises(InputError) as caught:
        Scenario.from_dict(traced(time, **traffic))
    assert caught.value.path == path
    assert why in str(caught.value)


def test_routing_of_all_and_of_some():
    both = Scenario.from_dict(document(endpoint={"routing": LEAST}))
    assert both.routing == {"AllTraffic": LEAST, "Shadow-01": LEAST}
    one = both.replace({"endpoint.routing": {"Shadow-01": LEAST}})
    assert one.routing == {"AllTraffic": "RANDOM", "Shadow-01": LEAST}


def test_every_copy_rule_and_cap():
    traffic = {"process": "poisson", "rate_per_s": 5, "sessions": 40, "request_bytes": 100}
    mirror = {"rule": "hash", "instant": "response", "max_body_bytes": 2.5, "max_in_flight": 0, "max_per_s": 3}
    scenario = Scenario.from_dict(document(traffic=traffic, mirror=mirror))
    assert (scenario.mirror_rule, scenario.mirror_instant) == ("hash", "response")
    assert (scenario.max_body_bytes, scenario.max_in_flight, scenario.max_per_s) == (2.5, 0, 3)
    assert scenario.replace({"mirror.rule": "counter", "traffic.sessions": None}).mirror_rule == "counter"
    with pytest.raises(InputError, match=r"^mirror\.max_body_bytes: needs traffic\.request_bytes to compare with"):
        scenario.replace({"traffic.request_bytes": None})
    plain = Scenario.from_dict(document())
    assert (plain.max_body_bytes, plain.max_in_flight, plain.max_per_s) == (None, None, None)


def test_slowdown_has_at_most_one_factor_per_worker():
    assert Scenario.from_dict(document(services=slowed([1.0, 1.5]))).shadow_service.slowdown == (1.0, 1.5)
    with pytest.raises(
        InputError, match=r"AllTraffic\.slowdown: must have at most one factor for each of the 4 workers"
    ):
        Scenario.from_dict(document()).replace({"source.slowdown": [1.0] * 5})


PARTS = [
    {"process": "poisson", "rate_per_s": 5},
    {"process": "trace", "path": "builtin:trace_small"},
    {"process": "mmpp", "rates_per_s": [1, 9], "mean_sojourn_s": 30},
]


def test_a_list_of_blocks_is_edited_block_by_block():
    scenario = Scenario.from_dict(document(traffic=PARTS))
    assert scenario.horizon_s == 604_800.0
    edited = scenario.replace({"traffic.0.rate_per_s": 7, "traffic.2.rate_per_s": 10, "traffic.1.speed": 2})
    assert edited.traffic.superposed[0].rate_per_s == 7.0
    assert edited.traffic.superposed[1].speed == 2.0
    assert edited.traffic.superposed[2].rates_per_s == (2.0, 18.0)
    assert Scenario.from_dict(json.loads(json.dumps(edited.to_dict()))) == edited
    for change in (lambda: Scenario.of(scenario, 5), lambda: scenario.replace({"traffic.rate_per_s": 5})):
        with pytest.raises(
            InputError, match=r"rate_per_s: sets the rate of a single block, .*: set traffic\.0\.rate_per_s, traf"
        ):
            change()
    with pytest.raises(InputError, match=r"^traffic: has 3 items, numbered from 0, got '3'"):
        scenario.replace({"traffic.3.rate_per_s": 5})
    assert Scenario.of(request(), 5, {"traffic": PARTS}).traffic == scenario.traffic


def test_a_list_of_traces_alone_ends_with_the_last_of_them():
    one = {"process": "trace", "path": "builtin:trace_small"}
    span = Scenario.from_dict(document(traffic=one)).horizon_s
    assert Scenario.from_dict(document(traffic=[one, {**one, "speed": 2}])).horizon_s == span
    cut = Scenario.from_dict(document(traffic=[one, PARTS[0]], run={"horizon_s": 60}))
    assert len(cut.assumptions) == 2
    assert cut.assumptions[1].startswith("The run ends before its trace")


def test_saved_paths_of_a_list_still_resolve(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "t.csv").write_text("time\n0\n5\n")
    (tmp_path / "sizes.csv").write_text("bytes\n100\n300\n")
    sized = {"request_bytes": {"law": "empirical", "path": "sizes.csv"}}
    traffic = [{**PARTS[0], **sized}, {"process": "trace", "path": "t.csv", **sized}]
    Scenario.from_dict(document(traffic=traffic), tmp_path).save(tmp_path / "deep" / "s.json")
    again = Scenario.load(tmp_path / "deep" / "s.json")
    assert again.traffic.superposed[1].trace().n_requests == 2
    assert again.traffic.request_bytes.mean == 200.0


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("0,1\n5,2.5\n", "whole numbers .* column who, which fails in line 3, got 2.5"),
        ("0,1\n5,x\n", "fails in line 3"),
        ("0,1\n1,-1\n", "line 3"),
    ],
)
def test_sessions_of_a_trace_are_whole_numbers(tmp_path, rows, why):
    (tmp_path / "t.csv").write_text("time,who\n" + rows)
    traffic = {"process": "trace", "path": "t.csv", "sessions": "who"}
    with pytest.raises(InputError, match=rf"^traffic\.sessions: .*{why}"):
        Scenario.from_dict(document(traffic=traffic), tmp_path)
    (tmp_path / "t.csv").write_text("time,who\n0,7\n1,0\n")
    scenario = Scenario.from_dict(document(traffic=traffic, mirror={"rule": "hash"}), tmp_path)
    assert scenario.traffic.sessions == "who"
    with pytest.raises(
        InputError, match=r"^traffic\.sessions: the trace has no column 'whom'; it has who; did you mean who"
    ):
        scenario.replace({"traffic.sessions": "whom"})


def test_null_counts_as_left_out():
    nulls = {
        "endpoint": {"routing": None, "overhead_s": None},
        "mirror": {"rule": None, "max_in_flight": None, "max_body_bytes": None, "max_per_s": None},
        "run": {"horizon_s": None, "seed": None, "warmup_s": None, "replications": None},
    }
    assert Scenario.from_dict(document(**nulls)) == Scenario.from_dict(document())


def test_instances_and_workers():
    members = request()
    members["ModelVariants"][1]["InfrastructureConfig"]["RealTimeInferenceConfig"]["InstanceCount"] = 2_000_000_000
    with pytest.raises(InputError, match=r"modelVariants\.2\.member\..*instanceCount: must give at most"):
        Scenario.from_dict(document(experiment=members))


def test_a_type_without_figures_needs_workers(monkeypatch):
    from shadowsim.aws.instances import InstanceType
    from shadowsim.scenario import reading

    monkeypatch.setattr(reading, "lookup", InstanceType)
    with pytest.raises(
        InputError, match=r"services\.AllTraffic\.workers: is required, since .* ml\.m5\.xlarge are known"
    ):
        Scenario.from_dict(document())
    services = {"AllTraffic": {"time": 1, "workers": 3}, "Shadow-01": {"time": 1, "workers": 3}}
    assert Scenario.from_dict(document(services=services)).source_workers == 3


def test_capture_follows_the_data_storage():
    storage = {"Destination": "s3://bucket/captures"}
    assert Scenario.from_dict(document(experiment=request(DataStorageConfig=storage))).capture


def test_import_is_light():
    code = "import sys, shadowsim.scenario.scenario as s; s.default_scenario(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pandas", "numba", "scipy", "plotly", "pyarrow"} & set(loaded)


def test_changes_may_complete_a_plain_request():
    """ml.g7.2xlarge is an unknown type, so its workers are required."""
    request = default_scenario().to_dict()["experiment"]
    for variant in request["ModelVariants"]:
        variant["InfrastructureConfig"]["RealTimeInferenceConfig"]["InstanceType"] = "ml.g7.2xlarge"
    with pytest.raises(InputError, match="workers"):
        Scenario.of(request, 10.0)
    s = Scenario.of(request, 10.0, {"source.workers": 2, "shadow.workers": 3})
    assert (s.source_workers, s.shadow_workers) == (2, 3)


@pytest.mark.parametrize(
    ("path", "hint"), [("period_s", "run.period_s"), ("timeout_s", "endpoint.timeout_s"), ("rule", "mirror.rule")]
)
def test_a_path_without_its_block_gets_a_hint(path, hint):
    with pytest.raises(InputError, match=rf"did you mean {hint}\?"):
        default_scenario().replace({path: 1})


@pytest.mark.parametrize(
    "traffic",
    [
        {"rate_per_s": 5},
        {"traffic.rate_per_s": 5},
        {"traffic": {"process": "constant", "rate_per_s": 5}},
        {"traffic.profile": {"kind": "linear", "from_per_s": 0, "to_per_s": 10, "to_s": 60}, "horizon_s": 60},
        {"traffic": {"process": "trace", "path": "builtin:trace_small"}},
        {"traffic.process": "trace", "traffic.path": "builtin:trace_small"},
    ],
)
def test_a_plain_request_needs_no_rate_when_its_traffic_is_given(traffic):
    assert Scenario.of(request(), changes=traffic).traffic.process in ("poisson", "constant", "trace")
    for changes in ({}, {"shadow.workers": 2}, {"rate_per_s": None}):
        with pytest.raises(InputError, match=r"^rate_per_s: is required for a plain request"):
            Scenario.of(request(), changes=changes)


def test_changes_come_after_the_rate_and_before_the_checks():
    unrated = document(traffic={"process": "poisson"})
    assert Scenario.of(unrated, changes={"traffic.rate_per_s": 5}).traffic.rate_per_s == 5.0
    assert Scenario.of(unrated, 3, {"rate_per_s": 5}).traffic.rate_per_s == 5.0
    with pytest.raises(InputError, match=r"^trafic: is not a known key; did you mean traffic\?"):
        Scenario.of(document(trafic={}), 5)
    with pytest.raises(InputError, match=r"^scenario: is a plain CreateInferenceExperiment request; `shadowsim init`"):
        Scenario.from_dict(request())


def test_what_a_block_knows_is_listed_when_nothing_is_near():
    with pytest.raises(InputError, match=r"endpoint\.x: is not a known key; known are routing, overhead_s, timeout_s$"):
        Scenario.from_dict(document(endpoint={"x": 1}))


def test_arrays_are_lists():
    quantiles = {"law": "empirical", "quantiles_s": {"0.5": np.float64(1.0), "0.9": 2.0}}
    scenario = Scenario.from_dict(document()).replace({"shadow.time": quantiles})
    assert scenario.document["services"]["Shadow-01"]["time"]["quantiles_s"]["0.5"] == 1.0
    with pytest.raises(InputError, match=r"got \[1, 2\]"):
        scenario.replace({"shadow.time": np.array([1, 2])})


def test_a_value_that_json_gives_up_on_is_text():
    assert parse_set("seed=" + "9" * 5000) == ("seed", "9" * 5000)


def test_keys_of_retries_can_be_set_where_the_file_has_a_mode():
    legacy = default_scenario().replace({"traffic.retries": "legacy"})
    assert legacy.replace({"traffic.retries.mode": "standard"}).traffic.retries.quota == 500
    changed = legacy.replace({"traffic.retries.max_attempts": 7}).traffic.retries
    assert (changed.max_attempts, changed.backoff_base_s) == (7, 1.0)
    assert legacy.replace({"traffic.retries.mode": "none"}).traffic.retries is None
    assert default_scenario().replace({"traffic.retries.mode": "legacy"}).traffic.retries == legacy.traffic.retries
