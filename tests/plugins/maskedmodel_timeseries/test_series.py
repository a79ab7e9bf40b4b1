from dataclasses import replace

import pytest
import torch
from maskedmodel_objectives.patch import Patch
from maskedmodel_timeseries.series import SeriesTokenizer
from pydantic import ValidationError

from maskedmodel import Mask, MaskedAutoencoder
from maskedmodel.errors import ShapeError
from maskedmodel.noise import Noise

from .conftest import SMALL, build


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_tokens_are_patches_of_time_variate_by_variate():
    tokenizer = SeriesTokenizer(floor=0, length=12, patch=4, variates=2)
    signal = torch.arange(24.0).reshape(1, 2, 12)
    tokens = tokenizer.tokenize(signal)
    assert tokens.values[0].tolist() == torch.arange(24.0).reshape(6, 4).tolist()
    assert tokens.coords[:, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert tokens.channel.tolist() == [0, 0, 0, 1, 1, 1]
    assert (tokens.grid, tokens.valid, tokens.observed) == ((3,), None, None)


@pytest.mark.parametrize("steps", [12, 20, 8, 4])
def test_time_is_counted_from_the_present(steps):
    tokenizer = SeriesTokenizer(floor=0, length=12, patch=4)
    tokens = tokenizer.tokenize(random(1, 3, steps))
    cells = steps // 4
    assert tokens.coords[:, 0].tolist() == list(range(3 - cells, 3)) * 3
    assert tokens.grid == ((3,) if steps == 12 else None)
    assert torch.equal(tokenizer.detokenize(tokens.values, tokens), random(1, 3, steps))


def test_any_length_is_filled_up_on_the_left():
    tokenizer = SeriesTokenizer(floor=0, length=12, patch=4, normalise="none")
    prepared = tokenizer.prepare(random(1, 1, 10))
    assert prepared.shape == (1, 1, 12)
    assert prepared[0, 0, :2].isnan().all()
    assert torch.equal(prepared[..., 2:], random(1, 1, 10))
    with pytest.raises(ShapeError, match="nearest: 8 or 12"):
        tokenizer.tokenize(random(1, 1, 10))


def test_missing_values_are_said_filled_with_the_tokens_mean_and_come_back():
    tokenizer = SeriesTokenizer(floor=0, length=12, patch=4)
    signal = random(2, 2, 12)
    signal[0, 0, 5:7] = torch.nan
    signal[1, 1, 4:8] = torch.nan
    tokens = tokenizer.tokenize(signal)
    assert tokens.valid.logical_not().nonzero().tolist() == [[1, 4]]
    assert tokens.observed[0, 1].tolist() == [True, False, False, True]
    torch.testing.assert_close(tokens.values[0, 1, 1], (signal[0, 0, 4] + signal[0, 0, 7]) / 2)
    assert torch.isfinite(tokens.values).all()
    torch.testing.assert_close(tokenizer.detokenize(tokens.values, tokens), signal, equal_nan=True, rtol=0, atol=0)


def test_normalisation_uses_observed_values_before_the_horizon_alone():
    tokenizer = SeriesTokenizer(floor=0, length=96, patch=8, horizon=32)
    signal = 5 + 3 * random(2, 2, 96)
    signal[0, 0, 3:20] = torch.nan
    prepared = tokenizer.prepare(signal)
    for row in range(2):
        for variate in range(2):
            history = signal[row, variate, :64]
            history = history[~history.isnan()].double()
            mean, std = history.mean(), (history.var(correction=0) + 1e-5).sqrt()
            expected = (signal[row, variate].double() - mean) / std
            torch.testing.assert_close(prepared[row, variate].double(), expected, equal_nan=True, rtol=0, atol=1e-5)
    changed = signal.clone()
    changed[..., 64:] = 1e4
    assert torch.equal(tokenizer.prepare(changed)[..., :64].nan_to_num(), prepared[..., :64].nan_to_num())


def test_a_variate_without_history_is_missing_and_a_constant_one_is_finite():
    tokenizer = SeriesTokenizer(floor=0, length=16, patch=4, horizon=8)
    signal = random(1, 3, 16)
    signal[0, 0, :8] = torch.nan
    signal[0, 1] = 7
    prepared = tokenizer.prepare(signal)
    assert prepared[0, 0].isnan().all()
    assert prepared[0, 1].tolist() == [0] * 16
    assert torch.isfinite(prepared[0, 2]).all()


def test_samples_of_other_lengths_and_variates_end_alike_and_lose_nothing():
    tokenizer = SeriesTokenizer(floor=0, length=16, patch=4)
    samples = [random(2, 16), random(1, 10), random(3, 7)]
    batch = tokenizer.prepare(tokenizer.collate(samples))
    assert batch.shape == (3, 3, 16)
    tokens = tokenizer.tokenize(batch)
    for row, sample in enumerate(samples):
        alone = tokenizer.tokenize(tokenizer.prepare(sample[None]))
        real = tokens.valid[row]
        own = alone.valid[0] if alone.valid is not None else torch.ones(alone.length, dtype=torch.bool)
        torch.testing.assert_close(tokens.values[row][real], alone.values[0][own])
        assert torch.equal(tokens.coords[real], alone.coords[own])
        assert torch.equal(tokens.channel[real], alone.channel[own])


def test_each_sample_of_a_ragged_batch_has_the_loss_it_has_alone():
    tokenizer = SeriesTokenizer(floor=0, length=32, patch=4, variates=2)
    model = build(tokenizer)
    samples = [random(2, 32), random(1, 18), random(2, 24)]
    samples[2][1, 6:9] = torch.nan
    batch = tokenizer.tokenize(tokenizer.prepare(tokenizer.collate(samples)))
    mask = Mask.from_scores(Noise.of(range(3)).uniform(batch.length), 0.5, batch.valid)
    together = model(batch, mask)
    for row, sample in enumerate(samples):
        alone = tokenizer.tokenize(tokenizer.prepare(sample[None]))
        own = alone.valid[0] if alone.valid is not None else torch.ones(alone.length, dtype=torch.bool)
        hidden = torch.zeros(1, alone.length, dtype=torch.bool)
        hidden[0, own] = mask.hidden[row][batch.valid[row]]
        expected = model(alone, Mask(hidden, alone.valid)).loss
        count = mask.hidden[row].sum()
        torch.testing.assert_close(together.loss_per_token[row].sum() / count, expected, rtol=1e-4, atol=1e-5)


def test_only_observed_values_are_scored():
    tokenizer = SeriesTokenizer(floor=0, length=16, patch=4, normalise="none")
    model = build(tokenizer)
    signal = random(1, 1, 16)
    signal[0, 0, 9:11] = torch.nan
    tokens = tokenizer.tokenize(signal)
    mask = Mask(torch.tensor([[False, False, True, False]]))
    output = model(tokens, mask)
    away = (output.prediction[0, 0] - tokens.values[0, 2]).square()
    torch.testing.assert_close(output.loss, (away[0] + away[3]) / 2)
    other = replace(tokens, values=torch.where(tokens.observed, tokens.values, 99.0))
    assert torch.equal(model(other, mask).loss, output.loss)


def test_normalised_targets_go_with_missing_values():
    tokenizer = SeriesTokenizer(floor=0, length=16, patch=4)
    model = MaskedAutoencoder(tokenizer, build(tokenizer).scheduler, Patch(normalise=True), SMALL)
    signal = random(2, 1, 16)
    signal[0, 0, 1::4] = torch.nan
    tokens = tokenizer.tokenize(tokenizer.prepare(signal))
    assert tokens.observed is not None
    mask = Mask(torch.tensor([[False, True, False, False]] * 2))
    output = model(tokens, mask)
    there = tokens.observed[0, 1]
    values = tokens.values[0, 1]
    filled = torch.where(there, values, values[there].mean())  # an absent value has no say in mean and spread
    away = (output.prediction[0, 0] - Patch(normalise=True).target(filled[None, None])[0, 0]).square()
    torch.testing.assert_close(output.loss_per_token[0, 0], away[there].mean(), rtol=1e-5, atol=1e-6)
    hidden_and_absent = ~tokens.observed & mask.hidden[..., None]
    other = replace(tokens, values=tokens.values.masked_fill(hidden_and_absent, 99.0))
    assert torch.equal(model(other, mask).loss, output.loss)


def test_a_picture_draws_the_line_where_it_is_and_nothing_in_a_gap():
    tokenizer = SeriesTokenizer(floor=0, length=240, patch=8)
    signal = torch.linspace(0, 1, 240).repeat(1, 2, 1)
    signal[0, 1, 100:140] = torch.nan
    picture = tokenizer.picture(signal)
    assert picture.shape == (1, 3, 192, 240)
    ink = (picture[0] < 0.5).any(0)
    first, second = ink[:96], ink[96:]
    height = first.float().argmax(0)  # the highest inked row of each column
    assert height[0] > height[120] > height[239]
    assert abs(int(height[120]) - 47) <= 2
    assert second[:, :99].any(0).all()
    assert not second[:, 101:139].any()


def test_a_picture_keeps_the_scale_of_another_and_of_constants_and_gaps():
    tokenizer = SeriesTokenizer(floor=0, length=240, patch=8)
    like = torch.linspace(-1, 1, 240).repeat(1, 1, 1)
    half = tokenizer.picture(like * 0 + 0.5, like)
    row = (half[0] < 0.5).any(0).float().mean(1).argmax()
    assert abs(int(row) - round(95 * (0.08 + 0.84 * 0.25))) <= 1
    for odd in (torch.zeros(1, 1, 240), torch.full((1, 1, 240), torch.nan), like * 1e30):
        assert torch.isfinite(tokenizer.picture(odd)).all()
        assert torch.isfinite(tokenizer.picture(like, odd)).all()


@pytest.mark.parametrize("steps", [40, 240, 640, 1056, 5000])
def test_the_footprint_covers_the_columns_of_chosen_tokens_alone(steps):
    tokenizer = SeriesTokenizer(floor=0, length=steps, patch=8)
    tokens = tokenizer.tokenize(random(2, 3, steps))
    picture = tokenizer.picture(random(2, 3, steps))
    cells = steps // 8
    chosen = torch.zeros(2, 3, cells, dtype=torch.bool)
    chosen[0, 1, 1] = chosen[1, 2] = True
    found = tokenizer.footprint(tokens, chosen.flatten(1))
    assert found.shape == (2, *picture.shape[2:])
    height = found.shape[1] // 3
    assert found[1, 2 * height :].all()
    assert not found[1, : 2 * height].any()
    columns = found[0, height : 2 * height].all(0).nonzero()[:, 0]
    assert not found[0, :height].any()
    places = (columns + 0.5) / found.shape[2] * steps
    assert len(columns) >= 1
    assert 8 - steps / found.shape[2] <= places.min()
    assert places.max() <= 16 + steps / found.shape[2]


def test_scales_count_steps_and_name_variates():
    scales = SeriesTokenizer(floor=0, length=96, patch=8).scales(random(1, 3, 1056))
    assert [text for _, text in scales.horizontal.ticks] == ["0", "200", "400", "600", "800", "1000"]
    assert [text for _, text in scales.vertical.ticks] == ["0", "1", "2"]
    assert SeriesTokenizer(floor=0, length=96, patch=8).scales(random(1, 1, 96)).vertical is None


def test_plain_features_are_mean_and_spread_of_what_is_there():
    stored = random(2, 2, 50)
    stored[0, 0, 10:] = torch.nan
    stored[1, 1] = torch.nan
    features = SeriesTokenizer(floor=0).plain_features(stored)["mean and spread"]
    assert features.shape == (2, 4)
    torch.testing.assert_close(features[0, 0], stored[0, 0, :10].mean())
    torch.testing.assert_close(features[0, 3], stored[0, 1].std(correction=0), rtol=1e-4, atol=0)
    assert features[1, [2, 3]].tolist() == [0, 0]


def test_wrong_settings_and_signals_are_refused():
    with pytest.raises(ShapeError, match="nearest: 96 or 112"):
        SeriesTokenizer(floor=0, length=100, patch=16)
    with pytest.raises(ValidationError, match="leaves nothing"):
        SeriesTokenizer(floor=0, length=32, patch=8, horizon=32)
    with pytest.raises(ShapeError, match="no longer than the horizon"):
        SeriesTokenizer(floor=0, length=32, patch=8, horizon=16).prepare(random(1, 1, 16))
    with pytest.raises(ShapeError, match=r"variates, time"):
        SeriesTokenizer(floor=0).collate([random(3)])
    with pytest.raises(ShapeError, match=r"\(1, 512\)"):
        SeriesTokenizer(floor=0).tokenize(random(1, 512))
