"""The README is true: its commands run, its code blocks work, and the first command prints the text shown."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import fields
from itertools import takewhile
from pathlib import Path

import pytest
from commands import good

from shadowsim import default_scenario
from shadowsim.cli import main
from shadowsim.server.state.undocumented import Undocumented

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHADOWSIM = [sys.executable, "-m", "shadowsim"]


def blocks(language):
    return [text for name, text in BLOCKS if name == language]


def commands(*, need_a_server=False):
    """The README's commands; those of the block with `load` need the server of the block before it."""
    texts = [text for text in blocks("sh") if ("shadowsim load" in text) == need_a_server]
    return [line for text in texts for line in text.splitlines() if line.startswith("shadowsim ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder that holds the README's request.json."""
    place = tmp_path_factory.mktemp("readme")
    (place / "request.json").write_text(blocks("json")[0])
    return place


def process(words, folder):
    """Run a command in a process of its own. It takes two seconds, which quick tests save by `commands.good`."""
    return subprocess.run([*SHADOWSIM, *words], cwd=folder, capture_output=True, encoding="utf-8", check=False)


def test_the_first_command_prints_the_text_shown():
    assert "pip install -e . && shadowsim simulate\n" in blocks("sh")
    assert good("simulate") == blocks("text")[0]


@pytest.mark.slow
def test_the_first_command_prints_the_text_shown_in_a_process(folder):
    completed = process(["simulate"], folder)
    assert completed.returncode == 0
    assert completed.stdout == blocks("text")[0]


@contextmanager
def serving(command, folder):
    """Start a server as the README does, at a free port, and yield the variables that it prints to export."""
    words = [*SHADOWSIM, *shlex.split(command)[1:], "--port", "0"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            start = list(takewhile(lambda line: not line.startswith("#"), process.stdout))
            yield dict(match.groups() for line in start if (match := re.match(r"export (\w+)=(\S+)", line)))
        finally:
            process.terminate()
            assert process.wait(30) == 0


def test_the_automation_runs_against_the_server(folder, monkeypatch, capsys):
    (command,) = (line for line in commands() if " serve " in line)
    (block,) = (text for text in blocks("python") if "boto3" in text)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with serving(command, folder) as exports:
        assert exports["AWS_DEFAULT_REGION"] == "us-east-1"
        assert len(exports) == 7
        for name, value in exports.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)
        names = {}
        exec(compile(block, "README's automation", "exec"), names)
        assert names["sagemaker"].describe_inference_experiment(Name="ranker-v2")["Status"] in ("Stopping", "Completed")
        assert capsys.readouterr().out.split()[0] in ("Stopping", "Completed")
        for line in commands(need_a_server=True):
            # other tests may hold the core for a moment
            check_measured(line, good(*shlex.split(line.replace("20s", "4s --max-lag 1s"))[1:]), folder)
    captured = folder / "shadowsim-s3" / "ranker-captures" / "shadow" / "ranker"
    n = {path.name: sum(len(f.read_bytes().splitlines()) for f in path.rglob("*.jsonl")) for path in captured.iterdir()}
    assert n["AllTraffic"] == 100
    assert abs(n["Shadow-01"] - 50) <= 20  # four standard errors of a coin


EACH_COMMAND = [command for command in commands() if " serve " not in command]
SEARCHES = re.compile(" (plan|noise-floor|capacity) ")  # many simulations each
SHORTER = {  # not seven days, nor 30
    "--report": ["--set", "horizon_s=21600"],
    " plan ": ["--replications", "10"],
    "last-release": ["--set", "horizon_s=3600"],
}


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=[pytest.mark.slow] if SEARCHES.search(c) else []) for c in EACH_COMMAND]
)
def test_commands(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    shorter = [word for part, words in SHORTER.items() if part in command for word in words]
    check_output(command, good(*shlex.split(command)[1:], *shorter), folder)


@pytest.mark.slow
@pytest.mark.parametrize("command", EACH_COMMAND)
def test_commands_unchanged_in_processes(command, folder):
    completed = process(shlex.split(command)[1:], folder)
    assert completed.returncode == 0, completed.stderr
    check_output(command, completed.stdout, folder)


def check_output(command, stdout, folder):
    """Check that a command prints and writes what the README says."""
    if "shadow.time.mean_s=0.03" in command:
        assert "OVERLOADED" in stdout
        assert "would need 2 instances" in " ".join(stdout.split())
    if "--report" in command:
        assert "STABLE" in stdout
        assert {p.name for p in (folder / "run").iterdir()} >= {"report.html", "windows.parquet", "scenario.json"}


def check_measured(command, stdout, folder):
    """Check what the commands on a running endpoint print and write; how well it kept up depends on the machine."""
    if " load " in command:
        assert {p.name for p in (folder / "measured").iterdir()} >= {"requests.parquet", "load.json", "report.html"}
    elif " calibrate " in command:
        assert "service" in json.loads((folder / "service.json").read_text())
    else:
        assert "reserve" in stdout


def test_init_writes_a_scenario(folder, monkeypatch):
    assert "`shadowsim init request.json --rate 500 -o scenario.json`" in README
    monkeypatch.chdir(folder)
    assert good("init", "request.json", "--rate", 500, "-o", "scenario.json") == "wrote scenario.json\n"
    scenario = json.loads((folder / "scenario.json").read_text())
    assert scenario["traffic"]["rate_per_s"] == 500
    assert set(scenario) == {"experiment", "traffic", "services", "endpoint", "mirror", "run"}
    good("validate", "scenario.json")


@pytest.mark.parametrize("number", [n for n, text in enumerate(blocks("python")) if "ss.simulate(" in text])
def test_python_blocks(number, capsys):
    exec(compile(blocks("python")[number], f"README block {number}", "exec"), {})
    assert capsys.readouterr().out.split(":")[0] in ("STABLE", "OVERLOADED")


@pytest.mark.slow
def test_the_test_suite_in_the_readme_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # in a worker pytest-benchmark measures nothing
    (suite,) = (text for text in blocks("python") if "def test_" in text)
    (tmp_path / "test_shadow.py").write_text(suite)
    scenario = default_scenario().replace({"horizon_s": 3600})
    scenario.save(tmp_path / "scenario.json")
    good("simulate", "--set", "horizon_s=3600", "-o", "last-release")
    (gate,) = (text for text in blocks("sh") if "--benchmark-json" in text)
    assert gate == "shadowsim simulate -o last-release\npytest test_shadow.py --benchmark-json new.json\n"
    options = ["--benchmark-json", "new.json", "--shadow-scenario", "scenario.json"]
    words = ["pytest", "-q", "-p", "no:cacheprovider", "-p", "no:nbmake", "test_shadow.py", *options]
    completed = subprocess.run(
        [sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "3 passed" in completed.stdout, completed.stdout
    good("benchmark-compare", "new.json", "new.json")


def test_every_time_law_in_the_table_can_be_read():
    from shadowsim.scenario.laws import parse_law

    laws = [json.loads(x) for x in re.findall(r"^\| `(\{\"law\".*?\})` \|", README, re.MULTILINE)]
    assert [parse_law(block, "time", "s").kind for block in laws] == ["lognormal", "empirical", "linear"]


def test_the_table_has_all_keys_of_pools_that_change_and_its_examples_can_be_read():
    from shadowsim import default_scenario
    from shadowsim.scenario import batching, retries, scaling

    rows = re.findall(r"^\| `(\"\w+\": \{.*?\})` \|(.*)", README, re.MULTILINE)
    examples = {key: value for row, _ in rows for key, value in json.loads(f"{{{row}}}").items()}
    assert list(examples) == ["batching", "tokens", "scaling", "outages", "retries"]
    default_scenario().replace({"shadow.tokens": examples["tokens"], "shadow.time": None, "shadow.workers": None})
    edits = {f"shadow.{key}": value for key, value in examples.items() if key not in ("retries", "tokens")}
    with_all = default_scenario().replace(edits | {"traffic.retries": examples["retries"]})
    assert with_all.services["Shadow-01"].scaling.most == 9
    documented = " ".join(f"{row} {rest}" for row, rest in rows)
    others = ("cold_start_s", "instance", "at_s", "for_s", "mtbf_s", "mttr_s", *retries.MODES)
    blocks = (batching.BatchingKeys, scaling.ScalingKeys, retries.RetryKeys)
    for key in {*others, *(key for keys in blocks for key in keys.declared())} - {"none"}:
        assert re.search(rf"[`\"]{key}[`\"]", documented), key


def test_every_choice_is_in_the_table_with_its_default():
    rows = [line.split("|") for line in README.splitlines() if line.startswith("| ")]
    assumed = {name: row[2].lower() for row in rows if len(row) == 5 for name in re.findall(r"`(\w+)`", row[3])}
    words = {
        True: "allowed",
        "relative": "its share of production's",
        100: "all",
        "own": "of their own",
        "keep": "stays",
    }
    for field in fields(Undocumented):
        assert str(words.get(field.default, field.default)).lower() in assumed[field.name], field.name


def test_every_command_is_in_the_readme():
    for command in main.app.registered_commands:
        name = command.name or command.callback.__name__
        assert re.search(rf"shadowsim {name}\b|`{name}`", README), name


def test_it_is_short():
    assert len(README.splitlines()) < 300
