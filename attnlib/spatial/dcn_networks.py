"""The three networks that a dynamic capacity network has unless it is given others: coarse, fine, and top."""

from __future__ import annotations

from torch import Tensor, nn


def coarse_network(channels: int) -> nn.Sequential:
    """Two convolutions with stride 2, each position of which sees 11×11 pixels: (B, 24, ⌈H/4⌉, ⌈W/4⌉)."""
    return nn.Sequential(
        nn.Conv2d(channels, 12, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
    )


def fine_network(channels: int) -> nn.Sequential:
    """Five convolutions from patches of 11×11 pixels to one vector: (n, 24, 1, 1)."""
    layers: list[nn.Module] = []
    for inputs in (channels, 24, 24, 24, 24):
        layers += [nn.Conv2d(inputs, 24, 3, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    return nn.Sequential(*layers)


def top_network(classes: int) -> nn.Sequential:
    """One convolution with stride 2, the maximum over positions, one linear layer: (B, classes)."""
    return nn.Sequential(nn.Conv2d(24, 96, 4, stride=2, padding=2), Maximum(), nn.ReLU(), nn.Linear(96, classes))


class Maximum(nn.Module):
    """Over all positions: (B, C, H, W) → (B, C). Equal positions share the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))
