"""text_folder, text_table and topics: the kit, then how texts are decoded, cut, labelled and split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_text.decode import TextSettings
from maskedmodel_text.folder import TextFolder
from maskedmodel_text.table import TextTable
from maskedmodel_text.texts import cut
from maskedmodel_text.topics import TOPICS, Topics
from pydantic import ValidationError

from maskedmodel import DataSource
from maskedmodel.errors import DataError, EmptySplitError
from maskedmodel.testing import parametrize_checks


@parametrize_checks([TextFolder, TextTable, Topics(length=200), Topics(train_samples=9, val_samples=5)])
def test_conformance(check: Callable[[], None]) -> None:
    check()


def words(source: DataSource[Any], split: str = "train") -> list[str]:
    dataset = source.open(split)
    return [bytes(dataset[index]["signal"][0].tolist()).decode() for index in range(len(dataset))]


def told(source: DataSource[Any]) -> str:
    return "\n".join(fact.text for fact in source.facts())


def folder(path: Path, **texts: str | bytes) -> Path:
    for name, text in texts.items():
        place = path / name.replace("__", "/")
        place = place.with_name(place.name + ".txt")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class TestCutting:
    @given(
        text=st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=200),
        length=st.integers(8, 40),
        how=st.sampled_from(["pieces", "lines"]),
    )
    @settings(max_examples=150, deadline=None)
    def test_pieces_are_whole_characters_in_order_and_lose_blanks_alone(self, text, length, how):
        content, end, between = text.encode(), 0, b""
        for start, stop in cut(content, TextSettings(name="any", length=length, cut=how)):
            content[start:stop].decode()
            assert 0 < stop - start <= length
            between += b" " + content[end:start]
            end = stop
        # Only what can't be masked is left out: blanks, and a byte alone in its piece.
        assert all(len(word) <= 1 for word in (between + b" " + content[end:]).split())

    def test_words_are_kept_whole_where_they_can(self):
        text = b"one two three four five six"
        pieces = [text[a:b] for a, b in cut(text, TextSettings(name="any", length=10))]
        assert pieces == [b"one two ", b"three ", b"four five ", b"six"]
        assert [text[a:b] for a, b in cut(b"a" * 20, TextSettings(name="any", length=8))] != []

    def test_lines_and_documents(self, tmp_path):
        place = folder(tmp_path, a="first line\n\nsecond\n" + "x" * 30, b="other text\n")
        lines = TextFolder(path=str(place), cut="lines", length=16, val_share=0.5)
        assert sorted(words(lines) + words(lines, "val")) == [
            "first line\n",
            "other text\n",
            "second\n",
            "x" * 14,
            "x" * 16,
        ]
        documents = TextFolder(path=str(place), cut="documents", length=16, val_share=0.5)
        assert len(words(documents) + words(documents, "val")) == 2
        assert "texts longer than data.length, whose rest is left out: 1" in told(documents)


class TestDecoding:
    def test_what_is_not_utf8_is_refused_with_the_setting_that_settles_it(self, tmp_path):
        place = folder(tmp_path, a="café".encode("latin-1") * 3, b="plain text", c="more text")
        with pytest.raises(DataError, match=r"(?s)a\.txt.*expected: utf-8.*xe9.*at byte 3.*data\.encoding"):
            TextFolder(path=str(place)).open("train")
        both = TextFolder(path=str(place), encoding="latin-1", val_share=0.4)
        assert "cafécafécafé" in words(both) + words(both, "val")
        skipping = TextFolder(path=str(place), undecodable="skip", val_share=0.4)
        assert "texts that aren't in utf-8, left out: 1" in told(skipping)
        replacing = TextFolder(path=str(place), undecodable="replace", val_share=0.4)
        assert "caf\ufffdcaf\ufffdcaf\ufffd" in words(replacing) + words(replacing, "val")

    @pytest.mark.parametrize(
        ("content", "said"),
        [("text".encode("utf-16"), "data.encoding=utf-16"), (b"PK\0\0 and more", "a NUL at character 2")],
    )
    def test_utf16_and_binary_files_are_known(self, tmp_path, content, said):
        with pytest.raises(DataError, match=said):
            TextFolder(path=str(folder(tmp_path, a=content, b="text"))).open("train")

    def test_marks_and_line_ends_are_brought_to_one_form_and_counted(self, tmp_path):
        place = folder(tmp_path, a=b"\xef\xbb\xbfone\r\ntwo", b=b"three\rfour")
        source = TextFolder(path=str(place), val_share=0.5)
        assert sorted(words(source) + words(source, "val")) == ["one\ntwo", "three\nfour"]
        assert "byte order marks, left out: 1" in told(source)
        assert "old Macs, brought to one line feed: 2" in told(source)

    def test_an_encoding_that_is_none_is_refused(self):
        with pytest.raises(ValidationError, match="no encoding that Python knows"):
            TextFolder(path="x", encoding="utf-88")


class TestFolder:
    def test_sub_folders_are_classes_and_pieces_of_a_text_one_group(self, tmp_path):
        place = folder(tmp_path, **{f"{kind}__{n}": f"{kind} {n} " * 9 for kind in ("ham", "spam") for n in range(6)})
        source = TextFolder(path=str(place), length=16, val_share=0.3)
        assert source.class_names() == ["ham", "spam"]
        dataset = source.open("train")
        samples = [dataset[index] for index in range(len(dataset))]
        assert all(sample["group"] == str(sample["id"]).rpartition(":")[0] for sample in samples)
        assert {sample["group"] for sample in samples}.isdisjoint(
            {source.open("val")[index]["group"] for index in range(len(source.open("val")))}
        )

    def test_of_a_single_text_the_last_part_is_for_validation(self, tmp_path):
        folder(tmp_path, book=" ".join(f"word{n}" for n in range(200)))
        source = TextFolder(path=str(tmp_path / "book.txt"), length=20, val_share=0.25)
        train, val = words(source), words(source, "val")
        assert "".join(train + val) == (tmp_path / "book.txt").read_text()
        assert len(val) == pytest.approx(0.25 * len(train + val), abs=1)
        assert "the last 25% of the text" in told(source)

    def test_nothing_but_blanks_is_an_empty_split(self, tmp_path):
        with pytest.raises(EmptySplitError, match="aren't blank"):
            TextFolder(path=str(folder(tmp_path, a=" \n", b="\n"))).open("train")

    def test_a_folder_of_pictures_with_a_readme_is_none_of_texts(self, tmp_path):
        folder(tmp_path, readme="what these are", notes="more of it")
        assert TextFolder.recognises(tmp_path)
        assert TextFolder.recognises(tmp_path / "readme.txt")
        for number in range(3):
            (tmp_path / f"{number}.png").write_bytes(b"a picture")
        assert not TextFolder.recognises(tmp_path)

    def test_one_file_is_one_sample_and_what_is_left_out_is_noted(self, tmp_path):
        folder(tmp_path, a="a long text that goes on", b=" ")
        source = TextFolder(path=str(tmp_path), length=16)
        sample = source.read(tmp_path / "a.txt")
        assert bytes(sample["signal"][0].tolist()) == b"a long text "
        assert sample["notes"] == ("the first 16 bytes at most taken (data.length)",)
        with pytest.raises(DataError, match="holds no text"):
            source.read(tmp_path / "b.txt")


ROWS = [("the cat sat on the mat", "animal"), ("a dog ran in the park", "animal"), ("the train was late", "travel")]


def written(path: Path, kind: str, rows: list[tuple[str, str]], names: tuple[str, str] = ("text", "label")) -> Path:
    place = path / f"texts.{kind}"
    if kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        place.write_text("\n".join(mark.join(row) for row in [names, *rows]), "utf-8")
    elif kind == "jsonl":
        place.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows), "utf-8")
    else:
        pq.write_table(pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)}), place)
    return place


class TestTable:
    @pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
    def test_the_same_samples_of_any_kind(self, tmp_path, kind):
        source = TextTable(path=str(written(tmp_path, kind, ROWS)), val_share=0.4)
        assert sorted(words(source) + words(source, "val")) == sorted(text for text, _ in ROWS)
        assert source.class_names() == ["animal", "travel"]
        labels = {
            bytes(sample["signal"][0].tolist()).decode(): source.class_names()[sample["label"]]
            for split in ("train", "val")
            for sample in map(source.open(split).__getitem__, range(len(source.open(split))))
        }
        assert labels == dict(ROWS)

    def test_a_column_that_alone_reads_like_text_is_taken_and_told(self, tmp_path):
        source = TextTable(path=str(written(tmp_path, "csv", ROWS, ("review", "kind"))), val_share=0.4)
        assert "column 'review' is taken for the texts" in told(source)
        assert source.class_names() is None
        assert "data.label takes one of review, kind" in told(source)
        assert TextTable(path=source.settings.path, label="kind").class_names() == ["animal", "travel"]

    def test_several_columns_of_text_are_refused_with_the_setting(self, tmp_path):
        both = [(text, f"what was said of {text}") for text, _ in ROWS]
        place = written(tmp_path, "csv", both, ("review", "reply"))
        with pytest.raises(DataError, match=r"(?s)Several columns.*review, reply.*data\.text"):
            TextTable(path=str(place)).open("train")
        assert len(words(TextTable(path=str(place), text="reply", val_share=0.4))) > 0
        with pytest.raises(DataError, match=r"(?s)no column 'replly'.*review, reply"):
            TextTable(path=str(place), text="replly").open("train")

    def test_a_label_that_looks_like_none_is_refused(self, tmp_path):
        rows = [(f"this is text {n}", str(n)) for n in range(40)]
        with pytest.raises(DataError, match=r"(?s)looks like no classes.*data\.label"):
            TextTable(path=str(written(tmp_path, "csv", rows))).class_names()

    def test_files_and_cells_say_splits(self, tmp_path):
        for name, text in (("train", "a text to train on"), ("test", "a text to test with")):
            (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": text}) + "\n", "utf-8")
        source = TextTable(path=str(tmp_path))
        assert (words(source), words(source, "val")) == (["a text to train on"], ["a text to test with"])
        (tmp_path / "one.csv").write_text("text,split\na b c,train\nd e f,dev\n")
        source = TextTable(path=str(tmp_path / "one.csv"))
        assert (words(source), words(source, "val")) == (["a b c"], ["d e f"])

    def test_classes_that_datasets_wrote_as_numbers_have_their_names(self, tmp_path):
        features = {"label": {"_type": "ClassLabel", "names": ["neg", "pos"]}, "text": {"_type": "Value"}}
        about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        table = pa.table({"text": ["a b c", "d e f", "g h i"], "label": [0, 1, -1]}).replace_schema_metadata(about)
        pq.write_table(table, tmp_path / "x.parquet")
        source = TextTable(path=str(tmp_path / "x.parquet"), val_share=0.4)
        assert source.class_names() == ["neg", "pos"]
        assert "samples without a label: 1 of 3" in told(source)

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("x.csv", 'text\n"open', "can't be read"),
            ("x.csv", "text,text\na,b\n", "one name"),
            ("x.csv", "text\na, b, c\n", "more cells"),
            ("x.jsonl", '{"text": "a"}\n[1]\n', "line 2"),
            ("x.parquet", "no parquet", "can't be read"),
            ("x.png", "no table", r"\.csv \.tsv"),
        ],
    )
    def test_what_is_no_table_is_refused(self, tmp_path, name, content, said):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=said):
            TextTable(path=str(tmp_path / name)).open("train")

    def test_what_was_left_out_is_counted(self, tmp_path):
        (tmp_path / "x.jsonl").write_text('{"text": "a b c"}\n{"text": ["a"]}\n{"text": null}\n{"text": "d e f"}\n')
        said = told(TextTable(path=str(tmp_path / "x.jsonl"), val_share=0.4))
        assert "cells that hold lists, mappings or bytes, taken for empty: 1" in said
        assert "rows without a text, left out: 2" in said

    def test_only_tables_with_a_column_of_texts_are_recognised(self, tmp_path):
        assert TextTable.recognises(written(tmp_path, "csv", ROWS))
        assert TextTable.recognises(written(tmp_path, "jsonl", ROWS))
        assert TextTable.recognises(written(tmp_path, "parquet", ROWS))
        assert not TextTable.recognises(written(tmp_path, "csv", ROWS, ("date", "load")))
        assert not TextTable.recognises(tmp_path)


class TestTopics:
    def test_every_topic_is_there_and_neighbours_stay_together(self):
        source = Topics()
        train, val = source.open("train"), source.open("val")
        labels = {train[index]["label"] for index in range(len(train))}
        assert labels == set(range(len(TOPICS)))
        groups = [{part[index]["group"] for index in range(len(part))} for part in (train, val)]
        assert groups[0].isdisjoint(groups[1])
        assert len(val) == pytest.approx(0.2 * (len(train) + len(val)), rel=0.2)

    def test_fewer_samples_are_spread_over_all(self):
        few = Topics(train_samples=20).open("train")
        assert len({few[index]["label"] for index in range(20)}) > 5
