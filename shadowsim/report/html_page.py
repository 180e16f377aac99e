"""One HTML page that needs nothing else: its frame, its charts, and the rules that keep it harmless.

A page is made to be mailed, archived and printed. Plotly's script is inside it, once, and nothing is loaded from
elsewhere; its Content-Security-Policy, which names the page's two scripts by their hashes, lets a browser run no other
script and reach no other place. Whatever a request holds is escaped, in text and in data. The same input gives the same
page, to the byte, with the same versions of shadowsim and Plotly.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path

import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

_SENTENCE = 40  # characters; more are no figure, and may be broken into lines


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure on a page.

    Attributes
    ----------
    key : str
        Its id.
    figure : Figure
        With a title and a subtitle, which become a heading and a paragraph.
    gist : str
        What it shows, for those who cannot see it.
    """

    key: str
    figure: go.Figure
    gist: str


def page(kicker: str, title: str, intro: str, main: str, charts: Sequence[Chart], footer: str) -> str:
    """Return a whole HTML document, about 5 MB, nearly all of it Plotly's script.

    Parameters
    ----------
    kicker, title, intro : str
        Above, as, and below the heading; plain text.
    main, footer : str
        HTML, made of escaped text.
    charts : sequence of Chart
        Where a chart stands, `main` has what `placed` returns for it.
    """
    plotly, draw = _closed(get_plotlyjs()), _beside("report.js")
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(draw)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}: {text(kicker[:1].lower() + kicker[1:])}</title>
<link rel="icon" href="data:,">
<style>{_beside("report.css")}</style>
</head>
<body>
<header>
<p class="kicker">{text(kicker)}</p>
<h1>{text(title)}</h1>
{paragraphs([intro])}
</header>
<main>
{main}
</main>
<footer>
{footer}
</footer>
<script type="application/json" id="data">{_data(charts)}</script>
<script>{plotly}</script>
<script>{draw}</script>
</body>
</html>
"""


def save(html: str, path: str | os.PathLike[str]) -> Path:
    """Write a page to a file, and return its path."""
    file = Path(path)
    # A line feed that became two characters would break the hash of a script.
    file.write_text(html, encoding="utf-8", newline="\n")
    return file


def placed(chart: Chart) -> str:
    """Return the place of a chart on its page."""
    title, subtitle = text(chart.figure.layout.title.text), text(chart.figure.layout.title.subtitle.text)
    gist, height = text(chart.gist), _height(chart.figure)
    return f"""<figure>
<figcaption><h2>{title}</h2>
<p>{subtitle}</p></figcaption>
<div id="{chart.key}" role="group" aria-label="{title}. {gist}" style="height: {height}px"></div>
<p class="gist">{gist}</p>
</figure>
"""


def text(plain: str) -> str:
    """Escape a text, also for an attribute. A lone half of a surrogate pair, which JSON can hold, has no UTF-8."""
    return escape(plain.encode("utf-8", "replace").decode())


def paragraphs(texts: Iterable[str]) -> str:
    """Return a paragraph a text, none for an empty one."""
    return "\n".join(f"<p>{text(t)}</p>" for t in texts if t)


def document(title: str, value: Mapping[str, object]) -> str:
    """Return a JSON object to open and read."""
    shown = text(json.dumps(value, indent=2, ensure_ascii=False))
    return f'<details>\n<summary>{text(title)}</summary>\n<pre tabindex="0">{shown}</pre>\n</details>'


def badge(status: str) -> str:
    """Return a verdict in its colours."""
    return f'<strong class="badge {css_class(status)}">{text(status)}</strong>'


def css_class(status: str) -> str:
    """Return what the style sheet calls a verdict."""
    return status.lower().replace(" ", "-")


def rows(cells: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return rows of a table, each a name and cells of plain text."""
    return "".join(f'<tr><th scope="row">{text(name)}</th>{"".join(map(_cell, row))}</tr>\n' for name, row in cells)


def table(caption: str, heads: Sequence[str], cells: Iterable[tuple[str, Sequence[str]]], wide: bool = False) -> str:
    """Return a table, with plain text in its cells.

    Parameters
    ----------
    caption : str
    heads : sequence of str
        Of all columns; that of the rows' names may be empty.
    cells : iterable of (str, sequence of str)
        A name and cells a row.
    wide : bool
        Whether it is as wide as the page.
    """
    first = f'<th scope="col">{text(heads[0])}</th>' if heads[0] else "<td></td>"
    head = first + "".join(f'<th scope="col">{text(name)}</th>' for name in heads[1:])
    said = f"<caption>{text(caption)}</caption>\n" if caption else ""
    look = ' class="wide"' if wide else ""
    return f"<table{look}>\n{said}<thead><tr>{head}</tr></thead>\n<tbody>{rows(cells)}</tbody>\n</table>"


def _cell(plain: str) -> str:
    kind = ' class="words"' if len(plain) > _SENTENCE else ""
    return f"<td{kind}>{text(plain)}</td>"


def _data(charts: Iterable[Chart]) -> str:
    """Return the figures as JSON that cannot close the script element around it. The page has titles of its own."""
    each = []
    for chart in charts:
        bare = go.Figure(chart.figure).update_layout(title=None, height=_height(chart.figure))
        bare.update_layout(margin_t=max(int(chart.figure.layout.margin.t) - 70, 30))
        each.append(f'"{chart.key}": {bare.to_json()}')
    return f"{{{', '.join(each)}}}".replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _height(figure: go.Figure) -> int:
    return int(figure.layout.height) - 70  # without its title


def _beside(name: str) -> str:
    return (files("shadowsim.report") / name).read_text(encoding="utf-8")


def _closed(script: str) -> str:
    """Return a script without what would end its element, or hide its end. In a script's strings both are the same."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
