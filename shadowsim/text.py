"""Writes numbers with their units, wrapped paragraphs and tables that fit 80 columns.

All text is plain ASCII except for names that users choose, so that it reads the same on every terminal and in
every log.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from io import StringIO
from textwrap import fill

WIDTH = 80
_ROUNDING_S = 1e-12  # a shorter time is what sums of floats are off by
_MAX_NAME = 30  # two columns of names and a column of labels fit the width
OVERLOADED = "OVERLOADED"  # the status of a pool; its figures never stand without this word


def count(n: float) -> str:
    """Return a whole number with thousands separators: "34,560,822"."""
    return f"{int(n):,}"


def significant(x: float, n: int = 3) -> str:
    """Return a number with at least `n` significant digits and never an exponent: "70.9", "1.02", "12,345"."""
    if x == 0.0:
        return "0"
    digits = n - 1 - math.floor(math.log10(abs(x)))
    # Rounding may carry into a new digit: 9.996 is 10.0, not 10.00.
    rounded = round(x, digits) if digits > 0 else x
    digits = n - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(digits, 0)}f}"


def compact(n: float) -> str:
    """Return a number with at most three digits and a letter for its thousands: "950", "20.8k", "34.6M"."""
    for letter, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= 0.9995 * scale:
            return f"{significant(n / scale)}{letter}"
    return significant(n) if n < 1.0 else f"{n:.0f}"


def time_text(x: float) -> str:
    """Return a time in the unit that suits its size: "870 us", "70.9 ms", "1.02 s"; "-" for NaN and infinity."""
    if not math.isfinite(x):
        return "-"
    if abs(x) < _ROUNDING_S:
        return "0 s"
    rounded = float(f"{x:.3g}")
    for unit, unit_s in (("us", 1e-6), ("ms", 1e-3)):
        if 0.0 < rounded < 1000.0 * unit_s:
            return f"{significant(rounded / unit_s)} {unit}"
    return f"{significant(rounded)} s"


def duration(x: float) -> str:
    """Return a long time roughly, for people who wait: "45 s", "12 min", "3.5 h"."""
    if x < 90.0:
        return f"{x:.0f} s"
    return f"{x / 60.0:.0f} min" if x < 5400.0 else f"{x / 3600.0:.1f} h"


def percent(share: float, decimals: int = 1) -> str:
    """Return a share as "50.0 %"; "-" for NaN and infinity."""
    return f"{100.0 * share:.{decimals}f} %" if math.isfinite(share) else "-"


def rate(per_s: float) -> str:
    """Return a rate as "400 requests/s"."""
    return f"{trimmed_number(per_s)} requests/s"


def speed(n: int, took_s: float) -> str:
    """Return how long `n` requests took, and their rate: "34,560,822 requests in 1.50 s, 23 million requests/s"."""
    took = f"{n:,} requests in {time_text(took_s)}"
    # A short run mostly measures its own start, so it has no rate.
    return took if took_s < 1.0 or n < 1e6 else f"{took}, {significant(n / took_s / 1e6, 2)} million requests/s"


def bytes_text(n_bytes: float) -> str:
    """Return a number of bytes in decimal units: "1.02 GB"."""
    for unit, unit_bytes in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= unit_bytes:
            return f"{significant(n_bytes / unit_bytes)} {unit}"
    return f"{n_bytes:,.0f} B"


def wrapped(text: str, indent: str = "", hanging: str | None = None) -> str:
    """Return a text in lines of at most 80 columns, broken between words only."""
    after = indent if hanging is None else hanging
    return fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
    )


def grid(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Return rows of cells as lines of columns, two spaces apart.

    Parameters
    ----------
    rows : sequence of sequence of str
        Rows of equal length.
    left : sequence of int
        The columns that are aligned left; all others are aligned right, as numbers are.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows with the same keys as CSV with a header; None becomes an empty field."""
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def short_name(name: str) -> str:
    """Return a name, shortened with "..." so that two columns of names fit the width."""
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."


def trimmed_number(x: float) -> str:
    """Return a number with at least five significant digits and no trailing zeros."""
    text = significant(x, 5)
    return text.rstrip("0").rstrip(".") if "." in text else text


def trimmed_time(x: float) -> str:
    """Return a time without trailing zeros, as users write it: "20 ms"."""
    text, unit = time_text(x).split(" ")
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
