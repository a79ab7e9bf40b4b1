"""Files that hold one channel each are joined to fields: guessed by their names and told, or as set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from maskedmodel_microscopy.joined import ChannelPattern, guess
from maskedmodel_microscopy.tiff_folder import TiffFolder

from maskedmodel.errors import ConfigError, DataError
from tests.plugins.maskedmodel_microscopy.files import pixels, write_ome

STAINS = ("DAPI", "GFP", "Cy5")


def fill(folder: Path, form: str, fields: int = 4, size: int = 12) -> dict[str, np.ndarray[Any, Any]]:
    """A file for each channel of some fields; gives what each field is to be, by the number of the field."""
    whole = {}
    for field in range(fields):
        planes = pixels(3, size, 10, seed=field)
        for channel, stain in enumerate(STAINS):
            path = folder / f"{form.format(field=field, channel=channel, stain=stain)}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, planes[channel], photometric="minisblack")
        whole[str(field)] = planes
    return whole


def samples(source: TiffFolder) -> dict[str, torch.Tensor]:
    found = {}
    for split in ("train", "val"):
        dataset = source.open(split)
        found |= {str(dataset[n]["id"]): torch.as_tensor(dataset[n]["signal"]) for n in range(len(dataset))}
    return found


@pytest.mark.parametrize(
    ("form", "pattern", "sample", "names"),
    [
        ("well{field}_ch{channel}", "_ch{number}", "well{field}.tif", ("ch0", "ch1", "ch2")),
        ("plate/w{field}_w{channel}", "_w{number}", "plate/w{field}.tif", ("w0", "w1", "w2")),
        ("w{field}_w{channel}{stain}", "_w{channel}", "w{field}.tif", ("0DAPI", "1GFP", "2Cy5")),
        ("{field}-C0{channel}", "-C{number}", "{field}.tif", ("C00", "C01", "C02")),
        ("a_c{channel}_s{field}", "_c{number}", "a_s{field}.tif", ("c0", "c1", "c2")),
        ("r01c0{field}f01-ch{channel}sk1", "-ch{number}sk", "r01c0{field}f011.tif", ("ch0", "ch1", "ch2")),
        ("f{field}_{stain}", "_{channel}", "f{field}.tif", ("Cy5", "DAPI", "GFP")),
        ("{stain}-{field}", "{channel}-", "{field}.tif", ("Cy5", "DAPI", "GFP")),
        ("f{field}/{stain}", "{channel}", "f{field}.tif", ("Cy5", "DAPI", "GFP")),
    ],
)
def test_the_usual_names_are_found_and_told(
    tmp_path: Path, form: str, pattern: str, sample: str, names: tuple[str, ...]
) -> None:
    whole = fill(tmp_path, form)
    source = TiffFolder(path=str(tmp_path), val_share=0.25)
    resolved = source.resolved()
    assert (resolved.channel_pattern, resolved.channel_names) == (pattern, names)
    order = sorted(range(3), key=lambda channel: STAINS[channel]) if names[0] == "Cy5" else range(3)
    found = samples(source)
    assert set(found) == {sample.format(field=field) for field in whole}
    for field, planes in whole.items():
        expected = torch.from_numpy(planes[list(order)]).float() / 255
        torch.testing.assert_close(found[sample.format(field=field)], expected)
    texts = [fact.text for fact in source.facts() if fact.notice]
    assert texts == [
        f"12 files are the channels of 4 fields, by {pattern} (found by their names; data.channel_pattern=none reads "
        "each as a field)"
    ]
    # What a run keeps reads the same.
    again = samples(TiffFolder(resolved))
    assert all(torch.equal(again[name], signal) for name, signal in found.items())


@pytest.mark.parametrize(
    "form", ["field{field}", "cells_{field}", "c{field}", "c0{field}", "abc12_{field}", "DAPI_{field}"]
)
def test_plain_numbers_are_no_channels(tmp_path: Path, form: str) -> None:
    for field in range(9):
        tifffile.imwrite(tmp_path / f"{form.format(field=field)}.tif", pixels(12, 10), photometric="minisblack")
    source = TiffFolder(path=str(tmp_path))
    assert source.resolved().channel_pattern == "none"
    assert len(samples(source)) == 9


def test_files_of_several_channels_are_not_joined(tmp_path: Path) -> None:
    for field in range(3):
        for part in range(2):
            write_ome(tmp_path / f"w{field}_c{part}.tif", pixels(2, 12, 10), ["DNA", "actin"])
    source = TiffFolder(path=str(tmp_path))
    assert len(samples(source)) == 6
    with pytest.raises(DataError, match=r"(?s)one channel of a field holds several.*DNA, actin.*channel_pattern=none"):
        TiffFolder(path=str(tmp_path), channel_pattern="_c{number}").open("train")


def test_none_reads_each_file_as_a_field(tmp_path: Path) -> None:
    fill(tmp_path, "w{field}_ch{channel}")
    assert len(samples(TiffFolder(path=str(tmp_path), channel_pattern="none"))) == 12


def test_names_in_the_files_come_before_those_of_the_files(tmp_path: Path) -> None:
    for field in range(3):
        for channel, name in enumerate(("DNA", "actin")):
            write_ome(tmp_path / f"w{field}_ch{channel}.tif", pixels(1, 12, 10), [name])
    assert TiffFolder(path=str(tmp_path)).resolved().channel_names == ("DNA", "actin")


def test_a_field_may_lack_a_channel(tmp_path: Path) -> None:
    whole = fill(tmp_path, "w{field}_ch{channel}")
    (tmp_path / "w2_ch1.tif").unlink()
    source = TiffFolder(path=str(tmp_path))
    signal = samples(source)["w2.tif"]
    assert signal[1].isnan().all()
    torch.testing.assert_close(signal[[0, 2]], torch.from_numpy(whole["2"][[0, 2]]).float() / 255)
    for channel in (0, 2):
        (tmp_path / f"w3_ch{channel}.tif").unlink()
    texts = [fact.text for fact in TiffFolder(path=str(tmp_path), channel_pattern="_ch{number}").facts()]
    assert "of 4 fields, 1 have one channel alone" in texts


def test_labels_splits_tiles_and_archives_go_by_fields(tmp_path: Path) -> None:
    fill(tmp_path / "data", "w{field}_ch{channel}", size=24)
    table = "".join(f"w{field},{'even' if field % 2 == 0 else 'odd'}\n" for field in range(4))
    (tmp_path / "data" / "metadata.csv").write_text(f"file_name,label\n{table}")
    source = TiffFolder(path=str(tmp_path / "data"), tile=10)
    assert source.class_names() == ["even", "odd"]
    names = {name.partition("@")[0] for name in samples(source)}
    assert names == {f"w{field}.tif" for field in range(4)}
    train, val = (
        {str(dataset[n]["id"]).partition("@")[0] for n in range(len(dataset))}
        for dataset in map(source.open, ("train", "val"))
    )
    assert not train & val


def test_channels_of_other_sizes_are_a_broken_sample(tmp_path: Path) -> None:
    fill(tmp_path, "w{field}_ch{channel}")
    tifffile.imwrite(tmp_path / "w1_ch2.tif", pixels(8, 8), photometric="minisblack")
    source = TiffFolder(path=str(tmp_path))
    broken = []
    for split in ("train", "val"):
        dataset = source.open(split)
        for number in range(len(dataset)):
            try:
                dataset[number]
            except DataError as error:
                broken.append(str(error))
    assert len(broken) == 1
    assert "w1_ch2.tif" in broken[0]
    assert "8 x 8" in broken[0]


def test_one_file_has_its_channel_by_its_name(tmp_path: Path) -> None:
    whole = fill(tmp_path, "w{field}_ch{channel}")
    source = TiffFolder(path=str(tmp_path))
    signal = torch.as_tensor(source.read(tmp_path / "w0_ch1.tif")["signal"])
    assert signal[[0, 2]].isnan().all()
    torch.testing.assert_close(signal[1], torch.from_numpy(whole["0"][1]).float() / 255)


def test_patterns_that_fit_nothing_or_two_files_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "w{field}_ch{channel}")
    with pytest.raises(DataError, match=r"(?s)where data\.channel_pattern says.*-w\{number\}"):
        TiffFolder(path=str(tmp_path), channel_pattern="-w{number}").open("train")
    for wrong in ("_ch", "{number}_{channel}", "{number}{number}"):
        with pytest.raises(ConfigError, match="where in a name the channel stands"):
            TiffFolder(path=str(tmp_path), channel_pattern=wrong).open("train")
    (tmp_path / "w0-ch0.tif").write_bytes((tmp_path / "w0_ch0.tif").read_bytes())
    source = TiffFolder(path=str(tmp_path), channel_pattern="ch{number}", channel_names=("ch0", "ch1", "ch2"))
    errors = []
    for split in ("train", "val"):
        dataset = source.open(split)
        for number in range(len(dataset)):
            try:
                dataset[number]
            except DataError as error:
                errors.append(str(error))
    assert len(errors) == 1
    assert "Two files are the same channel" in errors[0]


def test_the_last_place_counts_and_letters_behind_it_do_not() -> None:
    assert ChannelPattern("_{channel}").parts("a/f_1_DAPI.tif") == ("a/f_1.tif", "DAPI")
    assert ChannelPattern("_c{number}").parts("a_c1_c2.tif") == ("a_c1.tif", "2")
    assert ChannelPattern("_c{number}").parts("a_c1x.tif") is None
    assert ChannelPattern("{channel}").parts("DAPI.tif") == ("field.tif", "DAPI")
    assert guess([f"{number}.tif" for number in range(20)]) is None
    assert guess([]) is None
