"""What a notebook shows of a result, an experiment, a scenario, or the frame of `size` or `plan`: a card.

Plain HTML with its styles inside, no script, and all text escaped, since names and descriptions are users'. A card has
no background and no colour of text but its badges', so that it can be read on white and on black; where styles are
taken away, as code-hosting pages do, headings, lists and tables remain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import pandas as pd

from shadowsim.aws.experiment import Experiment
from shadowsim.aws.instances import experiment_text
from shadowsim.errors import InputError
from shadowsim.planning.sheet import recommend
from shadowsim.report.readable_frame import NONE, heading, readable
from shadowsim.report.run_text import of_overload
from shadowsim.report.scenario_text import scenario_text
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario
from shadowsim.text import OVERLOADED, count, percent, time_text
from shadowsim.verdict import Verdict

BADGES = {"STABLE": "#0B7A4B", OVERLOADED: "#A32A6C", "TOO SHORT": "#8A6100"}  # white text is legible on all of them
_LINE = "rgba(128,128,128,.4)"
_LATENCIES = {"mean": "mean_s", "p50": "p50_s", "p95": "p95_s", "p99": "p99_s", "p99.9": "p99_9_s"}
_CARD = (
    f"display:inline-block;max-width:64em;overflow-x:auto;border:1px solid {_LINE};border-radius:6px;"
    "padding:.7em 1em;margin:.2em 0;font:13px/1.5 system-ui,sans-serif;text-align:left"
)
_CELL = f"padding:.15em 1.2em .15em 0;border:0;border-bottom:1px solid {_LINE};vertical-align:top;background:none"
_NO_LINE = ";border-bottom:0"
_BELOW = ("binding", "one_fewer", "quota", "replications", "simulated_h", "note", "how", "scale")
_QUIET = "font-size:12px;opacity:.75"


class Card(str):
    """HTML that a notebook shows as such."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def card(thing: Result | Experiment | Scenario | pd.DataFrame) -> Card:
    """Return what a notebook shows of something.

    Parameters
    ----------
    thing : Result, Experiment, Scenario or DataFrame
        A frame as `size` or `plan` returns it.

    Raises
    ------
    InputError
        When it is something else.
    """
    if isinstance(thing, Result):
        return _of_result(thing)
    if isinstance(thing, Scenario):
        rows = _labelled(scenario_text(thing), 9)
        return _card("Scenario of a shadow test", thing.experiment.name, _pairs(rows), _assumed(thing))
    if isinstance(thing, Experiment):
        return _card("Shadow test, as requested", thing.name, _pairs(_labelled(experiment_text(thing), 16)[1:]))
    if isinstance(thing, pd.DataFrame) and {"one_fewer", "instance_count"} <= set(thing.columns):
        return _card("Fewest instances that meet the goals", _fewest(thing), _frame(thing, _bests(thing)))
    if isinstance(thing, pd.DataFrame) and {"power", "reaches"} <= set(thing.columns):
        return _of_plan(thing)
    raise InputError("thing", "must be a Result, an Experiment, a Scenario, or a frame of size or plan", thing)


def _of_result(result: Result) -> Card:
    verdict, summary, scenario = result.verdict, result.summary(), result.scenario
    over = {p.variant for p in verdict.pools if p.status == OVERLOADED}
    rows: list[Sequence[str]] = [
        ["instances", *(f"{r.instance_count:,} × {r.instance_type}" for r in summary.itertuples())],
        ["requests", *map(count, summary["requests"])],
        ["share copied", *("" if r.role == "source" else percent(float(r.share), 2) for r in summary.itertuples())],  # type: ignore[arg-type]
    ]
    for name, key in _LATENCIES.items():
        marks = [" *" if variant in over else "" for variant in summary.index]
        rows.append([name, *(time_text(x) + mark for x, mark in zip(summary[key], marks, strict=True))])
    rows.append(["utilisation", *map(percent, summary["utilisation"])])
    rows.append(["errors", *(percent(x, 2) for x in summary["error_rate"])])
    heads = ["", *(f"{name} ({role})" for name, role in zip(summary.index, summary["role"], strict=True))]
    note = of_overload(summary["verdict"]).strip()
    parts = [_why(verdict), _table(heads, rows), f'<div style="{_QUIET}">{escape(note)}</div>' if note else ""]
    return _card("Shadow test, simulated", scenario.experiment.name, *parts, _assumed(scenario), badge=verdict.status)


def _of_plan(plan: pd.DataFrame) -> Card:
    best = recommend(plan)
    if best is None:
        return _card("Plan of a shadow test", "no share and duration shows the effect often enough", _frame(plan, []))
    row = readable(plan.loc[[best.name]]).iloc[0]
    said = f"cheapest: {row['share']} for {row['duration']}, {row['USD']} USD, power {row['power']}"
    return _card("Plan of a shadow test", said, _frame(plan, [best.name]))


def _fewest(frame: pd.DataFrame) -> str:
    best = readable(frame.loc[_bests(frame)])
    said = [f"{row['role']}: {row['instances']} × {row['type']}, {row['USD']} USD" for _, row in best.iterrows()]
    return "; ".join(said) or "no count meets them"


def _bests(frame: pd.DataFrame) -> list[object]:
    """Return the index of each role's first row that is an answer, which is the cheapest."""
    return list(frame[frame["instance_count"].notna()].drop_duplicates("role").index)


def _card(kicker: str, title: str, *parts: str, badge: str = "") -> Card:
    head = (
        f'<div style="{_QUIET}">{escape(kicker)}</div><div><b style="font-size:15px">{_text(title)}</b>{_badge(badge)}'
    )
    return Card(f'<div style="{_CARD}">{head}</div>{"".join(parts)}</div>')


def _badge(status: str) -> str:
    look = f"background:{BADGES.get(status)};color:#fff;border-radius:4px;padding:.1em .5em;font-size:12px"
    return f' <strong style="{look}">{escape(status)}</strong>' if status else ""


def _why(verdict: Verdict) -> str:
    return "".join(f"<div>{_text(pool.why)}</div>" for pool in verdict.pools)


def _assumed(scenario: Scenario) -> str:
    items = "".join(f"<li>{_text(sentence)}</li>" for sentence in scenario.assumptions)
    if not items:
        return ""
    n = len(scenario.assumptions)
    look = "margin:.2em 0;padding-left:1.4em"
    return f'<details style="{_QUIET}"><summary>Assumed ({n})</summary><ul style="{look}">{items}</ul></details>'


def _frame(frame: pd.DataFrame, bold: Iterable[object]) -> str:
    """Return a frame as a table: figures side by side, and below each row, small, what is a sentence."""
    shown = readable(frame)
    if "role" in shown and frame["role"].nunique() == 1:
        shown = shown.drop(columns="role")
    said = [name for name in map(heading, _BELOW) if name in shown]
    always = [name for name in said if len(shown) > 1 and shown[name].nunique() == 1]
    side = shown.drop(columns=said)
    words = [_words(row, [name for name in said if name not in always]) for _, row in shown.iterrows()]
    foot = _words(shown.iloc[0], always) if always else ""
    texts = [i for i, name in enumerate(side.columns) if name in ("role", "type")]
    strong = [i for i, key in enumerate(shown.index) if key in list(bold)]
    table = _table(list(side.columns), side.to_numpy().tolist(), texts, strong, words)
    return f'{table}<div style="{_QUIET}">{_text(f"All rows: {foot}.")}</div>' if foot else table


def _words(row: pd.Series[str], names: Iterable[str]) -> str:
    return "; ".join(f"{name}: {row[name]}" for name in names if row[name] not in ("", NONE))


def _pairs(rows: Iterable[Sequence[str]]) -> str:
    return _table([], list(rows), left=(0, 1))


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Sequence[int] = (0,),
    bold: Sequence[int] = (),
    below: Sequence[str] = (),
) -> str:
    lines = []
    for i, row in enumerate(rows):
        said = below[i] if below else ""
        lines.append(f"<tr>{_cells('td', row, left, '600' if i in bold else '400', _NO_LINE if said else '')}</tr>")
        if said:
            look = f"{_CELL};{_QUIET};text-align:left;padding-left:1.2em;white-space:normal"
            lines.append(f'<tr><td colspan="{len(row)}" style="{look}">{_text(said)}</td></tr>')
    head = f"<thead><tr>{_cells('th', heads, left, '600')}</tr></thead>" if heads else ""
    look = "border-collapse:collapse;margin:.5em 0;font-size:13px;font-variant-numeric:tabular-nums"
    return f'<table style="{look}">{head}<tbody>{"".join(lines)}</tbody></table>'


def _cells(tag: str, texts: Sequence[str], left: Sequence[int], weight: str, more: str = "") -> str:
    figure = "right;white-space:nowrap" if tag == "td" else "right"
    sides = ["left" if i in left else figure for i in range(len(texts))]
    looks = [f"{_CELL};text-align:{side};font-weight:{weight}" for side in sides]
    return "".join(
        f'<{tag} style="{look}{more}">{_text(text)}</{tag}>' for look, text in zip(looks, texts, strict=True)
    )


def _labelled(text: str, width: int) -> list[tuple[str, str]]:
    """Split lines of a label and a text, that begins at a column and may go on below itself, into pairs."""
    rows: list[tuple[str, str]] = []
    for line in text.splitlines():
        label, rest = line[:width].strip(), line[width:].strip()
        if label:
            rows.append((label, rest))
        else:
            label, begun = rows.pop()
            rows.append((label, f"{begun} {rest}"))
    return rows


def _text(text: str) -> str:
    """Escape a text. A lone half of a surrogate pair, which JSON can hold, has no UTF-8."""
    return escape(str(text).encode("utf-8", "replace").decode())
