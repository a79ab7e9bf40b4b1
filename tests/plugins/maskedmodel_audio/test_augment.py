import math

import pytest
import torch
from maskedmodel_audio.augment import crop, gain, lengths, roll

from maskedmodel import Noise


def ramps(*samples):
    """Clips whose values are their own places, filled up with NaN."""
    batch = torch.full((len(samples), max(samples)), math.nan)
    for row, count in zip(batch, samples, strict=True):
        row[:count] = torch.arange(count)
    return batch


def test_lengths_are_up_to_the_last_sample_that_is_there():
    batch = ramps(5, 9, 1)
    batch[1, 3] = math.nan  # a gap is no end
    assert lengths(batch).tolist() == [5, 9, 1]
    assert lengths(torch.full((1, 4), math.nan)).tolist() == [0]


def test_a_crop_is_a_part_of_its_clip():
    batch = ramps(50, 20, 21, 5)
    for epoch in range(20):
        found = crop(batch, 20, Noise.of(range(4), epoch=epoch))
        start = found[:, 0]
        assert torch.equal(found[:3], start[:3, None] + torch.arange(20))
        assert 0 <= start[0] <= 30
        assert start[1] == 0
        assert start[2] in (0, 1)
        assert found[3, :5].tolist() == [0, 1, 2, 3, 4]
        assert found[3, 5:].isnan().all()


def test_crops_start_anywhere():
    starts = crop(ramps(*[30] * 3000), 20, Noise.of(range(3000)))[:, 0].long()
    counts = starts.bincount(minlength=11)
    assert counts.shape == (11,)
    assert counts.min() > 3000 / 11 * 0.75
    assert counts.max() < 3000 / 11 * 1.25


def test_short_batches_are_filled_up():
    found = crop(ramps(5, 3), 8, Noise.of(range(2)))
    assert found.shape == (2, 8)
    assert torch.equal(found.isnan(), torch.tensor([[False] * 5 + [True] * 3, [False] * 3 + [True] * 5]))


def test_a_roll_turns_a_clip_within_its_own_length():
    batch = torch.stack([ramps(7, 12, 1), ramps(7, 12, 1) + 100], 2)
    shifts = set()
    for epoch in range(40):
        found = roll(batch, Noise.of(range(3), epoch=epoch))
        for row, count in zip(found, (7, 12, 1), strict=True):
            first = int(row[0, 0])
            assert row[:count, 0].tolist() == [(first + place) % count for place in range(count)]
            assert torch.equal(row[:count, 1], row[:count, 0] + 100)
            assert row[count:].isnan().all()
        shifts.add(int(found[0, 0, 0]))
    assert shifts == set(range(7))  # every one occurs, so it does roll


def test_gains_of_beta_have_its_moments_and_its_distribution():
    factors = gain(torch.ones(4000, 1), "beta", Noise.of(range(4000)))[:, 0]
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.006)
    assert float(factors.std()) == pytest.approx(math.sqrt(0.25 / 21), rel=0.05)
    from scipy import stats

    assert stats.kstest(factors.numpy() - 0.5, stats.beta(10, 10).cdf).pvalue > 0.01


def test_gains_in_decibels_stay_in_their_range():
    factors = gain(torch.ones(1000, 1), (-6.0, 12.0), Noise.of(range(1000)))[:, 0]
    decibels = 20 * factors.log10()
    assert decibels.min() >= -6.001
    assert decibels.max() <= 12.001
    assert float(decibels.mean()) == pytest.approx(3.0, abs=0.6)


def test_a_gain_shifts_log_mel_alone():
    from maskedmodel_audio.tokenizer import Spectrogram

    own = Spectrogram(sample_rate=8000, duration=0.5, mels=40, patch=8, statistics="esc50", gain=(6.0, 6.0))
    clip = 0.1 * torch.randn(1, 1, 4000, generator=torch.Generator().manual_seed(0))
    louder, plain = own.augment(clip, Noise.of([0])), own.prepare(clip)
    shift = (louder - plain)[~plain.isnan()]
    torch.testing.assert_close(shift, torch.full_like(shift, 0.6 * math.log(10)), rtol=0, atol=1e-3)
