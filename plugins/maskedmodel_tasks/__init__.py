"""Tasks: what is learned on top of an encoder."""

from __future__ import annotations

from typing import Any

from maskedmodel import Task, hookimpl
from maskedmodel_tasks.classify import Classify
from maskedmodel_tasks.points import Points
from maskedmodel_tasks.regress import Regress
from maskedmodel_tasks.segment import Segment
from maskedmodel_tasks.tag import Tag


@hookimpl
def maskedmodel_tasks() -> list[type[Task[Any]]]:
    return [Classify, Tag, Regress, Segment, Points]
