"""Files of text as bytes of UTF-8: decoded, or refused with the setting that settles it."""

from __future__ import annotations

import codecs
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, field_validator

from maskedmodel import Settings
from maskedmodel.errors import DataError

_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class TextSettings(Settings):
    """How texts are decoded and cut."""

    length: int = Field(256, ge=8, description="Most bytes of a sample, in UTF-8, whatever the files are written in.")
    cut: Literal["pieces", "lines", "documents"] = Field(
        "pieces",
        description="What a sample is. pieces: a text is cut behind white space into pieces of `length`. lines: each "
        "line that isn't blank, longer ones in pieces. documents: the beginning of each text, the rest is left out.",
    )
    encoding: str = Field("utf-8", description="What texts are written in, such as utf-8, latin-1, cp1252 or utf-16.")
    undecodable: Literal["refuse", "replace", "skip"] = Field(
        "refuse",
        description="What becomes of a text that isn't in this encoding. replace: U+FFFD for what can't be decoded. "
        "skip: the text is left out. Both are counted.",
    )

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            codecs.lookup(encoding)
            "".encode(encoding)  # not one of Python's own, such as base64
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{encoding!r} is no encoding that Python knows, such as utf-8 or latin-1") from error
        return encoding


@dataclass
class Decoder:
    """Bytes of a file as text in UTF-8; counts what it changed."""

    settings: TextSettings
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, content: bytes, where: str) -> bytes | None:
        """The text; None where the settings say to leave it out. Raises DataError where it isn't in the encoding."""
        encoding = self.settings.encoding
        mark = _MARKS.get(content[:2])
        if mark is not None and codecs.lookup(encoding).name == "utf-8":
            return self._bad(content, where, f"the mark of {mark}", f"Set data.encoding={mark}.")
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            got = f"{content[error.start : error.start + 4]!r} at byte {error.start}"
            return self._bad(content, where, got, "Set data.encoding, to latin-1 say, or data.undecodable.")
        if "\0" in text:
            got = f"a NUL at character {text.index(chr(0))}: binary data, or utf-16 without its mark"
            return self._bad(content, where, got, "Set data.encoding, or data.undecodable=skip.")
        return self._plain(text)

    def _plain(self, text: str) -> bytes:
        self.counts["byte order marks, left out"] += text.startswith("\ufeff")
        self.counts["texts whose lines end as on Windows or old Macs, brought to one line feed"] += "\r" in text
        text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        return text.encode("utf-8", "replace")  # lone surrogates, which JSON can hold, become question marks

    def _bad(self, content: bytes, where: str, got: str, fix: str) -> bytes | None:
        if self.settings.undecodable == "refuse":
            raise DataError("A text can't be decoded.", where=where, expected=self.settings.encoding, got=got, fix=fix)
        done = {"replace": "read with U+FFFD in places", "skip": "left out"}[self.settings.undecodable]
        self.counts[f"texts that aren't in {self.settings.encoding}, {done}"] += 1
        if self.settings.undecodable == "skip":
            return None
        return self._plain(content.decode(self.settings.encoding, "replace").replace("\0", "\ufffd"))
