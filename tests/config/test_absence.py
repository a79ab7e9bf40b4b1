"""Data with absent values meet a tokenizer that takes them, or are refused before anything is read."""

from __future__ import annotations

import pytest

from maskedmodel.config.build import build_components
from maskedmodel.config.load import load_config
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import Registry, load_registry


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
