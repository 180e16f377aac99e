"""Shares of a load job, counts that add up, and a process that dies."""

import asyncio

import numpy as np
import pytest
from loading import job, service

from shadowsim.measuring.generator import load_processes
from shadowsim.measuring.generator.load_processes import LoadProcessError, run_jobs, shares
from shadowsim.measuring.generator.load_records import LiveCounts, merged
from shadowsim.measuring.generator.sender import Control


def test_shares_are_all_of_a_job():
    whole = job("http://h", np.arange(10.0), max_in_flight=7, max_rate_per_s=6.0)
    parts = shares(whole, 3)
    assert sorted(np.concatenate([part.number for part in parts]).tolist()) == list(range(10))
    assert all(np.array_equal(part.due_s, part.number.astype(float)) for part in parts)
    assert sum(part.max_in_flight for part in parts) == 7
    assert sum(part.max_rate_per_s for part in parts) == pytest.approx(6.0)
    assert all(part.max_in_flight is None for part in shares(job("http://h", [0.0]), 2))


def test_counts_of_processes_add_up():
    one, two = LiveCounts(due=3, sent=2), LiveCounts(due=4, in_flight=1)
    for counts, times in ((one, 2), (two, 3)):
        for _ in range(times):
            counts.note_latency(0.01)
    total = one.plus(two)
    assert (total.due, total.sent, total.in_flight) == (7, 2, 1)
    assert list(total.latency.values()) == [5]


def test_processes_send_all_and_tell_meanwhile():
    told = []
    with service() as target:
        jobs = shares(job(target.url, np.linspace(0.0, 1.5, 40)), 2)
        sent = asyncio.run(run_jobs(jobs, Control(), told.append))
        assert len(target.requests) == 40
    assert merged([part.table for part in sent])["number"].tolist() == list(range(40))
    assert told[-1].sent <= 40
    assert all(part.start_s == sent[0].start_s for part in sent)


def test_a_process_that_dies_is_one_error(monkeypatch):
    monkeypatch.setattr(load_processes, "_COMMAND", (*load_processes._COMMAND[:2], "raise SystemExit(7)"))
    with pytest.raises(LoadProcessError, match=r"ended before its time \(exit status 7\)"):
        asyncio.run(run_jobs([job("http://h", [0.0])], Control()))
