"""What a folder of fields was taken for, by the headers of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from maskedmodel import Fact
from maskedmodel.errors import DataError
from maskedmodel.sources import Part, looked_at, tally
from maskedmodel_microscopy.joined import ChannelPattern
from maskedmodel_microscopy.tiff_image import Header


def names_in(
    headers: Sequence[Header | DataError], aliases: Mapping[str, str], take: Collection[str] | None
) -> set[str]:
    """The names, after aliases, of the channels that are taken."""
    called = {aliases.get(name, name) for header in headers if isinstance(header, Header) for name in header.names}
    return called if take is None else called & set(take)


def strangers(names: Iterable[str], known: Sequence[str] | None) -> list[str]:
    """What is to be told of channels that aren't `known` by the settings: a model has learned nothing of them."""
    new = sorted(set(names).difference(known)) if known is not None else []
    return [f"not among data.channel_names, so a model doesn't know them: {', '.join(new)}"] if new else []


def facts_of(
    headers: Sequence[Header | DataError], paths: Sequence[str], kept: Sequence[str] | None, new: Sequence[str] = ()
) -> list[Fact]:
    """Sizes, channels with counts, and whether files look like channels of one field.

    headers  of these files, or of some of them.
    paths    of all files.
    kept     names of the channels that are taken; None: all, by their place.
    new      what `strangers` says.
    """
    known = [header for header in headers if isinstance(header, Header)]
    of = looked_at(len(headers), len(paths), "files")
    found = []
    if known:
        found.append(Fact("size", f"{of}: {tally(f'{header.height} x {header.width}' for header in known)}"))
        names = Counter(name for header in known for name in header.names)
        said = ", ".join(f"{name} in {count}" for name, count in sorted(names.items())[:12])
        found.append(Fact("channels", f"{of}: {said}{' and more' if len(names) > 12 else ''}"))
    if len(known) < len(headers):
        found.append(Fact("files", f"{of}, {len(headers) - len(known)} can't be opened", notice=True))
    found += [Fact("channels", f"{of}: {text}", notice=True) for text in new]
    unnamed = sum(all(name.startswith("channel ") for name in header.names) for header in known)
    if kept is not None and 0 < unnamed < len(known):
        found.append(Fact("channels", f"{of}, {unnamed} have no names for their channels: they are numbered", True))
    return found


def joined_facts(parts: Sequence[Part], pattern: ChannelPattern, guessed: bool) -> list[Fact]:
    """That files are channels of fields, how that was found, and how many have no other."""
    counts = [part.count(number) for part in parts for number in range(len(part.ids))]
    alone = sum(count == 1 for count in counts)
    how = "found by their names; data.channel_pattern=none reads each as a field" if guessed else "as set"
    text = f"{sum(counts)} files are the channels of {len(counts)} fields, by {pattern.text} ({how})"
    found = [Fact("channels", text, notice=guessed)]
    if alone:
        found.append(Fact("channels", f"of {len(counts)} fields, {alone} have one channel alone", notice=True))
    return found
