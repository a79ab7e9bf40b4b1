import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_image.tokenizer import ImageSettings, ImageTokenizer
from pydantic import ValidationError

from maskedmodel import Noise
from maskedmodel.errors import DataError, ShapeError


def tokenizer(**values):
    return ImageTokenizer(**{"size": 16, "patch": 4, **values})


def example(own, batch=3):
    return own.example(batch, torch.Generator().manual_seed(0))


@given(
    patch=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.integers(1, 17),
)
@settings(deadline=None, max_examples=25)
def test_pictures_come_back(patch, grid, channels):
    size = (patch[0] * grid[0], patch[1] * grid[1])
    own = ImageTokenizer(size=size, patch=patch, channels=channels)
    signal = example(own)
    tokens = own.tokenize(signal)
    assert tokens.values.shape == (3, grid[0] * grid[1], patch[0] * patch[1] * channels)
    assert tokens.grid == grid
    torch.testing.assert_close(own.detokenize(tokens.values, tokens), signal, atol=1e-6, rtol=0)


@pytest.mark.parametrize("normalise", ["half", "imagenet", {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 2.0]}])
def test_the_round_trip_stays_within_the_declared_bound(normalise):
    own = tokenizer(normalise=normalise)
    signal = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = own.tokenize(signal)
    assert (own.detokenize(tokens.values, tokens) - signal).abs().max() <= own.round_trip_tolerance


def test_values_run_over_rows_columns_channels():
    own = tokenizer(size=[4, 6], patch=[2, 3], normalise={"mean": [0, 0, 0], "std": [1, 1, 1]})
    signal = torch.arange(72.0).reshape(1, 3, 4, 6)
    values = own.tokenize(signal).values
    expected = [[float(signal[0, c, 2 + row, column]) for row in range(2) for column in range(3) for c in range(3)]]
    assert values[0, 2:3].tolist() == expected  # token 2 is the lower left one


def test_uint8_is_its_255th():
    own = tokenizer(normalise="imagenet")
    stored = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(own.tokenize(stored).values, own.tokenize(stored.float() / 255).values)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (stored[0, :, 0, 0].float() / 255 - mean) / std
    torch.testing.assert_close(own.tokenize(stored).values[0, 0, :3], expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_kept(dtype):
    own = tokenizer()
    tokens = own.tokenize(example(own).to(dtype))
    assert tokens.values.dtype == dtype
    assert own.detokenize(tokens.values, tokens).dtype == dtype


def test_a_size_the_patch_does_not_divide_is_refused_with_the_nearest():
    with pytest.raises(ShapeError, match=r"(?s)height.*multiple of 16; nearest: 208 or 224.*got: 220"):
        ImageTokenizer(size=220, patch=16)
    with pytest.raises(ShapeError, match=r"(?s)width.*nearest: 12 or 16.*got: 14"):
        tokenizer().tokenize(torch.zeros(1, 3, 16, 14))


@pytest.mark.parametrize(
    ("signal", "numbers"),
    [(torch.zeros(2, 1, 16, 16), r"\(2, 1, 16, 16\)"), (torch.zeros(3, 16, 16), r"\(3, 16, 16\)")],
)
def test_other_shapes_are_refused_with_both_numbers(signal, numbers):
    own = tokenizer()
    for use in (own.tokenize, own.prepare, lambda x: own.augment(x, Noise.of([0, 1]))):
        with pytest.raises(ShapeError, match=rf"(?s)3 channels.*{numbers}"):
            use(signal)


def test_integers_other_than_uint8_are_refused():
    with pytest.raises(ShapeError, match="int64"):
        tokenizer().tokenize(torch.zeros(1, 3, 16, 16, dtype=torch.int64))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"normalise": "imagenet", "channels": 1}, "3 channels"),
        ({"normalise": {"mean": [0.5], "std": [0.5]}}, "needs 3 numbers each.*got 1 for mean and 1 for std"),
        ({"normalise": {"mean": [0, 0, 0], "std": [1, 0, 1]}}, "greater than 0"),
        ({"crop": [0.5, 0.2]}, "low <= high"),
        ({"crop": [0.0, 1.0]}, "0 < low"),
        ({"aspect": [2, 1]}, "low <= high"),
        ({"size": 0}, "greater than 0"),
        ({"channels": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(values, words):
    with pytest.raises(ValidationError, match=words):
        ImageSettings(**values)


def test_settings_survive_json():
    own = ImageSettings(size=[32, 48], normalise={"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}, crop=None)
    assert ImageSettings.model_validate_json(own.model_dump_json()) == own


class TestPrepare:
    def test_the_right_size_is_left_alone(self):
        own, stored = tokenizer(), torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
        assert torch.equal(own.prepare(stored), stored.float() / 255)

    @pytest.mark.parametrize(("stored", "size"), [((20, 31), (16, 16)), ((9, 8), (16, 16)), ((50, 50), (16, 32))])
    def test_the_short_side_is_resized_and_the_centre_kept(self, stored, size):
        own = tokenizer(size=size)
        ramp = torch.linspace(0, 1, stored[1]).expand(1, 3, *stored)
        prepared = own.prepare(ramp)
        assert prepared.shape == (1, 3, *size)
        # A ramp is symmetric about the centre, and stays so up to half a pixel.
        torch.testing.assert_close(prepared, 1 - prepared.flip(3), atol=0.05, rtol=0)

    def test_shrinking_is_antialiased(self):
        checker = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(1, 3, 64, 64)
        inner = tokenizer().prepare(checker)[:, :, 2:-2, 2:-2]
        torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.02, rtol=0)

    def test_eight_bits_stay_within_zero_and_one(self):
        stored = torch.randint(0, 2, (2, 3, 8, 8), dtype=torch.uint8) * 255
        prepared = tokenizer().prepare(stored)
        assert prepared.min() >= 0
        assert prepared.max() <= 1


class TestAugment:
    def test_without_crop_and_flip_it_is_prepare(self):
        own = tokenizer(crop=None, flip=False)
        for stored in (torch.rand(2, 3, 16, 16), torch.randint(0, 256, (2, 3, 21, 18), dtype=torch.uint8)):
            assert torch.equal(own.augment(stored, Noise.of([0, 1])), own.prepare(stored))

    def test_flip_alone_mirrors_about_half_of_the_samples(self):
        own = tokenizer(crop=None)
        stored = torch.rand(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        augmented = own.augment(stored, Noise.of(list(range(400))))
        mirrored = (augmented == stored.flip(3)).all(dim=(1, 2, 3))
        assert (mirrored | (augmented == stored).all(dim=(1, 2, 3))).all()
        assert 150 < mirrored.sum() < 250

    def test_a_sample_depends_on_its_own_noise_alone(self):
        own = tokenizer()
        stored = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        noise = Noise.of(["a", "b", "c", "d"], epoch=2)
        whole = own.augment(stored, noise)
        assert whole.shape == (4, 3, 16, 16)
        assert torch.equal(whole, own.augment(stored, noise))
        torch.testing.assert_close(whole[1:3], own.augment(stored[1:3], noise.rows(slice(1, 3))), atol=1e-6, rtol=0)
        assert not torch.equal(whole, own.augment(stored, Noise.of(["a", "b", "c", "d"], epoch=3)))

    def test_the_global_generator_is_untouched(self):
        before = torch.random.get_rng_state()
        tokenizer().augment(torch.rand(2, 3, 16, 16, generator=torch.Generator()), Noise.of([0, 1]))
        assert torch.equal(before, torch.random.get_rng_state())

    def test_eight_bits_stay_within_zero_and_one(self):
        stored = torch.randint(0, 2, (8, 3, 12, 12), dtype=torch.uint8) * 255
        augmented = tokenizer().augment(stored, Noise.of(list(range(8))))
        assert augmented.min() >= 0
        assert augmented.max() <= 1


class TestMeasured:
    def batches(self, offset=0.0):
        generator = torch.Generator().manual_seed(0)
        scale = torch.tensor([0.05, 0.2, 0.01])[:, None, None]
        shift = torch.tensor([0.3, 0.5, 0.7])[:, None, None] + offset
        return [torch.rand(size, 3, 16, 16, generator=generator) * scale + shift for size in (4, 1, 7)]

    @pytest.mark.parametrize("offset", [0.0, 1000.0])
    def test_numbers_equal_those_of_all_pixels_at_once(self, offset):
        own, batches = tokenizer(normalise="measured"), self.batches(offset)
        assert own.needs_statistics
        own.fit_statistics(iter(batches))
        assert not own.needs_statistics
        pixels = torch.cat(batches).double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(own.mean, pixels.mean(1).float())
        torch.testing.assert_close(own.std, pixels.std(1, unbiased=False).float())

    def test_tokens_are_standardised(self):
        own, batches = tokenizer(normalise="measured"), self.batches()
        own.fit_statistics(batches)
        values = own.tokenize(torch.cat(batches)).values.unflatten(2, (-1, 3))
        torch.testing.assert_close(values.mean((0, 1, 2)), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(values.std((0, 1, 2)), torch.ones(3), atol=1e-3, rtol=0)

    def test_tokenizing_before_is_an_error(self):
        with pytest.raises(DataError, match=r"(?s)haven't been measured.*to fix"):
            tokenizer(normalise="measured").tokenize(torch.rand(1, 3, 16, 16))

    def test_they_travel_with_a_checkpoint(self):
        own, other = tokenizer(normalise="measured"), tokenizer(normalise="measured")
        own.fit_statistics(self.batches())
        other.load_state_dict(copy.deepcopy(own.state_dict()))
        assert not other.needs_statistics
        assert torch.equal(other.mean, own.mean)

    def test_an_unmeasured_checkpoint_stays_unmeasured(self):
        own, other = tokenizer(normalise="measured"), tokenizer(normalise="measured")
        other.load_state_dict(own.state_dict())
        assert other.needs_statistics

    def test_a_constant_channel_is_an_error(self):
        batch = torch.rand(2, 3, 16, 16)
        batch[:, 1] = 0.25
        with pytest.raises(DataError, match=r"(?s)Channel 1.*standard deviation 0"):
            tokenizer(normalise="measured").fit_statistics([batch])

    def test_values_that_are_not_finite_are_an_error(self):
        batch = torch.rand(2, 3, 16, 16)
        batch[0, 2, 0, 0] = float("nan")
        with pytest.raises(DataError, match="Channel 2"):
            tokenizer(normalise="measured").fit_statistics([batch])

    def test_no_data_is_an_error(self):
        with pytest.raises(DataError, match="no data"):
            tokenizer(normalise="measured").fit_statistics([])

    def test_given_statistics_are_not_overwritten(self):
        own = tokenizer(normalise="imagenet")
        assert not own.needs_statistics
        before = own.mean.clone()
        own.fit_statistics(self.batches())
        assert torch.equal(own.mean, before)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_pictures_for_people(channels):
    own = tokenizer(channels=channels)
    signal = 3 * torch.randn(2, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    shown = own.picture(signal)
    assert shown.shape == (2, 3, 16, 16)
    expected = signal.clamp(0, 1)
    if channels == 1:
        expected = expected.repeat(1, 3, 1, 1)
    elif channels == 2:
        expected = F.pad(expected, (0, 0, 0, 0, 0, 1))
    assert torch.equal(shown, expected[:, :3])


def test_examples_are_smooth_pictures_out_of_the_generator_alone():
    own = tokenizer()
    before = torch.random.get_rng_state()
    signal = example(own, 4)
    assert torch.equal(signal, example(own, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert 0 < signal.min() < signal.max() < 1
    assert (signal[:, :, 1:] - signal[:, :, :-1]).abs().mean() < 0.5 * signal.std()
