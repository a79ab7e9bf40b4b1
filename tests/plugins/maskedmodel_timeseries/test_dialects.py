"""CSV dialects drawn at random: what was written is read, or refused by an error of ours; nothing else comes out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskedmodel_timeseries.cells import SEPARATORS
from maskedmodel_timeseries.columns import TableReading
from maskedmodel_timeseries.tables import read_table, read_tables

from maskedmodel.errors import DataError, MaskedModelError
from tests.drawn import BOUNDED, LONG, folder

DATES = ("%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%y", "%d %B %Y", "%b %d, %Y", "%Y%m%d")
CLOCKS = ("", " %H:%M", " %H:%M:%S", "T%H:%M:%S", " %I:%M:%S %p", " %H:%M:%S.%f")
STEPS = ("min", "15min", "h", "D", "W", "MS", "ME", "B", "QS", "YS")


@st.composite
def dialects(draw: st.DrawFn) -> dict[str, Any]:
    step = draw(st.sampled_from(STEPS))
    clock = draw(st.sampled_from(CLOCKS)) if step in ("min", "15min", "h", "D") else ""
    finer = {"min": clock not in (" %H:%M", ""), "15min": bool(clock), "h": bool(clock)}
    start = draw(st.datetimes(pd.Timestamp("1971-01-01"), pd.Timestamp("2008-01-01")))
    rows = draw(st.integers(3, 60))
    times = pd.date_range(pd.Timestamp(start).normalize(), periods=rows, freq=step)
    return {
        "times": times,
        "written": f"{draw(st.sampled_from(DATES))}{clock if finer.get(step, True) or clock else ' %H:%M'}",
        "separator": draw(st.sampled_from(SEPARATORS)),
        "decimal": draw(st.sampled_from(".,")),
        "thousands": draw(st.sampled_from(["", " ", "other"])),
        "places": draw(st.integers(0, 4)),  # 0 with points between thousands is 12.573, which is a decimal point
        "quoted": draw(st.booleans()),
        "end": draw(st.sampled_from(["\n", "\r\n"])),
        "encoding": draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])),
        "midnight": draw(st.booleans()),
        "size": draw(st.sampled_from([1.0, 100.0, 1e5])),
        "seed": draw(st.integers(0, 99)),
        "gaps": draw(st.booleans()),
    }


def cell(value: float, how: dict[str, Any]) -> str:
    """A number as the dialect writes it."""
    thousands = {"other": "," if how["decimal"] == "." else "."}.get(how["thousands"], how["thousands"])
    text = f"{value:,.{how['places']}f}".replace(".", "\0").replace(",", thousands)
    return text.replace("\0", how["decimal"])


def stamp(time: pd.Timestamp, how: dict[str, Any]) -> str:
    form = how["written"]
    if how["midnight"] and time == time.normalize():
        form = form.partition("T%")[0] if "T%" in form else form.partition(" %H")[0].partition(" %I")[0]
    return f"{time:{form}}"


def check(how: dict[str, Any]) -> None:
    if how["decimal"] == "," and how["thousands"] == "other" and not how["places"]:
        how = {**how, "thousands": ""}
    draw = np.random.default_rng(how["seed"])
    values = np.round(how["size"] * draw.normal(size=(2, len(how["times"]))), how["places"])
    rows = [
        [stamp(time, how), *(cell(v, how) for v in pair)] for time, pair in zip(how["times"], values.T, strict=True)
    ]
    kept = [row for row in range(len(rows)) if not how["gaps"] or row in (0, 1, len(rows) - 1) or draw.random() < 0.9]
    name = "date" if how["written"].startswith("%Y%m%d") else "when"
    table = [[name, "load", "heat"], *(rows[row] for row in kept)]
    needs = any(how["separator"] in text for row in table for text in row)
    quote = '"' if how["quoted"] or needs else ""
    lines = [how["separator"].join(f"{quote}{text}{quote}" for text in row) + how["end"] for row in table]
    with folder() as path:
        (path / "a.csv").write_bytes("".join(lines).encode(how["encoding"]))
        try:
            found = read_table(path / "a.csv")
        except DataError as error:
            # Only what can be read two ways is refused, and the setting that decides it is named.
            if not any(word in str(error) for word in ("dayfirst", "decimal", "separator", "time_format")):
                raise
            named: dict[str, Any] = {"decimal": how["decimal"], "separator": how["separator"], "time": name}
            if "%" in how["written"] and not how["midnight"]:
                named["time_format"] = how["written"]
            elif how["written"].startswith(("%d", "%m")):
                named["dayfirst"] = how["written"].startswith("%d")
            found = read_table(path / "a.csv", TableReading(**named))
    assert found.names == ("load", "heat")
    own = np.asarray([pd.Timestamp(time) for time in how["times"][kept]], dtype="datetime64[us]")
    places = np.flatnonzero(np.isin(found.times.to_numpy().astype("datetime64[us]"), own))
    assert len(places) == len(kept)
    np.testing.assert_allclose(found.values[:, places], values[:, kept], rtol=1e-12)
    others = np.delete(found.values, places, axis=1)
    assert np.isnan(others).all()
    assert others.shape[1] == found.inserted


@given(dialects())
@BOUNDED
def test_a_dialect_is_read_as_it_was_written(how: dict[str, Any]) -> None:
    check(how)


@pytest.mark.slow
@given(dialects())
@LONG
def test_many_dialects_are_read_as_they_were_written(how: dict[str, Any]) -> None:
    check(how)


CELLS = st.one_of(
    st.integers(-3, 20300101).map(str),
    st.floats(allow_nan=True, allow_infinity=True, width=32).map(str),
    st.dates().map(str),
    st.sampled_from(
        ["", "1,5", "1.234,5", "01/02/2020", "2020-01-01T00:00Z", "x", "NaN", "-", "1e400", "0x1A", "12:30"]
    ),
    st.text(max_size=6),
)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    width = draw(st.integers(1, 5))
    names = draw(st.lists(st.sampled_from(["date", "time", "t", "id", "year", "month", "", "a", "b"]), max_size=width))
    body = draw(st.lists(st.lists(CELLS, min_size=1, max_size=width), min_size=0, max_size=12))
    separator = draw(st.sampled_from(SEPARATORS))
    text = io.StringIO()
    for row in [names, *body]:
        text.write(separator.join(row) + "\n")
    content = bytearray(text.getvalue().encode("utf-8", "surrogatepass"))
    for place in draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=3)):
        if content:
            content[place] = draw(st.integers(0, 255))
    return bytes(content)


def refused_or_whole(content: bytes) -> None:
    with folder() as path:
        (path / "a.csv").write_bytes(content)
        for how in (TableReading(), TableReading(series="id"), TableReading(time="date", decimal=",", dayfirst=True)):
            try:
                found = read_tables(path / "a.csv", how)
            except MaskedModelError:
                continue
            for table in found:
                assert table.values.dtype == np.float64
                assert not np.isinf(table.values).any()
                assert table.values.shape[0] == len(table.names)
                assert table.times is None or len(table.times) == table.rows


@given(tables())
@BOUNDED
def test_any_table_is_read_or_refused(content: bytes) -> None:
    refused_or_whole(content)


@pytest.mark.slow
@given(tables())
@LONG
def test_any_of_many_tables_is_read_or_refused(content: bytes) -> None:
    refused_or_whole(content)
