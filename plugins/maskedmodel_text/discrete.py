"""What tokenizers of text share: ids along a line, a table of vectors for them, and pictures that can be read."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from maskedmodel import GridTokenizer, Settings, Tokens
from maskedmodel.pictures import Scales
from maskedmodel_text.legible import Grid, page

S = TypeVar("S", bound=Settings)
_WORDS = ("the", "of a", "text", "is are", "in time", "and place;", "word\n", "on two", "letters:", "stand by", "it.")


class Table(nn.Embedding):
    """A vector for each id at each place of a token, added up: (..., P) to (..., D), which is linear in one-hot ids."""

    def __init__(self, ids: int, places: int, dim: int) -> None:
        super().__init__(ids * places, dim)
        nn.init.normal_(self.weight, std=places**-0.5)
        self.ids = ids

    def forward(self, values: Tensor) -> Tensor:
        first = torch.arange(values.shape[-1], device=values.device) * self.ids
        return super().forward(values.round().long().clamp(0, self.ids - 1) + first).sum(-2)


class Discrete(GridTokenizer[S]):
    """Ids (B, 1, N) float, exact up to 2^24, of texts of any length; NaN stands behind the end of a shorter one.

    Stored, a text is its UTF-8 bytes (B, 1, bytes), whatever the ids are: uint8, or floating point with NaN behind the
    end of a shorter one. A subclass states `vocabulary`, the number of ids, and says how ids are spelled.
    """

    axes = ("place",)
    accepts_nan = True
    channels = 1
    noun: ClassVar[str] = "id"
    cell: ClassVar[int] = 1  # characters that an id gets in a picture

    @abstractmethod
    def spelled(self, ids: list[int]) -> list[str]:
        """What is drawn for each id of a text; "" where the one before stands for it, too."""

    def make_embed(self, dim: int) -> nn.Module:
        return Table(self.vocabulary, self.token_width, dim)

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """Short words in any order, as the UTF-8 bytes that sources give, of the usual length."""
        length = self.size[0]
        drawn = torch.randint(len(_WORDS), (batch, length), generator=generator).tolist()
        texts = [" ".join(_WORDS[word] for word in row).encode()[:length] for row in drawn]
        return torch.tensor([list(text) for text in texts], dtype=torch.float32)[:, None]

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        """Ids as they are spelled, red where they differ from those of `like`; nothing behind the end of a text."""
        ids = signal.detach().float().cpu().reshape(len(signal), -1)
        known = ids if like is None else like.detach().float().cpu().reshape(len(signal), -1)
        wrong = (ids != known) & ~ids.isnan() & ~known.isnan()
        cells: list[list[str | None]] = []
        for row in ids:
            there = ~row.isnan()
            told = iter(self.spelled(row[there].round().long().clamp(0, self.vocabulary - 1).tolist()))
            cells.append([next(told) if real else None for real in there.tolist()])
        return page(cells, wrong, self.cell).to(signal.device)

    def scales(self, signal: Tensor) -> Scales:
        return Grid(signal.shape[-1], self.cell).scales(self.noun)

    def footprint(self, tokens: Tokens, chosen: Tensor) -> Tensor:
        places = chosen.repeat_interleave(self.patch[0], 1)
        return Grid(places.shape[1], self.cell).pixels(places)

    def plain_features(self, stored: Tensor) -> dict[str, Tensor]:
        """How often each byte occurs, as a share of the text, (B, 256)."""
        values = stored.flatten(1).float()
        real = ~values.isnan()
        counts = torch.zeros(len(values), 256, device=values.device)
        counts.scatter_add_(1, values.nan_to_num(0).long(), real.float())
        return {"byte histogram": counts / real.sum(1, keepdim=True).clamp(min=1)}
