"""What a source that reads files is told: where they lie, and what of folders and tables says splits and labels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from maskedmodel.components import Settings

Names = str | tuple[str, ...]
Labels = str | int | tuple[str | int, ...]


class FileSettings(Settings):
    """Settings of a source that reads files from a folder or archive: where they are, their splits, their labels."""

    path: str = Field(
        description="Folder of files, or a zip or uncompressed tar of one. Sub-folders are classes unless files also "
        "lie beside them. Sub-folders named as splits are, in any spelling (train, Training, val, dev, test, ...). A "
        "metadata.csv or index.csv at the top, or a JSON file beside each file, may say labels, groups and splits "
        "instead."
    )
    val_path: str | None = Field(None, description="Folder or archive of the validation files.")
    val_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the files for validation, chosen by a hash of their names or groups, where nothing else "
        "says.",
    )
    folders: Literal["auto", "classes", "none"] = Field(
        "auto",
        description="What sub-folders are. auto: splits where they are named so, else classes where all files lie in "
        "one. classes: classes, whatever their names; files beside them have no label. none: neither.",
    )
    train_split: Names | None = Field(
        None, description="Names of the splits to train on, as folders or the table call them. null: train."
    )
    val_split: str | None = Field(
        None, description="Name of the split for validation where there are several. null: val, else dev, else test."
    )
    split: str | None = Field(
        None, description="Column of the table, or key of the JSON files, that holds the split. null: split, if there."
    )
    label: str | None = Field(
        None,
        description="Column of the table, or key of the JSON files, that holds the label. null: label, if there; an "
        'empty name "": no labels at all.',
    )
    unlabelled: Labels | None = Field(
        None, description="Labels that mean there is none, such as -1 or unknown. null: empty cells and NaN."
    )
    group: str | None = Field(
        None,
        description="Column or key of what must stay on one side of a split and of a fold: a recording, a field of "
        "view, a well. null: none.",
    )
    classes: tuple[str, ...] | None = Field(
        None, description="Labels to take, in this order; files of others are left out. null: all, sorted."
    )
    val_groups: tuple[str, ...] | None = Field(
        None, description="Groups that are for validation. null: a share of them."
    )


def listed(setting: Labels | None) -> list[str]:
    """A setting of one name or several as names."""
    if setting is None:
        return []
    return [str(setting)] if isinstance(setting, str | int) else [str(name) for name in setting]
