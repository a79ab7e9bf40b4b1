"""The `tiff_folder` source: fields of any number of channels as TIFF or OME-TIFF files, in a folder or archive."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from maskedmodel import DataSource, Fact, Sample
from maskedmodel.errors import DataError
from maskedmodel.sources import (
    FileSettings,
    LabelledFiles,
    Part,
    SampleDataset,
    SignalDataset,
    Split,
    files_at,
    holds,
    open_regular,
    path_of,
    spread,
)
from maskedmodel_microscopy.facts import facts_of, joined_facts, names_in, strangers
from maskedmodel_microscopy.joined import ALONE, ChannelPattern, guess, joined_names
from maskedmodel_microscopy.slots import into_slots, slots_of, tiles
from maskedmodel_microscopy.threshold import Thresholded, ThresholdSettings, hidden, slot_of, threshold_facts
from maskedmodel_microscopy.tiff import EXTENSIONS, read_header, read_tiff
from maskedmodel_microscopy.tiff_image import Array, Header, TiffSettings

_NOUN = "TIFF files"
_TRIED = 8  # files that have to hold one channel each, where names look like it
_LOOKED_AT = 64  # files whose headers are read where nothing else needs those of all
Corner = tuple[int, int] | None  # top and left of a tile; None = the whole field
Decoded = tuple[tuple[str, ...], Array]  # channel names, and pixels (C, H, W)


class TiffFolderSettings(ThresholdSettings, TiffSettings, FileSettings):
    """Settings of the `tiff_folder` source."""

    name: Literal["tiff_folder"] = "tiff_folder"
    slots: Literal["name", "index"] = Field(
        "name",
        description="What a channel slot stands for. name: a channel's name, the same in every file. index: its place "
        "in the file.",
    )
    channel_names: tuple[str, ...] | None = Field(
        None,
        description="Names of the slots, in order; a file's channels of other names come after them. null: all names "
        "of the training and validation files, sorted. A run keeps what was found.",
    )
    aliases: dict[str, str] | None = Field(
        None, description='Other names of the same channel, such as {"DNA (D)": DNA}: file name to name. null: none.'
    )
    take: tuple[str, ...] | None = Field(
        None, description="Names of the channels to take, after aliases; others are left out. null: all."
    )
    channel_pattern: str | None = Field(
        None,
        description="Where in a file's name its channel stands, where each channel has a file of its own: text with "
        "one {number} or {channel} in it, as in _ch{number} or _{channel}. Files that differ in it alone are a field. "
        "none: each file is a field. null: found by the names, and told; a run keeps what was found.",
    )
    tile: PositiveInt | None = Field(
        None,
        description="Fields larger than this many pixels a side are cut into tiles of it, side by side, what is left "
        "over shared out to the edges. Tiles of one file are never split. null: whole fields.",
    )
    memory: bool = Field(
        False,
        description="Whether decoded files are kept in memory once read: 4 bytes a pixel, in every data worker.",
    )

    @field_validator("channel_names", "take")
    @classmethod
    def _each_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and (not names or len(set(names)) < len(names)):
            raise ValueError("names are given once each, at least one")
        return names


class _Files(Protocol):
    """Files by number, as a split of LabelledFiles holds them, several to a field where they are joined."""

    def count(self, index: int) -> int: ...

    def open(self, index: int, member: int = 0) -> BinaryIO: ...

    def name(self, index: int, member: int = 0) -> str: ...

    def path(self, index: int, member: int = 0) -> str: ...


class _Reader:
    """Field or tile `places[index]` as (V, H, W): the number of its file, and its corner. `names` of the slots."""

    def __init__(
        self,
        files: _Files,
        places: Sequence[tuple[int, Corner]],
        names: tuple[str, ...] | None,
        settings: TiffFolderSettings,
        pattern: ChannelPattern | None = None,
    ) -> None:
        self.files, self.places, self.names, self.settings = files, places, names, settings
        self.pattern = pattern
        self._kept: dict[int, Decoded] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def __call__(self, index: int) -> Tensor:
        number, corner = self.places[index]
        where, field = self.files.name(number), self._kept.get(number)
        if field is None:
            field = self._field(number)
            if self.settings.memory:
                self._kept[number] = field
        return cut_field(field, where, self.names, self.settings, corner)

    def _field(self, number: int) -> Decoded:
        """Names and pixels of a field: of its file, or of its files one after the other."""
        names, planes = [], []
        for member in range(self.files.count(number)):
            where = self.files.name(number, member)
            with self.files.open(number, member) as stream:
                own, pixels = read_tiff(stream, where, self.settings)
            names.append(own)
            planes.append(pixels)
            if pixels.shape[1:] != planes[0].shape[1:]:
                raise _unlike(where, pixels.shape[1:], planes[0].shape[1:])
        paths = [self.files.path(number, member) for member in range(len(names))]
        return joined_names(names, paths, self.pattern, self.files.name(number)), np.concatenate(planes)


def _unlike(where: str, got: Sequence[int], first: Sequence[int]) -> DataError:
    return DataError(
        "The channels of one field differ in size.",
        where=where,
        expected=f"{first[0]} x {first[1]} pixels, as the first of its files",
        got=f"{got[0]} x {got[1]}",
        fix="Set data.channel_pattern=none if these files are no channels of one field.",
    )


def cut_field(
    field: Decoded, where: str, slot_names: tuple[str, ...] | None, settings: TiffFolderSettings, corner: Corner
) -> Tensor:
    """A field, or one tile of it, as (V, H, W) float32; slots that it lacks are NaN. Raises DataError."""
    names, pixels = field
    own = _taken(names, where, settings)
    if not own:
        raise DataError(
            "The file has none of the channels that are taken.",
            where=where,
            expected=f"one of {', '.join(settings.take or ())}",
            got=", ".join(names),
        )
    if corner is not None and settings.tile is not None:
        top, left = corner
        pixels = pixels[:, top : top + settings.tile, left : left + settings.tile]
    return into_slots(pixels, own, slot_names)


def _taken(names: Sequence[str], where: str, settings: TiffFolderSettings) -> dict[str, int]:
    """Name after aliases, and place in the file, of each channel that is taken. Raises DataError on a name for two."""
    called = [(settings.aliases or {}).get(name, name) for name in names]
    twice = {name for name in called if called.count(name) > 1}
    if twice:
        raise DataError(
            "Two channels of one file have the same name.",
            where=where,
            expected="a name of its own for each",
            got=", ".join(f"{name} is {alias}" for name, alias in zip(names, called, strict=True) if alias in twice),
            fix="Mend data.aliases.",
        )
    return {name: place for place, name in enumerate(called) if settings.take is None or name in settings.take}


class TiffFolder(DataSource[TiffFolderSettings]):
    """Fields as (V, H, W) float32: a slot for each channel name of the data set, NaN where a file lacks the channel.

    A sample's id is its file's path, and the tile's corner where fields are cut. The split is by file, or by the group
    that the table names (a well, a field of view): never by tile.
    """

    gives_nan = True

    @classmethod
    def example_settings(cls, folder: Path) -> TiffFolderSettings:
        """Fields of one, two and three channels, written into `folder`: what the conformance kit reads."""
        import tifffile

        draw = np.random.default_rng(0)
        for number in range(12):
            names = ["DNA", "actin", "tubulin"][: 1 + number % 3]
            pixels = draw.integers(0, 256, (len(names), 24 + number, 20), dtype=np.uint8)
            path = folder / f"kind{number % 2}" / f"{number:02d}.ome.tif"
            path.parent.mkdir(exist_ok=True)
            metadata = {"axes": "CYX", "Channel": {"Name": names}}
            tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata=metadata)
        return TiffFolderSettings(path=str(folder), tile=16, slots="name")

    @cached_property
    def _pattern(self) -> ChannelPattern | None:
        """Where in a name the channel stands; None where each file is a field. Raises DataError where none has it."""
        wanted = self.settings.channel_pattern
        if wanted == ALONE or (wanted is None and self._alone is not None):
            return None
        plain = files_at(self.settings.path, "path", EXTENSIONS, _NOUN)
        if wanted is not None:
            pattern = ChannelPattern(wanted)
            if not any(pattern.parts(path) for path in plain.paths):
                raise DataError(
                    "No file's name has a channel where data.channel_pattern says.",
                    where=self.settings.path,
                    expected=wanted,
                    got=", ".join(plain.paths[:3]),
                )
            return pattern
        found = guess(plain.paths)
        if found is None:
            return None
        headers = [self._header_of(plain.open(n), plain.name(n)) for n in spread(range(len(plain)), _TRIED)]
        single = [header for header in headers if isinstance(header, Header)]
        return found if single and all(len(header.names) == 1 for header in single) else None

    @property
    def _alone(self) -> Path | None:
        """The one file that the source stands for, where `path` is no folder: `read` takes it, `open` refuses it."""
        path = path_of(self.settings.path, DataError)
        return path if path.suffix.lower() in EXTENSIONS and path.is_file() else None

    @cached_property
    def _files(self) -> LabelledFiles:
        bundled = False if self._pattern is None else self._pattern.field
        return LabelledFiles(self.settings, EXTENSIONS, _NOUN, bundled)

    def open(self, split: Split) -> SampleDataset:
        part = self._files.part(split)
        places: list[tuple[int, Corner]] = [(number, None) for number in range(len(part.ids))]
        groups = part.groups
        if self.settings.tile is not None:
            places = [(n, corner) for n, header in enumerate(self._headers(split)) for corner in self._corners(header)]
            groups = groups or part.ids  # tiles of one field stay on one side of a fold, too
        ids = [part.ids[n] if corner is None else f"{part.ids[n]}@{corner[0]},{corner[1]}" for n, corner in places]
        labels = None if part.labels is None else [part.labels[n] for n, _ in places]
        own_groups = None if groups is None else [groups[n] for n, _ in places]
        reader = _Reader(part, places, self._names, self.settings, self._pattern)
        if self._slot is not None:
            return Thresholded(reader, ids, labels, own_groups, self._slot, self.settings)
        return SignalDataset(reader, ids, labels, own_groups)

    @cached_property
    def _slot(self) -> int | None:
        """The slot of the channel that labels pixels; None where none does. Raises DataError where there is none."""
        return slot_of(self.settings, self._names)

    def target_names(self) -> Sequence[str] | None:
        return self.settings.target_names

    def _corners(self, header: Header | DataError) -> Sequence[Corner]:
        """A file that can't be read is one sample: reading it says why, and the run's policy decides."""
        tile = self.settings.tile
        if tile is None or isinstance(header, DataError) or max(header.height, header.width) <= tile:
            return [None]
        return tiles(header.height, header.width, tile)

    def _headers(self, split: Split) -> list[Header | DataError]:
        """Of every file of a split; what is wrong with one where it can't be read."""
        if split not in self._scanned:
            part = self._files.part(split)
            self._scanned[split] = [self._header(part, number) for number in range(len(part.ids))]
        return self._scanned[split]

    def _header(self, part: Part, number: int) -> Header | DataError:
        """Of a field, whose files are all looked at where it has several."""
        members = range(part.count(number))
        found = []
        for member in members:
            where = part.name(number, member)
            try:
                header = self._header_of(part.open(number, member), where)
            except DataError as error:
                header = error
            if isinstance(header, DataError):
                return header
            found.append(header)
            if (header.height, header.width) != (found[0].height, found[0].width):
                return _unlike(where, (header.height, header.width), (found[0].height, found[0].width))
        paths = [part.path(number, member) for member in members]
        try:
            names = joined_names([header.names for header in found], paths, self._pattern, part.name(number))
        except DataError as error:
            return error
        return Header(names, found[0].height, found[0].width)

    def _header_of(self, stream: BinaryIO, where: str) -> Header | DataError:
        try:
            with stream:
                return read_header(stream, where, self.settings)
        except DataError as error:
            return error

    @cached_property
    def _scanned(self) -> dict[Split, list[Header | DataError]]:
        return {}

    @cached_property
    def _names(self) -> tuple[str, ...] | None:
        """The names of the slots; None where a slot is a place in the file. Raises DataError if no file can be read."""
        if self.settings.slots == "index" or self.settings.channel_names is not None:
            return self.settings.channel_names if self.settings.slots == "name" else None
        if self._alone is not None:
            found = [self._header_of(open_regular(self._alone), str(self._alone))]
        else:
            found = [header for split in self._files.parts() for header in self._headers(split)]
        errors = [header for header in found if isinstance(header, DataError)]
        if errors and len(errors) == len(found):
            raise errors[0]
        return tuple(sorted(self._called(found)))

    def _called(self, headers: Sequence[Header | DataError]) -> set[str]:
        return names_in(headers, self.settings.aliases or {}, self.settings.take)

    def resolved(self) -> TiffFolderSettings:
        """The settings with what was found: channel names, so that other data puts a name into the same slot, and
        where a name holds the channel.
        """
        pattern = ALONE if self._pattern is None else self._pattern.text
        return self.settings.model_copy(update={"channel_names": self._names, "channel_pattern": pattern})

    def facts(self) -> list[Fact]:
        """Files, labels and split, then what headers say: of all files where they were looked at, else of some."""
        parts = self._files.parts()
        paths = [path for part in parts.values() for path in part.ids]
        if self.settings.slots == "name" and self.settings.channel_names is None:
            headers = [header for split in parts for header in self._headers(split)]
        else:
            places = [(part, number) for part in parts.values() for number in range(len(part.ids))]
            headers = [self._header(part, number) for part, number in spread(places, _LOOKED_AT)]
        new = strangers(self._called(headers), self.settings.channel_names if self._names else None)
        found = [*self._files.facts(), *facts_of(headers, paths, self._names, new), *self._taken_facts(headers)]
        found += threshold_facts(self.settings)
        if self._pattern is not None:
            found += joined_facts(list(parts.values()), self._pattern, self.settings.channel_pattern is None)
        return found

    def _taken_facts(self, headers: Sequence[Header | DataError]) -> list[Fact]:
        """Which planes and channels are left out."""
        settings = self.settings
        found = [Fact("planes", f"of depth: {settings.z}; of time: {settings.time}; image {settings.series} of a file")]
        if settings.take is not None:
            names = {name for header in headers if isinstance(header, Header) for name in header.names}
            left = sorted(name for name in names if (settings.aliases or {}).get(name, name) not in settings.take)
            if left:
                found.append(Fact("channels", f"not in data.take, left out: {', '.join(left)}", notice=True))
        return found

    def class_names(self) -> list[str] | None:
        return self._files.class_names

    def channel_names(self) -> Sequence[str] | None:
        return self._names

    def read(self, path: Path) -> Sample:
        try:
            with open_regular(path) as stream:
                names, pixels = read_tiff(stream, str(path), self.settings)
        except OSError as error:
            raise DataError("The file can't be read.", where=path, got=error.strerror) from error
        field = joined_names([names], [path.name], self._pattern, str(path)), pixels
        signal = hidden(cut_field(field, str(path), self._names, self.settings, None), self._slot, self.settings)
        own = _taken(field[0], str(path), self.settings)
        notes = strangers(own, self.settings.channel_names if self._names else None)
        return Sample(signal=signal, id=path.name, channels=slots_of(own, self._names), notes=notes)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds(path, EXTENSIONS)
