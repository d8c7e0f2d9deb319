"""Figures of where networks looked: what was read is lit, what was glanced at is dim, the unseen is hatched."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
from collections.abc import Sequence
from typing import Literal, Protocol

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnlib.plot.colours import DARK
from attnlib.plot.diagram import Ink
from attnlib.plot.figure import Drawing, Figure
from attnlib.plot.svg import role_variable

WIDE, NARROW = 680, 346  # pixels: the width of a page's text, and of a phone's
_LEVELS = 32  # of brightness in a picture: enough for the eye, and the same on every processor
_TAG = 5.5  # half of the room that the number of a place needs
_LINE = 16
_HATCH = 9  # pixels from one line of the hatching to the next, along a side


class Looks(Protocol):
    """Where a network looked in B pictures, as `attnlib.spatial.looks.looks` tells it.

    What it saw (B, H, W), which pixels of it were read, and which glanced at, (B, H, W) bool, and the middles of its
    places (B, n, 2) in pixels, in their order.
    """

    seen: Tensor
    read: Tensor
    glanced: Tensor
    places: Tensor


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture of a sheet, with words below.

    Attributes:
        looks: where a network looked, one picture or several; or a picture (H, W) that is shown whole.
        index: which of the pictures of `looks`.
        title, words: written below, one line each. Either may be empty.
        marks: ``"numbers"`` at the places, ``"path"`` for numbers and a line from one to the next, or ``""``.
        wrong: the words are an answer that is wrong, and stand out.
    """

    looks: Looks | Tensor
    index: int = 0
    title: str = ""
    words: str = ""
    marks: Literal["numbers", "path", ""] = ""
    wrong: bool = False


def sheet(panels: Sequence[Panel], *, columns: int, narrow: int, alt: str, caption: str | None = None) -> Figure:
    """Panels in rows, in reading order.

    Args:
        panels: from left to right, then down.
        columns, narrow: panels in a row on a page and on a phone. A single one has its words at its right side.
        alt: what the figure shows, in a sentence.
        caption: printed below.

    Raises:
        ValueError: no panel, or fewer than one in a row.
    """
    if not panels or columns < 1 or narrow < 1:
        raise ValueError(f"a sheet has panels, and at least one in a row, not {len(panels)}, in {columns} or {narrow}")
    return Figure([_sheet(panels, columns, WIDE, "wide"), _sheet(panels, narrow, NARROW, "narrow")], alt, caption)


def _sheet(panels: Sequence[Panel], columns: int, width: float, only: str) -> Drawing:
    ink, between, beside = Ink(), 14 if only == "wide" else 10, columns == 1
    side = min(220, (width - between * (columns - 1)) / columns) if not beside else 150
    y = 0.0
    for row in (panels[i:i + columns] for i in range(0, len(panels), columns)):
        lines = max(bool(panel.title) + bool(panel.words) for panel in row)
        for column, panel in enumerate(row):
            x = column * (side + between)
            _draw(ink, panel, x, y, side)
            below = (x + side + 12, y + side / 2) if beside else (x, y + side + _LINE)
            _write(ink, panel, *below)
        y += side + 14 + (0 if beside else lines * _LINE)
    return ink.drawing(width if beside else columns * (side + between) - between, y, only)


def _write(ink: Ink, panel: Panel, x: float, y: float) -> None:
    bold = "font-weight:600"
    answer = dict(role="data", look=bold) if panel.wrong else {}
    for words, look in ((panel.title, dict(look=bold)), (panel.words, answer)):
        if words:
            ink.text(x, y, words, size=13, anchor="start", **look)
            y += _LINE


# -- one picture -------------------------------------------------------------------------------------------------------


def _draw(ink: Ink, panel: Panel, x: float, y: float, side: float) -> None:
    """The picture in a square of `side` pixels, the outline of what was read, and numbers at the places."""
    looked = None if isinstance(panel.looks, Tensor) else panel.looks
    seen, read, glanced = (panel.looks, None, None) if looked is None else (
        part[panel.index] for part in (looked.seen, looked.read, looked.glanced))
    scale = side / max(seen.shape)
    inside = _image(seen, read, glanced)
    if looked is not None:
        inside += (f'<path d="{_hatching(~(read | glanced), max(1, round(_HATCH / scale)))}" class="unseen" '
                   'vector-effect="non-scaling-stroke" style="fill:none;stroke:#25272B;stroke-width:1.3"/>'
                   f'<path d="{_outline(read)}" vector-effect="non-scaling-stroke" '
                   f'style="fill:none;stroke:{DARK["data"]};stroke-width:1.5"/>')
    ink.elements.append(f'<g transform="translate({x:.4g} {y:.4g}) scale({scale:.4g})">{inside}</g>')
    if looked is not None and panel.marks:
        places = looked.places[panel.index]
        places = places[~places.isnan().any(1)] * scale + torch.tensor([x, y])
        _number(ink, places, panel.marks == "path", (x, y, side))


def _image(seen: Tensor, read: Tensor | None, glanced: Tensor | None) -> str:
    """An SVG image of a picture (H, W) in 0–1: bright where it was read, dim where glanced at, grey where not seen."""
    from PIL import Image

    level = (seen.detach().cpu().clamp(0, 1) * (_LEVELS - 1)).round().to(torch.uint8)
    if read is not None:
        level = torch.where(read, level, torch.where(glanced, level + _LEVELS, 2 * _LEVELS))
    picture = Image.fromarray(level.to(torch.uint8).numpy())
    picture.putpalette(_palette().tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, bits=8)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = seen.shape
    return (f'<image width="{width}" height="{height}" preserveAspectRatio="none" style="image-rendering:pixelated" '
            f'href="data:image/png;base64,{data}"/>')


def _palette() -> np.ndarray:
    """Colours of what was read, of what was glanced at, and of what was not seen: (2·levels + 1, 3) bytes."""
    steps = np.linspace(0, 1, _LEVELS)
    read = matplotlib.colormaps["attn_map"](0.15 + 0.85 * steps)[:, :3]
    glanced = np.repeat(0.11 + 0.45 * steps[:, None], 3, 1)
    return (np.concatenate([read, glanced, [[0.42, 0.43, 0.45]]]) * 255).round().astype(np.uint8)


def _outline(mask: Tensor) -> str:
    """The edges of a mask (H, W), as the ``d`` of an SVG path in pixels."""
    inside = F.pad(mask.detach().cpu().int(), (1, 1, 1, 1)).numpy()
    across, down = np.diff(inside, axis=0) != 0, np.diff(inside, axis=1).T != 0
    level = [f"M{start - 1} {y}H{end - 1}" for y, line in enumerate(across) for start, end in _runs(line)]
    upright = [f"M{x} {start - 1}V{end - 1}" for x, line in enumerate(down) for start, end in _runs(line)]
    return "".join(level + upright)


def _hatching(mask: Tensor, apart: int) -> str:
    """Lines at 45 degrees over a mask (H, W), `apart` pixels from each other, as the ``d`` of an SVG path in pixels."""
    mirrored = mask.detach().cpu().numpy()[:, ::-1]
    height, width = mirrored.shape
    lines = []
    for offset in range(1 - height, width):
        row, column = max(0, -offset), width - max(0, offset)  # where the diagonal enters, at the upper right
        if (row + column) % apart == 0:
            lines += [f"M{column - start} {row + start}l{start - end} {end - start}"
                      for start, end in _runs(mirrored.diagonal(offset))]
    return "".join(lines)


def _runs(line: np.ndarray) -> list[tuple[int, int]]:
    """First and past-the-last index of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.r_[0, line.astype(int), 0]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def _number(ink: Ink, places: Tensor, path: bool, square: tuple[float, float, float]) -> None:
    """Numbers at places (n, 2), moved apart where they would cover each other."""
    if path and len(places) > 1:
        way = "M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in places.tolist())
        for colour, thick in (("#121212", 4), ("#FFFFFF", 1.6)):
            ink.elements.append(f'<path d="{way}" style="fill:none;stroke:{colour};stroke-width:{thick}"/>')
    words = "".join(f'<text x="{x:.4g}" y="{y + 4:.4g}">{number}</text>'
                    for number, (x, y) in enumerate(_apart(places, *square).tolist(), 1))
    ink.elements.append('<g style="font-size:11px;font-weight:700;text-anchor:middle;fill:#FFFFFF;stroke:#121212;'
                        f'stroke-width:3;paint-order:stroke">{words}</g>')


def _apart(places: Tensor, x: float, y: float, side: float) -> Tensor:
    """The places, moved until no two are nearer than a number is wide and all are inside the square."""
    least, corner = 2 * _TAG + 1, torch.tensor([x, y]).double()
    first, last = corner + _TAG + 1, corner + side - _TAG - 1
    # No two may be in the same place: they would not know in which direction to part.
    spread = places.double() + torch.arange(len(places))[:, None] * torch.tensor([1e-3, -2e-3])
    for _ in range(200):
        spread = spread.maximum(first).minimum(last)
        between = spread[:, None] - spread[None]
        far = between.norm(dim=2)
        push = (least - far).clamp(min=0).fill_diagonal_(0)
        if not len(places) or float(push.max()) < 0.05:
            break
        spread = spread + (between / far.clamp(min=1e-9)[..., None] * push[..., None] / 2).sum(1)
    return spread.maximum(first).minimum(last)


# -- what is read, in which order --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Strip:
    """What one mechanism reads, step by step.

    Attributes:
        title, phrase: written above.
        panels: two or three; of each, `title` and `words` stand below it.
        choice: what leads from one to the next, in a few words; ``\\n`` breaks the line.
        learned: how the choice is learned: ``"by gradient"``, ``"by reward"`` or ``"not"``.
    """

    title: str
    phrase: str
    panels: tuple[Panel, ...]
    choice: str
    learned: Literal["by gradient", "by reward", "not"]


_ARROWS = {"by gradient": ("learned", "", "learned by gradient"), "by reward": ("learned", "5 4", "learned by reward"),
           "not": ("neutral", "", "not learned")}


def storyboard(strips: Sequence[Strip], *, alt: str, caption: str | None = None) -> Figure:
    """One strip of pictures for each mechanism, from the first look to the answer; the arrows say how a choice is made.

    Raises:
        ValueError: a strip of fewer than two or more than three panels, or an unknown way to learn.
    """
    for strip in strips:
        if len(strip.panels) not in (2, 3) or strip.learned not in _ARROWS:
            raise ValueError(f"a strip has two or three panels and a choice learned {', '.join(_ARROWS)}, not "
                             f"{len(strip.panels)} and {strip.learned!r}")
    return Figure([_strips(strips, 128, 90, "wide"), _strips(strips, 78, 28, "narrow")], alt, caption)


def _strips(strips: Sequence[Strip], side: float, gap: float, only: str) -> Drawing:
    ink, y, small = Ink(), 0.0, 13 if only == "wide" else 12
    columns = [column * (side + gap) for column in range(3)]
    for strip in strips:
        ink.text(0, y + 14, strip.title, size=15, anchor="start", look="font-weight:600")
        ink.text(0, y + 32, strip.phrase, size=small, anchor="start", role="neutral")
        top = y + 42
        places = columns if len(strip.panels) == 3 else [columns[0], columns[2]]
        for x, panel in zip(places, strip.panels):
            _draw(ink, panel, x, top, side)
            for line, words in enumerate(filter(None, (panel.title, panel.words))):
                ink.text(x, top + side + 15 + 15 * line, words, size=12, anchor="start")
        middle = top + side / 2
        role, dashes, told = _ARROWS[strip.learned]
        for x, after in itertools.pairwise(places):
            _arrow(ink, x + side + 3, after - 3, middle, role, dashes)
        _arrow(ink, columns[2] + side + 3, columns[2] + side + 17, middle, "text", "")
        ink.text(columns[2] + side + 20, middle + 4, "answer", size=12, anchor="start")
        y = _choice(ink, strip, columns[1] + side / 2, middle, top + side, told, role, small)
    return ink.drawing(columns[2] + side + 64, y - 20, only)


def _choice(ink: Ink, strip: Strip, centre: float, middle: float, bottom: float, told: str, role: str,
            size: int) -> float:
    """Write what the choice is and how it is learned: at the long arrow, or below three panels. Return the y below."""
    lines = strip.choice.split("\n")
    if len(strip.panels) == 2:
        for number, line in enumerate(lines):
            ink.text(centre, middle - 10 - 15 * (len(lines) - 1 - number), line, size=size)
        ink.text(centre, middle + 20, told, size=size - 1, role=role, look="font-weight:600")  # bold is broad
        return bottom + 62
    y = bottom + 40
    ink.text(centre - 5, y, " ".join(lines), size=size, anchor="end")
    ink.text(centre + 5, y, told, size=size, role=role, anchor="start", look="font-weight:600")
    return y + 36


def _arrow(ink: Ink, x: float, end: float, y: float, role: str, dashes: str) -> None:
    colour = role_variable(role)
    dashed = f";stroke-dasharray:{dashes}" if dashes else ""
    ink.elements.append(f'<path d="M{x:.4g} {y:.4g}H{end - 6:.4g}" '
                        f'style="fill:none;stroke:{colour};stroke-width:2.4{dashed}"/>'
                        f'<path d="M{end:.4g} {y:.4g}l-9 -5v10z" style="fill:{colour}"/>')
