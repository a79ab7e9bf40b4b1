from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from maskedmodel.cli import plugin_verbs
from maskedmodel.cli.app import run_cli

MODULE = "maskedmodel_added"


def shout(word: str) -> None:
    """Say it louder."""
    print(word.upper())


def point(name: str, value: str = f"{MODULE}:shout") -> EntryPoint:
    return EntryPoint(name=name, value=value, group=plugin_verbs.GROUP)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def installed(*points: EntryPoint, imports: bool = True) -> None:
        plugins = [EntryPoint(name="added", value=MODULE, group="maskedmodel")]
        found = {plugin_verbs.GROUP: list(points), "maskedmodel": plugins}
        monkeypatch.setattr(plugin_verbs, "installed", lambda group: (found[group], []))
        if imports:
            monkeypatch.setitem(sys.modules, MODULE, sys.modules[__name__])

    return installed


def test_a_verb_runs_with_its_arguments_and_help(install: Any, capsys: pytest.CaptureFixture[str]) -> None:
    install(point("shout"))
    assert run_cli(["shout", "quiet"]) == 0
    assert capsys.readouterr().out == "QUIET\n"
    assert run_cli(["shout", "--help"]) == 0
    assert "Say it louder." in capsys.readouterr().out


def test_help_lists_a_verb_without_importing_it(install: Any, capsys: pytest.CaptureFixture[str]) -> None:
    install(point("shout", "maskedmodel_absent:shout"), imports=False)
    assert run_cli(["--help"]) == 0
    assert "shout" in capsys.readouterr().out
    assert run_cli(["shout", "x"]) == 2
    assert "maskedmodel_absent:shout" in capsys.readouterr().err


def test_a_verb_of_our_own_is_not_replaced(install: Any, capsys: pytest.CaptureFixture[str]) -> None:
    install(point("doctor"), point("plugins"))
    assert run_cli(["doctor", "--help"]) == 0
    assert "Look at the machine" in capsys.readouterr().out


def test_two_owners_of_a_verb_are_an_error(install: Any, capsys: pytest.CaptureFixture[str]) -> None:
    install(point("shout"), point("shout", "maskedmodel_other:shout"))
    assert run_cli(["shout", "x"]) == 2
    error = capsys.readouterr().err
    assert "Two plugins own the verb 'shout'" in error
    assert "maskedmodel_other:shout" in error


@pytest.mark.parametrize(
    ("variable", "names"), [("MASKEDMODEL_BLOCK_PLUGINS", "added"), ("MASKEDMODEL_PLUGINS", "image")]
)
def test_block_and_allow_lists_hold_for_verbs(
    install: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, names: str
) -> None:
    install(point("shout"))
    monkeypatch.setenv(variable, names)
    assert run_cli(["shout", "x"]) == 2
    assert "No such command" in capsys.readouterr().err
