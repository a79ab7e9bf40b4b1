"""VideoMAE (Tong et al. 2022): of the transformers library, and under the names of its authors' code.

It differs from MAE in what no tensor tells: positions are interleaved sines over the raster order, there is no class
token, and targets are normalised per channel of a patch, with the epsilon added to the spread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.plugins import Registry
from maskedmodel.weights.build import Spec, Statistics, build, mlp_ratio, normalise, plain
from maskedmodel.weights.configs import VisionConfig, pair, read_config, size, statistics_of
from maskedmodel.weights.facebook import ENCODER_HEADS, depth_of, heads_of, require
from maskedmodel.weights.foreign import Foreign
from maskedmodel.weights.mapping import HUGGINGFACE_VIDEO, VIDEOMAE, load_foreign, our_name
from maskedmodel.weights.report import LoadReport

MODEL_TYPE = "videomae"
_RATIO = 0.9
_EPSILON = 1e-6  # added to the spread of a channel of a patch, on the scale where white is 1
_DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}
_FINAL_EPSILON = 1e-5  # of the decoder's last LayerNorm in transformers, which leaves it at torch's default
_NEEDED = {"encoder.patch_embed.proj.weight": "(D, C, t, p, p)", "encoder.blocks.0.mlp.fc1.weight": "(4 D, D)"}
_NEEDED_BY_DECODER = {"encoder_to_decoder.weight": "(E, D)", "decoder.blocks.0.mlp.fc1.weight": "(4 E, E)"}
_WITHOUT_BIAS = ("decoder.embed",)


class _Config(VisionConfig):
    """The settings of a VideoMAE that matter here, with the defaults of VideoMAEConfig."""

    num_frames: int = size(16)
    tubelet_size: int = size(2)
    qv_bias: bool = True
    use_mean_pooling: bool = True
    decoder_hidden_size: int = size(384)
    decoder_num_hidden_layers: int = 4
    decoder_num_attention_heads: int = size(6)
    decoder_intermediate_size: int = size(1536)
    norm_pix_loss: bool = True


def _spec(
    *,
    frames: int,
    image: tuple[int, int],
    patch: tuple[int, int, int],
    channels: int,
    encoder: dict[str, Any],
    decoder: dict[str, Any],
    normalise_target: bool,
    ratio: float,
    statistics: Statistics | None,
) -> Spec:
    tokens = {"frames": frames, "size": plain(image), "patch": patch, "channels": channels}
    # Our targets are normalised pixels, theirs are not: their epsilon in our units, over the mean spread of a channel.
    spread = (0.229 + 0.224 + 0.225) / 3 if statistics is None else sum(statistics[1]) / channels
    target = {"normalise": normalise_target, "per": "channel", "epsilon_at": "spread", "epsilon": _EPSILON / spread}
    places = {"positions": "interleaved"}
    return Spec(
        tokenizer=("tubes", tokens | {"normalise": normalise(statistics)}),
        mask=("tube", {"ratio": ratio}),
        objective=("patch", target),
        encoder=encoder | places | {"class_token": False},
        decoder=decoder | places,
    )


def load_huggingface(foreign: Foreign, registry: Registry | None) -> tuple[MaskedAutoencoder, LoadReport]:
    """The model of a VideoMAE of transformers. Raises CheckpointError, and WeightsMismatch with a report."""
    config = read_config(foreign, _Config, MODEL_TYPE)
    statistics, notes = statistics_of(foreign.processor, config.num_channels)
    spec = _spec(
        frames=config.num_frames,
        image=pair(config.image_size),
        patch=(config.tubelet_size, *pair(config.patch_size)),
        channels=config.num_channels,
        encoder=config.encoder(),
        decoder=config.decoder() | {"final_norm_eps": _FINAL_EPSILON},
        normalise_target=config.norm_pix_loss,
        ratio=_RATIO,
        statistics=statistics,
    )
    qv_bias = bool((foreign.config or {}).get("qkv_bias", config.qv_bias))  # the name before transformers 5
    without_bias = _WITHOUT_BIAS if qv_bias else (*_WITHOUT_BIAS, "qkv")
    fix = _advice(foreign.tensors)
    if fix is None and config.use_mean_pooling:
        fix = "Its config.json says use_mean_pooling: true, so its encoder ends without a LayerNorm; ours has one."
    return _load(foreign, spec, registry, HUGGINGFACE_VIDEO, notes, without_bias, fix)


def is_videomae(foreign: Foreign) -> bool:
    """Whether tensors have the names of the authors' code."""
    return any(name.startswith("encoder.patch_embed.") for name in foreign.tensors)


def load_videomae(
    foreign: Foreign,
    *,
    heads: int | None = None,
    decoder_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    normalise: bool | None = None,
    registry: Registry | None = None,
) -> tuple[MaskedAutoencoder, LoadReport]:
    """The model of a VideoMAE under its authors' names. The arguments are those of `from_facebook`.

    Neither the size of pictures nor the number of frames can be read off the weights: where the training arguments
    don't tell, they are the published 224 pixels and 16 frames. Other clips go in as well. Raises CheckpointError, and
    WeightsMismatch with a report.
    """
    tensors, source, arguments = foreign.tensors, foreign.source, foreign.arguments
    decoder_there = any((our_name(name, VIDEOMAE) or "").startswith("decoder.") for name in tensors)
    require(foreign, _NEEDED | (_NEEDED_BY_DECODER if decoder_there else {}), VIDEOMAE, _advice(tensors))
    dim, channels, *patch = tensors["encoder.patch_embed.proj.weight"].shape
    encoder = {
        "dim": dim,
        "depth": depth_of(tensors, "encoder.blocks"),
        "heads": heads_of(dim, heads, ENCODER_HEADS, "heads", source),
        "mlp_ratio": mlp_ratio(dim, tensors["encoder.blocks.0.mlp.fc1.weight"].shape[0]),
    }
    decoder: dict[str, Any] = {}
    if decoder_there:
        width = tensors["encoder_to_decoder.weight"].shape[0]
        decoder = {
            "dim": width,
            "depth": depth_of(tensors, "decoder.blocks"),
            "heads": heads_of(width, decoder_heads, _DECODER_HEADS, "decoder_heads", source),
            "mlp_ratio": mlp_ratio(width, tensors["decoder.blocks.0.mlp.fc1.weight"].shape[0]),
        }
    notes = []
    frames, side = arguments.get("num_frames"), image_size or arguments.get("input_size")
    if not isinstance(frames, int) or not isinstance(side, int | tuple):
        notes.append("no tensor tells the size of a clip: what isn't given is 16 frames of 224 x 224 pixels")
    recorded = arguments.get("normlize_target")  # as the training code spells it
    if normalise is None and decoder_there:
        normalise = recorded if isinstance(recorded, bool) else True
        notes.append(
            f"normlize_target={recorded} in its training arguments"
            if isinstance(recorded, bool)
            else "nothing tells whether it predicts normalised patches; the published ones do, so that is assumed"
        )
    statistics, more = statistics_of({}, channels)
    ratio = arguments.get("mask_ratio", _RATIO)
    spec = _spec(
        frames=frames if isinstance(frames, int) else 16,
        image=pair(side if isinstance(side, int | tuple) else 224),
        patch=(patch[0], patch[1], patch[2]),
        channels=channels,
        encoder=encoder,
        decoder=decoder,
        normalise_target=normalise is not False,
        ratio=ratio if isinstance(ratio, float) and 0 < ratio < 1 else _RATIO,
        statistics=statistics,
    )
    # A model trained without biases of queries and values has neither; one that lacks some of them is damaged.
    biased = any(name.endswith(("q_bias", "v_bias")) for name in tensors)
    without_bias = _WITHOUT_BIAS if biased else (*_WITHOUT_BIAS, "qkv")
    return _load(foreign, spec, registry, VIDEOMAE, [*notes, *more], without_bias, _advice(tensors))


def _load(
    foreign: Foreign,
    spec: Spec,
    registry: Registry | None,
    layout: str,
    notes: list[str],
    without_bias: tuple[str, ...],
    fix: str | None,
) -> tuple[MaskedAutoencoder, LoadReport]:
    model = build(spec, registry, foreign.source)
    if not spec.objective[1]["normalise"]:
        foreign = replace(foreign, tensors=_normalised_head(foreign.tensors, layout, model))
        notes = [
            *notes,
            "it predicts pixels on the scale where white is 1: the head was changed to predict them normalised",
        ]
    foreign = replace(foreign, notes=(*foreign.notes, *notes))
    return model, load_foreign(model, foreign, layout, without_bias=without_bias, fix=fix)


def _normalised_head(tensors: dict[str, Tensor], layout: str, model: MaskedAutoencoder) -> dict[str, Tensor]:
    """The tensors with a head that predicts (pixel - mean) / std where theirs predicts the pixel: the same pictures."""
    mean, std = (getattr(model.tokenizer, name).double() for name in ("mean", "std"))
    changed = dict(tensors)
    for name, tensor in tensors.items():
        ours = our_name(name, layout)
        if ours not in ("decoder.head.weight", "decoder.head.bias") or tensor.shape[0] % len(mean):
            continue  # a head of another size is reported as such
        times = tensor.shape[0] // len(mean)  # the channel runs fastest
        shift, scale = (mean, std) if ours.endswith("bias") else (torch.zeros_like(mean), std)
        shape = [-1] + [1] * (tensor.dim() - 1)
        rows = (tensor.double() - shift.repeat(times).reshape(shape)) / scale.repeat(times).reshape(shape)
        changed[name] = rows.to(tensor.dtype)
    return changed


def _advice(tensors: dict[str, Tensor]) -> str | None:
    if any(name.startswith(("head.", "fc_norm.", "classifier.")) for name in tensors):
        return "It holds a classifier's head, so it was fine-tuned: import the pretrained file."
    return None
