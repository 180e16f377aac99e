"""Reads numbers, counts, durations and percentages that users give; an error names the parameter.

Everything that takes a duration takes the same texts: "30ms", "1.5h", "1d" (us, ms, s, m or min, h, d, w). A number
without a unit is in seconds.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from operator import index

from shadowsim.errors import InputError

# Seconds per unit, as texts for Decimal: 30 x the float 0.001 may differ from the float 0.03 in its last bit.
TIME_UNITS = {
    **{"us": "0.000001", "µs": "0.000001", "μs": "0.000001", "ms": "0.001", "s": "1"},
    **{"m": "60", "min": "60", "h": "3600", "d": "86400", "w": "604800"},
}
# A text with a unit, as a pattern that JSON Schema understands, too.
DURATION = rf"^\s*([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{{1,3}})?\s*({'|'.join(TIME_UNITS)})\s*$"
_DURATION = re.compile(DURATION)


def number(
    value: object,
    path: str,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> float:
    """Return `value` as a float when it is a finite JSON number within the bounds.

    Booleans and texts with digits are not numbers here.
    """
    bounds = [f"> {above:g}"] if above is not None else []
    bounds += [f">= {least:g}"] if least is not None else []
    bounds += [f"<= {most:g}"] if most is not None else []
    constraint = "must be a finite number" + (" " + " and ".join(bounds) if bounds else "")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(path, constraint, value)
    try:
        result = float(value)
    except OverflowError:  # an integer of more than 308 digits
        raise InputError(path, constraint, value) from None
    inside = (
        (above is None or result > above) and (least is None or result >= least) and (most is None or result <= most)
    )
    if not math.isfinite(result) or not inside:
        raise InputError(path, constraint, value)
    return result


def integer(value: object, path: str, *, least: int, most: int | None = None) -> int:
    """Return `value` as an int when it is an integer, also one of numpy's, from `least` to `most` or unbounded."""
    bounds = f"must be a whole number >= {least}" if most is None else f"must be an integer from {least} to {most}"
    try:
        whole = index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(path, bounds, value) from None
    if isinstance(value, bool) or whole < least or (most is not None and whole > most):
        raise InputError(path, bounds, value)
    return whole


def parse_duration(value: object, path: str) -> float:
    """Return a duration in seconds.

    A number is in seconds; a text needs a unit, such as "30ms", "1.5h" or "1d". Units are us, ms, s, m or min, h, d, w.

    Raises
    ------
    InputError
        It is neither, or its unit is unknown.
    """
    if not isinstance(value, str):
        return number(value, path)
    match = _DURATION.fullmatch(value)
    seconds = float(Decimal(match[1] + (match[2] or "")) * Decimal(TIME_UNITS[match[3]])) if match else math.inf
    if not math.isfinite(seconds):
        what = "must be seconds, or have a unit (us, ms, s, m or min, h, d, w), as in 30ms or 1.5h"
        raise InputError(path, what, value)
    return seconds


def per_cent(value: object, path: str) -> float:
    """Return a margin in per cent: the text "5%" is 5, and so are the share 0.05 and its text.

    A number >= 1 is refused, because it could mean either.
    """
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    try:
        margin_pct = float(text.removesuffix("%")) * (1.0 if text.endswith("%") else 100.0)
    except ValueError:
        margin_pct = math.nan
    if not (0.0 < margin_pct < math.inf) or (margin_pct >= 100.0 and not text.endswith("%")):
        raise InputError(path, "must be a percentage such as 5%, or a share such as 0.05", value)
    return margin_pct
