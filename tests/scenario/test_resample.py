"""The length of a bootstrap's blocks follows the rule of Politis and White."""

import math
from pathlib import Path

import numpy as np
import pytest

from shadowsim.scenario.fields import Block
from shadowsim.scenario.resample import Resampling, block_by_rule, gaps, parse_resampling, resampling_note
from shadowsim.scenario.traces import Trace


def trace(gap_s, columns=None):
    gap_s = np.asarray(gap_s, float)
    return Trace(
        np.cumsum(gap_s) - gap_s[0], columns or {}, np.arange(gap_s.size), {}, float(gap_s.sum()), Path("t.csv"), "read"
    )


def autoregressive(rho, n, rng):
    x = rng.normal(size=n)
    for i in range(1, n):
        x[i] = rho * x[i - 1] + math.sqrt(1.0 - rho * rho) * x[i]
    return x


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_the_rule_finds_the_best_length_for_an_autoregressive_series(rho):
    # For an AR(1), sum |k| R(k) / sum R(k) = 2 rho / (1 - rho^2), so that the best mean length is that ratio
    # (2/3 power) times n^(1/3). The estimate from one series varies by some tens of percent: the median of 41 series
    # by a sixth of that. It is asked to lie within a factor of 1.4, a third of the distance to the next rho's value.
    rng, n = np.random.default_rng(11), 4096
    best = (2.0 * rho / (1.0 - rho * rho)) ** (2.0 / 3.0) * n ** (1.0 / 3.0)
    middle = float(np.median([block_by_rule(autoregressive(rho, n, rng)) for _ in range(41)]))
    assert best / 1.4 < middle < best * 1.4


def test_independent_gaps_need_blocks_of_hardly_more_than_one():
    rng = np.random.default_rng(5)
    lengths = [block_by_rule(rng.exponential(size=4096)) for _ in range(41)]
    assert np.median(lengths) < 3.0


@pytest.mark.parametrize("gap_s", [np.ones(100), [1.0], [0.5, 1.5]])
def test_a_series_that_does_not_vary_or_is_short_has_blocks_of_one(gap_s):
    assert block_by_rule(np.asarray(gap_s)) == 1.0


def test_a_block_is_at_most_a_tenth_of_the_trace():
    assert block_by_rule(np.repeat([1.0, 5.0], 500)) <= 100.0


def test_gaps_close_the_circle():
    assert gaps(trace([2.0, 1.0, 3.0])).tolist() == [2.0, 1.0, 3.0]


def test_a_length_in_seconds_counts_the_requests_of_the_trace():
    assert Resampling(mean_block_s=6.0).length(trace([1.0, 2.0, 1.0, 2.0])) == 4.0
    assert Resampling(mean_block_s=1e-3).length(trace([1.0, 2.0])) == 1.0


def test_the_note_says_how_long_blocks_are():
    note = resampling_note(Resampling(mean_block=25), trace(np.ones(1000)), "traffic")
    assert "blocks of 25 on average" in note
    assert "some 40 independent blocks" in note
    assert "Politis" not in note
    assert "Politis" in resampling_note(Resampling(), trace(np.ones(1000)), "traffic")


def test_auto_and_true_are_the_rule_and_false_is_none():
    parsed = [parse_resampling(Block.of({"resample": value}, "traffic")) for value in ("auto", True, {}, False, None)]
    assert parsed == [Resampling(), Resampling(), Resampling(), None, None]
