"""A model of given sizes, made of the registry's components, for foreign weights to go into."""

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

Statistics = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Spec:
    """What must be known to build a masked autoencoder: the components by name with their settings, and the sizes."""

    tokenizer: tuple[str, dict[str, Any]]
    mask: tuple[str, dict[str, Any]]
    objective: tuple[str, dict[str, Any]]
    encoder: dict[str, Any]
    decoder: dict[str, Any]


def image_spec(
    *,
    size: tuple[int, int],
    patch: tuple[int, int],
    channels: int,
    encoder: dict[str, Any],
    decoder: dict[str, Any],
    normalise_target: bool,
    ratio: float = 0.75,
    statistics: Statistics | None = None,
) -> Spec:
    """A masked autoencoder of images (MAE).

    size, patch   (height, width) in pixels.
    statistics    mean and spread of each channel that pictures are normalised with; None = ImageNet's.
    """
    sizes = {"size": plain(size), "patch": plain(patch), "channels": channels}
    return Spec(
        tokenizer=("image", sizes | {"normalise": normalise(statistics)}),
        mask=("uniform", {"ratio": ratio}),
        objective=("patch", {"normalise": normalise_target}),
        encoder=encoder,
        decoder=decoder,
    )


def normalise(statistics: Statistics | None) -> Any:
    """The setting `normalise` of a tokenizer of pictures."""
    return "imagenet" if statistics is None else {"mean": tuple(statistics[0]), "std": tuple(statistics[1])}


def build(spec: Spec, registry: Registry | None, where: str) -> MaskedAutoencoder:
    """The model in evaluation mode, random weights, the same each time; the global generator isn't touched.

    Raises CheckpointError where the sizes make no model, PluginError where a component isn't installed.
    """
    registry = registry if registry is not None else load_registry()
    make_tokenizer = registry.get("tokenizer", spec.tokenizer[0])
    make_scheduler = registry.get("mask_scheduler", spec.mask[0])
    make_objective = registry.get("objective", spec.objective[0])
    try:
        settings = ModelSettings(encoder=EncoderSettings(**spec.encoder), decoder=DecoderSettings(**spec.decoder))
        tokenizer = make_tokenizer(**spec.tokenizer[1])
        scheduler, objective = make_scheduler(**spec.mask[1]), make_objective(**spec.objective[1])
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'settings'}: {detail['msg']}" for detail in error.errors()
        )
        raise CheckpointError("The sizes of these weights make no model.", where=where, got=problems) from error
    with seeded(0):
        return MaskedAutoencoder(tokenizer, scheduler, objective, settings).eval()


def plain(pair: tuple[int, int]) -> int | tuple[int, int]:
    """One number for a square."""
    return pair[0] if pair[0] == pair[1] else pair


def mlp_ratio(dim: int, hidden: int) -> float:
    """The `mlp_ratio` by which a block of width `dim` gets exactly `hidden` values in its hidden layer."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else (hidden + 0.5) / dim
