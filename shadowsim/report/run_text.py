"""What a command says of its runs: of one alone, or of several under different seeds with how far they spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.engine.replicate import summarise, worst, worst_by_variant
from shadowsim.frames import LOST_CAUSES
from shadowsim.planning.slo import Slo
from shadowsim.result import Result
from shadowsim.text import (
    OVERLOADED,
    bytes_text,
    count,
    grid,
    percent,
    short_name,
    significant,
    time_text,
    trimmed_number,
    wrapped,
)

Shown = Callable[[float], str]

_QUANTILES = {"p50": "p50_s", "p90": "p90_s", "p95": "p95_s", "p99": "p99_s", "p99.9": "p99_9_s", "max": "maximum_s"}
LABELS = ("", "variant", "verdict", "requests", "rate", "share copied", "latency mean",
          *(f"        {name}" for name in _QUANTILES), "wait mean", "utilisation", "errors", "captured")  # fmt: skip
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
    show += [time_text] * (len(LABELS) - 9) + [percent, _share_of_errors, bytes_text]
    columns = [[label if label != "verdict" else "worst verdict" for label in LABELS]]
    statuses, capture = worst_by_variant(results), results[0].scenario.capture
    for (variant, role), part in summarise(results).groupby(["variant", "role"], sort=False):
        status = statuses[str(variant)]
        cells = [
            _cell(text, mean, half) + (" *" if text is time_text and status == OVERLOADED else "")
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


def summary_table(result: Result) -> str:
    """Return a run's figures, source beside shadow: a row a metric.

    Latencies of an overloaded pool carry a mark, because they say how long the run was and not how good the pool is.
    """
    summary = result.summary()
    columns = [list(LABELS)]
    for variant, row in summary.iterrows():
        part = result.windows[result.windows["variant"] == variant]
        mark, blank = (" *", "  ") if row["verdict"] == OVERLOADED else ("", "")
        share = f"{percent(row['share'], 3)} of {trimmed_number(100.0 * result.scenario.share)} %"
        figures = [time_text(row[key]) + mark for key in ("mean_s", *_QUANTILES.values(), "wait_mean_s")]
        columns.append(
            [
                *(
                    cell + blank
                    for cell in (row["role"], short_name(str(variant)), row["verdict"], count(row["requests"]))
                ),
                f"{significant(row['rate_per_s'], 4)}/s{blank}",
                share + blank if row["role"] == "shadow" else "",
                *figures,
                percent(row["utilisation"]) + blank,
                _errors(int(part["InvocationModelErrors"].sum()), int(row["requests"])) + blank,
                _captured(result.scenario.capture, int(part["captured_records"].sum()), row["captured_bytes"]) + blank,
            ]
        )
    table = grid(list(zip(*columns, strict=True)))
    lost = {cause: int(result.windows[f"copies_lost_{cause}"].sum()) for cause in LOST_CAUSES}
    if any(lost.values()):
        causes = ", ".join(f"{n:,} to mirror.{cause}" for cause, n in lost.items() if n)
        table += "\n" + wrapped(f"copies lost: {causes}")
    return table + of_overload(summary["verdict"])


def of_overload(statuses: Iterable[str]) -> str:
    """Return the line that explains the mark of latencies, or "" when no pool is overloaded."""
    if OVERLOADED not in list(statuses):
        return ""
    note = "of an OVERLOADED pool: it grows with the length of the run, and is no property of the pool"
    return "\n" + wrapped(note, "* ", "  ")


def _errors(n: int, requests: int) -> str:
    if n == 0:
        return "none"
    share = n / requests
    return f"{n:,} ({'< 0.01 %' if share < 1e-4 else percent(share, 2)})"


def _captured(wanted: bool, records: int, n_bytes: Any) -> str:
    if not wanted:
        return "-"
    # Bytes are missing where payload sizes are not known.
    return f"{records:,} records" + ("" if pd.isna(n_bytes) else f", {bytes_text(float(n_bytes))}")
