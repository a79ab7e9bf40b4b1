"""What lies among the files of a source and isn't read: counted by kind, so that it can be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from maskedmodel.components import Fact

# Kinds of signals that are often met and read by no source here, and the package that reads each.
_READ_BY = {
    "HEIF": ("pillow-heif", (".heic", ".heif", ".hif")),
    "AVIF": ("Pillow 11.3 or newer", (".avif",)),
    "JPEG XL": ("pillow-jxl-plugin", (".jxl",)),
    "JPEG 2000": ("Pillow", (".jp2", ".j2k", ".jpx")),
    "raw camera": (
        "rawpy",
        (".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f"),
    ),
    "DICOM": ("pydicom", (".dcm", ".dicom")),
    "NIfTI": ("nibabel", (".nii", ".nii.gz")),
    "SVG": ("cairosvg", (".svg",)),
    "Photoshop": ("psd-tools", (".psd",)),
    "OpenEXR": ("OpenEXR", (".exr",)),
    "Zeiss": ("czifile", (".czi",)),
    "Nikon": ("nd2", (".nd2",)),
    "Leica": ("readlif", (".lif",)),
    "compressed sound": ("av", (".m4a", ".aac", ".wma", ".amr", ".ac3", ".mka")),
}
_PACKAGE_OF = {suffix: package for package, suffixes in _READ_BY.values() for suffix in suffixes}
# What stands beside data to describe it: left out as a matter of course, and told to who asks.
_DESCRIBING = frozenset(
    (
        *(".csv", ".tsv", ".json", ".jsonl", ".txt", ".md", ".rst", ".xml", ".yaml", ".yml", ".toml", ".html"),
        *(".pdf", ".log", ".py", ".sh", ".ipynb", ".bib", ".cff"),
    )
)
_DOUBLE = (".nii.gz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def kind_of(name: str) -> str:
    """The ending of a file's name in lower case, ".nii.gz" whole; "" where it has none."""
    name = name.rpartition("/")[2].lower()
    double = next((ending for ending in _DOUBLE if name.endswith(ending)), None)
    stem, dot, ending = name.rpartition(".")
    return double or (f".{ending}" if dot and stem and ending and len(ending) <= 10 else "")


def reader_of(kinds: Iterable[str]) -> str:
    """Which packages read files of these kinds: "pillow-heif reads .heic"; "" where none is known."""
    known = {kind: _PACKAGE_OF[kind] for kind in kinds if kind in _PACKAGE_OF}
    by_package: dict[str, list[str]] = {}
    for kind, package in sorted(known.items()):
        by_package.setdefault(package, []).append(kind)
    return "; ".join(f"{package} reads {' '.join(kinds)}" for package, kinds in by_package.items())


@dataclass
class Census:
    """Of one folder or archive: what is read and what isn't, by kind.

    read      files by ending.
    ignored   files of other kinds by ending.
    hidden    files and folders whose names start with a dot.
    special   what is no file to read, by kind ("named pipe"), with the first path of each.
    loops     links back to a folder above, not followed.
    again     folders that were reached by several paths: their files count each time.
    renamed   files whose names aren't UTF-8, by the name they go by here.
    """

    read: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    special: dict[str, list[str]] = field(default_factory=dict)
    loops: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)  # .csv and .tsv at the top
    sidecars: set[str] = field(default_factory=set)  # paths of .json files

    def count(self, path: str, wanted: bool) -> None:
        """Note one plain file."""
        kind = kind_of(path)
        (self.read if wanted else self.ignored)[kind] += 1
        if kind == ".json":
            self.sidecars.add(path)
        elif kind in (".csv", ".tsv") and path.count("/") <= 1:
            self.tables.append(path)

    def summary(self) -> str:
        """ "46 files: 6 .jpg read, 40 .heic ignored"."""
        total = self.read.total() + self.ignored.total()
        parts = [f"{_by_kind(self.read)} read"] if self.read else ["none read"]
        if self.ignored:
            parts.append(f"{_by_kind(self.ignored)} ignored")
        return f"{total} {'file' if total == 1 else 'files'}: {', '.join(parts)}"

    def facts(self, used: Iterable[str] = ()) -> list[Fact]:
        """What there is to tell of the files. `used` has paths that were read as tables or sidecars."""
        taken = Counter(map(kind_of, used))
        ignored = self.ignored - taken
        worth = any(kind and kind not in _DESCRIBING for kind in ignored)
        package = reader_of(ignored)
        text = Census(self.read, ignored).summary() + (f" ({package}: convert them with it)" if package else "")
        facts = [Fact("files", text, worth)]
        if taken:
            facts.append(Fact("files", f"read for labels: {taken.total()}"))
        if self.hidden:
            facts.append(Fact("files", f"hidden, with names that start with a dot, passed over: {self.hidden}"))
        for kind, paths in sorted(self.special.items()):
            facts.append(Fact("files", _some(paths, f"{kind}, left out"), True))
        if self.loops:
            facts.append(Fact("files", _some(self.loops, "links back to a folder above, not followed"), True))
        if self.again:
            what = _some(self.again, "folders read by another path too, whose files count each time")
            facts.append(Fact("files", what, True))
        if self.renamed:
            facts.append(Fact("files", _some(self.renamed, "names that aren't UTF-8, spelled out"), True))
        return facts


def _by_kind(counts: Counter[str]) -> str:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:8]
    shown = [f"{count} {kind or 'without an ending'}" for kind, count in most]
    rest = counts.total() - sum(count for _, count in most)
    return ", ".join([*shown, *([f"{rest} of other kinds"] if rest else [])])


def _some(paths: list[str], what: str) -> str:
    """ "named pipe: 2 (a/b, c)": how many, and where the first are."""
    shown = ", ".join(sorted(paths)[:3]) + (", ..." if len(paths) > 3 else "")
    return f"{what}: {len(paths)} ({shown})"
