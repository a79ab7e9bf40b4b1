"""Configs bent out of shape: each is read, or refused by a ConfigError. Nothing else ever comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from maskedmodel.config.build import build_components, build_finetune
from maskedmodel.config.early import check_early
from maskedmodel.config.files import config_names, find_config, parse_yaml, read_config
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.config.load import dump_config, load_config
from maskedmodel.config.sections import RunConfig
from maskedmodel.errors import ConfigError, MaskedModelError
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.training.labelled import wanted_count
from tests.drawn import BOUNDED, LONG

PACKAGED = {name: read_config(find_config(name)) for name in config_names()}
FINETUNE = """
data: {name: digits}
tokenizer: {name: image, patch: 4}
task: {name: classify}
mask: {name: uniform, ratio: 0.25}
model: {encoder: {dim: 16, depth: 2, heads: 2}}
start: {weights: null}
adapt: {labels: "10%", freeze: 1, layer_decay: 0.75, drop_path: 0.1, mixup: 0.4, cutmix: 1.0, ema: 0.9, head_steps: 0.1}
optim: {lr: 0.001, betas: [0.9, 0.99]}
train: {steps: 10, batch: 8}
"""
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**63, -1, 0]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["uniform", "image", "patch", "digits", "ti", "", "\0", "\ud800", "x" * 5000, "1" * 5000, "nan"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a config, sections too."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deep for key, item in inner for deep in paths_of(item, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> dict[Any, Any]:
    """A config that comes with the package, with up to three places changed, added or taken away."""
    return bent(draw, dump(draw(st.sampled_from(sorted(PACKAGED)))))


@st.composite
def mutated_finetune(draw: st.DrawFn) -> dict[Any, Any]:
    """The same of a fine-tuning, with another task at times."""
    task = draw(st.sampled_from(["classify", "regress", "tag"]))
    return bent(draw, FINETUNE.replace("classify", task))


def bent(draw: st.DrawFn, text: str) -> dict[Any, Any]:
    data = parse_yaml(text)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in paths_of(data) if path] or [("data",)]))
        parent = data
        for key in path[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["set", "add", "drop"]))
        if kind == "set":
            parent[path[-1]] = draw(VALUES)
        elif kind == "add" and isinstance(parent, dict):
            parent[draw(SCALARS)] = draw(VALUES)
        elif isinstance(parent, dict):
            del parent[path[-1]]
    return data


def dump(name: str) -> str:
    return find_config(name).read_text(encoding="utf-8")


def refused(call: Callable[[], object]) -> bool:
    """Whether a call ends in an error of ours; any other goes on to the test."""
    try:
        call()
    except MaskedModelError:
        return True
    return False


def outcome(data: Any, overrides: list[str], registry: Registry) -> None:
    try:
        config = load_config(data, overrides, registry=registry)
    except ConfigError:
        return
    assert isinstance(config, RunConfig)
    again = load_config(parse_yaml(dump_config(config)), registry=registry)
    assert dump_config(again) == dump_config(config), "what is saved reads back as the same"
    refused(lambda: build_components(config, registry))


@BOUNDED
@given(data=mutated())
@example(data={"data": {"name": ["digits"]}, "tokenizer": {"name": {"a": 1}}})
@example(data={"data": {"name": "digits"}, "tokenizer": {"name": "image"}, "model": {"encoder": {"preset": ["ti"]}}})
@example(data={"data": {"name": "digits"}, "tokenizer": {"name": "image"}, "train": {"steps": 10**5000}})
@example(data={"data": {"name": "digits"}, "tokenizer": {"name": "image"}, 3: {(): None}})
def test_a_mutated_config_is_read_or_refused(registry: Registry, data: dict[Any, Any]) -> None:
    outcome(data, [], registry)


@BOUNDED
@given(data=mutated_finetune())
@example(data={**parse_yaml(FINETUNE), "task": {"name": ["classify"]}})
@example(data={**parse_yaml(FINETUNE), "adapt": {"labels": [1, 2]}})
@example(data={**parse_yaml(FINETUNE), "adapt": {"labels": "9" * 5000 + "%"}})
@example(data={**parse_yaml(FINETUNE), "adapt": {"labels": "nan%"}})
@example(data={**parse_yaml(FINETUNE), "adapt": {"labels": "-0%", "freeze": "most", "head_steps": float("nan")}})
def test_a_mutated_finetuning_is_read_or_refused(registry: Registry, data: dict[Any, Any]) -> None:
    try:
        config = load_config(data, registry=registry, kind=FinetuneConfig)
    except ConfigError:
        return
    again = load_config(parse_yaml(dump_config(config)), registry=registry, kind=FinetuneConfig)
    assert dump_config(again) == dump_config(config), "what is saved reads back as the same"
    refused(lambda: build_finetune(config, registry))
    refused(lambda: wanted_count(config.adapt.labels, 100))


KEYS = st.sampled_from(
    [
        *("data.name", "tokenizer.name", "mask.name", "mask.ratio", "objective.name", "model.encoder.preset"),
        *("train.steps", "tokenizer.patch", "optim.betas", "evaluate.pool", "model", "data", "train"),
        *("model.encoder.dim.x", "a.b.c", "train."),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["[uniform]", "{name: image}", "[[[[", "{a: {b: [", "9" * 5000, "1e999", "null"]),
    st.sampled_from(["!!python/name:x", "!!binary x"]),
    st.sampled_from(["*x", "&x", "a: b: c", "\t", "'", "{width:0.5}", "0x" + "f" * 5000, "[" * 1500, "{a: " * 700]),
)


@BOUNDED
@given(overrides=st.lists(st.builds("{}={}".format, KEYS, TEXTS), min_size=1, max_size=3))
@example(overrides=["data.name=[digits]"])
@example(overrides=["model.encoder.preset=[ti]"])
@example(overrides=["mask.name={a: 1}"])
@example(overrides=["train.steps=" + "9" * 5000])
@example(overrides=["train.steps=" + "[" * 1500])
def test_an_override_is_read_or_refused(registry: Registry, overrides: list[str]) -> None:
    outcome(None, overrides, registry)
    if refused(lambda: check_early(None, overrides)):
        assert refused(lambda: load_config(None, overrides, registry=registry))


@BOUNDED
@given(text=st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%,? \n\t0x.~\0é"), max_size=60))
@example(text="[" * 3000)
@example(text="- " * 3000)
@example(text="a: !!int " + "9" * 6000)
def test_text_is_yaml_or_refused(text: str) -> None:
    refused(lambda: parse_yaml(text))


@pytest.mark.slow
@LONG
@given(data=mutated(), overrides=st.lists(st.builds("{}={}".format, KEYS, TEXTS), max_size=2))
def test_many_mutated_configs(registry: Registry, data: dict[Any, Any], overrides: list[str]) -> None:
    outcome(data, overrides, registry)
