"""SpecAugment's stripes of time and frequency (Park et al. 2019), on the values of a spectrogram in fine-tuning.

Shapes as in tokens.py. A stripe covers some frames at every frequency, or some frequencies at every frame; what it
covers is set to the mean, which is zero once values are normalised. Stripes are finer than tokens, which a mask hides
whole. What is drawn is keyed by the sample.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import Tokenizer
from maskedmodel.errors import ConfigError
from maskedmodel.noise import Noise
from maskedmodel.tokenizers import NormalisedTokenizer
from maskedmodel.tokens import Tokens

AXES = ("time", "frequency")


def require_spectrogram(tokenizer: Tokenizer[Any]) -> None:
    """Raises ConfigError where a tokenizer's signals have no time and frequency, or no mean to put in their place."""
    if not isinstance(tokenizer, NormalisedTokenizer) or not set(AXES) <= set(tokenizer.axes):
        raise ConfigError(
            "Stripes of time and frequency need a spectrogram.",
            where="adapt.stripes",
            expected=f"a NormalisedTokenizer with the axes {' and '.join(AXES)}, such as spectrogram",
            got=f"{tokenizer.component_name()}, whose axes are {', '.join(tokenizer.axes)}",
            fix="Set adapt.stripes=0.",
        )


def stripes(tokenizer: Tokenizer[Any], signal: Tensor, noise: Noise, count: int, shares: tuple[float, float]) -> Tensor:
    """Which values of a prepared batch (B, C, *size) lie in a stripe, bool of that shape.

    count   stripes along each of `AXES`.
    shares  the widest stripe along each, as a share of what a sample has of it.

    Widths are uniform from none to the widest, places uniform over what the sample has: NaN after its end is no part
    of it, and in no stripe. As torchaudio's masks, which take their widest as numbers of frames and bins.
    """
    there = ~signal.isnan()
    covered = torch.zeros_like(there)
    for name, share in zip(AXES, shares, strict=True):
        dim = 2 + tokenizer.axes.index(name)
        others = [other for other in range(1, signal.dim()) if other != dim]
        own = there.sum(others) > 0  # (B, extent)
        place = torch.arange(signal.shape[dim], device=signal.device)
        extent = ((place + 1) * own).amax(1).double()  # up to the last that is there
        drawn = noise.uniform(2 * count, f"stripes of {name}").double().reshape(-1, count, 2)
        line = torch.zeros_like(own)
        for width, start in (drawn[:, number].unbind(1) for number in range(count)):
            wide = (width * ((share * extent).round() + 1)).floor()
            first = (start * (extent - wide + 1)).floor()
            line |= (place >= first[:, None]) & (place < (first + wide)[:, None])
        shape = [len(line), *(signal.shape[dim] if other == dim else 1 for other in range(1, signal.dim()))]
        covered |= line.reshape(shape)
    return covered & there


def striped(
    tokens: Tokens, tokenizer: Tokenizer[Any], signal: Tensor, noise: Noise, count: int, shares: tuple[float, float]
) -> Tokens:
    """The tokens of a prepared batch with `stripes` of it set to the mean."""
    assert isinstance(tokenizer, NormalisedTokenizer)
    covered = tokenizer.cut(stripes(tokenizer, signal, noise, count, shares))
    return replace(tokens, values=tokens.values.masked_fill(covered, 0))
