"""A masked autoencoder as a forecaster: the horizon's tokens are hidden, all others are visible."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from maskedmodel import FineTuned, GridTokenizer, Mask, MaskedAutoencoder
from maskedmodel.errors import CheckpointError, ConfigError, ShapeError
from maskedmodel.tokenizers import pair
from maskedmodel_timeseries.head import Forecast
from maskedmodel_timeseries.raster import RasterSettings, RasterTokenizer
from maskedmodel_timeseries.rasterise import draw, lay_out, read, standardised
from maskedmodel_timeseries.series import SeriesTokenizer, with_horizon

_ROWS = 256  # tokenised series at a time
_PICTURES = 32


class Forecaster(ABC):
    """Forecasts of `horizon` steps. `name` says in words how they are made."""

    name: str

    def __init__(self, model: MaskedAutoencoder | FineTuned) -> None:
        self.model = model.eval()

    @abstractmethod
    def usual_context(self, horizon: int, available: int) -> int:
        """Steps of history to give where the user names none, of those `available`."""

    @abstractmethod
    def forecast(self, history: Tensor, horizon: int) -> Tensor:
        """(B, V, C), NaN where a value is missing, to (B, V, H); NaN for a variate without history.

        Nothing but the history is used: it is normalised by its own observed values, and so is the way back. Raises
        DataError where the history is too short.
        """

    @torch.inference_mode()
    def __call__(self, history: Tensor, horizon: int) -> Tensor:
        """As `forecast`, on the model's device; the result is where the history is."""
        return self.forecast(history.to(self.model.device), horizon).to(history.device)


class SeriesForecaster(Forecaster):
    """With a model of the `series` tokenizer."""

    model: MaskedAutoencoder

    def __init__(self, model: MaskedAutoencoder) -> None:
        super().__init__(model)
        assert isinstance(model.tokenizer, SeriesTokenizer)
        self.tokenizer: SeriesTokenizer = model.tokenizer
        self.alone = self.tokenizer.settings.variates == 1
        self.name = "series model, " + ("each variate alone" if self.alone else "all variates together")

    def usual_context(self, horizon: int, available: int) -> int:
        """What the horizon's tokens leave of a usual window, at least as much as the window's shortest history."""
        settings = self.tokenizer.settings
        left = settings.length - -(-horizon // settings.patch) * settings.patch
        shortest = max(settings.length - settings.horizon, settings.patch) if settings.horizon else settings.length // 4
        return min(max(left, shortest), available)

    def forecast(self, history: Tensor, horizon: int) -> Tensor:
        batch, variates, steps = history.shape
        rows = history.reshape(-1, 1, steps) if self.alone else history
        each = _ROWS if self.alone else max(_ROWS // variates, 1)
        parts = [self._rows(rows[start : start + each], horizon) for start in range(0, len(rows), each)]
        return torch.cat(parts).reshape(batch, variates, horizon)

    def _rows(self, history: Tensor, horizon: int) -> Tensor:
        mean, std = self.tokenizer.statistics_of(history)
        tokens, hidden = with_horizon(self.tokenizer, (history - mean) / std, horizon)
        signal = self.model.reconstruct(tokens, Mask(hidden, tokens.valid), paste=False)
        start = signal.shape[2] - -(-horizon // self.tokenizer.settings.patch) * self.tokenizer.settings.patch
        return signal[..., start : start + horizon] * std + mean


class HeadForecaster(Forecaster):
    """With a model fine-tuned to task `forecast`: its head gives the horizon at once."""

    def __init__(self, model: FineTuned) -> None:
        super().__init__(model)
        assert isinstance(model.tokenizer, SeriesTokenizer)
        self.tokenizer: SeriesTokenizer = model.tokenizer
        self.head, self.task = model, model.task
        self.variates, self.longest = model.labels.shape
        self.name = "fine-tuned head, " + ("each variate alone" if self.variates == 1 else "all variates together")

    def usual_context(self, horizon: int, available: int) -> int:
        return min(self.tokenizer.settings.length, available)

    def forecast(self, history: Tensor, horizon: int) -> Tensor:
        batch, variates, steps = history.shape
        if horizon > self.longest or self.variates not in (1, variates) or steps > self.tokenizer.settings.length:
            raise ShapeError(
                "This head was trained for other forecasts.",
                expected=f"up to {self.longest} steps of {'any' if self.variates == 1 else self.variates} variates from"
                f" up to {self.tokenizer.settings.length} steps of history",
                got=f"{horizon} steps of {variates} variates from {steps}",
            )
        rows = history.reshape(-1, 1, steps) if self.variates == 1 else history
        parts = []
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            ahead = self.head(self.tokenizer.prepare(part))
            parts.append(self.task.restore(self.tokenizer, ahead, part)[..., :horizon])
        return torch.cat(parts).reshape(batch, variates, horizon)


class RasterForecaster(Forecaster):
    """With a model of pictures, as VisionTS: each variate is drawn, and the picture's right-hand side filled in."""

    model: MaskedAutoencoder

    def __init__(self, model: MaskedAutoencoder) -> None:
        super().__init__(model)
        assert isinstance(model.tokenizer, RasterTokenizer)
        self.tokenizer: RasterTokenizer = model.tokenizer
        self.period = self.tokenizer.settings.period
        self.name = f"picture model, period {self.period}, each variate alone"

    def usual_context(self, horizon: int, available: int) -> int:
        """30 periods or four horizons, whichever is longer, in whole periods as far as there are any."""
        wanted = min(max(30 * self.period, 4 * horizon), available)
        return max(wanted // self.period * self.period, min(wanted, self.period))

    def forecast(self, history: Tensor, horizon: int) -> Tensor:
        rows = history.flatten(0, 1)
        there = ~rows.isnan()
        first = there.int().argmax(1)  # what is missing before the first value isn't history
        out = rows.new_full((len(rows), horizon), torch.nan)
        for start in sorted(set(first[there.any(1)].tolist())):
            chosen = ((first == start) & there.any(1)).nonzero()[:, 0]
            for begin in range(0, len(chosen), _PICTURES):
                part = chosen[begin : begin + _PICTURES]
                out[part] = self._rows(rows[part, start:], horizon)
        return out.reshape(*history.shape[:2], horizon)

    def _rows(self, history: Tensor, horizon: int) -> Tensor:
        tokenizer, settings = self.tokenizer, self.tokenizer.settings
        layout = lay_out(
            history.shape[1], horizon, self.period, pair(settings.size), pair(settings.patch), settings.align_constant
        )
        series, mean, scale = standardised(history, settings.norm_constant, settings.floor)
        picture = draw(series, layout, settings.interpolation)
        tokens = tokenizer.tokenize(tokenizer.in_channels(picture))
        hidden = (tokens.coords[:, 1] >= layout.columns).expand(tokens.batch, -1)
        # Also what is visible is taken as predicted: the edge between both is resized over.
        filled_in = self.model.reconstruct(tokens, Mask(hidden, tokens.valid), paste=False)
        return read(filled_in.mean(1), layout, settings.interpolation) * scale + mean


def forecaster_of(
    model: MaskedAutoencoder | FineTuned,
    *,
    period: int,
    norm_constant: float | None = None,
    align_constant: float | None = None,
) -> Forecaster:
    """The forecaster for a model: of series, of rasters, or of pictures, whose weights then serve as VisionTS's do.

    `period` is for models of pictures; the constants take the place of the tokenizer's. Raises ShapeError on a model
    of something else.
    """
    tokenizer: Any = model.tokenizer
    if isinstance(model, FineTuned):
        if isinstance(model.task, Forecast) and isinstance(tokenizer, SeriesTokenizer):
            return HeadForecaster(model)
        raise CheckpointError(
            "A fine-tuned run has no decoder to forecast with.",
            expected="a pretrained run, or one fine-tuned with task.name=forecast",
            got=f"task.name={model.task.component_name()}",
        )
    if isinstance(tokenizer, SeriesTokenizer):
        return SeriesForecaster(model)
    own = {"norm_constant": norm_constant, "align_constant": align_constant}
    changed = {key: value for key, value in own.items() if value is not None}
    if isinstance(tokenizer, RasterTokenizer):
        settings = tokenizer.settings
    elif (
        isinstance(tokenizer, GridTokenizer) and tokenizer.axes == ("height", "width") and tokenizer.channels in (1, 3)
    ):
        settings = RasterSettings(
            size=(tokenizer.size[0], tokenizer.size[1]),
            patch=(tokenizer.patch[0], tokenizer.patch[1]),
            channels=1 if tokenizer.channels == 1 else 3,
        )
    else:
        raise ShapeError(
            f"A model of {tokenizer.component_name()!r} can't forecast a time series.",
            expected="a model of series, raster, or pictures of 1 or 3 channels",
            got=f"axes {', '.join(tokenizer.axes)}",
        )
    if any(value <= 0 for value in changed.values()) or changed.get("align_constant", 1) > 1:
        raise ConfigError("Constants out of range.", expected="norm above 0, align above 0 and up to 1", got=changed)
    return RasterForecaster(_as_raster(model, settings.model_copy(update={"period": period, **changed})))


def _cuts_pictures(tokenizer: Any) -> bool:
    flat = isinstance(tokenizer, GridTokenizer) and tokenizer.axes == ("height", "width")
    return flat and not tokenizer.separate_channels and tokenizer.channels in (1, 3)


def _as_raster(model: MaskedAutoencoder, settings: RasterSettings) -> MaskedAutoencoder:
    """The same weights, fed pictures of series as they are: VisionTS doesn't normalise them as photographs."""
    raster = MaskedAutoencoder(RasterTokenizer(settings), model.scheduler, model.objective, model.settings)
    raster.load_state_dict(
        {name: tensor for name, tensor in model.state_dict().items() if name.startswith(("encoder.", "decoder."))},
        strict=False,  # the scheduler and objective are the model's own; the raster has no state
    )
    raster.decoder_loaded = model.decoder_loaded
    return raster.to(model.device)
