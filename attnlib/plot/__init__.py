"""Figures in the book's style: draw with matplotlib or the helpers here, finish with `show`, which wants alt text."""

from attnlib.plot.charts import curves, gates, gates_by_class, scatter_cost
from attnlib.plot.choice import choice
from attnlib.plot.code import source
from attnlib.plot.colours import COLOURS, DARK
from attnlib.plot.diagram import Step, diagram
from attnlib.plot.figure import Figure, show, style, stylesheet, subplots
from attnlib.plot.images import answers, overlay, pictures

__all__ = [
    "COLOURS", "DARK", "Figure", "Step", "answers", "choice", "curves", "diagram", "gates", "gates_by_class", "overlay",
    "pictures", "scatter_cost", "show", "source", "style", "stylesheet", "subplots",
]
