"""The architecture as rules: which folder may import which, what each may load, and that each module is introduced."""

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from import_graph import MODULES, imports, tree_of

import shadowsim

ROOT = Path(__file__).parents[1]

# A module imports from its own place and from places above it. "" is what stands directly in the package.
ORDER = [
    *(
        "errors",
        "option_defaults",
        "json_files",
        "documents",
        "quantities",
        "arrays",
        "histogram",
        "frames",
        "period_counts",
        "core_time",
        "kernel_timer",
        "aws",
        "statistics",
        "scenario",
        "text",
        "reference",
    ),
    *("captures", "verdict", "result"),
    *(
        "engine",
        "planning",
        "measuring.measurement",
        "measuring.generator",
        "measuring.logs",
        "measuring",
        "plots",
        "testing",
        "report",
    ),
    *("server.state", "server.http", "server.control", "server.data_plane", "server.metrics", "server.page", "server"),
    *("server.processes", "cli"),
    "__main__",
]
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}
LIGHT = ["numba", "pandas", "aiohttp", "plotly"]
SHOWN = {"_repr_html_", "report", "plot"}  # methods that may look ahead


def place_of(module):
    return module if module in ORDER else module.rpartition(".")[0]


def test_every_module_has_its_place():
    assert {place_of(module) for module in MODULES} == set(ORDER)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_its_own_place_and_those_above(module):
    allowed = ORDER[: ORDER.index(place_of(module)) + 1]
    assert {place_of(name) for name in imports(module)} <= set(allowed)


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: set(imports(module)) for module in MODULES}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_folder_holds_at_most_twenty_five_modules(package):
    assert len(list(MODULES[package].parent.glob("*.py"))) - 1 <= 25


def test_only_what_shows_itself_looks_ahead():
    """The package's own face may be imported inside some methods alone: it reaches modules further down."""
    for path in MODULES.values():
        tree = tree_of(path)
        shown = {n for f in ast.walk(tree) if getattr(f, "name", "") in SHOWN for n in ast.walk(f)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "shadowsim" and node not in shown:
                assert not {a.name for a in node.names} & set(shadowsim._HOME), path


def test_only_the_engine_compiles():
    for module, path in MODULES.items():
        if "numba" in path.read_text():
            tree = tree_of(path)
            names = [n.name for i in ast.walk(tree) if isinstance(i, ast.Import) for n in i.names]
            names += [i.module for i in ast.walk(tree) if isinstance(i, ast.ImportFrom) and i.module]
            assert place_of(module) == "engine" or not any(name.split(".")[0] == "numba" for name in names), module


def test_compiled_code_imports_nothing_of_ours():
    """numba's cache does not see a change in another file, except where `watch` lets it."""
    assert not imports("engine._kernel")
    assert set(imports("engine._prefix_kernel")) == {"engine._kernel"}
    assert set(imports("engine._token_kernel")) == {"engine._kernel", "engine._prefix_kernel"}
    assert set(imports("engine._event_kernel")) == {"engine._kernel", "engine._prefix_kernel", "engine._token_kernel"}


def test_statistics_know_nothing_of_the_simulator():
    for module in MODULES:
        if place_of(module) == "statistics":
            assert not {place_of(name) for name in imports(module)} & {"scenario", "engine", "planning"}


def loaded(code):
    """Which heavy packages a fresh interpreter holds after some code."""
    probe = f"{code}\nimport sys\nprint(*[m for m in {LIGHT!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout
    return out.split()


def test_importing_shadowsim_loads_nothing_heavy():
    assert loaded("import shadowsim") == []
    assert loaded("import shadowsim; dir(shadowsim); shadowsim.default_scenario()") == []
    assert "numba" in loaded("from shadowsim import simulate")


def test_importing_any_folder_loads_nothing_heavy():
    assert loaded("\n".join(f"import shadowsim.{name}" for name in sorted(PACKAGES))) == []


def test_no_folders_face_does_anything():
    """An `__init__` holds its docstring alone; that of plots resolves its functions lazily."""
    for name in PACKAGES - {"plots"}:
        body = tree_of(MODULES[name]).body
        assert len(body) == 1, name
        assert isinstance(body[0].value, ast.Constant), name


def test_the_server_needs_no_compiler():
    server = [name for name in MODULES if name.startswith("server")]
    assert "numba" not in loaded("\n".join(f"import shadowsim.{name}" for name in server))


def test_public_names_resolve_and_others_do_not():
    assert sorted(shadowsim.__all__) == sorted(shadowsim._HOME)
    for name in shadowsim.__all__:
        assert getattr(shadowsim, name).__module__ == f"shadowsim.{shadowsim._HOME[name]}"
    assert [name for name in dir(shadowsim) if not name.startswith("__")] == sorted(shadowsim.__all__)
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = shadowsim.simulat


@pytest.mark.parametrize("face", ["", "plots"])
def test_type_checkers_do_not_see_that_names_resolve_late(face):
    """They would accept every name, as `shadowsim.simulatee`."""
    body = tree_of(ROOT / "shadowsim" / face / "__init__.py").body
    late = [node for node in body if isinstance(node, ast.If) and "__getattr__" in ast.unparse(node)]
    assert [ast.unparse(node.test) for node in late] == ["not TYPE_CHECKING"]
    assert not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in body)


def test_the_version_is_said_once_more_in_the_metadata():
    assert f'version = "{shadowsim.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_nothing_else_stands_at_the_top():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=False, capture_output=True, text=True).stdout.split(
        "\n"
    )
    allowed = {"pyproject.toml", "shadowsim", "benchmarks", "tests", "notebooks", "README.md"}
    allowed |= {"CHANGELOG.md", "LICENSE", ".gitignore", ".ci"}
    assert {name.split("/")[0] for name in tracked if name} <= allowed


def test_tests_mirror_the_folders_and_import_no_benchmarks():
    tests = ROOT / "tests"
    assert not list(tests.rglob("__init__.py"))  # tests/statistics would hide the standard library's
    folders = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")}
    assert folders <= {".", *(name.replace(".", "/") for name in PACKAGES)}
    support = {path.stem for path in (tests / "support").glob("*.py")}
    names = {path.stem for path in [*tests.rglob("test_*.py"), *(ROOT / "benchmarks").glob("*.py")]} - support
    for path in [*tests.rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for node in ast.walk(tree_of(path)):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert module not in names - {"conftest"}, path


def first_sentence(module):
    text = ast.get_docstring(tree_of(MODULES[module])) or ""
    return " ".join(text.split("\n\n")[0].split())


def test_each_folder_introduces_its_modules():
    """The docstring of a folder has one line per module and subfolder: its name, then what it does."""
    for package in PACKAGES:
        folder = MODULES[package].parent
        inside = {path.stem for path in folder.glob("*.py")} | {
            path.parent.name for path in folder.glob("*/__init__.py")
        }
        lines = (ast.get_docstring(tree_of(MODULES[package])) or "").split("\n")[1:]
        introduced = [line.split()[0] for line in lines if len(line.split()) > 1 and not line.startswith(" ")]
        assert inside - {"__init__"} == set(introduced) & inside, package
        assert len(set(introduced)) == len(introduced), package


def test_first_sentences_fit_a_line_and_differ():
    sentences = {module: first_sentence(module) for module in MODULES}
    questions = ("How ", "What ", "Whose ", "By which ", "Where ", "Which ", "When ", "Whether ")
    long = {m: len(s) for m, s in sentences.items() if not 0 < len(s.split(". ")[0]) <= 100}
    assert long == {}
    assert [m for m, s in sentences.items() if s.startswith(questions)] == []
    openings = Counter(" ".join(sentence.split()[:3]) for sentence in sentences.values())
    assert [opening for opening, n in openings.items() if n > 1] == []


def test_a_public_class_name_stands_once():
    names = Counter(
        node.name
        for path in MODULES.values()
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, n in names.items() if n > 1] == []
