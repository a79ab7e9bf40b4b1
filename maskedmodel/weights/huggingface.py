"""Masked autoencoders of the transformers library: ViTMAEForPreTraining, and ViTMAEModel (its encoder)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import CheckpointError
from maskedmodel.plugins import Registry
from maskedmodel.weights.build import ImageSpec, build, mlp_ratio
from maskedmodel.weights.foreign import Foreign, cleaned_state, read
from maskedmodel.weights.mapping import HUGGINGFACE, load_foreign
from maskedmodel.weights.report import LoadReport

MODEL_TYPE = "vit_mae"
_MOST = 1 << 16  # a bound on every size, so that a broken config can't ask for a model that fills the machine


def _size(default: int) -> Any:
    return Field(default, gt=0, le=_MOST)


class _Config(BaseModel):
    """The settings of a ViTMAE that matter here, with the defaults of ViTMAEConfig."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    hidden_size: int = _size(768)
    num_hidden_layers: int = Field(12, gt=0, le=1000)
    num_attention_heads: int = _size(12)
    intermediate_size: int = _size(3072)
    hidden_act: str = "gelu"
    layer_norm_eps: float = Field(1e-12, gt=0)
    image_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    num_channels: int = _size(3)
    qkv_bias: bool = True
    decoder_hidden_size: int = _size(512)
    decoder_num_hidden_layers: int = Field(8, gt=0, le=1000)
    decoder_num_attention_heads: int = _size(16)
    decoder_intermediate_size: int = _size(2048)
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False


def from_huggingface(model_or_folder: object, *, registry: Registry | None = None) -> MaskedAutoencoder:
    """A ViTMAE of the transformers library as a MaskedAutoencoder in evaluation mode.

    model_or_folder   a ViTMAEForPreTraining; a ViTMAEModel, which is an encoder only; a folder with config.json and
                      weights; or a weights file beside its config.json. Nothing is downloaded.

    Pictures go in on a scale where white is 1; the model normalises them itself. Raises CheckpointError where weights
    are missing or don't fit: none are loaded in part. Of encoder-only weights, what needs the decoder refuses.
    """
    return read_huggingface(model_or_folder, registry=registry)[0]


def read_huggingface(source: object, *, registry: Registry | None = None) -> tuple[MaskedAutoencoder, LoadReport]:
    """As `from_huggingface`, with the report of what was found."""
    if isinstance(source, nn.Module):
        return load_huggingface(_in_memory(source), registry)
    if isinstance(source, str | Path):
        return load_huggingface(read(source), registry)
    raise CheckpointError(
        "from_huggingface takes a ViTMAE of transformers, or a path.", got=f"a {type(source).__name__}"
    )


def _in_memory(model: nn.Module) -> Foreign:
    inner = getattr(model, "module", model)  # DataParallel hides the config
    config: Any = getattr(inner, "config", None)
    name = f"{type(inner).__name__} in memory"
    if getattr(config, "model_type", None) != MODEL_TYPE or not hasattr(config, "to_dict"):
        raise CheckpointError(
            "This model is no ViTMAE.", where=name, expected="ViTMAEForPreTraining or ViTMAEModel of transformers"
        )
    return replace(cleaned_state(model.state_dict(), name), config=config.to_dict())


def load_huggingface(foreign: Foreign, registry: Registry | None) -> tuple[MaskedAutoencoder, LoadReport]:
    """The model of what was read. Raises CheckpointError, and WeightsMismatch with a report."""
    config = _config(foreign)
    encoder = {
        "dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "mlp_ratio": mlp_ratio(config.hidden_size, config.intermediate_size),
        "norm_eps": config.layer_norm_eps,
    }
    decoder = {
        "dim": config.decoder_hidden_size,
        "depth": config.decoder_num_hidden_layers,
        "heads": config.decoder_num_attention_heads,
        "mlp_ratio": mlp_ratio(config.decoder_hidden_size, config.decoder_intermediate_size),
        "norm_eps": config.layer_norm_eps,
    }
    statistics, notes = _statistics(foreign.processor, config.num_channels)
    ratio = config.mask_ratio
    if not 0 < ratio < 1:
        notes.append(f"its mask ratio is {ratio:g}, which is no mask; 0.75 is set instead")
        ratio = 0.75
    spec = ImageSpec(
        size=_pair(config.image_size),
        patch=_pair(config.patch_size),
        channels=config.num_channels,
        encoder=encoder,
        decoder=decoder,
        normalise_target=config.norm_pix_loss,
        ratio=ratio,
        statistics=statistics,
    )
    model = build(spec, registry, foreign.source)
    foreign = replace(foreign, notes=(*foreign.notes, *notes))
    return model, load_foreign(model, foreign, HUGGINGFACE, qkv_bias=config.qkv_bias)


def _config(foreign: Foreign) -> _Config:
    given = foreign.config
    if given is None:
        raise CheckpointError(
            "These weights have no config.json beside them.",
            where=foreign.source,
            fix="Put the model's config.json into the same folder; for weights under facebook's names, use "
            "from_facebook.",
        )
    if given.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            "The config.json is of another kind of model.",
            where=foreign.source,
            expected=MODEL_TYPE,
            got=given.get("model_type"),
        )
    try:
        config = _Config.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors())
        raise CheckpointError("The config.json can't be used.", where=foreign.source, got=problems) from error
    if config.hidden_act != "gelu":
        raise CheckpointError(
            "Its blocks have another activation than ours.",
            where=foreign.source,
            expected="hidden_act: gelu",
            got=config.hidden_act,
        )
    return config


def _statistics(
    processor: Mapping[str, Any], channels: int
) -> tuple[tuple[list[float], list[float]] | None, list[str]]:
    """What pictures are normalised with: what the image processor says, else ImageNet's numbers for 3 channels."""
    if processor.get("do_normalize") is False:
        return ([0.0] * channels, [1.0] * channels), []
    mean, std = processor.get("image_mean"), processor.get("image_std")
    if isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == channels:
        return (mean, std), []
    if channels == 3:
        return None, ["pictures are normalised with ImageNet's numbers, as published models are"]
    note = f"how its {channels} channels were normalised isn't known: they are taken as they are"
    return ([0.0] * channels, [1.0] * channels), [note]


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
