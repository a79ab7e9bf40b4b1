"""Through whose hands an unexpected exception came: the innermost component of a plugin on its way."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import maskedmodel
from maskedmodel.components import Component
from maskedmodel.errors import PluginError
from maskedmodel.plugins import KINDS, label

_CORE = Path(maskedmodel.__file__).parent


def blamed(error: BaseException) -> PluginError | None:
    """The same as an error that names the component, its method and its line; None where it came through none."""
    through = [
        (component, frame.f_code.co_name, f"{frame.f_code.co_filename}:{line}")
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (component := _component(frame)) is not None
    ]
    if not through:
        return None
    component, method, place = through[-1]
    kind = next(label(kind) for kind, base in KINDS.items() if isinstance(component, base))
    name, said = component.component_name(), " ".join(str(error).split())
    return PluginError(
        f"The {kind} {name!r} failed in {method}: {type(error).__name__}{': ' if said else ''}{said}",
        where=place,
        fix=f"See whether it keeps its contract: maskedmodel plugins check {name}. --debug shows the traceback.",
    )


def _component(frame: FrameType) -> Component[Any] | None:
    """Whose method a frame is, unless the core wrote the method."""
    owner = frame.f_locals.get("self")
    if not isinstance(owner, tuple(KINDS.values())) or _CORE in Path(frame.f_code.co_filename).parents:
        return None
    return owner  # type: ignore[return-value]
