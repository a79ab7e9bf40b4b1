"""An encoder with a task on it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from maskedmodel.components import Tokenizer
from maskedmodel.engine.encoder import Encoder
from maskedmodel.engine.model import fitting
from maskedmodel.engine.settings import EncoderOnly
from maskedmodel.engine.signals import SignalModel
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.tasks import Encoded, Labels, Task
from maskedmodel.tokens import Mask, Tokens


class FineTuned(SignalModel):
    """An encoder and a task's head on it. `model(signal)` gives predictions; `encode` and `embed` give features.

    tokenizer  what cuts the signals.
    task       what is predicted; its head is made here.
    settings   the encoder's.
    labels     what the data's labels mean, and how many training samples have each.
    scheduler  what hides tokens in training, where something does. Nothing is hidden otherwise, and never in use.
    averaged   whether a moving average of all weights is kept, with which the model predicts in evaluation mode.
    """

    average: nn.ModuleDict | None

    def __init__(
        self,
        tokenizer: Tokenizer[Any],
        task: Task[Any],
        settings: EncoderOnly,
        labels: Labels,
        scheduler: MaskScheduler[Any] | None = None,
        averaged: bool = False,
    ) -> None:
        super().__init__(tokenizer, settings)
        self.encoder = Encoder(settings.encoder, tokenizer)
        task.attach(tokenizer, settings.encoder.dim, labels)
        self.task, self.labels, self.scheduler = task, labels, scheduler
        if scheduler is not None:
            scheduler.attach(tokenizer, self.encoder)
        if task.before_norm:  # nothing reads what it gives, so it stays as it was
            self.encoder.norm.requires_grad_(False)
        self.average = None
        if averaged:
            self.average = nn.ModuleDict({"encoder": deepcopy(self.encoder), "task": deepcopy(task)})
            self.average.requires_grad_(False)

    def forward(self, signal: Tensor | Tokens, mask: Mask | None = None, kept: Tensor | None = None) -> Tensor:
        """Predictions (B, ...), whose form is the task's.

        signal  a prepared batch, or its tokens.
        mask    which tokens the encoder doesn't see. None: it sees all.
        kept    (B, blocks, 2), what the halves of the encoder's blocks are multiplied by: for training.
        """
        tokens = self.tokens(signal)
        mask = Mask.nothing(tokens) if mask is None else fitting(mask, tokens)
        encoder: nn.Module = self.encoder
        task: nn.Module = self.task
        if self.average is not None and not self.training:
            encoder, task = self.average["encoder"], self.average["task"]
        latent = encoder(tokens.values, tokens.layout, mask.selection, kept=kept, norm=not self.task.before_norm)
        has_class = self.settings.encoder.class_token
        encoded = Encoded(latent, self.encoder.prefix, has_class, tokens, mask.ids_keep, mask.keep_valid)
        prediction: Tensor = task(encoded)
        return prediction

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average towards the weights: average * decay + weights * (1 - decay)."""
        if self.average is None:
            return
        for name, module in (("encoder", self.encoder), ("task", self.task)):
            ours, theirs = self.average[name].state_dict(), module.state_dict()
            for key, value in ours.items():
                if value.is_floating_point():
                    value.lerp_(theirs[key], 1 - decay)
                else:
                    value.copy_(theirs[key])

    def settle(self) -> None:
        """Make the average the weights, and keep none any more: what a model is used with after training."""
        if self.average is not None:
            for name, module in (("encoder", self.encoder), ("task", self.task)):
                module.load_state_dict(self.average[name].state_dict())
            self.average = None
