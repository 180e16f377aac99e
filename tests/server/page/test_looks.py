"""Looks: their plan, what they see, and what the program that compares finds."""

import json
import logging
from dataclasses import replace
from random import Random

import numpy as np
import pandas as pd
import pytest
from served import served
from serving import Loop, until

from shadowsim import compare
from shadowsim.frames import FIRST_TOKEN
from shadowsim.server.data_plane.backends import TokenFigures
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.page import looks as module
from shadowsim.server.page.comparing import SPENDING, found
from shadowsim.server.page.looks import LookPlan, Looks

BEGAN_S, ROLES = 1_800_000_000.0, ("source", "shadow")
PLAN = LookPlan.of(144.0)


def logbook(n=6000, age_s=160.0, slower=1.0, tokens=False):
    random, book = Random(8), Logbook("test", "endpoint", ROLES, BEGAN_S, (4, 4))
    for i in range(n):
        for role in (0, 1):
            latency_s = random.lognormvariate(-4.0, 0.5) * (slower if role else 1.0)
            outcome = "error_5xx" if random.random() < 0.01 else "answered"
            figures = TokenFigures(0.1 * latency_s, 0.001, 10, 5, 5, 10, 0) if tokens else None
            at = BEGAN_S + age_s * i / n
            request = served(at, latency_s, outcome, 0, 0.0, latency_s * (1.0 + role), bool(role), figures)
            book.add(role, replace(request, request=i))
    for series in book.series:
        for minute in range(3):
            series.at(BEGAN_S + 60.0 * minute).n_instances = 1
    return book


def written(folder, book, look, age_s=1e9):
    question = {"look": look, "looks": PLAN.fractions, "moments": [f"moment {k + 1}" for k in range(8)]}
    module._write(folder, book, PLAN.age_s(look), age_s, question)
    return folder


@pytest.mark.parametrize(("length_s", "n"), [(1.0, 8), (144.0, 8), (160.0, 9), (7 * 86_400.0, 20), (30 * 86_400.0, 22)])
def test_looks_are_at_eighths_and_before_that_at_halves(length_s, n):
    plan = LookPlan.of(length_s)
    assert len(plan.fractions) == n
    assert plan.fractions[-8:] == tuple(k / 8 for k in range(1, 9))
    assert all(2.0 * a == b for a, b in zip(plan.fractions[:-8], plan.fractions[1:-7], strict=True))
    assert plan.age_s(n) == length_s
    assert n == 8 or plan.age_s(1) >= 10.0


def test_a_look_is_due_once_its_answers_have_come():
    assert PLAN.due(18.0, 18.0) == 0
    assert PLAN.due(19.9, 19.9) == 1
    assert PLAN.due(144.0, 158.0) == 7
    assert PLAN.due(144.0, 159.0) == 8
    assert PLAN.due(50.0, 1e9) == 2  # stopped after 50 s: the third would have been at 54 s
    long = LookPlan.of(1e5)
    assert long.made_at_s(len(long.fractions)) == 1e5 + 60.0


def test_a_look_sees_what_came_before_it_and_has_its_bound(tmp_path):
    book = logbook(slower=1.3)
    result = found(written(tmp_path, book, 4))
    rows = {row["metric"]: row for row in result["rows"]}
    requests = book.requests()
    before = requests[requests["arrival_s"] < 72.0]
    table = compare({"requests": before}, look=4, looks=PLAN.fractions, spending=SPENDING).set_index("metric")
    for metric in ("mean", "p50", "error_rate"):
        assert rows[metric]["n_source"] == (before["role"] == "source").sum()
        for name in ("source", "shadow", "difference", "low", "high"):
            assert rows[metric][name] == pytest.approx(table.loc[metric, name])
    assert rows["p50"]["outcome"] == "worse"
    assert rows["p50"]["verdict"].startswith("worse")
    assert result["code"] == "worse"
    assert result["answer"].startswith("Yes: the shadow is certainly worse in p50")
    assert "do not carry the same load" in result["note"] or "own" in result["note"]
    assert set(rows) <= {"mean", "p50", "p95", "p99", "error_rate"}
    json.dumps(result, allow_nan=False)


def test_undecided_metrics_have_reasons_with_the_moments_of_looks(tmp_path):
    result = found(written(tmp_path, logbook(n=1500), 2))
    assert result["code"] == "go_on"
    assert any("look" in reason and "at moment " in reason for reason in result["reasons"])
    json.dumps(result, allow_nan=False)


def test_tokens_are_compared(tmp_path):
    result = found(written(tmp_path, logbook(tokens=True, slower=2.0), 8))
    outcomes = {row["metric"]: row["outcome"] for row in result["rows"]}
    assert outcomes["ttft_p50"] == "worse"
    assert FIRST_TOKEN == "first_token"


@pytest.mark.parametrize("n", [0, 2])
def test_too_few_requests_are_said(tmp_path, n):
    result = found(written(tmp_path, logbook(n=n), 1))
    if n == 0:
        assert result == {"problem": "requests: there are none before the look"}
    else:
        assert result["code"] in ("go_on", "hopeless")
    json.dumps(result, allow_nan=False)


def test_many_requests_are_compared_by_the_minute(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 1000)
    plan = LookPlan.of(2400.0)
    book = logbook(n=12_000, age_s=2400.0, slower=1.5)
    question = {"look": 8, "looks": PLAN.fractions, "moments": ["soon"] * 8}
    module._write(tmp_path, book, plan.age_s(len(plan.fractions) - 4), 1e9, question)
    assert not (tmp_path / "rows.npz").exists()
    result = found(tmp_path)
    (row,) = (row for row in result["rows"] if row["metric"] == "p50")
    assert row["method"].startswith("sections")
    assert row["n_source"] == pytest.approx(6000, abs=1)  # of the first 1,200 s
    assert row["outcome"] == "worse"


def test_the_last_minute_counts_as_far_as_it_is_over(tmp_path):
    book = logbook()
    whole = book.windows(1)["utilisation"].to_numpy()
    written(tmp_path, book, 1, age_s=30.0)
    assert pd.read_parquet(tmp_path / "windows.parquet")["utilisation"].to_numpy() == pytest.approx(2.0 * whole)


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.close()


def looks_of(book, answer, monkeypatch):
    monkeypatch.setattr(module, "_answer", answer)
    return Looks(book, PLAN, ["soon"] * 8)


def test_looks_are_made_once_and_late_ones_are_left_out(loop, monkeypatch):
    asked = []

    async def answer(folder):
        with open(f"{folder}/question.json") as file:
            asked.append(json.load(file)["look"])
        return b'{"look": %d}' % asked[-1]

    looks = looks_of(logbook(n=10), answer, monkeypatch)

    async def begin(age_s):
        looks.begin_due(age_s, age_s)

    for age_s, look in ((10.0, 0), (20.0, 1), (24.0, 1), (85.0, 4), (86.0, 4), (1000.0, 8)):
        loop(begin(age_s))
        until(lambda look=look: looks.look == look and looks._task is None)
        assert looks.found == ({"look": look} if look else None)
    assert asked == [1, 4, 8]


def test_a_look_that_fails_is_logged_and_not_tried_again(loop, monkeypatch, caplog):
    async def answer(folder):
        asked.append(folder)
        raise RuntimeError("no memory")

    asked, looks = [], None
    looks = looks_of(logbook(n=10), answer, monkeypatch)

    async def begin(age_s):
        looks.begin_due(age_s, age_s)

    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            loop(begin(30.0))
            until(lambda: looks._task is None)
    assert len(asked) == 1
    assert "look 1 at experiment test failed" in caplog.text
    assert looks.found is None


@pytest.mark.slow
def test_the_program_answers_and_tells_its_failures(loop, tmp_path):
    answered = json.loads(loop(module._answer(str(written(tmp_path, logbook(), 8)))))
    assert answered == json.loads(json.dumps(found(tmp_path)))
    np.savez(tmp_path / "rows.npz", request=np.zeros(3))
    with pytest.raises(RuntimeError, match="Error"):
        loop(module._answer(str(tmp_path)))
