"""Checks of objectives, against the tokens of the kit's own tokenizers.

An objective may refuse tokenizers it isn't made for: `width` then raises a MaskedModelError that says what it needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import Objective
from maskedmodel.errors import MaskedModelError
from maskedmodel.testing.fixtures import boxes, generator, suitable
from maskedmodel.testing.rules import ROUNDING, NotApplicable, difference, require, untouched_generators

AnyObjective = Objective[Any]


def _prediction(target: Tensor) -> Tensor:
    return torch.randn(target.shape, generator=generator(5))


def check_width(objective: AnyObjective) -> None:
    """A target holds as many values as `width` says, for the tokens of some tokenizer at least."""
    refused = {}
    for name, box in boxes().items():
        try:
            objective.width(box)
        except MaskedModelError as error:
            refused[name] = str(error)
    require(
        len(refused) < len(boxes()), objective, "width refuses every tokenizer", expected="one or more", got=refused
    )
    for name, box, values in suitable(objective):
        got, expected = tuple(objective.target(values).shape), (*values.shape[:2], objective.width(box))
        require(
            got == expected,
            objective,
            f"a target has another shape than width says (tokenizer {name!r})",
            expected=f"(B, M, Q) = {expected}",
            got=got,
        )


def check_loss_shape(objective: AnyObjective) -> None:
    """The loss is one number per token, none negative."""
    for name, _, values in suitable(objective):
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
    """Predicting the target scores zero, and anything else more."""
    for name, _, values in suitable(objective):
        target = objective.target(values)
        best = float(objective.loss(target, target).abs().max())
        require(
            best <= 1e-6,
            objective,
            f"the loss of a perfect prediction isn't zero (tokenizer {name!r})",
            expected="0, within 1e-6",
            got=f"{best:g}",
        )
        other = float(objective.loss(_prediction(target), target).mean())
        require(other > 1e-6, objective, "a random prediction scores zero", expected="more than 0", got=f"{other:g}")


def check_finite(objective: AnyObjective) -> None:
    """Target and loss are finite for constant patches, large values and values rounded to bfloat16."""
    for _, _, values in suitable(objective):
        cases = {
            "all zero": torch.zeros_like(values),
            "constant": torch.full_like(values, 0.3),
            "constant and large": torch.full_like(values, 1e4),
            "large": 1e4 * values,
            "bfloat16": values.bfloat16(),
            "constant bfloat16": torch.full_like(values, 0.3).bfloat16(),
        }
        for what, given in cases.items():
            target = objective.target(given)
            loss = objective.loss(_prediction(target).to(target.dtype), target)
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


def check_gradient(objective: AnyObjective) -> None:
    """The gradient reaches the prediction, and is finite at the target itself and on constant patches too."""
    for name, _, values in suitable(objective):
        target = objective.target(values)
        constant = objective.target(torch.zeros_like(values))
        cases = {"a random prediction": (_prediction(target), target), "the target itself": (target, target)}
        cases["a constant patch"] = (_prediction(constant), constant)
        for what, (start, goal) in cases.items():
            prediction = start.detach().clone().requires_grad_()
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
    for name, _, values in suitable(objective):
        changed = values.clone()
        changed[:, ::2] = 5 - 3 * changed[:, ::2]
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


def check_to_values(objective: AnyObjective) -> None:
    """`to_values` turns the target, with its statistics, back into the raw values."""
    for name, _, values in suitable(objective):
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
    for name, box, values in suitable(objective):
        baseline = objective.baseline(box)
        if baseline is None:
            continue
        known += 1
        target = objective.target(torch.randn(64, *values.shape[1:], generator=generator(3)))
        got = float(objective.loss(torch.zeros_like(target), target).mean())
        require(
            abs(got - baseline) <= 0.02 * baseline,
            objective,
            f"predicting zero doesn't score baseline (tokenizer {name!r})",
            expected=f"{baseline:.4f}, within 2 %",
            got=f"{got:.4f} on random values",
            fix="Return None where the loss of predicting zero depends on the data.",
        )
    if not known:
        raise NotApplicable("baseline returns None: the loss of predicting zero isn't known beforehand")


def check_pure(objective: AnyObjective) -> None:
    """The same input gives the same target and loss, and isn't changed by it."""
    for _, _, values in suitable(objective):
        given = values.clone()
        target, again = objective.target(given), objective.target(given)
        kept, prediction = target.clone(), _prediction(target)
        first, second = objective.loss(prediction, target), objective.loss(prediction, target)
        for rule, one, other in (
            ("the same values give another target", kept, again),
            ("the same prediction scores otherwise", first, second),
        ):
            require(
                torch.equal(one, other),
                objective,
                rule,
                expected="a pure function",
                got=f"a difference of {difference(other, one):.2g} of the largest value",
                fix="Draw nothing at random, and keep no state between calls.",
            )
        unchanged = torch.equal(given, values) and torch.equal(kept, target)
        require(unchanged, objective, "changes its input in place", fix="Use out-of-place operations.")


def check_global_generators(objective: AnyObjective) -> None:
    """No method draws from the global generators of torch, numpy or Python."""
    with untouched_generators(objective):
        for _, box, values in suitable(objective):
            target = objective.target(values)
            objective.loss(_prediction(target), target)
            objective.to_values(target, objective.statistics(values))
            objective.baseline(box)
