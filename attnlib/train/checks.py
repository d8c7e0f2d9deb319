"""What `fit` and `evaluate` refuse, each with one sentence that says what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attnlib.data.pictures import Pictures

Data = Pictures | Sequence[Tensor]


def to_device(data: Data, what: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images, channels-last, and labels on the device; or one clear sentence about what is wrong with them."""
    pair = (data.images, data.labels) if isinstance(data, Pictures) else data
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise TypeError(f"the {what} data is Pictures or a pair of tensors (images, labels), not {type(data).__name__}")
    images, labels = pair
    if images.dim() == 0 or labels.dim() == 0 or len(images) != len(labels):
        raise ValueError(f"the {what} data has images {tuple(images.shape)}, but labels {tuple(labels.shape)}")
    if len(images) == 0:
        raise ValueError(f"the {what} data is empty")
    if images.dim() == 4 and not images.is_floating_point():
        raise TypeError(f"the {what} images are {images.dtype}; convert them with images.float() / 255")
    # One pass without a copy; only a sum that is no number, or too large to be one, needs a closer look.
    if images.is_floating_point() and not math.isfinite(images.sum()) and not images.isfinite().all():
        bad = int((~images.isfinite()).flatten(1).any(1).sum()) if images.dim() > 1 else int((~images.isfinite()).sum())
        raise ValueError(f"{bad} of the {len(images)} {what} images hold NaN or infinite values; repair or drop them")
    layout = torch.channels_last if images.dim() == 4 else torch.preserve_format
    return images.to(device, memory_format=layout), labels.to(device)


def check_labels(outputs: Any, labels: Tensor, tested: tuple[Tensor, Tensor] | None) -> None:
    """That cross-entropy can compare the model's outputs with these labels."""
    if not isinstance(outputs, Tensor) or outputs.dim() < 2 or outputs.shape[2:] != labels.shape[1:]:
        made = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"for 2 pictures the model gives {made}, which does not fit labels {tuple(labels.shape)}; outputs are "
            "(N, classes), or give your own loss=..."
        )
    for what, some in (("training", labels), ("test", labels if tested is None else tested[1])):
        if some.dtype != torch.int64:
            raise TypeError(f"the {what} labels are {some.dtype}; class indices are int64: labels.long()")
        low, high = int(some.min()), int(some.max())
        if low < 0 or high >= outputs.shape[1]:
            raise ValueError(
                f"the {what} labels run from {low} to {high}, but the model has {outputs.shape[1]} outputs: "
                f"0 to {outputs.shape[1] - 1}"
            )


def check_resumed(run, fixed: dict[str, Any]) -> None:
    changed = [f"{name}={run.settings[name]!r}" for name, value in fixed.items() if run.settings[name] != value]
    if changed:
        raise ValueError(f"the run to resume was begun with {', '.join(changed)}; go on with the same")
