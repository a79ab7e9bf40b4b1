"""bytes: the kit, what a token is, what fills up, pictures and the plain features."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from maskedmodel_masks.spans import Spans
from maskedmodel_objectives.codes import Codes
from maskedmodel_text.bytewise import Bytes

from maskedmodel import Mask, MaskedAutoencoder
from maskedmodel.engine.settings import ModelSettings
from maskedmodel.errors import ShapeError
from maskedmodel.testing import parametrize_checks

TINY = ModelSettings.model_validate(
    {"encoder": {"dim": 24, "depth": 1, "heads": 2}, "decoder": {"dim": 16, "depth": 1, "heads": 2}}
)


def stored(*texts: str) -> torch.Tensor:
    return Bytes().collate([torch.tensor(list(text.encode()), dtype=torch.uint8)[None] for text in texts])


@parametrize_checks([Bytes(length=96), Bytes(length=96, patch=4)])
def test_conformance(check: Callable[[], None]) -> None:
    check()


def test_a_token_is_a_byte_and_padding_is_no_token() -> None:
    tokenizer = Bytes()
    tokens = tokenizer.tokenize(tokenizer.prepare(stored("café", "no")))
    assert tokens.values[0, :, 0].tolist() == list("café".encode())
    assert tokens.valid is not None
    assert tokens.valid.sum(1).tolist() == [5, 2]
    assert tokens.observed is None


def test_a_short_text_beside_a_long_one_scores_as_alone() -> None:
    torch.manual_seed(0)
    tokenizer = Bytes(length=16)
    model = MaskedAutoencoder(tokenizer, Spans(ratio=0.4), Codes(), TINY).eval()
    both = tokenizer.prepare(stored("a long text of many words", "so short"))
    hidden = torch.zeros(2, 25, dtype=torch.bool)
    hidden[:, 2:5] = True
    hidden[1, 8:] = True  # padding that a mask hides is neither visible nor scored
    together = model(both, Mask(hidden)).loss_per_token[1]
    alone = model(both[1:, :, :8], Mask(hidden[1:, :8])).loss_per_token[0]
    torch.testing.assert_close(together[:3], alone)
    assert together[3:].abs().sum() == 0


def test_the_last_token_of_several_bytes_is_filled_up_with_zeros_and_scored() -> None:
    tokenizer = Bytes(length=8, patch=4)
    tokens = tokenizer.tokenize(tokenizer.prepare(stored("abcdefghij", "xyzuv")))
    assert tokens.values[0].tolist() == [list(b"abcd"), list(b"efgh"), [*b"ij", 0, 0]]
    assert tokens.valid.tolist() == [[True, True, True], [True, True, False]]
    assert tokens.values[1, 1].tolist() == [*b"v", 0, 0, 0]
    assert tokens.observed is None  # nothing is there in part


def test_an_embedding_is_a_linear_layer_on_one_hot_bytes() -> None:
    embed = Bytes(length=8, patch=2).make_embed(5)
    values = torch.tensor([[[3.0, 250.0]]])
    expected = embed.weight[3] + embed.weight[256 + 250]
    torch.testing.assert_close(embed(values)[0, 0], expected)


def test_pixels_of_a_wrong_byte_are_red_and_only_those() -> None:
    tokenizer = Bytes(length=8)
    original, other = (tokenizer.prepare(stored(text)) for text in ("a word", "a ward"))
    same, wrong = tokenizer.picture(original, original), tokenizer.picture(other, original)
    changed = (same != wrong).any(1)[0]
    place = tokenizer.footprint(tokenizer.tokenize(original), torch.arange(6)[None] == 3)[0]
    assert changed.any()
    assert not (changed & ~place).any()
    red, green, _ = wrong[0][:, place]
    assert bool((red >= green).all())
    assert bool((red > green + 0.1).all())


def test_what_has_no_shape_is_drawn_all_the_same() -> None:
    tokenizer = Bytes(length=8)
    assert tokenizer.spelled(list("é \n".encode())) == ["é", "", " ", "\n"]
    assert tokenizer.spelled([0xC3, 0x28, 0xFF, 0]) == ["�", "(", "�", "�"]
    assert tokenizer.spelled(list("né".encode()[:2])) == ["n", "�"]
    picture = tokenizer.picture(tokenizer.prepare(stored("a b")))
    assert bool((picture[..., 9:18] < 1).any())  # the space


def test_long_texts_are_drawn_in_part_and_the_picture_says_so() -> None:
    tokenizer = Bytes(length=5000)
    signal = torch.full((1, 1, 5000), 97.0)
    assert tokenizer.picture(signal).shape[-2:] == (34 * 18, 64 * 9)
    assert tokenizer.scales(signal).vertical.title == "byte, the first 2176 of 5000"


def test_the_histogram_is_a_share_of_each_text() -> None:
    features = Bytes().plain_features(stored("aab", "cccccc"))["byte histogram"]
    assert features.shape == (2, 256)
    assert features[0, 97].item() == pytest.approx(2 / 3)
    assert features[1, 99].item() == 1.0
    torch.testing.assert_close(features.sum(1), torch.ones(2))


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(batch, 1 channels, place\)"):
        Bytes().tokenize(torch.zeros(2, 3, 8))
