"""How fast each mechanism is, against others' code and against its memory floor: `make bench`, or with names, for some.

Forward, and forward with backward, at 32×256×56×56, in turn with whatever the mechanism's test file names in `BESIDE`
(a label, and a function that builds the other module for a channel count). The floor is the time the machine needs to
move the least bytes a forward pass can do without, from a copy and a sum timed in the same run: writing costs more than
reading, and by how much depends on the machine. Written to results/speed.json,
mechanism by mechanism; `attnlib.cost.speed` reads it.

    python tools/bench_modules.py [NAME ...] [--size 32 256 56 56] [--seconds 6] [--out results/speed.json]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from attnlib import cost, registry
from attnlib.trials import describe_machine

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "speed.json"
SIZE = (32, 256, 56, 56)
OURS, FLOOR = "attnlib", "memory floor"
READ, COPY = "read", "copy"


class Read(nn.Module):
    """Reads its input once."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


class Copy(nn.Module):
    """Reads its input once and writes as much."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def floor(read: float, copy: float, passes: float, written: float) -> float:
    """The time of `passes` over the input's bytes, of which those of the output, `written`, are writes."""
    return (passes - written) * read + written * (copy - read)


def beside(name: str) -> dict[str, Callable[[int], nn.Module]]:
    """Others' modules for the same thing, from the mechanism's test file."""
    _, chapter, *_, module = registry.mechanism(name).__module__.split(".")
    path = ROOT / "tests" / chapter / f"test_{module}.py"
    if not path.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"bench_{module}", path)
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    return getattr(tests, "BESIDE", {})


def measure(name: str, size: tuple[int, ...], seconds: float) -> dict:
    """Milliseconds a pass, by whose code it is; medians."""
    x, channels = torch.randn(size), size[1]
    ours = registry.create(name, channels)
    modules = {OURS: ours} | {label: make(channels) for label, make in beside(name).items()}
    forward = cost.latencies(modules | {READ: Read(), COPY: Copy()}, x, seconds=seconds)
    training = cost.latencies(modules, x, backward=True, seconds=seconds)
    times = {label: timed.median * 1e3 for label, timed in forward.items()}
    with cost.untouched(ours), torch.no_grad():
        written = ours(x[:1]).numel() / x[:1].numel()
    times[FLOOR] = floor(times.pop(READ), times.pop(COPY), ours.describe().passes, written)
    return {
        "size": list(size), "machine": describe_machine(),
        "forward": {label: round(ms, 3) for label, ms in times.items()},
        "forward and backward": {label: round(timed.median * 1e3, 3) for label, timed in training.items()},
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("names", nargs="*", help="mechanisms; all by default")
    arguments.add_argument("--size", nargs=4, type=int, default=SIZE, help="batch, channels, rows, columns")
    arguments.add_argument("--seconds", type=float, default=6, help="of measurement for each module and pass")
    arguments.add_argument("--out", type=Path, default=OUT)
    options = arguments.parse_args()
    for name in options.names or registry.available():
        found = measure(name, tuple(options.size), options.seconds)
        # Written after each, so that a stop loses none.
        known = json.loads(options.out.read_text()) if options.out.exists() else {}
        options.out.write_text(json.dumps(known | {name: found}, indent=2, sort_keys=True) + "\n")
        print(f"{name:20}", {part: found[part] for part in ("forward", "forward and backward")}, flush=True)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; what was measured is written.")
