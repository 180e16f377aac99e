"""The command load: output, files, exit statuses, the line of a run, Ctrl-C and errors."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from captured import record, write
from commands import good, refused, run
from loading import answering, service

from shadowsim.cli.load import live_text
from shadowsim.measuring.generator.load_records import LiveCounts

LENIENT = ("--max-lag", "20s")  # a test must not depend on a busy machine
SHORT = ("--rate", "60", "--duration", "500ms", *LENIENT)


@pytest.fixture(scope="module")
def url():
    with service() as target:
        yield target.url


def test_shows_and_saves_a_run(url, tmp_path):
    out = tmp_path / "run"
    text = good("load", url, *SHORT, "-o", out, "--report", "--slo", "p99 < 20s and error_rate <= 0%")
    assert f"POST {url} (http)" in text
    assert "\nvalid (lag p50 " in text
    assert "p99 < 20s " in text
    assert text.count(" met") == 2
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80
    names = ("load.json", "scenario.json", "windows.parquet", "latency.parquet", "requests.parquet", "report.html")
    assert all((out / name).is_file() for name in names)
    page = (out / "report.html").read_text()
    assert "Latency by percentile" in page
    assert "Requests over time" in page
    (out / "report.html").unlink()
    assert "report.html" in good("report", out)


def test_for_machines(url):
    answer = json.loads(good("load", url, *SHORT, "--json", "--slo", "p50 < 20s"))
    assert answer["summary"]["verdict"] == "valid"
    assert answer["run"]["target"]["url"] == url
    assert answer["goals"][0]["met"] is True
    assert good("load", url, *SHORT, "--csv").startswith("variant,verdict,open_loop,requests,")


def test_a_missed_goal_and_an_invalid_run_exit_with_1(url):
    missed = run("load", url, *SHORT, "--slo", "p50 < 1us")
    assert missed.exit_code == 1
    assert "MISSED" in missed.stdout
    invalid = run("load", url, *SHORT[:-1], "1us")
    assert invalid.exit_code == 1
    assert "invalid: generator saturated" in invalid.stdout
    assert "No latencies are shown" in invalid.stdout


def test_a_service_that_is_not_there_is_said_unless_it_may_come_later():
    said = refused("load", "http://127.0.0.1:1/", *SHORT)
    assert re.fullmatch(
        r"URL: must be a service that can be reached, but all \d+ requests failed \(connection refused\), got "
        r"'http://127.0.0.1:1/'; is it running\? --keep-going waits for one that starts later",
        said,
    )
    dead = run("load", "http://127.0.0.1:1/", *SHORT, "--keep-going")
    assert dead.exit_code == 1
    assert "connection refused" in dead.stdout


def test_a_scenario_and_its_edits(url, tmp_path):
    scenario = tmp_path / "scenario.json"
    good("init", "-o", scenario)
    edits = ("traffic.process=constant", "traffic.profile=null", "run.period_s=0.5")
    changes = [word for edit in edits for word in ("--set", edit)]
    options = ("--rate", "40", "--duration", "500ms", "--seed", "3", *LENIENT)
    text = good("load", url, "--scenario", scenario, *options, *changes)
    assert "asked 40/s for 0.500 s: 20 requests planned, 20 sent" in text


def test_captures_are_replayed_at_their_own_times(tmp_path):
    records = [record(str(i), request={"n": i}, after_s=second) for i, second in enumerate((0, 0, 1, 2, 2))]
    captures, out = write(tmp_path / "captured", "AllTraffic", records), tmp_path / "run"
    with service() as target:
        text = good("load", target.url, "--replay", captures, "-o", out, *LENIENT)
        sent = [json.loads(request.body)["n"] for request in target.requests]
    assert "5 requests planned, 5 sent" in text
    assert sorted(sent[:2]) == [0, 1]
    assert sent[2] == 2
    assert (out / "arrivals.parquet").is_file()
    assert json.loads((out / "scenario.json").read_text())["traffic"]["path"] == "arrivals.parquet"
    assert refused("load", "http://h/", "--replay", captures).startswith("--replay: needs -o DIR")
    together = refused("load", "http://h/", "--replay", captures, "-o", out, "--rate", "3")
    assert together.startswith("--rate: must not be given together with --replay")


def test_the_designed_experiment(url):
    text = good("load", url, "--characterise", "--stage-length", "100ms", "--max-concurrency", "2", *LENIENT)
    assert "not an open loop" in " ".join(text.split())
    assert "0 unloaded  1 in flight" in text
    assert "2 ladder    2 in flight" in text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "URL: must be given, or --endpoint, and not both"),
        (("http://h/",), "--rate: must be given, or --scenario or --stages"),
        (("http://h/", "--rate", "x"), "--rate: must be a number, got 'x'"),
        (("http://h/", "--rate", "1", "--duration", "0"), "--duration: must be > 0"),
        (("http://h/", "--rate", "0"), "--rate: must be a finite number > 0"),
        (("http://h/", "--rate", "1", "--stream"), "--stream: is for --endpoint, not for a URL"),
        (("http://h/", "--rate", "1", "--slo", "p99"), "--slo: must be METRIC OP VALUE"),
        (("http://h/", "--rate", "1", "--slo", "shadow.p99 < 1s"), "--slo: must not be the shadow's"),
        (("http://h/", "--rate", "1", "--header", "x"), "--header: must be a name and a value"),
        (("http://h/", "--rate", "1", "--body", "/nowhere"), "--body: /nowhere cannot be read"),
        (("http://h/", "--rate", "1", "--report"), "--report: needs -o DIR"),
        (("http://h/", "--rate", "1", "--max-lag", "3"), "--max-lag: needs a unit"),
        (("http://h/", "--rate", "1", "--max-concurrency", "3"), "--max-concurrency: is for --characterise"),
        (("http://h/", "--characterise", "--slo", "p99 < 1s"), "--slo: must not be given together"),
        (("http://h/", "--stages", "10/s"), "--stages: must be rates and lengths"),
        (("https://runtime.sagemaker.us-east-1.amazonaws.com/", "--rate", "1"), "--real-aws: must be given"),
    ],
)
def test_other_command_lines_are_refused(args, says):
    assert refused("load", *args).startswith(says)


def test_the_line_of_a_run():
    counts = LiveCounts(due=700, sent=690, answered=680, failed=2, dropped=3, in_flight=5)
    for _ in range(100):
        counts.note_latency(0.010)
        counts.note_lag(0.0002)
    line = live_text(counts, 7.0, 100, 99, 1.0)
    assert line == "7 s: sent 99 of 100/s, p50 9.98 ms, p99 10.0 ms, 2 errors, lag p99 200 us, 3 dropped, 5 in flight"
    assert "p50 -" in live_text(LiveCounts(), 0.0, 0, 0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupt_keeps_what_was_measured(tmp_path, processes):
    out = tmp_path / "run"
    with service(answering()) as target:
        command = [
            sys.executable,
            "-m",
            "shadowsim",
            "load",
            target.url,
            "--rate",
            "50",
            "--duration",
            "600",
            "-o",
            out,
        ]
        command += ["--processes", str(processes), *LENIENT]
        program = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + 60.0
            while len(target.requests) < 20:
                assert time.monotonic() < deadline
                assert program.poll() is None, program.communicate()
                time.sleep(0.05)
            os.kill(program.pid, signal.SIGINT)
            text, errors = program.communicate(timeout=60.0)
        finally:
            program.kill()
    assert program.returncode == 130, errors
    assert "The run was interrupted after" in text
    assert errors == ""
    about = json.loads((out / "load.json").read_text())
    assert about["interrupted"]
    assert about["achieved"]["requests"] >= 20
    assert "Traceback" not in text
