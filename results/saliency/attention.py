"""Which of many strokes counts, told by three poolings, against the number of distractors.

The network is as small as the question allows: one layer of 5×5 filters, of which each sees one colour alone; a
pooling; a linear layer. What average and maximum find differs little from picture to picture beside what is always
there, so these two get a batch normalisation behind them, without which they would not come near their ceilings in this
training. Attention needs none and gets none; attention_controls.py has it with one as well.

Steps, rate and filters were chosen with seeds from 900 on, delta before the first run.
"""

import torch
from torch import nn

from attnlib import compare, create, fit
from attnlib.data.distractors import distractor_task

SIZE, DISTRACTORS = 25, (0, 1, 3, 7)
CHANNELS = 24


class Average(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True)


class Maximum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.amax((2, 3), keepdim=True)


def attention(**options) -> nn.Module:
    return create("attention_pool", CHANNELS, hidden=12, **options)


class Reader(nn.Module):
    """Filters, a pooling, and a linear layer. A fourth channel of the pictures says which task the pooling is under."""

    def __init__(self, pool, groups: int = 3, norm: bool = False) -> None:
        super().__init__()
        filters = nn.Conv2d(3, CHANNELS, 5, padding=2, groups=groups, bias=False)
        self.encoder = nn.Sequential(filters, nn.BatchNorm2d(CHANNELS), nn.ReLU())
        self.norm = nn.BatchNorm1d(CHANNELS) if norm else nn.Identity()
        self.head = nn.Linear(CHANNELS, 4)
        self.pool = pool()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        several = getattr(self.pool, "tasks", 1) > 1
        task = (x[:, 3, 0, 0].long(),) if several else ()
        return self.head(self.norm(self.pool(self.encoder(x[:, :3]), *task).flatten(1)))


def trained(seed: int, distractors: int, *options, task: str = "colour", steps: int = 200, **more):
    """A network, pictures it has not seen, and its accuracy on them. It sees each picture of its training once."""
    train = distractor_task(32 * steps, distractors, task, SIZE, seed=seed)
    test = distractor_task(1_000, distractors, task, SIZE, seed=10_000 + seed)
    torch.manual_seed(seed)
    network = Reader(*options, **more)
    run = fit(network, train, test, steps=steps, batch=32, lr=0.02, seed=seed, every=steps, progress=False)
    return network, test, run.accuracy


def metric(distractors: int) -> str:
    return f"accuracy, {distractors} distractors"


def arm(*options, **more):
    def accuracies(seed: int) -> dict[str, float]:
        return {metric(number): trained(seed, number, *options, **more)[2] for number in DISTRACTORS}

    return accuracies


def measure():
    arms = {"average": arm(Average, norm=True), "maximum": arm(Maximum, norm=True), "attention": arm(attention)}
    return compare(arms, seeds=8, baseline="average", metric=metric(7), delta=0.05)
