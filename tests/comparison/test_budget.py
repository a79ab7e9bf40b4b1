"""Equal budgets, to half a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from maskedmodel import Noise
from maskedmodel.comparison import budget as module
from maskedmodel.comparison.arms import arms_of
from maskedmodel.comparison.budget import (
    Stand,
    between,
    budget_named,
    build,
    costs_of,
    rows_at,
    spent,
    steps_within,
    total,
)
from maskedmodel.engine import kernels
from maskedmodel.engine.flops import TRAIN, flop_counter, forward_flops
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import Registry
from maskedmodel.training import packing
from maskedmodel.training.data import StepBatches, train_batches
from maskedmodel.training.distributed import World
from maskedmodel.training.masked import MaskedModelling
from maskedmodel.training.parts import Part, backward
from tests.comparison.conftest import TINY

MASKS = ["uniform", "uniform:ratio=0.25", "ramped", "blocks", "ramped:start=0.9,end=0.3,shape=cosine"]


@pytest.fixture(scope="module")
def stands(registry: Registry) -> list[Stand]:
    return [Stand.of(arm.config, registry) for arm in arms_of(TINY, [], MASKS, [], registry)]


@pytest.mark.parametrize("budget", ["flops", "tokens"])
def test_every_arm_comes_within_half_a_step(stands: list[Stand], budget: Any) -> None:
    costs = costs_of(stands, budget)
    amount = total(costs[0], 200)
    steps = [steps_within(cost, amount) for cost in costs]
    assert steps[0] == 200
    assert steps[1] < 170  # it sees three times as many tokens
    for cost, own in zip(costs, steps, strict=True):
        dearest = max(cost(progress / 10) for progress in range(11))
        assert abs(total(cost, own) - amount) <= 0.51 * dearest


@pytest.mark.parametrize("mask", ["adaptive", "hard_patches", "sampled", "gated", "curriculum", "attention"])
def test_arms_of_one_seed_start_with_the_same_weights(mask: str, registry: Registry) -> None:
    plain, other = arms_of(TINY, [], ["uniform", mask], [], registry)
    ours, theirs = (build(arm.config, registry)[0].state_dict() for arm in (plain, other))
    weights = {name for name in ours if name.startswith(("encoder.", "decoder."))}
    assert weights
    for name in weights:
        assert torch.equal(ours[name], theirs[name]), name


def test_flops_of_a_run_by_hand(stands: list[Stand]) -> None:
    (cost,) = costs_of(stands[:1], "flops")
    step = TRAIN * forward_flops(stands[0].model, 4, 12, 16).total  # 16 tokens, 12 hidden, 16 samples
    assert cost(0.3) == pytest.approx(step)
    assert total(cost, 10) == pytest.approx(10 * step)


def test_tokens_of_a_ramp_by_hand(stands: list[Stand]) -> None:
    cost = costs_of(stands, "tokens")[2]
    hidden = [round(16 * (0.6 + 0.25 * level / 15)) for level in range(16)]
    assert total(cost, 16) == 16 * sum(16 - hide for hide in hidden)


def test_steps_are_steps(stands: list[Stand]) -> None:
    assert [steps_within(cost, 37) for cost in costs_of(stands, "steps")] == [37] * len(stands)


def test_what_a_scheduler_adds_is_counted(stands: list[Stand], monkeypatch: pytest.MonkeyPatch) -> None:
    (before,) = costs_of(stands[:1], "flops")
    plain = before(0.5)
    monkeypatch.setattr(type(stands[0].model.scheduler), "flops", lambda self, length: 1000.0 * length)
    (after,) = costs_of(stands[:1], "flops")
    assert after(0.5) == pytest.approx(plain + 16 * 16_000)


@pytest.mark.parametrize("mask", ["uniform", "adaptive", "hard_patches", "sampled", "gated", "curriculum", "attention"])
def test_a_scheduler_pays_for_what_it_multiplies(
    mask: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of itself against what torch counts in a step with it, less the same step under its mask alone."""
    monkeypatch.setattr(kernels, "chosen_attention", kernels.Attention(400))
    (arm,) = arms_of(TINY, ["model.encoder.dim=24", "model.encoder.depth=4"], [mask], [], registry)
    stand = Stand.of(arm.config, registry)
    model, train = stand.model, arm.config.train
    data = stand.source.open("train")
    batch = next(train_batches(data, model.tokenizer, StepBatches(len(data), 16, 0, 0, 1)))
    with flop_counter() as whole, sdpa_kernel(SDPBackend.MATH):
        learning = MaskedModelling(model, train)
        parts = learning.parts(batch, 0.5)
        backward(learning, model, parts, 1.0, World(0, 1, torch.device("cpu")), 0.5)
        with torch.no_grad():
            model.scheduler.after_step(model.encoder, 0.5)
    with flop_counter() as alone:
        for part in parts:
            assert part.mask is not None
            model(part.tokens, replace(part.mask, gates=None)).loss.backward()
    counted = (whole.get_total_flops() - alone.get_total_flops()) / 16
    said = model.scheduler.flops(16)
    assert said == pytest.approx(counted, rel=0.002)


def test_uneven_rows_count_as_they_are(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    (arm,) = arms_of(TINY, [], ["uniform"], [], registry)
    cls = registry.get("mask_scheduler", "uniform")

    def counts(self: Any, tokens: Any, *_: Any) -> Any:
        return torch.arange(tokens.batch) % 2 * 8 + 4  # 4 and 12 hidden in turn

    monkeypatch.setattr(cls, "counts", counts)
    stand = Stand.of(arm.config, registry)
    assert set(rows_at(stand, 0.5)) == {(12, 4), (4, 12)}
    (cost,) = costs_of([stand], "tokens")
    assert cost(0.5) == pytest.approx(16 * 8)


@pytest.mark.parametrize("large", [True, False])
def test_a_step_of_uneven_rows_is_charged_what_it_multiplies(
    large: bool, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In groups a dense sample costs what it keeps; filled up, as in a small batch, all cost what the densest may."""
    monkeypatch.setattr(kernels, "chosen_attention", kernels.Attention(400))
    monkeypatch.setattr(packing, "WORTH", 1 if large else 2**40)
    (arm,) = arms_of(TINY, ["model.encoder.depth=3"], ["adaptive:ratio=0.5,spread=0.3"], [], registry)
    stand = Stand.of(arm.config, registry)
    mask = stand.model.scheduler.sample(stand.tokens, 0.5, Noise.of(range(stand.tokens.batch)))
    visible = mask.visible.sum(1)
    assert visible.unique().numel() > 2
    with flop_counter() as counter, sdpa_kernel(SDPBackend.MATH):
        world = World(0, 1, torch.device("cpu"))
        learning, part = MaskedModelling(stand.model, arm.config.train), Part(stand.tokens, mask, mask.scored)
        backward(learning, stand.model, [part], mask.scored, world, 0.5)
    (cost,), (seen,) = costs_of([stand], "flops"), costs_of([stand], "tokens")
    full = TRAIN * forward_flops(stand.model, int(visible.max()), int(mask.hidden.sum(1).max()), 16).total
    counted = counter.get_total_flops() * 16 / stand.tokens.batch
    assert counted == pytest.approx(cost(0.5), rel=0.05)
    assert (counted < 0.8 * full) is large
    assert seen(0.5) == pytest.approx(16 * float(visible.float().mean()))


def test_time_is_measured_in_turns(stands: list[Stand], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def seconds(stand: Stand, progress: float) -> float:
        asked.append(stands.index(stand))
        return 1.0 + progress + (5 if len(asked) <= 6 else 0)  # a busy first round

    monkeypatch.setattr(module, "seconds", seconds)
    costs = costs_of(stands[:2], "seconds")
    assert asked[:6] == [0, 0, 0, 1, 1, 1]
    assert [cost(0.25) for cost in costs] == [pytest.approx(1.25)] * 2


def test_a_measured_step_leaves_the_weights_alone(stands: list[Stand]) -> None:
    before = {name: value.clone() for name, value in stands[0].model.state_dict().items()}
    assert 0 < module.seconds(stands[0], 0.5) < 5
    assert all(bool((value == before[name]).all()) for name, value in stands[0].model.state_dict().items())


@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=3), st.integers(1, 400))
def test_steps_within_undoes_total(values: list[float], steps: int) -> None:
    cost = between((0.0, 0.5, 1.0), values)
    assert abs(total(cost, steps_within(cost, total(cost, steps))) - total(cost, steps)) <= max(values)


def test_the_share_spent_rises_from_none_to_all() -> None:
    shares = spent(between((0.0, 1.0), [1.0, 3.0]), 100)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert shares[20] < 0.5  # the second half of the run is the dear one


def test_an_unknown_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such budget") as raised:
        budget_named("flop")
    assert "Did you mean 'flops'" in str(raised.value)
