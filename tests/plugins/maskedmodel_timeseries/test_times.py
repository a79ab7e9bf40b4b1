"""Columns of times: the right time stamps, or a question with the setting that answers it."""

import numpy as np
import pandas as pd
import pytest
from maskedmodel_timeseries.columns import TableReading
from maskedmodel_timeseries.tables import read_table

from maskedmodel.errors import ConfigError, DataError


def table(folder, stamps, name="date", **how):
    lines = "".join(f'"{stamp}",{(7 * row) % 5}\n' for row, stamp in enumerate(stamps))
    (folder / "a.csv").write_text(f"{name},load\n{lines}", encoding="utf-8")
    return read_table(folder / "a.csv", TableReading(**how))


HOURS = pd.date_range("2020-01-30", periods=240, freq="h")


def midnight_left_out(hours, date, clock="%H:%M:%S"):
    return [f"{time:{date}}" if time.hour == 0 else f"{time:{date} {clock}}" for time in hours]


@pytest.mark.parametrize(
    "date",
    ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%y", "%d %b %Y", "%b %d, %Y"],
)
@pytest.mark.parametrize("clock", ["%H:%M:%S", "%H:%M", "%I:%M %p", "%H:%M:%S.%f"])
def test_a_date_has_one_form_over_the_column_and_midnight_may_lack_its_time(tmp_path, date, clock):
    if date == "%Y-%m-%d" and clock == "%I:%M %p":
        clock = "%H:%M"  # ISO 8601 has no halves of a day
    # 13 days on, so that day and month can't be exchanged; 70 years before, so that two digits are no day.
    hours = HOURS if date != "%d/%m/%y" else HOURS + pd.DateOffset(years=40)
    found = table(tmp_path, midnight_left_out(hours, date, clock))
    assert found.rows == 240
    np.testing.assert_array_equal(found.times.to_numpy(), hours.to_numpy())
    np.testing.assert_array_equal(found.values[0], (7 * np.arange(240)) % 5)


@pytest.mark.parametrize(("dayfirst", "second"), [(True, "2020-02-01"), (False, "2020-01-02")])
def test_day_and_month_that_could_be_exchanged_are_asked_about(tmp_path, dayfirst, second):
    stamps = ["01/01/2020", "01/02/2020", "01/03/2020"]
    with pytest.raises(DataError, match=r"(?s)day or month stands first.*data\.dayfirst=true"):
        table(tmp_path, stamps)
    assert str(table(tmp_path, stamps, dayfirst=dayfirst).times[1].date()) == second
    assert str(table(tmp_path, stamps, time_format="%d/%m/%Y" if dayfirst else "%m/%d/%Y").times[1].date()) == second


def test_days_whose_number_is_their_month_are_no_question(tmp_path):
    assert table(tmp_path, ["01/01/2020", "02/02/2020", "03/03/2020"]).times[1] == pd.Timestamp("2020-02-02")


def test_years_of_two_digits_that_could_be_days_are_asked_about(tmp_path):
    with pytest.raises(DataError, match="2005-01-20 or 2020-01-05"):
        table(tmp_path, ["20/01/05", "20/01/06", "20/01/07"], dayfirst=None)


@pytest.mark.parametrize(
    ("stamps", "said"),
    [
        ([*["2020-01-01"] * 20, "2020-02-30"], "1 of 21 cells hold no time.*row 21"),
        ([f"{day:02d}/13/2020" for day in range(1, 12)] + ["14/14/2020"], "12 cells hold no time"),
        ([*(f"{day}.01.2020" for day in range(1, 30)), "yesterday"], "row 30 of values"),
        ([*(f"{day}.01.2020 10:00" for day in range(1, 30)), "30.01.2020 25:00"], "day of 24 hours"),
        (["2020-01-01 00:00+01:00", "2020-01-01 01:00"], "Some times have an offset"),
    ],
)
def test_single_cells_that_do_not_fit_are_named(tmp_path, stamps, said):
    with pytest.raises(DataError, match=f"(?s){said}"):
        table(tmp_path, stamps)


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M"])
def test_offsets_that_change_are_read_as_utc(tmp_path, form):
    hours = pd.date_range("2021-03-27 20:00", periods=24, freq="h", tz="Europe/Berlin")  # +01:00, then +02:00
    stamps = [f"{time:{form}}{str(time)[-6:]}" for time in hours]
    found = table(tmp_path, stamps)
    np.testing.assert_array_equal(found.times.to_numpy(), hours.tz_convert("UTC").tz_localize(None).to_numpy())
    assert any("UTC" in fact.text and fact.notice for fact in found.told)
    assert (found.frequency, found.inserted) == ("h", 0)


def test_time_zones_of_parquet_are_read_as_utc(tmp_path):
    hours = pd.date_range("2021-03-27 20:00", periods=24, freq="h", tz="Europe/Berlin")
    pd.DataFrame({"when": hours, "load": np.arange(24.0) % 7}).to_parquet(tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    np.testing.assert_array_equal(found.times.to_numpy(), hours.tz_convert("UTC").tz_localize(None).to_numpy())


DAYS = pd.date_range("2019-12-01", periods=100, freq="D")
NANO = DAYS.as_unit("ns").asi8


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("date", [f"{day:%Y%m%d}" for day in DAYS]),
        ("timestamp", NANO // 10**9),
        ("time", NANO // 10**6),
        ("ds", NANO // 10**3),
        ("date", NANO),
    ],
)
def test_integers_that_are_dates_are_recognised_and_told(tmp_path, name, numbers):
    found = table(tmp_path, numbers, name)
    assert (found.rows, found.frequency, found.inserted) == (100, "D", 0)
    np.testing.assert_array_equal(found.times.to_numpy(), DAYS.to_numpy())
    assert any(fact.about == "time" and fact.notice and "read as" in fact.text for fact in found.told)


def test_dates_in_numbers_are_recognised_under_any_name(tmp_path):
    found = table(tmp_path, [f"{day:%Y%m%d}" for day in DAYS], "Tag")
    assert (found.names, found.rows, found.frequency) == (("load",), 100, "D")
    counts = table(tmp_path, range(20200125, 20200225), "Tag")  # 20200132 is no day
    assert counts.names == ("Tag", "load")


def test_months_and_years_in_numbers(tmp_path):
    months = pd.date_range("2010-01-01", periods=120, freq="MS")
    found = table(tmp_path, [f"{month:%Y%m}" for month in months])
    assert (found.rows, found.frequency) == (120, "MS")
    np.testing.assert_array_equal(found.times.to_numpy(), months.to_numpy())
    found = table(tmp_path, range(1990, 2020), "year")
    assert (found.rows, found.frequency, str(found.times[-1].date())) == (30, "YS-JAN", "2019-01-01")


def test_days_of_a_spreadsheet_are_asked_about(tmp_path):
    serials = (DAYS - pd.Timestamp("1899-12-30")).days
    with pytest.raises(DataError, match=r"(?s)2019-12-01.*data\.time_format=excel or data\.time_format=count"):
        table(tmp_path, serials)
    np.testing.assert_array_equal(table(tmp_path, serials, time_format="excel").times.to_numpy(), DAYS.to_numpy())
    assert table(tmp_path, serials, time_format="count").times[0] == serials[0]
    half = table(tmp_path, np.asarray(serials) + 0.5, time_format="excel")
    assert half.times[0] == pd.Timestamp("2019-12-01 12:00")


@pytest.mark.parametrize(
    ("form", "numbers"),
    [
        ("unix", NANO // 10**9),
        ("unix_ms", NANO // 10**6),
        ("unix_us", NANO // 1000),
        ("unix_ns", NANO),
        ("%Y%m%d", None),
    ],
)
def test_formats_can_be_said(tmp_path, form, numbers):
    numbers = [f"{day:%Y%m%d}" for day in DAYS] if numbers is None else numbers
    found = table(tmp_path, numbers, "stamp", time="stamp", time_format=form)
    np.testing.assert_array_equal(found.times.to_numpy(), DAYS.to_numpy())


@pytest.mark.parametrize(
    ("form", "error", "said"),
    [
        ("day", ConfigError, "strptime codes"),
        ("%Q", ConfigError, "isn't a format"),
        ("%d.%m.%Y", DataError, "100 of 100 cells hold no time.*times as %d"),
        ("unix", DataError, "numbers, for time_format 'unix'"),
    ],
)
def test_formats_that_do_not_fit_are_refused(tmp_path, form, error, said):
    with pytest.raises(error, match=f"(?s){said}"):
        table(tmp_path, [f"{day:%Y-%m-%d}" for day in DAYS], time_format=form)


def test_a_clock_in_seconds_is_time_and_its_gaps_are_found(tmp_path):
    seconds = [f"{0.02 * row:.2f}" for row in range(100) if row not in (3, 50)]
    found = table(tmp_path, seconds, "time")
    assert (found.names, found.rows, found.inserted) == (("load",), 100, 2)
    np.testing.assert_allclose(found.times, 0.02 * np.arange(100), atol=1e-9)
    assert np.flatnonzero(np.isnan(found.values[0])).tolist() == [3, 50]
    assert found.after(2) == ["2", "2.02"]


def test_gaps_of_months_and_of_working_days_are_put_in_by_the_calendar(tmp_path):
    months = [f"{month:%Y-%m}" for month in pd.date_range("2020-01-01", periods=24, freq="MS")]
    found = table(tmp_path, months[:5] + months[6:])
    assert (found.rows, found.inserted, found.frequency) == (24, 1, "MS")
    ends = [f"{month:%Y-%m-%d}" for month in pd.date_range("2020-01-31", periods=24, freq="ME")]
    found = table(tmp_path, ends[:5] + ends[6:])
    assert (found.rows, found.inserted, found.frequency) == (24, 1, "ME")
    days = [f"{day:%Y-%m-%d}" for day in pd.bdate_range("2020-01-01", periods=60)]
    found = table(tmp_path, days[:20] + days[22:])
    assert (found.rows, found.inserted, found.frequency) == (60, 2, "B")


def test_days_that_not_every_month_has_are_no_calendar(tmp_path):
    found = table(tmp_path, ["2021-01-30", "2021-03-30", "2021-04-30", "2021-05-30"])
    assert (found.rows, found.inserted) == (4, 0)
    assert any("aren't evenly spaced" in text for text in (fact.text for fact in found.told))


def test_steps_stay_exact_over_a_century(tmp_path):
    hours = pd.date_range("1960-01-01", "2060-01-01", freq="7h1s")
    kept = np.delete(np.arange(len(hours)), [5, 70000])
    found = table(tmp_path, hours[kept].strftime("%Y-%m-%d %H:%M:%S"))
    assert found.inserted == 2
    np.testing.assert_array_equal(found.times.to_numpy(), hours.to_numpy())


def test_years_of_two_and_of_four_digits_do_not_mix(tmp_path):
    with pytest.raises(DataError, match=r"(?s)cells hold no time.*row 3 .*years as in the other cells"):
        table(tmp_path, ["13/01/2020", "14/01/2020", "15/01/20"])


def test_times_long_ago_and_far_ahead_are_read(tmp_path):
    found = table(tmp_path, ["0980-01-01", "1480-01-01", "1980-01-01"])
    assert [str(time.year) for time in found.times] == ["980", "1480", "1980"]
    found = table(tmp_path, ["2900-01-01", "2900-01-02", "2900-01-03"])
    assert found.after(1) == ["2900-01-04"]


def test_uneven_rows_are_told(tmp_path):
    found = table(tmp_path, ["2020-01-01 00:00", "2020-01-01 00:07", "2020-01-01 00:31", "2020-01-01 02:00"])
    assert any("aren't evenly spaced" in fact.text and fact.notice for fact in found.told)
