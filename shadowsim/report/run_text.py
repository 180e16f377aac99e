"""What a command says of its runs: of one alone, or of several under different seeds with how far they spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.engine.replicate import summarise, worst, worst_by_variant
from shadowsim.planning.slo import Slo
from shadowsim.result import Result
from shadowsim.text import (
    LABELS,
    OVERLOADED,
    count,
    grid,
    of_overload,
    percent,
    seconds,
    short_name,
    significant,
    size,
    summary_table,
    wrapped,
)

Shown = Callable[[float], str]

_POOL_KEYS = ("peak_load", "from_s", "to_s", "n_stretches", "instances_needed", "why")


def results_text(results: Sequence[Result]) -> str:
    """Return the figures and the verdict of one run; of several, means with half-widths and the worst verdict."""
    many = len(results) > 1
    table = _spread_table(results) if many else summary_table(results[0])
    said = f"worst of {len(results)} replications: " if many else ""
    return f"{table}\n\n{wrapped(f'{said}{worst(results)}')}"


def results_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Return `Result.summary` of one run; of several, `summarise`. Both are indexed by variant."""
    return summarise(results).set_index("variant") if len(results) > 1 else results[0].summary()


def results_object(results: Sequence[Result]) -> dict[str, object]:
    """Return the figures for JSON: of several runs {"mean": ..., "half_width": ...} each; NaN for what is none."""
    one = _summary_object(results[0])
    if len(results) == 1:
        return one
    statuses, variants = worst_by_variant(results), []
    for (variant, role), part in summarise(results).groupby(["variant", "role"], sort=False):
        found: dict[str, object] = {"variant": variant, "role": role, "verdict": statuses[str(variant)]}
        for figure, mean, half in zip(part["figure"], part["mean"], part["half_width"], strict=True):
            found[figure] = {"mean": mean, "half_width": half}
        variants.append(found)
    gravest = worst(results)
    several = {"seed": [result.scenario.seed for result in results], "replications": len(results)}
    return one | several | {"verdict": gravest.status, "why": str(gravest), "variants": variants}


def goals_frame(slo: Slo, results: Sequence[Result]) -> pd.DataFrame:
    """Return what runs say about goals: `Slo.evaluate` of one run; of several, means, with errors between the runs."""
    frames = [slo.evaluate(result) for result in results]
    if len(frames) == 1:
        return frames[0]
    values = np.array([frame["value"] for frame in frames])  # shape (runs, goals)
    mean = values.mean(axis=0)  # NaN where one run cannot say
    return frames[0].assign(
        value=mean,
        standard_error=values.std(axis=0, ddof=1) / math.sqrt(len(frames)),
        margin=[goal.margin(value) for goal, value in zip(slo.goals, mean, strict=True)],
        met=[goal.met(value) for goal, value in zip(slo.goals, mean, strict=True)],
    )


def _summary_object(result: Result) -> dict[str, object]:
    """Return a run's figures for JSON: a summary a variant with what the verdict says of it; NaN for what is none."""
    judged = {p.variant: p for p in result.verdict.pools}
    variants: list[dict[Any, object]] = []
    for row in result.summary().reset_index().to_dict("records"):
        pool = judged[row["variant"]]
        variants.append(row | {key: getattr(pool, key) for key in _POOL_KEYS})
    scenario = result.scenario
    return {
        "scenario": scenario.experiment.name,
        "seed": scenario.seed,
        "horizon_s": scenario.horizon_s,
        "sampling_percentage": scenario.experiment.sampling_percentage,
        "assumptions": list(scenario.assumptions),
        "verdict": result.verdict.status,
        "why": str(result.verdict),
        "variants": variants,
    }


def _spread_table(results: Sequence[Result]) -> str:
    show: list[Shown] = [lambda x: count(round(x)), lambda x: f"{significant(x, 4)}/s", lambda x: percent(x, 3)]
    show += [seconds] * (len(LABELS) - 9) + [percent, _share_of_errors, size]
    columns = [[label if label != "verdict" else "worst verdict" for label in LABELS]]
    statuses, capture = worst_by_variant(results), results[0].scenario.capture
    for (variant, role), part in summarise(results).groupby(["variant", "role"], sort=False):
        status = statuses[str(variant)]
        cells = [
            _cell(text, mean, half) + (" *" if text is seconds and status == OVERLOADED else "")
            for text, mean, half in zip(show, part["mean"], part["half_width"], strict=True)
        ]
        cells[2] = cells[2] if role == "shadow" else ""
        cells[-1] = cells[-1] if capture else "-"
        columns.append([str(role), short_name(str(variant)), status, *cells])
        if status == OVERLOADED:
            columns[-1] = [cell if cell.endswith("*") else f"{cell}  " for cell in columns[-1]]
    return grid(list(zip(*columns, strict=True))) + of_overload(statuses.values())


def _cell(text: Shown, mean: float, half: float) -> str:
    """Mean and half-width; the half-width is left out where one run alone has the figure."""
    if not math.isfinite(mean):
        return "-"
    return f"{text(mean)} +- {text(half)}" if math.isfinite(half) and text(mean) != "none" else text(mean)


def _share_of_errors(share: float) -> str:
    return percent(share, 3) if share > 0.0 else "none"
