"""A row of a comparison as people read it: its change with a sign and a unit, and the interval in the same unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from shadowsim.text import significant

Row = Mapping[str, Any]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _scaled(row: Row) -> tuple[float, float, float, str]:
    """Return a row's change and both ends of its interval in a unit for people, and the unit."""
    if row["unit"] != "s":
        return 100.0 * row["difference"], 100.0 * row["low"], 100.0 * row["high"], "pt"
    if math.isnan(row["ratio"]):
        scale, unit = (1e3, "ms") if abs(row["difference"]) < 1.0 else (1.0, "s")
        return scale * row["difference"], scale * row["low"], scale * row["high"], unit
    return 100.0 * (row["ratio"] - 1.0), 100.0 * (row["ratio_low"] - 1.0), 100.0 * (row["ratio_high"] - 1.0), "%"


def change(row: Row) -> str:
    """Return a row's difference: of a latency in per cent, of a share in points, of paired requests as a time."""
    x, _, _, unit = _scaled(row)
    return f"{signed(x)} {unit}" if math.isfinite(x) else "-"


def interval(row: Row) -> str:
    """Return the interval of `change`, in its unit."""
    _, low, high, _ = _scaled(row)
    return "-" if math.isnan(low) or math.isnan(high) else f"{signed(low)} to {signed(high)}"


def signed(x: float) -> str:
    """Return a number with its sign and two or three digits: "+12.1", "-0.31", "0"."""
    if math.isinf(x):
        return "+inf" if x > 0 else "-inf"
    text = significant(x, 3 if abs(x) >= 1.0 else 2)
    return text if x <= 0.0 else f"+{text}"
