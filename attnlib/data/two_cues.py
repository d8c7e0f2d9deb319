"""The planted task of two cues: one bright pixel, or many weak ones, decide which of two strokes counts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from attnlib.data.cue import ADDITIVE, BLIND, STROKES, _stroke_kernels
from attnlib.data.pictures import Pictures, check_count

KINDS = ("sparse", "textured", "either")
# Rows of the band at the top, where the cue is, and of the ground at the bottom, where the strokes are.
_BAND, _GROUND = 4, 4
# Who takes one of the two kinds for no cue errs in a quarter of the pictures, and there where the strokes disagree.
ONE_KIND = 1 - 1 / 4 * 3 / 4


def two_cues(
    count: int, kind: Literal["sparse", "textured", "either"] = "either", size: int = 16, *, noise: float = 0.1,
    bright: float = 2.0, weak: float = 0.2, seed: int = 0,
) -> Pictures:
    """Red and green strokes, and blue light that says which of the two colours counts.

    Every picture holds one red and one green 3×3 stroke in its last four rows, one of them in the left half and one in
    the right, each in one of four directions. Above, in the first four rows, is a blue band of brightness 1/2. Where
    the band holds the cue, the label is the direction of the red stroke; where it does not, of the green one. The cue
    is *sparse*: one pixel of the band is brighter by `bright`, which changes the band's maximum and hardly its mean; or
    *textured*: all of the band is brighter by `weak`, which changes its mean. Every band also holds, with a cue or
    without, a 3×3 block of brightness 1 in one half and one of brightness 0 in the other: they are what is brightest
    and darkest in a textured band, so that the extremes of the blue light do not tell that cue.

    No unit that sees ``size - 7`` rows or fewer sees pixels of the band and of a stroke.

    Args:
        count: number of pictures N.
        kind: ``"sparse"``, ``"textured"``, or ``"either"``: a picture with a cue has one of the two, at random.
        size: height and width in pixels, at least 14.
        noise: standard deviation of the Gaussian noise added to every pixel.
        bright: what a sparse cue adds to one pixel.
        weak: what a textured cue adds to the pixels outside the blocks; below 1/2, or the bright block is none.
        seed: the same seed gives the same pictures.

    Returns:
        Pictures with images (N, 3, size, size), in blue reaching up to 1/2 + `bright`, labels 0–3, and in `truth`:
        ``cue`` (N,) 0 for none, 1 for sparse, 2 for textured; ``red`` and ``green`` (N,) the directions of the strokes;
        ``boxes`` (N, 2, 4) of the red and of the green stroke, left, top, right, bottom in pixels; ``box`` (N, 4) of
        the one that counts.

    Raises:
        ValueError: fewer than one picture, a size below 14, or another kind.
    """
    check_count("two_cues", count)
    if kind not in KINDS:
        raise ValueError(f"the kind of cue is one of {', '.join(KINDS)}, not {kind!r}")
    if size < 14:
        raise ValueError(f"two_cues needs at least 14 pixels to keep the cue away from the strokes, not {size}")
    rng = torch.Generator().manual_seed(seed)
    red, green = torch.randint(4, (2, count), generator=rng)
    is_red = torch.randint(2, (count,), generator=rng).bool()
    which = torch.randint(1, 3, (count,), generator=rng) if kind == "either" else KINDS.index(kind) + 1
    cue = torch.where(is_red, which, 0)

    boxes = _boxes(count, size, size - _GROUND, rng)
    clean = torch.zeros(count, 3, size, size)
    for channel, direction in enumerate((red, green)):
        _write(clean[:, channel], _stroke_kernels()[direction], boxes[:, channel])
    clean[:, 2, :_BAND] = _band(cue, size, bright, weak, rng)
    return Pictures(
        images=clean + noise * torch.randn(clean.shape, generator=rng),
        labels=torch.where(is_red, red, green),
        classes=STROKES,
        truth={
            "cue": cue, "red": red, "green": green, "boxes": boxes.float(),
            "box": torch.where(is_red[:, None], boxes[:, 0], boxes[:, 1]).float(),
        },
        name=f"two cues, {kind}",
        ceilings={"blind to the cue": BLIND, "can add the cue, cannot gate by it": ADDITIVE}
        | ({"sees one of the two kinds": ONE_KIND} if kind == "either" else {}),
        source="procedural",
    )


def _band(cue: Tensor, size: int, bright: float, weak: float, rng: torch.Generator) -> Tensor:
    """The blue light of the first rows, (N, rows, size)."""
    count = len(cue)
    light = 0.5 + weak * (cue == 2)[:, None, None] * torch.ones(_BAND, size)
    boxes = _boxes(count, size, 0, rng)
    for block, value in enumerate((1.0, 0.0)):
        _write(light, torch.full((3, 3), value), boxes[:, block])
    place = torch.randint(_BAND * size, (count, 1), generator=rng)
    # Set rather than added, so that the cue is as bright inside a block as outside.
    flat = light.view(count, -1)
    flat.scatter_(1, place, torch.where((cue == 1)[:, None], 0.5 + bright, flat.gather(1, place)))
    return light


def _boxes(count: int, size: int, first: int, rng: torch.Generator) -> Tensor:
    """Places for two 3×3 patches in the four rows from `first`, one in either half of the picture: (N, 2, 4)."""
    half = size // 2
    left = torch.randint(half - 2, (count, 2), generator=rng)
    right = torch.randint(2, (count, 1), generator=rng)
    left += half * torch.cat([right, 1 - right], 1)
    top = torch.randint(first, first + 2, (count, 2), generator=rng)
    return torch.stack([left, top, left + 3, top + 3], -1)


def _write(canvas: Tensor, patches: Tensor, boxes: Tensor) -> None:
    """Write (3, 3) or (N, 3, 3) patches into (N, H, W), with their upper left corners at those of the boxes."""
    here, steps = torch.arange(len(canvas))[:, None, None], torch.arange(3)
    canvas[here, boxes[:, 1, None, None] + steps[:, None], boxes[:, 0, None, None] + steps] = patches
