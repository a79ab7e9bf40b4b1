import gzip

import numpy as np
import pandas as pd
import pytest
from maskedmodel_timeseries.columns import TableReading
from maskedmodel_timeseries.tables import read_table

from maskedmodel.errors import DataError

from .conftest import hourly


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_plain_gzipped_tabbed_and_parquet_tables_hold_the_same(tmp_path):
    frame = hourly(48)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "b.csv", index=False, sep=";", decimal=",")
    frame.to_parquet(tmp_path / "a.parquet")
    frame.set_index("date").to_parquet(tmp_path / "indexed.parquet")
    for name in ("a.csv", "a.csv.gz", "a.tsv", "b.csv", "a.parquet", "indexed.parquet"):
        table = read_table(tmp_path / name)
        assert table.names == ("load", "heat")
        np.testing.assert_allclose(table.values, frame[["load", "heat"]].to_numpy().T)
        assert (table.time_name, table.frequency, table.inserted) == ("date", "h", 0)


@pytest.mark.parametrize(
    ("stamps", "frequency", "after"),
    [
        (["2020-01-31", "2020-02-29", "2020-03-31", "2020-04-30"], "ME", ["2020-05-31", "2020-06-30"]),
        (["2020-01-01", "2020-02-01", "2020-03-01", "2020-04-01"], "MS", ["2020-05-01", "2020-06-01"]),
        (["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07"], None, ["2020-01-08", "2020-01-09"]),
        (["01/01/2020", "02/01/2020", "03/01/2020", "13/01/2020"], None, None),
        (["2020-01-01 00:00", "2020-01-01 00:15", "2020-01-01 00:30"], "15min", ["2020-01-01 00:45:00"]),
        (["2020-01-01T00:00:00.5", "2020-01-01T00:00:01", "2020-01-01T00:00:01.5"], "500ms", ["2020-01-01 00:00:02"]),
    ],
)
def test_times_are_found_by_type_and_go_on_by_their_frequency(tmp_path, stamps, frequency, after):
    rows = "".join(f"{number},{stamp}\n" for number, stamp in enumerate(stamps))
    table = read_table(write(tmp_path / "a.csv", f"value,when\n{rows}"))
    assert (table.time_name, table.names) == ("when", ("value",))
    if frequency is not None:
        assert table.frequency == frequency
    if after is not None:
        assert table.after(len(after)) == after


def test_business_days_are_no_gaps(tmp_path):
    days = pd.bdate_range("2020-01-01", periods=15)
    table = read_table(
        write(tmp_path / "a.csv", "day,v\n" + "".join(f"{day.date()},{i}\n" for i, day in enumerate(days)))
    )
    assert (table.frequency, table.inserted, table.rows) == ("B", 0, 15)
    assert table.after(1) == ["2020-01-22"]


def test_rows_missing_between_others_are_put_in_as_missing_values_and_rows_are_sorted(tmp_path):
    frame = hourly(48).drop(index=[5, 6, 30]).sample(frac=1, random_state=0)
    frame.to_csv(tmp_path / "a.csv", index=False)
    table = read_table(tmp_path / "a.csv")
    assert (table.rows, table.inserted, table.frequency) == (48, 3, "h")
    assert np.flatnonzero(np.isnan(table.values[0])).tolist() == [5, 6, 30]
    np.testing.assert_allclose(
        np.delete(table.values[1], [5, 6, 30]), np.delete(hourly(48).heat.to_numpy(), [5, 6, 30])
    )


def test_a_counting_column_is_time_by_its_name_and_without_one_rows_are_counted(tmp_path):
    table = read_table(write(tmp_path / "a.csv", "t,v\n10,1\n20,2\n40,4\n"))
    assert table.time_name == "t"
    np.testing.assert_array_equal(table.values, [[1, 2, np.nan, 4]])
    assert table.after(2) == ["50", "60"]
    table = read_table(write(tmp_path / "b.csv", "a,v\n1,1\n2,2\n3,4\n"))
    assert table.names == ("a", "v")
    assert table.after(2) == ["3", "4"]


def test_columns_are_taken_in_the_order_asked_for_and_others_may_hold_text(tmp_path):
    path = write(tmp_path / "a.csv", "day,v,w,note\n2020-01-01,1,4,x\n2020-01-02,,5,y\n2020-01-03,3,6,z\n")
    table = read_table(path, TableReading(columns=["w", "v"]))
    np.testing.assert_array_equal(table.values, [[4, 5, 6], [1, np.nan, 3]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "can't be read"),
        ("day,v\n", "0 rows"),
        ("day,v\n2020-01-01,1\n", "1 row of values"),
        ("day,v,w\n2020-01-01,1,2\n2020-01-02,1,two\n", "'w' holds text.*row 2.*'two'"),
        ("day,v,w\n2020-01-01,1,2\n2020-01-02,x9,3\n", "'v' holds text"),
        ("day,v,w\n2020-01-01,1,\n2020-01-02,1,\n", "'w' holds no value"),
        ("day,v\n2020-01-01,\n2020-01-02,\n", "'v' holds no value: all 2"),
        ("day,v\n2020-01-01,1\n2020-01-02,inf\n", "'v' holds an infinite"),
        ("day,v\n2020-01-01,1\n2020-01-01,2\n2020-01-02,3\n", "same time.*2020-01-01"),
        ("day\n2020-01-01\n2020-01-02\n", "no column of values"),
        ("a,b\n1,2,3\n1\n'\"", "can't be read"),
    ],
)
def test_bad_tables_are_refused_with_the_column_and_the_row(tmp_path, text, said):
    with pytest.raises(DataError, match=f"(?s){said}"):
        read_table(write(tmp_path / "a.csv", text))


def test_other_bad_input_is_refused(tmp_path, csv):
    with pytest.raises(DataError, match="No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="unknown kind"):
        read_table(write(tmp_path / "a.txt", "a\n1\n"))
    with pytest.raises(DataError, match="no column 'cold'"):
        read_table(csv, TableReading(columns=["load", "cold"]))
    with pytest.raises(DataError, match="no column 'when'"):
        read_table(csv, TableReading(time="when"))
    with pytest.raises(DataError, match="'load' holds no times"):
        read_table(csv, TableReading(time="load"))
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(csv.read_bytes())[:200])
    with pytest.raises(DataError, match="can't be read"):
        read_table(tmp_path / "cut.csv.gz")
    (tmp_path / "plain.csv.gz").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="can't be read"):
        read_table(tmp_path / "plain.csv.gz")
    (tmp_path / "no.parquet").write_text("nothing")
    with pytest.raises(DataError, match="can't be read"):
        read_table(tmp_path / "no.parquet")
