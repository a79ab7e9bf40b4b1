"""What a comparison came to: figures of every run, statistics of every arm, and verdicts in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskedmodel.aligned import aligned
from maskedmodel.comparison.scores import Metric
from maskedmodel.errors import DataError, DependencyError, install_hint

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

FORMAT = 1
VERDICTS = ("better", "worse", "no difference seen", "no verdict")


@dataclass(frozen=True)
class Comparison:
    """A comparison in its folder, whole or as far as it has come. `data` is what results.json holds."""

    folder: Path
    data: dict[str, Any]

    @classmethod
    def read(cls, folder: Path | str) -> Comparison:
        """From results.json. Raises DataError where there is none."""
        path = Path(folder) / "results.json"
        try:
            data = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError("This is not the folder of a comparison.", where=path, got=str(error)) from error
        return cls(Path(folder), data)

    @property
    def metrics(self) -> list[Metric]:
        """Every figure of a run."""
        return [Metric(**metric) for metric in self.data["metrics"]]

    @property
    def judged(self) -> list[Metric]:
        """Those that there are verdicts about."""
        return [metric for metric in self.metrics if metric.better is not None]

    @property
    def report(self) -> Path:
        """The page about it all."""
        return self.folder / "report.html"

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row per arm and judged figure: mean, spread, difference to the first arm, intervals, verdict."""
        rows = []
        for arm in self.data["arms"]:
            for metric in self.judged:
                spread, against = arm["summary"].get(metric.key), arm["against"].get(metric.key)
                if spread is None:
                    continue
                row = {"arm": arm["label"], "metric": metric.key, "better": metric.better, **spread}
                if against is not None:
                    low, high = against["bootstrap"] or (None, None)
                    least, most = against["student"] or (None, None)
                    row |= {
                        "difference": against["mean"],
                        "bootstrap_low": low,
                        "bootstrap_high": high,
                        "student_low": least,
                        "student_high": most,
                        "verdict": against["verdict"],
                        "why": against["why"],
                    }
                rows.append(row)
        return rows

    @property
    def runs(self) -> list[dict[str, Any]]:
        """One row per run: arm, seed, steps, FLOPs, every figure, and why it failed where it did."""
        metrics = self.metrics
        return [
            {
                "arm": arm["label"],
                "seed": run["seed"],
                "steps": arm["steps"],
                "flops": arm["flops"],
                **{metric.key: run["values"].get(metric.key) for metric in metrics},
                "failed": run["failed"],
            }
            for arm in self.data["arms"]
            for run in arm["runs"]
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """`runs` as a DataFrame. Raises DependencyError without pandas."""
        try:
            import pandas
        except ImportError as error:
            raise DependencyError("A DataFrame needs pandas.", fix=f"{install_hint('pandas')} Or use .runs.") from error
        return pandas.DataFrame(self.runs)

    def __str__(self) -> str:
        known = [m for m in self.judged if any(m.key in arm["summary"] for arm in self.data["arms"])]
        headings = ["arm", "steps", "share hidden", *(metric.title for metric in known)]
        rows = []
        for arm in self.data["arms"]:
            figures = [spread_text(arm["summary"].get(metric.key), metric.digits) for metric in known]
            hidden = arm["summary"].get("ratio")
            rows.append(
                [arm["label"], f"{arm['steps']:,}", "-" if hidden is None else f"{hidden['mean']:.3f}", *figures]
            )
        untrained = self.data.get("untrained")
        if untrained:
            figures = [f"{untrained[m.key]:.{m.digits}f}" if m.key in untrained else "-" for m in known]
            rows.append(["weights at the start", "0", "-", *figures])
        return "\n".join(
            [
                *aligned([headings, *rows]),
                "",
                *self.verdicts(),
                "",
                *(f"note: {note}" for note in self.data["notes"]),
                f"report  {self.report}",
            ]
        )

    def verdicts(self) -> list[str]:
        """In words, arm by arm, what may be said about it against the first."""
        first = self.data["arms"][0]["label"]
        titles = {metric.key: metric for metric in self.judged}
        primary = (self.data.get("primary") or {}).get("key")
        lines = []
        for arm in self.data["arms"][1:]:
            lines.append(f"{arm['label']} against {first}:")
            said = {
                key: f"{titles[key].title} ({difference_text(against, titles[key].digits)})"
                for key, against in arm["against"].items()
            }
            if primary in said:
                lines.append(f"  {arm['against'][primary]['verdict']}, by the primary measure: {said[primary]}")
            elif primary is not None and arm["against"]:
                why = self.data["left_out"].get(primary, "not measured yet")
                lines.append(f"  no verdict by the primary measure, {titles[primary].title}: {why}")
            for verdict in VERDICTS:
                found = [
                    said[key]
                    for key, against in arm["against"].items()
                    if against["verdict"] == verdict and key != primary
                ]
                if found:
                    lines.append(f"  {verdict}: {', '.join(found)}")
            whys = {against["why"] for against in arm["against"].values() if against["verdict"] == "no verdict"}
            lines += [f"  {why}" for why in sorted(whys)]
            if not arm["against"]:
                lines.append("  no run of both under the same seed is finished")
        return lines


def spread_text(spread: Mapping[str, Any] | None, digits: int) -> str:
    """Mean and standard deviation."""
    if spread is None:
        return "-"
    deviation = "" if spread["deviation"] is None else f" ± {spread['deviation']:.{digits}f}"
    return f"{spread['mean']:.{digits}f}{deviation}"


def difference_text(against: Mapping[str, Any], digits: int) -> str:
    """Mean difference and its bootstrap interval."""
    text = f"{against['mean']:+.{digits}f}"
    if against["bootstrap"] is None:
        return text
    low, high = against["bootstrap"]
    return f"{text}, 95 % {low:+.{digits}f} to {high:+.{digits}f}"
