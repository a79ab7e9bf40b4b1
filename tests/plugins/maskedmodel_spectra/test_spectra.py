"""Cubes of other bands at the wavelengths that are asked for, and a model that knows bands by these."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maskedmodel_masks.uniform import Uniform
from maskedmodel_objectives.patch import Patch
from maskedmodel_spectra.bands import wanted_bands
from maskedmodel_spectra.cubes import Cubes
from maskedmodel_spectra.tokenizer import SpectralTokenizer
from pydantic import ValidationError
from scipy.io import savemat

from maskedmodel import MaskedAutoencoder
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import DataError
from maskedmodel.noise import seeded
from maskedmodel.testing import parametrize_checks


@parametrize_checks(
    [SpectralTokenizer(size=8, patch=4), SpectralTokenizer(wavelengths=(500, 600), size=12, patch=4), Cubes]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def model_of(*wavelengths: float) -> MaskedAutoencoder:
    settings = ModelSettings(
        encoder=EncoderSettings(dim=24, depth=1, heads=2), decoder=DecoderSettings(dim=16, depth=1, heads=2)
    )
    with seeded(0):
        own = SpectralTokenizer(wavelengths=wavelengths, size=8, patch=4)
        return MaskedAutoencoder(own, Uniform(ratio=0.5), Patch(), settings)


def test_weights_fit_other_bands_and_a_band_is_its_wavelength() -> None:
    model, fewer = model_of(450, 550, 650, 850), model_of(550, 850)
    fewer.load_state_dict(model.state_dict())
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:, [0, 2]] = torch.nan
    torch.testing.assert_close(fewer.embed(x[:, [1, 3]]), model.embed(x), rtol=1e-5, atol=1e-6)
    near, far = model_of(551, 850), model_of(700, 850)
    for other in (near, far):
        other.load_state_dict(model.state_dict())
    some = x[:, [1, 3]]
    moved = [float((other.embed(some) - fewer.embed(some)).detach().abs().max()) for other in (near, far)]
    assert 0 < 10 * moved[0] < moved[1]


def test_a_wavelength_lies_on_the_line_between_a_cubes_own() -> None:
    values = np.array([1.0, 3.0, 7.0], dtype=np.float32)[:, None, None] * np.ones((3, 2, 2), dtype=np.float32)
    found = wanted_bands(values, np.array([400.0, 500.0, 700.0]), (400, 425, 500, 600, 700, 701, 399))
    assert found[:5, 0, 0].tolist() == [1, 1.5, 3, 5, 7]
    assert np.isnan(found[5:]).all()


WAVES = np.array([700.0, 400.0, 500.0])  # a cube's bands in any order


def cube() -> np.ndarray[Any, Any]:
    """(9, 8, 3): at each wavelength a hundredth of it, and the place."""
    rows, columns = np.meshgrid(np.arange(9), np.arange(8), indexing="ij")
    return WAVES / 100 + (10 * rows + columns)[..., None]


def write(folder: Path, form: str) -> dict[str, Any]:
    for number in range(3):
        place = folder / f"kind{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        if form == "mat":
            savemat(place / f"{number}.mat", {"scene": cube(), "wavelengths": WAVES, "about": "a scene"})
            continue
        np.save(place / f"{number}.npy", cube().transpose(2, 0, 1) if form == "CHW" else cube())
        if form == "own file":
            (place / f"{number}.wavelengths.txt").write_text("700\n400\n500\n")
        if form == "folder's file":
            (place / "wavelengths.txt").write_text("700, 400, 500")
    more = {"own": tuple(WAVES)} if form in ("CHW", "setting") else {}
    return {"path": str(folder), "layout": "CHW" if form == "CHW" else "HWC", **more}


@pytest.mark.parametrize("form", ["mat", "own file", "folder's file", "setting", "CHW"])
def test_cubes_of_every_form_give_the_same(form: str, tmp_path: Path) -> None:
    settings = write(tmp_path, form)
    source = Cubes(**settings, wavelengths=(450, 700, 900), window=4, val_share=0.1)
    every = {
        str(s["id"]).split(".")[0][-1] + str(s["id"]).split("@")[1]: s
        for split in ("train", "val")
        for s in map(source.open(split).__getitem__, range(len(source.open(split))))
    }
    assert len(every) == 3 * 4  # 9 x 8 pixels: 2 x 2 windows, a row is left over
    sample = every["14,4"]
    expected = (
        torch.tensor([4.5, 7.0])[:, None, None]
        + torch.from_numpy(10 * np.arange(4, 8)[:, None] + np.arange(4, 8)).float()
    )
    torch.testing.assert_close(sample["signal"][:2], expected)
    assert sample["signal"][2].isnan().all()
    assert sample["label"] == 1
    told = [f"{'! ' if fact.notice else ''}{fact.text}" for fact in source.facts()]
    assert "! 900 nm is beyond the bands of 3 of 3 cubes, where it is absent" in told


def test_an_archive_gives_what_its_folder_gives(tmp_path: Path) -> None:
    write(tmp_path / "folder", "own file")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "folder")
    found = [
        Cubes(path=str(tmp_path / name), window=4, val_share=0.1).open("train")[0] for name in ("folder", "packed.zip")
    ]
    assert found[0]["id"] == found[1]["id"]
    assert torch.equal(found[0]["signal"].nan_to_num(9), found[1]["signal"].nan_to_num(9))


def refused(folder: Path, **settings: Any) -> str:
    source = Cubes(**{"path": str(folder), "window": 4, "val_share": 0.1, **settings})
    with pytest.raises(DataError) as error:
        _ = source.open("train")[0]
    return str(error.value)


def test_what_nobody_says_is_refused_with_the_setting(tmp_path: Path) -> None:
    write(tmp_path / "bare", "none")
    text = refused(tmp_path / "bare")
    assert "Nothing says which wavelengths" in text
    assert "wavelengths.txt" in text
    assert "data.own" in text
    assert "don't fit its bands" in refused(tmp_path / "bare", own=(400, 500))
    for number in range(3):
        savemat(tmp_path / f"{number}.mat", {"one": cube(), "two": cube()})
    assert "Which variable is the cube?" in refused(tmp_path)
    assert "one (9, 8, 3), two (9, 8, 3)" in refused(tmp_path, key="three")
    assert "variable 'wavelengths' in it" in refused(tmp_path, key="one")


def test_pickles_and_damaged_files_are_refused(tmp_path: Path) -> None:
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "never loaded" in refused(tmp_path, own=(400,))
    for number in range(3):
        (tmp_path / f"{number}.npy").unlink()
        (tmp_path / f"{number}.mat").write_bytes(b"MATLAB 7.3 MAT-file" + bytes(200))
    assert "can't be read" in refused(tmp_path, own=(400,))
    for number in range(3):
        (tmp_path / f"{number}.mat").unlink()
        np.save(tmp_path / f"{number}.npy", np.zeros((4, 4)))
    assert "no cube" in refused(tmp_path, own=(400,))


def test_wavelengths_rise() -> None:
    for wrong in ((500, 400), (500, 500), (0, 500), ()):
        with pytest.raises(ValidationError):
            SpectralTokenizer(wavelengths=wrong)
