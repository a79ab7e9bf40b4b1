from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from maskedmodel import MaskedAutoencoder, from_facebook
from maskedmodel.errors import CheckpointError
from maskedmodel.plugins import Registry
from maskedmodel.weights.facebook import read_facebook
from maskedmodel.weights.read import read_weights
from maskedmodel.weights.report import WeightsMismatch
from tests.weights.conftest import assert_same, facebook_names, normalised, pictures, position_table

HEADS = {"heads": 2, "decoder_heads": 4}


def read(state: object, path: Path, registry: Registry, **arguments: Any) -> tuple[MaskedAutoencoder, Any]:
    torch.save(state, path)
    return read_facebook(path, registry=registry, **{**HEADS, "normalise": False, **arguments})


@pytest.fixture
def state(vitmae: Any) -> dict[str, Tensor]:
    return facebook_names(vitmae.state_dict())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def test_facebook_names_give_what_transformers_gives(
    vitmae: Any, state: dict[str, Tensor], path: Path, registry: Registry
) -> None:
    model, report = read({"model": state}, path, registry)
    assert_same(model, vitmae)
    assert_same(from_facebook(path, normalise=False, registry=registry, **HEADS), vitmae)
    assert report.verdict == "complete"
    assert report.counts == {"loaded": len(state), "missing": 0, "unexpected": 0, "mismatched": 0}
    assert "CC-BY-NC" in report.summary()
    assert str(path) in report.summary()


def test_every_tensor_lands_where_it_belongs(state: dict[str, Tensor], path: Path, registry: Registry) -> None:
    ours = read(state, path, registry)[0].state_dict()
    # The convolution's (D, C, p, p) as a Linear over vectors in the order of rows, columns, channels.
    for row, column, channel in [(0, 0, 0), (1, 2, 0), (3, 3, 2)]:
        place = (row * 4 + column) * 3 + channel
        weight = state["patch_embed.proj.weight"][:, channel, row, column]
        assert torch.equal(ours["encoder.embed.weight"][:, place], weight)
    for our_name, name in {
        "encoder.class_token": "cls_token",
        "encoder.embed.bias": "patch_embed.proj.bias",
        "encoder.blocks.1.qkv.weight": "blocks.1.attn.qkv.weight",
        "encoder.blocks.0.proj.bias": "blocks.0.attn.proj.bias",
        "encoder.blocks.1.norm2.weight": "blocks.1.norm2.weight",
        "encoder.norm.bias": "norm.bias",
        "decoder.mask_token": "mask_token",
        "decoder.embed.weight": "decoder_embed.weight",
        "decoder.blocks.1.mlp.fc2.bias": "decoder_blocks.1.mlp.fc2.bias",
        "decoder.norm.weight": "decoder_norm.weight",
        "decoder.head.weight": "decoder_pred.weight",
    }.items():
        assert torch.equal(ours[our_name], state[name]), our_name


def test_sizes_are_read_off_the_shapes(state: dict[str, Tensor], path: Path, registry: Registry) -> None:
    model, _ = read(state, path, registry)
    encoder, decoder = model.settings.encoder, model.settings.decoder
    assert (encoder.dim, encoder.depth, encoder.mlp_ratio, encoder.norm_eps) == (24, 2, 2.5, 1e-6)
    assert (decoder.dim, decoder.depth, decoder.mlp_ratio) == (16, 2, 2.0)
    assert (model.tokenizer.settings.size, model.tokenizer.settings.patch) == (12, 4)
    assert model.tokenizer.settings.normalise == "imagenet"


def test_an_encoder_gives_features_and_refuses_what_needs_the_decoder(
    vitmae: Any, state: dict[str, Tensor], path: Path, registry: Registry
) -> None:
    encoder = {name: t for name, t in state.items() if not name.startswith(("decoder", "mask_token"))}
    model, report = read({"model": encoder}, path, registry)
    assert report.verdict == "encoder only"
    assert report.counts["loaded"] == len(encoder)
    signal = pictures()
    complete = read(state, path, registry)[0]
    assert torch.equal(model.encode(signal), complete.encode(signal))
    tokens = model.tokens(signal)
    for refused in (
        lambda: model(signal),
        lambda: model.reconstruct(signal),
        lambda: model.predict_everywhere(tokens, complete(signal).mask),
    ):
        with pytest.raises(CheckpointError, match="encoder only"):
            refused()


def test_timms_encoder_gives_the_same_features(path: Path, registry: Registry) -> None:
    timm = VisionTransformer(
        img_size=12, patch_size=4, embed_dim=24, depth=2, num_heads=2, mlp_ratio=4, num_classes=0, global_pool="token"
    ).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in timm.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        timm.pos_embed.copy_(position_table(3, 24))
    model, report = read(timm.state_dict(), path, registry)
    assert report.verdict == "encoder only"
    signal = pictures()
    with torch.no_grad():
        features = timm.forward_features(normalised(signal))
        torch.testing.assert_close(model.encode(signal), features[:, 1:], rtol=0, atol=1e-5)
        torch.testing.assert_close(model.embed(signal, "class"), features[:, 0], rtol=0, atol=1e-5)


def test_a_training_checkpoint_tells_its_targets_and_its_ratio(
    state: dict[str, Tensor], path: Path, registry: Registry
) -> None:
    arguments = argparse.Namespace(norm_pix_loss=True, mask_ratio=0.6, model="mae_vit_base_patch16", lr=None)
    checkpoint = {"model": state, "optimizer": {"state": {}}, "epoch": 3, "scaler": {"scale": 1.0}, "args": arguments}
    model, report = read(checkpoint, path, registry, normalise=None)
    assert model.objective.settings.normalise is True
    assert model.scheduler.ratio(0.0) == 0.6
    assert any("norm_pix_loss=True" in note for note in report.notes)
    assert report.verdict == "complete"


@pytest.mark.parametrize(
    ("name", "normalise"), [("mae_visualize_vit_tiny.pth", False), ("mae_pretrain_vit_tiny_full.pth", True)]
)
def test_published_names_tell_their_targets(
    state: dict[str, Tensor], tmp_path: Path, registry: Registry, name: str, normalise: bool
) -> None:
    model, _ = read(state, tmp_path / name, registry, normalise=None)
    assert model.objective.settings.normalise is normalise


def test_targets_that_nothing_tells_are_guessed_aloud(
    state: dict[str, Tensor], path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "maskedmodel"):
        model, report = read(state, path, registry, normalise=None)
    assert model.objective.settings.normalise is True
    assert "normalised is assumed" in caplog.text
    assert any("normalised is assumed" in note for note in report.notes)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(
    state: dict[str, Tensor], path: Path, registry: Registry, prefix: str
) -> None:
    wrapped = {"state_dict": {prefix + name: tensor for name, tensor in state.items()}}
    assert read(wrapped, path, registry)[1].verdict == "complete"


def test_another_prefix_is_a_mismatch_with_counts(state: dict[str, Tensor], path: Path, registry: Registry) -> None:
    with pytest.raises(WeightsMismatch, match=r"Every name begins with 'backbone\.'") as caught:
        read({f"backbone.{name}": tensor for name, tensor in state.items()}, path, registry)
    assert caught.value.report.counts["unexpected"] == len(state)
    assert caught.value.report.counts["loaded"] == 0
    assert caught.value.report.counts["missing"] > 0


def test_renamed_blocks_are_a_mismatch_with_counts(state: dict[str, Tensor], path: Path, registry: Registry) -> None:
    renamed = {
        name.replace("decoder_blocks.1.attn.", "decoder_blocks.1.attention."): tensor for name, tensor in state.items()
    }
    with pytest.raises(WeightsMismatch) as caught:
        read(renamed, path, registry)
    counts = caught.value.report.counts
    assert counts == {"loaded": len(state) - 4, "missing": 4, "unexpected": 4, "mismatched": 0}
    said = f"{len(state) - 4} loaded, 4 missing, 4 unexpected, 0 mismatched"
    assert said in caught.value.report.summary()
    assert said in str(caught.value)


def test_a_fine_tuned_classifier_is_named_as_one(state: dict[str, Tensor], path: Path, registry: Registry) -> None:
    tuned = {name: t for name, t in state.items() if not name.startswith(("decoder", "mask_token", "norm."))}
    tuned |= {"fc_norm.weight": torch.ones(24), "head.weight": torch.ones(10, 24)}
    with pytest.raises(WeightsMismatch, match="fine-tuned") as caught:
        read(tuned, path, registry)
    assert caught.value.report.unexpected == ("fc_norm.weight", "head.weight")


def test_an_unknown_width_needs_the_heads(state: dict[str, Tensor], path: Path, registry: Registry) -> None:
    with pytest.raises(CheckpointError, match=r"Give heads=\.\.\."):
        read(state, path, registry, heads=None)
    with pytest.raises(CheckpointError, match=r"Give decoder_heads=\.\.\."):
        read(state, path, registry, decoder_heads=None)
    with pytest.raises(CheckpointError, match="doesn't divide by heads"):
        read(state, path, registry, heads=5)


def test_tokens_that_fill_no_square_need_the_image_size(
    state: dict[str, Tensor], path: Path, registry: Registry
) -> None:
    for name in ("pos_embed", "decoder_pos_embed"):
        state[name] = state[name][:, :7]  # the first two rows of the grid
    with pytest.raises(CheckpointError, match=r"Give image_size=\(height, width\)"):
        read(state, path, registry)
    model, _ = read(state, path, registry, image_size=(8, 12))
    assert model.encode(torch.rand(1, 3, 8, 12)).shape == (1, 6, 24)
    with pytest.raises(WeightsMismatch, match=r"encoder\.positions: differs"):
        read(state, path, registry, image_size=(12, 8))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_part_of_the_weights_can_be_missing_unnoticed(
    state: dict[str, Tensor], path: Path, registry: Registry, data: st.DataObject
) -> None:
    dropped = data.draw(st.sets(st.sampled_from(sorted(state)), min_size=1, max_size=6))
    kept = {name: tensor for name, tensor in state.items() if name not in dropped}
    with pytest.raises(WeightsMismatch) as caught:
        read(kept, path, registry)
    report = caught.value.report
    assert report.verdict == "mismatched"
    assert 1 <= report.counts["missing"] <= len(dropped)


def test_any_layout_is_recognised(vitmae: Any, state: dict[str, Tensor], tmp_path: Path, registry: Registry) -> None:
    torch.save(state, tmp_path / "weights.pth")
    model, report = read_weights(tmp_path / "weights.pth", registry=registry, normalise=False, **HEADS)
    assert_same(model, vitmae)
    assert "facebook" in report.layout
    vitmae.save_pretrained(tmp_path / "folder")
    model, report = read_weights(tmp_path / "folder", registry=registry)
    assert_same(model, vitmae)
    assert "Hugging Face" in report.layout
    with pytest.raises(CheckpointError, match="got: heads"):
        read_weights(tmp_path / "folder", heads=2, registry=registry)
