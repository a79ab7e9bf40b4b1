"""Opens TIFF and OME-TIFF files that strangers made, and says in a DataError what is wrong with one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel.sources import PARSER_ERRORS
from maskedmodel_microscopy.ome import parse_ome
from maskedmodel_microscopy.tiff_image import Array, Header, TiffImage, TiffSettings

EXTENSIONS = (".tif", ".tiff")
_RAISED: tuple[type[Exception], ...] = (*PARSER_ERRORS, ImportError)  # what tifffile raises


def read_header(stream: BinaryIO, where: str, settings: TiffSettings) -> Header:
    """Raises DataError on a file that isn't a TIFF, is damaged, or whose axes mean nothing here."""
    with _reading(where), _opened(stream, where, settings) as image:
        return image.header()


def read_tiff(stream: BinaryIO, where: str, settings: TiffSettings) -> tuple[tuple[str, ...], Array]:
    """Channel names and pixels (C, H, W) float32. Raises DataError where there is nothing sound to read.

    Unsound are: a damaged or truncated file, an empty one (all pixels zero), infinity, and NaN unless settings take it.
    """
    with _reading(where), _opened(stream, where, settings) as image:
        return image.header().names, _sound(image.pixels(), where, settings)


def _sound(pixels: Array, where: str, settings: TiffSettings) -> Array:
    nan = int(np.isnan(pixels).sum())
    if nan == pixels.size:
        raise DataError("Every value of the file is NaN: no channel is there.", where=where)
    if nan and settings.nan == "refuse":
        raise DataError(
            "The file holds NaN.",
            where=where,
            got=f"{nan} of {pixels.size} values",
            fix="Set data.nan=absent to take such pixels as not there.",
        )
    if np.isinf(pixels).any():
        raise DataError("The file holds infinite values.", where=where, got=f"{int(np.isinf(pixels).sum())} of them")
    if not np.nan_to_num(pixels).any():
        raise DataError("The picture is empty.", where=where, expected="values that differ", got="0 everywhere")
    return pixels


class _Alone:
    """A stream that doesn't say where its file lies, so that no metadata can lead the reader to files beside it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read, self.seek, self.tell = stream.read, stream.seek, stream.tell

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """The stream belongs to whoever opened it."""


@contextmanager
def _opened(stream: BinaryIO, where: str, settings: TiffSettings) -> Iterator[TiffImage]:
    try:
        import tifffile
    except ImportError as error:
        raise DependencyError(
            "Reading TIFF files needs tifffile.", got=error, fix=install_hint(extra="microscopy")
        ) from error
    with tifffile.TiffFile(_Alone(stream)) as tiff:  # type: ignore[arg-type]
        text = tiff.ome_metadata
        described = parse_ome(text, where) if text else []
        if settings.series >= len(tiff.series):
            count = len(tiff.series)
            raise DataError("The file has no such image.", where=where, expected=f"series below {count}", got=count)
        told = described[settings.series] if settings.series < len(described) else None
        yield TiffImage(tiff.series[settings.series], told, _labels(tiff), where, settings)


def _labels(tiff: Any) -> list[str]:
    """ImageJ's names of the planes, where there are any."""
    labels = (tiff.imagej_metadata or {}).get("Labels") if tiff.is_imagej else None
    return [str(label) for label in labels] if isinstance(labels, list | tuple) else []


class _Complaints(logging.Filter):
    """Collects, in this thread, what tifffile logs as errors and reads on from as if nothing had been."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        mine = record.thread == self._thread
        if mine and record.levelno >= logging.ERROR:
            self.found.append(record.getMessage())
        return not mine


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turns what tifffile raises, or only logs, on a damaged file into a DataError that names it."""
    complaints, logger = _Complaints(), logging.getLogger("tifffile")
    logger.addFilter(complaints)
    try:
        yield
    except DependencyError:
        raise
    except _RAISED as error:
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, ImportError) or "imagecodecs" in text:  # zstd is looked for in Python's own library, too
            raise DependencyError(
                "The file's compression needs another package.",
                where=where,
                got=text,
                fix=f"{install_hint('imagecodecs')} Or save the file with zlib compression.",
            ) from error
        raise DataError(
            "The file can't be read as a TIFF: it is another kind, truncated or damaged.",
            where=where,
            got=text,
            fix="Replace the file, or let the run skip broken samples.",
        ) from error
    finally:
        logger.removeFilter(complaints)
    if complaints.found:
        raise DataError(
            "The TIFF is truncated or damaged.",
            where=where,
            got=complaints.found[0],
            fix="Replace the file, or let the run skip broken samples.",
        )
