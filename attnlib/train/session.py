"""What surrounds a training run: the device, its random numbers, the memory, the stop button, and what is shown.

What changes something that others also use is a context manager, and puts it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator

import torch
from torch import nn

# Fewer multiply-adds than this in a batch's forward pass, and handing the work to a second thread costs more than it
# saves: on two cores, 25 million took 5.4 ms with one thread and 6.7 ms with two, 90 million 13 ms and 9.8 ms.
WORTH_SHARING = 50e6

# Numbers of glibc's mallopt, and where its own moving thresholds end.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_GLIBC_TRIM, _GLIBC_MMAP = 64 << 20, 32 << 20

_quiet = threading.local()


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """`device`, or the fastest one there is: CUDA, then Apple's MPS, then the CPU."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device here; leave `device` out to train on what there is")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device


def generators(device: torch.device) -> list[torch.Generator]:
    """The generators that random functions on `device` draw from; the CPU's is always among them."""
    found = [torch.default_generator]
    if device.type == "cuda":
        found.append(torch.cuda.default_generators[device.index])
    elif device.type == "mps":
        found.append(torch.mps._get_default_mps_generator())
    return found


@contextlib.contextmanager
def own_rng(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers inside the block start from `seed`; outside it, nobody notices that any were drawn."""
    ours = generators(device)
    before = [generator.get_state() for generator in ours]
    for generator in ours:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(ours, before):
            generator.set_state(state)


@contextlib.contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode and without gradients; afterwards every part of it is in the mode it was in."""
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            network.eval()
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """One CPU thread inside the block, if `wanted`."""
    before = torch.get_num_threads()
    if wanted and before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextlib.contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Keep glibc from handing activations back to the system after every step, only to fetch and zero them again.

    Those page faults were a third to a half of a CPU step at 28 pixels and 128 pictures. Only the C library's own
    settings are touched; elsewhere than on Linux's glibc nothing happens.
    """
    libc = ctypes.CDLL(None) if device.type == "cpu" and sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _GLIBC_MMAP)
        libc.mallopt(_TRIM_THRESHOLD, _GLIBC_TRIM)
        libc.malloc_trim(0)


@contextlib.contextmanager
def tried_kernels(device: torch.device) -> Iterator[None]:
    """On CUDA, let cuDNN try its kernels and keep the fastest, as every step has the same shapes."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class Interrupt:
    """Turns Ctrl-C, or a notebook's stop button, into a wish that is granted between two steps.

    A step is then never half taken, so that training can be resumed exactly. A second Ctrl-C does not wait. Where
    somebody else handles the signal (as `attnlib.trials` does), or outside the main thread, nothing is changed, and
    `ours` is False.
    """

    def __init__(self) -> None:
        self.asked = False
        self.ours = False

    def __enter__(self) -> Interrupt:
        self.ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.ours:
            signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, *_) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_) -> None:
        if self.ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No `fit` in this thread shows anything inside the block, whatever it was asked."""
    before = getattr(_quiet, "on", False)
    _quiet.on = True
    try:
        yield
    finally:
        _quiet.on = before


def in_notebook() -> bool:
    """Whether the output of this process is shown in a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


class Display:
    """A progress bar, and in a notebook, on request, curves that grow while the network trains.

    Args:
        bar: show the bar (in a terminal or a notebook).
        live: show the curves (in a notebook only).
    """

    def __init__(self, bar: bool, live: bool) -> None:
        loud = not getattr(_quiet, "on", False)
        self._live = live and loud and in_notebook()
        if self._live:
            importlib.import_module("attnlib.plot")  # now, as it takes a while, and the clock is not running yet
        self._handle = None
        self._next = -math.inf
        self._bar = None
        if bar and loud:
            from tqdm.auto import tqdm

            form = "{percentage:3.0f}% {bar} {elapsed}<{remaining}{postfix}"
            self._bar = tqdm(total=1.0, bar_format=form, mininterval=0.2)

    def advance(self, done: float) -> None:
        """`done`: how far the training is, 0–1."""
        if self._bar is not None:
            self._bar.update(min(done, 1.0) - self._bar.n)

    def row(self, rows: list[dict[str, float]], last: bool = False) -> None:
        """`rows`: the history so far."""
        if self._bar is not None:
            # Two numbers, because a bar on a page has no room for three.
            accuracy = next((name for name in ("test_accuracy", "accuracy") if name in rows[-1]), None)
            shown = {name.replace("_", " "): rows[-1].get(name) for name in ("loss", accuracy) if name}
            known = {name: f"{value:.3f}" for name, value in shown.items() if value is not None}
            self._bar.set_postfix(known, refresh=False)
        # Never more than twice a second, and never more than a tenth of the time.
        if self._live and (last or time.perf_counter() >= self._next):
            began = time.perf_counter()
            self._draw(rows)
            took = time.perf_counter() - began
            self._next = began + max(0.5, 10 * took)

    def _draw(self, rows: list[dict[str, float]]) -> None:
        import pandas
        from IPython.display import display

        from attnlib import plot

        now = rows[-1]
        known = [f"{name.replace('_', ' ')} {now[name]:.3f}" for name in ("loss", "test_accuracy") if name in now]
        alt = f"Loss and accuracy while training; after {now['step']} steps: {', '.join(known)}"
        figure = plot.show(plot.curves(pandas.DataFrame(rows)), alt=alt)
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
