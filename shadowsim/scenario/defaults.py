"""Holds default values, the built-in scenario, and the scenario that a plain request stands for.

A CreateInferenceExperiment request gives instances and the share to copy, but neither traffic nor service times. Every
value that is assumed instead comes with a sentence, which the caller can read and the command line prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shadowsim.aws.experiment import Experiment
from shadowsim.aws.instances import lookup
from shadowsim.aws.request_sources import RequestSource
from shadowsim.errors import Collector, InputError
from shadowsim.scenario.fields import ALIASES, BLOCKS
from shadowsim.scenario.paths import edited, plain, target_of
from shadowsim.scenario.reading import BLOCK_KEYS, RunKeys
from shadowsim.scenario.service import ServiceKeys

KEY_NAMES: Mapping[str, Sequence[str]] = {
    **{block: tuple(keys.declared()) for block, keys in BLOCK_KEYS.items()},
    "services": (*ServiceKeys.declared(), "by_instance_type"),
}
ENDPOINT: dict[str, object] = {name: key.default for name, key in BLOCK_KEYS["endpoint"].declared().items()}
MIRROR: dict[str, object] = {name: key.default for name, key in BLOCK_KEYS["mirror"].declared().items()}
RUN: dict[str, object] = {
    name: RunKeys.declared()[name].default
    for name in ("horizon_s", "period_s", "seed", "sample_requests", "replications")
}
TIME: dict[str, object] = {"law": "lognormal", "mean_s": 0.02, "scv": 0.25}
DRAFT_RATE_PER_S = 100.0


def is_request(document: Mapping[str, object]) -> bool:
    """Return whether the document is a request rather than a scenario: only AWS's names begin in upper case."""
    return not any(key in BLOCKS for key in document) and any(str(key)[:1].isupper() for key in document)


def builtin_document() -> dict[str, object]:
    """Return the built-in scenario: a day of 34.6 million requests on four ml.m5.xlarge, half of them copied to two.

    Its mean rate is 400 requests per second, and the peak at 15:00 is 1.6 times that.
    """
    profile = {"kind": "diurnal", "base_per_s": 160.0, "peak_per_s": 640.0, "peak_hour": 15.0, "weekend_factor": 1.0}
    return {
        "experiment": {
            "Name": "built-in",
            "Type": "ShadowMode",
            "RoleArn": "arn:aws:iam::111122223333:role/shadowsim",
            "EndpointName": "built-in",
            "ModelVariants": [
                _variant("AllTraffic", "model", "ml.m5.xlarge", 4),
                _variant("Shadow-01", "model-candidate", "ml.m5.xlarge", 2),
            ],
            "ShadowModeConfig": {
                "SourceModelVariantName": "AllTraffic",
                "ShadowModelVariants": [{"ShadowModelVariantName": "Shadow-01", "SamplingPercentage": 50}],
            },
        },
        "traffic": {"process": "poisson", "rate_per_s": None, "profile": profile},
        "services": {"AllTraffic": _service(4), "Shadow-01": _service(4)},
        "endpoint": dict(ENDPOINT),
        "mirror": dict(MIRROR),
        "run": {**RUN, "horizon_s": 86_400.0},
    }


def draft_document(found: RequestSource, experiment: Experiment) -> dict[str, object]:
    """Return a scenario for the request of a source with every main key spelled out, to be edited.

    Workers are null, which means the instance type's, or 1 for an unknown type.
    """
    services: dict[str, object] = {}
    for variant in (experiment.source, experiment.shadow):
        services[variant.name] = _service(None if lookup(variant.pool.instance_type).workers else 1)
    return {
        "experiment": dict(found.request),
        "traffic": {"process": "poisson", "rate_per_s": DRAFT_RATE_PER_S},
        "services": services,
        "endpoint": ENDPOINT | ({"routing": dict(found.routing)} if found.routing else {}),
        "mirror": dict(MIRROR),
        "run": dict(RUN),
    }


def assumed_document(request: Mapping[str, object], experiment: Experiment) -> tuple[dict[str, object], dict[str, str]]:
    """Return the scenario of a request, still without a rate, and what was assumed: one sentence per path."""
    names = [experiment.source.name, experiment.shadow.name]
    document = {
        "experiment": dict(request),
        "traffic": {"process": "poisson", "rate_per_s": None},
        "services": {name: {"time": dict(TIME)} for name in names},
    }
    assumed = {"traffic": "traffic: Poisson at a steady rate."}
    for name in names:
        assumed[f"services.{name}.time"] = f"{name}: service times are lognormal with mean 20 ms and scv 0.25."
        assumed[f"services.{name}.workers"] = f"{name}: one worker per accelerator, or else per vCPU."
    return document, assumed


def requested_document(found: RequestSource, changes: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """Return the scenario of a source's request, changed, and what was assumed.

    Raises
    ------
    InputError
        It has no rate of traffic.
    """
    experiment = Experiment.from_request(found.request)
    document, assumed = assumed_document(found.request, experiment)
    if found.routing:
        document["endpoint"] = {"routing": dict(found.routing)}
    assumed = {**found.assumed, **assumed}
    bare = document["traffic"]
    document, assumed = changed_document(document, assumed, experiment, changes)
    if document["traffic"] == bare:
        constraint = "is required for a plain request, which does not say how much traffic there is (--rate R)"
        raise InputError("rate_per_s", constraint)
    return document, assumed


def changed_document(
    document: Mapping[str, object], assumed: Mapping[str, str], experiment: Experiment, changes: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, str]]:
    """Return a scenario with changes made, by full paths or aliases, and the assumptions that still hold."""
    names = {"source": experiment.source.name, "shadow": experiment.shadow.name}
    changed, still, errors = dict(document), dict(assumed), Collector()
    for path in changes:
        with errors:
            target_of(path, document, names, KEY_NAMES)
    errors.check()
    for path, value in changes.items():
        target = target_of(path, document, names, KEY_NAMES)
        if _overlap(target, "experiment.Schedule") and "run.horizon_s" in still:
            # The horizon was derived from the Schedule.
            changed = edited(changed, "run.horizon_s", None)
            del still["run.horizon_s"]
        traffic = changed.get("traffic")
        if target == ALIASES["rate_per_s"] and isinstance(traffic, list):
            raise _many_rates(path, len(traffic))
        changed = edited(changed, target, plain(value))
        if target != ALIASES["rate_per_s"]:  # a rate leaves the assumed kind of traffic
            still = {at: text for at, text in still.items() if not _overlap(at, target)}
    return changed, still


def _many_rates(path: str, n: int) -> InputError:
    shown = ", ".join(f"traffic.{i}.rate_per_s" for i in range(min(n, 3))) + (", ..." if n > 3 else "")
    return InputError(path, f"sets the rate of a single block, but traffic is a list: set {shown}")


def _overlap(a: str, b: str) -> bool:
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def _variant(name: str, model: str, instance_type: str, instance_count: int) -> dict[str, object]:
    pool = {"InstanceType": instance_type, "InstanceCount": instance_count}
    infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool}
    return {"ModelName": model, "VariantName": name, "InfrastructureConfig": infrastructure}


def _service(workers: int | None) -> dict[str, object]:
    return {
        "time": dict(TIME),
        "workers": workers,
        "queue_limit": None,
        "slowdown": None,
        "error_4xx": 0.0,
        "error_5xx": 0.0,
    }
