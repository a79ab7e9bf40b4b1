"""Several objectives at once, each with a weight that may move over the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from maskedmodel import Objective, Settings, Tokenizer, Tokens
from maskedmodel.errors import ConfigError
from maskedmodel.nested import Nested, build, inside
from maskedmodel.scenes import Scene, SceneObjective
from maskedmodel.schedulers import FeatureEncoder
from maskedmodel.schedules import Weight, weight_at


class Part(BaseModel):
    """One of the objectives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Annotated[Settings, Nested("objective")] = Field(description="The objective, by name, with its settings.")
    weight: Weight = Field(
        1.0,
        description="What its loss counts for: a number, or a section with shape: linear or cosine, start and end, over "
        "the run.",
    )


Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")]


class MixtureSettings(Settings):
    """A weighted sum of objectives, each predicted by a slice of one head and recorded by itself."""

    name: Literal["mixture"] = "mixture"
    parts: dict[Label, Part] = Field(
        min_length=1,
        description="The objectives by a label, in small letters, under which metrics record each: loss_LABEL.",
    )


class Mixture(SceneObjective[MixtureSettings]):
    """The sum of the losses of its parts, each times its weight.

    The head is as wide as all parts together, and each part is shown its own slice of the prediction. What a part has
    (teacher, parameters, buffers, work) works as if it stood alone. A part that gives several losses has them recorded
    as loss_LABEL_NAME. Pictures are drawn from the first part that predicts a signal.
    """

    def __init__(self, settings: MixtureSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self._parts: dict[str, Objective[Any]] = {
            label: build("objective", part.of, f"parts.{label}.of") for label, part in self.settings.parts.items()
        }
        # Those with weights and buffers of their own, for optimizer and checkpoints.
        self.parts = nn.ModuleDict({label: part for label, part in self._parts.items() if isinstance(part, nn.Module)})
        self._names = {name: (label, own) for label in self._parts for name, own in self._named(label)}
        if len(self._names) < sum(len(list(self._named(label))) for label in self._parts):
            raise ConfigError(
                "Two losses of the mixture have one name.",
                where="objective.parts",
                expected="labels that give each loss a name of its own",
                got=", ".join(name for label in self._parts for name, _ in self._named(label)),
                fix="Choose other labels.",
            )
        self._slices: dict[str, slice] = {}  # of the prediction, known once the model is met
        self._drawn: str | None = None  # the part that pictures are drawn from

    def _named(self, label: str) -> Iterator[tuple[str, str]]:
        """The losses of a part: as they are called here, and there."""
        part = self._parts[label]
        own = part.names if isinstance(part, SceneObjective) else ("",)
        yield from ((label if len(own) == 1 else f"{label}_{name}", name) for name in own)

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self._names)

    @property
    def by_value(self) -> bool:  # type: ignore[override]
        """Whether all parts are."""
        return all(part.by_value for part in self._parts.values())

    def _each(self) -> Iterator[tuple[str, Objective[Any]]]:
        """The parts; what one of them refuses is told with the place of its settings."""
        for label, part in self._parts.items():
            with inside("objective", f"parts.{label}.of"):
                yield label, part

    def attach(self, tokenizer: Tokenizer[Any]) -> None:
        for _, part in self._each():
            part.attach(tokenizer)

    def meet(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        super().meet(tokenizer, encoder)
        for _, part in self._each():
            if isinstance(part, SceneObjective):
                part.meet(tokenizer, encoder)
        ends = list(accumulate(self._widths(tokenizer), initial=0))
        self._slices = {label: slice(*ends[i : i + 2]) for i, label in enumerate(self._parts)}
        values = torch.zeros(1, 1, tokenizer.token_width)
        able = (
            label
            for label, part in self._parts.items()
            if part.to_values(torch.zeros(1, 1, part.width(tokenizer)), part.statistics(values)) is not None
        )
        self._drawn = next(able, None)

    def _widths(self, tokenizer: Tokenizer[Any]) -> list[int]:
        return [part.width(tokenizer) for _, part in self._each()]

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return sum(self._widths(tokenizer))

    def taught(self, tokens: Tokens) -> Tensor | None:
        """The features (B, L, n D) of the n teachers of parts, side by side."""
        found = [part.taught(tokens) for part in self._parts.values() if isinstance(part, SceneObjective)]
        features = [one for one in found if one is not None]
        return torch.cat(features, -1) if features else None

    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        found: dict[tuple[str, str], Tensor] = {}
        teachers = self._teachers(scene)
        for label, part in self._parts.items():
            own = scene.prediction[..., self._slices[label]]
            if isinstance(part, SceneObjective):
                given = part.losses(replace(scene, prediction=own, teacher=teachers.get(label)))
                found |= {(label, name): loss for name, loss in given.items()}
            else:
                found[label, ""] = scene.score(part, own)
        return {name: found[key] for name, key in self._names.items() if key in found}

    def _teachers(self, scene: Scene) -> dict[str, Tensor]:
        """The features of each part's own teacher."""
        with_teacher = [
            label
            for label, part in self._parts.items()
            if isinstance(part, SceneObjective) and part.teacher is not None
        ]
        if scene.teacher is None:
            return {}
        return dict(zip(with_teacher, scene.teacher.chunk(len(with_teacher), -1), strict=True))

    def weight(self, name: str, progress: float) -> float:
        label, own = self._names[name]
        part, weight = self._parts[label], weight_at(self.settings.parts[label].weight, progress)
        return weight * part.weight(own, progress) if isinstance(part, SceneObjective) else weight

    def after_step(self, encoder: FeatureEncoder, progress: float) -> None:
        for part in self._parts.values():
            if isinstance(part, SceneObjective):
                part.after_step(encoder, progress)

    def flops(self, visible: int, hidden: int) -> float:
        scenes = (part for part in self._parts.values() if isinstance(part, SceneObjective))
        return sum(part.flops(visible, hidden) for part in scenes)

    def baseline(self, tokenizer: Tokenizer[Any]) -> float | None:
        """At the end of the run, where validation stands; None where a part's isn't known."""
        found = [part.baseline(tokenizer) for part in self._parts.values()]
        weights = [weight_at(part.weight, 1.0) for part in self.settings.parts.values()]
        known = [weight * loss for weight, loss in zip(weights, found, strict=True) if loss is not None]
        return sum(known) if len(known) == len(found) else None

    def statistics(self, values: Tensor) -> Tensor | None:
        return None if self._drawn is None else self._parts[self._drawn].statistics(values)

    def to_values(self, prediction: Tensor, statistics: Tensor | None) -> Tensor | None:
        if self._drawn is None:
            return None
        return self._parts[self._drawn].to_values(prediction[..., self._slices[self._drawn]], statistics)
