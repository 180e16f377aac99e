"""The timeline of an experiment, against pandas on the same requests."""

import math
from random import Random

import numpy as np
import pandas as pd
import pytest
from served import served

from shadowsim.server.data_plane import experiment_frames
from shadowsim.server.data_plane.backends import TokenFigures
from shadowsim.server.data_plane.counts import Series
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.page import timeline as module
from shadowsim.server.page.timeline import MOST_STEPS, Timeline

BEGAN_S = 1_800_000_000.0
ROLES = ("source", "shadow")


def logbook_and_rows(age_s, n=2000, workers=(2, 2), tokens=False):
    """Return a logbook of random requests up to an age, and their rows."""
    random, book, rows = Random(3), Logbook("test", "endpoint", ROLES, BEGAN_S, workers), []
    for i in range(n):
        at_s = age_s * i / n
        for role in (0, 1):
            outcome = "error_5xx" if random.random() < 0.1 else "answered"
            wait, service = random.expovariate(100), random.expovariate(20 + 10 * role)
            first = wait + 0.1 * service
            figures = TokenFigures(first, 0.001, 10, 5, 5, 10, 0) if tokens else None
            book.add(role, served(BEGAN_S + at_s, wait + service, outcome, 0, wait, service, bool(role), figures))
            rows.append((ROLES[role], at_s, wait + service, outcome != "answered", first, service))
    for series in book.series:
        for minute in range(math.ceil(age_s / 60.0)):
            series.at(BEGAN_S + 60.0 * minute).n_instances = 2
    return book, pd.DataFrame(rows, columns=["role", "at_s", "latency_s", "failed", "first_s", "service_s"])


def assert_drawn(drawn, rows, age_s, q_error=0.02):
    step_s = drawn["step_s"]
    rows = rows.assign(step=(rows["at_s"] // step_s).astype(int))
    assert drawn["at_s"] == [step_s * i for i in range(len(drawn["at_s"]))]
    for role in ROLES:
        of_role = rows[rows["role"] == role]
        for step in range(len(drawn["at_s"])):
            part, length_s = of_role[of_role["step"] == step], min(step_s, age_s - step * step_s)
            lines = {name: drawn[role][name][step] for name in drawn[role]}
            assert lines["rate"] == pytest.approx(len(part) / length_s, rel=1e-3)
            if part.empty:
                assert lines["p50"] is None
                assert lines["errors"] is None
                continue
            assert lines["errors"] == pytest.approx(part["failed"].mean(), rel=1e-3)
            assert lines["in_flight"] == pytest.approx(part["latency_s"].sum() / length_s, rel=1e-3)
            for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                near = [max(q - 1 / len(part), 0.0), min(q + 1 / len(part), 1.0)]  # the rank is off by one
                low, high = np.quantile(part["latency_s"], near)
                assert low * 0.99 <= lines[name] <= high * 1.01  # a bucket is 0.8 % wide
        for name, q in (("p50", 0.5), ("p99", 0.99)):
            assert drawn["whole"][role][name] == pytest.approx(of_role["latency_s"].quantile(q), rel=q_error)


@pytest.mark.parametrize(
    ("age_s", "step_s"), [(100.0, 1.0), (119.5, 1.0), (120.0, 2.0), (1000.0, 16.0), (7000.0, 64.0)]
)
def test_steps_cover_the_experiment_and_agree_with_its_requests(age_s, step_s):
    book, rows = logbook_and_rows(age_s)
    timeline = Timeline(book)
    timeline.update(age_s)
    drawn = timeline.figures(age_s)
    assert drawn["step_s"] == step_s
    assert MOST_STEPS / 2 <= len(drawn["at_s"]) <= MOST_STEPS
    assert_drawn(drawn, rows, age_s)
    assert timeline.figures(age_s) == drawn


def test_requests_that_come_between_two_updates_are_added():
    book, rows = logbook_and_rows(300.0)
    timeline, later = Timeline(Logbook("test", "endpoint", ROLES, BEGAN_S, (2, 2))), Timeline(book)
    later.update(300.0)
    known = timeline._logbook
    for i, row in enumerate(rows.itertuples()):
        known.add(
            ROLES.index(row.role), served(BEGAN_S + row.at_s, row.latency_s, "error_5xx" if row.failed else "answered")
        )
        if i % 500 == 0:
            timeline.update(row.at_s)
            timeline.figures(row.at_s)
    timeline.update(300.0)
    a, b = timeline.figures(300.0), later.figures(300.0)
    assert [a[role] for role in ROLES] == [b[role] for role in ROLES]


@pytest.mark.parametrize("age_s", [7300.0, 30_000.0])
def test_old_experiments_are_drawn_by_the_minute(age_s):
    book, rows = logbook_and_rows(age_s)
    timeline = Timeline(book)
    for age in (0.3 * age_s, age_s, age_s):
        timeline.update(age)
        drawn = timeline.figures(age)
    assert drawn["step_s"] % 60.0 == 0.0
    assert_drawn(drawn, rows, age_s)


def test_forgotten_requests_are_drawn_from_the_minutes(monkeypatch):
    monkeypatch.setattr(experiment_frames, "CHUNK_ROWS", 100)
    _, rows = logbook_and_rows(600.0, n=500)
    short = Logbook("test", "endpoint", ROLES, BEGAN_S, (2, 2), kept_rows=300)
    for row in rows.itertuples():
        short.add(
            ROLES.index(row.role), served(BEGAN_S + row.at_s, row.latency_s, "error_5xx" if row.failed else "answered")
        )
    assert short.n_forgotten > 0
    timeline = Timeline(short)
    timeline.update(600.0)
    assert timeline.figures(600.0)["step_s"] == 60.0
    assert_drawn(timeline.figures(600.0), rows, 600.0, q_error=0.05)


def test_first_tokens_are_drawn_where_there_are_some():
    for tokens in (True, False):
        book, rows = logbook_and_rows(100.0, tokens=tokens)
        timeline = Timeline(book)
        timeline.update(100.0)
        drawn = timeline.figures(100.0)
        assert ("first_p50" in drawn["source"]) == tokens
        if tokens:
            known = rows[rows["role"] == "shadow"]["first_s"]
            assert drawn["whole"]["shadow"]["first_p95"] == pytest.approx(known.quantile(0.95), rel=0.02)


def test_utilisation_is_that_of_the_windows():
    book, _ = logbook_and_rows(600.0)
    timeline = Timeline(book)
    timeline.update(600.0)
    used = timeline.figures(600.0)["utilisation"]
    windows = book.windows()
    for role in ROLES:
        expected = windows.loc[windows["role"] == role, "utilisation"].to_list()[:10]
        assert used[role] == pytest.approx(expected, rel=1e-3)
    containers, _ = logbook_and_rows(600.0, workers=(None, None))
    timeline = Timeline(containers)
    timeline.update(600.0)
    assert timeline.figures(600.0)["utilisation"]["source"] == [None] * 10


def test_many_minutes_of_utilisation_are_joined():
    book = Logbook("test", "endpoint", ROLES, BEGAN_S, (1, 1))
    book.series = (Series(BEGAN_S), Series(BEGAN_S))
    for minute in range(250):
        period = book.series[0].at(BEGAN_S + 60.0 * minute)
        period.n_instances, period.worked = 1, {0: 60.0 if minute < 125 else 0.0}
    timeline = Timeline(book)
    timeline.update(15_000.0)
    used = timeline.figures(15_000.0)["utilisation"]
    assert used["at_s"][:2] == [0.0, 180.0]
    assert len(used["at_s"]) <= MOST_STEPS
    assert (used["source"][0], used["source"][41], used["source"][-1]) == (1.0, pytest.approx(2 / 3, rel=1e-3), 0.0)


def test_an_experiment_without_requests_draws_nothing():
    timeline = Timeline(Logbook("test", "endpoint", ROLES, BEGAN_S))
    timeline.update(0.1)
    assert timeline.figures(0.1)["at_s"] == []
    timeline.update(10.0)
    drawn = timeline.figures(10.0)
    assert drawn["source"]["rate"] == [0.0] * 10
    assert drawn["source"]["p99"] == [None] * 10
    assert module.rounded(math.nan) is None
