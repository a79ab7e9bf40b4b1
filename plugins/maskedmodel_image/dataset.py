"""What the sources open: signals with ids and labels, decoded one by one, from memory, or from a cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from maskedmodel import Sample
from maskedmodel.errors import DataError
from maskedmodel.sources import EncodedFiles, SignalDataset, Split, open_regular, path_of
from maskedmodel_image.cache import Stored, in_memory, on_disk
from maskedmodel_image.decode import (
    CHANNELS,
    Form,
    ImageFileSettings,
    decode,
    find_form,
    open_image,
    reading,
    shown_box,
    upright_size,
)

_log = logging.getLogger(__name__)

# How many unreadable files to pass over in search of the first readable one.
_TRIES = 64


class _Decoder:
    """Reads image `chosen[index]`."""

    def __init__(self, images: EncodedFiles, chosen: Sequence[int], form: Form, settings: ImageFileSettings) -> None:
        self.images, self.chosen, self.form, self.settings = images, chosen, form, settings

    def __call__(self, index: int) -> Tensor:
        number = self.chosen[index]
        with self.images.open(number) as stream:
            return decode(stream, self.images.name(number), self.form, self.settings)


def form_of(images: EncodedFiles, settings: ImageFileSettings) -> Form:
    """What the settings say, else the first image whose header can be read. Raises DataError where none can be."""
    if settings.size is not None and settings.dtype != "auto":
        height, width = (settings.size, settings.size) if isinstance(settings.size, int) else settings.size
        return Form((CHANNELS[settings.mode], height, width), settings.dtype)
    first: DataError | None = None
    for index in range(min(len(images), _TRIES)):
        try:
            with images.open(index) as stream:
                return find_form(stream, images.name(index), settings)
        except DataError as error:
            first = first or error
    assert first is not None, "a source refuses to open without images"
    raise first


def open_images(
    images: EncodedFiles,
    chosen: Sequence[int],
    ids: Sequence[str],
    labels: Sequence[int | None] | None,
    form: Form,
    settings: ImageFileSettings,
    split: Split,
    timeout: float,
    groups: Sequence[str] | None = None,
    targets: Callable[[int], Tensor | None] | None = None,
    boxes: Callable[[int], Tensor] | None = None,
) -> SignalDataset:
    """The chosen images as a dataset, stored decoded where the settings say so. `ids` and `labels` are theirs.

    Of those stored, one that takes longer than `timeout` seconds can't be read.
    """
    decoder = _Decoder(images, chosen, form, settings)
    read: Callable[[int], Tensor] | Stored = decoder
    if settings.memory:
        _log.info("decoding %d images into memory", len(ids))
        read = in_memory(decoder, len(ids), form, timeout)
    elif settings.cache is not None:
        key = _fingerprint(images, chosen, ids, form, settings)
        folder = path_of(settings.cache, DataError)
        read = on_disk(decoder, ids, form, folder, split, key, timeout)
    return SignalDataset(read, ids, labels, groups, targets=targets, boxes=boxes)


def _fingerprint(
    images: EncodedFiles, chosen: Sequence[int], ids: Sequence[str], form: Form, settings: ImageFileSettings
) -> str:
    """A digest that changes when a decoded pixel could."""
    parts = [list(form.shape), form.dtype, settings.model_dump(include={"size", "mode", "dtype", "max_pixels"})]
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12)
    for number, sample_id in zip(chosen, ids, strict=True):
        digest.update(f"{sample_id}\0{images.stamp(number)}\n".encode())
    return digest.hexdigest()


def read_file(path: Path, settings: ImageFileSettings) -> Sample:
    """One image file that a user names, as a source of these settings would hold it. Raises DataError."""
    with open_regular(path) as stream:
        form = find_form(stream, str(path), settings)
        stream.seek(0)
        with reading(str(path)):
            size = upright_size(*open_image(stream, str(path), settings.max_pixels))
        stream.seek(0)
        signal = decode(stream, str(path), form, settings)
        return Sample(signal=signal, id=path.name, box=shown_box(size, form))
