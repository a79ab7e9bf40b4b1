"""`evaluate.every`: looks at the encoder while it trains, which change nothing of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from maskedmodel.errors import TrainingError
from maskedmodel.evaluation.features import extract
from maskedmodel.evaluation.online import Watch, rank_me
from maskedmodel.training.checkpoint import newest
from maskedmodel.training.distributed import World
from maskedmodel.training.masked import validation_loss
from maskedmodel.training.tracking import read_lines
from tests.training.conftest import Waves, build

ONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waves, "class_names", lambda self: ["even", "odd"])


def lines(folder: Path, watched: bool) -> list[dict[str, Any]]:
    return [line for line in read_lines(folder / "metrics.jsonl") if ("rankme" in line) == watched]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    last = newest(folder)
    return {**load_file(last / "model.safetensors"), **load_file(last / "optimizer.safetensors")}


def test_with_and_without_the_weights_are_the_same_bits(tmp_path: Path, run: Callable[..., Any]) -> None:
    run(tmp_path / "without")
    before = torch.get_rng_state()
    run(tmp_path / "with", "evaluate.every=3", watch=Watch)
    assert torch.equal(before, torch.get_rng_state())
    ours, theirs = tensors(tmp_path / "with"), tensors(tmp_path / "without")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert lines(tmp_path / "with", watched=False) == lines(tmp_path / "without", watched=False)
    found = lines(tmp_path / "with", watched=True)
    assert [line["step"] for line in found] == [0, 3, 6, 9, 12, 14]
    names = {"step", "rankme", "rankme_centred", "loss@0.25", "loss@0.5", "loss@0.75", "loss@0.9", "knn", "linear"}
    assert all(line.keys() == names for line in found)


def test_a_resumed_run_s_figures_are_a_straight_one_s(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "straight", "evaluate.every=2", watch=Watch)
    overrides = ("evaluate.every=2", "data.infinite=[]")

    def cut(config: Any, source: Any) -> Callable[..., dict[str, float]]:
        look = Watch(config, source)
        looks = iter(range(100))

        def watch(model: Any, world: World) -> dict[str, float]:
            if next(looks) == 3:
                raise TrainingError("The power went.")
            return look(model, world)

        return watch

    with pytest.raises(TrainingError, match="power"):
        run(tmp_path / "cut", *overrides, watch=cut)
    run(tmp_path / "cut", *overrides, watch=Watch)
    read = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("straight", "cut")]
    assert read[0] == read[1]


def test_the_figures_are_what_they_say(configured: Callable[..., Any], registry: Any) -> None:
    config = configured("evaluate.every=1", "evaluate.every_samples=6", "evaluate.neighbours=1")
    model, source = build(config, registry)
    model.train()
    found = Watch(config, source)(model, ONE)
    assert model.training
    test = extract(model, [source.open("val")[i * 7 // 6] for i in range(6)])
    assert found["rankme"] == pytest.approx(rank_me(test.values), rel=1e-6)
    centred = test.values - test.values.mean(0)
    assert found["rankme_centred"] == pytest.approx(rank_me(centred), rel=1e-6)
    train = extract(model, [source.open("train")[i * 20 // 6] for i in range(6)])
    near = torch.nn.functional.normalize(test.values) @ torch.nn.functional.normalize(train.values).T
    expected = (train.labels[near.argmax(1)] == test.labels).float().mean()
    assert found["knn"] == pytest.approx(float(expected))
    half = config.train.model_copy(update={"validation_ratio": 0.5})
    assert found["loss@0.5"] == validation_loss(model, source.open("val"), half, ONE)


def test_without_labels_there_are_rank_and_losses(
    configured: Callable[..., Any], registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Waves, "class_names", lambda self: None)
    config = configured("evaluate.every=1")
    model, source = build(config, registry)
    found = Watch(config, source)(model, ONE)
    assert found.keys() == {"rankme", "rankme_centred", "loss@0.25", "loss@0.5", "loss@0.75", "loss@0.9"}


def test_rank_me_counts_directions() -> None:
    assert rank_me(torch.eye(8)) == pytest.approx(8, rel=1e-4)
    assert rank_me(torch.outer(torch.arange(1.0, 9), torch.ones(5))) == pytest.approx(1, abs=1e-4)
    assert rank_me(torch.zeros(4, 3)) == 0
    uneven = torch.diag(torch.tensor([3.0, 1.0]))
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    assert rank_me(uneven) == pytest.approx(float(entropy.exp()), rel=1e-4)
