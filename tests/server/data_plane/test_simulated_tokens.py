"""Streams of simulated language models: the batcher's own times, in virtual time, and what callers get of them."""

import asyncio
import json
import math
from dataclasses import dataclass, field

import pytest
import virtual_time
from serving import serving

from shadowsim.scenario.service import parse_service
from shadowsim.server.data_plane.backends import Call
from shadowsim.server.data_plane.completions import CHAT, PLAIN, completion_request
from shadowsim.server.data_plane.continuous_batcher import ContinuousBatcher, TokenSequence
from shadowsim.server.data_plane.simulated import simulated
from shadowsim.server.http.streamed_replies import CallerGoneError

LAWS = {
    "prompt": {"law": "lognormal", "mean_tokens": 60.0, "scv": 0.5},
    "output": {"law": "lognormal", "mean_tokens": 12.0, "scv": 0.5},
}


STEP = {"base_s": "10ms", "per_prefill_token_s": "200us", "per_sequence_s": "1ms"}
BATCHER = {"max_sequences": 3, "max_step_tokens": 100, "kv_tokens": 2000, "step": STEP, **LAWS}


def model(**more):
    return parse_service({"tokens": BATCHER | more}, "services.x")


@dataclass
class Receiver:
    """Takes parts, each for some time, and leaves after some of them."""

    within_s: float = 1e6
    takes_s: float = 0.0
    leaves_after: float = math.inf
    headers: dict = None
    parts: list = field(default_factory=list)
    times: list = field(default_factory=list)

    async def begin(self, headers):
        self.headers = dict(headers)

    async def part(self, part):
        self.parts.append(part)
        self.times.append(asyncio.get_running_loop().time())
        if len(self.parts) >= self.leaves_after:
            raise CallerGoneError
        await asyncio.sleep(self.takes_s)


def streamed(backend, receivers, call=None, gap_s=0.02, timeout_s=1e6):
    """Send calls at even gaps; return their answers."""

    async def run():
        async def one(i, receiver):
            await asyncio.sleep(i * gap_s)
            return await backend.invoke(0, call or Call(b"x"), timeout_s, receiver)

        return await asyncio.gather(*(one(i, r) for i, r in enumerate(receivers)))

    return virtual_time.run(run())


@pytest.mark.parametrize("takes_s", [0.0, 0.5])
def test_each_token_is_handed_over_at_the_model_s_time(takes_s):
    """The same sequences in a batcher of its own; a slow receiver delays neither the model nor its figures."""
    served, n = model(after_s="3ms"), 40
    receivers = [Receiver(takes_s=takes_s) for _ in range(n)]
    answers = streamed(simulated(served, 1, 1, 7), receivers)
    batcher, told = ContinuousBatcher(served.tokens), [[] for _ in range(n)]
    for i, a in enumerate(answers):
        batcher.advance(i * 0.02)
        batcher.enter(TokenSequence(i * 0.02, a.tokens.prompt, a.tokens.output, told=told[i].append))
    batcher.advance(1e9)
    for i, (answer, receiver) in enumerate(zip(answers, receivers, strict=True)):
        assert len(receiver.parts) == answer.tokens.output == answer.tokens.produced
        if not takes_s:
            assert receiver.times == pytest.approx([t + 0.003 for t in told[i]], abs=1e-9)
        assert answer.first_part_s == pytest.approx(told[i][0] + 0.003 - i * 0.02)
        assert answer.latency_s == pytest.approx(told[i][-1] + 0.003 - i * 0.02)
        assert answer.body == b"".join(receiver.parts) == b" token" * answer.tokens.output
    assert len({a.tokens.output for a in answers}) > 5


def test_each_part_of_a_stream_leaves_the_overhead_later_and_the_model_s_times_are_without_it():
    at_once, later = ([Receiver() for _ in range(20)] for _ in range(2))
    plain = streamed(simulated(model(), 1, 1, 7), at_once)
    with_overhead = streamed(simulated(model(), 1, 1, 7, overhead_s=0.004), later)
    for before, after in zip(at_once, later, strict=True):
        assert after.times == pytest.approx([t + 0.004 for t in before.times], abs=1e-9)
    assert [a.latency_s for a in with_overhead] == pytest.approx([a.latency_s for a in plain])


def test_streams_take_the_time_of_whole_answers():
    whole = streamed(simulated(model(), 1, 1, 7), [None] * 30)
    parts = streamed(simulated(model(), 1, 1, 7), [Receiver() for _ in range(30)])
    assert [a.latency_s for a in whole] == pytest.approx([a.latency_s for a in parts])
    assert [a.tokens for a in whole] == [a.tokens for a in parts]


@pytest.mark.parametrize(("leaves_after", "within_s"), [(3, 1e6), (math.inf, 0.055)])
@pytest.mark.parametrize("on_timeout", ["finish", "abort"])
def test_who_leaves_or_is_out_of_time_frees_its_place_where_the_model_says_so(leaves_after, within_s, on_timeout):
    backend = simulated(model(prompt=50, output=100, on_timeout=on_timeout), 1, 1, 7)

    async def run():
        answer = await backend.invoke(0, Call(b"x"), 1e6, Receiver(within_s, leaves_after=leaves_after))
        await asyncio.sleep(0.02)  # over the end of the step in progress
        return answer, backend.batches()

    answer, ((n_running, _),) = virtual_time.run(run())
    assert n_running == (0 if on_timeout == "abort" else 1)
    # tokens at 21, 32, 43 ms, and so on
    assert answer.first_part_s == pytest.approx(0.021)
    if leaves_after == 3:
        assert (answer.outcome, answer.is_left, answer.latency_s) == ("answered", True, pytest.approx(0.043))
    else:
        assert (answer.outcome, answer.is_left, answer.latency_s) == ("timed_out", False, 0.055)
    assert answer.body == b" token" * (3 if leaves_after == 3 else 4)


def test_a_first_token_after_the_time_out_begins_no_stream():
    receiver = Receiver()
    (answer,) = streamed(simulated(model(prompt=50, output=100), 1, 1, 7), [receiver], timeout_s=0.02)
    assert (answer.outcome, answer.latency_s, receiver.headers) == ("timed_out", 0.02, None)
    assert not answer.is_streamed


def test_errors_by_chance_are_not_streamed():
    served = parse_service({"tokens": BATCHER, "error_5xx": 1.0}, "services.x")
    receiver = Receiver()
    (answer,) = streamed(simulated(served, 1, 1, 7), [receiver])
    assert (answer.status, receiver.headers) == (500, None)


def completion(path, **body):
    return Call(b"x", {}, path, completion_request(path, {"model": "m", **body}))


@pytest.mark.parametrize("path", [CHAT, PLAIN])
@pytest.mark.parametrize(
    ("asked", "n", "reason"),
    [
        ({}, 12, "stop"),
        ({"max_tokens": 5}, 5, "length"),
        ({"max_tokens": 20}, 12, "stop"),
        ({"max_tokens": 20, "ignore_eos": True}, 20, "length"),
        ({"max_tokens": "many"}, 12, "stop"),
    ],
)
def test_a_completion_has_the_drawn_length_or_the_limit(path, asked, n, reason):
    served = model(output=12, prompt=30)
    usage = {"prompt_tokens": 30, "completion_tokens": n, "total_tokens": 30 + n}
    (whole,) = streamed(simulated(served, 1, 1, 7), [None], completion(path, **asked))
    body = json.loads(whole.body)
    assert (body["usage"], body["choices"][0]["finish_reason"]) == (usage, reason)
    receiver = Receiver()
    call = completion(path, stream=True, stream_options={"include_usage": True}, **asked)
    (answer,) = streamed(simulated(served, 1, 1, 7), [receiver], call)
    assert receiver.headers == {"Content-Type": "text/event-stream"}
    assert len(receiver.parts) == n + 1
    *events, end, last, done, rest = b"".join(receiver.parts).split(b"\n\n")
    assert (len(events), done, rest) == (n, b"data: [DONE]", b"")
    assert json.loads(end[5:])["choices"][0]["finish_reason"] == reason
    assert json.loads(last[5:])["usage"] == usage
    assert answer.latency_s == pytest.approx(whole.latency_s)


def test_a_service_of_another_kind_answers_in_one_part():
    for batching in ({}, {"batching": {"max_size": 2, "max_delay_s": 0.05, "marginal": 0.5}}):
        served = parse_service({"time": {"law": "deterministic", "mean_s": 0.5}, **batching}, "services.x")
        receiver = Receiver()
        (answer,) = streamed(simulated(served, 1, 1, 7), [receiver])
        assert (receiver.parts, answer.first_part_s) == ([b"x"], answer.latency_s)
    receiver = Receiver()
    streamed(simulated(served, 1, 1, 7), [receiver], completion(CHAT, stream=True))
    assert len(receiver.parts) == 1
    assert receiver.parts[0].endswith(b"data: [DONE]\n\n")


def test_the_openai_client_and_boto3_read_a_simulated_model(tmp_path):
    openai = pytest.importorskip("openai")
    services = {"AllTraffic": model(output=12, prompt=30), "Shadow-01": model(output=6, prompt=30)}
    with serving(tmp_path, services=services) as server:
        server.experiment(models=("a", "b"))
        base = f"{server.url}/endpoints/endpoint/openai/v1"
        with openai.OpenAI(base_url=base, api_key="x", max_retries=0, timeout=20.0) as api:
            ask = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
            whole = api.chat.completions.create(**ask)
            assert (whole.usage.completion_tokens, whole.choices[0].message.content) == (12, " token" * 12)
            with api.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}) as stream:
                events = list(stream)
            assert [e.choices[0].delta.content for e in events[:-2]] == [" token"] * 12
            assert events[-1].usage.prompt_tokens == 30
            assert api.completions.create(model="m", prompt="x", max_tokens=3).choices[0].text == " token" * 3
        runtime = server.client("sagemaker-runtime")
        reply = runtime.invoke_endpoint_with_response_stream(EndpointName="endpoint", Body=b"x")
        assert [event["PayloadPart"]["Bytes"] for event in reply["Body"]] == [b" token"] * 12
        server.answered(4)
        rows = server.frame("test", "requests")
        assert [r["output_tokens"] for r in rows if r["role"] == "source"] == [12, 12, 3, 12]
        assert [r["output_tokens"] for r in rows if r["role"] == "shadow"] == [6, 6, 3, 6]
        # 30 tokens of a prompt take 6 ms, and a step of one sequence 11 ms
        assert [r["first_token_s"] for r in rows] == pytest.approx([0.017] * 8)
        latencies = [r["latency_s"] for r in rows if r["role"] == "source"]
        assert latencies == pytest.approx([0.138, 0.138, 0.039, 0.138])
