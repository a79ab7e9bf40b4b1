"""Mask schedulers made of others: the sum of several, and one of several for each sample.

Each part draws from noise of its own. What a part learns, it learns from the mask that was used in the end.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from maskedmodel import Mask, MaskScheduler, Noise, Settings, Tokenizer, Tokens
from maskedmodel.errors import ConfigError
from maskedmodel.nested import Nested, build, inside
from maskedmodel.schedulers import FeatureEncoder, Observed
from maskedmodel.schedules import Weight, weight_at
from maskedmodel.tokens import hidden_count
from maskedmodel_masks.ranking import ranks, real_counts
from maskedmodel_masks.schedules import all_ratios, ratio_at, refuse_extremes
from maskedmodel_masks.uniform import RatioSettings, usual_count

TIE = 1e-3  # of a rank: noise decides among tokens that the parts hold for the same


class Part(BaseModel):
    """One of the schedulers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Annotated[Settings, Nested("mask_scheduler")] = Field(description="The mask, by name, with its settings.")
    weight: Weight = Field(
        1.0, description="What it counts for: a number, or a section with shape (linear, cosine), start and end."
    )


def _some_weight(parts: Sequence[Part]) -> None:
    for progress, when in ((0.0, "first"), (1.0, "last")):
        if not sum(weight_at(part.weight, progress) for part in parts) > 0:
            raise ValueError(f"at the {when} step all weights are 0, so that nothing decides")


C = TypeVar("C", bound=Settings)


class Combined(MaskScheduler[C]):
    """What all have: parts, attached and followed as if each stood alone."""

    def __init__(self, settings: C | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.parts = nn.ModuleList(build("mask_scheduler", of, path) for path, of in self._places())

    @abstractmethod
    def _places(self) -> list[tuple[str, Settings]]:
        """Where each part stands in the settings, and its own settings."""

    def each(self) -> Iterator[MaskScheduler[Any]]:
        """The parts."""
        for part in self.parts:
            assert isinstance(part, MaskScheduler)
            yield part

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        for (path, _), part in zip(self._places(), self.each(), strict=True):
            with inside("mask_scheduler", path):
                part.attach(tokenizer, encoder)

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        return all(part.deterministic for part in self.each())

    def after_step(self, encoder: FeatureEncoder, progress: float) -> None:
        for part in self.each():
            part.after_step(encoder, progress)

    @property
    def needs_statistics(self) -> bool:
        return any(part.needs_statistics for part in self.each())

    def fit_statistics(self, batches: Iterable[Tokens]) -> None:
        kept = list(batches)
        for part in self.each():
            if part.needs_statistics:
                part.fit_statistics(kept)

    def flops(self, length: int) -> float:
        return sum(part.flops(length) for part in self.each())


def own_noise(noise: Noise, number: int) -> Noise:
    """Noise of its own for a part: that of another seed."""
    mixed = (noise.seed * 0x9E3779B97F4A7C15 + number + 1) % 2**63
    return replace(noise, seed=mixed)


def learns(part: MaskScheduler[Any]) -> bool:
    """Whether a part looks at losses."""
    if isinstance(part, Combined):
        return any(map(learns, part.each()))
    return type(part).observe is not MaskScheduler.observe


def touching(loss: Tensor | None, part: nn.Module) -> Tensor | None:
    """A loss that every trained weight of the part enters, if only times zero: training on several devices waits."""
    for weight in part.parameters():
        if weight.requires_grad:
            loss = 0 * weight.sum() if loss is None else loss + 0 * weight.sum()
    return loss


class SumSettings(RatioSettings):
    """A weighted sum of what several masks hold for worth hiding."""

    name: Literal["sum"] = "sum"
    parts: tuple[Part, ...] = Field(min_length=1, description="The masks to add up, each with a weight.")

    @model_validator(mode="after")
    def _weighs(self) -> SumSettings:
        _some_weight(self.parts)
        return self


class Sum(Combined[SumSettings]):
    """Hides the tokens whose ranks, weighted and added over the parts, are highest.

    Scores of different masks have different scales, so each part's are taken as ranks within the sample, 0 for the
    token it would hide last to 1 for the one it would hide first. The ratio is the sum's own; that of a part shapes
    its pattern alone.
    """

    @classmethod
    def example_settings(cls, folder: Path) -> SumSettings:
        """Random noise and blocks, for the conformance kit."""
        return SumSettings.model_validate({"parts": [{"of": {"name": "uniform"}}, {"of": {"name": "blocks"}}]})

    def _places(self) -> list[tuple[str, Settings]]:
        return [(f"parts[{index}].of", part.of) for index, part in enumerate(self.settings.parts)]

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError, too, where the ratio hides none or all of the usual number of tokens, and where several
        parts make more of a mask than scores, such as gates.
        """
        super().attach(tokenizer, encoder)
        count = usual_count(tokenizer)
        if count is not None:
            refuse_extremes(all_ratios(self.settings.ratio), count, "mask.ratio", "tokens")
        if sum(gated(part) for part in self.each()) > 1:
            raise ConfigError(
                "Several parts of the mask 'sum' are trained through the mask itself, and it can't tell what each did.",
                where="mask.parts",
                expected="one such part at most",
                got=", ".join(part.component_name() for part in self.each() if gated(part)),
                fix="Leave one in, or take mask.name=choose.",
            )

    def ratio(self, progress: float) -> float:
        return ratio_at(self.settings.ratio, progress)

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        total = TIE * noise.uniform(tokens.length, "mask/ties")
        for index, (setting, part) in enumerate(zip(self.settings.parts, self.each(), strict=True)):
            own = part.scores(tokens, progress, own_noise(noise, index))
            total = total + weight_at(setting.weight, progress) * ranks(own.float(), tokens.valid)
        return total

    def sample(self, tokens: Tokens, progress: float, noise: Noise) -> Mask:
        mask = super().sample(tokens, progress, noise)
        for index, part in enumerate(self.each()):
            if gated(part):
                own = part.sample(tokens, progress, own_noise(noise, index))
                mask = replace(mask, gates=own.gates, made_by=own.made_by)
        return mask

    def flops(self, length: int) -> float:
        """That of all parts; one that makes more than scores scores once more, about a third of its work."""
        return sum(part.flops(length) * (4 / 3 if gated(part) else 1) for part in self.each())

    def observe(self, seen: Observed) -> Tensor | None:
        losses = [touching(part.observe(seen), part) for part in self.each() if learns(part)]
        known = [loss for loss in losses if loss is not None]
        return torch.stack(known).sum() if known else None


def gated(part: MaskScheduler[Any]) -> bool:
    """Whether a part makes more of a mask than scores: gates by which the loss trains it, or who made which row."""
    if isinstance(part, Combined):
        return any(gated(one) or (isinstance(part, Choose) and learns(one)) for one in part.each())
    return type(part).sample is not MaskScheduler.sample


class ChooseSettings(Settings):
    """One of several masks for each sample, drawn anew each time."""

    name: Literal["choose"] = "choose"
    parts: tuple[Part, ...] = Field(
        min_length=1, description="The masks to choose from; a weight is how likely one is beside the others'."
    )

    @model_validator(mode="after")
    def _weighs(self) -> ChooseSettings:
        _some_weight(self.parts)
        return self


class Choose(Combined[ChooseSettings]):
    """Draws for each sample which of the parts masks it, in proportion to their weights at the time.

    Each part keeps its own ratio and its own count. All of them are asked for every sample, so the work is that of all;
    a part learns from the samples that it masked.
    """

    @classmethod
    def example_settings(cls, folder: Path) -> ChooseSettings:
        """Random masks and blocks, for the conformance kit."""
        return ChooseSettings.model_validate({"parts": [{"of": {"name": "uniform"}}, {"of": {"name": "blocks"}}]})

    def _places(self) -> list[tuple[str, Settings]]:
        return [(f"parts[{index}].of", part.of) for index, part in enumerate(self.settings.parts)]

    def _shares(self, progress: float) -> list[float]:
        weights = [weight_at(part.weight, progress) for part in self.settings.parts]
        return [weight / sum(weights) for weight in weights]

    def chosen(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        """(B,) int64, the number of the part that masks each sample."""
        edges = torch.tensor(self._shares(progress), device=tokens.values.device).cumsum(0)[:-1]
        return torch.bucketize(noise.uniform(1, "mask/choose")[:, 0], edges, right=True)

    def ratio(self, progress: float) -> float:
        """The mean ratio over samples."""
        shares = self._shares(progress)
        return sum(share * part.ratio(progress) for share, part in zip(shares, self.each(), strict=True))

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        chosen = self.chosen(tokens, progress, noise)
        scores = [part.scores(tokens, progress, own_noise(noise, i)).float() for i, part in enumerate(self.each())]
        return torch.stack(scores, 1)[torch.arange(tokens.batch, device=chosen.device), chosen]

    def counts(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        chosen, real = self.chosen(tokens, progress, noise), real_counts(tokens.values[..., 0], tokens.valid)
        found = [count_of(part, tokens, real, progress, own_noise(noise, i)) for i, part in enumerate(self.each())]
        return torch.stack(found, 1).gather(1, chosen[:, None])[:, 0]

    def sample(self, tokens: Tokens, progress: float, noise: Noise) -> Mask:
        chosen = self.chosen(tokens, progress, noise)
        masks = [part.sample(tokens, progress, own_noise(noise, index)) for index, part in enumerate(self.each())]
        rows = torch.arange(tokens.batch, device=chosen.device)
        hidden = torch.stack([mask.hidden for mask in masks], 1)[rows, chosen]
        made = torch.zeros_like(chosen)
        for index, mask in enumerate(masks):  # a part that chooses itself says so in the higher digits
            inner = 0 if mask.made_by is None else mask.made_by
            made = torch.where(chosen == index, index + len(masks) * inner, made)
        gates = None
        if any(mask.gates is not None for mask in masks):
            ones = torch.ones_like(hidden, dtype=torch.float32)
            gates = torch.stack([ones if mask.gates is None else mask.gates for mask in masks], 1)[rows, chosen]
        widths, even = None, None
        known = [mask.widths for mask in masks if mask.widths is not None]
        if len(known) == len(masks):
            widths = (max(width[0] for width in known), max(width[1] for width in known))
            even = all(mask.even for mask in masks) and len(set(known)) == 1
        return Mask(hidden, tokens.valid, widths, even, gates, made)

    def flops(self, length: int) -> float:
        """At most that: as if each part learned from all samples, not from its own alone."""
        return super().flops(length)

    def observe(self, seen: Observed) -> Tensor | None:
        """The mean over samples of what each part says of those that it masked."""
        made, count, total = seen.mask.made_by, len(self.parts), None
        for index, part in enumerate(self.each()):
            if not learns(part) or made is None:
                continue
            rows = (made % count == index).nonzero()[:, 0]
            loss = None
            if len(rows):
                widths, even = (
                    (seen.mask.ids_keep.shape[1], seen.mask.ids_hidden.shape[1]),
                    seen.mask.hidden_valid is None,
                )
                mask = replace(seen.mask.rows(rows), widths=widths, even=even, made_by=made[rows] // count)
                some = (seen.tokens.rows(rows), mask, seen.loss_per_token[rows], seen.latent[rows], seen.progress)
                own = part.observe(Observed(*some))
                loss = None if own is None else own * (len(rows) / len(made))
            loss = touching(loss, part)
            total = loss if total is None or loss is None else total + loss
        return total


def count_of(part: MaskScheduler[Any], tokens: Tokens, real: Tensor, progress: float, noise: Noise) -> Tensor:
    """(B,) int64, how many tokens a part would hide of each sample."""
    counts = part.counts(tokens, progress, noise)
    if counts is None:
        return hidden_count(real, part.ratio(progress))
    return torch.as_tensor(counts, device=real.device).expand(len(real)).long()
