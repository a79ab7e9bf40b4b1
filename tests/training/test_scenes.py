"""Objectives that see a scene: their losses, their teacher and their state, however a batch is cut."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from maskedmodel import Mask, Settings
from maskedmodel.errors import PluginError
from maskedmodel.plugins import Registry
from maskedmodel.scenes import Scene, SceneObjective
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.distributed import World
from maskedmodel.training.masked import MaskedModelling
from maskedmodel.training.parts import Part, backward
from tests.training import conftest
from tests.training.test_loop import Go, assert_same_gradients, assert_same_metrics, assert_same_run, lines


class BothSettings(Settings):
    name: Literal["both"] = "both"


class Both(SceneObjective[BothSettings]):
    """One loss per hidden token, against a teacher, and one per sample, through a layer of its own."""

    names = ("tokens", "samples")
    seen: Tensor

    def meet(self, tokenizer: Any, encoder: Any) -> None:
        super().meet(tokenizer, encoder)
        self.project = nn.Linear(encoder.settings.dim, 3)
        self.register_buffer("seen", torch.zeros(()))
        self.dim = encoder.settings.dim

    def width(self, tokenizer: Any) -> int:
        return int(self.dim)

    def momentum(self, progress: float) -> float:
        return 0.5 + 0.25 * progress

    def weight(self, name: str, progress: float) -> float:
        return 0.5 + progress if name == "samples" else 1.0

    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        assert scene.teacher is not None
        assert not scene.teacher.requires_grad
        difference = scene.prediction - scene.at_hidden(scene.teacher)
        by_sample = self.project(scene.mean_of_visible()).square().mean(-1)
        by_sample = by_sample + scene.mean_of_hidden(scene.prediction.square()).mean(-1)
        return {"tokens": difference.square().mean(-1), "samples": by_sample}

    def after_step(self, encoder: Any, progress: float) -> None:
        super().after_step(encoder, progress)
        self.seen.add_(1)


BOTH = "objective.name=both"


@pytest.fixture(scope="module")
def registry() -> Registry:
    built_in: Registry = conftest.registry.__wrapped__()  # type: ignore[attr-defined]
    return replace(built_in, objectives={**built_in.objectives, "both": Both})


@pytest.fixture
def learning(configured: Callable[..., Any], registry: Registry) -> MaskedModelling:
    config = configured(BOTH)
    return MaskedModelling(conftest.build(config, registry)[0], config.train)


def signal(batch: int) -> Tensor:
    return torch.randn(batch, 2, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_accumulation_equals_one_batch(run: Go, tmp_path: Path, accumulate: int) -> None:
    run(tmp_path / "one", BOTH, "train.steps=1")
    run(tmp_path / "parts", BOTH, "train.steps=1", f"train.accumulate={accumulate}")
    assert_same_gradients(tmp_path / "one", tmp_path / "parts")
    run(tmp_path / "long", BOTH, "train.steps=4")
    run(tmp_path / "long parts", BOTH, "train.steps=4", f"train.accumulate={accumulate}")
    assert_same_metrics(tmp_path / "long", tmp_path / "long parts")


@pytest.mark.parametrize("cut", [4, 5, 1])
def test_ranks_of_any_size_add_up_to_one_process(learning: MaskedModelling, cut: int) -> None:
    """Of losses per token and per sample, also where broken samples leave the ranks with different numbers."""
    model = learning.model
    tokens = model.tokens(signal(8))
    scores = torch.rand(8, tokens.length, generator=torch.Generator().manual_seed(2))
    counts = torch.arange(1, 9).clamp(max=tokens.length - 1)
    mask = Mask.from_scores(scores, 0.5, None, counts)

    def gradients(rows: list[slice], world: int) -> tuple[float, list[Tensor]]:
        total = 0.0
        model.zero_grad(set_to_none=True)
        learning._sums = {name: (0.0, 0.0) for name in Both.names}
        for rank, some in enumerate(rows):
            part = mask.rows(torch.arange(8)[some])
            parts = [Part(tokens.rows(torch.arange(8)[some]), part, part.scored)]
            total += backward(
                learning, model, parts, mask.scored, World(rank, world, torch.device("cpu")), 0.5, samples=8
            )
        found = [p.grad / world for p in model.parameters() if p.grad is not None]
        return total, found

    whole, ours = gradients([slice(0, 8)], 1)
    split, theirs = gradients([slice(0, cut), slice(cut, 8)], 2)
    assert split == pytest.approx(whole, rel=1e-5)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_each_loss_is_recorded_and_their_weighted_sum_learned(run: Go, tmp_path: Path) -> None:
    run(tmp_path, BOTH, "train.steps=3", "train.accumulate=4")
    steps = [line for line in lines(tmp_path) if "loss" in line]
    assert len(steps) == 3
    for index, line in enumerate(steps):
        weight = 0.5 + index / 2
        assert line["loss"] == pytest.approx(line["loss_tokens"] + weight * line["loss_samples"], rel=1e-5)


def test_a_resumed_run_is_the_straight_one_with_teacher_layer_and_buffer(run: Go, tmp_path: Path) -> None:
    run(tmp_path / "straight", BOTH, "train.steps=8", "train.checkpoint_every=4")
    run(tmp_path / "cut", BOTH, "train.steps=8", "train.checkpoint_every=4")
    shutil.rmtree(checkpoints.newest(tmp_path / "cut"))
    run(tmp_path / "cut", BOTH, "train.steps=8", "train.checkpoint_every=4")
    assert_same_run(tmp_path / "straight", tmp_path / "cut")
    tensors = checkpoints.read_model(checkpoints.newest(tmp_path / "cut"))
    assert tensors["objective.seen"] == 8
    assert any(name.startswith("objective.teacher.") for name in tensors)


def test_the_teacher_is_the_moving_average_and_takes_no_gradient(learning: MaskedModelling) -> None:
    model, objective = learning.model, learning.model.objective
    assert isinstance(objective, Both)
    assert objective.teacher is not None
    model(signal(4), progress=0.5).loss.backward()
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert objective.project.weight.grad is not None
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    was = copy.deepcopy(dict(objective.teacher.named_parameters()))
    learning.after_step(0.5)
    for name, parameter in model.encoder.named_parameters():
        now = objective.teacher.get_parameter(name)
        torch.testing.assert_close(now, 0.625 * was[name] + 0.375 * parameter)
    learning.after_step(0.0)
    for name, parameter in model.encoder.named_parameters():
        assert torch.equal(objective.teacher.get_parameter(name), parameter)


def test_hidden_values_reach_the_loss_but_not_the_prediction(learning: MaskedModelling) -> None:
    model = learning.model
    tokens = model.tokens(signal(3))
    values = tokens.values.clone().requires_grad_()
    output = model(replace(tokens, values=values))
    (gradient,) = torch.autograd.grad(output.prediction.sum() + output.latent.sum(), values)
    assert (gradient[output.mask.hidden] == 0).all()
    assert (gradient[output.mask.visible] != 0).any()


class Wrong(Both):
    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        return {"tokens": scene.prediction, "samples": scene.prediction.mean((1, 2))}


class Unnamed(Both):
    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        return {"other": scene.prediction.mean(-1)}


@pytest.mark.parametrize(("kind", "said"), [(Wrong, "wrong shape"), (Unnamed, "other losses than it names")])
def test_wrong_losses_are_refused(kind: type[Both], said: str, learning: MaskedModelling) -> None:
    learning.model.objective.__class__ = kind
    with pytest.raises(PluginError, match=said):
        learning.model(signal(2))


def test_values_that_are_absent_are_refused(learning: MaskedModelling) -> None:
    tokens = learning.model.tokens(signal(2))
    absent = replace(tokens, observed=torch.ones_like(tokens.values, dtype=torch.bool))
    with pytest.raises(PluginError, match="there in part"):
        learning.model(absent)


def test_there_is_no_target_of_values_alone() -> None:
    with pytest.raises(PluginError, match="sees a scene"):
        Both().target(torch.zeros(1, 1, 1))
