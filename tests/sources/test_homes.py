"""A path below the home of somebody who isn't there is refused in words, by every source."""

from __future__ import annotations

from typing import Any

import pytest

from maskedmodel.errors import MaskedModelError
from maskedmodel.plugins import load_registry

NOWHERE = "~nobody-of-this-name/x"
SOURCES = {name: cls for name, cls in load_registry().data_sources.items() if "path" in cls.settings_class.model_fields}


@pytest.mark.parametrize("name", SOURCES)
def test_a_home_that_isnt_there(name: str) -> None:
    cls: Any = SOURCES[name]
    with pytest.raises(MaskedModelError) as caught:
        cls(path=NOWHERE).open("train")
    assert "nobody-of-this-name" in str(caught.value)
