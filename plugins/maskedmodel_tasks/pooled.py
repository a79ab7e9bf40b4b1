"""A head on one vector per sample, as in MAE's fine-tuning (He et al. 2021)."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import Field
from torch import Tensor, nn

from maskedmodel import Settings, Task
from maskedmodel.tasks import Encoded

HEAD_SPREAD = 2e-5  # of the head's first weights, as published: it starts out by saying nothing


class PooledSettings(Settings):
    """What such heads share."""

    pool: Literal["mean", "class"] = Field(
        "mean",
        description="What stands for a sample. mean: the mean of its tokens before the encoder's final norm, through a "
        "fresh norm. class: the class token behind it.",
    )


S = TypeVar("S", bound=PooledSettings)


class Pooled(Task[S], Generic[S]):
    """One vector per sample, a norm and a linear layer."""

    @property
    def before_norm(self) -> bool:  # type: ignore[override]
        return self.settings.pool == "mean"

    def make_head(self, dim: int, outputs: int) -> None:
        """The norm and the linear layer, for `outputs` numbers per sample."""
        self.norm = nn.LayerNorm(dim, eps=1e-6) if self.before_norm else nn.Identity()
        self.head = nn.Linear(dim, outputs)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_SPREAD)
        nn.init.zeros_(self.head.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """(B, outputs)."""
        pooled = encoded.mean() if self.before_norm else encoded.first()
        prediction: Tensor = self.head(self.norm(pooled))
        return prediction
