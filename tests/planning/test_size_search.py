"""How often a verdict on a count is wrong, with figures drawn from a normal law whose mean is known."""

import numpy as np
import pytest
from scipy import stats

from shadowsim.planning.load import Length
from shadowsim.planning.size_search import CLEAR, MET, MISSED, OPEN, CountTried, Trials, looks_of
from shadowsim.planning.slo import parse_slo

GOALS = parse_slo("mean <= 1 and wait_mean <= 2").goals

MINUTE = Length(60.0, 60.0)


def a_bench(means, seed=0, *, own_error=np.nan, length=MINUTE, goals=GOALS, theory=lambda n: None):
    """Figures of count n are normal around means[n], the same deviates for every count."""
    calls = []

    def once(n, horizon_s, r):
        calls.append((n, horizon_s, r))
        values = means[n] + np.random.default_rng([seed, r]).normal(0.0, 0.1, len(goals))
        return np.array([values, np.full(len(goals), own_error)])

    return Trials(once, lambda n: length, goals, theory), calls


def test_it_is_looked_at_in_doubling_steps():
    assert looks_of(24) == [3, 6, 12, 24]
    assert looks_of(10) == [3, 6, 10]
    assert looks_of(3) == [3]


@pytest.mark.slow
@pytest.mark.parametrize(("mean", "wrong"), [(1.0, MET), (1.0, MISSED)])
def test_a_count_at_its_limit_is_called_wrongly_no_more_often_than_promised(mean, wrong):
    """The worst case for both: an error is one-sided, of level 0.1 at most, here with a binomial bound of 1e-4."""
    n, level = 1000, 0.1
    goals = parse_slo("mean <= 1").goals
    calls = [a_bench({1: mean}, seed, goals=goals)[0].settle([1], goals, level, 12)[0] for seed in range(n)]
    assert 0 < calls.count(wrong) <= stats.binom.ppf(1 - 1e-4, n, level)


def test_a_count_is_settled_by_as_many_runs_as_it_takes():
    bench, calls = a_bench({1: 0.5, 2: 1.0})
    assert bench.settle([1, 2], parse_slo("mean <= 1").goals, 1e-3, 24) == [MET, OPEN]
    assert len(bench.trials[1].values) == 6
    assert len(bench.trials[2].values) == 24
    look = [np.searchsorted(looks_of(24), r, side="right") for _, _, r in calls[2:]]
    assert look == sorted(look)  # together, look by look
    assert len(set(calls)) == len(calls) == 30  # no run is made twice
    assert bench.trials[2].error == pytest.approx(bench.trials[2].values.std(axis=0, ddof=1) / np.sqrt(24))


def test_one_run_does_where_its_own_error_is_clear():
    bench, calls = a_bench({1: 0.5, 2: 5.0}, own_error=0.4 / CLEAR)
    assert bench.settle([1, 2], GOALS, 0.05, 24) == [MET, MISSED]
    assert len(calls) == 2
    for error in (0.7 / CLEAR, np.nan):
        unclear, _ = a_bench({1: 0.5, 2: 1.5}, own_error=error)
        assert [unclear.trial(n).state(GOALS[:1], 0.05) for n in (1, 2)] == [OPEN, OPEN]


def test_any_goal_missed_is_enough_and_an_unknown_figure_is_never_met():
    def state(*values):
        return CountTried(np.array([values] * 3, float), np.full(2, np.nan), 1.0).state(GOALS, 0.05)

    assert [state(0.5, 0.5), state(0.5, 3.0), state(3.0, 0.5), state(np.nan, 0.5)] == [MET, MISSED, MISSED, MISSED]


def test_a_short_run_can_only_miss():
    length = Length(60.0, 600.0)
    missed, calls = a_bench({1: 5.0}, own_error=0.1, length=length)
    assert missed.trial(1).state(GOALS, 0.05) == MISSED
    met, more = a_bench({1: 0.5}, own_error=0.01, length=length)
    assert met.trial(1).state(GOALS, 0.05) == MET
    assert ([h for _, h, _ in calls], [h for _, h, _ in more]) == ([60.0], [60.0, 600.0])


def test_a_run_that_could_not_be_long_enough_is_never_met():
    short, _ = a_bench({1: 0.5}, length=Length(60.0, 60.0, enough=False))
    assert short.settle([1], GOALS, 0.05, 3) == [OPEN]
    late, _ = a_bench({1: 5.0}, length=Length(60.0, 60.0, enough=False))
    assert late.settle([1], GOALS, 0.05, 3) == [MISSED]


def test_what_theory_misses_is_not_run():
    bench, calls = a_bench({}, theory=lambda n: np.array([7.0, 8.0]))
    assert bench.settle([1], GOALS, 0.05, 24) == [MISSED]
    assert calls == []
