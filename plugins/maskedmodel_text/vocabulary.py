"""Files of Hugging Face's `tokenizers`: read, checked by their content, never run."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from maskedmodel import Settings
from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel.sources import existing_path, legible, open_regular, parsing

_MOST = 1 << 28  # bytes: ten times the largest vocabularies
_WORDS = "the of a text is are in time and place word on two letters with stands by that it as we go"


class IdsSettings(Settings):
    """Words or parts of words by a file, as BERT's WordPiece (Devlin 2019) or byte-level BPE (Radford 2019)."""

    name: Literal["ids"] = "ids"
    path: str = Field(description="A tokenizer.json of Hugging Face's `tokenizers`, which is read and never run.")
    length: int = Field(128, gt=0, description="Usual length of a text, in ids; any other is cut as well.")
    sha256: str | None = Field(
        None,
        description="Fingerprint of the file, filled in when it is first read. A run keeps it in its config and the "
        "file itself in its checkpoints: a trained model needs the path no more.",
    )
    bytes: int | None = Field(None, ge=0, description="Size of the file, filled in likewise.")
    vocabulary: int | None = Field(None, ge=2, description="Number of ids, filled in likewise.")

    @model_validator(mode="before")
    @classmethod
    def _look(cls, values: Any) -> Any:
        """Fill in what the file says. Raises DataError on a file that is none, DependencyError without the library."""
        if not isinstance(values, dict) or not isinstance(values.get("path"), str) or values.get("sha256"):
            return values
        content = read(values["path"])
        ids = parse(content, values["path"]).get_vocab(with_added_tokens=True).values()
        found = {"sha256": sha256(content).hexdigest(), "bytes": len(content), "vocabulary": max(ids, default=0) + 1}
        return {**values, **found}


def load_tokenizers() -> Any:
    """The library. Raises DependencyError where it is missing."""
    try:
        import tokenizers
    except ImportError as error:
        hint = install_hint(extra="text")
        raise DependencyError("Tokenizer 'ids' needs tokenizers.", got=str(error), fix=hint) from error
    return tokenizers


def read(path: str) -> bytes:
    """The bytes of a file. Raises DataError where it can't be read, or is larger than any vocabulary."""
    with open_regular(existing_path(path, "tokenizer's file"), legible(path)) as file:
        content = file.read(_MOST + 1)
    if len(content) > _MOST:
        raise DataError("The tokenizer's file is too large.", where=legible(path), expected=f"at most {_MOST} bytes")
    return content


def parse(content: bytes, path: str) -> Any:
    """The tokenizer that a file describes, without its own cutting off and filling up. Raises DataError on others."""
    library = load_tokenizers()
    with parsing(
        "The file is no tokenizer of Hugging Face's `tokenizers`.",
        legible(path),
        expected="a tokenizer.json, as tokenizers' save or transformers' save_pretrained writes it",
        fix="Give that file; a vocab.txt or a SentencePiece model must be converted first.",
        also=(Exception,),  # the library raises no other
    ):
        found = library.Tokenizer.from_str(content.decode("utf-8"))
    found.no_truncation()
    found.no_padding()
    return found


def example_file(folder: Path) -> Path:
    """A byte-level BPE of some 270 ids, written to the folder."""
    library = load_tokenizers()
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([_WORDS] * 4, trainer)
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"
