"""Mistakes of users: each ends in one line that names the mistake and says what is right.

One table holds command lines, another cells of a notebook. Each row has a mistake and a part of the line. `refused`
checks that it is one line, that nothing else is printed and that the exit status is 2; the cells' test checks that the
error belongs to the package's own hierarchy.
"""

from __future__ import annotations

import json
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import refused, run

import shadowsim as ss
from shadowsim.scenario.scenario import init_scenario


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with usable and unusable files."""
    folder = tmp_path_factory.mktemp("desk")
    scenario = init_scenario()
    scenario["run"] |= {"horizon_s": 600.0}  # type: ignore[operator]
    for name, content in {
        "scenario.json": json.dumps(scenario),
        "request.json": json.dumps(scenario["experiment"]),
        "empty.json": "",
        "comma.json": '{"Name": "x", "Tags": [1, 2, ],}',
        "comma_last.json": '{"Name": "x",\n}',
        "list.json": "[1]",
        "notes.txt": "ask Ann about the rate",
        "prices.json": '{"ml.m5.xlarge": "cheap"}',
        "prices.csv": "type,usd\nml.m5.xlarge,0.2\n",
        "trace.csv": "when,n\n0,1\n",
        "words.csv": "arrived_at\nmonday\n",
        "empty.csv": "",
        "quotas.json": '{"instances": 3}',
    }.items():
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "binary.json").write_bytes(b"\x7fELF\x02\x01\xff\xfe\x00")
    (folder / "nothing").mkdir()
    (folder / "lost").mkdir()
    (folder / "lost" / "scenario.json").write_text(json.dumps(scenario))  # the frames were not copied
    ss.simulate(ss.default_scenario().replace({"horizon_s": 600.0})).save(folder / "run")
    idle = {"horizon_s": 600.0, "shadow.instance_count": 4}  # at half the source's load
    ss.simulate(ss.default_scenario().replace(idle)).save(folder / "idle")
    past = {"StartTime": "2020-12-01T00:00:00Z", "EndTime": "2020-12-03T00:00:00Z"}
    (folder / "past.json").write_text(json.dumps(scenario["experiment"] | {"Schedule": past}))  # type: ignore[operator]
    (folder / "seconds.csv").write_text("time,request_time\n" + "".join(f"{0.02 + i % 7},0.02\n" for i in range(99)))
    (folder / "half_minute.csv").write_text("timestamp_s\n" + "".join(f"{i / 500}\n" for i in range(15_000)))
    return folder


@pytest.fixture
def at_desk(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(desk)
    return desk


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """A port in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


LINES = [
    ("simulate --json --csv", "--csv: must not be given together with --json"),
    # files
    ("simulate missing.json", "missing.json: there is no such file"),
    ("simulate .", ".: must be a file, not a directory"),
    ("simulate empty.json", "empty.json: broken JSON at line 1, column 1: there is nothing in it"),
    ("simulate binary.json", "binary.json: must be UTF-8 text, but byte 6 is not"),
    (
        "simulate comma.json",
        f"comma.json: broken JSON at line 1, column {28 if sys.version_info >= (3, 13) else 30}: "
        "a comma must not stand before ]",
    ),
    ("validate comma_last.json", "a comma must not stand before }"),
    ("init list.json", "list.json: must be a JSON object, not a list"),
    ("init scenario.json", "scenario.json: is a scenario already"),
    ("validate notes.txt", "notes.txt: broken JSON at line 1, column 1"),
    ("validate scenario.json --prices missing.csv", "missing.csv: cannot be read (No such file or directory)"),
    ("validate scenario.json --prices prices.json", "prices.json: ml.m5.xlarge: must be a finite number >= 0, got"),
    (
        "validate scenario.json --prices prices.csv",
        "lacks the column instance_type; needed are instance_type and price_usd_per_h, and it has type, usd",
    ),
    ("simulate -o notes.txt", "-o: must be a directory, but notes.txt is a file"),
    # rates, seeds and threads
    ("simulate --rate", "'--rate'"),
    ("simulate request.json", "--rate: is required for a plain request"),
    ("simulate request.json --rate fast", "--rate: must be a number, got 'fast'"),
    ("simulate request.json --rate 0", "traffic.rate_per_s: must be a finite number > 0, got 0"),
    ("simulate request.json --rate 1,000", "--rate: must be a number, got '1,000'"),
    ("simulate --rate 500/s", "--rate: must be a number, got '500/s'; it takes no unit such as /s"),
    ("simulate --duration 1d", "No such option: --duration; --set horizon_s=1d sets the length of a run (see"),
    ("simulate --instances 3", "--set shadow.instance_count=3 sets the number of instances"),
    (
        "simulate scenario.json --report page.html",
        "(page.html): --report takes no file here; with -o DIR it writes DIR/report.html",
    ),
    ("compare runs", "runs: is not a directory with a saved result; `simulate -o DIR` or Result.save makes one"),
    ("explain instance_count", "is not a key of a scenario; did you mean shadow.instance_count?"),
    ("simulate --workers 0", "--workers: must be a whole number >= 1, got 0"),
    ("simulate --seed -1", "--seed: must be a whole number >= 0, got -1"),
    # edits
    ("simulate --set sampling_percentage", "--set: must be PATH=VALUE, got 'sampling_percentage'"),
    ("simulate --set sampling_percantage=50", "did you mean sampling_percentage?"),
    ("simulate --set sampling_percentage=150", "Member must have value less than or equal to 100"),
    ("simulate --set sampling_percentage=50%", "Member must be an integer, not a string"),
    ("simulate --set shadow.instance_cuont=4", "did you mean shadow.instance_count?"),
    ("simulate --set shadow.instance_type=m5.xlrge", "did you mean ml.m5.xlarge?"),
    ("simulate --set shadow.time.mean=0.02", "services.Shadow-01.time.mean: is not a known key; did you mean mean_s?"),
    ("simulate --set horizon=3600", "did you mean horizon_s?"),
    ("simulate --set horizon_s='1 hour'", "run.horizon_s: must be seconds, or have a unit (us, ms, s, m or min,"),
    ("simulate --set source.time.mean_s=20mss", "AllTraffic.time.mean_s: must be seconds, or have a unit ("),
    ("simulate --set rate_per_s=100s", "traffic.rate_per_s: must be a finite number > 0, got '100s'"),
    # goals and effects
    ("simulate --slo 'p99 200ms'", "--slo: must be METRIC OP VALUE with one of <=, <, >=, >"),
    ("simulate --slo 'p99 <= 200 mss'", "--slo: needs a time such as 200ms"),
    ("simulate --slo 'p99 <= 50'", "--slo: needs a unit, got 'p99 <= 50'; p99 <= 50ms or 50s?"),
    ("size --slo 'shadow.p99 <= 50'", "--slo: needs a unit, got 'shadow.p99 <= 50'; shadow.p99 <= 50ms or 50s?"),
    ("simulate --set shadow.instances=3", "shadow.instances: is not a path of a scenario; did you mean shadow.instan"),
    ("simulate --set share=30", "did you mean sampling_percentage?"),
    ("simulate --set endpoint.routing=LOR", "did you mean LEAST_OUTSTANDING_REQUESTS?"),
    ("simulate --set endpoint.routing=random", "did you mean RANDOM?"),
    ("plan --effect 'mean +2'", "got 'mean +2'; mean +2%, +2ms or +2s?"),
    (
        "plan --effect 'share(latency > 1) +2%'",
        "+2%'; share(latency > 1ms) or share(latency > 1s)?",
    ),
    ("noise-floor --slo-s 50", "--slo-s: needs a unit, got 50; 50ms or 50s?"),
    ("simulate --slo 'p999 <= 200ms'", "p99.9 has a point"),
    ("simulate --slo 'shadw.p99 <= 1s'", "did you mean shadow.p99?"),
    ("size", "--slo: is required"),
    ("size --slo 'error_rate < 150%'", "--slo: must be a share from 0 to 1, or from 0% to 100%"),
    ("size --slo 'p99 <= 1s' --types ml.m5.xlrge", "did you mean ml.m5.xlarge?"),
    ("size --slo 'p99 <= 1s' --variants both", "--variants: must be some of source and shadow"),
    ("size --slo 'p99 <= 1s' --headroom-pct 20%", "--headroom-pct: must be a number, got '20%'; it takes no sign %"),
    ("plan --effect 'p99 5%'", '--effect: must be METRIC +X% or METRIC +Xms, such as "p99 +5%"'),
    ("plan --effect 'p98 +5%'", "did you mean p99?"),
    ("plan --effect 'p99 +5'", "--effect: needs a percentage or a time, such as +5% or +20ms, got 'p99 +5'"),
    ("plan --power 80", "--power: must be a finite number > 0 and <= 0.999, got 80"),
    ("plan --power 80%", "--power: must be a number, got '80%'"),
    ("plan --shares 0", "--shares: must be a whole number >= 1, got 0"),
    ("plan --shares 150", "--shares: must be a finite number >= 1 and <= 100, got 150"),
    ("plan --durations '1 day'", "--durations: must be seconds, or have a unit (us, ms, s, m or min, h, d, w), as in"),
    # grids
    ("sweep", "--set: is required: what to vary"),
    ("sweep --set rate_per_s=", "--set: must be PATH=VALUE,VALUE,... without an empty value"),
    ("sweep --set rate_per_s=100,fast", "cell 1 (rate_per_s=fast): traffic.rate_per_s: must be a finite number > 0"),
    ("sweep --set rate_per_s=1 --set rate_per_s=2", "--set: must not give rate_per_s twice"),
    ("sweep --set rate_per_s=1,2 --cache notes.txt", "cache: cannot be a directory"),
    # saved runs
    ("report missing", "missing: is not a directory with a saved result; `simulate -o DIR` or Result.save makes one"),
    ("report notes.txt", "notes.txt: is not a directory with a saved result"),
    ("report lost", "windows.parquet: is missing"),
    ("compare nothing", "nothing: holds none of windows.parquet, latency.parquet, requests.parquet"),
    ("compare run --metric p98", "--metric: must be one of mean, p50, p90, p95, p99, p99.9, error_rate_4xx,"),
    ("compare run --confidence 95", "--confidence: must be > 0 and < 1, got 95"),
    ("compare run --margin-pct 5%", "--margin-pct: must be a number, got '5%'; it takes no sign %"),
    ("compare run --method section", "did you mean sections?"),
    ("compare run run --role shdow", "--role: must be source or shadow, got 'shdow'"),
    ("noise-floor --replications 1", "--replications: must be a whole number >= 2, got 1"),
    ("noise-floor --confidence 95", "--confidence: must be > 0 and < 1, got 95"),
    ("instances m5.xxlarge", "pattern: must match a SageMaker hosting type, got 'm5.xxlarge'"),
    # captures and benchmarks
    ("agreement missing run", "missing: there is no such file or folder"),
    ("agreement nothing nothing", "nothing: has no capture files (.jsonl)"),
    ("agreement notes.txt notes.txt", "notes.txt: holds no captures"),
    ("agreement nothing nothing --at-least 990%", "--at-least: must be a share such as 99% or 0.99, got '990%'"),
    ("benchmark-compare missing.json scenario.json", "missing.json: there is no such file"),
    ("benchmark-compare scenario.json scenario.json", "scenario.json: must be a file of pytest-benchmark"),
    ("benchmark-compare nothing nothing", "nothing: holds no file *.json"),
    # the server; a port in use ends those that get so far
    ("serve", "cannot be bound: "),
    ("serve --host 0.0.0.0", "--host: is reachable from other machines: give --credentials FILE, or --insecure"),
    ("serve --db missing/rehearsal.db", "--db: missing/rehearsal.db cannot be used"),
    ("serve --backend my-model=localhost:8080", "--backend: must have URLs such as http://127.0.0.1:8080"),
    ("serve --scenario request.json", "`shadowsim init` makes a file of it to edit"),
    ("serve --quotas quotas.json", "quotas.json: instances: must be a quota"),
    ("serve --choose desired_state", "--choose: must be NAME=VALUE, where NAME is one of deploy_in,"),
    ("serve --choose desired_state=Done", "desired_state: must be one of Cancelled, Completed, got 'Done'"),
    ("serve --time-scale 0", "--time-scale: must be > 0"),
    ("serve --time-scale fast", "--time-scale: must be a number, got 'fast'"),
    ("serve --port http", "--port: must be a number, got 'http'"),
    ("serve --port 70000", "--port: must be a whole number >= 0 and <= 65535, got 70000"),
    ("serve --max-body-bytes 6MB", "--max-body-bytes: must be a number, got '6MB'"),
    ("serve --stream-timeout-s 2h", "--stream-timeout-s: must be > 0 and <= 3600, got 7200"),
    ("serve --timeout-s 1hour", "--timeout-s: must be seconds, or have a unit (us,"),
    ("serve --flush-s 0", "--flush-s: must be > 0 and <= 86400, got 0"),
    ("serve --host 192.0.2.1 --insecure", "--host: must be an address or a name of this machine, got '192.0.2.1'"),
    ("serve --s3-root request.json", "request.json' is a file"),
]


# Typer words these errors; ours is that they are one line which names the word and points to the help.
USAGES = [
    ("simulat", "'simulat'", "shadowsim"),
    ("--json simulate", "--json", "shadowsim"),
    ("simulate --rte 400", "--rte", "shadowsim simulate"),
    ("simulate request.json scenario.json", "scenario.json", "shadowsim simulate"),
    ("validate", "FILE", "shadowsim validate"),
    ("report", "DIR", "shadowsim report"),
]


@pytest.mark.parametrize(("line", "word", "command"), USAGES, ids=[line for line, *_ in USAGES])
def test_a_usage(line: str, word: str, command: str):
    error = refused(*shlex.split(line))
    assert word in error
    assert error.endswith(f"(see {command} --help)")


@pytest.mark.usefixtures("at_desk")
@pytest.mark.parametrize(("line", "says"), LINES, ids=[line for line, _ in LINES])
def test_a_command_line(line: str, says: str, taken: int):
    command, *rest = shlex.split(line)
    where = ("--port", taken) if command == "serve" else ()
    assert says in refused(command, *where, *rest)


def traced(file: object, **more: object) -> ss.Scenario:
    """Return the scenario with a trace from a file."""
    document = json.loads(Path("scenario.json").read_text())
    return ss.Scenario.from_dict(document | {"traffic": {"process": "trace", "path": file, **more}})


# Mistakes that are no errors of form: they were once answered as if nothing were wrong. Each is refused (2), or the
# answer says what was understood (0 and 1).
MISREAD = [
    ("simulate --slo 'p99 <= 50'", 2, "--slo: needs a unit, got 'p99 <= 50'; p99 <= 50ms or 50s?"),
    ("simulate -q --set horizon_s=60 --set shadow.time.mean_s=30", 0, 'are 30 ms meant ("30ms")?'),
    ("noise-floor --set sampling_percentage=0", 2, "must be > 0: nothing is copied, so there is no noise to measure"),
    ("simulate -q --set horizon_s=60 --set sampling_percentage=0", 0, "a longer run would not help"),
    (
        "plan scenario.json --effect 'p99 -20%' --shares 50 --durations 10min --replications 10",
        0,
        "share of tests that call the shadow better when it is (p99 -20%)",
    ),
    ("size scenario.json --slo 'p99 <= 1s' --types ml.c5.large", 1, "No type could be judged for the shadow: its"),
    ("compare idle", 0, "The sides do not carry the same load"),
    ("validate past.json", 2, "Member must leave the experiment's end later than now"),
    ("simulate --rate 1e8 --set horizon_s=60", 2, "1,000,000,000 requests in a window of 60 s, got 6"),
    ("simulate -q scenario.json --set traffic={TRACE:seconds.csv}", 2, "has several columns that may be the arrivals"),
    (
        "simulate -q scenario.json --set horizon_s=2h --set traffic={TRACE:half_minute.csv}",
        0,
        "The trace covers 30 s of 2 h; figures are of these 30 s (repeat plays it again).",
    ),
]


@pytest.mark.usefixtures("at_desk")
@pytest.mark.parametrize(("line", "status", "says"), MISREAD, ids=[line for line, *_ in MISREAD])
def test_what_was_misread_in_silence_is_refused_or_said(line: str, status: int, says: str):
    words = shlex.split(line)
    for i, word in enumerate(words):
        name, _, file = word.partition("{TRACE:")
        if file:
            words[i] = name + json.dumps({"process": "trace", "path": file.removesuffix("}")})
    done = run(*words)
    assert done.exit_code == status, done.output
    assert says in " ".join(done.output.split())


@pytest.mark.slow
def test_a_page_that_is_stale_and_what_was_assumed(at_desk: Path):
    """An old page is not left beside new frames, and a page of a saved run says what the run's output said."""
    first = run("simulate", "-q", "request.json", "--rate", "50", "--set", "horizon_s=600", "-o", "again", "--report")
    assumed = first.stdout.count("assumed  ")
    assert assumed == 5
    assert run("report", "again").exit_code == 0
    page = (at_desk / "again" / "report.html").read_text(encoding="utf-8")
    assert page.count("service times are lognormal with mean 20\xa0ms") == 2
    second = run("simulate", "-q", "--set", "horizon_s=600", "-o", "again")
    assert "removed again/report.html (of an earlier run)" in second.stdout
    assert not (at_desk / "again" / "report.html").exists()


CELLS = [
    ("ss.compare(result, result)", "compare: compares both sides of one run; compare_runs(result, baseline) compares"),
    ("ss.simulate(None)", "scenario: must be an object, JSON text or a path, not null"),
    ("ss.simulate(pd.DataFrame())", "scenario: must be an object, JSON text or a path, not a DataFrame"),
    ("ss.simulate([1])", "scenario: must be an object, JSON text or a path, not a list"),
    ("ss.simulate('missing.json')", "missing.json: there is no such file, and JSON text would begin with {"),
    ("ss.simulate({})", "experiment: is required"),
    ("ss.simulate('request.json')", "rate_per_s: is required for a plain request"),
    ("ss.simulate('request.json', rate_per_s='fast')", "traffic.rate_per_s: must be a finite number > 0, got 'fast'"),
    ("ss.simulate(scenario, workers='two')", "workers: must be a whole number >= 1, got 'two'"),
    ("ss.simulate(scenario, workers=1.5)", "workers: must be a whole number >= 1, got 1.5"),
    ("ss.simulate(scenario, executor=4)", "executor: must be a concurrent.futures.Executor"),
    ("ss.sweep(scenario, {'seed': [1]}, workers='two')", "workers: must be a whole number >= 1, got 'two'"),
    ("ss.plan(scenario, workers='two')", "workers: must be a whole number >= 1, got 'two'"),
    ("ss.recommend(None)", "frame: must be what plan returned"),
    ("ss.replicate(scenario, 'three')", "n: must be an integer from 1 to 100000, got 'three'"),
    ("ss.summarise(result)", "results: must be a list of results, as replicate gives it, got a Result"),
    ("ss.Scenario.load(None)", "scenario: must be a path, not null"),
    ("ss.Scenario.load('request.json')", "Scenario.of(request, rate_per_s)"),
    ("ss.Scenario.from_dict(None)", "scenario: must be an object {...}, got null"),
    ("scenario.replace(None)", "changes: must be a mapping of paths to values"),
    ("scenario.replace([('seed', 1)])", "changes: must be a mapping of paths to values"),
    ("scenario.replace({5: 1})", 'changes: must have paths such as "rate_per_s" for keys, got 5'),
    ("scenario.replace({'shadow.instance_count': '2'})", "Member must be an integer, not a string"),
    ("scenario.replace({'rate_per_s': pd.DataFrame()})", "traffic.rate_per_s: must be a finite number > 0, got a Data"),
    ("scenario.replace({'seed': 'x'})", "run.seed: must be an integer from 0 to"),
    ("traced('missing.csv')", "traffic.path: there is no file missing.csv"),
    (
        "traced('trace.csv')",
        "has no column known as a time; name the column of the arrivals in time_column; it has when, n",
    ),
    ("traced('words.csv', time_column='when')", "words.csv has no column 'when'; it has arrived_at"),
    ("traced('words.csv')", "which fails in line 2, got 'monday'"),
    ("traced('empty.csv')", "empty.csv is empty"),
    ("traced('nothing')", "nothing is a directory"),
    ("ss.Result.load('notes.txt')", "notes.txt: is not a directory with a saved result; `simulate -o DIR` or"),
    ("ss.Result.load(None)", "directory: must be a path, not null"),
    ("result.save('notes.txt')", "notes.txt: cannot be a directory for a result"),
    ("result.quantile(99)", "q: must be in [0, 1], as 0.99 for p99, got 99"),
    ("result.quantile('p99')", "q: must be in [0, 1], as 0.99 for p99, got 'p99'"),
    ("ss.compare(5)", "frames: must be a result, its directory, or hold a windows, latency or requests frame, got 5"),
    ("ss.compare([result, 3])", "frames: must be a result, its directory"),
    ("ss.compare(result, margin_pct='5')", "margin_pct: must be > 0, got '5'"),
    ("ss.compare(result, confidence=95)", "confidence: must be > 0 and < 1, got 95"),
    (
        "ss.compare(result, slo_s='100 parsecs')",
        "slo_s: must be seconds, or have a unit (us, ms, s, m or min, h, d, w)",
    ),
    ("ss.compare(result, slo_s='0ms')", "slo_s: must be > 0, got '0ms'"),
    ("ss.compare_runs(result, result, slo_s='1,5s')", "slo_s: must be seconds, or have a unit"),
    ("ss.noise_floor(scenario, slo_s='100')", "slo_s: must be seconds, or have a unit"),
    ("ss.compare(result, look=1, looks='two')", "looks: must be an integer from 1 to"),
    ("ss.compare_runs(result, 'missing')", "missing: is not a directory with a saved result"),
    ("ss.assert_no_regression(result, result, 'lots')", "margin: must be a percentage such as 5%, or a share"),
    ("ss.noise_floor(scenario, replications='x')", "replications: must be a whole number >= 2, got 'x'"),
    ("ss.size(scenario, None)", 'slo: must be a text such as "p99 <= 200ms'),
    ("ss.size(scenario, 'p99 < 1s', instance_types=[])", "instance_types: must name at least one type"),
    ("ss.size(scenario, 'p99 < 1s', instance_types=[None])", "instance_type: must be a name such as ml.m5.xlarge"),
    ("ss.size(scenario, 'p99 < 1s', max_instances='ten')", "max_instances: must be a whole number >= 1, got 'ten'"),
    ("ss.size(scenario, 'p99 < 1s', prices=3)", "prices: must be a path, not an integer"),
    ("ss.plan(scenario, None)", "effect: must be METRIC +X% or METRIC +Xms"),
    ("ss.plan(scenario, 'p99 +5%', durations='1d')", "durations: must be a list of seconds"),
    ("ss.plan(scenario, 'p99 +5%', shares=50)", "shares: must be a list of sampling percentages, got 50"),
    ("ss.sweep(scenario, None)", "grid: must be a mapping of paths to lists of values"),
    ("ss.sweep(scenario, {'rate_per_s': 100})", "grid.rate_per_s: must be a list of values, got 100"),
    ("ss.sweep(scenario, {'rate_per_s': []})", "grid.rate_per_s: must have at least one value"),
    ("ss.plan(result, 'p99 +5%')", "scenario: must be an object, JSON text or a path, not a Result"),
    ("ss.card(5)", "thing: must be a Result, an Experiment, a Scenario, or a frame of size, capacity or plan, got 5"),
    ("ss.agreement(None, None)", "captures: must be a path, not null"),
    ("ss.agreement('nothing', 'nothing', rtol='1%')", "rtol: must be a finite number >= 0, got '1%'"),
    ("ss.read_captures(None)", "captures: must be a path, not null"),
    ("ss.compare_benchmarks(None, None)", "must be a file of pytest-benchmark, a directory of several or a list, not"),
    ("ss.Experiment.from_request({})", "6 validation errors detected: Value null at 'name'"),
]


@pytest.fixture(scope="module")
def result(desk: Path) -> ss.Result:
    return ss.Result.load(desk / "run")


@pytest.mark.usefixtures("at_desk")
@pytest.mark.parametrize(("cell", "says"), CELLS, ids=[cell for cell, _ in CELLS])
def test_a_cell(cell: str, says: str, result: ss.Result):
    names = {"ss": ss, "pd": pd, "np": np, "traced": traced, "result": result, "scenario": result.scenario}
    with pytest.raises(ss.ShadowsimError) as caught:
        eval(cell, names)
    assert isinstance(caught.value, ValueError)  # InputError, ValidationError or SerializationError, as callers catch
    assert says in str(caught.value)
    n = len(getattr(caught.value, "each", [0]))  # several errors have a line each
    assert len(str(caught.value).splitlines()) == (n + 1 if n > 1 else 1)
