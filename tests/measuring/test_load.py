"""Load runs from plan to measurement: in one process and several, in a notebook, saved and read, valid and not."""

import asyncio
import dataclasses
import threading
import time

import numpy as np
import pandas as pd
import pytest
from loading import answering, part, service

import shadowsim as ss
from shadowsim.errors import InputError
from shadowsim.measuring.generator.load_run import LoadRun, read_load_run
from shadowsim.measuring.generator.load_schedule import schedule_of
from shadowsim.measuring.generator.saturation import INVALID, VALID, GeneratorLimits
from shadowsim.measuring.generator.sender import Control, Ladder
from shadowsim.measuring.load import load_async, plan_load

LENIENT = GeneratorLimits(lag_s=20.0, dropped=0.0, cpu=100.0)  # a test must not depend on a busy machine


@pytest.fixture(scope="module")
def run():
    with service() as target:
        return ss.load(target.url, rate_per_s=100, duration_s=2, body=b"x" * 10, seed=4, limits=LENIENT)


def test_measures_what_was_planned(run):
    assert run.verdict.status == VALID
    assert run.open_loop
    assert np.array_equal(run.requests["arrival_s"], schedule_of(run.scenario).due_s)
    assert set(run.requests["status"]) == {"answered"}
    figures = run.summary().iloc[0]
    assert figures["requests"] == len(run.requests) == run.about["asked"]["requests"]
    latency = np.sort(run.requests["latency_s"])
    assert figures["p99_s"] == run.quantile(0.99) == latency[int(np.ceil(0.99 * latency.size)) - 1]
    assert figures["error_rate"] == 0.0
    assert run.about["achieved"]["rate_per_s"] == len(run.requests) / 2.0


def test_a_saved_run_is_read_back(run, tmp_path):
    run.save(tmp_path / "run")
    read = LoadRun.load(tmp_path / "run")
    assert read.about == run.about
    for name in ("windows", "latency", "requests"):
        pd.testing.assert_frame_equal(getattr(read, name), getattr(run, name))
    assert read.scenario.to_dict() == run.scenario.to_dict()
    assert read.scenario.assumptions == run.scenario.assumptions
    with pytest.raises(InputError, match=r"must be a directory of a load run, with load\.json"):
        LoadRun.load(tmp_path)
    (tmp_path / "run" / "load.json").write_text("{}")
    with pytest.raises(InputError, match="lacks verdict, why"):
        LoadRun.load(tmp_path / "run")


def test_a_run_is_a_measurement(run, tmp_path):
    run.save(tmp_path)
    measured = read_load_run(tmp_path)
    assert measured.form == "shadowsim load run"
    assert measured.open_loop is True
    assert measured.started is not None
    assert measured.started.utcoffset().total_seconds() == 0.0
    assert {"arrival_s", "latency_s", "status", "sent_s", "first_byte_s", "done_s"} <= set(measured.requests)
    assert "stage" not in measured.requests
    assert (measured.requests["arrival_s"].diff().dropna() >= 0).all()
    assert measured.lacks


def test_goals_are_of_the_service_and_of_what_is_seen_from_outside(run):
    rows = run.evaluate("p99 < 20s and source.error_rate <= 0% and share(latency > 0s) >= 100% and mean < 1us")
    assert rows["met"].tolist() == [True, True, True, False]
    assert rows["value"][0] == run.quantile(0.99)
    assert run.evaluate("ttft.p99 < 1s")["met"].tolist() == [False]  # nothing was streamed
    for goal in ("wait_mean < 1s", "utilisation < 50%", "share(wait > 1s) < 1%", "shadow.p99 < 1s"):
        with pytest.raises(InputError, match="slo: "):
            run.evaluate(goal)


def test_processes_share_the_schedule_and_put_it_together(run):
    with service() as target:
        shared = ss.load(target.url, rate_per_s=100, duration_s=2, body=b"x", seed=4, processes=3, limits=LENIENT)
        assert len(target.requests) == len(run.requests)
    assert np.array_equal(shared.requests["arrival_s"], run.requests["arrival_s"])
    assert shared.requests["request"].tolist() == list(range(len(run.requests)))
    assert len(shared.about["achieved"]["cpu_share"]) == 3


def test_runs_inside_a_running_loop_and_in_a_thread():
    with service() as target:
        options = {"rate_per_s": 50, "duration_s": 0.3, "limits": LENIENT}

        async def notebook():
            in_cell = ss.load(target.url, **options)
            awaited = await load_async(target.url, **options)
            return in_cell, awaited

        for done in asyncio.run(notebook()):
            assert set(done.requests["status"]) == {"answered"}
        results = []
        thread = threading.Thread(target=lambda: results.append(ss.load(target.url, **options)))
        thread.start()
        thread.join(30.0)
        assert len(results) == 1


def test_a_rate_that_cannot_be_had_is_invalid_and_shows_no_latency():
    with service() as target:
        run = ss.load(target.url, rate_per_s=50_000, duration_s=0.5)
    assert run.verdict.status == INVALID
    assert run.summary()["p99_s"].isna().all()
    assert "No latencies are shown" in str(run)
    assert any("late" in sentence or "not sent" in sentence for sentence in run.verdict.why)
    assert "invalid" in " ".join(run.measurement().lacks)


def test_a_cap_and_a_ceiling_make_a_run_not_open():
    with service(answering(after_s=0.5)) as target:
        capped = ss.load(target.url, rate_per_s=100, duration_s=0.5, max_in_flight=2, limits=LENIENT)
        held = ss.load(target.url, rate_per_s=30, duration_s=1.0, max_rate_per_s=15, limits=LENIENT)
    assert not capped.open_loop
    assert capped.verdict.status == INVALID
    assert capped.windows["requests_dropped"].sum() == (capped.requests["status"] == "dropped").sum() > 0
    assert not held.open_loop
    assert held.about["achieved"]["held_back"] > 0
    assert "held back" in str(held)


def test_stages_and_warm_up():
    with service() as target:
        changes = {"run.warmup_s": 0.5, "run.period_s": 0.5}
        run = ss.load(target.url, stages="40/s 500ms, 200/s 500ms", limits=LENIENT, changes=changes)
    stage = run.requests["stage"].astype(int)
    assert np.array_equal(stage, (run.requests["arrival_s"] >= 0.5).astype(int))
    assert len(run.counted) == (stage == 1).sum()
    assert "0 rate" in str(run)
    assert "stage" in run.measurement().requests


@pytest.mark.parametrize("rate_per_s", [None, 100.0])
def test_an_interrupted_run_keeps_its_scenario(rate_per_s):
    """A profile alone is cut; one that is scaled to a mean over the horizon would be another, and is left whole."""
    profile = {"kind": "linear", "from_per_s": 50, "to_per_s": 150, "to_s": 60}
    changes = {"traffic.rate_per_s": rate_per_s, "traffic.profile": profile, "horizon_s": 60}
    control, seen = Control(), []

    def stop_soon(counts, elapsed_s):
        seen.append(elapsed_s)
        control.stop()

    with service() as target:
        run = asyncio.run(load_async(target.url, control=control, on_counts=stop_soon, changes=changes, limits=LENIENT))
    assert run.about["interrupted"]
    assert (run.scenario.horizon_s < 30.0) == (rate_per_s is None)
    due = schedule_of(run.scenario).due_s
    assert np.allclose(run.requests["arrival_s"], due[: len(run.requests)], rtol=0.0, atol=1e-6)
    assert run.windows["Invocations"].sum() == len(run.requests)


def test_the_designed_experiment_is_a_run_too(tmp_path):
    ladder = Ladder(stage_s=0.2, greatest=2, least=5, mixed=(0.5,), mixed_s=0.3)
    with service(answering(after_s=0.01)) as target:
        run = ss.load(target.url, characterise=ladder, body=b"x", limits=LENIENT)
    assert not run.open_loop
    kinds = [stage["kind"] for stage in run.about["stages"]]
    assert kinds == ["unloaded", "ladder", "ladder", "mixed"]
    again = LoadRun.load(run.save(tmp_path / "run"))
    measured = again.measurement().requests
    assert {"stage", "in_flight_limit"} <= set(measured)
    limits = measured.groupby("stage")["in_flight_limit"].max()
    assert limits[:3].tolist() == [1, 1, 2]
    assert limits.isna().tolist() == [False, False, False, True]
    assert run.windows["Invocations"].sum() == len(run.requests)


def test_response_streams_of_an_endpoint_are_timed():
    async def behave(writer, request):
        assert request.path == "/endpoints/my-endpoint/invocations-response-stream"
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        for word in (b"one", b" two", b" three"):
            await asyncio.sleep(0.02)
            writer.write(part(word))
            await writer.drain()
        writer.close()

    with service(behave) as target:
        options = {"rate_per_s": 20, "duration_s": 0.3, "limits": LENIENT, "region": "us-east-1"}
        run = ss.load(endpoint="my-endpoint", endpoint_url=target.url, stream=True, body=b"{}", **options)
    assert set(run.requests["status"]) == {"answered"}, run.about["causes"]
    assert (run.requests["output_tokens"] == 3).all()
    assert (run.requests["first_token_s"] >= 0.02).all()
    assert (run.requests["latency_s"] - run.requests["first_token_s"] >= 0.03).all()
    assert run.tokens is not None
    assert (run.tokens.groupby("request").size() == 3).all()


def test_tokens_of_completions_are_timed(tmp_path):
    lines = [b'data: {"choices": [{"text": "%d"}]}\n\n' % i for i in range(5)]

    async def behave(writer, request):
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for line in [*lines, b"data: [DONE]\n\n"]:
            await asyncio.sleep(0.02)
            writer.write(b"%x\r\n%s\r\n" % (len(line), line))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    with service(behave) as target:
        run = ss.load(target.url, rate_per_s=20, duration_s=0.5, protocol="openai", body=b"{}", limits=LENIENT)
    assert (run.requests["output_tokens"] == 5).all()
    requests = run.requests
    assert (requests["first_token_s"] >= 0.02).all()
    assert (requests["latency_s"] - requests["first_token_s"] >= 0.07).all()  # four more pauses, less rounding
    assert run.quantile(0.5, "first_token") < run.quantile(0.5)
    measurement = LoadRun.load(run.save(tmp_path / "run")).measurement()
    tokens = measurement.token_times
    assert tokens["row"].value_counts(sort=False).to_dict() == dict.fromkeys(range(len(requests)), 5)
    by_row = tokens.groupby("row")["token_s"]
    assert by_row.min().tolist() == measurement.requests["first_token_s"].tolist()
    assert (by_row.diff().dropna() >= 0.0).all()
    assert (by_row.max() <= measurement.requests["latency_s"]).all()
    rows = run.evaluate("ttft.p50 > 10ms and tpot.p50 > 10ms and goodput(ttft <= 20s, tpot <= 20s) >= 100%")
    assert rows["met"].all()
    assert "first token" in str(run)
    assert run.windows["output_tokens"].sum() == 5 * len(run.requests)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "url: must be given, or `endpoint`"),
        ({"url": "http://h/", "endpoint": "e"}, "url: must be given, or `endpoint`"),
        ({"url": "h"}, "url: must be a URL"),
        ({"url": "http://h/", "rate_per_s": 1, "protocol": "grpc"}, "protocol: must be one of"),
        ({"url": "http://h/", "rate_per_s": 1, "processes": 0}, "processes"),
        ({"url": "http://h/", "rate_per_s": 1, "max_in_flight": 1, "processes": 2}, "max_in_flight: must be >= 2"),
        ({"url": "http://h/", "rate_per_s": 1, "max_rate_per_s": 0}, "max_rate_per_s"),
        ({"url": "http://h/", "rate_per_s": 1, "timeout_s": -1}, "timeout_s"),
        ({"url": "http://h/", "rate_per_s": 1, "headers": {"a\n": "b"}}, "headers"),
        ({"url": "http://h/", "rate_per_s": 1, "stream": True}, "stream: is for `endpoint`"),
        ({"url": "http://h/", "rate_per_s": 1, "method": "P O"}, "method"),
        ({"url": "https://runtime.sagemaker.us-east-1.amazonaws.com/x", "rate_per_s": 1}, "real_aws: must be given"),
        ({"endpoint": "e", "region": "us-east-1", "rate_per_s": 1, "endpoint_url": None}, "real_aws: must be given"),
        ({"endpoint": "e", "region": "us-east-1", "rate_per_s": 1, "real_aws": True}, "max_rate_per_s: must be given"),
        (
            {"endpoint": "e", "region": "us-east-1", "real_aws": True, "max_rate_per_s": 5, "characterise": True},
            "characterise: must not be given for AWS itself",
        ),
        ({"url": "http://h/", "characterise": True, "rate_per_s": 1}, "rate_per_s: must not be given together"),
        ({"url": "http://h/", "characterise": True, "processes": 2}, "processes: must not be given together"),
    ],
)
def test_other_plans_are_refused(options, says, monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=says):
        plan_load(options.pop("url", None), **options)


def test_secrets_are_not_written():
    with service() as target:
        headers = {"Authorization": "Bearer hidden", "Accept": "a/b"}
        run = ss.load(target.url, rate_per_s=50, duration_s=0.2, headers=headers, limits=LENIENT)
        assert target.requests[0].headers["authorization"] == "Bearer hidden"
    assert run.about["target"]["headers"] == {"Authorization": "...", "Accept": "a/b"}


def test_limits_are_those_asked_for():
    with service() as target:
        strict = dataclasses.replace(LENIENT, lag_s=1e-9, lag_share=0.0)
        run = ss.load(target.url, rate_per_s=50, duration_s=0.2, limits=strict)
    assert run.verdict.status == INVALID
    assert run.about["limits"]["lag_s"] == 1e-9


def test_a_service_that_nothing_reaches_ends_the_run(monkeypatch):
    monkeypatch.setattr("shadowsim.measuring.generator.sender.SNAPSHOT_S", 0.02)
    monkeypatch.setattr("shadowsim.measuring.load._UNREACHABLE_S", 0.1)
    with pytest.raises(InputError, match=r"url: must be a service that can be reached, .* \(connection refused\)"):
        ss.load("http://127.0.0.1:1/", rate_per_s=200, duration_s=3600, limits=LENIENT)
    run = ss.load("http://127.0.0.1:1/", rate_per_s=100, duration_s=0.5, limits=LENIENT, keep_going=True)
    assert set(run.requests["status"]) == {"unavailable"}


def test_a_service_that_was_reached_may_go_away(monkeypatch):
    monkeypatch.setattr("shadowsim.measuring.generator.sender.SNAPSHOT_S", 0.02)
    monkeypatch.setattr("shadowsim.measuring.load._UNREACHABLE_S", 0.0)
    runs = []
    with service() as target:
        options = {"rate_per_s": 100, "duration_s": 1.5, "seed": 4, "limits": LENIENT}
        thread = threading.Thread(target=lambda: runs.append(ss.load(target.url, **options)))
        thread.start()
        deadline = time.monotonic() + 60.0
        while not target.requests and time.monotonic() < deadline:
            time.sleep(0.01)
    thread.join(60.0)
    (run,) = runs
    assert {"answered", "unavailable"} <= set(run.requests["status"])
    assert run.requests["sent_s"].notna().all()
