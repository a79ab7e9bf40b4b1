"""Foreign weights of any layout we know."""

from __future__ import annotations

from pathlib import Path

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import CheckpointError
from maskedmodel.plugins import Registry
from maskedmodel.weights.facebook import load_facebook
from maskedmodel.weights.foreign import read
from maskedmodel.weights.huggingface import MODEL_TYPES, load_huggingface
from maskedmodel.weights.report import LoadReport
from maskedmodel.weights.videomae import is_videomae, load_videomae
from maskedmodel.weights.vit import is_vit, load_vit


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

    With a config.json of a ViTMAE, VideoMAE, ViT or DINOv2 of transformers it is read as `from_huggingface` does, and
    the other arguments are refused, since that config settles them. Else it is a VideoMAE under its authors' names
    where its tensors have these, is read as `from_timm` does where timm's config is there or the tensors are more than
    MAE's encoder has, and as `from_facebook` does otherwise. Raises CheckpointError, and WeightsMismatch with a report.
    """
    foreign = read(path)
    named = any(name.startswith(("vit.", "videomae.", "embeddings.")) for name in foreign.tensors)
    if named or (foreign.config is not None and foreign.config.get("model_type") in MODEL_TYPES):
        what = "The config.json of these weights says what was given besides."
        _refuse(
            foreign.source, what, heads=heads, decoder_heads=decoder_heads, image_size=image_size, normalise=normalise
        )
        return load_huggingface(foreign, registry)
    if any("vit_backbone." in name for name in foreign.tensors):
        raise CheckpointError(
            "These are weights of CA-MAE (OpenPhenom), whose blocks this engine can't express.",
            where=foreign.source,
            expected="blocks of attention and then an MLP, with biases, queries and keys as they are projected",
            got="attention and MLP in parallel, queries and keys normalised and without biases",
            fix="Train such a model here: the tokenizer channels with model.encoder.channels=false.",
        )
    if is_vit(foreign, image_size):
        _refuse(
            foreign.source,
            "They are an encoder only, without a decoder.",
            decoder_heads=decoder_heads,
            normalise=normalise,
        )
        return load_vit(foreign, heads=heads, image_size=image_size, registry=registry)
    load_original = load_videomae if is_videomae(foreign) else load_facebook
    return load_original(
        foreign,
        heads=heads,
        decoder_heads=decoder_heads,
        image_size=image_size,
        normalise=normalise,
        registry=registry,
    )


def _refuse(source: str, what: str, **arguments: object) -> None:
    """Raise CheckpointError where something was given that has no use for these weights."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise CheckpointError(what, where=source, got=", ".join(given), fix="Leave that out.")
