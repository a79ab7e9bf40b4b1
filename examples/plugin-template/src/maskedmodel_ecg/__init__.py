"""The modality `ecg`: signals (B, channels, length), cut into pieces of one channel each."""

from typing import Literal

from pydantic import Field

from maskedmodel import GridTokenizer, Settings, hookimpl
from maskedmodel_ecg.data import EcgRecords, beats


class EcgSettings(Settings):
    name: Literal["ecg"] = "ecg"
    channels: int = Field(12, gt=0, description="Number of channels (leads, sensors) of a signal.")
    length: int = Field(600, gt=0, description="Length of a signal, in samples.")
    patch: int = Field(50, gt=0, description="Length of a token, in samples; divides the length.")


class EcgTokenizer(GridTokenizer[EcgSettings]):
    """Each token is a piece of one channel, so any number of channels up to the usual one can be cut."""

    axes = ("time",)
    separate_channels = True

    def example(self, batch, generator):
        return beats(batch, self.channels, self.settings.length, generator)


@hookimpl
def maskedmodel_tokenizers():
    return [EcgTokenizer]


@hookimpl
def maskedmodel_data_sources():
    return [EcgRecords]
