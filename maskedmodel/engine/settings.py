"""Settings of the encoder and the decoder, and the published sizes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positions = Literal["sincos", "interleaved", "learned", "table", "mlp", "rotary"]

# width, blocks, attention heads. Ti, S, B, L: Dosovitskiy et al. 2021 and Touvron et al. 2021; H as in MAE (patch 14).
PRESETS: dict[str, tuple[int, int, int]] = {
    "ti": (192, 12, 3),
    "s": (384, 12, 6),
    "b": (768, 12, 12),
    "l": (1024, 24, 16),
    "h": (1280, 32, 16),
}


class _Stack(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(gt=0, description="Width of a token, in values.")
    depth: int = Field(gt=0, description="Number of transformer blocks.")
    heads: int = Field(gt=0, description="Number of attention heads; divides dim.")
    mlp_ratio: float = Field(4.0, gt=0, description="Width of a block's hidden layer, as a multiple of dim.")
    mlp: Literal["gelu", "swiglu"] = Field(
        "gelu",
        description="gelu: two linear layers with the exact GELU between them. swiglu: a gated one (Shazeer 2020), "
        "whose first layer gives mlp_ratio * dim gates and as many values; an mlp_ratio of 8/3 then costs what 4 does "
        "with gelu.",
    )
    norm_eps: float = Field(1e-6, gt=0, description="Epsilon of every LayerNorm.")
    final_norm_eps: float | None = Field(
        None, gt=0, description="Epsilon of the LayerNorm after the last block. null: norm_eps."
    )
    positions: Positions = Field(
        "sincos",
        description="sincos: fixed, of the coordinates, equal to MAE's for two axes. interleaved: fixed, of the place "
        "in raster order, VideoMAE's. learned: a table per axis, added up. table: a learned vector per cell of the "
        "grid, as ViT and DINO have. mlp: a small network of the coordinates, Point-MAE's, for tokens off a grid too. "
        "rotary: queries and keys turned by the coordinates.",
    )
    repeat_positions: bool = Field(
        False,
        description="Whether what tells a token where it is, is added again before every block after the first, as in "
        "Point-MAE.",
    )
    channels: bool = Field(
        True,
        description="Whether a token is told which channel it came from, where tokens carry one: a learned embedding "
        "is added to its position, or what a small network makes of the channel's description.",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> _Stack:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} doesn't divide by heads {self.heads}")
        if self.positions == "rotary" and (self.dim // self.heads) % 2:
            raise ValueError(f"rotary positions need an even head width, got {self.dim // self.heads}")
        return self


class EncoderSettings(_Stack):
    """The encoder: a pre-norm vision transformer over visible tokens only."""

    preset: Literal["ti", "s", "b", "l", "h"] | None = Field(
        None, description="A published size, which sets dim, depth and heads where they aren't given."
    )
    dim: int = Field(192, gt=0, description="Width of a token, in values.")
    depth: int = Field(12, gt=0, description="Number of transformer blocks.")
    heads: int = Field(3, gt=0, description="Number of attention heads; divides dim.")
    class_token: bool = Field(True, description="Whether a learned class token stands before the tokens.")
    registers: int = Field(0, ge=0, description="Number of learned register tokens (Darcet et al. 2024).")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(preset := values.get("preset"), str) and preset in PRESETS:
            dim, depth, heads = PRESETS[values["preset"]]
            return {"dim": dim, "depth": depth, "heads": heads, **values}
        return values


class DecoderSettings(_Stack):
    """The decoder: light, and thrown away after pretraining. The default is MAE's, 8 blocks of width 512."""

    dim: int = Field(512, gt=0, description="Width of a token, in values.")
    depth: int = Field(8, gt=0, description="Number of transformer blocks.")
    heads: int = Field(16, gt=0, description="Number of attention heads; divides dim.")
    attention: Literal["self", "cross"] = Field(
        "self",
        description="self: visible and mask tokens attend to each other (MAE). cross: mask tokens attend to the "
        "encoder's output only (CrossMAE, arXiv 2401.14391).",
    )


class EncoderOnly(BaseModel):
    """An encoder without a decoder: what is fine-tuned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: EncoderSettings = Field(default_factory=EncoderSettings, description="The encoder.")


class ModelSettings(EncoderOnly):
    """The asymmetric encoder-decoder."""

    decoder: DecoderSettings = Field(default_factory=DecoderSettings, description="The decoder.")
