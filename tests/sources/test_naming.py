"""Which file a row is about: paths in any spelling, and never a file that only looks like it."""

from __future__ import annotations

import pytest

from maskedmodel.sources.naming import match_names, normalised

PATHS = ["images/a/1.png", "images/a/2.png", "images/b/1.png", "images/b/3.JPG"]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a\\b.png", "a/b.png"),
        ("./a//b.png", "a/b.png"),
        (" /a/../b.png ", "b.png"),
        ("../x/a.png", "x/a.png"),
        ("C:\\x\\a.png", "C:/x/a.png"),
        ("", ""),
    ],
)
def test_paths_are_normalised(name: str, plain: str) -> None:
    assert normalised(name) == plain


@pytest.mark.parametrize(
    ("rows", "how"),
    [
        (PATHS, ""),
        ([f".\\{path}".replace("/", "\\") for path in PATHS], ""),
        ([path.upper() for path in PATHS], "whatever the case"),
        ([path.rpartition(".")[0] for path in PATHS], "without the ending"),
        ([path.replace("png", "tif").replace("JPG", "tif") for path in PATHS], "without the ending"),
        ([path.removeprefix("images/") for path in PATHS], "by the end of the path"),
        ([f"/data/of/somebody/{path}" for path in PATHS], "by the end of the path"),
        ([path.removeprefix("images/").upper() for path in PATHS], "by the end of the path and whatever the case"),
        (
            [path.rpartition(".")[0].upper() for path in PATHS],
            "whatever the case, without the ending",
        ),
    ],
)
def test_each_spelling_finds_its_file(rows: list[str], how: str) -> None:
    matching = match_names(rows, PATHS, "")
    assert matching.files == [0, 1, 2, 3]
    assert matching.how == how
    assert matching.ambiguous == 0


def test_rows_may_leave_out_the_folder_of_the_table() -> None:
    assert match_names([path.removeprefix("images/") for path in PATHS], PATHS, "images/").how == ""


def test_a_name_that_fits_several_files_fits_none() -> None:
    matching = match_names(["1.png", "2.png", "3.jpg"], PATHS, "")
    assert matching.files == [None, 1, 3]
    assert matching.ambiguous == 1


def test_a_name_is_never_matched_across_folders() -> None:
    assert match_names(["c/1.png", "b/2.png"], ["a/1.png", "a/2.png"], "").files == [None, None]


def test_the_whole_table_takes_the_strictest_way_that_finds_most() -> None:
    # Row by row, 1.tif would be found without its ending in 1.png, which has a row of its own.
    matching = match_names(["1.png", "1.tif"], ["1.png"], "")
    assert matching.files == [0, None]
    assert matching.how == ""


def test_a_dot_in_a_name_is_no_ending_where_the_whole_name_is_there() -> None:
    assert match_names(["v1.2", "v1"], ["v1.2.png", "v1.png"], "").files == [0, 1]


def test_case_is_kept_apart_where_files_differ_in_it() -> None:
    assert match_names(["A.png", "a.png"], ["A.png", "a.png"], "").files == [0, 1]
    matching = match_names(["AB.png"], ["Ab.png", "aB.png"], "")
    assert matching.files == [None]
    assert matching.ambiguous == 1


def test_letters_written_in_two_ways_are_one() -> None:
    assert match_names(["caf\u00e9.png"], ["cafe\u0301.png"], "").files == [0]
