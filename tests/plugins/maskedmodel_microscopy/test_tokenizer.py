"""channels: cutting and putting together, ragged batches, what becomes ready to cut, pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_microscopy.tokenizer import ChannelsSettings, ChannelsTokenizer
from pydantic import ValidationError
from torch import Tensor

from maskedmodel import Noise, Tokens
from maskedmodel.errors import ConfigError, DataError, ShapeError
from maskedmodel.pictures import ABSENT

NAN = float("nan")


def tokenizer(**values: Any) -> ChannelsTokenizer:
    return ChannelsTokenizer(**{"size": 16, "patch": 4, "channels": 5, **values})


def field(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def same(left: Tensor, right: Tensor) -> bool:
    """Equal bit for bit, NaN equal to NaN."""
    return left.shape == right.shape and torch.allclose(left, right, atol=0, rtol=0, equal_nan=True)


def ragged() -> Tensor:
    """(3, 5, 16, 16): channels 1 and 3; all; channel 2 alone, of 10 x 13 pixels."""
    signal = torch.full((3, 5, 16, 16), NAN)
    signal[0, [1, 3]] = field(2, 16, 16)
    signal[1] = field(5, 16, 16, seed=1)
    signal[2, 2, :10, :13] = field(10, 13, seed=2)
    return signal


class TestTokens:
    def test_whole_batches_are_a_grid_channel_by_channel(self) -> None:
        tokens = tokenizer().tokenize(field(2, 3, 16, 16))
        assert tokens.values.shape == (2, 48, 16)
        assert tokens.grid == (4, 4)
        assert tokens.valid is None
        assert tokens.observed is None
        assert tokens.channel is not None
        assert tokens.channel.tolist() == [0] * 16 + [1] * 16 + [2] * 16

    def test_values_of_a_token_are_its_patch_row_by_row(self) -> None:
        signal = torch.arange(2 * 8 * 12.0).reshape(1, 2, 8, 12)
        tokens = tokenizer(size=(8, 12), patch=(4, 6)).tokenize(signal)
        assert torch.equal(tokens.values[0, 7], signal[0, 1, 4:8, 6:12].flatten())
        assert tokens.coords[7].tolist() == [1, 1]

    def test_absent_channels_cost_nothing_but_padding_to_the_longest(self) -> None:
        tokens = tokenizer().tokenize(ragged())
        assert tokens.length == 5 * 16
        assert tokens.valid is not None
        assert tokens.valid.sum(1).tolist() == [32, 80, 12]
        assert tokenizer().tokenize(ragged()[:1]).length == 32
        assert tokenizer().tokenize(ragged()[2:]).length == 12
        assert tokens.grid is None

    def test_real_tokens_come_first_and_know_their_slot_and_place(self) -> None:
        tokens = tokenizer().tokenize(ragged())
        assert tokens.valid is not None
        assert tokens.channel is not None
        assert tokens.valid[0, :32].all()
        assert tokens.channel[0, :32].tolist() == [1] * 16 + [3] * 16
        assert tokens.channel[2, :12].tolist() == [2] * 12
        assert tokens.coords[2, :12].tolist() == [[row, column] for row in range(3) for column in range(4)]

    def test_pixels_beyond_a_small_picture_are_not_observed(self) -> None:
        tokens = tokenizer().tokenize(ragged())
        assert tokens.observed is not None
        assert int(tokens.observed[2, :12].sum()) == 10 * 13
        assert tokens.observed[0, :32].all()
        assert torch.isfinite(tokens.values).all()

    def test_the_round_trip_gives_absent_slots_back(self) -> None:
        own, signal = tokenizer(), ragged()
        tokens = own.tokenize(signal)
        assert same(own.detokenize(tokens.values, tokens), signal)
        assert same(own.detokenize(tokens.rows(slice(2, 3)).values, tokens.rows(slice(2, 3))), signal[2:])

    @given(
        present=st.lists(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=1, max_size=4),
        extents=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    )
    @settings(deadline=None, max_examples=40)
    def test_the_round_trip_is_exact_whatever_is_absent(
        self, present: list[list[bool]], extents: tuple[int, int]
    ) -> None:
        own, signal = tokenizer(size=12), field(len(present), 4, 12, 12)
        signal[~torch.tensor(present)] = NAN
        signal[0, :, extents[0] :] = NAN
        signal[-1, :, :, extents[1] :] = NAN
        tokens = own.tokenize(signal)
        assert same(own.detokenize(tokens.values, tokens), signal)
        assert tokens.valid is None or tokens.valid.any(0)[-1]  # no longer than the longest

    def test_slots_beyond_the_known_channels_are_cut_and_named(self) -> None:
        own, signal = tokenizer(channels=2), field(1, 4, 16, 16)
        tokens = own.tokenize(signal)
        assert own.channel_count == 2
        assert tokens.channel is not None
        assert int(tokens.channel.max()) == 3
        assert same(own.detokenize(tokens.values, tokens), signal)

    def test_other_sizes_than_the_usual_are_cut(self) -> None:
        own, signal = tokenizer(), field(1, 2, 32, 8)
        signal[:, 0] = NAN
        tokens = own.tokenize(signal)
        assert same(own.detokenize(tokens.values, tokens), signal)

    def test_a_sample_without_any_channel_is_refused(self) -> None:
        signal = ragged()
        signal[1] = NAN
        with pytest.raises(DataError, match=r"(?s)no channel with any value.*sample 1 of a batch of 3.*5 slots"):
            tokenizer().tokenize(signal)

    @pytest.mark.parametrize(
        "signal",
        [torch.zeros(3, 16, 16), torch.zeros(1, 0, 16, 16), torch.zeros(1, 2, 16, 16, dtype=torch.uint8)],
    )
    def test_what_cannot_be_cut_is_refused_with_its_shape(self, signal: Tensor) -> None:
        with pytest.raises(ShapeError, match=r"1 channel slot or more"):
            tokenizer().tokenize(signal)

    def test_a_size_the_patch_does_not_divide_is_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"(?s)height.*multiple of 4"):
            tokenizer().tokenize(torch.zeros(1, 2, 15, 16))
        with pytest.raises(ShapeError, match="nearest"):
            tokenizer(size=30)

    def test_tokens_of_another_tokenizer_are_refused(self) -> None:
        own = tokenizer()
        tokens = own.tokenize(field(1, 2, 16, 16))
        plain = Tokens(tokens.values, tokens.coords, tokens.axes, tokens.grid, tokens.channel)
        with pytest.raises(ShapeError, match="extents"):
            own.detokenize(plain.values, plain)


class TestCollate:
    def test_samples_of_other_channels_sizes_and_types_share_a_batch(self) -> None:
        small = torch.full((2, 8, 9), 51, dtype=torch.uint8)
        batch = tokenizer().collate([small, field(3, 16, 10), torch.full((1, 4, 4), 65535, dtype=torch.uint16)])
        assert batch.shape == (3, 3, 16, 10)
        assert batch.dtype == torch.float32
        assert torch.equal(batch[0, :2, :8, :9], torch.full((2, 8, 9), 0.2))
        assert batch[0, 2].isnan().all()
        assert batch[0, :, 8:].isnan().all()
        assert batch[2, 0, :4, :4].eq(1).all()

    @pytest.mark.parametrize("bad", [torch.zeros(4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)])
    def test_what_is_no_picture_is_refused(self, bad: Tensor) -> None:
        with pytest.raises(ShapeError, match="channel slots, height, width"):
            tokenizer().collate([bad, bad])


class TestPrepare:
    def test_channels_are_standardised_each_by_itself(self) -> None:
        signal = field(2, 3, 16, 16) * torch.tensor([0.1, 1, 40.0])[:, None, None] + 7
        prepared = tokenizer().prepare(signal).double()
        torch.testing.assert_close(prepared.mean((2, 3)), torch.zeros(2, 3).double(), atol=1e-5, rtol=0)
        exact = signal.double()
        variance, mean = torch.var_mean(exact, (2, 3), correction=0, keepdim=True)
        torch.testing.assert_close(prepared, (exact - mean) / (variance + 1e-5).sqrt(), atol=1e-4, rtol=0)

    def test_it_is_instance_normalisation(self) -> None:
        signal = field(2, 3, 16, 16)
        expected = torch.nn.functional.instance_norm(signal, eps=1e-5)
        torch.testing.assert_close(tokenizer().prepare(signal), expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("level", [0.0, 0.3, 46161.0, -1e6])
    def test_a_constant_channel_becomes_zeros(self, level: float) -> None:
        signal = field(1, 2, 16, 16)
        signal[:, 1] = level
        prepared = tokenizer().prepare(signal)
        assert prepared[:, 1].eq(0).all()
        assert prepared[:, 0].std() > 0.9

    def test_only_what_is_there_counts(self) -> None:
        signal = torch.full((1, 3, 16, 16), NAN)
        signal[0, 1, :5, :7] = field(5, 7)
        prepared = tokenizer().prepare(signal)
        assert torch.equal(prepared.isnan(), signal.isnan())
        inside = prepared[0, 1, :5, :7]
        assert abs(float(inside.mean())) < 1e-6
        torch.testing.assert_close(inside.var(correction=0), torch.tensor(1.0), atol=1e-3, rtol=0)

    def test_larger_pictures_give_their_centre_smaller_ones_lie_at_the_top_left(self) -> None:
        own = tokenizer(standardise="none")
        large, small = field(2, 20, 31), field(2, 9, 12)
        prepared = own.prepare(own.collate([large, small]))
        assert torch.equal(prepared[0], large[:, 2:18, 7:23])
        assert torch.equal(prepared[1, :, :9, :12], small)
        assert prepared[1, :, 9:].isnan().all()
        assert prepared[1, :, :, 12:].isnan().all()

    def test_without_standardisation_the_right_size_is_left_alone(self) -> None:
        own, signal = tokenizer(standardise="none"), ragged()
        assert same(own.prepare(signal), signal)

    def test_integers_are_put_on_a_scale_where_white_is_one(self) -> None:
        own = tokenizer(standardise="none")
        assert own.prepare(torch.full((1, 1, 16, 16), 51, dtype=torch.uint8)).unique().tolist() == [pytest.approx(0.2)]
        with pytest.raises(ShapeError, match="uint8 or uint16"):
            own.prepare(torch.zeros(1, 1, 16, 16, dtype=torch.int32))

    def test_whole_fields_outside_training(self) -> None:
        own, signal = tokenizer(eval_size=(24, 32), standardise="none"), field(2, 3, 30, 32)
        assert torch.equal(own.prepare(signal), signal[:, :, 3:27])
        assert own.augment(signal, noise(2)).shape == (2, 3, 16, 16)
        assert own.extents == (4, 4)
        with pytest.raises(ShapeError, match="nearest: 28 or 32"):
            tokenizer(eval_size=30)


def noise(count: int, epoch: int = 0) -> Noise:
    return Noise.of(list(range(count)), epoch=epoch)


class TestAugment:
    def test_windows_are_turned_pieces_of_the_picture(self) -> None:
        own = tokenizer(size=4, patch=2, standardise="none")
        stored = torch.arange(64.0).reshape(1, 1, 8, 8).expand(300, -1, -1, -1)
        seen = own.augment(stored, noise(300))[:, 0]
        pieces = {
            tuple(turned.flatten().tolist())
            for top in range(5)
            for left in range(5)
            for window in (stored[0, 0, top : top + 4, left : left + 4],)
            for quarter in range(4)
            for turned in (window.rot90(quarter), window.rot90(quarter).flip(0))
        }
        assert len(pieces) == 25 * 8
        drawn = {tuple(window.flatten().tolist()) for window in seen}
        assert drawn <= pieces
        assert len(drawn) > 120  # of 300 draws out of 200, 155 distinct ones are to be expected

    def test_without_anything_random_it_is_prepare(self) -> None:
        own = tokenizer(crop=False, turn=False)
        stored = own.collate([field(2, 20, 31), field(3, 9, 12)])
        assert same(own.augment(stored, noise(2)), own.prepare(stored))

    def test_a_window_that_is_not_square_is_mirrored_alone(self) -> None:
        own = tokenizer(size=(4, 8), standardise="none", crop=False)
        stored = torch.arange(32.0).reshape(1, 1, 4, 8).expand(50, -1, -1, -1)
        mirrored = {tuple(stored[0, 0].flip(dims).flatten().tolist()) for dims in ([], [0], [1], [0, 1])}
        assert {tuple(window.flatten().tolist()) for window in own.augment(stored, noise(50))} == mirrored

    def test_small_pictures_lose_nothing(self) -> None:
        own = tokenizer(standardise="none")
        stored = own.collate([field(1, 9, 12)])
        for epoch in range(8):
            window = own.augment(stored, noise(1, epoch))
            assert sorted(window[~window.isnan()].tolist()) == sorted(stored[~stored.isnan()].tolist())

    def test_channels_of_a_sample_are_cut_alike(self) -> None:
        own = tokenizer(standardise="none")
        stored = field(6, 1, 40, 40).expand(-1, 3, -1, -1)
        window = own.augment(stored, noise(6))
        assert torch.equal(window[:, 0], window[:, 1])
        assert torch.equal(window[:, 0], window[:, 2])

    def test_a_sample_depends_on_its_own_noise_alone(self) -> None:
        own = tokenizer(channel_sampling="hierarchical")
        stored = own.collate([field(5, 30, 20), field(2, 16, 16), field(3, 9, 40)])
        together = own.augment(stored, noise(3))
        for row, signal in enumerate([field(5, 30, 20), field(2, 16, 16), field(3, 9, 40)]):
            alone = own.augment(signal[None], noise(3).rows(slice(row, row + 1)))
            assert same(together[row, : len(signal)], alone[0])
            assert together[row, len(signal) :].isnan().all()
        assert not same(together, own.augment(stored, noise(3, epoch=1)))

    def test_the_global_generator_is_untouched(self) -> None:
        before = torch.random.get_rng_state()
        tokenizer(channel_sampling="hierarchical").augment(field(2, 3, 20, 20), noise(2))
        assert torch.equal(before, torch.random.get_rng_state())

    def test_hierarchical_sampling_draws_a_number_then_a_part(self) -> None:
        own = tokenizer(size=4, channel_sampling="hierarchical")
        stored = torch.full((3000, 4, 4, 4), NAN)
        stored[:, [0, 1, 3]] = field(3000, 3, 4, 4)
        kept = ~own.augment(stored, noise(3000)).isnan().flatten(2).any(2)
        assert not kept[:, 2].any()
        for count in (1, 2, 3):  # a third each, within four standard errors
            assert abs(float((kept.sum(1) == count).float().mean()) - 1 / 3) < 0.035
        ones = kept[kept.sum(1) == 1].float().mean(0)
        assert all(abs(float(share) - 1 / 3) < 0.06 for share in ones[[0, 1, 3]])

    def test_more_slots_than_the_model_knows_are_refused_in_training(self) -> None:
        with pytest.raises(ConfigError, match=r"(?s)tokenizer.channels.*3 or more.*got: 2.*tokenizer.channels=3"):
            tokenizer(channels=2).augment(field(1, 3, 16, 16), noise(1))
        anonymous = tokenizer(channels=2, unknown_channels="anonymous")
        assert anonymous.augment(field(1, 3, 16, 16), noise(1)).shape == (1, 3, 16, 16)
        assert tokenizer(channels=2).prepare(field(1, 3, 16, 16)).shape == (1, 3, 16, 16)


class TestPicture:
    def test_a_grey_picture_per_channel_and_colours_below(self) -> None:
        own, signal = tokenizer(), ragged()
        shown = own.picture(signal)
        assert shown.shape == (3, 3, 6 * 16, 16)
        assert torch.equal(shown[:, 0, :80], shown[:, 2, :80])
        levels = shown[1, 0, :16]
        assert float(levels.min()) == 0
        assert float(levels.max()) == 1
        assert shown[0, :, :16].eq(ABSENT).all()  # slot 0 of sample 0
        assert shown[2, :, 80 + 10 :].eq(ABSENT).all()
        assert not shown[1, :, 80:].eq(ABSENT).all(0).any()

    def test_slots_that_no_sample_has_are_left_out(self) -> None:
        own = tokenizer(names=("DNA", "actin"))
        assert own.picture(ragged()[:1]).shape == (1, 3, 3 * 16, 16)
        scale = own.scales(ragged()[:1]).vertical
        assert scale is not None
        assert [text for _, text in scale.ticks] == ["actin", "channel 3", "together"]
        assert [place for place, _ in scale.ticks] == pytest.approx([1 / 6, 3 / 6, 5 / 6])

    def test_a_reconstruction_is_on_the_scale_of_the_original(self) -> None:
        own, signal = tokenizer(), field(1, 2, 16, 16)
        shown, dim = own.picture(signal), own.picture(0.5 * signal, signal)
        assert float(dim[0, :, :32].max()) < 0.55 < float(shown[0, :, :32].max())
        with_nan = own.picture(torch.full_like(signal, NAN), signal)
        assert with_nan.eq(ABSENT).all()

    @pytest.mark.parametrize(
        "signal", [torch.zeros(1, 2, 16, 16), torch.full((1, 2, 16, 16), NAN), 1e30 * field(1, 1, 16, 16)]
    )
    def test_nothing_makes_it_fail(self, signal: Tensor) -> None:
        shown = tokenizer().picture(signal)
        assert torch.isfinite(shown).all()
        assert shown.min() >= 0
        assert shown.max() <= 1

    def test_one_bright_speck_does_not_darken_the_rest(self) -> None:
        signal = field(1, 1, 32, 32)
        signal[0, 0, 3, 3] = 1000
        assert tokenizer(size=32).picture(signal)[0, 0, :32].mean() > 0.4

    def test_the_footprint_is_where_chosen_tokens_alone_show(self) -> None:
        own = tokenizer()
        tokens = own.tokenize(ragged())
        chosen = torch.zeros(tokens.values.shape[:2], dtype=torch.bool)
        chosen[0, [0, 16]] = True  # both channels of sample 0 at the top left
        chosen[1, 5] = True  # one of five channels of sample 1
        marks = own.footprint(tokens, chosen)
        assert marks.shape == (3, 6 * 16, 16)
        expected = torch.zeros_like(marks)
        for top in (1 * 16, 3 * 16, 5 * 16):  # the rows of channels 1 and 3, and the composite
            expected[0, top : top + 4, :4] = True
        expected[1, 4:8, 4:8] = True
        assert torch.equal(marks, expected)


class TestPlainFeatures:
    def test_means_and_spreads_of_what_is_stored(self) -> None:
        signal = ragged()
        features = tokenizer().plain_features(signal)
        means, both = features["mean intensities"], features["means and spreads"]
        assert means.shape == (3, 5)
        assert both.shape == (3, 10)
        assert means[0, [0, 2, 4]].eq(0).all()
        torch.testing.assert_close(means[2, 2], signal[2, 2, :10, :13].mean())
        torch.testing.assert_close(both[1, 5:], signal[1].flatten(1).std(1, correction=0))
        assert torch.equal(both[:, :5], means)

    def test_integers_count_as_stored_on_their_own_scale(self) -> None:
        stored = torch.full((1, 1, 4, 4), 51, dtype=torch.uint8)
        assert tokenizer().plain_features(stored)["mean intensities"].tolist() == [[pytest.approx(0.2)]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"channels": 0}, "greater than 0"),
        ({"epsilon": 0.0}, "greater than 0"),
        ({"names": ["a", "b"], "channels": 1}, "2 entries for channels: 1"),
        ({"channel_sampling": "some"}, "hierarchical"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ChannelsSettings(**values)


def test_defaults_are_those_of_ca_mae() -> None:
    own = ChannelsSettings()
    assert (own.size, own.patch, own.channels, own.standardise, own.epsilon) == (256, 16, 6, "image", 1e-5)
