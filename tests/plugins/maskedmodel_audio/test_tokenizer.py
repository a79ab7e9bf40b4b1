import copy
import math

import pytest
import torch
from maskedmodel_audio.frontend import FLOOR
from maskedmodel_audio.settings import SpectrogramSettings
from maskedmodel_audio.tokenizer import Spectrogram
from pydantic import ValidationError

from maskedmodel import MaskedAutoencoder, Noise
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import DataError, ShapeError
from maskedmodel.noise import seeded
from maskedmodel.testing.fixtures import Direct, Fixed
from maskedmodel.tokens import hidden_count

SMALL = {"sample_rate": 8000, "duration": 1.0, "mels": 32, "patch": 8, "statistics": {"mean": [-6.0], "std": [4.0]}}


def small(**values):
    return Spectrogram(**{**SMALL, **values})


def noise_clip(seconds, rate=8000, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(channels, round(seconds * rate), generator=generator)


def model_of(own, **encoder):
    settings = ModelSettings(
        encoder=EncoderSettings(dim=32, depth=2, heads=2, **encoder), decoder=DecoderSettings(dim=32, depth=1, heads=2)
    )
    with seeded(0):
        return MaskedAutoencoder(own, Fixed(), Direct(), settings).eval()


def test_the_default_is_audiomaes_ten_seconds():
    own = Spectrogram(statistics="audioset")
    assert own.size == (1008, 128)  # 998 frames, up to whole patches
    assert own.extents == (63, 8)
    tokens = own.tokenize(own.prepare(noise_clip(10, 16000)[None]))
    assert tokens.length == 504
    assert tokens.grid == (63, 8)
    assert tokens.axes == ("time", "frequency")
    assert tokens.coords[1].tolist() == [0, 1]  # frequency fastest
    assert tokens.valid is None
    assert int(tokens.observed[0, -1].sum()) == 6 * 16  # 998 = 62 * 16 + 6 frames
    assert tokens.observed[0, -1, : 6 * 16].all()


def test_values_of_a_token_run_over_frames_then_mel_bins():
    own = small()
    prepared = own.prepare(noise_clip(1)[None])
    tokens = own.tokenize(prepared)
    patch = (prepared[0, 0, 8:16, 16:24] + 6.0) / 8.0
    torch.testing.assert_close(tokens.values[0, 1 * 4 + 2], patch.flatten())


def test_tokens_are_normalised_as_the_reference():
    own = small(statistics="esc50")
    prepared = own.prepare(noise_clip(1)[None])
    expected = (prepared + 6.6268077) / (2 * 5.358466)
    first = own.tokenize(prepared).values[0, 0]
    torch.testing.assert_close(first, expected[0, 0, :8, :8].flatten())


def test_what_a_clip_lacks_is_padding_and_never_scored():
    own = small()
    clips = [noise_clip(1.0), noise_clip(0.3, seed=1), noise_clip(0.02, seed=2), noise_clip(0.113, seed=3)]
    tokens = own.tokenize(own.prepare(own.collate(clips)))
    frames = [98, 28, 1, 9]  # a clip shorter than a frame has one
    for row, count in enumerate(frames):
        whole, rest = divmod(count, 8)
        assert int(tokens.valid[row].sum()) == 4 * (whole + (rest > 0))
        observed = tokens.observed[row].reshape(13, 4, 8, 8)
        assert observed[:whole].all()
        if rest:
            assert observed[whole, :, :rest].all()
            assert not observed[whole, :, rest:].any()
        assert not observed[whole + (rest > 0) :].any()
    assert torch.isfinite(tokens.values).all()


def test_a_clip_is_prepared_the_same_in_any_batch():
    own = small()
    clips = [noise_clip(0.9), noise_clip(0.31, seed=1), noise_clip(2.2, seed=2), noise_clip(0.01, seed=3)]
    together = own.prepare(own.collate(clips))
    for row, clip in enumerate(clips):
        alone = own.prepare(clip[None])
        torch.testing.assert_close(together[row, :, : alone.shape[2]], alone[0], rtol=0, atol=5e-6, equal_nan=True)
        assert together[row, :, alone.shape[2] :].isnan().all()


@pytest.mark.parametrize("positions", ["sincos", "learned", "rotary"])
def test_one_and_ten_second_clips_in_a_batch_have_the_loss_they_have_alone(positions):
    own = small(duration=10.0)
    model = model_of(own, positions=positions)
    clips = [noise_clip(10.0), noise_clip(1.0, seed=1), noise_clip(3.33, seed=2)]
    noise = Noise.of(["a", "b", "c"])
    with torch.no_grad():
        together = model(own.prepare(own.collate(clips)), noise=noise)
        total, scored = 0.0, 0
        for row, clip in enumerate(clips):
            alone = model(own.prepare(clip[None]), noise=noise.rows(slice(row, row + 1)))
            real = together.mask.hidden_valid[row]
            count = int(real.sum())
            assert count == alone.mask.scored
            mean = together.loss_per_token[row][real].mean()
            torch.testing.assert_close(mean, alone.loss, rtol=1e-4, atol=1e-6)
            total, scored = total + float(alone.loss) * count, scored + count
    assert float(together.loss) == pytest.approx(total / scored, rel=1e-4)
    frames = own.front_end.frames(8000)
    assert int(together.mask.hidden[1].sum()) == hidden_count(4 * math.ceil(frames / 8), 0.5)


def test_padding_changes_no_feature():
    own = small(duration=2.0)
    model = model_of(own)
    clips = [noise_clip(2.0), noise_clip(0.5, seed=1)]
    with torch.no_grad():
        together = model.embed(own.prepare(own.collate(clips)))
        for row, clip in enumerate(clips):
            torch.testing.assert_close(together[row], model.embed(own.prepare(clip[None]))[0], rtol=1e-4, atol=1e-5)


def test_a_long_clip_is_kept_whole_as_tiles():
    own = small()
    prepared = own.prepare(noise_clip(2.5)[None])
    assert prepared.shape == (1, 1, 3 * 104, 32)
    assert int((~prepared[0, 0, :, 0].isnan()).sum()) == 248  # every frame of 2.5 s
    tokens = own.tokenize(prepared)
    assert tokens.grid is None
    assert tokens.coords[:, 0].tolist() == [t % 13 for t in range(39) for _ in range(4)]
    torch.testing.assert_close(own.detokenize(tokens.values, tokens), prepared, rtol=0, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("positions", ["sincos", "learned", "rotary"])
def test_a_clip_that_repeats_itself_has_the_feature_of_one_period(positions):
    own = small()
    model = model_of(own, positions=positions, class_token=False)  # one that is seen once weighs less
    once = own.example(1, torch.Generator().manual_seed(0))
    once = own.prepare(torch.cat([once, once], -1))[:, :, :104]  # a whole window: no frame lacks
    assert not once.isnan().any()
    thrice = once.repeat(1, 1, 3, 1)
    other = own.prepare(noise_clip(1.1)[None])[:, :, :104]
    with torch.no_grad():
        one = model.embed(once)
        torch.testing.assert_close(model.embed(thrice), one, rtol=1e-4, atol=1e-5)
        assert (model.embed(torch.cat([once, other], 2)) - one).abs().max() > 1e-2  # the rest is seen


def test_only_the_longest_part_is_kept():
    own = small(longest=2.0)
    assert own.collate([noise_clip(5.0), noise_clip(1.0)]).shape == (2, 1, 16000)
    whole, part = own.prepare(noise_clip(5.0)[None]), own.prepare(noise_clip(5.0)[None, :, :16000])
    assert torch.equal(whole.nan_to_num(), part.nan_to_num())


def test_shorter_spectrograms_take_the_first_positions():
    own = small()
    tokens = own.tokenize(torch.zeros(1, 1, 24, 32))
    assert tokens.grid is None
    assert tokens.coords[:, 0].tolist() == [t for t in range(3) for _ in range(4)]


def test_filling_up_reproduces_audiomae():
    own = Spectrogram(duration=10.0, statistics="audioset", fill_to=1024, front_end="kaldi")
    assert own.extents == (64, 8)
    wave = noise_clip(10, 16000) + 0.01
    prepared = own.prepare(wave[None])
    import torchaudio

    fbank = torchaudio.compliance.kaldi.fbank(
        wave - wave.mean(),
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    reference = (torch.nn.functional.pad(fbank, (0, 0, 0, 1024 - 998)) + 4.2677393) / (2 * 4.5689974)
    tokens = own.tokenize(prepared)
    assert tokens.valid is None
    assert tokens.observed is None
    shown = tokens.values.reshape(64, 8, 16, 16).permute(0, 2, 1, 3).reshape(1024, 128)
    torch.testing.assert_close(shown, reference, rtol=0, atol=1e-5)
    assert float(shown[-1, 0]) == pytest.approx(0.467, abs=1e-3)


def test_channels_that_are_there_are_averaged():
    own = small()
    stereo, mono = noise_clip(0.5, channels=2), noise_clip(0.7, seed=1)
    batch = own.collate([stereo, mono])
    assert batch.shape == (2, 2, 5600)
    prepared = own.prepare(batch)
    for row, clip in enumerate((stereo.mean(0, keepdim=True), mono)):
        torch.testing.assert_close(prepared[row], own.prepare(clip[None])[0], rtol=0, atol=1e-5, equal_nan=True)


def test_frames_over_a_gap_are_absent():
    own = small()
    clip = noise_clip(1.0)
    clip[0, 4000:4100] = math.nan
    there = ~own.prepare(clip[None])[0, 0, :, 0].isnan()
    absent = [frame for frame in range(98) if not there[frame]]
    assert absent == list(range(48, 52))  # frames of 200 samples every 80 that meet 4000 to 4099


def test_silence_is_finite_and_can_be_trained_on():
    own = small()
    prepared = own.prepare(torch.zeros(2, 1, 8000))
    assert float(prepared[0, 0, 0, 0]) == pytest.approx(math.log(FLOOR))
    assert torch.isfinite(model_of(own)(prepared, noise=Noise.of([0, 1])).loss)
    picture = own.picture(prepared)
    assert torch.isfinite(picture).all()


def test_a_constant_offset_is_no_sound():
    own = small()
    silent = own.prepare(torch.full((1, 1, 8000), 0.7))
    assert float(silent.nan_to_num(-99.0).amax()) == pytest.approx(math.log(FLOOR), abs=1e-3)


def test_measured_statistics_are_those_of_what_is_there():
    own = small(statistics="measured")
    clips = [noise_clip(1.0), 0.01 * noise_clip(0.3, seed=1), noise_clip(0.77, seed=2)]
    prepared = [own.prepare(own.collate(clips[:2])), own.prepare(clips[2][None])]
    assert own.needs_statistics
    with pytest.raises(DataError, match="haven't been measured"):
        own.tokenize(prepared[0])
    own.fit_statistics(prepared)
    values = torch.cat([p[~p.isnan()] for p in prepared]).double()
    assert float(own.mean) == pytest.approx(float(values.mean()), rel=1e-5)
    assert float(own.std) == pytest.approx(float(values.std(correction=0)), rel=1e-5)
    loaded = small(statistics="measured")
    loaded.load_state_dict(own.state_dict())
    assert not loaded.needs_statistics
    assert torch.equal(loaded.tokenize(prepared[0]).values, own.tokenize(prepared[0]).values)


def test_statistics_of_nothing_and_of_silence_are_refused():
    with pytest.raises(DataError, match="no data"):
        small(statistics="measured").fit_statistics([])
    own = small(statistics="measured")
    with pytest.raises(DataError, match="no usable statistics"):
        own.fit_statistics([own.prepare(torch.zeros(2, 1, 8000))])


def test_given_statistics_are_kept():
    own = small()
    own.fit_statistics([own.prepare(noise_clip(1.0)[None])])
    assert (float(own.mean), float(own.std)) == (-6.0, 4.0)


def test_training_sees_a_crop_of_the_duration():
    own = small(gain=None)
    clip = noise_clip(3.0)
    batch = own.collate([clip, noise_clip(0.4, seed=1)])
    augmented = own.augment(batch, Noise.of([0, 1]))
    assert augmented.shape == (2, 1, 104, 32)
    assert int((~augmented[0, 0, :, 0].isnan()).sum()) == 98
    torch.testing.assert_close(augmented[1], own.prepare(batch[1:, :, :3200])[0], rtol=0, atol=1e-5, equal_nan=True)
    again = own.augment(batch, Noise.of([0, 1], epoch=1))
    assert not torch.equal(augmented[0].nan_to_num(), again[0].nan_to_num())


def test_what_it_prepares_and_augments_is_a_function_of_signal_and_noise_with_padding_too():
    own = small(roll=True)
    batch = own.collate([noise_clip(3.0), noise_clip(0.4, seed=1), noise_clip(1.7, seed=2)])
    noise = Noise.of(range(3))
    first, again = own.augment(batch.clone(), noise), own.augment(batch.clone(), noise)
    torch.testing.assert_close(first, again, rtol=0, atol=0, equal_nan=True)
    assert first.isnan().any()
    order = torch.tensor([2, 0, 1])
    shuffled = own.augment(batch[order], noise.rows(order))
    torch.testing.assert_close(shuffled, first[order], rtol=0, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(own.prepare(batch), own.prepare(batch.clone()), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "signal",
    [
        torch.zeros(2, 8000),
        torch.zeros(2, 1, 8000, dtype=torch.int16),
        torch.zeros(2, 1, 0),
        torch.zeros(2, 0, 8000),
        torch.zeros(8000),
    ],
)
def test_what_is_no_batch_of_waveforms_is_refused(signal):
    with pytest.raises(ShapeError, match=r"\(batch, channels, samples\)"):
        small().prepare(signal)


@pytest.mark.parametrize("clip", [torch.zeros(8000), torch.zeros(1, 0), torch.zeros(1, 9, dtype=torch.int16)])
def test_what_is_no_waveform_is_refused(clip):
    with pytest.raises(ShapeError, match=r"\(channels, samples\)"):
        small().collate([clip])


def test_another_number_of_mel_bins_is_refused():
    with pytest.raises(ShapeError, match="mel bins"):
        small().tokenize(torch.zeros(1, 1, 104, 40))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hop": 0.03}, "overlap"),
        ({"duration": 90.0}, "must not decrease"),
        ({"frame": 2.0, "duration": 1.0}, "must not decrease"),
        ({"gain": (3.0, -3.0)}, "decibels"),
        ({"statistics": {"mean": [0.0], "std": [0.0]}}, "greater than 0"),
        ({"statistics": {"mean": [0.0, 1.0], "std": [1.0, 1.0]}}, "1 numbers each"),
        ({"mels": 3}, "greater than or equal to 4"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, words):
    with pytest.raises(ValidationError, match=words):
        SpectrogramSettings(**values)


def test_mel_bins_must_divide_by_the_patch():
    with pytest.raises(ShapeError, match="frequency"):
        small(patch=(8, 12))


def test_a_copy_works_alike():
    own = small()
    prepared = own.prepare(noise_clip(1.0)[None])
    assert torch.equal(copy.deepcopy(own).prepare(noise_clip(1.0)[None]).nan_to_num(), prepared.nan_to_num())
