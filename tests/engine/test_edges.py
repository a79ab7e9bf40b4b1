"""Little or nothing: samples of padding alone, masks that hide nothing, empty batches; and users' own masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from maskedmodel import Mask, MaskedAutoencoder, Tokens
from maskedmodel.engine.model import from_visible
from maskedmodel.errors import PluginError, ShapeError
from maskedmodel.noise import seeded
from maskedmodel.plugins import load_registry
from tests.engine.conftest import Box, Ragged, model_of, noise

REGISTRY = load_registry()


def ragged(*lengths: int, width: int = 12) -> torch.Tensor:
    return Ragged().of(list(lengths), width, torch.Generator().manual_seed(0))


def gradients(model: MaskedAutoencoder, loss: torch.Tensor) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, [*model.encoder.parameters(), *model.decoder.parameters()], allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def test_a_users_mask_scores_no_padding() -> None:
    """The same hidden tokens give the same loss, whatever the mask says of padding."""
    model, signal = model_of(Ragged()), ragged(12, 7)
    tokens = model.tokens(signal)
    assert tokens.valid is not None
    hidden = torch.zeros(2, 12, dtype=torch.bool)
    hidden[:, 2:5] = True
    right = model(tokens, Mask(hidden, tokens.valid))
    for careless in (Mask(hidden | ~tokens.valid), Mask(hidden), Mask(hidden | ~tokens.valid, tokens.valid)):
        output = model(tokens, careless)
        torch.testing.assert_close(output.loss, right.loss, rtol=0, atol=0)
        assert not (output.mask.hidden & ~tokens.valid).any()
        assert output.mask.scored == 6
    everywhere = model.predict_everywhere(tokens, Mask(hidden | ~tokens.valid))
    torch.testing.assert_close(everywhere, model.predict_everywhere(tokens, Mask(hidden, tokens.valid)))


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("attention", ["self", "cross"])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_sample_of_padding_alone_adds_nothing(class_token: bool, attention: str, normalise: bool) -> None:
    """Beside others it changes neither loss nor gradient; by itself both are zero."""
    model = model_of(
        Ragged(), encoder={"class_token": class_token}, decoder={"attention": attention}, normalise=normalise
    )
    with_it, without = ragged(12, 0, 7), ragged(12, 0, 7)[[0, 2]]
    keys = noise(3)
    tokens = model.tokens(with_it)
    mask = model.scheduler.sample(tokens, 0.0, keys)
    one = model(tokens, mask)
    other = model(model.tokens(without), mask.rows(torch.tensor([0, 2])))
    torch.testing.assert_close(one.loss, other.loss)
    for mine, theirs in zip(gradients(model, one.loss), gradients(model, other.loss), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    empty = model.tokens(ragged(0, 0))
    nothing = model(empty, model.scheduler.sample(empty, 0.0, noise(2)))
    assert nothing.loss.detach() == 0
    assert all(bool((gradient == 0).all()) for gradient in gradients(model, nothing.loss))
    assert torch.isfinite(model.embed(empty)).all()


# `spans` refuses tokens of several axes.
@pytest.mark.parametrize("name", sorted(REGISTRY.mask_schedulers.keys() - {"spans"}))
def test_no_scheduler_gives_nan_for_padding_alone(name: str) -> None:
    parts = {"parts": [{"of": {"name": "uniform"}}, {"of": {"name": "blocks"}}]}
    needed: dict[str, dict[str, Any]] = {
        "tube": {"axis": "time"},
        "strips": {"shares": {"time": 0.75}},
        "sum": parts,
        "choose": parts,
    }
    scheduler = REGISTRY.get("mask_scheduler", name)(**needed.get(name, {}))
    with seeded(0):
        model = MaskedAutoencoder(
            Box(size=(4, 8, 8), patch=(1, 2, 2), channels=2, separate=True),
            scheduler,
            REGISTRY.get("objective", "patch")(),
            model_of(Box(), encoder={"class_token": True, "dim": 24, "heads": 2}).settings,
        )
    whole = model.tokens(torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    if scheduler.needs_statistics:
        scheduler.fit_statistics([whole])
    valid = torch.ones(3, whole.length, dtype=torch.bool)
    valid[1] = False
    valid[2, 5:] = False
    tokens = replace(whole, valid=valid)
    mask = model.scheduler.sample(tokens, 0.3, noise(3))
    assert not mask.hidden[1].any()
    assert mask.hidden[0].any()
    output = model(tokens, mask)
    assert torch.isfinite(output.loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model, output.loss))


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_a_loss_over_nothing_is_zero(attention: str) -> None:
    model = model_of(Box(), decoder={"attention": attention})
    tokens = model.tokens(torch.randn(2, 3, 8, 12))
    one = replace(tokens.rows(slice(1)), values=tokens.values[:1, :1], coords=tokens.coords[:1], grid=(1, 1))
    nobody = tokens.rows(slice(0, 0))
    for few, mask in ((tokens, Mask.nothing(tokens)), (one, None), (nobody, None), (nobody, Mask.nothing(nobody))):
        output = model(few, mask)
        assert output.loss.detach() == 0
        assert all(bool((gradient == 0).all()) for gradient in gradients(model, output.loss))


@pytest.mark.parametrize(
    ("widths", "even"), [((1, 4), None), ((8, 2), None), ((1, 4), True), ((12, 4), True), ((2, 2), False)]
)
def test_widths_that_leave_tokens_out_are_refused(widths: tuple[int, int], even: bool | None) -> None:
    model = model_of(Box(size=(6, 6), patch=(2, 3)))  # 6 tokens
    tokens = model.tokens(torch.randn(2, 3, 6, 6))
    small = torch.zeros(2, tokens.length, dtype=torch.bool)
    small[:, :4] = True
    with pytest.raises(ShapeError, match="widths"):
        model(tokens, Mask(small, widths=widths, even=even))
    assert model(tokens, Mask(small, widths=(2, 4), even=True)).mask.scored == 8
    assert model(tokens, Mask(small, widths=(5, 6), even=False)).mask.scored == 8


def test_statistics_of_a_channel_come_from_its_own_visible_tokens_however_far() -> None:
    """One visible token of the hidden token's channel, far away, beside visible ones of another channel."""
    coords = torch.tensor([[0, 0], [200, 200], [0, 0], [0, 1]])
    channel = torch.tensor([0, 0, 1, 1])
    tokens = Tokens(torch.zeros(1, 4, 1), coords, ("height", "width"), None, channel)
    statistics = torch.tensor([[[9.0], [5.0], [1.0], [1.0]]])
    hidden = torch.tensor([[True, False, False, False]])
    assert from_visible(statistics, tokens, Mask(hidden))[0, 0, 0] == pytest.approx(5)
    # A channel that shows nothing takes what the others show, undiminished, from any distance.
    for distance in (1, 100, 10_000):
        far = Tokens(torch.zeros(1, 2, 1), torch.tensor([[0], [distance]]), ("time",), None, torch.tensor([0, 1]))
        assert from_visible(torch.tensor([[[7.0], [5.0]]]), far, Mask(torch.tensor([[True, False]])))[
            0, 0, 0
        ] == pytest.approx(5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Mask.from_scores(torch.rand(2, 4), float("nan")),
        lambda: Mask.from_scores(torch.rand(2, 4), 1.5),
        lambda: Mask.from_scores(torch.rand(2, 4), "a"),
        lambda: Mask.from_scores(torch.rand(2, 4), None),
        lambda: Mask.from_scores(torch.rand(2, 4), torch.tensor(0.5)),
        lambda: Mask.from_scores([[0.5, 0.1]], 0.5),
        lambda: Mask.from_scores(torch.rand(4), 0.5),
        lambda: Mask.from_scores(torch.randint(9, (2, 4)), 0.5),
        lambda: Mask.from_scores(torch.rand(2, 4), 0.5, torch.ones(2, 3, dtype=torch.bool)),
        lambda: Mask.from_scores(torch.rand(2, 4), 0.5, torch.ones(2, 4)),
    ],
)
def test_scores_that_are_none_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(ShapeError):
        call()


def test_a_mask_of_another_size_is_refused_wherever_it_is_given() -> None:
    model = model_of(Box())
    signal = torch.randn(2, 3, 8, 12)
    wrong = Mask(torch.zeros(2, 5, dtype=torch.bool))
    for call in (model, model.reconstruct, lambda x, m: model.predict_everywhere(model.tokens(x), m)):
        with pytest.raises(ShapeError, match="doesn't fit"):
            call(signal, wrong)


@pytest.mark.parametrize(
    ("missing", "value"), [("token_width", None), ("token_width", 0), ("axes", None), ("axes", "time"), ("axes", ())]
)
def test_a_tokenizer_that_lacks_what_the_engine_needs_is_refused_by_name(missing: str, value: Any) -> None:
    class Bare(Ragged):
        pass

    settings = {"token_width": 4, "axes": ("time",), missing: value}
    for name, given in settings.items():
        setattr(Bare, name, given)
    with pytest.raises(PluginError, match=rf"(?s)'ragged'.*{missing}"):
        model_of(Bare())
