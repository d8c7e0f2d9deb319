"""Executing pages in place: reproducible, complete, and nothing written where a cell failed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import execute
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
VIEW = "application/vnd.jupyter.widget-view+json"
MACHINERY = ROOT / "tests" / "site" / "fixture_book" / "machinery.ipynb"


def run(*paths: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "tools/execute.py", *paths], cwd=ROOT, capture_output=True, text=True)


def save(path: Path, *sources: str) -> Path:
    cells = [new_markdown_cell("# A page", id="title"), *(new_code_cell(s, id=f"c{n}") for n, s in enumerate(sources))]
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> tuple[Path, Path]:
    """The page of the site's tests, executed twice from the same source."""
    folder = tmp_path_factory.mktemp("twice")
    paths = [Path(shutil.copy(MACHINERY, folder / f"{name}.ipynb")) for name in "ab"]
    done = run(*paths)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return tuple(paths)


def test_two_runs_are_the_same_bytes(twice):
    assert twice[0].read_bytes() == twice[1].read_bytes()


def test_widgets_are_saved_and_numbered_in_the_order_of_their_creation(twice):
    notebook = nbformat.read(twice[0], as_version=4)
    models = execute.widget_models(notebook)
    assert list(models) == [f"{n:032x}" for n in range(1, len(models) + 1)]
    shown = execute.mentioned(notebook.cells, models)
    assert len(shown) == 4 and shown <= models.keys()


def test_sources_ids_and_metadata_are_kept(twice):
    before, after = nbformat.read(MACHINERY, as_version=4), nbformat.read(twice[0], as_version=4)
    for old, new in zip(before.cells, after.cells, strict=True):
        assert (old.id, old.source, old.metadata) == (new.id, new.source, new.metadata)
    assert after.metadata.kernelspec.name == "python3" and after.metadata.language_info.name == "python"


def test_failing_page_is_left_as_it_was(tmp_path):
    page = save(tmp_path / "page.ipynb", "x = 1", "x / 0", "x")
    before = page.read_bytes()
    done = run(page)
    assert done.returncode == 1
    assert "page.ipynb, cell 3 (`x / 0`): ZeroDivisionError: division by zero" in done.stderr
    assert page.read_bytes() == before and list(tmp_path.iterdir()) == [page]


def test_dead_kernel_is_told(tmp_path):
    done = run(save(tmp_path / "page.ipynb", "import os; os._exit(1)"))
    assert done.returncode == 1 and "cell 2 (`import os; os._exit(1)`): DeadKernelError" in done.stderr


def test_what_is_no_notebook_is_told(tmp_path):
    assert run(tmp_path / "nothing.ipynb").stderr.strip() == f"{tmp_path / 'nothing.ipynb'} is not a notebook."


def made(states: dict, *views: str) -> nbformat.NotebookNode:
    outputs = [
        {"output_type": "display_data", "metadata": {}, "data": {VIEW: {"model_id": view}}} for view in views
    ]
    models = {name: {"model_name": kind, "state": state} for name, (kind, state) in states.items()}
    widgets = {execute.WIDGETS: {"state": models}}
    return new_notebook(cells=[new_code_cell("x", outputs=outputs)], metadata={"widgets": widgets})


def test_widgets_that_nothing_shows_are_dropped():
    a, b, c, link, other = ("%032x" % n for n in range(0xA0, 0xA5))
    notebook = made({
        c: ("HTMLModel", {}), b: ("HTMLModel", {}), a: ("BoxModel", {"children": [f"IPY_MODEL_{b}"]}),
        link: ("LinkModel", {"source": [f"IPY_MODEL_{a}", "index"], "target": [f"IPY_MODEL_{b}", "index"]}),
        other: ("LinkModel", {"source": [f"IPY_MODEL_{a}", "index"], "target": [f"IPY_MODEL_{c}", "index"]}),
    }, a)
    tidied = execute.tidy(notebook)
    models = list(execute.widget_models(tidied).values())
    assert [model["model_name"] for model in models] == ["HTMLModel", "BoxModel", "LinkModel"]
    assert models[1]["state"]["children"] == ["IPY_MODEL_" + "1".zfill(32)]
    assert tidied.cells[0].outputs[0].data[VIEW].model_id == "2".zfill(32)


def test_seconds_are_recorded_by_kind_of_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(execute, "TIMES", tmp_path / "results" / "execution.json")
    page = execute.BOOK / "channel" / "made.ipynb"
    monkeypatch.setattr(execute, "machine", lambda: ("gpu", {"cores": 8, "gpu": "a GPU"}))
    execute.record(page, 3.14159)
    monkeypatch.setattr(execute, "machine", lambda: ("cpu", {"cores": 2}))
    execute.record(page, 31.4159)
    assert json.loads(execute.TIMES.read_text()) == {
        "channel/made": {"cpu": {"cores": 2, "seconds": 31.4}, "gpu": {"cores": 8, "gpu": "a GPU", "seconds": 3.1}}
    }


def test_threads_can_be_chosen(monkeypatch, tmp_path):
    page = save(tmp_path / "page.ipynb", "import os; os.environ['OMP_NUM_THREADS']")
    monkeypatch.setitem(os.environ, "ATTNLIB_THREADS", "2")
    assert run(page).returncode == 0
    assert "'2'" in page.read_text()
