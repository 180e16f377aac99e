"""How often a verdict on a count is wrong, with figures drawn from a normal law whose mean is known."""

import numpy as np
import pytest
from cases import scenario, service
from scipy import stats

from shadowsim.planning.load import RunLength, demand_of
from shadowsim.planning.size_search import CLEAR, MET, MISSED, OPEN, DesignTried, Search, looks_of
from shadowsim.planning.slo import parse_slo

GOALS = parse_slo("mean <= 1s and wait_mean <= 2s").goals
ONE_GOAL = parse_slo("mean <= 1s").goals

MINUTE = RunLength(60.0, 60.0)
SCENARIO = scenario({"process": "poisson", "rate_per_s": 1.0}, service(), service())
DEMAND = demand_of(SCENARIO, "shadow")


class DrawnSearch(Search):
    """A search whose figures of count n are normal around means[n], with the same deviates for every count."""

    def __init__(self, means, seed=0, *, own_error=np.nan, length=MINUTE, goals=GOALS, overload=None, most=24):
        super().__init__(SCENARIO, "shadow", goals, DEMAND, None, 0.05, 100, most)
        self.means, self.seed, self.own_error, self.run_length, self.overload = means, seed, own_error, length, overload
        self.runs = []

    def replicate(self, n, horizon_s, r):
        self.runs.append((n, horizon_s, r))
        values = self.means[n] + np.random.default_rng([self.seed, r]).normal(0.0, 0.1, len(self.goals))
        return np.array([values, np.full(len(self.goals), self.own_error)])

    def length(self, n):
        return self.run_length

    def overload_figures(self, n):
        return self.overload


def test_looks_come_after_doubling_numbers_of_replications():
    assert looks_of(24) == [3, 6, 12, 24]
    assert looks_of(10) == [3, 6, 10]
    assert looks_of(3) == [3]


@pytest.mark.slow
@pytest.mark.parametrize(("mean", "wrong"), [(1.0, MET), (1.0, MISSED)])
def test_a_count_at_its_limit_is_called_wrongly_no_more_often_than_promised(mean, wrong):
    """The worst case for both: an error is one-sided, of level 0.1 at most, here with a binomial bound of 1e-4."""
    n, alpha = 1000, 0.1
    states = []
    for seed in range(n):
        search = DrawnSearch({1: mean}, seed, goals=ONE_GOAL, most=12)
        search.alpha = alpha
        states.append(search.settle(1, ONE_GOAL))
    assert 0 < states.count(wrong) <= stats.binom.ppf(1 - 1e-4, n, alpha)


def test_a_count_is_settled_by_as_many_runs_as_it_takes():
    search = DrawnSearch({1: 0.5, 2: 1.0})
    search.alpha = 1e-3
    assert [search.settle(n, ONE_GOAL) for n in (1, 2)] == [MET, OPEN]
    assert [len(search.tried[n].values) for n in (1, 2)] == [6, 24]
    assert len(set(search.runs)) == len(search.runs) == 30  # no run is made twice
    assert search.tried[2].error == pytest.approx(search.tried[2].values.std(axis=0, ddof=1) / np.sqrt(24))


def test_one_run_does_where_its_own_error_is_clear():
    search = DrawnSearch({1: 0.5, 2: 5.0}, own_error=0.4 / CLEAR)
    assert [search.settle(n, GOALS) for n in (1, 2)] == [MET, MISSED]
    assert len(search.runs) == 2
    for error in (0.7 / CLEAR, np.nan):
        unclear = DrawnSearch({1: 0.5, 2: 1.5}, own_error=error)
        assert [unclear.try_count(n).state(GOALS[:1], 0.05) for n in (1, 2)] == [OPEN, OPEN]


def test_any_goal_missed_is_enough_and_an_unknown_figure_is_never_met():
    def state(*values):
        return DesignTried(np.array([values] * 3, float), np.full(2, np.nan), 1.0).state(GOALS, 0.05)

    assert [state(0.5, 0.5), state(0.5, 3.0), state(3.0, 0.5), state(np.nan, 0.5)] == [MET, MISSED, MISSED, MISSED]


def test_a_short_run_can_only_miss():
    length = RunLength(60.0, 600.0)
    missed = DrawnSearch({1: 5.0}, own_error=0.1, length=length)
    assert missed.try_count(1).state(GOALS, 0.05) == MISSED
    met = DrawnSearch({1: 0.5}, own_error=0.01, length=length)
    assert met.try_count(1).state(GOALS, 0.05) == MET
    assert [[horizon_s for _, horizon_s, _ in search.runs] for search in (missed, met)] == [[60.0], [60.0, 600.0]]


def test_a_run_that_could_not_be_long_enough_is_never_met():
    length = RunLength(60.0, 60.0, enough=False)
    assert DrawnSearch({1: 0.5}, length=length, most=3).settle(1, GOALS) == OPEN
    assert DrawnSearch({1: 5.0}, length=length, most=3).settle(1, GOALS) == MISSED


def test_a_hopeless_overload_is_not_run():
    search = DrawnSearch({}, overload=np.array([7.0, 8.0]))
    assert search.settle(1, GOALS) == MISSED
    assert search.runs == []


@pytest.mark.parametrize("fewest", range(1, 13))
@pytest.mark.parametrize("rate_per_s", [0.5, 5.0, 50.0])
def test_bisection_finds_the_first_count_that_meets_the_goals_from_any_start(fewest, rate_per_s):
    means = {n: 0.5 if n >= fewest else 1.5 for n in range(1, 101)}
    search = DrawnSearch(means, own_error=0.001, goals=ONE_GOAL)
    search.demand = demand_of(SCENARIO.replace({"rate_per_s": rate_per_s}), "shadow")
    answer = search.fewest()
    assert (answer.n, answer.certain, answer.note) == (fewest, True, "")


def test_a_search_ends_at_the_greatest_count():
    search = DrawnSearch(dict.fromkeys(range(1, 101), 1.5), own_error=0.001, goals=ONE_GOAL)
    answer = search.fewest()
    assert (answer.n, answer.certain) == (None, True)
    assert answer.note.startswith("not with 100 instances: mean 1.5")
    assert len(search.tried) < 20


def test_pools_that_change_are_neither_bisected_nor_judged_by_the_load_law_alone():
    """Batches fill more slowly on more instances; how many instances serve is more than the count."""
    (goal,) = parse_slo("p99 <= 1s").goals
    busy = scenario({"process": "poisson", "rate_per_s": 100.0}, service(), horizon_s=86_400.0)
    batching = {"shadow.batching": {"max_size": 2, "marginal": 0.5, "max_delay_s": 1}}
    outages = {"shadow.outages": {"mtbf_s": "1d", "mttr_s": 60}}
    for changes, monotone, judged in (({}, True, True), (batching, False, False), (outages, True, False)):
        changed = busy.replace(changes)
        search = Search(changed, "shadow", (goal,), demand_of(changed, "shadow"), None, 0.05, 100, 24)
        assert search._is_monotone is monotone
        assert (search.overload_figures(1) is not None) is judged
