"""A map of features, a confusion matrix and nearest neighbours on a page: SVG and tables, without a script."""

from __future__ import annotations

from maskedmodel.evaluation.landscape import Landscape
from maskedmodel.report.markup import table as _table
from maskedmodel.report.markup import text as _text

_SIDE, _EDGE = 440, 14
_COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip
_MOST = 24  # classes of a confusion matrix


def colour(number: int) -> str:
    """The colour of a class by its place: ten that are told apart easily, then turns of the colour circle."""
    return _COLOURS[number] if number < len(_COLOURS) else f"hsl({number * 137 % 360} 60% 50%)"


def section(found: Landscape, identity: str) -> str:
    """All that there is to see. `identity` is unique in the page."""
    body = f"<figure><h3>{_title(found)}</h3>{_map(found, identity)}{_legend(found)}</figure>"
    if len(found.classes) <= _MOST:
        body += f"<figure><h3>Who is taken for whom (k-NN)</h3>{_confusion(found)}</figure>"
    return f'<div class="charts">{body}</div>{_near(found)}'


def _title(found: Landscape) -> str:
    if found.method == "tsne":
        return f"t-SNE of the features, {_text(found.of)}"
    shares = " and ".join(f"{share:.0%}" for share in found.shares)
    return f"PCA of the features, {_text(found.of)}: {shares} of the variance"


def _map(found: Landscape, identity: str) -> str:
    low_x, low_y = min(found.x), min(found.y)
    span_x, span_y = (max(values) - min(values) or 1.0 for values in (found.x, found.y))
    inner = _SIDE - 2 * _EDGE
    across = [_EDGE + inner * (x - low_x) / span_x for x in found.x]
    down = [_SIDE - _EDGE - inner * (y - low_y) / span_y for y in found.y]
    order = {int(label): number for number, label in enumerate(found.classes)}
    said = f"{len(found.x)} samples, a dot each, in the colour of its class; point at one for its name."
    parts = [
        f'<svg class="chart" role="img" viewBox="0 0 {_SIDE} {_SIDE}" aria-labelledby="{identity}-t {identity}-d">',
        f'<title id="{identity}-t">{_title(found)}</title><desc id="{identity}-d">{said}</desc>',
    ]
    for x, y, name, label in zip(across, down, found.ids, found.labels, strict=True):
        about = f"{_text(name, 80)}: {_text(found.classes[str(label)], 60)}"
        dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour(order[label])}" fill-opacity="0.75">'
        parts.append(f"{dot}<title>{about}</title></circle>")
    for label, number in order.items():
        own = [place for place, other in enumerate(found.labels) if other == label]
        if own and len(order) <= _MOST:
            x, y = (sorted(values[place] for place in own)[len(own) // 2] for values in (across, down))
            name = _text(found.classes[str(label)], 14)
            parts.append(
                f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" font-size="15" font-weight="700" stroke="#fff" '
                f'stroke-width="3" paint-order="stroke" fill="{colour(number)}">{name}</text>'
            )
    return "".join([*parts, "</svg>"])


def _legend(found: Landscape) -> str:
    items = []
    for number, name in enumerate(list(found.classes.values())[:_MOST]):
        dot = f'<circle cx="12" cy="6" r="4" fill="{colour(number)}"/>'
        items.append(f'<li><svg class="key" viewBox="0 0 24 12" aria-hidden="true">{dot}</svg>{_text(name, 40)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _confusion(found: Landscape) -> str:
    """Rows what samples are, columns what they are taken for; the darker, the larger the share of the row."""
    names, count = [_text(name, 12) for name in found.classes.values()], len(found.classes)
    left, cell = 92, (_SIDE - 92) / count
    parts = [f'<svg class="chart" role="img" viewBox="0 0 {_SIDE} {_SIDE}" aria-label="Confusion matrix">']
    for row, counts in enumerate(found.confusion):
        total = max(sum(counts), 1)
        y = left + row * cell
        place = f'x="{left - 6}" y="{y + cell / 2:.1f}" dy="0.32em"'
        parts.append(f'<text class="tick" {place} text-anchor="end">{names[row]}</text>')
        for column, value in enumerate(counts):
            x, share = left + column * cell, value / total
            ink = f"rgb({255 - round(224 * share)} {255 - round(160 * share)} {255 - round(64 * share)})"
            about = f"{names[row]} taken for {names[column]}: {value} of {total}"
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell - 1:.1f}" height="{cell - 1:.1f}" fill="{ink}">'
                f"<title>{about}</title></rect>"
            )
            if value:
                parts.append(
                    f'<text x="{x + cell / 2:.1f}" y="{y + cell / 2:.1f}" dy="0.32em" text-anchor="middle" '
                    f'font-size="{min(12, cell / 2):.0f}" fill="{"#fff" if share > 0.5 else "#1c2024"}">{value}</text>'
                )
    for column, name in enumerate(names):
        x = left + (column + 0.5) * cell
        parts.append(f'<text class="tick" transform="translate({x:.1f} {left - 6}) rotate(-60)">{name}</text>')
    parts.append(f'<text class="label" x="6" y="{left - 8}">is \\ taken for</text>')
    return "".join([*parts, "</svg>"])


def _near(found: Landscape) -> str:
    rows = []
    for name, label, near in found.near:
        cells = "".join(
            f"<td>{_text(other, 60)}<small>{_text(found.classes.get(str(kind), kind), 40)}, {value:.3f}</small></td>"
            for other, kind, value in near
        )
        own = _text(found.classes.get(str(label), label), 40)
        rows.append(f'<tr><th scope="row">{_text(name, 60)}<br><small class="soft">{own}</small></th>{cells}</tr>')
    headings = (
        "sample",
        *(f"{number}." for number in range(1, max((len(row[2]) for row in found.near), default=0) + 1)),
    )
    return _table("Nearest training samples, by cosine similarity", headings, rows) if rows else ""
