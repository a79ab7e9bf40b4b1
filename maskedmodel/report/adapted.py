"""What the page of a fine-tuned run says: how well it does, beside its twin from scratch, and by class."""

from __future__ import annotations

import math
from collections.abc import Sequence

from maskedmodel.evaluation.judged import Judged
from maskedmodel.report.charts import Series, bar_chart, legend, line_chart
from maskedmodel.report.markup import number, table, text
from maskedmodel.report.reader import RunData
from maskedmodel.tasks import Chart, Table

_ROWS, _BARS, _DOTS = 200, 60, 400  # of a table, of a chart


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
    charts = "".join(_chart(place, found) for place, found in enumerate(judged.charts))
    return f'{body}<p class="soft">{about}</p>{charts}{"".join(_table(found) for found in judged.tables)}'


def _chart(place: int, given: Chart) -> str:
    """A task's chart; nothing where none of its values is finite."""
    if given.names:
        left = len(given.names) - _BARS
        drawn = bar_chart(f"task-{place}", given.caption, given.names[:_BARS], given.y[:_BARS], given.y_label)
        more = f'<p class="soft">And {left:,} bars more, in outcome.json.</p>' if left > 0 else ""
        return f"<figure><h3>{text(given.caption)}</h3>{drawn}{more}</figure>" if drawn else ""
    every = -(-len(given.y) // _DOTS) or 1  # evenly taken: which dots are drawn must not depend on where they lie
    said = "samples" if every == 1 else f"one of {every} samples"
    series = [Series(said, given.x[::every], given.y[::every], "dots", 1)]
    ends = [value for pair in zip(given.x, given.y, strict=True) if all(map(math.isfinite, pair)) for value in pair]
    if given.diagonal and ends:
        both = (min(ends), max(ends))
        series.insert(0, Series("equal", both, both, "line", 2))
    drawn = line_chart(f"task-{place}", given.caption, series, x_label=given.x_label, y_label=given.y_label)
    return f"<figure><h3>{text(given.caption)}</h3>{drawn}{legend(series)}</figure>" if drawn else ""


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
