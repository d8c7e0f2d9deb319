"""A plugin for the run of nbval over the book's notebooks (`-p notebook_run`): what nbval alone would let pass.

A notebook run fails here also if a notebook was collected and nothing in it ran, if fewer notebooks ran than there
are, if a cell was skipped or only expected to fail (nbval marks what follows a timeout so), or if a page took far
longer than a reader would wait. Seconds per page are printed at the end. A kernel that does not come up is started anew.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from pathlib import Path

# This plugin is loaded before nbval, which loads jsonschema, which would load this for some seconds for nothing.
sys.modules.setdefault("rfc3987_syntax", None)

# nbval gives up 5 s after the last message of a cell, however long the cell may take; on a busy machine that happens.
OUTPUT_TIMEOUT = 60
# Seconds a page should take with the machine to itself; two run at once here, so only three times as long is an error.
BUDGET = float(os.environ.get("ATTNLIB_PAGE_SECONDS", 60))
FAR_TOO_LONG = 3
# Seconds until a kernel that has not answered is given up, and how many are started before the page is.
STARTUP_TIMEOUT = 60
KERNELS = 3


def start_new_kernel(startup_timeout=STARTUP_TIMEOUT, kernel_name="python", **kwargs):
    """In place of nbval's: kernels of two processes that start together cannot get into each other's way.

    nbval lets a kernel choose TCP ports that are free, closes them, and lets the kernel open them again; what another
    process opens in between is lost, and the page with it. Here a kernel talks through files of its own, where the
    system has such sockets; and one that still does not answer is replaced.
    """
    from jupyter_client.manager import KernelManager
    from nbval.kernel import NbvalKernelspecManager

    for left in reversed(range(KERNELS)):
        manager = KernelManager(kernel_name=kernel_name, kernel_spec_manager=NbvalKernelspecManager())
        if sys.platform != "win32":
            # Absolute, because a kernel works in the folder of its page; short, because such names have to be.
            folder = tempfile.mkdtemp(prefix="nb")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            manager.transport, manager.ip = "ipc", f"{folder}/k"
        manager.start_kernel(**kwargs)
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=float(startup_timeout))
            return manager, client
        except RuntimeError as error:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            if not left:
                raise
            warnings.warn(f"a kernel was started anew: {error}", stacklevel=2)


def pytest_itemcollected(item) -> None:
    item.output_timeout = OUTPUT_TIMEOUT


def wanted(arguments: list[str]) -> set[str] | None:
    """Every notebook below what pytest was given; None where single cells were chosen."""
    if any("::" in argument for argument in arguments):
        return None
    found: set[Path] = set()
    for argument in map(Path, arguments):
        found |= set(argument.rglob("*.ipynb")) if argument.is_dir() else {argument}
    return {os.path.relpath(path) for path in found if ".ipynb_checkpoints" not in path.parts}


class Pages:
    """What happened to each page, gathered where the reports of all workers arrive."""

    def __init__(self, config) -> None:
        self.config = config
        self.seconds: dict[str, float] = defaultdict(float)
        self.outcomes: dict[str, Counter] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report) -> None:
        page = report.nodeid.partition("::")[0]
        self.seconds[page] += report.duration
        if report.when == "call" or report.outcome != "passed":
            expected_to_fail = hasattr(report, "wasxfail")
            self.outcomes[page]["excused" if expected_to_fail else report.outcome] += 1

    def faults(self) -> list[str]:
        found = []
        for page in sorted(wanted(self.config.args) or self.outcomes):
            outcomes = self.outcomes[page]
            if not outcomes["passed"] + outcomes["failed"]:
                found.append(f"{page}: nothing in it ran")
            if outcomes["skipped"] or outcomes["excused"]:
                found.append(f"{page}: {outcomes['skipped']} cells skipped, {outcomes['excused']} not counted")
            if self.seconds[page] > BUDGET * FAR_TOO_LONG:
                found.append(f"{page}: took {self.seconds[page]:.0f} s, far over the {BUDGET:.0f} s a page may take")
        return found

    def pytest_sessionfinish(self, session) -> None:
        if self.faults() and not session.exitstatus:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter) -> None:
        terminalreporter.section("seconds per page")
        for page, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            over = f"   over the budget of {BUDGET:.0f} s" if seconds > BUDGET else ""
            terminalreporter.line(f"{seconds:7.1f}  {page}{over}")
        for fault in self.faults():
            terminalreporter.line(f"FAILED {fault}", red=True)


def pytest_configure(config) -> None:
    import nbval.kernel

    nbval.kernel.start_new_kernel = start_new_kernel
    if not hasattr(config, "workerinput"):  # in a worker of xdist there is only a part to see
        config.pluginmanager.register(Pages(config), "pages")
