"""What the config.json of a vision model of the transformers library says, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskedmodel.errors import CheckpointError
from maskedmodel.weights.build import Statistics, mlp_ratio
from maskedmodel.weights.foreign import Foreign

_MOST = 1 << 16  # a bound on every size, so that a broken config can't ask for a model that fills the machine


def size(default: int) -> Any:
    """A field for a width or a count."""
    return Field(default, gt=0, le=_MOST)


class VisionConfig(BaseModel):
    """The settings that ViTMAE and VideoMAE share and that matter here, with the library's defaults."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    hidden_size: int = size(768)
    num_hidden_layers: int = Field(12, gt=0, le=1000)
    num_attention_heads: int = size(12)
    intermediate_size: int = size(3072)
    hidden_act: str = "gelu"
    layer_norm_eps: float = Field(1e-12, gt=0)
    image_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    num_channels: int = size(3)
    decoder_hidden_size: int = size(512)
    decoder_num_hidden_layers: int = Field(8, gt=0, le=1000)
    decoder_num_attention_heads: int = size(16)
    decoder_intermediate_size: int = size(2048)

    def encoder(self) -> dict[str, Any]:
        """Settings of our encoder."""
        return {
            "dim": self.hidden_size,
            "depth": self.num_hidden_layers,
            "heads": self.num_attention_heads,
            "mlp_ratio": mlp_ratio(self.hidden_size, self.intermediate_size),
            "norm_eps": self.layer_norm_eps,
        }

    def decoder(self) -> dict[str, Any]:
        """Settings of our decoder."""
        return {
            "dim": self.decoder_hidden_size,
            "depth": self.decoder_num_hidden_layers,
            "heads": self.decoder_num_attention_heads,
            "mlp_ratio": mlp_ratio(self.decoder_hidden_size, self.decoder_intermediate_size),
            "norm_eps": self.layer_norm_eps,
        }


C = TypeVar("C", bound=VisionConfig)


def read_config(foreign: Foreign, kind: type[C], model_type: str) -> C:
    """The config of what was read. Raises CheckpointError where it is missing, of another model, or unusable."""
    given = foreign.config
    if given is None:
        raise CheckpointError(
            "These weights have no config.json beside them.",
            where=foreign.source,
            fix="Put the model's config.json into the same folder; for weights under facebook's names, use "
            "from_facebook.",
        )
    if given.get("model_type") != model_type:
        raise CheckpointError(
            "The config.json is of another kind of model.",
            where=foreign.source,
            expected=model_type,
            got=given.get("model_type"),
        )
    try:
        config = kind.model_validate(given)
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


def statistics_of(processor: Mapping[str, Any], channels: int) -> tuple[Statistics | None, list[str]]:
    """What pictures are normalised with: what the processor says, else ImageNet's numbers for 3 channels."""
    if processor.get("do_normalize") is False:
        return ([0.0] * channels, [1.0] * channels), []
    mean, std = processor.get("image_mean"), processor.get("image_std")
    if isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == channels:
        return (mean, std), []
    if channels == 3:
        return None, ["pictures are normalised with ImageNet's numbers, as published models are"]
    note = f"how its {channels} channels were normalised isn't known: they are taken as they are"
    return ([0.0] * channels, [1.0] * channels), [note]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width)."""
    return (value, value) if isinstance(value, int) else value
