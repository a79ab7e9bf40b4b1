"""Foreign weights of any layout we know."""

from __future__ import annotations

from pathlib import Path

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import CheckpointError
from maskedmodel.plugins import Registry
from maskedmodel.weights.facebook import load_facebook
from maskedmodel.weights.foreign import read
from maskedmodel.weights.huggingface import MODEL_TYPE, load_huggingface
from maskedmodel.weights.report import LoadReport


def read_weights(
    path: str | Path,
    *,
    heads: int | None = None,
    decoder_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    normalise: bool | None = None,
    registry: Registry | None = None,
) -> tuple[MaskedAutoencoder, LoadReport]:
    """The model in a file or folder, and the report of what was found.

    With a config.json of a ViTMAE it is read as `from_huggingface` does, and the other arguments are refused, since
    that config settles them; else as `from_facebook` does. Raises CheckpointError, and WeightsMismatch with a report.
    """
    foreign = read(path)
    named = any(name.startswith(("vit.", "embeddings.")) for name in foreign.tensors)
    if named or (foreign.config is not None and foreign.config.get("model_type") == MODEL_TYPE):
        arguments = {
            "heads": heads,
            "decoder_heads": decoder_heads,
            "image_size": image_size,
            "normalise": normalise,
        }
        given = [name for name, value in arguments.items() if value is not None]
        if given:
            raise CheckpointError(
                "The config.json of these weights says what was given besides.",
                where=foreign.source,
                got=", ".join(given),
                fix="Leave that out.",
            )
        return load_huggingface(foreign, registry)
    return load_facebook(
        foreign,
        heads=heads,
        decoder_heads=decoder_heads,
        image_size=image_size,
        normalise=normalise,
        registry=registry,
    )
