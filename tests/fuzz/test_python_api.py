"""The public Python API given wrong types, shapes, widths and empty batches: it works, or raises an error of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from maskedmodel import Mask, MaskedAutoencoder, Noise, Output, Tokens
from maskedmodel.errors import MaskedModelError
from tests.drawn import examples
from tests.engine.conftest import Box, Ragged, model_of

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
SHAPES = st.sampled_from(
    [
        (2, 3, 8, 12),
        (1, 3, 8, 12),
        (0, 3, 8, 12),
        (2, 3, 8, 11),
        (2, 2, 8, 12),
        (3, 8, 12),
        (2, 3, 2, 3),
        (2, 12),
        (7,),
        (),
    ]
)
BOUNDED, LONG = examples(150), examples(4000)


@st.composite
def tensors(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES) -> Tensor:
    shape, kind = draw(shapes), draw(st.sampled_from(DTYPES))
    values = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    if kind.is_floating_point and values.numel() and draw(st.booleans()):
        values.view(-1)[0] = draw(st.sampled_from([torch.nan, torch.inf, -1e30]))
    return (values * 3).to(kind)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.text(max_size=3),
    st.lists(st.floats(), max_size=3),
    st.just({}),
    st.just(object()),
)
ANYTHING = st.one_of(tensors(), tensors().filter(lambda t: t.dtype != torch.bfloat16).map(lambda t: t.numpy()), JUNK)


@st.composite
def masks(draw: st.DrawFn) -> Any:
    """Masks that fit, that don't, and what is none."""
    width, rows = draw(st.sampled_from([16, 4, 0, 15])), draw(st.sampled_from([2, 1, 0]))
    hidden = torch.rand(rows, width, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))) < draw(
        st.sampled_from([0.0, 0.5, 1.0])
    )
    valid = torch.rand(rows, width) < 0.7 if draw(st.booleans()) else None
    widths = draw(st.sampled_from([None, (4, 12), (0, 0), (16, 16), (-1, 3)]))
    return Mask(hidden, valid, widths, draw(st.sampled_from([None, True, False])))


@pytest.fixture(scope="module")
def models() -> list[MaskedAutoencoder]:
    return [
        model_of(Box()),
        model_of(Box(), encoder={"class_token": True, "positions": "rotary"}, normalise=True),
        model_of(Ragged()),
    ]


def tried(call: Any, *arguments: Any, **options: Any) -> Any:
    """What a call gives, or None where it ends in an error of ours; any other error goes on to the test."""
    try:
        return call(*arguments, **options)
    except MaskedModelError:
        return None


def check(models: list[MaskedAutoencoder], which: int, signal: Any, mask: Any, pool: Any) -> None:
    model = models[which]
    with torch.no_grad():
        output = tried(model, signal, mask)
        if output is not None:
            assert isinstance(output, Output)
            assert output.loss.dim() == 0
        features = tried(model.encode, signal)
        if features is not None:
            assert features.dim() == 3
        pooled = tried(model.embed, signal, pool)
        if pooled is not None:
            assert pooled.dim() == 2
        tried(model.reconstruct, signal, mask)


@BOUNDED
@given(which=st.integers(0, 2), signal=ANYTHING, mask=st.none() | masks(), pool=st.sampled_from(["mean", "class"]))
@example(which=0, signal=np.zeros((2, 3, 8, 12), np.float16), mask=None, pool="mean")
@example(which=0, signal=torch.zeros(0, 3, 8, 12), mask=None, pool="mean")
@example(which=2, signal=torch.zeros(2, 0, 5), mask=None, pool="mean")
def test_a_model_takes_a_batch_or_refuses_it(
    models: list[MaskedAutoencoder], which: int, signal: Any, mask: Any, pool: Any
) -> None:
    check(models, which, signal, mask, pool)


@BOUNDED
@given(
    scores=tensors(st.sampled_from([(2, 4), (1, 1), (0, 4), (2, 0), (4,), (2, 2, 2), ()])),
    ratio=st.floats() | st.sampled_from([0.0, 0.5, 1.0]),
    valid=st.none() | tensors(st.sampled_from([(2, 4), (1, 1), (2, 3)])),
)
def test_scores_make_a_mask_or_are_refused(scores: Tensor, ratio: float, valid: Tensor | None) -> None:
    mask = tried(Mask.from_scores, scores, ratio, valid)
    if mask is None:
        return
    assert mask.hidden.shape == scores.shape
    assert mask.scored == int(mask.hidden.sum())
    if valid is not None:
        assert not (mask.hidden & ~valid).any()


@BOUNDED
@given(
    values=tensors(st.sampled_from([(2, 4, 3), (2, 4), (0, 4, 3), (2, 0, 3)])),
    coords=tensors(st.sampled_from([(4, 2), (2, 4, 2), (4,), (3, 2)])),
    valid=st.none() | tensors(st.sampled_from([(2, 4), (4,)])),
)
def test_tokens_fit_together_or_are_refused(values: Tensor, coords: Tensor, valid: Tensor | None) -> None:
    tokens = tried(Tokens, values, coords, ("height", "width"), None, None, valid)
    assert tokens is None or tokens.layout.coords is coords


@BOUNDED
@given(
    hidden=tensors(st.sampled_from([(2, 4), (4,), (0, 4), (2, 0)])),
    valid=st.none() | tensors(st.sampled_from([(2, 4), (2, 3)])),
)
def test_a_mask_is_made_or_refused(hidden: Tensor, valid: Tensor | None) -> None:
    mask = tried(Mask, hidden, valid)
    if mask is not None:
        tried(lambda: (mask.ids_keep, mask.ids_hidden, mask.scored))
        tried(mask.check)


@given(ids=st.lists(st.integers() | st.text(), max_size=4), count=st.integers(0, 5))
def test_noise_is_for_any_ids(ids: list[str | int], count: int) -> None:
    assert Noise.of(ids).uniform(count).shape == (len(ids), count)


@pytest.mark.slow
@LONG
@given(which=st.integers(0, 2), signal=ANYTHING, mask=st.none() | masks(), pool=st.sampled_from(["mean", "class"]))
def test_many_batches(models: list[MaskedAutoencoder], which: int, signal: Any, mask: Any, pool: Any) -> None:
    check(models, which, signal, mask, pool)
