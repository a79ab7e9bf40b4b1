"""Components inside components: how a config gives them, what mistakes say, and that all verbs know them."""

from __future__ import annotations

import json
import pickle
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from maskedmodel import Objective, Settings
from maskedmodel.cli.app import run_cli
from maskedmodel.comparison.arms import arms_of
from maskedmodel.config.build import build_components
from maskedmodel.config.load import config_schema, difference, dump_config, load_config
from maskedmodel.errors import ConfigError, PluginError
from maskedmodel.nested import DEEPEST, Nested, build, inside
from maskedmodel.plugins import Registry, registry_at_hand, using
from maskedmodel.tasks import Task
from tests.config.test_config import Flat, Line, Patch, PatchSettings, Slope, Waves


class Share(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Annotated[Settings, Nested("objective")] = Field(description="The objective.")
    weight: float = Field(1.0, ge=0, description="What it counts for.")


class HalvedSettings(Settings):
    name: Literal["halved"] = "halved"
    of: Annotated[Settings, Nested("objective")] = Field(
        {"name": "patch"}, validate_default=True, description="The objective whose loss is halved."
    )
    also: Annotated[Settings, Nested("objective")] | None = Field(None, description="Another one.")
    listed: list[Share] = Field([], description="More of them.")
    called: dict[str, Share] = Field({}, description="More of them, by name.")
    head: Annotated[Settings, Nested("task")] | None = Field(None, description="A task.")


class Halved(Objective[HalvedSettings]):
    def __init__(self, settings: HalvedSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.of = build("objective", self.settings.of, "of")
        self.more = [build("objective", s.of, f"listed[{i}].of") for i, s in enumerate(self.settings.listed)]

    def attach(self, tokenizer: Any) -> None:
        with inside("objective", "of"):
            self.of.attach(tokenizer)

    def width(self, tokenizer: Any) -> int:
        return int(self.of.width(tokenizer))

    def target(self, values: Tensor) -> Tensor:
        target: Tensor = self.of.target(values)
        return target

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = self.of.loss(prediction, target) / 2
        return loss


class FussySettings(Settings):
    name: Literal["fussy"] = "fussy"
    grain: int = Field(1, description="A number that no tokenizer has.")
    early: bool = Field(False, description="Whether it already refuses to be built.")


class Fussy(Patch):
    settings_class = FussySettings

    def __init__(self, settings: Any = None, **values: Any) -> None:
        super().__init__(settings, **values)
        if self.settings.early:
            raise ConfigError("Too early.", where="objective.early", fix="Set objective.early=false.")

    def attach(self, tokenizer: Any) -> None:
        raise ConfigError("No grain.", where="objective.grain", expected="another", fix="Set objective.grain=2.")


class NailSettings(Settings):
    name: Literal["nail"] = "nail"
    length: int = Field(3, description="Length, in centimetres.")


class Nail(Task[NailSettings]):
    pass


REGISTRY = Registry(
    tokenizers={"line": Line},
    mask_schedulers={"uniform": Flat, "ramped": Slope},
    objectives={"patch": Patch, "halved": Halved, "fussy": Fussy},
    data_sources={"waves": Waves},
    tasks={"nail": Nail},  # type: ignore[type-abstract]
)
BASE: dict[str, Any] = {"data": {"name": "waves"}, "tokenizer": {"name": "line"}}


def load(objective: Any, *overrides: str) -> Any:
    return load_config({**BASE, "objective": objective}, overrides, registry=REGISTRY)


def message(objective: Any, *overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load(objective, *overrides)
    return str(raised.value)


FULL: dict[str, Any] = {
    "name": "halved",
    "of": {"name": "halved", "of": {"name": "patch", "normalise": False}},
    "listed": [{"of": {"name": "patch"}}, {"of": {"name": "fussy", "grain": 3}, "weight": 0.5}],
    "called": {"first": {"of": {"name": "patch"}}},
}


def test_they_are_read_by_name_written_out_and_read_again() -> None:
    config = load(FULL)
    assert config.objective.of.of == PatchSettings(normalise=False)
    assert config.objective.listed[1].of == FussySettings(grain=3)
    assert config.objective.called["first"].of == PatchSettings()
    text = dump_config(config)
    assert "grain: 3" in text
    assert difference(config, load_config(config.model_dump(mode="json"), registry=REGISTRY)) == []
    again = pickle.loads(pickle.dumps(config.objective))  # noqa: S301
    assert again == config.objective
    with using(REGISTRY):
        assert HalvedSettings.model_validate_json(config.objective.model_dump_json()) == config.objective


def test_a_default_is_one_too() -> None:
    assert load({"name": "halved"}).objective.of == PatchSettings()


def test_they_are_built_of_the_same_registry() -> None:
    objective = build_components(load(FULL), REGISTRY).objective
    assert isinstance(objective, Halved)
    assert isinstance(objective.of.of, Patch)
    assert not objective.of.of.settings.normalise
    assert [type(one) for one in objective.more] == [Patch, Fussy]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"of": {"name": "patsch"}}, "objective.of.name: there is no objective 'patsch'. Did you mean 'patch'?"),
        ({"of": {"nam": "patch"}}, "objective.of.name: is missing: which objective to use. Known: fussy, halved"),
        ({"of": 5}, "objective.of: expected a section of settings with a name, got 5."),
        ({"of": {"name": 5}}, "objective.of.name: expected a name, got 5."),
        ({"of": {"name": "uniform"}}, "objective.of.name: there is no objective 'uniform'."),
        (
            {"of": {"name": "patch", "normalize": True}},
            "objective.of.normalize: unknown setting. Did you mean 'normalise'?",
        ),
        (
            {"of": {"name": "patch", "normalise": 7}},
            "objective.of.normalise: expected true or false, got 7.",
        ),
        (
            {"listed": [{"of": {"name": "patch"}}, {"of": {"name": "fussy", "grian": 1}}]},
            "objective.listed[1].of.grian: unknown setting. Did you mean 'grain'?",
        ),
        ({"listed": [{"wight": 1}]}, "objective.listed[0].wight: unknown setting. Did you mean 'weight'?"),
        ({"listed": [{"weight": 1}]}, "objective.listed[0].of: is missing. The objective."),
        (
            {"listed": [{"of": {"name": "patch"}, "weight": -1}]},
            "objective.listed[0].weight: expected a number at least 0",
        ),
        ({"called": {"a": {"of": {"name": "x"}}}}, "objective.called.a.of.name: there is no objective 'x'."),
        ({"also": {"name": "fussy", "grain": "x"}}, "objective.also.grain: expected a whole number"),
        ({"of": {"name": "fussy", "grain": True}}, "objective.of.grain: expected a number, got true."),
        ({"head": {"name": "nial"}}, "objective.head.name: there is no task 'nial'. Did you mean 'nail'?"),
    ],
)
def test_a_mistake_is_told_with_its_whole_path(change: dict[str, Any], said: str) -> None:
    assert said in message({"name": "halved", **change})


def test_all_mistakes_are_told_at_once() -> None:
    text = message({"name": "halved", "of": {"name": "x"}, "listed": [{"of": {"name": "y"}}, {"of": {"name": "z"}}]})
    assert "3 problems" in text
    for place in ("objective.of.name", "objective.listed[0].of.name", "objective.listed[1].of.name"):
        assert place in text


def test_there_is_an_end_to_how_deep_they_go() -> None:
    def deep(levels: int) -> dict[str, Any]:
        return {"name": "patch"} if levels == 0 else {"name": "halved", "of": deep(levels - 1)}

    load(deep(DEEPEST))
    assert f"more than {DEEPEST} components stand inside one another" in message(deep(DEEPEST + 1))
    load(deep(2))  # a failure leaves no trace


@pytest.mark.parametrize("path", ["objective.listed[1]", "objective.listed.1"])
def test_an_override_reaches_into_lists_mappings_and_components(path: str) -> None:
    config = load(FULL, f"{path}.weight=0.25", f"{path}.of.grain=4", "objective.of.of.normalise=true")
    assert config.objective.listed[1].weight == 0.25
    assert config.objective.listed[1].of == FussySettings(grain=4)
    assert config.objective.of.of.normalise
    assert load(FULL, "objective.called.first.weight=2").objective.called["first"].weight == 2
    assert load(FULL, "objective.called.second={of: {name: fussy}}").objective.called["second"].of.name == "fussy"


def test_an_override_of_the_name_drops_what_the_new_component_does_not_know() -> None:
    assert load(FULL, "objective.of.of.name=fussy").objective.of.of == FussySettings()
    assert load(FULL, "objective.listed[1].of.name=patch").objective.listed[1].of == PatchSettings()
    assert "objective.of.of.normalise: unknown" in message(
        FULL, "objective.of.of.name=fussy", "objective.of.of.normalise=true"
    )


def test_null_in_an_override_means_the_default() -> None:
    assert load(FULL, "objective.of.of.normalise=null").objective.of.of == PatchSettings()
    assert load(FULL, "objective.also={name: patch}", "objective.also=null").objective.also is None
    assert load(FULL, "objective.of=null").objective.of == PatchSettings()


def test_an_override_reaches_into_a_default() -> None:
    assert load({"name": "halved"}, "objective.of.normalise=false").objective.of == PatchSettings(normalise=False)
    assert load({"name": "halved"}, "objective.of.name=fussy").objective.of == FussySettings()
    inner = load({"name": "halved"}, "objective.of={name: halved}", "objective.of.of.normalise=false").objective.of
    assert inner.of == PatchSettings(normalise=False)
    assert "objective.also.name: is missing" in message({"name": "halved"}, "objective.also.grain=1")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("objective.listed[2].weight=1", "objective.listed is a list, and '2' is none of its entries."),
        ("objective.listed.weight=1", "expected: a number from 0 to 1"),
        ("objective.listed[1].weight.x=1", "objective.listed.1.weight is a value, not a section"),
        ("objective.of.of.normalise.x=1", "objective.of.of.normalise is a value, not a section"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(override: str, said: str) -> None:
    assert said in message(FULL, override)


def test_a_difference_is_told_by_its_place() -> None:
    one, other = load(FULL), load(FULL, "objective.listed[1].of.grain=4", "objective.of.of.normalise=true")
    assert difference(one, other) == [
        ("objective.of.of.normalise", False, True),
        ("objective.listed[1].of.grain", 3, 4),
    ]


def test_the_schema_for_editors_knows_them() -> None:
    schema = config_schema(REGISTRY)
    defs = schema["$defs"]
    names = {"fussy", "halved", "patch"}
    of = defs["HalvedSettings"]["properties"]["of"]
    assert of["discriminator"] == schema["properties"]["objective"]["discriminator"]
    assert set(of["discriminator"]["mapping"]) == names
    assert {ref["$ref"].rpartition("/")[2] for ref in of["oneOf"]} == {
        "FussySettings",
        "HalvedSettings",
        "PatchSettings",
    }
    assert of["default"] == {"name": "patch"}
    assert of["description"] == "The objective whose loss is halved."
    assert set(defs["Share"]["properties"]["of"]["discriminator"]["mapping"]) == names
    head = defs["HalvedSettings"]["properties"]["head"]["anyOf"][0]
    assert head["$ref"] == "#/$defs/NailSettings"  # a kind that pretraining has no section for
    assert defs["NailSettings"]["properties"]["length"]["default"] == 3
    assert defs["NailSettings"]["required"] == ["name"]
    json.dumps(schema)


def test_what_a_component_refuses_is_told_with_the_whole_path() -> None:
    objective = build_components(load({"name": "halved", "of": {"name": "halved", "of": {"name": "fussy"}}}), REGISTRY)
    with pytest.raises(ConfigError) as raised:
        objective.objective.attach(Line())
    assert raised.value.where == "objective.of.of.grain"
    assert raised.value.fix == "Set objective.of.of.grain=2."
    early = load({"name": "halved", "listed": [{"of": {"name": "fussy", "early": True}}]})
    with pytest.raises(ConfigError, match=r"objective\.listed\[0\]\.of\.early, in objective: "):
        build_components(early, REGISTRY)


def test_in_python_settings_will_do_and_those_of_another_kind_will_not() -> None:
    with using(REGISTRY):
        assert HalvedSettings(of=FussySettings(grain=2)).of == FussySettings(grain=2)
        with pytest.raises(ValidationError, match="expected settings of the kind objective, got NailSettings"):
            HalvedSettings(of=NailSettings())


def test_without_a_registry_the_installed_plugins_are_meant() -> None:
    assert registry_at_hand().objectives["patch"].__module__ == "maskedmodel_objectives.patch"
    assert type(Halved().of).__module__ == "maskedmodel_objectives.patch"
    with pytest.raises(ValidationError, match="there is no objective 'fussy'"):
        HalvedSettings(of={"name": "fussy"})


def test_another_registry_is_in_use_only_for_as_long_as_is_said() -> None:
    with using(REGISTRY):
        assert registry_at_hand() is REGISTRY
    assert registry_at_hand() is not REGISTRY


def test_a_default_that_needs_the_registry_while_it_is_loaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskedmodel import plugins

    token = plugins._loading.set(True)
    try:
        with pytest.raises(PluginError, match="while plugins are imported"):
            registry_at_hand()
    finally:
        plugins._loading.reset(token)


def test_a_comparison_varies_what_lies_inside() -> None:
    given = {**BASE, "objective": FULL}
    arms = arms_of(given, [], [], ["objective.listed[1].of.grain=4", "objective.of.of.name=fussy"], REGISTRY)
    assert [arm.config.objective.listed[1].of.grain for arm in arms] == [4, 3]
    assert [arm.config.objective.of.of.name for arm in arms] == ["patch", "fussy"]
    with pytest.raises(ConfigError, match=r"objective\.of\.of\.grian: unknown setting"):
        arms_of(given, [], [], ["objective.of.of.grian=4"], REGISTRY)


def test_plugins_show_says_what_may_stand_inside(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["plugins", "show", "mixture"]) == 0
    assert "mapping of {of: objective, weight: float or {shape:" in capsys.readouterr().out
    assert run_cli(["plugins", "show", "choose"]) == 0
    assert "list of {of: mask scheduler, weight:" in capsys.readouterr().out
