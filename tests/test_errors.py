"""The near name, and what to install."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from maskedmodel import errors
from maskedmodel.errors import install_hint, nearest, suggestion

ROOT = Path(errors.__file__).parents[1]
NAMES = ["image", "tones", "image_folder", "learning_rate", "batch", "csv", "Ecg"]

NEAR = {
    "imge": "image",
    "tone": "tones",
    "batch_size": "batch",
    "folder": "image_folder",
    "rate": "learning_rate",
    "cvs": "csv",
    "ECG": "Ecg",
    "nonexist": None,
    "spectrogram": None,
    "": None,
    "__": None,
}


@pytest.mark.parametrize("name", NEAR)
def test_a_near_name_is_one_or_two_slips_away_or_shares_its_words(name: str) -> None:
    assert nearest(name, NAMES) == NEAR[name]


def test_without_a_near_name_all_are_listed() -> None:
    assert suggestion("nonexist", ["tones", "csv"]) == "Known: csv, tones."


def test_in_a_checkout_an_extra_is_installed_there() -> None:
    hint = install_hint(extra="audio")
    assert hint == f'In {ROOT} run: uv sync --extra audio, or: pip install -e ".[audio]".'


def test_elsewhere_the_packages_of_the_extra_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "maskedmodel" / "errors.py"))
    hint = install_hint(extra="audio")
    wanted = r'"soundfile[<>=.,\d]+" "torchaudio[<>=.,\d]+"'
    reverse = r'"torchaudio[<>=.,\d]+" "soundfile[<>=.,\d]+"'
    assert re.fullmatch(rf"Run: uv pip install ({wanted}|{reverse}), or: pip install ({wanted}|{reverse})\.", hint)
    assert install_hint("imagecodecs") == "Run: uv pip install imagecodecs, or: pip install imagecodecs."


def test_no_message_asks_for_what_no_index_has() -> None:
    for folder in ("maskedmodel", "plugins", "configs", "examples"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".txt"):
                text = path.read_text(encoding="utf-8")
                assert not re.search(r"install [\"']?maskedmodel\b", text), f"{path}: maskedmodel is on no index"
