"""Recordings: leads by name, units, rates, windows, labels, what is refused and what is told."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest
import torch
import wfdb
from maskedmodel_signals.cutting import cut
from maskedmodel_signals.edf import Edf
from maskedmodel_signals.montage import LeadSettings
from maskedmodel_signals.recorded import Header
from maskedmodel_signals.records import Records
from maskedmodel_signals.wfdb import Wfdb
from scipy.signal import resample_poly

from maskedmodel.commands.health import doctor
from maskedmodel.errors import ConfigError, DataError

Array = np.ndarray[Any, Any]


def wave(seconds: float, rate: float, turns: float = 3.0) -> Array:
    """Microvolts."""
    return 50 * np.sin(2 * np.pi * turns * np.arange(round(seconds * rate)) / rate)


def write_edf(
    path: Path,
    signals: dict[str, tuple[float, Array]],
    unit: str = "uV",
    notes: Sequence[tuple[float, float | None, str]] = (),
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        edfio.EdfSignal(values, rate, label=label, physical_dimension=unit) for label, (rate, values) in signals.items()
    ]
    edfio.Edf(parts, annotations=[edfio.EdfAnnotation(*note) for note in notes] or None).write(path)
    return path


def montages(folder: Path) -> Path:
    """Ten files of two montages, in two classes."""
    for number in range(10):
        names = ("EEG Fp1-REF", "EEG Cz-REF", "EOG") if number % 2 else ("Cz", "O2")
        turns = {"Cz": 3, "EEG Cz-REF": 3, "EEG Fp1-REF": 5, "O2": 7, "EOG": 1}
        signals = {name: (100.0, wave(7, 100, turns[name])) for name in names}
        write_edf(folder / f"class{number % 2}" / f"{number}.edf", signals)
    return folder


LEADS = ("Fp1", "Cz", "O2")


def said(source: Records[Any]) -> str:
    return "\n".join(f"{'! ' if fact.notice else ''}{fact.about}: {fact.text}" for fact in source.facts())


def test_files_of_different_montages_share_the_leads(tmp_path: Path) -> None:
    source = Edf(path=str(montages(tmp_path)), leads=LEADS, length=200, val_share=0.3)
    for split in ("train", "val"):
        dataset = source.open(split)
        for index in range(len(dataset)):
            sample = dataset[index]
            odd = int(str(sample["id"]).split("/")[1][0]) % 2
            assert sample["signal"].isnan().all(1).tolist() == ([False, False, True] if odd else [True, False, False])
            assert sample["label"] == odd
            assert sample["group"] == str(sample["id"]).split("@")[0]
            first = int(str(sample["id"]).split("@")[1])
            expected = torch.from_numpy(wave(7, 100)[first : first + 200] / 1000).float()  # millivolts
            torch.testing.assert_close(sample["signal"][1], expected, rtol=0, atol=2e-6)
    assert {index["id"] for index in map(source.open("train").__getitem__, range(3))} == {
        f"{str(source.open('train')[0]['id']).split('@')[0]}@{first}" for first in (0, 200, 400)
    }
    told = said(source)
    assert "leads: of 10 recordings: Fp1 5, Cz 10, O2 5" in told
    assert "! leads: no leads, left out: EOG 5" in told
    assert "! duration: 10 s after the last whole windows are left out" in told
    assert source.class_names() == ["class0", "class1"]


def test_windows_are_those_of_the_whole_record_resampled() -> None:
    """250 and 360 to 100 samples per second, in the middle and at both ends, one signal beside the other."""
    draw = np.random.default_rng(0)
    rates, seconds = (250.0, 360.0, 100.0, 50.0), 20.0
    records = [draw.normal(size=round(seconds * rate)) for rate in rates]

    class Leads(LeadSettings):
        name: str = "any"

    settings = Leads(leads=("I", "II", "V1", "V2"))
    header = Header(("a", "b", "c", "d"), rates, ("mV",) * 4, seconds)
    whole = np.stack(
        [
            resample_poly(v, u, d, padtype="edge")
            for v, (u, d) in zip(records, ((2, 5), (5, 18), (1, 1), (2, 1)), strict=True)
        ]
    )
    for first, length in ((0, 300), (517, 300), (1700, 300), (1901, 200)):
        found = cut(lambda p, a, b: records[p][a:b], header, {0: 0, 1: 1, 2: 2, 3: 3}, settings, first, length)
        expected = torch.from_numpy(whole[:, first : first + length]).float()
        there = expected.shape[1]
        torch.testing.assert_close(found[:, :there], expected, rtol=0, atol=1e-5)
        assert found[:, there:].isnan().all()


def test_gaps_stay_gaps_and_spoil_nothing_else() -> None:
    class Leads(LeadSettings):
        name: str = "any"

    values = np.sin(np.arange(2000) / 40)
    holed = values.copy()
    holed[600:800] = np.nan
    header = Header(("a",), (200.0,), ("V",), 10.0)
    found = cut(lambda p, a, b: holed[a:b], header, {0: 0}, Leads(leads=("I",)), 0, 1000)[0]
    assert found.isnan().nonzero()[:, 0].tolist() == list(range(300, 400))
    clean = cut(lambda p, a, b: values[a:b], header, {0: 0}, Leads(leads=("I",)), 0, 1000)[0]
    far = torch.cat([torch.arange(280), torch.arange(420, 1000)])
    torch.testing.assert_close(found[far], clean[far], rtol=0, atol=1e-2)


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1.0), ("mV", 1e-3), ("V", 1e-6), ("", 1.0)])
def test_units_become_millivolts(tmp_path: Path, unit: str, factor: float) -> None:
    for number in range(2):
        write_edf(tmp_path / f"{number}.edf", {"Cz": (100.0, wave(3, 100) * factor)}, unit)
    source = Edf(path=str(tmp_path), leads="Cz", length=100, val_share=0.5)
    peak = float(source.open("train")[0]["signal"].abs().max())
    assert peak == pytest.approx(50 if unit == "" else 0.05, rel=0.01)
    assert ("! units: no volts, values as they are: without a name 2" in said(source)) == (unit == "")


def test_annotations_that_last_are_labels_where_asked_for(tmp_path: Path) -> None:
    notes = [(0.0, 3.0, "wake"), (3.0, 4.0, "sleep"), (5.5, None, "spindle")]
    for number in range(4):
        write_edf(tmp_path / f"{number}.edf", {"Cz": (100.0, wave(9, 100))}, notes=notes)
    plain = Edf(path=str(tmp_path), leads="Cz", length=100, val_share=0.5)
    assert "label" not in plain.open("train")[0]
    assert "annotations: sleep 4, wake 4; not read (data.annotated" in said(plain)
    source = Edf(path=str(tmp_path), leads="Cz", length=100, stride=50, val_share=0.5, annotated=("sleep", "wake"))
    dataset = source.open("train")
    labels = {str(s["id"]).split("@")[1]: s.get("label") for s in map(dataset.__getitem__, range(17))}
    assert source.class_names() == ["sleep", "wake"]
    assert [labels[str(first)] for first in range(0, 900, 50) if str(first) in labels] == [
        *([1] * 5),  # 0 to 2 s, so that a window ends by 3 s
        None,  # it begins in one and ends in the other
        *([0] * 7),
        *([None] * 4),
    ]
    unknown = Edf(path=str(tmp_path), leads="Cz", length=100, val_share=0.5, annotated=("sleep", "wakke"))
    assert "! annotations: sleep 4, wake 4; in no recording: wakke" in said(unknown)


def test_a_file_without_the_leads_is_one_broken_sample(tmp_path: Path) -> None:
    montages(tmp_path)
    write_edf(tmp_path / "class0" / "other.edf", {"EMG": (100.0, wave(7, 100))})
    (tmp_path / "class1" / "damaged.edf").write_bytes(b"0       no more than this")
    source = Edf(path=str(tmp_path), leads=LEADS, length=200, val_share=0.3)
    told, broken = said(source), []
    assert "! recordings: 2 of 12 can't be used" in told
    for split in ("train", "val"):
        dataset = source.open(split)
        for index in range(len(dataset)):
            try:
                _ = dataset[index]
            except DataError as error:
                broken.append(str(error))
    assert len(broken) == 2
    assert any("none of the leads" in text and "Fp1, Cz, O2" in text and "EMG" in text for text in broken)
    assert any("no whole EDF or BDF file" in text and "damaged.edf" in text for text in broken)


def test_two_signals_of_one_lead_are_asked_about(tmp_path: Path) -> None:
    for number in range(2):
        write_edf(tmp_path / f"{number}.edf", {"T3": (100.0, wave(3, 100)), "EEG T7-REF": (100.0, wave(3, 100, 9))})
    with pytest.raises(DataError, match="are the lead T7"):
        _ = Edf(path=str(tmp_path), leads="T7", length=100, val_share=0.5).open("train")[0]
    one = Edf(path=str(tmp_path), leads="T7", length=100, val_share=0.5, aliases={"T3": "none"})
    expected = torch.from_numpy(wave(3, 100, 9)[:100] / 1000).float()
    torch.testing.assert_close(one.open("train")[0]["signal"][0], expected, rtol=0, atol=2e-6)


def test_files_that_are_not_whole_are_refused_unless_asked_for(tmp_path: Path) -> None:
    for number in range(2):
        path = write_edf(tmp_path / f"{number}.edf", {"Cz": (100.0, wave(9, 100))}, notes=[(0.0, None, "start")])
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match="isn't as long as its header says"):
        _ = Edf(path=str(tmp_path), leads="Cz", length=100, val_share=0.5).open("train")[0]
    read = Edf(path=str(tmp_path), leads="Cz", length=100, val_share=0.5, incomplete="read")
    assert 3 <= len(read.open("train")) <= 6
    for path in tmp_path.glob("*.edf"):
        path.write_bytes(path.read_bytes().replace(b"+3\x14\x14", b"+7\x14\x14"))  # the fourth second comes later
    with pytest.raises(DataError, match="has gaps"):
        _ = Edf(path=str(tmp_path), leads="Cz", length=100, val_share=0.5, incomplete="read").open("train")[0]
    joined = Edf(path=str(tmp_path), leads="Cz", length=100, val_share=0.5, incomplete="read", interrupted="join")
    assert joined.open("train")[0]["signal"].shape == (1, 100)


def test_an_archive_gives_what_its_folder_gives(tmp_path: Path) -> None:
    folder = montages(tmp_path / "folder")
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    settings: dict[str, Any] = {"leads": LEADS, "length": 200, "val_share": 0.3}
    one = Edf(path=str(folder), **settings).open("train")
    other = Edf(path=str(tmp_path / "packed.zip"), **settings).open("train")
    assert len(one) == len(other)
    for index in range(len(one)):
        assert one[index]["id"] == other[index]["id"]
        assert torch.equal(one[index]["signal"].nan_to_num(9), other[index]["signal"].nan_to_num(9))


def test_bdf_is_read(tmp_path: Path) -> None:
    for number in range(2):
        signal = edfio.BdfSignal(wave(4, 128), 128, label="Cz", physical_dimension="uV")
        edfio.Bdf([signal]).write(tmp_path / f"{number}.bdf")
    sample = Edf(path=str(tmp_path), leads="Cz", length=128, rate=128, val_share=0.5).open("train")[0]
    torch.testing.assert_close(
        sample["signal"][0], torch.from_numpy(wave(4, 128)[:128] / 1000).float(), rtol=0, atol=1e-7
    )


def write_wfdb(folder: Path, name: str, rate: float = 360, **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    values = np.stack([wave(8, rate, 3), wave(8, rate, 5)], 1) / 1000
    wfdb.wrsamp(name, rate, ["mV", "mV"], ["MLII", "V5"], values, fmt=["16", "16"], write_dir=str(folder), **more)
    wfdb.wrann(
        name,
        "atr",
        np.array([5, 100, 1500, 2000]),
        symbol=["+", "N", "+", "N"],
        aux_note=["(N", "", "(AFIB", ""],
        write_dir=str(folder),
        fs=rate,
    )


def test_wfdb_records(tmp_path: Path) -> None:
    for number in range(4):
        write_wfdb(tmp_path, f"r{number}")
    (tmp_path / "notes.txt").write_text("nothing")
    settings: dict[str, Any] = {"path": str(tmp_path), "leads": ("II", "V1", "V5"), "length": 100, "val_share": 0.5}
    source = Wfdb(**settings, aliases={"MLII": "II"}, annotated=("(N", "(AFIB"))
    dataset = source.open("train")
    sample = dataset[2]
    assert str(sample["id"]).endswith(".hea@200")
    assert sample["signal"].isnan().all(1).tolist() == [False, True, False]
    time = 2 + torch.arange(100) / 100
    for lead, turns in ((0, 3), (2, 5)):
        expected = 0.05 * torch.sin(2 * torch.pi * turns * time)
        torch.testing.assert_close(sample["signal"][lead], expected, rtol=0, atol=1e-3)
    # The second rhythm begins at 1500 / 360 = 4.17 s, so that the window from 4 s is of neither.
    assert [dataset[index].get("label") for index in range(8)] == [None, 0, 0, 0, None, 1, 1, 1]
    told = said(source)
    assert "rate: 8 at 360 Hz, read at 100 Hz" in told
    assert "annotations: (AFIB 4, (N 4" in told
    bare = Wfdb(**settings)
    assert bare.open("train")[0]["signal"].isnan().all(1).tolist() == [True, True, False]
    assert "! leads: no leads, left out: MLII 4" in said(bare)


def test_signals_of_other_rates_in_one_wfdb_record(tmp_path: Path) -> None:
    for number in range(2):
        fast, slow = wave(8, 200, 3) / 1000, wave(8, 100, 5) / 1000
        wfdb.wrsamp(
            f"r{number}",
            100,
            ["mV", "mV"],
            ["II", "V5"],
            e_p_signal=[fast, slow],
            samps_per_frame=[2, 1],
            fmt=["16", "16"],
            write_dir=str(tmp_path),
        )
    source = Wfdb(path=str(tmp_path), leads=("II", "V5"), length=150, val_share=0.5)
    signal = source.open("train")[2]["signal"]
    time = 3 + torch.arange(150) / 100
    for lead, turns in ((0, 3), (1, 5)):
        torch.testing.assert_close(
            signal[lead], 0.05 * torch.sin(2 * torch.pi * turns * time).float(), rtol=0, atol=1e-3
        )


def test_wfdb_archives_and_damaged_headers_are_refused(tmp_path: Path) -> None:
    for number in range(2):
        write_wfdb(tmp_path / "folder", f"r{number}")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "folder")
    packed = Wfdb(path=str(tmp_path / "packed.zip"), leads="V5", length=100, val_share=0.5)
    with pytest.raises(DataError, match="in folders only"):
        _ = packed.open("train")[0]
    for name in ("one", "two"):
        (tmp_path / "segments").mkdir(exist_ok=True)
        (tmp_path / "segments" / f"{name}.hea").write_text(f"{name}/2 2 360 1000\nr0 500\nr1 500\n")
    with pytest.raises(DataError, match="several segments"):
        _ = Wfdb(path=str(tmp_path / "segments"), leads="V5", length=100, val_share=0.5).open("train")[0]
    for path in (tmp_path / "folder").glob("*.hea"):
        path.write_text("r0 two 360\n")
    with pytest.raises(DataError, match="no whole WFDB record"):
        _ = Wfdb(path=str(tmp_path / "folder"), leads="V5", length=100, val_share=0.5).open("train")[0]


def test_recordings_shorter_than_a_window_are_told(tmp_path: Path) -> None:
    for number in range(4):
        write_edf(tmp_path / f"{number}.edf", {"Cz": (100.0, wave(3, 100))})
    source = Edf(path=str(tmp_path), leads="Cz", length=1000, val_share=0.5)
    assert "! duration: 4 of 4 are shorter than a window: left out" in said(source)
    with pytest.raises(DataError, match="as long as a window"):
        source.open("train")


def test_doctor_tells_everything_of_a_subject(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"leads": ["Fp1", "Cz", "O2"], "length": 200}
    config: dict[str, Any] = {
        "data": {"name": "edf", "path": str(montages(tmp_path)), "val_share": 0.3, **settings},
        "tokenizer": {"name": "signals", "patch": 50, **settings},
        "model": {"encoder": {"dim": 8, "depth": 1, "heads": 1}, "decoder": {"dim": 8, "depth": 1, "heads": 1}},
        "train": {"batch": 4, "precision": "fp32", "device": "cpu"},
    }
    told = doctor(config)["data"]["leads"]
    assert told == "of 10 recordings: Fp1 5, Cz 10, O2 5; no leads, left out: EOG 5"
    with pytest.raises(ConfigError, match=r"tokenizer's is \[Fp1, Cz, O2\]"):
        doctor({**config, "data": {**config["data"], "leads": ["Fp1", "O2"]}})
