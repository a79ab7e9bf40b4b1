"""CSV files as programs write them: separators, decimal marks and names, decided over the whole file."""

import numpy as np
import pytest
from maskedmodel_timeseries.columns import TableReading
from maskedmodel_timeseries.tables import read_table

from maskedmodel.errors import DataError


def read(folder, text, encoding="utf-8", **how):
    (folder / "a.csv").write_bytes(text.encode(encoding))
    return read_table(folder / "a.csv", TableReading(**how))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a;b\n1,234;2\n0,5;3\n", [[1.234, 0.5], [2, 3]]),  # one cell decides: 0,5 is no group of thousands
        ("a;b\n1,234;2.5\n2,000;3\n", [[1234, 2000], [2.5, 3]]),  # another column decides
        ("a;b\n1.234,5;2\n1.000;3\n", [[1234.5, 1000], [2, 3]]),
        ('a,b\n"1,234",2.5\n"12,345.5",3\n', [[1234, 12345.5], [2.5, 3]]),
        ("a;b\n1 234,5;2\n2 000;3\n", [[1234.5, 2000], [2, 3]]),
        ("a;b\n1'234.5;2\n2'000;3\n", [[1234.5, 2000], [2, 3]]),
        ("a\tb\n1,5\t2\n-2,25\t3\n", [[1.5, -2.25], [2, 3]]),
        ("a|b\n1.5|2\n-2.25|3\n", [[1.5, -2.25], [2, 3]]),
        ("sep=;\na;b\n1,5;2\n2,5;3\n", [[1.5, 2.5], [2, 3]]),
        ("\n a ; b \n1,5e3;2\n,5;3\n", [[1500, 0.5], [2, 3]]),
        ('"a, in m";b\n1;2\n3;4\n', [[1, 3], [2, 4]]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marks_are_decided_over_the_whole_file(tmp_path, text, values, encoding):
    np.testing.assert_allclose(read(tmp_path, text, encoding).values, values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a;b\n1,234;2\n5,678;3\n", r"decimal mark or sets thousands apart.*1,234 or 1\.234.*data\.decimal"),
        ("a;b\n1,5;2.5\n2,5;3\n", "Some numbers .* have a decimal comma"),
        ("a,b;c\n1,2;3\n1,2;4\n", r"can't be told.*a comma and a semicolon.*data\.separator"),
        ("1.5,2\n2,3\n3,4\n", "first row of the table holds values"),
        ("2020-01-01,0.5\n2020-01-02,2\n2020-01-03,1\n", "first row of the table holds values"),
        ("a,a\n1,2\n3,4\n", "Two columns of the table are called 'a'"),
        ("a,b\n1,\0\n3,4\n", "bytes of zero"),
        ("a,b\n1,2,3\n3,4\n", "can't be read"),
    ],
)
def test_what_can_be_read_two_ways_is_refused(tmp_path, text, said):
    with pytest.raises(DataError, match=f"(?s){said}"):
        read(tmp_path, text)


def test_settings_decide(tmp_path):
    text = "a;b\n1,234;2\n5,678;3\n"
    np.testing.assert_allclose(read(tmp_path, text, decimal=",").values[0], [1.234, 5.678])
    np.testing.assert_allclose(read(tmp_path, text, decimal=".").values[0], [1234, 5678])
    assert read(tmp_path, "a,b;c\n1,2;3\n1,2;4\n", separator=",", columns=["a"]).names == ("a",)
    with pytest.raises(DataError, match=r"(?s)'b' holds what is no number.*1,5.*2\.5"):
        read(tmp_path, "a;b\n1,5;2.5\n2,5;3\n", decimal=",")


def test_numbered_columns_are_names(tmp_path):
    assert read(tmp_path, "date,0,1,OT\n2020-01-01,1,2,3\n2020-01-02,2,3,4\n").names == ("0", "1", "OT")
    assert read(tmp_path, "0,1\n5,2\n4,3\n").names == ("0", "1")


def test_other_bytes_are_refused(tmp_path):
    with pytest.raises(DataError, match="UTF-8"):
        read(tmp_path, "date,größe\n2020-01-01,1\n2020-01-02,2\n", "latin-1")


def test_rows_that_end_early_are_counted(tmp_path):
    found = read(tmp_path, "a,b\n1,2\n2,3\n3\n")
    assert np.isnan(found.values[1, 2])
    assert "1 rows have fewer cells than there are columns; what lacks is missing" in [fact.text for fact in found.told]
