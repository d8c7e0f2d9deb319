"""The book's one diagram of a mechanism: input → attend → weights → use → output, drawn by code as SVG.

The skeleton never changes, so what differs between two diagrams is what differs between two mechanisms.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence

from attnlib.attention import Attention
from attnlib.plot.colours import COLOURS
from attnlib.plot.figure import Drawing, Figure
from attnlib.plot.svg import role_variable

_LEGEND = {
    "data": "computed from the input", "learned": "learned", "neutral": "fixed", "query": "query", "key": "key",
    "value": "value",
}
_FONT, _SMALL = 14, 12
_NODE, _GAP, _BETWEEN, _GUTTER, _HEADER = 40, 26, 12, 20, 26


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a mechanism, a box of the diagram.

    Attributes:
        label: what it does, in a few words; ``\\n`` breaks the line.
        role: ``"learned"`` where it has parameters, ``"neutral"`` where it is fixed, or ``"data"``, ``"query"``,
            ``"key"``, ``"value"``.
        shape: shape of what it gives, written at the arrow that leaves it, e.g. ``"B×C×1×1"``.
    """

    label: str
    role: str = "neutral"
    shape: str = ""

    def __post_init__(self) -> None:
        if self.role not in _LEGEND:
            raise ValueError(f"a step's role is one of {', '.join(_LEGEND)}, not {self.role!r}")


# A row of a panel: one step, or several side by side.
Steps = Sequence["Step | str | Sequence[Step | str]"]


def diagram(attention: Attention | None = None, *, attend: Steps | None = None, use: Steps | None = None,
            input: str = "x", weights: str = "s", output: str = "y", enters: int = 0,
            shapes: Mapping[str, str] | None = None,
            title: str | None = None, alt: str | None = None, caption: str | None = None) -> Figure:
    """Draw a mechanism. ::

        diagram(create("se", 64))                                      from the code itself
        diagram(attend=["mean over H, W", Step("W₁", "learned"), "ReLU", Step("W₂", "learned"), "sigmoid"],
                use=["s · x"], shapes={"x": "B×C×H×W", "s": "B×C×1×1"})

    Args:
        attention: take what is not given from this mechanism: its steps by tracing `attend` and `use`, its shapes.
        attend, use: the steps in order. A string is a fixed step; a list of steps stands side by side.
        input, weights, output: the symbols.
        enters: the step of `use` that takes the input, counted from 0; the weights go to the first one.
        shapes: the shape of a symbol, by the symbol.
        title: written above.
        alt: what the figure shows; by default the diagram told in words.
        caption: printed below.

    Returns:
        a finished figure: wide for a page, stacked for a phone.

    Raises:
        ValueError: neither a mechanism nor steps; the input enters where there is no step, or between several.
    """
    shapes = dict(shapes or {})
    if attention is not None:
        from attnlib.plot.trace import traced

        seen = traced(attention, (input, weights))
        attend, use = attend or seen.attend, use or seen.use
        shapes = {input: seen.input, weights: seen.weights, output: seen.output} | shapes
        title = attention.describe().title if title is None else title
    if not attend or not use:
        raise ValueError("a diagram needs a mechanism, or the steps of both: attend=[…] and use=[…]")
    panels = Panel("attend", _rows(attend)), Panel("use", _rows(use), enters)
    symbols = [(symbol, shapes.get(symbol, "")) for symbol in (input, weights, output)]
    alt = alt or _in_words(title, panels, symbols)
    return Figure([_wide(panels, symbols, title), _narrow(panels, symbols, title)], alt, caption)


def _rows(steps: Steps) -> list[list[Step]]:
    rows = [[step] if isinstance(step, (str, Step)) else list(step) for step in steps]
    return [[Step(step) if isinstance(step, str) else step for step in row] for row in rows]


def _in_words(title, panels, symbols) -> str:
    def told(panel: Panel) -> str:
        return ", then ".join(
            " beside ".join(step.label.replace("\n", " ") + (" (learned)" if step.role == "learned" else "")
                            for step in row) for row in panel.rows)

    def named(symbol: str, shape: str) -> str:
        return f"{symbol} ({shape})" if shape else symbol

    attend, use = panels
    x, s, y = (named(*symbol) for symbol in symbols)
    late = f", {symbols[0][0]} where it says {use.rows[use.side][0].label}" if use.side else ""
    return (f"Diagram{f' of {title}' if title else ''}: attend takes the input {x}: {told(attend)}; this gives the "
            f"weights {s}. use takes {symbols[0][0]} and {symbols[1][0]}{late}: {told(use)}; this gives the output {y}."
            ).replace("\n", " ")


class Ink:
    """Collects SVG elements and knows how much room they take."""

    def __init__(self) -> None:
        self.elements: list[str] = []

    def text(self, x: float, y: float, words: str, *, size: int = _FONT, anchor: str = "middle", role: str = "text",
             look: str = "") -> None:
        css = f"font-size:{size}px;text-anchor:{anchor};fill:{role_variable(role)};{look}"
        self.elements.append(f'<text x="{x:.4g}" y="{y:.4g}" style="{css}">{html.escape(words)}</text>')

    def box(self, x: float, y: float, width: float, height: float, role: str, *, dashed: bool = False) -> None:
        colour = role_variable(role)
        inside = "fill:none" if dashed else f"fill:{colour};fill-opacity:.13"
        dashes = ";stroke-dasharray:4 3" if dashed else ""
        corner = min(7, height / 4)
        self.elements.append(
            f'<rect x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}" rx="{corner:.4g}" '
            f'style="{inside};stroke:{colour};stroke-width:1.4{dashes}"/>'
        )

    def line(self, *points: tuple[float, float], arrow: bool = True, role: str = "text") -> None:
        """A line through the points, with an arrow head at the last one."""
        path = "M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in points)
        colour = role_variable(role)
        self.elements.append(f'<path d="{path}" style="fill:none;stroke:{colour};stroke-width:1.4"/>')
        if arrow:
            (x0, y0), (x, y) = points[-2:]
            length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5 or 1
            dx, dy = 7 * (x - x0) / length, 7 * (y - y0) / length
            tip = f"M{x:.4g} {y:.4g}l{-dx - dy / 2:.3g} {-dy + dx / 2:.3g}l{dy:.3g} {-dx:.3g}z"
            self.elements.append(f'<path d="{tip}" style="fill:{colour}"/>')

    def drawing(self, width: float, height: float, only: str) -> Drawing:
        svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.4g} {height:.4g}" aria-hidden="true" '
               f'style="stroke-linejoin:round">{"".join(self.elements)}</svg>')
        return Drawing(svg, width, only)


def _text_width(words: str, size: int = _FONT) -> float:
    """A little more than a usual sans-serif needs: there is no font here to ask."""
    narrow = sum(letter in "ijltfr.,:;|()[]' ·" for letter in words)
    broad = sum(letter in "mwMWΣ→×" for letter in words)
    return size * (0.62 * len(words) - 0.25 * narrow + 0.25 * broad)


def _box_width(row: list[Step], last: bool) -> float:
    """How wide the boxes of a row must be for their words."""
    words = [_text_width(line) + 18 for step in row for line in step.label.split("\n")]
    # Shapes stand to the right of the arrow below a box: half a box must hold them. None leaves the last row.
    shapes = [] if last else [2 * _text_width(step.shape, _SMALL) + 4 for step in row]
    return max(64, *words, *shapes)


class Panel:
    """The steps of `attend` or of `use`, from top to bottom inside a dashed frame.

    Args:
        side: the row into which something more leads from the side; 0 where all enters the first.
    """

    def __init__(self, name: str, rows: list[list[Step]], side: int = 0) -> None:
        if not isinstance(side, int) or not 0 <= side < len(rows):
            raise ValueError(f"the input enters one of the {len(rows)} steps of {name}, from 0 on, not {side!r}")
        if side and len(rows[side]) > 1:
            raise ValueError(f"step {side} of {name} is {len(rows[side])} side by side, and the input can enter only one")
        self.name, self.rows, self.side = name, rows, side
        # Boxes that stand alone are equally wide, and so are those that stand side by side.
        alone, beside = (max([_box_width(row, row is rows[-1]) for row in rows if (len(row) > 1) is several], default=0)
                         for several in (False, True))
        self.widths = [beside if len(row) > 1 else alone for row in rows]
        # What enters from the side needs a lane of its own, between the boxes and the gutter.
        self.width = 2 * (_GUTTER + 14 * (side > 0)) + max(
            len(row) * width + (len(row) - 1) * _BETWEEN for row, width in zip(rows, self.widths))
        self.heights = [12 + 18 * max(step.label.count("\n") + 1 for step in row) for row in rows]
        # One row needs no arrows around it; several need room for the rails that lead to the first and from the last.
        self.rail_above, self.rail_below = 14 * (len(rows[0]) > 1), 14 * (len(rows[-1]) > 1)
        rows_height = sum(self.heights) + _GAP * (len(rows) - 1)
        self.height = _HEADER + self.rail_above + rows_height + self.rail_below + 14
        # From the frame's top to the middle of the boxes, which is where lines from the side arrive.
        self.above = _HEADER + self.rail_above + rows_height / 2

    def place(self, x: float, y: float) -> None:
        """Fix where the panel's upper left corner is, and with it where its boxes are."""
        self.x, self.y = x, y
        self.centre = x + self.width / 2
        self.tops, top = [], y + _HEADER + self.rail_above
        for height in self.heights:
            self.tops.append(top)
            top += height + _GAP

    def middles(self, row: int) -> list[float]:
        """The horizontal middles of a row's boxes."""
        step = self.widths[row] + _BETWEEN
        return [self.centre + step * (i - (len(self.rows[row]) - 1) / 2) for i in range(len(self.rows[row]))]

    @property
    def left(self) -> float:
        """The left side of the first row's boxes."""
        return self.middles(0)[0] - self.widths[0] / 2

    def draw(self, ink: Ink) -> None:
        ink.box(self.x, self.y, self.width, self.height, "neutral", dashed=True)
        ink.text(self.x + 10, self.y + 18, self.name, anchor="start", look="font-weight:600")
        for row, steps in enumerate(self.rows):
            for middle, step in zip(self.middles(row), steps):
                width = self.widths[row]
                ink.box(middle - width / 2, self.tops[row], width, self.heights[row], step.role)
                lines = step.label.split("\n")
                for number, line in enumerate(lines):
                    y = self.tops[row] + self.heights[row] / 2 + 5 + 18 * (number - (len(lines) - 1) / 2)
                    ink.text(middle, y, line)
            if row + 1 < len(self.rows):
                self._down(ink, row)

    def _down(self, ink: Ink, row: int) -> None:
        """The arrows from a row of boxes to the next, and the shapes beside them."""
        above, below = self.middles(row), self.middles(row + 1)
        start, end = self.tops[row] + self.heights[row], self.tops[row + 1]
        pairs = zip(above, below) if len(above) == len(below) else ((a, b) for a in above for b in below)
        for a, b in pairs:
            ink.line((a, start), (b, end))
        for middle, step in zip(above, self.rows[row]):
            # Beside the arrow, on the side where no other one passes.
            side = -1 if row + 1 == self.side or len(above) > 1 and middle < self.centre else 1
            ink.text(middle + 7 * side, start + 17, step.shape, size=_SMALL, anchor="end" if side < 0 else "start",
                     role="neutral")

    def enter(self, ink: Ink, *way: tuple[float, float], role: str = "text", above: bool = False) -> None:
        """Lead an arrow along `way` into the first row: from above, or along the left gutter."""
        middles, top = self.middles(0), self.tops[0]
        if len(middles) > 1:
            rail = top - 12
            corner = way[-1] if above else (self.x + 9, way[-1][1])
            ink.line(*way, corner, (corner[0], rail), arrow=False, role=role)
            ink.line((min(corner[0], middles[0]), rail), (middles[-1], rail), arrow=False, role=role)
            for middle in middles:
                ink.line((middle, rail), (middle, top), role=role)
        elif above:
            ink.line(*way, (middles[0], top), role=role)
        else:
            y = top + self.heights[0] / 2
            turns = [] if y == way[-1][1] else [(self.x + 9, way[-1][1]), (self.x + 9, y)]
            ink.line(*way, *turns, (self.left, y), role=role)

    def enter_beside(self, ink: Ink, *way: tuple[float, float], above: bool = False) -> None:
        """Lead an arrow along `way` into the row that something more enters: by its upper right corner, or its left."""
        middle, top, half = self.centre, self.tops[self.side], self.widths[self.side] / 2
        if above:
            gutter, bend = self.x + self.width - _GUTTER, top - _GAP / 2
            ink.line(*way, (gutter, way[-1][1]), (gutter, bend), (middle + half - 12, bend), (middle + half - 12, top))
        else:
            beside = top + self.heights[self.side] / 2
            ink.line(*way, (way[-1][0], beside), (middle - half, beside))

    def leave(self, ink: Ink, *way: tuple[float, float], below: bool = False, role: str = "text") -> None:
        """Lead an arrow from the last row along `way`: out at the bottom, or along the right gutter."""
        middles, bottom = self.middles(-1), self.tops[-1] + self.heights[-1]
        if len(middles) > 1:
            rail = bottom + 12
            for middle in middles:
                ink.line((middle, bottom), (middle, rail), arrow=False, role=role)
            end = (self.centre, rail) if below else (self.x + self.width - 9, rail)
            ink.line((middles[0], rail), (max(end[0], middles[-1]), rail), arrow=False, role=role)
            ink.line(end, *([] if below else [(end[0], way[0][1])]), *way, role=role)
        elif below:
            ink.line((middles[0], bottom), *way, role=role)
        else:
            y, gutter = bottom - self.heights[-1] / 2, self.x + self.width - 9
            turns = [] if y == way[0][1] else [(gutter, y), (gutter, way[0][1])]
            ink.line((middles[0] + self.widths[-1] / 2, y), *turns, *way, role=role)


def _node(ink: Ink, x: float, y: float, symbol: str, role: str) -> None:
    """A symbol in a square around (x, y)."""
    ink.box(x - _NODE / 2, y - _NODE / 2, _NODE, _NODE, role)
    ink.text(x, y + 6, symbol, size=18, look="font-style:italic;font-family:Georgia,serif")


def _roles(panels) -> list[str]:
    used = {"data", *(step.role for panel in panels for row in panel.rows for step in row)}
    return [role for role in _LEGEND if role in used]


def _legend(ink: Ink, x: float, y: float, width: float, panels) -> float:
    """Write what the colours mean, in as many lines as needed; return the y below."""
    across = x
    for role in _roles(panels):
        needed = 20 + _text_width(_LEGEND[role], _SMALL) + 14
        if across > x and across + needed > width:
            across, y = x, y + 20
        ink.box(across, y - 10, 12, 12, role)
        ink.text(across + 18, y + 1, _LEGEND[role], size=_SMALL, anchor="start")
        across += needed
    return y + 14


def _title(ink: Ink, title: str | None) -> float:
    if not title:
        return 6
    ink.text(4, 18, title, size=15, anchor="start", look="font-weight:600")
    return 34


def _wide(panels, symbols, title: str | None) -> Drawing:
    """Left to right."""
    ink = Ink()
    top = _title(ink, title)
    attend, use = panels
    middle = top + 18 + max(panel.above for panel in panels)
    bottom = middle + max(max(panel.height - panel.above for panel in panels), _NODE / 2 + 20)
    # A node is as wide as the shape written below it.
    rooms = [max(_NODE, _text_width(shape, _SMALL)) for _, shape in symbols]
    x, places = 4.0, []
    for room, panel in zip(rooms, (attend, use, None)):
        places.append(x + room / 2)
        x = x + room / 2 + max(_NODE / 2 + _GAP, room / 2 + 8)
        if panel:
            panel.place(x, middle - panel.above)
            x += panel.width + _GAP
    for place, (symbol, shape), role in zip(places, symbols, ("neutral", "data", "neutral")):
        _node(ink, place, middle, symbol, role)
        ink.text(place, middle + _NODE / 2 + 16, shape, size=_SMALL, role="neutral")
    for panel in panels:
        panel.draw(ink)
    source, seen, result = places
    half = _NODE / 2
    attend.enter(ink, (source + half, middle))
    attend.leave(ink, (seen - half, middle), role="data")
    use.enter(ink, (seen + half, middle), role="data")
    above = top + 4
    if use.side:
        use.enter_beside(ink, (source, middle - half), (source, above), above=True)
    else:
        use.enter(ink, (source, middle - half), (source, above), (use.middles(0)[0], above), above=True)
    use.leave(ink, (result - half, middle))
    width = result + rooms[2] / 2 + 4
    height = _legend(ink, 6, bottom + 28, width, panels)
    return ink.drawing(width, height, "wide")


def _narrow(panels, symbols, title: str | None) -> Drawing:
    """Top to bottom, for a phone."""
    ink = Ink()
    y = _title(ink, title) + _NODE / 2
    centre = 26 + max(panel.width for panel in panels) / 2
    places = []
    for panel in (*panels, None):
        places.append(y)
        if panel:
            panel.place(centre - panel.width / 2, y + _NODE / 2 + 22)
            y = panel.y + panel.height + 22 + _NODE / 2
    for place, (symbol, shape), role in zip(places, symbols, ("neutral", "data", "neutral")):
        _node(ink, centre, place, symbol, role)
        ink.text(centre + _NODE / 2 + 8, place + 5, shape, size=_SMALL, anchor="start", role="neutral")
    for panel in panels:
        panel.draw(ink)
    attend, use = panels
    source, seen, result = places
    half = _NODE / 2
    attend.enter(ink, (centre, source + half), above=True)
    attend.leave(ink, (centre, seen - half), below=True, role="data")
    use.enter(ink, (centre, seen + half), above=True, role="data")
    if use.side:
        use.enter_beside(ink, (centre - half, source), (10, source))
    else:
        use.enter(ink, (centre - half, source), (10, source), (10, use.tops[0] + use.heights[0] / 2))
    use.leave(ink, (centre, result - half), below=True)
    width = max(300, 2 * centre - 26 + 6)
    bottom = _legend(ink, 6, result + half + 28, width, panels)
    return ink.drawing(width, bottom, "narrow")


# The diagram's text is always drawn in the page's text colour, which is a role like the others.
assert set(_LEGEND) < set(COLOURS)
