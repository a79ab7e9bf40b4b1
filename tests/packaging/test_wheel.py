"""The wheel and the plugin template, built and installed without a network into a clean environment, and used there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.built_in import built_in_plugins

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run without what the surrounding process has in its environment for Python and maskedmodel."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MASKEDMODEL", "VIRTUAL_ENV", "UV_"))}
    environment = {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def copy_of_the_tracked_tree(to: Path) -> Path:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this isn't a git checkout, so there is no list of what belongs into the wheel")
    for name in filter(None, done.stdout.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def build(source: Path, to: Path) -> Path:
    """The wheel of a source tree, by hatchling, which needs no network."""
    before = set(to.glob("*.whl"))
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", to, cwd=source)
    (wheel,) = set(to.glob("*.whl")) - before
    return wheel


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_tracked_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def wheels(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheels of maskedmodel and of the template."""
    to = tmp_path_factory.mktemp("wheels")
    return build(tree, to), build(tree / "examples" / "plugin-template", to)


@pytest.fixture(scope="module")
def scripts(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a clean environment with both wheels, and the dependencies of this one behind them."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    run(
        *(sys.executable, "-m", "pip", "--python", programs / "python", "--disable-pip-version-check"),
        *("install", "--no-index", "--no-deps", "--no-cache-dir", *wheels),
        cwd=folder,
    )
    # A .pth inside a folder named by a .pth isn't read: the editable install of maskedmodel stays out.
    (site,) = folder.glob("[Ll]ib*/**/site-packages") if os.name == "nt" else folder.glob("lib/*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


@pytest.fixture
def maskedmodel(scripts: Path, tmp_path: Path) -> Any:
    def call(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(scripts / "maskedmodel", *arguments, cwd=tmp_path, check=check)

    return call


def test_the_wheel_holds_code_configs_and_templates(wheels: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(wheels[0]).namelist())
    for needed in (
        "maskedmodel/__init__.py",
        "maskedmodel/configs/image-quickstart.yaml",
        "maskedmodel/testing/skeleton/pyproject.toml.txt",
        "maskedmodel/report/comparison.html",
        "maskedmodel/report/sort.js",
        "maskedmodel/report/style.css",
        "maskedmodel/report/template.html",
        "maskedmodel_image/__init__.py",
        "maskedmodel_masks/__init__.py",
        "maskedmodel_objectives/__init__.py",
    ):
        assert needed in names
    packages = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert packages == {"maskedmodel", *(path.name for path in (ROOT / "plugins").glob("maskedmodel_*"))}


def test_the_installed_package_is_the_wheels(scripts: Path, tmp_path: Path) -> None:
    code = "import maskedmodel, maskedmodel_image; print(maskedmodel.__file__); print(maskedmodel_image.__file__)"
    for line in run(scripts / "python", "-c", code, cwd=tmp_path).stdout.splitlines():
        assert Path(line).is_relative_to(scripts.parent)


def test_plugins_are_listed_built_in_and_foreign(maskedmodel: Any) -> None:
    listed = json.loads(maskedmodel("plugins", "--json").stdout)
    owners = {plugin["name"]: plugin["distribution"] for plugin in listed["plugins"]}
    built_in = built_in_plugins()
    assert owners == {**dict.fromkeys(built_in, "maskedmodel"), "ecg": "maskedmodel-ecg", "ecg_data": "maskedmodel-ecg"}
    assert listed["failures"] == []


def test_a_bare_name_finds_a_config_away_from_a_checkout(maskedmodel: Any) -> None:
    assert "name: digits" in maskedmodel("config", "show", "image-quickstart").stdout


@pytest.mark.slow  # as a plugin that `plugins new` writes, which has the same text
def test_the_template_keeps_the_contract(maskedmodel: Any) -> None:
    results = json.loads(maskedmodel("plugins", "check", "ecg", "--json").stdout)
    assert {result["status"] for result in results} == {"passed", "not applicable"}
    assert len(results) > 30


def test_the_template_pretrains_from_its_yaml(maskedmodel: Any, tree: Path, tmp_path: Path) -> None:
    shutil.copy(tree / "examples" / "plugin-template" / "pretrain.yaml", tmp_path)
    settings = ("train.steps=4", "train.batch=4", "train.checkpoint_every=2", "data.records=16", "train.log_every=1")
    maskedmodel("pretrain", "pretrain.yaml", "--run", "run", *settings)
    last = tmp_path / "run" / "checkpoints" / "step-00000004"
    assert (last / "COMMITTED").is_file()
    assert (last / "model.safetensors").stat().st_size > 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines if "loss" in line} == {1, 2, 3, 4}


def test_a_new_plugin_keeps_the_contract(maskedmodel: Any, scripts: Path, tmp_path: Path) -> None:
    maskedmodel("plugins", "new", "heart_sound")
    folder = tmp_path / "maskedmodel-heart-sound"
    assert (folder / "src" / "maskedmodel_heart_sound" / "__init__.py").is_file()
    run(scripts / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=folder_on_path(folder))


def folder_on_path(folder: Path) -> Path:
    """The folder, with a conftest that makes the plugin importable without an installation."""
    text = "import sys, pathlib\nsys.path.insert(0, str(pathlib.Path(__file__).parent / 'src'))\n"
    (folder / "conftest.py").write_text(text)
    return folder
