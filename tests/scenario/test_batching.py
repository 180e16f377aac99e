"""Dynamic batchers: factors by size, and what a full batch costs a request."""

import math

import pytest

from shadowsim.errors import InputError
from shadowsim.scenario.batching import MOST_IN_A_BATCH, Batcher, parse_batching
from shadowsim.scenario.fields import Block

PATH = "services.Shadow-01.batching"


def parsed(**keys):
    return parse_batching(Block(PATH, keys))


def test_factors_and_defaults():
    assert parsed(max_size=1) == Batcher(1, 0.0, (1.0,))
    assert parsed(max_size=1, factors=[2]) == Batcher(1, 0.0, (2.0,))
    assert parsed(max_size=3, max_delay_s="5ms", marginal=0.25) == Batcher(3, 0.005, (1.0, 1.25, 1.5))
    assert parsed(max_size=2, max_delay_s=0.005, marginal=0) == Batcher(2, 0.005, (1.0, 1.0))
    assert parsed(max_size=4, factors=[1, 1.5]).factors == (1.0, 1.5, 1.5, 1.5)
    assert parsed(max_size=2, factors=[1, 1.5], marginal=None, max_delay_s=None) == Batcher(2, 0.0, (1.0, 1.5))


def test_shares_of_a_batch():
    """Of four requests in 3 service times each takes 3/4; with two at a time 1.2 / 2 would be less."""
    batcher = parsed(max_size=4, factors=[1.0, 1.2, 2.0, 3.0])
    assert (batcher.full_share, batcher.least_share) == (0.75, 0.6)
    assert parsed(max_size=8, marginal=0).full_share == 1 / 8
    assert parsed(max_size=8, marginal=1).full_share == 1.0


@pytest.mark.parametrize(
    ("keys", "where", "why"),
    [
        ({}, ".max_size", "is required"),
        ({"max_size": 0}, ".max_size", f"must be an integer from 1 to {MOST_IN_A_BATCH}, got 0"),
        ({"max_size": 8.0, "marginal": 0}, ".max_size", "must be an integer from 1 to 4096, got 8.0"),
        ({"max_size": True, "marginal": 0}, ".max_size", "must be an integer from 1 to 4096, got true"),
        ({"max_size": 10**9, "marginal": 0}, ".max_size", "got 1000000000"),
        ({"max_size": 2}, "", "needs `factors` or `marginal`: how much longer"),
        (
            {"max_size": 2, "factors": [1], "marginal": 0},
            ".marginal",
            "must be left out where `factors` are given, got 0",
        ),
        ({"max_size": 2, "factors": []}, ".factors", "must be a list [...] of at least one number, got []"),
        ({"max_size": 2, "factors": 1.5}, ".factors", "must be a list [...] of at least one number, got 1.5"),
        ({"max_size": 2, "factors": [1, 0]}, ".factors.1", "must be a finite number > 0 and <= 1e+06, got 0"),
        ({"max_size": 2, "factors": [1, math.nan]}, ".factors.1", "finite number > 0 and <= 1e+06, got nan"),
        ({"max_size": 2, "factors": ["1"]}, ".factors.0", "got '1'"),
        (
            {"max_size": 2, "factors": [1, 1, 1]},
            ".factors",
            "must have at most one factor for each size up to 2, got 3",
        ),
        ({"max_size": 2, "marginal": -0.1}, ".marginal", "must be a finite number >= 0 and <= 1e+06, got -0.1"),
        ({"max_size": 2, "marginal": math.inf}, ".marginal", "got inf"),
        ({"max_size": 1, "max_delay_s": -1}, ".max_delay_s", "must be a finite number >= 0, got -1"),
        ({"max_size": 1, "max_delay_s": "5 parsecs"}, ".max_delay_s", "must be seconds, or have a unit"),
        ({"max_size": 1, "max_delay": 5}, ".max_delay", "is not a known key; did you mean max_delay_s?"),
    ],
)
def test_bad_input_names_path_constraint_and_value(keys, where, why):
    with pytest.raises(InputError) as caught:
        parsed(**keys)
    assert caught.value.path == PATH + where
    assert why in str(caught.value)
    assert len(caught.value.each) == 1


def test_all_errors_come_at_once():
    with pytest.raises(InputError) as caught:
        parsed(max_size=2, max_delay_s=-1, marginal="x", delay=3)
    assert sorted(error.path for error in caught.value.each) == [
        f"{PATH}.{k}" for k in ("delay", "marginal", "max_delay_s")
    ]
