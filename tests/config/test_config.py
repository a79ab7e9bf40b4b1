"""The config: what is accepted, what it becomes, and what each mistake says."""

from __future__ import annotations

import itertools
import json
import pickle
import time
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from maskedmodel.components import DataSource, Objective, Settings
from maskedmodel.config import files as config_files
from maskedmodel.config.build import build_components
from maskedmodel.config.files import find_config, parse_override, parse_yaml, to_yaml
from maskedmodel.config.load import NOT_SET, config_schema, difference, dump_config, load_config
from maskedmodel.config.sections import OptimSettings, RunConfig
from maskedmodel.errors import ConfigError, DataError, DependencyError, PluginError, ShapeError
from maskedmodel.plugins import Failure, Registry
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.tokenizers.grid import GridTokenizer


class LineSettings(Settings):
    name: Literal["line"] = "line"
    size: int = Field(8, gt=0, description="Samples in a signal.")
    patch: int = Field(2, gt=0, description="Samples in a token.")


class Line(GridTokenizer[LineSettings]):
    axes = ("time",)

    @property
    def channels(self) -> int:
        return 1

    @property
    def size(self) -> tuple[int, ...]:
        return (self.settings.size,)

    @property
    def patch(self) -> tuple[int, ...]:
        return (self.settings.patch,)


class Taper(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    width: float = Field(0.1, ge=0, lt=0.5, description="Share of the signal, at each end.")


class PlaneSettings(Settings):
    name: Literal["plane"] = "plane"
    size: int | tuple[int, int] = Field(16, description="Pixels.")
    tapers: list[Taper] = Field([], description="One per axis.")
    taper: Taper | None = Field(None, description="For both axes.")
    folder: Path | None = Field(None, description="Where lookup tables lie.")
    kind: Literal["grey", "colour"] = Field("grey", description="What a pixel is.")
    count: int = Field(description="Number of planes.")

    @field_validator("count")
    @classmethod
    def _even(cls, count: int) -> int:
        if count % 2:
            raise ValueError(f"{count} planes can't be paired")
        return count


class Plane(Line):
    settings_class = PlaneSettings


class FlatSettings(Settings):
    name: Literal["uniform"] = "uniform"
    ratio: float = Field(0.75, gt=0, lt=1, description="Share to hide.")
    both: int = Field(1, description="A setting that both have.")


class Flat(MaskScheduler[FlatSettings]):
    def ratio(self, progress: float) -> float:
        return self.settings.ratio


class SlopeSettings(Settings):
    name: Literal["ramped"] = "ramped"
    start: float = Field(0.6, gt=0, lt=1, description="Share at the start.")
    both: int = Field(1, description="A setting that both have.")


class Slope(MaskScheduler[SlopeSettings]):
    def ratio(self, progress: float) -> float:
        return self.settings.start


class PatchSettings(Settings):
    name: Literal["patch"] = "patch"
    normalise: bool = Field(True, description="Whether targets are normalised.")


class Patch(Objective[PatchSettings]):
    def width(self, tokenizer: Any) -> int:
        return int(tokenizer.token_width)

    def target(self, values: Tensor) -> Tensor:
        return values

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean(-1)


class WavesSettings(Settings):
    name: Literal["waves"] = "waves"
    path: str = Field("", description="A folder.")
    fault: str = Field("", description="How to fail.")


class Waves(DataSource[WavesSettings]):
    def __init__(self, settings: WavesSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        faults = {"data": DataError("No files.", where="a folder", fix="Put some in."), "import": ImportError("no av")}
        if self.settings.fault:
            raise faults.get(self.settings.fault) or KeyError(self.settings.fault)

    def open(self, split: Any) -> Any:
        return [{"signal": torch.zeros(1, 8), "id": 0}]


REGISTRY = Registry(
    tokenizers={"line": Line, "plane": Plane},
    mask_schedulers={"uniform": Flat, "ramped": Slope},
    objectives={"patch": Patch},
    data_sources={"waves": Waves},
)
MINIMAL = {"data": {"name": "waves"}, "tokenizer": {"name": "line"}}


def load(source: Any = None, *overrides: str, registry: Registry = REGISTRY) -> RunConfig:
    return load_config(MINIMAL if source is None else source, overrides, registry=registry)


def message(source: Any, *overrides: str, registry: Registry = REGISTRY) -> str:
    with pytest.raises(ConfigError) as caught:
        load(source, *overrides, registry=registry)
    return str(caught.value)


def with_(**sections: Any) -> dict[str, Any]:
    return {**MINIMAL, **sections}


# Accepted


def test_defaults() -> None:
    config = load()
    assert type(config) is RunConfig
    assert (config.mask, config.objective) == (FlatSettings(), PatchSettings())
    assert (config.train.steps, config.optim.lr, config.evaluate.pool) == (2000, 1.5e-4, "mean")
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes; a worker process gets it so


def test_yaml_of_version_1_2(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "data: {name: waves, path: no}\ntokenizer: {name: line}\noptim: {lr: 1e-3, betas: [0.9, 0.999]}\n"
        "train:\nmodel: {encoder: {preset: s, depth: 2}}\n"
    )
    config = load(path)
    assert config.data.path == "no"  # type: ignore[attr-defined]
    assert config.optim.lr == 1e-3
    assert config.optim.betas == (0.9, 0.999)
    assert (config.model.encoder.dim, config.model.encoder.depth) == (384, 2)
    assert config.train.steps == 2000
    assert load(str(path)) == config


def test_overrides() -> None:
    config = load(
        None, "train.steps=5", "optim.clip=1", "data.path=2024-01-01", "optim={lr: 1e-3}", "model.encoder.dim=96"
    )
    assert (config.train.steps, config.optim.lr, config.optim.clip) == (5, 1e-3, None)
    assert config.data.path == "2024-01-01"  # type: ignore[attr-defined]
    assert config.model.encoder.dim == 96


def test_an_override_of_a_name_drops_what_the_new_component_does_not_know() -> None:
    given = with_(mask={"name": "uniform", "ratio": 0.5, "both": 7})
    assert load(given, "mask.start=0.7", "mask.name=ramped").mask == SlopeSettings(start=0.7, both=7)
    assert load(given, "mask.name=uniform").mask == FlatSettings(ratio=0.5, both=7)
    assert "mask.ratio: unknown setting" in message(given, "mask.name=ramped", "mask.ratio=0.5")
    assert "mask.ratio: unknown setting" in message(with_(mask={"name": "ramped", "ratio": 0.5}))


def test_an_override_of_null_is_the_default_where_null_is_no_value() -> None:
    given = with_(mask={"name": "uniform", "ratio": 0.5}, optim={"clip": 1.0})
    assert load(given, "mask.ratio=null").mask == FlatSettings()
    assert load(given, "optim.clip=null").optim.clip is None
    assert "mask.ratoi: unknown setting" in message(given, "mask.ratoi=null")
    assert "mask.ratio: expected a number" in message(with_(mask={"name": "uniform", "ratio": None}))


def test_an_override_of_the_preset_sets_the_dimensions() -> None:
    given = with_(model={"encoder": {"dim": 96, "depth": 4, "heads": 3, "mlp_ratio": 2}})
    encoder = load(given, "model.encoder.preset=b", "model.encoder.depth=2").model.encoder
    assert (encoder.dim, encoder.depth, encoder.heads, encoder.mlp_ratio) == (768, 2, 12, 2)
    again = load(load(given, "model.encoder.preset=b").model_dump(mode="json"), "model.encoder.preset=ti")
    assert (again.model.encoder.dim, again.model.encoder.depth) == (192, 12)
    assert "model.encoder.preset: expected 'ti'" in message(given, "model.encoder.preset=xl")
    assert "model.encoder is a value, not a section" in message(with_(model={"encoder": 3}), "model.encoder.preset=b")


def test_an_override_of_an_alias_changes_one_place(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "data: {name: waves}\ntokenizer: {name: line}\n"
        "model: {encoder: &e {dim: 96, depth: 1, heads: 3}, decoder: *e}\n"
    )
    config = load(path, "model.encoder.depth=2")
    assert (config.model.encoder.depth, config.model.decoder.depth) == (2, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("no", "no"),
        ("true", True),
        ("", None),
        ("null", None),
        ("'5'", "5"),
        ("[1, a]", [1, "a"]),
        ("{b: 3}", {"b": 3}),
        ("*.png", "*.png"),
        ("a: b", "a: b"),
        ("C:\\x", "C:\\x"),
        ("/x #1", "/x #1"),
        ("- x", "- x"),
        ("x=y", "x=y"),
        ("__import__('os').system('true')", "__import__('os').system('true')"),
    ],
)
def test_override_values(text: str, value: object) -> None:
    assert parse_override(f"a.b={text}") == (("a", "b"), value)


@pytest.mark.parametrize("text", ["a.b", "=3", "a..b=3", "a=[1", "a=!!python/name:os.system x", "a=[]]"])
def test_override_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_override(text)


def test_a_colon_without_its_space_is_told() -> None:
    with pytest.raises(ConfigError, match=r"takes a space behind it(.|\n)*Write \{width: 0.5\}") as caught:
        parse_override("mask.shares={width:0.5}")
    assert caught.value.where == "mask.shares"


def test_a_config_is_dumped_whole_and_read_back(tmp_path: Path) -> None:
    plane = {"name": "plane", "count": 2, "folder": "x/y", "size": [3, 4], "tapers": [{}], "taper": {"width": 0.2}}
    config = load(with_(tokenizer=plane, optim={"eps": 1e-8}, train={"trackers": ["wandb"]}), "data.path=no")
    text = dump_config(config)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert load(path) == config
    assert dump_config(load(path)) == text
    keys = [line.split(":")[0] for line in text.splitlines() if not line.startswith((" ", "-"))]
    assert keys == list(RunConfig.model_fields)
    assert "checkpoint_every: 500" in text


@settings(max_examples=50, deadline=None, derandomize=True)
@example({"\x85": "a\u2028b\n"})
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_yaml_reads_back_what_it_writes(value: Any) -> None:
    assert parse_yaml(to_yaml({"key": value})) == {"key": value}


def test_imported_weights_need_no_data(tmp_path: Path) -> None:
    config = load_config({"tokenizer": {"name": "line"}}, registry=REGISTRY, needs_data=False)
    assert config.data is None
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path, registry=REGISTRY, needs_data=False) == config
    assert load_config(MINIMAL, registry=REGISTRY, needs_data=False) == load()
    assert "data.name: is missing" in message(path)
    with pytest.raises(ConfigError, match="no data of its own"):
        build_components(config, REGISTRY)


def test_learning_rate_and_warm_up() -> None:
    optim = OptimSettings(lr=1e-3, per_batch=256, warmup=0.05)
    assert optim.peak_lr(128) == 5e-4
    assert optim.warmup_steps(1000) == 50
    absolute = OptimSettings(lr=1e-3, per_batch=None, warmup=30)
    assert absolute.peak_lr(128) == 1e-3
    assert absolute.warmup_steps(1000) == 30


def test_difference() -> None:
    old, new = load(), load(None, "train.steps=5", "mask.name=ramped")
    assert difference(old, old) == []
    assert difference(old, new) == [
        ("mask.name", "uniform", "ramped"),
        ("mask.ratio", 0.75, NOT_SET),
        ("train.steps", 2000, 5),
        ("mask.start", NOT_SET, 0.6),
    ]
    assert repr(NOT_SET) == "not set"


def test_schema() -> None:
    schema = config_schema(REGISTRY)
    json.dumps(schema)
    assert schema["required"] == ["data", "tokenizer"]
    assert schema["properties"]["mask"]["default"] == {"name": "uniform"}
    assert set(schema["properties"]["mask"]["discriminator"]["mapping"]) == {"uniform", "ramped"}
    for name in ("FlatSettings", "SlopeSettings", "LineSettings", "WavesSettings", "PatchSettings"):
        assert "name" in schema["$defs"][name]["required"]
    for name, section in schema["$defs"].items():
        if "Settings" in name:
            assert all("description" in entry or entry.get("const") for entry in section["properties"].values()), name


# Refused: every mistake in the user's words

PLANE = {"name": "plane", "count": 2}
BAD: list[tuple[Any, list[str]]] = [
    ({}, ["data.name: is missing: which data source to use. Known: waves.", "tokenizer.name: is missing"]),
    (with_(tokenizer={"patch": 4}), ["tokenizer.name: is missing: which tokenizer to use. Known: line, plane."]),
    (with_(tokenizer={"name": "lin"}), ["tokenizer.name: there is no tokenizer 'lin'. Did you mean 'line'?"]),
    (with_(objective={"name": "pach"}), ["objective.name: there is no objective 'pach'. Did you mean 'patch'?"]),
    (with_(objective={"name": "os.system"}), ["objective.name: there is no objective 'os.system'"]),
    (with_(mask={"name": 5}), ["mask.name: expected a name, got 5. Known: ramped, uniform."]),
    (with_(mask="uniform"), ['mask: expected a section of settings with a name, got "uniform".']),
    (
        with_(mask={"name": "uniform", "ratio": 1}),
        ["mask.ratio: expected a number greater than 0 and less than 1, got 1"],
    ),
    (
        with_(mask={"name": "uniform", "ratio": 0}),
        ["mask.ratio: expected a number greater than 0 and less than 1, got 0"],
    ),
    (with_(mask={"name": "uniform", "ratio": "x"}), ['mask.ratio: expected a number, got "x".']),
    (with_(mask={"name": "uniform", "ratio": None}), ["mask.ratio: expected a number, got null."]),
    (with_(mask={"name": "uniform", "ration": 0.5}), ["mask.ration: unknown setting. Did you mean 'ratio'?"]),
    (with_(tokenizer={"name": "line", "patch": 2.5}), ["tokenizer.patch: expected a whole number, got 2.5."]),
    (with_(tokenizer={"name": "line", "patch": True}), ["tokenizer.patch: expected a number, got true."]),
    (with_(tokenizer={"name": "plane"}), ["tokenizer.count: is missing. Number of planes."]),
    (with_(tokenizer={"name": "plane", "count": 3}), ["tokenizer.count: 3 planes can't be paired."]),
    (with_(tokenizer={**PLANE, "size": "big"}), ['tokenizer.size: expected a whole number or a list, got "big".']),
    (with_(tokenizer={**PLANE, "size": [1, "x"]}), ['tokenizer.size[1]: expected a whole number, got "x".']),
    (with_(tokenizer={**PLANE, "size": [1]}), ["tokenizer.size[1]: the list is too short"]),
    (
        with_(tokenizer={**PLANE, "kind": "gray"}),
        ["tokenizer.kind: expected 'grey' or 'colour', got \"gray\". Did you mean 'grey'?"],
    ),
    (
        with_(tokenizer={**PLANE, "tapers": [{"widht": 1}]}),
        ["tokenizer.tapers[0].widht: unknown setting. Did you mean 'width'?"],
    ),
    (
        with_(tokenizer={**PLANE, "taper": {"width": 1}}),
        ["tokenizer.taper.width: expected a number at least 0 and less than 0.5"],
    ),
    (
        with_(tokenizer={**PLANE, "taper": {"wdth": 1}}),
        ["tokenizer.taper.wdth: unknown setting. Did you mean 'width'?"],
    ),
    (with_(tokenizer={**PLANE, "folder": 3}), ["tokenizer.folder: expected a path, got 3."]),
    (with_(data={"name": "waves", "path": ["a"]}), ['data.path: expected text, got ["a"].']),
    (
        with_(objective={"name": "patch", "normalise": "maybe"}),
        ['objective.normalise: expected true or false, got "maybe".'],
    ),
    (with_(trian={"steps": 3}), ["trian: unknown setting. Did you mean 'train'?"]),
    (with_(lr=1e-3), ["lr: unknown setting. Did you mean optim.lr?"]),
    (with_(optim={"ratio": 1e-3}), ["optim.ratio: unknown setting. Did you mean mask.ratio?"]),
    (with_(optim={"zzz": 1}), ["optim.zzz: unknown setting. Known: betas, clip, eps, lr"]),
    (with_(train={"stpes": 3}), ["train.stpes: unknown setting. Did you mean 'steps'?"]),
    (with_(train=5), ["train: expected a section of settings, got 5."]),
    (with_(train={"steps": 0}), ["train.steps: expected a number greater than 0, got 0."]),
    (with_(train={"steps": "many"}), ['train.steps: expected a whole number, got "many".']),
    (with_(train={"batch": 10, "accumulate": 4}), ["train.accumulate: 4 micro-batches don't divide a batch of 10."]),
    (
        with_(train={"validation_ratio": 1.0}),
        ["train.validation_ratio: expected a number greater than 0 and less than 1"],
    ),
    (with_(train={"precision": "fp16"}), ["train.precision: expected 'auto', 'fp32' or 'bf16', got \"fp16\"."]),
    (
        with_(train={"trackers": ["wandbb"]}),
        ["train.trackers[0]: expected 'tensorboard', 'wandb' or 'trackio'", "Did you mean 'wandb'?"],
    ),
    (with_(train={"steps": True}), ["train.steps: expected a number, got true."]),
    (with_(optim={"lr": float("inf")}), ["optim.lr: expected a finite number"]),
    (with_(optim={"lr": float("nan")}), ["optim.lr: expected a finite number"]),
    (with_(optim={"betas": [0.9]}), ["optim.betas[1]: the list is too short"]),
    (with_(optim={"betas": [0.9, 0.9, 0.9]}), ["optim.betas: expected a list of at most 2"]),
    (with_(optim={"betas": [0.9, 1.5]}), ["optim.betas[1]: expected a number"]),
    (with_(optim={"warmup": 50}, train={"steps": 20}), ["optim.warmup: 50 steps of warm-up fill a run of 20 steps."]),
    (with_(optim={"warmup": 2000}), ["optim.warmup: 2000 steps of warm-up"]),
    (with_(optim={"min_lr": 1}), ["optim.min_lr: 1 is above the peak of 7.5e-05"]),
    (with_(model={"encoder": {"dim": 96, "heads": 5}}), ["model.encoder: dim 96 doesn't divide by heads 5."]),
    (with_(model={"encoder": {"dpth": 1}}), ["model.encoder.dpth: unknown setting. Did you mean 'depth'?"]),
    (with_(model={"encoder": {"preset": "xl"}}), ["model.encoder.preset: expected 'ti', 's', 'b', 'l' or 'h'"]),
    (
        with_(model={"encoder": {"class_token": False}}, evaluate={"pool": "class"}),
        ["evaluate.pool: 'class' needs model.encoder.class_token: true."],
    ),
    ({**MINIMAL, 5: 3}, ["expected a word as the key"]),
]
PYDANTIC = ["Input should", "Field required", "Extra inputs", "Value error", "Unable to", "type=", "pydantic", "tag"]


@pytest.mark.parametrize(("source", "expected"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_config(source: Any, expected: list[str]) -> None:
    text = message(source)
    for part in expected:
        assert part in text
    for phrase in PYDANTIC:
        assert phrase not in text
    assert text.endswith("where: the given mapping")


def test_all_problems_at_once() -> None:
    text = message(
        {
            "data": {"name": "wavs"},
            "tokenizer": {"name": "plane", "count": "x", "siz": 3},
            "mask": {"name": "uniform", "ratio": 2},
            "train": {"steps": -1, "bach": 3},
        }
    )
    assert "6 problems" in text
    for path in ("data.name", "tokenizer.count", "tokenizer.siz", "mask.ratio", "train.steps", "train.bach"):
        assert f"  - {path}: " in text


def test_a_failed_plugin_is_named_where_its_absence_may_explain_the_error() -> None:
    failure = Failure("ecg", "ecg-plugin", "0.3", "importing ecg failed: ImportError: no scipy")
    registry = Registry(REGISTRY.tokenizers, REGISTRY.mask_schedulers, REGISTRY.objectives, {}, failures=(failure,))
    text = message(with_(data={"name": "leads"}), registry=registry)
    assert "data.name: there is no data source 'leads'." in text
    assert "'ecg' of ecg-plugin 0.3: importing ecg failed: ImportError: no scipy" in text
    assert "No data source is installed." in text


def test_an_override_into_a_value() -> None:
    assert "train.steps is a value, not a section" in message(None, "train.steps=5", "train.steps.more=5")
    assert "trian: unknown setting. Did you mean 'train'?" in message(None, "trian.steps=5")


# Files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", ["duplicate key", "line 2"]),
        ("a: [1\n", ["line 2"]),
        ("- a\n- b\n", ["a mapping of sections"]),
        ("just text", ["a mapping of sections"]),
        ("a: \x00\n", ["YAML is wrong"]),
        ("--- {a: 1}\n--- {a: 2}\n", ["another document"]),
        ("%YAML 1.1\n---\na: no\n", ["YAML 1.2"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["no tags", "line 1"]),
        ("a: !include x\n", ["no tags"]),
        ("a: &x [*x]\n", ["*x isn't defined before"]),
        ("a: *x\n", ["*x isn't defined before"]),
        ("[" * 5000, ["32 levels"]),
        ("? {a: b}\n: 3\n", ["YAML is wrong"]),
        ("a: " + "1" * 5000 + "\n", ["YAML is wrong"]),
        ("", ["data.name: is missing"]),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    told = message(path)
    for part in [*expected, "bad.yaml"]:
        assert part in told


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    names = "abcdefghij"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in itertools.pairwise(names)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    start = time.perf_counter()
    assert "20000 values" in message(path)
    assert time.perf_counter() - start < 1


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (config_files.MAX_BYTES + 1))
    assert "256 KiB" in message(large)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: \xff\xfe")
    assert "UTF-8" in message(binary)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "Permission denied" in message(binary)


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_config(None) == find_config("image-quickstart")
    assert "Did you mean 'image-quickstart'?" in message("image-quikstart")
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("data: {name: waves}\ntokenizer: {name: line}\n")
    assert load("mine.yaml") == load()
    assert "Did you mean mine.yaml?" in message("mien.yaml")
    Path("run").mkdir()
    assert "is a folder" in message("run/")
    Path("run/config.yaml").write_text("")
    assert "run/config.yaml" in message(Path("run"))
    assert "too long" in message("run/" + "y" * 300 + ".yaml").lower()
    assert "There is no config" in message("a\0b.yaml")
    assert "There is no config" in message("mine.yaml/below.yaml")
    assert "is a folder" in message("")
    Path("bare").write_text("data: {name: waves}\ntokenizer: {name: line, size: 4}\n")
    assert load("bare").tokenizer == LineSettings(size=4)


# Components


def test_components() -> None:
    parts = build_components(load(None, "tokenizer.size=6"), REGISTRY)
    assert parts.tokenizer.token_width == 2
    assert type(parts.scheduler) is Flat
    assert type(parts.objective) is Patch
    assert type(parts.source) is Waves


def test_what_a_component_refuses_names_its_section() -> None:
    with pytest.raises(ShapeError, match=r"doesn't divide(.|\n)*tokenizer: .*\"size\": 7(.|\n)*nearest: 6 or 8"):
        build_components(load(None, "tokenizer.size=7"), REGISTRY)
    with pytest.raises(DataError, match=r"No files.(.|\n)*a folder, in data: .*\"waves\"(.|\n)*Put some in."):
        build_components(load(None, "data.fault=data"), REGISTRY)
    with pytest.raises(DependencyError, match=r"data source 'waves' needs a package(.|\n)*no av"):
        build_components(load(None, "data.fault=import"), REGISTRY)
    with pytest.raises(PluginError, match=r"failed while it was built: KeyError: 'other'"):
        build_components(load(None, "data.fault=other"), REGISTRY)
