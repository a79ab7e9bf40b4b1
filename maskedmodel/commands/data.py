"""Which data source reads what a user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from maskedmodel.components import DataSource, Sample, SampleDataset, Split
from maskedmodel.config.build import own_source, source_of
from maskedmodel.config.load import load_config
from maskedmodel.config.sections import Trained
from maskedmodel.errors import ConfigError, DataError, EmptySplitError
from maskedmodel.files import path_of
from maskedmodel.limits import read_within
from maskedmodel.plugins import Registry
from maskedmodel.sources.file_settings import FileSettings
from maskedmodel.training.folder import notices

C = TypeVar("C", bound=Trained)
ARCHIVES = (".zip", ".tar")  # a file that is a folder
# Settings of a run that say how samples are read, and nothing of what a sample is.
READING = ("train.batch", "train.data_timeout", "train.device", "train.on_bad_sample", "train.workers")


def how_to_read(
    data: Sequence[str | Path], config: C, registry: Registry, overrides: Sequence[str]
) -> tuple[C, list[str]]:
    """A run's config with what `overrides` say of reading, and those that are left, which say what other data are.

    Raises ConfigError for a setting that says neither, and for one of data where the run's own are named.
    """
    left = [text for text in overrides if text.startswith("data.")]
    how = [text for text in overrides if text not in left]
    strange = [text.partition("=")[0] for text in how if text.partition("=")[0] not in READING]
    own = len(data) == 1 and str(data[0]) in get_args(Split)
    if strange or (own and left):
        raise ConfigError(
            "The run's own data are read as it was trained with them." if own and left else "This can't be set here.",
            where=strange[0] if strange else left[0].partition("=")[0],
            expected=", ".join(READING) + (", for they change no sample" if own else ", or settings of the data named"),
            fix="Leave that out" + (", or name the data by their path." if own and left else "."),
        )
    if how:
        config = load_config(
            config.model_dump(mode="json"), how, registry=registry, kind=type(config), needs_data=False
        )
    return config, left


def read_file(path: Path, config: Trained, registry: Registry, overrides: Sequence[str] = ()) -> Sample:
    """One file as the run's data source reads it.

    Where that reads no files, where the weights were imported, or where `overrides` say how, the source that knows such
    files reads it.
    """
    source: DataSource[Any] | None = None
    if config.data is not None and not overrides:
        source = own_source(config, config.data, registry)
    if source is None or type(source).read is DataSource.read:
        source = source_at(path, config, registry, overrides)
    with read_within(config.train.data_timeout, path):
        return source.read(path)


def source_at(path: Path, config: Trained, registry: Registry, overrides: Sequence[str] = ()) -> DataSource[Any]:
    """The data source for a path: the run's own kind, with its settings but for names, where it knows such data."""
    if not path.exists():
        raise DataError("There is no such data.", where=path, expected="train, val, or the path of a file or folder")
    known = sorted(name for name, cls in registry.data_sources.items() if cls.recognises(path))
    named = [text.partition("=")[2] for text in overrides if text.startswith("data.name=")]
    own = {} if config.data is None else config.data.model_dump(mode="json")
    name = named[-1] if named else own.get("name") if own.get("name") in known else None
    if name is None and len(known) != 1:
        raise DataError(
            "It is unclear how to read this data.",
            where=path,
            got=f"known to {', '.join(known)}" if known else "no data source knows such files",
            fix="Say which data source reads it: data.name=NAME.",
        )
    fields = type(config.data).model_fields if config.data is not None and name == config.data.name else {}
    # Free text names things of the run's own data: its files, its labels, its cache. What was learned from it is kept.
    kept = {
        key: own[key]
        for key, field in fields.items()
        if key not in FileSettings.model_fields and str not in (field.annotation, *get_args(field.annotation))
    }
    name = name or known[0]
    if name in registry.data_sources and "channel_names" in registry.data_sources[name].settings_class.model_fields:
        # What the run calls its channels holds for data of another kind too: a new name is a channel it doesn't know.
        kept.setdefault("channel_names", _channels_of(config, registry))
    data = {**kept, "name": name, "path": str(path)}
    settled = load_config(
        {**config.model_dump(mode="json"), "data": data}, overrides, registry=registry, kind=type(config)
    )
    assert settled.data is not None
    return own_source(config, settled.data, registry)


def _channels_of(config: Trained, registry: Registry) -> list[str] | None:
    """What the channels of the run's own data are called; None where nothing says."""
    if config.data is None:
        return None
    names = own_source(config, config.data, registry).channel_names()
    return list(names) if names else None


def datasets_of(
    data: Sequence[str | Path], config: Trained, registry: Registry, overrides: Sequence[str] = ()
) -> list[SampleDataset]:
    """The samples that a user names: "train" or "val" of the run's own data; files of one sample each; or other data.

    Raises ConfigError where the run has no data of its own, DataError where there is nothing, or more than one folder.
    """
    paths = [path_of(one, DataError) for one in data]
    if len(data) == 1 and str(data[0]) in get_args(Split):
        own: DataSource[Any] = source_of(config, registry)
        return [own.open(data[0])]  # type: ignore[arg-type]
    if all(is_one_sample(path, registry) for path in paths):
        return [[read_file(path, config, registry, overrides) for path in paths]]
    if len(paths) > 1:
        several = [path for path in paths if not is_one_sample(path, registry)]
        raise DataError(
            "Of several paths each must be a file of one sample.",
            where=several[0],
            got="a folder or an archive" if several[0].exists() else "nothing is there",
            fix="Name one folder, or files.",
        )
    source = source_at(paths[0], config, registry, overrides)
    notices(source)
    return whole(source)


def is_one_sample(path: Path, registry: Registry) -> bool:
    """Whether a path is a file that sources of files would take for one sample, as a picture, a sound or a field is."""
    if not path.is_file() or path.suffix.lower() in ARCHIVES:
        return False
    known = [source for source in registry.data_sources.values() if source.recognises(path)]
    return all(issubclass(source.settings_class, FileSettings) for source in known)


def whole(source: DataSource[Any]) -> list[SampleDataset]:
    """All the samples of a source: of both splits, of which one may be empty where there is little.

    Raises the DataError of the training part where neither split has any.
    """
    found: list[SampleDataset] = []
    faults: list[DataError] = []
    for split in get_args(Split):
        try:
            found.append(source.open(split))
        except EmptySplitError as error:
            faults.append(error)
    if not found:
        raise faults[0]
    return found
