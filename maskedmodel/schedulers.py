"""What a mask scheduler is: which tokens are hidden, and how many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from maskedmodel.components import Component, S, Tokenizer
from maskedmodel.errors import PluginError
from maskedmodel.noise import Noise
from maskedmodel.tokens import Mask, Tokens

__all__ = ["FeatureEncoder", "MaskScheduler", "Observed"]


class FeatureEncoder(Protocol):
    """What a mask scheduler may ask of the encoder it is attached to."""

    settings: Any  # dim, heads, depth, class_token, ... as in a config's model.encoder

    @property
    def prefix(self) -> int:
        """S, the number of class and register tokens."""

    def features(self, tokens: Tokens) -> Tensor:
        """(B, S + L, D), nothing hidden."""

    def class_attention(self, tokens: Tokens) -> Tensor:
        """(B, L) float32: how much the class token attends to each token in the last block, nothing hidden."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What a mask scheduler sees of a micro-batch after the forward pass.

    loss_per_token  (B, M) float32, detached, in the order of `mask.ids_hidden`.
    latent          (B, S + K, D), with gradient.
    progress        that of the step.
    """

    tokens: Tokens
    mask: Mask
    loss_per_token: Tensor
    latent: Tensor
    progress: float


class MaskScheduler(Component[S], nn.Module, ABC):
    """Decides which tokens are hidden.

    A pure function of `progress` (0 at the first step, 1 at the last), its own checkpointed state (parameters and
    buffers) and the noise it is handed. It counts no calls: a counter in a data worker ramps at a speed that depends
    on the number of workers, and is lost at a resume.
    """

    deterministic: bool = False  # whether masks follow from the tokens alone, so that noise may change nothing

    def __init__(self, settings: S | None = None, **values: Any) -> None:
        nn.Module.__init__(self)
        Component.__init__(self, settings, **values)

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Called once, when a model is built: networks are made here, so that the optimizer and checkpoints have them.

        A teacher is a deep copy of `encoder` that takes no gradient; the live one must not be kept. Raises ConfigError
        where this scheduler can't work on such tokens, naming the setting.
        """

    @abstractmethod
    def ratio(self, progress: float) -> float:
        """The share of real tokens to hide, in (0, 1)."""

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        """(B, L): the tokens with the highest scores are hidden. Default: noise, so every set is as likely."""
        return noise.uniform(tokens.length)

    def counts(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor | int | None:
        """How many tokens to hide, where that isn't `ratio` of the real ones. The noise is that of `scores`.

        An int holds for every row, and goes only with tokens that are all real; (B,) int64 differs by content.
        """
        return None

    def bounds(self, tokens: Tokens, progress: float) -> tuple[int, int] | None:
        """The fewest and the most that `counts` (B,) may say, where known: then no device waits for it to be read."""
        return None

    def sample(self, tokens: Tokens, progress: float, noise: Noise) -> Mask:
        """The mask of a batch. Given: ranks `scores` and hides the highest. Raises PluginError on a wrong shape."""
        return self.ranked(self.scores(tokens, progress, noise), tokens, progress, noise)

    def ranked(self, scores: Tensor, tokens: Tokens, progress: float, noise: Noise) -> Mask:
        """The mask that hides the highest `scores` (B, L): the second half of `sample`, given scores."""
        ratio = self.ratio(progress)
        if not 0 < ratio < 1:
            raise PluginError(
                f"Mask scheduler {self.component_name()!r} gave a ratio that hides all or nothing.",
                expected="a number between 0 and 1, both excluded",
                got=ratio,
            )
        if scores.shape != (tokens.batch, tokens.length):
            raise PluginError(
                f"Mask scheduler {self.component_name()!r} gave scores of a wrong shape.",
                expected=f"(B, L) = {(tokens.batch, tokens.length)}",
                got=tuple(scores.shape),
            )
        if scores.device.type == "cpu" and bool(scores.isnan().any()):  # elsewhere looking would make the device wait
            raise PluginError(
                f"Mask scheduler {self.component_name()!r} gave scores that are NaN.",
                expected="finite numbers: NaN has no rank",
                got=f"{int(scores.isnan().sum())} of {scores.numel()}",
            )
        counts, bounds = self.counts(tokens, progress, noise), self.bounds(tokens, progress)
        return Mask.from_scores(scores, ratio, tokens.valid, counts, bounds)

    def observe(self, seen: Observed) -> Tensor | None:
        """Learn from a micro-batch. May return a loss of its own, a mean over its samples, which is added."""
        return None

    def after_step(self, encoder: FeatureEncoder, progress: float) -> None:
        """Called without gradients after the optimizer's step that was made at `progress`: a teacher follows here."""

    @property
    def needs_statistics(self) -> bool:
        """Whether `fit_statistics` must see data before training. Its results are buffers, stored with the run."""
        return False

    def fit_statistics(self, batches: Iterable[Tokens]) -> None:
        """Measure over the tokens of prepared batches, once per run, what masks depend on."""

    def flops(self, length: int) -> float:
        """Multiplications and additions, forward and backward, per sample of `length` tokens, beyond the model's."""
        return 0.0
