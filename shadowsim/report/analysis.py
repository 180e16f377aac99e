"""Holds what the page of an analysis shows: an answer, charts, tables and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shadowsim.report.html_page import Chart, paragraphs, table

GOOD, BAD, UNSURE, NEUTRAL = "stable", "overloaded", "too-short", "answer"  # classes of the style sheet
MAX_ROWS = 1_000  # in the table of a page


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a page shows of an analysis; all texts are plain but for the tables.

    Attributes
    ----------
    kicker : str
        The kind of analysis: "Fewest instances that meet the goals".
    answer : str
        What was found, in a sentence.
    charts : sequence of Chart
    tables : sequence of str
        HTML.
    status : str
        The heading of the answer.
    tone : str
        How the answer is coloured: GOOD, BAD, UNSURE or NEUTRAL.
    texts : sequence of str
        Paragraphs below the answer: goals, set-up, and what else one must know to use it.
    notes : sequence of str
        Paragraphs below the tables: how to read them.
    title : str
        The heading of the page where there is no scenario to name it.
    documents : mapping of str to object
        JSON objects to show at the end, by their titles.
    """

    kicker: str
    answer: str
    charts: Sequence[Chart] = ()
    tables: Sequence[str] = ()
    status: str = "Answer"
    tone: str = NEUTRAL
    texts: Sequence[str] = ()
    notes: Sequence[str] = ()
    title: str = ""
    documents: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def table_of(
    rows: Sequence[Sequence[str]], caption: str = "", notes: Sequence[str] = (), chosen: Sequence[int] = ()
) -> str:
    """Return a table as HTML.

    Parameters
    ----------
    rows : sequence of sequence of str
        Cells as in a terminal; the first row is the head.
    caption : str
    notes : sequence of str
        A sentence below each row but the head.
    chosen : sequence of int
        The numbers of the rows that are the answer, of those below the head.
    """
    head, *body = rows
    left_out = len(body) - MAX_ROWS
    caption += f" The first {MAX_ROWS:,} rows; {left_out:,} more are left out." if left_out > 0 else ""
    cells = [(name, row) for name, *row in body[:MAX_ROWS]]
    return table(caption.strip(), head, cells, notes[:MAX_ROWS], chosen)


def notes_html(notes: Sequence[str]) -> str:
    """Return paragraphs in small letters; "" for none."""
    return f'<div class="notes">{paragraphs(notes)}</div>' if any(notes) else ""
