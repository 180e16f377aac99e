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

from shadowsim.errors import Collector, InputError
from shadowsim.scenario.fields import Block

INVOCATIONS, CONCURRENCY = "InvocationsPerInstance", "ConcurrentRequestsPerModel"
METRICS: Mapping[str, str] = MappingProxyType(
    {
        INVOCATIONS: INVOCATIONS,
        CONCURRENCY: CONCURRENCY,
        "SageMakerVariantInvocationsPerInstance": INVOCATIONS,
        "SageMakerVariantConcurrentRequestsPerModelHighResolution": CONCURRENCY,
    }
)
KEYS = (
    *("metric", "target", "min", "max", "scale_out_cooldown_s", "scale_in_cooldown_s", "out_points", "in_points"),
    "delay_s",
)
COOLDOWN_S = 300.0
MINUTE_S, TICK_S = 60.0, 10.0  # between data points of InvocationsPerInstance and of ConcurrentRequestsPerModel
OUT_POINTS, IN_POINTS = 3, 15
LEAST_TARGET = 1e-6  # so that the number of instances that a count asks for stays an exact float
MAX_INSTANCES = 10_000_000
MAX_POINTS = 1440  # a day of minutes, the longest that a CloudWatch alarm evaluates


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
    errors = Collector()
    with errors:
        block.only(KEYS)
    with errors:
        metric = METRICS[block.choice("metric", None, tuple(METRICS))]
    with errors:
        target = block.number("target", least=LEAST_TARGET)
    with errors:
        least = block.integer("min", least=1, most=MAX_INSTANCES)
    with errors:
        most = block.integer("max", least=1, most=MAX_INSTANCES)
    with errors:
        out_cooldown_s = block.number("scale_out_cooldown_s", COOLDOWN_S, least=0.0)
    with errors:
        in_cooldown_s = block.number("scale_in_cooldown_s", COOLDOWN_S, least=0.0)
    with errors:
        out_points = block.integer("out_points", OUT_POINTS, least=1, most=MAX_POINTS)
    with errors:
        in_points = block.integer("in_points", IN_POINTS, least=1, most=MAX_POINTS)
    with errors:
        delay_s = block.number("delay_s", 0.0, least=0.0)
    errors.check()
    if most < least:
        raise InputError(block.at("max"), f"must be at least `min`, which is {least}", most)
    return ScalingPolicy(metric, target, least, most, out_cooldown_s, in_cooldown_s, out_points, in_points, delay_s)
