"""Where the weights of attention pooling lie, with seven distractors: on the frame that counts, and how surely.

*Soft*, *hard* and *sampled* weights, trained alike. *Mixed*: filters that see all colours at once. *Two queries* and
*one query*: the task is by colour in one half of the pictures and by shape in the other.
"""

import runpy
from pathlib import Path

import torch

from attnlib import compare, record, switch_off
from attnlib.saliency.agreement import auc, pointing_game
from attnlib.train import evaluate

shared = runpy.run_path(str(Path(__file__).with_name("attention.py")))
attention, trained = shared["attention"], shared["trained"]


def seen(network, test) -> dict[str, float]:
    """What is measured of the weights of one network."""
    with record(network) as recorded, torch.no_grad():
        network(test.images)
    (weights,) = recorded.values()
    hits = pointing_game(weights, test.truth["mask"])
    with switch_off(network):
        off = evaluate(network, test).accuracy
    network.pool.select = "hard"
    return {
        "hit rate": float(hits.mean()),
        "lowest hit rate of a direction": min(float(hits[test.labels == k].mean()) for k in range(4)),
        "AUC": float(auc(weights, test.truth["mask"]).mean()),
        "weight in the frame": float((weights[:, 0] * test.truth["mask"]).sum((1, 2)).mean()),
        "accuracy, off": off,
        "accuracy, hard when tested": evaluate(network, test).accuracy,
    }


def arm(groups: int = 3, task: str = "colour", **options):
    def measured(seed: int) -> dict[str, float]:
        steps = 200 if task == "colour" else 300
        pool = lambda: attention(**options)
        network, test, accuracy = trained(seed, 7, pool, groups=groups, task=task, steps=steps)
        return {"accuracy": accuracy} | seen(network, test)

    return measured


def measure():
    arms = {
        "soft": arm(),
        "hard": arm(select="hard"),
        "sampled": arm(select="sampled"),
        "mixed": arm(groups=1),
        "two queries": arm(task="either", queries=2),
        "one query": arm(task="either"),
    }
    return compare(arms, seeds=8, baseline="soft", metric="accuracy", delta=0.05)
