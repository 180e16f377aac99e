"""Output for machines: JSON without NaN, and frames as CSV."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from shadowsim.cli.console import plain, print_frame, print_json


@pytest.mark.parametrize("value", [None, pd.NA, math.nan, math.inf, np.float64("nan")])
def test_json_has_null_for_missing_numbers(value: object):
    assert plain({"a": [value]}) == {"a": [None]}


def test_json_has_plain_values():
    values = plain(["a", 3, True, np.float64(0.5), np.int64(7), np.bool_(True), (1,)])
    assert json.dumps(values) == '["a", 3, true, 0.5, 7, true, [1]]'


def test_json_refuses_unknown_types():
    with pytest.raises(TypeError):
        print_json({"a": object()})


def test_a_frame(capsys: pytest.CaptureFixture[str]):
    frame = pd.DataFrame({"a": [1, 2], "n": pd.array([3, None], dtype="Int64"), "x": [0.5, math.nan]}, index=["r", "s"])
    print_frame(frame, as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "n": 3, "x": 0.5}, {"a": 2, "n": None, "x": None}]
    print_frame(frame.rename_axis("i"), as_json=False, index=True)
    assert capsys.readouterr().out == "i,a,n,x\nr,1,3,0.5\ns,2,,\n"
