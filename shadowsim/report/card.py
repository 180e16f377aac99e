"""Builds the cards that notebooks show for results, scenarios, experiments, sizes, rates and plans.

A card is plain HTML with inline styles and without scripts. All text is escaped, since users choose names and
descriptions. Only badges have a background and a text colour, so that a card can be read on white and on black. Where
styles are stripped, as code-hosting pages do, headings, lists and tables remain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import pandas as pd

from shadowsim.aws.experiment import Experiment
from shadowsim.aws.instances import experiment_text
from shadowsim.errors import InputError
from shadowsim.planning.enough_instances import enough_texts
from shadowsim.planning.sheet import answers, recommend
from shadowsim.report.analysis_text import no_answer_text, pool_text
from shadowsim.report.capacity_text import answer_text
from shadowsim.report.comparison_text import equal_load, load_sentences
from shadowsim.report.readable_frame import NONE, heading, readable
from shadowsim.report.run_text import event_labels, overload_note, theory_notes, warm_up_notes
from shadowsim.report.scenario_text import scenario_text
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.loads import loads_of, note_of_pools, note_of_sessions
from shadowsim.statistics.sections import frames_of
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
_LOSSES = ("one_fewer", "one_lost", "zone_lost")
_BELOW = ("binding", *_LOSSES, "quota", "replications", "simulated_h", "note", "how", "scale")
_QUIET = "font-size:12px;opacity:.75"


class Card(str):
    """HTML that a notebook renders."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def card(thing: Result | Experiment | Scenario | pd.DataFrame) -> Card:
    """Return the card that a notebook shows.

    Parameters
    ----------
    thing : Result, Experiment, Scenario or DataFrame
        A frame as `size`, `capacity` or `plan` returns it.

    Raises
    ------
    InputError
        If `thing` is anything else.

    Examples
    --------
    >>> import shadowsim as ss
    >>> card = ss.card(ss.default_scenario())
    >>> "built-in" in card._repr_html_()
    True
    """
    if isinstance(thing, Result):
        return _result_card(thing)
    if isinstance(thing, Scenario):
        rows = _labelled(scenario_text(thing), 9)
        return _card("Scenario of a shadow test", thing.experiment.name, _pair_table(rows), _assumed(thing))
    if isinstance(thing, Experiment):
        return _card("Shadow test, as requested", thing.name, _pair_table(_labelled(experiment_text(thing), 16)[1:]))
    if isinstance(thing, pd.DataFrame) and {"one_fewer", "instance_count"} <= set(thing.columns):
        return _card(
            "Fewest instances that meet the goals", _answers_text(thing), _frame_table(thing, _cheapest_rows(thing))
        )
    if isinstance(thing, pd.DataFrame) and {"power", "reaches"} <= set(thing.columns):
        return _plan_card(thing)
    if isinstance(thing, pd.DataFrame) and {"limit_per_s", "factor"} <= set(thing.columns):
        answer = answer_text(thing)
        return _card("Greatest rate that the pools hold", answer, _frame_table(thing, list(thing.index[:1])))
    raise InputError(
        "thing", "must be a Result, an Experiment, a Scenario, or a frame of size, capacity or plan", thing
    )


def _result_card(result: Result) -> Card:
    verdict, summary, scenario = result.verdict, result.summary(), result.scenario
    over = {p.variant for p in verdict.pools if p.status == OVERLOADED}
    rows: list[Sequence[str]] = [
        ["instances", *(f"{r.instance_count:,} × {r.instance_type}" for r in summary.itertuples())],
        ["requests", *map(count, summary["requests"])],
        ["share copied", *("" if r.role == "source" else percent(float(r.share), 2) for r in summary.itertuples())],  # type: ignore[arg-type]
    ]
    uncertain = result.uncertain
    for name, key in _LATENCIES.items():
        texts = [
            NONE if key in uncertain[str(variant)] else time_text(x) + (" *" if variant in over else "")
            for variant, x in summary[key].items()
        ]
        rows.append([name, *texts])
    rows.append(["utilisation", *map(percent, summary["utilisation"])])
    rows.append(["errors", *(percent(x, 2) for x in summary["error_rate"])])
    for name, (label, formatter) in event_labels(scenario).items():
        unknown = [pd.isna(x) or name in uncertain[str(variant)] for variant, x in summary[name].items()]
        rows.append([label, *(NONE if no else formatter(x) for x, no in zip(summary[name], unknown, strict=True))])
    heads = ["", *(f"{name} ({role})" for name, role in zip(summary.index, summary["role"], strict=True))]
    note = overload_note(summary["verdict"]).strip()
    small = f'<div style="{_QUIET}">{escape(note)}</div>' if note else ""
    notes = "".join(f"<div>{_escaped(x)}</div>" for x in [*warm_up_notes([result]), *theory_notes(result)])
    small += f'<div style="{_QUIET}">{notes}</div>' if notes else ""
    parts = [_load_lines(result, verdict), _why(verdict), _table(heads, rows), small]
    return _card("Shadow test, simulated", scenario.experiment.name, *parts, _assumed(scenario), badge=verdict.status)


def _plan_card(plan: pd.DataFrame) -> Card:
    best = recommend(plan)
    if best is None:
        return _card(
            "Plan of a shadow test", "no share and duration shows the effect often enough", _frame_table(plan, [])
        )
    row = readable(plan.loc[[best.name]]).iloc[0]
    title = f"cheapest: {row['share']} for {row['duration']}, {row['USD']} USD, power {row['power']}"
    return _card("Plan of a shadow test", title, _frame_table(plan, [best.name]))


def _answers_text(frame: pd.DataFrame) -> str:
    best = frame.loc[_cheapest_rows(frame)]
    usd = readable(best)["USD"] if len(best) else ()
    pools = [pool_text(row).replace(" x ", " × ") for _, row in best.iterrows()]
    texts = [f"{role}: {pool}, {cost} USD" for role, pool, cost in zip(best["role"], pools, usd, strict=True)]
    return "; ".join(texts) or "; ".join(
        no_answer_text(part, str(role)) for role, part in frame.groupby("role", sort=False)
    )


def _cheapest_rows(frame: pd.DataFrame) -> list[object]:
    """Return the index of each role's first row with an answer, which is the cheapest."""
    return list(answers(frame).drop_duplicates("role").index)


def _card(kicker: str, title: str, *parts: str, badge: str = "") -> Card:
    above = f'<div style="{_QUIET}">{escape(kicker)}</div>'
    heading_line = f'<div><b style="font-size:15px">{_escaped(title)}</b>{_badge(badge)}</div>'
    return Card(f'<div style="{_CARD}">{above}{heading_line}{"".join(parts)}</div>')


def _badge(status: str) -> str:
    style = f"background:{BADGES.get(status)};color:#fff;border-radius:4px;padding:.1em .5em;font-size:12px"
    return f' <strong style="{style}">{escape(status)}</strong>' if status else ""


def _why(verdict: Verdict) -> str:
    return "".join(f"<div>{_escaped(pool.why)}</div>" for pool in verdict.pools)


def _load_lines(result: Result, verdict: Verdict) -> str:
    """Return what unequal loads of both sides do to their figures."""
    runs = frames_of(result)
    loads = loads_of(runs)
    equal = equal_load(result.scenario, loads, verdict.source.status)
    sentences = enough_texts(result.scenario, verdict) + load_sentences(
        loads, equal, [note_of_sessions(runs), note_of_pools(runs)]
    )
    return "".join(f"<div>{_escaped(sentence)}</div>" for sentence in sentences)


def _assumed(scenario: Scenario) -> str:
    items = "".join(f"<li>{_escaped(sentence)}</li>" for sentence in scenario.assumptions)
    if not items:
        return ""
    n = len(scenario.assumptions)
    style = "margin:.2em 0;padding-left:1.4em"
    return f'<details style="{_QUIET}"><summary>Assumed ({n})</summary><ul style="{style}">{items}</ul></details>'


def _frame_table(frame: pd.DataFrame, bold: Iterable[object]) -> str:
    """Return a frame as a table: figures side by side, and sentences in small type below their row."""
    texts = readable(frame)
    if "role" in texts and frame["role"].nunique() == 1:
        texts = texts.drop(columns="role")
    below = [name for name in map(heading, _BELOW) if name in texts]
    common = [name for name in below if len(texts) > 1 and texts[name].nunique() == 1]
    figures = texts.drop(columns=below)
    notes = [_note(row, [name for name in below if name not in common]) for _, row in texts.iterrows()]
    foot = _note(texts.iloc[0], common) if common else ""
    left = [i for i, name in enumerate(figures.columns) if name in ("role", "type")]
    strong = [i for i, key in enumerate(texts.index) if key in list(bold)]
    table = _table(list(figures.columns), figures.to_numpy().tolist(), left, strong, notes)
    return f'{table}<div style="{_QUIET}">{_escaped(f"All rows: {foot}.")}</div>' if foot else table


def _note(row: pd.Series[str], names: Iterable[str]) -> str:
    return "; ".join(f"{name}: {row[name]}" for name in names if row[name] not in ("", NONE))


def _pair_table(rows: Iterable[Sequence[str]]) -> str:
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
        note = below[i] if below else ""
        lines.append(f"<tr>{_cells('td', row, left, '600' if i in bold else '400', _NO_LINE if note else '')}</tr>")
        if note:
            style = f"{_CELL};{_QUIET};text-align:left;padding-left:1.2em;white-space:normal"
            lines.append(f'<tr><td colspan="{len(row)}" style="{style}">{_escaped(note)}</td></tr>')
    head = f"<thead><tr>{_cells('th', heads, left, '600')}</tr></thead>" if heads else ""
    style = "border-collapse:collapse;margin:.5em 0;font-size:13px;font-variant-numeric:tabular-nums"
    return f'<table style="{style}">{head}<tbody>{"".join(lines)}</tbody></table>'


def _cells(tag: str, texts: Sequence[str], left: Sequence[int], weight: str, more: str = "") -> str:
    right = "right;white-space:nowrap" if tag == "td" else "right"
    sides = ["left" if i in left else right for i in range(len(texts))]
    styles = [f"{_CELL};text-align:{side};font-weight:{weight}" for side in sides]
    return "".join(
        f'<{tag} style="{style}{more}">{_escaped(text)}</{tag}>' for style, text in zip(styles, texts, strict=True)
    )


def _labelled(text: str, width: int) -> list[tuple[str, str]]:
    """Split lines into pairs of a label and a text; the text begins at column `width` and may continue below."""
    rows: list[tuple[str, str]] = []
    for line in text.splitlines():
        label, rest = line[:width].strip(), line[width:].strip()
        if label:
            rows.append((label, rest))
        else:
            label, start = rows.pop()
            rows.append((label, f"{start} {rest}"))
    return rows


def _escaped(text: str) -> str:
    """Escape a text for HTML. A lone surrogate, which JSON can hold but UTF-8 cannot, becomes a question mark."""
    return escape(str(text).encode("utf-8", "replace").decode())
