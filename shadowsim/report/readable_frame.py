"""Frames of `size`, `plan` and the like as people read them: texts with units under short headings.

Times get the unit that suits them, shares are per cent, a standard error joins its figure as plus or minus two of them,
and a column that says nothing in any row is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from shadowsim.aws.instances import duration_text
from shadowsim.text import count, percent, significant, time_text

NONE = "–"
_HEADS = {
    "sampling_percentage": "share",
    "duration_s": "duration",
    "instance_type": "type",
    "instance_count": "instances",
    "shadow_instances": "shadow instances",
    "price_usd_per_h": "USD an hour",
    "cost_usd": "USD",
    "one_fewer": "one fewer",
    "binding": "goal that decides",
    "n_copies": "copies",
    "false_alarm": "false alarms",
    "visible_pct": "visible",
    "seen_none_pct": "seen without the effect",
    "seen_effect_pct": "seen with it",
    "simulated_h": "hours simulated",
}
_SHARES = ("utilisation", "error_rate", "power", "false_alarm", "share")
_SAID_ELSEWHERE = ("duration_h",)
_ERRORS = 2.0  # standard errors to either side of a figure


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of texts.

    Parameters
    ----------
    frame : DataFrame
        Columns are told by their names: `_s` ends a time in seconds, `_usd` or `usd_per_h` a price, `_pct` per cent,
        `_error` the standard error of the column that it begins with.

    Returns
    -------
    DataFrame
        A row a row, with the same index; a column a column that says something, under its name or a shorter heading.
    """
    shown = {}
    for name in map(str, frame.columns):
        if name in _SAID_ELSEWHERE or (name.endswith("_error") and name.removesuffix("_error") in frame):
            continue
        errors = frame[f"{name}_error"] if f"{name}_error" in frame else [0.0] * len(frame)
        cells = [_cell(name, value, error) for value, error in zip(frame[name], errors, strict=True)]
        if any(cell not in ("", NONE) for cell in cells):
            shown[name] = cells
    found = pd.DataFrame(shown, index=frame.index, dtype=str)
    return found.rename(columns={name: heading(name) for name in shown})


def heading(name: str) -> str:
    """Return what a column is called: "p99", "USD an hour", "goal that decides"."""
    if name in _HEADS:
        return _HEADS[name]
    if name.startswith("share(") or "." in name:  # a path of a sweep is what people typed
        return name
    plain = name if name.endswith("_per_s") else name.removesuffix("_s")
    plain = plain.replace("p99_9", "p99.9")
    return plain.replace("_", " ")


def _cell(name: str, value: Any, error: float) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "unknown" if "usd" in name else NONE
    text = _number(name, float(value))
    spread = _number(name, _ERRORS * float(error)) if error > 0.0 else ""
    return f"{text} ± {spread}" if spread else text


def _number(name: str, value: float) -> str:
    if name == "duration_s":
        return duration_text(value)
    if name == "sampling_percentage":
        return f"{value:g} %"
    if name.endswith("_pct"):
        return f"{value:.2f} %"
    if name in _SHARES or name.startswith("share("):
        return percent(value, 2 if 0.0 < value < 0.01 else 1)
    if "usd" in name:
        return f"{value:,.2f}" if name == "cost_usd" else f"{value:,.4f}"
    if name.endswith("_s") and not name.endswith("_per_s"):
        return time_text(value)
    return count(value) if value.is_integer() or abs(value) >= 1000.0 else significant(value)
