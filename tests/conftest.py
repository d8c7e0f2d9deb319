"""What every test needs."""

import os
import signal

import pytest

# One thread for each process: the suites run in two processes on two cores, and two-threaded steps that compete for
# cores are many times slower. torch reads this when it is first imported, so it is set before any test module is.
os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("ATTNLIB_THREADS", "1"))


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """A shell starts jobs in the background with SIGINT ignored; the tests of Ctrl-C need it to interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
