"""Fine-tuning keeps the promises of pretraining, and each part of the recipe does what it says."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maskedmodel.adapting.run import Adapted
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.errors import CheckpointError, ConfigError, DataError, PluginError
from maskedmodel.plugins import Registry
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training import loop
from maskedmodel.training.supervised import Supervised
from maskedmodel.training.tracking import read_lines
from maskedmodel.weights.finetuned import load_finetuned
from tests.adapting.conftest import _Told
from tests.runs import assert_same_run
from tests.training.test_loop import Killed, kill_after

Go = Callable[..., Adapted]
RECIPE = ("adapt.drop_path=0.3", "adapt.mixup=0.4", "adapt.cutmix=1.0", "adapt.ema=0.9", "mask.name=uniform",
          "mask.ratio=0.25")  # fmt: skip


def weights(folder: Path, step: int | None = None) -> dict[str, torch.Tensor]:
    chosen = checkpoints.newest(folder) if step is None else checkpoints.folder_of(folder, step)
    return checkpoints.read_model(chosen)


@pytest.mark.parametrize("recipe", [(), RECIPE], ids=["plain", "all of the recipe"])
def test_a_killed_run_resumes_to_the_same_bits(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: tuple[str, ...]
) -> None:
    run(tmp_path / "straight", *recipe)
    for steps in (6, 3):
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            with pytest.raises(Killed):
                run(tmp_path / "cut", *recipe)
    run(tmp_path / "cut", *recipe)
    assert_same_run(tmp_path / "straight", tmp_path / "cut")
    one, other = (json.loads((tmp_path / name / "outcome.json").read_text()) for name in ("straight", "cut"))
    assert one == other


@pytest.mark.parametrize("recipe", [(), RECIPE], ids=["plain", "all of the recipe"])
def test_micro_batches_learn_what_one_batch_does(run: Go, tmp_path: Path, recipe: tuple[str, ...]) -> None:
    run(tmp_path / "one", "train.steps=3", *recipe)
    run(tmp_path / "two", "train.steps=3", "train.accumulate=2", *recipe)
    ours, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in ours.keys() - {name for name in ours if name.endswith("qkv.bias")}:  # a key's bias has no gradient
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-5, msg=name)


def test_unequal_weights_of_samples_count_alike_in_any_split(run: Go, tmp_path: Path) -> None:
    """Class weights make the count that divides a loss another one in each micro-batch."""
    options = ("train.steps=2", "task.class_weights=balanced", 'data.names=["a","b","c"]', "data.count=13")
    run(tmp_path / "one", *options)
    run(tmp_path / "four", "train.accumulate=4", *options)
    curves = [[line["loss"] for line in read_lines(tmp_path / name / "metrics.jsonl") if "loss" in line]
              for name in ("one", "four")]  # fmt: skip
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_it_learns_and_says_how_well(run: Go, tmp_path: Path) -> None:
    found = run(tmp_path, "train.steps=30")
    assert found.judged.best.value == 1.0
    assert found.judged.metrics["auc"].value == 1.0
    assert (found.labels, found.judged.samples) == (40, 12)
    measured = [line for line in read_lines(tmp_path / "metrics.jsonl") if "val_loss" in line]
    assert measured[0]["val_accuracy"] <= 0.75
    assert measured[-1]["val_accuracy"] == 1.0
    assert found.judged.loss == pytest.approx(measured[-1]["val_loss"], rel=1e-5)
    confusion = found.judged.tables[1]
    assert [list(row) for row in confusion.rows] == [["sine", 6, 0], ["square", 0, 6]]


def test_a_finished_run_is_left_as_it_is(run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path)
    monkeypatch.setattr(loop, "backward", lambda *_: pytest.fail("a step was made"))
    again = run(tmp_path)
    assert again.judged == first.judged
    with pytest.raises(ConfigError, match=r"adapt.drop_path was 0.0, now 0.5"):
        run(tmp_path, "adapt.drop_path=0.5")


def test_a_run_that_is_lengthened_goes_on(run: Go, tmp_path: Path) -> None:
    run(tmp_path, "train.steps=4")
    run(tmp_path, "train.steps=8")
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 8


def test_the_encoder_starts_from_the_given_weights(run: Go, tmp_path: Path, pretrained: Path) -> None:
    run(tmp_path, "train.steps=1", "adapt.freeze=all")
    ours, theirs = weights(tmp_path), weights(pretrained)
    encoder = [name for name in theirs if name.startswith("encoder.")]
    assert len(encoder) > 20
    assert all(torch.equal(ours[name], theirs[name]) for name in encoder)
    told = json.loads((tmp_path / "start.json").read_text())
    assert set(told["loaded"]) == {*encoder, "tokenizer.scale"}
    assert set(told["fresh"]) == {name for name in ours if name.startswith("task.")}
    assert all(name.startswith("decoder.") for name in told["left_out"])


def test_frozen_blocks_stay_and_the_rest_moves(run: Go, tmp_path: Path, pretrained: Path) -> None:
    run(tmp_path, "train.steps=3", "adapt.freeze=1")
    ours, theirs = weights(tmp_path), weights(pretrained)
    for name in theirs:
        if not name.startswith("encoder."):
            continue
        still = not name.startswith("encoder.blocks.1.")  # behind it the norm, which mean pooling doesn't use
        assert torch.equal(ours[name], theirs[name]) is still, name


def test_the_head_learns_alone_at_first(run: Go, tmp_path: Path, pretrained: Path) -> None:
    run(tmp_path, "train.steps=8", "adapt.head_steps=4")
    theirs, early, late = weights(pretrained), weights(tmp_path, 4), weights(tmp_path, 8)
    name = "encoder.blocks.0.mlp.fc1.weight"
    assert torch.equal(early[name], theirs[name])
    assert not torch.equal(late[name], theirs[name])
    assert bool(early["task.head.weight"].abs().max() > 1e-3)


def test_rates_fall_with_the_distance_from_the_head(
    configured: Callable[..., FinetuneConfig], registry: Registry, run: Go, tmp_path: Path
) -> None:
    """MAE's scale: decay to the power of blocks + 1 - layer, embeddings being layer 0 and the head the last."""
    run(tmp_path, "train.steps=1")
    model, config = load_finetuned(tmp_path, checkpoints.newest(tmp_path), registry)
    learning = Supervised(model, config)
    rates = {name: group.scale for group in learning.groups() for name, _ in group.named}
    assert rates["encoder.embed.weight"] == pytest.approx(0.75**3)
    assert rates["encoder.class_token"] == pytest.approx(0.75**3)
    assert rates["encoder.blocks.0.qkv.weight"] == pytest.approx(0.75**2)
    assert rates["encoder.blocks.1.mlp.fc2.bias"] == pytest.approx(0.75)
    assert rates["task.head.weight"] == rates["task.norm.weight"] == 1.0
    assert "encoder.norm.weight" not in rates
    groups: list[dict[str, Any]] = [{"scale": 0.5, "part": ""}, {"scale": 1.0, "part": "head"}]
    learning.weigh(groups, 0.1, step=0)
    assert [group["lr"] for group in groups] == [0.05, 0.1]


def test_the_average_follows_the_weights(run: Go, tmp_path: Path, registry: Registry) -> None:
    """Step by step from the weights at each checkpoint, and the model is used with it."""
    run(tmp_path, "train.steps=2", "adapt.ema=0.999", "train.checkpoint_every=1")
    name = "task.head.weight"
    first, second = weights(tmp_path, 1), weights(tmp_path, 2)
    mean = f"average.{name}"
    torch.testing.assert_close(second[mean], first[mean] * (2 / 11) + second[name] * (9 / 11))
    model, _ = load_finetuned(tmp_path, checkpoints.newest(tmp_path), registry)
    assert torch.equal(model.task.state_dict()["head.weight"], second[mean])
    assert model.average is None


def test_the_best_checkpoint_is_that_of_the_best_score(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, scores = Supervised.validate, iter([0.1, 0.9, 0.5, 0.7])
    monkeypatch.setattr(Supervised, "validate", lambda *a: {**real(*a), "val_accuracy": next(scores)})
    run(tmp_path, "train.keep_best=true", "train.keep=1")
    assert checkpoints.best(tmp_path) == checkpoints.folder_of(tmp_path, 4)


def test_samples_without_a_label_are_left_out_and_counted(
    run: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path, "train.steps=1", "data.unlabelled=[0,1,2,11]")
    assert "Without a label, left out: 4 of train, 4 of val." in caplog.text
    assert (found.labels, found.judged.samples) == (36, 8)
    kept = json.loads((tmp_path / "labels.json").read_text())
    assert kept == {"names": ["sine", "square"], "counts": [18, 18], "shape": [], "left_out": {"train": 4, "val": 4}}


def test_broken_samples_follow_the_runs_policy_and_are_told_everywhere(
    run: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DataError, match="can't be read"):
        run(tmp_path / "fails", "data.broken=[5]")
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path, "train.steps=2", "data.broken=[5]", "data.broken_val=[3,4]", "train.on_bad_sample=skip")
    assert (found.labels, found.judged.samples, found.left_out) == (39, 10, (1, 2))
    assert "1 of 40 samples left out: 5 (Cut short: told 5)" in caplog.text
    assert "Without a label" not in caplog.text
    kept = json.loads((tmp_path / "summary.json").read_text())
    assert [one["id"] for one in kept["broken"]] == ["5"]
    assert [one["id"] for one in kept["broken_val"]] == ["3", "4"]
    again = run(tmp_path, "train.steps=2", "data.broken=[5]", "data.broken_val=[3,4]", "train.on_bad_sample=skip")
    assert again.training is None
    assert again.left_out == (1, 2)


def test_labels_that_changed_between_stop_and_resume_are_refused(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every label another one, and as many of each as before: the signals are the same."""
    run(tmp_path, "train.steps=4")
    monkeypatch.setattr(_Told, "shift", 1)
    with pytest.raises(CheckpointError, match="data changed"):
        run(tmp_path, "train.steps=8")


def test_where_memory_runs_out_validation_and_predictions_take_fewer_rows(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    straight, real = run(tmp_path / "straight"), FineTuned.forward

    def tight(model: FineTuned, given: Any, *rest: Any) -> Any:
        if not model.training and len(given) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, given, *rest)

    monkeypatch.setattr(FineTuned, "forward", tight)
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path / "tight")
    assert "Out of memory: going on with 2 samples at a time." in caplog.text
    assert found.judged.best == straight.judged.best
    assert found.judged.loss == pytest.approx(straight.judged.loss, abs=1e-6)
    assert found.training is not None
    assert straight.training is not None
    assert found.training.last == pytest.approx(straight.training.last, abs=1e-6)


def test_a_mask_hides_tokens_in_training_only(run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[bool, set[int]] = {True: set(), False: set()}
    real = FineTuned.forward

    def forward(self: Any, signal: Any, mask: Any = None, kept: Any = None) -> Any:
        seen[self.training].add(0 if mask is None else int(mask.hidden[0].sum()))
        return real(self, signal, mask, kept)

    monkeypatch.setattr(FineTuned, "forward", forward)
    run(tmp_path, "train.steps=2", "mask.name=uniform", "mask.ratio=0.5")
    assert seen == {True: {4}, False: {0}}  # of 8 tokens
    assert all(line["ratio"] == 0.5 for line in read_lines(tmp_path / "metrics.jsonl") if "loss" in line)


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        (["data.names=null"], DataError, "have no labels"),
        (['data.names=["one"]'], ConfigError, "have one class"),
        (["adapt.labels=41"], DataError, "at most 40"),
        (["adapt.labels=10 percent"], ConfigError, "adapt.labels"),
        (["adapt.freeze=3"], ConfigError, "3 blocks of an encoder that has 2"),
        (["task.name=regress"], ConfigError, "A label is no number"),
        (["task.name=tag"], ConfigError, "No sample has more than one tag"),
        (["task.pool=class", "model.encoder.class_token=false"], ConfigError, "no class token"),
        (["train.validation_ratio=0.5"], ConfigError, "nothing is hidden in the validation"),
        (["adapt.mixup=1", "train.batch=6", "train.accumulate=2"], ConfigError, "even number"),
        (["model.encoder.dim=32"], CheckpointError, "model.encoder.dim: 16 there, 32 here"),
        (["task.name=clasify"], ConfigError, "Did you mean 'classify'"),
        (["objective.name=patch"], ConfigError, "objective"),
    ],
)
def test_bad_input_is_one_clear_error(run: Go, tmp_path: Path, overrides: list[str], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        run(tmp_path, *overrides)
    assert not list(tmp_path.glob("checkpoints/step-*"))


def test_no_pair_of_mixed_samples_is_cut_between_ranks(
    run: Go, configured: Callable[..., FinetuneConfig], registry: Registry, tmp_path: Path
) -> None:
    run(tmp_path, "train.steps=1")
    model, _ = load_finetuned(tmp_path, checkpoints.newest(tmp_path), registry)
    mixing = configured("adapt.mixup=1", "train.batch=12")
    Supervised(model, mixing, ranks=3)
    with pytest.raises(ConfigError, match="got: 3"):
        Supervised(model, mixing, ranks=4)


def test_class_pooling_reads_the_class_token_alone(run: Go, tmp_path: Path, registry: Registry) -> None:
    run(tmp_path, "train.steps=1", "task.pool=class")
    model, _ = load_finetuned(tmp_path, checkpoints.newest(tmp_path), registry)
    signal = torch.randn(3, 2, 24, generator=torch.Generator().manual_seed(0))
    expected = model.task.head(model.embed(signal, pool="class"))  # type: ignore[operator,union-attr]
    torch.testing.assert_close(model(signal), expected)


@pytest.mark.parametrize(
    ("part", "wrong", "text"),
    [
        ("loss", lambda real, *given: real(*given).mean(), "a loss of each of"),
        ("forward", lambda real, *given: real(*given)[:1], "a prediction of each of"),
        ("metrics", lambda real, *given: {"other": 1.0}, "the score 'accuracy'"),
    ],
)
def test_a_task_that_breaks_its_contract_is_told_before_the_first_step(
    run: Go, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, part: str, wrong: Any, text: str
) -> None:
    kind = registry.get("task", "classify")
    real = getattr(kind, part)
    monkeypatch.setattr(kind, part, lambda task, *given: wrong(functools.partial(real, task), *given))
    with pytest.raises(PluginError, match=text):
        run(tmp_path)
    assert checkpoints.find(tmp_path) is None
