"""The package's own source, printed on a page: what is read there is what runs."""

from __future__ import annotations

import inspect
import textwrap


def source(*things, docstrings: bool = False):
    """The source of functions, methods or classes, as a highlighted block in the notebook and on the site.

    Args:
        things: what to show, in this order.
        docstrings: keep the docstrings; a page has said in words what they say.

    Raises:
        TypeError: something that was not written in Python.
    """
    from IPython.display import Markdown

    blocks = []
    for thing in things:
        code = textwrap.dedent(inspect.getsource(thing))
        if not docstrings and (doc := _docstring(code)):
            code = code.replace(doc, "", 1)
        blocks.append(code.rstrip())
    return Markdown("```python\n" + "\n\n".join(blocks) + "\n```")


def _docstring(code: str) -> str:
    """The lines of the outermost docstring in `code`, with the line break; empty where there is none."""
    import ast

    first = ast.parse(code).body[0].body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return "".join(code.splitlines(keepends=True)[first.lineno - 1:first.end_lineno])
    return ""
