"""Counts that processes report: equal to those of one process, also after kills of who reports and who keeps."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pandas as pd
import pytest
from served import served

from shadowsim.scenario.reading import Mirroring
from shadowsim.server.data_plane.captures import CaptureWriter
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.data_plane.live import BackendSources, LiveEndpoints
from shadowsim.server.data_plane.mirror import CopyLimits
from shadowsim.server.data_plane.streamed_bodies import TokenFigures
from shadowsim.server.processes import ledger as ledger_module
from shadowsim.server.processes.ledger import Ledger
from shadowsim.server.processes.links import decoded, encoded
from shadowsim.server.processes.reports import COPIED, COPY_ENDED, LEFT_OUT, LINES_LOST, lost_count, served_count
from shadowsim.server.state.views import EndpointView, ShadowView, VariantView

T0 = 1_700_000_000.0  # in the past: an experiment begins with its first count
SOURCE, SHADOW = "AllTraffic", "Shadow-01"
TOKENS = TokenFigures(0.01, 0.001, 10, 20, 20, 10, 1)


def view(experiment="test", created_s=T0):
    one, other = (VariantView(name, "m", "ml.m5.xlarge", 2) for name in (SOURCE, SHADOW))
    return EndpointView("live", "InService", 1, (one,), ShadowView(other, SOURCE, 100.0), (), {}, experiment, created_s)


class Keeper:
    """A ledger on a folder, as a control process has it; another one is what the next process has."""

    def __init__(self, folder: Path, seen=None):
        self.view = seen or view()
        self.captures = CaptureWriter(None, Random(1))
        self.ledger = Ledger(folder, self.captures)
        self.endpoints = LiveEndpoints(
            view=lambda name: self.view,
            sources=BackendSources(),
            mirroring=Mirroring(),
            copy_limits=CopyLimits(),
            routing={},
            clock=lambda: 0.0,
            make=self.ledger.make,
            open_logbook=self.ledger.open_logbook,
        )
        self.ledger.begin(self.endpoints)

    def frames(self):
        book = self.endpoints.logbook("test")
        return [book.requests(), book.windows(), book.latency()]

    def counts(self):
        """Return numbers of requests, and lost copies by cause, by variant."""
        counted = {}
        for name, series in self.endpoints.by_name["live"].series.items():
            periods = series.periods.values()
            lost = sum((Counter(period.lost) for period in periods), Counter())
            counted[name] = (sum(period.n for period in periods), *lost.items())
        return counted


@pytest.fixture
def keep(tmp_path):
    """Return a function that keeps counts, after the one before has been killed: nothing is buffered."""
    keepers = []

    def start():
        for keeper in keepers:
            keeper.ledger.close()
        keepers.append(Keeper(tmp_path))
        return keepers[-1]

    yield start
    keepers[-1].ledger.close()


def requests(rng, n):
    """Yield requests and copies of all kinds, with their variants."""
    for i in range(n):
        for variant in (SOURCE, SHADOW):
            outcome = rng.choice(["answered", "answered", "error_5xx", "timed_out", "refused", "broken", "too_long"])
            times = {"wait_s": rng.random(), "service_s": rng.random()} if rng.random() < 0.5 else {}
            request = served(
                T0 + 200.0 * rng.random(), rng.expovariate(10.0), outcome, rng.randrange(2), is_copy=variant == SHADOW,
                tokens=TOKENS if i % 3 == 0 else None, **times,
            )  # fmt: skip
            streamed = {"first_part_s": 0.01} if i % 5 == 0 else {}
            yield (
                variant,
                replace(
                    request,
                    request=i,
                    inference_id=f"é{i}",
                    captured_bytes=rng.choice([None, 7]),
                    answer=replace(request.answer, body=b"x" * rng.randrange(9), **streamed),
                    **streamed,
                ),
            )


def batches(counts, n):
    """Yield counts in batches, as they come over a link."""
    for begin in range(0, len(counts), n):
        yield decoded(encoded(tuple(counts[begin : begin + n])))


@pytest.mark.parametrize("journal_bytes", [ledger_module.JOURNAL_BYTES, 3_000])
def test_counts_are_those_of_one_process_also_after_kills_of_who_keeps_them(keep, monkeypatch, journal_bytes):
    """With a short journal there are many checkpoints; the keeper ends without a word, as by kill -9."""
    monkeypatch.setattr(ledger_module, "JOURNAL_BYTES", journal_bytes)
    keeper = keep()
    keeper.ledger.start("worker-0", 1, 0)
    named = Logbook("test", "live", (SOURCE, SHADOW), 0.0, created_s=T0)
    sent = list(requests(Random(3), 120))
    counts = [served_count("live", variant, named, request) for variant, request in sent]
    counts += [lost_count("live", SHADOW, named, T0 + 3.0 * i, "max_in_flight") for i in range(40)]
    for number, batch in enumerate(batches(counts, 16), start=1):
        assert keeper.ledger.take("worker-0", number, batch)
        if number % 4 == 0:
            keeper.endpoints.endpoint("live").sample(T0 + 190.0)
            keeper = keep()  # the reporter was not acknowledged, and sends it again
            assert not keeper.ledger.take("worker-0", number, batch)

    live = keeper.endpoints.by_name["live"]
    alone = Logbook(
        "test", "live", (SOURCE, SHADOW), live.logbook.began_s, created_s=T0, n_workers=live.logbook.n_workers
    )
    for variant, request in sent:
        alone.add([SOURCE, SHADOW].index(variant), replace(request, arrival_s=max(request.arrival_s, alone.began_s)))
    for i in range(40):
        alone.series[1].lose(max(T0 + 3.0 * i, alone.began_s), "max_in_flight")
    for frame, expected in zip(keeper.frames(), [alone.requests(), alone.windows(), alone.latency()], strict=True):
        sampled = [name for name in frame if name.startswith(("Concurrent", "instance_count"))]
        pd.testing.assert_frame_equal(frame.drop(columns=sampled), expected.drop(columns=sampled))
    windows = keeper.frames()[1]
    assert windows["ConcurrentRequestsPerModel_Maximum"].dropna().tolist() != []
    assert keeper.counts()[SHADOW] == (120, ("max_in_flight", 40))
    assert keeper.ledger.reports["worker-0"].n_counts == len(counts)


def test_a_torn_journal_gives_what_was_whole(keep, tmp_path):
    keeper = keep()
    keeper.ledger.start("worker-0", 1, 0)
    for number in (1, 2):
        keeper.ledger.take("worker-0", number, [served_count("live", SOURCE, None, served(T0))])
    keeper.ledger.close()
    file = tmp_path / "counts-0"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    keeper = keep()
    assert keeper.ledger.reports["worker-0"].number == 1
    assert keeper.ledger.take("worker-0", 2, [served_count("live", SOURCE, None, served(T0))])
    assert file.read_bytes() == whole
    assert keeper.counts()[SOURCE] == (2,)


def copied(number, generation=1):
    return COPIED, "live", SHADOW, None, None, T0, generation, number


def test_copies_that_the_mirror_did_not_end_are_lost_with_it(keep):
    keeper = keep()
    ledger, made = keeper.ledger, served_count("live", SHADOW, None, served(T0, is_copy=True))
    ledger.start("worker-0", 1, 0)
    ledger.start("mirror", 1, 0)
    ledger.take("mirror", 1, [(COPY_ENDED, "worker-0/1", 1), made])  # before the worker has reported it
    ledger.take("worker-0", 1, [copied(i) for i in (1, 2, 3)])
    ledger.take("mirror", 2, [(COPY_ENDED, "worker-0/1", 2), made])
    keeper = keep()
    assert keeper.counts()[SHADOW] == (2,)
    keeper.ledger.start("mirror", 2, 2)
    assert keeper.counts()[SHADOW] == (2, ("server_crash", 1))
    keeper.ledger.take("worker-0", 2, [copied(4), copied(5, generation=2)])  # the first was on its way to the dead
    assert keeper.counts()[SHADOW] == (2, ("server_crash", 2))
    keeper.ledger.take("mirror", 1, [(COPY_ENDED, "worker-0/1", 5), made])
    keeper.ledger.start("mirror", 3, 3)
    assert keeper.counts()[SHADOW] == (3, ("server_crash", 2))


def test_counts_that_a_killed_reporter_did_not_send_are_known_to_be_lost(keep):
    keeper = keep()
    count = served_count("live", SOURCE, None, served(T0))
    keeper.ledger.start("worker-0", 1, 0)
    keeper.ledger.take("worker-0", 1, [count] * 3)
    keeper.ledger.start("worker-0", 2, 5)  # it had made five
    keeper.ledger.take("worker-0", 1, [count])
    keeper.ledger.take("worker-0", 2, [count, (LEFT_OUT, 4), (LINES_LOST, "live", 2)])
    keeper.ledger.start("worker-0", 3, 5 + 2 + 4)
    keeper = keep()
    known = keeper.ledger.reports["worker-0"]
    assert (known.n_counts, known.n_lost, known.generation) == (5, 6, 3)
    assert keeper.captures.n_lost == {"live": 2}
    assert not keeper.ledger.take("worker-9", 1, [count])  # it has not started


def test_a_request_of_another_experiment_of_the_same_name_is_not_in_its_logbook(keep):
    keeper = keep()
    keeper.endpoints.endpoint("live")
    keeper.ledger.start("worker-0", 1, 0)
    earlier = Logbook("test", "live", (SOURCE, SHADOW), 0.0, created_s=T0 - 100.0)
    present = Logbook("test", "live", (SOURCE, SHADOW), 0.0, created_s=T0)
    for number, book in enumerate((earlier, present, None), start=1):
        keeper.ledger.take("worker-0", number, [served_count("live", SOURCE, book, served(T0))])
    assert keeper.counts()[SOURCE] == (3,)
    assert len(keeper.frames()[0]) == 1


def test_an_experiment_begins_with_its_first_count(keep):
    """A worker may see it some ms before the process that keeps the counts."""
    keeper = keep()
    keeper.ledger.start("worker-0", 1, 0)
    present = Logbook("test", "live", (SOURCE, SHADOW), 0.0, created_s=T0)
    counts = [
        served_count("live", SOURCE, present, replace(served(T0 + t), request=i)) for i, t in enumerate((3.0, 2.9))
    ]
    keeper.ledger.take("worker-0", 1, counts)
    book = keeper.endpoints.logbook("test")
    assert book.began_s == T0 + 3.0
    assert book.requests()["arrival_s"].tolist() == [0.0, 0.0]
    assert book.n_requests == 2
    assert not math.isnan(book.windows()["ModelLatency_Average"][0])
