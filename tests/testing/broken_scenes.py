"""Objectives that see a scene and break one rule each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from broken import fails  # type: ignore[import-not-found]
from torch import Tensor

from maskedmodel import Settings
from maskedmodel.scenes import Scene, SceneObjective
from maskedmodel.testing.fixtures import Direct


class FeaturesSettings(Settings):
    name: Literal["features-of-a-teacher"] = "features-of-a-teacher"


class Features(SceneObjective[FeaturesSettings]):
    """One that keeps every rule."""

    names = ("features",)

    def meet(self, tokenizer: Any, encoder: Any) -> None:
        super().meet(tokenizer, encoder)
        self.dim = encoder.settings.dim

    def width(self, tokenizer: Any) -> int:
        return int(self.dim)

    def momentum(self, progress: float) -> float:
        return 0.9

    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        assert scene.teacher is not None
        return {"features": (scene.prediction - scene.at_hidden(scene.teacher)).square().mean(-1)}

    def flops(self, visible: int, hidden: int) -> float:
        return 1.0


@fails("losses")
class GivesAScalar(Features):
    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        return {"features": super().losses(scene)["features"].mean()}


@fails("losses")
class GivesAnotherName(Features):
    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        return {"other": super().losses(scene)["features"]}


@fails("teacher_gradient")
class TrainsItsTeacher(Features):
    def meet(self, tokenizer: Any, encoder: Any) -> None:
        super().meet(tokenizer, encoder)
        assert self.teacher is not None
        self.teacher.requires_grad_(True)


@fails("teacher_gradient")
class LearnsNothing(Features):
    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        return {"features": super().losses(scene)["features"].detach() + 0 * scene.prediction.sum(-1)}


@fails("split")
class NormalisesOverTheBatch(Features):
    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        loss = super().losses(scene)["features"]
        return {"features": loss / loss.mean()}


@fails("state")
class CountsOutsideItsState(Features):
    calls = 0

    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        return {"features": super().losses(scene)["features"] * (1 + self.calls)}

    def after_step(self, encoder: Any, progress: float) -> None:
        super().after_step(encoder, progress)
        self.calls += 1


@fails("flops")
class HidesItsWork(Features):
    def flops(self, visible: int, hidden: int) -> float:
        return 0.0


class Values(Features):
    """One of hidden values alone, which keeps every rule and leaves out what is absent."""

    by_value = True

    def width(self, tokenizer: Any) -> int:
        return int(tokenizer.token_width)

    def momentum(self, progress: float) -> None:  # type: ignore[override]
        return None

    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        return {"features": scene.score(Direct(), scene.prediction)}


@fails("by_value")
class SeesWhatIsAbsent(Values):
    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        return {"features": (scene.prediction - scene.at_hidden(scene.tokens.values)).square().mean(-1)}
