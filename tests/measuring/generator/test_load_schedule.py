"""Plans of load runs: the simulator's own arrivals to the bit, stages, sizes of bodies, and what is refused."""

import numpy as np
import pytest

import shadowsim as ss
from shadowsim.errors import InputError
from shadowsim.measuring.generator.load_schedule import (
    bodies_of,
    load_assumptions,
    load_scenario,
    parse_stages,
    schedule_of,
)


@pytest.mark.parametrize(
    "traffic",
    [
        {"process": "poisson", "rate_per_s": 20},
        {"process": "constant", "rate_per_s": 20},
        {"process": "gamma", "rate_per_s": 20, "scv": 4},
        {"process": "mmpp", "rates_per_s": [5, 50], "mean_sojourn_s": 2},
        {"process": "poisson", "profile": {"kind": "linear", "from_per_s": 0, "to_per_s": 40, "to_s": 25}},
        {"process": "trace", "path": "builtin:trace_small", "speed": 20},
        [{"process": "poisson", "rate_per_s": 9}, {"process": "gamma", "rate_per_s": 9, "scv": 2}],
    ],
    ids=lambda t: "list" if isinstance(t, list) else f"{t['process']}{'-profile' if 'profile' in t else ''}",
)
def test_arrivals_are_those_of_a_simulation_to_the_bit(traffic):
    scenario = ss.default_scenario().replace(
        {"traffic": traffic, "horizon_s": 25, "run.period_s": 10, "run.sample_requests": 10_000, "seed": 5}
    )
    requests = ss.simulate(scenario).requests
    simulated = requests.loc[requests["role"] == "source", "arrival_s"].to_numpy()
    assert np.array_equal(schedule_of(scenario).due_s, simulated)
    assert simulated.size > 100


@pytest.mark.parametrize("rate", [500, 1_000])
def test_poisson_arrivals_are_poisson(rate):
    """Counts within three standard deviations; the SCV of n exponential gaps has the standard error sqrt(8 / n)."""
    due = schedule_of(load_scenario(rate_per_s=rate, duration_s=30)).due_s
    n, gaps = 30 * rate, np.diff(due)
    assert abs(due.size - n) < 3 * n**0.5
    assert abs(gaps.var() / gaps.mean() ** 2 - 1.0) < min(3 * (8 / n) ** 0.5, 0.05)


def test_a_rate_alone_makes_a_scenario():
    scenario = load_scenario(rate_per_s=50, duration_s=10, seed=3, name="my-endpoint")
    assert (scenario.horizon_s, scenario.period_s, scenario.seed) == (10.0, 0.1, 3)
    assert scenario.experiment.to_request()["EndpointName"] == "my-endpoint"
    assert any("no figure uses it" in sentence for sentence in scenario.assumptions)
    assert load_scenario(rate_per_s=1).horizon_s == 60.0
    assert load_scenario(rate_per_s=1, duration_s=3600).period_s == 30.0
    assert load_scenario(changes={"traffic.process": "constant", "rate_per_s": 4}).traffic.process == "constant"


def test_stages_follow_each_other():
    steps = parse_stages("10/s 30s, 600/min 1min,36000/h 500ms")
    assert steps == [(10.0, 30.0), (10.0, 60.0), (10.0, 0.5)]
    steps = [(100.0, 2.0), (0.0, 1.0), (300.0, 2.0)]
    schedule = schedule_of(load_scenario(stages=steps), steps)
    counts = np.bincount(schedule.stage, minlength=3)
    assert counts[1] == 0
    # Poisson: five standard deviations
    assert abs(counts[0] - 200) < 5 * 200**0.5
    assert abs(counts[2] - 600) < 5 * 600**0.5
    assert schedule.due_s[schedule.stage == 2].min() >= 3.0
    assert [(stage.begin_s, stage.end_s) for stage in schedule.stages] == [(0.0, 2.0), (2.0, 3.0), (3.0, 5.0)]


@pytest.mark.parametrize("text", ["", "10/s", "10 30s", "x/s 3s", "10/d 3s", "10/s 0s", "10/s 3parsec", "1/s 1s,"])
def test_other_stages_are_refused(text):
    with pytest.raises(InputError, match=r"stages|duration"):
        parse_stages(text)


def test_a_run_needs_a_rate_and_an_end():
    with pytest.raises(InputError, match="rate_per_s: must be given, or `scenario` or `stages`"):
        load_scenario(duration_s=5)
    with pytest.raises(InputError, match="stages: must not be given together"):
        load_scenario(stages=[(1.0, 1.0)], rate_per_s=3)
    with pytest.raises(InputError, match="at most 10,000,000 requests"):
        schedule_of(load_scenario(rate_per_s=1e6, duration_s=100))
    with pytest.raises(InputError, match="must bring a request within 1 s"):
        schedule_of(load_scenario(rate_per_s=1e-6, duration_s=1))


def test_bodies_have_the_sizes_of_the_scenario():
    law = {"law": "lognormal", "mean_bytes": 2000, "scv": 0.5}
    scenario = load_scenario(rate_per_s=10, changes={"traffic.request_bytes": law})
    sizes = bodies_of(scenario, 20_000).sizes
    # the standard error of the mean of 20,000 draws is 2,000 sqrt(0.5 / 20,000) = 10
    assert abs(sizes.mean() - 2000) < 50
    assert abs(sizes.var() / sizes.mean() ** 2 - 0.5) < 0.05
    assert bodies_of(load_scenario(rate_per_s=1), 5) is None


def test_sizes_follow_a_traces_column():
    traffic = {"process": "trace", "path": "builtin:trace_small",
               "request_bytes": {"law": "linear", "base_bytes": 10, "ContextTokens": 4}}  # fmt: skip
    scenario = ss.default_scenario().replace({"traffic": traffic, "horizon_s": 60})
    tokens = scenario.traffic.trace().columns["ContextTokens"]
    assert bodies_of(scenario, 3).sizes.tolist() == (10 + 4 * tokens).astype(int).tolist()


def test_what_is_not_used_is_said():
    scenario = load_scenario(rate_per_s=10, changes={"traffic.retries": "standard"})
    assert any("retries: not used" in sentence for sentence in load_assumptions(scenario).assumptions)
