"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) on tokens, so for every modality that fills a grid.

Samples are mixed in pairs that stand side by side in the order of the data: the first with the second, the third with
the fourth. What is drawn is keyed by the pair's first sample. So a batch comes out the same however it is cut into
micro-batches and ranks, as long as no cut falls within a pair.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from maskedmodel.errors import ConfigError
from maskedmodel.noise import Noise
from maskedmodel.tokens import Tokens


def mixed(tokens: Tokens, noise: Noise, mixup: float, cutmix: float) -> tuple[Tokens, Tensor, Tensor]:
    """The tokens mixed with those of their partners, how much of each sample is its own (B,), and the partners (B,).

    mixup, cutmix  the parameters of the beta distribution from which shares are drawn, 0: not used. With both, a pair
                   takes one or the other by the toss of a coin. A sample that is alone at the end stays as it is.

    Raises ConfigError where tokens fill no grid that all samples share, or some aren't there.
    """
    if tokens.grid is None or tokens.coords.dim() != 2 or tokens.valid is not None or tokens.observed is not None:
        raise ConfigError(
            "Samples of this kind can't be mixed.",
            where="adapt.mixup, adapt.cutmix",
            expected="tokens that fill one grid and are all there",
            got="tokens off a grid, ragged, or with values missing",
            fix="Set both to 0.",
        )
    batch, device = tokens.batch, tokens.values.device
    order = torch.arange(batch, device=device)
    partner = torch.where(order % 2 == 0, order + 1, order - 1)
    partner = torch.where(partner < batch, partner, order)
    first = torch.minimum(order, partner)
    axes = len(tokens.axes)
    drawn = noise.uniform(2 + axes, "mixing")[first]
    cuts = drawn[:, 0] < (0.5 if mixup and cutmix else float(cutmix > 0))
    own = torch.where(cuts, _beta(drawn[:, 1], cutmix or 1.0), _beta(drawn[:, 1], mixup or 1.0))
    own = torch.where(partner == order, 1.0, own)
    boxed = _box(tokens, 1 - own, drawn[:, 2:])
    # The share that a box really takes: it ends at the border, and covers whole tokens.
    share = torch.where(cuts, 1 - boxed.float().mean(1), own)
    weight = torch.where(cuts[:, None], 1 - boxed.to(share.dtype), share[:, None])[..., None].to(tokens.values.dtype)
    values = tokens.values * weight + tokens.values[partner] * (1 - weight)
    return replace(tokens, values=values), torch.where(partner == order, 1.0, share), partner


def _beta(uniform: Tensor, alpha: float) -> Tensor:
    """Beta(alpha, alpha) out of uniform numbers, by the inverse of its distribution."""
    from scipy.special import betaincinv  # type: ignore[import-untyped]

    return torch.as_tensor(betaincinv(alpha, alpha, uniform.double().cpu().numpy())).to(uniform)


def _box(tokens: Tokens, volume: Tensor, centre: Tensor) -> Tensor:
    """(B, L) bool: the tokens in a box that fills `volume` (B,) of the grid about `centre` (B, A), all of a channel."""
    assert tokens.grid is not None
    extents = torch.tensor(tokens.grid, device=volume.device, dtype=volume.dtype)
    half = 0.5 * volume[:, None] ** (1 / len(tokens.axes))
    at = (tokens.coords.to(volume.dtype) + 0.5) / extents
    return ((at[None] - centre[:, None]).abs() < half[:, None]).all(-1)
