"""The program and its commands init, validate, simulate, report and instances: output, exit statuses and errors."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from commands import good, process, refused, run, written
from typer.testing import CliRunner

import shadowsim
from shadowsim import Result, Scenario, __version__, simulate
from shadowsim.cli.main import app
from shadowsim.errors import SimulationError
from shadowsim.scenario.scenario import init_scenario

SHORT = ("--set", "horizon_s=600")
COMMANDS = (
    *("init", "validate", "simulate", "report", "instances"),
    *("compare", "noise-floor", "agreement", "size", "scaling-policy", "plan", "sweep", "step-model"),
    *("benchmark-compare", "serve", "calibrate", "predict"),
)


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    return written(tmp_path / "request.json", init_scenario()["experiment"])


@pytest.fixture
def scenario_file(tmp_path: Path) -> Path:
    scenario = init_scenario()
    scenario["run"] |= {"horizon_s": 600.0}  # type: ignore[operator]
    return written(tmp_path / "scenario.json", scenario)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run a block as `nobody` instead of root, which may read every file."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(uid)


def read_until(terminal: int, text: bytes, times: int, timeout_s: float = 60.0) -> bytes:
    """Read a terminal until it has shown a text `times` times."""
    shown, end = b"", time.monotonic() + timeout_s
    while shown.count(text) < times:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"not within {timeout_s:g} s: {shown!r}"
        chunk = os.read(terminal, 4096)
        assert chunk, f"the process ended: {shown!r}"
        shown += chunk
    return shown


def read_rest(terminal: int) -> bytes:
    """Read the rest of what a terminal shows, after its process has ended."""
    rest = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux reports the end so
            return rest
        if not chunk:
            return rest
        rest += chunk


def with_five_violations(file: Path) -> Path:
    request = json.loads(file.read_text())
    del request["Name"]
    request["Type"] = "Shadow"
    request["ModelVariants"][0]["InfrastructureConfig"]["RealTimeInferenceConfig"]["InstanceType"] = "ml.m5.xlrge"
    request["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"] = 101
    request["Schedul"] = {}
    return written(file, request)


class TestHelp:
    def test_every_command_shows_an_example(self):
        for command in COMMANDS:
            text = good(command, "--help")
            assert f"  shadowsim {command}" in text or f"Example: shadowsim {command}" in text
            assert max(map(len, text.splitlines())) <= 80

    def test_without_a_command_it_lists_them(self):
        text = good()
        assert all(f"\n  {command} " in text for command in COMMANDS)
        assert text == good("--help") == good("-h")
        assert "..." not in text.partition("Commands:")[2]  # each first sentence fits its line

    @pytest.mark.parametrize(
        ("command", "function", "n_shown"),
        [
            ("compare", shadowsim.compare, 4),
            ("noise-floor", shadowsim.noise_floor, 3),
            ("agreement", shadowsim.agreement, 5),
            ("size", shadowsim.size, 3),
            ("plan", shadowsim.plan, 5),
        ],
    )
    def test_shows_the_defaults_of_the_function(self, command: str, function: Callable[..., object], n_shown: int):
        text = " ".join(good(command, "--help").split())
        shown = 0
        for name, parameter in signature(function).parameters.items():
            option = f" --{name.replace('_', '-')} "
            if isinstance(parameter.default, int | float | str) and option in text:
                start = text.index(option) + len(option)
                description = text[start:].split(" --")[0].replace("(", "").replace(")", "")
                assert f"[default: {parameter.default}]" in description
                shown += 1
        assert shown == n_shown

    def test_version(self):
        assert good("--version") == f"shadowsim {__version__}\n"

    def test_loads_nothing_slow(self):
        code = """
import sys
from shadowsim.cli.main import app
for args in ["--help"], ["--version"], ["simulate", "--help"], ["plan", "-h"]:
    try:
        app(args)
    except SystemExit as end:
        assert not end.code
    slow = {"numba", "numpy", "pandas", "plotly", "botocore", "scipy", "tqdm", "aiohttp", "rich"} & set(sys.modules)
    assert not slow, (args, slow)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


class TestInit:
    def test_without_a_request_is_the_built_in_scenario(self):
        assert json.loads(good("init")) == init_scenario()

    def test_of_a_request_can_be_simulated(self, request_file: Path, tmp_path: Path):
        scenario = written(tmp_path / "new.json", good("init", request_file))
        assert json.loads(scenario.read_text())["experiment"] == json.loads(request_file.read_text())
        assert "STABLE" in good("simulate", scenario, *SHORT)

    def test_reads_standard_input(self, request_file: Path):
        assert good("init", "-", stdin=request_file.read_text()) == good("init", request_file)

    def test_of_a_scenario(self, scenario_file: Path):
        assert "is a scenario already" in refused("init", scenario_file)


class TestValidate:
    def test_a_request(self, request_file: Path):
        text = good("validate", request_file)
        assert text.startswith("valid\n")
        assert "50 % of the source's requests" in text
        assert text.count("\n") < 24  # one screen
        assert good("validate", "-", stdin=request_file.read_text()) == text

    def test_a_scenario_is_checked_as_a_whole(self, scenario_file: Path):
        text = good("validate", scenario_file)
        assert text.startswith("valid\n")
        assert "lognormal 20 ms" in text
        scenario = json.loads(scenario_file.read_text())
        scenario["services"]["Shadow-01"]["time"]["mean_s"] = -1
        line = refused("validate", written(scenario_file, scenario))
        assert line == "services.Shadow-01.time.mean_s: must be a finite number > 0, got -1"

    def test_own_prices_and_what_data_cost(self, request_file: Path, scenario_file: Path, tmp_path: Path):
        prices = written(tmp_path / "prices.json", {"ml.m5.xlarge": 0.5})
        assert "336.00 USD at 0.5 USD per hour, of prices.json" in good("validate", request_file, "--prices", prices)
        assert "data in" not in good("validate", scenario_file)  # no sizes, no data
        scenario = json.loads(scenario_file.read_text())
        size = {"law": "deterministic", "mean_bytes": 1000.0}
        scenario["traffic"] |= {"request_bytes": size, "response_bytes": size}
        scenario["experiment"]["DataStorageConfig"] = {"Destination": "s3://bucket/prefix"}
        text = good("validate", written(scenario_file, scenario), "--prices", prices)
        # The mean rate of the horizon, for 7 days, 1 kB each, at 0.016 USD a GB.
        gb = 226.84 * 7 * 86_400 * 1000 / 1e9
        data = re.search(r"\ndata in  +([\d.]+) GB processed, ([\d.]+) USD: ", text)
        assert data
        assert float(data[1]) == pytest.approx(gb, abs=0.5)
        assert float(data[2]) == pytest.approx(0.016 * gb, abs=0.005)
        assert "\ncapture " in text
        assert "prices.csv: cannot be read" in refused("validate", request_file, "--prices", tmp_path / "prices.csv")

    def test_lists_five_violations_in_five_lines(self, request_file: Path):
        done = run("validate", with_five_violations(request_file))
        assert done.exit_code == 2
        lines = done.stdout.splitlines()
        assert len(lines) == 5
        assert all("failed to satisfy constraint" in line for line in lines)
        for member in ("'name'", "'type'", "instanceType'", "samplingPercentage'", "'Schedul'"):
            assert sum(member in line for line in lines) == 1

    def test_for_machines(self, request_file: Path, tmp_path: Path):
        assert json.loads(good("validate", request_file, "--json")) == {"valid": True, "violations": []}
        done = run("validate", with_five_violations(request_file), "--json")
        assert done.exit_code == 2
        answer = json.loads(done.stdout)
        assert answer["valid"] is False
        assert len(answer["violations"]) == 5
        for text in ("{}", "{", "\0"):
            done = run("validate", written(tmp_path / "bad.json", text), "--json")
            assert done.exit_code == 2
            assert len(json.loads(done.stdout)["violations"]) == 1

    def test_an_empty_object_names_what_is_missing(self, tmp_path: Path):
        line = refused("validate", written(tmp_path / "empty.json", "{}"))
        assert line.endswith("needs Name, Type, RoleArn, EndpointName, ModelVariants, ShadowModeConfig")

    def test_strange_values_stay_in_their_line(self, request_file: Path):
        request = json.loads(request_file.read_text())
        request["Name"] = "a\nb\x1b[31m\u2028"
        done = run("validate", written(request_file, request))
        assert done.exit_code == 2
        assert len(done.stdout.splitlines()) == 1
        assert "\x1b" not in done.stdout


class TestUnreadable:
    """Files that no command can use: each ends in one line that gives the reason."""

    COMMANDS = ("init", "validate", "simulate")

    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"{", "broken JSON at line 1, column 2"),
            (b'{\n  "Name": "x",\n}', "broken JSON at line "),
            (b"", "broken JSON at line 1, column 1"),
            (b'{"a": NaN}', "NaN is not JSON"),
            (b'{"a": 1, "a": 2}', "occurs twice"),
            (b"[1, 2]", "must be a JSON object, not a list"),
            (b'"text"', "must be a JSON object, not a string"),
            (b"\x7fELF\x02\x01\xff\xfe", "must be UTF-8 text"),
            (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        ],
    )
    def test_content(self, tmp_path: Path, command: str, content: bytes, why: str):
        file = tmp_path / "file.json"
        file.write_bytes(content)
        line = refused(command, file)
        assert why in line
        assert "file.json" in line
        assert why in refused(command, "-", stdin=content)

    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("no/such/file.json", "there is no such file"),
            (".", "must be a file, not a directory"),
            ("", "must be a file, not a directory"),
            ("n" * 300, "cannot be read: File name too long"),
            ("line\nbreak", "there is no such file"),
        ],
    )
    def test_path(self, command: str, name: str, why: str):
        assert why in refused(command, name)

    @pytest.mark.skipif(os.name == "nt", reason="Windows takes no right of reading away")
    def test_permission(self, request_file: Path):
        good("validate", request_file)  # and loads what a user without rights might not
        request_file.chmod(0)
        with unprivileged():
            assert "cannot be read: Permission denied" in refused("validate", request_file)


class TestSimulate:
    def test_shows_source_beside_shadow(self):
        text = good("simulate", *SHORT)
        assert "run      built-in: 10 min in windows of 60 s, seed 7\n" in text
        assert "traffic  Poisson, 226.84 requests/s in the mean and 230.29 at the peak\n" in text
        rows = {line[:13].strip(): line[13:].split() for line in text.splitlines()}
        assert rows["variant"] == ["AllTraffic", "Shadow-01"]
        assert rows["verdict"] == ["STABLE", "STABLE"]
        assert [int(n.replace(",", "")) for n in rows["requests"]] == [136_070, 68_291]
        assert rows["share copied"] == ["50.188", "%", "of", "50", "%"]
        metrics = ["latency mean", "p50", "p90", "p95", "p99", "p99.9", "max", "wait mean", "utilisation", "errors"]
        assert [name for name in rows if name in metrics] == metrics
        assert "\n\nSTABLE: " in text
        assert "wrote" not in text
        assert max(map(len, text.splitlines())) <= 80
        assert text.isascii()

    def test_an_overloaded_pool_says_so_beside_its_quantiles(self):
        text = good("simulate", *SHORT, "--set", "shadow.time.mean_s=0.2")
        assert "OVERLOADED" in next(line for line in text.splitlines() if line.startswith("verdict"))
        assert all(line.endswith(" *") for line in text.splitlines() if line.lstrip().startswith(("p5", "p9", "max")))
        assert "* the pool is OVERLOADED" in text
        assert "\nOVERLOADED: Shadow-01 receives " in text
        assert "STABLE:" not in text

    def test_strict_fails_the_goal(self):
        assert run("simulate", *SHORT, "--strict").exit_code == 0
        overloaded = run("simulate", *SHORT, "--set", "shadow.time.mean_s=0.2", "--strict")
        assert overloaded.exit_code == 1
        assert overloaded.stdout == good("simulate", *SHORT, "--set", "shadow.time.mean_s=0.2")
        assert run("simulate", "--set", "horizon_s=10", "--strict", "--json").exit_code == 1  # TOO SHORT

    def test_goals(self):
        met, missed = "shadow.p99 <= 100ms", "mean < 1ms"
        done = run("simulate", *SHORT, "--slo", met)
        assert done.exit_code == 0
        assert re.search(rf"\ngoal  {met}  +53\.\d ms .*  met\n", done.stdout)
        done = run("simulate", *SHORT, "--slo", f"{met} and {missed}")
        assert done.exit_code == 1
        assert done.stdout.splitlines()[-1].endswith("missed")
        answer = json.loads(run("simulate", *SHORT, "--slo", f"{met} and {missed}", "--json").stdout)
        assert [goal["met"] for goal in answer["goals"]] == [True, False]
        assert run("simulate", *SHORT, "--slo", missed, "--csv").exit_code == 1

    def test_goals_of_replications_are_judged_by_their_mean(self):
        many = (*SHORT, "--set", "run.replications=3", "--json")
        answer = json.loads(good("simulate", *many, "--slo", "p99 < 1s"))
        goal = answer["goals"][0]
        assert goal["value"] == pytest.approx(answer["variants"][1]["p99_s"]["mean"])
        # The half-width of three runs is Student's: t(2; 0.975) = 4.303 standard errors.
        assert 4.303 * goal["standard_error"] == pytest.approx(answer["variants"][1]["p99_s"]["half_width"], rel=1e-3)
        assert run("simulate", *many, "--slo", f"p99 < {0.999 * goal['value']}s").exit_code == 1

    def test_a_plain_request_states_what_is_assumed(self, request_file: Path):
        text = good("simulate", request_file, "--rate", 50, *SHORT)
        assert "assumed  traffic: Poisson at a steady rate" in text
        assert text.count("assumed ") == 5
        assert good("simulate", request_file, "--set", "rate_per_s=50", *SHORT) == text
        assert good("simulate", "-", "--rate", 50, *SHORT, stdin=request_file.read_text()) == text

    def test_a_scenario_and_its_rate(self, scenario_file: Path):
        text = good("simulate", scenario_file, "--rate", 50)
        assert "Poisson, 50 requests/s in the mean" in text
        assert "assumed" not in text

    def test_a_trace_beside_the_scenario(self, scenario_file: Path):
        scenario = json.loads(scenario_file.read_text())
        scenario["traffic"] = {"process": "trace", "path": "arrivals.csv"}
        scenario["run"]["horizon_s"] = None
        times = "\n".join(str(i / 10) for i in range(1000))
        written(scenario_file.parent / "arrivals.csv", f"time_s\n{times}\n")
        text = good("simulate", written(scenario_file, scenario), "--set", "horizon_s=60")
        assert "trace arrivals.csv: 600 requests, 10 requests/s in the mean" in text
        assert "assumed  The run ends before its trace: 600 of 1,000 requests come." in text
        assert "TOO SHORT: " in text

    def test_the_same_twice_and_another_with_another_seed(self):
        once = run("simulate", *SHORT)
        assert once.stdout == good("simulate", *SHORT) == good("simulate", *SHORT, "--seed", 7)
        assert once.stdout != good("simulate", *SHORT, "--seed", 8)
        assert once.stderr.startswith("136,070 requests in ")  # what differs is not on standard output
        assert run("simulate", *SHORT, "--quiet").stderr == ""
        assert good("simulate", *SHORT, "--no-progress") == once.stdout

    def test_json(self):
        done = run("simulate", *SHORT, "--json")
        answer = json.loads(done.stdout, parse_constant=pytest.fail)
        assert answer["scenario"] == "built-in"
        assert answer["verdict"] == "STABLE"
        assert [v["requests"] for v in answer["variants"]] == [136_070, 68_291]
        assert answer["variants"][0]["captured_bytes"] == 0
        assert answer["variants"][1]["instances_needed"] is None
        assert done.stderr == ""

    def test_json_of_a_shadow_without_copies_has_nulls(self):
        answer = json.loads(good("simulate", *SHORT, "--set", "sampling_percentage=0", "--json"))
        assert answer["variants"][1]["requests"] == 0
        assert answer["variants"][1]["p99_s"] is None
        assert " 0.000 % of 0 %" in good("simulate", *SHORT, "--set", "sampling_percentage=0")

    def test_csv(self):
        done = run("simulate", *SHORT, "--csv")
        table = pd.read_csv(io.StringIO(done.stdout), index_col="variant")
        assert table.loc["Shadow-01", "requests"] == 68_291
        assert table["verdict"].tolist() == ["STABLE", "STABLE"]
        assert done.stderr == ""

    def test_captured_and_errors(self):
        storage = 'experiment.DataStorageConfig={"Destination": "s3://bucket/prefix"}'
        sizes = [f"traffic.{which}_bytes={{'law': 'deterministic', 'mean_bytes': 1000}}".replace("'", '"')
                 for which in ("request", "response")]  # fmt: skip
        edits = [x for edit in (storage, *sizes, "shadow.error_5xx=0.5") for x in ("--set", edit)]
        text = good("simulate", *SHORT, *edits)
        assert "136,070 records, 272 MB" in text
        assert "(50." in next(line for line in text.splitlines() if line.startswith("errors"))
        assert "68,291 records\n" in good("simulate", *SHORT, *edits[:2])  # bytes are not known

    def test_long_names_fit_the_screen(self, scenario_file: Path):
        long = "Shadow-" + "x" * 56
        text = good("simulate", written(scenario_file, scenario_file.read_text().replace("Shadow-01", long)))
        table = [line for line in text.splitlines() if line.startswith(("variant", "requests", "errors"))]
        assert max(map(len, table)) <= 80
        assert "xxx..." in table[0]

    def test_writes_a_directory(self, tmp_path: Path):
        text = good("simulate", *SHORT, "-o", tmp_path / "a" / "run")
        assert f"wrote {tmp_path / 'a' / 'run'}" in text
        names = {file.name for file in (tmp_path / "a" / "run").iterdir()}
        assert names == {"scenario.json", "assumed.json", "windows.parquet", "latency.parquet", "requests.parquet"}
        good("simulate", *SHORT, "-o", tmp_path / "a" / "run")  # once more, into the same
        assert good("simulate", tmp_path / "a" / "run" / "scenario.json") == text.split("wrote")[0].rstrip() + "\n"

    def test_a_second_run_leaves_nothing_stale(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("shadowsim.report.run_page.html", lambda result: f"a page, seed {result.scenario.seed}")
        out = tmp_path / "run"
        good("simulate", *SHORT, "-o", out, "--report")
        (out / "notes.txt").write_text("mine")
        text = good("simulate", *SHORT, "--seed", 8, "-o", out)
        assert f"\nremoved {out / 'report.html'} (of an earlier run)\n" in text
        assert not (out / "report.html").exists()
        good("simulate", *SHORT, "--seed", 8, "-o", out, "--report")
        assert "removed" not in good("simulate", *SHORT, "--seed", 9, "-o", out, "--report")
        assert (out / "report.html").read_text(encoding="utf-8") == "a page, seed 9"
        several = good("simulate", *SHORT, "--set", "run.replications=3", "-o", out)
        assert f"removed {out / 'windows.parquet'} (of an earlier run)" in several
        assert {path.name for path in out.iterdir()} == {"notes.txt", *(f"replication-{r}" for r in range(3))}
        two = good("simulate", *SHORT, "--set", "run.replications=2", "-o", out)
        assert f"removed {out / 'replication-2'} (of an earlier run)" in two
        good("simulate", *SHORT, "-o", out)
        assert not list(out.glob("replication-*"))
        assert (out / "notes.txt").read_text() == "mine"

    def test_a_saved_run_keeps_what_was_assumed(self, request_file: Path, tmp_path: Path):
        out, short = tmp_path / "run", ("--rate", 100, "--set", "horizon_s=600", "--set", "shadow.time=0.01")
        text = good("simulate", request_file, *short, "-o", out)
        assumed = Result.load(out).scenario.assumptions
        assert assumed == Scenario.of(request_file, 100, {"horizon_s": 600, "shadow.time": 0.01}).assumptions
        assert len(assumed) == text.count("assumed  ") > 0
        good("report", out)
        page = (out / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ")
        assert "Assumed, since the input does not say" in page
        assert all(sentence in page.replace("\xa0", " ") for sentence in assumed)
        assert "assumed" not in (out / "scenario.json").read_text()
        good("simulate", out / "scenario.json", "-o", out)  # which says all of it
        assert Result.load(out).scenario.assumptions == ()

    def test_all_errors_of_a_scenario_are_printed_one_per_line(self):
        wrong = {"shadow.workers": -1, "endpoint.timeout_s": "60 parsecs", "mirror.rule": "dice", "rate_per_s": -1}
        done = run("simulate", *(x for path, value in wrong.items() for x in ("--set", f"{path}={value}")))
        assert done.exit_code == 2
        named = [line.removeprefix("error: ").partition(": ")[0] for line in done.stderr.splitlines()]
        expected = ["endpoint.timeout_s", "mirror.rule", "services.Shadow-01.workers", "traffic.rate_per_s"]
        assert sorted(named) == expected

    def test_a_bar_only_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch):
        bars: list[bool] = []

        def recorded(scenario: Scenario, workers: int | None, progress: bool) -> Result:
            bars.append(progress)
            return simulate(scenario)

        monkeypatch.setattr("shadowsim.engine.simulate.simulate", recorded)
        good("simulate", *SHORT)
        terminal = SimpleNamespace(stderr=SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr("shadowsim.cli.options.sys", terminal)
        for flags in ([], ["--quiet"], ["--json"], ["--csv"]):
            good("simulate", *SHORT, *flags)
        assert bars == [False, True, False, False, False]


class TestReport:
    def test_beside_a_run_and_of_a_saved_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        folder = tmp_path / "run"
        text = good("simulate", *SHORT, "-o", folder, "--report")
        assert f"wrote {folder / 'report.html'}" in text
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert "built-in" in page
        (folder / "report.html").unlink()
        assert good("report", folder) == f"wrote {folder / 'report.html'}\n"
        assert (folder / "report.html").read_text(encoding="utf-8") == page
        # Drawing a page takes a second.
        monkeypatch.setattr("shadowsim.report.run_page.html", lambda result: f"a page, {result.verdict.status}")
        assert good("report", folder, "-o", tmp_path / "page.html") == f"wrote {tmp_path / 'page.html'}\n"
        assert "-o: must be a file" in refused("report", folder, "-o", tmp_path)
        assert "cannot be written" in refused("report", folder, "-o", tmp_path / "no" / "such" / "page.html")
        monkeypatch.chdir(tmp_path)
        assert "wrote shadowsim-report.html\n" in good("simulate", *SHORT, "--report")
        assert (tmp_path / "shadowsim-report.html").read_text(encoding="utf-8") == "a page, STABLE"

    def test_without_a_run(self, tmp_path: Path):
        assert "windows.parquet: is missing" in refused("report", tmp_path)
        assert "is not a directory" in refused("report", tmp_path / "none")
        good("simulate", *SHORT, "-o", tmp_path)
        written(tmp_path / "windows.parquet", "no table")
        assert "is not a Parquet file" in refused("report", tmp_path)


class TestInstances:
    def test_table(self):
        lines = good("instances", "ml.g5.*").splitlines()
        assert lines[0].split() == ["type", "vCPU", "GiB", "accelerators", "USD/h", "as", "of"]
        assert lines[1].split()[:6] == ["ml.g5.xlarge", "4", "16", "1", "x", "A10G"]
        assert max(map(len, good("instances").splitlines())) <= 80
        assert "unknown" in good("instances")

    def test_part_of_a_name(self):
        assert good("instances", "g5.xl").splitlines()[1].startswith("ml.g5.xlarge ")
        assert good("instances", "ML.M5.XLARGE").count("\n") == 2

    def test_for_machines(self):
        answer = json.loads(good("instances", "ml.g5.*", "--json"))
        assert answer[0]["name"] == "ml.g5.xlarge"
        assert answer[0]["accelerator"] == "NVIDIA A10G"
        table = pd.read_csv(io.StringIO(good("instances", "--csv")))
        assert len(table) == len(json.loads(good("instances", "--json")))
        assert table["price_usd_per_h"].isna().any()  # unknown is empty, and never zero
        assert (table["price_usd_per_h"].dropna() > 0).all()
        assert next(csv.reader([good("instances", "--csv").splitlines()[0]]))[:3] == ["name", "vcpus", "memory_gib"]


HURRIED = [
    ("simulate --rate -5", "traffic.rate_per_s: must be a finite number > 0, got -5"),
    ("simulate --rate abc", "--rate: must be a number, got 'abc'"),
    ("simulate --rate nan", "traffic.rate_per_s: must be a finite number > 0, got nan"),
    ("simulate --rate inf", "traffic.rate_per_s: must be a finite number > 0, got inf"),
    ("simulate --rate 400/s", "--rate: must be a number, got '400/s'"),
    ("simulate --seed x", "--seed: must be a number, got 'x'"),
    ("simulate --workers 1.5", "--workers: must be a whole number >= 1, got 1.5"),
    ("simulate --workers all", "--workers: must be a number, got 'all'"),
    ("simulate --seed 1.5", "--seed: must be a whole number >= 0, got 1.5"),
    ("simulate --set seed", "--set: must be PATH=VALUE, got 'seed'"),
    ("simulate --set =3", "--set: must be PATH=VALUE, got '=3'"),
    ("simulate --set sede=3", "sede: is not a path of a scenario; did you mean seed?"),
    ("simulate --set traffic.process=Poisson", "constant, trace, got 'Poisson'; did you mean poisson?"),
    ("simulate --set shadow.time=20mss", 'must be a number of seconds, a time such as 20ms or an object {"law": ...}'),
    ("simulate --set shadow.time=0ms", "services.Shadow-01.time: must be a finite number > 0, got 0"),
    ("simulate --set shadow.time.p99_s=1", "lognormal takes mean_s with scv, or p50_s with p99_s, got [mean_s, p99_s,"),
    ("simulate --set shadow.discipline=lifo", "Shadow-01.discipline: must be fifo, got 'lifo'"),
    ("simulate --set shadow.time.mean=0.1", "services.Shadow-01.time.mean: is not a known key"),
    ("simulate --set run.horizon=60", "run.horizon: is not a known key; did you mean horizon_s?"),
    ("simulate --set services.Shadow-01.time.mean_s=-1", "services.Shadow-01.time.mean_s: must be"),
    ("simulate --set horizon_s=", "run.horizon_s: must be seconds, or have a unit"),
    ("simulate --set horizon_s=0h", "run.horizon_s: must be a finite number > 0, got '0h'"),
    ("simulate --set horizon_s=NaN", "run.horizon_s: must be a finite number > 0, got nan"),
    ("simulate --set horizon_s=1e12", "run.period_s: must cut the horizon"),
    (
        "simulate --set shadow.instance_count=0",
        "Member must have value greater than or equal to 1, because each variant",
    ),
    ("simulate --set shadow.batching={}", "Shadow-01.batching.max_size: is required"),
    ("simulate --set shadow.cpu_per_request_s=1", "`cpu_per_request_s` is not built yet"),
    ("simulate --set sampling_percentage=101", "samplingPercentage' failed to satisfy constraint"),
    ("simulate --set sampling_percentage=12.5", "Member must be an integer, not a float"),
    ("simulate --slo p99<1kg", "--slo: needs a time such as"),
    ("instances --json --csv", "--csv: must not be given together with --json"),
    ("instances ml.zz9*", "pattern: must match a SageMaker hosting type"),
    ("instances xyz", "got 'xyz'"),
]


class TestSlips:
    @pytest.mark.parametrize(("line", "says"), HURRIED, ids=[line for line, _ in HURRIED])
    def test_one_line_that_names_it(self, line: str, says: str):
        assert says in refused(*line.split(" "))

    def test_every_key_that_another_kind_does_not_know_is_named(self):
        done = run("simulate", "--set", "traffic.profile.kind=steps")
        keys = ("base_per_s", "peak_per_s", "peak_hour", "weekend_factor")
        expected = [f"error: traffic.profile.{key}: is not a known key; known are kind, steps" for key in keys]
        assert (done.exit_code, done.stderr.splitlines()[:-1]) == (2, expected)
        assert done.stderr.splitlines()[-1] == "error: traffic.profile.steps: is required"

    def test_an_edit_goes_before_its_option(self):
        text = good("simulate", *SHORT, "--rate", 9, "--seed", 9)
        assert good("simulate", *SHORT, "--rate", 5, "--seed", 5, "--set", "rate_per_s=9", "--set", "seed=9") == text

    def test_a_request_needs_a_rate(self, request_file: Path):
        assert refused("simulate", request_file).startswith("--rate: is required for a plain request")
        assert "--rate R" in refused("simulate", request_file)

    def test_all_violations_of_a_request_one_a_line(self, request_file: Path):
        done = run("simulate", with_five_violations(request_file), "--rate", 5)
        assert done.exit_code == 2
        assert done.stdout == ""
        assert done.stderr.count("error: Value ") == done.stderr.count("\n") == 5

    def test_an_output_directory_that_is_a_file(self, request_file: Path):
        assert "-o: must be a directory" in refused("simulate", "-o", request_file)
        assert "Not a directory" in refused("simulate", "-o", request_file / "run")
        assert "File name too long" in refused("simulate", "-o", "n" * 300)

    def test_bad_input_leaves_no_directory(self, tmp_path: Path):
        refused("simulate", "--rate", "-1", "-o", tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_defect_keeps_its_traceback(self, monkeypatch: pytest.MonkeyPatch):
        for defect in (SimulationError("requests were lost"), ZeroDivisionError(), OSError(5, "Input/output error")):

            def broken(*args: object, error: Exception = defect, **kwargs: object) -> None:
                raise error

            monkeypatch.setattr("shadowsim.engine.simulate.simulate", broken)
            assert CliRunner().invoke(app, ["simulate", *SHORT]).exception is defect


class TestProcess:
    """Behaviour that needs a process of its own: exit statuses, signals, pipes, encodings."""

    def test_a_module_and_a_command(self):
        assert process("--version").stdout == f"shadowsim {__version__}\n"
        done = process("simulate", "--ratee", "5")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1
        assert "see shadowsim simulate --help" in done.stderr

    @pytest.mark.slow
    def test_no_colours_and_no_bar_when_redirected(self):
        done = process("simulate", *SHORT)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout + done.stderr
        assert "\r" not in done.stdout + done.stderr

    @pytest.mark.slow
    @pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
    def test_interrupted(self):
        """A progress bar that moves shows that the simulation runs; it is drawn on a terminal only."""
        command = [sys.executable, "-m", "shadowsim", "simulate", "--set", "horizon_s=30d"]
        import termios  # not on Windows

        terminal, stderr = os.openpty()
        termios.tcsetwinsize(terminal, (24, 80))  # without a width no bar is drawn
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr) as child:
            os.close(stderr)
            try:
                shown = read_until(terminal, b" windows", times=2)
                child.send_signal(signal.SIGINT)
                assert child.wait(timeout=60) == 130
                assert b"Traceback" not in shown + read_rest(terminal)
            finally:
                child.kill()
                os.close(terminal)

    def test_a_reader_that_has_gone(self):
        command = [sys.executable, "-m", "shadowsim", "instances", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            child.stdout.close()
            assert child.wait(timeout=60) == 141
            assert child.stderr.read() == b""

    @pytest.mark.slow
    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
    def test_a_full_disk(self):
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-m", "shadowsim", "instances"]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert done.stderr == "error: standard output: cannot be written: No space left on device\n"

    @pytest.mark.slow
    def test_a_terminal_without_the_letters_of_a_name(self, scenario_file: Path):
        scenario = json.loads(scenario_file.read_text())
        scenario["experiment"]["Description"] = "Schattenprüfung für 東京"
        written(scenario_file, scenario)
        western = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
        done = process("validate", scenario_file, env=western, encoding="latin-1")
        assert done.returncode == 0, done.stderr
        assert "Schattenprüfung für \\u6771\\u4eac" in done.stdout
        request = written(scenario_file.parent / "request.json", scenario["experiment"])
        done = process("init", request, env=western, encoding="latin-1")
        assert json.loads(done.stdout)["experiment"] == scenario["experiment"]
