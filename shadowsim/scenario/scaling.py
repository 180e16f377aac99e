"""Reads auto scaling policies: target tracking as Application Auto Scaling does it, with its lateness.

`scaling` in a service lets the variant's number of instances follow its traffic, and begins with its InstanceCount::

    "scaling": {"metric": "InvocationsPerInstance", "target": 1500, "min": 2, "max": 10}, "cold_start_s": "4m"

====================  =================================================================================================
metric                InvocationsPerInstance, requests per minute and instance; or ConcurrentRequestsPerModel, requests
                      present per instance, sampled every 10 s. The names of AWS's predefined metrics are taken, too:
                      SageMakerVariantInvocationsPerInstance, and
                      SageMakerVariantConcurrentRequestsPerModelHighResolution
target                the value of the metric that the policy holds
min, max              bounds on the number of instances; InstanceCount lies within them
scale_out_cooldown_s  after a scale-out no scale-in for so long; 300 if left out
scale_in_cooldown_s   after a scale-in no other for so long; 300 if left out
out_points            successive data points above the target that start a scale-out, 3 if left out; of one minute, or
                      10 s for ConcurrentRequestsPerModel
in_points             successive minutes below 0.9 x target that start a scale-in; 15 if left out
delay_s               from the decision until it takes effect; 0 if left out, but AWS has been seen to take minutes
====================  =================================================================================================

A new instance serves `cold_start_s` after the scale-out takes effect; this is a key of the service beside `scaling`,
since it can differ by instance type. If left out, it is 0, which `Scenario.assumptions` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shadowsim.errors import InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import Integer, Keys, Number, Word

INVOCATIONS, CONCURRENCY = "InvocationsPerInstance", "ConcurrentRequestsPerModel"
METRICS: Mapping[str, str] = MappingProxyType(
    {
        INVOCATIONS: INVOCATIONS,
        CONCURRENCY: CONCURRENCY,
        "SageMakerVariantInvocationsPerInstance": INVOCATIONS,
        "SageMakerVariantConcurrentRequestsPerModelHighResolution": CONCURRENCY,
    }
)
COOLDOWN_S = 300.0
MINUTE_S, TICK_S = 60.0, 10.0  # between data points of InvocationsPerInstance and of ConcurrentRequestsPerModel
OUT_POINTS, IN_POINTS = 3, 15
LEAST_TARGET = 1e-6  # so that the number of instances that a count asks for stays an exact float
MAX_INSTANCES = 10_000_000
MAX_POINTS = 1440  # a day of minutes, the longest that a CloudWatch alarm evaluates


class ScalingKeys(Keys):
    """Keys of `scaling`."""

    title = "Target tracking, as Application Auto Scaling does it; the pool begins with its InstanceCount."
    metric = Word(
        "The metric that the policy holds; the names of AWS's predefined metrics are taken, too.",
        {
            INVOCATIONS: "requests per minute and instance",
            CONCURRENCY: "requests present per instance, sampled every 10 s",
            "SageMakerVariantInvocationsPerInstance": f"the same as {INVOCATIONS}",
            "SageMakerVariantConcurrentRequestsPerModelHighResolution": f"the same as {CONCURRENCY}",
        },
    )
    target = Number("The value of the metric that the policy holds.", least=LEAST_TARGET)
    min = Integer("Fewest instances; at most the variant's InstanceCount.", least=1, most=MAX_INSTANCES)
    max = Integer("Most instances; at least `min` and the variant's InstanceCount.", least=1, most=MAX_INSTANCES)
    scale_out_cooldown_s = Number("After a scale-out no scale-in for so long.", default=COOLDOWN_S, least=0.0)
    scale_in_cooldown_s = Number("After a scale-in no other for so long.", default=COOLDOWN_S, least=0.0)
    out_points = Integer(
        "Successive data points above the target that start a scale-out; of one minute, or of 10 s for "
        "ConcurrentRequestsPerModel.",
        default=OUT_POINTS,
        least=1,
        most=MAX_POINTS,
    )
    in_points = Integer(
        "Successive minutes below 0.9 x target that start a scale-in.", default=IN_POINTS, least=1, most=MAX_POINTS
    )
    delay_s = Number(
        "From a decision until it takes effect; AWS has been seen to take minutes.", default=0.0, least=0.0
    )
    examples = ({"metric": INVOCATIONS, "target": 1500, "min": 2, "max": 10},)


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """The target-tracking policy of a variant.

    Attributes
    ----------
    metric : str
        `INVOCATIONS` or `CONCURRENCY`.
    target : float
        Per instance: requests per minute, or requests present.
    least, most : int
        Bounds on the number of instances.
    out_cooldown_s, in_cooldown_s : float
        Cooldowns from the effect of a scale-out and of a scale-in.
    out_points, in_points : int
        Successive data points that start a scale-out and a scale-in.
    delay_s : float
        From a decision to its effect.
    """

    metric: str
    target: float
    least: int
    most: int
    out_cooldown_s: float = COOLDOWN_S
    in_cooldown_s: float = COOLDOWN_S
    out_points: int = OUT_POINTS
    in_points: int = IN_POINTS
    delay_s: float = 0.0

    @property
    def point_s(self) -> float:
        """Distance of the data points that start a scale-out, in seconds."""
        return TICK_S if self.metric == CONCURRENCY else MINUTE_S


def parse_scaling(block: Block) -> ScalingPolicy:
    """Return the policy that a JSON object describes.

    Raises
    ------
    InputError
        When a key is unknown, or a value breaks its constraint.
    """
    keys = ScalingKeys.read(block)
    if keys.max < keys.min:
        raise InputError(block.at("max"), f"must be at least `min`, which is {keys.min}", keys.max)
    return ScalingPolicy(
        metric=METRICS[keys.metric],
        target=keys.target,
        least=keys.min,
        most=keys.max,
        out_cooldown_s=keys.scale_out_cooldown_s,
        in_cooldown_s=keys.scale_in_cooldown_s,
        out_points=keys.out_points,
        in_points=keys.in_points,
        delay_s=keys.delay_s,
    )
