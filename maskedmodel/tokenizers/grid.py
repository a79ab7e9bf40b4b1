"""The tokenizer most modalities need: equal boxes along any number of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from maskedmodel.components import S, Tokenizer
from maskedmodel.errors import PluginError, ShapeError
from maskedmodel.pictures import SignalDisplay, bands_of, columns_of, token_pixels
from maskedmodel.tokens import Tokens


class GridTokenizer(Tokenizer[S]):
    """A signal (B, channels, *size) cut into equal boxes along any number of axes.

    A subclass states `axes`. `channels`, `size` and `patch` are read from the settings of these names (`length` for
    `size`, too; one number stands for every axis), or stated as properties. Tokens come in raster order, the last axis
    fastest. `size` is the usual one: any other whose extents divide by the patch is cut as well.

    separate_channels  each channel gives tokens of its own, channel by channel, and `Tokens.channel` names it. A
                       signal may then have any number of channels, unless `channel_count` bounds them.
    channels_last      order of the values in a token: True = the channel runs fastest (MAE, VideoMAE),
                       False = slowest. It decides which published weights fit.

    With `accepts_nan` NaN says that a value is absent: a token of nothing else is padding, and of a token that holds
    some only the rest is scored. Then samples may differ in their extents: a batch is filled up with NaN.
    """

    separate_channels: bool = False
    channels_last: bool = True

    def __init__(self, settings: S | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        if not len(self.axes) == len(self.size) == len(self.patch):
            raise ShapeError(
                f"{type(self).__name__} needs one size and one patch extent per axis.",
                expected=f"{len(self.axes)} each, for {self.axes}",
                got=f"size {self.size}, patch {self.patch}",
            )
        self._grid(self.size)  # refuses a size that the patch doesn't divide, before anything is trained
        self.token_width = math.prod(self.patch) * (1 if self.separate_channels else self.channels)
        self.channel_count = self.channels if self.separate_channels else 0

    @property
    def channels(self) -> int:
        """Channels of a signal. Default: the setting `channels`."""
        return int(self._setting("channels"))

    @property
    def size(self) -> tuple[int, ...]:
        """Usual extents of a signal along the axes, in samples or pixels. Default: the setting `size` or `length`."""
        return self._per_axis(self._setting("size", "length"))

    @property
    def patch(self) -> tuple[int, ...]:
        """Extents of a token along the axes, in samples or pixels. Default: the setting `patch`."""
        return self._per_axis(self._setting("patch"))

    def _setting(self, *names: str) -> Any:
        for name in names:
            if name in type(self.settings).model_fields:
                return getattr(self.settings, name)
        raise PluginError(
            f"Tokenizer {type(self).__name__} doesn't say its {names[0]}.",
            expected=f"a setting called {' or '.join(names)}, or a property {names[0]}",
            got=f"the settings {', '.join(type(self.settings).model_fields)}",
        )

    def _per_axis(self, extents: Any) -> tuple[int, ...]:
        return (extents,) * len(self.axes) if isinstance(extents, int) else tuple(extents)

    @property
    def extents(self) -> tuple[int, ...]:
        return self._grid(self.size)

    def _grid(self, size: Sequence[int]) -> tuple[int, ...]:
        for axis, extent, patch in zip(self.axes, size, self.patch, strict=True):
            if patch < 1 or extent < patch or extent % patch:
                below = max(extent // max(patch, 1), 1) * patch
                raise ShapeError(
                    f"The {axis} doesn't divide by the patch.",
                    expected=f"a multiple of {patch}; nearest: {below} or {below + patch}",
                    got=extent,
                    fix=f"Resize or pad the {axis}, or choose another patch.",
                )
        return tuple(extent // patch for extent, patch in zip(size, self.patch, strict=True))

    def _layout(self) -> tuple[str, str]:
        """The einops sides of signal and tokens: g0 g1 ... count cells along the axes, p0 p1 ... values inside one."""
        cells = " ".join(f"g{axis}" for axis in range(len(self.axes)))
        inside = cells.replace("g", "p")
        signal = "b c " + " ".join(f"(g{axis} p{axis})" for axis in range(len(self.axes)))
        if self.separate_channels:
            return signal, f"b (c {cells}) ({inside})"
        return signal, f"b ({cells}) ({inside} c)" if self.channels_last else f"b ({cells}) (c {inside})"

    def tokenize(self, signal: Tensor) -> Tokens:
        most = self.channel_count if self.separate_channels else self.channels
        channels = signal.shape[1] if signal.dim() > 1 else 0
        fits = 0 < channels <= (most or channels) if self.separate_channels else channels == most
        if signal.dim() != 2 + len(self.axes) or not fits:
            count = ("1 or more" if not most else f"1 to {most}") if self.separate_channels else most
            raise ShapeError(
                f"Tokenizer {self.component_name()!r} can't cut this signal.",
                expected=f"(batch, {count} channels, {', '.join(self.axes)})",
                got=tuple(signal.shape),
            )
        grid, values = self._grid(signal.shape[2:]), self.cut(signal)
        coords = torch.cartesian_prod(*(torch.arange(n, device=signal.device) for n in grid)).reshape(-1, len(grid))
        channel = None
        if self.separate_channels:
            channel = torch.arange(channels, device=signal.device).repeat_interleave(coords.shape[0])
            coords = coords.repeat(channels, 1)
        tokens = Tokens(values, coords, self.axes, grid, channel)
        return tokens.without_nan() if self.accepts_nan else tokens

    def cut(self, signal: Tensor) -> Tensor:
        """What belongs to a signal's values, (B, C, *size) of any type, as it stands in its tokens, (B, L, P)."""
        before, after = self._layout()
        patch = {f"p{axis}": extent for axis, extent in enumerate(self.patch)}
        return rearrange(signal, f"{before} -> {after}", **patch)

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        assert like.grid is not None, "a GridTokenizer's tokens fill a grid"
        if self.accepts_nan:
            values = like.absent_as_nan(values)
        before, after = self._layout()
        cells = {f"g{axis}": count for axis, count in enumerate(like.grid)}
        patch = {f"p{axis}": extent for axis, extent in enumerate(self.patch)}
        return rearrange(values, f"{after} -> {before}", **cells, **patch)

    def collate(self, signals: Sequence[Tensor]) -> Tensor:
        """One batch out of samples. With `accepts_nan` they may differ in their extents, and are filled up with NaN."""
        if not self.accepts_nan or len({tuple(signal.shape) for signal in signals}) == 1:
            return super().collate(signals)
        dims = {signal.dim() for signal in signals}
        if dims != {1 + len(self.axes)}:
            raise ShapeError(
                "The samples of a batch differ in their number of dimensions.",
                expected=f"(channels, {', '.join(self.axes)})",
                got=", ".join(map(str, sorted(dims))),
            )
        most = [max(extents) for extents in zip(*(signal.shape for signal in signals), strict=True)]
        kind = signals[0].dtype if signals[0].is_floating_point() else torch.float32
        batch = torch.full((len(signals), *most), torch.nan, dtype=kind)
        for row, signal in zip(batch, signals, strict=True):
            row[tuple(slice(extent) for extent in signal.shape)] = signal
        return batch

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """Smooth random signals: white noise at up to eight points along each axis, interpolated.

        They change slowly, so that what is hidden can be learnt from what is visible.
        """
        coarse = [min(max(extent // 4, 1), 8) for extent in self.size]
        flat = torch.randn(batch, self.channels, math.prod(coarse), generator=generator)
        signal = flat.reshape(batch, self.channels, *coarse)
        for axis, extent in enumerate(self.size):
            signal = _stretch(signal, 2 + axis, extent)
        return signal

    def footprint(self, tokens: Tokens, chosen: Tensor) -> Tensor | None:
        """Where tokens stand under the lines of the default picture of one axis; else as of any tokenizer."""
        if len(self.axes) != 1 or type(self).picture is not SignalDisplay.picture or tokens.grid is None:
            return super().footprint(tokens, chosen)
        cells, columns = tokens.grid[0], columns_of(tokens.grid[0] * self.patch[0])
        if self.separate_channels:
            return token_pixels(chosen.reshape(tokens.batch, -1, cells), self.patch[0], columns)
        every = chosen[:, None].expand(-1, bands_of(self.channels)[0], -1)
        return token_pixels(every, self.patch[0], columns)


def _stretch(signal: Tensor, dim: int, extent: int) -> Tensor:
    """Linear interpolation along one dimension, ends kept."""
    position = torch.linspace(0, signal.shape[dim] - 1, extent)
    low = position.long().clamp(max=max(signal.shape[dim] - 2, 0))
    high = (low + 1).clamp(max=signal.shape[dim] - 1)
    weight = (position - low).reshape([-1 if d == dim else 1 for d in range(signal.dim())])
    return signal.index_select(dim, low) * (1 - weight) + signal.index_select(dim, high) * weight
