"""What the columns of a table are: time, series, numbers of rows, variates; and what is told of it."""

import numpy as np
import pandas as pd
import pytest
from maskedmodel_timeseries.columns import TableReading
from maskedmodel_timeseries.tables import read_table, read_tables
from maskedmodel_timeseries.windows import Csv, Parts

from maskedmodel.errors import DataError

from .conftest import hourly


def saved(frame, folder, **options):
    frame.to_csv(folder / "a.csv", **{"index": False, **options})
    return folder / "a.csv"


def notices(table):
    return [fact.text for fact in table.told if fact.notice]


def test_a_written_index_is_left_out_with_a_word(tmp_path):
    found = read_table(saved(hourly(48), tmp_path, index=True))
    assert found.names == ("load", "heat")
    assert notices(found) == ["'column 1' has no name and numbers the rows: left out"]
    again = pd.read_csv(tmp_path / "a.csv").reset_index(drop=True)  # as pandas names it when it is written again
    assert read_table(saved(again, tmp_path)).names == ("load", "heat")


def test_other_columns_without_a_name(tmp_path):
    (tmp_path / "a.csv").write_text("date,,load,\n" + "".join(f"2020-01-{d:02d},{d % 3},{d},\n" for d in range(1, 10)))
    found = read_table(tmp_path / "a.csv")
    assert found.names == ("column 2", "load")
    assert notices(found)[:2] == [
        "a column without a name is called 'column 2'",
        "'column 4' has no name and no value: left out",
    ]


def test_a_name_that_sounds_like_a_place_is_a_name(tmp_path):
    (tmp_path / "a.csv").write_text("column 1,,b\n" + "".join(f"{row},{row % 3},{row % 5}\n" for row in range(9)))
    found = read_table(tmp_path / "a.csv")
    assert found.names == ("column 1", "column 2", "b")
    (tmp_path / "a.csv").write_text("column 2,,b\n" + "".join(f"{row},{row % 3},{row % 5}\n" for row in range(9)))
    assert read_table(tmp_path / "a.csv").names == ("column 2", "column 2 of the file", "b")


def test_an_index_without_a_name_in_parquet_is_told(tmp_path):
    frame = hourly(48).drop(index=[3])
    frame.to_parquet(tmp_path / "a.parquet")
    assert "an index without a name is left out" in notices(read_table(tmp_path / "a.parquet"))


def test_years_months_days_and_hours_make_the_time(tmp_path):
    frame = hourly(48)
    parts = {name: getattr(frame.date.dt, name) for name in ("year", "month", "day", "hour")}
    found = read_table(saved(pd.DataFrame(parts | {"load": frame.load}), tmp_path))
    assert (found.names, found.frequency, found.time_name) == (("load",), "h", "time")
    np.testing.assert_array_equal(found.times.to_numpy(), frame.date.to_numpy())
    assert "columns year, month, day, hour: put together to a time" in notices(found)


@pytest.mark.parametrize(
    "clock", [lambda time: f"{time:%H:%M}", lambda time: f"{time:%H.%M.%S}", lambda time: time.hour]
)
def test_days_go_with_a_column_of_hours(tmp_path, clock):
    frame = hourly(48)
    split = pd.DataFrame(
        {"Date": frame.date.dt.strftime("%d/%m/2020").str.replace("2020", "2021"), "Time": frame.date.map(clock)}
    )
    found = read_table(saved(split.assign(load=frame.load), tmp_path), TableReading(dayfirst=True))
    assert (found.names, found.frequency) == (("load",), "h")
    np.testing.assert_array_equal(found.times.to_numpy(), frame.date.to_numpy())
    assert any("time of day of 'Time'" in text for text in notices(found))


def test_parts_of_a_known_time_are_named(tmp_path):
    frame = hourly(48)
    found = read_table(saved(frame.assign(hour=frame.date.dt.hour), tmp_path))
    assert found.names == ("load", "heat", "hour")
    assert any(text.startswith("hour may be parts of the time") for text in notices(found))


def test_a_column_that_counts_rows_is_named(tmp_path):
    found = read_table(saved(hourly(48).assign(no=range(5, 53)), tmp_path))
    assert any(text.startswith("no counts the rows") for text in notices(found))


def long(rows=60, names=("a", "b", "c")):
    frames = [hourly(rows - 10 * place, seed=place).assign(id=name) for place, name in enumerate(names)]
    return pd.concat(frames)[["id", "date", "load", "heat"]]


def test_a_long_table_is_asked_about_and_read_as_its_series(tmp_path):
    path = saved(long().sample(frac=1, random_state=0), tmp_path)
    with pytest.raises(DataError, match=r"(?s)long one: column 'id'.*data\.series=id"):
        read_table(path)
    found = {table.series: table for table in read_tables(path, TableReading(series="id"))}
    assert {name: table.rows for name, table in found.items()} == {"a": 60, "b": 50, "c": 40}
    for place, (name, rows) in enumerate({"a": 60, "b": 50, "c": 40}.items()):
        np.testing.assert_allclose(found[name].values, hourly(rows, seed=place)[["load", "heat"]].to_numpy().T)
        assert (found[name].frequency, found[name].names) == ("h", ("load", "heat"))
    with pytest.raises(DataError, match="holds 3 series, where one is needed"):
        read_table(path, TableReading(series="id"))


def test_a_long_table_that_counts(tmp_path):
    rows = [(series, t, (7 * t + series) % 11) for series in range(3) for t in range(20)]
    path = saved(pd.DataFrame(rows, columns=["id", "t", "value"]), tmp_path)
    with pytest.raises(DataError, match=r"data\.series=id"):
        read_table(path)
    tables = read_tables(path, TableReading(series="id"))
    assert [(table.series, table.names, table.rows) for table in tables] == [(n, ("value",), 20) for n in "012"]


def test_windows_of_a_long_table_lie_within_one_series(tmp_path):
    path = saved(pd.concat([long(), hourly(2).assign(id="short")]), tmp_path)
    source = Csv(path=str(path), series="id", window=10, split=Parts(train=0.5, val=0.3, test=0.2), standardise=False)
    dataset = source.open("train")
    samples = [dataset[index] for index in range(len(dataset))]
    assert len(samples) == 21 + 16 + 11
    for sample in samples:
        name, _, start = str(sample["id"]).removeprefix("a.csv/").partition("@")
        own = hourly({"a": 60, "b": 50, "c": 40}[name], seed="abc".index(name))[["load", "heat"]].to_numpy().T
        np.testing.assert_allclose(sample["signal"], own[:, int(start) : int(start) + 10], rtol=1e-6)
    texts = [fact.text for fact in source.facts()]
    assert "4 series of 2 to 60 rows" in texts
    assert "1 of 4 series are too short for a window: left out" in texts
    with pytest.raises(DataError, match="holds 4 series, where one is needed"):
        source.read(path)


def test_repeated_rows_and_rows_without_a_time_are_left_out_and_told(tmp_path):
    frame = hourly(48)
    frame = pd.concat([frame.iloc[:5], frame.iloc[3:4], frame.iloc[5:]])
    text = frame.to_csv(index=False).replace("2021-03-01 10:00:00", "")
    (tmp_path / "a.csv").write_text(text)
    found = read_table(tmp_path / "a.csv")
    assert (found.rows, found.inserted) == (48, 1)
    assert notices(found) == [
        "1 rows without a time are left out",
        "1 rows that occur twice are taken once",
        "2 of 96 values are missing",
        "1 rows are missing between others; put in as missing values",
    ]


def test_what_a_table_was_taken_for_is_told(tmp_path):
    frame = hourly(48).assign(flat=1.0)
    frame.loc[3:5, "load"] = np.nan
    source = Csv(path=str(saved(frame, tmp_path)), window=8, observed=1, split=Parts(train=30, val=10, test=6))
    found = [(fact.about, fact.text, fact.notice) for fact in source.facts()]
    assert found == [
        ("table", "a.csv: 48 rows and 4 columns, separated by commas", False),
        ("time", "column date: year-month-day", False),
        ("time", "from 2021-03-01 00:00:00 to 2021-03-02 23:00:00, steps of h", False),
        ("variates", "3: load, heat, flat", False),
        ("values", "3 of 144 values are missing", True),
        ("values", "constant: flat", True),
        (
            "split",
            "train 30 rows to 2021-03-02 05:00:00, val 10 to 2021-03-02 15:00:00, test 6 to 2021-03-02 21:00:00, "
            "2 in none, in the order of time",
            False,
        ),
        ("windows", "train 17, val 3, of 8 steps each", False),
        ("windows", "6 windows of which less than 100% is there are left out", True),
    ]


def test_kinds_of_numbers_in_parquet(tmp_path):
    from decimal import Decimal

    frame = pd.DataFrame(
        {
            "date": pd.date_range("2020-01-01", periods=4),
            "money": [Decimal("1.5"), None, Decimal("2.25"), Decimal("3")],
            "on": [True, False, True, True],
            "count": pd.array([1, None, 3, 5], dtype="Int64"),
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    nan = np.nan
    np.testing.assert_array_equal(
        read_table(tmp_path / "a.parquet").values, [[1.5, nan, 2.25, 3], [1, 0, 1, 1], [1, nan, 3, 5]]
    )
    frame.assign(money=pd.to_timedelta([1, 2, 4, 3], unit="s")).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="'money' holds text"):
        read_table(tmp_path / "a.parquet")
