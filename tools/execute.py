"""Execute pages of the book in place: `make execute`, or `make execute PAGES="book/channel/se.ipynb"`.

A page is written only if all of it ran. Two runs give the same bytes, apart from numbers that depend on the hardware:
widget models are numbered in the order of their creation, and nothing records when a cell ran. How long each page took
goes to results/execution.json, which the book shows as a table.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema would load it for some seconds, to check URLs nobody has

import nbformat  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from nbclient.exceptions import CellControlSignal, DeadKernelError  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
TIMES = ROOT / "results" / "execution.json"
CELL_TIMEOUT = 600
WIDGETS = "application/vnd.jupyter.widget-state+json"
MODEL_ID = re.compile("[0-9a-f]{32}")
LINKS = ("LinkModel", "DirectionalLinkModel")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python", "pygments_lexer": "ipython3"}


def pages(arguments: list[str]) -> list[Path]:
    """The notebooks named, or every notebook of the book."""
    found = [Path(name).resolve() for name in arguments] or sorted(BOOK.rglob("*.ipynb"))
    found = [path for path in found if ".ipynb_checkpoints" not in path.parts]
    for path in found:
        if path.suffix != ".ipynb" or not path.is_file():
            sys.exit(f"{path} is not a notebook.")
    return found


def run(notebook: nbformat.NotebookNode, path: Path) -> float:
    """Run every cell in a fresh kernel; the seconds it took, the start of the kernel not counted."""
    if "ATTNLIB_THREADS" in os.environ:
        os.environ["OMP_NUM_THREADS"] = os.environ["ATTNLIB_THREADS"]
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT, kernel_name=KERNEL["name"], resources={"metadata": {"path": str(path.parent)}},
        record_timing=False, coalesce_streams=True, extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    notebook.metadata.pop("widgets", None)
    with client.setup_kernel():
        start = time.monotonic()
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except (CellControlSignal, DeadKernelError) as error:
                sys.exit(failure(path, index, cell, error))
        seconds = time.monotonic() - start
        client.set_widgets_metadata()
    return seconds


def failure(path: Path, index: int, cell: nbformat.NotebookNode, error: Exception) -> str:
    """Which page, which cell, and what went wrong; before it the kernel's traceback, where there is one."""
    what = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
    first_line = cell.source.partition("\n")[0]
    return (
        f"{getattr(error, 'traceback', '')}\n{os.path.relpath(path)}, cell {index + 1} (`{first_line}`): {what}\n"
        "The page was left as it was."
    )


def widget_models(notebook: nbformat.NotebookNode) -> dict:
    """The saved state of the page's widgets, by model id, in the order of their creation."""
    return notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})


def mentioned(where, models: dict) -> set[str]:
    """Ids of widget models that some part of a notebook names."""
    return {name for name in MODEL_ID.findall(json.dumps(where)) if name in models}


def keep_visible_widgets(notebook: nbformat.NotebookNode) -> None:
    """Drop widget models that no output shows: closed progress bars and what was redrawn would only weigh."""
    models = widget_models(notebook)
    shown, new = set(), mentioned(notebook.cells, models)
    while new:
        shown |= new
        new = {inner for name in new for inner in mentioned(models[name], models)} - shown
    links = {name for name, model in models.items() if model["model_name"] in LINKS}
    shown |= {name for name in links if mentioned(models[name], models) <= shown}
    for name in models.keys() - shown:
        del models[name]


def renumber_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Ids of widget models are random; number them in the order of their creation instead."""
    numbers = {name: f"{number:032x}" for number, name in enumerate(widget_models(notebook), 1)}
    if not numbers:
        notebook.metadata.pop("widgets", None)
        return notebook
    text = MODEL_ID.sub(lambda match: numbers.get(match[0], match[0]), json.dumps(notebook))
    return nbformat.from_dict(json.loads(text))


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Everything that differs between two runs or two machines and tells a reader nothing."""
    notebook.nbformat_minor = max(notebook.nbformat_minor, 5)
    notebook.metadata.kernelspec = KERNEL
    notebook.metadata.language_info = LANGUAGE
    for number, cell in enumerate(notebook.cells):
        cell.setdefault("id", f"cell-{number:02d}")
        cell.metadata.pop("execution", None)
    keep_visible_widgets(notebook)
    return renumber_widgets(notebook)


def write(path: Path, text: str) -> None:
    """Replace a file in one step, so that a stop in the middle leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".writing")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def machine() -> tuple[str, dict]:
    """What the seconds depend on: "cpu" or "gpu", and the particulars."""
    import torch

    kind = "gpu" if torch.cuda.is_available() else "cpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {"cores": cores, "python": "%d.%d.%d" % sys.version_info[:3], "torch": version("torch")}
    if kind == "gpu":
        facts["gpu"] = torch.cuda.get_device_name()
    return kind, facts


def record(path: Path, seconds: float) -> None:
    """Note in results/execution.json how long the page took here; times of other kinds of machine stay."""
    if BOOK not in path.parents:
        return
    times = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    kind, facts = machine()
    page = path.relative_to(BOOK).with_suffix("").as_posix()
    times.setdefault(page, {})[kind] = {"seconds": round(seconds, 1), **facts}
    write(TIMES, json.dumps(times, indent=2, sort_keys=True) + "\n")


def execute(path: Path) -> float:
    """Execute one page in place; the seconds it took.

    Raises:
        SystemExit: a cell failed; the message says which, and the file is as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    seconds = run(notebook, path)
    write(path, nbformat.writes(tidy(notebook)) + "\n")
    return seconds


def main() -> None:
    for path in pages(sys.argv[1:]):
        print(f"{os.path.relpath(path)} ...", end=" ", flush=True)
        seconds = execute(path)
        record(path, seconds)
        print(f"{seconds:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped; the page that was running is as it was.")
