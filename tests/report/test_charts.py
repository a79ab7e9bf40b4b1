from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskedmodel.report.charts import (
    HEIGHT,
    WIDTH,
    Series,
    bar_chart,
    label,
    legend,
    line_chart,
    smoothed,
    thinned,
    ticks,
)


def chart(*series: Series, from_zero: bool = False) -> ET.Element:
    text = line_chart("c", "A <title>", series, x_label="step", y_label="loss & more", from_zero=from_zero)
    return ET.fromstring(text)


def places(svg: ET.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in svg.find("polyline").get("points").split()]  # type: ignore[misc, union-attr]


def test_a_chart_says_in_words_what_it_shows() -> None:
    svg = chart(Series("training", [1, 2], [0.5, 0.25]), Series("<b>", [0], [0.75], "rule", 3))
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == "c-title c-desc"
    assert svg.findtext("title") == "A <title>"
    description = svg.findtext("desc")
    assert description is not None
    assert "loss & more against step" in description
    assert "training: 2 points, last 0.25" in description
    assert [text.text for text in svg.iter("text")][-2:] == ["step", "loss & more"]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=30), st.booleans())
@settings(deadline=None, max_examples=60)
def test_whatever_is_drawn_lies_inside(values: list[float], from_zero: bool) -> None:
    if from_zero:
        values = [abs(value) for value in values]
    text = line_chart(
        "c", "t", [Series("s", range(len(values)), values)], x_label="x", y_label="y", from_zero=from_zero
    )
    if not any(math.isfinite(value) for value in values):
        assert text == ""
        return
    svg = ET.fromstring(text)
    for line in svg.iter("polyline"):
        assert all(
            0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT
            for x, y in (pair.split(",") for pair in str(line.get("points")).split())
        )
    assert "nan" not in text
    assert "inf" not in text


def test_lower_values_are_drawn_lower() -> None:
    (x1, y1), (x2, y2) = places(chart(Series("s", [0, 10], [1.0, 0.0])))
    assert x2 > x1
    assert y2 > y1


def test_a_single_point_is_a_dot_and_a_rule_needs_company() -> None:
    assert len(list(chart(Series("s", [3], [1.0])).iter("circle"))) == 1
    assert line_chart("c", "t", [Series("s", [0], [1.0], "rule")], x_label="x", y_label="y") == ""


def test_thinning_keeps_peaks_ends_and_order() -> None:
    points = [(float(i), 100.0 if i == 777 else math.sin(i)) for i in range(5000)]
    kept = thinned(points)
    assert len(kept) <= 402
    assert (777.0, 100.0) in kept
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == sorted(kept)
    assert thinned(points[:10]) == points[:10]


def test_smoothing_is_centred_and_skips_what_is_not_finite() -> None:
    line = [float(i) for i in range(20)]
    assert smoothed(line, 5) == pytest.approx(line)  # a straight line stays where it is, at its ends too
    assert smoothed([1.0, math.nan, 3.0], 3) == [1.0, 2.0, 3.0]
    assert math.isnan(smoothed([math.inf], 5)[0])


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=100)
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 6
    assert all(low - 1e-6 * span <= tick <= low + span + 1e-6 * span for tick in found)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1200, "1,200"), (1.5e-4, "1.5e-4"), (2e6, "2M"), (-0.5, "-0.5")]
)
def test_labels(value: float, text: str) -> None:
    assert label(value) == text


def test_legend_escapes_names() -> None:
    assert "<li>" in legend([Series("a", [], [])])
    assert "&lt;script&gt;" in legend([Series("<script>", [], [], "dots")])


def test_bars_are_as_long_as_their_values_from_zero() -> None:
    names, values = ["one", "two", "<three>", "none"], [0.5, 1.0, -0.25, math.nan]
    drawn = bar_chart("b", "Bars", names, values, "share")
    root = ET.fromstring(drawn)
    bars = [(float(bar.get("x", "")), float(bar.get("width", ""))) for bar in root.iter("rect")]
    assert len(bars) == 3
    assert bars[1][1] == pytest.approx(2 * bars[0][1], abs=0.2)
    assert bars[2][1] == pytest.approx(bars[0][1] / 2, abs=0.2)
    zero = bars[0][0]
    assert bars[1][0] == zero
    assert bars[2][0] + bars[2][1] == pytest.approx(zero, abs=0.2)
    texts = [text.text for text in root.iter("text")]
    assert {"one", "two", "<three>", "none", "-", "0.5", "-0.25"} <= set(texts)
    assert "one: 0.5; two: 1; <three>: -0.25; none: nan" in (root.findtext("desc") or "")
    width = float((root.get("viewBox") or "").split()[2])
    assert all(x >= 0 and x + wide <= width - 30 for x, wide in bars)
    assert bar_chart("b", "Bars", ["a"], [math.nan], "share") == ""
