"""The `series` tokenizer: any number of variates, each cut into patches of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import Noise, Settings, Tokenizer, Tokens
from maskedmodel.errors import DataError, ShapeError
from maskedmodel.pictures import Scales, columns_of, draw_lines, line_scales, token_pixels
from maskedmodel_timeseries.statistics import filled, mean_and_std, mean_spread_features


class SeriesSettings(Settings):
    """Settings of the `series` tokenizer."""

    name: Literal["series"] = "series"
    length: PositiveInt = Field(512, description="Usual length of a window, in time steps. Divides by the patch.")
    patch: PositiveInt = Field(16, description="Length of a token, in time steps.")
    variates: PositiveInt = Field(
        1,
        description="Usual number of variates in a sample. Above 1 the model tells them apart by a learned embedding. "
        "1: it knows a single series, and a forecast takes each variate alone.",
    )
    normalise: Literal["instance", "none"] = Field(
        "instance",
        description="instance: each variate of a window less its mean, over its standard deviation, both of the "
        "observed values before the horizon, but at least the floor. none: as the data source gives it.",
    )
    horizon: int = Field(
        0,
        ge=0,
        description="Steps at the end of a window that its statistics leave out: the longest horizon that masks hide, "
        "so that what is hidden never shows in how the rest is normalised.",
    )

    floor: float = Field(
        0.1,
        ge=0,
        description="Least spread that a window is divided by, as a share of its variate's spread over the training "
        "windows, which is measured once and stored with the run: a history that is nearly constant would else make "
        "what follows it arbitrarily large. 0: none.",
    )

    @model_validator(mode="after")
    def _room_for_history(self) -> SeriesSettings:
        if self.horizon >= self.length:
            raise ValueError(f"horizon {self.horizon} leaves nothing of a window of {self.length} steps")
        return self


class SeriesTokenizer(Tokenizer[SeriesSettings]):
    """Tokens (variate, time patch) of signals (B, V, T), variate by variate; `Tokens.channel` is the variate.

    Time is counted from the present: the last token of a usual window has the coordinate length / patch - 1, whatever
    came before it. So a shorter history, or one filled up with NaN on the left, gives the same tokens at the same
    places. A longer one reaches below zero.

    NaN is a missing value: it is neither seen nor scored. A patch of nothing else is padding.

    Buffers `spread` (variates,) float32, that of each variate over the training windows, and `fitted`. Where the
    settings ask for a floor, `prepare` normalises once they were measured; before, it gives values as they are stored.
    """

    axes = ("time",)
    spread: Tensor
    fitted: Tensor
    accepts_nan = True

    def __init__(self, settings: SeriesSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.token_width = self.settings.patch
        self.channel_count = self.settings.variates
        self.register_buffer("spread", torch.zeros(self.settings.variates))
        self.register_buffer("fitted", torch.tensor(not self._measures))
        self._ready = not self._measures
        self._cells(self.settings.length)  # refuses a length that the patch doesn't divide, before anything is trained

    @property
    def _measures(self) -> bool:
        return self.settings.normalise == "instance" and self.settings.floor > 0

    @property
    def needs_statistics(self) -> bool:
        """True where a floor is asked for, until the spreads were measured or loaded with a run."""
        if not self._ready:  # the buffer is read only until it says yes: a GPU would wait for it in every step
            self._ready = bool(self.fitted)
        return not self._ready

    def fit_statistics(self, signals: Iterable[Tensor]) -> None:
        """The spread of each variate over training windows as they are stored; with `variates: 1` of all together."""
        if not self._measures:
            return
        variates = self.settings.variates
        count, total, squares = (torch.zeros(variates, dtype=torch.float64) for _ in range(3))
        centre: Tensor | None = None  # of the first window, so that squares of large values don't cancel
        for signal in signals:
            values = signal.double().cpu()
            values = values.transpose(0, 1).flatten(1)[:variates] if variates > 1 else values.flatten()[None]
            centre = values.nanmean(1, keepdim=True).nan_to_num(0) if centre is None else centre
            away = (values - centre).nan_to_num(0)
            own = slice(len(values))
            count[own] += (~values.isnan()).sum(1)
            total[own] += away.sum(1)
            squares[own] += away.square().sum(1)
        most = count.clamp(min=1)
        self.spread.copy_((squares / most - (total / most).square()).clamp(min=0).sqrt())
        self.fitted.fill_(True)
        self._ready = True

    @property
    def extents(self) -> tuple[int]:
        return (self.settings.length // self.settings.patch,)

    def _cells(self, steps: int) -> int:
        patch = self.settings.patch
        if steps < patch or steps % patch:
            below = max(steps // patch, 1) * patch
            raise ShapeError(
                "The length in time doesn't divide by the patch.",
                expected=f"a multiple of {patch} steps; nearest: {below} or {below + patch}",
                got=steps,
                fix="Call prepare first, which fills up on the left, or choose another patch or window.",
            )
        return steps // patch

    def tokenize(self, signal: Tensor) -> Tokens:
        if signal.dim() != 3 or not signal.is_floating_point() or signal.shape[1] < 1:
            raise ShapeError(
                "Tokenizer 'series' can't cut this signal.",
                expected="(batch, variates, time) in floating point",
                got=f"{tuple(signal.shape)} {signal.dtype}",
            )
        if self.needs_statistics:
            raise DataError(
                "The spreads that normalised windows are held against haven't been measured.",
                expected="fit_statistics(...) or the weights of a run before tokenize(...), since there is a floor",
                fix="Call fit_statistics with stored windows, load a run, or set tokenizer.floor=0.",
            )
        variates, cells, usual = signal.shape[1], self._cells(signal.shape[2]), self.extents[0]
        values = rearrange(signal, "b v (n p) -> b (v n) p", p=self.settings.patch)
        time = torch.arange(cells, device=signal.device) + (usual - cells)
        channel = torch.arange(variates, device=signal.device).repeat_interleave(cells)
        grid = (cells,) if cells == usual else None
        tokens = Tokens(values, time.repeat(variates)[:, None], self.axes, grid, channel)
        return filled(tokens.without_nan())

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        values = like.absent_as_nan(values)
        return rearrange(values, "b (v n) p -> b v (n p)", v=self._variates_of(like))

    @staticmethod
    def _variates_of(tokens: Tokens) -> int:
        if tokens.grid is not None:
            return tokens.length // tokens.grid[0]
        # The last token of each variate, and no other, stands at the last place in time.
        return int((tokens.coords[:, 0] == tokens.coords[-1, 0]).sum())

    def prepare(self, signal: Tensor) -> Tensor:
        """(B, V, T) normalised, and filled up on the left with NaN to a multiple of the patch.

        A variate of which nothing is observed before the horizon has no scale, so all of it is taken as missing.
        """
        if signal.dim() != 3:
            raise ShapeError(
                "Tokenizer 'series' can't take this signal.",
                expected="(batch, variates, time)",
                got=tuple(signal.shape),
            )
        signal = signal if signal.is_floating_point() else signal.float()
        if self.settings.normalise == "instance" and not self.needs_statistics:
            history = signal.shape[2] - self.settings.horizon
            if history < 1:
                raise ShapeError(
                    "The window is no longer than the horizon, so there is nothing to normalise it by.",
                    expected=f"more than {self.settings.horizon} steps",
                    got=signal.shape[2],
                )
            mean, std = self.scale_of(signal)
            signal = (signal - mean) / std
        return self.filled_up(signal)

    def move_target(self, target: Tensor, stored: Tensor, noise: Noise | None = None) -> Tensor:
        """Values (B, V, H) that come after a stored batch, normalised by the same numbers as it."""
        mean, std = self.scale_of(stored)
        return (target - mean) / std

    def scale_of(self, stored: Tensor) -> tuple[Tensor, Tensor]:
        """What `prepare` normalises a stored batch with: mean and spread (B, V, 1)."""
        return self.statistics_of(stored[..., : stored.shape[2] - self.settings.horizon])

    def filled_up(self, signal: Tensor) -> Tensor:
        """(B, V, T) with NaN before it up to a multiple of the patch."""
        return F.pad(signal, (-signal.shape[2] % self.settings.patch, 0), value=torch.nan)

    def collate(self, signals: Sequence[Tensor]) -> Tensor:
        """(B, V, T) of samples (v, t): more variates below, and earlier times on the left, are filled with NaN."""
        wrong = [tuple(signal.shape) for signal in signals if signal.dim() != 2]
        if wrong:
            raise ShapeError("A sample is no series.", expected="(variates, time)", got=wrong[0])
        variates, steps = (max(signal.shape[dim] for signal in signals) for dim in (0, 1))
        return torch.stack(
            [
                F.pad(signal.float(), (steps - signal.shape[1], 0, 0, variates - signal.shape[0]), value=torch.nan)
                for signal in signals
            ]
        )

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        """Line plots, one band per variate, time to the right, each on its own scale; gaps stay empty."""
        return draw_lines(signal.detach(), signal.detach() if like is None else like.detach())

    def scales(self, signal: Tensor) -> Scales:
        return line_scales(signal.shape[1], signal.shape[2])

    def footprint(self, tokens: Tokens, chosen: Tensor) -> Tensor:
        """The pixel columns of a band whose steps all belong to chosen tokens."""
        cells = tokens.length // self._variates_of(tokens)
        columns = columns_of(cells * self.settings.patch)
        return token_pixels(rearrange(chosen, "b (v n) -> b v n", n=cells), self.settings.patch, columns)

    def plain_features(self, stored: Tensor) -> dict[str, Tensor]:
        return {"mean and spread": mean_spread_features(stored)}

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """Random trends, two seasons and noise, (B, variates, length)."""
        shape = (batch, self.settings.variates, 1)
        time = torch.linspace(0, 1, self.settings.length)

        def draw() -> Tensor:
            return torch.rand(shape, generator=generator)

        slow = (2 * torch.pi * ((1 + 3 * draw()) * time + draw())).sin()
        fast = (2 * torch.pi * ((6 + 6 * draw()) * time + draw())).sin()
        noise = torch.randn(*shape[:2], self.settings.length, generator=generator)
        return 4 * draw() * time + slow + draw() * fast + 0.1 * noise

    def statistics_of(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """What a forecast is normalised with and put back by: mean and spread (B, V, 1) of a history (B, V, T)."""
        if self.settings.normalise == "instance":
            mean, std = mean_and_std(history)
            variate = torch.arange(history.shape[1], device=history.device).clamp(max=self.settings.variates - 1)
            return mean, torch.maximum(std, self.settings.floor * self.spread[variate, None].to(std))
        one = history.new_ones(*history.shape[:2], 1)
        return torch.zeros_like(one), one


def with_horizon(tokenizer: SeriesTokenizer, history: Tensor, steps: int) -> tuple[Tokens, Tensor]:
    """Tokens of a normalised history (B, V, T) and of a horizon after it, and which are the horizon's, (B, L) bool.

    The horizon is filled up to whole tokens. It holds zeros, which no encoder is to see: hide it. Of a variate without
    history nothing is asked either, so that its tokens don't weigh on the others.
    """
    past = tokenizer.filled_up(history)
    cells = -(-steps // tokenizer.settings.patch)
    future = history.new_zeros(*history.shape[:2], cells * tokenizer.settings.patch)
    future = future.masked_fill(history.isnan().all(-1, keepdim=True), torch.nan)
    tokens = tokenizer.tokenize(torch.cat([past, future], -1))
    last = tokens.coords[:, 0] >= tokenizer.extents[0] - cells
    hidden = last.expand(tokens.batch, -1)
    if tokens.valid is not None:
        hidden = hidden & tokens.valid
    return tokens, hidden
