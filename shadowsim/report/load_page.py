"""Makes an HTML page of a load run: the generator's verdict, latencies, failures, stages and charts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

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
    table,
    text,
)
from shadowsim.report.load_text import HEAD, NO_LATENCIES, failure_lines, rows, stage_rows, target_lines, verdict_lines


def html(run: LoadRun) -> str:
    """Return the page of a load run: a complete HTML document of about 2 MB, nearly all of it Plotly's script."""
    charts = [
        Chart("load-latency", load_latency_over_time(run.windows), "p50, p95 and p99 of latency by window."),
        Chart("load-quantiles", load_quantiles(of_measure(run.latency)), "Latency at each percentile."),
        Chart("load-rate", load_over_time(run.windows, run.scenario.horizon_s), "Planned, sent and failed requests."),
    ]
    status, *why = _joined(verdict_lines(run))
    what = paragraphs(_joined(target_lines(run))) + assumptions_list(run.scenario.assumptions)
    latency = f"{_times(run)}\n{paragraphs(_joined(failure_lines(run)))}"
    main = f"""{answer(run.verdict.status, status, why, "stable" if run.verdict.is_valid else "overloaded")}
{section("what", "What was sent", what)}
{section("latency", "Latency", latency)}
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
    """Return wrapped texts, each in one line."""
    return [" ".join(line.split()) for line in lines]
