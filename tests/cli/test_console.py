"""Output for machines: JSON without NaN, and frames as CSV; output for people: in colour on terminals alone."""

from __future__ import annotations

import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from shadowsim.cli.console import plain, print_frame, print_json, show


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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


TEXT = "a  STABLE\nb  OVERLOADED\ngoal  p99 <= 200ms  54.0 ms  met\ngoal  p50 < 1ms  2 ms  missed\n[b]x[/b]"


def shown_on(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, **env: str) -> str:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color"} | env).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", stream)
    show(TEXT)
    return stream.getvalue()


def test_a_terminal_shows_verdicts_and_goals_in_colour(monkeypatch: pytest.MonkeyPatch):
    shown = shown_on(Terminal(), monkeypatch)
    assert "\x1b[1;32mSTABLE\x1b[0m" in shown
    assert "\x1b[1;31mOVERLOADED\x1b[0m" in shown
    assert "\x1b[32mmet\x1b[0m" in shown
    assert "\x1b[31mmissed\x1b[0m" in shown
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == TEXT + "\n"  # nothing else is changed, nor wrapped


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_refused(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]):
    assert shown_on(Terminal(), monkeypatch, **env) == TEXT + "\n"


def test_a_pipe_gets_plain_text(monkeypatch: pytest.MonkeyPatch):
    assert shown_on(io.StringIO(), monkeypatch) == TEXT + "\n"
