"""Formulas of queueing theory beside the simulated: against printed values, against runs, and where there is none."""

import math

import pytest
from aa_pairs import alike
from cases import scenario, service

from shadowsim import simulate
from shadowsim.planning.queueing_theory import erlang_c, queueing_model

POISSON = {"process": "poisson", "rate_per_s": 30.0}


def case(law="exponential", workers=4, traffic=POISSON, share=100, **changes):
    laws = {} if law in ("exponential", "deterministic") else {"scv": 0.5}
    both = [service(law, 0.1, workers, **laws) for _ in range(2)]
    made = scenario(traffic, *both, share=share, horizon_s=20_000.0, period_s=50.0, sample_requests=20_000)
    return made.replace(changes) if changes else made


@pytest.mark.parametrize(
    ("servers", "offered", "waits"), [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (3, 2.0, 4 / 9), (5, 4.0, 0.5541)]
)
def test_erlangs_c(servers, offered, waits):
    """One server: its load. Two and three: by hand, a^c / c! / (1 - rho) over the sum. Five at 4 erlangs: tabled."""
    assert erlang_c(servers, offered) == pytest.approx(waits, abs=5e-5)


def test_erlangs_c_of_many_servers_does_not_overflow():
    assert 0.0 < erlang_c(5000, 4950.0) < 1.0


@pytest.mark.parametrize(
    ("law", "workers", "name", "wait_s", "waits"),
    [
        ("exponential", 1, "M/M/1 (Erlang C)", 0.6 * 0.1 / 0.4, 0.6),
        ("deterministic", 1, "M/G/1 (Pollaczek-Khinchine)", 0.5 * 0.6 * 0.1 / 0.4, 0.6),
        ("lognormal", 1, "M/G/1 (Pollaczek-Khinchine)", 0.75 * 0.6 * 0.1 / 0.4, 0.6),
        ("exponential", 2, "M/M/2 (Erlang C)", 0.45 / 1.3 * 2 * 0.6 * 0.1 / (2 * 0.4), None),
    ],
)
def test_a_run_agrees_with_the_formula(law, workers, name, wait_s, waits):
    rate = 0.6 * workers / 0.1
    run = simulate(case(law, workers, {"process": "poisson", "rate_per_s": rate}))
    table = run.theory().set_index(["role", "figure"])
    for role in ("source", "shadow"):
        assert set(table["model"]) == {name}
        assert table["exact"].all()
        if workers == 1:
            assert table.loc[(role, "wait_mean_s"), "theory"] == pytest.approx(wait_s)
            assert table.loc[(role, "wait_share"), "theory"] == pytest.approx(waits)
        for figure in ("wait_mean_s", "mean_s", "wait_share"):
            row = table.loc[(role, figure)]
            # four standard errors, and a quarter more: ten to thirty batches do not know them better
            assert abs(row["simulated"] - row["theory"]) < 5.0 * row["standard_error"]
            assert row["standard_error"] < 0.03 * row["theory"]


def test_instances_under_random_routing_are_queues_of_their_own():
    one, many = case(share=50), case(share=50, **{"source.instance_count": 2})
    assert queueing_model(many, "source").wait_s == pytest.approx(queueing_model(one, "shadow").wait_s)
    assert queueing_model(many, "source").name == "M/M/4 (Erlang C)"


def test_an_approximation_is_called_one():
    model = queueing_model(case("lognormal"), "source")
    assert (model.name, model.exact) == ("M/G/4 (Allen-Cunneen's approximation)", False)
    assert math.isnan(model.wait_share)
    gamma = {"process": "gamma", "rate_per_s": 30.0, "scv": 2.0}
    exact, thin = queueing_model(case(), "source"), queueing_model(case(traffic=gamma, share=50), "shadow")
    assert thin.name.startswith("G/G/4")
    half = queueing_model(case(share=50), "shadow")
    assert thin.wait_s == pytest.approx(half.wait_s * (1.0 + 0.5 * (2.0 - 1.0) + 1.0) / 2.0)
    assert exact.exact


@pytest.mark.parametrize(
    "changes",
    [
        {"source.queue_limit": 5},
        {"source.slowdown": [1.0, 1.5]},
        {"source.batching": {"max_size": 4, "max_delay_s": 0.01, "marginal": 0.5}},
        {"source.outages": [{"instance": 0, "at_s": 9, "for_s": 9}]},
        {"traffic": {**POISSON, "retries": "standard"}},
        {"traffic": {"process": "mmpp", "rates_per_s": [10, 50], "mean_sojourn_s": 10}},
        {"traffic": {**POISSON, "profile": {"kind": "linear", "from_per_s": 1, "to_per_s": 3, "to_s": 100}}},
        {"traffic": {"process": "poisson", "rate_per_s": 41.0}},
        {"source.instance_count": 2, "endpoint.routing": "LEAST_OUTSTANDING_REQUESTS"},
    ],
)
def test_there_is_none_where_it_would_be_wrong(changes):
    assert queueing_model(case(**changes), "source") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"mirror.max_in_flight": 5},
        {"mirror.max_per_s": 5},
        {"mirror.instant": "response"},
        {"mirror.rule": "counter", "sampling_percentage": 50},
        {"sampling_percentage": 0},
    ],
)
def test_the_shadow_has_none_where_its_copies_are_not_poisson(changes):
    made = case(**changes)
    assert queueing_model(made, "shadow") is None
    assert queueing_model(made, "source") is not None


def test_a_single_instance_makes_no_choice_and_cut_off_latencies_have_no_formula():
    least = case(**{"endpoint.routing": "LEAST_OUTSTANDING_REQUESTS"})
    assert queueing_model(least, "source").name == "M/M/4 (Erlang C)"
    figures = simulate(alike("exponential", 0.7, 20_000, 1, sample_requests=100)).scenario
    cut = simulate(figures.replace({"endpoint.timeout_s": 0.3})).theory()
    assert "mean_s" not in set(cut["figure"])
    assert "wait_mean_s" in set(cut["figure"])
