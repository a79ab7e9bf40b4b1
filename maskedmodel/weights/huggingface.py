"""Models of the transformers library: ViTMAE and VideoMAE, whole or their encoders alone, ViT and DINOv2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import CheckpointError
from maskedmodel.plugins import Registry
from maskedmodel.weights import videomae, vit
from maskedmodel.weights.build import build, image_spec
from maskedmodel.weights.configs import VisionConfig, pair, read_config, statistics_of
from maskedmodel.weights.foreign import Foreign, cleaned_state, read
from maskedmodel.weights.mapping import HUGGINGFACE, load_foreign
from maskedmodel.weights.report import LoadReport

MODEL_TYPE = "vit_mae"
MODEL_TYPES = (MODEL_TYPE, videomae.MODEL_TYPE, *vit.MODEL_TYPES)


class _Config(VisionConfig):
    """The settings of a ViTMAE that matter here, with the defaults of ViTMAEConfig."""

    qkv_bias: bool = True
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False


def from_huggingface(model_or_folder: object, *, registry: Registry | None = None) -> MaskedAutoencoder:
    """A ViTMAE, VideoMAE, ViT or DINOv2 of the transformers library as a MaskedAutoencoder in evaluation mode.

    model_or_folder   a ViTMAEForPreTraining or VideoMAEForPreTraining; a ViTMAEModel, VideoMAEModel, ViTModel,
                      Dinov2Model or Dinov2WithRegistersModel, which are encoders only; a folder with config.json and
                      weights; or a weights file beside its config.json. Nothing is downloaded.

    Pictures go in on a scale where white is 1, videos as (B, channels, frames, height, width); the model normalises
    them itself. Raises CheckpointError where weights are missing or don't fit: none are loaded in part. Of encoder-only
    weights, what needs the decoder refuses.
    """
    return read_huggingface(model_or_folder, registry=registry)[0]


def read_huggingface(source: object, *, registry: Registry | None = None) -> tuple[MaskedAutoencoder, LoadReport]:
    """As `from_huggingface`, with the report of what was found."""
    if isinstance(source, nn.Module):
        return load_huggingface(_in_memory(source), registry)
    if isinstance(source, str | Path):
        return load_huggingface(read(source), registry)
    raise CheckpointError(
        "from_huggingface takes a ViTMAE or VideoMAE of transformers, or a path.", got=f"a {type(source).__name__}"
    )


def _in_memory(model: nn.Module) -> Foreign:
    inner = getattr(model, "module", model)  # DataParallel hides the config
    config: Any = getattr(inner, "config", None)
    name = f"{type(inner).__name__} in memory"
    if getattr(config, "model_type", None) not in MODEL_TYPES or not hasattr(config, "to_dict"):
        raise CheckpointError(
            "This model is no ViTMAE, VideoMAE, ViT or DINOv2.",
            where=name,
            expected="ViTMAEForPreTraining, VideoMAEForPreTraining, the Model of either, ViTModel, Dinov2Model or "
            "Dinov2WithRegistersModel, of transformers",
        )
    return replace(cleaned_state(model.state_dict(), name), config=config.to_dict())


def load_huggingface(foreign: Foreign, registry: Registry | None) -> tuple[MaskedAutoencoder, LoadReport]:
    """The model of what was read. Raises CheckpointError, and WeightsMismatch with a report."""
    if foreign.config is not None and foreign.config.get("model_type") == videomae.MODEL_TYPE:
        return videomae.load_huggingface(foreign, registry)
    if foreign.config is not None and foreign.config.get("model_type") in vit.MODEL_TYPES:
        return vit.load_huggingface_vit(foreign, registry)
    config = read_config(foreign, _Config, MODEL_TYPE)
    statistics, notes = statistics_of(foreign.processor, config.num_channels)
    ratio = config.mask_ratio
    if not 0 < ratio < 1:
        notes.append(f"its mask ratio is {ratio:g}, which is no mask; 0.75 is set instead")
        ratio = 0.75
    spec = image_spec(
        size=pair(config.image_size),
        patch=pair(config.patch_size),
        channels=config.num_channels,
        encoder=config.encoder(),
        decoder=config.decoder(),
        normalise_target=config.norm_pix_loss,
        ratio=ratio,
        statistics=statistics,
    )
    model = build(spec, registry, foreign.source)
    foreign = replace(foreign, notes=(*foreign.notes, *notes))
    return model, load_foreign(model, foreign, HUGGINGFACE, without_bias=() if config.qkv_bias else ("qkv",))
