"""Values of a scenario's blocks: durations with and without a unit."""

import math

import pytest

from shadowsim import InputError, default_scenario
from shadowsim.quantities import parse_duration
from shadowsim.scenario.fields import Block


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *((3, 3.0), (0.25, 0.25), (0, 0.0)),
        *(("300us", 0.0003), ("300µs", 0.0003), ("30ms", 0.03), ("1.5s", 1.5), (".5s", 0.5), ("1e3s", 1000.0)),
        *(("30m", 1800.0), ("30min", 1800.0), ("2h", 7200.0), ("1d", 86_400.0), ("1w", 604_800.0), (" 5 min ", 300.0)),
    ],
)
def test_a_duration(value: object, seconds: float):
    assert parse_duration(value, "x") == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("1 day", "20 mss", "600", "", "s", "1h30m", "-1s", "1e999s", "1H", "nan s", "1_0s"),
        *(None, True, math.nan, [1]),
    ],
)
def test_no_duration(value: object):
    with pytest.raises(InputError, match=r"^run\.horizon_s: must be ") as caught:
        parse_duration(value, "run.horizon_s")
    assert "\n" not in str(caught.value)
    assert ("or have a unit (us, ms, s, m or min, h, d, w)" in str(caught.value)) == isinstance(value, str)


def test_a_short_name_in_a_file_is_answered_with_its_place():
    with pytest.raises(InputError, match=r"^horizon_s: is not a known key of a file, where it is run\.horizon_s$"):
        Block("", {"horizon_s": "1d"}).only(["run"])
    with pytest.raises(InputError, match="did you mean seeds"):
        Block("run", {"seed": 7}).only(["seeds"])


class TestOfABlock:
    BLOCK = Block("run", {"horizon_s": "1h", "mean_s": "0ms", "long_s": "1 day", "rate_per_s": "5s", "share": "5s"})

    def test_a_key_in_seconds_may_have_a_unit(self):
        assert self.BLOCK.number("horizon_s", above=0.0) == 3600.0
        assert Block("", {"sojourn_s": ["90s", 5]}).numbers("sojourn_s", above=0.0) == (90.0, 5.0)
        with pytest.raises(InputError, match=r"^sojourn_s\.1: must be a finite number > 0, got '0s'"):
            Block("", {"sojourn_s": ["90s", "0s"]}).numbers("sojourn_s", above=0.0)

    @pytest.mark.parametrize(
        ("key", "says"),
        [
            ("mean_s", "run.mean_s: must be a finite number > 0, got '0ms'"),
            ("long_s", "run.long_s: must be seconds, or have a unit"),
            ("rate_per_s", "run.rate_per_s: must be a finite number > 0, got '5s'"),
            ("share", "run.share: must be a finite number > 0, got '5s'"),
        ],
    )
    def test_others_may_not(self, key: str, says: str):
        with pytest.raises(InputError) as caught:
            self.BLOCK.number(key, above=0.0)
        assert str(caught.value).startswith(says)


def test_a_scenario_keeps_what_was_written():
    scenario = default_scenario().replace({"horizon_s": "1h", "shadow.time.mean_s": "20ms"})
    assert scenario.horizon_s == 3600.0
    assert scenario.shadow_service.time.mean == 0.02
    document = scenario.to_dict()
    assert document["run"]["horizon_s"] == "1h"
    assert document["services"]["Shadow-01"]["time"]["mean_s"] == "20ms"
    assert scenario.replace({"seed": 1}).horizon_s == 3600.0
