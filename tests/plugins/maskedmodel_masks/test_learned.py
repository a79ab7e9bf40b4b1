"""hard_patches, sampled, gated, curriculum and attention: the kit, what they learn, whom they follow, refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from maskedmodel_masks.attention import Attention
from maskedmodel_masks.gated import Curriculum, Gated
from maskedmodel_masks.hard_patches import HardPatches
from maskedmodel_masks.ranking import gumbel, places_from_top, wanted
from maskedmodel_masks.sampled import Sampled
from pydantic import ValidationError
from torch import Tensor, nn

from maskedmodel import MaskedAutoencoder, MaskScheduler, Noise, Tokens
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import ConfigError
from maskedmodel.noise import seeded
from maskedmodel.schedulers import Observed
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import Box, Direct, attached, layouts
from tests.plugins.maskedmodel_masks.mask_tokens import grid, masks

LEARNED = [HardPatches, Sampled, Gated, Curriculum, Attention]
RAMP = {"shape": "linear", "start": 0.4, "end": 0.6, "levels": 3}


@parametrize_checks(
    [
        HardPatches,
        HardPatches(sign="show", detach=True, ratio=RAMP),
        Sampled,
        Sampled(sign="hide", baseline=False, depth=0, ratio=RAMP),
        Gated,
        Curriculum(ratio=RAMP, depth=0),
        Attention,
        Attention(sign="show", hint=0.3, ratio=RAMP),
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def model_of(scheduler: MaskScheduler[Any], **encoder: Any) -> MaskedAutoencoder:
    settings = ModelSettings(
        encoder=EncoderSettings(dim=32, depth=2, heads=2, **encoder), decoder=DecoderSettings(dim=32, depth=1, heads=2)
    )
    with seeded(0):
        return MaskedAutoencoder(Box(), scheduler, Direct(), settings)


def halves(batch: int, seed: int = 0) -> Tokens:
    """Pictures of 4 x 4 tokens whose right half is noise and whose left half is flat: the right is hard."""
    picture = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    picture[..., :8] = 0.1
    return Box().tokenize(picture)


RIGHT = torch.arange(16) % 4 >= 2


def right_hidden(model: MaskedAutoencoder, progress: float = 1.0) -> float:
    """The share of hidden tokens that lie on the right, over fresh pictures; one half by chance."""
    tokens = halves(256, seed=1)
    with torch.no_grad():
        hidden = model.scheduler.sample(tokens, progress, Noise.of(range(1000, 1256))).hidden
    return float(hidden[:, RIGHT].sum() / hidden.sum())


def train(model: MaskedAutoencoder, steps: int, lr: float = 3e-3, progress: float | None = None) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for step in range(steps):
        done = step / (steps - 1) if progress is None else progress
        tokens = halves(32, seed=100 + step)
        output = model(tokens, progress=done, noise=Noise.of(range(32), epoch=step))
        own = model.scheduler.observe(
            Observed(tokens, output.mask, output.loss_per_token.detach(), output.latent, done)
        )
        optimizer.zero_grad()
        (output.loss if own is None else output.loss + own).backward()
        optimizer.step()
        with torch.no_grad():
            model.scheduler.after_step(model.encoder, done)
        losses.append(float(output.loss.detach()))
    return losses


# What they learn


@pytest.mark.parametrize(
    ("scheduler", "more"),
    [
        (Sampled(ratio=0.5, sign="show"), False),
        (Sampled(ratio=0.5, sign="hide"), True),
        (Gated(ratio=0.5, sign="hide"), True),
        (Gated(ratio=0.5, sign="show"), False),
        (HardPatches(ratio=0.5, sign="hide", decay=0.9, decay_end=0.9, share=0.8), True),
        (HardPatches(ratio=0.5, sign="show", decay=0.9, decay_end=0.9, share=0.8), False),
        (Curriculum(ratio=0.5, end=0.5), False),
    ],
)
def test_the_hard_half_is_hidden_or_shown_as_the_sign_says(scheduler: MaskScheduler[Any], more: bool) -> None:
    model = model_of(scheduler)
    before = right_hidden(model, progress=0.0)
    assert before == pytest.approx(0.5, abs=0.03)
    train(model, 60)
    after = right_hidden(model)
    assert (after > 0.62) if more else (after < 0.38)


def test_a_curriculum_turns_from_partner_to_adversary() -> None:
    model = model_of(Curriculum(ratio=0.5, start=1, end=-1))
    assert [model.scheduler.lean(p) for p in (0, 0.5, 1)] == [1, 0, -1]  # type: ignore[operator]
    train(model, 60, progress=0.0)
    assert right_hidden(model) < 0.38
    train(model, 120, progress=1.0)
    assert right_hidden(model) > 0.62


# Gates


def test_gates_are_ones_that_change_no_value_and_carry_the_gradient_of_the_reconstruction() -> None:
    model = model_of(Gated(ratio=0.5))
    tokens, noise = halves(8), Noise.of(range(8))
    output = model(tokens, noise=noise)
    assert output.mask.gates is not None
    assert torch.equal(output.mask.gates, torch.ones(8, 16))
    plain = model(tokens, replace(output.mask, gates=None))
    assert torch.equal(output.loss, plain.loss)
    output.loss.backward()
    head = model.scheduler.network.head  # type: ignore[union-attr]
    assert float(head.weight.grad.abs().max()) > 0  # type: ignore[union-attr,operator]


def test_the_gradient_of_the_gates_is_that_of_the_mask_made_continuous() -> None:
    """Against finite differences: the loss with a visible token's embedding scaled up and down."""
    model, tokens = model_of(Gated(ratio=0.5, sign="show")), halves(2)
    mask = model.scheduler.sample(tokens, 0.0, Noise.of(range(2)))
    model, tokens = model.double(), replace(tokens, values=tokens.values.double())
    gates = torch.ones(2, 16, dtype=torch.float64, requires_grad=True)
    model(tokens, replace(mask, gates=gates)).loss.backward()
    assert gates.grad is not None
    assert (gates.grad[mask.hidden] == 0).all()
    row, token = 0, int(mask.ids_keep[0, 3])
    step = torch.zeros(2, 16, dtype=torch.float64)
    step[row, token] = 1e-4
    with torch.no_grad():
        up, down = (float(model(tokens, replace(mask, gates=1 + side * step)).loss) for side in (1, -1))
    expected = (up - down) / 2e-4
    # The engine computes its loss in float32.
    assert float(gates.grad[row, token]) == pytest.approx(expected, abs=2e-3 * max(abs(expected), 1) + 1e-3)


def test_hidden_errors_push_scores_by_how_far_they_lie_from_the_mean() -> None:
    scheduler = attached(Gated(ratio=0.5, sign="hide", weight=2.0, depth=0), layouts()["one axis"])
    tokens = layouts()["one axis"]
    mask = scheduler.sample(tokens, 0.0, Noise.of(range(6)))
    assert mask.gates is not None
    mask.gates.retain_grad()
    error = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
    loss = scheduler.observe(Observed(tokens, mask, error, torch.zeros(6, 9, 8), 0.0))
    assert loss is not None
    loss.backward()  # type: ignore[no-untyped-call]
    expected = -2.0 * (error - error.mean(1, keepdim=True)) / 8 / 6
    assert mask.gates.grad is not None
    torch.testing.assert_close(mask.gates.grad.gather(1, mask.ids_hidden), expected)
    assert mask.gates.grad[mask.visible].abs().max() == 0


def test_no_gates_outside_training() -> None:
    tokens = layouts()["one axis"]
    scheduler = attached(Gated(), tokens)
    with torch.no_grad():
        assert masks(scheduler, tokens).gates is None
    scheduler.eval()
    mask = masks(scheduler, tokens)
    assert mask.gates is None
    error = torch.zeros(6, 12)
    assert scheduler.observe(Observed(tokens, mask, error, torch.zeros(6, 5, 8), 0.0)) is None


def test_gumbel_top_k_is_a_draw_without_replacement() -> None:
    """Of three tokens with weights 1, 2, 3 two are drawn one after the other."""
    tokens = grid(60_000, 3)
    scores = torch.tensor([1.0, 2.0, 3.0]).log() + gumbel(tokens, Noise.of(range(60_000)))
    left_out = scores.argmin(1).bincount(minlength=3) / 60_000
    weights, pairs = (1, 2, 3), torch.zeros(3)
    for first in range(3):
        for second in range(3):
            if first != second:
                chance = weights[first] / 6 * weights[second] / (6 - weights[first])
                pairs[3 - first - second] += chance
    torch.testing.assert_close(left_out, pairs, atol=0.01, rtol=0)


# Sampled


def test_the_sampling_loss_is_adamaes() -> None:
    tokens = layouts()["one axis"]
    scheduler = attached(Sampled(ratio=0.5, baseline=False, entropy=0, weight=1.0), tokens)
    nn.init.normal_(scheduler.network.head.weight, std=0.3, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr,arg-type]
    mask = masks(scheduler, tokens)
    error = torch.rand(6, 8, generator=torch.Generator().manual_seed(1))
    loss = scheduler.observe(Observed(tokens, mask, error, torch.zeros(6, 9, 8), 0.0))
    log_p = scheduler.network(tokens).softmax(1).log()  # type: ignore[operator]
    expected = torch.stack([-(log_p[row][mask.hidden[row]] * error[row]).mean() for row in range(6)]).mean()
    torch.testing.assert_close(loss, expected)


def test_the_baseline_leaves_the_scale_of_the_errors_out() -> None:
    tokens = layouts()["one axis"]
    scheduler = attached(Sampled(ratio=0.5), tokens)
    mask = masks(scheduler, tokens)
    error = torch.rand(6, 8, generator=torch.Generator().manual_seed(1))
    first, second = (
        scheduler.observe(Observed(tokens, mask, e, torch.zeros(6, 9, 8), 0.0)) for e in (error, 5 + 100 * error)
    )
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-8)


def test_entropy_alone_makes_all_tokens_as_likely() -> None:
    tokens = layouts()["one axis"]
    scheduler = attached(Sampled(ratio=0.5, entropy=1.0, weight=1.0), tokens)
    nn.init.normal_(scheduler.network.head.weight, std=1.0, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr,arg-type]
    mask = masks(scheduler, tokens)
    optimizer = torch.optim.Adam(scheduler.parameters(), lr=1e-2)

    def spread() -> float:
        with torch.no_grad():
            return float(scheduler.network(tokens).std(1).mean())  # type: ignore[operator]

    before = spread()
    for _ in range(60):
        optimizer.zero_grad()
        loss = scheduler.observe(Observed(tokens, mask, torch.ones(6, 8), torch.zeros(6, 9, 8), 0.0))
        assert loss is not None
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert spread() < 0.3 * before


# Teachers


@pytest.mark.parametrize("cls", [HardPatches, Attention])
def test_the_teacher_is_the_moving_average_of_the_encoder(cls: type[MaskScheduler[Any]]) -> None:
    model = model_of(cls(decay=0.9, decay_end=0.5))
    teacher, weight = model.scheduler.teacher, model.encoder.embed.weight  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in teacher.parameters())  # type: ignore[union-attr]
    with torch.no_grad():
        weight.add_(1.0)
        model.scheduler.after_step(model.encoder, 0.0)
        torch.testing.assert_close(teacher.embed.weight, weight)  # the first step takes all
        before = weight.clone()
        weight.add_(1.0)
        model.scheduler.after_step(model.encoder, 0.5)
    torch.testing.assert_close(teacher.embed.weight, before + 0.3, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", [HardPatches, Attention])
def test_a_teacher_is_stored_but_never_trained(cls: type[MaskScheduler[Any]]) -> None:
    model = model_of(cls())
    stored = [name for name in model.state_dict() if name.startswith("scheduler.teacher.")]
    assert len(stored) == len(model.encoder.state_dict())
    train(model, 2)
    assert all(p.grad is None for p in model.scheduler.teacher.parameters())  # type: ignore[union-attr]


def test_predicted_hard_patches_rise_with_progress() -> None:
    """Of 12 hidden tokens 0, 3 and 6 are the hardest by prediction; those that are picked beyond chance."""
    model = model_of(HardPatches(share=0.5))
    scheduler, tokens, noise = model.scheduler, halves(64), Noise.of(range(64))
    place = places_from_top(scheduler.predicted(tokens))  # type: ignore[operator]
    for progress, sure in ((0.5, 3), (1.0, 6)):
        hidden = scheduler.sample(tokens, progress, noise).hidden
        assert hidden[place < sure].all()
        assert not hidden[place == sure].all()
    assert torch.equal(scheduler.scores(tokens, 0.0, noise), noise.uniform(16))


def test_the_ranking_loss_counts_wrongly_ordered_pairs() -> None:
    model = model_of(HardPatches(ratio=0.5))
    tokens = halves(4)
    mask = masks(model.scheduler, tokens)
    error = torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    latent = model._encode(tokens, mask)
    predicted = model.scheduler.predictor(latent, tokens, mask.ids_hidden, None)  # type: ignore[operator]
    loss = model.scheduler.observe(Observed(tokens, mask, error, latent, 0.0))
    rows = []
    for row in range(4):
        pairs = [
            -torch.log(torch.sigmoid(predicted[row, i] - predicted[row, j]))
            for i in range(8)
            for j in range(8)
            if error[row, i] > error[row, j]
        ]
        rows.append(torch.stack(pairs).mean())
    torch.testing.assert_close(loss, torch.stack(rows).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("detach", [False, True])
def test_the_predictors_loss_trains_the_encoder_unless_detached(detach: bool) -> None:
    model = model_of(HardPatches(detach=detach))
    tokens = halves(4)
    output = model(tokens, noise=Noise.of(range(4)))
    seen = Observed(tokens, output.mask, output.loss_per_token.detach(), output.latent, 0.0)
    loss = model.scheduler.observe(seen)
    assert loss is not None
    loss.backward()  # type: ignore[no-untyped-call]
    assert (model.encoder.embed.weight.grad is None) is detach  # type: ignore[union-attr]


@pytest.mark.parametrize(("sign", "top"), [("hide", True), ("show", False)])
def test_attention_hides_or_shows_what_the_class_token_attends_to(sign: str, top: bool) -> None:
    model = model_of(Attention(share=1.0, sign=sign, ratio=0.25))
    tokens = halves(32)
    hidden = masks(model.scheduler, tokens).hidden
    place = places_from_top(model.encoder.class_attention(tokens))
    assert torch.equal(hidden, place < 4 if top else place >= 12)
    assert model.scheduler.deterministic


def test_a_share_of_the_samples_is_masked_by_attention() -> None:
    model = model_of(Attention(share=0.3, ratio=0.25))
    tokens = halves(1).rows(slice(0, 1))
    tokens = replace(tokens, values=tokens.values.expand(2000, -1, -1))
    with torch.no_grad():
        hidden = masks(model.scheduler, tokens).hidden
        expected = places_from_top(model.encoder.class_attention(tokens)) < 4
    guided = (hidden == expected).all(1).float().mean()
    assert float(guided) == pytest.approx(0.3, abs=0.04)


def test_hints_stay_visible_and_the_next_in_order_are_hidden_instead() -> None:
    model = model_of(Attention(share=1.0, hint=0.25, ratio=0.5))
    tokens = halves(256)
    with torch.no_grad():
        hidden = masks(model.scheduler, tokens).hidden
        place = places_from_top(model.encoder.class_attention(tokens))
    assert hidden.sum(1).unique().tolist() == [8]
    assert (hidden & (place < 8)).sum(1).unique().tolist() == [6]
    assert hidden[(place >= 8) & (place < 10)].all()
    often = torch.stack([(~hidden)[place == rank].float().mean() for rank in range(8)])
    torch.testing.assert_close(often, torch.full((8,), 0.25), atol=0.09, rtol=0)


def test_attention_needs_a_class_token() -> None:
    with pytest.raises(ConfigError, match="asks the class token") as caught:
        model_of(Attention(), class_token=False)
    assert caught.value.where == "model.encoder.class_token"


# All of them


@pytest.mark.parametrize("cls", LEARNED)
def test_masks_are_the_same_for_other_micro_batches_and_after_a_resume(cls: type[MaskScheduler[Any]]) -> None:
    model = model_of(cls(ratio=0.5))
    train(model, 4)
    tokens, noise = halves(12), Noise.of(range(12), epoch=3)
    whole = model.scheduler.sample(tokens, 0.7, noise).hidden
    for size in (1, 4, 5):
        for start in range(0, 12, size):
            rows = slice(start, start + size)
            assert torch.equal(model.scheduler.sample(tokens.rows(rows), 0.7, noise.rows(rows)).hidden, whole[rows])
    other = model_of(cls(ratio=0.5))
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(other.scheduler.sample(tokens, 0.7, noise).hidden, whole)


@pytest.mark.parametrize("cls", LEARNED)
def test_two_micro_batches_learn_what_one_batch_does(cls: type[MaskScheduler[Any]]) -> None:
    """Gradients of the whole loss, weighted as the training loop weights them."""
    gradients: list[dict[str, Tensor]] = []
    for parts in (1, 2):
        model = model_of(cls(ratio=0.5))
        tokens, noise = halves(8), Noise.of(range(8))
        size = 8 // parts
        drawn = [
            (tokens.rows(rows), model.scheduler.sample(tokens.rows(rows), 0.5, noise.rows(rows)))
            for rows in (slice(start, start + size) for start in range(0, 8, size))
        ]
        scored = sum(mask.scored for _, mask in drawn)
        for part, mask in drawn:
            output = model(part, mask)
            loss = output.loss_per_token.sum() / scored
            seen = Observed(part, mask, output.loss_per_token.detach(), output.latent, 0.5)
            own = model.scheduler.observe(seen)
            (loss if own is None else loss + own / parts).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=2e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("cls", LEARNED)
def test_the_work_is_counted(cls: type[MaskScheduler[Any]]) -> None:
    model = model_of(cls())
    assert model.scheduler.flops(64) > 2 * model.scheduler.flops(16) > 0


def test_counts_are_those_of_the_ranking() -> None:
    for tokens in layouts().values():
        for ratio in (0.1, 0.5, 0.9):
            scores = torch.rand(tokens.batch, tokens.length)
            mask = masks_of(scores, ratio, tokens)
            assert wanted(tokens, ratio).tolist() == mask.tolist()


def masks_of(scores: Tensor, ratio: float, tokens: Tokens) -> Tensor:
    from maskedmodel import Mask

    return Mask.from_scores(scores, ratio, tokens.valid).hidden.sum(1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sampled(width=64, heads=5), "heads must divide width"),
        (lambda: HardPatches(width=64, heads=5), "heads must divide width"),
        (lambda: HardPatches(share=1.5), "less than or equal to 1"),
        (lambda: Attention(decay=1.0), "less than 1"),
        (lambda: Gated(bound=0), "greater than 0"),
        (lambda: Curriculum(start=2), "less than or equal to 1"),
        (lambda: Curriculum(sign="hide"), "Extra inputs"),
    ],
)
def test_bad_settings_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build()
