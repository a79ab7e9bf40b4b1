"""Settings of the `spectrogram` tokenizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from maskedmodel import Settings
from maskedmodel.tokenizers import MeanStd, pair
from maskedmodel_audio.augment import Gain
from maskedmodel_audio.frontend import FrontEnd, samples_of

# Mean and spread of log-mel values, as AudioMAE publishes them.
_PUBLISHED = {
    "audioset": MeanStd(mean=(-4.2677393,), std=(4.5689974,)),
    "esc50": MeanStd(mean=(-6.6268077,), std=(5.358466,)),
    "speechcommands": MeanStd(mean=(-6.845978,), std=(5.5654526,)),
}

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SpectrogramSettings(Settings):
    """Settings of the `spectrogram` tokenizer."""

    name: Literal["spectrogram"] = "spectrogram"
    sample_rate: int = Field(
        16000, ge=1000, le=768000, description="Samples per second of the waveforms: what the data source gives, in Hz."
    )
    duration: _Positive = Field(
        10.0,
        description="Seconds of a training crop, and of the window that positions are for. Shorter clips are filled up "
        "with padding tokens, which are never scored.",
    )
    longest: _Positive = Field(60.0, description="Seconds of a clip that are used at most, from its start.")
    mels: int = Field(128, ge=4, description="Number of mel bins.")
    frame: _Positive = Field(0.025, description="Length of a frame, in seconds.")
    hop: _Positive = Field(0.01, description="Time from one frame to the next, in seconds.")
    patch: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        16, description="Size of a token: one number, or [frames, mel bins]. The mel bins divide by it."
    )
    front_end: FrontEnd = Field(
        "fast",
        description="How log-mel values are computed. fast: for the whole batch at once. kaldi: clip by clip with "
        "torchaudio's Kaldi filter banks, as AudioMAE. They agree up to rounding.",
    )
    statistics: Literal["measured", "audioset", "esc50", "speechcommands"] | MeanStd = Field(
        "measured",
        description="What tokens are normalised with, as (x - mean) / (2 std). measured: from the training data, once, "
        "stored with the run. audioset, esc50, speechcommands: AudioMAE's numbers. Or {mean: [...], std: [...]}, one "
        "number each, of natural logarithms.",
    )
    fill_to: PositiveInt | None = Field(
        None,
        description="Frames to which shorter clips are filled up with log-mel 0, which are then scored like sound: "
        "AudioMAE's way (1024, 512 or 128). null: what isn't there is padding.",
    )
    gain: Gain | None = Field(
        "beta",
        description="Random loudness in training. beta: times 0.5 + Beta(10, 10), as AudioMAE. [low, high]: uniform "
        "in decibels. null: none.",
    )
    roll: bool = Field(
        False, description="Whether a training crop is turned round in time by a random number of frames."
    )

    @model_validator(mode="after")
    def _consistent(self) -> SpectrogramSettings:
        window, shift = samples_of(self.frame, self.sample_rate), samples_of(self.hop, self.sample_rate)
        if not 1 <= shift <= window - 2:
            raise ValueError(
                f"frames must overlap: hop at least 1 sample, frame 2 more than hop, got {shift} and {window} samples"
            )
        if not self.frame <= self.duration <= self.longest:
            raise ValueError(
                "frame, duration and longest must not decrease, "
                f"got {self.frame:g} s, {self.duration:g} s and {self.longest:g} s"
            )
        if isinstance(self.statistics, MeanStd):
            self.statistics.check(1)
        if isinstance(self.gain, tuple) and not -120 <= self.gain[0] <= self.gain[1] <= 120:
            raise ValueError(
                f"gain is a range [low, high] in decibels with -120 <= low <= high <= 120, got {self.gain}"
            )
        return self

    @property
    def patch_size(self) -> tuple[int, int]:
        """Frames and mel bins of a token."""
        return pair(self.patch)

    @property
    def given_statistics(self) -> MeanStd | None:
        """What log-mel values are normalised with; None where it is measured."""
        return self.statistics if isinstance(self.statistics, MeanStd) else _PUBLISHED.get(self.statistics)
