import csv
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from maskedmodel_audio.decode import EXTENSIONS, decode
from maskedmodel_audio.folder import AudioFolder
from maskedmodel_audio.reading import SoundFileSettings
from maskedmodel_audio.tokenizer import Spectrogram

from maskedmodel.errors import DataError
from maskedmodel.training.data import Reading, eval_batches

RATE = 8000


def tone(hertz=440.0, seconds=0.5, rate=RATE, channels=1):
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * hertz * (1 + c) * time) for c in range(channels)], 1).astype(np.float32)


def write(path, samples=None, rate=RATE, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone() if samples is None else samples, rate, **values)
    return path


def source(path, **values):
    return AudioFolder(path=str(path), **{"sample_rate": RATE, **values})


def read(path, **values):
    return source(path.parent, **values).read(path)["signal"]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_format_is_read(tmp_path, extension):
    rate = 48000 if extension == ".opus" else RATE
    kinds = {
        ".oga": ("OGG", "VORBIS"),
        ".opus": ("OGG", "OPUS"),
        ".aif": ("AIFF", "PCM_16"),
        ".aifc": ("AIFF", "PCM_16"),
        ".bwf": ("WAV", "PCM_16"),
        ".sph": ("NIST", "PCM_16"),
    }
    kind, subtype = kinds.get(extension, (None, None))
    path = write(tmp_path / f"clip{extension}", tone(rate=rate), rate, format=kind, subtype=subtype)
    wave = read(path, sample_rate=rate)
    lossless = extension not in (".ogg", ".oga", ".opus", ".mp3")
    expected = torch.from_numpy(tone(rate=rate)).T
    if lossless:
        torch.testing.assert_close(wave, expected, rtol=0, atol=1e-4)
    else:
        assert abs(wave.shape[1] - expected.shape[1]) < 0.08 * rate
        spectrum = np.abs(np.fft.rfft(wave[0].numpy()))
        assert spectrum.argmax() * rate / wave.shape[1] == pytest.approx(440, abs=5)


def test_stereo_is_averaged_or_kept(tmp_path):
    samples = tone(channels=2)
    path = write(tmp_path / "two.wav", samples, subtype="FLOAT")
    kept = read(path, mono=False)
    torch.testing.assert_close(kept, torch.from_numpy(samples).T)
    torch.testing.assert_close(read(path), kept.mean(0, keepdim=True))


@pytest.mark.parametrize("rate", [11025, 16000, 22050, 44100, 48000])
def test_any_rate_becomes_the_one_asked_for(tmp_path, rate):
    path = write(tmp_path / "clip.wav", tone(rate=rate, seconds=1.0), rate)
    wave = read(path)
    assert wave.shape == (1, RATE)
    expected = torch.from_numpy(tone(seconds=1.0)).T
    torch.testing.assert_close(wave[:, 400:-400], expected[:, 400:-400], rtol=0, atol=5e-3)


def test_a_part_of_each_file_can_be_read(tmp_path):
    path = write(tmp_path / "clip.wav", tone(seconds=2.0), subtype="FLOAT")
    whole = read(path)
    assert torch.equal(read(path, offset=0.5, seconds=0.25), whole[:, 4000:6000])
    assert torch.equal(read(path, offset=1.9, seconds=5.0), whole[:, 15200:])


def test_silence_is_sound(tmp_path):
    path = write(tmp_path / "silent.wav", np.zeros((RATE, 1), np.float32))
    assert torch.equal(read(path), torch.zeros(1, RATE))


def nan_file(path):
    samples = tone()
    samples[100] = np.nan
    write(path, samples, subtype="FLOAT")


def headed(rate, channels=1, frames=100):
    """A WAV of 16-bit zeros with any header."""
    data = bytes(2 * channels * frames)
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, channels, rate, 0, 2 * channels, 16
    )
    return head + struct.pack("<4sI", b"data", len(data)) + data


BAD = {
    "empty.wav": (lambda path: path.write_bytes(b""), "can't be decoded"),
    "text.wav": (lambda path: path.write_text("Not a sound at all.\n" * 100), "can't be decoded"),
    "zero-length.wav": (lambda path: write(path, np.zeros((0, 1), np.float32)), "is empty"),
    "nan.wav": (nan_file, "aren't finite"),
    "slow.wav": (lambda path: path.write_bytes(headed(1)), "absurd sample rate"),
    "fast.wav": (lambda path: path.write_bytes(headed(2_000_000_000)), "absurd sample rate"),
    "prime.wav": (lambda path: path.write_bytes(headed(44101)), "no common factor"),
    "many.wav": (lambda path: path.write_bytes(headed(RATE, 200)), "too many channels"),
    "noise.mp3": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(3000)), "can't be decoded"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path, name):
    make, words = BAD[name]
    make(tmp_path / name)
    write(tmp_path / "good.wav")
    with pytest.raises(DataError, match=words) as found:
        source(tmp_path).read(tmp_path / name)
    assert name in str(found.value)


def test_a_truncated_flac_is_refused(tmp_path):
    path = write(
        tmp_path / "clip.flac", tone(seconds=3.0) + 0.1 * np.random.default_rng(0).random((24000, 1), np.float32)
    )
    content = path.read_bytes()
    for share in (0.999, 0.6, 0.05):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=r"clip\.flac"):
            read(path)


def test_a_file_that_is_too_long_isnt_read(tmp_path):
    path = write(tmp_path / "long.wav", tone(seconds=3.0))
    with pytest.raises(DataError, match="too long") as found:
        read(path, longest=2.0)
    assert "data.seconds" in str(found.value)
    assert read(path, longest=2.0, seconds=1.0).shape == (1, RATE)


def test_an_offset_beyond_the_end_is_refused(tmp_path):
    path = write(tmp_path / "short.wav")
    with pytest.raises(DataError, match="before the offset"):
        read(path, offset=1.0)


def test_a_bad_file_is_skipped_where_the_policy_says_so(tmp_path):
    for number in range(6):
        write(tmp_path / f"{number}.wav")
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    own = source(tmp_path, val_share=0.01)
    tokenizer = Spectrogram(sample_rate=RATE, duration=0.5, mels=32, patch=8, statistics="esc50")
    dataset = own.open("train")
    batches = list(eval_batches(dataset, tokenizer, Reading(batch=4, on_bad_sample="skip")))
    read_ids = {name for batch in batches for name in batch.ids}
    assert "bad.wav" not in read_ids
    assert len(read_ids) == len(dataset) - 1
    with pytest.raises(DataError, match=r"bad\.wav"):
        list(eval_batches(dataset, tokenizer, Reading(batch=4)))


def test_folders_are_classes(tmp_path):
    for kind in ("cat", "dog"):
        for number in range(10):
            write(tmp_path / kind / f"{number}.flac")
    own = source(tmp_path)
    assert own.class_names() == ["cat", "dog"]
    names = {s["id"]: s["label"] for split in ("train", "val") for s in list(own.open(split))}
    assert len(names) == 20
    assert all(names[name] == ("cat", "dog").index(name.split("/")[0]) for name in names)


def test_a_flat_folder_has_no_labels(tmp_path):
    for number in range(5):
        write(tmp_path / f"{number}.wav")
    own = source(tmp_path)
    assert own.class_names() is None
    assert "label" not in own.open("train")[0]


def metadata(names):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file_name", "label", "speaker", "split"])
    for number, name in enumerate(names):
        writer.writerow([name, number % 3, f"person {number % 2}", "test" if number >= 8 else "train"])
    return text.getvalue()


def test_a_zip_with_a_table_of_labels_and_splits(tmp_path):
    names = [f"recordings/{number}.flac" for number in range(12)]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in names:
            content = io.BytesIO()
            soundfile.write(content, tone(), RATE, format="FLAC")
            archive.writestr(name, content.getvalue())
        archive.writestr("metadata.csv", metadata(names))
    own = source(tmp_path / "all.zip")
    assert (len(own.open("train")), len(own.open("val"))) == (8, 4)
    assert own.class_names() == ["0", "1", "2"]
    assert own.open("val")[0]["signal"].shape == (1, RATE // 2)
    by_speaker = source(tmp_path / "all.zip", label="speaker")
    assert by_speaker.class_names() == ["person 0", "person 1"]


def test_tar_shards_with_json_labels_and_folds(tmp_path):
    for fold in (1, 2):
        with tarfile.open(tmp_path / f"fold{fold}.tar", "w") as archive:
            for number in range(4):
                sound = io.BytesIO()
                soundfile.write(sound, tone(), RATE, format="OGG")
                said = json.dumps({"category": ["bark", "rain"][number % 2], "fold": fold}).encode()
                for name, content in ((f"{fold}-{number}.ogg", sound.getvalue()), (f"{fold}-{number}.json", said)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    own = source(tmp_path, label="category", group="fold", val_groups=("2",))
    assert own.class_names() == ["bark", "rain"]
    train, val = list(own.open("train")), list(own.open("val"))
    assert {sample["group"] for sample in train} == {"1"}
    assert {sample["group"] for sample in val} == {"2"}
    assert len(train) == len(val) == 4


@pytest.mark.parametrize(("kept", "decibels"), [("float32", 200), ("float16", 65)])
def test_clips_kept_in_memory_are_the_same(tmp_path, kept, decibels):
    for number in range(6):
        write(tmp_path / f"{number}.flac", tone(200 + 50 * number, 0.3 + 0.1 * number, channels=1 + number % 2))
    (tmp_path / "bad.flac").write_bytes(b"fLaC")
    plain, stored = source(tmp_path, mono=False), source(tmp_path, mono=False, memory=kept)
    for split in ("train", "val"):
        for index in range(len(plain.open(split))):
            if plain.open(split).ids[index] == "bad.flac":
                with pytest.raises(DataError, match=r"bad\.flac"):
                    stored.open(split)[index]
                continue
            one, other = plain.open(split)[index], stored.open(split)[index]
            assert one["id"] == other["id"]
            assert other["signal"].dtype == torch.float32
            assert one["signal"].shape == other["signal"].shape
            error = (one["signal"] - other["signal"]).square().mean() + 1e-30
            assert 10 * torch.log10(one["signal"].square().mean() / error) > decibels
    assert stored.open("train") is stored.open("train")  # decoded once
    copy = pickle.loads(pickle.dumps(stored.open("train")))  # noqa: S301 - bytes made in the same line
    assert len(copy) == len(stored.open("train"))


def test_nothing_is_decoded_before_it_is_read(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.wav").write_bytes(b"no sound")
    dataset = source(tmp_path).open("train")
    with pytest.raises(DataError):
        dataset[0]


def test_a_folder_without_sound_says_what_it_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"\.flac"):
        source(tmp_path).open("train")


def test_it_recognises_sound(tmp_path):
    assert not AudioFolder.recognises(tmp_path)
    path = write(tmp_path / "a" / "clip.ogg")
    assert AudioFolder.recognises(tmp_path)
    assert AudioFolder.recognises(path)
    assert not AudioFolder.recognises(tmp_path / "picture.png")


def test_what_libsndfile_says_of_odd_files_is_a_data_error(tmp_path):
    """Whatever bytes come, only DataError comes out."""
    content = bytearray(write(tmp_path / "clip.flac").read_bytes())
    draw = np.random.default_rng(0)
    settings = SoundFileSettings(name="file", sample_rate=RATE)
    for _ in range(60):
        damaged = bytearray(content)
        for place in draw.integers(0, len(content), 8):
            damaged[place] = draw.integers(0, 256)
        try:
            wave = decode(io.BytesIO(bytes(damaged)), "clip.flac", settings)
        except DataError:
            continue
        assert torch.isfinite(wave).all()


DATA = os.environ.get("MASKEDMODEL_DATA")


@pytest.mark.skipif(DATA is None, reason="MASKEDMODEL_DATA names no folder of real data")
def test_free_spoken_digits():
    path = Path(DATA) / "fsdd" / "fsdd-recordings-flac.zip"
    if not path.exists():
        pytest.skip("there is no fsdd/fsdd-recordings-flac.zip")
    own = source(path)
    assert (len(own.open("train")), len(own.open("val"))) == (2700, 300)
    assert own.class_names() == [str(digit) for digit in range(10)]
    assert len(source(path, label="speaker").class_names()) == 6
    assert own.open("val")[7]["signal"].shape[0] == 1


@pytest.mark.skipif(DATA is None, reason="MASKEDMODEL_DATA names no folder of real data")
def test_esc10_shards():
    path = Path(DATA) / "esc10"
    if not path.exists():
        pytest.skip("there is no esc10")
    own = source(path, label="category", group="fold", val_groups=("4",), sample_rate=16000)
    assert (len(own.open("train")), len(own.open("val"))) == (240, 80)
    assert len(own.class_names()) == 10
    sample = own.open("val")[0]
    assert sample["group"] == "4"
    assert 16000 < sample["signal"].shape[1] < 160000
