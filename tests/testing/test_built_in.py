"""What ships keeps the contract with its default settings, as `maskedmodel plugins check NAME` tries it."""

from __future__ import annotations

import pytest

from maskedmodel.plugins import load_registry
from maskedmodel.testing import run_checks
from tests.built_in import built_in_plugins

BUILT_IN = built_in_plugins()


@pytest.mark.slow
@pytest.mark.parametrize("plugin", BUILT_IN)
def test_a_built_in_plugin_passes_with_its_defaults(plugin: str) -> None:
    results = run_checks(load_registry(strict=True, allow=BUILT_IN, block=()), plugin)
    assert [result for result in results if result.status == "failed"] == []
    assert sum(result.status == "passed" for result in results) > 10


def test_all_that_ship_are_tried() -> None:
    assert {plugin.name for plugin in load_registry(strict=True, allow=BUILT_IN, block=()).plugins} == set(BUILT_IN)
