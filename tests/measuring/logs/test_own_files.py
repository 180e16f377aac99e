"""SageMaker's captures, and folders of frames: what is a run, and what a sample of one."""

import captured
import pandas as pd
import pytest

from shadowsim import captured_arrivals, default_scenario, read_measurement, simulate
from shadowsim.errors import InputError
from shadowsim.result import Result


def test_captures_are_arrivals_without_latencies(tmp_path):
    records = [captured.record(f"id-{i}", {"x": i}, {"y": i}, after_s=i // 3) for i in range(12)]
    folder = captured.write(tmp_path, "AllTraffic", records, torn='{"captureData": {')
    measured = read_measurement(folder)
    arrivals = captured_arrivals(folder)["timestamp"]
    expected = (arrivals - arrivals[0]).dt.total_seconds()
    assert measured.requests["arrival_s"].tolist() == pytest.approx(expected.tolist())
    assert sorted(measured.requests["inference_id"]) == sorted(f"id-{i}" for i in range(12))
    assert (measured.n_requests, measured.n_damaged, measured.gap_scv) == (12, 1, None)
    assert measured.error_shares() == {}
    assert not measured.has_latencies
    file = next(folder.rglob("*.jsonl"))
    assert read_measurement(file).requests.equals(measured.requests)
    captured.write(tmp_path, "Shadow-01", records)
    with pytest.raises(InputError, match="must hold one variant, not several"):
        read_measurement(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    changes = {"horizon_s": 120.0, "run.sample_requests": 50, "rate_per_s": 20.0}
    folder = tmp_path_factory.mktemp("run") / "run"
    result = simulate(default_scenario().replace(changes), progress=False)
    result.save(folder)
    return folder


def test_a_sample_of_a_simulation_is_no_traffic(run):
    measured = read_measurement(run)
    result = Result.load(run)
    source = result.windows[result.windows["role"] == "source"]
    assert measured.requests is None
    assert measured.n_requests == source["Invocations"].sum()
    assert measured.quantile(0.99) == pytest.approx(result.quantile(0.99).iloc[0])
    assert measured.lacks[0] == "The run has two variants: this is its source."
    assert "kept a sample of" in measured.lacks[1]


def test_a_whole_run_has_its_requests(run, tmp_path):
    """As a live run keeps them: every request, and columns that only a load run has."""
    result = Result.load(run)
    source = result.requests[result.requests["role"] == "source"]
    source = source.assign(done_s=source["arrival_s"] + source["latency_s"])
    windows = result.windows[result.windows["role"] == "source"].iloc[:1].assign(Invocations=len(source))
    windows.to_parquet(tmp_path / "windows.parquet")
    result.latency.to_parquet(tmp_path / "latency.parquet")
    source.to_parquet(tmp_path / "requests.parquet")
    measured = read_measurement(tmp_path)
    assert measured.n_requests == len(source)
    by_arrival = source.sort_values("arrival_s", kind="stable")
    assert measured.requests["done_s"].tolist() == by_arrival["done_s"].tolist()
    assert measured.open_loop is True


def test_a_table_of_requests(tmp_path):
    columns = {"arrival_s": [2.0, 0.5, 1.0], "latency_s": [0.1, 0.2, None], "status": ["answered"] * 3, "other": 1}
    table = pd.DataFrame(columns)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    table.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for file in sorted(tmp_path.iterdir()):
        measured = read_measurement(file)
        assert measured.requests["arrival_s"].tolist() == [0.0, 0.5, 1.5]
        assert measured.requests["latency_s"].isna().tolist() == [False, True, False]
        assert list(measured.requests) == ["arrival_s", "latency_s", "status"]
        assert measured.lacks == ()
    file = tmp_path / "bad"
    file.write_text("arrival_s,latency_s\n1,2\n\n2,x\n")
    with pytest.raises(InputError, match="must have a number, 0 or more, in column latency_s, in line 4, got 'x'"):
        read_measurement(file)
    table[["latency_s"]].to_parquet(file)
    with pytest.raises(InputError, match="must have a column arrival_s; it has latency_s"):
        read_measurement(file)
