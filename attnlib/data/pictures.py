"""The one form in which data travels through the package."""

from __future__ import annotations

import dataclasses

from torch import Tensor


def check_count(maker: str, count: int) -> None:
    """What every maker of pictures asks of their number; the error names the maker."""
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"{maker} makes at least one picture, not {count!r}")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures with labels, and whatever else is known about them.

    Attributes:
        images: (N, C, H, W) float32, in 0–1 unless the maker says otherwise.
        labels: (N,) int64, class indices; or another target with N first.
        classes: the names of the classes, in the order of the indices.
        truth: what is known by construction, each with N first: masks, boxes, cue positions …
        name: what to call the set in a table.
        ceilings: the accuracy that a stated kind of model cannot exceed on it, in 0–1, by that kind's name.
        source: who made the data, and under which licence.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()
    truth: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    name: str = ""
    ceilings: dict[str, float] = dataclasses.field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if self.images.dim() != 4:
            raise ValueError(f"pictures are (N, C, H, W), not {tuple(self.images.shape)}")
        for what, tensor in {"labels": self.labels, **self.truth}.items():
            if len(tensor) != len(self.images):
                raise ValueError(f"{len(self.images)} pictures, but {len(tensor)} {what}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> Pictures:
        """A part of the set: a slice, a mask, or a tensor of indices."""
        if isinstance(index, int):
            index = slice(index, index + 1) if index != -1 else slice(-1, None)
        truth = {what: tensor[index] for what, tensor in self.truth.items()}
        return dataclasses.replace(self, images=self.images[index], labels=self.labels[index], truth=truth)

    def to(self, device) -> Pictures:
        truth = {what: tensor.to(device) for what, tensor in self.truth.items()}
        return dataclasses.replace(self, images=self.images.to(device), labels=self.labels.to(device), truth=truth)
