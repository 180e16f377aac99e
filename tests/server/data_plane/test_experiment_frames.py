"""Frames of a live experiment: against pandas on the same requests, and as downloads from a server."""

import json
import math
from dataclasses import replace
from random import Random
from urllib.error import HTTPError

import numpy as np
import pandas as pd
import pytest
from serving import SHADOW_ACTIONS, serving, until

from shadowsim import compare
from shadowsim.frames import LATENCY, LIVE_WINDOWS, OPTIONAL, PERCENTILES, REQUESTS, SCHEMAS, quantile
from shadowsim.server.data_plane import experiment_frames
from shadowsim.server.data_plane.backends import TOO_LONG, Answer, TokenFigures
from shadowsim.server.data_plane.counts import ServedRequest
from shadowsim.server.data_plane.experiment_frames import Logbook

BEGAN_S = 1_800_000_030.0
OUTCOMES = {"answered": 200, "error_4xx": 400, "error_5xx": 500, "timed_out": 0, "refused": 503, "broken": 0}


def served(request, arrival_s, outcome="answered", latency_s=0.01, wait_s=math.nan, service_s=math.nan, tokens=None,
           **more):  # fmt: skip
    work = {"work_s": service_s, "offered_s": service_s}
    answer = Answer(outcome, latency_s, OUTCOMES[outcome], b"four", {}, wait_s, service_s, tokens=tokens, **work)
    return ServedRequest(
        request=request,
        inference_id=f"id-{request}",
        arrival_s=arrival_s,
        instance=0,
        n_instances=2,
        answer=answer,
        overhead_s=0.001,
        request_bytes=10,
        **more,
    )


def logbook_and_rows(seed, n=3000):
    """Return a logbook of random requests, and their rows as a plain frame."""
    random, book, rows = Random(seed), Logbook("test", "endpoint", ("source", "shadow"), BEGAN_S, (2, 2)), []
    for i in range(n):
        for role in (0, 1):
            if role and random.random() < 0.5:
                continue
            outcome = random.choices(list(OUTCOMES), [20, 1, 1, 1, 1, 1])[0]
            wait, service = random.expovariate(100), random.expovariate(50)
            at_s, captured = 300.0 * i / n, random.choice([None, 14])
            request = served(i, BEGAN_S + at_s, outcome, wait + service, wait, service, captured_bytes=captured)
            book.add(role, request)
            rows.append((i, role, at_s, outcome, wait, service, captured))
    return book, pd.DataFrame(rows, columns=["request", "role", "at_s", "outcome", "wait", "service", "captured"])


def test_windows_agree_with_the_requests():
    book, rows = logbook_and_rows(1)
    windows = book.windows()
    assert [c.name for c in LIVE_WINDOWS] == list(windows.columns)
    rows["window"] = rows["at_s"] // 60 * 60
    for role, name in enumerate(("source", "shadow")):
        everything = rows[rows["role"] == role]
        for start, part in everything.groupby("window"):
            (window,) = windows[(windows["role"] == name) & (windows["time_s"] == start)].to_dict("records")
            latency = (part["wait"] + part["service"])[part["outcome"] != "refused"]
            assert window["Invocations"] == len(part)
            assert window["InvocationsPerInstance"] == pytest.approx(len(part) / 2)
            assert window["ModelLatency_SampleCount"] == len(latency)
            assert window["ModelLatency_Average"] == pytest.approx(latency.mean() * 1e6)
            assert window["ModelLatency_Maximum"] == pytest.approx(latency.max() * 1e6)
            for percentile, q in PERCENTILES.items():  # the bucket that holds it is 0.8 % wide; the rank is off by one
                low, high = np.quantile(latency, [max(q - 1 / len(latency), 0), min(q + 1 / len(latency), 1)]) * 1e6
                assert low * 0.992 <= window[f"ModelLatency_{percentile}"] <= high * 1.008
            assert window["Invocation4XXErrors"] == (part["outcome"] == "error_4xx").sum()
            assert window["Invocation5XXErrors"] == part["outcome"].isin(["error_5xx", "refused"]).sum()
            assert window["InvocationModelErrors"] == (part["outcome"] != "answered").sum()
            assert window["wait_mean_s"] == pytest.approx(part["wait"].mean())
            assert window["captured_records"] == part["captured"].notna().sum()
            assert window["captured_bytes"] == part["captured"].sum()
            assert window["offered_load"] == pytest.approx(part["service"].sum() / (60 * 4))
            begun = everything["at_s"] + everything["wait"]
            worked = np.minimum(begun + everything["service"], start + 60) - np.maximum(begun, start)
            # moments are seconds since 1970, whose floats are 2^-22 s apart
            expected = pytest.approx(worked.clip(lower=0).sum() / 240, abs=len(everything) * 2**-22 / 240)
            assert window["utilisation"] == expected


def test_requests_are_complete_and_in_order():
    book, rows = logbook_and_rows(2)
    requests = book.requests()
    assert [c.name for c in REQUESTS] == list(requests.columns)
    expected = rows.sort_values(["request", "role"], ignore_index=True)
    assert (requests["request"] == expected["request"]).all()
    assert (requests["status"] == expected["outcome"]).all()
    assert np.allclose(requests["arrival_s"], expected["at_s"])
    assert requests["latency_s"].isna().equals(expected["outcome"] == "refused")
    assert (requests["inference_id"] == "id-" + expected["request"].astype(str)).all()
    no_answer = expected["outcome"].isin(["timed_out", "broken"])
    assert requests["response_bytes"].isna().equals(no_answer)


def test_an_answer_above_the_limit_is_broken():
    book = Logbook("test", "endpoint", ("source", "shadow"), BEGAN_S)
    book.add(0, replace(served(0, BEGAN_S), answer=Answer(TOO_LONG, 0.01)))
    assert list(book.requests()["status"]) == ["broken"]
    assert book.windows()["InvocationModelErrors"].sum() == 1


def test_latency_has_every_accepted_request_once():
    book, rows = logbook_and_rows(3)
    latency = book.latency()
    assert [c.name for c in LATENCY] == list(latency.columns)
    assert latency["count"].sum() == (rows["outcome"] != "refused").sum()


def test_an_empty_logbook_has_empty_frames():
    book = Logbook("test", "endpoint", ("source", "shadow"), BEGAN_S)
    assert (len(book.windows()), len(book.requests()), len(book.latency())) == (0, 0, 0)


def test_too_many_rows_lose_the_oldest_and_are_counted(monkeypatch):
    monkeypatch.setattr(experiment_frames, "CHUNK_ROWS", 100)
    book = Logbook("test", "endpoint", ("source", "shadow"), BEGAN_S, kept_rows=1000)
    for i in range(2500):
        book.add(0, served(i, BEGAN_S))
    requests = book.requests()
    assert len(requests) + book.n_forgotten == 2500
    assert len(requests) >= 1000
    assert requests["request"].iloc[-1] == 2499
    assert book.windows()["Invocations"].sum() == 2500


def test_an_experiment_that_is_created_again_begins_a_new_logbook(tmp_path):
    """This holds even if the endpoint is not asked for between the two experiments."""
    with serving(tmp_path, store={"transition_s": 0.0}) as server:
        sagemaker = server.experiment()
        for _ in range(3):
            server.invoke(Body=b"x")
        server.answered(3)
        request = sagemaker.describe_inference_experiment(Name="test")
        sagemaker.stop_inference_experiment(Name="test", ModelVariantActions=SHADOW_ACTIONS)
        sagemaker.delete_inference_experiment(Name="test")
        sagemaker.create_inference_experiment(
            Name="test",
            EndpointName="endpoint",
            ModelVariants=[{k: v for k, v in variant.items() if k != "Status"} for variant in request["ModelVariants"]],
            **{key: request[key] for key in ("Type", "RoleArn", "ShadowModeConfig")},
        )
        server.invoke(Body=b"x")
        server.answered(4)
        assert [row["request"] for row in server.frame("test", "requests")] == [0, 0]


def test_a_folder_of_downloaded_frames_can_be_compared(tmp_path):
    """This works before and after the experiment's end, even if the endpoint is deleted."""
    folder = tmp_path / "frames"
    folder.mkdir()
    with serving(tmp_path) as server:
        sagemaker = server.experiment()
        for i in range(20):
            server.invoke(Body=b"x", InferenceId=f"id-{i}")
        server.answered(20)
        compared = []
        for after in (False, True):
            if after:
                sagemaker.stop_inference_experiment(Name="test", ModelVariantActions=SHADOW_ACTIONS)
                until(lambda: sagemaker.describe_inference_experiment(Name="test")["Status"] == "Cancelled")
                sagemaker.delete_endpoint(EndpointName="endpoint")
                until(lambda: not sagemaker.list_endpoints()["Endpoints"])
            for name in SCHEMAS:
                (folder / f"{name}.parquet").write_bytes(server.get(f"/shadowsim/experiments/test/{name}.parquet"))
            compared.append(compare(folder))
    assert list(compared[0]["n_source"].iloc[:6]) == [20] * 6
    pd.testing.assert_frame_equal(*compared)


@pytest.mark.parametrize("name", ["none", "scheduled", "%2e%2e%2fx", "%ff", "te%00st", "x" * 500, "tes%74%20"])
def test_an_experiment_that_has_not_served_has_no_frames(tmp_path, name):
    with serving(tmp_path) as server, pytest.raises(HTTPError) as caught:
        server.get(f"/shadowsim/experiments/{name}/windows.json")
    assert caught.value.code == 404
    assert json.loads(caught.value.read())["__type"] == "ResourceNotFound"


def test_an_experiment_without_requests_has_empty_frames(tmp_path):
    with serving(tmp_path) as server:
        server.experiment()
        until(lambda: server.app.endpoints.logbook("test"))
        assert server.frame("test", "requests") == server.frame("te%73t", "latency") == []
        assert all(row["Invocations"] == 0 for row in server.frame("test", "windows"))


def test_frames_of_a_service_in_tokens():
    """A source in tokens beside a container; answers in minutes 0 and 1, tokens produced over both."""
    book = Logbook("test", "endpoint", ("source", "shadow"), BEGAN_S, (1, None), in_tokens=True)
    figures = TokenFigures(10.0, 0.5, prompt=100, output=81, produced=81, prefilled=150, preemptions=1)
    book.add(0, served(0, BEGAN_S + 30.0, latency_s=50.0, wait_s=1.0, service_s=49.0, tokens=figures))
    late = TokenFigures(math.nan, math.nan, prompt=7, output=9, produced=0, prefilled=3, preemptions=0)
    book.add(0, served(1, BEGAN_S + 70.0, "timed_out", 5.0, 4.0, tokens=late))
    book.add(1, served(0, BEGAN_S + 30.0))
    book.series[0].sample(BEGAN_S + 35.0, [2], None, [(2, 0.5)])
    book.series[0].sample(BEGAN_S + 45.0, [1], None, [(1, 0.25)])
    windows = book.windows()
    source, shadow = (windows[windows["role"] == role].reset_index() for role in ("source", "shadow"))
    assert source["FirstChunkModelLatency_SampleCount"].tolist() == [1, 0]
    assert source["FirstChunkModelLatency_Average"][0] == 10e6
    assert source["TimePerOutputToken_p99"][0] == pytest.approx(0.5e6)
    # 81 tokens in the 40 s from the first to the last, of which 20 are in each minute
    assert source["output_tokens"].tolist() == [40, 41]
    assert source["prefill_tokens"].tolist() == [150, 3]
    assert source["preemptions"].tolist() == [1, 0]
    assert source["running_sequences_mean"][0] == 1.5
    assert source["cache_use_maximum"][0] == 0.5
    assert shadow["FirstChunkModelLatency_SampleCount"].isna().all()
    requests = book.requests()
    assert requests["first_token_s"].tolist()[0] == 10.0
    assert requests["prompt_tokens"].tolist() == [100, pd.NA, 7]
    latency = book.latency()
    assert latency.groupby("measure")["count"].sum().to_dict() == {"latency": 3, "first_token": 1, "per_token": 1}
    assert quantile(latency, 0.5, "first_token")["source"] == pytest.approx(10.0, rel=0.008)
    for frame, name in ((windows, "windows"), (latency, "latency"), (requests, "requests")):
        allowed = {c.name: c.dtype for c in (*LIVE_WINDOWS, *SCHEMAS[name], *OPTIONAL[name])}
        assert {n: str(frame[n].dtype) for n in frame} == {n: allowed[n] for n in frame}
