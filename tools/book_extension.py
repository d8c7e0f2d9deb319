"""What the book's pages need of Sphinx beyond ready-made extensions.

- Text that is generated where a page says ``% generated: name``, when the site is built: it cannot be stale.
- Links to names where they are documented, which is where they are imported from.
- The map of the book, and where a page is on it (chapter_map.py).
- The role ``{zh}`` for a Chinese term, so that a screen reader changes its voice.
- What lets figures come first: an order of scripts, and a still figure where a widget will be.
- An index.html that leads to the first page.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import zlib
from pathlib import Path

import chapter_map
from chapter_map import CHAPTER_TITLES
from docutils import nodes
from sphinx.application import Sphinx

PLACE = re.compile(r"^% generated: ([\w-]+)$", re.MULTILINE)
FORMULA = re.compile(r"\$[^$\"]+\$|\\\\\(")  # as it stands in JSON
VIEW = re.compile(r'<script type="application/vnd\.jupyter\.widget-view\+json">[^<]*"model_id": "(\w+)"')
MAKERS = {".py", ".html", ".css", ".js", ".svg"}
NEEDED_AT_ONCE = ("_static/documentation_options.js",)  # the line below it sets one of them


def mechanisms(app: Sphinx) -> str:
    """Every public name of every module of the chapters, from its docstring: mechanisms, and what belongs to them."""
    from attnlib import registry

    parts = []
    for chapter in registry.CHAPTERS:
        package = importlib.import_module(f"attnlib.{chapter}")
        modules = [importlib.import_module(f"attnlib.{chapter}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]
        parts += [f"## {CHAPTER_TITLES[chapter]}\n"] * bool(modules) + [_module(module) for module in modules]
    return "\n".join(parts)


def _module(module) -> str:
    """A section for a module: its mechanisms under their registry names, then its other public names."""
    own = {name: thing for name, thing in vars(module).items()
           if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__ and callable(thing)}
    registered = {name: thing for name, thing in own.items() if getattr(thing, "about", None)}
    others = [name for name in own if name not in registered]
    sections = [f"### `{cls.about.name}`\n" + _documented(module, name, cls) for name, cls in registered.items()]
    sections += [] if sections else [f"### `{module.__name__.rpartition('.')[2]}`\n"]
    return "\n".join(sections + [_documented(module, name, own[name]) for name in others])


def _documented(module, name: str, thing) -> str:
    kind = "autoclass" if isinstance(thing, type) else "autofunction"
    members = "   :members:\n" if kind == "autoclass" else ""
    return f"\n```{{eval-rst}}\n.. {kind}:: {module.__name__}.{name}\n{members}```\n"


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


def figures_first(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    """Let no script hold up what a reader sees: text and figures, then widgets, then formulas.

    Deferred scripts run in their order when the page has been read. MathJax is loaded only where there is something to
    set (Sphinx brings it to every page above one that has formulas, too), and by widgets.js where there are widgets.
    """
    scripts = context["script_files"]
    states = [script for script in scripts if _holds_widgets(script)]
    formulas = app.env.get_domain("math").data["has_equations"].get(page)
    formulas = formulas or any(FORMULA.search(state.attributes["body"]) for state in states)
    # The page of search holds scripts that run while it is read, and need the others.
    at_once = [script.filename for script in scripts] if page == "search" else NEEDED_AT_ONCE
    context["script_files"] = []
    for script in scripts:
        deferred = script.filename and script.filename not in at_once
        attributes = {**script.attributes, **({"defer": "defer"} if deferred else {})}
        if str(script.filename).endswith(app.config.mathjax_path):
            if not formulas:
                continue
            attributes = {"type": "text/later"} if states else attributes
        # Sphinx shares these objects among pages.
        context["script_files"].append(type(script)(script.filename, priority=script.priority, **attributes))


def figures_before_widgets(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    """Show the figure a widget starts with until the widget is there, or instead of it where scripts do not run."""
    states = [_widget_states(script) for script in context["script_files"] if _holds_widgets(script)]
    for models in states:
        context["body"] = VIEW.sub(lambda view: _before_widget(view, models) + view[0], context["body"])


def _holds_widgets(script) -> bool:
    return "widget-state" in script.attributes.get("type", "")


def _widget_states(script) -> dict[str, dict]:
    """The state of every model a page holds, by its id."""
    return {name: model["state"] for name, model in json.loads(script.attributes["body"])["state"].items()}


def _before_widget(view: re.Match, models: dict[str, dict]) -> str:
    figure = _first_figure(view[1], models)
    return f'<div class="before-widget">{figure}</div>' if figure else ""


def _first_figure(name: str, models: dict[str, dict]) -> str:
    """The HTML of the first picture that a widget shows; empty where a script draws it."""
    state = models.get(name, {})
    for value in (state.get("value"), state.get("still")):
        if isinstance(value, str) and re.search("<(svg|img)", value):
            return value
    children = [child.removeprefix("IPY_MODEL_") for child in state.get("children") or []]
    if "selected_index" in state:
        shown = state["selected_index"]
        children = [] if shown is None else children[shown:shown + 1]
    return next(filter(None, (_first_figure(child, models) for child in children)), "")


def lead_to_first_page(app: Sphinx, exception: Exception | None) -> None:
    """An index.html at the root of the site, also for readers whose browser follows no redirect."""
    if exception is None and app.builder.format == "html":
        first = f"{app.config.master_doc}.html"
        (Path(app.outdir) / "index.html").write_text(
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{app.config.html_title}</title>'
            f'<link rel="icon" href="data:,"><meta http-equiv="refresh" content="0; url={first}"></head>'
            f'<body><main><h1><a href="{first}">{app.config.html_title}</a></h1></main></body></html>\n'
        )


def setup(app: Sphinx) -> dict:
    chapter_map.setup(app)
    app.add_role("zh", chinese)
    app.connect("source-read", fill)
    app.connect("env-get-outdated", reread_when_mechanisms_changed)
    app.connect("missing-reference", find_where_it_is_imported_from)
    app.connect("html-page-context", figures_first, priority=900)
    app.connect("html-page-context", figures_before_widgets, priority=900)
    app.connect("build-finished", lead_to_first_page)
    # Every page is made anew when what makes it has changed. Sphinx would not even copy a style sheet if no page had.
    folders = (Path(__file__).parent, Path(app.srcdir) / "site_static")
    makers = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in MAKERS)
    made_by = zlib.crc32(b"".join(path.read_bytes() for path in makers))
    return {"version": "1", "env_version": made_by, "parallel_read_safe": True, "parallel_write_safe": True}
