"""Checks of objectives that see a scene, in a tiny model over the kit's own tokenizers, or the one that it names."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import Objective, Tokenizer
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import MaskedModelError
from maskedmodel.noise import seeded
from maskedmodel.scenes import SceneObjective
from maskedmodel.testing.building import companions
from maskedmodel.testing.fixtures import TINY_MODEL, Fixed, boxes, generator
from maskedmodel.testing.rules import CheckFailed, NotApplicable, difference, require
from maskedmodel.tokens import Mask, Output, Tokens

AnyScene = SceneObjective[Any]


def is_scene(component: object) -> bool:
    """Whether an objective, or its class, is one that sees a scene."""
    return issubclass(component if isinstance(component, type) else type(component), SceneObjective)


def _models(objective: Objective[Any]) -> Iterator[tuple[MaskedAutoencoder, Tokens, Mask]]:
    """A model for each tokenizer that the objective goes with, four samples, and a mask of uneven rows."""
    found = 0
    tokenizers: list[tuple[str, Tokenizer[Any]]] = [*boxes().items(), *companions(objective)]
    for _, tokenizer in tokenizers:
        with seeded(0):
            try:
                model = MaskedAutoencoder(tokenizer, Fixed(), copy.deepcopy(objective), TINY_MODEL)
            except MaskedModelError:
                continue
        tokens = model.tokens(tokenizer.prepare(tokenizer.example(4, generator())))
        scores = torch.rand(4, tokens.length, generator=generator(2))
        found += 1
        yield (
            model,
            tokens,
            Mask.from_scores(scores, 0.5, tokens.valid, torch.arange(1, 5).clamp(max=tokens.length - 1)),
        )
    if not found:
        raise CheckFailed(objective, "it goes with no tokenizer", expected="one of the kit's, or example_tokenizer()")


def _run(model: MaskedAutoencoder, tokens: Tokens, mask: Mask) -> Output:
    output: Output = model(tokens, mask, progress=0.5)
    return output


def check_losses(objective: AnyScene) -> None:
    """It goes with a tokenizer, and gives the losses that it names, finite, per hidden token or per sample."""
    for model, tokens, mask in _models(objective):
        for name, loss in _run(model, tokens, mask).named.items():
            require(bool(loss.isfinite().all()), objective, f"loss {name!r} isn't finite", expected="finite losses")


def check_teacher_gradient(objective: AnyScene) -> None:
    """No gradient goes into the teacher, and what is learned by reaches the prediction or the encoder."""
    for model, tokens, mask in _models(objective):
        _run(model, tokens, mask).loss.backward()  # type: ignore[no-untyped-call]
        assert isinstance(model.objective, SceneObjective)
        weights = [(name, p) for name, p in model.objective.named_parameters() if "teacher" in name.split(".")]
        taught = [name for name, p in weights if p.requires_grad]
        require(
            not taught,
            objective,
            "a gradient goes into the teacher",
            expected="a teacher whose parameters take none",
            got=f"{len(taught)} that do, such as {taught[:1]}",
            fix="Make it by maskedmodel.scenes.frozen_copy.",
        )
        moved = [p.grad for p in model.encoder.parameters() if p.grad is not None]
        require(
            any(bool(grad.any()) for grad in moved),
            objective,
            "nothing is learned: the encoder gets no gradient",
            expected="losses made of scene.prediction or scene.latent",
        )


def check_split(objective: AnyScene) -> None:
    """The losses of a sample are the same, whichever samples share its micro-batch."""
    for model, tokens, mask in _models(objective):
        whole = _run(model, tokens, mask)
        for row in range(tokens.batch):
            one = torch.tensor([row])
            alone = _run(model, tokens.rows(one), mask.rows(one))
            for name, loss in alone.named.items():
                ours, theirs = loss[0], whole.named[name][row]
                width = min(ours.numel(), theirs.numel())  # what fills a row up differs
                away = difference(ours.reshape(-1)[:width], theirs.reshape(-1)[:width])
                require(
                    away <= 1e-4,
                    objective,
                    f"loss {name!r} of a sample depends on the micro-batch",
                    expected="the same alone and among others, within 1e-4 of the largest",
                    got=f"{away:.2g}",
                    fix="Take means over tokens by scene.mean_of_hidden and mean_of_visible, none over the batch.",
                )


def check_by_value(objective: AnyScene) -> None:
    """With by_value = True whatever stands for an absent value of a hidden token moves no loss."""
    declared = False
    for model, tokens, mask in _models(objective):
        if not model.objective.by_value or tokens.values.shape[-1] == 1:
            continue
        declared = True
        observed = torch.rand(tokens.values.shape, generator=generator(4)) < 0.7
        observed[..., 0] = True
        other = torch.where(observed | mask.visible[..., None], tokens.values, 7 - 2 * tokens.values)
        first, second = (
            _run(model, replace(tokens, values=v, observed=observed), mask) for v in (tokens.values, other)
        )
        for name, loss in first.named.items():
            away = difference(second.named[name], loss)
            require(
                away <= 1e-4,
                objective,
                f"by_value is True, and an absent value moves loss {name!r}",
                expected="the same loss whatever stands in its place, within 1e-4 of the largest",
                got=f"{away:.2g}",
                fix="Score hidden values by scene.score, or leave by_value False.",
            )
    if not declared:
        raise NotApplicable("by_value is False: it is refused on tokens that are there in part")


def check_state(objective: AnyScene) -> None:
    """What steps change is in the state dict: a copy restored from it gives the same losses."""
    for model, tokens, mask in _models(objective):
        fresh = copy.deepcopy(model)
        with torch.no_grad():
            for p in model.encoder.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator(7)))
            for progress in (0.0, 0.5):
                _run(model, tokens, mask)
                assert isinstance(model.objective, SceneObjective)
                model.objective.after_step(model.encoder, progress)
        fresh.load_state_dict(model.state_dict())
        ours, theirs = _run(model, tokens, mask).named, _run(fresh, tokens, mask).named
        lost = [name for name in ours if not torch.equal(ours[name], theirs[name])]
        require(
            not lost,
            objective,
            "its state isn't restored at a resume",
            expected="the same losses from the same state dict",
            got=f"others: {', '.join(lost)}",
            fix="Keep what steps change in buffers and parameters.",
        )


def check_flops(objective: AnyScene) -> None:
    """A teacher's pass costs something, and `flops` says so."""
    for model, tokens, _ in _models(objective):
        assert isinstance(model.objective, SceneObjective)
        if not any("teacher" in name.split(".") for name, _ in model.objective.named_parameters()):
            raise NotApplicable("it has no teacher")
        said: float | Tensor = model.objective.flops(tokens.length // 2, tokens.length - tokens.length // 2)
        require(said > 0, objective, "a teacher's work isn't declared", expected="flops above 0", got=said)
