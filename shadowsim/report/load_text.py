"""Shows a load run as text: what was asked and sent, latencies, failures, the verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shadowsim.frames import FIRST_TOKEN, LATENCY_MEASURE, PER_TOKEN, PERCENTILES
from shadowsim.text import count, grid, percent, significant, time_text, trimmed_number, wrapped

if TYPE_CHECKING:
    import pandas as pd

    from shadowsim.measuring.generator.load_run import LoadRun

MEASURES = {LATENCY_MEASURE: "latency", FIRST_TOKEN: "first token", PER_TOKEN: "time per token"}
HEAD = ["", "requests", "mean", *(name.replace("_", ".") for name in PERCENTILES), "maximum"]  # of `rows`
NO_LATENCIES = "No latencies are shown: they are the generator's own. The frames have them."
_MOST_CAUSES = 8


def load_text(run: LoadRun) -> str:
    """Return a load run in lines of at most 80 columns."""
    lines = [*target_lines(run), "", *verdict_lines(run), ""]
    lines += [grid([HEAD, *rows(run)])] if run.verdict.is_valid else [NO_LATENCIES]
    low, high = run.interval(0.99) if run.verdict.is_valid else (math.nan, math.nan)
    if not math.isnan(low + high):
        lines.append(f"p99 of latency lies between {time_text(low)} and {time_text(high)} (95 % interval).")
    lines += ["", *failure_lines(run)]
    if len(run.about["stages"]) > 1:
        lines += ["", stage_grid(run)]
    return "\n".join(lines).rstrip()


def target_lines(run: LoadRun) -> list[str]:
    """Return where requests went, and how many were asked for and sent."""
    target, asked, achieved = run.about["target"], run.about["asked"], run.about["achieved"]
    loop = "open loop" if run.open_loop else "not an open loop"
    rate = f"{trimmed_number(asked['rate_per_s'])}/s" if asked["rate_per_s"] else "0/s"
    due = f"asked {rate} for {significant(asked['duration_s'])} s: {count(asked['requests'])} requests planned, "
    sent = f"{due}{count(achieved['requests'])} sent ({significant(achieved['rate_per_s'], 4)}/s), {loop}"
    lines = [wrapped(f"{target['method']} {target['url']} ({target['protocol']})"), wrapped(sent)]
    if run.about["interrupted"]:
        lines.append(f"The run was interrupted after {significant(run.scenario.horizon_s)} s.")
    if achieved["held_back"]:
        limit = trimmed_number(run.about["max_rate_per_s"])
        n = count(achieved["held_back"])
        lines.append(wrapped(f"--max-rate {limit} held back {n} requests; their latency includes that wait."))
    if achieved.get("resent"):
        said = f"The server had closed kept connections: {count(achieved['resent'])} requests were sent once more."
        lines.append(wrapped(said))
    return lines


def verdict_lines(run: LoadRun) -> list[str]:
    """Return the verdict on the generator, and why."""
    achieved = run.about["achieved"]
    cores = ", ".join(percent(share) for share in achieved["cpu_share"])
    lag = ""
    if achieved["lag_p99_s"] is not None:
        lag = f"lag p50 {time_text(achieved['lag_p50_s'])}, p99 {time_text(achieved['lag_p99_s'])}; "
    lines = [wrapped(f"{run.verdict.status} ({lag}{cores} of a core)")]
    return lines + [wrapped(sentence, "  ") for sentence in run.verdict.why]


def rows(run: LoadRun) -> list[list[str]]:
    """Return a row of cells for each kind of time that was measured."""
    cells = []
    for measure, name in MEASURES.items():
        times = run.times(measure)
        if times.size or measure == LATENCY_MEASURE:
            mean, greatest = (times.mean(), times.max()) if times.size else (math.nan, math.nan)
            figures = [mean, *(run.quantile(q, measure) for q in PERCENTILES.values()), greatest]
            cells.append([name, count(times.size), *map(time_text, map(float, figures))])
    return cells


def failure_lines(run: LoadRun) -> list[str]:
    """Return how many requests were answered and how others ended, and why."""
    counts = run.requests["status"].value_counts()
    ends = ", ".join(f"{status} {count(n)}" for status, n in counts.items())
    lines = [wrapped(f"{ends or 'no requests'}; error rate {percent(run.error_rate, 2)}")]
    causes = list(run.about["causes"].items())
    lines += [f"  {count(n):>9}  {cause}" for cause, n in causes[:_MOST_CAUSES]]
    return lines + ([f"  and {len(causes) - _MOST_CAUSES} more causes"] if len(causes) > _MOST_CAUSES else [])


def stage_grid(run: LoadRun) -> str:
    """Return a table of the stages of a run."""
    return grid(stage_rows(run), left=(0, 1))


def stage_rows(run: LoadRun) -> list[list[str]]:
    """Return a head and a row of cells for each stage: its load, rate of answers, p50 and p99."""
    table = [["stage", "load", "answers", "per s", "p50", "p99", "errors"]]
    for number, stage in enumerate(run.about["stages"]):
        part = run.requests[(run.requests["stage"] == number).fillna(False)]
        load = f"{trimmed_number(stage['rate_per_s'])}/s" if stage["rate_per_s"] else f"{stage['in_flight']} in flight"
        answered = part[part["status"] == "answered"]
        length_s = max(stage["end_s"] - stage["begin_s"], 1e-9)
        figures = [time_text(_quantile(answered["latency_s"], q)) for q in (0.5, 0.99)]
        errors = int((~part["status"].isin(["answered", "cut"])).sum())
        name = f"{number} {stage['kind']}"
        row = [name, load, count(len(answered)), significant(len(answered) / length_s), *figures, count(errors)]
        table.append(row)
    return table


def _quantile(values: pd.Series[float], q: float) -> float:
    return float(values.quantile(q, interpolation="higher")) if len(values) else math.nan
