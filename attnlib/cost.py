"""What a network or a mechanism costs: parameters, arithmetic, memory traffic and time.

Arithmetic alone says little about attention: most mechanisms add almost none and still take time, because they read
and write the activations again. So the traffic stands beside it, against the least it could be.

Nothing here changes what it measures: modes, buffers, gradients and random numbers are afterwards as they were.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from attnlib.attention import Attention
from attnlib.registry import create

# Operators that only make room, and those that write their first argument without reading it.
_ALLOCATE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_OVERWRITE = {"copy_", "fill_", "zero_"}
_ROUNDS_AT_LEAST = 5
_CARD_CSS = (
    ".attn-card tbody+tbody>tr:first-child>*{padding-top:1em}"
    # Rows below a heading are set in from it, and lighter than it.
    ".attn-card tr:has([scope=rowgroup])~tr th{font-weight:normal;padding-left:1em}"
)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes that the operators of one forward pass read and write.

    Attributes:
        moved: bytes of the tensors that operators read and write, each operator by itself, caches not counted.
        least: bytes the mechanism cannot do without; None where nobody says (a whole network).
    """

    moved: int
    least: int | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the least is moved."""
        return self.moved / self.least if self.least else None


@dataclasses.dataclass(frozen=True)
class Latency:
    """Time of one pass over the example, in seconds: median and quartiles of `runs` measurements on this machine."""

    median: float
    low: float
    high: float
    runs: int
    batch: int
    device: str

    @property
    def throughput(self) -> float:
        """Pictures per second, at the median."""
        return self.batch / self.median

    def __str__(self) -> str:
        return (f"{self.median * 1e3:.3g} ms ({self.low * 1e3:.3g}–{self.high * 1e3:.3g}) for {self.batch} "
                f"picture{'s' * (self.batch != 1)}, {self.throughput:,.0f} per second, on {self.device}")


def parameters(module: nn.Module) -> int:
    """Number of parameters, learned or frozen; one that is used in two places counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def flops(module: nn.Module, example: Tensor) -> int:
    """Floating-point operations of a forward pass over the whole example, a multiply-add counted as two.

    PyTorch's own counter: convolutions, matrix products and attention kernels. Element-wise operations, norms and
    pooling are not counted. Papers often count a multiply-add once and per picture.

    Args:
        module: a network or mechanism.
        example: what it is called with, (B, C, H, W).
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with untouched(module), torch.no_grad(), counter:
        module(_checked(example))
    return counter.get_total_flops()


def traffic(module: nn.Module, example: Tensor) -> Traffic:
    """Bytes moved by a forward pass, and for a mechanism the least it can move: ``about.passes`` times the bytes of x.

    Counted at PyTorch's operators: the tensors each of them reads and writes, parameters included. What an operator
    moves inside itself is not seen, and a compiler that fuses two operators moves less.
    """
    count = _CountBytes()
    with untouched(module), torch.no_grad(), count:
        module(_checked(example))
    least = module.describe().passes * _bytes(example) if isinstance(module, Attention) else None
    return Traffic(count.total, least)


def latency(module: nn.Module, example: Tensor, *, backward: bool = False, seconds: float = 1.0) -> Latency:
    """Time of one pass, in evaluation mode without gradients; or of a forward and backward pass in training mode.

    The example is used as it comes, so its device, type and memory format (``example.to(memory_format=…)``) are what
    is measured; so are the module's. Run as one thread or as many as ``torch.get_num_threads()`` says.

    Args:
        module: a network or mechanism, on the example's device.
        example: (B, C, H, W).
        backward: time a training step without its optimiser instead.
        seconds: how long to measure, after a warm-up; at least five runs are made.
    """
    return latencies({"": module}, example, backward=backward, seconds=seconds)[""]


def latencies(modules: Mapping[str, nn.Module], example: Tensor, *, backward: bool = False,
              seconds: float = 1.0) -> dict[str, Latency]:
    """`latency` of several modules, measured in turn, so that a busy moment of the machine meets all of them.

    Args:
        seconds: for each module.
    """
    example = _checked(example)
    with contextlib.ExitStack() as stack:
        passes = {}
        for name, module in modules.items():
            stack.enter_context(untouched(module, training=backward))
            passes[name] = _training_pass(module, example) if backward else _forward_pass(module, example)
        timed = _in_turn(passes, seconds, example.device)
    device = torch.cuda.get_device_name(example.device) if example.is_cuda else _cpu()
    return {name: _summary(times, len(example), device) for name, times in timed.items()}


def table(models: Mapping[str, nn.Module], example: Tensor, *, backward: bool = False, seconds: float = 0.5):
    """What several models cost, side by side, per picture.

    Args:
        models: by the name of their row.
        example: (B, C, H, W), on the models' device.
        backward: time training steps rather than forward passes.
        seconds: of measurement for each model; 0 leaves the times out, so that the table is the same everywhere.

    Returns:
        a DataFrame with the columns ``parameters``, ``MFLOPs`` (multiply-add = 2), ``MB moved``, ``× least`` (NaN
        where no least is known) and, where measured, ``ms``, ``ms low``, ``ms high`` (quartiles), ``pictures/s``.
    """
    import pandas

    example = _checked(example)
    rows = {}
    for name, model in models.items():
        moved = traffic(model, example)
        rows[name] = {
            "parameters": parameters(model),
            "MFLOPs": flops(model, example) / len(example) / 1e6,
            "MB moved": moved.moved / len(example) / 1e6,
            "× least": moved.ratio if moved.ratio is not None else float("nan"),
        }
    if seconds:
        for name, timed in latencies(models, example, backward=backward, seconds=seconds).items():
            per_picture = 1e3 / len(example)
            rows[name] |= {"ms": timed.median * per_picture, "ms low": timed.low * per_picture,
                           "ms high": timed.high * per_picture, "pictures/s": timed.throughput}
    return pandas.DataFrame.from_dict(rows, orient="index")


def speed(path: str | Path, mechanism: str) -> dict[str, str]:
    """What `make bench` measured of a mechanism, as rows for its `card`.

    Args:
        path: of results/speed.json.
        mechanism: its registry name.

    Raises:
        FileNotFoundError: no such file.
        KeyError: the mechanism was not measured.
    """
    import json

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no {path}; `make bench` measures and writes it")
    known = json.loads(Path(path).read_text(encoding="utf-8"))
    if mechanism not in known:
        raise KeyError(f"{path} has no {mechanism!r}; measure it with `make bench ONLY={mechanism}`")
    found = known[mechanism]
    size, rows = "×".join(map(str, found["size"])), {}
    for part in ("forward", "forward and backward"):
        times = dict(found[part])
        ours, floor = times.pop("attnlib"), times.pop("memory floor", None)
        told = [f"{ours:,.0f} ms" if ours >= 100 else f"{ours:.3g} ms"]
        told += [f"{ours / floor:.2f} × the memory floor"] if floor else []
        told += [f"{ours / ms:.2f} × the time of {label}" for label, ms in times.items()]
        rows[f"{part}, {size}"] = ", ".join(told)
    return rows


@dataclasses.dataclass(frozen=True)
class Card:
    """The facts about a mechanism in the form every page ends with.

    Its text form leaves out what was timed, and so is the same on every machine.

    Attributes:
        title: the mechanism's name.
        groups: in their order, a heading (or none: ``""``) and the rows below it, pairs of a name and a value.
        timed: names of rows without a heading whose values differ from machine to machine.
    """

    title: str
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    timed: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = []
        for heading, rows in self.groups:
            indent = "    " if heading else "  "
            lines += [(f"  {heading}", "")] * bool(heading)
            lines += [(indent + name, value) for name, value in rows if heading or name not in self.timed]
        widest = max(len(name) for name, _ in lines)
        return "\n".join([self.title, *(f"{name:{widest}}  {value}".rstrip() for name, value in lines)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from attnlib.plot import stylesheet

        bodies = "".join(f"<tbody>{_heading(heading)}{''.join(_row(*row) for row in rows)}</tbody>"
                         for heading, rows in self.groups)
        return (f"<style>{stylesheet()}{_CARD_CSS}</style>"
                f'<table class="attn-card"><caption>{html.escape(self.title)}</caption>{bodies}</table>')


def card(mechanism: str | Attention, example: Tensor | None = None, *, paper: Mapping[str, Any] | None = None,
         measured: Mapping[str, Any] | None = None, network: nn.Module | None = None, use_when: str = "",
         not_when: str = "", seconds: float = 0.5) -> Card:
    """A mechanism's card: what it is, what it costs, what was claimed, what was found, when to use it.

    What is not given is printed as missing.

    Args:
        mechanism: a registry name, built for the example's channels; or a mechanism.
        example: what it is measured with, (B, C, H, W); by default one picture of 56×56 with the mechanism's channels
            (256 for a name), the end of a ResNet-50's first stage.
        paper: the paper's numbers, by what they are. They stand below the heading "in the paper".
        measured: this project's numbers, by what they are. They stand below the heading "measured here".
        network: a network that holds the mechanism, to count its parameters whole.
        use_when, not_when: a sentence each.
        seconds: of timing; 0 leaves the time out.
    """
    if example is None:
        channels = 256 if isinstance(mechanism, str) else mechanism.channels or 256
        example = torch.zeros(1, channels, 56, 56)
    module = create(mechanism, example.shape[1]) if isinstance(mechanism, str) else mechanism
    about, moved = module.describe(), traffic(module, example)
    shapes = _shapes(module, example)
    rows = {
        "paper": about.paper,
        "weights": f"{about.kind}, one for each {_each(about)}",
        "shapes": " → ".join(shapes),
        "parameters": f"{parameters(module):,}",
    }
    if network is not None:
        rows["in the whole network"] = f"{parameters(network):,} parameters ({type(network).__name__})"
    rows |= {
        "arithmetic": f"{_large(flops(module, example) / len(example))}FLOPs per picture (multiply-add = 2)",
        "memory traffic": f"{moved.moved / 1e6:.3g} MB, {moved.ratio:.2f} × the least possible",
        "time, on this machine": str(latency(module, example, seconds=seconds)) if seconds else "not measured",
    }
    groups = [("", rows)]
    for heading, numbers in (("in the paper", paper), ("measured here", measured)):
        groups.append((heading, numbers) if numbers else ("", {heading: "no number given"}))
    groups.append(("", {"use it when": use_when or "not said", "not when": not_when or "not said"}))
    rows_of = ((heading, tuple((str(name), str(value)) for name, value in each.items())) for heading, each in groups)
    return Card(about.title, tuple(rows_of), timed=("time, on this machine",))


def _heading(text: str) -> str:
    return f'<tr><th colspan="2" scope="rowgroup">{html.escape(text)}</th></tr>' if text else ""


def _row(name: str, value: str) -> str:
    return f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'


@contextlib.contextmanager
def untouched(module: nn.Module, training: bool = False):
    """Put `module` into one mode, and afterwards give back its modes, its buffers and the random state."""
    modes = {part: part.training for part in module.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    devices = {parameter.device.index for parameter in module.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices)):
        try:
            module.train(training)
            yield module
        finally:
            for part, mode in modes.items():
                part.training = mode
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


class _CountBytes(TorchDispatchMode):
    """Adds up the bytes of what every operator reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        name = operator.__name__.split(".")[0]
        read = _tensors((args[1:] if name in _OVERWRITE else args, kwargs))
        written = _tensors(result)
        if name not in _ALLOCATE and not self._view(operator, read, written):
            self.total += sum(_bytes(tensor) for tensor in (*read, *written))
        return result

    @staticmethod
    def _view(operator, read: list[Tensor], written: list[Tensor]) -> bool:
        """Whether only the shape changed: the results lie where the inputs lie, and nothing was written there."""
        places = {tensor.untyped_storage().data_ptr() for tensor in read}
        return not operator._schema.is_mutable and bool(written) and all(
            tensor.untyped_storage().data_ptr() in places for tensor in written
        )


def _tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(nested) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    """Bytes a tensor occupies: what was expanded lies in memory once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride()):
        count *= size if stride or not size else 1
    return count * tensor.element_size()


def _checked(example: Tensor) -> Tensor:
    if not isinstance(example, Tensor):
        raise TypeError(f"cost is measured on a torch.Tensor (B, C, H, W), not on a {type(example).__name__}")
    if example.numel() == 0:
        raise ValueError(f"an example of shape {tuple(example.shape)} holds no picture to measure with")
    return example.detach()


def _forward_pass(module: nn.Module, example: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            module(example)

    return run


def _training_pass(module: nn.Module, example: Tensor) -> Callable[[], None]:
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def run() -> None:
        # Gradients are returned rather than added to `.grad`, which belongs to whoever trains.
        with torch.enable_grad():
            x = example.clone().requires_grad_()
            outputs = [output for output in _tensors(module(x)) if output.requires_grad]
            if not outputs:
                raise ValueError(f"{type(module).__name__} gives nothing that has a gradient, so it cannot be trained")
            torch.autograd.grad(sum(output.sum() for output in outputs), [x, *learned], allow_unused=True)

    return run


def _in_turn(passes: Mapping[str, Callable[[], None]], seconds: float, device: torch.device) -> dict[str, list[float]]:
    """Times of each pass, one after another in rounds, until each had its seconds."""
    for run in passes.values():
        for _ in range(3):
            run()
    timed: dict[str, list[float]] = {name: [] for name in passes}
    clock = _gpu_seconds if device.type == "cuda" else _cpu_seconds
    spent = rounds = 0
    while rounds < _ROUNDS_AT_LEAST or spent < seconds * len(passes):
        for name, run in passes.items():
            timed[name].append(clock(run))
            spent += timed[name][-1]
        rounds += 1
    return timed


def _cpu_seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _gpu_seconds(run: Callable[[], None]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def _summary(times: list[float], batch: int, device: str) -> Latency:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(median, low, high, len(times), batch, device)


def _cpu() -> str:
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' * (threads != 1)}"


def _large(number: float) -> str:
    """Three digits and the prefix of a unit, which follows: ``16.4 k``."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g} "


def _shapes(module: Attention, example: Tensor) -> list[str]:
    with untouched(module), torch.no_grad():
        weights = module.attend(example)
        y = module.use(example, weights)
    return [f"{name} {tuple(tensor.shape)}" for name, tensor in (("x", example), ("weights", weights), ("y", y))]


def _each(about) -> str:
    """What there is one weight for: the axes that are not of size one."""
    named = [axis for axis, size in zip(about.axes, about.shape) if size != 1 and axis != "batch"]
    return ", ".join(named) + " of each picture" if named else "picture"
