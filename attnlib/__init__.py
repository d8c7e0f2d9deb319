"""Attention in computer vision: every mechanism readable, observable, insertable and tested.

    >>> from attnlib import create, insert, record
    >>> gate = create("se", channels=64)

`import attnlib` needs torch alone; what needs more (data, plots, trials) is imported when it is first used.
"""

from __future__ import annotations

import importlib

from attnlib.attention import Attention, Description, Tap, attentions
from attnlib.insert import Insertion, insert
from attnlib.observe import held, intervene, record, shuffled, switch_off
from attnlib.registry import available, create, mechanism, register

__version__ = "0.1.0"

# What needs more than torch, and where it lives. Imported on first use, so that `import attnlib` stays light.
_LATER = {"fit": "train", "compare": "trials"}
_MODULES = ("backbones", "cost", "data", "plot", "train", "trials", "widgets")

__all__ = [
    "Attention", "Description", "Tap", "attentions", "available", "create", "mechanism", "register",
    "insert", "Insertion", "record", "switch_off", "intervene", "shuffled", "held", *_LATER,
]


def __getattr__(name: str):
    if name in _LATER:
        return getattr(importlib.import_module(f"attnlib.{_LATER[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"attnlib.{name}")
    raise AttributeError(f"module 'attnlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
