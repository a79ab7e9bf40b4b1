"""What the page of a fine-tuned run says: how well it does, beside its twin from scratch, and by class."""

from __future__ import annotations

import math
from collections.abc import Sequence

from maskedmodel.evaluation.judged import Judged
from maskedmodel.report.markup import number, table, text
from maskedmodel.report.reader import RunData
from maskedmodel.tasks import Table

_ROWS = 200  # of a table


def worth(data: RunData) -> str:
    """The metrics with their intervals, and the task's own tables."""
    if data.judged is None:
        return ""
    judged, labels = data.judged
    started = (data.config.get("start") or {}).get("weights") is not None
    rows = [("fine-tuned" if started else "from fresh weights", judged)]
    if data.twin is not None:
        rows.append(("same, from scratch", data.twin[0]))
    body = table(
        "On the validation part, after the last step, and the 95 % interval",
        ("", *judged.metrics),
        [_row(name, found, list(judged.metrics)) for name, found in rows],
    )
    about = (
        f"{labels:,} labelled training and {judged.samples:,} validation samples. Intervals: bootstrap over the "
        f"validation samples. The score is {text(judged.score)}."
    )
    if data.twin is not None:
        about += " From scratch: fresh weights, and neither layer-wise decay nor freezing, which protect learned ones."
    return f'{body}<p class="soft">{about}</p>{"".join(_table(found) for found in judged.tables)}'


def _row(name: str, judged: Judged, metrics: Sequence[str]) -> str:
    cells = ""
    for metric in metrics:
        found = judged.metrics.get(metric)
        if found is None:
            cells += "<td>-</td>"
            continue
        cells += f"<td>{number(found.value)}<small>{number(found.low)} to {number(found.high)}</small></td>"
    return f'<tr><th scope="row">{text(name)}</th>{cells}</tr>'


def _table(given: Table) -> str:
    numbers = [cell for row in given.rows for cell in row[1:] if isinstance(cell, int | float)]
    most = max((float(cell) for cell in numbers if math.isfinite(cell)), default=0.0)
    rows = []
    for first, *rest in given.rows[:_ROWS]:
        cells = "".join(_cell(cell, most if given.shaded else 0.0) for cell in rest)
        rows.append(f'<tr><th scope="row">{text(first, 60)}</th>{cells}</tr>')
    left = len(given.rows) - len(rows)
    more = f'<p class="soft">And {left:,} rows more, in outcome.json.</p>' if left else ""
    return table(text(given.caption), [text(heading, 60) for heading in given.headings], rows) + more


def _cell(cell: str | float | int, most: float) -> str:
    if not isinstance(cell, int | float):
        return f"<td>{text(cell)}</td>"
    share = cell / most if most and math.isfinite(cell) else 0.0
    shade = f' style="background:color-mix(in srgb, var(--s1) {60 * share:.0f}%, transparent)"' if share else ""
    return f"<td{shade}>{number(cell)}</td>"
