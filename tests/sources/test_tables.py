"""What tables, JSON files and folders say of files: labels and splits with their right values, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from maskedmodel.errors import DataError
from maskedmodel.sources import FileSettings, LabelledFiles


class Texts(FileSettings):
    name: Literal["texts"] = "texts"


def write(root: Path, *names: str, table: str | bytes | None = None, **more: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    if table is not None:
        (root / "metadata.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return root


def labelled(path: Path, **settings: Any) -> LabelledFiles:
    return LabelledFiles(Texts(path=str(path), **settings), (".txt",), "texts")


def labels(files: LabelledFiles) -> dict[str, str | None]:
    """The name of each file's class."""
    names, found = files.class_names or [], {}
    for split in ("train", "val"):
        part = files.part(split)  # type: ignore[arg-type]
        for sample_id, label in zip(part.ids, part.labels or [None] * len(part.ids), strict=True):
            found[sample_id] = None if label is None else names[label]
    return found


def splits(files: LabelledFiles) -> tuple[list[str], list[str]]:
    return files.part("train").ids, files.part("val").ids


def notices(files: LabelledFiles, about: str = "labels") -> str:
    return "\n".join(fact.text for fact in files.facts() if fact.notice and fact.about == about)


def told(files: LabelledFiles) -> str:
    return "\n".join(f"{fact.about}: {fact.text}" for fact in files.facts())


FOUR = [f"{n}.txt" for n in range(4)]


def table(*rows: str, header: str = "file_name,label") -> str:
    return "\n".join([header, *rows]) + "\n"


class TestFoldersAsSplits:
    @pytest.mark.parametrize(
        ("train", "val"),
        [
            ("Training", "Testing"),
            ("Train", "Test"),
            ("training", "validation"),
            ("TRAIN", "VAL"),
            ("train", "eval"),
            ("train", "dev"),
            ("train", "hold-out"),
            ("train2017", "val2017"),
        ],
    )
    def test_in_any_spelling(self, tmp_path: Path, train: str, val: str) -> None:
        names = [f"{split}/{kind}/{n}.txt" for split in (train, val) for kind in ("cat", "dog") for n in range(3)]
        files = labelled(write(tmp_path, *names))
        assert files.class_names == ["cat", "dog"]
        assert splits(files) == (sorted(n for n in names if n.startswith(train)), sorted(n for n in names if val in n))
        assert f"split: train 6, val 6: by folders: train is {train} (6), validation is {val} (6)" in told(files)
        assert notices(files, "split") == ""

    def test_below_the_classes(self, tmp_path: Path) -> None:
        names = [f"{kind}/{split}/{n}.txt" for split in ("train", "test") for kind in ("cat", "dog") for n in range(3)]
        files = labelled(write(tmp_path, *names))
        assert files.class_names == ["cat", "dog"]
        assert splits(files) == (sorted(n for n in names if "train" in n), sorted(n for n in names if "test" in n))

    def test_beside_others_they_are_asked_about(self, tmp_path: Path) -> None:
        names = [f"{kind}/{n}.txt" for kind in ("train", "test", "extra") for n in range(3)]
        write(tmp_path, *names)
        with pytest.raises(DataError, match=r"(?s)others aren't.*extra \(3\), test \(3\), train \(3\).*data.folders"):
            labelled(tmp_path).part("train")
        assert labelled(tmp_path, folders="classes").class_names == ["extra", "test", "train"]
        files = labelled(tmp_path, train_split=("train", "extra"))
        assert len(files.part("train").ids) == 6
        assert files.part("val").ids == ["test/0.txt", "test/1.txt", "test/2.txt"]

    def test_a_class_called_like_a_split_is_asked_about(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"{kind}/{n}.txt" for kind in ("train", "bus", "car") for n in range(4)))
        with pytest.raises(DataError, match=r"data\.folders=classes"):
            labelled(tmp_path).facts()
        assert labelled(tmp_path, folders="classes").class_names == ["bus", "car", "train"]

    def test_of_val_and_test_one_is_taken_and_told(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"{split}/{n}.txt" for split in ("train", "val", "test") for n in range(2)))
        files = labelled(tmp_path)
        assert files.part("val").ids == ["val/0.txt", "val/1.txt"]
        assert "left out: test (2) (data.val_split takes another)" in notices(files, "split")
        assert labelled(tmp_path, val_split="test").part("val").ids == ["test/0.txt", "test/1.txt"]

    def test_a_file_beside_them_is_in_no_split_and_told(self, tmp_path: Path) -> None:
        files = labelled(write(tmp_path, "train/0.txt", "train/1.txt", "test/2.txt", "stray.txt"))
        assert splits(files) == (["train/0.txt", "train/1.txt"], ["test/2.txt"])
        assert notices(files, "split") == "without a split, left out: 1"

    def test_under_val_path_the_evaluation_part_is_taken(self, tmp_path: Path) -> None:
        write(tmp_path / "a", "train/0.txt", "test/1.txt")
        write(tmp_path / "b", "train/2.txt", "test/3.txt")
        files = labelled(tmp_path / "a", val_path=str(tmp_path / "b"))
        assert splits(files) == (["train/0.txt"], ["val:test/3.txt"])
        assert "left out: test (1)" in notices(files, "split")

    def test_train_alone_is_shared_out(self, tmp_path: Path) -> None:
        names = [f"train/{kind}/{n}.txt" for kind in ("a", "b") for n in range(10)]
        files = labelled(write(tmp_path, *names))
        assert files.class_names == ["a", "b"]
        assert sum(map(len, splits(files))) == 20
        assert "by a hash of names" in told(files)


class TestColumnsOfSplits:
    @pytest.mark.parametrize("header", ["split", "Split", " split", "SPLIT "])
    @pytest.mark.parametrize(("train", "val"), [("Train", "Test"), ("training", "validation"), ("TRAIN", "DEV")])
    def test_in_any_spelling(self, tmp_path: Path, header: str, train: str, val: str) -> None:
        rows = [f"{n}.txt,{'ab'[n % 2]},{train if n < 3 else val}" for n in range(4)]
        files = labelled(write(tmp_path, *FOUR, table=table(*rows, header=f"file_name,label,{header}")))
        assert splits(files) == (["0.txt", "1.txt", "2.txt"], ["3.txt"])
        assert f"train is {train} (3), validation is {val} (1)" in told(files)

    def test_a_setting_names_another_column(self, tmp_path: Path) -> None:
        rows = [f"{n}.txt,{'train' if n < 3 else 'test'}" for n in range(4)]
        write(tmp_path, *FOUR, table=table(*rows, header="file_name,subset"))
        assert splits(labelled(tmp_path, split="subset")) == (["0.txt", "1.txt", "2.txt"], ["3.txt"])
        assert "column 'subset' reads like a split and isn't used" in notices(labelled(tmp_path), "split")
        with pytest.raises(DataError, match="Nothing says the split 'part'"):
            labelled(tmp_path, split="part").part("train")

    def test_other_names_beside_are_asked_about(self, tmp_path: Path) -> None:
        rows = ["0.txt,train", "1.txt,train", "2.txt,test", "3.txt,extra"]
        write(tmp_path, *FOUR, table=table(*rows, header="file_name,split"))
        with pytest.raises(DataError, match=r"(?s)others aren't.*column 'split': extra \(1\).*data.train_split"):
            labelled(tmp_path).part("train")
        files = labelled(tmp_path, val_split="test")
        assert splits(files) == (["0.txt", "1.txt"], ["2.txt"])
        assert "left out: extra (1)" in notices(files, "split")

    def test_names_that_are_no_splits_are_told(self, tmp_path: Path) -> None:
        rows = ["0.txt,A", "1.txt,A", "2.txt,A", "3.txt,B"]
        write(tmp_path, *FOUR, table=table(*rows, header="file_name,split"))
        assert "column 'split' names no split (A, B)" in notices(labelled(tmp_path), "split")
        assert splits(labelled(tmp_path, train_split="A", val_split="B"))[1] == ["3.txt"]

    def test_files_without_a_split_are_left_out_and_told(self, tmp_path: Path) -> None:
        rows = ["0.txt,train", "1.txt,", "2.txt,test"]
        files = labelled(write(tmp_path, *FOUR, table=table(*rows, header="file_name,split")))
        assert splits(files) == (["0.txt"], ["2.txt"])
        assert notices(files, "split") == "without a split, left out: 2"


class TestRows:
    @pytest.mark.parametrize(
        "spell",
        [
            lambda name: name.replace("/", "\\"),
            lambda name: f"./{name}",
            lambda name: name.upper(),
            lambda name: name.removesuffix(".txt"),
            lambda name: name.rpartition("/")[2],
            lambda name: f"/data/of/somebody/{name}",
        ],
        ids=["backslash", "dot", "case", "stem", "bare", "absolute"],
    )
    def test_names_in_any_spelling_find_their_files(self, tmp_path: Path, spell: Any) -> None:
        names = [f"clips/x{n}.txt" for n in range(6)]
        rows = [f"{spell(name)},{'ab'[n % 2]}" for n, name in enumerate(names)]
        files = labelled(write(tmp_path, *names, table=table(*rows)))
        assert labels(files) == {name: "ab"[n % 2] for n, name in enumerate(names)}

    def test_a_table_of_which_no_row_has_a_file_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, *FOUR, table=table("x.txt,a", "y.txt,b"))
        with pytest.raises(DataError, match=r"(?s)No row.*names such as 0\.txt.*got: x\.txt, y\.txt"):
            labelled(tmp_path).part("train")

    def test_those_without_a_partner_are_counted_on_both_sides(self, tmp_path: Path) -> None:
        files = labelled(write(tmp_path, *FOUR, table=table("0.txt,a", "1.txt,b", "8.txt,a")))
        said = notices(files)
        assert "rows of metadata.csv that name no file here: 1 (8.txt)" in said
        assert "files without a row in metadata.csv: 2 (2.txt, 3.txt)" in said
        assert "texts without a label: 2 of 4" in said

    def test_two_rows_that_differ_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path, *FOUR, table=table("0.txt,a", "0.txt,b", "1.txt,a"))
        with pytest.raises(DataError, match=r"(?s)Two rows of one file differ in 'label'.*0\.txt.*'a' and 'b'"):
            labelled(tmp_path).part("train")

    def test_two_rows_that_agree_are_told(self, tmp_path: Path) -> None:
        rows = ["0.txt,a,left", "0.txt,a,right", "1.txt,b,left"]
        files = labelled(write(tmp_path, *FOUR, table=table(*rows, header="file_name,label,box")))
        assert labels(files)["0.txt"] == "a"
        assert "rows that repeat a file: 1 (0.txt)" in notices(files)

    def test_rows_without_a_name_are_told(self, tmp_path: Path) -> None:
        files = labelled(write(tmp_path, *FOUR, table=table("0.txt,a", ",b", " ,a", "1.txt,b")))
        assert "rows that name no file, left out: 2" in notices(files)

    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_other_separators_are_seen(self, tmp_path: Path, separator: str) -> None:
        text = table("0.txt,a", "1.txt,b", "2.txt,a", "3.txt,b").replace(",", separator)
        files = labelled(write(tmp_path, *FOUR, table=text))
        assert labels(files) == {"0.txt": "a", "1.txt": "b", "2.txt": "a", "3.txt": "b"}

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (table("0.txt,a,b"), "more cells than the header"),
            (table("0.txt,a,b", header="file_name,label,Label"), "Two columns.*label, Label"),
            (table("0.txt,a").encode("utf-16"), "can't be read.*UTF-8"),
            (b"file_name,label\n0.txt,\xff\n", "can't be read.*UTF-8"),
            (table('0.txt,"a'), "can't be read.*unexpected end of data"),
            ("", "doesn't say which file.*got: nothing"),
            ("file_name,label\n", "No row of the table.*no row with a file's name"),
        ],
    )
    def test_tables_that_cannot_be_understood_are_refused(self, tmp_path: Path, content: Any, words: str) -> None:
        write(tmp_path, *FOUR, table=content)
        with pytest.raises(DataError, match=f"(?s){words}"):
            labelled(tmp_path).part("train")

    def test_another_table_at_the_top_is_told(self, tmp_path: Path) -> None:
        write(tmp_path, *FOUR)
        (tmp_path / "labels.csv").write_text(table("0.txt,a"))
        said = "labels.csv: not read, as a table of labels is called metadata.csv or index.csv"
        assert notices(labelled(tmp_path)) == said


class TestLabels:
    @pytest.mark.parametrize("header", ["label", " label", "Label", "LABEL "])
    def test_the_header_in_any_spelling(self, tmp_path: Path, header: str) -> None:
        files = labelled(write(tmp_path, *FOUR, table=table("0.txt,a", "1.txt,b", header=f"File_Name,{header}")))
        assert files.class_names == ["a", "b"]

    def test_spaces_around_are_left_out_and_told(self, tmp_path: Path) -> None:
        files = labelled(write(tmp_path, *FOUR, table=table("0.txt,a ", "1.txt,a", "2.txt, b", "3.txt,b")))
        assert labels(files) == {"0.txt": "a", "1.txt": "a", "2.txt": "b", "3.txt": "b"}
        assert "cells of the table with spaces around them, left out: 2" in notices(files)

    @pytest.mark.parametrize("nan", ["nan", "NaN", "", "<NA>", "#N/A"])
    def test_nan_is_no_class(self, tmp_path: Path, nan: str) -> None:
        files = labelled(write(tmp_path, *FOUR, table=table("0.txt,a", f"1.txt,{nan}", "2.txt,b", "3.txt,b")))
        assert files.class_names == ["a", "b"]
        assert labels(files)["1.txt"] is None
        assert "texts without a label: 1 of 4" in notices(files)

    def test_words_that_may_mean_none_are_classes_and_told(self, tmp_path: Path) -> None:
        write(tmp_path, *FOUR, table=table("0.txt,a", "1.txt,None", "2.txt,b", "3.txt,b"))
        files = labelled(tmp_path)
        assert files.class_names == ["None", "a", "b"]
        assert "'None' is taken for a class; data.unlabelled=None makes it no label" in notices(files)
        assert labelled(tmp_path, unlabelled="None").class_names == ["a", "b"]

    def test_minus_one_is_a_class_unless_said_otherwise(self, tmp_path: Path) -> None:
        write(tmp_path, *FOUR, table=table("0.txt,-1", "1.txt,0", "2.txt,1", "3.txt,-1"))
        assert labelled(tmp_path).class_names == ["-1", "0", "1"]
        files = labelled(tmp_path, unlabelled=-1)
        assert files.class_names == ["0", "1"]
        assert labels(files) == {"0.txt": None, "1.txt": "0", "2.txt": "1", "3.txt": None}

    def test_classes_that_differ_in_case_are_told(self, tmp_path: Path) -> None:
        files = labelled(write(tmp_path, *FOUR, table=table("0.txt,Cat", "1.txt,cat", "2.txt,dog", "3.txt,dog")))
        assert files.class_names == ["Cat", "cat", "dog"]
        assert "'Cat' and 'cat' are classes of their own" in notices(files)

    def test_digits_of_other_kinds_are_text(self, tmp_path: Path) -> None:
        rows = table("0.txt,10", "1.txt,9", "2.txt,\u00b2", f"3.txt,{'9' * 5000}")
        assert (labelled(write(tmp_path, *FOUR, table=rows)).class_names or [])[:2] == ["9", "10"]

    @pytest.mark.parametrize("kind", ["seconds", "distinct"])
    def test_a_column_that_looks_like_no_label_is_asked_about(self, tmp_path: Path, kind: str) -> None:
        names = [f"{n}.txt" for n in range(40)]
        value = {"seconds": lambda n: 1_600_000_000 + 86400 * (n % 4), "distinct": lambda n: n}[kind]
        write(tmp_path, *names, table=table(*(f"{name},{value(n)}" for n, name in enumerate(names))))
        with pytest.raises(DataError, match=r"(?s)looks like no classes.*data\.label=label.*no labels"):
            labelled(tmp_path).part("train")
        assert len(labelled(tmp_path, label="label").class_names or []) == (4 if kind == "seconds" else 40)
        assert labelled(tmp_path, label="").class_names is None

    def test_a_stray_file_among_class_folders_is_told(self, tmp_path: Path) -> None:
        names = [f"{kind}/{n}.txt" for kind in ("cat", "dog") for n in range(4)]
        write(tmp_path, *names, "stray.txt")
        files = labelled(tmp_path)
        assert files.class_names is None
        assert "texts beside the sub-folders cat, dog: 1, so these are no classes" in notices(files)
        files = labelled(tmp_path, folders="classes")
        assert files.class_names == ["cat", "dog"]
        assert labels(files)["stray.txt"] is None
        assert "texts without a label: 1 of 9" in notices(files)

    def test_folders_may_be_told_to_mean_nothing(self, tmp_path: Path) -> None:
        names = [f"{kind}/{n}.txt" for kind in ("train", "test") for n in range(4)]
        files = labelled(write(tmp_path, *names), folders="none")
        assert files.class_names is None
        assert sum(map(len, splits(files))) == 8

    def test_a_folder_for_each_file_is_told(self, tmp_path: Path) -> None:
        files = labelled(write(tmp_path, *(f"p{n}/x.txt" for n in range(30))))
        assert "if sub-folders are no classes, set data.folders=none" in notices(files)

    def test_counts_stand_in_the_facts(self, tmp_path: Path) -> None:
        files = labelled(write(tmp_path, *FOUR, table=table("0.txt,a", "1.txt,b", "2.txt,b", "3.txt,b")))
        assert "labels: 2 classes by column 'label' of metadata.csv: a 1, b 3" in told(files)


def test_a_single_file_has_facts(tmp_path: Path) -> None:
    assert "split: train 0, val 1: a share of 0.1, by a hash of names" in told(labelled(write(tmp_path, "a.txt")))


class TestSidecars:
    def put(self, root: Path, **sidecars: Any) -> Path:
        write(root, *(f"{name}.txt" for name in sidecars))
        for name, content in sidecars.items():
            if content is not None:
                text = content if isinstance(content, str) else json.dumps(content)
                (root / f"{name}.json").write_text(text)
        return root

    def test_values_are_labels_and_null_is_none(self, tmp_path: Path) -> None:
        said = [{"label": 1}, {"label": 1.0}, {"label": True}, {"label": None}, {"label": float("nan")}]
        files = labelled(self.put(tmp_path, **dict(zip("abcde", said, strict=True))))
        assert labels(files) == {"a.txt": "1", "b.txt": "1", "c.txt": "True", "d.txt": None, "e.txt": None}

    def test_the_first_file_need_not_have_one(self, tmp_path: Path) -> None:
        files = labelled(self.put(tmp_path, a=None, b={"label": "x"}, c={"label": "y"}, d=[1]))
        assert labels(files) == {"a.txt": None, "b.txt": "x", "c.txt": "y", "d.txt": None}
        assert "files without JSON beside them: 2 (a.txt, d.txt)" in notices(files)
        assert "JSON files that hold something else than names and values: 1" in notices(files)

    def test_a_split_by_json(self, tmp_path: Path) -> None:
        files = labelled(self.put(tmp_path, a={"Split": "Train"}, b={"Split": "Train"}, c={"Split": "Test"}))
        assert splits(files) == (["a.txt", "b.txt"], ["c.txt"])

    @pytest.mark.parametrize("content", ["[" * 100_000, "{", '{"label": ' + "1" * 5000 + "}"])
    def test_what_cannot_be_parsed_is_refused(self, tmp_path: Path, content: str) -> None:
        with pytest.raises(DataError, match=r"(?s)JSON beside a file can't be read.*a\.json"):
            labelled(self.put(tmp_path, a=content, b={"label": 1})).part("train")
