from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from maskedmodel import from_huggingface
from maskedmodel.errors import CheckpointError
from maskedmodel.plugins import Registry
from maskedmodel.weights.huggingface import read_huggingface
from maskedmodel.weights.report import WeightsMismatch
from tests.weights.conftest import SIZES, assert_same, hub_names, normalised, pictures, quirk_names

Make = Callable[..., Any]
SPELLINGS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "hub": hub_names,
    "save_pretrained of transformers 5": quirk_names,
    "in memory": dict,
}


def write(folder: Path, vitmae: Any, state: dict[str, Tensor] | None = None, **config: object) -> Path:
    """A folder as on the hub: config.json and model.safetensors."""
    folder.mkdir(exist_ok=True)
    state = hub_names(vitmae.state_dict()) if state is None else state
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**vitmae.config.to_dict(), **config}))
    return folder


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_a_model_in_memory_predicts_the_same(make_vitmae: Make, registry: Registry, norm_pix_loss: bool) -> None:
    vitmae = make_vitmae(norm_pix_loss=norm_pix_loss)
    model, report = read_huggingface(vitmae, registry=registry)
    assert_same(model, vitmae)
    assert report.verdict == "complete"
    assert report.counts == {"loaded": 62, "missing": 0, "unexpected": 0, "mismatched": 0}
    assert model.objective.settings.normalise is norm_pix_loss
    assert not model.training


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_keys_loads(vitmae: Any, registry: Registry, tmp_path: Path, spelling: str) -> None:
    folder = write(tmp_path, vitmae, SPELLINGS[spelling](vitmae.state_dict()))
    assert_same(from_huggingface(folder, registry=registry), vitmae)
    assert_same(from_huggingface(str(folder / "model.safetensors"), registry=registry), vitmae)


def test_what_save_pretrained_writes_loads(vitmae: Any, registry: Registry, tmp_path: Path) -> None:
    vitmae.save_pretrained(tmp_path)
    assert_same(from_huggingface(tmp_path, registry=registry), vitmae)


def test_shards_load(vitmae: Any, registry: Registry, tmp_path: Path) -> None:
    vitmae.save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists()
    model, report = read_huggingface(tmp_path, registry=registry)
    assert_same(model, vitmae)
    assert "shards" in report.container


def test_a_pickle_of_a_folder_loads(vitmae: Any, registry: Registry, tmp_path: Path) -> None:
    folder = write(tmp_path, vitmae)
    (folder / "model.safetensors").unlink()
    torch.save(hub_names(vitmae.state_dict()), folder / "pytorch_model.bin")
    assert_same(from_huggingface(folder, registry=registry), vitmae)


def test_a_wrapped_model_loads(vitmae: Any, registry: Registry) -> None:
    assert_same(from_huggingface(nn.DataParallel(vitmae), registry=registry), vitmae)
    assert_same(from_huggingface(torch.compile(vitmae), registry=registry), vitmae)


def test_changing_the_original_afterwards_changes_nothing(vitmae: Any, registry: Registry) -> None:
    model = from_huggingface(vitmae, registry=registry)
    before = model.encoder.norm.weight.clone()
    with torch.no_grad():
        vitmae.vit.layernorm.weight.fill_(9.0)
    assert torch.equal(model.encoder.norm.weight, before)


def test_an_encoder_gives_features_and_refuses_what_needs_the_decoder(vitmae: Any, registry: Registry) -> None:
    model, report = read_huggingface(vitmae.vit, registry=registry)
    assert report.verdict == "encoder only"
    assert len(report.missing) > 0
    assert all(name.startswith("decoder.") for name in report.missing)
    assert "good for features, not for reconstruction" in report.summary()
    signal = pictures()
    vitmae.vit.config.mask_ratio = 0.0
    with torch.no_grad():
        output = vitmae.vit(normalised(signal), noise=torch.arange(9.0).expand(2, -1)).last_hidden_state
        torch.testing.assert_close(model.encode(signal), output[:, 1:], rtol=0, atol=1e-5)
        torch.testing.assert_close(model.embed(signal, "class"), output[:, 0], rtol=0, atol=1e-5)
    for refused in (model, model.reconstruct):
        with pytest.raises(CheckpointError, match="encoder only"):
            refused(signal)


def test_an_encoders_folder_says_so(vitmae: Any, registry: Registry, tmp_path: Path) -> None:
    vitmae.vit.save_pretrained(tmp_path)
    model, report = read_huggingface(tmp_path, registry=registry)
    assert report.verdict == "encoder only"
    assert not model.decoder_loaded


def test_part_of_a_decoder_is_a_mismatch(vitmae: Any, registry: Registry, tmp_path: Path) -> None:
    state = {name: t for name, t in hub_names(vitmae.state_dict()).items() if "decoder_layers.1." not in name}
    with pytest.raises(WeightsMismatch) as caught:
        from_huggingface(write(tmp_path, vitmae, state), registry=registry)
    assert caught.value.report.verdict == "mismatched"
    assert caught.value.report.counts["missing"] == 12
    assert "decoder.blocks.1.qkv.weight" in caught.value.report.missing


def test_no_bias_of_queries_is_a_zero_bias(make_vitmae: Make, registry: Registry) -> None:
    vitmae = make_vitmae(qkv_bias=False)
    model, report = read_huggingface(vitmae, registry=registry)
    assert_same(model, vitmae)
    assert report.verdict == "complete"
    assert read_huggingface(vitmae.vit, registry=registry)[1].verdict == "encoder only"


def test_a_config_model_of_transformers_is_recognised_by_its_empty_positions(registry: Registry) -> None:
    fresh = ViTMAEForPreTraining(ViTMAEConfig(**SIZES))
    if bool(fresh.decoder.decoder_pos_embed.any()):
        pytest.fail("transformers fills these tables now: drop the explanation of this fault")
    with pytest.raises(WeightsMismatch, match=r"decoder\.positions: all zero.*built from a config"):
        from_huggingface(fresh, registry=registry)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: torch.cat([t[:, :1], t[:, 1:].reshape(1, 3, 3, -1).transpose(1, 2).flatten(1, 2)], 1),
            "another order",
        ),
        (lambda t: t.roll(1, 1), "another order"),
        (
            lambda t: t + 0.01 * torch.randn(t.shape, generator=torch.Generator().manual_seed(1)),
            "trained, interpolated",
        ),
        (lambda t: t * torch.nan, "differs"),
        (lambda t: t[:, :5], "images of 12 x 12 have 9 tokens"),
    ],
    ids=["rows first", "rolled", "trained", "nan", "another length"],
)
def test_other_positions_are_refused(
    vitmae: Any, registry: Registry, tmp_path: Path, change: Callable[[Tensor], Tensor], said: str
) -> None:
    state = hub_names(vitmae.state_dict())
    name = "vit.embeddings.position_embeddings"
    state[name] = change(state[name])
    with pytest.raises(WeightsMismatch, match=rf"encoder\.positions: .*{said}") as caught:
        from_huggingface(write(tmp_path, vitmae, state), registry=registry)
    assert caught.value.report.counts["mismatched"] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_and_mentioned(vitmae: Any, registry: Registry, dtype: torch.dtype) -> None:
    model, report = read_huggingface(vitmae.to(dtype), registry=registry)
    assert model.encoder.norm.weight.dtype == torch.float32
    assert torch.equal(model.encoder.norm.weight, vitmae.vit.layernorm.weight.float())
    assert any("converted to float32" in note for note in report.notes)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"hidden_size": 32}, "mismatched", "(24,) where (32,) is due"),
        ({"num_hidden_layers": 3}, "missing", "encoder.blocks.2.norm1.bias"),
        ({"num_hidden_layers": 1}, "unexpected", "vit.encoder.layer.1.layernorm_before.bias"),
        ({"image_size": 16}, "mismatched", "images of 16 x 16 have 16 tokens"),
        ({"patch_size": [2, 4]}, "mismatched", "encoder.embed.weight: (24, 48) where (24, 24) is due"),
    ],
)
def test_a_config_of_other_sizes_is_a_mismatch_with_the_numbers(
    vitmae: Any, registry: Registry, tmp_path: Path, changes: dict[str, object], kind: str, said: str
) -> None:
    folder = write(tmp_path, vitmae, **changes)
    with pytest.raises(WeightsMismatch) as caught:
        from_huggingface(folder, registry=registry)
    report = caught.value.report
    assert report.counts[kind] > 0
    assert any(said in entry for entry in getattr(report, kind)), getattr(report, kind)
    assert report.counted() in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "swin"}, "another kind of model"),
        ({"hidden_act": "relu"}, "another activation"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"num_attention_heads": 5}, "doesn't divide by heads"),
        ({"image_size": -1}, "make no model"),
    ],
)
def test_a_config_that_makes_no_model_is_refused(
    vitmae: Any, registry: Registry, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        from_huggingface(write(tmp_path, vitmae, **changes), registry=registry)


def test_values_that_are_not_finite_are_refused(vitmae: Any, registry: Registry) -> None:
    with torch.no_grad():
        vitmae.vit.layernorm.weight[3] = torch.inf
    with pytest.raises(WeightsMismatch, match=r"encoder\.norm\.weight: 1 values aren't finite"):
        from_huggingface(vitmae, registry=registry)


def test_the_image_processor_tells_how_pictures_are_normalised(vitmae: Any, registry: Registry, tmp_path: Path) -> None:
    folder = write(tmp_path, vitmae)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 4]})
    )
    tokenizer = from_huggingface(folder, registry=registry).tokenizer
    assert tokenizer.mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert tokenizer.std.tolist() == [1, 2, 4]


def test_other_channel_counts_load(make_vitmae: Make, registry: Registry) -> None:
    model, report = read_huggingface(make_vitmae(num_channels=5), registry=registry)
    assert model.encode(pictures(5)).shape == (2, 9, 24)
    assert any("5 channels" in note for note in report.notes)


def test_a_mask_ratio_that_hides_nothing_is_replaced_and_mentioned(make_vitmae: Make, registry: Registry) -> None:
    model, report = read_huggingface(make_vitmae(mask_ratio=0.0), registry=registry)
    assert model.scheduler.ratio(0.0) == 0.75
    assert any("mask ratio is 0" in note for note in report.notes)


def test_a_name_on_the_hub_is_not_downloaded() -> None:
    with pytest.raises(CheckpointError, match="nothing is ever downloaded") as caught:
        from_huggingface("facebook/vit-mae-base")
    assert "hf download facebook/vit-mae-base" in str(caught.value)


def test_other_things_are_refused(vitmae: Any, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no ViTMAE"):
        from_huggingface(nn.Linear(2, 2), registry=registry)
    with pytest.raises(CheckpointError, match="got: a int"):
        from_huggingface(3, registry=registry)
    with pytest.raises(CheckpointError, match="holds no weights"):
        from_huggingface(tmp_path, registry=registry)
    folder = write(tmp_path, vitmae)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        from_huggingface(folder, registry=registry)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="readable JSON"):
        from_huggingface(folder, registry=registry)


def test_the_global_generator_is_left_alone(vitmae: Any, registry: Registry) -> None:
    state = torch.get_rng_state()
    from_huggingface(vitmae, registry=registry)
    assert torch.equal(torch.get_rng_state(), state)
