"""Whether mixing the colours at a position can stand in for attention; and what a fainter mark does to each.

*Mixing*: between the filters, each of which sees one colour alone, and the pooling lies a 1×1 convolution from 24 to 12
numbers with tanh. It is the layer with which attention scores, without the query, and nothing is chosen: what it finds
is averaged, or its maximum taken, over all positions alike. The linear layer reads these 12 numbers instead of 24. All
but attention have a batch normalisation behind the pooling.

Each network is trained with seven distractors and a frame that is all red, and tested with frames that are less red.
Nothing was chosen by these runs; one with seed 900 was made beforehand, to see that the code works.
"""

import runpy
from pathlib import Path

import torch
from torch import nn

from attnlib import compare
from attnlib.data.distractors import distractor_task
from attnlib.train import evaluate

shared = runpy.run_path(str(Path(__file__).with_name("attention.py")))
Average, Maximum, attention, trained = (shared[name] for name in ("Average", "Maximum", "attention", "trained"))
SIZE, CHANNELS, HIDDEN = shared["SIZE"], shared["CHANNELS"], 12
CUES = (1, 0.8, 0.6, 0.4, 0.2)


class Mixing(nn.Module):
    """tanh(V h + b) at every position, as in attention's score, then a pooling: (B, 24, H, W) → (B, 24, 1, 1).

    Of the 24 numbers, which the network's linear layer expects, 12 are always 0.
    """

    def __init__(self, pool: type[nn.Module]) -> None:
        super().__init__()
        self.mix, self.pool = nn.Conv2d(CHANNELS, HIDDEN, 1), pool()
        nn.init.xavier_uniform_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.pool(self.mix(x).tanh())
        return torch.cat([pooled, pooled.new_zeros(len(x), CHANNELS - HIDDEN, 1, 1)], 1)


def metric(cue: float) -> str:
    return f"accuracy, {cue:g} red"


def arm(*options, **more):
    def accuracies(seed: int) -> dict[str, float]:
        network, _, accuracy = trained(seed, 7, *options, **more)
        faint = {cue: distractor_task(1_000, 7, size=SIZE, cue=float(cue), seed=20_000 + seed) for cue in CUES}
        return {"accuracy": accuracy} | {metric(cue): evaluate(network, data).accuracy for cue, data in faint.items()}

    return accuracies


def measure():
    arms = {
        "average": arm(Average, norm=True),
        "attention": arm(attention),
        "mixing, average": arm(lambda: Mixing(Average), norm=True),
        "mixing, maximum": arm(lambda: Mixing(Maximum), norm=True),
    }
    return compare(arms, seeds=8, baseline="average", metric="accuracy", delta=0.05)
