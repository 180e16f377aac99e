"""Assembles a self-contained HTML page from charts and text.

A page can be mailed, archived and printed. It contains Plotly's script once and loads nothing from elsewhere. Its
Content-Security-Policy names its two scripts by their hashes, so that a browser runs no other script and contacts no
server. All text and data that come from users are escaped. The same input gives the same page, byte for byte, with the
same versions of shadowsim and Plotly.
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

_MAX_FIGURE = 40  # characters; longer cells are sentences, which may be broken into lines


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
    """Return a complete HTML document of about 5 MB, nearly all of which is Plotly's script.

    Parameters
    ----------
    kicker, title, intro : str
        The line above the heading, the heading, and the paragraph below it; plain text.
    main, footer : str
        HTML whose text is escaped.
    charts : sequence of Chart
        The charts whose places (`placed`) `main` contains.
    """
    plotly, draw = _script_text(get_plotlyjs()), _file_text("report.js")
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
<style>{_file_text("report.css")}</style>
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
    # Line feeds must stay single characters, or the hashes of the scripts would not match.
    file.write_text(html, encoding="utf-8", newline="\n")
    return file


def placed(chart: Chart) -> str:
    """Return the element in which a chart is drawn, with its heading and description."""
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
    """Escape a text for HTML and its attributes. A lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    return escape(plain.encode("utf-8", "replace").decode())


def paragraphs(texts: Iterable[str]) -> str:
    """Return one paragraph per text that is not empty."""
    return "\n".join(f"<p>{text(t)}</p>" for t in texts if t)


def assumptions_list(sentences: Iterable[str]) -> str:
    """Return what was assumed as a list with a heading, "" for nothing."""
    items = "".join(f"<li>{text(s)}</li>" for s in sentences)
    return f"<h3>Assumed, since the input does not say</h3>\n<ul>{items}</ul>" if items else ""


def document(title: str, value: Mapping[str, object]) -> str:
    """Return a JSON object as a section that can be opened."""
    json_text = text(json.dumps(value, indent=2, ensure_ascii=False))
    return f'<details>\n<summary>{text(title)}</summary>\n<pre tabindex="0">{json_text}</pre>\n</details>'


def badge(status: str) -> str:
    """Return a status in its colours."""
    return f'<strong class="badge {css_class(status)}">{text(status)}</strong>'


def css_class(status: str) -> str:
    """Return the class of a status in the style sheet."""
    return status.lower().replace(" ", "-")


def rows(cells: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return the rows of a table from names and cells of plain text."""
    return "".join(
        f'<tr><th scope="row">{text(name)}</th>{"".join(map(_data_cell, row))}</tr>\n' for name, row in cells
    )


def table(caption: str, heads: Sequence[str], cells: Iterable[tuple[str, Sequence[str]]], wide: bool = False) -> str:
    """Return a table whose cells are plain text.

    Parameters
    ----------
    caption : str
    heads : sequence of str
        Headings of all columns; the heading of the rows' names may be empty.
    cells : iterable of (str, sequence of str)
        The name and the cells of each row.
    wide : bool
        Whether the table is as wide as the page.
    """
    first = f'<th scope="col">{text(heads[0])}</th>' if heads[0] else "<td></td>"
    head = first + "".join(f'<th scope="col">{text(name)}</th>' for name in heads[1:])
    caption_element = f"<caption>{text(caption)}</caption>\n" if caption else ""
    width = ' class="wide"' if wide else ""
    return f"<table{width}>\n{caption_element}<thead><tr>{head}</tr></thead>\n<tbody>{rows(cells)}</tbody>\n</table>"


def _data_cell(plain: str) -> str:
    kind = ' class="words"' if len(plain) > _MAX_FIGURE else ""
    return f"<td{kind}>{text(plain)}</td>"


def _data(charts: Iterable[Chart]) -> str:
    """Return the figures, without their titles, as JSON that cannot close the script element around it."""
    members = []
    for chart in charts:
        bare = go.Figure(chart.figure).update_layout(title=None, height=_height(chart.figure))
        bare.update_layout(margin_t=max(int(chart.figure.layout.margin.t) - 70, 30))
        members.append(f'"{chart.key}": {bare.to_json()}')
    return f"{{{', '.join(members)}}}".replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _height(figure: go.Figure) -> int:
    return int(figure.layout.height) - 70  # less the space of its title


def _file_text(name: str) -> str:
    return (files("shadowsim.report") / name).read_text(encoding="utf-8")


def _script_text(script: str) -> str:
    """Return a script that cannot end its own element early; the escapes do not change its strings."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
