"""Which checks a component gets, and the two ways to run them: pytest's parametrize, and a list of results."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from maskedmodel.components import Component
from maskedmodel.errors import PluginError, suggestion
from maskedmodel.plugins import KINDS, Kind, Plugin, Registry, using
from maskedmodel.testing import (
    absent,
    callbacks,
    components,
    embedding,
    objectives,
    scenes,
    schedulers,
    signals,
    sources,
    tasks,
    tokenizers,
    training,
)
from maskedmodel.testing.building import built, check_builds
from maskedmodel.testing.rules import CheckFailed, NotApplicable, describe, kind_of

if TYPE_CHECKING:
    import pytest

AnyComponent = Component[Any]
Check = Callable[[Any], None]
Status = Literal["passed", "failed", "not applicable"]

# These look at the class and need no instance of it; `check_builds` makes one itself.
OF_CLASS: tuple[Check, ...] = (
    check_builds,
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
# What all other checks of a kind rest on. Of a mask scheduler each check takes the layouts that fit.
FIRST_OF_KIND: Mapping[Kind, Check] = MappingProxyType(
    {
        "tokenizer": signals.check_basics,
        "objective": objectives.check_width,
        "data_source": sources.check_opens,
        "task": tasks.check_predicts,
        "callback": callbacks.check_events,
    }
)
OF_KIND: Mapping[Kind, tuple[Check, ...]] = MappingProxyType(
    {
        "tokenizer": (
            signals.check_basics,
            signals.check_example,
            signals.check_prepare,
            signals.check_augment,
            signals.check_collate,
            signals.check_inputs_kept,
            signals.check_picture,
            signals.check_footprint,
            signals.check_left_out,
            signals.check_global_generators,
            tokenizers.check_layout,
            embedding.check_embed_and_head,
            embedding.check_vocabulary,
            tokenizers.check_padding,
            tokenizers.check_round_trip,
            tokenizers.check_partition,
            absent.check_absent,
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
            schedulers.check_flops,
            schedulers.check_global_generators,
            training.check_overfit,
        ),
        "objective": (
            objectives.check_width,
            objectives.check_refusals,
            objectives.check_loss_shape,
            objectives.check_zero_at_target,
            objectives.check_finite,
            objectives.check_gradient,
            objectives.check_tokens_independent,
            objectives.check_by_value,
            objectives.check_loss_in_part,
            objectives.check_to_values,
            objectives.check_baseline,
            objectives.check_pure,
            objectives.check_global_generators,
            training.check_overfit,
        ),
        "data_source": (
            sources.check_opens,
            sources.check_samples,
            sources.check_ids,
            sources.check_reopened,
            sources.check_labels,
            sources.check_workers,
            sources.check_global_generators,
        ),
        "task": (
            tasks.check_predicts,
            tasks.check_samples_independent,
            tasks.check_padding,
            tasks.check_loss,
            tasks.check_gradient,
            tasks.check_metrics,
            tasks.check_columns,
            tasks.check_maps,
            tasks.check_shown,
            tasks.check_rebuilt_alike,
            tasks.check_learns,
        ),
        "callback": (
            callbacks.check_events,
            callbacks.check_resumed,
            callbacks.check_same_bits,
            callbacks.check_global_generators,
        ),
    }
)


OF_SCENE: tuple[Check, ...] = (
    scenes.check_losses,
    scenes.check_teacher_gradient,
    scenes.check_split,
    scenes.check_by_value,
    scenes.check_state,
    scenes.check_flops,
)


def checks_of(component: AnyComponent | type[AnyComponent]) -> tuple[Check, ...]:
    """The checks of a component's kind, those that every kind gets first."""
    own = OF_SCENE if scenes.is_scene(component) else OF_KIND[kind_of(component)]
    return (*OF_CLASS, *OF_INSTANCE, *own)


def foundations(check: Check, component: AnyComponent | type[AnyComponent]) -> tuple[Check, ...]:
    """The checks on which this one rests: where one of them fails there is nothing to judge yet."""
    if check in OF_CLASS:
        return ()
    first = scenes.check_losses if scenes.is_scene(component) else FIRST_OF_KIND.get(kind_of(component))
    return (check_builds,) if first is None or check is first or check in OF_INSTANCE else (check_builds, first)


def _refuse_without(check: Check, component: AnyComponent | type[AnyComponent]) -> None:
    for needed in foundations(check, component):
        key = (needed, component if isinstance(component, type) else (type(component), repr(component.settings)))
        if key not in _found:
            _found[key] = _fails(needed, component)
            while len(_found) > 100:
                del _found[next(iter(_found))]
        if _found[key]:
            raise NotApplicable(f"{needed.__name__} failed, on which this check rests")


# Whether foundations failed, by check and by what was checked.
_found: dict[tuple[Check, Any], bool] = {}


def _fails(check: Check, component: AnyComponent | type[AnyComponent]) -> bool:
    try:
        run_check(check, component)
    except CheckFailed:
        return True
    except NotApplicable:
        return False  # the check that rests on it says so too, for the same reason
    return False


def run_check(check: Check, component: AnyComponent | type[AnyComponent]) -> None:
    """Run one check. Raises CheckFailed, where the component itself breaks too, or NotApplicable; nothing else.

    A check that rests on one that fails doesn't apply, so that one fault is told once.
    """
    cls = component if isinstance(component, type) else type(component)
    _refuse_without(check, component)
    try:
        if check in OF_CLASS:
            check(component if check is check_builds else cls)
            return
        with built(component) as fresh:
            check(fresh)
    except (CheckFailed, NotApplicable):
        raise
    except (Exception, SystemExit) as error:
        rule = f"{check.__name__} met an error in the component. {(check.__doc__ or '').strip().splitlines()[0]}"
        raise CheckFailed(cls, rule, expected="no error", got=_told(error, cls)) from error


def _told(error: BaseException, cls: type[AnyComponent]) -> str:
    """The error, and the last line of the component's own files that it went through."""
    module = sys.modules.get(cls.__module__)
    folder = Path(getattr(module, "__file__", None) or "").parent
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == folder]
    where = f", at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return f"{type(error).__name__}: {error}{where}"


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
    with using(registry):
        for result in _results(registry, name):
            results.append(result)
            if report is not None:
                report(result)
    return results


def _results(registry: Registry, name: str) -> Iterator[Result]:
    plugins = [plugin for plugin in registry.plugins if name in (plugin.name, plugin.distribution)]
    broken = [f for f in registry.failures if name in (f.plugin, f.distribution) or name in [n for _, n in f.lost]]
    named = [(kind, each) for kind in KINDS for each in registry.of(kind) if name in (each, each.partition(":")[2])]
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
        if ":" in each:  # under the name that its plugin gives it
            cls = cls.__mro__[1]
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
