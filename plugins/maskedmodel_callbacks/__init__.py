"""Callbacks: early stopping, and trackers that plot what a run records."""

from __future__ import annotations

from typing import Any

from maskedmodel import Callback, hookimpl
from maskedmodel_callbacks.early_stopping import EarlyStopping
from maskedmodel_callbacks.services import Trackio, WeightsAndBiases
from maskedmodel_callbacks.tensorboard import TensorBoard


@hookimpl
def maskedmodel_callbacks() -> list[type[Callback[Any]]]:
    return [EarlyStopping, TensorBoard, WeightsAndBiases, Trackio]
