"""Rows kept in a directory: their keys, and files that are ignored."""

import os
import shutil

import pytest
from cases import scenario, service
from import_graph import MODULES, imports

from shadowsim import InputError
from shadowsim.planning import sweep_cache
from shadowsim.planning.sweep_cache import Cache, key_of
from shadowsim.planning.sweep_grid import text_of

ROWS = [{"variant": "Söurce", "p99_s": 0.1 + 0.2, "requests": 2**53 + 1, "captured_bytes": None}]
KEY = "ab" * 32


def test_rows_come_back_to_the_bit(tmp_path):
    kept = Cache.open(tmp_path / "new" / "cache")
    assert kept.get(KEY) is None
    kept.put(KEY, ROWS)
    kept.put(KEY, ROWS)
    assert Cache.open(kept.directory).get(KEY) == ROWS
    assert [file.name for file in kept.directory.iterdir()] == [f"{KEY}.json"]


def spoilt(file, what):
    text = file.read_text()
    if what == "a directory":
        file.unlink()
        file.mkdir()
        return
    file.write_bytes(
        {
            "empty": b"",
            "torn": text[: len(text) // 2].encode(),
            "binary": b"\xff\xfe\0",
            "other JSON": b'["rows"]',
            "no digest": b'{"key": "' + KEY.encode() + b'", "rows": []}',
            "another run's": text.replace(KEY, "cd" * 32).encode(),
            "a changed figure": text.replace(str(2**53 + 1), str(2**53)).encode(),
            "nested": b"[" * 100_000,
        }[what]
    )


@pytest.mark.parametrize(
    "what",
    [
        *("empty", "torn", "binary", "other JSON", "no digest", "another run's", "a changed figure", "nested"),
        "a directory",
    ],
)
def test_a_corrupt_or_foreign_file_is_ignored(tmp_path, what):
    kept = Cache.open(tmp_path)
    kept.put(KEY, ROWS)
    file = tmp_path / f"{KEY}.json"
    spoilt(file, what)
    with pytest.warns(UserWarning, match=f"{KEY}.json .*: its cell is run again"):
        assert kept.get(KEY) is None
    if what != "a directory":
        kept.put(KEY, ROWS)
        assert kept.get(KEY) == ROWS


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    kept = Cache.open(tmp_path)
    kept.put(KEY, ROWS)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cache: .*json cannot be written \(No space left on device\)"):
        kept.put(KEY, [])
    assert [file.name for file in tmp_path.iterdir()] == [f"{KEY}.json"]
    assert kept.get(KEY) == ROWS


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    for path in ("file", "file/below", "null\0"):
        with pytest.raises(InputError, match="cache: cannot be a directory"):
            Cache.open(tmp_path / path)


def key(s, replication=None):
    return key_of(text_of(s), s.base_dir, replication)


def test_a_key_depends_on_scenario_replication_and_code(tmp_path, monkeypatch):
    s = scenario({"process": "poisson", "rate_per_s": 5.0})
    keys = [key(s), key(s.replace({"seed": 8})), key(s, 0), key(s, 1)]
    monkeypatch.setattr(sweep_cache, "code_digest", lambda: "other")
    keys.append(key(s))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("where", ["traffic", "bytes", "time"])
def test_a_key_depends_on_the_content_of_data_files_and_not_on_their_folder(tmp_path, where):
    def in_folder(name, times):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "data.csv").write_text("time_s\n" + "\n".join(map(str, times)))
        law = {"law": "empirical", "path": "data.csv"}
        return {
            "traffic": lambda: scenario({"process": "trace", "path": "data.csv"}, base_dir=tmp_path / name),
            "bytes": lambda: scenario(
                {"process": "poisson", "rate_per_s": 5.0, "request_bytes": law}, base_dir=tmp_path / name
            ),
            "time": lambda: scenario(
                {"process": "poisson", "rate_per_s": 5.0},
                {"time": law, "workers": 1},
                service(),
                base_dir=tmp_path / name,
            ),
        }[where]()

    first, same = key(in_folder("a", [1, 2, 3])), key(in_folder("b", [1, 2, 3]))
    assert first == same
    assert key(in_folder("a", [1, 2, 4, 5])) != first


def test_the_packages_own_traces_belong_to_its_code():
    s = scenario({"process": "trace", "path": "builtin:trace_small"})
    assert key(s) == key(s)
    assert len(sweep_cache.code_digest()) == 64


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package whose files may be touched."""
    return shutil.copytree(
        sweep_cache._PACKAGE,
        tmp_path_factory.mktemp("copy") / "shadowsim",
        ignore=shutil.ignore_patterns("__pycache__"),
    )


def touched(package, name):
    """Return whether the key changes with a file, which is left as it was."""
    file = package / name
    before, content = sweep_cache.code_digest.__wrapped__(package), file.read_bytes()
    file.write_bytes(content + b"\n")
    try:
        return sweep_cache.code_digest.__wrapped__(package) != before
    finally:
        file.write_bytes(content)


USED = [
    *("errors", "frames", "result", "verdict", "aws/contract", "statistics/comparison", "scenario/laws"),
    *("engine/_kernel", "engine/columns", "engine/simulate", "engine/parallel", "planning/sweep"),
]


@pytest.mark.parametrize(
    "name", [*(f"{name}.py" for name in USED), "aws/instances.csv", "scenario/data/trace_small.csv"]
)
def test_a_key_changes_with_what_a_result_depends_on(package, name):
    assert touched(package, name)


@pytest.mark.parametrize(
    "name", ["cli/main.py", "plots/run.py", "report/run_page.py", "server/app.py", "report/report.css"]
)
def test_a_key_does_not_change_with_what_only_shows_results(package, name):
    assert not touched(package, name)


def test_a_new_module_changes_the_key(package):
    before = sweep_cache.code_digest.__wrapped__(package)
    new = package / "engine" / "kernel" / "batcher.py"
    new.parent.mkdir()
    new.write_text("")
    assert sweep_cache.code_digest.__wrapped__(package) != before


def test_all_that_a_sweep_imports_is_digested():
    """The folders named are enough: what planning/sweep.py reaches lies in them, or has no part in a figure."""
    used, modules = set(), ["planning.sweep"]
    while modules:
        module = modules.pop()
        if module not in used:
            used.add(module)
            modules += imports(module)
    digested = {
        "errors",
        "option_defaults",
        "quantities",
        "json_files",
        "documents",
        "arrays",
        "histogram",
        "frames",
        "verdict",
        "result",
    }
    digested |= {m for m in MODULES if m.split(".")[0] in ("aws", "statistics", "scenario", "engine")}
    digested |= {m for m in MODULES if m.startswith("planning.sweep")}
    assert used - digested <= {"text"}
