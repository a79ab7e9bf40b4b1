"""Several objectives at once, each with a weight that may move over the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from maskedmodel import Objective, Settings, Tokenizer, Tokens
from maskedmodel.nested import Nested, build, inside
from maskedmodel.scenes import Scene, SceneObjective
from maskedmodel.schedulers import FeatureEncoder
from maskedmodel.schedules import Weight, weight_at

Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")]


class Part(BaseModel):
    """One of the objectives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Annotated[Settings, Nested("objective")] = Field(description="The objective, by name, with its settings.")
    weight: Weight = Field(
        1.0, description="What its loss counts for: a number, or a section with shape (linear, cosine), start and end."
    )


class MixtureSettings(Settings):
    """A weighted sum of objectives, each predicted by a slice of one head and recorded by itself."""

    name: Literal["mixture"] = "mixture"
    parts: dict[Label, Part] = Field(
        min_length=1, description="The objectives by a label, under which metrics record the loss of each: loss_LABEL."
    )


class Mixture(SceneObjective[MixtureSettings]):
    """The sum of the losses of its parts, each times its weight.

    The head is as wide as all parts together, and each part is shown its own slice of the prediction. What a part has
    (teacher, parameters, buffers, work) works as if it stood alone. A part that gives several losses has them recorded
    as loss_LABEL.NAME. Pictures are drawn from the first part that predicts a signal.
    """

    def __init__(self, settings: MixtureSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        made = {label: build("objective", part.of, _path(label)) for label, part in self.settings.parts.items()}
        self._parts: dict[str, Objective[Any]] = made
        self._scenes = {label: part for label, part in made.items() if isinstance(part, SceneObjective)}
        # For optimizer and checkpoints: what has weights or buffers of its own.
        self.parts = nn.ModuleDict({label: part for label, part in made.items() if isinstance(part, nn.Module)})
        own = {label: part.names if label in self._scenes else ("",) for label, part in made.items()}
        # What a loss is called here, by the label and its own name. A label holds no point, so names are unique.
        self._names = {(a, b): f"{a}.{b}" if len(names) > 1 else a for a, names in own.items() for b in names}
        self.names = tuple(self._names.values())  # type: ignore[misc]
        self._source = {name: key for key, name in self._names.items()}
        self.by_value = False  # known once all parts are attached
        self._slices: dict[str, slice] = {}
        self._drawn: str | None = None  # the part that pictures are drawn from

    @classmethod
    def example_settings(cls, folder: Path) -> MixtureSettings:
        """The values of a patch and a teacher's features, for the conformance kit."""
        latent = {"of": {"name": "latent"}, "weight": {"start": 0.1, "end": 1.0}}
        return MixtureSettings.model_validate({"parts": {"values": {"of": {"name": "patch"}}, "features": latent}})

    def attach(self, tokenizer: Tokenizer[Any]) -> None:
        for label, part in self._parts.items():
            with inside("objective", _path(label)):
                part.attach(tokenizer)
        self.by_value = all(part.by_value for part in self._parts.values())

    def meet(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        for label, scene in self._scenes.items():
            with inside("objective", _path(label)):
                scene.meet(tokenizer, encoder)
        values, self._slices, self._drawn = torch.zeros(1, 1, tokenizer.token_width), {}, None
        start = 0
        for label, part in self._parts.items():
            with inside("objective", _path(label)):
                end = start + part.width(tokenizer)
            if part.to_values(torch.zeros(1, 1, end - start), part.statistics(values)) is not None:
                self._drawn = self._drawn or label
            self._slices[label], start = slice(start, end), end

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return max(int(one.stop) for one in self._slices.values())

    def taught(self, tokens: Tokens) -> Any:
        """By label, what the teacher of each part says; None where none has one."""
        found = {label: part.taught(tokens) for label, part in self._scenes.items()}
        return found if any(one is not None for one in found.values()) else None

    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        found: dict[tuple[str, str], Tensor] = {}
        taught: Any = scene.teacher or {}  # as `taught` gives it
        for label, part in self._parts.items():
            own = scene.prediction[..., self._slices[label]]
            if isinstance(part, SceneObjective):
                given = part.losses(replace(scene, prediction=own, teacher=taught.get(label)))
                found |= {(label, name): loss for name, loss in given.items()}
            else:
                found[label, ""] = scene.score(part, own)
        return {self._names.get(key, "/".join(key)): loss for key, loss in found.items()}

    def weight(self, name: str, progress: float) -> float:
        label, own = self._source[name]
        weight = weight_at(self.settings.parts[label].weight, progress)
        return weight * self._scenes[label].weight(own, progress) if label in self._scenes else weight

    def after_step(self, encoder: FeatureEncoder, progress: float) -> None:
        for scene in self._scenes.values():
            scene.after_step(encoder, progress)

    def flops(self, visible: int, hidden: int) -> float:
        return sum(scene.flops(visible, hidden) for scene in self._scenes.values())

    def baseline(self, tokenizer: Tokenizer[Any]) -> float | None:
        """By the weights at the end of the run, at which validation stands; None where a part's isn't known."""
        total = 0.0
        for label, part in self._parts.items():
            known = part.baseline(tokenizer)
            if known is None:
                return None
            total += weight_at(self.settings.parts[label].weight, 1.0) * known
        return total

    def statistics(self, values: Tensor) -> Tensor | None:
        return None if self._drawn is None else self._parts[self._drawn].statistics(values)

    def to_values(self, prediction: Tensor, statistics: Tensor | None) -> Tensor | None:
        if self._drawn is None:
            return None
        return self._parts[self._drawn].to_values(prediction[..., self._slices[self._drawn]], statistics)


def _path(label: str) -> str:
    return f"parts.{label}.of"
