"""Random requests to the port, right and wrong: none is a defect, and one process and two answer alike.

A request is made right first: an action of a service with a body of its shape, an invocation, or a page. Then one in
three is made wrong somewhere: a value, a header, the request line, or the bytes themselves.
"""

import json
import re
import socket
from collections import Counter
from http.client import HTTPException, HTTPResponse
from random import Random
from urllib.parse import urlencode, urlsplit

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from serving_processes import serving_processes

from shadowsim.server.control.actions import ACTIONS, SCALING_ACTIONS

N_SHORT, N_LONG = 1_000, 37_000
SEED = 20
TARGETS = {  # the prefix of X-Amz-Target, botocore's name of the service, and the actions that are asked
    "SageMaker": ("sagemaker", sorted(ACTIONS)),
    "AnyScaleFrontendService": ("application-autoscaling", sorted(SCALING_ACTIONS)),
    "GraniteServiceVersion20100801": (
        "cloudwatch",
        ["GetMetricData", "GetMetricStatistics", "ListMetrics", "PutMetricData"],
    ),
}
MODELS = {
    service: ServiceModel(Loader().load_service_model(service, "service-2"), service) for service, _ in TARGETS.values()
}
NAMES = ["endpoint", "test", "a", "b", "AllTraffic", "Shadow-01", "config", "none", "x-1"]
FACTS = {  # of members whose values must be these to get far
    "RoleArn": ["arn:aws:iam::111122223333:role/shadowsim"],
    "ExecutionRoleArn": ["arn:aws:iam::111122223333:role/shadowsim"],
    "InstanceType": ["ml.m5.xlarge", "ml.inf1.xlarge"],
    "Image": ["111122223333.dkr.ecr.us-east-1.amazonaws.com/model:1"],
    "ResourceArn": ["arn:aws:sagemaker:us-east-1:111122223333:model/a"],
    "ResourceId": ["endpoint/endpoint/variant/AllTraffic", "endpoint/none/variant/v"],
    "ServiceNamespace": ["sagemaker"],
    "ScalableDimension": ["sagemaker:variant:DesiredInstanceCount"],
    "Namespace": ["AWS/SageMaker"],
    "MetricName": ["Invocations", "ModelLatency", "Nothing"],
    "Expression": ["m1 + m2", "SEARCH('{AWS/SageMaker} Invocations', 'Sum', 60)", "(((", "RATE(m1)"],
    "Id": ["m1", "m2", "e1", "M"],
}
PATHS = [
    *("/ping", "/", "/metrics", "/shadowsim/page/page.css", "/shadowsim/page/../x", "/nowhere", "/favicon.ico"),
    *(f"/shadowsim/experiments/{name}/{frame}" for name in ("test", "%ff", "no") for frame in ("windows.json", "x")),
    *("/shadowsim/experiments/test/requests.parquet", "/?key=x", "/metrics?token=%00", "/%2e%2e", "//x", "/a#b", "/[x"),
]
INVOKED = [
    f"/endpoints/{name}/{path}"
    for name in ("endpoint", "none", "%ff", "a%2Fb")
    for path in (
        *("invocations", "invocations-response-stream", "async-invocations"),
        *("openai/v1/chat/completions", "openai/v1/completions", "openai/v1/models"),
    )
]
HEADERS = [
    *(("Content-Type", value) for value in ("application/json", "a/b", "", "text/plain; charset=nothing", "\xff")),
    *(("Expect", value) for value in ("100-continue", "else")),
    *(("Host", value) for value in ("localhost", "evil.example", "[::1", "127.0.0.1:99999", "")),
    *(("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site"), ("Cookie", "a=b; ;=; c")),
    *(("Connection", value) for value in ("close", "keep-alive", "upgrade, x-amz-target")),
    *(("Transfer-Encoding", value) for value in ("chunked", "gzip, chunked", "identity")),
    *(("Content-Encoding", "gzip"), ("Accept-Encoding", "br"), ("Upgrade", "websocket"), ("TE", "trailers")),
    *(("Authorization", value) for value in ("Bearer x", "AWS4-HMAC-SHA256 Credential=", "\x80")),
    *(("X-Amzn-SageMaker-Target-Variant", value) for value in ("AllTraffic", "Shadow-01", "none")),
    *(("X-Amzn-SageMaker-Inference-Id", value) for value in ("i" * 64, "i" * 65, "\xe9", "")),
    *(("X-Amzn-SageMaker-Custom-Attributes", value) for value in ("a", "a" * 1025, "\t")),
    *(("X-Amzn-SageMaker-Session-Id", value) for value in ("NEW_SESSION", "s")),
    *(("X-Amzn-SageMaker-Target-Model", "m"), ("X-Amzn-SageMaker-Inference-Component", "c")),
    *(("Content-Length", value) for value in ("0", "5", "-1", "99999999999", "1, 1")),
    *(("X-Long", "x" * 40_000), ("X-Amz-Target", "SageMaker.Nothing"), ("X-Amz-Target", "Nothing")),
]
ODD = [None, True, -1, 0, 2**70, 1e300, "", "\ud800", "\n", "x" * 3000, [], {}, [None], [{}], {"Name": None}, [[[[]]]]]


def valued(random, shape, name="", depth=0):
    """Return a random value of a botocore shape."""
    if name in FACTS:
        return random.choice(FACTS[name])
    match shape.type_name:
        case "structure":
            chance = 0.3 / (1 + depth)
            chosen = [m for m in shape.members if m in shape.required_members or random.random() < chance]
            return {m: valued(random, shape.members[m], m, depth + 1) for m in chosen} if depth < 6 else {}
        case "list":
            n = random.choice([0, 1, 1, 2])
            return [valued(random, shape.member, name.removesuffix("s"), depth + 1) for _ in range(n)]
        case "map":
            return {random.choice(NAMES): valued(random, shape.value, "", depth + 1)}
        case "boolean":
            return random.random() < 0.5
        case "timestamp":
            return random.choice([0, 1.7e9, 1.9e9, 4e9])
        case "string" | "character":
            return random.choice(shape.enum or NAMES)
        case "blob":
            return "eA=="
        case _:
            return random.choice([0, 1, 1, 2, 50, 100])


def spoilt(random, value):
    """Return a JSON value of which one place is another value."""
    if isinstance(value, dict | list) and value and random.random() < 0.8:
        place = random.choice(list(value) if isinstance(value, dict) else range(len(value)))
        inner = spoilt(random, value[place])
        return {**value, place: inner} if isinstance(value, dict) else [*value[:place], inner, *value[place + 1 :]]
    return random.choice(ODD)


def made(random):
    """Return the method and the bytes of a random request, and whether it may be wrong."""
    method, target, body = "POST", "/", b""
    headers = {"Host": "127.0.0.1"}
    is_wrong = random.random() < 1 / 3
    kind = random.choices(["action", "invocation", "page"], [6, 3, 1])[0]
    if kind == "action":
        prefix = random.choice(list(TARGETS))
        service, actions = TARGETS[prefix]
        action = random.choice(actions)
        document = valued(random, MODELS[service].operation_model(action).input_shape)
        headers["X-Amz-Target"] = f"{prefix}.{action}"
        if is_wrong and random.random() < 0.5:
            document = spoilt(random, document)
        body = json.dumps(document).encode()
        if service == "cloudwatch" and random.random() < 0.3:
            del headers["X-Amz-Target"]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            fields = document if isinstance(document, dict) else {}
            body = urlencode({"Action": action, **fields}, errors="replace").encode()
    elif kind == "invocation":
        target = random.choice(INVOKED if is_wrong else INVOKED[:5])
        asked = {"messages": [], "model": "m", "stream": random.choice([True, False, None, 1])}
        body = random.choice([random.randbytes(random.choice([0, 1, 700])), json.dumps(asked).encode()])
    else:
        method, target = random.choice(["GET", "GET", "HEAD", "PUT", "OPTIONS"]), random.choice(PATHS)
    if is_wrong and random.random() < 0.1:
        method = random.choice(["CONNECT", "TRACE", "DELETE", "post", "G\xff", ""])
    if is_wrong and random.random() < 0.1:
        target = random.choice(["*", "", "a:b", "?x", "http://127.0.0.1?x", "http://[::1/", "/\x00", "/\xff", "/x y"])
    if is_wrong and random.random() < 0.2:
        body = random.choice([b"[" * 5000, b"{" + body, b"\xff\xfe", body[:-1], b"null", b"0" * 70_000])
    more = [random.choice(HEADERS) for _ in range(random.choice([0, 1, 3]))] if is_wrong else []
    is_chunked = random.random() < 0.1
    if is_chunked:
        size = b"%x" % len(body) if not is_wrong or random.random() < 0.5 else random.choice([b"zz", b"-1", b"f" * 20])
        body = (size + b"\r\n" + body + b"\r\n" if body else b"") + b"0\r\n\r\n"
        headers["Transfer-Encoding"] = "chunked"
    elif method != "GET":
        headers["Content-Length"] = str(len(body))
    version = random.choice(["1.0", "1.1", "2.0", "x"]) if is_wrong and random.random() < 0.1 else "1.1"
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in (*headers.items(), *more))]
    whole = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    if is_wrong and random.random() < 0.1:
        at = random.randrange(len(whole))
        whole = whole[:at] + random.choice([b"", b"\x00", b"\r\n", b"\n", b":"]) + whole[at + random.randrange(2) :]
    return method, whole, is_wrong


def is_cut(data):
    """Return whether a request ends before its body is whole."""
    head, _, body = data.partition(b"\r\n\r\n")
    if re.search(rb"(?im)^transfer-encoding:.*chunked", head):
        return not body.endswith(b"0\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    return length is not None and len(body) < int(length[1])


class Caller:
    """Sends requests to a server, over one connection for as long as it lasts."""

    def __init__(self, url):
        self.place = urlsplit(url).hostname, urlsplit(url).port
        self.connection = None

    def ask(self, method, data, last):
        """Return the status of an answer, 0 if there was none; after the last request the caller sends no more."""
        self.connection = self.connection or socket.create_connection(self.place, timeout=30.0)
        is_kept = False
        try:
            self.connection.sendall(data)
            if last:
                self.connection.shutdown(socket.SHUT_WR)
            answer = HTTPResponse(self.connection, method=method)
            answer.begin()
            body = answer.read()
            is_kept = not (last or answer.will_close)
            assert answer.status < 500, (answer.status, body[:500], data[:3000])
            return answer.status
        except (HTTPException, ConnectionError):
            return 0
        finally:
            if not is_kept:
                self.close()

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A server in one process, and one in two."""
    folders = [tmp_path_factory.mktemp(f"in-{n}") for n in (1, 2)]
    options = ("--transition-s", "0")
    with (
        serving_processes(folders[0], 1, *options, containers=("a", "b")) as one,
        serving_processes(folders[1], 2, *options, containers=("a", "b")) as two,
    ):
        for server in (one, two):
            server.experiment()
        yield one, two


@pytest.mark.parametrize(
    "n",
    [
        pytest.param(N_SHORT, id="short", marks=pytest.mark.slow),
        pytest.param(N_LONG, id="long", marks=pytest.mark.long),
    ],
)
def test_random_requests_are_answered_alike_and_never_by_a_defect(servers, n):
    """`serving_processes` checks the log, too."""
    random, seen, different = Random(SEED + n), Counter(), []
    callers = [Caller(server.url) for server in servers]
    for _ in range(n):
        method, data, is_wrong = made(random)
        # the server waits for the rest of what is not whole, unless its sender has ended
        statuses = tuple(caller.ask(method, data, last=is_wrong) for caller in callers)
        seen[statuses[0]] += 1
        # whoever ends in the middle of a body may be answered before that is seen, or not at all
        if statuses[0] != statuses[1] and not (0 in statuses and is_cut(data)):
            different.append((statuses, data[:2000]))
    for caller in callers:
        caller.close()
    print(seen)
    assert different == []
    assert seen[200] > n / 10
    assert seen[400] > n / 10
