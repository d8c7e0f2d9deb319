"""Pages in JupyterLab with a live kernel: cells run, the switch switches, a moved gate changes the answer."""

import contextlib
import json
import os
import re
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
def heard(change):
    print("the kernel heard", "on" if change.new else "off", "and the input is", "changed" if changed() else "unchanged")

def changed():
    return not torch.equal(gate(picture), picture)

attention.observe(heard, "index")
print("ready,", "changed" if changed() else "unchanged")
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


def stop(server: subprocess.Popen) -> None:
    """End the server and its kernels, gently first."""
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        pass
    # Kernels are in sessions of their own, and end when their server does; what is left in the server's is ended here.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(10)


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
    page.cells = [clean(cell) for cell in page.cells[: beginning(page.cells)]]
    page.metadata.pop("widgets", None)
    nbformat.write(page, folder / "book" / PAGE)
    return folder


def no_files(folder: str, names: list[str]) -> list[str]:
    """What is not copied: leftovers, and the sockets of a kernel that may be at work beside a page."""
    return [name for name in names if name in (".ipynb_checkpoints", "__pycache__") or (Path(folder) / name).is_socket()]


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
    spaces = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
              "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    for name in spaces.values():
        (home / name).mkdir(parents=True)
    for plugin, values in SETTINGS.items():
        path = home / "settings" / f"{plugin.replace(':', '/')}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    environment |= {variable: str(home / name) for variable, name in spaces.items()}
    port, log = free_port(), home / "log"
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS, f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}"]
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(server, address, log)
        yield address
    finally:
        stop(server)


@contextlib.contextmanager
def opened(browser, lab: str, path: str):
    """A notebook in a JupyterLab of its own, after Run > Run All Cells; all requests stay on this machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page, outside = context.new_page(), []
    page.set_default_timeout(20_000)
    page.on("request", lambda r: None if r.url.startswith((lab, lab.replace("http", "ws"), "data:", "blob:")) else outside.append(r.url))
    try:
        page.goto(f"{lab}/lab/tree/book/{path}?token={TOKEN}&reset")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        page.locator("[data-status='idle'], [title*='Idle']").first.wait_for(state="attached")
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        counted = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").last
        page.wait_for_function("prompt => /\\[\\d+\\]/.test(prompt.textContent)", arg=counted.element_handle(), timeout=40_000)
        yield page
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
    with opened(browser, lab, "small.ipynb") as page:
        switch = page.get_by_role("group", name="attention").first
        page.get_by_text("also in cells you run").first.wait_for()
        page.get_by_text("ready, changed").wait_for()
        switch.get_by_role("button", name="off").click()
        page.wait_for_function("() => document.querySelector('[aria-label=attention] button').getAttribute('aria-pressed') === 'true'")
        page.get_by_text("the kernel heard off and the input is unchanged").wait_for()


def test_page_answers_with_a_live_kernel(browser, lab, folder):
    with opened(browser, lab, PAGE) as page:
        figure = page.locator("figure[aria-label^='Gates']").first
        figure.scroll_into_view_if_needed()
        readout, bars = figure.locator("output"), figure.locator("svg.attn-gates")
        answer = re.compile("the network answers “(.*)” ")
        readout.get_by_text("the network answers").wait_for()

        before = bars.inner_html()
        switch = page.get_by_role("group", name="attention").first
        switch.get_by_role("button", name="off").click()
        page.wait_for_function("([bars, old]) => bars.innerHTML !== old", arg=[bars.element_handle(), before])
        switch.get_by_role("button", name="on", exact=True).click()
        page.wait_for_function("([bars, old]) => bars.innerHTML === old", arg=[bars.element_handle(), before])

        said = readout.inner_text()
        assert answer.search(said)
        box = bars.bounding_box()
        page.mouse.move(box["x"] + 36, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 36, box["y"] + 178, steps=4)
        page.mouse.up()
        page.wait_for_function("([said, old]) => said.textContent !== old", arg=[readout.element_handle(), said])
        page.get_by_role("slider", name="gate").first.wait_for()
        assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


def test_nothing_outlives_the_server(browser, lab):
    """Kernels are listed, so that they are ended with the server."""
    assert len(ask(lab, "kernels")) >= 1
