import numpy as np
import pytest
import torch
from maskedmodel_audio.listen import wav_bytes
from maskedmodel_audio.tones import KINDS, Tones
from pydantic import ValidationError


def signals(count=10, **values):
    dataset = Tones(train_samples=count, val_samples=count, **values).open("train")
    return [dataset[index]["signal"] for index in range(count)]


def test_clips_are_labelled_balanced_and_of_uneven_lengths():
    source = Tones(train_samples=25, val_samples=10, shortest=0.2, longest=0.6)
    dataset = source.open("train")
    assert len(dataset) == 25
    assert len(source.open("val")) == 10
    labels = [dataset[index]["label"] for index in range(25)]
    assert labels == [index % 5 for index in range(25)]
    assert source.class_names() == list(KINDS)
    found = [dataset[index]["signal"] for index in range(25)]
    assert all(signal.shape[0] == 1 and signal.dtype == torch.float32 for signal in found)
    samples = [signal.shape[1] for signal in found]
    assert len(set(samples)) > 20
    assert min(samples) >= 0.2 * 16000
    assert max(samples) <= 0.6 * 16000


def test_a_clip_depends_on_its_index_alone():
    few, many = signals(10), signals(40)
    for one, other in zip(few, many, strict=False):
        assert torch.equal(one, other)
    assert not torch.equal(few[0][:, :4000], signals(10, seed=1)[0][:, :4000])
    val = Tones(train_samples=10, val_samples=10).open("val")[0]["signal"]
    assert not torch.equal(val[:, :4000], few[0][:, :4000])


def test_clips_are_as_loud_as_asked_and_as_noisy():
    for signal in signals(20, loudness=(0.25, 0.25), noise=(60.0, 60.0)):
        assert float(signal.abs().max()) == pytest.approx(0.25, rel=0.02)
    for quiet, noisy in zip(signals(20, noise=(60.0, 60.0)), signals(20, noise=(0.0, 0.0)), strict=True):
        assert float(noisy.square().mean() / quiet.square().mean()) == pytest.approx(2.0, rel=0.1)


def test_each_kind_is_what_its_name_says():
    rate = 8000
    quiet = {"sample_rate": rate, "shortest": 0.8, "longest": 0.8, "noise": (80.0, 80.0)}
    for index, signal in enumerate(signals(25, **quiet)):
        wave = signal[0].double().numpy()
        kind = KINDS[index % 5]
        frames = np.lib.stride_tricks.sliding_window_view(wave, 400)[::100] * np.hanning(400)
        power = np.abs(np.fft.rfft(frames, 4096)) ** 2
        top = power.argmax(1) * rate / 4096
        loud = power.sum(1)
        whole = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
        flat = np.exp(np.log(power + 1e-12).mean(1)) / power.mean(1)  # 1 for white noise, 0 for a tone
        if kind == "harmonic":
            lowest = whole.argmax() * rate / len(wave)
            second = whole[np.abs(np.fft.rfftfreq(len(wave), 1 / rate) - 2 * lowest) < 5].max()
            assert second > 1e-3 * whole.max() or 2 * lowest > 0.45 * rate
            assert loud.max() < 1.6 * loud.min()
        elif kind == "chirp":
            assert max(top[-1] / top[0], top[0] / top[-1]) > 1.3
            assert abs(np.corrcoef(np.arange(len(top)), top)[0, 1]) > 0.95
        elif kind == "amplitude modulated":
            assert loud.max() > 3 * loud.min()
            assert np.ptp(top) < 30
        elif kind == "frequency modulated":
            assert np.ptp(top) > 0.1 * top.mean()
            assert abs(np.corrcoef(np.arange(len(top)), top)[0, 1]) < 0.8
        else:
            assert flat[loud.argmax()] > 0.3
            assert loud.max() > 5 * loud.min()
        assert kind == "noise burst" or flat.max() < 0.05


def test_a_users_own_file_is_read_at_the_rate(tmp_path):
    path = tmp_path / "own.wav"
    path.write_bytes(wav_bytes(torch.zeros(4000), 8000, 1.0))
    sample = Tones(sample_rate=16000).read(path)
    assert sample["signal"].shape == (1, 8000)
    assert sample["id"] == "own.wav"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shortest": 2.0}, "shortest must not exceed"),
        ({"loudness": (0.5, 0.1)}, "loudness is a range"),
        ({"noise": (20.0, 0.0)}, "noise is a range"),
        ({"train_samples": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, words):
    with pytest.raises(ValidationError, match=words):
        Tones(**values)
