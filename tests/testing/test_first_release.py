"""The plugin template as it was published with 0.1.0 still keeps the contract, unchanged but for its import path."""

from __future__ import annotations

from collections.abc import Callable

from maskedmodel.testing import parametrize_checks
from tests.testing.first_release import EcgTokenizer
from tests.testing.first_release.data import EcgRecords


@parametrize_checks([EcgTokenizer, EcgRecords])
def test_conformance(check: Callable[[], None]) -> None:
    check()


def test_it_states_its_extents_by_properties() -> None:
    assert (EcgTokenizer().channels, EcgTokenizer().size, EcgTokenizer().patch) == (12, (600,), (50,))
