"""An image model of given sizes, made of the registry's components, for foreign weights to go into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import CheckpointError
from maskedmodel.noise import seeded
from maskedmodel.plugins import Registry, load_registry


@dataclass(frozen=True)
class ImageSpec:
    """What must be known to build a masked autoencoder of images.

    size, patch   (height, width) in pixels.
    statistics    mean and spread of each channel that pictures are normalised with; None = ImageNet's.
    """

    size: tuple[int, int]
    patch: tuple[int, int]
    channels: int
    encoder: dict[str, Any]
    decoder: dict[str, Any]
    normalise_target: bool
    ratio: float = 0.75
    statistics: tuple[Sequence[float], Sequence[float]] | None = None


def build(spec: ImageSpec, registry: Registry | None, where: str) -> MaskedAutoencoder:
    """The model in evaluation mode, random weights, the same each time; the global generator isn't touched.

    Raises CheckpointError where the sizes make no model, PluginError where a component isn't installed.
    """
    registry = registry if registry is not None else load_registry()
    image = registry.get("tokenizer", "image")
    uniform = registry.get("mask_scheduler", "uniform")
    patch = registry.get("objective", "patch")
    normalise: Any = "imagenet"
    if spec.statistics is not None:
        normalise = {"mean": tuple(spec.statistics[0]), "std": tuple(spec.statistics[1])}
    try:
        settings = ModelSettings(encoder=EncoderSettings(**spec.encoder), decoder=DecoderSettings(**spec.decoder))
        tokenizer = image(size=_plain(spec.size), patch=_plain(spec.patch), channels=spec.channels, normalise=normalise)
        scheduler, objective = uniform(ratio=spec.ratio), patch(normalise=spec.normalise_target)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'settings'}: {detail['msg']}" for detail in error.errors()
        )
        raise CheckpointError("The sizes of these weights make no model.", where=where, got=problems) from error
    with seeded(0):
        return MaskedAutoencoder(tokenizer, scheduler, objective, settings).eval()


def _plain(pair: tuple[int, int]) -> int | tuple[int, int]:
    return pair[0] if pair[0] == pair[1] else pair


def mlp_ratio(dim: int, hidden: int) -> float:
    """The `mlp_ratio` by which a block of width `dim` gets exactly `hidden` values in its hidden layer."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else (hidden + 0.5) / dim
