"""What was found in foreign weights, said exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from maskedmodel.errors import CheckpointError

Verdict = Literal["complete", "encoder only", "mismatched"]

LICENCE = (
    "The MAE, VideoMAE and AudioMAE weights that their authors published are CC-BY-NC 4.0: not for commercial use. "
    "Other weights have terms of their own."
)
_SHOWN = 5


@dataclass(frozen=True)
class LoadReport:
    """What a file, folder or model in memory held, and what became of it.

    verdict     complete: every tensor of encoder and decoder. encoder only: every tensor of the encoder, none of the
                decoder. mismatched: anything else; then nothing is used.
    source      path or class it came from.
    container   how it is stored, such as "safetensors".
    layout      whose names its tensors have.
    loaded      our names of what fits. Position tables count: they are compared, since ours are computed.
    missing     our names of what wasn't there.
    unexpected  its names of what has no place in the model.
    mismatched  our names and what is wrong: another shape, values that aren't finite, other positions.
    notes       what a user should know besides, such as settings that no file tells.
    left_out    its names of what is known and has no use here, such as a classifier's head.
    expects     what the model's `encode` takes.
    """

    verdict: Verdict
    source: str
    container: str
    layout: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    licence: str = LICENCE
    left_out: tuple[str, ...] = ()
    expects: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors were loaded, missing, unexpected and mismatched."""
        lists = {
            "loaded": self.loaded,
            "missing": self.missing,
            "unexpected": self.unexpected,
            "mismatched": self.mismatched,
        }
        return {name: len(entries) for name, entries in lists.items()}

    def counted(self) -> str:
        """The counts as text: `54 loaded, 0 missing, 0 unexpected, 0 mismatched`."""
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())

    def summary(self) -> str:
        """A few lines for people: verdict, origin, counts, the first names of each kind of trouble, notes, licence."""
        verdict: str = self.verdict
        if self.verdict == "encoder only":
            verdict += ": good for features, not for reconstruction"
        if self.verdict == "mismatched":
            verdict += ": nothing was used"
        lines = [
            f"{self.source}: {verdict}.",
            f"  found: {self.layout}, {self.container}",
            f"  tensors: {self.counted()}",
        ]
        for name in ("missing", "unexpected", "mismatched"):
            entries: tuple[str, ...] = getattr(self, name)
            if name == "missing" and self.verdict == "encoder only":
                lines.append(f"  missing: the decoder ({len(entries)} tensors)")
            elif entries:
                lines.append(f"  {name}: {_first(entries)}")
        if self.left_out:
            lines.append(f"  left out: {_first(self.left_out)}")
        lines += [f"  note: {note}" for note in self.notes]
        if self.expects and self.verdict != "mismatched":
            lines.append(f"  expects: {self.expects}")
        return "\n".join([*lines, f"  licence: {self.licence}"])

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "verdict": self.verdict,
            "source": self.source,
            "container": self.container,
            "layout": self.layout,
            "counts": self.counts,
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "mismatched": list(self.mismatched),
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "expects": self.expects,
            "licence": self.licence,
        }


def _first(entries: tuple[str, ...]) -> str:
    more = len(entries) - _SHOWN
    return "; ".join(entries[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


class WeightsMismatch(CheckpointError):
    """Foreign weights that don't fit. Nothing of them is used; `report` says what was found."""

    def __init__(self, report: LoadReport, fix: str | None = None) -> None:
        self.report = report
        troubles = {"mismatched": report.mismatched, "unexpected": report.unexpected, "missing": report.missing}
        lines = [f"{name}: {_first(entries)}" for name, entries in troubles.items() if entries]
        super().__init__(
            f"These weights are no {report.layout} that fits, so none of them is used.",
            where=report.source,
            expected="every tensor of the encoder, and all or none of the decoder's",
            got="\n    ".join([report.counted(), *lines]),
            fix=fix or "Check that the weights and the settings given with them belong together.",
        )
