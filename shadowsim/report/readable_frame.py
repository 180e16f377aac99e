"""Turns frames of `size`, `plan` and other analyses into texts with units under short headings.

Times get the unit that suits them and shares are per cent. A standard error is shown beside its figure, as plus or
minus two standard errors. Columns without a value in any row are left out. Quantiles that a run of a sweep is too short
for are dashes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from shadowsim.aws.instances import duration_text
from shadowsim.text import count, percent, significant, time_text
from shadowsim.verdict import UNCERTAIN, is_uncertain_in

NONE = "–"
_HEADS = {
    "sampling_percentage": "share",
    "duration_s": "duration",
    "instance_type": "type",
    "instance_count": "instances",
    "shadow_instances": "shadow instances",
    "price_usd_per_h": "USD per hour",
    "cost_usd": "USD",
    "one_fewer": "one fewer",
    "one_lost": "one down",
    "zone_lost": "a third down",
    "billed_instances": "charged",
    "met": "goals met",
    "binding": "goal that decides",
    "n_copies": "copies",
    "false_alarm": "false alarms",
    "visible_pct": "visible",
    "seen_none_pct": "seen without the effect",
    "seen_effect_pct": "seen with it",
    "simulated_h": "hours simulated",
    "low_per_s": "low",
    "high_per_s": "high",
    "factor": "times the rate now",
    "limit_per_s": "stable below",
}
_SHARES = ("utilisation", "error_rate", "power", "false_alarm", "share")
_NOT_SHOWN = ("duration_h", UNCERTAIN)  # `duration_s` says the same; uncertain quantiles are dashes
_ERRORS = 2.0  # standard errors to either side of a figure


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of texts.

    Parameters
    ----------
    frame : DataFrame
        The names of its columns give the units: `_s` ends a time in seconds, `_usd` or `usd_per_h` a price, `_pct` per
        cent, and `_error` the standard error of the column whose name precedes it.

    Returns
    -------
    DataFrame
        The same rows with the same index; the columns that have values, under their names or shorter headings.
    """
    columns = {}
    for name in map(str, frame.columns):
        if name in _NOT_SHOWN or (name.endswith("_error") and name.removesuffix("_error") in frame):
            continue
        errors = frame[f"{name}_error"] if f"{name}_error" in frame else [0.0] * len(frame)
        cells = [
            NONE if uncertain else _cell_text(name, value, error)
            for value, error, uncertain in zip(frame[name], errors, is_uncertain_in(frame, name), strict=True)
        ]
        if any(cell not in ("", NONE) for cell in cells):
            columns[name] = cells
    texts = pd.DataFrame(columns, index=frame.index, dtype=str)
    return texts.rename(columns={name: heading(name) for name in columns})


def heading(name: str) -> str:
    """Return the heading of a column: "p99", "USD per hour", "goal that decides"."""
    if name in _HEADS:
        return _HEADS[name]
    if name.startswith("share(") or "." in name:  # a sweep's paths stay as they were typed
        return name
    plain = name if name.endswith("_per_s") else name.removesuffix("_s")
    plain = plain.replace("p99_9", "p99.9")
    return plain.replace("_", " ")


def _cell_text(name: str, value: Any, error: float) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "unknown" if "usd" in name else NONE
    text = _number_text(name, float(value))
    spread = _number_text(name, _ERRORS * float(error)) if error > 0.0 else ""
    return f"{text} ± {spread}" if spread else text


def _number_text(name: str, value: float) -> str:
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
    if np.isinf(value):
        return "∞"
    return count(value) if value.is_integer() or abs(value) >= 1000.0 else significant(value)
