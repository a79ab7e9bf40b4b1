"""What an encoder makes of a few samples, drawn: where it looks, what its tokens tell apart, and where it errs.

A number for each token is drawn where the tokenizer's own picture shows that token, whatever the modality.

Shapes: B batch, L tokens, D width, H and W of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maskedmodel.components import Tokenizer
from maskedmodel.engine.model import MaskedAutoencoder, fitting
from maskedmodel.engine.positions import gather_tokens
from maskedmodel.evaluation.canvas import Panel, Sheet
from maskedmodel.evaluation.features import evaluating
from maskedmodel.evaluation.reconstruct import fixed_mask, pixels_of
from maskedmodel.pictures.scales import ABSENT, heat
from maskedmodel.scenes import SceneObjective
from maskedmodel.tokens import Tokens

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 6  # samples
MASKS = 8  # that errors are averaged over
_ENDS = (0.01, 0.99)  # of a component's values: what lies beyond is drawn as they are


class Places:
    """Which token each pixel of a picture shows: `of` (B, L, C) values makes a picture (B, C, H, W), NaN where none is.

    Where a pixel shows several tokens, as those of a picture's channels may be, it is given the mean over all tokens of
    their place.
    """

    def __init__(self, tokenizer: Tokenizer[Any], tokens: Tokens) -> None:
        batch, length = tokens.batch, tokens.length
        device = tokens.values.device
        self.real = torch.ones(batch, length, dtype=torch.bool, device=device) if tokens.valid is None else tokens.valid
        number = torch.arange(length, device=device).expand(batch, -1)
        self.token = self._decoded(tokenizer, tokens, number)
        coords = tokens.coords if tokens.coords.dim() == 3 else tokens.coords.expand(batch, -1, -1)
        cells, place = torch.unique(coords.flatten(0, 1), dim=0, return_inverse=True)
        self.place, self.cells = place.reshape(batch, length), len(cells)
        self.cell = self._decoded(tokenizer, tokens, self.place) if bool((self.token < 0).any()) else self.token

    def _decoded(self, tokenizer: Tokenizer[Any], tokens: Tokens, codes: Tensor) -> Tensor:
        """The code (B, L) that each pixel's tokens have in common, (B, H, W), -1 where there is none: bit by bit."""
        found = torch.zeros_like(pixels_of(tokenizer, tokens, self.real), dtype=torch.long)
        known = pixels_of(tokenizer, tokens, self.real)
        for bit in range(int(codes.max()).bit_length()):
            chosen = (codes >> bit & 1).bool()
            one = pixels_of(tokenizer, tokens, chosen & self.real)
            known = known & (one | pixels_of(tokenizer, tokens, ~chosen & self.real))
            found += one.long() << bit
        return torch.where(known, found, -1)

    def of(self, values_BLC: Tensor) -> Tensor:
        """The picture (B, C, H, W)."""
        drawn = _at(values_BLC, self.token)
        if self.cell is self.token:
            return drawn
        weight = (self.real[..., None] & ~values_BLC.isnan()).to(values_BLC.dtype)
        index = self.place[..., None].expand_as(values_BLC)
        size = (len(values_BLC), self.cells, values_BLC.shape[2])
        summed = values_BLC.new_zeros(size).scatter_add(1, index, values_BLC.nan_to_num() * weight)
        count = values_BLC.new_zeros(size).scatter_add(1, index, weight)
        return torch.where((self.token < 0)[:, None], _at(summed / count, self.cell), drawn)


def _at(values_BLC: Tensor, index_BHW: Tensor) -> Tensor:
    """(B, C, H, W) values by index; NaN where that is -1."""
    batch, height, width = index_BHW.shape
    flat = index_BHW.clamp(min=0).reshape(batch, -1, 1).expand(-1, -1, values_BLC.shape[2])
    found = values_BLC.gather(1, flat).movedim(1, 2).reshape(batch, -1, height, width)
    return torch.where((index_BHW < 0)[:, None], torch.nan, found)


def components(features_BLD: Tensor, real_BL: Tensor) -> Tensor:
    """Three principal components of all real tokens together, each as a colour in [0, 1], (B, L, 3).

    As DINOv2 shows its tokens (Oquab et al. 2023). The value that is largest in size is high on each, so that colours
    are never inverted.
    """
    x = features_BLD[real_BL].double()
    x = x - x.mean(0)
    _, _, axes = torch.linalg.svd(x, full_matrices=False)
    found = torch.zeros(len(x), 3, dtype=torch.float64, device=x.device)
    along = x @ axes[:3].T
    largest = along.gather(0, along.abs().argmax(0, keepdim=True))
    found[:, : along.shape[1]] = along * torch.where(largest < 0, -1.0, 1.0)
    low, high = torch.quantile(found, torch.tensor(_ENDS, dtype=torch.float64, device=x.device), dim=0)
    scaled = ((found - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    colours = torch.zeros(*real_BL.shape, 3, device=x.device)
    colours[real_BL] = scaled.float()
    return colours


def errors(model: MaskedAutoencoder, tokens: Tokens, ids: Sequence[str | int], seed: int, progress: float) -> Tensor:
    """The loss of each token in the training target space, (B, L): the mean over the masks of MASKS that hide it.

    NaN where none does.
    """
    total = torch.zeros(tokens.batch, tokens.length, device=tokens.values.device)
    count = torch.zeros_like(total)
    for draw in range(MASKS):
        mask = fitting(fixed_mask(model, tokens, ids, seed=seed + draw, progress=progress), tokens)
        if isinstance(model.objective, SceneObjective):  # it sees more than predictions
            loss = model(tokens, mask, progress=progress).loss_per_token
        else:
            prediction = gather_tokens(model.predict_everywhere(tokens, mask), mask.ids_hidden)
            loss = model.score(prediction, tokens, mask)
        there = torch.ones_like(loss) if mask.hidden_valid is None else mask.hidden_valid.to(loss.dtype)
        total.scatter_add_(1, mask.ids_hidden, loss * there)
        count.scatter_add_(1, mask.ids_hidden, there)
    return torch.where(count > 0, total / count, torch.nan)


@torch.no_grad()
def inside(
    model: MaskedAutoencoder,
    signals: Tensor,
    ids: Sequence[str | int],
    *,
    seed: int = 0,
    progress: float = 1.0,
    step: int | None = None,
) -> Image.Image:
    """A prepared batch, a row per sample: original | the class token's attention | tokens as colours | errors.

    What the model doesn't have is left out, and the picture says so.
    """
    tokenizer = model.tokenizer
    with evaluating(model):
        tokens = model.tokens(signals)
        places = Places(tokenizer, tokens)
        original = tokenizer.picture(tokenizer.detokenize(tokens.values, tokens))
        columns, lines, captions = {"original": original}, [], list(map(str, ids))
        if model.settings.encoder.class_token:
            share = model.encoder.class_attention(tokens) * places.real.sum(1, keepdim=True)  # 1: an even share
            least = share.masked_fill(~places.real, torch.inf).amin(1, keepdim=True)
            most = share.masked_fill(~places.real, -torch.inf).amax(1, keepdim=True)
            columns["class token's attention"] = _heat(places, (share - least) / (most - least).clamp(min=1e-12))
            bounds = zip(ids, least[:, 0].tolist(), most[:, 0].tolist(), strict=True)
            captions = [f"{name}: attention {low:.2f} to {high:.2f} times an even share" for name, low, high in bounds]
            lines.append(
                "Attention: of the class token in the last block, nothing hidden, mean over heads; black the least of "
                "a sample, white its most."
            )
        else:
            lines.append("This encoder has no class token, so there is no attention of it to show.")
        features = model.encoder.features(tokens)[:, model.encoder.prefix :]
        colours = places.of(components(features.float(), places.real))
        columns["tokens as colours"] = colours.nan_to_num(ABSENT)
        lines.append(
            "Colours: the first three principal components of the tokens of these samples, after the last block, as "
            "red, green and blue. Alike in colour is alike to the encoder."
        )
        if model.gives_signals():
            error = errors(model, tokens, ids, seed, progress)
            known = error[~error.isnan()]
            worst = float(known.quantile(_ENDS[1])) if len(known) else 1.0
            columns["where it errs"] = _heat(places, (error / max(worst, 1e-12)).clamp(max=1))
            lines.append(
                f"Errors: loss of a token where it is hidden, in the training target space, mean over those of {MASKS} "
                f"masks that hide it; black 0, white {worst:.3g} or more, grey hidden by none."
            )
        else:
            lines.append("The objective predicts no signal, so there is no map of errors.")
    when = "" if step is None else f", checkpoint of step {step:,}"
    sheet = Sheet(
        title=f"Inside the encoder{when}",
        lines=lines,
        headings=list(columns),
        rows=[[Panel(column[row]) for column in columns.values()] for row in range(len(original))],
        captions=captions,
        scales=tokenizer.scales(signals),
        facts={"mode": "inside the encoder", "step": "" if step is None else str(step)},
    )
    return sheet.draw()


def _heat(places: Places, level_BL: Tensor) -> Tensor:
    return heat(places.of(level_BL[..., None].float())[:, 0])
