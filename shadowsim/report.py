"""A run as one HTML page that needs nothing else: `html(result)` and `write(result, file)`.

The page is made to be mailed, archived and printed. Plotly's script is inside it, once, and nothing is loaded from
elsewhere; its Content-Security-Policy, which names the page's two scripts by their hashes, lets a browser run no other
script and reach no other place. Whatever a request holds is escaped, in text and in data. The same result gives the
same page, to the byte, with the same versions of shadowsim and Plotly.
"""

from __future__ import annotations

import json
import math
import os
from base64 import b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from shadowsim import __version__, plots
from shadowsim.instances import duration_text
from shadowsim.result import Result
from shadowsim.service import Service
from shadowsim.tables import PROCESSES, count, percent, significant, size
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
    verdict, summary = result.verdict, result.summary()
    plotly, draw = _closed(get_plotlyjs()), _beside("report.js")
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(draw)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    name = _text(result.scenario.experiment.name)
    figures = _figures(result, verdict)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: shadow test, simulated</title>
<link rel="icon" href="data:,">
<style>{_beside("report.css")}</style>
</head>
<body>
<header>
<p class="kicker">Shadow test, simulated</p>
<h1>{name}</h1>
{_paragraphs([result.scenario.experiment.description or ""])}
</header>
<main>
{_verdict(verdict)}
<section aria-labelledby="what">
<h2 id="what">What was simulated</h2>
{_paragraphs(_sentences(result))}
{_assumptions(result.scenario.assumptions)}
</section>
{_table(result, summary)}
<noscript><p>The charts need JavaScript; all else on this page does not.</p></noscript>
{"".join(_figure(key, figure, words) for key, figure, words in figures)}
</main>
<footer>
<p>Made by shadowsim {_text(__version__)}. To reproduce: save the scenario as <code>scenario.json</code> and run
<code>shadowsim simulate scenario.json --report</code>. One version and one seed give one result, bit for bit.</p>
<details>
<summary>The scenario, as JSON</summary>
<pre tabindex="0">{_text(json.dumps(result.scenario.to_dict(), indent=2, ensure_ascii=False))}</pre>
</details>
</footer>
<script type="application/json" id="data">{_data(figures)}</script>
<script>{plotly}</script>
<script>{draw}</script>
</body>
</html>
"""


def write(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write the page of a run to a file, and return its path."""
    file = Path(path)
    # A line feed that became two characters would break the hash of a script.
    file.write_text(html(result), encoding="utf-8", newline="\n")
    return file


def _verdict(verdict: Verdict) -> str:
    named = " and ".join(p.variant for p in verdict.pools if p.status == verdict.status)
    pools = "".join(f"<li>{_badge(p.status)} {_text(p.why)}</li>" for p in verdict.pools)
    return f"""<section class="verdict {_class(verdict.status)}" aria-labelledby="verdict">
<h2 id="verdict">{_text(verdict.status)}</h2>
<p class="headline">{_text(_HEADLINES[verdict.status].format(named))}</p>
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
        f"Traffic: {PROCESSES[s.traffic.process]}{shape}, {significant(n / s.horizon_s)} requests a "
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
    items = "".join(f"<li>{_text(s)}</li>" for s in sentences)
    return f"<h3>Assumed, since the input does not say</h3>\n<ul>{items}</ul>" if items else ""


def _table(result: Result, summary: pd.DataFrame) -> str:
    """Put source beside shadow. No quantile of an overloaded pool stands without that word above it."""
    rows = [row for _, row in summary.iterrows()]
    heads = "".join(
        f'<th scope="col">{_text(name)} <span class="role">{row["role"]}</span> {_badge(row["verdict"])}</th>'
        for name, row in zip(summary.index, rows, strict=True)
    )
    grown = "OVERLOADED: these grow with the run"
    marks = "".join(f'<td class="mark">{grown if r["verdict"] == "OVERLOADED" else ""}</td>' for r in rows)
    share = f"{result.scenario.experiment.sampling_percentage} %"
    traffic = [
        ("instances", [count(r["instance_count"]) for r in rows]),
        ("type", [r["instance_type"] for r in rows]),
        ("requests", [count(r["requests"]) for r in rows]),
        ("requests a second", [significant(r["rate_per_s"], 4) for r in rows]),
        ("share copied", ["" if r["role"] == "source" else f"{percent(r['share'], 3)} of {share}" for r in rows]),
    ]
    latency = [(name, [_ms(r[key]) for r in rows]) for name, key in _LATENCIES.items()]
    rest = [
        ("utilisation", [percent(r["utilisation"]) for r in rows]),
        ("errors", [percent(r["error_rate"], 2) if r["requests"] else _NONE for r in rows]),
    ]
    if result.scenario.capture:
        unknown = "size not known"
        rest.append(("captured", [unknown if pd.isna(b) else size(float(b)) for b in summary["captured_bytes"]]))
    s = result.scenario
    return f"""<section aria-labelledby="figures">
<h2 id="figures">Source beside shadow</h2>
<table>
<caption>ModelLatency is wait and service, at most the time-out of {s.timeout_s:g} s, which does not cut the wait. The
platform’s overhead of {_ms(s.overhead_s)} ms comes on top. Quantiles are exact to 0.8 %; a dash is what no request was
there for.</caption>
<thead><tr><td></td>{heads}</tr></thead>
<tbody>{_rows(traffic)}</tbody>
<tbody><tr class="group"><th scope="rowgroup">ModelLatency, ms</th>{marks}</tr>{_rows(latency)}</tbody>
<tbody>{_rows(rest)}</tbody>
</table>
</section>"""


def _rows(rows: Iterable[tuple[str, list[str]]]) -> str:
    return "".join(
        f'<tr><th scope="row">{_text(name)}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in cells)}</tr>\n'
        for name, cells in rows
    )


def _figures(result: Result, verdict: Verdict) -> list[tuple[str, go.Figure, str]]:
    """Return the charts: a key, the figure, and its gist for those who cannot see it."""
    w, end = result.windows, result.scenario.horizon_s
    called = {p.variant: p.variant + (" (OVERLOADED)" if p.status == "OVERLOADED" else "") for p in verdict.pools}
    made, n = (int(w.loc[w["role"] == role, "Invocations"].sum()) for role in ("shadow", "source"))
    return [
        ("latency", plots.latency_over_time(w, verdict, end), _between(w, called, "p99")),
        ("distribution", plots.latency_distribution(result.latency, verdict), _quantiles(result, called)),
        ("utilisation", plots.utilisation(w, verdict, end), _between(w, called, "offered load")),
        (
            "copies",
            plots.copies(w, result.scenario.share, verdict, end),
            f"{count(made)} copies of {count(n)} requests.",
        ),
        ("requests", plots.requests_over_time(w, verdict, end), _between(w, called, "number of requests")),
    ]


def _between(windows: pd.DataFrame, called: Mapping[str, str], what: str) -> str:
    """Say between what a column of the windows lies, for each variant."""
    column, scale, unit = _SPANS[what]
    found = windows.groupby("variant")[column].agg(["min", "max"]) * scale
    text = count if column == "Invocations" else _number
    spans = {v: (text(found["min"][v]), text(found["max"][v])) for v in called}
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


def _figure(key: str, figure: go.Figure, gist: str) -> str:
    title, subtitle = _text(figure.layout.title.text), _text(figure.layout.title.subtitle.text)
    return f"""<figure>
<figcaption><h2>{title}</h2>
<p>{subtitle}</p></figcaption>
<div id="{key}" role="group" aria-label="{title}. {_text(gist)}" style="height: {_height(figure)}px"></div>
<p class="gist">{_text(gist)}</p>
</figure>
"""


def _data(figures: Iterable[tuple[str, go.Figure, str]]) -> str:
    """Return the figures as JSON that cannot close the script element around it. The page has titles of its own."""
    each = []
    for key, figure, _ in figures:
        bare = go.Figure(figure).update_layout(title=None, margin_t=45, height=_height(figure))
        each.append(f'"{key}": {bare.to_json()}')
    return f"{{{', '.join(each)}}}".replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _height(figure: go.Figure) -> int:
    return int(figure.layout.height) - 70  # without its title


def _beside(name: str) -> str:
    return (files("shadowsim") / "data" / name).read_text(encoding="utf-8")


def _closed(script: str) -> str:
    """Return a script without what would end its element, or hide its end. In a script's strings both are the same."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def _text(text: str) -> str:
    """Escape a text, also for an attribute. A lone half of a surrogate pair, which JSON can hold, has no UTF-8."""
    return escape(text.encode("utf-8", "replace").decode())


def _paragraphs(texts: Iterable[str]) -> str:
    return "\n".join(f"<p>{_text(t)}</p>" for t in texts if t)


def _badge(status: str) -> str:
    return f'<strong class="badge {_class(status)}">{_text(status)}</strong>'


def _class(status: str) -> str:
    return status.lower().replace(" ", "-")


def _ms(seconds: float | None) -> str:
    return _NONE if seconds is None else "< 0.001" if 0.0 < seconds < 1e-6 else _number(1e3 * seconds)


def _number(x: Any) -> str:
    return significant(float(x)) if math.isfinite(x) else _NONE
