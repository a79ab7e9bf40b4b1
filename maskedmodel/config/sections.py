"""The sections of a run's config that every run has, whatever its components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from maskedmodel.config.errors import at_path
from maskedmodel.engine.settings import ModelSettings
from maskedmodel.settings import Settings

if TYPE_CHECKING:
    from maskedmodel.plugins import Kind

# The sections that name a component, and the kind of it.
SECTIONS: Mapping[str, Kind] = {
    "data": "data_source",
    "tokenizer": "tokenizer",
    "mask": "mask_scheduler",
    "objective": "objective",
}

DEFAULTS: Mapping[str, Mapping[str, Any]] = {"mask": {"name": "uniform"}, "objective": {"name": "patch"}}

CALLBACKS = (
    "Who looks at the run on its way: a list of callbacks by name. They may log, and ask the run to stop; what is "
    "computed stays the same."
)

_Beta = Annotated[float, Field(ge=0, lt=1)]
Probe = Literal["knn", "linear", "attentive", "efficient", "class_queries", "layers", "batchnorm", "cls_mean", "dense"]


class Section(BaseModel):
    """A section of settings that isn't a component's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StartSettings(Section):
    """Weights to start from instead of fresh ones. `start: PATH` is short for `start: {weights: PATH}`."""

    weights: str | None = Field(
        None,
        min_length=1,
        description="A run, one of its checkpoints, an export, or a file or folder that `maskedmodel import` reads. "
        "null: fresh weights.",
    )
    parts: Literal["all", "encoder"] = Field(
        "all",
        description="all: encoder and decoder, as far as the weights hold one. encoder: the encoder alone, and a fresh "
        "decoder.",
    )
    channels: Literal["repeat"] | tuple[Annotated[int, Field(ge=0)] | str | None, ...] | None = Field(
        None,
        description="What to do where a token holds other channels than there. repeat: the mean of theirs for each, "
        "rescaled. Or for each channel here the number or the name of theirs, null for one that they lack. null: "
        "refuse.",
    )

    @model_validator(mode="after")
    def _has_weights(self) -> StartSettings:
        if self.weights is None and (self.parts != "all" or self.channels is not None):
            raise at_path("start.weights", "is missing: what start.parts and start.channels say is about weights.")
        return self


class OptimSettings(Section):
    """AdamW with linear warm-up and cosine decay."""

    lr: float = Field(1.5e-4, gt=0, description="Peak learning rate for per_batch samples; scaled with train.batch.")
    per_batch: int | None = Field(256, gt=0, description="Samples that lr is meant for. null: lr is taken as it is.")
    warmup: float = Field(0.05, ge=0, description="Warm-up: a share of all steps if below 1, else a number of steps.")
    min_lr: float = Field(0.0, ge=0, description="Learning rate at the last step, absolute: it isn't scaled.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay per unit of learning rate.")
    betas: tuple[_Beta, _Beta] = Field((0.9, 0.95), description="AdamW's decay of its two moments, each in [0, 1).")
    eps: float = Field(1e-8, gt=0, description="AdamW's epsilon, in units of the gradient.")
    clip: float | None = Field(None, gt=0, description="Largest norm of the whole gradient. null: not clipped.")

    def peak_lr(self, batch: int) -> float:
        """The learning rate after warm-up, scaled linearly to `batch` samples a step (Goyal et al. 2017)."""
        return self.lr if self.per_batch is None else self.lr * batch / self.per_batch

    def warmup_steps(self, steps: int) -> int:
        """The number of warm-up steps of a run of `steps`."""
        return round(self.warmup * steps if self.warmup < 1 else self.warmup)


class TrainSettings(Section):
    """The training run."""

    steps: int = Field(2000, gt=0, description="Optimizer steps of the whole run.")
    batch: int = Field(128, gt=0, description="Samples a step, over all ranks and micro-batches together.")
    accumulate: int = Field(1, gt=0, description="Micro-batches a step; divides batch.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of weights, sample order, masks and augmentation.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of the forward pass. auto: bf16 where the hardware has it."
    )
    compile: bool = Field(False, description="Whether the model goes through torch.compile.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train. auto: cuda where there is one.")
    workers: int = Field(0, ge=0, description="Processes that read data. 0: the main process reads.")
    data_timeout: float = Field(300, ge=0, description="Seconds to wait for a batch of a worker. 0: for ever.")
    log_every: int = Field(10, gt=0, description="Steps between two lines of metrics.")
    validate_every: int = Field(0, ge=0, description="Steps between two validations. 0: at the start and the end only.")
    validation_samples: int = Field(512, gt=0, description="Most samples that a validation reads.")
    validation_ratio: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of tokens that validation hides, in (0, 1). null: the mean of the mask's ratio in the run.",
    )
    checkpoint_every: int = Field(500, gt=0, description="Steps between two checkpoints; the last step has one too.")
    keep: int = Field(2, gt=0, description="Number of newest checkpoints to keep.")
    keep_best: bool = Field(
        False, description="Whether the checkpoint of the lowest validation loss is written and kept, too."
    )
    on_out_of_memory: Literal["fail", "halve"] = Field(
        "fail",
        description="What to do where memory runs out in a step. halve: go on with micro-batches half as large, the "
        "batch of a step as before; of one process only.",
    )
    on_bad_sample: Literal["fail", "skip"] = Field("fail", description="What to do with a sample that can't be read.")
    bad_sample_budget: int = Field(100, ge=0, description="Bad samples to skip before the run fails after all.")
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        (),
        description="Where metrics go beside metrics.jsonl: short for `callbacks` of these names, but one that can't "
        "start is told and left out.",
    )

    @field_validator("accumulate")
    @classmethod
    def _divides(cls, accumulate: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch")
        if batch is not None and batch % accumulate:
            raise ValueError(f"{accumulate} micro-batches don't divide a batch of {batch}")
        return accumulate


class EvaluateSettings(Section):
    """What is looked at after training: features, probes and pictures."""

    pool: Literal["mean", "class"] = Field(
        "mean", description="What stands for a sample: the mean of its tokens or the class token."
    )
    protocol: Literal["split", "folds", "leave_one_out"] = Field(
        "split",
        description="What a probe is fitted to and tested on. split: the training and the validation part. folds: each "
        "group of samples in turn is tested by all others. leave_one_out: each sample in turn.",
    )
    probes: tuple[Probe, ...] = Field(
        ("knn", "linear"),
        min_length=1,
        description="What judges the encoder: k-NN, a linear layer, and others, each told of in docs/judging.md.",
    )
    probe_epochs: int = Field(
        20, gt=0, description="Epochs of the probes that are trained by gradient; 300 steps at least."
    )
    finetune_steps: int = Field(
        200, gt=0, description="Steps of the fine-tuning that `compare --score finetune:LABELS` judges by."
    )
    token_memory: float = Field(4.0, gt=0, description="GiB that the tokens of all samples may fill, as float16.")
    neighbours: int = Field(20, gt=0, description="Neighbours in the k-NN vote.")
    temperature: float = Field(0.07, gt=0, description="Temperature of the k-NN vote, in units of cosine similarity.")
    train_samples: int | None = Field(None, gt=0, description="Most labelled training samples to use. null: all.")
    val_samples: int | None = Field(None, gt=0, description="Most validation samples to score. null: all.")
    few_labels: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        (10, 50, 100), description="Numbers of labels that a linear probe is fitted to, too: where pretraining shows."
    )
    map: Literal["pca", "tsne", "umap"] = Field(
        "pca",
        description="How features are laid out on a plane in the report: two axes of PCA, t-SNE, or UMAP where "
        "umap-learn is installed.",
    )
    pictures: int = Field(8, ge=0, description="Samples in the grid of reconstructions.")
    every: int = Field(
        0,
        ge=0,
        description="Steps between two looks at the encoder while it trains: k-NN, a linear probe (C = 1), effective "
        "rank, and the loss at several mask ratios. 0: none.",
    )
    every_samples: int = Field(
        500, gt=0, description="Training samples, and validation samples, that such a look takes features of at most."
    )
    probe: bool = Field(True, description="Whether a run ends with k-NN and a linear probe, where there are labels.")


class Trained(BaseModel):
    """What the config of every kind of training run has, with the components it names.

    components  the sections that name a component, and the kind of it.
    defaults    what they hold where they aren't given.
    nullable    those that may be null: nothing of the kind is used.
    lists       the sections that list components, and the kind of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    components: ClassVar[Mapping[str, Kind]]
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]]
    nullable: ClassVar[frozenset[str]] = frozenset()
    lists: ClassVar[Mapping[str, Kind]] = {"callbacks": "callback"}

    if TYPE_CHECKING:
        data: SerializeAsAny[Settings] | None
        tokenizer: SerializeAsAny[Settings]
        start: StartSettings
        optim: OptimSettings
        train: TrainSettings
        callbacks: tuple[SerializeAsAny[Settings], ...]

    @field_validator("callbacks", check_fields=False)
    @classmethod
    def _differ(cls, callbacks: Any) -> Any:
        for number, one in enumerate(callbacks if isinstance(callbacks, tuple) else ()):
            if one in callbacks[:number]:
                first = callbacks.index(one)
                raise at_path(f"callbacks[{number}]", f"the same as callbacks[{first}]: all would be done twice.")
        return callbacks

    @field_validator("train", check_fields=False)
    @classmethod
    def _schedule_fits(cls, train: TrainSettings, info: ValidationInfo) -> TrainSettings:
        optim = info.data.get("optim")
        if optim is None:
            return train
        if optim.warmup >= 1 and optim.warmup_steps(train.steps) >= train.steps:
            raise at_path("optim.warmup", f"{optim.warmup:g} steps of warm-up fill a run of {train.steps} steps.")
        peak = optim.peak_lr(train.batch)
        if optim.min_lr > peak:
            raise at_path("optim.min_lr", f"{optim.min_lr:g} is above the peak of {peak:g}, which is lr after scaling.")
        return train


class RunConfig(Trained):
    """All settings of a run. Made by `load_config`, which knows the settings classes of the components."""

    components: ClassVar[Mapping[str, Kind]] = SECTIONS
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = DEFAULTS

    data: SerializeAsAny[Settings] | None = Field(
        None, description="Where samples come from: a data source by name. Imported weights have none."
    )
    tokenizer: SerializeAsAny[Settings] = Field(description="How a signal becomes tokens: a tokenizer by name.")
    mask: SerializeAsAny[Settings] = Field(description="What is hidden: a mask scheduler by name.")
    objective: SerializeAsAny[Settings] = Field(description="What hidden tokens are compared with: by name.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="Encoder and decoder.")
    start: StartSettings = Field(default_factory=StartSettings, description="Weights to start from.")
    optim: OptimSettings = Field(default_factory=OptimSettings, description="Optimizer and learning rate.")
    train: TrainSettings = Field(default_factory=TrainSettings, validate_default=True, description="Training.")
    evaluate: EvaluateSettings = Field(
        default_factory=EvaluateSettings, validate_default=True, description="What is measured and shown at the end."
    )
    callbacks: tuple[SerializeAsAny[Settings], ...] = Field((), description=CALLBACKS)

    @field_validator("evaluate")
    @classmethod
    def _class_token_exists(cls, evaluate: EvaluateSettings, info: ValidationInfo) -> EvaluateSettings:
        model = info.data.get("model")
        if model is not None and evaluate.pool == "class" and not model.encoder.class_token:
            raise at_path("evaluate.pool", "'class' needs model.encoder.class_token: true.")
        return evaluate
