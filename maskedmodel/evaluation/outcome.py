"""What probes came to: figures with intervals, the protocol that makes them comparable, and tables of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from maskedmodel.evaluation.classifiers import Accuracy, Linear
from maskedmodel.evaluation.landscape import Landscape


@dataclass(frozen=True)
class ProbeRow:
    """One kind of feature, `width` values a sample. `knn` and `linear` are None where they weren't asked for."""

    name: str
    width: int
    knn: Accuracy | None
    linear: Linear | None
    few: Mapping[str, float] = field(default_factory=dict)  # accuracy by the number of labels, of linear probes


@dataclass(frozen=True)
class Score:
    """What one probe made of one kind of feature.

    chosen  what it chose on the held-out part, such as "layer 3" or "rate 0.001"; of several folds the first one's.
    detail  lists of numbers behind it, such as the held-out accuracy of each layer.
    """

    accuracy: Accuracy
    chosen: str = ""
    detail: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def over(cls, folds: Sequence[Score]) -> Score:
        """That of all folds together."""
        return cls(Accuracy.over([fold.accuracy for fold in folds]), folds[0].chosen, folds[0].detail)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Score:
        detail = {name: tuple(numbers) for name, numbers in values.get("detail", {}).items()}
        return cls(Accuracy(**values["accuracy"]), values.get("chosen", ""), detail)


@dataclass(frozen=True)
class Judgement:
    """One probe beside k-NN and the linear one: what it scored by kind of feature, and its protocol in words."""

    probe: str
    title: str
    scores: Mapping[str, Score]
    protocol: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        scores = {
            name: {**asdict(score), "detail": {key: list(numbers) for key, numbers in score.detail.items()}}
            for name, score in self.scores.items()
        }
        return {**asdict(self), "scores": scores}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Judgement:
        scores = {name: Score.from_dict(score) for name, score in values["scores"].items()}
        return cls(values["probe"], values["title"], scores, values["protocol"])


@dataclass(frozen=True)
class ProbeResult:
    """The rows, the protocol that makes them comparable, and what to know before believing them."""

    rows: tuple[ProbeRow, ...]
    protocol: str
    notes: tuple[str, ...] = ()
    uneven: bool = False  # whether the commonest class has over twice the samples of the rarest one
    about: str = ""  # the settings that differ from the run's own, such as "data.label=speaker"
    others: tuple[Judgement, ...] = ()  # probes beside k-NN and the linear one
    landscape: Landscape | None = None  # what is to be seen of the first encoder's features

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        rows, others = [asdict(row) for row in self.rows], [other.to_dict() for other in self.others]
        found = {**asdict(self), "rows": rows, "notes": list(self.notes), "others": others}
        found["landscape"] = None if self.landscape is None else self.landscape.to_dict()
        return {key: value for key, value in found.items() if key not in ("others", "landscape") or value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProbeResult:
        rows = tuple(
            ProbeRow(
                row["name"],
                row["width"],
                None if row["knn"] is None else Accuracy(**row["knn"]),
                None
                if row["linear"] is None
                else Linear(**{**row["linear"], "accuracy": Accuracy(**row["linear"]["accuracy"])}),
                row.get("few", {}),
            )
            for row in values["rows"]
        )
        uneven, about = values.get("uneven", False), values.get("about", "")
        others = tuple(Judgement.from_dict(other) for other in values.get("others", ()))
        seen = values.get("landscape")
        landscape = None if seen is None else Landscape.from_dict(seen)
        return cls(rows, values["protocol"], tuple(values["notes"]), uneven, about, others, landscape)

    def __str__(self) -> str:
        parts = []
        if any(row.knn or row.linear for row in self.rows):
            parts += [*_aligned(*self.table()), ""]
        if self.others:
            parts += [*_aligned(*self.other_table()), ""]
        words = [self.protocol, *(f"{other.title}: {other.protocol}" for other in self.others)]
        return "\n".join([*parts, *words, *(f"note: {n}" for n in self.notes)])

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows of text of k-NN and the linear probe, for whoever draws a table."""
        counts = list(self.rows[0].few) if self.rows else []
        near = any(row.knn for row in self.rows)
        fitted = any(row.linear for row in self.rows)
        headings = ["features", "width", *(["k-NN"] if near else []), *(["linear probe", "C"] if fitted else [])]
        uneven = [("balanced", "balanced"), ("macro AUC", "auc")] if self.uneven and fitted else []
        headings += [*(title for title, _ in uneven), *(f"{count} labels" for count in counts)]
        rows = []
        for row in self.rows:
            cells = [row.name, str(row.width)]
            cells += [str(row.knn)] if near else []
            if row.linear is not None:
                c = f"{row.linear.c:g}" + ("" if row.linear.converged else " (not converged)")
                more = [getattr(row.linear, name) for _, name in uneven]
                cells += [str(row.linear.accuracy), c, *("" if value is None else f"{value:.3f}" for value in more)]
            rows.append([*cells, *(f"{row.few[count]:.3f}" for count in counts)])
        return headings, rows

    def other_table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows of text of the other probes: a row for each, a column for each kind of feature."""
        kinds = list(dict.fromkeys(name for other in self.others for name in other.scores))
        rows = []
        for other in self.others:
            cells = []
            for kind in kinds:
                score = other.scores.get(kind)
                chosen = f" ({score.chosen})" if score is not None and score.chosen else ""
                cells.append("-" if score is None else f"{score.accuracy}{chosen}")
            rows.append([other.title, *cells])
        return ["probe", *kinds], rows


def _aligned(headings: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (headings, *rows)]
    return [line.rstrip() for line in lines]
