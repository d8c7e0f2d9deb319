"""What the weights are worth: the share of right answers with others in their place, and trained without any.

The networks, pictures and seeds are those of attribution.py. Steps, rates and delta were chosen with seeds from 900 on.
"""

import runpy
from pathlib import Path

import pandas
import torch
from torch import nn

from attnlib import compare, fit, intervene, shuffled, switch_off
from attnlib.train import evaluate
from attnlib.trials import Comparison, describe_machine

# What has no module name of its own: the other script of this folder.
networks = runpy.run_path(str(Path(__file__).with_name("attribution.py")))
SEEDS, KINDS = networks["SEEDS"], ("colours apart", "places mixed")
ARMS = ("its own", "equal, trained so", "equal, afterwards", "another picture's", "elsewhere, chosen")


def elsewhere(network: nn.Module, images: torch.Tensor, forbidden: torch.Tensor, steps: int = 150) -> torch.Tensor:
    """Weights (N, 1, h, w) that are 0 wherever `forbidden` and give the network's own probabilities as nearly as
    gradient descent finds them."""
    with torch.no_grad():
        features, wanted = network.encoder(images), network(images).softmax(1)
    scores = torch.zeros_like(features[:, :1]).requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=0.3)
    for _ in range(steps):
        weights = scores.masked_fill(forbidden, -torch.inf).flatten(2).softmax(2).view_as(scores)
        said = network.head(network.pool.use(features, weights).flatten(1)).log_softmax(1)
        optimizer.zero_grad()
        nn.functional.kl_div(said, wanted, reduction="sum").backward()
        optimizer.step()
    return weights.detach()


def of_network(kind: str):
    def measured(seed: int) -> dict[str, float]:
        network, accuracy = networks["trained"](kind, seed)
        train, test = networks["pictures"](seed)
        layers, groups, steps, rate = networks["KINDS"][kind]
        torch.manual_seed(seed)
        blind = networks["Asked"](layers, groups)
        with switch_off(blind):
            fit(blind, train, steps=steps, batch=48, lr=rate, seed=seed, progress=False)
            found = {"its own": accuracy, "equal, trained so": evaluate(blind, test).accuracy}
        edits = {"equal, afterwards": lambda weights, x, pool: pool.neutral(x, weights),
                 "another picture's": shuffled()}
        for name, edit in edits.items():
            with intervene(network, edit):
                found[name] = evaluate(network, test).accuracy
        few = test[:200]
        cells = network.encoder(few.images[:1]).shape[-1]
        stride = (networks["SIZE"] - 1) // (cells - 1)  # pixels from one cell's middle to the next
        # The patch and two pixels around it: with colours apart, no unit elsewhere sees any of it.
        around = nn.functional.max_pool2d(few.truth["mask"][:, None].float(), 5, 1, 2) > 0
        forbidden = around[:, :, ::stride, ::stride]
        moved = elsewhere(network, few.images, forbidden)
        with intervene(network, lambda weights, x, pool: moved), torch.no_grad():
            found["elsewhere, chosen"] = float((network(few.images).argmax(1) == few.labels).double().mean())
        return found

    return measured


def measure():
    both = {kind: of_network(kind) for kind in KINDS}
    runs = compare(both, seeds=SEEDS, delta=0.05, metric="its own", workers=2).runs
    by_network = runs.set_index(["seed", "arm"])
    rows = [{"arm": arm, "seed": seed} | {f"accuracy, {kind}": by_network.loc[(seed, kind), arm] for kind in KINDS}
            for seed in SEEDS for arm in ARMS]
    return Comparison(pandas.DataFrame(rows), 0.05, "its own", "accuracy, places mixed", describe_machine())
