"""Load runs on an endpoint of the local server: signatures are checked, captures replayed, streams timed."""

import pytest
from captured import record, write
from serving import KEYS, Container, serving

import shadowsim as ss
from shadowsim.measuring.generator.saturation import GeneratorLimits

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
    assert set(missing.about["causes"]) == {"HTTP 400"}
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused = ss.load(endpoint="endpoint", **options)
    assert set(refused.about["causes"]) == {"HTTP 403"}
    assert refused.error_rate == 1.0
