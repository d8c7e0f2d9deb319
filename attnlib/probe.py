"""Watch one forward pass of a network: which tensor is made of which, and which module returned it.

Nothing here asks what a module is. `places` reads off such a pass where a mechanism can stand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnlib.attention import Attention


@dataclasses.dataclass
class Value:
    """A tensor made of the network's input. One that was changed in place is a new value.

    Attributes:
        tensor: kept as long as the trace, so that no later tensor can take over its identity.
        parents: numbers of the values it was made of.
        gate: number of the last value before it that lies on every way from the input to it.
        operation: the torch function that made it; empty for the input and where that could not be seen.
        convs, steps: convolutions and operations on the longest way from the input to it.
        users: numbers of the values made of it.
        returned_by: the calls that returned it, inner ones first.
    """

    tensor: Tensor
    version: int
    parents: list[int]
    gate: int
    operation: str
    convs: int
    steps: int
    users: list[int] = dataclasses.field(default_factory=list)
    returned_by: list[Call] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Call:
    """One call of one module: the value it took first, the one it returned, and the numbers of those it made."""

    name: str
    module: nn.Module
    takes: int | None
    returns: int | None
    makes: range
    output: Any


class Trace:
    """One forward pass of a network.

    Attributes:
        values: in the order they were made, so that what a value is made of always has smaller numbers; 0 is the input.
        calls: the calls of each module, by its name.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model = model
        self.values = [Value(x, x._version, [], gate=-1, operation="", convs=0, steps=0)]
        self.calls: dict[str, list[Call]] = {}
        self._number = {id(x): 0}

    def known(self, thing: Any) -> list[int]:
        """Numbers of the values in `thing`, however nested; what was not made of the input has none."""
        return [self._number[id(tensor)] for tensor in _tensors(thing) if id(tensor) in self._number]

    def add(self, parents: list[int], made: Any, operation: str = "") -> None:
        """Number the tensors that were made of `parents`, but for those passed on untouched."""
        for tensor in _tensors(made) if parents else ():
            before = self._number.get(id(tensor))
            if before is not None and self.values[before].version == tensor._version:
                continue
            number = self._number[id(tensor)] = len(self.values)
            ways = [self.values[parent] for parent in parents]
            convs = max(way.convs for way in ways) + ("conv" in operation)
            steps = max(way.steps for way in ways) + 1
            self.values.append(Value(tensor, tensor._version, parents, self._meet(parents), operation, convs, steps))
            for way in ways:
                way.users.append(number)

    def _meet(self, numbers: list[int]) -> int:
        """The last value that lies on every way from the input to each of `numbers`."""
        meet, *others = numbers
        for other in others:
            # A gate is older than what lies behind it, so the younger of the two has to step back.
            while meet != other:
                if meet > other:
                    meet = self.values[meet].gate
                else:
                    other = self.values[other].gate
        return meet

    def end(self, call: Call) -> None:
        self.calls.setdefault(call.name, []).append(call)
        if call.returns is not None:
            self.values[call.returns].returned_by.append(call)

    def output(self, name: str) -> Tensor:
        """The feature map that the module called `name` returned."""
        return self.values[self.calls[name][0].returns].tensor

    def shape(self, number: int) -> tuple[int, ...]:
        return tuple(self.values[number].tensor.shape)

    def is_map(self, number: int) -> bool:
        """Whether a value is a feature map (B, C, H, W): four axes, the last two in the picture's proportions."""
        shape, (height, width) = self.shape(number), self.shape(0)[-2:]
        if len(shape) != 4 or 0 in shape:
            return False

        def distortion(rows: int, columns: int) -> float:
            return abs(math.log(rows * width / (columns * height)))

        rows, columns = shape[2:]
        # Every stride may have rounded by a pixel, and every convolution without padding cut some off.
        rounded = (rows - 1) * width <= (columns + 1) * height and (columns - 1) * height <= (rows + 1) * width
        fits = rounded or distortion(rows, columns) < 0.2
        channels_last = distortion(*shape[1:3]) == 0 < distortion(rows, columns)
        return fits and not channels_last

    def size(self, number: int | None) -> tuple[int, ...] | None:
        """Rows and columns of a feature map of more than one pixel; None for everything else."""
        if number is None or not self.is_map(number) or self.shape(number)[2:] == (1, 1):
            return None
        return self.shape(number)[2:]


def probe(model: nn.Module, x: Tensor | None = None) -> Trace:
    """Run `model` once on `x` and note what happens; leave the model, its modes and the random state as they were.

    Args:
        model: a network that takes one picture tensor.
        x: the input; by default zeros (1, C, 64, 96), C from the first convolution. Not square, so that the two axes
            of the picture can be told from all others.

    Raises:
        ValueError: the model does not run on `x`.
    """
    x = _picture(model) if x is None else x
    names = {module: name for name, module in outside_attentions(model)}
    trace = Trace(model, x)
    watch = _Watch(trace)
    entered: list[tuple[list[int], int]] = []

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
        entered.append((trace.known([args, kwargs]), len(trace.values)))
        watch.looks_away += isinstance(module, Attention)

    def leave(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        watch.looks_away -= isinstance(module, Attention)
        takes, first = entered.pop()
        # What no torch function was seen to make (custom autograd functions, the inside of mechanisms), it made.
        trace.add(takes, output)
        returns = trace.known(output) if isinstance(output, Tensor) else []
        made = range(first, len(trace.values))
        trace.end(Call(names[module], module, next(iter(takes), None), next(iter(returns), None), made, output))

    with contextlib.ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        stack.enter_context(_at_rest(model, x.device))
        stack.enter_context(watch)
        try:
            model(x)
        except Exception as error:
            raise ValueError(
                f"this {type(model).__name__} does not run on a picture of shape {tuple(x.shape)} "
                f"({type(error).__name__}: {str(error).strip()[:200]}); "
                f"pass one that it takes, such as example=torch.zeros(1, 3, 224, 224)"
            ) from error
    return trace


class _Watch(TorchFunctionMode):
    """Tells a trace of every torch function that the network calls."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.looks_away = 0

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        parents = self.trace.known([args, kwargs])
        made = function(*args, **kwargs)
        if not self.looks_away:
            self.trace.add(parents, made, getattr(function, "__name__", ""))
        return made


@contextlib.contextmanager
def _at_rest(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients, autocast, compilation or traces in the random state; then all as before."""
    modes = {module: module.training for module in model.modules()}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        if torch.amp.is_autocast_available(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if "torch._dynamo" in sys.modules:  # or else nothing is compiled, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        # Attributes rather than model.eval(): some networks do more than that in their train().
        for module in modes:
            module.training = False
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training


def _picture(model: nn.Module) -> Tensor:
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels > 0:
            return torch.zeros(1, module.in_channels, 64, 96, device=module.weight.device, dtype=module.weight.dtype)
    raise ValueError(
        f"this {type(model).__name__} has no Conv2d that tells its input; pass a picture: example=torch.zeros(...)"
    )


def outside_attentions(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module with its name, but for those inside a mechanism: they are its own business."""
    inside = {child for a in model.modules() if isinstance(a, Attention) for child in a.modules() if child is not a}
    return [(name, module) for name, module in model.named_modules() if module not in inside]


def _tensors(thing: Any) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        yield from _tensors(list(thing.values()))
    elif isinstance(thing, (list, tuple)):
        for part in thing:
            yield from _tensors(part)
