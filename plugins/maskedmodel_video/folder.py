"""The `video_folder` source: a folder of video files, or of folders of frames, or an archive of one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from maskedmodel import DataSource, Fact, Sample
from maskedmodel.errors import DataError
from maskedmodel.sources import (
    LabelledFiles,
    Part,
    SampleDataset,
    Split,
    holds,
    legible,
    natural_order,
    open_regular,
    parsing,
    path_of,
)
from maskedmodel_video import frames, reader
from maskedmodel_video.clip import Clip
from maskedmodel_video.facts import facts_of
from maskedmodel_video.memory import Remembered
from maskedmodel_video.settings import VideoFolderSettings

_log = logging.getLogger(__name__)


class VideoFolder(DataSource[VideoFolderSettings]):
    """Videos in a folder, a zip or a tar, labelled by sub-folder, by a table, by JSON files beside them, or by name.

    Samples are (C, frames, height, width) uint8. A stored clip is longer than what a tokenizer takes, which then starts
    at a random frame in training, by the sample's own noise: a data set is read by its number alone and knows no epoch,
    so chance lies in the tokenizer, where it is the same for any number of workers and after a resume. Of long videos
    several clips can be samples of their own; they keep to one side of a split and of a fold, as their videos do.
    """

    @classmethod
    def example_settings(cls, folder: Path) -> VideoFolderSettings:
        """Two classes of frame folders, written into `folder`: what the conformance kit reads."""
        from PIL import Image

        pixels = np.random.default_rng(0).integers(0, 256, (12, 5, 12, 10, 3), dtype=np.uint8)
        for number, clip in enumerate(pixels):
            for time, picture in enumerate(clip):
                path = folder / f"class{number % 2}" / f"clip{number}" / f"{time}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
        return VideoFolderSettings(path=str(folder), frames=4, stride=1, size=8, val_share=0.3)

    @cached_property
    def _bundled(self) -> bool:
        if self.settings.files != "auto":
            return self.settings.files == "frames"
        path = path_of(self.settings.path, DataError)
        return not holds(path, reader.EXTENSIONS) and holds(path, frames.EXTENSIONS)

    @cached_property
    def _files(self) -> LabelledFiles:
        if self._bundled:
            return LabelledFiles(self.settings, frames.EXTENSIONS, "frames", bundled=True)
        return LabelledFiles(self.settings, reader.EXTENSIONS, "videos")

    def open(self, split: Split) -> SampleDataset:
        part = self._files.part(split)
        clips = self.settings.clips if split == "train" else 1
        read: Callable[[int], Clip] = _Reader(part, self.settings, clips, self._bundled)
        labels = part.labels
        if self.settings.label_by == "stem":
            number = {name: label for label, name in enumerate(self._stems)}
            labels = [number[_stem(sample_id)] for sample_id in part.ids]
        if self.settings.memory:
            _log.info("decoding %d clips into memory", len(part.ids) * clips)
            read = Remembered(read, len(part.ids) * clips, self.settings.shape, self.read_timeout)
        if clips == 1:
            return _Clips(read, part.ids, labels, part.groups)
        each = range(clips)
        return _Clips(
            read,
            [f"{sample_id}#{clip}" for sample_id in part.ids for clip in each],
            None if labels is None else [label for label in labels for _ in each],
            [group for group in part.groups or part.ids for _ in each],
        )

    def class_names(self) -> list[str] | None:
        return self._stems if self.settings.label_by == "stem" else self._files.class_names

    def facts(self) -> list[Fact]:
        parts = list(self._files.parts().values())
        own = facts_of(parts, self.settings, self._bundled)
        if self.settings.label_by == "folder":
            return [*self._files.facts(), *own]
        labels = Fact("labels", f"{len(self._stems)} classes by the videos' names")
        return [*self._files.facts(labels=False), labels, *own]

    @cached_property
    def _stems(self) -> list[str]:
        return sorted({_stem(sample_id) for split in ("train", "val") for sample_id in self._files.part(split).ids})

    def read(self, path: Path) -> Sample:
        """A video file, or a folder of frames."""
        name, sample_id = legible(str(path)), legible(path.name)
        if not path.is_dir():
            with open_regular(path) as stream, parsing("The file can't be read.", name):
                clip = reader.read_clip(stream, name, self.settings)
            return Sample(signal=clip.signal, id=sample_id, notes=clip.notes)
        with parsing("The folder can't be read.", name):
            images = [file for file in path.iterdir() if file.suffix.lower() in frames.EXTENSIONS]
        if not images:
            raise DataError("There are no frames in this folder.", where=name, expected=" ".join(frames.EXTENSIONS))
        images.sort(key=lambda file: natural_order(file.name))

        def opened(number: int) -> tuple[BinaryIO, str]:
            return open_regular(images[number]), legible(str(images[number]))

        clip = frames.read_frames(opened, len(images), self.settings)
        return Sample(signal=clip.signal, id=sample_id, notes=clip.notes)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds(path, reader.EXTENSIONS)


def _stem(sample_id: str) -> str:
    return PurePosixPath(sample_id.removeprefix("val:")).stem


class _Clips:
    """Samples of a split, each with the notes of how it was read."""

    def __init__(
        self,
        read: Callable[[int], Clip],
        ids: Sequence[str],
        labels: Sequence[int | None] | None,
        groups: Sequence[str] | None,
    ) -> None:
        self.read, self.ids, self.labels, self.groups = read, ids, labels, groups

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int, /) -> Sample:
        clip = self.read(index)
        sample = Sample(signal=clip.signal, id=self.ids[index])
        label = None if self.labels is None else self.labels[index]
        if label is not None:
            sample["label"] = label
        if self.groups is not None:
            sample["group"] = self.groups[index]
        if clip.notes:
            sample["notes"] = clip.notes
        return sample


class _Reader:
    """Reads clip number `index`, `clips` of each video."""

    def __init__(self, part: Part, settings: VideoFolderSettings, clips: int, bundled: bool) -> None:
        self.part, self.settings, self.clips, self.bundled = part, settings, clips, bundled

    def __call__(self, index: int) -> Clip:
        video, clip = divmod(index, self.clips)
        if not self.bundled:
            with self.part.open(video) as stream:
                return reader.read_clip(stream, self.part.name(video), self.settings, clip, self.clips)

        def opened(member: int) -> tuple[BinaryIO, str]:
            return self.part.open(video, member), f"{self.part.name(video)}, frame {member}"

        return frames.read_frames(opened, self.part.count(video), self.settings, clip, self.clips)
