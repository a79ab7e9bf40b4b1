"""Equality with the package `visionts` (Chen et al. 2024) on the same random weights."""

import functools
import sys
import types

import pytest
import torch
from maskedmodel_timeseries.forecasters import forecaster_of

from maskedmodel import from_facebook


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Theirs with random weights of a small masked autoencoder of 224-pixel pictures, and ours imported from it."""
    patch = pytest.MonkeyPatch()
    if "requests" not in sys.modules:
        # It imports requests for downloads, which its distribution doesn't name as a requirement.
        patch.setitem(sys.modules, "requests", types.ModuleType("requests"))
    with patch.context():
        visionts = pytest.importorskip("visionts", reason="the development package visionts isn't installed")
        from visionts import model, models_mae
    tiny = functools.partial(
        models_mae.MaskedAutoencoderViT,
        embed_dim=48,
        depth=2,
        num_heads=3,
        decoder_embed_dim=32,
        decoder_depth=2,
        decoder_num_heads=2,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
    )
    patch.setitem(model.MAE_ARCH, "tiny", [tiny, "none"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = visionts.VisionTS("tiny", load_ckpt=False).eval()
        for name, weight in theirs.named_parameters():
            if "pos_embed" not in name:
                weight.data += 0.03 * torch.randn(weight.shape)
    patch.undo()
    path = tmp_path_factory.mktemp("weights") / "mae_visualize_tiny.pth"
    torch.save({"model": theirs.vision_model.state_dict()}, path)
    return theirs, from_facebook(path, heads=3, decoder_heads=2)


@pytest.mark.parametrize(
    ("context", "horizon", "period", "norm", "align"),
    [
        (1152, 96, 24, 0.4, 0.4),
        (2880, 720, 24, 0.4, 0.4),
        (1000, 100, 24, 0.4, 0.4),  # neither is a multiple of the period
        (1001, 336, 24, 1.0, 0.7),
        (104, 60, 52, 1.0, 0.7),
        (96, 24, 12, 0.2, 1.0),
        (300, 37, 1, 0.4, 1.0),  # no period
        (130, 48, 96, 0.4, 0.4),  # two columns, the first mostly padding
        (50, 1, 7, 0.4, 0.4),
        (400, 13, 365, 0.3, 0.5),
    ],
)
def test_forecasts_equal(models, context, horizon, period, norm, align):
    theirs, ours = models
    draw = torch.Generator().manual_seed(context)
    season = 5 * (2 * torch.pi * torch.arange(context) / period).sin()[:, None]
    history = torch.randn(2, context, 3, generator=draw).cumsum(1) / 10 + season + 20
    theirs.update_config(context, horizon, period, norm, align)
    with torch.inference_mode():
        expected = theirs(history)
    forecaster = forecaster_of(ours, period=period, norm_constant=norm, align_constant=align)
    found = forecaster(history.transpose(1, 2), horizon).transpose(1, 2)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("interpolation", ["nearest", "bicubic"])
def test_other_interpolations_equal(models, interpolation):
    theirs, ours = models
    history = torch.randn(1, 200, 1, generator=torch.Generator().manual_seed(0)).cumsum(1)
    theirs.update_config(200, 48, 24, 0.4, 0.4, interpolation)
    forecaster = forecaster_of(ours, period=24)
    settings = forecaster.tokenizer.settings
    forecaster.tokenizer.settings = settings.model_copy(update={"interpolation": interpolation})
    with torch.inference_mode():
        expected = theirs(history)
    torch.testing.assert_close(forecaster(history.transpose(1, 2), 48).transpose(1, 2), expected, rtol=0, atol=1e-4)
