"""Retries by generation of boto3, whose numbers an object can replace."""

import math

import pytest

from shadowsim.errors import InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.retries import CAUSES, MODES, RetryKeys, RetryPolicy, parse_retries, retry_assumptions

PATH = "traffic.retries"
ON = ("timeout", "unavailable", "outage")


def parsed(value):
    return parse_retries(Block("traffic", {"retries": value}))


def test_the_generations_have_botocores_numbers():
    """Attempts, base, cap, quota, cost of a retry and of one after a time-out; its read time-out of 60 s."""
    assert parsed("none") is None
    assert parsed("legacy") == RetryPolicy(5, 1.0, None, None, 5, 10, 60.0, 1, ON)
    assert parsed("standard") == RetryPolicy(3, 1.0, 20.0, 500, 5, 10, 60.0, 1, ON)
    assert parsed("standard-2026") == RetryPolicy(3, 0.05, 20.0, 500, 14, 14, 60.0, 1, ON)
    for mode in MODES:
        assert parsed({"mode": mode}) == parsed(mode)
        assert parsed({"mode": mode} | dict.fromkeys(set(RetryKeys.declared()) - {"mode"})) == parsed(mode)


def test_an_object_replaces_numbers_of_its_mode():
    value = {"mode": "legacy", "max_attempts": 2, "backoff_base_s": "20ms", "backoff_cap_s": 1, "quota": 100, "cost": 0}
    value |= {"timeout_cost": 7, "timeout_s": "5s", "clients": 50, "on": ["model_error", "timeout", "timeout"]}
    assert parsed(value) == RetryPolicy(2, 0.02, 1.0, 100, 0, 7, 5.0, 50, ("timeout", "model_error"))
    assert parsed({"mode": "standard", "on": list(reversed(CAUSES))}).on == tuple(CAUSES)


def test_one_attempt_is_no_retry():
    assert parsed({"mode": "standard", "max_attempts": 1}) is None
    assert parsed({"mode": "none", "max_attempts": 4}) is None


@pytest.mark.parametrize(
    ("value", "where", "why"),
    [
        ("adaptive", "", "must be one of none, legacy, standard, standard-2026, got 'adaptive'"),
        ("Standard", "", "did you mean standard?"),
        (3, "", "must be one of none, legacy, standard, standard-2026, got 3"),
        ([], "", "must be one of none"),
        ({}, ".mode", "is required"),
        ({"max_attempts": 3}, ".mode", "is required"),
        ({"mode": "standart"}, ".mode", "got 'standart'; did you mean standard?"),
        ({"mode": "legacy", "max_attempts": 0}, ".max_attempts", "must be an integer from 1 to 100, got 0"),
        ({"mode": "legacy", "max_attempts": 101}, ".max_attempts", "must be an integer from 1 to 100, got 101"),
        ({"mode": "legacy", "backoff_base_s": -1}, ".backoff_base_s", "must be a finite number >= 0, got -1"),
        ({"mode": "legacy", "backoff_cap_s": math.inf}, ".backoff_cap_s", "must be a finite number >= 0, got inf"),
        ({"mode": "legacy", "quota": -1}, ".quota", "must be an integer from 0 to 2147483647, got -1"),
        ({"mode": "legacy", "cost": 1.5}, ".cost", "must be an integer from 0 to 2147483647, got 1.5"),
        ({"mode": "legacy", "timeout_cost": "5"}, ".timeout_cost", "got '5'"),
        ({"mode": "legacy", "timeout_s": 0}, ".timeout_s", "must be a finite number > 0, got 0"),
        ({"mode": "legacy", "timeout_s": "1 lustrum"}, ".timeout_s", "must be seconds, or have a unit"),
        ({"mode": "legacy", "clients": 0}, ".clients", "must be an integer from 1 to 10000000, got 0"),
        (
            {"mode": "legacy", "on": []},
            ".on",
            "must be a list [...] of at least one of timeout, unavailable, outage, ref",
        ),
        ({"mode": "legacy", "on": "timeout"}, ".on", "must be a list [...] of at least one of"),
        ({"mode": "legacy", "on": ["timeout", "refusd"]}, ".on.1", "got 'refusd'; did you mean refused?"),
        ({"mode": "none", "quota": -1}, ".quota", "must be an integer from 0"),
        ({"mode": "legacy", "attempts": 3}, ".attempts", "is not a known key; did you mean max_attempts?"),
        ({"mode": "legacy", "timeout": 3}, ".timeout", "is not a known key; did you mean timeout_"),
    ],
)
def test_bad_input_names_path_constraint_and_value(value, where, why):
    with pytest.raises(InputError) as caught:
        parsed(value)
    assert caught.value.path == PATH + where
    assert why in str(caught.value)
    assert len(caught.value.each) == 1


def test_all_errors_come_at_once():
    with pytest.raises(InputError) as caught:
        parsed({"mode": "new", "max_attempts": 0, "quota": -1, "on": ["a", "b"], "x": 1})
    keys = [error.path.removeprefix(f"{PATH}.") for error in caught.value.each]
    assert keys == ["x", "mode", "max_attempts", "quota", "on.0", "on.1"]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("standard", "one client with a quota of 500 (clients is left out)"),
        ({"mode": "legacy", "quota": 9}, "one client with a quota of 9"),
        ({"mode": "standard", "clients": 1}, None),
        ("legacy", None),
        ("none", None),
        ({"mode": "none", "max_attempts": 3}, None),
        ({"mode": "none", "clients": 3, "quota": 5, "on": None}, "nothing is retried; without effect: clients, quota."),
    ],
)
def test_what_is_assumed_about_callers_is_said(value, sentence):
    for traffic in ({"retries": value}, [{"retries": value}, {"retries": value}]):
        sentences = retry_assumptions(parsed(value), traffic)
        assert len(sentences) == (sentence is not None)
        assert all(text.startswith("traffic.retries: ") and sentence in text for text in sentences)
    assert retry_assumptions(None, {}) == []
