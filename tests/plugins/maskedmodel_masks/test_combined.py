"""sum, choose, invert and channel_patches: the kit, what they hide, what their parts learn, what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from maskedmodel_masks.blocks import Blocks
from maskedmodel_masks.channel_patches import ChannelPatches
from maskedmodel_masks.combined import Choose, Sum, own_noise
from maskedmodel_masks.gated import Gated
from maskedmodel_masks.invert import Invert
from maskedmodel_masks.ranking import ranks
from maskedmodel_masks.sampled import Sampled
from maskedmodel_masks.schedules import opposite, ratio_at
from maskedmodel_masks.structured import Strips, Tube
from maskedmodel_masks.uniform import Uniform, UniformSettings
from pydantic import ValidationError
from torch import Tensor

from maskedmodel import MaskScheduler, Noise
from maskedmodel.config.load import load_config
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import load_registry
from maskedmodel.schedulers import Observed
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import Box, attached, layouts
from maskedmodel.tokens import hidden_count
from tests.plugins.maskedmodel_masks.mask_tokens import grid, masks
from tests.plugins.maskedmodel_masks.test_learned import halves, model_of

RAMP = {"shape": "linear", "start": 0.4, "end": 0.6, "levels": 3}


def parts(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"of": {"name": name, **more}} for name in names]


TINY = {"width": 8, "heads": 1, "depth": 0}


@parametrize_checks(
    [
        Sum(parts=parts("uniform", "blocks"), ratio=0.5),
        Sum(
            parts=[*parts("adaptive"), {"of": {"name": "sampled", **TINY}, "weight": {"start": 0, "end": 2}}],
            ratio=RAMP,
        ),
        Sum(parts=[*parts("uniform"), *parts("gated", **TINY)], ratio=0.5),
        Choose(parts=parts("uniform", "blocks", ratio=0.5)),
        Choose(
            parts=[
                {"of": {"name": "uniform", "ratio": 0.3}, "weight": {"start": 1, "end": 0.2}},
                *parts("sampled", "gated", ratio=0.6, **TINY),
                *parts("hard_patches", ratio=0.5, width=8, heads=1, decay=0.5),
            ]
        ),
        Invert(ratio=0.5),
        Invert(of={"name": "grid"}, ratio=RAMP),
        Invert(of={"name": "strips", "shares": {"time": 0.5}}, ratio=None),
        Invert(of={"name": "gated", **TINY}, ratio=0.6),
        Invert(of={"name": "choose", "parts": parts("blocks", "adaptive", ratio=0.4)}, ratio=None),
        ChannelPatches,
        ChannelPatches(shared=True, channels=0.3, ratio={"shape": "random", "low": 0.5, "high": 0.8}),
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def test_one_part_alone_hides_what_it_would_hide() -> None:
    """But for what the sum's own ratio says of the count."""
    tokens = grid(5, 6, 8)
    alone = Blocks(ratio=0.5)
    summed = Sum(parts=parts("blocks", ratio=0.5), ratio=0.5)
    expected = alone.sample(tokens, 0.0, own_noise(Noise.of(range(5)), 0)).hidden
    assert torch.equal(masks(summed, tokens).hidden, expected)
    chosen = Choose(parts=parts("blocks", ratio=0.5))
    assert torch.equal(masks(chosen, tokens).hidden, expected)


def test_a_sum_is_that_of_ranks_weighted() -> None:
    tokens = grid(4, 6, 6)
    weights = (0.5, 2.0)
    both = Sum(parts=[{"of": {"name": n}, "weight": w} for n, w in zip(("uniform", "blocks"), weights, strict=True)])
    noise = Noise.of(range(4))
    by_hand = torch.zeros(4, 36)
    for index, (part, weight) in enumerate(zip((Uniform(), Blocks()), weights, strict=True)):
        scores = part.scores(tokens, 0.0, own_noise(noise, index))
        place = scores.argsort(1).argsort(1).float()  # scores of these are all different
        by_hand += weight * place / 35
    assert (both.scores(tokens, 0.0, noise) - by_hand).abs().max() <= 2e-3  # noise breaks ties


def test_two_parts_of_a_kind_draw_noise_of_their_own() -> None:
    tokens = grid(200, 16)
    noise = Noise.of(range(200))
    one, other = (Uniform().scores(tokens, 0.0, own_noise(noise, index)) for index in range(2))
    assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.05
    nested = own_noise(own_noise(noise, 0), 1).seed
    assert len({noise.seed, nested, *(own_noise(noise, index).seed for index in range(8))}) == 10


def test_a_weight_that_moves_hands_the_sum_over() -> None:
    tokens, noise = grid(6, 4, 6), Noise.of(range(6))
    moving = Sum(
        parts=[
            {"of": {"name": "uniform"}, "weight": {"start": 1, "end": 0}},
            {"of": {"name": "blocks"}, "weight": {"start": 0, "end": 1}},
        ],
        ratio=0.5,
    )
    for progress, part, index in ((0.0, Uniform(), 0), (1.0, Blocks(), 1)):
        alone = ranks(part.scores(tokens, progress, own_noise(noise, index)), None)
        torch.testing.assert_close(moving.scores(tokens, progress, noise), alone, rtol=0, atol=2e-3)


def test_choose_draws_each_part_as_often_as_its_weight_says() -> None:
    tokens = grid(4000, 6, 6)
    chooser = Choose(
        parts=[
            {"of": {"name": "uniform", "ratio": 0.25}, "weight": {"start": 3, "end": 1}},
            {"of": {"name": "uniform", "ratio": 0.75}},
        ]
    )
    for progress, share in ((0.0, 0.75), (1.0, 0.5)):
        mask = masks(chooser, tokens, progress)
        few = mask.hidden.sum(1) == 9
        assert (few | (mask.hidden.sum(1) == 27)).all()
        assert float(few.float().mean()) == pytest.approx(share, abs=0.03)
        assert chooser.ratio(progress) == pytest.approx(share * 0.25 + (1 - share) * 0.75)
        assert mask.made_by is not None
        assert torch.equal(mask.made_by == 0, few)
    again, part = masks(chooser, tokens.rows(slice(0, 7))), masks(chooser, tokens)
    assert torch.equal(again.hidden, part.hidden[:7])


def seen_of(scheduler: MaskScheduler[Any], batch: int) -> Observed:
    tokens = halves(batch)
    mask = scheduler.sample(tokens, 0.5, Noise.of(range(batch)))
    losses = torch.rand(mask.ids_hidden.shape, generator=torch.Generator().manual_seed(3))
    if mask.hidden_valid is not None:
        losses = losses * mask.hidden_valid
    return Observed(tokens, mask, losses, torch.zeros(batch, 1 + mask.ids_keep.shape[1], 32), 0.5)


def test_a_part_that_learns_is_shown_the_samples_that_it_masked() -> None:
    chooser: Any = model_of(
        Choose(parts=[*parts("uniform", ratio=0.5), *parts("sampled", ratio=0.3, **TINY)])
    ).scheduler
    seen = seen_of(chooser, 12)
    loss = chooser.observe(seen)
    rows = (seen.mask.made_by == 1).nonzero()[:, 0]
    assert 0 < len(rows) < 12
    part, count = chooser.parts[1], 5  # of 16 at a ratio of 0.3
    ids = seen.mask.hidden[rows].float().topk(count, 1).indices.sort(1).values
    alone = chooser.parts[1].sample(seen.tokens, 0.5, own_noise(Noise.of(range(12)), 1)).rows(rows)
    assert torch.equal(alone.ids_hidden, ids)
    own = Observed(seen.tokens.rows(rows), alone, seen.loss_per_token[rows, :count], seen.latent[rows], 0.5)
    torch.testing.assert_close(loss, part.observe(own) * len(rows) / 12)


@pytest.mark.parametrize("inner", ["choose", "sum"])
def test_what_parts_learn_adds_up_over_micro_batches(inner: str) -> None:
    learning = parts("sampled", "hard_patches", ratio=0.5, width=8, heads=1)
    of = {"name": inner, "parts": [*learning, *parts("uniform")]}
    chooser: Any = model_of(Choose(parts=[{"of": of}, *parts("sampled", "uniform", ratio=0.4)])).scheduler
    seen = seen_of(chooser, 12)

    def gradients(pieces: list[slice]) -> list[Tensor]:
        chooser.zero_grad(set_to_none=True)
        for rows in pieces:
            mask = replace(
                seen.mask.rows(rows),
                widths=(seen.mask.ids_keep.shape[1], seen.mask.ids_hidden.shape[1]),
                even=seen.mask.hidden_valid is None,
            )
            some = Observed(seen.tokens.rows(rows), mask, seen.loss_per_token[rows], seen.latent[rows], 0.5)
            (chooser.observe(some) * mask.hidden.shape[0] / 12).backward()
        return [weight.grad for weight in chooser.parameters() if weight.requires_grad]

    whole, cut = gradients([slice(0, 12)]), gradients([slice(0, 3), slice(3, 4), slice(4, 12)])
    for one, other in zip(whole, cut, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert sum(bool(grad.any()) for grad in whole) > 4


def test_a_part_that_masked_no_sample_still_gets_a_gradient_of_zero() -> None:
    of = [{"of": {"name": "sampled", "ratio": 0.5, **TINY}, "weight": {"start": 1, "end": 1e-9}}]
    chooser: Any = model_of(Choose(parts=[*of, *parts("uniform", ratio=0.5)])).scheduler
    tokens = halves(4)
    mask = chooser.sample(tokens, 1.0, Noise.of(range(4)))
    assert (mask.made_by == 1).all()
    seen = Observed(tokens, mask, torch.rand(mask.ids_hidden.shape), torch.zeros(4, 9, 32), 1.0)
    chooser.observe(seen).backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in chooser.parameters())


def test_parts_have_state_statistics_and_teachers() -> None:
    mask = Choose(
        parts=[*parts("adaptive", ratio=0.5, spread=0.2), *parts("attention", ratio=0.5), *parts("uniform", ratio=0.5)]
    )
    assert mask.needs_statistics
    model = model_of(mask)
    model.scheduler.fit_statistics(halves(8, seed=seed) for seed in range(3))
    state = model.scheduler.state_dict()
    assert not state["parts.0.edges"].isnan().any()
    with torch.no_grad():
        for weight in model.encoder.parameters():
            weight.add_(1)
        model.scheduler.after_step(model.encoder, 0.0)
    teacher: Any = model.scheduler.parts[1]  # type: ignore[index]
    for name, weight in model.encoder.named_parameters():
        assert torch.equal(teacher.teacher.get_parameter(name), weight)
    fresh = model_of(copy.deepcopy(mask))
    fresh.scheduler.load_state_dict(model.scheduler.state_dict())
    tokens, noise = halves(6), Noise.of(range(6))
    ours, theirs = (m.scheduler.sample(tokens, 0.5, noise).hidden for m in (model, fresh))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("name", ["blocks", "grid", "noise", "adaptive"])
def test_the_opposite_hides_the_ratio_and_shows_the_pattern(name: str, ratio: float) -> None:
    tokens = grid(6, 9, 7, values=torch.randn(6, 63, 4, generator=torch.Generator().manual_seed(0)))
    turned = Invert(of={"name": name}, ratio=ratio)
    mask = masks(turned, tokens)
    assert (mask.hidden.sum(1) == hidden_count(63, ratio)).all()
    part: Any = turned.parts[0]
    assert part.ratio(0.0) == pytest.approx(1 - ratio)
    shown = part.sample(tokens, 0.0, Noise.of(range(6)))
    if hidden_count(63, 1 - ratio) == 63 - hidden_count(63, ratio):
        assert torch.equal(mask.hidden, ~shown.hidden)


def test_inverse_blocks_show_few_whole_blocks() -> None:
    """What is shown hangs together: most shown tokens have a shown neighbour, which of random ones few have."""

    def together(hidden: Tensor) -> float:
        shown = (~hidden).reshape(-1, 12, 12)
        right, down = shown[:, :, 1:] & shown[:, :, :-1], shown[:, 1:] & shown[:, :-1]
        return float((right.sum() + down.sum()) / shown.sum())

    tokens = grid(64, 12, 12)
    block, random = (masks(s, tokens).hidden for s in (Invert(ratio=0.75), Uniform(ratio=0.75)))
    assert together(block) > 2.5 * together(random)


@pytest.mark.parametrize(
    ("part", "own"),
    [
        ({"name": "strips", "shares": {"time": 0.25}}, Strips(shares={"time": 0.25})),
        ({"name": "tube", "ratio": 0.3}, Tube(ratio=0.3)),
    ],
)
def test_the_opposite_of_a_structure_is_all_but_it(part: dict[str, Any], own: MaskScheduler[Any]) -> None:
    tokens = grid(4, 4, 3, 5)
    mask = masks(Invert(of=part, ratio=None), tokens)
    assert torch.equal(mask.hidden, ~own.sample(tokens, 0.0, Noise.of(range(4))).hidden)
    assert Invert(of=part, ratio=None).ratio(0.0) == pytest.approx(1 - own.ratio(0.0))


def test_the_opposite_of_a_schedule_is_what_it_leaves_at_every_point() -> None:
    steps = {"shape": "steps", "table": [[0, 0.6], [0.5, 0.75]]}
    for ratio in (0.3, RAMP, {"shape": "cosine", "start": 0.8, "end": 0.3}, steps):
        settings = UniformSettings.model_validate({"ratio": ratio})
        rest = UniformSettings.model_validate({"ratio": opposite(settings.ratio)}).ratio
        for progress in (0.0, 0.2, 0.5, 0.77, 1.0):
            assert ratio_at(rest, progress) == pytest.approx(1 - ratio_at(settings.ratio, progress))


def test_gates_of_an_opposite_are_turned_round() -> None:
    own, turned = Gated(ratio=0.4, **TINY), Invert(of={"name": "gated", **TINY}, ratio=0.6)
    first, second = model_of(own).scheduler, model_of(turned).scheduler
    second.parts[0].load_state_dict(first.state_dict())  # type: ignore[index,union-attr]
    tokens, noise = halves(4), Noise.of(range(4))
    slopes = []
    for scheduler in (first, second):
        mask = scheduler.sample(tokens, 0.5, noise)
        assert mask.gates is not None
        assert torch.equal(mask.gates, torch.ones_like(mask.gates))
        scheduler.zero_grad(set_to_none=True)
        (mask.gates * torch.arange(16)).sum().backward()
        slopes.append([weight.grad for weight in scheduler.parameters()])
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, -other)


def test_channels_are_whole_and_the_rest_random() -> None:
    tokens = grid(300, 4, 5, channels=5)
    mask = masks(ChannelPatches(channels=0.4, ratio=0.7), tokens)
    by_channel = mask.hidden.reshape(300, 5, 20).sum(2)
    assert (mask.hidden.sum(1) == 70).all()
    assert ((by_channel == 20).sum(1) == 2).all()  # a channel of the other three is never full by chance here
    assert len((by_channel == 20).unique(dim=0)) == 10  # every pair of five
    shown = by_channel[by_channel < 20].float()
    assert float(shown.mean()) == pytest.approx(10)
    assert float(shown.std()) > 1


def test_patches_may_be_the_same_in_every_channel() -> None:
    tokens = grid(40, 4, 5, channels=5)
    mask = masks(ChannelPatches(channels=0.4, ratio=0.7, shared=True), tokens)
    hidden = mask.hidden.reshape(40, 5, 20)
    for sample in hidden:
        others = sample[sample.sum(1) < 20]
        assert len(others) == 3
        assert (others == others[:1]).all()


def test_of_uneven_channels_each_sample_hides_its_own() -> None:
    tokens = layouts()["uneven channels"]
    assert tokens.valid is not None
    mask = attached(ChannelPatches(channels=0.5, ratio=0.7), tokens).sample(tokens, 0.0, Noise.of(range(tokens.batch)))
    for row, real in enumerate(tokens.valid.reshape(-1, 3, 8).any(2).sum(1).tolist()):
        full = (mask.hidden[row].reshape(3, 8).sum(1) == 8).sum()
        assert int(full) >= (hidden_count(real, 0.5) if real > 1 else 0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Sum(parts=[{"of": {"name": "uniform"}, "weight": 0}]), "at the first step all weights are 0"),
        (
            lambda: Choose(parts=[{"of": {"name": "uniform"}, "weight": {"start": 1, "end": 0}}]),
            "at the last step all weights are 0",
        ),
        (lambda: Sum(parts=[]), "at least 1"),
        (lambda: Sum(parts=parts("patch")), "there is no mask scheduler 'patch'"),
    ],
)
def test_settings_that_decide_nothing_are_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make()


@pytest.mark.parametrize(
    ("make", "said", "where"),
    [
        (lambda: Invert(of={"name": "strips"}), "has no ratio of its own", "mask.ratio"),
        (lambda: Invert(ratio={"shape": "random"}), "drawn anew at every step", "mask.ratio"),
        (lambda: Invert(of={"name": "blocks", "ratio": 0.4}, ratio=0.7), "has no say", "mask.of.ratio"),
        (
            lambda: Invert(of={"name": "adaptive", "spread": 0.2}, ratio=0.85),
            "can't be made for what the ratio leaves",
            "mask.of",
        ),
    ],
)
def test_an_opposite_that_cannot_be_is_refused(make: Callable[[], Any], said: str, where: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        make()
    assert raised.value.where == where


@pytest.mark.parametrize(
    ("mask", "where"),
    [
        (Sum(parts=parts("gated", "curriculum", **TINY)), "mask.parts"),
        (Sum(parts=[*parts("uniform"), *parts("tube", axis="time")]), "mask.parts[1].of.axis"),
        (Choose(parts=[{"of": {"name": "sum", "parts": parts("tube")}}]), "mask.parts[0].of.parts[0].of.axis"),
        (Choose(parts=parts("uniform", ratio=0.01)), "mask.parts[0].of.ratio"),
        (Invert(of={"name": "channels"}, ratio=0.99), "mask.ratio"),
    ],
)
def test_what_a_part_refuses_is_told_with_its_place(mask: MaskScheduler[Any], where: str) -> None:
    with pytest.raises(ConfigError) as raised:
        model_of(mask)
    assert raised.value.where == where


def test_more_channels_than_the_ratio_hides_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 hidden channels of 3 are more tokens"):
        attached(ChannelPatches(channels=0.6, ratio=0.5), layouts()["channels"])
    with pytest.raises(ConfigError, match="hides all of the 3 channels"):
        attached(ChannelPatches(channels=0.9, ratio=0.95), layouts()["channels"])


def test_a_config_written_out_is_read_again_with_the_same_masks() -> None:
    registry = load_registry()
    given = {"data": {"name": "digits"}, "tokenizer": {"name": "image"}, "mask": {"name": "invert", "ratio": 0.6}}
    config = load_config(given, registry=registry)
    again = load_config(config.model_dump(mode="json"), registry=registry)
    assert again == config
    tokens = Box().tokenize(Box().example(3, torch.Generator().manual_seed(0)))
    one, other = (masks(registry.build("mask_scheduler", c.mask), tokens).hidden for c in (config, again))
    assert torch.equal(one, other)
    other_ratio = load_config(config.model_dump(mode="json"), ["mask.ratio=0.5"], registry=registry)
    assert (masks(registry.build("mask_scheduler", other_ratio.mask), tokens).hidden.sum(1) == 8).all()


def test_sampled_in_a_sum_still_learns_where_errors_are() -> None:
    """A part's own loss moves its own weights and no others'."""
    model = model_of(Sum(parts=[*parts("uniform"), *parts("sampled", width=8, heads=1)], ratio=0.5))
    seen = seen_of(model.scheduler, 8)
    loss = model.scheduler.observe(seen)
    assert loss is not None
    part: Any = model.scheduler.parts[1]  # type: ignore[index]
    assert isinstance(part, Sampled)
    torch.testing.assert_close(loss, part.observe(seen))
    loss.backward()
    assert any(bool(weight.grad.any()) for weight in part.parameters() if weight.grad is not None)
    assert all(weight.grad is None for weight in model.encoder.parameters())
