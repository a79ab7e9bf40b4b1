"""An exception that nobody foresaw is told with the component of a plugin that it came through."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from maskedmodel import GridTokenizer, Settings
from maskedmodel.cli.blame import blamed
from maskedmodel.cli.ending import report
from maskedmodel.errors import ShapeError


class CrackedSettings(Settings):
    name: Literal["cracked"] = "cracked"
    channels: int = 1
    length: int = 8
    patch: int = 4


class Cracked(GridTokenizer[CrackedSettings]):
    axes = ("time",)

    def prepare(self, signal: torch.Tensor) -> torch.Tensor:
        return {}["gain"] * signal  # type: ignore[no-any-return]


def raised(call: Any) -> Exception:
    with pytest.raises(Exception) as info:  # noqa: PT011 - whatever comes
        call()
    return info.value


def test_the_component_its_method_and_its_line_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(lambda: Cracked().prepare(torch.zeros(1, 1, 8)))
    assert report(error) == 2
    told = capsys.readouterr().err
    line = Cracked.prepare.__code__.co_firstlineno + 1
    assert told.startswith("Error: The tokenizer 'cracked' failed in prepare: KeyError: 'gain'")
    assert f"{__file__}:{line}" in told
    assert "maskedmodel plugins check cracked" in told


def test_a_fault_in_what_a_component_inherits_is_not_laid_at_its_door() -> None:
    error = raised(lambda: Cracked().tokenize(None))  # type: ignore[arg-type]
    assert isinstance(error, ShapeError) or blamed(error) is None


def test_without_a_component_on_the_way_nobody_is_blamed(capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(lambda: {}["a"])
    assert blamed(error) is None
    assert report(error) == 1
    assert capsys.readouterr().err.startswith("Failed: KeyError: 'a'")
