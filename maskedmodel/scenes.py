"""Objectives that see a scene: more than hidden values and what was predicted for them.

`Objective` stays the simple case. A `SceneObjective` is a torch module: parameters it makes are trained, buffers are
checkpointed, and it may follow the encoder with a teacher. It gives named losses; the core masks, weighs and averages.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from maskedmodel.components import Objective, S, Tokenizer
from maskedmodel.errors import PluginError
from maskedmodel.schedulers import FeatureEncoder
from maskedmodel.tokens import Mask, Tokens

__all__ = ["Scene", "SceneObjective", "follow", "frozen_copy"]


@dataclass(frozen=True, eq=False)
class Scene:
    """What a `SceneObjective` is shown of a micro-batch, after the prediction was made: it can change no input of it.

    tokens      all tokens, hidden ones among them.
    mask        what was hidden; padding is neither visible nor hidden.
    prediction  (B, M, Q) float32, with gradient, in the order of `mask.ids_hidden`.
    latent      (B, S + K, D), with gradient: class and register tokens, then visible tokens.
    teacher     (B, L, D) float32, without gradient: the teacher's features of every token, nothing hidden; None where
                the objective has no teacher.
    progress    0 at the first step of a run, 1 at the last and in validation.
    """

    tokens: Tokens
    mask: Mask
    prediction: Tensor
    latent: Tensor
    teacher: Tensor | None
    progress: float

    def score(self, objective: Objective[Any], prediction: Tensor) -> Tensor:
        """The loss per hidden token (B, M) of an objective of hidden values, as the core takes it.

        `prediction` (B, M, Q) in float32 is what belongs to this objective. Raises PluginError as `score_values`.
        """
        observed = None if self.tokens.observed is None else self.at_hidden(self.tokens.observed)
        return score_values(objective, prediction, self.at_hidden(self.tokens.values).float(), observed)

    def at_hidden(self, values: Tensor) -> Tensor:
        """Those of a table of all tokens (B, L, N) that belong to hidden tokens, (B, M, N)."""
        return values.gather(1, self.mask.ids_hidden[..., None].expand(-1, -1, values.shape[-1]))

    def mean_of_hidden(self, values: Tensor) -> Tensor:
        """The mean (B, N) over a sample's hidden tokens of values (B, M, N), without what fills the mask up."""
        return _mean(values, self.mask.hidden_valid)

    def mean_of_visible(self) -> Tensor:
        """The mean (B, D) float32 of the latent over a sample's visible tokens, without what fills the mask up."""
        return _mean(self.latent[:, self.latent.shape[1] - self.mask.ids_keep.shape[1] :].float(), self.mask.keep_valid)


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return values.mean(1)
    return (values * valid[..., None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)


def score_values(objective: Objective[Any], prediction: Tensor, values: Tensor, observed: Tensor | None) -> Tensor:
    """The loss of each hidden token (B, M) by its prediction (B, M, Q) and its raw values (B, M, P), all float32.

    Where a token is there in part, `observed` (B, M, P) says which values count: the mean is over those alone, or what
    the objective's `loss_in_part` makes of them. Raises PluginError on an objective that can't score such tokens, and
    on a loss of a wrong shape.
    """
    who = objective.component_name()
    if observed is None:
        loss = objective.loss(prediction, objective.target(values))
    else:
        count = observed.sum(-1, keepdim=True).clamp(min=1)
        # Whatever stands for an absent value may have no say in how the others are normalised.
        target = objective.target(torch.where(observed, values, (values * observed).sum(-1, keepdim=True) / count))
        if not objective.scores_in_part() or target.shape != observed.shape:
            raise PluginError(
                f"Objective {who!r} can't score tokens that are there in part.",
                expected=f"by_value = True, and a target of one number per value, {tuple(observed.shape)}",
                got=f"by_value = {objective.by_value}, a target of {tuple(target.shape)}",
                fix="Choose an objective such as patch, or data without missing values.",
            )
        known = torch.where(observed, prediction, target)
        if objective.by_value:
            # A prediction that equals its target costs nothing, so the mean is over what was observed.
            loss = objective.loss(known, target) / (count[..., 0] / observed.shape[-1])
        else:
            loss = objective.loss_in_part(known, target, observed)
    if loss.shape != values.shape[:2]:
        raise PluginError(
            f"Objective {who!r} gave a loss of a wrong shape.",
            expected=f"(B, M) = {tuple(values.shape[:2])}",
            got=tuple(loss.shape),
        )
    return loss


class SceneObjective(Objective[S], nn.Module):
    """An objective that is shown a `Scene`, and gives one or several named losses.

    Attributes:
        names: what its losses are called: a run's metrics record each as `loss_` and its name.
        teacher: a module in the encoder's likeness, or None; part of the checkpoint, and takes no gradient.
    """

    names: ClassVar[Sequence[str]] = ()
    teacher: nn.Module | None

    def __init__(self, settings: S | None = None, **values: Any) -> None:
        nn.Module.__init__(self)
        Objective.__init__(self, settings, **values)
        self.teacher = None

    def meet(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Called once, after `attach` and before `width`, when a model is built: networks are made here.

        The live encoder must not be kept. An override calls `super().meet(...)`, which makes the teacher.
        """
        if self.momentum(0.0) is not None:
            self.teacher = frozen_copy(encoder)

    def momentum(self, progress: float) -> float | None:
        """The share of itself that the teacher keeps in a step; None: no teacher.

        After the first step nothing is kept, so that the teacher begins as the encoder, whatever that began with.
        """
        return None

    def taught(self, tokens: Tokens) -> Tensor | None:
        """(B, L, D) float32: the teacher's features of every token, nothing hidden; None without a teacher."""
        if self.teacher is None:
            return None
        features: Tensor = self.teacher.features(tokens)  # type: ignore[operator]
        return features[:, self.teacher.prefix :].float()

    @abstractmethod
    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        """By each of `names`, in float32: a loss per hidden token (B, M), or per sample (B,).

        The core leaves out what fills a mask up, and takes the mean over all hidden tokens, or all samples, of the
        global batch. A sample's losses may not depend on which others are in its micro-batch; a mean over its tokens
        is one of the scene's, since rows of a mask may be filled up.
        """

    def weight(self, name: str, progress: float) -> float:
        """What a loss counts for in the sum that is learned by."""
        return 1.0

    def after_step(self, encoder: FeatureEncoder, progress: float) -> None:
        """Called without gradients after the optimizer's step that was made at `progress`: the teacher follows."""
        keep = self.momentum(progress)
        if self.teacher is not None and keep is not None:
            follow(self.teacher, encoder, 0.0 if progress <= 0 else keep)

    def flops(self, visible: int, hidden: int) -> float:
        """Multiplications and additions, forward and backward, per sample, beyond the model's: a teacher's, say."""
        return 0.0

    def target(self, values: Tensor) -> NoReturn:
        """There is no target of values alone. Raises PluginError."""
        raise PluginError(
            f"Objective {self.component_name()!r} sees a scene: it has no target of hidden values alone.",
            expected="losses(scene)",
        )

    def loss(self, prediction: Tensor, target: Tensor) -> NoReturn:
        """As `target`. Raises PluginError."""
        self.target(target)


@dataclass(frozen=True, eq=False)
class Scored:
    """The losses of a micro-batch, weighted and by name.

    per_token   (B, M) float32, zero where the mask is filled up: the weighted sum of losses per token.
    per_sample  (B,) float32: that of losses per sample; None where there are none.
    named       each loss by its name, detached and not weighted.
    """

    per_token: Tensor
    per_sample: Tensor | None
    named: Mapping[str, Tensor]


def scored(objective: SceneObjective[Any], scene: Scene) -> Scored:
    """What an objective makes of a scene. Raises PluginError where names or shapes aren't what they should be."""
    losses, mask, who = objective.losses(scene), scene.mask, objective.component_name()
    if set(losses) != set(objective.names) or not losses:
        raise PluginError(
            f"Objective {who!r} gave other losses than it names.",
            expected=f"names = {sorted(objective.names)}, one or more",
            got=sorted(losses),
        )
    per_token = scene.prediction.new_zeros(mask.ids_hidden.shape)
    per_sample: Tensor | None = None
    named = {}
    for name in objective.names:
        loss, weight = losses[name], objective.weight(name, scene.progress)
        if loss.shape == mask.ids_hidden.shape:
            if mask.hidden_valid is not None:
                loss = loss.masked_fill(~mask.hidden_valid, 0)
            per_token = per_token + weight * loss
        elif loss.shape == mask.ids_hidden.shape[:1]:
            per_sample = weight * loss if per_sample is None else per_sample + weight * loss
        else:
            raise PluginError(
                f"Objective {who!r} gave a loss of a wrong shape.",
                where=name,
                expected=f"(B, M) = {tuple(mask.ids_hidden.shape)}, or (B,)",
                got=tuple(loss.shape),
            )
        named[name] = loss.detach()
    return Scored(per_token, per_sample, named)


def frozen_copy(module: Any) -> nn.Module:
    """A copy that takes no gradient: what a teacher begins as."""
    copied: nn.Module = copy.deepcopy(module)
    return copied.requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: Any, keep: float) -> None:
    """Move a teacher's weights towards the student's, of which it takes the share 1 - `keep`; buffers become equal."""
    for weight, goal in zip(teacher.parameters(), student.parameters(), strict=True):
        weight.lerp_(goal, 1 - keep)
    for buffer, value in zip(teacher.buffers(), student.buffers(), strict=True):
        buffer.copy_(value)
