"""Measures the rehearsal server in one process and in several: twice as much asked as it can do, and its memory.

Overload: a first generator finds how many calls a second a server answers that copies nothing. A second one then asks
for twice as many of this server, and of one that copies all, in alternating rounds. What each answers in a round makes
a pair; the interval of their ratio is Student's over rounds. Copies must give way to callers, and each that was not
made must be counted by its cause.

Memory: that of all processes of a server is added up every second while callers come at a rate, all are copied, and all
is captured. The frame `requests` grows by a row for each request and copy until it has `KEPT_ROWS`, so the bytes of
these rows are measured apart and taken off. The slope of the rest over the second half, by the means of blocks, has
Student's interval.
"""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scipy import stats
from served import served
from server_bench import Bench, Load, own_memory_of, processes_of, settled

from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.processes.links import decoded, encoded
from shadowsim.server.processes.reports import served_count, served_request

CLOSED_S, CONNECTIONS, KEPT = 3.0, 32, 0.95  # share of what callers get without copies
TWICE, MOST_IN_FLIGHT = 2.0, 256
RATE_PER_S, N_BLOCKS, SAMPLE_S, GROWTH_MB = 300.0, 10, 1.0, 10.0  # of a run of ten minutes or less, beyond the rows
N_ROWS = 100_000
Table = Callable[[str, str, str], None]


def student(values: np.ndarray) -> tuple[float, float]:
    """Return Student's 95 % interval of a mean."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


@pytest.mark.parametrize(
    ("rounds", "round_s"),
    [pytest.param(3, 1.5, id="short"), pytest.param(12, 5.0, id="full", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("n", [1, 2])
def test_callers_who_ask_for_twice_what_a_server_can_do(
    bench: Bench, benchmark: BenchmarkFixture, table: Table, n: int, rounds: int, round_s: float
) -> None:
    source, shadow = bench.backend(), bench.backend()
    alone, copying = (bench.server(source, shadow, share, n)[0] for share in (0, 100))
    closed = {url: bench.load(url, CLOSED_S, connections=CONNECTIONS) for url in (copying, alone)}
    rate_per_s = TWICE * closed[alone].n / closed[alone].elapsed_s
    loads: dict[str, list[Load]] = {alone: [], copying: []}

    def all_rounds() -> None:
        for i in range(rounds):
            for url in (alone, copying) if i % 2 else (copying, alone):
                loads[url].append(bench.ask_too_much(url, round_s, rate_per_s, MOST_IN_FLIGHT))

    benchmark.pedantic(all_rounds, rounds=1)
    per_s = {url: np.array([load.n / load.elapsed_s for load in loads[url]]) for url in loads}
    low, high = student(per_s[copying] / per_s[alone])
    n_asked = sum(load.n for load in (closed[copying], *loads[copying]))
    copies = settled(copying, n_asked)
    name = f"--processes {n}, twice its load asked"
    for what, url in (("no copies", alone), ("all copied", copying)):
        given_up = sum(load.n_given_up for load in loads[url])
        took_s = np.concatenate([load.took_s[url] for load in loads[url]])
        figure = f"{per_s[url].mean():,.0f} of {rate_per_s:,.0f} calls/s answered"
        table(f"{name}, {what}", figure, f"p50 {np.median(took_s) * 1e3:.0f} ms, {given_up:,} not sent")
    met = "met" if low >= KEPT else "not shown" if high >= KEPT else "missed"
    lost = {cause: int(count) for cause, count in copies.items() if count and cause not in ("made", "requests")}
    kept = f"callers get {low:.0%} to {high:.0%} of what they get without copies, goal {KEPT:.0%} {met}"
    table(name, kept, f"{copies['made'] / n_asked:.0%} copied, lost {lost or 'none'}")
    assert not any(load.bad for url in loads for load in (closed[url], *loads[url]))
    assert copies["requests"] == n_asked
    assert copies["made"] + sum(lost.values()) == n_asked


@pytest.mark.parametrize(
    "seconds", [pytest.param(20.0, id="short"), pytest.param(600.0, id="full", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("n", [1, 2])
def test_memory_with_a_healthy_shadow_and_captures(
    bench: Bench, benchmark: BenchmarkFixture, table: Table, n: int, seconds: float
) -> None:
    url, pid = bench.server(bench.backend(), bench.backend(), n=n, captures=True)
    first = bench.load(url, 2.0)  # imports modules, opens connections
    before = settled(url, first.n)
    names = processes_of(pid)
    assert len(names) == (1 if n == 1 else n + 3)
    sampled: dict[int, list[float]] = {process: [] for process in names}
    moments: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        began = time.monotonic()
        while not ended.wait(max(began + len(moments) * SAMPLE_S - time.monotonic(), 0.0)):
            moments.append(time.monotonic() - began)
            for process, values in sampled.items():
                values.append(own_memory_of(process))

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        load = benchmark.pedantic(bench.race, args=(url,), kwargs={"seconds": seconds, "rate_per_s": RATE_PER_S})
    finally:
        ended.set()
        sampling.join()
    n_asked = first.n + load.n
    copies = settled(url, n_asked)
    rows_mb = bytes_of_a_row(n) / 2**20 * sum(copies[kind] - before[kind] for kind in ("requests", "made"))
    for process, name in names.items():
        began, *_, last = sampled[process]
        table(f"--processes {n}, memory of {name}", f"{last:.0f} MB", f"{last - began:+.1f} MB in all")
    whole = np.sum([*sampled.values()], axis=0)
    low, high = (seconds * slope - rows_mb for slope in slope_of(np.array(moments), whole))
    met = "met" if high < GROWTH_MB else "not shown" if low < GROWTH_MB else "missed"
    figure = f"{low:+.1f} to {high:+.1f} MB in {seconds:g} s beyond its rows, goal {GROWTH_MB:g} MB {met}"
    table(f"--processes {n}, memory at {RATE_PER_S:g}/s", figure, f"rows take {rows_mb:.1f} MB")
    assert not load.bad
    assert copies["requests"] == n_asked
    assert low < GROWTH_MB


def slope_of(at_s: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return Student's 95 % interval of the slope over the second half.

    Values next to each other are alike, since memory grows in steps; the means of blocks are much less so.
    """
    late = at_s >= at_s[-1] / 2.0
    n_blocks = min(N_BLOCKS, int(late.sum()))
    blocks = [[part.mean() for part in np.array_split(column[late], n_blocks)] for column in (at_s, values)]
    line = stats.linregress(*blocks)
    half = stats.t.ppf(0.975, n_blocks - 2) * line.stderr
    return float(line.slope - half), float(line.slope + half)


def bytes_of_a_row(n: int) -> float:
    """Return what a row of the frame `requests` takes in n processes: in one, a copy's id is its request's."""
    count = encoded(served_count("e", "a", None, replace(served(1e9), inference_id="an-inference-id")))
    logbook = Logbook("bench", "e", ("a", "b"), 0.0, (1, 1))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(N_ROWS):
        of_source = served_request(decoded(count))
        logbook.add(0, of_source)
        logbook.add(1, of_source if n == 1 else served_request(decoded(count)))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return grown / (2 * N_ROWS)
