"""One yardstick: the same weights score the same, whatever scheduler is attached."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from maskedmodel import MaskScheduler, Noise, Settings, Tokens
from maskedmodel.comparison import yardstick as module
from maskedmodel.comparison.arms import arms_of
from maskedmodel.comparison.budget import build
from maskedmodel.comparison.masks import along_the_run, column, entropy, look, positions_picture
from maskedmodel.comparison.yardstick import RATIOS, Measured, key_of, loss_at, measure, read
from maskedmodel.config.sections import RunConfig
from maskedmodel.plugins import Registry
from maskedmodel.training.distributed import World
from maskedmodel.training.loop import train
from maskedmodel.training.masked import MaskedModelling
from tests.comparison.conftest import TINY, Silent

ALONE = World(0, 1, torch.device("cpu"))


def config_of(registry: Registry, mask: str = "uniform", *overrides: str) -> RunConfig:
    (arm,) = arms_of(TINY, overrides, [mask], [], registry)
    return arm.config


def test_the_same_weights_score_the_same_whatever_scheduler_is_attached(registry: Registry) -> None:
    losses: dict[float, set[float]] = {ratio: set() for ratio in RATIOS}
    for mask in ("uniform", "uniform:ratio=0.25", "ramped", "blocks", "noise"):
        for seed in (0, 1):
            config = config_of(registry, mask, f"train.seed={seed}")
            model, parts = build(config, registry)
            weights, _ = build(config_of(registry), registry)
            for part in ("encoder", "decoder"):
                getattr(model, part).load_state_dict(getattr(weights, part).state_dict())
            for ratio, found in losses.items():
                found.add(loss_at(model, parts.source.open("val"), config, ratio, ALONE))
    assert all(len(found) == 1 for found in losses.values())
    assert len(set.union(*losses.values())) == len(RATIOS)


def measured(config: RunConfig, registry: Registry, folder: Path, **options: Any) -> Measured:
    model, parts = build(config, registry)
    given = {"key": "k", "learns": False, "drawn": True, "progress": Silent().progress, **options}
    folder.mkdir(exist_ok=True)
    return measure(config, folder, model, parts, registry, ALONE, **given)


def test_a_measurement_is_written_and_read_back(registry: Registry, tmp_path: Path) -> None:
    found = measured(config_of(registry), registry, tmp_path)
    assert read(tmp_path) == found
    assert list(found.losses) == ["0.25", "0.5", "0.75", "0.9"]
    assert found.probe is not None
    assert [row.name for row in found.probe.rows] == ["trained encoder"]
    assert found.masks["ratio"] == pytest.approx(0.75)
    assert found.masks["entropy"] == pytest.approx(found.masks["entropy_most"], abs=0.01)
    assert found.masks["hidden_least"] <= 0.75 <= found.masks["hidden_most"]
    titles = [one["title"] for one in found.mask_pictures]
    assert titles == ["at 0%", "at 25%", "at 50%", "at 75%", "at 100%", "how often hidden"]
    assert [one["title"] for one in found.reconstructions] == ["original", "masked", "reconstruction"]
    for one in [*found.mask_pictures, *found.reconstructions]:
        for name in one["files"]:
            assert Image.open(tmp_path / "yardstick" / name).size[0] >= 4


def test_without_labels_there_is_a_reason(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(config_of(registry, "uniform", "evaluate.probe=false"), registry, tmp_path / "off", drawn=False)
    assert (found.probe, found.unprobed) == (None, "evaluate.probe is off")
    assert found.mask_pictures == found.reconstructions == []
    monkeypatch.setattr(registry.get("data_source", "digits"), "class_names", lambda self: None)
    found = measured(config_of(registry), registry, tmp_path / "unlabelled", drawn=False)
    assert (found.probe, found.unprobed) == (None, "the data have no labels")


def test_too_few_labels_are_a_reason_too(registry: Registry, tmp_path: Path) -> None:
    found = measured(config_of(registry, "uniform", "evaluate.train_samples=1"), registry, tmp_path, drawn=False)
    assert found.probe is None
    assert "2 classes" in found.unprobed


def test_the_key_holds_what_a_measurement_depends_on(registry: Registry) -> None:
    data = {"train": "a", "val": "b"}
    plain = key_of(config_of(registry), data)
    assert plain == key_of(config_of(registry, "ramped", "train.seed=3", "evaluate.pictures=1"), data)
    for changed in ("evaluate.neighbours=7", "evaluate.pool=class", "train.validation_samples=33"):
        assert key_of(config_of(registry, "uniform", changed), data) != plain
    assert key_of(config_of(registry), data | {"val": "c"}) != plain


def test_pictures_of_masks_outlive_a_change_of_the_yardstick(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measured(config_of(registry), registry, tmp_path)
    monkeypatch.setattr(module, "look", lambda *_: pytest.fail("checkpoints on the way are gone by now"))
    after = measured(config_of(registry), registry, tmp_path, key="other")
    assert (after.masks, after.mask_pictures) == (before.masks, before.mask_pictures)
    assert read(tmp_path) == after


class DriftSettings(Settings):
    name: Literal["drift"] = "drift"


class Drift(MaskScheduler[DriftSettings]):
    """Hides the left half at first and, as it learns, the right half."""

    def __init__(self, settings: DriftSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.register_buffer("right", torch.zeros(()))

    def ratio(self, progress: float) -> float:
        return 0.5

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        column_of = tokens.coords[:, 1].float().expand(tokens.batch, -1)
        return column_of if float(self.right) > 0.5 else -column_of

    def after_step(self, encoder: nn.Module, progress: float) -> None:  # type: ignore[override]
        self.right.fill_(progress)


def test_masks_of_a_scheduler_that_learns_are_those_of_its_state_along_the_run(
    registry: Registry, tmp_path: Path
) -> None:
    from dataclasses import replace

    with_drift = replace(registry, mask_schedulers={**registry.mask_schedulers, "drift": Drift})
    config = config_of(with_drift, "drift", "train.checkpoint_every=3", "train.keep=9", "train.steps=12")
    model, parts = build(config, with_drift)
    train(config, tmp_path, MaskedModelling(model, config.train), parts.source, ALONE, quiet=True)
    states = list(along_the_run(config, tmp_path, model, True, with_drift, parts.source))
    assert [progress for progress, _ in states] == [0.0, 0.25, 0.5, 0.75, 1.0]
    report, _ = look(
        along_the_run(config, tmp_path, model, True, with_drift, parts.source),
        parts.source.open("val"),
        config,
        None,
    )
    grid = report.frequency.reshape(4, 4)
    # Hidden on the right at 75 % and 100 % of the run alone (after step 6 its state is 5 / 11).
    assert grid[:, 3].tolist() == pytest.approx([0.4] * 4)
    assert grid[:, 0].tolist() == pytest.approx([0.6] * 4)
    assert report.entropy == 0  # at any one time a position is always hidden or never
    assert report.most == 1


def test_entropy_by_hand() -> None:
    expected = [0.0, 1.0, 0.8112781, 0.0]
    assert entropy(torch.tensor([0.0, 0.5, 0.25, 1.0])).tolist() == pytest.approx(expected)


def place(shape: tuple[int, ...], channels: int = 1) -> Tokens:
    coords = torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, len(shape)).repeat(channels, 1)
    channel = None if channels == 1 else torch.arange(channels).repeat_interleave(math.prod(shape))
    names = ("time", "height", "width")[-len(shape) :]
    return Tokens(torch.zeros(1, len(coords), 2), coords, names, shape, channel)


def test_positions_lie_where_they_are() -> None:
    assert positions_picture(torch.arange(6.0), place((2, 3))).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert positions_picture(torch.arange(4.0), place((4,))).tolist() == [[0, 1, 2, 3]]
    assert positions_picture(torch.arange(6.0), place((3,), 2)).tolist() == [[0, 1, 2], [3, 4, 5]]
    cube = positions_picture(torch.arange(12.0), place((2, 2, 3)))
    assert cube.shape == (2, 7)  # two slices of 2x3 and a gap
    assert cube[:, 4:].tolist() == [[6, 7, 8], [9, 10, 11]]
    assert cube[:, 3].isnan().all()
    both = positions_picture(torch.arange(12.0), place((2, 3), 2))
    assert both.shape == (5, 3)  # two channels and a gap
    assert both[3:].tolist() == [[6, 7, 8], [9, 10, 11]]
    sound = replace(place((2, 3)), axes=("time", "frequency"))
    assert positions_picture(torch.arange(6.0), sound).tolist() == [[2, 5], [1, 4], [0, 3]]  # low frequencies below
    windows = positions_picture(torch.arange(12.0), replace(place((2, 3), 2), axes=("time", "frequency")))
    assert windows.shape == (3, 5)  # a later window to the right of a gap
    assert windows[2].nan_to_num(-1).tolist() == [0, 3, -1, 6, 9]
    ragged = Tokens(torch.zeros(1, 5, 2), torch.arange(5)[:, None], ("time",))
    assert positions_picture(torch.arange(5.0), ragged).shape == (1, 5)


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    noise = torch.rand(2, 3, 200, 300, generator=torch.Generator().manual_seed(0))
    names = column("t", noise, tmp_path, "a")["files"]
    assert names == ["a-0.jpg", "a-1.jpg"]
    assert max(Image.open(tmp_path / names[0]).size) == 128
    wide = column("t", torch.rand(1, 3, 100, 900), tmp_path, "b")["files"]
    assert Image.open(tmp_path / wide[0]).size[0] == 320
    small = column("t", torch.full((1, 3, 4, 5), math.nan), tmp_path, "c")["files"]
    assert Image.open(tmp_path / small[0]).size == (5, 4)
