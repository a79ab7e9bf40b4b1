"""The kit against plugins that break one rule each: exactly the checks that should notice fail."""

from __future__ import annotations

import re
from typing import Any

import broken  # type: ignore[import-not-found]
import broken_callbacks  # type: ignore[import-not-found]
import broken_contracts  # type: ignore[import-not-found]
import broken_scenes  # type: ignore[import-not-found]
import pytest

from maskedmodel.testing import CheckFailed, NotApplicable, checks_of, run_check


@pytest.mark.parametrize("cls", broken.FAILS, ids=lambda cls: cls.__name__)
def test_exactly_the_right_checks_fail(cls: type) -> None:
    found: dict[str, str] = {}
    reasons: list[str] = []
    for check in checks_of(cls):
        try:
            run_check(check, cls)
        except CheckFailed as failure:
            found[check.__name__] = str(failure)
        except NotApplicable as reason:
            reasons.append(str(reason))
    assert all(reasons), "a check that doesn't apply says why"
    assert set(found) == broken.FAILS[cls], "\n".join(found.values())
    for message in found.values():
        assert f"{cls.component_name()!r} ({cls.__module__}.{cls.__name__})" in message
        assert re.search(r"\n  (expected|got|to fix): ", message), "a failure shows what was found, or what to do"


def test_a_check_that_rests_on_one_that_fails_names_it() -> None:
    resting, told = 0, []
    for check in checks_of(broken_contracts.PreparesNaN):
        try:
            run_check(check, broken_contracts.PreparesNaN)
        except NotApplicable as reason:
            resting += "check_basics failed, on which this check rests" in str(reason)
        except CheckFailed as failure:
            told.append(str(failure))
    assert len(told) == 1
    assert "prepare gave values that aren't finite" in told[0]
    assert resting > 12


def test_every_check_notices_something() -> None:
    noticed = set().union(*broken.FAILS.values())
    every = {check.__name__ for cls in broken.FAILS for check in checks_of(cls)}
    assert every - noticed == {"check_import_light"}, "test_kit.py has the plugin that this one notices"


def test_a_callback_that_needs_a_library_is_not_judged_without_it() -> None:
    reasons = []
    for check in checks_of(broken_callbacks.NeedsALibrary):
        try:
            run_check(check, broken_callbacks.NeedsALibrary)
        except NotApplicable as reason:
            reasons.append(str(reason))
    assert reasons == ["it can't start here: It needs a package."] * 4


@pytest.mark.parametrize(
    ("kind", "spared"), [(broken_scenes.Features, "check_by_value"), (broken_scenes.Values, "check_flops")]
)
def test_an_objective_that_sees_a_scene_and_keeps_the_rules_passes(kind: type[Any], spared: str) -> None:
    for check in checks_of(kind):
        if check.__name__ != spared:
            run_check(check, kind)
