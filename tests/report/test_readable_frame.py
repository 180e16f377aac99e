"""Cells of readable frames have units, and headings are words."""

import numpy as np
import pandas as pd

from shadowsim.report.readable_frame import heading, readable

FRAME = pd.DataFrame(
    {
        "role": "shadow",
        "instance_type": ["ml.m5.xlarge", "ml.g5.xlarge"],
        "instance_count": pd.array([5, None], "Int64"),
        "p99_s": [0.2268, np.nan],
        "p99_s_error": [0.00121, np.nan],
        "error_rate": [0.00049, np.nan],
        "error_rate_error": [0.0, np.nan],
        "duration_s": [86_400.0, 5_400.0],
        "duration_h": [24.0, 1.5],
        "visible_pct": [4.213, 5.0],
        "cost_usd": [1193.2, np.nan],
        "certain": [True, False],
        "note": ["", ""],
    },
    index=[7, 3],
)


def test_cells_have_units_and_columns_without_values_are_left_out():
    texts = readable(FRAME)
    assert list(texts.index) == [7, 3]
    assert texts.loc[7].to_dict() == {
        "role": "shadow",
        "type": "ml.m5.xlarge",
        "instances": "5",
        "p99": "227 ms ± 2.42 ms",
        "error rate": "0.05 %",
        "duration": "1 day",
        "visible": "4.21 %",
        "USD": "1,193.20",
        "certain": "yes",
    }
    assert list(texts.loc[3]) == ["shadow", "ml.g5.xlarge", "–", "–", "–", "1 h 30 min", "5.00 %", "unknown", "no"]


def test_headings_are_words():
    assert heading("p99_9_s") == "p99.9"
    assert heading("share(wait > 0.1 s)") == "share(wait > 0.1 s)"
    assert heading("shadow.instance_count") == "shadow.instance_count"
    assert heading("rate_per_s") == "rate per s"
    assert heading("wait_mean_s") == "wait mean"


def test_a_rate_is_not_a_time():
    texts = readable(pd.DataFrame({"rate_per_s": [60.04], "requests": [216306], "share": [0.00049]}))
    assert list(texts.iloc[0]) == ["60.0", "216,306", "0.05 %"]
