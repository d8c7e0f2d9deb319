"""Spatial transformer: decide where to sample the picture, then sample it there."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.arguments import number, whole
from attnlib.attention import Attention, Description
from attnlib.registry import register
from attnlib.spatial.transforms import Transform, places
from attnlib.spatial.transforms import transform as family_called

PADDINGS = {"fill": "zeros", "border": "border", "reflection": "reflection"}
# Rows and columns that the default localisation network pools to, whatever the size of its input.
_POOLED = 4


@register("stn")
class SpatialTransformer(Attention):
    """Look at the whole picture, say with a few numbers how it lies, and sample it as if it lay otherwise.

    Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NIPS 2015, arXiv:1506.02025.

    A *localisation network* turns x into features; a linear layer turns these into the coefficients θ of a map from
    the places of the output to places of the input; bilinear interpolation reads the input there. The linear layer
    starts from W = 0 and the identity, as the paper's does, so that at first the output is the input.

    The weights are the coefficients. They are no shares of anything: neutral is the identity, and switched off the
    output is the input (resized, where `size` says so).

    Places run from −1 to 1 over the picture, edge to edge, and pixels lie half a pixel inside (``align_corners=False``
    throughout). The authors' text leaves this open; with ``align_corners=True`` −1 and 1 are the middles of the
    outermost pixels, which was PyTorch's only way before version 1.3. Mixing both shifts and scales every picture.

    What lies outside the picture is `fill`, which must be what the background is **when the transformer sees it**: 0
    for a dark ground in 0–1. If pictures are standardised before, their ground is no longer 0, zeros at the edge look
    like an object, and the network learns to avoid them or to show them. So standardise after the transformer, or give
    the standardised background as `fill`.

    Args:
        channels: C, channels of the input.
        transform: the family of maps: ``"affine"`` (6 coefficients), ``"crop"`` (scale and place, 3), ``"translation"``
            (2), ``"rotation"`` (1), ``"projective"`` (8), ``"thin_plate"`` (32), or a `Transform`.
        size: height and width of the output; those of the input by default.
        localisation: a network (B, C, H, W) → (B, F); by default `localisation_network`.
        features: F.
        padding: what is seen outside the picture: ``"fill"``, its nearest edge (``"border"``), or its mirror image
            (``"reflection"``).
        fill: the value outside with ``padding="fill"``.
        align_corners: as above.

    Shapes:
        x (B, C, H, W) → weights (B, n) → y (B, C, H, W), or with the height and width of `size`.

    Raises:
        ValueError: an unknown transform or padding, fewer than two features, or a size without pixels; when it runs, a
            localisation network that does not give (B, F).
    """

    about = Description(
        title="Spatial transformer",
        paper="Jaderberg, Simonyan, Zisserman, Kavukcuoglu. Spatial Transformer Networks. NIPS 2015. arXiv:1506.02025",
        cite="jaderberg2015stn",
        axes=("batch", "coefficient"),
        shape=("B", "n"),
        kind="transform",
        bounds=None,
        passes=3,  # x is read by the localisation network, read again by the sampler, and y is written
        place="last",
        looks="a small network gives the coefficients of a map",
        acts="sample the input where the map says",
    )

    def __init__(
        self,
        channels: int,
        transform: str | Transform = "affine",  # noqa: A002  the paper's word
        *,
        size: tuple[int, int] | int | None = None,
        localisation: nn.Module | None = None,
        features: int = 32,
        padding: Literal["fill", "border", "reflection"] = "fill",
        fill: float = 0.0,
        align_corners: bool = False,
    ) -> None:
        super().__init__(channels)
        if padding not in PADDINGS:
            raise ValueError(f"the padding is one of {', '.join(PADDINGS)}, not {padding!r}")
        whole("the number of features from the localisation network", features, 2)
        self.size = (size, size) if isinstance(size, int) else size
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"the output has a height and a width of at least one pixel, not {self.size}")
        self.transform = family_called(transform)
        self.padding, self.fill, self.align_corners = padding, float(number("fill", fill)), align_corners
        self.localisation = localisation_network(channels, features) if localisation is None else localisation
        self.coefficients = nn.Linear(features, self.transform.count)
        self.start_from_identity()

    def start_from_identity(self) -> None:
        """Let the last layer say "leave it as it is" to whatever picture."""
        nn.init.zeros_(self.coefficients.weight)
        self.coefficients.bias.data = self.coefficients.bias.new_tensor(self.transform.identity)

    def describe(self) -> Description:
        about = super().describe()
        return dataclasses.replace(about, shape=("B", self.transform.count), drop_in=self.size is None)

    def attend(self, x: Tensor) -> Tensor:
        seen = self.localisation(x)  # (B, F)
        _check_features(seen, x, self.coefficients.in_features)
        # Not in half precision, also where the rest is: its steps are a good part of a pixel.
        with torch.autocast(x.device.type, enabled=False):
            return self.coefficients(seen.to(self.coefficients.weight.dtype))  # (B, n)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        height, width = self.size or x.shape[2:]
        at = places(height, width, weights, align_corners=self.align_corners)
        with torch.autocast(x.device.type, enabled=False):
            grid = self.transform(weights, at).unflatten(1, (height, width))  # (B, H, W, 2)
        return sample(x, grid, padding=self.padding, fill=self.fill, align_corners=self.align_corners)

    def neutral(self, x: Tensor, weights: Tensor) -> Tensor:
        return weights.new_tensor(self.transform.identity).expand_as(weights)


def sample(
    x: Tensor, grid: Tensor, *, padding: str = "fill", fill: float = 0.0, align_corners: bool = False
) -> Tensor:
    """Read pictures by bilinear interpolation.

    Args:
        x: (B, C, H, W).
        grid: (B, h, w, 2), for each pixel of the output the x and y that it shows, −1 to 1 over the picture. It may
            be of a finer type than x; interpolation is then in the finer one.
        padding, fill, align_corners: as for `SpatialTransformer`.

    Returns:
        (B, C, h, w), of the type of x.
    """
    shifted = fill if padding == "fill" else 0.0  # torch knows no other value outside than 0
    values = x.to(grid.dtype) - shifted if shifted else x.to(grid.dtype)
    y = F.grid_sample(values, grid, mode="bilinear", padding_mode=PADDINGS[padding], align_corners=align_corners)
    return (y + shifted if shifted else y).to(x.dtype)


def localisation_network(channels: int, features: int = 32) -> nn.Sequential:
    """Two convolutions with stride 2, means over 4×4 parts of the picture, and one linear layer: (B, `features`)."""
    width = features // 2
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(_POOLED), nn.Flatten(),
        nn.Linear(width * _POOLED**2, features), nn.ReLU(),
    )


@torch.fx.wrap
def _check_features(seen: Tensor, x: Tensor, features: int) -> None:
    if seen.shape != (len(x), features):
        raise ValueError(f"the localisation network gives (B, {features}), not {tuple(seen.shape)}; set features=")
