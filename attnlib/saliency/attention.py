"""Attention pooling: one vector from a whole feature map, as a weighted mean whose weights are computed from it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from attnlib.arguments import positive, whole
from attnlib.attention import Attention, Description
from attnlib.registry import register

SELECTIONS = ("soft", "hard", "sampled")


@register("attention_pool")
class AttentionPool(Attention):
    """Score every position, turn the scores into shares, add the positions up by their shares.

    Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018, arXiv:1802.04712; the score is
    that of Bahdanau, Cho, Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate", ICLR 2015,
    arXiv:1409.0473. With h the C numbers at position i ::

        s_i = q · tanh(V h_i + b)              score       (B, 1, H, W)
        a   = softmax of s over positions      weights     (B, 1, H, W)
        z   = sum over i of a_i h_i            pooled      (B, C, 1, 1)

    Neutral weights are all equal: switched off, it is average pooling. The output has the form of
    ``nn.AdaptiveAvgPool2d(1)``, in whose place it can stand; it is not the shape of the input, so `insert` refuses it.

    The paper's equation has no b, the authors' code has one, and so does the default (``bias=False`` is the equation).
    Their code also adds a number to all scores, which a softmax does not notice; there is none here. Both maps start
    from Glorot's uniform distribution, b from 0. With D hidden units and Q queries there are CD + D + QD parameters.

    A *query* q says what is looked for. With ``queries=2``, two tasks share V and have a q each: the same scene gives
    other weights under another task. Which task a picture is under is given with it, ``pool(x, task)``.

    Args:
        channels: C, channels of the input.
        hidden: D, units of the score; a quarter of the channels by default, about the paper's share (128 of 500).
        bias: whether the hidden units have biases.
        queries: Q, how many tasks there are.
        select: ``"soft"``, the weighted mean; ``"hard"``, the one position with the highest score, or the first of
            several; ``"sampled"``, in training one position drawn with the probabilities a, otherwise as ``"hard"``.
            The last two have weights of 0 and 1. These have no useful gradient: that of the soft weights is passed on
            instead ("straight-through": Bengio, Léonard, Courville 2013, arXiv:1308.3432; for samples: Jang, Gu, Poole,
            ICLR 2017, arXiv:1611.01144, who take the gradient at the scores with their noise, here at those without).
            It is biased, but needs no reward and no baseline as REINFORCE does.
        temperature: the scores are divided by it before the softmax; towards 0 the soft weights become hard, and
            towards infinity equal.

    Shapes:
        x (B, C, H, W), task (B,) → weights (B, 1, H, W) → y (B, C, 1, 1).

    Raises:
        ValueError: no hidden unit or query, a temperature that is not above 0, an unknown word for `select`; when it
            runs, a task missing where there are several queries, or one that is not among 0 … Q − 1.
        TypeError: when it runs, a task that is no whole number.
    """

    about = Description(
        title="Attention pooling",
        paper="Ilse, Tomczak, Welling. Attention-based Deep Multiple Instance Learning. ICML 2018. arXiv:1802.04712",
        cite="ilse2018pooling",
        axes=("batch", "channel", "row", "column"),
        shape=("B", 1, "H", "W"),
        kind="softmax",
        sums_over=("row", "column"),
        passes=2,  # x is read for the scores, and read again for the sum
        place="last",
        drop_in=False,
        looks="score each position by a query, softmax over all",
        acts="mean of all positions, weighted by their shares",
    )

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        *,
        bias: bool = True,
        queries: int = 1,
        select: Literal["soft", "hard", "sampled"] = "soft",
        temperature: float = 1.0,
    ) -> None:
        super().__init__(channels)
        hidden = max(1, channels // 4) if hidden is None else hidden
        for word, value in (("hidden", hidden), ("queries", queries)):
            whole(f"AttentionPool's {word}", value)
        if select not in SELECTIONS:
            raise ValueError(f"AttentionPool's select is one of {', '.join(SELECTIONS)}, not {select!r}")
        self.tasks, self.select = queries, select
        self.temperature = positive("AttentionPool's temperature", temperature)
        self.key = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.queries = nn.Parameter(torch.empty(queries, hidden))
        nn.init.xavier_uniform_(self.key.weight)
        if bias:
            nn.init.zeros_(self.key.bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the queries anew; the key is a layer of its own."""
        # Glorot's bound for a map to one score, however many queries there are.
        bound = math.sqrt(6 / (self.queries.shape[1] + 1))
        nn.init.uniform_(self.queries, -bound, bound)

    def scores(self, x: Tensor, task: Tensor | int | None = None) -> Tensor:
        """How well each position answers to the query: (B, 1, H, W), before the softmax and without the temperature."""
        keys = self.key(x).tanh().flatten(2)  # (B, D, HW)
        query = self.query(x, task)  # (B, 1, D)
        return (query @ keys).unflatten(2, x.shape[2:])

    def query(self, x: Tensor, task: Tensor | int | None = None) -> Tensor:
        """The query that each picture of `x` is under: (B, 1, D)."""
        if task is None and self.tasks == 1:
            task = 0
        if isinstance(task, Tensor):
            _check_tasks(task, x.shape[0], self.tasks)
            return self.queries[task][:, None]
        _check_task(task, self.tasks)
        return self.queries[task].expand(x.shape[0], 1, -1)

    def attend(self, x: Tensor, task: Tensor | int | None = None) -> Tensor:
        scores = self.scores(x, task).flatten(2) / self.temperature  # (B, 1, HW)
        shares = scores.softmax(2)
        if self.select != "soft":
            drawn = scores + _gumbel(scores) if self.select == "sampled" and self.training else scores
            # The difference is exactly 0 and brings the gradient of the shares.
            shares = _highest(drawn).to(shares.dtype) + (shares - shares.detach())
        return shares.unflatten(2, x.shape[2:])

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        # As a product of matrices: x * weights, which is as large as x, is never formed.
        return x.flatten(2).matmul(weights.flatten(2).to(x.dtype).mT)[..., None]  # (B, C, 1, 1)


@torch.fx.wrap
def _highest(scores: Tensor) -> Tensor:
    """1 at the first of the highest scores of each row, and 0 elsewhere."""
    positions = torch.arange(scores.shape[-1], device=scores.device)
    # argmax may name any of several equal scores.
    first = (scores == scores.amax(-1, keepdim=True)).int().argmax(-1, keepdim=True)
    return positions == first


def _gumbel(scores: Tensor) -> Tensor:
    """Noise with which the highest of `scores` is a draw from their softmax."""
    return -torch.empty_like(scores).exponential_().log()


@torch.fx.wrap
def _check_task(task: int | None, queries: int) -> None:
    if task is None:
        raise ValueError(f"this AttentionPool has {queries} queries: say which task a picture is under, pool(x, task)")
    if not isinstance(task, int):
        raise TypeError(f"AttentionPool takes a task as a whole number or a tensor of them, not {type(task).__name__}")
    if not 0 <= task < queries:
        raise ValueError(f"AttentionPool's tasks are numbered from 0 to {queries - 1}, and {task} is none of them")


@torch.fx.wrap
def _check_tasks(tasks: Tensor, pictures: int, queries: int) -> None:
    if tasks.dtype != torch.int64:
        raise TypeError(f"AttentionPool takes tasks as whole numbers (int64), not {tasks.dtype}; use task.long()")
    if tasks.shape != (pictures,):
        raise ValueError(f"AttentionPool takes one task for each of the {pictures} pictures, not {tuple(tasks.shape)}")
    # To look at the numbers is impossible while a graph is recorded.
    if torch.compiler.is_compiling() or (tasks.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    if bool(((tasks < 0) | (tasks >= queries)).any()):
        raise ValueError(f"AttentionPool's tasks are numbered from 0 to {queries - 1}; some of these are not")
