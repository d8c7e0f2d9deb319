"""How much faster `fit` trains than the loop one would write by hand: `make bench`.

The same network from the same weights, the same data, the same number of epochs. By hand means: a DataLoader that
converts picture by picture and shuffles, batches of 64, the default layout, float32, Adam with a constant learning rate
(the better of two), and `loss.item()` in every step. `fit` has its defaults. Both times include the preparation of the
data and a test after every epoch. Then `fit` is given fewer epochs, to see how soon it is as accurate as the loop was
in the end. Written to results/fit.json.

    python tools/bench_fit.py [--root FOLDER] [--epochs 3] [--pictures 20000] [--threads 2]

FashionMNIST is read from --root or $ATTNLIB_DATA (torchvision's layout); without it, only the digits are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Subset, TensorDataset  # noqa: E402

from attnlib.train import fit  # noqa: E402
from attnlib.train.session import pick_device  # noqa: E402
from attnlib.trials import describe_machine  # noqa: E402

OUT = ROOT / "results" / "fit.json"
BATCH = 64
RATES = (1e-3, 3e-3)


def network(width: int = 16) -> nn.Module:
    """A small convolutional network with three stages."""
    torch.manual_seed(0)
    layers, channels = [], 1
    for out in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class Clock:
    """Wall-clock and CPU seconds of a `with` block. Under other load only the latter mean anything."""

    def __enter__(self) -> Clock:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_) -> None:
        self.seconds = round(time.perf_counter() - self._began[0], 3)
        self.cpu_seconds = round(time.process_time() - self._began[1], 3)


class Fashion:
    """FashionMNIST as a reader would load it, and as `fit` takes it."""

    def __init__(self, root: str, pictures: int) -> None:
        self.root, self.pictures = root, pictures

    def loaders(self):
        from torchvision.datasets import FashionMNIST
        from torchvision.transforms import ToTensor

        train = Subset(FashionMNIST(self.root, train=True, transform=ToTensor()), range(self.pictures))
        test = FashionMNIST(self.root, train=False, transform=ToTensor())
        return DataLoader(train, BATCH, shuffle=True), DataLoader(test, BATCH)

    def tensors(self):
        from torchvision.datasets import FashionMNIST

        sets = (FashionMNIST(self.root, train=which) for which in (True, False))
        train, test = ((data.data[:, None].float() / 255, data.targets) for data in sets)
        return tuple(part[: self.pictures] for part in train), test


class Digits:
    """scikit-learn's digits: 1,437 to train with, 360 to test."""

    def tensors(self):
        from sklearn.datasets import load_digits

        data = load_digits()
        images, labels = torch.tensor(data.images[:, None] / 16, dtype=torch.float32), torch.tensor(data.target)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        train, test = order[:1437], order[1437:]
        return (images[train], labels[train]), (images[test], labels[test])

    def loaders(self):
        train, test = self.tensors()
        return DataLoader(TensorDataset(*train), BATCH, shuffle=True), DataLoader(TensorDataset(*test), BATCH)


def by_hand(data, epochs: int, device: torch.device, rate: float) -> dict:
    """Train with a plain loop: time, and the accuracy after every epoch."""
    with Clock() as clock:
        train, test = data.loaders()
        model = network().to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        accuracies = []
        for _ in range(epochs):
            model.train()
            running = 0.0
            for images, labels in train:
                images, labels = images.to(device), labels.to(device)
                optimizer.zero_grad()
                loss = F.cross_entropy(model(images), labels)
                loss.backward()
                optimizer.step()
                running += loss.item()
            model.eval()
            with torch.no_grad():
                right = sum((model(x.to(device)).argmax(1) == y.to(device)).sum().item() for x, y in test)
            accuracies.append(right / len(test.dataset))
    return {"seconds": clock.seconds, "cpu_seconds": clock.cpu_seconds, "accuracies": accuracies, "lr": rate}


def with_fit(data, epochs: int) -> dict:
    """Train with `fit`: time, and the accuracy after every epoch."""
    with Clock() as clock:
        train, test = data.tensors()
        run = fit(network(), train, test, epochs=epochs, every=len(train[0]) // 128, progress=False)
    accuracies = run.history["test_accuracy"].tolist()
    told = {name: run.settings[name] for name in ("batch", "lr", "precision")}
    return {"seconds": clock.seconds, "cpu_seconds": clock.cpu_seconds, "accuracies": accuracies, **told}


def measure(name: str, data, epochs: int) -> dict:
    """Both loops on one data set, and how few epochs `fit` needs for the accuracy of the plain one."""
    device = pick_device()
    with_fit(data, 1)  # what is loaded or chosen once is not counted
    tried = [by_hand(data, epochs, device, rate) for rate in RATES]
    plain, fitted = max(tried, key=lambda result: result["accuracies"][-1]), with_fit(data, epochs)
    target, enough = plain["accuracies"][-1], fitted
    for fewer in range(1, epochs):
        attempt = with_fit(data, fewer)
        if attempt["accuracies"][-1] >= target:
            enough = attempt
            break
    reached = enough["accuracies"][-1] >= target
    found = {"epochs": epochs, "by_hand": plain, "fit": fitted, "fit_same_accuracy": enough if reached else None}
    for clock in ("seconds", "cpu_seconds"):
        found[f"ratio_same_epochs_{clock}"] = round(plain[clock] / fitted[clock], 2)
        found[f"ratio_same_accuracy_{clock}"] = round(plain[clock] / enough[clock], 2) if reached else None
    report(name, found)
    return found


def report(name: str, found: dict) -> None:
    print(f"{name}, {found['epochs']} epochs")
    for what in ("by_hand", "fit", "fit_same_accuracy"):
        if result := found[what]:
            print(f"  {what:18} {result['seconds']:8.2f} s   {result['cpu_seconds']:8.2f} CPU s   "
                  f"accuracy {result['accuracies'][-1]:.4f} after {len(result['accuracies'])} epochs")
    for clock in ("seconds", "cpu_seconds"):
        print(f"  by hand / fit, in {clock:12} {found[f'ratio_same_epochs_{clock}']} with the same epochs, "
              f"{found[f'ratio_same_accuracy_{clock}'] or 'never'} to the same accuracy")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--root", default=os.environ.get("ATTNLIB_DATA"), help="folder with FashionMNIST")
    ask.add_argument("--epochs", type=int, default=3)
    ask.add_argument("--pictures", type=int, default=20_000, help="of FashionMNIST, to train with")
    ask.add_argument("--threads", type=int, default=torch.get_num_threads())
    ask.add_argument("--out", type=Path, default=OUT)
    asked = ask.parse_args()
    torch.set_num_threads(asked.threads)
    results = {"machine": describe_machine() | {"system": platform.platform()}}
    results["digits"] = measure("digits", Digits(), 5 * asked.epochs)
    if asked.root and (Path(asked.root) / "FashionMNIST").is_dir():
        results["fashion"] = measure("FashionMNIST", Fashion(asked.root, asked.pictures), asked.epochs)
    else:
        print("FashionMNIST is left out: say where it is with --root, or set ATTNLIB_DATA.")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    partial = asked.out.with_suffix(".writing")
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, asked.out)
    print(f"written to {os.path.relpath(asked.out)}")


if __name__ == "__main__":
    main()
