"""How the kit gets what it checks: components built afresh, and the tokenizers that come with one."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskedmodel.components import Component, Tokenizer
from maskedmodel.plugins import registry_at_hand
from maskedmodel.testing.rules import CheckFailed, NotApplicable, class_of

AnyComponent = Component[Any]


@contextmanager
def built(component: AnyComponent | type[AnyComponent]) -> Iterator[AnyComponent]:
    """A fresh component: of the same settings where an instance is given, of the defaults where it is a class.

    A class whose settings have no default says what to check it with, making in `folder` (empty, and removed
    afterwards) whatever files it needs:

        @classmethod
        def example_settings(cls, folder: Path) -> FolderSettings: ...

    Raises NotApplicable where it has neither.
    """
    if isinstance(component, Component):
        yield type(component)(component.settings)
        return
    with tempfile.TemporaryDirectory(prefix="maskedmodel-kit-", ignore_cleanup_errors=True) as folder:
        settings = component.example_settings(Path(folder))
        required = [name for name, field in component.settings_class.model_fields.items() if field.is_required()]
        if settings is None and required:
            raise NotApplicable(f"its settings need {', '.join(required)}, and it has no example_settings(folder)")
        yield component(settings)


def check_builds(component: AnyComponent | type[AnyComponent]) -> None:
    """It can be built from the settings it is checked with: its defaults, or those of `example_settings`."""
    try:
        with built(component):
            return
    except (CheckFailed, NotApplicable):
        raise
    except Exception as error:
        missing = re.search(r"no attribute '(\w+)'", str(error)) if isinstance(error, AttributeError) else None
        stated = class_of(component).__annotations__.keys() | Tokenizer.__annotations__.keys()
        fix = None
        if missing is not None and missing[1] in stated:
            fix = f"State {missing[1]} in the class, or set it before super().__init__ needs it."
        raise CheckFailed(
            component, "it can't be built", expected="no error", got=f"{type(error).__name__}: {error}", fix=fix
        ) from error


def companions(component: AnyComponent) -> Iterator[tuple[str, Tokenizer[Any]]]:
    """The tokenizers that come with a component, by name: that of `example_tokenizer`, then those of its plugin."""
    example = getattr(type(component), "example_tokenizer", None)
    if callable(example):
        given = example()
        with built(given) as tokenizer:
            if not isinstance(tokenizer, Tokenizer):
                raise CheckFailed(component, "example_tokenizer gives no tokenizer", expected="a Tokenizer", got=given)
            yield tokenizer.component_name(), tokenizer
    registry = registry_at_hand()
    for plugin in registry.plugins:
        names = [(kind, name) for kind, owned in plugin.components.items() for name in owned]
        if not any(registry.of(kind)[name] in type(component).__mro__ for kind, name in names):
            continue
        for name in plugin.components.get("tokenizer", ()):
            try:
                with built(registry.tokenizers[name]) as tokenizer:
                    assert isinstance(tokenizer, Tokenizer)
                    yield name, tokenizer
            except NotApplicable:
                continue  # it says no settings to be tried with
