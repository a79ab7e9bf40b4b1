"""Probes on a page: tables of figures with their intervals, and the accuracy of each layer as a chart."""

from __future__ import annotations

from collections.abc import Sequence

from maskedmodel.evaluation.classifiers import Accuracy
from maskedmodel.evaluation.outcome import Judgement, ProbeResult
from maskedmodel.report import landscape
from maskedmodel.report.charts import Series, legend, line_chart
from maskedmodel.report.markup import table as _table
from maskedmodel.report.markup import text as _text


def tiles(probe: ProbeResult) -> list[tuple[str, str, str]]:
    """Title, figure of the first row, and those of the others."""
    found = []
    names = {"same encoder, random weights": "random", "raw values": "raw"}
    for title, values in (
        ("k-NN accuracy", [row.knn.value for row in probe.rows if row.knn]),
        ("linear probe", [row.linear.accuracy.value for row in probe.rows if row.linear]),
    ):
        if values:
            pairs = zip(probe.rows[1:], values[1:], strict=True)
            small = ", ".join(f"{names.get(row.name, row.name)} {value:.3f}" for row, value in pairs)
            found.append((title, f"{values[0]:.3f}", small))
    return found


def section(probes: Sequence[ProbeResult]) -> str:
    """All of a run's probes. Small pictures of samples that several of them have stand once."""
    kept: dict[str, str] = {}
    return "".join(_probe(probe, number, kept) for number, probe in enumerate(probes))


def _cell(accuracy: Accuracy, more: str = "") -> str:
    interval = f"{accuracy.low:.3f} to {accuracy.high:.3f}"
    return f"<td>{accuracy.value:.3f}<small>{interval}</small>{f'<small>{more}</small>' if more else ''}</td>"


def _probe(probe: ProbeResult, number: int, kept: dict[str, str]) -> str:
    notes = "".join(f'<p class="note">{_text(note, 2000)}</p>' for note in probe.notes)
    places = not probe.rows and all(other.probe == "dense" for other in probe.others)
    measure = "mean intersection over union" if places else "accuracy"
    what = f"With {_text(probe.about)}: {measure}" if probe.about else measure.capitalize()
    caption = f"{what} on samples it wasn't fitted to, and its 95 % interval"
    parts = [notes, _rows(probe, caption)]
    if probe.others:
        more = "The same samples, by other probes" if any(row.knn or row.linear for row in probe.rows) else caption
        parts.append(_others(probe.others, more))
    parts.append(f'<p class="soft">{_text(probe.protocol, 4000)}</p>')
    said = "".join(f"<li>{_text(other.title)}: {_text(other.protocol, 2000)}</li>" for other in probe.others)
    parts.append(f'<ul class="soft">{said}</ul>' if said else "")
    drawn = "".join(_layers(other, f"layers-{number}") for other in probe.others)
    parts.append(f'<div class="charts">{drawn}</div>' if drawn else "")
    if probe.landscape is not None and probe.landscape.x:
        parts.append(landscape.section(probe.landscape, f"map-{number}", kept))
    return "".join(parts)


def _rows(probe: ProbeResult, caption: str) -> str:
    near, fitted = any(row.knn for row in probe.rows), any(row.linear for row in probe.rows)
    if not near and not fitted:
        return ""
    rows = []
    for row in probe.rows:
        cells = "" if row.knn is None else _cell(row.knn)
        if row.linear is not None:
            c = f"C {row.linear.c:g}{'' if row.linear.converged else ', not converged'}"
            cells += _cell(row.linear.accuracy, c) + "".join(f"<td>{v:.3f}</td>" for v in row.few.values())
        rows.append(
            f'<tr><th scope="row">{_text(row.name)}<br><small class="soft">{row.width} values</small></th>{cells}</tr>'
        )
    headings = ["features", *(["k-NN"] if near else []), *(["linear probe"] if fitted else [])]
    return _table(caption, (*headings, *(f"{count} labels" for count in probe.rows[0].few)), rows)


def _others(others: Sequence[Judgement], caption: str) -> str:
    kinds = list(dict.fromkeys(name for other in others for name in other.scores))
    rows = []
    for other in others:
        scores = (other.scores.get(kind) for kind in kinds)
        cells = "".join("<td>-</td>" if s is None else _cell(s.accuracy, _text(s.chosen)) for s in scores)
        rows.append(f'<tr><th scope="row">{_text(other.title)}</th>{cells}</tr>')
    return _table(caption, ("probe", *(_text(kind) for kind in kinds)), rows)


def _layers(other: Judgement, identity: str) -> str:
    """What each layer scored on the held-out part, or weighs in the mixture."""
    titles = {"held out": ("Accuracy by layer, on the part held out", "accuracy"), "weights": ("", "weight")}
    for name, (title, label) in titles.items():
        series = [
            Series(kind, list(range(1, len(score.detail[name]) + 1)), score.detail[name], colour=number % 4 + 1)
            for number, (kind, score) in enumerate(other.scores.items())
            if name in score.detail
        ]
        if series:
            title = title or "Weight of each layer in the mixture"
            chart = line_chart(f"{identity}-{label}", title, series, x_label="layer", y_label=label)
            return f"<figure><h3>{title}</h3>{chart}{legend(series)}</figure>"
    return ""
