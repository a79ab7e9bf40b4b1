"""What a record is: what it says of itself, which of its signals are leads, and what was annotated in it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, PositiveInt

from maskedmodel.errors import DataError
from maskedmodel.sources import FileSettings
from maskedmodel_signals.montage import LeadSettings, known

MILLIVOLTS = {"nv": 1e-6, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "mv": 1.0, "v": 1e3}  # micro is written in two ways


@dataclass(frozen=True)
class Header:
    """What a record says of itself.

    labels, rates, units  of each of its signals: the name, samples per second, and unit as it is written.
    seconds               its length.
    stretches             start and end in seconds, and text, of what was annotated as lasting.
    """

    labels: tuple[str, ...]
    rates: tuple[float, ...]
    units: tuple[str, ...]
    seconds: float
    stretches: tuple[tuple[float, float, str], ...] = ()


class RecordSettings(LeadSettings, FileSettings):
    """What a source of recordings is told, beside where they are."""

    length: PositiveInt = Field(500, description="Length of a window, in samples at the rate.")
    stride: PositiveInt | None = Field(None, description="Samples from one window to the next. null: the length.")
    aliases: dict[str, str] = Field(
        {}, description="What a file calls a lead, where it isn't recognised: {MLII: II}, file name to lead."
    )
    annotated: tuple[str, ...] | None = Field(
        None,
        description="Texts of annotations that are classes. A window is of the class whose annotation lasts from its "
        "start to its end, and has no label otherwise. null: labels are of whole records, as folders or a table say.",
    )


def leads_of(header: Header, settings: RecordSettings, where: str) -> dict[int, int]:
    """Place in the record to place among the leads, of its signals that are leads. Raises DataError on two of one."""
    found: dict[int, int] = {}
    for place, label in enumerate(header.labels):
        lead = settings.aliases.get(label) or known(label, settings.places)
        if lead not in settings.names:
            continue
        slot = settings.names.index(lead)
        if slot in found.values():
            raise DataError(
                f"Two signals of a record are the lead {lead}.",
                where=where,
                got=", ".join(header.labels),
                fix=f"Set data.aliases={{{label!r}: none}} to leave one of them out.",
            )
        found[place] = slot
    return found


def stretch_label(header: Header, texts: tuple[str, ...], start: float, stop: float) -> int | None:
    """The class of a stretch that holds all of a window, in seconds; None where none does, or several do."""
    found = {text for begin, end, text in header.stretches if begin <= start + 1e-6 and stop <= end + 1e-6}
    classes = [number for number, text in enumerate(texts) if text in found]
    return classes[0] if len(classes) == 1 else None
