"""Effects in words, and the service times that cause them."""

import pytest

from shadowsim import InputError
from shadowsim.frames import FIRST_TOKEN, PER_TOKEN
from shadowsim.planning.plan_effects import Effect, ServiceFactors, parse_effect, service_factors
from shadowsim.scenario.tokens import Goodput


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("p99 +5%", Effect("p99", 0.05, True, 0.99)),
        ("p99.9+20ms", Effect("p99.9", 0.02, False, 0.999)),
        ("mean +300us", Effect("mean", 0.0003, False)),
        ("P50 - 1.5 s", Effect("p50", -1.5, False, 0.5)),
        ("error_rate +0.5%", Effect("error_rate", 0.005, False)),
        ("error_rate_4xx +2%", Effect("error_rate_4xx", 0.02, False)),
        ("share(latency > 200ms) +1%", Effect("slo_miss", 0.01, False, 0.2)),
        ("ttft p99 +10%", Effect("p99", 0.1, True, 0.99, measure=FIRST_TOKEN)),
        ("TPOT.p99.9 -2ms", Effect("p99.9", -0.002, False, 0.999, measure=PER_TOKEN)),
        ("tpot mean+5%", Effect("mean", 0.05, True, measure=PER_TOKEN)),
        ("share(ttft > 1s) +1%", Effect("slo_miss", 0.01, False, 1.0, measure=FIRST_TOKEN)),
        ("goodput(ttft <= 1s, tpot<=50ms) -2%", Effect("goodput_miss", 0.02, False, pair=Goodput(1.0, 0.05))),
    ],
)
def test_an_effect_is_read(text, effect):
    parsed = parse_effect(text)
    assert parsed == effect
    assert str(parsed) == text
    assert parse_effect(parsed) is parsed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p98 +5%", "did you mean p9"),
        ("eror_rate +1%", "did you mean error_rate"),
        ("throughput +5%", "must begin with one of mean, p50"),
        ("p99 5%", 'must be METRIC +X% or METRIC +Xms, such as "p99 +5%"'),
        ("p99 +5", "needs a percentage or a time"),
        ("error_rate +5ms", "needs percentage points"),
        ("p99 +0%", "must not be 0"),
        ("p99 -100%", "above -100%"),
        ("error_rate +101%", "at most 100 points"),
        ("share(latency > 0s) +1%", "must have limits > 0"),
        ("share(tpot > 50) +1%", "needs a unit, got 'share(tpot > 50) +1%'; share(tpot > 50ms) or share(tpot > 50s)?"),
        ("ttft p98 +5%", "did you mean ttft p99"),
        ("ttft +5%", "did you mean ttft p99"),
        ("goodput(ttft <= 1s) -2%", "did you mean goodput(ttft <= T, tpot <= U)"),
        ("goodput(ttft <= 1s, tpot <= 50) -2%", "tpot <= 50ms or tpot <= 50s?"),
        ("goodput(ttft <= 1s, tpot <= 5ms) -20ms", "needs percentage points"),
        (5, "must be METRIC"),
    ],
)
def test_what_is_no_effect_is_refused_in_one_line(text, message):
    with pytest.raises(InputError, match="effect") as error:
        parse_effect(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_relative_effect_grows_with_the_metric_and_others_do_not():
    assert parse_effect("p99 +5%").on(2.0) == pytest.approx(0.1)
    assert parse_effect("p99 +20ms").on(2.0) == 0.02
    assert parse_effect("error_rate +0.5%").on(0.1) == 0.005


def queue(factor):
    """Mean time in an M/M/1 queue at load 0.8: it grows faster than the service time, and beyond load 1 for ever."""
    return 0.01, 0.2 * 0.01 * factor / (1.0 - 0.8 * factor) if factor < 1.25 else 1e6


@pytest.mark.parametrize("pct", [5, 50, 1000, -5, -60])
def test_the_factor_makes_a_latency_so_much_longer(pct):
    factors = service_factors(parse_effect(f"mean {pct:+d}%"), queue, is_same_model=True)
    assert factors.none == 1.0
    # found to within a thousandth of the way from 1 to 1 + effect
    way = abs(pct) / 100.0
    exact = (1.0 + pct / 100.0) / (0.2 + 0.8 * (1.0 + pct / 100.0))
    assert factors.effect == pytest.approx(exact, abs=1e-3 * way)
    assert 1.0 < factors.effect < 1.0 + way or 1.0 - way < factors.effect < 1.0


def test_a_model_of_its_own_is_first_made_as_good_as_the_source():
    factors = service_factors(parse_effect("p99 +5%"), lambda factor: (3.0, 2.0 * factor), is_same_model=False)
    assert factors.none == pytest.approx(1.5, abs=1e-3)
    assert factors.effect / factors.none == pytest.approx(1.05, abs=1e-3)


def test_errors_leave_service_times_alone():
    assert (
        service_factors(parse_effect("error_rate +1%"), lambda _: pytest.fail("simulated"), is_same_model=False)
        == ServiceFactors()
    )


def test_a_share_of_late_answers_is_bracketed():
    factors = service_factors(
        parse_effect("share(latency > 1s) +2%"), lambda s: (0.01, 1.0 - 0.99 / s**2), is_same_model=True
    )
    assert 1.0 - 0.99 / factors.effect**2 == pytest.approx(0.03, abs=2e-3 * 2.0)


@pytest.mark.parametrize(
    ("text", "metrics", "message"),
    [
        ("mean +50%", lambda s: (1.0, min(s, 1.2)), "cannot be caused"),
        ("mean -2s", lambda s: (1.0, s), "takes the metric from 1 to -1"),
        ("share(latency > 1s) +50%", lambda s: (0.6, 0.6), "takes the metric from 0.6 to 1.1"),
        ("p99 +5%", lambda s: (float("nan"), float("nan")), "no requests"),
    ],
)
def test_an_effect_that_no_factor_causes_is_an_error(text, metrics, message):
    with pytest.raises(InputError, match=message):
        service_factors(parse_effect(text), metrics, is_same_model=True)
