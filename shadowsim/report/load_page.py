"""Makes an HTML page of a load run: the generator's verdict, latencies, failures, stages and charts."""

from __future__ import annotations

import os
from pathlib import Path

from shadowsim import __version__
from shadowsim.frames import of_measure
from shadowsim.measuring.generator.load_run import LoadRun
from shadowsim.plots.load import load_latency_over_time, load_over_time, load_quantiles
from shadowsim.report.html_page import Chart, assumptions_list, document, page, paragraphs, placed, save, table, text
from shadowsim.report.load_text import HEAD, NO_LATENCIES, failure_lines, rows, stage_rows, target_lines, verdict_lines


def html(run: LoadRun) -> str:
    """Return the page of a load run: a complete HTML document of about 5 MB, nearly all of it Plotly's script."""
    charts = [
        Chart("load-latency", load_latency_over_time(run.windows), "p50, p95 and p99 of latency by window."),
        Chart("load-quantiles", load_quantiles(of_measure(run.latency)), "Latency at each percentile."),
        Chart("load-rate", load_over_time(run.windows, run.scenario.horizon_s), "Planned, sent and failed requests."),
    ]
    status, *why = [" ".join(line.split()) for line in verdict_lines(run)]
    main = f"""<section class="verdict {"stable" if run.verdict.is_valid else "overloaded"}" aria-labelledby="verdict">
<h2 id="verdict">{text(run.verdict.status)}</h2>
<p class="headline">{text(status)}</p>
{paragraphs(why)}
</section>
<section aria-labelledby="what">
<h2 id="what">What was sent</h2>
{paragraphs(" ".join(line.split()) for line in target_lines(run))}
{assumptions_list(run.scenario.assumptions)}
</section>
<section aria-labelledby="latency">
<h2 id="latency">Latency</h2>
{_times(run)}
{paragraphs([" ".join(line.split()) for line in failure_lines(run)])}
</section>
{_stages(run)}
<noscript><p>The charts need JavaScript; the rest of this page does not.</p></noscript>
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
    stages = table("", head, [(name, row) for name, *row in cells])
    return f'<section aria-labelledby="stages">\n<h2 id="stages">Stages</h2>\n{stages}\n</section>'
