"""Mechanisms by name. They register themselves where they are defined; nothing here names any of them."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from attnlib.attention import Attention

CHAPTERS = ("saliency", "spatial", "channel", "mixed", "self_attention", "applications")

_mechanisms: dict[str, type[Attention]] = {}
_A = TypeVar("_A", bound=type[Attention])


def register(name: str) -> Callable[[_A], _A]:
    """Class decorator: make a mechanism known to `create` and `insert` under `name`.

    Raises:
        ValueError: if another class already has that name.
    """

    def known(cls: _A) -> _A:
        before = _mechanisms.get(name)
        # The same class defined again (a notebook cell run twice, a module reloaded) replaces itself.
        if before is not None and before.__qualname__ != cls.__qualname__:
            raise ValueError(f"the name {name!r} is already taken by {before.__module__}.{before.__qualname__}")
        cls.about = dataclasses.replace(cls.about, name=name)
        _mechanisms[name] = cls
        return cls

    return known


def _import_chapters() -> None:
    for chapter in CHAPTERS:
        package = importlib.import_module(f"attnlib.{chapter}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"attnlib.{chapter}.{module.name}")


def available() -> list[str]:
    """Names of every mechanism, in the order of the book's chapters and alphabetically within one."""
    _import_chapters()

    def chapter_first(name: str) -> tuple[int, str]:
        parts = _mechanisms[name].__module__.split(".")
        chapter = parts[1] if len(parts) > 1 and parts[1] in CHAPTERS else ""
        return (CHAPTERS.index(chapter) if chapter else len(CHAPTERS), name)

    return sorted(_mechanisms, key=chapter_first)


def mechanism(name: str) -> type[Attention]:
    """The class registered under `name`.

    Raises:
        ValueError: if there is none; the message lists the nearest names.
    """
    if name not in _mechanisms:
        _import_chapters()
    if name not in _mechanisms:
        near = difflib.get_close_matches(str(name), _mechanisms, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(available())}"
        raise ValueError(f"no mechanism is called {name!r}; {hint}")
    return _mechanisms[name]


def is_registered(cls: type[Attention]) -> bool:
    """Whether this very class, and not one it inherits its description from, is registered."""
    return _mechanisms.get(cls.about.name) is cls


def create(name: str, channels: int | None = None, **options: Any) -> Attention:
    """Build the mechanism called `name` for feature maps of `channels` channels.

    Args:
        name: one of `available()`.
        channels: channel count C of the feature maps (B, C, H, W).
        options: the mechanism's own, in the words of its paper (``reduction``, ``kernel_size``, ``groups`` …).

    Raises:
        ValueError: unknown name, or a value the mechanism refuses.
        TypeError: an option the mechanism does not have; the message lists those it has.
    """
    cls = mechanism(name)
    takes = [p for p in inspect.signature(cls).parameters if p != "channels"]
    for option in options:
        if option not in takes:
            raise TypeError(f"{name!r} has no option {option!r}; it has: {', '.join(takes) or 'none'}")
    return cls(**options) if channels is None else cls(channels, **options)
