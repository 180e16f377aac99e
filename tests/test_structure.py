"""The house: which rooms there are, in which order they are read, and what a plain import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import shadowsim

PACKAGE = Path(shadowsim.__file__).parent
ROOT = Path(__file__).parents[1]

# A module imports only from those above it.
READING_ORDER = [
    *("errors", "documents", "contract", "experiment", "instances", "quotas", "lifecycle"),
    *("blocks", "paths", "datafiles", "traces", "profiles", "empirical", "families", "laws"),
    *("modulation", "arrivals", "traffic", "service", "defaults", "parts", "scenario"),
    *("_kernel", "quantiles", "feeds", "frames", "columns", "machine", "slices"),
    *("samples", "batches", "statistics", "sections", "contrasts", "pairs", "sequential", "comparison"),
    *("tallies", "verdict", "result", "slo", "costs", "tables", "changes", "engine", "tasks"),
    *("replications", "noise", "sheets", "demand", "trials", "search", "sizing"),
    *("grids", "cache", "sweeps"),
    *("effects", "scales", "rehearsals", "designs", "power", "planning"),
    *("readable", "cards"),
    *("grouping", "canvas", "timelines", "intervals", "frontiers", "maps", "plots"),
    *("capture", "recordings", "answers", "differences", "pairing"),
    *("spread", "shares", "agreements", "regressions", "gates", "findings", "page", "report", "analyses"),
    *("ranks", "timings", "speedups", "pytest_plugin"),
    *("console", "arguments", "outputs", "checks", "proposals"),
    *("server.destinations", "server.clock", "server.choices", "server.fleets", "server.revisions", "server.world"),
    *("server.clockwork", "server.events", "server.limits", "server.store", "server.listing", "server.models"),
    *("server.configs", "server.endpoints", "server.experiments", "server.descriptions", "server.control"),
    *("server.views", "server.intake", "server.connections", "server.backends", "server.pools", "server.mirror"),
    *("server.series", "server.logbook", "server.live", "server.captures", "server.runtime", "server.safety"),
    *("server.signatures", "server.figures", "server.questions", "server.cloudwatch", "server.query"),
    *("server.metrics", "server.settings", "server.callers", "server.app", "server.command"),
    *("cli", "__main__"),
]
LIGHT = ["numba", "pandas", "aiohttp", "plotly"]


def file_of(module):
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def imports(module):
    """The shadowsim modules that a module imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(file_of(module).read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name.removeprefix("shadowsim.") for a in node.names if a.name.startswith("shadowsim."))
        elif isinstance(node, ast.ImportFrom) and node.module == "shadowsim":
            yield from (a.name for a in node.names if (PACKAGE / f"{a.name}.py").exists())
        elif isinstance(node, ast.ImportFrom) and node.module == "shadowsim.server":
            yield from (f"server.{a.name}" for a in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shadowsim."):
            yield node.module.removeprefix("shadowsim.")


def test_every_module_has_its_place():
    paths = [p.relative_to(PACKAGE).with_suffix("") for p in PACKAGE.rglob("*.py")]
    found = {".".join(path.parts) for path in paths if path.name != "__init__"}
    assert found == set(READING_ORDER)
    assert len(READING_ORDER) == len(set(READING_ORDER))


@pytest.mark.parametrize("module", READING_ORDER)
def test_a_module_imports_only_from_those_above_it(module):
    above = READING_ORDER[: READING_ORDER.index(module)]
    assert set(imports(module)) <= set(above)


def test_only_what_shows_itself_looks_ahead():
    """The package's own face may be imported inside a `_repr_html_` alone: it reaches modules further down."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        shown = {n for f in ast.walk(tree) if getattr(f, "name", "") == "_repr_html_" for n in ast.walk(f)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "shadowsim" and node not in shown:
                assert not {a.name for a in node.names} & set(shadowsim._HOME), path


def test_compiled_code_imports_nothing_of_ours():
    """numba's cache does not see a change in another file."""
    assert not list(imports("_kernel"))
    for path in PACKAGE.glob("*.py"):
        if path.stem != "_kernel":
            assert "import numba" not in path.read_text()


def loaded(code):
    """Which heavy packages a fresh interpreter holds after some code."""
    probe = f"{code}\nimport sys\nprint(*[m for m in {LIGHT!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout
    return out.split()


def test_importing_shadowsim_loads_nothing_heavy():
    assert loaded("import shadowsim") == []
    assert loaded("import shadowsim; dir(shadowsim); shadowsim.default_scenario()") == []
    assert "numba" in loaded("from shadowsim import simulate")


def test_public_names_resolve_and_others_do_not():
    assert sorted(shadowsim.__all__) == sorted(shadowsim._HOME)
    for name in shadowsim.__all__:
        assert getattr(shadowsim, name).__module__ == f"shadowsim.{shadowsim._HOME[name]}"
    assert set(shadowsim.__all__) <= set(dir(shadowsim))
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = shadowsim.simulat


def test_the_version_is_said_once_more_in_the_metadata():
    assert f'version = "{shadowsim.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_nothing_else_stands_at_the_top():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=False, capture_output=True, text=True).stdout.split(
        "\n"
    )
    allowed = {"pyproject.toml", "shadowsim", "benchmarks", "tests", "notebooks", "README.md"}
    allowed |= {"CHANGELOG.md", "LICENSE", ".gitignore", ".ci"}
    assert {name.split("/")[0] for name in tracked if name} <= allowed
