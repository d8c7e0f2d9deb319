"""Which map points at the true cause, and how often: three networks, each asked in seven ways, with three controls.

The task is that of distractors, whose cause is known. *Colours apart*: an encoder whose red, green and blue channels
never meet, so that only the attention can bring frame and stroke together. *Colours mixed*: the same without groups.
*Places mixed*: an encoder whose units see most of the picture. Depths, steps, rate, the occluding window and delta were
chosen with seeds from 900 on.

Hits are counted twice: on the patch, and at most CELL pixels away from it. Coarse weights may point a cell beside what
they stand for: after a first measurement without it, with seeds 0–7, and a look at where the peaks of those networks
lay, this tolerance was added and became the metric. What is saved was measured with seeds from 8 on, of which nothing
had been seen before.

A map is compared before and after all layers of its network were drawn anew: Spearman's correlation of magnitudes.
"""

import torch
import torch.nn.functional as F
from torch import nn

from attnlib import compare, create, fit, record
from attnlib.data.distractors import distractor_task
from attnlib.saliency.agreement import auc, pointing_game, randomised, rank_correlation
from attnlib.trials import Comparison, describe_machine

SIZE, DISTRACTORS = 25, 5
# Pixels from one cell of the coarse feature map of *places mixed* to the next.
CELL = 4
# Of each layer the channels and the stride; groups; steps of training, and its highest rate.
KINDS = {
    "colours apart": ([(24, 1), (24, 1)], 3, 250, 0.03),
    "colours mixed": ([(24, 1), (24, 1)], 1, 250, 0.03),
    "places mixed": ([(16, 1), (24, 2), (24, 1), (24, 2), (24, 1), (24, 1), (24, 1)], 1, 350, 0.02),
}
SEEDS = range(8, 20)
# Pictures that are asked about, and of these the ones for the check by random layers.
ASKED, CHECKED = 48, 8
CONTROLS = ("edges", "centre", "constant")


class Asked(nn.Module):
    """An encoder, attention pooling, and a linear layer."""

    def __init__(self, layers: list[tuple[int, int]], groups: int = 1) -> None:
        super().__init__()
        parts, before = [], 3
        for channels, stride in layers:
            parts += [nn.Conv2d(before, channels, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(channels)]
            parts.append(nn.ReLU())
            before = channels
        self.encoder = nn.Sequential(*parts)
        self.pool, self.head = create("attention_pool", before), nn.Linear(before, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.encoder(x)).flatten(1))


def pictures(seed: int):
    return (distractor_task(9_600, DISTRACTORS, size=SIZE, seed=seed),
            distractor_task(1_000, DISTRACTORS, size=SIZE, seed=10_000 + seed))


def trained(kind: str, seed: int):
    """The network, and its accuracy on the test pictures."""
    layers, groups, steps, rate = KINDS[kind]
    torch.manual_seed(seed)
    network = Asked(layers, groups)
    run = fit(network, *pictures(seed), steps=steps, batch=48, lr=rate, every=steps, seed=seed, progress=False)
    return network, run.accuracy


def full_size(maps: torch.Tensor) -> torch.Tensor:
    """Maps (N, h, w) at the picture's size. A cell of a coarse map lies at every fourth pixel, from the first to the
    last, hence the corners are aligned."""
    return F.interpolate(maps.detach()[:, None], size=(SIZE, SIZE), mode="bilinear", align_corners=True)[:, 0]


def asked(network: nn.Module, images: torch.Tensor, answers: torch.Tensor) -> dict[str, torch.Tensor]:
    """A map (N, H, W) from each method, for the score of the `answers`."""
    from captum.attr import (
        InputXGradient, IntegratedGradients, LayerGradCam, LayerGradientXActivation, Occlusion, Saliency,
    )

    about, encoder = {"target": answers}, network.encoder
    x = images.clone().requires_grad_()
    with record(network) as weights, torch.no_grad():
        network(images)
    steps = {"n_steps": 16, "internal_batch_size": 256}
    maps = {
        "own weights": weights["pool"][:, 0],
        "gradient": Saliency(network).attribute(x, **about).amax(1),
        "input × gradient": InputXGradient(network).attribute(x, **about).sum(1).abs(),
        "integrated gradients": IntegratedGradients(network).attribute(x, **about, **steps).sum(1).abs(),
        "occlusion": Occlusion(network).attribute(images, (3, 3, 3), strides=(3, 1, 1), **about).sum(1),
        "Grad-CAM": LayerGradCam(network, encoder).attribute(x, relu_attributions=True, **about)[:, 0],
        "gradient × activation": LayerGradientXActivation(network, encoder).attribute(x, **about).sum(1),
    }
    return {name: full_size(found) for name, found in maps.items()}


def controls(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Maps that never saw a network: where the colours change, how near the middle, and nothing."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    steps = (torch.arange(SIZE) - (SIZE - 1) / 2).square()
    middle = -(steps[:, None] + steps).expand(len(images), -1, -1)
    found = (across.square() + down.square()).sum(1).sqrt(), middle, torch.zeros_like(middle)
    return dict(zip(CONTROLS, found))


def of_network(kind: str):
    def measured(seed: int) -> dict[str, float]:
        network, accuracy = trained(kind, seed)
        test = pictures(seed)[1][:ASKED]
        mask, few = test.truth["mask"], test.images[:CHECKED]
        with torch.no_grad():
            answers = network(test.images).argmax(1)
        maps = asked(network, test.images, answers)
        with randomised(network, seed=seed):
            untrained = asked(network, few, answers[:CHECKED])
        found = {"accuracy": accuracy}
        for name, of_method in maps.items():
            before = of_method[:CHECKED].abs()
            found |= {
                f"hit rate|{name}": pointing_game(of_method, mask).mean(),
                f"near hit rate|{name}": pointing_game(of_method, mask, CELL).mean(),
                f"AUC|{name}": auc(of_method, mask).mean(),
                f"untrained hit rate|{name}": pointing_game(untrained[name], mask[:CHECKED]).mean(),
                # A map of nothing but zeros has no order, and none that it kept.
                f"kept untrained|{name}": rank_correlation(before, untrained[name].abs()).nan_to_num(0).mean(),
            }
        for name, control in controls(test.images).items():
            hit, area = pointing_game(control, mask).mean(), auc(control, mask).mean()
            found |= {f"near hit rate|{name}": pointing_game(control, mask, CELL).mean()}
            found |= {f"hit rate|{name}": hit, f"untrained hit rate|{name}": hit, f"AUC|{name}": area,
                      f"kept untrained|{name}": 1.0}
        return {what: float(value) for what, value in found.items()}

    return measured


def measure():
    """Arms are the methods; each network is trained once and asked in every way."""
    import pandas

    runs = compare({kind: of_network(kind) for kind in KINDS}, seeds=SEEDS, delta=0.05, workers=2).runs
    methods = [column.split("|")[1] for column in runs if column.startswith("hit rate|")]
    by_network = runs.set_index(["seed", "arm"])
    rows = []
    for seed in SEEDS:
        for method in methods:
            row = {"arm": method, "seed": seed}
            for kind in KINDS:
                found = by_network.loc[(seed, kind)]
                row |= {f"{what.split('|')[0]}, {kind}": found[what] for what in found.index
                        if what.endswith(f"|{method}")} | {f"accuracy, {kind}": found["accuracy"]}
            rows.append(row)
    return Comparison(pandas.DataFrame(rows), 0.05, "own weights", "near hit rate, places mixed", describe_machine())
