"""Checks of how tokens enter the encoder and leave the decoder."""

from __future__ import annotations

import torch

from maskedmodel.components import Tokenizer, takes_coords
from maskedmodel.noise import seeded
from maskedmodel.testing.rules import ROUNDING, NotApplicable, difference, require
from maskedmodel.testing.signals import AnyTokenizer, prepared


def check_embed_and_head(tokenizer: AnyTokenizer) -> None:
    """`make_embed` and `make_head` give modules of the width asked for, which treat tokens one by one."""
    tokens = tokenizer.tokenize(prepared(tokenizer))
    values, coords = tokens.values.float(), tokens.coords.float().expand(tokens.batch, -1, -1)
    with seeded(0):
        embed, head = tokenizer.make_embed(8), tokenizer.make_head(8, 5)
        states = torch.randn(2, 3, 8)
    placed = (values, coords) if takes_coords(embed) else (values,)
    for name, module, given, width in (("embed", embed, placed, 8), ("head", head, (states,), 5)):
        out = module(*given)
        got, expected = tuple(out.shape), (*given[0].shape[:2], width)
        require(got == expected, tokenizer, f"make_{name} gave a module of a wrong shape", expected=expected, got=got)
        away = difference(module(*(one[:1, :2] for one in given)), out[:1, :2])
        require(
            away <= ROUNDING,
            tokenizer,
            f"make_{name} gave a module that mixes tokens",
            expected="the same for a token beside any others",
            got=f"a difference of {away:.2g} of the largest value",
            fix="Treat each token by itself: LayerNorm in place of BatchNorm. What is hidden must not be mixed in, and "
            "no loss may depend on how samples are batched.",
        )


def check_vocabulary(tokenizer: AnyTokenizer) -> None:
    """Where `vocabulary` says that values are ids, they are integers below it, embedded by a table."""
    count = tokenizer.vocabulary
    if not count:
        raise NotApplicable("vocabulary is 0: values are amounts")
    tokens = tokenizer.tokenize(prepared(tokenizer))
    values = tokens.values if tokens.valid is None else tokens.values[tokens.valid]
    low, high = float(values.min()), float(values.max())
    require(
        torch.equal(values, values.round()) and low >= 0 and high < count,
        tokenizer,
        "a value is no id of the vocabulary",
        expected=f"integers from 0 to {count - 1}",
        got=f"values from {low:g} to {high:g}",
        fix="Set vocabulary to the number of different ids, and number them from 0.",
    )
    require(
        type(tokenizer).make_embed is not Tokenizer.make_embed,
        tokenizer,
        "ids are embedded as if they were amounts",
        expected="a table with a vector for each id",
        got="the default make_embed, a linear layer",
        fix="Let make_embed return a module around torch.nn.Embedding.",
    )
