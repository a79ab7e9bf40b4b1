"""Checks of objectives, against the tokens of the kit's own tokenizers.

An objective may refuse tokenizers it isn't made for: `attach` or `width` then raises a MaskedModelError that says what
it needs. One that refuses all of the kit's is checked with the tokenizers of its own plugin, and with the one that it
names itself; on those it is given nothing but values as their examples have.

    @classmethod
    def example_tokenizer(cls) -> Characters: ...

    zero_at_target = False  # the target itself isn't a perfect prediction: it is a class, say, and predictions logits
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import Objective
from maskedmodel.errors import MaskedModelError
from maskedmodel.testing.building import companions
from maskedmodel.testing.fixtures import boxes, example_tokens, generator, refusal, suitable
from maskedmodel.testing.rules import (
    ROUNDING,
    CheckFailed,
    NotApplicable,
    difference,
    require,
    require_equal,
    same,
    untouched_generators,
)

AnyObjective = Objective[Any]


def _prediction(target: Tensor) -> Tensor:
    return torch.randn(target.shape, generator=generator(5))


def check_width(objective: AnyObjective) -> None:
    """A target holds as many values as `width` says, for the tokens of some tokenizer at least."""
    refused = {}
    for name, tokenizer in (*boxes().items(), *companions(objective)):
        error = refusal(objective, tokenizer)
        if error is None:
            break
        refused[name] = f"{type(error).__name__}: {error}"
    else:
        raise CheckFailed(
            objective,
            "it goes with no tokenizer",
            expected="one or more: the kit's, those of its plugin, or the one that example_tokenizer() gives",
            got=refused,
            fix="Where it is made for a tokenizer of another plugin, give one by the classmethod example_tokenizer.",
        )
    for name, tokenizer, values, _ in suitable(objective):
        got, expected = tuple(objective.target(values).shape), (*values.shape[:2], objective.width(tokenizer))
        require(
            got == expected,
            objective,
            f"a target has another shape than width says (tokenizer {name!r})",
            expected=f"(B, M, Q) = {expected}",
            got=got,
        )


def check_refusals(objective: AnyObjective) -> None:
    """A tokenizer that it can't go with is refused by a MaskedModelError, in `attach` or `width`."""
    refused = 0
    for name, box in boxes().items():
        error = refusal(objective, box)
        refused += error is not None
        require(
            error is None or isinstance(error, MaskedModelError),
            objective,
            f"a tokenizer that it isn't made for isn't refused clearly (tokenizer {name!r})",
            expected="a ConfigError that says which tokens it needs",
            got=f"{type(error).__name__}: {error}",
            fix="Look at the tokenizer in attach, and raise ConfigError(..., expected=..., got=...).",
        )
    if not refused:
        raise NotApplicable("it takes all of the kit's tokenizers")


def check_loss_shape(objective: AnyObjective) -> None:
    """The loss is one number per token, none negative."""
    for name, _, values, _ in suitable(objective):
        target = objective.target(values)
        loss = objective.loss(_prediction(target), target)
        require(
            loss.shape == target.shape[:2],
            objective,
            f"the loss isn't one number per token (tokenizer {name!r})",
            expected=f"(B, M) = {tuple(target.shape[:2])}",
            got=tuple(loss.shape),
            fix="Average over the last dimension alone: the core masks and averages over tokens.",
        )
        require(loss.min() >= 0, objective, "a loss is negative", expected="0 or more", got=float(loss.min()))


def check_zero_at_target(objective: AnyObjective) -> None:
    """Predicting the target scores zero, and anything else more; with zero_at_target = False it only scores less."""
    for name, _, values, _ in suitable(objective):
        target = objective.target(values)
        perfect = objective.loss(target.float(), target)
        other = float(objective.loss(_prediction(target), target).mean())
        if not getattr(objective, "zero_at_target", True):
            best = float(perfect.mean())
            require(best < other, objective, "the target scores no less than chance", expected=f"< {other:g}", got=best)
            continue
        best = float(perfect.abs().max())
        require(
            best <= 1e-6,
            objective,
            f"the loss of a perfect prediction isn't zero (tokenizer {name!r})",
            expected="0, within 1e-6",
            got=f"{best:g}",
            fix="Where the target is no prediction, a class say, declare zero_at_target = False in the class.",
        )
        require(other > 1e-6, objective, "a random prediction scores zero", expected="more than 0", got=f"{other:g}")


def check_finite(objective: AnyObjective) -> None:
    """Target and loss are finite for constant patches, large values and values rounded to bfloat16."""
    for _, _, values, own in suitable(objective):
        for what, given in ({"equal": _alike(values)} if own else _hard_cases(values)).items():
            target = objective.target(given)
            prediction = _prediction(target)
            loss = objective.loss(prediction.to(target.dtype) if target.is_floating_point() else prediction, target)
            for part, result in (("target", target), ("loss", loss)):
                wild = int((~torch.isfinite(result)).sum())
                require(
                    wild == 0,
                    objective,
                    f"the {part} isn't finite where patches are {what}",
                    expected="finite numbers",
                    got=f"{wild} of {result.numel()} are NaN or infinite",
                    fix="Add an epsilon to what is divided by, or under a root.",
                )


def _hard_cases(values: Tensor) -> dict[str, Tensor]:
    return {
        "all zero": torch.zeros_like(values),
        "constant": torch.full_like(values, 0.3),
        "constant and large": torch.full_like(values, 1e4),
        "large": 1e4 * values,
        "bfloat16": values.bfloat16(),
        "constant bfloat16": torch.full_like(values, 0.3).bfloat16(),
    }


def _alike(values: Tensor) -> Tensor:
    """All tokens as the first one, for targets that are made for such values alone."""
    return values[:1, :1].expand_as(values)


def check_gradient(objective: AnyObjective) -> None:
    """The gradient reaches the prediction, and is finite at the target itself and on constant patches too."""
    for name, _, values, own in suitable(objective):
        target = objective.target(values)
        constant = objective.target(_alike(values) if own else torch.zeros_like(values))
        cases = {"a random prediction": (_prediction(target), target), "the target itself": (target, target)}
        cases["a constant patch"] = (_prediction(constant), constant)
        for what, (start, goal) in cases.items():
            prediction = start.detach().float().clone().requires_grad_()
            loss = objective.loss(prediction, goal).sum()
            require(loss.requires_grad, objective, "the loss carries no gradient", fix="Keep to torch operations.")
            (gradient,) = torch.autograd.grad(loss, prediction)
            wild = int((~torch.isfinite(gradient)).sum())
            require(
                wild == 0,
                objective,
                f"the gradient isn't finite at {what} (tokenizer {name!r})",
                expected="finite numbers",
                got=f"{wild} of {gradient.numel()} are NaN or infinite",
                fix="A root has an infinite slope at zero: put an epsilon under it.",
            )
            if what == "a random prediction":
                require(gradient.abs().max() > 0, objective, "the gradient is zero everywhere", got=0.0)


def check_tokens_independent(objective: AnyObjective) -> None:
    """A token's target and loss depend on that token alone: padding and other samples can't change them."""
    for name, _, values, own in suitable(objective):
        changed = values.clone()
        changed[:, ::2] = values.roll(1, 0)[:, ::2] if own else 5 - 3 * changed[:, ::2]
        target, other = objective.target(values), objective.target(changed)
        loss = objective.loss(_prediction(target), target)
        other_loss = objective.loss(_prediction(target), other)
        for what, before, after in (("target", target, other), ("loss", loss, other_loss)):
            away = difference(after[:, 1::2], before[:, 1::2])
            require(
                away <= ROUNDING,
                objective,
                f"a token's {what} depends on other tokens (tokenizer {name!r})",
                expected="no change where other tokens change",
                got=f"a difference of {away:.2g} of the largest",
                fix="Compute statistics over the last dimension alone.",
            )


def check_by_value(objective: AnyObjective) -> None:
    """With by_value = True a token's loss is the sum of what its values cost one by one, each at a target of its own.

    Two predictions, one wrong in some values and one in all others, cost together what one that is wrong in all costs.
    """
    declared = False
    for name, _, values, _ in suitable(objective):
        if not objective.by_value:
            continue
        declared = True
        target = objective.target(values)
        require(
            target.shape == values.shape,
            objective,
            f"by_value is True, and a target has another shape than its values (tokenizer {name!r})",
            expected=f"(B, M, P) = {tuple(values.shape)}",
            got=tuple(target.shape),
            fix="Leave by_value False.",
        )
        prediction, some = _prediction(target), torch.rand(target.shape, generator=generator(6)) < 0.5
        parts = [objective.loss(torch.where(chosen, prediction, target), target) for chosen in (some, ~some)]
        away = difference(parts[0] + parts[1], objective.loss(prediction, target))
        require(
            away <= ROUNDING,
            objective,
            f"by_value is True, and what one value costs depends on others (tokenizer {name!r})",
            expected="the loss of some values and that of the others, added: the loss of all",
            got=f"a difference of {away:.2g} of the largest",
            fix="Leave by_value False: tokens that are there in part are refused then.",
        )
    if not declared:
        raise NotApplicable("by_value is False: it is refused on tokens that are there in part")


def check_loss_in_part(objective: AnyObjective) -> None:
    """Of tokens that are there in full `loss_in_part` is the loss; of others it is finite, and 0 or more."""
    if objective.by_value or not objective.scores_in_part():
        raise NotApplicable("loss_in_part isn't written, or not needed")
    for name, _, values, _ in suitable(objective):
        target = objective.target(values)
        prediction = _prediction(target)
        whole = objective.loss_in_part(prediction, target, torch.ones_like(values, dtype=torch.bool))
        away = difference(whole, objective.loss(prediction, target))
        require(
            away <= ROUNDING,
            objective,
            f"loss_in_part of tokens that are there in full isn't their loss (tokenizer {name!r})",
            got=f"a difference of {away:.2g} of the largest",
        )
        observed = torch.rand(values.shape, generator=generator(6)) < 0.5
        part = objective.loss_in_part(torch.where(observed, prediction, target), target, observed)
        require(
            part.shape == values.shape[:2] and bool((part.isfinite() & (part >= 0)).all()),
            objective,
            f"loss_in_part gave no loss per token (tokenizer {name!r})",
            expected=f"(B, M) = {tuple(values.shape[:2])}, finite, 0 or more",
            got=tuple(part.shape),
        )


def check_to_values(objective: AnyObjective) -> None:
    """`to_values` turns the target, with its statistics, back into the raw values."""
    for name, _, values, _ in suitable(objective):
        target = objective.target(values)
        back = objective.to_values(target, objective.statistics(values))
        if back is None:
            raise NotApplicable("to_values offers no way back from a prediction to values")
        away = difference(back, values)
        require(
            away <= 1e-4,
            objective,
            f"to_values(target(x), statistics(x)) isn't x (tokenizer {name!r})",
            expected="a difference of at most 1e-4 of the largest value",
            got=f"{away:.2g}",
            fix="Let statistics return what target takes out, or let to_values return None.",
        )


def check_baseline(objective: AnyObjective) -> None:
    """`baseline` is the loss of predicting zero."""
    known = 0
    for name, tokenizer, values, own in suitable(objective):
        baseline = objective.baseline(tokenizer)
        if baseline is None:
            continue
        known += 1
        drawn = torch.randn(64, *values.shape[1:], generator=generator(3))
        target = objective.target(example_tokens(tokenizer, 64).values.float() if own else drawn)
        got = float(objective.loss(torch.zeros(target.shape), target).mean())
        require(
            abs(got - baseline) <= 0.02 * baseline,
            objective,
            f"predicting zero doesn't score baseline (tokenizer {name!r})",
            expected=f"{baseline:.4f}, within 2 %",
            got=f"{got:.4f} on {'examples' if own else 'random values'}",
            fix="Return None where the loss of predicting zero depends on the data.",
        )
    if not known:
        raise NotApplicable("baseline returns None: the loss of predicting zero isn't known beforehand")


def check_pure(objective: AnyObjective) -> None:
    """The same input gives the same target and loss, and isn't changed by it."""
    for _, _, values, _ in suitable(objective):
        given = values.clone()
        target, again = objective.target(given), objective.target(given)
        kept, prediction = target.clone(), _prediction(target)
        first, second = objective.loss(prediction, target), objective.loss(prediction, target)
        for rule, one, other in (
            ("the same values give another target", kept, again),
            ("the same prediction scores otherwise", first, second),
        ):
            fix = "Draw nothing at random, and keep no state between calls."
            require_equal(one, other, objective, rule, expected="a pure function", fix=fix)
        unchanged = same(given, values) and same(kept, target)
        require(unchanged, objective, "changes its input in place", fix="Use out-of-place operations.")


def check_global_generators(objective: AnyObjective) -> None:
    """No method draws from the global generators of torch, numpy or Python."""
    with untouched_generators(objective):
        for _, tokenizer, values, _ in suitable(objective):
            target = objective.target(values)
            objective.loss(_prediction(target), target)
            objective.to_values(target, objective.statistics(values))
            objective.baseline(tokenizer)
