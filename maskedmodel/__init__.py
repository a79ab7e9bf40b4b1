"""Masked autoencoders for any signal that can be cut into tokens.

Names are loaded on first use, so that `import maskedmodel` and `maskedmodel --help` answer at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from maskedmodel.commands import embed, import_weights, pretrain, preview, probe, reconstruct
    from maskedmodel.components import (
        Component,
        DataSource,
        GridTokenizer,
        MaskScheduler,
        Objective,
        Sample,
        SampleDataset,
        Settings,
        Split,
        Tokenizer,
        heat,
    )
    from maskedmodel.engine.model import MaskedAutoencoder
    from maskedmodel.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        DependencyError,
        MaskedModelError,
        PluginError,
        ShapeError,
        TrainingError,
    )
    from maskedmodel.hookspecs import hookimpl
    from maskedmodel.noise import Noise
    from maskedmodel.tokens import Mask, Output, Tokens, hidden_count
    from maskedmodel.weights.facebook import from_facebook
    from maskedmodel.weights.huggingface import from_huggingface
    from maskedmodel.weights.runs import load

_HOME = {
    "maskedmodel.commands": ["embed", "import_weights", "pretrain", "preview", "probe", "reconstruct"],
    "maskedmodel.components": [
        "Component",
        "DataSource",
        "GridTokenizer",
        "MaskScheduler",
        "Objective",
        "Sample",
        "SampleDataset",
        "Settings",
        "Split",
        "Tokenizer",
        "heat",
    ],
    "maskedmodel.engine.model": ["MaskedAutoencoder"],
    "maskedmodel.errors": [
        "CheckpointError",
        "ConfigError",
        "DataError",
        "DependencyError",
        "MaskedModelError",
        "PluginError",
        "ShapeError",
        "TrainingError",
    ],
    "maskedmodel.hookspecs": ["hookimpl"],
    "maskedmodel.noise": ["Noise"],
    "maskedmodel.tokens": ["Mask", "Output", "Tokens", "hidden_count"],
    "maskedmodel.weights.facebook": ["from_facebook"],
    "maskedmodel.weights.huggingface": ["from_huggingface"],
    "maskedmodel.weights.runs": ["load"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'maskedmodel' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
