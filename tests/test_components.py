from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from maskedmodel.components import DataSource, Objective, SampleDataset, Settings, Split, Tokenizer
from maskedmodel.errors import DataError, PluginError, ShapeError
from maskedmodel.noise import Noise
from maskedmodel.pictures import heat
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.tokens import Tokens
from tests.boxes import Box, BoxSettings


class OtherBox(Box):
    pass


# How a component comes by its name and settings


def test_a_component_is_built_from_settings_or_fields() -> None:
    assert Box(channels=2).settings == Box(BoxSettings(channels=2)).settings
    assert Box.component_name() == OtherBox.component_name() == "box"
    with pytest.raises(ValidationError, match="chanels"):
        Box(chanels=2)
    with pytest.raises(ValidationError, match="frozen"):
        Box().settings.channels = 3


def test_a_component_travels_between_processes() -> None:
    again = pickle.loads(pickle.dumps(Box(channels=2)))  # noqa: S301
    assert again.settings == BoxSettings(channels=2)


def test_a_component_without_a_name_is_told_how_to_get_one() -> None:
    class NoSettings(MaskScheduler):  # type: ignore[type-arg]
        def ratio(self, progress: float) -> float:
            return 0.5

    class BareSettings(Settings):
        pass

    class Bare(MaskScheduler[BareSettings]):
        def ratio(self, progress: float) -> float:
            return 0.5

    for component in (NoSettings, Bare):
        with pytest.raises(PluginError, match=f"{component.__name__} has no name"):
            component.component_name()


# What every tokenizer is given


def test_default_embedding_head_and_preparation() -> None:
    box = Box(channels=2)
    tokens = box.tokenize(torch.randn(2, 2, 4, 6))
    assert box.make_embed(8)(tokens.values).shape == (2, 4, 8)
    assert box.make_head(8, 5)(torch.randn(2, 4, 8)).shape == (2, 4, 5)
    signal = torch.randn(2, 2, 4, 6)
    assert box.prepare(signal) is box.augment(signal, Noise.of([0, 1])) is signal
    assert not box.needs_statistics


def test_collate_refuses_samples_of_different_shapes() -> None:
    box = Box()
    assert box.collate([torch.zeros(1, 4, 6)] * 3).shape == (3, 1, 4, 6)
    with pytest.raises(ShapeError) as error:
        box.collate([torch.zeros(1, 4, 6), torch.zeros(1, 4, 9)])
    assert "(1, 4, 6), (1, 4, 9)" in str(error.value)


def test_heat_runs_from_black_to_white() -> None:
    assert heat(torch.tensor([[[0.0, 0.5, 1.0]]]))[0, :, 0].T.tolist() == [[0, 0, 0], [1, 0.5, 0], [1, 1, 1]]


class Plain(Tokenizer[BoxSettings]):
    """As little as a tokenizer may state."""

    axes = ("time",)
    token_width = 2

    def tokenize(self, signal: Tensor) -> Tokens:
        return Tokens(signal, torch.arange(signal.shape[1])[:, None], self.axes)

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        return values

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        return torch.randn(batch, 4, 2, generator=generator)


def test_a_tokenizer_without_a_grid() -> None:
    assert Plain().extents is None
    assert Plain().channel_count == 0


# Objectives and data sources


class SameSettings(Settings):
    name: Literal["same"] = "same"


class Same(Objective[SameSettings]):
    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return tokenizer.token_width

    def target(self, values: Tensor) -> Tensor:
        return values

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).abs().mean(-1)


def test_an_objective_need_not_say_more() -> None:
    objective = Same()
    assert objective.baseline(Box()) is None
    assert objective.statistics(torch.zeros(1, 2, 6)) is None
    assert objective.to_values(torch.zeros(1, 2, 6), None) is None


class Nowhere(DataSource[SameSettings]):
    def open(self, split: Split) -> SampleDataset:
        raise DataError("There is nothing.")


def test_a_source_need_not_read_single_files() -> None:
    assert Nowhere().class_names() is None
    assert not Nowhere.recognises(Path("here"))
    with pytest.raises(DataError) as error:
        Nowhere().read(Path("here.bin"))
    assert "here.bin" in str(error.value)
