"""What a small file may become in memory."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from maskedmodel_timeseries.tables import read_table

from maskedmodel.errors import DataError
from maskedmodel.sources import bounds, check_memory, row_batches

MIB = 1 << 20


def test_memory_is_a_share_of_the_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "memory_of_machine", lambda: 8 * 2**30)
    check_memory(4 * 2**30, "here", "Buy more.", share=0.5)
    with pytest.raises(DataError, match=r"(?s)here.*at most 4\.0 GiB of the 8\.0 GiB.*4\.5 GiB or more.*Buy more"):
        check_memory(int(4.5 * 2**30), "here", "Buy more.", share=0.5)
    monkeypatch.setattr(bounds, "memory_of_machine", lambda: None)
    check_memory(1 << 60, "where a system doesn't say", "")


@pytest.mark.parametrize("group", [None, 0, 1])
def test_batches_are_the_rows_in_order(tmp_path: Path, group: int | None) -> None:
    numbers = np.arange(100)
    pq.write_table(pa.table({"a": numbers, "b": numbers.astype(str)}), tmp_path / "t.parquet", row_group_size=60)
    file = pq.ParquetFile(tmp_path / "t.parquet")
    chosen = {None: numbers, 0: numbers[:60], 1: numbers[60:]}[group]
    for columns in (None, ["b"]):
        read = pa.Table.from_batches(list(row_batches(file, MIB, "t", "", columns=columns, group=group)))
        assert read.column_names == (columns or ["a", "b"])
        assert read["b"].to_pylist() == chosen.astype(str).tolist()


def test_a_million_copies_of_a_text_are_never_decoded(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array(["x" * MIB]).take(pa.array([0] * 2000))}), tmp_path / "t.parquet")
    batches, taken = row_batches(pq.ParquetFile(tmp_path / "t.parquet"), 8 * MIB, "t", "Shrink it."), list[int]()
    with pytest.raises(DataError, match=r"(?s)too large.*at most 8 MiB.*decodes to"):
        taken.extend(batch.nbytes for batch in batches)
    assert sum(taken) <= 8 * MIB


def test_a_series_that_memory_can_not_hold_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"a": np.zeros(100_000), "b": np.ones(100_000)}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").values.shape == (2, 100_000)
    monkeypatch.setattr(bounds, "memory_of_machine", lambda: 2 * MIB)
    with pytest.raises(DataError, match=r"(?s)doesn't fit into memory.*t\.parquet.*Take fewer rows"):
        read_table(tmp_path / "t.parquet")


def test_packed_text_that_swells_too_much_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"0,0\n" * (17 * MIB)))
    with pytest.raises(DataError, match=r"(?s)too large.*at most 64 MiB.*Unpack the file first"):
        read_table(tmp_path / "t.csv.gz")
