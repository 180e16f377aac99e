"""The generator: open loop, three clocks, caps and ceilings, stalls counted from planned times."""

import asyncio
import socket
import threading
from contextlib import contextmanager, suppress
from itertools import pairwise

import numpy as np
import pytest
from loading import answering, causes, job, sent, service, stalling
from serving import answer

from shadowsim.measuring.generator.load_records import (
    ANSWERED,
    CAP,
    DROPPED,
    LATE,
    UNFINISHED,
    UNSENT,
)
from shadowsim.measuring.generator.sender import MOST_LATE_S, Ladder


def test_sends_each_request_once_and_its_clocks_are_in_order():
    due = np.sort(np.random.default_rng(3).uniform(0.0, 0.5, 100))
    with service() as target:
        result = sent(job(target.url, due))
        assert [request.body for request in target.requests] == [b"abc"] * 100
    table = result.table
    assert (table["status"] == ANSWERED).all()
    assert table["number"].tolist() == list(range(100))
    assert np.array_equal(table["planned"], due)
    clocks = [table[name] for name in ("planned", "sent", "first_byte", "done")]
    assert all((earlier <= later + 1e-6).all() for earlier, later in pairwise(clocks))
    assert (table["request_bytes"] == 3).all()
    assert (table["response_bytes"] == 3).all()
    assert not result.stopped


def test_answers_do_not_hold_back_requests():
    """All requests have left before the first answer, which takes far longer than the schedule."""
    with service(answering(after_s=1.0)) as target:
        table = sent(job(target.url, np.linspace(0.0, 0.2, 40))).table
    assert (table["status"] == ANSWERED).all()
    assert table["sent"].max() < table["done"].min()


@contextmanager
def closing_kept_connections():
    """A server that promises to keep connections, and closes each when a second request has come on it."""

    def serve(connection):
        with connection, connection.makefile("rb") as lines:
            for answers in (True, False):
                while lines.readline().strip():
                    pass
                lines.read(3)
                if answers:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    def accept():
        with suppress(OSError):  # the listener was closed
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_request_on_a_kept_connection_that_was_closed_is_sent_again():
    with closing_kept_connections() as url:
        result = sent(job(url, np.arange(4) * 0.1))
    assert causes(result.table) == {("answered", ""): 4}
    assert result.n_resent == 3


def test_a_cap_drops_what_is_beyond_it():
    with service(answering(after_s=0.5)) as target:
        table = sent(job(target.url, np.linspace(0.0, 0.1, 10), max_in_flight=3)).table
        assert len(target.requests) == 3
    assert causes(table) == {("answered", ""): 3, ("dropped", CAP): 7}
    assert np.isnan(table["sent"][table["status"] == DROPPED]).all()


def test_a_ceiling_of_the_rate_holds_back_and_says_so():
    with service() as target:
        table = sent(job(target.url, np.zeros(11), max_rate_per_s=10.0)).table
    assert (table["status"] == ANSWERED).all()
    moments = np.sort(table["sent"])
    # 10 in any window of a second: the 11th leaves a second after the first
    assert moments[10] - moments[0] > 0.99
    assert table["held"].sum() >= 1
    with service() as target:
        assert not sent(job(target.url, np.array([0.0, 0.5]), max_rate_per_s=10.0)).table["held"].any()


def test_what_is_held_back_when_a_run_is_stopped_was_not_sent():
    async def stop(control, generator):
        while generator.counts.due < 5:
            await asyncio.sleep(0.01)
        control.stop()

    with service() as target:
        result = sent(job(target.url, np.zeros(5), max_rate_per_s=1.0), during=stop)
    assert causes(result.table) == {("answered", ""): 1, ("cut", UNSENT): 4}
    assert np.isnan(result.table["sent"]).sum() == 4


def test_a_generator_that_is_far_too_late_drops():
    with service() as target:
        table = sent(job(target.url, [0.0, MOST_LATE_S + 1.0]), late_s=MOST_LATE_S + 0.5).table
    assert causes(table) == {("dropped", LATE): 1, ("answered", ""): 1}


def test_a_stopped_run_keeps_what_it_has_and_ends_when_it_is_cut():
    async def stop_twice(control, generator):
        while generator.counts.sent < 3:
            await asyncio.sleep(0.01)
        control.stop()
        control.stop()

    with service(answering(after_s=15.0)) as target:
        result = sent(job(target.url, [0.0, 0.0, 0.0, 60.0]), during=stop_twice)
    assert result.stopped
    assert causes(result.table) == {("cut", UNFINISHED): 3}
    assert np.isnan(result.table["done"]).all()


def test_a_stopped_run_waits_a_moment_for_answers():
    async def stop(control, generator):
        while generator.counts.sent < 1:
            await asyncio.sleep(0.01)
        control.stop()

    with service(answering(after_s=0.3)) as target:
        result = sent(job(target.url, [0.0, 60.0]), during=stop)
    assert causes(result.table) == {("answered", ""): 1}


def _stalled_p99(rate_per_s, length_s, begin_s, for_s):
    """Return p99 of a run through a stall, what it must be, and the greatest latency outside the stall."""
    n = int(rate_per_s * length_s)
    due = np.arange(n) / rate_per_s
    with service(stalling(begin_s, for_s)) as target:
        table = sent(job(target.url, due)).table
    assert (table["status"] == ANSWERED).all()
    latency = table["done"] - table["planned"]
    # The stall begins `begin_s` after the first request: whoever is planned within it waits for its end.
    since = due - begin_s
    inside = (since >= 0.0) & (since < for_s)
    exact = np.where(inside, for_s - since, 0.0)
    at = int(np.ceil(0.99 * n)) - 1
    return np.sort(latency)[at], np.sort(exact)[at], latency[~inside].max()


def _check_stall(p99, exact, outside):
    """Each request takes what the stall leaves and an ordinary latency, at most the greatest one outside the stall.

    Requests at the end of the stall come back together, so twice that is allowed; 20 ms is for the server's own timer
    and for the beginning, which counts from the arrival of the first request.
    """
    assert abs(p99 - exact) < 2.0 * outside + 0.02


def test_latency_counts_from_planned_times_through_a_stall():
    p99, exact, outside = _stalled_p99(rate_per_s=100.0, length_s=3.0, begin_s=1.0, for_s=0.5)
    assert exact == pytest.approx(0.47)  # the third longest of 300: 0.50, 0.49, 0.48, then 0.47
    _check_stall(p99, exact, outside)


@pytest.mark.slow
def test_latency_counts_from_planned_times_through_two_seconds_in_twenty():
    p99, exact, outside = _stalled_p99(rate_per_s=100.0, length_s=20.0, begin_s=9.0, for_s=2.0)
    assert exact == pytest.approx(1.8)  # the 21st longest of 2,000: 2.00, 1.99, ..., 1.80
    _check_stall(p99, exact, outside)


def test_a_ladder_keeps_its_requests_in_flight_and_ends_with_mixed_load():
    running, most = 0, 0

    async def behave(writer, request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        writer.write(answer(200, b"{}"))

    ladder = Ladder(stage_s=0.3, greatest=4, least=5, mixed=(0.5,), mixed_s=0.5)
    with service(behave) as target:
        result = sent(job(target.url, [], ladder=ladder))
    kinds = [(stage.kind, stage.in_flight) for stage in result.stages]
    assert kinds[:3] == [("unloaded", 1), ("ladder", 1), ("ladder", 2)]
    assert kinds[-1] == ("mixed", None)
    table = result.table
    assert (table["status"] == ANSWERED).all()
    assert sorted(set(table["stage"].tolist())) == list(range(len(kinds)))
    closed = table["stage"] < len(kinds) - 1
    assert np.isnan(table["lag"][closed]).all()
    assert (table["limit"][~closed] == -1).all()
    for number, stage in enumerate(result.stages[:-1]):
        rows = table["stage"] == number
        assert set(table["limit"][rows].tolist()) == {stage.in_flight}
        moments = np.sort(table["planned"][rows])
        in_flight = np.searchsorted(moments, moments, side="right") - np.searchsorted(
            np.sort(table["done"][rows]), moments, side="left"
        )
        assert in_flight.max() <= stage.in_flight
    assert len(set(table["number"].tolist())) == len(table)
