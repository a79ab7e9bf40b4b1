from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from maskedmodel import MaskedAutoencoder, load, read_weights
from maskedmodel.config.files import read_config, to_yaml
from maskedmodel.errors import CheckpointError, ConfigError, PluginError
from maskedmodel.plugins import Registry
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.weights.huggingface import read_huggingface
from maskedmodel.weights.runs import save
from tests.weights.conftest import pictures


@pytest.fixture
def model(vitmae: Any, registry: Registry) -> MaskedAutoencoder:
    return read_huggingface(vitmae, registry=registry)[0]


@pytest.fixture
def run(model: MaskedAutoencoder, tmp_path: Path) -> Path:
    """A run with three checkpoints, whose class token tells their step, and data that isn't installed here."""
    folder = save(model, tmp_path / "runs" / "digits-a")
    config = {"data": {"name": "elsewhere"}, "train": {"steps": 9}, **read_config(folder / "config.yaml")}
    (folder / "config.yaml").write_text(to_yaml(config))
    for step in (500, 1000):
        tensors = {**model.state_dict(), "encoder.class_token": torch.full((1, 1, 24), float(step))}
        checkpoints.save(folder, step, tensors, {}, {})
    return folder


def step_of(model: MaskedAutoencoder) -> float:
    assert model.encoder.class_token is not None
    return model.encoder.class_token[0, 0, 0].item()


def assert_equal(one: MaskedAutoencoder, other: MaskedAutoencoder) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for part in ("tokenizer", "scheduler", "objective"):
        assert getattr(one, part).settings == getattr(other, part).settings
    assert one.settings == other.settings


def test_imported_weights_load_back_exactly(vitmae: Any, registry: Registry, tmp_path: Path) -> None:
    model, report = read_huggingface(vitmae, registry=registry)
    again = load(save(model, tmp_path / "mae", report=report), registry=registry)
    assert_equal(again, model)
    assert again.decoder_loaded
    assert not again.training
    state = checkpoints.read_state(checkpoints.newest(tmp_path / "mae"))
    assert state["imported"]["verdict"] == "complete"
    assert "CC-BY-NC" in state["imported"]["licence"]


def test_statistics_given_by_hand_survive(make_vitmae: Callable[..., Any], registry: Registry, tmp_path: Path) -> None:
    model = read_huggingface(make_vitmae(num_channels=2), registry=registry)[0]
    assert_equal(load(save(model, tmp_path / "mae"), registry=registry), model)


def test_an_encoder_stays_an_encoder(vitmae: Any, registry: Registry, tmp_path: Path) -> None:
    model, report = read_huggingface(vitmae.vit, registry=registry)
    folder = save(model, tmp_path / "mae", report=report)
    stored = load_file(checkpoints.newest(folder) / "model.safetensors")
    assert not any(name.startswith("decoder.") for name in stored)
    again = load(folder, registry=registry)
    signal = pictures()
    assert torch.equal(again.encode(signal), model.encode(signal))
    with pytest.raises(CheckpointError, match="encoder only"):
        again.reconstruct(signal)


def test_a_place_in_use_is_not_overwritten(model: MaskedAutoencoder, run: Path) -> None:
    with pytest.raises(CheckpointError, match="something in this place"):
        save(model, run)


def test_the_newest_checkpoint_is_taken(run: Path, registry: Registry) -> None:
    assert step_of(load(run, registry=registry)) == 1000
    assert step_of(load(str(run), registry=registry)) == 1000


@pytest.mark.parametrize(
    "wanted", [500, "step-00000500", Path("step-00000500")], ids=lambda wanted: type(wanted).__name__
)
def test_a_checkpoint_can_be_chosen(run: Path, registry: Registry, wanted: str | Path | int) -> None:
    assert step_of(load(run, checkpoint=wanted, registry=registry)) == 500


def test_a_checkpoints_own_folder_loads(run: Path, registry: Registry) -> None:
    folder = run / "checkpoints" / "step-00000500"
    assert step_of(load(folder, registry=registry)) == 500
    with pytest.raises(CheckpointError, match="a checkpoint already"):
        load(folder, checkpoint=1000, registry=registry)


def test_a_damaged_newest_one_falls_back_but_is_refused_by_name(run: Path, registry: Registry) -> None:
    with (run / "checkpoints" / "step-00001000" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    assert step_of(load(run, registry=registry)) == 500
    with pytest.raises(CheckpointError, match="damaged"):
        load(run, checkpoint=1000, registry=registry)


def test_a_missing_run_suggests_the_nearest(run: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)  # runs of whoever runs the tests are looked at, too
    with pytest.raises(CheckpointError, match="Did you mean 'digits-a'"):
        load(run.with_name("digit-a"), registry=registry)
    with pytest.raises(CheckpointError, match="Pretrain first"):
        load(run / "empty" / "deeper", registry=registry)


def test_a_bare_name_suggests_the_folder_of_runs(
    run: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent.parent)
    with pytest.raises(CheckpointError, match="Did you mean 'runs/digits-a'"):
        load("digits-a", registry=registry)


def test_a_missing_checkpoint_suggests_the_nearest(run: Path, registry: Registry) -> None:
    with pytest.raises(CheckpointError, match="Did you mean 'step-00000500'"):
        load(run, checkpoint=501, registry=registry)


def test_a_run_without_a_checkpoint_says_so(run: Path, registry: Registry, tmp_path: Path) -> None:
    early = tmp_path / "early"
    early.mkdir()
    (early / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load(early, registry=registry)


def test_foreign_weights_are_sent_to_the_right_door(vitmae: Any, registry: Registry, tmp_path: Path) -> None:
    vitmae.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="from_huggingface"):
        load(tmp_path, registry=registry)
    with pytest.raises(CheckpointError, match="from_huggingface"):
        load(tmp_path / "model.safetensors", registry=registry)


def test_a_config_of_other_sizes_names_keys_and_shapes(run: Path, registry: Registry) -> None:
    config = read_config(run / "config.yaml")
    config["model"]["encoder"]["dim"] = 32
    (run / "config.yaml").write_text(to_yaml(config))
    with pytest.raises(CheckpointError, match=r"encoder\.class_token: \(1, 1, 24\) where \(1, 1, 32\)"):
        load(run, registry=registry)


@pytest.mark.parametrize("lost", ["decoder.mask_token", "decoder.", "encoder.norm.weight"])
def test_missing_tensors_are_never_filled_up(
    model: MaskedAutoencoder, run: Path, registry: Registry, lost: str
) -> None:
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(lost)}
    checkpoints.save(run, 2000, tensors, {}, {})
    with pytest.raises(CheckpointError, match="missing"):
        load(run, registry=registry)


def test_an_unexpected_tensor_is_refused(model: MaskedAutoencoder, run: Path, registry: Registry) -> None:
    checkpoints.save(run, 2000, {**model.state_dict(), "encoder.extra": torch.ones(2)}, {}, {})
    with pytest.raises(CheckpointError, match=r"unexpected \(encoder\.extra"):
        load(run, registry=registry)


def test_a_missing_plugin_and_a_broken_config_are_named(run: Path, registry: Registry) -> None:
    with pytest.raises(PluginError, match="tokenizer 'image'"):
        load(run, registry=replace(registry, tokenizers={}))
    config = read_config(run / "config.yaml")
    (run / "config.yaml").write_text(to_yaml({**config, "mask": {"name": "uniform", "ratio": 2}}))
    with pytest.raises(ConfigError, match=r"mask\.ratio"):
        load(run, registry=registry)
    (run / "config.yaml").write_text(to_yaml({**config, "tokenizer": {"name": "image", "size": 13, "patch": 4}}))
    with pytest.raises(Exception, match=r"doesn't divide(.|\n)*config\.yaml"):
        load(run, registry=registry)
    (run / "config.yaml").write_text(to_yaml({"model": {}}))
    with pytest.raises(ConfigError, match="names no tokenizer"):
        load(run, registry=registry)


def test_the_global_generator_is_left_alone(run: Path, registry: Registry) -> None:
    state = torch.get_rng_state()
    load(run, registry=registry)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "given",
    [None, 3, b"x", ["a"], {}, "a\0b", "~nobody-of-this-name/run", "x" * 5000],
    ids=lambda given: type(given).__name__,
)
def test_what_is_no_path_is_refused(given: Any) -> None:
    for call in (load, read_weights):
        with pytest.raises(CheckpointError):
            call(given)


@pytest.mark.parametrize(
    "wanted", [["best"], {}, 1.5, -1, 10**5000, b"best", "a\0b", "x" * 5000], ids=lambda wanted: type(wanted).__name__
)
def test_what_is_no_checkpoint_is_refused(wanted: Any, run: Path) -> None:
    with pytest.raises(CheckpointError):
        load(run, checkpoint=wanted)
