"""tiff_folder: slots by name or place, splits, tiles, labels, broken files, other data."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maskedmodel_microscopy.tiff_folder import TiffFolder, TiffFolderSettings, tiles
from pydantic import ValidationError

from maskedmodel.errors import DataError
from maskedmodel.training.data import Guarded
from tests.plugins.maskedmodel_microscopy.files import pixels, write_ome


def mixed(folder: Path, count: int = 12) -> None:
    """Fields of DNA and actin, of DNA alone, and of three channels in another order; a table says wells and doses."""
    kinds = [["DNA", "actin"], ["DNA"], ["tubulin", "DNA", "actin"]]
    rows = ["file,label,well"]
    for number in range(count):
        names = kinds[number % 3]
        write_ome(folder / f"{number:02d}.ome.tif", pixels(len(names), 20, 16, seed=number), names)
        rows.append(f"{number:02d}.ome.tif,dose={number % 2};control={number % 2 - 1},W{number // 3}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")


def source(folder: Path, **values: Any) -> TiffFolder:
    return TiffFolder(path=str(folder), **values)


def every(own: TiffFolder) -> dict[str, Any]:
    datasets = [own.open(split) for split in ("train", "val")]
    return {sample["id"]: sample for dataset in datasets for sample in map(dataset.__getitem__, range(len(dataset)))}


class TestSlots:
    def test_a_name_has_the_same_slot_in_every_file(self, tmp_path: Path) -> None:
        mixed(tmp_path)
        own = source(tmp_path)
        assert own.resolved().channel_names == ("DNA", "actin", "tubulin")
        samples = every(own)
        for number, (present, place_of_dna) in enumerate(zip([[0, 1], [0], [0, 1, 2]], [0, 0, 1], strict=True)):
            signal = samples[f"{number:02d}.ome.tif"]["signal"]
            assert signal.shape == (3, 20, 16)
            assert (~signal.isnan().all(2).all(1)).nonzero()[:, 0].tolist() == present
            stored = pixels(len(present), 20, 16, seed=number)
            np.testing.assert_array_equal(signal[0], stored[place_of_dna] / np.float32(255))

    def test_by_place_a_file_has_as_many_slots_as_channels(self, tmp_path: Path) -> None:
        mixed(tmp_path)
        own = source(tmp_path, slots="index")
        samples = every(own)
        assert [samples[f"{number:02d}.ome.tif"]["signal"].shape[0] for number in range(3)] == [2, 1, 3]
        assert own.resolved().channel_names is None

    def test_names_that_are_given_come_first_and_unknown_ones_after(self, tmp_path: Path) -> None:
        mixed(tmp_path)
        own = source(tmp_path, channel_names=("mito", "actin"))
        samples = every(own)
        signal = samples["02.ome.tif"]["signal"]  # tubulin, DNA, actin
        assert signal.shape[0] == 4
        assert signal[0].isnan().all()
        stored = pixels(3, 20, 16, seed=2) / np.float32(255)
        for slot, place in {1: 2, 2: 0, 3: 1}.items():
            np.testing.assert_array_equal(signal[slot], stored[place])
        assert own.resolved().channel_names == ("mito", "actin")

    def test_what_a_run_keeps_puts_other_data_into_the_same_slots(self, tmp_path: Path) -> None:
        mixed(tmp_path / "one")
        write_ome(tmp_path / "two" / "a.ome.tif", pixels(2, 20, 16), ["tubulin", "ER"])
        write_ome(tmp_path / "two" / "b.ome.tif", pixels(1, 20, 16), ["actin"])
        kept = source(tmp_path / "one").resolved()
        other = TiffFolder(kept.model_copy(update={"path": str(tmp_path / "two")}))
        signal = every(other)["a.ome.tif"]["signal"]
        assert (~signal.isnan().all(2).all(1)).tolist() == [False, False, True, True]

    def test_aliases_join_names(self, tmp_path: Path) -> None:
        write_ome(tmp_path / "a.tif", pixels(2, 20, 16), ["DNA (D)", "actin"])
        write_ome(tmp_path / "b.tif", pixels(1, 20, 16), ["DNA"])
        assert source(tmp_path).resolved().channel_names == ("DNA", "DNA (D)", "actin")
        assert source(tmp_path, aliases={"DNA (D)": "DNA"}).resolved().channel_names == ("DNA", "actin")
        with pytest.raises(DataError, match=r"(?s)same name.*DNA \(D\) is x, actin is x.*data.aliases"):
            every(source(tmp_path, aliases={"DNA (D)": "x", "actin": "x"}))

    def test_some_channels_alone(self, tmp_path: Path) -> None:
        mixed(tmp_path, 6)
        own = source(tmp_path, take=("actin", "tubulin"))
        assert own.resolved().channel_names == ("actin", "tubulin")
        guarded = [Guarded(own.open(split), accepts_nan=True) for split in ("train", "val")]
        found = [part[index, 0][0] for part in guarded for index in range(len(part))]
        reasons = [item.reason for item in found if not isinstance(item, dict)]
        assert len(reasons) == 2  # the two fields of DNA alone
        assert all("none of the channels that are taken" in reason for reason in reasons)


class TestSplits:
    def test_a_well_is_never_split_and_labels_may_hold_any_text(self, tmp_path: Path) -> None:
        mixed(tmp_path)
        own = source(tmp_path, group="well", val_share=0.3)
        wells = [{own.open(split)[i]["group"] for i in range(len(own.open(split)))} for split in ("train", "val")]
        assert all(wells)
        assert not wells[0] & wells[1]
        assert own.class_names() == ["dose=0;control=-1", "dose=1;control=0"]
        two = source(tmp_path, classes=("dose=0;control=-1",), val_share=0.3)
        assert all(sample["label"] == 0 for sample in every(two).values())
        assert len(every(two)) == 6

    def test_tiles_of_a_field_stay_together(self, tmp_path: Path) -> None:
        for number in range(8):
            write_ome(tmp_path / f"{number}.tif", pixels(2, 40, 33, seed=number), ["DNA", "actin"])
        own = source(tmp_path, tile=16, val_share=0.3)
        parts = [own.open(split) for split in ("train", "val")]
        fields = [{part.ids[i].split("@")[0] for i in range(len(part))} for part in parts]
        assert not fields[0] & fields[1]
        assert [len(part) for part in parts] == [4 * len(names) for names in fields]
        assert {part[0]["group"] for part in parts} <= fields[0] | fields[1]
        sample = every(own)["3.tif@4,0"]["signal"]
        np.testing.assert_array_equal(sample, pixels(2, 40, 33, seed=3)[:, 4:20, :16] / np.float32(255))

    def test_a_field_no_larger_than_a_tile_is_not_cut(self, tmp_path: Path) -> None:
        mixed(tmp_path)
        assert set(every(source(tmp_path, tile=20))) == {f"{number:02d}.ome.tif" for number in range(12)}

    @pytest.mark.parametrize(
        ("extents", "tile", "expected"),
        [
            ((32, 32), 16, [(0, 0), (0, 16), (16, 0), (16, 16)]),
            ((40, 16), 16, [(4, 0), (20, 0)]),
            ((10, 40), 16, [(0, 4), (0, 20)]),
            ((10, 12), 16, [(0, 0)]),
        ],
    )
    def test_where_tiles_lie(self, extents: tuple[int, int], tile: int, expected: list[tuple[int, int]]) -> None:
        assert tiles(*extents, tile) == expected

    def test_folders_of_classes_and_archives(self, tmp_path: Path) -> None:
        import shutil

        for number in range(8):
            write_ome(tmp_path / "data" / f"kind{number % 2}" / f"{number}.tif", pixels(1, 8, 8, seed=number), ["DNA"])
        archive = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "data")
        own = source(Path(archive))
        assert own.class_names() == ["kind0", "kind1"]
        assert {key: torch.sum(value["signal"]) for key, value in every(own).items()} == {
            key: torch.sum(value["signal"]) for key, value in every(source(tmp_path / "data")).items()
        }


class TestBroken:
    @pytest.mark.parametrize("tile", [None, 8])
    def test_a_broken_file_is_a_broken_sample_and_no_more(self, tmp_path: Path, tile: int | None) -> None:
        for number in range(6):
            write_ome(tmp_path / f"{number}.tif", pixels(1, 8, 8, seed=number), ["DNA"])
        (tmp_path / "2.tif").write_bytes((tmp_path / "2.tif").read_bytes()[:100])
        (tmp_path / "4.tif").write_bytes(b"no picture")
        own = source(tmp_path, tile=tile)
        guarded = [Guarded(own.open(split), accepts_nan=True) for split in ("train", "val")]
        found = [part[index, 0][0] for part in guarded for index in range(len(part))]
        reasons = [item.reason for item in found if not isinstance(item, dict)]
        assert len(found) == 6
        assert len(reasons) == 2
        assert all("truncated or damaged" in reason for reason in reasons)
        assert any("2.tif" in reason for reason in reasons)

    def test_nothing_but_broken_files(self, tmp_path: Path) -> None:
        for number in range(4):
            (tmp_path / f"{number}.tif").write_bytes(b"no picture")
        with pytest.raises(DataError, match="truncated or damaged"):
            source(tmp_path).open("train")

    def test_no_files(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"(?s)no TIFF files.*\.tif \.tiff"):
            source(tmp_path).open("train")


def test_fields_may_be_kept_in_memory(tmp_path: Path) -> None:
    mixed(tmp_path)
    kept, read = source(tmp_path, memory=True, tile=8).open("train"), source(tmp_path, tile=8).open("train")
    first = [kept[index]["signal"] for index in range(len(kept))]
    first[0].zero_()  # what is handed out is a copy
    for path in tmp_path.glob("*.tif"):
        path.rename(path.with_suffix(".away"))
    again = [kept[index]["signal"] for index in range(len(kept))]
    with pytest.raises(DataError):
        read[0]
    with pytest.raises(DataError):
        pickle.loads(pickle.dumps(kept))[0]  # noqa: S301 - a worker starts with nothing
    for path in tmp_path.glob("*.away"):
        path.rename(path.with_suffix(".tif"))
    assert all(torch.equal(one.nan_to_num(-1), read[i]["signal"].nan_to_num(-1)) for i, one in enumerate(again))


class TestOneFile:
    def test_it_is_read_as_the_source_holds_it(self, tmp_path: Path) -> None:
        mixed(tmp_path)
        own = source(tmp_path, tile=8)
        sample = own.read(tmp_path / "01.ome.tif")
        assert sample["id"] == "01.ome.tif"
        assert sample["signal"].shape == (3, 20, 16)
        with pytest.raises(DataError, match="can't be read"):
            own.read(tmp_path / "none.tif")

    def test_such_data_is_recognised(self, tmp_path: Path) -> None:
        mixed(tmp_path)
        assert TiffFolder.recognises(tmp_path)
        assert TiffFolder.recognises(tmp_path / "01.ome.tif")
        assert not TiffFolder.recognises(tmp_path / "index.csv")


@pytest.mark.parametrize("values", [{"channel_names": []}, {"take": ["a", "a"]}, {"tile": 0}, {"slots": "order"}])
def test_settings_that_cannot_work_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TiffFolderSettings(path="x", **values)


class TestFacts:
    def test_channels_sizes_and_what_is_left_out_are_told(self, tmp_path: Path) -> None:
        for number in range(6):
            names = ["DNA", "actin"][: 1 + number % 2]
            write_ome(tmp_path / f"{number}.ome.tif", pixels(len(names), 20, 16), names)
        (tmp_path / "broken.tif").write_bytes(b"nothing")
        found = {(fact.about, fact.text, fact.notice) for fact in TiffFolder(path=str(tmp_path), take=("DNA",)).facts()}
        assert found >= {
            ("size", "of 7 files: 6 20 x 16", False),
            ("channels", "of 7 files: DNA in 6, actin in 3", False),
            ("channels", "not in data.take, left out: actin", True),
            ("files", "of 7 files, 1 can't be opened", True),
            ("planes", "of depth: max; of time: 0; image 0 of a file", False),
        }


def test_a_named_pipe_is_refused(tmp_path: Path) -> None:
    write_ome(tmp_path / "a.tif", pixels(1, 20, 16))
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(DataError):
        TiffFolder(path=str(tmp_path)).read(tmp_path / "pipe.tif")
