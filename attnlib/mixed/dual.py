"""DANet's two modules: positions that attend to positions, and channels that attend to channels."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.registry import register

Variant = Literal["paper", "official"]
PAPER = ("Fu, Liu, Tian, Li, Bao, Fang, Lu. Dual Attention Network for Scene Segmentation. CVPR 2019. "
         "arXiv:1809.02983")
# From so many positions on, a CPU is faster with a fused kernel: the weights of a picture no longer fit its cache.
MANY = 1024


@register("position_attention")
class PositionAttention(Attention):
    """Position attention: every position adds what it finds at all others, by the likeness of their features.

    Fu, Liu, Tian, Li, Bao, Fang, Lu, "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv:1809.02983.
    With N = H·W positions and three 1×1 convolutions ::

        q, k, v = W_q x + b_q,  W_k x + b_k,  W_v x + b_v     the paper's C, B and D      (B, C/r or C, N)
        s_ji    = exp(q_j · k_i) / Σ_i exp(q_j · k_i)         how much j hears of i       (B, N, N)
        y_j     = α Σ_i s_ji v_i + x_j                                                    (B, C, H, W)

    The scale α is learned from 0, so that before any training y is x, exactly. With d = C/r channels for q and k there
    are 2d(C + 1) + C(C + 1) + 1 parameters. The products are not divided by √d, as a transformer's are.

    Paper and released code differ: in the paper q and k have C channels, in the code C/8. The biases, and that the
    convolutions are 1×1, are from the code; they start as PyTorch's do, there too. b_k is without effect: it adds the
    same to all products of a query. pytorchcv's block is the ``"official"`` variant.

    While nobody watches the weights they need not be formed: `forward` then takes PyTorch's fused kernel
    (``scaled_dot_product_attention`` with ``scale=1``), which needs memory for N rather than N² numbers. On a CPU it
    is taken from `MANY` positions on, and only where q, k and v have equally many channels; with fewer positions two
    products of matrices are faster, and with fewer channels PyTorch has no such kernel there.

    Args:
        channels: C, channels of the input.
        reduction: r, by which C is divided for q and k (rounded down); by default 1, and 8 with ``"official"``.
        variant: ``"paper"`` or ``"official"``, the released code.

    Shapes:
        x (B, C, H, W) → weights (B, N, N), query by key, both row by row → y (B, C, H, W).

    Raises:
        ValueError: reduction below 1 or above C, or an unknown variant.
    """

    about = Description(
        title="Position attention",
        paper=PAPER,
        cite="fu2019danet",
        axes=("batch", "query", "key"),
        shape=("B", "N", "N"),
        kind="softmax",
        sums_over=("key",),
        passes=9,  # x is read, q, k and v are written and read, x is read again for the sum, and y is written
        place="last",
        looks="compare each position with all, softmax over all",
        acts="add the mean of all positions, by their shares",
    )

    def __init__(self, channels: int, reduction: float | None = None, *, variant: Variant = "paper") -> None:
        super().__init__(channels)
        _check_variant(type(self).__name__, variant)
        reduction = (1 if variant == "paper" else 8) if reduction is None else reduction
        if not 1 <= reduction <= channels:
            raise ValueError(
                f"{type(self).__name__}'s reduction must lie between 1 and the {channels} channels, not {reduction}")
        hidden = int(channels // reduction)
        self.query, self.key = nn.Conv2d(channels, hidden, 1), nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.alpha = nn.Parameter(torch.zeros(1))

    def describe(self) -> Description:
        share = self.query.out_channels / self.value.out_channels
        return dataclasses.replace(super().describe(), passes=int(5 + 4 * share))

    def attend(self, x: Tensor) -> Tensor:
        return _shares(self.query(x), self.key(x))  # (B, N, N)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return _added(x, self.alpha, _mean(self.value(x), weights))

    def fused(self, x: Tensor) -> Tensor:
        return _added(x, self.alpha, _mean_at_once(self.query(x), self.key(x), self.value(x)))


@register("channel_affinity")
class ChannelAffinity(Attention):
    """DANet's channel attention: every channel adds the others, by the likeness of their maps.

    Fu, Liu, Tian, Li, Bao, Fang, Lu, "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv:1809.02983.
    With x_i the map of channel i as a vector of N = H·W numbers ::

        e_ji = x_j · x_i                                energy                              (B, C, C)
        w_ji = exp(±e_ji) / Σ_i exp(±e_ji)              how much channel j hears of i       (B, C, C)
        y_j  = β Σ_i w_ji x_i + x_j                                                         (B, C, H, W)

    The scale β is learned from 0, so that before any training y is x, exactly. It is the only parameter.

    Paper and released code have opposite signs. In the paper channels with like maps add up (``+``). The code takes the
    softmax of max(e) − e, which is that of −e: each channel adds those that are *least* like it. The energies are sums
    over all positions and are divided by nothing, so that both softmaxes are close to 0 and 1 for all but small maps
    or small features; with ``+`` a channel then mostly finds itself. pytorchcv's block has the code's sign.

    Nothing is learned about the channels, and no channel is gated: not to be taken for squeeze-and-excitation, nor for
    the channel half of CBAM, both of which are called channel attention as well.

    Args:
        channels: C, channels of the input; nothing depends on it.
        variant: ``"paper"``, or ``"official"`` for the released code's sign.

    Shapes:
        x (B, C, H, W) → weights (B, C, C), the channel that hears by the channel heard → y (B, C, H, W).

    Raises:
        ValueError: an unknown variant.
    """

    about = Description(
        title="Channel affinity",
        paper=PAPER,
        cite="fu2019danet",
        axes=("batch", "channel", "source"),
        shape=("B", "C", "C"),
        kind="softmax",
        sums_over=("source",),
        passes=3,  # x is read for the energies, read again for the product and the sum, and y is written
        place="last",
        looks="compare each channel's map with all, softmax over all",
        acts="add the mean of all channels, by their shares",
    )

    def __init__(self, channels: int | None = None, *, variant: Variant = "paper") -> None:
        super().__init__(channels)
        _check_variant(type(self).__name__, variant)
        self.variant = variant
        self.beta = nn.Parameter(torch.zeros(1))

    def attend(self, x: Tensor) -> Tensor:
        maps = x.flatten(2)  # (B, C, N)
        energy = maps @ maps.mT  # (B, C, C)
        return (energy if self.variant == "paper" else -energy).softmax(2)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return _added(x, self.beta, weights @ x.flatten(2))


class Dual(PositionAttention):
    """Both of DANet's modules side by side: the sum of what they return.

    Fu, Liu, Tian, Li, Bao, Fang, Lu, "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv:1809.02983. ::

        y = (α Σ_i s_ji v_i + x) + (β Σ_i w_ji x_i + x)

    Each summand holds x, so that y is 2x before any training. In DANet's head each branch has a 3×3 convolution with
    batch normalisation and ReLU before its module and another one behind it; those are not part of this module.

    There are two softmaxes, and so two taps: ``weights``, of the positions, and ``channel.weights``. `record`,
    `switch_off` and `intervene` find both by themselves, or one of them with ``only=``. `attend` and `neutral` speak of
    the positions; the channel module does both of its steps inside `use`. It is not in the registry: ``Dual(64)``,
    ``insert(network, Dual)``.

    Args:
        channels: C, channels of the input.
        reduction: as for `PositionAttention`.
        variant: of both modules.

    Shapes:
        x (B, C, H, W) → weights (B, N, N), and ``channel.weights`` (B, C, C) → y (B, C, H, W).

    Raises:
        ValueError: as for `PositionAttention`.
    """

    about = dataclasses.replace(
        PositionAttention.about, title="Dual attention", name="",
        looks="compare positions, and compare channels' maps",
        acts="add the mean of all positions, and that of all channels",
    )

    def __init__(self, channels: int, reduction: float | None = None, *, variant: Variant = "paper") -> None:
        super().__init__(channels, reduction, variant=variant)
        self.channel = ChannelAffinity(channels, variant=variant)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return super().use(x, weights) + self.channel(x)

    def fused(self, x: Tensor) -> Tensor:
        return super().fused(x) + self.channel(x)


def _check_variant(who: str, variant: str) -> None:
    if variant not in ("paper", "official"):
        raise ValueError(f"{who}'s variant is 'paper' or 'official', not {variant!r}")


def _shares(query: Tensor, key: Tensor) -> Tensor:
    """Softmax of the products, over the keys: maps (B, d, H, W) → (B, N, N)."""
    return (query.flatten(2).mT @ key.flatten(2)).softmax(2)


def _mean(value: Tensor, shares: Tensor) -> Tensor:
    """The values (B, C, H, W) of all positions, added up by each position's shares: (B, C, N)."""
    return value.flatten(2) @ shares.mT


# Its `if` would stop torch.fx; wrapped, it is one opaque step of the traced graph.
@torch.fx.wrap
def _mean_at_once(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`_mean` of `_shares`, without forming the shares where that pays."""
    # An exported network serves maps of every size, so that nothing in it may depend on how many positions there are.
    few = not torch.compiler.is_exporting() and query.shape[2] * query.shape[3] < MANY
    if query.device.type == "cpu" and (few or query.shape[1] != value.shape[1]):
        return _mean(value, _shares(query, key))
    # One head, (B, 1, N, d). The CPU's kernel wants the channels next to each other in memory.
    query, key, value = (maps.flatten(2).mT.contiguous()[:, None] for maps in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0].mT


def _added(x: Tensor, scale: Tensor, seen: Tensor) -> Tensor:
    """`x` and `scale` times `seen` (B, C, N), in one pass."""
    return torch.addcmul(x, scale, seen.unflatten(2, x.shape[2:]))
