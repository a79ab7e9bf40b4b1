import pytest
import torch
from maskedmodel_timeseries.horizon import Horizon
from maskedmodel_timeseries.raster import RasterTokenizer
from maskedmodel_timeseries.series import SeriesTokenizer
from pydantic import ValidationError

from maskedmodel.errors import ConfigError
from maskedmodel.noise import Noise
from maskedmodel.testing.fixtures import Box


def ends(hidden):
    """How many cells at the end of each row are hidden."""
    return hidden.flip(1).long().cumprod(1).sum(1)


def test_hidden_ends_have_every_length_up_to_the_longest_at_one_ratio():
    tokens = SeriesTokenizer(floor=0, length=160, patch=8).tokenize(torch.randn(400, 1, 160))
    hidden = Horizon(ratio=0.6, shortest=0.2, longest=0.5).sample(tokens, 0.0, Noise.of(range(400))).hidden
    assert hidden.sum(1).unique().tolist() == [12]
    lengths = ends(hidden)
    assert lengths.min() == 4
    assert {4, 5, 6, 7, 8, 9, 10} <= set(lengths.tolist())
    # What lies before is random, so an end is now and then longer than was drawn; rarely much so.
    assert (lengths <= 10).float().mean() > 0.8


def test_the_end_of_all_variates_is_hidden_together():
    tokens = SeriesTokenizer(floor=0, length=80, patch=8).tokenize(torch.randn(50, 3, 80))
    hidden = Horizon(ratio=0.5, shortest=0.5).sample(tokens, 0.0, Noise.of(range(50))).hidden.reshape(50, 3, 10)
    assert hidden[:, :, 5:].all()
    assert not hidden[:, :, :5].any()


def test_of_a_raster_the_right_hand_columns_are_hidden():
    tokens = RasterTokenizer(size=32, patch=8, channels=1, period=8).tokenize(torch.randn(5, 1, 32, 32))
    hidden = Horizon(ratio=0.5, shortest=0.5).sample(tokens, 0.0, Noise.of(range(5))).hidden.reshape(5, 4, 4)
    assert hidden[:, :, 2:].all()
    assert not hidden[:, :, :2].any()


def test_the_axis_is_time_where_there_is_one_and_can_be_named():
    volume = Box(axes=("time", "height", "width"), size=(4, 8, 8), patch=(1, 4, 4), channels=1)
    tokens = volume.tokenize(torch.randn(3, 1, 4, 8, 8))
    noise = Noise.of(range(3))
    hidden = Horizon(ratio=0.5, shortest=0.5).sample(tokens, 0.0, noise).hidden.reshape(3, 4, 2, 2)
    assert hidden[:, 2:].all()
    hidden = Horizon(ratio=0.5, shortest=0.5, axis="height").sample(tokens, 0.0, noise).hidden.reshape(3, 4, 2, 2)
    assert hidden[:, :, 1].all()
    with pytest.raises(ConfigError, match="time, height, width"):
        Horizon(axis="depth").sample(tokens, 0.0, noise)


def test_the_end_is_that_of_what_is_there():
    tokenizer = SeriesTokenizer(floor=0, length=80, patch=8)
    signal = torch.randn(1, 1, 80)
    signal[..., 48:] = torch.nan
    hidden = Horizon(ratio=0.5, shortest=0.5).sample(tokenizer.tokenize(signal), 0.0, Noise.of([0])).hidden
    assert hidden[0].tolist() == [False] * 3 + [True] * 3 + [False] * 4


def test_a_longer_end_than_the_ratio_is_refused():
    with pytest.raises(ValidationError, match="shortest <= longest <= ratio"):
        Horizon(ratio=0.4, longest=0.5)
    with pytest.raises(ValidationError, match="lowest <= ratio"):
        Horizon(ratio=0.4, lowest=0.5)


def test_the_ratio_of_a_step_is_one_of_the_levels_and_a_function_of_progress():
    masks = Horizon(ratio=0.7, lowest=0.1, levels=4)
    ratios = [masks.ratio(step / 399) for step in range(400)]
    assert sorted({round(ratio, 6) for ratio in ratios}) == [0.1, 0.3, 0.5, 0.7]
    assert min(ratios.count(ratio) for ratio in set(ratios)) > 70
    assert ratios == [Horizon(ratio=0.7, lowest=0.1, levels=4).ratio(step / 399) for step in range(400)]
    # Neither early nor late steps have a ratio of their own.
    assert abs(sum(ratios[:200]) - sum(ratios[200:])) / 200 < 0.1


def test_an_end_is_never_longer_than_the_ratio_of_its_step():
    masks = Horizon(ratio=0.75, lowest=0.25, levels=2, shortest=0.6)
    tokens = SeriesTokenizer(floor=0, length=160, patch=8).tokenize(torch.randn(30, 1, 160))
    for progress in (step / 20 for step in range(20)):
        hidden = masks.sample(tokens, progress, Noise.of(range(30))).hidden
        assert hidden.sum(1).unique().tolist() == [round(20 * masks.ratio(progress))]
        assert int(ends(hidden).min()) >= round(20 * min(0.6, masks.ratio(progress)))
