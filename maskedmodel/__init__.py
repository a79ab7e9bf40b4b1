"""Masked autoencoders for any signal that can be cut into tokens.

Names are loaded on first use, so that `import maskedmodel` and `maskedmodel --help` answer at once.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from maskedmodel.commands import compare as compare
    from maskedmodel.commands import embed as embed
    from maskedmodel.commands import import_weights as import_weights
    from maskedmodel.commands import pretrain as pretrain
    from maskedmodel.commands import preview as preview
    from maskedmodel.commands import probe as probe
    from maskedmodel.commands import reconstruct as reconstruct
    from maskedmodel.components import Component as Component
    from maskedmodel.components import DataSource as DataSource
    from maskedmodel.components import Fact as Fact
    from maskedmodel.components import Objective as Objective
    from maskedmodel.components import Sample as Sample
    from maskedmodel.components import SampleDataset as SampleDataset
    from maskedmodel.components import Split as Split
    from maskedmodel.components import Tokenizer as Tokenizer
    from maskedmodel.engine.flops import block_flops as block_flops
    from maskedmodel.engine.flops import cross_block_flops as cross_block_flops
    from maskedmodel.engine.layers import Block as Block
    from maskedmodel.engine.layers import CrossBlock as CrossBlock
    from maskedmodel.engine.model import MaskedAutoencoder as MaskedAutoencoder
    from maskedmodel.engine.positions import PositionEmbedding as PositionEmbedding
    from maskedmodel.engine.positions import gather_tokens as gather_tokens
    from maskedmodel.errors import CheckpointError as CheckpointError
    from maskedmodel.errors import ConfigError as ConfigError
    from maskedmodel.errors import DataError as DataError
    from maskedmodel.errors import DependencyError as DependencyError
    from maskedmodel.errors import MaskedModelError as MaskedModelError
    from maskedmodel.errors import PluginError as PluginError
    from maskedmodel.errors import ShapeError as ShapeError
    from maskedmodel.errors import TrainingError as TrainingError
    from maskedmodel.files import replacing as replacing
    from maskedmodel.hookspecs import hookimpl as hookimpl
    from maskedmodel.noise import Noise as Noise
    from maskedmodel.scales import ABSENT as ABSENT
    from maskedmodel.scales import Scale as Scale
    from maskedmodel.scales import Scales as Scales
    from maskedmodel.scales import heat as heat
    from maskedmodel.schedulers import FeatureEncoder as FeatureEncoder
    from maskedmodel.schedulers import MaskScheduler as MaskScheduler
    from maskedmodel.schedulers import Observed as Observed
    from maskedmodel.settings import Settings as Settings
    from maskedmodel.sources.bundles import natural_order as natural_order
    from maskedmodel.sources.dataset import SignalDataset as SignalDataset
    from maskedmodel.sources.files import EncodedFiles as EncodedFiles
    from maskedmodel.sources.files import existing_path as existing_path
    from maskedmodel.sources.files import holds as holds
    from maskedmodel.sources.labelled import FileSettings as FileSettings
    from maskedmodel.sources.labelled import LabelledFiles as LabelledFiles
    from maskedmodel.sources.labelled import Part as Part
    from maskedmodel.sources.splits import VALIDATION_NAMES as VALIDATION_NAMES
    from maskedmodel.sources.splits import split_by_share as split_by_share
    from maskedmodel.sources.splits import stratified as stratified
    from maskedmodel.tokenizers.grid import GridTokenizer as GridTokenizer
    from maskedmodel.tokenizers.normalised import MeanStd as MeanStd
    from maskedmodel.tokenizers.normalised import NormalisedTokenizer as NormalisedTokenizer
    from maskedmodel.tokenizers.normalised import known_statistics as known_statistics
    from maskedmodel.tokenizers.normalised import pair as pair
    from maskedmodel.tokens import Mask as Mask
    from maskedmodel.tokens import Output as Output
    from maskedmodel.tokens import Tokens as Tokens
    from maskedmodel.tokens import hidden_count as hidden_count
    from maskedmodel.training.tracking import Display as Display
    from maskedmodel.weights.facebook import from_facebook as from_facebook
    from maskedmodel.weights.huggingface import from_huggingface as from_huggingface
    from maskedmodel.weights.read import read_weights as read_weights
    from maskedmodel.weights.runs import load as load

_HOME = {
    "maskedmodel.commands": ["compare", "embed", "import_weights", "pretrain", "preview", "probe", "reconstruct"],
    "maskedmodel.components": [
        "Component",
        "DataSource",
        "Fact",
        "Objective",
        "Sample",
        "SampleDataset",
        "Split",
        "Tokenizer",
    ],
    "maskedmodel.engine.flops": ["block_flops", "cross_block_flops"],
    "maskedmodel.engine.layers": ["Block", "CrossBlock"],
    "maskedmodel.engine.model": ["MaskedAutoencoder"],
    "maskedmodel.engine.positions": ["PositionEmbedding", "gather_tokens"],
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
    "maskedmodel.files": ["replacing"],
    "maskedmodel.tokenizers.grid": ["GridTokenizer"],
    "maskedmodel.hookspecs": ["hookimpl"],
    "maskedmodel.noise": ["Noise"],
    "maskedmodel.tokenizers.normalised": ["MeanStd", "NormalisedTokenizer", "known_statistics", "pair"],
    "maskedmodel.scales": ["ABSENT", "Scale", "Scales", "heat"],
    "maskedmodel.schedulers": ["FeatureEncoder", "MaskScheduler", "Observed"],
    "maskedmodel.settings": ["Settings"],
    "maskedmodel.sources.bundles": ["natural_order"],
    "maskedmodel.sources.dataset": ["SignalDataset"],
    "maskedmodel.sources.files": ["EncodedFiles", "existing_path", "holds"],
    "maskedmodel.sources.labelled": ["FileSettings", "LabelledFiles", "Part"],
    "maskedmodel.sources.splits": ["VALIDATION_NAMES", "split_by_share", "stratified"],
    "maskedmodel.tokens": ["Mask", "Output", "Tokens", "hidden_count"],
    "maskedmodel.training.tracking": ["Display"],
    "maskedmodel.weights.read": ["read_weights"],
    "maskedmodel.weights.facebook": ["from_facebook"],
    "maskedmodel.weights.huggingface": ["from_huggingface"],
    "maskedmodel.weights.runs": ["load"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

# Names of 0.1.0 and what they are called since.
_RENAMED = {"Places": "PositionEmbedding", "pick": "gather_tokens"}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(
            f"maskedmodel.{name} is called {_RENAMED[name]} now; the old name goes with 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )
        name = _RENAMED[name]
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'maskedmodel' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
