"""The skeleton of a plugin: the example in this repository is one, and both keep the contract."""

from __future__ import annotations

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

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin-template"


def test_the_example_is_the_skeleton_of_ecg() -> None:
    files = {
        path.relative_to(EXAMPLE).as_posix(): path.read_text()
        for path in EXAMPLE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files == skeleton("ecg")


def test_the_tokenizer_module_has_at_most_40_lines() -> None:
    assert len(skeleton("ecg")["src/maskedmodel_ecg/__init__.py"].splitlines()) <= 40


def test_one_line_announces_the_plugin() -> None:
    project = tomllib.loads(skeleton("heart_sound")["pyproject.toml"])["project"]
    assert project["entry-points"]["maskedmodel"] == {"heart_sound": "maskedmodel_heart_sound"}


def test_what_is_written_passes_its_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("heart_sound", tmp_path)
    monkeypatch.syspath_prepend(str(folder / "src"))
    registry = load_registry(entry_points=[EntryPoint("heart_sound", "maskedmodel_heart_sound", "maskedmodel")])
    results = run_checks(registry, "heart_sound")
    assert [result for result in results if result.status == "failed"] == []
    assert {(result.kind, result.component) for result in results} == {
        ("plugin", "heart_sound"),
        ("tokenizer", "heart_sound"),
        ("data_source", "heart_sound"),
    }
    assert "HeartSoundTokenizer" in (folder / "tests" / "test_heart_sound.py").read_text()


def test_its_config_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("heart_rate", tmp_path)
    monkeypatch.syspath_prepend(str(folder / "src"))
    own = EntryPoint("heart_rate", "maskedmodel_heart_rate", "maskedmodel")
    registry = load_registry(entry_points=[own, *entry_points(group="maskedmodel")])
    parts = build_components(load_config(folder / "pretrain.yaml", registry=registry), registry)
    assert parts.tokenizer.component_name() == "heart_rate"
    sample = parts.source.open("train")[0]
    assert parts.tokenizer.tokenize(sample["signal"][None]).length == 12 * 12


def test_the_default_folder_is_named_after_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write("heart_sound") == Path("maskedmodel-heart-sound")
    assert (tmp_path / "maskedmodel-heart-sound" / "pretrain.yaml").is_file()


@pytest.mark.parametrize("name", ["", "ECG", "1ecg", "heart-sound", "../ecg", "class", "a b", "ecg_", "é"])
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
