"""Outages: listed ones in order and apart from each other, or random ones."""

import math

import pytest

from shadowsim.errors import InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.outages import Outage, OutagePlan, parse_outages

PATH = "services.Shadow-01.outages"


def parsed(value):
    return parse_outages(Block("services.Shadow-01", {"outages": value}))


def outage(instance=0, at_s=10, for_s=5, **more):
    return {"instance": instance, "at_s": at_s, "for_s": for_s, **more}


def test_listed_outages_are_ordered_by_time_then_instance():
    plan = parsed([outage(1, "1m", "30s"), outage(2), outage(0), outage(0, 0, 2.5), outage(1, 100)])
    assert plan.listed == (
        Outage(0, 0.0, 2.5),
        Outage(0, 10.0, 5.0),
        Outage(2, 10.0, 5.0),
        Outage(1, 60.0, 30.0),
        Outage(1, 100.0, 5.0),
    )
    assert (plan.mtbf_s, plan.mttr_s) == (math.inf, 0.0)


def test_random_outages_and_none():
    assert parsed({"mtbf_s": "30d", "mttr_s": "5m"}) == OutagePlan((), 2_592_000.0, 300.0)
    assert parsed([]) is None


@pytest.mark.parametrize(
    ("value", "where", "why"),
    [
        ("often", "", "must be a list [...] of outages, or an object with mtbf_s and mttr_s, got 'often'"),
        (5, "", "must be a list [...] of outages"),
        ([5], ".0", "must be an object {...}, got 5"),
        ([{"at_s": 1, "for_s": 1}], ".0.instance", "is required"),
        ([{"instance": 0, "for_s": 1}], ".0.at_s", "is required"),
        ([{"instance": 0, "at_s": 1}], ".0.for_s", "is required"),
        ([outage(-1)], ".0.instance", "must be an integer from 0 to 2147483647, got -1"),
        ([outage(0.0)], ".0.instance", "must be an integer from 0 to 2147483647, got 0.0"),
        ([outage(at_s=-1)], ".0.at_s", "must be a finite number >= 0, got -1"),
        ([outage(at_s=math.nan)], ".0.at_s", "got nan"),
        ([outage(for_s=0)], ".0.for_s", "must be a finite number > 0, got 0"),
        ([outage(for_s="5 minutes")], ".0.for_s", "must be seconds, or have a unit"),
        ([outage(until_s=9)], ".0.until_s", "is not a known key"),
        ({}, ".mtbf_s", "is required"),
        ({"mtbf_s": 0, "mttr_s": 1}, ".mtbf_s", "must be a finite number > 0, got 0"),
        ({"mtbf_s": 1, "mttr_s": -1}, ".mttr_s", "must be a finite number > 0, got -1"),
        ({"mtbf_s": 1, "mttr_s": 1, "mttf_s": 1}, ".mttf_s", "is not a known key; did you mean m"),
    ],
)
def test_bad_input_names_path_constraint_and_value(value, where, why):
    with pytest.raises(InputError) as caught:
        parsed(value)
    errors = {error.path: str(error) for error in caught.value.each}
    assert why in errors[PATH + where]
    assert len(errors) == (2 if value == {} else 1)


@pytest.mark.parametrize("at_s", [12, 15, 10])
def test_outages_of_an_instance_may_not_overlap_or_touch(at_s):
    """One that begins at a repair would find the instance down, and do nothing."""
    with pytest.raises(InputError) as caught:
        parsed([outage(0, 100), outage(0, at_s), outage(0), outage(1, 12)])
    (error,) = caught.value.each
    assert error.path in (f"{PATH}.1.at_s", f"{PATH}.2.at_s")
    assert error.path == f"{PATH}.1.at_s" or at_s == 10
    assert f"must be after the end of this instance's outage from 10 s for 5 s, got {at_s:.1f}" in str(error)
    assert parsed([outage(0, math.nextafter(15, 16)), outage(0)]) is not None


def test_all_errors_come_at_once():
    with pytest.raises(InputError) as caught:
        parsed([outage(-1, -1), outage(0, 1, 0), {}])
    keys = [error.path.removeprefix(f"{PATH}.") for error in caught.value.each]
    assert keys == ["0.instance", "0.at_s", "1.for_s", "2.instance", "2.at_s", "2.for_s"]
