"""Files that hold one channel each, as many microscopes write them, joined to fields by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from maskedmodel.errors import ConfigError, DataError

ALONE = "none"  # the value of channel_pattern by which each file is a field
_PLACES = {"{channel}": r"(?P<channel>[A-Za-z0-9+]+)", "{number}": r"(?P<channel>[0-9]{1,4})"}
_SEPARATORS = ("_", "-", ".", " ")
_WORDS = ("ch", "Ch", "CH", "channel", "Channel", "c", "C", "w", "W")
# What is tried where nothing is set, the plainest names first; what a channel's part of a name then has to be.
_GUESSED = (
    *((f"{mark}{word}{{number}}", r"[0-9]+") for word in _WORDS for mark in _SEPARATORS),
    *((f"{mark}w{{channel}}", r"[0-9]\w*") for mark in _SEPARATORS),
    ("-ch{number}sk", r"[0-9]+"),
    *((f"{mark}{{channel}}", "stain") for mark in _SEPARATORS),
    *((f"{{channel}}{mark}", "stain") for mark in _SEPARATORS),
    ("{channel}", "stain"),
)
_STAINS = frozenset(
    [
        *("dapi", "hoechst", "hoechst33342", "gfp", "egfp", "rfp", "yfp", "cfp", "bfp", "mcherry", "tdtomato", "fitc"),
        *("tritc", "cy2", "cy3", "cy5", "cy7", "texasred", "alexa488", "alexa568", "alexa594", "alexa647", "af488"),
        *("af568", "af647", "brightfield", "bf", "dic", "phase", "dna", "rna", "er", "agp", "mito", "actin", "tubulin"),
        "phalloidin",
    ]
)
_MOST_CHANNELS = 32
_MOSTLY = 0.9  # share of files that have to be channels of fields of several, for a pattern to be guessed


class ChannelPattern:
    """Where in a file's name its channel stands: text with one {channel} (letters, digits, +) or {number} in it.

    What follows it, where the pattern says nothing, is no letter or digit; of several places the last one counts.
    Raises ConfigError on text without exactly one of the two.
    """

    def __init__(self, text: str) -> None:
        places = [place for place in _PLACES for _ in range(text.count(place))]
        if len(places) != 1:
            raise ConfigError(
                "Setting channel_pattern doesn't say where in a name the channel stands.",
                expected=f"text with one {{channel}} or {{number}} in it, such as _ch{{number}}; or {ALONE}",
                got=text,
            )
        self.text = text
        before, after = text.split(places[0])
        end = re.escape(after) or r"(?![A-Za-z0-9])"
        start = re.escape(before) or r"(?<![A-Za-z0-9])"
        self._form = re.compile(f"{start}{_PLACES[places[0]]}{end}")
        self._before = re.sub(r"[^A-Za-z0-9]+$|^[^A-Za-z0-9]+", "", before)

    def parts(self, path: str) -> tuple[str, str] | None:
        """The field's path and the channel's part of a name; None where the name has none."""
        name = PurePosixPath(path)
        places = list(self._form.finditer(name.stem))
        if not places:
            return None
        found = places[-1]
        rest = (name.stem[: found.start()] + name.stem[found.end() :]).strip("".join(_SEPARATORS))
        if rest:
            field = name.with_name(rest + name.suffix)
        else:  # the folder is the field, and at the top there is but one
            field = name.parent.parent / f"{name.parent.name or 'field'}{name.suffix}"
        return str(field), found["channel"]

    def field(self, path: str) -> str:
        """The path of the field that a file belongs to: its own where its name has no channel in it."""
        found = self.parts(path)
        return path if found is None else found[0]

    def channel(self, path: str) -> str | None:
        """What a file's channel is called by its name: DAPI, ch1."""
        found = self.parts(path)
        if found is None:
            return None
        return f"{self._before}{found[1]}" if found[1].isdigit() else found[1]


def guess(paths: Sequence[str]) -> ChannelPattern | None:
    """The pattern by which nearly all files are channels of fields that have several; None where there is none.

    Numbers are taken for channels only where there are two fields or more, since one may as well be fields by number.
    """
    for text, allowed in _GUESSED:
        pattern = ChannelPattern(text)
        found = [(path, pattern.parts(path)) for path in paths]
        known = {path: parts for path, parts in found if parts is not None and _fits(parts[1], allowed)}
        fields = Counter(field for field, _ in known.values())
        joined = sum(count for count in fields.values() if count > 1)
        channels = {channel for _, channel in known.values()}
        enough = len(fields) > 1 or allowed == "stain"
        if enough and joined >= _MOSTLY * len(paths) and 1 < len(channels) <= _MOST_CHANNELS:
            return pattern
    return None


def _fits(channel: str, allowed: str) -> bool:
    if allowed == "stain":
        return channel.casefold() in _STAINS
    return re.fullmatch(allowed, channel) is not None


def joined_names(
    names: Sequence[Sequence[str]], paths: Sequence[str], pattern: ChannelPattern | None, where: object
) -> tuple[str, ...]:
    """Channel names of a field out of those of its files: what the files say where all differ, else what names say.

    names  of each file's channels, by the files' headers.

    Raises DataError where a joined file holds several channels, or two of a field are the same channel.
    """
    if pattern is None or (len(names) == 1 and pattern.channel(paths[0]) is None):
        return tuple(name for own in names for name in own)
    many = next((path for path, own in zip(paths, names, strict=True) if len(own) != 1), None)
    if many is not None:
        raise DataError(
            "A file that is to be one channel of a field holds several.",
            where=f"{where}, {many}",
            expected="one channel in each file",
            got=", ".join(names[paths.index(many)]),
            fix="Set data.channel_pattern=none.",
        )
    by_name = [pattern.channel(path) or "" for path in paths]
    if len(set(by_name)) < len(by_name):
        raise DataError(
            "Two files are the same channel of one field.",
            where=where,
            expected="one file for each channel",
            got=", ".join(paths),
            fix="Mend data.channel_pattern.",
        )
    by_file = [own[0] for own in names]
    said = len(set(by_file)) == len(by_file) and not any(re.fullmatch(r"channel [0-9]+", name) for name in by_file)
    return tuple(by_file if said else by_name)
