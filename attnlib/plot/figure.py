"""Finished figures: drawn once, right in light and dark, crisp at any size, and with words for those who cannot see."""

from __future__ import annotations

import contextlib
import html
import io
import sys
from pathlib import Path

from attnlib.plot.colours import DARK, register_ramps
from attnlib.plot.svg import compact, role_variable

# CSS pixels per point of a drawing; how far a wide drawing may shrink before it scrolls instead (its smallest text is
# then 9 px); and the width every phone has.
_PIXELS = 4 / 3
_SHRINK = 0.75
_PHONE = 350


def stylesheet() -> str:
    """The CSS that figures, cards and widgets bring along: it sets the dark colours wherever the page is dark.

    The site (``data-theme``), JupyterLab (``data-jp-theme-light``) and VS Code mark a dark page each in its own way.
    In light the colours are the fallbacks of the variables. A page that sets ``--attn-data`` … itself wins over both.
    """
    dark = ";".join(f"--attn-{role}:{colour}" for role, colour in DARK.items())
    quiet = role_variable("neutral")
    return (
        f':where(html[data-theme="dark"],[data-jp-theme-light="false"],.vscode-dark){{{dark}}}'
        # The site's theme puts a light box behind outputs on a dark page, where these figures need none.
        'html[data-theme="dark"] .bd-content div.cell_output .text_html:has(figure.attn-figure,table.attn-card),'
        'html[data-theme="dark"] .bd-content div.cell_output .widget-subarea'
        "{background:none;color:inherit;padding:0}"
        ".attn-figure{margin:0 0 1rem;max-width:100%;font-family:var(--attn-sans,system-ui,sans-serif)}"
        ".attn-figure svg,.attn-figure img{display:block;width:100%;height:auto;font-family:inherit}"
        ".attn-scroll{overflow-x:auto}.attn-narrow{display:none}"
        "@media(max-width:600px){.attn-wide{display:none}.attn-narrow{display:block}}"
        ".attn-card th,.attn-card td{text-align:left;vertical-align:top;padding:.25em 1em .25em 0}"
        "figure.attn-figure figcaption{font-size:.9em;line-height:1.4;margin:.4rem 0 0;max-width:42em;text-align:left;"
        f"color:{quiet}}}"
    )


def check_alt(alt: str) -> str:
    """`alt`, or ValueError where it says nothing."""
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("a figure needs alt text: a sentence that says what it shows, e.g. alt='Gates of two layers'")
    return " ".join(alt.split())


class Drawing:
    """One SVG and the sizes it may take.

    Args:
        svg: an ``<svg>`` element without width and height.
        width: its natural width in CSS pixels. It never grows beyond it, and scrolls rather than shrink below 3/4.
        only: ``"wide"`` or ``"narrow"`` for a drawing meant for large or small screens alone.
    """

    def __init__(self, svg: str, width: float, only: str | None = None) -> None:
        self.svg, self.width, self.only = svg, width, only

    def html(self, alt: str) -> str:
        least = round(self.width * _SHRINK)
        css = f"max-width:{round(self.width)}px;" + (f"min-width:{least}px" if least > _PHONE else "")
        kinds = "attn-scroll" + (f" attn-{self.only}" if self.only else "")
        # What may scroll must be reachable by keyboard.
        focus = ' tabindex="0"' if least > _PHONE else ""
        return (
            f'<div class="{kinds}" role="img" aria-label="{html.escape(alt)}"{focus}>'
            f'<div style="{css}">{self.svg}</div></div>'
        )


class Figure:
    """A finished figure: SVG that follows the page's theme, its alt text and its caption.

    A notebook shows it; `attnlib.widgets` takes it as a state; `save` writes it to a file. Its text form is
    ``Figure('the alt text')``, the same in every run.
    """

    def __init__(self, drawings: list[Drawing], alt: str, caption: str | None = None) -> None:
        self.drawings = drawings
        self.alt = check_alt(alt)
        self.caption = caption

    def __repr__(self) -> str:
        return f"Figure({self.alt!r})"

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        body = "".join(drawing.html(self.alt) for drawing in self.drawings)
        return f'<figure class="attn-figure"><style>{stylesheet()}</style>{body}{caption}</figure>'

    def save(self, path: str | Path) -> None:
        """Write the (wide) drawing as an SVG file of its own that follows the viewer's light or dark setting."""
        dark = ";".join(f"--attn-{role}:{colour}" for role, colour in DARK.items())
        style = f"<style>svg{{font-family:sans-serif}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
        title = f"<title>{html.escape(self.alt)}</title>"
        svg = self.drawings[0].svg.replace(' aria-hidden="true"', ' role="img"', 1)
        Path(path).write_text(svg.replace(">", f">{title}{style}", 1), encoding="utf-8")


@contextlib.contextmanager
def style():
    """The book's matplotlib style: inside the `with` block, or inside the function it decorates (``@style()``)."""
    import matplotlib.style

    with matplotlib.style.context(Path(__file__).with_name("attnlib.mplstyle")):
        yield


def subplots(rows: int = 1, columns: int = 1, *, width: float = 4.8, height: float = 3.0, **options):
    """Like ``pyplot.subplots``, in the book's style and without pyplot: nothing to close, nothing shown twice.

    Args:
        width, height: inches. Up to 4.8 inches wide, a figure fits a phone without scrolling.
        options: those of `matplotlib.figure.Figure.subplots`, e.g. ``sharey=True``.

    Returns:
        the figure, and its axes: one, or an array of them.
    """
    from matplotlib.figure import Figure as Canvas

    with style():
        canvas = Canvas(figsize=(width, height))
        return canvas, canvas.subplots(rows, columns, **options)


def colour_bar(figure, axes, mappable, label: str):
    """A colour bar in the book's style beside `axes`."""
    bar = figure.colorbar(mappable, ax=axes, aspect=14, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)
    bar.solids.set_rasterized(True)  # one small picture instead of 256 rectangles
    return bar


def show(figure, alt: str, caption: str | None = None) -> Figure:
    """Turn a matplotlib figure into one for the page.

    The page gets one compact SVG. Its role colours (`attnlib.plot.COLOURS`) are CSS variables, so it is right in
    light and dark; its text is text; its background is transparent; the same figure gives the same bytes.

    Args:
        figure: a matplotlib figure, or axes of one. It is closed, so that the notebook does not show it once more.
        alt: what the figure shows, in a sentence. Read aloud instead of the picture; it must not be empty.
        caption: printed below.

    Raises:
        ValueError: no alt text.
        TypeError: not a matplotlib figure.
    """
    from matplotlib.figure import Figure as Canvas

    alt = check_alt(alt)
    figure = getattr(figure, "figure", figure)
    if not isinstance(figure, Canvas):
        raise TypeError(f"plot.show takes a matplotlib figure, not {type(figure).__name__}")
    buffer = io.StringIO()
    with style():
        # A figure that arranges itself keeps its size, so that the states of a toggle do not jump.
        tight = {} if figure.get_layout_engine() else {"bbox_inches": "tight", "pad_inches": 0.05}
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, **tight)
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)
    svg, width, _ = compact(buffer.getvalue())
    return Figure([Drawing(svg, width * _PIXELS)], alt, caption)


register_ramps()
