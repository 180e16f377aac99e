"""Rehearsals: the experiment judged as `compare` judges it, and shorter ones that stand in for long ones."""

import numpy as np
import pytest
from cases import scenario, service

from shadowsim import InputError, compare, replication
from shadowsim.engine.simulate import run
from shadowsim.planning.plan_effects import parse_effect
from shadowsim.planning.plan_rehearsals import Rehearsal, least_length_s, levels_of, mean_rate, stand_in

POISSON = {"process": "poisson", "rate_per_s": 100.0}
DAY = {"kind": "diurnal", "base_per_s": 50.0, "peak_per_s": 150.0}


def case(traffic=POISSON, shadow=None, **more):
    return scenario(
        traffic,
        service("exponential", 0.02, 2, error_5xx=0.02),
        shadow or service("exponential", 0.021, 2, error_4xx=0.01, error_5xx=0.01, queue_limit=3),
        source_instances=2,
        **({"horizon_s": 400.0, "period_s": 4.0, "sample_requests": 0} | more),
    )


def frames(one):
    result = run(one)
    return {"windows": result.windows, "latency": result.latency}


@pytest.mark.parametrize(
    "text", ["p99 +5%", "p50 +5%", "mean +5%", "error_rate +1%", "error_rate_5xx +1%", "share(latency > 80ms) +1%"]
)
def test_a_rehearsal_is_judged_as_compare_judges_the_run(text):
    effect, base = parse_effect(text), case()
    rehearsal = Rehearsal.of(base, effect, levels_of(0.1, 1))
    rows = [
        compare(frames(replication(base, r)), confidence=0.9, slo_s=0.08).set_index("metric").loc[effect.metric]
        for r in range(3)
    ]
    for r, row in enumerate(rows):
        result = rehearsal.run(r)
        # sums of the windows frame are averages times counts, which rounds
        assert [result.source, result.shadow, result.low, result.high] == pytest.approx(
            [row["source"], row["shadow"], row["low"], row["high"]], rel=1e-9, nan_ok=True
        )
        assert result.n_copies == row["n_shadow"] or effect.metric not in ("error_rate", "error_rate_5xx")
    assert not all(np.isnan(row["low"]) for row in rows)


def evented_case():
    """A batcher that scales and fails, with callers that retry, and a shadow that fails."""
    scaling = {"metric": "InvocationsPerInstance", "target": 2400, "min": 1, "max": 4}
    down = [{"instance": 0, "at_s": 100.0, "for_s": 60.0}]
    batching = {"max_size": 4, "max_delay_s": 0.01, "marginal": 0.2}
    source = service("exponential", 0.02, 2, error_5xx=0.02) | {"batching": batching, "scaling": scaling}
    shadow = service("exponential", 0.021, 2) | {"outages": down}
    changes = {"services.Source": source, "services.Shadow": shadow, "traffic.retries": "standard-2026"}
    return case().replace(changes)


@pytest.mark.parametrize("text", ["p99 +5%", "mean +5%", "error_rate +1%", "error_rate_5xx +1%"])
def test_a_rehearsal_with_events_is_judged_likewise(text):
    effect, base = parse_effect(text), evented_case()
    result = Rehearsal.of(base, effect, levels_of(0.1, 1)).run(0)
    simulated = run(replication(base, 0))
    compared = compare({"windows": simulated.windows, "latency": simulated.latency}, confidence=0.9)
    row = compared.set_index("metric").loc[effect.metric]
    assert [result.source, result.shadow, result.low, result.high] == pytest.approx(
        [row["source"], row["shadow"], row["low"], row["high"]], rel=1e-9, nan_ok=True
    )
    billed = simulated.summary().set_index("role")["billed_instances"]
    assert result.billed == pytest.approx((billed["source"], billed["shadow"]))
    assert result.billed[0] > 2.0  # it has scaled out
    assert result.shadow > 0.1 or not effect.of_errors  # a minute of 400 s without any instance


SERVED = {
    "prompt": {"law": "lognormal", "mean_tokens": 60, "scv": 0.5},
    "output": {"law": "gamma", "mean_tokens": 20, "scv": 0.7},
    "max_sequences": 16,
    "max_step_tokens": 128,
    "kv_tokens": 4000,
    "step": {"base_s": 0.01, "per_prefill_token_s": 0.0002, "per_sequence_s": 0.001, "per_kv_token_s": 1e-6,
             "per_prefill_pair_s": 1e-7, "per_prompt_s": 0.001},
    "before_s": 0.002,
}  # fmt: skip


def token_case(factor=1.0):
    step = {key: seconds * factor for key, seconds in SERVED["step"].items()}
    pools = {"services.Source": {"tokens": SERVED}, "services.Shadow": {"tokens": SERVED | {"step": step}}}
    pair = [{"ttft_s": 0.04, "tpot_s": 0.016}]
    traffic = {"process": "poisson", "rate_per_s": 20.0}
    return case(traffic, horizon_s=2000.0, period_s=20.0).replace(pools | {"run.goodput": pair})


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("ttft p95 +5%", "ttft_p95"),
        pytest.param("tpot p99 +5%", "tpot_p99", marks=pytest.mark.slow),
        ("tpot mean +1ms", "tpot_mean"),
        pytest.param("share(ttft > 40ms) +1%", "ttft_slo_miss", marks=pytest.mark.slow),
        ("goodput(ttft <= 40ms, tpot <= 16ms) -2%", "goodput_miss(ttft <= 0.04 s, tpot <= 0.016 s)"),
    ],
)
def test_a_rehearsal_of_tokens_is_judged_likewise(text, metric):
    base = token_case(1.05)
    result = Rehearsal.of(base, parse_effect(text), levels_of(0.1, 1)).run(0)
    compared = compare(run(replication(base, 0)), confidence=0.9, ttft_slo_s=0.04).set_index("metric")
    row = compared.loc[metric]
    assert [result.source, result.shadow, result.low, result.high] == pytest.approx(
        [row["source"], row["shadow"], row["low"], row["high"]], rel=1e-9
    )


def test_slower_steps_of_the_shadow_are_those_of_a_scenario():
    effect = parse_effect("tpot mean +5%")
    changed = Rehearsal.of(token_case(), effect, levels_of(0.05, 1)).with_shadow(1.25).run(0)
    assert changed == Rehearsal.of(token_case(1.25), effect, levels_of(0.05, 1)).run(0)
    assert changed.shadow > 1.2 * changed.source


def test_the_shadow_alone_is_changed_and_as_a_scenario_would_change_it():
    rehearsal = Rehearsal.of(case(), parse_effect("mean +5%"), levels_of(0.05, 1))
    slower = service("exponential", 0.021 * 1.25, 2, error_4xx=0.01, error_5xx=0.01, queue_limit=3)
    assert rehearsal.with_shadow(1.25).run(0) == Rehearsal.of(
        case(shadow=slower), rehearsal.effect, levels_of(0.05, 1)
    ).run(0)
    assert rehearsal.with_shadow(1.25).run(0).source == rehearsal.run(0).source


def test_errors_are_added_to_the_sources():
    rehearsal = Rehearsal.of(
        case(shadow=service("exponential", 0.02, 2)), parse_effect("error_rate +3%"), levels_of(0.05, 1)
    )
    counts = [rehearsal.with_shadow(1.0, 0.03).sections(r)[0].shadow for r in range(4)]
    hits, n = (
        sum(float(x.sum()) for x in of)
        for of in ([c.errors["error_rate"] for c in counts], [c.requests for c in counts])
    )
    assert hits / n == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / n))


def test_a_share_of_errors_stays_one():
    rehearsal = Rehearsal.of(case(), parse_effect("error_rate -3%"), levels_of(0.05, 1))  # of a source with 2 %
    with pytest.raises(
        InputError, match=r"effect: takes the shadow's shares of errors to 0 \(4XX\) and -0\.01 \(5XX\)"
    ):
        rehearsal.with_shadow(1.0, rehearsal.effect.amount)


def test_looks_are_compares_looks():
    base = case(horizon_s=800.0, period_s=8.0)
    rehearsal = Rehearsal.of(base, parse_effect("mean +5%"), levels_of(0.05, 2))
    result = run(replication(base, 0))
    half = {
        "windows": result.windows[result.windows["time_s"] < 400.0],
        "latency": result.latency[result.latency["section"] < 50],
    }
    rows = [
        compare(f, look=i + 1, looks=2).set_index("metric").loc["mean"]
        for i, f in enumerate((half, frames(replication(base, 0))))
    ]
    rehearsed = rehearsal.run(0)
    assert rehearsed.low == pytest.approx(max(row["low"] for row in rows), rel=1e-9)
    assert rehearsed.high == pytest.approx(min(row["high"] for row in rows), rel=1e-9)


def test_a_profile_is_run_through_faster_at_the_same_rates():
    base = case({"process": "poisson", "profile": DAY}, horizon_s=86_400.0, period_s=60.0)
    for length_s in (86_400.0, 864.0):
        short = stand_in(base, 86_400.0, length_s, 100)
        assert (short.horizon_s, short.n_windows) == (length_s, 100)
        time, rate = short.traffic.knots(length_s)
        long_time, long_rate = base.traffic.knots(86_400.0)
        middle = (np.arange(100) + 0.5) / 100.0
        # a step of 1 / 1000 of a day, at a slope of at most pi x 50 per day
        found, due = np.interp(middle, time / length_s, rate), np.interp(middle, long_time / 86_400.0, long_rate)
        assert np.abs(found - due).max() <= np.pi * 100.0 / 2 / 1000.0
    assert short.traffic.profile.__class__.__name__ == "Steps"


def test_rates_are_those_of_the_scenario_whatever_the_duration():
    """`rate_per_s` scales a profile to a mean over the horizon: another duration must not scale it anew."""
    base = case({"process": "poisson", "rate_per_s": 200.0, "profile": DAY}, horizon_s=86_400.0, period_s=60.0)
    early = stand_in(base, 3600.0, 3600.0, 60)
    assert early.traffic.mean_rate(3600.0) == pytest.approx(mean_rate(base, 3600.0))
    exact = np.trapezoid(*base.traffic.knots(86_400.0)[::-1]) / 86_400.0
    assert exact == pytest.approx(200.0)
    assert mean_rate(base, 7 * 86_400.0) == pytest.approx(200.0, rel=1e-4)
    # at midnight it is at its lowest but three hours: 2 x (100 - 50 cos) per second
    assert mean_rate(base, 3600.0) < 140.0


def test_busier_and_slower_queues_need_longer_rehearsals():
    calm, busy, slow = (
        least_length_s(case({"process": "poisson", "rate_per_s": rate}, service("exponential", mean, 2)), 100)
        for rate, mean in ((50.0, 0.02), (190.0, 0.02), (19.0, 0.2))
    )
    assert calm < busy < slow
    assert least_length_s(case({"process": "poisson", "rate_per_s": 210.0}), 100) == np.inf
