"""Completes what shells cannot know: paths of settings, metrics, instance types. Files are completed by the shell."""

from __future__ import annotations

METRICS = (
    *("mean", "p50", "p90", "p95", "p99", "p99.9", "error_rate_4xx", "error_rate_5xx", "error_rate", "slo_miss"),
    *("ttft_mean", "ttft_p50", "ttft_p99", "tpot_mean", "tpot_p95", "tpot_p99", "paired_mean", "paired_p50"),
)


def metric_names(incomplete: str) -> list[str]:
    """Return the metrics of `compare` that begin so."""
    return [name for name in METRICS if name.startswith(incomplete)]


def setting_paths(incomplete: str) -> list[str]:
    """Return the paths of --set that begin so, each with its sign =; nothing once the value is being typed."""
    from shadowsim.scenario.fields import BLOCK_KEYS, SERVICE_KEYS
    from shadowsim.scenario.paths import ALIASES, VARIANT_ALIASES

    paths = [*ALIASES, *(f"{role}.{key}" for role in ("source", "shadow") for key in (*VARIANT_ALIASES, *SERVICE_KEYS))]
    paths += [f"{block}.{key}" for block, keys in BLOCK_KEYS.items() for key in keys]
    return [f"{path}=" for path in sorted(set(paths)) if path.startswith(incomplete)]


def instance_types(incomplete: str) -> list[str]:
    """Return the instance types that begin so; of a list by commas, the last."""
    from shadowsim.aws.instances import matching_types

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{t.name}" for t in matching_types("*") if t.name.startswith(last)]
