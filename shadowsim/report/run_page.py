"""A run as one HTML page: `html(result)` and `write(result, file)`.

What it needs to be one page and to do no harm is in page.py; here is what it says.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from shadowsim import __version__, plots
from shadowsim.aws.instances import duration_text
from shadowsim.planning.costs import cost
from shadowsim.report.comparison_text import change, interval, records
from shadowsim.report.html_page import (
    Chart,
    badge,
    css_class,
    document,
    page,
    paragraphs,
    placed,
    rows,
    save,
    table,
    text,
)
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.service import Service
from shadowsim.statistics.terms import NOT_JUDGED
from shadowsim.text import bytes_text, compact, count, percent, significant, time_text
from shadowsim.verdict import Verdict

_NONE = "–"
_HEADLINES = {
    "STABLE": "Both pools keep up with what is sent to them.",
    "OVERLOADED": "{} cannot keep up with what is sent to it. Its latencies grow with the length of the run and are no "
    "property of the pool.",
    "TOO SHORT": "The run is too short to tell the tail of {}.",
}
_LATENCIES = {"mean": "mean_s", "p50": "p50_s", "p90": "p90_s", "p95": "p95_s", "p99": "p99_s", "p99.9": "p99_9_s"}
_LATENCIES |= {"maximum": "maximum_s", "mean wait": "wait_mean_s"}
_SPANS = {
    "p99": ("ModelLatency_p99", 1e-3, " ms"),
    "offered load": ("offered_load", 100.0, " %"),
    "number of requests": ("Invocations", 1.0, ""),
}


def html(result: Result) -> str:
    """Return the page of a run.

    Parameters
    ----------
    result : Result
        Of a simulation, or read by `Result.load`.

    Returns
    -------
    str
        A whole HTML document, about 5 MB, nearly all of it Plotly's script.
    """
    verdict, summary, scenario = result.verdict, result.summary(), result.scenario
    compared = result.compare()
    charts = _charts(result, verdict, compared)
    main = f"""{_verdict(verdict)}
<section aria-labelledby="what">
<h2 id="what">What was simulated</h2>
{paragraphs(_sentences(result))}
{_assumptions(scenario.assumptions)}
</section>
{_table(result, summary)}
{_cost(scenario)}
<noscript><p>The charts need JavaScript; all else on this page does not.</p></noscript>
{placed(charts[0])}
{_comparison(compared, verdict)}
{"".join(placed(chart) for chart in charts[1:])}"""
    footer = f"""<p>Made by shadowsim {text(__version__)}. To reproduce: save the scenario as
<code>scenario.json</code> and run <code>shadowsim simulate scenario.json --report</code>. One version and one seed give
one result, bit for bit.</p>
{document("The scenario, as JSON", scenario.to_dict())}"""
    e = scenario.experiment
    return page("Shadow test, simulated", e.name, e.description or "", main, charts, footer)


def write(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write the page of a run to a file, and return its path."""
    return save(html(result), path)


def _verdict(verdict: Verdict) -> str:
    named = " and ".join(p.variant for p in verdict.pools if p.status == verdict.status)
    pools = "".join(f"<li>{badge(p.status)} {text(p.why)}</li>" for p in verdict.pools)
    return f"""<section class="verdict {css_class(verdict.status)}" aria-labelledby="verdict">
<h2 id="verdict">{text(verdict.status)}</h2>
<p class="headline">{text(_HEADLINES[verdict.status].format(named))}</p>
<ul>{pools}</ul>
</section>"""


def _sentences(result: Result) -> list[str]:
    """Say what was simulated: traffic and horizon, pools and services, share and seed."""
    s, e = result.scenario, result.scenario.experiment
    n = int(result.windows.loc[result.windows["role"] == "source", "Invocations"].sum())
    length = duration_text(s.horizon_s) if s.horizon_s >= 60 else f"{s.horizon_s:g} s"
    windows = "one window" if s.n_windows == 1 else f"{count(s.n_windows)} windows of {s.period_s:g} s"
    shape = f" with a profile ({s.traffic.block['profile']['kind']})" if s.traffic.profile else ""  # type: ignore[index]
    traffic = (
        f"Traffic: {s.traffic.title}{shape}, {significant(n / s.horizon_s)} requests a "
        f"second in the mean for {length}, in {windows}."
    )
    pools = [
        f"{v.name} has {count(v.pool.instance_count)} × {v.pool.instance_type} with {workers} "
        f"{'worker' if workers == 1 else 'workers'} each; {_service(s.services[v.name])}."
        for v, workers in ((e.source, s.source_workers), (e.shadow, s.shadow_workers))
    ]
    routing = " and ".join(sorted(set(s.routing.values())))
    share = (
        f"{e.sampling_percentage} % of the requests to {e.source.name} are copied to {e.shadow.name} (rule "
        f"{s.mirror_rule}, at {s.mirror_instant}). Routing is {routing}; the seed is {s.seed}."
    )
    return [traffic, " ".join(pools), share]


def _service(service: Service) -> str:
    law = service.time
    if law.kind == "linear":
        return f"its service times are linear in {' and '.join(law.columns)}"
    return f"its service times are {law.kind} with mean {_ms(law.mean)} ms and SCV {law.scv:.3g}"


def _assumptions(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{text(s)}</li>" for s in sentences)
    return f"<h3>Assumed, since the input does not say</h3>\n<ul>{items}</ul>" if items else ""


def _table(result: Result, summary: pd.DataFrame) -> str:
    """Put source beside shadow. No quantile of an overloaded pool stands without that word above it."""
    variants = [row for _, row in summary.iterrows()]
    heads = "".join(
        f'<th scope="col">{text(name)} <span class="role">{row["role"]}</span> {badge(row["verdict"])}</th>'
        for name, row in zip(summary.index, variants, strict=True)
    )
    grown = "OVERLOADED: these grow with the run"
    marks = "".join(f'<td class="mark">{grown if r["verdict"] == "OVERLOADED" else ""}</td>' for r in variants)
    share = f"{result.scenario.experiment.sampling_percentage} %"
    traffic = [
        ("instances", [count(r["instance_count"]) for r in variants]),
        ("type", [r["instance_type"] for r in variants]),
        ("requests", [count(r["requests"]) for r in variants]),
        ("requests a second", [significant(r["rate_per_s"], 4) for r in variants]),
        ("share copied", ["" if r["role"] == "source" else f"{percent(r['share'], 3)} of {share}" for r in variants]),
    ]
    latency = [(name, [_ms(r[key]) for r in variants]) for name, key in _LATENCIES.items()]
    rest = [
        ("utilisation", [percent(r["utilisation"]) for r in variants]),
        ("errors", [percent(r["error_rate"], 2) if r["requests"] else _NONE for r in variants]),
    ]
    if result.scenario.capture:
        unknown = "size not known"
        rest.append(("captured", [unknown if pd.isna(b) else bytes_text(float(b)) for b in summary["captured_bytes"]]))
    s = result.scenario
    return f"""<section aria-labelledby="figures">
<h2 id="figures">Source beside shadow</h2>
<table>
<caption>ModelLatency is wait and service, at most the time-out of {s.timeout_s:g} s, which does not cut the wait. The
platform’s overhead of {_ms(s.overhead_s)} ms comes on top. Quantiles are exact to 0.8 %; a dash is what no request was
there for.</caption>
<thead><tr><td></td>{heads}</tr></thead>
<tbody>{rows(traffic)}</tbody>
<tbody><tr class="group"><th scope="rowgroup">ModelLatency, ms</th>{marks}</tr>{rows(latency)}</tbody>
<tbody>{rows(rest)}</tbody>
</table>
</section>"""


def _charts(result: Result, verdict: Verdict, compared: pd.DataFrame) -> list[Chart]:
    """Return the charts, the comparison first."""
    w, end = result.windows, result.scenario.horizon_s
    called = {p.variant: p.variant + (" (OVERLOADED)" if p.status == "OVERLOADED" else "") for p in verdict.pools}
    made, n = (int(w.loc[w["role"] == role, "Invocations"].sum()) for role in ("shadow", "source"))
    copied = f"{count(made)} copies of {count(n)} requests."
    return [
        Chart("comparison", plots.differences(compared, verdict), _changes(compared, called)),
        Chart("latency", plots.latency_over_time(w, verdict, end), _between(w, called, "p99")),
        Chart("distribution", plots.latency_distribution(result.latency, verdict), _quantiles(result, called)),
        Chart("utilisation", plots.utilisation(w, verdict, end), _between(w, called, "offered load")),
        Chart("copies", plots.copies(w, result.scenario.share, verdict, end), copied),
        Chart("requests", plots.requests_over_time(w, verdict, end), _between(w, called, "number of requests")),
    ]


def _comparison(compared: pd.DataFrame, verdict: Verdict) -> str:
    """Put the figures of the comparison into a table: what the chart above it cannot say."""
    cells = []
    for row in records(compared):
        said = time_text if row["unit"] == "s" else percent
        worth = compact(row["n_eff"]) if math.isfinite(row["n_eff"]) else _NONE
        figures = [said(row["source"]), said(row["shadow"]), change(row), interval(row)]
        cells.append((_metric(row), [*(_NONE if x == "-" else x for x in figures), worth, row["verdict"]]))
    roles = [p.role + (", OVERLOADED" if p.status == "OVERLOADED" else "") for p in verdict.pools]
    caption = "n_eff: effective sample size of the smaller side."
    made = table(caption, ["", *roles, "change", "95 % interval", "n_eff", "verdict"], cells, wide=True)
    return f'<section aria-label="The comparison, in figures">\n{made}\n</section>'


def _metric(row: Mapping[str, Any]) -> str:
    return str(row["metric"]).replace("_", " ")


def _cost(scenario: Scenario) -> str:
    found = cost(scenario)
    cells = []
    for row in found.items.to_dict("records"):
        quantity = f"{row['quantity']:,.1f} {row['unit']}" if math.isfinite(row["quantity"]) else "unknown"
        cells.append((str(row["item"]), [quantity, _usd(row["cost_usd"]), f"{row['of']}; {row['note']}"]))
    cells += [("instances in all", ["", _usd(found.instances_usd), ""]), ("with data", ["", _usd(found.total_usd), ""])]
    caption = f"For {duration_text(found.duration_s)}, at the catalogue’s prices, which are examples."
    made = table(caption, ["", "quantity", "USD", "of what"], cells, wide=True)
    return f'<section aria-labelledby="cost">\n<h2 id="cost">What the test costs</h2>\n{made}\n</section>'


def _usd(value: float) -> str:
    return f"{value:,.2f}" if math.isfinite(value) else "unknown"


def _changes(compared: pd.DataFrame, called: Mapping[str, str]) -> str:
    """Say what is worse, what is better and what nobody can say yet."""
    said: dict[str, list[str]] = {}
    for row in records(compared[compared["outcome"] != NOT_JUDGED]):
        said.setdefault(row["verdict"], []).append(f"{_metric(row)} {change(row)}")
    parts = "; ".join(f"{verdict}: {', '.join(changes)}" for verdict, changes in said.items())
    return f"{' and '.join(called.values())} compared. {parts}."


def _between(windows: pd.DataFrame, called: Mapping[str, str], what: str) -> str:
    """Say between what a column of the windows lies, for each variant."""
    column, scale, unit = _SPANS[what]
    found = windows.groupby("variant")[column].agg(["min", "max"]) * scale
    said = count if column == "Invocations" else _number
    spans = {v: (said(found["min"][v]), said(found["max"][v])) for v in called}
    words = (
        f"{name}: " + ("none" if _NONE in spans[v] else " to ".join(spans[v]) + unit) for v, name in called.items()
    )
    return f"Lowest and highest {what} of a window. {'; '.join(words)}."


def _quantiles(result: Result, called: Mapping[str, str]) -> str:
    quantiles = {q: result.quantile(float(q[1:]) / 100.0) for q in ("p50", "p99", "p99.9")}
    each = (
        f"{name}: {', '.join(f'{q} {_ms(x.get(v))} ms' for q, x in quantiles.items())}" for v, name in called.items()
    )
    return f"{'; '.join(each)}."


def _ms(seconds: float | None) -> str:
    return _NONE if seconds is None else "< 0.001" if 0.0 < seconds < 1e-6 else _number(1e3 * seconds)


def _number(x: Any) -> str:
    return significant(float(x)) if math.isfinite(x) else _NONE
