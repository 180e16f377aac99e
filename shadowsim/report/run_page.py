"""Shows a run on one HTML page: verdict, summary, cost, comparison and charts.

`html(result)` returns the page, `write(result, file)` saves it. html_page.py assembles it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from shadowsim import __version__, plots
from shadowsim.aws.instances import duration_text
from shadowsim.frames import failures
from shadowsim.planning.costs import cost
from shadowsim.planning.enough_instances import enough_texts
from shadowsim.plots.pools import action_text
from shadowsim.report.analysis_text import usd_text
from shadowsim.report.comparison_text import (
    change,
    equal_load,
    interval,
    load_sentences,
    outcome_text,
    records,
    values,
)
from shadowsim.report.html_page import (
    NO_SCRIPT,
    Chart,
    answer,
    assumptions_list,
    badge,
    css_class,
    document,
    page,
    paragraphs,
    placed,
    prose,
    rows,
    save,
    scrolling,
    section,
    table,
    text,
)
from shadowsim.report.planned_analyses import changes_text
from shadowsim.report.run_text import event_labels, theory_notes, warm_up_notes
from shadowsim.report.scenario_text import event_rows, tokens_text
from shadowsim.result import Result
from shadowsim.scenario.service import Service
from shadowsim.statistics.loads import SESSIONS, loads_of_table, note_of_pools
from shadowsim.statistics.sections import frames_of
from shadowsim.text import (
    OVERLOADED,
    bytes_text,
    compact,
    count,
    duration,
    percent,
    significant,
    time_text,
    trimmed_number,
)
from shadowsim.verdict import UNCERTAIN_RULE, Verdict, clock

_NONE = "–"
_LONG_S = 600.0
_MOST_ACTIONS = 200  # rows of the table of scaling actions and outages
_HEADLINES = {
    "STABLE": "Both pools keep up with their requests.",
    OVERLOADED: "{} cannot keep up with its requests. Its latencies depend on the length of the run, not on the pool.",
    "TOO SHORT": "The run is too short to show the tail of {}.",
}
_LATENCIES = {"mean": "mean_s", "p50": "p50_s", "p90": "p90_s", "p95": "p95_s", "p99": "p99_s", "p99.9": "p99_9_s"}
_LATENCIES |= {"maximum": "maximum_s", "mean wait": "wait_mean_s"}
_SPANS = {
    "p99": ("ModelLatency_p99", 1e-3, " ms"),
    "offered load": ("offered_load", 100.0, " %"),
    "mean wait": ("wait_mean_s", 1.0, ""),
    "number of requests": ("Invocations", 1.0, ""),
    "number of serving instances": ("serving_instance_count", 1.0, ""),
    "mean batch size": ("batch_size_mean", 1.0, ""),
    "p99 to the first token": ("FirstChunkModelLatency_p99", 1e-3, " ms"),
    "mean number of running sequences": ("running_sequences_mean", 1.0, ""),
}


def html(result: Result) -> str:
    """Return the page of a run.

    Parameters
    ----------
    result : Result
        A simulated run, or one that `Result.load` returned.

    Returns
    -------
    str
        A complete HTML document of about 2 MB, nearly all of which is Plotly's script.
    """
    verdict, summary, scenario = result.verdict, result.summary(), result.scenario
    compared = result.compare()
    charts = _charts(result, verdict, compared)
    loads = loads_of_table(compared)
    notes = [compared.attrs.get(SESSIONS, ""), note_of_pools(frames_of(result))]
    enough = enough_texts(scenario, verdict)
    load_texts = enough + load_sentences(loads, equal_load(scenario, loads, verdict.source.status), notes)
    main = f"""{_verdict_section(verdict, load_texts)}
{section("what", "What was simulated", paragraphs(_sentences(result)) + assumptions_list(scenario.assumptions))}
{_summary_section(result, summary)}
{_cost_section(result)}
{NO_SCRIPT}
{placed(charts[0])}
{_comparison_section(compared, verdict)}
{"".join(placed(chart) for chart in charts[1:])}
{_actions_section(result.actions)}"""
    footer = f"""<p>Made by shadowsim {text(__version__)}. To reproduce: save the scenario as
<code>scenario.json</code> and run <code>shadowsim simulate scenario.json --report</code>. The same version and
seed give the same result, bit for bit.</p>
{document("The scenario, as JSON", scenario.to_dict())}"""
    e = scenario.experiment
    return page("Shadow test, simulated", e.name, e.description or "", main, charts, footer)


def write(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write the page of a run to a file, and return its path."""
    return save(html(result), path)


def _verdict_section(verdict: Verdict, load_texts: Sequence[str]) -> str:
    """Return the verdict, and what the loads of both sides do to their comparison."""
    variants = " and ".join(p.variant for p in verdict.pools if p.status == verdict.status)
    pools = [f"{badge(p.status)} {prose(p.why)}" for p in verdict.pools]
    headline = _HEADLINES[verdict.status].format(variants)
    return answer(verdict.status, headline, load_texts, css_class(verdict.status), pools)


def _sentences(result: Result) -> list[str]:
    """Return sentences on traffic and horizon, pools and services, share and seed."""
    s, e = result.scenario, result.scenario.experiment
    n = int(result.windows.loc[result.windows["role"] == "source", "Invocations"].sum())
    length = duration_text(s.horizon_s) if s.horizon_s >= 60 else f"{s.horizon_s:g} s"
    windows = "one window" if s.n_windows == 1 else f"{count(s.n_windows)} windows of {s.period_s:g} s"
    shape = f" with a profile ({s.traffic.block['profile']['kind']})" if s.traffic.profile else ""  # type: ignore[index]
    traffic = (
        f"Traffic: {s.traffic.title}{shape}, {significant(n / s.horizon_s)} requests "
        f"per second{', retries among them,' if s.traffic.retries else ''} in the mean for {length}, in {windows}."
    )
    pools = [
        f"{v.name} has {count(v.pool.instance_count)} × {v.pool.instance_type}"
        f"{_service_text(s.services[v.name], workers)}."
        for v, workers in ((e.source, s.source_workers), (e.shadow, s.shadow_workers))
    ]
    routing = " and ".join(sorted(set(s.routing.values())))
    share = (
        f"{e.sampling_percentage} % of the requests to {e.source.name} are copied to {e.shadow.name} (rule "
        f"{s.mirror_rule}, at {s.mirror_instant}). Routing is {routing}; the seed is {s.seed}."
    )
    events = [f"{label.capitalize()} of {text_of}." for label, text_of in event_rows(s)]
    return [traffic, " ".join(pools), " ".join(events), share, *warm_up_notes([result]), *theory_notes(result)]


def _service_text(service: Service, workers: int) -> str:
    if service.tokens is not None:
        return f"; each runs {tokens_text(service.tokens)}"
    each, law = f" with {workers} {'worker' if workers == 1 else 'workers'} each; its service times are", service.time
    if law.kind == "linear":
        return f"{each} linear in {' and '.join(law.columns)}"
    return f"{each} {law.kind} with mean {_ms(law.mean)} ms and SCV {law.scv:.3g}"


def _summary_section(result: Result, summary: pd.DataFrame) -> str:
    """Return the summary, source beside shadow, with a mark above the latencies of an overloaded pool."""
    variants = [row for _, row in summary.iterrows()]
    heads = "".join(
        f'<th scope="col">{text(name)} <span class="role">{row["role"]}</span> {badge(row["verdict"])}</th>'
        for name, row in zip(summary.index, variants, strict=True)
    )
    warning = f"{OVERLOADED}: these depend on its length"
    marks = "".join(f'<td class="mark">{warning if r["verdict"] == OVERLOADED else ""}</td>' for r in variants)
    share = f"{result.scenario.experiment.sampling_percentage} %"
    traffic = [
        ("instances", [count(r["instance_count"]) for r in variants]),
        ("type", [r["instance_type"] for r in variants]),
        ("requests", [count(r["requests"]) for r in variants]),
        ("requests per second", [significant(r["rate_per_s"], 4) for r in variants]),
        ("share copied", ["" if r["role"] == "source" else f"{percent(r['share'], 3)} of {share}" for r in variants]),
    ]
    uncertain = result.uncertain

    def with_error(row: pd.Series[Any], key: str, formatter: Callable[[float], str] = _ms) -> str:
        error = 2.0 * row.get(f"{key}_error", math.nan)
        known = math.isfinite(error) and row["verdict"] != OVERLOADED
        return formatter(float(row[key])) + (f" ± {formatter(error)}" if known else "")

    latency = [
        (name, [_NONE if key in uncertain[str(r.name)] else with_error(r, key) for r in variants])
        for name, key in _LATENCIES.items()
    ]
    rest = [
        ("utilisation", [percent(r["utilisation"]) for r in variants]),
        ("errors", [percent(r["error_rate"], 2) if r["requests"] else _NONE for r in variants]),
    ]
    for name, (label, formatter) in event_labels(result.scenario).items():
        unknown = [pd.isna(r[name]) or name in uncertain[str(r.name)] for r in variants]
        texts = [_NONE if no else with_error(r, name, formatter) for r, no in zip(variants, unknown, strict=True)]
        rest.append((label, texts))
    if result.scenario.capture:
        no_size = "size not known"
        rest.append(("captured", [no_size if pd.isna(b) else bytes_text(float(b)) for b in summary["captured_bytes"]]))
    s = result.scenario
    caption = (
        f"ModelLatency is queueing plus service time, capped at the {s.timeout_s:g} s time-out; waits are not capped. "
        f"The platform’s overhead of {_ms(s.overhead_s)} ms is added to it. Quantiles are exact to 0.8 %; ± two "
        "standard errors. Errors are answers 4XX and 5XX, and time-outs. A dash means no requests, or too short a run: "
        f"{UNCERTAIN_RULE}."
    )
    figures = f"""<table class="full">
<thead><tr><td></td>{heads}</tr></thead>
<tbody>{rows(traffic)}</tbody>
<tbody><tr class="group"><th scope="rowgroup">ModelLatency, ms</th>{marks}</tr>{rows(latency)}</tbody>
<tbody>{rows(rest)}</tbody>
</table>"""
    about = f'<p class="caption">{text(caption)}</p>'
    return section("figures", "Source beside shadow", f"{about}\n{scrolling('Source beside shadow', figures)}")


def _charts(result: Result, verdict: Verdict, compared: pd.DataFrame) -> list[Chart]:
    """Return the charts, the comparison first."""
    w, end = result.windows, result.scenario.horizon_s
    labels = {p.variant: p.variant + (f" ({OVERLOADED})" if p.status == OVERLOADED else "") for p in verdict.pools}
    n_copies, n = (int(w.loc[w["role"] == role, "Invocations"].sum()) for role in ("shadow", "source"))
    copied = f"{count(n_copies)} copies of {count(n)} requests."
    charts = [
        Chart("comparison", plots.differences(compared, verdict), _changes_text(compared, labels)),
        Chart("latency", plots.latency_over_time(w, verdict, end), _range_text(w, labels, "p99")),
        Chart("distribution", plots.latency_distribution(result.latency, verdict), _quantiles_text(result, labels)),
        Chart("utilisation", plots.utilisation(w, verdict, end), _range_text(w, labels, "offered load")),
        Chart("copies", plots.copies(w, result.scenario.share, verdict, end), copied),
        Chart("requests", plots.requests_over_time(w, verdict, end), _range_text(w, labels, "number of requests")),
    ]
    if verdict.status == OVERLOADED:
        gist = _range_text(w, labels, "mean wait")
        charts.insert(2, Chart("waits", plots.waits_over_time(w, verdict, end), gist))
    return charts + _event_charts(result, verdict, labels)


def _event_charts(result: Result, verdict: Verdict, labels: Mapping[str, str]) -> list[Chart]:
    """Return the charts of pools that scale, fail, batch or serve tokens, and of callers that retry, as a run has."""
    w, end, scenario, charts = result.windows, result.scenario.horizon_s, result.scenario, []
    services = [scenario.services[variant] for variant in labels]
    if any(service.scaling or service.outages for service in services):
        figure = plots.instances_over_time(w, result.actions, verdict, end)
        charts.append(Chart("instances", figure, _range_text(w, labels, "number of serving instances")))
    if any(service.outages for service in services) or scenario.traffic.retries:
        charts.append(Chart("failures", plots.failures_over_time(w, verdict, end), _failed_text(w, labels)))
    if scenario.traffic.retries:
        source = result.summary().iloc[0]
        figures = event_labels(scenario)
        retries, succeeded = (figures[name][1](source[name]) for name in ("retries_per_request", "success_rate"))
        gist = f"{retries} retries per request; {succeeded} of the requests succeeded."
        charts.append(Chart("callers", plots.callers_over_time(w, verdict, end), gist))
    if any(service.batching for service in services):
        gist = _range_text(w, labels, "mean batch size")
        charts.append(Chart("batches", plots.batch_size_over_time(w, verdict, end), gist))
    if any(service.tokens for service in services):
        gist = _range_text(w, labels, "p99 to the first token")
        charts.append(Chart("first-token", plots.first_token_over_time(w, verdict, end), gist))
        gist = _range_text(w, labels, "mean number of running sequences")
        charts.append(Chart("sequences", plots.sequences_over_time(w, verdict, end), gist))
    return charts


def _actions_section(actions: pd.DataFrame) -> str:
    """Return the scaling actions and outages as a table that can be opened, "" if there are none."""
    if actions.empty:
        return ""
    cells = [
        (clock(row.time_s), [str(row.variant), action_text(row), str(row.serving_after)])  # type: ignore[arg-type]
        for row in actions.head(_MOST_ACTIONS).itertuples()
    ]
    n = len(actions)
    shown = f", the first {_MOST_ACTIONS}" if n > _MOST_ACTIONS else ""
    actions_table = table("", ["time", "variant", "action", "serving after"], cells)
    return f"<details>\n<summary>Scaling actions and outages: {n:,}{shown}</summary>\n{actions_table}\n</details>"


def _comparison_section(compared: pd.DataFrame, verdict: Verdict) -> str:
    """Return the comparison as a table, with the figures that its chart cannot show."""
    cells = []
    for row in records(compared):
        n_eff = compact(row["n_eff"]) if math.isfinite(row["n_eff"]) else _NONE
        figures = [*values(row), change(row), interval(row)]
        cells.append((_metric_text(row), [*figures, n_eff, outcome_text(row)]))
    roles = [p.role + (f", {OVERLOADED}" if p.status == OVERLOADED else "") for p in verdict.pools]
    caption = (
        "No difference: the whole interval lies within the margin. n_eff: effective sample size of the smaller side."
    )
    figures_table = table(caption, ["", *roles, "change", "95 % interval", "n_eff", "verdict"], cells)
    return f'<section aria-label="Data table of the comparison">\n{figures_table}\n</section>'


def _metric_text(row: Mapping[str, Any]) -> str:
    return str(row["metric"]).replace("_", " ")


def _cost_section(result: Result) -> str:
    costs = cost(result)
    cells = []
    for row in costs.items.to_dict("records"):
        quantity = f"{row['quantity']:,.1f} {row['unit']}" if math.isfinite(row["quantity"]) else "unknown"
        cells.append((str(row["item"]), [quantity, usd_text(row["cost_usd"]), f"{row['of']}; {row['note']}"]))
    cells += [
        ("instances in all", ["", usd_text(costs.instances_usd), ""]),
        ("with data", ["", usd_text(costs.total_usd), ""]),
    ]
    caption = f"For {duration_text(costs.duration_s)}, at the catalogue’s prices, which are examples."
    cost_table = table(caption, ["", "quantity", "USD", "details"], cells)
    return section("cost", "Cost of the test", cost_table)


def _changes_text(compared: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """Return the metrics that are worse, better and undecided, with their changes."""
    return f"{' and '.join(labels.values())} compared. {changes_text(compared)}"


def _range_text(windows: pd.DataFrame, labels: Mapping[str, str], quantity: str) -> str:
    """Return the lowest and the highest value of a window for each variant."""
    column, scale, unit = _SPANS[quantity]
    extremes = windows.groupby("variant")[column].agg(["min", "max"]) * scale
    formatter: Callable[[float], str] = _FORMATTERS.get(column, _number_text)
    spans = {v: (formatter(extremes["min"][v]), formatter(extremes["max"][v])) for v in labels}
    texts = (
        f"{name}: " + ("none" if _NONE in spans[v] else " to ".join(spans[v]) + unit) for v, name in labels.items()
    )
    return f"Lowest and highest {quantity} of a window. {'; '.join(texts)}."


def _failed_text(windows: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """Return the share of each variant's requests that failed: of all, and in the window where it is greatest."""
    counts = pd.DataFrame({"n": windows["Invocations"].astype(float), "failed": failures(windows)})
    parts = []
    for variant, part in counts.groupby(windows["variant"]):
        n, failed = part["n"], part["failed"]
        whole, most = percent(failed.sum() / (n.sum() or math.nan), 2), percent((failed / n[n > 0]).max(), 2)
        parts.append(f"{labels[str(variant)]}: {whole} failed, at most {most} of a window")
    return f"{'; '.join(parts)}."


def _quantiles_text(result: Result, labels: Mapping[str, str]) -> str:
    uncertain = result.uncertain
    quantiles = {q: result.quantile(float(q[1:]) / 100.0) for q in ("p50", "p99", "p99.9")}
    known = {v: [q for q in quantiles if _LATENCIES[q] not in uncertain[v]] for v in labels}
    texts = (
        f"{name}: {', '.join(f'{q} {_ms(quantiles[q].get(v))} ms' for q in known[v]) or 'too few answers'}"
        for v, name in labels.items()
    )
    return f"{'; '.join(texts)}."


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return _NONE
    if seconds > _LONG_S:  # as no answer takes, but waits in an endless queue do
        return duration(seconds)
    return "< 0.001" if 0.0 < seconds < 1e-6 else _number_text(1e3 * seconds)


def _wait_text(seconds: float) -> str:
    return duration(seconds) if seconds > _LONG_S else time_text(seconds)


def _number_text(x: Any) -> str:
    return significant(float(x)) if math.isfinite(x) else _NONE


_FORMATTERS: Mapping[str, Callable[[float], str]] = {  # of columns of windows, in texts below charts
    "Invocations": count,
    "wait_mean_s": _wait_text,
    "serving_instance_count": trimmed_number,
}
