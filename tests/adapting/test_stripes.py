"""SpecAugment: which values a stripe covers, keyed by sample, and what is never touched."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from maskedmodel_audio.tokenizer import Spectrogram
from torch import Tensor

from maskedmodel import Noise
from maskedmodel.adapting.run import Adapted, adapt
from maskedmodel.config.finetune import AdaptSettings, FinetuneConfig
from maskedmodel.config.load import load_config
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import Registry
from maskedmodel.training.stripes import striped, stripes
from maskedmodel.training.tracking import read_lines
from tests.adapting.conftest import ALONE
from tests.runs import assert_same_run
from tests.training.test_loop import Killed, kill_after

SHARES = (0.1875, 0.375)
TINY: dict[str, Any] = {"name": "spectrogram", "sample_rate": 4000, "mels": 16, "duration": 0.5, "patch": 4}


@pytest.fixture(scope="module")
def tokenizer() -> Spectrogram:
    made = Spectrogram(**{key: value for key, value in TINY.items() if key != "name"})
    made.fit_statistics([torch.randn(2, 1, *made.size, generator=torch.Generator().manual_seed(1)) * 3 - 5])
    return made


def spectrogram(tokenizer: Spectrogram, lengths: list[int]) -> Tensor:
    """(B, 1, frames, mels), NaN from each sample's own end on."""
    values = torch.randn(len(lengths), 1, *tokenizer.size, generator=torch.Generator().manual_seed(0))
    for row, length in zip(values, lengths, strict=True):
        row[:, length:] = torch.nan
    return values


def brute(extent: int, share: float, drawn: list[float]) -> set[int]:
    """The places of one axis that stripes cover, by the definition: widths and starts uniform over whole numbers."""
    found: set[int] = set()
    for width, start in zip(drawn[::2], drawn[1::2], strict=True):
        wide = int(width * (round(share * extent) + 1))
        first = int(start * (extent - wide + 1))
        found |= set(range(first, first + wide))
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_stripes_are_those_of_the_definition_and_padding_is_in_none(tokenizer: Spectrogram, count: int) -> None:
    frames, mels = tokenizer.size
    lengths = [frames, 1, frames // 2, frames - 1, 0]
    signal, noise = spectrogram(tokenizer, lengths), Noise.of(range(5), seed=4, epoch=2)
    found = stripes(tokenizer, signal, noise, count, SHARES)
    draws = [noise.uniform(2 * count, f"stripes of {name}") for name in ("time", "frequency")]
    for row, length in enumerate(lengths):
        times = brute(length, SHARES[0], draws[0][row].tolist())
        bins = brute(mels, SHARES[1], draws[1][row].tolist())
        for time in range(frames):
            for band in range(mels):
                expected = time < length and (time in times or band in bins)
                assert bool(found[row, 0, time, band]) is expected, (row, time, band)


def test_the_share_that_is_covered_is_the_mean_of_what_is_drawn(tokenizer: Spectrogram) -> None:
    """Widths are uniform over 0 to w and 0 to v, so of T frames and F bins 1 - (1 - w / 2T)(1 - v / 2F) in the mean."""
    frames, mels = tokenizer.size
    signal = torch.zeros(1, 1, frames, mels).expand(4000, -1, -1, -1)
    found = stripes(tokenizer, signal, Noise.of(range(4000)), 1, SHARES).float()
    wide, high = round(SHARES[0] * frames), round(SHARES[1] * mels)
    expected = 1 - (1 - wide / 2 / frames) * (1 - high / 2 / mels)
    assert float(found.mean()) == pytest.approx(expected, abs=0.005)
    whole_frames, whole_bins = (found == 1).all(3)[:, 0].sum(1), (found == 1).all(2)[:, 0].sum(1)
    assert (int(whole_frames.max()), int(whole_bins.max())) == (wide, high)
    assert int(whole_frames.min()) == 0


def test_tokens_have_the_mean_there_and_are_untouched_elsewhere(tokenizer: Spectrogram) -> None:
    frames, _ = tokenizer.size
    signal, noise = spectrogram(tokenizer, [frames, frames // 2]), Noise.of(range(2), seed=1)
    tokens = tokenizer.tokenize(signal)
    found = striped(tokens, tokenizer, signal, noise, 2, (0.5, 0.5))
    covered = stripes(tokenizer, signal, noise, 2, (0.5, 0.5))
    again = tokenizer.detokenize(found.values, found)
    assert bool(covered.any())
    mean = tokenizer.mean.expand_as(again[covered])
    torch.testing.assert_close(again[covered], mean)
    there = ~signal.isnan() & ~covered
    torch.testing.assert_close(again[there], signal[there], rtol=1e-5, atol=1e-5)
    assert torch.equal(again.isnan(), signal.isnan())
    assert found.valid is tokens.valid
    assert found.observed is tokens.observed


def test_a_samples_stripes_depend_on_seed_epoch_and_id_alone(tokenizer: Spectrogram) -> None:
    frames, _ = tokenizer.size
    signal = spectrogram(tokenizer, [frames, 9, 12, frames, 5, 20])
    ids = ["a", "b", "c", "d", "e", "f"]
    noise = Noise.of(ids, seed=3, epoch=1)
    whole = stripes(tokenizer, signal, noise, 2, SHARES)
    for cuts in ((0, 1, 6), (0, 2, 4, 6)):
        parts = [slice(*pair) for pair in pairwise(cuts)]
        found = [stripes(tokenizer, signal[part], noise.rows(part), 2, SHARES) for part in parts]
        assert torch.equal(torch.cat(found), whole)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = stripes(tokenizer, signal[order], Noise.of([ids[i] for i in order], seed=3, epoch=1), 2, SHARES)
    assert torch.equal(moved, whole[order])
    for other in (Noise.of(ids, seed=4, epoch=1), Noise.of(ids, seed=3, epoch=2)):
        assert not torch.equal(stripes(tokenizer, signal, other, 2, SHARES), whole)


def test_the_widest_are_those_of_audiomae() -> None:
    settings = AdaptSettings()
    assert settings.stripes == 0
    assert (settings.stripe_time * 1024, settings.stripe_frequency * 128) == (192, 48)


def configured(registry: Registry, *overrides: str) -> FinetuneConfig:
    given = {
        "data": {"name": "tones", "train_samples": 24, "val_samples": 8, "sample_rate": 4000, "longest": 0.5},
        "tokenizer": TINY,
        "model": {"encoder": {"dim": 16, "depth": 1, "heads": 2}},
        "adapt": {"stripes": 1},
        "train": {"steps": 4, "batch": 8, "precision": "fp32", "device": "cpu", "log_every": 1, "checkpoint_every": 2},
    }
    return load_config(given, overrides, registry=registry, kind=FinetuneConfig)


def run(registry: Registry, folder: Path, *overrides: str) -> Adapted | None:
    return adapt(configured(registry, *overrides), folder, registry, ALONE, quiet=True)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line]


def test_a_run_with_stripes_resumes_to_the_same_bits_for_any_workers(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(registry, tmp_path / "straight")
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(Killed):
            run(registry, tmp_path / "cut")
    run(registry, tmp_path / "cut", "train.workers=1")
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def test_micro_batches_see_the_same_stripes(registry: Registry, tmp_path: Path) -> None:
    run(registry, tmp_path / "one")
    run(registry, tmp_path / "four", "train.accumulate=4")
    run(registry, tmp_path / "none", "adapt.stripes=0")
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "four"), rel=1e-4)
    assert losses(tmp_path / "one") != pytest.approx(losses(tmp_path / "none"), rel=1e-4)


def test_what_is_no_spectrogram_is_refused(registry: Registry, tmp_path: Path) -> None:
    config = load_config(
        {
            "data": {"name": "digits"},
            "tokenizer": {"name": "image", "size": 8, "patch": 4, "channels": 1},
            "model": {"encoder": {"dim": 16, "depth": 1, "heads": 2}},
            "adapt": {"stripes": 2},
        },
        registry=registry,
        kind=FinetuneConfig,
    )
    with pytest.raises(ConfigError, match="need a spectrogram") as caught:
        adapt(config, tmp_path, registry, ALONE, quiet=True)
    assert "height, width" in str(caught.value)
