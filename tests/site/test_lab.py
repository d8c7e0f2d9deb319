"""Pages in JupyterLab with a live kernel: cells run, the switch switches, a moved gate changes the answer."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = "channel/se.ipynb"
TOKEN = "of-this-test"
SMALL = """
import torch
from attnlib import create
from attnlib.widgets.switch import Switch
torch.manual_seed(0)
gate = create("se", 4, reduction=2)
attention = Switch(gate)
picture = torch.rand(1, 4, 5, 7)
attention
""", """
import ipywidgets
said = ipywidgets.HTML()

def changed():
    return "changed" if not torch.equal(gate(picture), picture) else "unchanged"

def heard(change):
    said.value = f"heard {change.new}, and the input is {changed()}"

attention.observe(heard, "index")
print("ready,", changed())
said
"""
# Lab draws the cells in sight only, unless told to draw all; and asks the network for news and for updates.
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
OPTIONS = (
    "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0",
    f"--IdentityProvider.token={TOKEN}", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.collaborative=False",
)

# Prompts are drawn anew while cells run, so they are looked up each time.
ALL_RAN = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every(
    (prompt) => /\\d/.test(prompt.textContent))"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(address: str, path: str):
    with urllib.request.urlopen(f"{address}/api/{path}?token={TOKEN}", timeout=5) as answer:
        return json.load(answer)


def wait_for(server: subprocess.Popen, address: str, log: Path) -> None:
    end = time.monotonic() + 40
    while time.monotonic() < end:
        assert server.poll() is None, f"JupyterLab ended:\n{log.read_text()}"
        with contextlib.suppress(OSError):
            ask(address, "status")
            return
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()}")


def stop(server: subprocess.Popen, home: Path) -> None:
    """End the server, which ends its kernels; and, where it did not, each of them."""
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(10)
    for process in started_from(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    server.wait(10)


def started_from(home: Path) -> list[int]:
    """Processes that are told of this folder: the server, and kernels by the file that connects them."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(home).encode() in command.read_bytes():
                found.append(int(command.parent.name))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy of the book, at the same place beside its results, with a small page and the beginning of a large one."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("book", "results"):
        shutil.copytree(ROOT / name, folder / name, ignore=no_files)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in SMALL]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "book" / "small.ipynb")
    page = nbformat.read(folder / "book" / PAGE, as_version=4)
    # The rest of the page takes a minute. What follows the switch here stands above any cell that shows it.
    page.cells = [*map(clean, page.cells[: beginning(page.cells)]), nbformat.v4.new_code_cell("attention")]
    page.metadata.pop("widgets", None)
    nbformat.write(page, folder / "book" / PAGE)
    return folder


def no_files(folder: str, names: list[str]) -> list[str]:
    """What is not copied: leftovers, and the sockets of a kernel that may be at work beside a page."""
    leftovers = (".ipynb_checkpoints", "__pycache__")
    return [name for name in names if name in leftovers or (Path(folder) / name).is_socket()]


def beginning(cells: list) -> int:
    """How many cells it takes to have the page's switch and its first gate viewer."""
    needed = ["widgets.Switch(", "widgets.gates("]
    for number, cell in enumerate(cells, 1):
        needed = [call for call in needed if cell.cell_type != "code" or call not in cell.source]
        if not needed:
            return number
    raise AssertionError(f"{PAGE} has no {' and no '.join(needed)}")


def clean(cell):
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    return cell


@pytest.fixture(scope="module")
def lab(browser, folder):
    """The address of a JupyterLab on that copy, with settings, kernels and history of its own."""
    home = folder / "home"
    spaces = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython", "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    for name in spaces.values():
        (home / name).mkdir(parents=True)
    for plugin, values in SETTINGS.items():
        path = home / "settings" / f"{plugin.replace(':', '/')}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    environment |= {variable: str(home / name) for variable, name in spaces.items()}
    port, log = free_port(), home / "log"
    place = (f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}")
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS, *place]
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        wait_for(server, address, log)
        yield address
    finally:
        stop(server, home)
        assert not started_from(home)


def as_bytes(frame: str | bytes) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame


@contextlib.contextmanager
def opened(browser, lab: str, path: str):
    """A notebook after Run > Run All Cells, and a list of what goes to its kernel; nothing else is asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page, outside, sent = context.new_page(), [], []
    page.set_default_timeout(20_000)
    home = (lab, lab.replace("http", "ws"), "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(home) else outside.append(request.url))
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(as_bytes(frame))))
    try:
        page.goto(f"{lab}/lab/tree/book/{path}?token={TOKEN}&reset")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # in the status bar, once a kernel has answered
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_function(ALL_RAN, timeout=90_000)
        yield page, sent
        assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        assert not outside
    finally:
        context.close()


def errors(path: Path) -> list[str]:
    """What went wrong in the cells of a saved notebook."""
    outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
    return [output.evalue for output in outputs if output.output_type == "error"]


def test_kernel_and_browser_talk(browser, lab):
    """The round trip of the viewers' own messages, and a change that the kernel hears and acts upon."""
    with opened(browser, lab, "small.ipynb") as (page, _):
        switch = page.get_by_role("group", name="attention", exact=True).first
        page.get_by_text("also in cells you run").first.wait_for()
        page.get_by_text("ready, changed").wait_for()
        switch.get_by_role("button", name="off").click()
        switch.get_by_role("button", name="off", pressed=True).wait_for()
        page.get_by_text("heard 0, and the input is unchanged").wait_for()


def test_page_answers_with_a_live_kernel(browser, lab, folder):
    with opened(browser, lab, PAGE) as (page, sent):
        figure = page.locator("figure[aria-label^='Gates']").first
        figure.scroll_into_view_if_needed()
        readout, bars = figure.locator("output"), figure.locator("svg.attn-gates")
        readout.get_by_text("the network answers").wait_for()

        before = bars.inner_html()
        switch = page.get_by_role("group", name="attention", exact=True).first
        switch.get_by_role("button", name="off").click()
        page.wait_for_function("([bars, old]) => bars.innerHTML !== old", arg=[bars.element_handle(), before])
        switch.get_by_role("button", name="on", exact=True).click()
        page.wait_for_function("([bars, old]) => bars.innerHTML === old", arg=[bars.element_handle(), before])

        shares, box = figure.locator(".attn-answers"), bars.bounding_box()
        said = shares.inner_html()
        sent.clear()
        page.mouse.move(box["x"] + 36, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 36, box["y"] + 178, steps=4)
        page.mouse.up()
        page.wait_for_function("([shares, old]) => shares.innerHTML !== old", arg=[shares.element_handle(), said])
        assert any(b'"gates"' in frame for frame in sent), "the kernel is asked"
        readout.get_by_text("gate 0.00 · the network answers").wait_for()

        dragged = shares.inner_html()
        page.get_by_role("slider", name="gate").first.fill("1")
        page.wait_for_function("([shares, old]) => shares.innerHTML !== old", arg=[shares.element_handle(), dragged])
        readout.get_by_text("gate 1.00 · the network answers").wait_for()
        assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
        page.keyboard.press("Control+s")
        page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    assert not errors(folder / "book" / PAGE)
