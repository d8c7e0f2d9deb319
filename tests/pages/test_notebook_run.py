"""The plugin of the notebook run sees what nbval alone lets pass; shown on notebooks made for it."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "pytest", "-q", "-p", "notebook_run", "--nbval", "--nbval-current-env"]


def code(source: str, output: str = "", tags: tuple[str, ...] = ()):
    outputs = [new_output("stream", text=output)] if output else []
    return new_code_cell(source, execution_count=1, outputs=outputs, metadata={"tags": list(tags)})


NOTEBOOKS = {
    "good": [code("print(1)", "1\n")],
    "wrong": [code("print(1)", "2\n")],
    "words": [new_markdown_cell("Nothing to run.")],
    "skipped": [code("print(1)", "1\n", ("nbval-skip",))],
    "hangs": [code("while True: pass"), code("print(1)", "1\n")],
    "threads": [code("import os; print(os.environ['OMP_NUM_THREADS'])", "1\n")],
    "addresses": [code("print(object())", "<object object at 0x7f0000000000>\n")],
}


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    everything = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", **environment}
    command = [*COMMAND, f"--nbval-sanitize-with={HERE / 'sanitize.cfg'}", *arguments]
    done = subprocess.run(command, cwd=folder, env=everything, capture_output=True, text=True)
    return done.returncode, re.sub(r"\x1b\[[\d;]*m", "", done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "book").mkdir()
    for name, cells in NOTEBOOKS.items():
        nbformat.write(new_notebook(cells=cells), folder / "book" / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def everything(folder) -> str:
    """What a run over all of them says, in two workers as in `make test`."""
    code, said = run(folder, "book", "--nbval-cell-timeout=2", "-n", "2", "--dist", "loadscope")
    assert code == 1
    return said


def test_wrong_output_fails(everything):
    assert "FAILED book/wrong.ipynb::Cell 0" in everything


def test_notebook_in_which_nothing_ran_fails(everything):
    assert "FAILED book/words.ipynb: nothing in it ran" in everything
    assert "FAILED book/skipped.ipynb: nothing in it ran" in everything


def test_skipped_cell_fails(everything):
    assert "FAILED book/skipped.ipynb: 1 cells skipped, 0 not counted" in everything


def test_what_follows_a_timeout_fails(everything):
    assert "FAILED book/hangs.ipynb::Cell 0" in everything
    assert "FAILED book/hangs.ipynb: 0 cells skipped, 1 not counted" in everything


def test_nothing_else_fails_and_every_page_has_its_seconds(everything):
    faulty = set(re.findall(r"FAILED book/(\w+)", everything))
    assert faulty == {"wrong", "words", "skipped", "hangs"}
    assert set(re.findall(r"\d\.\d  book/(\w+)", everything)) == set(NOTEBOOKS)
    assert re.search(r"2 failed, 3 passed, 1 skipped, 1 xpassed in", everything)


def test_good_notebook_passes(folder):
    assert run(folder, "book/good.ipynb")[0] == 0


def test_page_far_over_its_budget_fails(folder):
    code, said = run(folder, "book/good.ipynb", ATTNLIB_PAGE_SECONDS="0.01")
    assert code == 1 and "FAILED book/good.ipynb: took" in said



class Kernel:
    """In place of jupyter_client's manager: a kernel that answers, or does not, as told."""

    answers: list[bool] = []
    made: list["Kernel"] = []

    def __init__(self, **_) -> None:
        self.shut = False
        self.made.append(self)

    def start_kernel(self, **_) -> None:
        pass

    def client(self) -> "Kernel":
        return self

    def start_channels(self) -> None:
        pass

    stop_channels = start_channels

    def wait_for_ready(self, timeout: float) -> None:
        if not self.answers.pop(0):
            raise RuntimeError("Kernel didn't respond")

    def shutdown_kernel(self, now: bool) -> None:
        self.shut = now


@pytest.mark.parametrize("answers, works", [([True], True), ([False, True], True), ([False, False, False], False)])
@pytest.mark.filterwarnings("ignore:a kernel was started anew")
def test_kernel_that_does_not_answer_is_replaced(monkeypatch, answers, works):
    import jupyter_client.manager

    spec = importlib.util.spec_from_file_location("notebook_run_itself", HERE / "notebook_run.py")
    plugin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plugin)
    monkeypatch.setattr(jupyter_client.manager, "KernelManager", Kernel)
    monkeypatch.setattr(Kernel, "answers", list(answers))
    monkeypatch.setattr(Kernel, "made", [])
    if works:
        manager, _ = plugin.start_new_kernel()
        assert manager is Kernel.made[-1] and not manager.shut
    else:
        with pytest.raises(RuntimeError, match="respond"):
            plugin.start_new_kernel()
    assert len(Kernel.made) == len(answers)
    assert all(kernel.shut for kernel in Kernel.made[: len(answers) - works])


def test_kernels_talk_through_files_of_their_own(folder):
    """Two that start together can then not take each other's port."""
    connection = code("import ipykernel, json\nprint(json.load(open(ipykernel.get_connection_file()))['transport'])", "ipc\n")
    (folder / "alone").mkdir()
    nbformat.write(new_notebook(cells=[connection]), folder / "alone" / "transport.ipynb")
    assert run(folder / "alone", "transport.ipynb")[0] == 0
