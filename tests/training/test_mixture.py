"""The objective `mixture`: its sum, its slices, its teachers and its state, however a batch is cut; what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from maskedmodel_objectives.mixture import Mixture
from torch import Tensor

import maskedmodel
from maskedmodel import Mask, MaskedAutoencoder
from maskedmodel.config.build import build_components
from maskedmodel.config.load import dump_config, load_config
from maskedmodel.errors import ConfigError
from maskedmodel.evaluation.probes import random_twin
from maskedmodel.noise import seeded
from maskedmodel.plugins import Registry
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import TINY_MODEL, Box, Fixed
from maskedmodel.testing.rules import CheckFailed
from maskedmodel.testing.runner import run_check
from maskedmodel.testing.scenes import check_flops
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.distributed import World
from maskedmodel.training.folder import settle
from maskedmodel.training.masked import MaskedModelling
from maskedmodel.training.parts import Part, backward
from tests.training import conftest
from tests.training.test_loop import Go, assert_same_gradients, assert_same_metrics, assert_same_run, lines
from tests.training.test_scenes import Both

PARTS = {
    "pixels": {"of": {"name": "patch"}},
    "raw": {"of": {"name": "patch", "normalise": False}, "weight": {"start": 0, "end": 2}},
    "features": {"of": {"name": "latent", "momentum": 0.5}, "weight": 0.5},
    "two": {"of": {"name": "both"}},
}
NAMES = ("pixels", "raw", "features", "two.tokens", "two.samples")


@pytest.fixture(scope="module")
def registry() -> Registry:
    built_in: Registry = conftest.registry.__wrapped__()  # type: ignore[attr-defined]
    return replace(built_in, objectives={**built_in.objectives, "both": Both})


MIXTURE = "objective=" + str({"name": "mixture", "parts": PARTS}).replace("'", '"')


@parametrize_checks(
    [
        Mixture,
        Mixture(parts={"raw": {"of": {"name": "patch", "normalise": False}}, "other": {"of": {"name": "patch"}}}),
        Mixture(parts={"inner": {"of": {"name": "mixture", "parts": {"deep": {"of": {"name": "latent"}}}}}}),
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def test_the_kit_looks_at_teachers_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Mixture.example_settings(Path())
    assert settings is not None
    run_check(check_flops, Mixture(settings))
    monkeypatch.setattr(Mixture, "flops", lambda self, visible, hidden: 0.0)
    with pytest.raises(CheckFailed, match="teacher's work isn't declared"):
        run_check(check_flops, Mixture(settings))


@pytest.fixture
def learning(configured: Callable[..., Any], registry: Registry) -> MaskedModelling:
    config = configured(MIXTURE)
    return MaskedModelling(conftest.build(config, registry)[0], config.train)


def signal(batch: int) -> Tensor:
    return torch.randn(batch, 2, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_accumulation_equals_one_batch(run: Go, tmp_path: Path, accumulate: int) -> None:
    run(tmp_path / "one", MIXTURE, "train.steps=1")
    run(tmp_path / "parts", MIXTURE, "train.steps=1", f"train.accumulate={accumulate}")
    assert_same_gradients(tmp_path / "one", tmp_path / "parts")
    run(tmp_path / "long", MIXTURE, "train.steps=4")
    run(tmp_path / "long parts", MIXTURE, "train.steps=4", f"train.accumulate={accumulate}")
    assert_same_metrics(tmp_path / "long", tmp_path / "long parts")


@pytest.mark.parametrize("cut", [4, 5, 1])
def test_ranks_of_any_size_add_up_to_one_process(learning: MaskedModelling, cut: int) -> None:
    model = learning.model
    tokens = model.tokens(signal(8))
    scores = torch.rand(8, tokens.length, generator=torch.Generator().manual_seed(2))
    mask = Mask.from_scores(scores, 0.5, None, torch.arange(1, 9).clamp(max=tokens.length - 1))

    def gradients(rows: list[slice], world: int) -> tuple[float, list[Tensor]]:
        total = 0.0
        model.zero_grad(set_to_none=True)
        learning._sums = {name: (0.0, 0.0) for name in NAMES}
        for rank, some in enumerate(rows):
            part = mask.rows(torch.arange(8)[some])
            parts = [Part(tokens.rows(torch.arange(8)[some]), part, part.scored)]
            total += backward(
                learning, model, parts, mask.scored, World(rank, world, torch.device("cpu")), 0.5, samples=8
            )
        return total, [p.grad / world for p in model.parameters() if p.grad is not None]

    whole, ours = gradients([slice(0, 8)], 1)
    split, theirs = gradients([slice(0, cut), slice(cut, 8)], 2)
    assert split == pytest.approx(whole, rel=1e-5)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_each_loss_is_recorded_and_their_weighted_sum_learned(run: Go, tmp_path: Path) -> None:
    run(tmp_path, MIXTURE, "train.steps=3", "train.accumulate=4")
    steps = [line for line in lines(tmp_path) if "loss" in line]
    assert len(steps) == 3
    for index, line in enumerate(steps):
        weights = {"pixels": 1.0, "raw": index, "features": 0.5, "two.tokens": 1.0, "two.samples": 0.5 + index / 2}
        total = sum(weight * line[f"loss_{name}"] for name, weight in weights.items())
        assert line["loss"] == pytest.approx(total, rel=1e-5)


def test_a_resumed_run_is_the_straight_one_with_teachers_layer_and_buffer(run: Go, tmp_path: Path) -> None:
    run(tmp_path / "straight", MIXTURE, "train.steps=8", "train.checkpoint_every=4")
    run(tmp_path / "cut", MIXTURE, "train.steps=8", "train.checkpoint_every=4")
    shutil.rmtree(checkpoints.newest(tmp_path / "cut"))
    run(tmp_path / "cut", MIXTURE, "train.steps=8", "train.checkpoint_every=4")
    assert_same_run(tmp_path / "straight", tmp_path / "cut")
    tensors = checkpoints.read_model(checkpoints.newest(tmp_path / "cut"))
    assert tensors["objective.parts.two.seen"] == 8
    for label in ("two", "features"):
        assert any(name.startswith(f"objective.parts.{label}.teacher.") for name in tensors)


def test_a_run_is_not_gone_on_with_under_other_parts(
    run: Go, tmp_path: Path, configured: Callable[..., Any], registry: Registry
) -> None:
    run(tmp_path, MIXTURE, "train.steps=1")
    settled = configured(MIXTURE, "train.steps=1")
    (tmp_path / "config.yaml").write_text(dump_config(settled), "utf-8")
    settle(tmp_path, settled, registry)
    with pytest.raises(ConfigError, match=r"objective\.parts\.features\.of\.momentum was 0\.5, now 0\.6"):
        settle(tmp_path, configured(MIXTURE, "train.steps=1", "objective.parts.features.of.momentum=0.6"), registry)


def test_a_part_in_a_mixture_scores_as_it_does_alone(configured: Callable[..., Any], registry: Registry) -> None:
    """Each is shown its own slice of the prediction and its own teacher: the losses are those of a model of its own."""
    mixed = conftest.build(configured(MIXTURE), registry)[0]
    tokens = mixed.tokens(signal(3))
    mask = Mask.from_scores(torch.rand(3, tokens.length, generator=torch.Generator().manual_seed(0)), 0.5)
    found, objective = mixed(tokens, mask, progress=0.5), mixed.objective
    assert isinstance(objective, Mixture)
    assert tuple(found.named) == NAMES
    assert found.prediction.shape[-1] == sum(s.stop - s.start for s in objective._slices.values())
    for label, part in PARTS.items():
        given = f"objective={part['of']}".replace("'", '"').replace("False", "false")
        alone = conftest.build(configured(given), registry)[0]
        alone.encoder.load_state_dict(mixed.encoder.state_dict())
        own = {k: v for k, v in mixed.decoder.state_dict().items() if not k.startswith("head")}
        own |= {k: v[objective._slices[label]] for k, v in mixed.decoder.state_dict().items() if k.startswith("head")}
        alone.decoder.load_state_dict(own)
        if label in objective.parts:
            alone.objective.load_state_dict(objective.parts[label].state_dict())
        expected = alone(tokens, mask, progress=0.5)
        losses = expected.named or {label: expected.loss_per_token}
        for name, loss in losses.items():
            ours = found.named[f"{label}.{name}" if len(losses) > 1 else label]
            torch.testing.assert_close(ours, loss.detach(), rtol=1e-5, atol=1e-6)


def test_a_teacher_follows_after_every_step(learning: MaskedModelling) -> None:
    model = learning.model
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    learning.after_step(0.0)
    for label in ("features", "two"):
        teacher = model.objective.parts[label].teacher  # type: ignore[attr-defined]
        for name, parameter in model.encoder.named_parameters():
            assert torch.equal(teacher.get_parameter(name), parameter)


def test_work_is_that_of_its_parts(configured: Callable[..., Any], registry: Registry) -> None:
    mixed: Any = conftest.build(configured(MIXTURE), registry)[0].objective
    alone: Any = conftest.build(configured("objective.name=latent"), registry)[0].objective
    assert mixed.flops(3, 5) == alone.flops(3, 5) > 0


def test_a_twin_of_random_weights_leaves_a_trained_teacher_alone(learning: MaskedModelling) -> None:
    model = learning.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_twin(model, 3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


class Gappy(Box):
    accepts_nan = True


def mixture_of(**parts: Any) -> MaskedAutoencoder:
    with seeded(0):
        return MaskedAutoencoder(Gappy(), Fixed(), Mixture(parts=parts), TINY_MODEL)


RAW = {"of": {"name": "patch", "normalise": False}}


def test_absent_values_are_left_out_where_all_parts_are_value_by_value() -> None:
    model = mixture_of(raw=RAW, l1={"of": {"name": "patch", "loss": "l1", "normalise": False}, "weight": 3})
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x[:, 1, ::3, ::4] = torch.nan
    tokens = model.tokens(x)
    assert tokens.observed is not None
    mask = Mask.from_scores(torch.rand(2, tokens.length, generator=torch.Generator().manual_seed(0)), 0.5)
    output = model(tokens, mask)
    ids = mask.ids_hidden[..., None].expand(-1, -1, tokens.values.shape[-1])
    values, there = tokens.values.gather(1, ids), tokens.observed.gather(1, ids)
    one, other = output.prediction.chunk(2, -1)
    expected = ((one - values).square() * there).sum(-1) / there.sum(-1)
    torch.testing.assert_close(output.named["raw"], expected.detach())
    l1 = ((other - values).abs() * there).sum(-1) / there.sum(-1)
    torch.testing.assert_close(output.loss, (expected + 3 * l1).mean())


def test_absent_values_are_refused_before_training_where_a_part_is_not(registry: Registry) -> None:
    given = {"data": {"name": "seasonal"}, "tokenizer": {"name": "series"}}
    parts = {"a": {"of": {"name": "patch"}}, "b": {"of": {"name": "latent"}}}
    config = load_config({**given, "objective": {"name": "mixture", "parts": parts}}, registry=registry)
    with pytest.raises(ConfigError, match="'mixture' can't score tokens that are there in part"):
        build_components(config, registry)
    whole = load_config({**given, "objective": {"name": "mixture", "parts": {"a": parts["a"]}}}, registry=registry)
    assert isinstance(build_components(whole, registry).objective, Mixture)


def test_pictures_are_of_the_first_part_that_predicts_a_signal() -> None:
    model = mixture_of(features={"of": {"name": "latent"}}, raw=RAW, more=RAW)
    assert model.gives_signals()
    objective: Any = model.objective
    assert objective._drawn == "raw"
    prediction = torch.randn(1, 2, objective.width(model.tokenizer))
    dim = TINY_MODEL.encoder.dim
    assert torch.equal(objective.to_values(prediction, None), prediction[..., dim : dim + 48])
    assert not mixture_of(features={"of": {"name": "latent"}}).gives_signals()


def test_the_baseline_is_known_where_those_of_all_parts_are() -> None:
    known = mixture_of(a={"of": {"name": "patch"}, "weight": {"start": 0, "end": 3}}, b={"of": {"name": "patch"}})
    assert known.objective.baseline(known.tokenizer) == pytest.approx(4 * 47 / 48)
    unknown = mixture_of(a={"of": {"name": "patch"}}, b=RAW)
    assert unknown.objective.baseline(unknown.tokenizer) is None


def test_what_a_part_refuses_is_told_with_its_place() -> None:
    with pytest.raises(ConfigError) as raised:
        mixture_of(points={"of": {"name": "chamfer", "dims": 7}})
    assert raised.value.where == "objective.parts.points.of.dims"
    assert raised.value.fix is not None
    assert "objective.parts.points.of.dims" in raised.value.fix


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "objective.parts: expected a mapping of at least 1, got {}"),
        ({"A b": RAW}, r"objective\.parts\.A b: expected text that matches"),
        ({"a": {**RAW, "weight": -1}}, r"objective\.parts\.a\.weight: expected a finite number of at least 0"),
        ({"a": {**RAW, "weight": {"stat": 1}}}, r"objective\.parts\.a\.weight\.stat: unknown setting.*'start'"),
    ],
)
def test_settings_that_make_no_mixture_are_refused(registry: Registry, parts: Any, said: str) -> None:
    given = {"data": {"name": "digits"}, "tokenizer": {"name": "image"}}
    with pytest.raises(ConfigError, match=said):
        load_config({**given, "objective": {"name": "mixture", "parts": parts}}, registry=registry)


def test_a_run_ends_with_pictures_and_a_report(tmp_path: Path) -> None:
    small = ("model.encoder.dim=24", "model.encoder.depth=1", "model.decoder.dim=16", "model.decoder.depth=1")
    parts = "{values: {of: {name: patch}}, texture: {of: {name: fourier}, weight: {start: 0, end: 0.1}}}"
    given = ("objective.name=mixture", f"objective.parts={parts}", "train.steps=2", "train.batch=8")
    rest = ("train.device=cpu", "evaluate.probe=false")
    result = maskedmodel.pretrain(
        "image-quickstart", run=tmp_path / "run", overrides=[*small, *given, *rest], quiet=True
    )
    assert result is not None
    assert result.picture is not None
    assert "loss_texture" in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert maskedmodel.load(tmp_path / "run").objective.names == ("values", "texture")
