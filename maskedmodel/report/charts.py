"""Line charts as SVG: no script, no font and no file of its own; colours come from CSS variables of the page.

Classes used: chart, axis, grid, tick, label, tag; s1 to s8 (series colours), line, faint, dots, rule, band.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Style = Literal["line", "faint", "dots", "rule"]
_Place = Callable[[float, float], tuple[str, str]]
# A narrow drawing, so that its text stays readable when a phone shrinks it.
WIDTH, HEIGHT = 440, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 26, 12, 40  # right: half of a label such as 100,000 stands past the axis
_MOST = 400  # points drawn per series


@dataclass(frozen=True)
class Series:
    """Points of one name. `rule` is a level line at its only y; `colour` is 1 to 8.

    low, high  a band about the points, where given: as many values as points, all finite.
    tag        a short text beside the point at `tag_at`, a share of the points: tells series apart without colour.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: Style = "line"
    colour: int = 1
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    tag: str = ""
    tag_at: float = 1.0


def smoothed(y: Sequence[float], span: int) -> list[float]:
    """Mean over about `span` points around each, fewer near the ends, so that a falling curve isn't drawn too high.

    What isn't finite is left out; NaN where nothing is left.
    """
    totals, counts = [0.0], [0]
    for value in y:
        finite = math.isfinite(value)
        totals.append(totals[-1] + (value if finite else 0.0))
        counts.append(counts[-1] + finite)
    out = []
    for index in range(len(y)):
        half = min(span // 2, index, len(y) - 1 - index)
        first, end = index - half, index + half + 1
        count = counts[end] - counts[first]
        out.append((totals[end] - totals[first]) / count if count else math.nan)
    return out


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, `most` at the most."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def label(value: float) -> str:
    """A short number for an axis: 0.25, 1,200, 1.5e-4, 12M."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.6g}" if abs(value) >= 1000 else f"{value:.6g}"


def thinned(points: list[tuple[float, float]], most: int = _MOST) -> list[tuple[float, float]]:
    """At most about `most` points with every peak kept: the lowest and highest of each stretch, and both ends."""
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        kept |= {min(stretch, key=lambda i: points[i][1]), max(stretch, key=lambda i: points[i][1])}
    return [points[index] for index in sorted(kept)]


def line_chart(
    identity: str,
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    from_zero: bool = False,
) -> str:
    """One chart as an <svg> with its <title> and a <desc> of the last values, for whoever can't see it.

    `identity` is unique in the page. Points that aren't finite are left out. An empty string where nothing is left.
    """
    drawn = []
    for one in series:
        points = [(float(x), float(y)) for x, y in zip(one.x, one.y, strict=True) if math.isfinite(x + y)]
        if points:
            drawn.append((one, points))
    if not any(one.style != "rule" for one, _ in drawn):
        return ""
    xs = [x for one, points in drawn if one.style != "rule" for x, _ in points]
    ys = [y for one, points in drawn for y in [*(y for _, y in points), *(one.low or ()), *(one.high or ())]]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = (0.0 if from_zero else min(ys)), max(ys)
    if 0 < x_low < 0.1 * x_high:
        x_low = 0.0  # a first line at step 1 or 10: an axis from 0 reads better
    if all(one.style == "dots" for one, _ in drawn):  # a scatter: no dot on the axis
        x_low, x_high = x_low - 0.04 * (x_high - x_low), x_high + 0.04 * (x_high - x_low)
    if x_high == x_low:
        x_low, x_high = x_low - 1, x_high + 1
    if y_high <= y_low:
        y_low, y_high = y_low - (abs(y_low) / 10 or 1), y_low + (abs(y_low) / 10 or 1)
    room = 0.04 * (y_high - y_low)
    y_low, y_high = (y_low if from_zero else y_low - room), y_high + room

    def at(x: float, y: float) -> tuple[str, str]:
        across = _LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)
        down = HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM)
        return f"{across:.1f}", f"{down:.1f}"

    said = "; ".join(f"{one.name}: {len(points)} points, last {points[-1][1]:.6g}" for one, points in drawn)
    name, about = f"{identity}-title", f"{identity}-desc"
    parts = [
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-labelledby="{name} {about}">',
        f'<title id="{name}">{escape(title)}</title>',
        f'<desc id="{about}">{escape(f"{y_label} against {x_label}. {said}.")}</desc>',
    ]
    for y in ticks(y_low, y_high):
        _, down = at(x_low, y)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{down}" y2="{down}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{down}" dy="0.32em" text-anchor="end">{label(y)}</text>')
    for x in ticks(x_low, x_high):
        across, _ = at(x, y_low)
        base = HEIGHT - _BOTTOM + 15
        parts.append(f'<text class="tick" x="{across}" y="{base}" text-anchor="middle">{label(x)}</text>')
    floor = HEIGHT - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>')
    middle = (_TOP + floor) // 2
    parts.append(
        f'<text class="label" x="{(_LEFT + WIDTH - _RIGHT) // 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    parts.append(
        f'<text class="label" transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    for one, _ in drawn:
        if one.low is not None and one.high is not None:
            edge = [*zip(one.x, one.high, strict=True), *list(zip(one.x, one.low, strict=True))[::-1]]
            path = " ".join(",".join(at(float(x), float(y))) for x, y in edge)
            parts.append(f'<polygon class="band s{one.colour}" points="{path}"/>')
    for one, points in drawn:
        parts.append(_marks(one, points, at))
    for one, points in drawn:
        if one.tag:
            across, down = at(*points[round(one.tag_at * (len(points) - 1))])
            parts.append(f'<text class="tag s{one.colour}" x="{across}" y="{down}" dy="-6">{escape(one.tag)}</text>')
    return "".join([*parts, "</svg>"])


def bar_chart(identity: str, title: str, names: Sequence[str], values: Sequence[float], label_of: str) -> str:
    """A bar from 0 for each name, one under the other, as an <svg>. What isn't finite has no bar and says so.

    An empty string where nothing is left.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    row, left = 18, 130
    low, high = min(*known, 0.0), max(*known, 0.0)
    high = high if high > low else 1.0
    floor = _TOP + row * len(names)

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - _RIGHT - 30)

    name, about = f"{identity}-title", f"{identity}-desc"
    said = "; ".join(f"{one}: {value:.3g}" for one, value in zip(names, values, strict=True))
    parts = [
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {floor + _BOTTOM}" aria-labelledby="{name} {about}">',
        f'<title id="{name}">{escape(title)}</title>',
        f'<desc id="{about}">{escape(f"{label_of}. {said}.")}</desc>',
    ]
    for value in ticks(low, high, 5):
        at = f"{across(value):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{floor}"/>')
        parts.append(f'<text class="tick" x="{at}" y="{floor + 15}" text-anchor="middle">{label(value)}</text>')
    for place, (one, value) in enumerate(zip(names, values, strict=True)):
        middle = _TOP + row * (place + 0.5)
        short = one if len(one) <= 18 else f"{one[:9]}...{one[-6:]}"
        parts.append(
            f'<text class="tick" x="{left - 6}" y="{middle}" dy="0.32em" text-anchor="end">{escape(short)}'
            f"<title>{escape(one)}</title></text>"
        )
        finite = math.isfinite(value)
        start, end = sorted((across(0.0), across(value))) if finite else (across(0.0), across(0.0))
        if finite:
            parts.append(
                f'<rect class="bar s1" x="{start:.1f}" y="{middle - 6}" width="{end - start:.1f}" height="12">'
                f"<title>{escape(one)}: {value:.6g}</title></rect>"
            )
        shown = f"{value:.3g}" if finite else "-"
        parts.append(f'<text class="tick" x="{end + 4:.1f}" y="{middle}" dy="0.32em">{shown}</text>')
    parts.append(
        f'<text class="label" x="{(left + WIDTH - _RIGHT) // 2}" y="{floor + _BOTTOM - 6}" text-anchor="middle">'
        f"{escape(label_of)}</text>"
    )
    return "".join([*parts, "</svg>"])


def _marks(one: Series, points: list[tuple[float, float]], at: _Place) -> str:
    colour = f"s{one.colour}"
    if one.style == "rule":
        _, down = at(0, points[0][1])
        return (
            f'<line class="rule {colour}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{down}" y2="{down}">'
            f"<title>{escape(one.name)}: {points[0][1]:.6g}</title></line>"
        )
    places = [at(x, y) for x, y in thinned(points)]
    if one.style == "dots" or len(places) == 1:
        texts = [f"{escape(one.name)} at {label(x)}: {y:.6g}" for x, y in thinned(points)]
        dots = [
            f'<circle cx="{x}" cy="{y}" r="4"><title>{t}</title></circle>'
            for (x, y), t in zip(places, texts, strict=True)
        ]
        return f'<g class="dots {colour}">{"".join(dots)}</g>'
    path = " ".join(f"{x},{y}" for x, y in places)
    return f'<polyline class="{one.style} {colour}" points="{path}"><title>{escape(one.name)}</title></polyline>'


def legend(series: Sequence[Series]) -> str:
    """The names beside samples of their marks."""
    items = []
    for one in series:
        mark = '<circle cx="12" cy="6" r="4"/>' if one.style == "dots" else '<line x1="0" x2="24" y1="6" y2="6"/>'
        drawing = f'<g class="{one.style} s{one.colour}">{mark}</g>'
        name = f"{one.tag} {one.name}" if one.tag else one.name
        items.append(f'<li><svg class="key" viewBox="0 0 24 12" aria-hidden="true">{drawing}</svg>{escape(name)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'
