"""Tallies and frames of a live experiment, against what pandas makes of the requests."""

import math
from random import Random

import numpy as np
import pandas as pd
import pytest

from shadowsim.frames import LATENCY, PERCENTILES, REQUESTS, WINDOWS
from shadowsim.histogram import quantile_within
from shadowsim.server.data_plane import experiment_frames
from shadowsim.server.data_plane.backends import Answer
from shadowsim.server.data_plane.counts import Series, Served
from shadowsim.server.data_plane.experiment_frames import Logbook

BEGAN_S = 1_800_000_030.0
OUTCOMES = {"answered": 200, "error_4xx": 400, "error_5xx": 500, "timed_out": 0, "refused": 503, "broken": 0}


def served(request, arrival_s, outcome="answered", latency_s=0.01, wait_s=math.nan, service_s=math.nan, **more):
    answer = Answer(outcome, latency_s, OUTCOMES[outcome], b"four", {}, wait_s, service_s)
    return Served(request, f"id-{request}", arrival_s, 0, 2, answer, 0.001, 10, **more)


def a_run(seed, n=3000):
    """A logbook, and its rows as a plain frame."""
    random, book, rows = Random(seed), Logbook("test", "endpoint", ("source", "shadow"), BEGAN_S, (2, 2)), []
    for i in range(n):
        for role in (0, 1):
            if role and random.random() < 0.5:
                continue
            outcome = random.choices(list(OUTCOMES), [20, 1, 1, 1, 1, 1])[0]
            wait, service = random.expovariate(100), random.expovariate(50)
            at_s, captured = 300.0 * i / n, random.choice([None, 14])
            one = served(i, BEGAN_S + at_s, outcome, wait + service, wait, service, captured_bytes=captured)
            book.add(role, one)
            rows.append((i, role, at_s, outcome, wait, service, captured))
    return book, pd.DataFrame(rows, columns=["request", "role", "at_s", "outcome", "wait", "service", "captured"])


def test_windows_are_what_the_requests_say():
    book, rows = a_run(1)
    windows = book.windows()
    assert [c.name for c in WINDOWS] == list(windows.columns)
    rows["window"] = rows["at_s"] // 60 * 60
    for role, name in enumerate(("source", "shadow")):
        everything = rows[rows["role"] == role]
        for start, part in everything.groupby("window"):
            (window,) = windows[(windows["role"] == name) & (windows["time_s"] == start)].to_dict("records")
            latency = (part["wait"] + part["service"])[part["outcome"] != "refused"]
            assert window["Invocations"] == len(part)
            assert window["InvocationsPerInstance"] == pytest.approx(len(part) / 2)
            assert window["ModelLatency_SampleCount"] == len(latency)
            assert window["ModelLatency_Average"] == pytest.approx(latency.mean() * 1e6)
            assert window["ModelLatency_Maximum"] == pytest.approx(latency.max() * 1e6)
            for percentile, q in PERCENTILES.items():  # the bucket that holds it is 0.8 % wide; the rank is off by one
                low, high = np.quantile(latency, [max(q - 1 / len(latency), 0), min(q + 1 / len(latency), 1)]) * 1e6
                assert low * 0.992 <= window[f"ModelLatency_{percentile}"] <= high * 1.008
            assert window["Invocation4XXErrors"] == (part["outcome"] == "error_4xx").sum()
            assert window["Invocation5XXErrors"] == part["outcome"].isin(["error_5xx", "refused"]).sum()
            assert window["InvocationModelErrors"] == (part["outcome"] != "answered").sum()
            assert window["wait_mean_s"] == pytest.approx(part["wait"].mean())
            assert window["captured_records"] == part["captured"].notna().sum()
            assert window["captured_bytes"] == part["captured"].sum()
            assert window["offered_load"] == pytest.approx(part["service"].sum() / (60 * 4))
            begun = everything["at_s"] + everything["wait"]
            worked = np.minimum(begun + everything["service"], start + 60) - np.maximum(begun, start)
            # moments are seconds since 1970, whose floats are 2^-22 s apart
            expected = pytest.approx(worked.clip(lower=0).sum() / 240, abs=len(everything) * 2**-22 / 240)
            assert window["utilisation"] == expected


def test_requests_are_whole_and_in_order():
    book, rows = a_run(2)
    requests = book.requests()
    assert [c.name for c in REQUESTS] == list(requests.columns)
    expected = rows.sort_values(["request", "role"], ignore_index=True)
    assert (requests["request"] == expected["request"]).all()
    assert (requests["status"] == expected["outcome"]).all()
    assert np.allclose(requests["arrival_s"], expected["at_s"])
    assert requests["latency_s"].isna().equals(expected["outcome"] == "refused")
    assert (requests["inference_id"] == "id-" + expected["request"].astype(str)).all()
    no_answer = expected["outcome"].isin(["timed_out", "broken"])
    assert requests["response_bytes"].isna().equals(no_answer)


def test_latency_has_every_accepted_request_once():
    book, rows = a_run(3)
    latency = book.latency()
    assert [c.name for c in LATENCY] == list(latency.columns)
    assert latency["count"].sum() == (rows["outcome"] != "refused").sum()


def test_an_empty_logbook_has_empty_frames():
    book = Logbook("test", "endpoint", ("source", "shadow"), BEGAN_S)
    assert (len(book.windows()), len(book.requests()), len(book.latency())) == (0, 0, 0)


def test_too_many_rows_lose_the_oldest_and_are_counted(monkeypatch):
    monkeypatch.setattr(experiment_frames, "_CHUNK", 100)
    book = Logbook("test", "endpoint", ("source", "shadow"), BEGAN_S, kept_rows=1000)
    for i in range(2500):
        book.add(0, served(i, BEGAN_S))
    requests = book.requests()
    assert len(requests) + book.n_forgotten == 2500
    assert len(requests) >= 1000
    assert requests["request"].iloc[-1] == 2499
    assert book.windows()["Invocations"].sum() == 2500


def test_packed_tallies_lose_nothing_and_take_late_answers():
    series = Series(0.0)
    for minute in range(20):
        for i in range(50):
            series.add(served(0, minute * 60.0, latency_s=0.001 * (i + 1)))
    assert series.tallies[0].buckets is None
    series.add(served(0, 0.0, latency_s=0.2))
    counts = series.tallies[0].seen_counts()
    assert sum(counts.values()) == series.tallies[0].n == 51
    assert quantile_within(counts, 1.0, 0.0, 1.0) == pytest.approx(0.2, rel=0.008)


def test_work_is_counted_where_it_is_done():
    series = Series(0.0)
    series.add(served(0, 50.0, wait_s=5.0, service_s=100.0, latency_s=105.0))
    assert [series.tallies[i].worked_s for i in range(3)] == [5.0, 60.0, 35.0]
