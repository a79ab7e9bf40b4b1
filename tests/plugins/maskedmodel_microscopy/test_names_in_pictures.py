"""Pictures call channels what the data calls them: those of training, and those that only a new file has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskedmodel_microscopy.tiff_folder import TiffFolder
from maskedmodel_microscopy.tokenizer import ChannelsTokenizer

from maskedmodel.commands import pictures, pretrain, preview, reconstruct
from tests.plugins.maskedmodel_microscopy.files import write_ome


def fields(folder: Path, *names: str, count: int = 6) -> Path:
    noise = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for number in range(count):
        write_ome(
            folder / f"{number}.ome.tif", noise.integers(0, 255, (len(names), 16, 16), dtype=np.uint8), list(names)
        )
    return folder


def shown(tokenizer: Any, signal: Any) -> list[str]:
    return [text for _, text in tokenizer.scales(signal).vertical.ticks]


def test_slots_are_called_as_set_then_as_the_data_says_then_by_number(tmp_path: Path) -> None:
    source = TiffFolder(path=str(fields(tmp_path / "a", "DNA", "actin")))
    assert source.channel_names() == ("DNA", "actin")
    tokenizer = ChannelsTokenizer(size=16, patch=8, channels=3, names=("nucleus",))
    signal = source.open("train")[0]["signal"][None]
    assert shown(tokenizer, signal) == ["nucleus", "channel 1", "together"]
    tokenizer.channel_names = source.channel_names() or ()
    assert shown(tokenizer, signal) == ["nucleus", "actin", "together"]


def test_a_new_file_names_the_channels_that_only_it_has(tmp_path: Path) -> None:
    source = TiffFolder(path=str(fields(tmp_path / "a", "DNA", "actin")))
    sample = source.read(next(fields(tmp_path / "b", "mito", "DNA").iterdir()))
    assert sample["channels"] == ("DNA", "actin", "mito")
    assert sample["signal"].isnan().flatten(1).all(1).tolist() == [False, True, False]


def test_one_number_may_have_two_names() -> None:
    assert pictures.channel_names([("a", "b"), ("a",), ("a", "c", "d")]) == ("a", "b or c", "d")
    assert pictures.channel_names([]) == ()


def test_commands_hand_names_to_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "data": {"name": "tiff_folder", "path": str(fields(tmp_path / "a", "DNA", "actin")), "val_share": 0.4},
        "tokenizer": {"name": "channels", "size": 16, "patch": 8, "channels": 2},
        "model": {"encoder": {"dim": 24, "depth": 1}, "decoder": {"dim": 16, "depth": 1}},
        "train": {"steps": 1, "batch": 2},
        "evaluate": {"probe": False, "pictures": 2},
    }
    seen: list[list[str]] = []
    scales = ChannelsTokenizer.scales

    def watched(self: ChannelsTokenizer, signal: Any) -> Any:
        seen.append(shown_by(scales(self, signal)))
        return scales(self, signal)

    def shown_by(found: Any) -> list[str]:
        return [text for _, text in found.vertical.ticks]

    monkeypatch.setattr(ChannelsTokenizer, "scales", watched)
    pretrain(config, run=tmp_path / "run", quiet=True)
    preview(config, out=tmp_path / "p.png")
    reconstruct(tmp_path / "run")
    reconstruct(tmp_path / "run", [next(fields(tmp_path / "b", "DNA", "mito").iterdir())], out=tmp_path / "new.png")
    assert seen == [["DNA", "actin", "together"]] * 4 + [["DNA", "mito", "together"]]
