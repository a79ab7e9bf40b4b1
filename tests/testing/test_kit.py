"""How the kit is run: pytest's parametrize, results by name, examples of settings, heavy imports."""

from __future__ import annotations

import contextlib
import itertools
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

import broken  # type: ignore[import-not-found]
import broken_contracts  # type: ignore[import-not-found]
import pytest
import torch
from pydantic import Field

from maskedmodel import DataSource, Settings
from maskedmodel.errors import PluginError
from maskedmodel.plugins import load_registry
from maskedmodel.testing import (
    CheckFailed,
    NotApplicable,
    built,
    checks_of,
    components,
    parametrize_checks,
    run_check,
    run_checks,
    signals,
    sources,
    tokenizers,
)

_serial = itertools.count()


def cases(*args: Any, **options: Any) -> dict[str, Any]:
    """The parameters of the decorator by id."""
    return {parameter.id: parameter for parameter in parametrize_checks(*args, **options).mark.args[1]}


def test_ids_name_component_and_check() -> None:
    found = cases([broken.Line, broken.Line(length=8)])
    assert "Line-check_round_trip" in found
    assert "Line(length=8)-check_round_trip" in found
    assert len(found) == 2 * len(checks_of(broken.Line))


def test_one_component_needs_no_list() -> None:
    assert list(cases(broken.Line)) == list(cases([broken.Line]))


def test_a_case_passes_fails_or_is_skipped_with_a_reason() -> None:
    cases(broken.Line)["Line-check_round_trip"].values[0]()
    with pytest.raises(CheckFailed, match=r"detokenize\(tokenize\(x\)\) isn't x"):
        cases(broken.Lossy)["Lossy-check_round_trip"].values[0]()
    with pytest.raises(pytest.skip.Exception, match=r"tokenizer 'line' .*: the example batch has no padding"):
        cases(broken.Line)["Line-check_padding"].values[0]()


def test_an_instance_is_checked_with_its_own_settings() -> None:
    with built(broken.Line(length=8)) as fresh:
        assert fresh.settings.length == 8


def test_an_expected_failure_is_marked_strictly_with_its_reason() -> None:
    found = cases(broken.Lossy, expected_failures={"check_round_trip": "rounds on purpose"})
    (mark,) = found["Lossy-check_round_trip"].marks
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "rounds on purpose", "strict": True})
    assert not found["Lossy-check_partition"].marks


def test_an_expected_failure_of_no_check_is_refused() -> None:
    with pytest.raises(ValueError, match=r"check_round_trap.*Did you mean 'check_round_trip'"):
        parametrize_checks(broken.Lossy, expected_failures={"check_round_trap": "typo"})


def test_something_else_than_a_component_is_refused() -> None:
    with pytest.raises(TypeError, match="int is no component"):
        parametrize_checks(int)  # type: ignore[arg-type]


def test_an_error_inside_a_component_is_reported_as_a_failure() -> None:
    class Crashes(broken.Line):
        def detokenize(self, values: torch.Tensor, like: Any) -> torch.Tensor:
            raise KeyError("grid")

    with pytest.raises(CheckFailed, match="KeyError: 'grid'"):
        run_check(tokenizers.check_round_trip, Crashes)


@parametrize_checks([broken.Line(length=8), broken.Half, broken.Square, broken.Counted])
def test_conformance_of_what_is_good(check: Any) -> None:
    check()


def registry_of(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, point: str = "lines") -> Any:
    """The registry of one plugin, installed as the distribution `dist-<point>`."""
    module = f"kit_plugin_{next(_serial)}"
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"dist_{point}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{point}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[maskedmodel]\n{point} = {module}\n")
    monkeypatch.syspath_prepend(str(folder))
    return load_registry(allow=[point])


TWO = """
    from typing import Literal
    from maskedmodel import Objective, Settings, hookimpl
    import broken

    class OtherSettings(broken.SquareSettings):
        name: Literal["other"] = "other"

    class Other(broken.NeverZero):
        settings_class = OtherSettings

    @hookimpl
    def maskedmodel_objectives():
        return [broken.Square, Other]
"""


def test_results_of_a_component_a_plugin_or_a_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(tmp_path, monkeypatch, TWO)
    seen: list[Any] = []
    component = run_checks(registry, "other", seen.append)
    assert seen == component
    assert {result.component for result in component} == {"other"}
    assert [result.check for result in component if result.status == "failed"] == ["check_zero_at_target"]
    assert {result.status for result in component} == {"passed", "failed", "not applicable"}
    assert all(result.message for result in component if result.status != "passed")
    plugin = run_checks(registry, "lines")
    assert {(result.kind, result.component) for result in plugin} == {
        ("plugin", "lines"),
        ("objective", "square"),
        ("objective", "other"),
    }
    assert run_checks(registry, "dist-lines") == plugin


def test_a_name_nothing_answers_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(tmp_path, monkeypatch, TWO)
    with pytest.raises(PluginError, match=r"nothing named 'squares'.*\n.*Did you mean 'square'"):
        run_checks(registry, "squares")


def test_a_plugin_that_does_not_load_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(tmp_path, monkeypatch, "import a_module_that_is_not_there")
    (result,) = run_checks(registry, "lines")
    assert (result.kind, result.check, result.status) == ("plugin", "check_loads", "failed")
    assert "a_module_that_is_not_there" in result.message


def test_a_heavy_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(
        tmp_path,
        monkeypatch,
        """
        import PIL.Image
        from typing import Literal
        from maskedmodel import Settings, hookimpl
        import broken

        class HeavySettings(broken.SquareSettings):
            name: Literal["heavy"] = "heavy"

        class Heavy(broken.Square):
            settings_class = HeavySettings

        @hookimpl
        def maskedmodel_objectives():
            return [Heavy]
        """,
    )
    with pytest.raises(CheckFailed, match=r"imports heavy packages(.|\n)*got: PIL"):
        run_check(components.check_import_light, registry.objectives["heavy"])


def test_a_script_has_no_module_to_import() -> None:
    here = type("Here", (broken.Square,), {"__module__": "__main__"})
    with pytest.raises(NotApplicable, match="script"):
        run_check(components.check_import_light, here)


class StoredSettings(Settings):
    name: Literal["stored"] = "stored"
    path: Path = Field(description="A folder of samples.")


class Stored(DataSource[StoredSettings]):
    """Reads numbers from files."""

    def open(self, split: Any) -> Any:
        return [
            {"signal": torch.tensor([[float(file.read_text())]]), "id": file.stem}
            for file in sorted((self.settings.path / split).iterdir())
        ]


class StoredWithExample(Stored):
    @classmethod
    def example_settings(cls, folder: Path) -> StoredSettings:
        for split, values in (("train", (1, 2)), ("val", (3,))):
            (folder / split).mkdir()
            for value in values:
                (folder / split / f"{value}.txt").write_text(str(value))
        return StoredSettings(path=folder)


def test_required_settings_without_an_example_are_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="settings need path, and it has no example_settings"):
        run_check(sources.check_ids, Stored)
    run_check(components.check_settings_documented, Stored)


def test_example_settings_make_their_own_files() -> None:
    with built(StoredWithExample) as source:
        folder = source.settings.path
        assert [sample["id"] for sample in source.open("train")] == ["1", "2"]
    assert not folder.exists(), "the kit's folder is removed"
    for check in checks_of(StoredWithExample):
        if check not in (sources.check_labels, components.check_import_light):
            run_check(check, StoredWithExample)


def test_a_name_with_two_owners_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry_of(tmp_path, monkeypatch, TWO)
    rival = type("Rival", (broken.Square,), {})
    with pytest.raises(CheckFailed, match=r"another objective has this name(.|\n)*got: broken\.Square"):
        run_check(components.check_name, rival)


def test_entry_points_given_by_hand_can_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "kit_by_hand.py").write_text(textwrap.dedent(TWO))
    registry = load_registry(entry_points=[EntryPoint("hand", "kit_by_hand", "maskedmodel")])
    assert {result.component for result in run_checks(registry, "hand")} == {"hand", "square", "other"}


COMPANIONS = """
    from typing import Literal
    from maskedmodel import hookimpl
    from broken_contracts import Letters, WhichLetter, WhichLetterSettings

    class OwnSettings(WhichLetterSettings):
        name: Literal["own_letters"] = "own_letters"

    class Own(WhichLetter):
        settings_class = OwnSettings
        example_tokenizer = None

    @hookimpl
    def maskedmodel_tokenizers():
        return [Letters]

    @hookimpl
    def maskedmodel_objectives():
        return [Own]
"""


def test_an_objective_is_checked_with_the_tokenizers_of_its_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = registry_of(tmp_path, monkeypatch, COMPANIONS)
    results = {result.check: result for result in run_checks(registry, "own_letters")}
    assert [str(result) for result in results.values() if result.status == "failed"] == []
    assert results["check_width"].status == results["check_overfit"].status == "passed"


def test_a_name_of_a_built_in_fails_the_check_of_the_other_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TWO.replace('"other"', '"patch"')
    registry_of(tmp_path, monkeypatch, source)
    registry = load_registry(allow=["lines", "objectives"])
    assert "lines:patch" in registry.objectives
    failed = [result for result in run_checks(registry, "patch") if result.status == "failed"]
    assert {(result.component, result.check) for result in failed} == {
        ("lines:patch", "check_name"),
        ("lines:patch", "check_zero_at_target"),
    }
    assert "another objective has this name" in failed[0].message


def test_a_component_that_exits_is_a_finding() -> None:
    class Exits(broken.Line):
        def picture(self, signal: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
            raise SystemExit(3)

    with pytest.raises(CheckFailed, match=r"SystemExit: 3, at test_kit\.py:\d+"):
        run_check(signals.check_picture, Exits)


def test_overlapping_tokens_are_waived_and_say_so() -> None:
    for check in (tokenizers.check_partition, tokenizers.check_round_trip):
        with pytest.raises(NotApplicable, match="waived, as the class declares overlapping = True"):
            run_check(check, broken_contracts.OverlappingAsDeclared)


def test_a_missing_width_is_told_once_with_what_to_do() -> None:
    found = []
    for check in checks_of(broken_contracts.WithoutTokenWidth):
        with contextlib.suppress(NotApplicable):
            try:
                run_check(check, broken_contracts.WithoutTokenWidth)
            except CheckFailed as failure:
                found.append(str(failure))
    (message,) = found
    assert "token_width is missing" in message
    assert "Set self.token_width in __init__" in message
