import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchaudio
from maskedmodel_audio.frontend import FLOOR, LogMel

# Largest difference allowed, in natural units of log-mel: a few roundings of float32 at 16.
TOLERANCE = 5e-6


def sounds(rate: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(2 * rate) / rate
    noise = 0.1 * torch.randn(2, 2 * rate, generator=generator)
    return {
        "noise": noise,
        "loud tone": 0.9 * torch.sin(2 * math.pi * 440 * time)[None],
        "noise off centre": noise + 0.3,
        "drift": torch.linspace(-0.5, 0.5, 2 * rate) + 0.1 * noise,
        "silence": torch.zeros(1, 2 * rate),
    }


@pytest.mark.parametrize(("rate", "mels"), [(16000, 128), (8000, 64), (22050, 80), (44100, 128)])
def test_fast_equals_kaldi(rate, mels):
    fast, kaldi = LogMel(rate, mels, 0.025, 0.01, "fast"), LogMel(rate, mels, 0.025, 0.01, "kaldi")
    for name, wave in sounds(rate).items():
        torch.testing.assert_close(fast(wave), kaldi(wave), rtol=0, atol=TOLERANCE, msg=lambda text, n=name: n + text)


def test_the_reference_parameters_of_audiomae():
    wave = sounds(16000)["noise"]
    for row, own in zip(wave, LogMel(16000, 128, 0.025, 0.01, "kaldi")(wave), strict=True):
        expected = torchaudio.compliance.kaldi.fbank(
            row[None],
            htk_compat=True,
            sample_frequency=16000,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_shift=10,
        )
        assert torch.equal(own, expected)


@pytest.mark.parametrize("kind", ["fast", "kaldi"])
def test_equals_the_feature_extractor_of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    wave = sounds(16000)["noise"][0]
    own = LogMel(16000, 128, 0.025, 0.01, kind)(wave[None])[0]
    extractor = transformers.ASTFeatureExtractor(max_length=198, do_normalize=False)
    found = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_values[0]
    # Its own arithmetic, where it doesn't use torchaudio, was seen to differ from Kaldi's by 3.2e-5.
    torch.testing.assert_close(own, found, rtol=0, atol=1e-4)
    extractor = transformers.ASTFeatureExtractor(max_length=198)
    found = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_values[0]
    torch.testing.assert_close((own + 4.2677393) / (2 * 4.5689974), found, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("seconds", "frames"), [(10, 998), (5, 498), (1, 98)])
def test_frame_counts(seconds, frames):
    front_end = LogMel(16000, 128, 0.025, 0.01, "fast")
    assert front_end.frames(16000 * seconds) == frames
    assert front_end(torch.zeros(1, 16000 * seconds)).shape == (1, frames, 128)


def test_frames_of_every_length_agree_with_kaldi():
    fast, kaldi = LogMel(8000, 20, 0.025, 0.01, "fast"), LogMel(8000, 20, 0.025, 0.01, "kaldi")
    for samples in (200, 201, 279, 280, 281, 1000):
        wave = torch.zeros(1, samples)
        assert fast(wave).shape[1] == kaldi(wave).shape[1] == fast.frames(samples)
    assert fast.frames(199) == 0


def test_silence_is_finite_at_the_floor():
    values = LogMel(16000, 128, 0.025, 0.01, "fast")(torch.zeros(2, 16000))
    assert torch.equal(values, torch.full_like(values, math.log(FLOOR)))


def test_a_tone_stands_at_its_frequency():
    front_end = LogMel(16000, 128, 0.025, 0.01, "fast")
    for hertz in (300.0, 1000.0, 5000.0):
        wave = 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(16000) / 16000)[None]
        loudest = int(front_end(wave).mean((0, 1)).argmax())
        assert abs(loudest + 0.5 - front_end.place(hertz)) <= 1.5  # a bin of the transform is as wide


def test_clips_of_a_batch_are_computed_alone_even_under_autocast():
    front_end = LogMel(8000, 40, 0.025, 0.01, "fast")
    wave = sounds(8000)["noise"]
    together = front_end(wave)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(front_end(wave), together)
    for row in range(2):
        torch.testing.assert_close(front_end(wave[row : row + 1])[0], together[row], rtol=0, atol=TOLERANCE)


def test_its_constants_arent_stored_with_a_run():
    assert not LogMel(8000, 40, 0.025, 0.01, "fast").state_dict()


BLOCKED = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchaudio":
            raise OSError("libc10_cuda.so: cannot open shared object file")
sys.meta_path.insert(0, Broken())
import torch
from maskedmodel import Noise
from maskedmodel.errors import DependencyError
from maskedmodel_audio.settings import SpectrogramSettings
from maskedmodel_audio.tokenizer import Spectrogram
from maskedmodel.plugins import load_registry
registry = load_registry()
assert not registry.failures, registry.failures
assert registry.tokenizers["spectrogram"] is Spectrogram
settings = SpectrogramSettings()
try:
    Spectrogram(settings)
except DependencyError as error:
    print(error)
tones = registry.data_sources["tones"](train_samples=2, val_samples=1)
assert tones.open("train")[0]["signal"].shape[0] == 1
image = registry.tokenizers["image"](size=16, patch=4)
assert image.tokenize(torch.zeros(1, 3, 16, 16)).length == 16
import io
from maskedmodel_audio.decode import SoundFileSettings, decode
from maskedmodel_audio.listen import wav_bytes
content = wav_bytes(torch.zeros(800), 8000, 1.0)
same = decode(io.BytesIO(content), "x.wav", SoundFileSettings(name="file", sample_rate=8000))
assert same.shape == (1, 800)
try:
    decode(io.BytesIO(content), "x.wav", SoundFileSettings(name="file", sample_rate=16000))
except DependencyError:
    print("RESAMPLING SAYS SO")
"""


def test_without_torchaudio_the_plugin_says_what_to_install_and_all_else_works():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in (
        "libc10_cuda.so",
        "uv sync --extra audio",
        'pip install -e ".[audio]"',
        "built for the CPU only",
        torch.__version__,
    ):
        assert words in done.stdout
    assert "RESAMPLING SAYS SO" in done.stdout


def test_the_bank_is_of_triangles_even_in_mel():
    bank = LogMel(16000, 40, 0.025, 0.01, "fast").bank.numpy()
    assert bank.shape == (40, 257)
    assert (bank >= 0).all()
    assert np.all(bank.max(1) > 0.3)
