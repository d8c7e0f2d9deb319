"""The paper's own experiment: digits of MNIST anywhere in 60×60 pixels, alone and among four fragments of others.

Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention", NIPS 2014. Patches of 12×12 pixels at three
scales, 4, 6 and 8 glimpses, and 8 at random places; against two fully connected networks and a convolutional one. As
in the paper, each picture is made anew whenever it is shown. Another optimizer, batch and length of training: those
below, which nobody tuned for this size. So it is the paper's task, and not its training.

On a GPU it takes minutes to an hour, which it tells before it starts. Without one it is left out unless it is named:
make results ONLY=results/spatial/ram_full.py
"""

import time

import torch
from torch import Tensor, nn

from attnlib import compare, create, fit
from attnlib.data.warped import warped_digits
from attnlib.spatial.reinforce import correct, reinforce
from attnlib.train import evaluate

STEPS, BATCH, LR, SEEDS = 30_000, 512, 0.001, 1
COUNT = 60_000  # as many as MNIST has to learn from
TESTED = 10_000
TASKS = {"translated": 0, "cluttered": 4}  # and how many fragments there are
SIZE, DIGIT, FRAGMENT = 60, 28, 8
EYE = dict(patch=12, scales=3, hidden=256, sigma=0.2, gain=0.2)
TRIED = 40  # steps of each arm that are timed for the estimate


def left_out() -> str | None:
    """Why this is not measured with all the others, if it is not."""
    if torch.cuda.is_available():
        return None
    return "it takes many hours without a GPU; name it to measure it all the same"


def connected(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
                         nn.Linear(hidden, 10))


def convolutional() -> nn.Sequential:
    """As in the paper: 8 filters of 10×10 in steps of 5, and 256 units that see all of them."""
    side = (SIZE - 10) // 5 + 1
    return nn.Sequential(nn.Conv2d(1, 8, 10, stride=5), nn.ReLU(), nn.Flatten(), nn.Linear(8 * side**2, 256),
                         nn.ReLU(), nn.Linear(256, 10))


def glimpses(count: int, policy: str = "learned") -> nn.Module:
    return create("ram", 1, glimpses=count, policy=policy, **EYE)


ARMS = {
    "CNN": convolutional, "FC, 64": lambda: connected(64), "FC, 256": lambda: connected(256),
    "RAM, 4": lambda: glimpses(4), "RAM, 6": lambda: glimpses(6), "RAM, 8": lambda: glimpses(8),
    "random, 8": lambda: glimpses(8, "random"),
}


def anew(fragments: int):
    """Pictures with an upright digit in the middle → the same digits elsewhere, and fragments of other ones with them."""
    margin = (SIZE - DIGIT) // 2

    def augment(images: Tensor) -> Tensor:
        digits = images[:, 0, margin:margin + DIGIT, margin:margin + DIGIT]
        canvas = images.new_zeros(len(images), SIZE * SIZE)
        add(canvas, digits)
        for _ in range(fragments):
            others = digits[torch.randperm(len(digits), device=digits.device)]
            add(canvas, cut(others, FRAGMENT))
        return canvas.clamp(max=1).view(-1, 1, SIZE, SIZE)

    return augment


def squares(count: int, side: int, room: int, device: torch.device) -> Tensor:
    """The places, in a flattened picture of `room` pixels a side, of a square anywhere in it: (count, side²)."""
    top, left = torch.randint(room - side + 1, (2, count, 1, 1), device=device)
    line = torch.arange(side, device=device)
    return ((top + line[:, None]) * room + left + line).flatten(1)


def cut(digits: Tensor, side: int) -> Tensor:
    at = squares(len(digits), side, digits.shape[-1], digits.device)
    return digits.flatten(1).gather(1, at).unflatten(1, (side, side))


def add(canvas: Tensor, pieces: Tensor) -> None:
    """Add pieces (N, p, p) to pictures (N, SIZE²), each at its own random place."""
    canvas.scatter_add_(1, squares(len(pieces), pieces.shape[-1], SIZE, pieces.device), pieces.flatten(1))


def trained(network: nn.Module, train, fragments: int, seed: int, steps: int, batch: int) -> nn.Module:
    # Only a network that looks around gives an episode; both functions take logits as well.
    fit(network, train, steps=steps, batch=batch, lr=LR, seed=seed, every=steps, progress=False, loss=reinforce,
        accuracy=correct, augment=anew(fragments))
    return network


def estimate(train, steps: int, batch: int) -> float:
    """Seconds that all trainings with one seed will take, from a few steps of each."""
    tried, began = min(TRIED, steps), time.perf_counter()
    for build in ARMS.values():
        trained(build(), train, 0, 0, tried, batch)
    return (time.perf_counter() - began) * len(TASKS) * steps / tried


def measure(source="mnist", steps: int = STEPS, batch: int = BATCH, count: int = COUNT, tested: int = TESTED,
            seeds: int = SEEDS):
    train = warped_digits(count, "none", SIZE, digit=DIGIT, source=source)
    tests = {task: warped_digits(tested, "clutter", SIZE, digit=DIGIT, clutter=fragments, fragment=FRAGMENT, part="test",
                                 source=source, seed=1) for task, fragments in TASKS.items()}
    print(f"about {seeds * estimate(train, steps, batch) / 60:.0f} minutes on this machine", flush=True)

    def arm(build):
        def measured(seed: int) -> dict[str, float]:
            scores = {"pictures seen": steps * batch}
            for task, fragments in TASKS.items():
                torch.manual_seed(seed)
                network = trained(build(), train, fragments, seed, steps, batch)
                scores[f"accuracy, {task}"] = evaluate(network, tests[task], loss=reinforce, accuracy=correct).accuracy
            return scores

        return measured

    arms = {name: arm(build) for name, build in ARMS.items()}
    # In this process: the pictures are too many to be sent to others.
    return compare(arms, seeds=seeds, baseline="CNN", metric="accuracy, cluttered", delta=0.005, workers=1)
