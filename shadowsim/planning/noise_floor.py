"""Measures the noise floor of a test: the differences that it shows between a variant and itself.

`noise_floor(scenario)` runs an A/A test several times: the source's model stands in for the shadow. As in the real
test, both receive the same arrivals and draw everything else independently.

The shadow must be truly equal, so its instances must be as busy as the source's. Under RANDOM routing, a coin that
copies a share s of the requests to s times as many instances achieves that, with as few copies as the real test. If s
times the source's instances is not a whole number, or the routing looks at queues, or the rule is not a coin, or the
source scales or fails, no pool for a share is equal: then every request is copied, to as many instances as the source
has, and the shadow's part of the noise is that of a test with all copies. The column `sampling_percentage` tells which
case holds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.engine.replicate import replicate
from shadowsim.errors import InputError
from shadowsim.option_defaults import NOISE_FLOOR_RUNS
from shadowsim.quantities import integer
from shadowsim.scenario.routing import splits_independently
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.comparison import compare
from shadowsim.statistics.terms import CONFIDENCE, MARGIN_PCT, MARGIN_POINTS, OUTCOMES, limits_of, terms_of
from shadowsim.verdict import TOO_SHORT


def noise_floor(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    *,
    margin_pct: float = MARGIN_PCT,
    margin_points: float = MARGIN_POINTS,
    confidence: float = CONFIDENCE,
    slo_s: float | str | None = None,
    ttft_slo_s: float | str | None = None,
    tpot_slo_s: float | str | None = None,
    replications: int | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Compare the source with itself over independent runs.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        The shadow's model is not used; see `as_aa_test` for the pool.
    margin_pct, margin_points, confidence, slo_s, ttft_slo_s, tpot_slo_s
        As for `compare`, which compares each run.
    replications : int, optional
        Number of runs, at least 2; by default the scenario's `run.replications`, or 10 if that is 1.
    workers, executor, progress
        As for `replicate`.

    Returns
    -------
    DataFrame
        One row per metric of `compare`, with the columns

        metric, unit : "s" or "share"
        value : float
            The source's estimate, as the mean over the runs.
        typical, most : float
            Median and 95 % quantile over the runs of the absolute difference, in the row's unit.
        typical_pct, most_pct : float
            Both in per cent of `value`; NaN for shares.
        worse, better, same, not_enough : float
            Share of the runs with each outcome; `worse` and `better` are false alarms.
        n_source, n_shadow : float
            Mean number of requests of a run.
        n : int
            Number of runs.
        too_short : float
            Share of the runs that are TOO SHORT: their quantiles say little.
        sampling_percentage, instance_count : int
            Those of the simulated shadow.

    Raises
    ------
    InputError, ValidationError
        When the scenario or a parameter cannot be used.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 50}
    >>> floor = ss.noise_floor(ss.default_scenario().replace({"traffic": traffic, "horizon_s": 600}), replications=2)
    >>> int(floor.set_index("metric").loc["p50", "n"])
    2
    """
    asked = Scenario.of(scenario)
    if asked.experiment.sampling_percentage == 0:
        raise InputError("sampling_percentage", "must be > 0: nothing is copied, so there is no noise to measure", 0)
    equal = as_aa_test(asked)
    n = replications if replications is not None else equal.replications if equal.replications > 1 else NOISE_FLOOR_RUNS
    integer(n, "replications", least=2)
    # Both before the runs, which take long.
    terms_of(margin_pct, margin_points, confidence)
    limits_of(slo_s, ttft_slo_s, tpot_slo_s)
    terms: dict[str, Any] = {"margin_pct": margin_pct, "margin_points": margin_points, "confidence": confidence}
    terms |= {"slo_s": slo_s, "ttft_slo_s": ttft_slo_s, "tpot_slo_s": tpot_slo_s}
    tables, n_short = [], 0
    for run in replicate(equal, n, workers=workers, executor=executor, progress=progress):
        n_short += run.verdict.status == TOO_SHORT
        tables.append(compare(run, **terms))
    floor = pd.DataFrame([_row(str(m), rows) for m, rows in pd.concat(tables).groupby("metric", sort=False)])
    floor["too_short"] = n_short / n
    floor["sampling_percentage"] = equal.experiment.sampling_percentage
    floor["instance_count"] = equal.experiment.shadow.pool.instance_count
    floor.attrs["horizon_s"] = equal.horizon_s
    return floor


def as_aa_test(scenario: Scenario) -> Scenario:
    """Return the scenario with a shadow equal to the source, as the module describes; no requests are kept."""
    source, shadow = scenario.experiment.source, scenario.experiment.shadow
    routing = scenario.routing[source.name]
    instances_pct = source.pool.instance_count * scenario.experiment.sampling_percentage
    thinned = (
        splits_independently(routing)
        and scenario.mirror_rule == "coin"
        and not (scenario.source_service.scaling or scenario.source_service.outages)
        and instances_pct > 0
        and instances_pct % 100 == 0
    )
    services = scenario.document["services"]
    assert isinstance(services, Mapping)  # a valid scenario has them
    return scenario.replace(
        {
            f"services.{shadow.name}": services[source.name],
            "shadow.model_name": source.model_name,
            "shadow.instance_type": source.pool.instance_type,
            "shadow.instance_count": instances_pct // 100 if thinned else source.pool.instance_count,
            "sampling_percentage": scenario.experiment.sampling_percentage if thinned else 100,
            "endpoint.routing": routing,
            "run.sample_requests": 0,
        }
    )


def other_share_text(scenario: Scenario) -> str | None:
    """Return a sentence on the share that the runs have in place of the scenario's; None where they have its own."""
    asked, measured = (s.experiment.sampling_percentage for s in (scenario, as_aa_test(scenario)))
    if asked in (0, measured):  # of 0 % there is no noise to measure
        return None
    return (
        f"sampling_percentage: {measured} % in place of {asked} %, for which no pool is as busy as the source's. "
        "A test with fewer copies has more noise."
    )


def _row(metric: str, rows: pd.DataFrame) -> dict[str, Any]:
    unit, value = rows["unit"].iloc[0], float(rows["source"].mean())
    distance = rows["difference"].abs().dropna().to_numpy(np.float64)
    typical, most = (float(np.quantile(distance, q)) if distance.size else np.nan for q in (0.5, 0.95))
    pct = 100.0 / value if unit == "s" and value > 0.0 else np.nan
    return {
        "metric": metric,
        "unit": unit,
        "value": value,
        "typical": typical,
        "most": most,
        "typical_pct": typical * pct,
        "most_pct": most * pct,
        **{outcome: float((rows["outcome"] == outcome).mean()) for outcome in OUTCOMES},
        "n_source": float(rows["n_source"].mean()),
        "n_shadow": float(rows["n_shadow"].mean()),
        "n": len(rows),
    }
