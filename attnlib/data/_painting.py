"""How scenes are painted: the ground with its texture and clutter, and figures made of capsules on top of it."""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from attnlib.data._shapes import CAPSULES, PARTS, boxes, distances, longer_sides

# The ground's texture: into how many spans each of its smooth fields divides the shorter side, and how strong it is.
_FIELDS = {3: 0.6, 7: 0.45, 15: 0.3}
# Clutter: into how many cells each of its layers divides the shorter side. A cell has one stroke, or none.
_CELLS = (6, 10)
_STROKE = 1.6  # strength of a stroke, in units of texture
_TINT = 0.1  # what a unit of texture adds to a channel, at most
_RIM = 0.025  # width of a figure's outline, in its longer sides
# Pixels that are drawn at a time: what a processor's cache holds, or a small part of a GPU's memory.
_CPU_BATCH, _GPU_BATCH = 2**17, 2**24


class Ground(NamedTuple):
    """The ground of N pictures, in any resolution."""

    colour: Tensor  # (N, 3), its mean
    tint: Tensor  # (N, 3), what a unit of texture adds
    fields: tuple[Tensor, ...]  # (N, rows, columns) each: coefficients of a smooth field
    strokes: tuple[Tensor, ...]  # (N, 7, rows, columns) each: start x and y, cosine, sine, length, radius; strength

    def of(self, some: slice, device: torch.device | str | None) -> Ground:
        """The ground of some of the pictures, on a device."""
        colour, tint, *rest = [tensor[some].to(device) for tensor in (*self[:2], *self.fields, *self.strokes)]
        return Ground(colour, tint, tuple(rest[:len(self.fields)]), tuple(rest[len(self.fields):]))


class Canvas(NamedTuple):
    """Pictures in the making, pixel after pixel. Figures are numbered from 1; 0 is the ground."""

    images: Tensor  # (n, 3, H·W)
    owner: Tensor  # (n, H·W) uint8, whose pixel it is
    parts: Tensor  # (n, H·W) uint8, 1 + which of `PARTS` it is, or 0


def hues(angle: Tensor, light: Tensor) -> Tensor:
    """Colour differences (..., 3) whose largest channel is 1 or −1: a hue in radians, and how light or dark it is."""
    colour = (angle[..., None] - torch.arange(3) * (2 * math.pi / 3)).cos() + light[..., None]
    return colour / colour.abs().amax(-1, keepdim=True)


def random_ground(
    count: int, height: int, width: int, clutter: float, rng: torch.Generator, clutter_rng: torch.Generator
) -> Ground:
    """Grounds of any colour near grey, with texture around it, and strokes in a share `clutter` of their cells."""
    short = min(height, width)
    angle, light, strength, tint_angle, tint_light = torch.rand(5, count, generator=rng)
    fields = [
        weight * torch.randn(count, *(round(spans * side / short) + 3 for side in (height, width)), generator=rng)
        for spans, weight in _FIELDS.items()
    ]
    strokes = [
        _random_strokes(count, *(round(cells * side / short) for side in (height, width)), clutter, clutter_rng)
        for cells in _CELLS
    ]
    return Ground(
        0.5 + 0.13 * strength[:, None] * hues(2 * math.pi * angle, 2 * light - 1),
        _TINT * hues(2 * math.pi * tint_angle, 3 * tint_light - 1.5), tuple(fields), tuple(strokes),
    )


def _random_strokes(count: int, rows: int, columns: int, clutter: float, rng: torch.Generator) -> Tensor:
    """A stroke for every cell, inside it and in units of it: (N, 7, rows, columns)."""
    ax, ay, bx, by, thick, strong, there = torch.rand(7, count, rows, columns, generator=rng)
    radius = 0.08 + 0.17 * thick
    room = 1 - 2 * radius
    ax, ay, right, down = radius + room * ax, radius + room * ay, room * (bx - ax), room * (by - ay)
    length = torch.hypot(right, down).clamp(min=1e-6)
    strength = _STROKE * torch.where(strong < 0.5, strong - 1, strong) * (there < clutter)
    return torch.stack([ax, ay, right / length, down / length, length, radius, strength], 1)


def painted_ground(ground: Ground, height: int, width: int) -> Tensor:
    """The pictures of the ground alone, (n, 3, H, W)."""
    texture = sum(_smooth(field, height, width) for field in ground.fields)
    for strokes in ground.strokes:
        if strokes[:, 6].any():
            texture = texture + _drawn_strokes(strokes, height, width)
    return ground.colour[..., None, None] + ground.tint[..., None, None] * texture[:, None]


def _smooth(field: Tensor, height: int, width: int) -> Tensor:
    """Cubic B-splines with the given coefficients (n, rows, columns): (n, H, W)."""
    rows, columns = (_splines(side, n).to(field) for side, n in ((height, field.shape[1]), (width, field.shape[2])))
    return rows @ field @ columns.T


@functools.lru_cache(maxsize=32)
def _splines(pixels: int, coefficients: int) -> Tensor:
    """How much every coefficient counts in every pixel: (pixels, coefficients); rows sum to one."""
    at = (torch.arange(pixels) + 0.5) / pixels * (coefficients - 3) + 1
    far = (at[:, None] - torch.arange(coefficients)).abs()
    return torch.where(far < 1, 2 / 3 - far**2 + far**3 / 2, (2 - far).clamp(min=0) ** 3 / 6)


def _drawn_strokes(strokes: Tensor, height: int, width: int) -> Tensor:
    """What the strokes add to the texture: (n, H, W). Every pixel can only lie in the stroke of its own cell."""
    (row, down), (column, right) = (
        _in_cells(side, cells, strokes) for side, cells in zip((height, width), strokes.shape[2:])
    )
    ax, ay, cos, sin, length, radius, strength = strokes.index_select(3, column).unbind(1)  # (n, rows, W)
    # All that rows do not change is computed once for the row of cells.
    right = right - ax
    cells = torch.stack([right * cos - ay * sin, -right * sin - ay * cos, cos, sin, length, radius, strength], 1)
    along, across, cos, sin, length, radius, strength = cells.index_select(2, row).unbind(1)  # (n, H, W)
    down = down[:, None]
    along, across = along.addcmul(sin, down), across.addcmul(cos, down)
    along -= along.clamp(min=0).minimum(length)
    distance = along.square_().addcmul_(across, across).sqrt_().sub_(radius)
    return coverage(distance.mul_(height / strokes.shape[2])).mul_(strength)


def _in_cells(pixels: int, cells: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The cell of every pixel's centre, and its place within it, 0–1."""
    at = (torch.arange(pixels, device=like.device) + 0.5) / pixels * cells
    return at.long(), at.frac()


def coverage(distance: Tensor) -> Tensor:
    """How much of a pixel is covered by something whose edge is so far from the pixel's centre, in pixels: 0–1."""
    return (0.5 - distance).clamp_(0, 1)


def drawn(ground: Ground, capsules: Tensor, colours: Tensor, objects: int, height: int, width: int,
          device: torch.device, workers: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Paint N pictures of M figures, the first one on top.

    Args:
        ground: theirs.
        capsules: (N, M, 10, 6) in pixels.
        colours: (N, M, 4, 3), of outline, body, head and mark.
        objects: how many of the figures are animals, whose parts are noted.
        height, width: of the pictures, in pixels.
        device: where to draw.
        workers: threads, on a CPU.

    Returns:
        images (N, 3, H, W), the number of the figure whose every pixel is, and its part (N, H, W), as in `Canvas`.
    """
    count, area = len(capsules), height * width
    images = torch.empty(count, 3, area, device=device)
    owner, parts = torch.zeros(2, count, area, dtype=torch.uint8, device=device)
    has = [_has(capsules[:, m]) for m in range(capsules.shape[1])]
    sides = longer_sides(boxes(capsules))
    on_cpu = device.type == "cpu"
    batch = max(1, (_CPU_BATCH if on_cpu else _GPU_BATCH) // area)

    inference = torch.is_inference_mode_enabled()  # which other threads do not know

    @torch.inference_mode(inference)
    def draw(first: int) -> None:
        some = slice(first, first + batch)
        images[some] = painted_ground(ground.of(some, device), height, width).flatten(2)
        canvas = Canvas(images[some], owner[some], parts[some])
        own = [tensor[some].to(device) for tensor in (capsules, colours, sides)]
        for m in reversed(range(len(has))):
            shape, tones, side = (tensor[:, m] for tensor in own)
            shape = {what: shape[:, CAPSULES[what]] for what in has[m]}
            paint(canvas, width, shape, tones, side, number=m + 1, noted=m < objects)

    with ThreadPoolExecutor(workers) as pool:
        each = pool.map if on_cpu and workers > 1 else map
        list(each(draw, range(0, count, batch)))
    return images.view(-1, 3, height, width), owner.view(-1, height, width), parts.view(-1, height, width)


def _has(capsules: Tensor) -> list[str]:
    """The parts that are there in any of the figures (N, 10, 6)."""
    return [what for what, which in CAPSULES.items() if (capsules[:, which, 4] >= 0).any()]


def paint(canvas: Canvas, width: int, capsules: dict[str, Tensor], colours: Tensor, side: Tensor, number: int,
          noted: bool) -> None:
    """Paint one figure into every picture of the canvas, over what is there.

    Args:
        canvas: n pictures, `width` pixels wide.
        capsules: (n, J, 6) in pixels for every part that the figure has.
        colours: (n, 4, 3), of outline, body, head and mark.
        side: (n,) the longer sides of the figures.
        number: what the pixels that it owns are called.
        noted: whether its parts are noted.
    """
    capsules = dict(capsules)
    mark = capsules.pop("mark", None)
    places, x, y = _window(boxes(torch.cat(list(capsules.values()), 1)), canvas.owner.shape[1] // width, width)
    parts = {what: distances(some, x, y).amin(1).flatten(1) for what, some in capsules.items()}
    outside, rim = functools.reduce(torch.minimum, parts.values()), _RIM * side[:, None]
    outline, body, head, spot = colours.unbind(1)
    layers = [(outside, outline), (outside + rim, body)]
    if "head" in parts:
        layers.append((parts["head"] + rim, head))
    _colour(canvas, places, layers)
    _own(canvas, places, outside, number, parts if noted else {})
    if mark is not None:
        places, x, y = _window(boxes(mark), canvas.owner.shape[1] // width, width)
        inside = distances(mark, x, y).amin(1).flatten(1)
        _colour(canvas, places, [(inside, spot)])
        _own(canvas, places, inside, number, {"mark": inside} if noted else {})


def _colour(canvas: Canvas, places: Tensor, layers: list[tuple[Tensor, Tensor]]) -> None:
    """Paint layers, each a distance (n, p) and a colour (n, 3), over the pixels at `places` (n, p)."""
    there = places[:, None].expand(-1, 3, -1)
    image = canvas.images.gather(2, there)
    for distance, colour in layers:
        image = torch.lerp(image, colour[..., None], coverage(distance)[:, None])
    canvas.images.scatter_(2, there, image)


def _own(canvas: Canvas, places: Tensor, distance: Tensor, number: int, parts: dict[str, Tensor]) -> None:
    """Note whose the pixels at `places` are, and which part of it."""
    inside = distance < 0
    canvas.owner.scatter_(1, places, canvas.owner.gather(1, places).masked_fill_(inside, number))
    part = canvas.parts.gather(1, places)
    for what, index in {None: 0, **{what: 1 + PARTS.index(what) for what in parts}}.items():
        part.masked_fill_(parts[what] < 0 if what else inside, index)
    canvas.parts.scatter_(1, places, part)


def _window(box: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of one size around the boxes (n, 4): the pixels of each (n, h·w), and where their centres are.

    Those are x (n, 1, w) and y (n, 1, h).
    """
    # The soft edge reaches half a pixel out of the box.
    spans = (box[:, 2:] - box[:, :2]).amax(0) + 3
    w, h = (min(most, math.ceil(span)) for most, span in zip((width, height), spans.tolist()))
    first = (box[:, :2].floor() - 1).clamp(min=0).minimum(box.new_tensor([width - w, height - h])).long()
    columns = first[:, :1] + torch.arange(w, device=box.device)
    rows = first[:, 1:] + torch.arange(h, device=box.device)
    pixels = rows[:, :, None] * width + columns[:, None]
    return pixels.flatten(1), columns[:, None] + 0.5, rows[:, None] + 0.5
