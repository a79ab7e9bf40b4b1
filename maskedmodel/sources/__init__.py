"""What data sources share: files in folders and archives, their labels and their splits."""

from maskedmodel.components import SampleDataset, Split
from maskedmodel.files import path_of, replacing
from maskedmodel.limits import single_read
from maskedmodel.sources.bounds import MOST_SHRUNK, check_memory, check_size, memory_of_machine, row_batches
from maskedmodel.sources.bundles import natural_order
from maskedmodel.sources.dataset import SignalDataset
from maskedmodel.sources.decoding import decoded
from maskedmodel.sources.file_settings import FileSettings
from maskedmodel.sources.files import EncodedFiles, existing_path, files_at, holds
from maskedmodel.sources.folders import FolderFiles, legible, open_regular
from maskedmodel.sources.foreign import PARSER_ERRORS, parsing
from maskedmodel.sources.labelled import LabelledFiles, Part
from maskedmodel.sources.labels import class_numbers, doubt_labels, in_order, label_facts
from maskedmodel.sources.splits import (
    VALIDATION_NAMES,
    NamedSplit,
    named_split,
    names_among,
    split_by_share,
    split_in_name,
    split_word,
    stratified,
)
from maskedmodel.sources.telling import looked_at, spread, tally

__all__ = [
    "MOST_SHRUNK",
    "PARSER_ERRORS",
    "VALIDATION_NAMES",
    "EncodedFiles",
    "FileSettings",
    "FolderFiles",
    "LabelledFiles",
    "NamedSplit",
    "Part",
    "SampleDataset",
    "SignalDataset",
    "Split",
    "check_memory",
    "check_size",
    "class_numbers",
    "decoded",
    "doubt_labels",
    "existing_path",
    "files_at",
    "holds",
    "in_order",
    "label_facts",
    "legible",
    "looked_at",
    "memory_of_machine",
    "named_split",
    "names_among",
    "natural_order",
    "open_regular",
    "parsing",
    "path_of",
    "replacing",
    "row_batches",
    "single_read",
    "split_by_share",
    "split_in_name",
    "split_word",
    "spread",
    "stratified",
    "tally",
]
