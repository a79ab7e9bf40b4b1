"""Bytes that others wrote: what parsers raise on them comes out as a DataError, here and nowhere else."""

from __future__ import annotations

import csv
import lzma
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from maskedmodel.errors import DataError, MaskedModelError

# What json, csv, zipfile, tarfile, numpy, pyarrow, Pillow and tifffile were seen to raise on damaged files. numpy
# evaluates the header of an .npy as Python, so that SyntaxError, TokenError, TypeError and RecursionError come from
# there; LookupError and AttributeError come from metadata of another form than its format says.
PARSER_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,  # tifffile checks tags so
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,  # NotImplementedError and RecursionError are of its kind
    SyntaxError,
    TypeError,
    ValueError,  # UnicodeError and JSONDecodeError are of its kind
    csv.Error,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def parsing(
    what: str,
    where: object,
    *,
    expected: object = None,
    fix: str | None = None,
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """A block that hands bytes of others to a parser, and does nothing else.

    Whatever the parser raises becomes DataError(what, where=where, ...); errors of ours go through. `also` has what a
    library raises besides, such as pyarrow's own base class.
    """
    try:
        yield
    except MaskedModelError:
        raise
    except (*PARSER_ERRORS, *also) as error:
        raise DataError(what, where=where, expected=expected, got=_said(error), fix=fix) from error


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
