"""Companions of a scheduler whose ratio moves: a constant ratio of equal mean, and the same way backwards.

A ramp that does better than a constant may owe it to its mean ratio, or to ending high, and not to ramping. Both
companions are ordinary settings of an installed scheduler, found by trying changes of the settings and evaluating the
ratio over the whole run: whatever is found does what it says, and a run of it is a run like any other.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from maskedmodel.comparison.arms import Arm, Source, make_arm
from maskedmodel.components import Settings
from maskedmodel.config.load import difference
from maskedmodel.errors import MaskedModelError
from maskedmodel.plugins import Registry, using
from maskedmodel.schedulers import MaskScheduler

_POINTS = (np.arange(241) + 0.5) / 241  # symmetric about one half, and on none of the places where tables change
_CLOSE = 1e-6
_ALIKE = 0.97  # share of the points: a ratio in levels may change level one point earlier on its way back
_PLAIN = "uniform"  # the scheduler by which a constant ratio is written where the pattern is random anyway

Change = tuple[tuple[str, ...], Any]  # path of a setting, value


def ratio_curve(settings: Settings, registry: Registry) -> NDArray[np.float64]:
    """The scheduler's ratio along the run."""
    scheduler = registry.build("mask_scheduler", settings)
    return np.array([scheduler.ratio(float(progress)) for progress in _POINTS])


def moves(curve: NDArray[np.float64]) -> bool:
    """Whether a ratio changes over the run."""
    return bool(np.ptp(curve) > _CLOSE)


def with_controls(
    arms: list[Arm], source: Source, overrides: tuple[str, ...], registry: Registry
) -> tuple[list[Arm], list[str]]:
    """The arms, each that moves followed by its controls, and notes on those that can't be had.

    A control that stands among the arms already is left out.
    """
    found: list[Arm] = []
    notes: list[str] = []
    for arm in arms:
        found.append(arm)
        settings = arm.config.mask
        curve = ratio_curve(settings, registry)
        if not moves(curve):
            continue
        mean = round(float(curve.mean()), 4)
        wanted = {
            f"constant {mean:g}": (constant(settings, mean, registry), f"holds its ratio at {mean:g}"),
            "reversed": (backwards(settings, curve, registry), "turns its ratio round"),
        }
        for kind, (changes, does) in wanted.items():
            if changes is None:
                notes.append(f"{arm.label}: none of its settings {does}, so that control is missing.")
                continue
            control = make_arm(
                source, overrides, f"{arm.label}, {kind}", (*arm.overrides, *changes), "--controls", registry
            )
            if all(difference(control.config, other.config) for other in [*arms, *found]):
                found.append(control)
    return found, notes


def constant(settings: Settings, mean: float, registry: Registry) -> tuple[str, ...] | None:
    """Overrides that hold the ratio at `mean` and leave the pattern as it is; None where there are none."""
    cls: type[MaskScheduler[Any]] = registry.get("mask_scheduler", settings.name)
    plain = registry.of("mask_scheduler").get(_PLAIN)
    pattern = (MaskScheduler.scores, MaskScheduler.counts, MaskScheduler.sample)
    if plain is not None and (cls.scores, cls.counts, cls.sample) == pattern and settings.name != _PLAIN:
        wanted: Settings = plain.settings_class(name=_PLAIN, ratio=mean)  # type: ignore[call-arg]
        if _alike(ratio_curve(wanted, registry), np.full(len(_POINTS), mean)):
            return (f"mask={json.dumps(wanted.model_dump(mode='json'))}",)
    return _search(settings, np.full(len(_POINTS), mean), _flat(settings.model_dump(mode="json"), mean), registry)


def backwards(settings: Settings, curve: NDArray[np.float64], registry: Registry) -> tuple[str, ...] | None:
    """Overrides that make the ratio at progress p what it was at 1 - p; None where there are none."""
    return _search(settings, curve[::-1], _turned(settings.model_dump(mode="json")), registry)


def _search(
    settings: Settings, target: NDArray[np.float64], candidates: Iterator[tuple[Change, ...]], registry: Registry
) -> tuple[str, ...] | None:
    for changes in candidates:
        values = settings.model_dump(mode="json")
        for path, value in changes:
            _put(values, path, value)
        try:
            with using(registry):
                changed = type(settings).model_validate(values)
            curve = ratio_curve(changed, registry)
        except (ValidationError, MaskedModelError):
            continue  # not a setting that this scheduler takes
        if _alike(curve, target):
            return tuple(f"mask.{'.'.join(path)}={json.dumps(value)}" for path, value in changes)
    return None


def _alike(curve: NDArray[np.float64], target: NDArray[np.float64]) -> bool:
    return bool((np.abs(curve - target) < _CLOSE).mean() >= _ALIKE and abs(curve.mean() - target.mean()) < 1e-3)


def _flat(values: Mapping[str, Any], mean: float) -> Iterator[tuple[Change, ...]]:
    """One setting, or a whole section, as the mean; then two numbers as the mean."""
    places = [path for path in _paths(values) if path != ("name",)]
    yield from (((path, mean),) for path in places)
    yield from (((one, mean), (other, mean)) for one, other in itertools.combinations(_numbers(values), 2))


def _turned(values: Mapping[str, Any]) -> Iterator[tuple[Change, ...]]:
    """Two numbers exchanged; a table of (share of the run, ratio) read from its end."""
    for one, other in itertools.combinations(_numbers(values), 2):
        yield (one, _get(values, other)), (other, _get(values, one))
    for path in _paths(values):
        table = _get(values, path)
        pairs = isinstance(table, list) and all(isinstance(row, list) and len(row) == 2 for row in table)
        if pairs and table:
            ends = [place for place, _ in table[1:]] + [1.0]
            yield ((path, [[round(1 - end, 9), ratio] for end, (_, ratio) in zip(ends, table, strict=True)][::-1]),)


def _paths(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every setting and every section, outer ones first."""
    for key, value in values.items():
        yield (*prefix, key)
        if isinstance(value, Mapping):
            yield from _paths(value, (*prefix, key))


def _numbers(values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [path for path in _paths(values) if type(_get(values, path)) in (int, float)]


def _get(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = values
    for key in path:
        found = found[key]
    return found


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    _get(values, path[:-1])[path[-1]] = value
