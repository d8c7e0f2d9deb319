"""The built sites and a browser for the tests of the site. Each site is built once, whatever the number of workers."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
# The first draws the same pages without a browser's windows around them, and takes half as long to open one.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all workers of this run see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def build_once(source: Path, output: Path) -> Path:
    """Build the book in `source`, unless another worker has; the folder of its pages."""
    html, log, told = output / "_build" / "html", output / "build.log", output / "told"
    output.mkdir(parents=True, exist_ok=True)
    with FileLock(output / "lock"):
        if not log.exists():
            command = [sys.executable, "tools/build.py", "--source", source, "--output", output]
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            log.write_text(run.stdout + run.stderr + f"exit code {run.returncode}\n")
        failed = not log.read_text().endswith("exit code 0\n")
        if failed and told.exists():
            pytest.skip("the site could not be built, as another test says")
        if failed:
            told.touch()
            pytest.fail(f"the build failed:\n{log.read_text()}", pytrace=False)
    return html


@pytest.fixture(scope="session")
def site(shared) -> Path:
    """The book, built with every warning an error."""
    return build_once(ROOT, shared / "book")


@pytest.fixture(scope="session")
def machinery(shared) -> Path:
    """A little book of one page that holds one of everything, executed and built with the book's own tools.

    So the machinery is tested by itself, whatever the book's pages hold.
    """
    return little_book(shared, "machinery")


@pytest.fixture(scope="session")
def maps_book(shared) -> Path:
    """A little book of one page that holds viewers of maps."""
    return little_book(shared, "maps")


def little_book(shared: Path, name: str) -> Path:
    """A book of one notebook of fixture_book/, executed and built with the book's own tools; the folder of its pages."""
    source = shared / name / "source"
    with FileLock(shared / f"{name}.lock"):
        if not source.exists():
            lay_out(source, name)
    return build_once(source, shared / name)


def lay_out(source: Path, name: str) -> None:
    (source / "book").mkdir(parents=True)
    for part in ("_config.yml", "tools", "site_static", "site_vendor", "book/references.bib", "book/bibliography.md"):
        (source / part).symlink_to(ROOT / part)
    (source / "_toc.yml").write_text(f"format: jb-book\nroot: book/{name}\nchapters:\n- file: book/bibliography\n")
    page = shutil.copy(ROOT / "tests" / "site" / "fixture_book" / f"{name}.ipynb", source / "book")
    subprocess.run([sys.executable, "tools/execute.py", page], cwd=ROOT, check=True)


@pytest.fixture(scope="session")
def serve():
    """A function: serve a folder until the tests end, and return its address."""
    from serve import open_server

    servers = []

    def start(folder: Path) -> str:
        server = open_server([0], folder)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def page(browser, address, request):
    """A viewer on a page of its own, at the `address` that its module gives; for what opens otherwise, modules have
    a `page` of their own."""
    from alone import opened
    from visit import WIDE

    with opened(browser, address, getattr(request, "param", WIDE)) as page:
        yield page


@pytest.fixture(scope="session")
def browser():
    """Chromium, or a skip with the reason; with ATTNLIB_REQUIRE_BROWSER=1 a failure."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        missing = "there is no Chromium on this machine (on Debian: apt install chromium)"
        if os.environ.get("ATTNLIB_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        yield chromium
        chromium.close()
