"""The notebook runs from top to bottom, shows pictures on the way, and is stored without them."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.places import ROOT

NOTEBOOK = ROOT / "examples" / "first_look.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The folder in which it ran, and its cells of code."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "clips").symlink_to(ROOT / "examples" / "clips")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setenv("IPYTHONDIR", str(folder / ".ipython"))
        NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(folder)}}).execute()
    return folder, [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> set[str]:
    """What a cell shows."""
    return {kind for output in cell.outputs for kind in output.get("data", {})}


def test_it_is_stored_without_what_it_shows() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert (cell.get("outputs", []), cell.get("execution_count"), dict(cell.metadata)) == ([], None, {})


def test_every_cell_shows_what_it_is_for(executed: tuple[Path, list[Any]]) -> None:
    folder, cells = executed
    assert [sorted(kinds(cell) - {"text/plain"}) for cell in cells] == [
        ["text/html"],  # the table of the run
        [],
        ["text/html"],  # xarray's
        [],
        ["image/jpeg", "image/png"],
        [],
        ["image/gif"],
        ["text/html"],  # the page
    ]
    run = folder / "output" / "runs" / "bird_alpha"
    assert {"turn.gif", "viewer.html", "spz", "run.json"} <= {path.name for path in run.iterdir()}
    (page,) = cells[-1].outputs
    assert 'src="output/runs/bird_alpha/viewer.html"' in page.data["text/html"]
