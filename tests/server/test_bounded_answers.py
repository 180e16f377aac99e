"""Tests that no answer, no error and no work grows with the input."""

import asyncio
import json
import re
from random import Random
from time import thread_time

import pytest
from rehearsed_account import experiment, new_account
from served import endpoint, served
from serving import serving

from shadowsim.errors import ShadowsimError, ValidationError
from shadowsim.server import app
from shadowsim.server.control.actions import handle
from shadowsim.server.data_plane.captures import CaptureWriter
from shadowsim.server.data_plane.counts import Series
from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.http.signatures import SignedRequest, Verifier
from shadowsim.server.metrics import cloudwatch
from shadowsim.server.metrics.cloudwatch_wire import json_pieces
from shadowsim.server.metrics.prometheus import prometheus_slices

MOST_S, MOST_ANSWER_BYTES = 0.02, 64 * 2**10
N_BYTES = 1_800_000


def repeated(head, item, tail):
    """Return JSON of N_BYTES whose last list or object holds an item again and again."""
    return head + ",".join([item] * (N_BYTES // (len(item) + 1))) + tail


KEYS = ",".join(f'"key{i}":0' for i in range(N_BYTES // 12))
LONG = {
    "empty variants": ("CreateInferenceExperiment", repeated('{"ModelVariants": [', "{}", "]}")),
    "nulls": ("CreateInferenceExperiment", repeated('{"Tags": [', "null", "]}")),
    "wrong types": ("CreateModel", repeated('{"Containers": [', "[]", "]}")),
    "weights": ("UpdateEndpointWeightsAndCapacities", repeated('{"DesiredWeightsAndCapacities": [', "{}", "]}")),
    "names of actions": ("StopInferenceExperiment", f'{{"ModelVariantActions": {{{KEYS}}}}}'),
    "unknown members": ("CreateInferenceExperiment", f"{{{KEYS}}}"),
    "one text": ("CreateInferenceExperiment", json.dumps({"Name": "a" + "-" * N_BYTES})),
    "a text with a pattern": ("CreateModel", json.dumps({"ModelName": "a" * N_BYTES + "!"})),
    "brackets": ("CreateInferenceExperiment", "[" * N_BYTES),
}


@pytest.mark.parametrize(("action", "body"), LONG.values(), ids=LONG)
def test_a_long_request_is_refused_in_a_bounded_time(action, body):
    """As the server does it, in the processor's time, the least of five tries."""
    account, took_s = new_account(), []
    for _ in range(5):
        began_s = thread_time()
        with pytest.raises(ShadowsimError) as caught:
            handle(action, app._object(body.encode()), account.now, account.store)
        answer = app._refusal(caught.value)
        took_s.append(thread_time() - began_s)
        assert len(answer.body) < MOST_ANSWER_BYTES
        assert answer.status == 400
    assert min(took_s) < MOST_S


class RoundLoop(asyncio.SelectorEventLoop):
    """Measures the longest of its rounds, in the processor's time of its thread."""

    longest_s = 0.0

    def _run_once(self):
        began_s = thread_time()
        super()._run_once()
        self.longest_s = max(self.longest_s, thread_time() - began_s)


def longest_round(ask):
    """Return the longest round of the loop while something is asked, the least of two tries."""
    longest_s = []
    for _ in range(2):
        loop = RoundLoop()
        with asyncio.Runner(loop_factory=lambda loop=loop: loop) as runner:
            runner.run(ask())
        longest_s.append(loop.longest_s)
    return min(longest_s)


def busy_month():
    """Return endpoints: one has served with many latencies in each minute of a month, one has had many variants."""
    random, series = Random(1), Series()
    for _ in range(500):
        series.add(served(0.0, random.lognormvariate(-4.0, 0.5)))
    series.periods = dict.fromkeys(range(43_200), series.periods[0])
    live = endpoint("busy")
    live.series["v"] = series
    others = {name: endpoint(name) for name in (f"e-{i}" for i in range(1500))}
    for other in others.values():
        other.series |= {name: Series() for name in "abcd"}
        other.shadows.add("b")
    others["e-7"].series |= {f"v-{i}": Series() for i in range(300)}
    return {"busy": live, **others}


def of_busy(metric):
    dimensions = [{"Name": "EndpointName", "Value": "busy"}, {"Name": "VariantName", "Value": "v"}]
    return {"Namespace": "AWS/SageMaker", "MetricName": metric, "Dimensions": dimensions}


def queries(*expressions):
    stat = {"Metric": of_busy("Invocations"), "Period": 60, "Stat": "Sum"}
    asked = [{"Id": f"x{i}", "Expression": text} for i, text in enumerate(expressions)]
    return [{"Id": "m", "MetricStat": stat}, *asked]


HOURS, MONTH, YEAR = ({"StartTime": 0, "EndTime": 3600 * hours} for hours in (2, 720, 8760))
PERCENTILES = [f"p{i}" for i in range(10)]  # the most
LARGE = {
    "metrics": ("ListMetrics", {}),
    "percentiles": (
        "GetMetricStatistics",
        {**HOURS, **of_busy("ModelLatency"), "Period": 60, "ExtendedStatistics": PERCENTILES},
    ),
    "a month": ("GetMetricData", {**MONTH, "MetricDataQueries": queries("FILL(m, 0)")}),
    "an array": ("GetMetricData", {**YEAR, "MetricDataQueries": queries("[m, m]", "SUM(x0)")}),
    "long expressions": ("GetMetricData", {**HOURS, "MetricDataQueries": queries(*["+".join(["m"] * 1000)] * 20)}),
}


@pytest.mark.parametrize(("action", "body"), LARGE.values(), ids=LARGE)
def test_cloudwatch_leaves_the_loop_to_others(action, body):
    endpoints = busy_month()

    async def ask():
        result = await cloudwatch.handle(action, body, endpoints, 1e9)
        async for _ in app._in_turns(json_pieces(result)):
            pass

    assert longest_round(ask) < MOST_S


def test_prometheus_leaves_the_loop_to_others():
    endpoints = busy_month()

    async def ask():
        async for _ in app._in_turns(prometheus_slices(endpoints, CaptureWriter(None, Random(1)), LoopClock())):
            pass

    assert longest_round(ask) < MOST_S


def test_aws_s_limit_decides_before_members_are_looked_at():
    """Three variants are too many: the first two are looked at, further ones are not."""
    request = experiment()
    request["ModelVariants"] = [{}] * 20_000
    with pytest.raises(ValidationError) as caught:
        new_account().do("CreateInferenceExperiment", **request)
    numbers = {match[1] for text in caught.value.violations if (match := re.search(r"modelVariants\.(\d+)", text))}
    assert numbers == {"1", "2"}
    assert "at 'modelVariants' failed to satisfy constraint: Member must have length less than or equal to 2" in str(
        caught.value
    )


def test_many_violations_are_counted_and_some_are_listed():
    variables = {f"{i} wrong": "x" * 2000 for i in range(100)}
    containers = [{"Image": "", "Environment": variables}] * 15
    with pytest.raises(ValidationError) as caught:
        new_account().do("CreateModel", ModelName="m", Containers=containers)
    assert len(caught.value.violations) == 1000
    message = str(caught.value)
    assert message.startswith("1000 or more validation errors detected: ")
    assert message.endswith("; and 950 more")
    assert message.count("failed to satisfy") == 50


def test_quotes_of_a_request_are_short():
    """A stamp, a path and a name of 30 kB are quoted with 120 characters."""
    long = "x" * 30_000
    verifier = Verifier({"KEY": "secret"})
    authorization = f"AWS4-HMAC-SHA256 Credential=KEY/{long}/r/sagemaker/aws4_request, SignedHeaders=host, Signature=x"
    errors = []
    for stamp in (long, "20261128T000000Z"):
        headers = {"authorization": [authorization], "x-amz-date": [stamp], "host": ["h"]}
        with pytest.raises(ShadowsimError) as caught:
            verifier.check(SignedRequest("POST", "/", headers, b""), 1_795_824_000.0)
        errors.append(caught.value)
    assert all(len(str(error)) < 1000 for error in errors)


def test_an_endpoint_s_name_is_quoted_shortly(tmp_path):
    with serving(tmp_path) as server:
        with pytest.raises(ShadowsimError) as caught:
            server.loop(server.app._runtime.invoke("x" * 30_000, {}, b"", 0.0))
        assert len(str(caught.value)) < 500
