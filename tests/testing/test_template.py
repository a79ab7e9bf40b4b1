"""The skeleton of a plugin: the example in this repository is one, and both keep the contract."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from maskedmodel.config.build import build_components
from maskedmodel.config.load import load_config
from maskedmodel.errors import PluginError
from maskedmodel.plugins import load_registry
from maskedmodel.testing import run_checks
from maskedmodel.testing.template import skeleton, write

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "plugin-template"
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_is_the_skeleton_of_ecg() -> None:
    files = {
        path.relative_to(EXAMPLE).as_posix(): path.read_text()
        for path in EXAMPLE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files == skeleton("ecg")


def test_the_tokenizer_module_has_at_most_40_lines() -> None:
    assert len(skeleton("ecg")["src/maskedmodel_ecg/__init__.py"].splitlines()) <= 40


def test_the_readme_shows_what_the_skeleton_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = next(text for text in SNIPPETS if "maskedmodel_tokenizers" in text)
    assert printed == skeleton("ecg")["src/maskedmodel_ecg/__init__.py"]
    (tmp_path / "maskedmodel_as_printed.py").write_text(printed)  # nothing else of the plugin is there
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = load_registry(entry_points=[EntryPoint("ecg", "maskedmodel_as_printed", "maskedmodel")])
    results = run_checks(registry, "ecg")
    assert [result for result in results if result.status == "failed"] == []
    assert {result.kind for result in results} == {"plugin", "tokenizer"}


def test_a_line_announces_each_module() -> None:
    project = tomllib.loads(skeleton("heart_sound")["pyproject.toml"])["project"]
    assert project["entry-points"]["maskedmodel"] == {
        "heart_sound": "maskedmodel_heart_sound",
        "heart_sound_data": "maskedmodel_heart_sound.data",
    }


def points_of(name: str) -> list[EntryPoint]:
    """The entry points of a plugin that was written, as its project file has them."""
    lines = tomllib.loads(skeleton(name)["pyproject.toml"])["project"]["entry-points"]["maskedmodel"]
    return [EntryPoint(point, module, "maskedmodel") for point, module in lines.items()]


def test_what_is_written_passes_its_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("heart_sound", tmp_path)
    monkeypatch.syspath_prepend(str(folder / "src"))
    registry = load_registry(entry_points=points_of("heart_sound"))
    assert registry.failures == ()
    assert set(registry.tokenizers) == set(registry.data_sources) == {"heart_sound"}
    results = run_checks(registry, "heart_sound_data")  # the tokenizer is that of the README, checked above
    assert [result for result in results if result.status == "failed"] == []
    assert {(result.kind, result.component) for result in results} == {
        ("plugin", "heart_sound_data"),
        ("data_source", "heart_sound"),
    }
    assert "HeartSoundTokenizer" in (folder / "tests" / "test_heart_sound.py").read_text()


def test_its_config_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("heart_rate", tmp_path)
    monkeypatch.syspath_prepend(str(folder / "src"))
    registry = load_registry(entry_points=[*points_of("heart_rate"), *entry_points(group="maskedmodel")])
    parts = build_components(load_config(folder / "pretrain.yaml", registry=registry), registry)
    assert parts.tokenizer.component_name() == "heart_rate"
    sample = parts.source.open("train")[0]
    assert parts.tokenizer.tokenize(sample["signal"][None]).length == 12 * 12


def test_the_default_folder_is_named_after_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write("heart_tone") == Path("maskedmodel-heart-tone")
    assert (tmp_path / "maskedmodel-heart-tone" / "pretrain.yaml").is_file()


@pytest.mark.parametrize(
    "name", ["", "ECG", "1ecg", "heart-sound", "../ecg", "class", "a b", "ecg_", "é", "json", "wave"]
)
def test_unusable_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="can't be named"):
        write(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "maskedmodel-ecg" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(PluginError, match="would overwrite"):
        write("ecg", tmp_path)
    assert list(mine.parent.iterdir()) == [mine]
    (tmp_path / "maskedmodel-eeg").touch()
    with pytest.raises(PluginError, match="would overwrite"):
        write("eeg", tmp_path)


@pytest.mark.parametrize(("name", "owner"), [("image", "plugin 'image' of maskedmodel"), ("digits", "a data source")])
def test_taken_names_are_refused(name: str, owner: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=rf"'{name}' is taken: .*{owner}"):
        write(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_name_of_a_module_or_a_distribution_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "maskedmodel_loose.py").touch()
    with pytest.raises(PluginError, match="the module maskedmodel_loose can be imported"):
        write("loose", tmp_path)
    info = tmp_path / "maskedmodel_bound-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: maskedmodel-bound\nVersion: 1.0\n")
    with pytest.raises(PluginError, match="the distribution maskedmodel-bound is installed"):
        write("bound", tmp_path)
