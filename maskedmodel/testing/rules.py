"""What every check is made of: how it fails, how it says that it doesn't apply, and how two results are compared."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskedmodel.components import Component
from maskedmodel.plugins import KINDS, Kind, label
from maskedmodel.tokens import Tokens

# Allowed between a batch and its samples taken one by one, as a share of the largest value: a matrix product may add
# up in another order when the batch has another size.
ROUNDING = 1e-5

_BASES = ", ".join(base.__name__ for base in KINDS.values())


class NotApplicable(Exception):
    """A check has nothing to judge in this component. The message says why."""


class CheckFailed(AssertionError):
    """A component breaks a rule. The message names component and rule, what was found and what to do."""

    def __init__(
        self, component: object, rule: str, *, expected: object = None, got: object = None, fix: str | None = None
    ) -> None:
        details = {"expected": expected, "got": got, "to fix": fix}
        lines = [f"{describe(component)}: {rule}"]
        lines += [f"  {key}: {value}" for key, value in details.items() if value is not None]
        super().__init__("\n".join(lines))


def require(
    holds: bool | Tensor,
    component: object,
    rule: str,
    *,
    expected: object = None,
    got: object = None,
    fix: str | None = None,
) -> None:
    """Raises CheckFailed unless the rule `holds`."""
    if not holds:
        raise CheckFailed(component, rule, expected=expected, got=got, fix=fix)


def require_equal(first: Tensor, again: Tensor, component: object, rule: str, *, expected: str, fix: str) -> None:
    """Raises CheckFailed unless two results of one call are equal to the bit; NaN equals NaN."""
    got = f"a difference of {difference(again, first):.2g} of the largest value"
    require(same(first, again), component, rule, expected=expected, got=got, fix=fix)


def class_of(component: object) -> type[Component[Any]]:
    """The class of a component, or the class itself. Raises TypeError on anything else."""
    cls = component if isinstance(component, type) else type(component)
    if not issubclass(cls, Component):
        raise TypeError(f"{cls.__qualname__} is no component: it derives from none of {_BASES}")
    return cls


def kind_of(component: object) -> Kind:
    """The kind of a component or component class. Raises TypeError on anything else."""
    cls = class_of(component)
    for kind, base in KINDS.items():
        if issubclass(cls, base):
            return kind
    raise TypeError(f"{cls.__qualname__} is of no kind: it derives from none of {_BASES}")


def describe(component: object) -> str:
    """The component in words: `tokenizer 'ecg' (maskedmodel_ecg.Ecg)`."""
    cls = class_of(component)
    settings = getattr(cls, "settings_class", None)
    name = settings.model_fields["name"].default if settings is not None else None
    return f"{label(kind_of(cls))} {name!r} ({cls.__module__}.{cls.__qualname__})"


def same(left: Tensor | None, right: Tensor | None) -> bool:
    """Whether both are None, or equal in shape, type and every value. NaN equals NaN: the value is absent."""
    if left is None or right is None:
        return left is right
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return bool(((left == right) | (left.isnan() & right.isnan())).all())


def difference(left: Tensor, right: Tensor) -> float:
    """The largest difference as a share of the largest value of `right`; infinite where the shapes differ.

    NaN equals NaN: it says that a value is absent.
    """
    if left.shape != right.shape or not torch.equal(left.isnan(), right.isnan()):
        return float("inf")
    left, right = (x.detach().double()[~right.isnan()] for x in (left, right))
    if right.numel() == 0:
        return 0.0
    largest = float((left - right).abs().max())
    scale = float(right.abs().max())
    return largest / scale if scale > 0 else largest


def sample_of(tokens: Tokens, row: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Values (n, P), coords (n, A), channel (n,) and channel features (n, F) of a sample's n real tokens."""
    real = slice(None) if tokens.valid is None else tokens.valid[row]
    coords = tokens.coords if tokens.coords.dim() == 2 else tokens.coords[row]
    channel, features = tokens.channel, tokens.channel_features
    if channel is not None:
        channel = (channel if channel.dim() == 1 else channel[row])[real]
    if features is not None:
        features = (features if features.dim() == 2 else features[row])[real]
    return tokens.values[row][real], coords[real], channel, features


def tokens_differ(left: Tokens, left_row: int, right: Tokens, right_row: int) -> str | None:
    """What differs between a sample of one batch and a sample of another, beyond rounding; None where nothing does."""
    names = ("values", "coords", "channel", "channel_features")
    for name, one, other in zip(names, sample_of(left, left_row), sample_of(right, right_row), strict=True):
        if one is None or other is None:
            if one is not other:
                return f"{name} is None in one of them"
        elif one.shape != other.shape:
            return f"{name} {tuple(one.shape)} and {tuple(other.shape)}"
        elif not difference(one, other) <= ROUNDING:
            return f"{name} differ by {difference(one, other):.2g} of the largest"
    return None


@contextmanager
def untouched_generators(component: object) -> Iterator[None]:
    """Raises CheckFailed where the block changes the global generator of torch, numpy or Python."""

    def states() -> dict[str, object]:
        # numpy's legacy generator is the global one; its state is read, nothing is drawn.
        algorithm, keys, position, *rest = np.random.get_state(legacy=True)
        return {
            "torch": torch.get_rng_state().tolist(),
            "numpy": (algorithm, np.asarray(keys).tolist(), position, *rest),
            "random": random.getstate(),
        }

    before = states()
    yield
    after = states()
    changed = [name for name in before if before[name] != after[name]]
    require(
        not changed,
        component,
        "a call drew from a global random generator",
        expected="torch, numpy and random as they were",
        got=f"changed: {', '.join(changed)}",
        fix="Draw from the Noise or the torch.Generator that the method is handed; a reader needs neither.",
    )


def require_finite_padding(component: object, tokens: Tokens) -> None:
    """Raises CheckFailed where values that aren't there hold something that isn't finite."""
    wild = int((~torch.isfinite(tokens.values)).sum())
    require(
        wild == 0,
        component,
        "padding isn't finite",
        expected="0, or any finite number",
        got=f"{wild} values that are NaN or infinite",
        fix="Fill what is absent with zeros: NaN times a weight of zero is still NaN. Tokens.without_nan does.",
    )
