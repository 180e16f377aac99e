"""Auto scaling policies, by our names of the metrics and by AWS's."""

import math

import pytest

from shadowsim.errors import InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.scaling import CONCURRENCY, INVOCATIONS, ScalingPolicy, parse_scaling

PATH = "services.Shadow-01.scaling"
LEAST = {"metric": INVOCATIONS, "target": 1500, "min": 2, "max": 10}


def parsed(**keys):
    return parse_scaling(Block(PATH, LEAST | keys))


def test_defaults_are_awss():
    assert parsed() == ScalingPolicy(INVOCATIONS, 1500.0, 2, 10, 300.0, 300.0, 3, 15, 0.0)
    nulls = dict.fromkeys(("scale_out_cooldown_s", "scale_in_cooldown_s", "out_points", "in_points", "delay_s"))
    assert parsed(**nulls) == parsed()


def test_everything_given():
    policy = parsed(scale_out_cooldown_s="1m", scale_in_cooldown_s=600, out_points=1, in_points=5, delay_s="3m")
    assert policy == ScalingPolicy(INVOCATIONS, 1500.0, 2, 10, 60.0, 600.0, 1, 5, 180.0)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("InvocationsPerInstance", INVOCATIONS),
        ("SageMakerVariantInvocationsPerInstance", INVOCATIONS),
        ("ConcurrentRequestsPerModel", CONCURRENCY),
        ("SageMakerVariantConcurrentRequestsPerModelHighResolution", CONCURRENCY),
    ],
)
def test_both_names_of_a_metric_are_understood(name, metric):
    assert parsed(metric=name).metric == metric


@pytest.mark.parametrize(
    ("keys", "where", "why"),
    [
        ({"metric": None}, ".metric", "is required"),
        ({"metric": "CPUUtilization"}, ".metric", "must be one of InvocationsPerInstance, ConcurrentRequestsPerModel,"),
        ({"metric": "invocationsperinstance"}, ".metric", "did you mean InvocationsPerInstance?"),
        ({"metric": 5}, ".metric", "must be one of InvocationsPerInstance"),
        ({"target": None}, ".target", "is required"),
        ({"target": 0}, ".target", "must be a finite number >= 1e-06, got 0"),
        ({"target": math.nan}, ".target", "got nan"),
        ({"target": "1500"}, ".target", "got '1500'"),
        ({"min": None}, ".min", "is required"),
        ({"min": 0}, ".min", "must be an integer from 1 to 10000000, got 0"),
        ({"max": None}, ".max", "is required"),
        ({"max": 1.5}, ".max", "must be an integer from 1 to 10000000, got 1.5"),
        ({"min": 5, "max": 4}, ".max", "must be at least `min`, which is 5, got 4"),
        ({"scale_out_cooldown_s": -1}, ".scale_out_cooldown_s", "must be a finite number >= 0, got -1"),
        ({"scale_in_cooldown_s": "soon"}, ".scale_in_cooldown_s", "must be seconds, or have a unit"),
        ({"out_points": 0}, ".out_points", "must be an integer from 1 to 1440, got 0"),
        ({"in_points": 1441}, ".in_points", "must be an integer from 1 to 1440, got 1441"),
        ({"delay_s": math.inf}, ".delay_s", "must be a finite number >= 0, got inf"),
        ({"cooldown_s": 5}, ".cooldown_s", "is not a known key"),
        ({"MinCapacity": 1}, ".MinCapacity", "is not a known key"),
    ],
)
def test_bad_input_names_path_constraint_and_value(keys, where, why):
    with pytest.raises(InputError) as caught:
        parsed(**keys)
    assert caught.value.path == PATH + where
    assert why in str(caught.value)
    assert len(caught.value.each) == 1


def test_all_errors_come_at_once():
    with pytest.raises(InputError) as caught:
        parsed(metric="x", target=-1, min=0, max=0, delay_s=-1, wait=1)
    keys = [error.path.removeprefix(f"{PATH}.") for error in caught.value.each]
    assert keys == ["wait", "metric", "target", "min", "max", "delay_s"]
