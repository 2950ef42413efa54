"""The tour: a notebook that runs from top to bottom, and is stored with what it shows."""

import pytest

from helpers import ROOT

nbformat = pytest.importorskip("nbformat")
TOUR = ROOT / "examples" / "tour.ipynb"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook):
    """How many pictures each cell shows"""
    return [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in code_cells(notebook)]


def test_it_is_stored_with_its_pictures_and_small():
    notebook = nbformat.read(TOUR, as_version=4)
    assert TOUR.stat().st_size < 1_000_000
    assert sum(pictures(notebook)) >= 5 and all(cell.outputs for cell in code_cells(notebook))
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))


@pytest.mark.slow
def test_it_runs_and_shows_what_is_stored():
    nbclient = pytest.importorskip("nbclient")
    stored = nbformat.read(TOUR, as_version=4)
    notebook = nbformat.read(TOUR, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs = []
    where = {"metadata": {"path": str(TOUR.parent)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    assert pictures(notebook) == pictures(stored)
