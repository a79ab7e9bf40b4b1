"""Checks of mask schedulers, over tokens of every layout: one to three axes, channels, off the grid, padding.

For each layout a copy of the scheduler is attached to a small encoder and, where it needs statistics, given the tokens.
A scheduler may refuse a layout it isn't made for with a ShapeError or ConfigError that says what it needs. One that
gives the same mask in every epoch says so by an attribute of its class:

    deterministic = True
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from maskedmodel.engine.flops import flop_counter
from maskedmodel.errors import MaskedModelError
from maskedmodel.noise import Noise
from maskedmodel.schedulers import MaskScheduler, Observed
from maskedmodel.testing.fixtures import TINY_MODEL, attached, generator, layouts_for
from maskedmodel.testing.rules import CheckFailed, NotApplicable, require, untouched_generators
from maskedmodel.tokens import Mask, Tokens, hidden_count

PROGRESS = (0.0, 0.2, 0.5, 0.9, 1.0)
FLOPS = 0.05  # how far declared FLOPs may be from counted ones
EPOCHS = 100  # in which every token must be hidden sometimes and visible sometimes

AnyScheduler = MaskScheduler[Any]


def _noise(tokens: Tokens, epoch: int = 0) -> Noise:
    return Noise.of(range(tokens.batch), epoch=epoch)


def _fitting(scheduler: AnyScheduler) -> Iterator[tuple[str, Tokens, AnyScheduler]]:
    """The layouts for which it gives a mask, and the copy that does so.

    What it does with the others is `check_layouts`'s business alone.
    """
    found = False
    for name, tokens in layouts_for(scheduler).items():
        try:
            ready = attached(scheduler, tokens)
            ready.sample(tokens, 0.5, _noise(tokens))
        except Exception:  # noqa: BLE001 - check_layouts fails on it, or finds it a clear refusal
            continue
        found = True
        yield name, tokens, ready
    if not found:
        raise NotApplicable("no layout gets a mask, on which check_layouts fails")


def _real(tokens: Tokens) -> Tensor:
    """(B,) how many real tokens each sample has."""
    return torch.full((tokens.batch,), tokens.length) if tokens.valid is None else tokens.valid.sum(1)


def check_layouts(scheduler: AnyScheduler) -> None:
    """Tokens of every layout get a mask or a clear refusal, and some layout gets a mask."""
    refused, tried = {}, layouts_for(scheduler)
    for name, tokens in tried.items():
        try:
            attached(scheduler, tokens).sample(tokens, 0.5, _noise(tokens))
        except MaskedModelError as error:
            refused[name] = str(error)
        except Exception as error:
            raise CheckFailed(
                scheduler,
                f"can't mask tokens of the layout {name!r}",
                expected="a mask, or a ShapeError or ConfigError that says which tokens it needs",
                got=f"{type(error).__name__}: {error}",
                fix="Work from Tokens.coords, channel and valid, of any number of axes.",
            ) from error
    require(
        len(refused) < len(tried),
        scheduler,
        "refuses tokens of every layout",
        expected="one or more, those of its plugin's tokenizers and of example_tokenizer included",
        got=refused,
    )


def check_ratio(scheduler: AnyScheduler) -> None:
    """`ratio` is a number between 0 and 1, both excluded, at every point of the run."""
    for step in range(21):
        ratio = scheduler.ratio(step / 20)
        require(
            isinstance(ratio, float) and 0 < ratio < 1,
            scheduler,
            f"ratio({step / 20:g}) hides nothing, everything or nonsense",
            expected="a float between 0 and 1, both excluded",
            got=repr(ratio),
        )


def check_count(scheduler: AnyScheduler) -> None:
    """Each sample hides as many tokens as `ratio`, or `counts`, says of its real tokens."""
    for name, tokens, ready in _fitting(scheduler):
        for progress in PROGRESS:
            hidden, real = ready.sample(tokens, progress, _noise(tokens)).hidden.sum(1), _real(tokens)
            ratio, counts = ready.ratio(progress), ready.counts(tokens, progress, _noise(tokens))
            if counts is not None:
                wanted = torch.as_tensor(counts).expand(tokens.batch)
                expected = torch.minimum(wanted.clamp(min=1), (real - 1).clamp(min=0)).tolist()
            else:
                expected = [hidden_count(int(length), ratio) for length in real]
            require(
                hidden.tolist() == expected,
                scheduler,
                f"another number of tokens is hidden than its ratio says (layout {name!r}, progress {progress:g})",
                expected=f"{expected} of {real.tolist()}" + ("" if counts is not None else f" at a ratio of {ratio:g}"),
                got=hidden.tolist(),
                fix="Override ratio, scores and counts, and leave sample as it is.",
            )


def check_polarity(scheduler: AnyScheduler) -> None:
    """The tokens with the highest scores are hidden."""
    for name, tokens, ready in _fitting(scheduler):
        noise = _noise(tokens)
        scores, mask = ready.scores(tokens, 0.5, noise), ready.sample(tokens, 0.5, noise)
        lowest = scores.masked_fill(~mask.hidden, torch.inf).amin(1)
        highest = scores.masked_fill(~mask.visible, -torch.inf).amax(1)
        wrong = int((lowest < highest).sum())
        require(
            wrong == 0,
            scheduler,
            f"a visible token has a higher score than a hidden one (layout {name!r})",
            expected="the highest scores hidden",
            got=f"{wrong} of {tokens.batch} samples the other way",
            fix="True = hidden, and the highest scores are hidden: turn the sign of the scores.",
        )


def check_padding(scheduler: AnyScheduler) -> None:
    """Padding is neither hidden nor visible, more of it changes nothing, and a sample hides and shows a token."""
    fitting = [(tokens, ready) for _, tokens, ready in _fitting(scheduler) if tokens.valid is not None]
    if not fitting:
        raise NotApplicable("it refuses tokens with padding")
    for tokens, ready in fitting:
        assert tokens.valid is not None
        mask = ready.sample(tokens, 0.5, _noise(tokens))
        hidden = int((mask.hidden & ~tokens.valid).sum())
        require(
            hidden == 0,
            scheduler,
            "padding is hidden",
            expected="0 tokens of padding hidden",
            got=hidden,
            fix="Pass Tokens.valid on to Mask.from_scores, or leave sample as it is.",
        )
        shown = int((mask.visible & ~tokens.valid).sum())
        require(shown == 0, scheduler, "padding is visible", expected="0 tokens", got=shown, fix="Set Mask.valid.")
        _require_both_sides(scheduler, mask)
        longer = ready.sample(_padded(tokens, 3), 0.5, _noise(tokens)).hidden
        moved = int((longer[:, : tokens.length] != mask.hidden).any(1).sum())
        require(
            moved == 0 and not longer[:, tokens.length :].any(),
            scheduler,
            "three more tokens of padding change the mask",
            expected="the same real tokens hidden",
            got=f"other ones in {moved} of {tokens.batch} samples",
            fix="Draw noise token by token from the first on, and count real tokens only.",
        )


def _require_both_sides(scheduler: AnyScheduler, mask: Mask) -> None:
    for what, count in (("hides", mask.hidden.sum(1)), ("shows", mask.visible.sum(1))):
        require(
            count.min() > 0,
            scheduler,
            f"a sample {what} no real token",
            expected="1 or more in each",
            got=count.tolist(),
        )


def _padded(tokens: Tokens, more: int) -> Tokens:
    def grown(tensor: Tensor, dim: int) -> Tensor:
        filler = tensor.narrow(dim, 0, more)
        return torch.cat([tensor, filler], dim)

    assert tokens.valid is not None
    valid = torch.cat([tokens.valid, torch.zeros(tokens.batch, more, dtype=torch.bool)], 1)
    coords = grown(tokens.coords, tokens.coords.dim() - 2)
    channel = None if tokens.channel is None else grown(tokens.channel, tokens.channel.dim() - 1)
    features = tokens.channel_features
    return replace(
        tokens,
        values=grown(tokens.values, 1),
        coords=coords,
        grid=None,  # more tokens than cells fill none
        channel=channel,
        valid=valid,
        channel_features=None if features is None else grown(features, features.dim() - 2),
    )


def check_noise(scheduler: AnyScheduler) -> None:
    """The same noise gives the same mask, and another epoch another one."""
    for name, tokens, ready in _fitting(scheduler):
        first, again = (ready.sample(tokens, 0.5, _noise(tokens)).hidden for _ in range(2))
        require(
            torch.equal(first, again),
            scheduler,
            f"the same noise gives another mask (layout {name!r})",
            expected="a pure function of tokens, progress and noise",
            got=f"{int((first != again).any(1).sum())} of {tokens.batch} samples differ",
            fix="Draw with noise.uniform(count, purpose=...), never from a generator, and count no calls.",
        )


def check_epochs(scheduler: AnyScheduler) -> None:
    """Another epoch gives another mask."""
    _refuse_deterministic(scheduler)
    for name, tokens, ready in _fitting(scheduler):
        first, later = (ready.sample(tokens, 0.5, _noise(tokens, epoch)).hidden for epoch in (0, 1))
        require(
            not torch.equal(first, later),
            scheduler,
            f"every epoch gives the same mask (layout {name!r})",
            expected="other tokens hidden in epoch 1 than in epoch 0",
            got=f"the same in all {tokens.batch} samples",
            fix="Let the scores depend on the noise, or declare deterministic = True in the class.",
        )


def check_every_token(scheduler: AnyScheduler) -> None:
    """In 100 epochs every real token is hidden sometimes and visible sometimes."""
    _refuse_deterministic(scheduler)
    for name, tokens, ready in _fitting(scheduler):
        hidden, visible = torch.zeros(2, tokens.length)
        many = _repeated(tokens, EPOCHS // len(PROGRESS))
        for turn, progress in enumerate(PROGRESS):
            epochs = torch.arange(many.batch) // tokens.batch * len(PROGRESS) + turn
            noise = replace(Noise.of([*range(tokens.batch)] * (EPOCHS // len(PROGRESS))), epoch=epochs)
            mask = ready.sample(many, progress, noise)
            hidden, visible = hidden + mask.hidden.sum(0), visible + mask.visible.sum(0)
        for what, count in (("hidden", hidden), ("visible", visible)):
            never = (count == 0).nonzero().flatten().tolist()
            require(
                not never,
                scheduler,
                f"some tokens are never {what} (layout {name!r})",
                expected=f"each token {what} sometimes in {EPOCHS * tokens.batch} masks",
                got=f"never: tokens {never}",
                fix="Let the noise reach every token, or declare deterministic = True in the class.",
            )


def _repeated(tokens: Tokens, times: int) -> Tokens:
    """The batch several times over, as one batch."""

    def again(tensor: Tensor | None, dims: int) -> Tensor | None:
        return tensor if tensor is None or tensor.dim() < dims else tensor.repeat(times, *[1] * (dims - 1))

    values, coords = again(tokens.values, 3), again(tokens.coords, 3)
    assert values is not None
    assert coords is not None
    return replace(
        tokens,
        values=values,
        coords=coords,
        channel=again(tokens.channel, 2),
        valid=again(tokens.valid, 2),
        observed=again(tokens.observed, 3),
        channel_features=again(tokens.channel_features, 3),
    )


def _refuse_deterministic(scheduler: AnyScheduler) -> None:
    if scheduler.deterministic:
        raise NotApplicable("the class declares deterministic = True")


def check_samples_independent(scheduler: AnyScheduler) -> None:
    """A sample's mask doesn't depend on the rest of its batch."""
    for name, tokens, ready in _fitting(scheduler):
        noise = _noise(tokens)
        whole = ready.sample(tokens, 0.5, noise).hidden
        others = replace(tokens, values=torch.cat([tokens.values[:1], 3 - tokens.values[1:]]))
        two, one = slice(1, 3), slice(0, 1)
        for how, hidden, rows in (
            ("in a batch of two", ready.sample(tokens.rows(two), 0.5, noise.rows(two)).hidden, two),
            ("alone", ready.sample(tokens.rows(one), 0.5, noise.rows(one)).hidden, one),
            ("beside other values", ready.sample(others, 0.5, noise).hidden[one], one),
        ):
            differ = int((hidden != whole[rows]).any(1).sum())
            require(
                differ == 0,
                scheduler,
                f"a sample gets another mask {how} (layout {name!r})",
                expected="a mask that depends on the sample's own tokens and noise",
                got=f"{differ} of {len(hidden)} samples differ",
                fix="Let row i of the scores depend on row i of tokens and noise alone.",
            )


def check_progress(scheduler: AnyScheduler) -> None:
    """Ratio and mask are functions of progress: calls made before, and their order, change nothing."""
    for name, tokens, ready in _fitting(scheduler):
        noise = _noise(tokens)
        forward, backward = copy.deepcopy(ready), copy.deepcopy(ready)
        first = [(forward.ratio(p), forward.sample(tokens, p, noise).hidden) for p in PROGRESS]
        second = [(backward.ratio(p), backward.sample(tokens, p, noise).hidden) for p in reversed(PROGRESS)][::-1]
        for progress, (ratio, hidden), (other_ratio, other_hidden) in zip(PROGRESS, first, second, strict=True):
            require(
                ratio == other_ratio and torch.equal(hidden, other_hidden),
                scheduler,
                f"earlier calls change what it gives at progress {progress:g} (layout {name!r})",
                expected=f"ratio {ratio:g} and the same mask, in whatever order it is called",
                got=f"ratio {other_ratio:g}, {int((hidden != other_hidden).any(1).sum())} other masks",
                fix="Compute from progress; a count of calls depends on the workers and is lost at a resume.",
            )


def check_observe(scheduler: AnyScheduler) -> None:
    """`observe` takes a step's losses and returns nothing, or a finite loss that reaches every trained weight."""
    if type(scheduler).observe is MaskScheduler.observe:
        raise NotApplicable("it doesn't override observe, so it learns nothing")
    for name, tokens, ready in _fitting(scheduler):
        mask = ready.sample(tokens, 0.5, _noise(tokens))
        loss = ready.observe(_observed(tokens, mask, 0.5))
        require(
            loss is None or (loss.dim() == 0 and bool(torch.isfinite(loss))),
            scheduler,
            f"observe returns something else than a loss (layout {name!r})",
            expected="None or a finite scalar",
            got=None if loss is None else f"{tuple(loss.shape)} {loss}",
        )
        trained = {weight: weight_name for weight_name, weight in ready.named_parameters() if weight.requires_grad}
        if loss is None or not trained:
            continue
        (loss if mask.gates is None else loss + mask.gates.sum()).backward()  # type: ignore[no-untyped-call]
        idle = [weight_name for weight, weight_name in trained.items() if weight.grad is None]
        require(
            not idle,
            scheduler,
            f"some weights get no gradient (layout {name!r})",
            expected="a gradient for each in every step, for which training on several devices waits",
            got=f"none: {', '.join(idle)}",
            fix="Let every weight enter the loss of observe, or take its gradient with requires_grad_(False).",
        )


def _observed(tokens: Tokens, mask: Mask, progress: float) -> Observed:
    """What a scheduler sees of a step with random losses."""
    losses = torch.rand(mask.ids_hidden.shape, generator=generator())
    prefix = int(TINY_MODEL.encoder.class_token) + TINY_MODEL.encoder.registers
    shape = tokens.batch, prefix + mask.ids_keep.shape[1], TINY_MODEL.encoder.dim
    return Observed(tokens, mask, losses, torch.randn(shape, generator=generator()).requires_grad_(), progress)


def check_flops(scheduler: AnyScheduler) -> None:
    """`flops` is what torch counts in drawing a mask, learning from it and the gradients of both, within 5 %.

    A pass with gradient may be declared as three forward passes, though a first layer, which has no gradient to its
    input, costs two. It is looked at in the middle of a run.
    """
    for name, tokens, ready in _fitting(scheduler):
        if tokens.valid is not None:
            continue  # what is declared is for real tokens alone
        counted, said = _counted(ready, tokens, 0.5), float(ready.flops(tokens.length))
        require(
            (1 - FLOPS) * counted <= said <= 1.5 * (1 + FLOPS) * counted,
            scheduler,
            f"flops isn't what torch counts (layout {name!r})",
            expected=f"{counted:.4g} a sample, within {FLOPS:.0%}; or up to half more, as three forward passes",
            got=f"{said:.4g}",
            fix="Count matrix products, forward and backward, a multiplication and an addition each one: "
            "maskedmodel.nn.block_flops does it for a block.",
        )
        return
    raise NotApplicable("it takes no tokens without padding")


def _counted(ready: AnyScheduler, tokens: Tokens, progress: float) -> float:
    """Work per sample of a step, by torch's counter."""
    with flop_counter() as counter, sdpa_kernel(SDPBackend.MATH):
        mask = ready.sample(tokens, progress, _noise(tokens))
        loss = ready.observe(_observed(tokens, mask, progress))
        parts = [part for part in (loss, mask.gates) if part is not None and part.requires_grad]
        if parts:
            torch.autograd.backward([part.sum() for part in parts])
    ready.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / tokens.batch


def check_global_generators(scheduler: AnyScheduler) -> None:
    """No method draws from the global generators of torch, numpy or Python."""
    with untouched_generators(scheduler):
        for _, tokens, ready in _fitting(scheduler):
            ready.ratio(0.5)
            ready.sample(tokens, 0.5, _noise(tokens))
