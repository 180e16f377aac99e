"""The commands measured, calibrate, predict and step-model: output, exit statuses and errors."""

from __future__ import annotations

import csv
import json

import log_samples
import pytest
from commands import good, refused, run, written
from log_samples import Sent
from served_logs import fifo_log

from shadowsim import default_scenario, step_model
from shadowsim.scenario.step_models import presets

ROWS = """model,prompt_tokens,batch,output_tokens,prefill_ms,token_ms
small,128,1,64,33.9,21.1
small,128,8,64,125.2,28.2
small,512,1,64,72.0,21.2
small,512,8,64,437.1,28.5
large,128,1,64,63.9,41.1
large,128,8,64,225.2,58.2
large,512,1,64,142.0,41.2
large,512,8,64,837.1,58.5
"""


@pytest.fixture
def rows(tmp_path):
    return written(tmp_path / "rows.csv", ROWS)


def test_shows_coefficients_with_errors_and_misses(rows):
    text = good("step-model", rows)
    assert text.startswith("small: 8 cells\n  base_s ")
    assert "\nlarge: 8 cells\n" in text
    assert "\n  misses: times per token " in text
    assert "Standard errors (+-) are those between cells" in text
    assert max(map(len, text.splitlines())) <= 80


def test_for_machines(rows):
    fits = step_model(rows)
    answer = json.loads(good("step-model", rows, "--json"))
    assert [fit["configuration"] for fit in answer["fits"]] == [{"model": "small"}, {"model": "large"}]
    assert answer["fits"][0]["tokens"] == fits.fits[0].tokens
    lines = good("step-model", rows, "--csv").splitlines()
    assert float(next(csv.DictReader(lines))["base_s"]) == pytest.approx(fits.fits[0].step["base_s"])


def test_where_and_by(rows):
    assert good("step-model", rows, "--where", "model=large").startswith("large: 8 cells")
    assert good("step-model", rows, "--by", "model,prompt_tokens").startswith("small, prompt_tokens 128: 4 cells")


def test_lists_presets():
    text = good("step-model", "--presets")
    assert all(f"\n{name} " in text for name in presets())
    assert max(map(len, text.splitlines())) <= 80
    answer = json.loads(good("step-model", "--presets", "--json"))
    assert answer[0]["step"] == dict(presets()[answer[0]["name"]].step)
    assert len(good("step-model", "--presets", "--csv").splitlines()) == len(presets()) + 1


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ((), "MEASUREMENTS: must be given"),
        (("rows.csv", "--presets"), "MEASUREMENTS: must not be given together with --presets"),
        (("none.csv",), "MEASUREMENTS: there is no file none.csv"),
        (("rows.csv", "--where", "model"), "--where: must be COLUMN=VALUE, got 'model'"),
        (("rows.csv", "--where", "model=smal"), "rows.csv: has no row whose model is smal; it has small, large"),
        (("rows.csv", "--by", "modl"), "rows.csv: has no column modl; it has"),
        (("rows.csv", "--json", "--csv"), "--csv: must not be given together with --json"),
        (("zero.csv",), "zero.csv: line 3: batch must be a number > 0, got 0.0"),
        (("text.csv",), "text.csv: line 2: token_ms must be a number > 0, got 'fast'"),
        (("short.csv",), "short.csv (small): must have at least two measurements that differ in"),
        (("columns.csv",), "columns.csv: must have the columns prompt_tokens, batch, output_tokens, prefill_ms and"),
    ],
)
def test_mistakes_get_one_line(args, line, tmp_path, monkeypatch):
    for name, text in {
        "rows.csv": ROWS,
        "zero.csv": ROWS.replace("128,8,64,125.2", "128,0,64,125.2"),
        "text.csv": ROWS.replace("21.1", "fast"),
        "short.csv": "".join(ROWS.splitlines(keepends=True)[:2]),
        "columns.csv": "a,b\n1,2\n",
    }.items():
        written(tmp_path / name, text)
    monkeypatch.chdir(tmp_path)
    assert refused("step-model", *args).startswith(line)


@pytest.fixture
def log(tmp_path):
    return written(tmp_path / "access.log", log_samples.nginx_json([Sent(100 * i, 20) for i in range(50)]))


def test_measured_shows_a_log_and_writes_a_trace(log, tmp_path):
    text = good("measured", log, "-o", tmp_path / "trace.csv")
    assert text.startswith("nginx JSON log\n  arrivals 50 requests in 4.90 s from 2026-11-29")
    assert text.endswith(f"\n\nwrote {tmp_path / 'trace.csv'} (50 rows)\n")
    scenario = written(
        tmp_path / "s.json",
        json.dumps(default_scenario().to_dict() | {"traffic": {"process": "trace", "path": "trace.csv"}}),
    )
    assert "50 requests" in good("validate", scenario)


def test_measured_for_machines(log):
    said = json.loads(good("measured", log, "--json"))
    assert (said["form"], said["requests"]) == ("nginx JSON log", 50)
    (row,) = csv.DictReader(good("measured", log, "--csv").splitlines())
    assert row["requests"] == "50"
    assert float(row["p50_s"]) == 0.02


def test_measured_refuses_in_one_line(log, tmp_path):
    assert refused("measured", tmp_path / "none").endswith("there is no such file")
    assert "must end in .csv" in refused("measured", log, "-o", tmp_path / "trace.txt")
    assert "--csv: must not be given together with --json" in refused("measured", log, "--json", "--csv")
    spectrum = written(tmp_path / "h", "Value Percentile TotalCount 1/(1-Percentile)\n")
    assert "give latency_unit" in refused("measured", spectrum)
    assert refused("measured").startswith("Missing argument 'LOG")
    assert refused("measured", log, "-o", tmp_path / "no" / "trace.csv").startswith("-o: must be a file in a directory")


def test_a_log_in_place_of_a_trace_names_the_command(log, tmp_path):
    """Of an access log no table can be read; the error tells what makes a trace of it."""
    written(tmp_path / "alb.log", log_samples.alb([Sent(0, 20), Sent(10, 20)]))
    scenario = written(
        tmp_path / "s.json",
        json.dumps(default_scenario().to_dict() | {"traffic": {"process": "trace", "path": "alb.log"}}),
    )
    error = refused("simulate", scenario)
    assert f"is no table but ALB access log: `shadowsim measured {tmp_path / 'alb.log'} -o trace.csv` makes" in error


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two logs of a service and one of a service that became slower; the first is calibrated."""
    folder = tmp_path_factory.mktemp("logs")
    for name, seed, mean_s in (("first", 1, 0.02), ("later", 2, 0.02), ("slower", 3, 0.023)):
        arrival, latency = fifo_log("gamma", 2, 0.5, n=5_000, seed=seed, mean_s=mean_s)
        rows = "\n".join(f"{a},{x}" for a, x in zip(arrival, latency, strict=True))
        written(folder / f"{name}.csv", f"arrival_s,latency_s\n{rows}\n")
    text = good("calibrate", folder / "first.csv", "-o", folder / "service.json")
    assert text.startswith("Calibrated on 5,000 requests (table of requests); intervals hold 95 %.\n")
    assert max(map(len, text.split("\nwrote")[0].splitlines())) <= 80
    return folder


def test_calibrate_for_machines(logs):
    answer = json.loads(good("calibrate", logs / "first.csv", "--json", "--reserve", "20%"))
    assert answer["service"]["workers"] == 2
    assert answer["calibration"]["reserve"]["n_requests"] == 5_000
    done = run("calibrate", logs / "first.csv", "--csv", "--report", logs / "calibration.html")
    assert done.stdout.splitlines()[0] == "name,value,low,high,identified,why_not"
    assert done.stderr == f"page: {logs / 'calibration.html'}\n"
    assert "The service has a mean time of " in (logs / "calibration.html").read_text("utf-8")


def test_predict_exits_with_its_verdict(logs):
    service = logs / "service.json"
    assert good("predict", service, logs / "later.csv", "--draws", "20").startswith("The model is right")
    done = run("predict", service, logs / "slower.csv", "--draws", "20", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["verdict"] == "not right"
    page = logs / "page.html"
    text = good("predict", service, logs / "later.csv", "--draws", "20", "--tolerance-pct", "1", "--report", page)
    assert text.startswith("cannot tell: the band of ")
    assert text.endswith(f"page: {page}\n")
    assert (
        run("predict", service, logs / "later.csv", "--draws", "20", "--tolerance-pct", "1", "--strict").exit_code == 1
    )


def test_wrong_lines_of_calibrate_and_predict(logs):
    assert refused("calibrate", logs / "none.csv").endswith("none.csv: there is no such file")
    # Before the fit, which would be lost.
    assert refused("calibrate", logs / "none.csv", "-o", logs / "no" / "s.json").startswith("-o: must be a file in a ")
    assert refused("calibrate", logs / "first.csv", "--reserve", "130%").startswith("--reserve: must be a share ")
    assert refused("predict", logs / "first.csv", logs / "later.csv").startswith(f"{logs / 'first.csv'}: ")
    assert refused("predict", logs / "service.json", logs / "none.csv").endswith("none.csv: there is no such file")
