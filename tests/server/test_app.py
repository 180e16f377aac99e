"""The server as a whole: HTTP, pages, CloudWatch through boto3, limits, start and stop."""

import asyncio
import io
import json
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from time import sleep
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import boto3
import pandas as pd
import pytest
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from prometheus_client.parser import text_string_to_metric_families
from serve_process import process_of
from serving import KEYS, Container, answer, create_experiment, create_models, serving, until

from shadowsim import InputError, default_scenario, read_captures
from shadowsim.frames import LATENCY, REQUESTS, WINDOWS, build
from shadowsim.server.data_plane.capture_journal import JOURNAL_S
from shadowsim.server.metrics.cloudwatch_wire import answer_form

N = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An experiment at 100 % that has served N requests; the shadow failed at the last one."""

    async def fail(writer, request):
        writer.write(answer(500, b"no"))

    containers = {"source": Container(), "shadow": Container()}
    with serving(tmp_path_factory.mktemp("serving"), containers, silent_s=0.3, body_s=0.3) as server:
        server.experiment()
        for i in range(N):
            if i == N - 1:
                server.answered(N - 1)
                containers["shadow"].behave = fail
            server.invoke(Body=b"12345", InferenceId=f"id-{i}")
        server.answered(N)
        yield server


def send_bytes(server, data, wait_s=5.0):
    """Send bytes and return what comes back until the server closes the connection or is silent for `wait_s`."""
    address = urlsplit(server.url)
    with closing(socket.create_connection((address.hostname, address.port), timeout=wait_s)) as connection:
        connection.sendall(data)
        received = b""
        try:
            while part := connection.recv(65_536):
                received += part
        except TimeoutError:
            received += b"(still open)"
        return received


def post(server, body=b"{}", path="/", **headers):
    """Send a request and return the status and JSON of the answer."""
    lines = {"Host": "127.0.0.1", "Content-Length": len(body), "Connection": "close", **headers}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in lines.items())
    head, _, answer_body = send_bytes(server, head.encode() + b"\r\n" + body).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(answer_body)


def test_frames_are_those_of_the_simulator(server):
    for name, schema in (("windows", WINDOWS), ("requests", REQUESTS), ("latency", LATENCY)):
        frame = pd.read_parquet(io.BytesIO(server.get(f"/shadowsim/experiments/test/{name}.parquet")))
        assert len(build(schema, {c.name: frame[c.name] for c in schema})) == len(frame)
        assert len(server.frame("test", name)) == len(frame)
    requests = pd.DataFrame(server.frame("test", "requests"))
    assert requests.groupby("role")["request"].apply(list).to_dict() == {
        "source": list(range(N)),
        "shadow": list(range(N)),
    }
    assert list(requests["inference_id"]) == [f"id-{i}" for i in range(N) for _ in range(2)]
    assert list(requests["status"]) == ["answered"] * (2 * N - 1) + ["error_5xx"]
    assert (requests["arrival_s"] >= 0).all()
    assert (requests["latency_s"] > 0).all()


def test_prometheus_reads_the_metrics(server):
    families = {f.name: f for f in text_string_to_metric_families(server.get("/metrics").decode())}
    counted = {s.labels["variant"]: s.value for s in families["shadowsim_invocations"].samples}
    assert counted == {"AllTraffic": N, "Shadow-01": N}
    roles = {s.labels["variant"]: s.labels["role"] for s in families["shadowsim_invocations"].samples}
    assert roles == {"AllTraffic": "source", "Shadow-01": "shadow"}
    latency = [s for s in families["shadowsim_model_latency_seconds"].samples if s.labels["variant"] == "AllTraffic"]
    assert next(s.value for s in latency if s.labels.get("le") == "+Inf") == N
    assert next(s.value for s in latency if s.name.endswith("_count")) == N


SPAN = {"StartTime": datetime.now(UTC) - timedelta(hours=1), "EndTime": datetime.now(UTC) + timedelta(hours=1)}


def dimensions_of(variant="AllTraffic"):
    return [{"Name": "EndpointName", "Value": "endpoint"}, {"Name": "VariantName", "Value": variant}]


def test_cloudwatch_s_statistics(server):
    cloudwatch = server.client("cloudwatch")

    def sums(metric, variant="AllTraffic", statistic="Sum", dimensions=None, period=60):
        points = cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName=metric,
            Dimensions=dimensions or dimensions_of(variant),
            Period=period,
            Statistics=[statistic],
            **SPAN,
        )["Datapoints"]
        return sum(p[statistic] for p in points)

    assert sums("Invocations") == sums("Invocations", "Shadow-01") == N
    assert sums("Invocations", period=3600) == N
    assert sums("InvocationsPerInstance") == N
    assert sums("ModelLatency", statistic="SampleCount") == N
    assert (sums("Invocation5XXErrors"), sums("Invocation5XXErrors", "Shadow-01")) == (0, 1)
    assert (sums("InvocationModelErrors"), sums("InvocationModelErrors", "Shadow-01")) == (0, 1)
    assert sums("Invocations", dimensions=dimensions_of()[:1]) == 0  # as in AWS
    requests = pd.DataFrame(server.frame("test", "requests"))
    expected = requests.loc[requests["role"] == "source", "latency_s"].sum() * 1e6
    assert sums("ModelLatency") == pytest.approx(expected)


def test_cloudwatch_s_data_and_names(server):
    cloudwatch = server.client("cloudwatch")
    metric = {"Namespace": "AWS/SageMaker", "MetricName": "ModelLatency", "Dimensions": dimensions_of()}
    stats = [("mean", "Average"), ("low", "p10"), ("high", "p99.9"), ("top", "Maximum"), ("least", "Minimum")]
    queries = [{"Id": i, "MetricStat": {"Metric": metric, "Period": 7200, "Stat": s}} for i, s in stats]
    results = cloudwatch.get_metric_data(MetricDataQueries=queries, **SPAN)["MetricDataResults"]
    value = {r["Id"]: r["Values"][0] for r in results}
    assert value["least"] <= value["low"] <= value["mean"] <= value["high"] <= value["top"]
    pages = cloudwatch.get_paginator("list_metrics").paginate(Namespace="AWS/SageMaker", MetricName="Invocations")
    dimensions = [m["Dimensions"] for page in pages for m in page["Metrics"]]
    assert dimensions == [dimensions_of("AllTraffic"), dimensions_of("Shadow-01")]
    assert cloudwatch.list_metrics(Namespace="AWS/Lambda")["Metrics"] == []
    for request, code in (
        ({"Period": 30, "Statistics": ["Sum"]}, "InvalidParameterValue"),
        ({"Period": 60}, "MissingParameter"),
        ({"Period": 60, "ExtendedStatistics": ["p101"]}, "InvalidParameterValue"),
    ):
        with pytest.raises(ClientError) as caught:
            cloudwatch.get_metric_statistics(Namespace="a", MetricName="b", **SPAN, **request)
        assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({}, b"{}", "UnknownOperationException"),
        ({"X_Amz_Target": "SageMaker.Nothing"}, b"{}", "UnknownOperationException"),
        ({"X_Amz_Target": "GraniteServiceVersion20100801.PutMetricData"}, b"{}", "UnknownOperationException"),
        ({"X_Amz_Target": "SageMaker.ListModels"}, b"[1]", "SerializationException"),
        ({"X_Amz_Target": "SageMaker.ListModels"}, b"{", "SerializationException"),
        ({"X_Amz_Target": "GraniteServiceVersion20100801.ListMetrics"}, b"\xff", "SerializationException"),
        ({"X_Amz_Target": "SageMaker.ListModels"}, b" " * (2**21 + 1), "SerializationException"),
        ({"X_Amz_Target": "SageMaker.ListModels", "Host": "evil.org"}, b"{}", "AccessDeniedException"),
    ],
)
def test_unknown_actions_and_bad_bodies_are_refused(server, headers, body, code):
    status, error = post(server, body, **headers)
    assert (status // 100, error["__type"]) == (4, code)


@pytest.mark.parametrize(
    "path", ["/x", "/shadowsim/page/x", "/shadowsim/experiments/none/windows.json", "/endpoints/endpoint/invocations"]
)
def test_there_are_no_other_pages(server, path):
    with pytest.raises(HTTPError) as caught:
        server.get(path)
    with caught.value as error:
        assert error.code == 404


@pytest.mark.parametrize(("origin", "status"), [(b"http://evil.org", b"403"), (b"http://localhost", b"200")])
def test_no_other_origin_is_allowed(server, origin, status):
    fields = b"Host: localhost\r\nOrigin: %b\r\nConnection: close\r\n\r\n" % origin
    page = send_bytes(server, b"GET /metrics HTTP/1.1\r\n" + fields)
    assert page.startswith(b"HTTP/1.1 " + status)
    assert b"access-control" not in page.lower()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST / HTTP/1.1\r\nHost: lo",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12",
    ],
)
def test_a_silent_caller_is_cut_off(server, sent):
    assert not send_bytes(server, sent).endswith(b"(still open)")


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 40_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amzn-SageMaker-Custom-Attributes: a\rb\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amzn-SageMaker-Custom-Attributes: a\nX: b\r\n\r\n",
        b"\x16\x03\x01" + b"\0" * 100,
    ],
)
def test_bad_http_is_refused_in_the_port_s_form(server, sent):
    head, _, body = send_bytes(server, sent).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.[01] 4\d\d ", head)
    assert b"x-amzn-ErrorType: SerializationException" in head
    error = json.loads(body)
    assert error["__type"] == "SerializationException"
    assert error["message"].startswith("The request is not HTTP: ")
    assert len(error["message"]) < 200


def exchange(server, sent, half_close=True):
    """Send bytes, close the sending side, and return all that comes back until the server closes, too."""
    address = urlsplit(server.url)
    with closing(socket.create_connection((address.hostname, address.port), timeout=20.0)) as connection:
        connection.sendall(sent)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65_536):
            received += part
    return received


INVOCATION = b"POST /endpoints/endpoint/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("sent", "n_answers"),
    [
        (INVOCATION, 1),
        (2 * INVOCATION, 2),
        (INVOCATION.replace(b"POST /", b"POST http://localhost/"), 1),
        (INVOCATION[:-1], 0),  # the caller is gone in the middle of a body
        (INVOCATION[:30], 0),
        (b"", 0),
    ],
)
def test_a_caller_who_closes_his_side_gets_his_answers(server, sent, n_answers):
    received = exchange(server, sent)
    assert received.count(b"HTTP/1.1 200 OK") == n_answers
    assert received.count(b"\r\n\r\n{}") == n_answers


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://localhost/endpoints/endpoint/invocations", 200),
        (b"HTTPS://127.0.0.1:80/endpoints/endpoint/invocations", 200),
        (b"http://evil.org/endpoints/endpoint/invocations", 403),
        (b"http://localhost@evil.org/endpoints/endpoint/invocations", 400),
        (b"http://localhost", 400),
    ],
)
def test_absolute_targets_are_served(server, target, status):
    line = b"POST %b HTTP/1.1\r\nConnection: close\r\n" % target
    received = exchange(server, line + INVOCATION.partition(b"\r\n")[2], half_close=False)
    assert received.startswith(b"HTTP/1.1 %d " % status)


def test_ping_needs_neither_signature_nor_name(tmp_path):
    with serving(tmp_path, secrets={"AKID": "secret"}) as server:
        assert server.get("/ping", Host="10.0.0.7:80") == b""
        for path in ("/ping2", "/metrics", "/endpoints/endpoint/ping"):
            with pytest.raises(HTTPError) as caught:
                server.get(path)
            caught.value.close()


def test_errors_of_callers_are_not_logged(server, caplog):
    caplog.set_level(0)
    for sent in (b"BREW / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1"):
        address = urlsplit(server.url)
        with closing(socket.create_connection((address.hostname, address.port), timeout=5.0)) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
    assert "Traceback" not in caplog.text


def test_a_long_header_is_refused_with_reason(server):
    with pytest.raises(ClientError) as caught:
        server.invoke(Body=b"x", CustomAttributes="a" * 20_000)
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_asynchronous_invocations_are_refused_by_name(server):
    with pytest.raises(ClientError, match="asynchronous endpoints") as caught:
        server.client("sagemaker-runtime").invoke_endpoint_async(EndpointName="endpoint", InputLocation="s3://b/k")
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"


def test_pages_require_the_token_if_signatures_are_verified(tmp_path):
    key, secret = KEYS.values()
    with serving(tmp_path, secrets={key: secret}) as server:
        with pytest.raises(HTTPError) as caught:
            server.get("/metrics")
        with caught.value as error:
            assert error.code == 403
        server.get(f"/metrics?token={server.app.token.text}")
        server.get("/metrics", Authorization=f"Bearer {server.app.token.text}")


def test_a_container_that_never_answers_ping_fails_the_endpoint(tmp_path):
    with serving(tmp_path, {"source": Container(), "shadow": Container(ping=503)}) as server:
        sagemaker = server.client("sagemaker")
        create_models(sagemaker, "source", "shadow")
        for model in ("source", "shadow"):
            variant = {"VariantName": "v", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
            sagemaker.create_endpoint_config(EndpointConfigName=model, ProductionVariants=[variant])
            sagemaker.create_endpoint(EndpointName=model, EndpointConfigName=model)
        status = lambda name: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]  # noqa: E731
        until(lambda: status("source") == "InService")
        assert status("shadow") == "Creating"  # a container has four minutes to answer


def create_captured_experiment(sagemaker):
    create_models(sagemaker, "a", "b")
    create_experiment(sagemaker, DataStorageConfig={"Destination": "s3://bucket"})


def n_unanswered(runtime):
    """Requests and copies that wait or are in service, as the server's metrics count them."""
    with urlopen(f"{runtime.meta.endpoint_url}/metrics", timeout=10) as page:
        families = {f.name: f for f in text_string_to_metric_families(page.read().decode())}
    return sum(sample.value for sample in families["shadowsim_unanswered_requests"].samples)


def test_sigterm_finishes_requests_in_flight_and_flushes_captures(tmp_path, monkeypatch):
    service = {"time": {"law": "deterministic", "mean_s": 1.0}, "workers": 8}
    changes = {f"services.{name}": service for name in ("AllTraffic", "Shadow-01")}
    default_scenario().replace(changes).save(tmp_path / "scenario.json")
    options = ("--scenario", str(tmp_path / "scenario.json"), "--transition-s", "0")
    with process_of(tmp_path, monkeypatch, *options) as (process, sagemaker, runtime, lines):
        assert lines[0].startswith("state is kept in memory only")
        create_captured_experiment(sagemaker)
        with ThreadPoolExecutor(1) as callers:
            answering = callers.submit(runtime.invoke_endpoint, EndpointName="endpoint", Body=b"x")
            until(lambda: n_unanswered(runtime) == 2)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)  # a second of service, and the interpreter's end
        assert process.returncode == 0, err
        assert answering.result()["Body"].read() == b"x"
        assert "stopping" in out
        assert sorted(read_captures(tmp_path / "s3").records["variant"]) == ["AllTraffic", "Shadow-01"]


def test_sighup_reads_files_again_writes_captures_and_never_ends(tmp_path, monkeypatch):
    keys, quotas = tmp_path / "keys", tmp_path / "quotas.json"
    keys.write_text("[default]\naws_access_key_id = any\naws_secret_access_key = any\n")
    quotas.write_text("{}")
    options = ("--credentials", str(keys), "--quotas", str(quotas), "--log-format", "json", "--flush-s", "3600")
    with process_of(tmp_path, monkeypatch, *options, "--transition-s", "0") as (process, sagemaker, runtime, _):

        def reload():
            process.send_signal(signal.SIGHUP)
            lines = []
            while not (lines and lines[-1]["message"].endswith("wrote captures")):
                lines.append(json.loads(process.stderr.readline()))
            return [line["message"] for line in lines if line["message"].startswith("SIGHUP")]

        create_captured_experiment(sagemaker)
        runtime.invoke_endpoint(EndpointName="endpoint", Body=b"x")
        assert reload() == ["SIGHUP: read credentials, quotas again, and wrote captures"]
        assert "AllTraffic" in set(read_captures(tmp_path / "s3").records["variant"])
        keys.write_text("[default]\naws_access_key_id = other\naws_secret_access_key = any\n")
        quotas.write_text('{"nothing": 1}')
        refused, done = reload()
        assert refused.startswith("SIGHUP: the quotas in force stay, since the new ones cannot be used: ")
        assert "must be a quota of Service Quotas" in refused
        assert done == "SIGHUP: read credentials again, and wrote captures"
        with pytest.raises(ClientError) as caught:
            sagemaker.list_models()
        assert caught.value.response["Error"]["Code"] == "UnrecognizedClientException"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path, monkeypatch):
    """A request of a minute is in flight, for which the first signal waits and the second does not."""
    service = {"time": {"law": "deterministic", "mean_s": 50.0}, "workers": 8}
    changes = {f"services.{name}": service for name in ("AllTraffic", "Shadow-01")}
    default_scenario().replace(changes).save(tmp_path / "scenario.json")
    options = ("--scenario", str(tmp_path / "scenario.json"), "--transition-s", "0")
    with process_of(tmp_path, monkeypatch, *options) as (process, sagemaker, runtime, _):
        create_captured_experiment(sagemaker)
        with ThreadPoolExecutor(1) as callers:
            answering = callers.submit(runtime.invoke_endpoint, EndpointName="endpoint", Body=b"x")
            until(lambda: n_unanswered(runtime) >= 1)
            process.send_signal(signal.SIGTERM)
            while "stopping" not in process.stdout.readline():
                pass
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
            assert answering.exception() is not None
        assert process.returncode == 128 + signal.SIGINT
        assert "ending at once" in err


@pytest.mark.slow
@pytest.mark.parametrize(("is_dead", "status"), [(False, 0), (True, 1)])
def test_lost_captures_are_told_by_the_exit_status(tmp_path, monkeypatch, is_dead, status):
    options = ("--transition-s", "0", "--flush-s", "3600")
    with process_of(tmp_path, monkeypatch, *options) as (process, sagemaker, runtime, _):
        create_captured_experiment(sagemaker)
        runtime.invoke_endpoint(EndpointName="endpoint", Body=b"x")
        until(lambda: n_unanswered(runtime) == 0)
        if is_dead:  # a file is where a folder should be
            (tmp_path / "s3").write_text("")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert ("lines of captures were lost" in err) == is_dead


@pytest.mark.slow
def test_a_killed_server_serves_on_when_it_is_started_again(tmp_path, monkeypatch):
    options = ("--db", str(tmp_path / "state.db"), "--transition-s", "0")
    with process_of(tmp_path, monkeypatch, *options) as (process, sagemaker, runtime, lines):
        assert lines[0].startswith("state is kept in ")
        create_captured_experiment(sagemaker)
        runtime.invoke_endpoint(EndpointName="endpoint", Body=b"x")
        until(lambda: n_unanswered(runtime) == 0)
        sleep(4 * JOURNAL_S)  # the captures of both variants reach the journal
        process.kill()
        process.wait(10)
    with process_of(tmp_path, monkeypatch, *options) as (process, sagemaker, runtime, lines):
        assert sagemaker.describe_inference_experiment(Name="test")["Status"] == "Running"
        assert runtime.invoke_endpoint(EndpointName="endpoint", Body=b"y")["Body"].read() == b"y"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    reading = read_captures(tmp_path / "s3")
    assert sorted(reading.records["variant"]) == 2 * ["AllTraffic"] + 2 * ["Shadow-01"]
    assert (reading.reading.n_torn, reading.reading.n_broken) == (0, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "--host: is reachable from other machines"),
        (["--backend", "model"], "--backend: must be MODEL=http"),
        (["--backend", "model=ftp://x"], "--backend: must have URLs"),
        (["--choose", "nothing=1"], "--choose: must be NAME=VALUE"),
        (["--skew-s", "0"], "--skew-s: must be > 0"),
        (["--scenario", "missing.json"], "missing.json"),
        (["--credentials", "missing"], "missing: cannot be read"),
        (["--time-scale", "-1"], "--time-scale: must be > 0"),
        (["--log-format", "xml"], "--log-format: must be text or json, got 'xml'"),
        (["--tls-cert", "a.crt"], "--tls-cert: needs --tls-key"),
        (["--tls-cert", "a.crt", "--tls-key", "a.key"], "--tls-cert: a.crt cannot be read: No such file"),
        (["--quotas", "missing.json"], "missing.json"),
    ],
)
def test_bad_options_are_one_line(tmp_path, monkeypatch, capsys, options, words):
    from shadowsim.cli.main import app

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        app(["serve", "--port", "0", *options])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_cloudwatch_s_older_protocol(server, monkeypatch):
    load = Loader.load_service_model

    def older(self, service, *args, **more):
        model = load(self, service, *args, **more)
        if service == "cloudwatch" and "metadata" in model:
            metadata = {**model["metadata"], "protocol": "query", "protocols": ["query"]}
            return {**model, "metadata": {k: v for k, v in metadata.items() if k != "targetPrefix"}}
        return model

    monkeypatch.setattr(Loader, "load_service_model", older)
    session = boto3.Session()
    cloudwatch = session.client("cloudwatch", endpoint_url=server.url, region_name="us-east-1", **KEYS)
    assert cloudwatch.meta.service_model.resolved_protocol == "query"
    request = {
        "Namespace": "AWS/SageMaker",
        "MetricName": "ModelLatency",
        "Dimensions": dimensions_of(),
        "Period": 7200,
    }
    (point,) = cloudwatch.get_metric_statistics(
        **request, Statistics=["SampleCount"], ExtendedStatistics=["p50"], **SPAN
    )["Datapoints"]
    newer = server.client("cloudwatch").get_metric_statistics(
        **request, Statistics=["SampleCount"], ExtendedStatistics=["p50"], **SPAN
    )["Datapoints"]
    assert [point] == newer
    metric = {key: request[key] for key in ("Namespace", "MetricName", "Dimensions")}
    queries = [{"Id": "a", "MetricStat": {"Metric": metric, "Period": 7200, "Stat": "Sum"}, "ReturnData": True}]
    (data,) = cloudwatch.get_metric_data(MetricDataQueries=queries, **SPAN)["MetricDataResults"]
    assert len(data["Values"]) == len(data["Timestamps"]) == 1
    assert len(cloudwatch.list_metrics(MetricName="Invocations")["Metrics"]) == 2
    with pytest.raises(ClientError) as caught:
        cloudwatch.get_metric_statistics(**request, **SPAN)
    assert caught.value.response["Error"]["Code"] == "MissingParameter"


@pytest.mark.parametrize(
    "body", [b"\xff", b"Action=ListMetrics&A.b=1&A=2", b"A=1&A.b=2", b"", b"&" * 20_000, b"A." * 50 + b"=1"]
)
def test_malformed_forms_are_refused(body):
    async def handle(action, request):
        raise InputError("action", "is none")

    status, parts = asyncio.run(answer_form(body, handle))
    assert status == 400
    assert b"<Code>" in b"".join(parts)
