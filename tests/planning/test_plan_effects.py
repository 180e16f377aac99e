"""Effects in words."""

import pytest

from shadowsim import InputError
from shadowsim.planning.plan_effects import Effect, parse_effect


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
    ],
)
def test_an_effect_is_read(text, effect):
    found = parse_effect(text)
    assert found == effect
    assert str(found) == text
    assert parse_effect(found) is found


@pytest.mark.parametrize(
    ("text", "said"),
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
        ("share(latency > 0) +1%", "must begin with one of"),
        (5, "must be METRIC"),
    ],
)
def test_what_is_no_effect_is_refused_in_one_line(text, said):
    with pytest.raises(InputError, match="effect") as error:
        parse_effect(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_relative_effect_grows_with_the_metric_and_others_do_not():
    assert parse_effect("p99 +5%").on(2.0) == pytest.approx(0.1)
    assert parse_effect("p99 +20ms").on(2.0) == 0.02
    assert parse_effect("error_rate +0.5%").on(0.1) == 0.005
