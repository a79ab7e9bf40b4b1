"""Encoders of others, as `maskedmodel probe --encoder` names them: folders, or functions from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import Tokenizer
from maskedmodel.config.sections import RunConfig
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import ConfigError
from maskedmodel.evaluation import foreign
from maskedmodel.evaluation.encoders import Encoder, Look, of_callable, of_model
from maskedmodel.evaluation.probes import random_twin
from maskedmodel.files import path_of
from maskedmodel.plugins import Registry
from maskedmodel.weights.read import read_weights
from maskedmodel.weights.runs import load_pretrained

Given = str | Path | Callable[[Tensor], Tensor]
_OURS = ("vit_mae", "videomae")  # of transformers: these mask even when they are asked for features


def named(given: Given | Sequence[Given] | Mapping[str, Given]) -> dict[str, Given]:
    """What was given, by name: as said, else the folder's or the function's."""
    if isinstance(given, Mapping):
        return dict(given)
    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    found: dict[str, Given] = {}
    for one in listed:
        name = path_of(one).resolve().name if isinstance(one, str | Path) else _called(one)
        if name in found:
            raise ConfigError("Two encoders have the same name.", got=name, fix='From Python give {"name": encoder}.')
        found[name] = one
    return found


def _called(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)


def opened(
    given: Given | Sequence[Given] | Mapping[str, Given],
    tokenizer: Tokenizer[Any],
    config: RunConfig,
    device: torch.device,
    registry: Registry,
) -> list[Encoder]:
    """The encoders, each folder's beside the same architecture with random weights."""
    found: list[Encoder] = []
    seed, pool = config.train.seed, config.evaluate.pool
    for name, one in named(given).items():
        if not isinstance(one, str | Path):
            found.append(of_callable(one, name))
            continue
        folder = path_of(one)
        known = foreign.kind_of(folder) if folder.is_dir() else None
        if (folder / "config.yaml").is_file():
            found += _ours(load_pretrained(folder, registry=registry), name, tokenizer, pool, seed, device)
        elif known is not None and known[1].get("model_type") in _OURS:
            found += _ours(read_weights(folder, registry=registry)[0], name, tokenizer, pool, seed, device)
        else:
            found += foreign.open_encoders(folder, tokenizer, pool, seed, device, name=name)
    return found


def _ours(
    model: MaskedAutoencoder, name: str, tokenizer: Tokenizer[Any], pool: Any, seed: int, device: torch.device
) -> list[Encoder]:
    """A model of our own on pictures that another tokenizer prepared."""
    foreign.require_pictures(tokenizer, name)
    foreign.require_pictures(model.tokenizer, name)
    own: Any = model.tokenizer
    size, channels = (int(own.size[0]), int(own.size[1])), int(own.channels)
    pooled = "mean over the tokens" if pool == "mean" else "class token"
    about = f"{foreign.described(size)}, {pooled} after its final LayerNorm."
    found = []
    for label, one, said in (
        (name, model, about),
        (f"{name}, {foreign.RANDOM}", random_twin(model, seed), ""),
    ):
        found.append(_adapted(one.to(device), label, size, channels, pool, said))
    return found


def _adapted(
    model: MaskedAutoencoder, name: str, size: tuple[int, int], channels: int, pool: Any, about: str
) -> Encoder:
    inner = of_model(model, name, pool)

    def look(signal: Tensor, layers: bool) -> Look:
        assert inner.look is not None
        return inner.look(foreign.fitted(signal, size, channels), layers)

    return Encoder(name, lambda signal: inner.embed(foreign.fitted(signal, size, channels)), look, (model,), about)
