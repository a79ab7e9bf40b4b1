"""The `wfdb` source: recordings in PhysioNet's format, a header beside files of signals and annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel.sources import FolderFiles, Part, holds, parsing
from maskedmodel_signals.cutting import Reader
from maskedmodel_signals.recorded import Header, RecordSettings
from maskedmodel_signals.records import Records

_DAMAGED = "The recording is no whole WFDB record."


class WfdbSettings(RecordSettings):
    """Settings of the `wfdb` source."""

    name: Literal["wfdb"] = "wfdb"
    annotator: str = Field(
        "atr", description="Ending of the files of annotations, whose changes of rhythm `annotated` speaks of."
    )


class Wfdb(Records[WfdbSettings]):
    """Windows of WFDB records (Moody, Mark, Goldberger 2001), read by wfdb: a .hea file each, and what it names.

    Signals go by their descriptions, such as V5; MLII of the MIT-BIH records wants `data.aliases={MLII: II}`. Of the
    annotations rhythms are read: one begins with an annotation `+` whose text is such as (AFIB, and ends with the next.
    Records of several segments are refused. They lie in a folder: the package reads no archives.
    """

    extensions = (".hea",)
    noun = "WFDB headers"

    @classmethod
    def example_settings(cls, folder: Path) -> WfdbSettings:
        """Six recordings of two leads, written into `folder`: what the conformance kit reads."""
        wfdb = _wfdb()
        draw = np.random.default_rng(0)
        for number in range(6):
            place = folder / f"kind{number % 2}"
            place.mkdir(exist_ok=True)
            values = draw.normal(size=(500, 2)).cumsum(0) / 10
            names = ["II", "V5" if number % 2 else "V1"]
            wfdb.wrsamp(f"r{number}", 125, ["mV", "mV"], names, values, fmt=["16", "16"], write_dir=str(place))
        return WfdbSettings(path=str(folder), length=100, val_share=0.4)

    def head(self, part: Part, number: int) -> Header:
        where, path = part.name(number), _record(part, number)
        with parsing(_DAMAGED, where):
            header = _wfdb().rdheader(path)
            several = not isinstance(header, _wfdb().Record)
            if not several:
                frames = [int(count) for count in header.samps_per_frame]
                names, units = tuple(map(str, header.sig_name)), tuple(map(str, header.units))
                rates = tuple(float(header.fs) * count for count in frames)
                seconds = int(header.sig_len) / float(header.fs)
        if several:
            fix = "Convert it to records of one segment, with PhysioNet's xform, or leave it out."
            raise DataError("A record of several segments isn't read.", where=where, fix=fix)
        return Header(names, rates, units, seconds, self._rhythms(path, where, float(header.fs), seconds))

    def _rhythms(self, path: str, where: str, rate: float, seconds: float) -> tuple[tuple[float, float, str], ...]:
        """From each change of rhythm to the next one, or to the end."""
        if not Path(f"{path}.{self.settings.annotator}").is_file():
            return ()
        with parsing("The annotations can't be read.", where):
            notes = _wfdb().rdann(path, self.settings.annotator)
            changes = [
                (float(at) / (notes.fs or rate), text.strip("\x00 "))
                for at, symbol, text in zip(notes.sample, notes.symbol, notes.aux_note, strict=True)
                if symbol == "+" and text.startswith("(")
            ]
        ends = [*(at for at, _ in changes[1:]), seconds]
        return tuple((at, end, text) for (at, text), end in zip(changes, ends, strict=True))

    def reader(self, part: Part, number: int) -> Reader:
        where, path = part.name(number), _record(part, number)
        with parsing(_DAMAGED, where):
            frames = [int(count) for count in _wfdb().rdheader(path).samps_per_frame]

        def read(place: int, first: int, last: int) -> NDArray[Any]:
            with parsing(_DAMAGED, where):
                each = frames[place]  # samples of this signal in a frame, by which the package counts
                whole = {"sampfrom": first // each, "sampto": -(-last // each)}
                record = _wfdb().rdrecord(path, channels=[place], smooth_frames=False, **whole)
                begin = first - whole["sampfrom"] * each
                return np.asarray(record.e_p_signal[0][begin : begin + last - first])

        return read

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir() and holds(path, (".hea",))


def _record(part: Part, number: int) -> str:
    """The path of a record without its ending, as wfdb wants it. Raises DataError in an archive."""
    if not isinstance(part.files, FolderFiles):
        where, fix = part.name(number), "Unpack it, and set data.path to the folder."
        raise DataError("WFDB records are read in folders only.", where=where, got="an archive", fix=fix)
    part.open(number).close()  # a header that is no plain file is refused here
    return str(part.files.location(part.chosen[number]).resolve().with_suffix(""))


def _wfdb() -> Any:
    try:
        import wfdb  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError("Data source 'wfdb' needs wfdb.", got=error, fix=install_hint(extra="signals")) from error
    return wfdb
