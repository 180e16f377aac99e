"""Every command that analyses writes a page, beside its text or its output for machines."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import typer.main
from captured import record, write
from commands import refused, run, written
from timing_files import document

from shadowsim import default_scenario, simulate
from shadowsim.cli.main import app

ANALYSE = (
    *("compare", "noise-floor", "agreement", "benchmark-compare", "size", "capacity", "scaling-policy", "plan"),
    *("sweep", "measured", "calibrate", "predict", "step-model", "load", "simulate"),
)
BASE = default_scenario().replace({"traffic.profile": None, "rate_per_s": 100, "horizon_s": 600, "run.period_s": 10})
SCALING = 'shadow.scaling={"metric": "InvocationsPerInstance", "target": 1500, "min": 2, "max": 10}'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with what the commands read."""
    folder = tmp_path_factory.mktemp("reports")
    simulate(BASE).save(folder / "run")
    BASE.save(folder / "scenario.json")
    for name, scale in (("old", 1.0), ("new", 1.5)):
        rounds = (scale * np.linspace(0.9, 1.1, 20)).tolist()
        written(folder / f"{name}.json", document(rounds))
    for variant in ("AllTraffic", "Shadow-01"):
        write(folder, variant, [record(f"id{i}", {"score": i}, {"x": i}) for i in range(30)])
    arrivals = np.cumsum(np.random.default_rng(3).exponential(0.1, 400))
    pd.DataFrame({"arrival_s": arrivals, "latency_s": 0.02}).to_csv(folder / "log.csv", index=False)
    rows = ("prompt_tokens,batch,output_tokens,prefill_ms,token_ms", "128,1,64,33.9,21.1", "128,8,64,125.2,28.2")
    written(folder / "rows.csv", "\n".join([*rows, "512,1,64,72.0,21.2"]))
    return folder


COMMANDS = {
    "compare": ["compare", "run"],
    "compare two": ["compare", "run", "run"],
    "noise-floor": ["noise-floor", "scenario.json", "--replications", "2"],
    "agreement": ["agreement", "endpoint/AllTraffic", "endpoint/Shadow-01", "--at-least", "99.9%"],
    "benchmark-compare": ["benchmark-compare", "old.json", "new.json"],
    "scaling-policy": ["scaling-policy", "scenario.json", "--set", SCALING],
    "measured": ["measured", "log.csv"],
    "step-model": ["step-model", "rows.csv"],
}


def test_every_command_that_analyses_can_write_a_page():
    commands = typer.main.get_command(app).commands
    with_page = {name for name, command in commands.items() if any("--report" in p.opts for p in command.params)}
    assert with_page == set(ANALYSE)


@pytest.mark.parametrize("which", COMMANDS)
def test_a_page_beside_the_text(which, place, monkeypatch):
    monkeypatch.chdir(place)
    words = COMMANDS[which]
    plain = run(*words)
    done = run(*words, "--report", "page.html")
    assert done.exit_code == plain.exit_code
    answer = done.stdout.removesuffix("page: page.html\n")
    assert answer == plain.stdout
    assert "page: page.html" in done.output
    assert '<p class="headline">' in (place / "page.html").read_text("utf-8")


def test_output_for_machines_stays_alone(place, monkeypatch):
    monkeypatch.chdir(place)
    done = run("compare", "run", "--json", "--report", "page.html")
    assert json.loads(done.stdout)["confidence"] == 0.95
    assert done.stderr == "page: page.html\n"


def test_a_page_in_no_directory_is_refused_before_the_work(place, monkeypatch):
    monkeypatch.chdir(place)
    line = refused("noise-floor", "scenario.json", "--report", "none/page.html")
    assert line == "--report: must be a file in a directory that exists, got 'none/page.html'"
    assert "--report: must not be given together with --presets" in refused(
        "step-model", "--presets", "--report", "p.html"
    )
