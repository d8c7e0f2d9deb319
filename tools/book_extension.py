"""What the book's pages need of Sphinx beyond ready-made extensions.

- Text that is generated where a page says ``% generated: name``, when the site is built: it cannot be stale.
- Links to names where they are documented, which is where they are imported from.
- The role ``{zh}`` for a Chinese term, so that a screen reader changes its voice.
- An index.html that leads to the first page.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

PLACE = re.compile(r"^% generated: ([\w-]+)$", re.MULTILINE)
CHAPTER_TITLES = {
    "saliency": "Saliency", "spatial": "Spatial attention", "channel": "Channel attention", "mixed": "Mixed attention",
    "self_attention": "Self-attention", "applications": "Applications",
}


def mechanisms(app: Sphinx) -> str:
    """Every registered mechanism from its docstring, by chapter."""
    from attnlib import registry

    chapters: dict[str, list[str]] = {}
    for name in registry.available():
        cls = registry.mechanism(name)
        chapters.setdefault(cls.__module__.split(".")[1], []).append(MECHANISM.format(name=name, cls=cls))
    return "\n".join(f"## {CHAPTER_TITLES[chapter]}\n" + "\n".join(parts) for chapter, parts in chapters.items())


MECHANISM = """
### `{name}`

```{{eval-rst}}
.. autoclass:: {cls.__module__}.{cls.__qualname__}
   :members:
```
"""


def execution_times(app: Sphinx) -> str:
    """A table of results/execution.json."""
    path = Path(app.srcdir) / "results" / "execution.json"
    app.env.note_dependency(str(path))
    times = json.loads(path.read_text()) if path.exists() else {}
    if not times:
        return "No page has been executed yet; `make execute` does it and fills this table."
    rows = [f"| {{doc}}`/book/{page}` | {_cell(runs, 'cpu')} | {_cell(runs, 'gpu')} |" for page, runs in times.items()]
    return "\n".join(["| Page | On a CPU | On a GPU |", "|---|---|---|", *rows])


def _cell(runs: dict, kind: str) -> str:
    run = runs.get(kind)
    if run is None:
        return "not measured"
    where = run.get("gpu") or f"{run['cores']} cores"
    return f"{run['seconds']} s ({where}; Python {run['python']}, torch {run['torch']})"


def public_names(app: Sphinx) -> str:
    """What can be imported from attnlib itself, and where it lives."""
    package = importlib.import_module("attnlib")
    rows = []
    for name in package.__all__:
        thing = getattr(package, name)
        summary = (thing.__doc__ or "").strip().partition("\n")[0]
        rows.append(f"| {{py:obj}}`{name} <{thing.__module__}.{name}>` | {summary} |")
    return "\n".join(["| Name | What it is |", "|---|---|", *rows])


GENERATED = {"mechanisms": mechanisms, "execution-times": execution_times, "public-names": public_names}


def fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put generated text where a page asks for it."""
    source[0] = PLACE.sub(lambda place: GENERATED[place[1]](app), source[0])


def reread_when_mechanisms_changed(app: Sphinx, env, added, changed, removed) -> list[str]:
    """A new file of the package is on no page's list of dependencies yet."""
    files = sorted(str(path) for path in (Path(app.srcdir) / "attnlib").rglob("*.py"))
    before, env.attnlib_files = getattr(env, "attnlib_files", None), files
    return [name for name in env.found_docs if name.startswith("book/api/")] if files != before else []


def find_where_it_is_imported_from(app: Sphinx, env, node, content):
    """A link to attnlib.data.pictures.Pictures leads to attnlib.data.Pictures, which is what readers import."""
    parts = node.get("reftarget", "").split(".")
    if node.get("refdomain") != "py" or parts[0] != "attnlib" or len(parts) < 4:
        return None
    shorter = ".".join([*parts[:2], *parts[3:]])
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, node["reftype"], shorter, node, content)


def chinese(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role ``{zh}``: a term in Chinese, marked as such."""
    return [nodes.raw("", f'<span class="chinese" lang="zh-Hans">{text}</span>', format="html")], []


def lead_to_first_page(app: Sphinx, exception: Exception | None) -> None:
    """An index.html at the root of the site, also for readers whose browser follows no redirect."""
    if exception is None and app.builder.format == "html":
        first = f"{app.config.master_doc}.html"
        (Path(app.outdir) / "index.html").write_text(
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{app.config.html_title}</title>'
            f'<meta http-equiv="refresh" content="0; url={first}"></head>'
            f'<body><main><h1><a href="{first}">{app.config.html_title}</a></h1></main></body></html>\n'
        )


def setup(app: Sphinx) -> dict:
    app.add_role("zh", chinese)
    app.connect("source-read", fill)
    app.connect("env-get-outdated", reread_when_mechanisms_changed)
    app.connect("missing-reference", find_where_it_is_imported_from)
    app.connect("build-finished", lead_to_first_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
