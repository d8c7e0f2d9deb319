"""Dynamic capacity network: a cheap network looks everywhere, an expensive one where the answer hangs on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.arguments import whole
from attnlib.attention import Attention, Description
from attnlib.registry import register
from attnlib.spatial.dcn_networks import coarse_network, fine_network, top_network

CHOICES = ("entropy", "norm", "random")


class Refined(NamedTuple):
    """What a dynamic capacity network gives in training: ``logits`` (B, classes), and ``hint`` (B,), the squared
    distance between fine and coarse vectors, summed over the chosen positions of each picture."""

    logits: Tensor
    hint: Tensor


@register("dcn")
class DynamicCapacityNetwork(Attention):
    """Classify by cheap features, ask which of them the doubt hangs on, and compute those anew with more effort.

    Almahairi, Ballas, Cooijmans, Zheng, Larochelle, Courville, "Dynamic Capacity Networks", ICML 2016,
    arXiv:1511.07838. ::

        c   = coarse(x)                        a vector at every position           (B, D, h, w)
        H   = entropy of softmax(top(c))       how unsure the coarse answer is      (B,)
        M   = length of dH/dc at a position    how much the doubt hangs on it       (B, h, w)
        f   = fine(patch of x at a position)   at the k positions with largest M    (B·k, D)
        y   = top(c with f in those places)    the answer                           (B, classes)

    The weights are the choice: 1 at the k positions, 0 elsewhere. No gradient passes through it. Neutral is 0
    everywhere: switched off, the answer is the coarse one. Any other choice can be put in its place, with another
    number of positions for each picture; what is not 0 is refined.

    In training the output is `Refined`, with the paper's *hint*: fine vectors teach the coarse ones to be like them, so
    that `top` can read both. Only the coarse network learns from it. `hinted` makes the loss of both. In evaluation the
    output is the logits alone.

    ``k=0`` and ``k="all"`` are the two ends, which the paper calls the coarse and the fine model: neither has to
    choose, their hint is 0, and the second has no use for a coarse network. `k` is an attribute and may be changed
    after training.

    The default networks have the paper's kernels and widths on cluttered MNIST: coarse 7×7 and 3×3 with stride 2,
    12 and 24 channels; fine five times 3×3, 24 channels; top 4×4 with stride 2, 96 channels, the maximum over
    positions, one linear layer. They differ in being padded, so that any size will do and patches at the border reach
    beyond it; and in that the fine one does not pool, so that it sees 11×11 pixels, just as the coarse one does. The
    first two have batch normalisation; `top` has none, as it runs twice.

    Choosing needs the gradient of H, under ``torch.no_grad()`` and in inference mode too. Because of it a network that
    chooses by entropy cannot be exported, and is compiled in parts. A `top` of one's own may hold batch normalisation,
    whose statistics in training then come from coarse and refined vectors alike.

    Args:
        channels: C, channels of the input.
        classes: number of classes.
        k: positions that are refined in each picture, or ``"all"``.
        coarse: a network (B, C, H, W) → (B, D, h, w).
        fine: a network (n, C, patch, patch) → (n, D) or (n, D, 1, 1).
        top: a network (B, D, h, w) → (B, classes).
        patch, stride, padding: which pixels belong to a position: those that a convolution with such a kernel would
            see. h and w follow from them.
        fill: value of pixels beyond the border, as the fine network sees them.
        choose: ``"entropy"``, the paper's; ``"norm"``, the positions with the longest coarse vectors; or
            ``"random"``, anew in every pass. Of equals the first in reading order is chosen.

    Shapes:
        x (B, C, H, W) → weights (B, 1, h, w) → logits (B, classes).

    Raises:
        ValueError: numbers that are none or too small, an unknown word; when it runs, a picture smaller than a patch,
            k larger than the number of positions, weights or features of another shape.
    """

    about = Description(
        title="Dynamic capacity network",
        paper="Almahairi, Ballas, Cooijmans, Zheng, Larochelle, Courville. Dynamic Capacity Networks. ICML 2016. "
              "arXiv:1511.07838",
        cite="almahairi2016dcn",
        axes=("batch", "channel", "row", "column"),
        shape=("B", 1, "h", "w"),
        passes=2,  # x is read by the coarse network, and again, in part or whole, by the fine one
        place="last",
        drop_in=False,
        looks="where a cheap answer's entropy is most sensitive",
        acts="an expensive network computes those places anew",
    )

    def __init__(
        self,
        channels: int,
        classes: int = 10,
        k: int | Literal["all"] = 8,
        *,
        coarse: nn.Module | None = None,
        fine: nn.Module | None = None,
        top: nn.Module | None = None,
        patch: int = 11,
        stride: int = 4,
        padding: int = 5,
        fill: float = 0.0,
        choose: Literal["entropy", "norm", "random"] = "entropy",
    ) -> None:
        super().__init__(channels)
        for name, value, least in (("classes", classes, 2), ("patch", patch, 1), ("stride", stride, 1),
                                   ("padding", padding, 0), ("k", 0 if k == "all" else k, 0)):
            whole(name if name != "k" else "k, unless it is 'all',", value, least)
        if choose not in CHOICES:
            raise ValueError(f"choose is one of {', '.join(CHOICES)}, not {choose!r}")
        if fine is None and patch != 11:
            raise ValueError(f"the default fine network sees 11×11 pixels; give another one for a patch of {patch}")
        self.classes, self.k, self.choose = classes, k, choose
        self.patch, self.stride, self.padding, self.fill = patch, stride, padding, float(fill)
        self.coarse = coarse_network(channels) if coarse is None else coarse
        self.fine = fine_network(channels) if fine is None else fine
        self.top = top_network(classes) if top is None else top

    # -- looking

    def attend(self, x: Tensor) -> Tensor:
        grid = self.grid(x)
        if self.k in (0, "all"):
            return x.new_full((len(x), 1, *grid), 0.0 if self.k == 0 else 1.0)
        chosen = self.chosen(self._coarse(x))
        return x.new_zeros(len(x), grid[0] * grid[1]).scatter(1, chosen, 1.0).unflatten(1, (1, *grid))

    def chosen(self, coarse: Tensor) -> Tensor:
        """The numbers of the k positions to refine, in reading order: (B, k), from coarse vectors (B, D, h, w)."""
        if self.choose == "random":
            scores = torch.rand(len(coarse), *coarse.shape[2:], device=coarse.device)
        else:
            scores = self.saliency(coarse) if self.choose == "entropy" else _length(coarse.detach())
        # A stable sort, as topk names any of several equals.
        order = scores.flatten(1).sort(dim=1, descending=True, stable=True).indices
        return order[:, : self.k].sort(1).values

    def saliency(self, coarse: Tensor) -> Tensor:
        """M, how strongly the entropy of the coarse answer depends on each coarse vector: (B, h, w)."""
        # Also where nobody else wants a gradient. Inference tensors cannot have one, but their copies can.
        with torch.inference_mode(False), torch.enable_grad():
            vectors = (coarse.clone() if coarse.is_inference() else coarse).detach().requires_grad_()
            # As a view, for a counter of operations hangs itself to what a module is given, and cannot to a leaf.
            doubt = entropy(self.top(vectors.view_as(vectors))).sum()
            return _length(torch.autograd.grad(doubt, vectors)[0])

    # -- acting

    def use(self, x: Tensor, weights: Tensor) -> Tensor | Refined:
        _check_shape("the weights of dcn", weights, (len(x), 1, *self.grid(x)))
        picture, position = (weights.flatten(1) != 0).nonzero(as_tuple=True)
        return self._answer(x, self._coarse(x), picture, position)

    def fused(self, x: Tensor) -> Tensor | Refined:
        # With one coarse pass, and shapes that do not depend on the choice.
        if self.k == "all":
            return self._all_fine(x)
        coarse = self._coarse(x)
        if self.k == 0:
            return self._output(self.top(coarse))
        chosen = self.chosen(coarse)
        picture = torch.arange(len(x), device=x.device)[:, None].expand_as(chosen)
        return self._answer(x, coarse, picture.flatten(), chosen.flatten())

    def neutral(self, x: Tensor, weights: Tensor) -> Tensor:
        return torch.zeros_like(weights)

    def patches(self, x: Tensor, picture: Tensor, position: Tensor) -> Tensor:
        """The pixels of n positions, given by the numbers (n,) of pictures and of positions: (n, C, patch, patch)."""
        padded = F.pad(x, (self.padding,) * 4, value=self.fill)
        within = torch.arange(self.patch, device=x.device)
        columns = self.grid(x)[1]
        down = (position // columns * self.stride)[:, None] + within
        right = (position % columns * self.stride)[:, None] + within
        cut = padded.permute(0, 2, 3, 1)[picture[:, None, None], down[:, :, None], right[:, None, :]]
        return cut.permute(0, 3, 1, 2)

    def _coarse(self, x: Tensor) -> Tensor:
        coarse = self.coarse(x)
        _check_shape("the coarse network", coarse, (len(x), None, *self.grid(x)))
        return coarse

    def _fine(self, x: Tensor, picture: Tensor, position: Tensor, width: int | None = None) -> Tensor:
        fine = self.fine(self.patches(x, picture, position)).flatten(1)
        _check_shape("the fine network", fine, (len(position), width))
        return fine

    def _answer(self, x: Tensor, coarse: Tensor, picture: Tensor, position: Tensor) -> Tensor | Refined:
        """The output, with fine vectors at some positions."""
        if not len(position):
            return self._output(self.top(coarse))
        vectors = coarse.flatten(2).mT  # (B, hw, D)
        fine = self._fine(x, picture, position, vectors.shape[2]).to(vectors.dtype)  # (n, D)
        refined = vectors.index_put((picture, position), fine)
        logits = self.top(refined.mT.unflatten(2, coarse.shape[2:]))
        if not self.training or self.k == "all":
            return self._output(logits)
        exact = torch.promote_types(fine.dtype, torch.float32)  # half precision would lose small distances
        apart = (fine.detach().to(exact) - vectors[picture, position].to(exact)).square().sum(1)
        return Refined(logits, apart.new_zeros(len(x)).index_add(0, picture, apart))

    def _all_fine(self, x: Tensor) -> Tensor | Refined:
        rows, columns = self.grid(x)
        picture, position = (axis.flatten() for axis in torch.meshgrid(
            torch.arange(len(x), device=x.device), torch.arange(rows * columns, device=x.device), indexing="ij"))
        vectors = self._fine(x, picture, position).unflatten(0, (len(x), rows, columns))
        return self._output(self.top(vectors.permute(0, 3, 1, 2)))

    def _output(self, logits: Tensor) -> Tensor | Refined:
        """The output where there is nothing to learn from hints."""
        return Refined(logits, logits.new_zeros(len(logits))) if self.training else logits

    # -- sizes

    def grid(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of the positions in pictures like x."""
        height, width = ((side + 2 * self.padding - self.patch) // self.stride + 1 for side in x.shape[2:])
        return height, width

    def check(self, x: Tensor) -> None:
        super().check(x)
        rows, columns = self.grid(x)
        if rows < 1 or columns < 1:
            raise ValueError(f"a picture of {x.shape[2]}×{x.shape[3]} pixels is smaller than a patch of {self.patch}")
        if self.k != "all" and self.k > rows * columns:
            raise ValueError(f"k={self.k} positions cannot be refined in a picture of {x.shape[2]}×{x.shape[3]} "
                             f"pixels, which has {rows}×{columns}; take a smaller k, or 'all'")


def entropy(logits: Tensor) -> Tensor:
    """How unsure an answer is, in nats: (B,), from logits (B, classes)."""
    log = logits.log_softmax(1)
    return -(log.exp() * log).sum(1)


def hinted(weight: float = 0.01) -> Callable[[Tensor | Refined, Tensor], Tensor]:
    """The training loss for `attnlib.fit`: cross-entropy, and `weight` times the mean hint, which no fine weight feels.

    It also takes logits alone, as they come in evaluation, and then is cross-entropy. The default weight is that of a
    public implementation (github.com/beopst/dcn.tf).
    """
    if not 0 <= weight < float("inf"):
        raise ValueError(f"the weight of the hint is 0 or more, not {weight}")

    def loss(outputs: Tensor | Refined, labels: Tensor) -> Tensor:
        if not isinstance(outputs, Refined):
            return F.cross_entropy(outputs, labels)
        answer = F.cross_entropy(outputs.logits, labels)
        return answer + weight * outputs.hint.mean() if weight else answer

    return loss


def accuracy(outputs: Tensor | Refined, labels: Tensor) -> Tensor:
    """Share of right answers, for `attnlib.fit`, in training and in evaluation."""
    logits = outputs.logits if isinstance(outputs, Refined) else outputs
    return (logits.argmax(1) == labels).float().mean()


def flops_by_k(network: DynamicCapacityNetwork, example: Tensor, ks: Iterable[int | str]) -> dict[int | str, int]:
    """Floating-point operations of a pass over `example` (B, C, H, W) with each k, as `attnlib.cost.flops` counts them.

    The gradient that chooses is counted too. The network is left as it was.
    """
    from attnlib.cost import flops

    before, counted = network.k, {}
    try:
        for network.k in ks:
            counted[network.k] = flops(network, example)
    finally:
        network.k = before
    return counted


def _length(vectors: Tensor) -> Tensor:
    """Lengths of the vectors at every position: (B, h, w), in float32 at least."""
    return torch.linalg.vector_norm(vectors, dim=1, dtype=torch.promote_types(vectors.dtype, torch.float32))


@torch.fx.wrap
def _check_shape(whose: str, tensor: Tensor, wanted: tuple[int | None, ...]) -> None:
    found = tuple(tensor.shape)
    if len(found) != len(wanted) or any(size not in (None, there) for size, there in zip(wanted, found)):
        shape = ", ".join("any" if size is None else str(size) for size in wanted)
        raise ValueError(f"{whose} should have the shape ({shape}) by its patch, stride and padding, not {found}")
