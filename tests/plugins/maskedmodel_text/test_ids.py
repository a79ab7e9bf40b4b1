"""ids: the kit, ids as the library gives them, a file that moves, and what is no file of the library."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
import torch
from maskedmodel_masks.uniform import Uniform
from maskedmodel_objectives.codes import Codes
from maskedmodel_text.ids import Ids
from maskedmodel_text.vocabulary import IdsSettings, example_file

from maskedmodel import MaskedAutoencoder, export, load
from maskedmodel.engine.settings import ModelSettings
from maskedmodel.errors import CheckpointError, DataError
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import Fixed
from maskedmodel.weights.runs import save

TEXTS = ("the place of words, é", "on time", "a")
TINY = ModelSettings.model_validate(
    {"encoder": {"dim": 24, "depth": 1, "heads": 2}, "decoder": {"dim": 16, "depth": 1, "heads": 2}}
)


@parametrize_checks([Ids])
def test_conformance(check: Callable[[], None]) -> None:
    check()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return example_file(tmp_path)


def stored(tokenizer: Ids) -> torch.Tensor:
    return tokenizer.collate([torch.tensor(list(text.encode()), dtype=torch.uint8)[None] for text in TEXTS])


def test_ids_are_those_of_the_library(path: Path) -> None:
    tokenizer, library = Ids(path=str(path)), tokenizers.Tokenizer.from_file(str(path))
    tokens = tokenizer.tokenize(tokenizer.prepare(stored(tokenizer)))
    assert tokenizer.vocabulary == library.get_vocab_size()
    for row, text in enumerate(TEXTS):
        expected = library.encode(text, add_special_tokens=False).ids
        assert tokens.values[row, : len(expected), 0].tolist() == expected
        assert tokens.valid is not None
        assert int(tokens.valid[row].sum()) == len(expected)


def test_the_file_s_own_cutting_and_filling_is_left_out(path: Path) -> None:
    library = tokenizers.Tokenizer.from_file(str(path))
    library.enable_truncation(2)
    library.enable_padding(length=9)
    library.save(str(path))
    tokenizer = Ids(path=str(path))
    ids = tokenizer.prepare(stored(tokenizer))[0, 0]
    assert int((~ids.isnan()).sum()) > 9


def test_a_run_needs_the_file_no_more(path: Path, tmp_path: Path) -> None:
    model = MaskedAutoencoder(Ids(path=str(path)), Uniform(ratio=0.5), Codes(), TINY).eval()
    signal = stored(model.tokenizer)
    before = model.embed(model.tokenizer.prepare(signal))
    save(model, tmp_path / "run")
    path.unlink()
    again = load(tmp_path / "run")
    torch.testing.assert_close(again.embed(again.tokenizer.prepare(signal)), before)


def test_a_model_with_large_ids_in_bfloat16_keeps_them(path: Path) -> None:
    model = MaskedAutoencoder(Ids(path=str(path)), Fixed(), Codes(), TINY).bfloat16().eval()
    ids = torch.arange(257.0, 270.0).reshape(1, 1, -1)
    assert torch.equal(model.tokens(ids).values.flatten(), ids.flatten())
    assert torch.isfinite(model.encode(ids)).all()


def test_a_file_that_was_changed_is_not_taken_for_the_old_one(path: Path) -> None:
    settings = IdsSettings(path=str(path))
    path.write_text(path.read_text("utf-8").replace("false", "true ", 1), "utf-8")
    with pytest.raises(DataError, match=r"(?s)another than the settings are about.*sha256"):
        Ids(settings).prepare(torch.zeros(1, 1, 4))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"{}", "no tokenizer"), (b"the\nof\n", "vocab.txt"), (b"\xff\xfe", "no tokenizer"), (b'{"model": 3}', "model")],
)
def test_what_is_no_file_of_the_library_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=words):
        IdsSettings(path=str(tmp_path / "x.json"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)tokenizer's file can't be read.*none\.json"):
        IdsSettings(path=str(tmp_path / "none.json"))


def test_a_model_completes_ids(path: Path) -> None:
    model = MaskedAutoencoder(Ids(path=str(path)), Fixed(), Codes(), TINY).eval()
    signal = model.tokenizer.prepare(stored(model.tokenizer))
    whole = model.reconstruct(signal)
    assert whole.shape == signal.shape
    assert torch.equal(whole.isnan(), signal.isnan())
    ids = whole[~whole.isnan()]
    assert torch.equal(ids, ids.round())
    assert bool((ids < model.tokenizer.vocabulary).all())
    with pytest.raises(DataError, match="none of its classes"):
        Codes(classes=5).target(signal[:1].nan_to_num(0).transpose(1, 2))


def test_what_the_vocabulary_does_not_know_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "the": 1}, unk_token="[UNK]"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.save(str(tmp_path / "words.json"))
    tokenizer = Ids(path=str(tmp_path / "words.json"))
    with caplog.at_level(logging.WARNING, "maskedmodel"):
        for _ in range(2):
            tokenizer.prepare(stored(tokenizer))
    assert [record.getMessage().split(" know: ")[1] for record in caplog.records] == ["8 of the first 9."]


def test_a_graph_of_one_length_is_refused(path: Path, tmp_path: Path) -> None:
    save(MaskedAutoencoder(Ids(path=str(path)), Uniform(ratio=0.5), Codes(), TINY), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"(?s)'ids' makes of samples differs in length"):
        export(tmp_path / "run", "torch", out=tmp_path / "torch")


def test_ids_are_spelled_to_be_read(path: Path) -> None:
    tokenizer = Ids(path=str(path))
    ids = tokenizer.library.encode("the time é").ids
    assert "".join(tokenizer.spelled(ids[:-2])).replace(" ", "") == "thetime"
    assert any(text.startswith(" ") for text in tokenizer.spelled(ids))
    assert json.loads(path.read_text("utf-8"))["model"]["type"] == "BPE"
