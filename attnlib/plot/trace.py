"""The steps of a mechanism, read from its own code by tracing `attend` and `use`."""

from __future__ import annotations

import dataclasses

import torch
import torch.fx
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

from attnlib.attention import Attention
from attnlib.cost import untouched
from attnlib.plot.diagram import Step

_OVER_AXES = {"mean", "sum", "amax", "amin", "max", "min", "softmax", "log_softmax", "std", "var", "norm", "cumsum",
              "cat", "stack"}
_SIGNS = {"mul": "×", "add": "+", "sub": "−", "truediv": "÷", "div": "÷", "matmul": "matrix product", "amax": "max"}
# Sizes that stand for the letters B, H and W: primes, so that they are not mistaken for channel counts.
_PRIMES = (3, 11, 13, 17, 19, 23)


@dataclasses.dataclass(frozen=True)
class Traced:
    """The two lists of steps, and the shapes of input, weights and output in letters."""

    attend: list[Step]
    use: list[Step]
    input: str
    weights: str
    output: str


def traced(attention: Attention, symbols: tuple[str, str] = ("x", "s")) -> Traced:
    """The steps and shapes of `attention` for feature maps (B, C, H, W).

    Where its code is not a plain chain of steps (branches, loops, conditions on shapes), its learned parts stand for
    `attend`, and ``use`` for what it does with them.

    Args:
        attention: the mechanism; it stays as it is.
        symbols: what the input and the weights are called where a step names them.
    """
    channels = attention.channels or 8
    batch, height, width = [prime for prime in _PRIMES if prime != channels][:3]
    parameter = next(attention.parameters(), torch.zeros(()))
    x = torch.zeros(batch, channels, height, width, dtype=parameter.dtype, device=parameter.device)
    reader = _Reader({batch: "B", height: "H", width: "W"}, dict(zip(("x", "weights"), symbols)))
    with untouched(attention), torch.no_grad():
        weights = attention.attend(x)
        output = attention.use(x, weights)
        attend = reader.steps(_Attend(attention), x) or _learned(attention)
        use = reader.steps(_Use(attention), x, weights) or [Step("use")]
    return Traced(attend, use, reader.shape(x), reader.shape(weights), reader.shape(output))


class _Attend(nn.Module):
    """One of a mechanism's two steps as a module of its own, which is what torch.fx can trace."""

    def __init__(self, owner: Attention) -> None:
        super().__init__()
        self.owner = owner

    def forward(self, x):
        return self.owner.attend(x)


class _Use(_Attend):
    def forward(self, x, weights):
        return self.owner.use(x, weights)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Turns traced code into steps, with `letters` for sizes and `symbols` for arguments."""

    letters: dict[int, str]
    symbols: dict[str, str]

    def shape(self, tensor) -> str:
        return "×".join(self.letters.get(size, str(size)) for size in tensor.shape)

    def steps(self, part: nn.Module, *inputs: torch.Tensor) -> list[Step] | None:
        """The steps, where each works on the one before and on nothing else but the inputs; None where not so."""
        try:
            traced = torch.fx.symbolic_trace(part)
            ShapeProp(traced).propagate(*inputs)
        except Exception:  # torch.fx has no base class for what it cannot follow
            return None
        _skip_identities(traced)
        steps, before = [], None
        given = {node for node in traced.graph.nodes if node.op == "placeholder"}
        for node in traced.graph.nodes:
            if node.op in ("placeholder", "output"):
                continue
            # `attend` may look back at its input only at first: later on, that is a branch the chain would hide.
            allowed = given | {before} if before is None or len(given) > 1 else {before}
            if not isinstance(node.meta.get("tensor_meta"), TensorMetadata) or not set(node.all_input_nodes) <= allowed:
                return None
            steps.append(self._step(node, traced))
            before = node
        return steps or None

    def _step(self, node, traced) -> Step:
        shape = self.shape(node.meta["tensor_meta"])
        if node.op != "call_module":
            return Step(self._words(node), "neutral", shape)
        module = traced.get_submodule(node.target)
        return Step(_name(module), "learned" if _has_parameters(module) else "neutral", shape)

    def _words(self, node) -> str:
        """What a function does, from its name and arguments: ``mean over H, W``, ``x × s``."""
        word = node.target if isinstance(node.target, str) else node.target.__name__
        word = _SIGNS.get(word, word)
        if word in "×+−÷" and len(node.all_input_nodes) == 2:
            return f" {word} ".join(self.symbols.get(str(argument), "…") for argument in node.args[:2])
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        dims = [dims] if isinstance(dims, int) else dims
        if word not in _OVER_AXES:  # the second argument of others is no axis: a window, a size
            return word
        if not isinstance(dims, (tuple, list)) or not dims or not all(isinstance(dim, int) for dim in dims):
            return word
        source = self.shape(node.args[0].meta["tensor_meta"]).split("×")
        if len(source) == 4 and source[2:] == ["H", "W"]:
            return f"{word} over {', '.join('BCHW'[dim] for dim in dims)}"
        return f"{word} over {'axes' if len(dims) > 1 else 'axis'} {', '.join(map(str, dims))}"


def _skip_identities(traced) -> None:
    """Take out what does nothing: an option of a mechanism that is not used is no step."""
    for node in traced.graph.nodes:
        if node.op == "call_module" and isinstance(traced.get_submodule(node.target), nn.Identity):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _name(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        size = "×".join(map(str, module.kernel_size))
        return f"{size} conv, {module.in_channels} → {module.out_channels}"
    if isinstance(module, nn.Linear):
        return f"linear, {module.in_features} → {module.out_features}"
    return type(module).__name__


def _learned(attention: Attention) -> list[Step]:
    return [Step(_name(part), "learned") for part in attention.children() if _has_parameters(part)] or [Step("attend")]
