"""What a folder of fields was taken for, by the headers of all files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from pathlib import PurePosixPath

from maskedmodel import Fact
from maskedmodel.errors import DataError
from maskedmodel_microscopy.tiff_image import Header

# What programs that write a file for each channel put into its name: ch1, c0, w2, C00, channel3.
_CHANNEL = re.compile(r"(?i)(?:(?<=[-_. ])(?:channel|ch|c|w)|(?<![a-z])ch?(?=\d\d))[-_ ]?\d{1,3}(?=[-_. ]|s[a-z]?\d|$)")
_STAIN = re.compile(
    r"(?i)(?<![a-z])(?:dapi|hoechst(?:\d*)|gfp|rfp|yfp|cfp|mcherry|fitc|tritc|cy3|cy5|texasred|brightfield|dic|phase)"
    r"(?![a-z])"
)


def facts_of(headers: Sequence[Header | DataError], paths: Sequence[str], kept: Sequence[str] | None) -> list[Fact]:
    """Sizes, channels with counts, channels left out, and whether files look like channels of one field.

    kept  names of the channels that are taken; None: all, by their place.
    """
    known = [header for header in headers if isinstance(header, Header)]
    of = f"of {len(headers)} files"
    found = []
    if known:
        found.append(Fact("size", f"{of}: {_counts([f'{header.height} x {header.width}' for header in known])}"))
        names = Counter(name for header in known for name in header.names)
        said = ", ".join(f"{name} in {count}" for name, count in sorted(names.items())[:12])
        found.append(Fact("channels", f"{of}: {said}{' and more' if len(names) > 12 else ''}"))
    if len(known) < len(headers):
        found.append(Fact("files", f"{of}, {len(headers) - len(known)} can't be opened", notice=True))
    unnamed = sum(all(name.startswith("channel ") for name in header.names) for header in known)
    if kept is not None and 0 < unnamed < len(known):
        found.append(Fact("channels", f"{of}, {unnamed} have no names for their channels: they are numbered", True))
    if known and all(len(header.names) == 1 for header in known):
        found += _apart(paths)
    return found


def _apart(paths: Sequence[str]) -> list[Fact]:
    """That files of one channel each look like the channels of fewer fields, by their names."""
    fields: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        name = PurePosixPath(path)
        for pattern in (_CHANNEL, _STAIN):
            if pattern.search(name.stem):
                fields[str(name.with_name(pattern.sub("*", name.stem, count=1)))].append(name.name)
                break
    whole = {field: members for field, members in fields.items() if len(members) > 1}
    count = sum(len(members) for members in whole.values())
    if not whole or count < len(paths) / 2:
        return []
    example = ", ".join(next(iter(whole.values()))[:3])
    text = (
        f"{count} files of one channel look like the channels of {len(whole)} fields ({example}): each is read as a "
        "field of its own; join them into one file a field to have them as channels"
    )
    return [Fact("channels", text, notice=True)]


def _counts(values: Sequence[Hashable]) -> str:
    counts = Counter(values)
    said = [f"{count} {value}" for value, count in counts.most_common(5)]
    return ", ".join(said) + (f" and {len(counts) - 5} more" if len(counts) > 5 else "")
