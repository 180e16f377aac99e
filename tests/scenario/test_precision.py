"""The keys run.warmup_s and run.precision: what they may be, and what is said of what they may not."""

import pytest

from shadowsim import InputError, default_scenario
from shadowsim.scenario.precision import Precision

STEADY = {"traffic": {"process": "poisson", "rate_per_s": 100}, "horizon_s": 14400}
ROLES = ("source", "shadow")


def scenario(**run):
    return default_scenario().replace({**STEADY, **{f"run.{key}": value for key, value in run.items()}})


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (None, None),
        (0.01, Precision("mean", ROLES, 0.01)),
        ({"relative": 0.05}, Precision("mean", ROLES, 0.05)),
        ({"metric": "shadow.p99", "relative": 0.05}, Precision("p99", ("shadow",), 0.05)),
        ({"metric": "p99.9", "relative": 0.05}, Precision("p99.9", ROLES, 0.05)),
        ({"metric": "source.wait_mean", "relative": 0.1, "max_replications": 20},
         Precision("wait_mean", ("source",), 0.1, 20)),
    ],
)  # fmt: skip
def test_a_precision_is_read(written, read):
    assert scenario(precision=written).precision == read


@pytest.mark.parametrize(
    ("written", "path", "why"),
    [
        (0, "run.precision", "0.0001"),
        (1.0, "run.precision", "0.5"),
        ("fine", "run.precision", "number"),
        ({}, "run.precision.relative", "is required"),
        ({"relative": 0.1, "metric": "shadow.p98"}, "run.precision.metric", "is not a metric"),
        ({"relative": 0.1, "metric": "shadow.p9"}, "run.precision.metric", "did you mean"),
        ({"relative": 0.1, "metrik": "p99"}, "run.precision.metrik", "did you mean metric"),
        ({"relative": 0.1, "max_replications": 9}, "run.precision.max_replications", "10"),
    ],
)
def test_a_wrong_precision_is_named(written, path, why):
    with pytest.raises(InputError) as error:
        scenario(precision=written)
    assert path in str(error.value)
    assert why in str(error.value)


@pytest.mark.parametrize(("written", "read"), [(None, 0.0), (0, 0.0), ("10min", 600.0), (60, 60.0), ("auto", "auto")])
def test_a_warm_up_is_read(written, read):
    assert scenario(warmup_s=written).warmup_s == read


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"run.warmup_s": -1}, ">= 0"),
        ({"run.warmup_s": "soon"}, '"auto"'),
        ({"run.warmup_s": 14400}, "must be at most 14280 s"),
        ({"run.warmup_s": 1, "run.period_s": 14400}, "must be at most 0 s"),
        ({"run.warmup_s": "auto", "run.period_s": 120}, "needs at least 200 windows"),
        ({"run.warmup_s": "auto", "traffic": default_scenario().to_dict()["traffic"]}, "has a profile"),
        ({"run.warmup_s": "auto", "traffic": {"process": "trace", "path": "builtin:trace_small"}}, "a recorded trace"),
        ({"run.warmup_s": "auto", "shadow.outages": [{"instance": 0, "at_s": 9, "for_s": 9}]}, "has listed outages"),
        ({"run.warmup_s": "auto", "shadow.scaling": {"metric": "InvocationsPerInstance", "target": 9, "min": 1,
                                                     "max": 3}}, "scales"),
    ],
)  # fmt: skip
def test_a_warm_up_that_cannot_be_is_named(changes, why):
    with pytest.raises(InputError) as error:
        default_scenario().replace(STEADY | changes)
    assert "run.warmup_s" in str(error.value)
    assert why in str(error.value)
