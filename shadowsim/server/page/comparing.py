"""Compares both sides of a live experiment at a look, as a program of its own.

`python -m shadowsim.server.page.comparing FOLDER`: the folder holds question.json, windows.parquet, and either rows.npz
or latency.parquet. What was found is printed as JSON: the rows of `compare`, and whether to stop early.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.errors import InputError
from shadowsim.frames import ROLES
from shadowsim.server.page.looks import lower_priority
from shadowsim.statistics.comparison import compare
from shadowsim.statistics.loads import loads_of_table
from shadowsim.statistics.metric_rows import is_uncertain
from shadowsim.statistics.stop_early import stop_early

SPENDING = "pocock"
SHOWN = (
    *("mean", "p50", "p95", "p99", "ttft_mean", "ttft_p50", "ttft_p95", "ttft_p99"),
    *("tpot_mean", "tpot_p50", "tpot_p99", "error_rate"),
)
_MEMBERS = (
    *("metric", "unit", "source", "shadow", "ratio", "ratio_low", "ratio_high", "difference", "low", "high"),
    *("outcome", "verdict", "n_source", "n_shadow", "n_eff", "method"),
)


def found(folder: Path) -> dict[str, Any]:
    """Return what a look finds, as a JSON object; `problem` tells why there is nothing to compare."""
    question = json.loads((folder / "question.json").read_text())
    look, looks = question["look"], question["looks"]
    try:
        frames = _frames(folder)
        method = "requests" if "requests" in frames else None
        table = compare(frames, look=look, looks=looks, spending=SPENDING, method=method)
        advice = stop_early(table, look, looks, spending=SPENDING)
    except InputError as error:
        return {"problem": str(error)}
    loads = loads_of_table(table)
    rows = [row for row in table.to_dict("records") if row["metric"] in SHOWN]
    return {
        "rows": [_object(row) for row in rows],
        "note": loads.note if loads else "",
        "code": advice.code,
        "answer": advice.answer,
        "reasons": advice.reasons(lambda number: f"at {question['moments'][number - 1]}"),
    }


def _frames(folder: Path) -> dict[str, pd.DataFrame]:
    windows, file = pd.read_parquet(folder / "windows.parquet"), folder / "rows.npz"
    if not file.exists():
        return {"windows": windows, "latency": pd.read_parquet(folder / "latency.parquet")}
    columns = dict(np.load(file))
    if not columns or not columns["request"].size:
        raise InputError("requests", "there are none before the look")
    rows = pd.DataFrame(columns).drop(columns=["is_shadow", "failed"])
    rows["role"] = np.array(ROLES, object)[columns["is_shadow"].astype(np.intp)]
    rows["status"] = np.where(columns["failed"], "failed", "answered")
    if rows["first_token_s"].isna().all():
        rows = rows.drop(columns=["first_token_s", "output_tokens"])
    return {"windows": windows, "requests": rows}


def _object(row: dict[Any, Any]) -> dict[str, Any]:
    """Return a row with None for what is not a number; a quantile without an interval has no values."""
    values = {name: row[name] for name in _MEMBERS}
    if is_uncertain(row):
        values |= {"source": None, "shadow": None, "ratio": None, "difference": None}
    return {k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in values.items()}


if __name__ == "__main__":
    lower_priority()
    print(json.dumps(found(Path(sys.argv[1]))))
