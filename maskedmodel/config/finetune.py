"""The sections of a fine-tuning run's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator

from maskedmodel.config.errors import at_path
from maskedmodel.config.sections import CALLBACKS, OptimSettings, Section, StartSettings, Trained, TrainSettings
from maskedmodel.engine.settings import EncoderOnly
from maskedmodel.settings import Settings

if TYPE_CHECKING:
    from maskedmodel.plugins import Kind

_Beta = Annotated[float, Field(ge=0, lt=1)]


class AdaptSettings(Section):
    """How an encoder is adapted to a task."""

    labels: Annotated[int, Field(gt=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$")] | None = Field(
        None,
        description="Labelled training samples to use: a number, or a share such as 10%. Classes keep their shares, "
        "and of one seed fewer are among more. null: all.",
    )
    layer_decay: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Layer-wise decay: a block learns at this factor of the rate of the block after it. 1: all alike.",
    )
    freeze: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        0,
        description="Blocks of the encoder, from its input on, that stay as they are, its embeddings with them. all: "
        "the whole encoder.",
    )
    head_steps: float = Field(
        0, ge=0, description="Steps at the beginning in which the head alone learns: a share of all if below 1."
    )
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="Stochastic depth of the last block; it grows evenly from 0 in the first."
    )
    mixup: float = Field(
        0.0, ge=0, description="Mixup of pairs of samples: both parameters of the beta distribution. 0: none."
    )
    cutmix: float = Field(
        0.0, ge=0, description="CutMix of pairs: a box of tokens of the other sample. As mixup; with both, half each."
    )
    stripes: int = Field(
        0,
        ge=0,
        description="SpecAugment: stripes of time, and as many of frequency, that are set to the mean. 0: none.",
    )
    stripe_time: float = Field(
        0.1875, ge=0, le=1, description="Widest stripe of time, as a share of a clip's frames: 192 of 1024 in AudioMAE."
    )
    stripe_frequency: float = Field(
        0.375, ge=0, le=1, description="Widest stripe of frequency, as a share of the bins: 48 of 128 in AudioMAE."
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of a moving average of the weights, which is then used. null: none."
    )


class FinetuneOptim(OptimSettings):
    """AdamW with linear warm-up and cosine decay."""

    lr: float = Field(4e-3, gt=0, description="Peak learning rate for per_batch samples; scaled with train.batch.")
    min_lr: float = Field(1e-6, ge=0, description="Learning rate at the last step, absolute: it isn't scaled.")
    betas: tuple[_Beta, _Beta] = Field((0.9, 0.999), description="AdamW's decay of its two moments, each in [0, 1).")


class FinetuneTrain(TrainSettings):
    """The training run."""

    steps: int = Field(200, gt=0, description="Optimizer steps of the whole run.")
    batch: int = Field(32, gt=0, description="Samples a step, over all ranks and micro-batches together.")
    validate_every: int = Field(
        50, ge=0, description="Steps between two validations. 0: at the start and the end only."
    )

    @field_validator("validation_ratio")
    @classmethod
    def _hides_nothing(cls, ratio: float | None) -> float | None:
        if ratio is not None:
            raise at_path("train.validation_ratio", "nothing is hidden in the validation of a fine-tuned model.")
        return ratio


class FinetuneConfig(Trained):
    """All settings of a fine-tuning run."""

    components: ClassVar[Mapping[str, Kind]] = {
        "data": "data_source",
        "tokenizer": "tokenizer",
        "task": "task",
        "mask": "mask_scheduler",
    }
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"task": {"name": "classify"}}
    nullable: ClassVar[frozenset[str]] = frozenset({"mask"})

    data: SerializeAsAny[Settings] | None = Field(None, description="Where samples come from: a data source by name.")
    tokenizer: SerializeAsAny[Settings] = Field(description="How a signal becomes tokens: a tokenizer by name.")
    task: SerializeAsAny[Settings] = Field(description="What is learned from labels: a task by name.")
    mask: SerializeAsAny[Settings] | None = Field(
        None, description="What is hidden in training: a mask scheduler by name. null: nothing."
    )
    model: EncoderOnly = Field(default_factory=EncoderOnly, description="The encoder.")
    start: StartSettings = Field(default_factory=StartSettings, description="Weights to start from.")
    adapt: AdaptSettings = Field(default_factory=AdaptSettings, description="How the encoder is adapted.")
    optim: FinetuneOptim = Field(default_factory=FinetuneOptim, description="Optimizer and learning rate.")
    train: FinetuneTrain = Field(default_factory=FinetuneTrain, validate_default=True, description="Training.")
    callbacks: tuple[SerializeAsAny[Settings], ...] = Field((), description=CALLBACKS)

    @field_validator("adapt")
    @classmethod
    def _fits_the_encoder(cls, adapt: AdaptSettings, info: Any) -> AdaptSettings:
        model = info.data.get("model")
        if model is not None and isinstance(adapt.freeze, int) and adapt.freeze > model.encoder.depth:
            raise at_path("adapt.freeze", f"{adapt.freeze} blocks of an encoder that has {model.encoder.depth}.")
        return adapt
