"""Callbacks in a config: a list of components, in the forms that people write."""

from __future__ import annotations

from typing import Any

import pytest

from maskedmodel.config.early import check_early
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.config.load import config_schema, difference, dump_config, load_config
from maskedmodel.config.sections import RunConfig, Trained
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import Registry, load_registry

BASE: dict[str, Any] = {
    "data": {"name": "digits"},
    "tokenizer": {"name": "image", "size": 8, "patch": 4, "channels": 1},
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(strict=True)


def names(config: Trained) -> list[str]:
    return [settings.name for settings in config.callbacks]


@pytest.mark.parametrize("kind", [RunConfig, FinetuneConfig])
@pytest.mark.parametrize(
    ("given", "overrides"),
    [
        ([{"name": "early_stopping", "patience": 3}, {"name": "tensorboard"}], ()),
        ([{"name": "early_stopping", "patience": 3}, "tensorboard"], ()),
        ({"early_stopping": {"patience": 3}, "tensorboard": None}, ()),
        (None, ("callbacks=[{name: early_stopping, patience: 3}, tensorboard]",)),
        (None, ("callbacks={early_stopping: {patience: 3}, tensorboard: {}}",)),
        (None, ("callbacks.early_stopping.patience=3", "callbacks.tensorboard={}")),
        (None, ("callbacks.early_stopping={patience: 3}", "callbacks.tensorboard=null")),
        (["early_stopping", "tensorboard"], ("callbacks.early_stopping.patience=3",)),
        (["early_stopping", "tensorboard"], ("callbacks.0.patience=3",)),
        (["wandb"], ("callbacks=[early_stopping]", "callbacks.0.patience=3", "callbacks.tensorboard={}")),
    ],
)
def test_a_list_a_mapping_and_overrides_mean_the_same(
    given: Any, overrides: tuple[str, ...], kind: type[Any], registry: Registry
) -> None:
    data = BASE if given is None else {**BASE, "callbacks": given}
    check_early(data, overrides, kind=kind)
    config = load_config(data, overrides, registry=registry, kind=kind)
    assert names(config) == ["early_stopping", "tensorboard"]
    assert config.callbacks[0].model_dump()["patience"] == 3


def test_one_entry_needs_no_list_and_none_is_none(registry: Registry) -> None:
    given: Any
    for given in ("tensorboard", {"name": "tensorboard"}, ["tensorboard"]):
        assert names(load_config({**BASE, "callbacks": given}, registry=registry)) == ["tensorboard"]
    for given in (None, [], {}):
        assert names(load_config({**BASE, "callbacks": given}, registry=registry)) == []
    assert names(load_config({**BASE, "callbacks": ["wandb"]}, ["callbacks=[]"], registry=registry)) == []
    assert names(load_config(BASE, registry=registry)) == []


def test_the_written_config_gives_the_same_back(registry: Registry, tmp_path: Any) -> None:
    config = load_config({**BASE, "callbacks": ["tensorboard", {"name": "early_stopping"}]}, registry=registry)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), "utf-8")
    assert load_config(path, registry=registry) == config
    changed = {row[0].partition("[")[0] for row in difference(load_config(BASE, registry=registry), config)}
    assert changed == {"callbacks"}


@pytest.mark.parametrize(
    ("callbacks", "overrides", "parts"),
    [
        (["early_stoping"], [], ["callbacks[0].name: there is no callback", "Did you mean 'early_stopping'?"]),
        ([{"patience": 3}], [], ["callbacks[0].name: is missing", "Known: early_stopping, tensorboard"]),
        ([{"name": 3}], [], ["callbacks[0].name: expected a name, got 3"]),
        ([4], [], ["callbacks[0]: expected a section of settings with a name, got 4"]),
        (["tensorboard", {"name": "early_stopping", "patienc": 3}], [], ["callbacks[1].patienc", "'patience'"]),
        ([{"name": "early_stopping", "patience": 0}], [], ["callbacks[0].patience: expected a number greater than 0"]),
        (["tensorboard", "tensorboard"], [], ["callbacks[1]: the same as callbacks[0]"]),
        ([], ["callbacks=3"], ["callbacks: expected a list, got 3"]),
        ([], ["callbacks.early_stopping.patience=true"], ["callbacks[0].patience: expected a number, got true"]),
        ([], ["callbacks.0.patience=3"], ["callbacks has no entry 0", "0 entries"]),
        ([], ["callbacks.early_stopping=3"], ["callbacks.early_stopping is a section of settings"]),
        ([4], ["callbacks.0.patience=3"], ["callbacks.0 is a value"]),
        (3, ["callbacks.wandb={}"], ["callbacks is a value, not a list"]),
        (
            [{"name": "early_stopping"}, {"name": "early_stopping", "monitor": "val_ratio"}],
            ["callbacks.early_stopping.patience=3"],
            ["2 entries 'early_stopping'", "Write callbacks.0 or callbacks.1"],
        ),
        (
            [{"name": "wandb", "mode": "x"}, "nobody", {"name": "early_stopping", "min_delta": -1}],
            ["optim.lr=-1"],
            [
                "4 problems",
                "callbacks[0].mode: expected 'online'",
                "callbacks[1].name",
                "callbacks[2].min_delta",
                "optim",
            ],
        ),
    ],
)
def test_mistakes_are_told_with_their_entry(
    callbacks: Any, overrides: list[str], parts: list[str], registry: Registry
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config({**BASE, "callbacks": callbacks}, overrides, registry=registry)
    for part in parts:
        assert part in str(raised.value)


def test_a_run_is_opened_where_its_callbacks_are_not_installed(registry: Registry) -> None:
    data = {**BASE, "callbacks": ["mlflow"]}
    assert names(load_config(data, registry=registry, needs_data=False)) == []
    with pytest.raises(ConfigError, match="no callback 'mlflow'"):
        load_config(data, registry=registry)


def test_where_no_callback_is_installed_that_is_said() -> None:
    registry = load_registry(allow=["image", "masks", "objectives"])
    assert names(load_config(BASE, registry=registry)) == []
    with pytest.raises(ConfigError, match="No callback is installed"):
        load_config({**BASE, "callbacks": ["early_stopping"]}, registry=registry)


def test_the_schema_tells_callbacks_apart_by_name(registry: Registry) -> None:
    for kind in (RunConfig, FinetuneConfig):
        schema = config_schema(registry, kind)
        entries = schema["properties"]["callbacks"]
        assert entries["type"] == "array"
        assert {"early_stopping", "tensorboard", "trackio", "wandb"} <= entries["items"]["discriminator"][
            "mapping"
        ].keys()
        assert schema["$defs"]["EarlyStoppingSettings"]["required"] == ["name"]
