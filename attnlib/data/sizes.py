"""The planted size task: one stroke in noise, small in one picture and large in another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attnlib.data.cue import STROKES
from attnlib.data.pictures import Pictures, check_count

# Against the horizontal, rows counted downwards.
_ANGLES = torch.tensor([0.0, 90.0, 45.0, -45.0]).deg2rad()
# Bars are three times as long as wide.
_SLIM = 3


def size_task(count: int, size: int = 24, *, lengths: Sequence[float] = (3, 5, 7, 9, 11), copies: int = 1,
              noise: float = 0.5, seed: int = 0) -> Pictures:
    """A bar in one of four directions, of one of several sizes, in noise; the label is the direction.

    A bar of length l is l/3 wide. Which length a picture gets is drawn at random, apart from everything else: with the
    same seed and another `lengths`, pictures have the same directions, places and noise, and differ in size alone.

    Args:
        count: number of pictures N.
        size: height and width in pixels, at least twice the greatest length.
        lengths: of the bars, in pixels, 3 or more each.
        copies: 1, near the middle; or 4 bars of one direction and length, one in each quarter, which have four times
            the area of one, as one of twice the length has.
        noise: standard deviation of the Gaussian noise added to every pixel. Bars have brightness 1 on 0.
        seed: the same seed gives the same pictures.

    Returns:
        Pictures with images (N, 1, size, size), labels 0–3, and in `truth`: ``length`` (N,) in pixels, and ``mask``
        (N, size, size) where the bars are. The ceiling is the share that can be told by somebody who knows the places
        and the length and compares the four pictures there could be without noise; nobody can do better on average.

    Raises:
        ValueError: no picture, no or too small lengths, or a picture too small for them; or other copies than 1 and 4.
    """
    check_count("size_task", count)
    if not lengths or min(lengths) < 3:
        raise ValueError(f"size_task needs lengths of 3 pixels or more, not {tuple(lengths)}")
    if size < 2 * max(lengths):
        raise ValueError(f"bars of {max(lengths):g} pixels need pictures of {2 * max(lengths):g} or more, not {size}")
    if copies not in (1, 4):
        raise ValueError(f"size_task draws 1 bar or 4, not {copies}")
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=rng)
    shift = (2 * torch.rand(count, 4, 2, generator=rng) - 1) * size / 8
    grain = noise * torch.randn(count, size, size, generator=rng)
    length = torch.tensor(lengths, dtype=torch.float32)[torch.randint(len(lengths), (count,), generator=rng)]

    middle = (size - 1) / 2
    if copies == 1:
        centres = middle + shift[:, :1]
    else:
        corners = torch.tensor([(row, column) for row in (-1, 1) for column in (-1, 1)]) * size / 4
        centres = middle + corners + shift / 4
    possible = torch.stack([_bars(centres, length, angle, size) for angle in _ANGLES], 1)  # (N, 4, size, size)
    clean = possible[torch.arange(count), labels]
    images = clean + grain
    nearest = (images[:, None] - possible).square().sum((2, 3)).argmin(1)
    return Pictures(
        images=images[:, None],
        labels=labels,
        classes=STROKES,
        truth={"length": length, "mask": clean > 0.5},
        name="planted sizes",
        ceilings={"told where and how large": float((nearest == labels).float().mean())},
        source="procedural",
    )


def _bars(centres: Tensor, length: Tensor, angle: Tensor, size: int) -> Tensor:
    """Bars at `centres` (N, copies, 2), each `length` (N,) long, in one direction, with soft edges: (N, size, size)."""
    pixels = torch.arange(size, dtype=torch.float32)
    down = pixels[:, None] - centres[..., :1, None]  # (N, copies, size, 1)
    right = pixels - centres[..., 1:, None]  # (N, copies, 1, size)
    along = right * math.cos(angle) + down * math.sin(angle)
    across = down * math.cos(angle) - right * math.sin(angle)
    half = length[:, None, None, None] / 2
    inside = (half - along.abs() + 0.5).clamp(0, 1) * (half / _SLIM - across.abs() + 0.5).clamp(0, 1)
    return inside.amax(1)
