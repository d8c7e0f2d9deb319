"""What every test needs."""

import os
import signal
import sys

import pytest

# One thread for each process: the suites run in two processes on two cores, and two-threaded steps that compete for
# cores are many times slower. torch reads this when it is first imported, so it is set before any test module is.
os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("ATTNLIB_THREADS", "1"))


def pytest_collection_modifyitems(items):
    """What compares times is marked, so that `make test` can run it while nothing else runs."""
    for item in items:
        if "as_fast" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.speed)


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """A shell starts jobs in the background with SIGINT ignored; the tests of Ctrl-C need it to interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_compiled_yet():
    """torch counts how often it compiled a piece of code, and refuses at some time; all mechanisms share some code."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture
def as_fast():
    """``as_fast(ours, beside, x)``: `ours` is no slower than the modules that `beside` builds for x's channels.

    `beside` is a test file's `BESIDE`. At most 1.25 times their time, forward, and forward with backward: in turns, by
    the faster quarter of the rounds, in one thread. A machine that is busy gets six tries.
    """
    from attnlib import cost
    from attnlib.train.session import one_thread

    def check(ours, beside, x, *, most=1.25, tries=6, seconds=0.1):
        try:
            theirs = {label: make(x.shape[1]) for label, make in beside.items()}
        except ModuleNotFoundError as missing:
            pytest.skip(f"{missing.name} is not installed")
        for backward in (False, True):
            found = []
            for _ in range(tries):
                with one_thread():
                    timed = cost.latencies({"": ours, **theirs}, x, backward=backward, seconds=seconds)
                found.append({label: timed[""].low / timed[label].low for label in theirs})
                if max(found[-1].values()) <= most:
                    break
            else:
                what = "forward and backward" if backward else "forward"
                pytest.fail(f"{what} takes at best {found} times as long")

    return check
