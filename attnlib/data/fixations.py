"""The form in which eye movements travel through the package: who fixated which place of which picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Fixations:
    """All fixations of all observers on N pictures of one size, one after the other, in the order they were made.

    Places are measured in pixels from the picture's left and upper edge: the pixel in column j and row i covers
    j ≤ x < j + 1 and i ≤ y < i + 1. Pictures and observers without any fixation are allowed.

    Attributes:
        x, y: (F,) floating point.
        picture: (F,) int64, from 0 to N − 1.
        observer: (F,) int64, from 0 to K − 1; the same observer has the same number on every picture.
        size: height and width of the pictures in pixels.
        pictures: N.
        observers: K.
        duration: (F,) in milliseconds, or None where it is not known.

    Raises:
        ValueError: lengths that differ, numbers of pictures or observers out of range, a place that is not finite, or
            one outside the picture: `Fixations.of` drops those, if asked to.
    """

    x: Tensor
    y: Tensor
    picture: Tensor
    observer: Tensor
    size: tuple[int, int]
    pictures: int
    observers: int
    duration: Tensor | None = None

    def __post_init__(self) -> None:
        columns = [self.x, self.y, self.picture, self.observer, *([] if self.duration is None else [self.duration])]
        if any(column.shape != (len(self.x),) for column in columns):
            raise ValueError(f"every fixation has one of each, but there are {[tuple(one.shape) for one in columns]}")
        if min(self.size) < 1 or self.pictures < 1 or self.observers < 1:
            raise ValueError(f"fixations need pictures of at least 1×1 pixel, one picture and one observer, not "
                             f"{self.size[0]}×{self.size[1]}, {self.pictures} and {self.observers}")
        for what, numbers, count in (("picture", self.picture, self.pictures),
                                     ("observer", self.observer, self.observers)):
            if numbers.is_floating_point() or ((numbers < 0) | (numbers >= count)).any():
                raise ValueError(f"the {what} of a fixation is a whole number from 0 to {count - 1}")
        outside = int((~_inside(self.x, self.y, self.size)).sum())
        if outside:
            raise ValueError(f"{outside} of {len(self.x)} fixations lie outside the picture of {self.size[0]}×"
                             f"{self.size[1]} pixels; Fixations.of(..., outside='drop') leaves them out")

    @classmethod
    def of(cls, scanpaths: Sequence[Sequence[Iterable]], size: tuple[int, int], *, outside: str = "error") -> Fixations:
        """Fixations from nested lists: of pictures, of observers, of places (x, y).

        >>> Fixations.of([[[(10.2, 3.0), (4.5, 7.9)], []]], size=(8, 12))   # the second observer saw nothing

        Args:
            scanpaths: for every picture, for every observer, that observer's places in order; a list or an (n, 2)
                tensor or array.
            size: height and width of the pictures in pixels.
            outside: ``"error"`` refuses a place outside its picture, or one that is not finite; ``"drop"`` leaves it
                out, as is usual: an eye tracker records glances at the rest of the screen, too.

        Raises:
            ValueError: pictures with different numbers of observers, another word for `outside`, or see `Fixations`.
        """
        if outside not in ("error", "drop"):
            raise ValueError(f"outside is 'error' or 'drop', not {outside!r}")
        if len({len(picture) for picture in scanpaths}) != 1:
            raise ValueError("every picture needs an entry for every observer; an observer who saw nothing has []")
        places, pictures, observers = [], [], []
        for n, picture in enumerate(scanpaths):
            for k, path in enumerate(picture):
                path = torch.as_tensor(path, dtype=torch.float64).reshape(-1, 2)
                places.append(path)
                pictures.append(torch.full((len(path),), n))
                observers.append(torch.full((len(path),), k))
        x, y = torch.cat(places).T
        picture, observer = torch.cat(pictures), torch.cat(observers)
        if outside == "drop":
            x, y, picture, observer = (one[_inside(x, y, size)] for one in (x, y, picture, observer))
        return cls(x, y, picture, observer, tuple(size), len(scanpaths), len(scanpaths[0]))

    def __len__(self) -> int:
        return len(self.x)

    def where(self, chosen: Tensor) -> Fixations:
        """Those fixations for which `chosen` (F,) is true; pictures and observers keep their numbers."""
        duration = None if self.duration is None else self.duration[chosen]
        return dataclasses.replace(self, x=self.x[chosen], y=self.y[chosen], picture=self.picture[chosen],
                                   observer=self.observer[chosen], duration=duration)

    def by(self, *observers: int) -> Fixations:
        """The fixations that these observers made."""
        return self.where(torch.isin(self.observer, torch.tensor(observers, device=self.observer.device)))

    def on(self, pictures: Sequence[int] | Tensor) -> Fixations:
        """The fixations on these pictures, which are numbered anew in this order.

        Raises:
            ValueError: none, one that is not there, or one twice.
        """
        pictures = torch.as_tensor(pictures, device=self.picture.device)
        known = set(range(self.pictures))
        if not len(pictures) or not set(pictures.tolist()) <= known or len(set(pictures.tolist())) < len(pictures):
            raise ValueError(f"choose one or more different pictures from 0 to {self.pictures - 1}")
        number = torch.full((self.pictures,), -1, device=self.picture.device)
        number[pictures] = torch.arange(len(pictures), device=number.device)
        kept = self.where(number[self.picture] >= 0)
        return dataclasses.replace(kept, picture=number[kept.picture], pictures=len(pictures))

    def resized(self, size: tuple[int, int]) -> Fixations:
        """The same fixations on pictures that were enlarged or reduced to `size`, height and width in pixels."""
        y, x = (_scaled(places, old, new) for places, old, new in zip((self.y, self.x), self.size, size))
        return dataclasses.replace(self, x=x, y=y, size=tuple(size))

    def to(self, device) -> Fixations:
        tensors = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved = {name: value.to(device) for name, value in tensors.items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **moved)

    @property
    def pixels(self) -> tuple[Tensor, Tensor]:
        """Row and column of the pixel that every fixation hits, (F,) each."""
        return self.y.long(), self.x.long()

    def counts(self) -> Tensor:
        """How many fixations hit each pixel: (N, H, W), float64."""
        counts = torch.zeros(self.pictures, *self.size, dtype=torch.float64, device=self.x.device)
        ones = torch.ones(len(self), dtype=torch.float64, device=self.x.device)
        return counts.index_put_((self.picture, *self.pixels), ones, accumulate=True)


def _inside(x: Tensor, y: Tensor, size: tuple[int, int]) -> Tensor:
    # Comparisons with NaN are false: it is not inside.
    return (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])


def _scaled(places: Tensor, old: int, new: int) -> Tensor:
    """In the same proportion; below `new`, where rounding would reach it."""
    scaled = places * (new / old)
    return torch.minimum(scaled, torch.nextafter(scaled.new_tensor(float(new)), scaled.new_tensor(0.0)))
