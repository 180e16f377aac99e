"""The notebooks as they lie in the repository: readable where nothing runs, and free of what belongs to one machine.

`pytest --nbmake notebooks` executes them. With the packages jupyter and kaleido and a Chromium, this makes one anew:

    PLOTLY_RENDERER=png jupyter nbconvert --to notebook --execute --inplace
        --ClearMetadataPreprocessor.enabled=True --ClearMetadataPreprocessor.preserve_nb_metadata_mask=kernelspec
        notebooks/01_quickstart.ipynb

Without PLOTLY_RENDERER, Plotly chooses what suits the place, so that a reader's figures are live and executing needs
no kaleido.
"""

import base64
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
PLACES = re.compile(r"/home/|/root/|/tmp/|/Users/|[A-Z]:\\|site-packages")
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
    """Everything in an output but pictures."""
    found = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if not k.startswith("image/"))]
    return [text if isinstance(text, str) else str(text) for text in found]


def test_there_is_a_quickstart():
    assert (FOLDER / "01_quickstart.ipynb").exists()


def test_it_is_valid(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


def test_it_is_small(file):
    assert file.stat().st_size < 1_000_000


def test_it_was_executed_from_top_to_bottom(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert outputs(notebook)


def test_nothing_went_wrong(notebook):
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        assert "Warning" not in "".join(texts(output))


def test_figures_are_pictures(notebook):
    figures = [cell for cell in code_cells(notebook) if re.search(r"^plots\.\w+\(", cell.source, re.MULTILINE)]
    assert figures
    for cell in figures:
        [output] = cell.outputs
        assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG"), cell.id


def test_no_script_is_inside(notebook):
    for output in outputs(notebook):
        assert not {"application/javascript", "application/vnd.plotly.v1+json"} & set(output.get("data", {}))
        assert all(len(text) < MAX_SCRIPT for text in texts(output))


def test_nothing_is_left_of_the_machine(notebook):
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert set(notebook.metadata.get("language_info", {})) <= {"name"}
    assert not any(cell.metadata for cell in notebook.cells)
    said = [cell.source for cell in notebook.cells] + [text for output in outputs(notebook) for text in texts(output)]
    for text in said:
        assert not PLACES.search(text), text


def test_cells_are_short(notebook):
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 31, cell.id
