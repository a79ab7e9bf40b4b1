"""A folder for transformers: ViTMAE and VideoMAE whole, else the encoder as a ViT, DINOv2 with registers or VideoMAE.

Positions are written out as tables, so that the library needs no formula of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.signals import SignalModel
from maskedmodel.noise import seeded
from maskedmodel.plugins import Registry
from maskedmodel.tokens import Mask
from maskedmodel.weights.export.written import Pictures, Written, largest, library, linear, refused
from maskedmodel.weights.mapping import DINOV2, HUGGINGFACE, HUGGINGFACE_VIDEO, HUGGINGFACE_VIT, our_name

_DECODER_EPS = 1e-5  # of the LayerNorm after VideoMAE's decoder, which transformers leaves at torch's default


@dataclass(frozen=True)
class _Form:
    """A model class of transformers, and what its config says of ours."""

    name: str
    layout: str
    config: dict[str, Any]

    @property
    def config_name(self) -> str:
        return self.name.replace("ForPreTraining", "").replace("Model", "") + "Config"


def write(model: MaskedAutoencoder, folder: Path, registry: Registry | None) -> Written:
    """Raises CheckpointError where no class of transformers can express the encoder, DependencyError without it."""
    hub = library("transformers", target="huggingface")
    video = len(model.tokenizer.axes) == 3
    pictures = Pictures(model, axes=3 if video else 2)
    if not pictures.reasons:
        pictures.reasons += encoder_reasons(model, pictures, video)
    if pictures.reasons:
        raise refused("transformers", pictures.reasons)
    without = _decoder_reasons(model, pictures, video)
    form = _form(model, pictures, video, whole=not without)
    with seeded(0), silent(hub):
        config = getattr(hub, form.config_name)(**form.config)
        kind = getattr(hub, form.name)
        theirs = kind(config, **({"add_pooling_layer": False} if form.name == "ViTModel" else {}))
        fill(theirs, model, pictures, form.layout)
        theirs.save_pretrained(folder)
        options = {"add_pooling_layer": False} if form.name == "ViTModel" else {}
        again, info = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True, **options)
    lost = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if lost:
        raise refused("transformers", [f"what it reads back differs in {len(lost)} tensors, such as {lost[0]}"])
    if model.tokenizer.value_range == (0.0, 1.0):
        (folder / "preprocessor_config.json").write_text(json.dumps(processor(pictures, video), indent=1) + "\n")
    left = [f"the decoder is left out: {'; '.join(without)}"] if without else []
    pooling = ", add_pooling_layer=False" if form.name == "ViTModel" else ""
    return Written(
        what=form.name if not without else f"{form.name}, the encoder",
        takes=pictures.takes + (", frames before channels" if video else ""),
        gives="logits of patches under a mask, and the encoder's features"
        if not without
        else "last_hidden_state: class and register tokens, then tokens",
        load=f"transformers.{form.name}.from_pretrained({str(folder)!r}{pooling})",
        difference=_difference(model, again.eval(), pictures, video, whole=not without),
        notes=[*pictures.notes, *left],
        libraries=("transformers",),
    )


def encoder_reasons(model: SignalModel, pictures: Pictures, video: bool = False) -> list[str]:
    """Why transformers can't express the encoder."""
    s, reasons = model.settings.encoder, []
    if not linear(model.encoder.embed):
        reasons.append("its patches are projected by more than one linear layer")
    if video:
        if s.class_token or s.registers:
            reasons.append("VideoMAE has no class token and no registers, this encoder has")
        if s.positions != "interleaved":
            reasons.append(f"VideoMAE's positions are interleaved, this encoder's {s.positions}")
        return reasons
    if not s.class_token:
        reasons.append("its vision transformers have a class token, this encoder has none")
    if s.registers and len(set(pictures.tokenizer.size)) > 1:
        reasons.append("its DINOv2 with registers takes square pictures")
    if s.registers and s.mlp_ratio != int(s.mlp_ratio):
        reasons.append(f"its DINOv2 with registers has a whole mlp_ratio, this encoder {s.mlp_ratio}")
    if s.final_norm_eps not in (None, s.norm_eps):
        reasons.append("its LayerNorms have one epsilon, this encoder's last has another")
    return reasons


def _decoder_reasons(model: MaskedAutoencoder, pictures: Pictures, video: bool) -> list[str]:
    """Why the decoder can't go with the encoder; empty where it can."""
    if not model.decoder_loaded:
        return ["the weights hold an encoder only"]
    e, d, reasons = model.settings.encoder, model.settings.decoder, []
    objective: Any = model.objective.settings
    if d.attention != "self":
        reasons.append("it attends across to the encoder")
    if not linear(model.decoder.head) or model.objective.component_name() != "patch":
        reasons.append("it predicts something else than the values of a patch")
    if d.norm_eps != e.norm_eps:
        reasons.append("its LayerNorms have another epsilon")
    wanted = "interleaved" if video else "sincos"
    if not video and (e.positions != wanted or e.registers):
        reasons.append("ViTMAE has fixed sine-cosine positions and no registers")
    if not video and len(set(pictures.tokenizer.extents)) > 1:
        reasons.append("ViTMAE's tokens fill a square")
    if d.positions != wanted:
        reasons.append(f"its positions are {d.positions}, not {wanted}")
    if d.repeat_positions:
        reasons.append("its positions are added before every block, not once")
    if video:
        embed = model.decoder.embed
        if embed is not None and bool(embed.bias.any()):
            reasons.append("VideoMAE's has no bias where it takes over from the encoder, this one has")
        if (d.final_norm_eps or d.norm_eps) != _DECODER_EPS:
            reasons.append(f"VideoMAE's last LayerNorm has an epsilon of {_DECODER_EPS:g}")
        if not getattr(objective, "normalise", True):
            reasons.append("it predicts pixels normalised, VideoMAE's raw ones")
    return reasons


def _form(model: MaskedAutoencoder, pictures: Pictures, video: bool, whole: bool) -> _Form:
    """The class that expresses most of the model, and its config."""
    s, d, tokenizer = model.settings.encoder, model.settings.decoder, pictures.tokenizer
    config = encoder_config(model, pictures)
    decoder = {
        "decoder_hidden_size": d.dim,
        "decoder_num_hidden_layers": d.depth,
        "decoder_num_attention_heads": d.heads,
        "decoder_intermediate_size": int(d.dim * d.mlp_ratio),
        "norm_pix_loss": bool(getattr(model.objective.settings, "normalise", False)),
    }
    if video:
        config |= {"num_frames": tokenizer.size[0], "tubelet_size": tokenizer.patch[0], "use_mean_pooling": False}
        name = "VideoMAEForPreTraining" if whole else "VideoMAEModel"
        return _Form(name, HUGGINGFACE_VIDEO, config | (decoder if whole else {}))
    if whole:
        ratio = min(max(model.scheduler.ratio(1.0), 0.01), 0.99)
        return _Form("ViTMAEForPreTraining", HUGGINGFACE, config | decoder | {"mask_ratio": ratio})
    if s.registers:
        more = {"num_register_tokens": s.registers, "mlp_ratio": int(s.mlp_ratio), "layerscale_value": 1.0}
        return _Form("Dinov2WithRegistersModel", DINOV2, config | more)
    return _Form("ViTModel", HUGGINGFACE_VIT, config)


def encoder_config(model: SignalModel, pictures: Pictures) -> dict[str, Any]:
    """What a config of any of its vision transformers says of our encoder."""
    s, tokenizer = model.settings.encoder, pictures.tokenizer
    return {
        "hidden_size": s.dim,
        "num_hidden_layers": s.depth,
        "num_attention_heads": s.heads,
        "intermediate_size": int(s.dim * s.mlp_ratio),
        "image_size": _square(tokenizer.size[-2:]),
        "patch_size": _square(tokenizer.patch[-2:]),
        "num_channels": tokenizer.channels,
        "layer_norm_eps": s.norm_eps,
        "qkv_bias": True,
    }


def _square(pair: tuple[int, ...]) -> int | tuple[int, ...]:
    return pair[0] if len(set(pair)) == 1 else pair


def fill(theirs: Any, model: SignalModel, pictures: Pictures, layout: str = HUGGINGFACE_VIT) -> None:
    """Copy every tensor of ours to its place there. Those of theirs that have no counterpart stay neutral."""
    own, state = model.state_dict(), theirs.state_dict()
    for name, tensor in state.items():
        ours = our_name(name, layout)
        if ours is None:
            if name.endswith("lambda1"):  # LayerScale
                tensor.fill_(1.0)
            elif name.endswith("mask_token"):
                tensor.zero_()
            else:
                raise refused("transformers", [f"its tensor {name} has no counterpart"])
            continue
        tensor.copy_(_value(ours, own, model, pictures).reshape(tensor.shape))


def _value(ours: str, own: dict[str, Tensor], model: SignalModel, pictures: Pictures) -> Tensor:
    if ours.endswith((".positions", ".tables.table")):
        table = pictures.positions(ours.split(".")[0])
        return torch.cat([table.new_zeros(1, table.shape[1]), table])
    if ours == "encoder.embed.weight":
        return pictures.convolution()
    for third, letter in enumerate("qkv"):
        if f"#{letter}" in ours:
            return own[ours.replace(f"#{letter}", "")].chunk(3)[third]
    return own[ours]


def _difference(
    model: MaskedAutoencoder, theirs: Any, pictures: Pictures, video: bool, whole: bool
) -> Callable[[Tensor], float]:
    """How far features, and predictions under one mask, are apart."""

    def given(signal: Tensor) -> Tensor:
        values = pictures.normalised(signal)
        return values.transpose(1, 2) if video else values

    def features(signal: Tensor) -> float:
        own = model.encoder.features(model.tokens(signal))
        if not whole:
            return largest(own, theirs(given(signal)).last_hidden_state)
        if video:
            return largest(own, theirs.videomae(given(signal)).last_hidden_state)
        ratio, theirs.config.mask_ratio = theirs.config.mask_ratio, 0.0
        order = torch.arange(float(own.shape[1] - 1)).expand(len(signal), -1)
        found = theirs.vit(given(signal), noise=order).last_hidden_state
        theirs.config.mask_ratio = ratio
        return largest(own, found)

    def predictions(signal: Tensor) -> float:
        tokens = model.tokens(signal)
        noise = torch.rand(tokens.batch, tokens.length, generator=torch.Generator().manual_seed(0))
        if video:
            hidden = torch.zeros(tokens.batch, tokens.length, dtype=torch.bool)
            hidden.scatter_(1, noise.argsort(1)[:, : max(tokens.length // 2, 1)], True)
            return largest(model(tokens, Mask(hidden)).prediction, theirs(given(signal), bool_masked_pos=hidden).logits)
        found = theirs(given(signal), noise=noise)
        return largest(model.predict_everywhere(tokens, Mask(found.mask.bool())), found.logits)

    return lambda signal: max(features(signal), predictions(signal) if whole else 0.0)


def processor(pictures: Pictures, video: bool) -> dict[str, Any]:
    """What transformers' image processor does to 8-bit pictures, so that the model sees what ours sees."""
    height, width = pictures.tokenizer.size[-2:]
    return {
        "image_processor_type": "VideoMAEImageProcessor" if video else "ViTImageProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": pictures.mean.tolist(),
        "image_std": pictures.std.tolist(),
        "do_resize": True,
        "resample": 3,
        "size": {"height": height, "width": width},
    }


@contextmanager
def silent(hub: Any) -> Iterator[None]:
    """Without the library's progress bars and remarks, which are about downloads and training."""
    log = hub.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
