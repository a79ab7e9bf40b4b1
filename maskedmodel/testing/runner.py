"""Which checks a component gets, and the two ways to run them: pytest's parametrize, and a list of results."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from maskedmodel.components import Component
from maskedmodel.errors import PluginError, suggestion
from maskedmodel.plugins import KINDS, Kind, Plugin, Registry
from maskedmodel.testing import components, objectives, schedulers, signals, sources, tokenizers, training
from maskedmodel.testing.rules import CheckFailed, NotApplicable, describe, kind_of

if TYPE_CHECKING:
    import pytest

AnyComponent = Component[Any]
Check = Callable[[Any], None]
Status = Literal["passed", "failed", "not applicable"]

# These look at the class and need no instance of it.
OF_CLASS: tuple[Check, ...] = (
    components.check_name,
    components.check_settings_documented,
    components.check_import_light,
)
OF_INSTANCE: tuple[Check, ...] = (
    components.check_settings_strict,
    components.check_settings_json,
    components.check_settings_pickle,
    components.check_rebuilt,
)
OF_KIND: Mapping[Kind, tuple[Check, ...]] = MappingProxyType(
    {
        "tokenizer": (
            signals.check_example,
            signals.check_prepare,
            signals.check_augment,
            signals.check_collate,
            signals.check_inputs_kept,
            signals.check_picture,
            signals.check_global_generators,
            tokenizers.check_layout,
            tokenizers.check_token_width,
            tokenizers.check_embed_and_head,
            tokenizers.check_padding,
            tokenizers.check_round_trip,
            tokenizers.check_partition,
            tokenizers.check_samples_independent,
            tokenizers.check_dtype,
            tokenizers.check_device,
            tokenizers.check_wrong_shapes,
            training.check_overfit,
        ),
        "mask_scheduler": (
            schedulers.check_layouts,
            schedulers.check_ratio,
            schedulers.check_count,
            schedulers.check_polarity,
            schedulers.check_padding,
            schedulers.check_noise,
            schedulers.check_epochs,
            schedulers.check_every_token,
            schedulers.check_samples_independent,
            schedulers.check_progress,
            schedulers.check_observe,
            schedulers.check_global_generators,
            training.check_overfit,
        ),
        "objective": (
            objectives.check_width,
            objectives.check_loss_shape,
            objectives.check_zero_at_target,
            objectives.check_finite,
            objectives.check_gradient,
            objectives.check_tokens_independent,
            objectives.check_to_values,
            objectives.check_baseline,
            objectives.check_pure,
            objectives.check_global_generators,
            training.check_overfit,
        ),
        "data_source": (
            sources.check_samples,
            sources.check_ids,
            sources.check_reopened,
            sources.check_labels,
            sources.check_workers,
            sources.check_global_generators,
        ),
    }
)


def checks_of(component: AnyComponent | type[AnyComponent]) -> tuple[Check, ...]:
    """The checks of a component's kind, those that every kind gets first."""
    return (*OF_CLASS, *OF_INSTANCE, *OF_KIND[kind_of(component)])


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


def run_check(check: Check, component: AnyComponent | type[AnyComponent]) -> None:
    """Run one check. Raises CheckFailed, where the component itself breaks too, or NotApplicable."""
    cls = component if isinstance(component, type) else type(component)
    try:
        if check in OF_CLASS:
            check(cls)
            return
        with built(component) as fresh:
            check(fresh)
    except (CheckFailed, NotApplicable):
        raise
    except Exception as error:
        rule = f"{check.__name__} met an error in the component. {(check.__doc__ or '').strip().splitlines()[0]}"
        raise CheckFailed(cls, rule, expected="no error", got=f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Result:
    """What a check found. `message` says why, where it didn't pass."""

    component: str
    kind: str
    check: str
    status: Status
    message: str = ""


def run_checks(registry: Registry, name: str, report: Callable[[Result], None] | None = None) -> list[Result]:
    """Check all that answers to a name: a component, a plugin (its entry point) or a distribution.

    `report` is called with each result as it comes. Raises PluginError where nothing has the name.
    """
    results: list[Result] = []
    for result in _results(registry, name):
        results.append(result)
        if report is not None:
            report(result)
    return results


def _results(registry: Registry, name: str) -> Iterator[Result]:
    plugins = [plugin for plugin in registry.plugins if name in (plugin.name, plugin.distribution)]
    broken = [f for f in registry.failures if name in (f.plugin, f.distribution) or name in [n for _, n in f.lost]]
    named = [(kind, name) for kind in KINDS if name in registry.of(kind)]
    chosen = [(kind, each) for plugin in plugins for kind, names in plugin.components.items() for each in names]
    if not (plugins or broken or named):
        known = [*_names(registry.plugins), *(each for kind in KINDS for each in registry.of(kind))]
        raise PluginError(f"There is nothing named {name!r} to check.", fix=suggestion(name, dict.fromkeys(known)))
    for plugin in plugins:
        if not any(failure.plugin == plugin.name for failure in broken):
            yield Result(plugin.name, "plugin", "check_loads", "passed")
    for failure in broken:
        yield Result(failure.plugin, "plugin", "check_loads", "failed", str(failure))
    for kind, each in dict.fromkeys([*named, *chosen]):
        cls = registry.of(kind)[each]
        for check in checks_of(cls):
            yield _result(check, cls, kind, each)


def _names(plugins: Sequence[Plugin]) -> list[str]:
    return [name for plugin in plugins for name in (plugin.name, plugin.distribution)]


def _result(check: Check, cls: type[AnyComponent], kind: Kind, name: str) -> Result:
    try:
        run_check(check, cls)
    except NotApplicable as reason:
        return Result(name, kind, check.__name__, "not applicable", str(reason))
    except CheckFailed as failure:
        return Result(name, kind, check.__name__, "failed", str(failure))
    return Result(name, kind, check.__name__, "passed")


def parametrize_checks(
    subjects: AnyComponent | type[AnyComponent] | Sequence[AnyComponent | type[AnyComponent]],
    *,
    expected_failures: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """A pytest decorator that makes one test of each check of each component.

        @parametrize_checks([ECG, ECG(leads=3)])
        def test_conformance(check):
            check()

    `subjects` are component classes, or instances for other settings than the defaults. A check that doesn't apply
    shows as skipped, with its reason. `expected_failures` maps names of checks to reasons why they fail; one
    that passes after all fails the test, so that the entry goes. Raises ValueError on a name that no check has.
    """
    import pytest

    chosen = list(subjects) if isinstance(subjects, Sequence) else [subjects]
    excused = dict(expected_failures or {})
    known = {check.__name__ for subject in chosen for check in checks_of(subject)}
    for name in excused:
        if name not in known:
            raise ValueError(f"expected_failures names {name!r}, which is no check. {suggestion(name, known)}")

    def case(check: Check, subject: AnyComponent | type[AnyComponent]) -> Callable[[], None]:
        def run() -> None:
            try:
                run_check(check, subject)
            except NotApplicable as reason:
                pytest.skip(f"{describe(subject)}: {reason}")

        return run

    parameters = []
    for subject in chosen:
        for check in checks_of(subject):
            name = check.__name__
            marks = [pytest.mark.xfail(reason=excused[name], strict=True)] if name in excused else []
            parameters.append(pytest.param(case(check, subject), id=f"{_title(subject)}-{name}", marks=marks))
    return pytest.mark.parametrize("check", parameters)


def _title(subject: AnyComponent | type[AnyComponent]) -> str:
    """`Image`, or `Image(size=32, patch=4)` where settings differ from the defaults."""
    if isinstance(subject, type):
        return subject.__name__
    given = subject.settings.model_dump(exclude_defaults=True)
    inside = ", ".join(f"{key}={value!r}" for key, value in given.items() if key != "name")
    return f"{type(subject).__name__}({inside})" if inside else type(subject).__name__
