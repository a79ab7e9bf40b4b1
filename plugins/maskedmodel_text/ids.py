"""The `ids` tokenizer: text as the ids that a file of Hugging Face's `tokenizers` gives it."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskedmodel.errors import DataError
from maskedmodel_text.discrete import Discrete
from maskedmodel_text.vocabulary import IdsSettings, example_file, parse, read

log = logging.getLogger("maskedmodel")


class Ids(Discrete[IdsSettings]):
    """A token is an id of the file's vocabulary. No special tokens are put in, nothing is cut off or filled up.

    The file's bytes are the buffer `file`: they go with the weights, and what they are is held against `sha256`.
    """

    noun, cell, patch = "id", 8, (1,)
    file: Tensor

    def __init__(self, settings: IdsSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        s = self.settings
        assert s.vocabulary is not None
        assert s.bytes is not None
        self.vocabulary, self.value_range = s.vocabulary, (0, s.vocabulary - 1)
        content = read(s.path) if Path(s.path).expanduser().is_file() else b""
        if len(content) != s.bytes:  # moved or changed since: the weights of a run bring it
            content = bytes(s.bytes)
        self.register_buffer("file", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self._library: Any = None
        self._told = False

    @classmethod
    def example_settings(cls, folder: Path) -> IdsSettings:
        """A small byte-level BPE, written into `folder`: what the conformance kit cuts with."""
        return IdsSettings(path=str(example_file(folder)), length=48)

    @property
    def library(self) -> Any:
        """The tokenizer of the library. Raises DataError where the file isn't the one that the settings are about."""
        if self._library is None:
            content = self.file.cpu().numpy().tobytes()
            if sha256(content).hexdigest() != self.settings.sha256:
                raise DataError(
                    "The tokenizer's file isn't there, or is another than the settings are about.",
                    where=self.settings.path,
                    expected=f"{self.settings.bytes} bytes whose sha256 is {self.settings.sha256}",
                    fix="Bring it back, load the run's weights, which hold it, or leave tokenizer.sha256 out.",
                )
            self._library = parse(content, self.settings.path)
        return self._library

    def prepare(self, signal: Tensor) -> Tensor:
        """UTF-8 bytes (B, 1, bytes) to ids (B, 1, N), by the library, on the processor."""
        rows = []
        for row in signal.detach().cpu().flatten(1).numpy():
            text = row[~np.isnan(row)] if row.dtype.kind == "f" else row
            rows.append(
                self.library.encode(
                    text.astype(np.uint8).tobytes().decode("utf-8", "replace"), add_special_tokens=False
                ).ids
            )
        self._tell(rows)
        ids = torch.full((len(rows), 1, max(map(len, rows), default=0) or 1), torch.nan)
        for place, row in enumerate(rows):
            ids[place, 0, : len(row)] = torch.tensor(row, dtype=torch.float32)
        return ids.to(signal.device)

    def _tell(self, rows: list[list[int]]) -> None:
        """That there are texts which the vocabulary doesn't cover: once."""
        unknown = self.library.token_to_id(getattr(self.library.model, "unk_token", None) or "")
        count = sum(row.count(unknown) for row in rows) if unknown is not None and not self._told else 0
        if count:
            self._told = True
            total = sum(map(len, rows))
            log.warning("Ids for what %s doesn't know: %d of the first %d.", self.settings.path, count, total)

    def spelled(self, ids: list[int]) -> list[str]:
        return [self._spelled(number) for number in ids]

    def _spelled(self, number: int) -> str:
        """Decoded where that gives characters, with the space that many vocabularies put in a sign of its own."""
        token = self.library.id_to_token(number) or "\ufffd"
        text = self.library.decode([number], skip_special_tokens=False)
        return (
            token if not text or "\ufffd" in text else " " * token.startswith(("\u0120", "\u2581")) + text.lstrip(" ")
        )
