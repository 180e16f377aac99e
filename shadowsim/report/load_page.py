"""Makes an HTML page of a load run: the generator's verdict, latencies, failures, stages and charts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from shadowsim import __version__
from shadowsim.frames import of_measure
from shadowsim.measuring.generator.load_run import LoadRun
from shadowsim.plots.load import load_latency_over_time, load_over_time, load_quantiles
from shadowsim.report.html_page import (
    NO_SCRIPT,
    Chart,
    answer,
    assumptions_list,
    document,
    page,
    paragraphs,
    placed,
    save,
    section,
    sentence,
    table,
    text,
)
from shadowsim.report.load_text import HEAD, NO_LATENCIES, failure_lines, rows, stage_rows, target_lines, verdict_lines
from shadowsim.text import count, percent, significant, time_text


def html(run: LoadRun) -> str:
    """Return the page of a load run: a complete HTML document of about 2 MB, nearly all of it Plotly's script."""
    achieved, latency = run.about["achieved"], _latency(run)
    by_window = [f"{name} {_range(run.windows[f'ModelLatency_{name}'])}" for name in ("p50", "p95", "p99")]
    sent = (
        f"{count(run.about['asked']['requests'])} requests planned, {count(achieved['requests'])} sent; {_errors(run)}."
    )
    is_valid = run.verdict.is_valid
    charts = [
        Chart("load-latency", load_latency_over_time(run.windows), f"By window: {'; '.join(by_window)}."),
        Chart("load-quantiles", load_quantiles(of_measure(run.latency)), f"{latency}."),
    ]
    charts = charts if is_valid else []  # they would show the generator's own latencies
    charts.append(Chart("load-rate", load_over_time(run.windows, run.scenario.horizon_s), sent))
    checked, *why = _joined(verdict_lines(run))
    checked = sentence(checked.removeprefix("invalid: "))
    rate = f"{significant(achieved['rate_per_s'], 4)}/s"
    said = [f"{latency} at {rate}; {_errors(run)}.", checked] if is_valid else [checked]
    what = paragraphs(_joined(target_lines(run))) + assumptions_list(run.scenario.assumptions)
    measured = f"{_times(run)}\n{paragraphs(_joined(failure_lines(run)))}"
    status = "Valid" if is_valid else "Invalid"
    main = f"""{answer(status, said[0], [*said[1:], *why], "stable" if is_valid else "overloaded")}
{section("what", "What was sent", what)}
{section("latency", "Latency", measured)}
{section("stages", "Stages", _stages(run))}
{NO_SCRIPT}
{"".join(map(placed, charts))}"""
    footer = f"""<p>Made by shadowsim {text(__version__)}. Latency counts from the planned time of each request.</p>
{document("The run, as JSON", run.about)}
{document("The scenario, as JSON", run.scenario.to_dict())}"""
    return page("Load run", run.about["target"]["url"], "", main, charts, footer)


def write(run: LoadRun, path: str | os.PathLike[str]) -> Path:
    """Write the page of a load run to a file, and return its path."""
    return save(html(run), path)


def _latency(run: LoadRun) -> str:
    figures = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return "Latency " + ", ".join(f"{name} {time_text(run.quantile(q))}" for name, q in figures.items())


def _errors(run: LoadRun) -> str:
    return f"error rate {percent(run.error_rate, 2)}"


def _range(latency_us: pd.Series[float]) -> str:
    """Return the least and the greatest of some latencies in microseconds."""
    known = latency_us.dropna() / 1e6
    return "unknown" if known.empty else f"{time_text(float(known.min()))} to {time_text(float(known.max()))}"


def _times(run: LoadRun) -> str:
    if not run.verdict.is_valid:
        return paragraphs([NO_LATENCIES])
    return table("", HEAD, [(name, cells) for name, *cells in rows(run)])


def _stages(run: LoadRun) -> str:
    if len(run.about["stages"]) < 2:
        return ""
    head, *cells = stage_rows(run)
    return table("", head, [(name, row) for name, *row in cells])


def _joined(lines: Iterable[str]) -> list[str]:
    """Return wrapped texts, each in one line that begins with a capital."""
    return [sentence(" ".join(line.split())) for line in lines]
