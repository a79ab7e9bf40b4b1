"""The `bytes` tokenizer: text as its UTF-8 bytes, with nothing to be trained or downloaded."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import Settings
from maskedmodel_text.discrete import Discrete


class BytesSettings(Settings):
    """UTF-8 bytes, one or several in a token (ByT5, Xue et al. 2022; MegaByte, Yu et al. 2023)."""

    name: Literal["bytes"] = "bytes"
    length: int = Field(256, gt=0, description="Usual length of a text, in bytes; any other is cut as well.")
    patch: int = Field(
        1, gt=0, description="Bytes of a token. With more than 1 the last token of a text is filled up with zeros."
    )


class Bytes(Discrete[BytesSettings]):
    """A token is a byte, or `patch` of them. The 256 values are all it needs: byte 0, which texts don't have, fills up.

    A stored signal is (B, 1, bytes) uint8, or floating point with NaN behind the end of a shorter text.
    """

    vocabulary = 256
    value_range = (0, 255)
    noun = "byte"

    def prepare(self, signal: Tensor) -> Tensor:
        """Bytes in floating point, whole tokens of them."""
        signal = signal if signal.is_floating_point() else signal.float()
        patch = self.settings.patch
        if patch == 1 or signal.dim() != 3:
            return signal
        tokens = F.pad(signal, (0, -signal.shape[-1] % patch), value=torch.nan).reshape(*signal.shape[:2], -1, patch)
        absent = tokens.isnan()
        return tokens.masked_fill(absent & ~absent.all(-1, keepdim=True), 0).flatten(-2)

    def spelled(self, ids: list[int]) -> list[str]:
        """Each character at its first byte; the replacement character for each byte that belongs to none."""
        found: list[str] = []
        rest = bytes(ids)
        while rest:
            length = 1 if rest[0] < 0xC0 else 2 if rest[0] < 0xE0 else 3 if rest[0] < 0xF0 else 4
            letter = rest[:length].decode("utf-8", "replace")
            whole = len(letter) == 1 and letter != "\ufffd"
            found += [letter, *[""] * (len(rest[:length]) - 1)] if whole else ["\ufffd"]
            rest = rest[length if whole else 1 :]
        return ["\ufffd" if letter < " " and letter not in ("", "\n", "\t", "\r") else letter for letter in found]
