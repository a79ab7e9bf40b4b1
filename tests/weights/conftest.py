"""A tiny ViTMAE with random weights and right positions, and its names in every spelling, written out by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.tokens import Mask

ENCODER_SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 60,
    "image_size": 12,
    "patch_size": 4,
}
SIZES = {
    **ENCODER_SIZES,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 32,
    "layer_norm_eps": 1e-6,
}


def position_table(side: int, dim: int) -> Tensor:
    """MAE's table (1, 1 + side * side, dim), from its closed form: a zero row, then [column | row], sines first."""
    table = np.zeros((1 + side * side, dim))
    quarter = dim // 4
    frequency = 10000.0 ** (-np.arange(quarter) / quarter)
    for row in range(side):
        for column in range(side):
            x, y = column * frequency, row * frequency
            table[1 + row * side + column] = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)])
    return torch.tensor(table[None], dtype=torch.float32)


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_registry(strict=True, allow=["image", "masks", "objectives"])


@pytest.fixture
def make_vitmae() -> Callable[..., Any]:
    """A ViTMAEForPreTraining with random values everywhere, but its position tables as they should be."""

    def make(**changes: object) -> Any:
        model = ViTMAEForPreTraining(ViTMAEConfig(**{**SIZES, **changes})).eval()
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
            for table in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
                table.copy_(position_table(3, table.shape[-1]))
        return model

    return make


@pytest.fixture
def vitmae(make_vitmae: Callable[..., Any]) -> Any:
    return make_vitmae()


def hub_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a ViTMAE has in memory, under the names of the hub's files."""
    parts = {
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    renamed = {}
    for name, tensor in state.items():
        for old, new in parts.items():
            name = name.replace(old, new)
        renamed[name.replace("vit.layers.", "vit.encoder.layer.")] = tensor
    return renamed


def quirk_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As `save_pretrained` of transformers 5 writes them."""
    return {
        n.replace("decoder.decoder_layers.", "decoder.decoder_encoder.layer."): t for n, t in hub_names(state).items()
    }


def facebook_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a ViTMAE has in memory, under the names of the MAE reference code, with fused projections."""
    parts = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.o_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    single = {
        "vit.embeddings.cls_token": "cls_token",
        "vit.embeddings.position_embeddings": "pos_embed",
        "vit.embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "vit.embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "vit.layernorm.weight": "norm.weight",
        "vit.layernorm.bias": "norm.bias",
    }
    renamed = {}
    for name, tensor in state.items():
        block = re.fullmatch(r"(vit\.layers|decoder\.decoder_layers)\.(\d+)\.(.+)\.(weight|bias)", name)
        if block is None:
            renamed[single.get(name, name.removeprefix("decoder."))] = tensor
            continue
        stack, number, part, leaf = block.groups()
        start = f"{'blocks' if stack == 'vit.layers' else 'decoder_blocks'}.{number}"
        if part in parts:
            renamed[f"{start}.{parts[part]}.{leaf}"] = tensor
        elif part == "attention.q_proj":
            thirds = [state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            renamed[f"{start}.attn.qkv.{leaf}"] = torch.cat(thirds)
    return renamed


def pictures(channels: int = 3) -> Tensor:
    """Two pictures (2, C, 12, 12), white = 1."""
    return torch.rand(2, channels, 12, 12, generator=torch.Generator().manual_seed(3))


def normalised(signal: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (signal - mean[:, None, None]) / std[:, None, None]


def assert_same(model: MaskedAutoencoder, vitmae: Any) -> None:
    """Loss, predictions of hidden tokens and of all tokens agree under one mask."""
    signal = pictures()
    noise = torch.rand(2, 9, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        theirs = vitmae(normalised(signal), noise=noise)
        mask = Mask(theirs.mask.bool())
        ours = model(signal, mask)
        everywhere = model.predict_everywhere(model.tokens(signal), mask)
    assert theirs.logits.abs().max() > 0.1
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.prediction.flatten(0, 1), theirs.logits[mask.hidden], rtol=0, atol=1e-5)
    torch.testing.assert_close(everywhere, theirs.logits, rtol=0, atol=1e-5)
