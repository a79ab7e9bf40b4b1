"""Weights under the names of the MAE reference code: its own files, and those of timm's MAE encoders.

Such a file holds no settings. Sizes are read off the shapes; what no shape tells is an argument.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.settings import PRESETS
from maskedmodel.errors import CheckpointError
from maskedmodel.plugins import Registry
from maskedmodel.weights.build import build, image_spec, mlp_ratio
from maskedmodel.weights.foreign import Foreign, read
from maskedmodel.weights.mapping import FACEBOOK, load_foreign, our_name
from maskedmodel.weights.report import LoadReport, WeightsMismatch

log = logging.getLogger("maskedmodel")

ENCODER_HEADS = {dim: heads for dim, _, heads in PRESETS.values()}
_DECODER_HEADS = {512: 16}
_NEEDED = {
    "patch_embed.proj.weight": "(D, C, p, p)",
    "pos_embed": "(1, 1 + L, D)",
    "blocks.0.mlp.fc1.weight": "(4 D, D)",
}
_NEEDED_BY_DECODER = {"decoder_embed.weight": "(E, D)", "decoder_blocks.0.mlp.fc1.weight": "(4 E, E)"}


def from_facebook(
    path: str | Path,
    *,
    heads: int | None = None,
    decoder_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    normalise: bool | None = None,
    registry: Registry | None = None,
) -> MaskedAutoencoder:
    """Weights under the names of the MAE reference code, as a MaskedAutoencoder in evaluation mode.

    heads           attention heads of the encoder; None: those of the published model of this width.
    decoder_heads   the same for the decoder.
    image_size      pixels, or (height, width); None: square.
    normalise       whether the model predicts patches normalised by their own mean and spread. No file says so but a
                    training checkpoint. Of the published ones, mae_pretrain_*_full.pth do and mae_visualize_*.pth
                    predict raw values. None: what the training arguments or such a name tell, else True with a
                    warning.

    Pictures go in on a scale where white is 1; the model normalises them with ImageNet's numbers. Raises
    CheckpointError where weights are missing or don't fit: none are loaded in part. The published mae_pretrain_*.pth
    without _full hold an encoder only, and of these what needs the decoder refuses.
    """
    return read_facebook(
        path,
        heads=heads,
        decoder_heads=decoder_heads,
        image_size=image_size,
        normalise=normalise,
        registry=registry,
    )[0]


def read_facebook(
    path: str | Path,
    *,
    heads: int | None = None,
    decoder_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    normalise: bool | None = None,
    registry: Registry | None = None,
) -> tuple[MaskedAutoencoder, LoadReport]:
    """As `from_facebook`, with the report of what was found."""
    return load_facebook(
        read(path),
        heads=heads,
        decoder_heads=decoder_heads,
        image_size=image_size,
        normalise=normalise,
        registry=registry,
    )


def load_facebook(
    foreign: Foreign,
    *,
    heads: int | None = None,
    decoder_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    normalise: bool | None = None,
    registry: Registry | None = None,
) -> tuple[MaskedAutoencoder, LoadReport]:
    """The model of what was read. Raises CheckpointError, and WeightsMismatch with a report."""
    tensors, source = foreign.tensors, foreign.source
    decoder_there = any((our_name(name, FACEBOOK) or "").startswith("decoder.") for name in tensors)
    require(foreign, _NEEDED | (_NEEDED_BY_DECODER if decoder_there else {}), FACEBOOK, _advice(tensors))
    convolution = tensors["patch_embed.proj.weight"]
    dim, channels, *patch = convolution.shape
    encoder: dict[str, Any] = {
        "dim": dim,
        "depth": depth_of(tensors, "blocks"),
        "heads": heads_of(dim, heads, ENCODER_HEADS, "heads", source),
        "mlp_ratio": mlp_ratio(dim, tensors["blocks.0.mlp.fc1.weight"].shape[0]),
    }
    decoder: dict[str, Any] = {}
    if decoder_there:
        width = tensors["decoder_embed.weight"].shape[0]
        decoder = {
            "dim": width,
            "depth": depth_of(tensors, "decoder_blocks"),
            "heads": heads_of(width, decoder_heads, _DECODER_HEADS, "decoder_heads", source),
            "mlp_ratio": mlp_ratio(width, tensors["decoder_blocks.0.mlp.fc1.weight"].shape[0]),
        }
    notes = []
    normalised, note = _normalised(foreign, normalise) if decoder_there else (True, None)
    if note is not None:
        notes.append(note)
    statistics = None
    if channels != 3:
        statistics = ([0.0] * channels, [1.0] * channels)
        notes.append(f"how its {channels} channels were normalised isn't known: they are taken as they are")
    length = tensors["pos_embed"].shape[1] - 1  # the class token has a row
    ratio = foreign.arguments.get("mask_ratio", 0.75)
    spec = image_spec(
        size=_size(image_size, length, (patch[0], patch[1]), source),
        patch=(patch[0], patch[1]),
        channels=channels,
        encoder=encoder,
        decoder=decoder,
        normalise_target=normalised,
        ratio=ratio if isinstance(ratio, float) and 0 < ratio < 1 else 0.75,
        statistics=statistics,
    )
    model = build(spec, registry, source)
    foreign = replace(foreign, notes=(*foreign.notes, *notes))
    return model, load_foreign(model, foreign, FACEBOOK, fix=_advice(tensors))


def require(foreign: Foreign, needed: dict[str, str], layout: str, advice: str | None) -> None:
    """Raise WeightsMismatch unless the tensors are there whose shapes, as `needed` has them by name, tell the sizes."""
    tensors = foreign.tensors
    missing = sorted(name for name in needed if name not in tensors)
    wrong = sorted(
        f"{name}: {tuple(tensors[name].shape)} where {shape} is due"
        for name, shape in needed.items()
        if name in tensors and (tensors[name].dim() != shape.count(",") + 1 or 0 in tensors[name].shape)
    )
    if not missing and not wrong:
        return
    unexpected = sorted(name for name in tensors if our_name(name, layout) is None)
    report = LoadReport(
        verdict="mismatched",
        source=foreign.source,
        container=foreign.container,
        layout=layout,
        missing=tuple(missing),
        unexpected=tuple([*unexpected, *foreign.others]),
        mismatched=tuple(wrong),
        notes=foreign.notes,
    )
    raise WeightsMismatch(report, advice)


def _advice(tensors: dict[str, Tensor]) -> str | None:
    """What to do about weights that don't fit, where that can be told."""
    if any(name.startswith(("head.", "fc_norm.")) for name in tensors):
        return "It holds a classifier's head, so it was fine-tuned, its positions too: import the pretrained file."
    prefixes = {name.partition(".")[0] for name in tensors}
    if len(prefixes) == 1 and all("." in name for name in tensors):
        prefix = f"{prefixes.pop()}."
        if any(our_name(name.removeprefix(prefix), FACEBOOK) for name in tensors):
            return f"Every name begins with {prefix!r}: save the tensors again without it."
    return None


def depth_of(tensors: dict[str, Tensor], stack: str) -> int:
    """The number of different blocks: a gap in their numbers then shows up as missing and unexpected names."""
    pattern = re.compile(rf"{stack}\.(\d+)\.")
    return len({match.group(1) for match in map(pattern.match, tensors) if match})


def heads_of(dim: int, given: int | None, known: dict[int, int], argument: str, source: str) -> int:
    """The number of heads given, else that of the published model of this width. Raises CheckpointError."""
    heads = given if given is not None else known.get(dim)
    if heads is None:
        raise CheckpointError(
            f"No file tells the number of attention heads, and no published model is {dim} wide.",
            where=source,
            expected=f"a width of {', '.join(map(str, sorted(known)))}, or {argument}",
            got=dim,
            fix=f"Give {argument}=...: it was set when the model was trained.",
        )
    return heads


def _size(given: int | tuple[int, int] | None, length: int, patch: tuple[int, int], source: str) -> tuple[int, int]:
    if given is not None:
        return (given, given) if isinstance(given, int) else given
    side = math.isqrt(max(length, 0))
    if side < 1 or side * side != length:
        raise CheckpointError(
            "The file doesn't tell the size of the pictures: its tokens fill no square.",
            where=source,
            got=f"{length} tokens of {patch[0]} x {patch[1]} pixels",
            fix="Give image_size=(height, width).",
        )
    return side * patch[0], side * patch[1]


def _normalised(foreign: Foreign, given: bool | None) -> tuple[bool, str | None]:
    """Whether targets are normalised, and a note on how that is known where nobody said so."""
    if given is not None:
        return given, None
    recorded = foreign.arguments.get("norm_pix_loss")
    if isinstance(recorded, bool):
        return recorded, f"norm_pix_loss={recorded} in its training arguments"
    name = Path(foreign.source).name
    for start, end, normalised in (("mae_visualize_", "", False), ("mae_pretrain_", "_full.pth", True)):
        if name.startswith(start) and name.endswith(end):
            kind = "normalised patches" if normalised else "raw values"
            return normalised, f"by its name it is a published file that predicts {kind}"
    note = (
        "nothing tells whether it predicts normalised patches or raw values; normalised is assumed. If pictures look "
        "wrong, import it with normalise=False"
    )
    log.warning("%s: %s.", foreign.source, note)
    return True, note
