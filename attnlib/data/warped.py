"""Real digits on a larger canvas, turned, moved, scaled, bent and among fragments of others, with the map known."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlib.arguments import not_negative, whole
from attnlib.data._warps import drawn_maps, unbent, undone
from attnlib.data.pictures import Pictures, check_count

# Each warp: the canvas it is usually on, and its knobs. Strengths in pixels of 28 are in shares of the canvas here.
WARPS = {
    "none": dict(size=28),
    "rotation": dict(size=28, rotation=90.0),
    "rts": dict(size=42, rotation=45.0, scale=(0.7, 1.2), shift=1.0),
    "projective": dict(size=28, scale=(0.75, 1.0), projective=5 / 28),
    "elastic": dict(size=28, elastic=1.5 / 28),
    "translation": dict(size=60, shift=1.0),
    "clutter": dict(size=60, shift=1.0, clutter=16, fragment=6),
}
_PLAIN = dict(rotation=0.0, scale=(1.0, 1.0), shift=0.0, projective=0.0, elastic=0.0, clutter=0, fragment=6)
# The handwritten digits fill their 8×8 pixels, as MNIST's fill the middle 20 of 28.
_DIGIT = {"digits": 20, "mnist": 28}
_INK = 0.3  # brighter than this is the digit
_FINE = 32  # pixels to which a small source is enlarged before it is warped
_CONTRAST = 1.5  # of what was enlarged, so that strokes stay strokes
_PIXELS = 2**21  # that are drawn at a time


def warped_digits(
    count: int, warp: str = "rotation", size: int | None = None, *, digit: int | None = None,
    rotation: float | None = None, scale: tuple[float, float] | None = None, shift: float | None = None,
    projective: float | None = None, elastic: float | None = None, clutter: int | None = None,
    fragment: int | None = None, noise: float = 0.0, part: Literal["train", "test"] = "train",
    source: str | Pictures = "digits", seed: int = 0,
) -> Pictures:
    """Handwritten digits on a dark canvas, each warped in its own way; the label is the digit.

    The warps are those of Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NIPS 2015,
    arXiv:1506.02025: ``"rotation"`` (up to 90° both ways), ``"rts"`` (rotation up to 45°, scale 0.7–1.2, any place),
    ``"projective"`` (the canvas's corners move, scale 0.75–1), ``"elastic"`` (a thin plate moves 4×4 points),
    ``"translation"`` (any place), and ``"clutter"`` (any place, among 16 fragments of other digits, as in Mnih et al.,
    "Recurrent Models of Visual Attention", NIPS 2014, arXiv:1406.6247); and ``"none"``. Every knob of a warp can be set
    to something else.

    Training and test pictures never share a source: `part` says from which of both parts digits and fragments are
    taken. The same seed gives the same pictures; with another warp or other knobs it gives the same digits. Angles,
    scales and shifts are uniform; how far corners and points move is normal, cut off where the picture would fold.

    Args:
        count: number of pictures N.
        warp: one of `WARPS`.
        size: height and width S of the canvas in pixels; by default 28, 42 for ``"rts"``, and 60 for ``"translation"``
            and ``"clutter"``.
        digit: side of the upright digit's square in pixels; 20 by default, and 28 with the margin that MNIST has.
        rotation: largest angle, in degrees.
        scale: smallest and largest.
        shift: 0 leaves the digit in the middle, 1 lets it go as far as its turned square stays inside, more lets it
            leave the canvas.
        projective: standard deviation of the corners' movement in x and in y, in shares of the canvas.
        elastic: likewise of 4×4 points. Where the map would be too steep all its movements shrink together. Not with
            `projective`.
        clutter: fragments of other digits, at random places, also over the digit.
        fragment: their side, in pixels.
        noise: standard deviation of the Gaussian noise added to every pixel at last.
        part: ``"train"`` or ``"test"``.
        source: ``"digits"`` of scikit-learn, ``"mnist"``, or `Pictures` (N, 1, h, h) of light on dark. These are taken
            as they are, whatever `part` says.
        seed: any whole number.

    Returns:
        Pictures with images (N, 1, S, S) in 0–1 (noise apart), and in `truth`: ``map``, the coefficients of the map
        from each place of the upright picture, that of the warp ``"none"``, to the place of this one that shows it, as
        a spatial transformer has to find them: (N, 6), with `projective` (N, 8), with `elastic` (N, 32), in the order
        and units of `attnlib.spatial.transforms`; ``angle`` (N,) in radians, clockwise on the screen; ``scale`` (N,);
        ``centre`` (N, 2), x and y from −1 to 1; ``mask`` (N, S, S), where the digit is; ``box`` (N, 4), the mask's
        left, top, right, bottom in pixels, zeros where nothing is seen; and ``source`` (N,), the number of the digit in
        its part.

    Raises:
        ValueError: no picture, an unknown warp, part or source, a digit or fragment that does not fit, or a knob that
            is out of its range.
    """
    given = dict(size=size, rotation=rotation, scale=scale, shift=shift, projective=projective, elastic=elastic,
                 clutter=clutter, fragment=fragment)
    knobs = _knobs(count, warp, part, noise, given)
    sources = _sources(source, part)
    digit = (_DIGIT.get(source, 20) if isinstance(source, str) else 20) if digit is None else digit
    _check_sizes(knobs, digit)

    rng = torch.Generator().manual_seed(2 * seed + (part == "test"))
    chosen = torch.randint(len(sources), (count,), generator=rng)
    maps = drawn_maps(count, knobs, digit / knobs["size"], rng)
    images = _drawn(_fine(sources.images)[chosen], maps, digit, knobs["size"])
    mask = images > _INK
    _add_fragments(images, sources.images, chosen, digit, knobs, rng)
    if noise:
        images += noise * torch.randn(images.shape, generator=rng)
    truth = {"map": maps["map"], "angle": maps["angle"], "scale": maps["scale"], "centre": maps["centre"],
             "mask": mask, "box": _boxes(mask), "source": chosen}
    return Pictures(images[:, None], sources.labels[chosen], sources.classes, truth,
                    name=f"{sources.name or 'digits'}, {warp}", source=sources.source)


def _knobs(count: int, warp: str, part: str, noise: float, given: dict) -> dict:
    """The warp's own knobs with what was given put in their place."""
    check_count("warped_digits", count)
    if warp not in WARPS:
        raise ValueError(f"the warp is one of {', '.join(WARPS)}, not {warp!r}")
    if part not in ("train", "test"):
        raise ValueError(f"the part is 'train' or 'test', not {part!r}")
    knobs = _PLAIN | WARPS[warp] | {name: value for name, value in given.items() if value is not None}
    low, high = knobs["scale"]
    if not 0 < low <= high < math.inf:
        raise ValueError(f"scale is the smallest and the largest, above 0, not {knobs['scale']}")
    strengths = {"noise": noise} | {name: knobs[name] for name in ("rotation", "shift", "projective", "elastic")}
    for name, value in strengths.items():
        not_negative(name, value)
    if knobs["projective"] and knobs["elastic"]:
        raise ValueError("a picture is warped by projective or by elastic, not by both: set one of them to 0")
    return knobs


def _check_sizes(knobs: dict, digit: int) -> None:
    size, clutter, fragment = (knobs[name] for name in ("size", "clutter", "fragment"))
    for name, value, least in (("size", size, 4), ("digit", digit, 4), ("clutter", clutter, 0),
                               ("fragment", fragment, 1)):
        whole(name, value, least)
    if digit > size:
        raise ValueError(f"a digit of {digit} pixels does not fit a canvas of {size}")
    if clutter and fragment > digit:
        raise ValueError(f"a fragment of {fragment} pixels cannot be cut from a digit of {digit}")


def _sources(source: str | Pictures, part: str) -> Pictures:
    """The digits of one part."""
    if isinstance(source, Pictures):
        if source.images.shape[1] != 1 or source.images.shape[2] != source.images.shape[3] or len(source) == 0:
            raise ValueError(f"sources are square pictures (N, 1, h, h), not {tuple(source.images.shape)}")
        return source
    if source not in _DIGIT:
        raise ValueError(f"the source is one of {', '.join(_DIGIT)}, or Pictures, not {source!r}")
    if source == "digits":
        from attnlib.data.handwritten import digits as both
    else:
        from attnlib.data.torchvision_sets import mnist as both
    return both()[part == "test"]


def _fine(images: Tensor) -> Tensor:
    """Sources (M, h, h), enlarged if they are small: a bicubic curve through the pixels, with more contrast."""
    side = images.shape[-1]
    return _resized(images, _FINE)[:, 0] if side < _FINE // 2 else images[:, 0]


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] >= side:  # shrunk, or as it is
        return F.interpolate(images, size=side, mode="bilinear", antialias=True)
    large = F.interpolate(images, size=side, mode="bicubic")
    return (large * _CONTRAST - (_CONTRAST - 1) / 2).clamp(0, 1) if side > 2 * images.shape[-1] else large.clamp(0, 1)


# -- drawing -----------------------------------------------------------------------------------------------------------


def _drawn(digits: Tensor, maps: dict[str, Tensor], digit: int, size: int) -> Tensor:
    """Digits (N, h, h) at their places on the canvas: (N, S, S)."""
    some = max(1, _PIXELS // size**2)
    inverse, moved = torch.linalg.inv(maps["matrix"]).float(), maps.get("moved")
    drawn = []
    for first in range(0, len(digits), some):
        part = slice(first, first + some)
        at = undone(inverse[part], size)
        if moved is not None:
            at = unbent(at, moved[part])
        # The digit's square is the middle of the upright picture.
        at = at * (size / digit)
        drawn.append(F.grid_sample(digits[part, None], at, align_corners=False)[:, 0])
    return torch.cat(drawn).clamp_(0, 1)


def _add_fragments(images: Tensor, sources: Tensor, chosen: Tensor, digit: int, knobs: dict,
                   rng: torch.Generator) -> None:
    """Add pieces of other digits to pictures (N, S, S), in place; where things overlap, brightness ends at 1."""
    many, side, size = knobs["clutter"], knobs["fragment"], knobs["size"]
    if not many:
        return
    count, total = len(images), len(sources)
    # From 1 to the last but one further on: never the digit itself, if there is another.
    other = (chosen[:, None] + torch.randint(1, max(total, 2), (count, many), generator=rng)) % total
    cut, put = (torch.randint(room + 1, (2, count, many, 1, 1), generator=rng) for room in (digit - side, size - side))
    down, right = torch.arange(side)[:, None], torch.arange(side)
    pieces = _resized(sources, digit)[:, 0][other[..., None, None], cut[0] + down, cut[1] + right]
    each = torch.arange(count)[:, None, None, None]
    at = (each * size + put[0] + down) * size + put[1] + right
    images.view(-1).scatter_add_(0, at.flatten(), pieces.flatten())
    images.clamp_(max=1)


def _boxes(mask: Tensor) -> Tensor:
    """The smallest box around what is true in each of the masks (N, S, S): (N, 4)."""
    sides, size = [], mask.shape[-1]
    for other in (1, 2):  # columns, then rows
        there = mask.any(other).byte()
        sides.append((there.argmax(1), size - there.flip(1).argmax(1)))
    (left, right), (top, bottom) = sides
    return (torch.stack([left, top, right, bottom], 1) * mask.flatten(1).any(1, keepdim=True)).float()
