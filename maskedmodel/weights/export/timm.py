"""The encoder as a vision transformer of timm: a folder as timm keeps them on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.settings import PRESETS
from maskedmodel.plugins import Registry
from maskedmodel.weights.export.written import Pictures, Written, largest, library, linear, refused

_NAMES = {"ti": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge"}
_EPS = 1e-6  # of every LayerNorm of timm's vision transformers
_BLOCK = {"qkv": "attn.qkv", "proj": "attn.proj"}


def write(model: MaskedAutoencoder, folder: Path, registry: Registry | None) -> Written:
    """Raises CheckpointError where timm can't express the encoder, DependencyError where timm isn't there."""
    timm = library("timm", target="timm")
    pictures = Pictures(model, axes=2)
    if not pictures.reasons and not linear(model.encoder.embed):
        pictures.reasons.append("its patches are projected by more than one linear layer")
    if pictures.reasons:
        raise refused("timm", pictures.reasons)
    save_file(_state(model, pictures), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(model, pictures, timm), indent=1) + "\n")
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()

    def difference(signal: Tensor) -> float:
        return largest(
            model.encoder.features(model.tokens(signal)), again.forward_features(pictures.normalised(signal))
        )

    settings = model.settings.encoder
    notes = pictures.notes
    if {settings.norm_eps, settings.final_norm_eps or settings.norm_eps} != {_EPS}:
        notes.append(f"timm's LayerNorms have an epsilon of {_EPS:g}, the model's {settings.norm_eps:g}")
    return Written(
        what="the encoder; the decoder is left out",
        takes=pictures.takes,
        gives=f"forward_features: (batch, {model.encoder.prefix} class and register tokens + tokens, width)",
        load=f"timm.create_model({f'local-dir:{folder}'!r}, pretrained=True)",
        difference=difference,
        notes=notes,
        libraries=("timm",),
    )


def _state(model: MaskedAutoencoder, pictures: Pictures) -> dict[str, Tensor]:
    """The encoder's tensors under timm's names. Class and register tokens have no position: theirs is zero."""
    encoder, table = model.encoder, pictures.positions()
    zeros = table.new_zeros(encoder.prefix, table.shape[1])
    state = {
        "pos_embed": torch.cat([zeros, table])[None],
        "patch_embed.proj.weight": pictures.convolution(),
        "patch_embed.proj.bias": encoder.embed.bias,
        "cls_token": encoder.class_token,
        "reg_token": encoder.registers,
        "norm.weight": encoder.norm.weight,
        "norm.bias": encoder.norm.bias,
    }
    for name, tensor in encoder.blocks.state_dict().items():
        number, part, *rest = name.split(".")
        state[".".join(["blocks", number, _BLOCK.get(part, part), *rest])] = tensor
    return {name: tensor.detach().contiguous().clone() for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _config(model: MaskedAutoencoder, pictures: Pictures, timm: Any) -> dict[str, Any]:
    s, tokenizer = model.settings.encoder, pictures.tokenizer
    size, patch = tokenizer.size, tokenizer.patch
    name = "vit_base_patch16_224"
    for preset, sizes in PRESETS.items():
        known = f"vit_{_NAMES[preset]}_patch{patch[0]}_{size[0]}"
        if sizes == (s.dim, s.depth, s.heads) and timm.is_model(known):
            name = known
    arguments: dict[str, Any] = {
        "img_size": list(size),
        "patch_size": list(patch),
        "in_chans": tokenizer.channels,
        "embed_dim": s.dim,
        "depth": s.depth,
        "num_heads": s.heads,
        "mlp_ratio": s.mlp_ratio,
        "class_token": s.class_token,
        "reg_tokens": s.registers,
        "global_pool": "token" if s.class_token else "avg",
        "fc_norm": False,
    }
    return {
        "architecture": name,
        "num_classes": 0,
        "num_features": s.dim,
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "pretrained_cfg": {
            **pictures.numbers,
            "input_size": [tokenizer.channels, *size],
            "num_classes": 0,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
