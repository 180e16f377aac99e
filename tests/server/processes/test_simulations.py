"""Simulated instances of the control process, as a worker invokes them: echoes, streams, and a control that ends."""

import asyncio
from functools import partial
from types import SimpleNamespace

import pytest

from shadowsim.scenario.reading import Mirroring
from shadowsim.scenario.service import parse_service
from shadowsim.server.data_plane.backends import Call
from shadowsim.server.data_plane.live import BackendSources, LiveEndpoints
from shadowsim.server.data_plane.mirror import CopyLimits
from shadowsim.server.data_plane.simulated import simulated
from shadowsim.server.http.streamed_replies import CallerGoneError
from shadowsim.server.processes import simulations
from shadowsim.server.processes.links import Link, decoded, encoded, serve_links
from shadowsim.server.processes.simulations import SimulationDesk, Simulations
from shadowsim.server.state.views import EndpointView, VariantView

STEP = {"base_s": "1ms"}
TOKENS = {"prompt": 10, "output": 40, "max_sequences": 4, "max_step_tokens": 100, "kv_tokens": 2000, "step": STEP}
SERVICES = {
    "tokens": parse_service({"tokens": TOKENS}, "services.tokens"),
    "quick": parse_service({"time": {"law": "deterministic", "mean_s": 0.001}}, "services.quick"),
    "slow": parse_service({"time": {"law": "deterministic", "mean_s": 0.3}}, "services.slow"),
    "full": parse_service(
        {"time": {"law": "deterministic", "mean_s": 0.3}, "workers": 1, "queue_limit": 0}, "services.full"
    ),
}
VIEW = EndpointView("live", "InService", 1, tuple(VariantView(name, "m", "ml.m5.xlarge", 2) for name in SERVICES))


class Receiver:
    """Takes parts, and leaves after some of them."""

    within_s = 20.0

    def __init__(self, leaves_after=None, takes_s=0.0):
        self.headers, self.parts, self._leaves_after, self._takes_s = None, [], leaves_after, takes_s

    async def begin(self, headers):
        self.headers = dict(headers)

    async def part(self, part):
        self.parts.append(part)
        if len(self.parts) == self._leaves_after:
            raise CallerGoneError
        await asyncio.sleep(self._takes_s)


@pytest.fixture
def ask(tmp_path):
    """Return a function that runs a coroutine function on a worker's simulations, and what makes a new control."""
    path = str(tmp_path / "links")

    def run(work):
        async def main():
            worker = Simulations()
            worker.endpoints = SimpleNamespace(by_name={"live": SimpleNamespace(view=VIEW)})
            servers = []

            async def renew():
                """Begin again with a control process whose queues are empty."""
                for server, links in servers:
                    server.close()
                    for link in links:
                        link.abort()
                desk = SimulationDesk(endpoints())
                links = []

                def make():
                    links.append(Link(desk.take, desk.end))
                    return links[-1]

                servers.append((await serve_links(path, make), links))
                make_own = partial(Link, lambda _, message: worker.take(message))
                _, link = await asyncio.get_running_loop().create_unix_connection(make_own, path)
                worker.begin(link)
                return desk

            worker.desk = await renew()
            try:
                async with asyncio.timeout(30.0):
                    return await work(worker, renew)
            finally:
                servers[-1][0].close()
                worker.link.close()

        return asyncio.run(main())

    return run


def endpoints():
    return LiveEndpoints(
        view=lambda name: VIEW,
        sources=BackendSources(services=SERVICES),
        mirroring=Mirroring(),
        copy_limits=CopyLimits(),
        routing={},
        clock=lambda: 0.0,
    )


def invoke(worker, variant, body=b"body", receiver=None, timeout_s=10.0):
    call = Call(body, {"Content-Type": "a/b"})
    return worker.invoke("live", variant, call, timeout_s, receiver, copies=False)


def test_answers_echo_the_body_which_does_not_travel(ask):
    async def work(worker, renew):
        answers = [await invoke(worker, "quick", bytes(i)) for i in range(20)]
        return answers, [await invoke(worker, "quick", b"", Receiver())]

    answers, ((_, streamed),) = ask(work)
    assert [answer.body for _, answer in answers] == [bytes(i) for i in range(20)]
    assert {instance for instance, _ in answers} == {0, 1}
    assert all((a.outcome, a.status, a.service_s) == ("answered", 200, pytest.approx(0.001)) for _, a in answers)
    assert all(answer.headers == {"Content-Type": "a/b"} for _, answer in answers)
    assert (streamed.body, streamed.is_streamed) == (b"", True)


def test_a_queue_holds_the_requests_of_all_and_refuses_more(ask):
    async def work(worker, renew):
        return await asyncio.gather(*(invoke(worker, "full") for _ in range(12)))

    outcomes = [answer.outcome for _, answer in ask(work)]
    assert (outcomes.count("answered"), outcomes.count("refused")) == (2, 10)


@pytest.mark.parametrize("takes_s", [0.0, 0.002])
def test_a_stream_comes_in_parts_no_further_ahead_than_the_window(ask, monkeypatch, takes_s):
    monkeypatch.setattr(simulations, "WINDOW", 4)
    most = []

    async def work(worker, renew):
        receiver = Receiver(takes_s=takes_s)
        invoking = asyncio.create_task(invoke(worker, "tokens", receiver=receiver))
        while not invoking.done():
            most.extend(r._n_on_the_way for r in worker.desk._receivers.values())
            await asyncio.sleep(0.001)
        return receiver, invoking.result()[1]

    receiver, answer = ask(work)
    assert (len(receiver.parts), receiver.headers) == (40, {"Content-Type": "text/plain"})
    assert b"".join(receiver.parts) == answer.body
    assert (answer.outcome, answer.tokens.output, answer.tokens.produced) == ("answered", 40, 40)
    assert max(most) <= 4
    assert answer.tokens.first_token_s == pytest.approx(0.001)


def test_a_caller_who_leaves_is_told_to_the_instance(ask):
    async def work(worker, renew):
        receiver = Receiver(leaves_after=3)
        _, answer = await invoke(worker, "tokens", receiver=receiver)
        assert worker.desk._receivers == {}
        return answer

    answer = ask(work)
    assert answer.is_left
    assert answer.outcome == "answered"


def test_a_time_out_is_the_instances(ask):
    async def work(worker, renew):
        return await invoke(worker, "slow", timeout_s=0.05)

    assert ask(work)[1].outcome == "timed_out"


def test_calls_that_were_not_begun_are_sent_to_the_next_control_and_others_break(ask):
    async def work(worker, renew):
        receiver = Receiver(takes_s=0.05)
        waiting = asyncio.create_task(invoke(worker, "slow"))
        streaming = asyncio.create_task(invoke(worker, "tokens", receiver=receiver))
        while not receiver.parts:
            await asyncio.sleep(0.001)
        await renew()
        return (await waiting)[1], (await streaming)[1]

    waited, streamed = ask(work)
    assert (waited.outcome, waited.body) == ("answered", b"body")
    assert (streamed.outcome, streamed.failure) == (
        "broken",
        "the process that simulates it has ended, and is being started again",
    )


def test_a_variant_that_serves_no_more_is_broken_unless_it_was_known(ask, monkeypatch):
    monkeypatch.setattr("shadowsim.server.processes.copies.IN_STEP_S", 0.01)

    async def work(worker, renew):
        return (await invoke(worker, "other"))[1]

    answer = ask(work)
    assert (answer.outcome, answer.failure) == ("broken", "it serves no more")


TIME = {"law": "lognormal", "mean_s": 0.001, "scv": 0.5}
LAW = {"law": "lognormal", "mean_tokens": 10.0, "scv": 0.5}
EVERY_KIND = {
    "quantiles": {"time": {"law": "empirical", "quantiles_s": {"0.5": 0.001, "1": 0.002}}},
    "slowdown and wake": {"time": TIME, "slowdown": [1.0, 1.5], "wake": {"most_s": 0.001, "half_s": 1.0}},
    "batches by share": {"time": TIME, "batching": {"max_size": 4, "max_delay_s": 0.001, "marginal": 0.1}},
    "batches by factors": {"time": TIME, "batching": {"max_size": 2, "max_delay_s": 0.001, "factors": [1.0, 1.2]}},
    "tokens": {
        "tokens": TOKENS
        | {"prompt": LAW, "output": LAW, "chunked": True, "prefix": {"groups": 2, "length": 5, "cache_tokens": 100}}
    },
    "errors": {"time": TIME, "error_5xx": 1.0},
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_answers_of_every_kind_of_service_travel_as_they_are(kind):
    """A number of numpy would arrive as its bytes."""

    async def ask():
        backend = simulated(parse_service(EVERY_KIND[kind], "services.x"), 1, 1, seed=1)
        return await backend.invoke(0, Call(b"body", {}), 20.0)

    answer = asyncio.run(ask())
    fields = decoded(encoded(simulations._fields(answer)))
    assert repr(simulations._answer_of(fields, Call(b"body", {}), is_left=False)) == repr(answer)  # some are NaN
