"""The `edf` source: recordings as EDF, EDF+ and BDF files, in a folder or archive."""

from __future__ import annotations

import warnings
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

_EXTENSIONS = (".edf", ".bdf", ".rec")


class EdfSettings(RecordSettings):
    """Settings of the `edf` source."""

    name: Literal["edf"] = "edf"
    interrupted: Literal["refuse", "join"] = Field(
        "refuse",
        description="What a file is that says that it has gaps (EDF+D). refuse: broken. join: read as if its pieces "
        "followed on each other, so that a window may lie across a gap.",
    )
    incomplete: Literal["refuse", "read"] = Field(
        "refuse",
        description="What a file is that holds another number of data records than its header says. refuse: broken. "
        "read: whole records are read, as many as there are.",
    )


class Edf(Records[EdfSettings]):
    """Windows of EDF, EDF+ and BDF files (Kemp et al. 1992, Kemp and Olivan 2003), read by edfio.

    Signals go by their labels: "EEG Fp1-REF" is Fp1. Annotations with a duration are what `data.annotated` speaks of.
    """

    extensions = _EXTENSIONS
    noun = "EDF files"

    @classmethod
    def example_settings(cls, folder: Path) -> EdfSettings:
        """Six recordings of four electrodes, written into `folder`: what the conformance kit reads."""
        edfio = _edfio()
        draw = np.random.default_rng(0)
        for number in range(6):
            names = ("Fp1", "Fp2", "O1", "EOG") if number % 2 else ("EEG Fp1-REF", "O1", "O2", "EOG")
            signals = [
                edfio.EdfSignal(draw.normal(size=400) * 50, 100, label=n, physical_dimension="uV") for n in names
            ]
            path = folder / f"kind{number % 2}" / f"{number}.edf"
            path.parent.mkdir(exist_ok=True)
            edfio.Edf(signals).write(path)
        return EdfSettings(path=str(folder), leads=("Fp1", "Fp2", "O1", "O2"), length=100, val_share=0.4)

    def head(self, part: Part, number: int) -> Header:
        where = part.name(number)
        with parsing("The file is no whole EDF or BDF file.", where):
            record, said = _opened(part, number)
            signals = record.signals
            notes = [(float(a.onset), a.duration, str(a.text)) for a in record.annotations]
            seconds, whole = float(record.duration), bool(record.is_continuous)
            names = tuple(signal.label for signal in signals)
            rates = tuple(float(signal.sampling_frequency) for signal in signals)
            units = tuple(signal.physical_dimension for signal in signals)
        if not whole and self.settings.interrupted == "refuse":
            raise DataError("The recording has gaps.", where=where, got="EDF+D", fix="Set data.interrupted=join.")
        if said and self.settings.incomplete == "refuse":
            fix = "Set data.incomplete=read to read what is there."
            raise DataError("The recording isn't as long as its header says.", where=where, got=said, fix=fix)
        return Header(names, rates, units, seconds, tuple((on, on + float(d), t) for on, d, t in notes if d))

    def reader(self, part: Part, number: int) -> Reader:
        where = part.name(number)
        with parsing("The file is no whole EDF or BDF file.", where):
            signals = _opened(part, number)[0].signals

        def read(place: int, first: int, last: int) -> NDArray[Any]:
            with parsing("The file is no whole EDF or BDF file.", where):
                rate = signals[place].sampling_frequency
                return np.asarray(signals[place].get_data_slice(first / rate, last / rate))

        return read

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds(path, _EXTENSIONS)


def _opened(part: Part, number: int) -> tuple[Any, str]:
    """A file as edfio holds it, and what it warns of. In a folder, only what is asked for is read."""
    edfio = _edfio()
    with part.open(number) as stream, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        read = edfio.read_bdf if part.name(number).lower().endswith(".bdf") else edfio.read_edf
        files = part.files
        file = files.location(part.chosen[number]) if isinstance(files, FolderFiles) else stream.read()
        record = read(file, header_encoding="latin-1")
    return record, "; ".join(str(warning.message) for warning in told)


def _edfio() -> Any:
    try:
        import edfio
    except ImportError as error:
        raise DependencyError("Data source 'edf' needs edfio.", got=error, fix=install_hint(extra="signals")) from error
    return edfio
