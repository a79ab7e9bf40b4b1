"""Plugins read from metadata alone: what is damaged is named, and nothing is imported."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from maskedmodel.cli.app import run_cli
from maskedmodel.comparison.pool import WORKER
from maskedmodel.config.load import load_config
from maskedmodel.errors import PluginError
from maskedmodel.installed import PROJECT, Selection, announced, installed
from maskedmodel.plugins import Registry, load_registry
from tests.runs import ENVIRONMENT, SMALL, command
from tests.test_plugins import GOOD, Site

DAMAGED = {
    "no equals sign": (b"[maskedmodel]\njust a line\n", "TypeError"),
    "no text": (b"\xff\xfe\x00", "UnicodeDecodeError"),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(str(tmp_path))
    for variable in ("MASKEDMODEL_PLUGINS", "MASKEDMODEL_BLOCK_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    return Site(tmp_path)


def damage(site: Site, text: bytes, name: str = "torn") -> None:
    info = site.folder / f"{name}-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.3\n")
    (info / "entry_points.txt").write_bytes(text)


@pytest.mark.slow
@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_distribution_stops_no_command(site: Site, case: str, tmp_path: Path) -> None:
    """In processes of their own: torch and pydantic ask for entry points as they are imported."""
    damage(site, DAMAGED[case][0])
    environment = {**ENVIRONMENT, "PYTHONPATH": str(site.folder)}
    run = ("pretrain", "--run", str(tmp_path / "run"), *SMALL, "train.steps=2")
    ended = subprocess.run(command(*run), capture_output=True, text=True, env=environment, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert "Plugin left out: plugin 'torn' of torn 0.3: its entry_points.txt can't be read" in ended.stderr
    assert (tmp_path / "run/report.html").exists()
    start = WORKER[2].partition("from runpy")[0] + "import torch, maskedmodel.settings; print('imported')"
    worker = [*WORKER[:2], start]
    ended = subprocess.run(worker, capture_output=True, text=True, env=environment, timeout=240)
    assert ended.stdout.startswith("imported"), ended.stderr


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_distribution_is_named_and_the_others_stay(
    site: Site, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, error = DAMAGED[case]
    expected = {point.name for point in installed(PROJECT)[0]}
    site.good("sound", "alpha")
    damage(site, text)
    points, (failure,) = installed(PROJECT)
    assert {point.name for point in points} == {*expected, "sound"}
    assert (failure.plugin, failure.distribution, failure.version) == ("torn", "torn", "0.3")
    assert error in failure.reason
    registry = load_registry()
    assert {"alpha", "patch"} <= set(registry.objectives)
    assert failure in registry.failures
    with pytest.raises(PluginError, match=r"torn 0\.3"):
        load_registry(strict=True)
    for line in (["plugins"], ["plugins", "list"]):
        assert run_cli(line) == 0
        assert "plugin 'torn' of torn 0.3: its entry_points.txt can't be read" in capsys.readouterr().out
    assert run_cli(["config", "show"]) == 0, "commands that have nothing to do with it go on"
    assert run_cli(["forecast", "--help"]) == 0, "and so do the verbs of plugins"


def test_an_entry_point_that_names_no_module_is_told(site: Site) -> None:
    damage(site, b"[maskedmodel]\necg = maskedmodel-ecg\n[maskedmodel.commands]\nhum = \n")
    _, (failure,) = installed(PROJECT)
    assert "'maskedmodel-ecg', which names no module" in failure.reason
    assert failure in load_registry().failures
    assert run_cli(["--help"]) == 0


def test_a_distribution_without_metadata_is_read(site: Site) -> None:
    info = site.folder / "bare-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[maskedmodel]\nbare = a_module_that_is_not_there\n")
    (failure,) = load_registry(allow=["bare"]).failures
    assert (failure.plugin, failure.distribution) == ("bare", "unknown distribution")


def test_an_older_copy_further_down_the_path_is_no_rival(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.good("one", "alpha", "acme.one")
    older = Site(site.folder / "older")
    older.folder.mkdir()
    older.good("one", "alpha", "acme_one")
    monkeypatch.setattr(sys, "path", [str(site.folder), str(older.folder), *sys.path[1:]])
    damage(site, DAMAGED["no equals sign"][0])  # so that distributions are read one by one
    assert len([point for point in installed(PROJECT)[0] if point.name == "one"]) == 1


def test_listing_imports_no_plugin_and_no_torch(site: Site) -> None:
    site.install("slow", "import time; time.sleep(600)", module="fake_slow_plugin")
    code = (
        "import sys; from maskedmodel.cli.app import run_cli\n"
        "code = run_cli(sys.argv[1:])\n"
        "loaded = {'torch', 'numpy', 'fake_slow_plugin', 'maskedmodel_image'} & set(sys.modules)\n"
        "sys.exit(f'imported: {loaded}' if loaded else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "plugins", "list", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(site.folder), "PATH": ""},
    )
    assert (done.returncode, done.stderr) == (0, "")
    listed = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}
    assert listed["slow"] == {
        "name": "slow",
        "distribution": "dist-slow",
        "version": "1.2.3",
        "module": "fake_slow_plugin",
    }
    assert listed["image"]["distribution"] == "maskedmodel"


def test_the_list_follows_allow_and_block(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASKEDMODEL_BLOCK_PLUGINS", "image")
    assert run_cli(["plugins", "list"]) == 0
    out = capsys.readouterr().out
    assert "maskedmodel_image" not in out
    assert "Blocked: image" in out
    monkeypatch.setenv("MASKEDMODEL_PLUGINS", "imagge")
    assert run_cli(["plugins", "list"]) == 2
    assert "Did you mean 'image'" in capsys.readouterr().err


def load(*points: str, strict: bool = False) -> Registry:
    return load_registry(allow=points, strict=strict)


def test_a_built_in_keeps_its_name_and_the_other_is_addressed_by_its_plugin(site: Site) -> None:
    site.good("acme", "patch")
    registry = load("objectives", "acme")
    assert registry.objectives["patch"].__module__.startswith("maskedmodel_objectives")
    assert registry.objectives["acme:patch"].__module__.startswith("fake_acme")
    theirs, built_in = (plugin.components["objective"] for plugin in registry.plugins)
    assert theirs == ("acme:patch",)
    assert "patch" in built_in
    (failure,) = registry.failures
    assert failure.clash
    assert failure.lost == ()
    assert "'patch' is the built-in one, 'acme:patch' the other" in str(failure)
    assert failure.notice.startswith("A name is given twice: plugin 'acme' of dist-acme 1.2.3")
    with pytest.raises(PluginError, match="acme:patch"):
        load("objectives", "acme", strict=True)


def test_what_is_addressed_by_its_plugin_works_in_a_config(site: Site) -> None:
    site.good("acme", "patch")
    registry = load_registry(allow=["objectives", "acme", "image", "masks"])
    config = load_config(None, ["objective.name=acme:patch"], registry=registry)
    assert config.objective.name == "acme:patch"
    built = registry.build("objective", config.objective)
    assert built.component_name() == "acme:patch"
    assert isinstance(built, registry.objectives["acme:patch"])
    again = pickle.loads(pickle.dumps((config.objective, built)))  # noqa: S301 - bytes made in the same line
    assert again[0] == config.objective
    assert (type(again[1]), again[1].settings) == (type(built), built.settings)
    assert load_config(config.model_dump(mode="json"), registry=registry) == config


def test_once_its_rival_has_gone_the_long_name_still_works(site: Site) -> None:
    site.good("acme", "own")
    registry = load_registry(allow=["acme", "image", "masks"])
    assert registry.get("objective", "acme:own") is registry.objectives["own"]
    assert load_config(None, ["objective.name=acme:own"], registry=registry).objective.name == "own"


def test_a_clash_stops_only_who_uses_the_name(site: Site) -> None:
    config = load_config(None, registry=load_registry())
    site.good("one", "twin")
    site.good("two", "twin", "other-dist")
    registry = load_registry()
    assert load_config(None, registry=registry) == config
    with pytest.raises(PluginError, match="write 'one:twin' and 'two:twin'"):
        registry.get("objective", "twin")
    assert {"one:twin", "two:twin"} <= set(registry.objectives)


def test_of_plugins_with_one_name_the_built_in_keeps_it(site: Site) -> None:
    site.good("image", "alpha", "acme-image")
    plugins, clashes = announced(installed(PROJECT)[0])
    found = {plugin.name: plugin.distribution for plugin in plugins}
    assert (found["image"], found["acme-image"]) == ("maskedmodel", "acme-image")
    assert [str(clash) for clash in clashes] == [
        "plugin 'image' of acme-image 1.2.3: maskedmodel has a plugin 'image' too, so this one is called 'acme-image'"
    ]
    assert {"image", "alpha"} <= {*load_registry().tokenizers, *load_registry().objectives}
    assert "alpha" not in load_registry(block=["acme-image"]).objectives
    assert "image" in load_registry(block=["acme-image"]).tokenizers


def test_two_modules_of_one_name_are_told(site: Site) -> None:
    site.install("painted", GOOD.replace("NAME", "beta"), module="maskedmodel_image_elsewhere", distribution="acme")
    info = site.folder / "acme-1.2.3.dist-info"
    (info / "entry_points.txt").write_text("[maskedmodel]\npainted = maskedmodel_image\n")
    failure = next(f for f in load_registry().failures if f.plugin == "painted")
    assert "its module maskedmodel_image is also that of plugin 'image' of maskedmodel" in failure.reason
    assert "image" in load_registry().tokenizers


def test_lists_of_plugins_are_those_given_or_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKEDMODEL_PLUGINS", " one , two,")
    monkeypatch.setenv("MASKEDMODEL_BLOCK_PLUGINS", "")
    assert Selection.of() == Selection(frozenset({"one", "two"}), frozenset())
    assert Selection.of(["three"], ["four"]) == Selection(frozenset({"three"}), frozenset({"four"}))
    assert not Selection.of().takes("three")
    assert Selection.of().takes("known-as", "two")
