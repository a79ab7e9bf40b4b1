import pytest
import torch
from maskedmodel_image.tokenizer import ImageTokenizer
from maskedmodel_timeseries.forecasters import forecaster_of
from maskedmodel_timeseries.raster import RasterTokenizer
from maskedmodel_timeseries.series import SeriesTokenizer
from torch.nn import functional as F

from maskedmodel import Mask
from maskedmodel.errors import CheckpointError, ConfigError, DataError, ShapeError
from maskedmodel.testing.fixtures import Box

from .conftest import build


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["alone", "together", "as given", "raster", "raster with room", "normalised targets"])
def forecaster(request):
    model = {
        "alone": lambda: build(SeriesTokenizer(floor=0, length=96, patch=8, horizon=24)),
        "together": lambda: build(SeriesTokenizer(floor=0, length=96, patch=8, variates=3)),
        "as given": lambda: build(SeriesTokenizer(floor=0, length=96, patch=8, normalise="none")),
        "raster": lambda: build(RasterTokenizer(size=32, patch=8, channels=1, period=12, align_constant=1.0)),
        "raster with room": lambda: build(RasterTokenizer(size=(24, 64), patch=(8, 4), period=12)),
        "normalised targets": lambda: build(SeriesTokenizer(floor=0, length=96, patch=8), normalise=True),
    }[request.param]()
    return forecaster_of(model, period=12)


@pytest.mark.parametrize(("context", "horizon"), [(72, 24), (70, 10), (200, 1), (25, 17)])
def test_any_context_and_horizon_gives_a_finite_forecast(forecaster, context, horizon):
    forecast = forecaster(random(3, 2, context), horizon)
    assert forecast.shape == (3, 2, horizon)
    assert torch.isfinite(forecast).all()
    assert float(forecast.std()) > 1e-3


def test_missing_values_before_the_history_change_nothing(forecaster):
    history = random(2, 2, 60)
    expected = forecaster(history, 20)
    for more in (8, 13, 60):
        padded = F.pad(history, (more, 0), value=torch.nan)
        torch.testing.assert_close(forecaster(padded, 20), expected, rtol=0, atol=2e-5)


def test_a_history_of_another_unit_gives_the_forecast_in_that_unit(forecaster):
    history = random(2, 2, 72)
    if getattr(forecaster.tokenizer.settings, "normalise", "instance") == "none":
        pytest.skip("this model takes values as they are")
    torch.testing.assert_close(
        forecaster(1000 + 50 * history, 24), 1000 + 50 * forecaster(history, 24), rtol=0, atol=0.05
    )


def test_variates_and_samples_dont_depend_on_the_batch(forecaster):
    history = random(4, 2, 60)
    expected = forecaster(history, 20)
    torch.testing.assert_close(forecaster(history[[2, 0]], 20), expected[[2, 0]], rtol=0, atol=2e-5)
    if not isinstance(forecaster.tokenizer, SeriesTokenizer) or forecaster.alone:
        torch.testing.assert_close(forecaster(history[:, 1:], 20), expected[:, 1:], rtol=0, atol=2e-5)


def test_a_variate_without_history_has_no_forecast_and_leaves_the_others_alone(forecaster):
    history = random(2, 2, 60)
    lost = torch.cat([history, torch.full((2, 1, 60), torch.nan)], 1)
    forecast = forecaster(lost, 20)
    assert forecast[:, 2].isnan().all()
    torch.testing.assert_close(forecast[:, :2], forecaster(history, 20), rtol=0, atol=2e-5)


def test_gaps_in_the_history_are_borne(forecaster):
    history = random(2, 2, 72)
    history[0, 0, 30:34] = torch.nan
    history[1, 1, 24:60] = torch.nan
    forecast = forecaster(history, 24)
    assert torch.isfinite(forecast).all()
    whole = forecaster(history.nan_to_num(0), 24)
    assert not torch.allclose(forecast[1, 1], whole[1, 1], atol=1e-3)  # a gap isn't a run of zeros


def test_the_series_forecast_is_the_models_prediction_of_hidden_tokens_put_back():
    """By hand: normalise by the history, hide the last tokens, predict, put back."""
    tokenizer = SeriesTokenizer(floor=0, length=96, patch=8, horizon=24)
    model = build(tokenizer)
    history = 3 + 2 * random(2, 1, 72)
    mean, std = history.mean(-1, keepdim=True), (history.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    signal = torch.cat([(history - mean) / std, torch.full((2, 1, 24), 7e3)], -1)
    tokens = tokenizer.tokenize(signal)
    with torch.inference_mode():
        output = model(tokens, Mask((torch.arange(12) >= 9).expand(2, -1)))
    expected = output.prediction.reshape(2, 1, 24) * std + mean
    torch.testing.assert_close(forecaster_of(model, period=1)(history, 24), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(forecaster_of(model, period=1)(history, 19), expected[..., :19], rtol=1e-4, atol=1e-4)


def test_preparing_a_window_and_forecasting_normalise_alike():
    """What a model is trained on is what it is given: the history's own statistics, whatever the horizon holds."""
    tokenizer = SeriesTokenizer(floor=0, length=96, patch=8, horizon=24)
    window = 5 * random(2, 3, 96) + 1
    mean, std = tokenizer.statistics_of(window[..., :72])
    torch.testing.assert_close(tokenizer.prepare(window), (window - mean) / std)


def test_the_usual_context_fills_a_window():
    forecaster = forecaster_of(build(SeriesTokenizer(floor=0, length=96, patch=8, horizon=48)), period=1)
    assert [forecaster.usual_context(horizon, 1000) for horizon in (1, 8, 20, 48, 90)] == [88, 88, 72, 48, 48]
    assert forecaster.usual_context(8, 30) == 30
    raster = forecaster_of(build(RasterTokenizer(size=32, patch=8, channels=1)), period=24)
    assert [raster.usual_context(96, rows) for rows in (5000, 500, 10)] == [720, 480, 10]


def test_weights_of_an_image_model_forecast_as_rasters():
    model = build(ImageTokenizer(size=32, patch=8, normalise="imagenet"))
    forecaster = forecaster_of(model, period=12)
    settings = forecaster.tokenizer.settings
    assert (settings.size, settings.patch, settings.channels, settings.period) == ((32, 32), (8, 8), 3, 12)
    assert (settings.norm_constant, settings.align_constant) == (0.4, 0.4)
    assert torch.equal(forecaster.model.encoder.embed.weight, model.encoder.embed.weight)
    assert torch.isfinite(forecaster(random(1, 2, 60), 12)).all()


def test_what_cant_forecast_is_refused():
    with pytest.raises(ShapeError, match="'kit-box' can't forecast"):
        forecaster_of(build(Box(axes=("time",), size=(16,), patch=(2,), channels=1)), period=12)
    with pytest.raises(ShapeError, match="can't forecast"):
        forecaster_of(build(ImageTokenizer(size=32, patch=8, channels=5)), period=12)
    raster = build(RasterTokenizer(size=32, patch=8, channels=1))
    with pytest.raises(ConfigError, match="align above 0 and up to 1"):
        forecaster_of(raster, period=12, align_constant=1.5)
    with pytest.raises(DataError, match="too short for this horizon"):
        forecaster_of(raster, period=12)(random(1, 1, 24), 500)
    raster.decoder_loaded = False
    with pytest.raises(CheckpointError, match="encoder only"):
        forecaster_of(raster, period=12)(random(1, 1, 24), 12)
