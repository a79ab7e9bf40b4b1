"""The six hooks by which a plugin provides components.

A plugin is a module named in the entry-point group `maskedmodel`, with functions of these names marked `hookimpl`:

    from maskedmodel import hookimpl

    @hookimpl
    def maskedmodel_tokenizers() -> list[type]:
        return [ECG]

A hook is called once per process, when the components are first needed. Keep heavy imports out of the plugin module:
import them when a component is built.
"""

from __future__ import annotations

from typing import Any, Protocol

import pluggy

from maskedmodel.callbacks import Callback
from maskedmodel.components import DataSource, Objective, Tokenizer
from maskedmodel.installed import PROJECT
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.tasks import Task

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks(Protocol):
    """The specifications, in a class of their own so that pluggy can check a plugin's functions against them."""

    @hookspec
    def maskedmodel_tokenizers(self) -> list[type[Tokenizer[Any]]]:
        """Tokenizers: how a signal becomes tokens."""

    @hookspec
    def maskedmodel_mask_schedulers(self) -> list[type[MaskScheduler[Any]]]:
        """Mask schedulers: which tokens are hidden, and how many."""

    @hookspec
    def maskedmodel_objectives(self) -> list[type[Objective[Any]]]:
        """Objectives: what hidden tokens are compared with."""

    @hookspec
    def maskedmodel_data_sources(self) -> list[type[DataSource[Any]]]:
        """Data sources: where samples come from."""

    @hookspec
    def maskedmodel_tasks(self) -> list[type[Task[Any]]]:
        """Tasks: what is learned on top of an encoder."""

    @hookspec
    def maskedmodel_callbacks(self) -> list[type[Callback[Any]]]:
        """Callbacks: who looks at a run on its way."""
