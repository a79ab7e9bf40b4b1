"""Leads by name: which there are, how a file calls them, and how often they are sampled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import Settings
from maskedmodel.errors import ConfigError
from maskedmodel_signals.places import OLD, Place, lead_places

MONTAGES: dict[str, tuple[str, ...]] = {
    "12-lead": ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"),
    "10-20": (
        *("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8"),
        *("P7", "P3", "Pz", "P4", "P8", "O1", "O2"),
    ),
}


class LeadSettings(Settings):
    """What a tokenizer and its data must agree on: which leads there are, and how often they are sampled."""

    leads: Annotated[str, Field(min_length=1)] | tuple[str, ...] = Field(
        "12-lead",
        description="The leads, in order: a list of names, or 12-lead (ECG) or 10-20 (19 electrodes). A recording that "
        "lacks some has them absent. Another list is no other model: a lead is known by where it is.",
    )
    places: dict[str, Place] = Field(
        {},
        description="Where leads of other names than those of ECG and of the 10-10 system are, such as {A1: [-0.95, 0, "
        "-0.3]}: x to the right, y to the front, z up, the head's radius being 1.",
    )
    rate: float = Field(100.0, gt=0, description="Samples per second that signals have, in Hz.")

    @property
    def names(self) -> tuple[str, ...]:
        """The leads, one by one. Raises ConfigError on a montage or a lead that nobody knows."""
        listed = MONTAGES.get(self.leads, (self.leads,)) if isinstance(self.leads, str) else self.leads
        names = tuple(name if name in self.places else known(name) or name for name in listed)
        where = sorted(set(names) - {*self.places, *lead_places()})
        if where or len(set(names)) < len(names) or not names:
            raise ConfigError(
                f"Nothing says where the leads {', '.join(where)} are." if where else "Leads are named once each.",
                where="leads",
                expected=f"{', '.join(MONTAGES)}, or names of the 12 ECG leads and of the 10-10 system, once each",
                got=self.leads if isinstance(self.leads, str) else ", ".join(self.leads),
                fix="Set places={NAME: [x, y, z]}, in the data and in the tokenizer." if where else None,
            )
        return names

    def described(self) -> Tensor:
        """Where each lead is, (leads, 3) float32."""
        places = {**lead_places(), **self.places}
        return torch.tensor([places[name] for name in self.names], dtype=torch.float32)


def known(label: str, names: Iterable[str] = ()) -> str | None:
    """The lead that a file calls `label`, such as "EEG FP1-REF" or "Fc5."; None where that is no such lead.

    `names` are leads of a user's own. A difference of two electrodes, such as "Fpz-Cz", is at neither place.
    """
    bare = re.sub(r"^(EEG|ECG|EKG)[\s:_]+", "", label.strip(), flags=re.IGNORECASE)
    bare = re.sub(r"[-\s]*(REF|LE|AVG|AR)$", "", bare.rstrip(". "), flags=re.IGNORECASE).strip()
    by_fold = {name.casefold(): name for name in (*lead_places(), *OLD, *names)}
    found = by_fold.get(label.strip().casefold()) or by_fold.get(bare.casefold())
    return OLD.get(found, found) if found is not None else None
