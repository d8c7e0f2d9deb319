"""Bring the scripts and styles of the viewers saved in pages up to date, without executing any: `make scripts`.

A saved widget holds the script it was drawn with. When one of ours changes, and what it draws did not, every page can
have the new one at once; when the data a viewer keeps changes too, the page has to be executed again.
"""

from __future__ import annotations

import importlib
import os
import sys

from execute import pages, widget_models, write

CARRIED = ("_esm", "_css")


def current(state: dict) -> dict[str, str]:
    """What the package would save for this widget today; nothing for widgets that are not ours."""
    module, _, name = state.get("_anywidget_id", "").rpartition(".")
    if not module.startswith("attnlib."):
        return {}
    cls = getattr(importlib.import_module(module), name)
    return {what: getattr(cls, what) for what in CARRIED}


def stale(models: dict) -> list[str]:
    """Of a page's saved widgets, the names of viewers whose script or style is not what the package has."""
    states = [model["state"] for model in models.values()]
    return [state["_anywidget_id"] for state in states if any(state[what] != now for what, now in current(state).items())]


def main() -> None:
    import nbformat

    for path in pages(sys.argv[1:]):
        notebook = nbformat.read(path, as_version=4)
        models = widget_models(notebook)
        changed = stale(models)
        for model in models.values():
            model["state"].update(current(model["state"]))
        if changed:
            write(path, nbformat.writes(notebook) + "\n")
            print(f"{os.path.relpath(path)}: {len(changed)} brought up to date")


if __name__ == "__main__":
    main()
