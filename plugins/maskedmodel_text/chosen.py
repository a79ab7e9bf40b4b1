"""What the source of tables is told, and which rows are for training and which for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from maskedmodel.sources import Split, named_split, split_by_share
from maskedmodel_text.columns import Rows
from maskedmodel_text.decode import TextSettings

_SPLITS: tuple[Split, ...] = ("train", "val")


class TextTableSettings(TextSettings):
    """Settings of the `text_table` source."""

    name: Literal["text_table"] = "text_table"
    path: str = Field(
        description="A .csv, .tsv, .jsonl, .ndjson or .parquet file, or a folder of them. Files named as splits are "
        "these, in any spelling; else a column called split says them."
    )
    val_share: float = Field(0.1, gt=0, lt=1, description="Share of the rows for validation, where nothing else says.")
    train_split: str | tuple[str, ...] | None = Field(None, description="Names of the splits to train on. null: train.")
    val_split: str | None = Field(None, description="Name of the split for validation. null: val, else dev, else test.")
    split: str | None = Field(None, description="Column of the split. null: split, if there.")
    text: str | None = Field(None, description="Column of the texts. null: text, else the only one that reads so.")
    label: str | None = Field(None, description='Column of the labels. null: label, if there; an empty name "": none.')
    unlabelled: str | int | None = Field(None, description="Label that means there is none. null: empty cells.")
    group: str | None = Field(None, description="Column of what must stay in one split and fold. null: none.")


def split_rows(rows: Rows, s: TextTableSettings) -> tuple[dict[Split, Sequence[int]], str, Sequence[str]]:
    """The rows of each split, how that was decided, and what was left out. Raises DataError in doubt."""
    column = rows.column("split", s.split, "split") if s.split or not any(rows.splits) else None
    names = rows.splits if column is None else rows.cells[column]
    said_by, fix = "file names" if column is None else f"column {column!r}", "Name them in data.train_split."
    train = (s.train_split,) if isinstance(s.train_split, str) else s.train_split
    found = named_split(names, train, s.val_split, said_by, rows.where, fix)
    among = range(len(rows.ids)) if found is None else found.train
    notices = () if found is None else found.notices
    if found is not None and found.val is not None:
        return {"train": among, "val": found.val}, found.text, notices
    group = rows.column("group", s.group)
    keys = [rows.ids[row] if group is None else rows.cells[group][row] or rows.ids[row] for row in among]
    parts: dict[Split, Sequence[int]] = {
        of: [among[at] for at in split_by_share(keys, s.val_share, of, s.path)] for of in _SPLITS
    }
    return parts, f"a share of {s.val_share:g}, by a hash of {group or 'file and row'}", notices
