"""Load runs on an endpoint of the local server: signatures are checked, captures replayed, streams timed."""

import json

import pandas as pd
import pytest
from captured import record, write
from serving import KEYS, Container, serving

import shadowsim as ss
from shadowsim.measuring.generator.saturation import GeneratorLimits
from shadowsim.scenario.service import parse_service

LENIENT = GeneratorLimits(lag_s=20.0, dropped=0.0, cpu=100.0)
KEY, SECRET = KEYS.values()


@pytest.fixture
def endpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    container = Container()
    with serving(tmp_path, {"source": container, "shadow": Container()}, secrets={KEY: SECRET}) as server:
        server.experiment()
        yield server, container


def test_captures_are_replayed_on_an_endpoint_that_checks_signatures(endpoint, tmp_path):
    server, container = endpoint
    source = write(tmp_path / "captured", "AllTraffic", [record(str(i), request={"n": i}) for i in range(5)])
    run = ss.load(
        endpoint="endpoint", endpoint_url=server.url, rate_per_s=50, duration_s=0.6, body=source, limits=LENIENT
    )
    assert set(run.requests["status"]) == {"answered"}, run.about["causes"]
    assert {request.body for request in container.requests} == {b'{"n": %d}' % i for i in range(5)}
    assert {request.headers["content-type"] for request in container.requests} == {"application/json"}
    assert run.requests["inference_id"].is_unique
    assert run.requests["inference_id"].str.startswith("load-").all()


def test_refusals_of_the_endpoint_are_counted(endpoint, monkeypatch):
    server, _ = endpoint
    options = {"endpoint_url": server.url, "rate_per_s": 50, "duration_s": 0.2, "limits": LENIENT}
    missing = ss.load(endpoint="nowhere", **options)
    (cause,) = missing.about["causes"]  # in SageMaker's words, so that a name that is wrong shows
    assert cause.startswith("HTTP 400: ")
    assert "nowhere" in cause
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused = ss.load(endpoint="endpoint", **options)
    (cause,) = refused.about["causes"]
    assert cause.startswith("HTTP 403: ")
    assert "signature" in cause
    assert refused.error_rate == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("path", ["invoke-stream", "openai"])
def test_the_tokens_of_a_simulated_model_are_timed(tmp_path, path):
    """The client's times are the model's, and later by what the machine adds; the tokens are the same, one by one."""
    step = {"base_s": 0.01, "per_sequence_s": 0.001}
    tokens = {
        "prompt": 20,
        "output": 10,
        "max_sequences": 64,
        "max_step_tokens": 2000,
        "kv_tokens": 100_000,
        "step": step,
    }
    services = {name: parse_service({"tokens": tokens}, "services.x") for name in ("AllTraffic", "Shadow-01")}
    options = {"rate_per_s": 20, "duration_s": 4, "limits": LENIENT, "seed": 3}
    with serving(tmp_path, services=services) as server:
        server.experiment(models=("a", "b"))
        if path == "openai":
            ask = {"model": "m", "prompt": "x", "stream": True, "stream_options": {"include_usage": True}}
            url = f"{server.url}/endpoints/endpoint/openai/v1/completions"
            run = ss.load(url, protocol="openai", body=json.dumps(ask).encode(), **options)
        else:
            run = ss.load(endpoint="endpoint", endpoint_url=server.url, stream=True, body=b"x", **options)
        n = len(run.requests)
        server.answered(n)
        live = pd.DataFrame(server.frame("test", "requests"))
    assert set(run.requests["status"]) == {"answered"}, run.about["causes"]
    assert set(run.requests["output_tokens"]) == {10}
    if path == "openai":
        assert set(run.requests["prompt_tokens"]) == {20}
    source = live[live["role"] == "source"].reset_index(drop=True)
    assert (live["output_tokens"] == 10).all()
    assert (run.requests["first_token_s"].to_numpy() > source["first_token_s"].min()).all()
    assert run.requests["first_token_s"].median() > source["first_token_s"].median()
    # ten steps of 11 ms or more
    assert source["latency_s"].min() >= 0.11
    assert (run.requests["latency_s"] - run.requests["first_token_s"] >= 0.05).all()
