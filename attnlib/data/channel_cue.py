"""The channel cue task: many channels, of which one says which of two others counts, so many channels away."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.data.cue import ADDITIVE, BLIND, STROKES, _placed, _stroke_kernels
from attnlib.data.pictures import Pictures, check_count

CUE_ROWS, STROKE_ROWS, SMALLEST = 3, 4, 10


def channel_cue_task(count: int, distance: int = 1, *, channels: int = 16, size: int = 10, noise: float = 0.2,
                     level: float = 3.0, seed: int = 0) -> Pictures:
    """Two strokes and a cue in three of many channels; the cue is `distance` channels from either stroke.

    The middle channel, number ``channels // 2``, is bright or dark in its first three rows: `level` or minus `level`.
    The channels that far below and above it hold a 3×3 stroke each, in one of four directions, in their last four
    rows. Where the cue is bright, the label is the direction of the lower channel's stroke; where it is dark, of the
    upper one's. All other channels are 0. The distance moves channels and changes nothing else: for the same seed,
    tasks of two distances hold the same pictures with their channels in another order.

    No unit that sees ``size - 7`` rows or fewer sees cue and strokes, and two strokes that disagree cannot be told
    apart by adding: the ceilings are those of `attnlib.data.cue_task`. They hold too for a gate that does not see the
    cue channel's mean from a stroke's channel.

    Args:
        count: number of pictures N.
        distance: channels from the cue to a stroke, from 1 to ``(channels - 1) // 2``.
        channels: how many there are, C, at least 3.
        size: height and width in pixels, at least 10.
        noise: standard deviation of the Gaussian noise added to the pixels of the strokes' channels.
        level: of the cue; 0 removes it.
        seed: the same seed gives the same pictures.

    Returns:
        Pictures with images (N, C, size, size), not limited to 0–1, labels 0–3, and in `truth`: ``cue`` (N,) 1 where
        the lower channel counts, ``lower`` and ``upper`` (N,) the directions of the strokes, ``where`` (N, 3) the
        numbers of the lower, the cue's and the upper channel, from 0.

    Raises:
        ValueError: fewer than one picture, a size below 10, or a distance for which there are too few channels.
    """
    check_count("channel_cue_task", count)
    if size < SMALLEST:
        raise ValueError(f"channel_cue_task needs at least {SMALLEST} pixels to keep cue and strokes apart, not {size}")
    if not 1 <= distance <= (channels - 1) // 2:
        raise ValueError(f"{channels} channels have room for a distance from 1 to {(channels - 1) // 2}, not {distance}")
    rng = torch.Generator().manual_seed(seed)
    strokes = torch.randint(4, (2, count), generator=rng)
    is_lower = torch.randint(2, (count,), generator=rng).bool()
    kernels = _stroke_kernels()
    low = size - STROKE_ROWS, size
    lower, upper = (
        _placed(kernels[which], size, low, rng) + noise * torch.randn(count, size, size, generator=rng)
        for which in strokes
    )
    cue = torch.zeros(count, size, size)
    cue[:, :CUE_ROWS] = level * (2.0 * is_lower - 1)[:, None, None]
    where = torch.tensor([channels // 2 - distance, channels // 2, channels // 2 + distance])
    images = torch.zeros(count, channels, size, size)
    images[:, where] = torch.stack([lower, cue, upper], dim=1)
    return Pictures(
        images=images,
        labels=torch.where(is_lower, *strokes),
        classes=STROKES,
        truth={"cue": is_lower.long(), "lower": strokes[0], "upper": strokes[1], "where": where.repeat(count, 1)},
        name=f"planted channel cue, {distance} away",
        ceilings={"blind to the cue": BLIND, "can add the cue, cannot gate by it": ADDITIVE},
        source="procedural",
    )
