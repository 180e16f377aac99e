"""Completes what shells cannot know: paths of settings, metrics, instance types. Files are completed by the shell."""

from __future__ import annotations


def metric_names(incomplete: str) -> list[str]:
    """Return the metrics of `compare` that begin so."""
    from shadowsim.frames import PERCENTILES, SHORT_NAMES
    from shadowsim.statistics.metric_rows import TOKEN_QUANTILES

    names = ["mean", *(f"p{100 * q:g}" for q in PERCENTILES.values())]
    names += ["error_rate_4xx", "error_rate_5xx", "error_rate", "slo_miss"]
    of_tokens = ("mean", *(f"p{100 * q:g}" for q in TOKEN_QUANTILES), "slo_miss")
    names += [f"{short}_{name}" for short in SHORT_NAMES.values() for name in of_tokens]
    names += ["paired_mean", "paired_p5", "paired_p50", "paired_p95"]
    return [name for name in names if name.startswith(incomplete)]


def setting_paths(incomplete: str) -> list[str]:
    """Return the paths of --set that begin so, each with its sign =; nothing once the value is being typed."""
    from shadowsim.reference.explain import known_paths
    from shadowsim.scenario.fields import ALIASES
    from shadowsim.scenario.paths import VARIANT_ALIASES

    of_a_service = [path.removeprefix("services.*.") for path in known_paths() if path.startswith("services.*.")]
    paths = [*ALIASES, *(f"{role}.{key}" for role in ("source", "shadow") for key in (*VARIANT_ALIASES, *of_a_service))]
    paths = [path for path in (*paths, *known_paths()) if "*" not in path]  # a number or name must be known
    return [f"{path}=" for path in sorted(set(paths)) if path.startswith(incomplete)]


def instance_types(incomplete: str) -> list[str]:
    """Return the instance types that begin so; of a list by commas, the last."""
    from shadowsim.aws.instances import matching_types

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{t.name}" for t in matching_types("*") if t.name.startswith(last)]
