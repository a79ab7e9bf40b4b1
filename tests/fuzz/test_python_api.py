"""The public Python API given wrong types, shapes, widths and empty batches: it works, or raises an error of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import maskedmodel
from maskedmodel import Mask, MaskedAutoencoder, Noise, Output, Tokens
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.engine.settings import EncoderOnly
from maskedmodel.errors import MaskedModelError
from maskedmodel.plugins import load_registry
from maskedmodel.tasks import Labels
from maskedmodel.testing.tasks import labels_for
from maskedmodel.weights.runs import load_pretrained
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


@pytest.fixture(scope="module")
def tuned() -> list[FineTuned]:
    """A fine-tuned model of each task that comes along."""
    settings = EncoderOnly.model_validate({"encoder": {"dim": 24, "depth": 1, "heads": 2, "class_token": True}})
    tasks = sorted(load_registry(strict=True).tasks.items())
    made = [cls() for _, cls in tasks]
    return [FineTuned(Box(), task, settings, labels_for(task)).eval() for task in made]


@BOUNDED
@given(signal=ANYTHING, mask=st.none() | masks(), pool=st.sampled_from(["mean", "class"]))
@example(signal=torch.zeros(0, 3, 8, 12), mask=None, pool="mean")
@example(signal=np.zeros((2, 3, 8, 12), np.float64), mask=None, pool="mean")
def test_a_fine_tuned_model_predicts_or_refuses(tuned: list[FineTuned], signal: Any, mask: Any, pool: Any) -> None:
    for model in tuned:
        with torch.no_grad():
            prediction = tried(model, signal, mask)
            if prediction is not None:
                assert len(prediction) == len(signal)
            tried(model.encode, signal)
            tried(model.embed, signal, pool)


NAMES = st.one_of(
    st.lists(st.text(max_size=4) | st.floats().map(str), max_size=4).map(tuple),
    st.sampled_from([("1", "2"), ("nan", "inf"), ("a+b", "b"), ("",), ("1e999", "-1e999")]),
)


@BOUNDED
@given(
    names=NAMES,
    counts=st.lists(st.integers(-1, 5), max_size=4).map(tuple),
    rows=st.integers(0, 5),
    seed=st.integers(0, 9),
)
def test_a_task_takes_labels_or_refuses_them(names: Any, counts: Any, rows: int, seed: int) -> None:
    """Made of any labels, a task's loss, metrics and columns have their rows, of no sample too."""
    settings = EncoderOnly.model_validate({"encoder": {"dim": 24, "depth": 1, "heads": 2}})
    generator = torch.Generator().manual_seed(seed)
    for cls in load_registry(strict=True).tasks.values():
        task = tried(cls)
        shape = labels_for(task).shape
        model = tried(lambda task=task, shape=shape: FineTuned(Box(), task, settings, Labels(names, counts, shape)))
        if model is None:
            continue
        with torch.no_grad():
            prediction = model.eval()(torch.rand(rows, 3, 8, 12, generator=generator))
        if task.takes_target:
            places = task.example_target(model.tokenizer, rows, generator)
            target = task.target(places if places.is_floating_point() else places % len(names))
        else:
            target = task.target(torch.randint(0, len(names), (rows,), generator=generator))
        assert task.loss(prediction, target).shape == (rows,)
        assert task.weight(target).shape == (rows,)
        if rows:
            digested = task.digest(prediction, target)
            assert task.score in task.metrics(*digested)
            task.tables(*digested)
        assert all(len(column) == rows for column in task.columns(prediction).values())


ANY_PATH = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", ".", "/", "/dev/null", "/proc/self", "~", "~nobody-of-this-name", "a\0b", "x" * 5000, "\udcff"]
    ),
)


@BOUNDED
@given(path=ANY_PATH, checkpoint=st.none() | st.integers(-2, 3) | st.sampled_from(["best", "last", "", "../x", "\0"]))
def test_no_path_is_loaded_or_it_is_refused(tmp_path_factory: Any, path: str, checkpoint: Any) -> None:
    for call in (maskedmodel.load, load_pretrained):
        assert tried(call, path, checkpoint=checkpoint) is None
    target = tmp_path_factory.getbasetemp() / "p.csv"
    assert tried(maskedmodel.predict, path, "val", to=target, checkpoint=checkpoint, quiet=True) is None
    assert tried(maskedmodel.predict, ".", path, to=path, quiet=True) is None
    assert tried(maskedmodel.embed, path, "val", to=target, quiet=True) is None
