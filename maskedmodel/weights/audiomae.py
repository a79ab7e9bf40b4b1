"""AudioMAE (Huang et al. 2022): its encoder. Its decoder attends in shifted windows, which this engine has not.

Published encoders hold a table of positions that was computed for a grid of 8 x 64 cells while tokens lie on one of
64 x 8 (time x frequency). So each token has a position of its own, but neighbours in time or frequency have no
neighbouring ones. The weights were trained so: the table is taken as it is, and can't be interpolated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maskedmodel.engine.positions import sincos
from maskedmodel.weights.build import Spec, plain
from maskedmodel.weights.foreign import Foreign

SIZE = (1024, 128)  # frames and mel bins of ten seconds
_TOKENS = 512
_DECODER = ("decoder_", "mask_token")


def is_audiomae(foreign: Foreign) -> bool:
    """Whether tensors under MAE's names are AudioMAE's: its own decoder, or one channel and the published positions."""
    tensors = foreign.tensors
    if any(name.endswith((".attn.tau", ".attn.logit_scale")) and name.startswith("decoder_") for name in tensors):
        return True
    embed, table = tensors.get("patch_embed.proj.weight"), tensors.get("pos_embed")
    if embed is None or table is None or table.dim() != 3 or "decoder_embed.weight" in tensors:
        return False
    return embed.dim() == 4 and tuple(embed.shape[1:]) == (1, 16, 16) and table.shape[1] == 1 + _TOKENS


def without_decoder(foreign: Foreign) -> tuple[Foreign, bool]:
    """The tensors without AudioMAE's decoder, which are listed as left out, and whether there was one."""
    if not is_audiomae(foreign):
        return foreign, False
    out = sorted(name for name in foreign.tensors if name.startswith(_DECODER))
    kept = {name: tensor for name, tensor in foreign.tensors.items() if name not in out}
    return replace(foreign, tensors=kept, left_out=(*foreign.left_out, *out)), bool(out)


def spec(encoder: dict[str, Any], size: tuple[int, int], patch: tuple[int, int]) -> Spec:
    """Its encoder over log-mel values, normalised and filled up as published."""
    tokens = {"mels": size[1], "fill_to": size[0], "patch": plain(patch), "statistics": "audioset"}
    return Spec(
        tokenizer=("spectrogram", tokens),
        mask=("uniform", {"ratio": 0.8}),
        objective=("patch", {"normalise": True}),
        encoder=encoder,
        decoder={},
    )


def is_scrambled(table: Tensor, grid: tuple[int, ...]) -> bool:
    """Whether a table (L, D) of positions on a grid is the sine-cosine one of the grid with its axes exchanged."""
    if len(grid) != 2 or grid[0] == grid[1] or table.shape[0] != grid[0] * grid[1]:
        return False
    coords = torch.cartesian_prod(torch.arange(grid[1]), torch.arange(grid[0]))
    return float((table.float() - sincos(coords, table.shape[1])).abs().max()) < 2e-2


def notes(positions: Tensor, decoder: bool) -> list[str]:
    """What a user should know of it. `positions` (1, S + L, D)."""
    told = [
        "taken for AudioMAE: log-mel values of 16 kHz sound, 128 bins, 10 ms apart, normalised with AudioSet's numbers",
    ]
    if positions.shape[1] > _TOKENS and is_scrambled(positions[0, -_TOKENS:], (64, 8)):
        told.append(
            "its positions were computed for a grid of 8 x 64 cells, not of 64 x 8: tokens that are neighbours don't "
            "have neighbouring positions. They are kept as trained, and fit clips of this length only"
        )
    if decoder:
        told.append("its decoder attends in shifted windows, which this engine hasn't: it is left out")
    return told
