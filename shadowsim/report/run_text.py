"""Formats the figures of one run, or of several runs under different seeds with their spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.engine.replicate import FIGURES, summarise, worst, worst_by_variant
from shadowsim.frames import LOST_CAUSES, failures
from shadowsim.planning.enough_instances import enough_texts
from shadowsim.planning.slo import Slo
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario
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
from shadowsim.verdict import uncertain_quantiles

Formatter = Callable[[float], str]

_QUANTILES = {"p50": "p50_s", "p90": "p90_s", "p95": "p95_s", "p99": "p99_s", "p99.9": "p99_9_s", "max": "maximum_s"}
LABELS = ("", "variant", "verdict", "requests", "rate", "share copied", "latency mean",
          *(f"        {name}" for name in _QUANTILES), "wait mean", "utilisation", "errors", "captured")  # fmt: skip
# Of pools that scale, batch or fail, and of callers that retry: figures of `Result.summary`, labels and formats.
_EVENT_LABELS: Mapping[str, tuple[str, Formatter]] = MappingProxyType({
    "serving_mean": ("instances serving", significant),
    "serving_maximum": ("most serving", significant),
    "instance_h": ("instance-hours", lambda x: f"{x:,.1f}"),
    "batch_size_mean": ("batch size", significant),
    "retries_per_request": ("retries per request", lambda x: "< 0.0001" if 0.0 < x < 1e-4 else significant(x)),
    "success_rate": ("success of callers", lambda x: "> 99.999 %" if 0.99999 < x < 1.0 else percent(x, 3)),
})  # fmt: skip
_POOL_KEYS = ("peak_load", "from_s", "to_s", "n_stretches", "instances_needed", "why")


def results_text(results: Sequence[Result]) -> str:
    """Return the figures and the verdict of one run; for several, means with half-widths and the worst verdict."""
    gravest = worst(results)
    enough = " ".join(["", *enough_texts(results[0].scenario, gravest)])
    if len(results) == 1:
        return f"{summary_table(results[0])}\n\n{wrapped(f'{gravest}{enough}')}"
    return f"{_spread_table(results)}\n\n{wrapped(f'worst of {len(results)} replications: {gravest}{enough}')}"


def results_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Return `Result.summary` of one run, or `summarise` of several, indexed by variant."""
    return summarise(results).set_index("variant") if len(results) > 1 else results[0].summary()


def results_object(results: Sequence[Result]) -> dict[str, object]:
    """Return the figures for JSON: for several runs {"mean": ..., "half_width": ...} each; NaN where there is none."""
    first = _summary_object(results[0])
    if len(results) == 1:
        return first
    statuses, variants = worst_by_variant(results), []
    for (variant, role), part in summarise(results).groupby(["variant", "role"], sort=False):
        figures: dict[str, object] = {"variant": variant, "role": role, "verdict": statuses[str(variant)]}
        for figure, mean, half in zip(part["figure"], part["mean"], part["half_width"], strict=True):
            figures[figure] = {"mean": mean, "half_width": half}
        variants.append(figures)
    gravest = worst(results)
    several = {"seed": [result.scenario.seed for result in results], "replications": len(results)}
    return first | several | {"verdict": gravest.status, "why": str(gravest), "variants": variants}


def goals_frame(slo: Slo, results: Sequence[Result]) -> pd.DataFrame:
    """Return `Slo.evaluate` of one run; for several, means with standard errors between the runs."""
    frames = [slo.evaluate(result) for result in results]
    if len(frames) == 1:
        return frames[0]
    values = np.array([frame["value"] for frame in frames])  # shape (runs, goals)
    mean = values.mean(axis=0)  # NaN where one run has no value
    return frames[0].assign(
        value=mean,
        standard_error=values.std(axis=0, ddof=1) / math.sqrt(len(frames)),
        margin=[goal.margin(value) for goal, value in zip(slo.goals, mean, strict=True)],
        met=[goal.met(value) for goal, value in zip(slo.goals, mean, strict=True)],
    )


def _summary_object(result: Result) -> dict[str, object]:
    """Return a run's figures for JSON: summary and verdict of each variant; NaN where there is none."""
    pools = {p.variant: p for p in result.verdict.pools}
    uncertain = uncertain_quantiles(result.settled.windows, result.scenario)
    variants: list[dict[Any, object]] = []
    for row in result.summary().reset_index().to_dict("records"):
        pool = pools[row["variant"]]
        variants.append(row | {key: getattr(pool, key) for key in _POOL_KEYS})
        variants[-1]["uncertain"] = sorted(uncertain[row["variant"]])
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
    texts: list[Formatter] = [lambda x: count(round(x)), lambda x: f"{significant(x, 4)}/s", lambda x: percent(x, 3)]
    texts += [time_text] * (len(LABELS) - 9) + [percent, _share_of_errors, bytes_text]
    extra_labels = event_labels(results[0].scenario)
    texts += [formatter for _, formatter in extra_labels.values()]
    labels = [*LABELS, *(label for label, _ in extra_labels.values())]
    columns = [[label if label != "verdict" else "worst verdict" for label in labels]]
    statuses, capture = worst_by_variant(results), results[0].scenario.capture
    uncertain = uncertain_quantiles(results[0].settled.windows, results[0].scenario)
    for (variant, role), part in summarise(results).groupby(["variant", "role"], sort=False):
        status = statuses[str(variant)]
        part = part[part["figure"].isin([*FIGURES, *extra_labels])]
        cells = [
            ("-" if math.isnan(half) and figure in uncertain[str(variant)] else _with_half_width(formatter, mean, half))
            + (" *" if formatter is time_text and status == OVERLOADED else "")
            for formatter, figure, mean, half in zip(
                texts, part["figure"], part["mean"], part["half_width"], strict=True
            )
        ]
        cells[2] = cells[2] if role == "shadow" else ""
        captured = FIGURES.index("captured_bytes")
        cells[captured] = cells[captured] if capture else "-"
        columns.append([str(role), short_name(str(variant)), status, *cells])
        if status == OVERLOADED:
            columns[-1] = [cell if cell.endswith("*") else f"{cell}  " for cell in columns[-1]]
    return grid(list(zip(*columns, strict=True))) + overload_note(statuses.values())


def _with_half_width(formatter: Formatter, mean: float, half: float) -> str:
    """Return mean and half-width; the mean alone where only one run has the figure."""
    if not math.isfinite(mean):
        return "-"
    text = formatter(mean)
    return f"{text} +- {formatter(half)}" if math.isfinite(half) and text != "none" else text


def _share_of_errors(share: float) -> str:
    return percent(share, 3) if share > 0.0 else "none"


def summary_table(result: Result) -> str:
    """Return a run's figures, source beside shadow: one row per metric.

    Latencies of an overloaded pool carry a mark, because they depend on the length of the run and not on the pool. An
    uncertain quantile is a dash (`verdict.uncertain_quantiles`); `Result.summary` has it nevertheless.
    """
    summary = result.summary()
    uncertain = uncertain_quantiles(result.settled.windows, result.scenario)
    extra_labels = event_labels(result.scenario)
    columns = [[*LABELS, *(label for label, _ in extra_labels.values())]]
    for variant, row in summary.iterrows():
        part = result.windows[result.windows["variant"] == variant]
        mark, blank = (" *", "  ") if row["verdict"] == OVERLOADED else ("", "")
        share = f"{percent(row['share'], 3)} of {trimmed_number(100.0 * result.scenario.share)} %"
        figures = [
            "-" if key in uncertain[str(variant)] else time_text(row[key]) + mark
            for key in ("mean_s", *_QUANTILES.values(), "wait_mean_s")
        ]
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
                _errors(int(failures(part).sum()), int(row["requests"])) + blank,
                _captured(result.scenario.capture, int(part["captured_records"].sum()), row["captured_bytes"]) + blank,
                *(
                    ("-" if pd.isna(row[name]) else formatter(row[name])) + blank
                    for name, (_, formatter) in extra_labels.items()
                ),
            ]
        )
    table = grid(list(zip(*columns, strict=True)))
    lost = {cause: int(result.windows[f"copies_lost_{cause}"].sum()) for cause in LOST_CAUSES}
    if any(lost.values()):
        causes = ", ".join(f"{n:,} to mirror.{cause}" for cause, n in lost.items() if n)
        table += "\n" + wrapped(f"copies lost: {causes}")
    return table + overload_note(summary["verdict"])


def overload_note(statuses: Iterable[str]) -> str:
    """Return the note that explains the mark of latencies, or "" if no pool is overloaded."""
    if OVERLOADED not in list(statuses):
        return ""
    note = f"the pool is {OVERLOADED}: this depends on the length of the run, not on the pool"
    return "\n" + wrapped(note, "* ", "  ")


def event_labels(scenario: Scenario) -> dict[str, tuple[str, Formatter]]:
    """Return labels and formats of the figures of `Result.summary` on what changes pools and on retries, as it has."""
    services = [scenario.services[v.name] for v in (scenario.experiment.source, scenario.experiment.shadow)]
    names = set()
    if any(service.scaling or service.outages for service in services):
        names |= {"serving_mean", "serving_maximum", "instance_h"}
    if any(service.batching for service in services):
        names.add("batch_size_mean")
    if scenario.traffic.retries:
        names |= {"retries_per_request", "success_rate"}
    return {name: label for name, label in _EVENT_LABELS.items() if name in names}


def _errors(n: int, requests: int) -> str:
    if n == 0:
        return "none"
    share = n / requests
    return f"{n:,} ({'< 0.01 %' if share < 1e-4 else percent(share, 2)})"


def _captured(capture: bool, records: int, n_bytes: Any) -> str:
    if not capture:
        return "-"
    # Payload sizes may be unknown.
    return f"{records:,} records" + ("" if pd.isna(n_bytes) else f", {bytes_text(float(n_bytes))}")
