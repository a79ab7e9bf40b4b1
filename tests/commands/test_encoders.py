"""Models of other libraries judged on our data: what they are given, and what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

import maskedmodel
from maskedmodel.cli.app import run_cli
from maskedmodel.config.load import load_config
from maskedmodel.errors import CheckpointError, ConfigError, DataError
from maskedmodel.evaluation.foreign import fitted, open_encoders
from maskedmodel.plugins import load_registry
from tests.runs import pretrain
from tests.weights.conftest import position_table

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
FEW = ("evaluate.train_samples=60", "evaluate.val_samples=30", "evaluate.few_labels=[]", "train.device=cpu")


def images(channels: int = 1) -> Any:
    return load_registry().tokenizers["image"](size=16, patch=4, channels=channels)


def saved(folder: Path, kind: Any = ViTModel, config: Any = ViTConfig, **changes: Any) -> tuple[Path, Any]:
    torch.manual_seed(0)
    model = kind(config(image_size=24, patch_size=8, **{**SIZES, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
        if kind is ViTMAEForPreTraining:
            model.vit.embeddings.position_embeddings.copy_(position_table(3, 24))
            model.decoder.decoder_pos_embed.copy_(position_table(3, 16))
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return saved(tmp_path_factory.mktemp("models") / "my-vit")


def test_a_model_of_transformers_sees_colour_at_its_size_and_normalised(tmp_path: Path, vit: Any) -> None:
    folder, model = vit
    given = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "size": 24}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    signal = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    own, fresh = open_encoders(folder, images(), "mean", 1, torch.device("cpu"))
    larger = torch.nn.functional.interpolate(signal, (24, 24), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(given[key])[:, None, None] for key in ("image_mean", "image_std"))
    with torch.no_grad():
        expected = model((larger - mean) / std, output_hidden_states=True)
        found = own.look(signal, True)
        other = fresh.embed(signal)
    assert torch.allclose(found.tokens, expected.last_hidden_state[:, 1:], atol=1e-5)
    assert torch.allclose(own.embed(signal), expected.last_hidden_state[:, 1:].mean(1), atol=1e-5)
    assert torch.allclose(found.class_token, expected.last_hidden_state[:, 0], atol=1e-5)
    assert torch.allclose(found.layers[:, 0], expected.hidden_states[1][:, 1:].mean(1), atol=1e-5)
    assert found.layers.shape == (3, 2, 24)
    assert [own.name, fresh.name] == ["my-vit", "my-vit, random weights"]
    assert not torch.allclose(other, own.embed(signal), atol=1e-2)
    assert "transformers vit; pictures as this page's data give them, resized to 24x24 pixels" in own.about
    assert "0.4/0.5/0.6" in own.about
    again = open_encoders(folder, images(), "mean", 1, torch.device("cpu"))[1]
    assert torch.equal(again.embed(signal), other), "random weights are a function of the seed"


def test_registers_are_no_patches(tmp_path: Path) -> None:
    folder, model = saved(tmp_path / "dino", Dinov2Model, Dinov2Config, mlp_ratio=2)
    (own,) = open_encoders(folder, images(3), "class", 0, torch.device("cpu"), twin=False)
    signal = torch.rand(2, 3, 24, 24)
    found = own.look(signal, False)
    assert found.tokens.shape == (2, 9, 24)
    with torch.no_grad():
        assert torch.allclose(own.embed(signal), model((signal - 0.5) / 0.5).last_hidden_state[:, 0], atol=1e-5)
    assert "a guess: there is no preprocessor_config.json" in own.about


def test_a_model_of_timm(tmp_path: Path) -> None:
    arguments = {"img_size": 24, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **arguments).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "input_size": [3, 24, 24], "num_classes": 0}
    written = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": arguments}
    (tmp_path / "config.json").write_text(json.dumps({**written, "pretrained_cfg": config}))
    own, fresh = open_encoders(tmp_path, images(), "mean", 1, torch.device("cpu"))
    for module in (*own.modules, *fresh.modules):
        module.eval()
    signal = torch.rand(2, 1, 24, 24)
    with torch.no_grad():
        picture = (signal.expand(-1, 3, -1, -1) - torch.tensor(config["mean"])[:, None, None]) / 0.2
        expected = model.forward_features(picture)
        found = own.look(signal, True)
        assert torch.allclose(found.tokens, expected[:, 1:], atol=1e-5)
        assert torch.allclose(found.layers[:, -1], expected[:, 1:].mean(1), atol=1e-5)
        assert found.layers.shape == (2, 2, 24)
        assert not torch.allclose(fresh.embed(signal), own.embed(signal), atol=1e-2)


def test_pictures_are_fitted() -> None:
    grey, colour = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    assert torch.equal(fitted(grey, (4, 4)), grey.expand(-1, 3, -1, -1))
    assert torch.equal(fitted(colour, (4, 4), 1), colour.mean(1, keepdim=True))
    larger = fitted(colour, (8, 6))
    assert larger.shape == (2, 3, 8, 6)
    assert 0 <= float(larger.min()) <= float(larger.max()) <= 1


def test_folders_and_functions_on_the_data_of_a_config(vit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = vit
    arguments = ["probe", "image-quickstart", *FEW, "--encoder", str(folder), "--probes", "knn,cls_mean", "--json"]
    assert run_cli(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in result["rows"]] == ["my-vit", "my-vit, random weights", "raw values"]
    assert result["rows"][0]["knn"]["count"] == 30
    assert list(result["others"][0]["scores"]) == ["my-vit", "my-vit, random weights"]
    assert "transformers vit" in result["protocol"]

    def brightness(values: Tensor) -> Tensor:
        return values.mean((2, 3))

    found = maskedmodel.probe("image-quickstart", overrides=FEW, encoders=brightness, quiet=True)
    assert [(row.name, row.width) for row in found.rows] == [("brightness", 1), ("raw values", 256)]


@pytest.mark.slow
def test_beside_a_run_s_encoder_and_kept_with_the_run(tmp_path: Path, vit: Any) -> None:
    run = tmp_path / "run"
    pretrain(run, "train.steps=2")
    few = ("evaluate.train_samples=40", "evaluate.val_samples=20", "evaluate.few_labels=[]")
    result = maskedmodel.probe(run, overrides=few, encoders={"other": vit[0], "mine": run}, quiet=True)
    names = ["trained encoder", "same encoder, random weights", "other", "other, random weights"]
    assert [row.name for row in result.rows] == [*names, "mine", "mine, random weights", "raw values"]
    own, again = result.rows[0], result.rows[4]
    assert own.knn == again.knn, "the same weights on the same pictures"
    assert not (run / "probe.json").exists()
    (kept,) = run.glob("probe-*.json")
    assert json.loads(kept.read_text())["about"].endswith("encoder other encoder mine")
    assert len(kept.stem) <= 90
    assert "encoder other" in (run / "report.html").read_text()
    maskedmodel.probe(run, probes=["layers"], overrides=few, quiet=True)
    assert len(list(run.glob("probe-*.json"))) == 2
    maskedmodel.probe(run, probes=["cls_mean", "knn", "linear"], quiet=True)
    written = json.loads((run / "probe.json").read_text())
    assert [other["probe"] for other in written["others"]] == ["cls_mean"]
    assert written["landscape"]["classes"]["3"] == "3"


def test_a_vitmae_is_judged_without_masking(tmp_path: Path) -> None:
    sizes = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    folder, _ = saved(tmp_path / "mae", ViTMAEForPreTraining, ViTMAEConfig, **sizes, decoder_intermediate_size=32)
    found = maskedmodel.probe(
        "image-quickstart", overrides=[*FEW, "evaluate.probes=[knn]"], encoders={"MAE": folder}, quiet=True
    )
    assert [row.name for row in found.rows][:2] == ["MAE", "MAE, random weights"]
    assert "resized to 24x24 pixels" in found.protocol


def test_what_is_no_model_is_refused(tmp_path: Path, vit: Any) -> None:
    device = torch.device("cpu")
    with pytest.raises(CheckpointError, match="no model of transformers or timm"):
        open_encoders(tmp_path, images(), "mean", 0, device)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(CheckpointError, match="can't load the model"):
        open_encoders(tmp_path, images(), "mean", 0, device)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))
    with pytest.raises(CheckpointError, match="can't load the model"):
        open_encoders(tmp_path, images(), "mean", 0, device)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="can't be read"):
        open_encoders(tmp_path, images(), "mean", 0, device)
    with pytest.raises(DataError, match="takes pictures"):
        open_encoders(vit[0], load_registry().tokenizers["series"](variates=2), "mean", 0, device)
    with pytest.raises(ConfigError, match="same name"):
        maskedmodel.probe("image-quickstart", encoders=[vit[0], vit[0]])


def test_an_unknown_probe_is_named(capsys: pytest.CaptureFixture[str], vit: Any) -> None:
    arguments = ["probe", "image-quickstart", "--encoder", str(vit[0]), "--probes", "knn,atentive"]
    assert run_cli(arguments) == 2
    said = capsys.readouterr().err
    assert "evaluate.probes" in said
    assert "atentive" in said
    assert "attentive" in said
    assert load_config(None, registry=load_registry()).evaluate.probes == ("knn", "linear")
