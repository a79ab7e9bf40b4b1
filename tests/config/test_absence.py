"""Data with absent values meet a tokenizer that takes them, or are refused before anything is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from maskedmodel import DataSource, Settings
from maskedmodel.config.build import build_components
from maskedmodel.config.load import load_config
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.testing.fixtures import Box


class GapsSettings(Settings):
    name: Literal["gaps"] = "gaps"


class Gappy(Box):
    accepts_nan = True


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def test_data_with_nan_and_a_tokenizer_that_takes_none_are_both_named(registry: Registry) -> None:
    config = load_config({"data": {"name": "seasonal"}, "tokenizer": {"name": "image"}}, registry=registry)
    with pytest.raises(ConfigError) as raised:
        build_components(config, registry)
    text = str(raised.value)
    for words in ("'seasonal'", "'image'", "data.name, tokenizer.name", "series", "accepts_nan = True"):
        assert words in text


def test_data_with_nan_and_a_tokenizer_that_takes_it_go_together(registry: Registry) -> None:
    config = load_config({"data": {"name": "seasonal"}, "tokenizer": {"name": "series"}}, registry=registry)
    assert build_components(config, registry).source.gives_nan


def test_data_without_nan_go_with_either(registry: Registry) -> None:
    for tokenizer in ("image", "channels"):
        config = load_config({"data": {"name": "digits"}, "tokenizer": {"name": tokenizer}}, registry=registry)
        assert not build_components(config, registry).source.gives_nan


def test_an_objective_that_cannot_score_tokens_in_part_is_refused(registry: Registry) -> None:
    given = {"data": {"name": "seasonal"}, "tokenizer": {"name": "series"}, "objective": {"name": "latent"}}
    config = load_config(given, registry=registry)
    with pytest.raises(ConfigError) as raised:
        build_components(config, registry)
    text = str(raised.value)
    for words in ("'seasonal'", "'latent'", "in part", "by_value = False in Latent", "such as patch"):
        assert words in text


class Gaps(DataSource[GapsSettings]):
    """Pictures in which single values are absent."""

    gives_nan = True

    def open(self, split: Any) -> Any:
        return [{"signal": torch.zeros(3, 8, 8), "id": 0}]


@pytest.mark.parametrize(
    ("objective", "takes"),
    [
        ({"name": "patch"}, True),
        ({"name": "patch", "per": "channel"}, False),
        ({"name": "patch", "per": "channel", "normalise": False}, True),
        ({"name": "fourier"}, True),
        ({"name": "fourier", "share": 0}, True),
    ],
)
def test_a_mean_over_what_is_absent_is_refused(registry: Registry, objective: dict[str, object], takes: bool) -> None:
    known = replace(
        registry,
        data_sources={**registry.data_sources, "gaps": Gaps},
        tokenizers={**registry.tokenizers, "kit-box": Gappy},
    )
    given = {"data": {"name": "gaps"}, "tokenizer": {"name": "kit-box"}, "objective": objective}
    config = load_config(given, registry=known)
    if takes:
        build_components(config, known)
        return
    with pytest.raises(ConfigError, match="can't score tokens that are there in part"):
        build_components(config, known)
