"""VideoMAE of transformers: the same loss, predictions and gradients; its weights in every spelling of their names."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel

from maskedmodel import Mask, MaskedAutoencoder, MaskedModelError, from_huggingface, load, read_weights
from maskedmodel.errors import CheckpointError
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.weights.huggingface import read_huggingface
from maskedmodel.weights.report import WeightsMismatch
from maskedmodel.weights.runs import save
from tests.weights.conftest import ENCODER_SIZES

SIZES = {
    **ENCODER_SIZES,
    "num_frames": 6,
    "tubelet_size": 2,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 32,
    "use_mean_pooling": False,
}
LENGTH = 3 * 3 * 3
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
Make = Callable[..., Any]


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_registry(strict=True, allow=["image", "video", "masks", "objectives"])


@pytest.fixture
def make() -> Make:
    """A VideoMAEForPreTraining with random values everywhere."""

    def build(kind: type[Any] = VideoMAEForPreTraining, **changes: object) -> Any:
        model = kind(VideoMAEConfig(**{**SIZES, **changes})).eval()
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        return model

    return build


@dataclass
class Clips:
    """Clips as we take them, as transformers does, and a mask."""

    ours: Tensor  # (2, C, 6, 12, 12), white = 1
    theirs: Tensor  # (2, 6, C, 12, 12), normalised
    hidden: Tensor  # (2, 27) bool


def clips(channels: int = 3, dtype: torch.dtype = torch.float32) -> Clips:
    generator = torch.Generator().manual_seed(3)
    signal = torch.rand(2, channels, 6, 12, 12, generator=generator, dtype=torch.float64).to(dtype)
    mean, std = (MEAN.to(dtype), STD.to(dtype)) if channels == 3 else (torch.zeros(channels), torch.ones(channels))
    normalised = (signal - mean.to(dtype)[:, None, None, None]) / std.to(dtype)[:, None, None, None]
    hidden = torch.rand(2, LENGTH, generator=generator).argsort(1) < 20
    return Clips(signal, normalised.transpose(1, 2), hidden)


def assert_same(model: MaskedAutoencoder, videomae: Any, channels: int = 3) -> None:
    """Loss and predictions of hidden tokens agree under one mask."""
    given = clips(channels)
    with torch.no_grad():
        theirs = videomae(given.theirs, bool_masked_pos=given.hidden)
        ours = model(given.ours, Mask(given.hidden))
    assert theirs.logits.abs().max() > 0.1
    torch.testing.assert_close(ours.prediction, theirs.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-5)


def gradients(model: MaskedAutoencoder) -> dict[str, Tensor]:
    """Ours by the names of transformers, our fused and flattened tensors taken apart, as far as theirs has them."""
    found = {}
    single = {
        "encoder.embed": "videomae.embeddings.patch_embeddings.projection",
        "encoder.norm": "videomae.layernorm",
        "decoder.embed": "encoder_to_decoder",
        "decoder.norm": "decoder.norm",
        "decoder.head": "decoder.head",
    }
    parts = {
        "proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
    }
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, name
        stem, _, leaf = name.rpartition(".")
        block = re.fullmatch(r"(encoder|decoder)\.blocks\.(\d+)\.(.+)", stem)
        if name == "decoder.mask_token":
            found["mask_token"] = gradient
        elif name == "encoder.embed.weight":
            found[f"{single[stem]}.weight"] = gradient.unflatten(1, (2, 4, 4, -1)).movedim(-1, 1)
        elif block is None:
            found[f"{single[stem]}.{leaf}"] = gradient
        else:
            side, number, part = block.groups()
            start = f"{'videomae.encoder.layer' if side == 'encoder' else 'decoder.decoder_layers'}.{number}"
            if part != "qkv":
                found[f"{start}.{parts[part]}.{leaf}"] = gradient
                continue
            for third, value in zip(("query", "key", "value"), gradient.chunk(3), strict=True):
                found[f"{start}.attention.attention.{third}.{leaf}"] = value
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_predictions_and_gradients(make: Make, registry: Registry, dtype: torch.dtype) -> None:
    videomae = make()
    model = from_huggingface(videomae, registry=registry).to(dtype)
    videomae, given = videomae.to(dtype), clips(dtype=dtype)
    theirs = videomae(given.theirs, bool_masked_pos=given.hidden)
    ours = model(given.ours, Mask(given.hidden))
    torch.testing.assert_close(ours.prediction, theirs.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.loss.to(dtype), theirs.loss, rtol=1e-5, atol=0)
    ours.loss.backward()
    theirs.loss.backward()
    mine = gradients(model)
    expected = {name: p.grad for name, p in videomae.named_parameters()}
    for name, gradient in expected.items():
        assert gradient is not None, name
        largest = float(gradient.abs().max())
        assert largest > 0, name
        # Ours are scored in single precision, whatever the model's.
        torch.testing.assert_close(mine[name], gradient, rtol=0, atol=1e-5 * max(largest, 0.1), msg=name)
        if dtype == torch.float64:
            torch.testing.assert_close(mine[name], gradient, rtol=0, atol=1e-5 * largest, msg=name)
    # Ours has a few biases more, which are zero.
    keys = {name for name in mine if name.endswith("attention.key.bias")}
    assert mine.keys() - expected.keys() == keys | {"encoder_to_decoder.bias"}
    for name in keys:  # the same added to every score of a row changes no softmax
        assert mine[name].abs().max() < 1e-6
    assert not model.encoder.blocks[0].qkv.bias[24:48].any()


def test_a_model_that_predicts_pixels_predicts_the_same_ones(make: Make, registry: Registry) -> None:
    """They come normalised from ours, since that is what its tokens hold: undone, prediction and loss are the same."""
    videomae, given = make(norm_pix_loss=False), clips()
    model, report = read_huggingface(videomae, registry=registry)
    with torch.no_grad():
        theirs = videomae(given.theirs, bool_masked_pos=given.hidden)
        ours = model(given.ours, Mask(given.hidden))
        mean, std = MEAN.repeat(32), STD.repeat(32)
        torch.testing.assert_close(ours.prediction * std + mean, theirs.logits, rtol=0, atol=1e-5)
        target = model.tokens(given.ours).values[given.hidden].reshape(2, 20, 96)
        loss = ((ours.prediction - target) * std).square().mean()
        torch.testing.assert_close(loss, theirs.loss, rtol=1e-5, atol=0)
    assert any("the head was changed" in note for note in report.notes)
    assert model.objective.settings.normalise is False


@pytest.mark.parametrize("channels", [1, 2])
def test_other_channel_counts(make: Make, registry: Registry, channels: int) -> None:
    videomae = make(num_channels=channels)
    model, report = read_huggingface(videomae, registry=registry)
    assert_same(model, videomae, channels)
    assert any(f"{channels} channels" in note for note in report.notes)


def test_features_of_everything(make: Make, registry: Registry) -> None:
    videomae, given = make(VideoMAEModel), clips()
    model, report = read_huggingface(videomae, registry=registry)
    assert report.verdict == "encoder only"
    with torch.no_grad():
        features = videomae(given.theirs).last_hidden_state
        torch.testing.assert_close(model.encode(given.ours), features, rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match="encoder only"):
        model(given.ours)


def older_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As on the hub: the names from before transformers 5."""
    return {
        name.replace("attention.query.bias", "attention.q_bias").replace("attention.value.bias", "attention.v_bias"): t
        for name, t in state.items()
    }


def original_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the authors' code saves them: fused weights of queries, keys and values, biases of two of them."""
    single = {
        "videomae.embeddings.patch_embeddings.projection": "encoder.patch_embed.proj",
        "videomae.layernorm": "encoder.norm",
    }
    parts = {
        "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
    }
    found = {}
    for name, tensor in state.items():
        stem, _, leaf = name.rpartition(".")
        block = re.fullmatch(r"(videomae\.encoder\.layer|decoder\.decoder_layers)\.(\d+)\.(.+)", stem)
        if block is None:
            found[f"{single.get(stem, stem)}.{leaf}".removeprefix(".")] = tensor
            continue
        stack, number, part = block.groups()
        start = f"{'encoder' if stack.startswith('videomae') else 'decoder'}.blocks.{number}"
        if part in parts:
            found[f"{start}.{parts[part]}.{leaf}"] = tensor
        elif part == "attention.attention.query" and leaf == "bias":
            found[f"{start}.attn.q_bias"] = tensor
            found[f"{start}.attn.v_bias"] = state[name.replace("query", "value")]
        elif part == "attention.attention.query":
            thirds = [state[name.replace("query", third)] for third in ("query", "key", "value")]
            found[f"{start}.attn.qkv.weight"] = torch.cat(thirds)
    return found


def write(folder: Path, videomae: Any, state: dict[str, Tensor], **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**videomae.config.to_dict(), **config}))
    return folder


@pytest.mark.parametrize("names", [dict, older_names], ids=["transformers 5", "before transformers 5"])
def test_every_spelling_of_the_keys_loads(make: Make, registry: Registry, tmp_path: Path, names: Any) -> None:
    videomae = make()
    folder = write(tmp_path, videomae, names(videomae.state_dict()))
    model, report = read_weights(folder, registry=registry)
    assert_same(model, videomae)
    assert (report.verdict, report.layout) == ("complete", "VideoMAE (Hugging Face names)")
    assert report.counts["missing"] == report.counts["unexpected"] == report.counts["mismatched"] == 0
    assert "CC-BY-NC" in report.summary()


def test_what_save_pretrained_writes_loads_and_becomes_a_run(make: Make, registry: Registry, tmp_path: Path) -> None:
    videomae = make()
    videomae.save_pretrained(tmp_path / "theirs")
    model, report = read_weights(tmp_path / "theirs", registry=registry)
    assert_same(model, videomae)
    again = load(save(model, tmp_path / "ours", report=report), registry=registry)
    assert_same(again, videomae)
    assert again.settings.decoder.final_norm_eps == 1e-5
    assert again.settings.encoder.positions == again.settings.decoder.positions == "interleaved"
    assert not again.settings.encoder.class_token
    assert again.scheduler.component_name() == "tube"


def test_an_encoders_folder_says_so(make: Make, registry: Registry, tmp_path: Path) -> None:
    make(VideoMAEModel).save_pretrained(tmp_path)
    assert read_weights(tmp_path, registry=registry)[1].verdict == "encoder only"


def test_no_biases_of_queries_and_values_are_zero_ones(make: Make, registry: Registry) -> None:
    videomae = make(qv_bias=False)
    model, report = read_huggingface(videomae, registry=registry)
    assert_same(model, videomae)
    assert any("no bias there" in note for note in report.notes)


def test_an_encoder_without_a_last_norm_is_refused_with_the_reason(make: Make, registry: Registry) -> None:
    with pytest.raises(WeightsMismatch, match=r"(?s)encoder\.norm\.bias.*use_mean_pooling: true"):
        from_huggingface(make(use_mean_pooling=True), registry=registry)


def test_a_classifier_is_named_as_one(make: Make, registry: Registry, tmp_path: Path) -> None:
    videomae = make()
    state = {name: t for name, t in videomae.state_dict().items() if name.startswith("videomae.")}
    folder = write(
        tmp_path, videomae, {**state, "classifier.weight": torch.ones(4, 24), "fc_norm.bias": torch.ones(24)}
    )
    with pytest.raises(WeightsMismatch, match="fine-tuned") as caught:
        read_weights(folder, registry=registry)
    assert set(caught.value.report.unexpected) == {"classifier.weight", "fc_norm.bias"}


def test_part_of_a_block_is_a_mismatch(make: Make, registry: Registry, tmp_path: Path) -> None:
    videomae = make()
    state = dict(videomae.state_dict())
    del state["videomae.encoder.layer.1.attention.attention.key.weight"]
    del state["decoder.decoder_layers.0.layernorm_after.bias"]
    with pytest.raises(WeightsMismatch) as caught:
        read_weights(write(tmp_path, videomae, state), registry=registry)
    report = caught.value.report
    assert report.missing == ("decoder.blocks.0.norm2.bias",)
    assert report.mismatched == ("encoder.blocks.1.qkv.weight: only q, v of q, k, v is there",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_act": "relu"}, "another activation"),
        ({"num_frames": 5}, "time doesn't divide"),
        ({"num_frames": 0}, "num_frames"),
        ({"tubelet_size": 3}, r"encoder\.embed\.weight: \(24, 96\) where \(24, 144\) is due"),
    ],
)
def test_a_config_of_another_model_is_refused(
    make: Make, registry: Registry, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    videomae = make()
    with pytest.raises(MaskedModelError, match=said):
        read_weights(write(tmp_path, videomae, dict(videomae.state_dict()), **changes), registry=registry)


def test_a_config_settles_what_would_be_given(make: Make, registry: Registry, tmp_path: Path) -> None:
    videomae = make()
    with pytest.raises(CheckpointError, match="got: heads"):
        read_weights(write(tmp_path, videomae, dict(videomae.state_dict())), heads=2, registry=registry)


HEADS = {"heads": 2, "decoder_heads": 4}  # no file tells, and no published model is this narrow


class TestOriginalNames:
    def saved(self, videomae: Any, path: Path, **arguments: object) -> Path:
        state = original_names(videomae.state_dict())
        checkpoint: dict[str, Any] = {"model": state, "epoch": 799}
        if arguments:
            checkpoint["args"] = argparse.Namespace(**arguments)
        torch.save(checkpoint, path)
        return path

    def test_a_checkpoint_loads(self, make: Make, registry: Registry, tmp_path: Path) -> None:
        videomae = make(layer_norm_eps=1e-6)
        path = self.saved(videomae, tmp_path / "checkpoint-799.pth", num_frames=6, input_size=12, mask_ratio=0.8)
        model, report = read_weights(path, registry=registry, **HEADS)
        # Theirs has 1e-6 in every LayerNorm, where transformers has another in the decoder's last.
        videomae.decoder.norm.eps = 1e-6
        assert_same(model, videomae)
        assert (report.verdict, report.layout) == ("complete", "VideoMAE (its authors' names)")
        assert report.counts["loaded"] == len(model.encoder.state_dict()) + len(model.decoder.state_dict())
        assert model.scheduler.ratio(0.0) == 0.8
        assert model.tokenizer.size == (6, 12, 12)
        assert model.settings.encoder.norm_eps == 1e-6

    def test_what_nothing_tells_is_noted(self, make: Make, registry: Registry, tmp_path: Path) -> None:
        path = self.saved(make(), tmp_path / "a.pth")
        model, report = read_weights(path, registry=registry, **HEADS)
        assert model.tokenizer.size == (16, 224, 224)
        assert any("16 frames of 224 x 224" in note for note in report.notes)
        assert any("published ones do" in note for note in report.notes)
        model, _ = read_weights(path, registry=registry, image_size=(8, 12), **HEADS)
        assert model.tokenizer.size == (16, 8, 12)
        with pytest.raises(CheckpointError, match=r"Give heads=\.\.\."):
            read_weights(path, registry=registry)

    def test_pixel_targets_are_said_by_an_argument_or_the_training(
        self, make: Make, registry: Registry, tmp_path: Path
    ) -> None:
        videomae = make(norm_pix_loss=False, layer_norm_eps=1e-6)
        videomae.decoder.norm.eps = 1e-6
        recorded = self.saved(videomae, tmp_path / "a.pth", num_frames=6, input_size=12, normlize_target=False)
        plain = self.saved(videomae, tmp_path / "b.pth", num_frames=6, input_size=12)
        for path, given in ((recorded, {}), (plain, {"normalise": False})):
            model, _ = read_weights(path, registry=registry, **HEADS, **given)
            assert model.objective.settings.normalise is False
            with torch.no_grad():
                theirs = videomae(clips().theirs, bool_masked_pos=clips().hidden).logits
                ours = model(clips().ours, Mask(clips().hidden)).prediction
            torch.testing.assert_close(ours * STD.repeat(32) + MEAN.repeat(32), theirs, rtol=0, atol=1e-5)

    def test_an_encoder_alone(self, make: Make, registry: Registry, tmp_path: Path) -> None:
        state = original_names(make().state_dict())
        torch.save({n: t for n, t in state.items() if n.startswith("encoder.")}, tmp_path / "a.pth")
        model, report = read_weights(tmp_path / "a.pth", registry=registry, heads=2)
        assert report.verdict == "encoder only"
        assert not model.decoder_loaded

    def test_without_biases(self, make: Make, registry: Registry, tmp_path: Path) -> None:
        path = self.saved(make(qv_bias=False), tmp_path / "a.pth")
        model, report = read_weights(path, registry=registry, **HEADS)
        assert report.verdict == "complete"
        assert not model.encoder.blocks[1].qkv.bias.any()

    def test_a_damaged_one_is_a_mismatch(self, make: Make, registry: Registry, tmp_path: Path) -> None:
        state = original_names(make().state_dict())
        del state["encoder.blocks.1.attn.q_bias"], state["encoder_to_decoder.weight"]
        torch.save(state, tmp_path / "a.pth")
        with pytest.raises(WeightsMismatch, match=r"encoder_to_decoder\.weight"):
            read_weights(tmp_path / "a.pth", registry=registry, **HEADS)
        state["encoder_to_decoder.weight"] = torch.ones(16, 24)
        torch.save(state, tmp_path / "a.pth")
        with pytest.raises(WeightsMismatch, match=r"encoder\.blocks\.1\.qkv\.bias: only v of q, k, v"):
            read_weights(tmp_path / "a.pth", registry=registry, **HEADS)
