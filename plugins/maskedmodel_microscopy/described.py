"""What a stain's name says of it: its letters, and nothing of what it binds or how it shines."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import torch
from torch import Tensor

WIDTH = 32  # numbers that describe a name
_LONGEST = 3  # letters


def described(names: Iterable[str]) -> Tensor:
    """(names, 32) float32: for each name the sum over its runs of one to three letters, hashed, with mean square 1.

    After the hashing trick (Weinberger et al. 2009) on n-grams of letters as in fastText (Bojanowski et al. 2017), but
    nothing is learned: names that are spelt alike are near, as Alexa 488 and Alexa 568 are. Case, spaces and marks
    don't count. That DAPI and Hoechst both bind DNA it can't know.
    """
    rows = []
    for name in names:
        text = f"<{''.join(letter for letter in name.casefold() if letter.isalnum())}>"
        row = torch.zeros(WIDTH)
        for length in range(1, _LONGEST + 1):
            for start in range(len(text) - length + 1):
                number = crc32(text[start : start + length].encode("utf-8"))
                row[number % WIDTH] += 1 if number & 0x80000000 else -1
        rows.append(row / row.square().mean().sqrt().clamp(min=1e-6))
    return torch.stack(rows)
