"""REINFORCE with a learned baseline: how a network learns where to look when looking has no gradient."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Episode(NamedTuple):
    """What a `RecurrentAttention` gives in training, for `reinforce`.

    Attributes:
        logits: (B, classes), after the last glimpse.
        log_probs: (B, T), the logarithm of the density with which each place was drawn.
        baselines: (B, T), the reward expected before each glimpse.
    """

    logits: Tensor
    log_probs: Tensor
    baselines: Tensor


def reinforce(outputs: Tensor | Episode, labels: Tensor, *, weight: float = 1.0) -> Tensor:
    """The loss of a `RecurrentAttention`: cross-entropy, and in training REINFORCE with a baseline.

    Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", Machine
    Learning 8, 1992. The reward R is 1 for a right answer after the last glimpse, else 0. Over the pictures of a batch
    this is the mean of ::

        cross-entropy − weight · Σ_t (R − b_t) log π(l_t) + Σ_t (R − b_t)²

    where R − b_t in the second term and R in the third are numbers without a gradient.

    Args:
        outputs: an `Episode`, or logits (B, classes): then it is cross-entropy alone.
        labels: (B,) int64.
        weight: of REINFORCE; the paper has none.

    Returns:
        a scalar.
    """
    if isinstance(outputs, Tensor):
        return F.cross_entropy(outputs, labels)
    reward = _right(outputs.logits, labels).to(outputs.log_probs.dtype)[:, None]
    better = reward - outputs.baselines  # (M·B, T)
    policy = -(better.detach() * outputs.log_probs).sum(1).mean()
    named = F.cross_entropy(outputs.logits, _played(labels, outputs.logits))
    return named + weight * policy + better.square().sum(1).mean()


def correct(outputs: Tensor | Episode, labels: Tensor) -> Tensor:
    """The share of right answers, 0–1, of an `Episode` or of logits (B, classes)."""
    return _right(outputs if isinstance(outputs, Tensor) else outputs.logits, labels).float().mean()


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.argmax(1) == _played(labels, logits)


def _played(labels: Tensor, logits: Tensor) -> Tensor:
    """The labels, as often as the pictures were played."""
    return labels if len(labels) == len(logits) else labels.repeat(len(logits) // len(labels))
