"""The stored notebooks can be read without running them, contain nothing of one machine, and have no logic.

Logic would belong in the package. `pytest --nbmake notebooks` executes the notebooks. With the packages jupyter and
kaleido and a Chromium, this command creates all outputs anew:

    PLOTLY_RENDERER=png jupyter nbconvert --to notebook --execute --inplace
        --ClearMetadataPreprocessor.enabled=True --ClearMetadataPreprocessor.preserve_nb_metadata_mask=kernelspec
        notebooks/*.ipynb

Without PLOTLY_RENDERER, Plotly chooses a renderer that suits the environment, so that a reader's figures are live and
executing needs no kaleido.
"""

import ast
import base64
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
ALL = [
    "01_quickstart",
    "02_sizing",
    "03_share_and_duration",
    "04_trace_to_scenario",
    "05_accuracy",
    "06_sweeps_on_dask",
    "07_scaling_outages_retries",
    "08_prefix_caches",
    "09_live_rehearsal",
    "10_scenario_reference",
]
# folders of the machine that made the outputs, this checkout's among them, and addresses
PLACES = re.compile(
    re.escape(f"{Path(__file__).parents[1]}")
    + r"|/home/|/root/|/tmp/|/Users/|[A-Z]:\\|site-packages|\.venv|tcp://| at 0x[0-9a-f]{6}"
)
# Comprehensions over runs or cells, a formula as a lambda and catching an error to show it do not count as logic.
LOGIC = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.IfExp, ast.Match)
FIGURE = re.compile(r"^(plots|figure)\.\w+\(", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
SMALL = 12  # numbers up to this are counts in words, positions in a list, or times of day
MAX_SCRIPT = 100_000


@pytest.fixture(params=sorted(FOLDER.glob("*.ipynb")), ids=lambda file: file.stem)
def file(request):
    return request.param


@pytest.fixture
def notebook(file):
    return nbformat.read(file, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def texts(output):
    """Return all texts of an output."""
    values = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if not k.startswith("image/"))]
    return [text if isinstance(text, str) else str(text) for text in values]


def test_all_notebooks_exist():
    assert sorted(file.stem for file in FOLDER.glob("*.ipynb")) == ALL


def test_it_is_valid(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


def test_it_is_small(file):
    assert file.stat().st_size < 1_000_000


def test_it_was_executed_from_top_to_bottom(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert outputs(notebook)


def test_no_output_is_an_error_or_a_warning(notebook):
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        assert "Warning" not in "".join(texts(output))


def test_figures_are_pictures(notebook):
    figures = [cell for cell in code_cells(notebook) if FIGURE.search(cell.source)]
    assert figures
    for cell in figures:
        [data] = [output.data for output in cell.outputs if output.output_type == "display_data"]
        assert list(data) == ["image/png"], cell.id
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG"), cell.id


def test_no_output_contains_a_script(notebook):
    for output in outputs(notebook):
        assert not {"application/javascript", "application/vnd.plotly.v1+json"} & set(output.get("data", {}))
        assert all(len(text) < MAX_SCRIPT for text in texts(output))


def test_no_trace_of_a_machine_is_left(notebook):
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert set(notebook.metadata.get("language_info", {})) <= {"name"}
    assert not any(cell.metadata for cell in notebook.cells)
    all_texts = [cell.source for cell in notebook.cells] + [
        text for output in outputs(notebook) for text in texts(output)
    ]
    for text in all_texts:
        assert not PLACES.search(text), text


def test_cells_are_short(notebook):
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 31, cell.id


def test_there_is_no_logic(notebook):
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, LOGIC), f"{cell.id}: {ast.unparse(node)}"
            if isinstance(node, ast.comprehension):
                assert not node.ifs, f"{cell.id}: a comprehension that chooses"


def numbers(text):
    """Return the numbers in a text, without thousands separators and trailing zeros."""
    written = (number.rstrip(",").replace(",", "") for number in NUMBER.findall(text))
    return {number.rstrip("0").rstrip(".") if "." in number else number for number in written}


def test_numbers_in_the_text_are_set_or_computed_in_a_cell(notebook):
    code = [cell.source.replace("_", "") for cell in code_cells(notebook)]
    known = numbers(" ".join(code + [text for output in outputs(notebook) for text in texts(output)]))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"`[^`]*`|\(\w+,\s\d{4}\)|\d+:\d\d", "", cell.source)  # code, references and times
            for n in numbers(prose) - known:
                assert float(n) <= SMALL or float(n) / 100 in map(float, known), f"{cell.id}: {n}"
