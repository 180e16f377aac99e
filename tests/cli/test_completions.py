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
    plain = simulate(default_scenario().replace({"horizon_s": 120}))
    model = {"prompt": 50, "output": 20, "max_sequences": 8, "max_step_tokens": 256, "kv_tokens": 4000}
    served = {"tokens": model | {"step": {"base_s": 0.002}}}
    document = default_scenario().replace({"horizon_s": 120, "rate_per_s": 20}).to_dict()
    tokens = simulate(document | {"services": {"AllTraffic": served, "Shadow-01": served}})
    known = set(compare(plain, slo_s=0.1)["metric"])
    known |= set(compare(tokens, slo_s=0.1, ttft_slo_s=0.1, tpot_slo_s=0.1)["metric"])
    assert known == set(completions.metric_names(""))


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
