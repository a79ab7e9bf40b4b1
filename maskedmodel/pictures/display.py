"""The display half of a tokenizer: each method has a default that can be read for signals of any layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from maskedmodel.pictures.lines import draw_lines, line_scales
from maskedmodel.pictures.scales import Scales, heat
from maskedmodel.tokens import Tokens

MOST_TILES = 16  # of a montage: further channels and slices are too small to be read


class SignalDisplay:
    """How a tokenizer's signals are shown to people. Nothing here has a say in training.

    Attributes:
        channel_names: what the data at hand calls its channels, by their numbers; set by whoever draws that data.
        leaves_out: whether hidden tokens are left out of pictures instead of drawn in grey, as of points, which fill no
            grid. `detokenize` then gives NaN for tokens that `Tokens.valid` says aren't there, and `picture` draws no
            NaN.
    """

    channel_names: Sequence[str] = ()
    leaves_out: bool = False

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        """(B, 3, height, width) in [0, 1] for people to look at, on the colour scale that `like` (B, ...) would have.

        A picture of a reconstruction is given the original as `like`, so that the two can be compared. NaN is drawn in
        the grey of `ABSENT`. Default, by the number of dimensions: (B, T) and (B, channels, T) are lines over time;
        (B, channels, H, W) and (B, channels, D, H, W) are heat maps, channels and evenly spread slices beside each
        other, all of a sample on the scale of `like`.
        """
        signal = signal.detach().float()
        like = signal if like is None else like.detach().float()
        if signal.dim() <= 3:
            return draw_lines(_bands(signal), _bands(like))
        low = like.nan_to_num(torch.inf).flatten(1).amin(1)[:, None, None]
        high = like.nan_to_num(-torch.inf).flatten(1).amax(1)[:, None, None]
        level = (montage(signal) - low) / (high - low).clamp(min=1e-12)
        return heat(level)

    def scales(self, signal: Tensor) -> Scales:
        """What the sides of `picture(signal)` mean. Default: time in steps under lines, else nothing is said."""
        return line_scales(_bands(signal).shape[1], signal.shape[-1]) if signal.dim() <= 3 else Scales()

    def footprint(self, tokens: Tokens, chosen: Tensor) -> Tensor | None:
        """(B, height, width) bool: the pixels of a picture that show tokens `chosen` (B, L) alone.

        Default, None: it is found by changing values and watching which pixels change. Give it where a picture isn't
        made of pixels that each show a value, as a line plot isn't.
        """
        return None

    def media(self, signals: Mapping[str, Tensor]) -> dict[str, bytes]:
        """Files that show one sample in time, by name: {"original.wav": ..., "reconstruction.wav": ...}. Default: none.

        `signals` holds "original", "masked", "reconstruction" and "pasted" (visible parts pasted in), each with a
        batch of one.
        """
        return {}

    def plain_features(self, stored: Tensor) -> dict[str, Tensor]:
        """Features (B, W) that an encoder has to beat, by name, of a batch as stored, before `prepare`. Default: none.

        Such as {"mean intensities": ...}. They stand in the table of a probe, beside the raw values.
        """
        return {}


def _bands(signal: Tensor) -> Tensor:
    """(B, V, T) of (B,), (B, T) or (B, V, T)."""
    return signal.reshape(len(signal), 1, -1) if signal.dim() < 3 else signal


def montage(signal: Tensor) -> Tensor:
    """(B, height, width) of (B, ..., H, W): up to 16 tiles beside and below each other, evenly spread over the rest.

    Between the tiles runs a line of NaN, one value wide.
    """
    tiles = signal.flatten(1, -3)
    count = tiles.shape[1]
    if count > MOST_TILES:
        tiles = tiles[:, torch.linspace(0, count - 1, MOST_TILES).round().long().to(signal.device)]
        count = MOST_TILES
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    height, width = tiles.shape[-2:]
    sheet = tiles.new_full((len(tiles), down * (height + 1), across * (width + 1)), torch.nan)
    for number in range(count):
        top, left = number // across * (height + 1), number % across * (width + 1)
        sheet[:, top : top + height, left : left + width] = tiles[:, number]
    return sheet[:, :-1, :-1]
