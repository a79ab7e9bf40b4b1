"""Foreign names to ours, by one table, and loading that reports every tensor.

`N` in a name stands for a block's number. `#q`, `#k`, `#v` are thirds of our fused projection. A name ends in
`.positions` where a file stores what we compute: such a table is compared, not loaded. VideoMAE stores none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.positions import sincos
from maskedmodel.engine.signals import SignalModel
from maskedmodel.tokenizers.grid import GridTokenizer
from maskedmodel.weights.foreign import Foreign
from maskedmodel.weights.report import LoadReport, Verdict, WeightsMismatch

FACEBOOK, HUGGINGFACE = "MAE (facebook names)", "ViTMAE (Hugging Face names)"
VIDEOMAE, HUGGINGFACE_VIDEO = "VideoMAE (its authors' names)", "VideoMAE (Hugging Face names)"
VIT, HUGGINGFACE_VIT = "ViT (timm names)", "ViT (Hugging Face names)"
DINOV2 = "DINOv2 (Hugging Face names)"

_BLOCK: dict[str, dict[str, str]] = {
    FACEBOOK: {
        "norm1": "norm1",
        "attn.qkv": "qkv",
        "attn.proj": "proj",
        "norm2": "norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
    HUGGINGFACE: {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        # as stored on the hub
        "attention.attention.query": "qkv#q",
        "attention.attention.key": "qkv#k",
        "attention.attention.value": "qkv#v",
        "attention.output.dense": "proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        # as in memory since transformers 5
        "attention.q_proj": "qkv#q",
        "attention.k_proj": "qkv#k",
        "attention.v_proj": "qkv#v",
        "attention.o_proj": "proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
}
# VideoMAE's queries and values have a bias, its keys none: it would add the same to every score of a row.
_KEYS_WITHOUT_BIAS = (VIDEOMAE, HUGGINGFACE_VIDEO)
_BLOCK[VIDEOMAE] = _BLOCK[FACEBOOK] | {"attn.q_bias": "qkv#q.bias", "attn.v_bias": "qkv#v.bias"}
_BLOCK[HUGGINGFACE_VIDEO] = _BLOCK[HUGGINGFACE] | {
    # as stored before transformers 5
    "attention.attention.q_bias": "qkv#q.bias",
    "attention.attention.v_bias": "qkv#v.bias",
}
_BLOCK[VIT] = _BLOCK[FACEBOOK] | {"mlp.w12": "mlp.fc1", "mlp.w3": "mlp.fc2"}  # gated, as DINOv2's authors name them
_BLOCK[HUGGINGFACE_VIT] = _BLOCK[HUGGINGFACE]
_BLOCK[DINOV2] = {name: ours for name, ours in _BLOCK[HUGGINGFACE].items() if ours.startswith(("qkv", "proj", "mlp"))}
_BLOCK[DINOV2] |= {"norm1": "norm1", "norm2": "norm2", "mlp.weights_in": "mlp.fc1", "mlp.weights_out": "mlp.fc2"}
_STACKS = {
    FACEBOOK: {"blocks": "encoder", "decoder_blocks": "decoder"},
    HUGGINGFACE: {
        "encoder.layer": "encoder",
        "layers": "encoder",
        "decoder.decoder_layers": "decoder",
        "decoder.decoder_encoder.layer": "decoder",  # what save_pretrained of transformers 5 writes
    },
    VIDEOMAE: {"encoder.blocks": "encoder", "decoder.blocks": "decoder"},
    HUGGINGFACE_VIDEO: {"encoder.layer": "encoder", "decoder.decoder_layers": "decoder"},
    VIT: {"blocks": "encoder"},
    HUGGINGFACE_VIT: {"encoder.layer": "encoder", "layers": "encoder"},
    DINOV2: {"encoder.layer": "encoder", "layers": "encoder"},
}
_SINGLE = {
    FACEBOOK: {
        "cls_token": "encoder.class_token",
        "pos_embed": "encoder.positions",
        "patch_embed.proj": "encoder.embed",
        "norm": "encoder.norm",
        "mask_token": "decoder.mask_token",
        "decoder_pos_embed": "decoder.positions",
        "decoder_embed": "decoder.embed",
        "decoder_norm": "decoder.norm",
        "decoder_pred": "decoder.head",
    },
    HUGGINGFACE: {
        "embeddings.cls_token": "encoder.class_token",
        "embeddings.position_embeddings": "encoder.positions",
        "embeddings.patch_embeddings.projection": "encoder.embed",
        "layernorm": "encoder.norm",
        "decoder.mask_token": "decoder.mask_token",
        "decoder.decoder_pos_embed": "decoder.positions",
        "decoder.decoder_embed": "decoder.embed",
        "decoder.decoder_norm": "decoder.norm",
        "decoder.decoder_pred": "decoder.head",
    },
    VIDEOMAE: {
        "encoder.patch_embed.proj": "encoder.embed",
        "encoder.norm": "encoder.norm",
        "mask_token": "decoder.mask_token",
        "encoder_to_decoder": "decoder.embed",
        "decoder.norm": "decoder.norm",
        "decoder.head": "decoder.head",
    },
    HUGGINGFACE_VIDEO: {
        "embeddings.patch_embeddings.projection": "encoder.embed",
        "layernorm": "encoder.norm",
        "mask_token": "decoder.mask_token",
        "encoder_to_decoder": "decoder.embed",
        "decoder.norm": "decoder.norm",
        "decoder.head": "decoder.head",
    },
}
_TABLE = "encoder.places.tables.table"
_SINGLE[VIT] = {
    "cls_token": "encoder.class_token",
    "reg_token": "encoder.registers",
    "register_tokens": "encoder.registers",
    "pos_embed": _TABLE,
    "patch_embed.proj": "encoder.embed",
    "norm": "encoder.norm",
}
_SINGLE[HUGGINGFACE_VIT] = _SINGLE[DINOV2] = {
    "embeddings.cls_token": "encoder.class_token",
    "embeddings.register_tokens": "encoder.registers",
    "embeddings.position_embeddings": _TABLE,
    "embeddings.patch_embeddings.projection": "encoder.embed",
    "layernorm": "encoder.norm",
}
_PREFIX = {HUGGINGFACE: "vit.", HUGGINGFACE_VIDEO: "videomae."}
TABLE: dict[str, dict[str, str]] = {
    layout: _SINGLE[layout]
    | {
        f"{stack}.N.{theirs}": f"{side}.blocks.N.{ours}"
        for stack, side in _STACKS[layout].items()
        for theirs, ours in _BLOCK[layout].items()
    }
    for layout in _SINGLE
}
POSITIONS = ("encoder.positions", "decoder.positions")
_THIRDS = ("q", "k", "v")
# How far a stored table may be from ours: rounding of its own precision, times a margin.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def our_name(name: str, layout: str) -> str | None:
    """Our name of a foreign tensor, or None where it has no place in a masked autoencoder."""
    name = name.removeprefix(_PREFIX.get(layout, ""))
    stem, dot, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias"):
        stem, dot, leaf = name, "", ""
    number = re.search(r"\.(\d+)\.", stem)
    pattern = stem if number is None else f"{stem[: number.start()]}.N.{stem[number.end() :]}"
    ours = TABLE[layout].get(pattern)
    if ours is None:
        return None
    return ours.replace(".N.", number.group(0) if number else ".N.") + dot + leaf


@dataclass
class Translated:
    """Tensors by our names, the names they came under, and what could not be translated."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


def translate(tensors: Mapping[str, Tensor], layout: str) -> Translated:
    """Rename, fuse thirds of a projection, and flatten the patch convolution (D, C, *p) to a Linear (D, p * C)."""
    done = Translated()
    for name, tensor in tensors.items():
        ours = our_name(name, layout)
        if ours is None:
            done.unexpected.append(name)
            continue
        if ours in done.tensors:
            done.broken[re.sub("#.", "", ours)] = f"given twice, as {done.names[ours][0]} and {name}"
            continue
        done.names[ours] = [name]
        # The convolution's channel runs slowest; in our tokens, as in MAE's targets, it runs fastest.
        embed = ours == "encoder.embed.weight" and tensor.dim() > 2
        done.tensors[ours] = tensor.movedim(1, -1).flatten(1) if embed else tensor
    if layout in _KEYS_WITHOUT_BIAS:
        for ours in [name for name in done.tensors if name.endswith("#q.bias")]:
            done.tensors.setdefault(ours.replace("#q", "#k"), torch.zeros_like(done.tensors[ours]))
    for ours in [name for name in done.tensors if "#" in name]:
        _fuse(done, re.sub("#.", "", ours))
    return done


def _fuse(done: Translated, whole: str) -> None:
    thirds = {letter: whole.replace("qkv", f"qkv#{letter}") for letter in _THIRDS}
    parts = {letter: done.tensors.pop(name) for letter, name in thirds.items() if name in done.tensors}
    if not parts:
        return  # done already, with another third
    done.names[whole] = [theirs for name in thirds.values() for theirs in done.names.pop(name, [])]
    if whole in done.tensors:
        done.broken[whole] = "given fused and in parts"
    elif len(parts) < len(_THIRDS):
        done.broken[whole] = f"only {', '.join(parts)} of q, k, v is there"
    elif len({part.shape for part in parts.values()}) > 1:
        done.broken[whole] = "q, k and v differ in shape"
    else:
        done.tensors[whole] = torch.cat([parts[letter] for letter in _THIRDS])


def load_foreign(
    model: MaskedAutoencoder,
    foreign: Foreign,
    layout: str,
    *,
    without_bias: Sequence[str] = (),
    fix: str | None = None,
) -> LoadReport:
    """Copy foreign weights into the model, all that belong or none.

    without_bias   endings of our names of what is known to have no bias there: ours is then zero, which is the same.
    fix            advice for the error.

    Sets `model.decoder_loaded`. Raises WeightsMismatch, with the report, unless everything of the encoder, and
    everything or nothing of the decoder, is there and fits.
    """
    found = translate(foreign.tensors, layout)
    own = {name: t for name, t in model.state_dict().items() if name.startswith(("encoder.", "decoder."))}
    expected = {*own, *(name for name in POSITIONS if name in TABLE[layout].values())}
    decoder = any(name.startswith("decoder.") for name in found.names)
    notes = list(foreign.notes)
    if "qkv" in without_bias:
        notes.append("queries, keys and values have no bias there; here it is zero")
    sides = ("encoder.", "decoder.") if decoder else ("encoder.",)
    for name in expected - found.names.keys():
        if name.startswith(sides) and name.endswith(tuple(f"{ending}.bias" for ending in without_bias)):
            found.tensors[name] = torch.zeros_like(own[name])
    trouble, fitting = dict(found.broken), {}
    for name in sorted(expected & found.tensors.keys() - trouble.keys()):
        tensor = found.tensors[name]
        wrong = _position_trouble(model, name, tensor) if name in POSITIONS else _trouble(tensor, own[name])
        if wrong is None:
            fitting[name] = tensor
        else:
            trouble[name] = wrong
    surplus = [theirs for name in found.names.keys() - expected for theirs in found.names[name]]
    unexpected = sorted([*found.unexpected, *surplus, *foreign.others])
    absent = expected - found.tensors.keys() - trouble.keys()
    missing = sorted(absent, key=lambda name: (name.startswith("decoder."), name))
    lost = [name for name in missing if decoder or name.startswith("encoder.")]
    verdict: Verdict = "complete" if decoder else "encoder only"
    if trouble or lost or unexpected:
        verdict = "mismatched"
    stored = {str(tensor.dtype).removeprefix("torch.") for tensor in fitting.values()} - {"float32"}
    if stored:
        notes.append(f"stored as {', '.join(sorted(stored))}, converted to float32")
    report = LoadReport(
        verdict=verdict,
        source=foreign.source,
        container=foreign.container,
        layout=layout,
        loaded=tuple(fitting),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        mismatched=tuple(f"{name}: {wrong}" for name, wrong in sorted(trouble.items())),
        notes=tuple(notes),
        left_out=foreign.left_out,
        expects=expected_input(model),
    )
    if verdict == "mismatched":
        raise WeightsMismatch(report, fix)
    for name in own.keys() & fitting.keys():
        own[name].copy_(fitting[name])
    model.decoder_loaded = decoder
    return report


def expected_input(model: SignalModel) -> str:
    """What `encode` takes, in words: nobody may normalise twice."""
    tokenizer = model.tokenizer
    values = "as tokenizer.prepare gives them"
    if tokenizer.value_range is not None:
        values = f"between {tokenizer.value_range[0]:g} and {tokenizer.value_range[1]:g}"
    size = " x ".join(map(str, tokenizer.size)) + " along " if isinstance(tokenizer, GridTokenizer) else ""
    return f"{size}{', '.join(tokenizer.axes)}; values {values}, not normalised: the model does that itself"


def _trouble(tensor: Tensor, due: Tensor) -> str | None:
    """What is wrong with a tensor that goes where `due` is, or None."""
    if tensor.shape != due.shape:
        return f"{tuple(tensor.shape)} where {tuple(due.shape)} is due"
    if not tensor.is_floating_point():
        return f"{tensor.dtype} where floating point is due"
    values = tensor.float()
    if bool(values.sum().isfinite()):  # much faster than looking at each, and finite only where each is
        return None
    bad = int((~values.isfinite()).sum())
    return f"{bad} values aren't finite" if bad else None


def _position_trouble(model: MaskedAutoencoder, name: str, table: Tensor) -> str | None:
    """What is wrong with a stored position table (1, S + L, D), or None where it equals what we compute."""
    side = model.encoder if name.startswith("encoder.") else model.decoder
    tokenizer, prefix = model.tokenizer, model.encoder.prefix
    assert isinstance(tokenizer, GridTokenizer)
    dim, grid = side.settings.dim, tokenizer.extents
    coords = torch.cartesian_prod(*(torch.arange(n) for n in grid)).reshape(-1, len(grid))
    shape = (1, prefix + len(coords), dim)
    if table.shape != shape:
        size = " x ".join(map(str, tokenizer.size))
        return f"{tuple(table.shape)} where {shape} is due: images of {size} have {len(coords)} tokens"
    if not table.is_floating_point():
        return f"{table.dtype} where floating point is due"
    tolerance, given = _TOLERANCE.get(table.dtype, 2e-2), table.detach()[0].float()
    ours = torch.cat([torch.zeros(prefix, dim), sincos(coords, dim)])
    off = float((given - ours).abs().max())
    if off <= tolerance:
        return None
    if not given.any():
        return (
            "all zero, so this model can't tell places apart. A known fault: transformers leaves these fixed tables "
            "empty in a model that is built from a config instead of with from_pretrained"
        )
    text = f"differs from the fixed sine-cosine table by up to {off:.3g}: "
    distances = torch.cdist(given, ours, compute_mode="donot_use_mm_for_euclid_dist")
    if float(distances.min(1).values.max()) <= tolerance * dim**0.5:
        return text + "the same rows in another order, so it counts the tokens in another order"
    return text + "it was trained, interpolated from another size, or is of another formula"
