"""The `audio_folder` source: a folder of sound files, or an archive of one."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from maskedmodel import DataSource, Fact, Sample
from maskedmodel.sources import FileSettings, LabelledFiles, Part, SampleDataset, Split, holds
from maskedmodel_audio.decode import EXTENSIONS, Sound, read_file, read_sound
from maskedmodel_audio.facts import facts_of
from maskedmodel_audio.listen import wav_bytes
from maskedmodel_audio.memory import Kept, in_memory
from maskedmodel_audio.reading import SoundFileSettings, load_soundfile


class AudioFolderSettings(SoundFileSettings, FileSettings):
    """Settings of the `audio_folder` source."""

    name: Literal["audio_folder"] = "audio_folder"
    memory: Kept | None = Field(
        None,
        description="Whether all clips are decoded once and kept in memory, and as what. float16 takes 2 bytes per "
        "sample, 115 MB an hour at 16 kHz mono, and adds noise some 70 dB below the signal. null: each is decoded "
        "whenever it is read.",
    )


class _Decoder:
    """Reads clip `index` of a split."""

    def __init__(self, part: Part, settings: SoundFileSettings) -> None:
        self.part, self.settings = part, settings

    def __call__(self, index: int) -> Sound:
        with self.part.open(index) as stream:
            return read_sound(stream, self.part.name(index), self.settings)


class _Clips:
    """Samples of a split, each with the notes of how it was read."""

    def __init__(self, sounds: Callable[[int], Sound], part: Part) -> None:
        self.sounds, self.ids, self.labels, self.groups = sounds, part.ids, part.labels, part.groups

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int, /) -> Sample:
        sound = self.sounds(index)
        sample = Sample(signal=sound.wave, id=self.ids[index])
        label = None if self.labels is None else self.labels[index]
        if label is not None:
            sample["label"] = label
        if self.groups is not None:
            sample["group"] = self.groups[index]
        if sound.notes:
            sample["notes"] = sound.notes
        return sample


class AudioFolder(DataSource[AudioFolderSettings]):
    """Clips in a folder, a zip or a tar, labelled by sub-folder, by a table, or by JSON files beside them.

    Signals are waveforms (channels, samples) float32 at `sample_rate`, full scale 1, of any lengths. Silence is sound
    like any other; a file without samples is broken. Raises DependencyError where soundfile can't be loaded.
    """

    def __init__(self, settings: AudioFolderSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        load_soundfile()
        self._opened: dict[Split, _Clips] = {}

    @classmethod
    def example_settings(cls, folder: Path) -> AudioFolderSettings:
        """Two classes of tones, written into `folder`: what the conformance kit reads."""
        for number in range(20):
            path = folder / f"class{number % 2}" / f"{number}.wav"
            path.parent.mkdir(exist_ok=True)
            time = torch.arange(800 + 40 * number) / 8000
            path.write_bytes(wav_bytes(0.5 * torch.sin(2 * math.pi * (300 + 50 * number) * time), 8000, 1.0))
        return AudioFolderSettings(path=str(folder), sample_rate=8000)

    @cached_property
    def _files(self) -> LabelledFiles:
        return LabelledFiles(self.settings, EXTENSIONS, "sound files")

    def open(self, split: Split) -> SampleDataset:
        if split not in self._opened:  # with `memory`, opening takes long
            part = self._files.part(split)
            read: Callable[[int], Sound] = _Decoder(part, self.settings)
            if self.settings.memory is not None:
                read = in_memory(read, len(part.ids), self.settings.memory, self.read_timeout)
            self._opened[split] = _Clips(read, part)
        return self._opened[split]

    def class_names(self) -> list[str] | None:
        return self._files.class_names

    def facts(self) -> list[Fact]:
        return [*self._files.facts(), *facts_of(tuple(self._files.parts().values()), self.settings)]

    def read(self, path: Path) -> Sample:
        return read_file(path, self.settings)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds(path, EXTENSIONS)
