"""The dense probe: its pieces by hand and by scikit-learn, a target that pixels tell, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maskedmodel_tasks.segment import Segment
from PIL import Image
from sklearn.metrics import jaccard_score
from torch import Tensor

from maskedmodel import DataSource, Sample, Settings
from maskedmodel.cli.app import run_cli
from maskedmodel.config.sections import EvaluateSettings
from maskedmodel.errors import ConfigError, DataError
from maskedmodel.evaluation import dense, fitting
from maskedmodel.evaluation.dense import PerToken, cells_of, crossed, mean_overlap, overlaps
from maskedmodel.evaluation.outcome import ProbeResult
from maskedmodel.evaluation.probes import probe
from maskedmodel.tasks import Labels
from maskedmodel.training.data import Reading
from tests.evaluation.conftest import Bars, Grey, Leads, build

DENSE = EvaluateSettings(probes=("dense",))
OWN = ["trained encoder", "same encoder, random weights", "raw values"]


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "FEWEST_STEPS", 60)
        yield


class PaintedSettings(Settings):
    name: Literal["painted"] = "painted"
    labelled: bool = True
    every: int = 1  # which samples have a target
    only: int | None = None  # the one class that there is
    count: int | None = None


class Painted(DataSource[PaintedSettings]):
    """Bars, and for each pixel whether it is one; the last column has no class."""

    def open(self, split: Literal["train", "val"]) -> list[Sample]:
        samples = Bars(labelled=self.settings.labelled).open(split)[: self.settings.count]
        for index, sample in enumerate(samples):
            if index % self.settings.every == 0:
                target = (sample["signal"][0] > 0.5).long()
                target = target if self.settings.only is None else torch.full_like(target, self.settings.only)
                target[:, -1] = -1
                sample["target"] = target
        return samples

    def target_names(self) -> tuple[str, ...]:
        return ("ground", "bar", "nowhere")

    def class_names(self) -> list[str] | None:
        return ["across", "down"] if self.settings.labelled else None


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=3))
def test_cells_are_what_slicing_gives(axes: list[tuple[int, int]]) -> None:
    grid, patch = zip(*axes, strict=True)
    size = [count * step for count, step in axes]
    target = torch.arange(2 * int(np.prod(size))).reshape(2, *size)
    found = cells_of(target, patch)
    for number, place in enumerate(np.ndindex(*grid)):
        box = tuple(slice(p * step, (p + 1) * step) for p, step in zip(place, patch, strict=True))
        assert found[:, number].tolist() == target[(slice(None), *box)].flatten(1).tolist()


def test_a_patch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(2, 2\)(.|\n)*\(5, 4\)"):
        cells_of(torch.zeros(1, 5, 4), (2, 2))


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_are_those_of_scikit_learn_and_of_the_task(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    true, guess = (torch.randint(0, 4, (5, 7, 9), generator=generator) for _ in range(2))
    true[0, :, 2] = -1
    counts = crossed(guess, true, 4)
    known = true != -1
    expected = jaccard_score(true[known].numpy(), guess[known].numpy(), average=None, labels=range(4))
    assert overlaps(counts.sum(0)).numpy() == pytest.approx(expected)
    task = Segment()
    task.attach(Grey(), 4, Labels(tuple("abcd"), (1, 1, 1, 1)))
    theirs = task.metrics(torch.nn.functional.one_hot(guess, 4).movedim(-1, 1).float(), true)["mIoU"]
    found = mean_overlap(counts, 0)
    assert found.value == pytest.approx(theirs)
    assert found.low <= found.value <= found.high
    assert found.count == 5
    assert mean_overlap(counts, 0) == found


def test_a_class_that_is_nowhere_counts_for_nothing() -> None:
    counts = crossed(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]), 3)
    assert overlaps(counts[0]).tolist()[:2] == [0.5, 0.0]
    assert overlaps(counts[0])[2].isnan()
    assert mean_overlap(counts, 0).value == 0.25


def test_every_token_goes_through_the_same_layer_alone() -> None:
    head = PerToken(6, 3, 4).eval()
    x = torch.randn(2, 5, 6, requires_grad=True)
    out = head(x)
    assert out.shape == (2, 3, 5, 4)
    assert torch.allclose(out[1, :, 2].flatten(), head.out(x[1, 2]))
    (slope,) = torch.autograd.grad(out[1, :, 2].sum(), x)
    assert bool((slope[0] == 0).all())
    assert bool((slope[1, [0, 1, 3, 4]] == 0).all())


@pytest.fixture(scope="module")
def found(few_steps: None) -> ProbeResult:
    return probe(build(), Painted(labelled=False), DENSE, Reading(batch=16))


def test_pixels_tell_what_a_threshold_made(found: ProbeResult) -> None:
    (judged,) = found.others
    assert (found.rows, judged.probe, list(judged.scores)) == ((), "dense", OWN)
    assert judged.scores["raw values"].accuracy.value > 0.9
    for score in judged.scores.values():
        assert score.accuracy.count == 20
        assert len(score.detail["IoU"]) == 3
        assert score.accuracy.value == pytest.approx(np.mean(score.detail["IoU"][:2]), abs=1e-3)
    assert "4 places" in judged.protocol
    assert "3 classes (ground, bar, nowhere)" in judged.protocol
    assert "20 validation samples together; fitted to 40 training samples" in judged.protocol
    assert "held out, then fitted" in judged.protocol
    assert ProbeResult.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert "dense, mIoU" in str(found)


def test_the_same_seed_gives_the_same_bits(found: ProbeResult) -> None:
    assert probe(build(), Painted(labelled=False), DENSE, Reading(batch=7)) == found


def test_beside_other_probes_those_stay_as_they_were(few_steps: None) -> None:
    settings = EvaluateSettings(probes=("knn", "linear", "dense"))
    both = probe(build(), Painted(every=2), settings, Reading(batch=16))
    assert both.rows == probe(build(), Bars(), EvaluateSettings(), Reading(batch=16)).rows
    assert "10 validation samples together; fitted to 20" in both.others[0].protocol  # those that have a target


def test_limits_of_samples_hold(few_steps: None) -> None:
    settings = DENSE.model_copy(update={"train_samples": 12, "val_samples": 7})
    judged = probe(build(), Painted(labelled=False), settings, Reading(batch=5)).others[0]
    assert "7 validation samples together; fitted to 12" in judged.protocol


class Several(Leads):
    """Three leads, tokens per lead, whose values move nowhere."""


class LeadTargets(DataSource[PaintedSettings]):
    """Steps in time at which the second lead is high."""

    def open(self, split: Literal["train", "val"]) -> list[Sample]:
        generator = torch.Generator().manual_seed(len(split))
        drawn = [torch.randn(3, 16, generator=generator).sign() for _ in range(20)]
        return [Sample(signal=x, id=f"{split}-{index}", target=(x[1] > 0).long()) for index, x in enumerate(drawn)]

    def target_names(self) -> tuple[str, ...]:
        return ("low", "high")


def test_channels_of_one_place_are_seen_together(few_steps: None) -> None:
    judged = probe(build(tokenizer=Several()), LeadTargets(), DENSE, Reading(batch=16)).others[0]
    assert judged.scores["raw values"].accuracy.value > 0.9
    assert "4 places" in judged.protocol


class Larger(Painted):
    """Pictures larger than the tokenizer's usual size."""

    def open(self, split: Literal["train", "val"]) -> list[Sample]:
        samples = super().open(split)
        for sample in samples:
            sample["signal"] = sample["signal"].repeat(1, 2, 1)[:, :12]
            sample["target"] = sample["target"].repeat(2, 1)[:12]
        return samples


def test_signals_of_another_size_are_cut_into_cells_of_their_own(few_steps: None) -> None:
    judged = probe(build(), Larger(labelled=False), DENSE, Reading(batch=16)).others[0]
    assert judged.scores["raw values"].accuracy.value > 0.9
    assert list(judged.scores) == OWN


class Growing(Painted):
    """Each sample of another size."""

    def open(self, split: Literal["train", "val"]) -> list[Sample]:
        samples = super().open(split)
        for index, sample in enumerate(samples):
            high = 2 + 2 * (index % 4)
            sample["signal"], sample["target"] = sample["signal"][:, :high], sample["target"][:high]
        return samples


def test_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def go(source: DataSource[Any], settings: EvaluateSettings = DENSE) -> ProbeResult:
        return probe(build(), source, settings, Reading(batch=16))

    with pytest.raises(DataError, match=r"a class for each place(.|\n)*data.masks(.|\n)*data.mask_channel"):
        go(Bars())
    with pytest.raises(DataError, match=r"one class(.|\n)*ground"):
        go(Painted(only=0))
    with pytest.raises(DataError, match=r"2 training samples or more"):
        go(Painted(count=1))
    with pytest.raises(DataError, match="token_memory"):
        go(Painted(), DENSE.model_copy(update={"token_memory": 1e-9}))
    with pytest.raises(ConfigError, match=r"differ in their extents(.|\n)*tokenizer.size"):
        probe(build(), Growing(), DENSE, Reading(batch=1))
    monkeypatch.setattr(dense, "GridTokenizer", Leads)
    with pytest.raises(ConfigError, match=r"(?s)equal boxes.*tokenizer.name"):
        go(Painted())


def test_an_encoder_without_a_grid_is_left_out_and_told(few_steps: None) -> None:
    from maskedmodel.evaluation.encoders import of_callable

    def brightness(signal: Tensor) -> Tensor:
        return signal.flatten(1)

    result = probe(
        build(), Painted(labelled=False), DENSE, Reading(batch=16), beside=[of_callable(brightness, "brightness")]
    )
    assert list(result.others[0].scores) == OWN
    assert any(note.startswith("brightness: its tokens lie on no grid") for note in result.notes)


def test_from_the_command_line_with_mask_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draws = np.random.default_rng(0)
    for index in range(24):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        mask = np.zeros((16, 16), dtype=np.uint8)
        row, column = draws.integers(0, 10, 2)
        mask[row : row + 6, column : column + 6] = 255
        grey = np.clip(mask * 0.6 + draws.integers(0, 90, mask.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    run = tmp_path / "run"
    small = [
        "data.name=image_folder", f"data.path={tmp_path / 'images'}", "tokenizer.size=16", "tokenizer.patch=4",
        "tokenizer.channels=3", "tokenizer.crop=null", "model.encoder.dim=16", "model.encoder.depth=1",
        "model.encoder.heads=2", "model.decoder.dim=16", "model.decoder.depth=1", "train.steps=2", "train.batch=8",
        "train.device=cpu", "train.precision=fp32", "evaluate.pictures=0",
    ]  # fmt: skip
    assert run_cli(["pretrain", "--run", str(run), *small]) == 0
    capsys.readouterr()
    assert run_cli(["probe", str(run), "--probes", "dense"]) == 2
    assert "data.masks and data.mask_classes" in capsys.readouterr().err
    masks = [f"data.masks={tmp_path / 'masks'}", "data.mask_classes=[ground,cell]", "data.mask_values=[0,255]"]
    assert run_cli(["probe", str(run), "--probes", "dense", *masks]) == 0
    said = capsys.readouterr().out
    assert "dense, mIoU" in said
    assert "2 classes (ground, cell)" in said
    (path,) = run.glob("probe-*.json")
    assert ProbeResult.from_dict(json.loads(path.read_text())).others[0].scores["raw values"].accuracy.value > 0.8
    page = (run / "report.html").read_text()
    assert "dense, mIoU" in page
    assert "mean intersection over union on samples" in page
    assert replace(ProbeResult.from_dict(json.loads(path.read_text())), about="").about == ""


def test_a_batch_that_lacks_a_channel_has_values_as_wide_as_any() -> None:
    tokenizer = Leads()
    whole = tokenizer.tokenize(torch.rand(2, 3, 16))
    some = dense.raw_view(tokenizer, (4,), torch.rand(2, 1, 16))
    assert whole.channel is not None
    assert dense.raw_view(tokenizer, (4,), torch.rand(2, 3, 16)).shape == some.shape == (2, 4, 12)
    assert bool((some[..., 4:] == 0).all())
