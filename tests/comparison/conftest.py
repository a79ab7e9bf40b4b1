"""Comparisons of some seconds: digits of 8x8 pixels, a model of one block, runs in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from maskedmodel import MaskedModelError
from maskedmodel.comparison import compare as module
from maskedmodel.comparison.pool import Task
from maskedmodel.comparison.result import Comparison
from maskedmodel.comparison.worker import Channel, perform
from maskedmodel.plugins import Registry, load_registry

TINY: dict[str, Any] = {
    "data": {"name": "digits", "size": 8},
    "tokenizer": {"name": "image", "size": 8, "patch": 2, "channels": 1, "crop": None, "flip": False},
    "objective": {"name": "patch", "normalise": False},
    "model": {
        "encoder": {"dim": 16, "depth": 1, "heads": 2},
        "decoder": {"dim": 16, "depth": 1, "heads": 2},
    },
    "optim": {"lr": 0.01, "per_batch": None},
    "train": {
        "validation_ratio": 0.75,
        "steps": 12,
        "batch": 16,
        "precision": "fp32",
        "device": "cpu",
        "validation_samples": 32,
        "log_every": 4,
    },
    "evaluate": {"train_samples": 60, "val_samples": 40, "neighbours": 5},
}


class Silent(Channel):
    """A channel that nobody listens to."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def say(self, **values: Any) -> None:
        self.phases.append(values.get("phase", ""))


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_registry(strict=True)


def inline(registry: Registry, done: list[str] | None = None) -> Callable[..., None]:
    """Stands in for `pool.work`: every run in this process, one after another."""

    def work(
        tasks: Sequence[Task],
        devices: Sequence[str | None],
        *,
        done_before: int = 0,
        quiet: bool = False,
        finished: Callable[[Task, MaskedModelError | None], None],
    ) -> None:
        for task in tasks:
            if done is not None:
                done.append(task.name)
            Path(task.job.folder).mkdir(parents=True, exist_ok=True)
            perform(task.job, registry, Silent())
            finished(task, None)

    return work


Go = Callable[..., Comparison]


@pytest.fixture
def done() -> list[str]:
    """The names of the runs that were started."""
    return []


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch, registry: Registry, done: list[str]) -> Go:
    """compare(TINY, masks, ...) with runs in this process, and no probes unless asked for."""
    monkeypatch.setattr(module, "work", inline(registry, done))
    monkeypatch.setattr(module, "load_registry", lambda strict=False: registry)

    def call(folder: Path, masks: Sequence[Any] = ("uniform", "uniform:ratio=0.5"), **options: Any) -> Comparison:
        overrides = ["evaluate.probe=false", *options.pop("overrides", ())]
        return module.compare(TINY, masks, run=folder, quiet=True, overrides=overrides, **options)

    return call


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Comparison:
    """Three schedulers, three seeds: to be read, not written to."""
    folder = tmp_path_factory.mktemp("compare") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "work", inline(registry))
        patch.setattr(module, "load_registry", lambda strict=False: registry)
        masks = ["uniform", "uniform:ratio=0.25", "ramped"]
        return module.compare(TINY, masks, run=folder, quiet=True)
