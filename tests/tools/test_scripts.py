"""Pages get the package's newest viewer scripts without being executed, and nothing else in them changes."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from attnlib.widgets.viewer import script, style

ROOT = Path(__file__).resolve().parents[2]
WIDGETS = "application/vnd.jupyter.widget-state+json"


def model(name: str, **state) -> dict:
    return {"model_name": name, "model_module": "m", "model_module_version": "1", "state": state}


@pytest.fixture
def page(tmp_path) -> Path:
    notebook = new_notebook(cells=[new_code_cell("raise SystemExit('never run')", execution_count=1)])
    notebook.metadata["widgets"] = {WIDGETS: {"version_major": 2, "version_minor": 0, "state": {
        "01": model("AnyModel", _anywidget_id="attnlib.widgets.switch.Switch", _esm="old", _css="old", index=0),
        "02": model("AnyModel", _anywidget_id="somebody.Else", _esm="theirs", _css="theirs"),
        "03": model("HTMLModel", value="<p>text</p>"),
    }}}
    path = tmp_path / "page.ipynb"
    nbformat.write(notebook, path)
    return path


def bring(page: Path) -> str:
    run = subprocess.run([sys.executable, "tools/scripts.py", page], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_old_scripts_become_new_and_the_rest_stays(page):
    before = json.loads(page.read_text())
    assert "1 brought up to date" in bring(page)
    after = json.loads(page.read_text())
    ours = after["metadata"]["widgets"][WIDGETS]["state"]["01"]["state"]
    assert ours["_esm"] == script("switch") and ours["_css"] == style()
    before["metadata"]["widgets"][WIDGETS]["state"]["01"]["state"].update(_esm=ours["_esm"], _css=ours["_css"])
    assert after == before


def test_page_that_is_up_to_date_is_left_alone(page):
    bring(page)
    written = page.read_bytes()
    assert bring(page) == ""
    assert page.read_bytes() == written
