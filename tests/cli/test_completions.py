"""Shells complete commands, options, metrics, paths of settings and instance types; files are left to them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from shadowsim import compare, default_scenario, simulate
from shadowsim.cli import completions
from shadowsim.scenario.defaults import KEY_NAMES
from shadowsim.scenario.paths import target_of


def completed(*words: str) -> list[str]:
    """Return what bash is offered for a command line whose last word is not complete."""
    asked = {"_SHADOWSIM_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code = "import sys; sys.argv = ['shadowsim']; from shadowsim.cli.main import app; app(prog_name='shadowsim')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.stdout.split()


def test_a_shell_is_offered_what_begins_so():
    assert completed("shadowsim", "noi") == ["noise-floor"]
    assert completed("shadowsim", "compare", "run", "--metric", "p99") == ["p99", "p99.9"]


def test_files_are_left_to_the_shell():
    assert completed("shadowsim", "simulate", "scen") == []


def test_metrics_are_those_of_comparisons():
    run = simulate(default_scenario().replace({"horizon_s": 120}))
    known = set(compare(run, slo_s=0.1)["metric"])
    assert known - {"paired_p5", "paired_p95"} == {m for m in completions.METRICS if not m.startswith(("ttft", "tpot"))}


@pytest.mark.parametrize("begin", ["shadow.", "run.", "endpoint.", "sampling"])
def test_paths_are_those_that_settings_know(begin):
    document = default_scenario().to_dict()
    names = {"source": "AllTraffic", "shadow": "Shadow-01"}
    offered = completions.setting_paths(begin)
    assert offered
    for path in offered:
        assert path.startswith(begin)
        assert target_of(path.removesuffix("="), document, names, KEY_NAMES)


def test_of_a_list_of_types_the_last_is_completed():
    assert "ml.m5.large,ml.c5.xlarge" in completions.instance_types("ml.m5.large,ml.c5.xl")
