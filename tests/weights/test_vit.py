"""Vision transformers of timm and transformers give the features that these libraries compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from maskedmodel import from_huggingface, load
from maskedmodel.engine.positions import CellTable, resampled, sincos
from maskedmodel.errors import CheckpointError, ShapeError
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.weights.read import read_weights
from maskedmodel.weights.report import WeightsMismatch
from maskedmodel.weights.runs import save
from maskedmodel.weights.vit import from_timm
from tests.weights.conftest import ENCODER_SIZES, normalised, pictures

SIZES = {
    **ENCODER_SIZES,
    "mlp_ratio": 2,
}


def scattered(model: nn.Module) -> Any:
    """Random values everywhere, so that nothing is one or zero by chance."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def vit(**changes: Any) -> Any:
    sizes = {"img_size": 12, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2.5}
    return scattered(VisionTransformer(**{**sizes, "num_classes": 0, "global_pool": "token", **changes}))


TIMM = {
    "supervised, with a head": {"num_classes": 5},
    "DINO": {},
    "LayerScale and registers": {"init_values": 0.1, "reg_tokens": 3},
    "registers without positions": {"init_values": 0.1, "reg_tokens": 3, "no_embed_class": True},
    "no class token": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "no bias of queries": {"qkv_bias": False},
    "oblong": {"img_size": (8, 20)},
    "one channel": {"in_chans": 1},
    "gated": {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU, "init_values": 0.1},
}


@pytest.mark.parametrize("case", TIMM)
@pytest.mark.parametrize("way", ["in memory", "file"])
def test_timm(case: str, way: str, registry: Registry, tmp_path: Path) -> None:
    theirs = vit(**TIMM[case])
    channels = TIMM[case].get("in_chans", 3)
    if way == "in memory":
        model = from_timm(theirs, registry=registry)
    else:
        torch.save(theirs.state_dict(), tmp_path / "weights.pth")
        size = TIMM[case].get("img_size")
        model, report = read_weights(tmp_path / "weights.pth", heads=2, image_size=size, registry=registry)
        assert report.verdict == "encoder only"
        assert report.left_out == (("head.bias", "head.weight") if "num_classes" in TIMM[case] else ())
        assert "not normalised" in report.summary()
    signal = torch.rand(2, channels, *model.tokenizer.size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.forward_features(normalised(signal) if channels == 3 else signal)
        found = model.encoder.features(model.tokens(signal))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def huggingface(kind: str, **changes: Any) -> Any:
    config, model = {
        "vit": (ViTConfig, ViTModel),
        "dinov2": (Dinov2Config, Dinov2Model),
        "dinov2_with_registers": (Dinov2WithRegistersConfig, Dinov2WithRegistersModel),
    }[kind]
    return scattered(model(config(**{**SIZES, **changes})))


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov2_with_registers"])
def test_transformers(kind: str, registry: Registry, tmp_path: Path) -> None:
    theirs, signal = huggingface(kind), pictures()
    with torch.no_grad():
        expected = theirs(normalised(signal)).last_hidden_state
    theirs.save_pretrained(tmp_path / "folder")
    read, report = read_weights(tmp_path / "folder", registry=registry)
    for model in (from_huggingface(theirs, registry=registry), read):
        with torch.no_grad():
            found = model.encoder.features(model.tokens(signal))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    left = {"vit": ("pooler.dense.bias", "pooler.dense.weight")}.get(kind, ("embeddings.mask_token",))
    assert report.left_out == left
    # As a run: the same bits, and as an encoder only.
    save(read, tmp_path / "run", report=report)
    again = load(tmp_path / "run", registry=registry)
    assert torch.equal(again.encode(signal), read.encode(signal))
    assert not again.decoder_loaded


def test_a_classifier_of_transformers_leaves_its_head(registry: Registry, tmp_path: Path) -> None:
    sizes = {name: value for name, value in SIZES.items() if name != "mlp_ratio"}
    theirs = scattered(ViTForImageClassification(ViTConfig(**sizes)))
    theirs.save_pretrained(tmp_path)
    model, report = read_weights(tmp_path, registry=registry)
    assert report.left_out == ("classifier.bias", "classifier.weight")
    with torch.no_grad():
        expected = theirs.vit(normalised(pictures())).last_hidden_state[:, 1:]
        torch.testing.assert_close(model.encode(pictures()), expected, rtol=0, atol=1e-5)


def test_the_folder_that_timm_saves_for_the_hub(registry: Registry, tmp_path: Path) -> None:
    theirs = vit()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"img_size": 12, "num_heads": 2},
        "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "input_size": [3, 12, 12]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, _ = read_weights(tmp_path, registry=registry)
    with torch.no_grad():
        expected = theirs.forward_features((pictures() - 0.5) / 0.5)[:, 1:]
        torch.testing.assert_close(model.encode(pictures()), expected, rtol=0, atol=1e-5)
    config["architecture"] = "vit_base_patch16_clip_quickgelu_224"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="quickgelu"):
        read_weights(tmp_path, registry=registry)


def audiomae_state() -> dict[str, Tensor]:
    theirs = vit(img_size=(1024, 128), patch_size=16, in_chans=1)
    with torch.no_grad():
        table = torch.zeros(513, 24)
        for place in range(512):  # token (t, f) stands at k = 8 t + f; its position is that of (k div 64, k mod 64)
            table[1 + place] = sincos(torch.tensor([place // 64, place % 64]), 24)
        theirs.pos_embed.copy_(table)
    decoder = {"decoder_embed.weight": torch.ones(8, 24), "decoder_blocks.0.attn.tau": torch.ones(1)}
    return {**theirs.state_dict(), **decoder, "mask_token": torch.zeros(1, 1, 8)}


def test_audiomaes_encoder_and_its_odd_positions(tmp_path: Path) -> None:
    state = audiomae_state()
    torch.save({"model": state}, tmp_path / "pretrained.pth")
    registry = load_registry(strict=True, allow=["audio", "masks", "objectives"])
    model, report = read_weights(tmp_path / "pretrained.pth", heads=2, registry=registry)
    assert {"decoder_embed.weight", "decoder_blocks.0.attn.tau", "mask_token"} == set(report.left_out)
    assert "8 x 64" in report.summary()
    assert "shifted windows" in report.summary()
    theirs = vit(img_size=(1024, 128), patch_size=16, in_chans=1)
    theirs.load_state_dict({name: t for name, t in state.items() if not name.startswith(("decoder", "mask"))})
    mels = torch.randn(1, 1, 1024, 128, generator=torch.Generator().manual_seed(0)) * 4 - 4
    with torch.no_grad():
        expected = theirs.forward_features((mels + 4.2677393) / (2 * 4.5689974))[:, 1:]
        torch.testing.assert_close(model.encode(mels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"qk_norm": True}, "queries and keys are normalised"),
        ({"pre_norm": True}, "before the first block"),
        ({"global_pool": "avg"}, "fc_norm"),
        ({"mlp_layer": timm.layers.SwiGLU}, "two layers"),
    ],
)
def test_what_cant_be_expressed_is_refused_with_the_reason(
    changes: dict[str, Any], said: str, registry: Registry, tmp_path: Path
) -> None:
    torch.save(vit(reg_tokens=1, **changes).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=said):
        read_weights(tmp_path / "weights.pth", heads=2, registry=registry)


def test_other_blocks_in_memory_and_in_a_config_are_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no plain VisionTransformer"):
        from_timm(nn.Linear(2, 2), registry=registry)
    with pytest.raises(CheckpointError, match="activation"):
        from_timm(vit(act_layer=nn.ReLU), registry=registry)
    with pytest.raises(CheckpointError, match="no LayerNorm"):
        from_timm(vit(global_pool="avg"), registry=registry)
    with pytest.raises(CheckpointError, match="gates first"):
        from_timm(vit(mlp_layer=timm.layers.GluMlp, act_layer=nn.SiLU), registry=registry)
    with pytest.raises(CheckpointError, match="gates first"):
        from_timm(vit(mlp_layer=timm.layers.SwiGLUPacked), registry=registry)


def test_gated_ones_under_the_names_of_dinov2s_authors(registry: Registry, tmp_path: Path) -> None:
    theirs = vit(mlp_layer=timm.layers.SwiGLUPacked, act_layer=nn.SiLU, init_values=0.1)
    names = {".mlp.fc1.": ".mlp.w12.", ".mlp.fc2.": ".mlp.w3."}
    state = theirs.state_dict()
    for old, new in names.items():
        state = {name.replace(old, new): tensor for name, tensor in state.items()}
    torch.save(state, tmp_path / "weights.pth")
    model, _ = read_weights(tmp_path / "weights.pth", heads=2, registry=registry)
    assert model.settings.encoder.mlp == "swiglu"
    with torch.no_grad():
        expected = theirs.forward_features(normalised(pictures()))[:, 1:]
        torch.testing.assert_close(model.encode(pictures()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["dinov2", "dinov2_with_registers"])
def test_gated_ones_of_transformers(kind: str, registry: Registry, tmp_path: Path) -> None:
    theirs = huggingface(kind, use_swiglu_ffn=True)
    theirs.save_pretrained(tmp_path)
    model, _ = read_weights(tmp_path, registry=registry)
    assert model.settings.encoder.mlp == "swiglu"
    with torch.no_grad():
        expected = theirs(normalised(pictures())).last_hidden_state
        found = model.encoder.features(model.tokens(pictures()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_scale_of_another_width_and_a_missing_tensor_are_mismatches(registry: Registry, tmp_path: Path) -> None:
    state = vit(init_values=0.1).state_dict()
    torch.save({**state, "blocks.0.ls1.gamma": torch.ones(23)}, tmp_path / "scale.pth")
    with pytest.raises(WeightsMismatch, match=r"blocks\.0\.ls1\.gamma"):
        read_weights(tmp_path / "scale.pth", heads=2, registry=registry)
    del state["blocks.1.norm2.bias"]
    torch.save(state, tmp_path / "missing.pth")
    with pytest.raises(WeightsMismatch, match=r"encoder\.blocks\.1\.norm2\.bias"):
        read_weights(tmp_path / "missing.pth", heads=2, registry=registry)


@pytest.mark.parametrize("prefix", ["", "encoder.", "model.encoder."])
def test_ca_maes_layout_is_refused_with_the_reason(prefix: str, registry: Registry, tmp_path: Path) -> None:
    state = {f"{prefix}vit_backbone.{name}": tensor for name, tensor in vit(qk_norm=True).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "model.safetensors")  # a pickle, as its code writes it
    with pytest.raises(CheckpointError, match=r"(?s)CA-MAE.*parallel"):
        read_weights(tmp_path / "model.safetensors", registry=registry)


def test_positions_that_fit_no_picture_are_refused(registry: Registry, tmp_path: Path) -> None:
    torch.save(vit().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="16 of patches"):
        from_timm(tmp_path / "weights.pth", heads=2, image_size=16, registry=registry)
    with pytest.raises(CheckpointError, match="decoder_heads"):
        read_weights(tmp_path / "weights.pth", heads=2, decoder_heads=2, registry=registry)


def test_a_table_of_cells_is_read_by_place_and_resampled_as_timm_does() -> None:
    table = CellTable(6, (2, 3))
    coords = torch.tensor([[1, 2], [0, 0]])
    assert torch.equal(table(coords, (2, 3)), table.table[[5, 0]])
    assert torch.equal(table(coords, None), table.table[[5, 0]])
    other = timm.layers.resample_abs_pos_embed(table.table[None], (4, 5), (2, 3), num_prefix_tokens=0, antialias=False)
    torch.testing.assert_close(resampled(table.table, (2, 3), (4, 5)), other[0])
    torch.testing.assert_close(table(coords, (4, 5)), other[0, [7, 0]])
    line = torch.arange(4.0)[:, None]
    torch.testing.assert_close(resampled(line, (4,), (2,)), torch.tensor([[0.5], [2.5]]))
    with pytest.raises(ShapeError, match="4 axes"):
        resampled(torch.zeros(16, 2), (2, 2, 2, 2), (1, 1, 1, 1))
