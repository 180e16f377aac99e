"""Checks how messages show values, and that errors survive pickling."""

import pickle
from datetime import UTC, date, datetime
from pathlib import PurePosixPath

import numpy as np
import pytest

from shadowsim.errors import (
    InputError,
    SerializationError,
    ShadowsimError,
    ValidationError,
    did_you_mean,
    json_kind,
    shown,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"A": [1, True, None], "B": 1.5}, "{A=[1, true, null], B=1.5}"),
        ("a\nb\x1b[31m\ud800", r"a\nb\x1b[31m\ud800"),
        ("x" * 1000, "x" * 117 + "..."),
        (float("nan"), "nan"),
        (np.int64(3), "3"),
        (np.float32(0.5), "0.5"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (PurePosixPath("a/b"), "a/b"),
        (b"abc", "a bytes"),
    ],
)
def test_a_value_is_shown_in_one_short_line(value, text):
    assert shown(value) == text


def test_large_values_are_cut_short():
    assert shown(10**10000) == "an integer of 33220 bits"
    assert len(shown([["y" * 1000] * 1000] * 1000)) == 120


@pytest.mark.parametrize(
    ("value", "name"),
    [(None, "null"), (True, "a boolean"), (1, "an integer"), (1.0, "a float"), ("", "a string"), ({}, "an object")],
)
def test_kinds(value, name):
    assert json_kind(value) == name


def test_texts_are_quoted_and_numbers_are_not():
    assert str(InputError("a.b", "must be > 0", "5")) == "a.b: must be > 0, got '5'"
    assert str(InputError("a.b", "must be > 0", -5)) == "a.b: must be > 0, got -5"
    assert str(InputError("a.b", "must be > 0", None)) == "a.b: must be > 0, got null"
    assert str(InputError("a.b", "is required")) == "a.b: is required"


@pytest.mark.parametrize(
    "error",
    [
        InputError("a", "must be", 5),
        InputError("a", "is required"),
        InputError("a", "must be b", "c", hint="; did you mean b?"),
        ValidationError(["one", "two"]),
        SerializationError("broken"),
    ],
)
def test_errors_survive_pickling(error):
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert isinstance(copy, ShadowsimError)
    assert copy.http_status == 400


def test_the_nearest_name():
    assert did_you_mean("sede", ["seed", "rate"]) == "; did you mean seed?"
    assert did_you_mean("xyz", ["seed", "rate"]) == ""
