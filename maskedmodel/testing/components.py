"""Checks that hold for every kind of component: its settings, its name, and how light its module is."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from torch import nn

from maskedmodel.components import Component
from maskedmodel.plugins import label, registry_at_hand
from maskedmodel.settings import Settings
from maskedmodel.testing.rules import CheckFailed, NotApplicable, class_of, kind_of, require

# Packages that take long to import, or that need a system library: a component imports them when it is built.
HEAVY = (
    "av",
    "cv2",
    "datasets",
    "decord",
    "h5py",
    "librosa",
    "matplotlib",
    "pandas",
    "PIL",
    "polars",
    "pyarrow",
    "scipy",
    "skimage",
    "sklearn",
    "soundfile",
    "tifffile",
    "timm",
    "torchaudio",
    "torchcodec",
    "torchvision",
    "transformers",
    "zarr",
)

AnyComponent = Component[Any]


def check_name(component: AnyComponent | type[AnyComponent]) -> None:
    """The name is plain, fixed by its Literal, and no other installed plugin has it."""
    cls, kind = class_of(component), kind_of(component)
    name = cls.component_name()
    require(
        re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", name) is not None,
        cls,
        "the name is awkward in a config",
        expected="small letters and digits, words joined by _ or -",
        got=name,
    )
    annotation = cls.settings_class.model_fields["name"].annotation
    require(
        get_args(annotation) == (name,),
        cls,
        "the settings don't fix their name",
        expected=f'name: Literal["{name}"] = "{name}"',
        got=annotation,
    )
    registry = registry_at_hand()
    clashes = [str(failure) for failure in registry.failures if (kind, name) in failure.lost]
    require(not clashes, cls, "the name has two owners", expected="one", got="; ".join(clashes), fix="Rename one.")
    owner = registry.of(kind).get(name)
    require(
        owner is None or (owner.__module__, owner.__qualname__) == (cls.__module__, cls.__qualname__),
        cls,
        f"another {label(kind)} has this name",
        got=None if owner is None else f"{owner.__module__}.{owner.__qualname__}",
        fix="Choose another name.",
    )


def check_settings_documented(component: AnyComponent | type[AnyComponent]) -> None:
    """Every field of the settings, nested ones too, has a description that is a sentence with a full stop."""
    cls = class_of(component)
    bad = [
        f"{path}: {description!r}"
        for path, description in _descriptions(cls.settings_class)
        if not (description or "").strip().endswith(".")
    ]
    require(
        not bad,
        cls,
        "settings lack a description",
        expected="a sentence with its unit and a full stop for each field",
        got="; ".join(bad),
        fix='Write Field(default, description="Length of a token, in samples.").',
    )


def _descriptions(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    for name, field in model.model_fields.items():
        if prefix or name != "name":  # the name of a component explains itself
            yield prefix + name, field.description
        for nested in _models(field.annotation):
            yield from _descriptions(nested, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if annotation is Settings:
        return  # those of another component
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def check_settings_strict(component: AnyComponent) -> None:
    """Settings refuse unknown keys and can't be changed once they are made."""
    settings = component.settings
    config = type(settings).model_config
    require(
        config.get("extra") == "forbid" and config.get("frozen") is True,
        component,
        "settings take unknown keys, or can be changed",
        expected="extra='forbid' and frozen=True, as maskedmodel.Settings has them",
        got=f"extra={config.get('extra')!r}, frozen={config.get('frozen')!r}",
        fix="Leave model_config as it is inherited.",
    )


def check_settings_json(component: AnyComponent) -> None:
    """Settings written as JSON and read again are equal: that is how a run stores them."""
    settings = component.settings
    text = settings.model_dump_json()
    try:
        again = type(settings).model_validate_json(text)
    except ValidationError as error:
        raise CheckFailed(
            component,
            "settings can't be read from their own JSON",
            got=f"{text} gives {error}",
            fix="Keep to fields whose validators take what they give.",
        ) from error
    require(again == settings, component, "settings change on the way through JSON", expected=settings, got=again)


def check_settings_pickle(component: AnyComponent) -> None:
    """Settings pickle, as they must to reach a data worker."""
    settings = component.settings
    try:
        again = pickle.loads(pickle.dumps(settings))  # noqa: S301 - bytes made in the same line
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise CheckFailed(
            component,
            "settings can't be sent to data workers",
            expected="an object that pickles",
            got=f"{type(error).__name__}: {error}",
            fix="Define the settings class at the top of its module.",
        ) from error
    require(again == settings, component, "settings change on the way through pickle", expected=settings, got=again)


def check_rebuilt(component: AnyComponent) -> None:
    """A component built again from its settings is alike: in settings, and in the shapes of weights and buffers."""
    cls = type(component)
    for how, again in (("settings", cls(component.settings)), ("values", cls(**_fields(component)))):
        require(
            again.settings == component.settings,
            component,
            f"built again from its {how}, it has other settings",
            expected=component.settings,
            got=again.settings,
            fix="Pass settings and values on to super().__init__, and don't change them.",
        )
        if isinstance(again, nn.Module) and isinstance(component, nn.Module):
            shapes = [{k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (component, again)]
            require(
                shapes[0] == shapes[1],
                component,
                f"built again from its {how}, it has other weights",
                expected=shapes[0],
                got=shapes[1],
                fix="Make every weight and buffer in __init__, from the settings alone.",
            )


def _fields(component: AnyComponent) -> dict[str, Any]:
    settings = component.settings
    return {name: getattr(settings, name) for name in type(settings).model_fields}


def check_import_light(component: AnyComponent | type[AnyComponent]) -> None:
    """Importing the plugin's module imports none of the packages listed in `HEAVY`."""
    module = class_of(component).__module__
    found, imported = _heavy_imports(module.split(".")[0])
    if module not in imported:
        found, _ = _heavy_imports(module)
    require(
        not found,
        component,
        f"importing {module} imports heavy packages",
        expected="none of them before a component is built",
        got=", ".join(found),
        fix="Import them inside the method that needs them.",
    )


@cache
def _heavy_imports(module: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The heavy packages that a new process imports with this module, and the modules of its own package."""
    if module == "__main__":
        raise NotApplicable("the component is defined in a script, not in a module that can be imported")
    code = (
        "import importlib, importlib.util, sys\n"
        "try:\n    found = importlib.util.find_spec(sys.argv[1]) is not None\n"
        "except ImportError:\n    found = False\n"
        "if not found:\n    sys.exit(3)\n"
        "importlib.import_module(sys.argv[1])\n"
        "print(*(name for name in sys.argv[2:] if name in sys.modules))\n"
        "print(*(name for name in sys.modules if name.split('.')[0] == sys.argv[1].split('.')[0]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code, module, *HEAVY], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode == 3:
        raise NotApplicable(f"{module} isn't a module that a new process can import")
    if done.returncode:
        raise ImportError(f"a new process can't import {module}: {done.stderr.strip().splitlines()[-1]}")
    heavy, own = done.stdout.splitlines()[-2:]
    return tuple(heavy.split()), tuple(own.split())
