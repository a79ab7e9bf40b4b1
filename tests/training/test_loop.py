from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from maskedmodel.config.sections import RunConfig
from maskedmodel.errors import CheckpointError, ConfigError, DataError, TrainingError
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training import loop, masked
from maskedmodel.training.distributed import World
from maskedmodel.training.loop import learning_rate
from maskedmodel.training.masked import validation_loss
from tests.training.conftest import Waves, build

Go = Callable[..., loop.TrainResult]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """The process dies in the middle of the step after `steps` more."""
    real, left = loop.backward, [steps]

    def dying(*arguments: Any) -> float:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return real(*arguments)

    monkeypatch.setattr(loop, "backward", dying)


def final(folder: Path) -> dict[str, torch.Tensor]:
    last = checkpoints.newest(folder)
    return {**load_file(last / "model.safetensors"), **load_file(last / "optimizer.safetensors")}


def assert_same_run(one: Path, other: Path) -> None:
    ours, theirs = final(one), final(other)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


# 20 samples in batches of 8: epochs end within steps 3, 5 and 8 and after step 5 exactly (sample 40).
CUTS = {"mid-epoch": 2, "epoch end": 5, "one after": 6, "in epoch 2": 11}


@pytest.mark.parametrize("workers", [0, 2])
def test_straight_run_equals_interrupted_run(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    run(tmp_path / "straight", f"train.workers={workers}")
    for cut, step in CUTS.items():
        folder = tmp_path / cut
        with monkeypatch.context() as patch:
            kill_after(patch, step)
            with pytest.raises(Killed):
                run(folder, f"train.workers={workers}")
        run(folder, f"train.workers={2 - workers}" if cut == "one after" else f"train.workers={workers}")
        assert_same_run(tmp_path / "straight", folder)


def test_killed_twice_and_between_checkpoint_and_validation(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("train.validate_every=4",)  # due at the very steps at which checkpoints are written
    run(tmp_path / "straight", *overrides)

    def die(*_: Any) -> float:
        raise Killed

    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            run(tmp_path / "cut", *overrides)
    with monkeypatch.context() as patch:
        real = masked.validation_loss
        patch.setattr(
            masked,
            "validation_loss",
            lambda m, *a: real(m, *a) if not list((tmp_path / "cut/checkpoints").glob("step-*")) else die(),
        )
        with pytest.raises(Killed):
            run(tmp_path / "cut", *overrides)
    run(tmp_path / "cut", *overrides)
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def test_finished_run_stays_as_it_is(run: Go, tmp_path: Path) -> None:
    first = run(tmp_path / "a")
    before = (tmp_path / "a/metrics.jsonl").read_bytes()
    again = run(tmp_path / "a")
    assert (again.val_loss_start, again.val_loss_end) == (first.val_loss_start, first.val_loss_end)
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == before


def test_every_epoch_is_a_permutation_of_the_data(run: Go, tmp_path: Path) -> None:
    Waves.seen.clear()
    run(tmp_path, "train.steps=15")
    drawn = Waves.seen[17:]  # the first 17 are the fingerprint's
    assert len(drawn) == 120
    for epoch in range(6):
        assert sorted(drawn[epoch * 20 : epoch * 20 + 20]) == list(range(20))
    assert drawn[:20] != drawn[20:40]


def assert_same_gradients(one: Path, other: Path) -> None:
    """After one step AdamW's first moment is the gradient times 1 - beta1. (Weights would compare worse: a key's bias
    has no gradient but rounding, which Adam scales up to a full step.)"""
    ours, theirs = final(one), final(other)
    moments = [key for key in ours if key.endswith(":exp_avg")]
    assert moments
    for key in moments:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-7, msg=key)


def assert_same_metrics(one: Path, other: Path) -> None:
    for ours, theirs in zip(lines(one), lines(other), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(math.isclose(ours[key], theirs[key], rel_tol=1e-4, abs_tol=1e-6) for key in ours)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_equals_one_batch(run: Go, tmp_path: Path, accumulate: int) -> None:
    run(tmp_path / "one", "train.steps=1")
    run(tmp_path / "parts", "train.steps=1", f"train.accumulate={accumulate}")
    assert_same_gradients(tmp_path / "one", tmp_path / "parts")
    run(tmp_path / "long", "train.steps=6")
    run(tmp_path / "long parts", "train.steps=6", f"train.accumulate={accumulate}")
    assert_same_metrics(tmp_path / "long", tmp_path / "long parts")


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_same_seed_same_run_other_seed_other_run(run: Go, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, "train.steps=3", f"train.seed={seed}")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/metrics.jsonl").read_bytes() != (tmp_path / "c/metrics.jsonl").read_bytes()


def test_global_random_state_is_untouched(run: Go, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(tmp_path, "train.steps=2")
    assert torch.equal(before, torch.get_rng_state())


def test_metrics_say_what_happened(run: Go, tmp_path: Path) -> None:
    result = run(tmp_path)
    training = [line for line in lines(tmp_path) if "loss" in line]
    assert [line["step"] for line in training] == list(range(1, 15))
    assert training[0]["ratio"] == pytest.approx(0.4)
    assert training[-1]["ratio"] == pytest.approx(0.8)
    assert training[0]["scored"] == 8 * 3  # round(0.4 * 8 tokens) of 8 samples
    assert [line["step"] for line in lines(tmp_path) if "val_loss" in line] == [0, 5, 10, 14]
    assert result.val_loss_end < result.val_loss_start
    assert [line["step"] for line in map(json.loads, (tmp_path / "timings.jsonl").open())] == list(range(1, 15))


def test_validation_is_the_same_whatever_scheduler_trains(configured: Any, registry: Any) -> None:
    losses = set()
    for override in ("mask.name=uniform", "mask.name=ramped", "mask.end=0.6"):
        config: RunConfig = configured(override, "train.validation_ratio=0.75")
        model, source = build(config, registry)
        losses.add(validation_loss(model, source.open("val"), config.train, World(0, 1, torch.device("cpu"))))
    assert len(losses) == 1


def test_statistics_are_measured_once_and_kept(run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "straight", "tokenizer.measured=true")
    scale = final(tmp_path / "straight")["tokenizer.scale"]
    assert scale == pytest.approx(0.5**0.5, rel=0.1)
    kill_after(monkeypatch, 5)
    with pytest.raises(Killed):
        run(tmp_path / "cut", "tokenizer.measured=true")
    monkeypatch.undo()
    run(tmp_path / "cut", "tokenizer.measured=true")
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def test_broken_samples_fail_by_default(run: Go, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wave 3") as raised:
        run(tmp_path, "data.broken=[3]")
    assert "train.on_bad_sample=skip" in str(raised.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_samples_are_skipped_and_listed(run: Go, tmp_path: Path, workers: int) -> None:
    result = run(tmp_path, "data.broken=[3,7]", "train.on_bad_sample=skip", f"train.workers={workers}")
    assert sorted(b.id for b in result.broken) == ["3", "7"]
    state = checkpoints.read_state(checkpoints.newest(tmp_path))
    assert sorted(b["id"] for b in state["broken"]) == ["3", "7"]
    assert {line["scored"] for line in lines(tmp_path) if line.get("step") == 1} <= {8 * 3, 7 * 3, 6 * 3}


def test_skip_goes_on_where_a_batch_holds_broken_samples_alone(run: Go, tmp_path: Path) -> None:
    """One sample a step: a broken one makes a step without an update, and nothing else is lost."""
    result = run(tmp_path, "data.broken=[3,7]", "train.on_bad_sample=skip", "train.batch=1", "train.steps=20")
    assert sorted(b.id for b in result.broken) == ["3", "7"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "scored" in line]
    assert len(steps) == 20
    assert sum(line["scored"] == 0 for line in steps) == 2
    assert all(("loss" in line) == (line["scored"] > 0) for line in steps)


def test_validation_leaves_the_mode_as_it_was(configured: Any, registry: Any) -> None:
    config = configured()
    model, source = build(config, registry)
    for training in (True, False):
        model.train(training)
        validation_loss(model, source.open("val"), config.train, World(0, 1, torch.device("cpu")))
        assert model.training is training


def test_too_many_broken_samples(run: Go, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="Too many samples"):
        run(tmp_path, "data.broken=[1,2,3,4]", "train.on_bad_sample=skip", "train.bad_sample_budget=3")


def test_loss_that_is_not_finite_stops_before_the_update(run: Go, tmp_path: Path) -> None:
    overrides = ("objective.normalise=false", "data.infinite=[5]", "train.checkpoint_every=1")
    with pytest.raises(TrainingError, match="isn't finite") as raised:
        run(tmp_path, *overrides)
    assert "train-5" in str(raised.value)
    saved = list((tmp_path / "checkpoints").glob("step-*"))
    for path in saved:
        assert all(torch.isfinite(t).all() for t in checkpoints.read_model(path).values())


def test_batch_that_does_not_divide_over_ranks(configured: Any, registry: Any, tmp_path: Path) -> None:
    config = configured()
    model, source = build(config, registry)
    learning = masked.MaskedModelling(model, config.train)
    with pytest.raises(ConfigError, match="doesn't divide"):
        loop.train(config, tmp_path, learning, source, World(0, 3, torch.device("cpu")), quiet=True)


def test_changed_data_is_refused(run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, 5)
        with pytest.raises(Killed):
            run(tmp_path)
    with pytest.raises(CheckpointError, match="data changed"):
        run(tmp_path, "data.count=21")


def test_learning_rate_warms_up_and_decays(configured: Any) -> None:
    config = configured("train.steps=100", "optim.lr=1.0", "optim.warmup=10", "optim.per_batch=4", "optim.min_lr=0.5")
    rates = [learning_rate(step, config.train, config.optim) for step in range(101)]
    middle = 10 + (99 - 10) / 2  # between the first step after warm-up and the last
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])  # batch 8 of 4: twice the rate
    assert max(rates) == rates[10] == pytest.approx(2.0)
    assert (rates[int(middle)] + rates[int(middle) + 1]) / 2 == pytest.approx((2.0 + 0.5) / 2)
    assert rates[99] == pytest.approx(0.5)  # the last of steps 0 to 99
    assert rates[98] > 0.5
