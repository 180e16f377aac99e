"""Formats the figures of one run, or of several runs under different seeds with their spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.engine.replicate import FIGURES, precision_reached, summarise, worst, worst_by_variant
from shadowsim.frames import LOST_CAUSES, ROLES, failures
from shadowsim.option_defaults import AUTO
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
    trimmed_time,
    wrapped,
)
from shadowsim.verdict import UNCERTAIN_RULE

Formatter = Callable[[float], str]

_QUANTILES = {"p50": "p50_s", "p90": "p90_s", "p95": "p95_s", "p99": "p99_s", "p99.9": "p99_9_s", "max": "maximum_s"}
LABELS = ("", "variant", "verdict", "requests", "rate", "share copied", "latency mean",
          *(f"        {name}" for name in _QUANTILES), "wait mean", "utilisation", "errors", "captured")  # fmt: skip
# Of pools that scale, batch or fail, and of callers that retry: figures of `Result.summary`, labels and formats.
_EVENT_LABELS: Mapping[str, tuple[str, Formatter]] = MappingProxyType({
    "serving_mean": ("instances serving", significant),
    "serving_maximum": ("most serving", trimmed_number),
    "instance_h": ("instance-hours", lambda x: f"{x:,.1f}"),
    "batch_size_mean": ("batch size", significant),
    "retries_per_request": ("retries per request", lambda x: "< 0.0001" if 0.0 < x < 1e-4 else significant(x)),
    "success_rate": ("success of callers", lambda x: "> 99.999 %" if 0.99999 < x < 1.0 else percent(x, 3)),
})  # fmt: skip
# Of services in tokens.
_TOKEN_LABELS: Mapping[str, tuple[str, Formatter]] = MappingProxyType({
    "ttft_mean_s": ("first token mean", time_text),
    "ttft_p50_s": ("first token p50", time_text),
    "ttft_p99_s": ("first token p99", time_text),
    "tpot_mean_s": ("per token mean", time_text),
    "tpot_p95_s": ("per token p95", time_text),
    "tpot_p99_s": ("per token p99", time_text),
    "output_tokens_per_s": ("output tokens", lambda x: f"{significant(x, 4)}/s"),
    "running_sequences_mean": ("running sequences", significant),
    "cache_use_mean": ("cache use", percent),
    "preemptions": ("preemptions", lambda x: count(round(x))),
})  # fmt: skip
_PREFIX_LABELS: Mapping[str, tuple[str, Formatter]] = MappingProxyType({
    "prefix_hit_share": ("prefix hits", percent),
})  # fmt: skip
_POOL_KEYS = ("peak_load", "from_s", "to_s", "n_stretches", "instances_needed", "why")


def results_text(results: Sequence[Result]) -> str:
    """Return the figures and the verdict of one run; for several, means with half-widths and the worst verdict."""
    gravest = worst(results)
    enough = " ".join(["", *enough_texts(results[0].scenario, gravest)])
    table = summary_table(results[0]) if len(results) == 1 else _spread_table(results)
    several = "" if len(results) == 1 else f"worst of {len(results)} replications: "
    reached = precision_reached(results)
    notes = [*warm_up_notes(results), *theory_notes(results[0])]
    notes += [] if reached is None else [f"Precision: {reached}."]
    lines = "".join(f"\n{wrapped(note)}" for note in notes)
    return f"{table}{lines}\n\n{wrapped(f'{several}{gravest}{enough}')}"


def warm_up_notes(results: Sequence[Result]) -> list[str]:
    """Return a sentence on the beginning of the runs that their figures leave out, if they leave out any."""
    wanted = results[0].scenario.warmup_s
    if not wanted:
        return []
    left_out = [result.warm_up for result in results]
    least, most = min(x.from_s for x in left_out), max(x.from_s for x in left_out)
    length = f"the first {time_text(least)}" if least == most else f"between {time_text(least)} and {time_text(most)}"
    rule = ""
    if wanted == AUTO:
        ends = {role: max(x.by_role_s.get(role, 0.0) for x in left_out) for role in ROLES}
        longest = "" if len(results) == 1 else "at most "
        texts = [f"{longest}after {time_text(end_s)} in the {role}" for role, end_s in ends.items()]
        rule = f" By MSER-5 it ends {' and '.join(texts)}."
    return [f"Warm-up: figures leave out {length if most else 'nothing'}, in whole sections.{rule}"]


def theory_notes(result: Result) -> list[str]:
    """Return what queueing theory says of each pool, where a formula holds."""
    notes = []
    for variant, rows in result.theory().groupby("variant", sort=False):
        values = dict(zip(rows["figure"], rows["theory"], strict=True))
        share = f", and that {percent(values['wait_share'])} of the requests wait" if "wait_share" in values else ""
        says = f"Theory: {rows['model'].iloc[0]} says that {short_name(str(variant))}'s wait mean is"
        notes.append(f"{says} {time_text(values['wait_mean_s'])}{share}.")
    return notes


def results_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Return `Result.summary` of one run, or `summarise` of several, indexed by variant."""
    return summarise(results).set_index("variant") if len(results) > 1 else results[0].summary()


def results_object(results: Sequence[Result]) -> dict[str, object]:
    """Return the figures for JSON: for several runs {"mean": ..., "half_width": ...} each; NaN where there is none."""
    first = _summary_object(results[0])
    reached = precision_reached(results)
    if reached is not None:
        wanted = reached.wanted
        first["precision"] = {
            "metric": wanted.metric,
            "relative": wanted.relative,
            "replications": reached.n,
            "half_widths": dict(reached.relative),
            "reached": reached.reached,
            "why_not": reached.why_not,
        }
    if len(results) == 1:
        return first
    statuses, variants = worst_by_variant(results), []
    for (variant, role), part in summarise(results).groupby(["variant", "role"], sort=False):
        figures: dict[str, object] = {"variant": variant, "role": role, "verdict": statuses[str(variant)]}
        for row in part.itertuples():
            figures[str(row.figure)] = {
                "mean": row.mean,
                "half_width": row.half_width,
                "standard_error": row.standard_error,
            }
        variants.append(figures)
    gravest = worst(results)
    first["warmup_s"] = [result.warm_up.from_s for result in results]
    del first["warmup_by_rule_s"], first["theory"], first["actions"]  # of a single run
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
    uncertain = result.uncertain
    variants: list[dict[Any, object]] = []
    for row in result.summary().reset_index().to_dict("records"):
        pool = pools[row["variant"]]
        variants.append(row | {key: getattr(pool, key) for key in _POOL_KEYS})
        variants[-1]["uncertain"] = sorted(uncertain[row["variant"]] & row.keys())
    scenario = result.scenario
    return {
        "scenario": scenario.experiment.name,
        "seed": scenario.seed,
        "horizon_s": scenario.horizon_s,
        "sampling_percentage": scenario.experiment.sampling_percentage,
        "assumptions": list(scenario.assumptions),
        "warmup_s": result.warm_up.from_s,
        "warmup_by_rule_s": dict(result.warm_up.by_role_s),
        "theory": result.theory().to_dict("records"),
        "verdict": result.verdict.status,
        "why": str(result.verdict),
        "variants": variants,
        "actions": result.actions.to_dict("records"),
    }


def _spread_table(results: Sequence[Result]) -> str:
    texts: list[Formatter] = [lambda x: count(round(x)), lambda x: f"{significant(x, 4)}/s", lambda x: percent(x, 3)]
    texts += [time_text] * (len(LABELS) - 9) + [percent, _share_of_errors, bytes_text]
    extra_labels = event_labels(results[0].scenario)
    texts += [formatter for _, formatter in extra_labels.values()]
    labels = [*LABELS, *(label for label, _ in extra_labels.values())]
    columns = [[label if label != "verdict" else "worst verdict" for label in labels]]
    statuses, capture = worst_by_variant(results), results[0].scenario.capture
    uncertain = results[0].uncertain
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


def _with_half_width(formatter: Formatter, mean: float, half: float, of_half: Formatter | None = None) -> str:
    """Return mean and half-width; the mean alone where only one run has the figure."""
    if not math.isfinite(mean):
        return "-"
    text = formatter(mean)
    return f"{text} +- {(of_half or formatter)(half)}" if math.isfinite(half) and text != "none" else text


def _share_of_errors(share: float) -> str:
    return percent(share, 3) if share > 0.0 else "none"


def summary_table(result: Result) -> str:
    """Return a run's figures, source beside shadow: one row per metric.

    Latencies of an overloaded pool carry a mark, because they depend on the length of the run and not on the pool.
    Other figures have two standard errors beside them, where the run is long enough for one. An uncertain quantile is a
    dash (`Result.uncertain`); `Result.summary` has it nevertheless.
    """
    summary, uncertain = result.summary(), result.uncertain
    extra_labels = event_labels(result.scenario)
    columns = [[*LABELS, *(label for label, _ in extra_labels.values())]]
    for variant, row in summary.iterrows():
        part = result.settled.windows[result.settled.windows["variant"] == variant]
        over = row["verdict"] == OVERLOADED
        mark, blank = (" *", "  ") if over else ("", "")
        share = f"{percent(row['share'], 3)} of {trimmed_number(100.0 * result.scenario.share)} %"

        def with_error(
            key: str,
            formatter: Formatter,
            of_error: Formatter | None = None,
            row: pd.Series[Any] = row,
            over: bool = over,
        ) -> str:
            error = math.nan if over else 2.0 * row.get(f"{key}_error", math.nan)
            return _with_half_width(formatter, row[key], error, of_error)

        figures = [
            "-" if key in uncertain[str(variant)] else with_error(key, time_text) + mark
            for key in ("mean_s", *_QUANTILES.values(), "wait_mean_s")
        ]
        errors = _errors(int(failures(part).sum()), int(row["requests"]))
        columns.append(
            [
                *(
                    cell + blank
                    for cell in (row["role"], short_name(str(variant)), row["verdict"], count(row["requests"]))
                ),
                with_error("rate_per_s", lambda x: f"{significant(x, 4)}/s") + blank,
                share + blank if row["role"] == "shadow" else "",
                *figures,
                with_error("utilisation", percent, lambda x: percent(x, 2)) + blank,
                errors + blank,
                _captured(result.scenario.capture, int(part["captured_records"].sum()), row["captured_bytes"]) + blank,
                *(
                    ("-" if pd.isna(row[name]) or name in uncertain[str(variant)] else with_error(name, formatter))
                    + (mark if formatter is time_text else blank)
                    for name, (_, formatter) in extra_labels.items()
                ),
            ]
        )
    table = grid(list(zip(*columns, strict=True)))
    lost = {cause: int(result.windows[f"copies_lost_{cause}"].sum()) for cause in LOST_CAUSES}
    if any(lost.values()):
        causes = ", ".join(f"{n:,} to mirror.{cause}" for cause, n in lost.items() if n)
        table += "\n" + wrapped(f"copies lost: {causes}")
    cells = [cell for column in columns for cell in column]
    if any("+-" in cell for cell in cells):
        table += "\n" + wrapped("two standard errors, by the scatter of the run's sections", "+- ", "   ")
    if any(uncertain.values()):
        table += "\n" + wrapped(f"the run is too short: {UNCERTAIN_RULE}", "-  ", "   ")
    return table + overload_note(summary["verdict"])


def overload_note(statuses: Iterable[str]) -> str:
    """Return the note that explains the mark of latencies, or "" if no pool is overloaded."""
    if OVERLOADED not in list(statuses):
        return ""
    note = f"the pool is {OVERLOADED}: this depends on the length of the run, not on the pool"
    return "\n" + wrapped(note, "* ", "  ")


def event_labels(scenario: Scenario) -> dict[str, tuple[str, Formatter]]:
    """Return labels and formats of the figures of `Result.summary` on changing pools, retries and tokens, as it has."""
    services = [scenario.services[v.name] for v in (scenario.experiment.source, scenario.experiment.shadow)]
    names = set()
    if any(service.scaling or service.outages for service in services):
        names |= {"serving_mean", "serving_maximum", "instance_h"}
    if any(service.batching for service in services):
        names.add("batch_size_mean")
    if scenario.traffic.retries:
        names |= {"retries_per_request", "success_rate"}
    labels = {name: label for name, label in _EVENT_LABELS.items() if name in names}
    if any(service.tokens for service in services):
        labels |= _TOKEN_LABELS
        if any(service.tokens and service.tokens.prefix for service in services):
            labels |= _PREFIX_LABELS
        for i, pair in enumerate(scenario.goodput, start=1):
            limits = f"{trimmed_time(pair.ttft_s)}, {trimmed_time(pair.tpot_s)}"
            labels[f"goodput_share_{i}"] = (f"goodput ({limits})", lambda share: percent(share, 3))
    return labels


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
