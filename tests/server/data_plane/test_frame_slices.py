"""Frames in slices: the same rows as of the whole frame, in JSON and in Parquet."""

import asyncio
import json
import math
from io import BytesIO
from random import Random

import pandas as pd
import pytest
from served import served

from shadowsim.frames import LIVE_WINDOWS, empty
from shadowsim.server.data_plane import experiment_frames, frame_slices
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.data_plane.frame_slices import encoded, slices


def logbook(n, monkeypatch):
    """Return a logbook of several chunks, whose rows come in another order than their requests."""
    monkeypatch.setattr(experiment_frames, "CHUNK_ROWS", 50)
    monkeypatch.setattr(frame_slices, "GROUP_ROWS", 40)
    book, random = Logbook("test", "endpoint", ("source", "shadow"), 0.0, (2, 2)), Random(1)
    numbers = sorted(range(n), key=lambda i: i + random.random() * 60)
    for i in numbers:
        for role in (0, 1) if i % 3 else (0,):
            outcome = "answered" if i % 7 else "error_5xx"
            request = served(float(i), 0.01, outcome, wait_s=math.nan if i % 5 else 0.1, is_copy=bool(role))
            object.__setattr__(request, "request", i)
            object.__setattr__(request, "inference_id", f"id-{i}" if i % 2 else "")
            book.add(role, request)
    return book


def read(frames, form):
    async def whole():
        return [piece async for piece in encoded(frames, form)]

    pieces = asyncio.run(whole())
    data = b"".join(pieces)
    return (json.loads(data) if form == "json" else pd.read_parquet(BytesIO(data))), len(pieces)


@pytest.mark.parametrize("n", [0, 1, 16, 301])
def test_slices_of_requests_are_the_frame(n, monkeypatch):
    book = logbook(n, monkeypatch)
    whole = book.requests()
    assert list(whole["request"]) == sorted(whole["request"])
    frames = list(book.request_slices(16))
    assert all(len(frame) <= 16 for frame in frames)
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), whole)
    buffer = BytesIO()
    whole.to_parquet(buffer, index=False)
    parquet, n_pieces = read(book.request_slices(16), "parquet")
    pd.testing.assert_frame_equal(parquet, pd.read_parquet(buffer))
    assert n_pieces > 1 or n < 20
    rows, n_pieces = read(book.request_slices(16), "json")
    assert rows == json.loads(whole.to_json(orient="records"))
    assert n_pieces == max(math.ceil(len(whole) / 16), 0) + 1


@pytest.mark.parametrize("n", [0, 1, 1000])
@pytest.mark.parametrize("in_tokens", [False, True])
def test_slices_of_windows_are_the_frame(n, in_tokens, monkeypatch):
    book = logbook(n, monkeypatch)
    book.in_tokens = in_tokens
    whole = book.windows()
    assert len(whole) == 2 * math.ceil(n / 60)
    frames = list(book.window_slices(4))
    assert max(map(len, frames)) <= 4
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), whole)
    for form in ("json", "parquet"):
        (in_slices, _), (at_once, _) = read(book.window_slices(4), form), read(iter([whole]), form)
        assert len(in_slices) == len(whole)
        assert str(in_slices) == str(at_once)


def test_rows_that_come_meanwhile_are_left_for_the_next_time(monkeypatch):
    book = logbook(100, monkeypatch)
    n = len(book.requests())
    frames = book.request_slices(16)
    seen = [next(frames)]
    for _ in range(200):
        book.add(0, served(1000.0))
    assert sum(map(len, [*seen, *frames])) == n


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_an_empty_frame_is_an_empty_list_or_file(form):
    read_back, _ = read(slices(empty(LIVE_WINDOWS), form), form)
    assert len(read_back) == 0
