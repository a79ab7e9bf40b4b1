"""Pictures of what a model completes, and of what its masks hide.

A normalised target leaves out each patch's mean and spread, so a picture needs them from somewhere. Taken from the
hidden patches themselves they make almost any model look good. The mode says whose they are, in the picture:

    oracle         the hidden patches' own: uses hidden statistics
    visible-stats  estimated from visible patches near by
    raw            none needed, since the model predicts the values themselves
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from maskedmodel.components import Tokenizer
from maskedmodel.engine.model import MaskedAutoencoder, fitting, mean_loss
from maskedmodel.engine.positions import gather_tokens
from maskedmodel.errors import ConfigError, ShapeError, suggestion
from maskedmodel.evaluation.canvas import GREY, Panel, Sheet, token_edges
from maskedmodel.evaluation.features import evaluating
from maskedmodel.noise import Noise
from maskedmodel.scenes import SceneObjective
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.tokens import Mask, Tokens

if TYPE_CHECKING:
    from PIL import Image

Mode = Literal["oracle", "visible-stats", "raw"]
FIXED = -1  # the epoch of masks that stay the same whatever training does
_SAYS: dict[str, str] = {
    "oracle": "oracle - uses hidden statistics: mean and spread of each hidden patch are taken from the hidden patch",
    "visible-stats": "visible-stats - mean and spread of hidden patches are estimated from visible patches",
    "raw": "raw - the model predicts the values themselves, no statistics needed",
}


def pick_mode(model: MaskedAutoencoder, mode: str | None = None) -> Mode:
    """The mode asked for, or the honest default: `raw` where the target leaves nothing out, else `visible-stats`.

    Raises ConfigError on an unknown mode and on one that doesn't go with the model's objective.
    """
    probe = torch.zeros(1, 1, model.tokenizer.token_width)
    raw = model.objective.statistics(probe) is None
    if mode is None:
        return "raw" if raw else "visible-stats"
    if mode not in get_args(Mode):
        raise ConfigError(
            "Unknown reconstruction mode.",
            expected=", ".join(get_args(Mode)),
            got=mode,
            fix=suggestion(mode, get_args(Mode)),
        )
    if raw and mode != "raw":
        raise ConfigError(
            f"Mode {mode!r} doesn't go with this model: it predicts the values themselves.",
            expected="raw",
            got=mode,
            fix="Leave the mode out.",
        )
    if not raw and mode == "raw":
        raise ConfigError(
            "Mode 'raw' doesn't go with this model: it predicts patches without their mean and spread.",
            expected="visible-stats or oracle",
            got=mode,
            fix="Leave the mode out, or pretrain with objective.normalise=false.",
        )
    return mode  # type: ignore[return-value]


def fixed_mask(
    model: MaskedAutoencoder, tokens: Tokens, ids: Sequence[str | int], *, seed: int = 0, progress: float = 1.0
) -> Mask:
    """The mask these samples always get in pictures: a function of seed and id alone."""
    noise = Noise.of(ids, seed=seed, epoch=FIXED, device=tokens.values.device)
    return model.scheduler.sample(tokens, progress, noise)


@dataclass(frozen=True, eq=False)
class Completed:
    """What a model makes of a batch under one mask, as signals (B, ...): what pictures and media are made from."""

    tokens: Tokens
    mask: Mask
    mode: Mode
    error: float  # the loss on hidden tokens, in the training target space
    signals: dict[str, Tensor]  # original, masked, reconstruction, pasted
    values: Tensor  # predicted, (B, L, P)


@torch.no_grad()
def complete(
    model: MaskedAutoencoder,
    signals: Tensor,
    ids: Sequence[str | int],
    *,
    mode: str | None = None,
    mask: Mask | None = None,
    seed: int = 0,
    progress: float = 1.0,
) -> Completed:
    """Complete a prepared batch. `ids` key the fixed masks; `mask` takes their place where given."""
    chosen = pick_mode(model, mode)
    with evaluating(model):
        tokens = model.tokens(signals)
        mask = fixed_mask(model, tokens, ids, seed=seed, progress=progress) if mask is None else mask
        mask = fitting(mask, tokens)
        prediction = model.predict_everywhere(tokens, mask)
        values = model.predicted_values(prediction, tokens, mask, "oracle" if chosen == "oracle" else "visible")
        pasted = torch.where(mask.visible[..., None], tokens.values.to(values.dtype), values)
        if isinstance(model.objective, SceneObjective):  # it sees more than predictions
            error = model(tokens, mask, progress=progress).loss
        else:
            error = mean_loss(model.score(gather_tokens(prediction, mask.ids_hidden), tokens, mask), mask)
        cut = {
            "original": tokens.values,
            "masked": _without_hidden(tokens, mask),
            "reconstruction": values,
            "pasted": pasted,
        }
        made = {name: model.tokenizer.detokenize(own, tokens) for name, own in cut.items()}
        return Completed(tokens, mask, chosen, float(error), made, values)


@torch.no_grad()
def draw(
    model: MaskedAutoencoder, done: Completed, *, step: int | None = None, captions: Sequence[str] | None = None
) -> Image.Image:
    """A grid with one row per sample: original | masked | reconstruction | visible patches pasted in.

    step      of the checkpoint, written into the picture.
    captions  a line under each row, such as a file's name.
    """
    original = done.signals["original"]
    columns = {name: model.tokenizer.picture(signal, original) for name, signal in done.signals.items()}
    columns["masked"] = masked_picture(model.tokenizer, done.tokens, done.mask)
    # No loss falls on visible tokens, so what is predicted there is noise: grey, and pasted in where pixels are shared.
    hidden, how = "grey", "Grey in the reconstruction: what the encoder was shown."
    if model.tokenizer.leaves_out:
        columns["reconstruction"] = _tokens_alone(model.tokenizer, done.values, done.tokens, done.mask.hidden)
        hidden, how = "left out", "Left out of the reconstruction: what the encoder was shown."
    else:
        seen = pixels_of(model.tokenizer, done.tokens, done.mask.visible)[:, None]
        columns["reconstruction"] = torch.where(seen, torch.full_like(columns["pasted"], GREY), columns["pasted"])
    ratio = _ratio(done.mask)
    baseline = model.objective.baseline(model.tokenizer)
    against = "" if baseline is None else f" (always predicting zero: {baseline:.3f})"
    when = "" if step is None else f", checkpoint of step {step:,}"
    sheet = Sheet(
        title=f"Reconstruction{when}",
        lines=[
            f"Mode: {_SAYS[done.mode]}.",
            f"{ratio:.1%} of the tokens hidden ({hidden}). Loss on hidden tokens, in the training target space: "
            f"{done.error:.3f}{against}.",
            f"{how} No loss falls there, so nothing is predicted.",
        ],
        headings=["original", "masked", "reconstruction", "visible pasted in"],
        rows=[[Panel(column[row]) for column in columns.values()] for row in range(len(original))],
        captions=captions,
        scales=model.tokenizer.scales(original),
        facts={"mode": _SAYS[done.mode], "ratio": f"{ratio:.4f}", "step": "" if step is None else str(step)},
    )
    return sheet.draw()


@torch.no_grad()
def media(model: MaskedAutoencoder, done: Completed, most: int = 4) -> dict[str, bytes]:
    """The files in which the tokenizer shows the first samples in time: "1-original.wav", "1-reconstruction.wav"."""
    found: dict[str, bytes] = {}
    for row in range(min(len(done.signals["original"]), most)):
        one = {name: signal[row : row + 1] for name, signal in done.signals.items()}
        found |= {f"{row + 1}-{name}": content for name, content in model.tokenizer.media(one).items()}
    return found


def reconstruction(
    model: MaskedAutoencoder,
    signals: Tensor,
    ids: Sequence[str | int],
    *,
    mode: str | None = None,
    mask: Mask | None = None,
    seed: int = 0,
    progress: float = 1.0,
    step: int | None = None,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """`complete` and `draw` in one."""
    _check_batch(signals, ids, captions)
    done = complete(model, signals, ids, mode=mode, mask=mask, seed=seed, progress=progress)
    return draw(model, done, step=step, captions=captions)


@torch.no_grad()
def preview(
    tokenizer: Tokenizer[Any],
    scheduler: MaskScheduler[Any],
    signals: Tensor,
    ids: Sequence[str | int],
    *,
    progress: Sequence[float] = (0.0, 0.5, 1.0),
    seed: int = 0,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """What a config does before anything is trained: the tokens' borders, and masks along the run.

    `progress` in [0, 1]: 0 the first step, 1 the last. `signals` is a prepared batch.
    """
    _check_batch(signals, ids, captions)
    tokens = tokenizer.tokenize(signals)
    signal = tokenizer.detokenize(tokens.values, tokens)
    original = tokenizer.picture(signal)
    edges: list[tuple[Tensor, Tensor] | None] = [None] * tokens.batch
    if not tokenizer.leaves_out:
        coords = tokens.coords if tokens.coords.dim() == 3 else tokens.coords.expand(tokens.batch, -1, -1)
        edges = [token_edges(chequer) for chequer in pixels_of(tokenizer, tokens, coords.sum(2).long() % 2 == 1)]
    headings, columns = ["tokens"], [original]
    for done in progress:
        mask = scheduler.sample(tokens, done, Noise.of(ids, seed=seed, epoch=FIXED, device=tokens.values.device))
        columns.append(masked_picture(tokenizer, tokens, mask))
        headings.append(f"at {done:.0%}: {_ratio(mask):.1%} hidden")
    grid = "" if tokens.grid is None else f" in a grid of {' x '.join(map(str, tokens.grid))}"
    channels = "" if tokens.channel is None else f", {len(torch.unique(tokens.channel))} channels"
    sheet = Sheet(
        title=f"Tokens of {tokenizer.component_name()!r}, masks of {scheduler.component_name()!r}",
        lines=[
            f"{tokens.length} tokens of {tokens.values.shape[2]} values{grid} ({', '.join(tokens.axes)}{channels}). "
            f"{'Left out' if tokenizer.leaves_out else 'Grey'}: hidden from the encoder."
        ],
        headings=headings,
        rows=[[Panel(column[row], edges[row]) for column in columns] for row in range(len(ids))],
        captions=captions,
        scales=tokenizer.scales(signal),
    )
    return sheet.draw()


def masked_picture(tokenizer: Tokenizer[Any], tokens: Tokens, mask: Mask) -> Tensor:
    """(B, 3, H, W) in [0, 1]: the signal as the encoder is given it, hidden tokens in grey.

    Where a pixel shows several tokens, as with tokens per channel, it is grey if all of them are hidden; else those
    that are hidden take the mean of the sample's visible values. Where the tokenizer `leaves_out`, visible tokens alone
    are drawn.
    """
    if tokenizer.leaves_out:
        return _tokens_alone(tokenizer, tokens.values, tokens, mask.visible)
    original = tokenizer.detokenize(tokens.values, tokens)
    shown = tokenizer.picture(tokenizer.detokenize(_without_hidden(tokens, mask), tokens), original)
    return torch.where(pixels_of(tokenizer, tokens, mask.hidden)[:, None], torch.full_like(shown, GREY), shown)


def _tokens_alone(tokenizer: Tokenizer[Any], values: Tensor, tokens: Tokens, chosen: Tensor) -> Tensor:
    """(B, 3, H, W): chosen tokens (B, L) with these values (B, L, P), as if there were no others."""
    original = tokenizer.detokenize(tokens.values, tokens)
    return tokenizer.picture(tokenizer.detokenize(values, replace(tokens, valid=chosen)), original)


def _without_hidden(tokens: Tokens, mask: Mask) -> Tensor:
    """The token values (B, L, P), those of hidden tokens replaced by the mean of the sample's visible values."""
    weight = mask.visible[..., None].to(tokens.values.dtype)
    count = weight.sum((1, 2), keepdim=True) * tokens.values.shape[2]
    return torch.where(
        mask.hidden[..., None], (tokens.values * weight).sum((1, 2), keepdim=True) / count, tokens.values
    )


def pixels_of(tokenizer: Tokenizer[Any], tokens: Tokens, chosen: Tensor) -> Tensor:
    """(B, H, W) bool: the pixels of the picture that show chosen tokens (B, L) alone.

    Only the tokenizer knows where a token lands in its picture. Where it doesn't say, it is found out: the values of
    the chosen tokens are moved to either end of the sample's range, then those of the others. A pixel that changes
    with the former and not with the latter shows chosen tokens alone.
    """
    said = tokenizer.footprint(tokens, chosen)
    if said is not None:
        return said
    values = tokens.values
    flat = values.flatten(1)
    ends = [flat.amin(1), flat.amax(1)]
    ends[1] = torch.where(ends[1] > ends[0], ends[1], ends[0] + 1)  # a constant sample has to change, too
    original = tokenizer.detokenize(values, tokens)
    before = tokenizer.picture(original, original)

    def changed(which: Tensor) -> Tensor:
        seen = torch.zeros_like(before[:, 0], dtype=torch.bool)
        for end in ends:
            moved = torch.where(which[..., None], end[:, None, None], values)
            after = tokenizer.picture(tokenizer.detokenize(moved, tokens), original)
            seen |= (after - before).abs().amax(1) > 1e-4
        return seen

    return changed(chosen) & ~changed(~chosen)


def _ratio(mask: Mask) -> float:
    real = mask.hidden.numel() if mask.valid is None else int(mask.valid.sum())
    return int(mask.scored) / real


def _check_batch(signals: Tensor, ids: Sequence[str | int], captions: Sequence[str] | None) -> None:
    count = len(signals)
    if not count or len(ids) != count or (captions is not None and len(captions) != count):
        raise ShapeError(
            "Pictures need one id, and one caption if any, per signal.",
            expected=f"{count} of each, at least 1",
            got=f"{len(ids)} ids, {'no' if captions is None else len(captions)} captions",
        )
