"""Where to sample a picture: maps from the places of an output to places of the input, each with a few coefficients.

Places are x and y, from −1 at the left and upper edge of the picture to 1 at the right and lower one, whatever its
size: `places` gives those of the pixels. All maps go from the output to the input, so a scale of 0.5 *enlarges*: the
output shows the middle half.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from attnlib.arguments import positive


@torch.fx.wrap
def places(height: int, width: int, like: Tensor, *, align_corners: bool = False) -> Tensor:
    """Where the pixels of a picture are: (H·W, 2), x and y, row by row, in the type and on the device of `like`.

    Args:
        align_corners: whether −1 and 1 are the middles of the outermost pixels; by default they are their outer edges,
            and the same place stays the same when a picture is enlarged.
    """
    y, x = (_line(count, like, align_corners) for count in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).flatten(0, 1)


def _line(count: int, like: Tensor, align_corners: bool) -> Tensor:
    steps = torch.arange(count, dtype=like.dtype, device=like.device)
    if align_corners:  # a line of one pixel has it in the middle, as in torch.nn.functional.affine_grid
        return 2 * steps / (count - 1) - 1 if count > 1 else torch.zeros_like(steps)
    return (2 * steps + 1) / count - 1


class Transform(nn.Module):
    """A family of maps, one for each set of `count` coefficients.

    Attributes:
        names: of the coefficients, in their order.
        identity: the coefficients that leave every place where it is.
    """

    names: ClassVar[tuple[str, ...]]
    identity: ClassVar[tuple[float, ...]]

    @property
    def count(self) -> int:
        """How many coefficients a map has."""
        return len(self.identity)

    def forward(self, coefficients: Tensor, at: Tensor) -> Tensor:
        """Where in the input each place `at` (P, 2) of the output looks: (B, P, 2), for coefficients (B, count)."""
        raise NotImplementedError


class Affine(Transform):
    """All six: ``x' = a x + b y + c`` and ``y' = d x + e y + f``. Lines stay lines, parallels stay parallel."""

    names = ("a", "b", "c", "d", "e", "f")
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    def matrix(self, coefficients: Tensor) -> Tensor:
        """The map of each picture as a matrix (B, 2, 3), as `torch.nn.functional.affine_grid` takes it."""
        return coefficients.unflatten(1, (2, 3))

    def forward(self, coefficients: Tensor, at: Tensor) -> Tensor:
        matrix = self.matrix(coefficients)
        return at @ matrix[..., :2].mT + matrix[..., 2][:, None]


class Crop(Affine):
    """Scale and place: ``x' = s x + c`` and ``y' = s y + f``: an upright window, which the paper calls attention."""

    names = ("scale", "x", "y")
    identity = (1.0, 0.0, 0.0)

    def matrix(self, coefficients: Tensor) -> Tensor:
        scale, x, y = coefficients.unbind(1)
        nothing = torch.zeros_like(scale)
        return torch.stack([scale, nothing, x, nothing, scale, y], 1).unflatten(1, (2, 3))


class Translation(Affine):
    """Place alone: ``x' = x + c`` and ``y' = y + f``."""

    names = ("x", "y")
    identity = (0.0, 0.0)

    def matrix(self, coefficients: Tensor) -> Tensor:
        x, y = coefficients.unbind(1)
        nothing, one = torch.zeros_like(x), torch.ones_like(x)
        return torch.stack([one, nothing, x, nothing, one, y], 1).unflatten(1, (2, 3))


class Window(Translation):
    """A window of fixed size, and its place: ``x' = s x + c`` and ``y' = s y + f``. Given as an object, ``Window(0.5)``.

    The paper's networks for birds look through windows of half the picture. Where `Crop` starts from the whole picture
    and may stay there, this has to leave out most of it from the first step on, and so has a reason to find its place.
    Neutral is the window in the middle rather than the identity.

    Args:
        scale: s, the window's side as a share of the picture's, above 0.
    """

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = float(positive("a window's scale", scale))

    def matrix(self, coefficients: Tensor) -> Tensor:
        unscaled = super().matrix(coefficients)
        return torch.cat([unscaled[..., :2] * self.scale, unscaled[..., 2:]], 2)


class Rotation(Affine):
    """One angle in radians: ``x' = cos φ x − sin φ y`` and ``y' = sin φ x + cos φ y``. Right angles stay right angles
    only in a square picture, as both sides span −1 to 1."""

    names = ("angle",)
    identity = (0.0,)

    def matrix(self, coefficients: Tensor) -> Tensor:
        cos, sin, nothing = coefficients.cos(), coefficients.sin(), torch.zeros_like(coefficients)
        return torch.cat([cos, -sin, nothing, sin, cos, nothing], 1).unflatten(1, (2, 3))


class Projective(Transform):
    """Eight, a plane seen from elsewhere: ``x' = (a x + b y + c) / (g x + h y + 1)``, and y' likewise with d, e, f."""

    names = (*Affine.names, "g", "h")
    identity = (*Affine.identity, 0.0, 0.0)
    # Beyond the horizon, where the denominator reaches 0, nothing can be seen; the map stops short of it.
    nearest: ClassVar[float] = 1e-3

    def forward(self, coefficients: Tensor, at: Tensor) -> Tensor:
        matrix = torch.cat([coefficients, torch.ones_like(coefficients[:, :1])], 1).unflatten(1, (3, 3))
        mapped = at @ matrix[..., :2].mT + matrix[..., 2][:, None]
        return mapped[..., :2] / mapped[..., 2:].clamp(min=self.nearest)


class ThinPlate(Transform):
    """The smoothest map that moves each point of a grid by what is given: by how much in x and in y, row by row.

    Bookstein, "Principal Warps: Thin-Plate Splines and the Decomposition of Deformations", IEEE PAMI 11(6), 1989. The
    points are a grid of `side` × `side` from −1 to 1. Linear in the coefficients: with U(r) = r² log r²,
    ``place' = place + A place + t + sum over points p of w_p U(distance to p)``, where A, t and w solve a system that
    depends on the grid alone, and is solved once. The coefficients are movements rather than places, so that the
    identity is all zeros, exact in any type.

    Args:
        side: points in a row and in a column, from 2 up. The paper on spatial transformers has 4.
    """

    def __init__(self, side: int = 4) -> None:
        super().__init__()
        if not isinstance(side, int) or side < 2:
            raise ValueError(f"a thin plate has 2 or more points in a row, not {side!r}")
        self.side = side
        points = _points(side)
        self.names = tuple(f"{axis}{n}" for n in range(1, side * side + 1) for axis in "xy")
        self.identity = (0.0,) * points.numel()
        self.register_buffer("points", points.float(), persistent=False)
        self.register_buffer("solved", _solved(points).float(), persistent=False)

    def forward(self, coefficients: Tensor, at: Tensor) -> Tensor:
        basis = torch.cat([_bent(at, self.points), torch.ones_like(at[:, :1]), at], 1)
        return at + (basis @ self.solved) @ coefficients.unflatten(1, (-1, 2))

    def _apply(self, fn, recurse=True):
        # What was rounded to float32 would stay so in float64; so it is computed anew for the type that is asked for.
        super()._apply(fn, recurse)
        exact = _points(self.side)
        self.points, self.solved = exact.to(self.points), _solved(exact).to(self.solved)
        return self


def _points(side: int) -> Tensor:
    line = torch.linspace(-1, 1, side, dtype=torch.float64)
    return torch.cartesian_prod(line, line).flip(1)  # row by row, x before y


def _bent(at: Tensor, points: Tensor) -> Tensor:
    """U(r) = r² log r² of the distances between places (P, 2) and points (K, 2): (P, K), 0 where they meet."""
    squared = (at[:, None] - points).square().sum(-1)
    return torch.special.xlogy(squared, squared)


def _solved(points: Tensor) -> Tensor:
    """What turns the places of K points into the coefficients w, t and A: (K + 3, K) float64."""
    count = len(points)
    flat = torch.cat([torch.ones_like(points[:, :1]), points], 1)
    system = torch.zeros(count + 3, count + 3, dtype=points.dtype)
    system[:count, :count], system[:count, count:], system[count:, :count] = _bent(points, points), flat, flat.mT
    return torch.linalg.inv(system)[:, :count]


TRANSFORMS: dict[str, type[Transform]] = {
    "affine": Affine, "crop": Crop, "translation": Translation, "rotation": Rotation, "projective": Projective,
    "thin_plate": ThinPlate,
}


def transform(name: str | Transform) -> Transform:
    """A family of maps by its name in `TRANSFORMS`, or one that is given.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(name, Transform):
        return name
    if name not in TRANSFORMS:
        raise ValueError(f"a transform is one of {', '.join(TRANSFORMS)}, not {name!r}")
    return TRANSFORMS[name]()


def left_over(predicted: Tensor, truth: Tensor) -> Tensor:
    """What a transformer leaves of a deformation: where its output looks in the picture that was never deformed.

    It is ``truth⁻¹ ∘ predicted``. A transformer is free to choose the pose that it brings all pictures to, so there is
    no one right map. But if it undoes the deformation, what is left is the same for all pictures.

    Args:
        predicted: coefficients of affine maps (N, 6), each from its output to the deformed picture.
        truth: (N, 6), of those that deformed, from the upright picture to the deformed one.

    Returns:
        (N, 6), of the type of `predicted`.

    Raises:
        ValueError: other shapes.
    """
    if predicted.shape != truth.shape or predicted.dim() != 2 or predicted.shape[1] != 6:
        raise ValueError(f"both are affine maps (N, 6), not {tuple(predicted.shape)} and {tuple(truth.shape)}")
    return (torch.linalg.inv(_square(truth)) @ _square(predicted))[:, :2].flatten(1).to(predicted.dtype)


def _square(affine: Tensor) -> Tensor:
    """Affine maps (N, 6) as matrices (N, 3, 3), in float64."""
    last = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, device=affine.device).expand(len(affine), 1, 3)
    return torch.cat([affine.double().unflatten(1, (2, 3)), last], 1)


def pose(affine: Tensor) -> dict[str, Tensor]:
    """What affine maps (N, 6) do, in words: each (N,).

    Returns:
        ``angle`` in radians, that of the nearest rotation, clockwise on the screen; ``scale``, the side of what a unit
        square becomes, if it were a square; ``x`` and ``y``, where the middle goes.
    """
    a, b, x, d, e, y = affine.unbind(1)
    return {"angle": torch.atan2(d - b, a + e), "scale": (a * e - b * d).abs().sqrt(), "x": x, "y": y}
