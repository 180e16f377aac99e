"""The whole server as `shadowsim serve` starts it, in one process and in several: answers, copies, counts, kills."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from time import sleep, time
from urllib.parse import urlsplit
from urllib.request import urlopen

import boto3
import pytest
from botocore.exceptions import ClientError
from kill_parts import kill_campaign
from serving import ROLE, until
from serving_processes import START_S, serving_processes, wait_for_parts

from shadowsim import InputError, __version__
from shadowsim.server.processes.supervisor import Supervisor, n_processes, remove_unlocked
from shadowsim.server.settings import Settings
from shadowsim.server.state.destinations import Folders
from shadowsim.server.state.quotas import Quotas

N = 40
MODEL = {"ModelName": "while-stopped", "PrimaryContainer": {"Image": "i"}, "ExecutionRoleArn": ROLE}
TARGET = {"X-Amz-Target": "SageMaker.ListModels", "Content-Type": "application/x-amz-json-1.1"}


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.slow) for n in (2, 1)])
def server(request, tmp_path_factory):
    """A server whose models have containers, or, if their names begin so, are simulated.

    Its processes take ten seconds; test_clients.py starts as many in every run.
    """
    folder = tmp_path_factory.mktemp("server")
    (folder / "queue.py").write_text("raise ImportError  # of the user's, not the standard library's")
    with serving_processes(folder, request.param, "--transition-s", "0", containers=("a", "b")) as serving:
        serving.n = request.param
        yield serving
        n_lost = serving.metric("captures_lost_total")  # of control that was killed
        with urlopen(f"{serving.url}/shadowsim/events", timeout=30) as events:
            for pid in serving.pids.values():
                os.kill(pid, signal.SIGTERM)  # as systemd does when it stops a service
            assert serving.stop() == (n_lost > 0)
            assert "by signal 15" not in serving.log
            assert events.read().endswith(b"\n\n")  # as of a stream that has its own end; else this raises
        assert serving.lines[-1] == "stopping: finishing requests in flight, writing captures"


def test_it_says_where_it_serves_once(server):
    assert sum(line.startswith("shadowsim serves at ") for line in server.lines) == 1
    assert server.lines[0] == "state is kept in memory only and is lost when the server stops (--db FILE keeps it)"
    assert len(server.pids) == (server.n + 2 if server.n > 1 else 0)


def test_targets_scale_and_the_live_page_is_told(server):
    sagemaker, scaling = server.client("sagemaker"), server.client("application-autoscaling")
    sagemaker.create_model(ModelName="scaled", PrimaryContainer={"Image": "i"}, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": "scaled", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="scaled", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="scaled", EndpointConfigName="scaled")
    until(lambda: sagemaker.describe_endpoint(EndpointName="scaled")["EndpointStatus"] == "InService")
    scaling.register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/scaled/variant/v",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=2,
        MaxCapacity=4,
    )

    def instances():
        (described,) = sagemaker.describe_endpoint(EndpointName="scaled")["ProductionVariants"]
        return described["CurrentInstanceCount"]

    until(lambda: instances() == 2)
    assert b"<title>shadowsim" in server.get("/")
    with urlopen(f"{server.url}/shadowsim/events", timeout=30) as events:  # goes on until it is closed
        assert events.readline() == b"event: state\n"
        assert json.loads(events.readline().removeprefix(b"data: "))["version"] == __version__


def test_an_action_is_in_force_for_every_connection_at_once(server):
    """Twelve connections are all at the same one of two workers once in 2,048 times, in which case less is tested."""
    sagemaker, connections = server.client("sagemaker"), server.connections(12)
    image = {"Image": "i"}
    sagemaker.create_model(ModelName="simulated", PrimaryContainer=image, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": "simulated", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="one", ProductionVariants=[variant])

    def statuses():
        for connection in connections:
            connection.request("POST", "/endpoints/now/invocations", b"{}", {"Content-Type": "a/b"})
        answers = [connection.getresponse() for connection in connections]
        bodies = [answer.read() for answer in answers]
        return {(answer.status, b"not found" in body) for answer, body in zip(answers, bodies, strict=True)}

    for _ in range(4):
        assert statuses() == {(400, True)}
        sagemaker.create_endpoint(EndpointName="now", EndpointConfigName="one")
        assert statuses() == {(200, False)}
        sagemaker.delete_endpoint(EndpointName="now")
    for connection in connections:
        connection.close()


def test_requests_are_copied_captured_and_counted(server):
    server.experiment(DataStorageConfig={"Destination": "s3://bucket/captures"})
    for i in range(N):
        answer = server.invoke(Body=b"x" * i, ContentType="a/b", InferenceId=f"i{i}")
        assert (answer["Body"].read(), answer["InvokedProductionVariant"]) == (b"x" * i, "AllTraffic")
    server.counted(N, N)
    rows = server.frame("requests")
    assert [(row["request"], row["role"]) for row in rows] == [
        (i, role) for i in range(N) for role in ("source", "shadow")
    ]
    assert [row["inference_id"] for row in rows[::2]] == [row["inference_id"] for row in rows[1::2]]
    assert {row["inference_id"]: row["response_bytes"] for row in rows} == {f"i{i}": i for i in range(N)}
    assert [row["arrival_s"] for row in rows[::2]] == sorted(row["arrival_s"] for row in rows[::2])
    windows = server.frame("windows")
    assert sum(row["Invocations"] for row in windows) == sum(row["captured_records"] for row in windows) == 2 * N
    assert sum(row[name] for row in windows if row["role"] == "shadow" for name in row if "copies_lost" in name) == 0
    assert sum(row["count"] for row in server.frame("latency")) == 2 * N
    named = {"EndpointName": "endpoint", "VariantName": "Shadow-01"}
    statistics = server.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="Invocations",
        Dimensions=[{"Name": name, "Value": value} for name, value in named.items()],
        StartTime=time() - 3600,
        EndTime=time() + 3600,
        Period=60,
        Statistics=["Sum"],
    )
    assert sum(point["Sum"] for point in statistics["Datapoints"]) == N


def test_a_simulated_stream_comes_in_parts(server):
    sagemaker = server.client("sagemaker")
    sagemaker.create_model(ModelName="tokens", PrimaryContainer={"Image": "i"}, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "t", "ModelName": "tokens", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="tokens", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="tokens", EndpointConfigName="tokens")
    runtime = server.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName="tokens", Body=b"echoed", ContentType="a/b")
    assert b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"]) == b"echoed"
    until(lambda: server.metric("invocations_total", endpoint="tokens") == 1)


@pytest.mark.parametrize(
    ("request_line", "headers", "body", "status", "expected"),
    [
        ("GET /ping", {}, b"", 200, b""),
        ("GET /nowhere", {}, b"", 404, b"There is no GET /nowhere on this server."),
        ("GET /metrics#there", {}, b"", 404, b"There is no GET /metrics"),
        ("GET http://127.0.0.1?x", {}, b"", 200, b"<title>shadowsim"),
        ("PUT /", {}, b"", 400, b"There is no PUT / on this server."),
        ("POST /", TARGET, b"{}", 200, b'"Models"'),
        ("POST http://127.0.0.1/", TARGET, b"{}", 200, b'"Models"'),
        ("POST /", {**TARGET, "Host": "evil.example"}, b"{}", 403, b"The Host header does not name this server."),
        ("POST http://evil.example/", TARGET, b"{}", 403, b"The Host header does not name this server."),
        ("POST /", {**TARGET, "Origin": "http://evil.example"}, b"{}", 403, b"names another origin"),
        ("POST /", TARGET, b"[]", 400, b"The body must be an object, not a list."),
        ("POST /", TARGET, b"x" * (2 * 2**20 + 1), 400, b"The body is longer than 2097152 bytes."),
        ("POST /", {"X-Amz-Target": "SageMaker.Nothing"}, b"{}", 400, b"Nothing is not an action"),
        ("POST /endpoints/none/invocations", {}, b"{}", 400, b"Endpoint none of account"),
        ("POST /endpoints/none/async-invocations", {}, b"{}", 400, b"InvokeEndpointAsync is for"),
        ("GET /endpoints/none/invocations", {}, b"", 404, b"There is no GET"),
    ],
    ids=range(16),
)
def test_answers_are_the_same_in_any_number_of_processes(server, request_line, headers, body, status, expected):
    with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), timeout=30.0) as link:
        fields = {"Host": "127.0.0.1", "Content-Length": len(body), "Connection": "close", **headers}
        head = "\r\n".join(
            [f"{request_line} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        )
        link.sendall(head.encode() + body)
        answer = b""
        while part := link.recv(65_536):
            answer += part
    head, _, text = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, answer
    assert expected in text
    lines = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
    assert {b"x-amzn-requestid", b"server"} <= set(lines)
    assert len(lines) == len(set(lines)), head


def test_callers_who_wait_for_100_continue_get_it(server):
    with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), timeout=30.0) as link:
        link.sendall(
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Amz-Target: SageMaker.ListModels\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert link.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        link.sendall(b"{}")
        assert link.recv(65_536).startswith(b"HTTP/1.1 200")


def test_others_go_on_when_a_process_is_killed(server):
    """Callers of containers are served while control is away, which says so; then all is counted."""
    if server.n == 1:
        pytest.skip("there is one process")
    n_before = server.metric("invocations_total", endpoint="endpoint", role="source")
    connections, n_answered = server.connections(8), 0

    def invoke():
        nonlocal n_answered
        for connection in connections:
            connection.request("POST", "/endpoints/endpoint/invocations", b"{}", {"Content-Type": "a/b"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"{}")
            n_answered += 1

    invoke()
    server.kill("control")
    answer = action(server, "ListModels")
    assert answer == (503, "The control process is being restarted. Please try again.")
    invoke()
    server.kill("mirror")
    invoke()
    until(lambda: action(server, "ListModels")[0] == 200, START_S)
    until(lambda: server.metric("process_starts_total", process="mirror") == 2, START_S)
    invoke()
    for connection in connections:
        connection.close()

    def counted():
        n_requests = server.metric("invocations_total", endpoint="endpoint", role="source")
        n_copies = server.metric("invocations_total", endpoint="endpoint", role="shadow")
        n_lost = server.metric("copies_lost_total", endpoint="endpoint", cause="server_crash")
        return n_requests, n_copies + n_lost

    until(lambda: counted() == (n_before + n_answered, n_before + n_answered))
    # Copies that ended in the mirror's last FLUSH_S are lost, and their counts, too: those of both rounds before its
    # kill, if no report has left between them. Control reports nothing, and workers live.
    assert server.metric("counts_lost_total", process="mirror") <= 2 * len(connections)
    assert server.metric("counts_lost_total") == server.metric("counts_lost_total", process="mirror")


def test_a_worker_that_is_started_again_copies_its_first_request(server):
    if server.n == 1:
        pytest.skip("there is one process")

    def n_lost(cause):
        return server.metric("copies_lost_total", endpoint="endpoint", cause=cause)

    def n_copies():
        return server.metric("invocations_total", endpoint="endpoint", role="shadow") + n_lost("server_lag")

    n_crashed, n_before = n_lost("server_crash"), n_copies()
    server.kill("worker-0")
    server.kill("worker-1")
    invoked = []

    def is_invoked():
        (connection,) = server.connections(1)
        with closing(connection), suppress(ConnectionError):
            connection.request("POST", "/endpoints/endpoint/invocations", b"{}", {"Content-Type": "a/b"})
            invoked.append(connection.getresponse().status)
        return invoked

    until(is_invoked, START_S)
    assert invoked == [200]
    until(lambda: n_copies() + n_lost("server_crash") > n_before + n_crashed)
    assert (n_copies(), n_lost("server_crash")) == (n_before + 1, n_crashed)


@pytest.mark.slow
def test_a_worker_that_does_not_hear_of_an_action_is_killed_before_the_action_is_answered(server):
    if server.n == 1:
        pytest.skip("there is one process")
    stopped = server.pids["worker-1"]
    os.kill(stopped, signal.SIGSTOP)
    for connection in server.connections(40):  # some wait at the stopped worker
        connection.timeout = 1.0
        with suppress(TimeoutError):
            connection.request("GET", "/ping")
            connection.getresponse().read()
            break
        connection.close()
    connection.sock.settimeout(30.0)
    headers = {**TARGET, "X-Amz-Target": "SageMaker.CreateModel"}
    connection.request("POST", "/", json.dumps(MODEL), headers)
    assert connection.getresponse().status == 200
    connection.close()
    assert server.pids.get("worker-1") != stopped
    assert "the worker-1 process does not answer, and is killed" in server.log
    wait_for_parts(server, ["worker-1"])
    server.client("sagemaker").delete_model(ModelName=MODEL["ModelName"])


def action(server, name):
    """Return the status and message of an action's answer."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30.0)
    try:
        connection.request("POST", "/", b"{}", {**TARGET, "X-Amz-Target": f"SageMaker.{name}"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()).get("message")
    finally:
        connection.close()


@pytest.mark.slow
def test_sixty_kills_under_load(tmp_path):
    counts = kill_campaign(tmp_path, 60, seed=1)
    assert all(counts[f"killed {part}"] for part in ("control", "mirror", "worker-0", "worker-1"))
    assert counts["answered"] > 500


@pytest.mark.long
def test_two_hundred_kills_under_load(tmp_path):
    counts = kill_campaign(tmp_path, 200, seed=2)
    assert all(counts[f"killed {part}"] > 20 for part in ("control", "mirror", "worker-0", "worker-1"))
    kinds = ("Model", "EndpointConfig", "Endpoint", "InferenceExperiment")
    assert all(counts[f"Create{kind}"] and counts[f"Delete{kind}"] for kind in kinds)


@pytest.mark.slow
def test_signals_go_through_the_supervisor(tmp_path):
    (tmp_path / "keys").write_text("[default]\naws_access_key_id = AKID\naws_secret_access_key = one\n")
    options = ("--credentials", str(tmp_path / "keys"), "--flush-s", "3600", "--transition-s", "0")
    with serving_processes(tmp_path, 2, *options, containers=("a", "b")) as server:
        for service in ("sagemaker", "sagemaker-runtime"):
            server.clients[service] = signed(server, service, "one")
        server.experiment(DataStorageConfig={"Destination": "s3://bucket/captures"})
        server.invoke(Body=b"{}", ContentType="a/b")["Body"].read()
        sleep(0.5)
        (tmp_path / "keys").write_text("[default]\naws_access_key_id = AKID\naws_secret_access_key = two\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: len(list((tmp_path / "s3").rglob("*.jsonl"))) == 2)
        with pytest.raises(ClientError, match="signature"):
            server.invoke(Body=b"{}", ContentType="a/b")
        with pytest.raises(ClientError, match="signature"):
            server.client("sagemaker").list_models()
        runtime = server.clients["new"] = signed(server, "sagemaker-runtime", "two")
        assert runtime.invoke_endpoint(EndpointName="endpoint", Body=b"{}", ContentType="a/b")["Body"].read() == b"{}"
        server.kill("worker-0")  # a process that is started again has the new keys, too
        server.kill("worker-1")
        wait_for_parts(server, ["worker-0", "worker-1"])
        until(lambda: is_served(runtime))
        pids = server.pids.values()
        for number in (signal.SIGINT, signal.SIGTERM):  # two of one number that come together are one
            server.process.send_signal(number)
        assert server.process.wait(30) in (128 + signal.SIGINT, 128 + signal.SIGTERM)
        until(lambda: not any(is_alive(pid) for pid in pids))
        assert "ending at once" in server.log


def signed(server, service, secret):
    keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": secret, "region_name": "us-east-1"}
    return boto3.client(service, endpoint_url=server.url, **keys)


def is_served(runtime):
    try:
        runtime.invoke_endpoint(EndpointName="endpoint", Body=b"{}", ContentType="a/b")["Body"].read()
    except Exception:
        return False
    return True


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_kill_9_of_the_supervisor_ends_all_and_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serving_processes(tmp_path, 2) as server:
        (folder,) = tmp_path.glob("shadowsim-????????")
        pids = server.pids.values()
        server.process.kill()
        until(lambda: not any(is_alive(pid) for pid in pids))
        assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["state", "port"])
def test_a_server_that_cannot_start_says_why(tmp_path, what):
    command = [sys.executable, "-m", "shadowsim", "serve", "--processes", "2"]
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1] if what == "port" else 0
        (tmp_path / "not-a-store").write_text("text")
        database = str(tmp_path / "not-a-store") if what == "state" else ":memory:"
        command += ["--port", str(port), "--db", database]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert ("--db" if what == "state" else f"--port: 127.0.0.1:{port} cannot be bound") in line


def test_a_folder_whose_path_is_too_long_for_sockets_is_named(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    settings = Settings(sink=Folders(tmp_path), port=0)
    supervisor = Supervisor(settings, {"path": ":memory:"}, Quotas({}), 2, "text")
    with pytest.raises(InputError, match="TMPDIR: must be a folder whose path has at most 74 bytes, for the sockets"):
        asyncio.run(supervisor.start())
    assert list(long.iterdir()) == []


def test_the_folder_of_a_supervisor_that_lives_is_not_removed(supervisor):
    remove_unlocked(supervisor._folder)
    assert supervisor._folder.exists()


def test_several_processes_remove_the_folder_of_a_killed_supervisor_at_once(tmp_path):
    """One that comes while another has looked at the lock removes what that one has not seen."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "made-since").touch()
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_SH)
        remove_unlocked(folder)
    finally:
        os.close(place)
    assert not folder.exists()


@pytest.fixture
def supervisor(tmp_path):
    made = Supervisor(Settings(sink=Folders(tmp_path)), {"path": ":memory:"}, Quotas({}), 2, "text")
    yield made
    asyncio.run(made.stop())


def test_a_port_whose_last_connections_have_just_ended_can_be_had(supervisor):
    with socket.create_server(("127.0.0.1", 0)) as before:
        port = before.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            before.accept()[0].close()  # it waits, since this side closes first
    assert supervisor._reserve("127.0.0.1", port) == ("127.0.0.1", port)
    with socket.socket() as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(("127.0.0.1", port))


def test_a_port_that_others_share_cannot_be_had(supervisor):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other, pytest.raises(OSError, match="in use"):
        supervisor._reserve("127.0.0.1", other.getsockname()[1])


def test_a_name_is_bound_at_all_its_addresses_with_one_port(supervisor):
    _, port = supervisor._reserve("localhost", 0)
    assert {bound.getsockname()[1] for bound in supervisor._port} == {port}


def test_a_system_that_does_not_balance_gets_one_process(monkeypatch, caplog):
    assert n_processes(4) == 4
    monkeypatch.setattr(sys, "platform", "darwin")
    assert (n_processes(4), n_processes(1)) == (1, 1)
    assert caplog.messages == [
        "--processes: this system does not balance callers among processes on one port, so all runs in one process"
    ]
