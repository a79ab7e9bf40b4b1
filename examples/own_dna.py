"""Pretrains on DNA in words of three letters (codons): here, sequences of two kinds that the script writes itself.

python examples/own_dna.py [FOLDER]        default: ./own-dna

It shows a tokenizer of ids: a `vocabulary`, a table of vectors, the objective `codes`, the mask `spans`. The script is
the plugin, too: it puts itself into the folder as `pip install` would.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from maskedmodel import GridTokenizer, Settings, hookimpl

LETTERS = "ACGT"


class KmersSettings(Settings):
    """DNA in words of k letters, one after the other."""

    name: Literal["kmers"] = "kmers"
    length: int = Field(96, gt=0, description="Usual length of a sequence, in letters; a multiple of k.")
    k: int = Field(3, ge=1, le=8, description="Letters of a word: there are 4^k words.")


class Table(nn.Embedding):
    """A vector for each word: (..., 1) to (..., D)."""

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values[..., 0].long())


class Kmers(GridTokenizer[KmersSettings]):
    """Sequences as texts, bytes (B, 1, letters), to numbers of words (B, 1, words); letters left over are cut off."""

    axes = ("place",)
    channels, patch = 1, (1,)
    accepts_nan = True  # shorter sequences in a batch

    def __init__(self, settings: KmersSettings | None = None, **values: object) -> None:
        super().__init__(settings, **values)
        self.vocabulary = 4**self.settings.k

    @property
    def size(self) -> tuple[int]:
        return (self.settings.length // self.settings.k,)

    def prepare(self, signal: Tensor) -> Tensor:
        """A letter that is none of A, C, G, T, such as N or a line feed, leaves its word out."""
        k = self.settings.k
        numbers = torch.full((256,), torch.nan)
        for number, letter in enumerate(LETTERS):
            numbers[[ord(letter), ord(letter.lower())]] = float(number)
        letters = numbers.to(signal.device)[signal.nan_to_num(0).long()]
        words = letters[..., : signal.shape[-1] // k * k].reshape(*signal.shape[:2], -1, k)
        return (words * 4 ** torch.arange(k - 1, -1, -1, device=signal.device)).sum(-1)  # NaN where a letter is

    def make_embed(self, dim: int) -> nn.Module:
        return Table(self.vocabulary, dim)

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(4, (batch, 1, self.settings.length), generator=generator)
        return torch.tensor([ord(letter) for letter in LETTERS])[drawn].float()


@hookimpl
def maskedmodel_tokenizers() -> list[type]:
    return [Kmers]


def write_sequences(folder: Path) -> None:
    """Two classes that repeat motifs of their own among random letters."""
    noise = np.random.default_rng(0)
    motifs = {"promoter": ("TATAAA", "GGGCGG"), "coding": ("ATGGCC", "GAAGAG")}
    for kind, own in motifs.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(40):
            parts = ["".join(noise.choice([*LETTERS], 6)) for _ in range(16)]
            parts = [own[noise.integers(2)] if noise.random() < 0.5 else part for part in parts]
            (folder / kind / f"{number:02d}.txt").write_text("".join(parts) + "\n", "utf-8")


CONFIG = """
data: {name: text_folder, path: SEQUENCES, length: 96, cut: documents, val_share: 0.25}
tokenizer: {name: kmers, length: 96, k: 3}
mask: {name: spans, ratio: 0.25, mean: 2}
objective: {name: codes}
model:
  encoder: {dim: 32, depth: 2, heads: 2, positions: rotary}
  decoder: {dim: 32, depth: 1, heads: 2, positions: rotary}
optim: {lr: 2.0e-2}
train: {steps: 150, batch: 16}
evaluate: {probe: false}
"""


def install(folder: Path) -> None:
    """What `pip install` leaves of a plugin: its module, and metadata with its entry point."""
    (folder / "maskedmodel_dna.py").write_text(Path(__file__).read_text("utf-8"), "utf-8")
    about = folder / "maskedmodel_dna-0.1.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: maskedmodel-dna\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[maskedmodel]\ndna = maskedmodel_dna\n")


def main(folder: Path) -> None:
    """Check the tokenizer, pretrain, and draw what the model completes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_sequences(folder / "sequences")
    install(folder)
    (folder / "dna.yaml").write_text(CONFIG.replace("SEQUENCES", str(folder / "sequences")), "utf-8")
    path = os.pathsep.join(filter(None, (str(folder.absolute()), os.environ.get("PYTHONPATH"))))
    run = str(folder / "run")
    for arguments in (
        ["plugins", "check", "dna"],
        ["pretrain", str(folder / "dna.yaml"), "--run", run],
        ["reconstruct", run],
    ):
        command = [sys.executable, "-m", "maskedmodel", *arguments]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own-dna"))
