"""Assembles a self-contained HTML page from charts and text.

A page can be mailed, archived and printed. It contains Plotly's script once, compressed, and loads nothing from
elsewhere. Its Content-Security-Policy names its two scripts by their hashes, Plotly's by that of the unpacked one, so
that a browser runs no other script and contacts no server. All text and data that come from users are escaped. The same
input gives the same page, byte for byte, with the same versions of shadowsim, Plotly and zlib.

A page is light or dark as its reader's screen is, and printed light. The colours of its style sheet are variables;
those of figures are exchanged by `plots.style.DARK`.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path

import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.io import to_json  # type: ignore[import-untyped]
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from shadowsim.plots.style import DARK

_MAX_FIGURE = 40  # characters; longer cells are sentences, which may be broken into lines
_LONGEST_NAME = 30  # characters; a longer name of a row may be broken, or a narrow page would show little else
_TEXT, _WORDS = ' class="text"', ' class="words"'
_NO_BREAK = "\u00a0"
_UNITS = "%|µs|ms|s|min|h|days?|USD|pt|points?|×"
NO_SCRIPT = "<noscript><p>The charts need JavaScript; the rest of this page does not.</p></noscript>"


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure on a page.

    Attributes
    ----------
    key : str
        The id of its element.
    figure : Figure
        Its title and subtitle become a heading and a paragraph.
    gist : str
        A description of what it shows, for readers who cannot see it.
    """

    key: str
    figure: go.Figure
    gist: str


def page(kicker: str, title: str, intro: str, main: str, charts: Sequence[Chart], footer: str) -> str:
    """Return a complete HTML document: of about 2 MB, nearly all of it Plotly's script, or a small one without charts.

    Parameters
    ----------
    kicker, title, intro : str
        The line above the heading, the heading, and the paragraph below it; plain text.
    main, footer : str
        HTML whose text is escaped.
    charts : sequence of Chart
        The charts whose places (`placed`) `main` contains.
    """
    hashes, scripts = _scripts(charts) if charts else ("'none'", "")
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title if kicker == title else f"{title}: {kicker[:1].lower()}{kicker[1:]}")}</title>
<link rel="icon" href="data:,">
<style>{_file_text("report.css")}</style>
</head>
<body>
<header>
{f'<p class="kicker">{text(kicker)}</p>' if kicker != title else ""}
<h1>{text(title)}</h1>
{paragraphs([intro])}
</header>
<main>
{main}
</main>
<footer>
{footer}
</footer>
{scripts}</body>
</html>
"""


def save(html: str, path: str | os.PathLike[str]) -> Path:
    """Write a page to a file, and return its path."""
    file = Path(path)
    # Line feeds must stay single characters, or the hashes of the scripts would not match.
    file.write_text(html, encoding="utf-8", newline="\n")
    return file


def placed(chart: Chart, said: str = "") -> str:
    """Return the element in which a chart is drawn, with its heading and description.

    A description that is part of `said`, the text above it, is not shown a second time.
    """
    title, subtitle = text(chart.figure.layout.title.text), text(chart.figure.layout.title.subtitle.text)
    gist, height = text(typographic(chart.gist)), _height(chart.figure)
    below = "" if chart.gist in said else f'<p class="gist">{prose(chart.gist)}</p>\n'
    return f"""<figure>
<figcaption><h2>{title}</h2>
<p>{subtitle}</p></figcaption>
<div id="{chart.key}" class="chart" role="group" aria-label="{title}. {gist}" style="height: {height}px"></div>
{below}</figure>
"""


def answer(
    status: str, headline: str, texts: Iterable[str] = (), kind: str = "answer", items: Sequence[str] = ()
) -> str:
    """Return the section at the top of a page: a heading, the answer in a sentence, and what it rests on.

    Parameters
    ----------
    status, headline : str
        Plain text.
    texts : iterable of str
        Paragraphs of plain text.
    kind : str
        A class of the style sheet: answer, stable, overloaded or too-short.
    items : sequence of str
        HTML of a list's items.
    """
    listed = f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>\n" if items else ""
    return f"""<section class="verdict {kind}" aria-labelledby="verdict">
<h2 id="verdict">{text(status)}</h2>
<p class="headline">{prose(headline)}</p>
{paragraphs(texts)}
{listed}</section>"""


def section(key: str, title: str, content: str) -> str:
    """Return a section under a heading; "" without content."""
    return (
        f'<section aria-labelledby="{key}">\n<h2 id="{key}">{text(title)}</h2>\n{content}\n</section>'
        if content
        else ""
    )


def text(plain: str) -> str:
    """Escape a text for HTML and its attributes. A lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    return escape(plain.encode("utf-8", "replace").decode())


def typographic(plain: str) -> str:
    """Return a text of a terminal with the signs of print: −, ±, × between numbers and names, µs, – for nothing."""
    if plain == "-":
        return "–"
    plain = re.sub(r"(?<=\d) x (?=\S)|(?<=\w) x (?=\d)", " × ", plain.replace("+-", "±"))
    plain = re.sub(r"(?<![\w.)-])-(?=\d)", "−", plain)
    return re.sub(r"(?<=\d) us\b", " µs", plain)


def sentence(plain: str) -> str:
    """Return a text with a capital, unless it begins with a name such as p99."""
    return plain[:1].upper() + plain[1:] if re.match(r"[a-z]+\b", plain) else plain


def _unbroken(plain: str) -> str:
    """Return a sentence in which a number stays on one line with its unit, and × with what is counted."""
    plain = re.sub(r"(?<=×) ", _NO_BREAK, plain)
    return re.sub(rf"(?<=\d) (?=(?:{_UNITS})(?!\w))", _NO_BREAK, plain)


def prose(plain: str) -> str:
    """Escape a sentence for HTML, in the signs of print; what stands between backticks, such as a command, is code."""
    parts = re.split(r"`([^`]+)`", plain)
    return "".join(
        f"<code>{text(part)}</code>" if i % 2 else text(_unbroken(typographic(part))) for i, part in enumerate(parts)
    )


def paragraphs(texts: Iterable[str]) -> str:
    """Return one paragraph per text that is not empty."""
    return "\n".join(f"<p>{prose(t)}</p>" for t in texts if t)


def assumptions_list(sentences: Iterable[str]) -> str:
    """Return what was assumed as a list with a heading, "" for nothing."""
    items = "".join(f"<li>{prose(s)}</li>" for s in sentences)
    return f"<h3>Assumed, since the input does not say</h3>\n<ul>{items}</ul>" if items else ""


def document(title: str, value: Mapping[str, object], is_open: bool = False) -> str:
    """Return a JSON object as a section that can be opened, and is printed if it is open."""
    json_text = text(json.dumps(value, indent=2, ensure_ascii=False))
    opening = "<details open>" if is_open else "<details>"
    return f'{opening}\n<summary>{text(title)}</summary>\n<pre tabindex="0">{json_text}</pre>\n</details>'


def badge(status: str) -> str:
    """Return a status in its colours."""
    return f'<strong class="badge {css_class(status)}">{text(status)}</strong>'


def css_class(status: str) -> str:
    """Return the class of a status in the style sheet."""
    return status.lower().replace(" ", "-")


def rows(cells: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return the rows of a table from names and cells of plain text."""
    return "".join(_row(name, row) for name, row in cells)


def scrolling(name: str, table_html: str) -> str:
    """Return a table in a frame that scrolls where the page is too narrow for it, by the keyboard, too."""
    return f'<div class="scroll" role="group" aria-label="{text(name)}" tabindex="0">{table_html}</div>'


def table(
    caption: str,
    heads: Sequence[str],
    cells: Iterable[tuple[str, Sequence[str]]],
    notes: Sequence[str] = (),
    chosen: Sequence[int] = (),
    as_typed: bool = False,
) -> str:
    """Return a table whose cells are plain text, in the signs of print.

    Parameters
    ----------
    caption : str
        A paragraph above it.
    heads : sequence of str
        Headings of all columns; the heading of the rows' names may be empty.
    cells : iterable of (str, sequence of str)
        The name and the cells of each row.
    notes : sequence of str
        A sentence to stand below each row, "" for none.
    chosen : sequence of int
        The numbers of the rows that are the answer.
    as_typed : bool
        Whether cells are data, whose characters stay as they are.
    """
    listed = list(cells)
    columns = [[row[i] for _, row in listed] for i in range(len(heads) - 1)]
    kinds = [_WORDS if any(len(cell) > _MAX_FIGURE for cell in column) else _kind(column) for column in columns]
    first = f'<th scope="col">{text(heads[0])}</th>' if heads[0] else "<td></td>"
    head = first + "".join(
        f'<th scope="col"{_TEXT if kind else ""}>{text(name)}</th>' for name, kind in zip(heads[1:], kinds, strict=True)
    )
    body = "".join(
        _row(name, row, kinds, notes[i] if notes else "", i in chosen, text if as_typed else _printed)
        for i, (name, row) in enumerate(listed)
    )
    above = f'<p class="caption">{_printed(caption)}</p>\n' if caption else ""
    table_html = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>\n</table>"
    return above + scrolling(caption or "Table", table_html)


def _kind(column: Sequence[str]) -> str:
    """Return the class of a column of short cells: words are read from the left, and figures compared at the right."""
    said = [cell for cell in column if cell not in ("", "-", "–")]
    return _TEXT if said and not any(re.match(r"[<>~]?\s?(?:\+-|[-+±])?\s?[\d.]", cell) for cell in said) else ""


def _printed(plain: str) -> str:
    return text(typographic(plain))


def _row(
    name: str,
    cells: Sequence[str],
    columns: Sequence[str] = (),
    note: str = "",
    is_chosen: bool = False,
    shown: Callable[[str], str] = _printed,
) -> str:
    kinds = [kind for kind, given in (("noted", note), ("chosen", is_chosen), ("group", not any(cells))) if given]
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    data = "".join(f"<td{columns[i] if columns else ''}>{shown(cell)}</td>" for i, cell in enumerate(cells))
    row = f'<tr{kind}><th scope="row"{_WORDS if len(name) > _LONGEST_NAME else ""}>{shown(name)}</th>{data}</tr>\n'
    below = f'<tr class="note"><td colspan="{len(cells) + 1}"><p>{shown(note)}</p></td></tr>\n' if note else ""
    return row + below


def _data(charts: Iterable[Chart]) -> str:
    """Return the figures, without their titles, as JSON."""
    members = []
    for chart in charts:
        bare = chart.figure.to_dict()  # a copy of what is valid, which another figure would check once more
        layout = bare["layout"]
        layout.pop("title", None)
        layout["height"] = _height(chart.figure)
        layout["margin"]["t"] = max(layout["margin"]["t"] - 70, 20)
        members.append(f'"{chart.key}": {to_json(bare, validate=False)}')
    return f"{{{', '.join(members)}}}"


def _height(figure: go.Figure) -> int:
    return int(figure.layout.height) - 70  # less the space of its title


def _scripts(charts: Sequence[Chart]) -> tuple[str, str]:
    """Return the hashes of the scripts that may run, and the elements with them and their data."""
    draw = _file_text("report.js")
    packed, plotly_hash = _packed_plotly()
    elements = f"""<script type="text/plain" id="data">{_packed(_data(charts))}</script>
<script type="application/json" id="dark">{json.dumps(DARK)}</script>
<script type="text/plain" id="plotly">{packed}</script>
<script>{draw}</script>
"""
    return f"{plotly_hash} {_hash(draw)}", elements


@cache
def _packed_plotly() -> tuple[str, str]:
    """Return Plotly's script, compressed and in base64, and the hash of the script itself."""
    script = get_plotlyjs()
    return _packed(script), _hash(script)


def _packed(plain: str) -> str:
    """Return a text compressed and in base64, in which no element can end."""
    return b64encode(gzip.compress(plain.encode(), 9, mtime=0)).decode()


def _file_text(name: str) -> str:
    return (files("shadowsim.report") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
