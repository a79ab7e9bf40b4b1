"""A map of features, a confusion matrix and nearest neighbours on a page: SVG and tables, without a script.

A sample that is pointed at is shown beside the map: its small picture is there all along, and a style makes it visible.
"""

from __future__ import annotations

from dataclasses import dataclass

from maskedmodel.evaluation.landscape import Landscape
from maskedmodel.evaluation.thumbnails import Thumbnails
from maskedmodel.report.markup import table as _table
from maskedmodel.report.markup import text as _text

_SIDE, _EDGE = 440, 14
_BESIDE, _GAP = 150, 10  # what is shown right of the map of the sample that one points at
_ROOM = 1_000_000  # characters of small pictures on one page
_COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip
_MOST = 24  # classes of a confusion matrix


def colour(number: int) -> str:
    """The colour of a class by its place: ten that are told apart easily, then turns of the colour circle."""
    return _COLOURS[number] if number < len(_COLOURS) else f"hsl({number * 137 % 360} 60% 50%)"


def section(found: Landscape, identity: str, kept: dict[str, str] | None = None) -> str:
    """All that there is to see. `identity` is unique in the page.

    kept  the small pictures that the page holds so far, and the names by which they are shown; new ones are added.
    """
    tiles, held = _held(found, identity, {} if kept is None else kept)
    body = f"<figure><h3>{_title(found)}</h3>{held}{_map(found, identity, tiles)}{_legend(found)}</figure>"
    if len(found.classes) <= _MOST:
        body += f"<figure><h3>Who is taken for whom (k-NN)</h3>{_confusion(found)}</figure>"
    return f'<div class="charts">{body}</div>{_near(found, tiles)}'


@dataclass(frozen=True)
class _Tiles:
    """Small pictures under the name that they have in the page."""

    name: str
    tiles: Thumbnails

    def show(self, row: int, more: str) -> str:
        """One of them, with attributes such as its size; nothing where there is none."""
        corner = self.tiles.corner(row)
        if corner is None:
            return ""
        box = f"{corner[0]} {corner[1]} {self.tiles.width} {self.tiles.height}"
        return f'<svg {more} viewBox="{box}" aria-hidden="true"><use href="#{self.name}"/></svg>'


def _held(found: Landscape, identity: str, kept: dict[str, str]) -> tuple[_Tiles | None, str]:
    """The small pictures, and what puts them into the page: nothing where they are there, a word where no room is."""
    tiles = found.tiles
    if tiles is None:
        return None, ""
    if tiles.data in kept:
        return _Tiles(kept[tiles.data], tiles), ""
    if sum(map(len, kept)) + len(tiles.data) > _ROOM:
        return None, '<p class="soft">Small pictures of the samples had no room on this page.</p>'
    kept[tiles.data] = f"{identity}-tiles"
    width, height = tiles.size
    source = f"data:image/{tiles.kind};base64,{tiles.data}"
    image = f'<image id="{identity}-tiles" width="{width}" height="{height}" href="{source}"/>'
    return _Tiles(f"{identity}-tiles", tiles), f'<svg class="held" aria-hidden="true"><defs>{image}</defs></svg>'


def _title(found: Landscape) -> str:
    if found.method in _NAMES:
        return f"{_NAMES[found.method]} of the features, {_text(found.of)}"
    shares = " and ".join(f"{share:.0%}" for share in found.shares)
    return f"PCA of the features, {_text(found.of)}: {shares} of the variance"


_NAMES = {"tsne": "t-SNE", "umap": "UMAP"}


def _map(found: Landscape, identity: str, tiles: _Tiles | None) -> str:
    low_x, low_y = min(found.x), min(found.y)
    span_x, span_y = (max(values) - min(values) or 1.0 for values in (found.x, found.y))
    inner = _SIDE - 2 * _EDGE
    across = [_EDGE + inner * (x - low_x) / span_x for x in found.x]
    down = [_SIDE - _EDGE - inner * (y - low_y) / span_y for y in found.y]
    order = {int(label): number for number, label in enumerate(found.classes)}
    shown = "name and picture" if tiles is not None else "name"
    said = f"{len(found.x)} samples, a dot each, in the colour of its class; point at one for its {shown}."
    wide = _SIDE + (_BESIDE + _GAP if tiles is not None else 0)
    parts = [
        f'<svg class="chart map" role="img" viewBox="0 0 {wide} {_SIDE}" aria-labelledby="{identity}-t {identity}-d">',
        f'<title id="{identity}-t">{_title(found)}</title><desc id="{identity}-d">{said}</desc>',
    ]
    if tiles is not None:
        parts.append(f'<text class="tick" x="{_SIDE + _GAP}" y="{_EDGE + 8}">Point at a dot.</text>')
    for place, (x, y, name, label) in enumerate(zip(across, down, found.ids, found.labels, strict=True)):
        called = found.classes[str(label)]
        about = f"{_text(name, 80)}: {_text(called, 60)}"
        dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour(order[label])}" fill-opacity="0.75">'
        dot = f"{dot}<title>{about}</title></circle>"
        parts.append(dot if tiles is None else f"<g>{dot}{_beside(tiles, found.rows[place], name, called)}</g>")
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


def _beside(tiles: _Tiles, row: int, name: str, called: str) -> str:
    """What is shown right of the map while a dot is pointed at."""
    left, top = _SIDE + _GAP, _EDGE + 20
    high = min(_BESIDE * tiles.tiles.height / tiles.tiles.width, _SIDE - top - 60)
    drawn = tiles.show(row, f'class="seen" x="{left}" y="{top}" width="{_BESIDE}" height="{high:.0f}"')
    cover = f'<rect class="seen paper" x="{left}" y="0" width="{_BESIDE}" height="{_EDGE + 14}"/>'
    words = "".join(
        f'<text class="seen label" x="{left}" y="{top + high + 18 * line:.0f}">{_text(said, 24)}</text>'
        for line, said in enumerate((name, called), 1)
    )
    return f"{cover}{drawn}{words}"


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


def _near(found: Landscape, tiles: _Tiles | None) -> str:
    rows = []
    for number, (name, label, near) in enumerate(found.near):
        drawn = [_tile(tiles, row) for row in found.near_rows[number]] if tiles is not None else [""] * (len(near) + 1)
        called = {
            kind: _text(found.classes.get(str(kind), kind), 40) for kind in (label, *(kind for _, kind, _ in near))
        }
        cells = "".join(
            f"<td>{picture}{_text(other, 60)}<small>{called[kind]}, {value:.3f}</small></td>"
            for picture, (other, kind, value) in zip(drawn[1:], near, strict=True)
        )
        own = f'{drawn[0]}{_text(name, 60)}<br/><small class="soft">{called[label]}</small>'
        rows.append(f'<tr><th scope="row">{own}</th>{cells}</tr>')
    headings = (
        "sample",
        *(f"{number}." for number in range(1, max((len(row[2]) for row in found.near), default=0) + 1)),
    )
    return _table("Nearest training samples, by cosine similarity", headings, rows) if rows else ""


def _tile(tiles: _Tiles | None, row: int) -> str:
    """A small picture in a cell of a table, 64 pixels wide at most."""
    if tiles is None:
        return ""
    wide, high = tiles.tiles.width, tiles.tiles.height
    scale = min(64 / wide, 64 / high)
    return tiles.show(row, f'class="tile" width="{wide * scale:.0f}" height="{high * scale:.0f}"')
