"""What a training gives back."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor


class DivergedError(FloatingPointError):
    """The loss became infinite or no number. The model has the weights of the last row of the history."""


class Scores(NamedTuple):
    """Mean loss, and accuracy in 0–1 (NaN where it is not defined)."""

    loss: float
    accuracy: float


@dataclasses.dataclass
class Run:
    """What `fit` returns: what happened, and all that is needed to go on.

    Attributes:
        history: one row per `every` steps. ``loss`` and ``accuracy`` are means over the training batches since the row
            before, ``seconds`` and ``epoch`` count from the beginning, accuracies are in 0–1. The columns
            ``test_loss`` and ``test_accuracy`` exist where there was a test set.
        snapshots: what `record` returned: ``[(step, value), ...]``, the first before any training.
        notes: what was decided along the way and may surprise.
        interrupted: whether the training was stopped before its budget was used up.
        settings: the arguments that fix the course of the training.
        state: weights, optimizer, and random numbers after the last step, on the CPU.
        fields: by its name, rows and columns of the feature map that each mechanism saw when its weights were recorded.
    """

    history: Any
    snapshots: list[tuple[int, Any]]
    notes: list[str]
    interrupted: bool
    settings: dict[str, Any]
    state: dict[str, Any]
    fields: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.state["step"]

    @property
    def seconds(self) -> float:
        """Seconds of wall-clock time from the first step to the last test."""
        return self.state["seconds"]

    @property
    def accuracy(self) -> float:
        """Accuracy after the last step, in 0–1: on the whole test set; without one, over the last training batches."""
        for column in ("test_accuracy", "accuracy"):
            if column in self.history and len(self.history):
                return float(self.history[column].iloc[-1])
        return math.nan

    def __repr__(self) -> str:
        what = "test accuracy" if "test_accuracy" in self.history else "accuracy"
        end = ", interrupted" if self.interrupted else ""
        return f"Run({self.steps} steps on {self.settings['device']}, {what} {self.accuracy:.4f}{end})"

    def save(self, path: str | Path) -> None:
        """Write everything to one file. It appears complete or not at all.

        Raises:
            TypeError: snapshots of other things than tensors, numbers, strings, and lists, tuples and dicts of them.
        """
        _check_plain(self.snapshots)
        content = dataclasses.asdict(self) | {"history": self.history.to_dict("list"), "attnlib_run": 1}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            torch.save(content, partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read a file written by `save`.

        Raises:
            FileNotFoundError: there is none.
            ValueError: the file is damaged, or something else.
        """
        import pandas

        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no run at {path}; make it with `fit(...).save({str(path)!r})`")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content.pop("attnlib_run") != 1:
                raise ValueError("another version")
            return cls(**content | {"history": pandas.DataFrame(content["history"])})
        except Exception as error:  # whatever a damaged file makes torch raise
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"{path} is damaged or no run; delete it and train again ({first[:100]})") from error


def _check_plain(value: Any) -> None:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_plain(item)
    elif not isinstance(value, (Tensor, int, float, str, type(None))):
        raise TypeError(f"snapshots are saved where they are tensors, numbers or strings, not {type(value).__name__}")
