"""The base of every component's settings. Nothing here needs torch, so that a config can be read without it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Settings of one component: frozen, no extra keys, every field described with its unit.

    A subclass adds `name: Literal["its-name"] = "its-name"`, which is how a config picks the component.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Which component it is.")
