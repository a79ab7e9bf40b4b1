from typing import Literal

from pydantic import Field

from maskedmodel import GridTokenizer, Settings, hookimpl


class EcgSettings(Settings):
    name: Literal["ecg"] = "ecg"
    channels: int = Field(12, gt=0, description="Number of channels (leads, sensors) of a signal.")
    length: int = Field(1000, gt=0, description="Length of a signal, in samples.")
    patch: int = Field(50, gt=0, description="Length of a token, in samples; divides the length.")


class EcgTokenizer(GridTokenizer[EcgSettings]):
    """Each token is a piece of one channel."""

    axes = ("time",)
    separate_channels = True


@hookimpl
def maskedmodel_tokenizers():
    return [EcgTokenizer]
