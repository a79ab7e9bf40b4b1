import numpy as np
import pytest
import torch
from maskedmodel_timeseries.raster import RasterTokenizer
from maskedmodel_timeseries.rasterise import draw, folded, lay_out, read, resized, unfolded

from maskedmodel.errors import DataError, ShapeError


def test_folding_puts_phases_down_and_periods_across_and_repeats_the_first_value():
    series = torch.arange(1.0, 9)[None]
    assert folded(series, 3).tolist() == [[[1, 3, 6], [1, 4, 7], [2, 5, 8]]]
    assert unfolded(folded(series, 4)).tolist() == series.tolist()


def by_hand(picture, height, width):
    """Bilinear resizing between pixel centres, edges repeated, one pixel at a time."""
    out = np.zeros((height, width))
    rows, columns = picture.shape
    for y in range(height):
        for x in range(width):
            v = max((y + 0.5) * rows / height - 0.5, 0)
            u = max((x + 0.5) * columns / width - 0.5, 0)
            top, left = min(int(v), rows - 1), min(int(u), columns - 1)
            below, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            b, r = v - top, u - left
            out[y, x] = (1 - b) * ((1 - r) * picture[top, left] + r * picture[top, right]) + b * (
                (1 - r) * picture[below, left] + r * picture[below, right]
            )
    return out


@pytest.mark.parametrize(("rows", "columns", "height", "width"), [(5, 3, 8, 7), (24, 10, 16, 4), (1, 6, 9, 9)])
def test_resizing_is_bilinear_without_antialiasing(rows, columns, height, width):
    picture = torch.randn(1, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    resized_by_hand = by_hand(picture[0].numpy(), height, width)
    np.testing.assert_allclose(resized(picture, (height, width), "bilinear")[0], resized_by_hand, atol=1e-12)


def test_missing_values_take_no_part_in_a_pixel():
    picture = torch.ones(1, 6, 6)
    picture[0, 2, 3] = torch.nan
    picture[0, :, 5] = torch.nan
    enlarged = resized(picture, (24, 24), "bilinear")
    assert enlarged.nan_to_num(1).unique().tolist() == [1]  # no zero leaks in
    assert enlarged[:, :, 22:].isnan().all()
    assert not enlarged[:, :, :8].isnan().any()


def test_the_layout_of_published_settings():
    """1152 hours of history and 96 ahead take 5 columns of patches; 134 days lie across the whole picture."""
    layout = lay_out(1152, 96, 24, (224, 224), (16, 16), 0.4)
    assert (layout.columns, layout.width, layout.periods, layout.across, layout.left) == (5, 80, 48, 134, 0)
    padded = lay_out(1000, 100, 24, (224, 224), (16, 16), 0.4)
    assert (padded.left, padded.periods) == (8, 42)


def test_a_horizon_beyond_the_picture_is_refused():
    with pytest.raises(DataError, match="at most 312 steps"):
        lay_out(24, 2400, 24, (224, 224), (16, 16), 0.4)


def test_a_picture_that_goes_on_is_read_as_the_series_that_goes_on():
    time = torch.arange(480.0)
    series = (2 * torch.pi * time / 24).sin()[None] * 0.4
    layout = lay_out(240, 48, 24, (96, 96), (8, 8), 1.0)
    past = draw(series[:, :240], layout, "bilinear")
    assert not past[:, :, layout.width :].any()
    # What a perfect model fills in: the season goes on to the right.
    whole = past[:, :, :1].expand(-1, -1, 96)
    torch.testing.assert_close(read(whole, layout, "bilinear"), series[:, 240:288], atol=0.02, rtol=0)


def test_prepare_draws_the_whole_window_normalised_by_what_comes_before_the_horizon():
    tokenizer = RasterTokenizer(size=(48, 40), patch=8, period=12, horizon=36, channels=3)
    signal = 7 + 3 * tokenizer.example(2, torch.Generator().manual_seed(0))
    picture = tokenizer.prepare(signal)
    assert picture.shape == (2, 3, 48, 40)
    history = signal[:, 0, :-36]
    std = (history.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    series = (signal[:, 0] - history.mean(1, keepdim=True)) / (std / 0.4)
    expected = torch.nn.functional.interpolate(folded(series, 12)[:, None], (48, 40), mode="bilinear")
    torch.testing.assert_close(picture[:, :1], expected, atol=1e-5, rtol=0)
    changed = signal.clone()
    changed[..., -36:] = 1e5
    torch.testing.assert_close(tokenizer.prepare(changed)[..., :20], picture[..., :20])


def test_gaps_become_missing_pixels_and_padding():
    tokenizer = RasterTokenizer(size=32, patch=8, channels=1, period=8)
    signal = tokenizer.example(1, torch.Generator().manual_seed(0))
    signal[..., 40:104] = torch.nan  # eight of the sixteen periods: pixels 10 to 25
    picture = tokenizer.prepare(signal)
    tokens = tokenizer.tokenize(picture)
    assert picture[0, 0].isnan().all(0).nonzero()[:, 0].tolist() == list(range(10, 26))
    assert tokens.valid.reshape(4, 4).tolist() == [[True, True, False, True]] * 4
    assert torch.isfinite(tokens.values).all()
    back = tokenizer.detokenize(tokens.values, tokens)
    torch.testing.assert_close(back, picture, equal_nan=True, rtol=0, atol=0)


def test_windows_of_other_lengths_end_alike():
    tokenizer = RasterTokenizer(size=32, patch=8, channels=1, period=8)
    batch = tokenizer.collate([torch.ones(1, 40), torch.ones(1, 64)])
    assert batch.shape == (2, 1, 64)
    assert batch[0, 0].isnan().tolist() == [True] * 24 + [False] * 40


def test_pictures_share_the_scale_of_the_original():
    tokenizer = RasterTokenizer(size=32, patch=8, channels=1, period=8)
    signal = tokenizer.prepare(tokenizer.example(1, torch.Generator().manual_seed(0)))
    assert torch.equal(tokenizer.picture(signal, signal), tokenizer.picture(signal))
    assert not torch.equal(tokenizer.picture(signal / 2, signal), tokenizer.picture(signal / 2))
    signal[..., :8] = torch.nan
    assert torch.isfinite(tokenizer.picture(signal)).all()
    assert tokenizer.scales(signal).vertical.title == "step of 8"


def test_wrong_signals_are_refused():
    tokenizer = RasterTokenizer(size=32, patch=8, period=8, horizon=16)
    with pytest.raises(ShapeError, match="variates=separate"):
        tokenizer.prepare(torch.ones(1, 2, 64))
    with pytest.raises(ShapeError, match="period of 8 before it"):
        tokenizer.prepare(torch.ones(1, 1, 20))
