"""Where warped pictures lie: maps from the upright picture to the canvas, and back.

Places are x and y, from −1 at the left and upper edge to 1 at the right and lower one.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

_NEAREST = 1e-3  # beyond the horizon of a projective map nothing can be seen
# Corners move by no more than this (a side is 2), so that the four stay a convex shape; a thin plate is nowhere steeper
# than this, so that it does not fold and can be undone step by step.
_CORNER, _STEEPEST, _STEPS = 0.45, 0.8, 12
# Samples along each side of a thin plate, and of what undoes it.
_PLATE, _UNDONE = 33, 17

_LAST_ROW = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
_CORNERS = torch.tensor([(-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)], dtype=torch.float64)
_POINTS = torch.tensor([(x, y) for y in (-1, -1 / 3, 1 / 3, 1) for x in (-1, -1 / 3, 1 / 3, 1)], dtype=torch.float64)


def drawn_maps(count: int, knobs: dict, share: float, rng: torch.Generator) -> dict[str, Tensor]:
    """Everything random about where the digits lie. All is drawn whether it is needed or not, so that digits, angles,
    places and movements are the same under every warp."""
    turn, size, *aside = torch.rand(4, count, generator=rng, dtype=torch.float64)
    corners = torch.randn(count, 4, 2, generator=rng, dtype=torch.float64)
    points = torch.randn(count, 16, 2, generator=rng, dtype=torch.float64)
    angle = math.radians(knobs["rotation"]) * (2 * turn - 1)
    low, high = knobs["scale"]
    scale = low + (high - low) * size
    cos, sin = angle.cos(), angle.sin()
    room = (1 - share * scale * (cos.abs() + sin.abs())).clamp(min=0)
    centre = knobs["shift"] * room[:, None] * (2 * torch.stack(aside, 1) - 1)

    turned = scale[:, None, None] * torch.stack([cos, -sin, sin, cos], 1).unflatten(1, (2, 2))
    placed = torch.cat([torch.cat([turned, centre[:, :, None]], 2), _LAST_ROW.expand(count, 1, 3)], 1)  # (N, 3, 3)
    found = {"angle": angle.float(), "scale": scale.float(), "centre": centre.float()}
    if knobs["elastic"]:
        moved = _unfolded(2 * knobs["elastic"] * points)
        # A thin plate is linear in its points and exact for lines: where the points come to rest says all.
        rest = (_POINTS + moved) @ turned.mT + centre[:, None]
        return found | {"map": (rest - _POINTS).flatten(1).float(), "matrix": placed, "moved": moved.float()}
    if knobs["projective"]:
        matrix = placed @ _homography((2 * knobs["projective"] * corners).clamp(-_CORNER, _CORNER))
        matrix = matrix / matrix[:, 2:, 2:]
        return found | {"map": matrix.flatten(1)[:, :8].float(), "matrix": matrix}
    return found | {"map": placed[:, :2].flatten(1).float(), "matrix": placed}


def _homography(moved: Tensor) -> Tensor:
    """The projective maps that move the four corners by `moved` (N, 4, 2): (N, 3, 3)."""
    count, at = len(moved), torch.cat([_CORNERS, torch.ones(4, 1, dtype=torch.float64)], 1)
    goal, nothing = _CORNERS + moved, torch.zeros_like(at)
    # Each corner gives two linear equations: a x + b y + c = (g x + h y + 1) x', and likewise for y'.
    left = torch.stack([torch.cat([at, nothing], 1), torch.cat([nothing, at], 1)], 1).expand(count, -1, -1, -1)
    right = -goal[..., None] * _CORNERS[:, None]
    solved = torch.linalg.solve(torch.cat([left, right], -1).flatten(1, 2), goal.flatten(1))
    return torch.cat([solved, torch.ones_like(solved[:, :1])], 1).unflatten(1, (3, 3))


@functools.cache
def _plate(side: int) -> Tensor:
    """What the movement of each of the 16 points adds to that of each place of a grid: (side·side, 16)."""
    at = _grid(torch.linspace(-1, 1, side, dtype=torch.float64)).flatten(0, 1)
    zeros, ones = torch.zeros(3, 3, dtype=torch.float64), torch.ones(16, 1, dtype=torch.float64)
    flat = torch.cat([ones, _POINTS], 1)
    system = torch.cat([torch.cat([_bent(_POINTS), flat], 1), torch.cat([flat.mT, zeros], 1)])
    solved = torch.linalg.inv(system)[:, :16]
    return torch.cat([_bent(at), torch.ones_like(at[:, :1]), at], 1) @ solved


def _bent(at: Tensor) -> Tensor:
    """r² log r² of the distances r between places (P, 2) and the 16 points: (P, 16)."""
    squared = (at[:, None] - _POINTS).square().sum(-1)
    return torch.special.xlogy(squared, squared)


def _unfolded(moved: Tensor) -> Tensor:
    """Movements of the points (N, 16, 2), shrunk where the plate would be too steep to be undone."""
    field = _field(moved.float(), _UNDONE)
    across, down = field.diff(dim=3)[:, :, :-1], field.diff(dim=2)[:, :, :, :-1]
    # The greatest stretch of a 2×2 derivative follows from the sum of its squares and its determinant.
    squares = (across.square() + down.square()).sum(1)
    determinant = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    stretch = (squares + (squares.square() - 4 * determinant.square()).clamp(min=0).sqrt()) / 2
    steepest = stretch.amax((1, 2)).sqrt() * (_UNDONE - 1) / 2
    return moved * (_STEEPEST / steepest).clamp(max=1)[:, None, None]


def _field(moved: Tensor, side: int) -> Tensor:
    """How far a thin plate moves each place of a grid, in x and y: (N, 2, side, side)."""
    return (moved.mT @ _plate(side).to(moved.dtype).mT).unflatten(2, (side, side))


def _grid(line: Tensor) -> Tensor:
    """x and y of the places of a grid with such lines, row by row: (n, n, 2)."""
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)


def undone(inverse: Tensor, size: int) -> Tensor:
    """Where each pixel of the canvas is in the upright picture: (N, S, S, 2)."""
    at = _grid((2 * torch.arange(size) + 1) / size - 1).flatten(0, 1)
    seen = torch.cat([at, torch.ones_like(at[:, :1])], 1) @ inverse.mT
    depth = seen[..., 2:]
    at = torch.where(depth > _NEAREST, seen[..., :2] / depth.clamp(min=_NEAREST), 1e3)
    return at.unflatten(1, (size, size))


def unbent(goal: Tensor, moved: Tensor) -> Tensor:
    """The places that thin plates move to `goal` (N, S, S, 2), found for few places and interpolated between them."""
    field, few = _field(moved, _PLATE), _grid(torch.linspace(-1, 1, _UNDONE)).expand(len(moved), -1, -1, -1)
    at = few
    for _ in range(_STEPS):  # each leaves no more than 0.8 of the error
        at = few - _read(field, at, "bilinear")
    return goal + _read((at - few).permute(0, 3, 1, 2), goal, "bicubic")


def _read(field: Tensor, at: Tensor, mode: str) -> Tensor:
    """Vectors of a field (N, 2, n, n), whose outermost samples lie on the canvas's edges, at places (N, S, S, 2)."""
    return F.grid_sample(field, at, mode, padding_mode="border", align_corners=True).permute(0, 2, 3, 1)
