"""The check of the whole: a tiny model learns one batch by heart."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import torch
from torch import nn

from maskedmodel.components import Objective, Tokenizer
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.noise import Noise, seeded
from maskedmodel.schedulers import MaskScheduler, Observed
from maskedmodel.testing.fixtures import TINY_MODEL, Direct, Fixed, Named, generator, maskable, suitable
from maskedmodel.testing.rules import CheckFailed, require

STEPS = 30
# The mean loss of the last three steps, as a share of the loss of predicting zero, must be below this. Measured with
# these settings: 0.66 for pictures of 224 pixels and random content, 0.01 to 0.4 for small signals.
FALL = 0.8
LEARNING_RATE = 2e-3


def check_overfit(component: Tokenizer[Any] | MaskScheduler[Any] | Objective[Any]) -> None:
    """In 30 steps on one sample the loss, as a share of that of predicting zero, falls below 0.8 of its first."""
    if isinstance(component, Tokenizer):
        _require_learning(component, component, Fixed(), Named() if component.vocabulary else Direct())
    elif isinstance(component, MaskScheduler):
        with maskable(component) as tokenizer:
            _require_learning(component, tokenizer, component, Direct())
    else:
        with closing(suitable(component)) as found:
            _require_learning(component, next(found).tokenizer, Fixed(), component)


def _require_learning(
    component: Tokenizer[Any] | MaskScheduler[Any] | Objective[Any],
    tokenizer: Tokenizer[Any],
    scheduler: MaskScheduler[Any],
    objective: Objective[Any],
) -> None:
    losses = _train(tokenizer, scheduler, objective)
    if not torch.isfinite(losses).all():
        step = int((~torch.isfinite(losses)).int().argmax())
        raise CheckFailed(component, "a tiny model's loss isn't finite", expected="finite losses", got=f"step {step}")
    first, last = float(losses[0]), float(losses[-3:].mean())
    with torch.no_grad():
        values = tokenizer.tokenize(tokenizer.prepare(tokenizer.example(1, generator()))).values
    require(
        last < FALL * first,
        component,
        f"a tiny model can't learn one batch in {STEPS} steps",
        expected=f"a loss below {FALL} of {first:.4g}",
        got=f"{last:.4g}; token values have mean {values.mean():.3g} and spread {values.std():.3g}",
        fix="Bring token values to a mean near 0 and a spread near 1, and see that losses carry gradients.",
    )


def _train(tokenizer: Tokenizer[Any], scheduler: MaskScheduler[Any], objective: Objective[Any]) -> torch.Tensor:
    """The loss of each step, as a share of what predicting zero costs under the same mask (30,)."""
    signal = tokenizer.prepare(tokenizer.example(1, generator()))
    if tokenizer.needs_statistics:
        tokenizer.fit_statistics([signal])
        signal = tokenizer.prepare(tokenizer.example(1, generator()))
    tokens = tokenizer.tokenize(signal)
    if scheduler.needs_statistics:
        scheduler.fit_statistics([tokens])
    with seeded(0):
        model = MaskedAutoencoder(tokenizer, scheduler, objective, TINY_MODEL)
    if isinstance(model.decoder.head, nn.Linear):
        # The first loss is then that of predicting zero, not that of random weights, which any training brings down.
        nn.init.zeros_(model.decoder.head.weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    noise, losses = Noise.of(range(1)), []
    progress = 0.5  # all along: what a schedule hides at last only can't be learnt in time
    for _ in range(STEPS):
        output = model(tokens, progress=progress, noise=noise)
        seen = Observed(tokens, output.mask, output.loss_per_token.detach(), output.latent, progress)
        own = scheduler.observe(seen)
        total = output.loss if own is None else output.loss + own
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        with torch.no_grad():
            scheduler.after_step(model.encoder, progress)
        # Masks that learn move, and one hides tokens that are easier than another's.
        zero = model.score(torch.zeros_like(output.prediction), tokens, output.mask).sum().clamp(min=1e-12)
        losses.append(output.loss_per_token.detach().sum() / zero)
    return torch.stack(losses)
