"""What data sources share: files in folders and archives, their labels and their splits."""

from maskedmodel.components import SampleDataset, Split
from maskedmodel.files import replacing
from maskedmodel.sources.bundles import natural_order
from maskedmodel.sources.dataset import SignalDataset
from maskedmodel.sources.file_settings import FileSettings
from maskedmodel.sources.files import EncodedFiles, existing_path, holds
from maskedmodel.sources.labelled import LabelledFiles, Part
from maskedmodel.sources.splits import VALIDATION_NAMES, split_by_share, stratified

__all__ = [
    "VALIDATION_NAMES",
    "EncodedFiles",
    "FileSettings",
    "LabelledFiles",
    "Part",
    "SampleDataset",
    "SignalDataset",
    "Split",
    "existing_path",
    "holds",
    "natural_order",
    "replacing",
    "split_by_share",
    "stratified",
]
