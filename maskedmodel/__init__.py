"""Masked autoencoders for any signal that can be cut into tokens.

The names below are what most people need. What plugins build on is grouped: `maskedmodel.callbacks`, `.errors`,
`.nested` (components inside components), `.nn` (parts of the engine), `.pictures`, `.scenes`, `.schedulers`,
`.schedules` (weights over time), `.sources` (files, labels, splits), `.tasks`, `.tokenizers` and `.tokens`, each with
an `__all__`. Names are loaded on first use, so that `import maskedmodel` and `maskedmodel --help` answer at once.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from maskedmodel.callbacks import Callback as Callback
    from maskedmodel.commands import compare as compare
    from maskedmodel.commands import doctor as doctor
    from maskedmodel.commands import embed as embed
    from maskedmodel.commands import export as export
    from maskedmodel.commands import finetune as finetune
    from maskedmodel.commands import import_weights as import_weights
    from maskedmodel.commands import predict as predict
    from maskedmodel.commands import pretrain as pretrain
    from maskedmodel.commands import preview as preview
    from maskedmodel.commands import probe as probe
    from maskedmodel.commands import reconstruct as reconstruct
    from maskedmodel.components import Component as Component
    from maskedmodel.components import DataSource as DataSource
    from maskedmodel.components import Fact as Fact
    from maskedmodel.components import Objective as Objective
    from maskedmodel.components import Sample as Sample
    from maskedmodel.components import Tokenizer as Tokenizer
    from maskedmodel.engine.finetuned import FineTuned as FineTuned
    from maskedmodel.engine.model import MaskedAutoencoder as MaskedAutoencoder
    from maskedmodel.errors import MaskedModelError as MaskedModelError
    from maskedmodel.hookspecs import hookimpl as hookimpl
    from maskedmodel.noise import Noise as Noise
    from maskedmodel.schedulers import MaskScheduler as MaskScheduler
    from maskedmodel.settings import Settings as Settings
    from maskedmodel.tasks import Task as Task
    from maskedmodel.tokenizers.grid import GridTokenizer as GridTokenizer
    from maskedmodel.tokenizers.normalised import NormalisedTokenizer as NormalisedTokenizer
    from maskedmodel.tokens import Mask as Mask
    from maskedmodel.tokens import Output as Output
    from maskedmodel.tokens import Tokens as Tokens
    from maskedmodel.training.tracking import Display as Display
    from maskedmodel.weights.facebook import from_facebook as from_facebook
    from maskedmodel.weights.huggingface import from_huggingface as from_huggingface
    from maskedmodel.weights.read import read_weights as read_weights
    from maskedmodel.weights.runs import load as load

_HOME = {
    "maskedmodel.callbacks": ["Callback"],
    "maskedmodel.commands": [
        "compare",
        "doctor",
        "embed",
        "export",
        "finetune",
        "import_weights",
        "predict",
        "pretrain",
        "preview",
        "probe",
        "reconstruct",
    ],
    "maskedmodel.components": ["Component", "DataSource", "Fact", "Objective", "Sample", "Tokenizer"],
    "maskedmodel.engine.finetuned": ["FineTuned"],
    "maskedmodel.engine.model": ["MaskedAutoencoder"],
    "maskedmodel.errors": ["MaskedModelError"],
    "maskedmodel.hookspecs": ["hookimpl"],
    "maskedmodel.noise": ["Noise"],
    "maskedmodel.schedulers": ["MaskScheduler"],
    "maskedmodel.settings": ["Settings"],
    "maskedmodel.tasks": ["Task"],
    "maskedmodel.tokenizers.grid": ["GridTokenizer"],
    "maskedmodel.tokenizers.normalised": ["NormalisedTokenizer"],
    "maskedmodel.tokens": ["Mask", "Output", "Tokens"],
    "maskedmodel.training.tracking": ["Display"],
    "maskedmodel.weights.facebook": ["from_facebook"],
    "maskedmodel.weights.huggingface": ["from_huggingface"],
    "maskedmodel.weights.read": ["read_weights"],
    "maskedmodel.weights.runs": ["load"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

GROUPS = (
    "callbacks",
    "errors",
    "nested",
    "nn",
    "pictures",
    "scenes",
    "schedulers",
    "schedules",
    "sources",
    "tasks",
    "tokenizers",
    "tokens",
)

# Names of 0.1.0 that lie elsewhere or are called otherwise since.
_MOVED = {
    "ABSENT": "pictures.ABSENT",
    "Block": "nn.Block",
    "CheckpointError": "errors.CheckpointError",
    "ConfigError": "errors.ConfigError",
    "CrossBlock": "nn.CrossBlock",
    "DataError": "errors.DataError",
    "DependencyError": "errors.DependencyError",
    "EncodedFiles": "sources.EncodedFiles",
    "FeatureEncoder": "schedulers.FeatureEncoder",
    "FileSettings": "sources.FileSettings",
    "LabelledFiles": "sources.LabelledFiles",
    "MeanStd": "tokenizers.MeanStd",
    "Observed": "schedulers.Observed",
    "Part": "sources.Part",
    "Places": "nn.PositionEmbedding",
    "PluginError": "errors.PluginError",
    "SampleDataset": "sources.SampleDataset",
    "Scale": "pictures.Scale",
    "Scales": "pictures.Scales",
    "ShapeError": "errors.ShapeError",
    "SignalDataset": "sources.SignalDataset",
    "Split": "sources.Split",
    "TrainingError": "errors.TrainingError",
    "VALIDATION_NAMES": "sources.VALIDATION_NAMES",
    "block_flops": "nn.block_flops",
    "cross_block_flops": "nn.cross_block_flops",
    "existing_path": "sources.existing_path",
    "heat": "pictures.heat",
    "hidden_count": "tokens.hidden_count",
    "holds": "sources.holds",
    "known_statistics": "tokenizers.known_statistics",
    "natural_order": "sources.natural_order",
    "pair": "tokenizers.pair",
    "pick": "nn.gather_tokens",
    "replacing": "sources.replacing",
    "split_by_share": "sources.split_by_share",
    "stratified": "sources.stratified",
}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name in GROUPS:
        return import_module(f"maskedmodel.{name}")
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    if name in _MOVED:
        place, _, new = f"maskedmodel.{_MOVED[name]}".rpartition(".")
        warnings.warn(f"Import {new} from {place}: maskedmodel.{name} goes with 0.3.", DeprecationWarning, stacklevel=2)
        return getattr(import_module(place), new)
    raise AttributeError(f"module 'maskedmodel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *GROUPS]
