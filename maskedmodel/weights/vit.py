"""Vision transformers without a decoder that fits here: timm's, DINO's, DINOv2's, AudioMAE's, transformers' ViT.

What our blocks don't have is folded into their weights, which changes outputs by rounding alone: LayerScale into the
projections that it follows, the position of class and register tokens into these tokens. A classifier's head, a pooler
and DINOv2's mask token are left out and listed. Whatever else a file holds is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.positions import sincos
from maskedmodel.errors import CheckpointError
from maskedmodel.plugins import Registry
from maskedmodel.weights import audiomae
from maskedmodel.weights.build import Spec, build, image_spec, mlp_ratio
from maskedmodel.weights.configs import VisionConfig, pair, read_config, statistics_of
from maskedmodel.weights.facebook import ENCODER_HEADS, depth_of, heads_of, require
from maskedmodel.weights.foreign import Foreign, cleaned_state, read
from maskedmodel.weights.mapping import DINOV2, HUGGINGFACE_VIT, VIT, load_foreign
from maskedmodel.weights.report import LoadReport

MODEL_TYPES = {"vit": HUGGINGFACE_VIT, "dinov2": DINOV2, "dinov2_with_registers": DINOV2}
_NEEDED = {
    "patch_embed.proj.weight": "(D, C, p, p)",
    "pos_embed": "(1, S + L, D)",
}
# The layers of an MLP; a gated one's are w12 and w3 in DINOv2's own files, weights_in and weights_out in transformers.
_FIRST = re.compile(r"\.(mlp\.(fc1|w12|weights_in)|intermediate\.dense)\.weight$")
_SECOND = re.compile(r"(?<!attention)\.(mlp\.(fc2|w3|weights_out)|output\.dense)\.weight$")
_SCALES = {
    "ls1.gamma": ("attn.proj",),
    "ls2.gamma": ("mlp.fc2", "mlp.w3"),
    "layer_scale1.lambda1": ("attention.output.dense", "attention.o_proj"),
    "layer_scale2.lambda1": ("mlp.fc2", "mlp.weights_out"),
}
_LEFT_OUT = ("head.", "pooler.", "classifier.", "mask_token", "embeddings.mask_token", "lm_head.", "decoder.0.")
# Architectures of timm that are plain vision transformers, as far as a name tells.
_PLAIN = re.compile(r"(vit|deit3?)_[a-z]+\d*_patch\d+_(reg\d+_)?(gap_)?(\d+|dinov2|1024_128)$")


class _Config(VisionConfig):
    """The settings of a ViT or DINOv2 of transformers that matter here."""

    qkv_bias: bool = True
    use_swiglu_ffn: bool = False


def from_timm(
    model_or_path: object,
    *,
    heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    registry: Registry | None = None,
) -> MaskedAutoencoder:
    """A vision transformer of timm, or under timm's names, as an encoder in evaluation mode.

    model_or_path   a timm VisionTransformer; a folder as timm saves it for the hub; or a file of weights, such as
                    those of DINO and DINOv2. Nothing is downloaded.
    heads           attention heads; None: what config or model say, else those of the published model of this width.
    image_size      pixels, or (height, width); None: what config or model say, else square.

    Pictures go in on a scale where white is 1; the model normalises them itself. Raises CheckpointError where the model
    has parts that this engine can't express, or weights are missing or don't fit: none are loaded in part.
    """
    return read_timm(model_or_path, heads=heads, image_size=image_size, registry=registry)[0]


def read_timm(
    source: Any,
    *,
    heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    registry: Registry | None = None,
) -> tuple[MaskedAutoencoder, LoadReport]:
    """As `from_timm`, with the report of what was found."""
    foreign = _in_memory(source) if isinstance(source, nn.Module) else read(source)
    return load_vit(foreign, heads=heads, image_size=image_size, registry=registry)


def _in_memory(model: nn.Module) -> Foreign:
    """A timm model with its settings as a config of the hub would have them."""
    inner: Any = getattr(model, "module", model)
    name = f"{type(inner).__name__} in memory"
    blocks = getattr(inner, "blocks", None)
    if type(inner).__name__ != "VisionTransformer" or blocks is None or getattr(inner, "rope", None) is not None:
        raise CheckpointError("This model is no plain VisionTransformer of timm.", where=name)
    mlp = blocks[0].mlp
    activation = getattr(mlp, "act", None)
    if type(mlp).__name__ == "GluMlp":
        known = isinstance(activation, nn.SiLU) and not mlp.gate_last
    else:
        known = isinstance(activation, nn.GELU) and activation.approximate == "none"
    if not known:
        got = f"{type(mlp).__name__} with the activation {activation}"
        raise _other_blocks(name, got, "two layers with the exact GELU, or with SiLU and gates first")
    if not isinstance(inner.norm, nn.LayerNorm):
        raise _other_blocks(name, "no LayerNorm after the last block", "one")
    arguments = {
        "img_size": tuple(inner.patch_embed.img_size),
        "num_heads": blocks[0].attn.num_heads,
        "norm_eps": inner.norm.eps,
        "no_embed_class": inner.no_embed_class,
    }
    config = {
        "architecture": "vit_base_patch16_224",
        "model_args": arguments,
        "pretrained_cfg": getattr(inner, "pretrained_cfg", {}),
    }
    return replace(cleaned_state(inner.state_dict(), name), config=config)


def _other_blocks(where: object, got: str, expected: str) -> CheckpointError:
    return CheckpointError(
        "This vision transformer has parts that this engine can't express.", where=where, expected=expected, got=got
    )


def is_vit(foreign: Foreign, image_size: int | tuple[int, int] | None = None) -> bool:
    """Whether tensors under timm's names need more than MAE's encoder: other positions, LayerScale, a head.

    Where their number fills no square, positions can't be told without `image_size`.
    """
    tensors = foreign.tensors
    table = tensors.get("pos_embed")
    if table is None or table.dim() != 3 or "patch_embed.proj.weight" not in tensors:
        return False
    if audiomae.is_audiomae(foreign):
        return True
    if "decoder_embed.weight" in tensors:
        return False
    if "architecture" in (foreign.config or {}) or any(name.endswith("ls1.gamma") for name in tensors):
        return True
    if "reg_token" in tensors or "register_tokens" in tensors or {"head.weight", "norm.weight"} <= tensors.keys():
        return True
    if "cls_token" not in tensors:
        return True
    patch, cells = tensors["patch_embed.proj.weight"].shape[2:], max(table.shape[1] - 1, 0)
    size = (math.isqrt(cells),) * 2
    if image_size is not None and len(patch) == 2:
        height, width = pair(image_size)
        size = (height // patch[0], width // patch[1])
    if size[0] * size[1] != cells or not table.any():
        return False
    coords = torch.cartesian_prod(*(torch.arange(extent) for extent in size))
    return float((table[0, 1:].float() - sincos(coords, table.shape[2])).abs().max()) > 2e-2


def load_vit(
    foreign: Foreign,
    *,
    heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    registry: Registry | None = None,
) -> tuple[MaskedAutoencoder, LoadReport]:
    """The encoder under timm's names. Raises CheckpointError, and WeightsMismatch with a report."""
    _refuse_other_architectures(foreign)
    foreign, decoder = audiomae.without_decoder(foreign)
    foreign = _without(foreign, _LEFT_OUT)
    tensors, source = foreign.tensors, foreign.source
    first = next(filter(_FIRST.search, sorted(tensors)), "blocks.0.mlp.fc1.weight")
    require(foreign, {**_NEEDED, first: "(4 D, D)"}, VIT, _advice(tensors))
    config = foreign.config or {}
    arguments, pretrained = config.get("model_args") or {}, config.get("pretrained_cfg") or {}
    dim, channels, *patch = tensors["patch_embed.proj.weight"].shape
    prefixes = _prefixes(tensors, "cls_token", ("reg_token", "register_tokens"))
    rows = tensors["pos_embed"].shape[1]
    given = image_size or arguments.get("img_size") or (pretrained.get("input_size") or ())[1:]
    sound = audiomae.is_audiomae(foreign) or decoder
    size = audiomae.SIZE if sound and not given else _size(given, rows, prefixes, (patch[0], patch[1]), source)
    cells = (size[0] // patch[0]) * (size[1] // patch[1])
    eps = arguments.get("norm_eps", 1e-6)
    encoder: dict[str, Any] = {
        "dim": dim,
        "depth": depth_of(tensors, "blocks"),
        "heads": heads_of(dim, heads or arguments.get("num_heads"), ENCODER_HEADS, "heads", source),
        **_mlp(tensors, dim),
        "norm_eps": float(eps),
    }
    processor = {"image_mean": pretrained.get("mean"), "image_std": pretrained.get("std")}
    processor = {name: list(value) if isinstance(value, tuple) else value for name, value in processor.items()}
    statistics, notes = statistics_of(processor, channels)
    if sound:
        notes = audiomae.notes(tensors["pos_embed"], decoder)
    tensors = _without_scales(_without_prefix_positions(tensors, "cls_token", "pos_embed", cells, prefixes, source))
    encoder |= {"class_token": "cls_token" in tensors, "registers": sum(prefixes[1:2])}
    encoder |= {"positions": "table"}
    if sound:
        spec = audiomae.spec(encoder, size, (patch[0], patch[1]))
    else:
        spec = image_spec(
            size=size,
            patch=(patch[0], patch[1]),
            channels=channels,
            encoder=encoder,
            decoder={},
            normalise_target=True,
            statistics=statistics,
        )
    biased = any(name.endswith("attn.qkv.bias") for name in tensors)
    foreign = replace(foreign, tensors=tensors, notes=(*foreign.notes, *notes, *_folded(foreign.tensors)))
    return _loaded(foreign, spec, VIT, registry, () if biased else ("qkv",))


def load_huggingface_vit(foreign: Foreign, registry: Registry | None) -> tuple[MaskedAutoencoder, LoadReport]:
    """The encoder of a ViT or DINOv2 of transformers. Raises CheckpointError, and WeightsMismatch with a report."""
    model_type = str((foreign.config or {}).get("model_type"))
    config = read_config(foreign, _Config, model_type)
    stem = f"{model_type}."
    tensors = {name.removeprefix(stem): tensor for name, tensor in foreign.tensors.items()}
    foreign = _without(replace(foreign, tensors=tensors), _LEFT_OUT)
    tensors, source, layout = foreign.tensors, foreign.source, MODEL_TYPES[model_type]
    positions, token = "embeddings.position_embeddings", "embeddings.cls_token"
    require(foreign, {positions: "(1, 1 + L, D)", token: "(1, 1, D)"}, layout, None)
    size, patch = pair(config.image_size), pair(config.patch_size)
    cells = (size[0] // patch[0]) * (size[1] // patch[1])
    prefixes = _prefixes(tensors, token, ("embeddings.register_tokens",))
    statistics, notes = statistics_of(foreign.processor, config.num_channels)
    registers = sum(prefixes[1:2])
    folded = _without_scales(_without_prefix_positions(tensors, token, positions, cells, (1,), source))
    spec = image_spec(
        size=size,
        patch=patch,
        channels=config.num_channels,
        encoder=config.encoder() | _mlp(tensors, config.hidden_size) | {"positions": "table", "registers": registers},
        decoder={},
        normalise_target=True,
        statistics=statistics,
    )
    foreign = replace(foreign, tensors=folded, notes=(*foreign.notes, *notes, *_folded(tensors)))
    return _loaded(foreign, spec, layout, registry, () if config.qkv_bias else ("qkv",))


def _loaded(
    foreign: Foreign, spec: Spec, layout: str, registry: Registry | None, without_bias: Sequence[str]
) -> tuple[MaskedAutoencoder, LoadReport]:
    model = build(spec, registry, foreign.source)
    fix = _advice(foreign.tensors)
    return model, load_foreign(model, foreign, layout, without_bias=without_bias, fix=fix)


def _refuse_other_architectures(foreign: Foreign) -> None:
    name = (foreign.config or {}).get("architecture")
    if isinstance(name, str) and _PLAIN.fullmatch(name) is None:
        raise CheckpointError(
            "This architecture of timm isn't known to be a plain vision transformer.",
            where=foreign.source,
            expected="such as vit_base_patch16_224, deit3_small_patch16_224 or vit_small_patch14_reg4_dinov2",
            got=name,
            fix="If it is one but for its name, give the file of its weights in a folder without config.json.",
        )


def _without(foreign: Foreign, beginnings: tuple[str, ...]) -> Foreign:
    """The tensors without those that have no use here, which are listed."""
    out = sorted(name for name in foreign.tensors if name.startswith(beginnings))
    kept = {name: tensor for name, tensor in foreign.tensors.items() if name not in out}
    return replace(foreign, tensors=kept, left_out=(*foreign.left_out, *out))


def _prefixes(tensors: Mapping[str, Tensor], token: str, registers: Sequence[str]) -> tuple[int, ...]:
    """Numbers of tokens before the patches: class tokens, and register tokens where there are any."""
    found = [tensors[name].shape[1] for name in registers if name in tensors and tensors[name].dim() == 3]
    return (int(token in tensors), *found)


def _size(given: Any, rows: int, prefixes: tuple[int, ...], patch: tuple[int, int], source: str) -> tuple[int, int]:
    if isinstance(given, int) or (isinstance(given, Sequence) and len(given) == 2):
        return pair(given if isinstance(given, int) else (int(given[0]), int(given[1])))
    for before in sorted({0, prefixes[0], sum(prefixes)}, reverse=True):
        side = math.isqrt(max(rows - before, 0))
        if side and side * side == rows - before:
            return side * patch[0], side * patch[1]
    raise CheckpointError(
        "The file doesn't tell the size of the pictures: its tokens fill no square.",
        where=source,
        got=f"{rows} positions",
        fix="Give image_size=(height, width).",
    )


def _without_prefix_positions(
    tensors: Mapping[str, Tensor], token: str, positions: str, cells: int, prefixes: tuple[int, ...], source: str
) -> dict[str, Tensor]:
    """The tensors with one position per cell (L, D): those of class and register tokens are added to these tokens."""
    changed, table = dict(tensors), tensors[positions][0]
    before = table.shape[0] - cells
    allowed = {0, prefixes[0], sum(prefixes)}
    if before not in allowed:
        raise CheckpointError(
            "The positions don't fit the size of the pictures.",
            where=source,
            expected=f"{cells} of patches, and {' or '.join(map(str, sorted(allowed)))} of tokens before them",
            got=f"{table.shape[0]} in {positions}",
            fix="Give image_size=... as the weights were trained or interpolated for.",
        )
    changed[positions] = table[before:]
    if before >= 1 and token in changed:
        changed[token] = changed[token] + table[None, :1]
    for name in ("reg_token", "register_tokens"):
        if before > prefixes[0] and name in changed:
            changed[name] = changed[name] + table[None, prefixes[0] : before]
    return changed


def _without_scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with LayerScale multiplied into the projections before it. One that fits none is left as it is."""
    changed = dict(tensors)
    for name, gamma in tensors.items():
        scale = next((ending for ending in _SCALES if name.endswith(f".{ending}")), None)
        if scale is None:
            continue
        stem = name.removesuffix(scale)
        for target in (f"{stem}{part}" for part in _SCALES[scale]):
            weight, bias = changed.get(f"{target}.weight"), changed.get(f"{target}.bias")
            if weight is not None and weight.dim() == 2 and gamma.shape == weight.shape[:1]:
                changed[f"{target}.weight"] = weight * gamma[:, None]
                if bias is not None:
                    changed[f"{target}.bias"] = bias * gamma
                del changed[name]
                break
    return changed


def _mlp(tensors: Mapping[str, Tensor], dim: int) -> dict[str, Any]:
    """Kind and width of the MLPs: gated ones have a first layer that gives twice what the second takes."""
    first, second = (
        next((tensor for name, tensor in tensors.items() if pattern.search(name) and tensor.dim() == 2), None)
        for pattern in (_FIRST, _SECOND)
    )
    if first is None:
        return {}
    gated = second is not None and first.shape[0] == 2 * second.shape[1]
    hidden = first.shape[0] // (2 if gated else 1)
    return {"mlp": "swiglu" if gated else "gelu", "mlp_ratio": mlp_ratio(dim, hidden)}


def _folded(tensors: Mapping[str, Tensor]) -> list[str]:
    """What to tell of what was folded."""
    notes = []
    if any(name.endswith(tuple(f".{ending}" for ending in _SCALES)) for name in tensors):
        notes.append("LayerScale is multiplied into the projections that it follows: the outputs are the same")
    if _mlp(tensors, 1).get("mlp") == "swiglu":
        notes.append("the MLPs are gated: gates come first and pass SiLU, as in DINOv2, which tensors don't tell")
    return notes


def _advice(tensors: Mapping[str, Tensor]) -> str | None:
    """What to do about weights that don't fit, where that can be told."""
    if any(name.startswith("fc_norm.") for name in tensors):
        return "It normalises after pooling (fc_norm), where ours does so on its tokens: it can't be read."
    if any("q_norm" in name for name in tensors):
        return "Its queries and keys are normalised, which ours aren't: it can't be read."
    if any(".mlp.fc1_g." in name for name in tensors):
        return "Its gates and values are two layers (timm's SwiGLU), which ours has in one: it can't be read."
    if any("norm_pre" in name for name in tensors):
        return "It has a LayerNorm before the first block, as CLIP's, which ours hasn't: it can't be read."
    return None
